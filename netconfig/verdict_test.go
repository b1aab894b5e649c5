// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect/lldp"
)

func TestParseTarget(t *testing.T) {
	tests := []struct {
		url, want string
		tls       bool
		err       string
	}{
		{"https://conductor.example.org", "conductor.example.org:443", true, ""},
		{"https://user:secret@conductor.example.org:6385/v1?token=secret", "conductor.example.org:6385", true, ""},
		{"http://192.0.2.1", "192.0.2.1:80", false, ""},
		{"https://[2001:db8::1]:6385/", "[2001:db8::1]:6385", true, ""},
		{"ftp://192.0.2.1", "", false, `parse the target's URL: "ftp" is neither http nor https`},
		{"https://", "", false, "parse the target's URL: no host"},
		{"https://a:0/", "", false, `parse the target's URL: "0" is not a port`},
		{"https://a:70000/", "", false, `parse the target's URL: "70000" is not a port`},
		{"https://user:secret@a:b:c/", "", false, "parse the target's URL: not a URL"},
		{"mdns", "", false, `parse the target's URL: "" is neither http nor https`},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			got, err := ParseTarget(tt.url, nil)
			text := ""
			if err != nil {
				text = err.Error()
			}
			compare(t, "error", text, tt.err)
			if err == nil && (got.String() != tt.want || (got.TLS != nil) != tt.tls) {
				t.Errorf("ParseTarget = %s, TLS %v; want %s, %v", got, got.TLS != nil, tt.want, tt.tls)
			}
		})
	}
}

