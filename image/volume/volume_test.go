// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
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
		"EC2/Latest/meta-data.json":                      []byte("{}"),
	}
	for i := range 60 {
		files[fmt.Sprintf("many/a-rather-long-file-name-%02d.txt", i)] = []byte{byte(i)}
	}
	return files
}

// longNames are contents and names that Joliet cannot have.
func longNames() map[string][]byte {
	files := contents()
	for i := range 20 { // their continuations need more than one sector
		files[fmt.Sprintf("openstack/%02d %s", i, strings.Repeat("long name ", 24))+"end"] = []byte{byte(i)}
	}
	files["openstack/"+strings.Repeat("directory ", 20)+"end/a/b/c/d/e/f/g/h/i/deep"] = []byte("deep")
	return files
}

func makeISO(t testing.TB, v ISO, files map[string][]byte) []byte {
	t.Helper()
	v.Files = BytesFiles(files)
	b, err := v.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantVolume opens a volume, and wants a label and files.
func wantVolume(t *testing.T, r io.ReaderAt, label string, files map[string][]byte) *Volume {
	t.Helper()
	v, err := Open(r)
	if err != nil {
		t.Fatal(err)
	}
	if v.Label() != label {
		t.Errorf("label %q, want %q", v.Label(), label)
	}
	got, err := v.Files(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, files)
	return v
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
	fat := func(size int64, sector int, label string) []byte {
		b, err := FAT{Size: size, SectorSize: sector, Label: label, Serial: 7, Time: when, Files: longNames()}.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name, label string
		image       []byte
	}{
		{"FAT12 floppy", "ir-vfd-dev", fat(FloppySize, 0, "ir-vfd-dev")},
		{"FAT16, a sector per cluster", "config-2", fat(8<<20, 512, "config-2")},
		{"FAT16, 2 KiB clusters", "CONFIG-2", fat(100<<20, 512, "CONFIG-2")},
		{"FAT12, 4 KiB sectors", "CONFIG-2", fat(8<<20, 4096, "CONFIG-2")},
		{"FAT16, 4 KiB sectors", "CONFIG-2", fat(64<<20, 4096, "CONFIG-2")},
		{"ISO 9660", "config-2", makeISO(t, ISO{Label: "config-2", Time: when}, longNames())},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := wantVolume(t, bytes.NewReader(c.image), c.label, longNames())
			if err := fstest.TestFS(v, slices.Collect(maps.Keys(longNames()))...); err != nil {
				t.Error(err)
			}
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
	for _, c := range []struct {
		size   int64
		sector int
	}{{FloppySize, 512}, {2 << 20, 512}, {8 << 20, 512}, {100 << 20, 512}, {512 << 20, 512}, {2 << 20, 4096}, {64 << 20, 4096}, {512 << 20, 4096}} {
		size := c.size
		t.Run(fmt.Sprint(size, " ", c.sector), func(t *testing.T) {
			b, err := FAT{Size: size, SectorSize: c.sector, Label: "ir-vfd-dev", Serial: 0x1a2b3c4d, Files: longNames()}.Bytes()
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
			compare(t, onDisk(t, dir), longNames())
		})
	}
}

func TestISOByOthers(t *testing.T) {
	b := makeISO(t, ISO{Label: "config-2", Time: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)}, longNames())
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
	compare(t, onDisk(t, dir), longNames())
	if out := tool(t, "isoinfo", "-R", "-f", "-i", image); !strings.Contains(out, "\n/EC2/Latest/meta-data.json\n") {
		t.Errorf("isoinfo:\n%s", out)
	}
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
	mkfs := func(size int64, args ...string) func(t *testing.T, image, tree string) {
		return func(t *testing.T, image, tree string) {
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
	xorriso := func(args ...string) func(t *testing.T, image, tree string) {
		return func(t *testing.T, image, tree string) {
			tool(t, "xorriso", append([]string{"-as", "mkisofs", "-quiet", "-o", image, "-V", "config-2"}, append(args, tree)...)...)
		}
	}
	for _, c := range []struct {
		name  string
		make  func(t *testing.T, image, tree string)
		label string
		files map[string][]byte
	}{
		{"mkfs.fat -F 12", mkfs(FloppySize, "-F", "12", "-n", "IR-VFD-DEV"), "IR-VFD-DEV", contents()},
		{"mkfs.fat -F 16, 4 KiB sectors", mkfs(256<<20, "-F", "16", "-S", "4096", "-n", "CONFIG-2"), "CONFIG-2", contents()},
		{"mkfs.fat -F 32", mkfs(64<<20, "-F", "32", "-n", "CONFIG-2"), "CONFIG-2", contents()},
		{"Rock Ridge", xorriso("-R"), "config-2", longNames()},
		{"Rock Ridge with Joliet", xorriso("-R", "-J"), "config-2", longNames()},
		// The options of Ironic's conductor/configdrive_utils.py.
		{"Ironic's config drive", xorriso("-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-publisher", "ironic", "-J", "-joliet-long", "-r"), "config-2", longNames()},
		{"Joliet alone", xorriso("--norock", "-J", "-joliet-long"), "config-2", contents()},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			c.make(t, image, writeTree(t, c.files))
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			wantVolume(t, f, c.label, c.files)
			v, err := Open(f)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]string{true: "ironic"}[c.name == "Ironic's config drive"]; !strings.EqualFold(v.Publisher(), want) {
				t.Errorf("publisher %q, want %q", v.Publisher(), want)
			}
		})
	}
}

