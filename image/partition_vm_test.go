// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
)

// A machine with UEFI starts a real Debian from a disk to which the image of its root file system was written, by the removable path alone.
func TestVMPartitionImageBoots(t *testing.T) {
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
	src, err := stream.NewFile(root)
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "machine")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 4<<30); err != nil {
		t.Fatal(err)
	}
	device := looptest.Attach(t, disk, 512)
	r, err := writeParts(t, device, Layout{UEFI: true, ESP: 550, Swap: 64, Root: 3000}, Spec{Sources: []stream.Source{src}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Loader)
	run(t, "", "blockdev", "--flushbufs", device)
	vm := vmtest.Start(t, vmtest.Machine{Firmware: "secureboot", Kernel: "none", MemoryMiB: 1024, Disks: []vmtest.Disk{{Path: disk}}})
	vm.Expect(t, `Linux version|Loading|Welcome to`, 3*time.Minute)
	vm.Expect(t, `debian login:`, 8*time.Minute)
}
