// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

// FloppySize is the size of a 3.5 inch floppy, 1,440 KiB, in bytes.
const FloppySize = 1440 << 10

// FAT is what a FAT volume is made from. It becomes FAT12 or FAT16, whichever its size wants.
type FAT struct {
	Size       int64             // bytes: FloppySize, or a multiple of SectorSize up to 1 GiB
	SectorSize int               // bytes: 512, or 4096 for disks that have such sectors; 0 is 512
	Label      string            // at most 11 printable ASCII characters, stored as they are
	Serial     uint32            // number of the volume, shown as a UUID such as 1A2B-3C4D
	Time       time.Time         // of all files; the zero time is 1980-01-01, the beginning of FAT's time
	Files      map[string][]byte // by slash-separated relative path
}

// geometry is where things lie, in sectors.
type geometry struct {
	sector, bits, perCluster, rootEntries, table, sectors, clusters int
	media                                                           byte
	track, heads                                                    uint16
}

func (f FAT) geometry() (geometry, error) {
	g := geometry{sector: cmp.Or(f.SectorSize, 512), bits: 16, rootEntries: 512, media: 0xf8, track: 63, heads: 255}
	if g.sector != 512 && g.sector != 4096 {
		return g, fmt.Errorf("a FAT volume with sectors of %d bytes: want 512 or 4096", g.sector)
	}
	if f.Size > 1<<30 || f.Size%int64(g.sector) != 0 {
		return g, fmt.Errorf("a FAT volume of %d bytes: want a multiple of %d, up to 1 GiB", f.Size, g.sector)
	}
	g.sectors = int(f.Size / int64(g.sector))
	if f.Size == FloppySize && g.sector == 512 {
		g.bits, g.rootEntries, g.media, g.track, g.heads = 12, 224, 0xf0, 18, 2
		g.perCluster, g.table = 1, 9
		g.clusters = g.sectors - g.dataStart()
		return g, nil
	}
	for g.perCluster = 1; ; g.perCluster *= 2 {
		// The table is sized for all sectors and 16 bits, so it is larger than it must be.
		g.table = ((g.sectors/g.perCluster+2)*2 + g.sector - 1) / g.sector
		g.clusters = (g.sectors - g.dataStart()) / g.perCluster
		if g.clusters < 65525-16 { // drivers disagree close to the border
			break
		}
	}
	if g.clusters < 4085 {
		g.bits = 12
	}
	if g.clusters < 1 {
		return g, fmt.Errorf("%d bytes are too few for a FAT volume", f.Size)
	}
	return g, nil
}

func (g geometry) rootStart() int { return 1 + 2*g.table }
func (g geometry) dataStart() int { return g.rootStart() + g.rootEntries*32/g.sector }

// offset is where a cluster lies, in bytes.
func (g geometry) offset(cluster uint32) int {
	return (g.dataStart() + int(cluster-2)*g.perCluster) * g.sector
}

// Bytes makes the volume. What does not fit is an error that says how many bytes are wanted and how many there are.
func (f FAT) Bytes() ([]byte, error) {
	b, err := f.Head()
	if err != nil {
		return nil, err
	}
	return append(b, make([]byte, int(f.Size)-len(b))...), nil
}

// Head makes the volume up to the last cluster in use; the rest of its Size is zeros.
func (f FAT) Head() ([]byte, error) {
	g, err := f.geometry()
	if err != nil {
		return nil, err
	}
	if err := checkFATLabel(f.Label); err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(f.Files))
	root, err := newTree(names)
	if err != nil {
		return nil, err
	}
	w := &fatMaker{g: g, out: make([]byte, g.offset(2)), next: 2, names: names, files: f.Files}
	w.date, w.time = fatTime(f.Time)
	w.setTable(0, 0xffffff00|uint32(g.media))
	w.setTable(1, 0xffffffff)

	entries, err := w.directory(root, 0)
	if err != nil {
		return nil, err
	}
	label := w.entry(fatPad(f.Label), attrVolume, 0, 0)
	entries = append(label, entries...)
	if len(entries) > g.rootEntries*32 {
		return nil, fmt.Errorf("root directory has %d entries, a FAT volume of %d bytes has room for %d", len(entries)/32, f.Size, g.rootEntries)
	}
	copy(w.out[g.rootStart()*g.sector:], entries)
	if w.need > g.clusters {
		cluster := g.perCluster * g.sector
		return nil, fmt.Errorf("files and directories need %d bytes, the FAT volume has room for %d", w.need*cluster, g.clusters*cluster)
	}
	f.putBootSector(w.out, g)
	return w.out, nil
}

