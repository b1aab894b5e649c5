// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Device is a whole block device, opened exclusively, that is read and written past the page cache. It implements [Target] and
// io.ReaderAt, and may be used by several goroutines at a time.
type Device struct {
	path    string
	disk    blockDevice
	size    int64
	sector  int
	noZero  atomic.Bool // the kernel does not zero ranges of this device
	buffers sync.Pool   // of *[]byte, chunkSize, aligned
}

// blockDevice is what the operating system does for a Device. Offsets, lengths and memory are aligned.
type blockDevice interface {
	io.ReaderAt
	io.WriterAt
	// ZeroOut makes a range zero; an error that is errors.ErrUnsupported says that it never can.
	ZeroOut(offset, length int64) error
	Sync() error
	// RereadPartitions makes the kernel read the partition table again; an error that is errBusy may pass.
	RereadPartitions() error
	// Partitions are those that the kernel knows of.
	Partitions() ([]Partition, error)
	Close() error
}

var errBusy = errors.New("device or resource busy")

const errNotDir = syscall.ENOTDIR // what reading a file below a file gives

const (
	rereadAttempts = 10
	rereadWait     = 200 * time.Millisecond // before the second attempt; longer each time
)

// OpenDevice opens the block device at path. Nobody else must use it or a part of it: the error for one that is in use says what
// uses it. Close must be called.
func OpenDevice(path string) (*Device, error) {
	disk, size, sector, err := openBlockDevice(path)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	return newDevice(path, disk, size, sector), nil
}

func newDevice(path string, disk blockDevice, size int64, sector int) *Device {
	d := &Device{path: path, disk: disk, size: size, sector: sector}
	d.buffers.New = func() any {
		b := alignedBuffer(chunkSize)
		return &b
	}
	return d
}

// Size is the length of the device in bytes.
func (d *Device) Size() int64 { return d.size }

// SectorSize is the length of a logical sector in bytes.
func (d *Device) SectorSize() int { return d.sector }

// String is the path that the device was opened with.
func (d *Device) String() string { return d.path }