// A report is made up and the cause is looked for; what the network really says
// is tested in namespaces.
func TestCause(t *testing.T) {
	addr := netip.MustParseAddr
	target := Target{Host: "conductor.example.org", Port: 6385, TLS: &tls.Config{}}
	gateway := addr("192.0.2.1")
	over := Path{"eth0", gateway}
	to := netip.AddrPortFrom(addr("198.51.100.7"), 6385)
	to6 := netip.AddrPortFrom(addr("2001:db8:1::7"), 6385)
	good := NICReport{Name: "eth0", Up: true, Carrier: true, Addresses: []Address{{Prefix: netip.MustParsePrefix("192.0.2.10/24")}}}
	unplugged := NICReport{Name: "eth1", Up: true, Addresses: []Address{{Prefix: netip.MustParsePrefix("192.0.2.10/24")}}}
	bare := NICReport{Name: "eth2", Up: true, Carrier: true, Addresses: []Address{{Prefix: netip.MustParsePrefix("fe80::1/64")}}}
	silent := Connection{Address: to, Path: over, TCP: Silent, TLS: NotTried}
	bonded := func(members ...Member) StackedReport {
		return StackedReport{Name: "bond0", Carrier: true, Bond: &Bond{Options: map[string]int{"mode": lacp}}, Members: members,
			Addresses: []Address{{Prefix: netip.MustParsePrefix("192.0.2.10/24")}}}
	}

	lost := func(vlan int, seen []int, n *lldp.Neighbour) Report {
		port, on := good, "eth0"
		port.VLANs, port.Neighbour = seen, n
		r := Report{}
		if vlan != 0 {
			port.Master, on = "bond0", "bond0.5"
			r.Stacked = []StackedReport{{Name: "bond0", Bond: &Bond{Options: map[string]int{"mode": activeBackup}}, Members: []Member{{"eth0", true, ""}}}, {Name: on, Parent: "bond0", VLAN: vlan, Addresses: port.Addresses}}
		}
		r.NICs = []NICReport{port}
		r.Connections = []Connection{{Address: to, Path: Path{NIC: on}, TCP: Silent}}
		return r
	}
	tor := func(untagged int, tagged ...int) *lldp.Neighbour {
		n := &lldp.Neighbour{PortID: "17", SystemName: "tor-1", UntaggedVLAN: untagged}
		for _, id := range tagged {
			n.VLANs = append(n.VLANs, lldp.VLAN{ID: id})
		}
		return n
	}
	tests := []struct {
		name   string
		report Report
		want   string
	}{
		{"another VLAN's frames", lost(5, []int{7, 6}, nil),
			"no connection to 198.51.100.7, which should be on the link of bond0.5: wrong VLAN, for frames with the tag of VLAN 6, 7 arrive there, and none of VLAN 5"},
		{"VLAN's own frames", lost(5, []int{5, 6}, nil), "no connection to 198.51.100.7, which should be on the link of bond0.5: wrong VLAN or switch port, or it is down"},
		{"VLAN that the switch does not name", lost(5, nil, tor(1, 1, 6)),
			"no connection to 198.51.100.7, which should be on the link of bond0.5: wrong VLAN, for the switch names VLAN 6 there (LLDP), and not VLAN 5 (eth0 is on port 17 of tor-1, VLAN 1)"},
		{"VLAN that has no tag", lost(5, nil, tor(5, 5)),
			"no connection to 198.51.100.7, which should be on the link of bond0.5: wrong VLAN, for the switch says (LLDP) that VLAN 5 comes without a tag there (eth0 is on port 17 of tor-1, VLAN 5)"},
		{"wrong port", lost(0, nil, tor(0)), "no connection to 198.51.100.7, which should be on the link of eth0: wrong VLAN or switch port, or it is down (eth0 is on port 17 of tor-1)"},
		{"all is well", Report{NICs: []NICReport{good}, OK: true}, "conductor.example.org:6385 can be reached"},
		{"no driver", Report{}, "the machine has no NIC that the kernel has a driver for"},
		{"all off", Report{NICs: []NICReport{{Name: "eth0"}}}, "no NIC is switched on: the description of the network names none of them"},
		{"no cable", Report{NICs: []NICReport{unplugged}}, "no NIC has link (eth1): look at the cable and the switch port"},
		{"cable in the wrong NIC", Report{NICs: []NICReport{unplugged, bare}}, "eth1 has the address but no link, and eth2 has link but no address: the cable is in the wrong NIC, or the description names the wrong MAC"},
		{"no address", Report{NICs: []NICReport{bare}}, "no NIC has an address: the description of the network gives none to a NIC that is here"},
		{"duplicate address", Report{NICs: []NICReport{{Name: "eth0", Up: true, Carrier: true, Addresses: []Address{{Prefix: netip.MustParsePrefix("2001:db8::10/64"), Duplicate: true}}}}},
			"another machine has the address 2001:db8::10 of eth0"},
		{"duplicate address on a VLAN", Report{NICs: []NICReport{bare}, Stacked: []StackedReport{{Name: "bond0.5", Addresses: []Address{{Prefix: netip.MustParsePrefix("192.0.2.10/24"), Duplicate: true}}}}},
			"another machine has the address 192.0.2.10 of bond0.5"},
		{"no LACP", Report{NICs: []NICReport{bare}, Stacked: []StackedReport{bonded(Member{"eth0", true, ""}, Member{"eth1", false, ""})}, Connections: []Connection{silent}},
			"the switch does not speak LACP on eth0 (bond0): its ports are not in a channel group"},
		{"LACP with two systems", Report{NICs: []NICReport{bare}, Stacked: []StackedReport{bonded(Member{"eth0", true, "02:00:00:00:00:01"}, Member{"eth1", true, "02:00:00:00:00:02"})}, Connections: []Connection{silent}},
			"the members of bond0 are connected to different systems (eth0 02:00:00:00:00:01, eth1 02:00:00:00:00:02): the cables are in the wrong ports, or the switches are no pair"},
		{"LACP is well", Report{NICs: []NICReport{bare}, Stacked: []StackedReport{bonded(Member{"eth0", true, "02:00:00:00:00:01"}, Member{"eth1", false, ""})}, Connections: []Connection{{Address: to, Path: Path{NIC: "bond0"}, TCP: Silent}}},
			"no connection to 198.51.100.7, which should be on the link of bond0: wrong VLAN or switch port, or it is down"},
		{"black hole", Report{NICs: []NICReport{good}, Connections: []Connection{{Address: to, Path: over, TLS: BlackHole, Detail: "with at most 1260 bytes in a packet it goes through"}}},
			"large packets to 198.51.100.7 are lost on the way, and nobody says so (MTU): with at most 1260 bytes in a packet it goes through; give the link such an mtu, or let ICMP pass"},
		{"no name server", Report{NICs: []NICReport{good}, DNS: []Lookup{{Problem: NoServer}}}, `"conductor.example.org" is a name, and no name server is set`},
		{"name server behind a silent gateway", Report{NICs: []NICReport{good}, Gateways: []Gateway{{NIC: "eth0", Address: gateway, Problem: Silent}},
			DNS: []Lookup{{Server: addr("203.0.113.53"), Path: over, Problem: Silent}}},
			"the gateway 192.0.2.1 does not answer on eth0: wrong VLAN or switch port, wrong address, or it is down"},
		{"gateway outside the network", Report{NICs: []NICReport{good}, Gateways: []Gateway{{NIC: "eth0", Address: gateway, Problem: Silent, Outside: true}}, Connections: []Connection{silent}},
			"the gateway 192.0.2.1 does not answer on eth0, and no network of eth0 covers it: look at gateway and netmask"},
		{"one server is dead, the other knows no such name", Report{NICs: []NICReport{good}, DNS: []Lookup{{Server: addr("192.0.2.53"), Path: Path{NIC: "eth0"}, Problem: Silent}, {Server: addr("192.0.2.54"), Problem: NotFound}}},
			`the name server 192.0.2.54 knows no address of "conductor.example.org"`},
		{"dead name server", Report{NICs: []NICReport{good}, DNS: []Lookup{{Server: addr("192.0.2.53"), Path: Path{NIC: "eth0"}, Problem: Silent}}},
			"the name server 192.0.2.53 does not answer, which should be on the link of eth0: wrong VLAN or switch port, or it is down"},
		{"no route", Report{NICs: []NICReport{good}, Connections: []Connection{{Address: to, TCP: NoRoute}}},
			"no connection to 198.51.100.7: there is no route to it on a NIC with link"},
		{"no IPv6, and IPv4 is filtered", Report{NICs: []NICReport{good}, Gateways: []Gateway{{NIC: "eth0", Address: gateway, MAC: "52:54:00:00:00:01"}},
			Connections: []Connection{{Address: to6, TCP: NoRoute}, silent}},
			"no connection to 198.51.100.7: the gateway 192.0.2.1 answers, but nothing comes back from 198.51.100.7 (firewall, no way back, or it is down)"},
		{"refused beats silent", Report{NICs: []NICReport{good}, Connections: []Connection{silent, {Address: to6, TCP: Refused}}},
			"2001:db8:1::7 refuses connections to port 6385: the service does not run, or the port is wrong, or a firewall rejects them"},
		{"TLS beats refused", Report{NICs: []NICReport{good}, Connections: []Connection{{Address: to6, TCP: Refused}, {Address: to, TLS: NotTLS}}},
			"port 6385 of 198.51.100.7 does not speak TLS: http instead of https, or the wrong port"},
		{"handshake without an end", Report{NICs: []NICReport{good}, Connections: []Connection{{Address: to, TLS: Silent}}},
			"198.51.100.7:6385 accepts the connection and then says nothing, not even to small packets: the service hangs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.report.Target = target.String()
			compare(t, "cause", tt.report.cause(target), tt.want)
		})
	}
}

