// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lasting is what given returns, for a time.
func lasting(address, gateway string, valid time.Duration) Lease {
	l := given(address, gateway, "", valid/2)
	l.Valid = valid
	return l
}

// answer has a server answer from now on, or not any more if there is no lease.
func (s *fakeServers) answer(question string, lease ...Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.answers, question)
	if len(lease) > 0 {
		s.answers[question] = fakeAnswer{time.Second, lease}
	}
}

// A lease that nobody renews is given up when it ends, with its routes, and asked for again at once and from then on. What others have given stays.
func TestKeepGivesUp(t *testing.T) {
	const net = `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}], "networks": [`
	for _, tt := range []struct {
		name, networks, question string
		first, second            Lease
	}{
		{"DHCPv4", `{"type": "ipv4_dhcp", "link": "a"}`, "eth0 dhcpv4", lasting("192.0.2.50/24", "192.0.2.1", time.Hour), lasting("192.0.2.77/24", "192.0.2.1", time.Hour)},
		{"DHCPv6", `{"type": "ipv6_dhcpv6_stateful", "link": "a"}`, "eth0 dhcpv6", lasting("2001:db8::50/128", "", time.Hour), lasting("2001:db8::77/128", "", time.Hour)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0, "eth1": 0}}
				servers := &fakeServers{answers: map[string]fakeAnswer{}}
				servers.answer(tt.question, tt.first)
				servers.answer("eth1 dhcpv4", lasting("198.51.100.50/24", "198.51.100.1", 24*time.Hour))
				plan, err := ParseNetworkData([]byte(net + tt.networks + `, {"type": "ipv4_dhcp", "link": "b"}]}`))
				if err != nil {
					t.Fatal(err)
				}
				a, err := plan.Acquire(t.Context(), k, servers, nil, quiet)
				if err != nil {
					t.Fatal(err)
				}
				before := k.String()
				address := tt.first.Addresses[0].String()
				var said []string
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					a.Keep(ctx, k, servers, nil, func(line string) { said = append(said, line) })
				}()
				defer func() { cancel(); <-ended }()

				// It is renewed once, so it counts for longer.
				time.Sleep(45 * time.Minute)
				servers.answer(tt.question)
				time.Sleep(44 * time.Minute)
				compare(t, "machine before the lease ends", k.String(), before)
				time.Sleep(2 * time.Minute)
				if got := k.String(); strings.Contains(got, address) || strings.Contains(got, "via 192.0.2.1 ") || !strings.Contains(got, " 198.51.100.50/24") || !strings.Contains(got, "default via 198.51.100.1 dev eth1\n") {
					t.Errorf("machine after the lease has ended\n%s", got)
				}
				want := "a: the lease of " + address + " has ended, and nobody has renewed it: it is given up, and asked for anew"
				if n := strings.Count(strings.Join(said, "\n"), want); n != 1 {
					t.Errorf("said %d times that it has ended: %q", n, said)
				}
				// It is asked for at once, and every two minutes or more often; then somebody answers.
				servers.mu.Lock()
				asked := len(servers.asked)
				servers.mu.Unlock()
				time.Sleep(20 * time.Minute)
				servers.mu.Lock()
				asked = len(servers.asked) - asked
				servers.mu.Unlock()
				if asked < 10 || asked > 25 {
					t.Errorf("asked %d times in 20 minutes", asked)
				}
				servers.answer(tt.question, tt.second)
				time.Sleep(3 * time.Minute)
				compare(t, "machine with the new lease", sortedLines(k.String()), sortedLines(strings.ReplaceAll(before, tt.first.Addresses[0].Addr().String(), tt.second.Addresses[0].Addr().String())))
			})
		})
	}
}

// sortedLines is a machine whose addresses and routes may have come in another order.
func sortedLines(s string) string {
	all := strings.Fields(s)
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// A router that answers when the DHCPv6 server does not takes no address away that still counts.
func TestKeepBesideSilentDHCPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}}
		k.state.NICs[1].Addresses = append(k.state.NICs[1].Addresses, Address{Prefix: netip.MustParsePrefix("2001:db8::aa/64")}) // by advertisement
		servers := &fakeServers{answers: map[string]fakeAnswer{}}
		servers.answer("eth0 ipv6-auto", lasting("2001:db8::50/128", "", time.Hour))
		plan := Plan{Links: []Link{{ID: "eth0", Kind: Physical, Device: "eth0", Auto: []Method{Auto6}}}}
		a, err := plan.Acquire(t.Context(), k, servers, nil, quiet)
		if err != nil {
			t.Fatal(err)
		}
		before := k.String()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); a.Keep(ctx, k, servers, nil, quiet) }()
		defer func() { cancel(); <-ended }()
		servers.answer("eth0 ipv6-auto", Lease{From: "router fe80::1"})
		time.Sleep(59 * time.Minute)
		compare(t, "machine before the address ends", k.String(), before)
		time.Sleep(2 * time.Minute)
		compare(t, "machine after that", k.String(), strings.Replace(before, " 2001:db8::50/128", "", 1))
	})
}

