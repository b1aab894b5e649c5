// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
)

// loopDisk makes a disk with what an sfdisk script says.
func loopDisk(t *testing.T, size int64, sector int, script string) (device, file string) {
	t.Helper()
	device, file = looptest.New(t, size, sector)
	if script != "" {
		run(t, script, "sfdisk", "-q", "--no-tell-kernel", "--no-reread", device)
	}
	return device, file
}

// showPartitions makes the kernel know the partitions of a disk, also one that reads no partition tables itself.
func showPartitions(t *testing.T, device string) {
	t.Helper()
	run(t, "", "partx", "--update", device)
	t.Cleanup(func() { run(t, "", "partx", "--delete", device) })
}

// copyTree makes files below dir.
func copyTree(t *testing.T, dir string, files ...string) {
	t.Helper()
	for name, f := range tree(t, files...) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func hasFileSystem(name string) bool {
	b, err := os.ReadFile("/proc/filesystems")
	return err == nil && strings.Contains(string(b), "\t"+name+"\n")
}

func TestRootWrite(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, label := range []string{"gpt", "dos"} {
			t.Run(fmt.Sprintf("%s, %d", label, sector), func(t *testing.T) {
				first := mib / sector
				_, file := loopDisk(t, 24*mib, sector, fmt.Sprintf("label: %s\nstart=%d, size=%d\n", label, first, 20*first))
				published, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				copy(published[5*mib:], "something")

				device, disk := loopDisk(t, 160*mib, sector, fmt.Sprintf("label: gpt\nstart=%d, size=%d\n", 2*first, 100*first)) // old
				d, err := stream.OpenDevice(device)
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				r, err := Write(t.Context(), d, Spec{Sources: []stream.Source{source{b: published}}, Digest: sha(published), ConfigDrive: testDrive(t), ReadBack: stream.ReadBackFull})
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}

				if out := run(t, "", "sfdisk", "--verify", device); !strings.Contains(out, "No errors detected") {
					t.Errorf("sfdisk --verify: %s", out)
				}
				if out := run(t, "", "sgdisk", "-v", device); label == "gpt" && !strings.Contains(out, "No problems found") {
					t.Errorf("sgdisk -v: %s", out)
				}
				if dump := run(t, "", "sfdisk", "--dump", device); strings.Count(dump, "start=") != 2 || !strings.Contains(dump, "label: "+label) {
					t.Errorf("sfdisk --dump: %s", dump)
				}
				showPartitions(t, device)
				want := map[int]string{512: `LABEL="config-2"`, 4096: `LABEL="CONFIG-2"`}[sector]
				if out := run(t, "", "blkid", "-p", device+"p2"); !strings.Contains(out, want) {
					t.Errorf("blkid: %s, want %s", out, want)
				}
				got, err := os.ReadFile(disk)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got[mib:21*mib], published[mib:21*mib]) {
					t.Error("image and disk differ")
				}
				if r.ConfigDrive.Number != 2 || r.ConfigDrive.Size != configDriveSize || r.ConfigDrive.Start%mib != 0 {
					t.Errorf("config drive is in %+v", r.ConfigDrive)
				}
			})
		}
	}
}

// An image for other sectors leaves the disk as it was.
func TestRootWriteWrongSector(t *testing.T) {
	_, file := loopDisk(t, 24*mib, 4096, "label: gpt\nstart=256, size=1024\n")
	published, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	device, _ := loopDisk(t, 64*mib, 512, "label: gpt\nstart=2048, size=2048\n")
	before := run(t, "", "sfdisk", "--dump", device)
	d, err := stream.OpenDevice(device)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := Write(t.Context(), d, Spec{Sources: []stream.Source{source{b: published}}}); !errors.Is(err, ErrSectorSize) {
		t.Errorf("Write() = %v, want %v", err, ErrSectorSize)
	}
	if after := run(t, "", "sfdisk", "--dump", device); after != before {
		t.Errorf("disk was touched: %s", after)
	}
}

func fileSum(t *testing.T, name string) [32]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

