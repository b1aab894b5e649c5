// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// NewAsker returns one for the running kernel. It needs CAP_NET_RAW.
func NewAsker() Asker { return sockets{} }

// sockets asks with sockets of its own for each question.
type sockets struct{}

// again is after how long a question is repeated at first; the pauses double, and the number of the question stays, so that a server that takes its time is
// heard too (RFC 2131, section 4.1).
const (
	again   = 2 * time.Second
	repeats = 4
)

// Ask implements [Asker].
func (sockets) Ask(ctx context.Context, n NIC, m Method) (Lease, error) {
	// The messages' numbers come from getrandom(2) with GRND_NONBLOCK, in a loop without end. Soon after
	// power-on only a call that blocks makes the kernel gather what it needs for them.
	rand.Read(make([]byte, 1))
	switch m {
	case DHCP4:
		return ask4(ctx, n)
	case DHCP6:
		// The kernel hears the advertisement too, and has its routes by the time that there is
		// an address. There may be none: then the address is for neighbours only.
		soon, cancel := context.WithTimeout(ctx, 2*again)
		heard, _, _ := solicit(soon, n)
		cancel()
		l, err := ask6(ctx, n, true)
		for _, s := range heard.dns {
			l.DNS = appendNew(l.DNS, s)
		}
		return l, err
	case SLAAC, DHCP6Info, Auto6:
		heard, router, err := solicit(ctx, n)
		if err != nil {
			return Lease{}, err
		}
		l := Lease{Method: m, From: "router " + router.String(), DNS: heard.dns}
		stateful := m == Auto6 && heard.managed
		if stateful || m == DHCP6Info || heard.other || heard.managed {
			soon, cancel := ctx, context.CancelFunc(func() {})
			if heard.own { // there will be an address without the server, which may not be there
				soon, cancel = context.WithTimeout(ctx, 2*again)
			}
			given, err := ask6(soon, n, stateful)
			cancel()
			switch {
			case err == nil:
				l = given
			case !heard.own || ctx.Err() != nil:
				return Lease{}, err
			}
		}
		l.Method, l.Router = m, router
		for _, s := range heard.dns {
			l.DNS = appendNew(l.DNS, s)
		}
		return l, nil
	}
	return Lease{}, fmt.Errorf("unknown method %s", m)
}

func appendNew(all []netip.Addr, a netip.Addr) []netip.Addr {
	for _, have := range all {
		if have == a {
			return all
		}
	}
	return append(all, a)
}

// ask4 discovers and requests (RFC 2131).
func ask4(ctx context.Context, n NIC) (Lease, error) {
	if len(n.MAC) > ethernetMAC {
		return Lease{}, errors.New("DHCPv4 over InfiniBand is not supported")
	}
	client, err := nclient4.New(n.Name, nclient4.WithTimeout(again), nclient4.WithRetry(repeats))
	if err != nil {
		return Lease{}, err
	}
	defer client.Close() // nothing is lost with it
	for {
		got, err := client.Request(ctx, dhcpv4.WithRequestedOptions(
			dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionNTPServers, dhcpv4.OptionInterfaceMTU))
		if err == nil {
			return lease4(got.ACK)
		}
		if err := wait(ctx, err); err != nil {
			return Lease{}, err
		}
	}
}

// ask6 solicits and requests, or asks for information only (RFC 8415).
func ask6(ctx context.Context, n NIC, stateful bool) (Lease, error) {
	client, err := nclient6.New(n.Name, nclient6.WithTimeout(again), nclient6.WithRetry(repeats))
	if err != nil {
		return Lease{}, err
	}
	defer client.Close() // nothing is lost with it
	mac, err := net.ParseMAC(string(n.MAC))
	if err != nil {
		return Lease{}, err
	}
	// Without a clock that is right, the identity must not have the time in it.
	identity := dhcpv6.WithClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: mac})
	wanted := dhcpv6.WithRequestedOptions(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionNTPServer, dhcpv6.OptionSNTPServerList)
	for {
		var reply *dhcpv6.Message
		if stateful {
			var offer *dhcpv6.Message
			if offer, err = client.Solicit(ctx, identity, wanted); err == nil {
				reply, err = client.Request(ctx, offer, wanted)
			}
		} else {
			var question *dhcpv6.Message
			if question, err = information(identity, wanted); err == nil {
				reply, err = client.SendAndRead(ctx, nclient6.AllDHCPRelayAgentsAndServers, question, nclient6.IsMessageType(dhcpv6.MessageTypeReply))
			}
		}
		if err == nil {
			return lease6(reply, stateful)
		}
		if err := wait(ctx, err); err != nil {
			return Lease{}, err
		}
	}
}

// information makes an information-request (RFC 8415, section 18.2.6).
func information(modifiers ...dhcpv6.Modifier) (*dhcpv6.Message, error) {
	m, err := dhcpv6.NewMessage(modifiers...)
	if err != nil {
		return nil, err
	}
	m.MessageType = dhcpv6.MessageTypeInformationRequest
	m.AddOption(dhcpv6.OptElapsedTime(0))
	return m, nil
}

// wait pauses before a question is repeated, unless it makes no sense.
func wait(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) {
		return err
	}
	return pause(ctx, again/4)
}

// solicit asks the routers on the link for an advertisement, and returns the first (RFC
// 4861, section 6.3.7).
func solicit(ctx context.Context, n NIC) (advertisement, netip.Addr, error) {
	fail := func(err error) (advertisement, netip.Addr, error) { return advertisement{}, netip.Addr{}, err }
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), n.Name) })
		return errors.Join(err, failed)
	}}
	c, err := config.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return fail(err)
	}
	defer c.Close() // nothing is lost with it
	p := ipv6.NewPacketConn(c)
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	err = errors.Join(p.SetControlMessage(ipv6.FlagHopLimit, true), p.SetMulticastHopLimit(255), p.SetICMPFilter(&filter))
	if err != nil {
		return fail(err)
	}
	routers := &net.IPAddr{IP: net.IPv6linklocalallrouters, Zone: n.Name}
	b := make([]byte, 2048)
	for ctx.Err() == nil {
		if _, err := p.WriteTo([]byte{133, 0, 0, 0, 0, 0, 0, 0}, nil, routers); err != nil {
			return fail(err)
		}
		for end := time.Now().Add(again); ; {
			until := time.Now().Add(pollEvery)
			if err := p.SetReadDeadline(until); err != nil {
				return fail(err)
			}
			size, control, from, err := p.ReadFrom(b)
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				if ctx.Err() != nil || time.Now().After(end) {
					break
				}
				continue
			}
			if err != nil {
				return fail(err)
			}
			router, ok := netip.AddrFromSlice(from.(*net.IPAddr).IP)
			// From further away it would have a smaller hop limit (section 6.1.2).
			if !ok || !router.IsLinkLocalUnicast() || control == nil || control.HopLimit != 255 {
				continue
			}
			if heard, err := parseAdvertisement(b[:size]); err == nil {
				return heard, router, nil
			}
		}
	}
	return fail(context.Cause(ctx))
}
