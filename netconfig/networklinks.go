// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// link reads an element of "links".
func (p *parser) link(path string, raw json.RawMessage) {
	o, ok := p.object(path, raw)
	if !ok {
		return
	}
	l := &link{path: path, Link: Link{Kind: Physical}}
	_ = json.Unmarshal(o["name"], &l.name) // the schema has none, so whatever else it is it does not matter
	id, ok := p.text(path+".id", o["id"])
	switch {
	case ok && id == "":
		p.fail(path+".id", "empty")
		ok = false
	case ok && len(id) > idMost:
		p.fail(path+".id", "%d bytes, want %d at most", len(id), idMost)
		ok = false
	case ok && strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }):
		p.fail(path+".id", "%s has characters that do not print", quote(id))
		ok = false
	}
	if ok {
		l.ID = id
		// Networks name their link by its id. If two have it, no network can be
		// given to either; the first is switched on, which does no harm.
		if first := p.links[id]; first != nil {
			p.fail(path+".id", "%s is the id of %s already", quote(id), first.path)
			p.links[id] = &link{path: path, out: "is the id of several links"}
			l.out = "is left out"
		} else {
			p.links[id] = l
		}
	} else {
		l.out = "is left out"
	}

	if raw, given := o["type"]; given && absent(raw) {
		o["type"] = json.RawMessage(`"phy"`)
	}
	switch kind, ok := p.text(path+".type", o["type"]); {
	case !ok:
		l.out = "is left out"
	case kind == "bond":
		p.bond(l, o)
		return
	case kind == "vlan":
		p.vlan(l, o)
		return
	case !slices.Contains(physical(), kind):
		p.fail(path+".type", "%s is not a kind of link", quote(kind))
		l.out = "is left out"
	}

	l.MTU = p.mtu(path+".mtu", o["mtu"])
	l.mtuGiven = l.MTU != 0
	p.order = append(p.order, l)
	l.Device = cmp.Or(deviceName(l.name, ""), deviceName(l.ID, ""))
	if absent(o["ethernet_mac_address"]) && l.Device != "" {
		for _, twin := range p.order {
			if twin != l && twin.out == "" && twin.Kind == Physical && twin.Device == l.Device {
				p.fail(path+".name", "%s is the name of %s already", l.Device, twin.path)
				l.out = "is left out"
			}
		}
		return
	}
	l.Device = ""
	l.MAC, ok = p.mac(path+".ethernet_mac_address", o["ethernet_mac_address"])
	if !ok {
		l.out = "is left out"
	}
	if twin := p.withMAC(l.MAC); ok && twin != l && twin != nil {
		p.fail(path+".ethernet_mac_address", "%s is the MAC of %s already", l.MAC, twin.path)
		l.out = "is left out"
	}
}

// idOf returns the id of the link that something names.
func (p *parser) idOf(name string) string {
	if p.links[name] != nil || name == "" {
		return name
	}
	found := name
	for _, l := range p.order {
		if l.name == name && l.ID != "" {
			if found != name {
				return name // several have it, so it names none
			}
			found = l.ID
		}
	}
	return found
}

// bond reads what only bonds have.
func (p *parser) bond(l *link, o object) {
	l.Kind, l.Bond = Bonded, &Bond{Options: map[string]int{}}
	p.order = append(p.order, l)
	l.MTU = p.mtu(l.path+".mtu", o["mtu"])
	l.mtuGiven = l.MTU != 0
	if raw := o["ethernet_mac_address"]; !absent(raw) {
		l.MAC, _ = p.mac(l.path+".ethernet_mac_address", raw)
	}
	for i, raw := range p.array(l.path+".bond_links", o["bond_links"], required) {
		id, _ := p.text(fmt.Sprintf("%s.bond_links[%d]", l.path, i), raw)
		l.members = append(l.members, id)
	}
	if _, ok := o["bond_mode"]; !ok {
		p.fail(l.path+".bond_mode", "missing")
	}
	for _, key := range slices.Sorted(maps.Keys(o)) {
		name, ok := strings.CutPrefix(key, "bond_")
		path := l.path + "." + key
		switch {
		case !ok || name == "links" || absent(o[key]) || string(o[key]) == `""` && name != "mode":
			continue
		case name == "primary":
			l.Bond.Primary, _ = p.text(path, o[key])
			continue
		case name == "ad_actor_system":
			l.Bond.System, _ = p.mac(path, o[key])
			continue
		case name == "arp_ip_target":
			l.Bond.ARPTargets = p.arpTargets(path, o[key])
			continue
		}
		option, ok := bondOptionNamed(name)
		if !ok {
			p.fail(l.path, "%s is not an option of bonds", quote(key))
			continue
		}
		value, ok := p.scalar(path, o[key])
		if !ok {
			continue
		}
		n, err := option.parse(value)
		if err != nil {
			p.fail(path, "%w", err)
			continue
		}
		l.Bond.Options[option.name] = n
	}
	if _, ok := l.Bond.Options["mode"]; !ok {
		if _, given := o["bond_mode"]; given && absent(o["bond_mode"]) {
			p.fail(l.path+".bond_mode", "missing")
		}
		l.out = "is left out"
		return
	}
	wrong := l.Bond.check()
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		p.fail(l.path+".bond_"+name, "%w", wrong[name])
	}
	if l.Bond.Primary != "" && !l.Bond.takesPrimary() {
		p.fail(l.path+".bond_primary", "not in mode %s", bondOptions()[0].text(l.Bond.Options["mode"]))
		l.Bond.Primary = ""
	}
}