func TestRootFindBootEntry(t *testing.T) {
	const script = "label: gpt\nsize=16MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\nsize=128MiB\nsize=320MiB\n"
	debian := []string{"boot/grub/grub.cfg\n@debian12/grub.cfg", "boot/vmlinuz-6.1.0-56-amd64\nkernel 56", "boot/initrd.img-6.1.0-56-amd64\ninitrd 56",
		"boot/vmlinuz-6.1.0-50-amd64\nkernel 50", "boot/initrd.img-6.1.0-50-amd64\ninitrd 50"}
	fedora := []string{"grub2/grub.cfg\n@fedora/grub.cfg", "loader/entries/a-6.5.6.conf\n" + bls("Fedora", "6.5.6", "/vmlinuz-6.5.6", "/initramfs-6.5.6.img", "$kernelopts"),
		"vmlinuz-6.5.6\nkernel fedora", "initramfs-6.5.6.img\ninitrd fedora"}
	ext4 := func(uuid string, partition int) func(*testing.T, string, string) {
		return func(t *testing.T, device, dir string) {
			run(t, "", "mkfs.ext4", "-q", "-U", uuid, "-d", dir, fmt.Sprintf("%sp%d", device, partition))
		}
	}
	btrfs := func(t *testing.T, device, dir string) {
		run(t, "", "mkfs.btrfs", "-q", "-U", debianRoot, "--rootdir", dir, device+"p2")
	}
	xfs := func(t *testing.T, device, dir string) {
		run(t, "", "mkfs.xfs", "-q", "-m", "uuid="+fedoraBoot, device+"p3")
		mnt := t.TempDir()
		run(t, "", "mount", device+"p3", mnt)
		run(t, "", "cp", "-a", dir+"/.", mnt)
		run(t, "", "umount", mnt)
	}
	link := func(from, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, from)); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name   string
		files  []string
		change func(*testing.T, string)
		make   func(*testing.T, string, string)
		want   string // contents of kernel and initrd
		cmd    string // part of the command line, or of the error if want is empty
	}{
		{"ext4", debian, nil, ext4(debianRoot, 2), "kernel 56 initrd 56", "root=UUID=" + debianRoot + " ro"},
		{"btrfs", debian, nil, btrfs, "kernel 56 initrd 56", "root=UUID="},
		{"xfs, /boot of its own", fedora, nil, xfs, "kernel fedora initrd fedora", "root=UUID=0d2c"},
		{"a link inside", debian, link("boot/vmlinuz-6.1.0-56-amd64", "vmlinuz-6.1.0-50-amd64"), ext4(debianRoot, 3), "kernel 50 initrd 56", "root="},
		{"a link that leads out", debian, link("boot/vmlinuz-6.1.0-56-amd64", "/etc/passwd"), ext4(debianRoot, 2), "", "default does not start Linux"},
		{"a link that climbs out", debian, link("boot/vmlinuz-6.1.0-56-amd64", "../../../../../../../../etc/passwd"), ext4(debianRoot, 2), "", "default does not start Linux"},
		{"the configuration is a pipe", debian, func(t *testing.T, dir string) {
			run(t, "", "rm", dir+"/boot/grub/grub.cfg")
			run(t, "", "mkfifo", dir+"/boot/grub/grub.cfg")
		}, ext4(debianRoot, 2), "", "not a file"},
		{"no boot menu", []string{"etc/hostname\nx"}, nil, ext4(debianRoot, 2), "", "no entry of a boot menu was found"},
		{"nothing on the disk", nil, nil, nil, "", "no entry of a boot menu was found"},
		{"the file system is broken", debian, nil, func(t *testing.T, device, dir string) {
			ext4(debianRoot, 2)(t, device, dir)
			run(t, "", "dd", "if=/dev/urandom", "of="+device+"p2", "bs=4096", "seek=1", "count=600", "conv=notrunc,fsync", "status=none")
		}, "", "p2 as ext4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device, file := loopDisk(t, 480*mib, 512, script)
			showPartitions(t, device)
			dir := t.TempDir()
			copyTree(t, dir, tt.files...)
			if tt.change != nil {
				tt.change(t, dir)
			}
			if tt.make != nil {
				tt.make(t, device, dir)
			}
			run(t, "", "sync")
			before := fileSum(t, file)
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)

			entry, root, cleanup, err := FindBootEntry(t.Context(), device, nil)
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), tt.cmd) {
					t.Errorf("FindBootEntry() = %+v, %v, want an error with %q", entry, err, tt.cmd)
				}
			} else if err != nil {
				t.Fatal(err)
			} else {
				var got []string
				for _, name := range append([]string{entry.Kernel}, entry.Initrds...) {
					b, err := os.ReadFile(filepath.Join(root, name))
					if err != nil {
						t.Error(err)
					}
					got = append(got, string(b))
				}
				if s := strings.Join(got, " "); s != tt.want || !strings.Contains(entry.Cmdline, tt.cmd) {
					t.Errorf("FindBootEntry() starts %q with %q, want %q with %q", s, entry.Cmdline, tt.want, tt.cmd)
				}
				if err := os.WriteFile(filepath.Join(root, "x"), nil, 0o600); err == nil {
					t.Error("the disk can be written to")
				}
				if err := cleanup(); err != nil {
					t.Error(err)
				}
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			run(t, "", "sync")
			// In the superblock of a broken file system the kernel notes that it is broken.
			if !strings.Contains(tt.name, "broken") && fileSum(t, file) != before {
				t.Error("the disk was written to")
			}
		})
	}
	if _, _, _, err := FindBootEntry(t.Context(), "/dev/nonexistent", nil); err == nil {
		t.Error("a disk that is not there has a boot entry")
	}
}

