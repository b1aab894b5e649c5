// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/image/gpt"
)

// cleanBootEntries deletes the boot entries whose device path, as text, remove wants, and takes them out of the boot order first. It returns
// a line for each that is deleted, and one for each that is left because it has no form of a boot entry, of which firmware boots nothing either. One that cannot be read is
// left alone, and is an error: it may be one of them.
func cleanBootEntries(vars efiVars, remove func(path string) bool) (deleted, odd []string, err error) {
	names, err := vars.Names()
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	var stale []uint16
	for _, name := range names {
		number, is := bootNumber(name)
		if !is {
			continue
		}
		value, err := vars.Read(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", name, err))
			continue
		}
		o, err := ParseLoadOption(value)
		if err != nil {
			odd = append(odd, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		if path := devicePathText(o.Path); remove(path) {
			stale = append(stale, number)
			deleted = append(deleted, fmt.Sprintf("%s %s %s", name, o.Description, path))
		}
	}
	order, err := readOrder(vars)
	if err != nil {
		return nil, odd, errors.Join(append(errs, err)...)
	}
	kept := slices.DeleteFunc(slices.Clone(order), func(n uint16) bool { return slices.Contains(stale, n) })
	if !slices.Equal(order, kept) {
		var b []byte
		for _, n := range kept {
			b = binary.LittleEndian.AppendUint16(b, n)
		}
		if len(kept) == 0 {
			err = vars.Delete("BootOrder") // a variable without a value cannot be
		} else {
			err = vars.Write("BootOrder", b)
		}
		if err != nil {
			return nil, odd, errors.Join(append(errs, fmt.Errorf("write BootOrder: %w", err))...)
		}
	}
	for _, n := range stale {
		name := BootVariable{Number: n}.name()
		if err := vars.Delete(name); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", name, err))
		}
	}
	return deleted, odd, errors.Join(errs...)
}

// devicePathText writes a device path as efibootmgr(8) does: UEFI 2.10 section 10.6.1.6. Kinds of nodes that boot entries do not commonly have are
// Path(type,subtype,hex).
func devicePathText(b []byte) string {
	var out strings.Builder
	for len(b) >= 4 {
		kind, sub, length := b[0], b[1], int(binary.LittleEndian.Uint16(b[2:]))
		if length < 4 || length > len(b) {
			break
		}
		node := b[4:length]
		b = b[length:]
		if kind == 0x7f {
			if sub == 0xff {
				break
			}
			out.WriteByte(',')
			continue
		}
		if s := out.String(); s != "" && !strings.HasSuffix(s, ",") {
			out.WriteByte('/')
		}
		out.WriteString(nodeText(kind, sub, node))
	}
	return out.String()
}

// nodeText writes one node; b is what follows its header.
func nodeText(kind, sub byte, b []byte) string {
	le := binary.LittleEndian
	guid := func() gpt.GUID { return gpt.DecodeGUID([16]byte(b)) }
	switch n := len(b); {
	case kind == 1 && sub == 1 && n >= 2:
		return fmt.Sprintf("Pci(0x%x,0x%x)", b[1], b[0])
	case kind == 1 && sub == 4 && n >= 16:
		return fmt.Sprintf("VenHw(%s)", guid())
	case kind == 2 && sub == 1 && n >= 8 && (le.Uint32(b) == 0x0a0341d0 || le.Uint32(b) == 0x0a0841d0):
		return fmt.Sprintf("PciRoot(0x%x)", le.Uint32(b[4:]))
	case kind == 3 && sub == 2 && n >= 4:
		return fmt.Sprintf("SCSI(%d,%d)", le.Uint16(b), le.Uint16(b[2:]))
	case kind == 3 && sub == 5 && n >= 2:
		return fmt.Sprintf("USB(%d,%d)", b[0], b[1])
	case kind == 3 && sub == 11 && n >= 33:
		return fmt.Sprintf("MAC(%x,%d)", b[:6], b[32])
	case kind == 3 && sub == 12 && n >= 8:
		return fmt.Sprintf("IPv4(%v)", netip.AddrFrom4([4]byte(b[4:])))
	case kind == 3 && sub == 13 && n >= 32:
		return fmt.Sprintf("IPv6(%v)", netip.AddrFrom16([16]byte(b[16:])))
	case kind == 3 && sub == 18 && n >= 6:
		return fmt.Sprintf("Sata(%d,%d,%d)", le.Uint16(b), le.Uint16(b[2:]), le.Uint16(b[4:]))
	case kind == 3 && sub == 23 && n >= 12:
		return fmt.Sprintf("NVMe(0x%x,%s)", le.Uint32(b), strings.ReplaceAll(fmt.Sprintf("% X", b[4:12]), " ", "-"))
	case kind == 3 && sub == 24:
		return fmt.Sprintf("Uri(%s)", strings.ToValidUTF8(string(b), "_"))
	case kind == 4 && sub == 1 && n >= 38:
		start, count := le.Uint64(b[4:]), le.Uint64(b[12:])
		switch b[37] {
		case 1:
			return fmt.Sprintf("HD(%d,MBR,0x%x,0x%x,0x%x)", le.Uint32(b), le.Uint32(b[20:]), start, count)
		case 2:
			return fmt.Sprintf("HD(%d,GPT,%s,0x%x,0x%x)", le.Uint32(b), gpt.DecodeGUID([16]byte(b[20:])), start, count)
		}
		return fmt.Sprintf("HD(%d,%d,%x,0x%x,0x%x)", le.Uint32(b), b[37], b[20:36], start, count)
	case kind == 4 && sub == 3 && n >= 16:
		return fmt.Sprintf("VenMedia(%s)", guid())
	case kind == 4 && sub == 4:
		return "File(" + strings.TrimRight(fromUTF16(b), "\x00") + ")"
	case kind == 4 && sub == 6 && n >= 16:
		return fmt.Sprintf("FvFile(%s)", guid())
	case kind == 4 && sub == 7 && n >= 16:
		return fmt.Sprintf("FvVol(%s)", guid())
	}
	return fmt.Sprintf("Path(%d,%d,%s)", kind, sub, hex.EncodeToString(b))
}
