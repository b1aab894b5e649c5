// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Time limits for devices that do not answer. What hangs is reported, and the rest is whole.
const (
	deviceLimit = 5 * time.Second  // one disk, one interface, one group of the kernel's own files
	driverLimit = 3 * time.Second  // all questions about one interface
	bmcLimit    = 20 * time.Second // all questions to a BMC; slow ones take 100 ms for each
	groupLimit  = 3 * time.Minute  // all disks, all interfaces: only if many hang
	atOnce      = 16               // devices that are looked at beside each other
)

// within does work with a time limit. ok is false if it did not end in time; that is a problem then, and the work goes on alone until the device lets
// it go, so it must not write to what others read.
func within[T any](r *reader, what string, limit time.Duration, work func(r *reader) T) (result T, ok bool) {
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	own := &reader{ctx: ctx, fsys: r.fsys, asker: r.asker}
	done := make(chan T, 1)
	go func() { done <- work(own) }()
	select {
	case result = <-done:
		if ctx.Err() == nil {
			r.add(own)
			return result, true
		}
	case <-ctx.Done():
	}
	if r.ctx.Err() == nil {
		r.problem(fmt.Errorf("%s: %w within %v", what, errNoAnswer, limit))
	}
	var none T
	return none, false
}

// errNoAnswer is the problem of a device that hangs.
var errNoAnswer = errors.New("no answer")

// each does work for each name, several beside each other, and returns the results in the order of the names. What hung has a result of instead.
func each[T any](r *reader, what string, limit time.Duration, names []string, work func(r *reader, name string) T, instead func(name string) T) []T {
	results, readers := make([]T, len(names)), make([]*reader, len(names))
	room := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, name := range names {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			own := &reader{ctx: r.ctx, fsys: r.fsys, asker: r.asker}
			result, ok := within(own, what+" "+name, limit, func(r *reader) T { return work(r, name) })
			if !ok {
				result = instead(name)
			}
			results[i], readers[i] = result, own
		})
	}
	all.Wait()
	for _, own := range readers {
		r.add(own)
	}
	return results
}
