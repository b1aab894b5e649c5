// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// gpuProgram is what burns in GPUs: https://github.com/wilicc/gpu-burn. It needs CUDA and its vendor's driver, so it is in a ramdisk only if somebody puts it there.
const gpuProgram = "gpu_burn"

// gpuSpare is how much longer than asked for it may take: it compares once more at its end.
const gpuSpare = 30 * time.Minute

var (
	gpuMemory = regexp.MustCompile(`^[0-9]{1,9}%?$`)
	// gpuVerdict is a line of what the program says at its end.
	gpuVerdict = regexp.MustCompile(`(?m)^[ \t]*GPU ([0-9]{1,4}): (OK|FAULTY)[ \t\r]*$`)
	gpuTested  = regexp.MustCompile(`(?m)^Tested ([0-9]{1,4}) GPUs:`)
)

// runIn runs a program that is no part of the ramdisk's list in its own directory, and returns the end of what it said. No child of it is left behind.
type runIn func(ctx context.Context, dir, program string, args ...string) (out []byte, err error)

// GPU is the step burnin_gpu.
func GPU(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	return burnGPUs(ctx, h, j, runProgram)
}

func burnGPUs(ctx context.Context, h steps.Host, j steps.Job, run runIn) (any, error) {
	r := newReader(j.Node)
	dir := r.text("agent_burnin_gpu_install_dir", "/opt/gpu-burn", files, "the path of a directory, from the root")
	lasts, count := r.seconds("agent_burnin_gpu_timeout", 24*time.Hour), r.number("agent_burnin_gpu_count", 0)
	memory := r.text("agent_burnin_gpu_memory", "95%", gpuMemory, "a share such as 95%, or MB")
	if path.Clean(dir) != dir {
		r.fail("agent_burnin_gpu_install_dir", dir, "a path without . and ..")
	}
	if r.err == nil && lasts == 0 {
		r.fail("agent_burnin_gpu_timeout", 0, "1 or more")
	}
	if r.err != nil {
		return nil, r.err
	}
	if count > 0 { // so the program is asked first, as by ironic-python-agent
		out, err := run(ctx, dir, gpuProgram, "-l")
		if err != nil {
			return nil, err
		}
		if found := countGPUs(out); found != count {
			return nil, fmt.Errorf("%w: GPUs: %s finds %d, and agent_burnin_gpu_count is %d", steps.ErrBurnIn, gpuProgram, found, count)
		}
	}
	newReport(h, "GPUs", "")
	return do(ctx, h, load{
		part:  "GPUs",
		text:  fmt.Sprintf("GPUs for %v: %s -m %s", lasts, path.Join(dir, gpuProgram), memory),
		lasts: lasts,
		run: func(ctx context.Context) ([]Part, error) {
			limit := lasts + gpuSpare
			ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %v", limit))
			defer cancel()
			out, err := run(ctx, dir, gpuProgram, "-m", memory, strconv.Itoa(int(lasts.Seconds())))
			if err != nil {
				return nil, err
			}
			return parseGPUs(out)
		},
	})
}

// countGPUs counts what the program lists.
func countGPUs(out []byte) (n int64) {
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "ID") {
			n++
		}
	}
	return n
}

// parseGPUs reads the verdicts. The program exits with 0 also if a GPU is faulty.
func parseGPUs(out []byte) ([]Part, error) {
	said := strings.ReplaceAll(string(out), "\r", "\n")
	tested := gpuTested.FindStringSubmatchIndex(said)
	if tested == nil {
		return nil, errors.New(gpuProgram + " gives no verdict at its end")
	}
	want, err := strconv.Atoi(said[tested[2]:tested[3]])
	if err != nil {
		return nil, err
	}
	var parts []Part
	for _, m := range gpuVerdict.FindAllStringSubmatch(said[tested[1]:], -1) {
		p := Part{Name: "GPU " + m[1], Verdict: Pass, Reasons: []string{}}
		if m[2] != "OK" {
			p.Verdict, p.Reasons = Fail, []string{gpuProgram + " says " + m[2]}
		}
		parts = append(parts, p)
	}
	if len(parts) != want || want == 0 {
		return nil, fmt.Errorf("%s has tested %d GPUs, and has a verdict on %d", gpuProgram, want, len(parts))
	}
	return parts, nil
}
