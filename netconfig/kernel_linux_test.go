// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// A driver that does not answer, as of a NIC that is broken, is one that is not known; the network is brought up all the same.
func TestNICWhoseDriverDoesNotAnswer(t *testing.T) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = "nosuch0", 7
	n, err := nic(&netlink.Device{LinkAttrs: attrs}, map[int]string{7: "nosuch0"}, -1) // a socket that answers nothing
	if err != nil || n.Name != "nosuch0" || n.Driver != "" {
		t.Errorf("nic() = %v, %v", n, err)
	}
}

func TestAskInfiniBand(t *testing.T) {
	_, err := NewAsker().Ask(t.Context(), NIC{Name: "ib0", MAC: "80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1"}, DHCP4)
	if err == nil || !strings.Contains(err.Error(), "InfiniBand") {
		t.Errorf("Ask() = %v", err)
	}
}
