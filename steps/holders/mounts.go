// SPDX-License-Identifier: Apache-2.0

package holders

import (
	"slices"
	"strconv"
	"strings"
)

// mountLine is a line of /proc/self/mountinfo, proc_pid_mountinfo(5).
type mountLine struct {
	id, parent, number, point, source string
}

func parseMounts(mountinfo []byte) []mountLine {
	var mounts []mountLine
	for line := range strings.Lines(string(mountinfo)) {
		mount, filesystem, _ := strings.Cut(line, " - ")
		f, s := strings.Fields(mount), strings.Fields(filesystem)
		if len(f) < 5 || len(s) < 2 {
			continue
		}
		mounts = append(mounts, mountLine{f[0], f[1], f[2], unescape(f[4]), unescape(s[1])})
	}
	return mounts
}

// own tells whether what is mounted is on the device: by its number, or by its name where a file system has a number of its own (btrfs).
func (m mountLine) own(d *Device) bool {
	if m.number == d.Number || slices.Contains(d.aliases, m.source) {
		return true
	}
	name, inDev := strings.CutPrefix(m.source, "/dev/")
	return inDev && slices.Contains(d.btrfs, strings.ReplaceAll(name, "/", "!"))
}

// mountsOf returns where the device is mounted, and what is mounted below that, in the order of unmounting.
func (r *reader) mountsOf(d *Device) []mountLine {
	var list []mountLine
	seen := map[string]bool{}
	var add func(m mountLine)
	add = func(m mountLine) {
		if seen[m.id] {
			return
		}
		seen[m.id] = true
		for _, child := range slices.Backward(r.mounts) {
			if child.parent == m.id && child.id != m.id {
				add(child)
			}
		}
		list = append(list, m)
	}
	for _, m := range slices.Backward(r.mounts) {
		if m.own(d) {
			add(m)
		}
	}
	return list
}

// mountOf returns the id of the mount that a file lies on: the last one with the longest point.
func (r *reader) mountOf(file string) string {
	id, longest := "", -1
	for _, m := range r.mounts {
		if len(m.point) >= longest && (file == m.point || strings.HasPrefix(file, m.point+"/") || m.point == "/") {
			id, longest = m.id, len(m.point)
		}
	}
	return id
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
