// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netconfig_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/netconfig/netnstest"
)

// guest says that the tests run in the machine that TestVMBondsAndVLANs has started: not every kernel on which
// tests run has bonds and VLANs, that of the ramdisk has.
var guest = flag.Bool("guest", false, "run the tests for a virtual machine")

// inGuest is set in processes that a test in the machine starts.
const inGuest = "IRONHAND_NETCONFIG_GUEST"

func TestVMBondsAndVLANs(t *testing.T) {
	vmtest.Require(t)
	files := map[string]string{"test/veth.ko": filepath.Join(vmtest.Artefact(t, "kernel"), "modules/kernel/drivers/net/veth.ko")}
	// ip(8) is the judge, and needs its libraries.
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ldd", ip).Output()
	if err != nil {
		t.Fatal(err)
	}
	files["bin/ip"] = ip
	for _, m := range regexp.MustCompile(`(?m)(/lib\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		files[strings.TrimPrefix(m[1], "/")] = m[1]
	}
	wires := newWires(t)
	machine := withFirmwareTable(t, wires.machine, files)
	vmtest.RunInGuest(t, ".", vmtest.Guest{Machine: machine, Args: "-guest -test.run=TestGuest", Files: files})
	wires.judge(t)
}

// enterGuest skips the test outside of the machine; there it loads the modules, and returns true in
// a process with a network of its own.
func enterGuest(t *testing.T) bool {
	t.Helper()
	if *guest {
		loadStacking(t)
		f, err := os.Open("veth.ko")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
			t.Fatalf("load veth: %v", err)
		}
		if err := os.Setenv(inGuest, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv(inGuest) == "" {
		t.Skip("runs in the machine of TestVMBondsAndVLANs")
	}
	return netnstest.Enter(t)
}

// loadStacking loads what links stand on each other with.
func loadStacking(t *testing.T) {
	t.Helper()
	if err := boot.LoadModules(t.Context(), "bonding", "bridge", "8021q"); err != nil {
		t.Fatal(err)
	}
}

// stacked is what "ip -d -j link" says of a device.
type stacked struct {
	IfName, IfAlias, Address, Master, Link string
	MTU                                    int
	Flags                                  []string
	LinkInfo                               struct {
		Kind string         `json:"info_kind"`
		Data map[string]any `json:"info_data"`
	}
}

func (s stacked) data(key string) string { return fmt.Sprint(s.LinkInfo.Data[key]) }

func links(t *testing.T) map[string]stacked {
	t.Helper()
	var list []stacked
	if err := json.Unmarshal(netnstest.IP(t, "-d -j link show"), &list); err != nil {
		t.Fatal(err)
	}
	m := map[string]stacked{}
	for _, l := range list {
		m[l.IfName] = l
	}
	return m
}

// twoCables is a peer with a bond of two cables and VLAN 100 on it, an address in each.
func twoCables(t *testing.T, mode string) *netnstest.Peer {
	t.Helper()
	p := netnstest.NewPeer(t)
	p.IP(t, "link add far type bond mode "+mode+" miimon 50")
	for i := range 2 {
		p.Cable(t, fmt.Sprintf("eth%d", i), fmt.Sprintf("52:54:00:aa:bb:0%d", i+1), fmt.Sprintf("far%d", i))
		p.IP(t, fmt.Sprintf("link set far%d down", i))
		p.IP(t, fmt.Sprintf("link set far%d master far", i))
	}
	for _, words := range []string{"link set far mtu 9000 up", "link add link far name far.100 type vlan id 100", "link set far.100 up",
		"addr add 192.0.2.1/24 dev far.100", "addr add 198.51.100.1/24 dev far", "addr add 2001:db8::1/64 dev far.100 nodad"} {
		p.IP(t, words)
	}
	return p
}

const bonded = `{"links": [
 {"id": "v", "type": "vlan", "vlan_link": "bond0", "vlan_id": 100, "vlan_mac_address": "52:54:00:AA:BB:64", "mtu": 1500},
 {"id": "bond0", "type": "bond", "bond_links": ["p0", "p1"], "ethernet_mac_address": "52-54-00-AA-BB-01", "mtu": 9000,
  "bond_mode": "802.3ad", "bond_lacp_rate": "fast", "bond_xmit_hash_policy": "layer3+4", "bond_miimon": 50, "bond_updelay": 120, "bond_min_links": 1},
 {"id": "p0", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"},
 {"id": "p1", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
 "networks": [
 {"type": "ipv4", "link": "v", "ip_address": "192.0.2.10/24", "gateway": "192.0.2.1"},
 {"type": "ipv6", "link": "v", "ip_address": "2001:db8::10/64", "gateway": "2001:db8::1"},
 {"type": "ipv4", "link": "bond0", "ip_address": "198.51.100.10/24"}]}`

// applied applies a plan, and again, and says that nothing is left to do.
func applied(t *testing.T, k netconfig.Kernel, plan netconfig.Plan) {
	t.Helper()
	for _, round := range []string{"first", "second"} {
		if err := plan.Apply(t.Context(), k); err != nil {
			t.Fatalf("%s Apply = %v", round, err)
		}
		have, err := k.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if left, err := plan.Steps(have); len(left) > 0 || err != nil {
			t.Errorf("left after %s Apply: %v, %v", round, left, err)
		}
	}
}

// A bond by LACP with Linux' own bonding as the partner, a VLAN on it; then other descriptions take its place.
func TestGuestBond(t *testing.T) {
	if !enterGuest(t) {
		return
	}
	netnstest.IP(t, "link add bond0 type bond mode balance-rr") // as the driver makes one by itself
	peer := twoCables(t, "802.3ad lacp_rate fast")
	for _, a := range []string{"192.0.2.1:80", "[2001:db8::1]:80", "198.51.100.1:80"} {
		peer.Listen(t, a)
	}
	k, _ := kernel(t)
	applied(t, k, parse(t, bonded))

	all := links(t)
	bond, vlan := all["bond0_2"], all["bond0_2.100"]
	for what, pair := range map[string][2]string{
		"bond's kind": {bond.LinkInfo.Kind, "bond"}, "mode": {bond.data("mode"), "802.3ad"}, "lacp_rate": {bond.data("ad_lacp_rate"), "fast"},
		"hash": {bond.data("xmit_hash_policy"), "layer3+4"}, "miimon": {bond.data("miimon"), "50"}, "updelay": {bond.data("updelay"), "100"},
		"min_links": {bond.data("min_links"), "1"}, "bond's MAC": {bond.Address, "52:54:00:aa:bb:01"}, "bond's MTU": {fmt.Sprint(bond.MTU), "9000"},
		"bond's alias": {bond.IfAlias, "ironhand link bond0"}, "eth0's master": {all["eth0"].Master, "bond0_2"}, "eth1's master": {all["eth1"].Master, "bond0_2"},
		"eth1's MTU": {fmt.Sprint(all["eth1"].MTU), "9000"}, "VLAN's kind": {vlan.LinkInfo.Kind, "vlan"}, "VLAN's id": {vlan.data("id"), "100"},
		"VLAN's link": {vlan.Link, "bond0_2"}, "VLAN's MAC": {vlan.Address, "52:54:00:aa:bb:64"}, "VLAN's MTU": {fmt.Sprint(vlan.MTU), "1500"},
		"stray bond is down": {fmt.Sprint(slices.Contains(all["bond0"].Flags, "UP")), "false"}, "stray bond's alias": {all["bond0"].IfAlias, ""},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %q, want %q", what, pair[0], pair[1])
		}
	}
	_, got := addresses(t, "bond0_2.100")
	same(t, "VLAN's addresses", got, []string{"192.0.2.10/24", "2001:db8::10/64"})
	// The partner has found us: its address, and both ports in one aggregator.
	ad := func() string { return fmt.Sprint(links(t)["bond0_2"].LinkInfo.Data["ad_info"]) }
	for end := time.Now().Add(20 * time.Second); !strings.Contains(ad(), "num_ports:2") && time.Now().Before(end); {
		time.Sleep(200 * time.Millisecond)
	}
	if !strings.Contains(ad(), "num_ports:2") || strings.Contains(ad(), "partner_mac:00:00:00:00:00:00") {
		t.Errorf("LACP: %s, want two ports and a partner", ad())
	}
	reaches(t, "192.0.2.1:80")
	reaches(t, "[2001:db8::1]:80")
	reaches(t, "198.51.100.1:80")
	peer.IP(t, "link set far0 down") // a cable breaks
	reaches(t, "192.0.2.1:80")
	peer.IP(t, "link set far0 up")

	// Another way to bond the same NICs: the old bond and what is on it make room.
	peer.IP(t, "link set far down")
	peer.IP(t, "link set far0 nomaster")
	peer.IP(t, "link set far1 nomaster")
	peer.IP(t, "link set far type bond mode active-backup")
	for _, words := range []string{"link set far0 master far", "link set far1 master far", "link set far up"} {
		peer.IP(t, words)
	}
	for _, words := range []string{"addr replace 192.0.2.1/24 dev far.100", "link set far.100 up"} {
		peer.IP(t, words)
	}
	applied(t, k, parse(t, strings.NewReplacer(`"802.3ad", "bond_lacp_rate": "fast"`, `"active-backup", "bond_primary": "p1"`, `"vlan_id": 100`, `"vlan_id": 101`).Replace(bonded)))
	all = links(t)
	if b := all["bond0_2"]; b.data("mode") != "active-backup" || b.data("primary") != "eth1" || all["eth0"].Master != "bond0_2" {
		t.Errorf("after the change: mode %s, primary %s, eth0 in %q", b.data("mode"), b.data("primary"), all["eth0"].Master)
	}
	if _, there := all["bond0_2.100"]; there || all["bond0_2.101"].data("id") != "101" {
		t.Errorf("VLANs after the change: %v", all)
	}

	// One NIC leaves the bond.
	applied(t, k, parse(t, `{"links": [{"id": "p0", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "p1", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"},
		{"id": "bond0", "type": "bond", "bond_links": ["p1"], "bond_mode": "active-backup", "bond_miimon": 50, "ethernet_mac_address": "52:54:00:aa:bb:01"}],
		"networks": [{"type": "ipv4", "link": "bond0", "ip_address": "198.51.100.10/24"}]}`))
	if all = links(t); all["eth0"].Master != "" || all["eth1"].Master != "bond0_2" {
		t.Errorf("eth0 in %q, eth1 in %q, want only eth1 in bond0_2", all["eth0"].Master, all["eth1"].Master)
	}

	// No bond at all.
	applied(t, k, parse(t, `{"links": [{"id": "p0", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "p1", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
		"networks": [{"type": "ipv4", "link": "p1", "ip_address": "192.0.2.10/24"}]}`))
	all = links(t)
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	same(t, "devices", names, []string{"bond0", "eth0", "eth1", "lo"})
	if all["eth0"].Address != "52:54:00:aa:bb:01" || all["eth1"].Address != "52:54:00:aa:bb:02" {
		t.Errorf("MACs %s and %s, want their own", all["eth0"].Address, all["eth1"].Address)
	}
}

// The kernel takes each mode, and each option in a mode that it is for, and gives them back.
func TestGuestBondOptions(t *testing.T) {
	if !enterGuest(t) {
		return
	}
	twoCables(t, "balance-rr")
	k, _ := kernel(t)
	tests := []struct {
		name, options string
		want          map[string]string // as ip(8) says
	}{
		{"balance-rr", `"bond_packets_per_slave": 4, "bond_resend_igmp": 3`, map[string]string{"packets_per_slave": "4", "resend_igmp": "3", "miimon": "100"}},
		{"active-backup", `"bond_primary_reselect": "failure", "bond_fail_over_mac": "follow", "bond_num_grat_arp": 5, "bond_downdelay": 200`,
			map[string]string{"primary_reselect": "failure", "fail_over_mac": "follow", "num_peer_notif": "5", "downdelay": "200"}},
		{"active-backup", `"bond_arp_interval": 100, "bond_arp_ip_target": "192.0.2.1,192.0.2.2", "bond_arp_validate": "filter_active", "bond_arp_all_targets": "all"`,
			map[string]string{"arp_interval": "100", "arp_ip_target": "[192.0.2.1 192.0.2.2]", "arp_validate": "filter_active", "arp_all_targets": "all", "miimon": "0"}},
		{"balance-xor", `"bond_xmit_hash_policy": "vlan+srcmac"`, map[string]string{"xmit_hash_policy": "vlan+srcmac"}},
		{"active-backup", `"bond_miimon": 50, "bond_peer_notif_delay": 220`, map[string]string{"peer_notify_delay": "200"}},
		{"active-backup", `"bond_arp_interval": 100, "bond_arp_ip_target": "192.0.2.1", "bond_arp_missed_max": 7`, map[string]string{"arp_missed_max": "7"}},
		{"802.3ad", `"bond_lacp_active": "off", "bond_ad_actor_system": "02:00:00:00:00:77", "bond_ad_lacp_rate": "fast"`, map[string]string{"ad_lacp_active": "off", "ad_actor_system": "02:00:00:00:00:77", "ad_lacp_rate": "fast"}},
		{"broadcast", `"bond_all_slaves_active": true, "bond_use_carrier": 0`, map[string]string{"all_slaves_active": "1", "use_carrier": "0"}},
		{"802.3ad", `"bond_ad_select": "count", "bond_ad_actor_sys_prio": 7, "bond_ad_user_port_key": 9, "bond_xmit_hash_policy": "encap3+4"`,
			map[string]string{"ad_select": "count", "ad_actor_sys_prio": "7", "ad_user_port_key": "9", "xmit_hash_policy": "encap3+4"}},
		{"balance-tlb", `"bond_tlb_dynamic_lb": 0, "bond_lp_interval": 5`, map[string]string{"tlb_dynamic_lb": "0", "lp_interval": "5"}},
		{"balance-alb", `"bond_primary": "p1"`, map[string]string{"primary": "eth1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan := parse(t, `{"links": [{"id": "p0", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "p1", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"},
				{"id": "b", "type": "bond", "bond_links": ["p0", "p1"], "bond_mode": "`+tt.name+`", `+tt.options+`}], "networks": []}`)
			applied(t, k, plan)
			b := links(t)["b"]
			tt.want["mode"] = tt.name
			for key, want := range tt.want {
				if b.data(key) != want {
					t.Errorf("%s is %s, want %s", key, b.data(key), want)
				}
			}
		})
	}
}

// A bond and a VLAN by dracut's words.
func TestGuestCmdline(t *testing.T) {
	if !enterGuest(t) {
		return
	}
	peer := twoCables(t, "active-backup")
	peer.Listen(t, "192.0.2.1:80")
	k, _ := kernel(t)
	plan, _, err := netconfig.Sources{Cmdline: "bond=bond0:eth0,eth1:mode=active-backup,miimon=50,primary=eth0:9000 vlan=vlan0100:bond0 ip=192.0.2.10::192.0.2.1:24::vlan0100:none"}.Plan()
	if err != nil {
		t.Fatal(err)
	}
	applied(t, k, plan)
	all := links(t)
	if b, v := all["bond0"], all["vlan0100"]; b.data("mode") != "active-backup" || b.data("primary") != "eth0" || b.MTU != 9000 || v.data("id") != "100" || v.Link != "bond0" {
		t.Errorf("devices: %v", all)
	}
	reaches(t, "192.0.2.1:80")
}

// A team by LACP is a bond, and Linux' own bonding is its partner; then a bridge of the same NICs takes its place, with a VLAN on it.
func TestGuestTeamAndBridge(t *testing.T) {
	if !enterGuest(t) {
		return
	}
	peer := twoCables(t, "802.3ad lacp_rate fast")
	peer.Listen(t, "192.0.2.1:80")
	k, _ := kernel(t)
	plan := func(line string) netconfig.Plan {
		p, err := netconfig.ParseCmdline(line, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	applied(t, k, plan("team=team0:eth0,eth1:lacp vlan=vlan100:team0 ip=192.0.2.10::192.0.2.1:24::vlan100:none"))
	all := links(t)
	if b := all["team0"]; b.data("mode") != "802.3ad" || b.data("xmit_hash_policy") != "layer2+3" || all["eth0"].Master != "team0" || all["eth1"].Master != "team0" {
		t.Errorf("devices: %v", all)
	}
	ad := func() string { return fmt.Sprint(links(t)["team0"].LinkInfo.Data["ad_info"]) }
	for end := time.Now().Add(time.Minute); !strings.Contains(ad(), "num_ports:2") && time.Now().Before(end); {
		time.Sleep(200 * time.Millisecond)
	}
	if !strings.Contains(ad(), "num_ports:2") || strings.Contains(ad(), "partner_mac:00:00:00:00:00:00") {
		t.Errorf("LACP: %s, want two ports and a partner", ad())
	}
	reaches(t, "192.0.2.1:80")

	// One cable leads to the machine, the other to nobody: both in one network would be a loop.
	for _, words := range []string{"link set far1 nomaster", "link set far1 down", "link set far down", "link set far0 nomaster", "link set far type bond mode active-backup", "link set far0 master far",
		"link set far up", "addr replace 192.0.2.1/24 dev far.100", "link set far.100 up"} {
		peer.IP(t, words)
	}
	applied(t, k, plan("bridge=br0:eth0,eth1 vlan=vlan100:br0 ip=192.0.2.10::192.0.2.1:24::vlan100:none"))
	all = links(t)
	if _, there := all["team0"]; there || all["eth0"].Master != "br0" || all["eth1"].Master != "br0" || all["vlan100"].Link != "br0" || all["br0"].data("stp_state") != "0" || all["br0"].data("forward_delay") != "0" {
		t.Errorf("devices: %v", all)
	}
	reaches(t, "192.0.2.1:80")
}

// A NIC that had an address becomes a member of a bond that gets it, and what is called is reached by the bond.
func TestGuestMemberLosesAddress(t *testing.T) {
	if !enterGuest(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	peer.IP(t, "addr add 198.51.100.1/24 dev far0")
	peer.Listen(t, "198.51.100.1:80")
	k, _ := kernel(t)
	const nic = `{"links": [{"id": "p0", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}], "networks": [{"type": "ipv4", "link": "p0", "ip_address": "198.51.100.10/24"}]}`
	applied(t, k, parse(t, nic))
	applied(t, k, parse(t, `{"links": [{"id": "p0", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "bond0", "type": "bond", "bond_links": ["p0"], "bond_mode": "active-backup", "bond_miimon": 50}],
		"networks": [{"type": "ipv4", "link": "bond0", "ip_address": "198.51.100.10/24"}]}`))
	if _, got := addresses(t, "eth0"); len(got) > 0 {
		t.Errorf("eth0 has %q", got)
	}
	if out := string(netnstest.IP(t, "route get 198.51.100.1")); !strings.Contains(out, "dev bond0") {
		t.Errorf("the way to the neighbour: %s", out)
	}
	reaches(t, "198.51.100.1:80")
	applied(t, k, parse(t, nic)) // and back
	reaches(t, "198.51.100.1:80")
}

// A switch that knows nothing of the bond, two switches that are no pair, and the wrong VLAN.
func TestGuestVerdict(t *testing.T) {
	if !enterGuest(t) {
		return
	}
	k, _ := kernel(t)
	check := func(what, cause string, lines ...string) {
		t.Helper()
		r := netconfig.Check(t.Context(), k, netconfig.Target{Host: "192.0.2.1", Port: 81})
		if !strings.Contains(r.Cause, cause) {
			t.Errorf("%s: cause %q, want %q\n%s", what, r.Cause, cause, r)
		}
		for _, line := range lines {
			if !strings.Contains(r.String(), line) {
				t.Errorf("%s: no %q in\n%s", what, line, r)
			}
		}
	}
	peer := twoCables(t, "802.3ad lacp_rate fast")
	if err := parse(t, bonded).Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if fmt.Sprint(links(t)["bond0"].LinkInfo.Data["ad_info"]) != "<nil>" && strings.Contains(fmt.Sprint(links(t)["bond0"].LinkInfo.Data["ad_info"]), "num_ports:2") {
			break
		}
	}
	check("all is well", "192.0.2.1 refuses connections to port 81", "bond bond0: 802.3ad, mtu 9000, link", "member eth0 is up, LACP partner ", "vlan bond0.100: 100 on bond0, mtu 1500, link, 192.0.2.10/24")

	peer.IP(t, "link del far.100")
	check("wrong VLAN", "no connection to 192.0.2.1, which should be on the link of bond0.100: wrong VLAN or switch port, or it is down")

	// Each port of the far end is on its own: no LACP.
	for _, words := range []string{"link del far", "link set far0 up", "link set far1 up"} {
		peer.IP(t, words)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if strings.Contains(fmt.Sprint(links(t)["bond0"].LinkInfo.Data["ad_info"]), "partner_mac:00:00:00:00:00:00") {
			break
		}
	}
	check("no LACP", "the switch does not speak LACP on eth0, eth1 (bond0): its ports are not in a channel group", "member eth0 is up, no LACP partner")

	// Each port is a switch of its own.
	for i := range 2 {
		for _, words := range []string{"link add sw%d type bond mode 802.3ad lacp_rate fast miimon 50", "link set far%d down", "link set far%d master sw%[1]d", "link set sw%d up"} {
			peer.IP(t, fmt.Sprintf(words, i))
		}
	}
	var r netconfig.Report
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end) && !strings.Contains(r.Cause, "different systems"); time.Sleep(time.Second) {
		r = netconfig.Check(t.Context(), k, netconfig.Target{Host: "192.0.2.1", Port: 81})
	}
	if !strings.Contains(r.Cause, "the members of bond0 are connected to different systems (eth0 ") {
		t.Errorf("two switches:\n%s", r)
	}
}