// WriteAt writes whole sectors. Memory that begins on a page is written as it is, other memory is copied first.
func (d *Device) WriteAt(b []byte, offset int64) (int, error) {
	if err := d.check(offset, int64(len(b))); err != nil {
		return 0, err
	}
	if isAligned(b) {
		return d.disk.WriteAt(b, offset)
	}
	buf := d.buffers.Get().(*[]byte)
	defer d.buffers.Put(buf)
	done := 0
	for done < len(b) {
		n := copy(*buf, b[done:])
		n, err := d.disk.WriteAt((*buf)[:n], offset+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// ReadAt reads any bytes of the device.
func (d *Device) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("read at %d: before the start of the device", offset)
	}
	if d.check(offset, int64(len(b))) == nil && isAligned(b) {
		return d.disk.ReadAt(b, offset)
	}
	buf := d.buffers.Get().(*[]byte)
	defer d.buffers.Put(buf)
	done := 0
	for done < len(b) {
		at := offset + int64(done)
		if at >= d.size {
			return done, io.EOF
		}
		// Whole sectors, of which we take what is wanted.
		from := at - at%int64(d.sector)
		want := int64(len(b)-done) + at - from
		want += -want & int64(d.sector-1)
		n, err := d.disk.ReadAt((*buf)[:min(want, chunkSize, d.size-from)], from)
		if got := int64(n) - (at - from); got > 0 {
			done += copy(b[done:], (*buf)[at-from:n])
		}
		if err != nil && done < len(b) {
			return done, err
		}
	}
	return done, nil
}

// Zero makes whole sectors zero: by the kernel, which knows the commands of the device (write zeroes, write same, unmap with zeros
// promised, or plain writes), else by writing zeros. A mere discard is never trusted, see queue/discard_zeroes_data in
// Documentation/ABI/stable/sysfs-block.
func (d *Device) Zero(ctx context.Context, offset, length int64) error {
	if err := d.check(offset, length); err != nil {
		return err
	}
	var blank []byte
	for length > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(length, zeroSize)
		if !d.noZero.Load() {
			err := d.disk.ZeroOut(offset, n)
			if err == nil {
				offset, length = offset+n, length-n
				continue
			}
			if !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
			d.noZero.Store(true)
		}
		if blank == nil {
			blank = alignedBuffer(chunkSize)
		}
		n = min(length, chunkSize)
		if _, err := d.disk.WriteAt(blank[:n], offset); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// check refuses ranges that are not whole sectors of the device.
func (d *Device) check(offset, length int64) error {
	switch sector := int64(d.sector); {
	case offset < 0 || length < 0 || offset > d.size || length > d.size-offset:
		return fmt.Errorf("%d bytes at %d are not on %s, which has %d", length, offset, d.path, d.size)
	case offset%sector != 0 || length%sector != 0:
		return fmt.Errorf("%d bytes at %d are not whole sectors of %d bytes", length, offset, d.sector)
	}
	return nil
}

// Sync returns when the device has stored for good what was written.
func (d *Device) Sync() error { return d.disk.Sync() }

// Partition is a part of a disk.
type Partition struct {
	Number      int   // from 1, as in the name of the device
	Start, Size int64 // bytes
}

// RereadPartitions makes the kernel look at the partition table again. While somebody looks at a partition this fails; it is tried
// for some seconds.
func (d *Device) RereadPartitions(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := d.disk.RereadPartitions()
		if err == nil {
			return nil
		}
		if !errors.Is(err, errBusy) || attempt == rereadAttempts {
			return fmt.Errorf("read partition table of %s again: %w", d.path, err)
		}
		timer := time.NewTimer(time.Duration(attempt) * rereadWait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// Partitions returns the partitions that the kernel knows of, by number. Logical ones, which an MBR has from number 5 on, are among them.
func (d *Device) Partitions() ([]Partition, error) { return d.disk.Partitions() }

// findPartitions reads the partitions of a disk from its directory in sysfs, where start and size are in sectors of 512 bytes, whatever
// the disk's are (Documentation/ABI/stable/sysfs-block).
func findPartitions(root fs.FS, disk string) ([]Partition, error) {
	entries, err := fs.ReadDir(root, disk)
	if err != nil {
		return nil, err
	}
	var found []Partition
	for _, e := range entries {
		var values [3]int64
		for i, name := range []string{"partition", "start", "size"} {
			b, err := fs.ReadFile(root, path.Join(disk, e.Name(), name))
			if i == 0 && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir)) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("read partitions: %w", err)
			}
			if values[i], err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 54); err != nil {
				return nil, fmt.Errorf("read partitions: %s of %s: %w", name, e.Name(), err)
			}
		}
		if values[0] > 0 {
			found = append(found, Partition{int(values[0]), values[1] * 512, values[2] * 512})
		}
	}
	slices.SortFunc(found, func(a, b Partition) int { return cmp.Compare(a.Number, b.Number) })
	return found, nil
}

// Close lets go of the device.
func (d *Device) Close() error { return d.disk.Close() }

// Reopened is a device that is open for reading alone. It keeps nobody from using the device.
type Reopened struct{ d *Device }

// ReadAt reads any bytes of the device.
func (r *Reopened) ReadAt(b []byte, offset int64) (int, error) { return r.d.ReadAt(b, offset) }

// Close lets go of the device.
func (r *Reopened) Close() error { return r.d.Close() }

// Reopen opens the device once more, to be read also when d is closed. Close must be called.
func (d *Device) Reopen() (*Reopened, error) {
	o, ok := d.disk.(interface{ reopen() (blockDevice, error) })
	if !ok {
		return nil, fmt.Errorf("open disk %s again: %w", d.path, errors.ErrUnsupported)
	}
	again, err := o.reopen()
	if err != nil {
		return nil, fmt.Errorf("open disk %s again: %w", d.path, err)
	}
	return &Reopened{newDevice(d.path, again, d.size, d.sector)}, nil
}
