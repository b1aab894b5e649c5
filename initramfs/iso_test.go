// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestISO(t *testing.T) {
	loaders := fakeLoaders(t)
	dir := t.TempDir()
	spec := ISO{
		Kernel: write(t, filepath.Join(dir, "k"), []byte("kernel"), 0o600), Initramfs: write(t, filepath.Join(dir, "i"), []byte("initramfs"), 0o600),
		Loaders: loaders,
	}
	var b, again bytes.Buffer
	n, err := spec.Write(&b)
	must(t, err)
	if n != int64(b.Len()) || n%2048 != 0 {
		t.Errorf("Write = %d, wrote %d", n, b.Len())
	}
	if _, err := spec.Write(&again); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("two ISO images differ, error %v", err)
	}
	iso := write(t, filepath.Join(dir, "iso"), b.Bytes(), 0o600)
	xorriso := judge(t, "xorriso")
	out, err := exec.Command(xorriso, "-report_about", "NOTE", "-indev", iso, "-report_el_torito", "plain", "-find").CombinedOutput()
	must(t, err)
	for _, want := range []string{
		"Volume id    : 'IRONHAND'", "1  BIOS  y   none", "2  UEFI  y   none", "img path :   1  /isolinux/isolinux.bin", "img opts :   1  boot-info-table",
		"img path :   2  /boot/efi.img", "'./.disk/info'", "'./boot/grub/grub.cfg'", "'./boot/vmlinuz'", "'./boot/initrd.img'", "'./isolinux/ldlinux.c32'",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("xorriso does not say %q:\n%s", want, out)
		}
	}
	// The EFI system partition, by mtools.
	efi := filepath.Join(dir, "efi.img")
	if out, err := exec.Command(xorriso, "-osirrox", "on", "-indev", iso, "-extract", "/boot/efi.img", efi).CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	if out, err := exec.Command(judge(t, "fsck.fat"), "-n", efi).CombinedOutput(); err != nil {
		t.Errorf("fsck.fat: %v\n%s", err, out)
	}
	shim, err := exec.Command(judge(t, "mtype"), "-i", efi, "::EFI/BOOT/BOOTX64.EFI").Output()
	if string(shim) != "shim" || err != nil {
		t.Errorf("EFI/BOOT/BOOTX64.EFI = %q, %v", shim, err)
	}
}

func fakeLoaders(t *testing.T) Loaders {
	dir := t.TempDir()
	file := func(name, text string) string { return write(t, filepath.Join(dir, name), []byte(text), 0o600) }
	return Loaders{
		Shim: file("shim", "shim"), Grub: file("grub", "grub"), MokManager: file("mm", "mm"),
		Isolinux: file("isolinux", strings.Repeat("isolinux", 100)), Ldlinux: file("ldlinux", "ldlinux"),
	}
}

func TestISORefuses(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "file"), []byte("x"), 0o600)
	for _, c := range []struct {
		name   string
		change func(s *ISO)
		want   string
	}{
		{"no kernel", func(s *ISO) { s.Kernel = file + "x" }, "kernel: stat"},
		{"no initramfs", func(s *ISO) { s.Initramfs = file + "x" }, "initramfs: stat"},
		{"no shim", func(s *ISO) { s.Loaders.Shim = file + "x" }, "install the Debian package shim-signed"},
		{"no GRUB", func(s *ISO) { s.Loaders.Grub = file + "x" }, "install the Debian package grub-efi-amd64-signed"},
		{"no key manager", func(s *ISO) { s.Loaders.MokManager = file + "x" }, "install the Debian package shim-helpers-amd64-signed"},
		{"no ISOLINUX", func(s *ISO) { s.Loaders.Isolinux = file + "x" }, "install the Debian package isolinux"},
		{"no core module of it", func(s *ISO) { s.Loaders.Ldlinux = file + "x" }, "install the Debian package syslinux-common"},
		{"loader is empty", func(s *ISO) { s.Loaders.Shim = os.DevNull }, "is empty"},
		{"label too long", func(s *ISO) { s.Label = strings.Repeat("L", 33) }, "1 to 32"},
		{"quotes in the command line", func(s *ISO) { s.Cmdline = `a="b c"` }, `character '"'`},
		{"second line in the command line", func(s *ISO) { s.Cmdline = "a\nINCLUDE x" }, `character '\n'`},
		{"variable in the command line", func(s *ISO) { s.Cmdline = "a=$b" }, `character '$'`},
		{"command line too long", func(s *ISO) { s.Cmdline = strings.Repeat("a ", 2000) }, "at most 2000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := ISO{Kernel: file, Initramfs: file, Loaders: fakeLoaders(t)}
			c.change(&s)
			if _, err := s.Write(io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
