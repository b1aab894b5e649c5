// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

const (
	typeProtective = 0xee
	typeFAT32LBA   = 0x0c
)

// MBRPartition is one used primary entry of an MBR.
type MBRPartition struct {
	Number       int // 1 to 4
	Type         byte
	Active       bool
	First, Count uint64 // sectors
}

// MBR is a master boot record. Logical partitions inside an extended one are not read.
type MBR struct {
	sector [512]byte
}

// ParseMBR reads the MBR in the first bytes of a disk. The error is ErrNone if they end without the mark 55 AA, or if a flag
// is neither 00 nor 80: then they are the boot sector of a file system (FAT and NTFS bear the same mark).
func ParseMBR(head []byte) (*MBR, error) {
	if len(head) < 512 || head[510] != 0x55 || head[511] != 0xaa {
		return nil, ErrNone
	}
	m := &MBR{sector: [512]byte(head)}
	for i := range 4 {
		if flag := m.entry(i)[0]; flag != 0 && flag != 0x80 {
			return nil, ErrNone
		}
	}
	return m, nil
}

// Signature is the number that the operating system knows the disk by, 0 if there is none.
func (m *MBR) Signature() uint32 { return binary.LittleEndian.Uint32(m.sector[440:]) }

// Partitions lists the used primary entries in their order.
func (m *MBR) Partitions() []MBRPartition {
	var ps []MBRPartition
	for i := range 4 {
		e := m.entry(i)
		p := MBRPartition{
			Number: i + 1,
			Type:   e[4],
			Active: e[0] == 0x80,
			First:  uint64(binary.LittleEndian.Uint32(e[8:])),
			Count:  uint64(binary.LittleEndian.Uint32(e[12:])),
		}
		if p.Type != 0 && p.Count != 0 {
			ps = append(ps, p)
		}
	}
	return ps
}

// Protective tells whether the record only guards a GPT: one partition, of type EE (UEFI 2.10 section 5.2.3).
func (m *MBR) Protective() bool {
	ps := m.Partitions()
	return len(ps) == 1 && ps[0].Type == typeProtective
}

// Guards tells whether a partition of type EE is among the others, as it must be where there is a GPT.
func (m *MBR) Guards() bool {
	return slices.ContainsFunc(m.Partitions(), func(p MBRPartition) bool { return p.Type == typeProtective })
}

// Fit checks that all partitions lie on a disk of diskSize bytes. The error is ErrTooSmall if not.
func (m *MBR) Fit(diskSize int64, sectorSize int) error {
	for _, p := range m.Partitions() {
		if n := uint64(diskSize) / uint64(sectorSize); p.First+p.Count > n {
			return fmt.Errorf("%w: it has %d sectors of %d bytes, partition %d ends at %d", ErrTooSmall, n, sectorSize, p.Number, p.First+p.Count)
		}
	}
	return nil
}

// Add puts a partition of size bytes, rounded up to sectors, as far to the end of the disk as it goes, aligned to 1 MiB and
// below the sector 2^32 that the record can name. Without room or a free entry the error is ErrNoSpace.
func (m *MBR) Add(size, diskSize int64, sectorSize int) (MBRPartition, error) {
	free := -1
	var used []span
	for i := range 4 {
		if m.entry(i)[4] == 0 && free < 0 {
			free = i
		}
	}
	for _, p := range m.Partitions() {
		used = append(used, span{p.First, p.First + p.Count})
	}
	if free < 0 {
		return MBRPartition{}, fmt.Errorf("%w: all 4 primary entries are in use", ErrNoSpace)
	}
	slices.SortFunc(used, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	n := sectors(size, sectorSize)
	usable := span{align / uint64(sectorSize), min(uint64(diskSize)/uint64(sectorSize), math.MaxUint32)}
	first, ok := lastGap(used, usable, n, sectorSize)
	if !ok {
		return MBRPartition{}, fmt.Errorf("%w: nowhere are %d bytes free", ErrNoSpace, size)
	}
	p := MBRPartition{Number: free + 1, Type: typeFAT32LBA, First: first, Count: n}
	return p, m.Put(p)
}

// WriteHead puts the four entries into head, the first bytes of the disk. All other bytes of head stay.
func (m *MBR) WriteHead(head []byte) {
	copy(head[446:510], m.sector[446:510])
}

func (m *MBR) entry(i int) []byte { return m.sector[446+16*i:][:16] }
