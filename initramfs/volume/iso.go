// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	label string
	root  Entry
	names isoNames
	skip  int // bytes before the system use fields of Rock Ridge
}

// openISO reads the volume descriptors: ECMA-119, section 8.
func openISO(r io.ReaderAt) (Volume, error) {
	v := &iso{r: r}
	var joliet *Entry
	b := make([]byte, isoSector)
	for n := int64(0); ; n++ {
		if n == maxDescriptors {
			return nil, fmt.Errorf("%w: more than %d volume descriptors", ErrFormat, maxDescriptors)
		}
		if _, err := r.ReadAt(b, (16+n)*isoSector); err != nil {
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
		if escape := string(b[88:91]); b[0] == 2 && (escape == "%/@" || escape == "%/C" || escape == "%/E") {
			joliet = &root.Entry
		} else if b[0] == 1 && !v.root.Dir {
			v.label = strings.Trim(fatText(b[40:72]), " \x00")
			v.root = root.Entry
		}
	}
	if !v.root.Dir {
		return nil, fmt.Errorf("%w: no primary volume descriptor", ErrFormat)
	}
	if err := v.findRockRidge(); err != nil {
		return nil, err
	}
	if v.names == plainNames && joliet != nil {
		v.names, v.root = jolietNames, *joliet
	}
	return v, nil
}

// findRockRidge looks for "SP" in the first record of the root directory: SUSP 1.12, section 5.3. It is taken to mean
// Rock Ridge; a record without an "NM" keeps its plain name.
func (v *iso) findRockRidge() error {
	b := make([]byte, isoSector)
	if _, err := v.r.ReadAt(b, int64(v.root.start)*isoSector); err != nil {
		return fmt.Errorf("read root directory: %w", err)
	}
	record, err := isoRecord(b)
	if err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	if s := record.system; len(s) >= 7 && string(s[:2]) == "SP" && s[4] == 0xbe && s[5] == 0xef {
		v.names, v.skip = rockNames, int(s[6])
	}
	return nil
}

func (v *iso) Label() string { return v.label }

func (v *iso) Root() Entry { return v.root }

func (v *iso) List(dir Entry) ([]Entry, error) {
	if dir.Size > maxDir {
		return nil, fmt.Errorf("directory of %d bytes, at most %d are read", dir.Size, maxDir)
	}
	b, err := v.Read(dir)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for at := 0; at < len(b); {
		if b[at] == 0 { // the rest of a sector is unused
			at = (at/isoSector + 1) * isoSector
			continue
		}
		record, err := isoRecord(b[at:])
		if err != nil {
			return nil, fmt.Errorf("directory record at %d: %w", at, err)
		}
		at += record.length
		if id := record.Name; id == "\x00" || id == "\x01" { // the directory itself and its parent
			continue
		}
		if record.Name, err = v.name(record); err != nil {
			return nil, fmt.Errorf("directory record at %d: %w", at-record.length, err)
		}
		// A file in several extents (4 GiB and more) is several records of one name.
		if n := len(entries); n > 0 && entries[n-1].parts && entries[n-1].Name == record.Name {
			entries[n-1].Size += record.Size
			continue
		}
		entries = append(entries, record.Entry)
	}
	return entries, nil
}

func (v *iso) Read(file Entry) ([]byte, error) {
	if file.parts {
		return nil, errors.New("file is in several or interleaved extents")
	}
	// The last byte is asked for first: memory is only taken for what is there.
	start := int64(file.start) * isoSector
	if file.Size > 0 {
		var last [1]byte
		if _, err := v.r.ReadAt(last[:], start+file.Size-1); err != nil {
			return nil, fmt.Errorf("read byte %d of the volume: %w", start+file.Size-1, err)
		}
	}
	b := make([]byte, file.Size)
	if _, err := v.r.ReadAt(b, start); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d of the volume: %w", len(b), start, err)
	}
	return b, nil
}

// record is a directory record: ECMA-119, section 9.1. Its Name is the plain identifier.
type record struct {
	Entry
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
	flags := b[25]
	return record{
		Entry: Entry{
			Name: string(b[33 : 33+idLen]), Dir: flags&0x02 != 0,
			start: binary.LittleEndian.Uint32(b[2:]) + uint32(b[1]), Size: int64(binary.LittleEndian.Uint32(b[10:])),
			parts: flags&0x80 != 0 || b[26] != 0,
		},
		length: len(b),
		system: b[min(system, len(b)):],
	}, nil
}

func (v *iso) name(r record) (string, error) {
	id := r.Name
	switch v.names {
	case jolietNames:
		units := make([]uint16, len(id)/2)
		for i := range units {
			units[i] = uint16(id[2*i])<<8 | uint16(id[2*i+1])
		}
		return plainName(string(utf16.Decode(units))), nil
	case rockNames:
		if name, err := v.rockName(r.system); err != nil || name != "" {
			return name, err
		}
	}
	return strings.ToLower(plainName(id)), nil
}

// plainName drops the version and the dot of an empty extension: "VMLINUZ.;1".
func plainName(id string) string {
	id, _, _ = strings.Cut(id, ";")
	return strings.TrimSuffix(id, ".")
}

// rockName joins the "NM" fields (RRIP 1.12, section 4.1.4) of a record and of the areas that it is continued in.
func (v *iso) rockName(area []byte) (string, error) {
	area = area[min(v.skip, len(area)):]
	var name strings.Builder
	for range maxContinuations {
		var next []byte
		for len(area) >= 4 {
			field := area
			size := int(field[2])
			if size < 4 || size > len(field) {
				break // padding, or something that is not a field
			}
			field, area = field[:size], area[size:]
			switch tag := string(field[:2]); {
			case tag == "NM" && size >= 5 && field[4]&0x06 == 0:
				name.Write(field[5:])
			case tag == "CE" && size >= 28:
				le := binary.LittleEndian
				sector, offset, length := int64(le.Uint32(field[4:])), int64(le.Uint32(field[12:])), le.Uint32(field[20:])
				if length > isoSector {
					return "", fmt.Errorf("continuation area of %d bytes", length)
				}
				next = make([]byte, length)
				if _, err := v.r.ReadAt(next, sector*isoSector+offset); err != nil {
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
