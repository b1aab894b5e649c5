// SPDX-License-Identifier: Apache-2.0

package lvm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
)

// apply does what is planned. If it fails, marks stay on the disks for the next attempt.
func (p plan) apply(ctx context.Context, h steps.Host, groups []group, skip inspect.SkipList, b bootPart) error {
	// 1. What was begun before goes.
	if err := raid.ClearDisks(ctx, h, p.redo); err != nil {
		return err
	}

	// 2. All disks are there and nobody uses them: else nothing is touched.
	var all []inspect.Disk
	for _, t := range p.tables {
		all = append(all, t.disk)
	}
	opened, closeAll, err := raid.OpenDisks(ctx, h, all)
	if err != nil {
		return err
	}
	defer closeAll() // after an error, which counts

	// 3. Marks, then partition tables.
	run := rand.Text()
	for i, t := range p.tables {
		if err := raid.WriteMark(opened[i], raid.Mark{Run: run, Serial: string(t.disk.Serial), Partitions: t.parts}); err != nil {
			return fmt.Errorf("mark %s: %w", t.disk.Name, err)
		}
	}
	for i, t := range p.tables {
		if err := t.write(ctx, opened[i]); err != nil {
			return fmt.Errorf("partition %s: %w", t.disk.Name, err)
		}
	}
	if err := closeAll(); err != nil {
		return err
	}
	for _, t := range p.tables {
		seen, err := raid.Partitions(h.Machine.FS, t.disk.Name)
		if err == nil && !slices.Equal(seen, t.parts) {
			err = fmt.Errorf("the kernel sees the partitions %v, and there are %v", seen, t.parts)
		}
		if err != nil {
			return fmt.Errorf("partition %s: %w", t.disk.Name, err)
		}
	}

	// 4. Groups, volumes, file systems.
	for _, g := range p.groups {
		if err := g.make(ctx, h, p.tag); err != nil {
			return fmt.Errorf("make volume group %s: %w", g.name, err)
		}
	}
	for _, e := range p.keep {
		i := slices.IndexFunc(groups, func(g group) bool { return g.name == e.name })
		if err := e.retag(ctx, h, p.tag, groups[i].rootName()); err != nil {
			return fmt.Errorf("tag volume group %s: %w", e.name, err)
		}
	}
	if err := p.confirm(ctx, h, groups, skip, b); err != nil {
		return err
	}

	// 5. It is done when the first mark says so; then they go.
	for _, t := range p.tables {
		if err := raid.ChangeMark(t.disk.Name, raid.Mark{Run: run, Serial: string(t.disk.Serial), Made: true, Partitions: t.parts}); err != nil {
			return err
		}
	}
	for _, d := range p.unmark {
		if err := raid.ChangeMark(d, raid.Mark{}); err != nil {
			return err
		}
	}
	for _, t := range p.tables {
		if err := raid.ChangeMark(t.disk.Name, raid.Mark{}); err != nil {
			return err
		}
	}
	return nil
}

// confirm looks whether all came out as planned: then the same layout has nothing left to make.
func (p plan) confirm(ctx context.Context, h steps.Host, groups []group, skip inspect.SkipList, b bootPart) error {
	s, err := look(ctx, h)
	if err != nil {
		return err
	}
	for i := range s.disks {
		s.disks[i].mark = raid.Mark{} // what is marked as not finished is what is looked at
	}
	left, err := planCreation(groups, s, skip, b)
	if err != nil {
		return fmt.Errorf("it came out otherwise: %w", err)
	}
	if len(left.groups) > 0 {
		return fmt.Errorf("it came out otherwise: there is still to do: %s", left)
	}
	return nil
}

