// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"encoding/binary"
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
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linux is the running kernel. It opens its sockets anew for each call, so that
// it works in the network namespace of the calling thread.
type linux struct {
	netlink    netlink.Handle
	resolvConf string

	mu     sync.Mutex
	others map[owned]bool // addresses of ours that another machine has, which the kernel does not remember for IPv4
	heard  map[string]Heard
	until  map[string]time.Time // NIC -> when somebody has last listened
}

type owned struct {
	nic     string
	address netip.Addr
}

// NewKernel returns the running kernel; name servers are in /etc/resolv.conf.
// Changes need CAP_NET_ADMIN. It is safe for use by several goroutines.
func NewKernel() (Kernel, error) { return NewKernelAt("/etc/resolv.conf") }

// NewKernelAt is NewKernel with another place for the list of name servers. The
// file and its directory are made when there are servers to write.
func NewKernelAt(resolvConf string) (Kernel, error) {
	if !filepath.IsAbs(resolvConf) {
		return nil, fmt.Errorf("%q is not an absolute path", resolvConf)
	}
	return &linux{resolvConf: resolvConf}, nil
}

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

// bondFields returns where the options of a bond are in what netlink gives and takes.
func bondFields(b *netlink.Bond) map[string]*int {
	return map[string]*int{
		"mode": (*int)(&b.Mode), "ad_actor_sys_prio": &b.AdActorSysPrio, "ad_select": (*int)(&b.AdSelect), "ad_user_port_key": &b.AdUserPortKey,
		"all_slaves_active": &b.AllSlavesActive, "arp_all_targets": (*int)(&b.ArpAllTargets), "arp_interval": &b.ArpInterval,
		"arp_validate": (*int)(&b.ArpValidate), "downdelay": &b.DownDelay, "fail_over_mac": (*int)(&b.FailOverMac), "lacp_rate": (*int)(&b.LacpRate),
		"lp_interval": &b.LpInterval, "miimon": &b.Miimon, "min_links": &b.MinLinks, "num_peer_notif": &b.NumPeerNotif,
		"packets_per_slave": &b.PacketsPerSlave, "primary_reselect": (*int)(&b.PrimaryReselect), "resend_igmp": &b.ResendIgmp,
		"tlb_dynamic_lb": &b.TlbDynamicLb, "updelay": &b.UpDelay, "use_carrier": &b.UseCarrier, "xmit_hash_policy": (*int)(&b.XmitHashPolicy),
	}
}

// bondOf returns what is set of a bond.
func bondOf(l *netlink.Bond, names map[int]string) *Bond {
	b := &Bond{Options: map[string]int{}, Primary: names[l.Primary]}
	for name, field := range bondFields(l) {
		if *field >= 0 { // else the kernel has not said
			b.Options[name] = *field
		}
	}
	for _, ip := range l.ArpIpTargets {
		if a, ok := addr(ip); ok {
			b.ARPTargets = append(b.ARPTargets, a)
		}
	}
	b.System, _ = ParseMAC(l.AdActorSystem.String()) // all zero is none
	return b
}

// bondExtras are the options that the netlink package does not know: their attributes (linux/if_link.h), and how many bytes they have.
func bondExtras() map[string]struct{ attribute, size int } {
	return map[string]struct{ attribute, size int }{"peer_notif_delay": {28, 4}, "lacp_active": {29, 1}, "missed_max": {30, 1}}
}

