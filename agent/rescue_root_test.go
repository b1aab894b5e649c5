// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/netconfig/netnstest"
)

// Ironic moves the machine's port to the tenant's network after the hand-over, in which the SSH server is then reached. It does not tell the machine, whose link
// does not even go away.
func TestRootRescueFollowsPort(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	program, err := exec.LookPath("dropbear")
	if err != nil {
		t.Fatal(err)
	}
	// 1. A switch with two networks, each with a server for addresses and a router.
	site := netnstest.NewPeer(t)
	site.Cable(t, "eth0", "52:54:00:aa:bb:01", "port")
	for _, args := range []string{
		"link add rescuing type bridge", "addr add 192.0.2.1/24 dev rescuing", "addr add 2001:db8:a::1/64 dev rescuing nodad", "link set rescuing up",
		"link add tenants type bridge", "addr add 203.0.113.1/24 dev tenants", "addr add 2001:db8:b::1/64 dev tenants nodad", "link set tenants up",
		"link set port master rescuing",
	} {
		site.IP(t, args)
	}
	serve := func(bridge, four, six string) {
		site.Start(t, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=0", "--bind-interfaces", "--no-ping", "--log-dhcp",
			"--interface="+bridge, "--except-interface=lo", "--user=root", "--pid-file=", "--dhcp-leasefile="+filepath.Join(t.TempDir(), bridge),
			"--dhcp-range="+four, "--enable-ra", "--dhcp-range="+six)
	}
	serve("rescuing", "192.0.2.50,192.0.2.50,255.255.255.0,2h", "2001:db8:a::,ra-only,64,2h")
	serve("tenants", "203.0.113.70,203.0.113.70,255.255.255.0,2h", "2001:db8:b::,ra-only,64,2h")

	// 2. The ramdisk, with the address that it was given at its start.
	k, err := netconfig.NewKernelAt(filepath.Join(t.TempDir(), "resolv.conf"))
	if err != nil {
		t.Fatal(err)
	}
	server := sshServer{root: t.TempDir(), dir: filepath.Join(t.TempDir(), "ssh"), program: program, port: "22"}
	t.Cleanup(func() {
		if pid := server.running(); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	console := &safeBuffer{}
	a := newAgent(Options{Version: "test", Out: console, Log: console, System: System{
		StateDir: t.TempDir(), Cmdline: "", Asker: netconfig.NewAsker(), Network: func() (netconfig.Kernel, error) { return k, nil }, KernelLoaded: func() bool { return false },
		StartSSH: server.serve,
	}})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", console)
		}
	})
	have, err := k.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	given, err := netconfig.Everywhere(have, []netconfig.Method{netconfig.DHCP4, netconfig.Auto6}, "").Acquire(ctx, k, a.sys.Asker, nil, a.sayNetwork)
	if err != nil {
		t.Fatal(err)
	}
	a.keepLeases(ctx, k, given, nil)
	greets := func(address string) {
		t.Helper()
		var err error
		for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			var conn net.Conn
			site.Do(func() { conn, err = net.DialTimeout("tcp", net.JoinHostPort(address, "22"), time.Second) })
			if err != nil {
				continue
			}
			greeting := make([]byte, 4)
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = conn.Read(greeting)
			conn.Close()
			if err == nil && string(greeting) == "SSH-" {
				return
			}
		}
		t.Fatalf("no SSH at %s: %v", address, err)
	}

	// 3. The hand-over. For a while nothing changes.
	if _, err := a.finalizeRescue(ctx, []byte(`{"rescue_password": "tenant's own"}`)); err != nil {
		t.Fatal(err)
	}
	pid := server.running()
	ended := make(chan error)
	go func() { ended <- a.served(ctx) }()
	greets("192.0.2.50")
	greets("2001:db8:a:0:5054:ff:feaa:bb01")
	time.Sleep(3 * time.Second)

	// 4. The move.
	site.IP(t, "link set port master tenants")
	greets("203.0.113.70")
	greets("2001:db8:b:0:5054:ff:feaa:bb01")
	var left []string
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		var devices []struct {
			Address []struct{ Local, Scope string } `json:"addr_info"`
		}
		if err := json.Unmarshal(netnstest.IP(t, "-j addr show dev eth0"), &devices); err != nil {
			t.Fatal(err)
		}
		left = nil
		for _, one := range devices[0].Address {
			if one.Scope == "global" {
				left = append(left, one.Local)
			}
		}
		if slices.Sort(left); slices.Equal(left, []string{"2001:db8:b:0:5054:ff:feaa:bb01", "203.0.113.70"}) {
			break
		}
	}
	if want := []string{"2001:db8:b:0:5054:ff:feaa:bb01", "203.0.113.70"}; !slices.Equal(left, want) {
		t.Errorf("addresses %q, want %q", left, want)
	}
	if routes := string(netnstest.IP(t, "route show default")); strings.TrimSpace(routes) != "default via 203.0.113.1 dev eth0 proto static" {
		t.Errorf("routes %q", routes)
	}
	if routes := string(netnstest.IP(t, "-6 route show default")); strings.Count(routes, "default") != 1 {
		t.Errorf("routes %q", routes)
	}
	if now := server.running(); now != pid || pid == 0 {
		t.Errorf("the SSH server was process %d and is %d", pid, now)
	}
	wantText(t, "console", console.String(), "end: rescue mode until the next boot", "eth0: dhcpv4 from 203.0.113.1, 203.0.113.70/24", "rescue: ssh rescue@203.0.113.70")
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("served() = %v", err)
	}
}
