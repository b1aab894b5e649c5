// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lldp

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire makes a network namespace of this test's own with two interfaces that are connected. The test must stay on its thread.
func wire(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal("needs root")
		}
		t.Skip("SKIPPED: needs root")
	}
	runtime.LockOSThread() // the thread ends with the test, and the namespace with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "here"}, PeerName: "there"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"here", "there"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestRootReceive(t *testing.T) {
	wire(t)
	frame := unhex(t, lldpdFrame(t))
	other := bytes.Clone(frame)
	other[12] = 0x08 // another EtherType
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stop := keepSending(t, "there", other, frame)
	defer stop()
	got, err := Receive(ctx, "here")
	if err != nil || !bytes.Equal(got, frame) {
		t.Errorf("Receive = %x, %v, want %x", got, err, frame)
	}
}

// keepSending sends frames in turn until stop.
func keepSending(t *testing.T, nic string, frames ...[]byte) (stop func()) {
	t.Helper()
	link, err := netlink.LinkByName(nic)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			for _, f := range frames {
				if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
					t.Error(err)
				}
			}
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() { close(done); <-ended; unix.Close(fd) }
}

// What this machine sends itself is not taken for a switch's, and waiting ends with the context.
func TestRootReceiveNothing(t *testing.T) {
	wire(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	stop := keepSending(t, "here", unhex(t, lldpdFrame(t)))
	defer stop()
	if got, err := Receive(ctx, "here"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive = %x, %v, want %v", got, err, context.DeadlineExceeded)
	}
	if _, err := Receive(ctx, "no-such-nic"); err == nil {
		t.Error("Receive on an interface that is not there: no error")
	}
}
