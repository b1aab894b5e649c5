// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pty returns a terminal of so many columns, and what is shown on it once it is closed.
func pty(t *testing.T, columns uint16) (terminal *os.File, shown func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(master) // ends with EIO when the other end is closed
		text <- string(b)
	}()
	return terminal, func() string {
		terminal.Close()
		return <-text
	}
}

func TestTerminalWidth(t *testing.T) {
	for _, columns := range []uint16{0, 80, 132} {
		terminal, shown := pty(t, columns)
		if got := newDrawer(terminal, "auto").width(); got != int(columns) {
			t.Errorf("width = %d, want %d", got, columns)
		}
		if got := newDrawer(terminal, "plain").width(); got != 0 {
			t.Errorf("width for plain = %d", got)
		}
		shown()
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, f := range []*os.File{w, null} {
		if got := newDrawer(f, "auto").width(); got != 0 {
			t.Errorf("width of %s = %d", f.Name(), got)
		}
	}
}
