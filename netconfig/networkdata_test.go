// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The machine that the samples meet: a driver's stray bond, of which nothing may
// be used, and a NIC that hides behind another address but for its permanent one.
func machine() State {
	options := map[Option]int{IPv6Off: 0, AcceptRA: 1, SkipDead4: 0, SkipDead6: 0, ARPIgnore: 0, ARPAnnounce: 0}
	return State{NICs: []NIC{
		{Index: 1, Name: "lo", Kind: "device", Loopback: true, MTU: 65536, Options: options},
		{Index: 2, Name: "eth0", Kind: "device", Driver: "e1000e", MAC: "52:54:00:aa:bb:01", PermanentMAC: "52:54:00:aa:bb:01", MTU: 1500, Options: options},
		{Index: 3, Name: "eth1", Kind: "device", Driver: "ixgbe", MAC: "02:00:00:00:00:01", PermanentMAC: "52:54:00:aa:bb:02", MTU: 1500, Options: options},
		{Index: 4, Name: "eth2", Kind: "veth", MAC: "52:54:00:aa:bb:03", MTU: 1500, Options: options},
		{Index: 5, Name: "bond0", Kind: "bond", MAC: "52:54:00:aa:bb:01", MTU: 1500, Options: options},
	}}
}

// Each sample gives a plan, errors, and changes to the machine; making them gives
// a machine on which nothing is left to do.
func TestSamples(t *testing.T) {
	samples, err := filepath.Glob("testdata/networkdata/*.json")
	if err != nil || len(samples) == 0 {
		t.Fatalf("samples: %v, %v", samples, err)
	}
	for _, path := range samples {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			section := func(title string, content any, err error) {
				fmt.Fprintf(&text, "== %s ==\n%s", title, content)
				if err != nil {
					fmt.Fprintf(&text, "-- errors --\n%s\n", err)
				}
				text.WriteByte('\n')
			}
			plan, err := ParseNetworkData(b)
			section("plan", plan, err)
			k := &fakeKernel{state: machine()}
			changes, err := plan.Changes(k.state)
			section("changes", lines(changes), err)
			for _, c := range changes {
				if err := k.Do(t.Context(), c); err != nil {
					t.Errorf("%s: %v", c, err)
				}
			}
			section("machine", k.String(), nil)
			again, againErr := plan.Changes(k.state)
			if len(again) > 0 {
				t.Errorf("changes when all are made:\n%s", lines(again))
			}
			if fmt.Sprint(againErr == nil) != fmt.Sprint(err == nil) {
				t.Errorf("errors when all changes are made: %v, before: %v", againErr, err)
			}
			golden(t, strings.TrimSuffix(path, ".json")+".golden", text.String())
		})
	}
}

// Each sample is applied to the machine that each other one has left: what the first made and the second does not
// want is gone, and nothing is left to do.
func TestSamplesAfterEachOther(t *testing.T) {
	samples, err := filepath.Glob("testdata/networkdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	plans := map[string]Plan{"nothing": {}}
	for _, path := range samples {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		plans[filepath.Base(path)], _ = ParseNetworkData(b)
	}
	for first := range plans {
		for second := range plans {
			t.Run(first+" "+second, func(t *testing.T) {
				k := &fakeKernel{state: machine()}
				for _, name := range []string{first, second} {
					changes, _ := plans[name].Changes(k.state)
					for _, c := range changes {
						if err := k.Do(t.Context(), c); err != nil {
							t.Errorf("%s: %s: %v", name, c, err)
						}
					}
					if again, _ := plans[name].Changes(k.state); len(again) > 0 {
						t.Errorf("%s: changes when all are made:\n%s", name, lines(again))
					}
				}
				for _, n := range k.state.NICs {
					wanted := slices.ContainsFunc(plans[second].Links, func(l Link) bool { return n.Alias == mark(l.ID) })
					if n.Alias != "" && !wanted {
						t.Errorf("%s (%s) is left over", n.Name, n.Alias)
					}
				}
				if bond := k.nic("bond0"); bond.Up || bond.Alias != "" {
					t.Error("the driver's bond was used")
				}
			})
		}
	}
}

func lines[T fmt.Stringer](values []T) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(v.String() + "\n")
	}
	return b.String()
}

