// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/stream"
)

const (
	minMember = 64 * mib // bytes: less is no use to anybody
	homehost  = "any"    // an array belongs to whichever machine has its disks, so that the deployed system knows it by its plain name
)

// plan is what a creation does, in this order.
type plan struct {
	redo   []string // disks of a creation that was interrupted: everything on them goes
	tables []table
	arrays []newArray
	keep   []array  // there already
	unmark []string // disks of a creation that is finished but for its marks
}

// table is a new partition table.
type table struct {
	disk  inspect.Disk
	label string // gpt or msdos
	parts []stream.Partition
}

type newArray struct {
	device  string // /dev/md0
	version string // of its superblocks; "" is 1.2
	level   string // as in sysfs
	name    string
	members []member
}

// String prints the plan for people, one line for each thing to do.
func (p plan) String() string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, d := range p.redo {
		say("clear %s of an interrupted creation", d)
	}
	for _, t := range p.tables {
		say("partition %v: %s", t.disk, t.label)
		for _, part := range t.parts {
			say("  %s from %s to %s", member{t.disk.Name, part.Number}.device(), size(part.Start), size(part.Start+part.Size))
		}
	}
	for _, a := range p.arrays {
		say("make %s %q, %s, of %s", a.device, a.name, a.level, devices(a.members))
	}
	for _, a := range p.keep {
		say("leave %s, %s, of %s as it is", a.title(), a.level, devices(a.members))
	}
	return strings.Join(lines, "\n")
}

func devices(members []member) string {
	var names []string
	for _, m := range members {
		names = append(names, m.device())
	}
	return strings.Join(names, ", ")
}

// size writes bytes in the largest unit that is exact.
func size(n int64) string {
	switch {
	case n%gib == 0:
		return fmt.Sprintf("%d GiB", n/gib)
	case n%mib == 0:
		return fmt.Sprintf("%d MiB", n/mib)
	}
	return fmt.Sprintf("%d bytes", n)
}

// room is what the place before the first partition is for, and the kind of the tables.
type room struct {
	mode  string // uefi or bios
	label string // gpt or msdos
}

// start is where the first partition starts: behind room for the EFI system partition of 550 MiB, or for GRUB's partition, that is made when the boot
// loader is installed. Source: ironic-python-agent's ironic_python_agent/raid_utils.py, calculate_raid_start.
func (r room) start() int64 {
	switch {
	case r.mode == "uefi":
		return 551 * mib
	case r.label == "gpt":
		return 8 * mib
	}
	return 1 * mib
}

