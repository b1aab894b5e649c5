// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openShared opens a disk of which partitions are in use by an array. What the kernel holds in memory of the disk as a whole is forgotten first: the array's writes have gone past it,
// and where a page belongs to both, old data of the array would be written back.
func openShared(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKFLSBUF, 0); errno != 0 {
		return nil, errors.Join(fmt.Errorf("flush buffers of %s: %w", path, errno), f.Close())
	}
	return f, nil
}

// addPartition makes the kernel know one more partition of a disk, of which others are in use: BLKPG of Linux include/uapi/linux/blkpg.h. It is no error if it knows it.
func addPartition(disk *os.File, number int, start, length int64) error {
	p := unix.BlkpgPartition{Start: start, Length: length, Pno: int32(number)}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_ADD_PARTITION, Datalen: int32(unsafe.Sizeof(p)), Data: (*byte)(unsafe.Pointer(&p))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	runtime.KeepAlive(&p)
	if errno != 0 && errno != unix.EBUSY { // EBUSY: it has a partition there
		return errno
	}
	return nil
}
