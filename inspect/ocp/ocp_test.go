// SPDX-License-Identifier: Apache-2.0

package ocp_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironhand/ironhand/inspect/ocp"
	"github.com/ironhand/ironhand/inspect/ocp/ocptest"
)

func clock() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)) }

func TestWriter(t *testing.T) {
	var out bytes.Buffer
	w := ocp.NewWriter(&out, clock)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(w.Start(ocp.Start{Name: "a <b>", Version: "1", DUT: ocp.DUT{ID: "1", Hardware: []ocp.Hardware{{ID: "d", Name: "disk"}}}}))
	check(w.Problem(ocp.Problem{Symptom: "not-read", Message: "read x: \xff"}))
	step, err := w.Step("one")
	check(err)
	for _, value := range []any{1, 1.5, "text", true} {
		check(step.Measure(ocp.Measurement{Name: "m", Value: value, HardwareID: "d"}))
	}
	check(step.Series(ocp.Series{Name: "over the time", Unit: "W", HardwareID: "d"}, []ocp.Element{{Value: 1.5, Time: clock()}, {Value: 2, Time: clock().Add(time.Second)}}))
	check(step.Series(ocp.Series{Name: "of nothing"}, nil))
	check(step.Diagnose(ocp.Diagnosis{Verdict: "good", Type: "PASS", HardwareID: "d"}))
	check(step.Problem(ocp.Problem{Symptom: "broken"}))
	check(step.End(ocp.Skip))
	check(w.End(ocp.Error, ocp.Fail))
	ocptest.Check(t, out.Bytes())
	for _, want := range []string{`"name":"a <b>"`, `"parameters":{}`, `"timestamp":"2026-01-02T02:04:05.000Z"`, `{"index":1,"measurementSeriesId":"0","timestamp":"2026-01-02T02:04:06.000Z","value":2}`, `{"measurementSeriesId":"1","totalCount":0}`, `"status":"SKIP"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %s:\n%s", want, out.String())
		}
	}
}

// Steps that go on beside each other have lines of their own, and numbers in order.
func TestStepsBesideEachOther(t *testing.T) {
	var out bytes.Buffer
	w := ocp.NewWriter(&out, clock)
	if err := w.Start(ocp.Start{Name: "n", Version: "1", DUT: ocp.DUT{ID: "1"}}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			step, err := w.Step(fmt.Sprint(i))
			for n := 0; err == nil && n < 20; n++ {
				err = step.Measure(ocp.Measurement{Name: "m", Value: n})
			}
			if err == nil {
				err = step.End(ocp.Complete)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := w.End(ocp.Complete, ocp.Pass); err != nil {
		t.Fatal(err)
	}
	ocptest.Check(t, out.Bytes())
	if n := strings.Count(out.String(), "\n"); n != 2+20*22+1 {
		t.Errorf("%d lines, want %d", n, 2+20*22+1)
	}
}

// full is a disk without room.
type full struct{ room int }

var errFull = errors.New("no space left")

func (f *full) Write(b []byte) (int, error) {
	if f.room--; f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// A line that is not written is an error, wherever it happens; so is a value that JSON does not have.
func TestWriterFails(t *testing.T) {
	run := func(w *ocp.Writer, value any) error {
		if err := w.Start(ocp.Start{}); err != nil {
			return err
		}
		step, err := w.Step("s")
		if err != nil {
			return err
		}
		if err := step.Measure(ocp.Measurement{Value: value}); err != nil {
			return err
		}
		if err := step.Series(ocp.Series{Name: "n"}, []ocp.Element{{Value: 1}}); err != nil {
			return err
		}
		if err := step.End(ocp.Complete); err != nil {
			return err
		}
		return w.End(ocp.Complete, ocp.Pass)
	}
	for room := range 9 {
		if err := run(ocp.NewWriter(&full{room}, clock), 1); !errors.Is(err, errFull) {
			t.Errorf("with room for %d lines: %v, want %v", room, err, errFull)
		}
	}
	if err := run(ocp.NewWriter(&full{9}, clock), 1); err != nil {
		t.Errorf("with room for all lines: %v", err)
	}
	if err := run(ocp.NewWriter(&full{9}, clock), func() {}); err == nil || !strings.Contains(err.Error(), "write testStepArtifact 3") {
		t.Errorf("a function as value: %v", err)
	}
}
