// SPDX-License-Identifier: Apache-2.0

// Package holders finds what is built on disks and what uses them (partitions, software RAID, LVM and other mappings, loop devices,
// mounts, swap, open files), shows it as a tree, and takes it down in the right order.
//
// It reads /proc and /sys only. Taking down writes nothing to the disks, stops at the first thing that does not give way, and begins only if nothing is in its way that
// it must not touch: a process that has a device or a file on it open, the root of the running system, a device that is also on a disk that
// was not named, and devices of kinds that it does not know.
package holders

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A Tree is what is built on some disks, as it was when [Of] looked.
type Tree struct {
	Disks []*Device
	fsys  fs.FS
}

// A Device is a block device, and what is on it.
type Device struct {
	Name    string // the kernel's, as in /sys: "sda1", "md0", "dm-3"
	Number  string // "8:1"
	Kind    string // "disk", "path" (the disk below, reached by another way), "partition", "loop", "mapping", "md", or another one's name, which cannot be taken down
	What    string // for people: "raid1", `LVM-... "vg-root"`; may be empty
	Start   int64  // of a partition, bytes
	Size    int64  // bytes
	Swap    bool
	Mounts  []Mount
	Files   []File    // swapped to, or shown as loop devices, on the file systems mounted from it
	Open    []string  // the processes that have it or a file on it open: "fio (812)"
	Slaves  []string  // what it is made of
	Above   []*Device // partitions and other devices that are made of it
	aliases []string  // paths under which the device may be known
	btrfs   []string  // of one file system with this device
}

// A Mount is one place where a file system is mounted.
type Mount struct {
	Point string
	id    string
}

// A File lies on a mounted file system, and the kernel uses it as a device.
type File struct {
	Path string
	Loop *Device // that shows it; nil for swap
}

// Path is the device's name in /dev.
func (d *Device) Path() string { return "/dev/" + strings.ReplaceAll(d.Name, "!", "/") }

// String names the device for people: /dev/md0 (raid1).
func (d *Device) String() string {
	if d.What == "" {
		return d.Path()
	}
	return d.Path() + " (" + d.What + ")"
}

// Partitions are those of the disk that the kernel knows, in their order.
func (d *Device) Partitions() []*Device {
	var list []*Device
	for _, a := range d.Above {
		if a.Kind == "partition" {
			list = append(list, a)
		}
	}
	return list
}

// maxFile bounds what is read of one file of the kernel, bytes.
const maxFile = 8 << 20

// maxDepth bounds how high devices may be stacked. The kernel's own limit is lower.
const maxDepth = 32

// Of reads what is on some disks, which are named as in /dev: "/dev/sda". fsys is "/" of the machine. Whatever cannot be read is an error: what is not
// seen would not be taken down.
func Of(ctx context.Context, fsys fs.FS, disks ...string) (Tree, error) {
	var alone [][]string
	for _, d := range disks {
		alone = append(alone, []string{d})
	}
	return OfPaths(ctx, fsys, alone...)
}

// OfPaths is [Of] for disks that may be reached by several ways: each is a list of its names. What is built on one of its paths is built on the disk.
func OfPaths(ctx context.Context, fsys fs.FS, disks ...[]string) (Tree, error) {
	t, err := of(ctx, fsys, disks)
	if err != nil {
		return Tree{}, fmt.Errorf("find what uses %s: %w", strings.Join(slices.Concat(disks...), ", "), err)
	}
	return t, nil
}

func of(ctx context.Context, fsys fs.FS, disks [][]string) (Tree, error) {
	r := reader{ctx: ctx, fsys: fsys, devices: map[string]*Device{}, open: map[string]bool{}}
	mountinfo, err := r.file("proc/self/mountinfo")
	if err != nil {
		return Tree{}, err
	}
	r.mounts = parseMounts(mountinfo)
	if r.swaps, err = r.readSwaps(); err != nil {
		return Tree{}, err
	}
	if r.blocks, err = r.names("sys/block"); err != nil {
		return Tree{}, err
	}
	if err := r.readBtrfs(); err != nil {
		return Tree{}, err
	}
	if r.opened, err = r.readOpened(); err != nil {
		return Tree{}, err
	}
	t := Tree{fsys: fsys}
	for _, paths := range disks {
		for i, name := range paths {
			name, ok := strings.CutPrefix(path.Clean(name), "/dev/")
			if !ok {
				return Tree{}, fmt.Errorf("%q is not in /dev", name)
			}
			d, err := r.device(strings.ReplaceAll(name, "/", "!"), 0)
			if err != nil {
				return Tree{}, err
			}
			if i == 0 {
				t.Disks = append(t.Disks, d)
				continue
			}
			d.Kind, d.What = "path", "the same disk"
			first := t.Disks[len(t.Disks)-1]
			if !slices.Contains(first.Above, d) {
				first.Above = append(first.Above, d)
			}
		}
	}
	return t, nil
}

