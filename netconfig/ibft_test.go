// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// harmless is a file system of which only what the NICs are may be read: the targets have passwords.
type harmless struct {
	fstest.MapFS
	t *testing.T
}

func (h harmless) Open(name string) (fs.File, error) {
	if name != "." && !strings.HasPrefix(name, "ethernet") {
		h.t.Errorf("%s was opened", name)
	}
	return h.MapFS.Open(name)
}

// ibft is /sys/firmware/ibft with the attributes given as "ethernet0/mac 52:54:00:aa:bb:01", one a line.
func ibft(t *testing.T, lines string) fs.FS {
	files := fstest.MapFS{"target0/chap-secret": {Data: []byte("not to be read\n")}, "initiator/initiator-name": {Data: []byte("iqn.2007-01.org.example:node\n")}}
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "" {
			files[name] = &fstest.MapFile{Data: []byte(value + "\n")}
		}
	}
	return harmless{files, t}
}

// What the kernel shows of a NIC with a fixed address; the table has no hostname here.
const fixedNIC = `
	ethernet0/flags 3
	ethernet0/index 0
	ethernet0/ip-addr 192.0.2.10
	ethernet0/subnet-mask 255.255.255.0
	ethernet0/prefix-len 24
	ethernet0/origin 1
	ethernet0/gateway 192.0.2.1
	ethernet0/primary-dns 192.0.2.53
	ethernet0/secondary-dns 192.0.2.54
	ethernet0/vlan 0
	ethernet0/mac 52:54:00:aa:bb:01
`

