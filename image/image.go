// SPDX-License-Identifier: Apache-2.0

// Package image knows what is inside a disk image, and what makes a disk boot from it: partition tables, config drives, boot menus,
// boot entries of UEFI.
//
// [Write] puts a whole-disk image onto a disk so that it fits there: the GPT's backup goes to the disk's end, the config drive
// gets its partition. What the disk boots from is written last, when all else is right.
//
// It refuses images without a partition, for other sectors than the disk's, and larger than the disk, before the disk is touched if
// the first MiB of the image tells it. Nothing in an image is executed.
package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/ironhand/ironhand/image/qcow2"
	"github.com/ironhand/ironhand/stream"
)

// Disk is the disk that an image is written to. *stream.Device is the real one.
type Disk interface {
	stream.Target
	io.ReaderAt
	RereadPartitions(ctx context.Context) error
}

// lister is a Disk that tells which partitions the kernel sees on it. *stream.Device does.
type lister interface {
	Partitions() ([]Partition, error)
}

// Format is what an image must be.
type Format string

const (
	Auto  Format = "auto"  // whatever its bytes say
	Raw   Format = "raw"   // the bytes of a disk, plain or packed
	QCOW2 Format = "qcow2" // QEMU's format, plain or packed
)

// ParseFormat reads a format as the command line or Ironic's disk_format names it. "gpt" is raw, nothing and "unknown" are auto. The error
// for others wraps stream.ErrFormat.
func ParseFormat(s string) (Format, error) {
	switch strings.ToLower(s) {
	case "", "auto", "unknown":
		return Auto, nil
	case "raw", "gpt":
		return Raw, nil
	case "qcow2":
		return QCOW2, nil
	}
	return "", fmt.Errorf("format %q: %w; convert it with: qemu-img convert -O qcow2", s, stream.ErrFormat)
}

// Spec says what to write.
type Spec struct {
	Sources     []stream.Source  // mirrors of one image
	Digest      stream.Digest    // of the image as published; the zero Digest for none
	Content     stream.Digest    // of the bytes of the disk in it, which must be raw, plain or packed; the zero Digest for none
	Signature   stream.Signature // of the image as published; the zero Signature for none
	Format      Format           // empty stands for Auto
	ConfigDrive []byte           // image of a file system, see ReadConfigDrive; empty for none
	ReadBack    stream.ReadBack
	Patience    time.Duration         // how long sources may bring nothing; 0 for the default of stream.ReaderOptions
	Connections int                   // to a web server; 0 for 4
	Progress    func(stream.Progress) // called about once a second and at the end; nil for nobody
	Log         *slog.Logger          // nil is silent
	// Memory is how many bytes the work may take, usually what /proc/meminfo calls MemAvailable; 0 for no limit. An image that takes more to unpack is refused.
	Memory int64
}

// Result is what Write did.
type Result struct {
	DiskID      string // "0x%08x" of the MBR's signature, as Ironic wants it; "0x00000000" on most GPT disks
	GPT         bool   // else MBR
	Format      Format // Raw or QCOW2
	Compression stream.Compression
	Partitions  []Partition // all of the disk, in the order of the table
	ConfigDrive Partition   // the zero Partition if there is none
	Written     stream.Written
	// Warnings are what does not keep the disk from booting, and may keep others from using it: lines for people.
	Warnings []string
}

// Check tells, without reading the image, whether s can be written to a disk of diskSize bytes with such sectors.
func (s Spec) Check(diskSize int64, sectorSize int) error {
	switch {
	case len(s.Sources) == 0:
		return errors.New("image has no source")
	case s.Format != "" && s.Format != Auto && s.Format != Raw && s.Format != QCOW2:
		return fmt.Errorf("format %q: %w", s.Format, stream.ErrFormat)
	case sectorSize != 512 && sectorSize != 4096:
		return fmt.Errorf("disk has sectors of %d bytes", sectorSize)
	case diskSize < 2*stream.HeadSize:
		return fmt.Errorf("disk has only %d bytes", diskSize)
	}
	_, err := fitConfigDrive(s.ConfigDrive, sectorSize, configDriveSize)
	return err
}

