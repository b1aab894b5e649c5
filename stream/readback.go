// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
)

// ErrReadBack says that a disk returns other bytes than were written to it.
var ErrReadBack = errors.New("disk does not return what was written")

// ReadBack is how much of an image is read back and compared, past all caches, before it counts as written. The two ends of the disk
// always are, unless nothing is.
type ReadBack int

// The choices. The zero value is the sample.
const (
	ReadBackSample ReadBack = iota // 1 MiB, picked at random, of each 64 MiB
	ReadBackFull
	ReadBackNone
)

var readBackNames = [...]string{"sample", "full", "none"}

// String is "sample", "full" or "none".
func (rb ReadBack) String() string {
	if rb < 0 || int(rb) >= len(readBackNames) {
		return fmt.Sprintf("ReadBack(%d)", int(rb))
	}
	return readBackNames[rb]
}

// MarshalText returns what String does.
func (rb ReadBack) MarshalText() ([]byte, error) { return []byte(rb.String()), nil }

// UnmarshalText takes "sample", "full" or "none"; it is for flag.TextVar and JSON.
func (rb *ReadBack) UnmarshalText(text []byte) error {
	for i, name := range readBackNames {
		if string(text) == name {
			*rb = ReadBack(i)
			return nil
		}
	}
	return fmt.Errorf("%.32q is not one of sample, full, none", text)
}

// reader returns what to read back with; nil for nothing.
func (rb ReadBack) reader(dst Target) (io.ReaderAt, error) {
	switch rb {
	case ReadBackNone:
		return nil, nil
	case ReadBackSample, ReadBackFull:
		if r, ok := dst.(io.ReaderAt); ok {
			return r, nil
		}
		return nil, errors.New("disk does not offer reading, so nothing can be read back")
	}
	return nil, fmt.Errorf("no such way to read back: %v", rb)
}

const (
	groupSize  = 64 << 20 // bytes of which one sum is kept
	sampleSize = 1 << 20  // bytes that a sample reads of them
)

// recorder keeps sums of what is written, or of a sample of it: 24 bytes for each 64 MiB. It is told of everything in the order of
// the disk.
type recorder struct {
	kind  ReadBack
	seed  maphash.Seed
	hash  maphash.Hash
	parts []part
	group int64 // number of the group that is being summed, -1 before the first
	from  int64 // what is summed of it
	to    int64
	open  part
}

// part is a range of the disk and the sum of its bytes.
type part struct {
	at, n int64
	sum   uint64
}

func newRecorder(kind ReadBack) recorder {
	r := recorder{kind: kind, seed: maphash.MakeSeed(), group: -1}
	r.hash.SetSeed(r.seed)
	return r
}

// add tells of n bytes at a place: those of b, or zeros if b is nil.
func (r *recorder) add(at, n int64, b []byte) {
	if r.kind == ReadBackNone {
		return
	}
	for n > 0 {
		if g := at / groupSize; g != r.group {
			r.next(g)
		}
		step := min(n, (r.group+1)*groupSize-at)
		if lo, hi := max(at, r.from), min(at+step, r.to); lo < hi {
			if r.open.n == 0 {
				r.open.at = lo
			}
			r.open.n += hi - lo
			if b != nil {
				r.hash.Write(b[lo-at : hi-at]) // never returns an error
			}
			for left := hi - lo; b == nil && left > 0; left -= holeSize {
				r.hash.Write(zeros[:min(left, holeSize)])
			}
		}
		if b != nil {
			b = b[step:]
		}
		at, n = at+step, n-step
	}
}

// next ends the sum of one group and chooses what is summed of another.
func (r *recorder) next(group int64) {
	r.end()
	r.group, r.from, r.to = group, group*groupSize, (group+1)*groupSize
	if r.kind == ReadBackSample {
		pick := int64(1) // of a small image there may be nothing but the first group, and the head is checked anyway
		if group > 0 {
			pick = rand.Int64N(groupSize / sampleSize)
		}
		r.from += pick * sampleSize
		r.to = r.from + sampleSize
	}
}

func (r *recorder) end() {
	if r.open.n > 0 {
		r.open.sum = r.hash.Sum64()
		r.parts = append(r.parts, r.open)
	}
	r.open = part{}
	r.hash.Reset()
}

// readBack compares what the recorder was told of with what the disk returns.
func (p *pour) readBack(ctx context.Context, disk io.ReaderAt) error {
	if disk == nil {
		return nil
	}
	buf := alignedBuffer(chunkSize)
	for _, part := range p.record.parts {
		h := &p.record.hash
		h.Reset()
		for at, end := part.at, part.at+part.n; at < end; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b := buf[:min(chunkSize, end-at)]
			if err := readFullAt(disk, b, at); err != nil {
				return err
			}
			h.Write(b) // never returns an error
			at += int64(len(b))
		}
		if h.Sum64() != part.sum {
			return differs(part.n, part.at)
		}
		p.count(part.n)
	}
	return nil
}

func (p *pour) count(n int64) {
	p.checked += n
	p.meter.checked.Add(n)
}

func differs(n, at int64) error {
	return fmt.Errorf("read back %d bytes at %d: %w", n, at, ErrReadBack)
}

func readFullAt(r io.ReaderAt, b []byte, at int64) error {
	if n, err := r.ReadAt(b, at); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read back %d bytes at %d: %w", len(b), at, err)
	}
	return nil
}
