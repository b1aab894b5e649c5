// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
)

// The schedule of heartbeats. Source: IPA ironic_python_agent/agent.py, IronicPythonAgentHeartbeater.
const (
	// After a success the next heartbeat comes after a random part of the time in which the
	// conductor would take the agent for dead.
	leastPart, mostPart = 0.3, 0.6
	// After a failure it comes after this time, or at random up to twice as late.
	afterFailure = 5 * time.Second
	// Between any two heartbeats is at least this.
	leastGap = 5 * time.Second
	// A heartbeat that was forced waits this long: the conductor may just be storing the answer to
	// its own request, and drops a heartbeat for a node that it has locked.
	settleTime = 2 * time.Second
)

// HeartbeatOptions are what heartbeats need.
type HeartbeatOptions struct {
	Send    func(ctx context.Context) error // sends one; retries are not its business
	Timeout time.Duration                   // after this time without a heartbeat the conductor takes the agent for dead
	Log     *slog.Logger
	// OnBeat is told how each heartbeat went, and how many have failed in a row. It stands in for lines in the log.
	OnBeat func(err error, failures int)
	Rand   func() float64 // in [0, 1); nil is math/rand
}

// Heartbeats tell the conductor that the agent lives, and with that they are what makes a
// deployment go on: the conductor looks at the last command when a heartbeat comes.
type Heartbeats struct {
	o    HeartbeatOptions
	wake chan struct{} // holds a value after Force

	mu     sync.Mutex
	forced time.Time // when an early heartbeat was asked for; zero if none is due
}

// NewHeartbeats prepares heartbeats. None is sent before Run.
func NewHeartbeats(o HeartbeatOptions) *Heartbeats {
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	return &Heartbeats{o: o, wake: make(chan struct{}, 1)}
}

// Force asks for a heartbeat as early as the schedule allows: for the end of an asynchronous
// command, which the conductor would else not notice for minutes. It stays due until a
// heartbeat that began after it has succeeded.
func (h *Heartbeats) Force() {
	h.mu.Lock()
	h.forced = time.Now()
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Run sends heartbeats until ctx ends, the first one at once.
func (h *Heartbeats) Run(ctx context.Context) {
	failures := 0
	for {
		began := time.Now()
		err := h.o.Send(ctx)
		if ctx.Err() != nil {
			return
		}
		var wait time.Duration
		if err == nil {
			h.served(began)
			if failures > 0 && h.o.OnBeat == nil {
				h.o.Log.Info("heartbeat accepted again", "failed", failures)
			}
			failures = 0
			wait = between(leastPart, mostPart, h.o.Rand(), h.o.Timeout)
		} else {
			failures++
			if failures&(failures-1) == 0 && h.o.OnBeat == nil { // the 1st, 2nd, 4th, 8th: an hour without conductor is no flood
				h.o.Log.Warn("heartbeat not accepted", "failed", failures, "err", err, "check", ironic.Hint(err))
			}
			wait = between(1, 2, h.o.Rand(), afterFailure)
		}
		if h.o.OnBeat != nil {
			h.o.OnBeat(err, failures)
		}
		if !h.sleep(ctx, time.Now(), wait) {
			return
		}
	}
}

// between returns a random part of d, at least least and less than most times d.
func between(least, most, random float64, d time.Duration) time.Duration {
	return time.Duration((least + (most-least)*random) * float64(d)).Round(time.Millisecond)
}

// served notes that a heartbeat that began at the given time has succeeded. What was forced later
// is still due: the conductor may have looked before the command ended.
func (h *Heartbeats) served(began time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.forced.After(began) {
		h.forced = time.Time{}
	}
}

// sleep waits for the next heartbeat: wait after the last one, or earlier if one is forced. It
// returns false if ctx ended.
func (h *Heartbeats) sleep(ctx context.Context, last time.Time, wait time.Duration) bool {
	for {
		due := last.Add(wait)
		h.mu.Lock()
		forced := h.forced
		h.mu.Unlock()
		if !forced.IsZero() {
			early := forced.Add(settleTime)
			if gap := last.Add(leastGap); early.Before(gap) {
				early = gap
			}
			if early.Before(due) {
				due = early
			}
		}
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
			return true
		case <-h.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}
