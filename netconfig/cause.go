// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// cause names the most likely cause in one sentence. The connection that got
// furthest decides; if none got anywhere, the lowest layer that fails does.
func (r Report) cause(t Target) string {
	if r.OK {
		return r.Target + " can be reached"
	}
	for _, c := range r.Connections {
		if c.TCP == OK {
			return c.tlsCause(t)
		}
	}
	for _, c := range r.Connections {
		if c.TCP == Refused {
			return fmt.Sprintf("%s refuses connections to port %d: the service does not run, or the port is wrong, or a firewall rejects them", c.Address.Addr(), t.Port)
		}
	}
	if s := r.linkCause(); s != "" {
		return s
	}
	if len(r.Connections) == 0 {
		return r.dnsCause(t)
	}
	// The first address for which there is a route; if there is none, the first.
	c := r.Connections[0]
	for _, other := range r.Connections {
		if other.Path.NIC != "" {
			c = other
			break
		}
	}
	return r.pathCause("no connection to "+c.Address.Addr().String(), c.Path, c.Address.Addr())
}

// tlsCause explains a handshake that failed.
func (c Connection) tlsCause(t Target) string {
	switch c.TLS {
	case UnknownCA:
		return fmt.Sprintf("the CA certificates that this machine was given do not vouch for %s: %s", t.Host, c.Detail)
	case NotYetValid:
		return "this machine's clock is slow, or the server's certificate was made with a fast one: " + c.Detail
	case Expired:
		return "the server's certificate has expired, or this machine's clock is fast: " + c.Detail
	case WrongName:
		return fmt.Sprintf("the server's certificate is for another name than %s: %s", t.Host, c.Detail)
	case NotTLS:
		return fmt.Sprintf("port %d of %s does not speak TLS: http instead of https, or the wrong port", t.Port, c.Address.Addr())
	case BlackHole:
		return fmt.Sprintf("large packets to %s are lost on the way, and nobody says so (MTU): %s; give the link such an mtu, or let ICMP pass", c.Address.Addr(), c.Detail)
	case Silent:
		return fmt.Sprintf("%s accepts the connection and then says nothing, not even to small packets: the service hangs", c.Address)
	}
	return fmt.Sprintf("%s accepts the connection, but not TLS: %s", c.Address, c.Detail)
}

// linkCause looks for what is wrong on this machine itself: drivers, cables,
// addresses. It returns nothing if there is a NIC with link and a usable address.
func (r Report) linkCause() string {
	var up, linked, addressed []string
	stacked := false // some bond or VLAN has an address
	for _, n := range r.NICs {
		if n.Up {
			up = append(up, n.Name)
		}
		if n.Carrier {
			linked = append(linked, n.Name)
		}
		for _, a := range n.Addresses {
			switch {
			case a.Prefix.Addr().IsLinkLocalUnicast():
			case a.Duplicate:
				return fmt.Sprintf("another machine has the address %s of %s", a.Prefix.Addr(), n.Name)
			case !slices.Contains(addressed, n.Name):
				addressed = append(addressed, n.Name)
			}
		}
	}
	for _, d := range r.Stacked {
		for _, a := range d.Addresses {
			switch {
			case a.Prefix.Addr().IsLinkLocalUnicast():
			case a.Duplicate:
				return fmt.Sprintf("another machine has the address %s of %s", a.Prefix.Addr(), d.Name)
			default:
				stacked = true
			}
		}
	}
	names := func(s []string) string { return strings.Join(s, ", ") }
	switch {
	case len(r.NICs) == 0:
		return "the machine has no NIC that the kernel has a driver for"
	case len(up) == 0:
		return "no NIC is switched on: the description of the network names none of them"
	case len(linked) == 0:
		return "no NIC has link (" + names(up) + "): look at the cable and the switch port"
	case stacked:
		return r.bondCause()
	case len(addressed) == 0:
		return "no NIC has an address: the description of the network gives none to a NIC that is here"
	case !slices.ContainsFunc(addressed, func(n string) bool { return slices.Contains(linked, n) }):
		return fmt.Sprintf("%s has the address but no link, and %s has link but no address: the cable is in the wrong NIC, or the description names the wrong MAC", names(addressed), names(linked))
	}
	return ""
}

