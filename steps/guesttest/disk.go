// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// DiskOf is the name of the virtio disk with a serial number, such as vda: the kernel may give the first name to the second disk.
func DiskOf(t *testing.T, serial string) string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == serial {
			return filepath.Base(filepath.Dir(file))
		}
	}
	t.Fatalf("no disk with serial number %s among %s", serial, files)
	return ""
}
