// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netconfig_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/netconfig/netnstest"
)

const conductor = "conductor.example.org"

// authority makes certificates for the test's servers.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-20, 0, 0), NotAfter: time.Now().AddDate(20, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{c, key}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.certificate)
	return p
}

// server returns the configuration of one with a certificate that is valid for a
// year from so many years from now.
func (a authority) server(t *testing.T, name string, years int) *tls.Config {
	t.Helper()
	from := time.Now().AddDate(years, 0, -1)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: from, NotAfter: from.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: a.key}}}
}

// serve accepts connections on a port of the conductor and lets talk have them.
func serve(t *testing.T, peer *netnstest.Peer, port int, talk func(net.Conn)) {
	l := peer.Listen(t, fmt.Sprintf("198.51.100.7:%d", port))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed, at the end of the test
			}
			go func() {
				defer c.Close()
				talk(c)
			}()
		}
	}()
}

// serveNames answers DNS questions (RFC 1035): the conductor has one IPv4
// address, "both.example.org" one of each family, other names do not exist.
func serveNames(t *testing.T, peer *netnstest.Peer, address string) {
	c := peer.ListenPacket(t, address)
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return // closed, at the end of the test
			}
			if n < 17 {
				continue
			}
			end, name := 12, ""
			for end < n-5 && b[end] != 0 {
				name += string(b[end+1:end+1+int(b[end])]) + "."
				end += 1 + int(b[end])
			}
			question := b[12 : end+5]
			kind := binary.BigEndian.Uint16(b[end+1:])
			answer := append([]byte{b[0], b[1], 0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
			switch {
			case name == "both.example.org." && kind == 28:
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16)
				answer = append(answer, netip.MustParseAddr("2001:db8:1::7").AsSlice()...)
			case name != conductor+"." && name != "both.example.org.":
				answer[3] |= 3 // no such name
			case kind == 1:
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7)
			}
			if _, err := c.WriteTo(answer, from); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	}()
}

