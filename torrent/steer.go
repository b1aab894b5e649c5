// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/anacrolix/torrent"

	"github.com/ironhand/ironhand/stream"
)

const (
	steerEvery = 250 * time.Millisecond
	// scarceBytes is how much of what nobody has but those who have all is asked of them at a time, by all nodes together: what is under way to one of them another may choose as
	// well, and then it comes twice. Each has two pieces and minRequests requests under way, whatever their number, for a request is request bytes long.
	scarceBytes = 4 << 20
	minRequests = 8
	request     = 16 << 10
	// callEvery is how often peers that went away are called, when there are no others. They hang up on who asks for what they have no more.
	callEvery = time.Second
)

// steer keeps the window full, until the source is closed: it says which pieces are wanted, and the library asks peers for them.
func (s *Source) steer() {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		every := s.askSwarm()
		tick.Reset(every)
		s.mu.Lock()
		s.fill(time.Now())
		s.hurry(time.Now())
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

// askSwarm notes which peer has what, and returns when to do so again.
func (s *Source) askSwarm() time.Duration {
	s.mu.Lock()
	every, next, end := steerEvery, s.next, s.ahead()
	if s.mode == inOrder { // what somebody has is to be with all before it is read
		every /= 5
	}
	s.mu.Unlock()
	if time.Since(s.asked) < every {
		return every
	}
	var rivals []uint64
	conns := s.t.PeerConns()
	whole, some := map[*torrent.PeerConn]bool{}, make([]uint16, len(s.pieces))
	for _, c := range conns {
		has := c.PeerPieces()
		if has.GetCardinality() == uint64(len(some)) {
			whole[c] = true
			continue
		}
		near := false // zeros, which all have, tell nothing of it
		for at := has.Iterator(); at.HasNext(); {
			if i := int(at.Next()); i < len(some) {
				some[i]++
				near = near || i >= next-(end-next)/2 && i < end && !s.zeros[i]
			}
		}
		if near && string(c.PeerID[:len(clientID)]) == clientID {
			rivals = append(rivals, binary.BigEndian.Uint64(c.PeerID[12:]))
		}
	}
	s.asked = time.Now()
	s.mu.Lock()
	s.swarm, s.whole, s.some, s.rivals = len(conns), len(whole), some, rivals
	if len(conns) > 0 {
		s.company = s.asked
	}
	if others := len(conns) - len(whole); others == 0 || s.mode == starting {
		s.spared.Store(nil)
	} else {
		s.spared.Store(&spared{whole, max(minRequests, scarceBytes/2/request/(others+1))})
	}
	s.mu.Unlock()
	if len(conns) == 0 && time.Since(s.called) > callEvery {
		s.called = time.Now()
		s.addPeers(nil)
	}
	return every
}

// havers is how many peers have a piece. It needs the lock.
func (s *Source) havers(i int) int {
	if s.some == nil {
		return 0
	}
	return s.whole + int(s.some[i])
}

// fill adds pieces to the window. It needs the lock.
func (s *Source) fill(now time.Time) {
	if s.failed != nil {
		return
	}
	switch s.mode {
	case starting:
		for i := 0; i < len(s.pieces) && int64(i)*s.length < stream.HeadSize; i++ {
			s.want(i, torrent.PiecePriorityNow)
		}
		// The library bans who has sent all of a wrong piece, or another block than the right piece has. While a liar has a part in each try of the few pieces
		// at the start, neither happens: so there are more.
		for i, more := 0, s.spoiled; i < s.ahead() && more > 0; i++ {
			if int64(i)*s.length >= stream.HeadSize && s.pieces[i].state != blank {
				s.want(i, torrent.PiecePriorityNow)
				more--
			}
		}
	case inOrder:
		s.fillInOrder(now)
	case byPlace:
		s.fillAnyOrder()
	}
	if !s.waits() { // for a disk that is slow nobody in the swarm has to answer
		s.last = now
	}
}

// want puts a piece into the window, if it is not here. It needs the lock.
func (s *Source) want(i int, priority torrent.PiecePriority) {
	if p := &s.pieces[i]; p.state == absent {
		p.state = wanted
		s.todo = append(s.todo, wish{piece: i, priority: priority})
	}
}

// scarce tells whether a piece is with those alone who have all of them. It needs the lock.
func (s *Source) scarce(i int) bool { return s.some == nil || s.some[i] == 0 }

// scarceRoom is how many scarce pieces may be in the window. It needs the lock.
func (s *Source) scarceRoom() int {
	others := s.swarm - s.whole
	if others == 0 {
		return s.room()
	}
	return int(max(2, scarceBytes/s.length/int64(others+1)))
}

// fillAnyOrder takes what few peers have, and among that what chance says: so nodes that start together fetch different pieces, which they have for each other then.
func (s *Source) fillAnyOrder() {
	inWindow, scarce, idle := 0, 0, []int(nil)
	for i := range s.pieces {
		p := &s.pieces[i]
		if p.state == wanted || p.buf != nil {
			inWindow++
			if p.state == wanted && !p.lent && s.scarce(i) {
				scarce++
			}
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
		at, priority := s.pick(open, 1), torrent.PiecePriorityNormal
		p := &s.pieces[open[at]]
		search := s.place.resume && !p.tried
		if !search && s.scarce(open[at]) {
			if scarce < s.scarceRoom() {
				priority = torrent.PiecePriorityHigh
				scarce++
			} else if at = s.pick(open, s.whole+1); s.scarce(open[at]) {
				break
			}
			p = &s.pieces[open[at]]
			search = s.place.resume && !p.tried
		}
		if search {
			p.state, p.lent = wanted, true
			s.place.look = append(s.place.look, open[at])
		} else {
			s.want(open[at], priority)
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
		at := s.pick(open, 1)
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

// pick chooses one of the pieces in open: one that few peers have, but at least as many as least, if there is such a one. Chance decides between equals.
func (s *Source) pick(open []int, least int) int {
	best, bestHavers, equals := 0, -1, 0
	for at, i := range open {
		n := s.havers(i)
		switch {
		case n == bestHavers:
			if equals++; rand.IntN(equals) == 0 {
				best = at
			}
		case bestHavers < 0, n >= least && (bestHavers < least || n < bestHavers):
			best, bestHavers, equals = at, n, 1
		}
	}
	return best
}
