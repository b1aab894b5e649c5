// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	isoBlock   = 2048
	isoEntries = 10000 // most files and directories
	isoDepth   = 16
)

// readISO reads all files of an ISO 9660 image (ECMA-119) with the names that Rock Ridge gives them (IEEE P1282), else with their own
// in lower case. It refuses what is neither file nor directory, and files in several extents.
func readISO(b []byte) (map[string][]byte, error) {
	if len(b) < 17*isoBlock {
		return nil, errors.New("not ISO 9660")
	}
	if _, ok := probeISO(b); !ok {
		return nil, errors.New("not ISO 9660")
	}
	r := &isoReader{b: b, files: map[string][]byte{}}
	root, err := r.record(b[16*isoBlock+156:][:34])
	if err != nil {
		return nil, err
	}
	return r.files, r.directory(root, "", 0)
}

type isoReader struct {
	b       []byte
	files   map[string][]byte
	entries int
	total   int
}

// isoRecord is a directory record: ECMA-119 section 9.1.
type isoRecord struct {
	name      string
	directory bool
	content   []byte
	self      bool // the entry of the directory itself, or of its parent
}

func (r *isoReader) directory(d isoRecord, at string, depth int) error {
	if depth > isoDepth {
		return fmt.Errorf("directory %s: too deep", at)
	}
	for block := range slices.Chunk(d.content, isoBlock) { // no record lies across a block's end
		for b := block; len(b) > 0 && b[0] != 0; b = b[b[0]:] {
			if int(b[0]) > len(b) {
				return fmt.Errorf("directory %q: record is cut", at)
			}
			e, err := r.record(b[:b[0]])
			if err != nil {
				return fmt.Errorf("directory %q: %w", at, err)
			}
			if e.self {
				continue
			}
			if r.entries++; r.entries > isoEntries {
				return fmt.Errorf("more than %d files", isoEntries)
			}
			name := path.Join(at, e.name)
			if e.directory {
				if err := r.directory(e, name, depth+1); err != nil {
					return err
				}
				continue
			}
			if r.total += len(e.content); r.total > len(r.b) {
				return errors.New("files overlap")
			}
			r.files[name] = e.content
		}
	}
	return nil
}

func (r *isoReader) record(b []byte) (e isoRecord, err error) {
	if len(b) < 34 || 33+int(b[32]) > len(b) {
		return e, errors.New("record is cut")
	}
	flags, id := b[25], string(b[33:33+int(b[32])])
	e.directory = flags&0x02 != 0
	if flags&0x80 != 0 {
		return e, errors.New("file in several extents")
	}
	block, size := int64(binary.LittleEndian.Uint32(b[2:])), int64(binary.LittleEndian.Uint32(b[10:]))
	if size > 0 {
		if block*isoBlock+size > int64(len(r.b)) {
			return e, fmt.Errorf("%d bytes at block %d are not in the image", size, block)
		}
		e.content = r.b[block*isoBlock:][:size]
	}
	if id == "\x00" || id == "\x01" {
		e.self = true
		return e, nil
	}
	after := 33 + len(id)
	after += after & 1 // records are padded to even places
	if e.name, err = r.rockRidge(b[min(after, len(b)):]); err != nil {
		return e, err
	}
	if e.name == "" {
		id, _, _ = strings.Cut(id, ";")
		e.name = strings.ToLower(strings.TrimSuffix(id, "."))
	}
	if e.name == "" || e.name == "." || e.name == ".." || strings.ContainsAny(e.name, "/\x00") {
		return e, fmt.Errorf("name %q", e.name)
	}
	return e, nil
}

// rockRidge reads the name from the system use area of a record, "" if it has none.
func (r *isoReader) rockRidge(area []byte) (name string, err error) {
	for range 8 { // continuation areas
		var next []byte
		for len(area) >= 4 && int(area[2]) >= 4 && int(area[2]) <= len(area) {
			field := area[:area[2]]
			area = area[area[2]:]
			switch kind := string(field[:2]); {
			case kind == "NM" && len(field) > 5:
				name += string(field[5:])
			case kind == "PX" && len(field) >= 8:
				if mode := binary.LittleEndian.Uint32(field[4:]) & 0o170000; mode != 0o100000 && mode != 0o040000 {
					return "", errors.New("neither a file nor a directory")
				}
			case kind == "CE" && len(field) >= 28:
				at := int64(binary.LittleEndian.Uint32(field[4:]))*isoBlock + int64(binary.LittleEndian.Uint32(field[12:]))
				length := int64(binary.LittleEndian.Uint32(field[20:]))
				if length > isoBlock || at+length > int64(len(r.b)) {
					return "", errors.New("continuation is not in the image")
				}
				next = r.b[at:][:length]
			}
		}
		if next == nil {
			return name, nil
		}
		area = next
	}
	return "", errors.New("too many continuations")
}
