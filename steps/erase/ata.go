// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// Commands of ACS-4 (ATA/ATAPI Command Set 4, sections 7 and 9.3), and their translation, SAT-5 section 12.2.
const (
	ataIdentify        = 0xec
	ataSanitize        = 0xb4
	ataSetPassword     = 0xf1
	ataUnlock          = 0xf2
	ataErasePrepare    = 0xf3
	ataEraseUnit       = 0xf4
	ataDisablePassword = 0xf6

	ataSanitizeStatus = 0x0000
	ataSanitizeCrypto = 0x0011
	ataSanitizeBlock  = 0x0012

	ataNonData = 3
	ataIn      = 4
	ataOut     = 5
)

// errNotATA says that a device takes no ATA commands.
var errNotATA = errors.New("takes no ATA commands")

// ata sends ATA commands to a disk.
type ata struct{ drive Drive }

// ataRegisters are what a command leaves.
type ataRegisters struct {
	status, err byte
	count       uint16
	lba         uint64
	half        bool // only the lower halves came
}

// ataCommand is a command; extended ones have registers of 16 bits.
type ataCommand struct {
	command          byte
	feature, count   uint16
	lba              uint64
	in, out          []byte // 512 bytes
	extended, report bool   // report: the registers are wanted
	timeout          time.Duration
}

// cdb is ATA PASS-THROUGH (16).
func (c ataCommand) cdb() []byte {
	b := make([]byte, 16)
	protocol, flags := byte(ataNonData), byte(0)
	switch {
	case c.in != nil:
		protocol, flags = ataIn, 0x0e // from the device, blocks, as many as the count says
	case c.out != nil:
		protocol, flags = ataOut, 0x06
	}
	if c.report {
		flags |= 0x20
	}
	b[0], b[1], b[2] = 0x85, protocol<<1, flags
	if c.extended {
		b[1] |= 1
	}
	b[3], b[4] = byte(c.feature>>8), byte(c.feature)
	b[5], b[6] = byte(c.count>>8), byte(c.count)
	b[7], b[8] = byte(c.lba>>24), byte(c.lba)
	b[9], b[10] = byte(c.lba>>32), byte(c.lba>>8)
	b[11], b[12] = byte(c.lba>>40), byte(c.lba>>16)
	b[14] = c.command
	return b
}

// do sends a command. An error of the drive is an error.
func (a ata) do(c ataCommand) (ataRegisters, error) {
	answer, err := a.drive.SCSI(SCSICommand{CDB: c.cdb(), In: c.in, Out: c.out, Timeout: c.timeout})
	if err != nil {
		return ataRegisters{}, err
	}
	return parseAnswer(answer)
}

// parseAnswer reads the ATA registers in sense data (SAT-5, 12.2.2.7), in descriptors or in the fixed form.
func parseAnswer(a SCSIAnswer) (r ataRegisters, err error) {
	if a.Status == 0 {
		return r, nil
	}
	if a.Status != 2 || len(a.Sense) < 8 {
		return r, fmt.Errorf("SCSI status %#02x", a.Status)
	}
	found := false
	key, asc, ascq := byte(0), byte(0), byte(0)
	switch a.Sense[0] & 0x7f {
	case 0x72:
		key, asc, ascq = a.Sense[1]&0xf, a.Sense[2], a.Sense[3]
		for d := a.Sense[8:]; len(d) >= 2 && len(d) >= 2+int(d[1]); d = d[2+int(d[1]):] {
			if d[0] == 0x09 && d[1] >= 12 {
				r = ataRegisters{status: d[13], err: d[3], count: uint16(d[4])<<8 | uint16(d[5]),
					lba: uint64(d[10])<<40 | uint64(d[8])<<32 | uint64(d[6])<<24 | uint64(d[11])<<16 | uint64(d[9])<<8 | uint64(d[7])}
				found = true
				break
			}
		}
	case 0x70:
		key = a.Sense[2] & 0xf
		if len(a.Sense) >= 14 {
			asc, ascq = a.Sense[12], a.Sense[13]
		}
		if asc == 0 && ascq == 0x1d {
			r = ataRegisters{err: a.Sense[3], status: a.Sense[4], count: uint16(a.Sense[6]), lba: uint64(a.Sense[11])<<16 | uint64(a.Sense[10])<<8 | uint64(a.Sense[9]), half: true}
			found = true
		}
	}
	switch {
	case found && r.status&0x21 != 0: // ERR, DF
		if r.err&4 != 0 {
			return r, fmt.Errorf("the drive aborted the command (status %#02x, error %#02x)", r.status, r.err)
		}
		return r, fmt.Errorf("the drive failed (status %#02x, error %#02x)", r.status, r.err)
	case found:
		return r, nil
	case key == 5:
		return r, fmt.Errorf("%w: sense 5/%02x/%02x", errNotATA, asc, ascq)
	}
	return r, fmt.Errorf("sense %x/%02x/%02x", key, asc, ascq)
}

