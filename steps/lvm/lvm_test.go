// SPDX-License-Identifier: Apache-2.0

package lvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/initramfs/tool/tooltest"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
)

// layouts that are tested, in JSON: a group of the name vg on /dev/sda with these volumes.
func vg(volumes string) string {
	return `[{"name": "vg", "physical_disks": [{"name": "/dev/sda"}], "volumes": [` + volumes + `]}]`
}

// vg2 is one on two disks.
func vg2(volumes string) string {
	return strings.Replace(vg(volumes), `[{"name": "/dev/sda"}]`, `[{"name": "/dev/sda"}, {"name": "/dev/sdb"}]`, 1)
}

var parseTests = []struct {
	name, layout string
	want         string // groups, or an error
	schema       bool   // it fits the schema
}{
	{"one", vg(`{"name": "a", "size_gb": 10}`), "vg on 1 disks: a linear 10 GiB", true},
	{"all that there is", vg2(`{"name": "root", "size_gb": 10, "type": "raid1", "file_system": "ext4", "label": "root", "is_root_volume": true},
		{"name": "swap", "size_percent": 10, "file_system": "swap"}, {"name": "fast", "size_gb": "MAX", "type": "striped", "number_of_physical_disks": 2, "file_system": "xfs"}]},
		{"name": "on-array", "volume_name": "system", "volumes": [{"name": "x", "size_gb": 1}`),
		"vg on 2 disks: root raid1 10 GiB across 2 ext4 root, the root, swap linear 10 % swap, fast striped rest across 2 xfs; on-array on system: x linear 1 GiB", true},

	{"no JSON", `[`, "! unexpected end of JSON input", false},
	{"no list", `{}`, "! json: cannot unmarshal object", false},
	{"empty", `[]`, "! there are 0 volume groups", false},
	{"too long", `"` + strings.Repeat(" ", maxLayout) + `"`, "! 262146 bytes are more than 262144", false},
	{"too many groups", `[` + strings.TrimSuffix(strings.Repeat("{},", 33), ",") + `]`, "! there are 33 volume groups", false},
	{"unknown key", `[{"name": "vg", "disks": []}]`, `! volume group 1: json: unknown field "disks"`, false},
	{"unknown key of a volume", vg(`{"name": "a", "size_gb": 1, "fs": "ext4"}`), `! volume group 1: json: unknown field "fs"`, false},
	{"no name", strings.Replace(vg(`{"name": "a", "size_gb": 1}`), `"vg"`, `""`, 1), "! volume group 1: name: it is empty", false},
	{"hostile name", strings.Replace(vg(`{"name": "a", "size_gb": 1}`), `"vg"`, `"../sda"`, 1), `! volume group 1: name: "../sda" has other characters`, true},
	{"a name like an option", strings.Replace(vg(`{"name": "a", "size_gb": 1}`), `"vg"`, `"--force"`, 1), `! volume group 1: name: "--force" has other`, true},
	{"long name", strings.Replace(vg(`{"name": "a", "size_gb": 1}`), `"vg"`, `"`+strings.Repeat("x", 65)+`"`, 1), "is longer than 64 bytes", false},
	{"names that are long together", strings.Replace(vg(`{"name": "`+strings.Repeat("y", 63)+`", "size_gb": 1}`), `"vg"`, `"`+strings.Repeat("x", 64)+`"`, 1), "! its name and that of the group have 128 characters", true},
	{"hyphens count twice", strings.Replace(vg(`{"name": "y`+strings.Repeat("-", 31)+`", "size_gb": 1}`), `"vg"`, `"`+strings.Repeat("x", 64)+`"`, 1), "! its name and that of the group have 128 characters", true},
	{"a group twice", `[{"name": "vg", "volume_name": "a", "volumes": [{"name": "a", "size_gb": 1}]}, {"name": "vg", "volume_name": "b", "volumes": [{"name": "a", "size_gb": 1}]}]`, `! volume group "vg": it is there twice`, true},
	{"an array twice", `[{"name": "a", "volume_name": "a", "volumes": [{"name": "a", "size_gb": 1}]}, {"name": "b", "volume_name": "a", "volumes": [{"name": "a", "size_gb": 1}]}]`, `! the array "a" has a volume group already`, true},
	{"no disks", `[{"name": "vg", "volumes": [{"name": "a", "size_gb": 1}]}]`, "! physical_disks has 0 entries", false},
	{"disks and array", `[{"name": "vg", "physical_disks": [{"type": "ssd"}], "volume_name": "a", "volumes": [{"name": "a", "size_gb": 1}]}]`, "! it has both physical_disks and volume_name", false},
	{"an empty hint", `[{"name": "vg", "physical_disks": [{}], "volumes": [{"name": "a", "size_gb": 1}]}]`, "! physical_disks, entry 1: there are no hints", false},
	{"a hint that is none", `[{"name": "vg", "physical_disks": [{"colour": "red"}], "volumes": [{"name": "a", "size_gb": 1}]}]`, `! physical_disks, entry 1: invalid hints: hint "colour"`, true},
	{"no volumes", vg(``), "! it has 0 volumes", false},
	{"no name of a volume", vg(`{"size_gb": 1}`), "! volume 1: name: it is empty", false},
	{"hostile name of a volume", vg(`{"name": "a/b", "size_gb": 1}`), `! volume 1: name: "a/b" has other`, true},
	{"lvm's own name", vg(`{"name": "a_rimage_0", "size_gb": 1}`), `! name: "a_rimage_0" contains "_rimage"`, true},
	{"lvm's own beginning", vg(`{"name": "snapshot1", "size_gb": 1}`), `! name: "snapshot1" begins with "snapshot"`, true},
	{"a volume twice", vg(`{"name": "a", "size_gb": 1}, {"name": "a", "size_gb": 1}`), `! volume group "vg": volume "a": it is there twice`, true},
	{"two rests", vg(`{"name": "a", "size_gb": "MAX"}, {"name": "b", "size_gb": "MAX"}`), "! 2 of its volumes are MAX", true},
	{"more than all", vg(`{"name": "a", "size_percent": 60}, {"name": "b", "size_percent": 50}`), "! its volumes want 110 % of it", true},
	{"no size", vg(`{"name": "a"}`), `! volume "a": it has neither size_gb nor size_percent`, false},
	{"two sizes", vg(`{"name": "a", "size_gb": 1, "size_percent": 1}`), "! it has both size_gb and size_percent", false},
	{"size 0", vg(`{"name": "a", "size_gb": 0}`), "! size_gb is 0, which is no size", false},
	{"size null", vg(`{"name": "a", "size_gb": null}`), "! size_gb is null, want", false},
	{"a size that overflows", vg(`{"name": "a", "size_gb": 9223372036854775807}`), "! size_gb is 9223372036854775807, which is no size", false},
	{"a size in words", vg(`{"name": "a", "size_gb": "all"}`), `! size_gb is "all", want`, false},
	{"0 percent", vg(`{"name": "a", "size_percent": 0}`), "! size_percent is 0", false},
	{"101 percent", vg(`{"name": "a", "size_percent": 101}`), "! size_percent is 101", false},
	{"unknown type", vg(`{"name": "a", "size_gb": 1, "type": "raid5"}`), `! type is "raid5", want linear, striped, raid1`, false},
	{"a mirror of one disk", vg(`{"name": "a", "size_gb": 1, "type": "raid1"}`), "! type raid1 needs at least 2 disks", true},
	{"too many copies", vg2(`{"name": "a", "size_gb": 1, "type": "raid1", "number_of_physical_disks": 3}`), "! number_of_physical_disks is 3, want 2 to 2", true},
	{"one stripe", vg2(`{"name": "a", "size_gb": 1, "type": "striped", "number_of_physical_disks": 1}`), "! number_of_physical_disks is 1, want 2 to 2", false},
	{"a number for linear", vg2(`{"name": "a", "size_gb": 1, "number_of_physical_disks": 2}`), "! number_of_physical_disks is for the types striped and raid1", true},
	{"unknown file system", vg(`{"name": "a", "size_gb": 1, "file_system": "zfs"}`), `! file_system is "zfs"`, false},
	{"long label", vg(`{"name": "a", "size_gb": 1, "file_system": "xfs", "label": "thirteen-long"}`), `! label "thirteen-long" is longer than 12`, true},
	{"label like an option", vg(`{"name": "a", "size_gb": 1, "file_system": "xfs", "label": "-f"}`), `! label "-f" has other characters`, true},
	{"label of nothing", vg(`{"name": "a", "size_gb": 1, "label": "x"}`), "! there is a label, and no file_system", true},
	{"two roots", vg(`{"name": "a", "size_gb": 1, "is_root_volume": true}, {"name": "b", "size_gb": 1, "is_root_volume": true}`), "! 2 volumes are the root volume", true},
	{"swap as root", vg(`{"name": "a", "size_gb": 1, "is_root_volume": true, "file_system": "swap"}`), "! the root volume cannot be swap", true},
	{"several errors", vg(`{"name": "/", "size_gb": 0, "type": "x", "file_system": "y"}`), `! size_gb is 0, which is no size; volume group "vg": volume 1: type is "x"`, false},
}

