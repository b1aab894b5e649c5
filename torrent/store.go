// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"time"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
)

// store is where the library puts blocks and takes them from.
type store struct{ s *Source }

func (st store) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{
		Piece: func(p metainfo.Piece) storage.PieceImpl { return stored{st.s, p.Index()} },
		Close: func() error { return nil },
	}, nil
}

// stored is a piece.
type stored struct {
	s *Source
	i int
}

func (p stored) WriteAt(b []byte, at int64) (int, error) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.last = now
	q := &s.pieces[p.i]
	switch q.state {
	case absent: // it was given up while the block was on its way
		q.state = wanted
		fallthrough
	case wanted:
		buf := &q.buf
		if q.offer != nil {
			buf = &q.offer.peers
		}
		if *buf == nil {
			*buf = s.memory(p.i)
		}
		q.begun = true
		s.brought = now
		s.fromPeers.add(now, len(b))
		copy((*buf)[at:], b)
	}
	return len(b), nil // what is verified is not changed
}

func (p stored) ReadAt(b []byte, at int64) (int, error) {
	if err := p.s.read(p.i, b, at, true); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p stored) MarkComplete() error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.verified(p.i)
	return nil
}

// MarkNotComplete is called when the hash of a piece was wrong.
func (p stored) MarkNotComplete() error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if q := p.s.pieces[p.i]; q.state == wanted && q.offer == nil {
		p.s.spoiled++
		p.s.broadcast()
	}
	return nil
}

func (p stored) Completion() storage.Completion {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	st := p.s.pieces[p.i].state
	return storage.Completion{Ok: true, Complete: st >= have && st != changed}
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
