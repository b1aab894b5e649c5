// SPDX-License-Identifier: Apache-2.0

package qcow2

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/maphash"
	"io"
	"runtime"

	"github.com/ironhand/ironhand/stream/inflate"
	"github.com/klauspost/compress/zstd"
)

// Part is a part of the disk: bytes, or a hole, which reads as zeros.
type Part struct {
	Offset, Length int64 // bytes
	Hole           bool
}

// Reader reads an image from its first byte on, part by part, used as archive/tar is. The parts come in the order of the file, holes when the table is read that
// has them. Together they are the whole disk, each byte once. Packed clusters are unpacked a few ahead, side by side.
//
// Unless ReadAhead was called, an image is refused of which a part comes before the table that places it. qemu-img convert makes such images with -W, with
// preallocation=full, and of small clusters of which few are between two tables: packed ones of 512 bytes.
type Reader struct {
	h        Header
	fileSize int64 // -1 if not known
	in       *bufio.Reader
	pos      int64 // in the file, of the next byte of in
	items    items
	holes    []hole
	run      item              // the last data of the present L2 table, which may grow; none if count is 0
	tables   int               // L2 tables that the L1 table has named
	sums     map[uint32]uint64 // of tables that were read ahead; nil if none were
	seed     maphash.Seed
	// If tables are not read ahead: see remember.
	packedEnd int64 // where the packed cluster before ends in the file, 0 if what came before is none
	past      []byte
	pastAt    int64 // in the file

	ahead []*slot
	idle  []*slot
	rest  io.Reader // of the present part
}

// slotMemory bounds what the packed clusters take that are unpacked at the same time, in bytes. Each may take three times its size.
const slotMemory = 16 << 20

// mostSlots is how many of them there are at the most: the hash of the file cannot keep up with more.
const mostSlots = 12

// slot is a packed cluster on its way.
type slot struct {
	run    item
	packed []byte
	out    []byte
	err    error
	done   chan struct{} // closed when out and err are there

	deflate inflate.Decoder
	zstd    *zstd.Decoder
}

// NewReader reads the header of an image from r, which is the file from its first byte. Close must be called if there is no error.
func NewReader(r io.Reader) (*Reader, error) {
	head := make([]byte, HeadSize)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	head = head[:n]
	h, err := ParseHeader(head)
	if err != nil {
		return nil, err
	}
	c := h.ClusterSize
	q := &Reader{h: h, fileSize: -1, in: bufio.NewReaderSize(io.MultiReader(bytes.NewReader(head), r), int(max(64<<10, 3*c))), seed: maphash.MakeSeed()}
	q.items.h = &q.h
	for range max(1, min(2*runtime.GOMAXPROCS(0), mostSlots, slotMemory/int(3*c))) {
		q.idle = append(q.idle, &slot{})
	}
	return q, nil
}

// Header is what the image says of itself.
func (q *Reader) Header() Header { return q.h }

// Size is the length of the disk in bytes.
func (q *Reader) Size() int64 { return q.h.Size }

// Next goes to the next part; io.EOF after the last. What was not read of the part before is skipped.
func (q *Reader) Next() (Part, error) {
	q.rest = nil
	if q.pos == 0 && q.sums == nil && q.tables == 0 && len(q.items.all) == 0 && len(q.holes) == 0 {
		if err := q.add(item{uint64(q.h.l1), l1Index, 0}); err != nil {
			return Part{}, err
		}
	}
	for {
		if n := len(q.holes); n > 0 {
			h := q.holes[n-1]
			q.holes = q.holes[:n-1]
			at := int64(h.at) * q.h.unit()
			return Part{at, min(int64(h.count)*q.h.unit(), q.h.Size-at), true}, nil
		}
		if err := q.unpackAhead(); err != nil {
			return Part{}, err
		}
		if len(q.ahead) > 0 {
			s := q.ahead[0]
			q.ahead = q.ahead[1:]
			<-s.done
			q.idle = append(q.idle, s) // its out is read before it is used again: that takes another call of Next
			if s.err != nil {
				return Part{}, q.broken(s, s.err)
			}
			at, n := q.onDisk(s.run)
			q.rest = bytes.NewReader(s.out[:n])
			return Part{Offset: at, Length: n}, nil
		}
		if len(q.items.all) == 0 {
			return Part{}, io.EOF
		}
		i := q.items.pop()
		if err := q.remember(); err != nil {
			return Part{}, err
		}
		if err := q.skipTo(q.items.offset(i)); err != nil {
			return Part{}, err
		}
		if i.count > 0 {
			at, n := q.onDisk(i)
			q.rest = &exactly{q, n}
			return Part{Offset: at, Length: n}, nil
		}
		if err := q.table(i); err != nil {
			return Part{}, err
		}
	}
}

