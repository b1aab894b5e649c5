// SPDX-License-Identifier: Apache-2.0

package lvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// state is what the machine has of disks, arrays and volume groups.
type state struct {
	disks   []disk
	groups  []existing
	orphans []place         // physical volumes that are in use, or a second copy of one, and of no group that lvm can read
	dev     map[string]bool // names in /dev that no group can have
}

// disk is a whole disk, or an array that runs, and what is on it.
type disk struct {
	inspect.Disk
	array   string   // name of an array, which may be empty
	broken  bool     // an array with members missing
	below   []string // disks that an array is on
	parts   []stream.Partition
	kinds   map[int]gpt.GUID // types of the partitions, as far as the table says
	labels  []int            // numbers of the partitions, 0 the whole, that are physical volumes
	holds   []string         // what else is on the whole of it, for people
	drive   int              // number of the partition for a config drive; 0 without
	other   string           // a partition that no mark speaks for
	mark    raid.Mark        // of what was not finished
	isArray bool
}

// place is a disk as a whole, or a partition of it.
type place struct {
	disk   string // /dev/sda; of what is no disk that is looked at, the device itself
	number int
}

func (p place) device() string { return raid.PartitionDevice(p.disk, p.number) }

// existing is a volume group that is there.
type existing struct {
	name, uuid string
	missing    int // physical volumes that are not there
	places     []place
	volumes    []existingVolume
	tags       []string
}

type existingVolume struct {
	name   string
	layout string // as lvs prints it: linear, striped, "raid,raid1", ...
	size   int64  // bytes
	tags   []string
}

// on tells whether the group has a part on a disk.
func (e existing) on(disk string) bool {
	return slices.ContainsFunc(e.places, func(p place) bool { return p.disk == disk })
}

func (s state) disk(name string) *disk {
	if i := slices.IndexFunc(s.disks, func(d disk) bool { return d.Name == name }); i >= 0 {
		return &s.disks[i]
	}
	return nil
}

// look reads what there is, and changes nothing. What cannot be read is an error: nothing is decided about disks that are not known.
func look(ctx context.Context, h steps.Host) (s state, err error) {
	all, err := raid.Disks(ctx, h)
	if err != nil {
		return s, err
	}
	arrays, err := raid.RunningArrays(ctx, h)
	if err != nil {
		return s, err
	}
	members := map[string]bool{}
	for _, a := range arrays {
		for _, m := range a.Members {
			members[m] = true
		}
	}
	running := func(d inspect.Disk) int {
		return slices.IndexFunc(arrays, func(a raid.RunningArray) bool { return a.Device == d.Name })
	}
	all = slices.DeleteFunc(all, func(d inspect.Disk) bool {
		if d.ReadOnly || d.Size == 0 || d.Type != "disk" && running(d) < 0 {
			return true
		}
		_, err := fs.Stat(h.Machine.FS, strings.TrimPrefix(d.Name, "/"))
		return errors.Is(err, fs.ErrNotExist) // it is gone since it was listed
	})
	var errs []error
	s.disks, err = raid.Look(ctx, all, func(d inspect.Disk) (one disk, err error) {
		one.Disk = d
		if i := running(d); i >= 0 {
			one.isArray, one.array, one.broken, one.below = true, arrays[i].Name, !arrays[i].Whole, arrays[i].Disks
		}
		err = one.read(h.Machine.FS, members)
		return one, err
	})
	if err != nil {
		errs = append(errs, err)
	}
	if s.dev, err = deviceNames(h.Machine.FS); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return s, raid.JoinErrors(errs)
	}
	return s, s.askLVM(ctx, h.Tools)
}

// patience is for the first sectors of a disk.
const patience = 10 * time.Second

// hasOwn tells whether a creation made a group for the node, by the physical volumes alone: what else the machine has is no matter if there is none, and may be broken.
func hasOwn(ctx context.Context, h steps.Host, n steps.Node) (bool, error) {
	devices := labels(ctx, h)
	if len(devices) == 0 || nodeTag(n) == "" {
		return false, nil
	}
	rows, err := report(ctx, h.Tools, devices, "vgs", "vg_tags")
	if err != nil {
		return false, fail(n, err)
	}
	return slices.ContainsFunc(rows, func(g map[string]string) bool { return existing{tags: tags(g["vg_tags"])}.isOf(n) }), nil
}