// Everything that can be wrong is made wrong in turn, from the top down: what is
// broken stays broken, so that each cause is found below those before it.
func TestRootCheck(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.IP(t, "addr add 192.0.2.2/24 dev far0")
	ours, other := newAuthority(t), newAuthority(t)
	serveNames(t, peer, "192.0.2.53:53")
	for port, config := range map[int]*tls.Config{
		443: ours.server(t, conductor, 0), 444: other.server(t, conductor, 0), 445: ours.server(t, conductor, -5),
		446: ours.server(t, conductor, 5), 447: ours.server(t, "other.example.net", 0),
	} {
		serve(t, peer, port, func(c net.Conn) { _ = tls.Server(c, config).Handshake() }) // the client says what was wrong
	}
	serve(t, peer, 80, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	serve(t, peer, 448, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })

	k, _ := kernel(t)
	data := strings.Replace(data, `, {"type": "dns", "address": "2001:db8::53"}`, "", 1)
	if err := parse(t, data).Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	nothing := func() {}
	ip := func(words string) func() { return func() { peer.IP(t, words) } }
	tests := []struct {
		name   string
		broken func()
		host   string
		port   int
		cause  string // part of it
		line   string // part of the report
	}{
		{"good", nothing, conductor, 443, "conductor.example.org:443 can be reached", "gateway 192.0.2.1 on eth0: answers ARP with "},
		{"good over IPv6 gateway", nothing, conductor, 443, "can be reached", "gateway 2001:db8::1 on eth0: answers neighbour discovery with "},
		{"address that the certificate does not have", nothing, "198.51.100.7", 443, "the server's certificate is for another name than 198.51.100.7", "tcp 198.51.100.7:443 on eth0 via 192.0.2.1: connects"},
		{"wrong CA", nothing, conductor, 444, "the CA certificates that this machine was given do not vouch for conductor.example.org", "tls 198.51.100.7:444: unknown-ca"},
		{"expired", nothing, conductor, 445, "the server's certificate has expired", "tls 198.51.100.7:445: expired"},
		{"not yet valid", nothing, conductor, 446, "this machine's clock is slow", "tls 198.51.100.7:446: not-yet-valid"},
		{"wrong name", nothing, conductor, 447, "the server's certificate is for another name than conductor.example.org", "other.example.net"},
		{"plain HTTP", nothing, conductor, 80, "port 80 of 198.51.100.7 does not speak TLS", "not-tls"},
		{"no handshake", nothing, conductor, 448, "198.51.100.7:448 accepts the connection and then says nothing", "tls 198.51.100.7:448: silent"},
		{"refused", nothing, conductor, 449, "198.51.100.7 refuses connections to port 449", "tcp 198.51.100.7:449 on eth0 via 192.0.2.1: refused"},
		{"refused over IPv6", nothing, "2001:db8:1::7", 449, "2001:db8:1::7 refuses connections to port 449", "tcp [2001:db8:1::7]:449 on eth0 via 2001:db8::1: refused"},
		{"gateway of one route gone", ip("addr del 192.0.2.2/24 dev far0"), "203.0.113.9", 443, "the gateway 192.0.2.2 does not answer on eth0", "gateway 192.0.2.2 on eth0: does not answer ARP"},
		{"host dead behind a good gateway", nothing, "198.51.100.8", 443, "the gateway 192.0.2.1 answers, but nothing comes back from 198.51.100.8", "tcp 198.51.100.8:443 on eth0 via 192.0.2.1: silent"},
		{"host dead on the link", nothing, "192.0.2.99", 443, "no connection to 192.0.2.99, which should be on the link of eth0", "tcp 192.0.2.99:443 on eth0: unreachable"},
		{"unknown name", nothing, "nobody.example.org", 443, `the name server 192.0.2.53 knows no address of "nobody.example.org"`, "dns 192.0.2.53 on eth0: not-found (no such host)"},
		{"name server gone", ip("addr del 192.0.2.53/24 dev far0"), conductor, 443, "the name server 192.0.2.53 does not answer, which should be on the link of eth0", "dns 192.0.2.53 on eth0: "},
		{"gateway gone", ip("addr del 192.0.2.1/24 dev far0"), "198.51.100.7", 443, "the gateway 192.0.2.1 does not answer on eth0", "gateway 192.0.2.1 on eth0: does not answer ARP"},
		{"no route", func() { netnstest.IP(t, "route del default via 192.0.2.1") }, "198.51.100.7", 443, "no connection to 198.51.100.7: there is no route to it", "tcp 198.51.100.7:443 no route: no-route"},
		{"no cable", ip("link set far0 down"), conductor, 443, "no NIC has link (eth0): look at the cable and the switch port", "nic eth0: driver veth, mac 52:54:00:aa:bb:01, mtu 1450, no link"},
		{"no address", func() { netnstest.IP(t, "addr flush dev eth0"); peer.IP(t, "link set far0 up") }, conductor, 443, "no NIC has an address", ""},
		{"switched off", func() { netnstest.IP(t, "link set eth0 down") }, conductor, 443, "no NIC is switched on", "switched off"},
		{"no NIC", func() { netnstest.IP(t, "link del eth0") }, conductor, 443, "the machine has no NIC", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.broken()
			start := time.Now()
			r := netconfig.Check(t.Context(), k, netconfig.Target{Host: tt.host, Port: tt.port, TLS: &tls.Config{RootCAs: ours.pool()}})
			t.Logf("%s\n%s", time.Since(start).Round(time.Millisecond), r)
			if _, err := netip.ParseAddr(tt.host); (err == nil) != (len(r.DNS) == 0) {
				t.Errorf("%d lookups of %s", len(r.DNS), tt.host)
			}
			if !strings.Contains(r.Cause, tt.cause) || !strings.HasSuffix(r.String(), "\ncause: "+r.Cause+"\n") && len(r.NICs) > 0 {
				t.Errorf("cause: %s\nwant: %s", r.Cause, tt.cause)
			}
			if !strings.Contains(r.String(), tt.line) {
				t.Errorf("no line with %q in\n%s", tt.line, r)
			}
		})
	}
}

