// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package sample is what the tests of vmtest run inside a machine.
package sample

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestRootPasses(t *testing.T) {
	if os.Getuid() != 0 || os.Getpid() == 1 || os.Getenv("REQUIRE") != "root" {
		t.Errorf("user %d, process %d, REQUIRE=%s", os.Getuid(), os.Getpid(), os.Getenv("REQUIRE"))
	}
	if b, err := os.ReadFile("testdata/file"); err != nil || string(b) != "kept\n" {
		t.Errorf("testdata/file holds %q, %v", b, err)
	}
	if b, err := os.ReadFile("/extra/file"); err != nil || string(b) != "kept\n" {
		t.Errorf("/extra/file holds %q, %v", b, err)
	}
	if _, err := os.Stat("/sys/block/nvme0n1"); err != nil {
		t.Error(err)
	}
}

func TestRootFails(t *testing.T) { t.Error("as it should") }

// The first network's machine reaches the tests.
func TestRootNetwork(t *testing.T) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.77.1.2/24", "fd77:1::2/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = 2 // IFA_F_NODAD: usable at once
		if strings.Contains(a, ".") {
			addr.Flags = 0
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"10.77.1.1:7777", "[fd77:1::1]:7777"} {
		conn, err := net.Dial("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(conn); err != nil || string(b) != "hello" {
			t.Errorf("%s says %q, %v", server, b, err)
		}
		conn.Close()
	}
}