func printGroups(groups []group) string {
	var all []string
	for _, g := range groups {
		var volumes []string
		for _, v := range g.volumes {
			s := v.name + " " + v.kind
			switch {
			case v.size > 0:
				s += " " + raid.FormatSize(v.size)
			case v.percent > 0:
				s += fmt.Sprintf(" %d %%", v.percent)
			default:
				s += " rest"
			}
			if v.across > 0 {
				s += fmt.Sprintf(" across %d", v.across)
			}
			if v.system != "" {
				s += " " + strings.TrimSpace(v.system+" "+v.label)
			}
			if v.root {
				s += ", the root"
			}
			volumes = append(volumes, s)
		}
		where := g.array
		if len(g.disks) > 0 {
			where = fmt.Sprintf("%d disks", len(g.disks))
		}
		all = append(all, g.name+" on "+where+": "+strings.Join(volumes, ", "))
	}
	return strings.Join(all, "; ")
}

func TestParseLayout(t *testing.T) {
	for _, test := range parseTests {
		t.Run(test.name, func(t *testing.T) {
			groups, errs := parseLayout(json.RawMessage(test.layout))
			if want, fails := strings.CutPrefix(test.want, "! "); fails || strings.HasPrefix(test.want, "is longer") {
				if got := fmt.Sprint(raid.JoinErrors(errs)); !strings.Contains(got, want) {
					t.Errorf("parseLayout() = %s, want %q", got, want)
				}
				return
			}
			if got := printGroups(groups); got != test.want || len(errs) > 0 {
				t.Errorf("parseLayout() = %s, %v, want %s", got, errs, test.want)
			}
		})
	}
}

// schema is one of JSON Schema, as far as docs/lvm.schema.json uses it.
type schema struct {
	Type       string
	Const      *string
	Enum       []string
	Properties map[string]*schema
	Required   []string
	Additional *bool `json:"additionalProperties"`
	OneOf      []schema
	Items      *schema
	Minimum    *int64
	Maximum    *int64
	MinItems   *int
	MaxItems   *int
	MinLength  *int
	MaxLength  *int
	MinProps   *int `json:"minProperties"`
}

func (s *schema) fits(v any) bool {
	within := func(n int, least, most *int) bool {
		return (least == nil || n >= *least) && (most == nil || n <= *most)
	}
	kind := ""
	switch v := v.(type) {
	case string:
		kind = "string"
		if s.Const != nil && v != *s.Const || s.Enum != nil && !slices.Contains(s.Enum, v) || !within(len(v), s.MinLength, s.MaxLength) {
			return false
		}
	case bool:
		kind = "boolean"
	case json.Number:
		n, err := v.Int64()
		if kind = "integer"; err != nil || s.Minimum != nil && n < *s.Minimum || s.Maximum != nil && n > *s.Maximum {
			return false
		}
	case []any:
		if kind = "array"; !within(len(v), s.MinItems, s.MaxItems) {
			return false
		}
		for _, item := range v {
			if s.Items != nil && !s.Items.fits(item) {
				return false
			}
		}
	case map[string]any:
		if kind = "object"; !within(len(v), s.MinProps, nil) || slices.ContainsFunc(s.Required, func(r string) bool { _, found := v[r]; return !found }) {
			return false
		}
		for name, value := range v {
			if p := s.Properties[name]; p != nil && !p.fits(value) || p == nil && s.Additional != nil && !*s.Additional {
				return false
			}
		}
	}
	if s.OneOf != nil {
		n := 0
		for _, one := range s.OneOf {
			if one.fits(v) {
				n++
			}
		}
		if n != 1 {
			return false
		}
	}
	return (s.Type == "" || s.Type == kind) && (s.Const == nil || kind == "string")
}

