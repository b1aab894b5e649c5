// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// Bounds for a kernel's image, in bytes: Debian's has 63 MiB unpacked and needs a window of 32 MiB.
const (
	maxKernel = 512 << 20
	maxWindow = 128 << 20
)

// Vmlinux takes the uncompressed kernel, an ELF file, out of a bzImage. QEMU starts it at once by PVH, without firmware and
// without the four seconds that unpacking takes under emulation. The payload may be gzip, xz, zstd or lz4.
func Vmlinux(bzImage []byte) ([]byte, error) {
	payload, err := bzPayload(bzImage)
	if err != nil {
		return nil, fmt.Errorf("bzImage: %w", err)
	}
	kernel, err := unpackKernel(payload)
	if err != nil {
		return nil, fmt.Errorf("unpack the kernel of a bzImage: %w", err)
	}
	if !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
		return nil, errors.New("the kernel of the bzImage is not an ELF file")
	}
	return kernel, nil
}

// bzPayload finds the compressed kernel by the setup header: kernel Documentation/arch/x86/boot.rst.
func bzPayload(b []byte) ([]byte, error) {
	const (
		setupSects    = 0x1f1
		magic         = 0x202
		version       = 0x206
		payloadOffset = 0x248 // from the beginning of the protected-mode code
		payloadLength = 0x24c
	)
	le := binary.LittleEndian
	if len(b) < payloadLength+4 || string(b[magic:magic+4]) != "HdrS" {
		return nil, errors.New("has no setup header")
	}
	if v := le.Uint16(b[version:]); v < 0x208 {
		return nil, fmt.Errorf("boot protocol %d.%02d, want 2.08 or later", v>>8, v&0xff)
	}
	sectors := int64(b[setupSects])
	if sectors == 0 {
		sectors = 4
	}
	start := (sectors+1)*512 + int64(le.Uint32(b[payloadOffset:]))
	end := start + int64(le.Uint32(b[payloadLength:]))
	if end > int64(len(b)) || end-start < 8 {
		return nil, fmt.Errorf("payload at %d..%d is not within %d bytes", start, end, len(b))
	}
	return b[start:end], nil
}

// unpackKernel unpacks a payload. Behind all but gzip the kernel's build appends the unpacked size (scripts/Makefile.lib,
// size_append); gzip has it by itself.
func unpackKernel(p []byte) ([]byte, error) {
	size := int64(binary.LittleEndian.Uint32(p[len(p)-4:]))
	if size > maxKernel {
		return nil, fmt.Errorf("unpacked size is %d bytes, at most %d are allowed", size, maxKernel)
	}
	body := p[:len(p)-4]
	switch {
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		r.Multistream(false)
		return readSize(r, size)
	case bytes.HasPrefix(p, []byte("\xfd7zXZ\x00")):
		return unpackXZ(body, size)
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err := zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readSize(r, size)
	case bytes.HasPrefix(p, []byte{0x02, 0x21, 0x4c, 0x18}): // the legacy frame
		return readSize(lz4.NewReader(bytes.NewReader(body)), size)
	}
	return nil, fmt.Errorf("payload begins with % x: neither gzip, xz, zstd nor lz4", p[:6])
}

// readSize reads all of r, which must be size bytes. Memory grows with what is really there.
func readSize(r io.Reader, size int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, size+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != size {
		return nil, fmt.Errorf("unpacked size is not the %d bytes that the payload says", size)
	}
	return b, nil
}

