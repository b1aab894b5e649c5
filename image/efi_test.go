// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf16"

	"github.com/ironhand/ironhand/image/gpt"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// By hand, from UEFI 2.10 sections 3.1.3, 10.3.5.1 and 10.3.5.4.
const goldenOption = `
	01000000 5c00
	6400 6500 6200 6900 6100 6e00 0000
	0401 2a00 01000000 0008000000000000 0000100000000000 9a2d0c7e7f1b434b8e5a0a9a0c51e2f1 02 02
	0404 2e00 5c00 4500 4600 4900 5c00 7800 5c00 7300 6800 6900 6d00 7800 3600 3400 2e00 6500 6600 6900 6100 6200 0000
	7fff 0400`

func TestLoadOption(t *testing.T) {
	id, err := gpt.GUID("7e0c2d9a-1b7f-4b43-8e5a-0a9a0c51e2f1").Encode()
	if err != nil {
		t.Fatal(err)
	}
	esp := espPartition{number: 1, start: 2048, count: 1 << 20, signature: id, gpt: true}
	o := LoadOption{Attributes: LoadActive, Description: "debian", Path: esp.devicePath(`\EFI\x\shimx64.efiab`)}
	got, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, goldenOption); !bytes.Equal(got, want) {
		t.Errorf("Encode() =\n%x, want\n%x", got, want)
	}
	o.Data = []byte("data")
	if got, err = o.Encode(); err != nil {
		t.Fatal(err)
	}
	back, err := ParseLoadOption(got)
	if err != nil || fmt.Sprint(back) != fmt.Sprint(o) {
		t.Errorf("ParseLoadOption() = %v, %v, want %v", back, err, o)
	}

	if _, err := (LoadOption{Description: "a\x00b"}).Encode(); err == nil {
		t.Error("a NUL in the description is taken")
	}
	if _, err := (LoadOption{Path: make([]byte, 1<<16)}).Encode(); err == nil {
		t.Error("a path of 64 KiB is taken")
	}
	for _, b := range []string{"", "0100000000", "010000000000", "010000000000 6100", "010000000000 610000", "01000000 0500 0000 7fff0400"} {
		if o, err := ParseLoadOption(unhex(t, b)); err == nil {
			t.Errorf("ParseLoadOption(%s) = %v", b, o)
		}
	}
}

func utf16le(s string, big bool) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(s)) {
		c := [2]byte{byte(u), byte(u >> 8)}
		if big {
			c[0], c[1] = c[1], c[0]
		}
		b.Write(c[:])
	}
	return b.String()
}

