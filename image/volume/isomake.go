// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// ISO is what an ISO 9660 volume with Rock Ridge names is made from.
type ISO struct {
	Label string    // at most 32 printable ASCII characters, stored as they are
	Time  time.Time // of all files and of the volume; the zero time is "not specified"
	Files []File
	Boot  []Boot // El Torito entries, the default one first
	// System is written into the first 32 KiB, which ISO 9660 leaves to others (ECMA-119, section 6.2.1): a partition table, say. What it does not fill is zeros.
	System []byte
}

// Place is where a file lies on a volume, in bytes.
type Place struct{ Offset, Length int64 }

// Places tells where the files will lie, by name, and how many bytes the volume will have.
func (v ISO) Places() (places map[string]Place, size int64, err error) {
	m, err := v.layout()
	if err != nil {
		return nil, 0, err
	}
	places = map[string]Place{}
	for i, f := range v.Files {
		places[f.Name] = Place{int64(m.files[i]) * isoSector, f.Size}
	}
	return places, int64(m.sectors) * isoSector, nil
}

// File is one file of an ISO.
type File struct {
	Name string // slash-separated relative path, at most 16 elements
	Size int64  // bytes; below 4 GiB
	Open func() (io.ReadCloser, error)
}

// Boot names a file that firmware starts from.
type Boot struct {
	File string // a name in Files
	// EFI says that it is an EFI system partition of less than 32 MiB. Otherwise it is a program for the BIOS, of which
	// 2 KiB are loaded and which finds the rest by its boot information table (isolinux.bin), which is filled in.
	EFI bool
}

// BytesFile is a File of an ISO that lies in memory.
func BytesFile(name string, b []byte) File {
	return File{Name: name, Size: int64(len(b)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}
}

// BytesFiles are the Files of an ISO that lie in memory, by name.
func BytesFiles(files map[string][]byte) []File {
	var list []File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, BytesFile(name, files[name]))
	}
	return list
}

// DiskFile is a File of an ISO that is the regular file at path. It must not change until the ISO is written.
func DiskFile(name, path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	if !info.Mode().IsRegular() {
		return File{}, fmt.Errorf("%s: not a regular file", path)
	}
	return File{Name: name, Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(path) }}, nil
}

// isoDir is a directory with its place.
type isoDir struct {
	name   string
	short  string
	tree   *tree
	parent int // index
	number int // in the path table, from 1
	sector uint32
	data   []byte   // records, in whole sectors
	more   []byte   // continuations of records, in the sectors behind
	subs   []int    // indexes
	shorts []string // of the tree's files
}

// Bytes makes the volume in memory.
func (v ISO) Bytes() ([]byte, error) {
	var b bytes.Buffer
	_, err := v.WriteTo(&b)
	return b.Bytes(), err
}

// WriteTo writes the volume: 16 empty sectors, descriptors, path tables, directories, boot catalogue, files.
func (v ISO) WriteTo(w io.Writer) (int64, error) {
	m, err := v.layout()
	if err != nil {
		return 0, err
	}
	out := &countingWriter{w: w}
	if err := m.write(out); err != nil {
		return out.n, err
	}
	return out.n, nil
}

type isoMaker struct {
	iso      ISO
	dirs     []*isoDir // by level, then parent, then name, as the path table wants them
	files    []uint32  // first sectors of iso.Files
	order    []int     // of the files on the volume
	tableLen int       // bytes of one path table
	tables   [2]uint32 // first sectors of the little and the big endian one
	catalog  uint32    // sector; 0 without boot entries
	sectors  uint32    // of the volume
}

