// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Phase is what [Write] is at.
type Phase string

// The phases, in their order.
const (
	PhaseOpen     Phase = "open"      // waiting for the image's first bytes; the disk is untouched
	PhaseClear    Phase = "clear"     // clearing both ends of the disk
	PhaseWrite    Phase = "write"     // reading and writing
	PhaseVerify   Phase = "verify"    // comparing digests, waiting for the disk to have everything
	PhaseReadBack Phase = "read-back" // reading what was written
	PhaseCommit   Phase = "commit"    // writing what makes the disk bootable
	PhaseDone     Phase = "done"
)

// Progress is how far the writing of an image has come. Its JSON form is part of the agent's command status.
type Progress struct {
	Phase     Phase   `json:"phase"`
	Source    string  `json:"source"`               // the one that is read, without credentials
	Total     int64   `json:"bytes_total"`          // length of the image as published; -1 if not known
	Read      int64   `json:"bytes_read"`           // of these
	Again     int64   `json:"bytes_again"`          // that came more than once, because the server could not go on in the middle
	Retries   int     `json:"retries"`              // attempts after the first one
	LastError string  `json:"last_error,omitempty"` // why it was tried again last
	Written   int64   `json:"bytes_written"`        // to the disk
	Zeroed    int64   `json:"bytes_zeroed"`         // of the disk, without sending zeros
	Checked   int64   `json:"bytes_checked"`        // read back and found right
	Rate      int64   `json:"bytes_per_second"`     // of reading the image, over the last ten seconds or so
	Seconds   float64 `json:"seconds"`              // since the Meter was made
	Left      float64 `json:"seconds_left"`         // until the image is read, at this rate; -1 if that cannot be told
}

// String is one line for people: phase, how far, rate, time left, trouble.
func (p Progress) String() string {
	line := fmt.Sprintf("%s: %d MiB read", p.Phase, p.Read>>20)
	if p.Total > 0 {
		line = fmt.Sprintf("%s: %d of %d MiB read (%d %%)", p.Phase, p.Read>>20, p.Total>>20, 100*p.Read/p.Total)
	}
	line += fmt.Sprintf(", %d MiB/s", p.Rate>>20)
	if p.Left >= 1 {
		line += fmt.Sprintf(", %v left", time.Duration(p.Left)*time.Second)
	}
	line += fmt.Sprintf(", %d MiB written", p.Written>>20)
	if p.Retries > 0 {
		line += fmt.Sprintf(", from %s, %d retries (last: %s)", p.Source, p.Retries, strings.ReplaceAll(p.LastError, "\n", "; "))
	}
	return line
}

// Meter counts what a [Reader] and [Write] do. It may be read at any time by any goroutine. Make one with [NewMeter].
type Meter struct {
	total, read, again, retries atomic.Int64
	written, zeroed, checked    atomic.Int64
	start                       time.Time
	mu                          sync.Mutex // guards what follows
	phase                       Phase
	source, lastError           string
	samples                     []sample // of the last ten seconds, oldest first
}

type sample struct {
	at   time.Time
	read int64
}

// NewMeter returns a Meter that begins now.
func NewMeter() *Meter {
	m := &Meter{start: time.Now(), phase: PhaseOpen}
	m.total.Store(-1)
	return m
}

// Progress returns the counts of this moment.
func (m *Meter) Progress() Progress {
	now := sample{time.Now(), m.read.Load()}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Progress{
		Phase: m.phase, Source: m.source, Total: m.total.Load(), Read: now.read, Again: m.again.Load(),
		Retries: int(m.retries.Load()), LastError: m.lastError, Written: m.written.Load(), Zeroed: m.zeroed.Load(),
		Checked: m.checked.Load(), Rate: m.rate(now), Seconds: now.at.Sub(m.start).Seconds(), Left: -1,
	}
	if left := p.Total - p.Read; p.Total >= 0 && (p.Rate > 0 || left <= 0) {
		p.Left = float64(max(0, left)) / float64(max(1, p.Rate))
	}
	return p
}

// rate needs the lock.
func (m *Meter) rate(now sample) int64 {
	if n := len(m.samples); n == 0 || now.at.Sub(m.samples[n-1].at) >= time.Second {
		m.samples = append(m.samples, now)
	}
	for len(m.samples) > 2 && now.at.Sub(m.samples[1].at) >= 10*time.Second {
		m.samples = m.samples[1:]
	}
	from := m.samples[0]
	if now.at.Sub(from.at) < time.Second { // too short to say anything
		from = sample{m.start, 0}
	}
	seconds := now.at.Sub(from.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return int64(float64(now.read-from.read) / seconds)
}

// Announce says from where an image comes, and how long it is as it is published, in bytes: for a [Swarm], which no [Reader] reads.
func (m *Meter) Announce(source string, total int64) {
	m.total.Store(total)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.source = source
}

// Received counts bytes that have come in another way than through a [Reader].
func (m *Meter) Received(n int64) { m.read.Add(n) }

// Report calls f with the progress each time that every has passed, until stop is called or ctx is done. f is not called any
// more when stop has returned; stop calls it once more, for the last state.
func (m *Meter) Report(ctx context.Context, every time.Duration, f func(Progress)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f(m.Progress())
			case <-ctx.Done():
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		cancel()
		<-done
		f(m.Progress())
	})
}

func (m *Meter) setPhase(p Phase) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = p
}

func (m *Meter) setSource(name string, size int64) {
	m.total.Store(size)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.source = name
}

func (m *Meter) retry(err error) {
	m.retries.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastError = err.Error()
}
