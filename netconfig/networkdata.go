// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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
	idMost          = 255     // bytes of a link's id
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
//   - All link types but bond and vlan mean a NIC; a link without networks is
//     switched on and gets no address.
//   - Masks may be dotted, in IPv6 notation, a prefix length (number or string),
//     or part of the address.
//   - A gateway outside the networks of its link is taken to be on the link (as
//     hosters with /32 addresses have it).
//   - Of several routes to one destination, each after the first gets a larger
//     metric: Ironic writes one default route per subnet.
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
	path string
	out  string // why it is left out; empty if it is not
	from []string
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
	var plan Plan
	same := map[netip.Prefix]int{} // routes so far, by destination
	for _, l := range p.order {
		if l.out != "" {
			continue
		}
		for i := range l.Routes {
			r := &l.Routes[i]
			r.OnLink = !r.Gateway.IsLinkLocalUnicast() && !covers(l.Addresses, r.Gateway)
			if n := same[r.Destination]; n > 0 {
				r.Metric = firstMetric + n - 1
			}
			same[r.Destination]++
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
	id, ok := p.text(path+".id", o["id"])
	switch {
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
		// given to either; both are switched on, which does no harm.
		if first := p.links[id]; first != nil {
			p.fail(path+".id", "%s is the id of %s already", quote(id), first.path)
			p.links[id] = &link{path: path, out: "is the id of several links"}
		} else {
			p.links[id] = l
		}
	} else {
		l.out = "is left out"
	}

	switch kind, ok := p.text(path+".type", o["type"]); {
	case !ok:
		l.out = "is left out"
	case kind == "bond" || kind == "vlan":
		p.fail(path+".type", "%s links are not supported yet", kind)
		l.out = "is a " + kind + ", which is not supported yet"
		return // the rest of it has other rules
	case !slices.Contains(physical(), kind):
		p.fail(path+".type", "%s is not a kind of link", quote(kind))
		l.out = "is left out"
	}

	l.MAC, ok = p.mac(path+".ethernet_mac_address", o["ethernet_mac_address"])
	if !ok {
		l.out = "is left out"
	}
	if twin := p.withMAC(l.MAC); ok && twin != nil {
		p.fail(path+".ethernet_mac_address", "%s is the MAC of %s already", l.MAC, twin.path)
		l.out = "is left out"
	}
	l.MTU = p.mtu(path+".mtu", o["mtu"])
	p.order = append(p.order, l)
}

// physical lists the link types that mean a NIC. They say how the other end is
// attached, which only concerns the hypervisor.
func physical() []string {
	return []string{"phy", "vif", "bridge", "ovs", "tap", "vhostuser", "dvs", "hw_veb", "hyperv"}
}

// withMAC returns the link in the plan so far with the MAC, or nil.
func (p *parser) withMAC(m MAC) *link {
	for _, l := range p.order {
		if l.out == "" && l.MAC == m {
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
		if l.out == "" && has6 && l.MTU != 0 && l.MTU < 1280 {
			p.fail(l.path+".mtu", "%d bytes, want 1280 at least for IPv6", l.MTU)
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
	case "ipv4_dhcp", "ipv6_dhcp", "ipv6_slaac", "ipv6_dhcpv6-stateful", "ipv6_dhcpv6_stateful", "ipv6_dhcpv6-stateless", "ipv6_dhcpv6_stateless":
		p.fail(path+".type", "%s networks are not supported yet", kind)
		return
	default:
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
	for _, r := range routes {
		if !slices.Contains(l.Routes, r) { // Nova repeats the routes of a subnet for each address
			l.Routes = append(l.Routes, r)
		}
	}
}

// linkOf returns the link that a network names, or nil.
func (p *parser) linkOf(path string, raw json.RawMessage) *link {
	id, ok := p.text(path, raw)
	if !ok {
		return nil
	}
	l := p.links[id]
	switch {
	case l == nil:
		p.fail(path, "no link has the id %s (%s)", quote(id), p.ids())
		return nil
	case l.out != "":
		p.fail(path, "link %s %s", quote(id), l.out)
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
	return Route{Destination: destination, Gateway: gateway}, ok1 && ok2
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
