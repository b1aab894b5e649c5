// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/ironhand/ironhand/stream"
)

// Held is a partition of a disk, and the file system that it holds, if one is known.
type Held struct {
	Partition
	FileSystem
}

// PartitionsOf lists the partitions of a disk, as the kernel sees them or else by the disk's table, with what they hold.
func PartitionsOf(disk Disk) ([]Held, error) {
	var parts []Partition
	var err error
	if l, ok := disk.(lister); ok {
		if parts, err = l.Partitions(); err != nil {
			return nil, err
		}
	}
	if len(parts) == 0 {
		table, err := readBack(disk, make([]byte, stream.HeadSize))
		if err != nil {
			return nil, err
		}
		parts = table.partitions()
	}
	var held []Held
	for _, p := range parts {
		if p.Start < 0 || p.Size <= 0 || p.Start > disk.Size() || p.Size > disk.Size()-p.Start {
			continue // an extended partition, or beyond the end
		}
		f, err := Probe(io.NewSectionReader(disk, p.Start, p.Size), p.Size)
		if err != nil {
			return nil, err
		}
		held = append(held, Held{p, f})
	}
	return held, nil
}

// HasDirectory tells whether a file system has a directory in its root. What cannot be mounted is an error.
func HasDirectory(ctx context.Context, v Volumes, h Held, name string) (has bool, err error) {
	err = v.View(ctx, h.Partition, h.FileSystem, func(fsys fs.FS) error {
		info, err := fs.Stat(fsys, name)
		has = err == nil && info.IsDir()
		return nil
	})
	return has, err
}

// File is one to be put into a file system, or taken out of it.
type File struct {
	Path         string // with slashes, without a leading one
	Deleted      bool
	Content      []byte
	Mode         *fs.FileMode // permissions; nil for those that are there, or 0644
	DirMode      *fs.FileMode // of its directory, if that is made; nil for 0755
	Owner, Group int          // -1 for those that are there
}

// Put puts f into a file system, which is held by root: links lead nowhere out of it. Directories that are missing are made. What is no regular file is not written
// to. A file that is to be deleted may be missing.
func (f File) Put(root *os.Root) error {
	if f.Deleted {
		if err := root.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if dir := path.Dir(f.Path); dir != "." {
		if _, err := root.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			if err := root.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if f.DirMode != nil {
				if err := root.Chmod(dir, *f.DirMode); err != nil {
					return err
				}
			}
		} else if err != nil {
			return err
		}
	}
	if info, err := root.Stat(f.Path); err == nil && !info.Mode().IsRegular() { // opening a pipe would wait for ever
		return &fs.PathError{Op: "write", Path: f.Path, Err: errors.New("is not a regular file")}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer file.Close() // after an error, which counts
	// The owner first: a change of it takes bits off the mode. A file that was there is closed to others before it has its content.
	if f.Owner >= 0 || f.Group >= 0 {
		if err := file.Chown(f.Owner, f.Group); err != nil {
			return err
		}
	}
	if f.Mode != nil {
		if err := file.Chmod(*f.Mode); err != nil {
			return err
		}
	}
	if _, err := file.Write(f.Content); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// UnixMode is a mode as chmod(2) takes it.
func UnixMode(bits uint32) fs.FileMode {
	mode := fs.FileMode(bits & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if bits&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

// CleanPath takes the leading slash off the absolute path of a file. ok is false for what is no path of a file.
func CleanPath(name string) (clean string, ok bool) {
	clean, ok = strings.CutPrefix(name, "/")
	return clean, ok && fs.ValidPath(clean) && clean != "."
}
