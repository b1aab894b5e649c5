// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseCmdline(t *testing.T) {
	tests := []struct {
		name, line string
		plan       string
		err        string // all of it; "" if there must be none
	}{
		{"nothing", "console=ttyS0 quiet ipa-api-url=http://192.0.2.1 ipv6.disable=0", "", ""},
		{"PXELINUX", "BOOTIF=01-52-54-00-aa-bb-01 ip=192.0.2.10:192.0.2.5:192.0.2.1:255.255.255.0",
			"link BOOTIF: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\n", ""},
		{"iPXE", "ip=192.0.2.10:192.0.2.5:0.0.0.0:255.255.255.0 BOOTIF=52:54:00:AA:BB:01", "link BOOTIF: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n", ""},
		{"BOOTIF with dashes alone", "ip=192.0.2.10::192.0.2.1:24 BOOTIF=52-54-00-aa-bb-01", "link BOOTIF: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\n", ""},
		{"BOOTIF describes nothing", "BOOTIF=01-52-54-00-aa-bb-01", "", ""},
		{"all seven", "ip=192.0.2.10::192.0.2.1:24:node1:eth0:none nameserver=192.0.2.53", "link eth0: physical, device eth0\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\n", ""},
		{"MTU and MAC", "ip=192.0.2.10:::24::bond0:none:9000:52:54:00:aa:bb:64 bond=bond0:eth0,eth1",
			"link eth0: physical, device eth0\nlink eth1: physical, device eth1\nlink bond0: bond of eth0, eth1 (balance-rr miimon 100), device bond0, mac 52:54:00:aa:bb:64, mtu 9000\n  address 192.0.2.10/24\n", ""},
		{"name servers", "ip=192.0.2.10:::24::eth0:none:192.0.2.53:192.0.2.54", "link eth0: physical, device eth0\n  address 192.0.2.10/24\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},
		{"IPv6", "ip=[2001:db8::10]::[fe80::1]:64::eth0:none:[2001:db8::53]", "link eth0: physical, device eth0\n  address 2001:db8::10/64\n  route default via fe80::1\ndns 2001:db8::53\n", ""},
		{"IPv6 mask behind", "ip=[2001:db8::10/48]:::::eth0:none", "link eth0: physical, device eth0\n  address 2001:db8::10/48\n", ""},
		{"gateway on the link", "ip=203.0.113.7::198.51.100.1:32::eth0:off", "link eth0: physical, device eth0\n  address 203.0.113.7/32\n  route default via 198.51.100.1 onlink\n", ""},
		{"no device", "ip=192.0.2.10:::24", "link the only NIC: physical\n  address 192.0.2.10/24\n", ""},
		{"device without address", "ip=eth1:none:9000", "link eth1: physical, device eth1, mtu 9000\n", ""},
		{"off", "ip=off", "", ""},
		{"ifname", "ifname=lan0:52:54:00:aa:bb:01 ip=192.0.2.10:::24::lan0:none", "link lan0: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n", ""},
		{"device is a MAC", "ip=192.0.2.10:::24::52-54-00-AA-BB-01:none ip=[2001:db8::1]:::64::52-54-00-aa-bb-01:none",
			"link 52-54-00-AA-BB-01: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  address 2001:db8::1/64\n", ""},
		{"bond and VLAN", "vlan=bond0.0100:bond0 bond=bond0:eth0,eth1:mode=802.3ad,lacp_rate=1,xmit_hash_policy=layer3+4:9000 ip=192.0.2.10::192.0.2.1:24::bond0.0100:none",
			"link eth0: physical, device eth0\nlink eth1: physical, device eth1\nlink bond0: bond of eth0, eth1 (802.3ad lacp_rate fast miimon 100 xmit_hash_policy layer3+4), device bond0, mtu 9000\n" +
				"link bond0.0100: vlan 100 of bond0, device bond0.0100\n  address 192.0.2.10/24\n  route default via 192.0.2.1\n", ""},
		{"bond of dracut's default", "bond", "link eth0: physical, device eth0\nlink eth1: physical, device eth1\nlink bond0: bond of eth0, eth1 (balance-rr miimon 100), device bond0\n", ""},
		{"bond by ARP", "bond=b:eth0:mode=active-backup,primary=eth0,arp_interval=100,arp_ip_target=192.0.2.1;192.0.2.2",
			"link eth0: physical, device eth0\nlink b: bond of eth0 (active-backup arp_interval 100 primary eth0 arp_ip_target 192.0.2.1,192.0.2.2), device b\n", ""},
		{"bond with each kind of option", "bond=b:eth0:mode=802.3ad,ad_lacp_rate=fast,lacp_active=off,ad_select=count,min_links=1,xmit_hash_policy=vlan+srcmac,ad_actor_system=02-00-00-00-00-77:9000",
			"link eth0: physical, device eth0\nlink b: bond of eth0 (802.3ad ad_select count lacp_active off lacp_rate fast miimon 100 min_links 1 xmit_hash_policy vlan+srcmac ad_actor_system 02:00:00:00:00:77), device b, mtu 9000\n", ""},
		{"bond that is told", "bond=b:eth0:mode=1,arp_interval=100,arp_ip_target=192.0.2.1,arp_missed_max=7,peer_notif_delay=300,ad_actor_system=x,primary_reselect=better",
			"link eth0: physical, device eth0\nlink b: bond of eth0 (active-backup arp_interval 100 missed_max 7 primary_reselect better arp_ip_target 192.0.2.1), device b\n",
			"bond=b:eth0:mode=1,arp_interval=100,arp_ip_target=192.0.2.1,arp_missed_max=7,peer_notif_delay=300,ad_actor_system=x,primary_reselect=better: ad_actor_system: \"x\" is not a MAC address\n" +
				"bond=b:eth0:mode=1,arp_interval=100,arp_ip_target=192.0.2.1,arp_missed_max=7,peer_notif_delay=300,ad_actor_system=x,primary_reselect=better: peer_notif_delay: not without miimon"},
		{"routes", "ip=192.0.2.10:::24::eth0:none ip=[2001:db8::1]:::64::eth1:none rd.route=10.0.0.0/8:192.0.2.1 rd.route=[2001:db8:3::]/48:[2001:db8::9]:eth1 rd.route=172.16.0.0/12::eth1",
			"link eth0: physical, device eth0\n  address 192.0.2.10/24\n  route 10.0.0.0/8 via 192.0.2.1\nlink eth1: physical, device eth1\n  address 2001:db8::1/64\n" +
				"  route 2001:db8:3::/48 via 2001:db8::9\n  route 172.16.0.0/12\n", ""},
		{"BOOTIF with colons and kind", "ip=192.0.2.10:::24 BOOTIF=01:52:54:00:aa:bb:01", "link BOOTIF: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n", ""},
		{"BOOTIF of InfiniBand", "ip=192.0.2.10:::24 BOOTIF=20-80-00-02-08-fe-80-00-00-00-00-00-00-f4-52-14-03-00-7b-cb-a1",
			"link BOOTIF: physical, mac 80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1\n  address 192.0.2.10/24\n", ""},
		{"in quotes", `ip="192.0.2.10:::24::eth0:none"`, "link eth0: physical, device eth0\n  address 192.0.2.10/24\n", ""},
		{"anaconda's form", "ip=192.0.2.10 netmask=255.255.255.0 gateway=192.0.2.1 ksdevice=52:54:00:aa:bb:01 mtu=1400", "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01, mtu 1400\n  address 192.0.2.10/24\n  route default via 192.0.2.1\n", ""},
		{"anaconda's form with BOOTIF", "ip=192.0.2.10 netmask=24 ksdevice=bootif BOOTIF=52:54:00:aa:bb:01", "link BOOTIF: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n", ""},
		{"MAC without MTU", "ip=192.0.2.10:::24::eth0:none::52:54:00:aa:bb:09", "link eth0: physical, device eth0, new mac 52:54:00:aa:bb:09\n  address 192.0.2.10/24\n", ""},
		{"MAC with dashes, without MTU", "ip=192.0.2.10:::24::eth0:none::52-54-00-aa-bb-09", "link eth0: physical, device eth0, new mac 52:54:00:aa:bb:09\n  address 192.0.2.10/24\n", ""},
		{"second name server alone", "ip=192.0.2.10:::24::eth0:none::192.0.2.54", "link eth0: physical, device eth0\n  address 192.0.2.10/24\ndns 192.0.2.54\n", ""},
		{"peer", "ip=192.0.2.10:198.51.100.1::255.255.255.255::eth0:none", "link eth0: physical, device eth0\n  address 192.0.2.10/32\n  route 198.51.100.1/32\n", ""},
		{"peer that is the gateway", "ip=192.0.2.10:198.51.100.1:198.51.100.1:32::eth0:none", "link eth0: physical, device eth0\n  address 192.0.2.10/32\n  route default via 198.51.100.1 onlink\n  route 198.51.100.1/32\n", ""},
		{"peer with a mask", "ip=192.0.2.10:198.51.100.1/24::24::eth0:none", "link eth0: physical, device eth0\n  address 192.0.2.10/24\n  route 198.51.100.0/24\n", ""},
		{"peer of IPv6", "ip=[2001:db8::1]:[2001:db8::2]::128::eth0:none", "link eth0: physical, device eth0\n  address 2001:db8::1/128\n  route 2001:db8::2/128\n", ""},
		{"server behind a gateway is no peer", "ip=192.0.2.10:203.0.113.9:198.51.100.1:32::eth0:none", "link eth0: physical, device eth0\n  address 192.0.2.10/32\n  route default via 198.51.100.1 onlink\n", ""},
		{"routes as in dracut's manual", "ip=192.168.100.2:::24::eth0:none ip=[2001:DB8:2::9]:::64::eth0:none rd.route=192.168.200.0/24:192.168.100.222:eth0 rd.route=192.168.201.0/24:192.168.100.222 rd.route=192.168.202.0/24::eth0 rd.route=[2001:DB8:3::/8]:[2001:DB8:2::1]:eth0",
			"link eth0: physical, device eth0\n  address 192.168.100.2/24\n  address 2001:db8:2::9/64\n  route 192.168.200.0/24 via 192.168.100.222\n  route 192.168.201.0/24 via 192.168.100.222\n  route 192.168.202.0/24\n  route 2000::/8 via 2001:db8:2::1\n", ""},
		{"routes without mask", "ip=192.0.2.10:::24::eth0:none ip=[2001:db8::1]:::64::eth0:none rd.route=203.0.113.9:192.0.2.1 rd.route=[2001:db8:9::5]:[2001:db8::9] rd.route=default:192.0.2.1 rd.route=default:[2001:db8::9]",
			"link eth0: physical, device eth0\n  address 192.0.2.10/24\n  address 2001:db8::1/64\n  route 203.0.113.9/32 via 192.0.2.1\n  route 2001:db8:9::5/128 via 2001:db8::9\n  route default via 192.0.2.1\n  route default via 2001:db8::9\n", ""},
		{"bootdev", "ip=192.0.2.10::192.0.2.1:24::eth0:none ip=198.51.100.10::198.51.100.1:24::vlan5:none vlan=vlan5:bond0 bond=bond0:eth1,eth2 bootdev=vlan5",
			"link eth1: physical, device eth1\nlink eth2: physical, device eth2\nlink bond0: bond of eth1, eth2 (balance-rr miimon 100), device bond0\nlink vlan5: vlan 5 of bond0, device vlan5\n  address 198.51.100.10/24\n  route default via 198.51.100.1\n" +
				"link eth0: physical, device eth0\n  address 192.0.2.10/24\n  route default via 192.0.2.1 metric 1025\n", ""},
		{"VLANs in all four styles", "vlan=vlan0005:eth0 vlan=vlan6:eth0 vlan=eth0.0007:eth0 vlan=eth0.8:eth0",
			"link eth0: physical, device eth0\nlink vlan0005: vlan 5 of eth0, device vlan0005\nlink vlan6: vlan 6 of eth0, device vlan6\nlink eth0.0007: vlan 7 of eth0, device eth0.0007\nlink eth0.8: vlan 8 of eth0, device eth0.8\n", ""},
		{"wrong peers", "ip=192.0.2.10:x::32::eth0:none ip=192.0.2.10:2001::32::eth0:none ip=192.0.2.10:198.51.100.1/33::24::eth0:none ip=192.0.2.10:192.0.2.10::32::eth0:none bootdev=eth7", "",
			"ip=192.0.2.10:x::32::eth0:none: peer: \"x\" is not an IP address\nip=192.0.2.10:2001::32::eth0:none: peer: \"2001\" is not an IP address\n" +
				"ip=192.0.2.10:198.51.100.1/33::24::eth0:none: peer: \"33\" is not a mask\nip=192.0.2.10:192.0.2.10::32::eth0:none: 192.0.2.10 is no peer for 192.0.2.10/32"},
		{"two gateways", "ip=192.0.2.10::192.0.2.1:24::eth0:none ip=198.51.100.10::198.51.100.1:24::eth1:none",
			"link eth0: physical, device eth0\n  address 192.0.2.10/24\n  route default via 192.0.2.1\nlink eth1: physical, device eth1\n  address 198.51.100.10/24\n  route default via 198.51.100.1 metric 1025\n", ""},

		{"wrong", "BOOTIF=x ifname=a ifname=../x:52:54:00:aa:bb:01 nameserver=x nameserver=0.0.0.0 bridge=../x:eth0,eth1 bridge=br0 team=team0:eth0:dummy team=../x team=team1:eth0:lacp:9000 rd.route=10.0.0.0/8",
			"", `BOOTIF=x: "x" is not a MAC address
ifname=a: "" is not a MAC address
ifname=../x:52:54:00:aa:bb:01: "../x" is not a name for a device
nameserver=x: "x" is not an IP address
nameserver=0.0.0.0: 0.0.0.0 is not an address for a server
bridge=../x:eth0,eth1: "../x" is not a name for a device
bridge=br0: names no device for it to be on
team=team0:eth0:dummy: "dummy" is not a runner of teams, want one of activebackup, broadcast, lacp, loadbalance, random, roundrobin
team=../x: "../x" is not a name for a device
team=team1:eth0:lacp:9000: want NAME:NIC,NIC:RUNNER and no more
rd.route=10.0.0.0/8: neither a gateway nor a device`},
		{"wrong addresses", "ip=192.0.2.300:::24::eth0:none ip=192.0.2.10:::33::eth0:none ip=0.0.0.0:::24::eth0:none ip=192.0.2.10::2001:db8::1:24::eth0:none ip=192.0.2.10::[2001:db8::1]:24::eth0:none ip=192.0.2.10:::24::eth0:magic ip=192.0.2.10:::24::eth0:dhcp ip=192.0.2.10:::24::a/b:none",
			"", `ip=192.0.2.300:::24::eth0:none: "192.0.2.300" is not an IP address
ip=192.0.2.10:::33::eth0:none: /33, want /32 at most
ip=0.0.0.0:::24::eth0:none: 0.0.0.0/24 is not an address for a machine
ip=192.0.2.10::2001:db8::1:24::eth0:none: "24" is not a way to get an address
ip=192.0.2.10::[2001:db8::1]:24::eth0:none: 2001:db8::1 is no gateway for 192.0.2.10/24
ip=192.0.2.10:::24::eth0:magic: "magic" is not a way to get an address
ip=192.0.2.10:::24::eth0:dhcp: dhcp, and an address as well
ip=192.0.2.10:::24::a/b:none: "a/b" is not a name for a device`},
		{"twice", "ip=192.0.2.10:::24::eth0:none ip=192.0.2.10:::24::eth1:none ip=192.0.2.11:::24::eth0:none:10:52:54:00:aa:bb:01",
			"link eth0: physical, device eth0, new mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  address 192.0.2.11/24\nlink eth1: physical, device eth1\n",
			"ip=192.0.2.10:::24::eth1:none: 192.0.2.10 is an address of eth0 already\n" +
				"ip=192.0.2.11:::24::eth0:none:10:52:54:00:aa:bb:01: \"10\" is not a size for packets from 1280 to 65535"},
		{"wrong stack", "bond=bond0:eth0,eth0:mode=x,speed=1 bond=bond0:eth5 bond=bond1:eth0, vlan=vlan:eth0 vlan=vlan5000:eth0 vlan=vlan5:eth0 vlan=vlan6:eth1 vlan=vlan7:vlan6 vlan=v6:eth1 vlan=vlan8 ip=192.0.2.1:::24::eth0:none",
			"link eth0: physical, device eth0\nlink eth1: physical, device eth1\nlink bond0: bond of eth0 (balance-rr miimon 100), device bond0\nlink vlan6: vlan 6 of eth1, device vlan6\n",
			`bond=bond0:eth0,eth0:mode=x,speed=1: mode: "x", want one of balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb
bond=bond0:eth0,eth0:mode=x,speed=1: "speed" is not an option of bonds
bond=bond0:eth0,eth0:mode=x,speed=1: "eth0" is there twice
bond=bond0:eth5: bond0 is there already
bond=bond1:eth0,: "eth0" is a member of bond0 already
bond=bond1:eth0,: a member without name
bond=bond1:eth0,: no members
vlan=vlan:eth0: "vlan" does not end with a number from 1 to 4094
vlan=vlan5000:eth0: "vlan5000" does not end with a number from 1 to 4094
vlan=vlan5:eth0: eth0 is a member of bond0
vlan=vlan7:vlan6: vlan6 is a VLAN itself
vlan=v6:eth1: VLAN 6 on eth1 is there already
vlan=vlan8: names no device for it to be on
ip=192.0.2.1:::24::eth0:none: eth0 is a member of bond0`},
		{"bridge", "bridge=br0:eth0,52-54-00-aa-bb-02 ip=192.0.2.10:::24::br0:none:9000 vlan=vlan5:br0",
			"link eth0: physical, device eth0\nlink 52-54-00-aa-bb-02: physical, mac 52:54:00:aa:bb:02\nlink br0: bridge of eth0, 52-54-00-aa-bb-02, device br0, mtu 9000\n" +
				loops("eth0, 52-54-00-aa-bb-02") + "  address 192.0.2.10/24\nlink vlan5: vlan 5 of br0, device vlan5\n", ""},
		{"bridges that cannot be", "bond=bond0:eth0,eth1 bridge=br0:eth1,bond0 bridge=br1:eth2 bridge=br1:eth3,eth4 bridge=br2:eth3,eth3,,br1 bridge=br2:eth5,eth6 ip=eth3:dhcp",
			"link eth0: physical, device eth0\nlink eth1: physical, device eth1\nlink eth3: physical, device eth3\nlink eth2: physical, device eth2\n" +
				"link bond0: bond of eth0, eth1 (balance-rr miimon 100), device bond0\nlink br2: bridge of eth3, eth2, device br2\n" + loops("eth3, eth2"),
			`bridge=br0:eth1,bond0: "eth1" is a member of bond0 already
bridge=br0:eth1,bond0: "bond0" is a bond, want a NIC
bridge=br0:eth1,bond0: no members
bridge=br1:eth3,eth4: br1 is there already
bridge=br2:eth3,eth3,,br1: "eth3" is there twice
bridge=br2:eth3,eth3,,br1: a member without name
bridge=br2:eth5,eth6: br2 is there already
ip=eth3:dhcp: eth3 is a member of br2`},
		{"team of dracut's default", "team", "link eth0: physical, device eth0\nlink eth1: physical, device eth1\nlink team0: bond of eth0, eth1 (active-backup miimon 100), device team0\n" +
			"  note: a team with the runner activebackup is made as a bond, which does the same on the wire\n", ""},
		{"team", "team=t:eth0,eth1:lacp vlan=vlan5:t ip=vlan5:dhcp", "link eth0: physical, device eth0\nlink eth1: physical, device eth1\nlink t: bond of eth0, eth1 (802.3ad miimon 100 xmit_hash_policy layer2+3), device t\n" +
			"  note: a team with the runner lacp is made as a bond, which does the same on the wire\nlink vlan5: vlan 5 of t, device vlan5, dhcpv4\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := ParseCmdline(tt.line, nil)
			compare(t, "plan", plan.String(), tt.plan)
			text := ""
			if err != nil {
				text = err.Error()
			}
			compare(t, "error", text, tt.err)
		})
	}
}

