// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// contents is a tree that is awkward for both file systems: long, similar and empty names, several levels, a file of
// many clusters, a directory of more than one sector.
func contents() map[string][]byte {
	files := map[string][]byte{
		"parameters.txt":                            []byte("ipa-api-url=https://192.0.2.1:6385\n"),
		"openstack/latest/network_data.json":        []byte(`{"links": [], "networks": [], "services": []}`),
		"openstack/latest/network_data.jsonx":       []byte("alike"),
		"etc/ironic-python-agent/ironic.crt":        bytes.Repeat([]byte("certificate\n"), 1000),
		"etc/ironic-python-agent.d/ironic-tls.conf": []byte("[DEFAULT]\n"),
		"EMPTY.TXT": nil,
		"a name with spaces and ümlauts, quite long.txt": []byte("x"),
	}
	for i := range 60 {
		files[fmt.Sprintf("many/a-rather-long-file-name-%02d.txt", i)] = []byte{byte(i)}
	}
	return files
}

func makeISO(t *testing.T, v ISO, files map[string][]byte) []byte {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		v.Files = append(v.Files, BytesFile(name, files[name]))
	}
	var b bytes.Buffer
	if _, err := v.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readAll lists a whole volume as the makers take it.
func readAll(v Volume) (map[string][]byte, error) {
	files := map[string][]byte{}
	var walk func(dir Entry, prefix string) error
	walk = func(dir Entry, prefix string) error {
		entries, err := v.List(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := path.Join(prefix, e.Name)
			if e.Dir {
				if err := walk(e, name); err != nil {
					return err
				}
			} else if files[name], err = v.Read(e); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	return files, walk(v.Root(), "")
}

func compare(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if b, ok := got[name]; !ok || !bytes.Equal(b, want[name]) {
			t.Errorf("file %q = %d bytes (there: %t), want %d", name, len(b), ok, len(want[name]))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d: %q", len(got), len(want), slices.Sorted(maps.Keys(got)))
	}
}

func TestRoundTrip(t *testing.T) {
	when := time.Date(2026, 11, 20, 12, 34, 56, 0, time.UTC)
	fat := func(size int64, label string) []byte {
		b, err := FAT{Size: size, Label: label, Serial: 7, Time: when, Files: contents()}.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name, label string
		image       []byte
	}{
		{"FAT12 floppy", "ir-vfd-dev", fat(FloppySize, "ir-vfd-dev")},
		{"FAT16, a sector per cluster", "config-2", fat(8<<20, "config-2")},
		{"FAT16, 2 KiB clusters", "CONFIG-2", fat(100<<20, "CONFIG-2")},
		{"ISO 9660", "config-2", makeISO(t, ISO{Label: "config-2", Time: when}, contents())},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := Open(bytes.NewReader(c.image))
			if err != nil {
				t.Fatal(err)
			}
			if v.Label() != c.label {
				t.Errorf("label %q, want %q", v.Label(), c.label)
			}
			got, err := readAll(v)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, contents())
		})
	}
}

// tool runs a judge, or skips where it is not installed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	bin, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/sbin", "/usr/sbin"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				bin = filepath.Join(dir, name)
			}
		}
	}
	if bin == "" {
		t.Skipf("SKIPPED: %s is not installed", name)
	}
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MTOOLS_SKIP_CHECK=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestFATByOthers(t *testing.T) {
	for _, size := range []int64{FloppySize, 8 << 20, 100 << 20, 512 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b, err := FAT{Size: size, Label: "ir-vfd-dev", Serial: 0x1a2b3c4d, Files: contents()}.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(b)) != size {
				t.Fatalf("%d bytes, want %d", len(b), size)
			}
			image := filepath.Join(t.TempDir(), "fat.img")
			if err := os.WriteFile(image, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if out := tool(t, "fsck.fat", "-n", "-v", image); strings.Contains(out, "differ") || strings.Contains(out, "dirty") {
				t.Errorf("fsck.fat:\n%s", out)
			}
			if out := tool(t, "blkid", "-p", "-o", "export", image); !strings.Contains(out, "LABEL=ir-vfd-dev\n") || !strings.Contains(out, "UUID=1A2B-3C4D\n") {
				t.Errorf("blkid:\n%s", out)
			}
			dir := t.TempDir()
			tool(t, "mcopy", "-s", "-i", image, "::/", dir)
			compare(t, onDisk(t, dir), contents())
		})
	}
}

