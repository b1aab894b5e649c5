// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/anacrolix/torrent"
)

const (
	// minTurn and maxTurn are how long a piece that is read next may be left to the node whose turn it is. When that has not brought it, nobody's turn is waited for, for unfair times as long.
	minTurn = 500 * time.Millisecond
	maxTurn = 15 * time.Second
	unfair  = 8
)

// ahead is where the window ends that is before who reads in order. Zeros take no room in it. It needs the lock.
func (s *Source) ahead() int {
	end := s.next
	for room := s.room() - s.room()/2; end < len(s.pieces) && room > 0; end++ {
		if s.pieces[end].state != blank {
			room--
		}
	}
	return end
}

// fillInOrder takes what is read next, as soon as anybody has it. Nodes that read side by side all need the same at the same time: of what is with those alone who have all, each takes those pieces that are its
// own by a rule that all of them know, and the others have them from it.
func (s *Source) fillInOrder(now time.Time) {
	if s.next >= len(s.pieces) {
		return
	}
	if s.turnOf != s.next {
		s.turnOf, s.turnSince, s.turn = s.next, now, s.turnTime(now)
		if p := &s.pieces[s.next]; p.state == wanted && !p.lent {
			s.todo = append(s.todo, wish{piece: s.next, priority: torrent.PiecePriorityNow})
		}
	}
	if s.pieces[s.next].state == absent && now.Sub(s.turnSince) > s.turn {
		s.unfair = now.Add(unfair * s.turn)
	}
	scarce := 0
	for i := s.next; i < s.ahead(); i++ {
		p, few := &s.pieces[i], s.swarm > s.whole && s.scarce(i)
		switch {
		case p.state == wanted && few && !p.lent:
			scarce++
			continue
		case p.state != absent:
			continue
		case few && (scarce >= s.scarceRoom() || !s.mine(i) && now.After(s.unfair)):
			continue
		case few:
			scarce++
		}
		if i < s.next+2 {
			s.want(i, torrent.PiecePriorityNow)
		} else {
			s.want(i, torrent.PiecePriorityReadahead)
		}
	}
}

// turnTime is twice as long as it takes, at the pace of now, until all nodes have what they may take of scarce pieces at a time. It needs the lock.
func (s *Source) turnTime(now time.Time) time.Duration {
	rate := s.fromPeers.rate(now)
	if rate == 0 {
		return minTurn
	}
	seconds := 2 * float64(max(scarceBytes, 2*s.length*int64(len(s.rivals)+1))) / rate
	return min(max(minTurn, time.Duration(seconds*float64(time.Second))), maxTurn)
}

// mine tells whether it is this node's turn to take a scarce piece. It needs the lock.
func (s *Source) mine(i int) bool {
	id := s.client.PeerID()
	own := weight(binary.BigEndian.Uint64(id[12:]), i)
	return !slices.ContainsFunc(s.rivals, func(r uint64) bool { return weight(r, i) > own })
}

// weight is that of a node for a piece, the same at all nodes: whose is the largest takes the piece (rendezvous hashing, with the finalizer of SplitMix64).
func weight(node uint64, piece int) uint64 {
	z := node + uint64(piece)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
