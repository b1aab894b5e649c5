// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// wordsMost is how many parameters of one kind a command line may have.
const wordsMost = 100

// ParseCmdline reads what a kernel command line says of the network, in dracut's words
// (dracut.cmdline(7), section "Network"): ip=, bond=, team=, vlan=, bridge=, ifname=, nameserver=, rd.route=,
// bootdev=, rd.peerdns=, BOOTIF= and rd.bootif=. The plan has no links if there is no ip=, bond=, team=, vlan= or bridge= of several NICs. What firmware says,
// for ip=ibft, is in the directory of /sys/firmware/ibft; nil is for a machine whose firmware says nothing.
//
// Everything that is wrong is returned at once, as joined errors that begin with
// the parameter; what an error is about is left out of the plan.
//
// An ip= that names no device is for the NIC of BOOTIF, or of bootdev=. Without these an address is for
// the only NIC of the machine, and a method such as dhcp for all of them (Plan.Everywhere). Names of devices are those of this kernel (eth0) unless
// ifname= gives them to a MAC. A device may be a MAC with dashes, too. A bridge with one device is another name for that:
// nothing else of this machine is to be behind it. A team is made as the bond that does the same on the wire.
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
		case "team":
			p.teams = append(p.teams, value)
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
	p.addTeams()
	p.addBridges()
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
	switches     []string          // bridges of several
	bootDevice   string
	bonds, teams []string
	vlans        []string
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
	for _, kind := range []Kind{Physical, Bonded, Bridged, Tagged} {
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
		if !wanted[l.ID] {
			continue
		}
		for _, m := range l.members() {
			wanted[m] = true
		}
		if l.VLAN != nil {
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
