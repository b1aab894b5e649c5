// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// What a configuration may cost at most. Real ones stay far below.
const (
	grubFileSize  = 1 << 20
	grubSteps     = 20000   // commands carried out
	grubExpansion = 8 << 20 // bytes of all files that are read, and of all words after variables were filled in
	grubDepth     = 32      // functions, submenus and included files inside each other
	grubEntries   = 1000
)

var errGrubLimit = errors.New("configuration asks for too much work")

// grub carries out a GRUB configuration as far as finding its menu needs it: variables, tests, functions, loops, included files, the
// environment block, search, menuentry, submenu, linux, initrd and blscfg. All other commands do nothing and succeed. The disk is
// only read. (GNU GRUB manual 2.06, chapters 5, 6 and 16.)
type grub struct {
	disk      volumes
	vars      map[string]string
	functions map[string][]statement
	menu      *menu
	entry     *menuItem // the one whose body runs
	source    string    // the file that is carried out
	depth     int
	steps     int
	expanded  int
	entries   int
}

// menu is what the user would see.
type menu struct{ items []*menuItem }

type menuItem struct {
	title, id string
	sub       *menu     // of a submenu
	boot      BootEntry // Kernel is empty if the entry starts something else than Linux
}

// grubMenu reads the configuration in the file name of volume v. It gives the menu's entries that start Linux.
func grubMenu(disk volumes, v int, name string) ([]BootEntry, error) {
	g := &grub{
		disk:      disk,
		functions: map[string][]statement{},
		menu:      &menu{},
		vars: map[string]string{
			"root": device(v), "prefix": "(" + device(v) + ")/" + path.Dir(name),
			"grub_platform": "efi", "grub_cpu": "x86_64",
			"feature_menuentry_id": "y", "feature_timeout_style": "y", "feature_default_font_path": "y",
			"feature_platform_search_hint": "y", "feature_all_video_module": "y", "feature_ntldr": "y", "feature_chainloader_bpb": "y",
			// Ubuntu's cloud images try first without an initrd and note the failure for the next boot. Here is no next boot.
			"initrdfail": "1",
		},
	}
	if err := g.file("(" + device(v) + ")/" + name); err != nil {
		return nil, err
	}
	return g.result(), nil
}

// file carries out one configuration file.
func (g *grub) file(name string) error {
	v, p, ok := g.disk.resolve(name, g.vars["root"])
	if !ok {
		return fmt.Errorf("%s: unknown device", name)
	}
	b, err := readFile(g.disk[v].FS, p, grubFileSize)
	if err != nil {
		return err
	}
	if g.expanded += len(b); g.expanded > grubExpansion {
		return errGrubLimit
	}
	program, err := parseGrub(string(b))
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	source, directory := g.source, g.vars["config_directory"]
	g.source, g.vars["config_directory"] = p, "("+device(v)+")/"+path.Dir(p)
	_, err = g.run(program)
	g.source, g.vars["config_directory"] = source, directory
	return err
}

// run carries out a list of statements. The result is the status of the last one, as in a shell.
func (g *grub) run(list []statement) (ok bool, err error) {
	if g.depth++; g.depth > grubDepth {
		return false, errGrubLimit
	}
	defer func() { g.depth-- }()
	ok = true
	for _, s := range list {
		if g.steps++; g.steps > grubSteps {
			return false, errGrubLimit
		}
		switch {
		case s.function != "":
			g.functions[s.function] = s.body
			ok = true
		case s.loop != "":
			ok, err = g.loop(s)
		case s.branches != nil:
			ok, err = g.branch(s)
		default:
			ok, err = g.command(s)
		}
		if err != nil {
			return false, err
		}
	}
	return ok, nil
}

func (g *grub) branch(s statement) (bool, error) {
	for _, b := range s.branches {
		ok, err := g.run(b.condition) // of "else" it is empty, and true
		if err != nil {
			return false, err
		}
		if ok {
			return g.run(b.body)
		}
	}
	return true, nil
}

func (g *grub) loop(s statement) (bool, error) {
	if s.loop == "for" {
		words, err := g.words(s.words)
		if err != nil {
			return false, err
		}
		for _, w := range words {
			g.vars[s.variable] = w
			if _, err := g.run(s.body); err != nil {
				return false, err
			}
		}
		return true, nil
	}
	for {
		if g.steps++; g.steps > grubSteps {
			return false, errGrubLimit
		}
		ok, err := g.run(s.condition)
		if err != nil {
			return false, err
		}
		if ok != (s.loop == "while") {
			return true, nil
		}
		if _, err := g.run(s.body); err != nil {
			return false, err
		}
	}
}

