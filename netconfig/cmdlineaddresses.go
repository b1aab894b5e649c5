// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ip reads one of
//
//	METHOD
//	DEVICE:METHOD[:[MTU][:MAC]]
//	ADDRESS:[PEER]:GATEWAY:MASK:HOSTNAME:DEVICE:METHOD[:[MTU][:MAC]]
//	ADDRESS:[PEER]:GATEWAY:MASK:HOSTNAME:DEVICE:METHOD[:[DNS1][:DNS2]]
//
// The first five may be all that there is of the last two (as PXELINUX writes them). METHOD may be several, with commas between them.
func (p *cmdline) ip(word, value string) {
	field := split(value)
	if known(value) {
		p.automatic(word, "", value, "", "")
		return
	}
	if field.at(1) != "" && known(field.at(1)) {
		p.automatic(word, field.at(0), field.at(1), field.at(2), field.from(3))
		return
	}
	method := field.at(6)
	if !known(method) {
		p.fail(word, "%s is not a way to get an address", quote(method))
		return
	}
	if field.at(0) == "" { // the device alone: ip=:::::eth0:dhcp
		mtu, mac, dns := field.end()
		p.automatic(word, field.at(5), method, mtu, mac)
		p.nameservers(word, dns)
		return
	}
	switch method {
	case "", "none", "off", "static", "on", "any":
	default:
		p.fail(word, "%s, and an address as well", method)
		return
	}
	address, ok := p.prefix(word, field.at(0), field.at(3))
	if !ok {
		return
	}
	var gateway netip.Addr
	if text := field.at(2); text != "" {
		var err error
		if gateway, err = netip.ParseAddr(text); err != nil || gateway.Zone() != "" || gateway.Is4In6() {
			p.fail(word, "gateway: %s is not an IP address", quote(text))
			return
		}
	}
	if gateway, ok = p.usable(word, address, gateway); !ok {
		return
	}
	peer, ok := p.peer(word, field.at(1), address, gateway)
	if !ok {
		return
	}
	l := p.addressed(word, field.at(5))
	if l == nil || !p.give(word, l, address, gateway) {
		return
	}
	if peer.IsValid() {
		l.Routes = append(l.Routes, Route{Destination: peer})
	}
	mtu, mac, dns := field.end()
	p.sizeAndMAC(word, l, mtu, mac)
	p.nameservers(word, dns)
}

// anaconda returns an ip= with nothing but an address in the form of all others: the rest of it is in parameters of their own then
// (ip_to_var in dracut's net-lib.sh).
func anaconda(value string, single map[string]string) string {
	if a, err := netip.ParseAddr(value); err != nil || !a.Is4() || single["netmask"] == "" {
		return value
	}
	device := single["ksdevice"]
	switch {
	case device == "bootif" || device == "BOOTIF" || device == "link" || device == "ibft":
		device = "" // as if it were not named
	case strings.Count(device, ":") == 5:
		device = strings.ReplaceAll(device, ":", "-")
	}
	return fmt.Sprintf("%s::%s:%s::%s:none:%s", value, single["gateway"], single["netmask"], device, single["mtu"])
}

// end returns what follows the method in the long form: MTU and MAC, or name servers.
func (f fields) end() (mtu, mac string, dns []string) {
	isIP := func(s string) bool {
		_, err := netip.ParseAddr(s)
		return err == nil
	}
	if isIP(f.at(7)) || f.at(7) == "" && isIP(f.at(8)) {
		return "", "", []string{f.at(7), f.at(8)}
	}
	return f.at(7), f.from(8), nil
}

// methods are the words for ways to get an address.
func methods() map[string]bool {
	return map[string]bool{
		"": true, "none": true, "off": true, "static": true, "on": true, "any": true, "dhcp": true, "dhcp4": true, "single-dhcp": true, "dhcp6": true,
		"auto6": true, "either6": true, "link6": true, "link-local": true, "ibft": true, "bootp": true, "rarp": true, "both": true,
	}
}

// known reports whether a field has such words, with commas between them.
func known(text string) bool {
	for m := range strings.SplitSeq(text, ",") {
		if !methods()[m] {
			return false
		}
	}
	return true
}

