// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// smallPE is an EFI program with one section, and room for so many headers more.
func smallPE(room int, change func(f *pe.FileHeader, o *pe.OptionalHeader64)) []byte {
	const start, text = 0x80, 0x200
	table := start + 4 + binary.Size(pe.FileHeader{}) + binary.Size(pe.OptionalHeader64{})
	headers := table + (1+room)*ukiHeader
	f := pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1, SizeOfOptionalHeader: uint16(binary.Size(pe.OptionalHeader64{}))}
	o := pe.OptionalHeader64{Magic: 0x20b, SectionAlignment: 0x200, FileAlignment: 0x200, SizeOfHeaders: uint32(headers), SizeOfImage: 0x1200, NumberOfRvaAndSizes: 16}
	s := pe.SectionHeader32{VirtualSize: text, VirtualAddress: 0x1000, SizeOfRawData: text, PointerToRawData: uint32(headers)}
	copy(s.Name[:], ".text")
	if change != nil {
		change(&f, &o)
	}
	b := make([]byte, start, headers+text)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], start)
	b = append(b, "PE\x00\x00"...)
	for _, v := range []any{f, o, s} {
		b, _ = binary.Append(b, binary.LittleEndian, v)
	}
	b = b[:headers]
	return append(b, bytes.Repeat([]byte{0xf4}, text)...)
}

// What was put together is there again, by Go's own reader of the format, and sbsign and sbverify take it.
func TestUKI(t *testing.T) {
	dir := t.TempDir()
	ramdisk := bytes.Repeat([]byte("initramfs"), 1000)
	kernel := smallPE(0, nil)
	spec := UKI{
		Kernel: write(t, filepath.Join(dir, "k"), kernel, 0o600), Initramfs: write(t, filepath.Join(dir, "i"), ramdisk, 0o600), Cmdline: "a=b",
	}
	if judgeFile(t, DebianStub) == "" {
		spec.Stub = write(t, filepath.Join(dir, "stub"), smallPE(4, nil), 0o600)
	}
	var b, again bytes.Buffer
	n, err := spec.Write(&b)
	must(t, err)
	if n != int64(b.Len()) {
		t.Errorf("Write = %d, wrote %d", n, b.Len())
	}
	if _, err := spec.Write(&again); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("two images differ, error %v", err)
	}
	wantParts(t, b.Bytes(), map[string][]byte{".osrel": []byte("ID=ironhand\nNAME=ironhand\nPRETTY_NAME=ironhand\n"), ".cmdline": []byte("a=b"), ".linux": kernel, ".initrd": ramdisk})

	path := write(t, filepath.Join(dir, "uki"), b.Bytes(), 0o600)
	key, cert, signed := filepath.Join(dir, "key"), filepath.Join(dir, "cert"), filepath.Join(dir, "signed")
	for _, args := range [][]string{
		{"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", key, "-out", cert},
		{"sbsign", "--key", key, "--cert", cert, "--output", signed, path},
		{"sbverify", "--cert", cert, signed},
	} {
		if out, err := exec.Command(judge(t, args[0]), args[1:]...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("warning")) {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
}

// judgeFile is path, or "" if there is no such file, which is an error where tests must not be skipped.
func judgeFile(t *testing.T, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		return ""
	}
	return path
}

// wantParts says what is not as it should be in a PE file: the parts, and where all sections are.
func wantParts(t testing.TB, b []byte, parts map[string][]byte) {
	t.Helper()
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	image := f.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage
	for name, want := range parts {
		s := f.Section(name)
		if s == nil {
			t.Errorf("no section %s", name)
			continue
		}
		got, err := s.Data()
		if err != nil || len(got) < int(s.VirtualSize) || !bytes.Equal(got[:s.VirtualSize], want) {
			t.Errorf("section %s has %d bytes, is not what was put there, %v", name, s.VirtualSize, err)
		}
		if s.VirtualAddress%ukiPage != 0 || s.Offset%ukiSector != 0 || s.VirtualAddress+s.VirtualSize > image {
			t.Errorf("section %s at %d, in memory at %d, of %d", name, s.Offset, s.VirtualAddress, image)
		}
		for _, other := range f.Sections {
			if other != s && other.VirtualAddress < s.VirtualAddress+s.VirtualSize && s.VirtualAddress < other.VirtualAddress+other.VirtualSize {
				t.Errorf("section %s lies on %s in memory", name, other.Name)
			}
			if other != s && other.Size > 0 && other.Offset < s.Offset+s.Size && s.Offset < other.Offset+other.Size {
				t.Errorf("section %s lies on %s in the file", name, other.Name)
			}
		}
	}
}

func TestUKIRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, b []byte) string { return write(t, filepath.Join(dir, name), b, 0o600) }
	good := UKI{Stub: file("stub", smallPE(4, nil)), Kernel: file("kernel", smallPE(0, nil)), Initramfs: file("initramfs", []byte("x"))}
	if _, err := good.Write(io.Discard); err != nil {
		t.Fatal(err)
	}
	var made bytes.Buffer
	if _, err := good.Write(&made); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(u *UKI)
		want   string
	}{
		{"no stub", func(u *UKI) { u.Stub = filepath.Join(dir, "none") }, "install the Debian package systemd-boot-efi"},
		{"stub that is no program", func(u *UKI) { u.Stub = file("s1", []byte("text")) }, "stub " + filepath.Join(dir, "s1")},
		{"stub that is cut off", func(u *UKI) { u.Stub = file("s2", smallPE(4, nil)[:0x300]) }, "not where its headers say"},
		{"stub without room", func(u *UKI) { u.Stub = file("s3", smallPE(3, nil)) }, "no room in its header for 4 sections more"},
		{"stub for another processor", func(u *UKI) {
			u.Stub = file("s4", smallPE(4, func(f *pe.FileHeader, _ *pe.OptionalHeader64) { f.Machine = pe.IMAGE_FILE_MACHINE_ARM64 }))
		}, "not an EFI program for x86-64"},
		{"stub that is signed", func(u *UKI) {
			u.Stub = file("s5", smallPE(4, func(_ *pe.FileHeader, o *pe.OptionalHeader64) {
				o.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY] = pe.DataDirectory{VirtualAddress: 0x400, Size: 8}
			}))
		}, "is signed"},
		{"UKI for a stub", func(u *UKI) { u.Stub = file("s6", made.Bytes()) }, "a UKI, not a stub"},
		{"kernel that is no EFI program", func(u *UKI) { u.Kernel = file("k1", []byte("kernel")) }, "is not an EFI program, which a bzImage built with CONFIG_EFI_STUB is"},
		{"no kernel", func(u *UKI) { u.Kernel = filepath.Join(dir, "none") }, "kernel: open"},
		{"kernel that is a directory", func(u *UKI) { u.Kernel = dir }, "kernel " + dir + ": is not a file"},
		{"empty initramfs", func(u *UKI) { u.Initramfs = file("i1", nil) }, "is not a file, or is empty"},
		{"initramfs of 3 GiB", func(u *UKI) {
			u.Initramfs = file("i2", nil)
			if err := os.Truncate(u.Initramfs, 3<<30); err != nil {
				t.Fatal(err)
			}
		}, "part .initrd of 3221225472 bytes makes the UKI longer than"},
		{"command line of two lines", func(u *UKI) { u.Cmdline = "a\nb" }, "kernel command line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := good
			c.change(&u)
			if _, err := u.Write(io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// A stub is refused, or what is made of it holds the parts, none of which lies on another.
func FuzzStub(f *testing.F) {
	f.Add(smallPE(4, nil))
	f.Add(smallPE(0, nil))
	f.Add(smallPE(9, nil)[:0x200])
	f.Fuzz(func(t *testing.T, stub []byte) {
		kernel, ramdisk := []byte("kernel"), bytes.Repeat([]byte{1}, ukiPage+1)
		parts := []ukiPart{{name: ".linux", size: int64(len(kernel))}, {name: ".initrd", size: int64(len(ramdisk))}}
		b, err := extendStub(stub, parts)
		if err != nil {
			return
		}
		if len(b) > len(stub)+ukiSector {
			t.Fatalf("%d bytes of %d", len(b), len(stub))
		}
		for _, p := range [][]byte{kernel, ramdisk} {
			b = append(b, p...)
			b = append(b, make([]byte, -len(b)&(ukiSector-1))...)
		}
		wantParts(t, b, map[string][]byte{".linux": kernel, ".initrd": ramdisk})
	})
}
