// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"fmt"
	"os"
	"sync"
)

// maxJournal is the size in bytes at which the log is put aside and begun anew. /run has room for both.
const maxJournal = 4 << 20

// journal appends lines to a file of bounded size. The file before it is kept as path + ".1".
type journal struct {
	path string
	max  int64

	mu   sync.Mutex
	f    *os.File
	size int64
}

// openJournal goes on with the file at path, or begins it.
func openJournal(path string, max int64) (*journal, error) {
	j := &journal{path: path, max: max}
	if err := j.open(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return j, nil
}

func (j *journal) open() error {
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close() // the first error counts
		return err
	}
	j.f, j.size = f, st.Size()
	return nil
}

// print appends a line.
func (j *journal) print(line string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.size+int64(len(line))+1 > j.max && j.size > 0 {
		if err := j.turn(); err != nil {
			return fmt.Errorf("put log aside: %w", err)
		}
	}
	n, err := j.f.WriteString(line + "\n")
	j.size += int64(n)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// turn begins the file anew. If that fails the old one stays in use.
func (j *journal) turn() error {
	if err := os.Rename(j.path, j.path+".1"); err != nil {
		return err
	}
	old := j.f
	if err := j.open(); err != nil {
		return err
	}
	return old.Close()
}
