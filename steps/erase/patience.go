// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/steps"
)

const (
	// lookLimit is how long it may take to look at one device. A disk tries to read a bad sector for many seconds, and most looks read a few places.
	lookLimit = 2 * time.Minute
	// workLimit is how long one read, write or flush may take, of 64 MiB at most.
	workLimit = 10 * time.Minute
	// downLimit is how long it may take to take down what uses the disks: file systems write what they still hold.
	downLimit = time.Hour
	// stopLimit is how long what has begun is waited for when nobody wants it any more.
	stopLimit = 30 * time.Second
)

var errSilent = errors.New("the disk does not answer")

// within waits no longer than limit for work that may hang.
func within[T any](ctx context.Context, limit time.Duration, work func(context.Context) (T, error)) (T, error) {
	return steps.Within(ctx, limit, fmt.Errorf("%w within %v", errSilent, limit), work)
}

// read has a function read a device, as long as that may take. If it hangs, it stays behind, with the device open, until the device answers.
func read[T any](ctx context.Context, j *job, path string, f func(io.ReaderAt) (T, error)) (T, error) {
	return readBy(ctx, j.System.Read, path, f)
}

// readPast is read past all caches.
func readPast[T any](ctx context.Context, j *job, path string, f func(io.ReaderAt) (T, error)) (T, error) {
	return readBy(ctx, j.System.ReadPast, path, f)
}

func readBy[T any](ctx context.Context, open func(string) (io.ReaderAt, io.Closer, error), path string, f func(io.ReaderAt) (T, error)) (T, error) {
	return within(ctx, lookLimit, func(ctx context.Context) (T, error) {
		r, closer, err := open(path)
		if err != nil {
			var none T
			return none, err
		}
		v, err := f(readerUntil{ctx, r})
		return v, errors.Join(err, closer.Close())
	})
}

// readerUntil reads nothing more when its context has ended.
type readerUntil struct {
	ctx context.Context
	r   io.ReaderAt
}

func (r readerUntil) ReadAt(b []byte, at int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.ReadAt(b, at)
}

// busyLimit is how long a disk is waited for that is still in use: what was taken down from it may end a moment later, such as a file system that another process' mounts had too.
const busyLimit = 3 * time.Second

// open opens a disk for the step alone.
func (j *job) open(ctx context.Context, name string) (steps.Disk, error) {
	d, err := within(ctx, lookLimit, func(ctx context.Context) (steps.Disk, error) {
		d, err := j.host.Open(name)
		for end := time.Now().Add(busyLimit); errors.Is(err, syscall.EBUSY) && time.Now().Before(end) && ctx.Err() == nil; d, err = j.host.Open(name) {
			time.Sleep(100 * time.Millisecond)
		}
		if err == nil && ctx.Err() != nil { // nobody waits for it any more
			d.Close()
			return nil, context.Cause(ctx)
		}
		return d, err
	})
	if err != nil {
		return nil, err
	}
	return &patientDisk{Disk: d, ctx: ctx}, nil
}

// patientDisk is a disk that is waited for, and given up when it does not answer. Nothing more is asked of it then, and it stays open until it does: so nobody else can begin to use
// it while a write may still reach it.
type patientDisk struct {
	steps.Disk
	ctx context.Context

	mu      sync.Mutex // guards gone
	gone    error
	pending sync.WaitGroup
}

// do does one thing. When ctx has ended, what has begun is given the time to end.
func (p *patientDisk) do(ctx context.Context, work func() (int, error)) (int, error) {
	p.mu.Lock()
	gone := p.gone
	p.mu.Unlock()
	if gone != nil {
		return 0, gone
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	p.pending.Go(func() {
		n, err := work()
		done <- result{n, err}
	})
	limit := time.NewTimer(workLimit)
	defer limit.Stop()
	select {
	case r := <-done:
		return r.n, r.err
	case <-limit.C:
		return 0, p.giveUp(fmt.Errorf("%w within %v", errSilent, workLimit))
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.n, r.err
	case <-time.After(stopLimit):
		return 0, p.giveUp(fmt.Errorf("%w: %w", errSilent, context.Cause(ctx)))
	}
}

func (p *patientDisk) giveUp(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = err
	return err
}

// ReadAt implements [steps.Disk]. After an error b may still be written to.
func (p *patientDisk) ReadAt(b []byte, at int64) (int, error) {
	return p.do(p.ctx, func() (int, error) { return p.Disk.ReadAt(b, at) })
}

// WriteAt implements [steps.Disk]. After an error b may still be read.
func (p *patientDisk) WriteAt(b []byte, at int64) (int, error) {
	return p.do(p.ctx, func() (int, error) { return p.Disk.WriteAt(b, at) })
}

// Zero implements [steps.Disk].
func (p *patientDisk) Zero(ctx context.Context, at, n int64) error {
	_, err := p.do(ctx, func() (int, error) { return 0, p.Disk.Zero(ctx, at, n) })
	return err
}

// Sync implements [steps.Disk].
func (p *patientDisk) Sync() error {
	_, err := p.do(p.ctx, func() (int, error) { return 0, p.Disk.Sync() })
	return err
}

// RereadPartitions implements [steps.Disk].
func (p *patientDisk) RereadPartitions(ctx context.Context) error {
	_, err := p.do(ctx, func() (int, error) { return 0, p.Disk.RereadPartitions(ctx) })
	return err
}

// Close implements [steps.Disk].
func (p *patientDisk) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone == nil {
		return p.Disk.Close()
	}
	go func() {
		p.pending.Wait()
		p.Disk.Close() // it has failed already
	}()
	return nil
}
