// SPDX-License-Identifier: Apache-2.0

package erasetest

import (
	"crypto/rand"
	"fmt"
	"syscall"

	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// SCSI is a SAS drive. The fields may be set before it is used.
type SCSI struct {
	Disk          *streamtest.Disk
	Crypto, Block bool // kinds of sanitize that it knows
	Lies          bool // says that it erases, and does not
	FailsThen     bool // the one that runs in the beginning fails
	FailsLate     bool // a sanitize begins, and fails
	Running       int  // polls that a sanitize takes yet
	Failed        bool // state of the last sanitize
	Descriptors   bool // sense data in the new form
	Attentions    int  // unit attentions that it has yet to tell

	ops []string
}

// Ops are the commands so far that change something, as text.
func (s *SCSI) Ops() []string { return s.ops }

// NVMe is not for SCSI.
func (s *SCSI) NVMe(erase.NVMeCommand) error { return syscall.ENOTTY }

// Close does nothing.
func (s *SCSI) Close() error { return nil }

// SCSI takes commands of SPC-5 and SBC-4.
func (s *SCSI) SCSI(c erase.SCSICommand) (erase.SCSIAnswer, error) {
	known := func(action byte) bool { return action == 2 && s.Block || action == 3 && s.Crypto }
	switch op := c.CDB[0]; {
	case op == 0xa3 && len(c.CDB) == 12 && c.CDB[1] == 0x0c && c.CDB[2] == 2 && c.CDB[3] == 0x48 && (s.Crypto || s.Block):
		clear(c.In)
		c.In[1] = 1
		if known(c.CDB[5]) {
			c.In[1] = 3
		}
		return erase.SCSIAnswer{}, nil
	case op == 0x03 && len(c.CDB) == 6 && int(c.CDB[4]) == len(c.In):
		key, asc, ascq, progress := byte(0), byte(0), byte(0), 0
		switch {
		case s.Attentions > 0:
			s.Attentions--
			key, asc = 6, 0x29
		case s.Running > 0:
			s.Running--
			key, asc, ascq, progress = 2, 4, 0x1b, 0xffff/(s.Running+1)
			s.Failed = s.Failed || s.Running == 0 && (s.FailsLate || s.FailsThen)
		case s.Failed:
			key, asc, ascq = 3, 0x31, 3
		}
		clear(c.In)
		if s.Descriptors {
			copy(c.In, []byte{0x72, key, asc, ascq, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, byte(progress >> 8), byte(progress), 0})
		} else {
			copy(c.In, []byte{0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0x80, byte(progress >> 8), byte(progress)})
		}
		return erase.SCSIAnswer{}, nil
	case op == 0x48 && len(c.CDB) == 10 && c.CDB[1] == 0x1f:
		s.ops = append(s.ops, "exit failure mode")
		s.Failed = false
		return erase.SCSIAnswer{}, nil
	case op == 0x48 && len(c.CDB) == 10 && known(c.CDB[1]&0x1f):
		s.ops = append(s.ops, fmt.Sprintf("sanitize %#x", c.CDB[1]))
		s.Running, s.FailsThen = 3, false
		switch {
		case s.Lies || s.FailsLate:
		case c.CDB[1]&0x1f == 3:
			rand.Read(s.Disk.Bytes)
		default:
			clear(s.Disk.Bytes)
		}
		return erase.SCSIAnswer{}, nil
	}
	return erase.SCSIAnswer{Status: 2, Sense: []byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0}}, nil
}