func (v ISO) layout() (*isoMaker, error) {
	if len(v.System) > 16*isoSector {
		return nil, fmt.Errorf("%d bytes for the system area, which has %d", len(v.System), 16*isoSector)
	}
	if v.Label == "" || len(v.Label) > 32 || strings.ContainsFunc(v.Label, func(c rune) bool { return c < 0x20 || c > 0x7e }) {
		return nil, fmt.Errorf("label %q: want 1 to 32 printable ASCII characters for ISO 9660", v.Label)
	}
	names := make([]string, len(v.Files))
	for i, f := range v.Files {
		if f.Size < 0 || f.Size >= math.MaxUint32 {
			return nil, fmt.Errorf("file %q has %d bytes, ISO 9660 allows less than 4 GiB", f.Name, f.Size)
		}
		names[i] = f.Name
	}
	root, err := newTree(names)
	if err != nil {
		return nil, err
	}
	m := &isoMaker{iso: v, files: make([]uint32, len(v.Files))}
	if err := m.addDirs(root); err != nil {
		return nil, err
	}

	// Sectors are given out in the order of writing; directories are built twice, first only for their length.
	next := uint32(16 + 2)
	if len(v.Boot) > 0 {
		next++
	}
	for _, d := range m.dirs {
		m.tableLen += 8 + len(d.short) + len(d.short)%2
	}
	for i := range m.tables {
		m.tables[i] = next
		next += sectorsOf(int64(m.tableLen))
	}
	for _, d := range m.dirs {
		if err := m.build(d); err != nil {
			return nil, err
		}
		d.sector = next
		next += sectorsOf(int64(len(d.data) + len(d.more)))
	}
	if len(v.Boot) > 0 {
		m.catalog = next
		next++
	}
	for _, d := range m.dirs {
		for _, i := range d.tree.files {
			m.files[i] = next
			m.order = append(m.order, i)
			if n := sectorsOf(v.Files[i].Size); next > math.MaxUint32-n {
				return nil, errors.New("the files are too large for ISO 9660")
			} else {
				next += n
			}
		}
	}
	m.sectors = next
	for _, d := range m.dirs {
		if err := m.build(d); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// addDirs lists the directories level by level and gives all names their plain form. ECMA-119 allows 8 levels, and nobody who
// reads Rock Ridge minds more.
func (m *isoMaker) addDirs(root *tree) error {
	m.dirs = []*isoDir{{tree: root, short: "\x00", number: 1}}
	for at, level := 0, 1; at < len(m.dirs); level++ {
		if level > maxDepth {
			return fmt.Errorf("directories are more than %d levels deep", maxDepth)
		}
		end := len(m.dirs)
		for ; at < end; at++ {
			d := m.dirs[at]
			taken := map[string]bool{}
			var subs []*isoDir
			for _, sub := range d.tree.dirs {
				short, _ := shortName(strings.ReplaceAll(sub.name, ".", "_"), "_", taken)
				subs = append(subs, &isoDir{name: sub.name, short: short, tree: sub, parent: at})
			}
			slices.SortFunc(subs, func(a, b *isoDir) int { return cmp.Compare(a.short, b.short) })
			for _, i := range d.tree.files {
				short, _ := shortName(path.Base(m.iso.Files[i].Name), "_", taken)
				if !strings.Contains(short, ".") {
					short += "."
				}
				d.shorts = append(d.shorts, short+";1")
			}
			for _, sub := range subs {
				sub.number = len(m.dirs) + 1
				d.subs = append(d.subs, len(m.dirs))
				m.dirs = append(m.dirs, sub)
			}
		}
	}
	return nil
}

// build makes the records of a directory, none across the border of two sectors.
func (m *isoMaker) build(d *isoDir) error {
	type item struct {
		id, name string
		dir      *isoDir
		file     int
	}
	items := make([]item, 0, len(d.subs)+len(d.shorts))
	for _, sub := range d.subs {
		items = append(items, item{id: m.dirs[sub].short, name: m.dirs[sub].name, dir: m.dirs[sub]})
	}
	for k, i := range d.tree.files {
		items = append(items, item{id: d.shorts[k], name: path.Base(m.iso.Files[i].Name), file: i})
	}
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(a.id, b.id) })

	length := len(d.data) // of the first time
	more := d.sector + sectorsOf(int64(length))
	d.data, d.more = d.data[:0], d.more[:0]
	self := m.record("\x00", d.sector, int64(length), true, d.number == 1)
	parent := m.dirs[d.parent]
	parentLen := len(parent.data)
	if parent == d {
		parentLen = length
	}
	d.data = append(append(d.data, finish(self)...), finish(m.record("\x01", parent.sector, int64(parentLen), true, false))...)
	for _, it := range items {
		if len(it.name) > 250 {
			return fmt.Errorf("file name %q is too long for Rock Ridge", it.name)
		}
		var r []byte
		if it.dir != nil {
			r = m.record(it.id, it.dir.sector, int64(len(it.dir.data)), true, false)
		} else {
			r = m.record(it.id, m.files[it.file], m.iso.Files[it.file].Size, false, false)
		}
		name := append([]byte{'N', 'M', byte(5 + len(it.name)), 1, 0}, it.name...)
		if len(r)+len(name) > 254 { // it goes elsewhere: SUSP 1.12, section 5.1
			if room := isoSector - len(d.more)%isoSector; room < len(name) {
				d.more = append(d.more, make([]byte, room)...)
			}
			ce := make([]byte, 28)
			copy(ce, "CE\x1c\x01")
			both32(ce[4:], more+uint32(len(d.more)/isoSector))
			both32(ce[12:], uint32(len(d.more)%isoSector))
			both32(ce[20:], uint32(len(name)))
			d.more, name = append(d.more, name...), ce
		}
		r = finish(append(r, name...))
		if room := isoSector - len(d.data)%isoSector; room < len(r) {
			d.data = append(d.data, make([]byte, room)...)
		}
		d.data = append(d.data, r...)
	}
	d.data, d.more = padSector(d.data), padSector(d.more)
	return nil
}

