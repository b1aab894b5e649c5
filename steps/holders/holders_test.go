// SPDX-License-Identifier: Apache-2.0

package holders_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/inspect/recording"
	"github.com/ironhand/ironhand/steps/holders"
)

// machine has two disks with a mirror, on it LVM with a file system, on that a swap file and a loop device, and mounts below; a third disk for btrfs with
// the fourth; a fifth that is swapped to; a sixth in an Intel array.
func machine(t *testing.T, more string) fstest.MapFS {
	t.Helper()
	var b strings.Builder
	file := func(name, value string) { fmt.Fprintf(&b, "-- %s --\n%s\n", name, value) }
	link := func(name string) { fmt.Fprintf(&b, "-- %s -> ../x --\n", name) }
	disk := func(name, number string, holders ...string) {
		file("sys/block/"+name+"/dev", number)
		file("sys/block/"+name+"/size", "2097152")
		for _, h := range holders {
			link("sys/block/" + name + "/holders/" + h)
			link("sys/block/" + h + "/slaves/" + name)
		}
	}
	part := func(disk, n, number, start string, holders ...string) {
		dir := "sys/block/" + disk + "/" + disk + n
		file(dir+"/dev", number)
		file(dir+"/partition", n)
		file(dir+"/start", start)
		file(dir+"/size", "2048")
		for _, h := range holders {
			link(dir + "/holders/" + h)
			link("sys/block/" + h + "/slaves/" + disk + n)
		}
	}
	disk("sda", "8:0")
	part("sda", "1", "8:1", "2048")
	part("sda", "2", "8:2", "4096", "md0")
	disk("sdb", "8:16")
	part("sdb", "1", "8:17", "2048", "md0")
	disk("md0", "9:0", "dm-0")
	file("sys/block/md0/md/level", "raid1")
	file("sys/block/md0/md/metadata_version", "1.2")
	disk("dm-0", "253:0")
	file("sys/block/dm-0/dm/name", "vg-root")
	file("sys/block/dm-0/dm/uuid", "LVM-abcdef")
	disk("sdc", "8:32")
	disk("sdd", "8:48")
	link("sys/fs/btrfs/1234/devices/sdc")
	link("sys/fs/btrfs/1234/devices/sdd")
	file("sys/fs/btrfs/features/x", "0")
	disk("sde", "8:64")
	disk("sdf", "8:80", "md126", "md127")
	disk("md126", "9:126")
	file("sys/block/md126/md/level", "raid0")
	file("sys/block/md126/md/metadata_version", "external:/md127/0")
	disk("md127", "9:127")
	file("sys/block/md127/md/metadata_version", "external:imsm")
	disk("sdg", "8:96", "bcache0")
	disk("bcache0", "252:0")
	disk("loop0", "7:0")
	file("sys/block/loop0/loop/backing_file", "/mnt/data/disk.img")
	disk("loop1", "7:1")
	file("proc/self/mountinfo", `20 1 8:1 / / rw - ext4 /dev/sda1 rw
30 20 253:0 / /mnt/data rw - xfs /dev/mapper/vg-root rw
31 30 0:40 / /mnt/data/tmp rw - tmpfs tmpfs rw
32 31 0:41 / /mnt/data/tmp/deep\040er rw - tmpfs tmpfs rw
33 20 7:0 / /mnt/loop rw - ext4 /dev/loop0 rw
34 20 0:50 / /mnt/btrfs rw - btrfs /dev/sdd rw
35 34 0:50 / /mnt/btrfs rw - btrfs /dev/sdd rw`)
	file("proc/swaps", "Filename Type Size Used Priority\n/dev/sde partition 1 0 -2\n/mnt/data/swap file 1 0 -3")
	file("proc/12/comm", "fio")
	b.WriteString("-- proc/12/fd/0 -> pipe:[1] --\n-- proc/12/cwd -> /tmp --\n-- proc/12/fd/3 -> /dev/sdc --\n")
	b.WriteString(more)
	fsys, err := recording.Parse(b.String())
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

func TestTree(t *testing.T) {
	tests := []struct {
		name, more string
		disks      []string
		tree, plan string
		refusal    string
	}{
		{"mirror, volume, files, mounts", "", []string{"/dev/sda", "/dev/sdb"}, `
/dev/sda
  /dev/sda1
    mounted at /mnt/btrfs
    mounted at /mnt/btrfs
    mounted at /mnt/loop
    mounted at /mnt/data/tmp/deep er
    mounted at /mnt/data/tmp
    mounted at /mnt/data
    mounted at /
    open in fio (12)
`, "", "the running system's root is on it"},
		{"volume", "", []string{"/dev/sdb"}, `
/dev/sdb
  /dev/sdb1
    /dev/md0 (raid1)
      /dev/dm-0 (LVM "vg-root")
        mounted at /mnt/data/tmp/deep er
        mounted at /mnt/data/tmp
        mounted at /mnt/data
        swapped to: /mnt/data/swap
        /dev/loop0 (/mnt/data/disk.img)
          mounted at /mnt/loop
`, `
unmount /mnt/loop
detach /dev/loop0 (/mnt/data/disk.img)
stop swapping to /mnt/data/swap
unmount /mnt/data/tmp/deep er
unmount /mnt/data/tmp
unmount /mnt/data
remove /dev/dm-0 (LVM "vg-root")
stop /dev/md0 (raid1)
`, "/dev/md0 (raid1): also on sda2, which is not to be touched"},
		{"btrfs, by the other disk's name, mounted twice", "", []string{"/dev/sdc"}, `
/dev/sdc
  mounted at /mnt/btrfs
  mounted at /mnt/btrfs
  open in fio (12)
`, "\nunmount /mnt/btrfs\nunmount /mnt/btrfs\n", "in use: /dev/sdc: open in fio (12)"},
		{"a file on it", "-- proc/13/comm --\ntail\n-- proc/13/fd/7 -> /mnt/loop/log (deleted) --\n-- proc/13/cwd -> /mnt/loop --\n", []string{"/dev/loop0"}, `
/dev/loop0 (/mnt/data/disk.img)
  mounted at /mnt/loop
  open in tail (13)
`, "\nunmount /mnt/loop\n", "in use: /dev/loop0: open in tail (13)"},
		{"swap", "", []string{"/dev/sde"}, "\n/dev/sde\n  swapped to\n", "\nstop swapping to /dev/sde\n", ""},
		{"container", "", []string{"/dev/sdf"}, `
/dev/sdf
  /dev/md126 (raid0)
  /dev/md127 (md)
    /dev/md126 (raid0)
`, "\nstop /dev/md126 (raid0)\nstop /dev/md127 (md)\n", ""},
		{"unknown", "", []string{"/dev/sdg"}, "\n/dev/sdg\n  /dev/bcache0\n", "\n", "/dev/bcache0: a kind of device that is not taken down"},
		{"nothing", "", []string{"/dev/sdd", "/dev/loop1"}, "\n/dev/sdd\n  mounted at /mnt/btrfs\n  mounted at /mnt/btrfs\n/dev/loop1\n", "\nunmount /mnt/btrfs\nunmount /mnt/btrfs\n", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tree, err := holders.Of(t.Context(), machine(t, test.more), test.disks...)
			if err != nil {
				t.Fatal(err)
			}
			if got := "\n" + tree.String(); !strings.HasPrefix(got, test.tree) || test.plan != "" && got != test.tree {
				t.Errorf("tree:%s\nwant:%s", got, test.tree)
			}
			plan := "\n"
			for _, c := range tree.Changes() {
				plan += c.String() + "\n"
			}
			if test.plan != "" && plan != test.plan {
				t.Errorf("plan:%s\nwant:%s", plan, test.plan)
			}
			refusal := tree.Refusal()
			if test.refusal == "" && refusal != nil || test.refusal != "" && (!errors.Is(refusal, holders.ErrBusy) || !strings.Contains(refusal.Error(), test.refusal)) {
				t.Errorf("refusal: %v, want %q", refusal, test.refusal)
			}
			if refusal != nil {
				if err := tree.TeardownBy(t.Context(), func(c holders.Change) error { t.Errorf("did %v", c); return nil }); !errors.Is(err, holders.ErrBusy) {
					t.Errorf("Teardown = %v", err)
				}
			}
		})
	}
}

