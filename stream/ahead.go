// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"io"
	"sync"
)

const (
	aheadSize  = 512 << 10 // bytes of a piece: a multiple of holeSize
	aheadCount = 4
)

// ahead unpacks on a goroutine of its own, up to 2 MiB ahead of who reads.
type ahead struct {
	free   chan []byte
	filled chan piece // in order
	part   []byte     // that is being filled; nil if none
	err    error      // that comes after the last piece; may be read when filled is closed
	now    piece      // that is read from
	rest   piece      // what is left of it

	quit  chan struct{}
	stop  sync.Once
	ended chan struct{}
}

var errQuit = errors.New("nobody reads on")

// piece is bytes, or else a number of zeros.
type piece struct {
	b     []byte
	zeros int64
}

func (p piece) empty() bool { return len(p.b) == 0 && p.zeros == 0 }

// newAhead has unpack call put for what it has unpacked. Its error is what Read returns in the end, io.EOF for nil.
func newAhead(unpack func(a *ahead) error) *ahead {
	a := &ahead{free: make(chan []byte, aheadCount), filled: make(chan piece, aheadCount), quit: make(chan struct{}), ended: make(chan struct{})}
	for range aheadCount {
		a.free <- nil // memory is taken when it is needed
	}
	go func() {
		defer close(a.ended)
		a.err = unpack(a)
		if a.err == nil {
			a.err = io.EOF
		}
		if len(a.part) > 0 {
			if err := a.hand(piece{b: a.part}); a.err == io.EOF && err != nil {
				a.err = err
			}
		}
		close(a.filled)
	}()
	return a
}

// begin sees to it that there is room in part.
func (a *ahead) begin() error {
	if a.part != nil {
		return nil
	}
	select {
	case a.part = <-a.free:
	case <-a.quit:
		return errQuit
	}
	if a.part == nil {
		a.part = make([]byte, 0, aheadSize)
	}
	return nil
}

// pass hands part on if it is full.
func (a *ahead) pass() error {
	if len(a.part) < cap(a.part) {
		return nil
	}
	err := a.hand(piece{b: a.part})
	a.part = nil
	return err
}

func (a *ahead) hand(p piece) error {
	select {
	case a.filled <- p:
		return nil
	case <-a.quit:
		return errQuit
	}
}

// zero puts n zeros.
func (a *ahead) zero(n int64) error {
	if len(a.part) > 0 {
		if err := a.hand(piece{b: a.part}); err != nil {
			return err
		}
		a.part = nil
	}
	return a.hand(piece{zeros: n})
}

// put takes a copy of what was unpacked.
func (a *ahead) put(b []byte) error {
	for len(b) > 0 {
		if err := a.begin(); err != nil {
			return err
		}
		n := copy(a.part[len(a.part):cap(a.part)], b)
		a.part, b = a.part[:len(a.part)+n], b[n:]
		if err := a.pass(); err != nil {
			return err
		}
	}
	return nil
}

// copy puts what r has.
func (a *ahead) copy(r io.Reader) error {
	for {
		if err := a.begin(); err != nil {
			return err
		}
		n, err := r.Read(a.part[len(a.part):cap(a.part)])
		a.part = a.part[:len(a.part)+n]
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = a.pass()
		}
		if err != nil {
			return err
		}
	}
}

// next goes to the next piece if there is nothing left of this one.
func (a *ahead) next() error {
	if !a.rest.empty() {
		return nil
	}
	if a.now.b != nil {
		a.free <- a.now.b[:0]
		a.now = piece{}
	}
	var ok bool
	if a.now, ok = <-a.filled; !ok {
		return a.err
	}
	a.rest = a.now
	return nil
}

func (a *ahead) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := a.next(); err != nil {
		return 0, err
	}
	if a.rest.zeros > 0 {
		n := int(min(int64(len(p)), a.rest.zeros))
		clear(p[:n])
		a.rest.zeros -= int64(n)
		return n, nil
	}
	n := copy(p, a.rest.b)
	a.rest.b = a.rest.b[n:]
	return n, nil
}

// lend is Read without a copy: the bytes are good until the next call.
func (a *ahead) lend() (piece, error) {
	if err := a.next(); err != nil {
		return piece{}, err
	}
	p := a.rest
	a.rest = piece{}
	return p, nil
}

// peek returns the first bytes, up to n. That there are none, or fewer, is no error.
func (a *ahead) peek(n int) ([]byte, error) {
	if err := a.next(); err != nil && err != io.EOF {
		return nil, err
	}
	return a.rest.b[:min(n, len(a.rest.b))], nil
}

// Close waits until unpacking has ended, which may take until the reader underneath returns.
func (a *ahead) Close() {
	a.stop.Do(func() { close(a.quit) })
	<-a.ended
}
