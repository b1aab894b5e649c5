// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

func TestParseConfig(t *testing.T) {
	disk := func(more string) string {
		return `{"logical_disks": [{"size_gb": 100, "raid_level": "1", "controller": "software"` + more + `}]}`
	}
	for _, test := range []struct {
		name, config string
		want         string // volumes, or errors
	}{
		{"nothing", ``, ""},
		{"null", `null`, ""},
		{"empty", `{ }`, ""},
		{"another interface's", `{"logical_disks": [{"size_gb": 100, "raid_level": "5+0", "controller": "Smart Array"}, {"size_gb": 1, "raid_level": "1"}]}`, ""},
		{"one", disk(""), "raid1 of 100 GiB"},
		{"all that there is", disk(`, "volume_name": "system", "is_root_volume": true, "physical_disks": [{"size": "> 100", "type": "nvme"}, {"type": "ssd"}], "number_of_physical_disks": 2,
			"share_physical_disks": false, "disk_type": "ssd", "interface_type": "sas"`),
			`raid1 "system" of 100 GiB, members nvme size "> 100", ssd no hints, count 2, kind flash, bus sas, alone`},
		{"MAX, and each level", `{"logical_disks": [{"size_gb": "MAX", "raid_level": "0", "controller": "software"}, {"size_gb": 1, "raid_level": "1+0", "controller": "software"},
			{"size_gb": 2, "raid_level": "5", "controller": "software"}, {"size_gb": 3, "raid_level": "6", "controller": "software"}]}`,
			"raid0 of MAX; raid10 of 1 GiB; raid5 of 2 GiB; raid6 of 3 GiB"},

		{"no JSON", `{`, "! unexpected end of JSON input"},
		{"a list", `[]`, "! json: cannot unmarshal array"},
		{"no logical disks", `{"logical_disks": []}`, "! there are no logical_disks"},
		{"no logical disk", `{"logical_disks": [3]}`, "! logical disk 1: json: cannot unmarshal number"},
		{"too long", `"` + strings.Repeat(" ", maxConfig) + `"`, "! 262146 bytes are more than 262144"},
		{"too many", `{"logical_disks": [` + strings.TrimSuffix(strings.Repeat("{},", 33), ",") + `]}`, "! 33 logical disks are more than 32"},
		{"two controllers", `{"logical_disks": [{"size_gb": 1, "raid_level": "1", "controller": "software"}, {"size_gb": 1, "raid_level": "1", "controller": "x"}]}`,
			`! logical disk 2: controller is "x", and only software is made here`},
		{"unknown level", disk(`, "raid_level": "5+0"`), `! logical disk 1: raid_level is "5+0", want 0, 1, 1+0, 5 or 6`},
		{"no size", disk(`, "size_gb": null`), `! logical disk 1: size_gb is null, want`},
		{"size 0", disk(`, "size_gb": 0`), `! logical disk 1: size_gb is 0, which is no size`},
		{"negative size", disk(`, "size_gb": -1`), `! logical disk 1: size_gb is -1, which is no size`},
		{"size that overflows", disk(`, "size_gb": 9223372036854775807`), `! logical disk 1: size_gb is 9223372036854775807, which is no size`},
		{"half a GiB", disk(`, "size_gb": 0.5`), `! logical disk 1: size_gb is 0.5, want`},
		{"size in words", disk(`, "size_gb": "max"`), `! logical disk 1: size_gb is "max", want`},
		{"two roots", `{"logical_disks": [{"size_gb": 1, "raid_level": "1", "controller": "software", "is_root_volume": true}, {"size_gb": 1, "raid_level": "1", "controller": "software", "is_root_volume": true}]}`,
			"! 2 logical disks are the root volume"},
		{"a name twice", `{"logical_disks": [{"size_gb": 1, "raid_level": "1", "controller": "software", "volume_name": "a"}, {"size_gb": 1, "raid_level": "1", "controller": "software", "volume_name": "a"}]}`,
			`! volume_name "a" is there twice`},
		{"several errors", disk(`, "size_gb": 0, "raid_level": "7", "volume_name": "/"`), `! volume_name: "/" has other characters`},
		{"disks as texts", disk(`, "physical_disks": ["/dev/sda", "/dev/sdb"]`), `! physical_disks, entry 1: "/dev/sda" is no object of hints`},
		{"one disk", disk(`, "physical_disks": [{"name": "/dev/sda"}]`), "! physical_disks has 1 entries, want 2"},
		{"no disks", disk(`, "physical_disks": []`), "! physical_disks has 0 entries, want 2"},
		{"a hint that is none", disk(`, "physical_disks": [{"colour": "red"}, {}]`), `! physical_disks, entry 1: invalid hints: hint "colour"`},
		{"no hints", disk(`, "physical_disks": [{"name": "/dev/sda"}, {}]`), `! physical_disks, entry 2: there are no hints`},
		{"unknown type", disk(`, "physical_disks": [{"type": "tape"}, {"type": 3}]`), `! physical_disks, entry 1: type is "tape", want rotational, ssd, nvme`},
		{"too few for the level", disk(`, "raid_level": "6", "physical_disks": [{"type": "ssd"}, {"type": "ssd"}, {"type": "ssd"}]`), "! level 6 needs at least 4 disks, not 3"},
		{"count too small for the level", disk(`, "raid_level": "5", "number_of_physical_disks": 2`), "! level 5 needs at least 3 disks, not 2"},
		{"counts that differ", disk(`, "number_of_physical_disks": 3, "physical_disks": [{"type": "ssd"}, {"type": "ssd"}]`), "! number_of_physical_disks is 3, and physical_disks has 2"},
		{"disk type", disk(`, "disk_type": "tape"`), `! disk_type is "tape"`},
		{"interface type", disk(`, "interface_type": "usb"`), `! interface_type is "usb"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			volumes, errs := parseConfig(json.RawMessage(test.config))
			got := printVolumes(volumes)
			want, fails := strings.CutPrefix(test.want, "! ")
			if fails {
				if got = fmt.Sprint(join(errs)); !strings.Contains(got, want) {
					t.Errorf("parseConfig() = %s, want %q", got, want)
				}
				return
			}
			if got != want || len(errs) > 0 {
				t.Errorf("parseConfig() = %s, %v, want %s", got, errs, want)
			}
		})
	}
}

func printVolumes(volumes []volume) string {
	var all []string
	for _, v := range volumes {
		s := v.level
		if v.name != "" {
			s += fmt.Sprintf(" %q", v.name)
		}
		if s += " of MAX"; v.size > 0 {
			s = strings.TrimSuffix(s, "MAX") + size(v.size)
		}
		for i, w := range v.members {
			s += map[bool]string{true: ", members ", false: ", "}[i == 0] + w.kind + " " + w.hints.String()
		}
		if v.count > 0 {
			s += fmt.Sprintf(", count %d", v.count)
		}
		if v.kind != "" {
			s += ", kind " + v.kind
		}
		if v.bus != "" {
			s += ", bus " + v.bus
		}
		if v.alone {
			s += ", alone"
		}
		all = append(all, s)
	}
	return strings.Join(all, "; ")
}

// software is a configuration of logical disks, each as LEVEL SIZE NAME [HINT...], where a hint is a disk's name.
func software(disks ...string) string {
	type m = map[string]any
	var list []m
	for _, text := range disks {
		w := strings.Fields(text)
		d := m{"raid_level": w[0], "controller": "software", "size_gb": json.RawMessage(w[1])}
		if w[1] == "MAX" {
			d["size_gb"] = "MAX"
		}
		if w[2] != "-" {
			d["volume_name"] = w[2]
		}
		if len(w) > 3 {
			var hints []m
			for _, name := range w[3:] {
				hints = append(hints, m{"name": "/dev/" + name})
			}
			d["physical_disks"] = hints
		}
		list = append(list, d)
	}
	text, err := json.Marshal(m{"logical_disks": list})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"system": "", "a": "", "Data_1.x-y": "", "mdx": "", "md": "", strings.Repeat("x", 28): "",
		"": "is empty", "-n": "begins with", ".": "begins with", "..": "begins with", "--help": "begins with", "a/b": "other characters", "a b": "other characters", "a\n": "other characters",
		"host:name": "other characters", "a\x00": "other characters", "ö": "other characters", "$(id)": "other characters", "a=b": "other characters", "a*": "other characters",
		"esp": "the boot loader's", "0": "a number of an array", "127": "a number of an array", "md0": "a number of an array", strings.Repeat("x", 29): "longer than 28 bytes",
	} {
		err := checkName(name)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("checkName(%q) = %v, want %q", name, err, want)
		}
	}
}

// machine is a machine of a test: three SSDs of 100 GiB, two hard disks of 200 GiB, two NVMe of 50 GiB with sectors of 4096 bytes, a USB disk.
func machine() state {
	var s state
	add := func(name string, gibs int64, rotational bool, tran string, sector int) {
		s.disks = append(s.disks, disk{Disk: inspect.Disk{
			Name: "/dev/" + name, Size: gibs * gib, Rotational: rotational, Tran: inspect.Text(tran), LogicalSectors: inspect.Number(sector), Type: "disk", Serial: inspect.Text("S-" + name),
		}})
	}
	for _, name := range []string{"sda", "sdb", "sdc"} {
		add(name, 100, false, "sata", 512)
	}
	add("sdd", 200, true, "sas", 512)
	add("sde", 200, true, "sas", 512)
	add("nvme0n1", 50, false, "nvme", 4096)
	add("nvme1n1", 50, false, "nvme", 4096)
	add("sdz", 30, false, "usb", 512)
	return s
}

// with adds an array of partitions, or of whole disks if number is 0.
func (s state) with(device, name, level string, count, number int, disks ...string) state {
	a := array{device: device, uuid: "uuid-of-" + name, name: name, version: "1.2", level: level, count: count, degraded: len(disks) < count}
	for _, name := range disks {
		d := s.disk("/dev/" + name)
		a.members = append(a.members, member{d.Name, number})
		d.stale = append(d.stale, number)
		if number > 0 {
			d.raid = append(d.raid, number)
			d.parts = append(d.parts, stream.Partition{Number: number, Start: int64(number) * gib, Size: gib})
		}
	}
	s.arrays = append(s.arrays, a)
	return s
}

func TestPlanCreation(t *testing.T) {
	volume := func(level, size, more string) string {
		return fmt.Sprintf(`{"size_gb": %s, "raid_level": %q, "controller": "software"%s}`, size, level, more)
	}
	on := func(names ...string) string {
		var hints []string
		for _, n := range names {
			hints = append(hints, fmt.Sprintf(`{"name": "/dev/%s"}`, n))
		}
		return `, "physical_disks": [` + strings.Join(hints, ", ") + `]`
	}
	finished := machine().with("/dev/md0", "system", "raid1", 2, 1, "sda", "sdb")
	for _, name := range []string{"/dev/sda", "/dev/sdb"} {
		finished.disk(name).parts[0] = stream.Partition{Number: 1, Start: 551 * mib, Size: 20*gib - 551*mib}
	}
	interrupted := func(made bool) state {
		s := machine().with("", "system", "raid1", 2, 1, "sda")
		s.disk("/dev/sda").mark = mark{Run: "r", Made: made, Partitions: s.disk("/dev/sda").parts}
		s.disk("/dev/sdb").mark = mark{Run: "r", Partitions: s.disk("/dev/sda").parts}
		return s
	}
	alike := func(change func(d *disk)) state {
		s := machine()
		for _, name := range []string{"/dev/sda", "/dev/sdb"} {
			change(s.disk(name))
		}
		return s
	}
	changed := interrupted(false)
	changed.disk("/dev/sda").parts = []stream.Partition{{Number: 1, Start: 5 * mib, Size: gib}}
	for _, test := range []struct {
		name    string
		machine state
		disks   []string // logical
		mode    string   // uefi if empty
		label   string   // of bios
		skip    string
		want    string // the plan, or the error
	}{
		{name: "mirror, and the rest striped", machine: machine(), disks: []string{volume("0", `"MAX"`, on("sda", "sdb")), volume("1", "20", on("sda", "sdb")+`, "volume_name": "system"`)}, want: `
partition /dev/sda sata 100.0 GiB serial S-sda: gpt
  /dev/sda1 from 551 MiB to 20 GiB
  /dev/sda2 from 20 GiB to 102399 MiB
partition /dev/sdb sata 100.0 GiB serial S-sdb: gpt
  /dev/sdb1 from 551 MiB to 20 GiB
  /dev/sdb2 from 20 GiB to 102399 MiB
make /dev/md0 "system", raid1, of /dev/sda1, /dev/sdb1
make /dev/md1 "md1", raid0, of /dev/sda2, /dev/sdb2`},
		{name: "BIOS and GPT", machine: machine(), mode: "bios", label: "gpt", disks: []string{volume("1", "20", on("nvme0n1", "nvme1n1"))}, want: `
partition /dev/nvme0n1 nvme 50.0 GiB serial S-nvme0n1: gpt
  /dev/nvme0n1p1 from 8 MiB to 20 GiB
partition /dev/nvme1n1 nvme 50.0 GiB serial S-nvme1n1: gpt
  /dev/nvme1n1p1 from 8 MiB to 20 GiB
make /dev/md0 "md0", raid1, of /dev/nvme0n1p1, /dev/nvme1n1p1`},
		{name: "BIOS and MBR, by serial and by type", machine: machine(), mode: "bios", label: "msdos", disks: []string{volume("1", "20", `, "physical_disks": [{"serial": "<in> sd", "type": "rotational"}, {"type": "rotational"}]`)}, want: `
partition /dev/sdd sas 200.0 GiB serial S-sdd: msdos
  /dev/sdd1 from 1 MiB to 20 GiB
partition /dev/sde sas 200.0 GiB serial S-sde: msdos
  /dev/sde1 from 1 MiB to 20 GiB
make /dev/md0 "md0", raid1, of /dev/sdd1, /dev/sde1`},
		{name: "by operators: the first that fits and is not taken", machine: machine(), disks: []string{volume("5", "20", `, "physical_disks": [{"size": ">= 100"}, {"size": ">= 100"}, {"size": "< 100", "tran": "nvme"}]`)}, want: `
partition /dev/sda sata 100.0 GiB serial S-sda: gpt
  /dev/sda1 from 551 MiB to 20 GiB
partition /dev/sdb sata 100.0 GiB serial S-sdb: gpt
  /dev/sdb1 from 551 MiB to 20 GiB
partition /dev/nvme0n1 nvme 50.0 GiB serial S-nvme0n1: gpt
  /dev/nvme0n1p1 from 551 MiB to 20 GiB
make /dev/md0 "md0", raid5, of /dev/sda1, /dev/sdb1, /dev/nvme0n1p1`},
		{name: "two that take all, on different disks", machine: machine(), disks: []string{volume("1", `"MAX"`, on("sda", "sdb")), volume("0", `"MAX"`, on("sdd", "sde"))}, want: `
partition /dev/sda sata 100.0 GiB serial S-sda: gpt
  /dev/sda1 from 551 MiB to 102399 MiB
partition /dev/sdb sata 100.0 GiB serial S-sdb: gpt
  /dev/sdb1 from 551 MiB to 102399 MiB
partition /dev/sdd sas 200.0 GiB serial S-sdd: gpt
  /dev/sdd1 from 551 MiB to 204799 MiB
partition /dev/sde sas 200.0 GiB serial S-sde: gpt
  /dev/sde1 from 551 MiB to 204799 MiB
make /dev/md0 "md0", raid1, of /dev/sda1, /dev/sdb1
make /dev/md1 "md1", raid0, of /dev/sdd1, /dev/sde1`},
		{name: "a kind and a number of disks", machine: machine(), disks: []string{volume("1+0", "10", `, "disk_type": "ssd", "number_of_physical_disks": 4, "volume_name": "fast"`)}, want: `
partition /dev/sda sata 100.0 GiB serial S-sda: gpt
  /dev/sda1 from 551 MiB to 10 GiB
partition /dev/sdb sata 100.0 GiB serial S-sdb: gpt
  /dev/sdb1 from 551 MiB to 10 GiB
partition /dev/sdc sata 100.0 GiB serial S-sdc: gpt
  /dev/sdc1 from 551 MiB to 10 GiB
partition /dev/nvme0n1 nvme 50.0 GiB serial S-nvme0n1: gpt
  /dev/nvme0n1p1 from 551 MiB to 10 GiB
make /dev/md0 "fast", raid10, of /dev/sda1, /dev/sdb1, /dev/sdc1, /dev/nvme0n1p1`},
		{name: "a bus", machine: machine(), disks: []string{volume("1", "10", `, "interface_type": "sas"`)}, want: `
partition /dev/sdd sas 200.0 GiB serial S-sdd: gpt
  /dev/sdd1 from 551 MiB to 10 GiB
partition /dev/sde sas 200.0 GiB serial S-sde: gpt
  /dev/sde1 from 551 MiB to 10 GiB
make /dev/md0 "md0", raid1, of /dev/sdd1, /dev/sde1`},
		{name: "disks on the skip list are left out", machine: machine(), skip: `[{"rotational": true}, {"tran": "nvme"}]`, disks: []string{volume("1", "10", "")}, want: `
partition /dev/sda sata 100.0 GiB serial S-sda: gpt
  /dev/sda1 from 551 MiB to 10 GiB
partition /dev/sdb sata 100.0 GiB serial S-sdb: gpt
  /dev/sdb1 from 551 MiB to 10 GiB
partition /dev/sdc sata 100.0 GiB serial S-sdc: gpt
  /dev/sdc1 from 551 MiB to 10 GiB
make /dev/md0 "md0", raid1, of /dev/sda1, /dev/sdb1, /dev/sdc1`},
		{name: "a number that is taken", machine: machine().with("/dev/md0", "other", "raid1", 2, 0, "sdd", "sde"), disks: []string{volume("1", "10", on("sda", "sdb"))}, want: `
partition /dev/sda sata 100.0 GiB serial S-sda: gpt
  /dev/sda1 from 551 MiB to 10 GiB
partition /dev/sdb sata 100.0 GiB serial S-sdb: gpt
  /dev/sdb1 from 551 MiB to 10 GiB
make /dev/md1 "md1", raid1, of /dev/sda1, /dev/sdb1`},
		{name: "done already", machine: finished, disks: []string{volume("1", "20", on("sda", "sdb")+`, "volume_name": "system"`)}, want: `
leave /dev/md0 system, raid1, of /dev/sda1, /dev/sdb1 as it is`},
		{name: "interrupted", machine: interrupted(false), disks: []string{volume("1", "20", on("sda", "sdb")+`, "volume_name": "system"`)}, want: `
clear /dev/sda of an interrupted creation
partition /dev/sda sata 100.0 GiB serial S-sda: gpt
  /dev/sda1 from 551 MiB to 20 GiB
partition /dev/sdb sata 100.0 GiB serial S-sdb: gpt
  /dev/sdb1 from 551 MiB to 20 GiB
make /dev/md0 "system", raid1, of /dev/sda1, /dev/sdb1`},
		{name: "kept and wiped volumes are not made again", machine: finished.with("/dev/md1", "data", "raid0", 2, 2, "sda", "sdb"), skip: `[{"volume_name": "data"}]`,
			disks: []string{volume("1", "20", `, "volume_name": "system"`), volume("0", `"MAX"`, `, "volume_name": "data"`)}, want: `
leave /dev/md0 system, raid1, of /dev/sda1, /dev/sdb1 as it is
leave /dev/md1 data, raid0, of /dev/sda2, /dev/sdb2 as it is`},

		{name: "no disk fits", machine: machine(), disks: []string{volume("1", "10", on("sda", "sdx"))}, want: `! logical disk 1: physical_disks, entry 2, without the disks that the entries before have taken: no suitable disk`},
		{name: "no further disk of the type", machine: machine(), disks: []string{volume("5", "10", `, "physical_disks": [{"type": "nvme"}, {"type": "nvme"}, {"type": "nvme"}]`)}, want: `! entry 3: no suitable disk: no further disk is of type nvme`},
		{name: "one disk twice", machine: machine(), disks: []string{volume("1", "10", on("sda", "sda"))}, want: `! entry 2, without the disks that the entries before have taken: no suitable disk`},
		{name: "too few disks", machine: state{disks: machine().disks[:3]}, disks: []string{volume("6", "10", "")}, want: `! it needs 4 disks, and 3 are there: /dev/sda, /dev/sdb, /dev/sdc`},
		{name: "too few of a kind", machine: machine(), disks: []string{volume("5", "10", `, "disk_type": "hdd"`)}, want: `! it needs 3 disks, and 2 are there: /dev/sdd, /dev/sde`},
		{name: "no disks", machine: state{}, disks: []string{volume("1", "10", "")}, want: `! it needs 2 disks, and 0 are there: none`},
		{name: "USB is not guessed", machine: machine(), disks: []string{volume("1", "10", `, "physical_disks": [{"size": "< 40"}, {"size": "< 60"}]`)}, want: `! /dev/sdz is a USB disk`},
		{name: "too large", machine: machine(), disks: []string{volume("1", "100", on("sda", "sdb"))}, want: `! it would end at 100 GiB of /dev/sda, where no more than 102399 MiB are of use; `},
		{name: "too large together", machine: machine(), disks: []string{volume("1", "60", on("sda", "sdb")), volume("1", "60", on("sdb", "sdc"))}, want: `! it would end at 120 GiB of /dev/sdb`},
		{name: "as large as could be written down", machine: machine(), disks: []string{volume("1", "1073741824", on("sda", "sdb")), volume("1", "1073741824", on("sda", "sdb"))}, want: `! it would end at 1073741824 GiB of /dev/sda`},
		{name: "two that take all", machine: machine(), disks: []string{volume("1", `"MAX"`, on("sda", "sdb")), volume("0", `"MAX"`, on("sdb", "sdc"))}, want: `! /dev/sdb is filled up by logical disk 1, which is MAX too`},
		{name: "nothing left", machine: state{disks: []disk{{Disk: inspect.Disk{Name: "/dev/sda", Size: 552 * mib, Serial: "x"}}, {Disk: inspect.Disk{Name: "/dev/sdb", Size: gib}}}}, disks: []string{volume("1", `"MAX"`, "")},
			want: `! 0 GiB are free for it on /dev/sda, and it needs 64 MiB at least`},
		{name: "more than four in an MBR", machine: machine(), mode: "bios", label: "msdos", disks: []string{volume("1", "1", on("sda", "sdb")), volume("1", "1", on("sda", "sdb")), volume("1", "1", on("sda", "sdb")),
			volume("1", "1", on("sda", "sdb")), volume("1", "1", on("sda", "sdb"))}, want: `! /dev/sda has 4 partitions already, more than an MBR can have: give the node the capability disk_label:gpt`},
		{name: "beyond 2 TiB with an MBR", machine: state{disks: []disk{{Disk: inspect.Disk{Name: "/dev/sda", Size: 4096 * gib, LogicalSectors: 512}}, {Disk: inspect.Disk{Name: "/dev/sdb", Size: 4096 * gib, LogicalSectors: 512}}}},
			mode: "bios", label: "msdos", disks: []string{volume("1", `"MAX"`, "")}, want: `! beyond what an MBR can name`},
		{name: "shares no disk", machine: machine(), disks: []string{volume("1", "10", on("sda", "sdb")+`, "share_physical_disks": false`), volume("1", "10", on("sdb", "sdc"))},
			want: `! logical disk 1 shares no physical disk, and /dev/sdb would have 2 volumes`},
		{name: "partitions", machine: finished, disks: []string{volume("1", "10", on("sdb", "sdc"))}, want: `! partitions detected on devices /dev/sdb during RAID config: delete_configuration`},
		{name: "array of whole disks that does not run", machine: machine().with("", "old", "raid5", 4, 0, "sda", "sdd"), disks: []string{volume("1", "10", on("sda", "sdb"))},
			want: `! /dev/sda as a whole is a member of an array that does not run: delete_configuration`},
		{name: "a file system on a whole disk", machine: alike(func(d *disk) { d.holds = "a file system (xfs)" }), disks: []string{volume("1", "10", on("sda", "sdc"))},
			want: `! /dev/sda as a whole holds a file system (xfs): erase_devices_metadata takes it away`},
		{name: "a file system on another disk", machine: alike(func(d *disk) { d.holds = "a file system (xfs)" }), disks: []string{volume("1", "10", on("nvme0n1", "nvme1n1"))}, want: `
partition /dev/nvme0n1 nvme 50.0 GiB serial S-nvme0n1: gpt
  /dev/nvme0n1p1 from 551 MiB to 10 GiB
partition /dev/nvme1n1 nvme 50.0 GiB serial S-nvme1n1: gpt
  /dev/nvme1n1p1 from 551 MiB to 10 GiB
make /dev/md0 "md0", raid1, of /dev/nvme0n1p1, /dev/nvme1n1p1`},
		{name: "one disk on two paths", machine: alike(func(d *disk) { d.WWN = "0x5000c500a1b2c3d4" }), disks: []string{volume("1", "10", on("sda", "sdb"))},
			want: `! /dev/sda and /dev/sdb have the same WWN 0x5000c500a1b2c3d4: they may be one disk on two paths`},
		{name: "one disk on two paths, by its serial number", machine: alike(func(d *disk) { d.Serial = "S1" }), disks: []string{volume("1", "10", on("sda", "sdc")), volume("1", "10", on("sdb", "sdd"))},
			want: `! /dev/sda and /dev/sdb have the same serial number S1: they may be`},
		{name: "two disks with one serial number and different WWNs", machine: alike(func(d *disk) { d.Serial, d.WWN = "S1", inspect.Text(d.Name) }), disks: []string{volume("1", "10", on("sda", "sdb"))}, want: `
partition /dev/sda sata 100.0 GiB serial S1: gpt
  /dev/sda1 from 551 MiB to 10 GiB
partition /dev/sdb sata 100.0 GiB serial S1: gpt
  /dev/sdb1 from 551 MiB to 10 GiB
make /dev/md0 "md0", raid1, of /dev/sda1, /dev/sdb1`},
		{name: "interrupted on a disk of the skip list", machine: interrupted(false), skip: `[{"name": "/dev/sda"}]`, disks: []string{volume("1", "20", on("sdb", "sdc"))}, want: `
partition /dev/sdb sata 100.0 GiB serial S-sdb: gpt
  /dev/sdb1 from 551 MiB to 20 GiB
partition /dev/sdc sata 100.0 GiB serial S-sdc: gpt
  /dev/sdc1 from 551 MiB to 20 GiB
make /dev/md0 "md0", raid1, of /dev/sdb1, /dev/sdc1`},
		{name: "array of whole disks", machine: machine().with("/dev/md5", "old", "raid1", 2, 0, "sda", "sdd"), disks: []string{volume("1", "10", on("sda", "sdb"))}, want: `! partitions detected on devices /dev/sda`},
		{name: "another level under the name", machine: finished, disks: []string{volume("0", "20", on("sda", "sdb")+`, "volume_name": "system"`)}, want: `! there is /dev/md0 system already, with level raid1: delete_configuration`},
		{name: "other disks under the name", machine: finished, disks: []string{volume("1", "10", on("sda", "sdc")+`, "volume_name": "system"`)}, want: `! there is /dev/md0 system already, of /dev/sda1, /dev/sdb1`},
		{name: "another size under the name", machine: finished, disks: []string{volume("1", "21", on("sda", "sdb")+`, "volume_name": "system"`)},
			want: `! there is /dev/md0 system already, and /dev/sda1 is not from 551 MiB to 21 GiB: delete_configuration`},
		{name: "degraded under the name", machine: machine().with("/dev/md0", "system", "raid1", 2, 1, "sda"), disks: []string{volume("1", "10", on("sda", "sdb")+`, "volume_name": "system"`)},
			want: `! there is /dev/md0 system already, without some of its members`},
		{name: "one more beside those that are there", machine: finished, disks: []string{volume("1", "20", on("sda", "sdb")+`, "volume_name": "system"`), volume("1", "20", on("sda", "sdb"))},
			want: `! partitions detected on devices /dev/sda, /dev/sdb`},
		{name: "a mark that is not of what is there", machine: changed, disks: []string{volume("1", "20", on("sda", "sdb")+`, "volume_name": "other"`)}, want: `! partitions detected on devices /dev/sda `},
		{name: "a mark of a creation that was finished", machine: interrupted(true), disks: []string{volume("1", "20", on("sda", "sdb")+`, "volume_name": "other"`)}, want: `! partitions detected on devices /dev/sda `},
		{name: "no names beside kept volumes", machine: finished, skip: `[{"volume_name": "system"}]`, disks: []string{volume("1", "10", on("sdc", "sdd"))}, want: `! logical disk 1 has no volume_name`},
		{name: "left over beside kept volumes", machine: finished.with("/dev/md7", "seven", "raid1", 2, 1, "sdd", "sde"), skip: `[{"volume_name": "system"}]`, disks: []string{volume("1", "10", `, "volume_name": "system"`)},
			want: `! /dev/md7 seven is neither one of the logical disks nor kept`},
		{name: "all that is wrong", machine: finished, disks: []string{volume("1", "200", on("sda", "sdb")), volume("1", "10", on("sdx", "sdc"))}, want: `! logical disk 2: physical_disks, entry 1`},
	} {
		t.Run(test.name, func(t *testing.T) {
			volumes, errs := parseConfig(json.RawMessage(`{"logical_disks": [` + strings.Join(test.disks, ", ") + `]}`))
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			skip, err := inspect.ParseSkipList(json.RawMessage(test.skip))
			if err != nil {
				t.Fatal(err)
			}
			where := room{test.mode, test.label}
			if test.mode == "" {
				where = room{"uefi", "gpt"}
			}
			before := fmt.Sprint(test.machine)
			p, err := planCreation(volumes, test.machine, skip, where)
			if fmt.Sprint(test.machine) != before {
				t.Error("planning has changed the machine")
			}
			want, fails := strings.CutPrefix(test.want, "! ")
			want = strings.TrimPrefix(want, "\n")
			if fails {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("plan:\n%v\n%v\nwant %q", p, err, want)
				}
				return
			}
			if got := p.String(); err != nil || got != want {
				t.Errorf("plan:\n%s\n%v\nwant:\n%s", got, err, want)
			}
		})
	}
}

func TestPlanRemoval(t *testing.T) {
	marked := machine()
	marked.disk("/dev/sdc").mark = mark{Run: "r"}
	stale := machine().with("", "old", "raid1", 2, 0, "sdc")
	typed := machine()
	typed.disk("/dev/sdb").raid = []int{1}
	typed.disk("/dev/sdb").parts = []stream.Partition{{Number: 1, Start: mib, Size: gib}}
	chain := machine().with("/dev/md0", "a", "raid1", 2, 1, "sda", "sdb").with("/dev/md1", "b", "raid1", 2, 2, "sdb", "sdc").with("/dev/md2", "c", "raid1", 2, 3, "sdc", "sdd").
		with("/dev/md3", "esp", "raid1", 2, 4, "sda", "sdb").with("/dev/md4", "far", "raid1", 2, 1, "nvme0n1", "nvme1n1")
	firmware := machine().with("/dev/md127", "", "raid1", 2, 0, "sda", "sdb")
	firmware.arrays[0].version = "external:imsm"
	for _, test := range []struct {
		name    string
		machine state
		skip    string
		want    string
	}{
		{"nothing", machine(), "", ""},
		{"one, and other disks", machine().with("/dev/md0", "system", "raid1", 2, 1, "sda", "sdb"), "", "delete /dev/md0 system, raid1, of /dev/sda1, /dev/sdb1\nclear /dev/sda\nclear /dev/sdb"},
		{"superblock of a former life", stale, "", "delete array uuid-of-old old, raid1, of /dev/sdc\nclear /dev/sdc"},
		{"partition of the type without a superblock", typed, "", "clear /dev/sdb"},
		{"a mark without the partitions that it names", marked, "", ""},
		{"all of a chain", chain, "", "delete /dev/md0 a, raid1, of /dev/sda1, /dev/sdb1\ndelete /dev/md1 b, raid1, of /dev/sdb2, /dev/sdc2\ndelete /dev/md2 c, raid1, of /dev/sdc3, /dev/sdd3\n" +
			"delete /dev/md3 esp, raid1, of /dev/sda4, /dev/sdb4\ndelete /dev/md4 far, raid1, of /dev/nvme0n1p1, /dev/nvme1n1p1\nclear /dev/sda\nclear /dev/sdb\nclear /dev/sdc\nclear /dev/sdd\nclear /dev/nvme0n1\nclear /dev/nvme1n1"},
		{"one of a chain is kept", chain, `[{"volume_name": "a"}]`, "leave /dev/md0 a\nleave /dev/md3 esp\nclear what is in /dev/md1 b\nclear what is in /dev/md2 c\n" +
			"delete /dev/md4 far, raid1, of /dev/nvme0n1p1, /dev/nvme1n1p1\nclear /dev/nvme0n1\nclear /dev/nvme1n1"},
		{"a disk is kept", chain, `[{"name": "/dev/nvme0n1"}, {"name": "/dev/sda"}]`, "leave /dev/md0 a\nleave /dev/md3 esp\nleave /dev/md4 far\nclear what is in /dev/md1 b\nclear what is in /dev/md2 c"},
		{"a volume that is not there is kept", machine().with("/dev/md0", "system", "raid1", 2, 0, "sda", "sdb"), `[{"volume_name": "gone"}]`, "delete /dev/md0 system, raid1, of /dev/sda, /dev/sdb\nclear /dev/sda\nclear /dev/sdb"},
		{"firmware's own", firmware, "", "! /dev/md127 is the firmware's own RAID (external:imsm)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			skip, err := inspect.ParseSkipList(json.RawMessage(test.skip))
			if err != nil {
				t.Fatal(err)
			}
			r, err := planRemoval(test.machine, skip)
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

func TestMark(t *testing.T) {
	m := mark{Run: "r", Made: true, Partitions: []stream.Partition{{Number: 1, Start: mib, Size: gib}}}
	b, err := m.bytes()
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, mib)
	if got := readMark(head); got.Run != "" {
		t.Errorf("a mark where there is none: %+v", got)
	}
	copy(head[markAt:], b)
	if got := readMark(head); fmt.Sprint(got) != fmt.Sprint(m) {
		t.Errorf("readMark() = %+v, want %+v", got, m)
	}
	head[markAt+60] = 0 // cut off
	if got := readMark(head); got.Run != "" {
		t.Errorf("a mark that is cut off: %+v", got)
	}
	m.Partitions = make([]stream.Partition, 200)
	if _, err := m.bytes(); err == nil {
		t.Error("a mark of 200 partitions has room")
	}
}

// block makes a superblock for a place as md_p.h has it.
func block(major uint32, level int32, name string, at int64) []byte {
	b := make([]byte, 4096)
	le := binary.LittleEndian
	le.PutUint32(b, mdMagic)
	le.PutUint32(b[4:], major)
	sum, from := len(b), 152
	if major == 0 {
		le.PutUint32(b[28:], uint32(level))
		le.PutUint32(b[40:], 3)
	} else {
		copy(b[16:], "0123456789abcdef")
		copy(b[32:64], name)
		le.PutUint32(b[72:], uint32(level))
		le.PutUint32(b[92:], 2)
		le.PutUint64(b[144:], uint64(at)/512)
		le.PutUint32(b[220:], 3)
		copy(b[256:], "\x00\x00\x01\x00\x02\x00")
		sum, from = 256+2*3, 216
	}
	var total uint64
	for i := 0; i < sum; i += 4 { // behind the last role are zeros
		total += uint64(le.Uint32(b[i:]))
	}
	le.PutUint32(b[from:], uint32(total)+uint32(total>>32))
	return b
}

func TestReadSuperblocks(t *testing.T) {
	const size = 10*mib + 512*5
	for _, test := range []struct {
		name  string
		at    int64
		block []byte
		want  string
	}{
		{"none", 0, nil, ""},
		{"1.2", 4096, block(1, 1, "any:system", 4096), "1.2 raid1 2 any:system system"},
		{"1.1", 0, block(1, 5, "system", 0), "1.1 raid5 2 system system"},
		{"1.0", 10*mib - 16*512, block(1, 10, "h:x:y", 10*mib-16*512), "1.0 raid10 2 h:x:y x:y"},
		{"0.90", 10*mib - 64<<10, block(0, -1, "", 0), "0.90 linear 3  "},
		{"a name of hostile bytes", 4096, block(1, 1, "a\x1b[2J\xff", 4096), "1.2 raid1 2 a?[2J? a?[2J?"},
		{"1.2 where 0.90 lies", 10*mib - 64<<10, block(1, 1, "x", 10*mib-64<<10), ""},
		{"1.2 of another place", 4096, block(1, 1, "x", 0), ""},
		{"1.2 that is damaged", 4096, append(block(1, 1, "x", 4096)[:200], "xx"...), ""},
		{"0.90 that is damaged", 10*mib - 64<<10, append(block(0, 1, "", 0)[:4000], "x"...), ""},
		{"no more than the magic", 4096, []byte("\xfc\x4e\x2b\xa9\x01\x00\x00\x00"), ""},
		{"a version to come", 4096, block(2, 1, "x", 4096), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := make([]byte, size)
			copy(b[test.at:], test.block)
			found, err := readSuperblocks(bytes.NewReader(b), size)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range found {
				got = append(got, fmt.Sprintf("%s %s %d %s %s", s.version, s.level, s.disks, s.name, s.volumeName()))
			}
			if strings.Join(got, "; ") != test.want {
				t.Errorf("readSuperblocks() = %q, want %q", got, test.want)
			}
		})
	}
	for _, small := range []int64{0, 1, 511, 512, 4096, 8192, 64 << 10} {
		if _, err := readSuperblocks(bytes.NewReader(make([]byte, small)), small); err != nil {
			t.Errorf("%d bytes: %v", small, err)
		}
	}
}

func FuzzSuperblock(f *testing.F) {
	f.Add(block(1, 1, "any:system", 4096))
	f.Add(block(0, 5, "", 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, version := range []string{"1.2", "0.90"} {
			s, ok := parseSuperblock(b, version, 4096)
			if ok && (s.uuid == "" || strings.ContainsFunc(s.volumeName(), func(c rune) bool { return c < ' ' || c > '~' })) {
				t.Errorf("parseSuperblock() = %+v", s)
			}
		}
		parseMark(append([]byte(markMagic), b...))
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"logical_disks": [{"size_gb": "MAX", "raid_level": "0", "controller": "software", "physical_disks": [{"type": "ssd"}, {"size": "> 100"}]}]}`))
	f.Add([]byte(software("1 20 a", "0 MAX -")))
	f.Fuzz(func(t *testing.T, b []byte) {
		volumes, errs := parseConfig(b)
		if len(errs) > 0 {
			return
		}
		for _, v := range volumes {
			if v.level == "" || v.size < 0 || v.name != "" && checkName(v.name) != nil {
				t.Errorf("parseConfig(%q) = %+v", b, v)
			}
		}
		if p, err := planCreation(volumes, machine(), inspect.SkipList{}, room{"uefi", "gpt"}); err == nil {
			for _, table := range p.tables { // what is planned can be written
				if _, _, _, err := table.bytes(table.disk.Size, int(table.disk.LogicalSectors)); err != nil {
					t.Errorf("parseConfig(%q): %v", b, err)
				}
			}
		}
	})
}

