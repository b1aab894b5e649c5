// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// Method is a way for a link to get addresses by itself.
type Method string

// The methods. What IPv6 has from router advertisements the kernel takes by itself:
// addresses (SLAAC), routes and sizes; the rest is ours.
const (
	DHCP4     Method = "dhcpv4"
	SLAAC     Method = "slaac"            // and name servers of the advertisement, and of DHCPv6 if that says so
	DHCP6     Method = "dhcpv6"           // an address by DHCPv6; routes are in advertisements
	DHCP6Info Method = "dhcpv6-stateless" // SLAAC, and DHCPv6 for name servers
	Auto6     Method = "ipv6-auto"        // as the advertisement says
)

// is6 reports whether the method is for IPv6.
func (m Method) is6() bool { return m != DHCP4 }

// Lease is what a link was given.
type Lease struct {
	Method    Method
	From      string         // who gave it, for people
	Addresses []netip.Prefix // none: the kernel has those of advertisements
	Routes    []Route
	DNS       []netip.Addr
	NTP       []netip.Addr
	MTU       int           // bytes; 0 is not said
	Renew     time.Duration // after this it is to be asked for again; 0 is never
	Valid     time.Duration // after this the addresses are not ours any more; 0 is never
	Router    netip.Addr    // IPv6: whose advertisement it was; the zero Addr without one

	ends time.Time // when Valid is over; the zero Time is never
}

// forever is a time in seconds that means that a lease does not end (RFC 2131, section 3.3; RFC 8415, section 7.7).
const forever = (1<<32 - 1) * time.Second

// lasting sets for how long the addresses count, 0 if the server does not say, and when they are asked for again: by its word if that is sound, else after half
// of the time.
func (l *Lease) lasting(valid, renew time.Duration) {
	if valid == 0 || valid >= forever {
		l.Renew = max(renew, time.Minute)
		return
	}
	l.Valid = max(valid, leastLease)
	if renew <= 0 || renew >= valid {
		renew = valid / 2
	}
	l.Renew = max(renew, min(time.Minute, l.Valid/2))
}

// leastLease is how long a lease counts at least, whatever the server says: asking without a pause helps nobody.
const leastLease = 4 * time.Second

// now is the lease when it has just been given.
func (l Lease) now() Lease {
	if l.Valid > 0 {
		l.ends = time.Now().Add(l.Valid)
	}
	return l
}

// String says what was given.
func (l Lease) String() string {
	text := string(l.Method) + " from " + l.From
	if len(l.Addresses) > 0 {
		text += ", " + list(l.Addresses)
	}
	for _, r := range l.Routes {
		text += ", " + r.String()
	}
	if len(l.DNS) > 0 {
		text += ", dns " + list(l.DNS)
	}
	if len(l.NTP) > 0 {
		text += ", ntp " + list(l.NTP)
	}
	if l.MTU != 0 {
		text += fmt.Sprintf(", mtu %d", l.MTU)
	}
	return text
}

// lease4 reads an acknowledgement of DHCPv4 (RFC 2131, 2132, 3442).
func lease4(m *dhcpv4.DHCPv4) (Lease, error) {
	own, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
	if !ok || own.IsUnspecified() || own.IsMulticast() || own.IsLoopback() || own == broadcast() {
		return Lease{}, fmt.Errorf("%s is not an address for a machine", m.YourIPAddr)
	}
	length, size := m.SubnetMask().Size()
	if size != 32 || length == 0 {
		length = 32 // then routers are on the link
	}
	l := Lease{Method: DHCP4, Addresses: []netip.Prefix{netip.PrefixFrom(own, length)}, From: m.ServerIdentifier().String()}
	add := func(destination netip.Prefix, gateway netip.Addr) {
		same := func(r Route) bool { return r.Destination == destination }
		if gateway != own && !gateway.IsMulticast() && gateway != broadcast() && len(l.Routes) < itemsMost && !slices.ContainsFunc(l.Routes, same) {
			l.Routes = append(l.Routes, Route{Destination: destination, Gateway: gateway})
		}
	}
	// Who has classless routes ignores the routers (RFC 3442).
	for _, r := range m.ClasslessStaticRoute() {
		destination, ok1 := prefixOf(r.Dest.IP.To4(), r.Dest.Mask)
		gateway, ok2 := netip.AddrFromSlice(r.Router.To4())
		if ok1 && ok2 && gateway.IsUnspecified() {
			gateway = netip.Addr{} // on the link itself
		}
		if ok1 && ok2 && destination.Masked() != l.Addresses[0].Masked() {
			add(destination.Masked(), gateway)
		}
	}
	if len(l.Routes) == 0 {
		for _, ip := range m.Router() {
			if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() {
				add(everywhere(a), a)
				break
			}
		}
	}
	l.DNS, l.NTP = servers(m.DNS()), servers(m.NTPServers())
	// RFC 791 has 68 as the least, and nobody means less than 576; what the device cannot do it refuses.
	if n, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && n >= 576 {
		l.MTU = int(n)
	}
	valid := m.IPAddressLeaseTime(0)
	l.lasting(valid, m.IPAddressRenewalTime(max(valid, time.Hour)/2))
	return l, nil
}

