// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bond says how several NICs work as one (Documentation/networking/bonding.rst
// of Linux).
type Bond struct {
	Members    []string       `json:"members"`           // ids of links; in a State and in changes empty
	Options    map[string]int `json:"options"`           // by the kernel's names, "mode" among them; choices by their place in the kernel's list
	Primary    string         `json:"primary,omitempty"` // id of the member to prefer; in a State and in changes the name of the NIC
	ARPTargets []netip.Addr   `json:"arp_ip_target,omitempty"`
	System     MAC            `json:"ad_actor_system,omitempty"` // by LACP, the machine calls itself so; empty is the bond's own address
}

// String returns the options as words, the mode first.
func (b Bond) String() string {
	words := []string{bondOptions()[0].text(b.Options["mode"])}
	for _, name := range slices.Sorted(maps.Keys(b.Options)) {
		if o, _ := bondOptionNamed(name); name != "mode" {
			words = append(words, name+" "+o.text(b.Options[name]))
		}
	}
	if b.Primary != "" {
		words = append(words, "primary "+b.Primary)
	}
	if b.System != "" {
		words = append(words, "ad_actor_system "+string(b.System))
	}
	if len(b.ARPTargets) > 0 {
		words = append(words, "arp_ip_target "+strings.ReplaceAll(list(b.ARPTargets), ", ", ","))
	}
	return strings.Join(words, " ")
}

// Places of bond modes in the kernel's list.
const (
	roundRobin   = 0
	activeBackup = 1
	lacp         = 4
	transmitLB   = 5
	adaptiveLB   = 6
)

// defaultMiimon is how often the members' links are looked at, in milliseconds, where
// the description has no other way to notice that one is dead. The kernel's own default is never.
const defaultMiimon = 100

// bondOption is what an option may be.
type bondOption struct {
	name    string
	choices []string // in the order of their numbers; nil for a number
	min     int
	max     int
	modes   []int // nil: all
}

// bondOptions lists all options that are numbers or choices (bond_opts in
// drivers/net/bonding/bond_options.c); the mode is the first.
func bondOptions() []bondOption {
	const much = 1<<31 - 1
	loadBalanced := []int{transmitLB, adaptiveLB}
	preferred := []int{activeBackup, transmitLB, adaptiveLB}
	probed := []int{0, 1, 2, 3}
	return []bondOption{
		{name: "mode", choices: []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}},
		{name: "ad_actor_sys_prio", min: 1, max: 65535, modes: []int{lacp}},
		{name: "lacp_active", choices: []string{"off", "on"}, modes: []int{lacp}},
		{name: "ad_select", choices: []string{"stable", "bandwidth", "count"}, modes: []int{lacp}},
		{name: "ad_user_port_key", max: 1023, modes: []int{lacp}},
		{name: "all_slaves_active", max: 1},
		{name: "arp_all_targets", choices: []string{"any", "all"}},
		{name: "arp_interval", max: much, modes: probed},
		{name: "arp_validate", choices: []string{"none", "active", "backup", "all", "filter", "filter_active", "filter_backup"}, modes: probed},
		{name: "downdelay", max: much},
		{name: "fail_over_mac", choices: []string{"none", "active", "follow"}},
		{name: "lacp_rate", choices: []string{"slow", "fast"}, modes: []int{lacp}},
		{name: "lp_interval", min: 1, max: much},
		{name: "miimon", max: much},
		{name: "min_links", max: much},
		{name: "missed_max", min: 1, max: 255, modes: probed},
		{name: "num_peer_notif", max: 255},
		{name: "peer_notif_delay", max: 300_000},
		{name: "packets_per_slave", max: 65535, modes: []int{roundRobin}},
		{name: "primary_reselect", choices: []string{"always", "better", "failure"}, modes: preferred},
		{name: "resend_igmp", max: 255},
		{name: "tlb_dynamic_lb", max: 1, modes: loadBalanced},
		{name: "updelay", max: much},
		{name: "use_carrier", max: 1},
		{name: "xmit_hash_policy", choices: []string{"layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"}},
	}
}

// bondOptionNamed returns the option with a name of the kernel's, or of its old ones.
func bondOptionNamed(name string) (bondOption, bool) {
	switch name {
	case "num_grat_arp", "num_unsol_na":
		name = "num_peer_notif"
	case "arp_missed_max":
		name = "missed_max"
	case "ad_lacp_rate":
		name = "lacp_rate"
	case "ad_lacp_active":
		name = "lacp_active"
	}
	for _, o := range bondOptions() {
		if o.name == name {
			return o, true
		}
	}
	return bondOption{}, false
}

