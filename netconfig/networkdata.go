// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Limits of a description. Ironic's own are far below.
const (
	networkDataMost = 1 << 20 // bytes
	itemsMost       = 1000    // elements of one array
	routesMost      = 4000    // of all networks together
	errorsMost      = 100     // told one by one
	nestMost        = 7       // VLANs on each other: MAX_NEST_DEV in linux/netdevice.h, less the device below
	idMost          = 240     // bytes of a link's id; with the mark it fits into an alias (IFALIASZ in linux/if.h)
)

// firstMetric is the metric of the second route to one destination, the third
// gets one more, and so on; above both defaults of the kernel (0 and 1024).
const firstMetric = 1025

// ParseNetworkData reads network_data.json as Nova, Ironic and Metal3 write it
// (ironic/api/controllers/v1/network-data-schema.json of Ironic).
//
// Everything that is wrong is returned at once, as joined errors that begin with
// the place in the document (networks[1].routes[0].gateway). What an error is
// about is left out of the plan; the plan holds all that is sound, and it is for
// the caller to say whether that will do. If the document is not JSON, or larger
// than 1 MiB, the plan is empty.
//
// What the schema leaves open is read like this:
//
//   - All link types but bond and vlan mean a NIC, and so does null, which old clouds write; a link without networks is
//     switched on and gets no address.
//   - A NIC without ethernet_mac_address is found by the kernel's name, which is the link's name, or its id (as Metal3 has it). Where
//     an id is wanted, the name of a link will do.
//   - Keys of a bond that begin with bond_ are the kernel's options of bonds;
//     bond_primary is the id of a link. Without miimon and arp_interval the
//     members' links are looked at ten times a second.
//   - The MAC of a bond and of a VLAN may be missing. A bond's members have its
//     MTU; what carries a VLAN and has no MTU of its own has the VLAN's.
//   - Masks may be dotted, in IPv6 notation, a prefix length (number or string),
//     or part of the address.
//   - A gateway outside the networks of its link is taken to be on the link (as
//     hosters with /32 addresses have it).
//   - Of several routes to one destination, each after the first gets a larger
//     metric: Ironic writes one default route per subnet. A "metric" of a route
//     itself is left as it is.
//   - Networks whose addresses are asked for may have routes too.
//   - A "gateway" of a network itself, which the schema does not have but the
//     OpenStack documentation does, is a default route if "routes" has none.
func ParseNetworkData(b []byte) (Plan, error) {
	if len(b) > networkDataMost {
		return Plan{}, fmt.Errorf("%d bytes, want %d at most", len(b), networkDataMost)
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	var top object
	if err := json.Unmarshal(b, &top); err != nil || top == nil {
		return Plan{}, notObject(b, err)
	}
	p := parser{links: map[string]*link{}}
	for i, raw := range p.array("links", top["links"], required) {
		p.link(fmt.Sprintf("links[%d]", i), raw)
	}
	p.stack()
	for i, raw := range p.array("networks", top["networks"], required) {
		p.network(fmt.Sprintf("networks[%d]", i), raw)
	}
	p.services("services", top["services"])
	p.dns = append(p.dns, p.networkDNS...)
	p.checkMTU()
	return p.plan(), p.err()
}

// notObject says why the whole document is not a JSON object.
func notObject(b []byte, err error) error {
	var syntax *json.SyntaxError
	switch {
	case len(bytes.TrimSpace(b)) == 0:
		return errors.New("empty, want a JSON object")
	case errors.As(err, &syntax):
		before := b[:min(max(syntax.Offset-1, 0), int64(len(b)))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
		return fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	return errors.New("not a JSON object")
}

// parser collects the parts of a plan, and what is wrong.
type parser struct {
	order      []*link // as in the document
	links      map[string]*link
	routes     int // of all links
	dns        []netip.Addr
	networkDNS []netip.Addr // of single networks, asked after the global ones
	errs       []error
	untold     int // errors beyond errorsMost
}

// link is a link of the document.
type link struct {
	Link
	path       string
	name       string   // another name for the id, if it is not empty
	out        string   // why it is left out; empty if it is not
	bond       *link    // that it is a member of
	from       []string // of the addresses: path of the network
	routesFrom []string // of the routes
	mtuGiven   bool

	members []string // of a bond: ids as given
	carrier string   // of a VLAN: id as given
}

type object map[string]json.RawMessage

// fail notes what is wrong at a place in the document.
func (p *parser) fail(path, format string, args ...any) {
	if len(p.errs) == errorsMost {
		p.untold++
		return
	}
	p.errs = append(p.errs, fmt.Errorf("%s: %w", path, fmt.Errorf(format, args...)))
}

func (p *parser) err() error {
	if p.untold > 0 {
		return errors.Join(append(p.errs, fmt.Errorf("and %d errors more", p.untold))...)
	}
	return errors.Join(p.errs...)
}

// plan returns what was sound.
func (p *parser) plan() Plan {
	plan := Plan{Links: []Link{}, DNS: []netip.Addr{}}
	// Metrics that were given come first, then the others get what is left.
	type place struct {
		destination netip.Prefix
		metric      int
	}
	taken := map[place]string{} // -> link
	for _, given := range []bool{true, false} {
		for _, l := range p.order {
			if l.out != "" {
				continue
			}
			routes, from := l.Routes, l.routesFrom
			l.Routes, l.routesFrom = nil, nil
			for i, r := range routes {
				if given == (r.Metric != 0) {
					for n := firstMetric; !given && taken[place{r.Destination, r.metric()}] != ""; n++ {
						r.Metric = n
					}
					if first := taken[place{r.Destination, r.metric()}]; first != "" {
						p.fail(from[i], "%s: %s has a route with this metric already", r, first)
						continue
					}
					taken[place{r.Destination, r.metric()}] = from[i]
				}
				l.Routes, l.routesFrom = append(l.Routes, r), append(l.routesFrom, from[i])
			}
		}
	}
	for _, l := range p.order {
		if l.out != "" {
			continue
		}
		for i := range l.Routes {
			r := &l.Routes[i]
			r.OnLink = !r.Gateway.IsLinkLocalUnicast() && !covers(l.Addresses, r.Gateway)
		}
		plan.Links = append(plan.Links, l.Link)
	}
	for _, a := range p.dns {
		if !slices.Contains(plan.DNS, a) {
			plan.DNS = append(plan.DNS, a)
		}
	}
	return plan
}

func covers(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

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

// scalar reads a text, a number or a truth value that must be there, as text.
func (p *parser) scalar(path string, raw json.RawMessage) (string, bool) {
	switch {
	case absent(raw):
		p.fail(path, "missing")
		return "", false
	case string(raw) == "true":
		return "1", true
	case string(raw) == "false":
		return "0", true
	case raw[0] == '"':
		return p.text(path, raw)
	case raw[0] == '[' || raw[0] == '{':
		p.fail(path, "neither a text nor a number")
		return "", false
	}
	return string(raw), true
}

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

// network reads an element of "networks" and adds to its link.
func (p *parser) network(path string, raw json.RawMessage) {
	o, ok := p.object(path, raw)
	if !ok {
		return
	}
	l := p.linkOf(path+".link", o["link"])
	kind, ok := p.text(path+".type", o["type"])
	switch kind {
	case "ipv4", "ipv6":
	case "":
		if ok {
			p.fail(path+".type", "empty")
		}
		return
	default:
		if m, known := automatic()[kind]; known {
			p.networkServices(path+".services", o["services"])
			family := "ipv6"
			if !m.is6() {
				family = "ipv4"
			}
			routes := p.networkRoutes(path, o, family, netip.Prefix{})
			if l == nil {
				return
			}
			if !slices.Contains(l.Auto, m) {
				l.Auto = append(l.Auto, m)
			}
			l.addRoutes(path, routes)
			return
		}
		p.fail(path+".type", "%s is not a kind of network", quote(kind))
		return
	}

	address, ok := p.prefix(path+".ip_address", o["ip_address"], path+".netmask", o["netmask"], kind)
	if ok {
		ok = p.checkAddress(path+".ip_address", address)
	}
	// A route whose network has no address is not used, but is checked.
	routes := p.networkRoutes(path, o, kind, address)
	p.networkServices(path+".services", o["services"])
	if l == nil || !ok {
		return
	}
	for _, other := range p.order {
		for i, a := range other.Addresses {
			if a.Addr() == address.Addr() {
				p.fail(path+".ip_address", "%s is the address of %s already", a.Addr(), other.from[i])
				return
			}
		}
	}
	l.Addresses = append(l.Addresses, address)
	l.from = append(l.from, path)
	l.addRoutes(path, routes)
}

// addRoutes adds those that the link has not yet: Nova repeats the routes of a subnet for each address.
func (l *link) addRoutes(network string, routes []Route) {
	for _, r := range routes {
		if !slices.Contains(l.Routes, r) {
			l.Routes = append(l.Routes, r)
			l.routesFrom = append(l.routesFrom, network+".routes")
		}
	}
}

// automatic are the types of networks whose addresses are asked for. Some are written in two ways.
func automatic() map[string]Method {
	return map[string]Method{
		"ipv4_dhcp": DHCP4, "ipv6_slaac": SLAAC, "ipv6_dhcp": DHCP6,
		"ipv6_dhcpv6-stateful": DHCP6, "ipv6_dhcpv6_stateful": DHCP6,
		"ipv6_dhcpv6-stateless": DHCP6Info, "ipv6_dhcpv6_stateless": DHCP6Info,
	}
}

// linkOf returns the link that a network names, or nil.
func (p *parser) linkOf(path string, raw json.RawMessage) *link {
	id, ok := p.text(path, raw)
	if !ok {
		return nil
	}
	return p.linkNamed(path, p.idOf(id))
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

// checkAddress refuses what no machine can have as its address.
func (p *parser) checkAddress(path string, a netip.Prefix) bool {
	switch ip := a.Addr(); {
	case ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() || ip == broadcast():
		p.fail(path, "%s is not an address for a machine", ip)
	case a.Bits() == 0:
		p.fail(path, "%s: a network of all addresses", a)
	default:
		return true
	}
	return false
}

func broadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// networkRoutes reads "routes" of a network, and "gateway".
func (p *parser) networkRoutes(path string, o object, kind string, own netip.Prefix) []Route {
	var routes []Route
	hasDefault := false
	for i, raw := range p.array(path+".routes", o["routes"], optional) {
		if p.routes++; p.routes > routesMost {
			p.fail(path+".routes", "more than %d routes in all networks", routesMost)
			return routes
		}
		if r, ok := p.route(fmt.Sprintf("%s.routes[%d]", path, i), raw, kind, own); ok {
			routes = append(routes, r)
			hasDefault = hasDefault || r.Destination.Bits() == 0
		}
	}
	if raw := o["gateway"]; !absent(raw) && !hasDefault {
		if gateway, ok := p.gateway(path+".gateway", raw, kind, own); ok {
			zero := netip.IPv4Unspecified()
			if kind == "ipv6" {
				zero = netip.IPv6Unspecified()
			}
			routes = append(routes, Route{Destination: netip.PrefixFrom(zero, 0), Gateway: gateway})
		}
	}
	return routes
}

func (p *parser) route(path string, raw json.RawMessage, kind string, own netip.Prefix) (Route, bool) {
	o, ok := p.object(path, raw)
	if !ok {
		return Route{}, false
	}
	p.networkServices(path+".services", o["services"])
	destination, ok1 := p.prefix(path+".network", o["network"], path+".netmask", o["netmask"], kind)
	if ok1 && destination != destination.Masked() {
		p.fail(path+".network", "%s has bits outside its mask, want %s", destination, destination.Masked())
		ok1 = false
	}
	gateway, ok2 := p.gateway(path+".gateway", o["gateway"], kind, own)
	r := Route{Destination: destination, Gateway: gateway}
	if raw := o["metric"]; !absent(raw) {
		text, _ := p.scalar(path+".metric", raw)
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			p.fail(path+".metric", "%s is not a number", quote(text))
			return r, false
		}
		r.Metric = int(n)
	}
	return r, ok1 && ok2
}

func (p *parser) gateway(path string, raw json.RawMessage, kind string, own netip.Prefix) (netip.Addr, bool) {
	a, ok := p.address(path, raw)
	switch {
	case !ok:
	case family(a) != kind:
		p.fail(path, "%s in an %s network", a, kind)
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == broadcast():
		p.fail(path, "%s is not an address for a router", a)
	case own.IsValid() && a == own.Addr():
		p.fail(path, "%s is the machine's own address", a)
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// prefix reads an address and its mask; the mask may be part of the address.
func (p *parser) prefix(path string, raw json.RawMessage, maskPath string, rawMask json.RawMessage, kind string) (netip.Prefix, bool) {
	s, ok := p.text(path, raw)
	if !ok {
		return netip.Prefix{}, false
	}
	text, length, slash := strings.Cut(s, "/")
	a, ok := p.parseAddr(path, text)
	if !ok {
		return netip.Prefix{}, false
	}
	if family(a) != kind {
		p.fail(path, "%s in an %s network", a, kind)
		return netip.Prefix{}, false
	}
	n := -1
	if slash {
		var err error
		if n, err = parseLength(length, a); err != nil {
			p.fail(path, "%w", err)
			return netip.Prefix{}, false
		}
	}
	switch {
	case !absent(rawMask):
		m, err := parseMask(rawMask, a)
		switch {
		case err != nil:
			p.fail(maskPath, "%w", err)
			return netip.Prefix{}, false
		case slash && m != n:
			p.fail(maskPath, "/%d, but the address says /%d", m, n)
			return netip.Prefix{}, false
		}
		n = m
	case !slash:
		p.fail(maskPath, "missing")
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, n), true
}

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

func family(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// services reads the global list.
func (p *parser) services(path string, raw json.RawMessage) {
	p.dns = append(p.dns, p.servers(path, raw)...)
}

// networkServices reads the list of one network or route.
func (p *parser) networkServices(path string, raw json.RawMessage) {
	p.networkDNS = append(p.networkDNS, p.servers(path, raw)...)
}

func (p *parser) servers(path string, raw json.RawMessage) []netip.Addr {
	var servers []netip.Addr
	for i, raw := range p.array(path, raw, optional) {
		path := fmt.Sprintf("%s[%d]", path, i)
		o, ok := p.object(path, raw)
		if !ok {
			continue
		}
		kind, ok := p.text(path+".type", o["type"])
		switch {
		case !ok:
			continue
		case kind != "dns":
			p.fail(path+".type", "%s services are not supported", quote(kind))
			continue
		}
		a, ok := p.address(path+".address", o["address"])
		switch {
		case !ok:
		case a.IsUnspecified() || a.IsMulticast() || a == broadcast():
			p.fail(path+".address", "%s is not an address for a server", a)
		default:
			servers = append(servers, a)
		}
	}
	return servers
}

func (p *parser) address(path string, raw json.RawMessage) (netip.Addr, bool) {
	s, ok := p.text(path, raw)
	if !ok {
		return netip.Addr{}, false
	}
	return p.parseAddr(path, s)
}

func (p *parser) parseAddr(path, s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		p.fail(path, "%s is not an IP address", quote(s))
	case a.Zone() != "":
		p.fail(path, "%s names a device, want the address alone", quote(s))
	case a.Is4In6():
		p.fail(path, "%s is an IPv4 address in IPv6 notation", quote(s))
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// Whether an array may be absent.
const (
	required = true
	optional = false
)

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func (p *parser) array(path string, raw json.RawMessage, needed bool) []json.RawMessage {
	if absent(raw) {
		if needed {
			p.fail(path, "missing")
		}
		return nil
	}
	var a []json.RawMessage
	if err := json.Unmarshal(raw, &a); err != nil {
		p.fail(path, "not an array")
		return nil
	}
	if len(a) > itemsMost {
		p.fail(path, "%d elements, want %d at most", len(a), itemsMost)
		a = a[:itemsMost]
	}
	return a
}

func (p *parser) object(path string, raw json.RawMessage) (object, bool) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil || o == nil {
		p.fail(path, "not an object")
		return nil, false
	}
	return o, true
}

// text reads a string that must be there.
func (p *parser) text(path string, raw json.RawMessage) (string, bool) {
	if absent(raw) {
		p.fail(path, "missing")
		return "", false
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		p.fail(path, "not a string")
		return "", false
	}
	return s, true
}
