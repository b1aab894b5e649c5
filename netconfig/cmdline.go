// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// wordsMost is how many parameters of one kind a command line may have.
const wordsMost = 100

// ParseCmdline reads what a kernel command line says of the network, in dracut's words
// (dracut.cmdline(7), section "Network"): ip=, bond=, vlan=, ifname=, nameserver=,
// rd.route= and BOOTIF=. The plan has no links if there is no ip=, bond= or vlan=.
//
// Everything that is wrong is returned at once, as joined errors that begin with
// the parameter; what an error is about is left out of the plan.
//
// An ip= that names no device is for the NIC of BOOTIF. Without BOOTIF an address is for
// the only NIC of the machine, and a method such as dhcp for all of them (Plan.Everywhere). Names of devices are those of this kernel (eth0) unless
// ifname= gives them to a MAC. A device may be a MAC with dashes, too.
func ParseCmdline(line string) (Plan, error) {
	p := &cmdline{links: map[string]*Link{}, macs: map[string]MAC{}}
	var ips, routes []string
	for word := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(word, "=")
		if p.words > wordsMost {
			p.fail("network", "more than %d parameters", wordsMost)
			break
		}
		switch key {
		case "BOOTIF":
			p.boot(value)
		case "ifname":
			p.ifname(value)
		case "bond":
			p.bonds = append(p.bonds, value)
		case "vlan":
			p.vlans = append(p.vlans, value)
		case "ip":
			ips = append(ips, value)
		case "nameserver":
			p.nameserver(word, value)
		case "rd.route":
			routes = append(routes, value)
		case "bridge", "team":
			p.fail(word, "a %s is not supported", key)
		default:
			continue
		}
		p.words++
	}
	p.addBonds()
	p.addVLANs()
	for _, value := range ips {
		p.ip("ip="+value, value)
	}
	for _, value := range routes {
		p.route("rd.route="+value, value)
	}
	plan := p.plan()
	return plan, errors.Join(p.errs...)
}

// cmdline collects the parts of a plan.
type cmdline struct {
	words        int
	order        []*Link
	links        map[string]*Link // by name of the device; "" is the only NIC
	macs         map[string]MAC   // by names that ifname= gives
	bootMAC      MAC
	bonds, vlans []string
	everywhere   []Method
	dns          []netip.Addr
	errs         []error
}

func (p *cmdline) fail(word, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: %w", clean(word), fmt.Errorf(format, args...)))
}

// plan returns what was sound, each link after what it stands on.
func (p *cmdline) plan() Plan {
	plan := Plan{Links: []Link{}, DNS: p.dns}
	for _, m := range p.everywhere {
		if len(p.order) > 0 {
			p.fail("ip=", "%s on all NICs, and other parameters for some of them", m)
		} else if !slices.Contains(plan.Everywhere, m) {
			plan.Everywhere = append(plan.Everywhere, m)
		}
	}
	for _, kind := range []Kind{Physical, Bonded, Tagged} {
		for _, l := range p.order {
			if l.Kind == kind {
				plan.Links = append(plan.Links, *l)
			}
		}
	}
	type place struct {
		destination netip.Prefix
		metric      int
	}
	taken := map[place]bool{}
	for _, l := range plan.Links {
		for i := range l.Routes {
			r := &l.Routes[i]
			r.OnLink = r.Gateway.IsValid() && !r.Gateway.IsLinkLocalUnicast() && !covers(l.Addresses, r.Gateway)
			for n := firstMetric; taken[place{r.Destination, r.metric()}]; n++ {
				r.Metric = n
			}
			taken[place{r.Destination, r.metric()}] = true
		}
	}
	return plan
}

// boot reads BOOTIF: a MAC as iPXE writes it, or with dashes and the number of the
// hardware's kind before it, as PXELINUX does.
func (p *cmdline) boot(value string) {
	text := value
	if kind, rest, ok := strings.Cut(value, "-"); ok && len(kind) == 2 && strings.Count(value, "-") != 5 {
		text = rest
	}
	m, err := ParseMAC(text)
	if err != nil {
		p.fail("BOOTIF="+value, "%w", err)
		return
	}
	p.bootMAC = m
}

