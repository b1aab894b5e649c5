// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/initramfs"
	"github.com/ironhand/ironhand/initramfs/tool"
)

// BurnIn makes an archive for [Machine.Initrds] of the programs that the ramdisk for burn-in has beside others.
func BurnIn(t testing.TB) string {
	t.Helper()
	var a initramfs.Archive
	if err := (initramfs.Programs{Root: "/"}).AddTools(&a, tool.BurnIn()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "burnin.cpio"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.WriteTo(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// Programs finds programs and plug-in libraries of this computer for [Guest.Files] and [Pack], with the shared libraries that they need. Names without a
// slash are looked up as a shell does, and are found in usr/bin of the machine.
func Programs(t testing.TB, names ...string) map[string]string {
	t.Helper()
	files, err := programs(names)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func programs(names []string) (map[string]string, error) {
	files := map[string]string{}
	for _, name := range names {
		file, to := name, strings.TrimPrefix(name, "/")
		if !strings.Contains(name, "/") {
			var err error
			if file, err = exec.LookPath(name); err != nil {
				return nil, fmt.Errorf("%w: run `make packages`", err)
			}
			to = "usr/bin/" + name
		}
		out, err := exec.Command("ldd", file).Output()
		if err != nil {
			return nil, fmt.Errorf("ldd %s: %w", file, err)
		}
		if files[to], err = filepath.EvalSymlinks(file); err != nil {
			return nil, err
		}
		for word := range strings.FieldsSeq(string(out)) {
			if !strings.HasPrefix(word, "/") {
				continue
			}
			if files[strings.TrimPrefix(word, "/")], err = filepath.EvalSymlinks(word); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}
