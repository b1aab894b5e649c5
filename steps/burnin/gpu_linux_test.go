// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// A script in the place of gpu_burn, which says what that one says: no GPU is needed for this, and none is tested.
func TestGPU(t *testing.T) {
	const list = `[ "$1" = -l ] && { echo "ID 0: NVIDIA A100, 40536MB"; echo "ID 1: NVIDIA A100, 40536MB"; exit 0; }
[ "$*" = "-m 95% 60" ] || exit 7
[ -e compare.ptx ] || exit 8
printf '10.0%%  proc'"'"'d: 11 (580 Gflop/s)   errors: 0   temps: 50 C\r'
`
	type options map[string]any
	for _, test := range []struct {
		name, script string // "" for none
		options      options
		want         string // parts, or the error
	}{
		{"both are well", list + `printf 'Killing processes.. done\n\nTested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: OK\n'`, options{"agent_burnin_gpu_count": "2"}, "PASS|GPU 0|\nPASS|GPU 1|\n"},
		{"one is faulty, and the program says that all went well", list + `printf '\rTested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: FAULTY\n'`, nil, "burn-in found broken parts: GPU 1: gpu_burn says FAULTY"},
		{"one is missing", list, options{"agent_burnin_gpu_count": 3}, "burn-in found broken parts: GPUs: gpu_burn finds 2, and agent_burnin_gpu_count is 3"},
		{"no verdict", list + "echo done", nil, "gpu_burn gives no verdict"},
		{"fewer verdicts than GPUs", list + `printf 'Tested 2 GPUs:\n\tGPU 0: OK\n'`, nil, "has tested 2 GPUs, and has a verdict on 1"},
		{"none tested", list + `printf 'Tested 0 GPUs:\n'`, nil, "has tested 0 GPUs"},
		{"a verdict in front", list + `printf '\tGPU 0: OK\n'`, nil, "no verdict"},
		{"no driver", `echo "Couldn't init CUDA" >&2; exit 1`, nil, "exit status 1: Couldn't init CUDA"},
		{"no program", "", nil, "is not there: this ramdisk has no gpu_burn"},
		{"a path that leads away", list, options{"agent_burnin_gpu_install_dir": "/opt/../bin"}, "want a path without . and .."},
		{"hostile memory", list, options{"agent_burnin_gpu_memory": "1 -x"}, "want a share such as 95%"},
		{"no time", list, options{"agent_burnin_gpu_timeout": 0}, "want 1 or more"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if test.script != "" {
				for name, content := range map[string]string{"gpu_burn": "#!/bin/sh\n" + test.script, "compare.ptx": ""} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
						t.Fatal(err)
					}
				}
			}
			given := options{"agent_burnin_gpu_timeout": 60, "agent_burnin_gpu_install_dir": dir}
			for name, v := range test.options {
				given[name] = v
			}
			h := steps.Host{Machine: inspect.Machine{FS: machine()}, Log: slog.New(slog.DiscardHandler), Say: t.Logf}
			result, err := GPU(t.Context(), h, steps.Job{Node: node(given, "")})
			got := fmt.Sprint(err)
			if err == nil {
				got = lines(result.(Report).Parts)
			}
			if err == nil && got != test.want || !strings.Contains(got, test.want) {
				t.Errorf("GPU() = %s, want %s", got, test.want)
			}
		})
	}
}

// A step that is aborted leaves no child of the program behind.
func TestGPUAborted(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gpu_burn"), []byte("#!/bin/sh\nsleep 300 &\necho $! > child.new\nmv child.new child\nwait\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var child []byte
	go func() { // aborted once the child is there
		defer cancel()
		for err := error(os.ErrNotExist); err != nil && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			child, err = os.ReadFile(filepath.Join(dir, "child"))
		}
	}()
	if _, err := runProgram(ctx, dir, gpuProgram); err == nil || ctx.Err() == nil {
		t.Fatalf("error %v", err)
	}
	if len(child) == 0 {
		t.Fatal("the program has not started its child")
	}
	for range 200 {
		b, err := os.ReadFile("/proc/" + strings.TrimSpace(string(child)) + "/stat")
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("the program's child still runs")
}

func FuzzGPU(f *testing.F) {
	f.Add([]byte("\rTested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: FAULTY\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		if parts, err := parseGPUs(out); err == nil && len(parts) == 0 {
			t.Error("no GPU, and no error")
		}
	})
}