func TestSources(t *testing.T) {
	file := func(from, address string) File {
		return File{from, []byte(`{"links":[{"id":"a","type":"phy","ethernet_mac_address":"52:54:00:aa:bb:01"},5],"networks":[{"type":"ipv4","link":"a","ip_address":"` + address + `/24"}],"services":[{"type":"dns","address":"192.0.2.53"}]}`)}
	}
	medium, ramdisk := file("floppy network_data.json", "192.0.2.10"), file("ramdisk", "192.0.2.11")
	tests := []struct {
		name    string
		sources Sources
		from    string
		plan    string // a part
		err     string // all of it
	}{
		{"nothing", Sources{Cmdline: "quiet BOOTIF=52:54:00:aa:bb:01"}, "", "", ""},
		{"command line", Sources{Cmdline: "ip=192.0.2.12:::24 rd.route=x", Files: []File{medium}}, "kernel command line", "192.0.2.12/24", "kernel command line: rd.route=x: \"x\" is not an IP address"},
		{"medium", Sources{Cmdline: "quiet", Files: []File{medium, ramdisk}}, "floppy network_data.json", "192.0.2.10/24\ndns 192.0.2.53", "floppy network_data.json: links[1]: not an object"},
		{"ramdisk", Sources{Cmdline: "quiet", Files: []File{ramdisk}}, "ramdisk", "192.0.2.11/24", "ramdisk: links[1]: not an object"},
		{"name server of the command line", Sources{Cmdline: "nameserver=192.0.2.99", Files: []File{medium}}, "floppy network_data.json", "192.0.2.10/24\ndns 192.0.2.99\n", "floppy network_data.json: links[1]: not an object"},
		{"command line that is wrong", Sources{Cmdline: "ip=magic", Files: []File{medium}}, "floppy network_data.json", "192.0.2.10/24",
			"kernel command line: ip=magic: \"magic\" is not an IP address\nfloppy network_data.json: links[1]: not an object"},
		{"no JSON", Sources{Cmdline: "", Files: []File{{"x", []byte("{")}}}, "x", "", "x: line 1, column 1: unexpected end of JSON input"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan, from, err := tt.sources.Plan()
			if from != tt.from || !strings.Contains(plan.String(), tt.plan) {
				t.Errorf("Plan() = from %q\n%s, want from %q\n%s", from, plan, tt.from, tt.plan)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			compare(t, "error", text, tt.err)
		})
	}
}

