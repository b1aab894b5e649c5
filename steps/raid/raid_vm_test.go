// SPDX-License-Identifier: Apache-2.0

//go:build linux

package raid

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/guesttest"
)

var (
	guest = flag.Bool("guest", false, "run the tests for a virtual machine with disks")
	every = flag.Int("every", 1, "of the operations at which a machine is killed, take each n-th")
)

// Arrays are made and deleted on disks of all kinds, by a real kernel; mdadm, blkid and sfdisk say what came out.
func TestVMRaid(t *testing.T) {
	vmtest.Require(t)
	disk := func(bus string, sector int) vmtest.Disk {
		return vmtest.Disk{Bus: bus, Size: 4 << 30, SectorSize: sector}
	}
	every := "4"
	if os.Getenv("LONG") != "" {
		every = "1"
	}
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Machine: vmtest.Machine{MemoryMiB: 768, Disks: []vmtest.Disk{
			{Size: 4 << 30, Serial: "A"}, {Size: 4 << 30, Serial: "B"}, disk("virtio", 0), disk("nvme", 4096), disk("nvme", 4096), disk("scsi", 0), disk("sata", 0),
		}},
		Files: vmtest.Programs(t, "sfdisk", "blkid", "sgdisk", "mke2fs", "cmp"),
		Args:  "-guest -test.run=TestGuest -every=" + every, Timeout: 30 * time.Minute,
	})
}

// bench is the machine that the test runs in.
type bench struct{ *guesttest.Bench }

func newBench(t *testing.T) *bench {
	if !*guest {
		t.Skip("runs in the machine of TestVMRaid")
	}
	b := &bench{guesttest.New(t, "raid1")}
	b.Host.Tools = halfMaking{b.Host.Tools, b}
	t.Cleanup(func() {
		if t.Failed() {
			mdstat, err := os.ReadFile("/proc/mdstat")
			t.Logf("/proc/mdstat: %v\n%s", err, mdstat)
		}
	})
	return b
}

// halfMaking runs mdadm. The last array before the machine's end is half made: one member has no superblock.
type halfMaking struct {
	tool.Runner
	b *bench
}

func (h halfMaking) Run(ctx context.Context, t tool.Tool, args ...string) ([]byte, error) {
	out, err := h.Runner.Run(ctx, t, args...)
	if err == nil && args[0] == "--create" {
		if dead := h.b.Live(); dead != nil {
			h.b.Run("mdadm", "--stop", args[1])
			h.b.Run("mdadm", "--zero-superblock", args[len(args)-1])
			return nil, dead
		}
	}
	return out, err
}

func (b *bench) create(config string) (any, error) {
	b.Node.TargetRAIDConfig = json.RawMessage(config)
	return Create(b.T.Context(), b.Host, steps.Job{Node: b.Node})
}

func (b *bench) mustCreate(config string) {
	b.T.Helper()
	result, err := b.create(config)
	if err != nil {
		b.T.Fatal(err)
	}
	if got, err := json.Marshal(result); err != nil || string(got) != config {
		b.T.Errorf("result = %s, %v, want the configuration", got, err)
	}
}

func (b *bench) mustDelete() {
	b.T.Helper()
	if _, err := Delete(b.T.Context(), b.Host, steps.Job{Node: b.Node}); err != nil {
		b.T.Fatal(err)
	}
}

