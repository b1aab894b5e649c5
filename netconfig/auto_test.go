// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// fakeServers answer on NICs after some time.
type fakeServers struct {
	mu      sync.Mutex
	answers map[string]fakeAnswer // "eth0 dhcpv4"
	asked   []string
}

type fakeAnswer struct {
	after time.Duration
	lease []Lease // one after the other, the last again and again
}

func (s *fakeServers) Ask(ctx context.Context, n NIC, m Method) (Lease, error) {
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprintf("%s %s", n.Name, m))
	a, ok := s.answers[n.Name+" "+string(m)]
	s.mu.Unlock()
	if !ok {
		<-ctx.Done()
		return Lease{}, context.Cause(ctx)
	}
	if err := pause(ctx, a.after); err != nil {
		return Lease{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := a.lease[0]
	if len(a.lease) > 1 {
		a.lease = a.lease[1:]
		s.answers[n.Name+" "+string(m)] = a
	}
	l.Method = m
	return l, nil
}

func given(address, gateway, dns string, renew time.Duration) Lease {
	l := Lease{From: "server", Addresses: []netip.Prefix{netip.MustParsePrefix(address)}, Renew: renew}
	if gateway != "" {
		g := netip.MustParseAddr(gateway)
		l.Routes = []Route{{Destination: everywhere(g), Gateway: g}}
	}
	if dns != "" {
		l.DNS = []netip.Addr{netip.MustParseAddr(dns)}
	}
	return l
}

// withLinkLocal gives each NIC the address that the kernel gives it.
func withLinkLocal(s State) State {
	for i := range s.NICs {
		if !s.NICs[i].Loopback && s.NICs[i].Kind != "bond" {
			s.NICs[i].Addresses = []Address{{Prefix: netip.MustParsePrefix(fmt.Sprintf("fe80::%d/64", i))}}
		}
	}
	return s
}

func TestAcquire(t *testing.T) {
	all := map[string]time.Duration{"eth0": time.Second, "eth1": 2 * time.Second, "eth2": 0}
	described := `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
		"networks": [{"type": "ipv4_dhcp", "link": "a"}, {"type": "ipv6_dhcpv6_stateful", "link": "a"}, {"type": "ipv4", "link": "b", "ip_address": "198.51.100.7/24", "gateway": "198.51.100.1"}]}`
	tests := []struct {
		name    string
		data    string // "" for everywhere
		cables  map[string]time.Duration
		answers map[string]fakeAnswer
		reach   string // default gateway with which the conductor is reached; "-": not tried
		machine string // parts, one a line
		err     string
		takes   time.Duration
	}{
		{"described", described, all, map[string]fakeAnswer{
			"eth0 dhcpv4": {time.Second, []Lease{given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour)}},
			"eth0 dhcpv6": {3 * time.Second, []Lease{given("2001:db8::50/128", "", "2001:db8::53", time.Hour)}},
		}, "-", "192.0.2.50/24\n2001:db8::50/128\nroute default via 198.51.100.1 dev eth1\nroute default via 192.0.2.1 dev eth0 metric 1025\ndns 192.0.2.53\ndns 2001:db8::53\nipv6/disable_ipv6=0", "", 5 * time.Second},
		{"described, one server is dead", described, all, map[string]fakeAnswer{
			"eth0 dhcpv4": {time.Second, []Lease{given("192.0.2.50/24", "192.0.2.1", "", time.Hour)}},
		}, "-", "192.0.2.50/24", "a: dhcpv6: no answer", moreWait + 3*time.Second},
		{"everywhere, the second leads to the conductor", "", all, map[string]fakeAnswer{
			"eth0 dhcpv4": {4 * time.Second, []Lease{given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", 0)}},
			"eth2 dhcpv4": {time.Second, []Lease{given("203.0.113.9/24", "203.0.113.1", "203.0.113.53", 0)}},
		}, "192.0.2.1", "192.0.2.50/24\nroute default via 192.0.2.1 dev eth0\ndns 192.0.2.53", "", 6 * time.Second},
		{"everywhere, none leads to the conductor", "", all, map[string]fakeAnswer{
			"eth0 dhcpv4": {4 * time.Second, []Lease{given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", 0)}},
			"eth2 dhcpv4": {time.Second, []Lease{given("203.0.113.9/24", "203.0.113.1", "203.0.113.53", 0)}},
		}, "192.0.2.99", "203.0.113.9/24\nroute default via 203.0.113.1 dev eth2\ndns 203.0.113.53",
			"with what eth2 was given: unreachable\nwith what eth0 was given: unreachable\neth1: dhcpv4: no answer", answerWait + time.Second},
		{"everywhere, no cable", "", nil, nil, "192.0.2.1", "", "eth0: dhcpv4: no link\neth1: dhcpv4: no link\neth2: dhcpv4: no link", carrierFirst + time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &fakeKernel{state: withLinkLocal(machine()), cables: tt.cables}
				plan := Everywhere(k.state, []Method{DHCP4}, "")
				if tt.data != "" {
					var err error
					if plan, err = ParseNetworkData([]byte(tt.data)); err != nil {
						t.Fatal(err)
					}
				}
				try := func(context.Context) error {
					if strings.Contains(k.String(), "via "+tt.reach+" ") {
						return nil
					}
					return errors.New("unreachable")
				}
				if tt.reach == "-" {
					try = nil
				}
				start := time.Now()
				a, err := plan.Acquire(t.Context(), k, &fakeServers{answers: tt.answers}, try, func(string) {})
				if took := time.Since(start); took > tt.takes {
					t.Errorf("took %v, want at most %v", took, tt.takes)
				}
				for part := range strings.SplitSeq(tt.machine, "\n") {
					if !strings.Contains(k.String(), strings.TrimSuffix(part, "ipv6/disable_ipv6=0")) {
						t.Errorf("machine lacks %q:\n%s", part, k)
					}
				}
				text := ""
				if err != nil {
					lines := strings.Split(err.Error(), "\n")
					if tt.cables == nil {
						lines = sorted(lines)
					}
					text = strings.Join(lines, "\n")
				}
				compare(t, "error", text, tt.err)
				// What was given is part of the plan now: nothing is left to do, and nothing of a loser is there.
				if left, err := a.Plan.Changes(k.state); len(left) > 0 || err != nil {
					t.Errorf("left: %v, %v", left, err)
				}
				if strings.Count(k.String(), "route default via") > 2-len(plan.Links)%2 {
					t.Errorf("too many default routes:\n%s", k)
				}
			})
		})
	}
}

func sorted(s []string) []string {
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s
}

// leads says whether the default route is over a gateway, as if the conductor were behind it.
func leads(k *fakeKernel, gateway string) func(context.Context) error {
	return func(context.Context) error {
		if strings.Contains(k.String(), "default via "+gateway+" ") {
			return nil
		}
		return errors.New("unreachable")
	}
}

func quiet(string) {}

// keeping runs Keep for so long.
func keeping(t *testing.T, a Acquired, k Kernel, servers *fakeServers, try func(context.Context) error, long time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	a.Keep(ctx, k, servers, try, quiet)
	<-ctx.Done()
}

// An agent that is started again does not put a network at risk that works: what leads nowhere gives back what it has displaced.
func TestAcquireAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0, "eth1": 0, "eth2": 0}}
		try := leads(k, "192.0.2.1")
		servers := &fakeServers{answers: map[string]fakeAnswer{
			"eth0 dhcpv4": {time.Second, []Lease{given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour)}},
			"eth2 dhcpv4": {3 * time.Second, []Lease{given("203.0.113.9/24", "203.0.113.1", "203.0.113.53", 0)}},
		}}
		plan := Everywhere(k.state, []Method{DHCP4}, "")
		if _, err := plan.Acquire(t.Context(), k, servers, try, quiet); err != nil {
			t.Fatal(err)
		}
		before := k.String()
		asked := len(servers.asked)
		a, err := plan.Resume(t.Context(), k, try)
		if err != nil || !a.Works || len(servers.asked) != asked {
			t.Errorf("Resume() = %v, works %v; asked %q", err, a.Works, servers.asked)
		}
		// What works is kept up, and only that: the address is renewed, and other servers are not taken.
		keeping(t, a, k, servers, try, 3*time.Hour)
		compare(t, "machine after three hours", k.String(), before)
		if got := strings.Join(servers.asked[asked:], ", "); got != "eth0 dhcpv4, eth0 dhcpv4, eth0 dhcpv4" {
			t.Errorf("asked %q", got)
		}
		// Without the server of the network that works, asking everywhere leaves all as it is.
		delete(servers.answers, "eth0 dhcpv4")
		if _, err := plan.Acquire(t.Context(), k, servers, leads(k, "192.0.2.99"), quiet); err == nil || !strings.Contains(err.Error(), "with what eth2 was given: unreachable") {
			t.Errorf("Acquire() = %v", err)
		}
		p := plan.with(nil)
		next, err := p.instead(t.Context(), k, plan.with([]leased{{"eth1", given("198.51.100.9/24", "198.51.100.1", "198.51.100.53", 0)}}), leads(k, "192.0.2.99"))
		if err == nil || next.Works || strings.Contains(k.String(), "198.51.100") {
			t.Errorf("instead() = %v\n%s", err, k)
		}
	})
}

