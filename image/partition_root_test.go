// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
)

// rootImage makes a partition image.
func rootImage(t *testing.T, size int64, mkfs string, files ...string) []byte {
	t.Helper()
	file, dir := newFile(t, size), t.TempDir()
	copyTree(t, dir, files...)
	words := strings.Fields(mkfs)
	switch words[0] {
	case "mkfs.btrfs":
		words = append(words, "--rootdir", dir)
	case "mkfs.xfs":
		run(t, "", words[0], append(words[1:], file)...)
		device, mnt := looptest.Attach(t, file, 512), t.TempDir()
		run(t, "", "mount", "-o", "nouuid", device, mnt)
		run(t, "", "cp", "-a", dir+"/.", mnt)
		run(t, "", "umount", mnt)
		words = nil
	default:
		words = append(words, "-d", dir)
	}
	if words != nil {
		run(t, "", words[0], append(words[1:], file)...)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// uuidOf is the UUID of the file system in an image, by the word of blkid. (To mkfs.btrfs none can be given: it refuses one that any other disk has, such as that of a test beside this one.)
func uuidOf(t *testing.T, published []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, published, 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(run(t, "", "blkid", "-p", "-s", "UUID", "-o", "value", file))
}

// qcow2Of makes a qcow2 image.
func qcow2Of(t *testing.T, raw []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/raw", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", dir+"/raw", dir+"/qcow2")
	b, err := os.ReadFile(dir + "/qcow2")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeParts writes a partition image to a loop device.
func writeParts(t *testing.T, device string, l Layout, s Spec) (Partitioned, error) {
	t.Helper()
	d, err := stream.OpenDevice(device)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, err := WritePartitions(t.Context(), d, s, l, LocalVolumes(device, tool.Exec{}, nil))
	if cerr := d.Close(); cerr != nil {
		t.Error(cerr)
	}
	return r, err
}

func TestRootWritePartitions(t *testing.T) {
	layouts := map[string]Layout{
		"UEFI":      {UEFI: true, ESP: 40, Ephemeral: 48, EphemeralFormat: "ext4", Swap: 16, Root: 400},
		"BIOS, GPT": {BIOSBoot: 1, Swap: 16, Root: 400},
		"BIOS, MBR": {MBR: true, Ephemeral: 48, EphemeralFormat: "ext3", Swap: 16, Root: 400},
		"BIOS, XFS": {MBR: true, Ephemeral: 300, EphemeralFormat: "xfs", Root: 100},
	}
	tests := []struct {
		layout string
		sector int
		mkfs   string
		size   int64
		drive  bool
		qcow2  bool
	}{
		{"UEFI", 512, "mkfs.ext4 -q -F -U " + rootUUID, 96 * mib, true, false},
		{"UEFI", 4096, "mkfs.ext4 -q -F -b 4096 -U " + rootUUID, 96 * mib, true, false},
		{"UEFI", 512, "mkfs.xfs -q -m uuid=" + rootUUID, 320 * mib, false, true},
		{"UEFI", 4096, "mkfs.btrfs -q", 200 * mib, false, false},
		{"BIOS, GPT", 512, "mkfs.ext4 -q -F -U " + rootUUID, 96 * mib, true, false},
		{"BIOS, GPT", 4096, "mkfs.xfs -q -s size=4096 -m uuid=" + rootUUID, 320 * mib, false, true},
		{"BIOS, MBR", 512, "mkfs.btrfs -q", 200 * mib, true, true},
		{"BIOS, XFS", 512, "mkfs.ext2 -q -F -U " + rootUUID, 64 * mib, false, false},
		{"BIOS, XFS", 4096, "mkfs.ext3 -q -F -b 4096 -U " + rootUUID, 64 * mib, false, false},
		{"BIOS, MBR", 4096, "mkfs.ext4 -q -F -b 4096 -U " + rootUUID, 400 * mib, true, false}, // as large as its partition
	}
	for _, tt := range tests {
		kind := strings.TrimPrefix(strings.Fields(tt.mkfs)[0], "mkfs.")
		t.Run(fmt.Sprintf("%s, %d, %s", tt.layout, tt.sector, kind), func(t *testing.T) {
			published := rootImage(t, tt.size, tt.mkfs, debianTree()...)
			uuid := uuidOf(t, published)
			if tt.qcow2 {
				published = qcow2Of(t, published)
			}
			device, file := loopDisk(t, 600*mib, tt.sector, fmt.Sprintf("label: gpt\nstart=%d, size=%d\n", 2*mib/tt.sector, 100*mib/tt.sector)) // old
			run(t, "", "mkfs.ext4", "-q", "-F", "-E", fmt.Sprintf("offset=%d", 41*mib), device, "40M")                                          // what was in a partition before
			s := Spec{Sources: []stream.Source{source{b: published}}, Digest: sha(published), ReadBack: stream.ReadBackFull}
			if tt.drive {
				s.ConfigDrive = testDrive(t)
			}
			l := layouts[tt.layout]
			r, err := writeParts(t, device, l, s)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range r.Warnings {
				if !strings.HasPrefix(w, "the kernel does not see partition") { // this one may read no tables
					t.Errorf("warning: %s", w)
				}
			}
			if r.RootUUID != uuid || (r.ESPUUID != "") != l.UEFI || (r.Loader != "") != l.UEFI {
				t.Errorf("root UUID %s, ESP %q, loader %q", r.RootUUID, r.ESPUUID, r.Loader)
			}

			// The table.
			if out := run(t, "", "sfdisk", "--verify", device); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk --verify: %s", out)
			}
			if out := run(t, "", "sgdisk", "-v", device); !l.MBR && !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v: %s", out)
			}
			showPartitions(t, device)

			// What is in it.
			path := func(role Role) string { return fmt.Sprintf("%sp%d", device, r.Roles[role].Number) }
			want := map[Role]string{
				RoleRoot: `UUID="` + uuid, RoleSwap: `LABEL="swap1"`, RoleEphemeral: `LABEL="ephemeral0"`, RoleESP: `UUID="` + r.ESPUUID,
				RoleConfigDrive: map[int]string{512: `LABEL="config-2"`, 4096: `LABEL="CONFIG-2"`}[tt.sector],
			}
			for role := range r.Roles {
				if role == RoleBIOSBoot {
					continue
				}
				if out := run(t, "", "blkid", "-p", path(role)); !strings.Contains(out, want[role]) || strings.Contains(out, "ambivalent") {
					t.Errorf("blkid of %s: %s, want %s", role, out, want[role])
				}
			}
			if l.Swap > 0 {
				if out := run(t, "", "swaplabel", path(RoleSwap)); !strings.Contains(out, "LABEL: swap1") {
					t.Errorf("swaplabel: %s", out)
				}
			}
			if l.Ephemeral > 0 {
				if l.EphemeralFormat == "xfs" {
					run(t, "", "xfs_repair", "-n", path(RoleEphemeral))
				} else {
					run(t, "", "e2fsck", "-fn", path(RoleEphemeral))
				}
				if out := run(t, "", "blkid", "-p", path(RoleEphemeral)); !strings.Contains(out, `TYPE="`+l.EphemeralFormat) {
					t.Errorf("blkid of ephemeral: %s", out)
				}
			}
			judgeRoot(t, kind, path(RoleRoot), r.Roles[RoleRoot].Size)
			mnt := t.TempDir()
			run(t, "", "mount", "-o", "ro", path(RoleRoot), mnt)
			b, err := os.ReadFile(filepath.Join(mnt, "boot/vmlinuz-6.1.0-56-amd64"))
			run(t, "", "umount", mnt)
			if err != nil || string(b) != "kernel" {
				t.Errorf("kernel in the root partition: %q, %v", b, err)
			}
			if l.UEFI {
				judgeESP(t, file, r)
			}
		})
	}
}

