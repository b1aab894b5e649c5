// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// mount is one early file system.
type mount struct {
	kind, target string
	flags        uintptr
	data         string
	optional     bool // the kernel may lack it
}

const quietMount = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// earlyMounts are mounted in this order. Debian's kernel mounts no devtmpfs by itself.
func earlyMounts() []mount {
	return []mount{
		{kind: "proc", target: "/proc", flags: quietMount},
		{kind: "sysfs", target: "/sys", flags: quietMount},
		{kind: "devtmpfs", target: "/dev", flags: unix.MS_NOSUID, data: "mode=0755"},
		{kind: "devpts", target: "/dev/pts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "mode=0620,ptmxmode=0666"},
		{kind: "tmpfs", target: "/dev/shm", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777,size=10%"},
		{kind: "tmpfs", target: "/run", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=0755,size=64m"},
		{kind: "tmpfs", target: "/tmp", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777,size=25%"},
		{kind: "pstore", target: "/sys/fs/pstore", flags: quietMount, optional: true}, // what the kernel before has said at its end
		{kind: "securityfs", target: "/sys/kernel/security", flags: quietMount, optional: true},
	}
}

// Setup mounts the early file systems, makes the usual links in /dev and [RunDir], and brings the loopback interface up. What is
// there already is left as it is. It goes on after an error, and returns all.
func Setup() error {
	var errs []error
	for _, m := range earlyMounts() {
		errs = append(errs, m.do())
	}
	for name, target := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+target, "/dev/"+name); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, os.MkdirAll(RunDir, 0o700), setLinkUp("lo", true))
	return errors.Join(errs...)
}

func (m mount) do() error {
	err := os.MkdirAll(m.target, 0o755)
	if err == nil {
		err = unix.Mount(m.kind, m.target, m.kind, m.flags, m.data)
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil
	case err != nil && m.optional:
		return nil
	case err != nil:
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// mountEFI mounts the firmware's variables if the machine was started by UEFI.
func mountEFI() error {
	const dir = "/sys/firmware/efi/efivars"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return mount{kind: "efivarfs", target: dir, flags: quietMount}.do()
}

// setLinkUp brings a network interface up or down (netdevice(7)).
func setLinkUp(name string, up bool) error {
	what := "down"
	if up {
		what = "up"
	}
	err := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
			return err
		}
		flags := req.Uint16() &^ unix.IFF_UP
		if up {
			flags |= unix.IFF_UP
		}
		req.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	}()
	if err != nil {
		return fmt.Errorf("set %s %s: %w", name, what, err)
	}
	return nil
}
