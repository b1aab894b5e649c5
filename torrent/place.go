// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"github.com/anacrolix/torrent"

	"github.com/ironhand/ironhand/stream"
)

// place is the disk that the pieces go to. What is not said to be its own is guarded by the lock of the source.
//
// The first and the last stream.HeadSize bytes of the disk come last of all, when the image is proven, so of these there is a copy in memory, from which peers get them. All else is
// read from the disk again when a peer asks for it, and compared with what it was: later steps change disks.
type place struct {
	s          *Source
	disk       io.ReaderAt
	closer     io.Closer // nil if there is nothing to close
	meter      *stream.Meter
	head, tail []byte // of the image, as far as these ends of the disk have some of it
	tailAt     int64

	arrived []int           // verified, not handed over yet
	holes   []stream.Extent // pieces of zeros, not handed over yet
	handed  int             // how many pieces have been
	resume  bool            // the disk may have pieces, from a try that was cut short
	look    []int           // pieces to look for there
	found   int64           // bytes that were found
	cache   []cached
	spare   [][]byte // memory for parts
}

// cached is a part of a piece that was read for a peer, which asks for it in many smaller ones.
type cached struct {
	piece int
	part  int64
	b     []byte
}

const (
	// Each of many peers may ask for another piece at the same time, and pieces have up to 16 MiB: neither is there the memory to read them whole, nor the time to do so
	// for each block.
	minPart  = 256 << 10
	maxParts = 16 // of a piece
	// cacheSize is how many bytes are kept for peers.
	cacheSize = 4 << 20
	// spares is how many buffers for parts are kept.
	spares = 8
)

// reopener is a disk that can be read after its owner has closed it.
type reopener interface {
	Reopen() (*stream.Reopened, error)
}

// Place begins to hand out the image in the order in which it comes. The Target is to be written to instead of dst: so the source knows what is on the disk. Pieces that a
// former try has left there are taken from there. ctx ends the handing out, and not the sharing.
func (s *Source) Place(ctx context.Context, dst stream.Target, m *stream.Meter) (stream.Target, stream.Extents, error) {
	r, ok := dst.(io.ReaderAt)
	switch {
	case !ok:
		return nil, nil, errors.New("disk does not offer reading, so nothing on it could be shared")
	case s.length%4096 != 0:
		return nil, nil, fmt.Errorf("%v: its pieces have %d bytes, which are not whole sectors: %w", s, s.length, errors.ErrUnsupported)
	case s.size > dst.Size():
		return nil, nil, fmt.Errorf("%w: %d bytes, the disk has %d", stream.ErrTooLarge, s.size, dst.Size())
	}
	p := &place{s: s, disk: r, meter: m, tailAt: max(stream.HeadSize, dst.Size()-stream.HeadSize)}
	p.head = make([]byte, min(stream.HeadSize, s.size))
	p.tail = make([]byte, max(0, s.size-p.tailAt))
	if o, ok := dst.(reopener); ok {
		again, err := o.Reopen()
		if err != nil {
			return nil, nil, err
		}
		p.disk, p.closer = again, again
	}
	var err error
	if p.resume, err = stream.Unfinished(io.NewSectionReader(p.disk, 0, stream.HeadSize)); err != nil {
		return nil, nil, errors.Join(err, p.close())
	}
	m.Announce(s.String(), s.size)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode != starting {
		return nil, nil, errors.Join(fmt.Errorf("%v: it is read in order already", s), p.close())
	}
	s.mode, s.place = byPlace, p
	s.begun()
	for i := range s.pieces {
		switch s.pieces[i].state {
		case have:
			p.arrived = append(p.arrived, i)
			m.Received(s.pieceSize(i))
		case blank:
			p.addHole(stream.Extent{Offset: int64(i) * s.length, Length: s.pieceSize(i), Hole: true})
		}
	}
	s.broadcast()
	if p.resume {
		s.running.Go(p.search)
	}
	return &placed{Target: dst, disk: r, p: p}, &arrivals{p: p, ctx: ctx, now: -1}, nil
}

