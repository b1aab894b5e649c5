// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps/burnin"
)

// played is a menu on a terminal, of a machine that is played.
type played struct {
	*menu
	terminal *fakeTerminal
	mu       sync.Mutex
	did      []string // what it made the machine do
	result   error    // of a burn-in
	unsynced error    // of writing the stick's files
	release  chan struct{}
}

func (p *played) do(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.did = append(p.did, fmt.Sprintf(format, args...))
}

func (p *played) done() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.did, "; ")
}

// playMenu starts a menu, with the kernel's command line and what is on the stick.
func playMenu(t *testing.T, cmdline string, found stick) (*played, context.CancelFunc) {
	p := &played{terminal: newFakeTerminal(t, 80, 24, 0), release: make(chan struct{})}
	var log bytes.Buffer
	p.menu = &menu{c: &call{stderr: &log}, machine: "ACME R1 serial S1", page: "main", news: make(chan func(), 16), stick: stick{why: "it is being looked for"}}
	for _, profile := range burnin.Profiles() {
		p.profiles = append(p.profiles, menuProfile{profile, profile.Name})
	}
	disk := func(name, serial string) inspect.Disk {
		return inspect.Disk{Name: "/dev/" + name, Serial: inspect.Text(serial), Model: "M", Size: 24 << 20, Type: "disk"}
	}
	disks := []inspect.Disk{disk("sda", "EMPTY"), disk("sdb", "DATA"), disk("sdc", "BUSY"), disk("sdd", "HANGS")}
	for i := range 20 {
		disks = append(disks, disk(fmt.Sprintf("nvme%dn1", i), fmt.Sprintf("NVME%d", max(i, 1))))
	}
	p.system = menuSystem{
		machine: inspect.Machine{FS: fstest.MapFS{"sys/class/dmi/id/product_serial": &fstest.MapFile{Data: []byte("S/1 \x1b[1m\n")}}},
		find:    func(context.Context) stick { time.Sleep(3 * time.Second); return found },
		disks:   func(context.Context) ([]inspect.Disk, error) { return disks, nil },
		check: func(d inspect.Disk) error {
			switch d.Serial {
			case "DATA":
				return fmt.Errorf("it %w: a file system ext4 root", burnin.ErrHoldsData)
			case "BUSY":
				return errors.New("device or resource busy")
			case "HANGS":
				time.Sleep(time.Hour)
			}
			return nil
		},
		run: func(ctx context.Context, live *liveRun, args ...string) (string, error) {
			p.do("burnin %s", strings.Join(args, " "))
			<-p.release
			return "BURN-IN QUICK  X\n\nPART  VERDICT\nmemory  PASS\n", p.result
		},
		inspect: func(context.Context) (string, error) {
			return "SYSTEM  ACME\n" + strings.Repeat("a line of the inventory\n", 40) + "last line\n", nil
		},
		sync:  func() error { return p.unsynced },
		shell: func(console int) error { p.do("shell on %d", console); return nil },
		power: func(_ context.Context, how boot.How) error { p.do("%s", how); return errors.New("process 1 is gone") },
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := newScreen([]terminal{p.terminal}, p.draw, func(from int, key rune) { p.news <- func() { p.key(ctx, from, key) } })
	s.start()
	var ended sync.WaitGroup
	ended.Go(func() { p.loop(ctx, s, parameters(cmdline)) })
	return p, func() {
		cancel()
		ended.Wait()
		s.close()
	}
}

func (p *played) press(keys string) {
	for _, k := range keys {
		p.terminal.in <- []byte(string(k))
		time.Sleep(300 * time.Millisecond)
	}
	time.Sleep(time.Second)
}

func TestMenu(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"own.yaml": "name: acceptance\nloads:\n- processors: {time: 30m}\n- disks: {loops: 2}\n", "wrong.yml": "loads: nothing\n", "README.TXT": "text\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	here, none := stick{device: "/dev/sdz1", dir: dir, free: 61 << 20}, stick{why: "there is no FAT partition with the label IRONHAND"}
	for _, test := range []struct {
		name     string
		cmdline  string
		stick    stick
		keys     string
		result   error
		unsynced error
		finish   bool // let the burn-in end
		shows    string
		not      string
		did      string
	}{
		{name: "at the start", stick: here, shows: "1 * quick             processors 2m, memory 3m, |short self-tests|4   own: acceptance   processors 30m, disks whole, 2 x|none; then none is tested|the report goes to /dev/sdz1, 61.0 MiB free|wrong.yml: "},
		{name: "no stick", stick: none, shows: "no report is kept: there is no FAT partition", not: "own:"},
		{name: "without disks, by yes", stick: here, keys: "2syes\n", shows: "burn-in starts", did: "burnin --profile standard --yes --report DIR/reports/S_1___1m-20000101-00000X"},
		{name: "no report", stick: none, keys: "3sy\n", did: "burnin --profile full --yes"},
		{name: "not answered", stick: here, keys: "s\n", shows: "not started: the answer was not yes|1 * quick"},
		{name: "y is not enough for disks", stick: none, keys: "d>a\nsy\n", shows: "not started"},
		{name: "the answer is mended", stick: none, keys: "syex\x08s\n", did: "burnin --profile quick --yes"},
		{name: "a disk", stick: none, keys: "d>a\nsyes\n", did: "burnin --profile quick --yes --disks EMPTY"},
		{name: "two disks, of which one has a number that others have", stick: none, keys: "d>ae\nsyes\n", did: "burnin --profile quick --yes --disks EMPTY,/dev/nvme0n1"},
		{name: "a disk, and not after all", stick: none, keys: "d>aa\nsyes\n", did: "burnin --profile quick --yes"},
		{name: "disks of two pages", stick: none, keys: "d>al b\n", shows: "d   disks to overwrite: 3|/dev/nvme7n1 M serial NVME7, 24.0 MiB|/dev/nvme9n1"},
		{name: "what is asked before they are overwritten", stick: none, keys: "d>a\ns", shows: "Start quick?|overwrite all of /dev/sda M serial EMPTY, 24.0 MiB|Type yes and Enter:"},
		{name: "the list", stick: none, keys: "d>", shows: "a [ ] /dev/sda M serial EMPTY, 24.0 MiB: empty|b  -  /dev/sdb M serial DATA, 24.0 MiB: it holds data: a file system ext4|" +
			"c  -  /dev/sdc M serial BUSY, 24.0 MiB: device or resource busy|d  -  /dev/sdd M serial HANGS, 24.0 MiB: no answer within 15s|e [ ] /dev/nvme0n1|disks 1 to 12 of 24|has to be erased first"},
		{name: "a disk that holds data", stick: none, keys: "d>b\nsy\n", did: "burnin --profile quick --yes"},
		{name: "a disk that holds data says why", stick: none, keys: "d>b", shows: "/dev/sdb is not written to: it holds data: a file system ext4 root"},
		{name: "the machine", stick: none, keys: "i", shows: "SYSTEM  ACME|lines 1-20 of 42", not: "last line"},
		{name: "the end of the text, and back", stick: none, keys: "i  ", shows: "last line"},
		{name: "from the text to the menu", stick: none, keys: "i \n", shows: "1 * quick"},
		{name: "a shell", stick: none, keys: "h", did: "shell on 0"},
		{name: "reboot asks", stick: none, keys: "r", shows: "Reboot?  y yes, any other key no"},
		{name: "reboot, no", stick: none, keys: "rnr\n", not: "Reboot?"},
		{name: "reboot, which fails", stick: none, keys: "ry", shows: "process 1 is gone", did: "reboot"},
		{name: "power off", stick: none, keys: "oy", did: "power off"},
		{name: "started without asking", cmdline: "ironhand-burnin=quick ironhand-burnin-disks=EMPTY,DATA quiet", stick: none, did: "burnin --profile quick --yes --disks EMPTY,DATA"},
		{name: "an own profile, by its file", cmdline: "ironhand-burnin=own.yaml", stick: here, did: "burnin --profile DIR/own.yaml --yes --report DIR/reports/S_1___1m-20000101-00000X"},
		{name: "no such profile", cmdline: "ironhand-burnin=own.yaml", stick: none, shows: `ironhand-burnin="own.yaml": there is no such profile`},
		{name: "the menu is asked for", cmdline: "ironhand-burnin=menu ironhand-burnin-disks=all", stick: none, shows: "1 * quick|none; then none"},
		{name: "passed", cmdline: "ironhand-burnin=quick", stick: here, finish: true, shows: "VERDICT: PASS|memory  PASS|The report is on /dev/sdz1; the stick may be pulled out."},
		{name: "passed, and the stick is broken", cmdline: "ironhand-burnin=quick", stick: here, unsynced: errors.New("input/output error"), finish: true, shows: "VERDICT: NOT TESTED|write the report: input/output error"},
		{name: "failed, and the stick is broken", cmdline: "ironhand-burnin=quick", stick: here, result: errShown, unsynced: errors.New("input/output error"), finish: true, shows: "VERDICT: FAIL"},
		{name: "failed", cmdline: "ironhand-burnin=quick", stick: here, finish: true, result: errShown, shows: "VERDICT: FAIL|memory  PASS"},
		{name: "not tested", cmdline: "ironhand-burnin=quick", stick: none, finish: true, result: notTested{errors.New("a disk holds data")}, shows: "VERDICT: NOT TESTED|a disk holds data|no FAT partition", not: "VERDICT: PASS"},
		{name: "wrong use is no verdict on the machine", cmdline: "ironhand-burnin=quick", stick: none, finish: true, result: usagef("no"), shows: "VERDICT: NOT TESTED"},
		{name: "a failure and the report not written", cmdline: "ironhand-burnin=quick", stick: none, finish: true, result: errors.New("write the report: no space"), shows: "VERDICT: FAIL|write the report"},
		{name: "another run afterwards", cmdline: "ironhand-burnin=quick", stick: none, finish: true, keys: "\n3sy\n", did: "burnin --profile quick --yes; burnin --profile full --yes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, end := playMenu(t, test.cmdline, test.stick)
				defer end()
				p.result, p.unsynced = test.result, test.unsynced
				time.Sleep(5 * time.Second)
				if test.finish {
					p.release <- struct{}{}
					time.Sleep(2 * time.Second)
				}
				for i, part := range strings.Split(test.keys, ">") { // ">" waits for a disk that hangs
					if i > 0 {
						time.Sleep(20 * time.Second)
					}
					p.press(part)
				}
				time.Sleep(2 * time.Second)
				got := p.terminal.shows()
				for want := range strings.SplitSeq(test.shows, "|") {
					if !strings.Contains(got, want) {
						t.Errorf("lacks %q", want)
					}
				}
				if test.not != "" && strings.Contains(got, test.not) {
					t.Errorf("has %q", test.not)
				}
				did := strings.ReplaceAll(p.done(), dir, "DIR")
				if i := strings.Index(did, "-20000101-00000"); i >= 0 { // the seconds
					did = did[:i+len("-20000101-00000")] + "X"
				}
				if did != test.did && (test.did != "" || len(test.shows) == 0) {
					t.Errorf("it did %q, want %q", did, test.did)
				}
				if t.Failed() {
					t.Logf("shown:\n%s", got)
				}
				close(p.release)
				time.Sleep(time.Hour) // the disk that hangs
			})
		})
	}
}

