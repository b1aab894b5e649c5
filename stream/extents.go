// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"fmt"
	"io"
)

// Extent is a part of the disk that an image describes: bytes, or a hole, which reads as zeros.
type Extent struct {
	Offset, Length int64 // bytes
	Hole           bool
}

// Extents is the content of an image, part by part, used as archive/tar is: Next goes to the next part, Read reads the bytes of the
// present one and then returns io.EOF.
type Extents interface {
	// Next returns the next extent, io.EOF after the last. If Size is not known, each begins where the one before it ended, the first at 0. If it is,
	// they may come in any order, each byte once: where one does not follow the one before, both have whole sectors of 512 bytes there. What was not
	// read of a data extent is skipped.
	Next() (Extent, error)
	io.Reader
	// Size is the length of the disk that the image describes, in bytes; -1 if that is not known before the end.
	Size() int64
}

// holeSize is the granularity in which zeros are looked for, in bytes; Write does not treat shorter holes as holes.
const holeSize = 64 << 10

// zeros is what a hole looks like.
var zeros [holeSize]byte

// isZero tells whether all of b, at most holeSize bytes, is zero.
func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// allZero is isZero for any length.
func allZero(b []byte) bool {
	for len(b) > holeSize {
		if !isZero(b[:holeSize]) {
			return false
		}
		b = b[holeSize:]
	}
	return isZero(b)
}

// blocks is a piece of the disk in which holes are looked for.
type blocks struct {
	buf    []byte
	n      int   // bytes in buf
	from   int   // where the next extent begins in buf
	offset int64 // where that is on the disk
	rest   []byte
}

// next cuts off a run of blocks of one kind.
func (b *blocks) next() Extent {
	first := b.block(b.from)
	hole, to := isZero(first), b.from+len(first)
	for to < b.n && isZero(b.block(to)) == hole {
		to += len(b.block(to))
	}
	e := Extent{Offset: b.offset, Length: int64(to - b.from), Hole: hole}
	b.rest = nil
	if !hole {
		b.rest = b.buf[b.from:to]
	}
	b.from = to
	b.offset += e.Length
	return e
}

// block is what buf has from a place on of a block of the disk.
func (b *blocks) block(at int) []byte {
	into := int(b.offset+int64(at-b.from)) & (holeSize - 1)
	return b.buf[at:min(at+holeSize-into, b.n)]
}

func (b *blocks) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// lender is a reader that can hand out what it has without a copy, and zeros as their number.
type lender interface {
	io.Reader
	lend() (piece, error) // as Read; the bytes are good until the next call
}

// Rejoin returns a reader of what was read of r already and then of what is left of it. start must not change.
func Rejoin(start []byte, r io.Reader) io.Reader {
	if c, ok := r.(*Content); ok {
		if a, ok := c.r.(*ahead); ok {
			return &rejoined{start, a}
		}
	}
	return io.MultiReader(bytes.NewReader(start), r)
}

type rejoined struct {
	start []byte
	lender
}

func (r *rejoined) Read(p []byte) (int, error) {
	if len(r.start) == 0 {
		return r.lender.Read(p)
	}
	n := copy(p, r.start)
	r.start = r.start[n:]
	return n, nil
}

func (r *rejoined) lend() (piece, error) {
	if len(r.start) == 0 {
		return r.lender.lend()
	}
	p := piece{b: r.start}
	r.start = nil
	return p, nil
}

// plain finds the holes in a stream of bytes.
type plain struct {
	blocks
	r    io.Reader
	lent lender // r, nil if it is none
	hole int64  // that comes next
	size int64  // as announced, -1 if not known
	err  error  // of r, for when buf is used up
}

// NewExtents returns the parts of a disk whose bytes r has. Whole blocks of 64 KiB of zeros are holes. size is the number of bytes that
// r must have, -1 if that is not known.
func NewExtents(r io.Reader, size int64) Extents {
	p := &plain{r: r, size: size}
	if p.lent, _ = r.(lender); p.lent == nil {
		p.buf = make([]byte, chunkSize)
	}
	return p
}

func (p *plain) Size() int64 { return p.size }

func (p *plain) Next() (Extent, error) {
	if p.from == p.n {
		if err := p.fill(); err != nil {
			return Extent{}, err
		}
	}
	if n := p.hole; n > 0 {
		e := Extent{Offset: p.offset, Length: n, Hole: true}
		p.hole, p.rest = 0, nil
		p.offset += n
		return e, nil
	}
	return p.next(), nil
}

// fill reads the next bytes. An error of r comes when all bytes before it have been handed out.
func (p *plain) fill() error {
	p.n, p.from = 0, 0
	if p.lent != nil && p.err == nil {
		var next piece
		if next, p.err = p.lent.lend(); p.err == nil {
			p.buf, p.n, p.hole = next.b, len(next.b), next.zeros
			return nil
		}
	}
	for p.n < len(p.buf) && p.err == nil {
		var n int
		n, p.err = p.r.Read(p.buf[p.n:])
		p.n += n
	}
	if p.n > 0 {
		return nil
	}
	if p.err != io.EOF {
		return p.err
	}
	switch {
	case p.size >= 0 && p.offset < p.size:
		return fmt.Errorf("image ended after %d of %d bytes: %w", p.offset, p.size, io.ErrUnexpectedEOF)
	case p.size >= 0 && p.offset > p.size:
		return fmt.Errorf("image has %d bytes, %d were announced", p.offset, p.size)
	}
	return io.EOF
}

// sparse finds the holes in the data of other extents.
type sparse struct {
	blocks
	src  Extents
	left int64 // bytes of the present extent that are not in buf yet
}

// Sparse returns src with the whole blocks of 64 KiB of zeros in its data as holes.
func Sparse(src Extents) Extents {
	return &sparse{blocks: blocks{buf: make([]byte, chunkSize)}, src: src}
}

func (s *sparse) Size() int64 { return s.src.Size() }

func (s *sparse) Next() (Extent, error) {
	if s.from == s.n {
		s.rest = nil
		if s.left == 0 {
			e, err := s.src.Next()
			if err != nil || e.Hole || e.Length <= 0 {
				return e, err
			}
			s.offset, s.left = e.Offset, e.Length
		}
		s.from, s.n = 0, int(min(s.left, chunkSize))
		if n, err := io.ReadFull(s.src, s.buf[:s.n]); err != nil {
			s.n = 0
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				err = fmt.Errorf("image ended %d bytes into its part at %d: %w", n, s.offset, io.ErrUnexpectedEOF)
			}
			return Extent{}, err
		}
		s.left -= int64(s.n)
	}
	return s.next(), nil
}