// efibootmgr understands what InstallUEFI wrote, and writes the same itself.
func TestRootInstallUEFI(t *testing.T) {
	const script = "label: gpt\nsize=32MiB\nsize=32MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=7E0C2D9A-1B7F-4B43-8E5A-0A9A0C51E2F1\n"
	esp := []string{"EFI/debian/BOOTX64.CSV\n" + utf16le("\ufeffshimx64.efi,debian,,This is the boot entry for debian\n", false), "EFI/debian/BOOTAA64.CSV\n" + utf16le("\ufeffshimaa64.efi,debian,,\n", false),
		"EFI/debian/shimx64.efi\nMZ", "EFI/debian/shimaa64.efi\nMZ", "EFI/BOOT/BOOTX64.EFI\nMZ"}
	tests := []struct {
		name, script string
		files        []string
		mkfs         string
		wantErr      error
	}{
		{"ESP with FAT", script, esp, "vfat", nil},
		{"ESP with another file system", script, esp, "ext4", nil}, // where the kernel has no FAT
		{"no loader", script, []string{"EFI/debian/grub.cfg"}, "ext4", ErrNoLoader},
		{"ESP is empty", script, nil, "", ErrNoLoader},
		{"no ESP", "label: gpt\nsize=32MiB\nsize=32MiB\n", esp, "ext4", ErrNoESP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			device, _ := loopDisk(t, 80*mib, 512, tt.script)
			showPartitions(t, device)
			dir := t.TempDir()
			copyTree(t, dir, tt.files...)
			switch tt.mkfs {
			case "ext4":
				run(t, "", "mkfs.ext4", "-q", "-d", dir, device+"p2")
			case "vfat":
				if !hasFileSystem("vfat") {
					t.Skip("the kernel has no vfat") // tested in virtual machines
				}
				run(t, "", "mkfs.vfat", device+"p2")
				run(t, "", "mcopy", "-s", "-i", device+"p2", dir+"/EFI", "::")
			}
			vars := t.TempDir()
			got, err := InstallUEFI(t.Context(), device, vars, nil)
			if tt.wantErr != nil {
				left, rerr := os.ReadDir(vars)
				if !errors.Is(err, tt.wantErr) || rerr != nil || len(left) != 0 {
					t.Errorf("InstallUEFI() = %v, want %v; variables %v, %v", err, tt.wantErr, left, rerr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Number != 0 || got.Label != "debian" {
				t.Errorf("InstallUEFI() = %v", got)
			}
			if again, err := InstallUEFI(t.Context(), device, vars, nil); err != nil || again.String() != got.String() {
				t.Errorf("the second time: %v, %v", again, err)
			}

			need(t, "efibootmgr")
			manager := func(args ...string) string {
				cmd := exec.Command("efibootmgr", args...)
				cmd.Env = append(os.Environ(), "EFIVARFS_PATH="+vars+"/")
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("efibootmgr %v: %v\n%s", args, err, out)
				}
				return string(out)
			}
			file := strings.ReplaceAll(got.File, "/", `\`)
			if out := manager("-v"); !strings.Contains(out, "BootOrder: 0000") || !strings.Contains(out, "Boot0000* debian") ||
				!strings.Contains(out, "HD(2,GPT,7e0c2d9a-1b7f-4b43-8e5a-0a9a0c51e2f1,0x10800,0x10000)/File("+file+")") {
				t.Errorf("efibootmgr -v: %s", out)
			}
			manager("-q", "-c", "-d", device, "-p", "2", "-L", "judge", "-l", got.File)
			ours, err := os.ReadFile(filepath.Join(vars, "Boot0000-"+efiGlobal))
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := os.ReadFile(filepath.Join(vars, "Boot0001-"+efiGlobal))
			if err != nil {
				t.Fatal(err)
			}
			a, err := ParseLoadOption(ours[4:])
			if err != nil {
				t.Fatal(err)
			}
			b, err := ParseLoadOption(theirs[4:])
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a.Path, b.Path) || a.Attributes != b.Attributes || !bytes.Equal(ours[:4], theirs[:4]) {
				t.Errorf("ours is   %x\ntheirs is %x", ours, theirs)
			}
		})
	}
}