// bondCause looks for bonds that the switch does not know of.
func (r Report) bondCause() string {
	for _, d := range r.Stacked {
		if d.Bond == nil || d.Bond.Options["mode"] != lacp {
			continue
		}
		var silent, speaking []string
		partners := map[MAC]bool{}
		for _, m := range d.Members {
			if !m.Up {
				continue
			}
			if m.Partner == "" {
				silent = append(silent, m.NIC)
			} else {
				speaking = append(speaking, m.NIC+" "+string(m.Partner))
				partners[m.Partner] = true
			}
		}
		switch {
		case len(partners) > 1:
			return fmt.Sprintf("the members of %s are connected to different systems (%s): the cables are in the wrong ports, or the switches are no pair", d.Name, strings.Join(speaking, ", "))
		case len(silent) > 0 && len(partners) == 0:
			return fmt.Sprintf("the switch does not speak LACP on %s (%s): its ports are not in a channel group", strings.Join(silent, ", "), d.Name)
		}
	}
	return ""
}

// dnsCause explains why a name has no addresses. A server that answers knows
// better than one that does not.
func (r Report) dnsCause(t Target) string {
	for _, l := range r.DNS {
		if l.Problem == NotFound {
			return fmt.Sprintf("the name server %s knows no address of %s", l.Server, quote(t.Host))
		}
	}
	for _, l := range r.DNS {
		switch l.Problem {
		case NoServer:
			return fmt.Sprintf("%s is a name, and no name server is set", quote(t.Host))
		case Refused:
			return fmt.Sprintf("%s is set as name server but runs none", l.Server)
		case Failed:
			return fmt.Sprintf("the name server %s gives no good answer: %s", l.Server, l.Detail)
		}
	}
	if len(r.DNS) == 0 {
		return fmt.Sprintf("%s was not looked up", quote(t.Host))
	}
	l := r.DNS[0]
	return r.pathCause(fmt.Sprintf("the name server %s does not answer", l.Server), l.Path, l.Server)
}

// pathCause blames something on the way to an address that does not answer.
func (r Report) pathCause(what string, p Path, to netip.Addr) string {
	if p.NIC == "" {
		return fmt.Sprintf("%s: there is no route to it on a NIC with link", what)
	}
	vlan := r.vlanCause(p.NIC)
	if !p.Gateway.IsValid() && vlan != "" {
		return fmt.Sprintf("%s, which should be on the link of %s: wrong VLAN, for %s%s", what, p.NIC, vlan, r.wireText(p.NIC))
	}
	if !p.Gateway.IsValid() {
		return fmt.Sprintf("%s, which should be on the link of %s: wrong VLAN or switch port, or it is down%s", what, p.NIC, r.wireText(p.NIC))
	}
	for _, g := range r.Gateways {
		if g.NIC != p.NIC || g.Address != p.Gateway || g.Problem == OK {
			continue
		}
		if vlan != "" {
			return fmt.Sprintf("the gateway %s does not answer on %s: wrong VLAN, for %s%s", g.Address, g.NIC, vlan, r.wireText(g.NIC))
		}
		if g.Outside {
			return fmt.Sprintf("the gateway %s does not answer on %s, and no network of %s covers it: look at gateway and netmask", g.Address, g.NIC, g.NIC)
		}
		return fmt.Sprintf("the gateway %s does not answer on %s: wrong VLAN or switch port, wrong address, or it is down%s", g.Address, g.NIC, r.wireText(g.NIC))
	}
	return fmt.Sprintf("%s: the gateway %s answers, but nothing comes back from %s (firewall, no way back, or it is down)", what, p.Gateway, to)
}

