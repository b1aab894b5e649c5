// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

const (
	writers  = 4         // writes in flight
	zeroSize = 128 << 20 // the longest range that is zeroed in one go, bytes
)

// pour puts extents on a disk. One goroutine cuts them into jobs of whole sectors; a few carry the jobs out. What belongs to the ends
// of the disk is kept in memory.
type pour struct {
	dst    Target
	meter  *Meter
	sector int64
	size   int64 // of the disk

	head, tail []byte // what is held back; tail is empty on a disk that head covers
	tailAt     int64  // where the tail belongs
	tailUsed   bool   // the image has bytes there

	free            chan []byte
	jobs            chan job
	written, zeroed atomic.Int64
	checked         int64
	record          recorder

	pos int64  // bytes of the image so far
	buf []byte // the chunk that is being filled; nil if none
	at  int64  // where it belongs: a multiple of sector
	n   int64  // bytes in it

	holeAt, holeEnd int64 // the hole that is not a job yet: multiples of sector
}

// job is bytes to be written, or with a nil buf a range to be zeroed.
type job struct {
	at, n int64
	buf   []byte
}

func newPour(dst Target, m *Meter, rb ReadBack) (*pour, error) {
	p := &pour{dst: dst, meter: m, sector: int64(dst.SectorSize()), size: dst.Size(), record: newRecorder(rb)}
	if p.sector < 512 || p.sector > chunkSize || p.sector&(p.sector-1) != 0 || p.size < p.sector || p.size%p.sector != 0 {
		return nil, fmt.Errorf("disk has %d bytes in sectors of %d, which does not make sense", p.size, p.sector)
	}
	p.head = alignedBuffer(int(min(HeadSize, p.size)))
	p.tailAt = max(int64(len(p.head)), p.size-HeadSize)
	p.tail = alignedBuffer(int(p.size - p.tailAt))
	return p, nil
}

// run pours all extents, of which the first has been taken already. When it returns nothing is in flight any more. abort, if there is one, makes src
// return, for it may wait for long.
func (p *pour) run(ctx context.Context, first Extent, src Extents, abort func(error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.free, p.jobs = make(chan []byte, writeChunks), make(chan job, writeChunks)
	for range writeChunks {
		p.free <- alignedBuffer(chunkSize)
	}
	var working sync.WaitGroup
	for range writers {
		working.Go(func() {
			for j := range p.jobs {
				if ctx.Err() == nil {
					if err := p.do(ctx, j); err != nil {
						cancel(err)
						if abort != nil {
							abort(err)
						}
					}
				}
				if j.buf != nil {
					p.free <- j.buf
				}
			}
		})
	}
	err := p.extents(ctx, first, src)
	close(p.jobs)
	working.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause // also when reading failed: a writer was first
	}
	return err
}

func (p *pour) do(ctx context.Context, j job) error {
	if j.buf != nil {
		return p.write(j.buf[:j.n], j.at)
	}
	if err := p.dst.Zero(ctx, j.at, j.n); err != nil {
		return fmt.Errorf("zero %d bytes at %d: %w", j.n, j.at, err)
	}
	p.zeroed.Add(j.n)
	p.meter.zeroed.Add(j.n)
	return nil
}

func (p *pour) write(b []byte, at int64) error {
	if _, err := p.dst.WriteAt(b, at); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(b), at, err)
	}
	p.written.Add(int64(len(b)))
	p.meter.written.Add(int64(len(b)))
	return nil
}

func (p *pour) extents(ctx context.Context, e Extent, src Extents) error {
	for {
		switch {
		case e.Offset != p.pos || e.Length < 0:
			return fmt.Errorf("image has a part of %d bytes at %d, where one at %d was due", e.Length, e.Offset, p.pos)
		case e.Length > p.size-p.pos:
			return fmt.Errorf("%w: its %d bytes at %d end behind the disk's %d", ErrTooLarge, e.Length, e.Offset, p.size)
		}
		var err error
		if e.Hole {
			err = p.hole(ctx, e.Length)
		} else {
			err = p.data(ctx, src, e.Length)
		}
		if err != nil {
			return err
		}
		if e, err = src.Next(); err == io.EOF {
			return p.finish(ctx)
		} else if err != nil {
			return err
		}
	}
}

// data takes n bytes from r, or zeros if r is nil.
func (p *pour) data(ctx context.Context, r io.Reader, n int64) error {
	for n > 0 {
		if p.buf == nil {
			if err := p.flushHole(ctx); err != nil {
				return err
			}
			select {
			case p.buf = <-p.free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			p.at, p.n = p.pos, 0
		}
		// A chunk ends where a multiple of chunkSize does: so the head is a chunk, and writes are aligned.
		end := chunkSize - p.at%chunkSize
		b := p.buf[p.n:min(end, p.n+n)]
		if r == nil {
			clear(b)
		} else if _, err := io.ReadFull(r, b); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		p.n += int64(len(b))
		p.pos += int64(len(b))
		n -= int64(len(b))
		if p.n == end {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// hole makes the next n bytes zero. Sectors that it has only a part of, and short holes, are written.
func (p *pour) hole(ctx context.Context, n int64) error {
	if n < holeSize {
		return p.data(ctx, nil, n)
	}
	if p.buf != nil {
		partial := -p.pos & (p.sector - 1)
		if err := p.data(ctx, nil, partial); err != nil {
			return err
		}
		n -= partial
	}
	if p.buf != nil {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	if p.holeEnd != p.pos {
		if err := p.flushHole(ctx); err != nil {
			return err
		}
		p.holeAt = p.pos
	}
	whole := n &^ (p.sector - 1)
	p.pos += whole
	p.holeEnd = p.pos
	return p.data(ctx, nil, n-whole)
}

// finish pads the last sector and hands on what is left.
func (p *pour) finish(ctx context.Context) error {
	if p.pos == 0 {
		return ErrEmpty
	}
	if p.buf != nil {
		padded := (p.n + p.sector - 1) &^ (p.sector - 1)
		clear(p.buf[p.n:padded])
		p.n = padded
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	if err := p.flushHole(ctx); err != nil {
		return err
	}
	p.record.end()
	return nil
}

// flush hands on the chunk in buf: to the head, to the tail, to a writer.
func (p *pour) flush(ctx context.Context) error {
	b, at := p.buf[:p.n], p.at
	if at < int64(len(p.head)) { // then all of it is
		copy(p.head[at:], b)
		b = nil
	}
	if over := at + int64(len(b)) - p.tailAt; over > 0 {
		cut := max(0, int64(len(b))-over)
		copy(p.tail[at+cut-p.tailAt:], b[cut:])
		p.tailUsed = true
		b = b[:cut]
	}
	buf := p.buf
	p.buf, p.n = nil, 0
	if len(b) == 0 {
		p.free <- buf
		return nil
	}
	p.record.add(at, int64(len(b)), b)
	return p.submit(ctx, job{at: at, n: int64(len(b)), buf: buf})
}

// flushHole hands on the hole, without what it has of the ends: they are zero already.
func (p *pour) flushHole(ctx context.Context) error {
	at, end := max(p.holeAt, int64(len(p.head))), min(p.holeEnd, p.tailAt)
	p.holeAt, p.holeEnd = p.pos, p.pos
	for at < end {
		n := min(zeroSize, end-at)
		p.record.add(at, n, nil)
		if err := p.submit(ctx, job{at: at, n: n}); err != nil {
			return err
		}
		at += n
	}
	return nil
}

func (p *pour) submit(ctx context.Context, j job) error {
	select {
	case p.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
