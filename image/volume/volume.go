// SPDX-License-Identifier: Apache-2.0

// Package volume reads and makes the two file systems that firmware, BMCs and config drives have: FAT (floppies, USB disks,
// EFI system partitions) and ISO 9660 (CDs).
//
// Reading is for media whose bytes anybody may have written: memory and time are bounded whatever the medium says about
// itself, loops included. Only names, directories, sizes and contents are read; links are shown and not followed. Making is
// exact: the same contents always give the same bytes. Nothing is mounted, and no device is opened.
package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrFormat is the error of Open for bytes that are neither FAT nor ISO 9660.
var ErrFormat = errors.New("neither FAT nor ISO 9660")

const (
	maxDirs  = 4 << 20 // bytes of all directories of a volume that are read; a FAT directory has at most 2 MiB
	maxDepth = 16      // elements of a path
)

// Volume is a file system opened for reading: an fs.FS. A directory is read when it is first asked for, and kept; its names
// are sorted, and none is there twice. No more than 4 MiB of directories are read, and no path has more than 16 elements.
// Times are not read, and permissions say only that nothing can be written.
type Volume struct {
	label     string
	publisher string
	format    format
	mu        sync.Mutex // guards the entries' children, and format.list
	root      *entry
}

// format is one kind of file system. It need not check names.
type format interface {
	// list reads a directory, without itself and its parent.
	list(dir *entry) ([]*entry, error)
	// open gives exactly the bytes of a regular file, or io.ErrUnexpectedEOF.
	open(file *entry) (io.Reader, error)
}

// Open recognises the file system that begins at r's first byte. The error wraps ErrFormat if it is neither of the two.
func Open(r io.ReaderAt) (*Volume, error) {
	// ISO 9660 first: a CD made to boot as a disk may carry a FAT boot sector too.
	sector := make([]byte, 6)
	if _, err := r.ReadAt(sector, 16*isoSector); err == nil && bytes.Equal(sector, []byte("\x01CD001")) {
		return openISO(r)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read sector 16: %w", err)
	}
	boot := make([]byte, 512)
	if err := readAt(r, boot, 0); err != nil {
		return nil, fmt.Errorf("read the first sector: %w", err)
	}
	return openFAT(r, boot)
}

// Label is the name of the volume, without padding, in the case it is stored in. It may be empty.
func (v *Volume) Label() string { return v.label }

// Publisher is who published an ISO 9660, in the words of the first volume descriptor, without padding; often nobody, and for FAT always.
func (v *Volume) Publisher() string { return v.publisher }

// Open opens a file or directory for reading.
func (v *Volume) Open(name string) (fs.File, error) {
	f, err := v.open(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}

func (v *Volume) open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrInvalid
	}
	e := v.root
	if name != "." {
		for element := range strings.SplitSeq(name, "/") {
			children, err := v.children(e)
			if err != nil {
				return nil, err
			}
			i, ok := slices.BinarySearchFunc(children, element, func(e *entry, name string) int { return strings.Compare(e.name, name) })
			if !ok {
				return nil, fs.ErrNotExist
			}
			e = children[i]
		}
	}
	switch {
	case e.IsDir():
		children, err := v.children(e)
		return &openDir{entry: e, rest: children}, err
	case !e.mode.IsRegular():
		return nil, errNotFile
	case e.parts:
		return nil, errors.New("file is in several or interleaved extents")
	}
	r, err := v.format.open(e)
	return &openFile{e, r}, err
}

// ReadFile reads a whole file. Memory is taken for the bytes that are there, not for those that the directory claims.
func (v *Volume) ReadFile(name string) ([]byte, error) {
	f, err := v.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return b, nil
}