func checkFATLabel(label string) error {
	if label == "" || len(label) > 11 || strings.TrimSpace(label) != label {
		return fmt.Errorf("label %q: want 1 to 11 characters for FAT", label)
	}
	for _, c := range []byte(label) {
		if c < 0x20 || c > 0x7e || strings.IndexByte(`"*+,./:;<=>?[\]|`, c) >= 0 {
			return fmt.Errorf("label %q: character %q is not allowed in FAT", label, c)
		}
	}
	return nil
}

// putBootSector writes the volume's parameters, and code that passes on to the next boot device: a floppy that only carries
// configuration must not stop a BIOS that tries to boot it.
func (f FAT) putBootSector(b []byte, g geometry) {
	le := binary.LittleEndian
	copy(b, "\xeb\x3c\x90IRONHAND")
	le.PutUint16(b[11:], uint16(g.sector))
	b[13] = byte(g.perCluster)
	le.PutUint16(b[14:], 1) // reserved sectors
	b[16] = 2               // tables
	le.PutUint16(b[17:], uint16(g.rootEntries))
	if g.sectors < 1<<16 {
		le.PutUint16(b[19:], uint16(g.sectors))
	} else {
		le.PutUint32(b[32:], uint32(g.sectors))
	}
	b[21] = g.media
	le.PutUint16(b[22:], uint16(g.table))
	le.PutUint16(b[24:], g.track)
	le.PutUint16(b[26:], g.heads)
	if g.media == 0xf8 {
		b[36] = 0x80 // BIOS number of the drive
	}
	b[38] = 0x29 // the three fields that follow are there
	le.PutUint32(b[39:], f.Serial)
	copy(b[43:54], fatPad(f.Label))
	copy(b[54:62], fmt.Sprintf("FAT%-5d", g.bits))
	copy(b[62:], "\xcd\x18\xeb\xfe") // int 18h; jmp $
	b[510], b[511] = 0x55, 0xaa
}

type fatMaker struct {
	g          geometry
	out        []byte
	next       uint32 // the next free cluster
	need       int    // clusters wanted so far, also those that are not there
	names      []string
	files      map[string][]byte
	date, time uint16
}

// store puts data into fresh clusters. When the volume is full it only counts on, for the error at the end.
func (w *fatMaker) store(data []byte) uint32 {
	cluster := w.g.perCluster * w.g.sector
	n := (len(data) + cluster - 1) / cluster
	w.need += n
	if n == 0 || w.need > w.g.clusters {
		return 0
	}
	first := w.next
	w.out = append(w.out, data...)
	w.out = append(w.out, make([]byte, n*cluster-len(data))...)
	for i := range n {
		link := first + uint32(i) + 1
		if i == n-1 {
			link = 0xffffffff
		}
		w.setTable(first+uint32(i), link)
	}
	w.next += uint32(n)
	return first
}

// setTable sets an entry in both tables.
func (w *fatMaker) setTable(cluster, value uint32) {
	for t := range 2 {
		table := w.out[(1+t*w.g.table)*w.g.sector:]
		if w.g.bits == 16 {
			binary.LittleEndian.PutUint16(table[cluster*2:], uint16(value))
			continue
		}
		at := cluster * 3 / 2
		old := binary.LittleEndian.Uint16(table[at:])
		if cluster%2 == 0 {
			binary.LittleEndian.PutUint16(table[at:], old&0xf000|uint16(value&0xfff))
		} else {
			binary.LittleEndian.PutUint16(table[at:], old&0x000f|uint16(value<<4))
		}
	}
}