func TestArguments(t *testing.T) {
	host := steps.Host{Machine: inspect.Machine{FS: fstest.MapFS{}}, Say: func(string, ...any) {}}
	for _, test := range []struct {
		name, step, args, target string
		want                     string // JSON, or error
	}{
		{"nothing is wanted", "create", ``, ``, "{}"},
		{"of another interface", "create", ``, `{"logical_disks": [{"size_gb": 1, "raid_level": "1"}]}`, "{}"},
		{"wrong", "create", ``, `{"logical_disks": [{"size_gb": 0, "raid_level": "1", "controller": "software"}]}`, "! software RAID of node n1: logical disk 1: size_gb is 0"},
		{"no configuration", "apply", `{}`, `{}`, "! invalid arguments: raid_config is missing"},
		{"arguments that are none", "apply", `[]`, `{}`, "! invalid arguments: json"},
		{"empty configuration", "apply", `{"raid_config": {}}`, ``, "{}"},
		{"nothing to validate", "validate", `{"raid_config": {}}`, `{"logical_disks": []}`, "false"},
		{"the node's is validated", "validate", ``, `{"logical_disks": []}`, "! software RAID of node n1: there are no logical_disks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := steps.Job{Node: steps.Node{UUID: "n1", TargetRAIDConfig: json.RawMessage(test.target)}, Args: json.RawMessage(test.args)}
			run := map[string]func() (any, error){
				"create":   func() (any, error) { return Create(t.Context(), host, j) },
				"apply":    func() (any, error) { return Apply(t.Context(), host, j) },
				"validate": func() (any, error) { return Validate(t.Context(), host, j) },
			}[test.step]
			result, err := run()
			if want, fails := strings.CutPrefix(test.want, "! "); fails {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s = %v, %v, want %q", test.step, result, err, want)
				}
				return
			}
			if got, _ := json.Marshal(result); err != nil || string(got) != test.want {
				t.Errorf("%s = %s, %v, want %s", test.step, got, err, test.want)
			}
		})
	}
}