func prefixOf(ip []byte, mask []byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || len(mask) != len(ip) {
		return netip.Prefix{}, false
	}
	n := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			n++
		}
	}
	return netip.PrefixFrom(a, n), true
}

// lease6 reads a reply of DHCPv6 (RFC 8415); stateful says whether it must have an address.
func lease6(m *dhcpv6.Message, stateful bool) (Lease, error) {
	l := Lease{Method: DHCP6Info, From: "DHCPv6 server"}
	if stateful {
		l.Method = DHCP6
		ia := m.Options.OneIANA()
		if ia == nil {
			return l, errors.New("the answer has no address")
		}
		for _, one := range ia.Options.Addresses() {
			a, ok := netip.AddrFromSlice(one.IPv6Addr)
			if !ok || one.ValidLifetime == 0 || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4In6() {
				continue
			}
			// Which neighbours are on the link, only advertisements say (RFC 5942).
			l.Addresses = append(l.Addresses, netip.PrefixFrom(a, 128))
			renew := ia.T1
			if renew == 0 || renew >= one.ValidLifetime { // it is for us to say
				renew = min(one.PreferredLifetime, one.ValidLifetime) / 2
			}
			l.lasting(one.ValidLifetime, renew)
			break
		}
		if len(l.Addresses) == 0 {
			return l, errors.New("the answer has no address that can be used")
		}
	}
	l.DNS, l.NTP = servers(m.Options.DNS()), servers(append(m.Options.NTPServers(), m.Options.SNTP()...))
	return l, nil
}

// servers are the addresses that a server can have, each once.
func servers(ips []net.IP) []netip.Addr {
	var all []netip.Addr
	for _, ip := range ips {
		a, ok := netip.AddrFromSlice(ip)
		if a = a.Unmap(); ok && !a.IsUnspecified() && !a.IsMulticast() && a != broadcast() && len(all) < serversMost && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// advertisement is what we need of a router advertisement (RFC 4861, section 4.2).
type advertisement struct {
	managed, other bool // addresses, or other things, are to be had from DHCPv6
	own            bool // the kernel makes an address by itself (SLAAC)
	dns            []netip.Addr
}

// parseAdvertisement reads an ICMPv6 message.
func parseAdvertisement(b []byte) (advertisement, error) {
	const header = 16
	if len(b) < header || b[0] != 134 || b[1] != 0 {
		return advertisement{}, errors.New("not a router advertisement")
	}
	a := advertisement{managed: b[5]&0x80 != 0, other: b[5]&0x40 != 0}
	for rest := b[header:]; len(rest) > 0; {
		if len(rest) < 2 || rest[1] == 0 || len(rest) < 8*int(rest[1]) {
			return advertisement{}, errors.New("a router advertisement with an option that is cut off")
		}
		option := rest[:8*int(rest[1])]
		rest = rest[len(option):]
		if option[0] == 3 && len(option) >= 32 && option[3]&0x40 != 0 && binary.BigEndian.Uint32(option[4:]) > 0 { // prefix, autonomous: RFC 4861, section 4.6.2
			a.own = true
		}
		if option[0] != 25 || len(option) < 24 || binary.BigEndian.Uint32(option[4:]) == 0 { // RDNSS: RFC 8106, section 5.1
			continue
		}
		for servers := option[8:]; len(servers) >= 16; servers = servers[16:] {
			s := netip.AddrFrom16([16]byte(servers))
			if !s.IsUnspecified() && !s.IsMulticast() && len(a.dns) < serversMost && !slices.Contains(a.dns, s) {
				a.dns = append(a.dns, s)
			}
		}
	}
	return a, nil
}
