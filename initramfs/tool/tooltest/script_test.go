// SPDX-License-Identifier: Apache-2.0

package tooltest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ironhand/ironhand/initramfs/tool"
)

// recorder is a testing.TB that notes failures.
type recorder struct {
	testing.TB
	errors  []string
	cleanup []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }

func TestScript(t *testing.T) {
	var runner tool.Runner = New(t, `
		$ busybox uname "-r -s"
		6.1.0
		  Linux
		$ busybox false
		2> it is false
		? 1
		$ busybox true`)
	out, err := runner.Run(t.Context(), tool.Busybox, "uname", "-r -s")
	if string(out) != "6.1.0\n  Linux\n" || err != nil {
		t.Errorf("first call = %q, %v", out, err)
	}
	_, err = runner.Run(t.Context(), tool.Busybox, "false")
	var failed *tool.Error
	if !errors.As(err, &failed) || failed.Exit != 1 || err.Error() != "busybox false: exit status 1: it is false" {
		t.Errorf("second call: %v", err)
	}
	if out, err := runner.Run(t.Context(), tool.Busybox, "true"); len(out) != 0 || err != nil {
		t.Errorf("third call = %q, %v", out, err)
	}
}

func TestScriptFails(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(s *Script) error
		want int // failures of the test
	}{
		{"another call", func(s *Script) error { _, err := s.Run(context.Background(), tool.Busybox, "false"); return err }, 2},
		{"call left over", func(*Script) error { return errors.New("none") }, 1},
		{"one call too many", func(s *Script) error {
			_, err := s.Run(context.Background(), tool.Busybox, "true")
			if err != nil {
				return nil
			}
			_, err = s.Run(context.Background(), tool.Busybox, "true")
			return err
		}, 1},
		{"context over", func(s *Script) error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, err := s.Run(ctx, tool.Busybox, "true")
			return err
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &recorder{TB: t}
			s := New(r, "$ busybox true")
			err := c.run(s)
			for _, f := range r.cleanup {
				f()
			}
			if err == nil || len(r.errors) != c.want {
				t.Errorf("error %v and %d failures %q, want %d", err, len(r.errors), r.errors, c.want)
			}
		})
	}
}
