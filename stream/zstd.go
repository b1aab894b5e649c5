// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

const (
	// shortFrame is what a frame has at the most, packed and unpacked, in bytes, to be unpacked whole, side by side with others.
	shortFrame = 8 << 20
	// shortFrames is how many bytes such frames may take together, packed and unpacked.
	shortFrames = 48 << 20
	// zstdBlock is the most that a block unpacks to, in bytes (RFC 8878, 3.1.1.2.4).
	zstdBlock = 128 << 10
)

// zstdFrames unpacks the frames of a zstd file: a short one side by side with those after it, as files made for seeking have them, a long one on its
// own. Skippable frames are skipped. Long stretches of zeros, which most images have, are not unpacked: of short frames the same bytes are the same zeros, and of a
// long one the blocks that say so are left out as soon as all that a match could reach back to is zero.
type zstdFrames struct {
	in     *bufio.Reader
	window int64 // the longest that is taken, bytes
	out    *ahead

	whole *zstd.Decoder // for short frames; nil before the first
	one   *zstd.Decoder // for a long one; nil before the first
	queue []*zstdShort  // in the order of the file
	taken int64         // bytes that the queue takes
	idle  []*zstdShort
	long  *zstdLong // the frame that comes after the queue; nil if none
	err   error     // that comes after the queue

	blank  []byte // a short frame, packed, that unpacks to zeros; empty if none was seen
	blanks int64  // how many
}

// zstdShort is a short frame on its way.
type zstdShort struct {
	packed, out []byte
	blanks      int64 // that it unpacks to, and nothing else, if it is not 0
	takes       int64
	err         error
	done        chan struct{} // closed when out and err are there
}

// mostBlank is how long a short frame, packed, can be of which the zeros are remembered, in bytes.
const mostBlank = 4 << 10

// unzstd unpacks a file to its end.
func unzstd(in *bufio.Reader, window int64, out *ahead) error {
	z := &zstdFrames{in: in, window: window, out: out}
	defer z.close()
	for {
		for z.err == nil && z.long == nil && len(z.queue) < runtime.GOMAXPROCS(0) && (len(z.queue) == 0 || z.taken+2*shortFrame <= shortFrames) {
			z.err = z.next()
		}
		var err error
		switch {
		case len(z.queue) > 0:
			s := z.queue[0]
			z.queue = z.queue[1:]
			<-s.done
			if err = s.err; err == nil {
				err = z.put(s)
			}
			z.taken -= s.takes
			z.idle = append(z.idle, s)
		case z.long != nil:
			err = z.unpackLong(z.long)
			z.long = nil
		case z.err == io.EOF:
			return nil
		default:
			return z.err
		}
		if err != nil {
			return err
		}
	}
}

// put hands on what a short frame has unpacked to.
func (z *zstdFrames) put(s *zstdShort) error {
	if s.blanks > 0 {
		return z.out.zero(s.blanks)
	}
	if len(s.packed) <= mostBlank && len(s.out) > holeSize && allZero(s.out) {
		z.blank, z.blanks = append(z.blank[:0], s.packed...), int64(len(s.out))
	}
	return z.out.put(s.out)
}

// zstdLong is a frame that is unpacked on its own, of which the start was read.
type zstdLong struct {
	start []byte
	frame *zstdFrame

	// If its header was changed, so that blocks may be left out:
	checked bool
	window  int64  // bytes that a match may reach back
	zeros   int64  // bytes that came last and are all zero
	size    uint64 // that it has unpacked to
	want    uint64 // that it has to unpack to
	anySize bool
	sum     xxh64
	hasSum  bool
}