// The schema in docs/ has the keys, types and file systems that the program takes, and refuses what it can tell.
func TestSchema(t *testing.T) {
	b, err := os.ReadFile("../../docs/lvm.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	volumes := s.Items.Properties["volumes"].Items
	for _, c := range []struct {
		of     *schema
		fields reflect.Type
	}{{s.Items, reflect.TypeFor[layoutGroup]()}, {volumes, reflect.TypeFor[layoutVolume]()}} {
		var names []string
		for i := range c.fields.NumField() {
			name, _, _ := strings.Cut(c.fields.Field(i).Tag.Get("json"), ",")
			if names = append(names, name); c.of.Properties[name] == nil {
				t.Errorf("the schema lacks %s", name)
			}
		}
		if len(c.of.Properties) != len(names) {
			t.Errorf("the schema has %d properties, and there are %v", len(c.of.Properties), names)
		}
	}
	if got := volumes.Properties["type"].Enum; !slices.Equal(got, kinds) {
		t.Errorf("types in the schema: %v, want %v", got, kinds)
	}
	if got := volumes.Properties["file_system"].Enum; len(got) != len(fileSystems) || slices.ContainsFunc(got, func(f string) bool { _, known := fileSystems[f]; return !known }) {
		t.Errorf("file systems in the schema: %v", got)
	}
	if *s.MaxItems != maxGroups || *s.Items.Properties["volumes"].MaxItems != maxVolumes || *s.Items.Properties["physical_disks"].MaxItems != maxDisks || *s.Items.Properties["name"].MaxLength != maxName {
		t.Error("bounds in the schema differ from the program's")
	}
	for _, test := range parseTests {
		d := json.NewDecoder(strings.NewReader(test.layout))
		d.UseNumber()
		var v any
		if d.Decode(&v) == nil && s.fits(v) != test.schema {
			t.Errorf("%s: fits the schema: %v, want %v", test.name, !test.schema, test.schema)
		}
	}
}

// machine has disks of 100 GiB and an array.
func machine() state {
	s := state{dev: map[string]bool{"sda": true, "mapper": true}}
	for _, name := range []string{"sda", "sdb", "sdc", "nvme0n1"} {
		d := disk{Disk: inspect.Disk{Name: "/dev/" + name, Size: 100 * gib, LogicalSectors: 512, Type: "disk", Tran: "sata"}, kinds: map[int]gpt.GUID{}}
		if name == "nvme0n1" {
			d.Tran, d.LogicalSectors = "nvme", 4096
		}
		s.disks = append(s.disks, d)
	}
	s.disks = append(s.disks, disk{Disk: inspect.Disk{Name: "/dev/md0", Size: 50*gib + 512*7, LogicalSectors: 512, Type: "raid1"}, isArray: true, array: "system", below: []string{"/dev/sdc"}, kinds: map[int]gpt.GUID{}})
	return s
}

// with gives a disk partitions of a type each, ESP, LVM or data, of 10 GiB, of which the LVM ones are physical volumes of a group.
func (s state) with(name, group string, kinds ...gpt.GUID) state {
	d := s.disk("/dev/" + name)
	i := slices.IndexFunc(s.groups, func(e existing) bool { return e.name == group })
	if i < 0 && group != "" {
		i = len(s.groups)
		s.groups = append(s.groups, existing{name: group, uuid: "uuid-of-" + group, volumes: []existingVolume{{name: "lv", layout: "linear", size: gib}}})
	}
	for n, k := range kinds {
		d.parts = append(d.parts, stream.Partition{Number: n + 1, Start: mib + int64(n)*10*gib, Size: 10 * gib})
		d.kinds[n+1] = k
		if k == gpt.LinuxLVM {
			d.labels = append(d.labels, n+1)
			if group != "" {
				s.groups[i].places = append(s.groups[i].places, place{d.Name, n + 1})
			}
		}
	}
	return s
}

// made is the machine with a plan's groups on it.
func made(s state, p plan) state {
	for _, t := range p.tables {
		d := s.disk(t.disk.Name)
		d.parts, d.labels = t.parts, []int{t.physical().Number}
	}
	for _, g := range p.groups {
		e := existing{name: g.name}
		for _, v := range g.volumes {
			e.volumes = append(e.volumes, existingVolume{name: v.name, layout: layouts[v.kind], size: v.extents * extent})
		}
		for _, t := range p.tables {
			if slices.Contains(g.devices, t.device()) {
				e.places = append(e.places, place{t.disk.Name, t.physical().Number})
			}
		}
		s.groups = append(s.groups, e)
	}
	return s
}

func mustPlan(t *testing.T, s state, layout string) plan {
	t.Helper()
	groups, errs := parseLayout(json.RawMessage(layout))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	p, err := planCreation(groups, s, inspect.SkipList{}, bootPart{gpt.EFISystem, 550 * mib})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlanCreation(t *testing.T) {
	simple := vg(`{"name": "a", "size_gb": 10}`)
	marked := func(made bool) state {
		s := machine().with("sda", "old", gpt.LinuxLVM).with("sdb", "old", gpt.LinuxLVM)
		for _, name := range []string{"/dev/sda", "/dev/sdb"} {
			s.disk(name).mark = raid.Mark{Run: "r", Made: made, Partitions: s.disk(name).parts}
		}
		return s
	}
	changed := marked(false)
	changed.disk("/dev/sda").mark.Partitions = nil
	holds := func(what string) state {
		s := machine()
		s.disk("/dev/sda").holds = []string{what}
		return s
	}
	alike := func(change func(*disk)) state {
		s := machine()
		for _, name := range []string{"/dev/sda", "/dev/sdb"} {
			change(s.disk(name))
		}
		return s
	}
	labelled := machine()
	labelled.disk("/dev/sda").labels = []int{0}
	degraded := machine()
	degraded.disk("/dev/md0").broken = true
	twenty := machine()
	twenty.disk("/dev/sda").Size = 20 * gib
	small := machine()
	small.disk("/dev/sda").Size = 6 * mib
	onArray := `[{"name": "vg", "volume_name": "system", "volumes": [{"name": "root", "size_gb": "MAX", "is_root_volume": true}]}]`
	for _, test := range []struct {
		name    string
		machine state
		layout  string
		skip    string
		want    string
	}{
		{"one", machine(), simple, "", `partition /dev/sda sata 100.0 GiB without serial: gpt
  /dev/sda1 from 1 MiB to 102399 MiB, physical volume
make volume group vg of /dev/sda1
  make volume vg/a, linear, 10 GiB, no file system, on /dev/sda1`},
		{"root, percent, rest, and where they lie", machine(), vg2(`{"name": "rest", "size_gb": "MAX", "file_system": "xfs"}, {"name": "root", "size_gb": 90, "is_root_volume": true, "file_system": "ext4", "label": "root"},
			{"name": "second", "size_gb": 90}, {"name": "p", "size_percent": 1}`), "", `partition /dev/sda sata 100.0 GiB without serial: gpt
  /dev/sda1 from 1 MiB to 551 MiB, EFI system partition, empty
  /dev/sda2 from 551 MiB to 615 MiB, for a config drive, empty
  /dev/sda3 from 615 MiB to 102399 MiB, physical volume
partition /dev/sdb sata 100.0 GiB without serial: gpt
  /dev/sdb1 from 1 MiB to 551 MiB, EFI system partition, empty
  /dev/sdb2 from 551 MiB to 615 MiB, for a config drive, empty
  /dev/sdb3 from 615 MiB to 102399 MiB, physical volume
make volume group vg of /dev/sda3, /dev/sdb3
  make volume vg/root, linear, 90 GiB, ext4 root, on /dev/sda3
  make volume vg/second, linear, 90 GiB, no file system, on /dev/sdb3
  make volume vg/p, linear, 2032 MiB, no file system, on /dev/sda3
  make volume vg/rest, linear, 17208 MiB, xfs, on /dev/sda3, /dev/sdb3`},
		{"striped and mirrored", machine(), vg2(`{"name": "s", "size_percent": 50, "type": "striped"}, {"name": "m", "size_percent": 25, "type": "raid1"}, {"name": "r", "size_gb": "MAX", "type": "raid1", "file_system": "xfs"}`), "",
			`partition /dev/sda sata 100.0 GiB without serial: gpt
  /dev/sda1 from 1 MiB to 102399 MiB, physical volume
partition /dev/sdb sata 100.0 GiB without serial: gpt
  /dev/sdb1 from 1 MiB to 102399 MiB, physical volume
make volume group vg of /dev/sda1, /dev/sdb1
  make volume vg/s, striped, 102392 MiB, no file system, on /dev/sda1, /dev/sdb1
  make volume vg/m, raid1, 25592 MiB, no file system, on /dev/sda1, /dev/sdb1
  make volume vg/r, raid1, 25 GiB, xfs, on /dev/sda1, /dev/sdb1`},
		{"on an array", machine(), onArray, "", `partition /dev/md0 50.0 GiB without serial: gpt
  /dev/md0p1 from 1 MiB to 65 MiB, for a config drive, empty
  /dev/md0p2 from 65 MiB to 51199 MiB, physical volume
make volume group vg of /dev/md0p2
  make volume vg/root, linear, 51132 MiB, no file system, on /dev/md0p2`},
		{"two groups, by type", machine(), `[{"name": "a", "physical_disks": [{"type": "nvme"}], "volumes": [{"name": "x", "size_gb": 1}]}, {"name": "b", "physical_disks": [{"type": "ssd"}], "volumes": [{"name": "x", "size_gb": 1}]}]`, "",
			`partition /dev/nvme0n1 nvme 100.0 GiB without serial: gpt
  /dev/nvme0n1p1 from 1 MiB to 102399 MiB, physical volume
partition /dev/sda sata 100.0 GiB without serial: gpt
  /dev/sda1 from 1 MiB to 102399 MiB, physical volume
make volume group a of /dev/nvme0n1p1
  make volume a/x, linear, 1 GiB, no file system, on /dev/nvme0n1p1
make volume group b of /dev/sda1
  make volume b/x, linear, 1 GiB, no file system, on /dev/sda1`},
		{"there already", made(machine(), mustPlan(t, machine(), simple)), simple, "", "leave volume group vg as it is"},
		{"interrupted", marked(false), simple, "", "clear /dev/sda of what was not finished\nclear /dev/sdb of what was not finished\n" + `partition /dev/sda sata 100.0 GiB without serial: gpt
  /dev/sda1 from 1 MiB to 102399 MiB, physical volume
make volume group vg of /dev/sda1
  make volume vg/a, linear, 10 GiB, no file system, on /dev/sda1`},
		{"interrupted, and used since", changed, simple, "", "! /dev/sda has partitions"},
		{"finished but for the marks", marked(true), simple, "", "! /dev/sda has partitions"},

		{"partitions", machine().with("sda", "", gpt.LinuxData), simple, "", "! /dev/sda has partitions: delete_volumes"},
		{"a physical volume", labelled, simple, "", "! /dev/sda is a physical volume of LVM"},
		{"a file system", holds("a file system (xfs)"), simple, "", "! /dev/sda holds a file system (xfs): erase_devices_metadata"},
		{"all errors at once", holds("a swap area"), strings.Replace(vg2(`{"name": "a", "size_gb": 1000}`), `"vg"`, `"mapper"`, 1), "",
			`! volume group "mapper": volume "a": it needs 1000 GiB, and 204792 MiB are free for it; volume group "mapper": /dev has something else of this name; volume group "mapper": /dev/sda holds a swap area`},
		{"no such disk", machine(), strings.Replace(simple, "/dev/sda", "/dev/sdx", 1), "", "! physical_disks, entry 1"},
		{"a disk for two groups", machine(), strings.TrimSuffix(simple, "]") + "," + strings.TrimPrefix(strings.Replace(simple, `"vg"`, `"b"`, 1), "["), "", `! volume group "b": physical_disks, entry 1`},
		{"a disk on the skip list", machine(), simple, `[{"name": "/dev/sda"}]`, "! physical_disks, entry 1"},
		{"one disk on two paths", alike(func(d *disk) { d.WWN = "0x5000c500a1b2c3d4" }), vg2(`{"name": "a", "size_gb": 10}`), "", "! /dev/sda and /dev/sdb have the same WWN 0x5000c500a1b2c3d4: they may be one disk on two paths"},
		{"one disk on two paths, in two groups", alike(func(d *disk) { d.Serial = "S1" }), strings.TrimSuffix(simple, "]") + "," + strings.TrimPrefix(strings.NewReplacer(`"vg"`, `"b"`, "sda", "sdb").Replace(simple), "["), "",
			`! volume group "b": /dev/sda and /dev/sdb have the same serial number S1: they may be`},
		{"two disks with one serial number and different WWNs", alike(func(d *disk) { d.Serial, d.WWN = "S1", inspect.Text(d.Name) }), vg2(`{"name": "a", "size_gb": 10}`), "", `partition /dev/sda sata 100.0 GiB serial S1: gpt
  /dev/sda1 from 1 MiB to 102399 MiB, physical volume
partition /dev/sdb sata 100.0 GiB serial S1: gpt
  /dev/sdb1 from 1 MiB to 102399 MiB, physical volume
make volume group vg of /dev/sda1, /dev/sdb1
  make volume vg/a, linear, 10 GiB, no file system, on /dev/sda1`},
		{"no such array", machine(), strings.Replace(onArray, "system", "data", 1), "", `! no array "data" runs; there are: /dev/md0 "system"`},
		{"an array that is degraded", degraded, onArray, "", "! lacks some of its members"},
		{"an array on the skip list", machine(), onArray, `[{"volume_name": "system"}]`, "! is on the skip list"},
		{"an array on a disk of the skip list", machine(), onArray, `[{"name": "/dev/sdc"}]`, "! is on the skip list"},
		{"too large", machine(), vg(`{"name": "a", "size_gb": 100}`), "", `! volume "a": it needs 100 GiB, and 102396 MiB are free`},
		{"too large together", machine(), vg(`{"name": "a", "size_gb": 50}, {"name": "b", "size_gb": 50}`), "", `! volume "b": it needs 50 GiB, and 51196 MiB are free`},
		{"nothing is left", machine(), vg(`{"name": "a", "size_percent": 100}, {"name": "b", "size_gb": "MAX"}`), "", `! volume "b": it would have 0 GiB, and needs at least 4 MiB`},
		{"stripes that are too long", machine(), vg2(`{"name": "a", "size_gb": 60}, {"name": "s", "size_gb": 100, "type": "striped"}`), "", `! volume "s": it needs 100 GiB, and 81912 MiB are free`},
		{"too small for xfs", twenty, vg(`{"name": "a", "size_percent": 1, "file_system": "xfs"}`), "", `! volume "a": it would have 204 MiB, and needs at least 300 MiB`},
		{"too small a disk", small, simple, "", "! /dev/sda has no more than 6 MiB"},
		{"sectors of two kinds", machine(), strings.Replace(vg2(`{"name": "a", "size_gb": 1}`), "sdb", "nvme0n1", 1), "", "! /dev/sda has sectors of 512 bytes, and /dev/nvme0n1 of 4096"},
		{"another group of the name", machine().with("sdc", "vg", gpt.LinuxLVM), simple, "", `! volume group "vg": it is there already, and /dev/sda1 is none of its physical volumes`},
		{"with other volumes", made(machine(), mustPlan(t, machine(), simple)), strings.Replace(simple, "10", "11", 1), "", "! it is there already, with a volume a that is linear, 10 GiB"},
		{"with one more", made(machine(), mustPlan(t, machine(), simple)), vg(`{"name": "a", "size_gb": 10}, {"name": "b", "size_gb": 10}`), "", "! it is there already, with 1 volumes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			groups, errs := parseLayout(json.RawMessage(test.layout))
			skip, err := inspect.ParseSkipList(json.RawMessage(test.skip))
			if err != nil || len(errs) > 0 {
				t.Fatal(errs, err)
			}
			p, err := planCreation(groups, test.machine, skip, bootPart{gpt.EFISystem, 550 * mib})
			if want, fails := strings.CutPrefix(test.want, "! "); fails {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("plan:\n%v\n%v\nwant %q", p, err, want)
				}
				return
			}
			if err != nil || p.String() != test.want && (strings.Contains(test.want, "\n") || !strings.Contains(p.String(), test.want)) {
				t.Errorf("plan:\n%s\n%v\nwant:\n%s", p, err, test.want)
			}
		})
	}
}

