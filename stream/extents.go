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
	// Next returns the next extent, io.EOF after the last. Each begins where the one before it ended, the first at 0. What
	// was not read of a data extent is skipped.
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

// plain finds the holes in a stream of bytes.
type plain struct {
	r    io.Reader
	size int64 // as announced, -1 if not known

	buf    []byte
	n      int   // bytes in buf
	from   int   // where the next extent begins in buf
	offset int64 // of the next extent on the disk
	rest   []byte
	err    error // of r, for when buf is used up
}

// NewExtents returns the parts of a disk whose bytes r has. Whole blocks of 64 KiB of zeros are holes. size is the number of bytes that
// r must have, -1 if that is not known.
func NewExtents(r io.Reader, size int64) Extents {
	return &plain{r: r, size: size, buf: make([]byte, chunkSize)}
}

func (p *plain) Size() int64 { return p.size }

func (p *plain) Next() (Extent, error) {
	if p.from == p.n {
		if err := p.fill(); err != nil {
			return Extent{}, err
		}
	}
	// An extent is a run of blocks of one kind.
	hole := isZero(p.block(p.from))
	to := p.from + len(p.block(p.from))
	for to < p.n && isZero(p.block(to)) == hole {
		to += len(p.block(to))
	}
	e := Extent{Offset: p.offset, Length: int64(to - p.from), Hole: hole}
	p.rest = nil
	if !hole {
		p.rest = p.buf[p.from:to]
	}
	p.from = to
	p.offset += e.Length
	return e, nil
}

func (p *plain) block(at int) []byte { return p.buf[at:min(at+holeSize, p.n)] }

// fill reads the next bytes. An error of r comes when all bytes before it have been handed out.
func (p *plain) fill() error {
	if p.err == nil {
		p.from = 0
		for p.n = 0; p.n < len(p.buf) && p.err == nil; {
			var n int
			n, p.err = p.r.Read(p.buf[p.n:])
			p.n += n
		}
		if p.n > 0 {
			return nil
		}
	}
	p.n, p.from = 0, 0
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

func (p *plain) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
