// SPDX-License-Identifier: Apache-2.0

package tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// states are those of a program and its child, as the kernel has them: "T" is halted (proc_pid_stat(5)).
func states(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	for _, name := range []string{"parent", "child"} {
		pid, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", strings.TrimSpace(string(pid))))
		if err != nil {
			list = append(list, "gone")
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		state, _, _ := strings.Cut(rest, " ")
		if state == "Z" { // whoever reaps it takes his time
			state = "gone"
		}
		list = append(list, state)
	}
	return strings.Join(list, " ")
}

// await waits until what has the wanted value.
func await(t *testing.T, what func() string, want string) {
	t.Helper()
	got := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = what(); got == want {
			return
		}
	}
	t.Fatalf("state %q, want %q", got, want)
}

func TestHalting(t *testing.T) {
	dir := t.TempDir()
	h := &Halting{Exec: programs(t, "echo $$ > "+dir+"/parent\n/bin/sleep 60 &\necho $! > "+dir+"/child\nwait\n")}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err = h.Run(ctx, Busybox)
	}()
	started := func() string {
		if b, err := os.ReadFile(dir + "/child"); err != nil || len(b) == 0 {
			return ""
		}
		return "started"
	}
	await(t, started, "started")
	now := func() string { return states(t, dir) }
	await(t, now, "S S")
	for range 2 { // the second time nothing more happens
		if err := h.Halt(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, now, "T T")
	time.Sleep(20 * time.Millisecond)
	if got := h.Halted(); got < 20*time.Millisecond {
		t.Errorf("halted for %v", got)
	}
	for range 2 {
		if err := h.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, now, "S S")
	before := h.Halted()
	time.Sleep(5 * time.Millisecond)
	if after := h.Halted(); after != before {
		t.Errorf("halted for %v, and while they run for %v", before, after)
	}
	// What is halted can be ended too, with its children.
	if err := h.Halt(); err != nil {
		t.Fatal(err)
	}
	await(t, now, "T T")
	cancel()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a program that is halted does not end")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	await(t, now, "gone gone")
	if len(h.groups) > 0 {
		t.Errorf("groups left: %v", h.groups)
	}
}

func TestHaltingStartsHalted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	h := &Halting{Exec: programs(t, "/bin/sleep 0.3; echo ran > "+file+"\n")}
	if err := h.Halt(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := h.Run(t.Context(), Busybox)
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("a program that is started while all are halted has ended: %v", err)
	case <-time.After(time.Second):
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it has done its work")
	}
	if err := h.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestHaltingErrors(t *testing.T) {
	h := &Halting{Exec: programs(t, "exit 3\n")}
	_, err := h.Run(t.Context(), Busybox)
	var failed *Error
	if !errors.As(err, &failed) || failed.Exit != 3 {
		t.Errorf("error %v, want exit status 3", err)
	}
	if _, err := h.Run(t.Context(), "vi"); err == nil || !strings.Contains(err.Error(), "not in the list") {
		t.Errorf("error %v", err)
	}
}

// A program ends with the process that runs it, however that ends: none goes on writing to a disk beside the next one.
func TestHaltingEndsWithUs(t *testing.T) {
	const helper = "TOOL_TEST_DIR"
	if dir := os.Getenv(helper); dir != "" {
		h := &Halting{Exec: programs(t, "echo $$ > "+dir+"/parent\nexec /bin/sleep 60\n")}
		_, err := h.Run(t.Context(), Busybox)
		t.Fatal(err) // is never reached
	}
	dir := t.TempDir()
	us := exec.Command(os.Args[0], "-test.run=^TestHaltingEndsWithUs$")
	us.Env = append(os.Environ(), helper+"="+dir)
	if err := us.Start(); err != nil {
		t.Fatal(err)
	}
	pid := ""
	await(t, func() string {
		b, err := os.ReadFile(dir + "/parent")
		if pid = strings.TrimSpace(string(b)); err != nil || pid == "" {
			return ""
		}
		return "started"
	}, "started")
	if err := us.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	us.Wait() // it was killed
	await(t, func() string {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if _, rest, _ := strings.Cut(string(stat), ") "); err != nil || strings.HasPrefix(rest, "Z") {
			return "gone"
		}
		return "runs"
	}, "gone")
}