// detail is what mdadm says of all arrays that run: NAME LEVEL METADATA MEMBERS, sorted.
func (b *bench) detail() string {
	b.T.Helper()
	var lines []string
	devices, err := filepath.Glob("/sys/block/md*")
	if err != nil {
		b.T.Fatal(err)
	}
	for _, d := range devices {
		out, err := exec.Command("mdadm", "--detail", "--export", "/dev/"+filepath.Base(d)).Output()
		if err != nil {
			continue // it does not run
		}
		field := map[string]string{}
		var members []string
		for _, line := range strings.Split(string(out), "\n") {
			k, v, _ := strings.Cut(line, "=")
			field[k] = v
			if strings.HasSuffix(k, "_DEV") {
				members = append(members, strings.TrimPrefix(v, "/dev/"))
			}
		}
		slices.Sort(members)
		lines = append(lines, fmt.Sprintf("%s %s %s %s", field["MD_NAME"], field["MD_LEVEL"], field["MD_METADATA"], strings.Join(members, " ")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (b *bench) wantDetail(want string) {
	b.T.Helper()
	if got := b.detail(); got != want {
		b.T.Errorf("arrays:\n%s\nwant:\n%s", got, want)
	}
}

// wantEmpty wants no disk to have anything on it, by the word of blkid and mdadm.
func (b *bench) wantEmpty() {
	b.T.Helper()
	b.wantDetail("")
	disks, err := b.Host.Machine.Disks(b.T.Context())
	if err != nil || len(disks) != 7 {
		b.T.Fatalf("disks: %v, %v", disks, err)
	}
	for _, d := range disks {
		if out, err := exec.Command("blkid", "-p", d.Name).CombinedOutput(); err == nil || len(out) > 0 {
			b.T.Errorf("blkid -p %s: %s, %v", d.Name, out, err)
		}
		if out, err := exec.Command("mdadm", "--examine", d.Name).CombinedOutput(); err == nil {
			b.T.Errorf("mdadm --examine %s: %s", d.Name, out)
		}
		if parts, err := partitions(b.Host.Machine.FS, sysName(d.Name)); err != nil || len(parts) > 0 {
			b.T.Errorf("%s has the partitions %v, %v", d.Name, parts, err)
		}
	}
}

func TestGuestCreateAndDelete(t *testing.T) {
	const raidType = "A19D880F-05FC-4D3B-A006-743F0F84911E"
	for _, test := range []struct {
		name, mode, config string
		disks              string // of the first array, two of them
		detail             string
		table              string // of the first disk: kind, then start, sectors and type of each partition
	}{
		{"mirror and stripe", "uefi", software("0 MAX data vda vdb", "1 1 system vda vdb"), "vda vdb",
			"any:data raid0 1.2 vda2 vdb2\nany:system raid1 1.2 vda1 vdb1",
			"gpt 1128448 968704 " + raidType + ", 2097152 6289408 " + raidType},
		{"sectors of 4096 bytes, MBR", "bios", software("1 2 - nvme0n1 nvme1n1"), "nvme0n1 nvme1n1", "any:md0 raid1 1.2 nvme0n1p1 nvme1n1p1", "dos 256 524032 fd"},
		{"sectors of 4096 bytes, GPT", "uefi", software("1 MAX - nvme0n1 nvme1n1"), "nvme0n1 nvme1n1", "any:md0 raid1 1.2 nvme0n1p1 nvme1n1p1", "gpt 141056 907264 " + raidType},
		{"levels of many disks", "uefi", software("5 1 five vda vdb vdc", "6 1 six vda vdb vdc sda", "1+0 1 ten vda vdb vdc sda"), "vda vdb",
			"any:five raid5 1.2 vda1 vdb1 vdc1\nany:six raid6 1.2 sda1 vda2 vdb2 vdc2\nany:ten raid10 1.2 sda2 vda3 vdb3 vdc3",
			"gpt 1128448 968704 " + raidType + ", 2097152 2097152 " + raidType + ", 4194304 2097152 " + raidType},
		{"all disks, sectors of both sizes", "bios", software("1 1 system"), "vda nvme0n1", "any:system raid1 1.2 nvme0n1p1 nvme1n1p1 sda1 sdb1 vda1 vdb1 vdc1", "dos 2048 2095104 fd"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.Mode(test.mode)
			disks := strings.Fields(test.disks)
			// What was there before, in a place where it could come back: an array on the disks that has a file system.
			b.Run("mdadm", "--create", "/dev/md9", "--run", "--metadata=1.0", "--level=1", "--raid-devices=2", "/dev/"+disks[0], "/dev/"+disks[1])
			b.fill("/dev/md9")
			b.Run("mdadm", "--stop", "/dev/md9")
			if _, err := b.create(test.config); err == nil || !strings.Contains(err.Error(), "/dev/"+disks[0]+" as a whole is a member of an array that does not run") {
				t.Fatalf("a creation on disks that an array has: %v", err)
			}
			b.mustDelete()
			b.mustCreate(test.config)
			b.wantDetail(test.detail)
			if got := b.Table("/dev/" + disks[0]); got != test.table {
				t.Errorf("partitions of %s: %s, want %s", disks[0], got, test.table)
			}
			arrays, err := filepath.Glob("/sys/block/md[0-9]")
			if err != nil || len(arrays) == 0 {
				t.Fatal(err)
			}
			for _, a := range arrays {
				if out, _ := exec.Command("blkid", "-p", "/dev/"+filepath.Base(a)).CombinedOutput(); len(out) > 0 {
					t.Errorf("blkid -p %s: %s", a, out)
				}
			}
			// The same again changes nothing, another one is refused.
			b.mustCreate(test.config)
			b.wantDetail(test.detail)
			if _, err := b.create(software("1 1 other " + test.disks)); err == nil || !strings.Contains(err.Error(), "partitions detected on devices") || !errors.Is(err, steps.ErrRAID) {
				t.Errorf("another configuration on the same disks: %v", err)
			}
			b.wantDetail(test.detail)
			// They are found again after a restart.
			b.Run("mdadm", "--stop", "--scan")
			if err := Assemble(t.Context(), b.Host); err != nil {
				t.Error(err)
			}
			b.wantDetail(test.detail)
			b.mustDelete()
			b.wantEmpty()
		})
	}
}

// fill writes signatures to a device.
func (b *bench) fill(device string) {
	b.T.Helper()
	d, err := b.Host.Open(device)
	if err != nil {
		b.T.Fatal(err)
	}
	defer d.Close()
	swap := make([]byte, 4096)
	copy(swap[4086:], "SWAPSPACE2")
	swap[1024] = 1
	binary.LittleEndian.PutUint32(swap[1028:], 1000)
	for at := int64(0); at < 160*mib; at += 1 * mib / 2 { // wherever the data of the new array may begin
		if _, err := d.WriteAt(swap, at); err != nil {
			b.T.Fatal(err)
		}
	}
}

// restart is what a reset does: arrays stop, the kernel reads the partition tables, and the agent starts the arrays.
func (b *bench) restart() {
	b.T.Helper()
	b.Run("mdadm", "--stop", "--scan")
	b.KillAfter(-1)
	disks, err := b.Host.Machine.Disks(b.T.Context())
	if err != nil {
		b.T.Fatal(err)
	}
	for _, d := range disks {
		b.Reread(d.Name)
	}
	if err := Assemble(b.T.Context(), b.Host); err != nil {
		b.Said = append(b.Said, err.Error()) // a half-made array may not start
	}
}

// The machine is killed at each point of a creation and of a deletion; the step is run again and ends right.
func TestGuestKilled(t *testing.T) {
	b := newBench(t)
	config := software("1 1 system vda vdb", "0 MAX data vda vdb")
	const detail = "any:data raid0 1.2 vda2 vdb2\nany:system raid1 1.2 vda1 vdb1"
	for n, killed := 0, true; killed; n += *every {
		b.Said = nil
		b.KillAfter(n)
		_, err := b.create(config)
		if killed = errors.Is(err, guesttest.ErrKilled); err != nil && !killed {
			t.Fatalf("killed after %d operations: %v", n, err)
		}
		b.restart()
		b.mustCreate(config)
		b.wantDetail(detail)
		for _, d := range []string{"/dev/vda", "/dev/vdb"} {
			if head, _, err := probe(b.Host.Machine.FS, d, 4*gib, mib); err != nil || readMark(head).Run != "" {
				t.Errorf("killed after %d operations: a mark is left on %s, %v", n, d, err)
			}
		}
		b.KillAfter(n)
		if _, err := Delete(t.Context(), b.Host, steps.Job{Node: b.Node}); err != nil && !errors.Is(err, guesttest.ErrKilled) {
			t.Fatalf("deletion killed after %d operations: %v", n, err)
		}
		b.restart()
		b.mustDelete()
		b.wantEmpty()
		if t.Failed() {
			t.Fatalf("killed after %d operations", n)
		}
		t.Logf("killed after %d operations: %v", n, killed)
	}

	// Killed while the marks are changed: at first everything is made anew, from the first change on nothing is.
	b.Said = nil
	b.mustCreate(config)
	uuid := b.uuid("system")
	state, err := look(t.Context(), b.Host)
	if err != nil {
		t.Fatal(err)
	}
	marks := func(a, b bool, onB bool) {
		for disk, m := range map[string]mark{
			"/dev/vda": {Run: "r", Serial: "A", Made: a, Partitions: state.disk("/dev/vda").parts},
			"/dev/vdb": {Run: "r", Serial: "B", Made: b, Partitions: state.disk("/dev/vdb").parts},
		} {
			if disk == "/dev/vdb" && !onB {
				m = mark{}
			}
			if err := changeMark(disk, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, m := range []struct{ b, onB bool }{{true, true}, {false, true}, {false, false}} {
		marks(true, m.b, m.onB)
		b.restart()
		b.mustCreate(config)
		b.wantDetail(detail)
	}
	if got := b.uuid("system"); got != uuid {
		t.Errorf("the array was made anew: it was %s, is %s", uuid, got)
	}
	marks(false, false, true)
	b.restart()
	b.mustCreate(config)
	if b.uuid("system") == uuid {
		t.Error("an array that was not finished is left as it is")
	}
	b.mustDelete()
	b.wantEmpty()
}

// uuid is that of an array, by the word of mdadm.
func (b *bench) uuid(name string) string {
	b.T.Helper()
	for line := range strings.Lines(b.Run("mdadm", "--examine", "--scan")) {
		if strings.Contains(line, "name=any:"+name) {
			_, uuid, _ := strings.Cut(line, "UUID=")
			return strings.Fields(uuid)[0]
		}
	}
	b.T.Fatalf("there is no array %s", name)
	return ""
}

// What uses arrays is taken down with them, unless somebody has it open; then nothing is touched.
func TestGuestInUse(t *testing.T) {
	b := newBench(t)
	b.mustCreate(software("1 1 system vda vdb", "0 MAX data vda vdb"))
	if err := boot.LoadModules(t.Context(), "ext4"); err != nil {
		t.Fatal(err)
	}
	b.Run("busybox", "mkswap", "/dev/md0")
	b.Run("busybox", "swapon", "/dev/md0")
	b.Run("mke2fs", "-q", "/dev/md1")
	dir := t.TempDir()
	b.Run("busybox", "mount", "-t", "ext4", "/dev/md1", dir)
	f, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	user := exec.Command("busybox", "sleep", "1000")
	user.Stdin = f
	if err := errors.Join(user.Start(), f.Close()); err != nil {
		t.Fatal(err)
	}
	before := b.detail()
	if _, err := Delete(t.Context(), b.Host, steps.Job{Node: b.Node}); err == nil || !strings.Contains(err.Error(), "in use: /dev/md1: open in busybox") {
		t.Errorf("a deletion beneath an open file: %v", err)
	}
	b.wantDetail(before)
	if swaps, err := os.ReadFile("/proc/swaps"); err != nil || !strings.Contains(string(swaps), "/dev/md0") {
		t.Errorf("swaps: %s, %v", swaps, err)
	}
	if err := user.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = user.Wait() // by a signal
	b.mustDelete()
	b.wantEmpty()

	// A disk that is in use is no member, and the others are not touched.
	b.Run("busybox", "mkswap", "/dev/vdc")
	b.Run("busybox", "swapon", "/dev/vdc")
	if _, err := b.create(software("1 1 system vda vdc")); err == nil || !strings.Contains(err.Error(), "/dev/vdc as a whole holds a swap area") {
		t.Errorf("a creation on a disk that is swapped to: %v", err)
	}
	b.Run("busybox", "swapoff", "/dev/vdc")
	b.Run("busybox", "dd", "if=/dev/zero", "of=/dev/vdc", "bs=4096", "count=1")
	held, err := os.OpenFile("/dev/vdc", os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.create(software("1 1 system vda vdc")); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "/dev/vdc") {
		t.Errorf("a creation on a disk in use: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	b.wantEmpty()
}

// Volumes on the skip list keep what they hold, their neighbours stay empty, others go; the same configuration then completes what is missing.
func TestGuestSkipList(t *testing.T) {
	b := newBench(t)
	config := software("1 1 system vda vdb", "1 1 data vda vdb", "1 1 third vdc sda")
	b.mustCreate(config)
	const detail = "any:data raid1 1.2 vda2 vdb2\nany:system raid1 1.2 vda1 vdb1\nany:third raid1 1.2 sda1 vdc1"
	b.wantDetail(detail)
	for _, name := range []string{"/dev/md0", "/dev/md1", "/dev/md2"} {
		b.Run("busybox", "mkswap", name)
	}
	b.Node.Properties["skip_block_devices"] = json.RawMessage(`[{"volume_name": "data"}]`)
	b.mustDelete()
	b.wantDetail("any:data raid1 1.2 vda2 vdb2\nany:system raid1 1.2 vda1 vdb1")
	if out, err := exec.Command("blkid", "-p", "/dev/md0").CombinedOutput(); len(out) > 0 {
		t.Errorf("the neighbour of a kept volume has %s, %v", out, err)
	}
	if out := b.Run("blkid", "-p", "/dev/md1"); !strings.Contains(out, "swap") {
		t.Errorf("the kept volume has %s", out)
	}
	b.mustCreate(config)
	b.wantDetail(detail)
	if out := b.Run("blkid", "-p", "/dev/md1"); !strings.Contains(out, "swap") {
		t.Errorf("the kept volume has %s", out)
	}
	delete(b.Node.Properties, "skip_block_devices")
	b.mustDelete()
	b.wantEmpty()
}

// An image goes onto a disk with an array of a former life, and onto none of an array that the node has, or that is in use.
func TestGuestRelease(t *testing.T) {
	b := newBench(t)
	config := software("1 1 system vda vdb", "0 1 - vdc sda")
	b.mustCreate(config)
	const system, both = "any:system raid1 1.2 vda1 vdb1", "any:md1 raid0 1.2 sda1 vdc1\nany:system raid1 1.2 vda1 vdb1"
	for _, test := range []struct {
		name, config, skip, disk string
		want                     string // error
	}{
		{"one of the node's", config, "", "/dev/vda", "/dev/md0 system is one of the node's volumes"},
		{"one of the node's without a name", config, "", "/dev/sda", "/dev/md1 md1 is one of the node's volumes"},
		{"on the skip list", "", `[{"volume_name": "system"}]`, "/dev/vdb", "/dev/md0 system is one of the node's volumes"},
		{"the node's root volume, and another disk", strings.Replace(config, `"volume_name":"system"`, `"volume_name":"system","is_root_volume":true`, 1), "", "/dev/nvme0n1", `the node's root volume is the array "system"`},
		{"not of RAID", config, "", "/dev/nvme0n1", ""},
	} {
		n := steps.Node{RAIDConfig: json.RawMessage(test.config), Properties: map[string]json.RawMessage{"skip_block_devices": json.RawMessage(test.skip)}}
		err := Release(t.Context(), b.Host, n, test.disk)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		b.wantDetail(both)
	}
	b.Run("busybox", "mkswap", "/dev/md0")
	b.Run("busybox", "swapon", "/dev/md0")
	if err := Release(t.Context(), b.Host, steps.Node{}, "/dev/vda"); err == nil || !strings.Contains(err.Error(), "stop swapping to /dev/md0") {
		t.Errorf("in use: %v", err)
	}
	b.wantDetail(both)
	b.Run("busybox", "swapoff", "/dev/md0")
	if err := Release(t.Context(), b.Host, steps.Node{}, "/dev/sda"); err != nil {
		t.Error(err)
	}
	b.wantDetail(system)
	if err := Release(t.Context(), b.Host, steps.Node{}, "/dev/vda"); err != nil {
		t.Error(err)
	}
	b.wantDetail("")
	d, err := b.Host.Open("/dev/vda")
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	b.mustDelete()
	b.wantEmpty()
}

// A configuration is applied in the place of another one, which stays if the new one cannot be.
func TestGuestApply(t *testing.T) {
	b := newBench(t)
	b.mustCreate(software("1 1 old vda vdb"))
	apply := func(config, more string) error {
		_, err := Apply(t.Context(), b.Host, steps.Job{Node: b.Node, Args: json.RawMessage(`{"raid_config": ` + config + more + `}`)})
		return err
	}
	validate := func(config string) error {
		ok, err := Validate(t.Context(), b.Host, steps.Job{Node: b.Node, Args: json.RawMessage(`{"raid_config": ` + config + `}`)})
		if err == nil && ok != true {
			t.Errorf("Validate() = %v", ok)
		}
		return err
	}
	for _, wrong := range []string{software("1 100 new vda vdb"), software("1 1 new vda vdx"), software("1 0 new vda vdb"), software("1 1 ../new vda vdb"), software("1 MAX a vda vdb", "0 MAX b vdb vdc")} {
		if err := apply(wrong, ""); !errors.Is(err, steps.ErrRAID) {
			t.Errorf("apply %s: %v", wrong, err)
		}
		if err := validate(wrong); !errors.Is(err, steps.ErrRAID) {
			t.Errorf("validate %s: %v", wrong, err)
		}
	}
	if err := apply(software("1 1 new vda vdb"), `, "delete_existing": false`); err == nil || !strings.Contains(err.Error(), "partitions detected") {
		t.Errorf("apply without a deletion: %v", err)
	}
	b.wantDetail("any:old raid1 1.2 vda1 vdb1")
	right := software("5 1 new vda vdb vdc")
	if err := validate(right); err != nil {
		t.Error(err)
	}
	b.wantDetail("any:old raid1 1.2 vda1 vdb1")
	if err := apply(right, ""); err != nil {
		t.Error(err)
	}
	b.wantDetail("any:new raid5 1.2 vda1 vdb1 vdc1")
	b.mustDelete()
	b.wantEmpty()
}
