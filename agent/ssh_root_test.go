// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// session connects to an SSH server, and returns when the server has begun to talk.
func session(t *testing.T, port string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	greeting, err := bufio.NewReaderSize(conn, 16).ReadString('-')
	if err != nil || greeting != "SSH-" {
		t.Fatalf("the server says %q, %v", greeting, err)
	}
	return conn
}

// ended tells whether the other side closes a connection soon.
func ended(conn net.Conn, soon time.Duration) bool {
	_ = conn.SetReadDeadline(time.Now().Add(soon))
	_, err := io.Copy(io.Discard, conn)
	nerr, ok := err.(net.Error)
	return !(ok && nerr.Timeout())
}

// The server starts however quickly one comes after the other, and is left alone if it has nothing new to learn.
func TestRootSSH(t *testing.T) {
	if os.Getuid() != 0 {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal("this test must run as root")
		}
		t.Skip("needs root")
	}
	program, err := exec.LookPath("dropbear") // not where the ramdisk has it
	if err != nil {
		t.Fatal(err)
	}
	var free net.Listener
	port := ""
	for free == nil { // below the ports that the kernel gives to connections, so that it stays free
		port = strconv.Itoa(10000 + rand.IntN(20000))
		free, _ = net.Listen("tcp", ":"+port) // nil: taken
	}
	free.Close()
	s := sshServer{root: t.TempDir(), dir: filepath.Join(t.TempDir(), "ssh"), program: program, port: port}
	t.Cleanup(func() {
		if pid := s.running(); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	serve := func(a accounts) int {
		t.Helper()
		key, err := s.serve(t.Context(), a)
		if err != nil || !strings.HasPrefix(key, "host key ") {
			t.Fatalf("serve() = %q, %v", key, err)
		}
		pid := s.running()
		if pid == 0 {
			t.Fatal("no server runs")
		}
		return pid
	}
	debug := accounts{keys: []string{"ssh-ed25519 AAAA"}}
	first := serve(debug)
	one := session(t, port)
	if again := serve(debug); again != first {
		t.Errorf("for the same accounts, server %d is replaced by %d", first, again)
	}
	if next := serve(accounts{}); next == first || s.is(first) {
		t.Errorf("for other accounts, server %d goes on, beside %d", first, next)
	}
	if ended(one, 200*time.Millisecond) {
		t.Error("the session of somebody who debugs was ended by a new list of keys")
	}
	two := session(t, port)
	rescue := accounts{name: rescueUser, hash: "$6$x$y"}
	serve(rescue)
	if !ended(two, 5*time.Second) {
		t.Error("a session of before goes on in rescue mode")
	}
	for range 20 {
		serve(debug)
		serve(rescue)
	}
}