// What leads nowhere gives back the route and the name servers that it has displaced.
func TestInsteadGivesBack(t *testing.T) {
	k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0, "eth2": 0}}
	plan := Everywhere(k.state, []Method{DHCP4}, "")
	works := plan.with([]leased{{"eth0", given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour)}})
	if _, err := works.make(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	before := k.String()
	other := plan.with([]leased{{"eth2", given("203.0.113.9/24", "203.0.113.1", "203.0.113.53", 0)}})
	for name, from := range map[string]Acquired{"known": works, "of an earlier agent": plan.with(nil)} {
		if _, err := from.instead(t.Context(), k, other, leads(k, "192.0.2.99")); err == nil {
			t.Error("no error")
		}
		compare(t, name, k.String(), before)
	}
}

// The conductor does not answer while each network is tried, and does after a minute: the right network is found by then.
func TestKeepSearches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0, "eth1": 0, "eth2": 0}}
		start := time.Now()
		try := func(ctx context.Context) error {
			if time.Since(start) < 2*time.Minute {
				return errors.New("unreachable")
			}
			return leads(k, "192.0.2.1")(ctx)
		}
		servers := &fakeServers{answers: map[string]fakeAnswer{
			"eth0 dhcpv4": {4 * time.Second, []Lease{given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour)}},
			"eth2 dhcpv4": {time.Second, []Lease{given("203.0.113.9/24", "203.0.113.1", "203.0.113.53", time.Hour)}},
		}}
		a, err := Everywhere(k.state, []Method{DHCP4}, "").Acquire(t.Context(), k, servers, try, quiet)
		if err == nil || a.Works || !strings.Contains(k.String(), "via 203.0.113.1 ") {
			t.Fatalf("Acquire() = %v\n%s", err, k)
		}
		keeping(t, a, k, servers, try, 6*time.Minute)
		if got := k.String(); try(t.Context()) != nil || strings.Contains(got, "203.0.113") || strings.Count(got, "default via") != 1 {
			t.Errorf("after six minutes\n%s", got)
		}
	})
}