// judgeRoot has the programs of a file system check it, and that it is as large as its partition.
func judgeRoot(t *testing.T, kind, device string, size int64) {
	t.Helper()
	switch kind {
	case "ext2", "ext3", "ext4":
		run(t, "", "e2fsck", "-fn", device)
		out := run(t, "", "dumpe2fs", "-h", device)
		var blocks, block int64
		fmt.Sscan(regexp.MustCompile(`Block count: +(\d+)`).FindStringSubmatch(out)[1], &blocks)
		fmt.Sscan(regexp.MustCompile(`Block size: +(\d+)`).FindStringSubmatch(out)[1], &block)
		if blocks*block != size {
			t.Errorf("ext4 has %d of %d bytes", blocks*block, size)
		}
	case "xfs":
		run(t, "", "xfs_repair", "-n", device)
		out := run(t, "", "xfs_db", "-r", "-c", "sb 0", "-c", "p dblocks blocksize", device)
		var blocks, block int64
		fmt.Sscan(regexp.MustCompile(`dblocks = (\d+)`).FindStringSubmatch(out)[1], &blocks)
		fmt.Sscan(regexp.MustCompile(`blocksize = (\d+)`).FindStringSubmatch(out)[1], &block)
		if blocks*block < size-64*mib { // the last allocation group may be too small to be one
			t.Errorf("xfs has %d of %d bytes", blocks*block, size)
		}
	case "btrfs":
		run(t, "", "btrfs", "check", "--readonly", device)
		out := run(t, "", "btrfs", "inspect-internal", "dump-super", device)
		if !strings.Contains(out, fmt.Sprintf("total_bytes\t\t%d\n", size)) {
			t.Errorf("btrfs, of %d bytes, has\n%s", size, out)
		}
	}
}

