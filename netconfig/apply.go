// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// How long Apply waits. A copper link takes some 3 s to come up, one of 25 Gbit/s
// and more up to 30 s while it trains. Duplicate address detection sends one
// question after at most 1 s and listens for 1 s more (RFC 4862, section 5.4.2).
const (
	carrierFirst = 30 * time.Second // for the first link
	carrierMore  = 5 * time.Second  // for the others, once one is there
	detection    = 5 * time.Second  // for duplicate address detection
	pollEvery    = 100 * time.Millisecond
)

// Apply makes the changes that lead to the plan, goes on where one fails, and
// waits until the links that have addresses have link (at most 30 s, and 5 s from
// the first one on) and their IPv6 addresses are usable (at most 5 s more). It
// returns all that went wrong, joined: [ErrNoNIC], [ErrNoCarrier] and
// [ErrDuplicateAddress] are among the reasons. An error does not mean that the
// network is unusable: whether it is shows when it is used, and [Check] explains.
// To apply a plan twice does nothing the second time.
func (p Plan) Apply(ctx context.Context, k Kernel) error {
	have, err := k.State(ctx)
	if err != nil {
		return fmt.Errorf("read the state of the network: %w", err)
	}
	steps, err := p.Steps(have)
	_, failed := makeAll(ctx, k, steps)
	return errors.Join(err, failed, p.awaitCarrier(ctx, k), p.awaitAddresses(ctx, k))
}

// makeAll makes the changes, goes on where one fails, and returns those that were made. A link whose device cannot be made is left out with all that
// is for it: NICs that would have been its members stay as they are, and may be all that leads to this machine.
func makeAll(ctx context.Context, k Kernel, steps []Step) (made []Change, err error) {
	var errs []error
	out := map[string]bool{} // ids of links
	for _, s := range steps {
		if out[s.Link] {
			continue
		}
		if err := k.Do(ctx, s.Change); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Change, err))
			switch s.Change.(type) {
			case AddBond, AddBridge, AddVLAN:
				out[s.Link] = true
			}
			continue
		}
		made = append(made, s.Change)
	}
	return made, errors.Join(errs...)
}

// awaitCarrier waits for link on the NICs that the plan gives addresses or lets ask for them.
func (p Plan) awaitCarrier(ctx context.Context, k Kernel) error {
	limit := carrierFirst
	for start := time.Now(); ; {
		have, err := k.State(ctx)
		if err != nil {
			return fmt.Errorf("wait for link: %w", err)
		}
		var with, without []NIC
		for _, n := range p.nics(have) {
			if n.Carrier {
				with = append(with, n)
			} else {
				without = append(without, n)
			}
		}
		if len(without) == 0 {
			return nil
		}
		waited := time.Since(start)
		if len(with) > 0 {
			limit = min(limit, waited+carrierMore)
		}
		if waited >= limit {
			var errs []error
			for _, n := range without {
				errs = append(errs, fmt.Errorf("%s (%s, %s): %w after %s", n.Name, n.address(), n.condition(), ErrNoCarrier, waited.Round(time.Second)))
			}
			return errors.Join(errs...)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return fmt.Errorf("wait for link: %w", err)
		}
	}
}

// awaitAddresses waits until the kernel knows the IPv6 addresses of the plan to
// be unique. Before that a program cannot bind to them, and a connection would be
// made from another address or not at all. Without link it cannot know.
func (p Plan) awaitAddresses(ctx context.Context, k Kernel) error {
	for start := time.Now(); ; {
		have, err := k.State(ctx)
		if err != nil {
			return fmt.Errorf("wait for addresses: %w", err)
		}
		var tentative []string
		var errs []error
		for _, n := range p.nics(have) {
			for _, a := range n.Addresses {
				switch {
				case !p.has(have, n, a):
				case a.Duplicate:
					errs = append(errs, fmt.Errorf("address %s on %s: %w", a.Prefix, n.Name, ErrDuplicateAddress))
				case a.Tentative && n.Carrier:
					tentative = append(tentative, fmt.Sprintf("%s on %s", a.Prefix, n.Name))
				}
			}
		}
		if len(tentative) == 0 {
			return errors.Join(errs...)
		}
		if time.Since(start) >= detection {
			errs = append(errs, fmt.Errorf("wait for addresses: %s still tentative after %s", strings.Join(tentative, ", "), detection))
			return errors.Join(errs...)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return errors.Join(append(errs, fmt.Errorf("wait for addresses: %w", err))...)
		}
	}
}

// nics returns the NICs that the plan gives addresses. Those that it names in
// vain were reported when the changes were made up.
func (p Plan) nics(have State) []NIC {
	var nics []NIC
	for _, l := range p.Links {
		if len(l.Addresses)+len(l.Auto) == 0 {
			continue
		}
		if n, ok := p.device(l, have); ok {
			nics = append(nics, n)
		}
	}
	return nics
}

// has reports whether the plan gives the NIC this address.
func (p Plan) has(have State, n NIC, a Address) bool {
	for _, l := range p.Links {
		if d, ok := p.device(l, have); ok && d.Name == n.Name && slices.Contains(l.Addresses, a.Prefix) {
			return true
		}
	}
	return false
}

// pause waits for d, or less if ctx ends; then it returns why.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
