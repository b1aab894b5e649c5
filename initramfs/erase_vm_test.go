// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs"
	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/stream/looptest"
)

// eraseTime is a limit for one step.
const eraseTime = 3 * time.Minute

// formerLives makes the disks below a directory, full of data, with what a former user had on them.
const formerLives = `set -eu
cd "$1"
table() { # FILE SECTOR-SIZE: partitions at 1 and 21 MiB
	loop=$(losetup --find --show --sector-size $2 $1)
	printf 'label: gpt\nstart=1MiB, size=20MiB\nstart=21MiB, size=20MiB\n' | sfdisk --quiet --no-reread --no-tell-kernel $loop
	losetup --detach $loop
}
put() { dd if=$2 of=$1 bs=1M seek=$3 conv=notrunc status=none; }
truncate -s 20M ext4 swap
mke2fs -q -t ext4 -b 4096 -L former ext4
mkswap -q swap
for d in NVME NVME4K SATA LOGICAL SCSI SCSI4K VIRTIO VIRTIO4K MULTI MULTI2 PATH KEEP BAD GONE; do
	yes 'what a former user left' | head -c 64M >$d
done
for d in NVME NVME4K KEEP BAD GONE; do
	case $d in *4K) table $d 4096;; *) table $d 512;; esac
	put $d ext4 1
	put $d swap 21
done
printf 'label: dos\nstart=1MiB, size=60MiB, type=5\nstart=2MiB, size=20MiB\nstart=23MiB, size=20MiB\n' | sfdisk --quiet LOGICAL
put LOGICAL ext4 2
put LOGICAL swap 23
put SCSI4K ext4 0
put VIRTIO4K ext4 0
put MULTI2 ext4 0
`

// physicalVolume is the label of LVM in the second sector of a disk: lib/label/label.h of LVM2.
func physicalVolume() []byte {
	b := make([]byte, 512)
	copy(b, "LABELONE")
	binary.LittleEndian.PutUint64(b[8:], 1)
	binary.LittleEndian.PutUint32(b[20:], 32)
	copy(b[24:], "LVM2 001")
	copy(b[32:], "abcdefghijklmnopqrstuvwxyz012345")
	binary.LittleEndian.PutUint32(b[16:], ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b[20:]))
	return b
}

// eraseLab is a machine with disks of all kinds, in which a person types.
type eraseLab struct {
	t   *testing.T
	dir string
	vm  *vmtest.VM
	dev map[string]string // serial number, with 2 for a second disk of the same -> name
	n   int               // lines typed
}

