// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// suffixNumber returns 12 for cpu12.
func suffixNumber(name, prefix string) (int, bool) {
	digits, found := strings.CutPrefix(name, prefix)
	n, err := strconv.Atoi(digits)
	return n, found && err == nil && n >= 0
}

// nodeMemory returns MemTotal in KiB of a node's meminfo: Node 0 MemTotal: 65838184 kB.
func nodeMemory(b []byte) (kb int64, ok bool) {
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 5 && f[2] == "MemTotal:" && f[4] == "kB" {
			kb, err := strconv.ParseInt(f[3], 10, 64)
			return kb, err == nil && kb >= 0
		}
	}
	return 0, false
}
