// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/inspect"
)

// RootDisk chooses the disk that an operating system is written to. If the node's record has a root volume, an array of software RAID, it is that and no other. Else it is the first that
// fits the node's root device hints, from instance_info before properties, or without hints
// the smallest of at least 4 GiB. Left out are disks on the node's skip list, arrays that are not the node's or not for an operating system, and the disks that the node's arrays are on. What could
// not be read of a disk that may be the right one is an error.
// Source: ironic-python-agent's ironic_python_agent/hardware.py, get_os_install_device.
func RootDisk(ctx context.Context, h Host, n Node) (inspect.Choice, error) {
	hints, err := n.rootDeviceHints()
	if err != nil {
		return inspect.Choice{}, err
	}
	skip, err := inspect.ParseSkipList(n.Properties["skip_block_devices"])
	if err != nil {
		return inspect.Choice{}, fmt.Errorf("skip_block_devices in properties: %w", err)
	}
	volumes, err := n.Volumes()
	if err != nil {
		return inspect.Choice{}, err
	}
	disks, unread := h.Machine.Disks(ctx)
	disks, _, err = skip.Split(disks)
	if err != nil {
		return inspect.Choice{}, fmt.Errorf("skip_block_devices in properties: %w", errors.Join(err, unread))
	}
	var arrays []Array
	if len(volumes)+len(skip.Volumes) > 0 {
		if h.Arrays == nil {
			return inspect.Choice{}, fmt.Errorf("%w: the node has some, which cannot be looked at here", ErrRAID)
		}
		if arrays, err = h.Arrays(ctx); err != nil {
			return inspect.Choice{}, fmt.Errorf("%w: %w", ErrRAID, err)
		}
	}
	for _, v := range volumes {
		if v.IsRoot() {
			return v.disk(disks, arrays)
		}
	}
	candidate, taken := map[string]bool{}, map[string]bool{}
	for _, a := range arrays {
		kept := slices.Contains(skip.Volumes, a.Name)
		if !kept && !slices.ContainsFunc(volumes, func(v Volume) bool { return v.Is(a.Name) }) {
			continue
		}
		candidate[a.Device] = !kept && mayBeRoot(volumes, a)
		for _, d := range a.Disks {
			taken[d] = true
		}
	}
	disks = slices.DeleteFunc(disks, func(d inspect.Disk) bool {
		return taken[d.Name] || strings.Contains(d.Type, "raid") && !candidate[d.Name]
	})
	choice, err := hints.Choose(disks)
	if err != nil {
		return choice, errors.Join(err, unread) // which says why it could not be read
	}
	return choice, nil // what else could not be read has no part in the choice
}

// disk is the volume's, of those that are there.
func (v Volume) disk(disks []inspect.Disk, arrays []Array) (inspect.Choice, error) {
	var found []inspect.Disk
	for _, a := range arrays {
		if i := slices.IndexFunc(disks, func(d inspect.Disk) bool { return d.Name == a.Device }); i >= 0 && a.Name == v.Array() {
			found = append(found, disks[i])
		}
	}
	switch len(found) {
	case 0:
		return inspect.Choice{}, fmt.Errorf("%w: the node's root volume is the array %q, and none of this name runs", inspect.ErrNoDisk, v.Array())
	case 1:
		return inspect.Choice{Disk: found[0]}, nil
	}
	return inspect.Choice{}, fmt.Errorf("%w: the node's root volume is the array %q, and %s and %s are both of this name", inspect.ErrNoDisk, v.Array(), found[0].Name, found[1].Name)
}

// SameDisk tells whether the disk that was opened under the name of a chosen one is still that one: a disk that drops out may leave its name to another.
// It is asked while the disk is open, since its name is not given away then. size and sector are those of the open disk, in bytes.
func SameDisk(ctx context.Context, m inspect.Machine, chosen inspect.Disk, size int64, sector int) error {
	disks, unread := m.Disks(ctx)
	for _, d := range disks {
		disks = append(disks, d.Paths...) // by which of them a disk is listed may change when one fails
	}
	i := slices.IndexFunc(disks, func(d inspect.Disk) bool { return d.Name == chosen.Name })
	if i < 0 {
		return errors.Join(fmt.Errorf("%s is gone since it was chosen", chosen.Name), unread)
	}
	now := disks[i]
	for _, c := range []struct{ what, was, is string }{
		{"serial", string(chosen.Serial), string(now.Serial)},
		{"WWN", string(chosen.WWN), string(now.WWN)},
		{"model", string(chosen.Model), string(now.Model)},
		{"size", fmt.Sprint(chosen.Size), fmt.Sprint(now.Size)},
		{"size, open,", fmt.Sprint(chosen.Size), fmt.Sprint(size)},
		{"sector size", fmt.Sprint(chosen.LogicalSectors), fmt.Sprint(sector)},
	} {
		if c.was != c.is {
			return errors.Join(fmt.Errorf("%s is another disk than the one that was chosen: its %s was %q, is %q", chosen.Name, c.what, c.was, c.is), unread)
		}
	}
	return nil
}

// rootDeviceHints are the node's hints; none if it has none.
func (n Node) rootDeviceHints() (inspect.Hints, error) {
	for _, from := range []struct {
		name   string
		fields map[string]json.RawMessage
	}{{"instance_info", n.InstanceInfo}, {"properties", n.Properties}} {
		hints, err := inspect.ParseHints(from.fields["root_device"])
		if err != nil {
			return inspect.Hints{}, fmt.Errorf("root_device in %s: %w", from.name, err)
		}
		if !hints.Empty() {
			return hints, nil
		}
	}
	return inspect.Hints{}, nil
}
