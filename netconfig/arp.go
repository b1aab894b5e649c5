// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// arpProbe is a question for an address by somebody who has none yet (RFC 826; RFC 5227,
// section 1.1).
func arpProbe(own net.HardwareAddr, a netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, a request
	b = append(b, own...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(b, a.AsSlice()...)
}

// parseARP returns who says which address to be his; not of a probe, whose sender claims none.
func parseARP(b []byte) (MAC, netip.Addr, bool) {
	if len(b) < 28 || binary.BigEndian.Uint64(b)>>16 != 0x0001_0800_0604 {
		return "", netip.Addr{}, false
	}
	a := netip.AddrFrom4([4]byte(b[14:18]))
	return MAC(net.HardwareAddr(b[8:14]).String()), a, !a.IsUnspecified()
}
