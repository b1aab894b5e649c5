// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
)

// debianSystem takes the root file system out of the image of a real Debian.
func debianSystem(t *testing.T) stream.Source {
	t.Helper()
	vmtest.Require(t)
	dir := t.TempDir()
	run(t, "", "zstd", "-q", "-d", "-o", dir+"/disk", vmtest.Artefact(t, "image/debian.img.zst"))
	var dump struct {
		Table struct {
			Partitions []struct {
				Name        string
				Start, Size int64
			}
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal([]byte(run(t, "", "sfdisk", "--json", dir+"/disk")), &dump); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	for _, p := range dump.Table.Partitions {
		if p.Name == "root" {
			run(t, "", "dd", "if="+dir+"/disk", "of="+root, "bs=1M", "iflag=skip_bytes,count_bytes", fmt.Sprintf("skip=%d", p.Start*512), fmt.Sprintf("count=%d", p.Size*512), "conv=sparse", "status=none")
		}
	}
	if err := os.Remove(dir + "/disk"); err != nil {
		t.Fatal(err)
	}
	src, err := stream.NewFile(root)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// writeDebian writes a real Debian's root file system to the disk of a machine.
func writeDebian(t *testing.T, l Layout) (device, disk string, r Partitioned) {
	t.Helper()
	src := debianSystem(t)
	disk = newFile(t, 4<<30)
	device = looptest.Attach(t, disk, 512)
	r, err := writeParts(t, device, l, Spec{Sources: []stream.Source{src}})
	if err != nil {
		t.Fatal(err)
	}
	return device, disk, r
}

// A machine with UEFI starts a real Debian from a disk to which the image of its root file system was written, by the removable path alone.
func TestVMPartitionImageBoots(t *testing.T) {
	device, disk, r := writeDebian(t, Layout{UEFI: true, ESP: 550, Swap: 64, Root: 3000})
	t.Log(r.Loader)
	run(t, "", "blockdev", "--flushbufs", device)
	vm := vmtest.Start(t, vmtest.Machine{Firmware: "secureboot", Kernel: "none", MemoryMiB: 1024, Disks: []vmtest.Disk{{Path: disk}}})
	vm.Expect(t, `Linux version|Loading|Welcome to`, 3*time.Minute)
	vm.Expect(t, `debian login:`, 8*time.Minute)
}

// A machine with BIOS starts a real Debian, with its own menu, from a GPT to which the image of its root file system was written.
func TestVMPartitionImageBootsBIOS(t *testing.T) {
	device, disk, r := writeDebian(t, Layout{BIOSBoot: 1, Swap: 64, Root: 3000})
	what, err := installBIOS(t, device, r.RootUUID)
	if err != nil || !strings.Contains(what, "it starts the menu in /boot/grub/grub.cfg") {
		t.Fatalf("InstallBIOS() = %q, %v", what, err)
	}
	run(t, "", "blockdev", "--flushbufs", device)
	vm := vmtest.Start(t, vmtest.Machine{Firmware: "bios", Kernel: "none", MemoryMiB: 1024, Disks: []vmtest.Disk{{Path: disk}}})
	vm.Expect(t, `debian login:`, 8*time.Minute)
}
