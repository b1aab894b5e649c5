// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"
)

// Profile is a list of loads, which are run one after the other.
type Profile struct {
	Name  string        `yaml:"name"` // for people
	Loads []ProfileLoad `yaml:"loads"`
}

// ProfileLoad is one load: exactly one of its fields is set.
type ProfileLoad struct {
	Processors *ProcessorsLoad `yaml:"processors"`
	Memory     *MemoryLoad     `yaml:"memory"`
	Disks      *DisksLoad      `yaml:"disks"`
	Network    *NetworkLoad    `yaml:"network"`
	SelfTest   *SelfTestLoad   `yaml:"selftest"`
}

// ProcessorsLoad computes, and checks the results.
type ProcessorsLoad struct {
	Time    Duration `yaml:"time"`
	Workers uint16   `yaml:"workers"` // 0: one for each core
}

// MemoryLoad writes to memory, and reads it back.
type MemoryLoad struct {
	Time    Duration `yaml:"time"`
	Workers uint16   `yaml:"workers"` // 0: one for each core
	Amount  string   `yaml:"amount"`  // of the memory that is free, such as 80% or 16G; empty for 90%
}

// DisksLoad writes to disks and reads back what it wrote, for a time or so many times all of each. What the disks held is gone.
type DisksLoad struct {
	Time  Duration `yaml:"time"`
	Loops uint16   `yaml:"loops"`
	Write []string `yaml:"write"` // the disks, as in [Order.Disks]
}

// NetworkLoad sends to a partner for the time, and lets it send back for the same time.
type NetworkLoad struct {
	Time    Duration `yaml:"time"`
	Role    string   `yaml:"role"`    // writer or reader, which is the first role; the partner has the other one
	Partner string   `yaml:"partner"` // name or address
}

// SelfTestLoad has all disks test themselves. It changes nothing of what is on them.
type SelfTestLoad struct {
	Kind string `yaml:"kind"` // short, or long, which reads all of each disk
}

// Duration is a length of time, in YAML such as 90s or 2h30m.
type Duration time.Duration

// UnmarshalYAML implements the yaml package's Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode || v < time.Second || v > longest || v%time.Second != 0 {
		return fmt.Errorf("line %d: %.60q is not a length of time of whole seconds within a year, such as 90s or 2h30m", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// Profiles are those that need no file, the shortest first.
func Profiles() []Profile {
	of := func(name string, processors, memory time.Duration, disks DisksLoad, test string) Profile {
		return Profile{Name: name, Loads: []ProfileLoad{
			{Processors: &ProcessorsLoad{Time: Duration(processors)}}, {Memory: &MemoryLoad{Time: Duration(memory)}}, {Disks: &disks}, {SelfTest: &SelfTestLoad{Kind: test}},
		}}
	}
	return []Profile{
		of("quick", 2*time.Minute, 3*time.Minute, DisksLoad{Time: Duration(5 * time.Minute)}, shortTest),
		of("standard", time.Hour, 2*time.Hour, DisksLoad{Loops: 1}, longTest),
		of("full", 24*time.Hour, 24*time.Hour, DisksLoad{Loops: 4}, longTest),
	}
}

// mostLoads and mostProfile bound a profile; bytes.
const (
	mostLoads   = 100
	mostProfile = 64 << 10
)

// goTypes are what errors of the yaml package say of this program's own types, which whoever writes a profile does not know.
var goTypes = regexp.MustCompile(` (in type|into) \*?burnin\.\w+`)

// ParseProfile reads a profile in YAML. An unknown key is an error, which names its line.
func ParseProfile(b []byte) (Profile, error) {
	if len(b) > mostProfile {
		return Profile{}, fmt.Errorf("a profile of more than %d bytes", mostProfile)
	}
	var p Profile
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil && err != io.EOF { // io.EOF: nothing in it, which the check says better
		return Profile{}, errors.New(goTypes.ReplaceAllString(err.Error(), ""))
	}
	if err := d.Decode(new(yaml.Node)); err != io.EOF {
		return Profile{}, errors.New("more than one YAML document")
	}
	if len(p.Loads) == 0 || len(p.Loads) > mostLoads {
		return Profile{}, fmt.Errorf("%d loads, want 1 to %d", len(p.Loads), mostLoads)
	}
	for i, l := range p.Loads {
		if err := l.check(); err != nil {
			return Profile{}, fmt.Errorf("load %d: %w", i+1, err)
		}
	}
	return p, nil
}

func (l ProfileLoad) check() error {
	kinds := 0
	for _, given := range []bool{l.Processors != nil, l.Memory != nil, l.Disks != nil, l.Network != nil, l.SelfTest != nil} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("want one of processors, memory, disks, network and selftest, with its options")
	}
	timed := errors.New("time is missing")
	switch {
	case l.Processors != nil && l.Processors.Time == 0, l.Memory != nil && l.Memory.Time == 0, l.Network != nil && l.Network.Time == 0:
		return timed
	case l.Memory != nil && l.Memory.Amount != "" && !amounts.MatchString(l.Memory.Amount):
		return fmt.Errorf("amount is %.60q, want such as 80%% or 16G", l.Memory.Amount)
	case l.Disks != nil && (l.Disks.Time == 0) == (l.Disks.Loops == 0):
		return errors.New("want either time or loops")
	case l.Network != nil && l.Network.Role != "writer" && l.Network.Role != "reader":
		return fmt.Errorf("role is %.60q, want writer or reader", l.Network.Role)
	case l.Network != nil && !hosts.MatchString(l.Network.Partner):
		return fmt.Errorf("partner is %.60q, want a name or an address", l.Network.Partner)
	case l.SelfTest != nil && l.SelfTest.Kind != shortTest && l.SelfTest.Kind != longTest:
		return fmt.Errorf("kind is %.60q, want short or long", l.SelfTest.Kind)
	}
	return nil
}
