// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

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
		case <-a.end():
			a, _ = a.lapse(ctx, k, said)
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
		if at := slices.IndexFunc(a.leases, one.same); at >= 0 {
			a.leases = slices.Clone(a.leases)
			a.leases[at] = one.leased // it counts for longer now
			continue                  // in force already, and tried: Keep has just done so
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
			lease = lease.now()
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
