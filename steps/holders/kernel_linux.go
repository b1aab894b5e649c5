// SPDX-License-Identifier: Apache-2.0

package holders

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stopArray is STOP_ARRAY of include/uapi/linux/raid/md_u.h: _IO(9, 0x32).
const stopArray = 0x932

// do makes one change.
func do(c Change) error {
	switch c.Verb {
	case SwapOff:
		p, err := unix.BytePtrFromString(c.Path)
		if err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(p)), 0, 0); errno != 0 {
			return errno
		}
		return nil
	case Unmount:
		return unix.Unmount(c.Path, unix.UMOUNT_NOFOLLOW)
	case Stop:
		return ioctlDevice(c.Path, stopArray)
	case Detach:
		// It may have been detached by itself, with its last user, and be another's by now.
		file, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(c.Path), "loop/backing_file"))
		if errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSuffix(string(file), "\n") != c.ID {
			return nil
		}
		if err == nil {
			err = ioctlDevice(c.Path, unix.LOOP_CLR_FD)
		}
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		return err
	case Remove:
		return removeMapping(c.ID)
	}
	return fmt.Errorf("unknown change %q", c.Verb)
}

func ioctlDevice(path string, request uint) error {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close() // nothing was written
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), 0); errno != 0 {
		return errno
	}
	return nil
}

// removeMapping names the mapping by its number: its name may be anything.
func removeMapping(number string) error {
	var major, minor uint32
	if _, err := fmt.Sscanf(number, "%d:%d", &major, &minor); err != nil {
		return fmt.Errorf("device number %q: %w", number, err)
	}
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close() // nothing was written
	request := unix.DmIoctl{Version: [3]uint32{4, 0, 0}, Dev: unix.Mkdev(major, minor)}
	request.Data_size = uint32(unsafe.Sizeof(request))
	request.Data_start = request.Data_size
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), unix.DM_DEV_REMOVE, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
