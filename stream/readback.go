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
	pieceSize  = 512      // bytes that are hashed at a time; a sector has one or several
)

// recorder keeps sums of what is written, or of a sample of it: 16 bytes for each 64 MiB. It may be told of it in any order, in whole pieces: the sum
// of a group is that of the hashes of its pieces, each times a number that says where the piece is.
type recorder struct {
	kind   ReadBack
	seed   maphash.Seed
	zero   uint64 // the hash of a piece of zeros
	groups []group
}

type group struct {
	pick int64 // which of the samples that it has
	sum  uint64
}

func newRecorder(kind ReadBack, diskSize int64) recorder {
	r := recorder{kind: kind, seed: maphash.MakeSeed()}
	r.zero = maphash.Bytes(r.seed, zeros[:pieceSize])
	if kind == ReadBackNone {
		return r
	}
	r.groups = make([]group, (diskSize+groupSize-1)/groupSize)
	for i := range r.groups {
		r.groups[i].pick = rand.Int64N(groupSize / sampleSize)
	}
	r.groups[0].pick = 1 // of a small image there may be nothing but the first group, and the head is checked anyway
	return r
}

// window is what is summed of a group.
func (r *recorder) window(g int64) (from, to int64) {
	from, to = g*groupSize, (g+1)*groupSize
	if r.kind == ReadBackSample {
		from += r.groups[g].pick * sampleSize
		to = from + sampleSize
	}
	return from, to
}

// add tells of n bytes at a place: those of b, or zeros if b is nil.
func (r *recorder) add(at, n int64, b []byte) {
	if r.kind == ReadBackNone || n == 0 {
		return
	}
	for g := at / groupSize; g*groupSize < at+n; g++ {
		from, to := r.window(g)
		if from, to = max(from, at), min(to, at+n); from >= to {
			continue
		}
		if b != nil {
			r.groups[g].sum += r.sum(b[from-at:to-at], from)
		} else { // the sum of the odd numbers 2i+1 for i from x to y is y*y-x*x
			x, y := uint64(from/pieceSize), uint64(to/pieceSize)
			r.groups[g].sum += r.zero * (y*y - x*x)
		}
	}
}

// sum is that of the pieces in b, which belong at the place at.
func (r *recorder) sum(b []byte, at int64) (sum uint64) {
	for ; len(b) > 0; b = b[pieceSize:] {
		sum += maphash.Bytes(r.seed, b[:pieceSize]) * uint64(2*(at/pieceSize)+1)
		at += pieceSize
	}
	return sum
}

// readBack compares what the recorder was told of with what the disk returns.
func (p *pour) readBack(ctx context.Context, disk io.ReaderAt) error {
	if disk == nil {
		return nil
	}
	buf := alignedBuffer(chunkSize)
	written := min(p.tailAt, (p.end+p.sector-1)&^(p.sector-1))
	for g := range p.record.groups {
		from, to := p.record.window(int64(g))
		if from, to = max(from, int64(len(p.head))), min(to, written); from >= to {
			continue
		}
		var sum uint64
		for at := from; at < to; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b := buf[:min(chunkSize, to-at)]
			if err := readFullAt(disk, b, at); err != nil {
				return err
			}
			sum += p.record.sum(b, at)
			at += int64(len(b))
		}
		if sum != p.record.groups[g].sum {
			return differs(to-from, from)
		}
		p.count(to - from)
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