func TestFirmware(t *testing.T) {
	second := strings.NewReplacer("ethernet0", "ethernet1", "192.0.2", "198.51.100", "bb:01", "bb:02", "flags 3", "flags 1")
	tests := []struct {
		name, line, files string
		plan, err         string
	}{
		{"fixed", "ip=ibft", fixedNIC, "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},
		{"the other word for it", "rd.iscsi.ibft=1", fixedNIC, "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},
		{"in the long form", "ip=:::::eth0:ibft", fixedNIC, "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},
		{"not asked for", "rd.iscsi.ibft=0 quiet", fixedNIC, "", ""},
		{"mask alone", "ip=ibft", strings.Replace(fixedNIC, "ethernet0/prefix-len 24", "", 1), "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},
		{"VLAN", "ip=ibft", strings.Replace(fixedNIC, "vlan 0", "vlan 100", 1), "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\nlink 52-54-00-aa-bb-01.100: vlan 100 of 52-54-00-aa-bb-01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},
		{"DHCP", "ip=ibft", fixedNIC + "ethernet0/dhcp 192.0.2.2", "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01, dhcpv4\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},
		{"DHCP by origin", "ip=ibft", "ethernet0/flags 3\nethernet0/origin 3\nethernet0/vlan 5\nethernet0/mac 52:54:00:aa:bb:01", "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\nlink 52-54-00-aa-bb-01.5: vlan 5 of 52-54-00-aa-bb-01, dhcpv4\n", ""},
		{"DHCPv6", "ip=ibft", "ethernet0/flags 3\nethernet0/origin 3\nethernet0/mac 52:54:00:aa:bb:01\nethernet0/ip-addr 2001:0db8:0000:0000:0000:0000:0000:0010", "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01, dhcpv6\n", ""},
		{"router advertisements", "ip=ibft", "ethernet0/flags 3\nethernet0/origin 4\nethernet0/mac 52:54:00:aa:bb:01\nethernet0/ip-addr 2001:0db8:0000:0000:0000:0000:0000:0010", "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01, ipv6-auto\n", ""},
		{"IPv6", "ip=ibft", "ethernet0/flags 3\nethernet0/origin 1\nethernet0/mac 52:54:00:aa:bb:01\nethernet0/ip-addr 2001:0db8:0000:0000:0000:0000:0000:0010\nethernet0/prefix-len 64\nethernet0/subnet-mask 255.255.255.255\nethernet0/gateway fe80:0000:0000:0000:0000:0000:0000:0001",
			"link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n  address 2001:db8::10/64\n  route default via fe80::1\n", ""},
		{"two, one of which has booted", "ip=ibft", fixedNIC + second.Replace(fixedNIC), "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},
		{"two ways to the target", "ip=ibft rd.iscsi.mp=1 nameserver=192.0.2.99", fixedNIC + second.Replace(fixedNIC), "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\n" +
			"link 52-54-00-aa-bb-02: physical, mac 52:54:00:aa:bb:02\n  address 198.51.100.10/24\n  route default via 198.51.100.1 metric 1025\ndns 192.0.2.99\ndns 192.0.2.53\ndns 192.0.2.54\ndns 198.51.100.53\ndns 198.51.100.54\n", ""},
		{"beside others", "ip=ibft ip=203.0.113.7:::24::eth1:none", fixedNIC, "link eth1: physical, device eth1\n  address 203.0.113.7/24\nlink 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\ndns 192.0.2.54\n", ""},

		{"none", "ip=ibft", "", "", "ip=ibft: the firmware names no NIC that it has booted from"},
		{"not valid", "ip=ibft", strings.Replace(fixedNIC, "flags 3", "flags 2", 1), "", "ip=ibft: the firmware names no NIC that it has booted from"},
		{"no mask", "ip=ibft", "ethernet0/flags 3\nethernet0/mac 52:54:00:aa:bb:01\nethernet0/ip-addr 2001:db8::1\nethernet0/subnet-mask 255.255.255.0", "", "ip=ibft: ethernet0: the address has no mask"},
		{"no address", "ip=ibft", "ethernet0/flags 3\nethernet0/mac 52:54:00:aa:bb:01\nethernet0/ip-addr 0.0.0.0", "", "ip=ibft: ethernet0: neither an address nor a DHCP server"},
		{"no MAC", "ip=ibft", "ethernet0/flags 3\nethernet0/ip-addr 192.0.2.1", "", `ip=ibft: ethernet0: mac: "" is not a MAC address`},
		{"VLAN that cannot be", "ip=ibft", strings.Replace(fixedNIC, "vlan 0", "vlan 4095", 1), "", "ip=ibft: ethernet0: vlan: 4095, want 1 to 4094"},
		{"numbers that are none", "ip=ibft", strings.Replace(fixedNIC, "flags 3", "flags x", 1), "", `ip=ibft: ethernet0: flags: "x" is not a number`},
		{"mask that is too long", "ip=ibft", strings.Replace(fixedNIC, "prefix-len 24", "prefix-len 64", 1), "", "ip=ibft: ethernet0: /64, want /32 at most"},
		{"address that is none", "ip=ibft", strings.Replace(fixedNIC, "192.0.2.10", "192.0.2", 1), "", `ip=ibft: ethernet0: ip-addr: "192.0.2" is not an IP address`},
		{"gateway of the other family", "ip=ibft", strings.Replace(fixedNIC, "gateway 192.0.2.1", "gateway fe80::1", 1), "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n", "ip=ibft ethernet0: fe80::1 is no gateway for 192.0.2.10/24"},
		{"group's address", "ip=ibft", strings.Replace(fixedNIC, "192.0.2.10", "224.0.0.1", 1), "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n", "ip=ibft ethernet0: 224.0.0.1/24 is not an address for a machine"},
		{"too many", "ip=ibft", manyNICs(), "", "ip=ibft: more than 16 NICs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := ParseCmdline(tt.line, ibft(t, tt.files))
			compare(t, "plan", plan.String(), tt.plan)
			text := ""
			if err != nil {
				text = err.Error()
			}
			compare(t, "error", text, tt.err)
		})
	}
}

func manyNICs() string {
	var b strings.Builder
	for _, c := range "0123456789abcdefg" {
		b.WriteString("ethernet" + string(c) + "/flags 0\n")
	}
	return b.String()
}

func FuzzFirmware(f *testing.F) {
	f.Add(fixedNIC)
	f.Add(fixedNIC + "ethernet1/flags 3\nethernet1/mac 52:54:00:aa:bb:02\nethernet1/dhcp 192.0.2.2\nethernet1/vlan 7")
	f.Fuzz(func(t *testing.T, lines string) {
		files := fstest.MapFS{}
		for line := range strings.Lines(lines) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if fs.ValidPath(name) && strings.HasPrefix(name, "ethernet") && strings.Count(name, "/") == 1 {
				files[name] = &fstest.MapFile{Data: []byte(value)}
			}
		}
		plan, err := ParseCmdline("ip=ibft rd.iscsi.mp", files)
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00\r") {
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
			t.Fatalf("changes when all are made:\n%s", lines)
		}
	})
}