// files is a machine of two disks in the form of the kernel's files, with what is on the disks.
func files(t *testing.T) fstest.MapFS {
	t.Helper()
	m := fstest.MapFS{}
	file := func(name, text string) { m[name] = &fstest.MapFile{Data: []byte(text)} }
	for _, name := range []string{"sda", "sdb"} {
		d := inspect.Disk{Name: "/dev/" + name, Size: 8 * mib, LogicalSectors: 512}
		parts := []stream.Partition{{Number: 1, Start: mib, Size: 2 * mib}, {Number: 2, Start: 3 * mib, Size: 4 * mib}}
		head, _, _, err := table{disk: d, label: "gpt", parts: parts}.bytes(d.Size, 512)
		if err != nil {
			t.Fatal(err)
		}
		content := make([]byte, d.Size)
		copy(content, head)
		old := block(1, 0, "old", 0)
		old[16], old[216] = 'x', old[216]+'x'-'0' // of another array
		copy(content[mib+4096:], block(1, 1, "any:system", 4096))
		copy(content[3*mib:], old)
		if name == "sdb" {
			b, err := mark{Run: "r", Partitions: parts}.bytes()
			if err != nil {
				t.Fatal(err)
			}
			copy(content[markAt:], b)
		}
		file("dev/"+name, string(content))
		dir := "sys/block/" + name + "/"
		file(dir+"size", fmt.Sprint(d.Size/512))
		file(dir+"ro", "0")
		file(dir+"queue/logical_block_size", "512")
		for _, p := range parts {
			file(fmt.Sprintf("dev/%s%d", name, p.Number), string(content[p.Start:p.Start+p.Size]))
			for what, n := range map[string]int64{"partition": int64(p.Number), "start": p.Start / 512, "size": p.Size / 512} {
				file(fmt.Sprintf("%s%s%d/%s", dir, name, p.Number, what), fmt.Sprint(n))
			}
		}
	}
	for name, text := range map[string]string{"array_state": "clean", "level": "raid1", "raid_disks": "2", "metadata_version": "1.2", "degraded": "1", "uuid": "30313233-3435-3637-3839-616263646566"} {
		file("sys/block/md127/md/"+name, text+"\n")
	}
	file("sys/block/md127/slaves/sda1", "")
	file("sys/block/md126/md/array_state", "clear")
	file("sys/block/loop0/size", "0")
	return m
}