// String returns the report for a console, a line for each thing looked at; the
// last one is the cause. It ends with a line feed.
func (r Report) String() string {
	var b strings.Builder
	for _, n := range r.NICs {
		link := "no link"
		switch {
		case !n.Up:
			link = "switched off"
		case n.Carrier:
			link = "link"
		}
		driver := n.Driver
		if driver == "" {
			driver = "unknown"
		}
		if n.Firmware != "" {
			driver += " (firmware " + n.Firmware + ")"
		}
		if n.SpeedMbps > 0 && n.Carrier {
			link += fmt.Sprintf(" %d Mbit/s", n.SpeedMbps)
		}
		if n.Master != "" {
			link += ", in " + n.Master
		}
		fmt.Fprintf(&b, "nic %s: driver %s, mac %s, mtu %d, %s%s\n", n.Name, driver, n.PermanentMAC, n.MTU, link, addressTexts(n.Addresses))
		switch {
		case n.Neighbour != nil:
			fmt.Fprintf(&b, "nic %s: LLDP says %s", n.Name, clean(n.Neighbour.String()))
			if tagged, _ := announced(n.Neighbour); len(tagged) > 0 {
				fmt.Fprintf(&b, ", tagged VLAN %s", numbers(tagged))
			}
			b.WriteByte('\n')
		case n.Heard > 0:
			fmt.Fprintf(&b, "nic %s: no LLDP heard in %.1f s (switches that speak it do so every 30 s)\n", n.Name, n.Heard)
		}
		if len(n.VLANs) > 0 {
			fmt.Fprintf(&b, "nic %s: VLAN %s seen\n", n.Name, numbers(n.VLANs))
		}
	}
	for _, d := range r.Stacked {
		link := "no link"
		if d.Carrier {
			link = "link"
		}
		kind := "bond"
		byLACP := d.Bond != nil && d.Bond.Options["mode"] == lacp
		switch {
		case d.VLAN != 0:
			fmt.Fprintf(&b, "vlan %s: %d on %s, mtu %d, %s%s\n", d.Name, d.VLAN, d.Parent, d.MTU, link, addressTexts(d.Addresses))
		case d.Bond == nil:
			kind = "bridge"
			fmt.Fprintf(&b, "bridge %s: mtu %d, %s%s\n", d.Name, d.MTU, link, addressTexts(d.Addresses))
		default:
			fmt.Fprintf(&b, "bond %s: %s, mtu %d, %s%s\n", d.Name, bondOptions()[0].text(d.Bond.Options["mode"]), d.MTU, link, addressTexts(d.Addresses))
		}
		if byLACP {
			fmt.Fprintf(&b, "bond %s: %s\n", d.Name, partners(d.Members))
		}
		for _, m := range d.Members {
			partner := ""
			if byLACP {
				partner = ", no LACP partner"
				if m.Partner != "" {
					partner = ", LACP partner " + string(m.Partner)
				}
			}
			state := "down"
			if m.Up {
				state = "up"
			}
			fmt.Fprintf(&b, "%s %s: member %s is %s%s\n", kind, d.Name, m.NIC, state, partner)
		}
	}
	for _, g := range r.Gateways {
		protocol := "ARP"
		if g.Address.Is6() {
			protocol = "neighbour discovery"
		}
		fmt.Fprintf(&b, "gateway %s on %s: ", g.Address, g.NIC)
		switch g.Problem {
		case OK:
			fmt.Fprintf(&b, "answers %s with %s\n", protocol, g.MAC)
		case Silent:
			fmt.Fprintf(&b, "does not answer %s\n", protocol)
		case NoLink:
			b.WriteString("not asked, no link\n")
		default:
			b.WriteString("cannot be asked\n")
		}
	}
	for _, l := range r.DNS {
		switch {
		case l.Problem == NoServer:
			b.WriteString("dns: no server is set\n")
		case !l.Server.IsValid():
			fmt.Fprintf(&b, "dns: /etc/hosts says %s\n", list(l.Addresses))
		case l.Problem == OK:
			fmt.Fprintf(&b, "dns %s %s: %s\n", l.Server, l.Path, list(l.Addresses))
		default:
			fmt.Fprintf(&b, "dns %s %s: %s (%s)\n", l.Server, l.Path, l.Problem, l.Detail)
		}
	}
	for _, c := range r.Connections {
		fmt.Fprintf(&b, "tcp %s %s: ", c.Address, c.Path)
		if c.TCP != OK {
			fmt.Fprintf(&b, "%s (%s)\n", c.TCP, c.Detail)
			continue
		}
		b.WriteString("connects")
		if c.MTU > 0 {
			fmt.Fprintf(&b, ", path MTU %d", c.MTU)
		}
		b.WriteByte('\n')
		switch c.TLS {
		case NotWanted:
		case OK:
			fmt.Fprintf(&b, "tls %s: good\n", c.Address)
		default:
			fmt.Fprintf(&b, "tls %s: %s (%s)\n", c.Address, c.TLS, c.Detail)
		}
	}
	fmt.Fprintf(&b, "cause: %s\n", r.Cause)
	return b.String()
}

// partners says whether the members of a bond lead to one system.
func partners(members []Member) string {
	var all []MAC
	silent := 0
	for _, m := range members {
		if m.Partner == "" {
			silent++
		} else if !slices.Contains(all, m.Partner) {
			all = append(all, m.Partner)
		}
	}
	switch {
	case len(all) == 0:
		return "LACP partner: none"
	case len(all) > 1:
		return fmt.Sprintf("LACP partner: %d different systems", len(all))
	case silent > 0:
		return fmt.Sprintf("LACP partner: %s, and none on %d of %d members", all[0], silent, len(members))
	}
	return fmt.Sprintf("LACP partner: %s on all members", all[0])
}

// addressTexts are for the end of a line.
func addressTexts(addresses []Address) string {
	var b strings.Builder
	for _, a := range addresses {
		b.WriteString(", " + a.Prefix.String())
		switch {
		case a.Duplicate:
			b.WriteString(" (duplicate)")
		case a.Tentative:
			b.WriteString(" (tentative)")
		}
	}
	return b.String()
}
