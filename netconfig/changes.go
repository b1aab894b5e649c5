// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Changes returns what is to be done, in order, to get from have to the plan;
// nothing if all of it is in force. A link whose NIC the machine lacks, or a
// route that something else is in the way of, is left out and is part of the
// (joined) error; the changes for the rest are returned all the same.
func (p Plan) Changes(have State) ([]Change, error) {
	var changes []Change
	var errs []error

	// 1. The loopback device: services of the ramdisk talk over it.
	for _, n := range have.NICs {
		if n.Loopback && !n.Up {
			changes = append(changes, SetUp{n.Name})
		}
	}

	// 2. The links, each with its addresses.
	nics := make([]*NIC, len(p.Links)) // nil: left out
	owned := map[string]string{}       // name of NIC -> id of link
	for i, l := range p.Links {
		nic, err := l.find(have)
		if err == nil && owned[nic.Name] != "" {
			err = fmt.Errorf("%s is taken by link %s", nic.Name, owned[nic.Name])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("link %s: %w", l.ID, err))
			continue
		}
		nics[i], owned[nic.Name] = &nic, l.ID
		more, err := l.changes(nic)
		changes = append(changes, more...)
		if err != nil {
			errs = append(errs, fmt.Errorf("link %s: %w", l.ID, err))
		}
	}

	// 3. The routes, when all links are up and each gateway can be looked up.
	for i, l := range p.Links {
		if nics[i] == nil {
			continue
		}
		for _, r := range l.Routes {
			more, err := r.changes(nics[i].Name, have.Routes, owned)
			changes = append(changes, more...)
			if err != nil {
				errs = append(errs, fmt.Errorf("link %s: %w", l.ID, err))
			}
		}
	}

	// 4. The name servers.
	if len(p.DNS) > 0 && !slices.Equal(p.DNS, have.DNS) {
		changes = append(changes, SetDNS{slices.Clone(p.DNS)})
	}
	return changes, errors.Join(errs...)
}

// changes returns what is to be done to the NIC itself. Options and MTU come
// before the NIC is switched on: from then on it hears router advertisements.
func (l Link) changes(nic NIC) ([]Change, error) {
	var changes []Change
	has6 := slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
	var err error
	if _, known := nic.Options[IPv6Off]; has6 && !known {
		err = fmt.Errorf("%s: this kernel has no IPv6", nic.Name)
		has6 = false
	}

	set := func(o Option, value int) {
		if got, known := nic.Options[o]; known && got != value {
			changes = append(changes, SetOption{nic.Name, o, value})
		}
	}
	if has6 {
		set(IPv6Off, 0)
		set(AcceptRA, 0)
	}
	set(SkipDead4, 1)
	set(SkipDead6, 1)
	if l.MTU != 0 && l.MTU != nic.MTU {
		changes = append(changes, SetMTU{nic.Name, l.MTU})
	}
	if !nic.Up {
		changes = append(changes, SetUp{nic.Name})
	}
	for _, a := range l.Addresses {
		there := slices.ContainsFunc(nic.Addresses, func(h Address) bool { return h.Prefix == a })
		if !there && (has6 || a.Addr().Is4()) {
			changes = append(changes, AddAddress{nic.Name, a})
		}
	}
	return changes, err
}

// changes returns what puts r in force on the NIC. The kernel holds one route
// for each destination and metric: what has the place is removed if it is a way
// over a gateway on a NIC of the plan, and is an error if not.
func (r Route) changes(nic string, have []NICRoute, owned map[string]string) ([]Change, error) {
	var changes []Change
	for _, h := range have {
		if h.Destination != r.Destination || h.metric() != r.metric() {
			continue
		}
		if h.NIC == nic && h.Gateway == r.Gateway {
			return nil, nil
		}
		if owned[h.NIC] == "" || !h.Gateway.IsValid() {
			return nil, fmt.Errorf("route %s: the machine has %s", r.on(nic), h)
		}
		changes = append(changes, RemoveRoute{h.NIC, h.Route})
	}
	return append(changes, AddRoute{nic, r}), nil
}

// find returns the NIC of the link.
//
// The permanent address decides, for a NIC in a bond shows the bond's address as
// its current one. The current address counts only for a NIC without a permanent
// one, and never for a device that stands on another and borrows its address.
func (l Link) find(have State) (NIC, error) {
	if l.Kind != Physical {
		return NIC{}, fmt.Errorf("%s links are not supported yet", l.Kind)
	}
	var found []NIC
	for _, n := range candidates(have) {
		if n.PermanentMAC == l.MAC || n.PermanentMAC == "" && n.MAC == l.MAC {
			found = append(found, n)
		}
	}
	// A virtual function under a paravirtual NIC (netvsc, net_failover) has the
	// address of its master; the master is the one to configure.
	if free := slices.DeleteFunc(slices.Clone(found), func(n NIC) bool { return n.Master != "" }); len(free) > 0 {
		found = free
	}
	switch {
	case len(found) == 0:
		return NIC{}, fmt.Errorf("%w: no NIC has the MAC %s; %s", ErrNoNIC, l.MAC, inventory(have))
	case len(found) > 1:
		return NIC{}, fmt.Errorf("%d NICs have the MAC %s; %s", len(found), l.MAC, inventory(have))
	case found[0].Master != "":
		return NIC{}, fmt.Errorf("%s (%s) belongs to %s", found[0].Name, l.MAC, found[0].Master)
	}
	return found[0], nil
}

// candidates returns the NICs that a physical link can be.
func candidates(have State) []NIC {
	var nics []NIC
	for _, n := range have.NICs {
		if !n.Loopback && !stacked(n.Kind) {
			nics = append(nics, n)
		}
	}
	return nics
}

// stacked reports whether devices of this kind stand on others (or on nothing),
// and so have no address of their own or a borrowed one.
func stacked(kind string) bool {
	switch kind {
	case "bond", "team", "bridge", "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "vrf",
		"vxlan", "geneve", "gre", "gretap", "ip6gre", "ip6gretap", "ipip", "ip6tnl", "sit", "vti", "vti6",
		"erspan", "ip6erspan", "wireguard", "tun", "tuntap", "ifb", "nlmon":
		return true
	}
	return false
}

// inventory says which NICs the machine has, for whoever has to find the wrong MAC.
func inventory(have State) string {
	nics := candidates(have)
	if len(nics) == 0 {
		return "the machine has no NIC that the kernel has a driver for"
	}
	texts := make([]string, len(nics))
	for i, n := range nics {
		texts[i] = fmt.Sprintf("%s %s (%s)", n.Name, n.address(), n.condition())
	}
	return "the machine has " + strings.Join(texts, ", ")
}

// address is the one that the NIC is found by.
func (n NIC) address() MAC {
	if n.PermanentMAC != "" {
		return n.PermanentMAC
	}
	return n.MAC
}

// condition says what drives the NIC and whether it has link.
func (n NIC) condition() string {
	driver := n.Driver
	if driver == "" {
		driver = "driver unknown"
	}
	switch {
	case !n.Up:
		return driver + ", switched off"
	case !n.Carrier:
		return driver + ", no link"
	}
	return driver + ", link"
}
