// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What is for a source is in a table of its NIC, and asked for by a rule before that for the main table, which has 32766. The protocol marks rules as ours.
const (
	sourceTable    = 26900 // and the NIC's index
	sourcePriority = 26900
	sourceProtocol = 105
)

// sources returns those whose rules are ours.
func (k *linux) sources(family int, names map[int]string, routes map[int][]NICRoute) ([]Source, error) {
	rules, err := dump(func() ([]netlink.Rule, error) { return k.netlink.RuleList(family) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil // a kernel without rules has none
	}
	if err != nil {
		return nil, fmt.Errorf("list rules for routes: %w", err)
	}
	var sources []Source
	for _, r := range rules {
		p, ok := prefix(r.Src)
		if !ok || !p.IsSingleIP() || r.Priority != sourcePriority || r.Protocol != sourceProtocol {
			continue
		}
		s := Source{NIC: names[r.Table-sourceTable], Address: p.Addr()}
		for _, r := range routes[r.Table] {
			s.Routes = append(s.Routes, r.Route)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// setSource writes the routes before the rule that leads to them.
func (k *linux) setSource(l netlink.Link, s Source) error {
	table := sourceTable + l.Attrs().Index
	family := unix.AF_INET
	if s.Address.Is6() {
		family = unix.AF_INET6
	}
	have, err := k.routes(family, map[int]string{l.Attrs().Index: s.NIC})
	if err != nil {
		return err
	}
	for _, h := range have[table] {
		if s.has(h.Route) {
			continue
		}
		old := route(l, h.Route)
		old.Table = table
		if err := k.netlink.RouteDel(old); err != nil {
			return fmt.Errorf("old route %s: %w", h.Route, err)
		}
	}
	for _, r := range s.Routes {
		one := route(l, r)
		one.Table = table
		if err := k.netlink.RouteReplace(one); err != nil {
			return fmt.Errorf("route %s: %w", r, err)
		}
	}
	err = k.netlink.RuleAdd(sourceRule(s.Address, table))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func sourceRule(a netip.Addr, table int) *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Protocol, r.Table, r.Src = sourcePriority, sourceProtocol, table, ipNet(netip.PrefixFrom(a, a.BitLen()))
	return r
}

// removeSource removes the rule. Routes that no rule leads to do nothing.
func (k *linux) removeSource(a netip.Addr) error {
	err := k.netlink.RuleDel(sourceRule(a, unix.RT_TABLE_UNSPEC))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
