// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeEntry puts a boot entry into a directory of variables.
func writeEntry(t *testing.T, dir, name, label, pathHex string) {
	t.Helper()
	path, err := hex.DecodeString(pathHex)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadOption{Attributes: LoadActive, Description: label, Path: path}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := efivarfs(dir).Write(name, b); err != nil {
		t.Fatal(err)
	}
}

const (
	pathPXE   = "02010c00d041030a00000000" + "010106000003" + "030b2500525400112233000000000000000000000000000000000000000000000000000000000000" // a node that is too short ends it
	pathShell = "040714000102030405060708090a0b0c0d0e0f10" + "040614001112131415161718191a1b1c1d1e1f20" + "7fff0400"
	pathNVMe  = "02010c00d041030a00000000" + "01010600001d" + "03171000010000000011223344556677" + "7fff0400"
)

func TestCleanBootEntries(t *testing.T) {
	dir := t.TempDir()
	id := [16]byte{0x9a, 0x2d, 0x0c, 0x7e, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	disk := hex.EncodeToString(espPartition{1, 2048, 4096, id, true}.devicePath(`\EFI\debian\shimx64.efi`))
	mbr := hex.EncodeToString(espPartition{3, 63, 100, [16]byte{0x78, 0x56, 0x34, 0x12}, false}.devicePath(`\EFI\BOOT\BOOTX64.EFI`))
	writeEntry(t, dir, "Boot0000", "debian", disk)
	writeEntry(t, dir, "Boot0001", "shell", pathShell)
	writeEntry(t, dir, "Boot0002", "old disk", mbr)
	writeEntry(t, dir, "Boot000A", "drive", pathNVMe)
	vars := efivarfs(dir)
	if err := vars.Write("BootOrder", []byte{0, 0, 10, 0, 1, 0, 2, 0}); err != nil {
		t.Fatal(err)
	}
	var seen []string
	deleted, odd, err := CleanBootEntries(dir, func(path string) bool {
		seen = append(seen, path)
		return strings.HasPrefix(path, "HD(")
	})
	want := []string{`HD(1,GPT,7e0c2d9a-0201-0403-0506-0708090a0b0c,0x800,0x1000)/File(\EFI\debian\shimx64.efi)`, "FvVol(04030201-0605-0807-090a-0b0c0d0e0f10)/FvFile(14131211-1615-1817-191a-1b1c1d1e1f20)",
		`HD(3,MBR,0x12345678,0x3f,0x64)/File(\EFI\BOOT\BOOTX64.EFI)`, "PciRoot(0x0)/Pci(0x1d,0x0)/NVMe(0x1,00-11-22-33-44-55-66-77)"}
	if err != nil || odd != nil || !slices.Equal(seen, want) || len(deleted) != 2 || !strings.HasPrefix(deleted[0], "Boot0000 debian HD(1,GPT,") {
		t.Errorf("CleanBootEntries = %q, %v; paths %q, want %q", deleted, err, seen, want)
	}
	names, err := vars.Names()
	if err != nil || !slices.Equal(names, []string{"Boot0001", "Boot000A", "BootOrder"}) {
		t.Errorf("left: %v, %v", names, err)
	}
	if order, err := readOrder(vars); err != nil || !slices.Equal(order, []uint16{10, 1}) {
		t.Errorf("order %v, %v", order, err)
	}
	if _, err := exec.LookPath("efibootmgr"); err == nil {
		cmd := exec.Command("efibootmgr", "-v")
		cmd.Env = append(os.Environ(), "EFIVARFS_PATH="+dir+"/")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "BootOrder: 000A,0001") || strings.Contains(string(out), "HD(") {
			t.Errorf("efibootmgr: %v\n%s", err, out)
		}
	}

	// One that has not the form is left, and one that cannot be read is an error; the others are deleted all the same.
	if err := os.WriteFile(filepath.Join(dir, "Boot0007-"+efiGlobal), binary.LittleEndian.AppendUint32(nil, 7), 0o600); err != nil {
		t.Fatal(err)
	}
	deleted, odd, err = CleanBootEntries(dir, func(string) bool { return true })
	if err != nil || len(odd) != 1 || !strings.HasPrefix(odd[0], "Boot0007: ") || len(deleted) != 2 {
		t.Errorf("with one that has not the form: %q, %q, %v", deleted, odd, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "Boot0008-"+efiGlobal), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err = CleanBootEntries(dir, func(string) bool { return true }); err == nil || !strings.Contains(err.Error(), "read Boot0008") {
		t.Errorf("with one that cannot be read: %v", err)
	}
	if _, err := vars.Read("BootOrder"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("BootOrder of nothing: %v", err)
	}
}

func FuzzDevicePathText(f *testing.F) {
	for _, s := range []string{pathPXE, pathShell, pathNVMe} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { devicePathText(b) })
}
