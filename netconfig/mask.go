// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// parseMask reads a mask for the family of a, and returns its length.
func parseMask(raw json.RawMessage, a netip.Addr) (int, error) {
	s := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &s); err != nil {
			return 0, err
		}
	}
	return parseMaskText(s, a)
}

// parseMaskText reads a mask as people write it.
func parseMaskText(s string, a netip.Addr) (int, error) {
	if !strings.ContainsAny(s, ".:") {
		return parseLength(s, a)
	}
	m, err := netip.ParseAddr(s)
	if err != nil || m.Zone() != "" {
		return 0, fmt.Errorf("%s is not a mask", quote(s))
	}
	if m.BitLen() != a.BitLen() {
		return 0, fmt.Errorf("%s is not a mask for %s", m, a)
	}
	b := m.As16()
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	if m.Is4() {
		high, low = low<<32, 0 // the last four bytes
	}
	n := bits.LeadingZeros64(^high)
	if n == 64 {
		n += bits.LeadingZeros64(^low)
	}
	if ones, err := m.Prefix(n); err != nil || ones.Addr() != m {
		return 0, fmt.Errorf("%s is not a mask: its ones are not all in front", m)
	}
	return n, nil
}

// parseLength reads a prefix length for the family of a.
func parseLength(s string, a netip.Addr) (int, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%s is not a mask", quote(s))
	}
	if int(n) > a.BitLen() {
		return 0, fmt.Errorf("/%d, want /%d at most", n, a.BitLen())
	}
	return int(n), nil
}