// Write writes a whole-disk image to dst. After an error the disk has no partition table, or, if the error came before the first write,
// the one that it had; only if all was written, and the kernel or we ourselves cannot read the new table, that table stays. The
// disk is not closed.
func Write(ctx context.Context, dst Disk, s Spec) (Result, error) {
	if err := s.Check(dst.Size(), dst.SectorSize()); err != nil {
		return Result{}, err
	}

	// 1. The start of the image says whether it is one for this disk.
	meter := stream.NewMeter()
	if s.Progress != nil {
		defer meter.Report(ctx, time.Second, s.Progress)()
	}
	o, target, err := s.openFor(ctx, meter, dst)
	if err != nil {
		return Result{}, err
	}
	defer o.close()
	table, err := parseLayout(o.start, dst.SectorSize(), o.extents.Size())
	if err != nil {
		return Result{}, err
	}
	if err := table.fit(dst.Size()); err != nil {
		return Result{}, fmt.Errorf("%w: %w", stream.ErrTooLarge, err)
	}

	if err := table.checkRoom(s.ConfigDrive, dst.Size()); err != nil {
		return Result{}, fmt.Errorf("config drive: %w", err)
	}

	// 2. All of it, and what makes it this disk's.
	r := Result{Format: o.format, Compression: o.compression, GPT: table.gpt != nil, DiskID: fmt.Sprintf("0x%08x", table.diskID)}
	f := finish{disk: dst, start: o.start, table: table, drive: s.ConfigDrive, check: s.ReadBack != stream.ReadBackNone}
	r.Written, err = stream.Write(ctx, target, o.extents, stream.Options{
		Verify: o.verify, Abort: o.abort, Finish: f.run, ReadBack: s.ReadBack, Meter: meter})
	if err != nil {
		return r, err
	}
	r.ConfigDrive = f.partition

	// 3. It has to be on the disk, and the kernel has to see it. The first is an error, and what fails must not boot. The second is none by
	// itself: the disk is good, and whoever needs a partition says so.
	if table, err = readBack(dst, make([]byte, stream.HeadSize)); err != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if cerr := errors.Join(dst.Zero(late, 0, stream.HeadSize), dst.Zero(late, dst.Size()-stream.HeadSize, stream.HeadSize)); cerr != nil {
			return r, fmt.Errorf("%w; clear the ends of the disk again: %w", err, cerr)
		}
		return r, errors.Join(err, dst.Sync())
	}
	r.Partitions = table.partitions()
	if err := dst.RereadPartitions(ctx); err != nil {
		r.Warnings = append(r.Warnings, err.Error())
	} else if l, ok := dst.(lister); ok {
		seen, err := l.Partitions()
		if err != nil {
			r.Warnings = append(r.Warnings, err.Error())
		} else {
			r.Warnings = append(r.Warnings, table.differs(seen)...)
		}
	}
	return r, nil
}

// opened is an image of which the start was read.
type opened struct {
	extents     stream.Extents
	start       []byte // its first stream.HeadSize bytes, as they will be on the disk
	verify      func() error
	abort       func(error) // as stream.Options.Abort
	format      Format
	compression stream.Compression
	closers     []io.Closer
}

// close ends the reading, first of all what the others wait for. What is to be known of it, verify tells.
func (o *opened) close() {
	for _, c := range o.closers {
		c.Close()
	}
}

