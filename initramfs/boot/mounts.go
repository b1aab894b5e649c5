// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"slices"
	"strconv"
	"strings"
)

// toUnmount reads /proc/self/mountinfo (format: proc_pid_mountinfo(5)) and returns where to unmount before the machine goes down: the last
// mounted first, and nothing that the end itself needs.
func toUnmount(mountinfo string) []string {
	keep := []string{"/", "/proc", "/sys", "/dev", "/run"}
	var targets []string
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if target := unescape(fields[4]); !slices.Contains(keep, target) {
			targets = append(targets, target)
		}
	}
	slices.Reverse(targets)
	return targets
}

// swaps reads /proc/swaps and returns the devices and files in use.
func swaps(table string) []string {
	var all []string
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "/") {
			all = append(all, unescape(strings.Fields(line)[0]))
		}
	}
	return all
}

// unescape undoes the kernel's \040 for a space and the like (mangle in fs/proc_namespace.c).
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if n, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}
