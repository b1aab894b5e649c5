// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/image/gpt"
)

// place writes bytes into an existing file.
func place(t testing.TB, file string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// written makes a file with the partition table of a layout.
func written(t testing.TB, l Layout, drive, size int64) (file string, slots []slot) {
	t.Helper()
	slots, err := l.plan(drive, size, 512)
	if err != nil {
		t.Fatal(err)
	}
	table, err := l.table(slots, size, 512)
	if err != nil {
		t.Fatal(err)
	}
	file = newFile(t, size)
	if table.gpt == nil {
		place(t, file, table.mbr.Bytes(), 0)
		return file, slots
	}
	place(t, file, table.gpt.Head(), 0)
	backup, at := table.gpt.Backup()
	place(t, file, backup, at)
	return file, slots
}

// Programs see the same partitions as after the commands that ironic-python-agent gives to parted (ironic_python_agent/disk_partitioner.py).
func TestLayout(t *testing.T) {
	tests := []struct {
		name   string
		layout Layout
		drive  int64
		parted string
		roles  string
	}{
		{"UEFI", Layout{UEFI: true, ESP: 550, Root: 1000}, 0,
			"mklabel gpt mkpart primary fat32 1 551 set 1 boot on mkpart primary  551 1551",
			"efi system partition 550 MiB, root 1000 MiB"},
		{"UEFI, all", Layout{UEFI: true, ESP: 550, Root: 700, Swap: 100, Ephemeral: 300, EphemeralFormat: "ext4"}, 300 << 10,
			"mklabel gpt mkpart primary fat32 1 551 set 1 boot on mkpart primary  551 851 mkpart primary linux-swap 851 951 mkpart primary  951 952 mkpart primary  952 1652",
			"efi system partition 550 MiB, ephemeral 300 MiB, swap 100 MiB, configdrive 1 MiB, root 700 MiB"},
		{"BIOS, GPT", Layout{BIOSBoot: 1, Root: 700, Swap: 100}, mib + 1,
			"mklabel gpt mkpart primary  1 2 set 1 bios_grub on mkpart primary linux-swap 2 102 mkpart primary  102 104 mkpart primary  104 804",
			"BIOS Boot partition 1 MiB, swap 100 MiB, configdrive 2 MiB, root 700 MiB"},
		{"BIOS, MBR", Layout{MBR: true, Root: 700}, 0, "mklabel msdos mkpart primary  1 701 set 1 boot on", "root 700 MiB"},
		{"BIOS, MBR, all", Layout{MBR: true, Root: 700, Swap: 8, Ephemeral: 33, EphemeralFormat: "ext3"}, mib,
			"mklabel msdos mkpart primary  1 34 mkpart primary linux-swap 34 42 mkpart primary  42 43 mkpart primary  43 743 set 4 boot on",
			"ephemeral 33 MiB, swap 8 MiB, configdrive 1 MiB, root 700 MiB"},
	}
	// What is random, what parted has no name for, and names.
	noise := regexp.MustCompile(`(?m)^(label-id|device|sector-size|first-lba|last-lba):.*\n|, uuid=[^,\n]*|, name="[^"]*"|^\S*file\d* :|^\S+/`)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const size = 2000 * mib
			ours, slots := written(t, tt.layout, tt.drive, size)
			if got := sizes(slots); got != tt.roles {
				t.Errorf("partitions are %s, want %s", got, tt.roles)
			}
			theirs := newFile(t, size)
			args := append([]string{"-a", "optimal", "-s", theirs, "--", "unit", "MiB"}, strings.Split(tt.parted, " ")...)
			run(t, "", "parted", args...)
			got, want := noise.ReplaceAllString(run(t, "", "sfdisk", "--dump", ours), ""), noise.ReplaceAllString(run(t, "", "sfdisk", "--dump", theirs), "")
			if got != want {
				t.Errorf("sfdisk --dump:\n%s\nof parted's:\n%s", got, want)
			}
			if out := run(t, "", "sfdisk", "--verify", ours); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk --verify: %s", out)
			}
			if out := run(t, "", "sgdisk", "-v", ours); !tt.layout.MBR && !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v: %s", out)
			}
		})
	}
}