// golden compares text with a file, line by line.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, path, got, string(b))
}

func compare(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		line := func(s []string) string {
			if i < len(s) {
				return s[i]
			}
			return "(end)"
		}
		if line(g) != line(w) {
			t.Errorf("%s, line %d:\n got %s\nwant %s\nall of it:\n%s", what, i+1, line(g), line(w), got)
			return
		}
	}
}

// All kinds of links that are not made of others mean a NIC.
func TestLinkKinds(t *testing.T) {
	for _, kind := range []string{"bridge", "dvs", "hw_veb", "hyperv", "ovs", "tap", "vhostuser", "vif", "phy"} {
		plan, err := ParseNetworkData([]byte(`{"links":[{"id":"a","type":"` + kind + `","ethernet_mac_address":"52-54-00-AA-BB-01","mtu":null}],"networks":[{"type":"ipv6_dhcpv6-stateless","link":"a"}]}`))
		if want := "link a: physical, mac 52:54:00:aa:bb:01, dhcpv6-stateless\n"; err != nil || plan.String() != want {
			t.Errorf("%s: ParseNetworkData() = %s, %v, want %s", kind, plan, err, want)
		}
	}
}

func TestParseNetworkData(t *testing.T) {
	const phy = `"links":[{"id":"a","type":"phy","ethernet_mac_address":"52:54:00:aa:bb:01"}]`
	many := strings.TrimSuffix(strings.Repeat(`{},`, itemsMost+1), ",")
	tests := []struct {
		name, json string
		plan       string
		err        string // all of it; "" if there must be none
	}{
		{"least", `{"links":[],"networks":[]}`, "", ""},
		{"byte order mark", "\ufeff" + `{"links":[],"networks":[],"services":null}`, "", ""},
		{"link without network", `{` + phy + `,"networks":[]}`, "link a: physical, mac 52:54:00:aa:bb:01\n", ""},
		{"InfiniBand", `{"links":[{"id":"ib","type":"phy","ethernet_mac_address":"80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1"}],"networks":[]}`,
			"link ib: physical, mac 80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1\n", ""},
		{"gateway of the network", `{` + phy + `,"networks":[{"type":"ipv4","link":"a","ip_address":"192.0.2.2/24","gateway":"192.0.2.1"}]}`,
			"link a: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.2/24\n  route default via 192.0.2.1\n", ""},
		{"gateway of the network is there already", `{` + phy + `,"networks":[{"type":"ipv4","link":"a","ip_address":"192.0.2.2/24","gateway":"192.0.2.3",
			"routes":[{"network":"0.0.0.0","netmask":"0","gateway":"192.0.2.1"}]}]}`,
			"link a: physical, mac 52:54:00:aa:bb:01\n  address 192.0.2.2/24\n  route default via 192.0.2.1\n", ""},

		{"nothing", "", "", "empty, want a JSON object"},
		{"white space", " \n", "", "empty, want a JSON object"},
		{"null", "null", "", "not a JSON object"},
		{"array", "[]", "", "not a JSON object"},
		{"cut", "{\n \"links\": [\n", "", "line 2, column 12: unexpected end of JSON input"},
		{"comma", "{\n \"links\": [1,],\n}", "", "line 2, column 14: invalid character ']' looking for beginning of value"},
		{"binary", "\x00\x01", "", "line 1, column 1: invalid character '\\x00' looking for beginning of value"},
		{"too large", strings.Repeat(" ", networkDataMost+1), "", "1048577 bytes, want 1048576 at most"},
		{"too many", `{"links":[` + many + `],"networks":[]}`, "",
			"links: 1001 elements, want 1000 at most\n" + hundred("links[%d].id: missing\nlinks[%d].type: missing\nlinks[%d].ethernet_mac_address: missing\n") + "and 2901 errors more"},
		{"no arrays", `{}`, "", "links: missing\nnetworks: missing"},
		{"wrong types", `{"links":{},"networks":5,"services":"x"}`, "", "links: not an array\nnetworks: not an array\nservices: not an array"},
		{"long id", `{"links":[{"id":"` + strings.Repeat("a", 300) + `","type":"phy","ethernet_mac_address":"52:54:00:aa:bb:01"}],"networks":[]}`, "",
			"links[0].id: 300 bytes, want 240 at most"},
		{"escape sequence", `{"links":[{"id":"a","type":"\u001b[2J","ethernet_mac_address":"52:54:00:aa:bb:01"}],"networks":[]}`, "",
			`links[0].type: "\x1b[2J" is not a kind of link`},
		{"MAC in three parts", `{"links":[{"id":"a","type":"phy","ethernet_mac_address":"5254.00aa.bb01"}],"networks":[]}`, "",
			`links[0].ethernet_mac_address: "5254.00aa.bb01" is not a MAC address`},
		{"id with a line feed", `{"links":[{"id":"a\nb","type":"phy","ethernet_mac_address":"52:54:00:aa:bb:01"}],"networks":[]}`, "",
			`links[0].id: "a\nb" has characters that do not print`},
		{"MAC of 8 bytes", `{"links":[{"id":"a","type":"phy","ethernet_mac_address":"52:54:00:aa:bb:01:02:03"}],"networks":[]}`, "",
			`links[0].ethernet_mac_address: "52:54:00:aa:bb:01:02:03" has 8 bytes, want 6 (or 20 for InfiniBand)`},
		{"MAC of nobody", `{"links":[{"id":"a","type":"phy","ethernet_mac_address":"00:00:00:00:00:00"}],"networks":[]}`, "",
			`links[0].ethernet_mac_address: "00:00:00:00:00:00" is no NIC's address`},
		{"no link at all", `{"links":[],"networks":[{"type":"ipv4","link":"a","ip_address":"192.0.2.2/24"}]}`, "",
			`networks[0].link: no link has the id "a" (there are no links)`},
		{"network that is null", `{"links":[],"networks":[null]}`, "", "networks[0]: not an object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := ParseNetworkData([]byte(tt.json))
			compare(t, "plan", plan.String(), tt.plan)
			text := ""
			if err != nil {
				text = err.Error()
			}
			compare(t, "error", text, tt.err)
		})
	}
}

