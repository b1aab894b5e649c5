// SPDX-License-Identifier: Apache-2.0

package qcow2

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// maxRuns bounds the memory that a map takes: 16 bytes each. An image has one for each part that does not follow the one before both on the disk and in
// the file, and one for each packed cluster: 2^21 are 128 GiB in packed clusters of 64 KiB.
const maxRuns = 1 << 21

// Map says where in the file the parts of the disk are. What it does not have is zero.
type Map struct {
	h    Header
	runs []run
}

// run is a part of the disk that is in the file: count units from the unit at, in the file from the offset where on; or a packed
// cluster.
type run struct {
	where uint64 // offset; of a packed cluster its descriptor with packedBit
	at    uint32
	count uint32
}

const (
	packedBit  = 1 << 62            // in an L2 entry
	offsetMask = 0x00fffffffffffe00 // in L1 and L2 entries
	zeroBit    = 1                  // in an L2 entry of version 3 without subclusters
)

// ReadMap reads the tables of an image whose header h is. readAt reads exactly len(p) bytes of the file; it is called in the order of
// the file except for the L1 table, which comes first. fileSize is the length of the file in bytes, -1 if it is not known.
func (h Header) ReadMap(readAt func(p []byte, off int64) error, fileSize int64) (*Map, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	inFile := func(off, n int64) bool { return off >= 0 && (fileSize < 0 || off <= fileSize-n) }

	// 1. The L1 table, which says where the L2 tables are.
	if !inFile(h.l1, h.l1Length*8) {
		return nil, bad("its L1 table at %d ends behind the end of the file, which has %d bytes", h.l1, fileSize)
	}
	type table struct{ off, index int64 }
	var tables []table
	buf := make([]byte, 64<<10)
	for first := int64(0); first < h.l1Length; {
		b := buf[:min(int64(len(buf)), (h.l1Length-first)*8)]
		if err := readAt(b, h.l1+first*8); err != nil {
			return nil, fmt.Errorf("read L1 table of qcow2 image: %w", err)
		}
		for i := range int64(len(b) / 8) {
			off := int64(binary.BigEndian.Uint64(b[i*8:]) & offsetMask)
			if off == 0 {
				continue
			}
			if off%h.ClusterSize != 0 || !inFile(off, h.ClusterSize) {
				return nil, bad("its L2 table %d at %d is not at a cluster of the file", first+i, off)
			}
			tables = append(tables, table{off, first + i})
		}
		first += int64(len(b) / 8)
	}
	slices.SortFunc(tables, func(a, b table) int { return cmp.Compare(a.off, b.off) })

	// 2. The L2 tables.
	m := &Map{h: h}
	buf = make([]byte, h.ClusterSize)
	for i, t := range tables {
		if i > 0 && t.off == tables[i-1].off {
			return nil, bad("its L2 tables %d and %d are the same", tables[i-1].index, t.index)
		}
		if err := readAt(buf, t.off); err != nil {
			return nil, fmt.Errorf("read L2 table of qcow2 image: %w", err)
		}
		first := t.index * h.perTable()
		for c := range min(h.perTable(), h.clusters()-first) {
			if err := m.cluster(first+c, buf[c*h.entrySize():][:h.entrySize()], inFile); err != nil {
				return nil, bad("cluster %d: %v", first+c, err)
			}
		}
		if len(m.runs) > maxRuns {
			return nil, bad("it is in more than %d pieces; make it anew with: qemu-img convert -O qcow2", maxRuns)
		}
	}

	// 3. No byte of the file is in two places, but that packed clusters may share sectors.
	m.sortByFile()
	end := int64(0)
	for _, r := range m.runs {
		off := m.offset(r)
		if r.where&packedBit == 0 {
			if off < end {
				return nil, bad("the cluster at %d of the file is used twice", off)
			}
			end = off + m.inFile(r)
		}
	}
	return m, nil
}

