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
	// syncEvery is after how many bytes the device is told to store what it has, so that its caches do not do all of that at the end, when nothing else is left to do.
	syncEvery = 64 << 20
)

// pour puts extents on a disk. One goroutine cuts them into jobs of whole sectors; a few carry the jobs out. What belongs to the ends
// of the disk is kept in memory.
//
// Where an extent out of order has only a part of a sector, that goroutine reads the sector, changes the part and writes it itself: the rest comes
// with other extents. No job ever touches such a sector.
type pour struct {
	dst    Target
	disk   io.ReaderAt // dst, nil if it cannot be read
	meter  *Meter
	sector int64
	size   int64 // of the disk

	head, tail []byte // what is held back; tail is empty on a disk that head covers
	tailAt     int64  // where the tail belongs
	tailUsed   bool   // the image has bytes there

	free            chan []byte
	jobs            chan job
	written, zeroed atomic.Int64
	synced          atomic.Int64 // what of written is behind the last Sync that was begun
	syncing         atomic.Bool
	checked         int64
	record          recorder

	anyOrder bool   // of the extents: then end is known
	end      int64  // length of the image in bytes, -1 if not known yet
	done     int64  // bytes of the image that have come
	pos      int64  // where the next byte belongs
	buf      []byte // the chunk that is being filled; nil if none
	at       int64  // where it belongs: a multiple of sector
	lo, n    int64  // what it holds: buf[lo:n]; lo is less than a sector
	part     []byte // a sector, to change a part of one; nil before the first

	holeAt, holeEnd int64 // the hole that is not a job yet: multiples of sector
}

// job is bytes to be written, or with a nil buf a range to be zeroed.
type job struct {
	at, n int64
	buf   []byte
	from  int64 // in buf
}

func newPour(dst Target, m *Meter, rb ReadBack) (*pour, error) {
	p := &pour{dst: dst, meter: m, sector: int64(dst.SectorSize()), size: dst.Size()}
	if p.sector < 512 || p.sector > chunkSize || p.sector&(p.sector-1) != 0 || p.size < p.sector || p.size%p.sector != 0 {
		return nil, fmt.Errorf("disk has %d bytes in sectors of %d, which does not make sense", p.size, p.sector)
	}
	p.disk, _ = dst.(io.ReaderAt)
	p.record = newRecorder(rb, p.size)
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
	fail := func(err error) {
		cancel(err)
		if abort != nil {
			abort(err)
		}
	}
	var working sync.WaitGroup
	for range writers {
		working.Go(func() {
			for j := range p.jobs {
				if ctx.Err() == nil {
					if err := p.do(ctx, j); err != nil {
						fail(err)
					} else if p.written.Load()-p.synced.Load() >= syncEvery && p.syncing.CompareAndSwap(false, true) {
						working.Go(func() {
							p.synced.Store(p.written.Load())
							if err := flushDisk(p.dst); err != nil {
								fail(err)
							}
							p.syncing.Store(false)
						})
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
		return p.write(j.buf[j.from:][:j.n], j.at)
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
	p.end = src.Size()
	p.anyOrder = p.end >= 0
	for {
		switch {
		case e.Length < 0 || e.Offset < 0 || e.Offset != p.pos && !p.anyOrder:
			return fmt.Errorf("image has a part of %d bytes at %d, where one at %d was due", e.Length, e.Offset, p.pos)
		case e.Length > p.size-e.Offset:
			return fmt.Errorf("%w: its %d bytes at %d end behind the disk's %d", ErrTooLarge, e.Length, e.Offset, p.size)
		case e.Offset != p.pos:
			if err := p.jump(ctx, e, src.Size()); err != nil {
				return err
			}
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
		p.done += e.Length
		if e, err = src.Next(); err == io.EOF {
			return p.finish(ctx)
		} else if err != nil {
			return err
		}
	}
}

// jump goes on with an extent elsewhere. Sums for reading back are of whole pieces, so the ends of such extents are, too.
func (p *pour) jump(ctx context.Context, e Extent, end int64) error {
	if p.pos%pieceSize != 0 && p.pos != end || e.Offset%pieceSize != 0 {
		return fmt.Errorf("image has a part at %d after one that ends at %d, which are not whole sectors of %d bytes", e.Offset, p.pos, pieceSize)
	}
	if p.buf != nil {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	if err := p.flushHole(ctx); err != nil {
		return err
	}
	p.pos = e.Offset
	return nil
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
			p.at = p.pos &^ (p.sector - 1)
			p.lo = p.pos - p.at
			p.n = p.lo
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
	partial := -p.pos & (p.sector - 1)
	if err := p.data(ctx, nil, partial); err != nil {
		return err
	}
	n -= partial
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

// finish hands on what is left.
func (p *pour) finish(ctx context.Context) error {
	if p.done == 0 {
		return ErrEmpty
	}
	if !p.anyOrder {
		p.end = p.pos
	}
	if p.buf != nil {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	if err := p.flushHole(ctx); err != nil {
		return err
	}
	if p.done != p.end {
		return fmt.Errorf("image has %d bytes in its parts, %d were announced: %w", p.done, p.end, io.ErrUnexpectedEOF)
	}
	return nil
}

// flush hands on the chunk in buf: to the head, to the tail, to a writer.
func (p *pour) flush(ctx context.Context) error {
	buf, at, lo, n := p.buf, p.at, p.lo, p.n
	p.buf = nil
	if at+n == p.end { // the last sector of the image is zero behind it
		padded := (n + p.sector - 1) &^ (p.sector - 1)
		clear(buf[n:padded])
		n = padded
	}
	// 1. What is held back. A chunk is all in the head, or not at all.
	if at < int64(len(p.head)) {
		copy(p.head[at+lo:], buf[lo:n])
		n = lo
	}
	if over := at + n - p.tailAt; over > 0 && n > lo {
		cut := max(lo, n-over)
		copy(p.tail[at+cut-p.tailAt:], buf[cut:n])
		p.tailUsed = true
		n = cut
	}
	if n > lo {
		p.record.add(at+lo, n-lo, buf[lo:n])
	}
	// 2. The sectors of which there is only a part.
	if lo > 0 && n > lo {
		end := min(n, p.sector)
		if err := p.patch(buf[lo:end], at+lo); err != nil {
			return err
		}
		lo = end
	}
	if part := n % p.sector; part > 0 && n > lo {
		if err := p.patch(buf[n-part:n], at+n-part); err != nil {
			return err
		}
		n -= part
	}
	// 3. The others.
	if n <= lo {
		p.free <- buf
		return nil
	}
	return p.submit(ctx, job{at: at + lo, n: n - lo, buf: buf, from: lo})
}

// patch changes a part of a sector on the disk.
func (p *pour) patch(b []byte, at int64) error {
	start := at &^ (p.sector - 1)
	switch {
	case p.disk == nil:
		return fmt.Errorf("change %d bytes at %d: disk does not offer reading", len(b), at)
	case p.part == nil:
		p.part = alignedBuffer(int(p.sector))
	}
	if n, err := p.disk.ReadAt(p.part, start); n < len(p.part) {
		return fmt.Errorf("read the sector at %d: %w", start, err)
	}
	copy(p.part[at-start:], b)
	return p.write(p.part, start)
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
