// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/inspect"
)

// maxConfig bounds the JSON text of a configuration in bytes.
const maxConfig = 256 << 10

// maxVolumes bounds how many arrays one configuration makes, and maxMembers how many disks one array has.
const maxVolumes, maxMembers = 32, 256

// volume is one logical disk that is wanted: an array.
type volume struct {
	place   int    // in the configuration, from 1
	name    string // "" stands for md and its number
	level   string // as in sysfs: raid0, raid1, raid10, raid5, raid6
	size    int64  // bytes that each member gives; 0 is all that is left
	members []wanted
	count   int    // of members, where members names none; 0 is every disk
	kind    string // only such disks: "rotational", "ssd", "nvme", or "" for any; "flash" is either of the latter two
	bus     string // only disks attached by it: "sata", "scsi", "sas", or "" for any
	alone   bool   // no other volume may be on its disks
}

// wanted says which disk becomes a member.
type wanted struct {
	kind  string
	hints inspect.Hints
}

// levels are the names of the levels in the kernel, by those of Ironic, and how many members each needs.
var levels = map[string]struct {
	kernel string
	least  int
}{
	"0":   {"raid0", 2},
	"1":   {"raid1", 2},
	"1+0": {"raid10", 2}, // of md, which also takes an odd number
	"5":   {"raid5", 3},
	"6":   {"raid6", 4},
}

// diskKinds are what type may say of a member.
var diskKinds = []string{"rotational", "ssd", "nvme"}

