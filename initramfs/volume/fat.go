// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// Attributes of a FAT directory entry (Microsoft FAT specification, 1.03, "FAT Directory Structure").
const (
	attrVolume = 0x08
	attrDir    = 0x10
	attrLong   = 0x0f
)

// fat is a FAT12, FAT16 or FAT32 volume opened for reading.
type fat struct {
	r       io.ReaderAt
	bits    int   // 12, 16 or 32
	cluster int64 // bytes
	table   int64 // offset of the first file allocation table
	rootDir int64 // offset of the fixed root directory of FAT12 and FAT16
	rootLen int64 // bytes of it; 0 for FAT32
	data    int64 // offset of cluster 2
	last    uint32
	start   uint32 // first cluster of the root directory of FAT32
	label   string
}

// openFAT reads the boot sector: "Boot Sector and BPB" of the FAT specification. The bits follow from the number of
// clusters and from nothing else.
func openFAT(r io.ReaderAt, boot []byte) (Volume, error) {
	le := binary.LittleEndian
	sector := int64(le.Uint16(boot[11:]))
	perCluster := int64(boot[13])
	reserved := int64(le.Uint16(boot[14:]))
	tables := int64(boot[16])
	rootEntries := int64(le.Uint16(boot[17:]))
	sectors := int64(le.Uint16(boot[19:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(boot[32:]))
	}
	tableLen := int64(le.Uint16(boot[22:]))
	if tableLen == 0 {
		tableLen = int64(le.Uint32(boot[36:]))
	}
	power := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	switch {
	case boot[510] != 0x55 || boot[511] != 0xaa, boot[0] != 0xeb && boot[0] != 0xe9:
		return nil, ErrFormat
	case !power(sector) || sector < 512 || sector > 4096 || !power(perCluster) || sector*perCluster > 256<<10:
		return nil, ErrFormat
	case reserved == 0 || tables == 0 || tables > 4 || tableLen == 0:
		return nil, ErrFormat
	}
	rootSectors := (rootEntries*32 + sector - 1) / sector
	first := reserved + tables*tableLen + rootSectors
	if first >= sectors {
		return nil, fmt.Errorf("%w: its tables of %d sectors leave no data in %d", ErrFormat, first, sectors)
	}
	clusters := (sectors - first) / perCluster
	v := &fat{
		r: r, cluster: perCluster * sector, table: reserved * sector,
		rootDir: (reserved + tables*tableLen) * sector, rootLen: rootEntries * 32,
		data: first * sector, last: uint32(clusters + 1), bits: 12,
	}
	extended := boot[36:]
	if clusters >= 4085 {
		v.bits = 16
	}
	if clusters >= 65525 {
		v.bits = 32
		v.start = le.Uint32(boot[44:])
		v.rootLen = 0
		extended = boot[64:]
	}
	if (clusters+2)*int64(v.bits)/8 > tableLen*sector {
		return nil, fmt.Errorf("%w: a table of %d sectors is too small for %d clusters", ErrFormat, tableLen, clusters)
	}
	if extended[2] == 0x29 {
		v.label = fatLabel(extended[7:18])
	}
	// The label in the root directory is the one that counts, where there is one.
	b, err := v.dirBytes(v.Root())
	if err != nil {
		return nil, fmt.Errorf("read root directory: %w", err)
	}
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		if b[0] != 0xe5 && b[11]&0x3f != attrLong && b[11]&(attrVolume|attrDir) == attrVolume {
			v.label = fatLabel(b[:11])
			break
		}
	}
	return v, nil
}

func fatLabel(b []byte) string {
	s := strings.TrimRight(fatText(b), " \x00")
	if s == "NO NAME" {
		return ""
	}
	return s
}

// fatText reads ASCII; what is beyond depends on a code page that nobody names.
func fatText(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		if c >= 0x80 {
			s.WriteRune('\ufffd')
		} else {
			s.WriteByte(c)
		}
	}
	return s.String()
}

func (v *fat) Label() string { return v.label }

func (v *fat) Root() Entry { return Entry{Dir: true, start: v.start} }

