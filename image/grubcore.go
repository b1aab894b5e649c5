// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"
)

// Of GRUB's core image for BIOS: GNU GRUB 2.06 include/grub/offsets.h, include/grub/kernel.h.
const (
	grubLink          = 0x9000          // address that the kernel is linked for
	grubUnpackRoom    = 0x9000 - 0x8200 // bytes for the program that unpacks it
	grubCoreRoom      = 0x78000 - 0x9000
	grubAtCompressed  = 0x08 // in the program that unpacks
	grubAtPlain       = 0x0c
	grubAtBlocks      = 512 - 12 // in the first sector: where the others are
	grubSegment       = 0x820
	grubModuleMagic   = 0x676d696d // "mimg"
	grubObjectELF     = 0
	grubObjectConfig  = 2
	grubObjectPrefix  = 3
	grubBootCode      = 440     // bytes of boot.img; behind them is the disk's own
	mostGRUBFile      = 1 << 20 // bytes
	mostGRUBCore      = 4 << 20 // before it is packed
	grubBIOSDirectory = "usr/lib/grub/i386-pc"
)

// grubCore makes what grub-mkimage makes, out of the same files in dir: GRUB's kernel, modules with all that they depend on, and a configuration that is carried out first. Where its
// sectors are, is left open. Source: GNU GRUB 2.06 util/mkimage.c, grub_install_generate_image.
func grubCore(root fs.FS, dir string, modules []string, config, prefix string) ([]byte, error) {
	read := func(name string) ([]byte, error) { return readFile(root, dir+"/"+name, mostGRUBFile) }
	kernel, err := read("kernel.img")
	if err != nil {
		return nil, err
	}
	plain, err := grubKernel(kernel)
	if err != nil {
		return nil, fmt.Errorf("kernel.img: %w", err)
	}
	depends, err := read("moddep.lst")
	if err != nil {
		return nil, err
	}

	le := binary.LittleEndian
	info := len(plain)
	plain = append(plain, make([]byte, 12)...)
	add := func(kind uint32, b []byte, size int) { // padded to size, and to whole words
		size = (size + 3) &^ 3
		plain = le.AppendUint32(plain, kind)
		plain = le.AppendUint32(plain, uint32(size+8))
		plain = append(append(plain, b...), make([]byte, size-len(b))...)
	}
	for _, name := range grubDependencies(string(depends), modules) {
		b, err := read(name + ".mod")
		if err != nil {
			return nil, err
		}
		if add(grubObjectELF, b, len(b)); len(plain) > mostGRUBCore {
			return nil, fmt.Errorf("GRUB's modules have more than %d MiB", mostGRUBCore>>20)
		}
	}
	add(grubObjectConfig, []byte(config), len(config)+1)
	add(grubObjectPrefix, []byte(prefix), len(prefix)+1)
	le.PutUint32(plain[info:], grubModuleMagic)
	le.PutUint32(plain[info+4:], 12)
	le.PutUint32(plain[info+8:], uint32(len(plain)-info))

	unpack, err := read("lzma_decompress.img")
	if err != nil {
		return nil, err
	}
	if len(unpack) < 64 || len(unpack) > grubUnpackRoom {
		return nil, fmt.Errorf("lzma_decompress.img has %d bytes, and not 64 to %d", len(unpack), grubUnpackRoom)
	}
	first, err := read("diskboot.img")
	if err != nil {
		return nil, err
	}
	if len(first) != 512 || le.Uint16(first[510:]) != grubSegment {
		return nil, fmt.Errorf("diskboot.img is not what GRUB 2 begins its core with")
	}
	packed := packLZMA(plain)
	le.PutUint32(unpack[grubAtCompressed:], uint32(len(packed)))
	le.PutUint32(unpack[grubAtPlain:], uint32(len(plain)))
	core := append(append(first, unpack...), packed...)
	if len(core)-512 > grubCoreRoom {
		return nil, fmt.Errorf("GRUB's core has %d bytes, of %d that it may have", len(core)-512, grubCoreRoom)
	}
	core = append(core, make([]byte, (512-len(core)%512)%512)...)
	le.PutUint16(core[grubAtBlocks+8:], uint16(len(core)/512-1))
	return core, nil
}

