// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

const (
	newEntries   = 128 // of a table that New makes
	newEntrySize = 128 // bytes
)

// New makes a table without partitions for a disk of diskSize bytes with sectors of sectorSize bytes (512 or 4096).
func New(diskSize int64, sectorSize int) (*Table, error) {
	if sectorSize != 512 && sectorSize != 4096 {
		return nil, fmt.Errorf("make GPT: sectors of %d bytes", sectorSize)
	}
	t := &Table{sectorSize: sectorSize, header: make([]byte, sectorSize), entries: make([]byte, newEntries*newEntrySize), entrySize: newEntrySize}
	id, err := RandomGUID().Encode()
	if err != nil {
		return nil, err
	}
	copy(t.header, signature)
	copy(t.header[atDiskGUID:], id[:])
	t.put32(atRevision, 1<<16)
	t.put32(atHeaderSize, headerSize)
	t.put64(atMyLBA, 1)
	t.put64(atFirstUsable, 2+sectors(reserved, sectorSize))
	t.put64(atEntriesLBA, 2)
	t.put32(atEntriesNumber, newEntries)
	t.put32(atEntrySize, newEntrySize)
	if err := t.Fit(diskSize); err != nil {
		return nil, fmt.Errorf("make GPT: %w", err)
	}
	return t, nil
}

// Put puts a partition into the entry of its number. It gets a random GUID if it has none. A partition that cannot be there, or an entry in use,
// is an error, and nothing changes.
func (t *Table) Put(p Partition) error {
	at := (p.Number - 1) * t.entrySize
	if p.Number < 1 || at+t.entrySize > len(t.entries) {
		return fmt.Errorf("%w: the table has no entry %d", ErrNoSpace, p.Number)
	}
	if slices.ContainsFunc(t.Partitions(), func(o Partition) bool { return o.Number == p.Number }) {
		return fmt.Errorf("%w: entry %d is in use", ErrNoSpace, p.Number)
	}
	if p.ID == "" {
		p.ID = RandomGUID()
	}
	entry := t.entries[at:][:t.entrySize]
	if err := p.encode(entry); err != nil {
		return err
	}
	if err := t.checkPartitions(); err != nil {
		clear(entry)
		return err
	}
	return nil
}

// Head gives the bytes of a table that New made, from the start of the disk: the protective MBR, the header and the entries.
func (t *Table) Head() []byte {
	head := make([]byte, int(t.u64(atFirstUsable))*t.sectorSize)
	e := head[446:]
	copy(e[1:], []byte{0x00, 0x02, 0x00}) // cylinders, heads and sectors of sector 1: UEFI 2.10 table 5.4
	e[4] = typeProtective
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], 1)
	head[510], head[511] = 0x55, 0xaa
	t.WriteHead(head)
	return head
}

// NewMBR makes a record without partitions.
func NewMBR(signature uint32) *MBR {
	m := &MBR{}
	binary.LittleEndian.PutUint32(m.sector[440:], signature)
	m.sector[510], m.sector[511] = 0x55, 0xaa
	return m
}

// Put puts a partition into the entry of its number, which must be free, and the partition must overlap no other one.
func (m *MBR) Put(p MBRPartition) error {
	if p.Number < 1 || p.Number > 4 {
		return fmt.Errorf("%w: an MBR has 4 primary entries, and no entry %d", ErrNoSpace, p.Number)
	}
	if p.First == 0 || p.Count == 0 || p.First > math.MaxUint32 || p.Count > math.MaxUint32 {
		return fmt.Errorf("%w: %d sectors from %d on cannot be named in an MBR", ErrNoSpace, p.Count, p.First)
	}
	for _, o := range m.Partitions() {
		if o.Number == p.Number || p.First < o.First+o.Count && o.First < p.First+p.Count {
			return fmt.Errorf("%w: partitions %d and %d overlap", ErrNoSpace, o.Number, p.Number)
		}
	}
	e := m.entry(p.Number - 1)
	clear(e)
	if p.Active {
		e[0] = 0x80
	}
	copy(e[1:], []byte{0xfe, 0xff, 0xff}) // cylinders, heads and sectors that nobody counts in any more
	e[4] = p.Type
	copy(e[5:], []byte{0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], uint32(p.First))
	binary.LittleEndian.PutUint32(e[12:], uint32(p.Count))
	return nil
}

// Bytes gives the whole record, as it is at the start of a disk.
func (m *MBR) Bytes() []byte { return bytes.Clone(m.sector[:]) }

// LastUsable is the last sector that a partition may have.
func (t *Table) LastUsable() int64 { return int64(t.u64(atLastUsable)) }
