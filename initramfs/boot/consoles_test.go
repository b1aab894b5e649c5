// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// screen is a console that keeps its lines, and takes none while it is stuck or broken.
type screen struct {
	mu     sync.Mutex
	text   strings.Builder
	stuck  chan struct{} // closed to go on
	broken int           // so many writes fail
}

func (s *screen) Write(p []byte) (int, error) {
	if s.stuck != nil {
		<-s.stuck
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken > 0 {
		s.broken--
		return 0, errors.New("input/output error")
	}
	return s.text.Write(p)
}

func (s *screen) Close() error { return nil }

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func openScreens(all map[string]*screen) func(string) (io.WriteCloser, error) {
	return func(name string) (io.WriteCloser, error) {
		if s := all[name]; s != nil {
			return s, nil
		}
		return nil, os.ErrNotExist
	}
}

func TestConsoles(t *testing.T) {
	tests := []struct {
		name   string
		screen *screen
		want   string
	}{
		{"works", &screen{}, "one\ntwo\n"},
		{"hung up, and good when opened again", &screen{broken: 1}, "one\ntwo\n"},
		{"broken, then opened anew", &screen{broken: 2}, "two\n"},
		{"broken for good", &screen{broken: 100}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good := &screen{}
				c := newConsoles(openScreens(map[string]*screen{"good": good, "other": test.screen}))
				if errs := c.use([]string{"good", "other", "absent"}); len(errs) != 1 || !errors.Is(errs[0], os.ErrNotExist) {
					t.Errorf("use = %v, want that one console is not there", errs)
				}
				c.print("one")
				synctest.Wait()
				c.use([]string{"good", "other"})
				c.print("two")
				c.drain(time.Minute)
				if got := test.screen.String(); got != test.want {
					t.Errorf("the console shows %q, want %q", got, test.want)
				}
				if got := good.String(); got != "one\ntwo\n" {
					t.Errorf("the good console shows %q", got)
				}
			})
		})
	}
}

func TestConsoleStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, stuck := &screen{}, &screen{stuck: make(chan struct{})}
		c := newConsoles(openScreens(map[string]*screen{"good": good, "stuck": stuck}))
		c.use([]string{"good", "stuck"})
		const lines = queueLines + 10
		for i := range lines {
			c.print(fmt.Sprint("line ", i))
			synctest.Wait()
		}
		if n := strings.Count(good.String(), "\n"); n != lines {
			t.Errorf("the good console shows %d lines, want %d", n, lines)
		}
		close(stuck.stuck)
		synctest.Wait()
		c.print("last")
		synctest.Wait()
		if got := stuck.String(); !strings.Contains(got, "(9 lines did not reach this console") || !strings.HasSuffix(got, "last\n") {
			t.Errorf("the console that was stuck shows %q", got)
		}
		c.drain(time.Minute)
	})
}

// The end does not wait for ever for a console that takes nothing.
func TestConsoleDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := &screen{stuck: make(chan struct{})}
		c := newConsoles(openScreens(map[string]*screen{"stuck": stuck}))
		c.use([]string{"stuck"})
		c.print("x")
		began := time.Now()
		c.drain(2 * time.Second)
		if waited := time.Since(began); waited != 2*time.Second {
			t.Errorf("drain waited %v, want 2s", waited)
		}
		close(stuck.stuck)
	})
}

func TestPorts(t *testing.T) {
	tests := []struct{ name, active, cmdline, want string }{
		{"none", "", "quiet", ""},
		{"active", "tty0 ttyS0\n", "console=tty0 console=ttyS0,115200", "tty0/0 ttyS0/0"},
		{"one that the kernel does not use", "ttyS0\n", "console=ttyS0 console=ttyS1,57600n8 console=ttyS2", "ttyS0/0 ttyS1/57600 ttyS2/9600"},
		{"twice", "ttyS0 ttyS0\n", "console=ttyS1 console=ttyS1,1", "ttyS0/0 ttyS1/9600"},
		{"not a terminal", "", "console=null console=uart8250,io,0x3f8 console= console", ""},
		{"another directory", "../sda\n", "console=tty/../sda console=tty..", ""},
		{"absurd speed", "", "console=ttyS1,99999999999999999999", "ttyS1/9600"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, p := range ports(test.active, parseCmdline(test.cmdline)) {
				got = append(got, fmt.Sprintf("%s/%d", p.name, p.baud))
			}
			if g := strings.Join(got, " "); g != test.want {
				t.Errorf("ports = %s, want %s", g, test.want)
			}
		})
	}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	j, err := openJournal(path, 30)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		if err := j.print(fmt.Sprintf("line %d...", i)); err != nil { // 10 bytes and the end
			t.Fatal(err)
		}
	}
	if j, err = openJournal(path, 30); err != nil { // a new process 1 would go on
		t.Fatal(err)
	}
	if err := j.print("more"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path: "line 6...\nmore\n", path + ".1": "line 3...\nline 4...\nline 5...\n"} {
		b, err := os.ReadFile(name)
		if err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v; want %q", filepath.Base(name), b, err, want)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the log = %v, %v; want 0600", st.Mode(), err)
	}
	if _, err := openJournal(filepath.Join(path, "below"), 30); err == nil {
		t.Error("openJournal made a log below a file")
	}
}

func TestMenuConsoles(t *testing.T) {
	for _, test := range []struct{ name, active, cmdline, want string }{
		{"VGA and serial", "tty0 ttyS0", "console=tty0 console=ttyS0,115200", "tty1,ttyS0"},
		{"the first VGA console by its own name too", "tty0 tty1 hvc0", "", "tty1,hvc0"},
		{"a second serial port", "ttyS0", "console=ttyS0 console=ttyS1,9600", "ttyS0,ttyS1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := menuConsoles(ports(test.active, parseCmdline(test.cmdline))); got != test.want {
				t.Errorf("menuConsoles = %s, want %s", got, test.want)
			}
		})
	}
}
