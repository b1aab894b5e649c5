// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Modules are the modules of one kernel, as they lie in a directory such as /lib/modules/6.1.0-56-amd64. What depmod would tell about them is read
// from the modules themselves: a kernel package that was unpacked but not installed has no modules.dep.
type Modules struct {
	Version string // of the kernel that they were built for, such as "6.1.0-56-amd64"
	dir     string
	byName  map[string]*Module
	builtin map[string]bool // names of modules that are part of the kernel itself
}

// Module is one kernel module. What is said about others is said by name, with "_" for "-".
type Module struct {
	Name     string
	Path     string   // below the directory of the kernel, not compressed: "kernel/fs/ext4/ext4.ko"
	Depends  []string // modules whose symbols it uses
	Aliases  []string // patterns of devices, or names under which it is asked for
	Softdeps []string // such as "pre: crc32c"
	Firmware []string // files below /lib/firmware, some of them only for some devices
	source   string
	version  string // of the kernel
}

// moduleName is the name of a module from a path or a name in any spelling.
func moduleName(s string) string {
	s, _ = packed(path.Base(s))
	return strings.ReplaceAll(strings.TrimSuffix(s, ".ko"), "-", "_")
}

// ReadModules reads the modules in dir, compressed or not.
func ReadModules(dir string) (*Modules, error) {
	m := &Modules{dir: dir, byName: map[string]*Module{}, builtin: map[string]bool{}}
	var list []*Module
	fail := func(err error) (*Modules, error) { return nil, fmt.Errorf("read kernel modules: %w", err) }
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		plain, _ := packed(p)
		if d.IsDir() || !strings.HasSuffix(plain, ".ko") {
			return nil
		}
		rel, err := filepath.Rel(dir, plain)
		if err != nil {
			return err
		}
		mod := &Module{Name: moduleName(plain), Path: filepath.ToSlash(rel), source: p}
		if other := m.byName[mod.Name]; other != nil {
			return fmt.Errorf("module %s is there twice: %s and %s", mod.Name, other.source, p)
		}
		m.byName[mod.Name] = mod
		list = append(list, mod)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if len(list) == 0 {
		return fail(fmt.Errorf("none in %s", dir))
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return fail(err)
	}
	for line := range strings.FieldsSeq(string(builtin)) {
		m.builtin[moduleName(line)] = true
	}
	if err := readInfos(list); err != nil {
		return fail(err)
	}
	m.Version = list[0].version
	for _, mod := range list {
		if mod.version != m.Version || m.Version == "" {
			return fail(fmt.Errorf("%s is for kernel %q, %s for %q", list[0].source, m.Version, mod.source, mod.version))
		}
	}
	return m, nil
}

// readInfos reads what all modules say about themselves, on all processors: there are thousands.
func readInfos(list []*Module) error {
	errs := make([]error, len(list))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				errs[i] = list[i].readInfo()
			}
		})
	}
	for i := range list {
		next <- i
	}
	close(next)
	workers.Wait()
	return errors.Join(errs...)
}

// readInfo reads the section .modinfo: strings "key=value" that end with a zero byte.
func (m *Module) readInfo() error {
	var r io.ReaderAt
	if _, is := packed(m.source); is {
		b, err := readUnpacked(m.source)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	} else {
		f, err := os.Open(m.source)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	file, err := elf.NewFile(r)
	if err != nil {
		return fmt.Errorf("%s: %w", m.source, err)
	}
	section := file.Section(".modinfo")
	if section == nil {
		return fmt.Errorf("%s: has no section .modinfo", m.source)
	}
	info, err := section.Data()
	if err != nil {
		return fmt.Errorf("%s: read section .modinfo: %w", m.source, err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "vermagic": // "6.1.0-56-amd64 SMP preempt mod_unload modversions "
			m.version, _, _ = strings.Cut(value, " ")
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					m.Depends = append(m.Depends, moduleName(name))
				}
			}
		case "alias":
			m.Aliases = append(m.Aliases, value)
		case "softdep":
			m.Softdeps = append(m.Softdeps, value)
		case "firmware":
			m.Firmware = append(m.Firmware, value)
		}
	}
	return nil
}

// Selection is a part of the modules of a kernel with everything that it needs.
type Selection struct {
	Modules []*Module // sorted by path
	Absent  []string  // names asked for that this kernel has neither as a module nor built in
	all     *Modules
}

