// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lvm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/steps/guesttest"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
)

var (
	guest = flag.Bool("guest", false, "run the tests for a virtual machine with disks")
	every = flag.Int("every", 1, "of the operations at which a machine is killed, take each n-th")
)

// Groups and volumes are made and deleted on disks of all kinds, by a real kernel; lvm, blkid, sfdisk, e2fsck and xfs_repair say what came out.
func TestVMVolumes(t *testing.T) {
	runGuest(t, "TestGuest[^K]", "", "", "", "nvme", "nvme", "scsi", "sata")
}

// The machine loses its power, in a manner of speaking, at each operation; at each fourth, unless there is time: LONG.
func TestVMVolumesKilled(t *testing.T) {
	tests := "TestGuestKilled -every=4"
	if os.Getenv("LONG") != "" {
		tests = "TestGuestKilled"
	}
	runGuest(t, tests, "", "")
}

// runGuest runs tests in a machine with disks on some buses, virtio if it is empty.
func runGuest(t *testing.T, tests string, buses ...string) {
	t.Parallel()
	vmtest.Require(t)
	m := vmtest.Machine{MemoryMiB: 1024}
	for _, bus := range buses {
		d := vmtest.Disk{Bus: cmp.Or(bus, "virtio"), Size: 4 << 30}
		if bus == "nvme" {
			d.SectorSize = 4096
		}
		m.Disks = append(m.Disks, d)
	}
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Machine: m, Files: vmtest.Programs(t, "sfdisk", "blkid", "sgdisk", "dmsetup", "xfs_repair", "wipefs"),
		Args: "-guest -test.run=" + tests, Timeout: 40 * time.Minute,
	})
}

// bench is the machine that the test runs in.
type bench struct{ *guesttest.Bench }

func newBench(t *testing.T) *bench {
	if !*guest {
		t.Skip("runs in the machine of TestVMVolumes")
	}
	return &bench{guesttest.New(t, "raid1", "dm_mod", "ext4")}
}

func (b *bench) create(layout string) (any, error) {
	return Create(b.T.Context(), b.Host, steps.Job{Node: b.Node, Args: json.RawMessage(`{"logical_volumes": ` + layout + `}`)})
}

func (b *bench) mustCreate(layout string) {
	b.T.Helper()
	result, err := b.create(layout)
	if err != nil {
		b.T.Fatal(err)
	}
	if got, err := json.Marshal(result); err != nil || string(got) != layout {
		b.T.Errorf("result = %s, %v, want the layout", got, err)
	}
}

func (b *bench) remove(groups ...string) error {
	args, err := json.Marshal(map[string][]string{"volume_groups": groups})
	if err != nil {
		b.T.Fatal(err)
	}
	_, err = Delete(b.T.Context(), b.Host, steps.Job{Node: b.Node, Args: args})
	return err
}

func (b *bench) mustDelete(groups ...string) {
	b.T.Helper()
	if err := b.remove(groups...); err != nil {
		b.T.Fatal(err)
	}
}

