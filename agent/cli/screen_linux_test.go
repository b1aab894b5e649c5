// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/tool"
)

var scriptedScreen = flag.Bool("screen", false, "show a scripted burn-in on the terminal, until it is stopped by its keys")

// playProgram has a program run that can be halted, until ctx ends.
func playProgram(t *testing.T, ctx context.Context, live *liveRun) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "fio"), []byte("#!/bin/sh\nexec /bin/sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	live.tools = &tool.Halting{Exec: tool.Exec{Dirs: []string{dir}}}
	go live.tools.Run(ctx, tool.Fio) // ends with ctx
	for end := time.Now().Add(20 * time.Second); live.tools.Running() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the program does not start")
		}
	}
}

// Keys do what they say, after a question where they end something.
func TestLiveKeys(t *testing.T) {
	for _, test := range []struct{ name, keys, want string }{
		{"nothing", "", "runs"},
		{"pause", "p", "halted"},
		{"pause and go on", "pp", "runs"},
		{"skip asks", "s", "runs, asks Skip memory?"},
		{"skip", "sy", "runs, skipped"},
		{"skip, and not", "sn", "runs"},
		{"what is halted is skipped", "psy", "runs, skipped"},
		{"stop asks", "q", "runs, asks Stop all of the burn-in?"},
		{"stop", "qy", "runs, stopped: stopped by hand"},
		{"stop by Ctrl-C", "\x03Y", "runs, stopped: stopped by hand"},
		{"stop, and not", "q\n", "runs"},
		{"what is halted is stopped", "pqy", "runs, stopped: stopped by hand"},
		{"capitals and yes do nothing by themselves", "SQyY", "runs"},
		{"an answer is to the last question", "qsy", "runs"},
		{"help", "?", "runs, help"},
		{"help and back", "??", "runs"},
		{"nothing more once it stops", "qyps", "runs, stopped: stopped by hand"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, stop := context.WithCancelCause(t.Context())
			live := newLiveRun(os.Stderr)
			live.page, live.stop = scripted(time.Now, time.Now().Add(-time.Hour)), stop
			program, end := context.WithCancel(context.Background())
			defer end()
			playProgram(t, program, live)
			live.skip = make(chan struct{}, 1) // as if somebody waited for it
			for _, k := range test.keys {
				live.key(k)
			}
			got := "runs"
			if before := live.tools.Halted(); before > 0 {
				time.Sleep(2 * time.Millisecond)
				if live.tools.Halted() > before {
					got = "halted"
				}
			}
			live.page.mu.Lock()
			if (got == "halted") == live.page.halted.IsZero() {
				t.Errorf("programs: %s, and the page says %v", got, live.page.halted)
			}
			if live.page.asks != "" {
				got += ", asks " + live.page.asks
			}
			if live.page.help {
				got += ", help"
			}
			live.page.mu.Unlock()
			if len(live.skip) > 0 {
				got += ", skipped"
			}
			if ctx.Err() != nil {
				got += ", stopped: " + context.Cause(ctx).Error()
			}
			if got != test.want {
				t.Errorf("%q: %s, want %s", test.keys, got, test.want)
			}
		})
	}
	// What cannot be halted is not said to be.
	live := newLiveRun(os.Stderr)
	live.page = scripted(time.Now, time.Now())
	live.key('p')
	if live.tools.Halted() > 0 || !strings.Contains(strings.Join(live.page.said, "\n"), "nothing runs that can be paused") {
		t.Errorf("said %q", live.page.said)
	}
}

