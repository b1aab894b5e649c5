// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ironhand/ironhand/netconfig"
)

// The names in multicast DNS of the Ironic API and of who takes inspection data: a service and its only instance are called the same.
// Source: ironic-lib's ironic_lib/mdns.py, IPA ironic_python_agent/mdns.py.
const (
	mdnsService    = "baremetal._openstack._tcp.local."
	mdnsInspection = "baremetal-introspection._openstack._tcp.local."
)

// introspectionPath follows the URL of the latter. Source: IPA ironic_python_agent/inspector.py.
const introspectionPath = "/v1/continue"

// Where multicast DNS is asked (RFC 6762, 3 and 5.1). We ask from a port of our own, so whoever answers does it to us alone, and repeats the
// number of the question (6.7).
const mdnsPort = 5353

var (
	mdnsGroup4 = netip.MustParseAddr("224.0.0.251")
	mdnsGroup6 = netip.MustParseAddr("ff02::fb")
)

const (
	mdnsWait    = 3 * time.Second // for one attempt; as python-zeroconf, which IPA asks with
	mdnsRepeat  = time.Second     // the question, in case it got lost
	mdnsPackets = 200             // looked at in one attempt
	mdnsPacket  = 9000            // bytes of the longest one (RFC 6762, 17)
	mdnsRecords = 100             // looked at in one packet
	mdnsTexts   = 100             // kept
)

// A service is what multicast DNS has told of a service so far.
type service struct {
	name      string // lower case, with a dot at the end
	host      string // the same; "" if not told yet
	port      uint16
	texts     map[string]string // nil if not told yet
	addresses map[string][]netip.Addr
}

// complete tells whether nothing more has to be asked.
func (s *service) complete() bool {
	return s.host != "" && s.texts != nil && (!s.local() || len(s.addresses[s.host]) > 0)
}

// local tells whether the host is one that only multicast DNS knows.
func (s *service) local() bool { return strings.HasSuffix(s.host, ".local.") }

// question is the packet that asks for what is missing.
func (s *service) question(id uint16) ([]byte, error) {
	var m dnsmessage.Message
	m.ID = id
	ask := func(name string, types ...dnsmessage.Type) error {
		n, err := dnsmessage.NewName(name)
		for _, t := range types {
			m.Questions = append(m.Questions, dnsmessage.Question{Name: n, Type: t, Class: dnsmessage.ClassINET})
		}
		return err
	}
	err := ask(s.name, dnsmessage.TypeSRV, dnsmessage.TypeTXT)
	if s.local() {
		err = errors.Join(err, ask(s.host, dnsmessage.TypeA, dnsmessage.TypeAAAA))
	}
	if err != nil {
		return nil, fmt.Errorf("make question for multicast DNS: %w", err)
	}
	return m.Pack()
}