func TestLayoutRefuses(t *testing.T) {
	uefi := Layout{UEFI: true, ESP: 550, Root: 1000}
	tests := []struct {
		name   string
		change func(*Layout)
		disk   int64 // MiB
		sector int
		is     error
		want   string
	}{
		{"no root", func(l *Layout) { l.Root = 0 }, 2000, 512, ErrLayout, "the root partition has no size"},
		{"negative swap", func(l *Layout) { l.Swap = -1 }, 2000, 512, ErrLayout, "a swap partition of -1 MiB is not possible"},
		{"root that no disk has", func(l *Layout) { l.Root = 1 << 40 }, 2000, 512, ErrLayout, "a root partition of 1099511627776 MiB"},
		{"MBR and UEFI", func(l *Layout) { l.MBR = true }, 2000, 512, ErrLayout, "UEFI wants a GPT"},
		{"tiny ESP", func(l *Layout) { l.ESP = 4 }, 2000, 512, ErrLayout, "an EFI system partition of 4 MiB"},
		{"no BIOS boot partition", func(l *Layout) { l.UEFI = false }, 2000, 512, ErrLayout, "the BIOS boot partition has no size"},
		{"nothing to keep", func(l *Layout) { l.PreserveEphemeral = true }, 2000, 512, ErrLayout, "is to be kept, and has no size"},
		{"unknown file system", func(l *Layout) { l.Ephemeral, l.EphemeralFormat = 10, "zfs" }, 2000, 512, ErrLayout, `the file system "zfs" cannot be made: there are ext2, ext3, ext4, xfs`},
		{"too little for xfs", func(l *Layout) { l.Ephemeral, l.EphemeralFormat = 299, "xfs" }, 2000, 512, ErrLayout, "an ephemeral partition of 299 MiB cannot have the file system xfs, which wants 300"},
		{"option for a file system", func(l *Layout) { l.Ephemeral, l.EphemeralFormat = 10, "-Fext4" }, 2000, 512, ErrLayout, `"-Fext4" cannot be made`},
		{"disk too small", func(l *Layout) {}, 1551, 512, gpt.ErrTooSmall, "efi system partition 550 MiB, root 1000 MiB end at 1551 MiB, of the disk's 1551 MiB 1550 are usable"},
		{"no room for the backup table", func(l *Layout) { l.ESP = 549 }, 1550, 4096, gpt.ErrTooSmall, "end at 1550 MiB, of the disk's 1550 MiB 1549 are usable"},
		{"beyond what an MBR can name", func(l *Layout) { *l = Layout{MBR: true, Root: 2 << 20} }, 4 << 20, 512, gpt.ErrTooSmall, "root 2097152 MiB end at 2097153 MiB, of the disk's 4194304 MiB 2097152 are usable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := uefi
			tt.change(&l)
			_, err := l.plan(0, tt.disk*mib, tt.sector)
			if !errors.Is(err, tt.is) || !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("plan() = %v, want %v with %q", err, tt.is, tt.want)
			}
		})
	}
	if slots, err := (Layout{UEFI: true, ESP: 550, Root: 1000}).plan(0, 1552*mib, 512); err != nil || len(slots) != 2 {
		t.Errorf("a disk that just suffices: %v, %v", slots, err)
	}
}

