// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"sync"

	"github.com/therootcompany/xz"
)

const (
	// xzMemory is what unpacking the blocks of an xz file side by side takes, in bytes: a half for dictionaries, three eighths for what is unpacked and has to wait for
	// the blocks before it, an eighth for what is packed. A block whose dictionary alone is longer than the half is unpacked on its own.
	xzMemory = 48 << 20
	// xzPiece is in how many bytes at a time what was unpacked is handed on.
	xzPiece = 256 << 10
	// xzChunk is in how many packed bytes at a time a block is fed to who unpacks it.
	xzChunk = 64 << 10
	// xzLead is how many pieces and chunks the first block of the queue may have waiting, whatever the others have: so it always goes on.
	xzLead = 4
)

var (
	errXZHeader = errors.New("the header of a block is damaged")
	errXZIndex  = errors.New("the index does not fit the blocks")
	errXZEnd    = errors.New("the end of a stream is damaged")
)

// xzFile unpacks the blocks of an xz file side by side (the .xz file format, version 1.2.1). One goroutine reads the file. It finds the end of a block by the headers of the
// chunks in it (LZMA2 has the lengths of each, packed and unpacked), so no length in the file has to be believed or is ever allocated. Each block is given
// to a decoder as a stream of its own, whose index we make: that way the decoder checks all that belongs to the block, and that we have read its lengths right. The true index is compared with them by us.
//
// What the first block unpacks to is handed on at once, what those behind it do is kept as far as the memory reaches; they stop there until it is their turn. So a file
// of one block streams.
type xzFile struct {
	in     *bufio.Reader
	out    *ahead
	window int64 // the longest dictionary that is taken, bytes

	workers                int   // blocks that are unpacked at a time
	mostDicts              int64 // bytes
	mostPieces, mostChunks int

	all  sync.WaitGroup
	mu   sync.Mutex
	news *sync.Cond // something of this has changed:

	stopped bool // nobody wants the rest
	ended   bool // the file was read to its end, or to err
	err     error
	queue   []*xzBlock // that have begun and are not handed on whole; in the order of the file
	running int        // of them that hold a decoder
	dicts   int64      // bytes of dictionaries that all decoders have
	idle    []*xzDecoder
	pieces  buffers
	chunks  buffers
	blank   [sha256.Size]byte // of a packed block that unpacks to zeros
	blanks  int64             // how many; 0 if none was seen
}

// buffers are some of the same size, that are used again.
type buffers struct {
	size int
	used int
	free [][]byte
}

func (b *buffers) take() []byte {
	b.used++
	if n := len(b.free); n > 0 {
		buf := b.free[n-1]
		b.free = b.free[:n-1]
		return buf
	}
	return make([]byte, b.size)
}

func (b *buffers) give(buf []byte) {
	b.used--
	b.free = append(b.free, buf[:b.size])
}

type xzDecoder struct {
	r     *xz.Reader
	dict  int64 // the longest dictionary that it has had
	piece []byte
}

// xzBlock is a block on its way.
type xzBlock struct {
	decoder *xzDecoder
	begun   bool     // somebody unpacks it
	packed  [][]byte // that are yet to be unpacked
	fed     error    // what comes after them, io.EOF if the block is whole; nil if there is more to come
	out     []piece  // that are to be handed on
	waiting bool     // for memory
	done    bool     // nothing comes after out but err
	err     error

	small  bool              // it was fed in one chunk
	sum    [sha256.Size]byte // of that
	blanks int64             // that it has unpacked to so far; -1 if there was something else
}

// unxz unpacks a file to its end.
func unxz(in *bufio.Reader, window int64, out *ahead) error {
	return newXZFile(in, window, out, runtime.GOMAXPROCS(0)).unpack()
}

func newXZFile(in *bufio.Reader, window int64, out *ahead, workers int) *xzFile {
	memory := min(xzMemory, window)
	x := &xzFile{
		in: in, out: out, window: window, workers: workers,
		mostDicts: memory / 2, mostPieces: int(memory * 3 / 8 / xzPiece), mostChunks: int(memory / 8 / xzChunk),
		pieces: buffers{size: xzPiece}, chunks: buffers{size: xzChunk},
	}
	x.news = sync.NewCond(&x.mu)
	return x
}

