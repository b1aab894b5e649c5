// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Step is one change of a plan, and what it is for.
type Step struct {
	Change Change
	Link   string // id of the link; empty if it is for none of them
	Why    string // what is not as it should be
}

// String returns the step as a line for people.
func (s Step) String() string {
	if s.Link == "" {
		return fmt.Sprintf("%s (%s)", s.Change, s.Why)
	}
	return fmt.Sprintf("%s (link %s: %s)", s.Change, s.Link, s.Why)
}

// MarshalJSON writes the texts.
func (s Step) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Do   string `json:"do"`
		Link string `json:"link,omitempty"`
		Why  string `json:"why"`
	}{s.Change.String(), s.Link, s.Why})
}

// Changes returns what is to be done, in order, to get from have to the plan;
// nothing if all of it is in force. A link whose NIC the machine lacks, or a
// route that something else is in the way of, is left out and is part of the
// (joined) error; the changes for the rest are returned all the same.
func (p Plan) Changes(have State) ([]Change, error) {
	steps, err := p.Steps(have)
	changes := make([]Change, len(steps))
	for i, s := range steps {
		changes[i] = s.Change
	}
	return changes, err
}

// Steps is Changes with the reasons.
func (p Plan) Steps(have State) ([]Step, error) {
	m := &maker{plan: p, have: have, devices: map[string]*NIC{}, owned: map[string]string{}, bare: map[string]string{}}

	// 1. The loopback device: services of the ramdisk talk over it.
	for _, n := range have.NICs {
		if n.Loopback && !n.Up {
			m.do("", SetUp{n.Name}, "programs of this machine talk over it")
		}
	}

	// 2. What is needed of the machine's own, and what of that which an earlier plan made.
	m.match()
	m.removeOld()

	// 3. The links, each after what it stands on, with its addresses.
	for _, l := range p.Links {
		if err := m.link(l); err != nil {
			m.errs = append(m.errs, fmt.Errorf("link %s: %w", l.ID, err))
		}
	}

	// 4. The routes, when all links are up and each gateway can be looked up.
	for _, l := range p.Links {
		nic := m.devices[l.ID]
		if nic == nil || m.members[l.ID] != "" {
			continue
		}
		for _, r := range l.Routes {
			if err := m.route(l.ID, r, nic.Name); err != nil {
				m.errs = append(m.errs, fmt.Errorf("link %s: %w", l.ID, err))
			}
		}
	}

	// 5. Whence what leaves.
	m.sources()

	// 6. The name servers.
	if len(p.DNS) > 0 && !slices.Equal(p.DNS, have.DNS) {
		why := "none are set"
		if len(have.DNS) > 0 {
			why = "they are " + list(have.DNS)
		}
		m.do("", SetDNS{slices.Clone(p.DNS)}, why)
	}
	return m.steps, errors.Join(m.errs...)
}

// maker makes a list of steps.
type maker struct {
	plan    Plan
	have    State
	devices map[string]*NIC   // id of link -> device, as it will be; absent: there is none
	owned   map[string]string // name of device -> id of link
	members map[string]string // id of link -> id of the bond or bridge that it is for
	removed []string          // names of devices
	flushed []string          // names of devices whose routes are gone by then
	bare    map[string]string // names of devices whose addresses are -> id of the link that they are for
	steps   []Step
	errs    []error
}

func (m *maker) do(link string, c Change, why string) {
	m.steps = append(m.steps, Step{c, link, why})
}

// mark is the alias of a device that a plan made for a link.
func mark(id string) string { return marked + id }

const marked = "ironhand link "

// own reports whether a plan made the device.
func (n NIC) own() bool {
	return (n.Kind == "bond" || n.Kind == "bridge" || n.Kind == "vlan") && strings.HasPrefix(n.Alias, marked)
}

