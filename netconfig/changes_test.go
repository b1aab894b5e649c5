// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"errors"
	"net/netip"
	"testing"
)

func TestChanges(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	const mac = MAC("52:54:00:aa:bb:01")
	plan := func(l ...Link) Plan { return Plan{Links: l} }
	link := func(addresses []netip.Prefix, routes ...Route) Link {
		return Link{ID: "a", Kind: Physical, MAC: mac, Addresses: addresses, Routes: routes}
	}
	// A machine with one NIC, switched on and set up but for its addresses.
	ready := func(change func(*State)) State {
		s := State{NICs: []NIC{{
			Index: 2, Name: "eth0", Kind: "device", Driver: "ice", MAC: mac, PermanentMAC: mac, MTU: 1500, Up: true, Carrier: true,
			Options: map[Option]int{IPv6Off: 0, AcceptRA: 0, SkipDead4: 1, SkipDead6: 1},
		}}}
		if change != nil {
			change(&s)
		}
		return s
	}
	infiniband := func(s *State) {
		s.NICs[0].MAC = "80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1"
		s.NICs[0].PermanentMAC = s.NICs[0].MAC
	}
	v4 := []netip.Prefix{prefix("192.0.2.10/24")}
	v6 := []netip.Prefix{prefix("2001:db8::10/64")}
	way := Route{Destination: prefix("0.0.0.0/0"), Gateway: addr("192.0.2.1")}
	way6 := Route{Destination: prefix("::/0"), Gateway: addr("2001:db8::1")}

	tests := []struct {
		name string
		plan Plan
		have State
		want string
		err  string // "" if there must be none
	}{
		{"nothing wanted", Plan{}, ready(nil), "", ""},
		{"what is there is left alone", plan(link(v4)), ready(func(s *State) {
			s.NICs[0].Addresses = []Address{{Prefix: prefix("203.0.113.7/24")}, {Prefix: v4[0]}}
			s.Routes = []NICRoute{{"eth0", Route{Destination: prefix("203.0.113.0/24")}}}
			s.DNS = []netip.Addr{addr("203.0.113.53")}
		}), "", ""},
		{"same address with another mask", plan(link(v4)), ready(func(s *State) {
			s.NICs[0].Addresses = []Address{{Prefix: prefix("192.0.2.10/16")}}
		}), "add address 192.0.2.10/24 to eth0\n", ""},
		{"IPv6 default metric is what the kernel says", plan(link(v6, way6)), ready(func(s *State) {
			s.NICs[0].Addresses = []Address{{Prefix: v6[0]}}
			s.Routes = []NICRoute{{"eth0", Route{Destination: way6.Destination, Gateway: way6.Gateway, Metric: 1024}}}
		}), "", ""},
		{"IPv6 was off", plan(link(v6)), ready(func(s *State) {
			s.NICs[0].Options[IPv6Off], s.NICs[0].Options[AcceptRA] = 1, 2
		}), "set eth0 ipv6/disable_ipv6 0\nset eth0 ipv6/accept_ra 0\nadd address 2001:db8::10/64 to eth0\n", ""},
		{"router advertisements stay on for IPv4", plan(link(v4)), ready(func(s *State) {
			s.NICs[0].Options[AcceptRA] = 1
		}), "add address 192.0.2.10/24 to eth0\n", ""},
		{"another gateway was there", plan(link(v4, way)), ready(func(s *State) {
			s.NICs[0].Addresses = []Address{{Prefix: v4[0]}}
			s.Routes = []NICRoute{{"eth0", Route{Destination: way.Destination, Gateway: addr("192.0.2.254")}}}
		}), "remove route default via 192.0.2.254 dev eth0\nadd route default via 192.0.2.1 dev eth0\n", ""},
		{"another metric does not matter", plan(link(v4, way)), ready(func(s *State) {
			s.NICs[0].Addresses = []Address{{Prefix: v4[0]}}
			s.Routes = []NICRoute{{"eth9", Route{Destination: way.Destination, Gateway: addr("203.0.113.1"), Metric: 5}}}
		}), "add route default via 192.0.2.1 dev eth0\n", ""},
		{"permanent address wins over the current one", plan(link(v4)), ready(func(s *State) {
			other := s.NICs[0]
			other.Name, other.PermanentMAC = "eth1", "52:54:00:aa:bb:02" // shows eth0's
			s.NICs = append([]NIC{other}, s.NICs...)
		}), "add address 192.0.2.10/24 to eth0\n", ""},
		{"virtual function below a paravirtual NIC", plan(link(v4)), ready(func(s *State) {
			vf := s.NICs[0]
			vf.Name, vf.Master = "eth1", "eth0"
			s.NICs = append([]NIC{vf}, s.NICs...)
		}), "add address 192.0.2.10/24 to eth0\n", ""},
		{"a member keeps no address", Plan{Links: []Link{{ID: "a", Kind: Physical, MAC: mac},
			{ID: "b", Kind: Bonded, Bond: &Bond{Members: []string{"a"}, Options: map[string]int{"mode": activeBackup}}, Addresses: v4}}}, ready(func(s *State) {
			s.NICs[0].Addresses = []Address{{Prefix: v4[0]}, {Prefix: prefix("169.254.1.1/16")}, {Prefix: v6[0]}, {Prefix: prefix("fe80::1/64")}}
		}), "add bond b: active-backup\nset b ipv4/ignore_routes_with_linkdown 1\nset b ipv6/ignore_routes_with_linkdown 1\n" +
			"remove address 192.0.2.10/24 from eth0\nremove address 169.254.1.1/16 from eth0\nremove address 2001:db8::10/64 from eth0\nset eth0 down\nadd eth0 to b\nset b up\nadd address 192.0.2.10/24 to b\n", ""},
		{"another MAC", Plan{Links: []Link{{ID: "a", Kind: Physical, Device: "eth0", NewMAC: "52:54:00:aa:bb:09", Addresses: append(v6, v4...), Routes: []Route{way}}}}, ready(func(s *State) {
			s.NICs[0].Addresses = []Address{{Prefix: v4[0]}, {Prefix: v6[0]}}
			s.Routes = []NICRoute{{"eth0", way}}
		}), "set eth0 down\nset eth0 mac 52:54:00:aa:bb:09\nset eth0 up\nadd address 2001:db8::10/64 to eth0\nadd route default via 192.0.2.1 dev eth0\n", ""},
		{"another MAC is in force", Plan{Links: []Link{{ID: "a", Kind: Physical, MAC: mac, NewMAC: "52:54:00:aa:bb:09", Addresses: v4}}}, ready(func(s *State) {
			s.NICs[0].MAC, s.NICs[0].Addresses = "52:54:00:aa:bb:09", []Address{{Prefix: v4[0]}}
		}), "", ""},
		{"InfiniBand by the six bytes that Ironic has", plan(Link{ID: "a", Kind: Physical, MAC: "f4:52:14:7b:cb:a1", Addresses: v4}), ready(infiniband), "add address 192.0.2.10/24 to eth0\n", ""},
		{"InfiniBand after a restart of its driver", plan(Link{ID: "a", Kind: Physical, MAC: "80:00:02:4a:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1", Addresses: v4}), ready(infiniband), "add address 192.0.2.10/24 to eth0\n", ""},
		{"another NIC of InfiniBand", plan(Link{ID: "a", Kind: Physical, MAC: "f4:52:14:7b:cb:a2", Addresses: v4}), ready(infiniband), "",
			"link a: no such NIC: no NIC has the MAC f4:52:14:7b:cb:a2; the machine has eth0 80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1 (ice, link)"},
		{"bond of InfiniBand by six bytes", plan(Link{ID: "a", Kind: Physical, MAC: "f4:52:14:7b:cb:a1"},
			Link{ID: "b", Kind: Bonded, MAC: "f4:52:14:7b:cb:a1", Bond: &Bond{Members: []string{"a"}, Options: map[string]int{"mode": activeBackup}}}), ready(infiniband),
			"add bond b: active-backup fail_over_mac active\nset b ipv4/ignore_routes_with_linkdown 1\nset b ipv6/ignore_routes_with_linkdown 1\nset eth0 down\nadd eth0 to b\nset b up\n", ""},
		{"bond of InfiniBand that is there", plan(Link{ID: "a", Kind: Physical, MAC: "f4:52:14:7b:cb:a1"},
			Link{ID: "b", Kind: Bonded, MAC: "f4:52:14:7b:cb:a1", Bond: &Bond{Members: []string{"a"}, Options: map[string]int{"mode": activeBackup}}}), ready(func(s *State) {
			infiniband(s)
			bond := s.NICs[0]
			bond.Name, bond.Kind, bond.PermanentMAC, bond.Alias, bond.Bond = "b", "bond", "", mark("b"), &Bond{Options: map[string]int{"mode": activeBackup, "fail_over_mac": 1}}
			s.NICs[0].Master = "b"
			s.NICs = append(s.NICs, bond)
		}), "", ""},
		{"bond of InfiniBand in another mode", plan(Link{ID: "a", Kind: Physical, MAC: "f4:52:14:7b:cb:a1"},
			Link{ID: "b", Kind: Bonded, Bond: &Bond{Members: []string{"a"}, Options: map[string]int{"mode": lacp}}}), ready(infiniband), "", "link b: mode 802.3ad: want active-backup for InfiniBand"},

		{"route of a NIC that is not ours", plan(link(v4, way)), ready(func(s *State) {
			s.Routes = []NICRoute{{"eth9", Route{Destination: way.Destination, Gateway: addr("203.0.113.1")}}}
		}), "add address 192.0.2.10/24 to eth0\n",
			"link a: route default via 192.0.2.1 dev eth0: the machine has default via 203.0.113.1 dev eth9"},
		{"route to where the link is", plan(link(v4, Route{Destination: prefix("192.0.2.0/24"), Gateway: addr("192.0.2.1")})), ready(func(s *State) {
			s.NICs[0].Addresses = []Address{{Prefix: v4[0]}}
			s.Routes = []NICRoute{{"eth0", Route{Destination: prefix("192.0.2.0/24")}}}
		}), "", "link a: route 192.0.2.0/24 via 192.0.2.1 dev eth0: the machine has 192.0.2.0/24 dev eth0"},
		{"kernel without IPv6", plan(link(append(v6, v4...))), ready(func(s *State) {
			delete(s.NICs[0].Options, IPv6Off)
		}), "add address 192.0.2.10/24 to eth0\n", "link a: eth0: this kernel has no IPv6"},
		{"no NIC at all", plan(link(v4)), State{}, "",
			"link a: no such NIC: no NIC has the MAC 52:54:00:aa:bb:01; the machine has no NIC that the kernel has a driver for"},
		{"NIC in a bond", plan(link(v4)), ready(func(s *State) { s.NICs[0].Master = "bond0" }), "",
			"link a: eth0 (52:54:00:aa:bb:01) belongs to bond0"},
		{"two NICs with one MAC", plan(link(v4)), ready(func(s *State) {
			twin := s.NICs[0]
			twin.Name, twin.Carrier = "eth1", false
			s.NICs = append(s.NICs, twin)
		}), "", "link a: 2 NICs have the MAC 52:54:00:aa:bb:01; the machine has eth0 52:54:00:aa:bb:01 (ice, link), eth1 52:54:00:aa:bb:01 (ice, no link)"},
		{"two links with one NIC", plan(link(v4), Link{ID: "b", Kind: Physical, MAC: mac}), ready(nil),
			"add address 192.0.2.10/24 to eth0\n", "link b: eth0 is taken by link a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changes, err := tt.plan.Changes(tt.have)
			compare(t, "changes", lines(changes), tt.want)
			text := ""
			if err != nil {
				text = err.Error()
			}
			compare(t, "error", text, tt.err)
		})
	}

	_, err := plan(link(v4)).Changes(State{})
	if !errors.Is(err, ErrNoNIC) {
		t.Errorf("Changes without the NIC = %v, want ErrNoNIC", err)
	}
}

func TestResolvConf(t *testing.T) {
	servers := parseResolvConf([]byte("# nameserver 1.1.1.1\nsearch example.org\nnameserver 192.0.2.53\n nameserver\t2001:db8::53 \nnameserver\nnameserver x\nnameserver ::ffff:192.0.2.54"))
	want := []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53"), netip.MustParseAddr("192.0.2.54")}
	if list(servers) != list(want) {
		t.Errorf("parseResolvConf = %s, want %s", list(servers), list(want))
	}
	if again := parseResolvConf(resolvConf(servers)); list(again) != list(want) {
		t.Errorf("parseResolvConf(resolvConf(...)) = %s, want %s", list(again), list(want))
	}
}

// The addresses of NICs have many lengths, and none is taken for one of InfiniBand that is none.
func TestMACIs(t *testing.T) {
	const infiniband = "80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1"
	for long := 0; long <= len(infiniband)+6; long++ {
		nic := MAC((infiniband + ":01:02")[:long])
		if got, want := MAC("f4:52:14:7b:cb:a1").Is(nic), long == len(infiniband); got != want && long <= len(infiniband) {
			t.Errorf("Is(%s) = %v, want %v", nic, got, want)
		}
	}
}
