// SPDX-License-Identifier: Apache-2.0

package steps_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/steps"
)

// manager is a hardware manager of a test. Its steps say who ran them.
type manager struct {
	name    string
	level   steps.Support
	err     error
	steps   map[string]int // name -> priority in the phase clean; -1 is offered in deploy instead
	version string
}

func (m manager) Class() string   { return strings.ToUpper(m.name) }
func (m manager) Name() string    { return m.name }
func (m manager) Version() string { return m.version }
func (m manager) Support(context.Context, steps.Host) (steps.Support, error) {
	return m.level, m.err
}

func (m manager) Steps() []steps.Step {
	var list []steps.Step
	for _, name := range slices.Sorted(maps.Keys(m.steps)) {
		p := map[steps.Phase]int{steps.Clean: m.steps[name]}
		if m.steps[name] < 0 {
			p = map[steps.Phase]int{steps.Deploy: 5}
		}
		list = append(list, steps.Step{Name: name, Interface: "i", Priority: p, Run: func(context.Context, steps.Host, steps.Job) (any, error) {
			return m.name, nil
		}})
	}
	return list
}

// printed is a list as text: CLASS:step=priority, sorted.
func printed(p steps.Phase, list map[string][]steps.Step) string {
	var texts []string
	for _, class := range slices.Sorted(maps.Keys(list)) {
		for _, s := range list[class] {
			texts = append(texts, fmt.Sprintf("%s:%s=%d", class, s.Name, s.Priority[p]))
		}
	}
	return strings.Join(texts, " ")
}

func TestSetList(t *testing.T) {
	tests := []struct {
		name     string
		managers []manager
		phase    steps.Phase
		want     string
	}{
		{"one", []manager{{name: "a", level: 1, steps: map[string]int{"x": 1, "y": 0, "z": -1}}}, steps.Clean, "A:x=1 A:y=0"},
		{"other phase", []manager{{name: "a", level: 1, steps: map[string]int{"x": 1, "z": -1}}}, steps.Deploy, "A:z=5"},
		{"no step for the phase", []manager{{name: "a", level: 1, steps: map[string]int{"x": 1}}}, steps.Service, ""},
		{"does not support the machine", []manager{{name: "a", level: 1, steps: map[string]int{"x": 1}}, {name: "b", level: 0, steps: map[string]int{"y": 1}}}, steps.Clean, "A:x=1"},
		{"twice: support counts first", []manager{{name: "a", level: 1, steps: map[string]int{"x": 99, "y": 1}}, {name: "b", level: 3, steps: map[string]int{"x": 10}}}, steps.Clean, "A:y=1 B:x=10"},
		{"twice: even against priority 0", []manager{{name: "a", level: 1, steps: map[string]int{"x": 99}}, {name: "b", level: 2, steps: map[string]int{"x": 0}}}, steps.Clean, "B:x=0"},
		{"twice: then priority", []manager{{name: "a", level: 2, steps: map[string]int{"x": 1}}, {name: "b", level: 2, steps: map[string]int{"x": 2}}}, steps.Clean, "B:x=2"},
		{"twice: then the name", []manager{{name: "b", level: 2, steps: map[string]int{"x": 1}}, {name: "a", level: 2, steps: map[string]int{"x": 1}}}, steps.Clean, "A:x=1"},
		{"three", []manager{{name: "c", level: 1, steps: map[string]int{"x": 3}}, {name: "b", level: 2, steps: map[string]int{"x": 1}}, {name: "a", level: 2, steps: map[string]int{"x": 2}}}, steps.Clean, "A:x=2"},
		{"better manager offers it in another phase only", []manager{{name: "a", level: 1, steps: map[string]int{"x": 3}}, {name: "b", level: 2, steps: map[string]int{"x": -1}}}, steps.Clean, "A:x=3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// The order in which main names the managers does not matter.
			reversed := slices.Clone(test.managers)
			slices.Reverse(reversed)
			for _, list := range [][]manager{test.managers, reversed} {
				set, err := steps.NewSet(t.Context(), steps.Host{}, managers(list))
				if err != nil {
					t.Fatal(err)
				}
				listed := set.List(test.phase)
				if got := printed(test.phase, listed); got != test.want {
					t.Errorf("List(%s) = %s, want %s", test.phase, got, test.want)
				}
				// What is listed is what is run.
				for class, offered := range listed {
					for _, one := range offered {
						step, err := set.Find(one.Name, test.phase)
						if err != nil {
							t.Fatal(err)
						}
						if who, err := step.Run(t.Context(), steps.Host{}, steps.Job{}); err != nil || !strings.EqualFold(fmt.Sprint(who), class) {
							t.Errorf("%s of %s is run by %v, %v", one.Name, class, who, err)
						}
					}
				}
			}
		})
	}
}

