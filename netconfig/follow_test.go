// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A network is what a NIC is in: what it answers, and the addresses that the kernel makes of its advertisements.
type network struct {
	dhcp   Lease // without addresses: nobody answers
	router string
	slaac  string
	dhcp6  string // an address by DHCPv6, instead
}

// networks answer as the network does in which a NIC is then.
type networks struct {
	k  *fakeKernel
	in func(nic string) network
}

func (s networks) Ask(ctx context.Context, n NIC, m Method) (Lease, error) {
	if err := pause(ctx, time.Second); err != nil {
		return Lease{}, err
	}
	in := s.in(n.Name)
	switch {
	case m == DHCP4 && len(in.dhcp.Addresses) > 0:
		l := in.dhcp
		l.Method = m
		return l, nil
	case m.is6() && in.router != "":
		r := netip.MustParseAddr(in.router)
		s.k.mu.Lock()
		defer s.k.mu.Unlock()
		nic := s.k.nic(n.Name)
		if a, err := netip.ParsePrefix(in.slaac); err == nil && !slices.ContainsFunc(nic.Addresses, func(h Address) bool { return h.Prefix == a }) {
			nic.Addresses = append(nic.Addresses, Address{Prefix: a})
		}
		route := NICRoute{n.Name, Route{Destination: everywhere(r), Gateway: r, Metric: 1024}}
		if !slices.Contains(s.k.state.Routes, route) {
			s.k.state.Routes = append(s.k.state.Routes, route)
		}
		l := Lease{Method: m, From: "router " + in.router, Router: r}
		if a, err := netip.ParsePrefix(in.dhcp6); err == nil {
			l.Addresses = []netip.Prefix{a}
		}
		return l, nil
	}
	<-ctx.Done()
	return Lease{}, context.Cause(ctx)
}

