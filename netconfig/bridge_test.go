// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func cmdlinePlan(t *testing.T, line string) Plan {
	t.Helper()
	p, err := ParseCmdline(line, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What is done for a bridge, one line after the other on one machine.
func TestBridgeChanges(t *testing.T) {
	k := &fakeKernel{state: machine()}
	k.state.NICs[1].Addresses = []Address{{Prefix: cmdlinePlan(t, "ip=198.51.100.10:::24::eth0:none").Links[0].Addresses[0]}}
	k.state.NICs[1].Up = true
	for _, tt := range []struct{ name, line, want string }{
		{"bridge", "bridge=br0:eth0,eth1 ip=192.0.2.10::192.0.2.1:24::br0:none:9000",
			"set lo up\nadd bridge br0, mac 52:54:00:aa:bb:01\nset br0 ipv4/ignore_routes_with_linkdown 1\nset br0 ipv6/ignore_routes_with_linkdown 1\nset br0 mtu 9000\n" +
				"set eth0 mtu 9000\nset eth1 mtu 9000\nremove address 198.51.100.10/24 from eth0\nadd eth0 to br0\nadd eth1 to br0\nset eth1 up\nset br0 up\n" +
				"add address 192.0.2.10/24 to br0\nadd route default via 192.0.2.1 dev br0\n"},
		{"again", "bridge=br0:eth0,eth1 ip=192.0.2.10::192.0.2.1:24::br0:none:9000", ""},
		{"another port, and another MAC", "bridge=br0:eth0,eth2 ip=192.0.2.10:::24::br0:none::02:00:00:00:00:77",
			"remove br0\nadd bridge br0, mac 02:00:00:00:00:77\nset br0 ipv4/ignore_routes_with_linkdown 1\nset br0 ipv6/ignore_routes_with_linkdown 1\n" +
				"add eth0 to br0\nadd eth2 to br0\nset eth2 up\nset br0 up\nadd address 192.0.2.10/24 to br0\n"},
		{"a port less", "bridge=br0:eth1,eth2 ip=192.0.2.10:::24::br0:none::02:00:00:00:00:77", "take eth0 out of what it is in\nadd eth1 to br0\n"},
		{"a bond of them", "bond=bond1:eth1,eth2 ip=192.0.2.10:::24::bond1:none", "remove br0\nadd bond bond1: balance-rr miimon 100\nset bond1 ipv4/ignore_routes_with_linkdown 1\nset bond1 ipv6/ignore_routes_with_linkdown 1\n" +
			"set eth1 down\nadd eth1 to bond1\nset eth2 down\nadd eth2 to bond1\nset bond1 up\nadd address 192.0.2.10/24 to bond1\n"},
		{"and back", "bridge=br0:eth1,eth2 ip=192.0.2.10:::24::br0:none", "remove bond1\nadd bridge br0, mac 52:54:00:aa:bb:02\nset br0 ipv4/ignore_routes_with_linkdown 1\nset br0 ipv6/ignore_routes_with_linkdown 1\n" +
			"add eth1 to br0\nset eth1 up\nadd eth2 to br0\nset eth2 up\nset br0 up\nadd address 192.0.2.10/24 to br0\n"},
		{"one NIC alone", "ip=192.0.2.10:::24::eth1:none", "remove br0\nset eth1 ipv4/ignore_routes_with_linkdown 1\nset eth1 ipv6/ignore_routes_with_linkdown 1\nadd address 192.0.2.10/24 to eth1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan := cmdlinePlan(t, tt.line)
			changes, err := plan.Changes(k.state)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "changes", lines(changes), tt.want)
			for _, c := range changes {
				if err := k.Do(t.Context(), c); err != nil {
					t.Fatalf("%s: %v", c, err)
				}
			}
			if left, err := plan.Changes(k.state); len(left) > 0 || err != nil {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// A kernel without bridges leaves the NICs as they are.
func TestBridgeThatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth0": 0}, fails: map[string]error{"add bridge br0, mac 52:54:00:aa:bb:01": errors.New("operation not supported")}}
		if err := cmdlinePlan(t, "ip=192.0.2.10::192.0.2.1:24::eth0:none").Apply(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		before := k.String()
		if err := cmdlinePlan(t, "bridge=br0:eth0,eth1 ip=192.0.2.10::192.0.2.1:24::br0:none").Apply(t.Context(), k); err == nil || !strings.Contains(err.Error(), "operation not supported") {
			t.Errorf("Apply() = %v", err)
		}
		compare(t, "machine", k.String(), before)
	})
}

// A NIC that comes late takes its place in the bridge, or the bond, of the description, and nothing else changes.
func TestKeepJoinsLateNIC(t *testing.T) {
	for name, line := range map[string]string{"bridge": "bridge=br0:eth0,eth2 ip=192.0.2.10::192.0.2.1:24::br0:none", "bond": "bond=br0:eth0,eth2:mode=1 ip=192.0.2.10::192.0.2.1:24::br0:none",
		"bridge that asks": "bridge=br0:eth0,eth2 ip=br0:dhcp", "alone": "ip=eth0:dhcp ip=198.51.100.10:::24::eth2:none"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &recorder{fakeKernel: &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth0": 0, "eth2": 0}}}
				late := k.state.NICs[3]
				k.state.NICs = slices.DeleteFunc(k.state.NICs, func(n NIC) bool { return n.Name == late.Name })
				servers := &fakeServers{answers: map[string]fakeAnswer{}}
				for _, nic := range []string{"br0", "eth0"} {
					servers.answers[nic+" dhcpv4"] = fakeAnswer{time.Second, []Lease{given("192.0.2.10/24", "192.0.2.1", "", 24*time.Hour)}}
				}
				a, err := cmdlinePlan(t, line).Acquire(t.Context(), k, servers, nil, quiet)
				if err == nil || !strings.Contains(err.Error(), `no NIC is named "eth2"`) {
					t.Errorf("Acquire() = %v", err)
				}
				before := k.String()
				time.AfterFunc(10*time.Minute, func() {
					k.mu.Lock()
					defer k.mu.Unlock()
					k.did = nil
					k.state.NICs = append(slices.Clone(k.state.NICs), late)
				})
				var said []string
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
				defer cancel()
				a.Keep(ctx, k, servers, nil, func(line string) { said = append(said, line) })
				want := map[string]string{
					"bridge": "add eth2 to br0, set eth2 up", "bridge that asks": "add eth2 to br0, set eth2 up", "bond": "add eth2 to br0",
					"alone": "set eth2 ipv4/ignore_routes_with_linkdown 1, set eth2 ipv6/ignore_routes_with_linkdown 1, set eth2 up, add address 198.51.100.10/24 to eth2",
				}[name]
				if got := strings.Join(k.did, ", "); got != want {
					t.Errorf("did %s, want %s", got, want)
				}
				if got := strings.Join(said, ", "); got != "eth2: eth2 has come" {
					t.Errorf("said %s", got)
				}
				after := k.String()
				k.state.NICs = slices.DeleteFunc(k.state.NICs, func(n NIC) bool { return n.Name == late.Name })
				compare(t, "what was there", k.String(), before)
				if !strings.Contains(after, "eth2 up mtu 1500") {
					t.Errorf("machine\n%s", after)
				}
			})
		})
	}
}
