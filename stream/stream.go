// SPDX-License-Identifier: Apache-2.0

// Package stream brings an image from where it is kept to a disk.
//
//	Source -> Reader -> Decompress -> NewExtents, or what reads a format, and Sparse -> Write -> Target
//
// A [Source] opens connections; a [Reader] holds them together to one unbroken stream, and computes the digest; [Decompress]
// unpacks; an [Extents] says which parts of the disk are bytes and which are zero; [Write], the only loop that writes
// images, puts them on a [Target], which is a [Device] but for tests.
//
// What is refused: an image that is short, changed on the way, of another digest, of a format that is not known, larger than the disk,
// or empty. Nothing is kept in memory but a few MiB on the way, whatever the length of the image.
package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Target is a disk that is written to, exclusively. Offsets and lengths of WriteAt and Zero are multiples of SectorSize.
type Target interface {
	// WriteAt may be called by several goroutines at a time, and keeps nothing of the buffer.
	io.WriterAt
	// Zero makes length bytes from offset on read as zeros, proven, by the cheapest way that the disk has.
	Zero(ctx context.Context, offset, length int64) error
	Size() int64     // bytes
	SectorSize() int // bytes of a logical sector
	// Sync returns when what was written would survive the loss of power.
	Sync() error
	Close() error
}

var (
	// ErrTooLarge says that an image does not fit on the disk.
	ErrTooLarge = errors.New("image is larger than the disk")
	// ErrEmpty says that an image has no bytes.
	ErrEmpty = errors.New("image is empty")
)

// HeadSize is how many bytes at the start of a disk, and at its end, are held back until the image is proven to be right. Partition
// tables and boot sectors are there.
const HeadSize = 1 << 20

// Options is what [Write] does beyond writing. The zero value is usable.
type Options struct {
	// Verify says, after the last extent, whether the image was the right one: usually [Reader.Verify]. Nil for no check.
	Verify func() error
	// Abort is called, with the error, as soon as the disk does not take something, so that nobody waits for a silent source before the
	// disk's death is told: usually [Reader.Abort]. Nil to do nothing.
	Abort func(error)
	// Finish is called when the image is on the disk and proven, but for the first HeadSize bytes. It may write to the target,
	// and change head, which are those first bytes, zero where the image has none (the whole disk, if that is smaller). What it
	// wrote is on the disk safely before head is written as the last act of all, so that no firmware boots from a half-made
	// disk. size is the length of the disk that the image describes, in bytes. head must not be kept. Nil to do nothing.
	Finish func(ctx context.Context, head []byte, size int64) error
	// ReadBack says how much is read back and compared. Other than with ReadBackNone the target must be an io.ReaderAt.
	ReadBack ReadBack
	// Meter counts; the same one as in ReaderOptions. Nil for none.
	Meter *Meter
}

// Written is what [Write] did.
type Written struct {
	Size    int64 // of the disk that the image describes, bytes
	Bytes   int64 // sent to the disk
	Zeroed  int64 // bytes of the disk made zero without sending zeros, the clearing of its ends not counted
	Checked int64 // bytes read back and found right
}

