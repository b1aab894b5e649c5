// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"testing/fstest"
)

// Record returns a machine that is the same, and that remembers each file that is read of it and each answer. What is remembered so far comes from
// recorded; [Recorded] makes a machine of it again, on any computer. Of the kernel command line, which may hold secrets, BOOTIF alone is kept.
func (m Machine) Record() (same Machine, recorded func() fstest.MapFS) {
	r := &recorder{inner: m.FS, files: fstest.MapFS{}, real: map[string]string{}}
	same = Machine{FS: r}
	if m.Ask != nil {
		same.Ask = func(ctx context.Context, question string) ([]byte, error) {
			b, err := m.Ask(ctx, question)
			if err == nil {
				r.keep(answersDir+question, b)
			}
			return b, err
		}
	}
	return same, func() fstest.MapFS {
		r.mu.Lock()
		defer r.mu.Unlock()
		files := fstest.MapFS{}
		for name, f := range r.files {
			files[name] = f
		}
		return files
	}
}

// recorder is a file system that remembers what is read.
type recorder struct {
	inner fs.FS

	mu    sync.Mutex
	files fstest.MapFS
	real  map[string]string // directories as they are named, and where they really are
}

// cmdline is the file that is not kept as it is.
const cmdline = "proc/cmdline"

func (r *recorder) keep(name string, b []byte) {
	if name == cmdline {
		boot := parameter(string(b), "BOOTIF")
		b = nil
		if boot != "" {
			b = []byte("BOOTIF=" + boot + "\n")
		}
	}
	name = r.resolve(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[name] = &fstest.MapFile{Mode: 0o444, Data: b}
}

// resolve returns where a file really is, and keeps the links on the way.
func (r *recorder) resolve(name string) string {
	dir, base := path.Split(name)
	if dir == "" {
		return name
	}
	dir = strings.TrimSuffix(dir, "/")
	r.mu.Lock()
	at, known := r.real[dir]
	r.mu.Unlock()
	if !known {
		at = dir
		for range 8 { // links to links
			at = r.resolve(at)
			target, err := fs.ReadLink(r.inner, at)
			if err != nil {
				break
			}
			to := path.Join(path.Dir(at), target)
			if path.IsAbs(target) || !fs.ValidPath(to) {
				break
			}
			r.link(at, target)
			at = to
		}
		r.mu.Lock()
		r.real[dir] = at
		r.mu.Unlock()
	}
	return at + "/" + base
}

func (r *recorder) link(name, target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[name] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(target)}
}

// Open implements [fs.FS].
func (r *recorder) Open(name string) (fs.File, error) {
	f, err := r.inner.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		r.there(name, info)
		return f, nil
	}
	return &recordedFile{File: f, r: r, name: name}, nil
}

// recordedFile remembers what was read once its end was.
type recordedFile struct {
	fs.File
	r    *recorder
	name string
	read []byte
}

// Read implements [fs.File].
func (f *recordedFile) Read(b []byte) (int, error) {
	n, err := f.File.Read(b)
	f.read = append(f.read, b[:n]...)
	if err == io.EOF {
		f.r.keep(f.name, f.read)
	}
	return n, err
}

// there keeps that a file or a directory exists, if no more is known of it.
func (r *recorder) there(name string, info fs.FileInfo) {
	name = r.resolve(name)
	if target, err := fs.ReadLink(r.inner, name); err == nil {
		r.link(name, target)
		if to := path.Join(path.Dir(name), target); !path.IsAbs(target) && fs.ValidPath(to) {
			name = to // or the link would lead nowhere
		} else {
			return
		}
	}
	mode := fs.FileMode(0o444)
	if info.IsDir() {
		mode = fs.ModeDir | 0o555
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files[name] == nil {
		r.files[name] = &fstest.MapFile{Mode: mode}
	}
}

// Stat implements [fs.StatFS].
func (r *recorder) Stat(name string) (fs.FileInfo, error) {
	info, err := fs.Stat(r.inner, name)
	if err == nil {
		r.there(name, info)
	}
	return info, err
}

// Lstat implements [fs.ReadLinkFS].
func (r *recorder) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(r.inner, name) }

// ReadLink implements [fs.ReadLinkFS].
func (r *recorder) ReadLink(name string) (string, error) {
	target, err := fs.ReadLink(r.inner, name)
	if err == nil {
		r.link(r.resolve(name), target)
	}
	return target, err
}

// ReadDir implements [fs.ReadDirFS]. Of the entries, links and directories are kept; files are when they are read.
func (r *recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.inner, name)
	if err != nil {
		return entries, err
	}
	dir := path.Dir(r.resolve(name + "/x"))
	for _, e := range entries {
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			if target, err := fs.ReadLink(r.inner, dir+"/"+e.Name()); err == nil {
				r.link(dir+"/"+e.Name(), target)
			}
		case e.IsDir():
			r.mu.Lock()
			if r.files[dir+"/"+e.Name()] == nil {
				r.files[dir+"/"+e.Name()] = &fstest.MapFile{Mode: fs.ModeDir | 0o555}
			}
			r.mu.Unlock()
		}
	}
	return entries, nil
}