// automatic is for an ip= without address.
func (p *cmdline) automatic(word, device, methods, mtu, mac string) {
	var way []Method
	on := false // switched on is enough
	for method := range strings.SplitSeq(methods, ",") {
		more := map[string][]Method{
			"dhcp": {DHCP4}, "dhcp4": {DHCP4}, "single-dhcp": {DHCP4}, "on": {DHCP4, Auto6}, "any": {DHCP4, Auto6}, "both": {DHCP4, Auto6},
			"dhcp6": {DHCP6}, "auto6": {SLAAC}, "either6": {Auto6},
		}[method]
		switch {
		case method == "ibft":
			p.ibft = true
		case slices.Contains([]string{"", "none", "off", "static", "link6", "link-local"}, method):
			on = true // the kernel has a link-local address then
		case more == nil:
			p.fail(word, "%s is not supported", method)
		}
		way = append(way, more...)
	}
	if device == "" && p.bootMAC == "" && p.bootDevice == "" { // on all NICs, which are not known here
		p.everywhere = append(p.everywhere, way...)
		return
	}
	if len(way) == 0 && (!on || device == "") {
		return
	}
	if l := p.addressed(word, device); l != nil {
		p.sizeAndMAC(word, l, mtu, mac)
		for _, m := range way {
			if !slices.Contains(l.Auto, m) {
				l.Auto = append(l.Auto, m)
			}
		}
	}
}

// addressed returns the link of a device that gets an address, or nil.
func (p *cmdline) addressed(word, name string) *Link {
	l := p.device(word, name)
	if l != nil && p.member(l) != "" {
		p.fail(word, "%s is a member of %s", name, p.member(l))
		return nil
	}
	return l
}

// usable checks an address for a machine, and the gateway beside it; an unspecified one is how firmware says that there is none.
func (p *cmdline) usable(word string, address netip.Prefix, gateway netip.Addr) (netip.Addr, bool) {
	switch ip := address.Addr(); {
	case ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() || ip == broadcast() || address.Bits() == 0:
		p.fail(word, "%s is not an address for a machine", address)
		return netip.Addr{}, false
	case !gateway.IsValid():
	case gateway.Is4() != ip.Is4() || gateway == ip || gateway.IsMulticast() || gateway.IsLoopback() || gateway == broadcast():
		p.fail(word, "%s is no gateway for %s", gateway, address)
		return netip.Addr{}, false
	case gateway.IsUnspecified():
		gateway = netip.Addr{}
	}
	return gateway, true
}

// give adds an address to a link, and the way over its gateway.
func (p *cmdline) give(word string, l *Link, address netip.Prefix, gateway netip.Addr) bool {
	for _, other := range p.order {
		if slices.ContainsFunc(other.Addresses, func(a netip.Prefix) bool { return a.Addr() == address.Addr() }) {
			p.fail(word, "%s is an address of %s already", address.Addr(), other.ID)
			return false
		}
	}
	l.Addresses = append(l.Addresses, address)
	if gateway.IsValid() {
		l.Routes = append(l.Routes, Route{Destination: everywhere(gateway), Gateway: gateway})
	}
	return true
}

// peer reads the other end of a link with two ends. PXELINUX writes the server that it has booted from in its place, which may be anywhere:
// that counts only if it has a mask, or can be nothing else.
func (p *cmdline) peer(word, text string, address netip.Prefix, gateway netip.Addr) (netip.Prefix, bool) {
	bare, mask, masked := strings.Cut(text, "/")
	a, err := netip.ParseAddr(bare)
	switch {
	case text == "" || !masked && (!address.IsSingleIP() || gateway.IsValid() && err == nil && gateway != a):
		return netip.Prefix{}, true
	case err != nil || a.Zone() != "" || a.Is4In6():
		p.fail(word, "peer: %s is not an IP address", quote(text))
		return netip.Prefix{}, false
	case a.Is4() != address.Addr().Is4() || a == address.Addr() || a.IsUnspecified() || a.IsMulticast():
		p.fail(word, "%s is no peer for %s", a, address)
		return netip.Prefix{}, false
	case !masked:
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	n, err := parseLength(mask, a)
	if err != nil || n == 0 {
		p.fail(word, "peer: %s is not a mask", quote(mask))
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, n).Masked(), true
}

// prefix reads an address with its mask behind a slash, or in mask: dotted, in IPv6
// notation, or a length.
func (p *cmdline) prefix(word, text, mask string) (netip.Prefix, bool) {
	text, length, slash := strings.Cut(text, "/")
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || a.Zone() != "" || a.Is4In6():
		p.fail(word, "%s is not an IP address", quote(text))
		return netip.Prefix{}, false
	case !slash && mask == "":
		length = strconv.Itoa(a.BitLen()) // the machine alone; a gateway is on the link then
		if a.Is6() {
			length = "64"
		}
	case !slash:
		length = mask
	}
	n, err := parseMaskText(length, a)
	if err != nil {
		p.fail(word, "%w", err)
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, n), true
}

