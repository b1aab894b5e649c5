// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Modules is what depmod(8) knows of the loadable modules of one kernel: where each is, what it needs, and which devices want it.
// A Modules does not change once read.
type Modules struct {
	file      map[string]string   // module -> file below the directory
	needs     map[string][]string // module -> modules to load before, in order
	pre, post map[string][]string // module -> names or aliases to load before and after, if they can be had
	builtin   map[string]bool
	aliases   map[string][]alias // text before the first wildcard -> patterns
	lengths   []int              // of the keys of aliases
}

type alias struct{ pattern, module string }

// Load is one module to load.
type Load struct {
	Name  string   // with underscores
	File  string   // below the directory that the tables are in
	After []string // modules earlier in the same plan that must be loaded before
}

// maxTable bounds each table, in bytes. modules.alias of a whole Debian kernel has 1.3 MB.
const maxTable = 16 << 20

// ReadModules reads modules.dep, modules.alias, modules.softdep and modules.builtin (formats: modules.dep(5), modprobe.d(5)) from
// dir, which is /lib/modules/RELEASE. Only modules.dep must be there.
func ReadModules(dir fs.FS) (*Modules, error) {
	m := &Modules{
		file: map[string]string{}, needs: map[string][]string{}, pre: map[string][]string{}, post: map[string][]string{},
		builtin: map[string]bool{}, aliases: map[string][]alias{},
	}
	tables := []struct {
		name string
		line func(string) error
	}{
		{"modules.dep", m.parseDep},
		{"modules.alias", m.parseAlias},
		{"modules.softdep", m.parseSoftdep},
		{"modules.builtin", m.parseBuiltin},
	}
	for i, table := range tables {
		err := eachLine(dir, table.name, table.line)
		if i > 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read module tables: %w", err)
		}
	}
	for prefix := range m.aliases {
		if !slices.Contains(m.lengths, len(prefix)) {
			m.lengths = append(m.lengths, len(prefix))
		}
	}
	return m, nil
}

// eachLine calls do with each line of a file that is neither empty nor a comment.
func eachLine(dir fs.FS, name string, do func(line string) error) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	limited := &io.LimitedReader{R: f, N: maxTable + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := do(line); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if limited.N == 0 {
		return fmt.Errorf("%s: larger than %d bytes", name, maxTable)
	}
	return nil
}

// parseDep takes "kernel/a.ko: kernel/b.ko kernel/c.ko": a needs b and c, and c goes first.
func (m *Modules) parseDep(line string) error {
	file, rest, ok := strings.Cut(line, ":")
	if !ok {
		return fmt.Errorf("no colon in %.80q", line)
	}
	if !fs.ValidPath(file) {
		return fmt.Errorf("%.80q is not a path below the directory of modules", file)
	}
	name := moduleName(file)
	m.file[name] = file
	for _, f := range strings.Fields(rest) {
		m.needs[name] = append(m.needs[name], moduleName(f))
	}
	slices.Reverse(m.needs[name])
	return nil
}

// parseAlias takes "alias PATTERN MODULE". Patterns are fnmatch(3) without flags.
func (m *Modules) parseAlias(line string) error {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != "alias" {
		return fmt.Errorf("%.80q is not an alias", line)
	}
	pattern := slashless(fields[1])
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("alias %.80q: %w", fields[1], err)
	}
	prefix := pattern
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		prefix = pattern[:i]
	}
	m.aliases[prefix] = append(m.aliases[prefix], alias{pattern, moduleName(fields[2])})
	return nil
}

// parseSoftdep takes "softdep NAME pre: A B post: C". Words before pre: and post: count for nothing, as in modprobe: some modules
// (cifs) have them by mistake.
func (m *Modules) parseSoftdep(line string) error {
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] != "softdep" {
		return fmt.Errorf("%.80q is not a soft dependency", line)
	}
	name, into := moduleName(fields[1]), map[string][]string(nil)
	for _, f := range fields[2:] {
		switch f {
		case "pre:":
			into = m.pre
		case "post:":
			into = m.post
		default:
			if into != nil {
				into[name] = append(into[name], f)
			}
		}
	}
	return nil
}

func (m *Modules) parseBuiltin(line string) error {
	m.builtin[moduleName(line)] = true
	return nil
}

// live reports whether a module is ready, by the directory /sys/module: one that starts stands there as well. What is built in has no
// initstate (Documentation/ABI/testing/sysfs-module).
func live(sysModule fs.FS, name string) bool {
	state, err := fs.ReadFile(sysModule, name+"/initstate")
	if errors.Is(err, fs.ErrNotExist) {
		_, err := fs.Stat(sysModule, name)
		return err == nil
	}
	return err == nil && strings.TrimSpace(string(state)) == "live"
}