// planCreation plans arrays for volumes, or says all that is against it. Where a partition lies is decided as in ironic-python-agent
// (ironic_python_agent/raid_utils.py, calc_raid_partition_sectors): on each disk the first one ends size_gb GiB from the start of the disk, each further
// one size_gb GiB behind the one before, and one of MAX comes last and takes the rest.
func planCreation(volumes []volume, s state, skip inspect.SkipList, b room) (p plan, err error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	volumes = slices.Clone(volumes)
	slices.SortStableFunc(volumes, func(a, b volume) int {
		last := map[bool]int{false: 0, true: 1}
		return last[a.size == 0] - last[b.size == 0]
	})

	// 1. What was begun and not finished is as if it were gone.
	usable, err := s.usable(skip)
	if err != nil {
		return plan{}, err
	}
	p.redo, s = s.withoutUnfinished(usable, skip)
	for _, d := range usable {
		needed := func(o disk) bool { // on the skip list, and this mark speaks for it
			return o.mark.Run == d.mark.Run && !o.mark.Made && !slices.ContainsFunc(usable, func(u disk) bool { return u.Name == o.Name })
		}
		if d.mark.Run != "" && s.finished(d.mark.Run) && !slices.ContainsFunc(s.disks, needed) {
			p.unmark = append(p.unmark, d.Name)
		}
	}
	// Those that do not say themselves that it is finished go first: the others say it for them.
	slices.SortStableFunc(p.unmark, func(a, b string) int {
		made := map[bool]int{true: 1}
		return made[s.disk(a).mark.Made] - made[s.disk(b).mark.Made]
	})
	if usable, err = s.usable(skip); err != nil {
		return plan{}, err
	}

	// 2. Each volume gets its disks, a number and places.
	next := map[string]int64{}   // where the next partition starts
	alone := map[string]string{} // disk -> volume that shares it with none
	users := map[string][]string{}
	full := map[string]string{}
	var numbers []int
	for i, v := range volumes {
		title := fmt.Sprintf("logical disk %q", v.name)
		if v.name == "" {
			title = fmt.Sprintf("logical disk %d", v.place)
			if len(skip.Volumes) > 0 {
				fail("%s has no volume_name, and skip_block_devices keeps volumes by their names", title)
			}
		}
		number := i
		name := cmp.Or(v.name, fmt.Sprintf("md%d", number))
		existing := slices.IndexFunc(s.arrays, func(a array) bool { return a.name == name })
		if existing >= 0 && len(skip.Volumes) > 0 && s.arrays[existing].level == v.level {
			p.keep = append(p.keep, s.arrays[existing])
			continue
		}
		chosen, err := v.choose(usable)
		if err != nil {
			fail("%s: %w", title, err)
			continue
		}
		// Its places, which are where it lies if it is there already.
		var places []stream.Partition
		for _, d := range chosen {
			if full[d.Name] != "" {
				fail("%s: %s is filled up by %s, which is MAX too", title, d.Name, full[d.Name])
				continue
			}
			start := cmp.Or(next[d.Name], b.start())
			most := (d.Size - mib) &^ (mib - 1) // a GPT's backup is behind it
			end := most
			switch {
			case v.size == 0:
				full[d.Name] = title
			case next[d.Name] == 0:
				end = v.size
			default:
				end = start + v.size
			}
			switch {
			case end > most:
				fail("%s: it would end at %s of %s, where no more than %s are of use", title, size(end), d.Name, size(max(most, 0)))
			case end-start < minMember:
				fail("%s: %s are free for it on %s, and it needs %s at least", title, size(max(end-start, 0)), d.Name, size(minMember))
			case b.label == "msdos" && end/int64(max(d.LogicalSectors, 512)) > math.MaxUint32:
				fail("%s: it would end at %s of %s, beyond what an MBR can name: give the node the capability disk_label:gpt", title, size(end), d.Name)
			}
			places = append(places, stream.Partition{Start: start, Size: end - start})
			next[d.Name] = end
			users[d.Name] = append(users[d.Name], title)
			if v.alone {
				alone[d.Name] = title
			}
		}
		if len(places) < len(chosen) {
			continue
		}
		if existing >= 0 {
			a := s.arrays[existing]
			if why := s.differs(a, v.level, chosen, places); why == "" {
				p.keep = append(p.keep, a)
				continue
			} else if v.name != "" {
				fail("%s: there is %s already, %s: delete_configuration takes it away", title, a.title(), why)
				continue
			}
		}

		// Its number, and entries in the tables.
		taken := func(n int) bool {
			return slices.Contains(numbers, n) || slices.ContainsFunc(s.arrays, func(a array) bool {
				return a.device == fmt.Sprintf("/dev/md%d", n) || v.name == "" && a.name == fmt.Sprintf("md%d", n)
			})
		}
		for taken(number) {
			number++
		}
		numbers = append(numbers, number)
		a := newArray{device: fmt.Sprintf("/dev/md%d", number), level: v.level, name: cmp.Or(v.name, fmt.Sprintf("md%d", number))}
		for i, d := range chosen {
			t := p.table(d.Disk, b.label)
			if b.label == "msdos" && len(t.parts) == 4 {
				fail("%s: %s has 4 partitions already, more than an MBR can have: give the node the capability disk_label:gpt", title, d.Name)
				continue
			}
			places[i].Number = len(t.parts) + 1
			t.parts = append(t.parts, places[i])
			a.members = append(a.members, member{d.Name, places[i].Number})
		}
		p.arrays = append(p.arrays, a)
	}

	// 3. The disks must be free of anything else, and of each other.
	var occupied []string
	for i, t := range p.tables {
		d := s.disk(t.disk.Name)
		if title, n := alone[d.Name], len(users[d.Name]); title != "" && n > 1 {
			fail("%s shares no physical disk, and %s would have %d volumes", title, d.Name, n)
		}
		running := slices.ContainsFunc(s.arrays, func(a array) bool { return a.device != "" && a.on(d.Name) })
		if len(d.parts) > 0 || running {
			occupied = append(occupied, d.Name)
		} else if slices.Contains(d.stale, 0) {
			fail("%s as a whole is a member of an array that does not run: delete_configuration or erase_devices_metadata takes it away", d.Name)
		} else if d.holds != "" {
			fail("%s as a whole holds %s: erase_devices_metadata takes it away", d.Name, d.holds)
		}
		for _, o := range p.tables[:i] {
			if what := samePlace(o.disk, t.disk); what != "" {
				fail("%s and %s have the same %s: they may be one disk on two paths, and its data would be there once", o.disk.Name, t.disk.Name, what)
			}
		}
	}
	if len(occupied) > 0 {
		fail("partitions detected on devices %s during RAID config: delete_configuration or erase_devices_metadata takes them away", strings.Join(occupied, ", "))
	}
	if len(skip.Volumes) > 0 {
		for _, a := range s.leftOver(skip, p.keep) {
			fail("%s is neither one of the logical disks nor kept by skip_block_devices", a.title())
		}
	}
	if len(errs) > 0 {
		return plan{}, join(errs)
	}
	return p, nil
}