// labels are the physical volumes on disks and arrays. Only their first sectors are read, and a disk that hangs is left behind: most machines have no volumes.
func labels(ctx context.Context, h steps.Host) (devices []string) {
	all, _ := raid.Disks(ctx, h) // what cannot be read has none for us
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found := make([]chan string, len(all))
	for i, d := range all {
		found[i] = make(chan string, 256) // more than a disk has partitions
		go func() {
			defer close(found[i])
			labelsOn(h.Machine.FS, d.Name, func(device string) { found[i] <- device })
		}()
	}
	next := func(on <-chan string) (device string, more, hangs bool) {
		select {
		case device, more = <-on: // it counts also when another one has used up all patience
			return device, more, false
		default:
		}
		select {
		case device, more = <-on:
			return device, more, false
		case <-ctx.Done():
			return "", false, true
		}
	}
	for i, d := range all {
		device, more, hangs := next(found[i])
		for ; more; device, more, hangs = next(found[i]) {
			devices = append(devices, device)
		}
		if hangs {
			h.Say("WARNING: %s was not looked at for volume groups: its start cannot be read within %v", d.Name, patience)
		}
	}
	return devices
}

// labelsOn tells of a disk, or partitions of it, that are physical volumes by their first sectors.
func labelsOn(root fs.FS, disk string, tell func(device string)) {
	parts, err := raid.Partitions(root, disk)
	if err != nil {
		return
	}
	devices := []string{disk}
	for _, p := range parts {
		devices = append(devices, raid.PartitionDevice(disk, p.Number))
	}
	for _, device := range devices {
		if _, has, err := label(root, device); err == nil && has {
			tell(device)
		}
	}
}

// label reads the UUID of a physical volume; has is false if the device is none.
func label(root fs.FS, device string) (uuid string, has bool, err error) {
	f, err := root.Open(strings.TrimPrefix(device, "/"))
	if err != nil {
		return "", false, err
	}
	defer f.Close() // only read
	head := make([]byte, 4096)
	if _, err := io.ReadFull(f, head); err != nil {
		return "", false, fmt.Errorf("read the start of %s: %w", device, err)
	}
	uuid, has = raid.Label(head)
	return uuid, has, nil
}

// systemNames are directories of the kernel's and udev's in /dev.
var systemNames = []string{"mapper", "disk", "block", "char", "shm", "pts", "mqueue", "hugepages"}

// deviceNames are the names in /dev of what is no directory, or one that has other things than links to volumes; a group of such a name could not be shown there.
func deviceNames(root fs.FS) (map[string]bool, error) {
	entries, err := fs.ReadDir(root, "dev")
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, n := range systemNames {
		names[n] = true
	}
	for _, e := range entries {
		if !e.IsDir() {
			names[e.Name()] = true
			continue
		}
		inside, err := fs.ReadDir(root, "dev/"+e.Name())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if slices.ContainsFunc(inside, func(i fs.DirEntry) bool { return i.Type()&fs.ModeSymlink == 0 }) {
			names[e.Name()] = true
		}
	}
	return names, nil
}

// read reads partitions, marks, labels and what else the disk holds. What is a member of an array that runs belongs to the array.
func (d *disk) read(root fs.FS, members map[string]bool) (err error) {
	if d.parts, err = raid.Partitions(root, d.Name); err != nil {
		return err
	}
	head, tail, stale, err := probe(root, d.Name, d.Size)
	if err != nil {
		return err
	}
	if d.mark = raid.ReadMark(head); d.mark.Serial != string(d.Serial) { // copied here with all of another disk
		d.mark = raid.Mark{}
	}
	d.kinds = map[int]gpt.GUID{}
	if table, err := gpt.Parse(head, int(max(d.LogicalSectors, 512))); err == nil {
		for _, p := range table.Partitions() {
			d.kinds[p.Number] = p.Type
			if p.Type == gpt.LinuxData && p.Name == drivePart {
				d.drive = p.Number
			}
		}
	}
	if members[d.Name] {
		d.holds = append(d.holds, "a member of an array")
	} else {
		if raid.HasLabel(head) && len(d.parts) == 0 { // lvm too takes no disk with partitions
			d.labels = append(d.labels, 0)
		}
		if stale && len(d.parts) == 0 {
			d.holds = append(d.holds, "a member of an array that does not run")
		}
		what, err := raid.Contents(head, tail, d.Size)
		if err != nil {
			return err
		}
		if what != "" && len(d.parts) == 0 && !raid.HalfWritten(what, d.mark, head, int(max(d.LogicalSectors, 512))) {
			d.holds = append(d.holds, what)
		}
	}
	if d.mark.Run != "" {
		if d.other, err = raid.Foreign(root, d.Name, head, int(max(d.LogicalSectors, 512)), d.parts); err != nil {
			return err
		}
	}
	for _, p := range d.parts {
		device := raid.PartitionDevice(d.Name, p.Number)
		if members[device] || p.Size <= 1024 { // an extended partition of an MBR
			continue
		}
		head, _, _, err := probe(root, device, p.Size)
		if err != nil {
			return err
		}
		if raid.HasLabel(head) {
			d.labels = append(d.labels, p.Number)
		}
	}
	return nil
}