// ifname reads NAME:MAC. The name is only for other parameters: NICs keep theirs.
func (p *cmdline) ifname(value string) {
	name, mac, _ := strings.Cut(value, ":")
	m, err := ParseMAC(mac)
	switch {
	case err != nil:
		p.fail("ifname="+value, "%w", err)
	case deviceName(name, "") == "":
		p.fail("ifname="+value, "%s is not a name for a device", quote(name))
	default:
		p.macs[name] = m
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

// device returns the link of a device, made as a physical one if there is none.
func (p *cmdline) device(word, name string) *Link {
	l := &Link{ID: name, Kind: Physical, Device: name}
	mac, err := ParseMAC(name)
	switch {
	case p.links[name] != nil:
		return p.links[name]
	case p.macs[name] != "":
		l.MAC, l.Device = p.macs[name], ""
	case err == nil && strings.Contains(name, "-"):
		l.MAC, l.Device = mac, ""
	case name == "" && p.bootMAC != "":
		l.ID, l.MAC = "BOOTIF", p.bootMAC
	case name == "":
		l.ID = "the only NIC"
	case deviceName(name, "") == "":
		p.fail(word, "%s is not a name for a device", quote(name))
		return nil
	}
	for _, other := range p.order { // one NIC may be named in several ways
		if l.MAC != "" && other.Kind == Physical && other.MAC == l.MAC {
			p.links[name] = other
			return other
		}
	}
	p.links[name] = l
	p.order = append(p.order, l)
	return l
}

// addBonds reads NAME:MEMBER,MEMBER:OPTION=VALUE,OPTION=VALUE:MTU.
func (p *cmdline) addBonds() {
	members := map[*Link]string{}
	for _, value := range p.bonds {
		word := "bond=" + value
		field := split(value)
		name, slaves, options := field.at(0), field.at(1), field.at(2)
		if name == "" {
			name = "bond0"
		}
		if slaves == "" {
			slaves = "eth0,eth1"
		}
		if deviceName(name, "") == "" {
			p.fail(word, "%s is not a name for a device", quote(name))
			continue
		}
		if p.links[name] != nil {
			p.fail(word, "%s is there already", name)
			continue
		}
		l := &Link{ID: name, Kind: Bonded, Device: name, MTU: p.mtu(word, field.at(3)), Bond: &Bond{Options: map[string]int{"mode": roundRobin}}}
		p.bondOptions(word, l.Bond, options)
		for slave := range strings.SplitSeq(slaves, ",") {
			if slave == "" {
				p.fail(word, "a member without name")
				continue
			}
			m := p.device(word, slave)
			switch {
			case m == nil:
			case m.Kind != Physical:
				p.fail(word, "%s is a %s, want a NIC", quote(slave), m.Kind)
			case members[m] != "":
				p.fail(word, "%s is a member of %s already", quote(slave), members[m])
			default:
				members[m] = name
				l.Bond.Members = append(l.Bond.Members, m.ID)
			}
		}
		if l.Bond.Primary != "" && !slices.Contains(l.Bond.Members, l.Bond.Primary) {
			p.fail(word, "primary: %s is not one of its members", quote(l.Bond.Primary))
			l.Bond.Primary = ""
		}
		if len(l.Bond.Members) == 0 {
			p.fail(word, "no members")
			continue
		}
		p.links[name] = l
		p.order = append(p.order, l)
	}
}

func (p *cmdline) bondOptions(word string, b *Bond, options string) {
	for option := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "":
			continue
		case "primary":
			b.Primary = value
			continue
		case "arp_ip_target":
			for text := range strings.SplitSeq(value, ";") {
				if a, err := netip.ParseAddr(text); err != nil || !a.Is4() || a.IsUnspecified() || len(b.ARPTargets) == 16 {
					p.fail(word, "arp_ip_target: %s is not an IPv4 address to ask for, or one too many", quote(text))
				} else {
					b.ARPTargets = append(b.ARPTargets, a)
				}
			}
			continue
		}
		o, ok := bondOptionNamed(name)
		if !ok {
			p.fail(word, "%s is not an option of bonds", quote(name))
			continue
		}
		n, err := o.parse(value)
		if err != nil {
			p.fail(word, "%s: %w", name, err)
			continue
		}
		b.Options[o.name] = n
	}
	wrong := b.check()
	for _, o := range bondOptions() {
		if err := wrong[o.name]; err != nil {
			p.fail(word, "%s: %w", o.name, err)
		}
	}
	if b.Primary != "" && !b.takesPrimary() {
		p.fail(word, "primary: not in mode %s", bondOptions()[0].text(b.Options["mode"]))
		b.Primary = ""
	}
}

