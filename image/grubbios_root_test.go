// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
)

// installBIOS installs GRUB on a loop device.
func installBIOS(t *testing.T, device, root string) (string, error) {
	t.Helper()
	d, err := stream.OpenDevice(device)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	return InstallBIOS(t.Context(), BIOSDisk{device, d}, LocalVolumes(device, tool.Exec{}, nil), root)
}

func TestRootInstallBIOS(t *testing.T) {
	kernel := []string{"boot/vmlinuz-6\nkernel", "boot/initrd.img-6\ninitrd"}
	tests := []struct {
		name, mkfs string
		size       int64
		layout     Layout
	}{
		{"ext4 on GPT", "mkfs.ext4 -q -F -U " + rootUUID, 64 * mib, Layout{BIOSBoot: 1, Swap: 4, Root: 400}},
		{"xfs on MBR", "mkfs.xfs -q -m uuid=" + rootUUID, 320 * mib, Layout{MBR: true, Root: 400}},
		{"btrfs on MBR, with four partitions", "mkfs.btrfs -q", 200 * mib, Layout{MBR: true, Ephemeral: 40, EphemeralFormat: "ext4", Swap: 4, Root: 400}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kind := strings.TrimPrefix(strings.Fields(tt.mkfs)[0], "mkfs.")
			published := rootImage(t, tt.size, tt.mkfs, kernel...)
			uuid := uuidOf(t, published)
			device, _ := looptest.New(t, 600*mib, 512)
			published = putGRUB(t, kind, published)
			r, err := writeParts(t, device, tt.layout, Spec{Sources: []stream.Source{source{b: published}}, Digest: sha(published), ConfigDrive: testDrive(t)})
			if err != nil {
				t.Fatal(err)
			}
			table := run(t, "", "sfdisk", "--dump", device)
			what, err := installBIOS(t, device, strings.ToUpper(uuid))
			if want := "GRUB for BIOS, from /usr/lib/grub/i386-pc; it starts /boot/vmlinuz-6 of an image without GRUB's menu"; err != nil || what != want {
				t.Fatalf("InstallBIOS() = %q, %v, want %q", what, err, want)
			}
			if now := run(t, "", "sfdisk", "--dump", device); now != table {
				t.Errorf("the table was\n%s\nand is\n%s", table, now)
			}
			if again, err := installBIOS(t, device, uuid); err != nil || again != what {
				t.Errorf("InstallBIOS() again = %q, %v", again, err)
			}
			showPartitions(t, device)
			root := fmt.Sprintf("%sp%d", device, r.Roles[RoleRoot].Number)
			judgeRoot(t, kind, root, r.Roles[RoleRoot].Size)
			mnt := t.TempDir()
			run(t, "", "mount", "-o", "ro", root, mnt)
			compare := exec.Command("diff", "-rq", "/"+grubBIOSDirectory, mnt+"/boot/grub/i386-pc")
			out, _ := compare.CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if !strings.HasPrefix(line, "Only in /usr/lib/grub/i386-pc: ") || strings.Contains(line, ".mod") || strings.Contains(line, ".lst") {
					t.Errorf("%s", line)
				}
			}
			run(t, "", "grub-script-check", mnt+"/boot/grub/grub.cfg")
			run(t, "", "umount", mnt)
		})
	}
}

