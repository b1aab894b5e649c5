// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netconfig_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/netconfig/netnstest"
)

// serveAddresses starts dnsmasq at the far end of a cable.
func serveAddresses(t *testing.T, peer *netnstest.Peer, nic string, args ...string) (leases string) {
	t.Helper()
	if _, err := exec.LookPath("dnsmasq"); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatalf("%v, which REQUIRE asks for: Debian package dnsmasq-base", err)
		}
		t.Skipf("SKIPPED: %v", err)
	}
	leases = filepath.Join(t.TempDir(), "leases")
	peer.Start(t, "dnsmasq", append([]string{"--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=0", "--bind-interfaces", "--log-dhcp", "--no-ping",
		"--interface=" + nic, "--except-interface=lo", "--user=root", "--dhcp-leasefile=" + leases, "--pid-file="}, args...)...)
	return leases
}

// acquired applies a plan and asks.
func acquired(t *testing.T, k netconfig.Kernel, plan netconfig.Plan, try func(context.Context) error) (netconfig.Acquired, error) {
	t.Helper()
	a, err := plan.Acquire(t.Context(), k, netconfig.NewAsker(), try, func(line string) { t.Log(line) })
	if wait := a.Plan.Apply(t.Context(), k); wait != nil {
		t.Errorf("Apply of what was given = %v", wait)
	}
	return a, err
}

func automatic(types ...string) string {
	var networks []string
	for _, kind := range types {
		networks = append(networks, `{"type": "`+kind+`", "link": "a"}`)
	}
	return `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}], "networks": [` + strings.Join(networks, ",") + `]}`
}

// settled waits until the NIC has an address with the prefix that can be used.
func settled(t *testing.T, nic, prefix string) []string {
	t.Helper()
	var got []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		_, got = addresses(t, nic)
		if slices.ContainsFunc(got, func(a string) bool { return strings.HasPrefix(a, prefix) && !strings.Contains(a, "tentative") }) {
			return got
		}
	}
	t.Errorf("addresses %q: none begins with %s", got, prefix)
	return got
}

func TestRootDHCP(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.Listen(t, "198.51.100.7:6385")
	leases := serveAddresses(t, peer, "far0", "--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2h", "--dhcp-option=3,192.0.2.1", "--dhcp-option=6,192.0.2.53,192.0.2.54", "--dhcp-option=42,192.0.2.123")
	k, resolvConf := kernel(t)
	plan := parse(t, automatic("ipv4_dhcp"))
	for range 2 { // the same is given when asked again
		given, err := acquired(t, k, plan, nil)
		if err != nil || fmt.Sprint(given.NTP()) != "[192.0.2.123]" {
			t.Fatalf("Acquire() = %v, NTP %v", err, given.NTP())
		}
		_, got := addresses(t, "eth0")
		same(t, "addresses", got, []string{"192.0.2.50/24"})
		same(t, "routes", routes(t), []string{"default via 192.0.2.1 dev eth0 metric 0"})
	}
	if b, err := os.ReadFile(resolvConf); err != nil || !strings.Contains(string(b), "nameserver 192.0.2.53\nnameserver 192.0.2.54\n") {
		t.Errorf("resolv.conf %q, %v", b, err)
	}
	if b, err := os.ReadFile(leases); err != nil || !strings.Contains(string(b), "52:54:00:aa:bb:01 192.0.2.50") {
		t.Errorf("dnsmasq has given %q, %v", b, err)
	}
	reaches(t, "198.51.100.7:6385")
}

// The size of packets that the server names counts, and the NIC asks with the address that it is to have instead of its own.
func TestRootDHCPNewMACAndMTU(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	leases := serveAddresses(t, router(t), "far0", "--dhcp-range=192.0.2.50,192.0.2.60,255.255.255.0,2h", "--dhcp-option=26,1450")
	k, _ := kernel(t)
	for line, want := range map[string]struct {
		mtu int
		mac string
	}{"ip=eth0:dhcp": {1450, "52:54:00:aa:bb:01"}, "ip=eth0:dhcp:1400:52:54:00:aa:bb:99": {1400, "52:54:00:aa:bb:99"}} {
		netnstest.IP(t, "link set eth0 down")
		netnstest.IP(t, "link set eth0 address 52:54:00:aa:bb:01 mtu 1500")
		plan, err := netconfig.ParseCmdline(line, nil)
		if err != nil {
			t.Fatal(err)
		}
		given, err := acquired(t, k, plan, nil)
		if err != nil {
			t.Errorf("%s: Acquire() = %v", line, err)
		}
		if mtu, _ := addresses(t, "eth0"); mtu != want.mtu {
			t.Errorf("%s: mtu %d, want %d", line, mtu, want.mtu)
		}
		if out := string(netnstest.IP(t, "link show dev eth0")); !strings.Contains(out, "link/ether "+want.mac) {
			t.Errorf("%s: %s", line, out)
		}
		if b, err := os.ReadFile(leases); err != nil || !strings.Contains(string(b), want.mac) {
			t.Errorf("%s: dnsmasq has given %q, %v", line, b, err)
		}
		have, err := k.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if left, err := given.Plan.Changes(have); len(left) > 0 || err != nil {
			t.Errorf("%s: left %v, %v", line, left, err)
		}
		netnstest.IP(t, "addr flush dev eth0")
	}
}

