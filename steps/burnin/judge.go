// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"fmt"
	"slices"
)

// Verdict is what a part got.
type Verdict string

// The verdicts. A part that was not tested has none, or was skipped for a reason; it never passes.
const (
	Pass    Verdict = "PASS"
	Fail    Verdict = "FAIL"
	Skipped Verdict = "SKIPPED"
)

// Part is one part of the machine, as people find it, and its verdict.
type Part struct {
	Name    string   `json:"name"`
	Verdict Verdict  `json:"verdict"`
	Reasons []string `json:"reasons"` // of anything but a pass, and what else was seen; never null
	rates   map[string]Rate
}

// rule says from which number on a counter that grew is told, and from which on the part fails; 0 is never.
type rule struct{ note, fail int64 }

// rules are all there are. docs/burn-in.md has them with their reasons.
var rules = map[kind]rule{
	corrected:     {note: 1, fail: 10},
	uncorrected:   {fail: 1},
	machineCheck:  {fail: 1},
	throttled:     {note: 1},
	busCorrected:  {note: 1, fail: 100},
	busNonfatal:   {fail: 1},
	busFatal:      {fail: 1},
	nicErrors:     {note: 1, fail: 10},
	linkChanges:   {note: 1, fail: 2}, // one flap
	diskErrors:    {note: 1},          // also counts questions that a disk does not know
	mediaErrors:   {fail: 1},
	reallocated:   {fail: 1},
	diskFailing:   {fail: 1},
	kernelMessage: {fail: 1},
	gone:          {fail: 1},
}

// judge compares the counters of a machine before and after. Only parts with something to tell are in the list.
func judge(before, after sample, messages map[string][]string) []Part {
	grown := map[key]int64{}
	for k, n := range after.counts {
		if k.kind != diskFailing { // is no less true for having been so before
			n -= before.counts[k]
		}
		grown[k] = n
	}
	for part := range before.parts {
		if !after.parts[part] {
			grown[key{part, gone}] = 1
		}
	}
	for part, list := range messages {
		grown[key{part, kernelMessage}] = int64(len(list))
	}

	var parts []Part
	for k, n := range grown {
		r := rules[k.kind]
		fails := r.fail > 0 && n >= r.fail
		if !fails && (r.note == 0 || n < r.note) {
			continue
		}
		p := find(&parts, k.part)
		if fails {
			p.Verdict = Fail
		}
		reason := fmt.Sprintf("%d %s", n, k.kind)
		if k.kind == kernelMessage {
			reason += ", the first: " + messages[k.part][0]
		}
		p.Reasons = append(p.Reasons, reason)
	}
	for i := range parts {
		slices.Sort(parts[i].Reasons)
	}
	sortParts(parts)
	return parts
}

// find returns the part of a name, which is made if need be and has no verdict then.
func find(parts *[]Part, name string) *Part {
	i := slices.IndexFunc(*parts, func(p Part) bool { return p.Name == name })
	if i < 0 {
		i = len(*parts)
		*parts = append(*parts, Part{Name: name, Reasons: []string{}})
	}
	return &(*parts)[i]
}

func sortParts(parts []Part) {
	slices.SortFunc(parts, func(a, b Part) int { return cmp.Compare(a.Name, b.Name) })
}