func (g *grub) command(s statement) (bool, error) {
	w, err := g.words(s.words)
	if err != nil || len(w) == 0 {
		return true, err
	}
	if name, value, is := strings.Cut(w[0], "="); is && len(w) == 1 && !strings.ContainsAny(name, "[( ") {
		g.vars[name] = value
		return true, nil
	}
	if body, is := g.functions[w[0]]; is {
		return g.call(body, w[1:])
	}
	args := w[1:]
	switch w[0] {
	case "!":
		return false, nil // no command of GRUB; what it would negate is unknown
	case "[", "test":
		return g.test(strings.TrimSuffix(w[0], "test"), args), nil
	case "false", "loadfont", "keystatus", "background_image", "regexp":
		return false, nil
	case "set":
		for _, a := range args {
			if name, value, is := strings.Cut(a, "="); is {
				g.vars[name] = value
			}
		}
	case "unset":
		for _, a := range args {
			delete(g.vars, a)
		}
	case "load_env":
		return g.loadEnv(args)
	case "source", ".", "configfile":
		if len(args) > 0 {
			return g.include(args[0])
		}
	case "search", "search.file", "search.fs_label", "search.fs_uuid":
		return g.search(w), nil
	case "menuentry", "submenu":
		return true, g.menuEntry(w[0] == "submenu", args, s.body)
	case "linux", "linux16", "linuxefi":
		return g.linux(args), nil
	case "initrd", "initrd16", "initrdefi":
		return g.initrd(args), nil
	case "blscfg":
		return g.blscfg()
	}
	return true, nil
}

func (g *grub) call(body []statement, args []string) (bool, error) {
	saved := map[string]string{}
	for i := range 10 {
		k := strconv.Itoa(i)
		saved[k] = g.vars[k]
		g.vars[k] = ""
		if i > 0 && i <= len(args) {
			g.vars[k] = args[i-1]
		}
	}
	ok, err := g.run(body)
	maps.Copy(g.vars, saved)
	return ok, err
}

// include carries out another file; one that is missing or broken only makes the command fail.
func (g *grub) include(name string) (bool, error) {
	if g.depth++; g.depth > grubDepth {
		return false, errGrubLimit
	}
	defer func() { g.depth-- }()
	err := g.file(name)
	if errors.Is(err, errGrubLimit) {
		return false, err
	}
	return err == nil, nil
}

// menuEntry puts an entry into the menu and carries its body out, on variables of its own, to see what it would start.
func (g *grub) menuEntry(submenu bool, args []string, body []statement) error {
	if g.entries++; g.entries > grubEntries {
		return errGrubLimit
	}
	item := &menuItem{}
	for i := 0; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		switch name {
		case "--class", "--users", "--hotkey", "--source", "--id":
			if !has && i+1 < len(args) {
				i++
				value = args[i]
			}
			if name == "--id" {
				item.id = value
			}
		case "--unrestricted":
		default:
			if item.title == "" {
				item.title = args[i]
			}
		}
	}
	g.menu.items = append(g.menu.items, item)

	inside := *g
	inside.vars = maps.Clone(g.vars)
	inside.functions = maps.Clone(g.functions)
	if submenu {
		item.sub = &menu{}
		inside.menu = item.sub
	} else {
		inside.menu = &menu{} // an entry that makes entries: nobody does
		inside.entry = item
	}
	inside.vars["chosen"] = item.title
	_, err := inside.run(body)
	g.steps, g.expanded, g.entries = inside.steps, inside.expanded, inside.entries
	item.boot.Title = item.title
	return err
}

func (g *grub) linux(args []string) bool {
	if g.entry == nil || len(args) == 0 {
		return false
	}
	v, p, ok := g.disk.resolve(args[0], g.vars["root"])
	if !ok || !isFile(g.disk[v].FS, p) {
		return false
	}
	g.entry.boot = BootEntry{Source: g.source, Volume: v, Kernel: p, Cmdline: quoteCmdline(args[1:])}
	return true
}

func (g *grub) initrd(args []string) bool {
	if g.entry == nil || g.entry.boot.Kernel == "" {
		return false
	}
	b := &g.entry.boot
	b.Initrds = nil
	for _, a := range args {
		v, p, ok := g.disk.resolve(a, g.vars["root"])
		if !ok || v != b.Volume || !isFile(g.disk[v].FS, p) {
			b.Kernel = "" // without its initrd it would not come up
			return false
		}
		b.Initrds = append(b.Initrds, p)
	}
	return true
}

