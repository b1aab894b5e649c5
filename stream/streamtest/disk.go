// SPDX-License-Identifier: Apache-2.0

// Package streamtest has disks and web servers that break where a test wants them to.
package streamtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// Disk is a disk in memory, full of old data at first. It implements stream.Target, io.ReaderAt and
// image.Disk. The fields may be set before it is used.
type Disk struct {
	Bytes  []byte // what is on it
	Sector int    // bytes

	FailWriteAt int64 // writes that touch this byte fail with EIO, if it is not 0
	FailZeroAt  int64 // so do zeroings
	FailReadAt  int64 // and reads
	Flip        int64 // writes that touch this byte change it, if it is not 0: a disk that lies
	FailSync    int   // this call of Sync fails, counted from 1; 0 for none

	mu    sync.Mutex
	syncs int
	ops   []string
}

// Old is the byte that a new disk is full of.
const Old = 0xa5

// NewDisk returns a disk of size bytes.
func NewDisk(size int64, sector int) *Disk {
	return &Disk{Bytes: bytes.Repeat([]byte{Old}, int(size)), Sector: sector}
}

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return int64(len(d.Bytes)) }

// SectorSize is what the field Sector says.
func (d *Disk) SectorSize() int { return d.Sector }

// WriteAt writes whole sectors.
func (d *Disk) WriteAt(b []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.log("write", at, int64(len(b)), d.FailWriteAt); err != nil {
		return 0, err
	}
	copy(d.Bytes[at:], b)
	if touches(at, int64(len(b)), d.Flip) {
		d.Bytes[d.Flip] ^= 1
	}
	return len(b), nil
}

// Zero zeroes whole sectors.
func (d *Disk) Zero(ctx context.Context, at, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := d.log("zero", at, n, d.FailZeroAt); err != nil {
		return err
	}
	clear(d.Bytes[at : at+n])
	return nil
}

// ReadAt reads any bytes.
func (d *Disk) ReadAt(b []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if touches(at, int64(len(b)), d.FailReadAt) {
		return 0, syscall.EIO
	}
	if at >= d.Size() {
		return 0, io.EOF
	}
	n := copy(b, d.Bytes[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Sync fails when FailSync says so.
func (d *Disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ops = append(d.ops, "sync")
	if d.syncs++; d.syncs == d.FailSync {
		return syscall.EIO
	}
	return nil
}

// RereadPartitions does nothing.
func (d *Disk) RereadPartitions(context.Context) error { return nil }

// Close does nothing.
func (d *Disk) Close() error { return nil }

// Ops returns what was done so far, a line for each call, such as "write 0 1048576" and "sync". Calls that failed are in it.
func (d *Disk) Ops() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.ops...)
}

// log needs the lock.
func (d *Disk) log(op string, at, n, fail int64) error {
	d.ops = append(d.ops, fmt.Sprintf("%s %d %d", op, at, n))
	if s := int64(d.Sector); at < 0 || n < 0 || at%s != 0 || n%s != 0 || at+n > d.Size() {
		return syscall.EINVAL
	}
	if touches(at, n, fail) {
		return syscall.EIO
	}
	return nil
}

func touches(at, n, b int64) bool { return b != 0 && at <= b && b < at+n }
