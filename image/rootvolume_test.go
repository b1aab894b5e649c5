// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/stream"
)

var testVolume = LogicalVolume{"sys-1", "root"}

const (
	volumeWords = "root=/dev/mapper/sys--1-root rd.lvm.lv=sys-1/root"
	volumeMenu  = "menuentry 'Debian' {\nsearch --fs-uuid --set=root " + rootUUID + "\nlinux /boot/vmlinuz-6.1.0-9-amd64 ROOT ro quiet\ninitrd /boot/initrd.img-6.1.0-9-amd64\n}\n"
)

// The menus of an image name the root by its UUID or label; those that grub-mkconfig makes name volumes. What names something else is not touched, and not used.
func TestNameVolume(t *testing.T) {
	const prefix = "search.fs_uuid " + rootUUID + " root\n"
	const lead = prefix + "set prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
	for _, tt := range []struct {
		name, file, has string
		want            string // of the file; "" as it was
		config          string // of GRUB on the EFI system partition
	}{
		{"UUID", "boot/grub/grub.cfg", "root=UUID=" + rootUUID, volumeWords, lead},
		{"path of the UUID", "boot/grub/grub.cfg", "root=/dev/disk/by-uuid/" + rootUUID, volumeWords, lead},
		{"label", "boot/grub/grub.cfg", "root=LABEL=root", volumeWords, lead},
		{"named already", "boot/grub/grub.cfg", volumeWords, "", lead},
		{"another UUID", "boot/grub/grub.cfg", "root=UUID=" + rootUUID + "1", "", prefix + "linux /boot/vmlinuz-6.1.0-9-amd64 " + volumeWords + " ro quiet\ninitrd /boot/initrd.img-6.1.0-9-amd64\nboot\n"},
		{"another volume", "boot/grub/grub.cfg", "root=/dev/mapper/a-b rd.lvm.lv=a/b", "", prefix + "linux /boot/vmlinuz-6.1.0-9-amd64 " + volumeWords + " ro quiet\ninitrd /boot/initrd.img-6.1.0-9-amd64\nboot\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := rootTree(t, append(debianTree(), tt.file+"\n"+strings.Replace(volumeMenu, "ROOT", tt.has, 1))...)
			if err := os.Chmod(filepath.Join(root.Name(), tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			at := Root{FileSystem: FileSystem{Type: "ext4", UUID: rootUUID, Label: "root"}, Volume: testVolume}
			for range 2 { // the same again changes nothing
				if err := at.nameVolume(root); err != nil {
					t.Fatal(err)
				}
			}
			b, err := root.ReadFile(tt.file)
			want := tt.want
			if want == "" {
				want = tt.has
			}
			if err != nil || string(b) != strings.Replace(volumeMenu, "ROOT", want, 1) {
				t.Errorf("the menu is %s, %v", b, err)
			}
			if info, err := root.Stat(tt.file); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			files, _, err := espFiles(root.FS(), at, "amd64")
			if got := string(files["EFI/debian/grub.cfg"]); err != nil || got != tt.config {
				t.Errorf("GRUB's configuration is %q, %v, want %q", got, err, tt.config)
			}
		})
	}
	root := rootTree(t, "boot/loader/entries/a.conf\ntitle x\noptions root=UUID="+rootUUID+" ro\n", "etc/kernel/cmdline\nroot=UUID="+rootUUID)
	if err := (Root{FileSystem: FileSystem{UUID: rootUUID}, Volume: testVolume}).nameVolume(root); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"boot/loader/entries/a.conf": "title x\noptions " + volumeWords + " ro\n", "etc/kernel/cmdline": volumeWords} {
		if b, err := root.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s is %q, %v, want %q", name, b, err, want)
		}
	}
}

// treeVolumes have a directory in place of the file system.
type treeVolumes struct {
	root *os.Root
	did  *[]string
	fail string
}

