// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
)

// childDir is the environment variable with which TestMemoryIsBounded has its child serve an API.
const childDir = "IRONHAND_TEST_SERVE"

// TestServeForParent is the child: an agent whose commands are the real ones, on a machine of fakes. It does nothing by itself.
func TestServeForParent(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	a, _ := newTestAgent(t, System{
		StateDir: filepath.Join(dir, "state"), Machine: inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/virtio.txt")},
		Network:  func() (netconfig.Kernel, error) { return still{}, nil },
		OpenDisk: func(string) (steps.Disk, error) { return nil, os.ErrPermission },
		Sync:     func() error { return nil }, LinksDown: func() error { return nil },
		KernelLog: func() ([]byte, error) { return nil, nil },
		Power:     func(context.Context, boot.How) error { return nil },
	})
	hold := steps.Step{Name: "hold", Interface: "deploy", Priority: map[steps.Phase]int{steps.Clean: 0}, Run: func(ctx context.Context, h steps.Host, _ steps.Job) (any, error) {
		for _, err := os.Stat(filepath.Join(dir, "end")); err != nil; _, err = os.Stat(filepath.Join(dir, "end")) {
			h.Progress("on its way")
			time.Sleep(10 * time.Millisecond)
		}
		return "held", nil
	}}
	var err error
	if a.set, err = steps.NewSet(t.Context(), a.host, []steps.Manager{generic.Manager{}, listed{"Hold", steps.Mainline, []steps.Step{hold}}}); err != nil {
		t.Fatal(err)
	}
	api := newAPI(t, a.commands()...)
	certificate := certificateFor(t, "127.0.0.1", "p256")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte(certificate.PEM), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "address.new"), []byte(l.Addr().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "address.new"), filepath.Join(dir, "address")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() { // the parent is gone, or wants no more
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := api.Serve(ctx, l, &tls.Config{Certificates: []tls.Certificate{certificate.TLS}}); err != nil {
		t.Error(err)
	}
}

// memory returns the most memory that a process has had, in bytes.
func memory(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no VmHWM in %s", b)
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// Whatever thousands of clients send, the agent stays within 64 MiB, answers the conductor, and the step that runs is not disturbed.
func TestMemoryIsBounded(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes several times the memory")
	}
	const limit = 64 << 20 // what an agent may take; this one takes 51 on one processor and 55 on 64, and 14 of them are the code of the test's program
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestServeForParent$")
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("the agent: %v", err)
		}
	}()
	var address []byte
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if address, err = os.ReadFile(filepath.Join(dir, "address")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent does not serve")
		}
	}
	at := string(address)
	conductor := client(t, filepath.Join(dir, "ca.pem"))
	commands := "https://" + at + "/v1/commands/?agent_token=" + testToken
	answer := func(res *http.Response, err error) (int, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	post := func(query, body string) (int, string) {
		t.Helper()
		return answer(conductor.Post(commands+query, "", strings.NewReader(body)))
	}
	get := func() (int, string) {
		t.Helper()
		return answer(conductor.Get(commands))
	}
	begun := memory(t, child.Process.Pid)
	if code, body := post("", `{"name": "clean.execute_clean_step", "params": {"step": {"step": "hold"}}}`); code != 200 || !strings.Contains(body, "RUNNING") {
		t.Fatalf("the step does not begin: %d %s", code, body)
	}

	// 1. Thousands of clients that say nothing, garbage, half of a hello or of a request. Some have a token of another length.
	trusted := conductor.Transport.(*http.Transport).TLSClientConfig
	var open []net.Conn
	for i := range 3000 {
		c, err := net.DialTimeout("tcp", at, 10*time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		open = append(open, c)
		c.SetDeadline(time.Now().Add(time.Minute))
		switch i % 8 {
		case 0:
			c.Write([]byte{0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3}) // the hello of 16 KiB that never comes
		case 1:
			io.WriteString(c, strings.Repeat("\x80\x00garbage", 2000))
		case 2:
			io.WriteString(c, "POST /v1/commands/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{")
		case 3:
			if i%40 > 3 { // handshakes take time
				break
			}
			conn := tls.Client(c, trusted.Clone())
			if conn.Handshake() == nil {
				io.WriteString(conn, "POST /v1/commands/?agent_token="+strings.Repeat("x", 30000)+" HTTP/1.1\r\nHost: x\r\nContent-Length: 25000000\r\n\r\n"+strings.Repeat("[", 100000))
			}
		}
	}
	if code, body := post("", `{"name": "standby.sync", "params": {}}`); code != 409 {
		t.Errorf("among %d connections: %d %s, want 409", len(open), code, body)
	}

	// 2. Somebody who has the token, and nothing to say.
	large := strings.Repeat("x", maxBody-1000)
	for _, test := range []struct {
		name, body string
		want       int
	}{
		{"no JSON", large, 400},
		{"a text", `"` + large + `"`, 400},
		{"no command", `{"` + large + `": 1}`, 400},
		{"parameters are a text", `{"name": "standby.sync", "params": "` + large + `"}`, 400},
		{"nested", strings.Repeat("[", len(large)), 400},
		{"nested in a parameter", `{"name": "standby.sync", "params": {"a": ` + strings.Repeat(`{"a":`, len(large)/5), 400},
		{"many members", `{` + strings.Repeat(`"a":1,`, len(large)/6) + `"b":1}`, 400},
		{"a command while one runs", `{"name": "clean.execute_clean_step", "params": {"step": "` + large + `"}}`, 409},
		{"one more than the limit", strings.Repeat(" ", maxBody+1), 413},
	} {
		if code, body := post("", test.body); code != test.want {
			t.Errorf("%s: %d %.200s, want %d", test.name, code, body, test.want)
		}
	}

	// 3. The step is as it was, and ends as it would have.
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		code, body := get()
		if code == 200 && strings.Contains(body, `"command_status":"RUNNING"`) && strings.Contains(body, `"command_progress":"on its way"`) && time.Now().Before(deadline) {
			continue
		}
		if want := `"command_status":"SUCCEEDED","command_error":null,"command_result":{"clean_result":"held"`; code != 200 || strings.Count(body, `"id"`) != 1 || !strings.Contains(body, want) {
			t.Errorf("in the end: %d %.500s, want %s", code, body, want)
		}
		break
	}
	// 4. Commands that have no use for so much.
	for _, test := range []struct {
		name, body string
		want       int
	}{
		{"unknown command", `{"name": "standby.dance", "params": {"a": "` + large + `"}}`, 400},
		{"not an image", `{"name": "standby.prepare_image", "params": {"image_info": "` + large[:4<<20] + `"}}`, 400},
		{"ignored", `{"name": "standby.sync", "params": {"a": "` + large + `"}}`, 200},
	} {
		if code, body := post("", test.body); code != test.want {
			t.Errorf("%s: %d %.200s, want %d", test.name, code, body, test.want)
		}
	}
	got := memory(t, child.Process.Pid)
	t.Logf("the agent took %d MiB, %d MiB at the start", got>>20, begun>>20)
	if got > limit {
		t.Errorf("the agent took %d MiB, the limit is %d MiB", got>>20, limit>>20)
	}
}