// hundred returns the first errorsMost lines but one, three for each number.
func hundred(format string) string {
	var b strings.Builder
	for i := range errorsMost {
		fmt.Fprintf(&b, format, i, i, i)
	}
	return strings.Join(strings.SplitAfter(b.String(), "\n")[:errorsMost-1], "")
}

func FuzzParseNetworkData(f *testing.F) {
	samples, err := filepath.Glob("testdata/networkdata/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range samples {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plan, err := ParseNetworkData(b)
		if err != nil {
			if !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x1b\x00\r") {
				t.Errorf("error is not fit for a console: %q", err)
			}
			if len(err.Error()) > 64<<10 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		}
		// What comes back is sound: it can be made into changes, which leave
		// nothing to do when they are made.
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
		// And what it made can be taken back.
		changes, _ = Plan{}.Changes(k.state)
		for _, c := range changes {
			if err := k.Do(t.Context(), c); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
		}
		for _, n := range k.state.NICs {
			if n.Alias != "" {
				t.Fatalf("%s is left over", n.Name)
			}
		}
	})
}

// A description as large as they may be takes no time to speak of.
func TestParseManyLinks(t *testing.T) {
	var links, networks []string
	for i := range itemsMost {
		links = append(links, fmt.Sprintf(`{"id":"%d","type":"vlan","vlan_link":"%d","vlan_id":5}`, i, i+1))
		networks = append(networks, fmt.Sprintf(`{"type":"ipv4","link":"%d","ip_address":"10.0.%d.%d/8","gateway":"10.1.1.1"}`, i, i/250, i%250+1))
	}
	links[len(links)-1] = fmt.Sprintf(`{"id":"%d","type":"phy","ethernet_mac_address":"52:54:00:aa:bb:01"}`, itemsMost-1)
	start := time.Now()
	plan, err := ParseNetworkData([]byte(`{"links":[` + strings.Join(links, ",") + `],"networks":[` + strings.Join(networks, ",") + `]}`))
	if len(plan.Links) != 1+nestMost || err == nil {
		t.Errorf("%d links, %v; want %d and errors", len(plan.Links), err, 1+nestMost)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}