// reader reads the kernel's files once for all disks.
type reader struct {
	ctx     context.Context
	fsys    fs.FS
	mounts  []mountLine
	swaps   []string
	blocks  []string
	btrfs   map[string][]string // kernel's name of a device -> those of its file system
	opened  map[string][]string // path -> processes
	devices map[string]*Device  // already read: a device may be on several disks
	open    map[string]bool     // being read, from the disk up
}

// device reads a whole block device and what is above it.
func (r *reader) device(name string, depth int) (*Device, error) {
	if r.open[name] {
		return nil, fmt.Errorf("%s is made of itself", name)
	}
	if d := r.devices[name]; d != nil {
		return d, nil
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("devices are stacked more than %d high", maxDepth)
	}
	if !fs.ValidPath(name) || strings.Contains(name, "/") {
		return nil, fmt.Errorf("%q is no device", name)
	}
	dir := path.Join("sys/block", name)
	if _, err := fs.Stat(r.fsys, dir); err != nil {
		return nil, err
	}
	d := &Device{Name: name}
	if err := r.describe(d, dir); err != nil {
		return nil, err
	}
	r.devices[name] = d
	r.open[name] = true
	defer delete(r.open, name)
	entries, err := r.names(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		number, err := r.text(path.Join(dir, e, "partition"))
		if err != nil {
			return nil, err
		}
		if number == "" {
			continue
		}
		p := &Device{Name: e, Kind: "partition"}
		if err := r.fill(p, path.Join(dir, e), depth); err != nil {
			return nil, err
		}
		r.devices[e] = p
		d.Above = append(d.Above, p)
	}
	slices.SortStableFunc(d.Above, func(a, b *Device) int { return cmp.Compare(a.Start, b.Start) })
	if err := r.fill(d, dir, depth); err != nil {
		return nil, err
	}
	return d, nil
}

// describe says what a whole device is.
func (r *reader) describe(d *Device, dir string) (err error) {
	value := func(name string) (text string) {
		if err == nil {
			text, err = r.text(path.Join(dir, name))
		}
		return text
	}
	switch d.Kind = "disk"; {
	case strings.HasPrefix(d.Name, "dm-"):
		d.Kind = "mapping"
		label, uuid := value("dm/name"), value("dm/uuid")
		kind, _, _ := strings.Cut(uuid, "-")
		d.What = strings.TrimSpace(kind + " " + strconv.QuoteToGraphic(label))
		d.aliases = append(d.aliases, "/dev/mapper/"+label)
	case strings.HasPrefix(d.Name, "md"):
		d.Kind, d.What = "md", cmp.Or(value("md/level"), "md")
	case strings.HasPrefix(d.Name, "loop"):
		d.Kind, d.What = "loop", value("loop/backing_file")
	}
	return err
}

// fill reads what disks and partitions have in common.
func (r *reader) fill(d *Device, dir string, depth int) error {
	var err error
	if d.Number, err = r.text(path.Join(dir, "dev")); err != nil {
		return err
	}
	for _, n := range []struct {
		name string
		to   *int64
	}{{"start", &d.Start}, {"size", &d.Size}} { // in sectors of 512 bytes, always
		text, err := r.text(path.Join(dir, n.name))
		if err != nil {
			return err
		}
		if text == "" {
			continue // a disk has no start
		}
		sectors, err := strconv.ParseInt(text, 10, 54)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", n.name, d.Name, err)
		}
		*n.to = sectors * 512
	}
	d.aliases = append(d.aliases, d.Path())
	d.btrfs = r.btrfs[d.Name]
	if d.Slaves, err = r.names(path.Join(dir, "slaves")); err != nil {
		return err
	}
	holders, err := r.names(path.Join(dir, "holders"))
	if err != nil {
		return err
	}
	if d.Kind == "md" { // the arrays within a container do not count as its holders
		for _, name := range r.blocks {
			version, err := r.text(path.Join("sys/block", name, "md/metadata_version"))
			if err != nil {
				return err
			}
			if in, ok := strings.CutPrefix(version, "external:"); ok && strings.HasPrefix(strings.TrimLeft(in, "/-"), d.Name+"/") {
				holders = append(holders, name)
			}
		}
	}
	for _, h := range holders {
		above, err := r.device(h, depth+1)
		if err != nil {
			return err
		}
		if above.Kind == "disk" {
			above.Kind = "unknown"
		}
		d.Above = append(d.Above, above)
	}
	for _, s := range r.swaps {
		d.Swap = d.Swap || slices.Contains(d.aliases, s)
	}
	loops, err := r.loops()
	if err != nil {
		return err
	}
	for name, file := range loops { // of the device itself
		if slices.Contains(d.aliases, file) {
			loop, err := r.device(name, depth+1)
			if err != nil {
				return err
			}
			d.Above = append(d.Above, loop)
		}
	}
	for _, m := range r.mountsOf(d) {
		d.Mounts = append(d.Mounts, Mount{m.point, m.id})
		if !m.own(d) {
			continue
		}
		for _, s := range r.swaps {
			if !strings.HasPrefix(s, "/dev/") && r.mountOf(s) == m.id {
				d.Files = append(d.Files, File{Path: s})
			}
		}
		for name, file := range loops {
			if !strings.HasPrefix(file, "/dev/") && r.mountOf(file) == m.id {
				loop, err := r.device(name, depth+1)
				if err != nil {
					return err
				}
				d.Files = append(d.Files, File{file, loop})
			}
		}
	}
	slices.SortFunc(d.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	d.Open = r.processes(d)
	return nil
}

