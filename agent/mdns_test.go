// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ironhand/ironhand/netconfig"
)

func dnsName(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }

// answerOf makes an answer to question 7 of resources, which are in both sections in turn.
func answerOf(t testing.TB, resources ...dnsmessage.Resource) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true, Authoritative: true}}
	for i, r := range resources {
		if i == 0 {
			m.Answers = append(m.Answers, r)
		} else {
			m.Additionals = append(m.Additionals, r)
		}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func resource(name string, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsName(name), Class: dnsmessage.ClassINET, TTL: 10}, Body: body}
}

func srv(target string, port uint16) dnsmessage.Resource {
	return resource(mdnsService, &dnsmessage.SRVResource{Target: dnsName(target), Port: port})
}

func txt(texts ...string) dnsmessage.Resource {
	return resource(mdnsService, &dnsmessage.TXTResource{TXT: texts})
}

func address(host, ip string) dnsmessage.Resource {
	if a := netip.MustParseAddr(ip); a.Is6() {
		return resource(host, &dnsmessage.AAAAResource{AAAA: a.As16()})
	}
	return resource(host, &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()})
}

// What is announced becomes options; the routes of this machine lead to 192.0.2.0/24 and 2001:db8::/32.
func TestServiceOptions(t *testing.T) {
	routed := func(ip netip.Addr) bool {
		return netip.MustParsePrefix("192.0.2.0/24").Contains(ip) || netip.MustParsePrefix("2001:db8::/32").Contains(ip)
	}
	expired := address("c.local.", "192.0.2.66")
	expired.Header.TTL = 0
	chaos := address("c.local.", "192.0.2.67")
	chaos.Header.Class = dnsmessage.ClassCHAOS
	flush := address("c.local.", "192.0.2.1")
	flush.Header.Class |= 0x8000
	tests := []struct {
		name    string
		allowed []string
		answer  []dnsmessage.Resource
		want    string // options, or the start of an error
		refused string
	}{
		{"address", nil, []dnsmessage.Resource{srv("c.local.", 6385), txt(), address("c.local.", "192.0.2.1")}, "api_url=https://192.0.2.1:6385", ""},
		{"cache flush bit, capital letters", nil, []dnsmessage.Resource{srv("C.Local.", 6385), txt("PATH=/x"), flush}, "api_url=https://192.0.2.1:6385/x", ""},
		{"IPv6", nil, []dnsmessage.Resource{srv("c.local.", 6385), txt(), address("c.local.", "2001:db8::1")}, "api_url=https://[2001:db8::1]:6385", ""},
		{"path and protocol", nil, []dnsmessage.Resource{srv("c.local.", 6385), txt("path=/baremetal", "protocol=http"), address("c.local.", "192.0.2.1")}, "api_url=http://192.0.2.1:6385/baremetal", ""},
		{"port 80", nil, []dnsmessage.Resource{srv("c.local.", 80), txt("path="), address("c.local.", "192.0.2.1")}, "api_url=http://192.0.2.1:80", ""},
		{"port 80 with TLS", nil, []dnsmessage.Resource{srv("c.local.", 80), txt("protocol=https"), address("c.local.", "192.0.2.1")}, "api_url=https://192.0.2.1:80", ""},
		{"real name", nil, []dnsmessage.Resource{srv("ironic.example.com.", 443), txt(), address("ironic.example.com.", "192.0.2.1")}, "api_url=https://ironic.example.com:443", ""},
		{"real name without address", nil, []dnsmessage.Resource{srv("ironic.example.com.", 443), txt()}, "api_url=https://ironic.example.com:443", ""},
		{"first address with a route", nil, []dnsmessage.Resource{srv("c.local.", 6385), txt(), address("c.local.", "127.0.0.1"), address("c.local.", "198.51.100.1"), address("c.local.", "192.0.2.2"), address("c.local.", "192.0.2.3")},
			"api_url=https://192.0.2.2:6385", ""},
		{"none with a route: the first", nil, []dnsmessage.Resource{srv("c.local.", 6385), txt(), address("c.local.", "::1"), address("c.local.", "198.51.100.1"), address("c.local.", "198.51.100.2")}, "api_url=https://198.51.100.1:6385", ""},
		{"link-local", nil, []dnsmessage.Resource{srv("c.local.", 6385), txt(), address("c.local.", "fe80::1")}, "api_url=https://[fe80::1%25eth0]:6385", ""},
		{"other services and hosts", nil, []dnsmessage.Resource{address("d.local.", "192.0.2.9"), resource("x._http._tcp.local.", &dnsmessage.SRVResource{Target: dnsName("d.local."), Port: 1}),
			resource(mdnsService, &dnsmessage.PTRResource{PTR: dnsName("y.local.")}), srv("c.local.", 6385), txt(), address("c.local.", "192.0.2.1")}, "api_url=https://192.0.2.1:6385", ""},
		{"goodbye, other class", nil, []dnsmessage.Resource{srv("c.local.", 6385), txt(), expired, chaos, address("c.local.", "192.0.2.1")}, "api_url=https://192.0.2.1:6385", ""},
		{"the first of two counts", nil, []dnsmessage.Resource{srv("c.local.", 1), srv("d.local.", 2), txt("path=/1", "path=/2"), txt("path=/3"), address("c.local.", "192.0.2.1")}, "api_url=https://192.0.2.1:1/1", ""},
		{"options", []string{"ntp_server", "inspection_callback_url"}, []dnsmessage.Resource{srv("c.local.", 6385), txt("ipa_ntp_server=192.0.2.9", "ipa_insecure=1", "ipa_inspection_callback_url=https://x/y=z", "other=1"), address("c.local.", "192.0.2.1")},
			"api_url=https://192.0.2.1:6385 inspection_callback_url=https://x/y=z ntp_server=192.0.2.9", "insecure"},
		{"the URL is no option of them", []string{"api_url"}, []dnsmessage.Resource{srv("c.local.", 6385), txt("ipa_api_url=https://evil"), address("c.local.", "192.0.2.1")}, "api_url=https://192.0.2.1:6385", "api_url"},
		{"no address", nil, []dnsmessage.Resource{srv("c.local.", 6385), txt(), address("c.local.", "127.0.0.1")}, "c.local has no address", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &service{name: mdnsService}
			if err := s.add(answerOf(t, test.answer...), 7, "eth0"); err != nil {
				t.Fatal(err)
			}
			if got, want := s.complete(), strings.HasPrefix(test.want, "api_url="); got != want {
				t.Errorf("complete() = %v, want %v", got, want)
			}
			options, refused, err := s.options(test.allowed, routed)
			var texts []string
			for _, name := range slices.Sorted(maps.Keys(options)) {
				texts = append(texts, name+"="+options[name])
			}
			got := strings.Join(texts, " ")
			if err != nil {
				got = err.Error()
			}
			if got != test.want || strings.Join(refused, " ") != test.refused {
				t.Errorf("options() = %s, refused %q\nwant %s, %q", got, refused, test.want, test.refused)
			}
		})
	}
}

