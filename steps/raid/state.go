// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// state is what the machine has of disks and arrays.
type state struct {
	disks  []disk // whole disks, without arrays
	arrays []array
}

// disk is a whole disk and what is on it.
type disk struct {
	inspect.Disk
	parts []stream.Partition // that the kernel knows
	mbr   bool               // its table is no GPT
	raid  []int              // numbers of the partitions that are for software RAID by their type
	stale []int              // numbers of the partitions, 0 for the disk, with a superblock
	mark  mark               // of a creation that was not finished; the zero mark if there is none
	other string             // a partition that no mark speaks for; "" if there is none
	hangs bool               // nothing else is known of it
	holds string             // what it holds as a whole, without partitions: "a file system (xfs)"; "" if nothing is known
}

// array is an array that runs, or could, by its superblocks.
type array struct {
	device   string // /dev/md0; "" if it does not run
	uuid     string // 32 digits
	name     string // of the volume, without the host that made it
	version  string // of the superblocks; "external:imsm" and the like for firmware's RAID
	level    string // as in sysfs
	count    int    // of members that it is made of
	degraded bool   // some are missing
	members  []member
}

// member is a disk or partition in an array.
type member struct {
	disk   string // /dev/sda
	number int    // of the partition; 0 is the whole disk
}

// device is the member's device: /dev/sda1, /dev/nvme0n1p1.
func (m member) device() string {
	switch {
	case m.number == 0:
		return m.disk
	case strings.ContainsRune("0123456789", rune(m.disk[len(m.disk)-1])):
		return fmt.Sprintf("%sp%d", m.disk, m.number)
	}
	return fmt.Sprintf("%s%d", m.disk, m.number)
}

// title is what people know the array by.
func (a array) title() string {
	return strings.TrimSpace(cmp.Or(a.device, "array "+a.uuid) + " " + a.name)
}

// on tells whether the array has a member on a disk.
func (a array) on(disk string) bool {
	return slices.ContainsFunc(a.members, func(m member) bool { return m.disk == disk })
}

func (s state) disk(name string) *disk {
	if i := slices.IndexFunc(s.disks, func(d disk) bool { return d.Name == name }); i >= 0 {
		return &s.disks[i]
	}
	return nil
}

// look reads what there is, and changes nothing. It returns all that could be read, and one error for the rest: nothing is decided about disks that
// are not known.
func look(ctx context.Context, h steps.Host) (s state, err error) {
	all, moved, err := livingDisks(ctx, h)
	for _, line := range moved {
		h.Say("%s", line)
	}
	errs := []error{err}
	all = slices.DeleteFunc(all, func(d inspect.Disk) bool {
		if d.Type != "disk" || d.ReadOnly || d.Size == 0 {
			return true // a disk whose type cannot be read has made Disks fail
		}
		_, err := fs.Stat(h.Machine.FS, strings.TrimPrefix(d.Name, "/"))
		return errors.Is(err, fs.ErrNotExist) // it is gone since it was listed
	})
	type contents struct {
		disk
		found []foundBlock
	}
	looks, failed := Look(ctx, all, func(d inspect.Disk) (c contents, err error) {
		c.disk, c.found, err = lookAtDisk(h.Machine.FS, d)
		return c, err
	})
	for i, c := range looks {
		c.hangs = c.Name == "" // there was no answer
		c.Disk = all[i]
		s.disks = append(s.disks, c.disk)
		for _, f := range c.found {
			s.add(f.superblock, f.member)
		}
	}
	errs = append(errs, failed, s.lookAtArrays(h.Machine.FS))
	return s, errors.Join(errs...)
}

// pathTime is how long the paths to a disk may take to show whether they work. One that does not answer is not known to be dead: the disk is looked at as any. With [lookTime] it is shorter than [assembleTime].
const pathTime = 5 * time.Second

// Disks lists the machine's disks, each by a path that works if it has several. Those that do not are the last of its other paths, for it may be in use by them.
func Disks(ctx context.Context, h steps.Host) ([]inspect.Disk, error) {
	disks, _, err := livingDisks(ctx, h)
	return disks, err
}

