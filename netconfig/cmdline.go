// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// wordsMost is how many parameters of one kind a command line may have.
const wordsMost = 100

// ParseCmdline reads what a kernel command line says of the network, in dracut's words
// (dracut.cmdline(7), section "Network"): ip=, bond=, vlan=, bridge=, ifname=, nameserver=, rd.route=,
// bootdev=, rd.peerdns=, BOOTIF= and rd.bootif=. The plan has no links if there is no ip=, bond= or vlan=. What firmware says,
// for ip=ibft, is in the directory of /sys/firmware/ibft; nil is for a machine whose firmware says nothing.
//
// Everything that is wrong is returned at once, as joined errors that begin with
// the parameter; what an error is about is left out of the plan.
//
// An ip= that names no device is for the NIC of BOOTIF, or of bootdev=. Without these an address is for
// the only NIC of the machine, and a method such as dhcp for all of them (Plan.Everywhere). Names of devices are those of this kernel (eth0) unless
// ifname= gives them to a MAC. A device may be a MAC with dashes, too. A bridge with one device is another name for that:
// nothing else of this machine is to be behind it.
func ParseCmdline(line string, firmware fs.FS) (Plan, error) {
	plan, p := parseCmdline(line, firmware)
	return plan, errors.Join(p.errs...)
}

func parseCmdline(line string, firmware fs.FS) (Plan, *cmdline) {
	p := &cmdline{links: map[string]*Link{}, macs: map[string]MAC{}, bridges: map[string]string{}}
	var ips, routes []string
	boot, single := true, map[string]string{}
	for word := range strings.FieldsSeq(line) {
		word = strings.ReplaceAll(word, `"`, "") // which the kernel takes off, too
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
		case "bridge":
			p.bridge(word, value)
		case "team":
			p.fail(word, "a team is not supported; a bond does the same: bond=NAME:NIC,NIC:mode=active-backup")
		case "bootdev":
			p.bootDevice = value
		case "rd.bootif":
			boot = !off(value)
		case "rd.peerdns":
			p.ignoreDNS = off(value)
		case "rd.iscsi.ibft":
			p.ibft = !off(value)
		case "rd.iscsi.mp":
			p.allFirmware = !off(value)
		case "gateway", "netmask", "mtu", "ksdevice":
			single[key] = value
		default:
			continue
		}
		p.words++
	}
	if !boot {
		p.bootMAC = ""
	}
	p.addBonds()
	p.addVLANs()
	for _, value := range ips {
		p.ip("ip="+value, anaconda(value, single))
	}
	if p.ibft {
		p.addFirmware(firmware)
	}
	for _, value := range routes {
		p.route("rd.route="+value, value)
	}
	return p.plan(), p
}

// cmdline collects the parts of a plan.
type cmdline struct {
	words        int
	order        []*Link
	links        map[string]*Link // by name of the device; "" is the only NIC
	macs         map[string]MAC   // by names that ifname= gives
	bootMAC      MAC
	bridges      map[string]string // name -> the one device of it
	bootDevice   string
	bonds, vlans []string
	everywhere   []Method
	dns          []netip.Addr
	ignoreDNS    bool
	ibft         bool // what the firmware says counts
	allFirmware  bool // also of NICs from which it has not booted
	errs         []error
}

// IsIBFT reports whether a command line wants to know what firmware says of the network.
func IsIBFT(line string) bool {
	_, p := parseCmdline(line, nil)
	return p.ibft
}

// off reads a truth value as dracut does (getargbool in dracut-lib.sh).
func off(value string) bool { return value == "0" || value == "no" || value == "off" }

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

func (p *cmdline) fail(word, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: %w", clean(word), fmt.Errorf(format, args...)))
}

// plan returns what was sound, each link after what it stands on.
func (p *cmdline) plan() Plan {
	plan := Plan{Links: []Link{}, DNS: p.dns, IgnoreDNS: p.ignoreDNS}
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
	p.prefer(plan.Links)
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

// prefer puts the link of bootdev= and what it stands on before the others: its default route counts most.
func (p *cmdline) prefer(links []Link) {
	if p.bootDevice == "" || len(links) == 0 {
		return
	}
	first := p.links[p.bridged(p.bootDevice)]
	switch {
	case first == nil && p.bootMAC != "": // which takes its place
		return
	case first == nil:
		p.fail("bootdev="+p.bootDevice, "no other parameter says what it is")
		return
	}
	wanted := map[string]bool{first.ID: true}
	for _, l := range slices.Backward(links) {
		if wanted[l.ID] && l.Bond != nil {
			for _, m := range l.Bond.Members {
				wanted[m] = true
			}
		} else if wanted[l.ID] && l.VLAN != nil {
			wanted[l.VLAN.Link] = true
		}
	}
	slices.SortStableFunc(links, func(a, b Link) int {
		switch {
		case wanted[a.ID] == wanted[b.ID]:
			return 0
		case wanted[a.ID]:
			return -1
		}
		return 1
	})
}

// bridge reads NAME:DEVICE.
func (p *cmdline) bridge(word, value string) {
	name, devices, _ := strings.Cut(value, ":")
	if value == "" {
		name, devices = "br0", "eth0"
	}
	switch {
	case deviceName(name, "") == "":
		p.fail(word, "%s is not a name for a device", quote(name))
	case devices == "" || devices == name:
		p.fail(word, "names no device for it to be on")
	case strings.Contains(devices, ","):
		p.fail(word, "a bridge of several devices is not supported; one with a single device is")
	default:
		p.bridges[name] = devices
	}
}

// bridged returns the name of what is below a bridge, or the name itself.
func (p *cmdline) bridged(name string) string {
	for range nestMost {
		if below := p.bridges[name]; below != "" {
			name = below
		}
	}
	return name
}

// boot reads BOOTIF: a MAC as iPXE writes it, or with dashes and the number of the
// hardware's kind before it, as PXELINUX does.
func (p *cmdline) boot(value string) {
	text := strings.ReplaceAll(value, "-", ":")
	if pairs := strings.Count(text, ":") + 1; pairs == 7 || pairs == 21 {
		_, text, _ = strings.Cut(text, ":")
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
	if name == "" && p.bootMAC == "" {
		name = p.bootDevice
	}
	name = p.bridged(name)
	l := &Link{ID: name, Kind: Physical, Device: name}
	mac, err := ParseMAC(name)
	if hex, ok := strings.CutPrefix(name, "enx"); ok && len(hex) == 12 { // a name of udev's, after the MAC
		mac, err = ParseMAC(hex[:2] + "-" + hex[2:4] + "-" + hex[4:6] + "-" + hex[6:8] + "-" + hex[8:10] + "-" + hex[10:])
	}
	switch {
	case p.links[name] != nil:
		return p.links[name]
	case p.macs[name] != "":
		l.MAC, l.Device = p.macs[name], ""
	case err == nil && !strings.Contains(name, ":"):
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
		case "ad_actor_system": // which has colons, of which this option can have none
			m, err := ParseMAC(value)
			if err != nil {
				p.fail(word, "ad_actor_system: %w", err)
			}
			b.System = m
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
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		p.fail(word, "%s: %w", name, wrong[name])
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

func (p *cmdline) nameservers(word string, servers []string) {
	for _, s := range servers {
		if s != "" {
			p.nameserver(word, s)
		}
	}
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