func printState(s state) string {
	var lines []string
	for _, d := range s.disks {
		lines = append(lines, fmt.Sprintf("%s %d partitions, raid %v, superblocks %v, mark %q", d.Name, len(d.parts), d.raid, d.stale, d.mark.Run))
	}
	for _, a := range s.arrays {
		lines = append(lines, fmt.Sprintf("%q %q %s %s %d degraded %v %s", a.device, a.name, a.version, a.level, a.count, a.degraded, devices(a.members)))
	}
	return strings.Join(lines, "\n")
}

func TestLook(t *testing.T) {
	const whole = `/dev/sda 2 partitions, raid [1 2], superblocks [1 2], mark ""
/dev/sdb 2 partitions, raid [1 2], superblocks [1 2], mark "r"
"" "old" 1.1 raid0 2 degraded false /dev/sda2, /dev/sdb2
"/dev/md127" "system" 1.2 raid1 2 degraded true /dev/sda1, /dev/sdb1`
	for _, test := range []struct {
		name   string
		change func(fstest.MapFS)
		want   string
		err    string
	}{
		{"all", func(fstest.MapFS) {}, whole, ""},
		{"a disk that is gone", func(m fstest.MapFS) { delete(m, "dev/sdb") }, strings.NewReplacer("/dev/sdb 2 partitions, raid [1 2], superblocks [1 2], mark \"r\"\n", "", ", /dev/sdb2", "", ", /dev/sdb1", "").Replace(whole), ""},
		{"a mark of another disk", func(m fstest.MapFS) {
			b, err := mark{Run: "r", Serial: "S1"}.bytes()
			if err != nil {
				t.Fatal(err)
			}
			copy(m["dev/sdb"].Data[markAt:], b)
		}, strings.Replace(whole, `mark "r"`, `mark ""`, 1), ""},
		{"a disk that ends too early", func(m fstest.MapFS) { m["dev/sda"].Data = m["dev/sda"].Data[:1000] }, "", "look at /dev/sda: read 1048576 bytes at 0: unexpected EOF"},
		{"a partition that ends too early", func(m fstest.MapFS) { m["dev/sda1"].Data = m["dev/sda1"].Data[:9000] }, "", "look at /dev/sda: /dev/sda1: read at 2088960: "},
		{"a start that is no number", func(m fstest.MapFS) { m["sys/block/sdb/sdb2/start"].Data = []byte("-x") }, "", "look at /dev/sdb: start of sdb2: "},
		{"no size", func(m fstest.MapFS) { delete(m, "sys/block/sdb/sdb2/size") }, "", "look at /dev/sdb: size of sdb2: "},
		{"members that are no number", func(m fstest.MapFS) { m["sys/block/md127/md/raid_disks"].Data = []byte("many") }, "", "/dev/md127: raid_disks: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := files(t)
			test.change(m)
			s, err := look(t.Context(), steps.Host{Machine: inspect.Machine{FS: m}})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("look() = %v, want %q", err, test.err)
				}
				return
			}
			if got := printState(s); err != nil || got != test.want {
				t.Errorf("look() =\n%s\n%v\nwant\n%s", got, err, test.want)
			}
		})
	}
}

