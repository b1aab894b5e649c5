// SPDX-License-Identifier: Apache-2.0

package lvm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
)

// extent is the unit in which volumes are made, in bytes: vgcreate(8), --physicalextentsize. A physical volume begins with 1 MiB of lvm's own.
const (
	extent   = 4 * mib
	metadata = 1 * mib
)

// plan is what a creation does, in this order.
type plan struct {
	redo   []string // disks with what was not finished: everything on them goes
	tables []table
	groups []newGroup
	keep   []existing // there already
	unmark []string   // disks on which all is finished but for the marks
	tag    string     // that says whose the groups are; "" for none
}

// table is a new partition table: the physical volume, and before it, for the root volume, partitions for the boot loader and the config drive.
type table struct {
	disk  inspect.Disk
	boot  gpt.GUID // type of the first partition; "" if there is none for the boot loader
	drive int      // number of that for a config drive; 0 if there is none
	parts []stream.Partition
}

// physical is the partition of the physical volume.
func (t table) physical() stream.Partition { return t.parts[len(t.parts)-1] }

// device is that partition's.
func (t table) device() string { return raid.PartitionDevice(t.disk.Name, t.physical().Number) }

type newGroup struct {
	name    string
	devices []string
	volumes []newVolume
}

type newVolume struct {
	volume
	extents int64 // that it shows
	areas   []area
}

// area is a run of extents of a physical volume.
type area struct {
	device      string
	first, last int64
}

// String prints the plan for people, one line for each thing to do.
func (p plan) String() string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, d := range p.redo {
		say("clear %s of what was not finished", d)
	}
	for _, t := range p.tables {
		say("partition %v: gpt", t.disk)
		for i, part := range t.parts {
			what := "physical volume"
			switch {
			case i == len(t.parts)-1:
			case part.Number == t.drive:
				what = "for a config drive, empty"
			case t.boot == gpt.EFISystem:
				what = "EFI system partition, empty"
			default:
				what = "BIOS boot partition, empty"
			}
			say("  %s from %s to %s, %s", raid.PartitionDevice(t.disk.Name, part.Number), raid.FormatSize(part.Start), raid.FormatSize(part.Start+part.Size), what)
		}
	}
	for _, g := range p.groups {
		say("make volume group %s of %s", g.name, strings.Join(g.devices, ", "))
		for _, v := range g.volumes {
			what := cmp.Or(v.system, "no file system")
			if v.label != "" {
				what += " " + v.label
			}
			say("  make volume %s/%s, %s, %s, on %s", g.name, v.name, v.describe(), what, strings.Join(v.devices(), ", "))
		}
	}
	for _, g := range p.keep {
		say("leave volume group %s as it is", g.name)
	}
	return strings.Join(lines, "\n")
}

func (v newVolume) describe() string { return v.kind + ", " + raid.FormatSize(v.extents*extent) }

// devices that it is on.
func (v newVolume) devices() (list []string) {
	for _, a := range v.areas {
		if !slices.Contains(list, a.device) {
			list = append(list, a.device)
		}
	}
	return list
}

// bootPart is what the disks of the root volume get in front of the physical volume.
type bootPart struct {
	kind gpt.GUID
	size int64 // bytes
}

