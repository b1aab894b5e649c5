// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWithin(t *testing.T) {
	late, bad, away := errors.New("late"), errors.New("bad"), errors.New("away")
	for _, tt := range []struct {
		name  string
		takes time.Duration
		gives error
		stop  time.Duration // when nobody wants it any more
		want  error
		after time.Duration
	}{
		{name: "in time", takes: time.Second, after: time.Second},
		{name: "fails in time", takes: time.Second, gives: bad, want: bad, after: time.Second},
		{name: "hangs", takes: time.Hour, gives: bad, want: late, after: time.Minute},
		{name: "not wanted", takes: time.Hour, stop: 5 * time.Second, want: away, after: 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				if tt.stop > 0 {
					time.AfterFunc(tt.stop, func() { cancel(away) })
				}
				defer cancel(nil)
				began := time.Now()
				got, err := Within(ctx, time.Minute, late, func(context.Context) (int, error) { time.Sleep(tt.takes); return 7, tt.gives })
				if !errors.Is(err, tt.want) || (err == nil) != (got == 7 && tt.gives == nil) || time.Since(began) != tt.after {
					t.Errorf("Within() = %d, %v after %v, want %v after %v", got, err, time.Since(began), tt.want, tt.after)
				}
				time.Sleep(tt.takes) // until what was left to itself has ended
			})
		})
	}
}
