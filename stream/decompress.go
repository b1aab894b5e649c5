// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// MaxWindow is the longest window, in bytes, that a zstd frame may ask for. It is what zstd makes at most unless it is given
// --long=28 or more. Frames of zstd's usual levels need 8 MiB or less; the window is held in memory.
const MaxWindow = 128 << 20

// Content is what is in an image as it is published: the bytes of the disk.
type Content struct {
	Compression Compression // what was taken off
	QCOW2       bool        // it is a disk image in QEMU's format qcow2, and not the bytes of a disk
	// Least is how many bytes the content has at the least, as the start of the file says; 0 if it does not.
	Least int64

	r     io.Reader
	close func()
}

// Decompress recognises what an image is packed with, by its first bytes, and unpacks it. What turns out to be neither packed
// nor a raw or qcow2 disk image is refused with a [FormatError]: so is a packed file inside a packed file.
//
// maxWindow bounds the window of a zstd frame and the dictionary of an xz block, in bytes; 0 stands for MaxWindow. It is held in memory.
//
// After a gzip member another may follow, or zeros, as with gzip(1); after a zstd or lz4 frame another frame may, as with zstd(1), after a stream of xz or bzip2
// another one. All else after them is an error. Close must be called; it does not close r.
func Decompress(r io.Reader, maxWindow int64) (*Content, error) {
	if maxWindow <= 0 || maxWindow > MaxWindow {
		maxWindow = MaxWindow
	}
	c := &Content{close: func() {}}
	in := &blame{r: r}
	packed := bufio.NewReaderSize(in, 64<<10)
	head, err := peek(packed)
	if err != nil {
		return nil, err
	}
	c.Compression = sniffCompression(head)
	if c.Compression == Plain {
		if format := sniffForeign(head); format != "" {
			return nil, &FormatError{Format: format}
		}
		c.QCOW2 = isQCOW2(head)
		c.r = packed
		return c, nil
	}
	c.Least = zstdLeast(c.Compression, head)
	content := newAhead(func(a *ahead) error {
		return c.words(unpackTo(c.Compression, packed, maxWindow, a), in, maxWindow)
	})
	c.r, c.close = content, content.Close
	if head, err = content.peek(sniffLength); err != nil {
		c.close()
		return nil, err
	}
	format := sniffForeign(head)
	if inner := sniffCompression(head); inner != Plain {
		format = string(inner) + " file"
	}
	if format != "" {
		c.close()
		return nil, &FormatError{Format: format, Inside: string(c.Compression)}
	}
	if c.QCOW2 = isQCOW2(head); c.QCOW2 {
		c.Least = 0 // what is packed is no disk
	}
	return c, nil
}

// unpackTo unpacks a file to its end, into a.
func unpackTo(c Compression, packed *bufio.Reader, maxWindow int64, a *ahead) error {
	switch c {
	case Gzip:
		return gunzip(packed, a.put)
	case Zstd:
		return unzstd(packed, maxWindow, a)
	case XZ:
		return unxz(packed, maxWindow, a)
	case Bzip2:
		return a.copy(bzip2.NewReader(packed))
	}
	d := lz4.NewReader(packed)
	if err := d.Apply(lz4.ConcurrencyOption(lz4Blocks)); err != nil {
		return err
	}
	defer d.Reset(nil)
	return a.copy(d)
}

// Read reads the bytes of the disk. Errors of the reader given to [Decompress] come as they are, others say what is wrong with the
// packed data.
func (c *Content) Read(p []byte) (int, error) { return c.r.Read(p) }

// Close ends the unpacking and frees what it needed. It waits for the reader given to [Decompress] to return, and may be called more than once.
func (c *Content) Close() error {
	c.close()
	return nil
}

// peek returns the start of what is in r, up to sniffLength bytes. That there are fewer is no error.
func peek(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(sniffLength)
	if err == io.EOF {
		err = nil
	}
	return head, err
}

// blame remembers the error of the reader underneath, so that a broken network is not taken for a broken file.
type blame struct {
	r   io.Reader
	err error
}

func (b *blame) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// words gives errors their words.
func (c *Content) words(err error, in *blame, window int64) error {
	switch {
	case err == nil || err == errQuit:
		return err
	case in.err != nil:
		return in.err
	case errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) || err == xz.ErrMemlimit:
		err = windowError(0, window)
	case err == xz.ErrBuf: // what it has read did not suffice
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("unpack %s: %w", c.Compression, err)
}

// lz4Blocks is how many blocks of an lz4 frame, of at most 4 MiB, are unpacked side by side.
const lz4Blocks = 2

// ErrWindow says that a packed image takes more memory to unpack than there is, or than is allowed.
var ErrWindow = errors.New("its window is too large")

// windowError names what is needed, 0 if that is not known.
func windowError(need, most int64) error {
	needs := "more than that"
	if need > 0 {
		needs = fmt.Sprintf("%d MiB", need>>20)
	}
	why := "this machine has memory for"
	if most == MaxWindow {
		why = "the most that is taken is"
	}
	return fmt.Errorf("%w: it needs %s, %s %d MiB; pack it with a smaller one, such as zstd --long=23 or xz -6", ErrWindow, needs, why, most>>20)
}

// checkWindow looks at the first frame, so that an image that will not do is refused before a disk is touched.
func checkWindow(head []byte, most int64) error {
	var h zstd.Header
	if err := h.Decode(head); err != nil || h.Skippable {
		return nil // what is wrong is found when the frame is read
	}
	need := h.WindowSize
	if h.SingleSegment {
		need = h.FrameContentSize
	}
	if need > uint64(most) {
		return windowError(int64(min(need, 1<<62)), most)
	}
	return nil
}

// zstdLeast is the length of the first frame's content of a zstd file, if its header tells it.
func zstdLeast(c Compression, head []byte) int64 {
	var h zstd.Header
	if c != Zstd {
		return 0
	}
	if err := h.Decode(head); err != nil || !h.HasFCS || h.FrameContentSize > 1<<62 {
		return 0 // a header that is wrong is found when the frame is read
	}
	return int64(h.FrameContentSize)
}
