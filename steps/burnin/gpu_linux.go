// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"
)

// mostSaid is how much of the end of a program's output is kept, bytes.
const mostSaid = 64 << 10

// runProgram is [runIn] on this machine. The program has an environment of PATH and LC_ALL=C alone, and a group of processes of its own, for it starts one for each GPU.
func runProgram(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	file := path.Join(dir, program)
	switch info, err := os.Stat(file); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is not there: this ramdisk has no %s; it has to be built with CUDA and its libraries and added to the ramdisk, with the driver of the GPUs: %w", file, program, err)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return nil, fmt.Errorf("%s is no program", file)
	}
	out, problems := &lastBytes{}, &lastBytes{}
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = out, problems
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s: %w: %.300s", file, err, strings.Join(strings.Fields(string(problems.b)), " "))
	}
	return out.b, nil
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct{ b []byte }

func (l *lastBytes) Write(p []byte) (int, error) {
	l.b = append(l.b, p...)
	if over := len(l.b) - mostSaid; over > 0 {
		l.b = append(l.b[:0], l.b[over:]...)
	}
	return len(p), nil
}
