// SPDX-License-Identifier: Apache-2.0

// Package volume reads and makes the two file systems that firmware and BMCs understand: FAT (floppies, USB disks, EFI
// system partitions) and ISO 9660 (CDs).
//
// Reading is for configuration media, whose bytes anybody may have written: memory and time are bounded whatever the
// medium says about itself, loops included. Only what such media need is understood: names, directories, whole files.
// Making is exact: the same contents always give the same bytes.
package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// ErrFormat is the error of Open for bytes that are neither FAT nor ISO 9660.
var ErrFormat = errors.New("neither FAT nor ISO 9660")

const (
	maxDir   = 1 << 20 // bytes of one directory; a FAT directory with 32,768 entries
	maxLabel = 32      // bytes; ISO 9660 has 32, FAT 11
)

// Volume is a file system opened for reading.
type Volume interface {
	// Label is the name of the volume, without padding, in the case it is stored in. It may be empty.
	Label() string
	// Root is the entry of the topmost directory.
	Root() Entry
	// List reads a directory: at most 1 MiB of it, more is an error. The entries are in the order of the volume and
	// hold neither the directory itself nor its parent.
	List(dir Entry) ([]Entry, error)
	// Read reads a whole file. The caller has looked at its size.
	Read(file Entry) ([]byte, error)
}

// Entry is one file or directory of a Volume.
type Entry struct {
	Name  string // one element of a path, as it is stored: it may hold anything, "/" included
	Dir   bool
	Size  int64  // bytes; of a file
	start uint32 // first cluster or sector
	parts bool   // an ISO 9660 file in several extents, which is not read
}

// Open recognises the file system that begins at r's first byte. The error wraps ErrFormat if it is neither of the two.
func Open(r io.ReaderAt) (Volume, error) {
	// ISO 9660 first: a CD made to boot as a disk may carry a FAT boot sector too.
	sector := make([]byte, 6)
	if _, err := r.ReadAt(sector, 16*isoSector); err == nil && bytes.Equal(sector, []byte("\x01CD001")) {
		return openISO(r)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read sector 16: %w", err)
	}
	boot := make([]byte, 512)
	if _, err := r.ReadAt(boot, 0); err != nil {
		return nil, fmt.Errorf("read the first sector: %w", err)
	}
	return openFAT(r, boot)
}

// tree is a list of files as directories, for the makers.
type tree struct {
	name  string
	dirs  []*tree // sorted by name
	files []int   // indexes of the caller's files, sorted by name
}

// newTree puts slash-separated names into directories. Names must be relative, clean and unique.
func newTree(names []string) (*tree, error) {
	root := &tree{}
	seen := map[string]bool{}
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	for _, i := range order {
		name := names[i]
		if name == "" || name == "." || path.Clean("/"+name) != "/"+name {
			return nil, fmt.Errorf("file %q: not a clean relative path", name)
		}
		if seen[name] {
			return nil, fmt.Errorf("file %q: twice, or also a directory", name)
		}
		dir := root
		elements := strings.Split(name, "/")
		for k, element := range elements[:len(elements)-1] {
			parent := strings.Join(elements[:k+1], "/")
			at := slices.IndexFunc(dir.dirs, func(d *tree) bool { return d.name == element })
			if at < 0 {
				if seen[parent] {
					return nil, fmt.Errorf("file %q: %q is a file too", name, parent)
				}
				seen[parent] = true
				dir.dirs = append(dir.dirs, &tree{name: element})
				at = len(dir.dirs) - 1
			}
			dir = dir.dirs[at]
		}
		seen[name] = true
		dir.files = append(dir.files, i)
	}
	root.sort()
	return root, nil
}

func (t *tree) sort() {
	slices.SortFunc(t.dirs, func(a, b *tree) int { return strings.Compare(a.name, b.name) })
	for _, d := range t.dirs {
		d.sort()
	}
}

// shortName makes a name of 8+3 upper-case characters for FAT (tail "~") or plain ISO 9660 (tail "_"), unlike any in taken,
// and adds it there. exact says that name is such a name itself.
func shortName(name, tail string, taken map[string]bool) (short string, exact bool) {
	clean := func(s string, n int) string {
		var b strings.Builder
		for _, c := range strings.ToUpper(s) {
			if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' {
				b.WriteRune(c)
			} else if c != ' ' && c != '.' {
				b.WriteByte('_')
			}
			if b.Len() == n {
				break
			}
		}
		return b.String()
	}
	stem, ext := name, ""
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		stem, ext = name[:dot], name[dot+1:]
	}
	stem, ext = clean(stem, 8), clean(ext, 3)
	join := func(stem string) string {
		if ext == "" {
			return stem
		}
		return stem + "." + ext
	}
	exact = join(stem) == name && stem != ""
	// In FAT a name that had to be changed always gets a number; in ISO 9660 only one that is taken.
	short = join(stem)
	ok := stem != "" && (exact || tail != "~") && !taken[short]
	for n := 1; !ok; n++ {
		number := fmt.Sprintf("%s%d", tail, n)
		short = join(stem[:min(len(stem), 8-len(number))] + number)
		ok = !taken[short]
	}
	taken[short] = true
	return short, exact
}