// A power cut while marks are changed leaves some that do not say that all is finished. They go, and before the one that says it.
func TestUnmark(t *testing.T) {
	layout := vg2(`{"name": "a", "size_gb": 10}`)
	s := made(machine(), mustPlan(t, machine(), layout))
	for name, made := range map[string]bool{"/dev/sda": true, "/dev/sdb": false} {
		s.disk(name).mark = raid.Mark{Run: "r", Made: made, Partitions: s.disk(name).parts}
	}
	if p := mustPlan(t, s, layout); fmt.Sprint(p.unmark) != "[/dev/sdb /dev/sda]" || p.String() != "leave volume group vg as it is" {
		t.Errorf("plan:\n%s\nmarks taken away from %v", p, p.unmark)
	}
}

// The mark stays that says of a disk on the skip list that it is finished.
func TestUnmarkSkipped(t *testing.T) {
	s := machine().with("sda", "a", gpt.LinuxLVM).with("sdb", "b", gpt.LinuxLVM)
	for name, made := range map[string]bool{"/dev/sda": true, "/dev/sdb": false} {
		s.disk(name).mark = raid.Mark{Run: "r", Made: made, Partitions: s.disk(name).parts}
	}
	for skipped, want := range map[string]string{"/dev/sda": "[/dev/sdb]", "/dev/sdb": "[]"} {
		skip, err := inspect.ParseSkipList(json.RawMessage(`[{"name": "` + skipped + `"}]`))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := planCreation(nil, s, skip, bootPart{}); err != nil || fmt.Sprint(p.unmark) != want || len(p.redo) > 0 {
			t.Errorf("%s is kept: marks taken away from %v, %v, want %s; redo %v", skipped, p.unmark, err, want, p.redo)
		}
	}
}

