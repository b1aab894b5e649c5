// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// A stick has a partition table that other programs read, with the EFI system partition of the ISO, and a FAT file system for reports; as a CD it is as good.
func TestStick(t *testing.T) {
	dir := t.TempDir()
	spec := ISO{
		Kernel: write(t, filepath.Join(dir, "k"), []byte("kernel"), 0o600), Initramfs: write(t, filepath.Join(dir, "i"), []byte("initramfs"), 0o600),
		Loaders: fakeLoaders(t), Stick: true, Cmdline: BurnInCmdline,
	}
	var b bytes.Buffer
	n, err := spec.Write(&b)
	must(t, err)
	if n != int64(b.Len()) || n%(1<<20) != 0 {
		t.Errorf("Write = %d, wrote %d, want whole MiB", n, b.Len())
	}
	stick := write(t, filepath.Join(dir, "stick"), b.Bytes(), 0o600)
	out, err := exec.Command(judge(t, "sfdisk"), "--json", stick).CombinedOutput()
	must(t, err)
	var found struct {
		PartitionTable struct {
			Label      string
			Partitions []struct {
				Start, Size int64
				Type        string
				Bootable    bool
			}
		}
	}
	must(t, json.Unmarshal(out, &found))
	parts := found.PartitionTable.Partitions
	if found.PartitionTable.Label != "dos" || len(parts) != 2 || parts[0].Type != "e" || !parts[0].Bootable || parts[0].Size != ReportSize/512 || parts[1].Type != "ef" || parts[1].Bootable {
		t.Fatalf("sfdisk: %s", out)
	}
	if out, err := exec.Command(judge(t, "sfdisk"), "--verify", stick).CombinedOutput(); err != nil {
		t.Errorf("sfdisk --verify: %v\n%s", err, out)
	}
	reports := write(t, filepath.Join(dir, "reports"), b.Bytes()[parts[0].Start*512:][:parts[0].Size*512], 0o600)
	if out, err := exec.Command(judge(t, "fsck.fat"), "-n", reports).CombinedOutput(); err != nil {
		t.Errorf("fsck.fat: %v\n%s", err, out)
	}
	if label, err := exec.Command(judge(t, "mlabel"), "-s", "-i", reports, "::").Output(); err != nil || !strings.Contains(string(label), ReportLabel) {
		t.Errorf("label %q, %v", label, err)
	}
	system := write(t, filepath.Join(dir, "system"), b.Bytes()[parts[1].Start*512:][:parts[1].Size*512], 0o600)
	if shim, err := exec.Command(judge(t, "mtype"), "-i", system, "::EFI/BOOT/BOOTX64.EFI").Output(); err != nil || string(shim) != "shim" {
		t.Errorf("EFI/BOOT/BOOTX64.EFI = %q, %v", shim, err)
	}
	if label, err := exec.Command(judge(t, "mlabel"), "-s", "-i", system, "::").Output(); err != nil || strings.Contains(string(label), ReportLabel+" ") {
		t.Errorf("label of the EFI system partition %q, %v", label, err)
	}
	// Where ISOLINUX's program in the first sector finds the rest.
	out, err = exec.Command(judge(t, "xorriso"), "-report_about", "NOTE", "-indev", stick, "-report_el_torito", "plain", "-find", "/isolinux/isolinux.bin", "-exec", "report_lba").CombinedOutput()
	must(t, err)
	lba := regexp.MustCompile(`File data lba: +\d+ , +(\d+) ,`).FindSubmatch(out)
	if lba == nil || !strings.Contains(string(out), "2  UEFI  y   none") || fmt.Sprint(binary.LittleEndian.Uint64(b.Bytes()[432:])/4) != string(lba[1]) {
		t.Errorf("isolinux.bin is looked for at sector %d of 512 bytes; xorriso:\n%s", binary.LittleEndian.Uint64(b.Bytes()[432:]), out)
	}
}

func fakeLoaders(t *testing.T) Loaders {
	dir := t.TempDir()
	file := func(name, text string) string { return write(t, filepath.Join(dir, name), []byte(text), 0o600) }
	return Loaders{
		Shim: file("shim", "shim"), Grub: file("grub", "grub"), MokManager: file("mm", "mm"),
		Isolinux: file("isolinux", strings.Repeat("isolinux", 100)), Ldlinux: file("ldlinux", "ldlinux"),
		Isohybrid: file("isohdpfx", strings.Repeat("\x90", mbrCode)),
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
		{"no program for the first sector of a stick", func(s *ISO) { s.Stick, s.Loaders.Isohybrid = true, file+"x" }, "install the Debian package isolinux"},
		{"a wrong one", func(s *ISO) { s.Stick, s.Loaders.Isohybrid = true, file }, "isohdpfx.bin has 1 bytes, want 432"},
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