// add takes what a packet, which came in over a NIC, tells of the service. What is in it for others is passed over.
func (s *service) add(packet []byte, id uint16, nic string) error {
	var p dnsmessage.Parser
	h, err := p.Start(packet)
	if err != nil {
		return err
	}
	if !h.Response || h.ID != id || h.RCode != dnsmessage.RCodeSuccess {
		return errors.New("no answer to our question")
	}
	if err := p.SkipAllQuestions(); err != nil {
		return err
	}
	count := 0
	records := func(next func() (dnsmessage.ResourceHeader, error), skip func() error) error {
		for {
			r, err := next()
			if err == dnsmessage.ErrSectionDone {
				return nil
			}
			if err != nil {
				return err
			}
			if count++; count > mdnsRecords {
				return fmt.Errorf("more than %d records", mdnsRecords)
			}
			const flush = 0x8000 // of a cache: RFC 6762, 10.2
			if r.Class&^flush != dnsmessage.ClassINET || r.TTL == 0 {
				err = skip()
			} else {
				err = s.record(&p, r, nic, skip)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := records(p.AnswerHeader, p.SkipAnswer); err != nil {
		return err
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return err
	}
	return records(p.AdditionalHeader, p.SkipAdditional)
}

func (s *service) record(p *dnsmessage.Parser, r dnsmessage.ResourceHeader, nic string, skip func() error) error {
	name := strings.ToLower(r.Name.String())
	switch {
	case r.Type == dnsmessage.TypeSRV && name == s.name && s.host == "":
		srv, err := p.SRVResource()
		if err != nil {
			return err
		}
		if host := strings.ToLower(srv.Target.String()); host != "." && srv.Port != 0 {
			s.host, s.port = host, srv.Port
		}
	case r.Type == dnsmessage.TypeTXT && name == s.name && s.texts == nil:
		txt, err := p.TXTResource()
		if err != nil {
			return err
		}
		s.texts = map[string]string{}
		for _, one := range txt.TXT[:min(len(txt.TXT), mdnsTexts)] {
			key, value, _ := strings.Cut(one, "=")
			key = strings.ToLower(key)
			if _, has := s.texts[key]; !has { // the first one counts: RFC 6763, 6.4
				s.texts[key] = value
			}
		}
	case r.Type == dnsmessage.TypeA:
		a, err := p.AResource()
		if err != nil {
			return err
		}
		s.addAddress(name, netip.AddrFrom4(a.A))
	case r.Type == dnsmessage.TypeAAAA:
		a, err := p.AAAAResource()
		if err != nil {
			return err
		}
		ip := netip.AddrFrom16(a.AAAA).Unmap()
		if ip.IsLinkLocalUnicast() && ip.Is6() {
			ip = ip.WithZone(nic)
		}
		s.addAddress(name, ip)
	default:
		return skip()
	}
	return nil
}

func (s *service) addAddress(host string, ip netip.Addr) {
	if s.addresses == nil {
		s.addresses = map[string][]netip.Addr{}
	}
	total := 0
	for _, all := range s.addresses {
		total += len(all)
	}
	if ip.IsLoopback() || ip.IsMulticast() || ip.IsUnspecified() || total >= mdnsTexts || slices.Contains(s.addresses[host], ip) {
		return
	}
	s.addresses[host] = append(s.addresses[host], ip)
}

// options are what the answer says, by the names in configuration files: the API's URL, and those others that are
// allowed. refused are those that are not.
func (s *service) options(allowed []string, routed func(netip.Addr) bool) (options map[string]string, refused []string, err error) {
	host := strings.TrimSuffix(s.host, ".")
	if s.local() {
		all := s.addresses[s.host]
		if len(all) == 0 {
			return nil, nil, fmt.Errorf("%s has no address", host)
		}
		ip := all[max(0, slices.IndexFunc(all, routed))]
		host = ip.String()
		if ip.Is6() {
			host = "[" + strings.ReplaceAll(host, "%", "%25") + "]"
		}
	}
	protocol := s.texts["protocol"]
	if protocol == "" {
		protocol = "https"
		if s.port == 80 {
			protocol = "http"
		}
	}
	options = map[string]string{"api_url": protocol + "://" + host + ":" + strconv.Itoa(int(s.port)) + s.texts["path"]}
	for _, key := range slices.Sorted(maps.Keys(s.texts)) {
		option, ours := strings.CutPrefix(key, "ipa_")
		switch {
		case !ours:
		case slices.Contains(allowed, option) && option != "api_url":
			options[option] = s.texts[key]
		default:
			refused = append(refused, option)
		}
	}
	return options, refused, nil
}

// mdnsLink is where multicast DNS is asked: an address of a NIC, with the networks that whoever answers may be in.
type mdnsLink struct {
	nic      string
	from     netip.Addr
	networks []netip.Prefix
}

// mdnsLinks are the links of a machine, or those of NICs that have one of the given addresses.
func mdnsLinks(s netconfig.State, only []netip.Addr) []mdnsLink {
	var links []mdnsLink
	for _, n := range s.NICs {
		if n.Loopback || !n.Up || !n.Carrier {
			continue
		}
		var networks []netip.Prefix
		var from4, from6 netip.Addr
		asked := len(only) == 0
		for _, a := range n.Addresses {
			ip := a.Prefix.Addr()
			if a.Tentative || a.Duplicate {
				continue
			}
			networks = append(networks, a.Prefix.Masked())
			asked = asked || slices.Contains(only, ip)
			switch {
			case ip.Is4() && !from4.IsValid():
				from4 = ip
			case ip.Is6() && ip.IsLinkLocalUnicast() && !from6.IsValid():
				from6 = ip.WithZone(n.Name)
			}
		}
		for _, from := range []netip.Addr{from4, from6} {
			if asked && from.IsValid() {
				links = append(links, mdnsLink{n.Name, from, networks})
			}
		}
	}
	return links
}

// near tells whether an address is on the link: anything else is no answer to a question that did not leave it (RFC 6762, 11).
func (l mdnsLink) near(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(l.networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// open makes a socket whose packets go out on the link: IPv4 takes the NIC that has the address that it is
// bound to (Linux' net/ipv4/route.c, ip_route_output_key_hash_rcu), IPv6 the one of the zone.
func (l mdnsLink) open() (conn *net.UDPConn, to netip.AddrPort, err error) {
	network, group := "udp4", mdnsGroup4
	if l.from.Is6() {
		network, group = "udp6", mdnsGroup6.WithZone(l.nic)
	}
	conn, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.from, 0)))
	return conn, netip.AddrPortFrom(group, mdnsPort), err
}

// heard is a packet and the NIC that it came in by.
type heard struct {
	packet []byte
	nic    string
}

// askMDNS asks once on all links, and returns the service when all is known of it. Links on which cannot be asked are
// an error only if there is no other.
func askMDNS(ctx context.Context, links []mdnsLink, name string) (*service, error) {
	ctx, cancel := context.WithTimeout(ctx, mdnsWait)
	defer cancel()
	type place struct {
		conn *net.UDPConn
		to   netip.AddrPort
	}
	var places []place
	var errs []error
	var readers sync.WaitGroup
	packets := make(chan heard)
	defer readers.Wait()
	defer func() {
		for _, p := range places {
			p.conn.Close() // and with it its reader ends
		}
	}()
	defer cancel()
	for _, l := range links {
		conn, to, err := l.open()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		places = append(places, place{conn, to})
		readers.Go(func() { l.read(ctx, conn, packets) })
	}

	s := &service{name: name}
	id := uint16(1 + rand.N(1<<16-1))
	repeat := time.NewTicker(mdnsRepeat)
	defer repeat.Stop()
	for known, n := "-", 0; n < mdnsPackets; { // ask at once, again when there is something new to ask, and in case of loss
		if known != s.host {
			known = s.host
			question, err := s.question(id)
			if err != nil {
				return nil, err
			}
			sent := 0
			for _, p := range places {
				if _, err := p.conn.WriteToUDPAddrPort(question, p.to); err != nil {
					errs = append(errs, err)
				} else {
					sent++
				}
			}
			if sent == 0 {
				return nil, fmt.Errorf("ask multicast DNS: %w", cmp.Or(errors.Join(errs...), errors.New("no NIC with link has an address")))
			}
		}
		select {
		case h := <-packets:
			n++
			_ = s.add(h.packet, id, h.nic) // who sends nonsense is not who we ask
			if s.complete() {
				return s, nil
			}
		case <-repeat.C:
			known = "-"
		case <-ctx.Done():
			n = mdnsPackets
		}
	}
	if s.host != "" {
		return nil, fmt.Errorf("ask multicast DNS: %s is on %s, port %d, and nobody tells the rest (TXT, address)", s.name, s.host, s.port)
	}
	return nil, fmt.Errorf("ask multicast DNS: nobody answers for %s", name)
}

// read hands on what comes from machines on the link, until the socket is closed.
func (l mdnsLink) read(ctx context.Context, conn *net.UDPConn, to chan<- heard) {
	buffer := make([]byte, mdnsPacket)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return // closed, or the NIC is gone
		}
		if !l.near(from.Addr()) {
			continue
		}
		select {
		case to <- heard{slices.Clone(buffer[:n]), l.nic}:
		case <-ctx.Done():
			return
		}
	}
}

