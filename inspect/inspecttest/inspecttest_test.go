// SPDX-License-Identifier: Apache-2.0

package inspecttest

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
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

func TestBroken(t *testing.T) {
	b := Broken{ReadLinkFS: fstest.MapFS{"a": {}, "b": {}}, Errors: map[string]error{"a": syscall.EIO}}
	if _, err := fs.ReadFile(b, "a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("read a: %v, want %v", err, syscall.EIO)
	}
	if _, err := fs.ReadFile(b, "b"); err != nil {
		t.Errorf("read b: %v", err)
	}
}