// addHole adds one that is behind all others.
func (p *place) addHole(e stream.Extent) {
	if n := len(p.holes) - 1; n >= 0 && p.holes[n].Offset+p.holes[n].Length == e.Offset {
		p.holes[n].Length += e.Length
		return
	}
	p.holes = append(p.holes, e)
}

func (p *place) close() error {
	if p.closer == nil {
		return nil
	}
	return p.closer.Close()
}

// search looks on the disk for the pieces that are wanted, and leaves those that are not there to the peers.
func (p *place) search() {
	s := p.s
	for s.ctx.Err() == nil {
		s.mu.Lock()
		if len(p.look) == 0 {
			s.mu.Unlock()
			s.pause(steerEvery / 10)
			continue
		}
		i := p.look[0]
		p.look = p.look[1:]
		b := s.memory(i)
		s.mu.Unlock()
		_, err := p.disk.ReadAt(b, int64(i)*s.length)
		good := err == nil && s.offer(i, b)
		s.mu.Lock()
		s.pieces[i].lent, s.pieces[i].tried = false, true
		if good {
			p.found += int64(len(b))
		} else {
			s.todo = append(s.todo, wish{piece: i, priority: torrent.PiecePriorityNormal})
			s.broadcast()
		}
		s.mu.Unlock()
	}
}

// held is how many bytes of a part of the disk are kept back from it.
func (p *place) held(from, to int64) int64 {
	n := max(0, min(to, stream.HeadSize)-from)
	return n + max(0, to-max(from, p.tailAt))
}

// overlay puts what is kept back into b, which is of the disk from at on.
func (p *place) overlay(b []byte, at int64) {
	if at < int64(len(p.head)) {
		copy(b, p.head[at:])
	}
	if from := max(at, p.tailAt); from < at+int64(len(b)) && from-p.tailAt < int64(len(p.tail)) {
		copy(b[from-at:], p.tail[from-p.tailAt:])
	}
}