// Another machine has our IPv4 address, which the kernel does not look for.
func TestRootDuplicateIPv4(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.IP(t, "addr add 192.0.2.10/24 dev far0")
	k, _ := kernel(t)
	if err := parse(t, data).Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	target := netconfig.Target{Host: "198.51.100.7", Port: 80}
	r := netconfig.Check(t.Context(), k, target)
	if r.Cause != "another machine has the address 192.0.2.10 of eth0" || !strings.Contains(r.String(), "192.0.2.10/24 (duplicate)") {
		t.Errorf("Check =\n%s", r)
	}
	peer.IP(t, "addr del 192.0.2.10/24 dev far0")
	if r = netconfig.Check(t.Context(), k, target); strings.Contains(r.String(), "duplicate") {
		t.Errorf("Check when the other machine is gone =\n%s", r)
	}
}

// Two NICs of ours on one link answer for each other's addresses: that is nobody else.
func TestRootOwnAddressIsNoDuplicate(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	peer.Cable(t, "eth1", "52:54:00:aa:bb:02", "far1")
	for _, words := range []string{"link add br0 type bridge", "link set far0 master br0", "link set far1 master br0", "link set br0 up"} {
		peer.IP(t, words)
	}
	k, _ := kernel(t)
	plan := parse(t, `{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}],
		"networks": [{"type": "ipv4", "link": "a", "ip_address": "192.0.2.10/24"}, {"type": "ipv4", "link": "b", "ip_address": "192.0.2.11/24"}]}`)
	if err := plan.Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if r := netconfig.Check(t.Context(), k, netconfig.Target{Host: "192.0.2.99", Port: 80}); strings.Contains(r.String(), "duplicate") {
		t.Errorf("Check =\n%s", r)
	}
}

// sendFrames sends frames from the peer's NIC again and again until the test ends.
func sendFrames(t *testing.T, peer *netnstest.Peer, nic string, frames ...[]byte) {
	t.Helper()
	var fd, index int
	peer.Do(func() {
		i, err := net.InterfaceByName(nic)
		if err != nil {
			t.Error(err)
			return
		}
		index = i.Index
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
	})
	done, ended := make(chan bool), make(chan bool)
	t.Cleanup(func() { close(done); <-ended; unix.Close(fd) })
	go func() {
		defer close(ended)
		for {
			for _, f := range frames {
				_ = unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index}) // while the other end is down
			}
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
}