// loops is what is said of a bridge.
func loops(ports string) string {
	return "  note: this machine is a switch between " + ports + ", without spanning tree: two of them in one network are a loop, which takes that network down\n"
}

// Each runner of a team is made as a bond of the mode that a switch cannot tell from it.
func TestParseCmdlineTeams(t *testing.T) {
	for runner, mode := range map[string]string{
		"": "active-backup miimon 100", "activebackup": "active-backup miimon 100", "broadcast": "broadcast miimon 100", "roundrobin": "balance-rr miimon 100",
		"random": "balance-rr miimon 100", "loadbalance": "balance-xor miimon 100 xmit_hash_policy layer2+3", "lacp": "802.3ad miimon 100 xmit_hash_policy layer2+3",
	} {
		t.Run(runner, func(t *testing.T) {
			plan, err := ParseCmdline("team=team0:eth0,eth1:"+runner, nil)
			if err != nil || len(plan.Links) != 3 {
				t.Fatalf("ParseCmdline() = %s, %v", plan, err)
			}
			compare(t, "bond", plan.Links[2].Bond.String(), mode)
			// And it is said, of the plan and of what is done.
			want := "a team with the runner " + cmp.Or(runner, "activebackup") + " is made as a bond, which "
			if notes := plan.Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], "team0: "+want) {
				t.Errorf("Notes() = %q", notes)
			}
			steps, err := plan.Steps(machine())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(steps, func(s Step) bool { return strings.Contains(s.Why, want) }) {
				t.Errorf("no reason has %q: %v", want, steps)
			}
		})
	}
}

