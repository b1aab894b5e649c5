// SPDX-License-Identifier: Apache-2.0

package inspecttest

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
	"testing/fstest"
)

func TestBroken(t *testing.T) {
	b := Broken{ReadLinkFS: fstest.MapFS{"a": {}, "b": {}}, Errors: map[string]error{"a": syscall.EIO}}
	if _, err := fs.ReadFile(b, "a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("read a: %v, want %v", err, syscall.EIO)
	}
	if _, err := fs.ReadFile(b, "b"); err != nil {
		t.Errorf("read b: %v", err)
	}
}