// livingDisks is [Disks] with a line for each disk that is listed by another path therefore.
func livingDisks(ctx context.Context, h steps.Host) (disks []inspect.Disk, moved []string, err error) {
	disks, err = h.Machine.Disks(ctx)
	lines := make([]string, len(disks))
	silent := fmt.Errorf("no answer within %v", pathTime)
	var all sync.WaitGroup
	for i, d := range disks {
		all.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, pathTime, silent)
			defer cancel()
			living, dead := steps.LivingPath(d, func(path string) error {
				_, err := steps.Within(ctx, pathTime, silent, func(context.Context) (struct{}, error) { return struct{}{}, readStart(h.Machine.FS, path) })
				return err
			})
			for _, p := range dead {
				living.Paths = append(living.Paths, p.Disk)
				if p.Name == d.Name {
					lines[i] = fmt.Sprintf("%s does not work (%s): %s is another path to this disk, and is used", p.Name, p.Why, living.Name)
				}
			}
			disks[i] = living
		})
	}
	all.Wait()
	return disks, slices.DeleteFunc(lines, func(l string) bool { return l == "" }), err
}

// readStart reads the first sectors of a device.
func readStart(root fs.FS, path string) (err error) {
	f, err := openToRead(root, path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	_, err = f.ReadAt(make([]byte, 4096), 0)
	return err
}

// lookTime is how long one disk may take, which sleeps at first, perhaps. It is shorter than [assembleTime]: what hangs does not keep the arrays on other disks from being started.
const lookTime = 20 * time.Second

// looksAtOnce bounds how many disks are looked at beside each other: of each, some MiB are in memory.
const looksAtOnce = 8

// Look looks at disks, each with a time limit, and returns what was found on each, or the zero value, and one error for all that failed. What hangs goes on alone until the disk lets it go: at must
// not write to what others read.
func Look[T any](ctx context.Context, disks []inspect.Disk, at func(inspect.Disk) (T, error)) ([]T, error) {
	results, errs := make([]T, len(disks)), make([]error, len(disks))
	silent := fmt.Errorf("no answer within %v", lookTime)
	room := make(chan struct{}, looksAtOnce)
	var all sync.WaitGroup
	for i, d := range disks {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			var err error
			if results[i], err = steps.Within(ctx, lookTime, silent, func(context.Context) (T, error) { return at(d) }); err != nil {
				errs[i] = fmt.Errorf("look at %s: %w", d.Name, err)
			}
		})
	}
	all.Wait()
	return results, join(slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
}

type foundBlock struct {
	superblock
	member
}

// lookAtDisk reads a disk's partitions, its first MiB, and all superblocks.
func lookAtDisk(root fs.FS, i inspect.Disk) (d disk, found []foundBlock, err error) {
	d = disk{Disk: i}
	if d.parts, err = partitions(root, sysName(i.Name)); err != nil {
		return d, nil, err
	}
	f, err := openToRead(root, i.Name)
	if err != nil {
		return d, nil, err
	}
	defer f.Close() // only read
	head, tail, err := ReadEnds(f, i.Size)
	if err != nil {
		return d, nil, err
	}
	blocks, err := readSuperblocks(f, i.Size)
	if err != nil {
		return d, nil, err
	}
	// A mark that was copied here with all of another disk says nothing of this one.
	if d.mark = readMark(head); d.mark.Serial != string(i.Serial) {
		d.mark = mark{}
	}
	if len(d.parts) == 0 {
		if d.holds, err = holding(head, tail, i.Size); err != nil {
			return d, nil, err
		}
		if HalfWritten(d.holds, d.mark, head, int(max(i.LogicalSectors, 512))) {
			d.holds = ""
		}
	} else if d.mark.Run != "" {
		if d.other, err = Foreign(root, i.Name, head, int(max(i.LogicalSectors, 512)), d.parts); err != nil {
			return d, nil, err
		}
	}
	d.raid = raidPartitions(head, int(i.LogicalSectors))
	if mbr, err := gpt.ParseMBR(head); err == nil {
		d.mbr = len(mbr.Partitions()) > 0 && !mbr.Guards()
	}
	note := func(number int, blocks []superblock) {
		for n, b := range blocks {
			if n == 0 {
				d.stale = append(d.stale, number)
			}
			found = append(found, foundBlock{b, member{i.Name, number}})
		}
	}
	for _, p := range d.parts {
		_, inside, err := probe(root, member{i.Name, p.Number}.device(), p.Size, 0)
		if err != nil {
			return d, nil, err
		}
		// The last partition may end where the disk ends, and a superblock at the end is then found on both: it is the partition's.
		blocks = slices.DeleteFunc(blocks, func(b superblock) bool {
			return slices.ContainsFunc(inside, func(o superblock) bool { return o.uuid == b.uuid })
		})
		note(p.Number, inside)
	}
	note(0, blocks)
	return d, found, nil
}