// processes are those that have the device, or a file on a file system mounted from it, open.
func (r *reader) processes(d *Device) []string {
	who := map[string]bool{}
	for file, processes := range r.opened {
		if !slices.Contains(d.aliases, file) {
			if len(d.Mounts) == 0 {
				continue
			}
			on := r.mountOf(file)
			if !slices.ContainsFunc(d.Mounts, func(m Mount) bool { return m.id == on }) {
				continue
			}
		}
		for _, p := range processes {
			who[p] = true
		}
	}
	return slices.Sorted(maps.Keys(who))
}

// loops are the loop devices in use and the files that they show.
func (r *reader) loops() (map[string]string, error) {
	loops := map[string]string{}
	for _, name := range r.blocks {
		if !strings.HasPrefix(name, "loop") {
			continue
		}
		file, err := r.text(path.Join("sys/block", name, "loop/backing_file"))
		if err != nil {
			return nil, err
		}
		if file != "" {
			loops[name] = strings.TrimSuffix(file, " (deleted)")
		}
	}
	return loops, nil
}

// readSwaps reads the first column of /proc/swaps.
func (r *reader) readSwaps() (swaps []string, err error) {
	b, err := r.file("proc/swaps")
	if errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return nil, nil
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "/") {
			swaps = append(swaps, unescape(strings.Fields(line)[0]))
		}
	}
	return swaps, err
}

// readBtrfs reads which devices are in one file system: it is mounted under the name of one of them.
func (r *reader) readBtrfs() error {
	r.btrfs = map[string][]string{}
	systems, err := r.names("sys/fs/btrfs")
	if err != nil {
		return err
	}
	for _, s := range systems {
		members, err := r.names(path.Join("sys/fs/btrfs", s, "devices"))
		if errors.Is(err, errNotDir) {
			continue // features
		}
		if err != nil {
			return err
		}
		for _, m := range members {
			r.btrfs[m] = members
		}
	}
	return nil
}

// readOpened reads which process has what open, or in use as its directory, root or program. Our own process is left out, kernel threads have nothing, and
// those that a container hides from us are not seen: what they have mounted still keeps the disk from being opened.
func (r *reader) readOpened() (map[string][]string, error) {
	stat, err := r.text("proc/self/stat")
	if err != nil {
		return nil, err
	}
	self, _, _ := strings.Cut(stat, " ")
	entries, err := r.names("proc")
	if err != nil {
		return nil, err
	}
	opened := map[string][]string{}
	for _, pid := range entries {
		if _, err := strconv.ParseUint(pid, 10, 32); err != nil || pid == self {
			continue
		}
		dir := path.Join("proc", pid)
		fds, err := r.names(path.Join(dir, "fd"))
		if err != nil && !hidden(err) {
			return nil, err
		}
		who := ""
		links := []string{"cwd", "root", "exe"}
		for _, fd := range fds {
			links = append(links, "fd/"+fd)
		}
		for _, l := range links {
			target, err := fs.ReadLink(r.fsys, path.Join(dir, l))
			if err != nil && !hidden(err) {
				return nil, err
			}
			target = strings.TrimSuffix(target, " (deleted)")
			if err != nil || !strings.HasPrefix(target, "/") {
				continue // a pipe or the like
			}
			if who == "" {
				name, err := r.text(path.Join(dir, "comm"))
				if err != nil && !gone(err) {
					return nil, err
				}
				who = fmt.Sprintf("%s (%s)", strings.ToValidUTF8(cmp.Or(name, "process"), "_"), pid)
			}
			if list := opened[target]; len(list) == 0 || list[len(list)-1] != who {
				opened[target] = append(list, who)
			}
		}
	}
	return opened, nil
}

// gone knows the errors for processes and files that ended while we looked.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// hidden knows those, and that for processes that we may not look at.
func hidden(err error) bool { return gone(err) || errors.Is(err, fs.ErrPermission) }

const errNotDir = syscall.ENOTDIR

// names lists a directory; one that is not there is empty.
func (r *reader) names(dir string) ([]string, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, context.Cause(r.ctx)
	}
	entries, err := fs.ReadDir(r.fsys, dir)
	if err != nil && !gone(err) {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// text reads a file of one value; one that is not there, or below what is no directory, is empty.
func (r *reader) text(name string) (string, error) {
	b, err := r.file(name)
	if err != nil && (gone(err) || errors.Is(err, errNotDir)) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

func (r *reader) file(name string) ([]byte, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, context.Cause(r.ctx)
	}
	b, err := fs.ReadFile(r.fsys, name)
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, maxFile)
	}
	return b, err
}
