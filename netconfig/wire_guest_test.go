// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netconfig_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/netconfig"
)

// The NICs of the machine whose wires are judged from outside of it, and what TestGuestWire asks for on them.
const (
	taggedMAC, lacpMAC  = "52:54:00:aa:cc:01", "52:54:00:aa:cc:02"
	plainAsked, vlanMAC = "198.51.100.99", "52:54:00:aa:cc:64"
	taggedAsked         = "192.0.2.99"
)

// wires are two NICs whose frames QEMU writes down.
type wires struct {
	machine      vmtest.Machine
	tagged, lacp string // files of captured packets
}

func newWires(t *testing.T) wires {
	dir := t.TempDir()
	w := wires{tagged: filepath.Join(dir, "tagged.pcap"), lacp: filepath.Join(dir, "lacp.pcap")}
	w.machine.NICs = []vmtest.NIC{{MAC: taggedMAC}, {MAC: lacpMAC, Model: "e1000e"}} // of a paravirtual one nobody knows whether it is full duplex, which LACP must
	for i, file := range []string{w.tagged, w.lacp} {
		// QEMU's own router takes all frames, for a wire without another end would take none.
		w.machine.Extra = append(w.machine.Extra, "-netdev", fmt.Sprintf("user,id=router%d,restrict=on,ipv6=off", i), "-netdev", fmt.Sprintf("hubport,id=end%d,hubid=%[1]d,netdev=router%[1]d", i),
			"-object", fmt.Sprintf("filter-dump,id=dump%d,netdev=nic%[1]d-net,file=%s", i, file))
	}
	return w
}

// TestGuestWire sets up an address with a VLAN beside it on one NIC, and a team by LACP on the other, and has frames leave. What is on the wires is judged by the test
// that has started the machine.
func TestGuestWire(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMBondsAndVLANs")
	}
	loadStacking(t)
	k, _ := kernel(t)
	plan, err := netconfig.ParseCmdline("ifname=lan:"+taggedMAC+" ifname=lag:"+lacpMAC+" vlan=vlan100:lan ip=198.51.100.10:::24::lan:none ip=192.0.2.10:::24::vlan100:none::"+vlanMAC+" team=team0:lag:lacp", nil)
	if err != nil {
		t.Fatal(err)
	}
	// What has to leave by each NIC: it is looked for from before the NIC is switched on.
	left := map[string][][]byte{taggedMAC: {net.ParseIP(plainAsked).To4(), net.ParseIP(taggedAsked).To4()}, lacpMAC: {{0x88, 0x09}}}
	own, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	sockets := map[string]int{}
	for _, n := range own {
		if left[n.HardwareAddr.String()] == nil {
			continue
		}
		s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(s)
		if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8, Ifindex: n.Index}); err != nil {
			t.Fatal(err)
		}
		sockets[n.HardwareAddr.String()] = s
	}
	if len(sockets) != 2 {
		t.Fatalf("NICs %v", own)
	}
	applied(t, k, plan)
	for _, to := range []string{plainAsked, taggedAsked} {
		c, err := net.Dial("udp", to+":9")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
	}
	b := make([]byte, 2048)
	for mac, s := range sockets { // until it has left, so that it is in the file
		for end := time.Now().Add(time.Minute); ; {
			n, err := unix.Read(s, b)
			if err == nil {
				left[mac] = slices.DeleteFunc(left[mac], func(part []byte) bool { return bytes.Contains(b[:n], part) })
			}
			if len(left[mac]) == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("nothing with %x has left by %s", left[mac], mac)
			}
			if err != nil {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	time.Sleep(2 * time.Second) // for the rest of them, and the device
}

// judge looks at what came out of the machine.
func (w wires) judge(t *testing.T) {
	// A VLAN's frames have its tag, and others have none.
	asked := map[string][]string{}
	for _, f := range captured(t, w.tagged) {
		tag, kind, rest := "no tag", f[12:14], f[14:]
		if bytes.Equal(kind, []byte{0x81, 0x00}) && len(rest) >= 4 {
			tag, kind, rest = "tag "+hex.EncodeToString(rest[:2]), rest[2:4], rest[4:] // with priority and DEI, which are zero
		}
		from := net.HardwareAddr(f[6:12]).String()
		if from == vlanMAC && tag != "tag 0064" || from == taggedMAC && tag != "no tag" {
			t.Errorf("a frame from %s with %s: %x", from, tag, f)
		}
		if bytes.Equal(kind, []byte{0x08, 0x06}) && len(rest) >= 28 { // ARP: who has that?
			who := net.IP(rest[24:28]).String()
			asked[who] = append(asked[who], from+" "+tag)
		}
	}
	for who, want := range map[string]string{plainAsked: taggedMAC + " no tag", taggedAsked: vlanMAC + " tag 0064"} {
		if got := asked[who]; len(got) == 0 || slices.ContainsFunc(got, func(s string) bool { return s != want }) {
			t.Errorf("who asks for %s: %q, want %s; frames\n%x", who, got, want, captured(t, w.tagged))
		}
	}

	// LACP goes out without a tag, in the name of the team (IEEE 802.1AX, 6.4.2.3: subtype 1, version 1, the actor's information of 20 bytes, its system after the priority).
	frames := captured(t, w.lacp)
	spoken := slices.ContainsFunc(frames, func(f []byte) bool {
		return len(f) >= 26 && hex.EncodeToString(f[:6]) == "0180c2000002" && hex.EncodeToString(f[12:18]) == "880901010114" && net.HardwareAddr(f[20:26]).String() == lacpMAC
	})
	if !spoken {
		t.Errorf("nobody speaks LACP; frames\n%x", frames)
	}
}

// captured reads the frames of a file as tcpdump writes them (pcap-savefile(5)).
func captured(t *testing.T, path string) (frames [][]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return nil
	}
	const head, each = 24, 16
	if len(b) < head || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 || binary.LittleEndian.Uint32(b[20:]) != 1 { // Ethernet
		t.Errorf("%s begins with %x", filepath.Base(path), b[:min(len(b), head)])
		return nil
	}
	for b = b[head:]; len(b) >= each; {
		size := int(binary.LittleEndian.Uint32(b[8:]))
		if size < 14 || len(b) < each+size {
			t.Errorf("%s has a frame of %d bytes, and %d are left", strings.TrimSuffix(filepath.Base(path), ".pcap"), size, len(b)-each)
			break
		}
		frames = append(frames, b[each:each+size])
		b = b[each+size:]
	}
	return frames
}
