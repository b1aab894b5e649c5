// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/ironhand/ironhand/inspect"
)

// A power cut while marks are changed leaves some that do not say that all is finished. They go, and before the one that says it: else the next creation would take
// what is whole for unfinished.
func TestUnmark(t *testing.T) {
	volumes, errs := parseConfig(json.RawMessage(software("1 20 system sda sdb")))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s := machine()
	p, err := planCreation(volumes, s, inspect.SkipList{}, room{"uefi", "gpt"})
	if err != nil {
		t.Fatal(err)
	}
	for i, table := range p.tables {
		d := s.disk(table.disk.Name)
		d.parts = table.parts
		d.mark = mark{Run: "r", Made: i == 0, Partitions: table.parts}
	}
	a := p.arrays[0]
	s.arrays = append(s.arrays, array{device: a.device, uuid: "u", name: a.name, version: "1.2", level: a.level, count: len(a.members), members: a.members})
	p, err = planCreation(volumes, s, inspect.SkipList{}, room{"uefi", "gpt"})
	if err != nil || fmt.Sprint(p.unmark) != "[/dev/sdb /dev/sda]" || len(p.redo) > 0 || len(p.keep) != 1 {
		t.Errorf("plan:\n%s\n%v\nmarks taken away from %v", p, err, p.unmark)
	}

	// Nothing is written to a disk on the skip list; and then the mark stays too that says of the other that it is finished.
	for _, test := range []struct{ name, skip, want string }{
		{"the other one is kept", "/dev/sda", "[/dev/sdb]"},
		{"the one is kept that the other speaks for", "/dev/sdb", "[]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			skip, err := inspect.ParseSkipList(json.RawMessage(`[{"name": "` + test.skip + `"}]`))
			if err != nil {
				t.Fatal(err)
			}
			p, err := planCreation(nil, s, skip, room{"uefi", "gpt"})
			if err != nil || fmt.Sprint(p.unmark) != test.want || len(p.redo) > 0 {
				t.Errorf("marks taken away from %v, %v, want %s; redo %v", p.unmark, err, test.want, p.redo)
			}
		})
	}
}

// A disk of an array that the skip list names is not cleared, whatever its mark says.
func TestMarkOfSkippedArray(t *testing.T) {
	s := machine().with("/dev/md0", "data", "raid1", 2, 1, "sda", "sdb")
	for _, name := range []string{"/dev/sda", "/dev/sdb"} {
		s.disk(name).mark = mark{Run: "r", Partitions: s.disk(name).parts}
	}
	skip, err := inspect.ParseSkipList(json.RawMessage(`[{"volume_name": "data"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := planCreation(nil, s, skip, room{"uefi", "gpt"}); len(p.redo) > 0 {
		t.Errorf("planCreation() clears %v, %v", p.redo, err)
	}
}
