// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How Follow asks. Whoever moves a port may take minutes until the switch has done it, and for that long the old network may answer.
const (
	followAsk    = 20 * time.Second // for one answer
	followFirst  = 5 * time.Second  // the first pause; each is twice the one before
	followOften  = 30 * time.Second // the longest of them
	followLong   = 15 * time.Minute // from the beginning, and from each time that a NIC gets link; after that
	followSeldom = 10 * time.Minute // is the pause, or less if a lease ends before
	followLook   = time.Second      // between two looks at the NICs
)

// Follow is for a machine that is put into another network while it runs, without being told. It switches all NICs on, and asks on each of them (and on the
// bonds and VLANs that a plan made) by DHCP and for router advertisements, again and again until ctx ends: more often for a quarter of an hour after the
// beginning and after a NIC gets link. What is given takes the place of the addresses and routes that the NIC had when Follow began, or was given last. A NIC
// on which nobody answers keeps what it has, and what somebody else changes in the meantime is left alone.
//
// said is called, by one goroutine at a time, with a line for each change.
func Follow(ctx context.Context, k Kernel, asker Asker, said func(string)) {
	f := &follower{k: k, asker: asker, said: said, had: map[question]held{}}
	var all sync.WaitGroup
	defer all.Wait()
	link := map[string]NIC{} // as it was when it was looked at last
	linked := map[question]chan struct{}{}
	broken := false
	if have, err := k.State(ctx); err == nil { // they lead to gateways of the old network, and an address may be the same in the new one
		for _, s := range have.Sources {
			f.do(ctx, []Change{RemoveSource{s.Address}})
		}
	}
	for ctx.Err() == nil {
		have, err := k.State(ctx)
		if err != nil && ctx.Err() == nil && !broken {
			f.say(fmt.Sprintf("read the state of the network: %v", err))
		}
		broken = err != nil
		for _, n := range have.asked() {
			before, known := link[n.Name]
			link[n.Name] = n
			if known {
				again := n.Index != before.Index // its driver has started anew, and all that it had is gone
				if again {
					f.begin(ctx, n, have)
				}
				if again || n.Carrier && !before.Carrier {
					for _, m := range followMethods() {
						select {
						case linked[question{n.Name, m}] <- struct{}{}:
						default: // it will look
						}
					}
				}
				continue
			}
			f.begin(ctx, n, have)
			for _, m := range followMethods() {
				q := question{n.Name, m}
				wake := make(chan struct{}, 1)
				linked[q] = wake
				all.Go(func() { f.follow(ctx, q, wake) })
			}
		}
		_ = pause(ctx, followLook) // ctx is looked at
	}
}

func followMethods() []Method { return []Method{DHCP4, Auto6} }

// asked are the NICs on which Follow asks.
func (s State) asked() []NIC {
	return slices.DeleteFunc(slices.Clone(s.NICs), func(n NIC) bool {
		return n.Loopback || n.Master != "" || stacked(n.Kind) && !n.own()
	})
}

// followed returns one of them.
func (s State) followed(name string) (NIC, bool) {
	asked := s.asked()
	at := slices.IndexFunc(asked, func(n NIC) bool { return n.Name == name })
	if at < 0 {
		return NIC{}, false
	}
	return asked[at], true
}

// A follower is one call of Follow.
type follower struct {
	k     Kernel
	asker Asker
	said  func(string)

	mu    sync.Mutex
	had   map[question]held
	first []string // NICs that had addresses when it began: their routes count more
}

// A question is what is asked for, and where.
type question struct {
	nic    string
	method Method
}

// held is what an answer takes the place of.
type held struct {
	addresses []netip.Prefix
	routes    []Route
	lease     Lease          // the last one; without a method if it is to be put in force again
	fixed     []netip.Prefix // IPv6 addresses that no router gave: they stay
	routers   []netip.Addr   // IPv6: all that were heard
}

func (f *follower) say(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said(line)
}

// begin remembers what a NIC has, and lets it be asked on.
func (f *follower) begin(ctx context.Context, n NIC, have State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range followMethods() {
		h := heldBy(n, have, m)
		if len(h.addresses) > 0 && !slices.Contains(f.first, n.Name) {
			f.first = append(f.first, n.Name)
		}
		if m.is6() && n.Options[AcceptRA] == 0 {
			h = held{fixed: h.addresses}
		}
		for _, r := range h.routes {
			if m.is6() && r.Destination.Bits() == 0 {
				h.routers = append(h.routers, r.Gateway)
			}
		}
		f.had[question{n.Name, m}] = h
	}
	var changes []Change
	for o, want := range map[Option]int{IPv6Off: 0, AcceptRA: 1, SkipDead4: 1, SkipDead6: 1} {
		if got, known := n.Options[o]; known && got != want {
			changes = append(changes, SetOption{n.Name, o, want})
		}
	}
	if !n.Up {
		changes = append(changes, SetUp{n.Name}) // after the options
	}
	f.do(ctx, changes)
}