// Files reads all files, by path. More than most bytes together are an error, and so is what is neither file nor directory.
func (v *Volume) Files(most int64) (map[string][]byte, error) {
	files := map[string][]byte{}
	left := most
	err := fs.WalkDir(v, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if left -= d.(*entry).size; left < 0 {
			return fmt.Errorf("files have more than %d bytes", most)
		}
		files[name], err = v.ReadFile(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return files, nil
}

var errNotFile = errors.New("is neither a file nor a directory")

// children are the entries of a directory, sorted.
func (v *Volume) children(dir *entry) ([]*entry, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !dir.IsDir() {
		return nil, fs.ErrNotExist
	}
	if dir.listed {
		return dir.children, nil
	}
	if dir.depth == maxDepth {
		return nil, fmt.Errorf("more than %d levels of directories", maxDepth)
	}
	list, err := v.format.list(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		e.name, e.depth = strings.ToValidUTF8(e.name, "\ufffd"), dir.depth+1
		if e.name == "." || strings.Contains(e.name, "/") || !fs.ValidPath(e.name) {
			return nil, fmt.Errorf("%q is not a name", e.name)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	for i, e := range list[min(1, len(list)):] {
		if e.name == list[i].name {
			return nil, fmt.Errorf("%q is there twice", e.name)
		}
	}
	dir.children, dir.listed = list, true
	return list, nil
}

// entry is one file or directory. It is its own fs.FileInfo.
type entry struct {
	name     string
	mode     fs.FileMode
	size     int64  // bytes; of a file, and of a directory of ISO 9660
	start    uint32 // first cluster or sector
	parts    bool   // an ISO 9660 file in several extents, which is not read
	depth    int    // elements of its path
	listed   bool   // children have been read
	children []*entry
}

func newEntry(name string, dir bool, size int64, start uint32) *entry {
	e := &entry{name: name, mode: 0o444, size: size, start: start}
	if dir {
		e.mode = fs.ModeDir | 0o555
	}
	return e
}

func (e *entry) Name() string               { return e.name }
func (e *entry) IsDir() bool                { return e.mode.IsDir() }
func (e *entry) Type() fs.FileMode          { return e.mode.Type() }
func (e *entry) Info() (fs.FileInfo, error) { return e, nil }
func (e *entry) Size() int64                { return e.size }
func (e *entry) Mode() fs.FileMode          { return e.mode }
func (e *entry) ModTime() time.Time         { return time.Time{} }
func (e *entry) Sys() any                   { return nil }

type openFile struct {
	entry *entry
	io.Reader
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.entry, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	entry *entry
	rest  []*entry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.entry, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.entry.name, Err: errors.New("is a directory")}
}

// ReadDir is that of fs.ReadDirFile.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	count := len(d.rest)
	if n > 0 {
		if count = min(n, count); count == 0 {
			return nil, io.EOF
		}
	}
	list := make([]fs.DirEntry, count)
	for i := range list {
		list[i] = d.rest[i]
	}
	d.rest = d.rest[count:]
	return list, nil
}

// dirReader reads what describes directories, up to a limit for the whole volume: it ends all loops.
type dirReader struct {
	r    io.ReaderAt
	left int64 // bytes
}

func (d *dirReader) ReadAt(b []byte, at int64) (int, error) {
	if d.left -= int64(len(b)); d.left < 0 {
		return 0, fmt.Errorf("directories have more than %d bytes", maxDirs)
	}
	return d.r.ReadAt(b, at)
}

// region reads left bytes of r from at on.
type region struct {
	r        io.ReaderAt
	at, left int64
}

func (g *region) Read(b []byte) (int, error) {
	if g.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), g.left)]
	n, err := g.r.ReadAt(b, g.at)
	g.at, g.left = g.at+int64(n), g.left-int64(n)
	return n, cutOff(n, len(b), err)
}

// readAt fills b.
func readAt(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	return cutOff(n, len(b), err)
}

// cutOff is the error of a ReadAt that gave n bytes of want.
func cutOff(n, want int, err error) error {
	switch {
	case n == want:
		return nil
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}