// What is built on another path to a disk is built on the disk, and a look afterwards sees it again.
func TestPaths(t *testing.T) {
	fsys := machine(t, "")
	tree, err := holders.OfPaths(t.Context(), fsys, []string{"/dev/sde", "/dev/sdf"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `/dev/sde
  swapped to
  /dev/sdf (the same disk)
    /dev/md126 (raid0)
    /dev/md127 (md)
      /dev/md126 (raid0)
`
	if got := tree.String(); got != want {
		t.Errorf("tree:\n%s\nwant:\n%s", got, want)
	}
	if got := fmt.Sprint(tree.Changes()); got != "[stop /dev/md126 (raid0) stop /dev/md127 (md) stop swapping to /dev/sde]" {
		t.Errorf("changes: %s", got)
	}
	err = tree.TeardownBy(t.Context(), func(c holders.Change) error {
		if c.Verb == holders.SwapOff {
			fsys["proc/swaps"] = &fstest.MapFile{}
		}
		return nil
	})
	if !errors.Is(err, holders.ErrBusy) || !strings.Contains(err.Error(), "stop /dev/md126") {
		t.Errorf("Teardown() of what stays = %v", err)
	}
}

// What the kernel still shows afterwards is an error, and so is a thing that does not give way.
func TestTeardown(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(fsys fstest.MapFS, c holders.Change) error
		want   string
	}{
		{"done", func(fsys fstest.MapFS, c holders.Change) error {
			maps.DeleteFunc(fsys, func(name string, _ *fstest.MapFile) bool { return strings.Contains(name, "holders/"+c.Path[5:]) })
			return nil
		}, ""},
		{"not done", func(fstest.MapFS, holders.Change) error { return nil }, "in use after everything was taken down: it would take to [stop /dev/md126 (raid0) stop /dev/md127 (md)]"},
		{"fails", func(_ fstest.MapFS, c holders.Change) error { return syscall.EBUSY }, "stop /dev/md126 (raid0): device or resource busy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := machine(t, "")
			tree, err := holders.Of(t.Context(), fsys, "/dev/sdf")
			if err != nil {
				t.Fatal(err)
			}
			err = tree.TeardownBy(t.Context(), func(c holders.Change) error { return test.change(fsys, c) })
			if fmt.Sprint(err) != test.want && (err != nil || test.want != "") {
				t.Errorf("Teardown = %v, want %q", err, test.want)
			}
		})
	}
}

