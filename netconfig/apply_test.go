// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// twoLinks is a plan for eth0 (IPv4 and IPv6) and eth1 (IPv4) of machine().
func twoLinks(t *testing.T) Plan {
	t.Helper()
	b, err := os.ReadFile("testdata/networkdata/nova.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseNetworkData(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestApply(t *testing.T) {
	own6 := netip.MustParseAddr("2001:db8::10")
	both := map[string]time.Duration{"eth0": 3 * time.Second, "eth1": 2 * time.Second}
	tests := []struct {
		name   string
		kernel *fakeKernel
		want   string        // error, "" if none
		is     error         // what it is, too
		takes  time.Duration // at most
	}{
		{"both come up", &fakeKernel{cables: both, dad: 2 * time.Second}, "", nil, 5200 * time.Millisecond},
		{"one cable", &fakeKernel{cables: map[string]time.Duration{"eth0": 0}}, "eth1 (52:54:00:aa:bb:02, ixgbe, no link): no link after 5s", ErrNoCarrier, 5200 * time.Millisecond},
		{"no cable", &fakeKernel{}, "eth0 (52:54:00:aa:bb:01, e1000e, no link): no link after 30s\neth1 (52:54:00:aa:bb:02, ixgbe, no link): no link after 30s", ErrNoCarrier, 30200 * time.Millisecond},
		{"slow link", &fakeKernel{cables: map[string]time.Duration{"eth0": 26 * time.Second, "eth1": 29 * time.Second}}, "", nil, 29200 * time.Millisecond},
		{"address is taken", &fakeKernel{cables: both, dad: time.Second, dup: map[netip.Addr]bool{own6: true}},
			"address 2001:db8::10/64 on eth0: another machine has this address", ErrDuplicateAddress, 4200 * time.Millisecond},
		{"address never settles", &fakeKernel{cables: both, dad: time.Hour}, "wait for addresses: 2001:db8::10/64 on eth0 still tentative after 5s", nil, 8300 * time.Millisecond},
		{"a change fails and the others are made", &fakeKernel{cables: both, fails: map[string]error{"set eth0 mtu 1450": errors.New("invalid argument")}},
			"set eth0 mtu 1450: invalid argument", nil, 3200 * time.Millisecond},
		{"state cannot be read", &fakeKernel{broken: os.ErrPermission}, "read the state of the network: permission denied", os.ErrPermission, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := tt.kernel
				k.state = machine()
				start := time.Now()
				err := twoLinks(t).Apply(t.Context(), k)
				took := time.Since(start)
				text := ""
				if err != nil {
					text = err.Error()
				}
				compare(t, "error", text, tt.want)
				if tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("Apply = %v, want %v", err, tt.is)
				}
				if took > tt.takes {
					t.Errorf("Apply took %s, want %s at most", took, tt.takes)
				}
				if k.broken != nil {
					return
				}
				if left, err := twoLinks(t).Changes(k.state); err != nil || len(left) != len(k.fails) {
					t.Errorf("left to do: %v, %v; want the %d that fail", left, err, len(k.fails))
				}
			})
		})
	}
}

func TestApplyStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		k := &fakeKernel{state: machine()}
		start := time.Now()
		err := twoLinks(t).Apply(ctx, k)
		if err == nil || time.Since(start) > 1100*time.Millisecond {
			t.Errorf("Apply with a context of 1 s = %v after %s", err, time.Since(start))
		}
		compare(t, "machine", k.String(), func() string {
			again := &fakeKernel{state: machine()}
			changes, _ := twoLinks(t).Changes(again.state)
			for _, c := range changes {
				if err := again.Do(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
			return again.String()
		}())
	})
}

// A kernel that cannot make the bond leaves the NICs as they are that would have been its members; they may be all that leads to this machine.
func TestApplyLeavesMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth0": 0, "eth1": 0}, fails: map[string]error{}}
		if err := twoLinks(t).Apply(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		k.state.Sources = append(k.state.Sources, Source{NIC: "eth0", Address: k.nic("eth0").Addresses[0].Prefix.Addr()})
		before := k.String()
		plan, err := ParseNetworkData([]byte(`{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"},
			{"id": "bond", "type": "bond", "bond_mode": "802.3ad", "bond_links": ["a", "b"]}, {"id": "v", "type": "vlan", "vlan_link": "bond", "vlan_id": 5}],
			"networks": [{"type": "ipv4", "link": "v", "ip_address": "203.0.113.10/24", "gateway": "203.0.113.1"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []Change{AddBond{NIC: "bond", Bond: *plan.Links[2].Bond}, AddVLAN{NIC: "bond.5", Parent: "bond", ID: 5}} {
			k.fails[c.String()] = errors.New("operation not supported")
		}
		err = plan.Apply(t.Context(), k)
		const want = "add bond bond: 802.3ad miimon 100: operation not supported\nadd vlan bond.5: 5 on bond: operation not supported"
		if err == nil || err.Error() != want {
			t.Errorf("Apply() = %v, want %s", err, want)
		}
		compare(t, "machine", k.String(), before)
	})
}
