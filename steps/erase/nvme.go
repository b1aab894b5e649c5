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

// Admin commands, and numbers of the NVM Express Base Specification 2.0 (figures 86, 275, 280, 290) and the NVM Command Set Specification 1.0.
const (
	nvmeGetLog   = 0x02
	nvmeIdentify = 0x06
	nvmeFormat   = 0x80
	nvmeSanitize = 0x84

	identifyNamespace  = 0x00
	identifyController = 0x01
	identifyActive     = 0x02 // list of namespaces

	sanitizeLog       = 0x81
	sanitizeExit      = 1
	sanitizeBlock     = 2
	sanitizeCrypto    = 4
	sanitizeAllowExit = 1 << 3 // a failed one does not lock the drive for ever

	formatUser   = 1 << 9
	formatCrypto = 2 << 9
)

const (
	shortTimeout  = 60 * time.Second
	formatTimeout = 4 * time.Hour // nothing is promised
	noPromise     = 24 * time.Hour
)

type nvme struct {
	drive     Drive
	namespace uint32
}

func (n nvme) identify(what uint32, namespace uint32, timeout time.Duration) ([]byte, error) {
	b := make([]byte, 4096)
	err := n.drive.NVMe(NVMeCommand{Opcode: nvmeIdentify, Namespace: namespace, CDW10: what, Data: b, Timeout: timeout})
	if err != nil {
		return nil, fmt.Errorf("identify (%#x): %w", what, err)
	}
	return b, nil
}

// sanitizeState is the sanitize status log page.
type sanitizeState struct {
	progress      float64
	status        uint16
	block, crypto time.Duration // estimates; 0 for none
}

func (n nvme) sanitizeState() (sanitizeState, error) {
	b := make([]byte, 512)
	err := n.drive.NVMe(NVMeCommand{Opcode: nvmeGetLog, Namespace: 0xffffffff, CDW10: sanitizeLog | (512/4-1)<<16, Data: b, Timeout: shortTimeout})
	if err != nil {
		return sanitizeState{}, fmt.Errorf("read the sanitize status: %w", err)
	}
	return parseSanitizeLog(b), nil
}

func parseSanitizeLog(b []byte) sanitizeState {
	seconds := func(at int) time.Duration {
		if v := binary.LittleEndian.Uint32(b[at:]); v != 0xffffffff {
			return time.Duration(v) * time.Second
		}
		return 0
	}
	return sanitizeState{
		progress: float64(binary.LittleEndian.Uint16(b[0:])) / 65536,
		status:   binary.LittleEndian.Uint16(b[2:]),
		block:    seconds(12), crypto: seconds(16),
	}
}

// Values of the status's lower three bits.
const (
	sanitizeDone        = 1
	sanitizeRunning     = 2
	sanitizeFailed      = 3
	sanitizeDoneNoClear = 4 // what was asked not to be deallocated was
)

// nvmeController is what matters of Identify Controller.
type nvmeController struct {
	format, formatsAll, erasesAll, formatCrypto bool
	sanitizeCrypto, sanitizeBlock               bool
	namespaces                                  uint32 // that it may have
}

func parseController(b []byte) nvmeController {
	oacs, fna, sanicap := binary.LittleEndian.Uint16(b[256:]), b[524], binary.LittleEndian.Uint32(b[328:])
	return nvmeController{
		format: oacs&2 != 0, formatsAll: fna&1 != 0, erasesAll: fna&2 != 0, formatCrypto: fna&4 != 0,
		sanitizeCrypto: sanicap&1 != 0, sanitizeBlock: sanicap&2 != 0,
		namespaces: binary.LittleEndian.Uint32(b[516:]),
	}
}

// formatSettings are the fields of a format command that leave the format as it is: those of Identify Namespace.
func formatSettings(namespace []byte) uint32 {
	flbas, dps := uint32(namespace[26]), uint32(namespace[29])
	return flbas&0xf | flbas>>4&1<<4 | dps&7<<5 | dps>>3&1<<8 | flbas>>5&3<<12
}

// formatProgress reads the format progress indicator of Identify Namespace; it is negative if the drive has none.
func formatProgress(namespace []byte) float64 {
	fpi := namespace[32]
	if fpi&0x80 == 0 {
		return -1
	}
	return 1 - float64(min(fpi&0x7f, 100))/100 // percent yet to be done
}

// formatted asks how far a format is. A drive that takes no question while it formats is left its time: the kernel would reset it after a shorter one.
func (n nvme) formatted() float64 {
	b, err := n.identify(identifyNamespace, n.namespace, formatTimeout)
	if err != nil {
		return -1 // the format says whether it worked
	}
	if p := formatProgress(b); p < 1 {
		return p
	}
	return -1 // it does not know of the format
}

