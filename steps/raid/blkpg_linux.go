// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