func newEraseLab(t *testing.T) *eraseLab {
	t.Helper()
	vmtest.Require(t)
	l := &eraseLab{t: t, dir: t.TempDir(), dev: map[string]string{}}
	run(t, "bash", "-c", formerLives, "bash", l.dir)
	f, err := os.OpenFile(l.path("VIRTIO"), os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(physicalVolume(), 512)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	// Media of both kinds, on USB disks that can be written to.
	run(t, vmtest.Artefact(t, "mkramdisk"), "media", "--type", "usb", "--out", l.path("medium"), "--node-uuid", labUUID)
	run(t, "cp", vmtest.Artefact(t, "ironhand.iso"), l.path("iso"))
	for _, name := range untouched {
		run(t, "cp", "--sparse=always", l.path(name), l.path(name+".before"))
	}
	// What stands in for LVM.
	var tools initramfs.Archive
	if err := (initramfs.Programs{Root: "/"}).Add(&tools, "sbin/dmsetup", "/sbin/dmsetup"); err != nil {
		t.Fatal(err)
	}
	if f, err = os.Create(l.path("tools")); err == nil {
		_, err = tools.WriteTo(f)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	disk := func(name, bus string, sector int) vmtest.Disk {
		return vmtest.Disk{Path: l.path(name), Serial: name, Bus: bus, SectorSize: sector}
	}
	l.vm = vmtest.Start(t, vmtest.Machine{
		Cmdline: "quiet ironhand.shell=only",
		Initrds: []string{vmtest.Artefact(t, "initramfs-virtual.cpio"), l.path("tools")},
		USB:     l.path("medium"),
		Disks: []vmtest.Disk{
			disk("NVME", "nvme", 512), disk("NVME4K", "nvme", 4096), disk("SATA", "sata", 512), disk("LOGICAL", "sata", 512), disk("SCSI", "scsi", 512),
			disk("SCSI4K", "scsi", 4096), disk("VIRTIO", "virtio", 512), disk("VIRTIO4K", "virtio", 4096), disk("KEEP", "virtio", 512),
		},
		Extra: []string{
			"-device", "nvme-subsys,id=subsystem,nqn=test", "-device", "nvme,serial=MULTI,subsys=subsystem,id=multi",
			"-drive", "if=none,format=raw,id=multi1-drive,file=" + l.path("MULTI"), "-device", "nvme-ns,drive=multi1-drive,bus=multi,nsid=1",
			"-drive", "if=none,format=raw,id=multi2-drive,file=" + l.path("MULTI2"), "-device", "nvme-ns,drive=multi2-drive,bus=multi,nsid=2",
			"-drive", "if=none,format=raw,id=iso-drive,file=" + l.path("iso"), "-device", "usb-storage,id=iso,bus=xhci.0,removable=on,drive=iso-drive",
			// This one is there by two paths.
			"-drive", "if=none,cache=unsafe,file.locking=off,format=raw,id=path1-drive,file=" + l.path("PATH"), "-device", "scsi-hd,bus=scsi.0,drive=path1-drive,serial=PATH,wwn=0x5000c50000000001",
			"-drive", "if=none,cache=unsafe,file.locking=off,format=raw,id=path2-drive,file=" + l.path("PATH"), "-device", "scsi-hd,bus=scsi.0,drive=path2-drive,serial=PATH,wwn=0x5000c50000000001",
			// This one takes no data at 32 MiB.
			"-drive", "if=none,cache=unsafe,werror=report,id=bad-drive,format=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=" + l.path("BAD") +
				",file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.errno=5,file.inject-error.0.sector=65536" +
				",file.inject-error.1.event=none,file.inject-error.1.iotype=write-zeroes,file.inject-error.1.errno=5,file.inject-error.1.sector=65536",
			"-device", "virtio-blk-pci,drive=bad-drive,serial=BAD",
			// This one is slow enough to be pulled out.
			"-drive", "if=none,cache=unsafe,id=gone-drive,format=raw,throttling.bps-total=16777216,file=" + l.path("GONE"),
			"-device", "scsi-hd,bus=scsi.0,id=gone,drive=gone-drive,serial=GONE",
		},
	})
	l.vm.Expect(t, "/ # ", bootTime)
	table := l.must("ironhand inspect")
	for _, m := range regexp.MustCompile(`(?m)^(/dev/\S+) .* ([A-Z0-9]+) +\S+ +\S+ +\S+ *$`).FindAllStringSubmatch(table, -1) {
		name := m[2]
		for n := 2; l.dev[name] != ""; n++ {
			name = fmt.Sprint(m[2], n)
		}
		l.dev[name] = m[1]
	}
	if len(l.dev) != 14 {
		t.Fatalf("the machine has %v:\n%s", l.dev, table)
	}
	return l
}

// untouched are the disks to which nobody may write.
var untouched = []string{"medium", "iso", "KEEP", "MULTI2"}

func (l *eraseLab) path(name string) string { return filepath.Join(l.dir, name) }

// begin types a line, in which $SERIAL stands for the device of that serial number.
func (l *eraseLab) begin(line string) {
	l.t.Helper()
	line = os.Expand(line, func(name string) string {
		if l.dev[name] == "" {
			l.t.Fatalf("no disk %s: %v", name, l.dev)
		}
		return l.dev[name]
	})
	l.n++
	l.vm.Send(l.t, fmt.Sprintf("echo BEGIN-$((%d)); %s; echo \"END-$((%[1]d)) $?\"\n", l.n, line))
}

// end waits for the end of the line, and returns what it printed, and its exit status.
func (l *eraseLab) end() (output, status string) {
	l.t.Helper()
	status = l.vm.Expect(l.t, fmt.Sprintf(`END-%d (\d+)\n`, l.n), eraseTime)[1]
	_, output, _ = strings.Cut(l.vm.Console(), fmt.Sprintf("\nBEGIN-%d\n", l.n))
	return output, status
}

func (l *eraseLab) must(line string) (output string) {
	l.t.Helper()
	l.begin(line)
	output, status := l.end()
	if status != "0" {
		l.t.Fatalf("%s: exit status %s:\n%s", line, status, output)
	}
	return output
}

// erase begins a step with all disks on the skip list but some, and more of the node's record.
func (l *eraseLab) erase(step, node string, disks ...string) {
	l.t.Helper()
	var skip []string
	for serial, name := range l.dev {
		if !slices.Contains(disks, serial) {
			skip = append(skip, fmt.Sprintf(`{"name":%q}`, name))
		}
	}
	slices.Sort(skip)
	l.must(fmt.Sprintf(`printf '%%s' '{"properties":{"skip_block_devices":[%s]}%s}' >/tmp/node`, strings.Join(skip, ","), node))
	l.begin("ironhand run " + step + " --node /tmp/node --yes >/tmp/result")
}

// erased waits for a step to succeed, and returns what it said, and the certificates by serial number.
func (l *eraseLab) erased() (said string, list map[string]erase.Certificate) {
	l.t.Helper()
	said, status := l.end()
	if status != "0" {
		l.t.Fatalf("exit status %s:\n%s", status, said)
	}
	list = map[string]erase.Certificate{}
	result, _, _ := strings.Cut(l.must("cat /tmp/result"), "END-")
	if result == "" {
		return said, list
	}
	var byName map[string]erase.Certificate
	if err := json.Unmarshal([]byte(result), &byName); err != nil {
		l.t.Fatalf("result %s: %v", result, err)
	}
	for serial, name := range l.dev {
		if c, ok := byName[name]; ok {
			list[serial] = c
			delete(byName, name)
		}
	}
	if len(byName) > 0 {
		l.t.Errorf("certificates of others: %v", byName)
	}
	return said, list
}

func (l *eraseLab) want(said string, patterns ...string) {
	l.t.Helper()
	for _, want := range patterns {
		if !regexp.MustCompile(want).MatchString(said) {
			l.t.Errorf("said no %q:\n%s", want, said)
		}
	}
}

// found is what other programs find on a disk, and in the places where its partitions were, MiB.
func (l *eraseLab) found(name string, sector int, partitions ...int) string {
	l.t.Helper()
	device := looptest.Attach(l.t, l.path(name), sector)
	out := run(l.t, "wipefs", "--no-act", "--noheadings", device)
	judge := func(name string, args ...string) { // who finds nothing says so by the exit status, and mdadm in words
		b, err := exec.Command(name, args...).Output()
		if err == nil {
			out += string(b)
		}
	}
	judge("blkid", "--probe", device)
	judge("mdadm", "--examine", device)
	for _, at := range partitions {
		part := filepath.Join(l.t.TempDir(), "part")
		run(l.t, "dd", "if="+device, "of="+part, "bs=1M", fmt.Sprint("skip=", at), "count=20", "status=none")
		out += run(l.t, "wipefs", "--no-act", "--noheadings", part)
	}
	return out
}

func (l *eraseLab) wantFound(name string, sector int, want string, partitions ...int) {
	l.t.Helper()
	if out := l.found(name, sector, partitions...); !regexp.MustCompile(want).MatchString(out) {
		l.t.Fatalf("on %s is no %s:\n%s", name, want, out)
	}
}

func (l *eraseLab) wantBlank(name string, sector int, partitions ...int) {
	l.t.Helper()
	if out := l.found(name, sector, partitions...); out != "" {
		l.t.Errorf("on %s is yet:\n%s", name, out)
	}
}

func (l *eraseLab) wantZero(names ...string) {
	l.t.Helper()
	for _, name := range names {
		if out, err := exec.Command("cmp", "--bytes=67108864", l.path(name), "/dev/zero").CombinedOutput(); err != nil {
			l.t.Errorf("%s is not zero: %v %s", name, err, out)
		}
	}
}

// certified wants certificates of a method for exactly these disks, with all that was read back zero.
func (l *eraseLab) certified(list map[string]erase.Certificate, method map[string]string) {
	l.t.Helper()
	for serial, c := range list {
		if m := method[serial]; m == "" || !strings.HasPrefix(serial, c.Serial) || c.Method != m || c.Size != 64<<20 || c.Proof.Samples < 60 || c.Proof.Zero != c.Proof.Samples {
			l.t.Errorf("certificate %+v, want method %q", c, m)
		}
	}
	if len(list) != len(method) {
		l.t.Errorf("%d certificates, want %d", len(list), len(method))
	}
}

// Disks are erased by the steps, as a person runs them in the real ramdisk: by an NVMe format, and by what is left where a drive has no means of its own. They are in
// use by what former users left. Media, other namespaces and disks on the skip list stay as they are, and disks that fail are named.
func TestVMErase(t *testing.T) {
	l := newEraseLab(t)
	l.must("modprobe raid1; modprobe dm-mod; modprobe ext4; mkdir -p /m/md /m/lv /m/logical /m/nvme /m/virtio")

	// 1. Software RAID that the node's record has is erased, and stays; its members are left alone.
	const array = "linux_raid_member"
	l.must("mdadm --create /dev/md0 --run --assume-clean --metadata=1.2 --level=1 --raid-devices=2 $SATA $SCSI && mke2fs /dev/md0; sync")
	for _, name := range []string{"SATA", "SCSI"} {
		l.wantFound(name, 512, array+"(?s:.*)Raid Level : raid1(?s:.*)ext2", 1)
	}
	l.erase("erase_devices_metadata", `,"raid_config":{"logical_disks":[{"controller":"software"}]}`, "SATA", "SCSI")
	said, _ := l.erased()
	l.want(said, `a member of software RAID, which stays`, `/dev/md0: clearing metadata`)
	for _, name := range []string{"SATA", "SCSI"} {
		l.wantFound(name, 512, array, 1)
		if out := l.found(name, 512, 1); strings.Contains(out, "ext2") {
			t.Errorf("on %s is yet:\n%s", name, out)
		}
	}

	// 2. Metadata of disks that are in use.
	l.must("mke2fs /dev/md0 && mount -t ext4 /dev/md0 /m/md")
	l.must("dmsetup create vg-root --noudevsync --uuid LVM-abcdef --table '0 65536 linear $VIRTIO 2048' && mke2fs /dev/dm-0 && mount -t ext4 /dev/dm-0 /m/lv")
	l.must("mount -t ext4 ${LOGICAL}5 /m/logical && swapon ${LOGICAL}6; sync")
	l.wantFound("VIRTIO", 512, "LVM2_member")
	l.wantFound("LOGICAL", 512, "(?s)dos.*ext4.*swap", 2, 23)
	l.erase("erase_devices_metadata", "", "SATA", "SCSI", "VIRTIO", "LOGICAL")
	said, _ = l.erased()
	l.want(said, `is on the skip list`, `is a medium for this machine \(label ir-vfd-dev\)`, `is a medium for this machine \(label IRONHAND\)`,
		`unmount /m/md`, `stop /dev/md0 \(raid1\)`, `unmount /m/lv`, `remove /dev/dm-0 \(LVM "vg-root"\)`, `unmount /m/logical`, `stop swapping to /dev/sd.6`)
	for _, name := range []string{"SATA", "SCSI", "VIRTIO", "LOGICAL"} {
		l.wantBlank(name, 512, 1, 2, 23)
	}

	// 3. Express: NVMe by a format, others by their metadata.
	l.must("mount -t ext4 ${NVME}p1 /m/nvme && swapon ${NVME}p2 && mount -t ext4 $VIRTIO4K /m/virtio; sync")
	l.wantFound("NVME", 512, "(?s)gpt.*ext4.*swap", 1, 21)
	l.wantFound("VIRTIO4K", 4096, "ext4")
	l.erase("erase_devices_express", "", "NVME", "VIRTIO4K")
	said, _ = l.erased()
	l.want(said, `unmount /m/nvme`, `stop swapping to /dev/nvme.n1p2`,
		`serial NVME, 67108864 bytes: erased by NVMe format \(user data erase\) .*, the drive says format: success; of (\d+) samples \d+ are zero`)
	l.wantZero("NVME")
	l.wantBlank("VIRTIO4K", 4096)

	// 4. Everything, by the best that each drive can.
	l.must("mount -t ext4 ${NVME4K}p1 /m/nvme && swapon ${NVME4K}p2")
	l.wantFound("NVME4K", 4096, "(?s)gpt.*ext4.*swap", 1, 21)
	l.erase("erase_devices", `,"driver_internal_info":{"disk_erasure_concurrency":7}`, "NVME4K", "MULTI", "SATA", "SCSI", "VIRTIO4K", "PATH")
	_, certificates := l.erased()
	const format, overwrite = "NVMe format (user data erase)", "overwrite with 1 passes of random data and one of zeros"
	l.certified(certificates, map[string]string{"NVME4K": format, "MULTI": format, "SATA": overwrite, "SCSI": overwrite, "VIRTIO4K": overwrite, "PATH": overwrite})
	for serial, lacks := range map[string]string{"SATA": "ATA security erase: the drive has no such commands", "SCSI": "SCSI sanitize (block erase): the drive refuses"} {
		if got := strings.Join(certificates[serial].Lacking, "; "); !strings.Contains(got, lacks) {
			t.Errorf("%s is said to lack %q, want %q", serial, got, lacks)
		}
	}
	if got := certificates["NVME4K"].Status; got != "format: success" {
		t.Errorf("NVMe status %q", got)
	}
	l.wantZero("NVME4K", "MULTI", "SATA", "SCSI", "VIRTIO4K", "PATH")

	// 5. Without passes of random data.
	l.erase("erase_devices", `,"driver_internal_info":{"agent_erase_devices_iterations":0}`, "SCSI4K", "VIRTIO")
	_, certificates = l.erased()
	l.certified(certificates, map[string]string{"SCSI4K": "overwrite with zeros", "VIRTIO": "overwrite with zeros"})
	l.wantZero("SCSI4K", "VIRTIO")

	// 6. One disk takes no data at one place, another is pulled out. The third is erased.
	l.erase("erase_devices", `,"driver_internal_info":{"disk_erasure_concurrency":3}`, "BAD", "GONE", "LOGICAL")
	l.vm.Expect(t, l.dev["GONE"]+`: overwrite .*: \d+ %`, eraseTime)
	l.vm.Monitor(t, "device_del", map[string]any{"id": "gone"})
	said, status := l.end()
	if status != "1" {
		t.Errorf("exit status %s, want 1", status)
	}
	l.want(said, `(?m)^ironhand run: Failed to erase the device\(s\): .*"`+l.dev["GONE"]+`": .*the drive vanished: `+l.dev["GONE"]+` is gone`,
		`(?m)^ironhand run: Failed to erase the device\(s\): .*"`+l.dev["BAD"]+`": overwrite .* at 33554432: .*input/output error`,
		`serial LOGICAL, 67108864 bytes: erased by`)
	if strings.Contains(said, `"`+l.dev["LOGICAL"]+`": `) {
		t.Errorf("a disk that was erased is said to have failed:\n%s", said)
	}
	l.wantZero("LOGICAL")
	l.wantBlank("BAD", 512) // nothing half erased boots
	l.wantBlank("GONE", 512)

	// 7. What nobody may touch.
	l.vm.Stop()
	for _, name := range untouched {
		run(t, "cmp", l.path(name), l.path(name+".before"))
	}
}
