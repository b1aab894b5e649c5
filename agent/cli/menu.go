// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps/burnin"
)

func menuCommand() command {
	return command{
		name: "menu", args: "[--console NAME,...]",
		help:    "Ask what burn-in is to be run, on the consoles of a machine that was started from a stick for burn-in.",
		example: "ironhand menu --console tty1,ttyS0",
		run:     runMenu,
	}
}

// The kernel parameters of burn-in.
const (
	burninParam      = "ironhand-burnin"       // "menu", or a profile that is started without asking
	burninDisksParam = "ironhand-burnin-disks" // the disks that it overwrites
)

// mostDisksShown is how many disks are on one page: each has a letter.
const mostDisksShown = 12

// mostProfiles is how many profiles can be chosen from.
const mostProfiles = 9

// menu is the state of the menu. Keys and news change it, one after the other; consoles show it.
type menu struct {
	c       *call
	system  menuSystem
	machine string
	news    chan func() // what happened elsewhere

	mu       sync.Mutex
	page     string // "main", "disks", "confirm", "text", "run"
	profiles []menuProfile
	chosen   int
	disks    []menuDisk
	first    int // of the disks on the page
	stick    stick
	open     string // directory of a run of this machine that was stopped and has not come to its end
	forced   bool   // that run overwrites disks that hold data
	message  string
	typed    string // on the page that confirms
	ask      string // a question that y answers, on the main page
	yes      func()
	text     menuText
	live     *liveRun // while a burn-in runs
}

// menuSystem is what the menu needs of the machine beside its consoles; tests play it.
type menuSystem struct {
	machine inspect.Machine
	find    func(ctx context.Context) stick                                                  // the partition for reports, mounted
	disks   func(ctx context.Context) ([]inspect.Disk, error)                                // all of the machine
	check   func(d inspect.Disk) error                                                       // nil: it may be overwritten
	run     func(ctx context.Context, live *liveRun, args ...string) (out string, err error) // ironhand burnin
	inspect func(ctx context.Context) (string, error)
	sync    func() error // writes what is written to the stick
	shell   func(console int) error
	power   func(ctx context.Context, how boot.How) error
}

// menuProfile is a profile that can be chosen: its name, or the file that it is in.
type menuProfile struct {
	profile burnin.Profile
	value   string // of --profile
}

type menuDisk struct {
	inspect.Disk
	refused error // why it is not written to
	chosen  bool
}

// menuText is a page of text.
type menuText struct {
	title string
	style style
	lines []string
	first int
}

// stick is the partition for reports and profiles.
type stick struct {
	device string
	dir    string // where it is mounted; "" if there is none
	free   int64  // bytes
	why    string // there is none
}

func runMenu(ctx context.Context, c *call) error {
	names := c.flags.String("console", "", "terminals to show the menu on, such as tty1,ttyS0; without it the one on which this was typed")
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	ttys, err := c.menuTerminals(*names)
	if err != nil {
		return err
	}
	live := newLiveRun(c.stderr)
	host, err := c.burninHost(live)
	if err != nil {
		return err
	}
	m := &menu{c: c, machine: machineName(host.Machine), page: "main", news: make(chan func(), 16), stick: stick{why: "it is being looked for"}}
	for _, p := range burnin.Profiles() {
		m.profiles = append(m.profiles, menuProfile{p, p.Name})
	}
	var s *screen
	m.system = menuSystem{
		machine: host.Machine, find: findStick, disks: host.Machine.Disks,
		check:   func(d inspect.Disk) error { return burnin.Writable(host, d) },
		run:     c.menuRun,
		inspect: c.menuInspect,
		shell: func(console int) error {
			return s.lend(console, func() (terminal, error) { return ttys[console].shell() })
		},
		sync:  syncStick,
		power: boot.Power,
	}
	var terminals []terminal
	for _, t := range ttys {
		terminals = append(terminals, t)
	}
	s = newScreen(terminals, m.draw, func(from int, key rune) { m.news <- func() { m.key(ctx, from, key) } })
	s.start()
	defer s.close()
	return m.loop(ctx, s, parameters(string(cmdline)))
}

// parameters are the words KEY=VALUE of a kernel command line; of two the last counts.
func parameters(cmdline string) map[string]string {
	m := map[string]string{}
	for w := range strings.FieldsSeq(cmdline) {
		key, value, _ := strings.Cut(w, "=")
		m[key] = value
	}
	return m
}

