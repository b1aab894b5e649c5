// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/netconfig/netnstest"
)

// announce is what Ironic does to announce its API. Source: ironic-lib's ironic_lib/mdns.py, register_service.
const announce = `
import socket, sys, zeroconf
name, address, server, port, *texts = sys.argv[1:]
family = socket.AF_INET6 if ':' in address else socket.AF_INET
zc = zeroconf.Zeroconf(interfaces=zeroconf.InterfaceChoice.All, ip_version=zeroconf.IPVersion.All)
zc.register_service(zeroconf.ServiceInfo('_openstack._tcp.local.', name,
    addresses=[socket.inet_pton(family, address)], port=int(port), properties=dict(t.split('=', 1) for t in texts), server=server))
print('announced', flush=True)
sys.stdin.read()
`

// announceAt runs it at a peer until the test ends.
func announceAt(t *testing.T, p *netnstest.Peer, args ...string) {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", append([]string{"-c", announce}, args...)...)
	stdin, err := cmd.StdinPipe() // its end is the program's
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	p.Do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait() // what counts was said
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "announced\n" {
		t.Fatalf("announce: %v: %s", err, stderr.String())
	}
}

// awaitLinkLocal waits until the kernel knows a NIC's IPv6 address to be unique.
func awaitLinkLocal(t *testing.T, nic string, ip func(t *testing.T, args string) []byte) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out := string(ip(t, "-6 addr show scope link dev "+nic))
		if strings.Contains(out, "fe80::") && !strings.Contains(out, "tentative") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has no link-local address: %s", nic, out)
		}
	}
}

// The API that python-zeroconf, which Ironic announces it with, announces on the second of two NICs is found, by IPv4 and by IPv6 alone.
func TestRootDiscovery(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	if out, err := exec.Command("/usr/bin/python3", "-c", "import zeroconf").CombinedOutput(); err != nil {
		t.Fatalf("python3-zeroconf is needed: %v: %s", err, out)
	}
	netnstest.IP(t, "link set lo up")
	empty, peer := netnstest.NewPeer(t), netnstest.NewPeer(t)
	empty.Cable(t, "eth0", "", "far0")
	peer.Cable(t, "eth1", "", "far1")
	for _, args := range []string{"addr add 198.51.100.10/24 dev eth0", "addr add 192.0.2.10/24 dev eth1", "addr add 2001:db8::10/64 dev eth1 nodad",
		"link set eth0 up", "link set eth1 up"} {
		netnstest.IP(t, args)
	}
	peer.IP(t, "addr add 192.0.2.1/24 dev far1")
	peer.IP(t, "addr add 2001:db8::1/64 dev far1 nodad")
	k, err := netconfig.NewKernel()
	if err != nil {
		t.Fatal(err)
	}
	awaitLinkLocal(t, "eth0", netnstest.IP)
	awaitLinkLocal(t, "eth1", netnstest.IP)
	awaitLinkLocal(t, "far1", peer.IP)
	discover := func(cmdline, conf string) (*agent, string, error) {
		a, console := newTestAgent(t, System{Cmdline: cmdline, Network: func() (netconfig.Kernel, error) { return k, nil },
			Root: confFS(conf)})
		if err := a.readSettings(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := a.discoverAPI(t.Context())
		return a, console.String(), err
	}

	t.Run("nobody", func(t *testing.T) {
		start := time.Now()
		_, console, err := discover("ipa-api-url=mdns", "[mdns]\nlookup_attempts = 2\n")
		if err == nil || !strings.Contains(err.Error(), "nobody answers for baremetal._openstack._tcp.local.") {
			t.Errorf("discoverAPI() = %v", err)
		}
		if took := time.Since(start); took < 2*mdnsWait || took > 4*mdnsWait {
			t.Errorf("gave up after %v", took)
		}
		wantText(t, "console", console, "discovery: ask multicast DNS: nobody answers")
	})
	t.Run("no NIC", func(t *testing.T) {
		if _, _, err := discover("ipa-api-url=mdns", "[mdns]\ninterfaces = 192.0.2.99\nlookup_attempts = 1\n"); err == nil || !strings.Contains(err.Error(), "no NIC with link has an address") {
			t.Errorf("discoverAPI() = %v", err)
		}
	})
	t.Run("not asked for", func(t *testing.T) {
		if a, _, err := discover("ipa-api-url=https://h ipa-use-mdns=1", ""); err != nil || strings.Join(a.config.APIURLs, " ") != "https://h" {
			t.Errorf("discoverAPI() = %v, %v", a.config.APIURLs, err)
		}
	})

	announceAt(t, peer, mdnsService, "192.0.2.1", "conductor.local.", "6385", "path=/baremetal", "ipa_ntp_server=192.0.2.1", "ipa_insecure=1", "ipa_inspection_callback_url=https://192.0.2.1")
	for _, test := range []struct{ name, cmdline, conf string }{
		{"asked for by URL", "ipa-api-url=mdns", ""},
		{"asked for by option", "", "[mdns]\nuse_mdns = true\n"},
		{"on one NIC", "ipa-use-mdns=true", "[mdns]\ninterfaces = 192.0.2.10\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, console, err := discover(test.cmdline, test.conf)
			if err != nil {
				t.Fatalf("discoverAPI() = %v\n%s", err, console)
			}
			if got := strings.Join(a.config.APIURLs, " "); got != "https://192.0.2.1:6385/baremetal" || a.config.NTPServer != "192.0.2.1" || a.config.Insecure {
				t.Errorf("found %s, NTP server %s, insecure %v", got, a.config.NTPServer, a.config.Insecure)
			}
			wantText(t, "console", console, "API by multicast DNS", "WARNING: without cafile", `1 options are not in [mdns] allowed_overrides and left alone: ["insecure"]`, "discovery: API https://192.0.2.1:6385/baremetal")
			if got := strings.Join(a.config.Inspection.URLs, " "); got != "https://192.0.2.1" {
				t.Errorf("inspection data goes to %s", got)
			}
		})
	}
	announceAt(t, peer, mdnsInspection, "192.0.2.1", "inspector.local.", "5050", "path=/x/", "ipa_ntp_server=192.0.2.2")
	for _, test := range []struct{ name, cmdline, conf, url, ntp string }{
		{"who takes inspection data", "ipa-inspection-callback-url=mdns", "", "https://192.0.2.1:5050/x/v1/continue", "192.0.2.2"},
		{"both", "ipa-inspection-callback-url=mdns ipa-api-url=mdns", "[mdns]\nallowed_overrides =\n", "https://192.0.2.1:5050/x/v1/continue", ""},
		{"both, and the API says where the data goes", "ipa-inspection-callback-url=mdns ipa-api-url=mdns", "", "https://192.0.2.1", "192.0.2.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, console, err := discover(test.cmdline, test.conf)
			if got := strings.Join(a.config.Inspection.URLs, " "); err != nil || got != test.url || a.config.NTPServer != test.ntp {
				t.Errorf("discoverAPI() = %v: %q, NTP server %s, want %q, %s\n%s", err, got, a.config.NTPServer, test.url, test.ntp, console)
			}
			if api := strings.Join(a.config.APIURLs, " "); strings.Contains(test.cmdline, "api-url") != (api == "https://192.0.2.1:6385/baremetal") {
				t.Errorf("API %q", api)
			}
		})
	}
	t.Run("on the wrong NIC", func(t *testing.T) {
		if _, _, err := discover("ipa-api-url=mdns", "[mdns]\ninterfaces = 198.51.100.10\nlookup_attempts = 1\n"); err == nil {
			t.Error("discoverAPI() = nil")
		}
	})
}

