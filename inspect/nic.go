// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/ironhand/ironhand/inspect/lldp"
)

// NIC is one network interface in the inventory.
type NIC struct {
	Name        string     `json:"name"`
	MACAddress  Text       `json:"mac_address"` // permanent if the driver knows it; lower case
	IPv4Address Text       `json:"ipv4_address"`
	IPv6Address Text       `json:"ipv6_address"` // a link-local one has its zone: fe80::1%eth0
	HasCarrier  bool       `json:"has_carrier"`
	LLDP        []lldp.TLV `json:"lldp"`    // null unless somebody has listened; see [Machine.Listen]
	Vendor      Text       `json:"vendor"`  // PCI or virtio number with 0x
	Product     Text       `json:"product"` // as above
	ClientID    Text       `json:"client_id"`
	BIOSDevName Text       `json:"biosdevname"` // always null: it takes a program that nobody ships any more
	SpeedMbps   Number     `json:"speed_mbps"`  // highest that the interface can do; if that is not known, of the link as it is
	PCIAddress  Text       `json:"pci_address"` // name on its bus; of virtio: virtio0
	Driver      Text       `json:"driver"`

	Kind     NICKind `json:"-"`
	Firmware string  `json:"-"` // version, as the driver says it; empty if it does not
	LinkMbps int64   `json:"-"` // of the link as it is; 0 while it is down
	NUMANode int     `json:"-"` // -1 if it is not known
	Master   string  `json:"-"` // bond or bridge that the interface is a part of; empty if none
}

// NICKind says whether an interface's address identifies the machine.
type NICKind int

// Kinds of interfaces.
const (
	Physical        NICKind = iota
	VirtualFunction         // of SR-IOV, or what stands for one: its address comes and goes with its physical function's settings
	BMCLink                 // USB link to the BMC: the same address in every machine of some models
	Borrowed                // bond or VLAN: the address is another interface's
)

func (k NICKind) String() string {
	switch k {
	case Physical:
		return "physical"
	case VirtualFunction:
		return "virtual function"
	case BMCLink:
		return "link to the BMC"
	case Borrowed:
		return "bond or VLAN"
	}
	return "NICKind(" + strconv.Itoa(int(k)) + ")"
}

// LookupMACs returns the addresses by which the conductor knows the machine: those of the physical interfaces, each once,
// in the inventory's order. If that leaves none, those of all interfaces, since a lookup without any cannot succeed.
func LookupMACs(inv Inventory) []net.HardwareAddr {
	if macs := distinctMACs(inv.Interfaces, func(n NIC) bool { return n.Kind == Physical }); len(macs) > 0 {
		return macs
	}
	return distinctMACs(inv.Interfaces, func(NIC) bool { return true })
}

func distinctMACs(nics []NIC, wanted func(NIC) bool) (macs []net.HardwareAddr) {
	seen := make(map[string]bool)
	for _, n := range nics {
		mac, err := net.ParseMAC(string(n.MACAddress))
		if err != nil || !wanted(n) || seen[mac.String()] {
			continue
		}
		seen[mac.String()] = true
		macs = append(macs, mac)
	}
	return macs
}

// readNICs lists the interfaces as ironic-python-agent does (ironic_python_agent/netutils.py, list_interfaces): those with
// hardware behind them, bonds, and what has the name of a VLAN.
func readNICs(r *reader) []NIC {
	byIndex, _ := within(r, "addresses of interfaces", deviceLimit, (*reader).addresses)
	found := each(r, "interface", deviceLimit, r.dir("sys/class/net"), func(r *reader, name string) *NIC {
		dir := r.real("sys/class/net/" + name)
		device, bond := r.follow(dir+"/device"), r.exists(dir+"/bonding")
		if device == "" && !bond && !isVLAN(name) {
			return nil
		}
		index, _ := r.number(dir + "/ifindex")
		n := readNIC(r, name, dir, device, byIndex[int(index)])
		return &n
	}, func(string) *NIC { return nil })
	list := []NIC{}
	for _, n := range found {
		if n != nil {
			list = append(list, *n)
		}
	}
	slices.SortStableFunc(list, func(a, b NIC) int { return compareNames(a.Name, b.Name) })
	return list
}

