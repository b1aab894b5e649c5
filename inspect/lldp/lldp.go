// SPDX-License-Identifier: Apache-2.0

// Package lldp reads what switches announce about themselves (IEEE 802.1AB): which switch and which port a cable leads to. It sends nothing.
// Frames are hostile bytes: whatever is cut off or garbled is left out and named.
package lldp

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// EtherType is that of LLDP frames.
const EtherType = 0x88cc

// MaxFrame is how long a frame may be, in bytes: a TLV has at most 511, and no frame is larger than a jumbo frame.
const MaxFrame = 9216

// A TLV is one piece of an announcement. In JSON it is an array of two: [1, "0464649b322d00"].
type TLV struct {
	Type  byte // 0 to 127
	Value []byte
}

// MarshalJSON implements [json.Marshaler].
func (t TLV) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%q]", t.Type, hex.EncodeToString(t.Value)), nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (t *TLV) UnmarshalJSON(b []byte) error {
	var value string
	pair := []any{&t.Type, &value}
	if err := json.Unmarshal(b, &pair); err != nil {
		return fmt.Errorf("read LLDP TLV: %w", err)
	}
	if len(pair) != 2 {
		return fmt.Errorf("read LLDP TLV: array of %d, want 2", len(pair))
	}
	var err error
	t.Value, err = hex.DecodeString(value)
	return err
}

// ParseFrame splits a frame with its Ethernet header, and perhaps a VLAN tag, into TLVs; the end marker is one of them. With an error come those
// before what is broken.
func ParseFrame(frame []byte) ([]TLV, error) {
	if len(frame) > MaxFrame {
		return nil, fmt.Errorf("frame of %d bytes is too long", len(frame))
	}
	at := 12
	for range 2 { // a tag, or two
		if len(frame) >= at+2 && slices.Contains([]uint16{0x8100, 0x88a8}, binary.BigEndian.Uint16(frame[at:])) {
			at += 4
		}
	}
	if len(frame) < at+2 {
		return nil, fmt.Errorf("frame of %d bytes has no EtherType", len(frame))
	}
	if kind := binary.BigEndian.Uint16(frame[at:]); kind != EtherType {
		return nil, fmt.Errorf("EtherType is %#04x, want %#04x", kind, EtherType)
	}
	return Parse(frame[at+2:])
}

// Parse is ParseFrame for what follows the Ethernet header. After the end marker comes padding.
func Parse(b []byte) ([]TLV, error) {
	tlvs := []TLV{}
	for len(b) > 0 {
		if len(b) < 2 {
			return tlvs, errors.New("TLV is cut off in its header")
		}
		head := binary.BigEndian.Uint16(b)
		kind, length := byte(head>>9), int(head&0x1ff)
		if len(b) < 2+length {
			return tlvs, fmt.Errorf("TLV of type %d says %d bytes and has %d", kind, length, len(b)-2)
		}
		tlvs = append(tlvs, TLV{kind, slices.Clone(b[2 : 2+length])})
		b = b[2+length:]
		if kind == 0 {
			return tlvs, nil
		}
	}
	return tlvs, errors.New("no end marker")
}

// A Neighbour is what an announcement says. The keys are those under which Ironic's inspection hook parse-lldp keeps them
// (ironic/drivers/modules/inspector/hooks/parse_lldp.py); what was not announced is left out.
type Neighbour struct {
	ChassisID         string   `json:"switch_chassis_id,omitempty"` // MAC address, or text
	PortID            string   `json:"switch_port_id,omitempty"`
	PortDescription   string   `json:"switch_port_description,omitempty"`
	SystemName        string   `json:"switch_system_name,omitempty"`
	SystemDescription string   `json:"switch_system_description,omitempty"`
	Supported         []string `json:"switch_capabilities_support,omitempty"`
	Enabled           []string `json:"switch_capabilities_enabled,omitempty"`
	Management        []string `json:"switch_mgmt_addresses,omitempty"`
	UntaggedVLAN      int      `json:"switch_port_untagged_vlan_id,omitempty"`
	VLANs             []VLAN   `json:"switch_port_vlans,omitempty"`
	Protocols         []string `json:"switch_protocol_identities,omitempty"`
	ManagementVLAN    int      `json:"switch_port_management_vlan_id,omitempty"`
	Aggregation       *bool    `json:"switch_port_link_aggregation_enabled,omitempty"`
	CanAggregate      *bool    `json:"switch_port_link_aggregation_support,omitempty"`
	AggregationID     int      `json:"switch_port_link_aggregation_id,omitempty"`
	Negotiates        *bool    `json:"switch_port_autonegotiation_enabled,omitempty"`
	CanNegotiate      *bool    `json:"switch_port_autonegotiation_support,omitempty"`
	MTU               int      `json:"switch_port_mtu,omitempty"` // bytes
}