// addVLANs reads NAME:DEVICE, where the name ends with the number: vlan5, vlan0005,
// eth0.5, eth0.0005.
func (p *cmdline) addVLANs() {
	for _, value := range p.vlans {
		word := "vlan=" + value
		name, below, _ := strings.Cut(value, ":")
		digits := name[len(strings.TrimRight(name, "0123456789")):]
		n, err := strconv.Atoi(digits)
		switch {
		case deviceName(name, "") == "":
			p.fail(word, "%s is not a name for a device", quote(name))
			continue
		case err != nil || n < 1 || n > 4094:
			p.fail(word, "%s does not end with a number from 1 to 4094", quote(name))
			continue
		case below == "" || below == name:
			p.fail(word, "names no device for it to be on")
			continue
		case p.links[name] != nil:
			p.fail(word, "%s is there already", name)
			continue
		}
		on := p.device(word, below)
		switch {
		case on == nil:
			continue
		case on.Kind == Tagged:
			p.fail(word, "%s is a VLAN itself", below)
			continue
		case p.member(on):
			p.fail(word, "%s is a member of a bond", below)
			continue
		}
		taken := slices.ContainsFunc(p.order, func(l *Link) bool { return l.VLAN != nil && *l.VLAN == VLAN{on.ID, n} })
		if taken {
			p.fail(word, "VLAN %d on %s is there already", n, below)
			continue
		}
		l := &Link{ID: name, Kind: Tagged, Device: name, VLAN: &VLAN{Link: on.ID, ID: n}}
		p.links[name] = l
		p.order = append(p.order, l)
	}
}

func (p *cmdline) member(l *Link) bool {
	return slices.ContainsFunc(p.order, func(b *Link) bool { return b.Bond != nil && slices.Contains(b.Bond.Members, l.ID) })
}

