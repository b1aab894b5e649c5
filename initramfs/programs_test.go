// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/initramfs/tool"
)

func TestAddTools(t *testing.T) {
	root := t.TempDir()
	program := static(t)
	for _, tl := range tool.All() {
		b, err := os.ReadFile(program)
		must(t, err)
		write(t, filepath.Join(root, "usr/bin", string(tl)), b, 0o755)
	}
	var a Archive
	must(t, Programs{Root: root}.AddTools(&a, tool.All()))
	var want []string
	for _, tl := range tool.All() {
		want = append(want, tl.Path())
		want = append(want, tl.Links()...)
	}
	for _, path := range want {
		if !a.Has(strings.TrimPrefix(path, "/")) {
			t.Errorf("no %s in %q", path, slices.Sorted(maps.Keys(a.entries)))
		}
	}
}

func TestAddProgramRefuses(t *testing.T) {
	ls, err := os.ReadFile(judge(t, "ls"))
	must(t, err)
	root := t.TempDir()
	alone := write(t, filepath.Join(root, "bin/ls"), ls, 0o755)
	script := write(t, filepath.Join(root, "bin/script"), []byte("#!/bin/sh\nexit 0\n"), 0o755)
	loop := filepath.Join(root, "lib64")
	for _, c := range []struct {
		name, source, want string
		before             func()
	}{
		{name: "no such program", source: filepath.Join(root, "bin/none"), want: "no such file"},
		{name: "script", source: script, want: "not an ELF file"},
		{name: "no loader below the root", source: alone, want: "no such file"},
		{name: "links in a circle", source: alone, want: "too many symbolic links", before: func() { must(t, os.Symlink("lib64", loop)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.before != nil {
				c.before()
			}
			var a Archive
			if err := (Programs{Root: root}).Add(&a, "bin/x", c.source); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