// What is there is kept only if it is where it would be put.
func TestLayoutMatch(t *testing.T) {
	full := Layout{UEFI: true, ESP: 40, Ephemeral: 50, EphemeralFormat: "ext4", Swap: 10, Root: 100, PreserveEphemeral: true}
	tests := []struct {
		name   string
		change func(*Layout)
		drive  int64
		want   string // end of the root partition in MiB, or part of the error
	}{
		{"same", func(*Layout) {}, 2 * mib, "203"},
		{"smaller config drive", func(*Layout) {}, mib, "203"},
		{"larger config drive", func(*Layout) {}, 3 * mib, "partition 4 of the disk has 2097152 bytes"},
		{"no config drive", func(*Layout) {}, 0, "has not the partitions that it would get"},
		{"other ephemeral", func(l *Layout) { l.Ephemeral = 51 }, 2 * mib, "partition 2 of the disk has 52428800 bytes"},
		{"other swap", func(l *Layout) { l.Swap = 9 }, 2 * mib, "partition 3 of the disk"},
		{"other root", func(l *Layout) { l.Root = 101 }, 2 * mib, "partition 5 of the disk"},
		{"BIOS", func(l *Layout) { l.UEFI, l.BIOSBoot = false, 40 }, 2 * mib, "partition 1 of the disk has the type c12a7328-"},
		{"MBR", func(l *Layout) { *l = Layout{MBR: true, Ephemeral: 50, Root: 100, PreserveEphemeral: true} }, 0, "has not the partitions"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file, _ := written(t, full, 2*mib, 300*mib)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			table, err := parseLayout(b[:mib], 512, -1)
			if err != nil {
				t.Fatal(err)
			}
			l := full
			tt.change(&l)
			slots, err := l.plan(tt.drive, 300*mib, 512)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if slots, err = l.match(table, slots); err != nil {
				got = err.Error()
			} else {
				last := slots[len(slots)-1]
				got = fmt.Sprint((last.Start + last.Size) / mib)
			}
			if !strings.Contains(got, tt.want) || err != nil && !errors.Is(err, ErrLayout) {
				t.Errorf("match() = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSwapHeader(t *testing.T) {
	file := newFile(t, 10*mib)
	head, err := swapHeader(10*mib, "swap1")
	if err != nil {
		t.Fatal(err)
	}
	place(t, file, head, 0)
	if out := run(t, "", "swaplabel", file); !strings.Contains(out, "LABEL: swap1") || !regexp.MustCompile(`UUID:  [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab]`).MatchString(out) {
		t.Errorf("swaplabel: %s", out)
	}
	if out := run(t, "", "blkid", "-p", file); !strings.Contains(out, `TYPE="swap"`) || !strings.Contains(out, `VERSION="1"`) {
		t.Errorf("blkid: %s", out)
	}
	for _, size := range []int64{0, 9 * 4096, 1 << 45} {
		if _, err := swapHeader(size, ""); err == nil {
			t.Errorf("a swap area of %d bytes is made", size)
		}
	}
}

// The size that a superblock tells is what other programs made.
func TestParseExtent(t *testing.T) {
	tests := []struct {
		name, mkfs string
		size       int64
		block      int64
	}{
		{"ext4", "mkfs.ext4 -q -F -b 4096", 64 * mib, 4096},
		{"ext4 of small blocks", "mkfs.ext4 -q -F -b 1024", 64 * mib, 1024},
		{"ext4 without 64bit", "mkfs.ext4 -q -F -O ^64bit", 600 * mib, 4096},
		{"ext2", "mkfs.ext2 -q -F -b 2048", 64 * mib, 2048},
		{"xfs", "mkfs.xfs -q", 320 * mib, 512},
		{"xfs for other sectors", "mkfs.xfs -q -s size=4096", 320 * mib, 4096},
		{"btrfs", "mkfs.btrfs -q", 256 * mib, 4096},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := newFile(t, tt.size)
			words := strings.Fields(tt.mkfs)
			run(t, "", words[0], append(words[1:], file)...)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, e, err := checkRoot(b[:mib], tt.size, tt.size, 512); err != nil || e.size != tt.size || e.block != tt.block {
				t.Errorf("checkRoot() = %+v, %v, want %d bytes in blocks of %d", e, err, tt.size, tt.block)
			}
			if _, _, err := checkRoot(b[:mib], -1, tt.size-mib, 512); !errors.Is(err, ErrRootTooSmall) || !strings.Contains(err.Error(), fmt.Sprintf("takes %d MiB, the partition has %d", tt.size/mib, tt.size/mib-1)) {
				t.Errorf("into less room: %v", err)
			}
			if _, _, err := checkRoot(b[:mib], -1, tt.size, 4096); (err == nil) != (tt.block == 4096) || err != nil && !errors.Is(err, ErrSectorSize) {
				t.Errorf("on 4096-byte sectors: %v", err)
			}
		})
	}
}

func FuzzParseExtent(f *testing.F) {
	for _, kind := range []string{"ext4", "xfs", "btrfs", "vfat"} {
		f.Add(make([]byte, probeSize), kind)
	}
	f.Fuzz(func(t *testing.T, b []byte, kind string) {
		e, err := parseExtent(b, kind)
		if err == nil && (e.size <= 0 || e.block < 512) {
			t.Errorf("parseExtent() = %+v", e)
		}
		if found, e, err := checkRoot(b, -1, 1<<60, 512); err == nil && (found.Type == "" || e.size <= 0) {
			t.Errorf("checkRoot() = %+v, %+v", found, e)
		}
	})
}