func TestFindLoader(t *testing.T) {
	csv := utf16le("\ufeffshimx64.efi,debian,,This is the boot entry for debian\n", false)
	tests := []struct {
		name  string
		files []string
		arch  string
		want  string // "file label"
	}{
		{"CSV", []string{"EFI/debian/BOOTX64.CSV\n" + csv, "EFI/debian/shimx64.efi", "EFI/BOOT/BOOTX64.EFI"}, "amd64", `\EFI\debian\shimx64.efi debian`},
		{"CSV, big endian", []string{"EFI/fedora/BOOTX64.CSV\n" + utf16le("\ufeffshim.efi,Fedora,\n", true), "EFI/fedora/shim.efi"}, "amd64", `\EFI\fedora\shim.efi Fedora`},
		{"CSV without byte order mark, other cases", []string{"efi/Red/bootx64.csv\n" + utf16le("SHIMX64.EFI,Red Hat\r\n", false), "efi/Red/shimx64.efi"}, "amd64", `\efi\Red\shimx64.efi Red Hat`},
		{"CSV, second line", []string{"EFI/a/BOOTX64.CSV\n" + utf16le("gone.efi,A\nshimx64.efi,B,opt", false), "EFI/a/shimx64.efi"}, "amd64", `\EFI\a\shimx64.efi B opt`},
		{"CSV of another architecture", []string{"EFI/debian/BOOTX64.CSV\n" + csv, "EFI/debian/shimx64.efi", "EFI/BOOT/BOOTAA64.EFI"}, "arm64", `\EFI\BOOT\BOOTAA64.EFI ironic1`},
		{"CSV that leads nowhere", []string{"EFI/debian/BOOTX64.CSV\n" + csv, "EFI/BOOT/BOOTX64.EFI"}, "amd64", `\EFI\BOOT\BOOTX64.EFI ironic1`},
		{"CSV that leads out", []string{"EFI/a/BOOTX64.CSV\n" + utf16le("..\\b\\x.efi,A\n../b/x.efi,A\n", false), "EFI/b/x.efi", "EFI/BOOT/BOOTX64.EFI"}, "amd64", `\EFI\BOOT\BOOTX64.EFI ironic1`},
		{"CSV of garbage", []string{"EFI/a/BOOTX64.CSV\n\xff\xfe\x00,\x00,\xd8", "EFI/BOOT/BOOTX64.EFI"}, "amd64", `\EFI\BOOT\BOOTX64.EFI ironic1`},
		{"removable", []string{"EFI/BOOT/BOOTX64.EFI", "EFI/debian/grubx64.efi"}, "amd64", `\EFI\BOOT\BOOTX64.EFI ironic1`},
		{"vendor's shim before its GRUB", []string{"EFI/debian/grubx64.efi", "EFI/ubuntu/shimx64.efi"}, "amd64", `\EFI\ubuntu\shimx64.efi ironic1`},
		{"vendor's GRUB", []string{"EFI/debian/grubx64.efi"}, "amd64", `\EFI\debian\grubx64.efi ironic1`},
		{"systemd-boot", []string{"EFI/systemd/systemd-bootx64.efi"}, "amd64", `\EFI\systemd\systemd-bootx64.efi ironic1`},
		{"Windows", []string{"EFI/Microsoft/Boot/bootmgfw.efi"}, "amd64", `\EFI\Microsoft\Boot\bootmgfw.efi ironic1`},
		{"for another machine", []string{"EFI/BOOT/BOOTAA64.EFI", "EFI/debian/grubaa64.efi"}, "amd64", ""},
		{"removable name in another place", []string{"EFI/other/BOOTX64.EFI", "BOOTX64.EFI"}, "amd64", ""},
		{"empty", nil, "amd64", ""},
		{"machine that UEFI does not know", []string{"EFI/BOOT/BOOT.EFI"}, "s390x", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := findLoader(tree(t, tt.files...), tt.arch)
			if tt.want == "" {
				if !errors.Is(err, ErrNoLoader) {
					t.Errorf("findLoader() = %v, %v, want %v", l, err, ErrNoLoader)
				}
				return
			}
			if got := strings.TrimSpace(l.file + " " + l.label + " " + strings.TrimRight(fromUTF16(l.data), "\x00")); got != tt.want || err != nil {
				t.Errorf("findLoader() = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// variables is efiVars in memory; writes of the variable bad fail.
type variables struct {
	values map[string]string
	bad    string
	room   int // bytes of all values; 0 for no limit
	writes []string
}

func (v *variables) Names() ([]string, error) { return slices.Sorted(maps.Keys(v.values)), nil }
func (v *variables) Read(name string) ([]byte, error) {
	value, ok := v.values[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if value == "unreadable" {
		return nil, errors.New("input/output error")
	}
	return []byte(value), nil
}
func (v *variables) Write(name string, value []byte) error {
	if name == v.bad {
		return errors.New("no space left on device")
	}
	taken := len(value) - len(v.values[name])
	for _, other := range v.values {
		taken += len(other)
	}
	if v.room > 0 && taken > v.room {
		return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	v.values[name] = string(value)
	v.writes = append(v.writes, name)
	return nil
}
func (v *variables) Delete(name string) error {
	if name == v.bad {
		return errors.New("operation not permitted")
	}
	delete(v.values, name)
	v.writes = append(v.writes, "-"+name)
	return nil
}

// String lists the order and the labels.
func (v *variables) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%x", v.values["BootOrder"])
	for _, name := range slices.Sorted(maps.Keys(v.values)) {
		if o, err := ParseLoadOption([]byte(v.values[name])); err == nil && name != "BootOrder" {
			fmt.Fprintf(&b, " %s=%s", name, o.Description)
		}
	}
	return b.String()
}

func TestInstallBootEntry(t *testing.T) {
	esp := espPartition{number: 1, start: 2048, count: 4096, gpt: true}
	l := loader{file: `\EFI\debian\shimx64.efi`, label: "debian"}
	encode := func(label, file string) string {
		b, err := LoadOption{Attributes: LoadActive, Description: label, Path: esp.devicePath(file)}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	same, old, pxe := encode("debian", l.file), encode("debian", `\EFI\debian\grubx64.efi`), encode("PXE", "x")
	tests := []struct {
		name       string
		values     map[string]string
		bad        string
		want       string
		wantWrites []string
		wantErr    string
	}{
		{"empty", nil, "", "0000 Boot0000=debian", []string{"Boot0000", "BootOrder"}, ""},
		{"first before others", map[string]string{"Boot0000": pxe, "Boot0001": pxe, "BootOrder": "\x01\x00\x00\x00"}, "",
			"020001000000 Boot0000=PXE Boot0001=PXE Boot0002=debian", []string{"Boot0002", "BootOrder"}, ""},
		{"free number between", map[string]string{"Boot0000": pxe, "Boot0002": pxe, "BootOrder": "\x00\x00\x02\x00"}, "",
			"010000000200 Boot0000=PXE Boot0001=debian Boot0002=PXE", []string{"Boot0001", "BootOrder"}, ""},
		{"replaces", map[string]string{"Boot0000": pxe, "Boot0003": old, "Boot000A": old, "BootOrder": "\x03\x00\x00\x00\x0a\x00\x09\x00"}, "",
			"010000000900 Boot0000=PXE Boot0001=debian", []string{"Boot0001", "BootOrder", "-Boot0003", "-Boot000A"}, ""},
		{"there already", map[string]string{"Boot0000": pxe, "Boot0003": same, "BootOrder": "\x03\x00\x00\x00"}, "",
			"03000000 Boot0000=PXE Boot0003=debian", nil, ""},
		{"there already, but not first", map[string]string{"Boot0000": pxe, "Boot0003": same, "BootOrder": "\x00\x00\x03\x00"}, "",
			"03000000 Boot0000=PXE Boot0003=debian", []string{"BootOrder"}, ""},
		{"there twice", map[string]string{"Boot0003": same, "Boot0001": same, "BootOrder": "\x03\x00\x01\x00"}, "",
			"0100 Boot0001=debian", []string{"BootOrder", "-Boot0003"}, ""},
		{"other variables and broken ones", map[string]string{"Boot0000": "x", "BootCurrent": "\x00\x00", "Boot00ab": old, "Boot": "", "BootOrder": "\x00\x00\x07"}, "",
			"01000000 Boot00ab=debian Boot0001=debian", []string{"Boot0001", "BootOrder"}, ""},
		{"one that cannot be read", map[string]string{"Boot0000": "unreadable", "Boot0001": old, "BootOrder": "\x00\x00\x01\x00"}, "",
			"02000000 Boot0002=debian", []string{"Boot0002", "BootOrder", "-Boot0001"}, ""},
		{"full, with an old one", map[string]string{"Boot0000": pxe, "Boot0003": old, "BootOrder": "\x03\x00\x00\x00"}, "",
			"01000000 Boot0000=PXE Boot0001=debian", []string{"-Boot0003", "Boot0001", "BootOrder"}, ""},
		{"full of others", map[string]string{"Boot0000": pxe, "Boot0001": pxe, "BootOrder": "\x00\x00"}, "", "0000 Boot0000=PXE Boot0001=PXE", nil, "write Boot0002: write Boot0002: no space left on device: the firmware's memory for variables is full; the steps clean_uefi_nvram and erase_pstore make room"},
		{"too full for the order", map[string]string{"Boot0000": pxe, "BootOrder": "\x00\x00"}, "", "0000 Boot0000=PXE Boot0001=debian", []string{"Boot0001"}, "write BootOrder: write BootOrder: no space left on device: the firmware's memory"},
		{"too full for the order, with an old one", map[string]string{"Boot0000": old}, "", "0100 Boot0001=debian", []string{"Boot0001", "-Boot0000", "BootOrder"}, ""},
		{"no room for the entry", map[string]string{"Boot0000": pxe, "BootOrder": "\x00\x00"}, "Boot0001", "0000 Boot0000=PXE", nil, "write Boot0001: no space left"},
		{"order cannot be written", map[string]string{"Boot0000": old, "BootOrder": "\x00\x00"}, "BootOrder", "0000 Boot0000=debian Boot0001=debian", []string{"Boot0001"}, "write BootOrder"},
		{"old one cannot be deleted", map[string]string{"Boot0000": old}, "Boot0000", "0100 Boot0000=debian Boot0001=debian", []string{"Boot0001", "BootOrder"}, "delete Boot0000: operation not permitted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &variables{values: map[string]string{}, bad: tt.bad, room: map[string]int{
				"full, with an old one": len(same) + len(pxe) + 4, "full of others": len(same) + len(pxe), "too full for the order": len(same) + len(pxe) + 2, "too full for the order, with an old one": 2*len(same) + 1}[tt.name]}
			maps.Copy(v.values, tt.values)
			entry, err := installBootEntry(v, esp, l)
			if told := strings.Contains(entry.String(), "Boot0000: input/output error"); told != (v.values["Boot0000"] == "unreadable") {
				t.Errorf("entry is %q", entry)
			}
			if (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error is %v, want %q", err, tt.wantErr)
			}
			words := func(s string) []string { return slices.Sorted(slices.Values(strings.Fields(s))) }
			if got := v.String(); !slices.Equal(words(got), words(tt.want)) {
				t.Errorf("variables are %s, want %s", got, tt.want)
			}
			if !slices.Equal(v.writes, tt.wantWrites) {
				t.Errorf("writes are %v, want %v", v.writes, tt.wantWrites)
			}
		})
	}
}

func TestFindESP(t *testing.T) {
	tests := []struct {
		name, script string
		want         string
		wantErr      error
	}{
		{"GPT", "label: gpt\nstart=2048, size=2048\nstart=4096, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=7E0C2D9A-1B7F-4B43-8E5A-0A9A0C51E2F1\n", "2 4096 4096 9a2d0c7e7f1b434b8e5a0a9a0c51e2f1 true", nil},
		{"MBR", "label: dos\nlabel-id: 0x12345678\nstart=2048, size=2048, type=83\nstart=4096, size=2048, type=ef\n", "2 4096 2048 78563412000000000000000000000000 false", nil},
		{"GPT without", "label: gpt\nstart=2048, size=2048\n", "", ErrNoESP},
		{"MBR without", "label: dos\nstart=2048, size=2048, type=c\n", "", ErrNoESP},
		{"nothing", "", "", gpt.ErrNone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := make([]byte, mib)
			if tt.script != "" {
				b = makeImage(t, 8*mib, tt.script)[:mib]
			}
			p, err := findESP(b, 512)
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("findESP() = %v, want %v", err, tt.wantErr)
			}
			if got := fmt.Sprintf("%d %d %d %x %v", p.number, p.start, p.count, p.signature, p.gpt); err == nil && got != tt.want {
				t.Errorf("findESP() = %s, want %s", got, tt.want)
			}
		})
	}
}

func FuzzParseLoadOption(f *testing.F) {
	f.Add(unhex(f, goldenOption))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00a\x00\x00\x00data"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseLoadOption(b)
		if err != nil {
			return
		}
		again, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseLoadOption(again)
		if err != nil || fmt.Sprint(p) != fmt.Sprint(o) {
			t.Errorf("parsed %v, then %v, %v", o, p, err)
		}
	})
}

func FuzzParseCSV(f *testing.F) {
	f.Add([]byte(utf16le("\ufeffshimx64.efi,debian,,This is the boot entry for debian\n", false)))
	f.Add([]byte(utf16le("\ufeffshim.efi,Fedora,\n", true)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range parseCSV(b) {
			o := LoadOption{Attributes: LoadActive, Description: l.label, Path: espPartition{}.devicePath(l.file), Data: l.data}
			if _, err := o.Encode(); err != nil && len(o.Path) <= 0xffff {
				t.Errorf("%q: %v", l.label, err)
			}
		}
	})
}
