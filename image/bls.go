// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// maxCmdline is longer than any kernel's command line, bytes.
const maxCmdline = 16 << 10

// blsFile is a type #1 entry of the Boot Loader Specification (uapi-group.org/specifications/specs/boot_loader_specification).
type blsFile struct {
	name                               string // path of the file
	id                                 string // name of the file without ".conf"
	title, version, sortKey, machineID string
	linux, options                     string
	initrds                            []string
}

// readBLS reads the entries in a directory; a directory that does not exist has none.
func readBLS(fsys fs.FS, dir string) ([]blsFile, error) {
	names, err := fs.ReadDir(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	var files []blsFile
	for _, n := range names {
		id, is := strings.CutSuffix(n.Name(), ".conf")
		if !is || len(files) == grubEntries {
			continue
		}
		b, err := readFile(fsys, path.Join(dir, n.Name()), 64<<10)
		if err != nil {
			return nil, err
		}
		files = append(files, parseBLS(path.Join(dir, n.Name()), id, string(b)))
	}
	return files, nil
}

func parseBLS(name, id, text string) blsFile {
	f := blsFile{name: name, id: id}
	for line := range strings.Lines(text) {
		key, value := line, ""
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			key, value = line[:i], strings.TrimSpace(line[i:])
		}
		switch strings.TrimSpace(key) {
		case "title":
			f.title = value
		case "version":
			f.version = value
		case "sort-key":
			f.sortKey = value
		case "machine-id":
			f.machineID = value
		case "linux":
			f.linux = value
		case "initrd":
			f.initrds = append(f.initrds, value)
		case "options":
			f.options = strings.TrimSpace(f.options + " " + value)
		}
	}
	return f
}

// entry gives what f starts, with GRUB's variables filled in (Fedora writes "options $kernelopts"; other boot loaders have none).
// It is false if f starts no Linux, or if a file is missing.
func (f blsFile) entry(fsys fs.FS, v int, vars map[string]string) (BootEntry, bool) {
	kernel, ok1 := expand(f.linux, vars)
	initrds, ok2 := expand(strings.Join(f.initrds, " "), vars)
	options, ok3 := expand(cmp.Or(f.options, vars["default_kernelopts"]), vars)
	b := BootEntry{Title: cmp.Or(f.title, f.id), Source: f.name, Volume: v, Kernel: cleanPath(kernel)}
	if !ok1 || !ok2 || !ok3 || !isFile(fsys, b.Kernel) {
		return BootEntry{}, false
	}
	for _, name := range strings.Fields(initrds) {
		if !isFile(fsys, cleanPath(name)) {
			return BootEntry{}, false
		}
		b.Initrds = append(b.Initrds, cleanPath(name))
	}
	b.Cmdline = strings.Join(strings.Fields(options), " ")
	return b, true
}

// expand fills in $name and ${name}, once. It fails if the result were far longer than any command line.
func expand(s string, vars map[string]string) (string, bool) {
	length := len(s)
	s = os.Expand(s, func(name string) string {
		if length += len(vars[name]); length > maxCmdline {
			return ""
		}
		return vars[name]
	})
	return s, length <= maxCmdline
}

// systemdBoot reads loader/loader.conf and loader/entries of a volume as systemd-boot does (loader.conf(5)).
func systemdBoot(fsys fs.FS, v int) ([]BootEntry, error) {
	files, err := readBLS(fsys, "loader/entries")
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(files, compareBLS)

	wanted := ""
	b, err := readFile(fsys, "loader/loader.conf", 64<<10)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "default" {
			wanted = f[1]
		}
	}
	var entries []BootEntry
	first := -1
	for _, f := range files {
		e, ok := f.entry(fsys, v, nil)
		if !ok {
			continue
		}
		matches, err := path.Match(wanted, f.id+".conf")
		if err == nil && !matches {
			matches, err = path.Match(wanted, f.id)
		}
		if first < 0 && err == nil && matches {
			first = len(entries)
		}
		entries = append(entries, e)
	}
	if len(entries) > 0 {
		entries[max(first, 0)].Default = true
	}
	return entries, nil
}

// compareBLS is the order of a menu: entries with a sort-key first, by it, the machine and the version, newest first; the others by
// their names, newest first.
func compareBLS(a, b blsFile) int {
	if (a.sortKey == "") != (b.sortKey == "") {
		if a.sortKey != "" {
			return -1
		}
		return 1
	}
	if a.sortKey != "" {
		if c := cmp.Or(cmp.Compare(a.sortKey, b.sortKey), cmp.Compare(a.machineID, b.machineID), compareVersions(b.version, a.version)); c != 0 {
			return c
		}
	}
	return compareVersions(b.id, a.id)
}

// compareVersions orders names with numbers in them: "6.9.0" before "6.10.0", "6.1.0~rc1" before "6.1.0".
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		if at, bt := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~"); at || bt {
			switch {
			case !bt:
				return -1
			case !at:
				return 1
			}
			a, b = a[1:], b[1:]
			continue
		}
		x, isX := leading(&a)
		y, isY := leading(&b)
		if isX && isY { // numbers
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			continue
		}
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// leading takes a run of digits, or of other characters up to the next digit or "~", off the front of s.
func leading(s *string) (run string, digits bool) {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	t := *s
	if t == "" {
		return "", false
	}
	digits = digit(t[0])
	n := 1
	for n < len(t) && digit(t[n]) == digits && t[n] != '~' {
		n++
	}
	*s = t[n:]
	return t[:n], digits
}