// write clears the disk but for the mark, and the ends of its partitions to be, and writes the table. The sector that makes it one comes last.
func (t table) write(ctx context.Context, d steps.Disk) error {
	table, err := gpt.New(d.Size(), d.SectorSize())
	if err != nil {
		return err
	}
	sector := uint64(d.SectorSize())
	for i, p := range t.parts {
		kind, name := t.boot, "boot loader"
		switch {
		case i == len(t.parts)-1:
			kind, name = gpt.LinuxLVM, "lvm"
		case p.Number == t.drive:
			kind, name = gpt.LinuxData, drivePart
		}
		first := uint64(p.Start) / sector
		if err := table.Put(gpt.Partition{Number: p.Number, Type: kind, First: first, Last: first + uint64(p.Size)/sector - 1, Name: name}); err != nil {
			return err
		}
	}
	if err := raid.ClearFor(ctx, d, t.parts); err != nil {
		return err
	}
	tail, at := table.Backup()
	if _, err := d.WriteAt(tail, at); err != nil {
		return err
	}
	head := table.Head()
	if _, err := d.WriteAt(head[sector:], int64(sector)); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	if _, err := d.WriteAt(head[:sector], 0); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return d.RereadPartitions(ctx)
}

// make makes a group with its volumes. They are not active afterwards, whether it worked or not.
func (g newGroup) make(ctx context.Context, h steps.Host, tag string) (err error) {
	modules := []string{"dm_mod"}
	if slices.ContainsFunc(g.volumes, func(v newVolume) bool { return v.kind == "raid1" }) {
		modules = append(modules, "dm_raid", "raid1")
	}
	if err := h.LoadModules(ctx, modules...); err != nil {
		return err
	}
	if err := forget(h.Machine.FS, g.name); err != nil {
		return err
	}
	run := func(ctx context.Context, command string, args ...string) error {
		_, err := lvm(ctx, h.Tools, g.devices, command, args...)
		return err
	}
	args := []string{"--yes", "--physicalextentsize", fmt.Sprintf("%dm", extent/mib), "--dataalignment", fmt.Sprintf("%dm", metadata/mib)}
	if tag != "" {
		args = append(args, "--addtag", tag)
	}
	if err := run(ctx, "vgcreate", slices.Concat(args, []string{g.name}, g.devices)...); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // also when the step was aborted
		defer cancel()
		err = errors.Join(err, run(ctx, "vgchange", "--activate", "n", g.name))
	}()
	for _, v := range g.volumes {
		if err := run(ctx, "lvcreate", v.args(g.name)...); err != nil {
			return fmt.Errorf("make volume %s: %w", v.name, err)
		}
		if err := v.fill(ctx, h, g.name); err != nil {
			return fmt.Errorf("make volume %s: %w", v.name, err)
		}
		h.Say("made volume %s/%s, %s", g.name, v.name, v.describe())
	}
	return nil
}

// args are those of lvcreate.
func (v newVolume) args(group string) []string {
	args := []string{"--yes", "--wipesignatures", "y", "--zero", "y", "--activate", "y", "--type", v.kind, "--name", v.name, "--extents", strconv.FormatInt(v.extents, 10)}
	switch v.kind {
	case "striped":
		args = append(args, "--stripes", strconv.Itoa(v.across), "--stripesize", "64k")
	case "raid1":
		args = append(args, "--mirrors", strconv.Itoa(v.across-1))
	}
	if v.root {
		args = append(args, "--addtag", rootTag)
	}
	args = append(args, group)
	for _, a := range v.areas {
		args = append(args, fmt.Sprintf("%s:%d-%d", a.device, a.first, a.last))
	}
	return args
}

// fill clears an active volume and makes its file system.
func (v newVolume) fill(ctx context.Context, h steps.Host, group string) error {
	device, err := mapped(h.Machine.FS, mapperName(group, v.name))
	if err != nil {
		return err
	}
	if err := v.clear(ctx, h, device); err != nil {
		return err
	}
	var label []string
	if v.label != "" {
		label = []string{"-L", v.label}
	}
	// Nothing is discarded: what is behind a disk may hold on to its discards for long.
	switch v.system {
	case "ext4":
		_, err = h.Tools.Run(ctx, tool.Mke2fs, slices.Concat([]string{"-q", "-F", "-t", "ext4", "-E", "nodiscard"}, label, []string{device})...)
	case "xfs":
		_, err = h.Tools.Run(ctx, tool.MkfsXFS, slices.Concat([]string{"-q", "-f", "-K"}, label, []string{device})...)
	}
	return err
}

