// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"hash"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunkSize   = 1 << 20 // bytes that are handed on at a time, and the longest write
	readChunks  = 8       // that a Reader holds at most, but for those of a window
	maxChunks   = readChunks + 2*MaxConnections
	writeChunks = 8 // that Write holds at most
)

// ReaderOptions is how a [Reader] deals with trouble. The zero value is usable.
type ReaderOptions struct {
	// Patience is how long to keep trying, after a failure, without getting ahead (by 64 KiB); 0 stands for 5 min. There is
	// always a second attempt.
	Patience time.Duration
	Log      *slog.Logger // hears of each new attempt; nil is silent
	Meter    *Meter       // counts; the same one as in Options of Write; nil for none
	// Connections is how many connections to make to a web server, at most MaxConnections; 0 stands for 1. More than one are made only for a long image, from
	// a server that tells its length and sends parts of it; those that the server turns away (429, 503) are not made again.
	Connections int
	// Ahead is how many bytes are read ahead, at least 2 MiB and at most 8; 0 stands for 8 MiB, and for 2 with a Swarm.
	Ahead int
	// Signature is what the image has to fit besides the digest; the zero Signature for none.
	Signature Signature
}

// Reader reads an image, as it is published, from the first of several sources that works. When a connection breaks, stalls or ends
// too early it goes on at that byte, with the next source if need be. A short image is never read to its io.EOF.
//
// It reads ahead and computes the digest on goroutines of its own, and holds 8 MiB, or what Ahead says, or 32 with several connections. Read, Size, Verify and Close are for one
// goroutine.
type Reader struct {
	resume  *resumer
	sources []Source // all
	want    Digest
	hash    hash.Hash // nil if no digest is wanted
	signed  *signedHash
	size    atomic.Int64

	cancel  context.CancelCauseFunc
	free    chan *chunk
	filled  chan *chunk // to Read, in order
	hashing chan *chunk // to the hash, in order
	signing chan *chunk // to that of the signature, in order
	running sync.WaitGroup
	err     error // of resume; may be read when filled is closed

	connections int
	anyVersion  bool // what the sources say of versions does not count any more

	current *chunk // that Read takes from; nil if none
	rest    []byte // of it
}

// chunk is a piece of the image, free again when all its users have let go of it.
type chunk struct {
	buf   []byte
	n     int
	users atomic.Int32
	home  chan *chunk // where it goes when it is free

	// Of a part of a window:
	at   int64         // in the image
	got  int           // bytes of n that have come
	done chan struct{} // closed when all have
}

