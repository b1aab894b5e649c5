// SPDX-License-Identifier: Apache-2.0

package lvm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/steps/raid"
)

// Bounds of one layout: its text in bytes, volume groups, volumes of a group, disks of a group.
const maxLayout, maxGroups, maxVolumes, maxDisks = 256 << 10, 32, 64, 256

// group is a volume group that is wanted.
type group struct {
	name    string
	disks   []raid.Wanted
	array   string // name of the array that it lies on in place of disks
	volumes []volume
}

// volume is a logical volume that is wanted.
type volume struct {
	name    string
	kind    string // linear, striped or raid1
	size    int64  // bytes; 0 if it is a share
	percent int    // of the group's space; 0 with no size: all that is left
	across  int    // disks that it is striped over or copied to; 0 is what is usual
	system  string // file system, or swap; "" for none
	label   string // of that
	root    bool
}

// layoutGroup is an entry of logical_volumes as it is written.
type layoutGroup struct {
	Name          string            `json:"name"`
	PhysicalDisks []json.RawMessage `json:"physical_disks,omitempty"`
	Array         *string           `json:"volume_name,omitempty"`
	Volumes       []layoutVolume    `json:"volumes"`
}

// layoutVolume is an entry of its volumes.
type layoutVolume struct {
	Name    string          `json:"name"`
	Size    json.RawMessage `json:"size_gb,omitempty"`
	Percent *int            `json:"size_percent,omitempty"`
	Type    string          `json:"type,omitempty"`
	Across  *int            `json:"number_of_physical_disks,omitempty"`
	System  string          `json:"file_system,omitempty"`
	Label   string          `json:"label,omitempty"`
	Root    bool            `json:"is_root_volume,omitempty"`
}

// kinds are the types of volumes by the names that lvm has for them too.
var kinds = []string{"linear", "striped", "raid1"}

// fileSystem is what a volume can hold.
type fileSystem struct {
	least int64 // bytes that it needs
	label int   // bytes that a label may have
}

// fileSystems by the names that blkid(8) has for them.
var fileSystems = map[string]fileSystem{
	"ext4": {8 * mib, 16},
	"xfs":  {300 * mib, 12}, // mkfs.xfs(8)
	"swap": {1 * mib, 15},
}

// parseLayout reads logical_volumes. All that is wrong with it is in the list of errors.
func parseLayout(raw json.RawMessage) (groups []group, errs []error) {
	if len(raw) > maxLayout {
		return nil, []error{fmt.Errorf("%d bytes are more than %d", len(raw), maxLayout)}
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, []error{err}
	}
	if len(entries) == 0 || len(entries) > maxGroups {
		return nil, []error{fmt.Errorf("there are %d volume groups, want 1 to %d", len(entries), maxGroups)}
	}
	roots := 0
	names, arrays := map[string]bool{}, map[string]bool{}
	for i, text := range entries {
		title := fmt.Sprintf("volume group %d", i+1)
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: %w", title, fmt.Errorf(format, args...)))
		}
		var l layoutGroup
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields() // a key that is misspelt would be another layout
		if err := d.Decode(&l); err != nil {
			fail("%w", err)
			continue
		}
		g := group{name: l.Name}
		if err := checkName(l.Name); err != nil {
			fail("name: %w", err)
		} else {
			title = fmt.Sprintf("volume group %q", l.Name)
			if names[l.Name] {
				fail("it is there twice")
			}
			names[l.Name] = true
		}
		switch n := len(l.PhysicalDisks); {
		case l.Array != nil && n > 0:
			fail("it has both physical_disks and volume_name")
		case l.Array != nil && *l.Array == "":
			fail("volume_name is empty")
		case l.Array != nil:
			g.array = *l.Array
			if arrays[g.array] {
				fail("the array %q has a volume group already", raid.Clip([]byte(g.array)))
			}
			arrays[g.array] = true
		case n < 1 || n > maxDisks:
			fail("physical_disks has %d entries, want 1 to %d, or volume_name in its place", n, maxDisks)
		}
		for n, text := range l.PhysicalDisks[:min(len(l.PhysicalDisks), maxDisks)] {
			w, err := raid.ParseWanted(text)
			if err != nil {
				fail("physical_disks, entry %d: %w", n+1, err)
			}
			g.disks = append(g.disks, w)
		}
		if n := len(l.Volumes); n < 1 || n > maxVolumes {
			fail("it has %d volumes, want 1 to %d", n, maxVolumes)
			continue
		}
		rest, percent := 0, 0
		taken := map[string]bool{}
		for n, entry := range l.Volumes {
			v, wrong := entry.volume(l.Name, max(len(g.disks), 1))
			called := fmt.Sprintf("volume %d", n+1)
			if checkName(entry.Name) == nil {
				called = fmt.Sprintf("volume %q", entry.Name)
				if taken[entry.Name] {
					wrong = append(wrong, fmt.Errorf("it is there twice"))
				}
				taken[entry.Name] = true
			}
			for _, err := range wrong {
				fail("%s: %w", called, err)
			}
			if percent += v.percent; v.size == 0 && v.percent == 0 {
				rest++
			}
			if v.root {
				roots++
			}
			g.volumes = append(g.volumes, v)
		}
		if rest > 1 {
			fail("%d of its volumes are MAX, and there is one rest only", rest)
		}
		if percent > 100 {
			fail("its volumes want %d %% of it", percent)
		}
		groups = append(groups, g)
	}
	if roots > 1 {
		errs = append(errs, fmt.Errorf("%d volumes are the root volume", roots))
	}
	return groups, errs
}

