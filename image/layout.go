// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"

	"github.com/ironhand/ironhand/image/gpt"
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
type Partition struct {
	Number      int   // from 1, as in the name of the device
	Start, Size int64 // bytes
}

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
	case gerr == nil:
		l.gpt = table
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
	if l.mbr != nil && sector == 4096 && imageSize > 0 && l.end() > imageSize && l.end()/8 <= imageSize {
		return l, fmt.Errorf("%w: its partitions end within its %d bytes if counted in sectors of 512 bytes, the disk has sectors of 4096", ErrSectorSize, imageSize)
	}
	return l, nil
}

// partitions lists the used entries in their order.
func (l layout) partitions() []Partition {
	var ps []Partition
	add := func(number int, first, count uint64) {
		ps = append(ps, Partition{number, int64(first) * int64(l.sector), int64(count) * int64(l.sector)})
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
		return Partition{p.Number, int64(p.First) * int64(l.sector), int64(p.Last-p.First+1) * int64(l.sector)}, err
	}
	p, err := l.mbr.Add(size, diskSize, l.sector)
	return Partition{p.Number, int64(p.First) * int64(l.sector), int64(p.Count) * int64(l.sector)}, err
}

// writeHead puts the table into the first bytes of the disk.
func (l layout) writeHead(head []byte) {
	if l.gpt != nil {
		l.gpt.WriteHead(head)
	} else {
		l.mbr.WriteHead(head)
	}
}
