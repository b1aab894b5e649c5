// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/stream"
)

var (
	// ErrNoTable says that an image has no partition table that could be read.
	ErrNoTable = errors.New("unable to find a valid partition table in the image")
	// ErrNoPartitions says that the partition table of an image is empty.
	ErrNoPartitions = errors.New("no partitions found in the image")
	// ErrSectorSize says that an image was made for disks with sectors of another size.
	ErrSectorSize = errors.New("image is made for another sector size")
)

// Partition is a part of a disk.
type Partition = stream.Partition

// layout is the partition table of a disk: one of the two is not nil.
type layout struct {
	gpt    *gpt.Table
	mbr    *gpt.MBR
	diskID uint32
	sector int // bytes
}

// parseLayout reads the table in the first bytes of an image for a disk with sectors of this size. A table without a partition is an
// error, too.
//
// Whether an image was made for other sectors is known for GPT. An MBR does not say it; it is known there if the image has the
// length imageSize (-1 for not known), its partitions end in it when counted in 512 bytes, and beyond it when counted in 4096.
func parseLayout(head []byte, sector int, imageSize int64) (layout, error) {
	l := layout{sector: sector}
	mbr, err := gpt.ParseMBR(head)
	if err == nil {
		l.diskID = mbr.Signature()
	}

	table, gerr := gpt.Parse(head, sector)
	if gerr != nil {
		for _, other := range []int{512, 4096} {
			if _, err := gpt.Parse(head, other); other != sector && err == nil {
				return l, fmt.Errorf("%w: its GPT is for sectors of %d bytes, the disk has sectors of %d", ErrSectorSize, other, sector)
			}
		}
	}
	switch {
	// Without an entry that guards it, neither firmware nor kernel looks at a GPT (UEFI 2.10 section 5.2.3, Linux'
	// block/partitions/efi.c). Some images that boot from a CD as well have one like that beside their MBR.
	case gerr == nil && err == nil && mbr.Guards():
		l.gpt = table
	case gerr == nil && err == nil && len(mbr.Partitions()) > 0:
		l.mbr = mbr
	case gerr == nil:
		return l, fmt.Errorf("%w: there is a GPT without a protective MBR", ErrNoTable)
	case !errors.Is(gerr, gpt.ErrNone):
		return l, fmt.Errorf("%w: %w", ErrNoTable, gerr)
	case err != nil:
		return l, ErrNoTable
	case mbr.Protective():
		return l, fmt.Errorf("%w: the MBR says that there is a GPT, and there is none", ErrNoTable)
	default:
		l.mbr = mbr
	}
	if len(l.partitions()) == 0 {
		return l, ErrNoPartitions
	}
	return l, l.checkSectors(imageSize)
}

// checkSectors tells, for an image of this many bytes, whether its MBR was made for other sectors.
func (l layout) checkSectors(imageSize int64) error {
	if l.mbr != nil && l.sector == 4096 && imageSize > 0 && l.end() > imageSize && l.end()/8 <= imageSize {
		return fmt.Errorf("%w: its partitions end within its %d bytes if counted in sectors of 512 bytes, the disk has sectors of 4096", ErrSectorSize, imageSize)
	}
	return nil
}

// mostDrive is the largest partition, in bytes, that may turn out to be an image's own for a config drive.
const mostDrive = 1 << 30

// checkRoom refuses a config drive that there will be no place for, before the disk is touched: as far as that can be told without the
// labels of the file systems, which are not there yet.
func (l layout) checkRoom(drive []byte, diskSize int64) error {
	if len(drive) == 0 {
		return nil
	}
	for _, p := range l.partitions() {
		if p.Size <= mostDrive && !l.firmware(p.Number) {
			return nil
		}
	}
	_, err := l.clone().add(configDriveSize, diskSize)
	return err
}

// firmware tells whether a partition is one that firmware or a boot loader starts from.
func (l layout) firmware(number int) bool {
	if l.gpt == nil {
		return slices.ContainsFunc(l.mbr.Partitions(), func(p gpt.MBRPartition) bool { return p.Number == number && p.Type == 0xef })
	}
	return slices.ContainsFunc(l.gpt.Partitions(), func(p gpt.Partition) bool {
		return p.Number == number && (p.Type == gpt.EFISystem || p.Type == gpt.BIOSBoot)
	})
}

// clone is a copy to try things on.
func (l layout) clone() layout {
	if l.gpt != nil {
		l.gpt = l.gpt.Clone()
	}
	if l.mbr != nil {
		mbr := *l.mbr
		l.mbr = &mbr
	}
	return l
}

// differs says in lines how what the kernel sees differs from the table. Of an MBR only the starts are compared: the kernel cuts extended
// partitions, and has logical ones.
func (l layout) differs(seen []Partition) (lines []string) {
	table := l.partitions()
	for _, p := range table {
		i := slices.IndexFunc(seen, func(s Partition) bool { return s.Number == p.Number })
		switch {
		case i < 0:
			lines = append(lines, fmt.Sprintf("the kernel does not see partition %d of the disk (%d bytes at %d)", p.Number, p.Size, p.Start))
		case seen[i].Start != p.Start || l.gpt != nil && seen[i].Size != p.Size:
			lines = append(lines, fmt.Sprintf("the kernel sees partition %d of the disk as %d bytes at %d, the table has %d at %d", p.Number, seen[i].Size, seen[i].Start, p.Size, p.Start))
		}
	}
	for _, s := range seen {
		if l.gpt != nil && !slices.ContainsFunc(table, func(p Partition) bool { return p.Number == s.Number }) {
			lines = append(lines, fmt.Sprintf("the kernel sees a partition %d of the disk that the table does not have", s.Number))
		}
	}
	return lines
}

// partitions lists the used entries in their order.
func (l layout) partitions() []Partition {
	var ps []Partition
	add := func(number int, first, count uint64) {
		ps = append(ps, Partition{Number: number, Start: int64(first) * int64(l.sector), Size: int64(count) * int64(l.sector)})
	}
	if l.gpt != nil {
		for _, p := range l.gpt.Partitions() {
			add(p.Number, p.First, p.Last-p.First+1)
		}
		return ps
	}
	for _, p := range l.mbr.Partitions() {
		add(p.Number, p.First, p.Count)
	}
	return ps
}

// end is where the last partition ends, in bytes.
func (l layout) end() (end int64) {
	for _, p := range l.partitions() {
		end = max(end, p.Start+p.Size)
	}
	return end
}

// fit makes the table one for a disk of this size.
func (l layout) fit(diskSize int64) error {
	if l.gpt != nil {
		return l.gpt.Fit(diskSize)
	}
	return l.mbr.Fit(diskSize, l.sector)
}

// add puts a partition at the end of the disk.
func (l layout) add(size, diskSize int64) (Partition, error) {
	if l.gpt != nil {
		p, err := l.gpt.Add(gpt.LinuxData, "config-2", size)
		return Partition{Number: p.Number, Start: int64(p.First) * int64(l.sector), Size: int64(p.Last-p.First+1) * int64(l.sector)}, err
	}
	p, err := l.mbr.Add(size, diskSize, l.sector)
	return Partition{Number: p.Number, Start: int64(p.First) * int64(l.sector), Size: int64(p.Count) * int64(l.sector)}, err
}

// writeHead puts the table into the first bytes of the disk.
func (l layout) writeHead(head []byte) {
	if l.gpt != nil {
		l.gpt.WriteHead(head)
	} else {
		l.mbr.WriteHead(head)
	}
}
