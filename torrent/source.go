// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/anacrolix/torrent"

	"github.com/ironhand/ironhand/stream"
)

// Source is an image in a swarm. It hands it out in its order, as other sources do, or, by Place, in the order in which it comes. Meanwhile, and after
// that, until Close, it shares what it has.
//
// Read in order, it has a few pieces at a time and shares those; a reader that goes back fetches them again. After Place it shares all
// that is on the disk, as long as it is there.
type Source struct {
	*session
	size, length int64 // of the image, of a piece
	part         int64 // of a piece: what is read from the disk, and compared, at a time
	seed         maphash.Seed
	running      sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, when something may go on
	mode    mode
	pieces  []piece
	zeros   []bool   // pieces that are nothing but zeros, and come from nobody; not changed
	free    [][]byte // memory of pieces, for the next
	next    int      // in order: the piece that is read
	kept    []int    // in order: pieces that were read, oldest first
	place   *place
	last    time.Time // when a byte came last
	todo    []wish    // for the library, whose lock must not be taken with ours
	swarm   int       // peers that are connected
	whole   int       // of these that have all of the image
	some    []uint16  // how many of the others have each piece; nil if that is not known yet
	company time.Time // when there was a peer last
	called  time.Time // of the goroutine that steers
	asked   time.Time // when swarm was
	failed  error     // ends all reading
	web     int64     // bytes that came from web seeds
	nothing int64     // bytes in pieces of zeros; not changed
	spoiled int       // pieces from peers whose hash was wrong
	lastWeb error

	rivals    []uint64      // in order: the nodes that read nearby, by their numbers
	turnOf    int           // in order: the piece that is waited for,
	turnSince time.Time     // since then,
	turn      time.Duration // and for how long, before others take it than whose turn it is
	unfair    time.Time     // in order: until then nobody's turn is waited for

	fromPeers pace
	brought   time.Time // when a peer has sent something of use last
	waiting   time.Time // since when peers were to bring more than they do
	tried     time.Time // when a web seed was asked last to see how fast it is
	webRate   float64   // bytes a second of a piece from a web seed, lately; 0 if not known
	fetches   map[int]*fetch
}

type mode int

const (
	starting mode = iota // nobody has said yet what to do with the image: only its start is fetched
	inOrder
	byPlace
)

// state is where a piece is.
type state uint8

const (
	absent  state = iota
	wanted        // in the window
	have          // verified, and in memory
	handed        // by place: in memory, and on its way to the disk
	on            // by place: on the disk
	blank         // all zeros
	changed       // by place: was on the disk, until somebody changed it there
)

type piece struct {
	state state
	begun bool // bytes of it have come
	lent  bool // somebody fetches it from elsewhere than from peers
	tried bool // what the disk has there is not it
	quiet bool // nobody needs its memory any more but the disk
	buf   []byte
	offer *offer   // what is in buf now, until it is known whether it is right; nil for none
	left  int64    // handed: bytes that are not on the disk yet
	sums  []uint64 // of its parts
}

// offer is a piece that came as a whole from elsewhere than from peers, and is looked at.
type offer struct {
	peers []byte // what peers have brought of the piece, and bring meanwhile: it must not get into what is looked at
	good  bool
}

// wish is something that the library has to be told of a piece.
type wish struct {
	piece    int
	priority torrent.PiecePriority
	refresh  bool // that it is not here any more
}

// Open takes part in a swarm. Of a magnet link it waits until a peer has told what is in it. Close must be called.
func Open(ctx context.Context, m Meta, o Options) (*Source, error) {
	o = o.filled()
	if m.info == nil {
		var err error
		if m, err = complete(ctx, m, o); err != nil {
			return nil, err
		}
	}
	ses, err := start(ctx, m, o)
	if errors.Is(err, syscall.EADDRINUSE) && o.Port != 0 { // trackers are told which one it is
		o.Log.Warn("port for peers is in use; taking another", "port", o.Port)
		o.Port = 0
		ses, err = start(ctx, m, o)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", m, err)
	}
	s := &Source{session: ses, seed: maphash.MakeSeed(), changed: make(chan struct{}), turnOf: -1, last: time.Now(), company: time.Now(), size: m.Size, length: m.info.PieceLength, fetches: map[int]*fetch{}}
	s.begun()
	s.part = min(s.length, max(minPart, (s.length/maxParts+4095)&^4095))
	s.zeros = m.zeros()
	s.pieces = make([]piece, len(s.zeros))
	for i, zero := range s.zeros {
		if zero {
			s.pieces[i].state = blank
			s.nothing += s.pieceSize(i)
		}
	}
	if err := s.t.OpenStorage(ctx, store{s}); err != nil {
		ses.close()
		return nil, fmt.Errorf("%v: %w", m, err)
	}
	s.running.Go(s.steer)
	for range min(4, max(1, (8<<20)/s.length)) {
		if len(s.webHTTP) > 0 {
			s.running.Go(s.fetchWeb)
		}
	}
	return s, nil
}

