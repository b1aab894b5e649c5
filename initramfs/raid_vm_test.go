// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// oldArray makes two disks members of a mirror, as mdadm does: include/uapi/linux/raid/md_p.h, struct mdp_superblock_1.
func oldArray(t *testing.T, size int64) []string {
	t.Helper()
	const roles = 128 // of members that there is room for
	var paths []string
	for number := range 2 {
		b := make([]byte, 256+2*roles)
		le := binary.LittleEndian
		le.PutUint32(b, 0xa92b4efc)
		le.PutUint32(b[4:], 1)
		copy(b[16:32], "an array's uuid!")
		copy(b[32:64], "elsewhere:old")
		le.PutUint64(b[64:], uint64(time.Now().Unix()))
		le.PutUint32(b[72:], 1) // level
		data := uint64(size/512 - 2048)
		le.PutUint64(b[80:], data)
		le.PutUint32(b[92:], 2)
		le.PutUint64(b[128:], 2048)
		le.PutUint64(b[136:], data)
		le.PutUint64(b[144:], 8)
		le.PutUint32(b[160:], uint32(number))
		copy(b[168:184], "member's own id")
		b[183] = byte(number)
		le.PutUint64(b[192:], uint64(time.Now().Unix()))
		le.PutUint64(b[200:], 1)              // events
		le.PutUint64(b[208:], math.MaxUint64) // in sync to the end
		le.PutUint32(b[220:], roles)
		for i := range roles {
			role := uint16(0xffff)
			if i < 2 {
				role = uint16(i)
			}
			le.PutUint16(b[256+2*i:], role)
		}
		sum := uint64(0)
		for i := 0; i < len(b); i += 4 {
			sum += uint64(le.Uint32(b[i:]))
		}
		le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
		path := filepath.Join(t.TempDir(), "disk")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, 4096); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// The disks hold an array of a former life, which is started with the agent. The image goes onto one of them all the same.
func TestVMDeployOverArray(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	m := l.machine()
	const size = 5 << 30
	for i, path := range oldArray(t, size) {
		m.Disks[i].Path, m.Disks[i].Size = path, 0
	}
	vm := vmtest.Start(t, m)
	vm.Expect(t, `hardware: disk /dev/md\d+ 5.0 GiB`, bootTime)
	vm.Expect(t, `writing .* to /dev/vd[ab] .* serial ROOT`, deployTime)
	vm.Expect(t, `stop /dev/md\d+ old, raid1, of /dev/vd[ab], /dev/vd[ab], which would be in the way`, deployTime)
	vm.Expect(t, `IMAGE RUNS`, deployTime)
	if err := l.result(time.Minute); err != nil {
		t.Errorf("conductor: %v\n%s", err, l.timeline())
	}
	vm.Wait(t, time.Minute)
	checkDisk(t, vm.Disks[1], 512)
}

// onArray has an array of some level and number of disks made through the API, and a real Debian written onto it, up to a text on the console and the end of the deployment. It returns the machine, which is
// switched off, for its firmware to start.
func onArray(t *testing.T, l *lab, firmware, level string, disks int, expect ...string) vmtest.Machine {
	t.Helper()
	l.hint = "{serial: NONE}" // the node's root volume counts, and not the hint
	size := "2"
	if level == "1" {
		size = "3" // one member alone holds the image, behind the room for the EFI system partition
	}
	l.raid = "{logical_disks: [{size_gb: " + size + ", raid_level: '" + level + "', controller: software, volume_name: system, is_root_volume: true}, {size_gb: MAX, raid_level: '0', controller: software}]}"
	l.serve(vmtest.Artefact(t, "image/debian-raid.img.zst"))
	l.start()
	m := l.machine()
	m.Firmware, m.MemoryMiB = firmware, 768
	if firmware == "uefi" {
		m.Variables = l.path("variables")
		l.run("cp", "/usr/share/OVMF/OVMF_VARS_4M.fd", m.Variables)
	}
	m.Disks[0].Size = m.Disks[1].Size
	for len(m.Disks) < disks {
		m.Disks = append(m.Disks, vmtest.Disk{Size: m.Disks[1].Size})
	}
	vm := vmtest.Start(t, m)
	lines := []string{`made /dev/md0 "system"`, `writing .* to /dev/md0 `}
	if level != "0" {
		lines = append(lines, `the members of /dev/md0 are not brought in step while the image is written`, `the members of /dev/md0 are brought in step again`)
	}
	for _, text := range append(lines, expect...) {
		vm.Expect(t, text, deployTime)
	}
	if err := l.result(5 * time.Minute); err != nil {
		t.Fatalf("conductor: %v\n%s", err, l.timeline())
	}
	if l.handoff == "poweroff" {
		vm.Wait(t, time.Minute)
	}
	vm.Stop()
	for i := range m.Disks {
		m.Disks[i].Path = vm.Disks[i]
	}
	m.Kernel, m.Floppy, m.NICs = "none", "", nil
	return m
}

// starts wants the deployed system to start by the machine's firmware with each of the sets of disks, none of which it changes, up to its login.
func starts(t *testing.T, m vmtest.Machine, sets ...[]vmtest.Disk) {
	t.Helper()
	m.Extra = append(m.Extra, "-snapshot")
	for _, m.Disks = range sets {
		vm := vmtest.Start(t, m)
		vm.Expect(t, `lab-host login:`, 10*time.Minute) // of its config drive
		vm.Stop()
	}
}

// Commands of the ramdisk that finish what a deployment began: an array of level 5 or 6, or a volume, whose members are not in step does not do without one of them.
const (
	arraysInStep = "for m in raid1 raid10 raid456; do modprobe $m; done; mdadm --assemble --scan; while grep resync /proc/mdstat; do sleep 5; done; mdadm --stop --scan"
	volumeInStep = `for m in dm_mod dm_raid raid1; do modprobe $m; done; c='activation{udev_sync=0 udev_rules=0 monitoring=0}'; lvm vgchange --config "$c" -ay sys-1; ` +
		`while lvm lvs --config "$c" --noheadings -o sync_percent sys-1 | grep -v 100.00; do sleep 5; done; lvm vgchange --config "$c" -an sys-1`
)

// bringInStep has the ramdisk do that.
func bringInStep(t *testing.T, disks []vmtest.Disk, commands string) {
	t.Helper()
	vm := vmtest.Start(t, vmtest.Machine{Cmdline: "ironhand.shell=only", Disks: disks})
	vm.Expect(t, "/ # ", bootTime)
	vm.Send(t, commands+" && echo all $((40+2)) in step\n")
	vm.Expect(t, `all 42 in step`, 10*time.Minute)
	vm.Stop()
}

// The machine starts by UEFI with both disks, and with either of them taken away.
func TestVMDeployOnArray(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.bootMode, l.handoff = "uefi", "poweroff"
	m := onArray(t, l, "uefi", "1", 2, `made /dev/md2 "esp", of /dev/vd[ab]3, /dev/vd[ab]3`,
		`Boot\w+ debian \(RAID, part0\) \\EFI\\debian\\shimx64.efi`, `Boot\w+ debian \(RAID, part1\) \\EFI\\debian\\shimx64.efi`)

	// The same file system, as firmware sees it, on both, by the word of blkid and cmp.
	const at, length = "1048576", "67108864" // of the image's
	for _, d := range m.Disks {
		if out := l.run("blkid", "-p", "-O", at, d.Path); !strings.Contains(out, `TYPE="vfat"`) || !strings.Contains(out, `LABEL="ESP"`) {
			t.Errorf("blkid -p -O %s %s: %s", at, d.Path, out)
		}
		if out := l.run("sfdisk", "--dump", d.Path); !strings.Contains(out, "type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B") {
			t.Errorf("sfdisk --dump %s:\n%s", d.Path, out)
		}
	}
	l.run("cmp", "-i", at, "-n", length, m.Disks[0].Path, m.Disks[1].Path)
	starts(t, m, m.Disks, m.Disks[1:], m.Disks[:1])
}

// The same by BIOS; first by kexec, which finds the boot menu in the array.
func TestVMDeployOnArrayBIOS(t *testing.T) {
	t.Parallel()
	m := onArray(t, newLab(t), "", "1", 2, `/dev/vd[ab]: GRUB for BIOS`, `/dev/vd[ab]: GRUB for BIOS`, `lab-host login:`)
	m.Firmware = "bios"
	starts(t, m, m.Disks[1:], m.Disks[:1])
}

// The machine starts from arrays of other levels, with all disks and with as many taken away as the level can do without.
func TestVMDeployOnArrayLevels(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("takes minutes: make test-long")
	}
	for _, tt := range []struct {
		name, firmware, level string
		disks, without        int
	}{
		{"RAID 1+0 by UEFI", "uefi", "1+0", 4, 1},
		{"RAID 5 by UEFI", "uefi", "5", 3, 1},
		{"RAID 6 by BIOS", "", "6", 4, 2},
		{"RAID 0 by BIOS", "", "0", 2, 0},
		{"RAID 1+0 by BIOS", "", "1+0", 4, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.handoff = "poweroff"
			expect := `/dev/vd[a-d]: GRUB for BIOS`
			if tt.firmware == "uefi" {
				l.bootMode, expect = "uefi", `Boot\w+ debian \(RAID, part0\)`
			}
			m := onArray(t, l, tt.firmware, tt.level, tt.disks, expect)
			if m.Firmware == "" {
				m.Firmware = "bios"
			}
			sets := [][]vmtest.Disk{m.Disks}
			if tt.without > 0 {
				bringInStep(t, m.Disks, arraysInStep)
				sets = append(sets, m.Disks[tt.without:])
			}
			starts(t, m, sets...)
		})
	}
}

