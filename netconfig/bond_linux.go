// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

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
	if err := setData(index, "bond", data); err != nil {
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
