// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"errors"
	"fmt"
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
func (j *job) look(ctx context.Context, disks []inspect.Disk, k keep) error {
	names := make([]string, len(disks))
	for i, d := range disks {
		names[i] = d.Name
	}
	all, err := holders.Of(ctx, j.host.Machine.FS, names...)
	if err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	stays, err := j.stays(all, k)
	if err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	j.targets, names = nil, nil
	for i, d := range all.Disks {
		var take bool
		switch {
		case stays[d.Name] != "":
			j.once("%v %s: left alone", d, stays[d.Name])
		case !isArray(d) && !k.record && len(stays) == 0:
			take = true
		case !isArray(d):
			take, err = j.notMember(d, all, k, stays)
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
			names = append(names, disks[i].Name)
		}
	}
	if j.tree, err = holders.Of(ctx, j.host.Machine.FS, names...); err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	for i, d := range j.tree.Disks {
		j.targets[i].tree = d
	}
	return nil
}

func isArray(d *holders.Device) bool { return d.Kind == "md" }

// stays finds the arrays that the skip list leaves alone and the disks that they are on, and why. Names of arrays are in the superblocks of their members.
func (j *job) stays(all holders.Tree, k keep) (map[string]string, error) {
	why := map[string]string{}
	const listed = "is on the skip list"
	for _, d := range all.Disks {
		for _, above := range descendants(d)[1:] {
			if slices.Contains(k.devices, above.Path()) {
				why[d.Name] = fmt.Sprintf("has %v on it, which %s", above, listed)
			}
		}
		if len(k.names) == 0 {
			continue
		}
		for _, dev := range append([]*holders.Device{d}, d.Partitions()...) {
			members, err := j.memberships(dev)
			if err != nil {
				return nil, err
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
					}
				}
				if len(above) == 0 {
					why[d.Name] = fmt.Sprintf("is a member of %q, which %s and does not run", m.Name, listed)
				}
			}
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
func (j *job) notMember(d *holders.Device, all holders.Tree, k keep, stays map[string]string) (bool, error) {
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
		if in || !k.record || dev == d && held { // the end of the last partition may be that of the disk
			continue
		}
		members, err := j.memberships(dev)
		if err != nil {
			return false, err
		}
		for _, m := range members {
			left = fmt.Errorf("%s is a member of software RAID that does not run (%s, %q), and the node's record has software RAID", dev.Path(), m.Level, m.Name)
		}
	}
	switch {
	case left != nil && (held || k.record):
		return false, fmt.Errorf("%w; start it, or delete it with delete_configuration", left)
	case held:
		j.once("%s is a member of software RAID, which stays: the array is erased in its place", d.Path())
	}
	return !held, nil
}

// memberships are what the superblocks of software RAID on a disk or partition say.
func (j *job) memberships(dev *holders.Device) ([]raid.Membership, error) {
	if dev.Size == 0 {
		return nil, nil // an extended partition
	}
	r, closer, err := j.System.Read(dev.Path())
	if err != nil {
		return nil, err
	}
	members, err := raid.Memberships(r, dev.Size)
	if err := errors.Join(err, closer.Close()); err != nil {
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
