// SPDX-License-Identifier: Apache-2.0

// Package recording keeps the kernel's files of a machine as one text, that people can read and mail, and makes files of it again.
//
// What is before the first header is a comment. A header is a line of one of these forms, with paths relative to "/"; what follows it, up to the next
// header, is the file's contents:
//
//	-- sys/block/sda/size --
//	-- sys/block/sda/device/vpd_pg83 hex --      contents in hex digits, blanks ignored
//	-- sys/block/sda -> ../devices/.../sda --    symbolic link, without contents
//	-- sys/firmware/efi/ --                      empty directory, without contents
//
// It touches nothing: text comes in and goes out.
package recording

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing/fstest"
	"unicode/utf8"
)

// MaxSize is how long a recording may be, in bytes. One of a large server has a few MiB.
const MaxSize = 64 << 20

// Read is Parse for what a reader gives, of at most MaxSize bytes.
func Read(from io.Reader) (fstest.MapFS, error) {
	b, err := io.ReadAll(io.LimitReader(from, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("read recording: longer than %d bytes", MaxSize)
	}
	return Parse(string(b))
}

// Parse makes a file system of the text of a recording.
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
	for name, f := range fsys {
		if f.Mode&fs.ModeSymlink != 0 && !ends(fsys, name) {
			return nil, fmt.Errorf("link %s leads through too many links", name)
		}
	}
	return fsys, nil
}

// ends tells whether following a link comes to an end. [fstest.MapFS] follows those that do not for ever.
func ends(fsys fstest.MapFS, name string) bool {
	const most = 40 // as the kernel
	for range most {
		at, rest, isLink := firstLink(fsys, name)
		if !isLink {
			return true
		}
		name = path.Join(path.Dir(at), string(fsys[at].Data), rest)
	}
	return false
}

// firstLink finds the first part of a name that is a link.
func firstLink(fsys fstest.MapFS, name string) (at, rest string, found bool) {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		if f := fsys[name[:i]]; f != nil && f.Mode&fs.ModeSymlink != 0 {
			return name[:i], strings.TrimPrefix(name[i:], "/"), true
		}
	}
	return "", "", false
}

// Format writes the text of a recording, files in the order of their names. The comment may have several lines. What is no
// text, or would be read as something else, is written in hex. Names with line feeds are left out, as no header can hold them.
func Format(comment string, fsys fstest.MapFS) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(comment) {
		if !strings.HasPrefix(line, "-- ") {
			fmt.Fprintf(&out, "%s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fsys)) {
		f := fsys[name]
		if strings.ContainsRune(name, '\n') || strings.Contains(name+" ", " -> ") || strings.HasSuffix(name, " hex") || !fs.ValidPath(name) {
			continue
		}
		switch {
		case f.Mode&fs.ModeSymlink != 0:
			fmt.Fprintf(&out, "-- %s -> %s --\n", name, strings.ReplaceAll(string(f.Data), "\n", "?"))
		case f.Mode.IsDir():
			fmt.Fprintf(&out, "-- %s/ --\n", name)
		case plain(f.Data):
			fmt.Fprintf(&out, "-- %s --\n%s", name, f.Data)
		default:
			fmt.Fprintf(&out, "-- %s hex --\n", name)
			for line := range slices.Chunk(f.Data, 32) {
				fmt.Fprintf(&out, "%x\n", line)
			}
		}
	}
	return out.Bytes()
}

// plain tells whether contents can stand in the text as they are.
func plain(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[len(b)-1] != '\n' || !utf8.Valid(b) || bytes.HasPrefix(b, []byte("-- ")) || bytes.Contains(b, []byte("\n-- ")) {
		return false
	}
	return !bytes.ContainsFunc(b, func(c rune) bool { return c < ' ' && c != '\n' && c != '\t' || c == 0x7f || c == utf8.RuneError })
}