func unhex(t *testing.T, words string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(words, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The switch port is in another VLAN: what arrives there is seen, the switch is named, and the last line says so.
func TestRootWrongVLAN(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	peer.Cable(t, "eth1", "52:54:00:aa:bb:02", "far1")
	arp := "0806 0001 0800 0604 0001 525400000001 c0000201 000000000000 c0000263"
	sendFrames(t, peer, "far0", unhex(t, "ffffffffffff 525400000001 8100 0064"+arp), unhex(t, "ffffffffffff 525400000001 8100 60c8"+arp),
		unhex(t, "0180c200000e 525400000001 88cc 0207 04 525400000001 0403 07 3137 0602 0078 0a05 746f722d31 fe0b 0080c2 03 00c8 04 6c616232 0000"))
	k, _ := kernel(t)
	plan := parse(t, strings.Replace(data, `"mtu": 1450}`, `"mtu": 1450}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:02"}`, 1))
	if err := plan.Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	r := netconfig.Check(t.Context(), k, netconfig.Target{Host: "198.51.100.7", Port: 80})
	want := "the gateway 192.0.2.1 does not answer on eth0: wrong VLAN, for frames with the tag of VLAN 100, 200 arrive there, and the description has no VLAN there " +
		"(eth0 is on port 17 of tor-1 (52:54:00:00:00:01))"
	if r.Cause != want {
		t.Errorf("cause: %s\nwant: %s", r.Cause, want)
	}
	for _, line := range []string{"nic eth0: LLDP says port 17 of tor-1 (52:54:00:00:00:01), tagged VLAN 200\n", "nic eth0: VLAN 100, 200 seen\n", "nic eth1: no LLDP heard in "} {
		if !strings.Contains(r.String(), line) {
			t.Errorf("no %q in\n%s", line, r)
		}
	}
	if strings.Contains(r.String(), "nic eth1: VLAN") {
		t.Errorf("VLANs on the wrong NIC:\n%s", r)
	}
	for _, nic := range []string{"eth0", "eth1"} {
		if out := string(netnstest.IP(t, "-d link show dev "+nic)); !strings.Contains(out, "promiscuity 0") {
			t.Errorf("after listening: %s", out)
		}
	}
}

// Two who listen at once have listened for as long as one.
func TestRootListenTwice(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	router(t)
	netnstest.IP(t, "link set eth0 up")
	k, _ := kernel(t)
	var listening sync.WaitGroup
	for range 3 {
		listening.Go(func() {
			if err := k.Do(t.Context(), netconfig.Listen{NIC: "eth0", For: time.Second}); err != nil {
				t.Error(err)
			}
		})
	}
	start := time.Now()
	listening.Wait()
	have, err := k.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range have.NICs {
		if n.Name == "eth0" && (n.Heard.For < time.Second || n.Heard.For > time.Since(start)) {
			t.Errorf("listened for %v in %v", n.Heard.For, time.Since(start))
		}
	}
}

// A name is looked up in both families, by name servers of both, and one family that leads there will do.
func TestRootBothFamilies(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.IP(t, "addr add 2001:db8::53/64 dev far0 nodad")
	for _, address := range []string{"192.0.2.53:53", "[2001:db8::53]:53"} {
		serveNames(t, peer, address)
	}
	six := peer.Listen(t, "[2001:db8:1::7]:80")
	peer.Listen(t, "198.51.100.7:80")
	k, _ := kernel(t)
	if err := parse(t, data).Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	target := netconfig.Target{Host: "both.example.org", Port: 80}
	want := []string{"dns 192.0.2.53 on eth0: ", "dns 2001:db8::53 on eth0: ", "tcp 198.51.100.7:80 on eth0 via 192.0.2.1: connects", "tcp [2001:db8:1::7]:80 on eth0 via 2001:db8::1: connects"}
	r := netconfig.Check(t.Context(), k, target)
	for _, line := range want {
		if !r.OK || !strings.Contains(r.String(), line) {
			t.Errorf("no %q in\n%s", line, r)
		}
	}
	if err := six.Close(); err != nil {
		t.Fatal(err)
	}
	if r = netconfig.Check(t.Context(), k, target); !r.OK || !strings.Contains(r.String(), "tcp [2001:db8:1::7]:80 on eth0 via 2001:db8::1: refused") {
		t.Errorf("with IPv4 alone\n%s", r)
	}
	peer.IP(t, "addr del 192.0.2.53/24 dev far0")
	if r = netconfig.Check(t.Context(), k, target); !r.OK || !strings.Contains(r.String(), "dns 2001:db8::53 on eth0: ") {
		t.Errorf("with the IPv6 name server alone\n%s", r)
	}
}

// The kernel knows how large packets may be on the way.
func TestRootPathMTU(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	for _, address := range []string{"198.51.100.7:80", "[2001:db8:1::7]:80"} {
		peer.Listen(t, address)
	}
	k, _ := kernel(t)
	if err := parse(t, data).Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	netnstest.IP(t, "-6 route add 2001:db8:1::/64 via 2001:db8::1 mtu 1280")
	for host, want := range map[string]string{"198.51.100.7": "tcp 198.51.100.7:80 on eth0 via 192.0.2.1: connects, path MTU 1450\n", "2001:db8:1::7": "tcp [2001:db8:1::7]:80 on eth0 via 2001:db8::1: connects, path MTU 1280\n"} {
		if r := netconfig.Check(t.Context(), k, netconfig.Target{Host: host, Port: 80}); !r.OK || !strings.Contains(r.String(), want) {
			t.Errorf("Check =\n%s\nwant %s", r, want)
		}
	}
}

// Frames of full size in both directions, as storage networks have them.
func TestRootJumboFrames(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := router(t)
	peer.IP(t, "link set far0 mtu 9000")
	k, _ := kernel(t)
	if err := parse(t, strings.Replace(data, "1450", "9000", 1)).Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		got := make(chan int)
		l := peer.ListenPacket(t, address)
		go func() {
			b := make([]byte, 10000)
			n, _, err := l.ReadFrom(b)
			if err != nil {
				n = 0 // closed, at the end of the test
			}
			got <- n
		}()
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// Larger ones must be refused, not cut into pieces: so whole ones were sent.
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		headers, level, option := 28, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
		if address[0] == '[' {
			headers, level, option = 48, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
		}
		if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, unix.IP_PMTUDISC_DO) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(make([]byte, 9001-headers)); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("%s: 9001 bytes: %v", address, err)
		}
		if _, err := c.Write(make([]byte, 9000-headers)); err != nil {
			t.Errorf("%s: 9000 bytes: %v", address, err)
		}
		select {
		case n := <-got:
			if n != 9000-headers {
				t.Errorf("%s: %d bytes arrived", address, n)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nothing arrived", address)
		}
	}
}