// open reads the start of the image, for a place of room bytes.
func (s Spec) open(ctx context.Context, meter *stream.Meter, room int64) (_ *opened, err error) {
	reader := stream.NewReader(ctx, s.Sources, s.Digest, stream.ReaderOptions{Patience: s.Patience, Log: s.Log, Meter: meter, Connections: cmp.Or(s.Connections, 4), Signature: s.Signature})
	o := &opened{abort: reader.Abort, closers: []io.Closer{reader}, format: Raw}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	window, err := s.window()
	if err != nil {
		return nil, err
	}
	content, err := stream.Decompress(reader, window)
	if err != nil {
		return nil, err
	}
	o.closers, o.compression = append(o.closers, content), content.Compression
	o.verify = func() error {
		content.Close() // what is left of it is read, and not unpacked
		return reader.Verify()
	}
	if content.QCOW2 {
		o.format = QCOW2
	}
	if s.Format != "" && s.Format != Auto && s.Format != o.format {
		return nil, fmt.Errorf("image must be %s, and its bytes are %s: %w", s.Format, o.format, stream.ErrFormat)
	}
	disk := io.Reader(content)
	if !s.Content.IsZero() {
		if content.QCOW2 {
			return nil, errors.New("digest of the disk's content: it cannot be checked for a qcow2 image, whose parts come in another order; give that of the file")
		}
		d := s.Content.Reader(content)
		disk, o.verify = d, func() error {
			if err := d.Verify(); err != nil {
				return fmt.Errorf("content of the disk: %w", err)
			}
			content.Close()
			return reader.Verify()
		}
	}
	if content.QCOW2 {
		q, err := qcow2.NewReader(content)
		if err != nil {
			return nil, err
		}
		o.closers = append(o.closers, q)
		o.extents, o.start, err = openQCOW2(q, reader, content, room)
		if err != nil {
			return nil, err
		}
	} else if o.extents, o.start, err = openRaw(reader, content, disk, room); err != nil {
		return nil, err
	}
	o.start = append(o.start, make([]byte, stream.HeadSize-len(o.start))...) // as it will be on the disk
	return o, nil
}

// openRaw returns the disk in an image that has just its bytes, which disk reads, and the disk's first stream.HeadSize bytes.
func openRaw(reader *stream.Reader, content *stream.Content, disk io.Reader, diskSize int64) (x stream.Extents, start []byte, err error) {
	size, least := int64(-1), content.Least
	if content.Compression == stream.Plain {
		size, least = reader.Size(), reader.Size()
	}
	if least > diskSize {
		return nil, nil, fmt.Errorf("%w: %d bytes, the disk has %d", stream.ErrTooLarge, least, diskSize)
	}
	start = make([]byte, stream.HeadSize)
	n, err := io.ReadFull(disk, start)
	switch {
	case n == 0 && err == io.EOF:
		return nil, nil, stream.ErrEmpty
	case err != nil && n < len(start) && !atEnd(disk, err):
		return nil, nil, err
	}
	return stream.NewExtents(stream.Rejoin(start[:n:n], disk), size), start[:n:n], nil
}

// readBack reads the table that is on the disk now. buf is for the bytes.
func readBack(dst Disk, buf []byte) (layout, error) {
	if _, err := dst.ReadAt(buf, 0); err != nil {
		return layout{}, fmt.Errorf("read partition table back: %w", err)
	}
	table, err := parseLayout(buf, dst.SectorSize(), -1)
	if err != nil {
		return layout{}, fmt.Errorf("read partition table back: %w", err)
	}
	return table, nil
}

// ownMemory is what writing takes at the most besides the window of a zstd image, bytes: measured by TestMemory here and in package stream.
const ownMemory = 96 << 20

// window is the longest window of a zstd image that there is memory for.
func (s Spec) window() (int64, error) {
	if s.Memory == 0 {
		return stream.MaxWindow, nil
	}
	if s.Memory < ownMemory {
		return 0, fmt.Errorf("there is not enough memory: writing takes %d MiB, and %d MiB are available", ownMemory>>20, s.Memory>>20)
	}
	return min(stream.MaxWindow, max(1, s.Memory-ownMemory)), nil
}

