// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/ocp/ocptest"
	"github.com/ironhand/ironhand/steps"
)

// found is what a run of one load of each kind has found.
func found(disk Verdict) Result {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Result{Profile: "quick", Started: at, Ended: at.Add(4 * time.Minute), Verdict: disk, Problems: []string{}, Loads: []Report{
		{Load: "processors for 2m0s", Started: at, Ended: at.Add(2 * time.Minute), Celsius: map[string]float64{"hwmon0 coretemp Package id 0": 61.5},
			Parts: []Part{{Name: "DIMM_A1 (mc0 dimm0)", Reasons: []string{"1 corrected memory errors"}}, {Name: "processors", Verdict: Pass, Reasons: []string{}}}},
		{Load: "1 disks", Started: at.Add(2 * time.Minute), Ended: at.Add(4 * time.Minute), Celsius: map[string]float64{},
			Parts: []Part{{Name: "/dev/sda M serial S1", Verdict: disk, Reasons: []string{"<b> & more"}}, {Name: "/dev/sdb", Verdict: Skipped, Reasons: []string{"it was not named"}}}},
		{Load: "memory for 2m0s", Started: at.Add(4 * time.Minute), Ended: at.Add(4 * time.Minute), Celsius: map[string]float64{},
			Parts: []Part{{Name: "memory", Verdict: Skipped, Reasons: []string{"stopped before it began"}}}},
	}}
}

func TestBurnInOCP(t *testing.T) {
	var i inspect.Inventory
	i.Disks = []inspect.Disk{{Name: "/dev/sda", Serial: "S1"}}
	i.Hostname = "machine"
	for _, test := range []struct {
		name     string
		verdict  Verdict
		problems error
		want     []string
	}{
		{"all is well", Pass, nil, []string{
			`"testRunStart":{"name":"ironhand burnin"`, `"parameters":{"profile":"quick"}`, `"serialNumber":"S1"`,
			`"timestamp":"2026-01-02T03:04:05.000Z"`, `"testStepStart":{"name":"processors for 2m0s"}`,
			`{"name":"highest temperature of hwmon0 coretemp Package id 0","value":61.5,"unit":"degrees Celsius"}`,
			`{"verdict":"part-to-watch","type":"UNKNOWN","message":"DIMM_A1 (mc0 dimm0): 1 corrected memory errors"}`,
			`{"verdict":"part-good","type":"PASS","message":"/dev/sda M serial S1: <b> & more","hardwareInfoId":"disk-sda"}`,
			`{"verdict":"part-not-tested","type":"UNKNOWN","message":"/dev/sdb: it was not named"}`,
			`"testStepEnd":{"status":"SKIP"}`, `"testRunEnd":{"status":"COMPLETE","result":"PASS"}`}},
		{"a disk is broken", Fail, nil, []string{`"verdict":"part-broken","type":"FAIL","message":"/dev/sda`, `"result":"FAIL"`}},
		{"not tested, and not all could be read", Skipped, errors.New("read a\nread b"), []string{`"symptom":"not-read","message":"read b"`, `"result":"NOT_APPLICABLE"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := writeOCP(&out, "VERSION", found(test.verdict), i, test.problems); err != nil {
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
	d, err := MakeReportDir(path, "VERSION")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(found(Pass), inspect.Inventory{}, nil); err != nil {
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
	var r Result
	if err != nil || json.Unmarshal(b, &r) != nil || r.Verdict != Pass || len(r.Loads) != 3 || !strings.Contains(string(b), `"problems":[]`) {
		t.Errorf("results.json: %s, %v", b, err)
	}
	if _, err := MakeReportDir(path, "VERSION"); err == nil || !strings.Contains(err.Error(), "has the results of another run") {
		t.Errorf("the same directory again: %v", err)
	}
	if _, err := MakeReportDir(filepath.Join(path, "results.json", "c"), "VERSION"); err == nil {
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
	r := Result{Profile: "standard", Verdict: Pass, Problems: []string{}, Baseline: []Part{}}
	for range 4 {
		l := Report{Load: "load", Parts: []Part{}, Counters: []Counter{}}
		for n := range 250 {
			s := Series{Kind: "temperature", Name: fmt.Sprintf("hwmon%d nct6775 temp1", n), Unit: "°C"}
			for i := range 512 {
				s.Points = append(s.Points, Point{Second: 7.983 * float64(i), Min: 45.5, Mean: 46.123, Max: 47})
			}
			l.Series = append(l.Series, s)
		}
		r.Loads = append(r.Loads, l)
	}
	d, err := MakeReportDir(filepath.Join(t.TempDir(), "report"), "VERSION")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(r, inspect.Inventory{}, nil); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, name := range []string{"report.html", "results.json", "results.jsonl"} {
		info, err := os.Stat(filepath.Join(d.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 24<<20 {
		t.Errorf("the report has %d MiB", total>>20)
	}
}

// The report that a step leaves is as that of a run by hand.
func TestStepReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := steps.Host{
			Machine: inspect.Machine{FS: machine("vda")}, Log: slog.New(slog.DiscardHandler), Say: t.Logf, Reports: filepath.Join(t.TempDir(), "reports"), Version: "VERSION",
			Tools: runner(func(context.Context, string) (string, error) { return worked, nil }),
		}
		if _, err := CPU(t.Context(), h, steps.Job{Node: steps.Node{Record: map[string]any{"driver_info": map[string]any{"agent_burnin_cpu_timeout": "3600"}}}}); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(h.Reports, "burnin-processors")
		b, err := os.ReadFile(filepath.Join(dir, "results.json"))
		var r Result
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil || r.Verdict != Pass {
			t.Fatalf("results.json: %s, %v", b, err)
		}
		fitsSchema(t, r)
		lines, err := os.ReadFile(filepath.Join(dir, "results.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		ocptest.Check(t, lines)
	})
}