// planCreation plans volume groups, or says all that is against it.
func planCreation(groups []group, s state, skip inspect.SkipList, b bootPart) (p plan, err error) {
	var errs []error
	skipped, err := s.skipped(skip)
	if err != nil {
		return plan{}, err
	}

	// 1. What was begun and not finished is as if it were gone.
	for _, d := range s.disks {
		needed := func(o disk) bool { return o.mark.Run == d.mark.Run && !o.mark.Made && skipped[o.Name] } // this mark speaks for it
		switch {
		case skipped[d.Name]:
		case s.unfinished(d):
			p.redo = append(p.redo, d.Name)
		case d.mark.Run != "" && s.finished(d.mark.Run) && !slices.ContainsFunc(s.disks, needed):
			p.unmark = append(p.unmark, d.Name)
		}
	}
	// Those that do not say themselves that it is finished go first: the others say it for them.
	slices.SortStableFunc(p.unmark, func(a, b string) int {
		made := map[bool]int{true: 1}
		return made[s.disk(a).mark.Made] - made[s.disk(b).mark.Made]
	})
	s = s.without(p.redo)

	// 2. Each group gets its disks, and each volume its place on them.
	taken := map[string]string{} // disk -> group
	for _, g := range groups {
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("volume group %q: %w", g.name, fmt.Errorf(format, args...)))
		}
		chosen, err := g.choose(s, skipped, taken)
		if err != nil {
			fail("%w", err)
			continue
		}
		var tables []table
		for _, d := range chosen {
			taken[d.Name] = g.name
			t, err := g.table(d, b)
			if err != nil {
				fail("%w", err)
				continue
			}
			tables = append(tables, t)
			if d.LogicalSectors != chosen[0].LogicalSectors {
				fail("%s has sectors of %d bytes, and %s of %d: LVM takes one kind only", chosen[0].Name, chosen[0].LogicalSectors, d.Name, d.LogicalSectors)
			}
		}
		if len(tables) < len(chosen) {
			continue
		}
		wanted, wrong := g.lay(tables)
		for _, err := range wrong {
			fail("%w", err)
		}
		var same []existing
		for _, e := range s.groups {
			if e.name == g.name {
				same = append(same, e)
			}
		}
		switch {
		case len(same) > 1:
			fail("there are %d groups of this name: delete_volumes takes them away", len(same))
			continue
		case len(same) == 1 && len(wrong) == 0:
			if why := s.differs(same[0], wanted, tables); why != "" {
				fail("it is there already, %s: delete_volumes takes it away", why)
			} else {
				p.keep = append(p.keep, same[0])
			}
			continue
		case s.dev[g.name]:
			fail("/dev has something else of this name")
		}
		for _, d := range chosen {
			if why := d.occupied(); why != "" {
				fail("%s %s", d.Name, why)
			}
		}
		for i, t := range tables {
			for _, o := range slices.Concat(p.tables, tables[:i]) {
				if what := raid.SamePlace(o.disk, t.disk); what != "" {
					fail("%s and %s have the same %s: they may be one disk on two paths, and its data would be there once", o.disk.Name, t.disk.Name, what)
				}
			}
		}
		p.tables = append(p.tables, tables...)
		p.groups = append(p.groups, wanted)
	}
	if len(errs) > 0 {
		return plan{}, raid.JoinErrors(errs)
	}
	return p, nil
}

// choose picks the disks or the array of a group.
func (g group) choose(s state, skipped map[string]bool, taken map[string]string) ([]disk, error) {
	if len(g.disks) > 0 {
		var pool []inspect.Disk
		for _, d := range s.disks {
			if !d.isArray && !skipped[d.Name] && taken[d.Name] == "" {
				pool = append(pool, d.Disk)
			}
		}
		found, err := raid.ChooseDisks(g.disks, pool)
		var chosen []disk
		for _, f := range found {
			chosen = append(chosen, *s.disk(f.Name))
		}
		return chosen, err
	}
	var names []string
	for _, d := range s.disks {
		switch {
		case !d.isArray:
			continue
		case d.array != g.array:
			names = append(names, fmt.Sprintf("%s %q", d.Name, d.array))
			continue
		case d.broken:
			return nil, fmt.Errorf("the array %q, %s, lacks some of its members", g.array, d.Name)
		case skipped[d.Name]:
			return nil, fmt.Errorf("the array %q, %s, is on the skip list", g.array, d.Name)
		}
		return []disk{d}, nil
	}
	return nil, fmt.Errorf("%w: no array %q runs; there are: %s", inspect.ErrNoDisk, raid.Clip([]byte(g.array)), cmp.Or(strings.Join(names, ", "), "none"))
}

// occupied says what is on a disk that must not be lost; "" if there is nothing.
func (d disk) occupied() string {
	switch {
	case len(d.parts) > 0:
		return "has partitions: delete_volumes, delete_configuration or erase_devices_metadata takes them away"
	case len(d.labels) > 0:
		return "is a physical volume of LVM: delete_volumes or erase_devices_metadata takes it away"
	case len(d.holds) > 0:
		return "holds " + strings.Join(d.holds, " and ") + ": erase_devices_metadata takes it away"
	}
	return ""
}

// table is that of a disk of the group.
func (g group) table(d disk, b bootPart) (t table, err error) {
	t.disk = d.Disk
	start := int64(1 * mib)
	add := func(size int64) {
		t.parts = append(t.parts, stream.Partition{Number: len(t.parts) + 1, Start: start, Size: size})
		start += size
	}
	if slices.ContainsFunc(g.volumes, func(v volume) bool { return v.root }) {
		if !d.isArray {
			t.boot = b.kind
			add(b.size)
		}
		add(image.ConfigDriveSize)
		t.drive = len(t.parts)
	}
	end := (d.Size - mib) &^ (mib - 1) // a GPT's backup is behind it
	if end-start < metadata+extent {
		return t, fmt.Errorf("%s has no more than %s, which is too small", d.Name, raid.FormatSize(d.Size))
	}
	add(end - start)
	return t, nil
}