// arpTargets reads addresses: an array, or one text with commas.
func (p *parser) arpTargets(path string, raw json.RawMessage) []netip.Addr {
	var texts []string
	if raw[0] == '[' {
		for i, one := range p.array(path, raw, optional) {
			if s, ok := p.text(fmt.Sprintf("%s[%d]", path, i), one); ok {
				texts = append(texts, s)
			}
		}
	} else if s, ok := p.text(path, raw); ok {
		texts = strings.Split(s, ",")
	}
	const most = 16 // BOND_MAX_ARP_TARGETS in include/net/bonding.h
	if len(texts) > most {
		p.fail(path, "%d addresses, want %d at most", len(texts), most)
		texts = texts[:most]
	}
	var targets []netip.Addr
	for _, s := range texts {
		a, ok := p.parseAddr(path, strings.TrimSpace(s))
		switch {
		case !ok:
		case !a.Is4() || a.IsUnspecified() || a == broadcast():
			p.fail(path, "%s is not an IPv4 address to ask for", a)
		case !slices.Contains(targets, a):
			targets = append(targets, a)
		}
	}
	return targets
}

// vlan reads what only VLANs have.
func (p *parser) vlan(l *link, o object) {
	l.Kind, l.VLAN = Tagged, &VLAN{}
	p.order = append(p.order, l)
	l.MTU = p.mtu(l.path+".mtu", o["mtu"])
	l.mtuGiven = l.MTU != 0
	if raw := o["vlan_mac_address"]; !absent(raw) {
		l.MAC, _ = p.mac(l.path+".vlan_mac_address", raw)
	}
	var ok bool
	if l.carrier, ok = p.text(l.path+".vlan_link", o["vlan_link"]); !ok {
		l.out = "is left out"
	}
	text, ok := p.scalar(l.path+".vlan_id", o["vlan_id"])
	if !ok {
		l.out = "is left out"
		return
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		p.fail(l.path+".vlan_id", "%s is not a number", quote(text))
		l.out = "is left out"
	case n < 1 || n > 4094: // 0 and 4095 are reserved: IEEE 802.1Q, table 9-2
		p.fail(l.path+".vlan_id", "%d, want 1 to 4094", n)
		l.out = "is left out"
	}
	l.VLAN.ID = n
}

// physical lists the link types that mean a NIC. They say how the other end is
// attached, which only concerns the hypervisor.
func physical() []string {
	return []string{"phy", "vif", "bridge", "ovs", "tap", "vhostuser", "dvs", "hw_veb", "hyperv"}
}

// withMAC returns the link in the plan so far with the MAC, or nil.
func (p *parser) withMAC(m MAC) *link {
	for _, l := range p.order {
		if l.out == "" && l.Kind == Physical && l.MAC == m && m != "" {
			return l
		}
	}
	return nil
}

func (p *parser) mac(path string, raw json.RawMessage) (MAC, bool) {
	s, ok := p.text(path, raw)
	if !ok {
		return "", false
	}
	m, err := ParseMAC(s)
	if err != nil {
		p.fail(path, "%w", err)
		return "", false
	}
	return m, true
}

// mtu returns 0 if there is none or it is wrong. 68 bytes is the least that IPv4
// works with (RFC 791), and Linux refuses less.
func (p *parser) mtu(path string, raw json.RawMessage) int {
	if absent(raw) {
		return 0
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil {
		p.fail(path, "%s is not a number of bytes", quote(strings.Trim(string(raw), `"`)))
		return 0
	}
	if n < 68 || n > 65535 {
		p.fail(path, "%d bytes, want 68 to 65535", n)
		return 0
	}
	return n
}
