// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netconfig_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"

	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/netconfig/netnstest"
)

// shortLeases is a server whose leases last for seconds, which dnsmasq's never do.
type shortLeases struct {
	mu   sync.Mutex
	give net.IP // nil: it does not answer
}

func (s *shortLeases) set(ip net.IP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.give = ip
}

// answer answers discoveries and requests.
func (s *shortLeases) answer(c net.PacketConn, to net.Addr, m *dhcpv4.DHCPv4) {
	s.mu.Lock()
	give := s.give
	s.mu.Unlock()
	kind := dhcpv4.MessageTypeOffer
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
	}
	own := net.IPv4(192, 0, 2, 1)
	reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(give), dhcpv4.WithServerIP(own), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(own)), dhcpv4.WithRouter(own), dhcpv4.WithLeaseTime(6))
	if err == nil && give != nil {
		_, _ = c.WriteTo(reply.ToBytes(), to) // who does not hear it asks again
	}
}

// A server that gives addresses for some seconds goes away: the address goes with it, and the route. When the server is there again, so is the network, by whatever
// address it gives now.
func TestRootLeaseEnds(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "52:54:00:aa:bb:01", "far0")
	peer.IP(t, "addr add 192.0.2.1/24 dev far0")
	peer.Listen(t, "192.0.2.1:80")
	s := &shortLeases{}
	s.set(net.IPv4(192, 0, 2, 50))
	var server *server4.Server
	var err error
	peer.Do(func() { server, err = server4.NewServer("far0", &net.UDPAddr{Port: 67}, s.answer) })
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve() }() // until it is closed
	defer func() { server.Close(); <-served }()

	k, _ := kernel(t)
	given, err := parse(t, automatic("ipv4_dhcp")).Acquire(t.Context(), k, netconfig.NewAsker(), nil, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	wants := func(what string, addressWanted, routesWanted string) {
		t.Helper()
		var got []string
		var ways string
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			_, got = addresses(t, "eth0")
			if ways = strings.Join(routes(t), ", "); strings.Join(got, ", ") == addressWanted && ways == routesWanted {
				return
			}
		}
		t.Fatalf("%s: addresses %q, routes %q", what, got, ways)
	}
	const way = "default via 192.0.2.1 dev eth0 metric 0"
	wants("at first", "192.0.2.50/24", way)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var said []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		given.Keep(ctx, k, netconfig.NewAsker(), nil, func(line string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, line)
		})
	}()
	defer func() { cancel(); <-ended }()
	s.set(nil)
	wants("without server", "", "")
	mu.Lock()
	lines := strings.Join(said, "\n")
	mu.Unlock()
	if !strings.Contains(lines, "a: the lease of 192.0.2.50/24 has ended, and nobody has renewed it: it is given up, and asked for anew") {
		t.Errorf("said\n%s", lines)
	}
	s.set(net.IPv4(192, 0, 2, 77))
	wants("with the server again", "192.0.2.77/24", way)
	reaches(t, "192.0.2.1:80")
}
