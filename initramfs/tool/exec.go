// SPDX-License-Identifier: Apache-2.0

package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

const (
	maxStdout = 4 << 20         // bytes; a list of all that lvm knows is far smaller
	maxStderr = 4 << 10         // bytes; the end is kept
	killDelay = 5 * time.Second // from the end of the context, or of the program, to giving up on its pipes
)

// Exec runs the programs of this machine. Programs start with an empty standard input and with an environment of PATH
// and LC_ALL=C alone. A program is killed when the context ends. The zero value is ready for use.
type Exec struct {
	// Dirs are searched for programs, in order. Nil stands for /usr/sbin, /usr/bin, /sbin and /bin, which is right in
	// the ramdisk and elsewhere.
	Dirs []string
}

// Run implements Runner. A standard output of more than 4 MiB is an error.
func (e Exec) Run(ctx context.Context, t Tool, args ...string) ([]byte, error) {
	return e.run(ctx, nil, t, args...)
}

// run runs a program, if need be as one of a group that can be halted.
func (e Exec) run(ctx context.Context, halts *Halting, t Tool, args ...string) ([]byte, error) {
	fail := func(exit int, stderr string, err error) error {
		return &Error{Tool: t, Args: slices.Clone(args), Exit: exit, Stderr: stderr, Err: err}
	}
	path, err := e.find(t)
	if err != nil {
		return nil, fail(-1, "", err)
	}
	stdout, stderr := &head{max: maxStdout}, &end{max: maxStderr}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=" + strings.Join(e.dirs(), ":"), "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = killDelay
	if halts == nil {
		err = cmd.Run()
	} else {
		err = halts.run(cmd)
	}
	message := strings.TrimSpace(string(stderr.b))
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, fail(-1, message, context.Cause(ctx))
	case stdout.cut && err != nil: // it was stopped by its broken pipe
		return nil, fail(-1, message, fmt.Errorf("wrote more than %d bytes", maxStdout))
	case err != nil:
		exit := -1
		if cmd.ProcessState != nil {
			exit = cmd.ProcessState.ExitCode()
		}
		return stdout.b.Bytes(), fail(exit, message, err)
	}
	return stdout.b.Bytes(), nil
}

func (e Exec) dirs() []string {
	if e.Dirs == nil {
		return []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	}
	return e.Dirs
}

func (e Exec) find(t Tool) (string, error) {
	if !slices.Contains(All(), t) {
		return "", errors.New("not in the list of programs")
	}
	for _, dir := range e.dirs() {
		path := dir + "/" + string(t)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w in %s (Debian has it in package %s)", exec.ErrNotFound, strings.Join(e.dirs(), ":"), t.Package())
}

// head keeps the beginning of what is written to it; the writer of more gets an error.
type head struct {
	b   bytes.Buffer
	max int
	cut bool
}

func (h *head) Write(p []byte) (int, error) {
	if h.b.Len()+len(p) > h.max {
		h.cut = true
		return 0, errors.New("too much output")
	}
	return h.b.Write(p)
}

// end keeps the end of what is written to it.
type end struct {
	b   []byte
	max int
}

func (e *end) Write(p []byte) (int, error) {
	e.b = append(e.b, p...)
	if over := len(e.b) - e.max; over > 0 {
		e.b = append(e.b[:0], e.b[over:]...)
	}
	return len(p), nil
}