// unpackLong unpacks a long frame.
func (z *zstdFrames) unpackLong(l *zstdLong) (err error) {
	r := io.MultiReader(&onceReader{l.start}, l.frame)
	l.start = nil
	if z.one == nil { // by one goroutine, which asks for a block when it has handed on those before it
		z.one, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(max(z.window, zstd.MinWindowSize))), zstd.WithDecoderMaxMemory(uint64(z.window)))
	} else {
		err = z.one.Reset(r)
	}
	if err != nil {
		return err
	}
	if !l.checked {
		_, err := z.one.WriteTo(writerFunc(z.out.put))
		return err
	}
	l.sum.reset()
	blank := func(n int64) error {
		l.zeros += n
		l.size += uint64(n)
		if l.hasSum {
			l.sum.zeros(n)
		}
		return z.out.zero(n)
	}
	l.frame.blank = func(n int64) (bool, error) {
		if l.zeros < l.window {
			return false, nil
		}
		return true, blank(n)
	}
	_, err = z.one.WriteTo(writerFunc(func(b []byte) error {
		if allZero(b) {
			return blank(int64(len(b)))
		}
		l.zeros = 0
		if l.size += uint64(len(b)); !l.anySize && l.size > l.want {
			return zstd.ErrFrameSizeExceeded
		}
		if l.hasSum {
			l.sum.write(b)
		}
		return z.out.put(b)
	}))
	if err != nil {
		return err
	}
	if !l.anySize && l.size != l.want {
		return zstd.ErrFrameSizeMismatch
	}
	if l.hasSum {
		var sum [4]byte
		if _, err := io.ReadFull(z.in, sum[:]); err != nil {
			return io.ErrUnexpectedEOF
		}
		if binary.LittleEndian.Uint32(sum[:]) != uint32(l.sum.sum()) {
			return zstd.ErrCRCMismatch
		}
	}
	return nil
}

type writerFunc func([]byte) error

func (f writerFunc) Write(b []byte) (int, error) {
	if err := f(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// next takes the next frame from the file: a short one into the queue, or the start of a long one. io.EOF if there is none.
func (z *zstdFrames) next() error {
	head, err := z.in.Peek(zstd.HeaderMaxSize)
	if len(head) == 0 || err != nil && err != io.EOF {
		return err
	}
	var h zstd.Header
	switch err := h.Decode(head); {
	case err != nil && len(head) >= 4 && sniffCompression(head) != Zstd:
		return errors.New("what follows a frame is not a frame")
	case err != nil:
		return short(err)
	case h.Skippable:
		n := h.HeaderSize + int(h.SkippableSize)
		if _, err := z.in.Discard(n); err != nil {
			return short(err)
		}
		return nil
	}
	if err := checkWindow(head, z.window); err != nil {
		return err
	}
	descriptor := head[5] // of the window, where there is one
	f := &zstdFrame{in: z.in, left: h.HeaderSize, checksum: h.HasCheckSum}
	var s *zstdShort
	if n := len(z.idle); n > 0 {
		s, z.idle = z.idle[n-1], z.idle[:n-1]
	} else {
		s = &zstdShort{}
	}
	s.packed, s.err, s.blanks, s.takes = s.packed[:0], nil, 0, 0
	for len(s.packed) < shortFrame && f.most < shortFrame {
		if cap(s.packed) == len(s.packed) {
			s.packed = append(s.packed, make([]byte, max(64<<10, len(s.packed)))...)[:len(s.packed)]
		}
		n, err := f.Read(s.packed[len(s.packed):min(cap(s.packed), shortFrame)])
		s.packed = s.packed[:len(s.packed)+n]
		if err == io.EOF {
			if h.HasFCS && h.FrameContentSize > uint64(f.most) { // memory would be taken for it
				return fmt.Errorf("a frame says that it has %d bytes, its blocks have at most %d", h.FrameContentSize, f.most)
			}
			return z.start(s, f.most)
		}
		if err != nil {
			return err
		}
	}
	z.long = &zstdLong{start: s.packed, frame: f} // s is not used again: its bytes are
	if !f.last && !h.SingleSegment && h.DictionaryID == 0 {
		// The same frame without the content's length and sum, which would be wrong for the blocks that are left. RFC 8878, 3.1.1.1.
		l := z.long
		l.checked, l.want, l.anySize, l.hasSum, l.window = true, h.FrameContentSize, !h.HasFCS, h.HasCheckSum, int64(h.WindowSize)
		f.checksum = false
		l.start = l.start[h.HeaderSize-6:]
		copy(l.start, []byte{0x28, 0xb5, 0x2f, 0xfd, 0, descriptor})
	}
	return nil
}

// start has a short frame unpacked that unpacks to at most so many bytes.
func (z *zstdFrames) start(s *zstdShort, most int64) (err error) {
	s.done = make(chan struct{})
	if len(z.blank) > 0 && bytes.Equal(s.packed, z.blank) {
		s.blanks = z.blanks
		z.queue = append(z.queue, s)
		close(s.done)
		return nil
	}
	if z.whole == nil {
		z.whole, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(max(z.window, zstd.MinWindowSize))), zstd.WithDecoderMaxMemory(uint64(max(z.window, shortFrame))))
		if err != nil {
			return err
		}
	}
	if int64(cap(s.out)) < most {
		s.out = make([]byte, 0, most)
	}
	s.takes = int64(cap(s.packed) + cap(s.out))
	z.taken += s.takes
	z.queue = append(z.queue, s)
	go func() {
		defer close(s.done)
		s.out, s.err = z.whole.DecodeAll(s.packed, s.out[:0])
	}()
	return nil
}