// readable is a device, open for reading.
type readable interface {
	io.ReadCloser
	io.ReaderAt
}

func openToRead(root fs.FS, path string) (readable, error) {
	file, err := root.Open(strings.TrimPrefix(path, "/"))
	if err != nil {
		return nil, err
	}
	f, ok := file.(readable)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s cannot be read at any place", path), file.Close())
	}
	return f, nil
}

// holding says what a disk without partitions holds that somebody may count on; "" if nothing is known.
func holding(head, tail []byte, size int64) (string, error) {
	if HasLabel(head) {
		return "a physical volume (LVM)", nil
	}
	return Contents(head, tail, size)
}

// probe reads the first bytes of a device, and its superblocks.
func probe(root fs.FS, path string, size, first int64) (head []byte, blocks []superblock, err error) {
	f, err := openToRead(root, path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // only read
	head = make([]byte, min(first, size))
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if blocks, err = readSuperblocks(f, size); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return head, blocks, nil
}

// add counts a superblock to its array.
func (s *state) add(b superblock, m member) {
	i := slices.IndexFunc(s.arrays, func(a array) bool { return a.uuid == b.uuid })
	if i < 0 {
		i = len(s.arrays)
		s.arrays = append(s.arrays, array{uuid: b.uuid, name: b.volumeName(), version: b.version, level: b.level, count: b.disks})
	}
	if !slices.Contains(s.arrays[i].members, m) {
		s.arrays[i].members = append(s.arrays[i].members, m)
	}
}

// lookAtArrays reads the arrays that run. Source: Linux Documentation/admin-guide/md.rst.
func (s *state) lookAtArrays(root fs.FS) error {
	names, err := fs.ReadDir(root, "sys/block")
	if err != nil {
		return err
	}
	for _, entry := range names {
		dir := "sys/block/" + entry.Name()
		read := func(file string) string {
			b, err := fs.ReadFile(root, dir+"/md/"+file)
			if err != nil {
				return "" // of arrays that do not run, and of some levels, most are missing
			}
			return strings.TrimSpace(string(b))
		}
		state := read("array_state")
		if state == "" || state == "clear" {
			continue
		}
		a := array{device: "/dev/" + entry.Name(), uuid: strings.ReplaceAll(read("uuid"), "-", ""), version: read("metadata_version"), level: read("level")}
		if a.count, err = strconv.Atoi(cmp.Or(read("raid_disks"), "0")); err != nil {
			return fmt.Errorf("%s: raid_disks: %w", a.device, err)
		}
		slaves, err := fs.ReadDir(root, dir+"/slaves")
		if err != nil {
			return err
		}
		for _, slave := range slaves {
			a.members = append(a.members, s.member(slave.Name()))
		}
		degraded := read("degraded")
		a.degraded = degraded != "" && degraded != "0" || state == "inactive" || len(a.members) < a.count
		// Its superblocks have the name.
		i := slices.IndexFunc(s.arrays, func(o array) bool {
			return o.device == "" && (a.uuid != "" && o.uuid == a.uuid || slices.ContainsFunc(o.members, func(m member) bool { return slices.Contains(a.members, m) && o.version == a.version }))
		})
		if i < 0 {
			s.arrays = append(s.arrays, a)
			continue
		}
		a.uuid, a.name = s.arrays[i].uuid, s.arrays[i].name
		for _, m := range s.arrays[i].members { // one that dropped out still has its superblock
			if !slices.Contains(a.members, m) {
				a.members = append(a.members, m)
			}
		}
		s.arrays[i] = a
	}
	slices.SortStableFunc(s.arrays, func(a, b array) int { return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.name, b.name)) })
	for i := range s.arrays {
		slices.SortStableFunc(s.arrays[i].members, func(a, b member) int { return cmp.Compare(a.device(), b.device()) })
	}
	return nil
}