func managers(list []manager) (all []steps.Manager) {
	for _, m := range list {
		all = append(all, m)
	}
	return all
}

func TestSetFind(t *testing.T) {
	set, err := steps.NewSet(t.Context(), steps.Host{}, managers([]manager{
		{name: "low", level: 1, steps: map[string]int{"x": 9, "y": 1}},
		{name: "high", level: 3, steps: map[string]int{"x": 0, "deploy-only": -1}},
		{name: "none", level: 0, steps: map[string]int{"x": 9, "z": 9}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"x": "high", "y": "low", "deploy-only": "high"} {
		step, err := set.Find(name, steps.Clean)
		if err != nil {
			t.Errorf("Find(%s) = %v", name, err)
			continue
		}
		if who, err := step.Run(t.Context(), steps.Host{}, steps.Job{}); who != want {
			t.Errorf("%s was run by %v, %v, want %s", name, who, err, want)
		}
	}
	for _, name := range []string{"z", "", "X"} {
		if _, err := set.Find(name, steps.Clean); !errors.Is(err, steps.ErrNoStep) || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("Find(%q) = %v, want ErrNoStep with the name", name, err)
		}
	}
}

func TestNewSetRefuses(t *testing.T) {
	broken := errors.New("no such device")
	tests := []struct {
		name string
		list []manager
		want []error
	}{
		{"no manager", nil, []error{steps.ErrNoManager}},
		{"none supports the machine", []manager{{name: "a"}}, []error{steps.ErrNoManager}},
		{"one cannot tell", []manager{{name: "a", level: 1}, {name: "b", level: 2, err: broken}}, []error{broken}},
		{"none can tell", []manager{{name: "b", level: 2, err: broken}}, []error{broken, steps.ErrNoManager}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := steps.NewSet(t.Context(), steps.Host{}, managers(test.list))
			for _, want := range test.want {
				if !errors.Is(err, want) {
					t.Errorf("NewSet() = %v, want %v", err, want)
				}
			}
			if errors.Is(err, broken) && !strings.Contains(err.Error(), "probe b: ") {
				t.Errorf("NewSet() = %v does not name the manager", err)
			}
		})
	}
}

func TestCheckVersions(t *testing.T) {
	set, err := steps.NewSet(t.Context(), steps.Host{}, managers([]manager{
		{name: "a", level: 1, version: "1"}, {name: "b", level: 2, version: "2"}, {name: "c", level: 0, version: "3"}}))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		want map[string]string
		ok   bool
	}{
		{"same", map[string]string{"a": "1", "b": "2"}, true},
		{"not asked", nil, true},
		{"newer", map[string]string{"a": "1", "b": "3"}, false},
		{"one was added", map[string]string{"a": "1"}, false},
		{"one is gone", map[string]string{"a": "1", "b": "2", "c": "3"}, false},
		{"another name", map[string]string{"a": "1", "B": "2"}, false},
		{"none were there", map[string]string{}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := set.CheckVersions(test.want); (err == nil) != test.ok || err != nil && !errors.Is(err, steps.ErrVersion) {
				t.Errorf("CheckVersions(%v) = %v", test.want, err)
			}
		})
	}
}

func TestPrioritize(t *testing.T) {
	set, err := steps.NewSet(t.Context(), steps.Host{}, managers([]manager{{name: "a", level: steps.Generic, steps: map[string]int{"x": 1, "y": -1}}, {name: "b", level: steps.Mainline, steps: map[string]int{"x": 2}}}))
	if err != nil {
		t.Fatal(err)
	}
	before := set
	set.Prioritize("x", 50)
	set.Prioritize("y", 60)
	set.Prioritize("unknown", 70)
	for phase, want := range map[steps.Phase]string{steps.Clean: "B:x=50", steps.Deploy: "A:y=60", steps.Service: ""} {
		if got := printed(phase, set.List(phase)); got != want {
			t.Errorf("steps of %s are %s, want %s", phase, got, want)
		}
	}
	if got := printed(steps.Clean, before.List(steps.Clean)); got != "B:x=2" {
		t.Errorf("the list without is %s", got)
	}
}