func (x *xzFile) unpack() error {
	x.all.Go(func() {
		err := x.read()
		x.mu.Lock()
		x.ended, x.err = true, err
		x.mu.Unlock()
		x.news.Broadcast()
	})
	err := x.hand()
	x.mu.Lock()
	x.stopped = true
	x.mu.Unlock()
	x.news.Broadcast()
	x.all.Wait()
	return err
}

// hand hands on what the blocks unpack to, in the order of the file.
func (x *xzFile) hand() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		switch {
		case len(x.queue) == 0 && x.ended:
			return x.err
		case len(x.queue) > 0 && len(x.queue[0].out) > 0:
			b := x.queue[0]
			p := b.out[0]
			b.out = b.out[1:]
			x.mu.Unlock()
			err := x.put(p)
			x.mu.Lock()
			if err != nil {
				return err
			}
			if p.b != nil {
				x.pieces.give(p.b)
			}
			x.news.Broadcast()
		case len(x.queue) > 0 && x.queue[0].done:
			if err := x.queue[0].err; err != nil {
				return err
			}
			x.queue[0] = nil
			x.queue = x.queue[1:]
			x.news.Broadcast()
		default:
			x.news.Wait()
		}
	}
}

func (x *xzFile) put(p piece) error {
	if p.zeros > 0 {
		return x.out.zero(p.zeros)
	}
	return x.out.put(p.b)
}

// unpackBlock is what the goroutine of a block does.
func (x *xzFile) unpackBlock(b *xzBlock) {
	d := b.decoder
	err := d.r.Reset(&xzFeed{x: x, b: b})
	for err == nil {
		n := 0
		for n < len(d.piece) && err == nil {
			var m int
			m, err = d.r.Read(d.piece[n:])
			n += m
		}
		if n > 0 && !x.keep(b, n) {
			err = errQuit
		}
	}
	if err == io.EOF {
		err = nil
	}
	x.mu.Lock()
	if err == nil && b.small && b.blanks >= holeSize {
		x.blank, x.blanks = b.sum, b.blanks
	}
	x.finish(b, err)
	x.mu.Unlock()
}

// finish marks a block as unpacked. Its decoder is free again.
func (x *xzFile) finish(b *xzBlock, err error) {
	b.done, b.err = true, err
	x.idle = append(x.idle, b.decoder)
	b.decoder = nil
	x.running--
	x.news.Broadcast()
}

// keep has the first n bytes of the decoder's piece handed on when it is the block's turn. It waits until there is memory for them, which zeros do not need. False if nobody wants them.
func (x *xzFile) keep(b *xzBlock, n int) bool {
	p := b.decoder.piece[:n]
	blank := allZero(p)
	zero := blank && n >= holeSize
	x.mu.Lock()
	defer x.mu.Unlock()
	if !blank {
		b.blanks = -1
	} else if b.blanks >= 0 {
		b.blanks += int64(n)
	}
	if last := len(b.out) - 1; zero && last >= 0 && b.out[last].zeros > 0 {
		b.out[last].zeros += int64(n)
	} else if zero {
		b.out = append(b.out, piece{zeros: int64(n)})
	} else {
		for b.waiting = true; !x.stopped && !x.roomFor(b); {
			x.news.Wait()
		}
		b.waiting = false
		if x.stopped {
			return false
		}
		b.decoder.piece = x.pieces.take()
		b.out = append(b.out, piece{b: p})
	}
	x.news.Broadcast()
	return true
}

// roomFor tells whether a block may keep one piece more. What is nearer to its turn goes first.
func (x *xzFile) roomFor(b *xzBlock) bool {
	if b == x.queue[0] {
		return len(b.out) < xzLead
	}
	if x.pieces.used >= x.mostPieces {
		return false
	}
	for _, before := range x.queue[1:] {
		if before == b {
			break
		}
		if before.waiting {
			return false
		}
	}
	return true
}

