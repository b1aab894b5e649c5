// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	Renew     time.Duration // after this it is to be asked for again; 0 is never
	Router    netip.Addr    // IPv6: whose advertisement it was; the zero Addr without one
}

// Asker asks on a NIC that has link for what a method gives, and repeats itself until
// there is an answer or ctx ends. [NewAsker] gives one for the running kernel.
type Asker interface {
	Ask(ctx context.Context, n NIC, m Method) (Lease, error)
}

// How long Acquire waits: for link as Apply does, and then for an answer. A switch with
// spanning tree passes nothing on in the first 30 s.
const (
	answerWait = 45 * time.Second
	moreWait   = 10 * time.Second // for the other answers, once one is there and nothing is tried
	tryWait    = 15 * time.Second // for the conductor, by what one NIC was given
)

var errNoAnswer = errors.New("no answer")

// Everywhere returns a plan that asks on all NICs of the machine, that with the MAC
// first (the one that the machine was booted from, if it is known) before the others.
func Everywhere(have State, methods []Method, first MAC) Plan {
	p := Plan{Links: []Link{}, DNS: []netip.Addr{}}
	for _, n := range candidates(have) {
		if n.Master != "" {
			continue
		}
		l := Link{ID: n.Name, Kind: Physical, Device: n.Name, Auto: methods}
		if first != "" && n.address() == first {
			p.Links = slices.Insert(p.Links, 0, l)
		} else {
			p.Links = append(p.Links, l)
		}
	}
	return p
}

// Configured reports whether some NIC has an address that is not only for its link,
// and there is a default route: somebody has set the network up already.
func (s State) Configured() bool {
	route := slices.ContainsFunc(s.Routes, func(r NICRoute) bool { return r.Destination.Bits() == 0 })
	return route && slices.ContainsFunc(s.NICs, func(n NIC) bool {
		return !n.Loopback && slices.ContainsFunc(n.Addresses, func(a Address) bool { return !a.Prefix.Addr().IsLinkLocalUnicast() })
	})
}

// Automatic reports whether a link of the plan gets addresses by itself.
func (p Plan) Automatic() bool {
	return slices.ContainsFunc(p.Links, func(l Link) bool { return len(l.Auto) > 0 })
}

// Acquired is a plan with what its links were given.
type Acquired struct {
	Plan   Plan
	leases []leased
}

type leased struct {
	link  string
	lease Lease
}

type answer struct {
	leased
	method Method
	err    error
}

// Acquire makes the changes that lead to the plan, as Apply does but without its waiting,
// asks on all links that want it at once, and makes what they are given part of the network.
//
// Without try it returns when all have answered or given up, and 10 s after the first answer (or the start, if the plan has an address of its own) at the
// latest. With try, what one link was given
// is tried alone, in the order of the answers, and the first with which try succeeds
// is kept; if none does, the first one that answered. try is called with a time limit.
//
// Who did not answer is part of the (joined) error; what was given is in force all the
// same. said is called with lines for people.
func (p Plan) Acquire(ctx context.Context, k Kernel, asker Asker, try func(context.Context) error, said func(string)) (Acquired, error) {
	var errs []error
	if err := p.with(nil).make(ctx, k); err != nil {
		errs = append(errs, err)
	}
	asking, enough := context.WithCancelCause(ctx)
	defer enough(nil)
	open := 0
	for _, l := range p.Links {
		open += len(l.Auto)
	}
	answers := make(chan answer, open)
	for _, l := range p.Links {
		for _, m := range l.Auto {
			go func() {
				lease, err := p.ask(asking, k, asker, l, m)
				answers <- answer{leased{l.ID, lease}, m, err}
			}()
		}
	}
	var got []leased
	var order []string        // of links, as they answered
	var late <-chan time.Time // when the others need not answer any more
	if try == nil && slices.ContainsFunc(p.Links, func(l Link) bool { return len(l.Addresses) > 0 }) {
		late = time.After(moreWait) // an address that is described is an answer too
	}
	for open > 0 {
		var a answer
		select {
		case a = <-answers:
			open--
		case <-late:
			enough(errNoAnswer)
			late = nil
			continue
		case <-ctx.Done():
			return p.with(got), errors.Join(append(errs, context.Cause(ctx))...)
		}
		if a.err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", a.link, a.method, a.err))
			continue
		}
		said(fmt.Sprintf("%s: %s", a.link, a.lease))
		got = append(got, a.leased)
		if !slices.Contains(order, a.link) {
			order = append(order, a.link)
		}
		if try == nil {
			if late == nil {
				late = time.After(moreWait)
			}
			if err := p.with(got).make(ctx, k); err != nil {
				errs = append(errs, err)
			}
			continue
		}
		one := p.with(of(got, a.link))
		if err := one.make(ctx, k); err != nil {
			errs = append(errs, err)
		}
		err := one.try(ctx, k, try)
		if err == nil {
			return one, nil
		}
		errs = append(errs, fmt.Errorf("with what %s was given: %w", a.link, err))
		one.undo(ctx, k)
	}
	if try != nil && len(order) > 0 {
		got = of(got, order[0])
		if err := p.with(got).make(ctx, k); err != nil {
			errs = append(errs, err)
		}
	}
	return p.with(got), errors.Join(errs...)
}

