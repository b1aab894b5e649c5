// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"fmt"
	"strconv"
	"strings"
)

// contentRange is the header of that name: the bytes first to last, both included, of total; total is -1 if the server does not
// know it.
type contentRange struct{ first, last, total int64 }

// parseContentRange reads `bytes 10-99/100` or `bytes 10-99/*` (RFC 9110, 14.4).
func parseContentRange(s string) (contentRange, error) {
	bad := fmt.Errorf("Content-Range %.80q does not make sense", s)
	unit, rest, _ := strings.Cut(s, " ")
	part, total, slash := strings.Cut(rest, "/")
	first, last, dash := strings.Cut(part, "-")
	if !strings.EqualFold(unit, "bytes") || !slash || !dash {
		return contentRange{}, bad
	}
	r := contentRange{total: -1}
	var ok1, ok2, ok3 bool
	r.first, ok1 = parseBytes(first)
	r.last, ok2 = parseBytes(last)
	if ok3 = total == "*"; !ok3 {
		r.total, ok3 = parseBytes(total)
	}
	if !ok1 || !ok2 || !ok3 || r.first > r.last || r.total >= 0 && r.last >= r.total {
		return contentRange{}, bad
	}
	return r, nil
}

// parseBytes reads digits only, where strconv would take a sign as well.
func parseBytes(s string) (int64, bool) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