// A VLAN is one that the port carries.
type VLAN struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// String says where the cable leads, in one line: port ge-0/0/1 of switch tor-1 (64:64:9b:32:2d:00), VLAN 101.
func (n Neighbour) String() string {
	s := "port " + n.PortID
	if n.PortDescription != "" && n.PortDescription != n.PortID {
		s += " (" + n.PortDescription + ")"
	}
	switch {
	case n.SystemName != "" && n.ChassisID != "":
		s += " of " + n.SystemName + " (" + n.ChassisID + ")"
	default:
		s += " of " + n.SystemName + n.ChassisID
	}
	if n.UntaggedVLAN != 0 {
		s += fmt.Sprintf(", VLAN %d", n.UntaggedVLAN)
	}
	return s
}

// Organisations of TLVs of type 127.
const (
	ieee8021 = 0x0080c2
	ieee8023 = 0x00120f
)

// Describe reads the TLVs. What is too short for what it should be is left out.
func Describe(tlvs []TLV) (n Neighbour) {
	for _, t := range tlvs {
		v := t.Value
		switch t.Type {
		case 0:
			return n
		case 1:
			n.ChassisID = id(v, 4, 5)
		case 2:
			n.PortID = id(v, 3, 4)
		case 4:
			n.PortDescription = printable(v)
		case 5:
			n.SystemName = printable(v)
		case 6:
			n.SystemDescription = printable(v)
		case 7:
			if len(v) >= 4 {
				n.Supported, n.Enabled = capabilities(v), capabilities(v[2:])
			}
		case 8:
			if len(v) >= 2 && v[0] >= 1 && len(v) >= 1+int(v[0]) {
				if a := networkAddress(v[1 : 1+v[0]]); a != "" {
					n.Management = append(n.Management, a)
				}
			}
		case 127:
			if len(v) >= 4 {
				n.organisation(int(v[0])<<16|int(v[1])<<8|int(v[2]), v[3], v[4:])
			}
		}
	}
	return n
}

// organisation reads a TLV of IEEE 802.1 (802.1Q, annex D) or 802.3 (802.3, clause 79).
func (n *Neighbour) organisation(who int, subtype byte, v []byte) {
	bit := func(b byte, i int) *bool {
		on := b>>i&1 == 1
		return &on
	}
	switch {
	case who == ieee8021 && subtype == 1 && len(v) >= 2:
		n.UntaggedVLAN = int(binary.BigEndian.Uint16(v))
	case who == ieee8021 && subtype == 3 && len(v) >= 3 && len(v) >= 3+int(v[2]):
		n.VLANs = append(n.VLANs, VLAN{int(binary.BigEndian.Uint16(v)), printable(v[3 : 3+v[2]])})
	case who == ieee8021 && subtype == 4 && len(v) >= 1 && len(v) >= 1+int(v[0]):
		n.Protocols = append(n.Protocols, hex.EncodeToString(v[1:1+v[0]]))
	case who == ieee8021 && subtype == 6 && len(v) >= 2:
		n.ManagementVLAN = int(binary.BigEndian.Uint16(v))
	case (who == ieee8021 && subtype == 7 || who == ieee8023 && subtype == 3) && len(v) >= 5:
		n.CanAggregate, n.Aggregation = bit(v[0], 0), bit(v[0], 1)
		n.AggregationID = int(binary.BigEndian.Uint32(v[1:]))
	case who == ieee8023 && subtype == 1 && len(v) >= 1:
		n.CanNegotiate, n.Negotiates = bit(v[0], 0), bit(v[0], 1)
	case who == ieee8023 && subtype == 4 && len(v) >= 2:
		n.MTU = int(binary.BigEndian.Uint16(v))
	}
}

// id reads the identifier of a chassis or a port, whose subtypes differ in their numbers for addresses.
func id(v []byte, mac, network byte) string {
	switch {
	case len(v) < 2:
		return ""
	case v[0] == mac:
		if len(v) != 7 {
			return hex.EncodeToString(v[1:])
		}
		return net.HardwareAddr(v[1:]).String()
	case v[0] == network:
		return networkAddress(v[1:])
	}
	return printable(v[1:])
}

// networkAddress reads an address that begins with its family (IANA address family numbers).
func networkAddress(v []byte) string {
	switch {
	case len(v) == 5 && v[0] == 1:
		return netip.AddrFrom4([4]byte(v[1:])).String()
	case len(v) == 17 && v[0] == 2:
		return netip.AddrFrom16([16]byte(v[1:])).String()
	case len(v) == 7 && v[0] == 6:
		return net.HardwareAddr(v[1:]).String()
	case len(v) > 1:
		return hex.EncodeToString(v[1:])
	}
	return ""
}

// capabilities names the bits (802.1AB, table 8-4).
func capabilities(v []byte) (names []string) {
	bits := binary.BigEndian.Uint16(v)
	for i, name := range []string{"Other", "Repeater", "Bridge", "WLAN", "Router", "Telephone", "DOCSIS cable device", "Station only",
		"C-Vlan", "S-Vlan", "TPMR"} {
		if bits>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return names
}

// printable makes text of what a switch says.
func printable(b []byte) string {
	s := strings.Trim(string(b), " \t\r\n\x00")
	var out strings.Builder
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		if c == utf8.RuneError && n <= 1 || !unicode.IsPrint(c) {
			c = '_'
		}
		out.WriteRune(c)
		i += n
	}
	return out.String()
}