// ip reads one of
//
//	METHOD
//	DEVICE:METHOD[:[MTU][:MAC]]
//	ADDRESS:[PEER]:GATEWAY:MASK:HOSTNAME:DEVICE:METHOD[:[MTU][:MAC]]
//	ADDRESS:[PEER]:GATEWAY:MASK:HOSTNAME:DEVICE:METHOD[:[DNS1][:DNS2]]
//
// The first five may be all that there is of the last two (as PXELINUX writes them).
func (p *cmdline) ip(word, value string) {
	field := split(value)
	if _, known := methods()[field.at(0)]; known && !strings.Contains(value, ":") {
		p.automatic(word, "", field.at(0), "", "")
		return
	}
	if _, known := methods()[field.at(1)]; known && field.at(1) != "" && field.at(0) != "" {
		p.automatic(word, field.at(0), field.at(1), field.at(2), field.from(3))
		return
	}
	method := field.at(6)
	if _, known := methods()[method]; !known {
		p.fail(word, "%s is not a way to get an address", quote(method))
		return
	}
	if field.at(0) == "" { // the device alone: ip=:::::eth0:dhcp
		p.automatic(word, field.at(5), method, field.at(7), field.from(8))
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
	switch ip := address.Addr(); {
	case ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() || ip == broadcast() || address.Bits() == 0:
		p.fail(word, "%s is not an address for a machine", address)
		return
	}
	var gateway netip.Addr
	if text := field.at(2); text != "" {
		var err error
		gateway, err = netip.ParseAddr(text)
		switch {
		case err != nil || gateway.Zone() != "" || gateway.Is4In6():
			p.fail(word, "gateway: %s is not an IP address", quote(text))
			return
		case gateway.Is4() != address.Addr().Is4() || gateway == address.Addr() || gateway.IsMulticast() || gateway.IsLoopback() || gateway == broadcast():
			p.fail(word, "%s is no gateway for %s", gateway, address)
			return
		case gateway.IsUnspecified(): // which is how firmware says that there is none
			gateway = netip.Addr{}
		}
	}
	l := p.addressed(word, field.at(5))
	if l == nil {
		return
	}
	for _, other := range p.order {
		if slices.ContainsFunc(other.Addresses, func(a netip.Prefix) bool { return a.Addr() == address.Addr() }) {
			p.fail(word, "%s is an address of %s already", address.Addr(), other.ID)
			return
		}
	}
	l.Addresses = append(l.Addresses, address)
	if gateway.IsValid() {
		l.Routes = append(l.Routes, Route{Destination: everywhere(gateway), Gateway: gateway})
	}
	// What follows is MTU and MAC, or name servers.
	if _, err := netip.ParseAddr(field.at(7)); err != nil && (field.at(7) != "" || strings.Count(field.from(8), ":") == 5) {
		p.sizeAndMAC(word, l, field.at(7), field.from(8))
		return
	}
	for i := 7; i < 9; i++ {
		if field.at(i) != "" {
			p.nameserver(word, field.at(i))
		}
	}
}

func everywhere(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// addressed returns the link of a device that gets an address, or nil.
func (p *cmdline) addressed(word, name string) *Link {
	l := p.device(word, name)
	if l != nil && p.member(l) {
		p.fail(word, "%s is a member of a bond", name)
		return nil
	}
	return l
}

// methods are the words for ways to get an address.
func methods() map[string]bool {
	return map[string]bool{
		"": true, "none": true, "off": true, "static": true, "on": true, "any": true, "dhcp": true, "dhcp4": true, "single-dhcp": true, "dhcp6": true,
		"auto6": true, "either6": true, "link6": true, "link-local": true, "ibft": true, "bootp": true, "rarp": true, "both": true,
	}
}

// automatic is for an ip= without address.
func (p *cmdline) automatic(word, device, method, mtu, mac string) {
	switch method {
	case "", "none", "off", "static", "link6": // the kernel has a link-local address on whatever is on
		if device == "" {
			return
		}
		if l := p.addressed(word, device); l != nil {
			p.sizeAndMAC(word, l, mtu, mac)
		}
		return
	}
	way := map[string][]Method{
		"dhcp": {DHCP4}, "dhcp4": {DHCP4}, "single-dhcp": {DHCP4}, "on": {DHCP4, Auto6}, "any": {DHCP4, Auto6}, "both": {DHCP4, Auto6},
		"dhcp6": {DHCP6}, "auto6": {SLAAC}, "either6": {Auto6},
	}[method]
	if way == nil {
		p.fail(word, "%s is not supported", method)
		return
	}
	if device == "" && p.bootMAC == "" { // on all NICs, which are not known here
		p.everywhere = append(p.everywhere, way...)
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
	case l.Kind == Physical && l.MAC != m:
		p.fail(word, "another MAC for a NIC is not supported")
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

// route reads NETWORK/MASK:GATEWAY[:DEVICE].
func (p *cmdline) route(word, value string) {
	field := split(value)
	destination, ok := p.prefix(word, field.at(0), "")
	if !ok {
		return
	}
	if destination != destination.Masked() {
		p.fail(word, "%s has bits outside its mask, want %s", destination, destination.Masked())
		return
	}
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

// fields are the parts of a value.
type fields []string

// split splits at colons that are not between brackets.
func split(value string) fields {
	var all fields
	depth, start := 0, 0
	for i, r := range value {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case r == ':' && depth == 0:
			all = append(all, value[start:i])
			start = i + 1
		}
	}
	return append(all, value[start:])
}

// at returns a part without brackets; one that is not there is empty.
func (f fields) at(i int) string {
	if i >= len(f) {
		return ""
	}
	return unbracket(f[i])
}

// from returns the rest from a part on, as it was.
func (f fields) from(i int) string { return strings.Join(f[min(i, len(f)):], ":") }

// unbracket takes the brackets off "[2001:db8::1]" and "[2001:db8::]/32".
func unbracket(s string) string {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		address, rest, _ := strings.Cut(inner, "]")
		return address + rest
	}
	return s
}