// readBondExtras adds those that this kernel has.
func readBondExtras(index int, options map[string]int) error {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	answers, err := request.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil || len(answers) == 0 || len(answers[0]) < unix.SizeofIfInfomsg {
		return err
	}
	b := answers[0][unix.SizeofIfInfomsg:]
	for _, kind := range []uint16{unix.IFLA_LINKINFO, nl.IFLA_INFO_DATA} {
		attributes, err := nl.ParseRouteAttr(b)
		if err != nil {
			return err
		}
		b = nil
		for _, a := range attributes {
			if a.Attr.Type&0x3fff == kind { // NLA_TYPE_MASK
				b = a.Value
			}
		}
	}
	attributes, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for name, o := range bondExtras() {
		for _, a := range attributes {
			switch {
			case int(a.Attr.Type) != o.attribute:
			case o.size == 4 && len(a.Value) >= 4:
				options[name] = int(binary.NativeEndian.Uint32(a.Value))
			case o.size == 1 && len(a.Value) >= 1:
				options[name] = int(a.Value[0])
			}
		}
	}
	return nil
}

// setBondExtras sets those of a bond that has just been made.
func setBondExtras(index int, options map[string]int) error {
	data := nl.NewRtAttr(nl.IFLA_INFO_DATA, nil)
	any := false
	for name, o := range bondExtras() {
		if value, given := options[name]; given {
			any = true
			bytes := []byte{byte(value)}
			if o.size == 4 {
				bytes = binary.NativeEndian.AppendUint32(nil, uint32(value))
			}
			data.AddRtAttr(o.attribute, bytes)
		}
	}
	if !any {
		return nil
	}
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bond"))
	info.AddChild(data)
	request.AddData(info)
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return err
	}
	got := map[string]int{}
	if err := readBondExtras(index, got); err != nil {
		return err
	}
	for name := range bondExtras() {
		if want, given := options[name]; given {
			if have, known := got[name]; !known || have != want { // a kernel does not tell of attributes that it does not know
				return fmt.Errorf("this kernel has no %s", name)
			}
		}
	}
	return nil
}

// addBond makes a bond, with its mark.
func (k *linux) addBond(c AddBond) error {
	attrs, err := newAttrs(c.NIC, c.MAC)
	if err != nil {
		return err
	}
	b := netlink.NewLinkBond(attrs)
	fields := bondFields(b)
	for name, value := range c.Bond.Options {
		if _, extra := bondExtras()[name]; extra {
			continue
		}
		if fields[name] == nil {
			return fmt.Errorf("unknown option %s", name)
		}
		*fields[name] = value
	}
	if c.Bond.Primary != "" {
		primary, err := k.netlink.LinkByName(c.Bond.Primary)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Bond.Primary, err)
		}
		b.Primary = primary.Attrs().Index
	}
	for _, a := range c.Bond.ARPTargets {
		b.ArpIpTargets = append(b.ArpIpTargets, a.AsSlice())
	}
	if c.Bond.System != "" {
		if b.AdActorSystem, err = net.ParseMAC(string(c.Bond.System)); err != nil {
			return err
		}
	}
	if err := k.addMarked(b, c.Alias); err != nil {
		return err
	}
	made, err := k.netlink.LinkByName(c.NIC)
	if err != nil {
		return err
	}
	if err := setBondExtras(made.Attrs().Index, c.Bond.Options); err != nil {
		return errors.Join(fmt.Errorf("set its options: %w", err), k.netlink.LinkDel(made))
	}
	return nil
}

// addVLAN makes a VLAN, with its mark.
func (k *linux) addVLAN(c AddVLAN) error {
	attrs, err := newAttrs(c.NIC, c.MAC)
	if err != nil {
		return err
	}
	parent, err := k.netlink.LinkByName(c.Parent)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Parent, err)
	}
	attrs.ParentIndex = parent.Attrs().Index
	return k.addMarked(&netlink.Vlan{LinkAttrs: attrs, VlanId: c.ID, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}, c.Alias)
}

func newAttrs(name string, mac MAC) (netlink.LinkAttrs, error) {
	a := netlink.NewLinkAttrs()
	a.Name = name
	if mac != "" {
		address, err := net.ParseMAC(string(mac))
		if err != nil {
			return a, err
		}
		a.HardwareAddr = address
	}
	return a, nil
}

