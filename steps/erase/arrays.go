// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/holders"
	"github.com/ironhand/ironhand/steps/raid"
)

// keep is what is not to be lost of what is built on the disks.
type keep struct {
	record  bool     // the node's record has, or may have, software RAID
	devices []string // on the skip list: "/dev/md0"
	names   []string // of arrays on the skip list
}

// look finds what is built on the disks, and makes the targets.
//
// An array on the skip list is left alone, and so are the disks that it is on. An array of software RAID that the node's record has, or may have, or that has disks together with
// one that is left alone, is erased like a disk, and its members are left alone, so that the next user finds it. Any other array is nobody's, and goes with the rest of
// its members. Where a disk could only be left alone because it may belong to an array that is not erased itself, it is an error: nobody could tell what is on it.
func (j *job) look(ctx context.Context, disks []inspect.Disk) error {
	k := j.keep
	names := make([][]string, len(disks))
	for i, d := range disks {
		names[i] = j.names(d)
	}
	all, err := holders.OfPaths(ctx, j.host.Machine.FS, names...)
	if err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	stays, err := j.stays(ctx, all)
	if err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	j.targets = nil
	for i, d := range all.Disks {
		var take bool
		switch {
		case stays[d.Name] != "":
			j.once("%v %s: left alone", d, stays[d.Name])
		case !isArray(d) && !k.record && len(stays) == 0:
			take = true
		case !isArray(d):
			take, err = j.notMember(ctx, d, all)
		case !slices.ContainsFunc(all.Disks, func(m *holders.Device) bool { return m != d && slices.Contains(descendants(m), d) }):
			j.once("%v has none of its members among the disks to erase: left alone", d)
		case k.record || len(stays) > 0:
			if take = true; outside(d, all.Disks) != "" {
				err = fmt.Errorf("%v: also on %s, which is not to be touched", d, outside(d, all.Disks))
			}
		default:
			// It is taken down.
		}
		if err != nil {
			return fmt.Errorf("%w: %w", steps.ErrErase, err)
		}
		if take {
			j.targets = append(j.targets, &target{disk: disks[i]})
		}
	}
	return j.again(ctx)
}

// again finds what is built on the targets.
func (j *job) again(ctx context.Context) error {
	names := make([][]string, len(j.targets))
	for i, t := range j.targets {
		names[i] = j.names(t.disk)
	}
	var err error
	if j.tree, err = holders.OfPaths(ctx, j.host.Machine.FS, names...); err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	for i, d := range j.tree.Disks {
		j.targets[i].tree = d
	}
	return nil
}

func isArray(d *holders.Device) bool { return d.Kind == "md" }

// stays finds the arrays that the skip list leaves alone and the disks that they are on, and why. Names of arrays are in the superblocks of their members.
func (j *job) stays(ctx context.Context, all holders.Tree) (map[string]string, error) {
	k := j.keep
	why := map[string]string{}
	const listed = "is on the skip list"
	type idle struct {
		disk string
		raid.Membership
	}
	var idles []idle                 // members of arrays that do not run
	running := map[string][]string{} // UUIDs of arrays that do, by name
	for _, d := range all.Disks {
		for _, above := range descendants(d)[1:] {
			if slices.Contains(k.devices, above.Path()) {
				why[d.Name] = fmt.Sprintf("has %v on it, which %s", above, listed)
			}
		}
		if len(k.names) == 0 || j.unread[d.Name] != nil {
			continue
		}
		for _, dev := range append([]*holders.Device{d}, d.Partitions()...) {
			members, err := j.memberships(ctx, dev)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				j.unread[d.Name] = err
				break
			}
			for _, m := range members {
				if !slices.Contains(k.names, m.Name) {
					continue
				}
				above := slices.DeleteFunc(slices.Clone(dev.Above), func(a *holders.Device) bool { return !isArray(a) })
				for _, a := range above {
					version, err := fs.ReadFile(j.host.Machine.FS, path.Join("sys/block", a.Name, "md/metadata_version"))
					if err != nil {
						return nil, fmt.Errorf("find the name of %v: %w", a, err)
					}
					if strings.TrimSpace(string(version)) == m.Version { // another superblock is of a former life
						why[a.Name], why[d.Name] = listed, fmt.Sprintf("has %v on it, which %s as %q", a, listed, m.Name)
						running[m.Name] = append(running[m.Name], m.UUID)
					}
				}
				if len(above) == 0 {
					idles = append(idles, idle{d.Name, m})
				}
			}
		}
	}
	for _, i := range idles { // where the array runs, others of its name are of a former life, or a former user's
		if len(running[i.Name]) == 0 || slices.Contains(running[i.Name], i.UUID) {
			why[i.disk] = cmp.Or(why[i.disk], fmt.Sprintf("is a member of %q, which %s and does not run", i.Name, listed))
		}
	}
	for _, d := range all.Disks {
		if why[d.Name] == listed {
			for _, above := range descendants(d)[1:] {
				why[above.Name] = fmt.Sprintf("is on %v, which %s", d, listed)
			}
		}
	}
	for _, d := range all.Disks { // what else is below those arrays
		for _, above := range descendants(d)[1:] {
			if why[d.Name] == "" && isArray(above) && why[above.Name] != "" {
				why[d.Name] = fmt.Sprintf("has %v on it, which %s", above, why[above.Name])
			}
		}
	}
	return why, nil
}