// While the conductor is away the lease is renewed, and stays; only if its time is over it goes, and any answer on that NIC is good then.
func TestKeepGivesUpTheWayToTheConductor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0, "eth2": 0}}
		servers := &fakeServers{answers: map[string]fakeAnswer{}}
		servers.answer("eth0 dhcpv4", lasting("192.0.2.50/24", "192.0.2.1", 10*time.Minute))
		servers.answer("eth2 dhcpv4", lasting("203.0.113.9/24", "203.0.113.1", 10*time.Minute))
		start, away := time.Now(), false
		try := func(context.Context) error {
			if away || !strings.Contains(k.String(), "via 192.0.2.1 ") && time.Since(start) < time.Hour {
				return errors.New("unreachable")
			}
			return nil
		}
		a, err := Everywhere(k.state, []Method{DHCP4}, "").Acquire(t.Context(), k, servers, try, quiet)
		if err == nil && !a.Works || !strings.Contains(k.String(), "192.0.2.50/24") {
			t.Fatalf("Acquire() = %v\n%s", err, k)
		}
		before := k.String()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); a.Keep(ctx, k, servers, try, quiet) }()
		defer func() { cancel(); <-ended }()
		away = true
		time.Sleep(2 * time.Hour)
		compare(t, "machine after two hours without conductor", k.String(), before)
		servers.answer("eth0 dhcpv4")
		time.Sleep(12 * time.Minute)
		if got := k.String(); strings.Contains(got, "192.0.2.50/24") || strings.Contains(got, "default via") || strings.Contains(got, "203.0.113") {
			t.Errorf("machine after the lease has ended\n%s", got)
		}
		servers.answer("eth0 dhcpv4", lasting("192.0.2.77/24", "192.0.2.2", 10*time.Minute))
		time.Sleep(3 * time.Minute)
		if got := k.String(); !strings.Contains(got, "192.0.2.77/24") || !strings.Contains(got, "default via 192.0.2.2 dev eth0\n") || strings.Contains(got, "203.0.113") {
			t.Errorf("machine with another lease\n%s", got)
		}
	})
}

// Nothing has led to the conductor yet: what one NIC was given stays while it is renewed, and goes when its time is over, also while answers are waited for.
func TestKeepGivesUpWhileSearching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}}
		servers := &fakeServers{answers: map[string]fakeAnswer{}}
		servers.answer("eth0 dhcpv4", lasting("192.0.2.50/24", "192.0.2.1", 10*time.Minute))
		never := func(context.Context) error { return errors.New("unreachable") }
		a, err := Everywhere(k.state, []Method{DHCP4}, "").Acquire(t.Context(), k, servers, never, quiet)
		if err == nil || !strings.Contains(k.String(), "192.0.2.50/24") {
			t.Fatalf("Acquire() = %v\n%s", err, k)
		}
		before := k.String()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); a.Keep(ctx, k, servers, never, quiet) }()
		defer func() { cancel(); <-ended }()
		time.Sleep(time.Hour)
		compare(t, "machine after an hour", k.String(), before)
		servers.answer("eth0 dhcpv4")
		gone := time.Duration(0)
		for start := time.Now(); strings.Contains(k.String(), "192.0.2"); time.Sleep(time.Second) {
			if gone = time.Since(start); gone > 11*time.Minute {
				t.Fatalf("after %v\n%s", gone, k)
			}
		}
		if gone < 7*time.Minute { // it was renewed two minutes before at most
			t.Errorf("gone after %v", gone)
		}
		servers.answer("eth0 dhcpv4", lasting("192.0.2.50/24", "192.0.2.1", 10*time.Minute))
		time.Sleep(4 * time.Minute)
		compare(t, "machine with a lease again", k.String(), before)
	})
}

// In a rescued machine too what was given goes when its time is over; what it had before stays.
func TestFollowGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}}
		servers := &fakeServers{answers: map[string]fakeAnswer{}}
		if err := cmdlinePlan(t, "ip=198.51.100.10::198.51.100.1:24::eth0:none").Apply(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		old := k.brief()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); Follow(ctx, k, servers, quiet) }()
		defer func() { cancel(); <-ended }()
		brief := func() string {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.brief()
		}
		time.Sleep(30 * time.Minute)
		compare(t, "machine without server", brief(), old)
		const tenant = "eth0 192.0.2.50/24\nroute default via 192.0.2.1 dev eth0"
		servers.answer("eth0 dhcpv4", lasting("192.0.2.50/24", "192.0.2.1", time.Hour))
		time.Sleep(3 * time.Hour)
		compare(t, "machine with the tenant's lease", brief(), tenant)
		servers.answer("eth0 dhcpv4")
		time.Sleep(45 * time.Minute)
		compare(t, "machine before it ends", brief(), tenant)
		time.Sleep(16 * time.Minute)
		compare(t, "machine after it has ended", brief(), "")
		servers.answer("eth0 dhcpv4", lasting("192.0.2.50/24", "192.0.2.1", time.Hour))
		time.Sleep(11 * time.Minute)
		compare(t, "machine with a lease again", brief(), tenant)
	})
}
