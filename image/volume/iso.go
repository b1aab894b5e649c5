// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf16"
)

const (
	isoSector = 2048 // bytes; other sizes are allowed by ECMA-119 and made by nobody

	maxDescriptors   = 32 // volume descriptors looked at
	maxContinuations = 8  // continuation areas followed for one directory record
)

// Kinds of names in an ISO 9660 volume, best first: Rock Ridge (POSIX), Joliet (UCS-2), plain.
type isoNames int

const (
	plainNames isoNames = iota
	jolietNames
	rockNames
)

// iso is an ISO 9660 volume opened for reading.
type iso struct {
	r     io.ReaderAt
	dirs  *dirReader // the same, for what describes directories
	names isoNames
	skip  int // bytes before the system use fields of Rock Ridge
}

// openISO reads the volume descriptors: ECMA-119, section 8.
func openISO(r io.ReaderAt) (*Volume, error) {
	f := &iso{r: r, dirs: &dirReader{r, maxDirs}}
	v := &Volume{format: f}
	var joliet *entry
	b := make([]byte, isoSector)
	for n := int64(0); ; n++ {
		if n == maxDescriptors {
			return nil, fmt.Errorf("%w: more than %d volume descriptors", ErrFormat, maxDescriptors)
		}
		if err := readAt(r, b, (16+n)*isoSector); err != nil {
			return nil, fmt.Errorf("read volume descriptor %d: %w", n, err)
		}
		if string(b[1:6]) != "CD001" {
			return nil, fmt.Errorf("%w: volume descriptor %d has no mark", ErrFormat, n)
		}
		if b[0] == 255 {
			break
		}
		if b[0] != 1 && b[0] != 2 {
			continue
		}
		if size := binary.LittleEndian.Uint16(b[128:]); size != isoSector {
			return nil, fmt.Errorf("%w: sectors of %d bytes", ErrFormat, size)
		}
		root, err := isoRecord(b[156:190])
		if err != nil {
			return nil, fmt.Errorf("root directory: %w", err)
		}
		// Joliet is marked by one of three escape sequences.
		if escape := string(b[88:91]); b[0] == 2 && (escape == "%/@" || escape == "%/C" || escape == "%/E") && root.IsDir() {
			joliet = root.entry
		} else if b[0] == 1 && v.root == nil && root.IsDir() {
			v.label = strings.Trim(fatText(b[40:72]), " \x00")
			v.publisher = strings.Trim(fatText(b[318:446]), " \x00")
			v.root = root.entry
		}
	}
	if v.root == nil {
		return nil, fmt.Errorf("%w: no primary volume descriptor", ErrFormat)
	}
	if err := f.findRockRidge(v.root); err != nil {
		return nil, fmt.Errorf("read root directory: %w", err)
	}
	if f.names == plainNames && joliet != nil {
		f.names, v.root = jolietNames, joliet
	}
	v.root.name = "."
	return v, nil
}

// findRockRidge looks for "SP" in the first record of the root directory: SUSP 1.12, section 5.3. It is taken to mean
// Rock Ridge; a record without an "NM" keeps its plain name.
func (f *iso) findRockRidge(root *entry) error {
	b := make([]byte, isoSector)
	if err := readAt(f.dirs, b, int64(root.start)*isoSector); err != nil {
		return err
	}
	record, err := isoRecord(b)
	if err != nil {
		return err
	}
	if s := record.system; len(s) >= 7 && string(s[:2]) == "SP" && s[4] == 0xbe && s[5] == 0xef {
		f.names, f.skip = rockNames, int(s[6])
	}
	return nil
}

func (f *iso) list(dir *entry) ([]*entry, error) {
	var entries []*entry
	r := &region{f.dirs, int64(dir.start) * isoSector, dir.size}
	sector := make([]byte, isoSector)
	for r.left > 0 { // no record lies across the border of two sectors
		at := dir.size - r.left
		b := sector[:min(isoSector, r.left)]
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		for len(b) > 0 && b[0] != 0 { // the rest is unused
			record, err := isoRecord(b)
			if err != nil {
				return nil, fmt.Errorf("directory record in the sector at %d: %w", at, err)
			}
			b = b[record.length:]
			if id := record.name; id == "\x00" || id == "\x01" { // the directory itself and its parent
				continue
			}
			if err := f.describe(record); err != nil {
				return nil, fmt.Errorf("directory record in the sector at %d: %w", at, err)
			}
			// A file in several extents (4 GiB and more) is several records of one name.
			if n := len(entries); n > 0 && entries[n-1].parts && entries[n-1].name == record.name {
				entries[n-1].size += record.size
				continue
			}
			entries = append(entries, record.entry)
		}
	}
	return entries, nil
}

