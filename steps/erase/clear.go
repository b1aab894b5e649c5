// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/holders"
)

// endSize is how much of both ends of a disk or partition is cleared, bytes. All signatures that libblkid knows are within, whatever the sector size:
// the farthest from an end is LUKS2's second header, at 4 MiB and up to 4 MiB long (cryptsetup, LUKS2 On-Disk Format 1.1.3, section 2.2).
const endSize = 8 << 20

// mirrors are where btrfs keeps copies of its superblock (fs/btrfs/disk-io.h, btrfs_sb_offset), bytes; each has mirrorSize.
const (
	mirror1    = 64 << 20
	mirror2    = 256 << 30
	mirrorSize = 64 << 10
)

// span is a part of a disk, bytes.
type span struct{ at, n int64 }

// signatureSpans are the parts of an area of a disk in which something may make it be recognised: sorted, apart, whole sectors and within the disk.
func signatureSpans(area span, diskSize int64, sector int64) []span {
	end := min(area.at+area.n, diskSize)
	var list []span
	for _, s := range []span{{area.at, endSize}, {area.at + mirror1, mirrorSize}, {area.at + mirror2, mirrorSize}, {max(area.at, end-endSize), endSize}} {
		from, to := max(s.at, 0), min(s.at+s.n, end)
		from -= from % sector
		if to += (sector - to%sector) % sector; to > diskSize {
			to -= sector
		}
		if from < to {
			list = append(list, span{from, to - from})
		}
	}
	return merged(list)
}

// merged are the same bytes in parts that are sorted and apart.
func merged(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.at, b.at) })
	out := list[:0]
	for _, s := range list {
		if last := len(out) - 1; last >= 0 && s.at <= out[last].at+out[last].n {
			out[last].n = max(out[last].n, s.at+s.n-out[last].at)
			continue
		}
		out = append(out, s)
	}
	return out
}

// clear clears a disk's metadata, and has the kernel forget the partitions.
func (j *job) clear(ctx context.Context, t *target, disk steps.Disk) error {
	if err := clearEnds(ctx, t.tree, disk); err != nil {
		return err
	}
	return j.forget(ctx, t.disk.Name, disk)
}

// clearEnds clears first what is in the partitions, so that they are still known if the machine dies on the way, then the device's own ends. Partitions are those that the
// kernel knows, and those in the tables: the kernel may have been told to forget them, or may not read such a table.
func clearEnds(ctx context.Context, d *holders.Device, disk steps.Disk) error {
	sector := int64(disk.SectorSize())
	var inner []span
	for _, p := range d.Partitions() {
		inner = append(inner, signatureSpans(span{p.Start, p.Size}, disk.Size(), sector)...)
	}
	listed, err := tablePartitions(disk, disk.Size())
	if err != nil {
		return fmt.Errorf("look for partitions: %w", err)
	}
	for _, p := range listed {
		inner = append(inner, signatureSpans(p.area, disk.Size(), sector)...)
	}
	if err := zero(ctx, disk, merged(inner)); err != nil {
		return err
	}
	return zero(ctx, disk, signatureSpans(span{0, disk.Size()}, disk.Size(), sector))
}

// clearArray clears an array that is about to be stopped: its partitions and file systems would be there again if the same array were made again. The
// members are cleared also if it fails, as it does for an array that has lost too many of them; the step fails then.
func (j *job) clearArray(ctx context.Context, c holders.Change) error {
	if c.Verb != holders.Stop {
		return nil
	}
	var array *holders.Device
	for _, disk := range j.tree.Disks {
		for _, d := range descendants(disk) {
			if d.Path() == c.Path {
				array = d
			}
		}
	}
	if array == nil || array.Size == 0 { // it does not run
		return nil
	}
	j.host.Say("%s: clearing metadata", array.Path())
	disk, err := j.open(ctx, array.Path())
	if err == nil {
		err = errors.Join(clearEnds(ctx, array, disk), disk.Close())
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		j.fail(array.Path(), fmt.Errorf("clear it before it is stopped: %w", err))
	}
	return nil
}

// forget has the kernel forget the partitions.
func (j *job) forget(ctx context.Context, name string, disk steps.Disk) error {
	err := disk.RereadPartitions(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	now, lookErr := holders.Of(ctx, j.host.Machine.FS, name)
	if lookErr != nil {
		return errors.Join(lookErr, err)
	}
	if left := now.Disks[0].Partitions(); len(left) > 0 {
		return errors.Join(fmt.Errorf("the kernel still has its partition %s", left[0].Path()), err)
	}
	return nil // a device that cannot have partitions refuses to look for them
}

// zero makes parts of a disk zero, and reads them back past all caches.
func zero(ctx context.Context, disk steps.Disk, spans []span) error {
	for _, s := range spans {
		if err := disk.Zero(ctx, s.at, s.n); err != nil {
			return fmt.Errorf("zero %d bytes at %d: %w", s.n, s.at, err)
		}
	}
	if err := disk.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	buf := make([]byte, 1<<20)
	for _, s := range spans {
		for at := s.at; at < s.at+s.n; at += int64(len(buf)) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b := buf[:min(int64(len(buf)), s.at+s.n-at)]
			if err := readFull(disk, b, at); err != nil {
				return err
			}
			if i := notZero(b); i >= 0 {
				return fmt.Errorf("read back: byte %d is %#02x and not zero: %w", at+int64(i), b[i], errLies)
			}
		}
	}
	return nil
}

var errLies = errors.New("the disk does not do what it says")

// notZero returns the place of the first byte that is not zero; -1 if there is none.
func notZero(b []byte) int {
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return -1
}

func readFull(r io.ReaderAt, b []byte, at int64) error {
	if n, err := r.ReadAt(b, at); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %d bytes at %d: %w", len(b), at, err)
	}
	return nil
}