// placeGRUB tells a core, and the boot code that starts it, at which sector of the disk it will be. Source: GNU GRUB 2.06 util/setup.c, include/grub/i386/pc/boot.h.
func placeGRUB(boot, core []byte, sector uint64) {
	binary.LittleEndian.PutUint64(boot[0x5c:], sector)
	copy(boot[0x66:], "\x90\x90") // the number of the drive is the BIOS's, whatever it is
	binary.LittleEndian.PutUint64(core[grubAtBlocks:], sector+1)
}

// grubKernel takes the loaded bytes out of GRUB's kernel, an ELF file with one part to be loaded.
func grubKernel(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	const header, entry = 52, 32
	if len(b) < header || string(b[:6]) != "\x7fELF\x01\x01" || le.Uint16(b[18:]) != 3 || le.Uint16(b[42:]) != entry {
		return nil, fmt.Errorf("is no ELF file for i386")
	}
	at, count := uint64(le.Uint32(b[28:])), uint64(le.Uint16(b[44:]))
	if at+count*entry > uint64(len(b)) {
		return nil, fmt.Errorf("ends within its table of parts")
	}
	for ; count > 0; count, at = count-1, at+entry {
		p := b[at:]
		if le.Uint32(p) != 1 { // PT_LOAD
			continue
		}
		offset, address, size := uint64(le.Uint32(p[4:])), le.Uint32(p[8:]), uint64(le.Uint32(p[16:]))
		if address != grubLink || size == 0 || offset+size > uint64(len(b)) {
			return nil, fmt.Errorf("has %d bytes at %d for the address %#x, which GRUB's kernel for BIOS has not", size, offset, address)
		}
		return append([]byte(nil), b[offset:offset+size]...), nil
	}
	return nil, fmt.Errorf("has no part that is loaded")
}

// grubDependencies puts before each module those that it depends on, by the lines "name: name name" of moddep.lst, in grub-mkimage's order.
func grubDependencies(list string, modules []string) []string {
	depends := map[string][]string{}
	for line := range strings.Lines(list) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			depends[name] = strings.Fields(rest)
		}
	}
	var out []string
	seen := map[string]bool{}
	var add func(string)
	add = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for i := len(depends[name]) - 1; i >= 0; i-- {
			add(depends[name][i])
		}
		out = append(out, name)
	}
	for _, m := range modules {
		add(m)
	}
	return out
}

// packLZMA packs as LZMA with lc 3, lp 0, pb 2, without a header, and without looking for what repeats: there is room for what that would save, and
// the encoder of a library is a hundred times as long. (LZMA specification of the LZMA SDK 9.22, LzmaSpec.cpp.)
func packLZMA(plain []byte) []byte {
	e := rangeEncoder{width: 1<<32 - 1, pending: 1}
	var isMatch [4]uint16
	literals := make([]uint16, 0x300<<3)
	for i := range isMatch {
		isMatch[i] = 1 << 10
	}
	for i := range literals {
		literals[i] = 1 << 10
	}
	previous := byte(0)
	for at, b := range plain {
		e.bit(&isMatch[at&3], 0)
		probabilities := literals[0x300*int(previous>>5):]
		symbol := 1
		for shift := 7; shift >= 0; shift-- {
			bit := int(b>>shift) & 1
			e.bit(&probabilities[symbol], bit)
			symbol = symbol<<1 | bit
		}
		previous = b
	}
	for range 5 {
		e.shift()
	}
	return e.out
}

// rangeEncoder writes bits in as much room as their probabilities say.
type rangeEncoder struct {
	out     []byte
	low     uint64
	width   uint32
	cache   byte
	pending int // bytes that a carry may still change: cache, and behind it ones of FF
}

func (e *rangeEncoder) bit(probability *uint16, bit int) {
	bound := e.width >> 11 * uint32(*probability)
	if bit == 0 {
		e.width = bound
		*probability += (1<<11 - *probability) >> 5
	} else {
		e.low += uint64(bound)
		e.width -= bound
		*probability -= *probability >> 5
	}
	for e.width < 1<<24 {
		e.width <<= 8
		e.shift()
	}
}

func (e *rangeEncoder) shift() {
	if uint32(e.low) < 0xff000000 || e.low>>32 != 0 {
		carry := byte(e.low >> 32)
		for b := e.cache; e.pending > 0; e.pending-- {
			e.out = append(e.out, b+carry)
			b = 0xff
		}
		e.cache = byte(e.low >> 24)
	}
	e.pending++
	e.low = e.low & 0x00ffffff << 8
}