// directory makes the entries of d's files and directories, storing their contents on the way. self is d's own first
// cluster; the root directory has none, and its directories say 0 for their parent.
func (w *fatMaker) directory(d *tree, self uint32) (entries []byte, err error) {
	short, folded := map[string]bool{}, map[string]bool{}
	add := func(name string, attr byte, first uint32, size int) error {
		if folded[strings.ToLower(name)] {
			return fmt.Errorf("file name %q differs from another one in case alone", name)
		}
		folded[strings.ToLower(name)] = true
		e, err := w.named(name, attr, first, size, short)
		entries = append(entries, e...)
		return err
	}
	for _, i := range d.files {
		data := w.files[w.names[i]]
		if err := add(path.Base(w.names[i]), 0, w.store(data), len(data)); err != nil {
			return nil, err
		}
	}
	for _, sub := range d.dirs {
		first, err := w.subdirectory(sub, self)
		if err != nil {
			return nil, err
		}
		if err := add(sub.name, attrDir, first, 0); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// subdirectory takes the clusters of a directory before those of its contents, because "." and ".." name them.
func (w *fatMaker) subdirectory(d *tree, parent uint32) (uint32, error) {
	size := 2 * 32
	for _, i := range d.files {
		size += entryLen(path.Base(w.names[i]))
	}
	for _, sub := range d.dirs {
		size += entryLen(sub.name)
	}
	first := w.store(make([]byte, size))
	entries, err := w.directory(d, first)
	if err != nil || first == 0 {
		return 0, err
	}
	at := w.g.offset(first)
	n := copy(w.out[at:], w.entry(".          ", attrDir, first, 0))
	n += copy(w.out[at+n:], w.entry("..         ", attrDir, parent, 0))
	copy(w.out[at+n:at+size], entries)
	return first, nil
}

// entryLen is at least the number of bytes that the entries of a name take.
func entryLen(name string) int {
	return 32 * (1 + (len(utf16.Encode([]rune(name)))+12)/13)
}

// named makes the entries of one name: the long one in front, where the short one is not the name itself.
func (w *fatMaker) named(name string, attr byte, first uint32, size int, taken map[string]bool) ([]byte, error) {
	units := utf16.Encode([]rune(name))
	if len(units) > 255 || strings.ContainsAny(name, "\"*:<>?\\|") || strings.TrimRight(name, " .") != name {
		return nil, fmt.Errorf("file name %q is not allowed in FAT", name)
	}
	for _, c := range name {
		if c < 0x20 || c == 0x7f {
			return nil, fmt.Errorf("file name %q has a control character", name)
		}
	}
	short, exact := shortName(name, "~", taken)
	stem, ext, _ := strings.Cut(short, ".")
	raw := fmt.Sprintf("%-8s%-3s", stem, ext)
	var b []byte
	if !exact {
		parts := (len(units) + 12) / 13
		for part := parts; part > 0; part-- {
			e := make([]byte, 32)
			e[0] = byte(part)
			if part == parts {
				e[0] |= 0x40
			}
			e[11], e[13] = attrLong, shortSum([]byte(raw))
			for i, at := range longPositions() {
				u := uint16(0xffff)
				if k := (part-1)*13 + i; k < len(units) {
					u = units[k]
				} else if k == len(units) {
					u = 0
				}
				binary.LittleEndian.PutUint16(e[at:], u)
			}
			b = append(b, e...)
		}
	}
	return append(b, w.entry(raw, attr, first, size)...), nil
}

// entry makes one directory entry of 32 bytes; raw has 11.
func (w *fatMaker) entry(raw string, attr byte, first uint32, size int) []byte {
	e := make([]byte, 32)
	copy(e[:11], raw)
	e[11] = attr
	le := binary.LittleEndian
	le.PutUint16(e[14:], w.time) // created
	le.PutUint16(e[16:], w.date)
	le.PutUint16(e[18:], w.date) // read
	le.PutUint16(e[22:], w.time) // written
	le.PutUint16(e[24:], w.date)
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], uint32(size))
	return e
}

func fatPad(label string) string { return fmt.Sprintf("%-11s", label) }

// fatTime packs a time as FAT does, in UTC; before 1980 and after 2107 there is only 1980-01-01.
func fatTime(t time.Time) (date, clock uint16) {
	t = t.UTC()
	if t.Year() < 1980 || t.Year() > 2107 {
		return 1<<5 | 1, 0
	}
	return uint16(t.Year()-1980)<<9 | uint16(t.Month())<<5 | uint16(t.Day()),
		uint16(t.Hour())<<11 | uint16(t.Minute())<<5 | uint16(t.Second()/2)
}
