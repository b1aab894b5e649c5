// SPDX-License-Identifier: Apache-2.0

package lldp

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// switchFrame is what a switch in a data centre sends, tagged and padded, by hand after IEEE 802.1AB, 802.1Q and 802.3.
const switchFrame = "0180c200000e" + "64649b322d00" + "81000065" + "88cc" +
	"0207" + "04" + "64649b322d00" +
	"0409" + "05" + "67652d302f302f31" + // port: interface name ge-0/0/1
	"0602" + "0078" +
	"0a05" + "746f722d31" + // tor-1
	"100c" + "05" + "01" + "c6336401" + "02" + "00000001" + "00" + // management address
	"fe06" + "0080c2" + "01" + "0065" + // untagged VLAN 101
	"fe0b" + "0080c2" + "03" + "0065" + "04" + "70726f64" + // VLAN 101 prod
	"fe0b" + "0080c2" + "03" + "00c8" + "04" + "6c616232" + // VLAN 200 lab2
	"fe06" + "0080c2" + "06" + "0001" + // management VLAN
	"fe06" + "0080c2" + "04" + "01" + "88" +
	"fe06" + "00120f" + "04" + "2400" + // 9216 bytes
	"0000" + padding

const padding = "00000000000000000000"

// lldpdFrame is what lldpd 1.0.16 of Debian 12 sent on a virtual interface.
func lldpdFrame(t testing.TB) string {
	b, err := os.ReadFile("testdata/lldpd.hex")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b)), "")
}

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDescribe(t *testing.T) {
	for _, tt := range []struct{ name, frame, text, want string }{
		{"lldpd", lldpdFrame(t), "port ee:e6:03:f8:66:25 (there) of node.example (ee:e6:03:f8:66:25)",
			`{"switch_chassis_id":"ee:e6:03:f8:66:25","switch_port_id":"ee:e6:03:f8:66:25","switch_port_description":"there","switch_system_name":"node.example",` +
				`"switch_system_description":"Debian GNU/Linux 12 (bookworm)","switch_capabilities_support":["Bridge","WLAN","Router","Station only"],` +
				`"switch_capabilities_enabled":["Station only"],"switch_mgmt_addresses":["192.0.2.5","fe80::ece6:3ff:fef8:6625"],"switch_port_link_aggregation_enabled":false,` +
				`"switch_port_link_aggregation_support":true,"switch_port_autonegotiation_enabled":false,"switch_port_autonegotiation_support":false}`},
		{"switch, tagged and padded", switchFrame, "port ge-0/0/1 of tor-1 (64:64:9b:32:2d:00), VLAN 101",
			`{"switch_chassis_id":"64:64:9b:32:2d:00","switch_port_id":"ge-0/0/1","switch_system_name":"tor-1","switch_mgmt_addresses":["198.51.100.1"],` +
				`"switch_port_untagged_vlan_id":101,"switch_port_vlans":[{"id":101,"name":"prod"},{"id":200,"name":"lab2"}],` +
				`"switch_protocol_identities":["88"],"switch_port_management_vlan_id":1,"switch_port_mtu":9216}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tlvs, err := ParseFrame(unhex(t, tt.frame))
			if err != nil {
				t.Fatal(err)
			}
			n := Describe(tlvs)
			b, err := json.Marshal(n)
			if err != nil || string(b) != tt.want {
				t.Errorf("Describe =\n%s, %v, want\n%s", b, err, tt.want)
			}
			if n.String() != tt.text {
				t.Errorf("String = %q, want %q", n.String(), tt.text)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal([]TLV{{1, []byte{4, 0x64}}, {0, nil}})
	if err != nil || string(b) != `[[1,"0464"],[0,""]]` {
		t.Errorf("JSON %s, %v", b, err)
	}
	var back []TLV
	if err := json.Unmarshal(b, &back); err != nil || len(back) != 2 || back[0].Type != 1 || string(back[0].Value) != "\x04\x64" {
		t.Errorf("read back %v, %v", back, err)
	}
	for _, bad := range []string{`[[1]]`, `[[1,"0"]]`, `[["a","00"]]`, `[[300,""]]`, `[[1,"",2]]`, `[{}]`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s is read without an error", bad)
		}
	}
}

func TestParseBad(t *testing.T) {
	for _, tt := range []struct{ name, frame, want string }{
		{"nothing", "", "frame of 0 bytes has no EtherType"},
		{"IPv4", "0180c200000e5254001234560800", "EtherType is 0x0800, want 0x88cc"},
		{"cut header", "0180c200000e52540012345688cc02", "TLV is cut off in its header"},
		{"longer than the frame", "0180c200000e52540012345688ccfffe00", "TLV of type 127 says 510 bytes and has 1"},
		{"no marker", "0180c200000e52540012345688cc06020078", "no end marker"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseFrame(unhex(t, tt.frame))
			if tt.want != "" && (err == nil || err.Error() != tt.want) {
				t.Errorf("ParseFrame: %v, want %s", err, tt.want)
			}
		})
	}
	if _, err := ParseFrame(make([]byte, MaxFrame+1)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("long frame: %v", err)
	}
}

// A frame that is cut at any byte gives the TLVs before the cut, and an error.
func TestCut(t *testing.T) {
	for _, f := range []string{lldpdFrame(t), switchFrame} {
		frame := unhex(t, f)
		whole, err := ParseFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		end := len(frame)
		if f == switchFrame {
			end -= len(padding) / 2
		}
		for i := range end {
			part, err := ParseFrame(frame[:i])
			if err == nil {
				t.Fatalf("cut to %d of %d bytes: no error", i, len(frame))
			}
			for j, tlv := range part {
				if tlv.Type != whole[j].Type || string(tlv.Value) != string(whole[j].Value) {
					t.Fatalf("cut to %d bytes: TLV %d is %v, want %v", i, j, tlv, whole[j])
				}
			}
			Describe(part)
		}
		// Values that are shorter than they should be.
		for i, tlv := range whole {
			for n := range tlv.Value {
				Describe([]TLV{{tlv.Type, tlv.Value[:n]}, whole[(i+1)%len(whole)]})
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, lldpdFrame(f)))
	f.Add(unhex(f, switchFrame))
	f.Fuzz(func(t *testing.T, frame []byte) {
		tlvs, _ := ParseFrame(frame)
		n := Describe(tlvs)
		b, err := json.Marshal(n)
		if err != nil || !utf8.ValidString(n.String()) || len(b) > 16*MaxFrame {
			t.Errorf("%d bytes of JSON, %v", len(b), err)
		}
		all, err := json.Marshal(tlvs)
		if err != nil {
			t.Fatal(err)
		}
		var back []TLV
		if err := json.Unmarshal(all, &back); err != nil || len(back) != len(tlvs) {
			t.Errorf("%s: %v", all, err)
		}
	})
}
