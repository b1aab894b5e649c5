// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// stack puts links on each other: members into bonds, VLANs onto what carries
// them, each after what it stands on.
func (p *parser) stack() {
	for _, l := range p.order {
		l.carrier = p.idOf(l.carrier)
		for i, id := range l.members {
			l.members[i] = p.idOf(id)
		}
		if l.Bond != nil {
			l.Bond.Primary = p.idOf(l.Bond.Primary)
		}
	}
	for _, l := range p.order {
		if l.Kind == Bonded && l.out == "" {
			p.gather(l)
		}
	}
	// VLANs, in rounds: each round takes those whose carrier is known to be sound
	// or not. What is left then stands on itself, or on more than Linux stacks.
	var done, open []*link
	for _, kind := range []Kind{Physical, Bonded} {
		for _, l := range p.order {
			if l.Kind == kind {
				done = append(done, l)
			}
		}
	}
	waits := map[*link]bool{}
	for _, l := range p.order {
		if l.Kind == Tagged && l.out != "" {
			done = append(done, l)
		} else if l.Kind == Tagged {
			open = append(open, l)
			waits[l] = true
		}
	}
	type tag struct {
		carrier string
		id      int
	}
	taken := map[tag]*link{}
	for range nestMost {
		var later, ready []*link
		for _, l := range open {
			if waits[p.links[l.carrier]] {
				later = append(later, l)
			} else {
				ready = append(ready, l)
			}
		}
		for _, l := range ready {
			p.tag(l)
			if other := taken[tag{l.carrier, l.VLAN.ID}]; l.out == "" && other != nil {
				p.fail(l.path+".vlan_id", "%d on %s is %s already", l.VLAN.ID, quote(l.carrier), other.path)
				l.out = "is left out"
			} else if l.out == "" {
				taken[tag{l.carrier, l.VLAN.ID}] = l
			}
			delete(waits, l)
		}
		done, open = append(done, ready...), later
	}
	for _, l := range open {
		p.fail(l.path+".vlan_link", "%s stands on itself in the end, or on too many others", quote(l.carrier))
		l.out = "is left out"
	}
	p.order = append(done, open...)
	p.fitMTU()
}

// gather finds the members of a bond.
func (p *parser) gather(l *link) {
	infiniband := false
	for i, id := range l.members {
		path := fmt.Sprintf("%s.bond_links[%d]", l.path, i)
		if id == "" {
			continue // told already
		}
		m := p.links[id]
		switch {
		case m == nil:
			p.fail(path, "no link has the id %s (%s)", quote(id), p.ids())
		case m.out != "":
			p.fail(path, "link %s %s", quote(id), m.out)
		case m == l || m.Kind != Physical:
			p.fail(path, "link %s is a %s, want a NIC", quote(id), m.Kind)
		case m.bond == l:
			p.fail(path, "link %s is there twice", quote(id))
		case m.bond != nil:
			p.fail(path, "link %s is a member of %s already", quote(id), m.bond.path)
		default:
			m.bond = l
			l.Bond.Members = append(l.Bond.Members, id)
			infiniband = infiniband || p.infiniband(m)
		}
	}
	if len(l.Bond.Members) == 0 {
		p.fail(l.path+".bond_links", "no members")
		l.out = "has no members"
		return
	}
	if !infiniband && p.infiniband(l) {
		p.fail(l.path+".ethernet_mac_address", "is for InfiniBand, and the members are not")
		l.MAC = ""
	}
	if infiniband {
		// The address of an InfiniBand port cannot be changed (section "Configuring
		// Bonding for InfiniBand" of the kernel's documentation).
		if l.Bond.Options["mode"] != activeBackup {
			p.fail(l.path+".bond_mode", "want active-backup for InfiniBand")
			for _, id := range l.Bond.Members {
				p.links[id].bond = nil
			}
			l.out = "is left out"
			return
		}
		l.MAC, l.Bond.Options["fail_over_mac"] = "", 1
	}
	if l.Bond.Primary != "" && !slices.Contains(l.Bond.Members, l.Bond.Primary) {
		p.fail(l.path+".bond_primary", "%s is not one of its members", quote(l.Bond.Primary))
		l.Bond.Primary = ""
	}
}

