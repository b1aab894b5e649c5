// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tty is a terminal of this machine, opened for a screen.
type tty struct {
	*os.File
	speed  int // bytes a second; 0 is no limit
	before unix.Termios
	once   sync.Once
}

// openTTY opens a terminal and has it hand on each key. It is its own opening, so that whoever has it besides finds it as it was.
func openTTY(path string) (*tty, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t := &tty{File: f}
	if err := t.raw(); err != nil {
		f.Close() // the first error counts
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// control runs an ioctl on the terminal.
func (t *tty) control(do func(fd int) error) error {
	conn, err := t.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { err = do(int(fd)) }); e != nil {
		return e
	}
	return err
}

// raw has each key handed on as it is, signals too (termios(3)). What is written stays as it was: others write here too.
func (t *tty) raw() error {
	return t.control(func(fd int) error {
		now, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
		if err != nil {
			return err
		}
		t.before = *now
		if serial(t.Name()) {
			t.speed = int(now.Ospeed) / 10 // start bit, 8 bits, stop bit
		}
		now.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG | unix.IEXTEN
		now.Iflag &^= unix.ICRNL | unix.IXON | unix.ISTRIP | unix.INLCR
		now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS2, now)
	})
}

// serial says whether a terminal is a line with a speed: /dev/ttyS0, /dev/ttyUSB0, /dev/hvc0 is none, and neither are /dev/tty1 and /dev/pts/0.
func serial(path string) bool {
	rest, ok := strings.CutPrefix(filepath.Base(path), "tty")
	return ok && rest != "" && (rest[0] < '0' || rest[0] > '9')
}

// size is that which the kernel knows.
func (t *tty) size() (width, height int) {
	t.control(func(fd int) error { // an error leaves it unknown
		if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			width, height = int(size.Col), int(size.Row)
		}
		return nil
	})
	return width, height
}

func (t *tty) rate() int { return t.speed }

// restore makes the terminal as it was, and closes it. What it has not taken by then is lost.
func (t *tty) restore() {
	t.once.Do(func() {
		t.SetDeadline(time.Now()) // who reads or writes ends; a file without deadlines ends with Close
		t.control(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS2, &t.before) })
		t.Close() // nothing is left to tell
	})
}

// ownTerminal is the terminal on which a command was typed and shows what it does; "" if either is something else.
func ownTerminal(in, out any) string {
	i, ok := in.(*os.File)
	o, also := out.(*os.File)
	if !ok || !also || !isTerminal(i) || !isTerminal(o) {
		return ""
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", i.Fd()))
	if err != nil || !strings.HasPrefix(name, "/dev/") {
		return ""
	}
	return name
}

func isTerminal(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	conn.Control(func(fd uintptr) { // its error is that of a closed file
		_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		is = err == nil
	})
	return is
}
