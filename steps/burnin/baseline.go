// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/inspect"
)

// Machine is what a run was made on, as far as others are compared with it.
type Machine struct {
	Manufacturer string        `json:"manufacturer"`
	Product      string        `json:"product"`
	Serial       string        `json:"serial"`
	Processor    string        `json:"processor"` // model
	Sockets      int           `json:"sockets"`
	MemoryMB     int64         `json:"memory_mb"` // MiB installed; 0 if not known
	Disks        []MachineDisk `json:"disks"`     // never null
}

// MachineDisk is a disk of a [Machine].
type MachineDisk struct {
	Name   string `json:"name"` // /dev/sda
	Model  string `json:"model"`
	Serial string `json:"serial"`
	Size   int64  `json:"size"` // bytes
}

// Describe takes of an inventory what is compared.
func Describe(i inspect.Inventory) Machine {
	m := Machine{Manufacturer: i.SystemVendor.Manufacturer, Product: i.SystemVendor.ProductName, Serial: i.SystemVendor.SerialNumber, Processor: i.CPU.ModelName, Sockets: i.CPU.SocketCount,
		Disks: []MachineDisk{}}
	if mb := i.Memory.PhysicalMB; mb != nil {
		m.MemoryMB = *mb
	}
	for _, d := range i.Disks {
		m.Disks = append(m.Disks, MachineDisk{d.Name, string(d.Model), string(d.Serial), d.Size})
	}
	return m
}

// ErrBaseline means that a run cannot be compared with another one.
var ErrBaseline = errors.New("cannot be compared with")

// ParseBaseline reads the results.json of an earlier run, or of another machine.
func ParseBaseline(text []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read results: %w", err)
	}
	switch {
	case r.Machine == nil || len(r.Loads) == 0:
		return r, errors.New("read results: they say nothing of a machine, or of loads")
	case r.Verdict == Fail:
		return r, errors.New("its machine failed, so it is no measure for others")
	}
	return r, nil
}

// Comparable is nil if a run of a profile on this machine can be compared with another one.
func (m Machine) Comparable(profile string, with Result) error {
	o := with.Machine
	for _, d := range []struct{ what, ours, theirs string }{
		{"profile", profile, with.Profile}, {"manufacturer", m.Manufacturer, o.Manufacturer}, {"model", m.Product, o.Product}, {"processor", m.Processor, o.Processor},
		{"number of sockets", fmt.Sprint(m.Sockets), fmt.Sprint(o.Sockets)},
	} {
		if d.ours != d.theirs {
			return fmt.Errorf("this run %w the one of %q: its %s is %q, here it is %q", ErrBaseline, o.Serial, d.what, d.theirs, d.ours)
		}
	}
	return nil
}

// work is the metric of what processors and memory do.
const work = "work"

// measure is one figure of a run that is compared.
type measure struct {
	metric string // of baselineRule
	what   string // same in all machines of a model: "throughput of a disk ST1000"
	part   string // here
	value  float64
	unit   string
}

