// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"cmp"
	"fmt"
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

// bridge reads NAME:DEVICE, which makes NAME another name for DEVICE; NAME:NIC,NIC is for later.
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
		p.switches = append(p.switches, value)
	default:
		p.bridges[name] = devices
	}
}

// addBridges reads NAME:NIC,NIC.
func (p *cmdline) addBridges() {
	for _, value := range p.switches {
		word := "bridge=" + value
		name, nics, _ := strings.Cut(value, ":")
		if p.bridges[name] != "" {
			p.fail(word, "%s is there already", name)
			continue
		}
		l := p.master(word, Bridged, name)
		if l == nil {
			continue
		}
		l.Bridge = &Bridge{Ports: p.memberIDs(word, nics)}
		l.Note = "this machine is a switch between " + strings.Join(l.Bridge.Ports, ", ") + ", without spanning tree: two of them in one network are a loop, which takes that network down"
		p.addMaster(word, l)
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
	for _, value := range p.bonds {
		word := "bond=" + value
		field := split(value)
		l := p.master(word, Bonded, cmp.Or(field.at(0), "bond0"))
		if l == nil {
			continue
		}
		l.MTU, l.Bond = p.mtu(word, field.at(3)), &Bond{Options: map[string]int{"mode": roundRobin}}
		p.bondOptions(word, l.Bond, field.at(2))
		l.Bond.Members = p.memberIDs(word, cmp.Or(field.at(1), "eth0,eth1"))
		if l.Bond.Primary != "" && !slices.Contains(l.Bond.Members, l.Bond.Primary) {
			p.fail(word, "primary: %s is not one of its members", quote(l.Bond.Primary))
			l.Bond.Primary = ""
		}
		p.addMaster(word, l)
	}
}

// addTeams reads NAME:MEMBER,MEMBER:RUNNER. A team needs a daemon, so a bond is made that does the same on the wire.
func (p *cmdline) addTeams() {
	for _, value := range p.teams {
		word := "team=" + value
		field := split(value)
		if len(field) > 3 {
			p.fail(word, "want NAME:NIC,NIC:RUNNER and no more")
			continue
		}
		name := cmp.Or(field.at(2), "activebackup") // as dracut; teamd's own is another
		r, known := runners()[name]
		if !known {
			p.fail(word, "%s is not a runner of teams, want one of %s", quote(name), strings.Join(slices.Sorted(maps.Keys(runners())), ", "))
			continue
		}
		l := p.master(word, Bonded, cmp.Or(field.at(0), "team0"))
		if l == nil {
			continue
		}
		l.Bond = &Bond{Options: map[string]int{}}
		p.bondOptions(word, l.Bond, r.options)
		l.Note = fmt.Sprintf("a team with the runner %s is made as a bond, %s", name, r.like)
		l.Bond.Members = p.memberIDs(word, cmp.Or(field.at(1), "eth0,eth1"))
		p.addMaster(word, l)
	}
}

// runner is the bond in the place of a team.
type runner struct{ options, like string }

// runners are those of teams (teamd.conf(5), runner.name). Without a balancer, which the command line cannot name, loadbalance and lacp choose the port by a hash of
// Ethernet and IP addresses.
func runners() map[string]runner {
	const same = "which does the same on the wire"
	return map[string]runner{
		"activebackup": {"mode=active-backup", same},
		"broadcast":    {"mode=broadcast", same},
		"lacp":         {"mode=802.3ad,xmit_hash_policy=layer2+3", same},
		"loadbalance":  {"mode=balance-xor,xmit_hash_policy=layer2+3", same},
		"random":       {"mode=balance-rr", "which takes the ports in turn instead of by chance; to the switch that is the same"},
		"roundrobin":   {"mode=balance-rr", same},
	}
}

// master returns a new link that is to be made of others, or nil if it cannot have the name.
func (p *cmdline) master(word string, kind Kind, name string) *Link {
	switch {
	case deviceName(name, "") == "":
		p.fail(word, "%s is not a name for a device", quote(name))
	case p.links[name] != nil:
		p.fail(word, "%s is there already", name)
	default:
		return &Link{ID: name, Kind: kind, Device: name}
	}
	return nil
}

// memberIDs reads NIC,NIC, and returns those that can be members of one more.
func (p *cmdline) memberIDs(word, nics string) []string {
	var ids []string
	for nic := range strings.SplitSeq(nics, ",") {
		if nic == "" {
			p.fail(word, "a member without name")
			continue
		}
		m := p.device(word, nic)
		switch {
		case m == nil:
		case m.Kind != Physical:
			p.fail(word, "%s is a %s, want a NIC", quote(nic), m.Kind)
		case slices.Contains(ids, m.ID):
			p.fail(word, "%s is there twice", quote(nic))
		case p.member(m) != "":
			p.fail(word, "%s is a member of %s already", quote(nic), p.member(m))
		default:
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// addMaster adds it to the plan if it has members.
func (p *cmdline) addMaster(word string, l *Link) {
	if len(l.members()) == 0 {
		p.fail(word, "no members")
		return
	}
	p.links[l.ID] = l
	p.order = append(p.order, l)
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
		case p.member(on) != "":
			p.fail(word, "%s is a member of %s", below, p.member(on))
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

// member returns the id of the link that has l for a member; empty if none has.
func (p *cmdline) member(l *Link) string {
	for _, b := range p.order {
		if slices.Contains(b.members(), l.ID) {
			return b.ID
		}
	}
	return ""
}