// volume checks what can be checked without the machine. The group has so many disks.
func (l layoutVolume) volume(group string, disks int) (v volume, errs []error) {
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	v = volume{name: l.Name, kind: l.Type, system: l.System, label: l.Label, root: l.Root}
	if err := checkVolumeName(l.Name); err != nil {
		fail("name: %w", err)
	} else if n := len(mapperName(group, l.Name)); n > maxMapperName {
		fail("its name and that of the group have %d characters for the kernel, and it takes %d", n, maxMapperName)
	}

	var gib64 int64
	var text string
	switch {
	case l.Percent != nil && l.Size != nil:
		fail("it has both size_gb and size_percent")
	case l.Percent != nil:
		if v.percent = *l.Percent; v.percent < 1 || v.percent > 100 {
			fail("size_percent is %d, want 1 to 100", v.percent)
			v.percent = 1
		}
	case l.Percent == nil && l.Size == nil:
		fail("it has neither size_gb nor size_percent")
		v.size = gib
	case json.Unmarshal(l.Size, &text) == nil && text == "MAX":
	case json.Unmarshal(l.Size, &gib64) != nil || string(l.Size) == "null":
		fail("size_gb is %s, want a whole number of GiB or \"MAX\"", raid.Clip(l.Size))
		v.size = gib
	case gib64 < 1 || gib64 > 1<<30:
		fail("size_gb is %d, which is no size", gib64)
		v.size = gib
	default:
		v.size = gib64 * gib
	}

	if v.kind == "" {
		v.kind = "linear"
	}
	switch {
	case !slices.Contains(kinds, v.kind):
		fail("type is %q, want %s", raid.Clip([]byte(l.Type)), strings.Join(kinds, ", "))
	case v.kind == "linear":
		if l.Across != nil {
			fail("number_of_physical_disks is for the types striped and raid1")
		}
	case disks < 2:
		fail("type %s needs at least 2 disks, and the group has 1", v.kind)
	case l.Across != nil && (*l.Across < 2 || *l.Across > disks):
		fail("number_of_physical_disks is %d, want 2 to %d, which the group has", *l.Across, disks)
	case l.Across != nil:
		v.across = *l.Across
	case v.kind == "raid1":
		v.across = 2
	default:
		v.across = disks
	}
	if v.kind == "raid1" && v.across > 10 { // DEFAULT_RAID1_MAX_IMAGES of lvm2's lib/config/defaults.h
		fail("number_of_physical_disks is %d, and raid1 has at most 10", v.across)
	}

	if l.System != "" {
		f, known := fileSystems[l.System]
		if !known {
			fail("file_system is %q, want ext4, xfs or swap", raid.Clip([]byte(l.System)))
		} else if len(l.Label) > f.label {
			fail("label %q is longer than %d bytes", raid.Clip([]byte(l.Label)), f.label)
		} else if v.size > 0 && v.size < f.least {
			fail("%s needs at least %s", l.System, raid.FormatSize(f.least))
		}
		if l.System == "swap" && l.Root {
			fail("the root volume cannot be swap")
		}
	} else if l.Label != "" {
		fail("there is a label, and no file_system to bear it")
	}
	if l.Label != "" && !plain(l.Label) {
		fail("label %q has other characters than letters, digits and ._-, or begins with one of these", raid.Clip([]byte(l.Label)))
	}
	return v, errs
}

// maxName bounds the name of a group or volume, in bytes: lvm(8) has 127 for both together as the kernel's name.
const maxName, maxMapperName = 64, 127

// checkName refuses what is no good as the name of a group, as part of a path or as an argument. lvm(8), "Valid names", takes the sign + too.
func checkName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("it is empty")
	case len(s) > maxName:
		return fmt.Errorf("%q is longer than %d bytes", raid.Clip([]byte(s)), maxName)
	case !plain(s):
		return fmt.Errorf("%q has other characters than letters, digits and ._-, or begins with one of these", s)
	}
	return nil
}

// checkVolumeName also refuses what lvm keeps for itself: lvm(8), "Valid names".
func checkVolumeName(s string) error {
	if err := checkName(s); err != nil {
		return err
	}
	for _, prefix := range []string{"snapshot", "pvmove"} {
		if strings.HasPrefix(s, prefix) {
			return fmt.Errorf("%q begins with %q, which LVM keeps for itself", s, prefix)
		}
	}
	for _, part := range []string{"_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_imeta", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig"} {
		if strings.Contains(s, part) {
			return fmt.Errorf("%q contains %q, which LVM keeps for itself", s, part)
		}
	}
	return nil
}

// plain tells whether a text has letters, digits and ._- alone, and begins with none of the latter.
func plain(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || strings.IndexByte("._-", c) < 0) {
			return false
		}
	}
	return true
}

// mapperName is the name of a volume for the kernel: group and volume with a - in between, their own doubled.
func mapperName(group, volume string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return double(group) + "-" + double(volume)
}