// of returns the leases of one link.
func of(all []leased, link string) []leased {
	return slices.DeleteFunc(slices.Clone(all), func(l leased) bool { return l.link != link })
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
	return text
}

// ask waits for link, and then for an answer.
func (p Plan) ask(ctx context.Context, k Kernel, asker Asker, l Link, m Method) (Lease, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerWait, errNoAnswer)
	defer cancel()
	for start := time.Now(); ; {
		have, err := k.State(ctx)
		if err != nil {
			return Lease{}, err
		}
		n, ok := p.device(l, have)
		if !ok {
			return Lease{}, ErrNoNIC
		}
		// DHCPv6 and solicitations go out from the link-local address.
		local := slices.ContainsFunc(n.Addresses, func(a Address) bool {
			return a.Prefix.Addr().IsLinkLocalUnicast() && a.Prefix.Addr().Is6() && !a.Tentative
		})
		if n.Carrier && (local || !m.is6()) {
			lease, err := asker.Ask(ctx, n, m)
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err == nil && m.is6() && len(lease.Addresses) == 0 {
				err = p.awaitOwn(ctx, k, l)
			}
			if err != nil {
				return Lease{}, err
			}
			return lease, nil
		}
		if !n.Carrier && time.Since(start) > carrierFirst {
			return Lease{}, ErrNoCarrier
		}
		if err := pause(ctx, pollEvery); err != nil {
			return Lease{}, err
		}
	}
}

// awaitOwn waits for an address that the kernel makes from an advertisement.
func (p Plan) awaitOwn(ctx context.Context, k Kernel, l Link) error {
	for start := time.Now(); ; {
		have, err := k.State(ctx)
		if err != nil {
			return err
		}
		n, _ := p.device(l, have)
		if slices.ContainsFunc(n.Addresses, func(a Address) bool {
			return a.Prefix.Addr().Is6() && !a.Prefix.Addr().IsLinkLocalUnicast() && !a.Tentative
		}) {
			return nil
		}
		if time.Since(start) > detection {
			return errors.New("the router advertises no network for addresses")
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// with returns the plan with what was given added to it.
func (p Plan) with(given []leased) Acquired {
	a := Acquired{Plan: Plan{Links: slices.Clone(p.Links), DNS: slices.Clone(p.DNS)}, leases: given}
	type place struct {
		destination netip.Prefix
		metric      int
	}
	taken := map[place]bool{}
	for i := range a.Plan.Links {
		l := &a.Plan.Links[i]
		l.Addresses, l.Routes = slices.Clone(l.Addresses), slices.Clone(l.Routes)
		for _, r := range l.Routes {
			taken[place{r.Destination, r.metric()}] = true
		}
	}
	for _, g := range given {
		for i := range a.Plan.Links {
			l := &a.Plan.Links[i]
			if l.ID != g.link {
				continue
			}
			for _, address := range g.lease.Addresses {
				if !slices.Contains(l.Addresses, address) {
					l.Addresses = append(l.Addresses, address)
				}
			}
			for _, r := range g.lease.Routes {
				for n := firstMetric; taken[place{r.Destination, r.metric()}]; n++ {
					r.Metric = n
				}
				taken[place{r.Destination, r.metric()}] = true
				r.OnLink = r.Gateway.IsValid() && !r.Gateway.IsLinkLocalUnicast() && !covers(l.Addresses, r.Gateway)
				l.Routes = append(l.Routes, r)
			}
		}
		if len(p.DNS) == 0 { // those that were described count, else those given
			for _, s := range g.lease.DNS {
				if !slices.Contains(a.Plan.DNS, s) {
					a.Plan.DNS = append(a.Plan.DNS, s)
				}
			}
		}
	}
	return a
}

// make makes the changes, and does not wait for link.
func (a Acquired) make(ctx context.Context, k Kernel) error {
	have, err := k.State(ctx)
	if err != nil {
		return fmt.Errorf("read the state of the network: %w", err)
	}
	changes, err := a.Plan.Changes(have)
	errs := []error{err}
	for _, c := range changes {
		if err := k.Do(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c, err))
		}
	}
	return errors.Join(errs...)
}

func (a Acquired) try(ctx context.Context, k Kernel, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tryWait, errors.New("no answer"))
	defer cancel()
	return errors.Join(a.Plan.awaitAddresses(ctx, k), try(ctx))
}