func TestFollow(t *testing.T) {
	const (
		after = 90 * time.Second // the port is moved
		end   = 5 * time.Minute
	)
	static := `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}], "networks": [
		{"type": "ipv4", "link": "a", "ip_address": "192.0.2.10/24", "gateway": "192.0.2.1"}], "services": [{"type": "dns", "address": "192.0.2.53"}]}`
	static6 := strings.Replace(static, `{"type": "ipv4"`, `{"type": "ipv6", "link": "a", "ip_address": "2001:db8:a::10/64", "gateway": "fe80::a"}, {"type": "ipv4"`, 1)
	old := network{dhcp: given("192.0.2.10/24", "192.0.2.1", "192.0.2.53", time.Hour)}
	tenants := network{dhcp: given("203.0.113.9/24", "203.0.113.1", "203.0.113.53", time.Hour)}
	only := func(before, then network) func(string, time.Duration) network {
		return func(nic string, at time.Duration) network {
			switch {
			case nic != "eth0":
				return network{}
			case at < after:
				return before
			}
			return then
		}
	}
	tests := []struct {
		name string
		data string
		in   func(nic string, at time.Duration) network
		want string // in the end, of what this is about
	}{
		{"moved", static, only(old, tenants), "eth0 203.0.113.9/24\nroute default via 203.0.113.1 dev eth0\ndns 203.0.113.53"},
		{"nobody answers", static, only(network{}, network{}), "eth0 192.0.2.10/24\nroute default via 192.0.2.1 dev eth0\ndns 192.0.2.53"},
		{"nobody answers in the new network", static, only(old, network{}), "eth0 192.0.2.10/24\nroute default via 192.0.2.1 dev eth0\ndns 192.0.2.53"},
		{"the same address, another way out", static, only(old, network{dhcp: given("192.0.2.10/24", "192.0.2.254", "", time.Hour)}), "eth0 192.0.2.10/24\nroute default via 192.0.2.254 dev eth0\ndns 192.0.2.53"},
		{"another address of the same network", static, only(network{}, network{dhcp: given("192.0.2.77/24", "192.0.2.1", "", time.Hour)}), "eth0 192.0.2.77/24\nroute default via 192.0.2.1 dev eth0\ndns 192.0.2.53"},
		{"another NIC too", static, func(nic string, at time.Duration) network {
			if nic == "eth1" {
				return network{dhcp: given("198.51.100.5/24", "198.51.100.1", "198.51.100.53", time.Hour)}
			}
			return only(old, tenants)(nic, at)
		}, "eth0 203.0.113.9/24\neth1 198.51.100.5/24\nroute default via 198.51.100.1 dev eth1 metric 1028\nroute default via 203.0.113.1 dev eth0\ndns 203.0.113.53\ndns 198.51.100.53"},
		{"router", static, only(network{router: "fe80::a", slaac: "2001:db8:a::1/64"}, network{router: "fe80::b", slaac: "2001:db8:b::1/64"}),
			"eth0 192.0.2.10/24 2001:db8:b::1/64\nroute default via 192.0.2.1 dev eth0\nroute default via fe80::b dev eth0 metric 1024\ndns 192.0.2.53"},
		{"router with DHCPv6", static, only(network{router: "fe80::a", dhcp6: "2001:db8:a::7/128"}, network{router: "fe80::b", dhcp6: "2001:db8:b::7/128"}),
			"eth0 192.0.2.10/24 2001:db8:b::7/128\nroute default via 192.0.2.1 dev eth0\nroute default via fe80::b dev eth0 metric 1024\ndns 192.0.2.53"},
		{"another address by DHCPv6", static, only(network{router: "fe80::a", dhcp6: "2001:db8:a::7/128"}, network{router: "fe80::a", dhcp6: "2001:db8:a::8/128"}),
			"eth0 192.0.2.10/24 2001:db8:a::8/128\nroute default via 192.0.2.1 dev eth0\nroute default via fe80::a dev eth0 metric 1024\ndns 192.0.2.53"},
		{"two routers", static, func(nic string, at time.Duration) network {
			switch {
			case nic != "eth0":
				return network{}
			case at/time.Minute%2 == 0:
				return network{router: "fe80::b", slaac: "2001:db8:b::1/64"}
			}
			return network{router: "fe80::c", slaac: "2001:db8:c::1/64"}
		}, "eth0 192.0.2.10/24 2001:db8:c::1/64 2001:db8:b::1/64\nroute default via 192.0.2.1 dev eth0\nroute default via fe80::c dev eth0 metric 1024\nroute default via fe80::b dev eth0 metric 1024\ndns 192.0.2.53"},
		{"fixed IPv6", static6, only(network{router: "fe80::a", slaac: "2001:db8:a::1/64"}, network{router: "fe80::b", slaac: "2001:db8:b::1/64"}),
			"eth0 2001:db8:a::10/64 192.0.2.10/24 2001:db8:b::1/64\nroute default via 192.0.2.1 dev eth0\nroute default via fe80::b dev eth0 metric 1024\ndns 192.0.2.53"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0, "eth1": 3 * time.Second}}
				plan, err := ParseNetworkData([]byte(test.data))
				if err != nil {
					t.Fatal(err)
				}
				if err := plan.Apply(t.Context(), k); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), end)
				defer cancel()
				start := time.Now()
				Follow(ctx, k, networks{k, func(nic string) network { return test.in(nic, time.Since(start)) }}, func(line string) {
					t.Logf("%v: %s", time.Since(start).Round(time.Second), line)
				})
				if took := time.Since(start); took != end {
					t.Errorf("Follow() took %v", took)
				}
				compare(t, "machine", k.brief(), test.want)
			})
		})
	}
}

// brief are the addresses but for those of links, the routes and the name servers.
func (k *fakeKernel) brief() string {
	var lines []string
	for _, n := range k.state.NICs {
		line := n.Name
		for _, a := range n.Addresses {
			if !n.Loopback && !a.Prefix.Addr().IsLinkLocalUnicast() {
				line += " " + a.Prefix.String()
			}
		}
		if line != n.Name {
			lines = append(lines, line)
		}
	}
	for _, r := range k.state.Routes {
		lines = append(lines, "route "+r.String())
	}
	for _, s := range k.state.DNS {
		lines = append(lines, "dns "+s.String())
	}
	return strings.Join(lines, "\n")
}