// xzFeed reads the packed bytes of a block.
type xzFeed struct {
	x     *xzFile
	b     *xzBlock
	chunk []byte
	rest  []byte // of it
}

func (f *xzFeed) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *xzFeed) next() error {
	x, b := f.x, f.b
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.chunk != nil {
		x.chunks.give(f.chunk)
		f.chunk = nil
		x.news.Broadcast()
	}
	for !x.stopped && len(b.packed) == 0 && b.fed == nil {
		x.news.Wait()
	}
	if x.stopped {
		return errQuit
	}
	if len(b.packed) == 0 {
		return b.fed
	}
	f.chunk = b.packed[0]
	f.rest = f.chunk
	b.packed = b.packed[1:]
	return nil
}

// read reads the file: streams, with padding between them and at the end.
func (x *xzFile) read() error {
	for {
		if err := x.readStream(); err != nil {
			return err
		}
		for {
			pad, err := x.in.Peek(4)
			switch {
			case len(pad) == 0 && err == io.EOF:
				return nil
			case err != nil:
				return short(err)
			case string(pad) == "\x00\x00\x00\x00":
				if _, err := x.in.Discard(4); err != nil {
					return err
				}
				continue
			}
			break
		}
	}
}

// xzRecords is what the index of a stream has to have.
type xzRecords struct {
	count  uint64
	length int64     // of all records, bytes
	sum    hash.Hash // of them
}

func (x *xzFile) readStream() error {
	var header [12]byte
	if _, err := io.ReadFull(x.in, header[:]); err != nil {
		return short(err)
	}
	flags := header[6:8]
	switch {
	case string(header[:6]) != "\xfd7zXZ\x00":
		return errors.New("what follows a stream is not a stream")
	case crc32.ChecksumIEEE(flags) != binary.LittleEndian.Uint32(header[8:]):
		return errors.New("the header of a stream is damaged")
	case flags[0] != 0 || flags[1] > 15:
		return xz.ErrOptions
	}
	check, ok := xzChecks[flags[1]]
	if !ok {
		return xz.ErrUnsupportedCheck
	}
	records := xzRecords{sum: sha256.New()}
	for {
		next, err := x.in.Peek(1)
		if err != nil {
			return short(err)
		}
		if next[0] == 0 {
			return x.readIndex(flags, &records)
		}
		unpadded, unpacked, err := x.readBlock(header[:], (int(next[0])+1)*4, check)
		if err != nil {
			return err
		}
		record := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(unpadded)), uint64(unpacked))
		records.sum.Write(record)
		records.count++
		records.length += int64(len(record))
	}
}

// xzChecks are the lengths of the checks that there are, bytes: none, CRC32, CRC64, SHA-256.
var xzChecks = map[byte]int{0: 0, 1: 4, 4: 8, 10: 32}

// readBlock has the next block unpacked, and returns its lengths as the index has them. What is wrong with it is found by who unpacks it, as soon as its bytes are read.
func (x *xzFile) readBlock(streamHeader []byte, headerSize, check int) (unpadded, unpacked int64, err error) {
	header, err := x.in.Peek(headerSize)
	if err != nil {
		return 0, 0, short(err)
	}
	dict, err := xzDict(header)
	if err != nil {
		return 0, 0, err
	}
	if dict > x.window {
		return 0, 0, windowError(dict, x.window)
	}
	f := &xzFeeder{x: x}
	if f.b, err = x.begin(dict); err != nil {
		return 0, 0, err
	}
	defer func() {
		if err != nil {
			f.end(err)
		}
	}()
	if err := f.put(streamHeader); err != nil {
		return 0, 0, err
	}
	if err := f.pass(headerSize); err != nil {
		return 0, 0, err
	}
	var packed int64
	for last := false; !last; {
		var size, out int
		if size, out, last, err = x.peekChunk(); err != nil {
			return 0, 0, err
		}
		if err := f.pass(size); err != nil {
			return 0, 0, err
		}
		packed += int64(size)
		unpacked += int64(out)
	}
	if err := f.pass(int(-packed&3) + check); err != nil {
		return 0, 0, err
	}
	unpadded = int64(headerSize) + packed + int64(check)
	index := xzIndex(unpadded, unpacked)
	if err := f.put(append(index, xzFooter(int64(len(index)), streamHeader[6:8])...)); err != nil {
		return 0, 0, err
	}
	f.end(io.EOF)
	return unpadded, unpacked, nil
}

