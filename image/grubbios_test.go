// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rootTree makes a directory with these files, and GRUB's for BIOS.
func rootTree(t *testing.T, files ...string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, f := range grubFiles() {
		files = append(files, name+"\n"+string(f.Data))
	}
	for name, f := range tree(t, files...) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// bootFiles lists what is in /boot/grub and /boot/grub2, with what is in menus.
func bootFiles(t *testing.T, root *os.Root) string {
	t.Helper()
	var out []string
	for _, dir := range grubDirectories {
		err := fs.WalkDir(root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			line := strings.TrimPrefix(name, "boot/")
			if strings.Contains(name, "grub.cfg") {
				b, err := fs.ReadFile(root.FS(), name)
				if err != nil {
					return err
				}
				line += "=" + string(b)
			}
			out = append(out, line)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(out, " ")
}

func TestPrepareBIOS(t *testing.T) {
	const (
		modules = "GRUB/i386-pc/biosdisk.mod GRUB/i386-pc/ext2.mod GRUB/i386-pc/fshelp.mod GRUB/i386-pc/loop.mod GRUB/i386-pc/moddep.lst"
		direct  = "search.fs_uuid " + rootUUID + " root\nlinux /boot/vmlinuz-6 root=UUID=" + rootUUID + " ro\ninitrd /boot/initrd.img-6\nboot\n"
		menu    = "menuentry 'Debian' {\n linux /boot/vmlinuz-6 root=LABEL=x\n initrd /boot/initrd.img-6\n}\n"
		windows = "menuentry 'Windows' {\n chainloader +1\n}\n"
	)
	kernel := []string{"boot/vmlinuz-6\nkernel", "boot/initrd.img-6\ninitrd"}
	all := fmt.Sprint("part_msdos: ", "\npart_gpt:\nsearch_fs_uuid:\nmdraid1x:\nmdraid09:\nlvm:\nxfs:\nbtrfs:\next2: fshelp\nfshelp:\nbiosdisk:\n")
	tests := []struct {
		name  string
		fs    FileSystem
		files []string
		want  string // what is in /boot/grub afterwards; GRUB stands for the directory
		what  string // or the error
		err   error
	}{
		{"no menu", FileSystem{Type: "ext4", UUID: rootUUID}, kernel, "grub/grub.cfg=" + direct + " " + modules, "it starts /boot/vmlinuz-6 of an image without GRUB's menu", nil},
		{"menu", FileSystem{Type: "ext4", UUID: rootUUID}, append(kernel, "boot/grub/grub.cfg\n"+menu), "grub/grub.cfg=" + menu + " " + modules, "it starts the menu in /boot/grub/grub.cfg", nil},
		{"menu of Fedora", FileSystem{Type: "xfs", UUID: rootUUID}, append(kernel, "boot/grub2/grub.cfg\n"+menu), "grub2/grub.cfg=" + menu + " " + modules, "it starts the menu in /boot/grub2/grub.cfg", nil},
		{"Fedora without a menu", FileSystem{Type: "xfs", UUID: rootUUID}, append(kernel, "usr/sbin/grub2-install\nx"), "grub2/grub.cfg=" + direct + " " + modules, "it starts /boot/vmlinuz-6", nil},
		{"menu that starts no Linux", FileSystem{Type: "xfs", UUID: rootUUID}, append(kernel, "boot/grub/grub.cfg\n"+windows), "grub/grub.cfg=" + direct + " grub/grub.cfg.orig=" + windows + " " + modules, "it starts /boot/vmlinuz-6", nil},
		{"modules of another GRUB", FileSystem{Type: "ext4", UUID: rootUUID}, append(kernel, "boot/grub/i386-pc/ext2.mod\nolder"), "grub/grub.cfg=" + direct + " " + modules, "it starts /boot/vmlinuz-6", nil},

		{"no kernel", FileSystem{Type: "ext4", UUID: rootUUID}, []string{"etc/x\n"}, "", "no kernel with an initrd in /boot", ErrNoImageLoader},
		{"no GRUB", FileSystem{Type: "ext4", UUID: rootUUID}, append(kernel, "-"), "", "GRUB for BIOS, from /usr/lib/grub/i386-pc", ErrNoImageLoader},
		{"boot code that is none", FileSystem{Type: "ext4", UUID: rootUUID}, append(kernel, grubBIOSDirectory+"/boot.img\nhello"), "", "is no boot sector", ErrNoImageLoader},
		{"file system that GRUB does not know", FileSystem{Type: "iso9660", UUID: rootUUID}, kernel, "", `GRUB does not start from the file system "iso9660"`, ErrNoImageLoader},
		{"no UUID", FileSystem{Type: "ext4"}, kernel, "", "its file system has no UUID", ErrNoImageLoader},
		{"hostile kernel", FileSystem{Type: "ext4", UUID: rootUUID}, []string{"boot/vmlinuz-6;reboot\nkernel", "boot/initrd.img-6;reboot\ninitrd"}, "", `its kernel's name or command line has "boot/vmlinuz-6;reboot"`, ErrNoImageLoader},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := rootTree(t)
			put := func(name, content string) {
				if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := root.WriteFile(name, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			// The modules that are asked for.
			put(grubBIOSDirectory+"/moddep.lst", all)
			extra := strings.Fields("part_msdos part_gpt xfs btrfs search_fs_uuid mdraid1x mdraid09 lvm")
			for _, m := range extra {
				put(grubBIOSDirectory+"/"+m+".mod", m)
			}
			for _, f := range tt.files {
				if f == "-" {
					if err := root.RemoveAll("usr/lib/grub"); err != nil {
						t.Fatal(err)
					}
					continue
				}
				name, content, _ := strings.Cut(f, "\n")
				put(name, content)
			}
			before := bootFiles(t, root)
			l, err := PrepareBIOS(t.Context(), root, Root{FileSystem: tt.fs})
			got := bootFiles(t, root)
			if tt.err != nil {
				if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.what) {
					t.Errorf("PrepareBIOS() = %v, want %v with %q", err, tt.err, tt.what)
				}
				if got != before {
					t.Errorf("afterwards there is %s, before there was %s", got, before)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(l.What, tt.what) {
				t.Errorf("What = %q, want %q", l.What, tt.what)
			}
			shown := got
			for _, m := range extra {
				for _, dir := range grubDirectories {
					shown = strings.ReplaceAll(shown, " "+strings.TrimPrefix(dir, "boot/")+"/i386-pc/"+m+".mod", "")
				}
			}
			dir, _, _ := strings.Cut(tt.want, "/")
			if want := strings.ReplaceAll(tt.want, "GRUB/", dir+"/"); shown != want {
				t.Errorf("there is\n%s\nwant\n%s", shown, want)
			}
			if b, err := root.ReadFile("boot/" + dir + "/i386-pc/ext2.mod"); err != nil || string(b) != "EXT2" {
				t.Errorf("module %q, %v", b, err)
			}
			again, err := PrepareBIOS(t.Context(), root, Root{FileSystem: tt.fs})
			if err != nil || !bytes.Equal(again.core, l.core) || bootFiles(t, root) != got {
				t.Errorf("PrepareBIOS() again = %v, or what it leaves has changed: %s", err, bootFiles(t, root))
			}
		})
	}
}

// A module that is no file is not written to, and not waited for.
func TestPrepareBIOSHostileModule(t *testing.T) {
	root := rootTree(t, "boot/vmlinuz-6\nk", "boot/initrd.img-6\ni", "boot/grub/i386-pc/ext2.mod/x\n")
	for _, m := range strings.Fields("part_msdos part_gpt search_fs_uuid mdraid1x mdraid09 lvm") {
		if err := root.WriteFile(grubBIOSDirectory+"/"+m+".mod", nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := PrepareBIOS(t.Context(), root, Root{FileSystem: FileSystem{Type: "ext4", UUID: rootUUID}}); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("PrepareBIOS() = %v, want an error about ext2.mod", err)
	}
}

// biosTable is a disk with this table.
func biosTable(t *testing.T, sector int, script string) *disk {
	t.Helper()
	d := newDisk(t, 20*mib, sector)
	if script != "" {
		run(t, script, "sfdisk", "-q", "--no-tell-kernel", "--no-reread", "--wipe", "always", d.Name())
	}
	return d
}

const (
	biosGPT = "label: gpt\nstart=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\nstart=4096, size=20480\n"
	biosMBR = "label: dos\nstart=2048, size=20480, type=83\n"
)

func TestInstallGRUBOnDisks(t *testing.T) {
	boot := []byte(strings.Repeat("B", grubBootCode))
	core := bytes.Repeat([]byte("CORE"), 10000) // 40,000 bytes
	core = append(core, make([]byte, 512-len(core)%512)...)
	tests := []struct {
		name   string
		second string // table of a second disk
		sector int
		failAt int64 // of the second disk
		want   string
	}{
		{"GPT", biosGPT, 512, -1, ""},
		{"MBR", biosMBR, 512, -1, ""},
		{"no BIOS boot partition", "label: gpt\nstart=2048, size=2048\n", 512, -1, "install GRUB on second: its GPT has no BIOS boot partition"},
		{"no room", "label: dos\nstart=63, size=20480\n", 512, -1, "install GRUB on second: it has 40448 bytes, and there is room for 31744"},
		{"no table", "", 512, -1, "install GRUB on second: read partition table back"},
		{"large sectors", biosMBR, 4096, -1, "BIOS does not start disks with sectors of 4096 bytes"},
		{"core cannot be written", biosGPT, 512, mib + 20000, "install GRUB on second: write 40448 bytes at 1048576: bad sector"},
		{"first sector cannot be written", biosGPT, 512, 0, "install GRUB on second: write 512 bytes at 0: bad sector"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first, second, third := biosTable(t, 512, biosGPT), biosTable(t, 512, tt.second), biosTable(t, 512, biosMBR)
			second.sector = tt.sector
			if tt.name == "no table" {
				if _, err := second.File.WriteAt(make([]byte, mib), 0); err != nil {
					t.Fatal(err)
				}
			}
			// An older GRUB is there.
			if _, err := second.File.WriteAt([]byte(strings.Repeat("O", grubBootCode)), 0); err != nil {
				t.Fatal(err)
			}
			before := dumpTable(t, second)
			second.failAt = tt.failAt
			l := &BIOSLoader{boot: boot, core: core}
			err := l.Install(t.Context(), []BIOSDisk{{"first", first}, {"second", second}, {"third", third}})
			if tt.want == "" && err != nil || tt.want != "" && !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Fatalf("Install() = %v, want %q", err, tt.want)
			}
			if dumpTable(t, second) != before {
				t.Error("the table has changed")
			}
			checked := tt.failAt < 0 // before the first disk was touched
			for _, d := range []struct {
				*disk
				done bool
				at   int64
			}{{first, tt.want == "" || !checked, mib}, {second, tt.want == "", map[bool]int64{true: 512, false: mib}[tt.second == biosMBR]}, {third, tt.want == "" || !checked, 512}} {
				start := make([]byte, 2*mib)
				if _, err := d.File.ReadAt(start, 0); err != nil {
					t.Fatal(err)
				}
				if !d.done {
					// On one that failed the older one is not left either, unless it is the first sector that cannot be written.
					if start[0] == 'B' || !checked && tt.failAt > 0 && start[0] != 0 {
						t.Errorf("a disk that failed, or was not to be touched, has boot code %q", start[:4])
					}
					continue
				}
				wantCore := bytes.Clone(core)
				binary.LittleEndian.PutUint64(wantCore[500:], uint64(d.at/512+1))
				if !bytes.Equal(start[d.at:][:len(core)], wantCore) {
					t.Errorf("no core at %d", d.at)
				}
				if start[0] != 'B' || start[439] != 'B' || binary.LittleEndian.Uint64(start[0x5c:]) != uint64(d.at/512) || string(start[0x66:0x68]) != "\x90\x90" {
					t.Errorf("boot code %q, core at %d, check of the drive %x", start[:4], binary.LittleEndian.Uint64(start[0x5c:]), start[0x66:0x68])
				}
			}
		})
	}
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		d := biosTable(t, 512, biosGPT)
		if err := (&BIOSLoader{boot: boot, core: core}).Install(ctx, []BIOSDisk{{"first", d}}); !errors.Is(err, context.Canceled) {
			t.Errorf("Install() = %v", err)
		}
	})
}

// dumpTable is the partition table by the word of sfdisk.
func dumpTable(t *testing.T, d *disk) string {
	t.Helper()
	head := make([]byte, 512)
	if _, err := d.File.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if string(head[510:]) != "\x55\xaa" {
		return ""
	}
	return run(t, "", "sfdisk", "--dump", d.Name())
}
