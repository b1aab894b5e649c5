// SPDX-License-Identifier: Apache-2.0

//go:build linux

package erase_test

import (
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

	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/steps/guesttest"
	"github.com/ironhand/ironhand/steps/holders"
	"github.com/ironhand/ironhand/steps/raid"
)

var guest = flag.Bool("guest", false, "run the tests for a virtual machine with disks on two host adapters")

// Disks that are on two host adapters each, two of which can be read by one of their paths only, and a pair of disks that only say so.
func TestVMPaths(t *testing.T) {
	vmtest.Require(t)
	extra := []string{"-device", "virtio-scsi-pci,id=hba0", "-device", "virtio-scsi-pci,id=hba1"}
	dir := t.TempDir()
	for i, serial := range []string{"ONE", "TWO", "LIAR", "HALF0", "HALF1"} {
		for hba := range 2 {
			file := filepath.Join(dir, serial)
			if serial == "LIAR" {
				file += fmt.Sprint(hba)
			}
			f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
			if err == nil {
				err = errors.Join(f.Truncate(2<<30), f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
			id := fmt.Sprintf("%s-%d", strings.ToLower(serial), hba)
			from := ",file.locking=off,file=" + file
			if serial == fmt.Sprintf("HALF%d", hba) {
				from = ",file.driver=blkdebug,file.image.driver=file,file.image.locking=off,file.image.filename=" + file + ",file.inject-error.0.event=read_aio,file.inject-error.0.errno=5"
			}
			extra = append(extra, "-drive", "if=none,cache=unsafe,format=raw,id="+id+from,
				"-device", fmt.Sprintf("scsi-hd,bus=hba%d.0,share-rw=on,drive=%s,serial=%s,wwn=0x5000c5000000000%d", hba, id, serial, i+1))
		}
	}
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Machine: vmtest.Machine{MemoryMiB: 768, Disks: []vmtest.Disk{{Size: 2 << 30, Serial: "PLAIN"}}, Extra: extra},
		Files:   vmtest.Programs(t, "sfdisk", "blkid", "dmsetup"),
		Args:    "-guest -test.run=TestGuestPaths",
	})
}