// heldBy is what a NIC has that a method can give.
func heldBy(n NIC, have State, m Method) held {
	var h held
	mine := func(a netip.Addr) bool { return a.Is6() == m.is6() && !a.IsLinkLocalUnicast() }
	for _, a := range n.Addresses {
		if mine(a.Prefix.Addr()) {
			h.addresses = append(h.addresses, a.Prefix)
		}
	}
	for _, r := range have.Routes {
		if r.NIC == n.Name && r.Gateway.IsValid() && r.Destination.Addr().Is6() == m.is6() {
			h.routes = append(h.routes, r.Route)
		}
	}
	return h
}

// do makes changes, and reports whether all could be made. f.mu is held.
func (f *follower) do(ctx context.Context, changes []Change) bool {
	done := true
	for _, c := range changes {
		if err := f.k.Do(ctx, c); err != nil && ctx.Err() == nil {
			f.said(fmt.Sprintf("%s: %v", c, err))
			done = false
		}
	}
	return done && ctx.Err() == nil
}

// follow asks one question until ctx ends.
func (f *follower) follow(ctx context.Context, q question, linked <-chan struct{}) {
	begun := time.Now()
	wait, renew := followFirst, followSeldom
	for ctx.Err() == nil {
		before, lease, err := f.ask(ctx, q)
		if err == nil {
			f.take(ctx, q, before, lease)
			if renew = followSeldom; lease.Renew > 0 {
				renew = min(renew, lease.Renew)
			}
		}
		next := wait
		wait = min(2*wait, followOften)
		if time.Since(begun) > followLong {
			next = renew
		}
		f.mu.Lock()
		ends := f.had[q].lease.ends
		f.mu.Unlock()
		if !ends.IsZero() {
			next = min(next, max(time.Until(ends), time.Second))
		}
		timer := time.NewTimer(next)
		select {
		case <-linked:
			begun, wait = time.Now(), followFirst
			f.mu.Lock() // somebody may have switched it off, and with that its routes have gone
			h := f.had[q]
			h.lease = h.lease.anew()
			f.had[q] = h
			f.mu.Unlock()
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		f.lapse(ctx, q)
	}
}

// ask asks once, and returns the network as it was before the answer.
func (f *follower) ask(ctx context.Context, q question) (State, Lease, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, followAsk, errNoAnswer)
	defer cancel()
	for {
		have, err := f.k.State(ctx)
		if err != nil {
			return State{}, Lease{}, err
		}
		n, there := have.followed(q.nic)
		if !there {
			return have, Lease{}, ErrNoNIC
		}
		local := slices.ContainsFunc(n.Addresses, func(a Address) bool {
			return a.Prefix.Addr().IsLinkLocalUnicast() && a.Prefix.Addr().Is6() && !a.Tentative
		})
		switch {
		case !n.Carrier:
			return have, Lease{}, ErrNoCarrier
		case local || !q.method.is6():
			lease, err := f.asker.Ask(ctx, n, q.method)
			return have, lease.now(), err
		}
		if err := pause(ctx, followLook); err != nil {
			return have, Lease{}, err
		}
	}
}