// onDisk is what an item is on the disk, in bytes, cut at its end.
func (q *Reader) onDisk(i item) (at, n int64) {
	at = int64(i.at) * q.h.unit()
	return at, min(int64(i.count)*q.h.unit(), q.h.Size-at)
}

// Read reads the bytes of the present part; io.EOF at its end.
func (q *Reader) Read(p []byte) (int, error) {
	if q.rest == nil {
		return 0, io.EOF
	}
	return q.rest.Read(p)
}

// Close ends what is going on. It does not close the file.
func (q *Reader) Close() error {
	for _, s := range q.ahead {
		<-s.done
	}
	for _, s := range append(q.idle, q.ahead...) {
		s.close()
	}
	q.ahead, q.idle, q.rest = nil, nil, nil
	return nil
}

// unpackAhead begins to unpack the packed clusters that follow, as far as there are slots.
func (q *Reader) unpackAhead() error {
	for len(q.idle) > 0 && len(q.items.all) > 0 && q.items.all[0].where&packedBit != 0 {
		i := q.items.pop()
		packed, err := q.packed(q.h.packed(i.where))
		if err != nil {
			return err
		}
		s := q.idle[0]
		q.idle = q.idle[1:]
		s.run, s.packed, s.done = i, append(s.packed[:0], packed...), make(chan struct{})
		if s.out == nil {
			s.out = make([]byte, q.h.ClusterSize)
		}
		q.ahead = append(q.ahead, s)
		go func() {
			defer close(s.done)
			s.err = s.unpack(q.h.Compression)
		}()
	}
	return nil
}

// packed returns the bytes of a packed cluster.
func (q *Reader) packed(off, n int64) ([]byte, error) {
	if at := off - q.pastAt; off < q.pos && at >= 0 && at < int64(len(q.past)) {
		return q.past[at:min(at+n, int64(len(q.past)))], nil
	}
	if err := q.skipTo(off); err != nil {
		return nil, err
	}
	q.packedEnd = off + n
	b, err := q.in.Peek(int(n)) // its last sector may be the first of the next one
	if err == io.EOF {          // the file may end before its last sector does
		err = nil
	}
	return b, err
}

// remember keeps the rest of the cluster in which the last packed one ends. QEMU puts the next packed one there if it fits, whatever it has written since: it
// may be one that is placed by a table further on (block/qcow2-refcount.c, qcow2_alloc_bytes).
func (q *Reader) remember() error {
	n := q.packedEnd + -q.packedEnd&(q.h.ClusterSize-1) - q.pos
	if q.packedEnd = 0; q.sums != nil || n <= 0 {
		return nil
	}
	b, err := q.in.Peek(int(n))
	if err == io.EOF {
		err = nil
	}
	q.past, q.pastAt = append(q.past[:0], b...), q.pos
	return err
}

func (q *Reader) broken(s *slot, err error) error {
	return fmt.Errorf("%w: packed cluster at %d of the file: %w", ErrFormat, q.items.offset(s.run), err)
}

// skipTo goes on to a place in the file.
func (q *Reader) skipTo(off int64) error {
	switch {
	case off >= q.pos:
	case q.sums != nil:
		return bad("the cluster at %d of the file is used twice", off)
	default:
		return bad("what is at %d of the file comes before the table that places it, or is used twice: it cannot be written in one go through the file; "+
			"publish it unpacked on a server that sends parts of files, or make it anew: qemu-img convert -O qcow2", off)
	}
	for q.pos < off {
		n, err := q.in.Discard(int(min(off-q.pos, 1<<30)))
		q.pos += int64(n)
		if err != nil {
			return short(err)
		}
	}
	return nil
}

// exactly reads the next n bytes of the file.
type exactly struct {
	q *Reader
	n int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.q.in.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	e.q.pos += int64(n)
	if n > 0 {
		return n, nil
	}
	return 0, short(err)
}

func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// unpack unpacks one cluster. What comes after it in its last sector belongs to others.
func (s *slot) unpack(c Compression) (err error) {
	if c == Deflate {
		return s.deflate.Fill(s.out, s.packed)
	}
	in := bytes.NewReader(s.packed)
	if s.zstd == nil {
		s.zstd, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(8<<20))
	} else {
		err = s.zstd.Reset(in)
	}
	if err == nil {
		_, err = io.ReadFull(s.zstd, s.out)
	}
	return short(err)
}

func (s *slot) close() {
	if s.zstd != nil {
		s.zstd.Close()
	}
}