// loop does one thing after the other, until ctx ends.
func (m *menu) loop(ctx context.Context, s *screen, params map[string]string) error {
	m.look(ctx, func(reset bool) {
		m.mu.Lock()
		busy := m.page != "main" // somebody was faster
		m.mu.Unlock()
		switch {
		case busy:
		case reset:
			m.goOn(ctx)
		default:
			m.automatic(ctx, params)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case do := <-m.news:
			do()
			s.wakeUp(false)
		}
	}
}

// look looks for the partition for reports, and for profiles on it; then does more, which learns whether the machine was reset in the middle of a run.
func (m *menu) look(ctx context.Context, then func(reset bool)) {
	go func() {
		found := m.system.find(ctx)
		profiles, err := stickProfiles(found.dir)
		open, state, openErr := unfinished(found.dir, reportPrefix(m.system.machine))
		err = errors.Join(err, openErr)
		m.news <- func() {
			m.mu.Lock()
			m.stick = found
			m.profiles = append(m.profiles[:len(burnin.Profiles())], profiles...)
			m.chosen = min(m.chosen, len(m.profiles)-1)
			m.forced = state.Force
			if m.open = open; err != nil {
				m.message = strings.ReplaceAll(err.Error(), found.dir+"/", "")
			}
			m.mu.Unlock()
			then(open != "" && !state.Stopped && !state.Force) // nobody knows what has come onto the disks since
		}
	}()
}

// stickProfiles reads the profiles at the top of the stick: files in YAML. One that is wrong is told and left out.
func stickProfiles(dir string) (list []menuProfile, err error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	var errs []error
	if err != nil {
		errs = append(errs, err)
	}
	for _, e := range entries {
		kind := strings.ToLower(filepath.Ext(e.Name()))
		if e.IsDir() || kind != ".yaml" && kind != ".yml" || len(list) == mostProfiles-len(burnin.Profiles()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		b, err := readSmall(path)
		var p burnin.Profile
		if err == nil {
			p, err = burnin.ParseProfile(b)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Name(), err))
			continue
		}
		if p.Name == "" {
			p.Name = e.Name()
		}
		list = append(list, menuProfile{p, path})
	}
	return list, errors.Join(errs...)
}

// automatic starts what the kernel command line wants to be started without asking.
func (m *menu) automatic(ctx context.Context, params map[string]string) {
	want := params[burninParam]
	if want == "" || want == "menu" {
		return
	}
	i := slices.IndexFunc(m.profiles, func(p menuProfile) bool { return p.profile.Name == want || filepath.Base(p.value) == want })
	if i < 0 {
		m.mu.Lock()
		m.message = fmt.Sprintf("%s=%.60q: there is no such profile", burninParam, want)
		m.mu.Unlock()
		return
	}
	m.mu.Lock()
	m.chosen = i
	m.mu.Unlock()
	m.start(ctx, params[burninDisksParam])
}

// start runs the profile that was chosen. disks are as in --disks.
func (m *menu) start(ctx context.Context, disks string) {
	m.mu.Lock()
	args := []string{"--profile", m.profiles[m.chosen].value, "--yes"}
	if disks != "" {
		args = append(args, "--disks", disks)
	}
	if m.stick.dir != "" {
		args = append(args, "--report", filepath.Join(m.stick.dir, "reports", reportPrefix(m.system.machine)+time.Now().UTC().Format("20060102-150405")))
	}
	m.mu.Unlock()
	m.run(ctx, args...)
}

// goOn goes on with the run that has not come to its end.
func (m *menu) goOn(ctx context.Context) {
	m.mu.Lock()
	dir := m.open
	m.mu.Unlock()
	if dir != "" {
		m.run(ctx, "--resume", "--report", dir, "--yes")
	}
}

// run runs ironhand burnin.
func (m *menu) run(ctx context.Context, args ...string) {
	live := newLiveRun(m.c.stderr)
	m.mu.Lock()
	m.live, m.page, m.message, m.open = live, "run", "", ""
	m.ask, m.yes = "", nil // of the page before
	m.mu.Unlock()
	go func() {
		out, err := m.system.run(ctx, live, args...)
		if syncErr := m.system.sync(); syncErr != nil {
			err = errors.Join(err, notTested{fmt.Errorf("write the report: %w", syncErr)})
		}
		m.mu.Lock()
		dir := m.stick.dir
		m.mu.Unlock()
		free, freeErr := int64(0), fs.ErrNotExist
		if dir != "" {
			free, freeErr = freeSpace(dir)
		}
		m.news <- func() {
			m.ended(out, err)
			if freeErr == nil {
				m.mu.Lock()
				m.stick.free = free
				m.mu.Unlock()
			}
		}
	}()
}

