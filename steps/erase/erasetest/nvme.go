// SPDX-License-Identifier: Apache-2.0

// Package erasetest has drives for tests: they keep state and take commands in the bytes of the standards, on a disk in memory.
package erasetest

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// NVMe is an NVMe drive with namespaces, of which the disk is the first. The fields may be set before it is used.
type NVMe struct {
	Disk       *streamtest.Disk
	Namespaces []uint32
	NoList     bool   // of namespaces, as in NVMe 1.0
	OACS       uint16 // bit 1: format
	FNA        byte   // bits 0, 1: format, erase all namespaces; 2: cryptographic erase
	SANICAP    uint32 // bits 0: crypto, 1: block
	FLBAS, DPS byte
	Refuse     map[byte]uint16 // status by opcode
	Lies       bool            // says that it erases, and does not
	FailsLate  bool            // a sanitize begins, and fails
	Running    int             // polls that a sanitize takes yet
	Failed     bool            // state of the last sanitize
	Zeros      bool            // deallocated blocks read as zeros
	DiscardsTo byte            // what discarded blocks read as
	FormatTime time.Duration   // that a format takes, and which the drive shows; 0 is none

	ops    []string
	format int64 // when it began, Unix nanoseconds; 0 if none runs; atomic, for the drive is asked meanwhile
}

// Ops are the commands so far that change something, as text.
func (n *NVMe) Ops() []string {
	return append([]string(nil), n.ops...)
}

// NVMe takes an admin command, also while a format runs: NVM Express Base Specification 2.0.
func (n *NVMe) NVMe(c erase.NVMeCommand) error {
	if s := n.Refuse[c.Opcode]; s != 0 {
		return erase.NVMeStatus(s)
	}
	le := binary.LittleEndian
	switch c.Opcode {
	case 0x06:
		if len(c.Data) != 4096 {
			return erase.NVMeStatus(0x4002)
		}
		clear(c.Data)
		switch c.CDW10 {
		case 0:
			c.Data[26], c.Data[29] = n.FLBAS, n.DPS
			if n.FormatTime > 0 {
				c.Data[32] = 0x80 // and percent to do
				if began := atomic.LoadInt64(&n.format); began != 0 {
					c.Data[32] |= byte(100 - 100*time.Since(time.Unix(0, began))/n.FormatTime)
				}
			}
		case 1:
			le.PutUint16(c.Data[256:], n.OACS)
			c.Data[524] = n.FNA
			le.PutUint32(c.Data[328:], n.SANICAP)
			le.PutUint32(c.Data[516:], uint32(len(n.Namespaces)))
		case 2:
			if n.NoList {
				return erase.NVMeStatus(0x4002)
			}
			for i, ns := range n.Namespaces {
				le.PutUint32(c.Data[4*i:], ns)
			}
		default:
			return erase.NVMeStatus(0x4002)
		}
		return nil
	case 0x02:
		if c.CDW10 != 0x7f0081 || len(c.Data) != 512 {
			return erase.NVMeStatus(0x4002)
		}
		clear(c.Data)
		state := uint16(1)
		switch {
		case n.Running > 0:
			n.Running--
			state = 2
			le.PutUint16(c.Data[0:], uint16(65535/(n.Running+1)))
			if n.Running == 0 && n.FailsLate {
				n.Failed = true
			}
		case n.Failed:
			state = 3
		}
		le.PutUint16(c.Data[2:], state)
		for at := 8; at < 32; at += 4 {
			le.PutUint32(c.Data[at:], 0xffffffff)
		}
		le.PutUint32(c.Data[12:], 20) // a block erase takes 20 s
		return nil
	case 0x80:
		n.ops = append(n.ops, fmt.Sprintf("format nsid %d cdw10 %#x", c.Namespace, c.CDW10))
		if n.FormatTime > 0 {
			atomic.StoreInt64(&n.format, time.Now().UnixNano())
			time.Sleep(n.FormatTime)
			atomic.StoreInt64(&n.format, 0)
		}
		n.erase()
		return nil
	case 0x84:
		n.ops = append(n.ops, fmt.Sprintf("sanitize cdw10 %#x", c.CDW10))
		if c.CDW10&7 == 1 {
			n.Failed = false
			return nil
		}
		n.Running = 3
		if !n.FailsLate {
			n.erase()
		}
		return nil
	}
	return erase.NVMeStatus(0x4001)
}

func (n *NVMe) erase() {
	switch {
	case n.Lies:
	case n.Zeros:
		clear(n.Disk.Bytes)
	default:
		rand.Read(n.Disk.Bytes) // as a new key shows it
	}
}

// SCSI is not for NVMe.
func (n *NVMe) SCSI(erase.SCSICommand) (erase.SCSIAnswer, error) {
	return erase.SCSIAnswer{}, syscall.ENOTTY
}

// Discard deallocates.
func (n *NVMe) Discard(at, length int64) error { return discard(n.Disk, at, length, n.DiscardsTo) }

// Close does nothing.
func (n *NVMe) Close() error { return nil }

func discard(d *streamtest.Disk, at, length int64, to byte) error {
	for i := range d.Bytes[at : at+length] {
		d.Bytes[at+int64(i)] = to
	}
	return nil
}

// Plain is a drive that takes no commands. Discard is not supported, unless Discards is set.
type Plain struct {
	Disk       *streamtest.Disk
	Discards   bool
	DiscardsTo byte
}

// NVMe is refused.
func (p Plain) NVMe(erase.NVMeCommand) error { return syscall.ENOTTY }

// SCSI is refused.
func (p Plain) SCSI(erase.SCSICommand) (erase.SCSIAnswer, error) {
	return erase.SCSIAnswer{}, syscall.ENOTTY
}

// Discard deallocates, or is refused.
func (p Plain) Discard(at, length int64) error {
	if !p.Discards {
		return syscall.EOPNOTSUPP
	}
	return discard(p.Disk, at, length, p.DiscardsTo)
}

// Close does nothing.
func (p Plain) Close() error { return nil }
