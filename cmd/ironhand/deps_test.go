// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ironhand/ironhand/"

// imports says which of our packages a package may import. Data goes one way: a lower package
// knows nothing of a higher one, and only agent knows Ironic's API. A package
// that is not here may import nothing of ours. To change the rule, change the table
// and say why in docs/design.md.
//
// inspect/lldp imports nothing and reads frames: the verdict on the network says what the switch has said.
//
// torrent hands images to package stream as a source, and is below all that fetches images; agent/conductor makes torrents, and tracks and seeds them.
//
// agent/cli imports initramfs/tool to halt the programs of a burn-in when somebody presses a key.
//
// image/volume (FAT and ISO 9660) imports nothing of ours, as image/gpt does: what makes the media and the ISO that nodes boot from needs
// the same two formats as what makes a config drive.
var imports = map[string][]string{
	"cmd/ironhand":               {"agent", "agent/cli", "steps", "steps/generic"},
	"cmd/mkramdisk":              {"initramfs", "initramfs/media", "initramfs/tool", "netconfig"},
	"cmd/labconductor":           {"agent/conductor"},
	"agent/cli":                  {"agent", "inspect", "inspect/lldp", "inspect/ocp", "inspect/recording", "image", "netconfig", "stream", "steps", "steps/burnin", "steps/raid", "initramfs/boot", "initramfs/media", "initramfs/tool", "torrent"},
	"agent":                      {"agent/ironic", "inspect", "inspect/lldp", "image", "netconfig", "stream", "steps", "steps/lvm", "steps/raid", "initramfs/boot", "initramfs/media", "initramfs/tool"},
	"agent/conductor":            {"image", "torrent"},
	"steps/burnin":               {"steps", "steps/erase", "image", "inspect", "inspect/ipmi", "inspect/ocp", "initramfs/tool"},
	"steps/generic":              {"steps", "steps/burnin", "steps/erase", "steps/lvm", "steps/raid", "image", "stream", "torrent", "inspect"},
	"steps/erase":                {"steps", "steps/holders", "steps/raid", "image", "image/gpt", "inspect"},
	"steps/raid":                 {"steps", "steps/holders", "image", "image/gpt", "stream", "inspect", "initramfs/tool"},
	"steps/lvm":                  {"steps", "steps/raid", "image", "image/gpt", "stream", "inspect", "initramfs/tool"},
	"steps/holders":              {},
	"torrent":                    {"stream"},
	"stream":                     {"stream/inflate"},
	"image/qcow2":                {"stream/inflate"},
	"steps":                      {"inspect", "stream", "initramfs/tool"},
	"image":                      {"stream", "initramfs/tool", "image/gpt", "image/qcow2", "image/volume"},
	"netconfig":                  {"inspect/lldp"},
	"inspect":                    {"inspect/ipmi", "inspect/lldp", "inspect/ocp", "inspect/recording"},
	"initramfs":                  {"initramfs/tool", "image/volume"},
	"initramfs/media":            {"image/volume"},
	"initramfs/vmtest/guestinit": {"initramfs/boot"},
	"tools/track":                {"torrent"},
}

// System calls are made in files named *_linux.go, and in packages for tests.
func TestSystemCallsStayInLinuxFiles(t *testing.T) {
	eachFile(t, func(file string, from string, imported []string) {
		if strings.HasSuffix(file, "_linux.go") || strings.HasSuffix(file, "_test.go") || strings.HasSuffix(from, "test") {
			return
		}
		for _, i := range imported {
			if i == "golang.org/x/sys/unix" {
				t.Errorf("%s imports %s; system calls belong in files named *_linux.go", file, i)
			}
		}
	})
}

func TestImports(t *testing.T) {
	seen := map[string]map[string]bool{} // what a package imports of ours
	eachFile(t, func(file, from string, imported []string) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		if seen[from] == nil {
			seen[from] = map[string]bool{}
		}
		for _, i := range imported {
			to, ours := strings.CutPrefix(i, module)
			if !ours {
				continue
			}
			seen[from][to] = true
			if strings.HasSuffix(to, "test") && !strings.HasSuffix(from, "test") {
				t.Errorf("%s imports %s, which is for tests", file, to)
			} else if !slices.Contains(imports[from], to) && !strings.HasSuffix(from, "test") {
				t.Errorf("%s: %s may not import %s", file, from, to)
			}
		}
	})
	for from, allowed := range imports {
		if seen[from] == nil {
			t.Errorf("the table has %s, which does not exist", from)
		}
		for _, to := range allowed {
			if !seen[from][to] {
				t.Errorf("the table lets %s import %s, which it does not", from, to)
			}
		}
	}
}

// eachFile calls f for each Go file of the module with its package's path and what it imports.
func eachFile(t *testing.T, f func(file, from string, imported []string)) {
	t.Helper()
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (p == "build" || d.Name() == "testdata" || (strings.HasPrefix(d.Name(), ".") && p != ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", p), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var imported []string
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imported = append(imported, name)
		}
		f(p, path.Dir(p), imported)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
