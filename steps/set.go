// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A Set is the managers that support this machine, best first.
type Set struct {
	managers []supported
	priority map[string]int // of steps, where it was set
}

type supported struct {
	Manager
	level Support
}

// Errors that callers ask for.
var (
	// ErrNoManager means that no manager supports the machine.
	ErrNoManager = errors.New("no hardware manager supports this machine")
	// ErrNoStep means that no manager has a step of the name.
	ErrNoStep = errors.New("no hardware manager has the step")
	// ErrVersion means that the managers changed since the steps were listed.
	ErrVersion = errors.New("hardware managers changed since their steps were listed")
)

// NewSet asks each manager whether it supports the machine and keeps those that do.
func NewSet(ctx context.Context, h Host, managers []Manager) (Set, error) {
	var s Set
	var errs []error
	for _, m := range managers {
		level, err := m.Support(ctx, h)
		if err != nil {
			errs = append(errs, fmt.Errorf("probe %s: %w", m.Name(), err))
			continue
		}
		if level > None {
			s.managers = append(s.managers, supported{m, level})
		}
	}
	slices.SortStableFunc(s.managers, func(a, b supported) int { return cmp.Compare(b.level, a.level) })
	if len(s.managers) == 0 {
		errs = append(errs, ErrNoManager)
	}
	return s, errors.Join(errs...)
}

// Versions returns the version of each manager by its name.
func (s Set) Versions() map[string]string {
	v := map[string]string{}
	for _, m := range s.managers {
		v[m.Name()] = m.Version()
	}
	return v
}

// CheckVersions returns [ErrVersion] if want, the versions at the time when
// the steps were listed, are not today's. A nil want asks nothing.
func (s Set) CheckVersions(want map[string]string) error {
	if have := s.Versions(); want != nil && !maps.Equal(want, have) {
		return fmt.Errorf("%w: %v, now %v", ErrVersion, want, have)
	}
	return nil
}

// List returns the steps that a phase offers, by the class of their manager. A name
// that several managers offer stays with the one of the highest support; between
// equals with the higher priority; then with the name that sorts first.
func (s Set) List(p Phase) map[string][]Step {
	best := map[string]owned{}
	for _, m := range s.managers {
		for _, step := range m.Steps() {
			if _, offered := step.Priority[p]; !offered {
				continue
			}
			one := owned{step, m.Class(), m.level}
			if had, taken := best[step.Name]; !taken || one.before(had, p) {
				best[step.Name] = one
			}
		}
	}
	list := map[string][]Step{}
	for _, name := range slices.Sorted(maps.Keys(best)) {
		o := best[name]
		if priority, set := s.priority[name]; set {
			o.step.Priority = maps.Clone(o.step.Priority)
			o.step.Priority[p] = priority
		}
		list[o.class] = append(list[o.class], o.step)
	}
	return list
}

// Prioritize gives the steps of a name another priority in List, in each phase that offers them.
func (s *Set) Prioritize(name string, priority int) {
	s.priority = maps.Clone(s.priority)
	if s.priority == nil {
		s.priority = map[string]int{}
	}
	s.priority[name] = priority
}

// owned is a step and the manager that has it.
type owned struct {
	step  Step
	class string
	level Support
}

// before tells whether one is taken rather than other, in a phase.
func (one owned) before(other owned, p Phase) bool {
	mine, offered := one.step.Priority[p]
	others, otherOffered := other.step.Priority[p]
	if offered != otherOffered {
		return offered
	}
	return cmp.Or(
		cmp.Compare(one.level, other.level),
		cmp.Compare(mine, others),
		cmp.Compare(other.class, one.class),
	) > 0
}

// Find returns the step of a name: the one that List has for the phase. Like
// ironic-python-agent, a step may be asked for even where it is not offered.
func (s Set) Find(name string, p Phase) (Step, error) {
	var best owned
	found := false
	for _, m := range s.managers {
		for _, step := range m.Steps() {
			if one := (owned{step, m.Class(), m.level}); step.Name == name && (!found || one.before(best, p)) {
				best, found = one, true
			}
		}
	}
	if !found {
		return Step{}, fmt.Errorf("%w %q", ErrNoStep, name)
	}
	return best.step, nil
}