// discoverAPI finds the API, and who takes inspection data, by multicast DNS, if that was asked for, and takes the settings that come with it.
func (a *agent) discoverAPI(ctx context.Context) error {
	if a.config.Poll {
		return nil
	}
	discovered := map[string]string{}
	if a.config.UseMDNS {
		options, err := a.discover(ctx, mdnsService, "ipa-api-url")
		if err != nil {
			return err
		}
		maps.Copy(discovered, options)
		if err := a.takeDiscovered(discovered); err != nil {
			return err
		}
		a.console.Stage("discovery", "API %s", strings.Join(a.config.APIURLs, ", "))
	}
	if a.config.Inspection.UseMDNS { // and the API's answer has not said it
		options, err := a.discover(ctx, mdnsInspection, "ipa-inspection-callback-url")
		if err != nil {
			return err
		}
		options["inspection_callback_url"] = strings.TrimRight(options["api_url"], "/") + introspectionPath
		delete(options, "api_url")
		maps.Copy(discovered, options)
		if err := a.takeDiscovered(discovered); err != nil {
			return err
		}
		a.console.Stage("discovery", "inspection data goes to %s", strings.Join(hosts(a.config.Inspection.URLs), ", "))
	}
	return nil
}

// discover finds a service, and returns what it says in options; its URL is api_url. parameter names what would say it without multicast DNS.
func (a *agent) discover(ctx context.Context, name, parameter string) (map[string]string, error) {
	found, err := a.findService(ctx, name)
	if err != nil {
		return nil, hint(err, "that the conductor's side announces itself ("+name+"), and that nothing between keeps multicast from this machine; or give "+parameter)
	}
	options, refused, err := found.options(a.config.MDNSOverrides, func(ip netip.Addr) bool { _, err := sourceFor(ip); return err == nil })
	if err != nil {
		return nil, err
	}
	if server := unproven(options); server != "" && !a.config.Insecure {
		return nil, hint(fmt.Errorf("what answers for %s says %s: anybody can answer, and without https nothing proves who did", name, server),
			"that https is announced; or give "+parameter+", or ipa-insecure=1 if whoever answers is to be believed")
	}
	if a.config.CA == nil && !a.config.Insecure {
		a.console.Stage("discovery", "WARNING: without cafile, whoever has a certificate of any CA in the ramdisk can pass for %s", name)
	}
	if len(refused) > 0 {
		a.console.Stage("discovery", "%d options are not in [mdns] allowed_overrides and left alone: %q", len(refused), refused[:min(len(refused), 5)])
	}
	return options, nil
}

