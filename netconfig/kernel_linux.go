// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"fmt"
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
	case AddBridge:
		return k.addBridge(c)
	case AddVLAN:
		return k.addVLAN(c)
	case Remove:
		return k.remove(c.NIC)
	case Join:
		return k.onLink(c.NIC, func(l netlink.Link) error { return k.join(l, c.Master) })
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

// addBridge makes a bridge, with its mark.
func (k *linux) addBridge(c AddBridge) error {
	attrs, err := newAttrs(c.NIC, c.MAC)
	if err != nil {
		return err
	}
	if err := k.addMarked(&netlink.Bridge{LinkAttrs: attrs}, c.Alias); err != nil {
		return err
	}
	made, err := k.netlink.LinkByName(c.NIC)
	if err != nil {
		return err
	}
	data := nl.NewRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0)) // else a port passes nothing on for 15 s
	if err := setData(made.Attrs().Index, "bridge", data); err != nil {
		return errors.Join(fmt.Errorf("set its options: %w", err), k.netlink.LinkDel(made))
	}
	return nil
}

// setData changes what only one kind of devices has, for what the netlink package does not know.
func setData(index int, kind string, data *nl.RtAttr) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	info.AddChild(data)
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
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

// join makes a NIC a member of a bond or bridge, or of none.
func (k *linux) join(l netlink.Link, name string) error {
	if name == "" {
		return k.netlink.LinkSetNoMaster(l)
	}
	master, err := k.netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
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
