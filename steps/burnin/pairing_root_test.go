// SPDX-License-Identifier: Apache-2.0

//go:build linux

package burnin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// toozPartner is what a node with ironic-python-agent does, with tooz itself: in the order of its burnin.py.
const toozPartner = `
import sys, time
from tooz import coordination
url, me, group = sys.argv[1:4]
c = coordination.get_coordinator(url, me)
c.start(start_heart=True)
if group not in [g.decode() for g in c.get_groups().get()]:
    c.create_group(group)
lock = c.get_lock("group_lock")
with lock:
    before = c.get_members(group).get()
    c.join_group(group).get()
    end = time.time() + float(sys.argv[4])
    if not before:
        lock.release()
        while len(c.get_members(group).get()) < 2:
            if time.time() > end:
                sys.exit("nobody came")
            time.sleep(1)
        partner = [m.decode() for m in c.get_members(group).get() if m.decode() != me][0]
        c.leave_group(group).get()
        print("writer", partner)
    else:
        while len(c.get_members(group).get()) == 2:
            time.sleep(0.2)
        c.leave_group(group).get()
        lock.release()
        print("reader", [m.decode() for m in before][0])
c.stop()
`

// zooKeeper starts a server and returns its address.
func zooKeeper(t *testing.T) string {
	const java = "/usr/share/java/"
	jars := []string{java + "zookeeper.jar", java + "zookeeper-jute.jar", java + "slf4j-api.jar", java + "slf4j-nop.jar", java + "metrics-core.jar", java + "snappy-java.jar"}
	for _, need := range append([]string{"/usr/bin/java", "/usr/lib/python3/dist-packages/tooz/drivers/zookeeper.py", "/usr/lib/python3/dist-packages/kazoo/client.py"}, jars...) {
		if _, err := os.Stat(need); err != nil {
			if strings.Contains(os.Getenv("REQUIRE"), "root") {
				t.Fatal(err)
			}
			t.Skipf("SKIPPED: %v", err)
		}
	}
	var free net.Listener
	port := ""
	for free == nil { // below the ports that the kernel gives to connections, so that it stays free
		port = strconv.Itoa(10000 + rand.IntN(20000))
		free, _ = net.Listen("tcp", "127.0.0.1:"+port) // nil: taken
	}
	address := free.Addr().String()
	free.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "zoo.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, "tickTime=500\ndataDir=%s\nclientPort=%s\nclientPortAddress=127.0.0.1\n", dir, port), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("/usr/bin/java", "-Xmx128m", "-Dzookeeper.admin.enableServer=false", "-cp", strings.Join(jars, ":"), "org.apache.zookeeper.server.ZooKeeperServerMain", config)
	said := &lastBytes{}
	server.Stdout, server.Stderr = said, said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait() // it was killed
		if t.Failed() {
			t.Logf("ZooKeeper: %s", said.b)
		}
	})
	for range 300 {
		if z, err := dialZoo(t.Context(), meeting{hosts: []string{address}, session: 5 * time.Second}); err == nil { // it listens before it answers
			z.close()
			return address
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("ZooKeeper does not answer")
	return ""
}

// Nodes meet in a real ZooKeeper, also with one that uses tooz.
func TestRootPairing(t *testing.T) {
	address := zooKeeper(t)
	script := filepath.Join(t.TempDir(), "partner.py")
	if err := os.WriteFile(script, []byte(toozPartner), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, user string
		nodes      []string // in the order in which they come: us, tooz
		want       []string
	}{
		{"tooz comes after us", "", []string{"us", "tooz"}, []string{"{writer tooz.example}", "reader 127.0.0.1"}},
		{"tooz was there", "", []string{"tooz", "us"}, []string{"writer 127.0.0.1", "{reader tooz.example}"}},
		{"with a password", "burn:s%40cret@", []string{"tooz", "us"}, []string{"writer 127.0.0.1", "{reader tooz.example}"}},
		{"nobody comes", "", []string{"us"}, []string{"no other node came within 3s"}},
		{"again, in the same group", "", []string{"us", "tooz"}, []string{"{writer tooz.example}", "reader 127.0.0.1"}},
		{"stopped", "", []string{"stopped"}, []string{"context canceled"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			url := fmt.Sprintf("zookeeper://%s%s?timeout=5", test.user, address)
			group := "g"
			if test.user != "" { // whose nodes are its own
				group, url = "closed", url+"&namespace=closed"
			}
			limit := 30 * time.Second
			if len(test.nodes) == 1 {
				limit = 3 * time.Second
			}
			got := make([]string, len(test.nodes))
			var all sync.WaitGroup
			for i, who := range test.nodes {
				began := time.Now()
				inside := make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				m, err := parseMeeting(url, group, limit)
				if err != nil {
					t.Fatal(err)
				}
				if who == "tooz" {
					all.Go(func() {
						defer close(inside)
						c := exec.CommandContext(ctx, "/usr/bin/python3", script, url, "tooz.example", group, "30")
						out, err := c.CombinedOutput()
						got[i] = strings.TrimSpace(string(out))
						if err != nil {
							got[i] += " " + err.Error()
						}
					})
				} else {
					if who == "stopped" {
						time.AfterFunc(time.Second, cancel)
					}
					all.Go(func() {
						defer close(inside)
						p, err := m.findPartner(ctx, steps.Host{Say: func(string, ...any) {}})
						got[i] = fmt.Sprint(p)
						if err != nil {
							got[i] = err.Error()
						}
					})
				}
				// The next one comes when this one is in the group, or done.
				for i < len(test.nodes)-1 && len(members(t, m)) == 0 && time.Since(began) < 20*time.Second {
					select {
					case <-inside:
					case <-time.After(50 * time.Millisecond):
					}
				}
			}
			all.Wait()
			for i := range got {
				if !strings.Contains(got[i], test.want[i]) || strings.Contains(got[i], "cret") {
					t.Errorf("%s: %s, want %s", test.nodes[i], got[i], test.want[i])
				}
			}
			m, err := parseMeeting(url, group, limit)
			if err != nil {
				t.Fatal(err)
			}
			if left := members(t, m); len(left) > 0 {
				t.Errorf("in the group are left %v", left)
			}
		})
	}
	wrong, err := parseMeeting("zookeeper://burn:wrong@"+address+"?namespace=closed", "closed", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.findPartner(t.Context(), steps.Host{Say: t.Logf}); err == nil || strings.Contains(err.Error(), "wrong@") || !strings.Contains(err.Error(), "not authorised") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// members are who is in a group.
func members(t *testing.T, m meeting) []string {
	z, err := dialZoo(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer z.close()
	names, err := z.children(m.root + "/" + m.group)
	if err != nil && !errors.Is(err, zooError(zooNoNode)) {
		t.Fatal(err)
	}
	return names
}
