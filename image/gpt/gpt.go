// SPDX-License-Identifier: Apache-2.0

// Package gpt reads and changes the partition table in the first bytes of a disk image: GPT (UEFI 2.10 section 5.3) and
// MBR (section 5.2).
//
// It works on bytes in memory and touches no disk, because an image's table must be made to fit the disk before its first
// bytes are written there. It refuses what it does not understand wholly: a wrong checksum, entries beyond the bytes at
// hand, partitions that overlap or lie outside the usable area.
package gpt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"unicode/utf16"
)

var (
	// ErrNone says that there is no such partition table.
	ErrNone = errors.New("no partition table")
	// ErrTooSmall says that the partitions do not fit on the disk.
	ErrTooSmall = errors.New("disk is too small")
	// ErrNoSpace says that there is no room, or no free entry, for another partition.
	ErrNoSpace = errors.New("no room for another partition")
)

const (
	signature  = "EFI PART"
	headerSize = 92      // least size of a header, bytes
	align      = 1 << 20 // where new partitions start, bytes
	reserved   = 16384   // least room for the entries, bytes: UEFI 2.10 section 5.3.1
)

// Places in the header: UEFI 2.10 table 5.5.
const (
	atRevision      = 8
	atHeaderSize    = 12
	atHeaderCRC     = 16
	atMyLBA         = 24
	atAlternateLBA  = 32
	atFirstUsable   = 40
	atLastUsable    = 48
	atDiskGUID      = 56
	atEntriesLBA    = 72
	atEntriesNumber = 80
	atEntrySize     = 84
	atEntriesCRC    = 88
)

// Partition is one used entry of a GPT.
type Partition struct {
	Number      int    // from 1
	Type, ID    GUID   // what it is for; its own, unique one
	First, Last uint64 // sectors, both belong to the partition
	Attributes  uint64 // bits as UEFI 2.10 table 5.8 defines them
	Name        string
}

// Table is a GPT. Bytes of the header and of the entries that it does not understand are kept as they are.
type Table struct {
	sectorSize int
	header     []byte // one sector
	entries    []byte
	entrySize  int
}

// Parse reads the primary GPT from the first bytes of a disk with sectors of sectorSize bytes (512 or 4096).
// The error is ErrNone if there is no GPT header at sector 1.
func Parse(head []byte, sectorSize int) (*Table, error) {
	// 1. The header.
	if sectorSize != 512 && sectorSize != 4096 {
		return nil, fmt.Errorf("parse GPT: sectors of %d bytes", sectorSize)
	}
	if len(head) < 2*sectorSize || string(head[sectorSize:sectorSize+len(signature)]) != signature {
		return nil, ErrNone
	}
	t := &Table{sectorSize: sectorSize, header: bytes.Clone(head[sectorSize : 2*sectorSize])}
	if major := t.u32(atRevision) >> 16; major != 1 {
		return nil, fmt.Errorf("parse GPT: revision %d.%d", major, t.u32(atRevision)&0xffff)
	}
	if n := t.u32(atHeaderSize); n < headerSize || n > uint32(sectorSize) {
		return nil, fmt.Errorf("parse GPT: header of %d bytes", n)
	}
	if got, want := t.headerCRC(), t.u32(atHeaderCRC); got != want {
		return nil, fmt.Errorf("parse GPT: header has CRC %08x, says %08x", got, want)
	}
	if n := t.u64(atMyLBA); n != 1 {
		return nil, fmt.Errorf("parse GPT: header at sector 1 says it is at %d", n)
	}

	// 2. The entries.
	size, number, at := t.u32(atEntrySize), t.u32(atEntriesNumber), t.u64(atEntriesLBA)
	if size < 128 || size > 4096 || size&(size-1) != 0 {
		return nil, fmt.Errorf("parse GPT: entries of %d bytes", size)
	}
	length := int64(size) * int64(number)
	if number == 0 || length > int64(len(head)) {
		return nil, fmt.Errorf("parse GPT: %d entries of %d bytes", number, size)
	}
	if at < 2 || at > uint64(len(head)/sectorSize) || int64(at)*int64(sectorSize)+length > int64(len(head)) {
		return nil, fmt.Errorf("parse GPT: %d bytes of entries at sector %d are not in the first %d bytes", length, at, len(head))
	}
	t.entrySize = int(size)
	t.entries = bytes.Clone(head[int(at)*sectorSize:][:length])
	if got, want := crc32.ChecksumIEEE(t.entries), t.u32(atEntriesCRC); got != want {
		return nil, fmt.Errorf("parse GPT: entries have CRC %08x, header says %08x", got, want)
	}

	// 3. What they say.
	first, last := t.u64(atFirstUsable), t.u64(atLastUsable)
	if first < at+sectors(length, sectorSize) || last < first || last > math.MaxInt64/uint64(sectorSize)-1<<16 {
		return nil, fmt.Errorf("parse GPT: usable sectors %d to %d, entries at %d", first, last, at)
	}
	if err := t.checkPartitions(); err != nil {
		return nil, fmt.Errorf("parse GPT: %w", err)
	}
	return t, nil
}

