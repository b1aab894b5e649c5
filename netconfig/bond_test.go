// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
)

// procBonding is what Linux 6.1 says of a bond, cut to what matters.
const procBonding = `Ethernet Channel Bonding Driver: v6.1.0-56-amd64

Bonding Mode: IEEE 802.3ad Dynamic link aggregation
MII Status: up

802.3ad info
LACP active: on
System MAC address: 52:54:00:aa:bb:01
Active Aggregator Info:
	Aggregator ID: 1
	Partner Mac Address: 02:57:b3:10:78:83

Slave Interface: eth0
MII Status: up
Speed: 10000 Mbps
Permanent HW addr: 52:54:00:aa:bb:01
details actor lacp pdu:
    system priority: 65535
    system mac address: 52:54:00:aa:bb:01
details partner lacp pdu:
    system priority: 65535
    system mac address: 02:57:b3:10:78:83

Slave Interface: eth1
MII Status: going back
details actor lacp pdu:
    system mac address: 52:54:00:aa:bb:01
details partner lacp pdu:
    system mac address: 00:00:00:00:00:00
`

func TestParseBonding(t *testing.T) {
	const want = "[{eth0 true 02:57:b3:10:78:83} {eth1 false }]"
	if got := fmt.Sprint(parseBonding(procBonding)); got != want {
		t.Errorf("parseBonding = %s, want %s", got, want)
	}
	if got := parseBonding("no bond"); len(got) > 0 {
		t.Errorf("parseBonding of something else = %v", got)
	}
}

func TestARP(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0xbb, 1}
	probe := arpProbe(mac, netip.MustParseAddr("192.0.2.10"))
	if _, _, ok := parseARP(probe); ok || len(probe) != 28 {
		t.Errorf("a probe of %d bytes claims an address: %v", len(probe), ok)
	}
	reply := append([]byte{}, probe...)
	reply[7] = 2
	copy(reply[14:], []byte{192, 0, 2, 10})
	if got, a, ok := parseARP(reply); !ok || got != "52:54:00:aa:bb:01" || a.String() != "192.0.2.10" {
		t.Errorf("parseARP = %s, %s, %v", got, a, ok)
	}
	for name, b := range map[string][]byte{"empty": {}, "short": reply[:27], "not Ethernet": append([]byte{0, 6}, reply[2:]...)} {
		if _, _, ok := parseARP(b); ok {
			t.Errorf("%s: ok", name)
		}
	}
}

func FuzzParseARP(f *testing.F) {
	f.Add(arpProbe(net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0xbb, 1}, netip.MustParseAddr("192.0.2.10")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if mac, a, ok := parseARP(b); ok && (len(mac) != 17 || !a.Is4()) {
			t.Errorf("parseARP = %s, %s", mac, a)
		}
	})
}
