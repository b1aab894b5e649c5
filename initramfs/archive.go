// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
)

// Archive is what an initramfs holds, by path. Directories above an entry come by themselves. The zero value is empty
// and ready for use.
type Archive struct {
	entries map[string]entry
}

// Types of entries, as in stat(2).
const (
	typeChar = 0o020000
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

type entry struct {
	mode         uint32 // type and permissions
	size         int64
	open         func() (io.ReadCloser, error)
	major, minor uint32 // of a device
}

// Dir adds a directory. One that is there already is fine.
func (a *Archive) Dir(name string, perm fs.FileMode) error {
	if e, ok := a.entries[name]; ok && e.mode == typeDir|uint32(perm.Perm()) {
		return nil
	}
	return a.add(name, entry{mode: typeDir | uint32(perm.Perm())})
}

// Bytes adds a file with the contents b, which must not change until the archive is written.
func (a *Archive) Bytes(name string, perm fs.FileMode, b []byte) error {
	return a.add(name, entry{
		mode: typeFile | uint32(perm.Perm()), size: int64(len(b)),
		open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	})
}

// File adds the regular file at source, which is read when the archive is written and must not change until then.
func (a *Archive) File(name string, perm fs.FileMode, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", source)
	}
	return a.add(name, entry{
		mode: typeFile | uint32(perm.Perm()), size: info.Size(),
		open: func() (io.ReadCloser, error) { return os.Open(source) },
	})
}

// Link adds a symbolic link.
func (a *Archive) Link(name, target string) error {
	return a.add(name, entry{
		mode: typeLink | 0o777, size: int64(len(target)),
		open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(target)), nil },
	})
}

// CharDevice adds a character device.
func (a *Archive) CharDevice(name string, perm fs.FileMode, major, minor uint32) error {
	return a.add(name, entry{mode: typeChar | uint32(perm.Perm()), major: major, minor: minor})
}

// Has says whether there is an entry of this name.
func (a *Archive) Has(name string) bool {
	_, ok := a.entries[name]
	return ok
}

// add puts an entry at name, which has no slash in front ("usr/bin/ls").
func (a *Archive) add(name string, e entry) error {
	if name == "" || name == "." || path.Clean("/"+name) != "/"+name {
		return fmt.Errorf("add %q to the archive: not a clean relative path", name)
	}
	if e.size > math.MaxUint32 {
		return fmt.Errorf("add %q to the archive: %d bytes, less than 4 GiB are allowed", name, e.size)
	}
	if a.Has(name) {
		return fmt.Errorf("add %q to the archive: it is there already", name)
	}
	if a.entries == nil {
		a.entries = map[string]entry{}
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if above, ok := a.entries[dir]; !ok {
			a.entries[dir] = entry{mode: typeDir | 0o755}
		} else if above.mode&0o170000 != typeDir {
			return fmt.Errorf("add %q to the archive: %q is not a directory", name, dir)
		}
	}
	a.entries[name] = e
	return nil
}

// WriteTo writes the archive in the "newc" format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
// The same contents give the same bytes: entries are sorted, all belong to root, and all times are 0. The length is a
// multiple of 512, so that another archive may follow.
func (a *Archive) WriteTo(w io.Writer) (int64, error) {
	buffered := bufio.NewWriterSize(w, 1<<20)
	c := &cpioWriter{w: buffered}
	for _, name := range slices.Sorted(maps.Keys(a.entries)) {
		if err := c.entry(name, a.entries[name]); err != nil {
			return c.n, fmt.Errorf("write %q to the archive: %w", name, err)
		}
	}
	if err := c.end(); err != nil {
		return c.n, fmt.Errorf("write the end of the archive: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return c.n, fmt.Errorf("write the end of the archive: %w", err)
	}
	return c.n, nil
}

type cpioWriter struct {
	w     io.Writer
	n     int64
	inode uint32
}

func (c *cpioWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// pad writes zeros up to a multiple of size.
func (c *cpioWriter) pad(size int64) error {
	_, err := c.Write(make([]byte, (size-c.n%size)%size))
	return err
}

func (c *cpioWriter) header(name string, e entry) error {
	c.inode++
	links := 1
	if e.mode&0o170000 == typeDir {
		links = 2
	}
	// inode, mode, uid, gid, links, time, size, device of the file, device it is, length of the name, checksum
	_, err := fmt.Fprintf(c, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, e.mode, 0, 0, links, 0, e.size, 0, 0, e.major, e.minor, len(name)+1, 0, name)
	if err != nil {
		return err
	}
	return c.pad(4)
}

func (c *cpioWriter) entry(name string, e entry) error {
	if err := c.header(name, e); err != nil || e.open == nil {
		return err
	}
	r, err := e.open()
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.CopyN(c, r, e.size); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("it has shrunk: %w", io.ErrUnexpectedEOF)
		}
		return err
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 {
		return fmt.Errorf("it has grown beyond its %d bytes", e.size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return c.pad(4)
}

func (c *cpioWriter) end() error {
	c.inode = math.MaxUint32 // the trailer has 0
	if err := c.header("TRAILER!!!", entry{}); err != nil {
		return err
	}
	return c.pad(512)
}
