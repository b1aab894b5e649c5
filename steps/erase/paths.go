// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// apart looks at the disks on the skip list that have several paths. Those that are seen not to lead to one disk are told apart by what the list says of each by itself: use are the disks that are not
// on it, kept those that are. Where the list does not tell which one it means, all is refused: one of them would be erased against somebody's will, or would keep its data.
func (j *job) apart(ctx context.Context, list inspect.SkipList, skipped []inspect.Disk) (use, kept []inspect.Disk, err error) {
	var doubts []string
	for _, d := range skipped {
		drives, err := j.drives(ctx, d)
		if err != nil {
			return nil, nil, err
		}
		if len(drives) == 1 {
			kept = append(kept, d)
			continue
		}
		var ours, free []inspect.Disk
		doubtful := false
		for _, paths := range drives {
			drive, is := paths[0], false
			drive.Paths = paths[1:]
			for _, p := range paths {
				keeps, unsure, err := list.Keeps(p)
				if err != nil {
					return nil, nil, err
				}
				is, doubtful = is || keeps, doubtful || unsure
			}
			if is {
				ours = append(ours, drive)
			} else {
				free = append(free, drive)
			}
		}
		if doubtful || len(ours) == 0 {
			var names []string
			for _, paths := range drives {
				names = append(names, place(paths[0]))
			}
			doubts = append(doubts, strings.Join(names, " and "))
			continue
		}
		for _, f := range free {
			j.host.Say("%s says that it is %s, which is on the skip list, and holds other data: it is another disk, and not on the list", f.Name, ours[0].Name)
		}
		use, kept = append(use, free...), append(kept, ours...)
	}
	if len(doubts) > 0 {
		return nil, nil, fmt.Errorf("%w: no disk was touched: %s have one serial number and WWN, and hold different data, so they are two disks; skip_block_devices does not say which of them is meant: "+
			"it has to name each that is to be left alone by by_path or hctl", steps.ErrErase, strings.Join(doubts, "; "))
	}
	return use, kept, nil
}

// place is where a disk is, in the words of hints.
func place(d inspect.Disk) string {
	if d.ByPath != "" {
		return fmt.Sprintf("%s (by_path %s)", d.Name, d.ByPath)
	}
	return fmt.Sprintf("%s (hctl %s)", d.Name, d.HCTL)
}

// drives sorts the paths to a disk by what is read on them, the best first: there is more than one drive only if they are seen to differ. Nothing may be written to tell them apart.
func (j *job) drives(ctx context.Context, d inspect.Disk) (drives [][]inspect.Disk, err error) {
	paths := d.Paths
	d.Paths = nil
	drives = [][]inspect.Disk{{d}}
next:
	for _, p := range paths {
		for i, of := range drives {
			different, err := j.differ(ctx, of[0], p)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				j.host.Say("whether %s and %s are one disk, as they say, cannot be seen: %v", of[0].Name, p.Name, err)
			}
			if err != nil || !different {
				drives[i] = append(of, p)
				continue next
			}
		}
		drives = append(drives, []inspect.Disk{p})
	}
	return drives, nil
}

// differ tells whether two paths are seen to lead to different disks.
func (j *job) differ(ctx context.Context, a, b inspect.Disk) (bool, error) {
	return readPast(ctx, j, a.Name, func(first io.ReaderAt) (bool, error) {
		return readPast(ctx, j, b.Name, func(second io.ReaderAt) (bool, error) { return differ(first, second, a.Size) })
	})
}

