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
