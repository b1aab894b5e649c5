// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
)

// stressing is a stress-ng that works for a second, and keeps its log.
type stressing struct{ err error }

func (s *stressing) Run(_ context.Context, t tool.Tool, args ...string) ([]byte, error) {
	if args[0] == "--version" {
		return nil, nil
	}
	time.Sleep(1100 * time.Millisecond)
	if s.err != nil {
		return nil, s.err
	}
	log := args[slices.Index(args, "--log-file")+1]
	return []byte("- stressor: cpu\n  bogo-ops-per-second-real-time: 1.5\n"), os.WriteFile(log, []byte("stress-ng: successful run, token=hunter2\n"), 0o600)
}

// What a step of burn-in has found comes to the conductor with the logs, as the directory that a person gets.
func TestBurnInReportAmongLogs(t *testing.T) { synctest.Test(t, burnInReportAmongLogs) }

func burnInReportAmongLogs(t *testing.T) {
	s := &stressing{}
	a, do, _, _ := commandAgent(t, System{
		Machine: inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/virtio.txt")}, Tools: s,
		Network: func() (netconfig.Kernel, error) { return still{}, nil }, KernelLog: func() ([]byte, error) { return nil, nil },
	})
	var err error
	if a.set, err = steps.NewSet(t.Context(), a.host, []steps.Manager{generic.Manager{}}); err != nil {
		t.Fatal(err)
	}
	const dir = "reports/burnin-processors/"
	burn := func() Result {
		return do("clean.execute_clean_step", `{"step": {"interface": "deploy", "step": "burnin_cpu", "args": {}}, "node": {"uuid": "n1", "driver_info": {"agent_burnin_cpu_timeout": 1}}, "ports": []}`)
	}
	if r := burn(); r.Status != Succeeded {
		t.Fatal(r.text())
	}
	if err := os.WriteFile(filepath.Join(a.state.reportDir(), "large"), noise(maxLogFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	files := unpackLogs(t, do("log.collect_system_logs", `{}`))
	wantText(t, "report.html", files[dir+"report.html"], "<b>PASS</b>", "ironhand test", "</html>")
	wantText(t, "the program's log", files[dir+"logs/processors"], "successful run, token=***")
	wantText(t, "errors", files["errors"], "reports/large: left out, it has more than")
	wantText(t, "results.json", files[dir+"results.json"], `"verdict":"PASS"`)
	wantText(t, "results.jsonl", files[dir+"results.jsonl"], `"result":"PASS"`)

	// A step that fails has one, too, in the place of the one before.
	for _, test := range []struct {
		err  error
		want []string
	}{
		{&tool.Error{Tool: tool.StressNG, Exit: 2, Err: errors.New("exit status 2")}, []string{"<b>FAIL</b>", "stress-ng: exit status 2"}},
		{&tool.Error{Tool: tool.StressNG, Exit: 1, Err: errors.New("exit status 1")}, []string{"<b>SKIPPED</b>", "What kept the test from its end", "stress-ng: exit status 1"}},
	} {
		s.err = test.err
		if r := burn(); r.Status != Failed {
			t.Fatal(r.text())
		}
		files := unpackLogs(t, do("log.collect_system_logs", `{}`))
		wantText(t, "report.html", files[dir+"report.html"], test.want...)
		if log, old := files[dir+"logs/processors"]; old && log != "" {
			t.Errorf("the log of the step before: %s", log)
		}
		var r struct{ Verdict string }
		if err := json.Unmarshal([]byte(files[dir+"results.json"]), &r); err != nil || !strings.Contains(test.want[0], r.Verdict) {
			t.Errorf("results.json says %q, %v", r.Verdict, err)
		}
	}
	// A directory that cannot be made takes nothing from the verdict.
	if err := errors.Join(os.RemoveAll(a.state.reportDir()), os.WriteFile(a.state.reportDir(), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.err = &tool.Error{Tool: tool.StressNG, Exit: 2, Err: fmt.Errorf("exit status 2")}
	if r := burn(); r.Status != Failed || !strings.Contains(r.text(), "burn-in found broken parts") {
		t.Error(r.text())
	}
}
