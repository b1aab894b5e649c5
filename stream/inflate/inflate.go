// SPDX-License-Identifier: Apache-2.0

// Package inflate unpacks deflate (RFC 1951), for images and for the clusters of qcow2 images. It writes out what it has unpacked and is not asked for it, and sees many
// bytes at a time at both ends: so it is about twice as fast as the packages that are an io.Reader.
//
// Codes are refused that zlib refuses: over-subscribed ones, incomplete ones but for a single code of one bit, a block without an end.
package inflate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
)

// ErrCorrupt says that the bytes are no deflate stream.
var ErrCorrupt = errors.New("deflate data is corrupt")

const (
	window   = 32 << 10 // bytes that a match may reach back
	longest  = 258      // bytes of a match
	outSize  = 256 << 10
	inMargin = 16 // bytes of input that the fast loop may look at
	// outMargin is how many bytes of output the fast loop may write: three literals and a match, which is copied eight bytes at a time.
	outMargin = longest + 3 + 8

	litBits  = 11 // of a literal or length that one look at the table decodes
	distBits = 8  // of a distance
	codeBits = 7
	maxBits  = 15
	// litTable and distTable are the largest tables that complete codes make: 288 symbols with 11 bits, 32 with 8 (as computed by zlib's enough.c).
	litTable  = 2342
	distTable = 402
)

// An entry of a table: from bit 16 on a value; in bits 8 to 11 the length of the code, or of the index of a second table; in bits 0 to 5 the bits that are used up, with those that
// follow the code.
const (
	literal = 1 << 31 // the value is a byte
	special = 1 << 15 // a second table, the end of the block, or no code
	end     = 1 << 14
	invalid = 1 << 13
)

// Decoder unpacks. The zero value is ready; it may be used again and again, by one goroutine at a time. It takes 300 KiB once Stream was called, and 12 KiB otherwise.
type Decoder struct {
	in   []byte
	pos  int    // in in, of the next byte
	bits uint64 // that were taken from in and are not used up; what is above the first count of them means nothing
	n    uint   // their count

	out  []byte
	at   int // in out, of the next byte
	full bool

	reader *bufio.Reader // nil if in is all there is
	write  func([]byte) error
	from   int // in out: what has not been written

	lit  [litTable]uint32
	dist [distTable]uint32
	code [1 << codeBits]uint32
	lens [288 + 32]uint8
	buf  []byte

	isFixed bool // the tables are those of fixed codes
}