// match finds a device for each link that the machine has one for. Bonds, bridges and VLANs
// that are not as described do not count.
func (m *maker) match() {
	m.members = map[string]string{}
	for _, l := range m.plan.Links {
		for _, id := range l.members() {
			m.members[id] = l.ID
		}
	}
	for _, l := range m.plan.Links {
		var nic NIC
		var err error
		switch l.Kind {
		case Physical:
			nic, err = l.find(m.have)
			if err == nil && m.owned[nic.Name] != "" {
				err = fmt.Errorf("%s is taken by link %s", nic.Name, m.owned[nic.Name])
			}
			if err != nil {
				m.errs = append(m.errs, fmt.Errorf("link %s: %w", l.ID, err))
				continue
			}
		default:
			at := slices.IndexFunc(m.have.NICs, func(n NIC) bool { return n.own() && n.Alias == mark(l.ID) })
			if l.Bond != nil && m.infiniband(l) {
				l.MAC = ""
			}
			if at < 0 || m.differs(l, m.have.NICs[at]) != "" {
				continue
			}
			nic = m.have.NICs[at]
		}
		m.devices[l.ID], m.owned[nic.Name] = &nic, l.ID
	}
}

// differs says why a bond, bridge or VLAN is not what l says; nothing if it is.
func (m *maker) differs(l Link, n NIC) string {
	switch {
	case l.MAC != "" && l.MAC != n.MAC:
		return "its MAC is " + string(n.MAC)
	case l.Bond != nil:
		return m.bond(l).differs(n.Bond)
	case l.Bridge != nil && n.Kind != "bridge":
		return "it is no bridge"
	case l.Bridge != nil:
		return ""
	case n.Kind != "vlan":
		return "it is no VLAN"
	case n.VLAN != l.VLAN.ID:
		return fmt.Sprintf("its VLAN is %d", n.VLAN)
	case m.devices[l.VLAN.Link] == nil || m.devices[l.VLAN.Link].Name != n.Parent:
		return "it is on " + n.Parent
	}
	return ""
}

// bond returns the bond of a link with the names of NICs.
func (m *maker) bond(l Link) Bond {
	b := Bond{Options: l.Bond.Options, ARPTargets: l.Bond.ARPTargets, System: l.Bond.System}
	if m.infiniband(l) {
		b.Options = maps.Clone(b.Options)
		b.Options["fail_over_mac"] = 1
	}
	if nic := m.devices[l.Bond.Primary]; nic != nil {
		b.Primary = nic.Name
	}
	return b
}

// infiniband reports whether a bond is made of NICs of InfiniBand, whose address cannot be changed (section "Configuring Bonding for InfiniBand" of the
// kernel's documentation). They may be described by six bytes, so it shows here.
func (m *maker) infiniband(l Link) bool {
	return slices.ContainsFunc(l.Bond.Members, func(id string) bool { return m.devices[id] != nil && len(m.devices[id].address()) > ethernetMAC })
}

// removeOld removes what an earlier plan made and this one does not want so.
func (m *maker) removeOld() {
	nics := slices.Clone(m.have.NICs)
	slices.SortFunc(nics, func(a, b NIC) int { return b.Index - a.Index }) // a VLAN is younger than the one that it stands on
	for _, kind := range []string{"vlan", "bridge", "bond"} {              // what stands on others first
		for _, n := range nics {
			if !n.own() || n.Kind != kind || m.owned[n.Name] != "" {
				continue
			}
			id := strings.TrimPrefix(n.Alias, marked)
			why := "the description has no such link any more"
			for _, l := range m.plan.Links {
				if l.ID == id && l.Kind != Physical {
					why = m.differs(l, n)
				}
			}
			m.do(id, Remove{n.Name}, why)
			m.removed = append(m.removed, n.Name)
			m.flushed = append(m.flushed, n.Name)
			for _, d := range m.devices {
				if d.Master == n.Name {
					d.released(kind)
				}
			}
		}
	}
}

// released is what becomes of a member when it is let go: the kernel switches that of a bond off, and leaves that of a bridge on.
func (n *NIC) released(kind string) {
	n.Master = ""
	if kind == "bond" {
		n.Up, n.Carrier = false, false
	}
}