// measures are the figures of a run.
func measures(r Result) (list []measure) {
	models := map[string]string{}
	if r.Machine != nil {
		for _, d := range r.Machine.Disks {
			models[d.Name] = d.Model
		}
	}
	hottest := map[string]float64{}
	for _, l := range r.Loads {
		tested := func(name string) (string, bool) {
			i := slices.IndexFunc(l.Parts, func(p Part) bool {
				return (p.Name == name || strings.HasPrefix(p.Name, name+" ")) && (p.Verdict == Pass || p.Verdict == Fail)
			})
			if i < 0 {
				return "", false
			}
			return l.Parts[i].Name, true
		}
		for _, name := range slices.Sorted(maps.Keys(l.Rates)) {
			rate := l.Rates[name]
			part, what := name[:max(strings.LastIndex(name, " "), 0)], name[strings.LastIndex(name, " ")+1:]
			if disk, is := tested(part); is && strings.HasPrefix(part, "/dev/") {
				list = append(list, measure{throughput, what + " rate of a disk " + cmp.Or(models[part], "without a model"), disk, rate.Value, rate.Unit})
			} else if is {
				list = append(list, measure{work, "rate of " + what, part, rate.Value, rate.Unit})
			}
		}
		for _, s := range l.Series {
			switch s.Kind {
			case throughput:
				if part, is := tested(s.Name); is && strings.HasPrefix(s.Name, "/dev/") {
					list = append(list, measure{throughput, "throughput of a disk " + cmp.Or(models[s.Name], "without a model"), part, s.Mean(), s.Unit})
				}
			case frequency:
				if _, is := tested("processors"); is {
					list = append(list, measure{frequency, "frequency of the " + s.Name, s.Name, s.Mean(), s.Unit})
				}
			case temperature:
				hottest[s.Name] = max(hottest[s.Name], s.Max())
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hottest)) {
		list = append(list, measure{temperature, "highest temperature of " + sensorKind(name), name, hottest[name], "°C"})
	}
	return list
}

// sensorKind is a sensor's name without what differs from start to start and from disk to disk: "hwmon3 nvme Composite of nvme0n1" is "nvme Composite".
func sensorKind(name string) string {
	if first, rest, found := strings.Cut(name, " "); found && (strings.HasPrefix(first, "hwmon") || strings.HasPrefix(first, "/dev/")) {
		name = rest
	}
	name, _, _ = strings.Cut(name, " of ")
	return name
}

// Compare judges a run by others of the same model, which [Machine.Comparable] has let pass: outliers are in r.Baseline, and may make the run fail.
func (r *Result) Compare(others []Result) error {
	judges, err := readRules()
	if err != nil {
		return err
	}
	values := map[string][]float64{}
	for _, o := range others {
		for _, m := range measures(o) {
			values[m.what] = append(values[m.what], m.value)
		}
	}
	list := measures(*r)
	for _, l := range r.Loads {
		for _, c := range l.Counters {
			m := measure{grownErrors, c.Kind, c.Part, float64(c.Count), ""}
			if _, known := values[m.what]; !known {
				for _, o := range others {
					values[m.what] = append(values[m.what], float64(o.counted(c.Kind)))
				}
			}
			list = append(list, m)
		}
	}
	for _, m := range list {
		i := slices.IndexFunc(judges.Baseline, func(b baselineRule) bool { return b.Metric == m.metric })
		if i < 0 || len(values[m.what]) == 0 {
			continue
		}
		reason, fails := judges.Baseline[i].judge(m.value, values[m.what])
		if reason == "" {
			continue
		}
		p := find(&r.Baseline, m.part)
		p.Reasons = append(p.Reasons, strings.TrimSpace(fmt.Sprintf("%s is %.4g %s", m.what, m.value, m.unit))+", "+reason)
		if fails {
			p.Verdict, r.Verdict = Fail, Fail
		}
	}
	sortParts(r.Baseline)
	return nil
}

// counted is how many of a kind were counted in a run.
func (r Result) counted(kind string) (n int64) {
	for _, l := range r.Loads {
		for _, c := range l.Counters {
			if c.Kind == kind {
				n += c.Count
			}
		}
	}
	return n
}

// manyOthers is from how many values on their scatter says something.
const manyOthers = 4

// judge says how far a value is from others, "" if it is not farther than it may be.
func (b baselineRule) judge(value float64, others []float64) (reason string, fails bool) {
	middle := median(others)
	allowed := b.Distance
	if b.Worse == "lower" {
		allowed = (1 - b.Ratio) * middle
	}
	if len(others) >= manyOthers {
		far := make([]float64, len(others))
		for i, v := range others {
			far[i] = math.Abs(v - middle)
		}
		allowed = max(allowed/2, b.Deviations*1.4826*median(far))
	}
	distance := value - middle
	if b.Worse == "lower" {
		distance = -distance
	}
	if distance <= allowed {
		return "", false
	}
	reason = fmt.Sprintf("%.4g in the run that it is compared with", middle)
	if len(others) > 1 {
		reason = fmt.Sprintf("%.4g is the median of %d others", middle, len(others))
	}
	return reason, b.Worse == "lower" && b.Fail > 0 && value < b.Fail*middle
}

// median of at least one.
func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}