// Fill unpacks the stream in in until out is full. What comes after is not looked at. The error is io.ErrUnexpectedEOF if there is not enough.
func (d *Decoder) Fill(out, in []byte) error {
	d.in, d.out, d.reader, d.write = in, out, nil, nil
	d.pos, d.n, d.bits, d.at, d.from, d.full = 0, 0, 0, 0, 0, len(out) == 0
	err := d.blocks()
	d.in, d.out = nil, nil
	if err == nil && d.at < len(out) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Stream unpacks a stream and gives it to write, piece by piece. It takes no byte from in behind the end of the stream, and keeps nothing of a piece's bytes for itself alone: write must
// not change them. in must hold at least 1 KiB.
func (d *Decoder) Stream(in *bufio.Reader, write func([]byte) error) error {
	if d.buf == nil {
		d.buf = make([]byte, outSize)
	}
	d.in, d.out, d.reader, d.write = nil, d.buf, in, write
	d.pos, d.n, d.bits, d.at, d.from, d.full = 0, 0, 0, 0, 0, false
	err := d.blocks()
	d.unread()
	if _, derr := in.Discard(d.pos); err == nil {
		err = derr
	}
	if err == nil {
		err = d.flush()
	}
	d.in, d.out, d.reader, d.write = nil, nil, nil, nil
	return err
}

// unread gives whole bytes back that were taken and not used.
func (d *Decoder) unread() {
	d.pos -= int(d.n >> 3)
	d.n &= 7
	d.bits &= 1<<d.n - 1
}

// more brings input. It leaves less than inMargin only at the end of the input.
func (d *Decoder) more() error {
	if d.reader == nil {
		return nil
	}
	d.unread()
	if _, err := d.reader.Discard(d.pos); err != nil {
		return err
	}
	d.in, d.pos = nil, 0
	if _, err := d.reader.Peek(inMargin); err != nil && err != io.EOF {
		return err
	}
	var err error
	d.in, err = d.reader.Peek(d.reader.Buffered())
	return err
}

// flush writes what there is.
func (d *Decoder) flush() error {
	b := d.out[d.from:d.at]
	d.from = d.at
	if len(b) == 0 {
		return nil
	}
	return d.write(b)
}

// room makes sure, where output is written out, that the fast loop has room.
func (d *Decoder) room() error {
	if d.write == nil || d.at <= len(d.out)-outMargin {
		return nil
	}
	if err := d.flush(); err != nil {
		return err
	}
	d.at = copy(d.out, d.out[d.at-window:d.at])
	d.from = d.at
	return nil
}

// take returns the next n bits, at most 16.
func (d *Decoder) take(n uint) (uint, error) {
	if err := d.need(n); err != nil {
		return 0, err
	}
	v := uint(d.bits & (1<<n - 1))
	d.bits >>= n
	d.n -= n
	return v, nil
}

// need sees to it that there are n bits.
func (d *Decoder) need(n uint) error {
	if d.n >= n {
		return nil
	}
	if err := d.gather(); err != nil {
		return err
	}
	if d.n < n {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// gather takes as many bits as there is room for, or as there are.
func (d *Decoder) gather() error {
	if len(d.in)-d.pos < inMargin {
		if err := d.more(); err != nil {
			return err
		}
	}
	d.bits &= 1<<d.n - 1 // n is less than 64
	for d.n <= 55 && d.pos < len(d.in) {
		d.bits |= uint64(d.in[d.pos]) << d.n
		d.pos++
		d.n += 8
	}
	return nil
}

// blocks unpacks blocks until the last one has ended, or until there is no room.
func (d *Decoder) blocks() error {
	for !d.full {
		head, err := d.take(3)
		if err != nil {
			return err
		}
		switch head >> 1 {
		case 0:
			err = d.stored()
		case 1:
			if err = d.fixed(); err == nil {
				err = d.symbols()
			}
		case 2:
			if err = d.dynamic(); err == nil {
				err = d.symbols()
			}
		default:
			err = ErrCorrupt
		}
		if err != nil || head&1 != 0 {
			return err
		}
	}
	return nil
}

// stored takes a block that is not packed.
func (d *Decoder) stored() error {
	d.bits >>= d.n & 7
	d.n &^= 7
	n, err := d.take(16)
	if err != nil {
		return err
	}
	not, err := d.take(16)
	if err != nil {
		return err
	}
	if n^not != 0xffff {
		return ErrCorrupt
	}
	d.unread()
	for n > 0 {
		if d.pos == len(d.in) {
			if err := d.more(); err != nil {
				return err
			}
			if d.pos == len(d.in) {
				return io.ErrUnexpectedEOF
			}
		}
		if err := d.room(); err != nil {
			return err
		}
		some := copy(d.out[d.at:], d.in[d.pos:min(len(d.in), d.pos+int(n))])
		d.at += some
		d.pos += some
		if n -= uint(some); n > 0 && some == 0 {
			d.full = true
			return nil
		}
	}
	d.full = d.write == nil && d.at == len(d.out)
	return nil
}

// fixed makes the tables of a block that brings no codes (RFC 1951, 3.2.6), unless they are there already.
func (d *Decoder) fixed() error {
	if d.isFixed {
		return nil
	}
	d.isFixed = true
	l := &d.lens
	for i := range 144 {
		l[i] = 8
	}
	for i := 144; i < 256; i++ {
		l[i] = 9
	}
	for i := 256; i < 280; i++ {
		l[i] = 7
	}
	for i := 280; i < 288; i++ {
		l[i] = 8
	}
	for i := 288; i < 320; i++ {
		l[i] = 5
	}
	if err := table(d.lit[:], litBits, l[:288], litEntry); err != nil {
		return err
	}
	return table(d.dist[:], distBits, l[288:], distEntry)
}

// order is that in which the lengths of the code for the lengths of the codes come (RFC 1951, 3.2.7).
var order = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic makes the tables of a block that brings its codes (RFC 1951, 3.2.7).
func (d *Decoder) dynamic() error {
	d.isFixed = false
	counts, err := d.take(14)
	if err != nil {
		return err
	}
	lits, dists, codes := int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4
	if lits > 286 || dists > 30 {
		return ErrCorrupt
	}
	var lens [19]uint8
	for _, i := range order[:codes] {
		n, err := d.take(3)
		if err != nil {
			return err
		}
		lens[i] = uint8(n)
	}
	if err := table(d.code[:], codeBits, lens[:], func(i int) uint32 { return uint32(i) << 16 }); err != nil {
		return err
	}
	all := d.lens[:lits+dists]
	for i := 0; i < len(all); {
		if d.n < codeBits+7 {
			if err := d.gather(); err != nil {
				return err
			}
		}
		e := d.code[d.bits&(1<<codeBits-1)]
		used := uint(e & 63)
		switch {
		case e&invalid != 0:
			if d.n < codeBits {
				return io.ErrUnexpectedEOF
			}
			return ErrCorrupt
		case used > d.n:
			return io.ErrUnexpectedEOF
		}
		d.bits >>= used
		d.n -= used
		symbol := uint8(e >> 16)
		if symbol < 16 {
			all[i] = symbol
			i++
			continue
		}
		var value uint8
		extra, times := uint(7), 11
		switch symbol {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			value, extra, times = all[i-1], 2, 3
		case 17:
			extra, times = 3, 3
		}
		more, err := d.take(extra)
		if err != nil {
			return err
		}
		if times += int(more); times > len(all)-i {
			return ErrCorrupt
		}
		for range times {
			all[i] = value
			i++
		}
	}
	if all[256] == 0 {
		return ErrCorrupt
	}
	if err := table(d.lit[:], litBits, all[:lits], litEntry); err != nil {
		return err
	}
	return table(d.dist[:], distBits, all[lits:], distEntry)
}

// litEntry and distEntry are the entries of symbols without what their codes' lengths add (RFC 1951, 3.2.5).
func litEntry(symbol int) uint32 {
	switch {
	case symbol < 256:
		return literal | uint32(symbol)<<16
	case symbol == 256:
		return special | end
	case symbol < 265:
		return uint32(symbol-254) << 16
	case symbol == 285:
		return longest << 16
	case symbol > 285:
		return special | invalid
	}
	extra := uint32(symbol-261) / 4
	return (4+uint32(symbol-261)%4)<<extra<<16 + 3<<16 + extra
}

func distEntry(symbol int) uint32 {
	switch {
	case symbol < 4:
		return uint32(symbol+1) << 16
	case symbol > 29:
		return special | invalid
	}
	extra := uint32(symbol-2) / 2
	return (2+uint32(symbol)%2)<<extra<<16 + 1<<16 + extra
}

// table makes a table that first bits of a code lead into, of the lengths of the codes of all symbols. Longer codes go on in second tables behind it.
func table(t []uint32, first uint, lens []uint8, entry func(symbol int) uint32) error {
	var count, next [maxBits + 2]int
	for _, n := range lens {
		count[n]++
	}
	count[0] = 0
	left, most := 1, uint(0)
	for n := 1; n <= maxBits; n++ {
		next[n+1] = (next[n] + count[n]) << 1
		if left = left<<1 - count[n]; left < 0 {
			return ErrCorrupt // more codes than there can be
		}
		if count[n] > 0 {
			most = uint(n)
		}
	}
	if left > 0 && (most > 1 || first == codeBits) {
		return ErrCorrupt
	}
	if left > 0 { // no code, or one: the others are met by mistake only
		for i := range 1 << first {
			t[i] = special | invalid
		}
	}
	// Codes of one length follow one another in the order of their symbols, and those of the next length follow them.
	var sorted [288]uint16
	var at [maxBits + 2]int
	for n := 1; n <= maxBits; n++ {
		at[n+1] = at[n] + count[n]
	}
	total := at[maxBits+1]
	for symbol, n := range lens {
		if n > 0 {
			sorted[at[n]] = uint16(symbol)
			at[n]++
		}
	}
	free := 1 << first // where the next second table begins
	prefix, second, width := -1, 0, uint(0)
	for _, symbol := range sorted[:total] {
		n := uint(lens[symbol])
		code := int(bits.Reverse16(uint16(next[n])) >> (16 - n))
		next[n]++
		e := entry(int(symbol))
		if n <= first {
			e += uint32(n)<<8 + uint32(n)
			for i := code; i < 1<<first; i += 1 << n {
				t[i] = e
			}
			count[n]--
			continue
		}
		if p := code & (1<<first - 1); p != prefix { // codes with one start follow one another
			prefix, second = p, free
			width = n - first
			for space := count[n]; width+first < most && space < 1<<width; width++ {
				space = space<<1 + count[width+first+1]
			}
			if free += 1 << width; free > len(t) {
				return ErrCorrupt
			}
			t[p] = special | uint32(second)<<16 | uint32(width)<<8 | uint32(first)
		}
		e += uint32(n-first)<<8 + uint32(n-first)
		for i := code >> first; i < 1<<width; i += 1 << (n - first) {
			t[second+i] = e
		}
		count[n]--
	}
	return nil
}

// symbols unpacks what comes up to the end of a block.
func (d *Decoder) symbols() error {
	for {
		if len(d.in)-d.pos < inMargin {
			if err := d.more(); err != nil {
				return err
			}
		}
		if err := d.room(); err != nil {
			return err
		}
		if len(d.in)-d.pos >= inMargin && d.at <= len(d.out)-outMargin {
			if ended, err := d.fast(); ended || err != nil {
				return err
			}
			continue
		}
		if ended, err := d.slow(); ended || err != nil || d.full {
			return err
		}
	}
}

// fast unpacks symbols while there are margins at both ends. It tells whether the block has ended.
func (d *Decoder) fast() (ended bool, err error) {
	in, pos, b, n, out, at := d.in, d.pos, d.bits, d.n, d.out, d.at
	lit, dist := &d.lit, &d.dist
	lastIn, lastOut := len(in)-inMargin, len(out)-outMargin
	for pos <= lastIn && at <= lastOut {
		// 1. At least 56 bits; up to three literals take 33, of 11 each.
		b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e := lit[b&(1<<litBits-1)]
		if e&literal != 0 {
			b >>= e & 63
			n -= uint(e & 63)
			out[at] = byte(e >> 16)
			at++
			e = lit[b&(1<<litBits-1)]
			if e&literal != 0 {
				b >>= e & 63
				n -= uint(e & 63)
				out[at] = byte(e >> 16)
				at++
				e = lit[b&(1<<litBits-1)]
				if e&literal != 0 {
					b >>= e & 63
					n -= uint(e & 63)
					out[at] = byte(e >> 16)
					at++
					continue
				}
			}
		}
		if e&special != 0 {
			if e&(end|invalid) == 0 {
				b >>= litBits
				n -= litBits
				e = lit[uint64(e>>16)+b&(1<<(e>>8&15)-1)]
				if e&literal != 0 {
					b >>= e & 63
					n -= uint(e & 63)
					out[at] = byte(e >> 16)
					at++
					continue
				}
			}
			if e&special != 0 {
				if e&invalid != 0 {
					err = ErrCorrupt
				} else {
					b >>= e & 63
					n -= uint(e & 63)
					ended = true
				}
				break
			}
		}
		// 2. A length, with at most 5 more bits, ...
		length := int(e>>16) + int(b&(1<<(e&63)-1)>>(e>>8&15))
		b >>= e & 63
		n -= uint(e & 63)
		// 3. ... and a distance: at most 15 bits and 13 more.
		b |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e = dist[b&(1<<distBits-1)]
		if e&special != 0 {
			if e&invalid == 0 {
				b >>= distBits
				n -= distBits
				e = dist[uint64(e>>16)+b&(1<<(e>>8&15)-1)]
			}
			if e&invalid != 0 {
				err = ErrCorrupt
				break
			}
		}
		back := int(e>>16) + int(b&(1<<(e&63)-1)>>(e>>8&15))
		b >>= e & 63
		n -= uint(e & 63)
		if back > at {
			err = ErrCorrupt
			break
		}
		// 4. Copy, eight bytes at a time.
		from, to := at-back, at+length
		switch {
		case back >= 8:
			for {
				binary.LittleEndian.PutUint64(out[at:], binary.LittleEndian.Uint64(out[from:]))
				if at += 8; at >= to {
					break
				}
				from += 8
			}
		case back == 1:
			same := uint64(out[from]) * 0x0101010101010101
			for ; at < to; at += 8 {
				binary.LittleEndian.PutUint64(out[at:], same)
			}
		default:
			for ; at < to; at++ {
				out[at] = out[at-back]
			}
		}
		at = to
	}
	d.pos, d.bits, d.n, d.at = pos, b, n, at
	return ended, err
}

// slow unpacks one symbol, at the end of the input or of the room.
func (d *Decoder) slow() (ended bool, err error) {
	if d.n <= 48 {
		if err := d.gather(); err != nil {
			return false, err
		}
	}
	d.bits &= 1<<d.n - 1 // so that what is not there is zero
	e, err := d.symbol(d.lit[:], litBits)
	switch {
	case err != nil:
		return false, err
	case e&end != 0:
		return true, nil
	case e&literal != 0:
		if d.at == len(d.out) {
			d.full = true
			return false, nil
		}
		d.out[d.at] = byte(e >> 16)
		d.at++
		d.full = d.write == nil && d.at == len(d.out)
		return false, nil
	}
	length, err := d.value(e)
	if err != nil {
		return false, err
	}
	if e, err = d.symbol(d.dist[:], distBits); err != nil {
		return false, err
	}
	back, err := d.value(e)
	if err != nil {
		return false, err
	}
	if back > d.at {
		return false, ErrCorrupt
	}
	for to := min(d.at+length, len(d.out)); d.at < to; d.at++ {
		d.out[d.at] = d.out[d.at-back]
	}
	d.full = d.write == nil && d.at == len(d.out)
	return false, nil
}

// symbol finds the entry of the next code, and uses the code up, but not what follows it.
func (d *Decoder) symbol(t []uint32, first uint) (uint32, error) {
	e := t[d.bits&(1<<first-1)]
	if e&special != 0 && e&(end|invalid) == 0 {
		if d.n < first {
			return 0, io.ErrUnexpectedEOF
		}
		d.bits >>= first
		d.n -= first
		e = t[uint64(e>>16)+d.bits&(1<<(e>>8&15)-1)]
	}
	code := uint(e >> 8 & 15)
	switch {
	case e&invalid != 0 && d.n >= first:
		return 0, ErrCorrupt
	case e&invalid != 0 || code > d.n:
		return 0, io.ErrUnexpectedEOF
	}
	d.bits >>= code
	d.n -= code
	return e, nil
}

// value is that of an entry with the bits that follow its code.
func (d *Decoder) value(e uint32) (int, error) {
	extra := uint(e&63) - uint(e>>8&15)
	if extra > d.n {
		return 0, io.ErrUnexpectedEOF
	}
	v := int(e>>16) + int(d.bits&(1<<extra-1))
	d.bits >>= extra
	d.n -= extra
	return v, nil
}