func (v *fat) List(dir Entry) ([]Entry, error) {
	b, err := v.dirBytes(dir)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	var long longName
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		e := b[:32]
		attr := e[11] & 0x3f
		if e[0] == 0xe5 {
			long = longName{}
			continue
		}
		if attr == attrLong {
			long.add(e)
			continue
		}
		name, ok := long.name(e[:11])
		long = longName{}
		if attr&attrVolume != 0 || e[0] == '.' { // the label, "." and ".."
			continue
		}
		if !ok {
			name = fatShort(e)
		}
		entry := Entry{
			Name: name, Dir: attr&attrDir != 0, Size: int64(binary.LittleEndian.Uint32(e[28:])),
			start: uint32(binary.LittleEndian.Uint16(e[26:])),
		}
		if v.bits == 32 {
			entry.start |= uint32(binary.LittleEndian.Uint16(e[20:])) << 16
		}
		if entry.Dir {
			entry.Size = 0
			if entry.start == 0 { // would be the root directory again
				return nil, fmt.Errorf("directory %q has no clusters", name)
			}
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// fatShort is the name of a short entry: bits 3 and 4 of byte 12 say that name or extension are lower case (as Linux and
// Windows NT write it).
func fatShort(e []byte) string {
	raw := make([]byte, 11)
	copy(raw, e)
	if raw[0] == 0x05 {
		raw[0] = 0xe5
	}
	stem, ext := strings.TrimRight(fatText(raw[:8]), " "), strings.TrimRight(fatText(raw[8:]), " ")
	if e[12]&0x08 != 0 {
		stem = strings.ToLower(stem)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext == "" {
		return stem
	}
	return stem + "." + ext
}

// longName gathers the entries of a long name, which come before the short one, last part first.
type longName struct {
	units []uint16
	next  byte // the number expected next
	sum   byte // checksum of the short name
	valid bool
}

func (l *longName) add(e []byte) {
	number := e[0] & 0x1f
	switch {
	case e[0]&0x40 != 0 && number >= 1 && number <= 20:
		*l = longName{units: make([]uint16, int(number)*13), sum: e[13], valid: true}
	case !l.valid || number != l.next || e[13] != l.sum || number == 0:
		*l = longName{}
		return
	}
	l.next = number - 1
	part := l.units[int(number-1)*13:]
	for i, at := range longPositions() {
		part[i] = binary.LittleEndian.Uint16(e[at:])
	}
}

// name is the long name, if all its parts were there and belong to this short name.
func (l *longName) name(short []byte) (string, bool) {
	if !l.valid || l.next != 0 || shortSum(short) != l.sum {
		return "", false
	}
	units := l.units
	for i, u := range units {
		if u == 0 {
			units = units[:i]
			break
		}
	}
	return string(utf16.Decode(units)), len(units) > 0
}

// longPositions are the offsets of the 13 characters in an entry of a long name.
func longPositions() [13]int {
	return [13]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}
}

// shortSum is the checksum that ties a long name to a short one ("ChkSum()" of the FAT specification).
func shortSum(short []byte) byte {
	var sum byte
	for _, c := range short[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

func (v *fat) Read(file Entry) ([]byte, error) {
	if file.Size == 0 {
		return nil, nil
	}
	// The chain is read before memory is taken: a size without clusters behind it costs nothing.
	return v.chain(file.start, file.Size, false)
}

func (v *fat) dirBytes(dir Entry) ([]byte, error) {
	if dir.start == 0 && v.bits != 32 {
		b := make([]byte, v.rootLen)
		_, err := v.r.ReadAt(b, v.rootDir)
		return b, err
	}
	return v.chain(dir.start, maxDir, true)
}

// chain reads the clusters that begin with first: size bytes of them, or, for a directory, as many as there are up to
// size. It follows at most as many links as size needs, so a loop ends.
func (v *fat) chain(first uint32, size int64, dir bool) ([]byte, error) {
	var clusters []uint32
	for c := first; ; {
		if c < 2 || c > v.last {
			return nil, fmt.Errorf("cluster %d of a chain is outside 2..%d", c, v.last)
		}
		if int64(len(clusters))*v.cluster >= size {
			if dir {
				return nil, fmt.Errorf("directory is larger than %d bytes", size)
			}
			break
		}
		if len(clusters) > int(v.last) {
			return nil, fmt.Errorf("chain of cluster %d is a loop", first)
		}
		clusters = append(clusters, c)
		next, end, err := v.next(c)
		if err != nil {
			return nil, fmt.Errorf("read table entry of cluster %d: %w", c, err)
		}
		if end {
			break
		}
		c = next
	}
	have := int64(len(clusters)) * v.cluster
	if dir {
		size = have
	}
	if have < size {
		return nil, fmt.Errorf("chain of cluster %d has %d bytes of %d", first, have, size)
	}
	b := make([]byte, size)
	for i, c := range clusters {
		at := int64(i) * v.cluster
		part := b[at:min(at+v.cluster, size)]
		if _, err := v.r.ReadAt(part, v.data+int64(c-2)*v.cluster); err != nil {
			return nil, fmt.Errorf("read cluster %d: %w", c, err)
		}
	}
	return b, nil
}

// next reads the entry of cluster c in the table; end means that c was the last of its chain.
func (v *fat) next(c uint32) (next uint32, end bool, err error) {
	var b [4]byte
	at, width := v.table+int64(c)*int64(v.bits)/8, (v.bits+7)/8
	if _, err := v.r.ReadAt(b[:width], at); err != nil {
		return 0, false, err
	}
	n := binary.LittleEndian.Uint32(b[:])
	switch v.bits {
	case 12:
		if c%2 == 1 {
			n >>= 4
		}
		n &= 0xfff
		return n, n >= 0xff8, nil
	case 16:
		return n, n >= 0xfff8, nil
	default:
		n &= 0x0fffffff
		return n, n >= 0x0ffffff8, nil
	}
}