// NewReader begins to read. The sources are mirrors of one image, tried in order. With the zero Digest nothing is verified, and
// a reader that has begun with one source does not go on with another. ctx ends the reading; Close must be called in any case.
func NewReader(ctx context.Context, sources []Source, want Digest, o ReaderOptions) *Reader {
	if o.Patience <= 0 {
		o.Patience = 5 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = NewMeter()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r := &Reader{
		resume:  &resumer{ctx: ctx, sources: sources, proven: !want.IsZero() || !o.Signature.IsZero(), patience: o.Patience, log: o.Log, meter: o.Meter, size: -1, end: -1},
		sources: sources, want: want, hash: want.hash(), signed: o.Signature.hash(), cancel: cancel,
		free: make(chan *chunk, readChunks), filled: make(chan *chunk, maxChunks), hashing: make(chan *chunk, maxChunks), signing: make(chan *chunk, maxChunks),
		connections: min(o.Connections, MaxConnections),
	}
	r.size.Store(-1)
	if o.Ahead <= 0 {
		o.Ahead = readChunks * chunkSize
		if len(sources) > 0 {
			if _, ok := sources[0].(Swarm); ok { // it reads ahead itself
				o.Ahead = 2 * chunkSize
			}
		}
	}
	for range min(max(2, o.Ahead/chunkSize), readChunks) {
		r.free <- &chunk{buf: make([]byte, chunkSize), home: r.free}
	}
	r.running.Go(func() {
		defer close(r.filled)
		defer close(r.hashing)
		defer close(r.signing)
		defer r.resume.Close() // what is left unread is of no interest
		r.err = r.fetch(ctx)
	})
	r.running.Go(r.sum)
	r.running.Go(r.sumSigned)
	return r
}

// fetch fills chunks and hands them on, until the image ends (io.EOF) or an error ends it.
func (r *Reader) fetch(ctx context.Context) error {
	switch {
	case len(r.resume.sources) == 0:
		return errors.New("read image: no source is given")
	case !r.want.IsZero() && r.hash == nil:
		return errors.New("read image: digest of unknown algorithm")
	}
	if r.connections > 1 {
		r.resume.first = firstPart
	}
	for {
		var c *chunk
		select {
		case c = <-r.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var err error
		for c.n = 0; c.n < len(c.buf) && err == nil; {
			var n int
			n, err = r.resume.Read(c.buf[c.n:])
			c.n += n
			r.resume.meter.read.Add(int64(n))
			r.size.Store(r.resume.size)
		}
		if c.n > 0 {
			r.hand(c)
		} else {
			r.free <- c
		}
		if err == io.EOF && r.resume.end >= 0 && r.resume.offset < r.resume.size { // that was the first part
			r.resume.Close()
			next := r.resume.offset
			if r.resume.size >= worthwhile {
				var err error
				next, err = r.fetchParts(ctx, r.connections)
				if !errors.Is(err, ErrNoRanges) && !r.takeAnyVersion(err) || ctx.Err() != nil {
					return err
				}
				// A server that has parts no more, or a mirror that never had, may still have the whole; and so may several behind one name.
				read := r.resume.meter.read.Swap(next)
				r.resume.meter.again.Add(read - next)
				r.resume.again(err, 0)
			}
			r.resume.begin(next, -1)
			continue
		}
		if r.connections > 1 && r.takeAnyVersion(err) {
			r.resume.again(err, 0)
			r.resume.begin(r.resume.offset, -1)
			continue
		}
		if err != nil {
			return err
		}
	}
}

// takeAnyVersion has the image read on where its version seems to have changed, which is how several servers behind one name look that do not agree on ETags. It does
// so only where we have asked more than once ourselves, and the digest decides whether it is one image.
func (r *Reader) takeAnyVersion(err error) bool {
	if r.anyVersion || !r.resume.proven || !errors.Is(err, ErrChanged) {
		return false
	}
	r.anyVersion = true
	for _, s := range r.sources {
		if s, ok := s.(remote); ok {
			s.anyVersion()
		}
	}
	r.resume.sources, r.resume.dropped = r.sources, nil
	return true
}

// hand gives a chunk to Read and to the hash. Neither blocks: there are no more chunks than places.
func (r *Reader) hand(c *chunk) {
	c.users.Store(3)
	r.hashing <- c
	r.signing <- c
	r.filled <- c
}

// part is a resumer for parts of the image, from the source that is used and, if the digest proves the image, from the others.
func (r *Reader) part(ctx context.Context) *resumer {
	sources := *r.resume.using.Load()
	if !r.resume.proven {
		sources = sources[:1]
	}
	return &resumer{ctx: ctx, sources: sources, proven: r.resume.proven, patience: r.resume.patience, log: r.resume.log, meter: r.resume.meter, size: r.Size()}
}

// sum puts the chunks through the hash.
func (r *Reader) sum() {
	for c := range r.hashing {
		if r.hash != nil {
			r.hash.Write(c.buf[:c.n]) // never returns an error
		}
		r.release(c)
	}
}

// sumSigned puts the chunks through what the signature needs.
func (r *Reader) sumSigned() {
	for c := range r.signing {
		r.signed.write(c.buf[:c.n])
		r.release(c)
	}
}

func (r *Reader) release(c *chunk) {
	if c.users.Add(-1) == 0 {
		c.home <- c
	}
}

// Read reads the image as it is published. After an error other than io.EOF there is no use in reading on: what could be mended has
// been.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.current == nil {
		c, ok := <-r.filled
		if !ok {
			return 0, r.err
		}
		r.current, r.rest = c, c.buf[:c.n]
	}
	n := copy(p, r.rest)
	if r.rest = r.rest[n:]; len(r.rest) == 0 {
		r.release(r.current)
		r.current = nil
	}
	return n, nil
}

// ReadAt reads a part of the image as it is published, out of its order and besides what Read reads, on a connection of its own. What it reads is not
// proven by the digest: who needs that compares it with what Read brings. It may be called by several goroutines at a time, after the first Read. The
// error wraps [ErrNoRanges] if no source hands out parts.
func (r *Reader) ReadAt(p []byte, offset int64) (int, error) {
	if r.resume.using.Load() == nil {
		return 0, errors.New("read a part of the image: nothing of it was read yet")
	}
	part := r.part(r.resume.ctx)
	part.begin(offset, offset+int64(len(p)))
	defer part.Close() // all that is wanted was read
	n, err := io.ReadFull(part, p)
	part.meter.again.Add(int64(n))
	return n, err
}

// Size is the length of the image as it is published, in bytes; -1 if not known. It is known after the first Read unless the
// source does not tell it.
func (r *Reader) Size() int64 { return r.size.Load() }

// Verify reads what is left of the image, and compares the digest of all of it with the one wanted; the error for a wrong one
// wraps [ErrDigest], that for a wrong signature [ErrSignature]. Without either it only makes sure that all of the image came.
func (r *Reader) Verify() error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	r.running.Wait()
	if r.hash != nil {
		if err := r.want.check(r.hash); err != nil {
			return err
		}
	}
	if len(r.signed.checks) > 0 {
		return r.signed.verify()
	}
	return nil
}

// Abort ends the reading at once, with err as what Read returns in the end. It may be called at any time, by any goroutine.
func (r *Reader) Abort(err error) { r.cancel(err) }

// Close ends the reading and waits until it has ended. It may be called more than once.
func (r *Reader) Close() error {
	r.cancel(nil)
	r.running.Wait()
	for _, s := range r.sources {
		if s, ok := s.(remote); ok {
			s.hangUp()
		}
	}
	return nil
}