// What cannot be read is not taken for nothing.
func TestUnread(t *testing.T) {
	for _, name := range []string{"proc/self/mountinfo", "proc/swaps", "sys/block/sdb/sdb1/holders", "sys/block/sdb/sdb1/partition", "sys/block", "proc/12/fd"} {
		t.Run(name, func(t *testing.T) {
			broken := inspecttest.Broken{ReadLinkFS: machine(t, ""), Errors: map[string]error{name: syscall.EIO}}
			if _, err := holders.Of(t.Context(), broken, "/dev/sdb"); !errors.Is(err, syscall.EIO) {
				t.Errorf("Of = %v, want EIO", err)
			}
		})
	}
	if _, err := holders.Of(t.Context(), machine(t, ""), "sdb"); err == nil {
		t.Error("a name that is not in /dev is taken")
	}
	if tree, err := holders.Of(t.Context(), machine(t, ""), "/dev/sdz"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a disk that is not there: %v, %v", tree, err)
	}
}

func FuzzOf(f *testing.F) {
	f.Add("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "/dev/sde partition\n", "external:/md0/0")
	f.Fuzz(func(t *testing.T, mounts, swaps, metadata string) {
		fsys := fstest.MapFS{}
		for name, text := range map[string]string{
			"proc/self/mountinfo": mounts, "proc/swaps": swaps, "sys/block/sda/dev": "8:0", "sys/block/md0/dev": "9:0",
			"sys/block/md0/md/metadata_version": metadata, "sys/block/md0/md/level": metadata,
		} {
			fsys[name] = &fstest.MapFile{Data: []byte(text)}
		}
		fsys["sys/block/sda/holders/md0"] = &fstest.MapFile{}
		tree, err := holders.Of(t.Context(), fsys, "/dev/sda")
		if err == nil && !slices.ContainsFunc(tree.Changes(), func(c holders.Change) bool { return c.Verb == holders.Stop }) {
			t.Error("the array is not stopped")
		}
	})
}