// A disk that hangs is named, and what the others have is known all the same, while those who start arrays still wait.
func TestLookHangs(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"a disk", "dev/sdb", "look at /dev/sdb: no answer within 20s"},
		{"a partition", "dev/sdb2", "look at /dev/sdb: no answer within 20s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				start := time.Now()
				s, err := look(t.Context(), steps.Host{Machine: inspect.Machine{FS: hanging{files(t), test.file, gate}}})
				took := time.Since(start)
				close(gate)
				if err == nil || err.Error() != test.want || took >= assembleTime {
					t.Errorf("look() = %v after %v, want %q", err, took, test.want)
				}
				if got := printState(s); !strings.Contains(got, `/dev/sda 2 partitions, raid [1 2]`) || !strings.Contains(got, `"/dev/md127" "system"`) || !strings.Contains(got, `/dev/sdb 0 partitions`) {
					t.Errorf("look() =\n%s", got)
				}
				if got, want := s.deviceList(), "DEVICE containers\nDEVICE /dev/sda\nDEVICE /dev/sda1\nDEVICE /dev/sda2\n"; got != want {
					t.Errorf("mdadm looks at\n%s\nwant\n%s", got, want)
				}
			})
		})
	}
}

// hanging is a machine some of whose files do not open before the gate does.
type hanging struct {
	fstest.MapFS
	names string
	gate  chan struct{}
}

