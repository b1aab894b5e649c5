// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
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
	searchWait = time.Minute      // until what got no answer, or led nowhere, is asked for again
)

var errNoAnswer = errors.New("no answer")

// Everywhere returns a plan that asks on all NICs of the machine, that with the MAC
// first (the one that the machine was booted from, if it is known) before the others.
func Everywhere(have State, methods []Method, first MAC) Plan {
	p := Plan{Links: []Link{}, DNS: []netip.Addr{}, asking: methods}
	for _, n := range candidates(have) {
		if n.Master != "" {
			continue
		}
		l := Link{ID: n.Name, Kind: Physical, Device: n.Name, Auto: methods}
		if first != "" && first.Is(n.address()) {
			p.Links = slices.Insert(p.Links, 0, l)
		} else {
			p.Links = append(p.Links, l)
		}
	}
	return p
}

// grown returns a plan for all NICs with those that have come since it was made: drivers load firmware, which may take a minute.
func (p Plan) grown(have State) (all Plan, more bool) {
	if p.asking == nil {
		return p, false
	}
	all = p
	all.Links = slices.Clone(p.Links)
	for _, l := range Everywhere(have, p.asking, "").Links {
		if p.index(l.ID) < 0 {
			all.Links = append(all.Links, l)
		}
	}
	return all, len(all.Links) > len(p.Links)
}

// grow is a with the NICs that have come.
func (a Acquired) grow(have State) (Acquired, bool) {
	all, more := a.base.grown(have)
	if !more {
		return a, false
	}
	next := all.with(a.leases)
	next.Works = a.Works
	return next, true
}

// Configured reports whether some NIC has an address that is not only for its link,
// and there is a default route: somebody has set the network up already.
func (s State) Configured() bool {
	route := slices.ContainsFunc(s.Routes, func(r NICRoute) bool { return r.Destination.Bits() == 0 })
	return route && slices.ContainsFunc(s.NICs, NIC.Addressed)
}

// Addressed reports whether the NIC has an address that is not only for its link.
func (n NIC) Addressed() bool {
	return !n.Loopback && slices.ContainsFunc(n.Addresses, func(a Address) bool { return !a.Prefix.Addr().IsLinkLocalUnicast() })
}

// Automatic reports whether a link of the plan gets addresses by itself.
func (p Plan) Automatic() bool {
	return slices.ContainsFunc(p.Links, func(l Link) bool { return len(l.Auto) > 0 })
}

// Acquired is a plan with what its links were given.
type Acquired struct {
	Plan   Plan
	Works  bool // it was tried, with success
	base   Plan // without what was given
	leases []leased
}

// NTP returns the time servers that the links were given, in the order of the plan.
func (a Acquired) NTP() []netip.Addr {
	var all []netip.Addr
	for _, g := range a.leases {
		for _, s := range g.lease.NTP {
			if !slices.Contains(all, s) && len(all) < serversMost {
				all = append(all, s)
			}
		}
	}
	return all
}

type leased struct {
	link  string
	lease Lease
}

// same reports whether a link was given the same again.
func (l leased) same(other leased) bool {
	return l.link == other.link && l.lease.Method == other.lease.Method && slices.Equal(l.lease.Addresses, other.lease.Addresses) &&
		slices.Equal(l.lease.Routes, other.lease.Routes) && slices.Equal(l.lease.DNS, other.lease.DNS) && l.lease.MTU == other.lease.MTU
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
// is kept; if none does, the first one that answered. What did not succeed is taken back, and what it had displaced
// is there again. try is called with a time limit.
//
// Who did not answer is part of the (joined) error; what was given is in force all the
// same. said is called with lines for people.
func (p Plan) Acquire(ctx context.Context, k Kernel, asker Asker, try func(context.Context) error, said func(string)) (Acquired, error) {
	return p.with(nil).acquire(ctx, k, asker, try, said)
}

// Resume tries the network as it is, which an earlier program has set up by this plan. If it works, [Acquired.Keep] goes on
// with what the NICs were given then.
func (p Plan) Resume(ctx context.Context, k Kernel, try func(context.Context) error) (Acquired, error) {
	a := p.with(nil)
	err := a.try(ctx, k, try)
	a.Works = err == nil
	return a, err
}

// acquire is Acquire, with what was given before in the place of what leads nowhere.
func (a Acquired) acquire(ctx context.Context, k Kernel, asker Asker, try func(context.Context) error, said func(string)) (Acquired, error) {
	var errs []error
	if have, err := k.State(ctx); err == nil { // else it is told below
		a, _ = a.grow(have)
	}
	p := a.base
	if _, err := a.make(ctx, k); err != nil {
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
		var one answer
		select {
		case one = <-answers:
			open--
		case <-late:
			enough(errNoAnswer)
			late = nil
			continue
		case <-ctx.Done():
			return a, errors.Join(append(errs, context.Cause(ctx))...)
		}
		if one.err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", one.link, one.method, one.err))
			continue
		}
		said(fmt.Sprintf("%s: %s", one.link, one.lease))
		got = append(got, one.leased)
		if !slices.Contains(order, one.link) {
			order = append(order, one.link)
		}
		if try == nil {
			if late == nil {
				late = time.After(moreWait)
			}
			next, err := a.become(ctx, k, p.with(got))
			if err != nil {
				errs = append(errs, err)
			}
			a = next
			continue
		}
		if slices.ContainsFunc(a.leases, one.same) {
			continue // in force already, and tried: Keep has just done so
		}
		next, err := a.instead(ctx, k, p.with(of(got, one.link)), try)
		if err == nil {
			return next, nil
		}
		errs = append(errs, fmt.Errorf("with what %s was given: %w", one.link, err))
	}
	if try != nil && len(order) > 0 {
		kept := of(got, order[0])
		if len(a.leases) > 0 && slices.Contains(order, a.leases[0].link) { // and what it was given before, unless that was given anew
			kept = of(got, a.leases[0].link)
			for _, old := range a.leases {
				if !slices.ContainsFunc(kept, func(g leased) bool { return g.lease.Method == old.lease.Method }) {
					kept = append(kept, old)
				}
			}
		}
		next, err := a.become(ctx, k, p.with(kept))
		if err != nil {
			errs = append(errs, err)
		}
		a = next
	}
	return a, errors.Join(errs...)
}

