// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"errors"
	"fmt"

	"github.com/ironhand/ironhand/steps"
)

// Commands of SPC-5 (6.35, 6.39) and SBC-4 (5.30), for SAS and Fibre Channel drives.
const (
	scsiRequestSense  = 0x03
	scsiSanitize      = 0x48
	scsiMaintenanceIn = 0xa3
	scsiReportCodes   = 0x0c // REPORT SUPPORTED OPERATION CODES

	scsiBlockErase  = 0x02
	scsiCryptoErase = 0x03
	scsiExitFailure = 0x1f

	scsiImmediate = 0x80 // answer at once, work on
	scsiAllowExit = 0x20 // a failed one does not lock the drive for ever
)

// scsi sends SCSI commands to a disk.
type scsi struct{ drive Drive }

// do sends a command; an answer other than good is an error.
func (s scsi) do(cdb, in []byte) error {
	a, err := s.drive.SCSI(SCSICommand{CDB: cdb, In: in, Timeout: shortTimeout})
	if err != nil {
		return err
	}
	if a.Status != 0 {
		sense := parseSense(a.Sense)
		return fmt.Errorf("the drive refuses: SCSI status %#02x, sense %x/%02x/%02x", a.Status, sense.key, sense.asc, sense.ascq)
	}
	return nil
}

// sense is what matters of sense data: SPC-5, 4.4.
type sense struct {
	key, asc, ascq byte
	progress       float64 // of what is being done; 0 if it is not said
}

func parseSense(b []byte) sense {
	var s sense
	fraction := func(b []byte) float64 {
		if b[0]&0x80 == 0 { // SKSV
			return 0
		}
		return float64(uint16(b[1])<<8|uint16(b[2])) / 65536
	}
	switch {
	case len(b) >= 14 && b[0]&0x7e == 0x70:
		s = sense{key: b[2] & 0xf, asc: b[12], ascq: b[13]}
		if len(b) >= 18 {
			s.progress = fraction(b[15:])
		}
	case len(b) >= 8 && b[0]&0x7e == 0x72:
		s = sense{key: b[1] & 0xf, asc: b[2], ascq: b[3]}
		for d := b[8:]; len(d) >= 2 && len(d) >= 2+int(d[1]); d = d[2+int(d[1]):] {
			if d[0] == 2 && d[1] >= 6 { // sense key specific
				s.progress = fraction(d[4:])
				break
			}
		}
	}
	return s
}

func (s scsi) sanitizeCommand(action byte) error {
	return s.do([]byte{scsiSanitize, action, 0, 0, 0, 0, 0, 0, 0, 0}, nil)
}

// has asks whether a drive knows a kind of sanitize.
func (s scsi) has(action byte) (bool, error) {
	b := make([]byte, 64)
	// One command and its service action; the answer's length is in the last bytes.
	err := s.do([]byte{scsiMaintenanceIn, scsiReportCodes, 2, scsiSanitize, 0, action, 0, 0, 0, byte(len(b)), 0, 0}, b)
	return err == nil && b[1]&7 == 3, err
}

// sanitizing asks how far a sanitize is.
func (s scsi) sanitizing() (done bool, fraction float64, err error) {
	b := make([]byte, 252)
	var now sense
	for range 4 { // a unit attention is told once, and is old news
		if err := s.do([]byte{scsiRequestSense, 0, 0, 0, byte(len(b)), 0}, b); err != nil {
			return false, 0, err
		}
		if now = parseSense(b); now.key != 6 {
			break
		}
	}
	switch {
	case now.key == 2 && now.asc == 0x04 && now.ascq == 0x1b: // LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS
		return false, now.progress, nil
	case now.asc == 0x31 && now.ascq == 0x03: // SANITIZE COMMAND FAILED
		return false, 0, fmt.Errorf("%w: sense %x/31/03", errDefinite, now.key)
	case now.key > 1: // neither done nor what we asked for: asked again
		return false, 0, fmt.Errorf("sense %x/%02x/%02x", now.key, now.asc, now.ascq)
	}
	return true, 1, nil
}

// scsiCapability asks a SCSI drive what it can do.
func scsiCapability(ctx context.Context, d Drive, say func(string)) (capability, error) {
	s := scsi{d}
	var out capability
	for _, m := range []struct {
		name   string
		action byte
	}{{"SCSI sanitize (cryptographic erase)", scsiCryptoErase}, {"SCSI sanitize (block erase)", scsiBlockErase}} {
		has, err := s.has(m.action)
		if err != nil { // most do not know the question
			out.lacking = append(out.lacking, fmt.Sprintf("%s: %v", m.name, err))
			continue
		}
		if !has {
			out.lacking = append(out.lacking, m.name+": the drive has no such command")
			continue
		}
		out.found = append(out.found, m.name)
		out.rungs = append(out.rungs, rung{name: m.name, secure: true, run: func(ctx context.Context, _ steps.Disk, show func(float64)) (string, error) {
			return s.sanitize(ctx, m.action, show)
		}})
	}
	if len(out.rungs) == 0 {
		return out, nil
	}
	// What runs or failed before keeps the disk from being written to. Any other answer is no reason to stop yet.
	done, _, err := s.sanitizing()
	if err == nil && !done {
		say("a sanitize from before is still running: waiting for it")
		err = polled(ctx, noPromise, func(float64) {}, s.sanitizing)
		if err != nil && !errors.Is(err, errDefinite) {
			return out, fmt.Errorf("sanitize from before: %w", err)
		}
	}
	if errors.Is(err, errDefinite) {
		if err := s.sanitizeCommand(scsiExitFailure); err != nil {
			return out, fmt.Errorf("leave the failed sanitize from before: %w", err)
		}
	}
	return out, nil
}

// sanitize has the drive erase all that it ever stored.
func (s scsi) sanitize(ctx context.Context, action byte, show func(float64)) (string, error) {
	if err := s.sanitizeCommand(action | scsiImmediate | scsiAllowExit); err != nil {
		return "", err
	}
	err := polled(ctx, noPromise, show, s.sanitizing)
	if errors.Is(err, errDefinite) { // it would take no data otherwise
		err = errors.Join(err, s.sanitizeCommand(scsiExitFailure))
	}
	return "sanitize: done, no sense", err
}