// readNIC reads one interface. dir is its directory, device that of its hardware or empty.
func readNIC(r *reader, name, dir, device string, addresses []netip.Prefix) NIC {
	n := NIC{
		Name:       name,
		MACAddress: Text(strings.ToLower(r.text(dir + "/address"))),
		// Both fail with EINVAL while the interface is down (net/core/net-sysfs.c).
		HasCarrier: r.attempt(dir+"/carrier") == "1",
		Kind:       Borrowed,
		NUMANode:   -1,
		Master:     r.target(dir + "/master"),
	}
	// All drivers hang if one holds the kernel's lock for the network; what is in files is there all the same.
	type answers struct {
		firmware string
		speed    int64
		mac      net.HardwareAddr
	}
	said, _ := within(r, "driver of interface "+name, driverLimit, func(r *reader) answers {
		return answers{r.nicFirmware(name), cmp.Or(highestSpeed(r.askNIC(askModes, name)), r.driverSpeed(name)), r.permanentMAC(name)}
	})
	if device != "" {
		n.Vendor = Text(r.text(device + "/vendor"))
		n.Product = Text(r.text(device + "/device"))
		n.Driver = Text(r.target(device + "/driver"))
		n.Kind = kind(string(n.Driver), r.exists(device+"/physfn") || isRepresentor(r.attempt(dir+"/phys_port_name")))
		n.Firmware = said.firmware
		if node, ok := r.number(device + "/numa_node"); ok {
			n.NUMANode = int(node)
		}
	}
	for _, a := range addresses {
		address := a.Addr()
		switch {
		case address.Is4() && n.IPv4Address == "":
			n.IPv4Address = Text(address.String())
		case address.Is6() && n.IPv6Address == "":
			if address.IsLinkLocalUnicast() {
				address = address.WithZone(name)
			}
			n.IPv6Address = Text(address.String())
		}
	}

	if guid := string(n.MACAddress); n.Vendor == "0x15b3" && len(guid) == 59 { // Mellanox InfiniBand: 20 bytes
		// The port is known by an Ethernet address made of the ends of its GUID, and DHCP's client ID
		// (ironic_python_agent/hardware_managers/mlnx.py).
		n.MACAddress = Text(guid[36:45] + guid[51:])
		n.ClientID = Text("ff:00:00:00:00:00:02:00:00:02:c9:00:" + guid[36:])
		n.IPv6Address, n.Driver = "", ""
		return n
	}

	if mbps, err := strconv.ParseInt(r.attempt(dir+"/speed"), 10, 32); err == nil && mbps > 0 { // -1: not known
		n.LinkMbps, n.SpeedMbps = mbps, Number(mbps)
	}
	if device != "" {
		n.PCIAddress = Text(path.Base(device))
		if said.speed > 0 {
			n.SpeedMbps = Number(said.speed)
		}
	}
	// In a bond, the current address is another's. The bond remembers what it was, also where the driver does not say.
	if said.mac != nil {
		n.MACAddress = Text(said.mac.String())
	} else if own := r.text(dir + "/bonding_slave/perm_hwaddr"); own != "" {
		n.MACAddress = Text(strings.ToLower(own))
	}
	return n
}

// kind tells a physical interface from those whose address says nothing about the machine. BMCs present themselves as a
// USB network adapter of one of these classes of the USB standard; adapters that people plug in have drivers of their own.
func kind(driver string, virtualFunction bool) NICKind {
	switch {
	case virtualFunction:
		return VirtualFunction
	case slices.Contains([]string{"cdc_ether", "cdc_ncm", "cdc_eem", "cdc_subset", "rndis_host"}, driver):
		return BMCLink
	}
	return Physical
}

// isRepresentor tells whether a port of a switch in a network card stands for a virtual function: pf0vf1, c1pf0sf88 (devlink's names,
// net/core/devlink.c, __devlink_port_phys_port_name_get). Its address is made up.
func isRepresentor(port string) bool {
	i := strings.Index(port, "pf")
	return i >= 0 && (strings.Contains(port[i:], "vf") || strings.Contains(port[i:], "sf"))
}

// isVLAN tells whether the name is that of a VLAN by custom: eth0.100.
func isVLAN(name string) bool {
	parent, id, found := strings.Cut(name, ".")
	return found && parent != "" && id != "" && strings.Trim(id, "0123456789") == ""
}

// compareNames puts eth2 before eth10.
func compareNames(a, b string) int {
	for a != "" && b != "" {
		x, restA := nextPart(a)
		y, restB := nextPart(b)
		if x != y {
			if digit(x[0]) && digit(y[0]) {
				x, y := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
				if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
					return c
				}
			}
			return cmp.Compare(x, y)
		}
		a, b = restA, restB
	}
	return cmp.Compare(a, b)
}

// nextPart splits off what is all digits or all other characters.
func nextPart(s string) (part, rest string) {
	i := 1
	for i < len(s) && digit(s[i]) == digit(s[0]) {
		i++
	}
	return s[:i], s[i:]
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
