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
}
