// SPDX-License-Identifier: Apache-2.0

package erasetest

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// ATA is an ATA drive behind a SCSI to ATA translation. The fields may be set before it is used.
type ATA struct {
	Disk                       *streamtest.Disk
	Security, Enhanced, Frozen bool
	Password                   []byte // 32 bytes; nil if security is not enabled
	Locked                     bool
	CryptoScramble, BlockErase bool
	SanitizeFrozen             bool
	Minutes                    uint16 // words 89 and 90
	AbortErase                 bool   // ERASE UNIT is aborted
	Lies                       bool   // says that it erases, and does not
	KeepsPassword              bool   // after it erased
	FailsLate                  bool   // a sanitize begins, and fails
	FailsThen                  bool   // so does the one that runs in the beginning
	Failed                     bool   // the last sanitize did: data and security commands are aborted (ACS-4, 4.17: SD3)
	Aborts                     bool   // the status of a failed sanitize is an aborted command
	Running                    int    // polls that a sanitize takes yet
	FixedSense                 bool   // sense data in the old form

	prepared bool
	unlocks  int  // attempts that failed
	stuck    bool // the state of a failed sanitize cannot be left
	ops      []string
}

// Ops are the commands so far that change something, as text.
func (a *ATA) Ops() []string {
	return append([]string(nil), a.ops...)
}

// NVMe is not for ATA.
func (a *ATA) NVMe(erase.NVMeCommand) error { return syscall.ENOTTY }

// Close does nothing.
func (a *ATA) Close() error { return nil }

// SCSI takes ATA PASS-THROUGH (16), SAT-5 12.2.2.3, and in it the commands of ACS-4.
func (a *ATA) SCSI(c erase.SCSICommand) (erase.SCSIAnswer, error) {
	if len(c.CDB) != 16 || c.CDB[0] != 0x85 {
		return erase.SCSIAnswer{Status: 2, Sense: []byte{0x72, 5, 0x20, 0, 0, 0, 0, 0}}, nil
	}
	protocol, extended, check := c.CDB[1]>>1&0xf, c.CDB[1]&1 == 1, c.CDB[2]&0x20 != 0
	feature := uint16(c.CDB[3])<<8 | uint16(c.CDB[4])
	lba := uint64(c.CDB[11])<<40 | uint64(c.CDB[9])<<32 | uint64(c.CDB[7])<<24 | uint64(c.CDB[12])<<16 | uint64(c.CDB[10])<<8 | uint64(c.CDB[8])
	wantProtocol := map[byte]byte{0xec: 4, 0xb4: 3, 0xf1: 5, 0xf2: 5, 0xf3: 3, 0xf4: 5, 0xf6: 5}[c.CDB[14]]
	if protocol != wantProtocol || extended != (c.CDB[14] == 0xb4) || protocol == 4 && len(c.In) != 512 || protocol == 5 && len(c.Out) != 512 ||
		protocol != 3 && (c.CDB[2]&7 != 6 || c.CDB[6] != 1) {
		return erase.SCSIAnswer{Status: 2, Sense: []byte{0x72, 5, 0x24, 0, 0, 0, 0, 0}}, nil
	}
	before := a.Failed
	defer func() {
		switch {
		case a.Failed:
			a.Disk.FailWriteAt, a.Disk.FailZeroAt = 1, 1
		case before:
			a.Disk.FailWriteAt, a.Disk.FailZeroAt = 0, 0
		}
	}()
	prepared := a.prepared
	a.prepared = false
	var count uint16
	var progress uint64
	ok := true
	switch c.CDB[14] {
	case 0xec:
		a.identify(c.In)
	case 0xf1, 0xf2, 0xf3, 0xf4, 0xf6:
		ok = !a.Failed && a.security(c, prepared)
	case 0xb4:
		ok = a.CryptoScramble || a.BlockErase
		switch {
		case !ok:
		case feature == 0:
			if c.CDB[6]&1 != 0 && a.Failed && !a.stuck {
				a.Failed = false
				a.ops = append(a.ops, "exit failure mode")
			}
			count, progress = a.sanitizeStatus()
			if a.Aborts && a.Failed && count == 0 {
				ok, progress = false, 1
			}
		case a.SanitizeFrozen:
			ok = false
		case feature == 0x11 && a.CryptoScramble && lba == 0x43727970, feature == 0x12 && a.BlockErase && lba == 0x426b4572:
			a.ops = append(a.ops, fmt.Sprintf("sanitize %#x", feature))
			a.Running, a.Failed, a.FailsThen, a.stuck = 3, false, false, c.CDB[6]&0x10 == 0
			if !a.FailsLate && !a.Lies {
				a.erase(feature == 0x11)
			}
		default:
			ok = false
		}
	default:
		ok = false
	}
	if ok && !check {
		return erase.SCSIAnswer{}, nil
	}
	status, err, key := byte(0x50), byte(0), byte(1)
	if !ok {
		status, err, key = 0x51, 4, 0xb
	}
	if a.FixedSense {
		s := make([]byte, 18)
		s[0], s[2], s[3], s[4], s[6], s[7], s[13] = 0x70, key, err, status, byte(count), 10, 0x1d
		s[9], s[10], s[11] = byte(progress), byte(progress>>8), byte(progress>>16)
		return erase.SCSIAnswer{Status: 2, Sense: s}, nil
	}
	s := []byte{0x72, key, 0, 0x1d, 0, 0, 0, 14, 9, 12, 1, err, byte(count >> 8), byte(count), 0, byte(progress), 0, byte(progress >> 8), 0, 0, 0, status}
	return erase.SCSIAnswer{Status: 2, Sense: s}, nil
}

