// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

//go:embed rules.yaml
var rulesFile []byte

// rules are all by which a burn-in judges: rules.yaml, which says where each comes from and why it is as it is.
type rules struct {
	Counters []counterRule
	Messages []messageRule
	Events   []eventRule
	Baseline []baselineRule
}

// counterRule says from which number on a counter that grew is told, and from which on the part fails; 0 is never.
type counterRule struct {
	Counter     kind
	Of, From    string
	Told, Fail  int64
	Source, Why string
}

// messageRule knows lines of the kernel's log.
type messageRule struct {
	Pattern, Part string
	Fail          bool // else it is told
	Means, Source string
	expr          *regexp.Regexp
}

// eventRule knows events of the BMC's log that are faults.
type eventRule struct {
	Sensor, Event, Offset byte
	Part, Means           string
	Told                  bool // and no more
}

// baselineRule says how far a metric may be from that of other machines.
type baselineRule struct {
	Metric     string
	Worse      string // lower or higher
	Ratio      float64
	Distance   float64
	Fail       float64 // ratio
	Deviations float64
	Why        string
}

// readRules reads the rules that are built in.
func readRules() (rules, error) { return parseRules(rulesFile) }

// parseRules reads rules. Each has to say something.
func parseRules(text []byte) (r rules, err error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil && !errors.Is(err, io.EOF) {
		return r, fmt.Errorf("read the rules: %w", err)
	}
	for i := range r.Counters {
		c := &r.Counters[i]
		if c.Counter == "" || c.Told < 0 || c.Fail < 0 || c.Told == 0 && c.Fail == 0 || c.Told > c.Fail && c.Fail > 0 || c.Source == "" || c.Why == "" {
			return r, fmt.Errorf("read the rules: counter %q: want told, fail or both, a source and a reason", c.Counter)
		}
		if slices.ContainsFunc(r.Counters[:i], func(other counterRule) bool { return other.Counter == c.Counter }) {
			return r, fmt.Errorf("read the rules: counter %q is there twice", c.Counter)
		}
	}
	for i := range r.Messages {
		m := &r.Messages[i]
		if m.expr, err = regexp.Compile(m.Pattern); err != nil {
			return r, fmt.Errorf("read the rules: %w", err)
		}
		if m.Pattern == "" || m.Part == "" || m.Means == "" || m.Source == "" {
			return r, fmt.Errorf("read the rules: message %q: want a part, a meaning and a source", m.Pattern)
		}
	}
	for _, e := range r.Events {
		if e.Part == "" || e.Means == "" {
			return r, fmt.Errorf("read the rules: event %#02x: want a part and a meaning", e.Sensor)
		}
	}
	for _, b := range r.Baseline {
		if b.Worse != "lower" && b.Worse != "higher" || b.Worse == "lower" && (b.Ratio <= 0 || b.Ratio >= 1) || b.Deviations <= 0 || b.Why == "" {
			return r, fmt.Errorf("read the rules: baseline %q: want what is worse, a limit and a reason", b.Metric)
		}
	}
	return r, nil
}

// counter is the rule for a kind of counters.
func (r rules) counter(k kind) counterRule {
	i := slices.IndexFunc(r.Counters, func(c counterRule) bool { return c.Counter == k })
	if i < 0 {
		return counterRule{}
	}
	return r.Counters[i]
}