// While the conductor is away, the only network that there is stays as it is.
func TestKeepSearchesQuietly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &recorder{fakeKernel: &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}}}
		v4, v6 := given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour), given("2001:db8::50/128", "", "2001:db8::53", time.Hour)
		servers := &fakeServers{answers: map[string]fakeAnswer{"eth0 dhcpv4": {time.Second, []Lease{v4}}, "eth0 ipv6-auto": {2 * time.Second, []Lease{v6}}}}
		time.AfterFunc(3*time.Minute, func() { // the order of the answers is another, and then one is not there
			servers.mu.Lock()
			servers.answers["eth0 dhcpv4"] = fakeAnswer{3 * time.Second, []Lease{v4}}
			servers.mu.Unlock()
		})
		time.AfterFunc(6*time.Minute, func() {
			servers.mu.Lock()
			delete(servers.answers, "eth0 ipv6-auto")
			servers.mu.Unlock()
		})
		start := time.Now()
		try := func(context.Context) error {
			if time.Since(start) < 10*time.Minute {
				return errors.New("unreachable")
			}
			return nil
		}
		a, err := Everywhere(k.state, []Method{DHCP4, Auto6}, "").Acquire(t.Context(), k, servers, try, quiet)
		if err == nil {
			t.Fatal("it works")
		}
		before := k.String()
		if !strings.Contains(before, "192.0.2.50/24 2001:db8::50/128") {
			t.Fatalf("machine\n%s", before)
		}
		k.did = nil
		keeping(t, a, k, servers, try, 15*time.Minute)
		if len(k.did) > 0 {
			t.Errorf("did %q", k.did)
		}
		compare(t, "machine", k.String(), before)
	})
}