func TestISOByOthers(t *testing.T) {
	b := makeISO(t, ISO{Label: "config-2", Time: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)}, contents())
	image := filepath.Join(t.TempDir(), "cd.iso")
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "blkid", "-p", "-o", "export", image); !strings.Contains(out, "LABEL=config-2\n") || !strings.Contains(out, "TYPE=iso9660\n") {
		t.Errorf("blkid:\n%s", out)
	}
	dir := t.TempDir()
	out := tool(t, "xorriso", "-report_about", "NOTE", "-osirrox", "on", "-indev", image, "-pvd_info", "-extract", "/", dir)
	if strings.Contains(out, "WARNING") || strings.Contains(out, "SORRY") {
		t.Errorf("xorriso:\n%s", out)
	}
	compare(t, onDisk(t, dir), contents())
}

// onDisk reads a directory as the makers take it.
func onDisk(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	root := os.DirFS(dir)
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		files[name], err = io.ReadAll(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Volumes of others are read too.
func TestOpenOthers(t *testing.T) {
	tree := t.TempDir()
	for name, b := range contents() {
		p := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mkfs := func(size int64, args ...string) func(t *testing.T, image string) {
		return func(t *testing.T, image string) {
			if err := os.WriteFile(image, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(image, size); err != nil {
				t.Fatal(err)
			}
			tool(t, "mkfs.fat", append(args, image)...)
			entries, err := os.ReadDir(tree)
			if err != nil {
				t.Fatal(err)
			}
			copyIn := []string{"-s", "-i", image}
			for _, e := range entries {
				copyIn = append(copyIn, filepath.Join(tree, e.Name()))
			}
			tool(t, "mcopy", append(copyIn, "::/")...)
		}
	}
	xorriso := func(args ...string) func(t *testing.T, image string) {
		return func(t *testing.T, image string) {
			tool(t, "xorriso", append([]string{"-as", "mkisofs", "-quiet", "-o", image, "-V", "config-2"}, append(args, tree)...)...)
		}
	}
	for _, c := range []struct {
		name  string
		make  func(t *testing.T, image string)
		label string
	}{
		{"mkfs.fat -F 12", mkfs(FloppySize, "-F", "12", "-n", "IR-VFD-DEV"), "IR-VFD-DEV"},
		{"mkfs.fat -F 16, 4 KiB sectors", mkfs(256<<20, "-F", "16", "-S", "4096", "-n", "CONFIG-2"), "CONFIG-2"},
		{"mkfs.fat -F 32", mkfs(64<<20, "-F", "32", "-n", "CONFIG-2"), "CONFIG-2"},
		{"Rock Ridge", xorriso("-R"), "config-2"},
		{"Rock Ridge with Joliet", xorriso("-R", "-J"), "config-2"},
		{"Joliet alone", xorriso("--norock", "-J", "-joliet-long"), "config-2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			c.make(t, image)
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			v, err := Open(f)
			if err != nil {
				t.Fatal(err)
			}
			if v.Label() != c.label {
				t.Errorf("label %q, want %q", v.Label(), c.label)
			}
			got, err := readAll(v)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, contents())
		})
	}
}

func TestPlainISO(t *testing.T) {
	tree, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(filepath.Join(tree, "vmlinuz"), []byte("kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "xorriso", "-as", "mkisofs", "-quiet", "--norock", "-o", image, tree)
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(v)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, map[string][]byte{"vmlinuz": []byte("kernel")})
}

func TestMakeRefuses(t *testing.T) {
	fat := func(f FAT) error { _, err := f.Bytes(); return err }
	iso := func(v ISO) error { _, err := v.WriteTo(io.Discard); return err }
	file := func(names ...string) map[string][]byte {
		m := map[string][]byte{}
		for _, n := range names {
			m[n] = []byte("x")
		}
		return m
	}
	short := File{Name: "a", Size: 5, Open: BytesFile("a", []byte("abc")).Open}
	long := File{Name: "a", Size: 2, Open: BytesFile("a", []byte("abc")).Open}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"too much for a floppy", fat(FAT{Size: FloppySize, Label: "L", Files: map[string][]byte{"a": make([]byte, FloppySize)}}), "need 1474560 bytes, the FAT volume has room for 1457664"},
		{"too many names for the root", fat(FAT{Size: FloppySize, Label: "L", Files: func() map[string][]byte {
			m := map[string][]byte{}
			for i := range 100 {
				m[fmt.Sprintf("some-long-name-%d", i)] = nil
			}
			return m
		}()}), "room for 224"},
		{"odd size", fat(FAT{Size: 2 << 20, Label: "L"}), "want 1474560, or 4 MiB to 1 GiB"},
		{"label too long", fat(FAT{Size: FloppySize, Label: "twelve chars"}), "1 to 11 characters"},
		{"label with a slash", fat(FAT{Size: FloppySize, Label: "a/b"}), "not allowed"},
		{"no label", fat(FAT{Size: FloppySize}), "1 to 11 characters"},
		{"colon in a name", fat(FAT{Size: FloppySize, Label: "L", Files: file("a:b")}), "not allowed in FAT"},
		{"newline in a name", fat(FAT{Size: FloppySize, Label: "L", Files: file("a\nb")}), "control character"},
		{"name too long", fat(FAT{Size: FloppySize, Label: "L", Files: file(strings.Repeat("n", 256))}), "not allowed in FAT"},
		{"name leads out", fat(FAT{Size: FloppySize, Label: "L", Files: file("../a")}), "not a clean relative path"},
		{"file is also a directory", fat(FAT{Size: FloppySize, Label: "L", Files: file("a", "a/b")}), "is a file too"},
		{"ISO label", iso(ISO{Label: strings.Repeat("l", 33)}), "1 to 32"},
		{"ISO file twice", iso(ISO{Label: "L", Files: []File{BytesFile("a", nil), BytesFile("a", nil)}}), "twice"},
		{"ISO name too long", iso(ISO{Label: "L", Files: []File{BytesFile(strings.Repeat("n", 200), nil)}}), "too long"},
		{"ISO too deep", iso(ISO{Label: "L", Files: []File{BytesFile("1/2/3/4/5/6/7/8/9", nil)}}), "8 levels"},
		{"ISO file too large", iso(ISO{Label: "L", Files: []File{{Name: "a", Size: 4 << 30}}}), "less than 4 GiB"},
		{"ISO file shrank", iso(ISO{Label: "L", Files: []File{short}}), "unexpected EOF"},
		{"ISO file grew", iso(ISO{Label: "L", Files: []File{long}}), "grown beyond"},
		{"boot file missing", iso(ISO{Label: "L", Boot: []Boot{{File: "x"}}}), "not on the volume"},
		{"boot file tiny", iso(ISO{Label: "L", Files: []File{BytesFile("x", []byte("x"))}, Boot: []Boot{{File: "x"}}}), "no room for its boot information table"},
		{"EFI image too large", iso(ISO{Label: "L", Files: []File{{Name: "x", Size: 32 << 20}}, Boot: []Boot{{File: "x", EFI: true}}}), "less than 32 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
				t.Errorf("error %v, want %q", c.err, c.want)
			}
		})
	}
}