// writeTree makes files below a new directory.
func writeTree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	tree := t.TempDir()
	for name, b := range files {
		p := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// Without Rock Ridge and Joliet names are in lower case and have no versions. A link is not followed.
func TestISONames(t *testing.T) {
	tree := writeTree(t, map[string][]byte{"dir/vmlinuz": []byte("kernel"), "Readme.txt": nil})
	for _, c := range []struct {
		name string
		args []string
		link bool
		err  string
	}{
		{name: "plain", args: []string{"--norock"}},
		{name: "with a link", args: []string{"-R"}, link: true, err: "open link: is neither a file nor a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.link {
				if err := os.Symlink("/etc/passwd", filepath.Join(tree, "link")); err != nil {
					t.Fatal(err)
				}
			}
			image := filepath.Join(t.TempDir(), "image")
			tool(t, "xorriso", append(append([]string{"-as", "mkisofs", "-quiet"}, c.args...), "-o", image, tree)...)
			b, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			v, err := Open(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.Files(1 << 20)
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, map[string][]byte{"dir/vmlinuz": []byte("kernel"), "readme.txt": nil})
		})
	}
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
		{"odd size", fat(FAT{Size: 2<<20 + 1, Label: "L"}), "want a multiple of 512, up to 1 GiB"},
		{"too large", fat(FAT{Size: 2 << 30, Label: "L"}), "up to 1 GiB"},
		{"no size", fat(FAT{Label: "L"}), "0 bytes are too few"},
		{"no room at all", fat(FAT{Size: 3 * 4096, SectorSize: 4096, Label: "L"}), "12288 bytes are too few"},
		{"no room for a directory", fat(FAT{Size: 16 * 4096, SectorSize: 4096, Label: "L", Files: map[string][]byte{"a/b": nil, "c": make([]byte, 9*4096)}}), "need 40960 bytes, the FAT volume has room for 36864"},
		{"odd sectors", fat(FAT{Size: 2 << 20, SectorSize: 2048, Label: "L"}), "want 512 or 4096"},
		{"names differ in case", fat(FAT{Size: FloppySize, Label: "L", Files: file("x/a", "x/A")}), "in case alone"},
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
		{"ISO name too long", iso(ISO{Label: "L", Files: []File{BytesFile(strings.Repeat("n", 251), nil)}}), "too long"},
		{"ISO too deep", iso(ISO{Label: "L", Files: []File{BytesFile(strings.Repeat("d/", 16)+"f", nil)}}), "16 levels"},
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
		b, err := FAT{Size: FloppySize, Label: "L", Files: map[string][]byte{
			"dir/FILE": bytes.Repeat([]byte("x"), 5000), "dir/" + strings.Repeat("n", 255): nil,
		}}.Bytes()
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
	at := func(b []byte, text string) int { return bytes.Index(b, []byte(text)) }
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
		{"directory is a loop", floppy(func(b []byte) { b[512+3], b[512+4] = 0x02, 0xf0 }), "is a loop at"},
		{"file is a loop", floppy(func(b []byte) { b[512+6], b[512+7] = 4, b[512+7]&0xf0 }), "read dir/FILE: chain of clusters is a loop at 4"},
		{"floppy cut off", floppy(func([]byte) {})[:40*512], "read dir/FILE: unexpected EOF"},
		{"floppy's root cut off", floppy(func([]byte) {})[:19*512], "read root directory: unexpected EOF"},
		{"chain leaves the volume", floppy(func(b []byte) { b[512+3], b[512+4] = 0xf6, 0xff }), "outside"},
		{"file without clusters", floppy(func(b []byte) { clear(b[512+4 : 512+12]) }), "outside"},
		{"directory is the root again", floppy(func(b []byte) {
			for e := b[root*512:]; ; e = e[32:] {
				if e[11] == attrDir {
					e[26] = 0
					return
				}
			}
		}), "no clusters"},
		{"CD cut off", cd(func([]byte) {})[:17*isoSector], "descriptor 1"},
		{"CD without end mark", cd(func(b []byte) { b[17*isoSector] = 7 }), "has no mark"},
		{"CD sectors of 512 bytes", cd(func(b []byte) { binary.LittleEndian.PutUint16(b[16*isoSector+128:], 512) }), "sectors of 512"},
		{"CD root beyond the end", cd(func(b []byte) { binary.LittleEndian.PutUint32(b[16*isoSector+158:], 1<<30) }), "read root directory"},
		{"CD directory of 4 GiB", cd(func(b []byte) { binary.LittleEndian.PutUint32(b[16*isoSector+166:], 1<<32-1) }), "unexpected EOF"},
		{"CD directory of 5 MiB", append(cd(func(b []byte) { binary.LittleEndian.PutUint32(b[16*isoSector+166:], 5<<20) }), make([]byte, 6<<20)...), "directories have more than 4194304 bytes"},
		{"CD directory is its own", cd(func(b []byte) { copy(b[at(b, "\x03DIR")+2-32:], b[16*isoSector+158:][:16]) }), "more than 16 levels"},
		{"CD name with a slash", cd(func(b []byte) { b[at(b, "NM\x06\x01\x00f")+5] = '/' }), `"/" is not a name`},
		{"CD name that climbs", cd(func(b []byte) { copy(b[at(b, "NM\x08\x01\x00dir")+2:], "\x07\x01\x00..\x00") }), `".." is not a name`},
		{"CD name twice", cd(func(b []byte) { copy(b[at(b, "NM\x08\x01\x00dir")+2:], "\x06\x01\x00f") }), `"f" is there twice`},
		{"CD file in several extents", cd(func(b []byte) { b[at(b, "F.;1")+25-33] |= 0x80 }), "several or interleaved extents"},
		{"CD file beyond the end", cd(func(b []byte) { binary.LittleEndian.PutUint32(b[at(b, "F.;1")+2-33:], 1<<30) }), "read f: unexpected EOF"},
		{"CD larger files than allowed", cd(func(b []byte) { binary.LittleEndian.PutUint32(b[at(b, "F.;1")+10-33:], 1<<20) }), "more than 1048576 bytes"},
		{"CD root record cut off", cd(func(b []byte) { b[16*isoSector+156] = 10 }), "cut off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := Open(bytes.NewReader(c.image))
			if err == nil {
				_, err = v.Files(1 << 20)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	b, err := FAT{Size: FloppySize, Label: "ir-vfd-dev", Files: map[string][]byte{"etc/some-long-name.txt": []byte("x"), "A": []byte("y")}}.Head()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(makeISO(f, ISO{Label: "L"}, map[string][]byte{"etc/some-long-name.txt": []byte("x")}))
	f.Fuzz(fuzzRead)
}

// FuzzISO has what follows the system area, which is empty.
func FuzzISO(f *testing.F) {
	cd := makeISO(f, ISO{Label: "config-2"}, map[string][]byte{"a/b": []byte("c"), "d": nil, strings.Repeat("n", 200): nil})
	f.Add(cd[16*isoSector:])
	f.Add(cd[16*isoSector:][:4096])
	f.Fuzz(func(t *testing.T, b []byte) { fuzzRead(t, append(make([]byte, 16*isoSector), b...)) })
}

// fuzzRead reads whatever can be read, and wants what an fs.FS and Files promise.
func fuzzRead(t *testing.T, b []byte) {
	v, err := Open(bytes.NewReader(b))
	if err != nil {
		return
	}
	budget := 100
	fs.WalkDir(v, ".", func(name string, d fs.DirEntry, err error) error {
		if budget--; budget < 0 {
			return fs.SkipAll
		}
		if !fs.ValidPath(name) {
			t.Fatalf("name %q", name)
		}
		if err != nil || d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		data, err := v.ReadFile(name)
		if len(data) > 2*len(b) {
			t.Fatalf("file %q has %d bytes in a volume of %d", name, len(data), len(b))
		}
		if err == nil && int64(len(data)) != info.Size() {
			t.Fatalf("file %q has %d bytes, read %d", name, info.Size(), len(data))
		}
		return nil
	})
	files, err := v.Files(int64(len(b)))
	total := 0
	for _, content := range files {
		total += len(content)
	}
	if err == nil && total > len(b) {
		t.Errorf("%d bytes of files in a volume of %d", total, len(b))
	}
}