// samePlace says by what two disks may be one, which is reached on two paths.
func samePlace(a, b inspect.Disk) string {
	switch {
	case a.WWN != "" && a.WWN == b.WWN:
		return "WWN " + string(a.WWN)
	case a.WWN == "" && b.WWN == "" && a.Serial != "" && a.Serial == b.Serial && a.Model == b.Model && a.Size == b.Size:
		return "serial number " + string(a.Serial)
	}
	return ""
}

// join is all errors in one line.
func join(errs []error) error {
	if len(errs) <= 1 {
		return errors.Join(errs...)
	}
	format, args := "%w", []any{errs[0]}
	for _, err := range errs[1:] {
		format, args = format+"; %w", append(args, err)
	}
	return fmt.Errorf(format, args...)
}

// table is the plan's for a disk.
func (p *plan) table(d inspect.Disk, label string) *table {
	for i := range p.tables {
		if p.tables[i].disk.Name == d.Name {
			return &p.tables[i]
		}
	}
	p.tables = append(p.tables, table{disk: d, label: label})
	return &p.tables[len(p.tables)-1]
}

// choose picks the disks that become members.
func (v volume) choose(usable []disk) ([]disk, error) {
	pool := slices.DeleteFunc(slices.Clone(usable), func(d disk) bool { return !v.fits(d.Disk) })
	least := 2
	for _, l := range levels {
		if l.kernel == v.level {
			least = l.least
		}
	}
	take := func(name string) (d disk) {
		i := slices.IndexFunc(pool, func(d disk) bool { return d.Name == name })
		d = pool[i]
		pool = slices.Delete(pool, i, i+1)
		return d
	}
	var chosen []disk
	for i, w := range v.members {
		var fitting []inspect.Disk
		for _, d := range pool {
			if w.kind == "" || kindOf(d.Disk) == w.kind {
				fitting = append(fitting, d.Disk)
			}
		}
		if w.hints.Empty() {
			if fitting = guessable(fitting); len(fitting) == 0 {
				return nil, fmt.Errorf("physical_disks, entry %d: %w: no further disk is of type %s", i+1, inspect.ErrNoDisk, w.kind)
			}
			chosen = append(chosen, take(fitting[0].Name))
			continue
		}
		choice, err := w.hints.Choose(fitting)
		if err != nil {
			return nil, fmt.Errorf("physical_disks, entry %d, without the disks that the entries before have taken: %w", i+1, err)
		}
		chosen = append(chosen, take(choice.Disk.Name))
	}
	if len(v.members) > 0 {
		return chosen, nil
	}
	pool = slices.DeleteFunc(pool, func(d disk) bool { return len(guessable([]inspect.Disk{d.Disk})) == 0 })
	if len(pool) < max(least, v.count) {
		return nil, fmt.Errorf("%w: it needs %d disks, and %d are there: %s", inspect.ErrNoDisk, max(least, v.count), len(pool), names(pool))
	}
	if v.count > 0 {
		pool = pool[:v.count]
	}
	return pool, nil
}

