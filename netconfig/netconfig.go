// SPDX-License-Identifier: Apache-2.0

// Package netconfig brings up the network of a machine that has no DHCP, and
// explains itself when that does not work.
//
// A description of the network is parsed into a [Plan] (ParseNetworkData). The
// plan is compared with what the kernel has ([State]), which gives a list of
// changes ([Plan.Changes]), and a short loop makes them ([Plan.Apply]). When the
// conductor cannot be reached all the same, [Check] looks at each thing on the
// way to it and names the most likely cause.
//
// Links are NICs, bonds and bridges of them, and VLANs on these; addresses are fixed, or asked for
// by DHCP and router advertisements ([Plan.Acquire]).
//
// The package touches the NICs that the plan names, the loopback device and the
// list of DNS servers. Devices that it makes carry a mark (their alias, see "ip
// link"); those are its own, and are changed or removed when another plan is
// applied. Addresses and devices that the plan does not name and that it has not
// made are left as they are, a bond0 that a driver brought along too; but a NIC
// that becomes a member of a bond or a bridge loses its addresses. Of the
// routes, one is removed only if it has the place (destination and metric) of a
// route of the plan.
package netconfig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Reasons for which a caller may want to act differently. They are wrapped in
// the errors of [Plan.Changes] and [Plan.Apply].
var (
	// ErrNoNIC says that the plan names a NIC that the machine lacks.
	ErrNoNIC = errors.New("no such NIC")
	// ErrNoCarrier says that a NIC that the plan gives an address has no link.
	ErrNoCarrier = errors.New("no link")
	// ErrDuplicateAddress says that another machine answers for an IPv6 address
	// of the plan (RFC 4862, section 5.4).
	ErrDuplicateAddress = errors.New("another machine has this address")
)

// Plan is the network as it should be.
type Plan struct {
	Links []Link       `json:"links"` // what a link stands on comes before it
	DNS   []netip.Addr `json:"dns"`   // name servers, the first is asked first; empty leaves the machine's own
	// IgnoreDNS has name servers that others name not count (DHCP, router advertisements).
	IgnoreDNS bool `json:"ignore_dns,omitempty"`
	// Everywhere are ways to ask for addresses on all NICs, if there are no links; see [Everywhere].
	Everywhere []Method `json:"everywhere,omitempty"`

	asking []Method // of a plan that [Everywhere] has made: how NICs are asked on that come later
}

// Link is one network device of a plan.
type Link struct {
	ID        string         `json:"id"` // name in the description, no other link has it; not the name of a device
	Kind      Kind           `json:"kind"`
	MAC       MAC            `json:"mac,omitempty"`     // physical: permanent address of the NIC; else the address to have, empty for the kernel's choice
	NewMAC    MAC            `json:"new_mac,omitempty"` // physical: the address to have instead of its own
	Device    string         `json:"device,omitempty"`  // physical without MAC: name of the NIC, empty for the only one; else the name to have, empty for one after the id
	MTU       int            `json:"mtu,omitempty"`     // bytes; 0 leaves the kernel's
	Bond      *Bond          `json:"bond,omitempty"`
	Bridge    *Bridge        `json:"bridge,omitempty"`
	VLAN      *VLAN          `json:"vlan,omitempty"`
	Auto      []Method       `json:"auto,omitempty"`      // ways to get addresses besides those below
	Addresses []netip.Prefix `json:"addresses,omitempty"` // none: the link is only switched on
	Routes    []Route        `json:"routes,omitempty"`
	Note      string         `json:"note,omitempty"` // what people should know of how the description was read
}

// members returns the ids of the links that this one is made of.
func (l Link) members() []string {
	switch {
	case l.Bond != nil:
		return l.Bond.Members
	case l.Bridge != nil:
		return l.Bridge.Ports
	}
	return nil
}

// Notes returns what people should know of how the description was read, a line for each link that there is something to say of.
func (p Plan) Notes() []string {
	var notes []string
	for _, l := range p.Links {
		if l.Note != "" {
			notes = append(notes, l.ID+": "+l.Note)
		}
	}
	return notes
}

// Kind says how a link is made.
type Kind string

