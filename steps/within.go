// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"time"
)

// Within returns what work does, or no later than limit the error late. Work that hangs, as reading a disk may, is left to itself: it must not write to what others read.
func Within[T any](ctx context.Context, limit time.Duration, late error, work func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := work(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done: // at the same time
		return r.value, r.err
	default:
		var none T
		return none, context.Cause(ctx)
	}
}
