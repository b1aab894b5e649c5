// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Keep asks again for what was given, each time before it ends, until ctx does, and takes
// over what has changed. What has ended is given up, with its routes, and asked for anew at once (RFC 2131, section 4.4.5).
// Every minute it asks for what got no answer; try is that of Acquire, and if nothing led to the conductor, it is tried again with the network as it is, and with what the links are given by then. A NIC that has gone and come again, as with new firmware, has
// nothing of what it had: within a minute that is made again. So is what a NIC lacks that comes for the first time, and its place in a bond or a bridge.
func (a Acquired) Keep(ctx context.Context, k Kernel, asker Asker, try func(context.Context) error, said func(string)) {
	lost := map[asking]bool{} // given once, and ended: any address may take the place
	lapse := func() (ended []asking) {
		a, ended = a.lapse(ctx, k, said)
		for _, q := range ended {
			lost[q] = true
		}
		return ended
	}
	for try != nil && !a.Works {
		if pause(ctx, a.within(searchWait)) != nil {
			return
		}
		lapse()
		if err := a.try(ctx, k, try); err == nil {
			a.Works = true
			break
		}
		clear(lost) // all is asked for now
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
	for q := range lost {
		due[q] = time.Now()
	}
	was := map[string]int{}
	for {
		for _, q := range lapse() {
			due[q] = time.Now()
		}
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
		if pause(ctx, a.within(wait)) != nil {
			return
		}
		if next == (asking{}) || time.Now().Before(due[next]) {
			continue
		}
		at := slices.IndexFunc(a.leases, func(g leased) bool { return next == asking{g.link, g.lease.Method} })
		link := a.base.Links[a.base.index(next.link)]
		asked, cancel := a.untilEnd(ctx)
		lease, err := a.base.ask(asked, k, asker, link, next.method)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil && at < 0 && try != nil && !lost[next] && !a.base.holds(ctx, k, link, lease) {
			err = errors.New("another address than the one that works")
		}
		if err == nil && at >= 0 && len(lease.Addresses) == 0 && len(a.leases[at].lease.Addresses) > 0 { // the address counts until it ends
			err = errors.New("the router answers, and nobody gives the address again")
		}
		due[next] = time.Now().Add(searchWait)
		switch {
		case err != nil && at < 0:
			continue // as before
		case err != nil:
			// Half of what was left at the first time: RFC 2131, section 4.4.5, goes on in this way.
			due[next] = time.Now().Add(max(a.leases[at].lease.Renew/4, min(time.Minute, a.leases[at].lease.Renew)))
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
				a.leases = fresh // it counts for longer now
				continue
			}
		}
		delete(lost, next)
		said(fmt.Sprintf("%s: now %s", next.link, lease))
		works := a.Works
		if a, err = a.become(ctx, k, a.base.with(fresh)); err != nil {
			said(err.Error())
		}
		a.Works = works
	}
}

// ends is when the first of the leases does; the zero Time if none does.
func (a Acquired) ends() time.Time {
	var first time.Time
	for _, g := range a.leases {
		if e := g.lease.ends; !e.IsZero() && (first.IsZero() || e.Before(first)) {
			first = e
		}
	}
	return first
}

// within returns d, or less if a lease ends before; never so little that a caller would not pause.
func (a Acquired) within(d time.Duration) time.Duration {
	if ends := a.ends(); !ends.IsZero() {
		d = min(d, max(time.Until(ends), time.Second))
	}
	return d
}

// end returns a channel that is ready when a lease ends, or nil.
func (a Acquired) end() <-chan time.Time {
	if a.ends().IsZero() {
		return nil
	}
	return time.After(a.within(forever))
}

// untilEnd returns a context that ends with the first of the leases.
func (a Acquired) untilEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.ends().IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, a.within(forever), errNoAnswer)
}

// lapse gives up what was given for a time that is over, and says which that was.
func (a Acquired) lapse(ctx context.Context, k Kernel, said func(string)) (left Acquired, ended []asking) {
	var valid []leased
	var lines []string
	for _, g := range a.leases {
		if e := g.lease.ends; e.IsZero() || time.Now().Before(e) {
			valid = append(valid, g)
			continue
		}
		ended = append(ended, asking{g.link, g.lease.Method})
		lines = append(lines, fmt.Sprintf("%s: the lease of %s has ended, and nobody has renewed it: it is given up, and asked for anew", g.link, list(g.lease.Addresses)))
	}
	if len(ended) == 0 {
		return a, nil
	}
	left, err := a.become(ctx, k, a.base.with(valid))
	if err != nil && ctx.Err() == nil {
		lines = append(lines, err.Error())
	}
	if len(left.leases) == len(a.leases) { // the state of the network could not be read: the next time, then
		lines, ended = lines[len(ended):], nil
	}
	left.Works = a.Works
	for _, line := range lines {
		said(line)
	}
	return left, ended
}

// again makes the network anew if a device of the plan is another than it was, by its index; was holds what they were, and takes what they are: 0 if it is
// not there, below zero until it is switched on, for a driver that still loads its firmware refuses that. If
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
		before, known := was[l.ID]
		switch {
		case !ok && !known:
			was[l.ID] = 0
		case !ok: // it may come again
		case !known || before == -n.Index && n.Up || before == 0 && l.Kind != Physical: // that comes with what it is made of
			was[l.ID] = n.Index
		case before == -n.Index:
			changed = true
		case before != n.Index:
			what := "has gone and come again"
			if before == 0 {
				what = "has come"
			}
			said(fmt.Sprintf("%s: %s %s", l.ID, n.Name, what))
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
