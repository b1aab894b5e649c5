// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
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
	Close() error
}

var errBusy = errors.New("device or resource busy")

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

// Close lets go of the device.
func (d *Device) Close() error { return d.disk.Close() }