// checkPartitions refuses partitions outside the usable area, and such that overlap.
func (t *Table) checkPartitions() error {
	first, last := t.u64(atFirstUsable), t.u64(atLastUsable)
	var before Partition
	for i, p := range t.byPlace() {
		if p.First > p.Last || p.First < first || p.Last > last {
			return fmt.Errorf("partition %d is at sectors %d to %d, usable are %d to %d", p.Number, p.First, p.Last, first, last)
		}
		if i > 0 && p.First <= before.Last {
			return fmt.Errorf("partitions %d and %d overlap", before.Number, p.Number)
		}
		before = p
	}
	return nil
}

// Partitions lists the used entries in their order.
func (t *Table) Partitions() []Partition {
	var ps []Partition
	for i := range len(t.entries) / t.entrySize {
		e := t.entries[i*t.entrySize:]
		p := Partition{
			Number:     i + 1,
			Type:       DecodeGUID([16]byte(e[0:])),
			ID:         DecodeGUID([16]byte(e[16:])),
			First:      binary.LittleEndian.Uint64(e[32:]),
			Last:       binary.LittleEndian.Uint64(e[40:]),
			Attributes: binary.LittleEndian.Uint64(e[48:]),
			Name:       decodeName(e[56:128]),
		}
		if p.Type != unused {
			ps = append(ps, p)
		}
	}
	return ps
}

// Clone returns a copy that can be changed by itself.
func (t *Table) Clone() *Table {
	c := *t
	c.header, c.entries = bytes.Clone(t.header), bytes.Clone(t.entries)
	return &c
}

// SectorSize is the size of the sectors that the table counts, in bytes.
func (t *Table) SectorSize() int { return t.sectorSize }

// DiskID is the GUID of the disk.
func (t *Table) DiskID() GUID { return DecodeGUID([16]byte(t.header[atDiskGUID:])) }

// Fit makes the table one for a disk of diskSize bytes: the backup comes to the disk's end, and all between it and the last
// partition becomes usable. If a partition does not fit, nothing changes and the error is ErrTooSmall.
func (t *Table) Fit(diskSize int64) error {
	n := uint64(diskSize) / uint64(t.sectorSize)
	behind := sectors(max(int64(len(t.entries)), reserved), t.sectorSize) + 1 // backup entries and header
	end := t.u64(atFirstUsable)
	for _, p := range t.Partitions() {
		end = max(end, p.Last)
	}
	if n <= end+behind {
		return fmt.Errorf("%w: it has %d sectors of %d bytes, the partitions and the backup table need %d",
			ErrTooSmall, n, t.sectorSize, end+behind+1)
	}
	t.put64(atAlternateLBA, n-1)
	t.put64(atLastUsable, n-1-behind)
	return nil
}

// Add puts a partition of size bytes, rounded up to sectors, as far to the end of the disk as it goes, aligned to 1 MiB, into the first free entry.
// It gets a random GUID. Without room or a free entry the error is ErrNoSpace.
func (t *Table) Add(kind GUID, name string, size int64) (Partition, error) {
	ps := t.byPlace()
	entry := 0
	for slices.ContainsFunc(ps, func(p Partition) bool { return p.Number == entry+1 }) {
		entry++
	}
	if (entry+1)*t.entrySize > len(t.entries) {
		return Partition{}, fmt.Errorf("%w: all %d entries are in use", ErrNoSpace, entry)
	}
	used := make([]span, len(ps))
	for i, p := range ps {
		used[i] = span{p.First, p.Last + 1}
	}
	first, ok := lastGap(used, span{t.u64(atFirstUsable), t.u64(atLastUsable) + 1}, sectors(size, t.sectorSize), t.sectorSize)
	if !ok {
		return Partition{}, fmt.Errorf("%w: nowhere are %d bytes free", ErrNoSpace, size)
	}
	p := Partition{Number: entry + 1, Type: kind, ID: RandomGUID(), First: first, Last: first + sectors(size, t.sectorSize) - 1, Name: name}
	return p, p.encode(t.entries[entry*t.entrySize:][:t.entrySize])
}

