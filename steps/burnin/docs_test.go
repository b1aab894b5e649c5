// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is in docs/ that is made from the rules")

// TestDocs compares the tables in docs/burn-in.md with the rules; -update writes them.
func TestDocs(t *testing.T) {
	const file, begin, end = "../../docs/burn-in.md", "<!-- Made by `make generate` from steps/burnin/rules.yaml; changes here are lost. -->\n", "<!-- Here ends what is made. -->\n"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found1 := strings.Cut(string(b), begin)
	_, after, found2 := strings.Cut(rest, end)
	if !found1 || !found2 {
		t.Fatalf("%s has no place for the rules", file)
	}
	r, err := readRules()
	if err != nil {
		t.Fatal(err)
	}
	want := before + begin + r.tables() + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(b) != want {
		t.Errorf("docs/burn-in.md is not what the rules say; run `make generate`")
	}
}

// tables are the rules for people.
func (r rules) tables() string {
	var b strings.Builder
	number := func(n int64) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	cell := strings.NewReplacer("|", "\\|")
	b.WriteString("\n| What | Of | From | Told | FAIL | Why | Source |\n|---|---|---|---|---|---|---|\n")
	for _, c := range r.Counters {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", c.Counter, c.Of, c.From, number(c.Told), number(c.Fail), c.Why, c.Source)
	}
	b.WriteString("\nMessages of the kernel, the first that fits:\n\n| Pattern | Means | About | | Source |\n|---|---|---|---|---|\n")
	for _, m := range r.Messages {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", cell.Replace(m.Pattern), m.Means, m.Part, map[bool]string{true: "FAIL", false: "told"}[m.Fail], m.Source)
	}
	b.WriteString("\nEvents in the BMC's log (IPMI 2.0, tables 42-2 and 42-3; all others are told):\n\n| Sensor type | Event type | Offset | Means | About | |\n|---|---|---|---|---|---|\n")
	for _, e := range r.Events {
		fmt.Fprintf(&b, "| %02Xh | %02Xh | %d | %s | %s | %s |\n", e.Sensor, e.Event, e.Offset, e.Means, e.Part, map[bool]string{true: "told", false: "FAIL"}[e.Told])
	}
	b.WriteString("\nComparison with other runs:\n\n| What | Told | Scatter, of four and more | FAIL | Why |\n|---|---|---|---|---|\n")
	for _, l := range r.Baseline {
		limit, fail := fmt.Sprintf("more than %v above the median", l.Distance), ""
		if l.Worse == "lower" {
			limit = fmt.Sprintf("below %v of the median", l.Ratio)
		}
		if l.Fail > 0 {
			fail = fmt.Sprintf("below %v of the median", l.Fail)
		}
		fmt.Fprintf(&b, "| %s | %s | %v deviations | %s | %s |\n", l.Metric, limit, l.Deviations, cmp.Or(fail, "never"), l.Why)
	}
	return b.String() + "\n"
}