func TestGuestPaths(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMPaths")
	}
	b := guesttest.New(t, "virtio_scsi", "sd_mod", "raid1", "dm_mod", "dm_multipath", "dm_round_robin", "ext4")
	said := func() string { return strings.Join(b.Said, "\n") + "\n" }
	list := func() map[string][]string { // names by serial number
		t.Helper()
		disks, err := b.Host.Machine.Disks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		names := map[string][]string{}
		for _, d := range disks {
			if d.Type != "disk" {
				continue
			}
			if s := string(d.Serial); names[s] != nil {
				t.Errorf("%s is listed twice, as %v and %v", s, names[s], d.Names())
			}
			names[string(d.Serial)] = d.Names()
		}
		return names
	}
	disks := list()
	for range 50 { // adapters look for their disks when their drivers are there
		if len(disks["HALF1"]) == 2 {
			break
		}
		time.Sleep(100 * time.Millisecond)
		disks = list()
	}
	one, two, liar := disks["ONE"], disks["TWO"], disks["LIAR"]
	half := [][]string{disks["HALF0"], disks["HALF1"]}
	if len(disks) != 6 || len(half[0]) != 2 || len(half[1]) != 2 || len(one) != 2 || len(two) != 2 || len(liar) != 2 || len(disks["PLAIN"]) != 1 {
		t.Fatalf("disks %v", disks)
	}

	// An array has each disk once.
	create := func(first, second string) error {
		b.Node.TargetRAIDConfig = json.RawMessage(fmt.Sprintf(`{"logical_disks":[{"size_gb":1,"raid_level":"1","controller":"software","volume_name":"system","physical_disks":[%s,%s]}]}`, first, second))
		_, err := raid.Create(t.Context(), b.Host, steps.Job{Node: b.Node})
		return err
	}
	if err := create(`{"name":"`+one[0]+`"}`, `{"name":"`+one[1]+`"}`); !errors.Is(err, inspect.ErrNoDisk) {
		t.Fatalf("an array of two paths to one disk: %v", err)
	}
	members := func() string {
		t.Helper()
		running, err := filepath.Glob("/sys/block/md*")
		if err != nil || len(running) != 1 {
			t.Fatalf("arrays %v, %v", running, err)
		}
		return b.Run("mdadm", "--detail", "--export", "/dev/"+filepath.Base(running[0]))
	}

	// A path that the kernel uses, and that cannot be read, is not the one by which an array is made, whichever of the two is listed first.
	if err := create(`{"serial":"HALF0"}`, `{"serial":"HALF1"}`); err != nil {
		t.Fatal(err)
	}
	for _, names := range half {
		for _, name := range names {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			_, dead := f.ReadAt(make([]byte, 4096), 1<<30)
			f.Close()
			if got := members(); strings.Contains(got, "="+name+"1\n") != (dead == nil) || dead != nil && !errors.Is(dead, syscall.EIO) {
				t.Errorf("reading %s: %v, and the array is of\n%s", name, dead, got)
			}
			if name == names[0] && (dead != nil) != strings.Contains(said(), name+" does not work (") {
				t.Errorf("reading %s: %v, which was told otherwise", name, dead)
			}
		}
	}
	if _, err := raid.Delete(t.Context(), b.Host, steps.Job{Node: b.Node}); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob("/sys/block/md*"); err != nil || len(left) > 0 {
		t.Errorf("arrays %v are left, %v", left, err)
	}

	if err := create(`{"serial":"ONE"}`, `{"name":"`+two[1]+`"}`); err != nil {
		t.Fatal(err)
	}
	if got := members(); strings.Count(got, "_DEV=") != 2 || !strings.Contains(got, one[0]+"1") || !strings.Contains(got, two[0]+"1") {
		t.Errorf("the array is of\n%s", got)
	}

	// After a reset the kernel has the partitions of all paths, and the array starts of one path to each.
	b.Run("mdadm", "--stop", "--scan")
	paths := slices.Concat(one, two)
	b.Reread(paths...)
	if err := raid.Assemble(t.Context(), b.Host); err != nil {
		t.Fatal(err)
	}
	if got := members(); strings.Count(got, "_DEV=") != 2 {
		t.Errorf("after a reset the array is of\n%s", got)
	}
	b.Run("mdadm", "--stop", "--scan")

	// Somebody started it by the other paths: it is taken down, and goes.
	byOthers := func() {
		t.Helper()
		b.Reread(paths...)
		b.Run("mdadm", "--assemble", "/dev/md0", one[1]+"1", two[1]+"1")
	}
	byOthers()
	if err := create(`{"serial":"ONE"}`, `{"serial":"TWO"}`); err != nil || !strings.Contains(said(), "leave /dev/md0 system, raid1, of "+one[0]+"1, "+two[0]+"1 as it is\n") {
		t.Errorf("the array that runs by the other paths is not known: %v", err)
	}
	all, err := b.Host.Machine.Disks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(d inspect.Disk) bool { return d.Name != one[0] })
	if _, _, err := raid.OpenDisks(t.Context(), b.Host, all); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), one[1]+" is the same disk") {
		t.Errorf("a disk that is in use by its other path is opened: %v", err)
	}
	if _, err := raid.Delete(t.Context(), b.Host, steps.Job{Node: b.Node}); err != nil {
		t.Fatal(err)
	}
	if err := create(`{"serial":"ONE"}`, `{"serial":"TWO"}`); err != nil {
		t.Fatal(err)
	}
	b.Run("mdadm", "--stop", "--scan")
	byOthers()
	b.Run("mke2fs", "-q", "/dev/md0")
	if err := errors.Join(os.MkdirAll("/mnt", 0o700), syscall.Mount("/dev/md0", "/mnt", "ext4", 0, "")); err != nil {
		t.Fatal(err)
	}
	skip := map[string]json.RawMessage{"skip_block_devices": json.RawMessage(`[{"name": "` + liar[1] + `"}]`)}
	erased := func(name string) {
		t.Helper()
		if out, _ := exec.Command("blkid", "-p", name).CombinedOutput(); len(out) > 0 {
			t.Errorf("on %s is still %s", name, out)
		}
		if parts, _ := filepath.Glob("/sys/block/" + filepath.Base(name) + "/sd*"); len(parts) > 0 {
			t.Errorf("the kernel still has %v", parts)
		}
	}
	b.Said = nil
	if _, err := erase.Local().Metadata(t.Context(), b.Host, steps.Job{Node: steps.Node{Properties: skip}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range paths {
		erased(name)
	}
	for _, want := range []string{"unmount /mnt", "stop /dev/md0", one[0] + ": clearing", liar[0] + " is on the skip list"} {
		if !strings.Contains(said(), want) {
			t.Errorf("%q was not said", want)
		}
	}
	if strings.Contains(said(), one[1]+": clearing") {
		t.Error("a disk was erased twice")
	}

	// A path that is dead does not keep the disk from being erased by the other; if all are, it fails, and the others are erased.
	state := func(name, value string) {
		t.Helper()
		if err := os.WriteFile("/sys/block/"+filepath.Base(name)+"/device/state", []byte(value+"\n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := range one {
		b.Run("mke2fs", "-q", "-F", one[1-i])
		state(one[i], "offline")
		b.Said = nil
		if _, err := erase.Local().Metadata(t.Context(), b.Host, steps.Job{Node: steps.Node{Properties: skip}}); err != nil {
			t.Fatal(err)
		}
		if want := one[i] + " is another path to " + one[1-i] + ", and does not work (offline): left out"; !strings.Contains(said(), " "+want+"\n") {
			t.Errorf("%q was not said", want)
		}
		erased(one[1-i])
		state(one[i], "running")
		erased(one[i])
	}
	b.Run("mke2fs", "-q", "-F", one[0])
	b.Run("mke2fs", "-q", "-F", two[0])
	state(one[0], "offline")
	state(one[1], "offline")
	_, err = erase.Local().Metadata(t.Context(), b.Host, steps.Job{Node: steps.Node{Properties: skip}})
	if !errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), one[0]) || strings.Contains(err.Error(), two[0]) {
		t.Errorf("a disk all of whose paths are dead: %v", err)
	}
	erased(two[0])
	state(one[0], "running")
	state(one[1], "running")

	// Two disks of one name: neither is taken for the other. With a skip list that does not tell which of them is meant nothing is touched at all.
	for _, name := range liar {
		b.Run("mke2fs", "-q", "-F", name)
	}
	ext2 := func(name string) {
		t.Helper()
		if out, err := exec.Command("blkid", "-p", name).CombinedOutput(); err != nil || !strings.Contains(string(out), "ext2") {
			t.Errorf("%s was touched: %s, %v", name, out, err)
		}
	}
	shared := map[string]json.RawMessage{"skip_block_devices": json.RawMessage(`[{"serial": "LIAR"}]`)}
	if _, err := erase.Local().Metadata(t.Context(), b.Host, steps.Job{Node: steps.Node{Properties: shared}}); !errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), "so they are two disks") {
		t.Errorf("two disks of one name, which is on the skip list: %v", err)
	}
	for _, name := range append([]string{one[0]}, liar...) {
		ext2(name)
	}
	_, err = erase.Local().Metadata(t.Context(), b.Host, steps.Job{})
	if err == nil || !strings.Contains(err.Error(), liar[1]+" says that it is this disk too: what is written to one is not read from the other") {
		t.Errorf("two disks of one name: %v", err)
	}
	ext2(liar[1])
	b.Run("mke2fs", "-q", "-F", liar[0])
	if _, err := erase.Local().Metadata(t.Context(), b.Host, steps.Job{Node: steps.Node{Properties: skip}}); err != nil {
		t.Errorf("two disks of one name, one of them on the skip list: %v", err)
	}
	erased(liar[0])
	ext2(liar[1])

	// A device of dm-multipath stands for the paths; to write to one of them is refused. That one is dead is dm-multipath's business then.
	sectors, err := os.ReadFile("/sys/block/" + filepath.Base(one[0]) + "/size")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dmsetup", "create", "mpatha", "--noudevsync", "--uuid", "mpath-35000c50000000001")
	var size int
	if _, err := fmt.Sscan(string(sectors), &size); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf("0 %d multipath 0 0 1 1 round-robin 0 2 1 %s 1 %s 1\n", size, one[0], one[1]))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dmsetup: %v\n%s", err, out)
	}
	if disks = list(); disks["ONE"] != nil {
		t.Errorf("a path of a multipath device is listed: %v", disks)
	}
	b.Run("mke2fs", "-q", "-F", "/dev/dm-0")
	tree, err := holders.Of(t.Context(), b.Host.Machine.FS, one[0])
	if err != nil || !errors.Is(tree.Refusal(), holders.ErrBusy) {
		t.Errorf("a path of a multipath device may be used: %v, %v\n%v", err, tree.Refusal(), tree)
	}
	state(one[0], "offline")
	if _, err := erase.Local().Metadata(t.Context(), b.Host, steps.Job{Node: steps.Node{Properties: skip}}); err != nil {
		t.Fatal(err)
	}
	erased("/dev/dm-0")
	if status := b.Run("dmsetup", "status", "mpatha"); strings.Count(status, " F ") != 1 || strings.Count(status, " A ") < 1 {
		t.Errorf("dm-multipath has not seen that a path is dead: %s", status)
	}
	state(one[0], "running")
	b.Run("dmsetup", "remove", "--noudevsync", "mpatha")
	for _, name := range one {
		erased(name)
	}
}
