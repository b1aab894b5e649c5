// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

const (
	firstWait = 100 * time.Millisecond // before the first new attempt
	lastWait  = 15 * time.Second       // before each of many
	// enough is how many bytes count as a step forward. A server that hands out single bytes is not waited for for ever.
	enough = 64 << 10
	// failuresInRow is how often a source may fail without a step forward before the next one is tried.
	failuresInRow = 3
)

// resumer reads one image from one of several sources, and goes on at the byte where a connection broke.
type resumer struct {
	ctx      context.Context
	sources  []Source      // those that may still be tried; the first is the one in use
	proven   bool          // a digest will prove the image, so its parts may come from several sources
	patience time.Duration // from a failure on, without a step forward
	log      *slog.Logger
	meter    *Meter

	first  int64         // how much to ask for first, to see whether parts can be had; 0 for all
	end    int64         // where the part that is read ends, -1 for the end of the image
	body   io.ReadCloser // nil when there is no connection
	offset int64         // of the next byte
	size   int64         // -1 if not known yet

	step     int64     // offset at the last step forward
	trouble  time.Time // of the first failure since then; a disk that takes nothing for a while is none
	failures int       // since then, on this source
	attempts int       // since then, on all
	dropped  []error   // why sources are no longer in the list

	yield func(error) bool         // asked before a new attempt whether to leave it to others, if it is not nil
	using atomic.Pointer[[]Source] // sources when one was opened last, for other goroutines; a list is never changed, but replaced

	hangUp atomic.Pointer[context.CancelCauseFunc] // ends the connection of this moment; nil before the first
}