func (h hanging) Open(name string) (fs.File, error) {
	if slices.Contains(strings.Fields(h.names), name) {
		<-h.gate
	}
	return h.MapFS.Open(name)
}

// lookAtContent looks at a disk of 8 MiB without partitions.
func lookAtContent(t *testing.T, content []byte) (disk, error) {
	t.Helper()
	root := fstest.MapFS{"sys/block/sda/size": {Data: []byte("16384")}, "dev/sda": {Data: content}}
	d, _, err := lookAtDisk(root, inspect.Disk{Name: "/dev/sda", Size: 8 * mib, LogicalSectors: 512})
	return d, err
}

func TestHolding(t *testing.T) {
	at := func(offset int, text string) []byte {
		b := make([]byte, 8*mib)
		copy(b[offset:], text)
		return b
	}
	const ours = `{"run": "r", "parts": [{"Number": 1, "Start": 2097152, "Size": 1048576}]}`
	marked := func(b []byte, text string) []byte {
		copy(b[markAt:], markMagic+text)
		return b
	}
	table := func(kind gpt.GUID) []byte { // whole, but for its first sector
		g, err := gpt.New(8*mib, 512)
		if err == nil {
			err = g.Put(gpt.Partition{Number: 1, Type: kind, First: 4096, Last: 6143})
		}
		if err != nil {
			t.Fatal(err)
		}
		return at(512, string(g.Head()[512:]))
	}
	for _, test := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"nothing", make([]byte, 8*mib), ""},
		{"random", bytes.Repeat([]byte{0xa5, 0x17}, 4*mib), ""},
		{"ext4", at(1024+0x38, "\x53\xef"), "a file system (ext4)"},
		{"LVM", at(512, "LABELONE0123456701234567LVM2 001"), "a physical volume (LVM)"},
		{"LVM in the fourth sector", at(3*512, "LABELONE0123456701234567LVM2 001"), "a physical volume (LVM)"},
		{"LVM in the fifth sector", at(4*512, "LABELONE0123456701234567LVM2 001"), ""},
		{"swap", at(4086, "SWAPSPACE2"), "a swap area"},
		{"RAID of firmware", at(8*mib-1024, "Intel Raid ISM Cfg Sig. 1.3.00"), "a member of an array of firmware (Intel)"},
		{"a table of which the power cut left half", at(512, "EFI PART"), bareGPT},
		{"the same, of our own", marked(at(512, "EFI PART"), ours), ""},
		{"our own, whole", marked(table(gpt.LinuxRAID), ours), ""},
		{"a mark that lists nothing", marked(table(gpt.LinuxRAID), `{"run": "r"}`), bareGPT},
		{"a mark that lists another partition", marked(table(gpt.LinuxRAID), `{"run": "r", "parts": [{"Number": 1, "Start": 2097152, "Size": 524288}]}`), bareGPT},
		{"a mark for a partition of another type", marked(table(gpt.LinuxData), ours), bareGPT},
		{"the backup of a GPT", at(8*mib-512, "EFI PART"), backupGPT},
		{"the same, of sectors of 4096 bytes", at(8*mib-4096, "EFI PART"), backupGPT},
		{"the same, of our own", marked(at(8*mib-512, "EFI PART"), ours), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if d, err := lookAtContent(t, test.content); err != nil || d.holds != test.want {
				t.Errorf("it holds %q, %v, want %q", d.holds, err, test.want)
			}
		})
	}
	for _, size := range []int{100, 7 * mib} {
		if _, err := lookAtContent(t, make([]byte, size)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a disk that ends at %d: %v", size, err)
		}
	}
}

