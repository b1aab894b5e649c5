// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

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