// A server that begins to answer late is heard, though nothing was given before.
func TestKeepAsksForWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}}
		servers := &fakeServers{answers: map[string]fakeAnswer{}}
		plan, err := ParseNetworkData([]byte(`{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}],
			"networks": [{"type": "ipv4_dhcp", "link": "a"}, {"type": "ipv6_dhcpv6_stateful", "link": "a"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		a, err := plan.Acquire(t.Context(), k, servers, nil, quiet)
		if err == nil {
			t.Fatal("somebody has answered")
		}
		time.AfterFunc(10*time.Minute, func() {
			servers.mu.Lock()
			defer servers.mu.Unlock()
			servers.answers["eth0 dhcpv4"] = fakeAnswer{time.Second, []Lease{given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour)}}
		})
		keeping(t, a, k, servers, nil, 9*time.Minute)
		if n := len(servers.asked); n > 2*10 {
			t.Errorf("asked %d times in 9 minutes", n)
		}
		keeping(t, a, k, servers, nil, 4*time.Minute)
		if got := k.String(); !strings.Contains(got, "192.0.2.50/24") || !strings.Contains(got, "default via 192.0.2.1 dev eth0") || !strings.Contains(got, "dns 192.0.2.53") {
			t.Errorf("after the server is there\n%s", got)
		}
	})
}

// recorder notes what is done.
type recorder struct {
	*fakeKernel
	did []string
}

func (r *recorder) Do(ctx context.Context, c Change) error {
	r.did = append(r.did, c.String())
	return r.fakeKernel.Do(ctx, c)
}

// Of a lease that has changed only what differs is changed, and of other links nothing.
func TestKeepChangesLittle(t *testing.T) {
	other := given("198.51.100.50/24", "198.51.100.1", "198.51.100.53", 100*time.Hour)
	first := given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour)
	tests := []struct {
		name   string
		second Lease
		did    string
	}{
		{"name server", given("192.0.2.50/24", "192.0.2.1", "192.0.2.54", time.Hour), "set dns 192.0.2.54, 198.51.100.53"},
		{"gateway", given("192.0.2.50/24", "192.0.2.2", "192.0.2.53", time.Hour), "remove route default via 192.0.2.1 dev eth0\nadd route default via 192.0.2.2 dev eth0\nset source 192.0.2.50 on eth0: 192.0.2.0/24, default via 192.0.2.2"},
		{"no gateway any more", given("192.0.2.50/24", "", "192.0.2.53", time.Hour),
			"remove route default via 192.0.2.1 dev eth0\nremove route default via 198.51.100.1 dev eth1 metric 1025\nadd route default via 198.51.100.1 dev eth1"},
		{"address", given("192.0.2.60/24", "192.0.2.1", "192.0.2.53", time.Hour), "remove address 192.0.2.50/24 from eth0\nadd address 192.0.2.60/24 to eth0\nremove source 192.0.2.50\nset source 192.0.2.60 on eth0: 192.0.2.0/24, default via 192.0.2.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &recorder{fakeKernel: &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth0": 0, "eth1": 0}}}
				servers := &fakeServers{answers: map[string]fakeAnswer{"eth0 dhcpv4": {0, []Lease{first, tt.second}}, "eth1 dhcpv4": {time.Second, []Lease{other}}}}
				plan, err := ParseNetworkData([]byte(`{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
					"networks": [{"type": "ipv4_dhcp", "link": "a"}, {"type": "ipv4_dhcp", "link": "b"}]}`))
				if err != nil {
					t.Fatal(err)
				}
				a, err := plan.Acquire(t.Context(), k, servers, nil, quiet)
				if err != nil {
					t.Fatal(err)
				}
				k.did = nil
				keeping(t, a, k, servers, nil, 90*time.Minute)
				compare(t, "did", strings.Join(k.did, "\n"), tt.did)
			})
		})
	}
}

// What was given is asked for again in time; another address takes the place of the first.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth0": 0}}
		first, second := given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour), given("192.0.2.60/24", "192.0.2.9", "192.0.2.54", time.Hour)
		servers := &fakeServers{answers: map[string]fakeAnswer{"eth0 dhcpv4": {0, []Lease{first, first, second}}}}
		plan, err := ParseNetworkData([]byte(`{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}], "networks": [{"type": "ipv4_dhcp", "link": "a"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		a, err := plan.Acquire(t.Context(), k, servers, nil, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var said []string
		ended := make(chan bool)
		go func() { a.Keep(ctx, k, servers, nil, func(s string) { said = append(said, s) }); close(ended) }()
		before := k.String()
		time.Sleep(90 * time.Minute)
		compare(t, "machine after one renewal", k.String(), before)
		time.Sleep(time.Hour)
		compare(t, "machine after the second", k.String(), strings.NewReplacer("192.0.2.50", "192.0.2.60", "192.0.2.1 ", "192.0.2.9 ", "192.0.2.53", "192.0.2.54").Replace(before))
		// The server dies: what there is stays, and is asked for more often.
		servers.mu.Lock()
		delete(servers.answers, "eth0 dhcpv4")
		servers.mu.Unlock()
		time.Sleep(2 * time.Hour)
		cancel()
		<-ended
		if !strings.Contains(k.String(), "192.0.2.60/24") || len(said) < 3 || !strings.Contains(said[len(said)-1], "asked for again: no answer") {
			t.Errorf("said %q; machine\n%s", said, k)
		}
	})
}

// A NIC that comes late, when others have been asked on in vain, is asked on as well.
func TestKeepAsksOnLateNIC(t *testing.T) {
	for name, tries := range map[string]bool{"to the conductor": true, "for any address": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth2": 0}}
				late := k.state.NICs[3]
				k.state.NICs = slices.DeleteFunc(k.state.NICs, func(n NIC) bool { return n.Name == late.Name })
				servers := &fakeServers{answers: map[string]fakeAnswer{"eth2 dhcpv4": {time.Second, []Lease{given("203.0.113.9/24", "203.0.113.1", "", time.Hour)}}}}
				var try func(context.Context) error
				if tries {
					try = leads(k, "203.0.113.1")
				}
				a, err := Everywhere(k.state, []Method{DHCP4}, "").Acquire(t.Context(), k, servers, try, quiet)
				if err == nil {
					t.Fatal("somebody has answered")
				}
				time.AfterFunc(10*time.Second, func() {
					k.mu.Lock()
					defer k.mu.Unlock()
					k.state.NICs = append(slices.Clone(k.state.NICs), late)
				})
				keeping(t, a, k, servers, try, 3*time.Minute)
				if got := k.String(); !strings.Contains(got, "203.0.113.9/24") || !strings.Contains(got, "route default via 203.0.113.1 dev eth2") {
					t.Errorf("machine\n%s", got)
				}
			})
		})
	}
}

