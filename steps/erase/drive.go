// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"fmt"
	"time"
)

// A Drive takes commands to the hardware of a disk, past the block layer. It decides nothing, and has one goroutine at a time,
// except that an NVMe drive may be asked how far it is while a command runs.
type Drive interface {
	// NVMe sends an admin command. An answer other than success is an [NVMeStatus].
	NVMe(c NVMeCommand) error
	// SCSI sends a command. One that a device answers with a check condition is no error: the answer has the sense data.
	SCSI(c SCSICommand) (SCSIAnswer, error)
	// Discard tells the disk that a range is not needed any more (BLKDISCARD), bytes.
	Discard(offset, length int64) error
	Close() error
}

// NVMeCommand is an NVMe admin command (NVM Express Base Specification 2.0, section 5).
type NVMeCommand struct {
	Opcode       byte
	Namespace    uint32
	CDW10, CDW11 uint32
	Data         []byte // what the drive returns; nil for none
	Timeout      time.Duration
}

// NVMeStatus is a status that is not success, as the kernel returns it: status code type, and code, in the lower 11 bits.
type NVMeStatus uint16

func (s NVMeStatus) Error() string {
	text := map[NVMeStatus]string{
		0x01: "invalid opcode", 0x02: "invalid field in command", 0x06: "internal error", 0x07: "aborted by request",
		0x0b: "invalid namespace or format", 0x0c: "command sequence error", 0x15: "operation denied", 0x1c: "sanitize failed",
		0x1d: "sanitize in progress", 0x20: "namespace is write protected", 0x10a: "invalid format", 0x10b: "firmware activation requires a reset",
		0x123: "sanitize prohibited while the persistent memory region is enabled",
	}[s&0x7ff]
	if text == "" {
		text = "status"
	}
	return fmt.Sprintf("the drive says: %s (%#x)", text, uint16(s&0x7ff))
}

// SCSICommand is a command to a SCSI device, or to an ATA device behind a translation.
type SCSICommand struct {
	CDB     []byte
	In, Out []byte // what the device returns, or is given; at most one
	Timeout time.Duration
}

// SCSIAnswer is how a SCSI device ended a command.
type SCSIAnswer struct {
	Status byte   // of the device: 0 is good, 2 a check condition
	Sense  []byte // SPC-5, 4.4
}