// addMarked makes a device and marks it as ours. One without a mark would be
// nobody's, so it is taken away again.
func (k *linux) addMarked(l netlink.Link, alias string) error {
	err := k.netlink.LinkAdd(l)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("this kernel has no %s, or its module is not loaded: %w", l.Type(), err)
	}
	if err != nil {
		return err
	}
	made, err := k.netlink.LinkByName(l.Attrs().Name)
	if err != nil {
		return errors.Join(err, k.netlink.LinkDel(l))
	}
	if err := k.netlink.LinkSetAlias(made, alias); err != nil {
		return errors.Join(fmt.Errorf("mark as ours: %w", err), k.netlink.LinkDel(made))
	}
	return nil
}

// join makes a NIC a member of a bond, or of none.
func (k *linux) join(l netlink.Link, bond string) error {
	if bond == "" {
		return k.netlink.LinkSetNoMaster(l)
	}
	master, err := k.netlink.LinkByName(bond)
	if err != nil {
		return fmt.Errorf("%s: %w", bond, err)
	}
	if l.Attrs().MasterIndex == master.Attrs().Index {
		return nil
	}
	return k.netlink.LinkSetMaster(l, master)
}

// remove takes a device away.
func (k *linux) remove(name string) error {
	l, err := k.netlink.LinkByName(name)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return err
	}
	return k.netlink.LinkDel(l)
}

// path is where the option of a NIC is. The kernel takes no name with a slash.
func (o Option) path(nic string) string {
	family, name, _ := strings.Cut(string(o), "/")
	return filepath.Join("/proc/sys/net", family, "conf", nic, name)
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

// Do implements [Kernel].
func (k *linux) Do(ctx context.Context, c Change) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	switch c := c.(type) {
	case SetUp:
		return k.onLink(c.NIC, k.netlink.LinkSetUp)
	case SetDown:
		return k.onLink(c.NIC, k.netlink.LinkSetDown)
	case AddBond:
		return k.addBond(c)
	case AddVLAN:
		return k.addVLAN(c)
	case Remove:
		return k.remove(c.NIC)
	case Join:
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.join(l, c.Bond) })
	case SetMAC:
		mac, err := net.ParseMAC(string(c.MAC))
		if err != nil {
			return err
		}
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.netlink.LinkSetHardwareAddr(l, mac) })
	case SetMTU:
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.netlink.LinkSetMTU(l, c.MTU) })
	case SetOption:
		return os.WriteFile(c.Option.path(c.NIC), []byte(strconv.Itoa(c.Value)), 0o644)
	case AddAddress:
		return k.onLink(c.NIC, func(l netlink.Link) error {
			err := k.netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(c.Address)})
			if errors.Is(err, unix.EEXIST) {
				return nil
			}
			return err
		})
	case RemoveAddress:
		return k.onLink(c.NIC, func(l netlink.Link) error {
			err := k.netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(c.Address)})
			if errors.Is(err, unix.EADDRNOTAVAIL) {
				return nil
			}
			return err
		})
	case AddRoute:
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.addRoute(l, c) })
	case RemoveRoute:
		return k.onLink(c.NIC, func(l netlink.Link) error {
			old := route(l, c.Route)
			old.Protocol = 0 // whoever has made it: the kernel finds no route of an advertisement by ours
			err := k.netlink.RouteDel(old)
			if errors.Is(err, unix.ESRCH) {
				return nil
			}
			return err
		})
	case SetSource:
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.setSource(l, c.Source) })
	case RemoveSource:
		return k.removeSource(c.Address)
	case SetDNS:
		return replaceFile(k.resolvConf, resolvConf(c.Servers))
	case AskOwner:
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.askOwner(ctx, l, c.Address) })
	case Listen:
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.listen(ctx, l, c.For) })
	case AskNeighbor:
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.askNeighbor(l, c.Address) })
	}
	return fmt.Errorf("unknown change %T", c)
}

func (k *linux) onLink(name string, do func(netlink.Link) error) error {
	l, err := k.netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return do(l)
}