// ended shows what a burn-in has found.
func (m *menu) ended(out string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	verdict, look, why := string(burnin.Pass), good, ""
	switch {
	case errors.Is(err, errShown): // a part that failed counts more than anything else
		verdict, look = string(burnin.Fail), bad
	case errors.As(err, new(notTested)):
		verdict, look, why = "NOT TESTED", warned, err.Error()
	case err != nil:
		verdict, look, why = string(burnin.Fail), bad, err.Error()
		if errors.Is(err, errUsage) {
			verdict, look = "NOT TESTED", warned
		}
	}
	lines := []string{}
	if why != "" {
		lines = append(lines, why, "")
	}
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimRight(line, "\n"))
	}
	where := "The report is nowhere: " + m.stick.why
	if m.stick.dir != "" {
		where = "The report is on " + m.stick.device + "; the stick may be pulled out."
	}
	m.live, m.page = nil, "text"
	m.text = menuText{title: "VERDICT: " + verdict, style: look, lines: append(lines, "", where)}
	fmt.Fprintf(m.c.stderr, "burn-in: verdict %s\n%s", verdict, out)
}

// unfinished is the last run of this machine in the directory of a stick that has not come to its end; "" if there is none. A run that cannot be read is told.
func unfinished(dir, prefix string) (path string, state burnin.State, err error) {
	if dir == "" {
		return "", state, nil
	}
	entries, err := os.ReadDir(filepath.Join(dir, "reports"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", state, nil
	}
	for _, e := range slices.Backward(entries) { // by name, and so by time
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		path := filepath.Join(dir, "reports", e.Name())
		state, stateErr := burnin.Unfinished(path)
		if stateErr == nil {
			return path, state, err
		}
		if !errors.Is(stateErr, fs.ErrNotExist) {
			err = errors.Join(err, stateErr)
		}
	}
	return "", burnin.State{}, err
}

// reportPrefix begins the names of this machine's directories on the stick: its serial number. The time follows.
func reportPrefix(machine inspect.Machine) string {
	serial := ""
	for _, file := range []string{"product_serial", "board_serial", "product_uuid"} {
		b, err := fs.ReadFile(machine.FS, "sys/class/dmi/id/"+file)
		serial = strings.Trim(strings.Map(func(r rune) rune {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
				return r
			}
			return '_'
		}, strings.TrimSpace(string(b))), "_")
		if err == nil && serial != "" {
			break
		}
	}
	if serial == "" {
		serial = "machine"
	}
	return fmt.Sprintf("%.40s-", serial)
}

// showDisks looks at all disks, and then shows them.
func (m *menu) showDisks(ctx context.Context) {
	m.mu.Lock()
	m.message = "looking at the disks"
	m.mu.Unlock()
	go func() {
		all, err := m.system.disks(ctx)
		list := make([]menuDisk, 0, len(all))
		for _, d := range all {
			if d.Size > 0 && d.Type == "disk" {
				list = append(list, menuDisk{Disk: d})
			}
		}
		looked := make([]chan error, len(list))
		for i := range list {
			looked[i] = make(chan error, 1)
			go func() { looked[i] <- m.system.check(list[i].Disk) }()
		}
		late, cancel := context.WithTimeout(ctx, diskAnswer)
		defer cancel()
		for i := range list {
			select {
			case list[i].refused = <-looked[i]:
				continue
			default:
			}
			select {
			case list[i].refused = <-looked[i]:
			case <-late.Done():
				list[i].refused = fmt.Errorf("no answer within %v", diskAnswer)
			}
		}
		m.news <- func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.message = ""
			if err != nil {
				m.message = err.Error()
			}
			for i := range list {
				list[i].chosen = list[i].refused == nil && slices.ContainsFunc(m.disks, func(d menuDisk) bool {
					return d.chosen && d.Name == list[i].Name && d.Serial == list[i].Serial
				})
			}
			m.disks, m.first, m.page = list, 0, "disks"
		}
	}()
}

// diskAnswer is how long a disk has to be opened and read.
const diskAnswer = 15 * time.Second

// overwrite are the disks that were chosen.
func (m *menu) overwrite() (list []menuDisk) {
	for _, d := range m.disks {
		if d.chosen {
			list = append(list, d)
		}
	}
	return list
}

// key is what somebody typed on a console.
func (m *menu) key(ctx context.Context, console int, key rune) {
	m.mu.Lock()
	page, ask, yes := m.page, m.ask, m.yes
	m.ask, m.yes = "", nil
	if page != "run" {
		m.message = ""
	}
	m.mu.Unlock()
	switch {
	case ask != "":
		if key == 'y' || key == 'Y' {
			yes()
		}
	case page == "main":
		m.mainKey(ctx, console, key)
	case page == "disks":
		m.disksKey(key)
	case page == "confirm":
		m.confirmKey(ctx, key)
	case page == "text":
		m.textKey(key)
	case page == "run":
		if m.live.shown() != nil {
			m.live.key(key)
		}
	}
}