// Read returns the next bytes of the image. io.EOF means that all of it was read; any other error is the last word.
func (r *resumer) Read(p []byte) (int, error) {
	for {
		if r.size >= 0 && r.offset >= r.size || r.end >= 0 && r.offset >= r.end {
			return 0, io.EOF
		}
		n, err := r.try(p)
		r.offset += int64(n)
		if r.offset-r.step >= enough {
			r.step, r.failures, r.attempts = r.offset, 0, 0
		}
		switch {
		case err == nil || r.offset == r.size || r.offset == r.end: // what comes after the last byte does not matter
		case err == io.EOF && r.size < 0:
			r.size = r.offset // the server never said, so this is the end
			r.meter.total.Store(r.size)
		default:
			if err == io.EOF {
				err = fmt.Errorf("%v ended after %d of %d bytes: %w", r.sources[0], r.offset, r.size, io.ErrUnexpectedEOF)
			}
			r.Close()
			if err := r.mend(err); err != nil {
				return n, err
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

// try makes a connection if there is none, and reads once.
func (r *resumer) try(p []byte) (int, error) {
	if r.body == nil {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	if r.size >= 0 {
		p = p[:min(int64(len(p)), r.size-r.offset)]
	}
	if r.end >= 0 {
		p = p[:min(int64(len(p)), r.end-r.offset)]
	}
	return r.body.Read(p)
}

func (r *resumer) open() error {
	s := r.sources[0]
	ctx, cancel := context.WithCancelCause(r.ctx)
	r.hangUp.Store(&cancel)
	body, err := r.connect(ctx, s)
	if err != nil {
		cancel(nil)
		return err
	}
	if b, ok := body.(skipper); ok {
		r.meter.again.Add(b.Skipped())
	}
	size := s.Size()
	if r.offset == 0 {
		r.size = -1 // what another source said does not bind this one
	}
	if b, ok := body.(openEnded); ok && b.OpenEnd() && max(r.size, size) < 0 && !r.proven {
		body.Close() // not read
		return Final(fmt.Errorf("%v: the server does not say how long the image is and ends it by hanging up, as a broken connection does: give a digest, or have it send Content-Length", s))
	}
	if r.size >= 0 && size >= 0 && size != r.size {
		body.Close() // not read
		return Final(fmt.Errorf("%w: %v holds %d bytes, not %d", ErrChanged, s, size, r.size))
	}
	r.body, r.size = body, max(r.size, size)
	using := r.sources
	r.using.Store(&using)
	r.meter.setSource(s.String(), r.size)
	return nil
}

// connect asks a source for what is wanted. ctx is for this connection.
func (r *resumer) connect(ctx context.Context, s Source) (io.ReadCloser, error) {
	far, isFar := s.(remote)
	if r.offset == 0 && r.first > 0 && isFar {
		body, err := far.OpenRange(ctx, 0, r.first)
		if err == nil {
			r.end = r.first
			if b, ok := body.(wholer); ok && b.Whole() {
				r.end = -1
			}
			return body, nil
		}
		r.end = -1
		if !IsFinal(err) {
			return nil, err
		}
		// It may be the part that it does not like.
	} else if r.offset == 0 && r.first > 0 {
		r.end = -1
	}
	if r.end < 0 {
		return s.Open(ctx, r.offset)
	}
	if ranger, ok := s.(Ranger); ok {
		body, err := ranger.OpenRange(ctx, r.offset, r.end-r.offset)
		if r.first > 0 && errors.Is(err, ErrNoRanges) { // a mirror that has only the whole, and was asked in the middle of the first part
			r.end = -1
			return s.Open(ctx, r.offset)
		}
		return body, err
	}
	return nil, Final(fmt.Errorf("%v: %w", s, ErrNoRanges))
}

// begin makes r read another part.
func (r *resumer) begin(from, to int64) {
	r.offset, r.step, r.end = from, from, to
	r.failures, r.attempts = 0, 0
	r.Close() // it is at its end
}

// mend decides what to do about an error: it drops the source or moves it to the end of the list, and waits. The error it
// returns is what Read returns; nil means to try again.
func (r *resumer) mend(err error) error {
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	if r.yield != nil && r.yield(err) {
		r.log.Warn("image: one connection less", "source", r.sources[0].String(), "error", err)
		return err
	}
	now := time.Now()
	if r.attempts == 0 {
		r.trouble = now
	}
	r.attempts++
	r.failures++
	status, _ := errors.AsType[*StatusError](err)

	// 1. Which source is next?
	switch mayMove := r.offset == 0 || r.proven; {
	case IsFinal(err):
		r.dropped = append(r.dropped, err)
		r.sources = r.sources[1:]
		r.failures = 0
		if len(r.sources) > 0 && !mayMove {
			r.dropped = append(r.dropped, fmt.Errorf("go on at byte %d from %v: no digest is given that would prove that it is the same image", r.offset, r.sources[0]))
		}
		if len(r.sources) == 0 || !mayMove {
			return errors.Join(r.dropped...)
		}
		r.again(err, 0)
		return nil
	case len(r.sources) > 1 && mayMove && (r.failures >= failuresInRow || status != nil):
		r.sources = append(slices.Clone(r.sources[1:]), r.sources[0])
		r.failures = 0
	}

	// 2. How long to wait? The longer it goes on the longer, and never all nodes of a site at the same moment.
	left := r.patience - now.Sub(r.trouble)
	if left <= 0 {
		err = fmt.Errorf("no %d bytes in %v and %d attempts: %w", enough, r.patience, r.attempts, err)
		return errors.Join(append(slices.Clone(r.dropped), err)...)
	}
	wait := min(firstWait<<min(r.attempts-1, 20), lastWait)
	wait = wait/2 + rand.N(wait/2)
	if status != nil && len(r.sources) == 1 {
		wait = max(wait, status.After)
	}
	wait = min(wait, left)
	r.again(err, wait)

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// again makes a new attempt visible.
func (r *resumer) again(err error, wait time.Duration) {
	r.meter.retry(err)
	r.log.Warn("image: try again", "byte", r.offset, "source", r.sources[0].String(), "wait", wait.Round(time.Millisecond), "error", err)
}

func (r *resumer) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	defer r.interrupt(nil)
	return body.Close()
}

// interrupt breaks the connection of this moment, if there is one; Read goes on over another. Any goroutine may call it.
func (r *resumer) interrupt(why error) {
	if cancel := r.hangUp.Load(); cancel != nil {
		(*cancel)(why)
	}
}