// unpackXZ unpacks the first block of an .xz file (tukaani.org/xz/xz-file-format.txt), which is all that a kernel has. The
// xz library does not know the x86 filter that kernels are packed with; its LZMA2 decoder is used on its own.
func unpackXZ(b []byte, size int64) ([]byte, error) {
	const (
		checkNone, checkCRC32 = 0, 1
		filterX86, filterLZMA = 0x04, 0x21
	)
	if len(b) < 12+8 {
		return nil, io.ErrUnexpectedEOF
	}
	check := b[7] & 0x0f
	if crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return nil, errors.New("xz: checksum of the stream header is wrong")
	}
	if check != checkNone && check != checkCRC32 {
		return nil, fmt.Errorf("xz: check %d, want CRC32", check)
	}
	b = b[12:]
	length := (int(b[0]) + 1) * 4
	if b[0] == 0 || length > len(b) {
		return nil, errors.New("xz: block header is cut off")
	}
	header, body := b[:length-4], b[length:]
	if crc32.ChecksumIEEE(header) != binary.LittleEndian.Uint32(b[length-4:]) {
		return nil, errors.New("xz: checksum of the block header is wrong")
	}
	flags, rest := header[1], header[2:]
	next := func() (n uint64) {
		var k int
		if n, k = binary.Uvarint(rest); k <= 0 {
			rest = nil
			return 0
		}
		rest = rest[k:]
		return n
	}
	for _, present := range []byte{0x40, 0x80} { // sizes of the block
		if flags&present != 0 {
			next()
		}
	}
	x86, window := false, 0
	for n := range int(flags&0x03) + 1 {
		id, props := next(), next()
		if props > uint64(len(rest)) {
			return nil, errors.New("xz: filter properties are cut off")
		}
		switch {
		case id == filterX86 && n == 0 && props == 0:
			x86 = true
		case id == filterLZMA && props == 1 && rest[0] <= 30: // 30 is 128 MiB
			window = (2 | int(rest[0]&1)) << (rest[0]/2 + 11)
		default:
			return nil, fmt.Errorf("xz: filter %#x is not known, or has unusual properties", id)
		}
		rest = rest[props:]
	}
	if window == 0 {
		return nil, errors.New("xz: no LZMA2 filter")
	}

	in := bytes.NewReader(body)
	r, err := lzma.Reader2Config{DictCap: window}.NewReader2(in)
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	out, err := readSize(r, size)
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	if x86 {
		undoX86(out)
	}
	if check == checkCRC32 {
		// The data is padded to four bytes, then comes the checksum of what was unpacked.
		end := (len(body) - in.Len() + 3) &^ 3
		if end+4 > len(body) {
			return nil, io.ErrUnexpectedEOF
		}
		if crc32.ChecksumIEEE(out) != binary.LittleEndian.Uint32(body[end:]) {
			return nil, errors.New("xz: checksum of the data is wrong")
		}
	}
	return out, nil
}

// undoX86 undoes the x86 filter in place. Packing made the targets of CALL and JMP absolute where they look like addresses,
// that is where their highest byte is 0x00 or 0xff; unpacking makes them relative to the next instruction again. The rule
// of what looks like an instruction must be the same on both sides: recent has a bit for each of the three bytes before
// this one, the latest lowest, that held one of the two opcodes but was not changed.
func undoX86(b []byte) {
	extreme := func(c byte) bool { return c == 0x00 || c == 0xff }
	// Which of the four operand bytes (from the highest) the oldest opcode in recent overlaps.
	overlap := [8]int{0, 1, 2, 2, 3, 3, 3, 3}
	recent, last := 0, -1
	for i := 0; i+4 < len(b); i++ {
		if b[i]&0xfe != 0xe8 { // CALL is e8, JMP e9
			continue
		}
		if distance := i - last; distance > 3 {
			recent = 0
		} else {
			recent = recent << (distance - 1) & 7
		}
		last = i
		if recent != 0 {
			twoOrMore := recent&(recent-1) != 0
			if twoOrMore || extreme(b[i+4-overlap[recent]]) {
				recent = recent<<1 | 1
				continue
			}
		}
		if !extreme(b[i+4]) {
			recent = recent<<1 | 1
			continue
		}
		operand := b[i+1 : i+5]
		target := binary.LittleEndian.Uint32(operand)
		for {
			target -= uint32(i) + 5
			if recent == 0 {
				break
			}
			shift := 8 * overlap[recent]
			if !extreme(byte(target >> (24 - shift))) {
				break
			}
			target ^= 1<<(32-shift) - 1
		}
		// The target has 25 bits, the rest is its sign.
		target &= 0x01ffffff
		if target&0x01000000 != 0 {
			target |= 0xfe000000
		}
		binary.LittleEndian.PutUint32(operand, target)
		i += 4
	}
}