// probe reads the first MiB of a device and the last, and tells whether it has a superblock of an array.
func probe(root fs.FS, device string, size int64) (head, tail []byte, member bool, err error) {
	file, err := root.Open(strings.TrimPrefix(device, "/"))
	if err != nil {
		return nil, nil, false, err
	}
	defer file.Close() // only read
	f, ok := file.(io.ReaderAt)
	if !ok {
		return nil, nil, false, fmt.Errorf("%s cannot be read at any place", device)
	}
	if head, tail, err = raid.ReadEnds(f, size); err != nil {
		return nil, nil, false, fmt.Errorf("%s: %w", device, err)
	}
	found, err := raid.Memberships(f, size)
	if err != nil {
		return nil, nil, false, fmt.Errorf("%s: %w", device, err)
	}
	return head, tail, len(found) > 0, nil
}

// settings are those of lvm2 that let it work without udev, without files that are kept in /etc, and on what it is told alone: lvm.conf(5). Physical volumes are
// aligned as the plan counts them.
const settings = `devices { scan="/dev" obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0 hints="none" multipath_component_detection=0 ` +
	`data_alignment_detection=0 data_alignment_offset_detection=0 } ` +
	`activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 } ` +
	`backup { backup=0 archive=0 } global { use_lvmpolld=0 use_lvmlockd=0 system_id_source="none" notify_dbus=0 event_activation=0 }`

// lvm runs a command of lvm2 that sees some devices only.
func lvm(ctx context.Context, tools tool.Runner, devices []string, command string, args ...string) ([]byte, error) {
	if tools == nil {
		return nil, errors.New("no programs can be run here")
	}
	return tools.Run(ctx, tool.Lvm, append([]string{command, "--config", settings, "--devices", strings.Join(devices, ",")}, args...)...)
}

// report runs one of the reporting commands of lvm2.
func report(ctx context.Context, tools tool.Runner, devices []string, command, fields string) ([]map[string]string, error) {
	out, err := lvm(ctx, tools, devices, command, "--reportformat", "json", "--units", "b", "--nosuffix", "--foreign", "--shared", "--options", fields)
	if err != nil {
		return nil, err
	}
	return parseReport(out)
}

// places are all physical volumes.
func (s state) places() (list []place) {
	for _, d := range s.disks {
		for _, n := range d.labels {
			list = append(list, place{d.Name, n})
		}
	}
	return list
}

// askLVM asks for the volume groups, if there is any physical volume.
func (s *state) askLVM(ctx context.Context, tools tool.Runner) error {
	places := s.places()
	if len(places) == 0 {
		return nil
	}
	var devices []string
	for _, p := range places {
		devices = append(devices, p.device())
	}
	groups, err := report(ctx, tools, devices, "vgs", "vg_uuid,vg_name,vg_missing_pv_count,vg_tags")
	if err != nil {
		return err
	}
	volumes, err := report(ctx, tools, devices, "pvs", "vg_uuid,pv_name,pv_in_use")
	if err != nil {
		return err
	}
	logical, err := report(ctx, tools, devices, "lvs", "vg_uuid,lv_name,lv_layout,lv_size,lv_tags")
	if err != nil {
		return err
	}
	return s.add(groups, volumes, logical)
}

