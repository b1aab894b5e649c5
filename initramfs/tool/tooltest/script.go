// SPDX-License-Identifier: Apache-2.0

// Package tooltest plays a script in place of real programs. Tests only.
package tooltest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ironhand/ironhand/initramfs/tool"
)

// Script is a tool.Runner that answers from a text, in its order:
//
//	$ busybox uname -r        a call, as tool.Line writes it
//	6.1.0                     lines of standard output
//	$ busybox false
//	2> it is false            lines of standard error
//	? 1                       exit status
//
// A call that is not the next one fails the test and returns an error.
type Script struct {
	t     testing.TB
	mu    sync.Mutex
	calls []call
	next  int
}

type call struct {
	line           string
	stdout, stderr []string
	exit           int
}

// New reads a script. When the test ends it fails if calls are left over.
func New(t testing.TB, script string) *Script {
	t.Helper()
	s := &Script{t: t}
	for n, line := range strings.Split(strings.Trim(script, "\n"), "\n") {
		line = strings.TrimLeft(line, "\t")
		if rest, ok := strings.CutPrefix(line, "$ "); ok {
			s.calls = append(s.calls, call{line: rest})
			continue
		}
		if len(s.calls) == 0 {
			if line == "" {
				continue
			}
			t.Fatalf("script line %d: %q before the first call", n+1, line)
		}
		c := &s.calls[len(s.calls)-1]
		if rest, ok := strings.CutPrefix(line, "2> "); ok {
			c.stderr = append(c.stderr, rest)
		} else if rest, ok := strings.CutPrefix(line, "? "); ok {
			exit, err := strconv.Atoi(rest)
			if err != nil {
				t.Fatalf("script line %d: exit status %q", n+1, rest)
			}
			c.exit = exit
		} else {
			c.stdout = append(c.stdout, line)
		}
	}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.calls[s.next:] {
			t.Errorf("never run: %s", c.line)
		}
	})
	return s
}

// Run implements tool.Runner.
func (s *Script) Run(ctx context.Context, t tool.Tool, args ...string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := tool.Line(t, args...)
	fail := func(exit int, stderr string, err error) error {
		return &tool.Error{Tool: t, Args: slices.Clone(args), Exit: exit, Stderr: stderr, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(-1, "", err)
	}
	want := "nothing more"
	if s.next < len(s.calls) {
		want = s.calls[s.next].line
	}
	if line != want {
		s.t.Errorf("run: %s\nwant: %s", line, want)
		return nil, fail(-1, "", fmt.Errorf("not in the script"))
	}
	c := s.calls[s.next]
	s.next++
	var out strings.Builder
	for _, l := range c.stdout {
		out.WriteString(l + "\n")
	}
	if c.exit != 0 {
		return []byte(out.String()), fail(c.exit, strings.Join(c.stderr, "\n"), fmt.Errorf("exit status %d", c.exit))
	}
	return []byte(out.String()), nil
}
