// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
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
// own. Skippable frames are skipped.
type zstdFrames struct {
	in     *bufio.Reader
	window int64 // the longest that is taken, bytes

	whole *zstd.Decoder // for short frames; nil before the first
	one   *zstd.Decoder // for a long one; nil before the first
	queue []*zstdShort  // in the order of the file
	taken int64         // bytes that the queue takes
	idle  []*zstdShort
	rest  []byte     // of the present short frame
	now   *zstdShort // that rest is of; nil if none
	long  io.Reader  // the frame that comes after the queue; nil if none
	busy  bool       // one is at it
	err   error      // that comes after the queue
}

// zstdShort is a short frame on its way.
type zstdShort struct {
	packed, out []byte
	takes       int64
	err         error
	done        chan struct{} // closed when out and err are there
}

func newZstdFrames(in *bufio.Reader, window int64) *zstdFrames {
	return &zstdFrames{in: in, window: window}
}

func (z *zstdFrames) Read(p []byte) (int, error) {
	for {
		if len(z.rest) > 0 {
			n := copy(p, z.rest)
			z.rest = z.rest[n:]
			return n, nil
		}
		if z.now != nil {
			z.taken -= z.now.takes
			z.idle = append(z.idle, z.now)
			z.now = nil
		}
		if z.busy {
			n, err := z.one.Read(p)
			if err == io.EOF {
				z.busy, z.long, err = false, nil, nil
			}
			if n > 0 || err != nil {
				return n, err
			}
			continue
		}
		for z.err == nil && z.long == nil && len(z.queue) < runtime.GOMAXPROCS(0) && (len(z.queue) == 0 || z.taken+2*shortFrame <= shortFrames) {
			z.err = z.next()
		}
		switch {
		case len(z.queue) > 0:
			s := z.queue[0]
			z.queue = z.queue[1:]
			<-s.done
			if s.err != nil {
				return 0, s.err
			}
			z.now, z.rest = s, s.out
		case z.long != nil:
			if err := z.begin(); err != nil {
				return 0, err
			}
		default:
			return 0, z.err
		}
	}
}

// begin has the long frame unpacked.
func (z *zstdFrames) begin() (err error) {
	z.busy = true
	if z.one == nil {
		z.one, err = zstd.NewReader(z.long, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(max(z.window, zstd.MinWindowSize))), zstd.WithDecoderMaxMemory(uint64(z.window)))
		return err
	}
	return z.one.Reset(z.long)
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
	f := &zstdFrame{in: z.in, left: h.HeaderSize, checksum: h.HasCheckSum}
	var s *zstdShort
	if n := len(z.idle); n > 0 {
		s, z.idle = z.idle[n-1], z.idle[:n-1]
	} else {
		s = &zstdShort{}
	}
	s.packed, s.err = s.packed[:0], nil
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
	z.long = io.MultiReader(&onceReader{s.packed}, f) // s is not used again: its bytes are
	return nil
}

// start has a short frame unpacked that unpacks to at most so many bytes.
func (z *zstdFrames) start(s *zstdShort, most int64) (err error) {
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
	s.takes, s.done = int64(cap(s.packed)+cap(s.out)), make(chan struct{})
	z.taken += s.takes
	z.queue = append(z.queue, s)
	go func() {
		defer close(s.done)
		s.out, s.err = z.whole.DecodeAll(s.packed, s.out[:0])
	}()
	return nil
}

// Close frees what unpacking needed.
func (z *zstdFrames) Close() {
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
	b, err := f.in.Peek(3)
	if err != nil {
		return short(err)
	}
	h := binary.LittleEndian.Uint32([]byte{b[0], b[1], b[2], 0})
	size := int(h >> 3)
	f.last = h&1 != 0
	switch f.left = 3; h >> 1 & 3 {
	case 0: // raw
		f.left += size
		f.most += int64(size)
	case 1: // one byte, repeated
		f.left++
		f.most += int64(size)
	case 2:
		f.left += size
		f.most += zstdBlock
	default:
		return errors.New("a block is of a kind that does not exist")
	}
	if size > zstdBlock {
		return fmt.Errorf("a block of %d bytes is too large", size)
	}
	if f.last && f.checksum {
		f.left += 4
	}
	return nil
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
