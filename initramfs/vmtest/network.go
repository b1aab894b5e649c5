// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// namespaced is set in the environment of a test binary that Main has started again.
const namespaced = "IRONHAND_VMTEST_NETNS"

// Main is the TestMain of a package whose tests use [NewNetwork]: it runs the tests in a new network namespace, which every machine and server that they start shares, and
// which ends with them. Without root they run where they are, and NewNetwork fails.
func Main(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(namespaced) != "" {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(1)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), namespaced+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(max(exit.ExitCode(), 1))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Network is one cable between a machine and the tests. Nothing on it hands out addresses.
type Network struct {
	Tap            string       // the tests' end
	Host4, Host6   netip.Prefix // the tests' addresses, which serve as the machine's gateways
	Guest4, Guest6 netip.Prefix // addresses free for the machine
}

// NewNetwork makes the n-th network of the package's tests, 1 to 250: 10.77.n.0/24 and fd77:n::/64, where the tests have .1 and ::1 and the machine may have .2 and ::2. It
// is gone when the test ends.
func NewNetwork(t testing.TB, n int) *Network {
	t.Helper()
	if os.Getenv(namespaced) == "" {
		t.Fatal("a network needs root, and a TestMain that calls vmtest.Main")
	}
	if n < 1 || n > 250 {
		t.Fatalf("network %d is not within 1 to 250", n)
	}
	address := func(format string, host int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf(format, n, host)) }
	network := &Network{
		Tap:   fmt.Sprintf("tap%d", n),
		Host4: address("10.77.%d.%d/24", 1), Guest4: address("10.77.%d.%d/24", 2),
		Host6: address("fd77:%d::%d/64", 1), Guest6: address("fd77:%d::%d/64", 2),
	}
	if err := network.make(); err != nil {
		t.Fatalf("network %d: %v", n, err)
	}
	t.Cleanup(func() {
		if err := network.remove(); err != nil {
			t.Errorf("network %d: %v", n, err)
		}
	})
	return network
}

func (n *Network) make() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: n.Tap}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(tap); err != nil {
		return fmt.Errorf("make %s: %w", n.Tap, err)
	}
	for _, prefix := range []netip.Prefix{n.Host4, n.Host6} {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}}
		if prefix.Addr().Is6() {
			a.Flags = syscall.IFA_F_NODAD // usable at once
		}
		if err := netlink.AddrAdd(tap, a); err != nil {
			return fmt.Errorf("add %s to %s: %w", prefix, n.Tap, err)
		}
	}
	if err := netlink.LinkSetUp(tap); err != nil {
		return fmt.Errorf("set %s up: %w", n.Tap, err)
	}
	return nil
}

func (n *Network) remove() error {
	link, err := netlink.LinkByName(n.Tap)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