// The disk that says of another one that it is finished is cleared: what is on the other is not taken for unfinished afterwards, and deleted with no name given.
func TestRemovalUnmark(t *testing.T) {
	s := machine().with("sda", "a", gpt.LinuxLVM).with("sdb", "b", gpt.LinuxLVM).with("sdc", "c", gpt.LinuxLVM)
	for name, made := range map[string]bool{"/dev/sda": true, "/dev/sdb": false} {
		s.disk(name).mark = raid.Mark{Run: "r", Made: made, Partitions: s.disk(name).parts}
	}
	r, err := planRemoval(s, []string{"a"}, inspect.SkipList{})
	if err != nil || fmt.Sprint(r.disks) != "[/dev/sda]" || fmt.Sprint(r.unmark) != "[/dev/sdb]" {
		t.Errorf("clear %v, take marks away from %v, %v; want [/dev/sda], [/dev/sdb]", r.disks, r.unmark, err)
	}
	skip, err := inspect.ParseSkipList(json.RawMessage(`[{"name": "/dev/sdb"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = planRemoval(s, []string{"a"}, skip); err == nil || !strings.Contains(err.Error(), "/dev/sdb, which is on the skip list, has a mark") {
		t.Errorf("planRemoval() = %v", err)
	}
	if r, err = planRemoval(s, []string{"c"}, skip); err != nil || fmt.Sprint(r.disks, r.unmark) != "[/dev/sdc] []" {
		t.Errorf("clear %v, take marks away from %v, %v; want [/dev/sdc], []", r.disks, r.unmark, err)
	}
}

// A disk below an array of the skip list is not cleared, whatever its mark says.
func TestMarkBelowSkippedArray(t *testing.T) {
	s := machine().with("sdc", "", gpt.LinuxData)
	s.disk("/dev/sdc").mark = raid.Mark{Run: "r", Partitions: s.disk("/dev/sdc").parts}
	skip, err := inspect.ParseSkipList(json.RawMessage(`[{"volume_name": "system"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := planCreation(nil, s, skip, bootPart{}); err != nil || len(p.redo) > 0 {
		t.Errorf("planCreation() clears %v, %v", p.redo, err)
	}
	if r, err := planRemoval(s, nil, skip); err != nil || len(r.disks) > 0 {
		t.Errorf("planRemoval() clears %v, %v", r.disks, err)
	}
	// Another array on the same disk is not kept.
	s.disks = append(s.disks, disk{Disk: inspect.Disk{Name: "/dev/md1", Size: 50 * gib}, isArray: true, array: "other", below: []string{"/dev/sdc"}, kinds: map[int]gpt.GUID{}})
	if r, err := planRemoval(s.with("md1", "b", gpt.LinuxLVM), nil, skip); err != nil || fmt.Sprint(r.disks) != "[/dev/md1]" {
		t.Errorf("planRemoval() clears %v, %v", r.disks, err)
	}
}

func TestPlanRemoval(t *testing.T) {
	unfinished := machine().with("sda", "", gpt.EFISystem, gpt.LinuxData)
	unfinished.disk("/dev/sda").mark = raid.Mark{Run: "r", Partitions: unfinished.disk("/dev/sda").parts}
	two := machine().with("sda", "a", gpt.EFISystem, gpt.LinuxLVM).with("sdb", "a", gpt.LinuxLVM).with("md0", "b", gpt.LinuxLVM)
	lacking, lackingUnfinished := machine().with("sda", "a", gpt.LinuxLVM), machine().with("sda", "a", gpt.LinuxLVM)
	lacking.groups[0].missing, lackingUnfinished.groups[0].missing = 1, 1
	lackingUnfinished.disk("/dev/sda").mark = raid.Mark{Run: "r", Partitions: lackingUnfinished.disk("/dev/sda").parts}
	orphan := machine().with("sda", "", gpt.LinuxLVM)
	orphan.orphans = []place{{"/dev/sda", 1}}
	const a = "delete volume group a of /dev/sda2, /dev/sdb1\n  delete volume a/lv, linear, 1 GiB\n"
	const b = "delete volume group b of /dev/md0p1\n  delete volume b/lv, linear, 1 GiB\n"
	for _, test := range []struct {
		name    string
		machine state
		names   []string
		skip    string
		want    string
	}{
		{"nothing", machine(), nil, "", ""},
		{"all", two, nil, "", a + b + "clear /dev/sda\nclear /dev/sdb\nclear /dev/md0"},
		{"by name", two, []string{"a"}, "", "leave volume group b\n" + a + "clear /dev/sda\nclear /dev/sdb"},
		{"one that is not there", two, []string{"c"}, "", "leave volume group a\nleave volume group b"},
		{"one of its disks is kept", two, nil, `[{"name": "/dev/sdb"}]`, "leave volume group a\n" + b + "clear /dev/md0"},
		{"the array is kept", two, nil, `[{"volume_name": "system"}]`, "leave volume group b\n" + a + "clear /dev/sda\nclear /dev/sdb"},
		{"kept, and named", two, []string{"a"}, `[{"name": "/dev/sdb"}]`, `! volume group "a" is on the skip list`},
		{"a physical volume of no group", machine().with("sda", "", gpt.LinuxLVM), nil, "", "clear /dev/sda"},
		{"the same, and a name", machine().with("sda", "", gpt.LinuxLVM), []string{"a"}, "", ""},
		{"another partition", machine().with("sda", "a", gpt.LinuxData, gpt.LinuxLVM).with("sdb", "b", gpt.LinuxLVM), nil, "", "! /dev/sda also has /dev/sda1, and it can only be cleared as a whole"},
		{"two groups on a disk", machine().with("sda", "a", gpt.LinuxLVM).with("sda", "b", gpt.EFISystem, gpt.LinuxLVM), []string{"a"}, "", "! /dev/sda also has /dev/sda2 of volume group b"},
		{"not finished", unfinished, nil, "", "clear /dev/sda"},
		{"no LVM", machine().with("sda", "", gpt.EFISystem, gpt.LinuxData), nil, "", ""},
		{"a disk of the group is not seen, and some are kept", lacking, nil, `[{"name": "/dev/sdx"}]`, `! volume group "a" lacks 1 of its physical volumes, which may be on the skip list`},
		{"the same, not finished", lackingUnfinished, nil, `[{"name": "/dev/sdx"}]`, "delete volume group a of /dev/sda1\n  delete volume a/lv, linear, 1 GiB\nclear /dev/sda"},
		{"the same, and none are kept", lacking, nil, "", "delete volume group a of /dev/sda1\n  delete volume a/lv, linear, 1 GiB\nclear /dev/sda"},
		{"of a group that lvm cannot tell, and some are kept", orphan, nil, `[{"volume_name": "system"}]`, "! /dev/sda1 is of a volume group that cannot be read, and may be on the skip list"},
		{"the same, and none are kept", orphan, nil, "", "clear /dev/sda"},
	} {
		t.Run(test.name, func(t *testing.T) {
			skip, err := inspect.ParseSkipList(json.RawMessage(test.skip))
			if err != nil {
				t.Fatal(err)
			}
			r, err := planRemoval(test.machine, test.names, skip)
			if want, fails := strings.CutPrefix(test.want, "! "); fails {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("plan:\n%v\n%v\nwant %q", r, err, want)
				}
				return
			}
			if err != nil || r.String() != test.want {
				t.Errorf("plan:\n%s\n%v\nwant:\n%s", r, err, test.want)
			}
		})
	}
}

// What lvm says is taken for what it is, and what it does not know is a physical volume of no group.
func TestAskLVM(t *testing.T) {
	lines := func(command, fields, rows string, more string) string {
		return fmt.Sprintf("$ lvm %s --config %q --devices /dev/sda1,/dev/sdb1 --reportformat json --units b --nosuffix --foreign --shared --options %s\n%s%s", command, settings, fields,
			strings.ReplaceAll(`{"report": [{"x": [`+rows+`]}]}`, "\n", ""), more)
	}
	vgs := func(rows string) string {
		return lines("vgs", "vg_uuid,vg_name,vg_missing_pv_count,vg_tags", rows, "\n")
	}
	pvs := func(rows string) string { return lines("pvs", "vg_uuid,pv_name,pv_in_use", rows, "\n") }
	lvs := func(rows string) string { return lines("lvs", "vg_uuid,lv_name,lv_layout,lv_size,lv_tags", rows, "\n") }
	one := vgs(`{"vg_uuid":"U","vg_name":"vg","vg_missing_pv_count":"1","vg_tags":"a,b"}`)
	for _, test := range []struct{ name, script, want string }{
		{"a group", one + pvs(`{"vg_uuid":"U","pv_name":"/dev/sda1"},{"vg_uuid":"U","pv_name":"[unknown]"},{"vg_uuid":"","pv_name":"/dev/sdb1"}`) + lvs(`{"vg_uuid":"U","lv_name":"x","lv_layout":"linear","lv_size":"4194304","lv_tags":"t,ironhand-root"}`),
			"[{vg U 1 [{/dev/sda 1}] [{x linear 4194304 [t ironhand-root]}] [a b]}] []"},
		{"used, and of no group that is known", vgs(``) + pvs(`{"vg_uuid":"","pv_name":"/dev/sda1","pv_in_use":""},{"vg_uuid":"","pv_name":"/dev/sdb1","pv_in_use":"used"}`) + lvs(``), "[] [{/dev/sdb 1}]"},
		{"a second copy, which lvm does not list", vgs(``) + pvs(`{"vg_uuid":"","pv_name":"/dev/sda1","pv_in_use":""}`) + lvs(``), "[] [{/dev/sdb 1}]"},
		{"a hostile name", vgs(`{"vg_uuid":"U","vg_name":"../a\u001b[2J\nb","vg_missing_pv_count":"0"}`) + pvs(``) + lvs(``), "[{..?a??2J?b U 0 [] [] []}] [{/dev/sda 1} {/dev/sdb 1}]"},
		{"a failure", "$ lvm vgs --config " + fmt.Sprintf("%q", settings) + " --devices /dev/sda1,/dev/sdb1 --reportformat json --units b --nosuffix --foreign --shared --options vg_uuid,vg_name,vg_missing_pv_count,vg_tags\n2> checksum error\n? 5", "! checksum error"},
		{"no number", vgs(`{"vg_uuid":"U","vg_name":"vg","vg_missing_pv_count":""}`) + pvs(``) + lvs(``), "! vgs: vg_missing_pv_count: "},
		{"no size", one + pvs(``) + lvs(`{"vg_uuid":"U","lv_name":"x","lv_layout":"linear","lv_size":"1.5"}`), "! lvs: lv_size: "},
		{"of no group", one + pvs(``) + lvs(`{"vg_uuid":"V","lv_name":"x","lv_layout":"linear","lv_size":"1"}`), `! lvs: volume "x" is of no group`},
		{"no report", strings.Replace(one, `{"report": [`, `[`, 1), "! report of lvm: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := machine().with("sda", "", gpt.LinuxLVM).with("sdb", "", gpt.LinuxLVM)
			err := s.askLVM(t.Context(), tooltest.New(t, test.script))
			if want, fails := strings.CutPrefix(test.want, "! "); fails {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("askLVM() = %v, want %q", err, want)
				}
				return
			}
			if got := fmt.Sprint(s.groups, s.orphans); err != nil || got != test.want {
				t.Errorf("groups %s, %v, want %s", got, err, test.want)
			}
		})
	}
	if s := machine(); s.askLVM(t.Context(), tooltest.New(t, "")) != nil {
		t.Error("lvm is asked although there is no physical volume")
	}
}

// A power cut between the sectors of a table leaves a GPT without an MBR. With a mark it is ours, and no obstacle.
func TestTableHalfWritten(t *testing.T) {
	for _, test := range []struct{ name, mark, want string }{
		{"somebody else's", "", "[a GPT without an MBR]"},
		{"with a mark", `ironhand software RAID, not finished: {"run": "r", "parts": [{"Number": 1}]}`, "[]"},
		{"with a mark that lists nothing", `ironhand software RAID, not finished: {"run": "r"}`, "[a GPT without an MBR]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := files()
			for name := range m {
				if strings.Contains(name, "sda1") || strings.Contains(name, "sda2") {
					delete(m, name)
				}
			}
			m["dev/sda"].Data = make([]byte, 8*mib)
			copy(m["dev/sda"].Data[512:], "EFI PART")
			copy(m["dev/sda"].Data[mib-4096:], test.mark)
			s, err := look(t.Context(), steps.Host{Machine: inspect.Machine{FS: m}})
			if err != nil || len(s.disks) != 1 || fmt.Sprint(s.disks[0].holds) != test.want {
				t.Errorf("look() = %+v, %v, want %s", s.disks, err, test.want)
			}
		})
	}
}

// A disk of firmware's RAID that is not the first one has nothing at its start. Nothing else would keep a group from being made of it.
func TestFirmwareRAID(t *testing.T) {
	for _, test := range []struct {
		name   string
		before int
		magic  string
		want   string
	}{
		{"Intel", 1024, "Intel Raid ISM Cfg Sig. 1.3.00", "[a member of an array of firmware (Intel)]"},
		{"Intel, sectors of 4096 bytes", 8192, "Intel Raid ISM Cfg Sig. 1.3.00", "[a member of an array of firmware (Intel)]"},
		{"DDF", 512, "\xde\x11\xde\x11", "[a member of an array of firmware (DDF)]"},
		{"DDF of Adaptec", 257 * 512, "\xde\x11\xde\x11", "[a member of an array of firmware (DDF)]"},
		{"none", 1024, "", "[]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := files()
			for name := range m {
				if strings.Contains(name, "sda1") || strings.Contains(name, "sda2") {
					delete(m, name)
				}
			}
			m["dev/sda"].Data = make([]byte, 8*mib)
			copy(m["dev/sda"].Data[8*mib-test.before:], test.magic)
			s, err := look(t.Context(), steps.Host{Machine: inspect.Machine{FS: m}})
			if err != nil || len(s.disks) != 1 || fmt.Sprint(s.disks[0].holds) != test.want {
				t.Errorf("look() = %+v, %v, want %s", s.disks, err, test.want)
			}
		})
	}
}

// files is a machine of one disk with partitions, in the form of the kernel's files.
func files() fstest.MapFS {
	m := fstest.MapFS{}
	file := func(name, text string) { m[name] = &fstest.MapFile{Data: []byte(text)} }
	content := make([]byte, 8*mib)
	copy(content[mib+512:], "LABELONE----------------LVM2 001")
	file("dev/sda", string(content))
	file("dev/sda1", string(content[mib:3*mib]))
	file("dev/sda2", string(content[3*mib:]))
	dir := "sys/block/sda/"
	file(dir+"size", fmt.Sprint(8*mib/512))
	file(dir+"ro", "0")
	file(dir+"queue/logical_block_size", "512")
	for n, v := range map[int][2]int64{1: {mib, 2 * mib}, 2: {3 * mib, 5 * mib}} {
		for what, value := range map[string]int64{"partition": int64(n), "start": v[0] / 512, "size": v[1] / 512} {
			file(fmt.Sprintf("%ssda%d/%s", dir, n, what), fmt.Sprint(value))
		}
	}
	return m
}