// A mark that somebody wrote for partitions that hold something takes nothing away.
func TestForgedMark(t *testing.T) {
	for _, test := range []struct {
		name, content string
		at            int
		kind          gpt.GUID
		want          string
	}{
		{"config-2", "CD001", 32<<10 + 1, gpt.LinuxData, ""},
		{"ours", "", 0, gpt.LinuxRAID, ""},
		{"ours, with a superblock", string(block(1, 1, "any:x", 4096)), 4096, gpt.LinuxRAID, ""},
		{"ours, for LVM", "LABELONE0123456701234567LVM2 001", 512, gpt.LinuxLVM, ""},
		{"what boots beside a volume group", "FAT", 0, gpt.EFISystem, ""},
		{"data", "", 0, gpt.LinuxData, "/dev/sda1 of another type"},
		{"a file system", "XFSB", 0, gpt.LinuxRAID, "/dev/sda1 with a file system (xfs)"},
		{"the second half of firmware's RAID", "\xde\x11\xde\x11", 2*mib - 512, gpt.LinuxRAID, "/dev/sda1 with a member of an array of firmware (DDF)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, err := gpt.New(8*mib, 512)
			if err == nil {
				err = g.Put(gpt.Partition{Number: 1, Type: test.kind, First: 4096, Last: 8191, Name: test.name})
			}
			if err != nil {
				t.Fatal(err)
			}
			whole, part := make([]byte, 8*mib), make([]byte, 2*mib)
			copy(whole, g.Head())
			copy(whole[markAt:], markMagic+`{"run": "r", "parts": [{"Number": 1, "Start": 2097152, "Size": 2097152}]}`)
			copy(part[test.at:], test.content)
			root := fstest.MapFS{"sys/block/sda/size": {Data: []byte("16384")}, "dev/sda": {Data: whole}, "dev/sda1": {Data: part},
				"sys/block/sda/sda1/partition": {Data: []byte("1")}, "sys/block/sda/sda1/start": {Data: []byte("4096")}, "sys/block/sda/sda1/size": {Data: []byte("4096")}}
			d, _, err := lookAtDisk(root, inspect.Disk{Name: "/dev/sda", Size: 8 * mib, LogicalSectors: 512})
			if err != nil || d.other != test.want {
				t.Fatalf("a mark does not speak for %q, %v, want %q", d.other, err, test.want)
			}
			s := state{disks: []disk{d}}
			p, err := planCreation(nil, s, inspect.SkipList{}, room{"uefi", "gpt"})
			r, removalErr := planRemoval(s, inspect.SkipList{})
			ours := test.kind == gpt.LinuxRAID // by its type, with or without a mark
			if takes, removes := len(p.redo) > 0, len(r.disks) > 0; err != nil || removalErr != nil || takes != (test.want == "") || removes != (test.want == "" || ours) {
				t.Errorf("a creation clears %v, %v, a deletion %v, %v", p.redo, err, r.disks, removalErr)
			}
		})
	}
}

func TestContents(t *testing.T) {
	at := func(offset int, text string) []byte { return append(make([]byte, offset), text...) }
	for _, test := range []struct {
		name string
		head []byte
		want string
	}{
		{"nothing", nil, ""},
		{"swap", at(4086, "SWAPSPACE2"), "a swap area"},
		{"LUKS", at(0, "LUKS\xba\xbe"), "an encrypted volume (LUKS)"},
		{"xfs", at(0, "XFSB"), "a file system (xfs)"},
		{"ext4", at(1024+0x38, "\x53\xef"), "a file system (ext4)"},
		{"a table that the kernel does not see", at(446, "\x00\x00\x02\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x08\x00\x00"+strings.Repeat("\x00", 48)+"\x55\xaa"), "a partition table that the kernel does not see"},
		{"a GPT without an MBR", at(512, "EFI PART"), bareGPT},
		{"the same, of sectors of 4096 bytes", at(4096, "EFI PART"), bareGPT},
		{"zfs", at(16<<10+24, "version\x00"), "a pool (zfs)"},
		{"swap of a machine with pages of 64 KiB", at(64<<10-10, "SWAPSPACE2"), "a swap area"},
		{"a hibernated system", at(4086, "S1SUSPEND"), "a hibernated system"},
		{"VDO", at(0, "dmvdo001"), "a deduplicated volume (VDO)"},
		{"f2fs", at(1024, "\x10\x20\xf5\xf2"), "a file system (f2fs)"},
		{"Ceph", at(0, "bluestore block device"), "a Ceph OSD"},
		{"NTFS", at(3, "NTFS    "), "a file system (ntfs)"},
		{"bcache", at(4096+24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"), "a cache (bcache)"},
		{"zeros", make([]byte, mib), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			head := append(test.head, make([]byte, mib-len(test.head))...)
			if got, err := Contents(head, nil, 100*gib); err != nil || got != test.want {
				t.Errorf("Contents() = %q, %v, want %q", got, err, test.want)
			}
			if _, err := Contents(test.head, nil, int64(len(test.head))); err != nil {
				t.Errorf("a disk that ends there: %v", err)
			}
		})
	}
}

// Whatever is at the ends of a disk, and however small it is, it is looked at.
func FuzzContents(f *testing.F) {
	f.Add([]byte("JM\x01\x00"), 512)
	f.Add([]byte("\x55\xaa\x01"), 51)
	f.Add([]byte("Promise Technology, Inc."), 16*512)
	f.Fuzz(func(t *testing.T, mark []byte, before int) {
		const size = 64 << 10
		disk := make([]byte, size)
		copy(disk[size-min(max(before, 0), size):], mark)
		for _, disk := range [][]byte{disk, mark} {
			head, tail, err := ReadEnds(bytes.NewReader(disk), int64(len(disk)))
			if err != nil {
				t.Fatal(err)
			}
			Contents(head, tail, int64(len(disk)))
		}
	})
}

// The node's own volumes count for an image also if they do not run.
func TestReleaseRefuses(t *testing.T) {
	for _, test := range []struct{ name, config, want string }{
		{"root volume", `{"logical_disks": [{"size_gb": 100, "raid_level": "1", "controller": "software", "volume_name": "system", "is_root_volume": true}]}`, `the node's root volume is the array "system"`},
		{"broken", `{"logical_disks": 7}`, "raid_config of the node"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var h steps.Host
			h.Machine.FS = fstest.MapFS{"sys/block/sda/size": {Data: []byte("1")}}
			if err := Release(t.Context(), h, steps.Node{RAIDConfig: json.RawMessage(test.config)}, "/dev/sda"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Release() = %v, want %q", err, test.want)
			}
		})
	}
}