// notMember tells whether a disk is erased itself, because it is no member of an array that is erased in its place.
func (j *job) notMember(ctx context.Context, d *holders.Device, all holders.Tree) (bool, error) {
	var left error // a member of nothing that is erased
	held := false
	for _, dev := range append(d.Partitions(), d) {
		in := false
		for _, a := range dev.Above {
			switch {
			case !isArray(a):
			case slices.Contains(all.Disks, a), a.What == "container" && slices.ContainsFunc(a.Above, func(v *holders.Device) bool { return slices.Contains(all.Disks, v) }):
				in, held = true, true
			default:
				in, left = true, fmt.Errorf("%s is a member of %v, which cannot be erased in its place", dev.Path(), a)
			}
		}
		if in || !j.keep.record || dev == d && held || j.unread[d.Name] != nil { // the end of the last partition may be that of the disk
			continue
		}
		members, err := j.memberships(ctx, dev)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err != nil {
			j.unread[d.Name] = err
		}
		for _, m := range members {
			left = fmt.Errorf("%s is a member of software RAID that does not run (%s, %q), and the node's record has software RAID", dev.Path(), m.Level, m.Name)
		}
	}
	switch {
	case left != nil && (held || j.keep.record):
		return false, fmt.Errorf("%w; start it, or delete it with delete_configuration", left)
	case held:
		if err := j.unread[d.Name]; err != nil {
			j.fail(d.Path(), err)
		}
		j.once("%s is a member of software RAID, which stays: the array is erased in its place", d.Path())
	}
	return !held, nil
}

// noMember looks again at a disk that could not be read before.
func (j *job) noMember(ctx context.Context, d *holders.Device) error {
	for _, dev := range append(d.Partitions(), d) {
		members, err := j.memberships(ctx, dev)
		if err != nil {
			return err
		}
		for _, m := range members {
			if j.keep.record || slices.Contains(j.keep.names, m.Name) {
				return fmt.Errorf("%s is a member of software RAID (%s, %q), which stays", dev.Path(), m.Level, m.Name)
			}
		}
	}
	return nil
}

// memberships are what the superblocks of software RAID on a disk or partition say.
func (j *job) memberships(ctx context.Context, dev *holders.Device) ([]raid.Membership, error) {
	if dev.Size == 0 {
		return nil, nil // an extended partition
	}
	j.once("%s: looking for software RAID", dev.Path())
	members, err := read(ctx, j, dev.Path(), func(r io.ReaderAt) ([]raid.Membership, error) { return raid.Memberships(r, dev.Size) })
	if err != nil {
		return nil, fmt.Errorf("look for software RAID on %s: %w", dev.Path(), err)
	}
	return members, nil
}

// outside returns a member of an array that is on none of the disks.
func outside(array *holders.Device, disks []*holders.Device) string {
	for _, s := range array.Slaves {
		if !slices.ContainsFunc(disks, func(d *holders.Device) bool {
			return d.Name == s || slices.ContainsFunc(d.Partitions(), func(p *holders.Device) bool { return p.Name == s })
		}) {
			return s
		}
	}
	return ""
}