// link brings one link about.
func (m *maker) link(l Link) error {
	nic := m.devices[l.ID]
	switch {
	case l.Kind == Physical && (nic == nil || m.members[l.ID] != ""):
		return nil // told already, or a matter of its bond
	case l.Kind == Physical && nic.Master != "":
		m.do(l.ID, Join{NIC: nic.Name}, "it is in "+nic.Master)
		nic.released(m.have.nic(nic.Master).Kind)
		m.flushed = append(m.flushed, nic.Name)
		m.address(l, nic)
	case l.Kind == Physical:
		m.address(l, nic)
	case l.Bond != nil || l.Bridge != nil:
		var members []*NIC
		for _, id := range l.members() {
			if d := m.devices[id]; d != nil {
				members = append(members, d)
			}
		}
		if len(members) == 0 {
			return errors.New("none of its members is there")
		}
		if l.Bridge != nil {
			return m.bridge(l, nic, members)
		}
		if m.infiniband(l) {
			if mode := l.Bond.Options["mode"]; mode != activeBackup {
				return fmt.Errorf("mode %s: want active-backup for InfiniBand", bondOptions()[0].text(mode))
			}
			l.MAC = ""
		}
		nic = m.newDevice(l, nic, deviceName(cmp.Or(l.Device, l.ID), "bond"), func(name string) Change {
			return AddBond{NIC: name, Alias: mark(l.ID), MAC: l.MAC, Bond: m.bond(l)}
		})
		// Options first: MTU and IPv6 are the bond's before it is on the wire.
		up, err := m.settings(l, *nic)
		m.join(l, nic.Name, members)
		m.steps = append(m.steps, up...)
		return err
	case l.VLAN != nil:
		below := m.devices[l.VLAN.Link]
		if below == nil {
			return fmt.Errorf("link %s, which carries it, is not there", l.VLAN.Link)
		}
		nic = m.newDevice(l, nic, deviceName(cmp.Or(l.Device, fmt.Sprintf("%s.%d", below.Name, l.VLAN.ID)), "vlan"), func(name string) Change {
			return AddVLAN{NIC: name, Alias: mark(l.ID), MAC: l.MAC, Parent: below.Name, ID: l.VLAN.ID}
		})
	}
	up, err := m.settings(l, *nic)
	m.steps = append(m.steps, up...)
	return err
}

// bridge brings a bridge about. Its address is that of the first port, for by its own choice it would take another one's when that comes, and then neighbours
// and DHCP servers take the machine for another.
func (m *maker) bridge(l Link, nic *NIC, ports []*NIC) error {
	for _, d := range ports {
		if len(d.address()) > ethernetMAC {
			return fmt.Errorf("%s is of InfiniBand, which has no bridges", d.Name)
		}
	}
	nic = m.newDevice(l, nic, deviceName(cmp.Or(l.Device, l.ID), "bridge"), func(name string) Change {
		return AddBridge{NIC: name, Alias: mark(l.ID), MAC: cmp.Or(l.MAC, ports[0].address())}
	})
	up, err := m.settings(l, *nic)
	for _, d := range ports {
		if d.MTU < l.MTU {
			m.do(l.ID, SetMTU{d.Name, l.MTU}, fmt.Sprintf("it is %d, and its bridge has more", d.MTU))
		}
	}
	m.join(l, nic.Name, ports)
	m.steps = append(m.steps, up...)
	return err
}

// address gives a NIC another address than its own, if it is to have one.
func (m *maker) address(l Link, nic *NIC) {
	if l.NewMAC == "" || nic.MAC == l.NewMAC {
		return
	}
	if nic.Up {
		m.do(l.ID, SetDown{nic.Name}, "only a NIC that is switched off can get another address")
		nic.Up = false
		m.flushed = append(m.flushed, nic.Name)
		// With it go the addresses of IPv6.
		nic.Addresses = slices.DeleteFunc(slices.Clone(nic.Addresses), func(a Address) bool { return a.Prefix.Addr().Is6() })
	}
	why := "it is its own"
	if nic.MAC != nic.PermanentMAC {
		why = "it is " + string(nic.MAC)
	}
	m.do(l.ID, SetMAC{nic.Name, l.NewMAC}, why)
	nic.MAC = l.NewMAC
}