func TestLook(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(fstest.MapFS)
		want   string // physical volumes, or an error
	}{
		{"a physical volume in a partition", func(fstest.MapFS) {}, "[{/dev/sda 1}]"},
		{"none", func(m fstest.MapFS) { m["dev/sda1"].Data = make([]byte, 2*mib) }, "[]"},
		{"a partition that ends too early", func(m fstest.MapFS) { m["dev/sda1"].Data = m["dev/sda1"].Data[:1000] }, "! look at /dev/sda: /dev/sda1: read at 4096: "},
		{"a disk that is gone", func(m fstest.MapFS) { delete(m, "dev/sda") }, "[]"},
		{"a size that is no number", func(m fstest.MapFS) { m["sys/block/sda/sda2/size"].Data = []byte("x") }, "! look at /dev/sda: size of sda2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := files()
			test.change(m)
			host := steps.Host{Machine: inspect.Machine{FS: m}, Tools: tooltest.New(t, "")}
			if test.want == "[{/dev/sda 1}]" {
				host.Tools = nil // and so lvm cannot be asked
			}
			s, err := look(t.Context(), host)
			if want, fails := strings.CutPrefix(test.want, "! "); fails {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("look() = %v, want %q", err, want)
				}
				return
			}
			if got := fmt.Sprint(s.places()); got != test.want || (err == nil) != (host.Tools != nil) {
				t.Errorf("look() = %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

// A disk that hangs is named, and nothing is decided.
func TestLookHangs(t *testing.T) {
	for _, name := range []string{"dev/sda", "dev/md0"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := files()
				for file, text := range map[string]string{"size": "16384", "ro": "0", "md/array_state": "clean", "md/level": "raid1", "md/raid_disks": "0", "queue/logical_block_size": "512"} {
					m["sys/block/md0/"+file] = &fstest.MapFile{Data: []byte(text)}
				}
				m["sys/block/md0/slaves"] = &fstest.MapFile{Mode: fs.ModeDir}
				m["dev/md0"] = &fstest.MapFile{Data: make([]byte, 8*mib)}
				gate := make(chan struct{})
				start := time.Now()
				_, err := look(t.Context(), steps.Host{Machine: inspect.Machine{FS: hanging{m, name, gate}}})
				took := time.Since(start)
				close(gate)
				if want := "look at /" + name + ": no answer within 20s"; err == nil || err.Error() != want || took > time.Minute {
					t.Errorf("look() = %v after %v, want %q", err, took, want)
				}
			})
		})
	}
}

// A former user's group can have any name. None may keep the group from being deleted, or touch what /dev has of that name.
func TestForgetForeignNames(t *testing.T) {
	for _, name := range []string{"null", "shm", "pts", "mapper", "..", ".", ""} {
		t.Run(name, func(t *testing.T) {
			if err := forget(fstest.MapFS{"sys/block": {Mode: fs.ModeDir}}, name); err != nil {
				t.Errorf("forget(%q) = %v", name, err)
			}
		})
	}
}

// vgcreate refuses the name of a directory that is no group's, and would do so when the disks are partitioned.
func TestDeviceNames(t *testing.T) {
	m := fstest.MapFS{"dev/sda": {}, "dev/net/tun": {}, "dev/vg/lv": {Mode: fs.ModeSymlink, Data: []byte("/dev/mapper/vg-lv")}, "dev/empty": {Mode: fs.ModeDir}}
	names, err := deviceNames(m)
	if err != nil || !names["sda"] || !names["net"] || !names["shm"] || names["vg"] || names["empty"] {
		t.Errorf("deviceNames() = %v, %v", names, err)
	}
}

func TestArguments(t *testing.T) {
	host := steps.Host{Machine: inspect.Machine{FS: fstest.MapFS{"sys/block/x": {}, "dev/x": {}}}, Say: func(string, ...any) {}}
	for _, test := range []struct {
		name, step, args, property string
		want                       error
		text                       string
	}{
		{"no layout", "create", ``, ``, steps.ErrArgs, "logical_volumes is missing"},
		{"null", "create", `{"logical_volumes": null}`, `null`, steps.ErrArgs, "logical_volumes is missing"},
		{"the node's property", "create", `{}`, vg(`{"name": "a", "size_gb": 0}`), steps.ErrVolumes, `logical volumes of node n1: volume group "vg": volume "a": size_gb is 0`},
		{"no object", "create", `[]`, ``, steps.ErrArgs, "json"},
		{"no disk", "create", `{"logical_volumes": ` + vg(`{"name": "a", "size_gb": 1}`) + `}`, ``, inspect.ErrNoDisk, "physical_disks, entry 1"},
		{"no names", "delete", `{"volume_groups": []}`, ``, steps.ErrArgs, "volume_groups names none"},
		{"names that are none", "delete", `{"volume_groups": "vg"}`, ``, steps.ErrArgs, "json"},
		{"nothing to delete", "delete", `{"volume_groups": ["vg"]}`, ``, nil, ""},
		{"checked early", "check", `{"logical_volumes": []}`, ``, steps.ErrArgs, "there are 0 volume groups"},
		{"nothing to check", "check", `{}`, ``, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := steps.Job{Node: steps.Node{UUID: "n1", Properties: map[string]json.RawMessage{"logical_volumes": json.RawMessage(test.property)}}, Args: json.RawMessage(test.args)}
			var err error
			switch test.step {
			case "create":
				_, err = Create(t.Context(), host, j)
			case "delete":
				_, err = Delete(t.Context(), host, j)
			case "check":
				err = Check(host, j.Args)
			}
			if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("%s: %v, want %v, %q", test.step, err, test.want, test.text)
			}
		})
	}
}

// An image does not go onto a disk with one of the node's own groups.
func TestRelease(t *testing.T) {
	call := func(command, fields, rows string) string {
		return fmt.Sprintf("$ lvm %s --config %q --devices /dev/sda1 --reportformat json --units b --nosuffix --foreign --shared --options %s\n{\"report\": [{\"x\": [%s]}]}\n", command, settings, fields, rows)
	}
	script := call("vgs", "vg_uuid,vg_name,vg_missing_pv_count,vg_tags", `{"vg_uuid":"U","vg_name":"vg","vg_missing_pv_count":"0"}`) +
		call("pvs", "vg_uuid,pv_name,pv_in_use", `{"vg_uuid":"U","pv_name":"/dev/sda1"}`) + call("lvs", "vg_uuid,lv_name,lv_layout,lv_size,lv_tags", ``)
	made := strings.Replace(script, `"vg_missing_pv_count":"0"`, `"vg_missing_pv_count":"0","vg_tags":"x,ironhand-node-n1"`, 1)
	own := func(tags string) string { return call("vgs", "vg_tags", `{"vg_tags":"`+tags+`"}`) }
	for _, test := range []struct{ name, layout, disk, script, want string }{
		{"made for the node", ``, "/dev/sda", own("x,ironhand-node-n1") + made, `volume group "vg" is on /dev/sda`},
		{"made for the node, with another layout", strings.Replace(vg(`{"name": "a", "size_gb": 1}`), `"vg"`, `"new"`, 1), "/dev/sda", made, `volume group "vg" is on /dev/sda`},
		{"made for another node", ``, "/dev/sda", own("ironhand-node-n2"), ""},
		{"one of the node's", vg(`{"name": "a", "size_gb": 1}`), "/dev/sda", script, `volume group "vg" is on /dev/sda`},
		{"on another disk", vg(`{"name": "a", "size_gb": 1}`), "/dev/sdb", script, ""},
		{"of a former life", strings.Replace(vg(`{"name": "a", "size_gb": 1}`), `"vg"`, `"new"`, 1), "/dev/sda", script, ""},
		{"no layout", ``, "/dev/sda", own(""), ""},
		{"a layout that is none", `7`, "/dev/sda", "", "logical_volumes in properties"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := steps.Host{Machine: inspect.Machine{FS: files()}, Tools: tooltest.New(t, test.script)}
			n := steps.Node{UUID: "n1", Properties: map[string]json.RawMessage{"logical_volumes": json.RawMessage(test.layout)}}
			if err := Release(t.Context(), h, n, test.disk); (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || !errors.Is(err, steps.ErrVolumes)) {
				t.Errorf("Release() = %v, want %q", err, test.want)
			}
		})
	}
}

