// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
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
	// stalled is for how long nothing may come from peers before web seeds are asked for what peers have.
	stalled = 3 * time.Second
	// trial is how long peers may bring less than they should before web seeds are tried, and how often they are tried then; a web seed has as long for a piece before peers are asked as well.
	trial = 2 * slot
	// farSlower is how many times slower peers have to be than web seeds for these to help, and a web seed than it and others were for a piece to be fetched from another.
	farSlower = 8
	// grace is for how long web seeds wait for a peer when there is none.
	grace = 2 * time.Second
	// minTurn and maxTurn are how long a piece that is read next may be left to the node whose turn it is. When that has not brought it, nobody's turn is waited for, for unfair times as long.
	minTurn = 500 * time.Millisecond
	maxTurn = 15 * time.Second
	unfair  = 8
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
	case inOrder:
		s.fillInOrder(now)
	case byPlace:
		s.fillAnyOrder()
	}
	if !s.waits() { // for a disk that is slow nobody in the swarm has to answer
		s.last = now
	}
}

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
		i, f := s.lend(time.Now())
		if i < 0 {
			s.pause(steerEvery / 4)
			continue
		}
		b, err := s.fromWeb(f.ctx, seed.src, i)
		good, took := false, time.Since(f.since)
		if err == nil {
			if good = s.offer(i, b); !good {
				err = stream.Final(fmt.Errorf("%v: %w", seed.src, stream.ErrChanged))
			}
		}
		f.cancel(nil)
		s.mu.Lock()
		delete(s.fetches, i)
		s.pieces[i].lent = false
		late := !good && s.pieces[i].state >= have // a peer was sooner
		switch {
		case good:
			s.web += int64(len(b))
			s.fetched(len(b), took)
		case late:
		default:
			s.todo = append(s.todo, wish{piece: i, priority: torrent.PiecePriorityNormal})
			s.lastWeb = err
		}
		s.mu.Unlock()
		switch {
		case good:
			seed.failures = 0
		case late || s.ctx.Err() != nil:
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

// fetch is a piece on its way from a web seed.
type fetch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	since  time.Time
	alone  bool // peers are not asked for it
}

var errSlow = errors.New("it is far slower than it was, or others are")

// lend has a piece of the window fetched from a web seed: one that no peer has, or, if peers do not do well, one that they are asked for as well. -1 stands for none.
func (s *Source) lend(now time.Time) (int, *fetch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.swarm == 0 && now.Sub(s.company) < grace && (len(s.o.Peers) > 0 || len(s.meta.Trackers) > 0 && !s.o.NoTrackers) {
		return -1, nil
	}
	first, alone := -1, false
	for i := range s.pieces {
		if p := &s.pieces[i]; p.state == wanted && !p.lent {
			if alone = s.havers(i) == 0; alone || first < 0 {
				first = i
			}
			if alone {
				break
			}
		}
	}
	if first < 0 || !alone && now.Sub(s.brought) <= stalled && !s.lagging(now) {
		return -1, nil
	}
	f := &fetch{since: now, alone: alone}
	f.ctx, f.cancel = context.WithCancelCause(s.ctx)
	s.fetches[first] = f
	s.pieces[first].lent = true
	if alone {
		s.todo = append(s.todo, wish{piece: first, priority: torrent.PiecePriorityNone})
		s.broadcast()
	}
	return first, f
}

// lagging tells whether peers are so slow that web seeds have to help: far slower than web seeds were found to be, after a time in which they were slow for themselves. So who says that it has
// all pieces, and hardly sends any, does not keep web seeds out; and where all is slow, the web server is not asked by all nodes of a rack. It needs the lock.
func (s *Source) lagging(now time.Time) bool {
	if !s.waits() {
		return false
	}
	rate, enough := s.fromPeers.rate(now), float64(s.o.Window)/trial.Seconds()
	if s.o.Down > 0 {
		enough = min(enough, float64(s.o.Down)/2)
	}
	switch {
	case rate >= enough:
		s.waiting = now
		return false
	case now.Sub(s.waiting) < trial:
		return false
	case s.webRate > farSlower*rate:
		return true
	case now.Sub(s.tried) >= trial: // a piece, to see how fast web seeds are now
		s.tried = now
		return true
	}
	return false
}

// waits tells whether it is the swarm that is waited for, and not the disk, or who reads. It needs the lock.
func (s *Source) waits() bool {
	if s.mode == inOrder {
		return s.next < len(s.pieces) && s.pieces[s.next].state == wanted
	}
	if s.place != nil && len(s.place.arrived) > 0 {
		return false
	}
	return slices.ContainsFunc(s.pieces, func(p piece) bool { return p.state == wanted })
}

// begun says that other pieces are waited for from now on. Peers that were found slow have had their trial. It needs the lock.
func (s *Source) begun() {
	now := time.Now()
	s.brought = now
	if s.webRate <= farSlower*s.fromPeers.rate(now) {
		s.waiting = now
	}
}

// fetched notes how fast a web seed was. It needs the lock.
func (s *Source) fetched(n int, took time.Duration) {
	rate := float64(n) / max(took, time.Microsecond).Seconds()
	if s.webRate > 0 {
		rate = (rate + s.webRate) / 2
	}
	s.webRate = rate
}

// hurry gives up fetching from a web seed what a peer has brought meanwhile, or what another would bring much faster, and asks peers for what takes long. It needs the lock.
func (s *Source) hurry(now time.Time) {
	for i, f := range s.fetches {
		took := now.Sub(f.since)
		switch {
		case s.pieces[i].state >= have:
			f.cancel(context.Canceled)
		case took < trial:
		case s.webRate > 0 && took.Seconds() > farSlower*float64(s.pieceSize(i))/s.webRate:
			f.cancel(errSlow)
		case f.alone:
			f.alone = false
			s.todo = append(s.todo, wish{piece: i, priority: torrent.PiecePriorityNormal})
		}
	}
}

// slot is the time over which a pace is measured.
const slot = 5 * time.Second

// pace is how many bytes come in a slot and the one before it.
type pace struct {
	since       time.Time // when the slot has begun
	before, now int64
}

func (p *pace) roll(t time.Time) {
	switch d := t.Sub(p.since); {
	case d >= 2*slot:
		*p = pace{since: t}
	case d >= slot:
		*p = pace{since: p.since.Add(slot), before: p.now}
	}
}

func (p *pace) add(t time.Time, n int) {
	p.roll(t)
	p.now += int64(n)
}

// rate is in bytes a second.
func (p *pace) rate(t time.Time) float64 {
	p.roll(t)
	return float64(p.before+p.now) / (slot + t.Sub(p.since)).Seconds()
}

// fromWeb fetches a piece.
func (s *Source) fromWeb(ctx context.Context, src stream.Source, i int) ([]byte, error) {
	ranger, ok := src.(stream.Ranger)
	if !ok {
		return nil, stream.Final(stream.ErrNoRanges)
	}
	r, err := ranger.OpenRange(ctx, int64(i)*s.length, s.pieceSize(i))
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