// read reads a part of a piece that is on the disk.
func (p *place) read(i int, b []byte, at int64, proven bool) error {
	s := p.s
	begin := int64(i) * s.length
	if !proven {
		if n, err := p.disk.ReadAt(b, begin+at); n < len(b) {
			return fmt.Errorf("read %d bytes at %d: %w", len(b), begin+at, err)
		}
		p.overlay(b, begin+at)
		return nil
	}
	for len(b) > 0 {
		n, err := p.readPart(i, b, at)
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// readPart reads what is of one part.
func (p *place) readPart(i int, b []byte, at int64) (int, error) {
	s := p.s
	part := at / s.part
	first := part * s.part // in the piece
	begin := int64(i)*s.length + first
	s.mu.Lock()
	for _, c := range p.cache {
		if c.piece == i && c.part == part {
			defer s.mu.Unlock()
			return copy(b, c.b[at-first:]), nil
		}
	}
	var whole []byte
	if last := len(p.spare) - 1; last >= 0 {
		whole, p.spare = p.spare[last], p.spare[:last]
	} else {
		whole = make([]byte, s.part)
	}
	whole = whole[:min(s.part, s.pieceSize(i)-first)]
	s.mu.Unlock()
	n, err := p.disk.ReadAt(whole, begin)
	p.overlay(whole, begin)
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := &s.pieces[i]; n < len(whole) || maphash.Bytes(s.seed, whole) != q.sums[part] {
		p.spared(whole)
		if q.state == on {
			q.state = changed
			s.todo = append(s.todo, wish{piece: i, refresh: true})
			s.broadcast()
		}
		if n < len(whole) {
			return 0, fmt.Errorf("read %d bytes at %d: %w", len(whole), begin, err)
		}
		return 0, errGone
	}
	n = copy(b, whole[at-first:])
	p.cache = append(p.cache, cached{i, part, whole})
	if len(p.cache) > int(max(1, cacheSize/s.part)) {
		p.spared(p.cache[0].b)
		p.cache = append(p.cache[:0], p.cache[1:]...)
	}
	return n, nil
}

// spared keeps memory for the next part. It needs the lock.
func (p *place) spared(b []byte) {
	if len(p.spare) < spares {
		p.spare = append(p.spare, b[:cap(b)])
	}
}

// wrote is told what is on the disk now.
func (p *place) wrote(at, n int64) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := at / s.length; i*s.length < at+n && i < int64(len(s.pieces)); i++ {
		q := &s.pieces[i]
		if q.state != handed {
			continue
		}
		from, to := max(at, i*s.length), min(at+n, s.pieceEnd(int(i)))
		if from < to {
			q.left -= to - from - p.held(from, to)
			p.settle(int(i))
		}
	}
}

// settle frees the memory of a piece that is on the disk. It needs the lock.
func (p *place) settle(i int) {
	q := &p.s.pieces[i]
	if !q.quiet {
		return
	}
	if q.state == handed && q.left <= 0 {
		q.state = on
	}
	if q.state != handed {
		p.s.give(i)
		p.s.broadcast()
	}
}

// placed is the disk.
type placed struct {
	stream.Target
	disk io.ReaderAt
	p    *place
}

func (d *placed) ReadAt(b []byte, at int64) (int, error) { return d.disk.ReadAt(b, at) }

func (d *placed) WriteAt(b []byte, at int64) (int, error) {
	n, err := d.Target.WriteAt(b, at)
	if err == nil {
		d.p.wrote(at, int64(n))
	}
	return n, err
}

func (d *placed) Zero(ctx context.Context, at, n int64) error {
	err := d.Target.Zero(ctx, at, n)
	if err == nil {
		d.p.wrote(at, n)
	}
	return err
}

// arrivals are the pieces as they come.
type arrivals struct {
	p    *place
	ctx  context.Context
	now  int // the piece that is read; -1 for none
	rest []byte
}

func (a *arrivals) Size() int64 { return a.p.s.size }

func (a *arrivals) Next() (stream.Extent, error) {
	p, s := a.p, a.p.s
	if a.now >= 0 { // it was read, so its bytes are with who writes them
		s.mu.Lock()
		s.pieces[a.now].quiet = true
		p.settle(a.now)
		s.mu.Unlock()
		a.now, a.rest = -1, nil
	}
	var e stream.Extent
	err := s.wait(a.ctx, func() bool {
		switch {
		case len(p.arrived) > 0:
			a.now = p.arrived[0]
			p.arrived = p.arrived[1:]
			p.handed++
			a.hand()
			e = stream.Extent{Offset: int64(a.now) * s.length, Length: s.pieceSize(a.now)}
		case len(p.holes) > 0: // while nothing else is to be done
			e, p.holes = p.holes[0], p.holes[1:]
			p.handed += int((e.Length + s.length - 1) / s.length)
			p.meter.Received(e.Length)
		default:
			return p.handed == len(s.pieces)
		}
		return true
	})
	if err == nil && e.Length == 0 {
		err = io.EOF
	}
	return e, err
}

// hand hands over the piece. It needs the lock.
func (a *arrivals) hand() {
	p, s := a.p, a.p.s
	q := &s.pieces[a.now]
	a.rest = q.buf
	at := int64(a.now) * s.length
	end := at + int64(len(q.buf))
	if at < int64(len(p.head)) {
		copy(p.head[at:], q.buf)
	}
	if from := max(at, p.tailAt); from < end {
		copy(p.tail[from-p.tailAt:], q.buf[from-at:])
	}
	q.left = end - at - p.held(at, end)
	q.state = handed
	if allZero(q.buf) { // a hole may grow for long before it is written
		q.state = blank
	}
}

func (a *arrivals) Read(b []byte) (int, error) {
	if len(a.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func allZero(b []byte) bool {
	var zeros [4096]byte
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}
