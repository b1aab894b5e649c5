// SPDX-License-Identifier: Apache-2.0

package tool

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// programs returns an Exec whose only program is a shell script.
func programs(t *testing.T, script string) Exec {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "busybox"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return Exec{Dirs: []string{dir}}
}

func TestExec(t *testing.T) {
	for _, c := range []struct {
		name, script string
		args         []string
		want, err    string
		exit         int
	}{
		{name: "output", script: `echo "$@"`, args: []string{"a b", "$HOME", "*"}, want: "a b $HOME *\n"},
		{name: "clean environment", script: `unset PWD OLDPWD SHLVL _; /usr/bin/env | /usr/bin/sort | /usr/bin/sed 's,/.*,DIR,'`, want: "LC_ALL=C\nPATH=DIR\n"},
		{name: "empty input", script: `/bin/cat; echo end`, want: "end\n"},
		{name: "standard error of a success", script: `echo noise >&2`, want: ""},
		{name: "exit status", script: `echo out; echo "  no such
array" >&2; exit 3`, args: []string{"--stop", "/dev/md 0"}, want: "out\n", err: `busybox --stop "/dev/md 0": exit status 3: no such; array`, exit: 3},
		{name: "killed by a signal", script: `kill -9 $$`, err: "busybox: signal: killed", exit: -1},
		{name: "endless output", script: `exec /usr/bin/yes`, err: "wrote more than 4194304 bytes", exit: -1},
		{name: "endless standard error", script: `/usr/bin/head -c 1000000 /dev/zero | /usr/bin/tr '\0' x >&2; echo last >&2; exit 1`, err: "xlast", exit: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := programs(t, c.script).Run(t.Context(), Busybox, c.args...)
			if string(got) != c.want {
				t.Errorf("stdout %q, want %q", got, c.want)
			}
			if c.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var failed *Error
			if !errors.As(err, &failed) || !strings.Contains(err.Error(), c.err) || failed.Exit != c.exit {
				t.Fatalf("error %v, want %q with exit status %d", err, c.err, c.exit)
			}
			if len(failed.Stderr) > maxStderr {
				t.Errorf("%d bytes of standard error kept", len(failed.Stderr))
			}
		})
	}
}

func TestExecRefuses(t *testing.T) {
	if _, err := programs(t, "exit 0").Run(t.Context(), Tool("sh"), "-c", "id"); err == nil || !strings.Contains(err.Error(), "not in the list") {
		t.Errorf("a program outside the list: %v", err)
	}
	empty := Exec{Dirs: []string{t.TempDir()}}
	if _, err := empty.Run(t.Context(), Busybox); !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "busybox-static") {
		t.Errorf("a program that is missing: %v", err)
	}
}

func TestExecContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := programs(t, "exec /bin/sleep 1000").Run(ctx, Busybox)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestList(t *testing.T) {
	for _, tool := range All() {
		if tool.Package() == "" || !strings.HasPrefix(tool.Path(), "/") {
			t.Errorf("%s: package %q, path %q", tool, tool.Package(), tool.Path())
		}
	}
}
