// SPDX-License-Identifier: Apache-2.0

// Package ocptest checks output of the Open Compute Project's Test and Validation format in tests.
package ocptest

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// ours is written after the specification, and stricter where it leaves things open.
//
//go:embed output.schema.json
var ours []byte

// official are the schemas of the format's own authors. See testdata/README.md.
//
//go:embed testdata/*.json
var official embed.FS

// Check fails the test for each line that is not as the format has it, for numbers that are not in order, steps that do not begin or end, and references to parts
// that the machine does not have.
func Check(t testing.TB, output []byte) {
	t.Helper()
	for _, wrong := range problems(output, schemas(t)) {
		t.Error(wrong)
	}
}

func schemas(t testing.TB) (list []*jsonschema.Schema) {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	add := func(url string, text []byte) string {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if of, ok := doc.(map[string]any); ok && of["$id"] != nil {
			url = of["$id"].(string)
		}
		if err := compiler.AddResource(url, doc); err != nil {
			t.Fatal(err)
		}
		return url
	}
	urls := []string{add("output.schema.json", ours)}
	files, err := fs.Glob(official, "testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := official.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if url := add("file:///"+file, text); path.Base(file) == "root.json" {
			urls = append(urls, url)
		}
	}
	if len(urls) != 2 {
		t.Fatal("the official schemas are not there")
	}
	for _, url := range urls {
		s, err := compiler.Compile(url)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

// line is what is looked at beyond the schemas.
type line struct {
	Number *int             `json:"sequenceNumber"`
	Schema *json.RawMessage `json:"schemaVersion"`
	Run    struct {
		Start *struct {
			DUT struct {
				Hardware []struct {
					ID string `json:"hardwareInfoId"`
				} `json:"hardwareInfos"`
				Software []struct {
					ID string `json:"softwareInfoId"`
				} `json:"softwareInfos"`
			} `json:"dutInfo"`
		} `json:"testRunStart"`
		End *json.RawMessage `json:"testRunEnd"`
	} `json:"testRunArtifact"`
	Step *struct {
		ID                     string           `json:"testStepId"`
		Start                  *json.RawMessage `json:"testStepStart"`
		End                    *json.RawMessage `json:"testStepEnd"`
		Measurement, Diagnosis *struct {
			HardwareID string `json:"hardwareInfoId"`
		}
		SeriesStart *struct {
			ID         string `json:"measurementSeriesId"`
			HardwareID string `json:"hardwareInfoId"`
		} `json:"measurementSeriesStart"`
		Element *struct {
			ID    string `json:"measurementSeriesId"`
			Index int    `json:"index"`
		} `json:"measurementSeriesElement"`
		SeriesEnd *struct {
			ID    string `json:"measurementSeriesId"`
			Count int    `json:"totalCount"`
		} `json:"measurementSeriesEnd"`
	} `json:"testStepArtifact"`
}

func problems(output []byte, schemas []*jsonschema.Schema) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	parts, open, ended := map[string]bool{}, map[string]bool{}, false
	series, seriesKnown := map[string]int{}, map[string]bool{} // those that go on, with how many elements they have
	lines := strings.SplitAfter(string(output), "\n")
	if last := len(lines) - 1; lines[last] != "" {
		bad("the last line has no end: %.80q", lines[last])
	} else {
		lines = lines[:last]
	}
	for i, text := range lines {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			bad("line %d: %v", i, err)
			continue
		}
		for _, s := range schemas {
			if err := s.Validate(doc); err != nil {
				bad("line %d: %v\n%s", i, err, text)
			}
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			bad("line %d: %v", i, err)
			continue
		}
		if l.Number == nil || *l.Number != i {
			bad("line %d: its number is another: %s", i, text)
		}
		if (i == 0) != (l.Schema != nil) || (i == 1) != (l.Run.Start != nil) {
			bad("line %d: the version comes first, and the start of the run second, and both once", i)
		}
		if ended {
			bad("line %d comes after the end of the run", i)
		}
		ended = l.Run.End != nil
		if ended && len(open) > 0 {
			bad("line %d: the run ends, and steps go on: %v", i, open)
		}
		if start := l.Run.Start; start != nil {
			for _, h := range start.DUT.Hardware {
				if parts[h.ID] {
					bad("two parts are %s", h.ID)
				}
				parts[h.ID] = true
			}
			programs := map[string]bool{}
			for _, s := range start.DUT.Software {
				if programs[s.ID] {
					bad("two programs are %s", s.ID)
				}
				programs[s.ID] = true
			}
		}
		if s := l.Step; s != nil {
			if open[s.ID] == (s.Start != nil) {
				bad("line %d: step %s begins twice, or says something before it begins or after its end", i, s.ID)
			}
			open[s.ID] = true
			if s.End != nil {
				delete(open, s.ID)
			}
			if start := s.SeriesStart; start != nil {
				if seriesKnown[start.ID] {
					bad("line %d: series %s begins twice", i, start.ID)
				}
				seriesKnown[start.ID], series[start.ID] = true, 0
				if start.HardwareID != "" && !parts[start.HardwareID] {
					bad("line %d: there is no part %s", i, start.HardwareID)
				}
			}
			if e := s.Element; e != nil {
				if n, goesOn := series[e.ID]; !goesOn || n != e.Index {
					bad("line %d: series %s has no element %d here", i, e.ID, e.Index)
				}
				series[e.ID]++
			}
			if e := s.SeriesEnd; e != nil {
				if n, goesOn := series[e.ID]; !goesOn || n != e.Count {
					bad("line %d: series %s does not end here, or has not %d elements", i, e.ID, e.Count)
				}
				delete(series, e.ID)
			}
			for _, of := range []*struct {
				HardwareID string `json:"hardwareInfoId"`
			}{s.Measurement, s.Diagnosis} {
				if of != nil && of.HardwareID != "" && !parts[of.HardwareID] {
					bad("line %d: there is no part %s", i, of.HardwareID)
				}
			}
		}
	}
	if len(series) > 0 {
		bad("series have no end: %v", series)
	}
	if !ended {
		bad("the run has no end")
	}
	return wrong
}