// Write writes an image to a disk. Until all of the image is on the disk and o.Verify has agreed, the first and last HeadSize bytes
// of the disk are zero; after an error they are zero again. An error in reading the start of the image, or an image that is known to be
// too large, leaves the disk untouched. Behind the end of the image nothing is changed, except for the last HeadSize bytes of
// the disk. If the image ends within a sector, the rest of the sector becomes zero.
func Write(ctx context.Context, dst Target, src Extents, o Options) (w Written, err error) {
	meter := o.Meter
	if meter == nil {
		meter = NewMeter()
	}
	back, err := o.ReadBack.reader(dst)
	if err != nil {
		return w, err
	}
	p, err := newPour(dst, meter, o.ReadBack)
	if err != nil {
		return w, err
	}

	// 1. Nothing is touched before the image has begun to arrive, and is not known to be too large.
	first, err := src.Next()
	switch {
	case err == io.EOF:
		return w, ErrEmpty
	case err != nil:
		return w, err
	case src.Size() > dst.Size():
		return w, fmt.Errorf("%w: %d bytes, the disk has %d", ErrTooLarge, src.Size(), dst.Size())
	}

	// 2. From here on the disk does not boot, whatever happens.
	meter.setPhase(PhaseClear)
	defer func() {
		if err == nil {
			return
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if cerr := p.clearEnds(late, false); cerr != nil {
			err = fmt.Errorf("%w; afterwards: %w", err, cerr)
		}
	}()
	if err := p.clearEnds(ctx, true); err != nil {
		return w, err
	}

	// 3. All but the ends.
	meter.setPhase(PhaseWrite)
	err = p.run(ctx, first, src, o.Abort)
	defer func() { w.Bytes, w.Zeroed, w.Checked = p.written.Load(), p.zeroed.Load(), p.checked }()
	if w.Size = p.done; err != nil {
		return w, err
	}

	// 4. Is it the right image, and is it on the disk?
	meter.setPhase(PhaseVerify)
	if o.Verify != nil {
		if err := o.Verify(); err != nil {
			return w, err
		}
	}
	if err := flushDisk(dst); err != nil {
		return w, err
	}
	meter.setPhase(PhaseReadBack)
	if err := p.readBack(ctx, back); err != nil {
		return w, err
	}

	// 5. The end, what the caller has to add, and then, alone, the start.
	meter.setPhase(PhaseCommit)
	if p.tailUsed {
		if err := p.commit(ctx, back, p.tail, p.tailAt); err != nil {
			return w, err
		}
	}
	if o.Finish != nil {
		if err := o.Finish(ctx, p.head, w.Size); err != nil {
			return w, err
		}
		if err := flushDisk(dst); err != nil {
			return w, err
		}
	}
	// The first sector comes last: without it neither firmware nor kernel takes the rest for a partition table.
	for _, part := range []struct{ from, to int64 }{{p.sector, int64(len(p.head))}, {0, p.sector}} {
		if err := p.commit(ctx, back, p.head[part.from:part.to], part.from); err != nil {
			return w, err
		}
	}
	meter.setPhase(PhaseDone)
	return w, nil
}

// commit writes b, which was held back, and sees to it that it is on the disk.
func (p *pour) commit(ctx context.Context, back io.ReaderAt, b []byte, at int64) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if len(b) == 0 { // a disk of one sector
		return nil
	}
	if err := p.write(b, at); err != nil {
		return err
	}
	if err := flushDisk(p.dst); err != nil {
		return err
	}
	if back == nil {
		return nil
	}
	got := alignedBuffer(len(b))
	if err := readFullAt(back, got, at); err != nil {
		return err
	}
	if !bytes.Equal(got, b) {
		return differs(int64(len(b)), at)
	}
	p.count(int64(len(b)))
	return nil
}

// clearEnds zeroes both ends of the disk.
func (p *pour) clearEnds(ctx context.Context, mark bool) error {
	if err := p.dst.Zero(ctx, 0, int64(len(p.head))); err != nil {
		return fmt.Errorf("clear the start of the disk: %w", err)
	}
	if len(p.tail) > 0 {
		if err := p.dst.Zero(ctx, p.tailAt, int64(len(p.tail))); err != nil {
			return fmt.Errorf("clear the end of the disk: %w", err)
		}
	}
	if mark {
		if err := Mark(p.dst); err != nil {
			return err
		}
	}
	return flushDisk(p.dst)
}

// unfinished is what the first sector begins with until it is written itself, as the last of all: so the disk tells by itself after a loss of power. Nothing takes
// it for a boot sector, a partition table or a file system.
const unfinished = "ironhand: an image was being written to this disk, and is not whole\n"

// Mark makes a disk one that Unfinished tells apart, for who writes more to it than an image. Its first sector has to be written last of all.
func Mark(dst Target) error {
	b := alignedBuffer(dst.SectorSize())
	copy(b, unfinished)
	if _, err := dst.WriteAt(b, 0); err != nil {
		return fmt.Errorf("mark the start of the disk: %w", err)
	}
	return nil
}

// MarkBootCode is Mark for a disk that keeps its partition table: the mark lies where boot code would, and is gone with clear.
func MarkBootCode(dst interface {
	Target
	io.ReaderAt
}, clear bool) error {
	const room = 440 // bytes of an MBR: UEFI 2.10 section 5.2.1
	b := alignedBuffer(dst.SectorSize())
	if _, err := dst.ReadAt(b, 0); err != nil {
		return fmt.Errorf("read the start of the disk: %w", err)
	}
	copy(b, make([]byte, room))
	if !clear {
		copy(b, unfinished)
	}
	if _, err := dst.WriteAt(b, 0); err != nil {
		return fmt.Errorf("mark the start of the disk: %w", err)
	}
	return dst.Sync()
}

// Unfinished tells whether a disk, of which r reads the start, is one to which [Write] was writing, or which had its [Mark], when the machine lost its power.
func Unfinished(r io.Reader) (bool, error) {
	b := make([]byte, len(unfinished))
	if _, err := io.ReadFull(r, b); err != nil {
		return false, fmt.Errorf("read the start of the disk: %w", err)
	}
	return string(b) == unfinished, nil
}

func flushDisk(dst Target) error {
	if err := dst.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}
