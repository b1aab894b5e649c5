// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what firmware says; the table itself has two NICs, some firmware has more (drivers/firmware/iscsi_ibft.c of Linux).
const (
	firmwareNICsMost  = 16
	firmwareBytesMost = 4096 // of one attribute
)

// Bits of the flags of a NIC, and whence its address comes (iSCSI Boot Firmware Table, 3.4; the latter is NL_PREFIX_ORIGIN of Windows).
const (
	firmwareValid    = 1
	firmwareBoots    = 2
	originDHCP       = 3
	originAdvertised = 4
)

// firmwareNIC is a NIC of the table that firmware leaves when it has booted by iSCSI, as the kernel shows it below /sys/firmware/ibft
// (Documentation/ABI/testing/sysfs-ibft of Linux). Who knows the targets' secrets is not asked: only what the NICs are is read.
type firmwareNIC struct {
	name    string // ethernet0
	mac     MAC
	vlan    int          // 0 is none
	methods []Method     // none: the address is fixed
	address netip.Prefix // without methods
	gateway netip.Addr   // the zero Addr is none
	dns     []netip.Addr
}

// addFirmware adds the links of the firmware's NICs: those that it has booted from, or all if rd.iscsi.mp says so.
func (p *cmdline) addFirmware(firmware fs.FS) {
	const word = "ip=ibft"
	var entries []fs.DirEntry
	err := fs.ErrNotExist
	if firmware != nil {
		entries, err = fs.ReadDir(firmware, ".")
	}
	if errors.Is(err, fs.ErrNotExist) {
		p.fail(word, "the firmware has not left a table of booting by iSCSI (/sys/firmware/ibft)")
		return
	}
	if err != nil {
		p.fail(word, "%w", err)
		return
	}
	seen, before := 0, len(p.errs)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "ethernet") {
			continue
		}
		if seen++; seen > firmwareNICsMost {
			p.fail(word, "more than %d NICs", firmwareNICsMost)
			break
		}
		n, counts, err := readFirmwareNIC(firmware, e.Name(), p.allFirmware)
		if err != nil {
			p.fail(word, "%s: %w", e.Name(), err)
		} else if counts {
			p.addFirmwareNIC(word+" "+n.name, n)
			before = -1
		}
	}
	if before == len(p.errs) {
		p.fail(word, "the firmware names no NIC that it has booted from")
	}
}

func (p *cmdline) addFirmwareNIC(word string, n firmwareNIC) {
	l := p.addressed(word, strings.ReplaceAll(string(n.mac), ":", "-"))
	if l == nil {
		return
	}
	if n.vlan != 0 {
		if l = p.tagged(l, n.vlan); l == nil {
			return
		}
	}
	for _, m := range n.methods {
		if !slices.Contains(l.Auto, m) {
			l.Auto = append(l.Auto, m)
		}
	}
	if len(n.methods) == 0 {
		gateway, ok := p.usable(word, n.address, n.gateway)
		if !ok || !p.give(word, l, n.address, gateway) {
			return
		}
	}
	for _, a := range n.dns {
		p.nameserver(word, a.String())
	}
}

// tagged returns the VLAN of a link, made if there is none.
func (p *cmdline) tagged(on *Link, id int) *Link {
	for _, l := range p.order {
		if l.VLAN != nil && *l.VLAN == (VLAN{on.ID, id}) {
			return l
		}
	}
	l := &Link{ID: fmt.Sprintf("%s.%d", on.ID, id), Kind: Tagged, VLAN: &VLAN{Link: on.ID, ID: id}}
	p.links[l.ID] = l
	p.order = append(p.order, l)
	return l
}

// readFirmwareNIC reads the attributes of one NIC; counts is false if the table says that it is not to be used.
func readFirmwareNIC(firmware fs.FS, name string, all bool) (n firmwareNIC, counts bool, err error) {
	n.name = name
	attribute := func(file string) string {
		text, failed := readAttribute(firmware, name+"/"+file)
		if failed != nil && err == nil {
			err = failed
		}
		return text
	}
	number := func(file string) int {
		text := attribute(file)
		if text == "" {
			return 0
		}
		i, failed := strconv.ParseUint(text, 10, 16)
		if failed != nil && err == nil {
			err = fmt.Errorf("%s: %s is not a number", file, quote(text))
		}
		return int(i)
	}
	address := func(file string) netip.Addr { // the zero Addr if there is none
		text := attribute(file)
		if text == "" {
			return netip.Addr{}
		}
		a, failed := netip.ParseAddr(text)
		if (failed != nil || a.Zone() != "") && err == nil {
			err = fmt.Errorf("%s: %s is not an IP address", file, quote(text))
		}
		if a = a.Unmap(); a.IsUnspecified() {
			return netip.Addr{}
		}
		return a
	}

	flags := number("flags")
	if err != nil || flags&firmwareValid == 0 || flags&firmwareBoots == 0 && !all {
		return n, false, err
	}
	if n.mac, err = ParseMAC(attribute("mac")); err != nil {
		return n, false, fmt.Errorf("mac: %w", err)
	}
	if n.vlan = number("vlan"); n.vlan > 4094 && err == nil {
		err = fmt.Errorf("vlan: %d, want 1 to 4094", n.vlan)
	}
	own, server, origin := address("ip-addr"), address("dhcp"), number("origin")
	for _, file := range []string{"primary-dns", "secondary-dns"} {
		if a := address(file); a.IsValid() {
			n.dns = append(n.dns, a)
		}
	}
	is6 := own.Is6() || !own.IsValid() && server.Is6()
	switch {
	case err != nil:
	case origin == originAdvertised:
		n.methods = []Method{Auto6}
	case (server.IsValid() || origin == originDHCP) && is6:
		n.methods = []Method{DHCP6}
	case server.IsValid() || origin == originDHCP:
		n.methods = []Method{DHCP4}
	case !own.IsValid():
		err = errors.New("neither an address nor a DHCP server")
	default:
		// The kernel shows an IPv4 mask for IPv6 too.
		mask := attribute("prefix-len")
		if mask == "" && own.Is4() {
			mask = attribute("subnet-mask")
		}
		if mask == "" {
			return n, false, errors.Join(err, errors.New("the address has no mask"))
		}
		n.gateway = address("gateway")
		length, failed := parseMaskText(mask, own)
		if failed != nil {
			return n, false, errors.Join(err, failed)
		}
		n.address = netip.PrefixFrom(own, length)
	}
	return n, true, err
}

// readAttribute returns the text of a file of the kernel's; one that is not there is empty.
func readAttribute(fsys fs.FS, name string) (string, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, firmwareBytesMost))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}
