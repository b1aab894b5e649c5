// SPDX-License-Identifier: Apache-2.0

// Package inspecttest gives tests the files of machines that are not there. They are kept as recordings.
package inspecttest

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ironhand/ironhand/inspect/recording"
)

// Machine loads the archive in a file.
func Machine(t testing.TB, file string) fstest.MapFS {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := recording.Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return fsys
}

// Resize gives all disks of a machine the size and the sectors of a disk that a test has for them, in bytes.
func Resize(machine fstest.MapFS, size int64, sector int) {
	for name, file := range machine {
		switch {
		case strings.HasSuffix(name, "/queue/logical_block_size"):
			file.Data = fmt.Append(nil, sector)
		case strings.HasSuffix(name, "/size") && machine[strings.TrimSuffix(name, "size")+"queue/logical_block_size"] != nil:
			file.Data = fmt.Append(nil, size/512)
		}
	}
}

// Broken is a file system on which reading some files fails, as it does on machines with broken hardware.
type Broken struct {
	fs.ReadLinkFS
	Errors map[string]error // by the name that is opened
}

// Open implements [fs.FS].
func (b Broken) Open(name string) (fs.File, error) {
	if err := b.Errors[name]; err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return b.ReadLinkFS.Open(name)
}