// take has an answer take the place of what the NIC had before.
func (f *follower) take(ctx context.Context, q question, before State, lease Lease) {
	f.mu.Lock()
	defer f.mu.Unlock()
	have, err := f.k.State(ctx) // another NIC's answer may have changed something
	n, there := have.followed(q.nic)
	if err != nil || !there {
		return
	}
	old := f.had[q]
	now := held{addresses: lease.Addresses, lease: lease, fixed: old.fixed, routers: old.routers}
	if q.method.is6() {
		// The kernel makes addresses and routes of what routers say, and keeps those of a router that is not there any more for hours. So they go with
		// the first answer of another one; should it be a second one of the same network, the kernel makes them again when the first is heard.
		known := len(old.routers) == 0 || slices.Contains(old.routers, lease.Router)
		if !slices.Contains(old.routers, lease.Router) {
			now.routers = append(slices.Clone(old.routers), lease.Router)
		}
		old.addresses = append(slices.Clone(old.addresses), old.lease.Addresses...)
		if known {
			then, _ := before.followed(q.nic)
			all := heldBy(then, before, q.method)
			now.addresses = slices.DeleteFunc(all.addresses, func(a netip.Prefix) bool { return slices.Contains(old.fixed, a) })
			now.routes = all.routes
			old.addresses, old.routes = old.lease.Addresses, nil
		}
	}
	if same(old.lease, lease) {
		if !q.method.is6() {
			now = old
			now.lease = lease // it counts for longer now
		}
		f.had[q] = now
		return
	}
	for _, r := range lease.Routes {
		// The machine's own way out stays with the NICs that had one.
		taken := slices.ContainsFunc(have.Routes, func(h NICRoute) bool {
			return h.NIC != n.Name && h.Destination == r.Destination && h.metric() == r.metric()
		})
		if taken || len(f.first) > 0 && !slices.Contains(f.first, n.Name) {
			r.Metric = firstMetric + n.Index
		}
		r.OnLink = r.Gateway.IsValid() && !r.Gateway.IsLinkLocalUnicast() && !covers(lease.Addresses, r.Gateway)
		now.routes = append(now.routes, r)
	}
	news := len(now.routers) > len(old.routers)
	var changes []Change
	for _, r := range old.routes {
		if !slices.Contains(now.routes, r) {
			changes = append(changes, RemoveRoute{n.Name, r})
		}
	}
	// Before the new ones are there: with the first address of a network the kernel removes all of it.
	for _, a := range old.addresses {
		if !slices.Contains(lease.Addresses, a) {
			changes = append(changes, RemoveAddress{n.Name, a})
		}
	}
	for _, a := range lease.Addresses {
		if !slices.ContainsFunc(n.Addresses, func(h Address) bool { return h.Prefix == a }) {
			changes = append(changes, AddAddress{n.Name, a})
		}
	}
	news = news || len(changes) > 0
	for _, r := range now.routes[len(now.routes)-len(lease.Routes):] { // the kernel may have removed them with the addresses
		news = news || !slices.Contains(old.routes, r)
		changes = append(changes, AddRoute{n.Name, r})
	}
	// Of several NICs, the name servers of all.
	dns := slices.Clone(lease.DNS)
	for other, h := range f.had {
		for _, s := range h.lease.DNS {
			if other != q && !slices.Contains(dns, s) {
				dns = append(dns, s)
			}
		}
	}
	if len(lease.DNS) > 0 {
		changes = append(changes, SetDNS{dns[:min(len(dns), serversMost)]})
	}
	if lease.MTU != 0 && lease.MTU != n.MTU && lease.MTU != old.lease.MTU && (lease.MTU >= least6 || n.Options[IPv6Off] != 0) {
		f.do(ctx, []Change{SetMTU{n.Name, lease.MTU}}) // what the NIC cannot do is not tried again until it loses its link
	}
	if !f.do(ctx, changes) {
		now.lease = now.lease.anew()
	}
	f.had[q] = now
	if news && ctx.Err() == nil {
		f.said(fmt.Sprintf("%s: %s", n.Name, lease))
	}
}

// lapse gives up what was given for a time that is over (RFC 2131, section 4.4.5).
func (f *follower) lapse(ctx context.Context, q question) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.had[q]
	if h.lease.ends.IsZero() || time.Now().Before(h.lease.ends) || ctx.Err() != nil {
		return
	}
	var changes []Change
	if !q.method.is6() { // those of IPv6 are routers', who have times of their own
		for _, r := range h.routes {
			changes = append(changes, RemoveRoute{q.nic, r})
		}
		h.routes = nil
	}
	for _, a := range h.lease.Addresses {
		changes = append(changes, RemoveAddress{q.nic, a})
	}
	h.addresses = slices.DeleteFunc(slices.Clone(h.addresses), func(a netip.Prefix) bool { return slices.Contains(h.lease.Addresses, a) })
	f.said(fmt.Sprintf("%s: the lease of %s has ended, and nobody has renewed it: it is given up", q.nic, list(h.lease.Addresses)))
	f.do(ctx, changes)
	h.lease = Lease{}
	f.had[q] = h
}

// anew is the lease as one that is to be put in force again with the next answer.
func (l Lease) anew() Lease {
	l.Method, l.MTU = "", 0
	return l
}

// same reports whether a lease gives what another one gave.
func same(a, b Lease) bool {
	return a.Method == b.Method && a.Router == b.Router && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Routes, b.Routes) && slices.Equal(a.DNS, b.DNS) && a.MTU == b.MTU
}
