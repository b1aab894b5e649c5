// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A retirement is why the agent serves no more in this boot, and the last that it does.
type retirement struct {
	mu   sync.Mutex
	why  string
	stop context.CancelFunc // ends the API and the heartbeats; nil while there are none
	// refuse lets no other command begin; nil like stop.
	refuse func()
}

// begun tells whether the agent has retired.
func (r *retirement) begun() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why != ""
}

// systemCommands take the machine out of the conductor's hands.
func (a *agent) systemCommands() []Command {
	return []Command{{Name: "system.lockdown", Run: a.lockdown}}
}

// Why an agent retires.
const (
	lockedDown = "locked down"
	rescued    = "rescue mode until the next boot: the machine is its tenant's, and the API is closed"
	// rescuedHere also leaves the network as it is.
	rescuedHere = rescued + "; the network stays as it is"
)

// lockdown ends the API and takes all network interfaces down, for nodes that are not to be switched off. Source: IPA
// ironic_python_agent/extensions/system.py.
func (a *agent) lockdown(context.Context, json.RawMessage) (any, error) {
	return nil, a.retire(lockedDown)
}

// retire has the agent stop serving: no command begins any more, the answer to the one that asks for it still gets through, then the API and the heartbeats
// end, and the machine is left to itself until it is booted again. An agent that is started again in this boot does nothing else either.
func (a *agent) retire(why string) error {
	if err := a.state.keepRetired(why); err != nil {
		return fmt.Errorf("remember the end of service: %w", err)
	}
	r := &a.retirement
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = why
	if r.stop != nil {
		r.refuse() // the machine may be somebody else's before the API has ended
		time.AfterFunc(answerTime, r.stop)
	}
	return nil
}

// served is called when the API has ended. If the agent has retired it ends only with ctx.
func (a *agent) served(ctx context.Context) error {
	a.retirement.mu.Lock()
	why := a.retirement.why
	a.retirement.mu.Unlock()
	if why == "" {
		return nil
	}
	return a.rest(ctx, why)
}

// rest does what is last, which an agent before this one may have left undone, and leaves the machine alone. What fails is tried again by the
// next agent.
func (a *agent) rest(ctx context.Context, why string) error {
	switch why {
	case lockedDown:
		if a.endLeases != nil {
			a.endLeases() // which would switch NICs on
		}
		if err := a.sys.LinksDown(); err != nil {
			return fmt.Errorf("lock the machine down: %w", err)
		}
		why += ": the network is down until the next boot"
	case rescued, rescuedHere:
		if err := a.state.forget(); err != nil { // the machine is handed over all the same
			a.sayLines("end", "FAILED: "+err.Error())
		}
		if why == rescued {
			var following sync.WaitGroup
			following.Go(func() { a.followPorts(ctx) })
			defer following.Wait()
		}
	}
	return a.idle(ctx, why)
}

// idle leaves the machine alone.
func (a *agent) idle(ctx context.Context, why string) error {
	a.console.Stage("end", "%s", why)
	<-ctx.Done()
	return ctx.Err()
}

// retired returns why an earlier agent of this boot retired, or "".
func (s state) retired() (string, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "retired"))
	if os.IsNotExist(err) {
		return "", nil
	}
	return string(b), err
}

func (s state) keepRetired(why string) error {
	return keepFile(filepath.Join(s.dir, "retired"), []byte(why))
}