// A NIC that goes and comes again has lost all that it had, and gets it again: what was described, and what it was given.
func TestKeepMakesAgain(t *testing.T) {
	const described = `{"type": "ipv4", "link": "a", "ip_address": "192.0.2.50/24", "gateway": "192.0.2.1"}`
	for name, networks := range map[string]string{"described": described, "given": `{"type": "ipv4_dhcp", "link": "a"}`, "not ready at once": described} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &recorder{fakeKernel: &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth0": 0}}}
				servers := &fakeServers{answers: map[string]fakeAnswer{"eth0 dhcpv4": {0, []Lease{given("192.0.2.50/24", "192.0.2.1", "", 24*time.Hour)}}}}
				plan, err := ParseNetworkData([]byte(`{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}], "networks": [` + networks + `]}`))
				if err != nil {
					t.Fatal(err)
				}
				a, err := plan.Acquire(t.Context(), k, servers, nil, quiet)
				if err != nil {
					t.Fatal(err)
				}
				before := k.String()
				time.AfterFunc(10*time.Minute, func() { // it goes
					k.mu.Lock()
					defer k.mu.Unlock()
					k.down("eth0")
					k.state.NICs = slices.DeleteFunc(slices.Clone(k.state.NICs), func(n NIC) bool { return n.Name == "eth0" })
				})
				time.AfterFunc(15*time.Minute, func() { // and comes
					k.mu.Lock()
					defer k.mu.Unlock()
					fresh := machine().NICs[1]
					fresh.Index = 17
					k.state.NICs = slices.Insert(k.state.NICs, 1, fresh)
					k.did = nil
					if name == "not ready at once" {
						k.fails = map[string]error{"set eth0 up": errors.New("resource temporarily unavailable")}
					}
				})
				time.AfterFunc(16*time.Minute+30*time.Second, func() {
					k.mu.Lock()
					defer k.mu.Unlock()
					k.fails = nil
				})
				keeping(t, a, k, servers, nil, 18*time.Minute)
				compare(t, "machine", k.String(), before)
				if did := len(k.did); did == 0 {
					t.Error("nothing was done")
				}
			})
		})
	}
}

