// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// askDisk asks a disk by its kernel name for one of the pages of health. No command writes anything.
func askDisk(name, page string) ([]byte, error) {
	if strings.Contains(name, "/") || strings.Contains(name, "..") {
		return nil, fs.ErrNotExist
	}
	device := "/dev/" + name
	if strings.HasPrefix(name, "nvme") {
		device = "/dev/" + nvmeController(name) // the namespace needs no access for this
	}
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: device, Err: err}
	}
	defer unix.Close(fd)
	switch page {
	case pageNVMeHealth:
		// Get Log Page, SMART / Health Information of the controller: 512 bytes are 128 words, of which one is left out of the count.
		return nvmeAdmin(fd, 0x02, 0xffffffff, 127<<16|0x02, 512)
	case pageNVMeIdentify:
		return nvmeAdmin(fd, 0x06, 0, 1, 4096)
	case pageATAData:
		return ataSMART(fd, 0xd0, 512)
	case pageATAThresholds:
		return ataSMART(fd, 0xd1, 512)
	case pageATAStatus:
		return ataSMART(fd, 0xda, 0)
	}
	if number, found := strings.CutPrefix(page, pageSCSILog); found {
		n, err := hex.DecodeString(number)
		if err != nil || len(n) != 1 {
			return nil, fs.ErrNotExist
		}
		return scsiLog(fd, n[0])
	}
	return nil, fs.ErrNotExist
}

const commandLimit = 5000 // ms for one command

// nvmeAdmin sends an admin command that reads (include/uapi/linux/nvme_ioctl.h).
func nvmeAdmin(fd int, opcode byte, nsid, cdw10 uint32, size int) ([]byte, error) {
	data := make([]byte, size)
	command := struct { // struct nvme_admin_cmd
		opcode, flags                            byte
		_                                        uint16
		nsid, _, _                               uint32
		metadata, address                        uint64
		metadataLength, dataLength               uint32
		cdw10, cdw11, cdw12, cdw13, cdw14, cdw15 uint32
		timeout, result                          uint32
	}{opcode: opcode, nsid: nsid, address: uint64(uintptr(unsafe.Pointer(&data[0]))), dataLength: uint32(size), cdw10: cdw10, timeout: commandLimit}
	const admin = 3<<30 | unsafe.Sizeof(command)<<16 | 'N'<<8 | 0x41 // NVME_IOCTL_ADMIN_CMD
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), admin, uintptr(unsafe.Pointer(&command)))
	runtime.KeepAlive(data)
	if errno != 0 {
		return nil, errno
	}
	if status != 0 {
		return nil, fmt.Errorf("%w: status %#x", errRefused, status)
	}
	return data, nil
}

// sgIO is struct sg_io_hdr of include/scsi/sg.h.
type sgIO struct {
	interfaceID, direction              int32
	commandLength, senseLength          byte
	iovecs                              uint16
	dataLength                          uint32
	data, command, sense                unsafe.Pointer
	timeout, flags                      uint32
	packID                              int32
	user                                unsafe.Pointer
	status, maskedStatus, messageStatus byte
	senseWritten                        byte
	hostStatus, driverStatus            uint16
	residual                            int32
	duration, info                      uint32
}

// scsi sends a command that reads, and returns the data and the sense data.
func scsi(fd int, command []byte, size int) (data, sense []byte, err error) {
	data, sense = make([]byte, max(size, 1)), make([]byte, 64)
	h := sgIO{interfaceID: 'S', direction: -3, commandLength: byte(len(command)), senseLength: byte(len(sense)), dataLength: uint32(size), // -3: from the device
		data: unsafe.Pointer(&data[0]), command: unsafe.Pointer(&command[0]), sense: unsafe.Pointer(&sense[0]), timeout: commandLimit}
	if size == 0 {
		h.direction, h.data = -1, nil
	}
	const sgIOCommand = 0x2285 // SG_IO
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), sgIOCommand, uintptr(unsafe.Pointer(&h)))
	runtime.KeepAlive(data)
	runtime.KeepAlive(command)
	runtime.KeepAlive(sense)
	if errno != 0 {
		return nil, nil, errno
	}
	sense = sense[:min(int(h.senseWritten), len(sense))]
	if h.hostStatus != 0 {
		return nil, nil, fmt.Errorf("the host adapter says %#x", h.hostStatus)
	}
	if h.status != 0 && h.status != 2 { // 2: with sense data, which the caller reads
		return nil, nil, fmt.Errorf("%w: status %#x", errRefused, h.status)
	}
	if h.residual > 0 && int(h.residual) <= size {
		size -= int(h.residual)
	}
	return data[:size], sense, nil
}

// ataSMART sends the command SMART through ATA PASS-THROUGH (16) (SAT-5, 13.2.3). Without data, the answer is in the registers LBA mid and high.
func ataSMART(fd int, feature byte, size int) ([]byte, error) {
	protocol, flags := byte(4<<1), byte(0x0e) // PIO from the device; length in blocks, in the field of sectors
	if size == 0 {
		protocol, flags = 3<<1, 0x20 // no data, give the registers back
	}
	command := []byte{0x85, protocol, flags, 0, feature, 0, byte(size / 512), 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0}
	data, sense, err := scsi(fd, command, size)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return ataRegisters(sense)
	}
	if len(sense) > 0 && sense[0]&0x7f >= 0x70 && key(sense) > 1 { // more than a recovered error
		return nil, fmt.Errorf("%w: sense key %d", errRefused, key(sense))
	}
	if len(data) < size {
		return nil, errors.New("data is cut off")
	}
	return data, nil
}

// key is the sense key of sense data (SPC-5, 4.4).
func key(sense []byte) byte {
	switch {
	case len(sense) > 1 && sense[0]&0x7f >= 0x72:
		return sense[1] & 0x0f
	case len(sense) > 2:
		return sense[2] & 0x0f
	}
	return 0
}

// ataRegisters finds the ATA Status Return descriptor (SAT-5, 13.2.3.9) in sense data of descriptor format.
func ataRegisters(sense []byte) ([]byte, error) {
	if len(sense) >= 8+14 && sense[0]&0x7f == 0x72 && sense[8] == 0x09 {
		return []byte{sense[8+9], sense[8+11]}, nil
	}
	return nil, fmt.Errorf("%w: no registers in its answer", errRefused)
}

// scsiLog reads a log page: LOG SENSE, current cumulative values (SPC-5, 6.8).
func scsiLog(fd int, page byte) ([]byte, error) {
	const size = 4096
	command := []byte{0x4d, 0, 1<<6 | page, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(command[7:], size)
	data, sense, err := scsi(fd, command, size)
	if err != nil {
		return nil, err
	}
	if key(sense) > 1 {
		return nil, fmt.Errorf("%w: sense key %d", errRefused, key(sense))
	}
	if len(data) >= 4 {
		data = data[:min(len(data), 4+int(binary.BigEndian.Uint16(data[2:])))]
	}
	return data, nil
}
