// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

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