// xzDict returns how long a dictionary a block needs, in bytes, by its header.
func xzDict(header []byte) (int64, error) {
	end := len(header) - 4
	if crc32.ChecksumIEEE(header[:end]) != binary.LittleEndian.Uint32(header[end:]) {
		return 0, errXZHeader
	}
	at := 2
	for _, has := range []byte{0x40, 0x80} { // the lengths, packed and unpacked
		if header[1]&has != 0 {
			for at < end && header[at]&0x80 != 0 {
				at++
			}
			at++
		}
	}
	for filters := header[1] & 3; at+3 <= end; filters-- {
		id, size := header[at], int(header[at+1])
		at += 2
		if filters > 0 {
			at += size
			continue
		}
		bits := header[at]
		switch {
		case id != 0x21 || size != 1 || bits > 40: // LZMA2 is the last
			return 0, xz.ErrOptions
		case bits == 40:
			return math.MaxUint32, nil
		}
		return int64(2|bits&1) << (bits/2 + 11), nil
	}
	return 0, xz.ErrOptions
}

// peekChunk looks at the header of the next chunk of LZMA2: what the chunk takes with it, what it unpacks to, and whether it is the last, which is nothing but a zero.
func (x *xzFile) peekChunk() (size, unpacked int, last bool, err error) {
	h, err := x.in.Peek(1)
	if err != nil {
		return 0, 0, false, short(err)
	}
	n := 0
	switch control := h[0]; {
	case control == 0:
		return 1, 0, true, nil
	case control <= 2: // not packed
		n = 3
	case control < 0x80:
		return 0, 0, false, xz.ErrData
	case control < 0xc0:
		n = 5
	default: // with properties
		n = 6
	}
	if h, err = x.in.Peek(n); err != nil {
		return 0, 0, false, short(err)
	}
	unpacked = int(binary.BigEndian.Uint16(h[1:])) + 1
	if n == 3 {
		return n + unpacked, unpacked, false, nil
	}
	return n + int(binary.BigEndian.Uint16(h[3:])) + 1, unpacked + int(h[0]&0x1f)<<16, false, nil
}

// begin waits until one more block can be unpacked, and puts it into the queue.
func (x *xzFile) begin(dict int64) (*xzBlock, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		if x.stopped {
			return nil, errQuit
		}
		if x.running < x.workers && len(x.queue) < 8*x.workers {
			if d := x.decoder(dict); d != nil {
				b := &xzBlock{decoder: d}
				x.queue = append(x.queue, b)
				x.running++
				return b, nil
			}
		}
		x.news.Wait()
	}
}

// decoder returns one that may have a dictionary of that length, nil if there is none now. None is let go for a smaller one, so a file in which long and short ones take turns
// does not have us make a new one again and again.
func (x *xzFile) decoder(dict int64) *xzDecoder {
	for i, d := range x.idle {
		if d.dict >= dict {
			x.idle = append(x.idle[:i], x.idle[i+1:]...)
			return d
		}
	}
	if x.dicts+dict > x.mostDicts {
		if x.running > 0 {
			return nil
		}
		x.idle, x.dicts = nil, 0
	}
	x.dicts += dict
	r, _ := xz.NewReader(nil, uint32(x.window)) // it reads nothing yet
	return &xzDecoder{r: r, dict: dict, piece: make([]byte, xzPiece)}
}

// xzFeeder gives a block its packed bytes.
type xzFeeder struct {
	x     *xzFile
	b     *xzBlock
	chunk []byte // that is being filled
	n     int    // bytes in it
}

