// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ironhand/ironhand/inspect/lldp"
	"github.com/ironhand/ironhand/netconfig"
)

// maxVLANs bounds how many interfaces are made of what switches announce.
const maxVLANs = 256

// makeVLANs makes the interfaces that ipa-enable-vlan-interfaces asks for, as far as they are known: those of what switches announce need heard. They are
// on, have no addresses, and appear in the inventory. What cannot be made is said, and is no reason to stop. Source: IPA ironic_python_agent/netutils.py,
// bring_up_vlan_interfaces.
func (a *agent) makeVLANs(ctx context.Context, heard map[string][]lldp.TLV) (made bool) {
	if len(a.config.VLANs) == 0 {
		return false
	}
	k, err := a.network()
	if err != nil {
		a.sayLines("network", err.Error())
		return false
	}
	state, err := k.State(ctx)
	if err != nil {
		a.sayLines("network", err.Error())
		return false
	}
	wanted, unknown := wantedVLANs(a.config.VLANs, state.NICs, heard)
	for _, word := range unknown {
		a.console.Stage("network", "WARNING: ipa-enable-vlan-interfaces: %.40q names no interface of this machine, or no VLAN from 1 to 4094", word)
	}
	for _, add := range wanted {
		if slices.ContainsFunc(state.NICs, func(n netconfig.NIC) bool {
			return n.Name == add.NIC || n.Kind == "vlan" && n.Parent == add.Parent && n.VLAN == add.ID
		}) {
			continue
		}
		// As in switchLinksOn, routers are not listened to: they would take the way to the conductor away.
		changes := []netconfig.Change{add, netconfig.SetUp{NIC: add.NIC}}
		parent := state.NICs[slices.IndexFunc(state.NICs, func(n netconfig.NIC) bool { return n.Name == add.Parent })]
		if _, known := parent.Options[netconfig.AcceptRA]; known {
			changes = slices.Insert(changes, 1, netconfig.Change(netconfig.SetOption{NIC: add.NIC, Option: netconfig.AcceptRA, Value: 0}))
			if !parent.Up {
				changes = slices.Insert(changes, 0, netconfig.Change(netconfig.SetOption{NIC: add.Parent, Option: netconfig.AcceptRA, Value: 0}))
			}
		}
		if !parent.Up {
			changes = slices.Insert(changes, len(changes)-1, netconfig.Change(netconfig.SetUp{NIC: add.Parent}))
		}
		var err error
		for _, c := range changes {
			if err = k.Do(ctx, c); err != nil {
				a.console.Stage("network", "WARNING: VLAN interface %s: %s: %v", add.NIC, c, err)
				break
			}
		}
		made = made || err == nil
	}
	return made
}

// wantedVLANs lists the interfaces that words ask for: NIC.VLAN or MAC.VLAN; NIC or "all" for those that a switch has announced there. Unknown are the
// words that say nothing.
func wantedVLANs(words []string, nics []netconfig.NIC, heard map[string][]lldp.TLV) (wanted []netconfig.AddVLAN, unknown []string) {
	add := func(nic string, id int) {
		c := netconfig.AddVLAN{NIC: fmt.Sprintf("%s.%d", nic, id), Parent: nic, ID: id}
		if len(wanted) < maxVLANs && !slices.Contains(wanted, c) {
			wanted = append(wanted, c)
		}
	}
	find := func(name string) string {
		mac, err := netconfig.ParseMAC(name)
		for _, n := range nics {
			if n.Loopback || n.Kind == "vlan" {
				continue
			}
			if n.Name == name || err == nil && (n.PermanentMAC == mac || n.PermanentMAC == "" && n.MAC == mac) {
				return n.Name
			}
		}
		return ""
	}
	announced := func(nic string) {
		for _, v := range lldp.Describe(heard[nic]).VLANs {
			if v.ID >= 1 && v.ID <= 4094 {
				add(nic, v.ID)
			}
		}
	}
	for _, word := range words {
		if word == "all" {
			for _, nic := range slices.Sorted(maps.Keys(heard)) {
				if find(nic) != "" {
					announced(nic)
				}
			}
			continue
		}
		if nic := find(word); nic != "" {
			announced(nic)
			continue
		}
		name, number := word, ""
		if at := strings.LastIndexByte(word, '.'); at >= 0 {
			name, number = word[:at], word[at+1:]
		}
		id, err := strconv.ParseUint(number, 10, 12)
		nic := find(name)
		if err != nil || id < 1 || id > 4094 || nic == "" {
			unknown = append(unknown, word)
			continue
		}
		add(nic, int(id))
	}
	return wanted, unknown
}