// blscfg is Fedora's command that makes menu entries of the files in loader/entries (GRUB of Fedora, grub-core/commands/blscfg.c).
func (g *grub) blscfg() (bool, error) {
	v, _, ok := g.disk.resolve("/", g.vars["root"])
	if g.steps += 1000; !ok { // as dear as that: directories may be long
		return false, nil
	}
	directories := []string{"loader/entries", "boot/loader/entries"}
	if d := g.vars["blsdir"]; d != "" {
		directories = []string{cleanPath(d)}
	}
	for _, dir := range directories {
		files, err := readBLS(g.disk[v].FS, dir)
		if err != nil {
			return false, err
		}
		slices.SortStableFunc(files, func(a, b blsFile) int { return compareVersions(b.id, a.id) })
		for _, f := range files {
			if g.entries++; g.entries > grubEntries {
				return false, errGrubLimit
			}
			item := &menuItem{title: f.title, id: f.id}
			item.boot, _ = f.entry(g.disk[v].FS, v, g.vars)
			g.menu.items = append(g.menu.items, item)
		}
		if len(files) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// search finds the volume that has a UUID, label or file. Like GRUB's it leaves the variable alone if there is none.
func (g *grub) search(w []string) bool {
	kind, variable, names := strings.TrimPrefix(strings.TrimPrefix(w[0], "search"), "."), "", []string(nil)
	if kind != "" { // search.fs_uuid NAME VARIABLE HINT...
		names = w[1:]
		if len(names) > 1 {
			variable, names = names[1], names[:1]
		}
	} else {
		for i := 1; i < len(w); i++ {
			option, value, has := strings.Cut(w[i], "=")
			switch option {
			case "--file", "-f":
				kind = "file"
			case "--label", "-l", "--fs-label":
				kind = "fs_label"
			case "--fs-uuid", "-u":
				kind = "fs_uuid"
			case "--set", "-s":
				if variable = "root"; has {
					variable = value
				}
			case "--hint", "-h":
				if !has {
					i++
				}
			default:
				if !strings.HasPrefix(option, "-") {
					names = append(names, w[i])
				}
			}
		}
	}
	if len(names) != 1 {
		return false
	}
	for i, v := range g.disk {
		var found bool
		switch kind {
		case "fs_uuid":
			found = strings.EqualFold(v.UUID, names[0])
		case "fs_label":
			found = v.Label == names[0]
		case "file":
			found = isFile(v.FS, cleanPath(names[0]))
		}
		if found {
			if variable != "" {
				g.vars[variable] = device(i)
			}
			return true
		}
	}
	return false
}

// loadEnv reads an environment block (GRUB manual, section 15.2): lines of name=value in a block of 1024 bytes.
func (g *grub) loadEnv(args []string) (bool, error) {
	name := g.vars["prefix"] + "/grubenv"
	var only []string
	for i := 0; i < len(args); i++ {
		option, value, has := strings.Cut(args[i], "=")
		switch {
		case (option == "--file" || option == "-f") && has:
			name = value
		case (option == "--file" || option == "-f") && i+1 < len(args):
			i++
			name = args[i]
		case !strings.HasPrefix(option, "-"):
			only = append(only, option)
		}
	}
	v, p, ok := g.disk.resolve(name, g.vars["root"])
	if !ok {
		return false, nil
	}
	b, err := readFile(g.disk[v].FS, p, 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if g.expanded += len(b); g.expanded > grubExpansion {
		return false, errGrubLimit
	}
	for line := range strings.Lines(string(b)) {
		name, value, is := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !is || strings.HasPrefix(name, "#") || (only != nil && !slices.Contains(only, name)) {
			continue
		}
		g.vars[name] = strings.ReplaceAll(value, `\\`, `\`)
	}
	return true, nil
}

// test is "[ ... ]": GRUB manual, section 16.3.70.
func (g *grub) test(open string, args []string) bool {
	if open == "[" {
		if len(args) == 0 || args[len(args)-1] != "]" {
			return false
		}
		args = args[:len(args)-1]
	}
	t := grubTest{g: g, args: args}
	return t.or()
}

// grubTest reads an expression from left to right; every call takes at least one word, so it ends.
type grubTest struct {
	g     *grub
	args  []string
	depth int
}

func (t *grubTest) or() bool {
	ok := t.and()
	for len(t.args) > 0 && t.args[0] == "-o" {
		t.args = t.args[1:]
		ok = t.and() || ok
	}
	return ok
}

func (t *grubTest) and() bool {
	ok := t.not()
	for len(t.args) > 0 && t.args[0] == "-a" {
		t.args = t.args[1:]
		ok = t.not() && ok
	}
	return ok
}

func (t *grubTest) not() bool {
	not := false
	for len(t.args) > 1 && t.args[0] == "!" {
		not = !not
		t.args = t.args[1:]
	}
	return t.primary() != not
}

func (t *grubTest) primary() bool {
	a := t.args
	if len(a) == 0 {
		return false
	}
	if a[0] == "(" && t.depth < grubDepth {
		t.depth++
		t.args = a[1:]
		ok := t.or()
		if len(t.args) > 0 { // ")"
			t.args = t.args[1:]
		}
		t.depth--
		return ok
	}
	if len(a) >= 3 {
		if ok, is := compare(a[0], a[1], a[2]); is {
			t.args = a[3:]
			return ok
		}
	}
	if len(a) >= 2 {
		switch a[0] {
		case "-n", "-z":
			t.args = a[2:]
			return (a[1] == "") == (a[0] == "-z")
		case "-e", "-f", "-s", "-d":
			t.args = a[2:]
			v, p, ok := t.g.disk.resolve(a[1], t.g.vars["root"])
			if !ok {
				return false
			}
			info, err := fs.Stat(t.g.disk[v].FS, p)
			return err == nil && (a[0] == "-e" || info.IsDir() == (a[0] == "-d")) && (a[0] != "-s" || info.Size() > 0)
		}
	}
	t.args = a[1:]
	return a[0] != ""
}

func compare(a, operator, b string) (result, is bool) {
	switch operator {
	case "=", "==":
		return a == b, true
	case "!=":
		return a != b, true
	case "<":
		return a < b, true
	case ">":
		return a > b, true
	case "-eq", "-ne", "-lt", "-le", "-gt", "-ge":
		x, err1 := strconv.Atoi(a)
		y, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil {
			return false, true
		}
		return map[string]bool{"-eq": x == y, "-ne": x != y, "-lt": x < y, "-le": x <= y, "-gt": x > y, "-ge": x >= y}[operator], true
	}
	return false, false
}

// words fills the variables in. A variable without quotes is split at blanks, and vanishes if it is empty.
func (g *grub) words(list []word) ([]string, error) {
	var out []string
	for _, w := range list {
		var b strings.Builder
		open := false // something, even an empty text in quotes, stands in the word that is built
		for _, piece := range w {
			text := piece.text
			if piece.variable {
				text = g.vars[piece.text]
			}
			if g.expanded += len(text) + 1; g.expanded > grubExpansion {
				return nil, errGrubLimit
			}
			if !piece.variable || piece.quoted {
				b.WriteString(text)
				open = true
				continue
			}
			fields := strings.Fields(text)
			if len(fields) == 0 {
				continue
			}
			for i, f := range fields {
				if i > 0 {
					out = append(out, b.String())
					b.Reset()
				}
				b.WriteString(f)
			}
			open = true
		}
		if open {
			out = append(out, b.String())
		}
	}
	return out, nil
}

// result lists the entries that start Linux, with the default marked.
func (g *grub) result() []BootEntry {
	if item := g.menu.find(g.vars["default"]); item != nil {
		item.boot.Default = true
	}
	var out []BootEntry
	var collect func(m *menu)
	collect = func(m *menu) {
		for _, item := range m.items {
			if item.sub != nil {
				collect(item.sub)
			} else if item.boot.Kernel != "" {
				out = append(out, item.boot)
			}
		}
	}
	collect(g.menu)
	return out
}

// find is the entry that the variable "default" names: number, title or id, and behind ">" the same in a submenu (GRUB manual,
// section 16.1.3). What cannot be found is the first entry; a submenu stands for its first entry.
func (m *menu) find(name string) *menuItem {
	if len(m.items) == 0 {
		return nil
	}
	name, rest := cutMenuPath(name)
	item := m.items[0]
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(m.items) {
		item = m.items[n]
	} else {
		for _, i := range m.items {
			if name != "" && (i.title == name || i.id == name) {
				item = i
				break
			}
		}
	}
	if item.sub != nil {
		return item.sub.find(rest)
	}
	return item
}

// cutMenuPath cuts at the first ">" that is not doubled.
func cutMenuPath(s string) (first, rest string) {
	for i := 0; i < len(s); i++ {
		if s[i] != '>' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '>' {
			i++
			continue
		}
		return strings.ReplaceAll(s[:i], ">>", ">"), s[i+1:]
	}
	return strings.ReplaceAll(s, ">>", ">"), ""
}

// quoteCmdline joins words as GRUB does for the kernel (grub-core/lib/cmdline.c).
func quoteCmdline(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		w = strings.NewReplacer(`\`, `\\`, `'`, `\'`, `"`, `\"`).Replace(w)
		if strings.Contains(w, " ") {
			w = `"` + w + `"`
		}
		quoted[i] = w
	}
	return strings.Join(quoted, " ")
}
