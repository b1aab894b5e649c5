// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"cmp"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// rootImage serves the root file system of a Debian that has lvm2, as an image of its own, with a line for a data volume in its fstab: a system that does not find it does not come to its login.
func (l *lab) rootImage(disk string) {
	l.t.Helper()
	l.run("bash", "-c", `set -eu -o pipefail; cd "$2"
		zstd -dc "$1" | { dd bs=1M skip=66 count=1536 iflag=fullblock conv=sparse of=root.img status=none; cat >/dev/null; }
		debugfs -R 'dump /etc/fstab fstab' root.img 2>/dev/null
		echo '/dev/mapper/sys--1-data /srv ext4 x-systemd.device-timeout=10min 0 2' >>fstab
		printf 'rm /etc/fstab\nwrite fstab /etc/fstab\n' | debugfs -w root.img >/dev/null 2>&1
		debugfs -R 'cat /etc/fstab' root.img 2>/dev/null | cmp - fstab
		e2fsck -fn root.img >/dev/null
		zstd -q -1 -T2 --rm root.img`, "bash", vmtest.Artefact(l.t, disk), l.dir)
	l.serve(l.path("root.img.zst"))
	l.sizes = ", root_mb: 1600"
}

// Volumes are made through the API, the image of a real Debian's root file system goes onto one, and the machine starts from it by its firmware.
func TestVMDeployOnVolume(t *testing.T) {
	disks := `physical_disks: [{serial: OTHER}, {serial: ROOT}]`
	volumes := func(on string) string {
		return `[{name: sys-1, ` + on + `, volumes: [{name: data, size_percent: 4, type: TYPE, file_system: ext4}, {name: root-1, size_gb: 2, type: TYPE, is_root_volume: true}]}]`
	}
	both := func(m []vmtest.Disk) [][]vmtest.Disk { return [][]vmtest.Disk{m} }
	either := func(m []vmtest.Disk) [][]vmtest.Disk { return [][]vmtest.Disk{m[1:], m[:1]} }
	for _, tt := range []struct {
		name, firmware string
		image          string // "" is the one with initramfs-tools
		layout         string
		raid           string // level
		kind           string
		handoff        string
		expect         []string
		starts         func([]vmtest.Disk) [][]vmtest.Disk
		alone          bool // it starts with either disk too, if there is time: LONG
		long           bool
	}{
		{name: "UEFI", firmware: "uefi", layout: volumes(disks), kind: "raid1", handoff: "poweroff", expect: []string{
			`writing .* to the logical volume sys-1/root-1, on /dev/vd[ab], /dev/vd[ab]`,
			`sys-1/root-1: boot loader in EFI/debian, from Debian's signed shim and GRUB; it starts the menu in /boot/grub/grub.cfg`,
			`boot loader: Boot\w+ debian \(RAID, part0\) \\EFI\\debian\\shimx64.efi`, `Boot\w+ debian \(RAID, part1\) \\EFI\\debian\\shimx64.efi`}, starts: both, alone: true},
		{name: "UEFI with dracut", image: "image/debian-dracut.img.zst", firmware: "uefi", layout: volumes(disks), kind: "raid1", handoff: "poweroff", expect: []string{
			`writing .* to the logical volume sys-1/root-1, on /dev/vda, /dev/vdb`,
			`boot loader: Boot\w+ debian \(RAID, part0\) \\EFI\\debian\\shimx64.efi`, `Boot\w+ debian \(RAID, part1\) \\EFI\\debian\\shimx64.efi`}, starts: both, alone: true, long: true},
		{name: "BIOS with a mirror", layout: volumes(disks), kind: "raid1", handoff: "poweroff", expect: []string{
			`boot loader: /dev/vd[ab]: GRUB for BIOS.* it starts the menu in /boot/grub/grub.cfg`, `/dev/vd[ab]: GRUB for BIOS`}, starts: both, alone: true, long: true},
		{name: "BIOS, after kexec", layout: volumes(disks), kind: "linear", handoff: "kexec", expect: []string{
			`boot loader: /dev/vd[ab]: GRUB for BIOS.* it starts the menu in /boot/grub/grub.cfg`, `/dev/vd[ab]: GRUB for BIOS`, `lab-host login:`}, starts: both, long: true},
		{name: "UEFI on an array", firmware: "uefi", layout: volumes("volume_name: system"), raid: "1", kind: "linear", handoff: "poweroff", expect: []string{
			`writing .* to the logical volume sys-1/root-1, on /dev/md0`, `made /dev/md1 "esp", of /dev/vd[ab]2, /dev/vd[ab]2`, `boot loader: Boot\w+ debian \(RAID, part0\)`}, starts: either, long: true},
		{name: "BIOS on an array", layout: volumes("volume_name: system"), raid: "1", kind: "linear", handoff: "poweroff", expect: []string{
			`boot loader: /dev/vd[ab]: GRUB for BIOS.* it starts the menu in /boot/grub/grub.cfg`}, starts: either, long: true},
	} {
		if tt.long && os.Getenv("LONG") == "" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.rootImage(cmp.Or(tt.image, "image/debian-raid.img.zst"))
			l.handoff = tt.handoff
			l.hint = "{serial: NONE}, logical_volumes: " + strings.ReplaceAll(tt.layout, "TYPE", tt.kind)
			if tt.firmware == "uefi" {
				l.bootMode = "uefi"
			}
			if tt.raid != "" {
				l.raid = "{logical_disks: [{size_gb: MAX, raid_level: '" + tt.raid + "', controller: software, volume_name: system}]}"
			}
			l.start()
			m := l.machine()
			m.Firmware, m.MemoryMiB = tt.firmware, 768
			if tt.firmware == "uefi" {
				m.Variables = l.path("variables")
				l.run("cp", "/usr/share/OVMF/OVMF_VARS_4M.fd", m.Variables)
			}
			m.Disks[0].Size = m.Disks[1].Size
			vm := vmtest.Start(t, m)
			for _, text := range tt.expect {
				vm.Expect(t, text, deployTime+bootTime)
			}
			if err := l.result(5 * time.Minute); err != nil {
				t.Fatalf("conductor: %v\n%s", err, l.timeline())
			}
			if tt.handoff == "poweroff" {
				vm.Wait(t, time.Minute)
			}
			vm.Stop()
			if strings.Contains(vm.Console(), "WARNING") {
				t.Errorf("console has a warning:\n%s", vm.Console())
			}
			for i := range m.Disks {
				m.Disks[i].Path = vm.Disks[i]
			}
			m.Kernel, m.Floppy, m.NICs = "none", "", nil
			if m.Firmware == "" {
				m.Firmware = "bios"
			}
			starts(t, m, tt.starts(m.Disks)...)
			if tt.alone && os.Getenv("LONG") != "" {
				bringInStep(t, m.Disks, volumeInStep)
				starts(t, m, either(m.Disks)...)
			}
		})
	}
}

// An image of a whole disk does not go over the volumes of the node, and says so before anything is touched.
func TestVMVolumeRefusesWholeDisk(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.hint = "{serial: ROOT}, logical_volumes: [{name: sys, physical_disks: [{serial: ROOT}], volumes: [{name: root, size_gb: 2, is_root_volume: true}]}]"
	l.start()
	vm := vmtest.Start(t, l.machine())
	l.wantFailure(vm, "the node's root volume is the logical volume sys/root, which takes the image of a file system (image_type partition), and no whole disk", deployTime+bootTime)
}