// unproven is a server among the options that cannot prove itself, because it would be talked to in the clear; "" if there is none.
func unproven(options map[string]string) string {
	for _, key := range []string{"api_url", "inspection_callback_url"} {
		for one := range strings.SplitSeq(options[key], ",") {
			if u, err := url.Parse(strings.TrimSpace(one)); err == nil && u.Scheme == "http" {
				return u.Scheme + "://" + u.Host
			}
		}
	}
	return ""
}

// takeDiscovered makes what was discovered count.
func (a *agent) takeDiscovered(options map[string]string) error {
	config, err := a.parseSettings(options)
	if err != nil {
		return hint(err, "what is announced by multicast DNS")
	}
	for _, line := range config.Ignored {
		if !slices.Contains(a.config.Ignored, line) {
			a.console.Stage("discovery", "%s", line)
		}
	}
	return a.useSettings(config)
}

// findService asks until somebody answers, at ever longer intervals.
func (a *agent) findService(ctx context.Context, name string) (*service, error) {
	k, err := a.network()
	if err != nil {
		return nil, err
	}
	for attempt, wait := 1, 100*time.Millisecond; ; attempt, wait = attempt+1, 2*wait {
		state, err := k.State(ctx) // addresses may come late
		if err != nil {
			return nil, fmt.Errorf("read the state of the network: %w", err)
		}
		found, err := askMDNS(ctx, mdnsLinks(state, a.config.MDNSInterfaces), name)
		if err == nil {
			return found, nil
		}
		if attempt >= a.config.MDNSAttempts {
			return nil, err
		}
		a.sayLines("discovery", err.Error())
		if err := sleep(ctx, min(wait, time.Minute)); err != nil {
			return nil, err
		}
	}
}