// On the way to the conductor packets of full size vanish, and no router says so.
func TestRootBlackHole(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	middle, far := router(t), netnstest.NewPeer(t)
	middle.Connect(t, far, "near", "conductor0")
	middle.IP(t, "link set far0 mtu 1300")          // a veth drops what its other end sends beyond that,
	netnstest.IP(t, "link set eth0 gso_max_segs 1") // unless it is several segments in one
	for _, words := range []string{"addr del 198.51.100.7/32 dev lo", "addr add 198.51.100.1/24 dev near"} {
		middle.IP(t, words)
	}
	middle.Do(func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
			t.Error(err)
		}
	})
	far.IP(t, "addr add 198.51.100.7/24 dev conductor0")
	far.IP(t, "route add default via 198.51.100.1")
	ours := newAuthority(t)
	config := ours.server(t, conductor, 0)
	serve(t, far, 443, func(c net.Conn) { _ = tls.Server(c, config).Handshake() })
	serve(t, far, 448, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	k, _ := kernel(t)
	if err := parse(t, strings.ReplaceAll(data, `"mtu": 1450`, `"mtu": 1500`)).Apply(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{RootCAs: ours.pool(), ServerName: conductor}
	start := time.Now()
	r := netconfig.Check(t.Context(), k, netconfig.Target{Host: "198.51.100.7", Port: 443, TLS: client})
	if want := "large packets to 198.51.100.7 are lost on the way, and nobody says so (MTU): with at most 1260 bytes in a packet it goes through"; !strings.Contains(r.Cause, want) {
		t.Errorf("cause: %s\nwant: %s", r.Cause, want)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	r = netconfig.Check(t.Context(), k, netconfig.Target{Host: "198.51.100.7", Port: 448, TLS: client})
	if want := "says nothing, not even to small packets: the service hangs"; !strings.Contains(r.Cause, want) {
		t.Errorf("cause: %s\nwant: %s", r.Cause, want)
	}
	middle.IP(t, "link set far0 mtu 1500")
	if r = netconfig.Check(t.Context(), k, netconfig.Target{Host: "198.51.100.7", Port: 443, TLS: client}); !r.OK {
		t.Errorf("Check without the hole =\n%s", r)
	}
}
