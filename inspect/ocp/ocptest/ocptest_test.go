// SPDX-License-Identifier: Apache-2.0

package ocptest

import (
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