// judgeESP has other programs look at the EFI system partition.
func judgeESP(t *testing.T, disk string, r Partitioned) {
	t.Helper()
	esp := r.Roles[RoleESP]
	b, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(file, b[esp.Start:esp.Start+esp.Size], 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "", "fsck.fat", "-n", "-v", file); strings.Contains(out, "differ") || strings.Contains(out, "dirty") {
		t.Errorf("fsck.fat:\n%s", out)
	}
	grubConfig := "search.fs_uuid " + r.RootUUID + " root\nlinux /boot/vmlinuz-6.1.0-56-amd64 root=UUID=" + r.RootUUID + " ro\ninitrd /boot/initrd.img-6.1.0-56-amd64\nboot\n"
	for name, want := range map[string]string{"EFI/debian/grub.cfg": grubConfig, "EFI/BOOT/BOOTX64.EFI": "shim", "EFI/BOOT/grubx64.efi": debianGRUB, "EFI/debian/shimx64.efi": "shim",
		"EFI/debian/BOOTX64.CSV": "csv"} {
		if got := run(t, "", "mtype", "-i", file, "::"+name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// An image that turns out wrong leaves no table; a request that cannot be met leaves the disk as it was.
func TestRootWritePartitionsFails(t *testing.T) {
	published := rootImage(t, 64*mib, "mkfs.ext4 -q -F -U "+rootUUID)
	_, file := loopDisk(t, 24*mib, 512, "label: gpt\nstart=2048, size=4096\n")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l := Layout{UEFI: true, ESP: 40, Root: 100}
	tests := []struct {
		name    string
		layout  Layout
		image   []byte
		digest  stream.Digest
		is      error
		want    string
		touched bool
	}{
		{"wrong digest", l, published, sha(whole), stream.ErrDigest, "", true},
		{"short", l, published[:32*mib], sha(published), stream.ErrDigest, "", true},
		{"whole disk image", l, whole, sha(whole), stream.ErrFormat, "the image has a partition table with 1 partitions", false},
		{"no file system", l, bytes.Repeat([]byte("x"), mib), sha(nil), stream.ErrFormat, "none of the file systems", false},
		{"no bytes", l, nil, sha(nil), stream.ErrEmpty, "", false},
		{"root too small", Layout{UEFI: true, ESP: 40, Root: 63}, published, sha(published), ErrRootTooSmall, "with 63 MiB: ", false},
		{"root too small, packed", Layout{UEFI: true, ESP: 40, Root: 63}, zipped(t, published), sha(zipped(t, published)), ErrRootTooSmall, "its ext4 takes 64 MiB, the partition has 63", false},
		{"disk too small", Layout{UEFI: true, ESP: 40, Root: 1000}, published, sha(published), ErrLayout, "end at 1041 MiB, of the disk's 200 MiB 199 are usable", false},
		{"qcow2, root too small", Layout{UEFI: true, ESP: 40, Root: 63}, qcow2Of(t, published), sha(qcow2Of(t, published)), ErrRootTooSmall, "with 63 MiB: ", false},
		{"nothing to keep", Layout{UEFI: true, ESP: 40, Root: 100, Ephemeral: 10, PreserveEphemeral: true}, published, sha(published), ErrLayout, "has not the partitions", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device, _ := loopDisk(t, 200*mib, 512, "label: gpt\nstart=2048, size=2048\n")
			before := run(t, "", "sfdisk", "--dump", device)
			_, err := writeParts(t, device, tt.layout, Spec{Sources: []stream.Source{source{b: tt.image}}, Digest: tt.digest, Patience: 1})
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("WritePartitions() = %v, want %v with %q", err, tt.is, tt.want)
			}
			if tt.touched {
				if out := run(t, "", "wipefs", "--no-act", device); strings.TrimSpace(out) != "" {
					t.Errorf("wipefs finds\n%s", out)
				}
				if out := run(t, "", "sh", "-c", "blkid -p -O 42991616 "+device+" || true"); strings.TrimSpace(out) != "" {
					t.Errorf("blkid finds in the root partition\n%s", out)
				}
			} else if after := run(t, "", "sfdisk", "--dump", device); after != before {
				t.Errorf("the disk was touched: %s", after)
			}
		})
	}
}

// A disk without a table has nothing to keep.
func TestRootPreserveNothing(t *testing.T) {
	device, file := loopDisk(t, 200*mib, 512, "")
	place(t, file, []byte("old"), 50*mib)
	published := rootImage(t, 64*mib, "mkfs.ext4 -q -F")
	l := Layout{UEFI: true, ESP: 40, Root: 100, Ephemeral: 10, PreserveEphemeral: true}
	if _, err := writeParts(t, device, l, Spec{Sources: []stream.Source{source{b: published}}, Digest: sha(published)}); !errors.Is(err, ErrLayout) || !errors.Is(err, ErrNoTable) {
		t.Errorf("WritePartitions() = %v, want %v and %v", err, ErrLayout, ErrNoTable)
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b[50*mib:50*mib+3], []byte("old")) {
		t.Errorf("the disk was touched, %v", err)
	}
}

// What is in the ephemeral partition outlives another image, the table's GUIDs too; nothing else does.
func TestRootPreserveEphemeral(t *testing.T) {
	for name, l := range map[string]Layout{
		"UEFI":      {UEFI: true, ESP: 40, Ephemeral: 48, EphemeralFormat: "ext4", Swap: 16, Root: 100},
		"BIOS, MBR": {MBR: true, Ephemeral: 48, EphemeralFormat: "ext4", Root: 100},
	} {
		t.Run(name, func(t *testing.T) {
			device, file := loopDisk(t, 300*mib, 512, "")
			first := rootImage(t, 64*mib, "mkfs.ext4 -q -F", "first\nx")
			r, err := writeParts(t, device, l, Spec{Sources: []stream.Source{source{b: first}}, Digest: sha(first), ConfigDrive: testDrive(t)})
			if err != nil {
				t.Fatal(err)
			}
			table := run(t, "", "sfdisk", "--dump", device)
			ephemeral := r.Roles[RoleEphemeral]
			at := ephemeral.Start + 20*mib
			kept := []byte("what was saved")
			place(t, file, kept, at)
			run(t, "", "blockdev", "--flushbufs", device)
			place(t, file, []byte("boot code"), 0)
			run(t, "", "blockdev", "--flushbufs", device)

			second := rootImage(t, 64*mib, "mkfs.ext4 -q -F -U "+rootUUID, debianTree()...)
			l.PreserveEphemeral = true
			spec := Spec{Sources: []stream.Source{source{b: second}}, Digest: sha(first), ConfigDrive: testDrive(t)}
			check := func() {
				t.Helper()
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b[at:at+int64(len(kept))], kept) {
					t.Error("the ephemeral partition was written to")
				}
				if bytes.HasPrefix(b, []byte("boot code")) {
					t.Error("the boot code is still there")
				}
				if after := run(t, "", "sfdisk", "--dump", device); after != table {
					t.Errorf("the table was\n%s\nis\n%s", table, after)
				}
			}
			if _, err := writeParts(t, device, l, spec); !errors.Is(err, stream.ErrDigest) {
				t.Errorf("with a wrong digest: %v", err)
			}
			check()
			for role, p := range r.Roles {
				out := run(t, "", "sh", "-c", fmt.Sprintf("blkid -p -O %d %s || true", p.Start, device))
				if (strings.TrimSpace(out) != "") != (role == RoleEphemeral) {
					t.Errorf("after a wrong digest, in the %s partition is %s", role, out)
				}
			}
			spec.Digest = sha(second)
			if r, err = writeParts(t, device, l, spec); err != nil || r.RootUUID != rootUUID {
				t.Errorf("WritePartitions() = %+v, %v", r, err)
			}
			check()
			showPartitions(t, device)
			run(t, "", "e2fsck", "-fn", fmt.Sprintf("%sp%d", device, ephemeral.Number))
			judgeRoot(t, "ext4", fmt.Sprintf("%sp%d", device, r.Roles[RoleRoot].Number), 100*mib)
		})
	}
}