// nvmeCapability asks an NVMe drive what it can do. A sanitize that runs from before is waited for.
func nvmeCapability(ctx context.Context, d Drive, namespace uint32, say func(string)) (capability, error) {
	n := nvme{d, namespace}
	b, err := n.identify(identifyController, 0, shortTimeout)
	if err != nil {
		return capability{}, err
	}
	c := parseController(b)
	var out capability
	list, err := n.identify(identifyActive, 0, shortTimeout)
	alone := err == nil && binary.LittleEndian.Uint32(list) == namespace && binary.LittleEndian.Uint32(list[4:]) == 0
	if status := NVMeStatus(0); errors.As(err, &status) { // NVMe 1.0 has no such list
		alone, err = c.namespaces == 1, nil
	}
	if err != nil {
		return capability{}, err
	}

	if c.sanitizeCrypto || c.sanitizeBlock {
		state, err := n.sanitizeState()
		if err != nil {
			return capability{}, err
		}
		switch state.status & 7 {
		case sanitizeRunning:
			say("a sanitize from before is still running: waiting for it")
			if err := n.wait(ctx, limit(max(state.block, state.crypto), noPromise), func(float64) {}); err != nil && !errors.Is(err, errDefinite) {
				return capability{}, fmt.Errorf("sanitize from before: %w", err)
			}
		case sanitizeFailed: // it takes no data until it is told to go on
			err := d.NVMe(NVMeCommand{Opcode: nvmeSanitize, CDW10: sanitizeExit, Timeout: shortTimeout})
			if err != nil {
				return capability{}, fmt.Errorf("leave the failed sanitize from before: %w", err)
			}
		}
		add := func(name string, action uint32, promised time.Duration) {
			out.found = append(out.found, name)
			if !alone {
				out.lacking = append(out.lacking, name+": the drive has other namespaces, which it would erase too")
				return
			}
			out.rungs = append(out.rungs, rung{name: name, secure: true, run: func(ctx context.Context, _ steps.Disk, show func(float64)) (string, error) {
				return n.sanitize(ctx, action, promised, show)
			}})
		}
		if c.sanitizeCrypto {
			add("NVMe sanitize (crypto erase)", sanitizeCrypto, state.crypto)
		}
		if c.sanitizeBlock {
			add("NVMe sanitize (block erase)", sanitizeBlock, state.block)
		}
	}
	if c.format {
		ns, err := n.identify(identifyNamespace, namespace, shortTimeout)
		if err != nil {
			return capability{}, err
		}
		settings := formatSettings(ns)
		progress := func() float64 { return -1 } // what does not tell is not asked
		if formatProgress(ns) >= 0 {
			progress = n.formatted
		}
		add := func(name string, kind uint32) {
			out.found = append(out.found, name)
			if !alone && (c.formatsAll || c.erasesAll) {
				out.lacking = append(out.lacking, name+": the drive has other namespaces, which it would erase too")
				return
			}
			out.rungs = append(out.rungs, rung{name: name, secure: true, quick: true, run: func(ctx context.Context, _ steps.Disk, show func(float64)) (string, error) {
				err := blocking(ctx, progress, show, func() error {
					return d.NVMe(NVMeCommand{Opcode: nvmeFormat, Namespace: namespace, CDW10: settings | kind, Timeout: formatTimeout})
				})
				return "format: success", err
			}})
		}
		if c.formatCrypto {
			add("NVMe format (cryptographic erase)", formatCrypto)
		}
		add("NVMe format (user data erase)", formatUser)
	} else {
		out.lacking = append(out.lacking, "NVMe format: the drive has no such command")
	}
	if len(out.rungs) == 0 { // for ironic-python-agent that is a failure, and not a lack
		out.blocked = errors.New("the NVMe drive cannot be erased by itself: neither sanitize nor format can be used")
	}
	return out, nil
}

// sanitize has the drive erase all that it ever stored.
func (n nvme) sanitize(ctx context.Context, action uint32, promised time.Duration, show func(float64)) (string, error) {
	err := n.drive.NVMe(NVMeCommand{Opcode: nvmeSanitize, CDW10: action | sanitizeAllowExit, Timeout: shortTimeout})
	if err != nil {
		return "", err
	}
	if err := n.wait(ctx, limit(promised, noPromise), show); err != nil {
		if errors.Is(err, errDefinite) { // it would take no data otherwise
			err = errors.Join(err, n.drive.NVMe(NVMeCommand{Opcode: nvmeSanitize, CDW10: sanitizeExit, Timeout: shortTimeout}))
		}
		return "", err
	}
	state, err := n.sanitizeState()
	return fmt.Sprintf("sanitize status %#x", state.status), err
}

func (n nvme) wait(ctx context.Context, limit time.Duration, show func(float64)) error {
	return polled(ctx, limit, show, func() (bool, float64, error) {
		state, err := n.sanitizeState()
		if err != nil {
			return false, 0, err
		}
		switch state.status & 7 {
		case sanitizeDone, sanitizeDoneNoClear:
			return true, 1, nil
		case sanitizeRunning:
			return false, state.progress, nil
		}
		return false, 0, fmt.Errorf("%w: sanitize status %#x", errDefinite, state.status)
	})
}