func FuzzParseCmdline(f *testing.F) {
	for _, line := range []string{
		"BOOTIF=01-52-54-00-aa-bb-01 ip=192.0.2.10:192.0.2.5:192.0.2.1:255.255.255.0", "ip=[2001:db8::10]::[fe80::1]:64::eth0:none:[2001:db8::53]",
		"vlan=bond0.0100:bond0 bond=bond0:eth0,eth1:mode=802.3ad,lacp_rate=1:9000 ip=192.0.2.10::192.0.2.1:24::bond0.0100:none", "ip=dhcp", "ip=eth0:dhcp6:1500:52:54:00:aa:bb:01",
		"ip=dhcp,dhcp6 bootdev=eth0 rd.peerdns=0 bridge=br0:eth0", "ip=192.0.2.10:192.0.2.11/30:::::link6 rd.route=default:[fe80::1]:eth0", "ip=192.0.2.10 netmask=24 ksdevice=eth0 gateway=192.0.2.1",
		"bridge=br0:eth0,eth1 ip=br0:dhcp vlan=vlan5:br0", "team=t:eth0,eth1:lacp bridge=br0:eth2,eth0 ip=br0:dhcp:9000",
		"bond=b:eth0:mode=active-backup,primary=eth0,arp_interval=100,arp_ip_target=192.0.2.1;192.0.2.2 rd.route=10.0.0.0/8:192.0.2.1:b nameserver=[::1] ifname=a:52:54:00:aa:bb:02",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		plan, err := ParseCmdline(line, nil)
		if err != nil && (!utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x1b\x00\r")) {
			t.Errorf("error is not fit for a console: %q", err)
		}
		k := &fakeKernel{state: machine()}
		changes, _ := plan.Changes(k.state)
		for _, c := range changes {
			if err := k.Do(t.Context(), c); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
		}
		if again, _ := plan.Changes(k.state); len(again) > 0 {
			t.Fatalf("changes when all are made:\n%s", lines(again))
		}
	})
}