// newDevice makes the device of a bond or VLAN if there is none.
func (m *maker) newDevice(l Link, nic *NIC, wanted string, add func(name string) Change) *NIC {
	if nic != nil {
		return nic
	}
	// What the options of a new device are, only the kernel knows.
	nic = &NIC{Name: m.free(wanted), Options: map[Option]int{}}
	for _, n := range m.have.NICs {
		for o := range n.Options {
			nic.Options[o] = unknown
		}
	}
	why := "there is no such device"
	if nic.Name != wanted {
		why = wanted + " is there and was made by somebody else"
	}
	if l.Note != "" {
		why += "; " + l.Note
	}
	m.do(l.ID, add(nic.Name), why)
	m.devices[l.ID], m.owned[nic.Name] = nic, l.ID
	return nic
}

const unknown = -1

// free returns the name, or one like it if a device has it.
func (m *maker) free(name string) string {
	taken := func(name string) bool {
		there := slices.ContainsFunc(m.have.NICs, func(n NIC) bool { return n.Name == name })
		return m.owned[name] != "" || there && !slices.Contains(m.removed, name)
	}
	free := name
	for i := 2; taken(free); i++ {
		end := fmt.Sprintf("_%d", i)
		free = name[:min(len(name), nameMost-len(end))] + end
	}
	return free
}

// nameMost is how many bytes the name of a device has at most (IFNAMSIZ in linux/if.h).
const nameMost = 15

// deviceName returns a name if Linux takes it (dev_valid_name in net/core/dev.c) and
// nobody has to quote it, else another.
func deviceName(name, other string) string {
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if name == "" || len(name) > nameMost || strings.Trim(name, ".") == "" || strings.ContainsFunc(name, odd) || name == "all" || name == "default" {
		return other
	}
	return name
}

// join makes NICs the members of a bond or a bridge.
func (m *maker) join(l Link, master string, members []*NIC) {
	for _, n := range m.have.NICs {
		wanted := slices.ContainsFunc(members, func(d *NIC) bool { return d.Name == n.Name })
		if n.Master == master && !wanted && m.owned[n.Name] == "" && !slices.Contains(m.removed, master) {
			m.do(l.ID, Join{NIC: n.Name}, "it is not a member any more")
		}
	}
	for _, n := range members {
		if n.Master == master {
			if l.Bridge != nil && !n.Up {
				m.do(l.ID, SetUp{n.Name}, "it is switched off")
			}
			continue
		}
		// The kernel leaves them to it, with the way to their network, and what comes in by the bond would go out there.
		for _, a := range n.Addresses {
			if !a.Prefix.Addr().IsLinkLocalUnicast() || a.Prefix.Addr().Is4() {
				m.do(l.ID, RemoveAddress{n.Name, a.Prefix}, "a member has no address of its own")
			}
		}
		n.Addresses = nil
		m.bare[n.Name] = l.ID
		if n.Master != "" { // another one of ours
			m.do(l.ID, Join{NIC: n.Name}, "it is in "+n.Master)
			n.released(m.have.nic(n.Master).Kind)
		}
		if n.Up && l.Bond != nil {
			m.do(l.ID, SetDown{n.Name}, "only a NIC that is switched off can become a member")
		}
		m.do(l.ID, Join{n.Name, master}, "it is a member")
		if !n.Up && l.Bridge != nil {
			m.do(l.ID, SetUp{n.Name}, "it is switched off")
		}
		n.Master, n.Up = master, true
		m.flushed = append(m.flushed, n.Name)
	}
}

