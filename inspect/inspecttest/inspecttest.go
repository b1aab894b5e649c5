// SPDX-License-Identifier: Apache-2.0

// Package inspecttest gives tests the files of machines that are not there.
//
// A machine is kept as a text archive of the files of its /proc and /sys. What is before the first header is a comment.
// A header is a line of one of these forms, with paths relative to "/"; what follows it, up to the next header, is the
// file's contents:
//
//	-- sys/block/sda/size --
//	-- sys/block/sda/device/vpd_pg83 hex --      contents in hex digits, blanks ignored
//	-- sys/block/sda -> ../devices/.../sda --    symbolic link, without contents
//	-- sys/firmware/efi/ --                      empty directory, without contents
package inspecttest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// Machine loads the archive in a file.
func Machine(t testing.TB, file string) fstest.MapFS {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := Parse(string(text))
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

// Parse makes a file system of the text of an archive.
func Parse(archive string) (fstest.MapFS, error) {
	fsys := fstest.MapFS{}
	var contents strings.Builder
	var file *fstest.MapFile // whose contents are being read
	var inHex bool
	number := 0
	finish := func() error {
		if file == nil {
			return nil
		}
		text := contents.String()
		contents.Reset()
		if !inHex {
			if file.Mode != 0o444 && text != "" {
				return errors.New("contents where none belong")
			}
			if file.Mode == 0o444 {
				file.Data = []byte(text)
			}
			return nil
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
		file.Data = b
		return err
	}
	for line := range strings.Lines(archive) {
		number++
		header, isHeader := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "-- ")
		header, complete := strings.CutSuffix(header, " --")
		if !isHeader || !complete {
			if file != nil {
				contents.WriteString(line)
			}
			continue
		}
		if err := finish(); err != nil {
			return nil, fmt.Errorf("before line %d: %w", number, err)
		}
		name, target, isLink := strings.Cut(header, " -> ")
		name, inHex = strings.CutSuffix(name, " hex")
		name, isDir := strings.CutSuffix(name, "/")
		if !fs.ValidPath(name) || fsys[name] != nil {
			return nil, fmt.Errorf("line %d: name %q is invalid or there already", number, name)
		}
		file = &fstest.MapFile{Mode: 0o444}
		switch {
		case isLink:
			file.Mode, file.Data = fs.ModeSymlink|0o777, []byte(target)
		case isDir:
			file.Mode = fs.ModeDir | 0o555
		}
		fsys[name] = file
	}
	if err := finish(); err != nil {
		return nil, fmt.Errorf("at the end: %w", err)
	}
	return fsys, nil
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
