// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Event is one entry of a [Timeline].
type Event struct {
	At    time.Duration // since power-on
	Stage string        // one word or two: "network"
	Text  string
}

// String is the event as it is printed: "[   4.213] network: eth0 ...".
func (e Event) String() string { return stamp(e.At, printable(e.Stage+": "+e.Text)) }

// maxEvents bounds the memory of a Timeline. The first half of them is never dropped: how a boot began says most.
const maxEvents = 1000

// Timeline prints one line for each stage that the machine goes through, with the time since power-on, and remembers them for
// the logs that the conductor collects. Process 1 takes the lines to every console. Methods may be called at the same time.
type Timeline struct {
	w     io.Writer
	clock func() time.Duration

	mu     sync.Mutex
	events []Event
}

// NewTimeline returns a Timeline that prints to w, which is the agent's standard output.
func NewTimeline(w io.Writer) *Timeline { return &Timeline{w: w, clock: SinceBoot} }

// Stage notes and prints one line. What the text must not hold are secrets: the line goes to every console.
func (t *Timeline) Stage(name, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := Event{At: t.clock(), Stage: name, Text: fmt.Sprintf(format, args...)}
	if len(t.events) == maxEvents {
		t.events = slices.Delete(t.events, maxEvents/2, maxEvents/2+1)
	}
	t.events = append(t.events, e)
	// Standard output is the last resort: there is nowhere to say that it failed, and the event is kept.
	_, _ = fmt.Fprintln(t.w, e)
}

// Events returns what was noted, oldest first. The slice is the caller's.
func (t *Timeline) Events() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.events)
}