// settings returns what is to be done to the device itself; for options that must be
// right before the device is on the wire, m has it done. From then on it hears router advertisements.
func (m *maker) settings(l Link, nic NIC) ([]Step, error) {
	has6 := slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
	var err error
	if _, known := nic.Options[IPv6Off]; has6 && !known {
		err = fmt.Errorf("%s: this kernel has no IPv6", nic.Name)
		has6 = false
	}
	set := func(o Option, value int, why string) {
		if got, known := nic.Options[o]; known && got != value {
			m.do(l.ID, SetOption{nic.Name, o, value}, why)
		}
	}
	switch auto6 := slices.ContainsFunc(l.Auto, Method.is6); {
	case auto6:
		set(IPv6Off, 0, "it gets IPv6 addresses")
		set(AcceptRA, 1, "its IPv6 routes are in advertisements")
	case has6:
		set(IPv6Off, 0, "it has IPv6 addresses")
		set(AcceptRA, 0, "its IPv6 addresses are fixed")
	}
	set(SkipDead4, 1, "routes over it shall not count while it has no link")
	set(SkipDead6, 1, "routes over it shall not count while it has no link")
	if m.plan.shares(l) {
		set(ARPIgnore, 1, "another NIC is in the same network")
		set(ARPAnnounce, 2, "another NIC is in the same network")
	}
	if l.MTU != 0 && l.MTU != nic.MTU {
		why := "it is the kernel's"
		if nic.MTU != 0 {
			why = fmt.Sprintf("it is %d", nic.MTU)
		}
		m.do(l.ID, SetMTU{nic.Name, l.MTU}, why)
	}
	var later []Step
	if !nic.Up {
		later = append(later, Step{SetUp{nic.Name}, l.ID, "it is switched off"})
	}
	for _, a := range l.Addresses {
		there := slices.ContainsFunc(nic.Addresses, func(h Address) bool { return h.Prefix == a })
		if !there && (has6 || a.Addr().Is4()) {
			later = append(later, Step{AddAddress{nic.Name, a}, l.ID, "it is missing"})
		}
	}
	return later, err
}

// shares reports whether another link has an address in an IPv4 network of this one.
func (p Plan) shares(l Link) bool {
	return slices.ContainsFunc(p.Links, func(other Link) bool { return other.ID != l.ID && other.meets(l, true) })
}

// route puts r in force on the NIC. The kernel holds one route for each destination
// and metric: what has the place is removed if it is a way over a gateway on a NIC
// of the plan, and is an error if not.
func (m *maker) route(link string, r Route, nic string) error {
	var old []NICRoute
	for _, h := range m.have.Routes {
		if h.Destination != r.Destination || h.metric() != r.metric() || slices.Contains(m.flushed, h.NIC) {
			continue
		}
		if h.NIC == nic && h.Gateway == r.Gateway {
			return nil
		}
		if m.owned[h.NIC] == "" || !h.Gateway.IsValid() {
			return fmt.Errorf("route %s: the machine has %s", r.on(nic), h)
		}
		old = append(old, h)
	}
	for _, h := range old {
		m.do(link, RemoveRoute{h.NIC, h.Route}, "it has the place of another one")
	}
	m.do(link, AddRoute{nic, r}, "it is missing")
	return nil
}

// sources ties addresses to their NICs, where several NICs lead to the same.
func (m *maker) sources() {
	for _, s := range m.have.Sources {
		held := slices.ContainsFunc(m.have.nic(s.NIC).Addresses, func(a Address) bool { return a.Prefix.Addr() == s.Address })
		master, bare := m.bare[s.NIC]
		if !held || slices.Contains(m.removed, s.NIC) {
			master = "" // also if that master cannot be made
		}
		if !held || bare || slices.Contains(m.removed, s.NIC) {
			m.do(master, RemoveSource{s.Address}, "no NIC has the address any more")
		}
	}
	for _, l := range m.plan.Links {
		nic := m.devices[l.ID]
		if nic == nil || m.members[l.ID] != "" {
			continue
		}
		for _, a := range l.Addresses {
			if a.Addr().IsLinkLocalUnicast() || !m.plan.rivals(l, a.Addr().Is4()) {
				continue
			}
			want := Source{NIC: nic.Name, Address: a.Addr()}
			for _, other := range l.Addresses {
				near := Route{Destination: other.Masked()}
				if other.Addr().Is4() == a.Addr().Is4() && !other.IsSingleIP() && !slices.Contains(want.Routes, near) {
					want.Routes = append(want.Routes, near)
				}
			}
			for _, r := range l.Routes {
				if r.Destination.Addr().Is4() == a.Addr().Is4() {
					want.Routes = append(want.Routes, r)
				}
			}
			if len(want.Routes) > 0 && (slices.Contains(m.flushed, nic.Name) || !m.have.holds(want)) {
				m.do(l.ID, SetSource{want}, "another NIC leads there too, and answers shall leave by this one")
			}
		}
	}
}