func TestRootInstallBIOSFails(t *testing.T) {
	kernel := []string{"boot/vmlinuz-6\nkernel", "boot/initrd.img-6\ninitrd"}
	bare := rootImage(t, 64*mib, "mkfs.ext4 -q -F -U "+rootUUID, kernel...)
	whole := putGRUB(t, "ext4", bare)
	tests := []struct {
		name      string
		published []byte
		sector    int
		layout    Layout
		root      string
		is        error
		want      string
	}{
		{"another UUID", whole, 512, Layout{MBR: true, Root: 100}, "6f1f64b5-2a8f-4f4a-8f0e-3c1b7d2e9a11", ErrNoRoot, "no partition has this UUID"},
		{"UUID of another partition", whole, 512, Layout{MBR: true, Swap: 4, Root: 100}, "01", ErrNoRoot, "no partition has this UUID"},
		{"no UUID", whole, 512, Layout{MBR: true, Root: 100}, "", ErrNoRoot, "no partition has this UUID"},
		{"no GRUB in the image", bare, 512, Layout{BIOSBoot: 1, Root: 100}, rootUUID, ErrNoImageLoader, "kernel.img"},
		{"a disk for UEFI", whole, 512, Layout{UEFI: true, ESP: 40, Root: 100}, rootUUID, ErrLayout, "its GPT has no BIOS boot partition"},
		{"large sectors", rootImage(t, 64*mib, "mkfs.ext4 -q -F -b 4096 -U "+rootUUID, kernel...), 4096, Layout{MBR: true, Root: 100}, rootUUID, ErrLayout, "sectors of 4096 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device, file := looptest.New(t, 200*mib, tt.sector)
			if _, err := writeParts(t, device, tt.layout, Spec{Sources: []stream.Source{source{b: tt.published}}}); err != nil {
				t.Fatal(err)
			}
			run(t, "", "blockdev", "--flushbufs", device)
			head := make([]byte, mib)
			read := func() []byte {
				f, err := os.Open(file)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.ReadAt(head, 0); err != nil {
					t.Fatal(err)
				}
				return head
			}
			before := string(read())
			if _, err := installBIOS(t, device, tt.root); !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("InstallBIOS() = %v, want %v with %q", err, tt.is, tt.want)
			}
			run(t, "", "blockdev", "--flushbufs", device)
			if string(read()) != before {
				t.Error("the start of the disk has changed")
			}
			if out := run(t, "", "losetup", "--associated", device); out != "" {
				t.Errorf("left behind: %s", out)
			}
		})
	}
}

// GRUB sees a btrfs from its top on.
func TestRootInstallBIOSSubvolume(t *testing.T) {
	published := putGRUB(t, "btrfs", rootImage(t, 200*mib, "mkfs.btrfs -q", "boot/vmlinuz-6\nkernel", "boot/initrd.img-6\ninitrd"))
	device, _ := looptest.New(t, 400*mib, 512)
	r, err := writeParts(t, device, Layout{MBR: true, Root: 300}, Spec{Sources: []stream.Source{source{b: published}}})
	if err != nil {
		t.Fatal(err)
	}
	showPartitions(t, device)
	root, mnt := fmt.Sprintf("%sp%d", device, r.Roles[RoleRoot].Number), t.TempDir()
	run(t, "", "mount", root, mnt)
	run(t, "", "btrfs", "subvolume", "snapshot", mnt, mnt+"/snapshot")
	run(t, "", "btrfs", "subvolume", "set-default", mnt+"/snapshot")
	run(t, "", "umount", mnt)
	if _, err := installBIOS(t, device, r.RootUUID); !errors.Is(err, ErrNoImageLoader) || !strings.Contains(err.Error(), "GRUB does not see the default subvolume of its btrfs") {
		t.Errorf("InstallBIOS() = %v", err)
	}
}

// putGRUB puts Debian's GRUB for BIOS into the image of a file system.
func putGRUB(t *testing.T, kind string, published []byte) []byte {
	t.Helper()
	file := newFile(t, int64(len(published)))
	if err := os.WriteFile(file, published, 0o600); err != nil {
		t.Fatal(err)
	}
	mnt, options := t.TempDir(), "loop"
	if kind == "xfs" {
		options += ",nouuid"
	}
	run(t, "", "mount", "-o", options, file, mnt)
	run(t, "", "mkdir", "-p", mnt+"/usr/lib/grub")
	run(t, "", "cp", "-r", "/"+grubBIOSDirectory, mnt+"/usr/lib/grub/")
	run(t, "", "umount", mnt)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
