// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// fakeKernel keeps a network and changes it as Linux would. Its cables are what
// a test says; neighbours answer if they are in answers.
type fakeKernel struct {
	mu      sync.Mutex
	state   State
	cables  map[string]time.Duration // NIC -> from switching on to link; absent: none
	fails   map[string]error         // text of a change -> what becomes of it
	dup     map[netip.Addr]bool      // IPv6 addresses that another machine has
	answers map[netip.Addr]MAC       // neighbours
	dad     time.Duration            // time for duplicate address detection, from link
	since   map[string]time.Time     // NIC -> when it was switched on
	asked   map[netip.Addr]time.Time // neighbour -> when
	broken  error                    // what State returns
}

func (k *fakeKernel) State(ctx context.Context) (State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken != nil {
		return State{}, k.broken
	}
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	for i := range k.state.NICs {
		n := &k.state.NICs[i]
		delay, cable := k.cables[n.Name]
		up := time.Since(k.since[n.Name])
		n.Carrier = n.Up && cable && up >= delay
		if n.Kind == "bond" || n.Kind == "bridge" || n.Kind == "vlan" { // have link when one below has
			n.Carrier = false
			for _, below := range k.state.NICs {
				n.Carrier = n.Carrier || n.Up && below.Carrier && (below.Master == n.Name || below.Name == n.Parent)
			}
		}
		for j := range n.Addresses {
			a := &n.Addresses[j]
			if a.Tentative && n.Carrier && up >= delay+k.dad {
				a.Duplicate = k.dup[a.Prefix.Addr()]
				a.Tentative = a.Duplicate
			}
		}
	}
	k.state.Neighbors = nil
	for a, when := range k.asked {
		n := Neighbor{NIC: "eth0", Address: a, MAC: k.answers[a]}
		n.Failed = n.MAC == "" && time.Since(when) >= 3*time.Second
		k.state.Neighbors = append(k.state.Neighbors, n)
	}
	s := k.state
	s.NICs = slices.Clone(s.NICs)
	for i := range s.NICs {
		s.NICs[i].Addresses = slices.Clone(s.NICs[i].Addresses)
		s.NICs[i].Options = maps.Clone(s.NICs[i].Options)
	}
	s.Routes, s.Sources = slices.Clone(s.Routes), slices.Clone(s.Sources)
	return s, nil
}

func (k *fakeKernel) Do(ctx context.Context, c Change) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := k.fails[c.String()]; err != nil {
		return err
	}
	switch c := c.(type) {
	case SetUp:
		if k.since == nil {
			k.since = map[string]time.Time{}
		}
		k.since[c.NIC] = time.Now()
		k.nic(c.NIC).Up = true
	case SetDown:
		k.down(c.NIC)
	case AddBond, AddBridge, AddVLAN:
		n := NIC{Index: 100 + len(k.state.NICs), MTU: 1500, Options: machine().NICs[0].Options}
		switch c := c.(type) {
		case AddBond:
			bond := c.Bond
			bond.Options = maps.Clone(bond.Options)
			n.Name, n.Kind, n.MAC, n.Alias, n.Bond = c.NIC, "bond", c.MAC, c.Alias, &bond
		case AddBridge:
			n.Name, n.Kind, n.MAC, n.Alias = c.NIC, "bridge", c.MAC, c.Alias
		case AddVLAN:
			below := k.nic(c.Parent)
			n.Name, n.Kind, n.MAC, n.Alias, n.Parent, n.VLAN, n.MTU = c.NIC, "vlan", c.MAC, c.Alias, c.Parent, c.ID, below.MTU
		}
		if slices.ContainsFunc(k.state.NICs, func(have NIC) bool { return have.Name == n.Name }) {
			return errors.New("file exists")
		}
		k.state.NICs = append(k.state.NICs, n)
	case Remove:
		k.down(c.NIC)
		for i := range k.state.NICs {
			if n := &k.state.NICs[i]; n.Master == c.NIC {
				k.release(n)
			}
		}
		k.state.NICs = slices.DeleteFunc(k.state.NICs, func(n NIC) bool { return n.Name == c.NIC || n.Parent == c.NIC })
	case Join:
		n := k.nic(c.NIC)
		switch {
		case c.Master == "":
			k.release(n)
		case n.Master != "":
			return errors.New("device or resource busy")
		case k.nic(c.Master).Kind == "bridge":
			n.Master = c.Master
		case n.Up:
			return errors.New("device can not be enslaved while up")
		default:
			n.Master, n.Up, n.MTU = c.Master, true, k.nic(c.Master).MTU
		}
	case SetMAC:
		if k.nic(c.NIC).Up {
			return errors.New("device or resource busy")
		}
		k.nic(c.NIC).MAC = c.MAC
	case SetMTU:
		if below := k.nic(c.NIC).Parent; below != "" && k.nic(below).MTU < c.MTU {
			return errors.New("numerical result out of range")
		}
		k.nic(c.NIC).MTU = c.MTU
		for i := range k.state.NICs {
			if n := &k.state.NICs[i]; n.Master == c.NIC && k.nic(c.NIC).Kind == "bond" {
				n.MTU = c.MTU
			}
		}
	case SetOption:
		n := k.nic(c.NIC)
		n.Options = maps.Clone(n.Options)
		n.Options[c.Option] = c.Value
	case AddAddress:
		n := k.nic(c.NIC)
		n.Addresses = append(n.Addresses, Address{Prefix: c.Address, Tentative: c.Address.Addr().Is6()})
	case RemoveAddress:
		n := k.nic(c.NIC)
		n.Addresses = slices.DeleteFunc(n.Addresses, func(a Address) bool { return a.Prefix == c.Address })
	case AddRoute:
		if !k.nic(c.NIC).Up {
			return errors.New("network is down")
		}
		for _, r := range k.state.Routes {
			if r.Destination == c.Route.Destination && r.metric() == c.Route.metric() {
				if r.NIC == c.NIC && r.Gateway == c.Route.Gateway {
					return nil
				}
				return errors.New("file exists")
			}
		}
		r := c.Route
		r.Metric = r.metric()
		k.state.Routes = append(k.state.Routes, NICRoute{c.NIC, r})
	case RemoveRoute:
		k.state.Routes = slices.DeleteFunc(k.state.Routes, func(r NICRoute) bool {
			return r.NIC == c.NIC && r.Destination == c.Route.Destination && r.Gateway == c.Route.Gateway && r.metric() == c.Route.metric()
		})
	case SetSource:
		k.removeSource(c.Address)
		k.state.Sources = append(k.state.Sources, c.Source)
	case RemoveSource:
		k.removeSource(c.Address)
	case SetDNS:
		k.state.DNS = c.Servers
	case Listen:
		if len(c.NIC) > 0 {
			k.nic(c.NIC).Heard.For += time.Second
		}
	case AskNeighbor:
		if k.asked == nil {
			k.asked = map[netip.Addr]time.Time{}
		}
		k.asked[c.Address] = time.Now()
	default:
		return fmt.Errorf("unknown change %T", c)
	}
	return nil
}