// The kinds of links.
const (
	Physical Kind = "physical" // a NIC that the machine has
	Bonded   Kind = "bond"     // several physical links as one
	Bridged  Kind = "bridge"   // several physical links, and a switch between them
	Tagged   Kind = "vlan"     // one VLAN (IEEE 802.1Q) of another link
)

// Bridge says what a bridge is made of. It has no spanning tree, and passes frames on at once.
type Bridge struct {
	Ports []string `json:"ports"` // ids of links
}

// VLAN says which VLAN a link is.
type VLAN struct {
	Link string `json:"link"` // id of the link that carries it
	ID   int    `json:"id"`   // 1 to 4094
}

// Route is a way to a network.
type Route struct {
	Destination netip.Prefix `json:"destination"`       // without host bits; 0.0.0.0/0 and ::/0 are default routes
	Gateway     netip.Addr   `json:"gateway,omitzero"`  // the zero Addr: the destination is on the link itself
	Metric      int          `json:"metric,omitempty"`  // the smallest wins; 0 is the kernel's own choice: 0 for IPv4, 1024 for IPv6
	OnLink      bool         `json:"on_link,omitempty"` // the gateway is on the link although no address of the link covers it
}

// String returns the route as "ip route" writes it.
func (r Route) String() string {
	var b strings.Builder
	if r.Destination.IsValid() && r.Destination.Bits() == 0 {
		b.WriteString("default")
	} else {
		b.WriteString(r.Destination.String())
	}
	if r.Gateway.IsValid() {
		b.WriteString(" via " + r.Gateway.String())
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.OnLink {
		b.WriteString(" onlink")
	}
	return b.String()
}

// metric is what the kernel makes of r.Metric (IP6_RT_PRIO_USER in Linux'
// include/net/ip6_route.h).
func (r Route) metric() int {
	if r.Metric == 0 && r.Destination.Addr().Is6() {
		return 1024
	}
	return r.Metric
}

// String returns the plan for people, one fact to a line.
func (p Plan) String() string {
	var b strings.Builder
	for _, l := range p.Links {
		fmt.Fprintf(&b, "link %s: %s", l.ID, l.Kind)
		if l.Bond != nil {
			fmt.Fprintf(&b, " of %s (%s)", strings.Join(l.Bond.Members, ", "), l.Bond)
		}
		if l.Bridge != nil {
			fmt.Fprintf(&b, " of %s", strings.Join(l.Bridge.Ports, ", "))
		}
		if l.VLAN != nil {
			fmt.Fprintf(&b, " %d of %s", l.VLAN.ID, l.VLAN.Link)
		}
		if l.Device != "" {
			fmt.Fprintf(&b, ", device %s", l.Device)
		}
		if l.MAC != "" {
			fmt.Fprintf(&b, ", mac %s", l.MAC)
		}
		if l.NewMAC != "" {
			fmt.Fprintf(&b, ", new mac %s", l.NewMAC)
		}
		if l.MTU != 0 {
			fmt.Fprintf(&b, ", mtu %d", l.MTU)
		}
		for _, m := range l.Auto {
			fmt.Fprintf(&b, ", %s", m)
		}
		b.WriteByte('\n')
		if l.Note != "" {
			fmt.Fprintf(&b, "  note: %s\n", l.Note)
		}
		for _, a := range l.Addresses {
			fmt.Fprintf(&b, "  address %s\n", a)
		}
		for _, r := range l.Routes {
			fmt.Fprintf(&b, "  route %s\n", r)
		}
	}
	for _, m := range p.Everywhere {
		fmt.Fprintf(&b, "all NICs: %s\n", m)
	}
	for _, a := range p.DNS {
		fmt.Fprintf(&b, "dns %s\n", a)
	}
	if p.IgnoreDNS {
		b.WriteString("dns: none that others name\n")
	}
	return b.String()
}

// MAC is the address of a NIC: pairs of lower-case hexadecimal digits with
// colons, six for Ethernet, twenty for InfiniBand. The zero MAC is not known.
type MAC string

// ParseMAC reads an address in any case, with colons, dashes or nothing between
// the pairs.
func ParseMAC(s string) (MAC, error) {
	a, err := net.ParseMAC(s)
	switch {
	case err != nil || strings.Contains(s, "."):
		return "", fmt.Errorf("%s is not a MAC address", quote(s))
	case len(a) != 6 && len(a) != 20:
		return "", fmt.Errorf("%s has %d bytes, want 6 (or 20 for InfiniBand)", quote(s), len(a))
	case len(a) == 6 && a[0]&1 != 0:
		return "", fmt.Errorf("%s is the address of a group, not of a NIC", quote(s))
	case strings.Trim(a.String(), "0:") == "":
		return "", fmt.Errorf("%s is no NIC's address", quote(s))
	}
	return MAC(a.String()), nil
}

// least6 is the least size of packets with which a link may have IPv6, in bytes (RFC 8200, section 5); Linux switches it off below that.
const least6 = 1280

// ethernetMAC is how long the text of an Ethernet address is; those of InfiniBand are longer.
const ethernetMAC = len("00:00:00:00:00:00")

// Is reports whether the address, as somebody has written it, is that of a NIC. A NIC of InfiniBand is also found by its last 16 bytes, for those before
// change when its driver starts (RFC 4391, section 9.1.1), and by the six bytes that Ironic has of them (IPA ironic_python_agent/netutils.py).
func (m MAC) Is(nic MAC) bool {
	const queue, vendor, number = len("80:00:02:08:"), len("80:00:02:08:fe:80:00:00:00:00:00:00:"), len("80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:")
	switch {
	case m == nic || len(nic) < len("80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:00:00:00"): // of InfiniBand; tunnels and others have some of other lengths
		return m == nic
	case len(m) == len(nic):
		return m[queue:] == nic[queue:]
	}
	return m == nic[vendor:vendor+len("f4:52:14:")]+nic[number:]
}

// named is for the end of a name: nothing if the address is not known.
func (m MAC) named() string {
	if m == "" {
		return ""
	}
	return ", mac " + string(m)
}

// State is what the kernel has.
type State struct {
	NICs      []NIC
	Routes    []NICRoute // main table, unicast
	Sources   []Source   // those that a plan made
	Neighbors []Neighbor
	DNS       []netip.Addr
}

// NIC is a network device as the kernel has it.
type NIC struct {
	Index        int
	Name         string
	Kind         string // "device" for real hardware, else as in "ip link add type": "veth", "bond", ...
	Driver       string // empty if the kernel does not say
	Firmware     string // its version; empty if the kernel does not say
	SpeedMbps    int    // 0 without link, or if the kernel does not say
	MAC          MAC
	PermanentMAC MAC // of the hardware; empty if it has none (veth)
	Loopback     bool
	Master       string   // name of the bond or bridge that it belongs to
	Parent       string   // of a VLAN: name of the device that carries it
	VLAN         int      // of a VLAN: its number
	Bond         *Bond    // of a bond: what is set, with the names of NICs for ids
	Members      []Member // of a bond
	Alias        string   // free text; the mark on devices that a plan made
	MTU          int      // bytes
	Up           bool     // switched on
	Carrier      bool     // has link; always false while switched off
	Addresses    []Address
	Options      map[Option]int // those in the list of options that this kernel has
	Heard        Heard          // by Listen
}

// Address is an address that a NIC has.
type Address struct {
	Prefix    netip.Prefix `json:"prefix"`
	Tentative bool         `json:"tentative,omitempty"` // IPv6: not usable until the kernel knows it to be unique
	Duplicate bool         `json:"duplicate,omitempty"` // another machine answered for it; IPv4: when it was asked by AskOwner
}

// Member is a member of a bond as the bond sees it.
type Member struct {
	NIC     string `json:"nic"`
	Up      bool   `json:"up"`                // its link counts as good
	Partner MAC    `json:"partner,omitempty"` // LACP: the system at the other end; empty if none speaks LACP
}

// NICRoute is a route that the kernel has.
type NICRoute struct {
	NIC string
	Route
}

// String returns the route as "ip route" writes it.
func (r NICRoute) String() string { return r.on(r.NIC) }

// Source says that what has an address of this machine leaves by the address' NIC, whichever NIC the machine prefers for the
// destination: answers to those who called one of two NICs are dropped on their way, by firewalls and routers, if they leave by the other (RFC 3704).
type Source struct {
	NIC     string
	Address netip.Addr
	Routes  []Route // of the NIC; they count for this address alone, and where none leads to a destination, those of the machine do
}

// Neighbor is an address on a link, and what became of asking for it.
type Neighbor struct {
	NIC     string
	Address netip.Addr
	MAC     MAC  // empty while nobody has answered
	Failed  bool // asked several times, no answer
}

// Option is a setting of one NIC, named as its file below /proc/sys/net with the
// NIC left out: "ipv6/accept_ra" is /proc/sys/net/ipv6/conf/NIC/accept_ra. See
// Documentation/networking/ip-sysctl.rst of Linux.
type Option string

// The options that a plan needs.
const (
	// IPv6Off is 1 if the NIC takes no IPv6 address at all.
	IPv6Off Option = "ipv6/disable_ipv6"
	// AcceptRA is 0 if router advertisements are ignored: a link with fixed IPv6
	// addresses shall not get others, nor a second default route, from whoever
	// else is on the wire.
	AcceptRA Option = "ipv6/accept_ra"
	// SkipDead4 and SkipDead6 are 1 if routes over a NIC without link are passed
	// over. Of two NICs with a default route each, the one with a cable is used.
	SkipDead4 Option = "ipv4/ignore_routes_with_linkdown"
	SkipDead6 Option = "ipv6/ignore_routes_with_linkdown"
	// ARPIgnore is 1 if a NIC answers for its own addresses only, and ARPAnnounce 2 if it
	// asks with its own address only. Of two NICs in one network, each would answer for both otherwise.
	ARPIgnore   Option = "ipv4/arp_ignore"
	ARPAnnounce Option = "ipv4/arp_announce"
)

// options lists all of them, for reading.
func options() []Option {
	return []Option{IPv6Off, AcceptRA, SkipDead4, SkipDead6, ARPIgnore, ARPAnnounce}
}

// Kernel is where the network is changed. [NewKernel] gives the running one.
type Kernel interface {
	// State reads all at once.
	State(ctx context.Context) (State, error)
	// Do makes one change. A change that is in force already is no error.
	Do(ctx context.Context, c Change) error
}

// Change is one thing to do. It is one of the types below, and its text says to
// people what is done.
type Change interface{ String() string }

type (
	// SetUp switches a NIC on.
	SetUp struct{ NIC string }
	// SetDown switches a NIC off. Its routes go with that.
	SetDown struct{ NIC string }
	// AddBond makes a bond without members, switched off. The NICs' names in Bond
	// need not be members yet.
	AddBond struct {
		NIC, Alias string
		MAC        MAC // empty: that of the first member
		Bond       Bond
	}
	// AddBridge makes a bridge without ports, switched off, that has no spanning tree and no delay until a port passes frames on.
	AddBridge struct {
		NIC, Alias string
		MAC        MAC // empty: the kernel's choice, which changes with the ports
	}
	// AddVLAN makes a VLAN on another device, switched off.
	AddVLAN struct {
		NIC, Alias string
		MAC        MAC // empty: that of the device below
		Parent     string
		ID         int
	}
	// Remove takes a bond, a bridge or a VLAN off the machine.
	Remove struct{ NIC string }
	// Join makes a NIC a member of a bond, for which it must be switched off, and which switches it on, or of a bridge;
	// or takes it out of the one that it is in, if Master is empty.
	Join struct{ NIC, Master string }
	// SetMAC gives a NIC, which must be switched off, another address.
	SetMAC struct {
		NIC string
		MAC MAC
	}
	// SetMTU sets the largest packet, in bytes.
	SetMTU struct {
		NIC string
		MTU int
	}
	// SetOption sets one option of a NIC.
	SetOption struct {
		NIC    string
		Option Option
		Value  int
	}
	// AddAddress gives a NIC one more address.
	AddAddress struct {
		NIC     string
		Address netip.Prefix
	}
	// RemoveAddress takes an address away.
	RemoveAddress struct {
		NIC     string
		Address netip.Prefix
	}
	// AddRoute adds a route; one to the same destination with the same metric
	// must not exist.
	AddRoute struct {
		NIC   string
		Route Route
	}
	// RemoveRoute takes a route away.
	RemoveRoute struct {
		NIC   string
		Route Route
	}
	// SetSource makes a source, or gives it other routes.
	SetSource struct{ Source }
	// RemoveSource takes a source away. Its address may be on no NIC any more.
	RemoveSource struct{ Address netip.Addr }
	// SetDNS replaces the list of name servers.
	SetDNS struct{ Servers []netip.Addr }
	// AskOwner asks whether another machine has the NIC's IPv4 address (a probe of RFC
	// 5227), and waits for an answer for a moment. It appears in Address.Duplicate.
	AskOwner struct {
		NIC     string
		Address netip.Addr
	}
	// Listen hears for so long, or until its context ends, which VLANs' frames arrive at a NIC, and what its neighbour says of itself. It
	// sends nothing. What was heard appears in NIC.Heard as it comes.
	Listen struct {
		NIC string
		For time.Duration
	}
	// AskNeighbor forgets what is known of an address on a link and asks for it
	// anew (ARP, neighbour discovery). The answer appears in State.Neighbors.
	AskNeighbor struct {
		NIC     string
		Address netip.Addr
	}
)

func (c SetUp) String() string   { return "set " + c.NIC + " up" }
func (c SetDown) String() string { return "set " + c.NIC + " down" }
func (c Remove) String() string  { return "remove " + c.NIC }
func (c AddBond) String() string {
	return fmt.Sprintf("add bond %s%s: %s", c.NIC, c.MAC.named(), c.Bond)
}
func (c AddBridge) String() string { return "add bridge " + c.NIC + c.MAC.named() }
func (c AddVLAN) String() string {
	return fmt.Sprintf("add vlan %s%s: %d on %s", c.NIC, c.MAC.named(), c.ID, c.Parent)
}
func (c Join) String() string {
	if c.Master == "" {
		return "take " + c.NIC + " out of what it is in"
	}
	return "add " + c.NIC + " to " + c.Master
}
func (c SetMAC) String() string     { return fmt.Sprintf("set %s mac %s", c.NIC, c.MAC) }
func (c SetMTU) String() string     { return fmt.Sprintf("set %s mtu %d", c.NIC, c.MTU) }
func (c SetOption) String() string  { return fmt.Sprintf("set %s %s %d", c.NIC, c.Option, c.Value) }
func (c AddAddress) String() string { return fmt.Sprintf("add address %s to %s", c.Address, c.NIC) }
func (c RemoveAddress) String() string {
	return fmt.Sprintf("remove address %s from %s", c.Address, c.NIC)
}
func (c AddRoute) String() string    { return "add route " + c.Route.on(c.NIC) }
func (c RemoveRoute) String() string { return "remove route " + c.Route.on(c.NIC) }
func (c SetSource) String() string {
	return fmt.Sprintf("set source %s on %s: %s", c.Address, c.NIC, list(c.Routes))
}
func (c RemoveSource) String() string { return fmt.Sprintf("remove source %s", c.Address) }
func (c SetDNS) String() string       { return "set dns " + list(c.Servers) }
func (c AskOwner) String() string {
	return fmt.Sprintf("ask %s whether others have %s", c.NIC, c.Address)
}
func (c Listen) String() string      { return fmt.Sprintf("listen on %s for %s", c.NIC, c.For) }
func (c AskNeighbor) String() string { return fmt.Sprintf("ask %s who has %s", c.NIC, c.Address) }

// on returns the route with its NIC: "default via 192.0.2.1 dev eth0 metric 5".
func (r Route) on(nic string) string {
	way := Route{Destination: r.Destination, Gateway: r.Gateway}.String()
	return way + " dev " + nic + strings.TrimPrefix(r.String(), way)
}

// list returns the values with commas between them.
func list[T fmt.Stringer](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}

// quote returns outside text for a message: in quotes, escaped, not too long.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
