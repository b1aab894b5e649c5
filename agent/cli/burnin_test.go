// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/ocp/ocptest"
	"github.com/ironhand/ironhand/steps/burnin"
)

// found is what a run of one load of each kind has found.
func found(disk burnin.Verdict) burnin.Result {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return burnin.Result{Profile: "quick", Started: at, Ended: at.Add(4 * time.Minute), Verdict: disk, Problems: []string{}, Loads: []burnin.Report{
		{Load: "processors for 2m0s", Started: at, Ended: at.Add(2 * time.Minute), Celsius: map[string]float64{"hwmon0 coretemp Package id 0": 61.5},
			Parts: []burnin.Part{{Name: "DIMM_A1 (mc0 dimm0)", Reasons: []string{"1 corrected memory errors"}}, {Name: "processors", Verdict: burnin.Pass, Reasons: []string{}}}},
		{Load: "1 disks", Started: at.Add(2 * time.Minute), Ended: at.Add(4 * time.Minute), Celsius: map[string]float64{},
			Parts: []burnin.Part{{Name: "/dev/sda M serial S1", Verdict: disk, Reasons: []string{"<b> & more"}}, {Name: "/dev/sdb", Verdict: burnin.Skipped, Reasons: []string{"it was not named"}}}},
		{Load: "memory for 2m0s", Started: at.Add(4 * time.Minute), Ended: at.Add(4 * time.Minute), Celsius: map[string]float64{},
			Parts: []burnin.Part{{Name: "memory", Verdict: burnin.Skipped, Reasons: []string{"stopped before it began"}}}},
	}}
}

