// SPDX-License-Identifier: Apache-2.0

//go:build linux

package interop

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// A BIOS node gets the image of a real Debian's root file system. Ironic 21.4 asks for the boot loader without knowing enable_bios_bootloader_install, and the machine starts from its disk.
func TestIronicPartitionImageBIOS(t *testing.T) {
	b := newBench(t, nil)
	n := b.newNode("partition", "bios")
	n.do("provide")
	n.until("available", 5*time.Minute)
	n.setImage(b.rootImage(), map[string]any{"image_type": "partition", "root_gb": 3, "swap_mb": 64})
	n.do("active", "configdrive", map[string]any{"meta_data": map[string]any{"hostname": "from-partition"}})
	n.until("active", 10*time.Minute)
	wantConsole(t, n, "step: write_image done", ": GRUB for BIOS, from /usr/lib/grub/i386-pc; it starts the menu in /boot/grub/grub.cfg")
	n.fromDisk(`from-partition login:`, 5*time.Minute)
}

// rootImage takes the root file system out of the image of a real Debian.
func (b *bench) rootImage() string {
	b.t.Helper()
	disk, root := b.path("disk.img"), b.path("root.img.zst")
	b.run("zstd", "-q", "-d", "-o", disk, vmtest.Artefact(b.t, "image/debian.img.zst"))
	var dump struct {
		Table struct {
			Partitions []struct {
				Name        string
				Start, Size int64
			}
		} `json:"partitiontable"`
	}
	b.must(json.Unmarshal([]byte(b.run("sfdisk", "--json", disk)), &dump))
	for _, p := range dump.Table.Partitions {
		if p.Name == "root" {
			b.run("bash", "-c", fmt.Sprintf(`set -o pipefail; dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip=%d count=%d status=none | zstd -q -1 -o "$2"`, p.Start*512, p.Size*512), "bash", disk, root)
		}
	}
	b.run("rm", disk)
	return root
}