func TestSameBytes(t *testing.T) {
	a := makeISO(t, ISO{Label: "L"}, contents())
	if b := makeISO(t, ISO{Label: "L"}, contents()); !bytes.Equal(a, b) {
		t.Error("two ISO images of the same contents differ")
	}
}

// A medium that is broken or hostile is refused, quickly and without much memory.
func TestOpenRefuses(t *testing.T) {
	floppy := func(change func(b []byte)) []byte {
		b, err := FAT{Size: FloppySize, Label: "L", Files: map[string][]byte{"dir/FILE": bytes.Repeat([]byte("x"), 5000)}}.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		return b
	}
	cd := func(change func(b []byte)) []byte {
		b := makeISO(t, ISO{Label: "L"}, map[string][]byte{"dir/file": []byte("x"), "f": []byte("y")})
		change(b)
		return b
	}
	root := 1 + 2*9 // sector of the floppy's root directory
	for _, c := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"empty", nil, "EOF"},
		{"zeros", make([]byte, FloppySize), ErrFormat.Error()},
		{"no signature", floppy(func(b []byte) { b[510] = 0 }), ErrFormat.Error()},
		{"sectors of 3 bytes", floppy(func(b []byte) { b[11] = 3 }), ErrFormat.Error()},
		{"no clusters", floppy(func(b []byte) { b[13] = 0 }), ErrFormat.Error()},
		{"tables larger than the volume", floppy(func(b []byte) { b[22], b[23] = 0xff, 0xff }), "leave no data"},
		{"table too small", floppy(func(b []byte) { b[19], b[20], b[32], b[34] = 0, 0, 0, 1 }), "too small"},
		{"directory is a loop", floppy(func(b []byte) { b[512+3], b[512+4] = 0x02, 0xf0 }), "larger than 1048576 bytes"},
		{"chain leaves the volume", floppy(func(b []byte) { b[512+3], b[512+4] = 0xf6, 0xff }), "outside"},
		{"file without clusters", floppy(func(b []byte) { clear(b[512+4 : 512+12]) }), "outside"},
		{"directory is the root again", floppy(func(b []byte) {
			for at := root * 512; ; at += 32 {
				if b[at+11] == attrDir {
					b[at+26] = 0
					return
				}
			}
		}), "no clusters"},
		{"CD cut off", cd(func([]byte) {})[:17*isoSector], "descriptor 1"},
		{"CD without end mark", cd(func(b []byte) { b[17*isoSector] = 7 }), "has no mark"},
		{"CD sectors of 512 bytes", cd(func(b []byte) { binary.LittleEndian.PutUint16(b[16*isoSector+128:], 512) }), "sectors of 512"},
		{"CD root beyond the end", cd(func(b []byte) { binary.LittleEndian.PutUint32(b[16*isoSector+158:], 1<<30) }), "read root directory"},
		{"CD directory of 4 GiB", cd(func(b []byte) { binary.LittleEndian.PutUint32(b[16*isoSector+166:], 1<<32-1) }), "at most 1048576 are read"},
		{"CD root record cut off", cd(func(b []byte) { b[16*isoSector+156] = 10 }), "cut off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := Open(bytes.NewReader(c.image))
			if err == nil {
				_, err = readAll(v)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	b, err := FAT{Size: FloppySize, Label: "ir-vfd-dev", Files: map[string][]byte{"etc/some-long-name.txt": []byte("x"), "A": []byte("y")}}.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:34*512]) // boot sector, tables, root directory and the first cluster
	var cd bytes.Buffer
	if _, err := (ISO{Label: "L", Files: []File{BytesFile("etc/some-long-name.txt", []byte("x"))}}).WriteTo(&cd); err != nil {
		f.Fatal(err)
	}
	f.Add(cd.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Open(bytes.NewReader(b))
		if err != nil {
			return
		}
		budget := 100
		var walk func(dir Entry, depth int)
		walk = func(dir Entry, depth int) {
			entries, err := v.List(dir)
			if err != nil || depth == 4 {
				return
			}
			for _, e := range entries {
				if budget--; budget < 0 {
					return
				}
				if e.Dir {
					walk(e, depth+1)
				} else if e.Size < 1<<20 {
					data, err := v.Read(e)
					if err == nil && int64(len(data)) != e.Size {
						t.Fatalf("file %q has %d bytes, read %d", e.Name, e.Size, len(data))
					}
				}
			}
		}
		walk(v.Root(), 0)
	})
}
