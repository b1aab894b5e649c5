// SPDX-License-Identifier: Apache-2.0

package streamtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreePort returns a port on 127.0.0.1 that nobody else has until the test has ended. It is below those that the kernel gives to connections; a listener on another
// address of the loopback network keeps it from the other tests that ask for one, of this program and of those that run beside it.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		keep, err := net.Listen("tcp", fmt.Sprintf("127.77.0.1:%d", port))
		if err != nil {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			t.Cleanup(func() { keep.Close() })
			return port
		}
		keep.Close()
	}
	t.Fatal("no port is free")
	return 0
}