// The same where there is no IPv4.
func TestRootDiscoveryIPv6(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	netnstest.IP(t, "link set lo up")
	peer := netnstest.NewPeer(t)
	peer.Cable(t, "eth0", "", "far0")
	netnstest.IP(t, "addr add 2001:db8::10/64 dev eth0 nodad")
	netnstest.IP(t, "link set eth0 up")
	peer.IP(t, "addr add 2001:db8::1/64 dev far0 nodad")
	k, err := netconfig.NewKernel()
	if err != nil {
		t.Fatal(err)
	}
	awaitLinkLocal(t, "eth0", netnstest.IP)
	awaitLinkLocal(t, "far0", peer.IP)
	announceAt(t, peer, mdnsService, "2001:db8::1", "conductor.local.", "80")
	discover := func(cmdline string) (*agent, string, error) {
		a, console := newTestAgent(t, System{Cmdline: cmdline, Network: func() (netconfig.Kernel, error) { return k, nil }, Root: confFS("")})
		if err := a.readSettings(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := a.discoverAPI(t.Context())
		return a, console.String(), err
	}
	if a, _, err := discover("ipa-api-url=mdns"); err == nil || !strings.Contains(err.Error(), "says http://[2001:db8::1]:80: anybody can answer") || len(a.config.APIURLs) > 0 {
		t.Errorf("in the clear: discoverAPI() = %v, %v", a.config.APIURLs, err)
	}
	if a, console, err := discover("ipa-api-url=mdns ipa-insecure=1"); err != nil || strings.Join(a.config.APIURLs, " ") != "http://[2001:db8::1]:80" {
		t.Errorf("discoverAPI() = %v, %v\n%s", a.config.APIURLs, err, console)
	}
}
