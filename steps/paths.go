// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"errors"
	"slices"
	"syscall"

	"github.com/ironhand/ironhand/inspect"
)

// DeadPath is a path to a disk that does not work.
type DeadPath struct {
	inspect.Disk
	Why string
}

// LivingPath returns a disk by the first of its paths that works, with the others that work as its Paths, and those that do not. If none can be read, as on a drive that is locked, those count as
// working that the kernel uses, and if it uses none, all. read reads a little of a device by its path.
func LivingPath(d inspect.Disk, read func(path string) error) (living inspect.Disk, dead []DeadPath) {
	if len(d.Paths) == 0 {
		return d, nil
	}
	paths := append([]inspect.Disk{d}, d.Paths...)
	paths[0].Paths = nil
	why := map[string]string{}
	used := func(p inspect.Disk) bool { return p.State == "" }
	works := func(p inspect.Disk) bool { return why[p.Name] == "" }
	for _, p := range paths {
		if why[p.Name] = p.State; !used(p) {
			continue
		}
		err := read(p.Name)
		if slices.ContainsFunc(deadErrors[:], func(e syscall.Errno) bool { return errors.Is(err, e) }) {
			why[p.Name] = err.Error()
		}
	}
	if !slices.ContainsFunc(paths, works) {
		works = used
	}
	if !slices.ContainsFunc(paths, works) {
		return d, nil // it fails as any disk does that cannot be opened
	}
	var left []inspect.Disk
	for _, p := range paths {
		if works(p) {
			left = append(left, p)
		} else {
			dead = append(dead, DeadPath{p, why[p.Name]})
		}
	}
	living = left[0]
	living.Paths = left[1:]
	return living, dead
}

// deadErrors are what opening or reading a disk by a path gives that does not lead to it any more, or, on an array with controllers that take turns, not now: drivers/scsi/scsi_lib.c,
// scsi_result_to_blk_status, and block/blk-core.c, blk_errors. Not every system has a name for the last one, EREMOTEIO.
var deadErrors = [...]syscall.Errno{syscall.EIO, syscall.ENODEV, syscall.ENXIO, syscall.ENOLINK, syscall.ETIMEDOUT, syscall.Errno(121)}