// Match returns the modules for a device's modalias, in the order of modules.alias, each once.
func (m *Modules) Match(modalias string) []string {
	modalias = slashless(modalias)
	var found []string
	for _, n := range m.lengths {
		if n > len(modalias) {
			continue
		}
		for _, a := range m.aliases[modalias[:n]] {
			// The pattern was checked when it was read.
			if ok, _ := path.Match(a.pattern, modalias); ok && !slices.Contains(found, a.module) {
				found = append(found, a.module)
			}
		}
	}
	return found
}

// resolve returns the modules that a name stands for: itself, or those that it is an alias of.
func (m *Modules) resolve(name string) []string {
	if n := moduleName(name); m.file[n] != "" || m.builtin[n] {
		return []string{n}
	}
	return m.Match(name)
}

// Plan returns what to load, in order, to have the modules named: what they need first, their soft dependencies around them. What is
// built into the kernel is left out. It fails if a module, or one that it needs, is not there; soft dependencies may be missing.
func (m *Modules) Plan(names ...string) ([]Load, error) {
	p := plan{m: m, state: map[string]state{}}
	var errs []error
	for _, name := range names {
		found := m.resolve(name)
		if len(found) == 0 {
			errs = append(errs, fmt.Errorf("module %s is not in the ramdisk, nor built in", name))
		}
		for _, n := range found {
			errs = append(errs, p.add(n, ""))
		}
	}
	return p.loads, errors.Join(errs...)
}

type state int

const (
	unseen  state = iota
	waiting       // its own needs are being planned
	planned
)

type plan struct {
	m     *Modules
	state map[string]state
	loads []Load
}

// add plans a module and what belongs to it. after, if not empty, is a module that this one follows.
func (p *plan) add(name, after string) error {
	if p.state[name] != unseen || p.m.builtin[name] {
		return nil
	}
	file := p.m.file[name]
	if file == "" {
		return fmt.Errorf("module %s is not in the ramdisk, nor built in", name)
	}
	p.state[name] = waiting
	for _, soft := range p.m.pre[name] {
		p.addSoft(soft, "")
	}
	for _, need := range p.m.needs[name] {
		if err := p.add(need, ""); err != nil {
			p.state[name] = unseen
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	l := Load{Name: name, File: file}
	before := slices.Clone(p.m.needs[name])
	for _, soft := range p.m.pre[name] {
		before = append(before, p.m.resolve(soft)...)
	}
	for _, b := range append(before, after) {
		if p.state[b] == planned && !slices.Contains(l.After, b) {
			l.After = append(l.After, b)
		}
	}
	p.loads = append(p.loads, l)
	p.state[name] = planned
	for _, soft := range p.m.post[name] {
		p.addSoft(soft, name)
	}
	return nil
}

// addSoft plans a soft dependency if it can be had. One that itself needs a module which waits for it cannot.
func (p *plan) addSoft(soft, after string) {
	for _, name := range p.m.resolve(soft) {
		circular := slices.ContainsFunc(p.m.needs[name], func(need string) bool { return p.state[need] == waiting })
		if !circular && p.complete(name) {
			// complete has shown that this cannot fail.
			_ = p.add(name, after)
		}
	}
}

// complete reports whether the module and all that it needs are there.
func (p *plan) complete(name string) bool {
	for _, n := range append([]string{name}, p.m.needs[name]...) {
		if p.m.file[n] == "" && !p.m.builtin[n] {
			return false
		}
	}
	return true
}

// modaliases returns the modalias of every device in sys, which is /sys: each once. A device that goes away meanwhile is no error.
func modaliases(sys fs.FS) ([]string, error) {
	seen := map[string]bool{}
	var all []string
	err := fs.WalkDir(sys, "devices", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "modalias" && !d.IsDir() {
			var s string
			if s, err = readModalias(sys, name); s != "" && !seen[s] {
				seen[s] = true
				all = append(all, s)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return all, fmt.Errorf("read the devices' aliases: %w", err)
	}
	return all, nil
}

// modaliasesAbove returns the modaliases of the devices that one with the path of a uevent is below.
func modaliasesAbove(sys fs.FS, device string) ([]string, error) {
	var all []string
	for dir := path.Dir(device); dir != path.Dir(dir); dir = path.Dir(dir) {
		s, err := readModalias(sys, strings.TrimPrefix(dir, "/")+"/modalias")
		if err != nil {
			return all, fmt.Errorf("read the aliases of the devices above %s: %w", device, err)
		}
		if s != "" {
			all = append(all, s)
		}
	}
	return all, nil
}

// readModalias reads one file; that of a device which has gone, or has none, is empty.
func readModalias(sys fs.FS, name string) (string, error) {
	b, err := fs.ReadFile(sys, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// moduleName is the name of the module in a file, with underscores: "kernel/fs/nls/nls_iso8859-1.ko.xz" is nls_iso8859_1.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(strings.TrimSpace(file)), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// slashless makes path.Match treat a slash like any other byte, as the wildcards of aliases do.
func slashless(s string) string { return strings.ReplaceAll(s, "/", "\x00") }
