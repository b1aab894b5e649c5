// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/ironhand/ironhand/stream"
)

// Volumes does with a part of a disk what takes the kernel, or a program. LocalVolumes is for this machine.
type Volumes interface {
	// Format makes an empty file system.
	Format(ctx context.Context, p Partition, kind, label string) error
	// Grow makes a file system as large as its partition.
	Grow(ctx context.Context, p Partition, f FileSystem) error
	// View shows a file system, read-only.
	View(ctx context.Context, p Partition, f FileSystem, look func(fs.FS) error) error
	// Change opens a file system for writing.
	Change(ctx context.Context, p Partition, f FileSystem, do func(*os.Root) error) error
}

// Partitioned is what WritePartitions did.
type Partitioned struct {
	Result
	Roles    map[Role]Partition
	RootUUID string // of the file system; of the partition, if that has none
	ESPUUID  string // of the EFI system partition; empty without one
	// Loader says what starts the system, for people. Empty if nothing does; then a warning says why.
	Loader string
}

// WritePartitions divides a disk as l says, and writes a partition image, which s describes, to the root partition. What the disk starts from is written last: first the
// file system, whose own start waits for the digest, then what belongs to this machine, and then the partition table. After an error the disk has
// no partition table; or, if the ephemeral partition is kept, a root partition that is none. An error that comes before the first write leaves the disk as it was.
//
// On a UEFI machine the boot loader is copied from the image to the EFI system partition. For BIOS, InstallBIOS puts one there afterwards.
func WritePartitions(ctx context.Context, dst Disk, s Spec, l Layout, v Volumes) (r Partitioned, err error) {
	if err := s.Check(dst.Size(), dst.SectorSize()); err != nil {
		return r, err
	}

	// 1. Where all goes, and whether it fits.
	drive, room, err := roomForDrive(s.ConfigDrive, dst.SectorSize())
	if err != nil {
		return r, fmt.Errorf("config drive: %w", err)
	}
	slots, err := l.plan(room, dst.Size(), dst.SectorSize())
	if err != nil {
		return r, err
	}
	var table layout
	if l.PreserveEphemeral {
		head := make([]byte, stream.HeadSize)
		if _, err := dst.ReadAt(head, 0); err != nil {
			return r, fmt.Errorf("read partition table: %w", err)
		}
		if table, err = parseLayout(head, dst.SectorSize(), -1); err != nil {
			return r, fmt.Errorf("%w: the ephemeral partition cannot be kept: %w", ErrLayout, err)
		}
		if slots, err = l.match(table, slots); err != nil {
			return r, err
		}
	} else if table, err = l.table(slots, dst.Size(), dst.SectorSize()); err != nil {
		return r, err
	}
	r.Roles = map[Role]Partition{}
	for _, s := range slots {
		r.Roles[s.role] = s.Partition
	}
	root := r.Roles[RoleRoot]

	// 2. The start of the image says whether it is one for this partition.
	meter := stream.NewMeter()
	if s.Progress != nil {
		defer meter.Report(ctx, time.Second, s.Progress)()
	}
	o, found, has, err := s.openRoot(ctx, meter, root.Size, dst.SectorSize())
	if err != nil {
		return r, err
	}
	defer o.close()
	r.Format, r.Compression, r.GPT, r.DiskID, r.RootUUID = o.format, o.compression, table.gpt != nil, fmt.Sprintf("0x%08x", table.diskID), found.UUID

	// 3. From here on the disk does not boot, and what was on it is gone.
	w := finish{disk: dst, check: s.ReadBack != stream.ReadBackNone}
	clean := func(ctx context.Context) error {
		if l.PreserveEphemeral {
			return clearKept(ctx, dst, table, slots)
		}
		return clearDisk(ctx, dst, slots)
	}
	defer func() {
		if err == nil {
			return
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if cerr := clean(late); cerr != nil {
			err = fmt.Errorf("%w; afterwards: %w", err, cerr)
		}
	}()
	if err := clean(ctx); err != nil {
		return r, err
	}
	if !l.PreserveEphemeral {
		if err := stream.Mark(dst); err != nil {
			return r, err
		}
		if err := dst.Sync(); err != nil {
			return r, fmt.Errorf("sync: %w", err)
		}
	}

	// 4. The image.
	if err := r.writeRoot(ctx, dst, root, o, s, meter); err != nil {
		return r, err
	}
	r.grow(ctx, v, root, found, has)

	// 5. What belongs to it on this machine.
	for _, one := range slots {
		if err := ctx.Err(); err != nil {
			return r, context.Cause(ctx)
		}
		if err := r.fill(ctx, w, one, l, drive, v, found); err != nil {
			return r, fmt.Errorf("%s partition: %w", one.role, err)
		}
	}
	r.ConfigDrive = r.Roles[RoleConfigDrive]
	if err := dst.Sync(); err != nil {
		return r, fmt.Errorf("sync: %w", err)
	}

	// 6. The table; of that, the first sector last of all.
	if !l.PreserveEphemeral {
		if err := writeTable(w, table); err != nil {
			return r, fmt.Errorf("partition table: %w", err)
		}
	}
	again, err := readBack(dst, make([]byte, stream.HeadSize))
	if err != nil {
		return r, err
	}
	r.Partitions = again.partitions()
	if strings.Trim(r.RootUUID, "0-") == "" {
		r.RootUUID = again.id(root.Number)
	}
	if lines := table.differs(r.Partitions); len(lines) > 0 {
		return r, fmt.Errorf("read partition table back: %s", lines[0])
	}
	r.seen(ctx, dst, table)
	return r, nil
}

// openRoot opens the image of a file system that is to have so much room.
func (s Spec) openRoot(ctx context.Context, meter *stream.Meter, room int64, sector int) (o *opened, f FileSystem, e extent, err error) {
	o, err = s.open(ctx, meter, room)
	if err != nil {
		return nil, f, e, tooSmall(err, room)
	}
	if f, e, err = checkRoot(o.start, o.extents.Size(), room, sector); err != nil {
		o.close()
	}
	return o, f, e, err
}

// tooSmall says of an image that is too large what it is too large for.
func tooSmall(err error, room int64) error {
	if errors.Is(err, stream.ErrTooLarge) {
		return fmt.Errorf("%w, with %d MiB: %w", ErrRootTooSmall, room/mebi, err)
	}
	return err
}

// writeRoot writes the image to its place. Its own start is there when the digest is right.
func (r *Partitioned) writeRoot(ctx context.Context, dst Disk, root Partition, o *opened, s Spec, meter *stream.Meter) (err error) {
	r.Written, err = stream.Write(ctx, section{dst, root}, o.extents, stream.Options{
		Verify: o.verify, Abort: o.abort, ReadBack: s.ReadBack, Meter: meter,
		Finish: func(_ context.Context, head []byte, _ int64) error {
			// With some formats the start was read twice, and the digest proves the second time only.
			if !bytes.Equal(head, o.start) {
				return fmt.Errorf("%w: the start of the file system in it is not as it was when it was looked at", stream.ErrChanged)
			}
			return nil
		},
	})
	return tooSmall(err, root.Size)
}

// grow makes the root file system as large as its place.
func (r *Partitioned) grow(ctx context.Context, v Volumes, root Partition, f FileSystem, e extent) {
	if v == nil || e.size >= root.Size {
		return
	}
	if err := v.Grow(ctx, root, f); err != nil {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the root file system stays as it is in the image, %d of the partition's %d MiB: %v", e.size/mebi, root.Size/mebi, err))
	}
}

// seen has the kernel look at the new table. That it does not see it does not make the disk any worse, and is a warning.
func (r *Partitioned) seen(ctx context.Context, dst Disk, table layout) {
	if err := dst.RereadPartitions(ctx); err != nil {
		r.Warnings = append(r.Warnings, err.Error())
		return
	}
	l, ok := dst.(lister)
	if !ok {
		return
	}
	seen, err := l.Partitions()
	if err != nil {
		r.Warnings = append(r.Warnings, err.Error())
		return
	}
	r.Warnings = append(r.Warnings, table.differs(seen)...)
}

// checkRoot tells whether an image that begins with start can be a root partition of room bytes. least is how many bytes the image has at least.
func checkRoot(start []byte, least, room int64, sector int) (f FileSystem, e extent, err error) {
	if f, err = Probe(bytes.NewReader(start), int64(len(start))); err != nil {
		return f, e, err
	}
	if f.Type == "" {
		if table, err := parseLayout(start, 512, -1); err == nil {
			return f, e, fmt.Errorf("the image has a partition table with %d partitions, and is to be one of a file system: write it as a whole disk image: %w",
				len(table.partitions()), stream.ErrFormat)
		}
	}
	if e, err = parseExtent(start, f.Type); err != nil {
		return f, e, err
	}
	if need := max(least, e.size); need > room {
		return f, e, fmt.Errorf("%w: its %s takes %d MiB, the partition has %d", ErrRootTooSmall, f.Type, (need+mebi-1)/mebi, room/mebi)
	}
	if e.block < int64(sector) {
		return f, e, fmt.Errorf("%w: its %s has blocks of %d bytes, the disk has sectors of %d", ErrSectorSize, f.Type, e.block, sector)
	}
	return f, e, nil
}

// roomForDrive gives a config drive as it is written to a disk with such sectors, and the size of its partition.
func roomForDrive(drive []byte, sector int) (fit []byte, room int64, err error) {
	if len(drive) == 0 {
		return nil, 0, nil
	}
	// What is converted may need more.
	for room = (int64(len(drive)) + mebi - 1) / mebi * mebi; ; room *= 2 {
		if fit, err = fitConfigDrive(drive, sector, room); err == nil || room >= configDriveSize {
			return fit, room, err
		}
	}
}

// clearDisk makes both ends of the disk zero, and both of each partition, where signatures of a former life may be.
func clearDisk(ctx context.Context, dst Disk, slots []slot) error {
	end := dst.Size() - stream.HeadSize
	if err := zeroAll(ctx, dst, []Partition{{Start: 0, Size: stream.HeadSize}, {Start: end, Size: stream.HeadSize}}); err != nil {
		return fmt.Errorf("clear the ends of the disk: %w", err)
	}
	for _, s := range slots {
		last := s.Start + s.Size - stream.HeadSize
		if err := zeroAll(ctx, dst, []Partition{{Start: s.Start, Size: stream.HeadSize}, {Start: last, Size: stream.HeadSize}}); err != nil {
			return fmt.Errorf("clear the %s partition: %w", s.role, err)
		}
	}
	return nil
}

// clearKept takes all that could start from a disk whose ephemeral partition is kept: boot code, and the ends of the other partitions.
func clearKept(ctx context.Context, dst Disk, table layout, slots []slot) error {
	first := make([]byte, dst.SectorSize())
	if _, err := dst.ReadAt(first, 0); err != nil {
		return fmt.Errorf("read the first sector: %w", err)
	}
	clear(first[:440])
	if _, err := dst.WriteAt(first, 0); err != nil {
		return fmt.Errorf("clear the boot code: %w", err)
	}
	for _, s := range slots {
		if s.role == RoleEphemeral {
			continue
		}
		last := s.Start + s.Size - stream.HeadSize
		if err := zeroAll(ctx, dst, []Partition{{Start: s.Start, Size: stream.HeadSize}, {Start: last, Size: stream.HeadSize}}); err != nil {
			return fmt.Errorf("clear the %s partition: %w", s.role, err)
		}
	}
	return nil
}

func zeroAll(ctx context.Context, dst Disk, ranges []Partition) error {
	for _, p := range ranges {
		if err := dst.Zero(ctx, p.Start, p.Size); err != nil {
			return fmt.Errorf("zero %d bytes at %d: %w", p.Size, p.Start, err)
		}
	}
	return dst.Sync()
}

// fill makes what is in one of the partitions beside root's.
func (r *Partitioned) fill(ctx context.Context, w finish, s slot, l Layout, drive []byte, v Volumes, root FileSystem) error {
	switch s.role {
	case RoleESP:
		files, err := r.loader(ctx, v, root)
		if err != nil {
			return err
		}
		// The clusters that are not used are not written, and the disk may have old data there, which is nobody's.
		r.ESPUUID, err = WriteESP(w.disk, s.Partition, files)
		return err
	case RoleEphemeral:
		if l.PreserveEphemeral {
			return nil
		}
		if v == nil {
			return errors.New("no file system can be made here")
		}
		return v.Format(ctx, s.Partition, l.EphemeralFormat, "ephemeral0")
	case RoleSwap:
		head, err := swapHeader(s.Size, "swap1")
		if err != nil {
			return err
		}
		return w.write(head, s.Start)
	case RoleConfigDrive:
		if err := w.disk.Zero(ctx, s.Start, s.Size); err != nil { // what was there must not show through
			return err
		}
		return w.write(drive, s.Start)
	}
	return nil
}

// loader finds the files for the EFI system partition in the root file system. None is a warning: the system can still be started by kexec.
func (r *Partitioned) loader(ctx context.Context, v Volumes, root FileSystem) (files map[string][]byte, err error) {
	if v == nil {
		r.Warnings = append(r.Warnings, "the EFI system partition is empty: the image cannot be looked into here")
		return nil, nil
	}
	err = v.View(ctx, r.Roles[RoleRoot], root, func(fsys fs.FS) (err error) {
		files, r.Loader, err = espFiles(fsys, Root{FileSystem: root}, runtime.GOARCH)
		return err
	})
	if err != nil {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the EFI system partition is empty, and the firmware cannot start the system: %v", err))
		return nil, nil
	}
	return files, nil
}

// random32 is a random number other than 0, which often stands for none.
func random32() uint32 {
	var b [4]byte
	for {
		rand.Read(b[:]) // never fails: crypto/rand
		if n := binary.LittleEndian.Uint32(b[:]); n != 0 {
			return n
		}
	}
}

// writeTable writes the partition table: backup, entries, and then the first sector.
func writeTable(w finish, table layout) error {
	var head []byte
	if table.gpt == nil {
		head = table.mbr.Bytes()
	} else {
		head = table.gpt.Head()
		backup, at := table.gpt.Backup()
		if err := w.write(backup, at); err != nil {
			return err
		}
	}
	sector := w.disk.SectorSize()
	first, rest := head[:min(sector, len(head))], head[min(sector, len(head)):]
	if len(rest) > 0 {
		if err := w.write(rest, int64(sector)); err != nil {
			return err
		}
	}
	if err := w.disk.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := w.write(first, 0); err != nil {
		return err
	}
	if err := w.disk.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// section is a part of a disk, as a disk.
type section struct {
	disk Disk
	part Partition
}

func (s section) Size() int64     { return s.part.Size }
func (s section) SectorSize() int { return s.disk.SectorSize() }
func (s section) Sync() error     { return s.disk.Sync() }
func (s section) Close() error    { return nil }

func (s section) inside(at, n int64) error {
	if at < 0 || n < 0 || at > s.part.Size || n > s.part.Size-at {
		return fmt.Errorf("%d bytes at %d are not in the partition of %d", n, at, s.part.Size)
	}
	return nil
}

func (s section) WriteAt(b []byte, at int64) (int, error) {
	if err := s.inside(at, int64(len(b))); err != nil {
		return 0, err
	}
	return s.disk.WriteAt(b, s.part.Start+at)
}

func (s section) ReadAt(b []byte, at int64) (int, error) {
	if err := s.inside(at, int64(len(b))); err != nil {
		return 0, err
	}
	return s.disk.ReadAt(b, s.part.Start+at)
}

func (s section) Zero(ctx context.Context, at, n int64) error {
	if err := s.inside(at, n); err != nil {
		return err
	}
	return s.disk.Zero(ctx, s.part.Start+at, n)
}

// swapHeader makes the start of a swap area: Linux include/linux/swap.h, union swap_header. Pages have 4096 bytes, as on all machines that this is built for.
func swapHeader(size int64, label string) ([]byte, error) {
	const page = 4096
	pages := size / page
	if pages < 10 || pages-1 > 1<<32-1 { // fewer, Linux refuses
		return nil, fmt.Errorf("a swap area of %d bytes is not possible", size)
	}
	b := make([]byte, page)
	binary.LittleEndian.PutUint32(b[1024:], 1) // version
	binary.LittleEndian.PutUint32(b[1028:], uint32(pages-1))
	// Behind the count of bad pages, which is 0, comes a UUID: RFC 9562 section 5.4.
	id := b[1036:1052]
	rand.Read(id) // never fails: crypto/rand
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	copy(b[1052:1068], label)
	copy(b[page-10:], "SWAPSPACE2")
	return b, nil
}
