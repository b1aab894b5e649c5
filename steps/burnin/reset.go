// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Crash is what a kernel has said at its end, and the firmware has kept.
type Crash struct {
	Name string // of the record: dmesg-erst-7401523498172678145
	Text []byte
}

// bootID names the start of the machine. Source: Linux Documentation/admin-guide/sysctl/kernel.rst, random.
func bootID(root fs.FS) string { return text(root, "proc/sys/kernel/random/boot_id") }

// resetCauses are what watchdogs know of the last start. Source: Linux include/uapi/linux/watchdog.h, WDIOF_.
var resetCauses = []struct {
	bit  int64
	text string
}{
	{0x01, "the machine was too hot"}, {0x02, "a fan has failed"}, {0x04, "a line from outside"}, {0x08, "a second line from outside"},
	{0x10, "the voltage was too low"}, {0x20, "the machine hung, and the watchdog was not fed any more"}, {0x40, "the voltage was too high"},
}

// watchdogs says why the machine was started, as far as its watchdogs know. Source: Linux Documentation/ABI/testing/sysfs-class-watchdog.
func watchdogs(root fs.FS) (reasons []string) {
	for _, file := range glob(root, "sys/class/watchdog/watchdog*/bootstatus") {
		status, err := strconv.ParseInt(text(root, file), 10, 64)
		if err != nil {
			continue
		}
		for _, c := range resetCauses {
			if status&c.bit != 0 {
				reasons = append(reasons, fmt.Sprintf("the watchdog %s says why: %s", cmp.Or(text(root, path.Dir(file)+"/identity"), path.Base(path.Dir(file))), c.text))
			}
		}
	}
	return reasons
}

// Crash dumps of which more is not read.
const (
	mostCrashes = 32
	mostCrash   = 256 << 10 // bytes
)

// crashes are the dumps that firmware or memory has kept over resets. Source: Linux Documentation/ABI/testing/pstore.
func crashes(root fs.FS) (list []Crash) {
	for _, file := range glob(root, "sys/fs/pstore/dmesg-*") {
		if len(list) == mostCrashes {
			break
		}
		f, err := root.Open(file)
		if err != nil {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(f, mostCrash))
		f.Close() // only read
		if err == nil {
			list = append(list, Crash{path.Base(file), b})
		}
	}
	return list
}

// lastWords is the line of a crash dump that says most.
var lastWords = []*regexp.Regexp{
	regexp.MustCompile(`Kernel panic - not syncing: [^\n]*`), regexp.MustCompile(`(?:BUG|Oops|kernel BUG)[: ][^\n]*`), regexp.MustCompile(`[^\n]*\[Hardware Error\][^\n]*`),
}

func (c Crash) lastWords() string {
	for _, expr := range lastWords {
		if line := expr.Find(c.Text); line != nil {
			return strings.ToValidUTF8(string(line[:min(len(line), longestMessage)]), "?")
		}
	}
	return ""
}

// interruption is the finding of why the run was interrupted; none if somebody stopped it.
func (s State) interruption(boot string, causes []string, fresh []Crash) (Part, bool) {
	where := fmt.Sprintf("between two loads, after %d of %d", len(s.Done), len(s.Loads))
	if s.Running != nil {
		where = fmt.Sprintf("in the middle of %s, %v after its start", s.Running.Load, s.Running.Past.Round(time.Second))
	}
	p := Part{Name: "machine", Reasons: []string{}}
	switch {
	case s.Stopped:
		return p, false
	case boot == s.Boot:
		p.Reasons = append(p.Reasons, "the burn-in ended without a word "+where+"; the machine was not reset")
		return p, true
	}
	p.Verdict = Fail
	p.Reasons = append(p.Reasons, fmt.Sprintf("the machine was reset %s; the last that was kept is of %s", where, s.Written.Format(time.RFC3339)))
	p.Reasons = append(p.Reasons, causes...)
	for _, c := range fresh {
		p.Reasons = append(p.Reasons, strings.TrimSuffix("the kernel that ran has left the dump "+c.Name+": "+c.lastWords(), ": "))
	}
	return p, true
}
