// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ironhand/ironhand/stream"
)

const (
	rootUUID   = "6f1f64b5-2a8f-4f4a-8f0e-3c1b7d2e9a10"
	debianGRUB = "grub, whose prefix is /EFI/debian"
)

// debianTree is a root file system as Debian's packages make it.
func debianTree() []string {
	return []string{"etc/os-release\nID=debian", "boot/vmlinuz-6.1.0-9-amd64\nold", "boot/initrd.img-6.1.0-9-amd64\nold", "boot/vmlinuz-6.1.0-56-amd64\nkernel", "boot/initrd.img-6.1.0-56-amd64\ninitrd",
		"usr/lib/shim/shimx64.efi.signed\nshim", "usr/lib/shim/shimaa64.efi.signed\nshim", "usr/lib/shim/mmx64.efi.signed\nmm", "usr/lib/shim/BOOTX64.CSV\ncsv",
		"usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed\n" + debianGRUB, "usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed\n" + debianGRUB}
}

// fakeVolumes has a tree in place of each file system, and looks at the disk.
type fakeVolumes struct {
	tree fs.FS
	look func(what string) error
}

func (v fakeVolumes) Format(_ context.Context, p Partition, kind, label string) error {
	return v.look(fmt.Sprintf("format %d as %s %s", p.Number, kind, label))
}
func (v fakeVolumes) Grow(_ context.Context, p Partition, f FileSystem) error {
	return v.look(fmt.Sprintf("grow %d, %s", p.Number, f.Type))
}
func (v fakeVolumes) View(_ context.Context, p Partition, _ FileSystem, do func(fs.FS) error) error {
	if err := v.look(fmt.Sprintf("view %d", p.Number)); err != nil {
		return err
	}
	return do(v.tree)
}
func (v fakeVolumes) Change(context.Context, Partition, FileSystem, func(*os.Root) error) error {
	return errors.ErrUnsupported
}

func smallRoot(t *testing.T) []byte {
	t.Helper()
	file := newFile(t, 8*mib)
	run(t, "", "mkfs.ext4", "-q", "-F", "-U", rootUUID, file)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Until all is done, the disk has no table and says by itself that it is not whole; wherever it breaks, nothing is left that could start or be mounted.
func TestWritePartitionsOrder(t *testing.T) {
	published := smallRoot(t)
	l := Layout{UEFI: true, ESP: 33, Ephemeral: 4, EphemeralFormat: "ext4", Swap: 4, Root: 12}
	// 1 ESP, 34 ephemeral, 38 swap, 42 config drive, 43 root, to 55
	tests := []struct {
		name   string
		failAt int64 // of a write
		fail   string
		want   string // part of the error
		warns  string
	}{
		{name: "all goes well"},
		{name: "root cannot grow", fail: "grow", warns: "the root file system stays as it is in the image, 8 of the partition's 12 MiB: broken"},
		{name: "root cannot be looked into", fail: "view", warns: "the EFI system partition is empty, and the firmware cannot start the system: broken"},
		{name: "image", failAt: 47 * mib, want: "bad sector"},
		{name: "start of the image", failAt: 43 * mib, want: "bad sector"},
		{name: "EFI system partition", failAt: mib + 512, want: "bad sector"},
		{name: "ephemeral", fail: "format", want: "ephemeral partition: broken"},
		{name: "swap", failAt: 38*mib + 1024, want: "bad sector"},
		{name: "config drive", failAt: 42*mib + 40<<10, want: "bad sector"},
		{name: "table", failAt: 1024, want: "bad sector"},
		{name: "first sector", failAt: 511, want: "bad sector"},
		{name: "backup of the table", failAt: 60*mib - 1, want: "bad sector"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisk(t, 60*mib, 512)
			var did []string
			var check error
			v := fakeVolumes{tree: fstest.MapFS(tree(t, debianTree()...)), look: func(what string) error {
				did = append(did, what)
				b := make([]byte, mib)
				if _, err := d.ReadAt(b, 0); err != nil {
					return err
				}
				half, err := stream.Unfinished(bytes.NewReader(b))
				if _, terr := parseLayout(b, 512, -1); !half || err != nil || terr == nil {
					check = fmt.Errorf("%s: the disk says that it is not whole: %v, %v; it has a table: %v", what, half, err, terr == nil)
				}
				if tt.failAt != 0 && d.failAt < 0 {
					d.failAt = tt.failAt
				}
				if tt.fail != "" && strings.HasPrefix(what, tt.fail) {
					return errors.New("broken")
				}
				return nil
			}}
			if tt.failAt >= 43*mib && tt.failAt < 60*mib-mib {
				d.failAt = tt.failAt
			}
			r, err := WritePartitions(t.Context(), d, Spec{Sources: []stream.Source{source{b: published}}, Digest: sha(published), ConfigDrive: testDrive(t), ReadBack: stream.ReadBackFull}, l, v)
			if check != nil {
				t.Error(check)
			}
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(did, ", "); got != "grow 5, ext4, view 5, format 2 as ext4 ephemeral0" && tt.fail == "" {
					t.Errorf("it did %s", got)
				}
				if got := strings.Join(r.Warnings, "\n"); got != tt.warns {
					t.Errorf("warnings %q, want %q", got, tt.warns)
				}
				if out := run(t, "", "sgdisk", "-v", d.Name()); !strings.Contains(out, "No problems found") {
					t.Errorf("sgdisk -v: %s", out)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("WritePartitions() = %v, want %q", err, tt.want)
			}
			if tt.failAt != 0 { // it broke while it was cleared again
				return
			}
			if out := run(t, "", "wipefs", "--no-act", d.Name()); strings.TrimSpace(out) != "" {
				t.Errorf("wipefs finds\n%s", out)
			}
			for _, p := range r.Roles {
				if out := run(t, "", "sh", "-c", fmt.Sprintf("blkid -p -O %d %s || true", p.Start, d.Name())); strings.TrimSpace(out) != "" {
					t.Errorf("at %d: %s", p.Start, out)
				}
			}
		})
	}
}

