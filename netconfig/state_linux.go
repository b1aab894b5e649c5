// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// State implements [Kernel].
func (k *linux) State(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, context.Cause(ctx)
	}
	links, err := dump(func() ([]netlink.Link, error) { return k.netlink.LinkList() })
	if err != nil {
		return State{}, fmt.Errorf("list network devices: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addresses, err := k.addresses()
	if err != nil {
		return State{}, err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return State{}, fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket)

	var s State
	for _, l := range links {
		n, err := nic(l, names, socket)
		if err != nil {
			return State{}, err
		}
		n.Addresses = addresses[n.Index]
		k.mu.Lock()
		n.Heard = k.heard[n.Name]
		for i, a := range n.Addresses {
			n.Addresses[i].Duplicate = a.Duplicate || k.others[owned{n.Name, a.Prefix.Addr()}]
		}
		k.mu.Unlock()
		if n.Bond != nil {
			if err = readBondExtras(n.Index, n.Bond.Options); err != nil && !errors.Is(err, unix.ENODEV) {
				return State{}, fmt.Errorf("read the options of %s: %w", n.Name, err)
			}
			if n.Members, err = members(n.Name); err != nil {
				return State{}, err
			}
		}
		s.NICs = append(s.NICs, n)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := k.routes(family, names)
		if err != nil {
			return State{}, err
		}
		s.Routes = append(s.Routes, routes[unix.RT_TABLE_MAIN]...)
		sources, err := k.sources(family, names, routes)
		if err != nil {
			return State{}, err
		}
		s.Sources = append(s.Sources, sources...)
		neighbors, err := dump(func() ([]netlink.Neigh, error) { return k.netlink.NeighList(0, family) })
		if err != nil {
			return State{}, fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range neighbors {
			if a, ok := addr(n.IP); ok {
				s.Neighbors = append(s.Neighbors, Neighbor{
					NIC: names[n.LinkIndex], Address: a,
					MAC: MAC(n.HardwareAddr.String()), Failed: n.State&unix.NUD_FAILED != 0,
				})
			}
		}
	}
	s.DNS, err = k.dns()
	return s, err
}

// dump repeats a listing that the kernel changed its mind about halfway.
func dump[T any](list func() (T, error)) (values T, err error) {
	for range 5 {
		if values, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return values, err
}

// nic returns all but the addresses.
func nic(l netlink.Link, names map[int]string, socket int) (NIC, error) {
	a := l.Attrs()
	n := NIC{
		Index: a.Index, Name: a.Name, Kind: l.Type(), MTU: a.MTU,
		MAC: MAC(a.HardwareAddr.String()), PermanentMAC: MAC(a.PermHWAddr.String()),
		Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
		Up:       a.RawFlags&unix.IFF_UP != 0,
		Carrier:  a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0,
		Master:   names[a.MasterIndex],
		Alias:    a.Alias,
		Options:  map[Option]int{},
	}
	switch l := l.(type) {
	case *netlink.Bond:
		n.Bond = bondOf(l, names)
	case *netlink.Vlan:
		n.Parent, n.VLAN = names[a.ParentIndex], l.VlanId
	}
	// A member of a bond has lost its own address to it, but the bond remembers.
	if member, ok := a.Slave.(*netlink.BondSlave); ok && n.PermanentMAC == "" {
		n.PermanentMAC = MAC(member.PermHardwareAddr.String())
	}
	// Devices without a driver of their own (lo) have none to name, and that of a broken NIC may say nothing.
	if info, err := unix.IoctlGetEthtoolDrvinfo(socket, a.Name); err == nil {
		n.Driver = clean(unix.ByteSliceToString(info.Driver[:]))
		n.Firmware = clean(unix.ByteSliceToString(info.Fw_version[:]))
	}
	// Without link the kernel has no speed to tell: it fails, or says -1.
	if b, err := os.ReadFile(filepath.Join("/sys/class/net", a.Name, "speed")); err == nil && n.Carrier {
		if speed, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && speed > 0 {
			n.SpeedMbps = speed
		}
	}
	for _, o := range options() {
		b, err := os.ReadFile(o.path(a.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // this kernel has no such option
		}
		if err != nil {
			return NIC{}, err
		}
		value, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return NIC{}, fmt.Errorf("read %s: %w", o.path(a.Name), err)
		}
		n.Options[o] = value
	}
	return n, nil
}

// members reads what the bonding driver says of a bond, in the network of the calling thread.
func members(bond string) ([]Member, error) {
	b, err := os.ReadFile(filepath.Join("/proc/thread-self/net/bonding", bond))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // taken away meanwhile
	}
	return parseBonding(string(b)), err
}

func (k *linux) addresses() (map[int][]Address, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return k.netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	m := map[int][]Address{}
	for _, a := range all {
		if p, ok := prefix(a.IPNet); ok {
			m[a.LinkIndex] = append(m[a.LinkIndex], Address{
				Prefix:    p,
				Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0,
				Duplicate: a.Flags&unix.IFA_F_DADFAILED != 0,
			})
		}
	}
	return m, nil
}

// routes returns the unicast routes by table.
func (k *linux) routes(family int, names map[int]string) (map[int][]NICRoute, error) {
	all, err := dump(func() ([]netlink.Route, error) {
		return k.netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	routes := map[int][]NICRoute{}
	for _, r := range all {
		if r.Type != unix.RTN_UNICAST {
			continue
		}
		// A default route may come without a destination.
		destination, ok := prefix(r.Dst)
		if !ok && family == unix.AF_INET {
			destination = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		} else if !ok {
			destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		add := func(index int, gateway net.IP, flags int) {
			g, _ := addr(gateway)
			routes[r.Table] = append(routes[r.Table], NICRoute{names[index], Route{
				Destination: destination, Gateway: g, Metric: r.Priority, OnLink: flags&unix.RTNH_F_ONLINK != 0,
			}})
		}
		if len(r.MultiPath) == 0 {
			add(r.LinkIndex, r.Gw, r.Flags)
		}
		for _, hop := range r.MultiPath {
			add(hop.LinkIndex, hop.Gw, hop.Flags)
		}
	}
	return routes, nil
}

func (k *linux) dns() ([]netip.Addr, error) {
	f, err := os.Open(k.resolvConf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, err
	}
	return parseResolvConf(b), nil
}
