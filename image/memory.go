// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/diskfs/go-diskfs/backend"
)

// memory is a disk in memory for go-diskfs to make a file system on. It grows as it is written to, up to configDriveSize twice.
type memory struct {
	b   []byte
	pos int64
}

var _ backend.WritableFile = (*memory)(nil)

func (m *memory) Writable() (backend.WritableFile, error) { return m, nil }
func (m *memory) Sys() (*os.File, error)                  { return nil, backend.ErrNotSuitable }
func (m *memory) Path() string                            { return "" }
func (m *memory) Close() error                            { return nil }
func (m *memory) Stat() (fs.FileInfo, error)              { return memoryInfo{int64(len(m.b))}, nil }

func (m *memory) Read(b []byte) (int, error) {
	n, err := m.ReadAt(b, m.pos)
	m.pos += int64(n)
	return n, err
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at >= int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(b, m.b[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	end := at + int64(len(b))
	if at < 0 || end > 2*configDriveSize {
		return 0, fmt.Errorf("write %d bytes at %d: beyond the end", len(b), at)
	}
	if end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[at:], b), nil
}

func (m *memory) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += m.pos
	case io.SeekEnd:
		offset += int64(len(m.b))
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	m.pos = offset
	return offset, nil
}

type memoryInfo struct{ size int64 }

func (i memoryInfo) Name() string     { return "memory" }
func (i memoryInfo) Size() int64      { return i.size }
func (memoryInfo) Mode() fs.FileMode  { return 0o600 }
func (memoryInfo) ModTime() time.Time { return time.Time{} }
func (memoryInfo) IsDir() bool        { return false }
func (memoryInfo) Sys() any           { return nil }