// cluster takes the L2 entry of one cluster of the disk.
func (m *Map) cluster(index int64, entry []byte, inFile func(off, n int64) bool) error {
	h := m.h
	e := binary.BigEndian.Uint64(entry)
	if e&packedBit != 0 {
		off, n := h.packed(e)
		if h.Extended && binary.BigEndian.Uint64(entry[8:]) != 0 {
			return fmt.Errorf("it is packed and has subclusters")
		}
		if off < h.ClusterSize || !inFile(off, 1) {
			return fmt.Errorf("its %d bytes at %d are not in the file", n, off)
		}
		units := h.ClusterSize / h.unit()
		return m.add(run{e & (1<<63 - 1), uint32(index * units), uint32(units)})
	}
	off := e & offsetMask
	if off%uint64(h.ClusterSize) != 0 {
		return fmt.Errorf("its offset %d in the file is not that of a cluster", off)
	}
	if !h.Extended {
		if off == 0 || h.Version >= 3 && e&zeroBit != 0 {
			return nil
		}
		return m.place(off, uint32(index), 1, inFile)
	}
	bitmap := binary.BigEndian.Uint64(entry[8:])
	used, zero := uint32(bitmap), uint32(bitmap>>32)
	switch {
	case used&zero != 0:
		return fmt.Errorf("subclusters are both used and zero (%#x)", bitmap)
	case used != 0 && off == 0:
		return fmt.Errorf("subclusters are used and have no place in the file")
	}
	for i := uint32(0); i < 32; {
		n := uint32(1)
		if used&(1<<i) != 0 {
			for i+n < 32 && used&(1<<(i+n)) != 0 {
				n++
			}
			if err := m.place(off+uint64(i)*uint64(h.unit()), uint32(index*32)+i, n, inFile); err != nil {
				return err
			}
		}
		i += n
	}
	return nil
}

// place adds count units from the unit at, which are in the file from off on.
func (m *Map) place(off uint64, at, count uint32, inFile func(off, n int64) bool) error {
	unit := m.h.unit()
	if over := m.h.Size - int64(at)*unit; over <= 0 {
		return nil // subclusters behind the end of the disk
	}
	n := min(int64(count)*unit, m.h.Size-int64(at)*unit)
	if int64(off) < m.h.ClusterSize || !inFile(int64(off), n) {
		return fmt.Errorf("its %d bytes at %d are not in the file", n, off)
	}
	return m.add(run{off, at, count})
}

// add appends r, or lengthens the run before if it goes on there.
func (m *Map) add(r run) error {
	if len(m.runs) > 0 && r.where&packedBit == 0 {
		last := &m.runs[len(m.runs)-1]
		if last.where&packedBit == 0 && last.at+last.count == r.at && last.where+uint64(last.count)*uint64(m.h.unit()) == r.where {
			last.count += r.count
			return nil
		}
	}
	if len(m.runs) <= maxRuns {
		m.runs = append(m.runs, r)
	}
	return nil
}

// packed returns where a packed cluster is, and how many bytes it may take: whole sectors, of which the last may belong to the next one.
func (h Header) packed(e uint64) (off, n int64) {
	shift := 62
	for c := h.ClusterSize; c > 256; c >>= 1 {
		shift--
	}
	off = int64(e & (1<<shift - 1))
	sectors := int64(e&(packedBit-1)>>shift) + 1
	return off, sectors*512 - off%512
}

func (m *Map) offset(r run) int64 {
	if r.where&packedBit != 0 {
		off, _ := m.h.packed(r.where)
		return off
	}
	return int64(r.where)
}

// onDisk is what a run is on the disk, in bytes, cut at its end.
func (m *Map) onDisk(r run) (at, n int64) {
	at = int64(r.at) * m.h.unit()
	return at, min(int64(r.count)*m.h.unit(), m.h.Size-at)
}

// inFile is how many bytes of the file a run takes that is not packed.
func (m *Map) inFile(r run) int64 {
	_, n := m.onDisk(r)
	return n
}

func (m *Map) sortByFile() {
	slices.SortFunc(m.runs, func(a, b run) int { return cmp.Compare(m.offset(a), m.offset(b)) })
}

func (m *Map) sortByDisk() {
	slices.SortFunc(m.runs, func(a, b run) int { return cmp.Compare(a.at, b.at) })
}

// Bytes is how many bytes of the disk are in the file; the others are zero.
func (m *Map) Bytes() (n int64) {
	for _, r := range m.runs {
		_, length := m.onDisk(r)
		n += length
	}
	return n
}
