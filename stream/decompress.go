// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
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
	switch c.Compression = sniffCompression(head); c.Compression {
	case Plain:
		if format := sniffForeign(head); format != "" {
			return nil, &FormatError{Format: format}
		}
		c.QCOW2 = isQCOW2(head)
		c.r = packed
		return c, nil
	case Gzip:
		c.r = &members{packed: packed}
	case Zstd:
		c.Least = zstdLeast(head)
		z := newZstdFrames(packed, maxWindow)
		c.r, c.close = z, z.Close
	case XZ:
		c.r = &streams{packed: packed, window: uint32(maxWindow)}
	case Bzip2:
		c.r = bzip2.NewReader(packed)
	case LZ4:
		d := lz4.NewReader(packed)
		if err := d.Apply(lz4.ConcurrencyOption(lz4Blocks)); err != nil {
			return nil, fmt.Errorf("unpack lz4: %w", err)
		}
		c.r, c.close = d, func() { d.Reset(nil) }
	}
	content := bufio.NewReaderSize(&unpacking{c.r, in, c.Compression, maxWindow}, 64<<10)
	if head, err = peek(content); err != nil {
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
	if c.r, c.QCOW2 = content, isQCOW2(head); c.QCOW2 {
		c.Least = 0 // what is packed is no disk
	}
	return c, nil
}

// Read reads the bytes of the disk. Errors of the reader given to [Decompress] come as they are, others say what is wrong with the
// packed data.
func (c *Content) Read(p []byte) (int, error) { return c.r.Read(p) }

// Close frees what unpacking needed.
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

// unpacking gives errors their words.
type unpacking struct {
	r           io.Reader
	in          *blame
	compression Compression
	window      int64
}

func (u *unpacking) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case u.in.err != nil:
		return n, u.in.err
	case errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) || err == xz.ErrMemlimit:
		err = windowError(0, u.window)
	case err == xz.ErrBuf: // what it has read did not suffice
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("unpack %s: %w", u.compression, err)
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

// zstdLeast is the length of the first frame's content, if its header tells it.
func zstdLeast(head []byte) int64 {
	var h zstd.Header
	if err := h.Decode(head); err != nil || !h.HasFCS || h.FrameContentSize > 1<<62 {
		return 0 // a header that is wrong is found when the frame is read
	}
	return int64(h.FrameContentSize)
}

// streams reads the streams of an xz file.
type streams struct {
	packed *bufio.Reader
	window uint32
	r      *xz.Reader // nil before the first byte
}

func (s *streams) Read(p []byte) (n int, err error) {
	if s.r == nil { // it reads at once, and what is wrong is told as later on
		if s.r, err = xz.NewReader(s.packed, s.window); err != nil {
			return 0, err
		}
	}
	return s.r.Read(p)
}

// members reads the members of a gzip file one after the other, and knows what may come after the last one.
type members struct {
	packed *bufio.Reader // gzip takes no byte from it beyond the end of a member
	member *gzip.Reader  // nil before the first
	ended  bool          // the member has
}

func (m *members) Read(p []byte) (int, error) {
	for {
		if m.member == nil || m.ended {
			if err := m.next(); err != nil {
				return 0, err
			}
		}
		n, err := m.member.Read(p)
		if err == io.EOF {
			m.ended, err = true, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next opens the next member; io.EOF if there is none.
func (m *members) next() error {
	var err error
	if m.member == nil {
		m.member, err = gzip.NewReader(m.packed)
	} else {
		magic, perr := m.packed.Peek(2)
		switch {
		case len(magic) == 0:
			return perr
		case magic[0] == 0:
			return m.padding()
		case !bytes.Equal(magic, []byte("\x1f\x8b")):
			return errors.New("what follows a member is neither a member nor zeros")
		}
		err = m.member.Reset(m.packed)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	m.member.Multistream(false)
	m.ended = false
	return nil
}

// padding reads zeros to the end of the file.
func (m *members) padding() error {
	for {
		b, err := m.packed.ReadByte()
		switch {
		case err != nil:
			return err
		case b != 0:
			return errors.New("what follows the zeros after the last member is not zero")
		}
	}
}
