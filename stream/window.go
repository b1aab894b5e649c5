// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

const (
	// MaxConnections is how many connections a Reader makes at the most.
	MaxConnections = 16
	// firstPart is how much of an image is asked for first where several connections are wanted, in bytes: the answer tells the length and whether parts
	// can be had at all.
	firstPart = 1 << 20
	// worthwhile is how long an image is, in bytes, that is worth more than one connection.
	worthwhile = 16 << 20
	// windowSize is what the parts take together that are fetched or wait for those before them, in bytes.
	windowSize = 24 << 20
)

// remote is a source that several connections may be faster with.
type remote interface {
	Ranger
	hangUp()     // closes connections that nobody uses
	anyVersion() // has answers count as one image if they have one length
}

// window fetches parts of an image over several connections, and hands them on in their order.
type window struct {
	r     *Reader
	part  int64       // bytes of a part
	parts chan *chunk // in the order of the image
	work  chan *chunk // to be fetched
	alive atomic.Int32
	fail  context.CancelCauseFunc // ends all: the part that failed may not be the first in the order, and nobody may be left who could fetch that
}

// fetchParts fetches the rest of the image, of which the length is known, over n connections. It returns up to where all has been handed on, and io.EOF if that is
// the end.
func (r *Reader) fetchParts(ctx context.Context, n int) (next int64, err error) {
	size := r.resume.size
	next = r.resume.offset
	w := &window{r: r, part: int64(windowSize) * 2 / 3 / int64(n)}
	count := windowSize / int(w.part)
	free := make(chan *chunk, count)
	for range count {
		free <- &chunk{buf: make([]byte, w.part), home: free}
	}
	w.parts, w.work = make(chan *chunk, count), make(chan *chunk, count)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.fail = cancel

	// 1. Some fetch.
	var working sync.WaitGroup
	w.alive.Store(int32(n))
	for range n {
		part := r.part(ctx)
		working.Go(func() { w.fetch(part) })
	}
	// 2. One says what. There are no more parts at a time than places, so neither channel blocks.
	working.Go(func() {
		defer close(w.parts)
		for at := r.resume.offset; at < size; {
			var c *chunk
			select {
			case c = <-free:
			case <-ctx.Done():
				return
			}
			c.at, c.got, c.n, c.done = at, 0, int(min(w.part, size-at)), make(chan struct{})
			at += int64(c.n)
			w.parts <- c
			w.work <- c
		}
	})
	// 3. One hands on.
	err = func() error {
		for c := range w.parts {
			select {
			case <-c.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			next = c.at + int64(c.n)
			r.hand(c)
		}
		return nil
	}()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err) // who waits for work hears of it
	working.Wait()
	if err != nil {
		return next, err
	}
	return next, io.EOF
}

// fetch fetches parts over one connection until there are no more, or the server asks for fewer connections.
func (w *window) fetch(part *resumer) {
	defer part.Close() // it is at the end of its part, or of no interest
	yields := false
	part.yield = func(err error) bool {
		status, ok := errors.AsType[*StatusError](err)
		if !ok || status.Status != http.StatusTooManyRequests && status.Status != http.StatusServiceUnavailable {
			return false
		}
		for {
			n := w.alive.Load()
			if n == 1 { // somebody has to do it
				return false
			}
			if w.alive.CompareAndSwap(n, n-1) {
				yields = true
				return true
			}
		}
	}
	for {
		var c *chunk
		select {
		case c = <-w.work:
		case <-part.ctx.Done():
			return
		}
		part.begin(c.at+int64(c.got), c.at+int64(c.n))
		for c.got < c.n {
			n, err := part.Read(c.buf[c.got:c.n])
			c.got += n
			w.r.resume.meter.read.Add(int64(n))
			if err != nil && c.got < c.n {
				if yields {
					w.work <- c // there is a place for each
					return
				}
				w.fail(short(err))
				return
			}
		}
		close(c.done)
	}
}
