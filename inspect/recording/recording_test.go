// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestParse(t *testing.T) {
	const archive = `comment
-- a/text --
one
two
-- a/empty --
-- a/bytes hex --
00 ff
41
-- a/link -> text --
-- a/dir/ --
`
	fsys, err := Parse(archive)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a/text": "one\ntwo\n", "a/empty": "", "a/bytes": "\x00\xffA", "a/link": "one\ntwo\n"} {
		if got, err := fs.ReadFile(fsys, name); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v, want %q", name, got, err, want)
		}
	}
	if err := fstest.TestFS(fsys, "a/text", "a/empty", "a/bytes", "a/link", "a/dir"); err != nil {
		t.Error(err)
	}
}

func TestParseBad(t *testing.T) {
	for _, tt := range []struct{ name, archive, want string }{
		{"twice", "-- a --\n-- a --\n", "line 2: name \"a\" is invalid or there already"},
		{"absolute", "-- /a --\n", "line 1: name \"/a\" is invalid"},
		{"upwards", "-- ../a --\n", "is invalid"},
		{"odd hex", "-- a hex --\n0\n", "at the end"},
		{"no hex", "-- a hex --\nzz\n-- b --\n", "before line 3"},
		{"link to itself", "-- a -> a --\n", "link a leads through too many links"},
		{"links in a circle", "-- a -> b --\n-- b -> c/x --\n-- c -> a --\n", "leads through too many links"},
		{"link that grows", "-- a/b -> b/c --\n", "leads through too many links"},
		{"link with contents", "-- a -> b --\ntext\n", "contents where none belong"},
		{"directory with contents", "-- a/ --\ntext\n", "contents where none belong"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(tt.archive); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestReadIsBounded(t *testing.T) {
	if _, err := Read(strings.NewReader(strings.Repeat("x", MaxSize+1))); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("Read = %v, want an error", err)
	}
}

// Whatever a file holds comes back.
func TestFormat(t *testing.T) {
	fsys := fstest.MapFS{"l": {Mode: fs.ModeSymlink | 0o777, Data: []byte("a/b")}, "d": {Mode: fs.ModeDir | 0o555}}
	for i, s := range []string{"", "\n", "text\n", "no end", "-- a --\n", "x\n-- b --\n", "\x00\xff", "a\x1bb\n", "a\rb\n", "ä\n", "\ufffd\n", strings.Repeat("\x01", 100)} {
		fsys["f"+string(rune('a'+i))] = &fstest.MapFile{Mode: 0o444, Data: []byte(s)}
	}
	again, err := Parse(string(Format("one\n-- two --\nthree", fsys)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(again)), slices.Sorted(maps.Keys(fsys)); !slices.Equal(got, want) {
		t.Fatalf("files %q, want %q", got, want)
	}
	for name, f := range fsys {
		if g := again[name]; !bytes.Equal(g.Data, f.Data) || g.Mode != f.Mode {
			t.Errorf("%s = %v %q, want %v %q", name, g.Mode, g.Data, f.Mode, f.Data)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("c\n-- a --\nx\n-- b hex --\n00\n-- l -> a --\n-- d/ --\n")
	f.Fuzz(func(t *testing.T, text string) {
		fsys, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(string(Format("", fsys)))
		if err != nil {
			t.Fatal(err)
		}
		for name, file := range again {
			if file.Mode&fs.ModeSymlink == 0 && !bytes.Equal(file.Data, fsys[name].Data) {
				t.Errorf("%s = %q, want %q", name, file.Data, fsys[name].Data)
			}
		}
	})
}