// An IPv6 address that another machine has too does not keep a network from counting that works by IPv4.
func TestAcquireBesideDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}, dup: map[netip.Addr]bool{netip.MustParseAddr("2001:db8::50"): true}}
		servers := &fakeServers{answers: map[string]fakeAnswer{
			"eth0 dhcpv6": {time.Second, []Lease{given("2001:db8::50/128", "", "", time.Hour)}},
			"eth0 dhcpv4": {2 * time.Second, []Lease{given("192.0.2.50/24", "192.0.2.1", "", time.Hour)}},
		}}
		plan := Plan{Links: []Link{{ID: "eth0", Kind: Physical, Device: "eth0", Auto: []Method{DHCP4, DHCP6}}}}
		a, err := plan.Acquire(t.Context(), k, servers, leads(k, "192.0.2.1"), quiet)
		if err != nil || !a.Works {
			t.Errorf("Acquire() = %v, works %v\n%s", err, a.Works, k)
		}
	})
}

// An address that the kernel made of an advertisement, and that another machine has.
func TestAcquireDuplicateSLAAC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := withLinkLocal(machine())
		s.NICs[1].Addresses = append(s.NICs[1].Addresses, Address{Prefix: netip.MustParsePrefix("2001:db8::1/64"), Tentative: true, Duplicate: true})
		k := &fakeKernel{state: s, cables: map[string]time.Duration{"eth0": 0}, dup: map[netip.Addr]bool{netip.MustParseAddr("2001:db8::1"): true}}
		servers := &fakeServers{answers: map[string]fakeAnswer{"eth0 slaac": {time.Second, []Lease{{From: "router"}}}}}
		_, err := Plan{Links: []Link{{ID: "eth0", Kind: Physical, Device: "eth0", Auto: []Method{SLAAC}}}}.Acquire(t.Context(), k, servers, nil, quiet)
		if !errors.Is(err, ErrDuplicateAddress) || !strings.Contains(err.Error(), "2001:db8::1/64") {
			t.Errorf("Acquire() = %v", err)
		}
	})
}

// Of name servers that others name none counts, if that is said; the size of packets counts unless it is described, or too small for IPv6.
func TestWith(t *testing.T) {
	lease := given("192.0.2.50/24", "192.0.2.1", "192.0.2.53", time.Hour)
	lease.Method, lease.MTU = DHCP4, 1450
	small := lease
	small.MTU = 1000
	link := Link{ID: "a", Kind: Physical, Device: "eth0", Auto: []Method{DHCP4}}
	fixed, both := link, link
	fixed.MTU, both.Auto = 9000, []Method{DHCP4, SLAAC}
	const rest = "  address 192.0.2.50/24\n  route default via 192.0.2.1\n"
	for _, tt := range []struct {
		name  string
		plan  Plan
		lease Lease
		want  string
	}{
		{"all", Plan{Links: []Link{link}}, lease, "link a: physical, device eth0, mtu 1450, dhcpv4\n" + rest + "dns 192.0.2.53\n"},
		{"no name servers", Plan{Links: []Link{link}, IgnoreDNS: true}, lease, "link a: physical, device eth0, mtu 1450, dhcpv4\n" + rest},
		{"described", Plan{Links: []Link{fixed}, DNS: []netip.Addr{netip.MustParseAddr("192.0.2.99")}}, lease, "link a: physical, device eth0, mtu 9000, dhcpv4\n" + rest + "dns 192.0.2.99\n"},
		{"too small", Plan{Links: []Link{both}}, small, "link a: physical, device eth0, dhcpv4, slaac\n" + rest + "dns 192.0.2.53\n"},
		{"small", Plan{Links: []Link{link}}, small, "link a: physical, device eth0, mtu 1000, dhcpv4\n" + rest + "dns 192.0.2.53\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			compare(t, "plan", tt.plan.with([]leased{{"a", tt.lease}}).Plan.String(), tt.want)
		})
	}
}

