// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// Snapshot is the machine at one moment of a burn-in, for those who watch.
type Snapshot struct {
	Time     time.Time
	Celsius  map[string]float64 // by sensor
	MHz      map[string]float64 // by socket, the mean of its cores
	RPM      map[string]float64 // by fan
	Watts    map[string]float64 // by sensor
	Findings []Part             // what the judge would say now
}

// PlannedLoad is a load of a plan, for people.
type PlannedLoad struct {
	Part  string        // what it tests: "processors"
	Text  string        // what will be done
	Lasts time.Duration // 0 if not known
}

// Loads are the loads of the plan, in their order.
func (p *Plan) Loads() []PlannedLoad {
	list := make([]PlannedLoad, len(p.loads))
	for i, l := range p.loads {
		list[i] = PlannedLoad{Part: l.part, Text: l.text, Lasts: l.lasts}
	}
	return list
}

// Writable is nil if a burn-in may overwrite a disk without force, as far as can be seen now: it is no removable one and no medium with settings, nobody uses it, and it holds no data.
func Writable(h steps.Host, d inspect.Disk) error {
	if why := leftOut(h, d); why != "" {
		return errors.New(why)
	}
	opened, err := hold(h, d)
	if err != nil {
		return err
	}
	return errors.Join(empty(opened), opened.Close())
}

// errSkipped ends one load alone.
var errSkipped = errors.New("skipped by hand")

// skippable returns a context for one load, which ends when a value comes from skip. end frees what it needs.
func skippable(ctx context.Context, skip <-chan struct{}) (load context.Context, end func()) {
	load, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-skip:
			cancel(errSkipped)
		case <-load.Done():
		}
	}()
	return load, func() { cancel(nil) }
}

// halted is how long the host's programs have been halted by hand; 0 if they cannot be.
func halted(h steps.Host) time.Duration {
	if t, ok := h.Tools.(interface{ Halted() time.Duration }); ok {
		return t.Halted()
	}
	return 0
}

// lasting runs a program that works for a time. While the program is halted its clock goes on, so it is run again for what is missing, with the arguments that say so: of two
// times that they are given stress-ng and fio take the last.
func lasting(h steps.Host, lasts time.Duration, flag string, run func(more ...string) error) error {
	var more []string
	for {
		began, before := time.Now(), halted(h)
		if err := run(more...); err != nil {
			return err
		}
		pause := halted(h) - before
		lasts -= time.Since(began) - pause
		switch {
		case lasts < time.Second:
			return nil
		case pause < time.Second: // such as of stress-ng, whose workers the kernel has killed for memory: it exits with 0
			return fmt.Errorf("the program ended %v before its time, and does not say why", lasts.Round(time.Second))
		}
		more = []string{flag, strconv.Itoa(int(lasts.Seconds()))}
	}
}

// haltedPart is what is told of a load that was halted by hand.
func haltedPart(part string, pause time.Duration) []Part {
	if pause < time.Second {
		return nil
	}
	return []Part{{Name: part, Reasons: []string{fmt.Sprintf("halted by hand for %v, which do not count", pause.Round(time.Second))}}}
}
