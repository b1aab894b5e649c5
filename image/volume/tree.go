// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// tree is a list of files as directories, for the makers.
type tree struct {
	name  string
	dirs  []*tree // sorted by name
	files []int   // indexes of the caller's files, sorted by name
}

// newTree puts slash-separated names into directories. Names must be relative, clean and unique.
func newTree(names []string) (*tree, error) {
	root := &tree{}
	seen := map[string]bool{}
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	for _, i := range order {
		name := names[i]
		if name == "." || !fs.ValidPath(name) {
			return nil, fmt.Errorf("file %q: not a clean relative path", name)
		}
		if seen[name] {
			return nil, fmt.Errorf("file %q: twice, or also a directory", name)
		}
		dir := root
		elements := strings.Split(name, "/")
		for k, element := range elements[:len(elements)-1] {
			parent := strings.Join(elements[:k+1], "/")
			at := slices.IndexFunc(dir.dirs, func(d *tree) bool { return d.name == element })
			if at < 0 {
				if seen[parent] {
					return nil, fmt.Errorf("file %q: %q is a file too", name, parent)
				}
				seen[parent] = true
				dir.dirs = append(dir.dirs, &tree{name: element})
				at = len(dir.dirs) - 1
			}
			dir = dir.dirs[at]
		}
		seen[name] = true
		dir.files = append(dir.files, i)
	}
	root.sort()
	return root, nil
}

func (t *tree) sort() {
	slices.SortFunc(t.dirs, func(a, b *tree) int { return strings.Compare(a.name, b.name) })
	for _, d := range t.dirs {
		d.sort()
	}
}

// shortName makes a name of 8+3 upper-case characters for FAT (tail "~") or plain ISO 9660 (tail "_"), unlike any in taken,
// and adds it there. exact says that name is such a name itself.
func shortName(name, tail string, taken map[string]bool) (short string, exact bool) {
	clean := func(s string, n int) string {
		var b strings.Builder
		for _, c := range strings.ToUpper(s) {
			if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' {
				b.WriteRune(c)
			} else if c != ' ' && c != '.' {
				b.WriteByte('_')
			}
			if b.Len() == n {
				break
			}
		}
		return b.String()
	}
	stem, ext := name, ""
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		stem, ext = name[:dot], name[dot+1:]
	}
	stem, ext = clean(stem, 8), clean(ext, 3)
	join := func(stem string) string {
		if ext == "" {
			return stem
		}
		return stem + "." + ext
	}
	exact = join(stem) == name && stem != ""
	// In FAT a name that had to be changed always gets a number; in ISO 9660 only one that is taken.
	short = join(stem)
	ok := stem != "" && (exact || tail != "~") && !taken[short]
	for n := 1; !ok; n++ {
		number := fmt.Sprintf("%s%d", tail, n)
		short = join(stem[:min(len(stem), 8-len(number))] + number)
		ok = !taken[short]
	}
	taken[short] = true
	return short, exact
}