// atEnd tells whether an error of io.ReadFull means no more than that r has ended.
func atEnd(r io.Reader, err error) bool {
	if err != io.ErrUnexpectedEOF {
		return false
	}
	_, err = r.Read(make([]byte, 1)) // it may also be r's own error
	return err == io.EOF
}

// finish is the last work before the disk gets its first bytes.
type finish struct {
	disk  Disk
	start []byte // what the table was read from
	table layout
	drive []byte
	check bool // read back what is written

	partition Partition // where the config drive is
}

// run writes the config drive and the backup of the GPT, and makes head fit.
func (f *finish) run(ctx context.Context, head []byte, size int64) error {
	// With some formats the start was read twice, and the digest proves the second time only.
	if !bytes.Equal(head[:len(f.start)], f.start) {
		return fmt.Errorf("%w: the start of the disk in it is not as it was when it was looked at", stream.ErrChanged)
	}
	if err := f.table.checkSectors(size); err != nil { // of a packed image the size is known only now
		return err
	}
	if len(f.drive) > 0 {
		if err := f.configDrive(ctx, head); err != nil {
			return fmt.Errorf("config drive: %w", err)
		}
	}
	f.table.writeHead(head)
	if f.table.gpt == nil {
		return nil
	}
	backup, at := f.table.gpt.Backup()
	if err := f.write(backup, at); err != nil {
		return fmt.Errorf("backup of the GPT: %w", err)
	}
	return nil
}

// configDrive puts the config drive into the partition that the image has for it, or else into a new one at the end of the disk.
func (f *finish) configDrive(ctx context.Context, head []byte) error {
	var found []Partition
	for _, p := range f.table.partitions() {
		if p.Start < 0 || p.Size <= 0 || p.Start+p.Size > f.disk.Size() {
			continue // in an MBR: Fit has refused it
		}
		fs, err := Probe(io.NewSectionReader(overlay{f.disk, head}, p.Start, p.Size), p.Size)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p.Number, err)
		}
		if strings.EqualFold(fs.Label, configDriveLabel) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		var err error
		if f.partition, err = f.table.add(configDriveSize, f.disk.Size()); err != nil {
			return err
		}
	case 1:
		f.partition = found[0]
	default:
		return fmt.Errorf("image has %d partitions labelled %s", len(found), configDriveLabel)
	}
	if f.partition.Start < stream.HeadSize {
		return fmt.Errorf("partition %d starts in the first MiB of the disk", f.partition.Number)
	}
	drive, err := fitConfigDrive(f.drive, f.disk.SectorSize(), f.partition.Size)
	if err != nil {
		return err
	}
	// What was there before must not show through.
	if err := f.disk.Zero(ctx, f.partition.Start, f.partition.Size); err != nil {
		return fmt.Errorf("clear partition %d: %w", f.partition.Number, err)
	}
	return f.write(drive, f.partition.Start)
}

// write writes b, filled up to whole sectors.
func (f *finish) write(b []byte, at int64) error {
	sector := f.disk.SectorSize()
	b = append(b[:len(b):len(b)], make([]byte, (sector-len(b)%sector)%sector)...)
	if _, err := f.disk.WriteAt(b, at); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(b), at, err)
	}
	if !f.check {
		return nil
	}
	got := make([]byte, len(b))
	if _, err := f.disk.ReadAt(got, at); err != nil {
		return fmt.Errorf("read %d bytes at %d back: %w", len(b), at, err)
	}
	if !bytes.Equal(got, b) {
		return fmt.Errorf("%d bytes at %d read back otherwise than they were written", len(b), at)
	}
	return nil
}

// overlay is a disk whose first bytes are not written yet.
type overlay struct {
	disk io.ReaderAt
	head []byte
}

func (o overlay) ReadAt(b []byte, at int64) (int, error) {
	n, err := o.disk.ReadAt(b, at)
	if at < int64(len(o.head)) {
		copy(b[:n], o.head[at:])
	}
	return n, err
}
