// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ironhand/ironhand/image/volume"
)

// ReportLabel is the label of the partition for reports and profiles on a stick.
const ReportLabel = "IRONHAND"

// ReportSize is the size of that partition, in bytes.
const ReportSize = 64 << 20

// A stick is an ISO with a partition table in front of it, in sectors that ISO 9660 leaves free, and a partition behind it. The table names the partition for reports first, for systems that
// show but one of a stick, and as the active one, which some BIOSes want; then the EFI system partition in the ISO. The ISO as a whole has no entry: UEFI refuses a table
// whose partitions overlap. As a CD it is what it was before.

const (
	mbrSector = 512
	mbrCode   = 432 // bytes of the program that starts ISOLINUX from a disk: isohdpfx.bin of Syslinux
	align     = 1 << 20
)

// The types of partitions: the EFI system partition (UEFI 2.10, section 5.2.2), and FAT16 by LBA.
const (
	typeESP = 0xef
	typeFAT = 0x0e
)

// part is one entry of the table, in bytes.
type part struct {
	kind        byte
	active      bool
	start, size int64
}

// hybridMBR is the first sector of a stick. program is isohdpfx.bin, which reads where isolinux.bin lies from behind its end: Syslinux, utils/isohybrid.c.
func hybridMBR(program []byte, isolinux int64, parts []part) ([]byte, error) {
	if len(program) < mbrCode || len(program) > mbrSector {
		return nil, fmt.Errorf("isohdpfx.bin has %d bytes, want %d", len(program), mbrCode)
	}
	le := binary.LittleEndian
	b := make([]byte, mbrSector)
	copy(b, program[:mbrCode])
	le.PutUint64(b[432:], uint64(isolinux/mbrSector))
	le.PutUint32(b[440:], 0x1a0a0002) // signature of the disk; the same image, the same bytes
	for i, p := range parts {
		e := b[446+16*i:][:16]
		if p.active {
			e[0] = 0x80
		}
		first, count := p.start/mbrSector, p.size/mbrSector
		putCHS(e[1:], first)
		e[4] = p.kind
		putCHS(e[5:], first+count-1)
		if first+count > 1<<32-1 {
			return nil, fmt.Errorf("a partition that ends at byte %d does not fit the table", p.start+p.size)
		}
		le.PutUint32(e[8:], uint32(first))
		le.PutUint32(e[12:], uint32(count))
	}
	b[510], b[511] = 0x55, 0xaa
	return b, nil
}

// putCHS writes an address for firmware that counts cylinders, with 255 heads and 63 sectors; what lies too far has the highest.
func putCHS(b []byte, sector int64) {
	cylinder, head, s := sector/(255*63), sector/63%255, sector%63+1
	if cylinder > 1023 {
		cylinder, head, s = 1023, 254, 63
	}
	b[0], b[1], b[2] = byte(head), byte(s)|byte(cylinder>>8)<<6, byte(cylinder)
}

// writeStick writes an ISO as a stick. program is isohdpfx.bin.
func writeStick(w io.Writer, iso volume.ISO, program []byte) (int64, error) {
	places, size, err := iso.Places()
	if err != nil {
		return 0, err
	}
	isolinux, system := places["isolinux/isolinux.bin"], places["boot/efi.img"]
	report := (size + align - 1) / align * align
	fat, err := volume.FAT{Size: ReportSize, Label: ReportLabel, Serial: 0x1a0a0003, Files: map[string][]byte{"README.TXT": []byte(stickReadme)}}.Bytes()
	if err != nil {
		return 0, fmt.Errorf("make the partition for reports: %w", err)
	}
	mbr, err := hybridMBR(program, isolinux.Offset, []part{
		{typeFAT, true, report, ReportSize}, {typeESP, false, system.Offset, (system.Length + mbrSector - 1) / mbrSector * mbrSector},
	})
	if err != nil {
		return 0, err
	}
	iso.System = mbr
	n, err := iso.WriteTo(w)
	if err != nil {
		return n, err
	}
	for _, b := range [][]byte{make([]byte, report-n), fat} {
		k, err := w.Write(b)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

const stickReadme = "The reports of ironhand's burn-in are in the directory reports, one for each run.\r\n" +
	"A profile of your own is a file NAME.yaml beside this one: the menu offers it.\r\n"