// infiniband reports whether the address of a link, or of what it is made of, is one
// of InfiniBand.
func (p *parser) infiniband(l *link) bool {
	if l.Kind == Bonded && l.MAC == "" && len(l.Bond.Members) > 0 {
		l = p.links[l.Bond.Members[0]]
	}
	return len(l.MAC) > ethernetMAC
}

// tag finds what carries a VLAN.
func (p *parser) tag(l *link) {
	path := l.path + ".vlan_link"
	below := p.linkNamed(path, l.carrier)
	if below == nil {
		l.out = "is left out"
		return
	}
	if p.infiniband(below) || p.infiniband(l) {
		p.fail(path, "link %s: InfiniBand has no VLANs", quote(below.ID))
		l.out = "is left out"
		return
	}
	l.VLAN.Link = below.ID
}

// fitMTU makes the sizes of links that stand on each other agree.
func (p *parser) fitMTU() {
	// 1. A bond of which nothing is said is as large as its members may be.
	for _, l := range p.order {
		if b := l.bond; b != nil && !b.mtuGiven && l.MTU != 0 && (b.MTU == 0 || l.MTU < b.MTU) {
			b.MTU = l.MTU
		}
	}
	for _, l := range p.order {
		l.mtuGiven = l.MTU != 0
	}
	// 2. What carries VLANs is as large as they are, from the topmost down.
	for _, l := range slices.Backward(p.order) {
		if l.out != "" || l.VLAN == nil {
			continue
		}
		below := p.links[l.VLAN.Link]
		switch {
		case !below.mtuGiven && l.MTU > 1500: // which is what Ethernet has
			below.MTU = max(below.MTU, l.MTU)
		case below.mtuGiven && l.MTU > below.MTU:
			p.fail(l.path+".mtu", "%d bytes, but its link has %d", l.MTU, below.MTU)
			l.MTU = below.MTU
		}
	}
	// 3. Members get theirs from the bond.
	for _, l := range p.order {
		if l.bond == nil {
			continue
		}
		if l.MTU != 0 && l.MTU < l.bond.MTU {
			p.fail(l.path+".mtu", "%d bytes, but its bond has %d", l.MTU, l.bond.MTU)
		}
		l.MTU = 0
	}
}

// checkMTU drops an MTU with which the link's IPv6 would not work (RFC 8200,
// section 5); Linux switches IPv6 off on such a link.
func (p *parser) checkMTU() {
	for _, l := range p.order {
		has6 := slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
		if l.out == "" && has6 && l.MTU != 0 && l.MTU < least6 {
			p.fail(l.path+".mtu", "%d bytes, want %d at least for IPv6", l.MTU, least6)
			l.MTU = 0
		}
	}
}

// linkNamed returns the link on which something shall stand, or nil.
func (p *parser) linkNamed(path, id string) *link {
	l := p.links[id]
	switch {
	case l == nil:
		p.fail(path, "no link has the id %s (%s)", quote(id), p.ids())
		return nil
	case l.out != "":
		p.fail(path, "link %s %s", quote(id), l.out)
		return nil
	case l.bond != nil:
		p.fail(path, "link %s is a member of %s", quote(id), l.bond.path)
		return nil
	}
	return l
}

// ids says which links there are, for whoever has to find the wrong id.
func (p *parser) ids() string {
	const most = 8
	var ids []string
	for _, l := range p.order {
		if l.ID != "" && len(ids) <= most {
			ids = append(ids, quote(l.ID))
		}
	}
	switch {
	case len(ids) == 0:
		return "there are no links"
	case len(ids) > most:
		ids[most] = "..."
	}
	return "there are " + strings.Join(ids, ", ")
}