func TestParseCmdlineMethods(t *testing.T) {
	tests := []struct{ name, line, plan, err string }{
		{"everywhere", "ip=dhcp", "all NICs: dhcpv4\n", ""},
		{"everywhere, both", "ip=on", "all NICs: dhcpv4\nall NICs: ipv6-auto\n", ""},
		{"BOOTIF", "ip=dhcp6 BOOTIF=52:54:00:aa:bb:01", "link BOOTIF: physical, mac 52:54:00:aa:bb:01, dhcpv6\n", ""},
		{"device", "ip=eth0:dhcp:9000 ip=eth0:auto6 ip=:::::eth1:either6", "link eth0: physical, device eth0, mtu 9000, dhcpv4, slaac\nlink eth1: physical, device eth1, ipv6-auto\n", ""},
		{"VLAN", "vlan=vlan5:eth0 ip=vlan5:dhcp", "link eth0: physical, device eth0\nlink vlan5: vlan 5 of eth0, device vlan5, dhcpv4\n", ""},
		{"everywhere, and one by itself", "ip=dhcp ip=eth0:dhcp", "link eth0: physical, device eth0, dhcpv4\n", "ip=: dhcpv4 on all NICs, and other parameters for some of them"},
		{"not ours", "ip=ibft ip=eth0:bootp", "", "ip=eth0:bootp: bootp is not supported\nip=ibft: the firmware has not left a table of booting by iSCSI (/sys/firmware/ibft)"},
		{"several", "ip=dhcp,auto6", "all NICs: dhcpv4\nall NICs: slaac\n", ""},
		{"several on one", "ip=eth0:dhcp,dhcp6 ip=:::::eth1:auto6,link6", "link eth0: physical, device eth0, dhcpv4, dhcpv6\nlink eth1: physical, device eth1, slaac\n", ""},
		{"one of several is none", "ip=eth0:dhcp,magic", "", "ip=eth0:dhcp,magic: \"eth0\" is not an IP address"},
		{"no name before it", "ip=:dhcp", "all NICs: dhcpv4\n", ""},
		{"link-local alone", "ip=eth0:link6", "link eth0: physical, device eth0\n", ""},
		{"MTU and MAC", "ip=eth0:dhcp:1400:52:54:00:aa:bb:09", "link eth0: physical, device eth0, new mac 52:54:00:aa:bb:09, mtu 1400, dhcpv4\n", ""},
		{"MAC with dashes", "ip=eth0:dhcp::52-54-00-AA-BB-09", "link eth0: physical, device eth0, new mac 52:54:00:aa:bb:09, dhcpv4\n", ""},
		{"a name after the MAC", "ip=enx525400aabb01:dhcp", "link enx525400aabb01: physical, mac 52:54:00:aa:bb:01, dhcpv4\n", ""},
		{"bootdev", "ip=dhcp bootdev=eth1", "link eth1: physical, device eth1, dhcpv4\n", ""},
		{"BOOTIF before bootdev", "ip=dhcp bootdev=eth1 BOOTIF=52:54:00:aa:bb:01", "link BOOTIF: physical, mac 52:54:00:aa:bb:01, dhcpv4\n", ""},
		{"bootdev of nothing", "ip=eth0:dhcp bootdev=eth1", "link eth0: physical, device eth0, dhcpv4\n", "bootdev=eth1: no other parameter says what it is"},
		{"rd.bootif=0", "BOOTIF=01-52-54-00-aa-bb-01 ip=dhcp rd.bootif=0", "all NICs: dhcpv4\n", ""},
		{"rd.bootif=1", "BOOTIF=01-52-54-00-aa-bb-01 ip=dhcp rd.bootif=1", "link BOOTIF: physical, mac 52:54:00:aa:bb:01, dhcpv4\n", ""},
		{"rd.peerdns=0", "ip=dhcp rd.peerdns=0 rd.neednet=1", "all NICs: dhcpv4\ndns: none that others name\n", ""},
		{"bridge", "bridge=br0:eth0 vlan=vlan5:br0 ip=br0:dhcp ip=vlan5:dhcp6", "link eth0: physical, device eth0, dhcpv4\nlink vlan5: vlan 5 of eth0, device vlan5, dhcpv6\n", ""},
		{"bridges of each other", "bridge=br0:br1 bridge=br1:br0 ip=br0:dhcp", "link br1: physical, device br1, dhcpv4\n", ""},
		{"bridge of dracut's default", "bridge ip=br0:dhcp", "link eth0: physical, device eth0, dhcpv4\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := ParseCmdline(tt.line, nil)
			compare(t, "plan", plan.String(), tt.plan)
			text := ""
			if err != nil {
				text = err.Error()
			}
			compare(t, "error", text, tt.err)
		})
	}
}
