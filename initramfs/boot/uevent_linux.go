// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errOverrun says that the kernel dropped messages, because nobody read them in time.
var errOverrun = errors.New("uevents were lost")

// uevents receives the kernel's messages from the moment it is opened.
type uevents struct {
	f   *os.File
	raw syscall.RawConn
	buf []byte
}

func openUevents() (*uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open uevents: %w", err)
	}
	f := os.NewFile(uintptr(fd), "uevents")
	// Loading the drivers of a large server makes thousands of messages within a second.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}) // 1: from the kernel, not from udev
	}
	var raw syscall.RawConn
	if err == nil {
		raw, err = f.SyscallConn()
	}
	if err != nil {
		f.Close() // the first error counts
		return nil, fmt.Errorf("open uevents: %w", err)
	}
	return &uevents{f: f, raw: raw, buf: make([]byte, maxUevent)}, nil
}

func (u *uevents) close() error { return u.f.Close() }

// next waits for a message of the kernel's; the zero time waits for ever. The error is os.ErrDeadlineExceeded if none came in time, or
// errOverrun, after which one may go on.
func (u *uevents) next(until time.Time) (uevent, error) {
	if err := u.f.SetReadDeadline(until); err != nil {
		return uevent{}, fmt.Errorf("read uevent: %w", err)
	}
	for {
		var n int
		var from unix.Sockaddr
		var err error
		if e := u.raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), u.buf, 0)
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
		}); e != nil {
			err = e
		}
		if errors.Is(err, unix.ENOBUFS) {
			return uevent{}, errOverrun
		}
		if err != nil {
			return uevent{}, fmt.Errorf("read uevent: %w", err)
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue // not from the kernel
		}
		if e, err := parseUevent(u.buf[:n]); err == nil {
			return e, nil
		}
		// libudev's own form, which some program sends: not meant for us.
	}
}