// Size is the length of the image in bytes.
func (s *Source) Size() int64 { return s.size }

// String names the image and the hash that proves it.
func (s *Source) String() string { return s.meta.String() }

// Stats are what was done so far.
func (s *Source) Stats() Stats {
	st := s.stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Web, st.Zero = s.web, s.nothing
	if s.place != nil {
		st.Found = s.place.found
	}
	return st
}

// Close leaves the swarm.
func (s *Source) Close() error {
	s.fail(errClosed)
	s.session.close()
	s.running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.place != nil {
		return s.place.close()
	}
	return nil
}

// Share goes on sharing for a time, or until ratio times the image was sent, or ctx ends, whatever comes first; 0 stands for no such limit.
func (s *Source) Share(ctx context.Context, limit time.Duration, ratio float64) {
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if ratio > 0 && float64(s.stats().Up) >= ratio*float64(s.size) {
				return
			}
		case <-late:
			return
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// wait returns when ready says so, or when that cannot be expected any more.
func (s *Source) wait(ctx context.Context, ready func() bool) error {
	for {
		s.mu.Lock()
		if s.failed != nil {
			defer s.mu.Unlock()
			return stream.Final(s.failed)
		}
		if ready() {
			s.mu.Unlock()
			return nil
		}
		again, silence := s.changed, time.Since(s.last)
		if silence > s.o.Patience {
			err := fmt.Errorf("%v: nothing has come for %v, %d peers are connected", s, s.o.Patience, s.swarm)
			if s.lastWeb != nil {
				err = fmt.Errorf("%w; web seed: %w", err, s.lastWeb)
			}
			s.mu.Unlock()
			return stream.Final(err)
		}
		s.mu.Unlock()
		timer := time.NewTimer(s.o.Patience - silence + time.Millisecond)
		select {
		case <-again:
			timer.Stop()
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// broadcast needs the lock.
func (s *Source) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	s.broadcast()
}

// pieceEnd is where a piece ends in the image.
func (s *Source) pieceEnd(i int) int64 { return min(int64(i+1)*s.length, s.size) }

func (s *Source) pieceSize(i int) int64 { return s.pieceEnd(i) - int64(i)*s.length }

// read reads a part of a piece that is here. With proven the bytes are what they were when the piece was verified, or there is an error.
func (s *Source) read(i int, b []byte, at int64, proven bool) error {
	s.mu.Lock()
	p := &s.pieces[i]
	switch {
	case p.buf != nil:
		copy(b, p.buf[at:])
	case p.state == blank:
		clear(b)
	case p.state == on:
		place := s.place
		s.mu.Unlock()
		return place.read(i, b, at, proven)
	default:
		s.mu.Unlock()
		return errGone
	}
	s.mu.Unlock()
	return nil
}

var errGone = errors.New("the piece is not here any more")

// room is how many pieces may be in memory. With two, by place, one could wait for the other for ever: what was handed over is written with what follows.
func (s *Source) room() int { return int(max(3, s.o.Window/s.length)) }

// memory is for a piece. It needs the lock.
func (s *Source) memory(i int) []byte {
	n := s.pieceSize(i)
	if last := len(s.free) - 1; last >= 0 {
		b := s.free[last]
		s.free = s.free[:last]
		return b[:n]
	}
	return make([]byte, s.length)[:n]
}

// give takes it back from a piece. It needs the lock.
func (s *Source) give(i int) {
	if b := s.pieces[i].buf; b != nil {
		s.free = append(s.free, b)
		s.pieces[i].buf = nil
	}
}

// verified is called when the hash of a piece was right. It needs the lock.
func (s *Source) verified(i int) {
	p := &s.pieces[i]
	if p.state != wanted || p.buf == nil {
		return
	}
	if o := p.offer; o != nil {
		o.good, p.offer = true, nil
		if o.peers != nil {
			s.free = append(s.free, o.peers)
		}
	}
	p.state, p.sums = have, nil
	for b := range slices.Chunk(p.buf, int(s.part)) {
		p.sums = append(p.sums, maphash.Bytes(s.seed, b))
	}
	s.last = time.Now()
	s.todo = append(s.todo, wish{piece: i, priority: torrent.PiecePriorityNone})
	if s.place != nil {
		s.place.arrived = append(s.place.arrived, i)
		s.place.meter.Received(s.pieceSize(i))
	}
	s.broadcast()
}
