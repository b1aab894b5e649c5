// SPDX-License-Identifier: Apache-2.0

package lvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
)

// Whose a group is, and which volume the operating system goes onto, is in the group itself too: the layout may have been an argument, which nobody remembers. See lvm(8), "Tags".
const (
	rootTag   = "ironhand-root"
	drivePart = "config-2" // name of the partition for a config drive
)

// nodeTag says that a group is the node's; "" if the node has no name that a tag can have.
func nodeTag(n steps.Node) string {
	if n.UUID == "" || len(n.UUID) > maxName || !plain(n.UUID) {
		return ""
	}
	return nodeTags + n.UUID
}

// nodeTags is what all those tags begin with.
const nodeTags = "ironhand-node-"

// isOf tells whether a creation made the group for the node.
func (e existing) isOf(n steps.Node) bool {
	tag := nodeTag(n)
	return tag != "" && slices.Contains(e.tags, tag)
}

// rootName is the name of the root volume; "" without one.
func (g group) rootName() string {
	for _, v := range g.volumes {
		if v.root {
			return v.name
		}
	}
	return ""
}

// retag gives a group that is as it should be the tags that it lacks, and takes away those that say otherwise: of another node, or that another volume is the root.
func (e existing) retag(ctx context.Context, h steps.Host, tag, root string) error {
	change := func(command, option, tag, name string) error {
		_, err := lvm(ctx, h.Tools, e.devices(), command, option, tag, name)
		return err
	}
	if tag != "" && !slices.Contains(e.tags, tag) {
		if err := change("vgchange", "--addtag", tag, e.name); err != nil {
			return err
		}
	}
	for _, t := range e.tags {
		if tag == "" || t == tag || !strings.HasPrefix(t, nodeTags) {
			continue
		}
		if err := change("vgchange", "--deltag", t, e.name); err != nil {
			return err
		}
	}
	for _, v := range e.volumes {
		option := "--addtag"
		switch has := slices.Contains(v.tags, rootTag); {
		case has == (v.name == root):
			continue
		case has:
			option = "--deltag"
		}
		if err := change("lvchange", option, rootTag, e.name+"/"+v.name); err != nil {
			return err
		}
	}
	return nil
}

// devices are those of the physical volumes.
func (e existing) devices() (list []string) {
	for _, p := range e.places {
		list = append(list, p.device())
	}
	return list
}

// layoutOf reads what the node's property says, as far as it matters here; nothing if there is none.
func layoutOf(n steps.Node) (groups []layoutGroup, err error) {
	if layout := n.Properties["logical_volumes"]; !absent(layout) {
		if err := json.Unmarshal(layout, &groups); err != nil {
			return nil, fmt.Errorf("logical_volumes in properties: %w", err)
		}
	}
	return groups, nil
}

// A Root is the logical volume that a node's operating system goes onto.
type Root struct {
	image.LogicalVolume
	Disks  []inspect.Disk // that its group is on: disks, or one array
	Array  bool
	Mirror bool // it does without one of several disks

	size    int64 // bytes
	devices []string
	boot    []stream.Partition // what firmware starts from on each disk; of size 0 on an array
	kinds   []gpt.GUID         // of these
	drives  []stream.Partition // for a config drive, the same on each disk; of size 0 if there is none
	marked  bool               // the first disk says that it is not whole
}