// addRoute takes "exists" for an answer only if it is this route that exists.
func (k *linux) addRoute(l netlink.Link, c AddRoute) error {
	err := k.netlink.RouteAdd(route(l, c.Route))
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	family := unix.AF_INET
	if c.Route.Destination.Addr().Is6() {
		family = unix.AF_INET6
	}
	have, listErr := k.routes(family, map[int]string{l.Attrs().Index: c.NIC})
	if listErr != nil {
		return listErr
	}
	for _, h := range have[unix.RT_TABLE_MAIN] {
		if h.NIC == c.NIC && h.Destination == c.Route.Destination && h.Gateway == c.Route.Gateway && h.metric() == c.Route.metric() {
			return nil
		}
	}
	return err
}

func route(l netlink.Link, r Route) *netlink.Route {
	n := &netlink.Route{
		LinkIndex: l.Attrs().Index, Dst: ipNet(r.Destination),
		Priority: r.Metric, Protocol: unix.RTPROT_STATIC,
	}
	if r.Gateway.IsValid() {
		n.Gw = r.Gateway.AsSlice()
	} else if r.Destination.Addr().Is4() {
		n.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		n.Flags = unix.RTNH_F_ONLINK
	}
	return n
}

// askNeighbor makes an entry anew with NTF_USE, on which the kernel asks as if it
// had a packet to send (neigh_add in net/core/neighbour.c).
func (k *linux) askNeighbor(l netlink.Link, a netip.Addr) error {
	n := &netlink.Neigh{LinkIndex: l.Attrs().Index, IP: a.AsSlice()}
	if err := k.netlink.NeighDel(n); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	n.Flags = unix.NTF_USE
	return k.netlink.NeighSet(n)
}

// members reads what the bonding driver says of a bond, in the network of the calling thread.
func members(bond string) ([]Member, error) {
	b, err := os.ReadFile(filepath.Join("/proc/thread-self/net/bonding", bond))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // taken away meanwhile
	}
	return parseBonding(string(b)), err
}

// askOwner sends an ARP probe (RFC 5227, section 2.1.1) and waits for whoever says that
// the address is his.
func (k *linux) askOwner(ctx context.Context, l netlink.Link, a netip.Addr) error {
	if len(l.Attrs().HardwareAddr) != 6 {
		return errors.New("not Ethernet")
	}
	own := map[MAC]bool{} // several of our NICs may be on one link, and each answers for all
	links, err := dump(func() ([]netlink.Link, error) { return k.netlink.LinkList() })
	if err != nil {
		return err
	}
	for _, other := range links {
		own[MAC(other.Attrs().HardwareAddr.String())] = true
	}
	const arp = unix.ETH_P_ARP<<8&0xff00 | unix.ETH_P_ARP>>8 // in the order of the network
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, arp)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	at := unix.SockaddrLinklayer{Protocol: arp, Ifindex: l.Attrs().Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	if err := unix.Bind(s, &at); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return err
	}
	taken, b := false, make([]byte, 128)
	for start, sent := time.Now(), 0; ctx.Err() == nil && !taken && time.Since(start) < ownerWait; {
		if time.Since(start) >= time.Duration(sent)*ownerWait/3 {
			sent++
			if err := unix.Sendto(s, arpProbe(l.Attrs().HardwareAddr, a), 0, &at); err != nil {
				return err
			}
		}
		n, _, err := unix.Recvfrom(s, b, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		mac, sender, ok := parseARP(b[:n])
		taken = ok && sender == a && !own[mac]
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.others == nil {
		k.others = map[owned]bool{}
	}
	k.others[owned{l.Attrs().Name, a}] = taken
	return nil
}

// segments returns a net.Dialer's Control that lets a connection send and receive
// TCP segments of at most so many bytes.
func segments(most int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, most) })
		return errors.Join(err, failed)
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := addr(n.IP)
	ones, size := n.Mask.Size()
	return netip.PrefixFrom(a, ones), ok && size == a.BitLen()
}

func addr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}