func (f *iso) open(file *entry) (io.Reader, error) {
	return &region{f.r, int64(file.start) * isoSector, file.size}, nil
}

// record is a directory record: ECMA-119, section 9.1. Its name is the plain identifier.
type record struct {
	*entry
	length int
	system []byte // the system use area
}

func isoRecord(b []byte) (record, error) {
	if len(b) < 34 || int(b[0]) < 34 || int(b[0]) > len(b) {
		return record{}, errors.New("is cut off")
	}
	b = b[:b[0]]
	idLen := int(b[32])
	system := 33 + idLen + (idLen+1)%2
	if system > len(b) && 33+idLen != len(b) {
		return record{}, errors.New("has a name beyond its end")
	}
	le := binary.LittleEndian
	e := newEntry(string(b[33:33+idLen]), b[25]&0x02 != 0, int64(le.Uint32(b[10:])), le.Uint32(b[2:])+uint32(b[1]))
	e.parts = b[25]&0x80 != 0 || b[26] != 0
	return record{entry: e, length: len(b), system: b[min(system, len(b)):]}, nil
}

// describe gives an entry the best name that the volume has for it, and with Rock Ridge its type.
func (f *iso) describe(r record) error {
	id := r.name
	switch f.names {
	case jolietNames:
		units := make([]uint16, len(id)/2)
		for i := range units {
			units[i] = uint16(id[2*i])<<8 | uint16(id[2*i+1])
		}
		r.name = plainName(string(utf16.Decode(units)))
		return nil
	case rockNames:
		if name, err := f.rockRidge(r); err != nil || name != "" {
			r.name = name
			return err
		}
	}
	r.name = strings.ToLower(plainName(id))
	return nil
}

// plainName drops the version and the dot of an empty extension: "VMLINUZ.;1".
func plainName(id string) string {
	id, _, _ = strings.Cut(id, ";")
	return strings.TrimSuffix(id, ".")
}

// rockRidge joins the "NM" fields (RRIP 1.12, section 4.1.4) of a record and of the areas that it is continued in, and
// marks what "PX" (section 4.1.1) says is no file: a link, a device, the place of a directory that lies elsewhere ("CL").
func (f *iso) rockRidge(r record) (string, error) {
	le := binary.LittleEndian
	area := r.system[min(f.skip, len(r.system)):]
	var name strings.Builder
	for range maxContinuations {
		var next []byte
		for len(area) >= 4 {
			size := int(area[2])
			if size < 4 || size > len(area) {
				break // padding, or something that is not a field
			}
			field := area[:size]
			area = area[size:]
			switch tag := string(field[:2]); {
			case tag == "NM" && size >= 5 && field[4]&0x06 == 0:
				name.Write(field[5:])
			case tag == "PX" && size >= 8 && !r.IsDir():
				switch le.Uint32(field[4:]) & 0o170000 {
				case 0o100000:
				case 0o120000:
					r.mode |= fs.ModeSymlink
				default:
					r.mode |= fs.ModeIrregular
				}
			case tag == "CE" && size >= 28:
				sector, offset, length := int64(le.Uint32(field[4:])), int64(le.Uint32(field[12:])), le.Uint32(field[20:])
				if length > isoSector {
					return "", fmt.Errorf("continuation area of %d bytes", length)
				}
				next = make([]byte, length)
				if err := readAt(f.dirs, next, sector*isoSector+offset); err != nil {
					return "", fmt.Errorf("read continuation area at sector %d: %w", sector, err)
				}
			}
		}
		if next == nil {
			return name.String(), nil
		}
		area = next
	}
	return "", fmt.Errorf("more than %d continuation areas", maxContinuations)
}