// ataIdentity is what matters of IDENTIFY DEVICE.
type ataIdentity struct {
	security, enabled, locked, frozen, expired, enhanced bool
	eraseTime, enhancedTime                              time.Duration // 0 if nothing is promised
	sanitize, sanitizeCrypto, sanitizeBlock              bool
}

func parseIdentity(b []byte) (ataIdentity, error) {
	word := func(n int) uint16 { return binary.LittleEndian.Uint16(b[2*n:]) }
	if len(b) < 512 || word(0)&0x8000 != 0 {
		return ataIdentity{}, errNotATA
	}
	if sum := byte(0); b[510] == 0xa5 { // integrity word
		for _, c := range b[:512] {
			sum += c
		}
		if sum != 0 {
			return ataIdentity{}, errors.New("what the drive says about itself has a wrong checksum")
		}
	}
	length := func(w uint16) time.Duration {
		if w&0x8000 != 0 {
			return time.Duration(w&0x7fff) * 2 * time.Minute
		}
		return time.Duration(w&0xff) * 2 * time.Minute
	}
	s := word(128)
	return ataIdentity{
		security: word(82)&2 != 0 && s&1 != 0, enabled: s&2 != 0, locked: s&4 != 0, frozen: s&8 != 0, expired: s&16 != 0, enhanced: s&32 != 0,
		eraseTime: length(word(89)), enhancedTime: length(word(90)),
		sanitize: word(59)&(1<<12) != 0, sanitizeCrypto: word(59)&(1<<13) != 0, sanitizeBlock: word(59)&(1<<15) != 0,
	}, nil
}

func (a ata) identify() (ataIdentity, error) {
	b := make([]byte, 512)
	if _, err := a.do(ataCommand{command: ataIdentify, count: 1, in: b, timeout: shortTimeout}); err != nil {
		return ataIdentity{}, fmt.Errorf("identify: %w", err)
	}
	return parseIdentity(b)
}

// password sends one of the commands with a password, which is 32 zeros as hdparm's NULL is: a drive that loses its power on the way can be unlocked by either.
func (a ata) password(command byte, flags uint16, timeout time.Duration) error {
	b := make([]byte, 512)
	binary.LittleEndian.PutUint16(b, flags)
	_, err := a.do(ataCommand{command: command, count: 1, out: b, timeout: timeout})
	return err
}

// sanitizeRegisters asks how far the drive is.
func (a ata) sanitizeRegisters() (ataRegisters, error) {
	return a.do(ataCommand{command: ataSanitize, feature: ataSanitizeStatus, extended: true, report: true, timeout: shortTimeout})
}

const (
	ataSanitizeDone    = 1 << 15 // without error
	ataSanitizeRunning = 1 << 14
	ataSanitizeFrozen  = 1 << 13
)

