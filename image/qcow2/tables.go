// SPDX-License-Identifier: Apache-2.0

package qcow2

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"sync"
)

const (
	// maxItems bounds the memory that tables take which are known and not yet read past: 16 bytes each. An image has one for each part that does not
	// follow the one before both on the disk and in the file, for each packed cluster and for each hole: 2^21 are 128 GiB in packed clusters of 64 KiB.
	maxItems = 1 << 21
	// maxTables bounds the memory for the sums of tables that were read ahead.
	maxTables = 1 << 18
	// maxRequests is how many parts of the file ReadAhead asks for; each may take a round trip.
	maxRequests = 4096
	requests    = 8         // at a time
	requestSize = 256 << 10 // of one for several tables, bytes
	requestGap  = 64 << 10  // between two of them, bytes

	packedBit  = 1 << 62            // in an L2 entry
	offsetMask = 0x00fffffffffffe00 // in L1 and L2 entries
	zeroBit    = 1                  // in an L2 entry of version 3 without subclusters

	l1Index = 1<<32 - 1 // in place of an L2 table's index
)

// item is something at a place in the file: count units of the disk from the unit at on; or, with packedBit, a packed cluster; or, if count is 0, the L2
// table with the index at, or the L1 table.
type item struct {
	where uint64 // offset; of a packed cluster its entry in the L2 table
	at    uint32
	count uint32
}

// hole is a part of the disk that is not in the file, in units.
type hole struct{ at, count uint32 }

// items is a heap: the first is the one that comes first in the file.
type items struct {
	all []item
	h   *Header
}

func (s *items) offset(i item) int64 {
	if i.where&packedBit != 0 {
		off, _ := s.h.packed(i.where)
		return off
	}
	return int64(i.where)
}

func (s *items) less(i, j int) bool { return s.offset(s.all[i]) < s.offset(s.all[j]) }

func (s *items) push(i item) {
	s.all = append(s.all, i)
	for c := len(s.all) - 1; c > 0; {
		parent := (c - 1) / 2
		if !s.less(c, parent) {
			break
		}
		s.all[c], s.all[parent] = s.all[parent], s.all[c]
		c = parent
	}
}

