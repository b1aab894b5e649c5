// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A dynamic program runs from what was packed with it and from nothing else.
func TestRootProgramRunsInItsOwnRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal("needs root")
		}
		t.Skip("SKIPPED: needs root")
	}
	cpio := judge(t, "cpio")
	for _, name := range []string{"ls", "curl", "mkfs.ext4", "busybox"} {
		t.Run(name, func(t *testing.T) {
			var a Archive
			must(t, Programs{Root: "/"}.Add(&a, "bin/"+name, judge(t, name)))
			dir := t.TempDir()
			unpack := exec.Command(cpio, "--extract", "--make-directories", "--quiet", "--directory", dir)
			unpack.Stdin = bytes.NewReader(bytesOf(t, &a))
			if out, err := unpack.CombinedOutput(); err != nil {
				t.Fatalf("cpio: %v\n%s", err, out)
			}
			flag := "--help"
			if name == "mkfs.ext4" {
				flag = "-V"
			}
			chroot := exec.Command(judge(t, "chroot"), dir, "/bin/"+name, flag)
			if out, err := chroot.CombinedOutput(); err != nil {
				t.Fatalf("%s in %q: %v\n%s", name, slices.Sorted(maps.Keys(a.entries)), err, out)
			}
		})
	}
}