func TestESPFiles(t *testing.T) {
	const uuid = rootUUID
	without := func(names ...string) []string {
		var kept []string
		for _, f := range debianTree() {
			name, _, _ := strings.Cut(f, "\n")
			keep := true
			for _, n := range names {
				keep = keep && !strings.HasPrefix(name, n)
			}
			if keep {
				kept = append(kept, f)
			}
		}
		return kept
	}
	menu := "boot/grub/grub.cfg\nmenuentry 'Debian' {\nlinux /boot/vmlinuz-6.1.0-9-amd64 root=UUID=" + uuid + " ro\ninitrd /boot/initrd.img-6.1.0-9-amd64\n}\n"
	fedora := append(without("usr/lib"), "boot/efi/EFI/fedora/shimx64.efi\nshim", "boot/efi/EFI/fedora/grubx64.efi\ngrub", "boot/efi/EFI/fedora/grub.cfg\nwhere it was made", "boot/efi/EFI/BOOT/BOOTX64.EFI\nshim", "boot/efi/EFI/BOOT/fbx64.efi\nfallback")
	bls := "boot/loader/entries/f.conf\ntitle Fedora\nversion 6.5\nlinux /boot/vmlinuz-6.1.0-56-amd64\ninitrd /boot/initrd.img-6.1.0-56-amd64\noptions root=UUID=x ro rhgb\n"
	newest := "search.fs_uuid " + uuid + " root\nlinux /boot/vmlinuz-6.1.0-56-amd64 root=UUID=" + uuid + " ro\ninitrd /boot/initrd.img-6.1.0-56-amd64\nboot\n"
	tests := []struct {
		name  string
		files []string
		arch  string
		paths string // what there is
		cfg   string // of the vendor; or part of the error if paths is empty
	}{
		{"Debian without a menu", debianTree(), "amd64", "EFI/BOOT/BOOTX64.EFI EFI/BOOT/grubx64.efi EFI/BOOT/mmx64.efi EFI/debian/BOOTX64.CSV EFI/debian/grub.cfg EFI/debian/grubx64.efi EFI/debian/mmx64.efi EFI/debian/shimx64.efi", newest},
		{"settings of grub-mkconfig", append(debianTree(), "etc/default/grub\nGRUB_CMDLINE_LINUX=\"console=ttyS0 root=/dev/sda1 rw\"\n"), "amd64", "EFI/BOOT/BOOTX64.EFI EFI/BOOT/grubx64.efi EFI/BOOT/mmx64.efi EFI/debian/BOOTX64.CSV EFI/debian/grub.cfg EFI/debian/grubx64.efi EFI/debian/mmx64.efi EFI/debian/shimx64.efi",
			strings.Replace(newest, " ro\n", " console=ttyS0 rw\n", 1)},
		{"ARM", debianTree(), "arm64", "EFI/BOOT/BOOTAA64.EFI EFI/BOOT/grubaa64.efi EFI/debian/grub.cfg EFI/debian/grubaa64.efi EFI/debian/shimaa64.efi", newest},
		{"with GRUB's menu", append(debianTree(), menu), "amd64", "EFI/BOOT/BOOTX64.EFI EFI/BOOT/grubx64.efi EFI/BOOT/mmx64.efi EFI/debian/BOOTX64.CSV EFI/debian/grub.cfg EFI/debian/grubx64.efi EFI/debian/mmx64.efi EFI/debian/shimx64.efi",
			"search.fs_uuid " + uuid + " root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"},
		{"a menu that starts nothing", append(debianTree(), "boot/grub/grub.cfg\nmenuentry x {\nlinux /boot/none\n}\n"), "amd64", "EFI/BOOT/BOOTX64.EFI EFI/BOOT/grubx64.efi EFI/BOOT/mmx64.efi EFI/debian/BOOTX64.CSV EFI/debian/grub.cfg EFI/debian/grubx64.efi EFI/debian/mmx64.efi EFI/debian/shimx64.efi", newest},
		{"Fedora", append(slices.Clone(fedora), bls), "amd64", "EFI/BOOT/BOOTX64.EFI EFI/BOOT/fbx64.efi EFI/fedora/grub.cfg EFI/fedora/grubx64.efi EFI/fedora/shimx64.efi",
			"search.fs_uuid " + uuid + " root\nlinux /boot/vmlinuz-6.1.0-56-amd64 root=UUID=" + uuid + " ro rhgb\ninitrd /boot/initrd.img-6.1.0-56-amd64\nboot\n"},
		{"no signed GRUB", without("usr/lib/grub"), "amd64", "", "not both of shim-signed and grub-efi's signed package are installed"},
		{"no shim", without("usr/lib/shim"), "amd64", "", "not both of shim-signed"},
		{"other architecture", without("usr/lib/grub/arm64"), "arm64", "", "not both of shim-signed"},
		{"no kernel", without("boot"), "amd64", "", "no kernel with an initrd in /boot"},
		{"kernel without initrd", without("boot/initrd"), "amd64", "", "no kernel with an initrd in /boot"},
		{"empty", []string{"etc/x\n"}, "amd64", "", "no kernel"},
		{"hostile kernel name", append(without("boot"), "boot/vmlinuz-9;reboot\nx", "boot/initrd.img-9;reboot\nx"), "amd64", "", `has "boot/vmlinuz-9;reboot"`},
		{"GRUB of somebody", append(without("usr/lib/grub"), "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed\nother"), "amd64", "", "neither Debian's nor Ubuntu's"},
		{"too many files", func() []string {
			files := slices.Clone(fedora)
			for i := range 1000 {
				files = append(files, fmt.Sprintf("boot/efi/EFI/x/%d\n", i))
			}
			return files
		}(), "amd64", "", "more than 1000 files"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, what, err := espFiles(fstest.MapFS(tree(t, tt.files...)), Root{FileSystem: FileSystem{UUID: uuid}}, tt.arch)
			if tt.paths == "" {
				if !errors.Is(err, ErrNoImageLoader) || !strings.Contains(err.Error(), tt.cfg) {
					t.Errorf("espFiles() = %v, want %q", err, tt.cfg)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(sortedKeys(files), " "); got != tt.paths {
				t.Errorf("files are\n%s, want\n%s", got, tt.paths)
			}
			for name := range maps.Keys(files) {
				if strings.HasSuffix(name, "grub.cfg") && string(files[name]) != tt.cfg {
					t.Errorf("%s is %q, want %q (%s)", name, files[name], tt.cfg, what)
				}
			}
		})
	}
	if _, _, err := espFiles(fstest.MapFS(tree(t, debianTree()...)), Root{}, "amd64"); !errors.Is(err, ErrNoImageLoader) {
		t.Errorf("without a UUID: %v", err)
	}
}

func TestDefaultCmdline(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"Debian's", "# comment\nGRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200\"\n", "console=tty0 console=ttyS0,115200 quiet"},
		{"single quotes, none, and the last one", "GRUB_CMDLINE_LINUX='a b'\nGRUB_CMDLINE_LINUX=c\n  GRUB_CMDLINE_LINUX_DEFAULT='d e'", "c d e"},
		{"empty", "GRUB_CMDLINE_LINUX=\"\"\n", ""},
		{"special for GRUB", "GRUB_CMDLINE_LINUX=\"a;reboot b {c} acpi_osi=!x d\"\n", "b d"},
		{"commented out", "#GRUB_CMDLINE_LINUX=\"a\"\n", ""},
		{"takes a shell", "GRUB_CMDLINE_LINUX=\"$(reboot) a\"\nGRUB_CMDLINE_LINUX_DEFAULT=\"b\"\n", "b"},
		{"two words, as a command", "GRUB_CMDLINE_LINUX=a reboot\n", ""},
		{"open quotes", "GRUB_CMDLINE_LINUX=\"a\nb\"\n", ""},
		{"quotes inside", "GRUB_CMDLINE_LINUX=\"a\"\"b\"\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := defaultCmdline(tt.script); got != tt.want {
				t.Errorf("defaultCmdline() = %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzDefaultCmdline(f *testing.F) {
	f.Add("GRUB_CMDLINE_LINUX=\"console=tty0\"\n")
	f.Fuzz(func(t *testing.T, s string) {
		if got := defaultCmdline(s); strings.ContainsAny(got, "$`\\\"'\n;|&<>{}()!") {
			t.Errorf("defaultCmdline() = %q", got)
		}
	})
}