func (s *items) pop() item {
	first, last := s.all[0], len(s.all)-1
	s.all[0] = s.all[last]
	s.all = s.all[:last]
	for p := 0; ; {
		c := 2*p + 1
		if c+1 < last && s.less(c+1, c) {
			c++
		}
		if c >= last || !s.less(c, p) {
			return first
		}
		s.all[p], s.all[c] = s.all[c], s.all[p]
		p = c
	}
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// l1Entries takes some entries of the L1 table, from the one with the index first on.
func (q *Reader) l1Entries(first int64, b []byte) error {
	for ; len(b) > 0; b = b[8:] {
		off := int64(binary.BigEndian.Uint64(b) & offsetMask)
		clusters := min(q.h.perTable(), q.h.clusters()-first*q.h.perTable())
		switch {
		case off == 0:
			if err := q.addHole(first*q.h.perTable()*q.h.units(), clusters*q.h.units()); err != nil {
				return err
			}
		case off%q.h.ClusterSize != 0 || !q.holds(off, q.h.ClusterSize):
			return bad("its L2 table %d at %d is not at a cluster of the file", first, off)
		default:
			if q.tables++; q.tables > maxTables {
				return bad("it has more than %d tables; make it anew with larger clusters: qemu-img convert -O qcow2", maxTables)
			}
			if err := q.add(item{uint64(off), uint32(first), 0}); err != nil {
				return err
			}
		}
		first++
	}
	return nil
}

// l2Table takes an L2 table.
func (q *Reader) l2Table(index int64, b []byte) error {
	first := index * q.h.perTable()
	for c := range min(q.h.perTable(), q.h.clusters()-first) {
		if err := q.l2Entry(first+c, b[c*q.h.entrySize():][:q.h.entrySize()]); err != nil {
			return bad("cluster %d: %v", first+c, err)
		}
	}
	return q.endRun()
}

// l2Entry takes the L2 entry of one cluster of the disk.
func (q *Reader) l2Entry(index int64, entry []byte) error {
	h := &q.h
	e, units := binary.BigEndian.Uint64(entry), h.units()
	if e&packedBit != 0 {
		off, n := h.packed(e)
		if h.Extended && binary.BigEndian.Uint64(entry[8:]) != 0 {
			return errors.New("it is packed and has subclusters")
		}
		if off < h.ClusterSize || !q.holds(off, 1) {
			return fmt.Errorf("its %d bytes at %d are not in the file", n, off)
		}
		if err := q.endRun(); err != nil {
			return err
		}
		return q.add(item{e & (1<<63 - 1), uint32(index * units), uint32(units)})
	}
	off := e & offsetMask
	if off%uint64(h.ClusterSize) != 0 {
		return fmt.Errorf("its offset %d in the file is not that of a cluster", off)
	}
	if !h.Extended {
		if off == 0 || h.Version >= 3 && e&zeroBit != 0 {
			return q.addHole(index, 1)
		}
		return q.place(off, index, 1)
	}
	bitmap := binary.BigEndian.Uint64(entry[8:])
	used, zero := uint32(bitmap), uint32(bitmap>>32)
	switch {
	case used&zero != 0:
		return fmt.Errorf("subclusters are both used and zero (%#x)", bitmap)
	case used != 0 && off == 0:
		return errors.New("subclusters are used and have no place in the file")
	}
	for i := int64(0); i < 32; {
		kind, n := used>>i&1, int64(1)
		for i+n < 32 && used>>(i+n)&1 == kind {
			n++
		}
		var err error
		if kind == 1 {
			err = q.place(off+uint64(i*h.unit()), index*32+i, n)
		} else {
			err = q.addHole(index*32+i, n)
		}
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// holds tells whether n bytes at off are in the file, as far as that is known.
func (q *Reader) holds(off, n int64) bool {
	return off >= 0 && (q.fileSize < 0 || off <= q.fileSize-n)
}

// place adds count units from the unit at, which are in the file from off on. They are held in q.run first, which the next ones may make longer.
func (q *Reader) place(off uint64, at, count int64) error {
	unit := q.h.unit()
	left := q.h.Size - at*unit
	if left <= 0 {
		return nil // subclusters behind the end of the disk
	}
	if n := min(count*unit, left); int64(off) < q.h.ClusterSize || !q.holds(int64(off), n) {
		return fmt.Errorf("its %d bytes at %d are not in the file", n, off)
	}
	if r := &q.run; r.count > 0 && int64(r.at)+int64(r.count) == at && r.where+uint64(r.count)*uint64(unit) == off {
		r.count += uint32(count)
		return nil
	}
	if err := q.endRun(); err != nil {
		return err
	}
	q.run = item{off, uint32(at), uint32(count)}
	return nil
}

func (q *Reader) endRun() error {
	r := q.run
	if q.run = (item{}); r.count == 0 {
		return nil
	}
	return q.add(r)
}

func (q *Reader) add(i item) error {
	if len(q.items.all)+len(q.holes) >= maxItems {
		return bad("it is in more than %d pieces; make it anew: qemu-img convert -O qcow2", maxItems)
	}
	q.items.push(i)
	return nil
}

// addHole adds units of the disk that are zero, cut at its end.
func (q *Reader) addHole(at, count int64) error {
	count = min(count, (q.h.Size+q.h.unit()-1)/q.h.unit()-at)
	if count <= 0 {
		return nil
	}
	if n := len(q.holes); n > 0 && int64(q.holes[n-1].at)+int64(q.holes[n-1].count) == at {
		q.holes[n-1].count += uint32(count)
		return nil
	}
	if len(q.items.all)+len(q.holes) >= maxItems {
		return bad("it is in more than %d pieces; make it anew: qemu-img convert -O qcow2", maxItems)
	}
	q.holes = append(q.holes, hole{uint32(at), uint32(count)})
	return nil
}

// ErrScattered says that there are too many tables to read them ahead.
var ErrScattered = errors.New("the tables of the qcow2 image are in too many places to be read ahead")

// ReadAhead reads all tables before the first call of Next, so that parts of the disk may come in the file before the tables that place them, and so that what is
// wrong with the tables is known before. [Reader.Next] compares them with what is in the file. fileSize is the length of the file in bytes, -1 if it is not known.
// readAt reads len(p) bytes of the file or returns an error; several goroutines call it at a time. After ErrScattered the reader is as before.
func (q *Reader) ReadAhead(readAt func(p []byte, off int64) (int, error), fileSize int64) error {
	q.fileSize = fileSize
	n := q.h.l1Length * 8
	if !q.holds(q.h.l1, n) {
		return bad("its L1 table at %d ends behind the end of the file, which has %d bytes", q.h.l1, fileSize)
	}

	// 1. The L1 table, which says where the L2 tables are.
	fresh := *q
	q.items.all = make([]item, 0, min(maxItems, q.h.clusters()+q.h.l1Length+1)) // memory that is not touched is not used
	sum := q.newSum()
	buf := make([]byte, min(l1Piece, n))
	for first := int64(0); first < q.h.l1Length; {
		b := buf[:min(int64(len(buf)), (q.h.l1Length-first)*8)]
		if _, err := readAt(b, q.h.l1+first*8); err != nil {
			return fmt.Errorf("read L1 table of qcow2 image: %w", short(err))
		}
		sum.Write(b) // never returns an error
		if err := q.l1Entries(first, b); err != nil {
			return err
		}
		first += int64(len(b) / 8)
	}

	// 2. The L2 tables, those that are close to one another in one go.
	tables := slices.Clone(q.items.all)
	slices.SortFunc(tables, func(a, b item) int { return cmp.Compare(a.where, b.where) })
	groups := q.h.group(tables)
	if len(groups) > maxRequests {
		*q = fresh
		return ErrScattered
	}
	q.sums = map[uint32]uint64{l1Index: sum.Sum64()}
	if err := q.add(item{uint64(q.h.l1), l1Index, 0}); err != nil {
		return err
	}
	for some := range slices.Chunk(groups, requests) {
		if err := q.readTables(some, readAt); err != nil {
			return err
		}
	}
	slices.SortFunc(q.items.all, func(a, b item) int { return cmp.Compare(q.items.offset(a), q.items.offset(b)) }) // which is a heap, too
	return nil
}

// group puts tables together, in the order of the file, that one request reads.
func (h *Header) group(tables []item) (groups [][]item) {
	first := 0
	for i := range tables {
		if i+1 == len(tables) || int64(tables[i+1].where-tables[i].where)-h.ClusterSize > requestGap ||
			int64(tables[i+1].where-tables[first].where)+h.ClusterSize > requestSize {
			groups = append(groups, tables[first:i+1])
			first = i + 1
		}
	}
	return groups
}

// readTables reads a few groups of tables side by side.
func (q *Reader) readTables(groups [][]item, readAt func(p []byte, off int64) (int, error)) error {
	read, errs := make([][]byte, len(groups)), make([]error, len(groups))
	var reading sync.WaitGroup
	for i, g := range groups {
		from := int64(g[0].where)
		read[i] = make([]byte, int64(g[len(g)-1].where)-from+q.h.ClusterSize)
		reading.Go(func() { _, errs[i] = readAt(read[i], from) })
	}
	reading.Wait()
	for i, g := range groups {
		if errs[i] != nil {
			return fmt.Errorf("read L2 tables of qcow2 image: %w", short(errs[i]))
		}
		for k, t := range g {
			if k > 0 && t.where == g[k-1].where {
				return bad("its L2 tables %d and %d are the same", g[k-1].at, t.at)
			}
			b := read[i][t.where-g[0].where:][:q.h.ClusterSize]
			q.sums[t.at] = maphash.Bytes(q.seed, b)
			if err := q.l2Table(int64(t.at), b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *Reader) newSum() *maphash.Hash {
	var h maphash.Hash
	h.SetSeed(q.seed)
	return &h
}

// l1Piece is how much of the L1 table is read at a time, in bytes.
const l1Piece = 64 << 10

// table reads the table t, at which the file is. If it was read ahead it must be the same.
func (q *Reader) table(t item) error {
	sum, total, piece := q.newSum(), q.h.ClusterSize, q.h.ClusterSize
	if t.at == l1Index {
		total, piece = q.h.l1Length*8, l1Piece
	}
	buf := make([]byte, min(piece, total))
	for done := int64(0); done < total; {
		b := buf[:min(piece, total-done)]
		n, err := io.ReadFull(q.in, b)
		if q.pos += int64(n); err != nil {
			return short(err)
		}
		switch {
		case q.sums != nil:
			sum.Write(b) // never returns an error
		case t.at == l1Index:
			err = q.l1Entries(done/8, b)
		default:
			err = q.l2Table(int64(t.at), b)
		}
		if err != nil {
			return err
		}
		done += int64(len(b))
	}
	if q.sums != nil && sum.Sum64() != q.sums[t.at] {
		return bad("its table at %d of the file is not as it was when it was read ahead", t.where)
	}
	return nil
}

// Start returns the first n bytes of the disk, as far as it has so many. It is for after ReadAhead and before Next; readAt is as there.
func (q *Reader) Start(readAt func(p []byte, off int64) (int, error), n int64) ([]byte, error) {
	start := make([]byte, min(n, q.h.Size))
	for _, i := range q.items.all {
		at, length := q.onDisk(i)
		if i.count == 0 || at >= int64(len(start)) {
			continue
		}
		b := start[at:min(at+length, int64(len(start)))]
		off := q.items.offset(i)
		if i.where&packedBit == 0 {
			if _, err := readAt(b, off); err != nil {
				return nil, short(err)
			}
			continue
		}
		_, size := q.h.packed(i.where)
		if q.fileSize >= 0 {
			size = min(size, q.fileSize-off) // the file may end before its last sector does
		}
		s := &slot{run: i, packed: make([]byte, size), out: make([]byte, q.h.ClusterSize)}
		if _, err := readAt(s.packed, off); err != nil {
			return nil, short(err)
		}
		err := s.unpack(q.h.Compression)
		s.close()
		if err != nil {
			return nil, q.broken(s, err)
		}
		copy(b, s.out)
	}
	return start, nil
}
