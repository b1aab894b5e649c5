// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/ocp"
)

// ReportDir is the directory of a burn-in's report: report.html, results.json, results.jsonl, and the programs' own reports in logs.
type ReportDir struct {
	Path    string
	version string // of this program, which stands in the report
}

// MakeReportDir makes the directory. One that has the results of another run, or a run that did not come to its end, is left alone.
func MakeReportDir(path, version string) (*ReportDir, error) {
	d, err := OpenReportDir(path, version)
	if err != nil {
		return nil, err
	}
	_, err = Unfinished(d.Path)
	switch {
	case err == nil:
		return nil, fmt.Errorf("%s has a run that did not come to its end: --resume goes on with it", d.Path)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	_, err = os.Lstat(filepath.Join(d.Path, "results.json"))
	switch {
	case err == nil:
		return nil, fmt.Errorf("%s has the results of another run", d.Path)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return d, os.MkdirAll(d.Logs(), 0o755)
}

// OpenReportDir is for a directory that is there.
func OpenReportDir(path, version string) (*ReportDir, error) {
	path, err := filepath.Abs(path)
	return &ReportDir{path, version}, err
}

// Logs is where the programs' own reports go.
func (d *ReportDir) Logs() string { return filepath.Join(d.Path, "logs") }

// Write writes what was found. problems are of reading the inventory.
func (d *ReportDir) Write(r Result, i inspect.Inventory, problems error) error {
	text, err := json.Marshal(r) // in one line: indented, the points of a server's sensors take more than a stick has
	if err != nil {
		return err
	}
	var lines bytes.Buffer
	if err := writeOCP(&lines, d.version, r, i, problems); err != nil {
		return err
	}
	if err := d.file("results.jsonl", lines.Bytes()); err != nil {
		return err
	}
	if err := d.file("report.html", reportPage(d.version, r, i, problems)); err != nil {
		return err
	}
	return d.file("results.json", append(text, '\n')) // last: with it the report is whole
}

func (d *ReportDir) file(name string, content []byte) error {
	return WriteWhole(filepath.Join(d.Path, name), content)
}

// writeOCP writes a run of burn-in as lines that the tools of fleets read: a step for each load, with a diagnosis for each part.
func writeOCP(out io.Writer, version string, r Result, i inspect.Inventory, problems error) error {
	at := r.Started
	w := ocp.NewWriter(out, func() time.Time { return at })
	dut := i.DUT()
	dut.Software = append(dut.Software, ocp.Software{ID: "ironhand", Name: "ironhand", Version: version, Type: "APPLICATION"})
	if err := w.Start(ocp.Start{Name: "ironhand burnin", Version: version, CommandLine: "ironhand burnin", Parameters: map[string]any{"profile": r.Profile}, DUT: dut}); err != nil {
		return err
	}
	if problems != nil {
		for line := range strings.Lines(problems.Error()) {
			if err := w.Problem(ocp.Problem{Symptom: "not-read", Message: strings.TrimSpace(line)}); err != nil {
				return err
			}
		}
	}
	for _, l := range r.Loads {
		at = l.Started
		step, err := w.Step(l.Load)
		if err != nil {
			return err
		}
		at = l.Ended
		if err := ocpStep(step, l, dut); err != nil {
			return err
		}
	}
	at = r.Ended
	if len(r.Baseline) > 0 {
		step, err := w.Step("comparison with other runs")
		if err != nil {
			return err
		}
		if err := ocpStep(step, Report{Parts: r.Baseline}, dut); err != nil {
			return err
		}
	}
	status := ocp.Complete
	for _, p := range r.Problems {
		status = ocp.Error
		if err := w.Problem(ocp.Problem{Symptom: "not-tested", Message: p}); err != nil {
			return err
		}
	}
	return w.End(status, map[Verdict]ocp.Result{Pass: ocp.Pass, Fail: ocp.Fail, Skipped: ocp.NotApplicable}[r.Verdict])
}

// mostOCPPoints are the points of a series there, of which each is a line of 200 bytes.
const mostOCPPoints = 32

func ocpStep(step *ocp.Step, l Report, dut ocp.DUT) error {
	for _, sensor := range slices.Sorted(maps.Keys(l.Celsius)) {
		if err := step.Measure(ocp.Measurement{Name: "highest temperature of " + sensor, Value: l.Celsius[sensor], Unit: "degrees Celsius"}); err != nil {
			return err
		}
	}
	for _, s := range l.Series {
		points := Thin(s.Points, mostOCPPoints)
		list := make([]ocp.Element, len(points))
		for i, p := range points {
			list[i] = ocp.Element{Value: p.Mean, Time: l.Started.Add(time.Duration(p.Second * float64(time.Second)))}
		}
		if err := step.Series(ocp.Series{Name: s.Kind + " of " + s.Name, Unit: s.Unit, HardwareID: partID(dut, s.Name)}, list); err != nil {
			return err
		}
	}
	for _, c := range l.Counters {
		if err := step.Measure(ocp.Measurement{Name: c.Kind + " of " + c.Part, Value: c.Count, HardwareID: partID(dut, c.Part)}); err != nil {
			return err
		}
	}
	tested := false
	for _, p := range l.Parts {
		d := ocp.Diagnosis{Verdict: "part-to-watch", Type: "UNKNOWN", Message: strings.Join(append([]string{p.Name}, p.Reasons...), ": "), HardwareID: partID(dut, p.Name)}
		switch p.Verdict {
		case Pass:
			d.Verdict, d.Type, tested = "part-good", "PASS", true
		case Fail:
			d.Verdict, d.Type, tested = "part-broken", "FAIL", true
		case Skipped:
			d.Verdict = "part-not-tested"
		}
		if err := step.Diagnose(d); err != nil {
			return err
		}
	}
	if !tested {
		return step.End(ocp.Skip)
	}
	return step.End(ocp.Complete)
}

// partID is the number of a part's hardware in this run, by the name that the kernel has for it, with which the name of a disk or an interface begins; "" for parts that have none.
func partID(dut ocp.DUT, part string) string {
	name, _, _ := strings.Cut(part, " ")
	for _, h := range dut.Hardware {
		if h.Name == name && (h.PartType == "disk" || h.PartType == "NIC") {
			return h.ID
		}
	}
	return ""
}