// record begins a directory record with its Rock Ridge fields, but for the name.
func (m *isoMaker) record(id string, sector uint32, size int64, dir, root bool) []byte {
	b := make([]byte, 33, 255)
	both32(b[2:], sector)
	both32(b[10:], uint32(size))
	if t := m.iso.Time.UTC(); t.Year() >= 1900 && t.Year() <= 2155 {
		copy(b[18:], []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0})
	}
	mode, links := uint32(0o100444), uint32(1)
	if dir {
		b[25] = 0x02
		mode, links = 0o040555, 2
	}
	both16(b[28:], 1) // volume of the set
	b[32] = byte(len(id))
	b = append(b, id...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	if root {
		b = append(b, "SP\x07\x01\xbe\xef\x00"...)
	}
	px := make([]byte, 36)
	copy(px, "PX\x24\x01")
	both32(px[4:], mode)
	both32(px[12:], links)
	b = append(b, px...)
	if root {
		b = append(b, "ER\x12\x01\x0a\x00\x00\x01RRIP_1991A"...)
	}
	return b
}

// finish gives a record its length.
func finish(record []byte) []byte {
	if len(record)%2 == 1 {
		record = append(record, 0)
	}
	record[0] = byte(len(record))
	return record
}

func (m *isoMaker) write(w *countingWriter) error {
	var head bytes.Buffer
	head.Write(m.iso.System)
	head.Write(make([]byte, 16*isoSector-len(m.iso.System)))
	head.Write(m.primary())
	if m.catalog != 0 {
		boot := descriptor(0)
		copy(boot[7:], "EL TORITO SPECIFICATION")
		binary.LittleEndian.PutUint32(boot[71:], m.catalog)
		head.Write(boot)
	}
	head.Write(descriptor(255))
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		head.Write(padSector(m.pathTable(order)))
	}
	for _, d := range m.dirs {
		head.Write(d.data)
		head.Write(d.more)
	}
	if m.catalog != 0 {
		catalog, err := m.bootCatalog()
		if err != nil {
			return err
		}
		head.Write(padSector(catalog))
	}
	if _, err := w.Write(head.Bytes()); err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	for _, i := range m.order {
		if err := m.copyFile(w, i); err != nil {
			return fmt.Errorf("write file %q: %w", m.iso.Files[i].Name, err)
		}
	}
	return nil
}

// descriptor begins a volume descriptor.
func descriptor(kind byte) []byte {
	b := make([]byte, isoSector)
	b[0] = kind
	copy(b[1:], "CD001\x01")
	return b
}

// primary is the primary volume descriptor: ECMA-119, section 8.4.
func (m *isoMaker) primary() []byte {
	b := descriptor(1)
	text := func(at, n int, s string) { copy(b[at:at+n], s+strings.Repeat(" ", n-len(s))) }
	text(8, 32, "")
	text(40, 32, m.iso.Label)
	both32(b[80:], m.sectors)
	both16(b[120:], 1)
	both16(b[124:], 1)
	both16(b[128:], isoSector)
	both32(b[132:], uint32(m.tableLen))
	binary.LittleEndian.PutUint32(b[140:], m.tables[0])
	binary.BigEndian.PutUint32(b[148:], m.tables[1])
	root := m.record("\x00", m.dirs[0].sector, int64(len(m.dirs[0].data)), true, false)
	copy(b[156:190], root[:34])
	b[156] = 34
	text(190, 623, "") // identifiers of set, publisher, preparer, application, and names of three files
	for i := range 4 { // created, modified, expires, effective
		at := b[813+17*i:][:17]
		stamp := "0000000000000000"
		if i < 2 && !m.iso.Time.IsZero() {
			stamp = m.iso.Time.UTC().Format("20060102150405") + "00"
		}
		copy(at, stamp)
	}
	b[881] = 1 // version of this structure
	return b
}

// pathTable lists all directories: ECMA-119, section 9.4.
func (m *isoMaker) pathTable(order binary.AppendByteOrder) []byte {
	var b []byte
	for _, d := range m.dirs {
		b = append(b, byte(len(d.short)), 0)
		b = order.AppendUint32(b, d.sector)
		b = order.AppendUint16(b, uint16(m.dirs[d.parent].number))
		b = append(b, d.short...)
		b = append(b, make([]byte, len(d.short)%2)...)
	}
	return b
}