// The gateways are those of the routing table; one answers, one does not, one is
// behind a NIC without link, one cannot be asked.
func TestGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addr := netip.MustParseAddr
		all := netip.MustParsePrefix("0.0.0.0/0")
		k := &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth0": 0},
			answers: map[netip.Addr]MAC{addr("192.0.2.1"): "52:54:00:00:00:01"},
			fails:   map[string]error{"ask eth0 who has 192.0.2.3": errors.New("no buffer space available")}}
		for _, c := range []Change{SetUp{"eth0"}, SetUp{"eth1"}, AddAddress{"eth0", netip.MustParsePrefix("192.0.2.10/24")}} {
			if err := k.Do(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		for nic, gateway := range map[string]string{"eth0": "192.0.2.1", "eth1": "198.51.100.1"} {
			k.state.Routes = append(k.state.Routes, NICRoute{nic, Route{Destination: all, Gateway: addr(gateway)}})
		}
		for _, gateway := range []string{"192.0.2.1", "192.0.3.2", "192.0.2.3"} {
			k.state.Routes = append(k.state.Routes, NICRoute{"eth0", Route{Destination: netip.MustParsePrefix("10.0.0.0/8"), Gateway: addr(gateway)}})
		}
		have, err := k.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		gateways := askGateways(t.Context(), k, have)
		awaitGateways(t.Context(), k, gateways)
		got := map[string]string{}
		for _, g := range gateways {
			got[g.Address.String()] = strings.TrimSpace(string(g.Problem) + " " + string(g.MAC))
			if g.Outside != (g.Address == addr("192.0.3.2") || g.NIC == "eth1") {
				t.Errorf("gateway %s: outside %v", g.Address, g.Outside)
			}
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, "gateways", string(text), `{"192.0.2.1":"52:54:00:00:00:01","192.0.2.3":"failed","192.0.3.2":"silent","198.51.100.1":"no-link"}`)
	})
}