// TestScripted is run by TestTmux in a terminal of its own.
func TestScripted(t *testing.T) {
	if !*scriptedScreen {
		t.Skip("runs in the terminal of TestTmux")
	}
	tty, err := openTTY(ownTerminal(os.Stdin, os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	ctx, stop := context.WithCancelCause(t.Context())
	live := newLiveRun(os.Stderr)
	playProgram(t, ctx, live)
	live.page, live.stop = scripted(func() time.Time { return began.Add(90 * time.Minute) }, began), stop
	var s *screen
	s = newScreen([]terminal{tty}, func(w, h int) (string, []row) { return "run", live.page.draw(w, h) }, func(_ int, key rune) {
		live.key(key)
		s.wakeUp(false)
	})
	s.start()
	<-ctx.Done()
	s.close()
	fmt.Fprintln(os.Stderr, "stopped:", context.Cause(ctx))
}

// What a terminal emulator shows of a scripted run is what it should be, at two sizes, and its keys do what they say.
func TestTmux(t *testing.T) {
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal("tmux is not installed")
		}
		t.Skip("SKIPPED: tmux is not installed")
	}
	// Each size has a server of its own: one that has lost its last session is still ending when the next would begin on it.
	var socket string
	do := func(t *testing.T, args ...string) string {
		t.Helper()
		cmd := exec.Command(tmux, append([]string{"-S", socket, "-f", os.DevNull}, args...)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	shows := func(t *testing.T, want ...string) string {
		t.Helper()
		var got string
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			got = do(t, "capture-pane", "-p")
			missing := false
			for _, w := range want {
				missing = missing || !strings.Contains(got, w)
			}
			if !missing {
				return got
			}
		}
		t.Fatalf("the terminal shows:\n%s\nwant %q", got, want)
		return ""
	}
	for _, size := range []struct{ width, height int }{{80, 24}, {132, 43}} {
		t.Run(fmt.Sprintf("%dx%d", size.width, size.height), func(t *testing.T) {
			socket = filepath.Join(t.TempDir(), "tmux")
			t.Cleanup(func() { exec.Command(tmux, "-S", socket, "kill-server").Run() })
			do(t, "new-session", "-d", "-x", fmt.Sprint(size.width), "-y", fmt.Sprint(size.height), "stty -a > "+socket+".before; '"+os.Args[0]+"' -test.run '^TestScripted$' -screen; stty -a > "+socket+".after; sleep 60")
			got := shows(t, "ACME", "q stop all")
			file := fmt.Sprintf("testdata/screen-%dx%d.txt", size.width, size.height)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("shown:\n%s\nwant:\n%s", got, want)
			}
			do(t, "send-keys", "?")
			shows(t, "this page, and back")
			do(t, "send-keys", "?", "p")
			shows(t, "PAUSED", "p go on")
			do(t, "send-keys", "p")
			shows(t, "p pause", "runs  ")
			do(t, "send-keys", "s")
			shows(t, "Skip memory?")
			do(t, "send-keys", "S", "Q", "Y", "n") // none of which does anything by itself
			shows(t, "p pause", "runs  ")
			do(t, "send-keys", "q")
			shows(t, "Stop all of the burn-in?  y yes, any other key no")
			do(t, "send-keys", "n")
			shows(t, "p pause")
			do(t, "resize-window", "-x", "100", "-y", "30")
			// With the next drawing the keys are in the last line.
			var lines []string
			for end := time.Now().Add(20 * time.Second); (len(lines) < 30 || !strings.Contains(lines[29], "q stop all")) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				lines = strings.Split(do(t, "capture-pane", "-p"), "\n")
			}
			if len(lines) < 30 || !strings.Contains(lines[29], "q stop all") {
				t.Errorf("the keys are not in the last line of 30:\n%s", strings.Join(lines, "\n"))
			}
			do(t, "send-keys", "q")
			shows(t, "Stop all")
			do(t, "send-keys", "y")
			shows(t, "stopped: stopped by hand")
			var after []byte
			for end := time.Now().Add(10 * time.Second); len(after) == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				after, _ = os.ReadFile(socket + ".after") // it comes
			}
			before, err := os.ReadFile(socket + ".before")
			if modes := func(b []byte) string { _, rest, _ := strings.Cut(string(b), "\n"); return rest }; err != nil || modes(before) != modes(after) {
				t.Errorf("the terminal was:\n%sand is:\n%s%v", before, after, err)
			}
		})
	}
}

// A terminal is given back as it was; only one that can draw gets a page.
func TestTTY(t *testing.T) {
	terminal, shown := pty(t, 80)
	modes := func() unix.Termios {
		m, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS2)
		if err != nil {
			t.Fatal(err)
		}
		return *m
	}
	before := modes()
	name := ownTerminal(terminal, terminal)
	tty, err := openTTY(name)
	if err != nil {
		t.Fatal(err)
	}
	if now := modes(); now.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 || now.Oflag != before.Oflag {
		t.Errorf("modes %+v", now)
	}
	if w, h := tty.size(); w != 80 || h != 24 || tty.rate() != 0 {
		t.Errorf("size %dx%d, %d bytes a second", w, h, tty.rate())
	}
	done := make(chan error)
	go func() {
		_, err := tty.Read(make([]byte, 1))
		done <- err
	}()
	tty.restore()
	if err := <-done; err == nil {
		t.Error("a read goes on")
	}
	if modes() != before {
		t.Errorf("modes %+v, before %+v", modes(), before)
	}
	tty.restore() // again is no harm

	for _, test := range []struct {
		name, how, term string
		terminal        bool
		want            bool
		err             string
	}{
		{"a terminal", "auto", "xterm", true, true, ""},
		{"one that cannot", "auto", "dumb", true, false, ""},
		{"one that nobody knows", "auto", "", true, false, ""},
		{"one that nobody knows, and the page is asked for", "screen", "", true, true, ""},
		{"lines are asked for", "plain", "xterm", true, false, ""},
		{"a file", "auto", "xterm", false, false, ""},
		{"a file, and the page is asked for", "screen", "xterm", false, false, "not a terminal"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("TERM", test.term)
			c := &call{stdin: os.Stdin, stderr: &bytes.Buffer{}}
			if test.terminal {
				c.stdin, c.stderr = terminal, terminal
			}
			got, err := c.screenTerminal(test.how)
			if (got != nil) != test.want || (err == nil) != (test.err == "") || err != nil && (!strings.Contains(err.Error(), test.err) || !errors.Is(err, errUsage)) {
				t.Errorf("%v, %v", got, err)
			}
			if got != nil {
				got.restore()
			}
		})
	}
	shown()
	for path, want := range map[string]bool{"/dev/ttyS0": true, "/dev/ttyUSB1": true, "/dev/ttyAMA0": true, "/dev/tty1": false, "/dev/tty": false, "/dev/pts/3": false, "/dev/console": false} {
		if serial(path) != want {
			t.Errorf("serial(%s) = %v", path, !want)
		}
	}
}
