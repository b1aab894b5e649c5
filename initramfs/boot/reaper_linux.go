// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// reaper starts children and takes the status of every process that ends below process 1, its own children and those whose parent is gone.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]chan<- syscall.WaitStatus
}

// start starts a program. Its status comes once over the channel.
func (r *reaper) start(program string, args []string, attr *syscall.ProcAttr) (pid int, ended <-chan syscall.WaitStatus, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err = syscall.ForkExec(program, args, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", program, err)
	}
	status := make(chan syscall.WaitStatus, 1)
	r.waiting[pid] = status
	return pid, status, nil
}

// reap takes the status of all that have ended, and reports whether no child is left. It does not wait.
func (r *reaper) reap() (none bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			return true
		case err != nil || pid == 0:
			return false
		default:
			if ended := r.waiting[pid]; ended != nil {
				ended <- status
				delete(r.waiting, pid)
			}
		}
	}
}

// describe says how a process ended.
func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("was killed by signal %d (%s)", status.Signal(), status.Signal())
	}
	return fmt.Sprintf("ended with exit status %d", status.ExitStatus())
}