// The root volume is that of the node's property, or else the one in the groups that were made for the node; it has to be whole, and on disks as a creation makes them.
func TestRoot(t *testing.T) {
	node := steps.Node{UUID: "n1"}
	mine := []string{nodeTag(node)}
	group := func(s state, name string, tags []string, volumes ...existingVolume) state {
		i := slices.IndexFunc(s.groups, func(e existing) bool { return e.name == name })
		s.groups[i].tags, s.groups[i].volumes = tags, volumes
		return s
	}
	root := existingVolume{name: "root", layout: "linear", size: 8 * gib, tags: []string{rootTag}}
	data := existingVolume{name: "data", layout: "linear", size: 8 * gib}
	disks := func() state {
		s := machine().with("sda", "vg", gpt.EFISystem, gpt.LinuxData, gpt.LinuxLVM).with("sdb", "vg", gpt.EFISystem, gpt.LinuxData, gpt.LinuxLVM)
		s.disk("/dev/sda").drive, s.disk("/dev/sdb").drive = 2, 2
		return s
	}
	array := func() state { return machine().with("md0", "vg", gpt.LinuxLVM) }
	missing, marked := group(disks(), "vg", mine, root), group(disks(), "vg", mine, root)
	missing.groups[0].missing = 1
	marked.disk("/dev/sdb").mark = raid.Mark{Run: "r"}
	hostile := existingVolume{name: "-x", tags: root.tags}
	for _, test := range []struct {
		name        string
		machine     state
		wanted      string
		uefi, drive bool
		want        string // or an error
	}{
		{"made for the node", group(disks(), "vg", mine, data, root), "", true, true, "vg/root on [/dev/sda /dev/sdb], array false, map[configdrive:/dev/sda2 efi system partition:/dev/sda1 root:/dev/mapper/vg-root]"},
		{"of the property", group(disks(), "vg", nil, data, existingVolume{name: "root"}), "vg/root", true, false, "vg/root on [/dev/sda /dev/sdb], array false, map[efi system partition:/dev/sda1 root:/dev/mapper/vg-root]"},
		{"the property counts", group(disks(), "vg", mine, data, root), "vg/data", true, false, "vg/data on [/dev/sda /dev/sdb], array false, map[efi system partition:/dev/sda1 root:/dev/mapper/vg-data]"},
		{"on an array", group(array(), "vg", mine, root), "", true, false, "vg/root on [/dev/md0], array true, map[root:/dev/mapper/vg-root]"},
		{"made for another node", group(disks(), "vg", []string{"ironhand-node-n2"}, root), "", true, false, "none"},
		{"made for the node, without a root", group(disks(), "vg", mine, data), "", true, false, "none"},
		{"nothing there", machine(), "", true, false, "none"},

		{"not there", group(disks(), "vg", mine, root), "vg/other", true, false, "! the node's root volume is vg/other: there is none of this name"},
		{"group not there", machine(), "vg/root", true, false, "! the node's root volume is vg/root: there is none of this name"},
		{"two", group(group(disks().with("sdc", "w", gpt.EFISystem, gpt.LinuxLVM), "vg", mine, root), "w", mine, root), "", true, false, "! there are 2 root volumes, vg/root and w/root"},
		{"a disk is missing", missing, "", true, false, "! the group lacks 1 of its physical volumes"},
		{"not finished", marked, "", true, false, "! /dev/sdb is marked as not finished"},
		{"made for BIOS", group(machine().with("sda", "vg", gpt.BIOSBoot, gpt.LinuxLVM), "vg", mine, root), "", true, false, "! /dev/sda has no EFI system partition"},
		{"made for UEFI", group(disks(), "vg", mine, root), "", false, false, "! /dev/sda has no BIOS boot partition"},
		{"no room for a config drive", group(array(), "vg", mine, root), "", true, true, "! /dev/md0 has no partition for the config drive"},
		{"an array and a disk", group(array().with("sda", "vg", gpt.LinuxLVM), "vg", mine, root), "", true, false, "! the group is on more than the array /dev/md0"},
		{"twice on a disk", group(machine().with("sda", "vg", gpt.LinuxLVM, gpt.LinuxLVM), "vg", mine, root), "", true, false, "! /dev/sda has two physical volumes of the group"},
		{"a hostile name", group(disks(), "vg", mine, hostile), "", true, false, "! that is no name for a volume"},
	} {
		t.Run(test.name, func(t *testing.T) {
			wanted, _ := image.ParseLogicalVolume(test.wanted)
			r, err := test.machine.root(wanted, node)
			got := "none"
			if r != nil {
				got = fmt.Sprintf("%v on %v, array %v, %v", r, r.Names(), r.Array, r.Paths(test.uefi, test.drive))
				err = r.CheckBoot(test.uefi, test.drive)
			}
			if want, fails := strings.CutPrefix(test.want, "! "); fails {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("root() = %v, %v, want %q", got, err, want)
				}
			} else if err != nil || got != test.want {
				t.Errorf("root() = %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

// A root volume of LVM and one of software RAID are both meant only if one is on the other.
func TestTwoRoots(t *testing.T) {
	for _, test := range []struct{ name, config, want string }{
		{"none", `{}`, ""},
		{"the array that it is on", `{"logical_disks": [{"controller": "software", "volume_name": "system", "is_root_volume": true}]}`, ""},
		{"an array that is no root", `{"logical_disks": [{"controller": "software", "volume_name": "other"}]}`, ""},
		{"another array", `{"logical_disks": [{"controller": "software", "volume_name": "other", "is_root_volume": true}]}`, `the array "other" by its raid_config and the logical volume vg/root`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := machine()
			r := &Root{LogicalVolume: image.LogicalVolume{Group: "vg", Name: "root"}, Disks: []inspect.Disk{s.disk("/dev/md0").Disk}, Array: true}
			if err := s.agrees(r, steps.Node{RAIDConfig: json.RawMessage(test.config)}); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("agrees() = %v, want %q", err, test.want)
			}
		})
	}
}

// A group that is there gets the tags that it lacks, and loses those that were right for another layout or node.
func TestRetag(t *testing.T) {
	e := existing{name: "vg", places: []place{{"/dev/sda", 3}}, tags: []string{"x", "ironhand-node-n1"}, volumes: []existingVolume{{name: "a", tags: []string{"t", rootTag}}, {name: "b"}}}
	call := func(command, option, tag, name string) string {
		return fmt.Sprintf("$ lvm %s --config %q --devices /dev/sda3 %s %s %s\n", command, settings, option, tag, name)
	}
	for _, test := range []struct{ name, tag, root, want string }{
		{"as they are", "ironhand-node-n1", "a", ""},
		{"another root", "ironhand-node-n1", "b", call("lvchange", "--deltag", rootTag, "vg/a") + call("lvchange", "--addtag", rootTag, "vg/b")},
		{"no root", "ironhand-node-n1", "", call("lvchange", "--deltag", rootTag, "vg/a")},
		{"another node", "ironhand-node-n2", "a", call("vgchange", "--addtag", "ironhand-node-n2", "vg") + call("vgchange", "--deltag", "ironhand-node-n1", "vg")},
		{"a node without a name", "", "a", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := e.retag(t.Context(), steps.Host{Tools: tooltest.New(t, test.want)}, test.tag, test.root); err != nil {
				t.Error(err)
			}
		})
	}
}

// A volume that is found by its name is not written to if something else says that it is not the node's.
func TestRootOfAnother(t *testing.T) {
	for _, test := range []struct {
		name, skip, tag string
		twice           bool
		want            string
	}{
		{"no tag", ``, "x", false, ""},
		{"the node's", ``, "ironhand-node-n1", false, ""},
		{"another node's", ``, "ironhand-node-n2", false, "vg/root, and the group was made for node n2"},
		{"two groups of the name", ``, "ironhand-node-n1", true, "vg/root, and there are 2 groups of this name"},
		{"another disk on the skip list", `[{"name": "/dev/sdc"}]`, "", false, ""},
		{"a disk on the skip list", `[{"name": "/dev/sdb"}]`, "", false, "/dev/sdb, which it is on, is on the skip list"},
		{"a skip list that is none", `7`, "", false, "skip_block_devices in properties"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := machine().with("sda", "vg", gpt.EFISystem, gpt.LinuxLVM).with("sdb", "vg", gpt.EFISystem, gpt.LinuxLVM)
			s.groups[0].tags, s.groups[0].volumes = []string{test.tag}, []existingVolume{{name: "root"}}
			if test.twice {
				s.groups = append(s.groups, existing{name: "vg"})
			}
			n := steps.Node{UUID: "n1", Properties: map[string]json.RawMessage{"skip_block_devices": json.RawMessage(test.skip)}}
			r, err := s.root(image.LogicalVolume{Group: "vg", Name: "root"}, n)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.agrees(r, n); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("agrees() = %v, want %q", err, test.want)
			}
		})
	}
}

// Of a disk and its copy nobody knows to which an image would be written.
func TestRootTwice(t *testing.T) {
	for _, test := range []struct{ name, id, want string }{
		{"another volume", "0123456789abcdefghijklmnopqrstuv", ""},
		{"a copy", "----------------0123456789abcdef", "/dev/sdb1 is a copy of its /dev/sda1, or another path to it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := files()
			copy(m["dev/sda1"].Data[512+32:], "----------------0123456789abcdef")
			other := slices.Clone(m["dev/sda1"].Data)
			copy(other[512+32:], test.id)
			m["dev/sdb1"] = &fstest.MapFile{Data: other}
			s := state{orphans: []place{{"/dev/sdb", 1}}}
			r := &Root{LogicalVolume: image.LogicalVolume{Group: "vg", Name: "root"}, devices: []string{"/dev/sda1"}}
			if err := s.single(m, r); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("single() = %v, want %q", err, test.want)
			}
		})
	}
}

