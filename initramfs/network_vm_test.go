// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// A machine without an IPv4 address is deployed by a conductor and an image server that have IPv6 addresses, and both ends call each other so.
func TestVMOnlyIPv6(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.only6 = true
	l.start()
	m := l.machine()
	vm := vmtest.Start(t, m)
	vm.Expect(t, `network: eth0 `+labMAC+` `+regexp.QuoteMeta(l.network.Guest6.String()+" via "+l.network.Host6.Addr().String()), bootTime)
	vm.Expect(t, regexp.QuoteMeta("api: https://["+l.network.Guest6.Addr().String()+"]:9999"), bootTime)
	vm.Expect(t, `heartbeat: first one accepted`, bootTime)
	vm.Expect(t, `IMAGE RUNS`, deployTime+bootTime)
	if err := l.result(time.Minute); err != nil {
		t.Errorf("conductor: %v\n%s", err, l.timeline())
	}
	if strings.Contains(vm.Console(), l.network.Guest4.Addr().String()) || strings.Contains(vm.Console(), l.network.Host4.Addr().String()) {
		t.Error("there is an IPv4 address on the console")
	}
	checkDisk(t, vm.Disks[1], 512)
	wantNoSecrets(t, l, vm)
}

// An ISO that was made for one node, as Ironic does: the network and the CA are on it, the rest is on the kernel command line. Two NICs on one switch are a bond.
func TestVMISOOfOneNode(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.medium = "none"
	second := vmtest.NewNetwork(t, int(networks.Add(1)))
	sw := "sw-" + l.network.Tap
	run(t, "ip", "link", "add", sw, "type", "bridge")
	t.Cleanup(func() { run(t, "ip", "link", "del", sw) })
	for _, words := range []string{
		"addr flush dev " + l.network.Tap, "addr flush dev " + second.Tap, "link set " + l.network.Tap + " master " + sw, "link set " + second.Tap + " master " + sw,
		"addr add " + l.network.Host4.String() + " dev " + sw, "addr add " + l.network.Host6.String() + " dev " + sw + " nodad", "link set " + sw + " up",
	} {
		run(t, "ip", strings.Fields(words)...)
	}
	const secondMAC = "52:54:00:12:34:57"
	bond := strings.NewReplacer(`"link": "port0"`, `"link": "bond0"`, `, "mtu": 1500}]`, `}, {"id": "port1", "type": "phy", "ethernet_mac_address": "`+secondMAC+`"},
		{"id": "bond0", "type": "bond", "bond_mode": "active-backup", "bond_links": ["port0", "port1"], "ethernet_mac_address": "`+labMAC+`", "mtu": 1500}]`)
	l.start()
	tree := l.path("tree")
	for name, content := range map[string]string{
		"openstack/latest/network_data.json":        bond.Replace(l.networkData(labMAC)),
		"etc/ironic-python-agent/ironic.crt":        read(t, l.path("tls/ca.crt")),
		"etc/ironic-python-agent.d/ironic-tls.conf": "[DEFAULT]\ncafile = /etc/ironic-python-agent/ironic.crt\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const publisher = "0f1d3f6c-6f0c-4c1e-9d31-0a4c1b2e7a55"
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", "config-2", "-publisher", publisher, "-o", l.path("node.iso"), tree)
	m := l.machine()
	m.CD = []string{l.path("node.iso")}
	m.NICs = append(m.NICs, vmtest.NIC{MAC: secondMAC, Network: second})
	m.Cmdline += " ipa-api-url=" + l.api() + " ipa-agent-token=" + strings.TrimSpace(read(t, l.path("token"))) + " BOOTIF=" + labMAC + " ir_pub_id=" + publisher
	vm := vmtest.Start(t, m)
	vm.Expect(t, `media: cd /dev/sr0, label config-2: 3 files`, bootTime)
	vm.Expect(t, `network: as described by cd /dev/sr0 openstack/latest/network_data.json`, bootTime)
	vm.Expect(t, `network: bond0 `+labMAC+` `+regexp.QuoteMeta(l.network.Guest4.String()), bootTime)
	vm.Expect(t, `heartbeat: first one accepted`, bootTime)
	for end := time.Now().Add(time.Minute); !strings.Contains(vm.Console(), "network: bond bond0: member eth1 is up"); time.Sleep(time.Second) { // before or after the heartbeat
		if time.Now().After(end) {
			t.Fatal("the second NIC is not in the bond")
		}
	}
}

// The clock on the board is set where that is asked for, in UTC; the kernel's own file says what it shows.
func TestVMSetRTC(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.params = []string{"ironhand-set-rtc=1"}
	l.start()
	m := l.machine()
	m.Cmdline += " ironhand.shell=1"
	m.Extra = []string{"-rtc", "base=2016-05-06T07:08:09"}
	vm := vmtest.Start(t, m)
	vm.Expect(t, `clock: .*behind.*\(the clock on the board too\)`, bootTime)
	vm.Send(t, "\necho BOARD $(cat /sys/class/rtc/rtc0/date) END\n")
	match := vm.Expect(t, `BOARD (\d+-\d+-\d+) END`, time.Minute)
	day, err := time.Parse(time.DateOnly, match[1])
	if err != nil || time.Since(day).Abs() > 49*time.Hour {
		t.Errorf("the clock on the board says %s, %v", match[1], err)
	}
}