// differ compares where partition tables, file systems and the members of arrays have what is theirs alone, and in between. What changes while it is looked at, on a disk that is in use, does not count.
func differ(a, b io.ReaderAt, size int64) (bool, error) {
	const page, piece = 4096, 64 << 10
	var places []int64
	for at := int64(0); at < 2<<20; at += piece {
		places = append(places, at, (size-1-at)&^(page-1))
	}
	for i := range int64(64) {
		places = append(places, size/64*i&^(page-1))
	}
	var reads [4][piece]byte
	for _, at := range places {
		if at < 0 || at >= size {
			continue
		}
		n := min(piece, size-at)
		for i, r := range []io.ReaderAt{a, b, a, b} {
			if i == 2 && bytes.Equal(reads[0][:n], reads[1][:n]) {
				break
			}
			if err := readFull(r, reads[i][:n], at); err != nil {
				return false, err
			}
		}
		if !bytes.Equal(reads[0][:n], reads[1][:n]) && bytes.Equal(reads[0][:n], reads[2][:n]) && bytes.Equal(reads[1][:n], reads[3][:n]) {
			return true, nil
		}
	}
	return false, nil
}

// alive leaves out the paths to a disk that do not work, if one does.
func (j *job) alive(ctx context.Context, d inspect.Disk) (inspect.Disk, error) {
	living, dead := steps.LivingPath(d, func(path string) error {
		_, err := readPast(ctx, j, path, func(r io.ReaderAt) (struct{}, error) { return struct{}{}, readFull(r, make([]byte, 4096), 0) })
		return err
	})
	if ctx.Err() != nil {
		return d, context.Cause(ctx)
	}
	for _, p := range dead {
		j.dead[living.Name] = append(j.dead[living.Name], p.Name)
		j.host.Say("%s is another path to %s, and does not work (%s): left out", p.Name, living.Name, p.Why)
	}
	return living, nil
}

// names are the names of all paths to a disk, also of those that do not work: what is built on these is taken down too.
func (j *job) names(d inspect.Disk) []string {
	names := d.Names()
	for _, name := range j.dead[d.Name] {
		if _, err := fs.Stat(j.host.Machine.FS, "sys/block/"+strings.TrimPrefix(name, "/dev/")); err == nil { // the kernel takes away what is gone for good
			names = append(names, name)
		}
	}
	return names
}

// onAllPaths works on a disk by its first path. That the others lead to it is not believed: what says that it is this disk and is not would keep its data.
func (j *job) onAllPaths(ctx context.Context, t *target, paths []steps.Disk, work func(context.Context, *target, steps.Disk) error) error {
	disk := paths[0]
	for i, other := range paths[1:] {
		if err := samePlace(disk, other); err != nil {
			return fmt.Errorf("%s says that it is this disk too: %w", t.disk.Paths[i].Name, err)
		}
	}
	if err := work(ctx, t, disk); err != nil {
		return err
	}
	for i, other := range paths[1:] { // the kernel has partitions of each
		if err := j.forget(ctx, t.disk.Paths[i].Name, other); err != nil {
			return fmt.Errorf("%s: %w", t.disk.Paths[i].Name, err)
		}
	}
	return nil
}

// errNotSame is in the error for two disks that have one name.
var errNotSame = errors.New("what is written to one is not read from the other; they have one name, which should be unique: take one of them out, and erase it alone")

// samePlace writes to a disk, where all methods clear it, and reads that by another path, past all caches.
func samePlace(disk, other steps.Disk) error {
	b, got := make([]byte, disk.SectorSize()), make([]byte, disk.SectorSize())
	at := min(endSize/2, disk.Size()/2) / int64(len(b)) * int64(len(b))
	rand.Read(b) // never fails
	if _, err := disk.WriteAt(b, at); err != nil {
		return err
	}
	if err := disk.Sync(); err != nil {
		return err
	}
	if err := readFull(other, got, at); err != nil {
		return err
	}
	if !bytes.Equal(b, got) {
		return errNotSame
	}
	return nil
}

// identity is the same for one disk that is there several times, by several paths, and may be for others.
func identity(d inspect.Disk) string {
	switch {
	case d.WWN != "":
		return string(d.WWN)
	case d.Serial != "":
		return string(d.Model) + " " + string(d.Serial)
	}
	return d.Name
}
