// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/ironhand/ironhand/inspect"
)

func TestLivingPath(t *testing.T) {
	for _, tt := range []struct {
		name, paths string // with "!" behind those that the kernel does not use
		errs        map[string]error
		want        string // the disk with its paths, and those that are dead
	}{
		{"one path is not read", "a", map[string]error{"a": syscall.EIO}, "a []"},
		{"all work", "a b", nil, "a [b]"},
		{"the first is dead", "a b", map[string]error{"a": fmt.Errorf("read a: %w", syscall.EIO)}, "b [] a (read a: input/output error)"},
		{"the second is dead", "a b c", map[string]error{"b": syscall.ENOLINK}, "a [c] b (link has been severed)"},
		{"the first is not used", "a! b c", nil, "b [c] a (offline)"},
		{"only the last works", "a! b c", map[string]error{"b": syscall.ENXIO}, "c [] a (offline) b (no such device or address)"},
		{"a bad sector is the disk's", "a b", map[string]error{"a": syscall.ENODATA}, "a [b]"},
		{"no answer is no proof", "a b", map[string]error{"a": errors.New("no answer")}, "a [b]"},
		{"none can be read", "a! b c", map[string]error{"b": syscall.EIO, "c": syscall.EIO}, "b [c] a (offline)"},
		{"none is used", "a! b!", nil, "a [b]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var all []inspect.Disk
			for name := range strings.FieldsSeq(tt.paths) {
				name, off := strings.CutSuffix(name, "!")
				d := inspect.Disk{Name: name}
				if off {
					d.State = "offline"
				}
				all = append(all, d)
			}
			all[0].Paths = all[1:]
			living, dead := LivingPath(all[0], func(path string) error { return tt.errs[path] })
			got := fmt.Sprint(living.Name, " ", living.Names()[1:])
			for _, p := range dead {
				got += fmt.Sprintf(" %s (%s)", p.Name, p.Why)
			}
			if got != tt.want {
				t.Errorf("LivingPath() = %s, want %s", got, tt.want)
			}
		})
	}
}
