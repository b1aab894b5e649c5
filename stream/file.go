// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// file is an image in a file, or on a block device, of this machine.
type file struct {
	path     string
	size     int64
	modified time.Time
}

// NewFile returns the image in the regular file or on the block device at path. Nothing is kept open.
func NewFile(path string) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	defer f.Close() // only read
	size, modified, err := measure(f)
	if err != nil {
		return nil, err
	}
	return &file{path, size, modified}, nil
}

func (s *file) Open(_ context.Context, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, Final(fmt.Errorf("open image: %w", err))
	}
	size, modified, err := measure(f)
	if err == nil && (size != s.size || !modified.Equal(s.modified)) {
		err = fmt.Errorf("%w: %s is not as it was when reading began", ErrChanged, s.path)
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close() // only read
		return nil, Final(err)
	}
	return localFile{f}, nil
}

func (s *file) OpenRange(ctx context.Context, offset, _ int64) (io.ReadCloser, error) {
	return s.Open(ctx, offset)
}

func (s *file) Size() int64    { return s.size }
func (s *file) String() string { return s.path }

// measure tells size and time of change. A block device has its size at its end only, and no time that would say anything.
func measure(f *os.File) (size int64, modified time.Time, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, time.Time{}, err
	}
	switch {
	case info.Mode().IsRegular():
		return info.Size(), info.ModTime(), nil
	case info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0:
		size, err = f.Seek(0, io.SeekEnd)
		return size, time.Time{}, err
	}
	return 0, time.Time{}, fmt.Errorf("open image %s: neither a regular file nor a block device", f.Name())
}

// localFile marks all errors as final: a local disk that does not read does not mend itself.
type localFile struct{ *os.File }

func (f localFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err != nil && err != io.EOF {
		err = Final(err)
	}
	return n, err
}