// clear makes both ends of the volume zero: what it shows there is of a former life. A swap area is written at once.
func (v newVolume) clear(ctx context.Context, h steps.Host, device string) (err error) {
	d, err := h.Open(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if d.Size() != v.extents*extent {
		return fmt.Errorf("%s has %d bytes, want %d", device, d.Size(), v.extents*extent)
	}
	for _, at := range []int64{0, d.Size() - mib} {
		if err := d.Zero(ctx, at, mib); err != nil {
			return err
		}
	}
	if v.system == "swap" {
		b, err := image.SwapHeader(d.Size(), v.label)
		if err != nil {
			return err
		}
		if _, err := d.WriteAt(b, 0); err != nil {
			return err
		}
	}
	return d.Sync()
}

// mapped is the device of a mapping: /dev/dm-0.
func mapped(root fs.FS, name string) (string, error) {
	entries, err := fs.ReadDir(root, "sys/block")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		b, err := fs.ReadFile(root, "sys/block/"+e.Name()+"/dm/name")
		if err == nil && strings.TrimSuffix(string(b), "\n") == name {
			return "/dev/" + e.Name(), nil
		}
	}
	return "", fmt.Errorf("the kernel has no mapping %s", name)
}

// forget takes the links and nodes of the volumes of a former group out of /dev: without udev nobody else does when mappings are removed, and vgcreate refuses a name
// that is there.
func forget(root fs.FS, group string) error {
	prefix := mapperName(group, "")
	nodes, err := os.ReadDir("/dev/mapper")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, n := range nodes {
		volume, ours := strings.CutPrefix(n.Name(), prefix)
		if !ours || strings.HasPrefix(volume, "-") { // of a group whose name begins with this one's
			continue
		}
		if device, err := mapped(root, n.Name()); err == nil {
			return fmt.Errorf("%s is still there, as %s", n.Name(), device)
		}
		if err := os.Remove(filepath.Join("/dev/mapper", n.Name())); err != nil {
			return err
		}
	}
	dir := filepath.Join("/dev", group)
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() || group == "" || group == "." || group == ".." || slices.Contains(systemNames, group) {
		return nil // a name from a disk may be any
	}
	if err != nil {
		return err
	}
	links, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	others := false
	for _, l := range links {
		target, err := os.Readlink(filepath.Join(dir, l.Name()))
		if err != nil || !strings.HasPrefix(target, "/dev/mapper/"+prefix) {
			others = true // a directory of somebody else
			continue
		}
		if err := os.Remove(filepath.Join(dir, l.Name())); err != nil {
			return err
		}
	}
	if others {
		return nil
	}
	return os.Remove(dir)
}

// apply does what is planned. Marks tell, until a disk is cleared, that it is to be.
func (r removal) apply(ctx context.Context, h steps.Host, s state) error {
	// Everything that stands in the way is found before the first disk is touched.
	if err := raid.TakeDown(ctx, h, r.disks...); err != nil {
		return err
	}
	for _, g := range r.gone {
		if err := forget(h.Machine.FS, g.name); err != nil {
			return err
		}
	}
	var all []inspect.Disk
	for _, name := range r.disks {
		all = append(all, s.disk(name).Disk)
	}
	opened, closeAll, err := raid.OpenDisks(ctx, h, all)
	if err != nil {
		return err
	}
	defer closeAll() // after an error, which counts
	for _, d := range r.unmark {
		if err := raid.ChangeMark(d, raid.Mark{}); err != nil {
			return err
		}
	}
	run := rand.Text()
	for i, d := range all {
		parts := s.disk(d.Name).parts
		if len(parts) == 0 || slices.ContainsFunc(parts, func(p stream.Partition) bool { return p.Start < mib }) {
			continue // a physical volume is gone with its label, in one piece; and the mark would lie in a partition
		}
		if err := raid.WriteMark(opened[i], raid.Mark{Run: run, Serial: string(d.Serial), Partitions: parts}); err != nil {
			return fmt.Errorf("mark %s: %w", d.Name, err)
		}
	}
	if err := closeAll(); err != nil {
		return err
	}
	return raid.ClearDisks(ctx, h, r.disks)
}
