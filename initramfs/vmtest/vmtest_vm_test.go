// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestVMGuest(t *testing.T) {
	Require(t)
	network := NewNetwork(t, 1)
	l, err := net.Listen("tcp", ":7777")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "hello") // the other end checks it
			conn.Close()
		}
	}()
	g := Guest{
		Machine: Machine{Disks: []Disk{{Bus: "nvme", Size: 1 << 20}}, NICs: []NIC{{MAC: "52:54:00:77:00:01", Network: network}}},
		Files:   map[string]string{"extra": "testdata/sample/testdata"},
	}
	t.Run("pass", func(t *testing.T) {
		g := g
		g.Args = "-test.run=Pass|Network"
		RunInGuest(t, "./testdata/sample", g)
	})
	t.Run("fail", func(t *testing.T) {
		g := g
		g.Args = "-test.run=Fail"
		status, output := runInGuest(t, "./testdata/sample", g)
		if status != "exit status 1" || !strings.Contains(output, "--- FAIL: TestRootFails") {
			t.Errorf("status %q, output:\n%s", status, tail(output, 20))
		}
	})
}

// A machine that goes down for other reasons than those that the guest has is told apart, and nothing waits for a line that cannot come.
func TestVMEnds(t *testing.T) {
	Require(t)
	tests := []struct{ name, order, want string }{
		{"quit", "quit", "host-qmp-quit"},
		{"reset", "system_reset", "host-qmp-system-reset"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			vm := Start(t, Machine{Initrds: []string{Pack(t, map[string]string{"empty": "testdata/sample/testdata/file"})}})
			vm.Expect(t, "Linux version", bootTime)
			vm.Monitor(t, test.order, nil)
			if got := vm.Wait(t, bootTime); got != test.want {
				t.Errorf("ended by %q, want %q", got, test.want)
			}
			if match, why := vm.await(never, bootTime); match != nil || why != "the machine has ended" {
				t.Errorf("await = %v, %q; want that the machine has ended", match, why)
			}
			if _, err := vm.monitor.execute("query-status", nil); err == nil {
				t.Error("a machine that has ended takes orders")
			}
		})
	}
	t.Run("bad arguments", func(t *testing.T) {
		if _, err := start(t, Machine{Initrds: []string{"testdata/sample/testdata/file"}, Extra: []string{"-nonsense"}}); err == nil || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("start = %v, want what QEMU says", err)
		}
	})
}