// close frees what unpacking needed.
func (z *zstdFrames) close() {
	for _, s := range z.queue {
		<-s.done
	}
	z.queue = nil
	for _, d := range []*zstd.Decoder{z.whole, z.one} {
		if d != nil {
			d.Close()
		}
	}
}

// zstdFrame reads the packed bytes of one frame, and no byte after it (RFC 8878, 3.1.1). It looks at the headers of the blocks only.
type zstdFrame struct {
	in       *bufio.Reader
	left     int   // bytes until the next header of a block, or the end
	last     bool  // that is the end
	checksum bool  // which comes after the last block
	most     int64 // bytes that the blocks so far unpack to, at the most

	// blank is asked whether a block of n zeros is to be left out. Nil to leave none out.
	blank func(n int64) (bool, error)
}

func (f *zstdFrame) Read(p []byte) (int, error) {
	if f.left == 0 {
		if f.last {
			return 0, io.EOF
		}
		if err := f.block(); err != nil {
			return 0, err
		}
	}
	n, err := f.in.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, short(err)
}

// block reads the header of the next block: 1 bit for the last, 2 for the kind, 21 for the size.
func (f *zstdFrame) block() error {
	for {
		b, err := f.in.Peek(3)
		if err != nil {
			return short(err)
		}
		h := binary.LittleEndian.Uint32([]byte{b[0], b[1], b[2], 0})
		size := int(h >> 3)
		f.last = h&1 != 0
		zeros := false
		switch f.left = 3; h >> 1 & 3 {
		case 0: // raw
			f.left += size
			f.most += int64(size)
		case 1: // one byte, repeated
			f.left++
			f.most += int64(size)
			if b, err = f.in.Peek(4); err != nil {
				return short(err)
			}
			zeros = b[3] == 0
		case 2:
			f.left += size
			f.most += zstdBlock
		default:
			return errors.New("a block is of a kind that does not exist")
		}
		if size > zstdBlock {
			return fmt.Errorf("a block of %d bytes is too large", size)
		}
		if zeros && !f.last && f.blank != nil {
			out, err := f.blank(int64(size))
			if err != nil {
				return err
			}
			if out {
				if _, err := f.in.Discard(4); err != nil {
					return err
				}
				continue
			}
		}
		if f.last && f.checksum {
			f.left += 4
		}
		return nil
	}
}

// onceReader reads b and then lets go of it.
type onceReader struct{ b []byte }

func (r *onceReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		r.b = nil
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// short is io.ErrUnexpectedEOF for io.EOF.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
