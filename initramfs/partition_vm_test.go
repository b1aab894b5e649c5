// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// The image of a file system is written to a machine with UEFI, which then starts it by its boot entry: with Secure Boot, from the disk alone.
func TestVMDeployPartitionImage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.image = signedSystem.make(t)[1<<20 : 63<<20]
	l.bootMode, l.handoff, l.sizes = "uefi", "reboot", ", root_mb: 1000, swap_mb: 16, ephemeral_mb: 64"
	l.start()
	m := l.machine()
	m.Firmware, m.Variables = "uefi", l.path("variables")
	run(t, "cp", "/usr/share/OVMF/OVMF_VARS_4M.fd", m.Variables)
	vm := vmtest.Start(t, m)
	vm.Expect(t, `/dev/vd[ab]: boot loader in EFI/debian, from Debian's signed shim and GRUB; it starts /boot/vmlinuz-1`, deployTime+bootTime)
	vm.Expect(t, `boot loader: Boot[0-9A-F]{4} .*shimx64.efi`, deployTime)
	vm.Expect(t, `hand-off: reboot`, deployTime)
	if why := vm.Wait(t, time.Minute); why != "guest-reset" {
		t.Errorf("the machine ended by %s, want guest-reset", why)
	}
	if err := l.result(time.Minute); err != nil {
		t.Errorf("conductor: %v\n%s", err, l.timeline())
	}
	if strings.Contains(vm.Console(), "WARNING") {
		t.Errorf("console has a warning:\n%s", vm.Console())
	}
	// 1 ESP, 551 ephemeral, 615 swap, 631 config drive, 632 root
	disk := vm.Disks[1]
	if out := run(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	for at, want := range map[string]string{"1048576": `LABEL="efi-part"`, "577765376": `LABEL="ephemeral0"`, "644874240": `LABEL="swap1"`, "661651456": `LABEL="config-2"`, "662700032": `LABEL="root"`} {
		if out := run(t, "blkid", "-p", "-O", at, disk); !strings.Contains(out, want) {
			t.Errorf("blkid at %s: %s, want %s", at, out, want)
		}
	}
	run(t, "e2fsck", "-fn", disk+"?offset=662700032")
	if out := run(t, "dumpe2fs", "-h", disk+"?offset=662700032"); !strings.Contains(out, "1000M") && !strings.Contains(out, "256000\n") && !strings.Contains(out, "1024000\n") {
		t.Errorf("the file system did not grow: %s", out)
	}
	// The firmware that was told what to start does: its first entry.
	told := vmtest.Start(t, vmtest.Machine{Firmware: "uefi", Variables: m.Variables, Kernel: "none", Disks: []vmtest.Disk{{Size: 1 << 30}, {Path: disk}}})
	told.Expect(t, `BdsDxe: starting Boot[0-9A-F]{4} "debian" from HD\(1,GPT,[^)]*\)/\\EFI\\debian\\shimx64.efi[\s\S]*IMAGE RUNS[\s\S]*marker=from-esp`, 3*time.Minute)
	told.Wait(t, time.Minute) // it has the disk
	// One that knows nothing starts it too.
	booted := vmtest.Start(t, vmtest.Machine{Firmware: "secureboot", Kernel: "none", Disks: []vmtest.Disk{{Path: disk}}})
	booted.Expect(t, `IMAGE RUNS[\s\S]*root=UUID=6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 .*marker=from-esp`, 3*time.Minute)
}

