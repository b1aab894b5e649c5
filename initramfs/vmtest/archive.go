// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

// Pack makes an archive to be used after another in Machine.Initrds: its files take the place of those of the same name. The keys are paths in the ramdisk without
// the leading slash, the values are files or directories here.
func Pack(t testing.TB, content map[string]string) string {
	t.Helper()
	var records []cpio.Record
	have := map[string]bool{}
	add := func(name string, r func() (cpio.Record, error)) {
		for dir := path.Dir(name); dir != "." && !have[dir]; dir = path.Dir(dir) {
			have[dir] = true
			records = append(records, cpio.Directory(dir, 0o755))
		}
		if have[name] {
			return
		}
		have[name] = true
		rec, err := r()
		if err != nil {
			t.Fatalf("pack %s: %v", name, err)
		}
		records = append(records, rec)
	}
	for _, name := range slices.Sorted(maps.Keys(content)) {
		source := content[name]
		err := filepath.WalkDir(source, func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			to := path.Join(name, filepath.ToSlash(strings.TrimPrefix(file, source)))
			add(to, func() (cpio.Record, error) { return record(to, file) })
			return nil
		})
		if err != nil {
			t.Fatalf("pack %s: %v", name, err)
		}
	}
	// A directory comes before what is in it.
	slices.SortStableFunc(records, func(a, b cpio.Record) int { return strings.Compare(a.Name, b.Name) })
	out := filepath.Join(t.TempDir(), "extra.cpio")
	if err := write(out, records); err != nil {
		t.Fatalf("pack: %v", err)
	}
	return out
}

func record(name, file string) (cpio.Record, error) {
	st, err := os.Stat(file)
	if err != nil {
		return cpio.Record{}, err
	}
	if st.IsDir() {
		return cpio.Directory(name, 0o755), nil
	}
	b, err := os.ReadFile(file)
	return cpio.StaticFile(name, string(b), uint64(st.Mode().Perm())), err
}

func write(file string, records []cpio.Record) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	cpio.MakeAllReproducible(records)
	w := cpio.Newc.Writer(f)
	if err := cpio.WriteRecords(w, records); err != nil {
		return err
	}
	return cpio.WriteTrailer(w)
}

// BuildTest compiles the tests of a package into a static binary and returns its path. The package is named as for `go test`.
func BuildTest(t testing.TB, pkg string) string {
	t.Helper()
	return build(t, "test", "-c", "-o", "{}", pkg)
}

// Build compiles a program into a static binary and returns its path.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	return build(t, "build", "-o", "{}", pkg)
}

// build runs the go command, with {} standing for the file to write.
func build(t testing.TB, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	for i, a := range args {
		if a == "{}" {
			args[i] = out
		}
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, bytes.TrimSpace(msg))
	}
	return out
}

// packageDir returns the directory of a package.
func packageDir(pkg string) (string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("go list %s: %w", pkg, err)
	}
	return strings.TrimSpace(string(out)), nil
}