func names(disks []disk) string {
	var list []string
	for _, d := range disks {
		list = append(list, d.Name)
	}
	return cmp.Or(strings.Join(list, ", "), "none")
}

// fits tells whether a disk is of the kind and on the bus that the volume wants.
func (v volume) fits(d inspect.Disk) bool {
	kind, tran := kindOf(d), string(d.Tran)
	scsi := v.bus == "scsi" && d.HCTL != "" && tran != "sata" && tran != "usb"
	return (v.kind == "" || v.kind == kind || v.kind == "flash" && kind != "rotational") && (v.bus == "" || v.bus == tran || scsi)
}

// kindOf is one of diskKinds.
func kindOf(d inspect.Disk) string {
	switch {
	case d.Tran == "nvme":
		return "nvme"
	case d.Rotational:
		return "rotational"
	}
	return "ssd"
}

// guessable are the disks that are taken without being named: no stick of a technician, no virtual medium.
func guessable(disks []inspect.Disk) []inspect.Disk {
	return slices.DeleteFunc(slices.Clone(disks), func(d inspect.Disk) bool { return d.Removable || d.Tran == "usb" })
}

// usable are the disks that are not on the skip list.
func (s state) usable(skip inspect.SkipList) ([]disk, error) {
	var plain []inspect.Disk
	for _, d := range s.disks {
		plain = append(plain, d.Disk)
	}
	use, _, err := skip.Split(plain)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(s.disks), func(d disk) bool {
		return !slices.ContainsFunc(use, func(u inspect.Disk) bool { return u.Name == d.Name })
	}), nil
}

// finished tells whether a mark of some creation says that it is finished.
func (s state) finished(run string) bool {
	return slices.ContainsFunc(s.disks, func(d disk) bool { return d.mark.Run == run && d.mark.Made })
}

// unfinished tells whether all that is on a disk is of a creation that was interrupted.
func (s state) unfinished(d disk) bool {
	if d.mark.Run == "" || len(d.parts) == 0 || d.other != "" || s.finished(d.mark.Run) {
		return false
	}
	return !slices.ContainsFunc(d.parts, func(p stream.Partition) bool { return !slices.Contains(d.mark.Partitions, p) }) // somebody else's since
}

// withoutUnfinished lists those of the usable disks that are of interrupted creations and hold no array of the skip list, and returns what is there without what was made on them.
func (s state) withoutUnfinished(usable []disk, skip inspect.SkipList) (disks []string, rest state) {
	for _, d := range usable {
		kept := func(a array) bool { return a.name != "" && slices.Contains(skip.Volumes, a.name) && a.on(d.Name) }
		if s.unfinished(d) && !slices.ContainsFunc(s.arrays, kept) {
			disks = append(disks, d.Name)
		}
	}
	return disks, s.without(disks)
}

// without is the state as it is when disks are cleared.
func (s state) without(disks []string) state {
	var rest state
	for _, d := range s.disks {
		if slices.Contains(disks, d.Name) {
			d = disk{Disk: d.Disk}
		}
		rest.disks = append(rest.disks, d)
	}
	for _, a := range s.arrays {
		if !slices.ContainsFunc(disks, a.on) {
			rest.arrays = append(rest.arrays, a)
		}
	}
	return rest
}

// differs says what makes an array another one than a volume on these disks; "" if nothing does.
func (a array) differs(level string, disks []disk) string {
	switch {
	case a.level != level:
		return "with level " + a.level
	case a.degraded || a.device == "":
		return "without some of its members"
	case len(a.members) != len(disks) || slices.ContainsFunc(disks, func(d disk) bool { return !a.on(d.Name) }):
		return "of " + devices(a.members)
	}
	return ""
}