// instead tries next in the place of a. If it leads nowhere, all is as it was.
func (a Acquired) instead(ctx context.Context, k Kernel, next Acquired, try func(context.Context) error) (Acquired, error) {
	bare, err := a.become(ctx, k, a.base.with(nil))
	errs := []error{err}
	undo, err := next.make(ctx, k)
	errs = append(errs, err)
	if err := next.try(ctx, k, try); err != nil {
		for _, c := range slices.Backward(undo) {
			_ = k.Do(ctx, c) // what is gone already is no matter
		}
		_, err2 := bare.become(ctx, k, a)
		return a, errors.Join(append(errs, err, err2)...)
	}
	next.Works = true
	return next, nil
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
	if len(l.NTP) > 0 {
		text += ", ntp " + list(l.NTP)
	}
	if l.MTU != 0 {
		text += fmt.Sprintf(", mtu %d", l.MTU)
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
		n, ok := p.device(l, have)
		if !ok {
			return ErrNoNIC
		}
		missing := errors.New("the router advertises no network for addresses")
		for _, a := range n.Addresses {
			switch {
			case a.Prefix.Addr().Is4() || a.Prefix.Addr().IsLinkLocalUnicast():
			case a.Duplicate:
				missing = fmt.Errorf("address %s: %w", a.Prefix, ErrDuplicateAddress)
			case !a.Tentative:
				return nil
			}
		}
		if time.Since(start) > detection {
			return missing
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// index returns the place of a link in the plan.
func (p Plan) index(id string) int {
	return slices.IndexFunc(p.Links, func(l Link) bool { return l.ID == id })
}

// with returns the plan with what was given added to it. Of default routes that several links were given, the first in the plan is preferred,
// whoever answered first: so an agent that is started again leaves all as it is.
func (p Plan) with(given []leased) Acquired {
	given = slices.SortedStableFunc(slices.Values(given), func(x, y leased) int {
		i, j := p.index(x.link), p.index(y.link)
		if i == j && i >= 0 {
			return slices.Index(p.Links[i].Auto, x.lease.Method) - slices.Index(p.Links[i].Auto, y.lease.Method)
		}
		return i - j
	})
	a := Acquired{Plan: Plan{Links: slices.Clone(p.Links), DNS: slices.Clone(p.DNS)}, base: p, leases: given}
	type slot struct {
		destination netip.Prefix
		metric      int
	}
	taken := map[slot]bool{}
	for i := range a.Plan.Links {
		l := &a.Plan.Links[i]
		l.Addresses, l.Routes = slices.Clone(l.Addresses), slices.Clone(l.Routes)
		for _, r := range l.Routes {
			taken[slot{r.Destination, r.metric()}] = true
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
			is6 := slices.ContainsFunc(l.Auto, Method.is6) || slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
			if l.MTU == 0 && (g.lease.MTU >= least6 || !is6) {
				l.MTU = g.lease.MTU
			}
			for _, r := range g.lease.Routes {
				for n := firstMetric; taken[slot{r.Destination, r.metric()}]; n++ {
					r.Metric = n
				}
				taken[slot{r.Destination, r.metric()}] = true
				r.OnLink = r.Gateway.IsValid() && !r.Gateway.IsLinkLocalUnicast() && !covers(l.Addresses, r.Gateway)
				l.Routes = append(l.Routes, r)
			}
		}
		if len(p.DNS) == 0 && !p.IgnoreDNS { // those that were described count, else those given
			for _, s := range g.lease.DNS {
				if !slices.Contains(a.Plan.DNS, s) {
					a.Plan.DNS = append(a.Plan.DNS, s)
				}
			}
		}
	}
	return a
}

// make makes the changes, and does not wait for link. What it returns takes the addresses, routes and name servers back, the last first.
func (a Acquired) make(ctx context.Context, k Kernel) (undo []Change, err error) {
	have, err := k.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the state of the network: %w", err)
	}
	steps, err := a.Plan.Steps(have)
	made, failed := makeAll(ctx, k, steps)
	for _, c := range made {
		switch c := c.(type) {
		case AddAddress:
			undo = append(undo, RemoveAddress(c))
		case AddRoute:
			undo = append(undo, RemoveRoute(c))
		case RemoveRoute:
			undo = append(undo, AddRoute(c))
		case SetMTU:
			if before := have.nic(c.NIC).MTU; before != 0 {
				undo = append(undo, SetMTU{c.NIC, before})
			}
		case SetDNS:
			undo = append(undo, SetDNS{have.DNS})
		}
	}
	return undo, errors.Join(err, failed)
}

// become takes away what a was given and next was not, and adds what is missing. The plans differ in nothing else.
func (a Acquired) become(ctx context.Context, k Kernel, next Acquired) (Acquired, error) {
	have, err := k.State(ctx)
	if err != nil {
		return a, fmt.Errorf("read the state of the network: %w", err)
	}
	for i, l := range a.Plan.Links {
		n, ok := a.Plan.device(l, have)
		if !ok {
			continue
		}
		for _, r := range l.Routes {
			if !slices.Contains(next.Plan.Links[i].Routes, r) {
				_ = k.Do(ctx, RemoveRoute{n.Name, r}) // what is gone already is no matter
			}
		}
		for _, address := range l.Addresses {
			if !slices.Contains(next.Plan.Links[i].Addresses, address) {
				_ = k.Do(ctx, RemoveAddress{n.Name, address})
			}
		}
	}
	_, err = next.make(ctx, k)
	return next, err
}

func (a Acquired) try(ctx context.Context, k Kernel, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tryWait, errors.New("no answer"))
	defer cancel()
	unusable := a.Plan.awaitAddresses(ctx, k)
	if err := try(ctx); err != nil {
		return errors.Join(unusable, err)
	}
	return nil // by another address, if one is not usable: there are two families
}

// Keep asks again for what was given, each time before it ends, until ctx does, and takes
// over what has changed. Every minute it asks for what got no answer; try is that of Acquire, and if nothing led to the conductor,
// it is tried again with the network as it is, and with what the links are given by then. A NIC that has gone and come again, as with new firmware, has
// nothing of what it had: within a minute that is made again.
func (a Acquired) Keep(ctx context.Context, k Kernel, asker Asker, try func(context.Context) error, said func(string)) {
	for try != nil && !a.Works {
		if pause(ctx, searchWait) != nil {
			return
		}
		if err := a.try(ctx, k, try); err == nil {
			a.Works = true
			break
		}
		var err error
		if a, err = a.acquire(ctx, k, asker, try, said); err != nil && ctx.Err() == nil {
			said(err.Error())
		}
	}
	due := map[asking]time.Time{}
	for _, q := range a.questions(ctx, k, try != nil) {
		due[q] = time.Now().Add(searchWait)
	}
	for _, g := range a.leases {
		if g.lease.Renew > 0 {
			due[asking{g.link, g.lease.Method}] = time.Now().Add(g.lease.Renew)
		}
	}
	was := map[string]int{}
	for {
		before := len(a.base.Links)
		var err error
		if a, err = a.again(ctx, k, was, try == nil, said); err != nil && ctx.Err() == nil {
			said(err.Error())
		}
		for _, l := range a.base.Links[before:] {
			for _, m := range l.Auto {
				due[asking{l.ID, m}] = time.Now()
			}
		}
		var next asking
		for q := range due {
			if next == (asking{}) || due[q].Before(due[next]) || due[q].Equal(due[next]) && q.link+string(q.method) < next.link+string(next.method) {
				next = q
			}
		}
		wait := searchWait
		if next != (asking{}) {
			wait = min(wait, max(time.Until(due[next]), time.Second))
		}
		if pause(ctx, wait) != nil {
			return
		}
		if next == (asking{}) || time.Now().Before(due[next]) {
			continue
		}
		at := slices.IndexFunc(a.leases, func(g leased) bool { return next == asking{g.link, g.lease.Method} })
		link := a.base.Links[a.base.index(next.link)]
		lease, err := a.base.ask(ctx, k, asker, link, next.method)
		if ctx.Err() != nil {
			return
		}
		if err == nil && at < 0 && try != nil && !a.base.holds(ctx, k, link, lease) {
			err = errors.New("another address than the one that works")
		}
		due[next] = time.Now().Add(searchWait)
		switch {
		case err != nil && at < 0:
			continue // as before
		case err != nil:
			// Half of what was left at the first time: RFC 2131, section 4.4.5, goes on in this way.
			due[next] = time.Now().Add(max(a.leases[at].lease.Renew/4, time.Minute))
			said(fmt.Sprintf("%s: %s: asked for again: %v", next.link, next.method, err))
			continue
		case lease.Renew > 0:
			due[next] = time.Now().Add(lease.Renew)
		default:
			delete(due, next)
		}
		fresh := slices.Clone(a.leases)
		if at < 0 {
			fresh = append(fresh, leased{next.link, lease})
		} else {
			fresh[at].lease = lease
			if fresh[at].same(a.leases[at]) {
				continue
			}
		}
		said(fmt.Sprintf("%s: now %s", next.link, lease))
		works := a.Works
		if a, err = a.become(ctx, k, a.base.with(fresh)); err != nil {
			said(err.Error())
		}
		a.Works = works
	}
}

// again makes the network anew if a device of the plan is another than it was, by its index; was holds what they were, and takes what they are, below zero
// until it is switched on: a driver that still loads its firmware refuses that. If
// that is wanted, and the plan is for all NICs, those that have come are switched on too.
func (a Acquired) again(ctx context.Context, k Kernel, was map[string]int, more bool, said func(string)) (Acquired, error) {
	have, err := k.State(ctx)
	if err != nil {
		return a, fmt.Errorf("read the state of the network: %w", err)
	}
	changed := false
	if more {
		a, changed = a.grow(have)
	}
	for _, l := range a.Plan.Links {
		n, ok := a.Plan.device(l, have)
		if !ok {
			continue // it may come again
		}
		switch before, known := was[l.ID]; {
		case !known || before == -n.Index && n.Up:
			was[l.ID] = n.Index
		case before == -n.Index:
			changed = true
		case before != n.Index:
			said(fmt.Sprintf("%s: %s has gone and come again", l.ID, n.Name))
			was[l.ID], changed = -n.Index, true
		}
	}
	if !changed {
		return a, nil
	}
	_, err = a.make(ctx, k)
	return a, err
}

// asking is what a link of a plan asks for.
type asking struct {
	link   string
	method Method
}

// questions returns those that got no answer. If one way was chosen, the others are not asked for any more; where an earlier program chose it,
// those links are asked that have an address.
func (a Acquired) questions(ctx context.Context, k Kernel, chosen bool) []asking {
	have, err := k.State(ctx)
	if err != nil || chosen && len(a.leases) > 0 {
		return nil
	}
	var all []asking
	for _, l := range a.base.Links {
		n, _ := a.base.device(l, have)
		for _, m := range l.Auto {
			answered := slices.ContainsFunc(a.leases, func(g leased) bool { return g.link == l.ID && g.lease.Method == m })
			has := slices.ContainsFunc(n.Addresses, func(h Address) bool {
				return h.Prefix.Addr().Is6() == m.is6() && !h.Prefix.Addr().IsLinkLocalUnicast()
			})
			if !answered && (has || !chosen) {
				all = append(all, asking{l.ID, m})
			}
		}
	}
	return all
}

// holds reports whether the link has all addresses of the lease.
func (p Plan) holds(ctx context.Context, k Kernel, l Link, lease Lease) bool {
	have, err := k.State(ctx)
	if err != nil {
		return false
	}
	n, _ := p.device(l, have)
	for _, a := range lease.Addresses {
		if !slices.ContainsFunc(n.Addresses, func(h Address) bool { return h.Prefix == a }) {
			return false
		}
	}
	return len(lease.Addresses) > 0
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
	lasts := m.IPAddressLeaseTime(time.Hour)
	l.Renew = m.IPAddressRenewalTime(lasts / 2)
	if l.Renew >= lasts { // which makes no sense
		l.Renew = lasts / 2
	}
	l.Renew = max(l.Renew, time.Minute)
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
			l.Renew = ia.T1
			if l.Renew == 0 || l.Renew >= one.ValidLifetime { // it is for us to say
				l.Renew = min(one.PreferredLifetime, one.ValidLifetime) / 2
			}
			l.Renew = max(l.Renew, time.Minute)
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