// holds reports whether the machine has the source, with its routes and no others.
func (s State) holds(want Source) bool {
	return slices.ContainsFunc(s.Sources, func(have Source) bool {
		if have.NIC != want.NIC || have.Address != want.Address || len(have.Routes) != len(want.Routes) {
			return false
		}
		for _, r := range want.Routes {
			if !have.has(r) {
				return false
			}
		}
		return true
	})
}

// has reports whether the route is one of the source's.
func (s Source) has(r Route) bool {
	return slices.ContainsFunc(s.Routes, func(h Route) bool {
		return h.Destination == r.Destination && h.Gateway == r.Gateway && h.metric() == r.metric()
	})
}

// rivals reports whether another link leads to what a link leads to: both have a default route, or an address in one network.
func (p Plan) rivals(l Link, is4 bool) bool {
	leads := func(l Link) bool {
		return slices.ContainsFunc(l.Routes, func(r Route) bool { return r.Destination.Bits() == 0 && r.Destination.Addr().Is4() == is4 })
	}
	return slices.ContainsFunc(p.Links, func(other Link) bool {
		return other.ID != l.ID && (leads(l) && leads(other) || other.meets(l, is4))
	})
}

// meets reports whether two links have an address in one network.
func (l Link) meets(other Link, is4 bool) bool {
	return slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool {
		return a.Addr().Is4() == is4 && !a.Addr().IsLinkLocalUnicast() && slices.ContainsFunc(other.Addresses, a.Overlaps)
	})
}

// find returns the NIC of a physical link.
//
// The permanent address decides, for a NIC in a bond shows the bond's address as
// its current one. The current address counts only for a NIC without a permanent
// one, and never for a device that stands on another and borrows its address.
func (l Link) find(have State) (NIC, error) {
	if l.MAC == "" {
		return l.named(have)
	}
	var found []NIC
	for _, n := range candidates(have) {
		if l.MAC.Is(n.PermanentMAC) || n.PermanentMAC == "" && (n.MAC == l.MAC || l.NewMAC != "" && n.MAC == l.NewMAC) {
			found = append(found, n)
		}
	}
	// A virtual function under a paravirtual NIC (netvsc, net_failover) has the
	// address of its master; the master is the one to configure. Members of our own
	// bonds are as free as others.
	free := slices.DeleteFunc(slices.Clone(found), func(n NIC) bool { return n.Master != "" && !have.nic(n.Master).own() })
	switch {
	case len(found) == 0:
		return NIC{}, fmt.Errorf("%w: no NIC has the MAC %s; %s", ErrNoNIC, l.MAC, inventory(have))
	case len(free) > 1 || len(free) == 0 && len(found) > 1:
		return NIC{}, fmt.Errorf("%d NICs have the MAC %s; %s", len(found), l.MAC, inventory(have))
	case len(free) == 0:
		return NIC{}, fmt.Errorf("%s (%s) belongs to %s", found[0].Name, l.MAC, found[0].Master)
	}
	return free[0], nil
}

// named returns the NIC of a link that has no MAC.
func (l Link) named(have State) (NIC, error) {
	nics := candidates(have)
	for _, n := range nics {
		switch {
		case n.Name != l.Device && (l.Device != "" || len(nics) != 1):
		case n.Master != "" && !have.nic(n.Master).own():
			return NIC{}, fmt.Errorf("%s belongs to %s", n.Name, n.Master)
		default:
			return n, nil
		}
	}
	if l.Device == "" && len(nics) > 1 {
		return NIC{}, fmt.Errorf("the description names no NIC, and the machine has several; %s", inventory(have))
	}
	return NIC{}, fmt.Errorf("%w: no NIC is named %s; %s", ErrNoNIC, quote(l.Device), inventory(have))
}

// HasNIC reports whether the machine has at least one NIC of the plan.
func (p Plan) HasNIC(have State) bool {
	return slices.ContainsFunc(p.Links, func(l Link) bool {
		_, err := l.find(have)
		return l.Kind == Physical && err == nil
	})
}

// device returns the device that a link has on the machine.
func (p Plan) device(l Link, have State) (NIC, bool) {
	if l.Kind == Physical {
		n, err := l.find(have)
		return n, err == nil
	}
	for _, n := range have.NICs {
		if n.own() && n.Alias == mark(l.ID) {
			return n, true
		}
	}
	return NIC{}, false
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