// undo takes away what was given. What is gone already is no matter.
func (a Acquired) undo(ctx context.Context, k Kernel) {
	have, err := k.State(ctx)
	if err != nil {
		return
	}
	for _, g := range a.leases {
		for _, l := range a.Plan.Links {
			n, ok := a.Plan.device(l, have)
			if !ok || l.ID != g.link {
				continue
			}
			for _, r := range l.Routes {
				_ = k.Do(ctx, RemoveRoute{n.Name, r})
			}
			for _, address := range g.lease.Addresses {
				_ = k.Do(ctx, RemoveAddress{n.Name, address})
			}
		}
	}
}

// Keep asks again for what was given, each time before it ends, until ctx does, and takes
// over what has changed.
func (a Acquired) Keep(ctx context.Context, k Kernel, asker Asker, said func(string)) {
	due := make([]time.Time, len(a.leases))
	for i, g := range a.leases {
		due[i] = time.Now().Add(g.lease.Renew)
	}
	for {
		next := -1
		for i, g := range a.leases {
			if g.lease.Renew > 0 && (next < 0 || due[i].Before(due[next])) {
				next = i
			}
		}
		if next < 0 || pause(ctx, max(time.Until(due[next]), time.Second)) != nil {
			return
		}
		g := &a.leases[next]
		at := slices.IndexFunc(a.Plan.Links, func(l Link) bool { return l.ID == g.link })
		lease, err := a.Plan.ask(ctx, k, asker, a.Plan.Links[at], g.lease.Method)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			// Half of what was left at the first time: RFC 2131, section 4.4.5, goes on in this way.
			due[next] = time.Now().Add(max(g.lease.Renew/4, time.Minute))
			said(fmt.Sprintf("%s: %s: asked for again: %v", g.link, g.lease.Method, err))
			continue
		}
		due[next] = time.Now().Add(lease.Renew)
		if slices.Equal(lease.Addresses, g.lease.Addresses) && slices.Equal(lease.Routes, g.lease.Routes) && slices.Equal(lease.DNS, g.lease.DNS) {
			continue
		}
		said(fmt.Sprintf("%s: now %s", g.link, lease))
		a.undo(ctx, k)
		fresh := slices.Clone(a.leases)
		fresh[next].lease = lease
		base := a.Plan
		base.Links = slices.Clone(base.Links)
		for i := range base.Links { // without what was given
			l := &base.Links[i]
			for _, old := range of(a.leases, l.ID) {
				l.Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), func(p netip.Prefix) bool { return slices.Contains(old.lease.Addresses, p) })
				l.Routes = slices.DeleteFunc(slices.Clone(l.Routes), func(r Route) bool {
					return slices.ContainsFunc(old.lease.Routes, func(o Route) bool { return o.Destination == r.Destination && o.Gateway == r.Gateway })
				})
			}
		}
		for _, old := range a.leases {
			base.DNS = slices.DeleteFunc(slices.Clone(base.DNS), func(s netip.Addr) bool { return slices.Contains(old.lease.DNS, s) })
		}
		a = base.with(fresh)
		if err := a.make(ctx, k); err != nil {
			said(err.Error())
		}
	}
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
	for _, ip := range m.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() && !a.IsMulticast() && len(l.DNS) < serversMost {
			l.DNS = append(l.DNS, a)
		}
	}
	lasts := m.IPAddressLeaseTime(time.Hour)
	l.Renew = max(m.IPAddressRenewalTime(lasts/2), time.Minute)
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
			l.Renew = max(ia.T1, one.PreferredLifetime/2, time.Minute)
			break
		}
		if len(l.Addresses) == 0 {
			return l, errors.New("the answer has no address that can be used")
		}
	}
	for _, ip := range m.Options.DNS() {
		if a, ok := netip.AddrFromSlice(ip); ok && !a.IsUnspecified() && !a.IsMulticast() && len(l.DNS) < serversMost {
			l.DNS = append(l.DNS, a.Unmap())
		}
	}
	return l, nil
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
