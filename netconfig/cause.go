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
	case Silent:
		return fmt.Sprintf("%s accepts the connection and then says nothing: packets of full size are lost on the way (MTU), or the service hangs", c.Address)
	}
	return fmt.Sprintf("%s accepts the connection, but not TLS: %s", c.Address, c.Detail)
}

// linkCause looks for what is wrong on this machine itself: drivers, cables,
// addresses. It returns nothing if there is a NIC with link and a usable address.
func (r Report) linkCause() string {
	var up, linked, addressed []string
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
	names := func(s []string) string { return strings.Join(s, ", ") }
	switch {
	case len(r.NICs) == 0:
		return "the machine has no NIC that the kernel has a driver for"
	case len(up) == 0:
		return "no NIC is switched on: the description of the network names none of them"
	case len(linked) == 0:
		return "no NIC has link (" + names(up) + "): look at the cable and the switch port"
	case len(addressed) == 0:
		return "no NIC has an address: the description of the network gives none to a NIC that is here"
	case !slices.ContainsFunc(addressed, func(n string) bool { return slices.Contains(linked, n) }):
		return fmt.Sprintf("%s has the address but no link, and %s has link but no address: the cable is in the wrong NIC, or the description names the wrong MAC", names(addressed), names(linked))
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
	if !p.Gateway.IsValid() {
		return fmt.Sprintf("%s, which should be on the link of %s: wrong VLAN or switch port, or it is down", what, p.NIC)
	}
	for _, g := range r.Gateways {
		if g.NIC != p.NIC || g.Address != p.Gateway || g.Problem == OK {
			continue
		}
		if g.Outside {
			return fmt.Sprintf("the gateway %s does not answer on %s, and no network of %s covers it: look at gateway and netmask", g.Address, g.NIC, g.NIC)
		}
		return fmt.Sprintf("the gateway %s does not answer on %s: wrong VLAN or switch port, wrong address, or it is down", g.Address, g.NIC)
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
		fmt.Fprintf(&b, "nic %s: driver %s, mac %s, mtu %d, %s", n.Name, driver, n.PermanentMAC, n.MTU, link)
		for _, a := range n.Addresses {
			fmt.Fprintf(&b, ", %s", a.Prefix)
			switch {
			case a.Duplicate:
				b.WriteString(" (duplicate)")
			case a.Tentative:
				b.WriteString(" (tentative)")
			}
		}
		b.WriteByte('\n')
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
		b.WriteString("connects\n")
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
