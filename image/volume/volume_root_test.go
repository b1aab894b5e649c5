// SPDX-License-Identifier: Apache-2.0

//go:build linux

package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/stream/looptest"
)

// The kernel reads what is made here, on disks with sectors of either size.
func TestRootMount(t *testing.T) {
	looptest.NeedRoot(t)
	kernel, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	fat := func(size int64, sector int) []byte {
		b, err := FAT{Size: size, SectorSize: sector, Label: "CONFIG-2", Files: longNames()}.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name, filesystem string
		sector           int
		image            []byte
	}{
		{"floppy", "vfat", 512, fat(FloppySize, 512)},
		{"FAT16", "vfat", 512, fat(8<<20, 512)},
		{"FAT12, 4 KiB sectors", "vfat", 4096, fat(8<<20, 4096)},
		{"FAT16, 4 KiB sectors", "vfat", 4096, fat(64<<20, 4096)},
		{"ISO 9660", "iso9660", 512, makeISO(t, ISO{Label: "config-2"}, longNames())},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(kernel), "\t"+c.filesystem+"\n") {
				t.Skipf("the kernel has no %s", c.filesystem) // TestVMMedia mounts both in a virtual machine
			}
			file, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
			if err := os.WriteFile(file, c.image, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(looptest.Attach(t, file, c.sector), dir, c.filesystem, unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}()
			compare(t, onDisk(t, dir), longNames())
		})
	}
}