// When what was given is to be asked for again.
func TestRenew(t *testing.T) {
	const hour = 3600
	for _, tt := range []struct {
		name            string
		t1, pref, valid int // seconds
		want            time.Duration
	}{
		{"as the server says", hour, 4 * hour, 8 * hour, time.Hour},
		{"as we like", 0, 4 * hour, 8 * hour, 2 * time.Hour},
		{"too late", 9 * hour, 4 * hour, 8 * hour, 2 * time.Hour},
		{"soon", 0, 60, 60, 30 * time.Second},
		{"without end", 0, 1<<32 - 1, 1<<32 - 1, (1<<32 - 1) * time.Second / 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m4, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(time.Duration(tt.pref)*time.Second)))
			if tt.t1 != 0 {
				m4.UpdateOption(dhcpv4.OptRenewTimeValue(time.Duration(tt.t1) * time.Second))
			}
			if err != nil {
				t.Fatal(err)
			}
			m6, err := dhcpv6.NewMessage(dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::50"), PreferredLifetime: time.Duration(tt.pref) * time.Second, ValidLifetime: time.Duration(tt.valid) * time.Second}))
			if err != nil {
				t.Fatal(err)
			}
			m6.Options.OneIANA().T1 = time.Duration(tt.t1) * time.Second
			l4, err4 := lease4(m4)
			l6, err6 := lease6(m6, true)
			if err4 != nil || err6 != nil || l4.Renew != tt.want || l6.Renew != tt.want {
				t.Errorf("DHCPv4 after %v, %v; DHCPv6 after %v, %v; want %v", l4.Renew, err4, l6.Renew, err6, tt.want)
			}
			valid4, valid6 := time.Duration(tt.pref)*time.Second, time.Duration(tt.valid)*time.Second
			if tt.valid == 1<<32-1 {
				valid4, valid6 = 0, 0
			}
			if l4.Valid != valid4 || l6.Valid != valid6 {
				t.Errorf("DHCPv4 for %v, want %v; DHCPv6 for %v, want %v", l4.Valid, valid4, l6.Valid, valid6)
			}
		})
	}
}

func TestLease4(t *testing.T) {
	ack := func(modifiers ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 2)))}, modifiers...)...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	router := func(ips ...string) dhcpv4.Modifier {
		var all []net.IP
		for _, ip := range ips {
			all = append(all, net.ParseIP(ip))
		}
		return dhcpv4.WithOption(dhcpv4.OptRouter(all...))
	}
	route := func(destination, gateway string) *dhcpv4.Route {
		_, n, err := net.ParseCIDR(destination)
		if err != nil {
			t.Fatal(err)
		}
		return &dhcpv4.Route{Dest: n, Router: net.ParseIP(gateway)}
	}
	tests := []struct {
		name string
		ack  *dhcpv4.DHCPv4
		want string
		err  string
	}{
		{"address", ack(), "dhcpv4 from 192.0.2.2, 192.0.2.50/24", ""},
		{"router", ack(router("192.0.2.1", "192.0.2.3")), "dhcpv4 from 192.0.2.2, 192.0.2.50/24, default via 192.0.2.1", ""},
		{"classless routes", ack(router("192.0.2.9"), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(route("0.0.0.0/0", "192.0.2.1"), route("198.51.100.0/24", "0.0.0.0"), route("192.0.2.0/24", "0.0.0.0")))),
			"dhcpv4 from 192.0.2.2, 192.0.2.50/24, default via 192.0.2.1, 198.51.100.0/24", ""},
		{"no mask", ack(dhcpv4.WithNetmask(net.CIDRMask(0, 32)), router("192.0.2.1")), "dhcpv4 from 192.0.2.2, 192.0.2.50/32, default via 192.0.2.1", ""},
		{"DNS", ack(dhcpv4.WithOption(dhcpv4.OptDNS(net.IPv4(192, 0, 2, 53), net.IPv4zero))), "dhcpv4 from 192.0.2.2, 192.0.2.50/24, dns 192.0.2.53", ""},
		{"NTP", ack(dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IPv4(192, 0, 2, 123), net.IPv4(192, 0, 2, 123), net.IPv4bcast))), "dhcpv4 from 192.0.2.2, 192.0.2.50/24, ntp 192.0.2.123", ""},
		{"MTU", ack(dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{5, 0xaa}))), "dhcpv4 from 192.0.2.2, 192.0.2.50/24, mtu 1450", ""},
		{"MTU of nobody", ack(dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0, 67}))), "dhcpv4 from 192.0.2.2, 192.0.2.50/24", ""},
		{"router that is us, or nobody", ack(router("0.0.0.0", "192.0.2.50")), "dhcpv4 from 192.0.2.2, 192.0.2.50/24", ""},
		{"no address", ack(dhcpv4.WithYourIP(net.IPv4zero)), "", "0.0.0.0 is not an address for a machine"},
		{"group's address", ack(dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1))), "", "224.0.0.1 is not an address for a machine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := lease4(tt.ack)
			if err != nil {
				compare(t, "error", err.Error(), tt.err)
				return
			}
			compare(t, "lease", l.String(), tt.want)
			if l.Renew < time.Minute || l.Valid != 0 { // the server does not say
				t.Errorf("to be renewed after %v, and good for %v", l.Renew, l.Valid)
			}
		})
	}
}