// Select returns the modules of set, their dependencies and their soft dependencies.
func (m *Modules) Select(set Set) Selection {
	s := Selection{all: m}
	chosen := map[string]*Module{}
	var take func(name string)
	take = func(name string) {
		mod := m.byName[name]
		if mod == nil || chosen[name] != nil {
			return
		}
		chosen[name] = mod
		for _, d := range mod.Depends {
			take(d)
		}
		for _, soft := range mod.Softdeps {
			for word := range strings.FieldsSeq(soft) {
				if word == "pre:" || word == "post:" {
					continue
				}
				for _, found := range m.find(word) {
					take(found)
				}
			}
		}
	}
	for _, name := range set.Names {
		name = moduleName(name)
		if m.byName[name] == nil && !m.builtin[name] {
			s.Absent = append(s.Absent, name)
		}
		take(name)
	}
	for _, dir := range set.Dirs {
		for name, mod := range m.byName {
			if strings.HasPrefix(mod.Path, dir+"/") {
				take(name)
			}
		}
	}
	s.Modules = slices.SortedFunc(maps.Values(chosen), func(a, b *Module) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(s.Absent)
	return s
}

// find returns the modules that a word of a soft dependency means: one of that name, else all of that alias, as modprobe
// does it. "crc32c" is the alias of a generic module and of faster ones for some processors.
func (m *Modules) find(word string) []string {
	if name := moduleName(word); m.byName[name] != nil || m.builtin[name] {
		return []string{name}
	}
	var names []string
	for name, mod := range m.byName {
		if slices.ContainsFunc(mod.Aliases, func(alias string) bool {
			ok, err := path.Match(alias, word)
			return alias == word || ok && err == nil
		}) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// AddTo adds the modules to an archive under lib/modules/VERSION, not compressed, with the tables that modprobe and
// others read: modules.dep, modules.alias, modules.softdep, and the kernel's modules.builtin and modules.builtin.modinfo.
// The tables name only what is there.
func (s Selection) AddTo(a *Archive) error {
	root := "lib/modules/" + s.all.Version + "/"
	for _, mod := range s.Modules {
		var err error
		if _, is := packed(mod.source); is {
			var b []byte
			if b, err = readUnpacked(mod.source); err == nil {
				err = a.Bytes(root+mod.Path, 0o644, b)
			}
		} else {
			err = a.File(root+mod.Path, 0o644, mod.source)
		}
		if err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"modules.dep": s.dep(), "modules.alias": s.alias(), "modules.softdep": s.softdep()} {
		if err := a.Bytes(root+name, 0o644, []byte(text)); err != nil {
			return err
		}
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo"} {
		source := filepath.Join(s.all.dir, name)
		if _, err := os.Stat(source); errors.Is(err, fs.ErrNotExist) && name != "modules.builtin" {
			continue // kernels before 5.2 have none
		}
		if err := a.File(root+name, 0o644, source); err != nil {
			return err
		}
	}
	return nil
}

// dep is modules.dep: for each module all that it needs, also indirectly. Loading the list from its end to its beginning
// and then the module is a good order.
func (s Selection) dep() string {
	var b strings.Builder
	for _, mod := range s.Modules {
		b.WriteString(mod.Path + ":")
		for _, d := range s.needs(mod) {
			b.WriteString(" " + d.Path)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// needs lists the dependencies of a module, each before its own.
func (s Selection) needs(mod *Module) []*Module {
	var order []*Module // each after its own
	seen := map[string]bool{mod.Name: true}
	var visit func(names []string)
	visit = func(names []string) {
		for _, name := range names {
			if d := s.all.byName[name]; d != nil && !seen[name] {
				seen[name] = true
				visit(d.Depends)
				order = append(order, d)
			}
		}
	}
	visit(mod.Depends)
	slices.Reverse(order)
	return order
}

func (s Selection) alias() string {
	var b strings.Builder
	b.WriteString("# Aliases extracted from modules themselves.\n")
	for _, mod := range s.Modules {
		for _, alias := range mod.Aliases {
			b.WriteString("alias " + alias + " " + mod.Name + "\n")
		}
	}
	return b.String()
}

func (s Selection) softdep() string {
	var b strings.Builder
	b.WriteString("# Soft dependencies extracted from modules themselves.\n")
	for _, mod := range s.Modules {
		for _, soft := range mod.Softdeps {
			b.WriteString("softdep " + mod.Name + " " + soft + "\n")
		}
	}
	return b.String()
}

// Firmware is what AddFirmware did.
type Firmware struct {
	Files  int   // added
	Bytes  int64 // of them
	Absent []string
}

// AddFirmware adds the firmware files that the modules name and that dir has (as /lib/firmware), not compressed. A module
// names files for all devices that it drives, and newer and older ones, so absent files are usual and no error.
func (s Selection) AddFirmware(a *Archive, dir string) (Firmware, error) {
	var f Firmware
	if _, err := os.Stat(dir); err != nil {
		return f, fmt.Errorf("firmware: %w", err)
	}
	for _, mod := range s.Modules {
		for _, name := range mod.Firmware {
			target := "lib/firmware/" + name
			if !filepath.IsLocal(name) || a.Has(target) {
				continue
			}
			b, err := readFirmware(filepath.Join(dir, filepath.FromSlash(name)))
			if errors.Is(err, fs.ErrNotExist) {
				f.Absent = append(f.Absent, name)
				continue
			}
			if err == nil {
				err = a.Bytes(target, 0o644, b)
			}
			if err != nil {
				return f, fmt.Errorf("firmware of module %s: %w", mod.Name, err)
			}
			f.Files++
			f.Bytes += int64(len(b))
		}
	}
	slices.Sort(f.Absent)
	f.Absent = slices.Compact(f.Absent)
	return f, nil
}

// readFirmware reads a file or its compressed form.
func readFirmware(name string) ([]byte, error) {
	for _, ext := range []string{"", ".xz", ".zst"} {
		b, err := readUnpacked(name + ext)
		if !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}
