// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/inspect/lldp"
	"github.com/ironhand/ironhand/netconfig"
)

// announcement is what a switch says of its VLANs: IEEE 802.1Q, annex D.2.3.
func announcement(ids ...int) (tlvs []lldp.TLV) {
	for _, id := range ids {
		tlvs = append(tlvs, lldp.TLV{Type: 127, Value: []byte{0, 0x80, 0xc2, 3, byte(id >> 8), byte(id), 1, 'x'}})
	}
	return append(tlvs, lldp.TLV{})
}

func TestWantedVLANs(t *testing.T) {
	nics := []netconfig.NIC{
		{Name: "lo", Loopback: true}, {Name: "eth0", MAC: "02:00:00:00:00:01", PermanentMAC: "52:54:00:aa:bb:01"}, {Name: "eth1", MAC: "52:54:00:aa:bb:02"},
		{Name: "eth0.7", Kind: "vlan", MAC: "52:54:00:aa:bb:02"}, {Name: "p1.s0"},
	}
	heard := map[string][]lldp.TLV{"eth0": announcement(100, 4095, 0, 101), "eth1": announcement(100), "gone": announcement(5)}
	tests := []struct {
		words, want, unknown string
		deaf                 bool
	}{
		{"", "", "", false},
		{"eth0.100", "eth0.100", "", true},
		{"52:54:00:AA:BB:01.100,52-54-00-aa-bb-02.5", "eth0.100 eth1.5", "", true},
		{"02:00:00:00:00:01.100", "", "02:00:00:00:00:01.100", false}, // not the permanent address
		{"p1.s0.20", "p1.s0.20", "", true},
		{"p1.s0", "", "", false},
		{"eth0", "eth0.100 eth0.101", "", false},
		{"eth0,eth1.9", "eth1.9", "", true},
		{"all", "eth0.100 eth0.101 eth1.100", "", false},
		{"all,eth1.100", "eth0.100 eth0.101 eth1.100", "", false},
		{"eth0.0,eth0.4095,eth0.x,eth0.,eth0.-1,eth0.99999999999999999999,eth9.1,.5,lo.5", "", "eth0.0 eth0.4095 eth0.x eth0. eth0.-1 eth0.99999999999999999999 eth9.1 .5 lo.5", false},
	}
	for _, test := range tests {
		t.Run(test.words, func(t *testing.T) {
			known := heard
			if test.deaf {
				known = nil
			}
			wanted, unknown := wantedVLANs(commaWords(test.words), nics, known)
			var got []string
			for _, w := range wanted {
				if w.NIC != fmt.Sprintf("%s.%d", w.Parent, w.ID) {
					t.Errorf("%+v", w)
				}
				got = append(got, w.NIC)
			}
			if strings.Join(got, " ") != test.want || strings.Join(unknown, " ") != test.unknown {
				t.Errorf("wantedVLANs() = %q, unknown %q, want %q, %q", got, unknown, test.want, test.unknown)
			}
		})
	}
	var many []int
	for id := 1; id < 4095; id++ {
		many = append(many, id)
	}
	if wanted, _ := wantedVLANs([]string{"all"}, nics, map[string][]lldp.TLV{"eth0": announcement(many...)}); len(wanted) != maxVLANs {
		t.Errorf("%d interfaces of what a switch says, want %d", len(wanted), maxVLANs)
	}
}

// trunk is a kernel with VLANs. It refuses those in broken.
type trunk struct {
	state  netconfig.State
	broken string
}

func (k *trunk) State(context.Context) (netconfig.State, error) {
	s := k.state
	s.NICs = slices.Clone(s.NICs)
	return s, nil
}

func (k *trunk) Do(_ context.Context, c netconfig.Change) error {
	nic := func(name string) *netconfig.NIC {
		return &k.state.NICs[slices.IndexFunc(k.state.NICs, func(n netconfig.NIC) bool { return n.Name == name })]
	}
	switch c := c.(type) {
	case netconfig.AddVLAN:
		if c.NIC == k.broken {
			return errors.New("operation not supported")
		}
		k.state.NICs = append(k.state.NICs, netconfig.NIC{Name: c.NIC, Kind: "vlan", Parent: c.Parent, VLAN: c.ID, Options: map[netconfig.Option]int{netconfig.AcceptRA: 1}})
	case netconfig.SetOption:
		nic(c.NIC).Options[c.Option] = c.Value
	case netconfig.SetUp:
		nic(c.NIC).Up = true
	}
	return nil
}

// The interfaces are on, listen to no routers, and are made once; one that cannot be made is said, and does not keep the others away.
func TestMakeVLANs(t *testing.T) {
	k := &trunk{broken: "eth0.666", state: netconfig.State{NICs: []netconfig.NIC{{Name: "eth0", PermanentMAC: "52:54:00:aa:bb:01", Options: map[netconfig.Option]int{netconfig.AcceptRA: 1}}}}}
	a, console := newTestAgent(t, System{Network: func() (netconfig.Kernel, error) { return k, nil }})
	if a.makeVLANs(t.Context(), nil) || len(k.state.NICs) != 1 {
		t.Errorf("unasked, there are %+v", k.state.NICs)
	}
	a.config.VLANs = []string{"eth0.666", "52:54:00:AA:BB:01.100", "eth0", "eth9.5"}
	for _, test := range []struct {
		heard map[string][]lldp.TLV
		made  bool
		want  string
	}{
		{nil, true, "eth0 eth0.100"},
		{nil, false, "eth0 eth0.100"},
		{map[string][]lldp.TLV{"eth0": announcement(100, 200)}, true, "eth0 eth0.100 eth0.200"},
	} {
		if made := a.makeVLANs(t.Context(), test.heard); made != test.made {
			t.Errorf("makeVLANs() = %v, want %v", made, test.made)
		}
		var got []string
		for _, n := range k.state.NICs {
			if got = append(got, n.Name); !n.Up || n.Options[netconfig.AcceptRA] != 0 {
				t.Errorf("%s is up %v, with %v", n.Name, n.Up, n.Options)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("interfaces %q, want %s", got, test.want)
		}
	}
	wantText(t, "console", console.String(), `WARNING: ipa-enable-vlan-interfaces: "eth9.5" names no interface`, "WARNING: VLAN interface eth0.666: add vlan eth0.666: 666 on eth0: operation not supported")
}

func FuzzWantedVLANs(f *testing.F) {
	f.Add("eth0.100,all,52:54:00:aa:bb:01.7", []byte{0, 0x80, 0xc2, 3, 0, 9, 1, 'x'})
	nics := []netconfig.NIC{{Name: "eth0", PermanentMAC: "52:54:00:aa:bb:01"}}
	f.Fuzz(func(t *testing.T, words string, tlv []byte) {
		wanted, _ := wantedVLANs(commaWords(words), nics, map[string][]lldp.TLV{"eth0": {{Type: 127, Value: tlv}}, "eth7": {{Type: 127, Value: tlv}}})
		for _, w := range wanted {
			if w.Parent != "eth0" || w.ID < 1 || w.ID > 4094 || !slices.Contains(wanted, w) {
				t.Errorf("%+v", w)
			}
		}
	})
}