// room sees to it that there is room in chunk.
func (f *xzFeeder) room() error {
	x, b := f.x, f.b
	if f.chunk != nil && f.n < len(f.chunk) {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.chunk != nil {
		f.give()
	}
	for !x.stopped && x.chunks.used >= x.mostChunks && (b != x.queue[0] || len(b.packed) >= xzLead) {
		x.news.Wait()
	}
	if x.stopped {
		return errQuit
	}
	f.chunk, f.n = x.chunks.take(), 0
	return nil
}

// give gives the block what is in chunk. Unpacking begins with the first.
func (f *xzFeeder) give() {
	x, b := f.x, f.b
	b.packed = append(b.packed, f.chunk[:f.n])
	f.chunk = nil
	if !b.begun {
		b.begun = true
		x.all.Go(func() { x.unpackBlock(b) })
	}
	x.news.Broadcast()
}

// put gives the block bytes of ours.
func (f *xzFeeder) put(p []byte) error {
	for len(p) > 0 {
		if err := f.room(); err != nil {
			return err
		}
		n := copy(f.chunk[f.n:], p)
		f.n += n
		p = p[n:]
	}
	return nil
}

// pass gives the block the next n bytes of the file.
func (f *xzFeeder) pass(n int) error {
	for n > 0 {
		if err := f.room(); err != nil {
			return err
		}
		m, err := f.x.in.Read(f.chunk[f.n:min(len(f.chunk), f.n+n)])
		f.n += m
		n -= m
		if err != nil {
			return short(err)
		}
	}
	return nil
}

// end says what comes after the bytes that were given: io.EOF if the block is whole. Whole blocks of zeros are the same again and again, and are not unpacked again.
func (f *xzFeeder) end(err error) {
	x, b := f.x, f.b
	small := !b.begun && err == io.EOF
	var sum [sha256.Size]byte
	if small {
		sum = sha256.Sum256(f.chunk[:f.n])
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	b.fed, b.small, b.sum = err, small, sum
	if small && x.blanks > 0 && sum == x.blank {
		x.chunks.give(f.chunk)
		f.chunk, b.begun = nil, true
		b.out = append(b.out, piece{zeros: x.blanks})
		x.finish(b, nil)
		return
	}
	if f.chunk != nil {
		f.give()
	}
	if !b.begun { // there was no memory for its first chunk
		b.begun = true
		x.finish(b, err)
	}
	x.news.Broadcast()
}

// readIndex reads the end of a stream, and compares it with what was in the stream.
func (x *xzFile) readIndex(flags []byte, records *xzRecords) error {
	start := binary.AppendUvarint([]byte{0}, records.count)
	got := make([]byte, len(start))
	if _, err := io.ReadFull(x.in, got); err != nil {
		return short(err)
	}
	if !bytes.Equal(got, start) {
		return errXZIndex
	}
	crc, sum := crc32.NewIEEE(), sha256.New()
	crc.Write(start)
	if _, err := io.CopyN(io.MultiWriter(crc, sum), x.in, records.length); err != nil {
		return short(err)
	}
	if !bytes.Equal(sum.Sum(nil), records.sum.Sum(nil)) {
		return errXZIndex
	}
	size := int64(len(start)) + records.length
	end := make([]byte, -size&3)
	crc.Write(end)
	size += int64(len(end)) + 4
	end = binary.LittleEndian.AppendUint32(end, crc.Sum32())
	end = append(end, xzFooter(size, flags)...)
	got = make([]byte, len(end))
	if _, err := io.ReadFull(x.in, got); err != nil {
		return short(err)
	}
	if !bytes.Equal(got, end) {
		return errXZEnd
	}
	return nil
}

// xzIndex is the index of a stream of one block.
func xzIndex(unpadded, unpacked int64) []byte {
	b := binary.AppendUvarint(binary.AppendUvarint([]byte{0, 1}, uint64(unpadded)), uint64(unpacked))
	b = append(b, make([]byte, -len(b)&3)...)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// xzFooter is the end of a stream that has an index of that size, in bytes.
func xzFooter(index int64, flags []byte) []byte {
	b := append(binary.LittleEndian.AppendUint32(make([]byte, 4), uint32(index/4-1)), flags...)
	binary.LittleEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	return append(b, "YZ"...)
}
