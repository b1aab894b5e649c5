// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
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
	// stalled is for how long nothing may come from peers before web seeds are asked for what peers have.
	stalled = 3 * time.Second
	// trial is how long peers may bring less than they should before web seeds are tried, and how often they are tried then; a web seed has as long for a piece before peers are asked as well.
	trial = 2 * slot
	// farSlower is how many times slower peers have to be than web seeds for these to help, and a web seed than it and others were for a piece to be fetched from another.
	farSlower = 8
	// grace is for how long web seeds wait for a peer when there is none.
	grace = 2 * time.Second
)

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

// fetched notes how fast a web seed was. It needs the lock.
func (s *Source) fetched(n int, took time.Duration) {
	rate := float64(n) / max(took, time.Microsecond).Seconds()
	if s.webRate > 0 {
		rate = (rate + s.webRate) / 2
	}
	s.webRate = rate
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
