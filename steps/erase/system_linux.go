// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/steps/holders"
)

// Local erases the disks of the machine on which the program runs.
func Local() Eraser { return Eraser{local{}} }

type local struct{}

func (local) Read(path string) (io.ReaderAt, io.Closer, error) {
	f, err := os.Open(path)
	return f, f, err
}

func (local) ReadPast(path string) (io.ReaderAt, io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	return pastCaches{f}, f, err
}

// pastCaches reads to memory that begins on a page, as O_DIRECT wants it.
type pastCaches struct{ *os.File }

func (p pastCaches) ReadAt(b []byte, at int64) (int, error) {
	const page = 4096
	buf := make([]byte, len(b)+page)
	buf = buf[-uintptr(unsafe.Pointer(unsafe.SliceData(buf)))&(page-1):]
	n, err := p.File.ReadAt(buf[:len(b)], at)
	return copy(b, buf[:n]), err
}

func (local) Teardown(ctx context.Context, t holders.Tree, before func(holders.Change) error) error {
	return t.TeardownAfter(ctx, before)
}

func (local) MountPstore(dir string) error {
	return unix.Mount("pstore", dir, "pstore", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

func (local) CleanBootEntries(dir string, remove func(path string) bool) (deleted, odd []string, err error) {
	return image.CleanBootEntries(dir, remove)
}

func (local) Drive(path string) (Drive, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return drive{f}, nil
}

// OpenDrive opens a disk for commands that change nothing of what is on it, also one that is in use.
func OpenDrive(path string) (Drive, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return drive{f}, nil
}

type drive struct{ *os.File }

// nvmeAdmin is NVME_IOCTL_ADMIN_CMD of include/uapi/linux/nvme_ioctl.h: _IOWR('N', 0x41, struct nvme_admin_cmd).
const nvmeAdmin = 0xc0484e41

// nvmePassthru is struct nvme_passthru_cmd of the same file.
type nvmePassthru struct {
	opcode, flags                            uint8
	_                                        uint16
	nsid, cdw2, cdw3                         uint32
	metadata, addr                           uint64
	metadataLen, dataLen                     uint32
	cdw10, cdw11, cdw12, cdw13, cdw14, cdw15 uint32
	timeoutMs, result                        uint32
}

func (d drive) NVMe(c NVMeCommand) error {
	request := nvmePassthru{opcode: c.Opcode, nsid: c.Namespace, cdw10: c.CDW10, cdw11: c.CDW11, dataLen: uint32(len(c.Data)), timeoutMs: milliseconds(c.Timeout)}
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(c.Data) > 0 {
		p := unsafe.SliceData(c.Data)
		pin.Pin(p)
		request.addr = uint64(uintptr(unsafe.Pointer(p)))
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), nvmeAdmin, uintptr(unsafe.Pointer(&request)))
	switch {
	case errno != 0:
		return errno
	case status != 0: // from the drive
		return NVMeStatus(status)
	}
	return nil
}

const sgIO = 0x2285 // SG_IO of include/scsi/sg.h

// sgHeader is struct sg_io_hdr of the same file.
type sgHeader struct {
	interfaceID       int32
	direction         int32
	cmdLen, senseMax  uint8
	iovecs            uint16
	length            uint32
	data, cmd, sense  uintptr
	timeoutMs, flags  uint32
	packID            int32
	user              uintptr
	status, masked    uint8
	message, senseLen uint8
	host, driver      uint16
	resid             int32
	duration, info    uint32
}

func (d drive) SCSI(c SCSICommand) (SCSIAnswer, error) {
	sense := make([]byte, 64)
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(b []byte) uintptr {
		if len(b) == 0 {
			return 0
		}
		p := unsafe.SliceData(b)
		pin.Pin(p)
		return uintptr(unsafe.Pointer(p))
	}
	h := sgHeader{interfaceID: 'S', direction: -1, cmdLen: uint8(len(c.CDB)), senseMax: uint8(len(sense)),
		cmd: address(c.CDB), sense: address(sense), timeoutMs: milliseconds(c.Timeout)}
	switch { // SG_DXFER_NONE is -1
	case len(c.Out) > 0:
		h.direction, h.length, h.data = -2, uint32(len(c.Out)), address(c.Out)
	case len(c.In) > 0:
		h.direction, h.length, h.data = -3, uint32(len(c.In)), address(c.In)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), sgIO, uintptr(unsafe.Pointer(&h))); errno != 0 {
		return SCSIAnswer{}, errno
	}
	if h.host != 0 { // the command did not reach the device, or no answer came: DID_... of include/scsi/scsi_status.h
		if h.host == 3 {
			return SCSIAnswer{}, fmt.Errorf("no answer within %v: %w", c.Timeout, os.ErrDeadlineExceeded)
		}
		return SCSIAnswer{}, fmt.Errorf("the host adapter says: status %#x", h.host)
	}
	return SCSIAnswer{Status: h.status & 0x3e, Sense: sense[:h.senseLen]}, nil
}

func milliseconds(d time.Duration) uint32 { return uint32(min(d.Milliseconds(), 1<<32-1)) }
