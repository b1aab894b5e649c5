// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/steps"
)

func TestParsePartitionInfo(t *testing.T) {
	tests := []struct {
		name, info, mode, label string
		want                    string // the layout, or part of the error
	}{
		{"as the conductor sends it", `{"kernel": null, "ramdisk": null, "root_gb": "10", "root_mb": 10240, "swap_mb": 512, "ephemeral_mb": 0, "ephemeral_format": null, "configdrive": null,
			"preserve_ephemeral": false, "image_type": "partition", "deploy_boot_mode": "uefi", "boot_option": "local"}`, "uefi", "gpt",
			"{UEFI:true MBR:false ESP:550 BIOSBoot:0 Ephemeral:0 EphemeralFormat:ext4 Swap:512 Root:10240 PreserveEphemeral:false}"},
		{"all", `{"root_mb": 100, "swap_mb": 1, "ephemeral_mb": 2, "ephemeral_format": "ext3", "preserve_ephemeral": "True"}`, "bios", "gpt",
			"{UEFI:false MBR:false ESP:0 BIOSBoot:1 Ephemeral:2 EphemeralFormat:ext3 Swap:1 Root:100 PreserveEphemeral:true}"},
		{"MBR", `{"root_mb": "100"}`, "bios", "msdos", "{UEFI:false MBR:true ESP:0 BIOSBoot:0 Ephemeral:0 EphemeralFormat:ext4 Swap:0 Root:100 PreserveEphemeral:false}"},
		{"GiB alone", `{"root_gb": 2, "ephemeral_gb": 1}`, "uefi", "gpt", "Ephemeral:1024 EphemeralFormat:ext4 Swap:0 Root:2048"},

		{"no size", `{"swap_mb": 5}`, "", "", "the root partition has no size"},
		{"size is no number", `{"root_mb": "ten"}`, "", "", `image_info: "\"ten\"" is not a whole number`},
		{"half a MiB", `{"root_mb": 1.5}`, "", "", `"1.5" is not a whole number`},
		{"negative", `{"root_mb": 10, "swap_mb": -1}`, "", "", "a swap partition of -1 MiB is not possible"},
		{"overflow", `{"root_mb": 9223372036854775807}`, "", "", "image_info"},
		{"overflow of GiB", `{"root_gb": 4611686018427387903}`, "", "", "the root partition has no size"},
		{"keep nothing", `{"root_mb": 10, "preserve_ephemeral": true}`, "", "", "the ephemeral partition is to be kept, and has no size"},
		{"keep perhaps", `{"root_mb": 10, "preserve_ephemeral": "maybe"}`, "", "", "is neither true nor false"},
		{"btrfs", `{"root_mb": 10, "ephemeral_mb": 10, "ephemeral_format": "btrfs"}`, "", "", "there are ext2, ext3, ext4, xfs"},
		{"too small for xfs", `{"root_mb": 10, "ephemeral_mb": 299, "ephemeral_format": "xfs"}`, "", "", "an ephemeral partition of 299 MiB cannot have the file system xfs, which wants 300"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := parsePartitionInfo(steps.Host{}, json.RawMessage(test.info))
			if test.mode == "" {
				if !errors.Is(err, steps.ErrArgs) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("parsePartitionInfo() = %v, want ErrArgs with %q", err, test.want)
				}
				return
			}
			if got := fmt.Sprintf("%+v", p.layout(steps.Host{}, test.mode, test.label)); err != nil || !strings.Contains(got, test.want) {
				t.Errorf("layout() = %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

func FuzzParsePartitionInfo(f *testing.F) {
	f.Add([]byte(`{"root_mb": 100, "swap_mb": "1", "ephemeral_mb": 2, "ephemeral_format": "ext3", "preserve_ephemeral": "True"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parsePartitionInfo(steps.Host{}, b); err != nil && !errors.Is(err, steps.ErrArgs) {
			t.Errorf("parsePartitionInfo() = %v, want ErrArgs", err)
		}
	})
}

// ext4Image is the image of a file system of 8 MiB.
func ext4Image(t *testing.T) []byte {
	t.Helper()
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skip("needs mkfs.ext4")
	}
	file := filepath.Join(t.TempDir(), "image")
	if out, err := exec.Command("mkfs.ext4", "-q", "-U", "6f1f64b5-2a8f-4f4a-8f0e-3c1b7d2e9a10", file, "8M").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWritePartitionImage(t *testing.T) {
	const uuid = "6f1f64b5-2a8f-4f4a-8f0e-3c1b7d2e9a10"
	part := func(more change) change {
		all := change{"image_type": "partition", "root_mb": 20, "swap_mb": 4, "ephemeral_mb": 0, "ephemeral_format": nil, "preserve_ephemeral": false}
		for k, v := range more {
			all[k] = v
		}
		return all
	}
	tests := []struct {
		name    string
		changes change
		mode    string // capability
		want    string // text, and what Ironic reads
		is      error
		wantErr string
	}{
		{"BIOS", part(nil), "bios", "image (debian.img) written to device /dev/vda root_uuid=" + uuid + ` {"efi system partition uuid":null,"partitions":{"root":"/dev/vda2","swap":"/dev/vda1"},"root uuid":"` + uuid + `"}`, nil, ""},
		{"UEFI", part(change{"deploy_boot_mode": "uefi", "boot_option": "local"}), "uefi", "image (debian.img) written to device /dev/vda root_uuid=" + uuid + " efi_system_partition_uuid=SERIAL " +
			`{"efi system partition uuid":"SERIAL","partitions":{"efi system partition":"/dev/vda1","root":"/dev/vda3","swap":"/dev/vda2"},"root uuid":"` + uuid + `"}`, nil, ""},
		{"too small a disk", part(change{"root_mb": 70}), "bios", "", gpt.ErrTooSmall, "swap 4 MiB, root 70 MiB end at 75 MiB, of the disk's 72 MiB 72 are usable"},
		{"too small a partition", part(change{"root_mb": 7}), "bios", "", image.ErrRootTooSmall, "with 7 MiB"},
		{"sizes that cannot be", part(change{"root_mb": 0}), "bios", "", steps.ErrArgs, "the root partition has no size"},
		{"image of a whole disk", part(nil), "bios", "", nil, "write partition image debian.img to /dev/vda: the image has a partition table with 1 partitions"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.host.ESPSize = 40
			b.properties = map[string]json.RawMessage{"capabilities": json.RawMessage(`"boot_mode:` + test.mode + `"`)}
			if !strings.Contains(test.name, "whole disk") {
				b.server.Content = ext4Image(t)
			}
			result, err := b.run(t, rootDiskHint, test.changes, nil)
			if test.wantErr != "" {
				if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("writeImage() = %v, want %v with %q", err, test.is, test.wantErr)
				}
				if !b.untouched() {
					t.Error("the disk was touched")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d := result.(steps.Deployed)
			uuids, err := json.Marshal(d.UUIDs)
			if err != nil {
				t.Fatal(err)
			}
			serial, _ := d.UUIDs["efi system partition uuid"].(string)
			if want := strings.ReplaceAll(test.want, "SERIAL", serial); d.Text+" "+string(uuids) != want {
				t.Errorf("writeImage() = %s %s, want %s", d.Text, uuids, want)
			}
		})
	}
}

func TestPartitionPath(t *testing.T) {
	for disk, want := range map[string]string{"/dev/sda": "/dev/sda2", "/dev/nvme0n1": "/dev/nvme0n1p2", "/dev/md127": "/dev/md127p2"} {
		if got := partitionPath(disk, 2); got != want {
			t.Errorf("partitionPath(%s) = %s, want %s", disk, got, want)
		}
	}
}