func TestUnproven(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options map[string]string
		want    string
	}{
		{"API", map[string]string{"api_url": "http://192.0.2.66:6385/x"}, "http://192.0.2.66:6385"},
		{"capital letters", map[string]string{"api_url": "HTTP://192.0.2.66"}, "http://192.0.2.66"},
		{"inspection, the second", map[string]string{"api_url": "https://192.0.2.1", "inspection_callback_url": "https://a/, http://user:secret@b/?secret"}, "http://b"},
		{"https", map[string]string{"api_url": "https://192.0.2.1", "ntp_server": "http://x"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := unproven(tt.options); got != tt.want {
				t.Errorf("unproven(%v) = %q, want %q", tt.options, got, tt.want)
			}
		})
	}
}

// Of packets that are no answer to our question nothing is taken.
func TestServiceRefuses(t *testing.T) {
	good := answerOf(t, srv("c.local.", 6385), txt(), address("c.local.", "192.0.2.1"))
	changed := func(at int, to byte) []byte {
		b := slices.Clone(good)
		b[at] = to
		return b
	}
	many := make([]dnsmessage.Resource, mdnsRecords+1)
	for i := range many {
		many[i] = address("d.local.", "192.0.2.1")
	}
	tests := []struct {
		name   string
		packet []byte
		want   string
	}{
		{"nothing", nil, "unpacking header"},
		{"half of it", good[:len(good)-3], "insufficient data"},
		{"another question's", changed(1, 8), "no answer to our question"},
		{"a question", changed(2, 0), "no answer to our question"},
		{"an error", changed(3, 3), "no answer to our question"},
		{"more questions than there are", changed(5, 9), ""},
		{"many records", answerOf(t, many...), "more than 100 records"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &service{name: mdnsService}
			if err := s.add(test.packet, 7, "eth0"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("add() = %v, want %q", err, test.want)
			}
			if s.complete() {
				t.Errorf("it is taken for an answer: %+v", s)
			}
		})
	}
}