// Classless routes count, and the router then does not (RFC 3442).
func TestRootDHCPRoutes(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	serveAddresses(t, router(t), "far0", "--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2h", "--dhcp-option=3,192.0.2.9", "--dhcp-option=121,0.0.0.0/0,192.0.2.1,203.0.113.0/24,192.0.2.2")
	k, _ := kernel(t)
	if _, err := acquired(t, k, parse(t, automatic("ipv4_dhcp")), nil); err != nil {
		t.Fatal(err)
	}
	same(t, "routes", routes(t), []string{"default via 192.0.2.1 dev eth0 metric 0", "203.0.113.0/24 via 192.0.2.2 dev eth0 metric 0"})
}

// Routes that are described count beside what is given, before and after.
func TestRootDHCPBesideRoutes(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.Listen(t, "198.51.100.7:6385")
	serveAddresses(t, peer, "far0", "--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2h", "--dhcp-option=3")
	k, _ := kernel(t)
	plan := parse(t, strings.Replace(automatic("ipv4_dhcp"), `"link": "a"}`, `"link": "a", "routes": [{"network": "198.51.100.0/24", "gateway": "192.0.2.1"}]}`, 1))
	if _, err := acquired(t, k, plan, nil); err != nil {
		t.Fatal(err)
	}
	same(t, "routes", routes(t), []string{"198.51.100.0/24 via 192.0.2.1 dev eth0 metric 0 onlink"})
	reaches(t, "198.51.100.7:6385")
}

// Nobody describes anything, and all that there is is a router whose advertisement says that addresses are to be asked for.
func TestRootEverywhereIPv6(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.IP(t, "addr del 192.0.2.1/24 dev far0")
	peer.Listen(t, "[2001:db8:1::7]:6385")
	dark := netnstest.NewPeer(t)
	dark.Cable(t, "eth1", "52:54:00:aa:bb:02", "far1")
	serveAddresses(t, peer, "far0", "--enable-ra", "--dhcp-range=2001:db8::50,2001:db8::50,64,2h")
	k, _ := kernel(t)
	have, err := k.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plan := netconfig.Everywhere(have, []netconfig.Method{netconfig.DHCP4, netconfig.Auto6}, "")
	try := func(ctx context.Context) error {
		if r := netconfig.Check(ctx, k, netconfig.Target{Host: "2001:db8:1::7", Port: 6385}); !r.OK {
			return errors.New(r.Cause)
		}
		return nil
	}
	a, err := plan.Acquire(t.Context(), k, netconfig.NewAsker(), try, func(line string) { t.Log(line) })
	if err != nil || !a.Works {
		t.Errorf("Acquire() = %v", err)
	}
	settled(t, "eth0", "2001:db8::50/128")
}

