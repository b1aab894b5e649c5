// SPDX-License-Identifier: Apache-2.0

package ocptest

import (
	"fmt"
	"strings"
	"testing"
)

const (
	version = `{"schemaVersion":{"major":2,"minor":0},"sequenceNumber":0,"timestamp":"2026-01-02T03:04:05.678Z"}` + "\n"
	start   = `{"testRunArtifact":{"testRunStart":{"name":"n","version":"1","commandLine":"","parameters":{},"dutInfo":{"dutInfoId":"1","hardwareInfos":[{"hardwareInfoId":"a","name":"a"}]}}},` +
		`"sequenceNumber":1,"timestamp":"2026-01-02T03:04:05Z"}` + "\n"
	step    = `{"testStepArtifact":{"testStepId":"0","testStepStart":{"name":"s"}},"sequenceNumber":2,"timestamp":"2026-01-02T03:04:05Z"}` + "\n"
	stepEnd = `{"testStepArtifact":{"testStepId":"0","testStepEnd":{"status":"COMPLETE"}},"sequenceNumber":3,"timestamp":"2026-01-02T03:04:05Z"}` + "\n"
	end     = `{"testRunArtifact":{"testRunEnd":{"status":"COMPLETE","result":"PASS"}},"sequenceNumber":4,"timestamp":"2026-01-02T03:04:05Z"}` + "\n"
	whole   = version + start + step + stepEnd + end
)

// series is a run with a series of one element.
func series(element string, count int) string {
	line := func(number int, what string) string {
		return fmt.Sprintf(`{"testStepArtifact":{"testStepId":"0",%s},"sequenceNumber":%d,"timestamp":"2026-01-02T03:04:05Z"}`+"\n", what, number)
	}
	return version + start + step + line(3, `"measurementSeriesStart":{"measurementSeriesId":"s","name":"n","unit":"W","hardwareInfoId":"a"}`) + line(4, element) +
		line(5, fmt.Sprintf(`"measurementSeriesEnd":{"measurementSeriesId":"s","totalCount":%d}`, count)) + strings.Replace(stepEnd, ":3", ":6", 1) + strings.Replace(end, ":4", ":7", 1)
}

func TestProblems(t *testing.T) {
	for _, tt := range []struct{ name, output, want string }{
		{"whole", whole, ""},
		{"no end", version + start, "the run has no end"},
		{"no line feed", strings.TrimSuffix(whole, "\n"), "has no end"},
		{"no JSON", "text\n" + whole, "line 0"},
		{"a number is left out", version + start + end, "its number is another"},
		{"a step goes on", version + start + step + strings.Replace(end, ":4", ":3", 1), "steps go on"},
		{"a step that was not begun", version + start + strings.Replace(stepEnd, ":3", ":2", 1) + strings.Replace(end, ":4", ":3", 1), "before it begins"},
		{"another time", strings.Replace(whole, "2026-01-02T03:04:05.678Z", "yesterday", 1), "date-time"},
		{"another status", strings.Replace(whole, `"status":"COMPLETE","result"`, `"status":"DONE","result"`, 1), "must be one of"},
		{"a key too many", strings.Replace(whole, `"name":"n"`, `"name":"n","more":1`, 1), "more"},
		{"a key too few", strings.Replace(whole, `"parameters":{},`, "", 1), "parameters"},
		{"nested metadata", strings.Replace(whole, `"dutInfoId":"1"`, `"dutInfoId":"1","metadata":{"a":{}}`, 1), "metadata"},
		{"a part twice", strings.Replace(whole, `{"hardwareInfoId":"a","name":"a"}`, `{"hardwareInfoId":"a","name":"a"},{"hardwareInfoId":"a","name":"b"}`, 1), "two parts are a"},
		{"a part that is not there", strings.Replace(whole, `"testStepEnd":{"status":"COMPLETE"}`, `"measurement":{"name":"m","value":1,"hardwareInfoId":"b"}`, 1), "there is no part b"},
		{"a series", series(`"measurementSeriesElement":{"index":0,"value":1,"timestamp":"2026-01-02T03:04:05Z","measurementSeriesId":"s"}`, 1), ""},
		{"a series with a hole", series(`"measurementSeriesElement":{"index":1,"value":1,"timestamp":"2026-01-02T03:04:05Z","measurementSeriesId":"s"}`, 1), "no element 1 here"},
		{"an element of another series", series(`"measurementSeriesElement":{"index":0,"value":1,"timestamp":"2026-01-02T03:04:05Z","measurementSeriesId":"t"}`, 0), "series t has no element 0"},
		{"an element without a time", series(`"measurementSeriesElement":{"index":0,"value":1,"measurementSeriesId":"s"}`, 1), "timestamp"},
		{"a series that counts wrong", series(`"measurementSeriesElement":{"index":0,"value":1,"timestamp":"2026-01-02T03:04:05Z","measurementSeriesId":"s"}`, 2), "has not 2 elements"},
		{"a series without an end", strings.Replace(series(`"measurementSeriesElement":{"index":0,"value":1,"timestamp":"2026-01-02T03:04:05Z","measurementSeriesId":"s"}`, 1), `"measurementSeriesEnd":{"measurementSeriesId":"s","totalCount":1}`,
			`"error":{"symptom":"s"}`, 1), "series have no end"},
		{"nothing", "", "the run has no end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(problems([]byte(tt.output), schemas(t)), "\n")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("problems: %s\nwant %q", got, tt.want)
			}
		})
	}
}