// The question is for the service, and then for its host too.
func TestServiceQuestion(t *testing.T) {
	s := &service{name: mdnsService}
	for _, want := range []string{
		"TypeSRV " + mdnsService + ", TypeTXT " + mdnsService,
		"TypeSRV " + mdnsService + ", TypeTXT " + mdnsService + ", TypeA c.local., TypeAAAA c.local.",
	} {
		b, err := s.question(7)
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, q := range m.Questions {
			got = append(got, q.Type.String()+" "+q.Name.String())
		}
		if strings.Join(got, ", ") != want || m.ID != 7 {
			t.Errorf("question %d: %s, want %s", m.ID, strings.Join(got, ", "), want)
		}
		if err := s.add(answerOf(t, srv("c.local.", 6385)), 7, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMDNSLinks(t *testing.T) {
	nic := func(name string, up, carrier bool, addresses ...string) netconfig.NIC {
		n := netconfig.NIC{Name: name, Up: up, Carrier: carrier}
		for _, a := range addresses {
			n.Addresses = append(n.Addresses, netconfig.Address{Prefix: netip.MustParsePrefix(a)})
		}
		return n
	}
	loop := nic("lo", true, true, "127.0.0.1/8")
	loop.Loopback = true
	early := nic("eth3", true, true, "fe80::3/64")
	early.Addresses[0].Tentative = true
	state := netconfig.State{NICs: []netconfig.NIC{loop,
		nic("eth0", true, true, "192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64", "fe80::10/64"),
		nic("eth1", true, true, "198.51.100.10/24"), nic("eth2", true, false, "203.0.113.10/24"), early}}
	for _, test := range []struct {
		only []netip.Addr
		want string
	}{
		{nil, "eth0 192.0.2.10, eth0 fe80::10%eth0, eth1 198.51.100.10"},
		{[]netip.Addr{netip.MustParseAddr("2001:db8::10")}, "eth0 192.0.2.10, eth0 fe80::10%eth0"},
		{[]netip.Addr{netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("203.0.113.10")}, "eth1 198.51.100.10"},
		{[]netip.Addr{netip.MustParseAddr("192.0.2.99")}, ""},
	} {
		var got []string
		links := mdnsLinks(state, test.only)
		for _, l := range links {
			got = append(got, l.nic+" "+l.from.String())
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("links of %v = %s, want %s", test.only, strings.Join(got, ", "), test.want)
		}
	}
	l := mdnsLinks(state, nil)[0]
	for ip, want := range map[string]bool{"192.0.2.1": true, "::ffff:192.0.2.1": true, "198.51.100.1": false, "fe80::1%eth0": true, "2001:db8::5": true, "2001:db8:1::5": false} {
		if got := l.near(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s is on the link: %v, want %v", ip, got, want)
		}
	}
}

// What comes from elsewhere than the link is not looked at.
func TestMDNSReadsTheLinkOnly(t *testing.T) {
	for network, want := range map[string]bool{"127.0.0.0/8": true, "192.0.2.0/24": false} {
		t.Run(network, func(t *testing.T) {
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan heard, 1)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				mdnsLink{nic: "eth0", networks: []netip.Prefix{netip.MustParsePrefix(network)}}.read(t.Context(), conn, got)
			}()
			from, err := net.Dial("udp4", conn.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			if _, err := from.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			patience := 200 * time.Millisecond // the loopback device delivers at once
			if want {
				patience = 20 * time.Second // on a busy machine the reader does not read at once
			}
			select {
			case <-got:
				if !want {
					t.Error("it is taken")
				}
			case <-time.After(patience):
				if want {
					t.Error("it is not taken")
				}
			}
			conn.Close()
			<-ended
		})
	}
}

func FuzzService(f *testing.F) {
	f.Add(answerOf(f, srv("c.local.", 6385), txt("path=/x", "ipa_ntp_server=192.0.2.1"), address("c.local.", "192.0.2.1"), address("c.local.", "fe80::1")))
	f.Add(answerOf(f, srv("ironic.example.com.", 80), txt("=", "", "ipa_=x", "protocol=\x00")))
	f.Add([]byte("\x00\x07\x84\x00\x00\x00\x00\x01\x00\x00\x00\x00\xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x01\x00\x07\x00\x00\x00\x00\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &service{name: mdnsService}
		_ = s.add(b, 7, "eth0")
		_ = s.add(b, 7, "eth1")
		if _, err := s.question(7); err != nil {
			t.Errorf("no question after %q: %v", b, err)
		}
		count := len(s.texts)
		for _, all := range s.addresses {
			count += len(all)
		}
		if count > 2*mdnsTexts {
			t.Errorf("%d things are kept", count)
		}
		options, _, err := s.options([]string{"ntp_server"}, func(ip netip.Addr) bool { return ip.Is4() })
		if err != nil {
			return
		}
		if len(fmt.Sprint(options)) > 2000 {
			t.Errorf("options of %d bytes", len(fmt.Sprint(options)))
		}
		c, err := ParseConfig(Sources{Ramdisk: ramdisk(""), Discovered: options})
		if err == nil && len(c.APIURLs) == 0 {
			t.Errorf("no URL, and no error, from %q", options)
		}
	})
}