// A machine without groups of the node is deployed whatever else is on its disks, also if one of them is broken.
func TestBrokenDiskBeside(t *testing.T) {
	m := files()
	for name, text := range map[string]string{"sys/block/sdb/size": "16384", "sys/block/sdb/ro": "0", "sys/block/sdb/queue/logical_block_size": "512", "dev/sdb": "short"} {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	h := func(tags string) steps.Host {
		return steps.Host{Machine: inspect.Machine{FS: m}, Tools: tooltest.New(t, fmt.Sprintf("$ lvm vgs --config %q --devices /dev/sda1 --reportformat json --units b --nosuffix --foreign --shared --options vg_tags\n{\"report\": [{\"vg\": [{\"vg_tags\":%q}]}]}\n", settings, tags))}
	}
	n := steps.Node{UUID: "n1"}
	if r, err := FindRoot(t.Context(), h(""), n); r != nil || err != nil {
		t.Errorf("FindRoot() = %v, %v, want none", r, err)
	}
	if err := Release(t.Context(), h("ironhand-node-n2"), n, "/dev/sda"); err != nil {
		t.Errorf("Release() = %v", err)
	}
	if r, err := FindRoot(t.Context(), h("ironhand-node-n1"), n); r != nil || err == nil || !strings.Contains(err.Error(), "/dev/sdb") {
		t.Errorf("FindRoot() = %v, %v, want that /dev/sdb cannot be read", r, err)
	}
}

// A disk that does not answer holds up a deployment for a while only, and one that has a physical volume beside it is found.
func TestLabels(t *testing.T) {
	for _, test := range []struct {
		name  string
		hangs string
		label bool
		want  string
	}{
		{"a label", "", true, "[/dev/sda1]"},
		{"none", "", false, "[]"},
		{"a disk hangs", "dev/sdb", false, "[]"},
		{"a disk hangs behind a label", "dev/sda2", true, "[/dev/sda1]"},
		{"a disk hangs beside a label", "dev/sdb", true, "[/dev/sda1]"},
		{"disks hang before a label", "dev/sda", true, "[/dev/sdc /dev/sdd /dev/sde /dev/sdf]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := files()
				m["sys/block/sdb/size"], m["sys/block/sdb/ro"], m["dev/sdb"] = &fstest.MapFile{Data: []byte("16384")}, &fstest.MapFile{Data: []byte("0")}, &fstest.MapFile{}
				if test.hangs == "dev/sda" {
					for _, name := range []string{"sdc", "sdd", "sde", "sdf"} {
						m["sys/block/"+name+"/size"], m["sys/block/"+name+"/ro"], m["dev/"+name] = m["sys/block/sdb/size"], m["sys/block/sdb/ro"], m["dev/sda1"]
					}
				}
				if !test.label {
					clear(m["dev/sda1"].Data)
				}
				gate := make(chan struct{})
				defer close(gate)
				var said []string
				h := steps.Host{Machine: inspect.Machine{FS: hanging{m, test.hangs, gate}}, Say: func(f string, args ...any) { said = append(said, fmt.Sprintf(f, args...)) }}
				start := time.Now()
				if got := fmt.Sprint(labels(t.Context(), h)); got != test.want {
					t.Errorf("labels() = %v, want %v", got, test.want)
				}
				if hung := test.hangs != ""; hung != (len(said) > 0) || time.Since(start) > patience {
					t.Errorf("after %v it said %q", time.Since(start), said)
				}
			})
		})
	}
}

// A physical volume is found by the path to its disk that works.
func TestLabelsDeadPath(t *testing.T) {
	for _, test := range []struct {
		name, dead, want string
	}{
		{"both work", "", "[/dev/sda1]"},
		{"the first is dead", "sda", "[/dev/sdc1]"},
		{"the second is dead", "sdc", "[/dev/sda1]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := files()
			for name, file := range maps.Clone(m) {
				m[strings.ReplaceAll(name, "sda", "sdc")] = file
			}
			for i, name := range []string{"sda", "sdc"} {
				m[fmt.Sprintf("sys/block/%s/device/scsi_device/%d:0:0:0/x", name, i)] = &fstest.MapFile{}
				m["sys/block/"+name+"/device/wwid"] = &fstest.MapFile{Data: []byte("naa.5000c500a1b2c3d4")}
			}
			h := steps.Host{Machine: inspect.Machine{FS: failing{m, "dev/" + test.dead}}, Say: func(string, ...any) {}}
			if got := fmt.Sprint(labels(t.Context(), h)); got != test.want {
				t.Errorf("labels() = %s, want %s", got, test.want)
			}
			s, _ := look(t.Context(), h) // without tools lvm cannot be asked
			if len(s.places()) != 1 || "["+s.places()[0].device()+"]" != test.want {
				t.Errorf("look() = %v, want %s", s.places(), test.want)
			}
		})
	}
}

// failing is a machine one of whose disks cannot be read, nor its partitions.
type failing struct {
	fstest.MapFS
	disk string
}

func (f failing) Open(name string) (fs.File, error) {
	if f.disk != "dev/" && strings.HasPrefix(name, f.disk) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EIO}
	}
	return f.MapFS.Open(name)
}

// hanging is a machine one of whose files does not open before the gate does.
type hanging struct {
	fstest.MapFS
	name string
	gate chan struct{}
}

func (h hanging) Open(name string) (fs.File, error) {
	if name == h.name {
		<-h.gate
	}
	return h.MapFS.Open(name)
}

func FuzzLayout(f *testing.F) {
	for _, test := range parseTests {
		if len(test.layout) < 4096 {
			f.Add([]byte(test.layout))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		groups, errs := parseLayout(b)
		if len(errs) > 0 {
			return
		}
		p, err := planCreation(groups, machine(), inspect.SkipList{}, bootPart{gpt.EFISystem, 550 * mib})
		if err != nil {
			return
		}
		used := map[string][]area{}
		for _, g := range p.groups {
			for _, v := range g.volumes {
				n := int64(0)
				for _, a := range v.areas {
					for _, o := range used[a.device] {
						if a.first <= o.last && o.first <= a.last {
							t.Fatalf("%q: areas %v and %v overlap:\n%s", b, a, o, p)
						}
					}
					if a.first > a.last {
						t.Fatalf("%q: area %v is empty", b, a)
					}
					used[a.device] = append(used[a.device], a)
					n += a.last - a.first + 1
				}
				want := v.extents
				if v.kind == "raid1" {
					want = (want + 1) * int64(v.across)
				}
				if n != want || v.size > 0 && v.extents*extent < v.size {
					t.Fatalf("%q: %s has %d extents, wants %d", b, v.name, n, want)
				}
			}
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"report": [{"vg": [{"vg_uuid":"U","vg_name":"vg","vg_missing_pv_count":"1"}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := parseReport(b)
		if err != nil {
			return
		}
		s := machine()
		if s.add(rows, rows, rows) != nil {
			return
		}
		for _, g := range s.groups {
			if strings.ContainsFunc(g.name, func(c rune) bool { return c < ' ' || c > '~' || c == '/' }) {
				t.Errorf("a group has the name %q", g.name)
			}
		}
	})
}

// cleared is a disk that notes what is made zero.
type cleared struct {
	steps.Disk
	spans []string
}

func (c *cleared) Sync() error { return nil }
func (c *cleared) Zero(_ context.Context, at, n int64) error {
	c.spans = append(c.spans, fmt.Sprintf("%d+%d", at, n))
	return nil
}

// Nothing beside what firmware starts from is cleared: a BIOS boot partition that somebody else made may be smaller than ours, and lie right behind the table.
func TestClearBoot(t *testing.T) {
	for _, test := range []struct {
		name        string
		boot, drive stream.Partition
		want        string
	}{
		{"ours", stream.Partition{Start: mib, Size: 550 * mib}, stream.Partition{Start: 551 * mib, Size: 64 * mib}, "[1048576+1048576 576716800+1048576 577765376+1048576 643825664+1048576]"},
		{"small, before the first MiB", stream.Partition{Start: 34 * 512, Size: 2014 * 512}, stream.Partition{}, "[17408+1031168]"},
		{"between", stream.Partition{Start: mib, Size: mib + 512}, stream.Partition{}, "[1048576+1048576 1049088+1048576]"},
		{"none", stream.Partition{}, stream.Partition{}, "[]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			first, second := &cleared{}, &cleared{}
			r := &Root{Disks: make([]inspect.Disk, 2), boot: []stream.Partition{test.boot, test.boot}, drives: []stream.Partition{test.drive, test.drive}}
			err := r.clearBoot(t.Context(), []steps.Disk{first, second})
			for _, d := range []*cleared{first, second} {
				if err != nil || fmt.Sprint(d.spans) != test.want {
					t.Errorf("clearBoot() = %v, cleared %v, want %s", err, d.spans, test.want)
				}
			}
		})
	}
}

// Of an array whose group is in use, the machine can still be started afterwards: the disks below it are not touched.
func TestDisarmInUse(t *testing.T) {
	for _, test := range []struct{ name, answer, want string }{
		{"a volume", "2> Logical volume vg/root in use.\n? 5\n", "Logical volume vg/root in use"},
		{"the array", "", "/dev/md0 is open"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := fstest.MapFS{"sys/block/md0/md/array_state": &fstest.MapFile{Data: []byte("clean\n")}} // and that is all: below it nothing can be found
			h := steps.Host{Machine: inspect.Machine{FS: m}, Open: func(path string) (steps.Disk, error) { return nil, fmt.Errorf("%s is open", path) }}
			h.Tools = tooltest.New(t, fmt.Sprintf("$ lvm vgchange --config %q --devices /dev/md0p1 --activate n vg\n%s", settings, test.answer))
			r := &Root{LogicalVolume: image.LogicalVolume{Group: "vg", Name: "root"}, Array: true, Disks: []inspect.Disk{{Name: "/dev/md0"}}, devices: []string{"/dev/md0p1"}}
			if err := r.Disarm(t.Context(), h, steps.Node{UUID: "n1"}); err == nil || !strings.Contains(err.Error(), test.want) || r.marked {
				t.Errorf("Disarm() = %v, marked %v, want %q", err, r.marked, test.want)
			}
		})
	}
}