func (m *menu) mainKey(ctx context.Context, console int, key rune) {
	goDown := func(question string, how boot.How) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.ask, m.yes = question, func() {
			go func() {
				if err := m.system.power(ctx, how); err != nil {
					m.news <- func() { m.tell(err.Error()) }
				}
			}()
		}
	}
	switch key {
	case 'd':
		m.showDisks(ctx)
	case 's':
		m.mu.Lock()
		m.page, m.typed = "confirm", ""
		m.mu.Unlock()
	case 'l':
		m.tell("looking for a stick")
		m.look(ctx, func(bool) { m.tell("") })
	case 'c':
		m.mu.Lock()
		ask := m.open != "" && m.forced
		if ask {
			m.ask, m.yes = "Overwrite its disks, also if they hold data by now?", func() { m.goOn(ctx) }
		}
		m.mu.Unlock()
		if !ask {
			m.goOn(ctx)
		}
	case 'i':
		m.tell("looking at the machine")
		go func() {
			text, err := m.system.inspect(ctx)
			m.news <- func() {
				m.mu.Lock()
				defer m.mu.Unlock()
				if err != nil {
					text += "\n" + err.Error()
				}
				m.message, m.page = "", "text"
				m.text = menuText{title: m.machine, style: inverse, lines: strings.Split(strings.TrimSpace(text), "\n")}
			}
		}()
	case 'h':
		go func() {
			if err := m.system.shell(console); err != nil {
				m.news <- func() { m.tell(err.Error()) }
			}
		}()
	case 'r':
		goDown("Reboot?", boot.Reboot)
	case 'o':
		goDown("Power off?", boot.PowerOff)
	default:
		m.mu.Lock()
		defer m.mu.Unlock()
		if i := int(key - '1'); i >= 0 && i < len(m.profiles) {
			m.chosen = i
		}
	}
}

func (m *menu) tell(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.message = message
}

func (m *menu) disksKey(key rune) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case key == '\n' || key == 'q' || key == keyBreak:
		m.page = "main"
	case key == ' ':
		if m.first += mostDisksShown; m.first >= len(m.disks) {
			m.first = 0
		}
	case key >= 'a' && key < 'a'+mostDisksShown && m.first+int(key-'a') < len(m.disks):
		d := &m.disks[m.first+int(key-'a')]
		if d.refused != nil {
			m.message = fmt.Sprintf("%s is not written to: %v", d.Name, d.refused)
			return
		}
		d.chosen = !d.chosen
	}
}

func (m *menu) confirmKey(ctx context.Context, key rune) {
	m.mu.Lock()
	disks := m.overwrite()
	switch {
	case key == keyBreak || key == 'q':
		m.page = "main"
	case key == 8 && m.typed != "":
		m.typed = m.typed[:len(m.typed)-1]
	case key == '\n' && (m.typed == "yes" || len(disks) == 0 && m.typed == "y"):
		var names []string
		for _, d := range disks {
			names = append(names, m.nameOf(d.Disk))
		}
		m.mu.Unlock()
		m.start(ctx, strings.Join(names, ","))
		return
	case key == '\n':
		m.page, m.message = "main", "not started: the answer was not yes"
	case key > ' ' && len(m.typed) < 10:
		m.typed += string(key)
	}
	m.mu.Unlock()
}

// nameOf is what --disks gets for a disk: its serial number, for another one may have its name by then; its name if others on the page have the number too, or a list cannot hold it. m.mu is held.
func (m *menu) nameOf(d inspect.Disk) string {
	serial := string(d.Serial)
	if serial == "" || serial == burnin.AllDisks || strings.Contains(serial, ",") || strings.TrimSpace(serial) != serial {
		return d.Name
	}
	for _, other := range m.disks {
		name := strings.TrimPrefix(other.Name, "/dev/")
		if other.Name != d.Name && string(other.Serial) == serial || serial == other.Name || serial == name {
			return d.Name
		}
	}
	return serial
}

func (m *menu) textKey(key rune) {
	m.mu.Lock()
	defer m.mu.Unlock()
	const step = 15
	switch key {
	case ' ', 'f':
		if m.text.first+step < len(m.text.lines) {
			m.text.first += step
		}
	case 'b':
		m.text.first = max(0, m.text.first-step)
	case '\n', 'm', 'q', keyBreak:
		m.page = "main"
	}
}

// menuRun is ironhand burnin with arguments.
func (c *call) menuRun(ctx context.Context, live *liveRun, args ...string) (string, error) {
	var out bytes.Buffer
	err := burnIn(ctx, c.with(&out, live, args...))
	return out.String(), err
}

// menuInspect is ironhand inspect.
func (c *call) menuInspect(ctx context.Context) (string, error) {
	var out bytes.Buffer
	err := inspectCommand().run(ctx, c.with(&out, nil))
	return out.String(), err
}

// with is a call with other arguments, whose output goes elsewhere.
func (c *call) with(out *bytes.Buffer, live *liveRun, args ...string) *call {
	other := *c
	other.flags, other.args, other.stdout, other.live = flag.NewFlagSet("", flag.ContinueOnError), args, out, live
	other.flags.SetOutput(c.stderr)
	return &other
}