func TestBurnInOCP(t *testing.T) {
	var i inspect.Inventory
	i.Disks = []inspect.Disk{{Name: "/dev/sda", Serial: "S1"}}
	i.Hostname = "machine"
	for _, test := range []struct {
		name     string
		verdict  burnin.Verdict
		problems error
		want     []string
	}{
		{"all is well", burnin.Pass, nil, []string{
			`"testRunStart":{"name":"ironhand burnin"`, `"parameters":{"profile":"quick"}`, `"serialNumber":"S1"`,
			`"timestamp":"2026-01-02T03:04:05.000Z"`, `"testStepStart":{"name":"processors for 2m0s"}`,
			`{"name":"highest temperature of hwmon0 coretemp Package id 0","value":61.5,"unit":"degrees Celsius"}`,
			`{"verdict":"part-to-watch","type":"UNKNOWN","message":"DIMM_A1 (mc0 dimm0): 1 corrected memory errors"}`,
			`{"verdict":"part-good","type":"PASS","message":"/dev/sda M serial S1: <b> & more","hardwareInfoId":"disk-sda"}`,
			`{"verdict":"part-not-tested","type":"UNKNOWN","message":"/dev/sdb: it was not named"}`,
			`"testStepEnd":{"status":"SKIP"}`, `"testRunEnd":{"status":"COMPLETE","result":"PASS"}`}},
		{"a disk is broken", burnin.Fail, nil, []string{`"verdict":"part-broken","type":"FAIL","message":"/dev/sda`, `"result":"FAIL"`}},
		{"not tested, and not all could be read", burnin.Skipped, errors.New("read a\nread b"), []string{`"symptom":"not-read","message":"read b"`, `"result":"NOT_APPLICABLE"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := burninOCP(&out, found(test.verdict), i, test.problems); err != nil {
				t.Fatal(err)
			}
			ocptest.Check(t, out.Bytes())
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("lacks %s:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestReportDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := makeReportDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write(found(burnin.Pass), inspect.Inventory{}, nil); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(path)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); err != nil || got != "logs report.html results.json results.jsonl" {
		t.Errorf("the directory has %s, %v", got, err)
	}
	b, err := os.ReadFile(filepath.Join(path, "results.json"))
	var r burnin.Result
	if err != nil || json.Unmarshal(b, &r) != nil || r.Verdict != burnin.Pass || len(r.Loads) != 3 || !strings.Contains(string(b), `"problems":[]`) {
		t.Errorf("results.json: %s, %v", b, err)
	}
	if _, err := makeReportDir(path); err == nil || !strings.Contains(err.Error(), "has the results of another run") {
		t.Errorf("the same directory again: %v", err)
	}
	if _, err := makeReportDir(filepath.Join(path, "results.json", "c")); err == nil {
		t.Error("a directory below a file is made")
	}
	// What cannot be put in its place leaves nothing half done.
	if err := os.MkdirAll(filepath.Join(path, "full", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.file("full", []byte("text")); err == nil {
		t.Error("a file takes the place of a directory")
	}
	if left, err := filepath.Glob(filepath.Join(path, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// The report of a long run on a server of many sensors fits the partition of a stick, and a second one beside it.
func TestReportFits(t *testing.T) {
	r := burnin.Result{Profile: "standard", Verdict: burnin.Pass, Problems: []string{}, Baseline: []burnin.Part{}}
	for range 4 {
		l := burnin.Report{Load: "load", Parts: []burnin.Part{}, Counters: []burnin.Counter{}}
		for n := range 250 {
			s := burnin.Series{Kind: "temperature", Name: fmt.Sprintf("hwmon%d nct6775 temp1", n), Unit: "°C"}
			for i := range 512 {
				s.Points = append(s.Points, burnin.Point{Second: 7.983 * float64(i), Min: 45.5, Mean: 46.123, Max: 47})
			}
			l.Series = append(l.Series, s)
		}
		r.Loads = append(r.Loads, l)
	}
	d, err := makeReportDir(filepath.Join(t.TempDir(), "report"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write(r, inspect.Inventory{}, nil); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, name := range []string{"report.html", "results.json", "results.jsonl"} {
		info, err := os.Stat(filepath.Join(d.path, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 24<<20 {
		t.Errorf("the report has %d MiB", total>>20)
	}
}

func TestWatchdogTime(t *testing.T) {
	for _, test := range []struct {
		name, setting string
		ramdisk       bool
		want          time.Duration
		err           string
	}{
		{"by itself on a computer", "", false, 0, ""},
		{"by itself in the ramdisk", "", true, time.Minute, ""},
		{"off in the ramdisk", "off", true, 0, ""},
		{"asked for", "90s", false, 90 * time.Second, ""},
		{"too short for a look at the disks' health", "29s", true, 0, "--watchdog 29s: want off, or a time from 30s to 10m0s"},
		{"too long for most watchdogs", "11m", true, 0, "want off"},
		{"no time", "yes", true, 0, "want off"},
		{"no unit", "60", true, 0, "want off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := watchdogTime(test.setting, test.ramdisk)
			if got != test.want || (err == nil) != (test.err == "") || err != nil && (!errors.Is(err, errUsage) || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("watchdogTime(%q) = %v, %v, want %v, %q", test.setting, got, err, test.want, test.err)
			}
		})
	}
}

// hound is a watchdog that bites if it is not fed in time.
type hound struct {
	mu       sync.Mutex
	timer    *time.Timer
	bitten   time.Time
	disarmed bool
}

func (h *hound) Feed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
	}
	h.timer = time.AfterFunc(time.Minute, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.bitten.IsZero() {
			h.bitten = time.Now()
		}
	})
	return nil
}

func (h *hound) Disarm() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disarmed = true
	h.timer.Stop()
	return nil
}

// A sound machine is not reset, however slow its stick is and however seldom it is looked at; one whose burn-in does not go on is.
func TestFeedWatchdog(t *testing.T) {
	for _, test := range []struct {
		name  string
		every time.Duration
		run   func(f burnin.Following)
		bites time.Duration // 0: never
	}{
		{"a sample each second", time.Second, func(f burnin.Following) {
			for range 600 {
				time.Sleep(time.Second)
				f.Progress(0, 0)
			}
		}, 0},
		{"seldom samples", time.Hour, func(f burnin.Following) {
			for range 3 {
				time.Sleep(time.Hour)
				f.Progress(0, 0)
			}
		}, 0},
		{"two minutes to write to a stick", time.Second, func(f burnin.Following) {
			f.Began(0)
			time.Sleep(2 * time.Minute)
			f.Ended(0, burnin.Report{})
			time.Sleep(2 * time.Minute)
		}, 0},
		{"it does not go on", time.Second, func(f burnin.Following) {
			f.Began(0)
			time.Sleep(time.Hour)
		}, watchdogPatience + time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, began := &hound{}, time.Now()
				f, disarm := feedWatchdog(h, time.Minute, test.every, t.Logf)
				test.run(f)
				if err := disarm(); err != nil || !h.disarmed {
					t.Errorf("disarm: %v, %v", err, h.disarmed)
				}
				time.Sleep(time.Hour)
				switch {
				case test.bites == 0 && !h.bitten.IsZero():
					t.Errorf("the machine is reset after %v", h.bitten.Sub(began))
				case test.bites > 0 && (h.bitten.IsZero() || h.bitten.Sub(began) > test.bites+time.Minute):
					t.Errorf("the machine is reset at %v, want after %v", h.bitten, test.bites)
				}
			})
		})
	}
}

func TestResumeRefused(t *testing.T) {
	dir := t.TempDir()
	damaged, empty := filepath.Join(dir, "damaged"), filepath.Join(dir, "empty")
	for _, d := range []string{damaged, empty} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(damaged, "state.json"), []byte(`{"sha256": "00", "state": {"version": 1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"without a directory", []string{"--resume"}, exitUsage, "--resume wants --report DIR"},
		{"with other disks", []string{"--resume", "--report", empty, "--disks", "sda"}, exitUsage, "--disks: --resume goes on with what was begun"},
		{"with another profile", []string{"--resume", "--report", empty, "--profile", "full"}, exitUsage, "--profile: --resume goes on with what was begun"},
		{"nothing to go on with", []string{"--resume", "--report", empty}, exitOther, "no run to go on with: open "},
		{"no directory", []string{"--resume", "--report", filepath.Join(dir, "none")}, exitOther, "no such file or directory"},
		{"a damaged state", []string{"--resume", "--report", damaged}, exitOther, "state.json: the run cannot go on: the file is damaged: its digest is another"},
		{"another run over a damaged state", []string{"--report", damaged, "--yes"}, exitOther, "the file is damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, _, stderr := run(t, "", append([]string{"burnin"}, test.args...)...)
			if code != test.code || !strings.Contains(stderr, test.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, test.code, test.want, stderr)
			}
		})
	}
}

func TestPrintResult(t *testing.T) {
	var out bytes.Buffer
	r := found(burnin.Fail)
	r.Problems = []string{"memory: stopped before it began"}
	if err := printResult(&out, r); err != nil {
		t.Fatal(err)
	}
	const want = `BURN-IN QUICK  FAIL
               memory: stopped before it began

PART                  VERDICT  REASONS
DIMM_A1 (mc0 dimm0)   -        1 corrected memory errors
processors            PASS     -
/dev/sda M serial S1  FAIL     <b> & more
/dev/sdb              SKIPPED  it was not named
memory                SKIPPED  stopped before it began
`
	if got := out.String(); got != want {
		t.Errorf("printed:\n%swant:\n%s", got, want)
	}
}

// What programs and firmware say makes no lines of its own in the verdict, and steers no terminal.
func TestHostileWords(t *testing.T) {
	const hostile = "DIMM\x1b[2J\nmemory\tPASS"
	r := burnin.Result{Profile: hostile, Verdict: burnin.Fail, Problems: []string{hostile}, Loads: []burnin.Report{{Parts: []burnin.Part{{Name: hostile, Verdict: burnin.Fail, Reasons: []string{hostile}}}}},
		Baseline: []burnin.Part{{Name: hostile, Reasons: []string{hostile}}}}
	var out bytes.Buffer
	if err := printResult(&out, r); err != nil {
		t.Fatal(err)
	}
	live := newLiveRun(&out)
	live.Say("%s", hostile)
	if got := out.String(); strings.Contains(got, "\x1b") || strings.Count(got, "\nmemory") != 1 { // Say keeps lines, without what steers
		t.Errorf("%q", got)
	}
}

// An answer is to the load that was asked about: one that comes too late skips no other.
func TestSkipTooLate(t *testing.T) {
	for _, test := range []struct {
		name string
		late bool
		want int
	}{{"in time", false, 1}, {"too late", true, 0}} {
		t.Run(test.name, func(t *testing.T) {
			l := newLiveRun(&bytes.Buffer{})
			l.skip = make(chan struct{}, 1)
			l.page = newBurninPage("m", "p", []burnin.PlannedLoad{{Part: "processors"}, {Part: "memory"}})
			f := l.following()
			f.Began(0)
			l.key('s')
			if test.late {
				f.Ended(0, burnin.Report{})
				f.Began(1)
			}
			l.key('y')
			if got := len(l.skip); got != test.want {
				t.Errorf("%d loads are skipped, want %d", got, test.want)
			}
		})
	}
}

// Who halts a load as it ends does not halt the next one, which would stand still on a page that says that it runs.
func TestHaltTooLate(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "busybox"), []byte("#!/bin/sh\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := newLiveRun(&bytes.Buffer{})
	l.tools.Exec.Dirs = []string{dir, "/usr/bin", "/bin"}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.tools.Run(ctx, tool.Busybox, "sh") // until it is stopped
	}()
	defer func() { stop(); <-done }()
	for l.tools.Running() == 0 {
		time.Sleep(time.Millisecond)
	}
	halted := func() bool {
		before := l.tools.Halted()
		time.Sleep(time.Millisecond)
		return l.tools.Halted() > before
	}
	for _, test := range []struct {
		name string
		do   func(f burnin.Following, halt func())
		want bool
	}{
		{"while it runs", func(_ burnin.Following, halt func()) { halt() }, true},
		{"it has ended", func(f burnin.Following, halt func()) { f.Ended(0, burnin.Report{}); halt() }, false},
		{"the next one runs", func(f burnin.Following, halt func()) { f.Ended(0, burnin.Report{}); f.Began(1); halt() }, false},
		{"then it ends", func(f burnin.Following, halt func()) { halt(); f.Ended(0, burnin.Report{}); f.Began(1) }, false},
		{"both at once", func(f burnin.Following, _ func()) {
			f.Ended(0, burnin.Report{})
			for i := range 300 {
				f.Began(i % 2)
				var typed sync.WaitGroup
				typed.Go(func() { l.key('p') })
				f.Ended(i%2, burnin.Report{})
				f.Began((i + 1) % 2)
				typed.Wait()
				f.Ended((i+1)%2, burnin.Report{})
				if halted() {
					t.Errorf("halted between two loads, the %d. time", i)
					return
				}
			}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l.page = newBurninPage("m", "p", []burnin.PlannedLoad{{Part: "processors"}, {Part: "memory"}})
			f := l.following()
			f.Began(0)
			test.do(f, l.typed('p'))
			if got, shown := halted(), !l.page.halted.IsZero(); got != test.want || shown != test.want {
				t.Errorf("halted %v, and the page says %v; want %v", got, shown, test.want)
			}
			f.Ended(0, burnin.Report{})
			if halted() {
				t.Error("halted when the load has ended")
			}
		})
	}
}