// bootCatalog is section 2 of "El Torito" Bootable CD-ROM Format Specification, version 1.0.
func (m *isoMaker) bootCatalog() ([]byte, error) {
	const (
		platformBIOS = 0x00
		platformEFI  = 0xef
	)
	var b []byte
	for n, boot := range m.iso.Boot {
		i := slices.IndexFunc(m.iso.Files, func(f File) bool { return f.Name == boot.File })
		if i < 0 {
			return nil, fmt.Errorf("boot file %q is not on the volume", boot.File)
		}
		platform, sectors := byte(platformBIOS), int64(4) // of 512 bytes
		if boot.EFI {
			platform, sectors = platformEFI, (m.iso.Files[i].Size+511)/512
			if sectors > math.MaxUint16 {
				return nil, fmt.Errorf("EFI boot file %q has %d bytes, less than 32 MiB are allowed", boot.File, m.iso.Files[i].Size)
			}
		}
		head := make([]byte, 32)
		if n == 0 { // validation entry
			head[0], head[1] = 1, platform
			copy(head[4:28], "IRONHAND")
			head[30], head[31] = 0x55, 0xaa
			var sum uint16
			for k := 0; k < 32; k += 2 {
				sum += binary.LittleEndian.Uint16(head[k:])
			}
			binary.LittleEndian.PutUint16(head[28:], -sum)
		} else { // section header, with one entry
			head[0] = 0x90
			if n == len(m.iso.Boot)-1 {
				head[0] = 0x91
			}
			head[1] = platform
			binary.LittleEndian.PutUint16(head[2:], 1)
		}
		entry := make([]byte, 32)
		entry[0] = 0x88 // bootable, without emulation
		binary.LittleEndian.PutUint16(entry[6:], uint16(sectors))
		binary.LittleEndian.PutUint32(entry[8:], m.files[i])
		b = append(append(b, head...), entry...)
	}
	if len(b) > isoSector {
		return nil, fmt.Errorf("%d boot files do not fit the catalogue", len(m.iso.Boot))
	}
	return b, nil
}

// copyFile writes one file, padded to a sector.
func (m *isoMaker) copyFile(w *countingWriter, i int) error {
	f := m.iso.Files[i]
	if want := int64(m.files[i]) * isoSector; f.Size > 0 && w.n != want {
		return fmt.Errorf("is at byte %d, its directory says %d", w.n, want)
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	var from io.Reader = r
	if slices.ContainsFunc(m.iso.Boot, func(b Boot) bool { return b.File == f.Name && !b.EFI }) {
		program, err := io.ReadAll(io.LimitReader(r, f.Size+1))
		if err != nil {
			return err
		}
		if err := fillBootTable(program, m.files[i]); err != nil {
			return err
		}
		from = bytes.NewReader(program)
	}
	if _, err := io.CopyN(w, from, f.Size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if n, err := io.ReadFull(from, make([]byte, 1)); n > 0 {
		return fmt.Errorf("has grown beyond its %d bytes", f.Size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	_, err = w.Write(make([]byte, int64(sectorsOf(f.Size))*isoSector-f.Size))
	return err
}

// fillBootTable tells a boot program where it lies: mkisofs(8), "EL TORITO BOOT INFORMATION TABLE".
func fillBootTable(program []byte, sector uint32) error {
	if len(program) < 64 {
		return fmt.Errorf("a boot program of %d bytes has no room for its boot information table", len(program))
	}
	var sum uint32
	for at := 64; at < len(program); at += 4 {
		var word [4]byte
		copy(word[:], program[at:])
		sum += binary.LittleEndian.Uint32(word[:])
	}
	table := program[8:64]
	clear(table)
	binary.LittleEndian.PutUint32(table[0:], 16) // sector of the primary volume descriptor
	binary.LittleEndian.PutUint32(table[4:], sector)
	binary.LittleEndian.PutUint32(table[8:], uint32(len(program)))
	binary.LittleEndian.PutUint32(table[12:], sum)
	return nil
}

func sectorsOf(size int64) uint32 { return uint32((size + isoSector - 1) / isoSector) }

func padSector(b []byte) []byte {
	return append(b, make([]byte, int(sectorsOf(int64(len(b))))*isoSector-len(b))...)
}

// both16 and both32 store a number in both byte orders, little endian first.
func both16(b []byte, n uint16) {
	binary.LittleEndian.PutUint16(b, n)
	binary.BigEndian.PutUint16(b[2:], n)
}

func both32(b []byte, n uint32) {
	binary.LittleEndian.PutUint32(b, n)
	binary.BigEndian.PutUint32(b[4:], n)
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