// lay finds a place for each volume: those with sizes first, in their order, then what takes the rest.
func (g group) lay(tables []table) (n newGroup, errs []error) {
	n.name = g.name
	var all []*freeSpace
	total := int64(0)
	for _, t := range tables {
		extents := (t.physical().Size - metadata) / extent
		n.devices = append(n.devices, t.device())
		all = append(all, &freeSpace{device: t.device(), end: extents})
		total += extents
	}
	order := slices.Clone(g.volumes)
	rest := func(v volume) bool { return v.size == 0 && v.percent == 0 }
	slices.SortStableFunc(order, func(a, b volume) int {
		last := map[bool]int{true: 1}
		return last[rest(a)] - last[rest(b)]
	})
	for _, v := range order {
		want := v.size / extent
		if v.percent > 0 {
			want = v.share(total * int64(v.percent) / 100)
		}
		most := v.most(all)
		if rest(v) {
			want = most
		}
		if v.kind == "striped" { // each stripe is as long as the others
			want = (want + int64(v.across) - 1) / int64(v.across) * int64(v.across)
		}
		switch least := max(fileSystems[v.system].least, extent); {
		case want > most:
			errs = append(errs, fmt.Errorf("volume %q: it needs %s, and %s are free for it", v.name, raid.FormatSize(want*extent), raid.FormatSize(most*extent)))
			continue
		case want*extent < least:
			errs = append(errs, fmt.Errorf("volume %q: it would have %s, and needs at least %s", v.name, raid.FormatSize(want*extent), raid.FormatSize(least)))
			continue
		}
		n.volumes = append(n.volumes, newVolume{volume: v, extents: want, areas: v.take(all, want)})
	}
	return n, errs
}

// freeSpace is the free end of a physical volume, in extents.
type freeSpace struct {
	device    string
	next, end int64
}

func (f freeSpace) free() int64 { return f.end - f.next }

// take takes the first extents.
func (f *freeSpace) take(n int64) area {
	a := area{f.device, f.next, f.next + n - 1}
	f.next += n
	return a
}

// emptiest are the n with the most space.
func emptiest(all []*freeSpace, n int) []*freeSpace {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b *freeSpace) int { return cmp.Compare(b.free(), a.free()) })
	return sorted[:n]
}

// share is how many extents the volume shows if it may take so many.
func (v volume) share(extents int64) int64 {
	switch v.kind {
	case "raid1":
		return max(extents/int64(v.across)-1, 0)
	case "striped":
		return extents / int64(v.across) * int64(v.across)
	}
	return extents
}

// most is how many extents the volume could show.
func (v volume) most(all []*freeSpace) (extents int64) {
	if v.kind == "linear" {
		for _, f := range all {
			extents += f.free()
		}
		return extents
	}
	each := emptiest(all, v.across)[v.across-1].free()
	if v.kind == "striped" {
		return each * int64(v.across)
	}
	return max(each-1, 0) // a raid1 has an extent of its own on each disk
}

// take takes the extents for a volume, which are there. A linear one goes where it fits whole, or else over several.
func (v volume) take(all []*freeSpace, extents int64) (areas []area) {
	switch v.kind {
	case "striped":
		for _, f := range emptiest(all, v.across) {
			areas = append(areas, f.take(extents/int64(v.across)))
		}
		return areas
	case "raid1":
		for _, f := range emptiest(all, v.across) {
			areas = append(areas, f.take(extents+1))
		}
		return areas
	}
	if i := slices.IndexFunc(all, func(f *freeSpace) bool { return f.free() >= extents }); i >= 0 {
		return []area{all[i].take(extents)}
	}
	for _, f := range all {
		if n := min(f.free(), extents); n > 0 {
			areas = append(areas, f.take(n))
			extents -= n
		}
	}
	return areas
}

// layouts are the kinds as lvs prints them.
var layouts = map[string]string{"linear": "linear", "striped": "striped", "raid1": "raid,raid1"}

// differs says what makes a group that is there another one than that which is wanted; "" if nothing does.
func (s state) differs(e existing, g newGroup, tables []table) string {
	if e.missing > 0 {
		return fmt.Sprintf("without %d of its physical volumes", e.missing)
	}
	if len(e.places) != len(tables) {
		return "on " + devices(e.places)
	}
	for _, t := range tables {
		p := t.physical()
		d := s.disk(t.disk.Name)
		if !slices.Contains(e.places, place{t.disk.Name, p.Number}) || !slices.Equal(d.parts, t.parts) {
			return fmt.Sprintf("and %s is none of its physical volumes as they would be made", t.device())
		}
	}
	if len(e.volumes) != len(g.volumes) {
		return fmt.Sprintf("with %d volumes", len(e.volumes))
	}
	for _, v := range g.volumes {
		i := slices.IndexFunc(e.volumes, func(o existingVolume) bool { return o.name == v.name })
		if i < 0 {
			return fmt.Sprintf("without a volume %s", v.name)
		}
		if o := e.volumes[i]; o.layout != layouts[v.kind] || o.size != v.extents*extent {
			return fmt.Sprintf("with a volume %s that is %s, %s", v.name, o.layout, raid.FormatSize(o.size))
		}
	}
	return ""
}