// FindRoot finds the root volume: by the node's property logical_volumes, or else by what create_volumes left in the groups that it made for the node. It is nil if there is none, and an error if the
// property has one and the machine has not.
func FindRoot(ctx context.Context, h steps.Host, n steps.Node) (*Root, error) {
	layout, err := layoutOf(n)
	if err != nil {
		return nil, fail(n, err)
	}
	var wanted image.LogicalVolume
	for _, g := range layout {
		for _, v := range g.Volumes {
			if v.Root {
				wanted = image.LogicalVolume{Group: g.Name, Name: v.Name}
			}
		}
	}
	if wanted.Name == "" {
		if has, err := hasOwn(ctx, h, n); !has || err != nil {
			return nil, err
		}
	}
	for attempt := 1; ; attempt++ {
		s, err := look(ctx, h)
		if err != nil {
			return nil, fail(n, err)
		}
		r, err := s.root(wanted, n)
		if !errors.Is(err, errNoVolume) || attempt >= h.DiskAttempts { // its disks may appear late
			if err == nil && r != nil {
				if err = s.agrees(r, n); err == nil {
					err = s.single(h.Machine.FS, r)
				}
			}
			if err != nil {
				return nil, fail(n, err)
			}
			return r, nil
		}
		select {
		case <-time.After(h.DiskDelay):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// agrees tells whether nothing else says that the volume is not for the node's operating system: that it is another node's, or to be left alone, or that the node's raid_config has another root volume.
func (s state) agrees(r *Root, n steps.Node) error {
	var same []existing
	for _, e := range s.groups {
		if e.name == r.Group {
			same = append(same, e)
		}
	}
	if len(same) > 1 { // and the system could not tell them apart
		return fmt.Errorf("the node's root volume is %s, and there are %d groups of this name: delete_volumes takes groups away", r, len(same))
	}
	for _, e := range same {
		i := slices.IndexFunc(e.tags, func(t string) bool { return strings.HasPrefix(t, nodeTags) })
		if i >= 0 && nodeTag(n) != "" && !e.isOf(n) {
			return fmt.Errorf("the node's root volume is %s, and the group was made for node %s: create_volumes makes it this node's, delete_volumes takes it away", r, strings.TrimPrefix(e.tags[i], nodeTags))
		}
	}
	skip, err := inspect.ParseSkipList(n.Properties["skip_block_devices"])
	if err != nil {
		return fmt.Errorf("skip_block_devices in properties: %w", err)
	}
	skipped, err := s.skipped(skip)
	if err != nil {
		return err
	}
	for _, d := range r.Disks {
		if skipped[d.Name] {
			return fmt.Errorf("the node's root volume is %s, and %s, which it is on, is on the skip list", r, d.Name)
		}
	}
	arrays, err := n.Volumes()
	if err != nil {
		return err
	}
	for _, a := range arrays {
		if a.IsRoot() && (!r.Array || s.disk(r.Disks[0].Name).array != a.Array()) {
			return fmt.Errorf("the node has two root volumes, the array %q by its raid_config and the logical volume %s, which is not on it", a.Array(), r)
		}
	}
	return nil
}

// single tells whether the group's physical volumes are there once. Of copies lvm takes one, and nobody knows which; a system would not start.
func (s state) single(root fs.FS, r *Root) error {
	from := map[string]string{}
	for _, device := range r.devices {
		uuid, _, err := label(root, device)
		if err != nil {
			return err
		}
		from[uuid] = device
	}
	for _, o := range s.orphans {
		uuid, has, err := label(root, o.device())
		if err != nil {
			return err
		}
		if device := from[uuid]; has && device != "" {
			return fmt.Errorf("the node's root volume is %s, and %s is a copy of its %s, or another path to it: take one away", r, o.device(), device)
		}
	}
	return nil
}

var errNoVolume = errors.New("there is none of this name: create_volumes makes it")

// root finds the wanted volume, or if none is wanted that of the node.
func (s state) root(wanted image.LogicalVolume, n steps.Node) (*Root, error) {
	var found []*Root
	for _, e := range s.groups {
		for _, v := range e.volumes {
			if wanted.Name != "" && (e.name != wanted.Group || v.name != wanted.Name) || wanted.Name == "" && (!e.isOf(n) || !slices.Contains(v.tags, rootTag)) {
				continue
			}
			r, err := s.rootOn(e, v)
			if err != nil {
				return nil, fmt.Errorf("the node's root volume is %s/%s: %w", e.name, v.name, err)
			}
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("there are %d root volumes, %s and %s: delete_volumes takes groups away", len(found), found[0], found[1])
	case wanted.Name != "":
		return nil, fmt.Errorf("the node's root volume is %s: %w", wanted, errNoVolume)
	}
	return nil, nil
}

// rootOn looks whether a system can be put onto a volume.
func (s state) rootOn(e existing, v existingVolume) (*Root, error) {
	if !plain(e.name) || !plain(v.name) { // as no creation names them
		return nil, errors.New("that is no name for a volume")
	}
	if e.missing > 0 {
		return nil, fmt.Errorf("the group lacks %d of its physical volumes", e.missing)
	}
	r := &Root{LogicalVolume: image.LogicalVolume{Group: e.name, Name: v.name}, Mirror: v.layout == layouts["raid1"], size: v.size, devices: e.devices()}
	for _, p := range e.places {
		d := s.disk(p.disk)
		switch {
		case d == nil || p.number == 0:
			return nil, fmt.Errorf("%s is no partition as create_volumes makes it", p.device())
		case d.mark.Run != "":
			return nil, fmt.Errorf("%s is marked as not finished: run create_volumes again", d.Name)
		case d.isArray && len(e.places) > 1:
			return nil, errors.New("the group is on more than the array " + d.Name)
		}
		r.Array = d.isArray
		if slices.ContainsFunc(r.Disks, func(o inspect.Disk) bool { return o.Name == d.Name }) {
			return nil, fmt.Errorf("%s has two physical volumes of the group", d.Name)
		}
		boot, drive, kind := stream.Partition{}, stream.Partition{}, gpt.GUID("")
		for _, part := range d.parts {
			if k := d.kinds[part.Number]; k == gpt.EFISystem || k == gpt.BIOSBoot {
				boot, kind = part, k
			}
			if part.Number == d.drive {
				drive = part
			}
		}
		r.Disks, r.boot, r.drives, r.kinds = append(r.Disks, d.Disk), append(r.boot, boot), append(r.drives, drive), append(r.kinds, kind)
	}
	return r, nil
}

// CheckBoot tells whether the machine can be made to start from the root volume in a boot mode, and take a config drive.
func (r *Root) CheckBoot(uefi, drive bool) error {
	kind, what := gpt.BIOSBoot, "BIOS boot partition"
	if uefi {
		kind, what = gpt.EFISystem, "EFI system partition"
	}
	for i, d := range r.Disks {
		if !r.Array && r.kinds[i] != kind {
			return fmt.Errorf("root volume %s: %s has no %s: create_volumes makes it, by the node's boot mode", r, d.Name, what)
		}
		if drive && r.drives[i].Size == 0 {
			return fmt.Errorf("root volume %s: %s has no partition for the config drive: create_volumes makes it", r, d.Name)
		}
	}
	return nil
}

// Size of the volume in bytes.
func (r *Root) Size() int64 { return r.size }

// Names are those of the disks.
func (r *Root) Names() (names []string) {
	for _, d := range r.Disks {
		names = append(names, d.Name)
	}
	return names
}

// Paths are where a deployment's parts are, by their roles.
func (r *Root) Paths(uefi, drive bool) map[string]string {
	paths := map[string]string{string(image.RoleRoot): r.Device()}
	if uefi && !r.Array {
		paths[string(image.RoleESP)] = raid.PartitionDevice(r.Disks[0].Name, r.boot[0].Number)
	}
	if drive {
		paths[string(image.RoleConfigDrive)] = raid.PartitionDevice(r.Disks[0].Name, r.drives[0].Number)
	}
	return paths
}

// Disarm takes away what the machine could start from, on an array from the disks below it too, and marks the first disk as one on which an image is not whole. Nobody may use the group: that
// is known before anything is changed.
func (r *Root) Disarm(ctx context.Context, h steps.Host, n steps.Node) error {
	if _, err := lvm(ctx, h.Tools, r.devices, "vgchange", "--activate", "n", r.Group); err != nil { // it may be active still if an earlier attempt was killed
		return err
	}
	if r.Array {
		if err := r.open(ctx, h, func([]steps.Disk) error { return nil }); err != nil {
			return err
		}
		if err := raid.Release(ctx, h, n, r.Disks[0].Name); err != nil {
			return err
		}
	}
	return r.open(ctx, h, func(disks []steps.Disk) error {
		r.marked = true
		for i, d := range disks {
			if err := stream.MarkBootCode(d, i > 0); err != nil {
				return fmt.Errorf("%s: %w", r.Disks[i].Name, err)
			}
		}
		return r.clearBoot(ctx, disks)
	})
}

// clearBoot clears the partitions that firmware starts from, and those for a config drive: no system starts without its own.
func (r *Root) clearBoot(ctx context.Context, disks []steps.Disk) error {
	clearPart := func(i int, p stream.Partition) error {
		if p.Size == 0 {
			return nil
		}
		end := min(p.Size, mib) // somebody else's may be smaller
		for _, at := range slices.Compact([]int64{p.Start, p.Start + p.Size - end}) {
			if err := disks[i].Zero(ctx, at, end); err != nil {
				return fmt.Errorf("clear partition %d of %s: %w", p.Number, r.Disks[i].Name, err)
			}
		}
		if err := disks[i].Sync(); err != nil {
			return fmt.Errorf("%s: %w", r.Disks[i].Name, err)
		}
		return nil
	}
	for i := range disks {
		for _, p := range []stream.Partition{r.boot[i], r.drives[i]} {
			if err := clearPart(i, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// Unmark says that no image is being written any more, if Disarm said that one is.
func (r *Root) Unmark(ctx context.Context, h steps.Host) error {
	if !r.marked {
		return nil
	}
	return r.open(ctx, h, func(disks []steps.Disk) error { return stream.MarkBootCode(disks[0], true) })
}

// Finish puts beside a volume that was written what belongs to it: the config drive on each disk, for any of them may be missing when the system starts for the first time, and for UEFI an EFI system partition with some files, on an array on each of its disks. The last act takes the mark
// away. It returns the UUID of the first EFI system partition. After an error there is nothing on the disks of the group that firmware would start; the disks of an array are for [raid.Release].
func (r *Root) Finish(ctx context.Context, h steps.Host, drive []byte, uefi bool, files map[string][]byte) (esp string, err error) {
	err = r.open(ctx, h, func(disks []steps.Disk) (err error) {
		defer func() {
			if err != nil {
				late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
				defer cancel()
				err = errors.Join(err, r.clearBoot(late, disks))
			}
		}()
		for i, p := range r.drives {
			if p.Size == 0 {
				continue
			}
			if err := image.WriteConfigDrive(ctx, disks[i], p, drive); err != nil {
				return fmt.Errorf("config drive on %s: %w", r.Disks[i].Name, err)
			}
		}
		if uefi && r.Array {
			if esp, err = writeMirror(ctx, h, r.Disks[0].Name, files); err != nil {
				return err
			}
		}
		for i, d := range disks {
			if !uefi || r.Array {
				break
			}
			id, err := image.WriteESP(d, r.boot[i], files)
			if err != nil {
				return fmt.Errorf("EFI system partition on %s: %w", r.Disks[i].Name, err)
			}
			if i == 0 {
				esp = id
			}
		}
		return stream.MarkBootCode(disks[0], true)
	})
	return esp, err
}

// writeMirror makes the EFI system partitions of an array's disks, with some files.
func writeMirror(ctx context.Context, h steps.Host, array string, files map[string][]byte) (uuid string, err error) {
	device, _, err := raid.MakeESP(ctx, h, array)
	if err != nil {
		return "", err
	}
	d, err := h.Open(device)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return image.WriteESP(d, stream.Partition{Size: min(d.Size(), raid.MostESP*mib) &^ (mib - 1)}, files)
}

// InstallBIOS puts GRUB onto each disk, or each disk of the array. Of the volume, nobody may use it, and its file system must have the UUID root, if that is not "". It returns a line for each disk.
func InstallBIOS(ctx context.Context, h steps.Host, at image.LogicalVolume, root string, loadModule func(context.Context, string) error) (what string, err error) {
	prepare := func() (l *image.BIOSLoader, err error) {
		err = Use(ctx, h, at, func(device string) (err error) {
			d, err := h.Open(device)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.Close()) }()
			l, err = image.PrepareBIOSOn(ctx, d, at, root, image.LocalVolumes(device, h.Tools, loadModule))
			return err
		})
		return l, err
	}
	s, err := look(ctx, h)
	if err != nil {
		return "", err
	}
	r, err := s.root(at, steps.Node{})
	if err != nil {
		return "", err
	}
	if r.Array {
		return raid.InstallLoader(ctx, h, r.Disks[0].Name, prepare)
	}
	if err := r.CheckBoot(false, false); err != nil {
		return "", err
	}
	l, err := prepare()
	if err != nil {
		return "", err
	}
	var lines []string
	err = r.open(ctx, h, func(disks []steps.Disk) error {
		var all []image.BIOSDisk
		for i, d := range disks {
			all = append(all, image.BIOSDisk{Name: r.Disks[i].Name, Disk: d})
			lines = append(lines, r.Disks[i].Name+": "+l.What)
		}
		return l.Install(ctx, all)
	})
	return strings.Join(lines, "\n"), err
}

// BootDisks are the disks from which UEFI starts the system on a volume, and if they are several, the device that shows what is in their EFI system partitions.
func BootDisks(ctx context.Context, h steps.Host, at image.LogicalVolume) (esp string, disks []string, err error) {
	s, err := look(ctx, h)
	if err != nil {
		return "", nil, err
	}
	r, err := s.root(at, steps.Node{})
	if err != nil {
		return "", nil, err
	}
	if err := r.CheckBoot(true, false); err != nil {
		return "", nil, err
	}
	if r.Array {
		return raid.MakeESP(ctx, h, r.Disks[0].Name)
	}
	if len(r.Disks) > 1 {
		esp = raid.PartitionDevice(r.Disks[0].Name, r.boot[0].Number)
	}
	return esp, r.Names(), nil
}

// Use has do work on the device of a volume, which is active as long. Nobody may use its group.
func Use(ctx context.Context, h steps.Host, at image.LogicalVolume, do func(device string) error) (err error) {
	s, err := look(ctx, h)
	if err != nil {
		return err
	}
	r, err := s.root(at, steps.Node{})
	if err != nil {
		return err
	}
	return r.Use(ctx, h, do)
}

// Use is [Use] for a root volume that was found.
func (r *Root) Use(ctx context.Context, h steps.Host, do func(device string) error) (err error) {
	if err := h.LoadModules(ctx, "dm_mod", "dm_raid", "raid1"); err != nil {
		return err
	}
	if _, err := lvm(ctx, h.Tools, r.devices, "lvchange", "--activate", "y", r.String()); err != nil {
		return err
	}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // also when the step was aborted
		defer cancel()
		_, derr := lvm(late, h.Tools, r.devices, "vgchange", "--activate", "n", r.Group)
		err = errors.Join(err, derr)
	}()
	device, err := mapped(h.Machine.FS, mapperName(r.Group, r.Name))
	if err != nil {
		return err
	}
	return do(device)
}

// open opens the disks for work on all of them.
func (r *Root) open(ctx context.Context, h steps.Host, do func([]steps.Disk) error) (err error) {
	disks, closeAll, err := raid.OpenDisks(ctx, h, r.Disks)
	if err != nil {
		return err
	}
	return errors.Join(do(disks), closeAll())
}