func (v treeVolumes) do(what string) error {
	*v.did = append(*v.did, what)
	if strings.HasPrefix(what, v.fail) && v.fail != "" {
		return errors.New("broken")
	}
	return nil
}
func (v treeVolumes) Format(context.Context, Partition, string, string) error {
	return errors.ErrUnsupported
}
func (v treeVolumes) Grow(_ context.Context, p Partition, _ FileSystem) error {
	return v.do(fmt.Sprintf("grow to %d", p.Size))
}
func (v treeVolumes) View(_ context.Context, _ Partition, _ FileSystem, look func(fs.FS) error) error {
	if err := v.do("view"); err != nil {
		return err
	}
	return look(v.root.FS())
}
func (v treeVolumes) Change(_ context.Context, _ Partition, _ FileSystem, do func(*os.Root) error) error {
	if err := v.do("change"); err != nil {
		return err
	}
	return do(v.root)
}

// Wherever it breaks, no file system is in the volume; blkid is the judge.
func TestWriteVolume(t *testing.T) {
	published := smallRoot(t)
	for _, tt := range []struct {
		name, fail string
		failAt     int64
		bios       bool
		mirror     bool
		digest     []byte
		size       int64
		want       string // part of the error
		refused    bool   // before the volume is used
		warns      string
		did        string
	}{
		{name: "all goes well", did: "grow to 12582912, change, view"},
		{name: "a mirror", mirror: true, did: "grow to 12582912, change, view"},
		{name: "BIOS", bios: true, did: "grow to 12582912, change"},
		{name: "as large as the volume", size: 8 * mib, did: "change, view"},
		{name: "cannot grow", fail: "grow", warns: "the root file system stays as it is in the image"},
		{name: "cannot be looked into", fail: "view", warns: "the EFI system partition is empty"},
		{name: "cannot be changed", fail: "change", want: "name the volume in what the image is started by: broken"},
		{name: "too small", size: 7 * mib, want: "root partition is too small", refused: true},
		{name: "bad sector", failAt: 5 * mib, want: "bad sector"},
		{name: "another digest", digest: []byte("x"), want: "digest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			size := int64(12 * mib)
			if tt.size > 0 {
				size = tt.size
			}
			d := newDisk(t, size, 512)
			if tt.failAt > 0 {
				d.failAt = tt.failAt
			}
			var did []string
			v := treeVolumes{root: rootTree(t, append(debianTree(), initramfsTools()...)...), did: &did, fail: tt.fail}
			digest := sha(published)
			if tt.digest != nil {
				digest = sha(tt.digest)
			}
			used := false
			r, files, err := WriteVolume(t.Context(), size, 512, Spec{Sources: []stream.Source{source{b: published}}, Digest: digest}, testVolume, tt.mirror, !tt.bios, func(write func(Disk, Volumes) error) error {
				used = true
				return write(d, v)
			})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("WriteVolume() = %v, want %q", err, tt.want)
				}
				if used == tt.refused {
					t.Errorf("the volume was used: %v", used)
				}
				if out := run(t, "", "wipefs", "--no-act", d.Name()); used && strings.TrimSpace(out) != "" {
					t.Errorf("wipefs finds\n%s", out)
				}
				return
			}
			if err != nil || r.RootUUID != rootUUID || !strings.HasPrefix(strings.Join(r.Warnings, "\n"), tt.warns) || (tt.warns == "") != (len(r.Warnings) == 0) {
				t.Fatalf("WriteVolume() = %+v, %v", r, err)
			}
			if got := strings.Join(did, ", "); tt.did != "" && got != tt.did {
				t.Errorf("it did %s, want %s", got, tt.did)
			}
			if has := strings.Contains(string(files["EFI/debian/grub.cfg"]), "root="+testVolume.Device()); has != (!tt.bios && tt.fail != "view") {
				t.Errorf("GRUB's configuration is %q", files["EFI/debian/grub.cfg"])
			}
			if out := run(t, "", "blkid", "-p", d.Name()); !strings.Contains(out, rootUUID) {
				t.Errorf("blkid: %s", out)
			}
			if has := isFile(v.root.FS(), degradedFile); has != tt.mirror {
				t.Errorf("the system starts without a disk: %v", has)
			}
		})
	}
}