func (p Partition) encode(e []byte) error {
	kind, err := p.Type.Encode()
	if err != nil {
		return err
	}
	id, err := p.ID.Encode()
	if err != nil {
		return err
	}
	clear(e)
	copy(e[0:], kind[:])
	copy(e[16:], id[:])
	binary.LittleEndian.PutUint64(e[32:], p.First)
	binary.LittleEndian.PutUint64(e[40:], p.Last)
	binary.LittleEndian.PutUint64(e[48:], p.Attributes)
	for i, u := range utf16.Encode([]rune(p.Name)) {
		if i == 36 {
			break
		}
		binary.LittleEndian.PutUint16(e[56+2*i:], u)
	}
	return nil
}

// WriteHead puts the primary header, the entries and the protective MBR's size into head, the first bytes of the disk, which
// must be those that the table was parsed from. All other bytes of head stay.
func (t *Table) WriteHead(head []byte) {
	t.put32(atEntriesCRC, crc32.ChecksumIEEE(t.entries))
	t.put32(atHeaderCRC, t.headerCRC())
	copy(head[t.sectorSize:], t.header)
	copy(head[t.u64(atEntriesLBA)*uint64(t.sectorSize):], t.entries)

	// Section 5.2.3: the protective partition covers the disk, or as much as its field can say. A hybrid MBR is somebody's intention and stays.
	mbr, err := ParseMBR(head)
	if err != nil || !mbr.Protective() {
		return
	}
	for i := range 4 {
		e := head[446+16*i:][:16]
		if e[4] == typeProtective {
			copy(e[5:8], []byte{0xff, 0xff, 0xff})
			start := binary.LittleEndian.Uint32(e[8:])
			binary.LittleEndian.PutUint32(e[12:], uint32(min(t.u64(atAlternateLBA)+1-uint64(start), math.MaxUint32)))
		}
	}
}

// Backup gives the bytes of the backup table, and their place on the disk in bytes. They reach to the disk's end.
func (t *Table) Backup() (b []byte, offset int64) {
	first, end := t.u64(atLastUsable)+1, t.u64(atAlternateLBA)+1
	b = make([]byte, (end-first)*uint64(t.sectorSize))
	copy(b, t.entries)
	h := &Table{sectorSize: t.sectorSize, header: b[len(b)-t.sectorSize:]}
	copy(h.header, t.header)
	h.put64(atMyLBA, end-1)
	h.put64(atAlternateLBA, 1)
	h.put64(atEntriesLBA, first)
	h.put32(atEntriesCRC, crc32.ChecksumIEEE(t.entries))
	h.put32(atHeaderCRC, h.headerCRC())
	return b, int64(first) * int64(t.sectorSize)
}

// headerCRC is the checksum over the header with its own field as zero.
func (t *Table) headerCRC() uint32 {
	h := bytes.Clone(t.header[:t.u32(atHeaderSize)])
	clear(h[atHeaderCRC : atHeaderCRC+4])
	return crc32.ChecksumIEEE(h)
}

func (t *Table) byPlace() []Partition {
	ps := t.Partitions()
	slices.SortFunc(ps, func(a, b Partition) int { return cmp.Compare(a.First, b.First) })
	return ps
}

func (t *Table) u32(at int) uint32        { return binary.LittleEndian.Uint32(t.header[at:]) }
func (t *Table) u64(at int) uint64        { return binary.LittleEndian.Uint64(t.header[at:]) }
func (t *Table) put32(at int, v uint32)   { binary.LittleEndian.PutUint32(t.header[at:], v) }
func (t *Table) put64(at int, v uint64)   { binary.LittleEndian.PutUint64(t.header[at:], v) }
func sectors(n int64, size int) uint64    { return (uint64(n) + uint64(size) - 1) / uint64(size) }
func alignDown(n, multiple uint64) uint64 { return n / multiple * multiple }

func decodeName(b []byte) string {
	var u []uint16
	for i := 0; i+1 < len(b); i += 2 {
		c := binary.LittleEndian.Uint16(b[i:])
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u))
}

// span is a range of sectors: first belongs to it, end does not.
type span struct{ first, end uint64 }

// lastGap finds the highest aligned place for n sectors inside usable that touches nothing in used, which is sorted by first.
func lastGap(used []span, usable span, n uint64, sectorSize int) (first uint64, ok bool) {
	begin := make([]uint64, len(used)+1) // begin[i]: where all of used[:i] have ended
	begin[0] = usable.first
	for i, u := range used {
		begin[i+1] = max(begin[i], u.end)
	}
	end := usable.end
	for i := len(used); i >= 0; i-- {
		if end > begin[i] && end-begin[i] >= n {
			if at := alignDown(end-n, align/uint64(sectorSize)); at >= begin[i] {
				return at, true
			}
		}
		if i > 0 {
			end = min(end, used[i-1].first)
		}
	}
	return 0, false
}