// volumes is what lvm says of all volumes: GROUP/NAME LAYOUT SIZE DEVICES, sorted.
func (b *bench) volumes() string {
	b.T.Helper()
	out, err := exec.Command("lvm", "lvs", "--noheadings", "--units", "m", "--nosuffix", "--separator", " ", "-o", "vg_name,lv_name,lv_layout,lv_size").Output()
	if err != nil {
		b.T.Fatalf("lvs: %v", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		w := strings.Fields(line)
		lines = append(lines, fmt.Sprintf("%s/%s %s %s", w[0], w[1], w[2], strings.TrimSuffix(w[3], ".00")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (b *bench) want(want string) {
	b.T.Helper()
	if got := b.volumes(); got != want {
		b.T.Errorf("volumes:\n%s\nwant:\n%s", got, want)
	}
}

// pvs is what lvm says of physical volumes: GROUP DEVICE, sorted.
func (b *bench) pvs() string {
	b.T.Helper()
	out, err := exec.Command("lvm", "pvs", "--noheadings", "--separator", " ", "-o", "vg_name,pv_name").Output()
	if err != nil {
		b.T.Fatalf("pvs: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// wantEmpty wants no disk to have anything on it, by the word of blkid, lvm and dmsetup.
func (b *bench) wantEmpty() {
	b.T.Helper()
	if got := b.pvs(); got != "" {
		b.T.Errorf("pvs: %s", got)
	}
	if out := b.Run("dmsetup", "ls"); !strings.Contains(out, "No devices") {
		b.T.Errorf("dmsetup ls: %s", out)
	}
	disks, err := b.Host.Machine.Disks(b.T.Context())
	if err != nil || len(disks) < 2 {
		b.T.Fatalf("disks: %v, %v", disks, err)
	}
	for _, d := range disks {
		if b.member(d.Name) {
			continue
		}
		if out, err := exec.Command("blkid", "-p", d.Name).CombinedOutput(); err == nil || len(out) > 0 {
			b.T.Errorf("blkid -p %s: %s, %v", d.Name, out, err)
		}
		if parts, err := raid.Partitions(b.Host.Machine.FS, d.Name); err != nil || len(parts) > 0 {
			b.T.Errorf("%s has the partitions %v, %v", d.Name, parts, err)
		}
	}
}

// member tells whether an array that runs is on a disk.
func (b *bench) member(disk string) bool {
	arrays, err := raid.RunningArrays(b.T.Context(), b.Host)
	if err != nil {
		b.T.Fatal(err)
	}
	return slices.ContainsFunc(arrays, func(a raid.RunningArray) bool { return slices.Contains(a.Disks, disk) })
}

// table is [guesttest.Bench.Table] with the first part of types.
func (b *bench) table(disk string) string {
	return regexp.MustCompile(`-[0-9a-f-]{27}`).ReplaceAllString(strings.ToLower(b.Bench.Table(disk)), "")
}

// activate has lvm start all volumes, as a system does that is started, and says what blkid finds in them: NAME TYPE LABEL. Their file systems are checked.
func (b *bench) activate() string {
	b.T.Helper()
	b.Run("lvm", "vgchange", "--config", settings, "-ay")
	var lines []string
	for line := range strings.Lines(b.Run("dmsetup", "ls")) {
		n := "/dev/mapper/" + strings.Fields(line)[0]
		if strings.Contains(n, "_rimage_") || strings.Contains(n, "_rmeta_") {
			continue
		}
		value := func(tag string) string {
			out, _ := exec.Command("blkid", "-p", "-s", tag, "-o", "value", n).Output() // fails if there is none
			return strings.TrimSpace(string(out))
		}
		kind := value("TYPE")
		switch kind {
		case "ext4":
			b.Run("e2fsck", "-fn", n)
		case "xfs":
			b.Run("xfs_repair", "-n", n)
		case "swap":
			b.Run("busybox", "swapon", n)
			b.Run("busybox", "swapoff", n)
		}
		lines = append(lines, strings.TrimSpace(filepath.Base(n)+" "+kind+" "+value("LABEL")))
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

func (b *bench) deactivate() {
	b.T.Helper()
	b.Run("lvm", "vgchange", "--config", settings, "-an")
}

const (
	espType  = "c12a7328"
	biosType = "21686148"
	lvmType  = "e6d6d379"
	dataType = "0fc63daf"
)

func on(disks ...string) string {
	var list []string
	for _, d := range disks {
		list = append(list, fmt.Sprintf(`{"name":"/dev/%s"}`, d))
	}
	return `"physical_disks":[` + strings.Join(list, ",") + `]`
}

func TestGuestCreateAndDelete(t *testing.T) {
	for _, test := range []struct {
		name, mode, layout string
		pvs, volumes, held string
		table              map[string]string
	}{
		{"root on one disk", "uefi",
			`[{"name":"system",` + on("vda") + `,"volumes":[{"name":"data","size_gb":"MAX","file_system":"xfs","label":"data"},` +
				`{"name":"root","size_gb":1,"is_root_volume":true},{"name":"swap-1","size_percent":10,"file_system":"swap","label":"swap"}]}]`,
			"system /dev/vda3", "system/data linear 2108\nsystem/root linear 1024\nsystem/swap-1 linear 344", "system-data xfs data, system-root, system-swap--1 swap swap",
			map[string]string{"/dev/vda": "gpt 2048 1126400 " + espType + ", 1128448 131072 " + dataType + ", 1259520 7127040 " + lvmType}},
		{"three disks, striped, mirrored, over two", "uefi",
			`[{"name":"data",` + on("vda", "vdb", "sda") + `,"volumes":[{"name":"fast","size_gb":3,"type":"striped","file_system":"ext4","label":"fast"},` +
				`{"name":"safe","size_gb":1,"type":"raid1","file_system":"ext4"},{"name":"two","size_gb":1,"type":"striped","number_of_physical_disks":2},{"name":"all","size_gb":"MAX","file_system":"ext4"}]}]`,
			"data /dev/sda1\ndata /dev/vda1\ndata /dev/vdb1", "data/all linear 6124\ndata/fast striped 3072\ndata/safe raid,raid1 1024\ndata/two striped 1024", "data-all ext4, data-fast ext4 fast, data-safe ext4, data-two",
			map[string]string{"/dev/sda": "gpt 2048 8384512 " + lvmType}},
		{"sectors of 4096 bytes, BIOS, two groups", "bios",
			`[{"name":"a",` + on("nvme0n1", "nvme1n1") + `,"volumes":[{"name":"root","size_gb":2,"type":"raid1","file_system":"xfs","is_root_volume":true}]},` +
				`{"name":"b",` + on("vdc") + `,"volumes":[{"name":"x","size_percent":100}]}]`,
			"a /dev/nvme0n1p3\na /dev/nvme1n1p3\nb /dev/vdc1", "a/root raid,raid1 2048\nb/x linear 4092", "a-root xfs, b-x",
			map[string]string{"/dev/nvme0n1": "gpt 256 256 " + biosType + ", 512 16384 " + dataType + ", 16896 1031424 " + lvmType, "/dev/nvme1n1": "gpt 256 256 " + biosType + ", 512 16384 " + dataType + ", 16896 1031424 " + lvmType}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.Mode(test.mode)
			b.mustCreate(test.layout)
			b.want(test.volumes)
			if got := b.pvs(); got != test.pvs {
				t.Errorf("pvs:\n%s\nwant:\n%s", got, test.pvs)
			}
			for disk, want := range test.table {
				if got := b.table(disk); got != want {
					t.Errorf("partitions of %s: %s, want %s", disk, got, want)
				}
			}
			if out := b.Run("dmsetup", "ls"); !strings.Contains(out, "No devices") {
				t.Errorf("dmsetup ls: %s", out)
			}
			if got := b.activate(); got != test.held {
				t.Errorf("volumes hold %s, want %s", got, test.held)
			}
			b.deactivate()
			// The same again changes nothing, another layout is refused.
			uuids := b.Run("lvm", "vgs", "--noheadings", "-o", "vg_uuid,seqno")
			b.mustCreate(test.layout)
			if got := b.Run("lvm", "vgs", "--noheadings", "-o", "vg_uuid,seqno"); got != uuids {
				t.Errorf("groups are %s, were %s", got, uuids)
			}
			for _, wrong := range []string{
				strings.Replace(test.layout, `"size_gb":1`, `"size_gb":2`, 1),
				strings.NewReplacer(`"name":"system"`, `"name":"s2"`, `"name":"data"`, `"name":"d2"`, `"name":"a"`, `"name":"a2"`, `"name":"b"`, `"name":"b2"`).Replace(test.layout),
			} {
				if wrong == test.layout {
					continue
				}
				if _, err := b.create(wrong); !errors.Is(err, steps.ErrVolumes) {
					t.Errorf("%s: %v", wrong, err)
				}
			}
			b.want(test.volumes)
			b.activate() // what is active is taken down
			b.mustDelete()
			b.wantEmpty()
		})
	}
}

// A group on an array lies behind what firmware needs on the array's members. Deleting the array deletes the group.
func TestGuestArray(t *testing.T) {
	b := newBench(t)
	b.Node.TargetRAIDConfig = json.RawMessage(`{"logical_disks": [{"size_gb": "MAX", "raid_level": "1", "controller": "software", "volume_name": "system", ` + on("vda", "vdb") + `}]}`)
	if _, err := raid.Create(t.Context(), b.Host, steps.Job{Node: b.Node}); err != nil {
		t.Fatal(err)
	}
	layout := `[{"name":"vg","volume_name":"system","volumes":[{"name":"root","size_gb":2,"is_root_volume":true,"file_system":"ext4"},{"name":"swap","size_gb":"MAX","file_system":"swap"}]}]`
	b.mustCreate(layout)
	const volumes = "vg/root linear 2048\nvg/swap linear 1424"
	b.want(volumes)
	if got := b.pvs(); got != "vg /dev/md0p2" {
		t.Errorf("pvs: %s", got)
	}
	if got := b.activate(); got != "vg-root ext4, vg-swap swap" {
		t.Errorf("volumes hold %s", got)
	}
	b.mustCreate(layout)
	if _, err := b.create(strings.Replace(layout, `"volume_name":"system"`, `"volume_name":"none"`, 1)); err == nil || !strings.Contains(err.Error(), `no array "none" runs; there are: /dev/md0 "system"`) {
		t.Errorf("on an array that is not there: %v", err)
	}
	if _, err := b.create(`[{"name":"other",` + on("vda") + `,"volumes":[{"name":"x","size_gb":1}]}]`); err == nil || !strings.Contains(err.Error(), "/dev/vda has partitions") {
		t.Errorf("on a member: %v", err)
	}
	b.Node.Properties["skip_block_devices"] = json.RawMessage(`[{"volume_name":"system"}]`)
	b.mustDelete() // nothing
	b.want(volumes)
	delete(b.Node.Properties, "skip_block_devices")
	b.mustDelete()
	b.wantEmpty()

	b.mustCreate(layout)
	b.activate()
	if _, err := raid.Delete(t.Context(), b.Host, steps.Job{Node: b.Node}); err != nil {
		t.Fatal(err)
	}
	b.wantEmpty()
	b.clearLinks("vg") // which others would stumble over
}

// clearLinks removes what is left in /dev of a group without udev.
func (b *bench) clearLinks(group string) {
	b.T.Helper()
	if err := forget(b.Host.Machine.FS, group); err != nil {
		b.T.Error(err)
	}
	if left, err := filepath.Glob("/dev/mapper/" + group + "-*"); err != nil || len(left) > 0 {
		b.T.Errorf("left in /dev/mapper: %v, %v", left, err)
	}
}

// What a creation makes by an argument alone is known by its tags: as the node's, and as where its system goes.
func TestGuestRoot(t *testing.T) {
	b := newBench(t)
	other := b.Node
	other.UUID = "n2"
	layout := `[{"name":"sys-1",` + on("vda", "vdb") + `,"volumes":[{"name":"root-1","size_gb":1,"is_root_volume":true,"type":"raid1"},{"name":"x","size_gb":1}]}]`
	for range 2 {
		b.mustCreate(layout)
		if got := strings.Fields(b.Run("lvm", "lvs", "--noheadings", "-o", "vg_tags,lv_name,lv_tags")); strings.Join(got, " ") != "ironhand-node-n1 root-1 ironhand-root ironhand-node-n1 x" {
			t.Errorf("tags: %s", got)
		}
		// A group that is there, and of which nobody says whose it is, becomes the node's.
		b.Run("lvm", "vgchange", "--deltag", "ironhand-node-n1", "sys-1")
		b.Run("lvm", "lvchange", "--deltag", "ironhand-root", "sys-1/root-1")
	}
	b.mustCreate(layout)
	r, err := FindRoot(t.Context(), b.Host, b.Node)
	if err != nil || r.String() != "sys-1/root-1" || r.Device() != "/dev/mapper/sys--1-root--1" || fmt.Sprint(r.Names()) != "[/dev/vda /dev/vdb]" {
		t.Fatalf("FindRoot() = %v, %v", r, err)
	}
	if r, err := FindRoot(t.Context(), b.Host, other); r != nil || err != nil {
		t.Errorf("FindRoot() for another node = %v, %v", r, err)
	}
	if err := r.CheckBoot(true, true); err != nil {
		t.Error(err)
	}
	if err := r.CheckBoot(false, false); err == nil || !strings.Contains(err.Error(), "/dev/vda has no BIOS boot partition") {
		t.Errorf("CheckBoot() for BIOS = %v", err)
	}
	for _, d := range []string{"/dev/vda", "/dev/vdb"} {
		if err := Release(t.Context(), b.Host, b.Node, d); !errors.Is(err, steps.ErrVolumes) || !strings.Contains(err.Error(), `volume group "sys-1" is on `+d) {
			t.Errorf("Release(%s) = %v", d, err)
		}
	}
	if err := errors.Join(Release(t.Context(), b.Host, b.Node, "/dev/vdc"), Release(t.Context(), b.Host, other, "/dev/vda")); err != nil {
		t.Error(err)
	}

	// It is disarmed, and the disk says so, without losing its table; the end of it all is the end of the mark.
	table := b.table("/dev/vda")
	unfinished := func() bool {
		f, err := os.Open("/dev/vda")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // only read
		half, err := stream.Unfinished(f)
		if err != nil {
			t.Fatal(err)
		}
		return half
	}
	b.Run("mke2fs", "-q", "-F", "/dev/vda1")
	b.Run("mke2fs", "-q", "-F", "/dev/vdb1")
	b.Run("lvm", "lvchange", "--config", settings, "-ay", "sys-1/root-1") // as after an agent that was killed
	if err := r.Disarm(t.Context(), b.Host, steps.Node{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/dev/vda1", "/dev/vdb1", "/dev/vda2"} {
		if out := b.Run("wipefs", "--no-act", p); strings.TrimSpace(out) != "" {
			t.Errorf("wipefs %s: %s", p, out)
		}
	}
	if got := b.table("/dev/vda"); !unfinished() || got != table {
		t.Errorf("marked: %v; table %s, was %s", unfinished(), got, table)
	}
	device := ""
	if err := r.Use(t.Context(), b.Host, func(d string) error { device = d; return nil }); err != nil || !strings.HasPrefix(device, "/dev/dm-") {
		t.Errorf("Use() = %v, of %q", err, device)
	}
	if out := b.Run("dmsetup", "ls"); !strings.Contains(out, "No devices") {
		t.Errorf("dmsetup ls: %s", out)
	}
	drive, err := image.MakeConfigDrive(map[string][]byte{"openstack/latest/meta_data.json": []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	esp, err := r.Finish(t.Context(), b.Host, drive, true, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": []byte("x")})
	if err != nil || unfinished() || b.table("/dev/vda") != table {
		t.Errorf("Finish() = %v; marked: %v; table %s", err, unfinished(), b.table("/dev/vda"))
	}
	for device, want := range map[string]string{"/dev/vda1": `UUID="` + esp + `"`, "/dev/vdb1": `LABEL="efi-part"`, "/dev/vda2": `LABEL="config-2"`} {
		if out := b.Run("blkid", "-p", device); !strings.Contains(out, want) {
			t.Errorf("blkid -p %s: %s, want %s", device, out, want)
		}
	}

	// A disk of the group is gone, or what the node's property wants.
	b.Node.Properties["logical_volumes"] = json.RawMessage(`[{"name": "none", "volumes": [{"name": "root", "is_root_volume": true}]}]`)
	if _, err := FindRoot(t.Context(), b.Host, b.Node); err == nil || !strings.Contains(err.Error(), "the node's root volume is none/root: there is none of this name") {
		t.Errorf("FindRoot() of a volume that is not there = %v", err)
	}
	b.Node.Properties["logical_volumes"] = json.RawMessage(`[{"name": "sys-1", "volumes": [{"name": "root-1", "is_root_volume": true}]}]`)
	b.Run("busybox", "dd", "if=/dev/zero", "of=/dev/vdb3", "bs=1M", "count=1")
	if _, err := FindRoot(t.Context(), b.Host, b.Node); err == nil || !strings.Contains(err.Error(), "lacks 1 of its physical volumes") {
		t.Errorf("FindRoot() with a disk missing = %v", err)
	}
	b.Run("sgdisk", "--zap-all", "/dev/vdb")
	b.reread("/dev/vdb")
	b.mustDelete()
}

// Disks that hold something are refused with the reason, and are as they were.
func TestGuestRefusals(t *testing.T) {
	b := newBench(t)
	for _, test := range []struct {
		name  string
		make  func()
		want  string
		clean func()
	}{
		{"a file system", func() { b.Run("mke2fs", "-q", "-F", "/dev/vda") }, "/dev/vda holds a file system (ext4)", nil},
		{"xfs", func() { b.Run("mkfs.xfs", "-q", "/dev/vda") }, "/dev/vda holds a file system (xfs)", nil},
		{"swap", func() { b.Run("busybox", "mkswap", "/dev/vda") }, "/dev/vda holds a swap area", nil},
		{"partitions", func() {
			b.Run("sgdisk", "-n", "1:0:+100M", "/dev/vda")
			b.reread("/dev/vda")
		}, "/dev/vda has partitions", nil},
		{"a physical volume", func() { b.Run("lvm", "pvcreate", "-y", "/dev/vda") }, "/dev/vda is a physical volume of LVM", nil},
		{"a group of the name", func() { b.Run("lvm", "vgcreate", "-y", "vg", "/dev/vdc") }, `volume group "vg": it is there already, on /dev/vdc`, nil},
		{"an array that runs", func() {
			b.Run("mdadm", "--create", "/dev/md9", "--run", "--metadata=1.0", "--level=1", "--raid-devices=2", "/dev/vda", "/dev/vdc")
		}, "/dev/vda holds a member of an array", func() { b.Run("mdadm", "--stop", "/dev/md9") }},
		{"in use", func() {
			b.Run("busybox", "mkswap", "/dev/vdb")
			b.Run("busybox", "swapon", "/dev/vdb")
		}, "/dev/vdb holds a swap area", func() { b.Run("busybox", "swapoff", "/dev/vdb") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.make()
			sum := b.sum("vda", "vdb", "vdc")
			if _, err := b.create(`[{"name":"vg",` + on("vdb", "vda") + `,"volumes":[{"name":"x","size_gb":1}]}]`); err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, steps.ErrVolumes) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if got := b.sum("vda", "vdb", "vdc"); got != sum {
				t.Error("the disks are not as they were")
			}
			if test.clean != nil {
				test.clean()
			}
			for _, d := range []string{"/dev/vda", "/dev/vdb", "/dev/vdc"} {
				b.Run("wipefs", "-af", d)
				b.reread(d)
			}
		})
	}
}

// Somebody who is asked says no: then nothing is touched.
func TestGuestRefused(t *testing.T) {
	b := newBench(t)
	layout := `[{"name":"vg",` + on("vda") + `,"volumes":[{"name":"x","size_gb":1}]}]`
	no := errors.New("no")
	shown := ""
	b.Host.Confirm = func(_ context.Context, plan string) error { shown = plan; return no }
	sum := b.sum("vda")
	if _, err := b.create(layout); !errors.Is(err, no) || !strings.Contains(shown, "make volume group vg of /dev/vda1") || b.sum("vda") != sum {
		t.Errorf("create_volumes: %v, shown %q", err, shown)
	}
	b.Host.Confirm = nil
	b.mustCreate(layout)
	b.Host.Confirm = func(_ context.Context, plan string) error { shown = plan; return no }
	sum = b.sum("vda")
	if err := b.remove(); !errors.Is(err, no) || !strings.Contains(shown, "delete volume group vg of /dev/vda1") || b.sum("vda") != sum {
		t.Errorf("delete_volumes: %v, shown %q", err, shown)
	}
	b.Host.Confirm = nil
	b.mustDelete()
	b.wantEmpty()
}

// reread has the kernel read a disk's partition table.
func (b *bench) reread(disk string) {
	b.T.Helper()
	d, err := stream.OpenDevice(disk)
	if err != nil {
		b.T.Fatal(err)
	}
	if err := errors.Join(d.RereadPartitions(b.T.Context()), d.Close()); err != nil {
		b.T.Fatal(err)
	}
}

// sum is the digest of the first 8 MiB of disks.
func (b *bench) sum(disks ...string) string {
	b.T.Helper()
	sum := sha256.New()
	for _, d := range disks {
		f, err := os.Open("/dev/" + d)
		if err != nil {
			b.T.Fatal(err)
		}
		_, err = io.CopyN(sum, f, 8*mib)
		if err := errors.Join(err, f.Close()); err != nil {
			b.T.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// What uses volumes is taken down with them, unless somebody has it open; then nothing is touched. So do the steps that erase.
func TestGuestInUse(t *testing.T) {
	b := newBench(t)
	layout := `[{"name":"vg",` + on("vda", "vdb") + `,"volumes":[{"name":"home","size_gb":1,"type":"raid1","file_system":"ext4"},{"name":"swap","size_gb":1,"file_system":"swap"}]}]`
	const volumes = "vg/home raid,raid1 1024\nvg/swap linear 1024"
	dir := t.TempDir()
	use := func() {
		b.mustCreate(layout)
		b.activate()
		b.Run("busybox", "mount", "-t", "ext4", "/dev/mapper/vg-home", dir)
		b.Run("busybox", "swapon", "/dev/mapper/vg-swap")
	}
	use()
	f, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	user := exec.Command("busybox", "sleep", "1000")
	user.Stdin = f
	if err := errors.Join(user.Start(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := b.remove(); err == nil || !strings.Contains(err.Error(), "open in busybox") {
		t.Errorf("a deletion beneath an open file: %v", err)
	}
	b.want(volumes)
	if swaps, err := os.ReadFile("/proc/swaps"); err != nil || !strings.Contains(string(swaps), "vg-swap") {
		t.Errorf("swaps: %s, %v", swaps, err)
	}
	if err := user.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = user.Wait() // by a signal
	b.mustDelete("vg")
	b.wantEmpty()

	use()
	if _, err := erase.Local().Metadata(t.Context(), b.Host, steps.Job{Node: b.Node}); err != nil {
		t.Error(err)
	}
	b.wantEmpty()
	use() // also where erasing left links in /dev
	b.mustDelete()
	b.wantEmpty()
}

// What others made is deleted too, in whatever state it is; a disk that has other things is refused.
func TestGuestForeign(t *testing.T) {
	b := newBench(t)
	b.Run("lvm", "vgcreate", "-y", "broken", "/dev/vda", "/dev/vdb", "/dev/nvme0n1", "--config", "devices/allow_mixed_block_sizes=1")
	b.Run("lvm", "lvcreate", "-y", "-n", "x", "-L", "6G", "broken", "--config", settings)
	b.Run("lvm", "vgchange", "-an", "broken", "--config", settings)
	b.Run("busybox", "dd", "if=/dev/zero", "of=/dev/nvme0n1", "bs=1M", "count=2")
	b.Run("lvm", "pvcreate", "-y", "/dev/vdc")
	b.Run("sgdisk", "-n", "1:0:+100M", "-n", "2:0:0", "-t", "2:8e00", "/dev/sda")
	b.reread("/dev/sda")
	b.Run("lvm", "vgcreate", "-y", "debian", "/dev/sda2")
	if err := b.remove(); err == nil || !strings.Contains(err.Error(), "/dev/sda also has /dev/sda1, and it can only be cleared as a whole") {
		t.Errorf("a disk with another partition: %v", err)
	}
	if got := b.pvs(); !strings.Contains(got, "debian /dev/sda2") || !strings.Contains(got, "broken /dev/vda") {
		t.Errorf("pvs: %s", got)
	}
	b.mustDelete("broken")
	if got := b.pvs(); got != "/dev/vdc\ndebian /dev/sda2" {
		t.Errorf("pvs: %s", got)
	}
	b.mustDelete("not-there")
	b.Run("sgdisk", "-d", "1", "/dev/sda")
	b.reread("/dev/sda")
	b.Node.Properties["skip_block_devices"] = json.RawMessage(`[{"name":"/dev/sda"}]`)
	if err := b.remove("debian"); err == nil || !strings.Contains(err.Error(), `volume group "debian" is on the skip list`) {
		t.Errorf("a group on the skip list: %v", err)
	}
	b.mustDelete()
	if got := b.pvs(); got != "debian /dev/sda2" {
		t.Errorf("pvs: %s", got)
	}
	delete(b.Node.Properties, "skip_block_devices")
	b.mustDelete()
	b.wantEmpty()

	// Two groups of one name, and a physical volume that is there twice.
	b.Run("lvm", "vgcreate", "-y", "twin", "/dev/vda")
	b.Run("busybox", "dd", "if=/dev/vda", "of=/dev/vdb", "bs=1M", "count=4")
	b.Run("lvm", "vgcreate", "-y", "twin", "/dev/vdc", "--devices", "/dev/vdc")
	b.mustDelete()
	b.wantEmpty()
}

// restart is what a reset does.
func (b *bench) restart() {
	b.T.Helper()
	b.KillAfter(-1)
	b.Restart("/dev/vda", "/dev/vdb")
}

// killedLayout is made where the machine is killed.
var killedLayout = `[{"name":"vg",` + on("vda", "vdb") + `,"volumes":[{"name":"root","size_gb":1,"type":"raid1","file_system":"ext4","is_root_volume":true},{"name":"swap","size_gb":1,"file_system":"swap"}]}]`

// wantKilledLayout wants all of it to be there, and no marks.
func (b *bench) wantKilledLayout() {
	b.T.Helper()
	b.want("vg/root raid,raid1 1024\nvg/swap linear 1024")
	if got := b.activate(); got != "vg-root ext4, vg-swap swap" {
		b.T.Errorf("volumes hold %s", got)
	}
	b.deactivate()
	for _, d := range []string{"/dev/vda", "/dev/vdb"} {
		if head, _, _, err := probe(b.Host.Machine.FS, d, 4*gib); err != nil || raid.ReadMark(head).Run != "" {
			b.T.Errorf("a mark is left on %s, %v", d, err)
		}
	}
}

// The machine is killed at each operation of a creation and of a deletion; the step is run again and ends right.
func TestGuestKilled(t *testing.T) {
	b := newBench(t)
	for n, killed := 0, true; killed; n += *every {
		b.Said = nil
		b.KillAfter(n)
		_, err := b.create(killedLayout)
		if killed = errors.Is(err, guesttest.ErrKilled); err != nil && !killed {
			t.Fatalf("killed after %d operations: %v", n, err)
		}
		b.restart()
		b.mustCreate(killedLayout)
		b.wantKilledLayout()
		b.KillAfter(n)
		if err := b.remove("vg"); err != nil && !errors.Is(err, guesttest.ErrKilled) {
			t.Fatalf("deletion killed after %d operations: %v", n, err)
		}
		b.restart()
		b.mustDelete("vg")
		b.wantEmpty()
		if t.Failed() {
			t.Fatalf("killed after %d operations", n)
		}
		t.Logf("killed after %d operations: %v", n, killed)
	}
}

// Killed while the marks are changed: at first everything is made anew, from the first change on nothing is.
func TestGuestMarks(t *testing.T) {
	b := newBench(t)
	b.mustCreate(killedLayout)
	uuid := func() string { return b.Run("lvm", "vgs", "--noheadings", "-o", "vg_uuid") }
	was := uuid()
	state, err := look(t.Context(), b.Host)
	if err != nil {
		t.Fatal(err)
	}
	marks := func(a, second bool, onB bool) {
		for disk, m := range map[string]raid.Mark{
			"/dev/vda": {Run: "r", Made: a, Partitions: state.disk("/dev/vda").parts},
			"/dev/vdb": {Run: "r", Made: second, Partitions: state.disk("/dev/vdb").parts},
		} {
			if disk == "/dev/vdb" && !onB {
				m = raid.Mark{}
			}
			if err := raid.ChangeMark(disk, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, m := range []struct{ b, onB bool }{{true, true}, {false, true}, {false, false}} {
		marks(true, m.b, m.onB)
		b.restart()
		b.mustCreate(killedLayout)
		b.wantKilledLayout()
	}
	if got := uuid(); got != was {
		t.Errorf("the group was made anew: it was %s, is %s", was, got)
	}
	marks(false, false, true)
	b.restart()
	b.mustCreate(killedLayout)
	b.wantKilledLayout()
	if uuid() == was {
		t.Error("a group that was not finished is left as it is")
	}
	b.mustDelete()
	b.wantEmpty()
}