// The image of a file system is written to a machine with BIOS, onto an MBR whose four primary partitions are all in use, and the conductor asks for the boot loader as Ironic of Zed does. The machine then starts from the disk alone.
func TestVMDeployPartitionImageBIOS(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.image = biosSystem.make(t)[1<<20 : 63<<20]
	l.handoff, l.sizes = "reboot", ", root_mb: 1000, swap_mb: 16, ephemeral_mb: 64"
	l.start()
	vm := vmtest.Start(t, l.machine())
	vm.Expect(t, `boot loader: /dev/vd[ab]: GRUB for BIOS, from /usr/lib/grub/i386-pc; it starts /boot/vmlinuz-1`, deployTime+bootTime)
	vm.Expect(t, `hand-off: reboot`, deployTime)
	if why := vm.Wait(t, time.Minute); why != "guest-reset" {
		t.Errorf("the machine ended by %s, want guest-reset", why)
	}
	if err := l.result(time.Minute); err != nil {
		t.Errorf("conductor: %v\n%s", err, l.timeline())
	}
	if strings.Contains(vm.Console(), "WARNING") {
		t.Errorf("console has a warning:\n%s", vm.Console())
	}
	disk := vm.Disks[1]
	if out := run(t, "sfdisk", "--verify", disk); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk --verify: %s", out)
	}
	// 1 ephemeral, 65 swap, 81 config drive, 82 root
	run(t, "e2fsck", "-fn", disk+"?offset=85983232")
	if out := run(t, "blkid", "-p", "-O", "84934656", disk); !strings.Contains(out, `LABEL="config-2"`) {
		t.Errorf("blkid of the config drive: %s", out)
	}
	booted := vmtest.Start(t, vmtest.Machine{Firmware: "bios", Kernel: "none", Disks: []vmtest.Disk{{Path: disk}}})
	booted.Expect(t, `IMAGE RUNS[\s\S]*root=UUID=6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 .*marker=from-bios`, 3*time.Minute)
}

// Images of other file systems are written, grown and started as well; their own programs are the judges.
func TestVMDeployPartitionImageFileSystems(t *testing.T) {
	for _, tt := range []struct {
		name   string
		system *system
		size   int // MiB
		judge  func(t *testing.T, fs string)
	}{
		{"xfs", xfsSystem, 300, func(t *testing.T, fs string) {
			run(t, "xfs_repair", "-n", fs)
			if out := run(t, "xfs_db", "-r", "-c", "sb 0", "-c", "p dblocks", fs); !strings.Contains(out, "dblocks = 256000") {
				t.Errorf("xfs did not grow: %s", out)
			}
		}},
		{"btrfs", btrfsSystem, 200, func(t *testing.T, fs string) {
			run(t, "btrfs", "check", "--readonly", fs)
			if out := run(t, "btrfs", "inspect-internal", "dump-super", fs); !strings.Contains(out, "total_bytes\t\t1048576000\n") {
				t.Errorf("btrfs did not grow: %s", out)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.image = tt.system.make(t)[1<<20 : (1+tt.size)<<20]
			l.handoff, l.sizes = "reboot", ", root_mb: 1000"
			l.start()
			vm := vmtest.Start(t, l.machine())
			vm.Expect(t, `boot loader: /dev/vd[ab]: GRUB for BIOS`, deployTime+bootTime)
			vm.Expect(t, `hand-off: reboot`, deployTime)
			vm.Wait(t, time.Minute)
			if strings.Contains(vm.Console(), "WARNING") {
				t.Errorf("console has a warning:\n%s", vm.Console())
			}
			disk := vm.Disks[1]
			fs := l.path("root")
			run(t, "dd", "if="+disk, "of="+fs, "bs=1M", "skip=2", "count=1000", "conv=sparse", "status=none") // 1 config drive, 2 root
			tt.judge(t, fs)
			booted := vmtest.Start(t, vmtest.Machine{Firmware: "bios", Kernel: "none", Disks: []vmtest.Disk{{Path: disk}}})
			booted.Expect(t, `IMAGE RUNS[\s\S]*root=UUID=[-0-9a-f]{36} .*marker=from-bios`, 3*time.Minute)
		})
	}
}

// An image without a boot loader for BIOS is no success, and the error says what it lacks.
func TestVMPartitionImageWithoutBIOSLoader(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.image = signedSystem.make(t)[1<<20 : 63<<20]
	l.handoff, l.sizes = "reboot", ", root_mb: 1000"
	l.start()
	vm := vmtest.Start(t, l.machine())
	l.wantFailure(vm, "the image has no boot loader that can be installed without running it: GRUB for BIOS, from /usr/lib/grub/i386-pc", deployTime+bootTime)
}