// member is the block device of a kernel's name as a part of a disk.
func (s *state) member(name string) member {
	for _, d := range s.disks {
		for _, path := range d.Names() {
			if path == deviceName(name) {
				return member{d.Name, 0}
			}
			for _, p := range d.parts {
				if (member{path, p.Number}).device() == deviceName(name) {
					return member{d.Name, p.Number}
				}
			}
		}
	}
	return member{deviceName(name), 0} // a whole disk, or a part of one that is not looked at: a disk that is read-only, a loop device, ...
}

// sysName is the name in sysfs of a device, deviceName the way back: cciss!c0d0.
func sysName(device string) string {
	return strings.ReplaceAll(strings.TrimPrefix(device, "/dev/"), "/", "!")
}
func deviceName(sys string) string { return "/dev/" + strings.ReplaceAll(sys, "!", "/") }

// partitions reads those of a disk from sysfs, in sectors of 512 bytes always (Documentation/ABI/stable/sysfs-block).
func partitions(root fs.FS, name string) ([]stream.Partition, error) {
	dir := "sys/block/" + name
	entries, err := fs.ReadDir(root, dir)
	if err != nil {
		return nil, err
	}
	var found []stream.Partition
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), name) {
			continue
		}
		var values [3]int64
		for i, file := range []string{"partition", "start", "size"} {
			b, err := fs.ReadFile(root, dir+"/"+e.Name()+"/"+file)
			if err == nil {
				values[i], err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 54)
			}
			if err != nil {
				return nil, fmt.Errorf("%s of %s: %w", file, e.Name(), err)
			}
		}
		found = append(found, stream.Partition{Number: int(values[0]), Start: values[1] * 512, Size: values[2] * 512})
	}
	slices.SortFunc(found, func(a, b stream.Partition) int { return cmp.Compare(a.Start, b.Start) })
	return found, nil
}

// raidPartitions are the numbers of the partitions of the types that this package gives them. A table that is none has none.
func raidPartitions(head []byte, sector int) []int {
	return partitionsOf(head, sector, func(p gpt.Partition) bool { return p.Type == gpt.LinuxRAID })
}

// partitionsOf are the numbers of partitions of some types of a GPT, and of those for arrays of an MBR.
func partitionsOf(head []byte, sector int, is func(gpt.Partition) bool) (numbers []int) {
	mbr, err := gpt.ParseMBR(head)
	if err != nil {
		return nil
	}
	if !mbr.Guards() {
		for _, p := range mbr.Partitions() {
			if p.Type == mbrRAID {
				numbers = append(numbers, p.Number)
			}
		}
		return numbers
	}
	table, err := gpt.Parse(head, sector)
	if err != nil {
		return nil
	}
	for _, p := range table.Partitions() {
		if is(p) {
			numbers = append(numbers, p.Number)
		}
	}
	return numbers
}

// mbrRAID is the type of a partition for software RAID in an MBR.
const mbrRAID = 0xfd

// A mark lies on each disk of a creation from before its first change until all arrays are made: in the 4 KiB before the first partition can
// begin. A machine that loses its power in between finds it, and knows what is not finished.
type mark struct {
	Run        string             `json:"run"`    // tells the creation from others
	Serial     string             `json:"serial"` // of the disk
	Made       bool               `json:"made"`   // all arrays are: only marks are left to be taken away
	Partitions []stream.Partition `json:"parts"`  // that the creation makes on this disk
}

const (
	markAt    = mib - markSize // bytes
	markSize  = 4096
	markMagic = "ironhand software RAID, not finished: "
)

func (m mark) bytes() ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	b := make([]byte, markSize)
	if copy(b[copy(b, markMagic):], text) < len(text) {
		return nil, errors.New("too many partitions")
	}
	return b, nil
}

// readMark finds the mark in the first MiB of a disk.
func readMark(head []byte) (m mark) {
	if len(head) < mib {
		return mark{}
	}
	return parseMark(head[markAt:mib])
}

func parseMark(b []byte) (m mark) {
	text, found := strings.CutPrefix(string(b), markMagic)
	text, _, _ = strings.Cut(text, "\x00")
	if !found || json.Unmarshal([]byte(text), &m) != nil {
		return mark{}
	}
	return m
}
