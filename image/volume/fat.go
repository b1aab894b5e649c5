// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
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
	dirs    *dirReader // the same, for what describes directories
	bits    int        // 12, 16 or 32
	cluster int64      // bytes
	table   int64      // offset of the first file allocation table
	rootDir int64      // offset of the fixed root directory of FAT12 and FAT16
	rootLen int64      // bytes of it; 0 for FAT32
	data    int64      // offset of cluster 2
	last    uint32
}

// openFAT reads the boot sector: "Boot Sector and BPB" of the FAT specification. The bits follow from the number of
// clusters and from nothing else.
func openFAT(r io.ReaderAt, boot []byte) (*Volume, error) {
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
	f := &fat{
		r: r, dirs: &dirReader{r, maxDirs}, cluster: perCluster * sector, table: reserved * sector,
		rootDir: (reserved + tables*tableLen) * sector, rootLen: rootEntries * 32,
		data: first * sector, last: uint32(clusters + 1), bits: 12,
	}
	start, extended := uint32(0), boot[36:]
	if clusters >= 4085 {
		f.bits = 16
	}
	if clusters >= 65525 {
		f.bits = 32
		f.rootLen = 0
		start, extended = le.Uint32(boot[44:]), boot[64:]
	}
	if (clusters+2)*int64(f.bits)/8 > tableLen*sector {
		return nil, fmt.Errorf("%w: a table of %d sectors is too small for %d clusters", ErrFormat, tableLen, clusters)
	}
	v := &Volume{format: f, root: newEntry(".", true, 0, start)}
	if extended[2] == 0x29 {
		v.label = fatLabel(extended[7:18])
	}
	// The label in the root directory is the one that counts, where there is one.
	err := f.eachEntry(v.root, func(e []byte) (more bool) {
		if e[0] == 0xe5 || e[11]&0x3f == attrLong || e[11]&(attrVolume|attrDir) != attrVolume {
			return true
		}
		v.label = fatLabel(e[:11])
		return false
	})
	if err != nil {
		return nil, fmt.Errorf("read root directory: %w", err)
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

// eachEntry calls do for the entries of a directory, the deleted ones too, until it says that no more are wanted.
func (f *fat) eachEntry(dir *entry, do func(e []byte) (more bool)) error {
	r := bufio.NewReader(f.chain(f.dirs, dir.start))
	if dir.start == 0 && f.bits != 32 {
		r = bufio.NewReader(&region{f.dirs, f.rootDir, f.rootLen})
	}
	e := make([]byte, 32)
	for {
		if _, err := io.ReadFull(r, e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if e[0] == 0 || !do(e) {
			return nil
		}
	}
}

func (f *fat) list(dir *entry) (entries []*entry, err error) {
	var long longName
	var broken error
	err = f.eachEntry(dir, func(e []byte) bool {
		attr := e[11] & 0x3f
		switch {
		case e[0] == 0xe5:
			long = longName{}
			return true
		case attr == attrLong:
			long.add(e)
			return true
		}
		name, ok := long.name(e[:11])
		long = longName{}
		if attr&attrVolume != 0 || e[0] == '.' { // the label, "." and ".."
			return true
		}
		if !ok {
			name = fatShort(e)
		}
		start, size := uint32(binary.LittleEndian.Uint16(e[26:])), int64(binary.LittleEndian.Uint32(e[28:]))
		if f.bits == 32 {
			start |= uint32(binary.LittleEndian.Uint16(e[20:])) << 16
		}
		isDir := attr&attrDir != 0
		if isDir {
			size = 0
			if start == 0 { // would be the root directory again
				broken = fmt.Errorf("directory %q has no clusters", name)
			}
		}
		entries = append(entries, newEntry(name, isDir, size, start))
		return broken == nil
	})
	return entries, cmp.Or(err, broken)
}

func (f *fat) open(file *entry) (io.Reader, error) {
	return &sized{f.chain(f.r, file.start), file.size}, nil
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

// sized reads exactly left bytes of r.
type sized struct {
	r    io.Reader
	left int64
}

func (s *sized) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.r.Read(b[:min(int64(len(b)), s.left)])
	s.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("its clusters end %d bytes early: %w", s.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// chain reads clusters that are linked with each other.
type chain struct {
	f      *fat
	region        // what is unread of the cluster
	next   uint32 // cluster
	ended  bool   // there is no next
	links  uint32 // that have been followed
	mark   uint32 // a cluster that was passed: who comes back to it is in a loop
}

func (f *fat) chain(r io.ReaderAt, first uint32) *chain {
	return &chain{f: f, region: region{r: r}, next: first}
}

func (c *chain) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if c.left > 0 {
		return c.region.Read(b)
	}
	cluster := c.next
	switch {
	case c.ended:
		return 0, io.EOF
	case cluster < 2 || cluster > c.f.last:
		return 0, fmt.Errorf("cluster %d of a chain is outside 2..%d", cluster, c.f.last)
	case cluster == c.mark:
		return 0, fmt.Errorf("chain of clusters is a loop at %d", cluster)
	}
	if c.links&(c.links-1) == 0 { // Brent's way: marks ever farther apart find every loop
		c.mark = cluster
	}
	var err error
	if c.next, c.ended, err = c.f.follow(c.r, cluster); err != nil {
		return 0, fmt.Errorf("read table entry of cluster %d: %w", cluster, err)
	}
	c.links++
	c.at, c.left = c.f.data+int64(cluster-2)*c.f.cluster, c.f.cluster
	return c.region.Read(b)
}

// follow reads the entry of cluster c in the table; end means that c was the last of its chain.
func (f *fat) follow(r io.ReaderAt, c uint32) (next uint32, end bool, err error) {
	var b [4]byte
	if err := readAt(r, b[:(f.bits+7)/8], f.table+int64(c)*int64(f.bits)/8); err != nil {
		return 0, false, err
	}
	n := binary.LittleEndian.Uint32(b[:])
	switch f.bits {
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
