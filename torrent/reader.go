// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"fmt"
	"io"

	"github.com/ironhand/ironhand/stream"
)

// Start returns the first bytes of the image, stream.HeadSize of them if it has so many.
func (s *Source) Start(ctx context.Context) ([]byte, error) {
	b := make([]byte, min(stream.HeadSize, s.size))
	_, err := io.ReadFull(&reader{s: s, ctx: ctx}, b)
	return b, err
}

// Open returns the image in its order from the byte at offset on.
func (s *Source) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset > s.size {
		return nil, stream.Final(fmt.Errorf("%v: it has no byte %d", s, offset))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode != byPlace {
		s.mode, s.next = inOrder, int(offset/s.length)
		s.begun()
	}
	s.broadcast()
	return &reader{s: s, ctx: ctx, at: offset}, nil
}

// reader reads the image in its order.
type reader struct {
	s   *Source
	ctx context.Context
	at  int64
}

func (r *reader) Close() error { return nil }

func (r *reader) Read(b []byte) (int, error) {
	s := r.s
	if r.at >= s.size {
		return 0, io.EOF
	}
	i := int(r.at / s.length)
	b = b[:min(int64(len(b)), s.pieceEnd(i)-r.at)]
	err := s.wait(r.ctx, func() bool { return s.pieces[i].state >= have })
	if err != nil {
		return 0, err
	}
	if err := s.read(i, b, r.at-int64(i)*s.length, false); err != nil {
		return 0, stream.Final(fmt.Errorf("%v: %w", s, err))
	}
	r.at += int64(len(b))
	if r.at == s.pieceEnd(i) {
		s.passed(i)
	}
	return len(b), nil
}

// passed says that a piece was read in order. What was read is kept for a while, to be shared.
func (s *Source) passed(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state := s.pieces[i].state; s.mode != inOrder || state != have && state != blank {
		return
	}
	s.next = i + 1
	if s.pieces[i].state == have { // zeros take no memory
		s.kept = append(s.kept, i)
	}
	if len(s.kept) > s.room()/2 {
		old := s.kept[0]
		s.kept = s.kept[1:]
		if old < s.next { // else the reader has gone back
			s.give(old)
			s.pieces[old] = piece{}
			s.todo = append(s.todo, wish{piece: old, refresh: true})
		}
	}
	s.broadcast()
}
