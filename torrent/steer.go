// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/anacrolix/torrent"

	"github.com/ironhand/ironhand/stream"
)

const (
	steerEvery = 250 * time.Millisecond
	// candidates is how many pieces are compared to find one that few have. Looking at all of them for each would take its time.
	candidates = 48
	// stalled is for how long nothing may come from peers before web seeds are asked for what peers have.
	stalled = 3 * time.Second
	// grace is for how long web seeds wait for a peer when there is none.
	grace = 2 * time.Second
	// callEvery is how often peers that went away are called, when there are no others. They hang up on who asks for what they have no more.
	callEvery = time.Second
)

// steer keeps the window full, until the source is closed: it says which pieces are wanted, and the library asks peers for them.
func (s *Source) steer() {
	tick := time.NewTicker(steerEvery)
	defer tick.Stop()
	for {
		s.askSwarm()
		s.mu.Lock()
		s.fill()
		again, todo := s.changed, s.todo
		s.todo = nil
		s.mu.Unlock()
		for _, w := range todo {
			p := s.t.Piece(w.piece)
			p.SetPriority(w.priority)
			if w.refresh {
				p.UpdateCompletion()
			}
		}
		select {
		case <-again:
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// askSwarm notes which peer has what.
func (s *Source) askSwarm() {
	if time.Since(s.asked) < steerEvery {
		return
	}
	var swarm []*roaring.Bitmap
	for _, c := range s.t.PeerConns() {
		swarm = append(swarm, c.PeerPieces())
	}
	s.asked = time.Now()
	s.mu.Lock()
	s.swarm = swarm
	if len(swarm) > 0 {
		s.company = s.asked
	}
	s.mu.Unlock()
	if len(swarm) == 0 && time.Since(s.called) > callEvery {
		s.called = time.Now()
		s.addPeers(nil)
	}
}

// havers is how many peers have a piece. It needs the lock.
func (s *Source) havers(i int) (n int) {
	for _, b := range s.swarm {
		if b.Contains(uint32(i)) {
			n++
		}
	}
	return n
}

// fill adds pieces to the window. It needs the lock.
func (s *Source) fill() {
	if s.failed != nil {
		return
	}
	switch s.mode {
	case starting:
		for i := 0; i < len(s.pieces) && int64(i)*s.length < stream.HeadSize; i++ {
			s.want(i, torrent.PiecePriorityNow)
		}
	case inOrder:
		for i := s.next; i < min(len(s.pieces), s.next+s.room()-s.room()/2); i++ {
			if i < s.next+2 {
				s.want(i, torrent.PiecePriorityNow)
			} else {
				s.want(i, torrent.PiecePriorityReadahead)
			}
		}
	case byPlace:
		s.fillAnyOrder()
	}
}

// want puts a piece into the window, if it is not here. It needs the lock.
func (s *Source) want(i int, priority torrent.PiecePriority) {
	if p := &s.pieces[i]; p.state == absent {
		p.state = wanted
		s.todo = append(s.todo, wish{piece: i, priority: priority})
	}
}

// fillAnyOrder takes what few peers have, and among that what chance says: so nodes that start together fetch different pieces, which they have for each other then.
func (s *Source) fillAnyOrder() {
	inWindow, idle := 0, []int(nil)
	for i := range s.pieces {
		p := &s.pieces[i]
		if p.state == wanted || p.buf != nil {
			inWindow++
			if p.state == wanted && !p.begun && !p.lent && p.buf == nil && s.havers(i) == 0 {
				idle = append(idle, i)
			}
		}
	}
	var open []int
	for i := range s.pieces {
		if s.pieces[i].state == absent {
			open = append(open, i)
		}
	}
	for inWindow < s.room() && len(open) > 0 {
		at := s.pick(open)
		if p := &s.pieces[open[at]]; s.place.resume && !p.tried {
			p.state, p.lent = wanted, true
			s.place.look = append(s.place.look, open[at])
		} else {
			s.want(open[at], torrent.PiecePriorityNormal)
		}
		open[at] = open[len(open)-1]
		open = open[:len(open)-1]
		inWindow++
	}
	// What nobody has any more must not keep what somebody has from being fetched.
	for _, i := range idle {
		if len(open) == 0 {
			break
		}
		at := s.pick(open)
		if s.havers(open[at]) == 0 {
			break
		}
		s.pieces[i].state = absent
		s.todo = append(s.todo, wish{piece: i, priority: torrent.PiecePriorityNone})
		s.want(open[at], torrent.PiecePriorityNormal)
		open[at] = open[len(open)-1]
		open = open[:len(open)-1]
	}
}

// pick chooses one of the pieces in open: one that few peers have, but at least one, if there is such a one among those that are looked at.
func (s *Source) pick(open []int) int {
	best, bestHavers := -1, 0
	for range min(candidates, len(open)) {
		at := rand.IntN(len(open))
		n := s.havers(open[at])
		if best < 0 || n > 0 && (bestHavers == 0 || n < bestHavers) {
			best, bestHavers = at, n
		}
	}
	return best
}

// fetchWeb fetches pieces from web seeds that peers do not have, or do not bring, until the source is closed.
func (s *Source) fetchWeb() {
	seeds := make([]webSeed, len(s.webHTTP))
	for i, src := range s.webHTTP {
		seeds[i].src = src
	}
	for s.ctx.Err() == nil && len(seeds) > 0 {
		at := rand.IntN(len(seeds))
		seed := &seeds[at]
		if time.Now().Before(seed.after) {
			s.pause(steerEvery / 10)
			continue
		}
		i := s.lend()
		if i < 0 {
			s.pause(steerEvery / 4)
			continue
		}
		b, err := s.fromWeb(seed.src, i)
		good := false
		if err == nil {
			if good = s.offer(i, b); !good {
				err = stream.Final(fmt.Errorf("%v: %w", seed.src, stream.ErrChanged))
			}
		}
		s.mu.Lock()
		s.pieces[i].lent = false
		if good {
			s.web += int64(len(b))
		} else {
			s.todo = append(s.todo, wish{piece: i, priority: torrent.PiecePriorityNormal})
			s.lastWeb = err
		}
		s.mu.Unlock()
		switch {
		case good:
			seed.failures = 0
		case s.ctx.Err() != nil:
		case stream.IsFinal(err):
			s.o.Log.Warn("web seed is given up", "err", err)
			seeds = append(seeds[:at], seeds[at+1:]...)
		default:
			seed.failures++
			seed.after = time.Now().Add(min(time.Second<<min(seed.failures-1, 5), 30*time.Second))
		}
	}
}

// webSeed is one as a goroutine that fetches from it knows it.
type webSeed struct {
	src      stream.Source
	failures int       // in a row
	after    time.Time // it is not asked before
}

func (s *Source) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// lend takes a piece of the window away from the peers; -1 if they do well.
func (s *Source) lend() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.swarm) == 0 && time.Since(s.company) < grace && (len(s.o.Peers) > 0 || len(s.meta.Trackers) > 0 && !s.o.NoTrackers) {
		return -1
	}
	slow := time.Since(s.last) > stalled
	for i := range s.pieces {
		p := &s.pieces[i]
		if p.state == wanted && !p.lent && (slow || s.havers(i) == 0) {
			p.lent = true
			s.todo = append(s.todo, wish{piece: i, priority: torrent.PiecePriorityNone})
			s.broadcast()
			return i
		}
	}
	return -1
}

// fromWeb fetches a piece.
func (s *Source) fromWeb(src stream.Source, i int) ([]byte, error) {
	ranger, ok := src.(stream.Ranger)
	if !ok {
		return nil, stream.Final(stream.ErrNoRanges)
	}
	r, err := ranger.OpenRange(s.ctx, int64(i)*s.length, s.pieceSize(i))
	if err != nil {
		return nil, err
	}
	defer r.Close() // only read
	s.mu.Lock()
	b := s.memory(i)
	s.mu.Unlock()
	if _, err := io.ReadFull(r, b); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free = append(s.free, b)
		return nil, fmt.Errorf("%v: %w", src, err)
	}
	return b, nil
}

// offer has the library look whether b is a piece that is wanted.
func (s *Source) offer(i int, b []byte) bool {
	s.mu.Lock()
	p := &s.pieces[i]
	if p.state != wanted {
		defer s.mu.Unlock()
		s.free = append(s.free, b)
		return p.state >= have
	}
	o := &offer{peers: p.buf}
	p.buf, p.offer = b, o
	s.mu.Unlock()
	err := s.t.Piece(i).VerifyDataContext(s.ctx)                                                                        // without a limit: what it looks at must stay where it is until it is done
	for st := s.t.PieceState(i); err == nil && (st.Marking || st.Hashing || st.QueuedForHash); st = s.t.PieceState(i) { // it returns before the storage is told
		s.pause(time.Millisecond)
		err = context.Cause(s.ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.offer == o { // what peers had sent of it is still good
		p.buf, p.offer = o.peers, nil
		s.free = append(s.free, b)
	}
	return o.good
}