// parseConfig reads a target_raid_config. All that is wrong with it is in the list of errors. Without any logical disk for software RAID there are
// no volumes, and no errors. The form is that of Ironic's ironic/drivers/raid_config_schema.json; the rules are those of ironic-python-agent's
// validate_configuration (ironic_python_agent/hardware.py), without its limits on the number of arrays and on the level of the first.
func parseConfig(raw json.RawMessage) (volumes []volume, errs []error) {
	if len(raw) > maxConfig {
		return nil, []error{fmt.Errorf("%d bytes are more than %d", len(raw), maxConfig)}
	}
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var config struct {
		LogicalDisks []json.RawMessage `json:"logical_disks"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, []error{err}
	}
	if len(config.LogicalDisks) == 0 {
		if string(bytes.ReplaceAll(raw, []byte(" "), nil)) == "{}" {
			return nil, nil
		}
		return nil, []error{fmt.Errorf("there are no logical_disks")}
	}
	if len(config.LogicalDisks) > maxVolumes {
		return nil, []error{fmt.Errorf("%d logical disks are more than %d", len(config.LogicalDisks), maxVolumes)}
	}
	software, roots := 0, 0
	names := map[string]bool{}
	for i, text := range config.LogicalDisks {
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("logical disk %d: %w", i+1, fmt.Errorf(format, args...)))
		}
		var d logicalDisk
		if err := json.Unmarshal(text, &d); err != nil {
			fail("%w", err)
			software++ // perhaps
			continue
		}
		if d.Controller != "software" {
			fail("controller is %q, and only software is made here", d.Controller)
			continue
		}
		software++
		if d.Root {
			roots++
		}
		v, wrong := d.volume()
		v.place = i + 1
		for _, err := range wrong {
			fail("%w", err)
		}
		if v.name != "" {
			if names[v.name] {
				fail("volume_name %q is there twice", v.name)
			}
			names[v.name] = true
		}
		volumes = append(volumes, v)
	}
	if software == 0 {
		return nil, nil // they are another interface's
	}
	if roots > 1 {
		errs = append(errs, fmt.Errorf("%d logical disks are the root volume", roots))
	}
	return volumes, errs
}

// logicalDisk is an entry of logical_disks as it is written.
type logicalDisk struct {
	Size          json.RawMessage   `json:"size_gb"`
	Level         string            `json:"raid_level"`
	Controller    string            `json:"controller"`
	Name          *string           `json:"volume_name"`
	Root          bool              `json:"is_root_volume"`
	PhysicalDisks []json.RawMessage `json:"physical_disks"`
	Count         int               `json:"number_of_physical_disks"`
	Share         *bool             `json:"share_physical_disks"`
	DiskType      string            `json:"disk_type"`
	InterfaceType string            `json:"interface_type"`
}

func (d logicalDisk) volume() (v volume, errs []error) {
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	v = volume{count: d.Count, alone: d.Share != nil && !*d.Share}
	if d.Name != nil {
		if err := checkName(*d.Name); err != nil {
			fail("volume_name: %w", err)
		} else {
			v.name = *d.Name
		}
	}

	level, known := levels[d.Level]
	if !known {
		fail("raid_level is %q, want 0, 1, 1+0, 5 or 6", d.Level)
	}
	v.level = level.kernel

	var gib int64
	var text string
	switch {
	case json.Unmarshal(d.Size, &text) == nil && text == "MAX":
	case json.Unmarshal(d.Size, &gib) != nil || string(d.Size) == "null":
		fail("size_gb is %s, want a whole number of GiB or \"MAX\"", clip(d.Size))
	case gib < 1 || gib > 1<<30:
		fail("size_gb is %d, which is no size", gib)
	default:
		v.size = gib << 30
	}

	if d.PhysicalDisks != nil && len(d.PhysicalDisks) < 2 || len(d.PhysicalDisks) > maxMembers {
		fail("physical_disks has %d entries, want 2 to %d", len(d.PhysicalDisks), maxMembers)
	}
	for i, text := range d.PhysicalDisks[:min(len(d.PhysicalDisks), maxMembers)] {
		w, err := parseWanted(text)
		if err != nil {
			fail("physical_disks, entry %d: %w", i+1, err)
			continue
		}
		v.members = append(v.members, w)
	}
	n := len(d.PhysicalDisks)
	switch {
	case d.Count < 0 || d.Count > maxMembers:
		fail("number_of_physical_disks is %d", d.Count)
	case n > 0 && d.Count > 0 && n != d.Count:
		fail("number_of_physical_disks is %d, and physical_disks has %d entries", d.Count, n)
	case known && n+d.Count > 0 && max(n, d.Count) < level.least:
		fail("level %s needs at least %d disks, not %d", d.Level, level.least, max(n, d.Count))
	}

	switch d.DiskType {
	case "":
	case "hdd":
		v.kind = "rotational"
	case "ssd":
		v.kind = "flash"
	default:
		fail("disk_type is %q, want hdd or ssd", d.DiskType)
	}
	if !slices.Contains([]string{"", "sata", "scsi", "sas"}, d.InterfaceType) {
		fail("interface_type is %q, want sata, scsi or sas", d.InterfaceType)
	}
	v.bus = d.InterfaceType
	return v, errs
}

// parseWanted reads an entry of physical_disks: root device hints, and type.
func parseWanted(raw json.RawMessage) (w wanted, err error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return w, fmt.Errorf("%s is no object of hints", clip(raw))
	}
	if kind, ok := object["type"]; ok {
		if err := json.Unmarshal(kind, &w.kind); err != nil || !slices.Contains(diskKinds, w.kind) {
			return w, fmt.Errorf("type is %s, want %s", clip(kind), strings.Join(diskKinds, ", "))
		}
		delete(object, "type")
	}
	rest, err := json.Marshal(object)
	if err != nil {
		return w, err
	}
	if w.hints, err = inspect.ParseHints(rest); err != nil {
		return w, err
	}
	if w.kind == "" && w.hints.Empty() {
		return w, fmt.Errorf("there are no hints")
	}
	return w, nil
}

// maxName is how long a volume's name may be: a superblock has 32 bytes, and "any:" is put in front.
const maxName = 32 - len(homehost) - 1

// checkName refuses names that are no good as part of a path or as an argument: those that mdadm itself takes from version 4.3 on (its
// is_name_posix_compatible), and those that stand for something else.
func checkName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("it is empty")
	case len(s) > maxName:
		return fmt.Errorf("%q is longer than %d bytes", clip([]byte(s)), maxName)
	case s[0] == '-' || s[0] == '.':
		return fmt.Errorf("%q begins with %q", s, s[:1])
	case s == "esp":
		return fmt.Errorf("%q is the name of the array that the boot loader's partitions form", s)
	case strings.Trim(s, "0123456789") == "" || defaultName(s):
		return fmt.Errorf("%q is a number of an array", s)
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return fmt.Errorf("%q has other characters than letters, digits and ._-", s)
		}
	}
	return nil
}

// defaultName tells whether a name is that of an array without one: md and its number.
func defaultName(s string) bool {
	return strings.HasPrefix(s, "md") && len(s) > 2 && strings.Trim(s[2:], "0123456789") == ""
}

// clip bounds what an error repeats.
func clip(b []byte) string {
	const most = 80
	if len(b) > most {
		return strings.ToValidUTF8(string(b[:most]), "") + "..."
	}
	return strings.ToValidUTF8(string(b), "?")
}
