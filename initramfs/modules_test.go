// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// kernelModule makes a module: an ELF file whose only contents are the section .modinfo.
func kernelModule(info ...string) []byte {
	modinfo := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.shstrtab\x00.modinfo\x00")
	var b bytes.Buffer
	header := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(64 + len(modinfo) + len(names)), Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 1,
	}
	copy(header.Ident[:], "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	for _, part := range []any{
		header, modinfo, names,
		elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(modinfo)), Size: uint64(len(names))},
		elf.Section64{Name: 11, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(modinfo))},
	} {
		if err := binary.Write(&b, le, part); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

const vermagic = "vermagic=6.1.0-test SMP preempt mod_unload modversions "

func kernelModules() map[string][]byte {
	return map[string][]byte{
		"modules.builtin":             []byte("kernel/fs/nls/nls_base.ko\nkernel/drivers/char/hw-random.ko\n"),
		"modules.builtin.modinfo":     []byte("nls_base.license=GPL\x00"),
		"kernel/fs/ext4/ext4.ko":      kernelModule("alias=fs-ext4", "softdep=pre: crc32c", "depends=jbd2,mbcache", vermagic),
		"kernel/fs/jbd2/jbd2.ko":      kernelModule("depends=", vermagic),
		"kernel/fs/mbcache.ko":        kernelModule(vermagic),
		"kernel/crypto/crc32c-gen.ko": kernelModule("alias=crypto-crc32c", "alias=crc32c", vermagic),
		"kernel/arch/crc32c-intel.ko": kernelModule("alias=crc32c", "depends=", vermagic),
		"kernel/drivers/net/nic.ko":   kernelModule("alias=pci:v00008086d00001572sv*sd*bc*sc*i*", "firmware=nic/a.bin", "firmware=nic/b.bin", "firmware=../../etc/passwd", "depends=lib-nic", vermagic),
		"kernel/lib/lib-nic.ko":       kernelModule("depends=base", vermagic),
		"kernel/lib/base.ko":          kernelModule(vermagic),
	}
}

func moduleTree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), b, 0o644)
	}
	return dir
}

func names(s Selection) string {
	var names []string
	for _, m := range s.Modules {
		names = append(names, m.Name)
	}
	return strings.Join(names, " ")
}

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    Set
		want   string
		absent string
	}{
		{"nothing", Set{}, "", ""},
		{"dependencies, and soft ones by alias", Set{Names: []string{"ext4"}}, "crc32c_intel crc32c_gen ext4 jbd2 mbcache", ""},
		{"dependencies of dependencies", Set{Names: []string{"nic"}}, "nic base lib_nic", ""},
		{"either spelling", Set{Names: []string{"lib-nic", "crc32c-intel"}}, "crc32c_intel base lib_nic", ""},
		{"directory", Set{Dirs: []string{"kernel/lib"}}, "base lib_nic", ""},
		{"directory is a whole name", Set{Dirs: []string{"kernel/li"}}, "", ""},
		{"built in", Set{Names: []string{"hw-random", "nls_base"}}, "", ""},
		{"not in this kernel", Set{Names: []string{"zfs", "base", "aoe"}}, "base", "aoe zfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ReadModules(moduleTree(t, kernelModules()))
			must(t, err)
			s := m.Select(c.set)
			if got := names(s); got != c.want {
				t.Errorf("modules %q, want %q", got, c.want)
			}
			if got := strings.Join(s.Absent, " "); got != c.absent {
				t.Errorf("absent %q, want %q", got, c.absent)
			}
		})
	}
}

// A kernel whose modules are compressed gives the same archive as one whose modules are not.
func TestCompressedModules(t *testing.T) {
	plain := kernelModules()
	packed := map[string][]byte{}
	i := 0
	for name, b := range plain {
		if !strings.HasSuffix(name, ".ko") {
			packed[name] = b
			continue
		}
		var out bytes.Buffer
		if i++; i%2 == 0 {
			w, err := xz.NewWriter(&out)
			must(t, err)
			_, err = w.Write(b)
			must(t, err)
			must(t, w.Close())
			packed[name+".xz"] = out.Bytes()
		} else {
			w, err := zstd.NewWriter(&out)
			must(t, err)
			_, err = w.Write(b)
			must(t, err)
			must(t, w.Close())
			packed[name+".zst"] = out.Bytes()
		}
	}
	var archives [2][]byte
	for i, files := range []map[string][]byte{plain, packed} {
		m, err := ReadModules(moduleTree(t, files))
		must(t, err)
		var a Archive
		must(t, m.Select(Set{Dirs: []string{"kernel"}}).AddTo(&a))
		archives[i] = bytesOf(t, &a)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the archives differ")
	}
}

func TestModuleTables(t *testing.T) {
	m, err := ReadModules(moduleTree(t, kernelModules()))
	must(t, err)
	s := m.Select(Set{Names: []string{"ext4", "nic"}})
	const dep = `kernel/arch/crc32c-intel.ko:
kernel/crypto/crc32c-gen.ko:
kernel/drivers/net/nic.ko: kernel/lib/lib-nic.ko kernel/lib/base.ko
kernel/fs/ext4/ext4.ko: kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/fs/mbcache.ko:
kernel/lib/base.ko:
kernel/lib/lib-nic.ko: kernel/lib/base.ko
`
	if got := s.dep(); got != dep {
		t.Errorf("modules.dep:\n%s\nwant:\n%s", got, dep)
	}
	if got := s.alias(); !strings.Contains(got, "alias pci:v00008086d00001572sv*sd*bc*sc*i* nic\n") || !strings.Contains(got, "alias fs-ext4 ext4\n") {
		t.Errorf("modules.alias:\n%s", got)
	}
	if got := s.softdep(); !strings.Contains(got, "softdep ext4 pre: crc32c\n") {
		t.Errorf("modules.softdep:\n%s", got)
	}
}

func TestReadModulesRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(files map[string][]byte)
		want   string
	}{
		{"not an ELF file", func(f map[string][]byte) { f["kernel/bad.ko"] = []byte("text, and a little more of it") }, "bad.ko: bad magic number"},
		{"cut off", func(f map[string][]byte) { f["kernel/bad.ko"] = f["kernel/fs/mbcache.ko"][:90] }, "bad.ko"},
		{"broken xz", func(f map[string][]byte) { f["kernel/bad.ko.xz"] = []byte("text") }, "bad.ko.xz"},
		{"broken zst", func(f map[string][]byte) { f["kernel/bad.ko.zst"] = []byte("text") }, "bad.ko.zst"},
		{"twice", func(f map[string][]byte) { f["kernel/other/jbd2.ko"] = f["kernel/fs/jbd2/jbd2.ko"] }, "module jbd2 is there twice"},
		{"of another kernel", func(f map[string][]byte) { f["kernel/bad.ko"] = kernelModule("vermagic=5.10.0 SMP") }, `for "5.10.0"`},
		{"no modules", func(f map[string][]byte) {
			for name := range f {
				if strings.HasSuffix(name, ".ko") {
					delete(f, name)
				}
			}
			f["kernel/readme"] = nil
		}, "none in"},
		{"no modules.builtin", func(f map[string][]byte) { delete(f, "modules.builtin") }, "modules.builtin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := kernelModules()
			c.change(files)
			if _, err := ReadModules(moduleTree(t, files)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestFirmware(t *testing.T) {
	m, err := ReadModules(moduleTree(t, kernelModules()))
	must(t, err)
	s := m.Select(Set{Names: []string{"nic"}})
	dir := t.TempDir()
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	must(t, err)
	_, err = w.Write([]byte("firmware"))
	must(t, err)
	must(t, w.Close())
	write(t, filepath.Join(dir, "nic/a.bin.xz"), packed.Bytes(), 0o644)
	var a Archive
	got, err := s.AddFirmware(&a, dir)
	must(t, err)
	if got.Files != 1 || got.Bytes != 8 || !slices.Equal(got.Absent, []string{"nic/b.bin"}) || !a.Has("lib/firmware/nic/a.bin") {
		t.Errorf("AddFirmware = %+v", got)
	}
}

func TestSets(t *testing.T) {
	for _, name := range SetNames() {
		s, err := NewSet(name)
		must(t, err)
		if name != "none" && len(s.Names) == 0 {
			t.Errorf("set %s is empty", name)
		}
	}
	if _, err := NewSet("laptop"); err == nil {
		t.Error("a set laptop is known")
	}
}

// Debian's real kernel, if `make kernel` has unpacked it: our tables say what depmod says.
func TestModulesOfDebian(t *testing.T) {
	dir := filepath.Join("..", "build", "kernel", "modules")
	if build := os.Getenv("IRONHAND_BUILD"); build != "" {
		dir = filepath.Join(build, "kernel", "modules")
	}
	if !exists(dir) {
		t.Skip("SKIPPED: no kernel in build/kernel")
	}
	depmod := judge(t, "depmod")
	m, err := ReadModules(dir)
	must(t, err)
	set, err := NewSet("server")
	must(t, err)
	s := m.Select(set)
	if len(s.Absent) > 0 {
		t.Errorf("absent: %s", s.Absent)
	}
	// A tree of links to the modules, which depmod makes tables for.
	root := t.TempDir()
	tree := filepath.Join(root, "lib/modules", m.Version)
	for _, mod := range s.Modules {
		target := filepath.Join(tree, mod.Path)
		must(t, os.MkdirAll(filepath.Dir(target), 0o755))
		source, err := filepath.Abs(mod.source)
		must(t, err)
		must(t, os.Symlink(source, target))
	}
	for _, name := range []string{"modules.order", "modules.builtin", "modules.builtin.modinfo"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		write(t, filepath.Join(tree, name), b, 0o644)
	}
	if out, err := exec.Command(depmod, "-b", root, m.Version).CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v\n%s", err, out)
	}
	for name, ours := range map[string]string{"modules.dep": s.dep(), "modules.alias": s.alias(), "modules.softdep": s.softdep()} {
		b, err := os.ReadFile(filepath.Join(tree, name))
		must(t, err)
		a, b2 := sorted(name, ours), sorted(name, string(b))
		if !slices.Equal(a, b2) {
			t.Errorf("%s: %s", name, firstDifference(a, b2))
		}
	}
}

// sorted returns the lines of a table in one order; of modules.dep also the dependencies within a line, whose order is not
// unique.
func sorted(name, text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name == "modules.dep" {
			mod, deps, _ := strings.Cut(line, ":")
			list := strings.Fields(deps)
			slices.Sort(list)
			line = mod + ": " + strings.Join(list, " ")
		}
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func firstDifference(ours, theirs []string) string {
	for i := range min(len(ours), len(theirs)) {
		if ours[i] != theirs[i] {
			return fmt.Sprintf("line %d:\n%s\nwant:\n%s", i+1, ours[i], theirs[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(ours), len(theirs))
}