// ipv6 has one kind of network given by dnsmasq.
func ipv6(t *testing.T, kind, served, want string) {
	t.Helper()
	peer := router(t)
	peer.Listen(t, "[2001:db8:1::7]:6385")
	serveAddresses(t, peer, "far0", "--enable-ra", "--dhcp-range="+served, "--dhcp-option=option6:dns-server,[2001:db8::53]", "--dhcp-option=option6:ntp-server,[2001:db8::123]")
	k, resolvConf := kernel(t)
	given, err := acquired(t, k, parse(t, automatic(kind)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if ntp := fmt.Sprint(given.NTP()); ntp != "[2001:db8::123]" && kind != "ipv6_slaac" {
		t.Errorf("NTP %s", ntp)
	}
	settled(t, "eth0", want)
	if b, err := os.ReadFile(resolvConf); err != nil || !strings.Contains(string(b), "nameserver 2001:db8::53\n") {
		t.Errorf("resolv.conf %q, %v", b, err)
	}
	reaches(t, "[2001:db8:1::7]:6385")
}

func TestRootSLAAC(t *testing.T) {
	if netnstest.Enter(t) {
		ipv6(t, "ipv6_slaac", "2001:db8::,ra-only,64,2h", "2001:db8::5054:ff:feaa:bb01/64")
	}
}

func TestRootDHCPv6Stateless(t *testing.T) {
	if netnstest.Enter(t) {
		ipv6(t, "ipv6_dhcpv6-stateless", "2001:db8::,ra-stateless,64,2h", "2001:db8::5054:ff:feaa:bb01/64")
	}
}

func TestRootDHCPv6Stateful(t *testing.T) {
	if netnstest.Enter(t) {
		ipv6(t, "ipv6_dhcpv6_stateful", "2001:db8::50,2001:db8::50,64,2h", "2001:db8::50/128")
	}
}

// Nothing is described: all NICs ask at once. The first one that answers leads nowhere, the second to the conductor; one has
// no link and one no server.
func TestRootEverywhere(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	wrong, right := netnstest.NewPeer(t), router(t)
	wrong.Cable(t, "eth1", "52:54:00:aa:bb:02", "far1")
	wrong.Cable(t, "eth2", "52:54:00:aa:bb:03", "far2")
	wrong.Cable(t, "eth3", "52:54:00:aa:bb:04", "far3")
	wrong.IP(t, "link set far2 down")
	wrong.IP(t, "addr add 192.0.2.1/24 dev far1") // the same network, even
	right.Listen(t, "198.51.100.7:6385")
	serveAddresses(t, wrong, "far1", "--dhcp-range=192.0.2.70,192.0.2.70,255.255.255.0,2h", "--dhcp-option=3,192.0.2.1")
	// The right one is slower, by a switch that learns.
	right.IP(t, "link set far0 down")
	time.AfterFunc(3*time.Second, func() { right.IP(t, "link set far0 up") })
	serveAddresses(t, right, "far0", "--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2h", "--dhcp-option=3,192.0.2.1")

	k, _ := kernel(t)
	have, err := k.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plan := netconfig.Everywhere(have, []netconfig.Method{netconfig.DHCP4}, "52:54:00:aa:bb:02")
	if plan.Links[0].ID != "eth1" || len(plan.Links) != 4 {
		t.Fatalf("plan\n%s", plan)
	}
	tries := 0
	a, err := plan.Acquire(t.Context(), k, netconfig.NewAsker(), func(ctx context.Context) error {
		tries++
		r := netconfig.Check(ctx, k, netconfig.Target{Host: "198.51.100.7", Port: 6385})
		if !r.OK {
			return errors.New(r.Cause)
		}
		return nil
	}, func(line string) { t.Log(line) })
	if err != nil || tries != 2 {
		t.Errorf("Acquire = %v after %d tries", err, tries)
	}
	_, got := addresses(t, "eth0")
	same(t, "addresses of eth0", got, []string{"192.0.2.50/24"})
	_, got = addresses(t, "eth1")
	same(t, "addresses of eth1", got, nil)
	same(t, "routes", routes(t), []string{"default via 192.0.2.1 dev eth0 metric 0"})
	if len(a.Plan.Links) != 4 {
		t.Errorf("plan\n%s", a.Plan)
	}
}

func TestRootNoServer(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	router(t)
	k, _ := kernel(t)
	plan := parse(t, automatic("ipv4_dhcp", "ipv6_slaac"))
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errors.New("enough"))
	defer cancel()
	start := time.Now()
	_, err := plan.Acquire(ctx, k, netconfig.NewAsker(), nil, func(line string) { t.Log(line) })
	if err == nil || time.Since(start) > 30*time.Second {
		t.Errorf("Acquire without server = %v after %v", err, time.Since(start))
	}
}

// A server that takes its time, as relays and those that look for duplicates do, is heard: the question keeps its number.
func TestRootSlowDHCP(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	serveAddresses(t, router(t), "far0", "--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2h", "--dhcp-reply-delay=3")
	k, _ := kernel(t)
	if _, err := acquired(t, k, parse(t, automatic("ipv4_dhcp")), nil); err != nil {
		t.Fatal(err)
	}
	_, got := addresses(t, "eth0")
	same(t, "addresses", got, []string{"192.0.2.50/24"})
}
