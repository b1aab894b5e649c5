// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netconfig_test

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/netconfig/netnstest"
)

// bridged is what ip(8) says of the bridge, and of what is in it.
func bridged(t *testing.T, name string) (forwardDelay, stp int, mac, alias string, ports []string) {
	t.Helper()
	var list []struct {
		IfName, IfAlias, Address, Master string
		LinkInfo                         struct {
			Kind string `json:"info_kind"`
			Data struct {
				ForwardDelay int `json:"forward_delay"`
				STP          int `json:"stp_state"`
			} `json:"info_data"`
		}
	}
	if err := json.Unmarshal(netnstest.IP(t, "-d -j link show"), &list); err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if d.IfName == name {
			if d.LinkInfo.Kind != "bridge" {
				t.Errorf("%s is a %q", name, d.LinkInfo.Kind)
			}
			forwardDelay, stp, mac, alias = d.LinkInfo.Data.ForwardDelay, d.LinkInfo.Data.STP, d.Address, d.IfAlias
		}
		if d.Master == name {
			ports = append(ports, d.IfName)
		}
	}
	slices.Sort(ports)
	return forwardDelay, stp, mac, alias, ports
}

// A bridge of several NICs: the machine is reached by each, and the machines behind them reach each other. A NIC that comes late takes its place.
func TestRootBridge(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	behind := map[string]*netnstest.Peer{}
	join := func(nic, mac, address string) {
		p := netnstest.NewPeer(t)
		p.Cable(t, nic, mac, "far")
		p.IP(t, "addr add "+address+"/24 dev far")
		p.Listen(t, address+":80")
		behind[address] = p
	}
	join("eth0", "52:54:00:aa:bb:09", "192.0.2.1")
	join("eth1", "52:54:00:aa:bb:02", "192.0.2.2")
	k, _ := kernel(t)
	plan, err := netconfig.ParseCmdline("bridge=br0:eth0,eth1,eth2 ip=192.0.2.10::192.0.2.1:24::br0:none:1400", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := plan.Apply(t.Context(), k); err == nil || !strings.Contains(err.Error(), `no NIC is named "eth2"`) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Apply() = %v, want that eth2 is not there, and no more", err)
		}
	}
	check := func(ports ...string) {
		t.Helper()
		delay, stp, mac, alias, got := bridged(t, "br0")
		if delay != 0 || stp != 0 || mac != "52:54:00:aa:bb:09" || alias != "ironhand link br0" {
			t.Errorf("br0: forward delay %d, spanning tree %d, MAC %s, alias %q", delay, stp, mac, alias)
		}
		same(t, "ports", got, ports)
		mtu, addresses := addresses(t, "br0")
		same(t, "addresses", addresses, []string{"192.0.2.10/24"})
		if mtu != 1400 {
			t.Errorf("mtu %d, want 1400", mtu)
		}
	}
	check("eth0", "eth1")
	same(t, "routes", routes(t), []string{"default via 192.0.2.1 dev br0 metric 0"})
	reaches(t, "192.0.2.1:80")
	reaches(t, "192.0.2.2:80")
	across := func(from, to string) {
		t.Helper()
		var err error
		behind[from].Do(func() {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", to+":80", 5*time.Second); err == nil {
				c.Close()
			}
		})
		if err != nil {
			t.Errorf("from %s to %s: %v", from, to, err)
		}
	}
	across("192.0.2.1", "192.0.2.2")

	r := netconfig.Check(t.Context(), k, netconfig.Target{Host: "192.0.2.1", Port: 81})
	for _, line := range []string{"bridge br0: mtu 1400, link, 192.0.2.10/24", "bridge br0: member eth0 is up", "bridge br0: member eth1 is up", "192.0.2.1 refuses connections to port 81"} {
		if !strings.Contains(r.String(), line) {
			t.Errorf("no %q in the verdict\n%s", line, r)
		}
	}

	join("eth2", "52:54:00:aa:bb:01", "192.0.2.3") // with a lower address than the others, which a bridge would take by itself
	for range 2 {
		if err := plan.Apply(t.Context(), k); err != nil {
			t.Errorf("Apply() with eth2 = %v", err)
		}
	}
	check("eth0", "eth1", "eth2")
	reaches(t, "192.0.2.3:80")
	across("192.0.2.3", "192.0.2.2")

	// Another description: the bridge goes, and the NIC is one like others.
	alone, err := netconfig.ParseCmdline("ip=192.0.2.10:::24::eth1:none", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := alone.Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName("br0"); err == nil {
		t.Error("br0 is there")
	}
	reaches(t, "192.0.2.2:80")
}