// text returns a value as people write it.
func (o bondOption) text(value int) string {
	if value >= 0 && value < len(o.choices) {
		return o.choices[value]
	}
	return strconv.Itoa(value)
}

// parse reads a value: a number, or a choice by its name or its number.
func (o bondOption) parse(s string) (int, error) {
	if n := slices.Index(o.choices, s); n >= 0 {
		return n, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case o.choices != nil && (err != nil || n < 0 || n >= int64(len(o.choices))):
		return 0, fmt.Errorf("%s, want one of %s", quote(s), strings.Join(o.choices, ", "))
	case o.choices == nil && err != nil:
		return 0, fmt.Errorf("%s is not a number", quote(s))
	case o.choices == nil && (n < int64(o.min) || n > int64(o.max)):
		return 0, fmt.Errorf("%d, want %d to %d", n, o.min, o.max)
	}
	return int(n), nil
}

// check reports what the kernel would refuse of the options together, each with
// the option's name, and takes it out of b.
func (b *Bond) check() map[string]error {
	mode := b.Options["mode"]
	wrong := map[string]error{}
	for _, name := range slices.Sorted(maps.Keys(b.Options)) {
		if o, _ := bondOptionNamed(name); o.modes != nil && !slices.Contains(o.modes, mode) {
			wrong[name] = fmt.Errorf("not in mode %s", bondOptions()[0].text(mode))
			delete(b.Options, name)
		}
	}
	if b.Options["arp_interval"] != 0 && b.Options["miimon"] != 0 {
		wrong["arp_interval"] = fmt.Errorf("not together with miimon")
		delete(b.Options, "arp_interval")
	}
	if b.Options["arp_interval"] != 0 && len(b.ARPTargets) == 0 {
		wrong["arp_interval"] = fmt.Errorf("without arp_ip_target no link would ever be found good")
		delete(b.Options, "arp_interval")
	}
	if _, set := b.Options["miimon"]; !set && b.Options["arp_interval"] == 0 {
		b.Options["miimon"] = defaultMiimon
	}
	for _, name := range []string{"updelay", "downdelay", "peer_notif_delay"} {
		if b.Options[name] != 0 && b.Options["miimon"] == 0 {
			wrong[name] = fmt.Errorf("not without miimon")
			delete(b.Options, name)
		} else if b.Options[name] != 0 { // the kernel rounds, too, and would never show what was given
			b.Options[name] -= b.Options[name] % b.Options["miimon"]
		}
	}
	if b.System != "" && mode != lacp {
		wrong["ad_actor_system"] = fmt.Errorf("not in mode %s", bondOptions()[0].text(mode))
		b.System = ""
	}
	return wrong
}

// takesPrimary reports whether the mode prefers one member.
func (b Bond) takesPrimary() bool {
	o, _ := bondOptionNamed("primary_reselect")
	return slices.Contains(o.modes, b.Options["mode"])
}

// differs says how a bond that the machine has differs from b, whose primary is a
// NIC's name; nothing if it does not. What b does not say may be as it is.
func (b Bond) differs(have *Bond) string {
	if have == nil {
		return "it is no bond"
	}
	for _, name := range slices.Sorted(maps.Keys(b.Options)) {
		o, _ := bondOptionNamed(name)
		if got, ok := have.Options[name]; !ok || got != b.Options[name] {
			return fmt.Sprintf("%s is %s", name, o.text(got))
		}
	}
	if b.Primary != "" && b.Primary != have.Primary {
		return "its primary is not " + b.Primary
	}
	if b.System != "" && b.System != have.System {
		return "its ad_actor_system is not " + string(b.System)
	}
	if len(b.ARPTargets) > 0 && !slices.Equal(b.ARPTargets, have.ARPTargets) {
		return "its arp_ip_target is another"
	}
	return ""
}

// parseBonding reads the members of a bond from /proc/net/bonding/NAME (bond_info_seq_show in
// drivers/net/bonding/bond_procfs.c).
func parseBonding(text string) []Member {
	var members []Member
	partner := false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if key == "Slave Interface" && len(members) < itemsMost {
			members = append(members, Member{NIC: value})
			partner = false
		}
		if len(members) == 0 {
			continue
		}
		m := &members[len(members)-1]
		switch key {
		case "MII Status":
			m.Up = value == "up"
		case "details partner lacp pdu:":
			partner = true
		case "system mac address":
			// All zero is nobody.
			if mac, err := ParseMAC(value); partner && err == nil {
				m.Partner = mac
			}
		}
	}
	return members
}