func devices(places []place) string {
	var list []string
	for _, p := range places {
		list = append(list, p.device())
	}
	return cmp.Or(strings.Join(list, ", "), "nothing that is there")
}

// removal is what a deletion does.
type removal struct {
	keep   []existing // not touched
	gone   []existing
	disks  []string // everything on them goes
	unmark []string // disks that stay, and are finished by a mark on one that goes
}

// String prints the removal for people.
func (r removal) String() string {
	var lines []string
	for _, g := range r.keep {
		lines = append(lines, "leave volume group "+g.name)
	}
	for _, g := range r.gone {
		lines = append(lines, fmt.Sprintf("delete volume group %s of %s", g.name, devices(g.places)))
		for _, v := range g.volumes {
			lines = append(lines, fmt.Sprintf("  delete volume %s/%s, %s, %s", g.name, v.name, v.layout, raid.FormatSize(v.size)))
		}
	}
	for _, d := range r.disks {
		lines = append(lines, "clear "+d)
	}
	return strings.Join(lines, "\n")
}

// planRemoval plans to delete the groups of some names, or all, and what was not finished; what is on the skip list stays. Whole disks are cleared, and so a disk that
// also has other things is refused.
func planRemoval(s state, names []string, skip inspect.SkipList) (r removal, err error) {
	skipped, err := s.skipped(skip)
	if err != nil {
		return r, err
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	keeping := len(skip.Hints)+len(skip.Volumes) > 0
	owner := map[place]string{}
	goes := map[place]bool{}
	for _, g := range s.groups {
		wanted := len(names) == 0 || slices.Contains(names, g.name)
		kept := slices.ContainsFunc(g.places, func(p place) bool { return skipped[p.disk] })
		if wanted && kept && len(names) > 0 {
			fail("volume group %q is on the skip list", g.name)
		}
		if wanted && !kept && keeping && g.missing > 0 && slices.ContainsFunc(g.places, func(p place) bool { return !s.unfinished(*s.disk(p.disk)) }) {
			fail("volume group %q lacks %d of its physical volumes, which may be on the skip list: erase_devices_metadata takes the others away", g.name, g.missing)
		}
		for _, p := range g.places {
			owner[p] = g.name
			goes[p] = wanted && !kept
		}
		if wanted && !kept {
			r.gone = append(r.gone, g)
		} else {
			r.keep = append(r.keep, g)
		}
	}
	for _, d := range s.disks {
		if skipped[d.Name] {
			continue
		}
		if s.unfinished(d) {
			r.disks = append(r.disks, d.Name)
			continue
		}
		var others []string
		takes := false
		for _, n := range d.labels {
			p := place{d.Name, n}
			switch {
			case keeping && len(names) == 0 && slices.Contains(s.orphans, p):
				fail("%s is of a volume group that cannot be read, and may be on the skip list: erase_devices_metadata takes it away", p.device())
			case goes[p], owner[p] == "" && len(names) == 0: // of no group: nothing is lost with it
				takes = true
			case owner[p] == "":
				others = append(others, p.device()+", a physical volume of no group")
			default:
				others = append(others, p.device()+" of volume group "+owner[p])
			}
		}
		for _, p := range d.parts {
			if slices.Contains(d.labels, p.Number) || p.Number == d.drive || d.kinds[p.Number] == gpt.EFISystem || d.kinds[p.Number] == gpt.BIOSBoot {
				continue
			}
			others = append(others, raid.PartitionDevice(d.Name, p.Number))
		}
		switch {
		case takes && len(others) > 0:
			fail("%s also has %s, and it can only be cleared as a whole: erase_devices_metadata does", d.Name, strings.Join(others, ", "))
		case takes:
			r.disks = append(r.disks, d.Name)
		}
	}
	rest := s.without(r.disks)
	for _, d := range rest.disks {
		switch {
		case !rest.unfinished(d) || s.unfinished(d):
		case skipped[d.Name]:
			fail("%s, which is on the skip list, has a mark of work that is finished, and the disk that says so would be cleared: run create_volumes without that skip list first", d.Name)
		default:
			r.unmark = append(r.unmark, d.Name)
		}
	}
	if len(errs) > 0 {
		return removal{}, raid.JoinErrors(errs)
	}
	return r, nil
}
