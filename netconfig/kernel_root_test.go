// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netconfig_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/netconfig/netnstest"
)

// kernel returns the running kernel, with a list of name servers of its own.
func kernel(t *testing.T) (k netconfig.Kernel, resolvConf string) {
	t.Helper()
	resolvConf = filepath.Join(t.TempDir(), "etc", "resolv.conf")
	k, err := netconfig.NewKernelAt(resolvConf)
	if err != nil {
		t.Fatal(err)
	}
	return k, resolvConf
}

func parse(t *testing.T, data string) netconfig.Plan {
	t.Helper()
	p, err := netconfig.ParseNetworkData([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// device is what "ip -j addr" says of a NIC, and routes what "ip -j route" says.
type device struct {
	MTU     int `json:"mtu"`
	Flags   []string
	Address []struct {
		Local      string
		PrefixLen  int
		Tentative  bool
		DadFailed  bool
		Deprecated bool
		Scope      string
	} `json:"addr_info"`
}

// addresses returns those that are not link-local, with a mark for IPv6 ones that
// cannot be used.
func addresses(t *testing.T, nic string) (mtu int, all []string) {
	t.Helper()
	var devices []device
	if err := json.Unmarshal(netnstest.IP(t, "-j addr show dev "+nic), &devices); err != nil || len(devices) != 1 {
		t.Fatalf("ip addr show dev %s: %v, %v", nic, devices, err)
	}
	for _, a := range devices[0].Address {
		if a.Scope == "link" {
			continue
		}
		text := fmt.Sprintf("%s/%d", a.Local, a.PrefixLen)
		if a.Tentative {
			text += " tentative"
		}
		if a.DadFailed {
			text += " duplicate"
		}
		all = append(all, text)
	}
	return devices[0].MTU, all
}

// routes returns the static ones, as the program lists them.
func routes(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, family := range []string{"-4", "-6"} {
		var list []struct {
			Dst, Gateway, Dev string
			Metric            int
			Flags             []string
		}
		if err := json.Unmarshal(netnstest.IP(t, family+" -j route show proto static"), &list); err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			text := fmt.Sprintf("%s via %s dev %s metric %d", r.Dst, r.Gateway, r.Dev, r.Metric)
			for _, f := range []string{"onlink", "linkdown"} {
				if slices.Contains(r.Flags, f) {
					text += " " + f
				}
			}
			all = append(all, text)
		}
	}
	return all
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// reaches says whether a TCP connection gets to an address, from any thread.
func reaches(t *testing.T, address string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Error(err)
		return
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

const data = `{"links": [{"id": "port0", "type": "phy", "ethernet_mac_address": "52-54-00-AA-BB-01", "mtu": 1450}],
 "networks": [
  {"id": "4", "type": "ipv4", "link": "port0", "ip_address": "192.0.2.10", "netmask": "255.255.255.0", "routes": [
   {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}, {"network": "203.0.113.0", "netmask": 24, "gateway": "192.0.2.2"}]},
  {"id": "6", "type": "ipv6", "link": "port0", "ip_address": "2001:db8::10", "netmask": "ffff:ffff:ffff:ffff::", "routes": [
   {"network": "::0", "netmask": "::0", "gateway": "2001:db8::1"}]}],
 "services": [{"type": "dns", "address": "192.0.2.53"}, {"type": "dns", "address": "2001:db8::53"}]}`

// router is a peer with the gateways of data, and a host behind them.
func router(t *testing.T) *netnstest.Peer {
	t.Helper()
	p := netnstest.NewPeer(t)
	p.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	for _, a := range []string{"192.0.2.1/24 dev far0", "192.0.2.53/24 dev far0", "2001:db8::1/64 dev far0 nodad", "198.51.100.7/32 dev lo", "2001:db8:1::7/128 dev lo nodad"} {
		p.IP(t, "addr add "+a)
	}
	return p
}

func TestRootApply(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.Listen(t, "198.51.100.7:6385")
	peer.Listen(t, "[2001:db8:1::7]:6385")
	k, resolvConf := kernel(t)
	plan := parse(t, data)
	for _, round := range []string{"first", "second"} {
		if err := plan.Apply(t.Context(), k); err != nil {
			t.Fatalf("%s Apply = %v", round, err)
		}
		mtu, got := addresses(t, "eth0")
		if mtu != 1450 {
			t.Errorf("mtu %d, want 1450", mtu)
		}
		same(t, "addresses", got, []string{"192.0.2.10/24", "2001:db8::10/64"})
		same(t, "routes", routes(t), []string{
			"default via 192.0.2.1 dev eth0 metric 0", "203.0.113.0/24 via 192.0.2.2 dev eth0 metric 0",
			"default via 2001:db8::1 dev eth0 metric 1024"})
		for path, want := range map[string]string{
			resolvConf:                               "# by ironhand, from the description of the network\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n",
			"/proc/sys/net/ipv6/conf/eth0/accept_ra": "0\n",
		} {
			if b, err := os.ReadFile(path); err != nil || string(b) != want {
				t.Errorf("%s = %q, %v; want %q", path, b, err, want)
			}
		}
		if out := string(netnstest.IP(t, "-o link show lo up")); !strings.Contains(out, "LOOPBACK,UP") {
			t.Errorf("lo: %s", out)
		}
		reaches(t, "198.51.100.7:6385")
		reaches(t, "[2001:db8:1::7]:6385")

		have, err := k.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if changes, err := plan.Changes(have); err != nil || len(changes) > 0 {
			t.Errorf("left after %s Apply: %v, %v", round, changes, err)
		}
		// The second time the kernel is told everything again, as when two programs
		// race; "exists" must not be an error.
		for _, n := range have.NICs {
			if n.Name != "eth0" {
				continue
			}
			for _, c := range []netconfig.Change{
				netconfig.SetUp{NIC: "eth0"}, netconfig.AddAddress{NIC: "eth0", Address: plan.Links[0].Addresses[1]},
				netconfig.AddRoute{NIC: "eth0", Route: plan.Links[0].Routes[0]}, netconfig.AddRoute{NIC: "eth0", Route: plan.Links[0].Routes[2]},
			} {
				if err := k.Do(t.Context(), c); err != nil {
					t.Errorf("%s, again: %v", c, err)
				}
			}
		}
	}
	// Another gateway in the place of ours is an error, not "exists already".
	wrong := plan.Links[0].Routes[0]
	wrong.Gateway = wrong.Gateway.Next()
	if err := k.Do(t.Context(), netconfig.AddRoute{NIC: "eth0", Route: wrong}); err == nil {
		t.Errorf("add route %s beside %s: no error", wrong, plan.Links[0].Routes[0])
	}
	for _, c := range []netconfig.Change{
		netconfig.SetUp{NIC: "eth9"}, netconfig.SetMTU{NIC: "eth0", MTU: 1 << 20}, netconfig.SetOption{NIC: "eth0", Option: "ipv6/no_such", Value: 1}, nil,
	} {
		if err := k.Do(t.Context(), c); err == nil {
			t.Errorf("%v: no error", c)
		}
	}

	// A new plan for the same NIC: routes in the way are replaced.
	moved := parse(t, strings.ReplaceAll(data, `"192.0.2.1"`, `"192.0.2.53"`))
	if err := moved.Apply(t.Context(), k); err != nil {
		t.Errorf("Apply of the changed plan = %v", err)
	}
	if got := routes(t); !slices.Contains(got, "default via 192.0.2.53 dev eth0 metric 0") || slices.Contains(got, "default via 192.0.2.1 dev eth0 metric 0") {
		t.Errorf("routes of the changed plan: %q", got)
	}
}

// Gateways that no network of the link covers.
func TestRootOnLink(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	for _, words := range []string{"addr add 198.51.100.1/32 dev far0", "route add 203.0.113.77/32 dev far0", "addr add 10.0.0.1/32 dev lo",
		"addr add 2001:db8:1::1/128 dev far0 nodad", "-6 route add 2001:db8::2/128 dev far0", "addr add 2001:db8:2::7/128 dev lo nodad"} {
		peer.IP(t, words)
	}
	peer.Listen(t, "10.0.0.1:80")
	peer.Listen(t, "[2001:db8:2::7]:80")
	k, _ := kernel(t)
	plan := parse(t, `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}],
		"networks": [
		 {"type": "ipv4", "link": "a", "ip_address": "203.0.113.77/32", "routes": [{"network": "0.0.0.0/0", "gateway": "198.51.100.1"}]},
		 {"type": "ipv6", "link": "a", "ip_address": "2001:db8::2/128", "routes": [{"network": "::/0", "gateway": "2001:db8:1::1"}]}]}`)
	if err := plan.Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	same(t, "routes", routes(t), []string{"default via 198.51.100.1 dev eth0 metric 0 onlink", "default via 2001:db8:1::1 dev eth0 metric 1024 onlink"})
	reaches(t, "10.0.0.1:80")
	reaches(t, "[2001:db8:2::7]:80")
}

// Two NICs with a default route each, the first without a cable: all is set up,
// the missing link is told, and connections use the second.
func TestRootOneOfTwoCables(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	peer.Cable(t, "eth1", "52:54:00:aa:bb:02", "far1")
	for _, words := range []string{"link set far0 down", "addr add 198.51.100.1/24 dev far1", "addr add 2001:db8:b::1/64 dev far1 nodad",
		"addr add 203.0.113.7/32 dev lo", "addr add 2001:db8:c::7/128 dev lo nodad"} {
		peer.IP(t, words)
	}
	peer.Listen(t, "203.0.113.7:80")
	peer.Listen(t, "[2001:db8:c::7]:80")
	k, _ := kernel(t)
	plan := parse(t, `{"links": [
		 {"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
		"networks": [
		 {"type": "ipv4", "link": "a", "ip_address": "192.0.2.10/24", "gateway": "192.0.2.1"},
		 {"type": "ipv6", "link": "a", "ip_address": "2001:db8:a::10/64", "gateway": "2001:db8:a::1"},
		 {"type": "ipv4", "link": "b", "ip_address": "198.51.100.10/24", "gateway": "198.51.100.1"},
		 {"type": "ipv6", "link": "b", "ip_address": "2001:db8:b::10/64", "gateway": "2001:db8:b::1"}]}`)
	err := plan.Apply(t.Context(), k)
	if !errors.Is(err, netconfig.ErrNoCarrier) || !strings.Contains(err.Error(), "eth0 (52:54:00:aa:bb:01, veth, no link)") || strings.Contains(err.Error(), "\n") {
		t.Errorf("Apply = %v, want no link on eth0 only", err)
	}
	same(t, "routes", routes(t), []string{
		"default via 192.0.2.1 dev eth0 metric 0 linkdown", "default via 198.51.100.1 dev eth1 metric 1025",
		"default via 2001:db8:a::1 dev eth0 metric 1024 linkdown", "default via 2001:db8:b::1 dev eth1 metric 1025"})
	reaches(t, "203.0.113.7:80")
	reaches(t, "[2001:db8:c::7]:80")
}

func TestRootDuplicateAddress(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.IP(t, "addr add 2001:db8::10/64 dev far0 nodad")
	k, _ := kernel(t)
	err := parse(t, data).Apply(t.Context(), k)
	if !errors.Is(err, netconfig.ErrDuplicateAddress) || !strings.Contains(err.Error(), "2001:db8::10/64 on eth0") {
		t.Errorf("Apply = %v, want ErrDuplicateAddress", err)
	}
	_, got := addresses(t, "eth0")
	same(t, "addresses", got, []string{"192.0.2.10/24", "2001:db8::10/64 tentative duplicate"})
	r := netconfig.Check(t.Context(), k, netconfig.Target{Host: "2001:db8:1::7", Port: 80})
	if r.Cause != "another machine has the address 2001:db8::10 of eth0" {
		t.Errorf("Check =\n%s", r)
	}
}

// The NIC that the plan names is missing, another one is there.
func TestRootMissingNIC(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	router(t)
	k, _ := kernel(t)
	plan := parse(t, strings.ReplaceAll(data, "52-54-00-AA-BB-01", "52:54:00:aa:bb:99"))
	err := plan.Apply(t.Context(), k)
	if !errors.Is(err, netconfig.ErrNoNIC) || !strings.Contains(err.Error(), "52:54:00:aa:bb:99; the machine has eth0 52:54:00:aa:bb:01 (veth, switched off)") {
		t.Errorf("Apply = %v, want ErrNoNIC and the NICs that there are", err)
	}
	if _, got := addresses(t, "eth0"); len(got) > 0 {
		t.Errorf("addresses of a NIC that the plan does not name: %q", got)
	}
}

// The kernel command line as PXELINUX makes it, with what dracut knows beside it.
func TestRootCmdline(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.Listen(t, "198.51.100.7:6385")
	k, resolvConf := kernel(t)
	plan, from, err := netconfig.Sources{Cmdline: "quiet BOOTIF=01-52-54-00-aa-bb-01 ip=192.0.2.10:192.0.2.9:192.0.2.1:255.255.255.0 ip=[2001:db8::10]::[fe80::99]:64::eth0:none:1400 " +
		"rd.route=203.0.113.0/24:192.0.2.2 nameserver=192.0.2.53"}.Plan()
	if err != nil || from != "kernel command line" {
		t.Fatalf("Plan() = from %q, %v", from, err)
	}
	// BOOTIF and eth0 are one NIC: two links want it.
	if err := plan.Apply(t.Context(), k); err == nil || !strings.Contains(err.Error(), "eth0 is taken by link BOOTIF") {
		t.Errorf("Apply = %v", err)
	}
	_, got := addresses(t, "eth0")
	same(t, "addresses", got, []string{"192.0.2.10/24"})
	same(t, "routes", routes(t), []string{"default via 192.0.2.1 dev eth0 metric 0", "203.0.113.0/24 via 192.0.2.2 dev eth0 metric 0"})
	if b, err := os.ReadFile(resolvConf); err != nil || !strings.Contains(string(b), "nameserver 192.0.2.53\n") {
		t.Errorf("resolv.conf %q, %v", b, err)
	}
	reaches(t, "198.51.100.7:6385")

	plan, _, err = netconfig.Sources{Cmdline: "ip=[2001:db8::10]::[fe80::99]:64::eth0:none:1400 ip=192.0.2.10::192.0.2.1:24::eth0:none"}.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Apply(t.Context(), k); err != nil {
		t.Error(err)
	}
	mtu, got := addresses(t, "eth0")
	same(t, "addresses", got, []string{"192.0.2.10/24", "2001:db8::10/64"})
	if mtu != 1400 {
		t.Errorf("mtu %d, want 1400", mtu)
	}
	if got := routes(t); !slices.Contains(got, "default via fe80::99 dev eth0 metric 1024") {
		t.Errorf("routes %q lack the link-local gateway", got)
	}
}

// Two NICs in one network: each answers for its own address alone, and connections from either arrive.
func TestRootOneNetwork(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	peer.Cable(t, "eth1", "52:54:00:aa:bb:02", "far1")
	for _, words := range []string{"link add br0 type bridge", "link set far0 master br0", "link set far1 master br0", "link set br0 up", "addr add 192.0.2.1/24 dev br0"} {
		peer.IP(t, words)
	}
	peer.Listen(t, "192.0.2.1:80")
	k, _ := kernel(t)
	plan := parse(t, `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
		"networks": [{"type": "ipv4", "link": "a", "ip_address": "192.0.2.10/24"}, {"type": "ipv4", "link": "b", "ip_address": "192.0.2.11/24"}]}`)
	if err := plan.Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	ours := map[string]string{"192.0.2.10": "52:54:00:aa:bb:01", "192.0.2.11": "52:54:00:aa:bb:02"}
	for own, mac := range ours {
		l, err := net.Listen("tcp", own+":81")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		peer.Do(func() {
			c, err := net.DialTimeout("tcp", own+":81", 5*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
		if out := string(peer.IP(t, "neigh show "+own)); !strings.Contains(out, "lladdr "+mac) {
			t.Errorf("%s is at %q for the neighbour, want %s", own, out, mac)
		}
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(own)}}
		c, err := d.Dial("tcp", "192.0.2.1:80")
		if err != nil {
			t.Errorf("from %s: %v", own, err)
			continue
		}
		c.Close()
	}
}

// Two NICs, each with a way to everywhere: who called one of them has the answer from that one. The far ends are two machines, which have the same addresses.
func TestRootTwoWays(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	const one = `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
		"networks": [{"type": "ipv4", "link": "a", "ip_address": "192.0.2.10/24", "gateway": "192.0.2.1"}, {"type": "ipv4", "link": "b", "ip_address": "192.0.2.11/24", "gateway": "192.0.2.1"},
			{"type": "ipv6", "link": "a", "ip_address": "2001:db8::10/64", "gateway": "fe80::99"}, {"type": "ipv6", "link": "b", "ip_address": "2001:db8::11/64", "gateway": "fe80::99"}]}`
	hosts := map[string]*netnstest.Peer{}
	for i, name := range []string{"a", "b"} {
		p := netnstest.NewPeer(t)
		p.Cable(t, fmt.Sprintf("eth%d", i), fmt.Sprintf("52:54:00:aa:bb:0%d", i+1), "far")
		for _, words := range []string{"addr add 192.0.2.1/24 dev far", "addr add 198.51.100.1/24 dev far", "addr add fe80::99/64 dev far nodad", "addr add 2001:db8::1/64 dev far nodad",
			"addr add 203.0.113.7/32 dev lo", "addr add 2001:db8:c::7/128 dev lo nodad"} {
			p.IP(t, words)
		}
		for _, address := range []string{"192.0.2.1:80", "203.0.113.7:80", "[2001:db8:c::7]:80", "[2001:db8::1]:80"} {
			l := p.Listen(t, address)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return // closed, at the end of the test
					}
					fmt.Fprint(c, name)
					c.Close()
				}
			}()
		}
		hosts[name] = p
	}
	k, _ := kernel(t)
	other := strings.NewReplacer(`"192.0.2.11/24", "gateway": "192.0.2.1"`, `"198.51.100.11/24", "gateway": "198.51.100.1"`).Replace(one)
	for name, data := range map[string]string{"one network": one, "two networks": other} {
		plan := parse(t, data)
		for range 2 {
			if err := plan.Apply(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		have, err := k.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if left, err := plan.Changes(have); len(left) > 0 || err != nil {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
		for i, host := range []string{"a", "b"} {
			for _, own := range plan.Links[i].Addresses {
				to := []string{"203.0.113.7:80", "192.0.2.1:80"}
				if own.Addr().Is6() {
					to = []string{"[2001:db8:c::7]:80", "[2001:db8::1]:80"}
				}
				if !own.Contains(netip.MustParseAddrPort(to[1]).Addr()) {
					to = to[:1]
				}
				for _, to := range to {
					d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: own.Addr().AsSlice()}}
					c, err := d.Dial("tcp", to)
					if err != nil {
						t.Errorf("%s: from %s to %s: %v", name, own.Addr(), to, err)
						continue
					}
					got, err := io.ReadAll(c)
					if c.Close(); err != nil || string(got) != host {
						t.Errorf("%s: from %s to %s: %q, %v; want %q", name, own.Addr(), to, got, err, host)
					}
				}
			}
		}
		// Another gateway takes the place of the old one, for what has the address too.
		moved := parse(t, strings.Replace(data, `"gateway": "192.0.2.1"`, `"gateway": "192.0.2.2"`, 1))
		if err := moved.Apply(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if out := string(netnstest.IP(t, "route get 203.0.113.7 from 192.0.2.10")); !strings.Contains(out, "via 192.0.2.2 dev eth0") {
			t.Errorf("%s: with another gateway: %s", name, out)
		}
		if err := plan.Apply(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		netnstest.IP(t, "addr flush dev eth0")
		netnstest.IP(t, "addr flush dev eth1")
	}
	// What is left when the addresses are gone is removed; another's rules stay.
	netnstest.IP(t, "rule add from 192.0.2.99 lookup 99 priority 99")
	if err := parse(t, `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}], "networks": []}`).Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	for family, want := range map[string]int{"-4": 4, "-6": 2} {
		if rules := string(netnstest.IP(t, family+" rule show")); strings.Count(rules, "\n") != want || strings.Contains(rules, "26900") {
			t.Errorf("rules left:\n%s", rules)
		}
	}
}

// A network of two addresses, and IPv6 alone by way of a link-local router.
func TestRootPointToPoint(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	for _, words := range []string{"addr add 192.0.2.0/31 dev far0", "addr add 198.51.100.7/32 dev lo", "addr add fe80::99/64 dev far0 nodad",
		"-6 route add 2001:db8::10/128 dev far0", "addr add 2001:db8:1::7/128 dev lo nodad"} {
		peer.IP(t, words)
	}
	peer.Listen(t, "198.51.100.7:80")
	peer.Listen(t, "[2001:db8:1::7]:80")
	k, _ := kernel(t)
	plan := parse(t, `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}], "networks": [
		{"type": "ipv4", "link": "a", "ip_address": "192.0.2.1", "netmask": "255.255.255.254", "gateway": "192.0.2.0"},
		{"type": "ipv6", "link": "a", "ip_address": "2001:db8::10/128", "gateway": "fe80::99"}]}`)
	if err := plan.Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	reaches(t, "198.51.100.7:80")
	reaches(t, "[2001:db8:1::7]:80")
	same(t, "routes", routes(t), []string{"default via 192.0.2.0 dev eth0 metric 0", "default via fe80::99 dev eth0 metric 1024"})
}

// A cable with two ends, one address at each, in dracut's words.
func TestRootPeer(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	peer.IP(t, "addr add 198.51.100.1/32 dev far0")
	peer.IP(t, "route add 192.0.2.10/32 dev far0")
	peer.Listen(t, "198.51.100.1:80")
	k, _ := kernel(t)
	plan, err := netconfig.ParseCmdline("ip=192.0.2.10:198.51.100.1::255.255.255.255::eth0:none", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := plan.Apply(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	reaches(t, "198.51.100.1:80")
	have, err := k.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left, err := plan.Changes(have); len(left) > 0 || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
}
