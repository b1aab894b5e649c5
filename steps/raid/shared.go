// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"context"
	"encoding/json"
	"io/fs"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

// What follows is what steps/lvm needs too, whose volume groups lie on disks and arrays: how disks are named by hints, cleared, and marked while something on them is
// not finished. A mark of one is understood by the other: whatever it was that was not finished may be taken away.

// Mark is on a disk while what is made on it is not finished.
type Mark = mark

// ReadMark finds the mark in the first MiB of a disk; the zero Mark if there is none.
func ReadMark(head []byte) Mark { return readMark(head) }

// WriteMark writes a mark to an open disk.
func WriteMark(d steps.Disk, m Mark) error { return writeMark(d, m) }

// ChangeMark changes the mark on a disk whose partitions are in use. The zero Mark takes it away.
func ChangeMark(path string, m Mark) error { return changeMark(path, m) }

// Wanted says which disk is wanted: by hints, and by type.
type Wanted = wanted

// ParseWanted reads an entry of physical_disks.
func ParseWanted(raw json.RawMessage) (Wanted, error) { return parseWanted(raw) }

// ChooseDisks picks a disk for each that is wanted, the first that fits and is not taken yet.
func ChooseDisks(list []Wanted, from []inspect.Disk) (chosen []inspect.Disk, err error) {
	var pool []disk
	for _, d := range from {
		pool = append(pool, disk{Disk: d})
	}
	found, err := volume{members: list}.choose(pool)
	for _, d := range found {
		chosen = append(chosen, d.Disk)
	}
	return chosen, err
}

// RunningArray is an array that runs.
type RunningArray struct {
	Device  string   // /dev/md0
	Name    string   // of the volume; may be empty
	Whole   bool     // no member is missing
	Disks   []string // that its members are on
	Members []string // disks and partitions
}

// RunningArrays lists the arrays that run. A disk that cannot be read is an error.
func RunningArrays(ctx context.Context, h steps.Host) (list []RunningArray, err error) {
	s, err := look(ctx, h)
	if err != nil {
		return nil, err
	}
	for _, a := range s.arrays {
		if a.device == "" {
			continue
		}
		one := RunningArray{Device: a.device, Name: a.name, Whole: !a.degraded}
		for _, m := range a.members {
			one.Disks, one.Members = append(one.Disks, m.disk), append(one.Members, m.device())
		}
		list = append(list, one)
	}
	return list, nil
}

// Partitions are those of a disk or array that the kernel sees.
func Partitions(root fs.FS, device string) ([]stream.Partition, error) {
	return partitions(root, sysName(device))
}

// PartitionDevice is the device of a partition: /dev/sda1, /dev/nvme0n1p1; number 0 is the whole disk.
func PartitionDevice(disk string, number int) string { return member{disk, number}.device() }

// OpenDisks opens all of the disks, if they are still those that were chosen, or none. The function that is returned closes them, once.
func OpenDisks(ctx context.Context, h steps.Host, disks []inspect.Disk) (opened []steps.Disk, closeAll func() error, err error) {
	o, err := open(ctx, h, disks)
	return o, o.close, err
}

// TakeDown ends every use of some disks: file systems, swap, volumes, arrays.
func TakeDown(ctx context.Context, h steps.Host, disks ...string) error {
	return takeDown(ctx, h, disks...)
}

// ClearDisks takes away all that is on disks: uses, signatures, partition tables, and last the mark.
func ClearDisks(ctx context.Context, h steps.Host, disks []string) error {
	return clearDisks(ctx, h, disks)
}

// ClearFor makes both ends of a disk zero but for the mark, and both ends of the partitions to be.
func ClearFor(ctx context.Context, d steps.Disk, parts []stream.Partition) error {
	if err := clearAround(ctx, d); err != nil {
		return err
	}
	for _, p := range parts {
		if err := clearEnds(ctx, d, p.Start, p.Size); err != nil {
			return err
		}
	}
	return nil
}

// Announce shows a plan, and asks whoever runs the step by hand.
func Announce(ctx context.Context, h steps.Host, plan string) error { return announce(ctx, h, plan) }

// SamePlace says by what two disks may be one, which is reached on two paths and not known to be one; "" if by nothing.
func SamePlace(a, b inspect.Disk) string { return samePlace(a, b) }

// FormatSize writes bytes in the largest unit that is exact.
func FormatSize(n int64) string { return size(n) }

// JoinErrors is all errors in one line.
func JoinErrors(errs []error) error { return join(errs) }

// Clip bounds what an error repeats.
func Clip(b []byte) string { return clip(b) }
