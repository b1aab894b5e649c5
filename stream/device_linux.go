// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linuxDevice is a block device of Linux, opened with O_DIRECT.
type linuxDevice struct{ *os.File }

func openBlockDevice(path string) (d blockDevice, size int64, sector int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, 0, unwrapPath(err)
	}
	if info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
		return nil, 0, 0, errors.New("not a block device")
	}
	// O_EXCL on a block device fails while it, or a partition of it, is mounted, swapped to or part of something: open(2).
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL|unix.O_DIRECT, 0)
	if err != nil {
		err = unwrapPath(err)
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w: %s", err, usesOf(path))
		}
		return nil, 0, 0, err
	}
	var bytes uint64 // the kernel's types, see linux/fs.h
	var sectorSize int32
	if err = ioctl(f, unix.BLKGETSIZE64, unsafe.Pointer(&bytes)); err != nil {
		err = fmt.Errorf("ask for its size: %w", err)
	} else if err = ioctl(f, unix.BLKSSZGET, unsafe.Pointer(&sectorSize)); err != nil {
		err = fmt.Errorf("ask for its sector size: %w", err)
	}
	if err != nil {
		f.Close() // nothing was written
		return nil, 0, 0, err
	}
	return linuxDevice{f}, int64(bytes), int(sectorSize), nil
}

// reopen opens the same device, whatever its name leads to by now.
func (d linuxDevice) reopen() (blockDevice, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", d.Fd()), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, unwrapPath(err)
	}
	return linuxDevice{f}, nil
}

// usesOf says what uses the block device at path, as far as the kernel tells.
func usesOf(path string) string {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return err.Error()
	}
	uses, err := findUses(os.DirFS("/"), unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	if err != nil {
		return err.Error()
	}
	return strings.Join(uses, ", ")
}

// ZeroOut asks the kernel, which writes zeros itself where the device has no command for it.
func (d linuxDevice) ZeroOut(offset, length int64) error {
	span := [2]uint64{uint64(offset), uint64(length)}
	return ioctl(d.File, unix.BLKZEROOUT, unsafe.Pointer(&span))
}

func (d linuxDevice) RereadPartitions() error {
	err := ioctl(d.File, unix.BLKRRPART, nil)
	if errors.Is(err, unix.EBUSY) {
		return errBusy
	}
	return err
}

func (d linuxDevice) Partitions() ([]Partition, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &stat); err != nil {
		return nil, fmt.Errorf("read partitions: %w", err)
	}
	return findPartitions(os.DirFS("/"), fmt.Sprintf("sys/dev/block/%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev)))
}

func ioctl(f *os.File, request uint, argument unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(argument))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

// unwrapPath leaves out the path, which the caller names.
func unwrapPath(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}