// add takes what vgs, pvs and lvs say.
func (s *state) add(groups, physical, logical []map[string]string) error {
	index := map[string]int{}
	for _, g := range groups {
		missing, err := strconv.Atoi(g["vg_missing_pv_count"])
		if err != nil {
			return fmt.Errorf("vgs: vg_missing_pv_count: %w", err)
		}
		index[g["vg_uuid"]] = len(s.groups)
		s.groups = append(s.groups, existing{name: lvmName(g["vg_name"]), uuid: g["vg_uuid"], missing: missing, tags: tags(g["vg_tags"])})
	}
	for _, p := range s.places() {
		// Of two with the same identity lvm lists one. One without metadata of its own is listed as of no group if the others are not there, but as used.
		at := slices.IndexFunc(physical, func(v map[string]string) bool { return v["pv_name"] == p.device() })
		i, known := 0, false
		if at >= 0 {
			i, known = index[physical[at]["vg_uuid"]]
		}
		switch {
		case known:
			s.groups[i].places = append(s.groups[i].places, p)
		case at < 0 || physical[at]["pv_in_use"] != "":
			s.orphans = append(s.orphans, p)
		}
	}
	for _, v := range logical {
		i, known := index[v["vg_uuid"]]
		if !known {
			return fmt.Errorf("lvs: volume %q is of no group", v["lv_name"])
		}
		size, err := strconv.ParseInt(v["lv_size"], 10, 64)
		if err != nil {
			return fmt.Errorf("lvs: lv_size: %w", err)
		}
		s.groups[i].volumes = append(s.groups[i].volumes, existingVolume{lvmName(v["lv_name"]), v["lv_layout"], size, tags(v["lv_tags"])})
	}
	return nil
}

// tags are those in a list as lvm prints it.
func tags(list string) []string {
	return strings.FieldsFunc(list, func(c rune) bool { return c == ',' })
}

// lvmName is a name that comes from a disk, with what lvm(8) allows in names alone.
func lvmName(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 128 && (plain("a"+string(c)) || c == '+') {
			return c
		}
		return '?'
	}, s)
}

// parseReport reads what the reporting commands of lvm2 print: lvmreport(7). All values are texts.
func parseReport(out []byte) ([]map[string]string, error) {
	var r struct {
		Report []map[string][]map[string]string `json:"report"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("report of lvm: %w", err)
	}
	var rows []map[string]string
	for _, part := range r.Report {
		for _, list := range part { // of one kind: vg, pv or lv
			rows = append(rows, list...)
		}
	}
	return rows, nil
}

// without is the state as it is when disks are cleared.
func (s state) without(disks []string) state {
	rest := state{dev: s.dev}
	for _, d := range s.disks {
		if slices.Contains(disks, d.Name) {
			d = disk{Disk: d.Disk, array: d.array, broken: d.broken, below: d.below, isArray: d.isArray}
		}
		rest.disks = append(rest.disks, d)
	}
	for _, p := range s.orphans {
		if !slices.Contains(disks, p.disk) {
			rest.orphans = append(rest.orphans, p)
		}
	}
	for _, g := range s.groups {
		if !slices.ContainsFunc(disks, g.on) {
			rest.groups = append(rest.groups, g)
		}
	}
	return rest
}

// finished tells whether a mark of some work says that it is finished.
func (s state) finished(run string) bool {
	return slices.ContainsFunc(s.disks, func(d disk) bool { return d.mark.Run == run && d.mark.Made })
}

// unfinished tells whether all that is on a disk was being made or taken away when that was interrupted.
func (s state) unfinished(d disk) bool {
	if d.mark.Run == "" || len(d.parts) == 0 || d.other != "" || s.finished(d.mark.Run) {
		return false
	}
	return !slices.ContainsFunc(d.parts, func(p stream.Partition) bool { return !slices.Contains(d.mark.Partitions, p) }) // somebody else's since
}

// skipped tells whether a disk or array is on the node's skip list, by itself, through what it is on, or through an array that is on it.
func (s state) skipped(skip inspect.SkipList) (map[string]bool, error) {
	var plain []inspect.Disk
	for _, d := range s.disks {
		if !d.isArray {
			plain = append(plain, d.Disk)
		}
	}
	_, left, err := skip.Split(plain)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range left {
		names[d.Name] = true
	}
	var below []string // of arrays by their names: other arrays on these disks are not on the list
	for _, d := range s.disks {
		named := d.isArray && d.array != "" && slices.Contains(skip.Volumes, d.array)
		if named {
			below = append(below, d.below...)
		}
		if named || d.isArray && slices.ContainsFunc(d.below, func(b string) bool { return names[b] }) {
			names[d.Name] = true
		}
	}
	for _, b := range below {
		names[b] = true
	}
	return names, nil
}