// sizeAndMAC reads the end of an ip=.
func (p *cmdline) sizeAndMAC(word string, l *Link, mtu, mac string) {
	if n := p.mtu(word, mtu); n != 0 {
		l.MTU = n
	}
	if mac == "" {
		return
	}
	m, err := ParseMAC(mac)
	switch {
	case err != nil:
		p.fail(word, "%w", err)
	case l.Kind == Physical && l.MAC == m: // its own
	case l.Kind == Physical:
		l.NewMAC = m
	default:
		l.MAC = m
	}
}

func (p *cmdline) mtu(word, text string) int {
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1280 || n > 65535 {
		p.fail(word, "%s is not a size for packets from 1280 to 65535", quote(text))
		return 0
	}
	return n
}

func (p *cmdline) nameservers(word string, servers []string) {
	for _, s := range servers {
		if s != "" {
			p.nameserver(word, s)
		}
	}
}

func (p *cmdline) nameserver(word, value string) {
	a, err := netip.ParseAddr(unbracket(value))
	switch {
	case err != nil || a.Zone() != "" || a.Is4In6():
		p.fail(word, "%s is not an IP address", quote(value))
	case a.IsUnspecified() || a.IsMulticast() || a == broadcast():
		p.fail(word, "%s is not an address for a server", a)
	case !slices.Contains(p.dns, a):
		p.dns = append(p.dns, a)
	}
}

// route reads NETWORK/MASK:GATEWAY[:DEVICE].
func (p *cmdline) route(word, value string) {
	field := split(value)
	text, mask := field.at(0), ""
	if text == "default" {
		text = "0.0.0.0/0"
		if strings.Contains(field.at(1), ":") {
			text = "::/0"
		}
	}
	if strings.Contains(text, ":") && !strings.Contains(text, "/") {
		mask = "128"
	}
	destination, ok := p.prefix(word, text, mask)
	if !ok {
		return
	}
	if destination.Addr().Is4() && destination != destination.Masked() { // as in the kernel, which masks those of IPv6
		p.fail(word, "%s has bits outside its mask, want %s", destination, destination.Masked())
		return
	}
	destination = destination.Masked()
	r := Route{Destination: destination}
	if text := field.at(1); text != "" {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() || a.Is4() != destination.Addr().Is4() || a.IsUnspecified() || a.IsMulticast() {
			p.fail(word, "%s is no gateway to %s", quote(text), destination)
			return
		}
		r.Gateway = a
	}
	var l *Link
	name := field.at(2)
	switch {
	case name != "":
		if l = p.addressed(word, name); l == nil {
			return
		}
	case !r.Gateway.IsValid():
		p.fail(word, "neither a gateway nor a device")
		return
	default: // on the link whose network has the gateway, or on the only one
		for _, other := range p.order {
			if covers(other.Addresses, r.Gateway) {
				l = other
				break
			}
		}
		if l == nil && len(p.order) == 1 {
			l = p.order[0]
		}
		if l == nil {
			p.fail(word, "no network has %s; name a device", r.Gateway)
			return
		}
	}
	if !slices.ContainsFunc(l.Routes, func(have Route) bool { return have == r }) {
		l.Routes = append(l.Routes, r)
	}
}

func everywhere(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