// How soon a move is found: right after the hand-over, later, and at once where the NIC loses its link. What the tenant changes by hand is left alone.
func TestFollowTime(t *testing.T) {
	tests := []struct {
		name  string
		moved time.Duration
		flap  bool
		most  time.Duration
	}{
		{"soon", 20 * time.Second, false, 45 * time.Second},
		{"minutes later", 10 * time.Minute, false, followOften + 2*time.Second},
		{"hours later", 5 * time.Hour, false, followSeldom + 2*time.Second},
		{"hours later, with the link", 5 * time.Hour, true, 5 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				moved := func() bool { return time.Since(start) >= test.moved }
				asked := networks{k, func(nic string) network {
					switch {
					case nic != "eth0":
						return network{}
					case moved():
						return network{dhcp: given("203.0.113.9/24", "203.0.113.1", "", 12*time.Hour)}
					}
					return network{dhcp: given("192.0.2.10/24", "192.0.2.1", "", 12*time.Hour)}
				}}
				var found time.Duration
				go Follow(ctx, k, asked, func(line string) {
					if strings.Contains(line, "203.0.113.9") {
						found = time.Since(start) - test.moved
					}
				})
				time.Sleep(10 * time.Second)
				byHand := netip.MustParsePrefix("10.9.9.9/8")
				if err := k.Do(ctx, AddAddress{"eth0", byHand}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(test.moved - 10*time.Second)
				if test.flap {
					k.mu.Lock()
					delete(k.cables, "eth0")
					k.mu.Unlock()
					time.Sleep(2 * time.Second)
					k.mu.Lock()
					k.cables["eth0"] = 0
					k.mu.Unlock()
				}
				time.Sleep(test.most)
				synctest.Wait()
				k.mu.Lock()
				compare(t, "machine", k.brief(), "eth0 10.9.9.9/8 203.0.113.9/24\nroute default via 203.0.113.1 dev eth0")
				k.mu.Unlock()
				if found == 0 {
					t.Errorf("not found within %v", test.most)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// A size of packets that the NIC cannot do is not tried with each answer, and the rest counts. It gets link after the first answer here.
func TestFollowMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}, fails: map[string]error{"set eth0 mtu 9000": context.DeadlineExceeded}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		lease := given("203.0.113.9/24", "203.0.113.1", "", time.Hour)
		lease.MTU = 9000
		var said []string
		Follow(ctx, k, networks{k, func(nic string) network { return map[string]network{"eth0": {dhcp: lease}}[nic] }}, func(line string) { said = append(said, line) })
		compare(t, "machine", k.brief(), "eth0 203.0.113.9/24\nroute default via 203.0.113.1 dev eth0")
		compare(t, "said", strings.Join(said, "\n"), "set eth0 mtu 9000: context deadline exceeded\neth0: dhcpv4 from server, 203.0.113.9/24, default via 203.0.113.1, mtu 9000\nset eth0 mtu 9000: context deadline exceeded")
	})
}

// A NIC that goes and comes again, switched off and with another index, is asked on again.
func TestFollowNICAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}}
		lease := given("203.0.113.9/24", "203.0.113.1", "", time.Hour)
		lease.MTU = 1450
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		time.AfterFunc(time.Hour, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.down("eth0")
			k.state.NICs = slices.DeleteFunc(slices.Clone(k.state.NICs), func(n NIC) bool { return n.Name == "eth0" })
		})
		time.AfterFunc(119*time.Minute, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			fresh := machine().NICs[1]
			fresh.Index = 17
			k.state.NICs = slices.Insert(k.state.NICs, 1, fresh)
		})
		Follow(ctx, k, networks{k, func(nic string) network { return map[string]network{"eth0": {dhcp: lease}}[nic] }}, quiet)
		compare(t, "machine", k.brief(), "eth0 203.0.113.9/24\nroute default via 203.0.113.1 dev eth0")
		if got := k.nic("eth0").MTU; got != 1450 {
			t.Errorf("mtu %d", got)
		}
	})
}

// An address that the kernel does not take is said, and tried again.
func TestFollowTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0}, fails: map[string]error{"add address 203.0.113.9/24 to eth0": context.DeadlineExceeded}}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		said := 0
		time.AfterFunc(time.Minute, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.fails = nil
		})
		Follow(ctx, k, networks{k, func(nic string) network {
			return map[string]network{"eth0": {dhcp: given("203.0.113.9/24", "", "", time.Hour)}}[nic]
		}}, func(line string) {
			if strings.Contains(line, "deadline exceeded") {
				said++
			}
		})
		if said == 0 {
			t.Error("the failure was not said")
		}
		compare(t, "machine", k.brief(), "eth0 203.0.113.9/24")
	})
}

// What has the address of one NIC left by that one: in another network that may lead to a gateway of the old one.
func TestFollowForgetsSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: withLinkLocal(machine()), cables: map[string]time.Duration{"eth0": 0, "eth1": 0}}
		plan, err := ParseNetworkData([]byte(`{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
			"networks": [{"type": "ipv4", "link": "a", "ip_address": "192.0.2.10/24", "gateway": "192.0.2.1"}, {"type": "ipv4", "link": "b", "ip_address": "198.51.100.10/24", "gateway": "198.51.100.1"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.Apply(t.Context(), k); err != nil || len(k.state.Sources) != 2 {
			t.Fatalf("Apply() = %v\n%s", err, k)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		Follow(ctx, k, networks{k, func(string) network { return network{} }}, quiet)
		if got := k.String(); len(k.state.Sources) > 0 || !strings.Contains(got, "192.0.2.10/24") || !strings.Contains(got, "route default via 192.0.2.1 dev eth0") {
			t.Errorf("machine\n%s", got)
		}
	})
}