// security takes the commands of the security feature set.
func (a *ATA) security(c erase.SCSICommand, prepared bool) (ok bool) {
	switch c.CDB[14] {
	case 0xf1:
		if ok = a.Security && !a.Frozen && !a.Locked; ok {
			a.Password = bytes.Clone(c.Out[2:34])
			a.ops = append(a.ops, "set password")
		}
	case 0xf2:
		if ok = a.Security && !a.Frozen && a.unlocks < 5 && bytes.Equal(a.Password, c.Out[2:34]); ok {
			a.Locked = false
			a.ops = append(a.ops, "unlock")
		} else {
			a.unlocks++
		}
	case 0xf3:
		ok = a.Security && !a.Frozen
		a.prepared = ok
	case 0xf4:
		enhanced := c.Out[0]&2 != 0
		ok = a.Security && !a.Frozen && prepared && a.Password != nil && bytes.Equal(a.Password, c.Out[2:34]) && !a.AbortErase && (!enhanced || a.Enhanced)
		if ok {
			a.ops = append(a.ops, fmt.Sprintf("erase, enhanced %v", enhanced))
			if !a.Lies {
				a.erase(false)
			}
			if !a.KeepsPassword {
				a.Password, a.Locked = nil, false
			}
		}
	case 0xf6:
		if ok = a.Security && !a.Frozen && !a.Locked && a.Password != nil && bytes.Equal(a.Password, c.Out[2:34]); ok {
			a.Password = nil
			a.ops = append(a.ops, "disable password")
		}
	}
	return ok
}

func (a *ATA) sanitizeStatus() (count uint16, progress uint64) {
	switch {
	case a.SanitizeFrozen:
		return 1 << 13, 0
	case a.Running > 0:
		a.Running--
		a.Failed = a.Running == 0 && (a.FailsLate || a.FailsThen)
		return 1 << 14, uint64(0xffff / (a.Running + 1))
	case a.Failed:
		return 0, 0
	}
	return 1 << 15, 0xffff
}

// identify makes IDENTIFY DEVICE data.
func (a *ATA) identify(b []byte) {
	clear(b)
	set := func(word int, v uint16) { binary.LittleEndian.PutUint16(b[2*word:], v) }
	bit := func(on bool, n int) uint16 {
		if on {
			return 1 << n
		}
		return 0
	}
	set(59, bit(a.CryptoScramble || a.BlockErase, 12)|bit(a.CryptoScramble, 13)|bit(a.BlockErase, 15))
	set(82, bit(a.Security, 1))
	set(89, a.Minutes/2)
	set(90, a.Minutes/2)
	set(128, bit(a.Security, 0)|bit(a.Password != nil, 1)|bit(a.Locked, 2)|bit(a.Frozen, 3)|bit(a.unlocks >= 5, 4)|bit(a.Enhanced, 5))
	b[510] = 0xa5
	sum := byte(0)
	for _, c := range b[:511] {
		sum += c
	}
	b[511] = -sum
}

func (a *ATA) erase(random bool) {
	if random {
		rand.Read(a.Disk.Bytes)
		return
	}
	clear(a.Disk.Bytes)
}