// What the kernel shows on another path to a disk is on the disk, and mdadm is told of one path alone.
func TestPaths(t *testing.T) {
	s := state{disks: []disk{
		{Disk: inspect.Disk{Name: "/dev/sda", Paths: []inspect.Disk{{Name: "/dev/sdc"}}}, parts: []stream.Partition{{Number: 1}, {Number: 2}}},
		{Disk: inspect.Disk{Name: "/dev/nvme0n1", Paths: []inspect.Disk{{Name: "/dev/nvme1n1"}}}, parts: []stream.Partition{{Number: 1}}},
		{Disk: inspect.Disk{Name: "/dev/sdb"}},
	}}
	for name, want := range map[string]string{"sda1": "/dev/sda1", "sdc2": "/dev/sda2", "sdc": "/dev/sda", "nvme1n1p1": "/dev/nvme0n1p1", "sdb": "/dev/sdb", "sdc3": "/dev/sdc3"} {
		if got := s.member(name); got.device() != want {
			t.Errorf("member(%s) = %s, want %s", name, got.device(), want)
		}
	}
	const want = "DEVICE containers\nDEVICE /dev/sda\nDEVICE /dev/sda1\nDEVICE /dev/sda2\nDEVICE /dev/nvme0n1\nDEVICE /dev/nvme0n1p1\nDEVICE /dev/sdb\n"
	if got := s.deviceList(); got != want {
		t.Errorf("deviceList() = %s, want %s", got, want)
	}
	s.disks = s.disks[2:]
	if got := s.deviceList(); got != "" {
		t.Errorf("deviceList() = %s, and each disk has one path", got)
	}
}

// failing is a machine some of whose devices cannot be read.
type failing struct {
	fstest.MapFS
	errs map[string]error
}

func (f failing) Open(name string) (fs.File, error) {
	if err := f.errs[name]; err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f.MapFS.Open(name)
}

// A disk whose first path does not work is looked at by the other, also what runs on a partition of the dead one; what is to be taken down is found by either.
func TestDeadPath(t *testing.T) {
	eio := func(names ...string) map[string]error {
		errs := map[string]error{}
		for _, name := range names {
			errs["dev/"+name] = syscall.EIO
		}
		return errs
	}
	for _, test := range []struct {
		name string
		errs map[string]error
		want string // the disk's names, and the members of the array; or an error
		said string
	}{
		{"both work", nil, "[/dev/sda /dev/sdc] /dev/sda1, /dev/sdb1", ""},
		{"the first is dead", eio("sda", "sda1", "sda2"), "[/dev/sdc /dev/sda] /dev/sdb1, /dev/sdc1", "/dev/sda does not work (open dev/sda: input/output error): /dev/sdc is another path to this disk, and is used\n"},
		{"the second is dead", eio("sdc", "sdc1", "sdc2"), "[/dev/sda /dev/sdc] /dev/sda1, /dev/sdb1", ""},
		{"both are dead", eio("sda", "sdc"), "look at /dev/sda: open dev/sda: input/output error", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := twoPaths(t)
			said := ""
			s, err := look(t.Context(), steps.Host{Machine: inspect.Machine{FS: failing{m, test.errs}}, Say: func(f string, args ...any) { said += fmt.Sprintf(f, args...) + "\n" }})
			got := ""
			switch {
			case err != nil:
				got = err.Error()
			case len(s.disks) == 2:
				one := s.disks[slices.IndexFunc(s.disks, func(d disk) bool { return len(d.Paths) > 0 })]
				got = fmt.Sprint(one.Names(), " ", devices(s.arrays[len(s.arrays)-1].members))
			}
			if got != test.want || said != test.said {
				t.Errorf("look() = %s, want %s; it said %q, want %q", got, test.want, said, test.said)
			}
		})
	}
}

// A disk all of whose paths hang keeps the arrays on others from being started no longer than any that hangs.
func TestPathsHang(t *testing.T) {
	for _, names := range []string{"dev/sda", "dev/sdc", "dev/sda dev/sdc"} {
		t.Run(names, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				start := time.Now()
				s, err := look(t.Context(), steps.Host{Machine: inspect.Machine{FS: hanging{twoPaths(t), names, gate}}, Say: func(string, ...any) {}})
				took := time.Since(start)
				close(gate)
				if hung := strings.Contains(names, "sda"); took >= assembleTime || hung != (err != nil) || !strings.Contains(printState(s), "/dev/sdb 2 partitions") {
					t.Errorf("look() = %v after %v:\n%s", err, took, printState(s))
				}
			})
		})
	}
}

// twoPaths is the machine of files whose first disk is reached as sda and sdc.
func twoPaths(t *testing.T) fstest.MapFS {
	t.Helper()
	m := files(t)
	for name, file := range maps.Clone(m) {
		if strings.Contains(name, "sda") && !strings.Contains(name, "slaves") {
			m[strings.ReplaceAll(name, "sda", "sdc")] = file
		}
	}
	for i, name := range []string{"sda", "sdc"} {
		m[fmt.Sprintf("sys/block/%s/device/scsi_device/%d:0:0:0/x", name, i)] = &fstest.MapFile{}
		m["sys/block/"+name+"/device/wwid"] = &fstest.MapFile{Data: []byte("naa.5000c500a1b2c3d4")}
	}
	return m
}

// An array on what is no disk here cannot be deleted, and that is said.
func TestPlanRemovalOfWhatIsNotThere(t *testing.T) {
	s := machine()
	s.arrays = append(s.arrays, array{device: "/dev/md0", uuid: "u", name: "x", version: "1.2", level: "raid1", count: 2, members: []member{{"/dev/dm-0", 0}, {"/dev/dm-1", 0}}})
	r, err := planRemoval(s, inspect.SkipList{})
	if err != nil || len(r.gone) != 1 {
		t.Errorf("planRemoval() = %v, %v: the array is forgotten", r.gone, err)
	}
}

// A disk that drops out between the plan and the work is not taken for one that was cleared.
func TestClearVanished(t *testing.T) {
	m := fstest.MapFS{}
	for name, text := range map[string]string{"proc/self/mountinfo": "", "proc/swaps": "", "sys/block/sda/dev": "8:0\n", "sys/block/sda/size": "0\n", "sys/block/sda/ro": "0\n"} { // its medium is gone
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	h := steps.Host{Machine: inspect.Machine{FS: m}, Say: func(string, ...any) {}}
	if err := ClearDisks(t.Context(), h, []string{"/dev/sda"}); err == nil || !strings.Contains(err.Error(), "clear /dev/sda: it is gone since it was chosen") {
		t.Errorf("ClearDisks() = %v", err)
	}
}
