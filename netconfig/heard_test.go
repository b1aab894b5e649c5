// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"encoding/hex"
	"slices"
	"testing"
)

func TestHeard(t *testing.T) {
	const arp = "0806000108000604000152540000000100000000000000000000c0000263"
	tests := []struct {
		name  string
		frame string
		vlan  int // whose tag the kernel has taken off
		vlans []int
		port  string
	}{
		{"tag on the frame", "ffffffffffff5254000000018100e064" + arp, 0, []int{100}, ""},
		{"tag taken off", "ffffffffffff525400000001" + arp, 100, []int{100}, ""},
		{"two tags", "ffffffffffff52540000000188a80005810000c8" + arp, 0, []int{5}, ""},
		{"priority alone", "ffffffffffff52540000000181006000" + arp, 0, nil, ""},
		{"LLDP", "0180c200000e52540000000188cc0207045254000000010403073137060200780000", 0, nil, "17"},
		{"LLDP that breaks off", "0180c200000e52540000000188cc02070452540000000104030731370602", 0, nil, "17"},
		{"short", "ffff", 0, nil, ""},
		{"nothing", "", 0, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.frame)
			if err != nil {
				t.Fatal(err)
			}
			var h Heard
			h.frame(b, tt.vlan)
			h.frame(b, tt.vlan)
			port := ""
			if h.Neighbour != nil {
				port = h.Neighbour.PortID
			}
			if !slices.Equal(h.VLANs, tt.vlans) || port != tt.port {
				t.Errorf("heard VLANs %v, port %q; want %v, %q", h.VLANs, port, tt.vlans, tt.port)
			}
		})
	}
}

func FuzzHeard(f *testing.F) {
	for _, frame := range []string{"ffffffffffff525400000001810000640806", "0180c200000e52540000000188cc0207045254000000010403073137060200780000"} {
		b, err := hex.DecodeString(frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var h Heard
		h.frame(one, 0)
		h.frame(two, 7)
		if !slices.IsSorted(h.VLANs) || len(h.VLANs) > 2 {
			t.Errorf("VLANs %v", h.VLANs)
		}
		r := Report{NICs: []NICReport{{Name: "eth0", VLANs: h.VLANs, Neighbour: h.Neighbour}}, Connections: []Connection{{Path: Path{NIC: "eth0"}, TCP: Silent}}}
		r.Cause = r.cause(Target{Host: "192.0.2.1", Port: 80})
		for _, c := range r.String() {
			if c < ' ' && c != '\n' {
				t.Errorf("control character in %q", r.String())
			}
		}
	})
}