// differs is that of the array, and also compares the places of its members.
func (s state) differs(a array, level string, disks []disk, places []stream.Partition) string {
	if why := a.differs(level, disks); why != "" {
		return why
	}
	for i, d := range disks {
		m := a.members[slices.IndexFunc(a.members, func(m member) bool { return m.disk == d.Name })]
		if !slices.ContainsFunc(d.parts, func(p stream.Partition) bool {
			return p.Number == m.number && p.Start == places[i].Start && p.Size == places[i].Size
		}) {
			return fmt.Sprintf("and %s is not from %s to %s", m.device(), size(places[i].Start), size(places[i].Start+places[i].Size))
		}
	}
	return ""
}

// removal is what a deletion does.
type removal struct {
	keep  []array  // not touched
	wipe  []array  // share disks with those: only their contents go
	disks []string // everything on them goes
	gone  []array  // with them
}

// String prints the removal for people.
func (r removal) String() string {
	var lines []string
	for _, a := range r.keep {
		lines = append(lines, "leave "+a.title())
	}
	for _, a := range r.wipe {
		lines = append(lines, "clear what is in "+a.title())
	}
	for _, a := range r.gone {
		lines = append(lines, fmt.Sprintf("delete %s, %s, of %s", a.title(), a.level, devices(a.members)))
	}
	for _, d := range r.disks {
		lines = append(lines, "clear "+d)
	}
	return strings.Join(lines, "\n")
}

// planRemoval plans to delete all arrays but those on the skip list. One that shares a disk with a kept one, directly or over others, stays with its
// contents wiped: the partition table is as much the kept one's.
func planRemoval(s state, skip inspect.SkipList) (r removal, err error) {
	usable, err := s.usable(skip)
	if err != nil {
		return r, err
	}
	skipped := func(name string) bool {
		return s.disk(name) != nil && !slices.ContainsFunc(usable, func(d disk) bool { return d.Name == name })
	}
	held := map[string]bool{} // disks with an array that stays
	stays := func(a array) bool { return slices.ContainsFunc(a.members, func(m member) bool { return held[m.disk] }) }
	var rest []array
	for _, a := range s.arrays {
		switch {
		case strings.HasPrefix(a.version, "external:"):
			return removal{}, fmt.Errorf("%s is the firmware's own RAID (%s), which is left to the firmware's tools", a.title(), a.version)
		case a.name != "" && slices.Contains(skip.Volumes, a.name), slices.ContainsFunc(a.members, func(m member) bool { return skipped(m.disk) }):
			r.keep = append(r.keep, a)
			for _, m := range a.members {
				held[m.disk] = true
			}
		default:
			rest = append(rest, a)
		}
	}
	for again := true; again; {
		again = false
		for _, a := range rest {
			for _, m := range a.members {
				if stays(a) && !held[m.disk] {
					held[m.disk], again = true, true
				}
			}
		}
	}
	for _, a := range rest {
		switch {
		case !stays(a):
			r.gone = append(r.gone, a)
		case a.name == "esp":
			r.keep = append(r.keep, a)
		default:
			r.wipe = append(r.wipe, a)
		}
	}
	for _, d := range s.disks {
		ours := len(d.raid) > 0 || len(d.stale) > 0 || s.unfinished(d) || slices.ContainsFunc(r.gone, func(a array) bool { return a.on(d.Name) })
		if ours && !held[d.Name] && !skipped(d.Name) {
			r.disks = append(r.disks, d.Name)
		}
	}
	return r, nil
}

// leftOver are the arrays beside those of a plan that the skip list neither names nor touches.
func (s state) leftOver(skip inspect.SkipList, keep []array) (list []array) {
	r, err := planRemoval(s, skip)
	if err != nil {
		return s.arrays // which the firmware's are among
	}
	return slices.DeleteFunc(r.gone, func(a array) bool {
		return slices.ContainsFunc(keep, func(k array) bool { return k.uuid == a.uuid })
	})
}