// The images of file systems go onto an array, too, and start with one disk taken away.
func TestVMPartitionImageOnArray(t *testing.T) {
	for _, test := range []struct {
		firmware, mode string
		image          *system
		line, marker   string
	}{
		{"uefi", "uefi", signedSystem, `boot loader: Boot\w+ .*RAID, part0\) .*shimx64.efi`, "from-esp"},
		{"", "bios", biosSystem, `boot loader: /dev/vd[ab]: GRUB for BIOS`, "from-bios"},
	} {
		t.Run(test.mode, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.image = test.image.make(t)[1<<20 : 63<<20]
			l.bootMode, l.handoff, l.sizes = test.mode, "poweroff", ", root_mb: 500"
			l.raid = "{logical_disks: [{size_gb: 2, raid_level: '1', controller: software, is_root_volume: true}]}"
			l.start()
			m := l.machine()
			m.Firmware = test.firmware
			vm := vmtest.Start(t, m)
			vm.Expect(t, test.line, deployTime+bootTime)
			if err := l.result(5 * time.Minute); err != nil {
				t.Fatalf("conductor: %v\n%s", err, l.timeline())
			}
			vm.Wait(t, time.Minute)
			if strings.Contains(vm.Console(), "WARNING") {
				t.Errorf("console has a warning:\n%s", vm.Console())
			}
			booted := vmtest.Start(t, vmtest.Machine{Firmware: test.mode, Kernel: "none", Disks: []vmtest.Disk{{Path: vm.Disks[1]}}})
			booted.Expect(t, `IMAGE RUNS[\s\S]*root=UUID=6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 .*marker=`+test.marker, 3*time.Minute)
		})
	}
}