// ataCapability asks an ATA drive what it can do. One that is locked by the password that we set is unlocked.
func ataCapability(ctx context.Context, d Drive, name string, say func(string)) (capability, error) {
	a := ata{d}
	id, err := a.identify()
	if err != nil {
		return capability{}, err
	}
	var out capability
	add := func(method string, promised time.Duration, run func(ctx context.Context, show func(float64)) (string, error)) {
		if promised > 0 {
			method += fmt.Sprintf(", %v promised", promised)
		}
		out.rungs = append(out.rungs, rung{name: method, secure: true, run: func(ctx context.Context, _ steps.Disk, show func(float64)) (string, error) {
			return run(ctx, show)
		}})
	}
	if id.sanitize && (id.sanitizeCrypto || id.sanitizeBlock) {
		r, err := a.sanitizeRegisters()
		if err == nil && r.half {
			err = errors.New("the adapter passes on only half of it")
		}
		if err == nil && r.count&ataSanitizeRunning != 0 {
			say("a sanitize from before is still running: waiting for it")
			if err := a.wait(ctx, func(float64) {}); err != nil && !errors.Is(err, errDefinite) {
				return capability{}, fmt.Errorf("sanitize from before: %w", err)
			}
		}
		for _, m := range []struct {
			has     bool
			name    string
			feature uint16
			lba     uint64
		}{
			{id.sanitizeCrypto, "ATA sanitize (crypto scramble)", ataSanitizeCrypto, 0x43727970},
			{id.sanitizeBlock, "ATA sanitize (block erase)", ataSanitizeBlock, 0x426b4572},
		} {
			if !m.has {
				continue
			}
			out.found = append(out.found, m.name)
			switch {
			case err != nil:
				out.lacking = append(out.lacking, fmt.Sprintf("%s: its status: %v", m.name, err))
			case r.count&ataSanitizeFrozen != 0:
				out.lacking = append(out.lacking, m.name+": frozen")
			default:
				add(m.name, 0, func(ctx context.Context, show func(float64)) (string, error) {
					return a.sanitize(ctx, m.feature, m.lba, show)
				})
			}
		}
	}
	if !id.security {
		out.lacking = append(out.lacking, "ATA security erase: the drive has no such commands")
		return out, nil
	}
	out.found = append(out.found, "ATA security erase")
	if id.enhanced {
		out.found = append(out.found, "ATA enhanced security erase")
	}
	if id.locked && !id.frozen && !id.expired {
		// Refused or not, the drive says afterwards whether it is locked.
		_ = a.password(ataUnlock, 0, shortTimeout)
		if id, err = a.identify(); err != nil {
			return capability{}, err
		}
	}
	switch {
	case id.frozen:
		out.blocked = fmt.Errorf("%s is frozen and cannot be erased by ATA security: the firmware has done that at its start; a drive that loses its power while the machine runs (suspend, hot plug) is not", name)
	case id.locked && id.expired:
		out.blocked = fmt.Errorf("%s is locked, and takes no password any more until its power is cycled", name)
	case id.locked:
		out.blocked = fmt.Errorf("%s already has a security password set, which is not known", name)
	default:
		if id.enhanced {
			add("ATA enhanced security erase", id.enhancedTime, func(ctx context.Context, show func(float64)) (string, error) {
				return a.securityErase(ctx, 2, id.enhancedTime, show)
			})
		}
		add("ATA security erase", id.eraseTime, func(ctx context.Context, show func(float64)) (string, error) {
			return a.securityErase(ctx, 0, id.eraseTime, show)
		})
	}
	if out.blocked != nil {
		out.lacking = append(out.lacking, "ATA security erase: "+out.blocked.Error())
	}
	return out, nil
}

// securityErase sets a password, without which a drive does not erase, and erases, which takes it away. If it fails, the password is taken away by hand.
func (a ata) securityErase(ctx context.Context, flags uint16, promised time.Duration, show func(float64)) (string, error) {
	id, err := a.identify()
	if err != nil {
		return "", err
	}
	if id.frozen {
		return "", errors.New("the drive is frozen")
	}
	if !id.enabled {
		if err := a.password(ataSetPassword, 0, shortTimeout); err != nil {
			return "", fmt.Errorf("set a password: %w", err)
		}
	}
	_, err = a.do(ataCommand{command: ataErasePrepare, timeout: shortTimeout})
	if err != nil {
		err = fmt.Errorf("prepare: %w", err)
	} else {
		err = blocking(ctx, elapsed(promised), show, func() error { return a.password(ataEraseUnit, flags, limit(promised, 48*time.Hour)) })
	}
	if ctx.Err() != nil {
		return "", err // it takes no other command now
	}
	if err != nil {
		if id, idErr := a.identify(); idErr == nil && id.locked {
			_ = a.password(ataUnlock, 0, shortTimeout) // if it is refused, so is what follows
		}
		if disable := a.password(ataDisablePassword, 0, shortTimeout); disable != nil {
			err = errors.Join(err, fmt.Errorf("take the password (32 zero bytes) away again: %w", disable))
		}
		return "", err
	}
	if id, err = a.identify(); err != nil {
		return "", err
	}
	if id.enabled {
		return "", fmt.Errorf("the drive says that it is done, but it still has its password: %w", errLies)
	}
	return "security erase: success, security not enabled", nil
}

// sanitize has the drive erase all that it ever stored.
func (a ata) sanitize(ctx context.Context, feature uint16, lba uint64, show func(float64)) (string, error) {
	if _, err := a.do(ataCommand{command: ataSanitize, feature: feature, lba: lba, extended: true, report: true, timeout: shortTimeout}); err != nil {
		return "", err
	}
	if err := a.wait(ctx, show); err != nil {
		return "", err
	}
	r, err := a.sanitizeRegisters()
	return fmt.Sprintf("sanitize: count %#04x", r.count), err
}

func (a ata) wait(ctx context.Context, show func(float64)) error {
	return polled(ctx, noPromise, show, func() (bool, float64, error) {
		r, err := a.sanitizeRegisters()
		switch {
		case err != nil:
			return false, 0, err
		case r.count&ataSanitizeRunning != 0:
			return false, float64(r.lba&0xffff) / 65536, nil
		case r.count&ataSanitizeDone != 0:
			return true, 1, nil
		}
		return false, 0, fmt.Errorf("%w: sanitize status, count %#04x", errDefinite, r.count)
	})
}