// keepRun makes a directory as a run leaves it on the stick that has not come to its end.
func keepRun(t *testing.T, stick, name, more string) {
	t.Helper()
	state := `{"version":1,"profile":"quick","loads":[{"load":{"Processors":{"Time":60000000000}},"disks":[]}],"done":[],"sequence":2` + more + `}`
	file := fmt.Sprintf(`{"sha256":"%x","state":%s}`, sha256.Sum256([]byte(state)), state)
	dir := filepath.Join(stick, "reports", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A run that the machine was reset in goes on by itself; one that somebody has stopped only if somebody wants it.
func TestMenuGoesOn(t *testing.T) {
	const own = "S_1___1m-20260102-030405"
	for _, test := range []struct {
		name  string
		runs  map[string]string // what their states have besides, by directory
		keys  string
		did   string
		shows string
	}{
		{"reset in the middle", map[string]string{own: ""}, "", "burnin --resume --report DIR/reports/" + own + " --yes", "burn-in starts"},
		{"stopped", map[string]string{own: `,"stopped":true`}, "", "", "1 * quick|c   go on with " + own},
		{"stopped, and wanted", map[string]string{own: `,"stopped":true`}, "c", "burnin --resume --report DIR/reports/" + own + " --yes", "burn-in starts"},
		{"reset in the middle, and forced", map[string]string{own: `,"force":true`}, "", "", "1 * quick|c   go on with " + own},
		{"forced, and wanted", map[string]string{own: `,"force":true`}, "c", "", "Overwrite its disks, also if they hold data by now?"},
		{"forced, wanted and confirmed", map[string]string{own: `,"force":true`}, "cy", "burnin --resume --report DIR/reports/" + own + " --yes", "burn-in starts"},
		{"at its end", map[string]string{own: `,"ended":true`}, "c", "", "1 * quick"},
		{"of another machine", map[string]string{"S2-20260102-030405": ""}, "c", "", "1 * quick"},
		{"the last of two", map[string]string{own: "", "S_1___1m-20260103-030405": ""}, "", "burnin --resume --report DIR/reports/S_1___1m-20260103-030405 --yes", ""},
		{"the one before came to no end", map[string]string{own: "", "S_1___1m-20260103-030405": `,"ended":true`}, "", "burnin --resume --report DIR/reports/" + own + " --yes", ""},
		{"damaged", map[string]string{own: `,"loads":[]`}, "", "", "1 * quick|the run cannot go on"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, more := range test.runs {
				keepRun(t, dir, name, more)
			}
			synctest.Test(t, func(t *testing.T) {
				p, end := playMenu(t, "ironhand-burnin=menu", stick{device: "/dev/sdz1", dir: dir})
				defer end()
				time.Sleep(5 * time.Second)
				if test.keys == "" {
					time.Sleep(time.Second)
				}
				p.press(test.keys)
				got := p.terminal.shows()
				for want := range strings.SplitSeq(test.shows, "|") {
					if !strings.Contains(got, want) {
						t.Errorf("lacks %q:\n%s", want, got)
					}
				}
				if did := strings.ReplaceAll(p.done(), dir, "DIR"); did != test.did {
					t.Errorf("it did %q, want %q", did, test.did)
				}
				close(p.release)
			})
		})
	}
}

// A question of the menu is over when a run has started by itself: no answer to it reboots the machine then.
func TestMenuAskedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, end := playMenu(t, "ironhand-burnin=quick", stick{why: "there is none"})
		defer end()
		p.press("r")
		time.Sleep(5 * time.Second)
		p.press("y")
		if did := p.done(); did != "burnin --profile quick --yes" {
			t.Errorf("it did %q", did)
		}
		close(p.release)
	})
}
