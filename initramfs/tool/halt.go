// SPDX-License-Identifier: Apache-2.0

package tool

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// Halting runs programs as Exec does, and can halt all that run, for as long as somebody wants. Each program has a process group of its own, which is halted, let go on, and at the end of the
// context killed as a whole. The zero value is ready for use.
type Halting struct {
	Exec Exec

	mu     sync.Mutex
	groups map[int]bool  // of the programs that run
	since  time.Time     // when they were halted; zero if they run
	before time.Duration // how long they were halted earlier
}

// Run implements Runner. A program that is started while the others are halted is halted too.
func (h *Halting) Run(ctx context.Context, t Tool, args ...string) ([]byte, error) {
	return h.Exec.run(ctx, h, t, args...)
}

// run starts a program and waits for its end.
func (h *Halting) run(cmd *exec.Cmd) error {
	runtime.LockOSThread() // see ownGroup
	defer runtime.UnlockOSThread()
	ownGroup(cmd)
	h.mu.Lock()
	err := cmd.Start()
	if err != nil {
		h.mu.Unlock()
		return err
	}
	pid := cmd.Process.Pid
	if h.groups == nil {
		h.groups = map[int]bool{}
	}
	h.groups[pid] = true
	if !h.since.IsZero() {
		err = halt(pid)
	}
	h.mu.Unlock()
	if err != nil {
		err = errors.Join(fmt.Errorf("halt %s: %w", cmd.Path, err), cmd.Cancel())
	}
	ended := cmd.Wait()
	h.mu.Lock()
	delete(h.groups, pid)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	return ended
}

// Halt halts all programs. Those that are halted already stay so.
func (h *Halting) Halt() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.since.IsZero() {
		return nil
	}
	h.since = time.Now()
	return h.each("halt", halt)
}

// Resume lets all programs go on.
func (h *Halting) Resume() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() {
		return nil
	}
	h.before += time.Since(h.since)
	h.since = time.Time{}
	return h.each("resume", resume)
}

func (h *Halting) each(what string, do func(group int) error) error {
	var errs []error
	for pid := range h.groups {
		if err := do(pid); err != nil {
			errs = append(errs, fmt.Errorf("%s process group %d: %w", what, pid, err))
		}
	}
	return errors.Join(errs...)
}

// Running is how many programs run, halted or not.
func (h *Halting) Running() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.groups)
}

// Halted is how long programs have been halted so far, all times together.
func (h *Halting) Halted() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() {
		return h.before
	}
	return h.before + time.Since(h.since)
}