func FuzzLease4(f *testing.F) {
	m, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(192, 0, 2, 1))))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		if l, err := lease4(m); err == nil {
			usable(t, DHCP4, l)
		}
	})
}

func FuzzLease6(f *testing.F) {
	m, err := dhcpv6.NewMessage(dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::50"), PreferredLifetime: time.Hour, ValidLifetime: time.Hour}), dhcpv6.WithDNS(net.ParseIP("2001:db8::53")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv6.MessageFromBytes(b)
		if err != nil {
			return
		}
		for _, stateful := range []bool{true, false} {
			if l, err := lease6(m, stateful); err == nil {
				usable(t, DHCP6, l)
			}
		}
	})
}

// usable reports what the kernel would not take.
func usable(t *testing.T, m Method, l Lease) {
	k := &fakeKernel{state: machine()}
	p := Plan{Links: []Link{{ID: "a", Kind: Physical, MAC: "52:54:00:aa:bb:01", Auto: []Method{m}}}}
	a := p.with([]leased{{"a", l}})
	if _, err := a.make(t.Context(), k); err != nil {
		t.Fatalf("%s: %v", l, err)
	}
	if left, err := a.Plan.Changes(k.state); len(left) > 0 || err != nil {
		t.Fatalf("%s: left %v, %v", l, left, err)
	}
}

func FuzzParseAdvertisement(f *testing.F) {
	f.Add([]byte{134, 0, 0, 0, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 25, 3, 0, 0, 0, 0, 14, 16, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAdvertisement(b)
		if err == nil && len(a.dns) > serversMost {
			t.Errorf("%d servers", len(a.dns))
		}
	})
}

func TestParseAdvertisement(t *testing.T) {
	head := []byte{134, 0, 0, 0, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}
	dns := append([]byte{25, 3, 0, 0, 0, 0, 14, 16}, netip.MustParseAddr("2001:db8::53").AsSlice()...)
	a, err := parseAdvertisement(append(append(head[:16:16], 5, 1, 0, 0, 0, 0, 5, 220), dns...))
	if err != nil || !a.managed || !a.other || list(a.dns) != "2001:db8::53" {
		t.Errorf("parseAdvertisement = %+v, %v", a, err)
	}
	prefix := append([]byte{3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8::").AsSlice()...)
	for flags, own := range map[byte]bool{0xc0: true, 0x80: false} {
		prefix[3] = flags
		if a, err := parseAdvertisement(append(head[:16:16], prefix...)); err != nil || a.own != own {
			t.Errorf("prefix with flags %#x: %+v, %v", flags, a, err)
		}
	}
	for name, b := range map[string][]byte{"empty": {}, "short": head[:15], "another": append([]byte{133}, head[1:]...), "option of no length": append(head[:16:16], 25, 0), "cut": append(head[:16:16], dns[:20]...)} {
		if _, err := parseAdvertisement(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A network that is described works at once: who else answers is waited for as after a first answer, and no longer.
func TestAcquireBesideAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}}
		plan, err := ParseNetworkData([]byte(`{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}],
			"networks": [{"type": "ipv4", "link": "a", "ip_address": "198.51.100.7/24", "gateway": "198.51.100.1"}, {"type": "ipv6_slaac", "link": "a"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := plan.Acquire(t.Context(), k, &fakeServers{}, nil, func(string) {}); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("Acquire() = %v", err)
		}
		if took := time.Since(start); took > moreWait {
			t.Errorf("it took %v", took)
		}
	})
}