func (k *fakeKernel) nic(name string) *NIC {
	for i := range k.state.NICs {
		if k.state.NICs[i].Name == name {
			return &k.state.NICs[i]
		}
	}
	panic("no NIC " + name)
}

// release takes a NIC out of what it is in, as Linux does: that of a bond is switched off.
func (k *fakeKernel) release(n *NIC) {
	if n.Master != "" && k.nic(n.Master).Kind == "bond" {
		k.down(n.Name)
	}
	n.Master = ""
}

func (k *fakeKernel) removeSource(a netip.Addr) {
	k.state.Sources = slices.DeleteFunc(k.state.Sources, func(s Source) bool { return s.Address == a })
}

// down switches a device off, and with it go its routes and addresses of IPv6.
func (k *fakeKernel) down(name string) {
	n := k.nic(name)
	n.Up = false
	n.Addresses = slices.DeleteFunc(slices.Clone(n.Addresses), func(a Address) bool { return a.Prefix.Addr().Is6() && !a.Prefix.Addr().IsLinkLocalUnicast() })
	k.state.Routes = slices.DeleteFunc(k.state.Routes, func(r NICRoute) bool { return r.NIC == name })
	k.state.Sources = slices.Clone(k.state.Sources)
	for i := range k.state.Sources {
		if k.state.Sources[i].NIC == name {
			k.state.Sources[i].Routes = nil
		}
	}
}

// String prints what is not as it was on the machine in the beginning.
func (k *fakeKernel) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var b strings.Builder
	for _, n := range k.state.NICs {
		if !n.Up {
			fmt.Fprintf(&b, "%s down\n", n.Name)
			continue
		}
		fmt.Fprintf(&b, "%s up mtu %d", n.Name, n.MTU)
		if n.Master != "" {
			fmt.Fprintf(&b, " in %s", n.Master)
		}
		if n.Alias != "" {
			fmt.Fprintf(&b, " mac %s (%s)", n.MAC, n.Alias)
		}
		if n.Bond != nil {
			fmt.Fprintf(&b, " (%s)", n.Bond)
		}
		if n.Parent != "" {
			fmt.Fprintf(&b, " (%d on %s)", n.VLAN, n.Parent)
		}
		for _, o := range options() {
			if n.Options[o] != machine().NICs[0].Options[o] {
				fmt.Fprintf(&b, " %s=%d", o, n.Options[o])
			}
		}
		for _, a := range n.Addresses {
			fmt.Fprintf(&b, " %s", a.Prefix)
		}
		b.WriteByte('\n')
	}
	for _, r := range k.state.Routes {
		fmt.Fprintf(&b, "route %s\n", r)
	}
	for _, s := range k.state.Sources {
		fmt.Fprintf(&b, "source %s on %s: %s\n", s.Address, s.NIC, list(s.Routes))
	}
	for _, a := range k.state.DNS {
		fmt.Fprintf(&b, "dns %s\n", a)
	}
	return b.String()
}
