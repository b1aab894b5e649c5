// SPDX-License-Identifier: Apache-2.0

// Package netnstest gives a test a network of its own: an empty network
// namespace for the test, others for the machines at the far end of its cables.
// All of it is gone when the test's process ends, however it ends.
package netnstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside is set in the process that has the empty network.
const inside = "IRONHAND_NETNSTEST"

// Enter runs the test again in a process whose network is empty but for a
// loopback device that is switched off. It returns true in that process. In the
// first one it returns false when the second has ended, and the test is over:
//
//	if !netnstest.Enter(t) {
//		return
//	}
//
// A process and not a thread, because goroutines that dial and look up names run
// on any thread. The test must be a top-level one. Without root it is skipped, or
// fails if the environment variable REQUIRE has the word "root".
func Enter(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		required := strings.FieldsFunc(os.Getenv("REQUIRE"), func(r rune) bool { return r == ',' || r == ' ' })
		if slices.Contains(required, "root") {
			t.Fatal("not root, which REQUIRE asks for")
		}
		t.Skip("SKIPPED: needs root for a network namespace")
	}
	t.Parallel()
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=true", "-test.count=1"}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(deadline).String())
	}
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), inside+"="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread
	out, err := c.CombinedOutput()
	runtime.UnlockOSThread()
	switch {
	case err != nil:
		t.Errorf("in a network of its own: %v\n%s", err, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("in a network of its own the test did not run:\n%s", out)
	default:
		t.Logf("%s", out)
	}
	return false
}

// Peer is a machine at the other end: a network namespace.
type Peer struct {
	do   chan func()
	path string // of the namespace, for "ip link set netns"
}

// NewPeer makes one, whose loopback device is up. It ends with the test.
func NewPeer(t *testing.T) *Peer {
	t.Helper()
	p := &Peer{do: make(chan func())}
	ready := make(chan error)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- fmt.Errorf("unshare: %w", err)
			return
		}
		p.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- nil
		for f := range p.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(p.do) })
	p.IP(t, "link set lo up")
	return p
}

// Do runs f on a thread that is in the peer's network. Sockets made by f itself
// (not by goroutines that it starts) stay there, wherever they are used.
func (p *Peer) Do(f func()) {
	done := make(chan struct{})
	p.do <- func() { defer close(done); f() }
	<-done
}

// IP runs ip(8) in the peer's network with the words of args.
func (p *Peer) IP(t *testing.T, args string) []byte {
	t.Helper()
	var out []byte
	var err error
	p.Do(func() { out, err = run(args) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Start runs a program in the peer's network until the test ends. What it prints is
// shown if the test fails.
func (p *Peer) Start(t *testing.T, name string, args ...string) {
	t.Helper()
	c := exec.Command(name, args...)
	out := &strings.Builder{}
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var err error
	p.Do(func() { err = c.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = c.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, out)
		}
	})
}

// Cable makes a pair of devices, nic here and far at the peer; the peer's is
// switched on, nic is not. A MAC of "" is a random one.
func (p *Peer) Cable(t *testing.T, nic, mac, far string) {
	t.Helper()
	args := "link add " + nic
	if mac != "" {
		args += " address " + mac
	}
	IP(t, args+" type veth peer name "+far)
	IP(t, "link set "+far+" netns "+p.path)
	p.IP(t, "link set "+far+" up")
}

// Connect makes a pair of devices, near at p and far at another peer, both switched on.
func (p *Peer) Connect(t *testing.T, other *Peer, near, far string) {
	t.Helper()
	p.IP(t, "link add "+near+" type veth peer name "+far)
	p.IP(t, "link set "+far+" netns "+other.path)
	p.IP(t, "link set "+near+" up")
	other.IP(t, "link set "+far+" up")
}

// Listen listens in the peer's network until the test ends.
func (p *Peer) Listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	p.Do(func() { l, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOnce(t, l.Close) })
	return l
}

// ListenPacket receives UDP in the peer's network until the test ends.
func (p *Peer) ListenPacket(t *testing.T, address string) net.PacketConn {
	t.Helper()
	var l net.PacketConn
	var err error
	p.Do(func() { l, err = net.ListenPacket("udp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOnce(t, l.Close) })
	return l
}

func closeOnce(t *testing.T, f func() error) {
	if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// IP runs ip(8) in the test's own network with the words of args.
func IP(t *testing.T, args string) []byte {
	t.Helper()
	out, err := run(args)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func run(args string) ([]byte, error) {
	c := exec.Command("ip", strings.Fields(args)...)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
