// SPDX-License-Identifier: Apache-2.0

// Package ocp writes what a test or an inspection of a machine has found as the Open Compute Project's Test and Validation output, version 2.0: lines of
// JSON, which the tools of fleets read (github.com/opencomputeproject/ocp-diag-core, json_spec). It writes what it is told, knows nothing of
// machines, and touches nothing but its writer.
package ocp

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

// Start describes a run and the machine under test.
type Start struct {
	Name        string         `json:"name"` // of the test
	Version     string         `json:"version"`
	CommandLine string         `json:"commandLine"` // without secrets: it is stored
	Parameters  map[string]any `json:"parameters"`
	DUT         DUT            `json:"dutInfo"`
}

// DUT is the device under test: a machine. Its JSON is dutInfo.
type DUT struct {
	ID       string         `json:"dutInfoId"`
	Name     string         `json:"name,omitempty"`
	Platform []Platform     `json:"platformInfos,omitempty"`
	Software []Software     `json:"softwareInfos,omitempty"`
	Hardware []Hardware     `json:"hardwareInfos,omitempty"`
	Metadata map[string]any `json:"metadata,omitempty"`
}

// Platform is a word on what kind of machine it is.
type Platform struct {
	Info string `json:"info"`
}

// Software is a program or a firmware.
type Software struct {
	ID       string `json:"softwareInfoId"` // others refer to it in this run
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"`
	Type     string `json:"softwareType,omitempty"` // FIRMWARE, SYSTEM or APPLICATION
}

// Hardware is a part of the machine.
type Hardware struct {
	ID           string `json:"hardwareInfoId"` // others refer to it in this run
	Name         string `json:"name"`
	Version      string `json:"version,omitempty"`
	Revision     string `json:"revision,omitempty"`
	Location     string `json:"location,omitempty"`
	Serial       string `json:"serialNumber,omitempty"`
	Part         string `json:"manufacturerPartNumber,omitempty"`
	PartType     string `json:"partType,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
}

// Measurement is a value that was measured once.
type Measurement struct {
	Name       string `json:"name"`
	Value      any    `json:"value"` // a number, a text or a bool
	Unit       string `json:"unit,omitempty"`
	HardwareID string `json:"hardwareInfoId,omitempty"`
}

// Series is a value that was measured over the time.
type Series struct {
	Name       string `json:"name"`
	Unit       string `json:"unit,omitempty"`
	ID         string `json:"measurementSeriesId"` // set by the writer
	HardwareID string `json:"hardwareInfoId,omitempty"`
}

// Element is one value of a series.
type Element struct {
	Value any // a number, a text or a bool
	Time  time.Time
}

// Diagnosis is what a step says of a part.
type Diagnosis struct {
	Verdict    string `json:"verdict"` // a name for this kind of finding: disk-failing
	Type       string `json:"type"`    // PASS, FAIL or UNKNOWN
	Message    string `json:"message,omitempty"`
	HardwareID string `json:"hardwareInfoId,omitempty"`
}

// Problem is what kept the program, and not the machine, from doing its work. Its JSON is error.
type Problem struct {
	Symptom string `json:"symptom"` // a name for this kind: not-read
	Message string `json:"message,omitempty"`
}

// A Status says whether a run or a step was done.
type Status string

// Statuses.
const (
	Complete Status = "COMPLETE"
	Error    Status = "ERROR"
	Skip     Status = "SKIP"
)

// A Result says what a run has found.
type Result string

// Results.
const (
	NotApplicable Result = "NOT_APPLICABLE" // nothing was tested
	Pass          Result = "PASS"
	Fail          Result = "FAIL"
)

// A Writer writes one run. Several steps may go on beside each other.
type Writer struct {
	now func() time.Time

	mu       sync.Mutex
	encoder  *json.Encoder
	sequence int
	steps    int
	series   int
}

// NewWriter returns a writer to w. Each artefact is one line and one call of its Write.
func NewWriter(w io.Writer, now func() time.Time) *Writer {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return &Writer{now: now, encoder: e}
}

// Start begins the run. It comes first, and once.
func (w *Writer) Start(s Start) error {
	if s.Parameters == nil {
		s.Parameters = map[string]any{}
	}
	if err := w.write("schemaVersion", map[string]int{"major": 2, "minor": 0}); err != nil {
		return err
	}
	return w.run("testRunStart", s)
}

// Problem says what went wrong outside of steps.
func (w *Writer) Problem(p Problem) error { return w.run("error", p) }

// End ends the run, when all steps have ended.
func (w *Writer) End(status Status, result Result) error {
	return w.run("testRunEnd", struct {
		Status Status `json:"status"`
		Result Result `json:"result"`
	}{status, result})
}

func (w *Writer) run(kind string, value any) error {
	return w.write("testRunArtifact", map[string]any{kind: value})
}

// write writes one line with its number and time.
func (w *Writer) write(kind string, value any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := map[string]any{kind: value, "sequenceNumber": w.sequence, "timestamp": timestamp(w.now())}
	if err := w.encoder.Encode(line); err != nil {
		return fmt.Errorf("write %s %d: %w", kind, w.sequence, err)
	}
	w.sequence++
	return nil
}

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// A Step is a part of a run with findings of its own.
type Step struct {
	w  *Writer
	id string
}

// Step begins a step.
func (w *Writer) Step(name string) (*Step, error) {
	w.mu.Lock()
	s := &Step{w, strconv.Itoa(w.steps)}
	w.steps++
	w.mu.Unlock()
	return s, s.write("testStepStart", map[string]string{"name": name})
}

// Measure writes a measurement.
func (s *Step) Measure(m Measurement) error { return s.write("measurement", m) }

// Series writes a series of measurements, whole.
func (s *Step) Series(m Series, list []Element) error {
	s.w.mu.Lock()
	m.ID = strconv.Itoa(s.w.series)
	s.w.series++
	s.w.mu.Unlock()
	if err := s.write("measurementSeriesStart", m); err != nil {
		return err
	}
	for i, e := range list {
		if err := s.write("measurementSeriesElement", map[string]any{"index": i, "value": e.Value, "timestamp": timestamp(e.Time), "measurementSeriesId": m.ID}); err != nil {
			return err
		}
	}
	return s.write("measurementSeriesEnd", map[string]any{"measurementSeriesId": m.ID, "totalCount": len(list)})
}

// Diagnose writes a diagnosis.
func (s *Step) Diagnose(d Diagnosis) error { return s.write("diagnosis", d) }

// Problem says what went wrong in the step.
func (s *Step) Problem(p Problem) error { return s.write("error", p) }

// End ends the step.
func (s *Step) End(status Status) error {
	return s.write("testStepEnd", map[string]Status{"status": status})
}

func (s *Step) write(kind string, value any) error {
	return s.w.write("testStepArtifact", map[string]any{"testStepId": s.id, kind: value})
}
