// SPDX-License-Identifier: Apache-2.0

package qcow2

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// Part is a part of the disk: bytes, or a hole, which reads as zeros.
type Part struct {
	Offset, Length int64 // bytes
	Hole           bool
}

// Reader reads an image from its first byte on, part by part, used as archive/tar is. The holes come first, in the order of the disk, then the bytes, in the
// order of the file. Together they are the whole disk, each byte once. Packed clusters are unpacked a few ahead, side by side.
type Reader struct {
	m     *Map
	in    *bufio.Reader
	pos   int64 // in the file, of the next byte of in
	data  bool  // the holes are done
	hole  int64 // on the disk, where the next hole may begin
	next  int   // of m.runs
	ahead []*slot
	idle  []*slot
	rest  io.Reader // of the present part
}

// slotMemory bounds what the packed clusters take that are unpacked at the same time, in bytes. Each may take three times its size.
const slotMemory = 16 << 20

// slot is a packed cluster on its way.
type slot struct {
	run    run
	packed []byte
	out    []byte
	err    error
	done   chan struct{} // closed when out and err are there

	deflate io.ReadCloser
	zstd    *zstd.Decoder
}

// NewReader reads the parts that m says from r, which is the file from its first byte. The map belongs to the reader from then on. Close must be called.
func NewReader(r io.Reader, m *Map) *Reader {
	c := m.h.ClusterSize
	m.sortByDisk()
	q := &Reader{m: m, in: bufio.NewReaderSize(r, int(max(64<<10, 2*c)))}
	for range max(1, min(runtime.GOMAXPROCS(0), slotMemory/int(3*c))) {
		q.idle = append(q.idle, &slot{out: make([]byte, c)})
	}
	return q
}

// Size is the length of the disk in bytes.
func (q *Reader) Size() int64 { return q.m.h.Size }

// Next goes to the next part; io.EOF after the last. What was not read of the part before is skipped.
func (q *Reader) Next() (Part, error) {
	q.rest = nil
	for !q.data {
		if q.next == len(q.m.runs) {
			q.data, q.next = true, 0
			q.m.sortByFile()
			if at := q.hole; at < q.m.h.Size {
				return Part{at, q.m.h.Size - at, true}, nil
			}
			break
		}
		from := q.hole
		at, n := q.m.onDisk(q.m.runs[q.next])
		q.hole = at + n
		q.next++
		if at > from {
			return Part{from, at - from, true}, nil
		}
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
			return Part{}, fmt.Errorf("%w: packed cluster at %d of the file: %w", ErrFormat, q.m.offset(s.run), s.err)
		}
		at, n := q.m.onDisk(s.run)
		q.rest = bytes.NewReader(s.out[:n])
		return Part{Offset: at, Length: n}, nil
	}
	if q.next == len(q.m.runs) {
		return Part{}, io.EOF
	}
	r := q.m.runs[q.next]
	q.next++
	if err := q.skipTo(q.m.offset(r)); err != nil {
		return Part{}, err
	}
	at, n := q.m.onDisk(r)
	q.rest = &exactly{q, n}
	return Part{Offset: at, Length: n}, nil
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
		if s.zstd != nil {
			s.zstd.Close()
		}
	}
	q.ahead, q.idle, q.rest = nil, nil, nil
	return nil
}

// unpackAhead begins to unpack the packed clusters that follow, as far as there are slots.
func (q *Reader) unpackAhead() error {
	for len(q.idle) > 0 && q.next < len(q.m.runs) && q.m.runs[q.next].where&packedBit != 0 {
		r := q.m.runs[q.next]
		off, n := q.m.h.packed(r.where)
		if err := q.skipTo(off); err != nil {
			return err
		}
		packed, err := q.in.Peek(int(n)) // its last sector may be the first of the next one
		if err != nil && err != io.EOF { // the file may end before its last sector does
			return err
		}
		q.next++
		s := q.idle[0]
		q.idle = q.idle[1:]
		s.run, s.packed, s.done = r, append(s.packed[:0], packed...), make(chan struct{})
		q.ahead = append(q.ahead, s)
		go func() {
			defer close(s.done)
			s.err = s.unpack(q.m.h.Compression)
		}()
	}
	return nil
}

func (q *Reader) skipTo(off int64) error {
	if off < q.pos { // the map has made sure that it is not
		return fmt.Errorf("%w: the cluster at %d of the file is needed after the one at %d", ErrFormat, off, q.pos)
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
	var r io.Reader
	in := bytes.NewReader(s.packed)
	switch {
	case c == Zstd && s.zstd == nil:
		s.zstd, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(8<<20))
		r = s.zstd
	case c == Zstd:
		err = s.zstd.Reset(in)
		r = s.zstd
	case s.deflate == nil:
		s.deflate = flate.NewReader(in)
		r = s.deflate
	default:
		err = s.deflate.(flate.Resetter).Reset(in, nil)
		r = s.deflate
	}
	if err == nil {
		_, err = io.ReadFull(r, s.out)
	}
	return short(err)
}
