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

// Counter is what a part counted while a load ran.
type Counter struct {
	Part  string `json:"part"`
	Kind  string `json:"kind"`
	Count int64  `json:"count"`
}

// grown are the counters that grew between two samples. said are the lines that were told of a part.
func grown(before, after sample, said map[key][]string) map[key]int64 {
	grown := map[key]int64{}
	for k, n := range after.counts {
		if k.kind != diskFailing { // is no less true for having been so before
			n -= before.counts[k]
		}
		if n > 0 {
			grown[k] = n
		}
	}
	for part := range before.parts {
		if !after.parts[part] {
			grown[key{part, gone}] = 1
		}
	}
	for k, list := range said {
		grown[k] = int64(len(list))
	}
	return grown
}

// judge gives a verdict on what grew. Only parts with something to tell are in the list.
func (r rules) judge(grown map[key]int64, said map[key][]string) []Part {
	var parts []Part
	for k, n := range grown {
		c := r.counter(k.kind)
		fails := c.Fail > 0 && n >= c.Fail
		if !fails && (c.Told == 0 || n < c.Told) {
			continue
		}
		p := find(&parts, k.part)
		if fails {
			p.Verdict = Fail
		}
		reason := fmt.Sprintf("%d %s", n, k.kind)
		if list := said[k]; len(list) > 0 {
			reason += ", the first: " + list[0]
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

// list are counters in the order of parts.
func list(grown map[key]int64) []Counter {
	all := []Counter{}
	for k, n := range grown {
		all = append(all, Counter{k.part, string(k.kind), n})
	}
	slices.SortFunc(all, func(a, b Counter) int { return cmp.Or(cmp.Compare(a.Part, b.Part), cmp.Compare(a.Kind, b.Kind)) })
	return all
}

func sortParts(parts []Part) {
	slices.SortFunc(parts, func(a, b Part) int { return cmp.Compare(a.Name, b.Name) })
}
