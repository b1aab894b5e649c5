// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
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

	// A connection that holds up the others is given up if it is so many times slower than they are. It gets the time first, and each time again the double: what is slow
	// at every connection is the image and not the connection.
	farSlower   = 8
	slowTime    = 2 * time.Second
	slowChanges = 3 // for one part
)

var errSlow = errors.New("connection is far slower than the others")

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

	mu    sync.Mutex
	lanes []*lane   // one for each connection
	rates []float64 // bytes per second of the parts that were fetched last
}

// lane is what one connection is at. The window's lock guards it.
type lane struct {
	part    *resumer
	at      int64 // of the part in the image; -1 for none
	since   time.Time
	got     int64 // bytes since then
	changes int   // connections that were given up for this part
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
		l := &lane{part: r.part(ctx), at: -1}
		w.lanes = append(w.lanes, l)
		working.Go(func() { w.fetch(l) })
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
			if err := w.await(ctx, c); err != nil {
				return err
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

// await waits until a part has come, and sees to it that no single connection holds it up.
func (w *window) await(ctx context.Context, c *chunk) error {
	look := time.NewTicker(slowTime / 4)
	defer look.Stop()
	for {
		select {
		case <-c.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-look.C:
			w.hurry(c, now)
		}
	}
}

// hurry has a part go on over another connection if its own is far slower than the others were lately.
func (w *window) hurry(c *chunk, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.lanes, func(l *lane) bool { return l.at == c.at })
	if i < 0 || len(w.rates) == 0 {
		return
	}
	usual := median(w.rates)
	l := w.lanes[i]
	took := now.Sub(l.since)
	if l.changes >= slowChanges || took < slowTime<<l.changes || float64(l.got)/took.Seconds() >= usual/farSlower {
		return
	}
	l.changes++
	l.since, l.got = now, 0
	l.part.interrupt(errSlow)
}

func median(rates []float64) float64 {
	sorted := slices.Clone(rates)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

// begin, count and end keep what a connection is at.
func (w *window) begin(l *lane, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.at, l.since, l.got, l.changes = at, time.Now(), 0, 0
}

func (w *window) count(l *lane, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.got += int64(n)
}

func (w *window) end(l *lane) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.at = -1
	w.rates = append(w.rates, float64(l.got)/max(time.Since(l.since), time.Microsecond).Seconds())
	if len(w.rates) > len(w.lanes) {
		w.rates = w.rates[1:]
	}
}

// fetch fetches parts over one connection at a time until there are no more, or the server asks for fewer connections.
func (w *window) fetch(l *lane) {
	part := l.part
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
		w.begin(l, c.at)
		part.begin(c.at+int64(c.got), c.at+int64(c.n))
		for c.got < c.n {
			n, err := part.Read(c.buf[c.got:c.n])
			c.got += n
			w.count(l, n)
			w.r.resume.meter.read.Add(int64(n))
			if err != nil && c.got < c.n {
				if yields {
					w.begin(l, -1)
					w.work <- c // there is a place for each
					return
				}
				w.fail(short(err))
				return
			}
		}
		w.end(l)
		close(c.done)
	}
}
