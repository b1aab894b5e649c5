// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
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

func TestBurnInWrongUse(t *testing.T) {
	dir := t.TempDir()
	broken := found(burnin.Fail)
	broken.Machine = &burnin.Machine{}
	b, err := json.Marshal(broken)
	if err != nil {
		t.Fatal(err)
	}
	failed, empty := filepath.Join(dir, "failed.json"), filepath.Join(dir, "empty.json")
	if err := errors.Join(os.WriteFile(failed, b, 0o644), os.WriteFile(empty, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, flag, value, want string }{
		{"too often", "--every", "5ms", "want 100ms to 1h"},
		{"too seldom", "--every", "2h", "want 100ms to 1h"},
		{"no file to compare with", "--baseline", filepath.Join(dir, "none"), "no such file"},
		{"no results to compare with", "--baseline", empty, "read results"},
		{"compared with a broken machine", "--baseline", failed, "its machine failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, _, stderr := run(t, "", "burnin", test.flag, test.value)
			if code != exitUsage || !strings.Contains(stderr, test.want) {
				t.Errorf("exit %d: %s", code, stderr)
			}
		})
	}
}
