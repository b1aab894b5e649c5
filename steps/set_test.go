// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
)

// vendor is a manager of a test.
type vendor struct {
	class, version string
	level          Support
	fails          error
	steps          []Step
}

func (v vendor) Class() string                                  { return v.class }
func (v vendor) Name() string                                   { return strings.ToLower(v.class) }
func (v vendor) Version() string                                { return v.version }
func (v vendor) Support(context.Context, Host) (Support, error) { return v.level, v.fails }
func (v vendor) Steps() []Step                                  { return v.steps }

func step(name string, priority int) Step {
	return Step{Name: name, Priority: map[Phase]int{Clean: priority}}
}

func TestSetList(t *testing.T) {
	for _, test := range []struct {
		name     string
		managers []Manager
		want     string // class/step of the clean steps
		fails    error
	}{
		{"one", []Manager{vendor{class: "A", level: Generic, steps: []Step{step("x", 1), step("y", 0)}}}, "A/x A/y", nil},
		{"higher support wins", []Manager{
			vendor{class: "A", level: Generic, steps: []Step{step("x", 99)}},
			vendor{class: "B", level: Mainline, steps: []Step{step("x", 0)}}}, "B/x", nil},
		{"then higher priority", []Manager{
			vendor{class: "A", level: Generic, steps: []Step{step("x", 1)}},
			vendor{class: "B", level: Generic, steps: []Step{step("x", 2)}}}, "B/x", nil},
		{"then the name that sorts first", []Manager{
			vendor{class: "B", level: Generic, steps: []Step{step("x", 1)}},
			vendor{class: "A", level: Generic, steps: []Step{step("x", 1)}}}, "A/x", nil},
		{"not this machine", []Manager{
			vendor{class: "A", level: Generic, steps: []Step{step("x", 1)}},
			vendor{class: "B", level: None, steps: []Step{step("y", 1)}}}, "A/x", nil},
		{"another phase", []Manager{vendor{class: "A", level: Generic, steps: []Step{{Name: "x", Priority: map[Phase]int{Deploy: 1}}}}}, "", nil},
		{"none", nil, "", ErrNoManager},
		{"none that supports it", []Manager{vendor{class: "A", level: None}}, "", ErrNoManager},
		{"probe fails", []Manager{vendor{class: "A", fails: errors.New("no bus")}}, "", ErrNoManager},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, err := NewSet(t.Context(), Host{}, test.managers)
			if !errors.Is(err, test.fails) || (err != nil) != (test.fails != nil) {
				t.Fatalf("NewSet() = %v, want %v", err, test.fails)
			}
			list := set.List(Clean)
			var got []string
			for _, class := range slices.Sorted(maps.Keys(list)) {
				for _, s := range list[class] {
					got = append(got, class+"/"+s.Name)
				}
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("List() = %q, want %q", text, test.want)
			}
		})
	}
}

func TestSetFindAndVersions(t *testing.T) {
	set, err := NewSet(t.Context(), Host{}, []Manager{
		vendor{class: "A", version: "1", level: Generic, steps: []Step{step("x", 1), {Name: "only-asked-for"}}},
		vendor{class: "B", version: "7", level: ServiceProvider, steps: []Step{{Name: "x", Interface: "raid"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := set.Find("x"); err != nil || s.Interface != "raid" {
		t.Errorf(`Find("x") = %+v, %v, want that of B`, s, err)
	}
	if _, err := set.Find("only-asked-for"); err != nil {
		t.Errorf("a step that no phase offers: %v", err)
	}
	if _, err := set.Find("none"); !errors.Is(err, ErrNoStep) || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf(`Find("none") = %v`, err)
	}
	if got := fmt.Sprint(set.Versions()); got != "map[a:1 b:7]" {
		t.Errorf("Versions() = %s", got)
	}
	for _, test := range []struct {
		want map[string]string
		ok   bool
	}{
		{nil, true}, {map[string]string{"a": "1", "b": "7"}, true},
		{map[string]string{}, false}, {map[string]string{"a": "1"}, false}, {map[string]string{"a": "1", "b": "8"}, false},
		{map[string]string{"a": "1", "b": "7", "c": "1"}, false},
	} {
		if err := set.CheckVersions(test.want); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrVersion) {
			t.Errorf("CheckVersions(%v) = %v, want ok %v", test.want, err, test.ok)
		}
	}
}

func TestRootDisk(t *testing.T) {
	machine := inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/virtio.txt")}
	for _, test := range []struct {
		name, node, want, fails string
	}{
		{"no hints: the smallest of at least 4 GiB", `{}`, "/dev/vdb", ""},
		{"empty hints", `{"properties": {"root_device": {}}}`, "/dev/vdb", ""},
		{"null", `{"properties": {"root_device": null}}`, "/dev/vdb", ""},
		{"properties", `{"properties": {"root_device": {"serial": "root-disk"}}}`, "/dev/vda", ""},
		{"instance_info first", `{"instance_info": {"root_device": {"name": "/dev/sda"}}, "properties": {"root_device": {"serial": "root-disk"}}}`, "/dev/sda", ""},
		{"none fits", `{"properties": {"root_device": {"serial": "other"}}}`, "", "other"},
		{"unknown hint", `{"properties": {"root_device": {"colour": "blue"}}}`, "", "colour"},
		{"not an object", `{"properties": {"root_device": "sda"}}`, "", "hints"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var n Node
			if err := json.Unmarshal([]byte(test.node), &n); err != nil {
				t.Fatal(err)
			}
			choice, err := RootDisk(t.Context(), machine, n)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("RootDisk() = %v, %v, want an error with %q", choice.Disk, err, test.fails)
				}
				return
			}
			if err != nil || choice.Disk.Name != test.want {
				t.Errorf("RootDisk() = %v, %v, want %s", choice.Disk, err, test.want)
			}
		})
	}
}