// Against a server on this machine, whose network the fake kernel does not know.
func TestCheckLoopback(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	at := func(year int) func() time.Time {
		return func() time.Time { return time.Date(year, 1, 2, 3, 4, 5, 0, time.UTC) }
	}
	target := func(l net.Addr, config *tls.Config) Target {
		return Target{Host: "127.0.0.1", Port: l.(*net.TCPAddr).Port, TLS: config}
	}
	tests := []struct {
		name     string
		target   Target
		tcp, tls Problem
		cause    string // part of it
	}{
		{"good", target(server.Listener.Addr(), &tls.Config{RootCAs: roots}), OK, OK, "can be reached"},
		{"without TLS", target(server.Listener.Addr(), nil), OK, NotWanted, "can be reached"},
		{"wrong CA", target(server.Listener.Addr(), &tls.Config{RootCAs: x509.NewCertPool()}), OK, UnknownCA, "CA certificates"},
		{"slow clock", target(server.Listener.Addr(), &tls.Config{RootCAs: roots, Time: at(1960)}), OK, NotYetValid, "clock says 1960-01-02 03:04:05 UTC"},
		{"expired", target(server.Listener.Addr(), &tls.Config{RootCAs: roots, Time: at(2200)}), OK, Expired, "has expired"},
		{"wrong name", target(server.Listener.Addr(), &tls.Config{RootCAs: roots, ServerName: "other.example.net"}), OK, WrongName, "for another name"},
		{"refused", target(closed.Addr(), &tls.Config{}), Refused, NotTried, "refuses connections"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &fakeKernel{state: machine(), cables: map[string]time.Duration{"eth0": 0}}
			for _, c := range []Change{SetUp{"eth0"}, AddAddress{"eth0", netip.MustParsePrefix("192.0.2.10/24")}} {
				if err := k.Do(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			r := Check(t.Context(), k, tt.target)
			if len(r.Connections) != 1 || r.Connections[0].TCP != tt.tcp || r.Connections[0].TLS != tt.tls || !strings.Contains(r.Cause, tt.cause) {
				t.Errorf("Check =\n%s%+v\nwant tcp %q, tls %q, cause with %q", r, r.Connections, tt.tcp, tt.tls, tt.cause)
			}
			if b, err := json.Marshal(r); err != nil || strings.Contains(string(b), "null") {
				t.Errorf("JSON of the report: %s, %v", b, err)
			}
			if lines := strings.Split(r.String(), "\n"); !strings.HasPrefix(lines[len(lines)-2], "cause: ") {
				t.Errorf("the last line is not the cause:\n%s", r)
			}
		})
	}
	t.Run("state cannot be read", func(t *testing.T) {
		r := Check(t.Context(), &fakeKernel{broken: context.DeadlineExceeded}, target(server.Listener.Addr(), nil))
		compare(t, "report", r.String(), "cause: the state of the network cannot be read: context deadline exceeded\n")
	})
}
