// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ironhand/ironhand/initramfs/media"
)

func medium(kind, device string, files map[string]string) media.Medium {
	m := media.Medium{Kind: kind, Device: device, Files: map[string][]byte{}}
	for name, text := range files {
		m.Files[name] = []byte(text)
	}
	return m
}

func TestParseConfig(t *testing.T) {
	const url = "ipa-api-url=https://h:6385"
	for _, test := range []struct {
		name    string
		ramdisk map[string]string
		media   []media.Medium
		cmdline string
		flags   map[string]string
		show    func(Config) any
		want    string
		origin  string // one of the origins
		fails   []string
	}{
		{name: "built in", show: func(c Config) any {
			return fmt.Sprintf("%v %v %v %v", c.ListenPort, c.LookupTimeout, c.Curve, c.AdvertisePort)
		}, want: "9999 10m0s p384 9999"},
		{name: "ramdisk over built in", ramdisk: map[string]string{"etc/ironhand/parameters.txt": "ipa-listen-port=1"},
			show: func(c Config) any { return c.ListenPort }, want: "1", origin: "ipa-listen-port=1 (ramdisk /etc/ironhand/parameters.txt)"},
		{name: "medium over ramdisk", ramdisk: map[string]string{"etc/ironhand/parameters.txt": "ipa-listen-port=1"},
			media: []media.Medium{medium("floppy", "/dev/fd0", map[string]string{"parameters.txt": "ipa-listen-port=2\n"})},
			show:  func(c Config) any { return c.ListenPort }, want: "2", origin: "ipa-listen-port=2 (floppy /dev/fd0 parameters.txt)"},
		{name: "first medium over the second", media: []media.Medium{
			medium("floppy", "/dev/fd0", map[string]string{"parameters.txt": "ipa-listen-port=2"}),
			medium("cd", "/dev/sr1", map[string]string{"parameters.txt": "ipa-listen-port=3 ipa-debug=1"})},
			show: func(c Config) any { return fmt.Sprint(c.ListenPort, c.Debug) }, want: "2 true"},
		{name: "kernel over medium", media: []media.Medium{medium("floppy", "/dev/fd0", map[string]string{"parameters.txt": "ipa-listen-port=2"})},
			cmdline: "quiet ipa-listen-port=4 ro", show: func(c Config) any { return c.ListenPort }, want: "4", origin: "ipa-listen-port=4 (kernel command line)"},
		{name: "flag over kernel", cmdline: "ipa-listen-port=4", flags: map[string]string{"ipa-listen-port": "5"},
			show: func(c Config) any { return c.ListenPort }, want: "5", origin: "ipa-listen-port=5 (flag)"},
		{name: "parameters over options of one medium", media: []media.Medium{medium("cd", "/dev/sr0", map[string]string{
			"parameters.txt": "ipa-lookup-timeout=7", "etc/ironic-python-agent.d/a.conf": "[DEFAULT]\nlookup_timeout = 8\nlookup_interval = 2\n"})},
			show: func(c Config) any { return fmt.Sprint(c.LookupTimeout, c.LookupInterval) }, want: "7s 2s"},
		{name: "later words win", cmdline: "ipa-listen-port=1 ipa-listen-port=2", show: func(c Config) any { return c.ListenPort }, want: "2"},
		{name: "URLs", cmdline: "ipa-api-url=https://a:1/,http://b", show: func(c Config) any { return c.APIURLs }, want: "[https://a:1 http://b]"},
		{name: "what is not ours", cmdline: "root=/dev/sda1 ipa-no-such=1 splash", show: func(c Config) any { return len(c.Origins) }, want: "0"},
		{name: "other sections of a .conf file", media: []media.Medium{medium("cd", "/dev/sr0", map[string]string{
			"etc/ironic-python-agent.d/a.conf": "[metrics]\nlisten_port = 1\n# c\n; d\n"})}, show: func(c Config) any { return c.ListenPort }, want: "9999"},
		{name: "UUID in any case", cmdline: "ironhand-node-uuid=1BE26C0B-03F2-4D2E-AE87-C02D7F33C123", show: func(c Config) any { return c.NodeUUID }, want: "1be26c0b-03f2-4d2e-ae87-c02d7f33c123"},
		{name: "token", cmdline: "ipa-agent-token=open-sesame", show: func(c Config) any { return c.Token.Reveal() + fmt.Sprint(c.Token) }, want: "open-sesame***", origin: "ipa-agent-token=*** (kernel command line)"},
		{name: "CA on the medium", media: []media.Medium{medium("floppy", "/dev/fd0", map[string]string{
			"etc/ironic-python-agent/ironic.crt": "the CA", "etc/ironic-python-agent.d/t.conf": "[DEFAULT]\ncafile = /etc/ironic-python-agent/ironic.crt\n"})},
			show: func(c Config) any { return string(c.CA) }, want: "the CA"},
		{name: "CA in the ramdisk", ramdisk: map[string]string{"etc/ssl/site.crt": "its CA"}, media: []media.Medium{medium("floppy", "/dev/fd0", map[string]string{
			"etc/ironic-python-agent.d/t.conf": "[DEFAULT]\ncafile = /etc/ssl/site.crt\n"})}, show: func(c Config) any { return string(c.CA) }, want: "its CA"},
		{name: "network data", media: []media.Medium{medium("cd", "/dev/sr1", map[string]string{"openstack/latest/network_data.json": "{}"})},
			show: func(c Config) any { return string(c.NetworkData) + " " + c.NetworkFrom }, want: "{} cd /dev/sr1 openstack/latest/network_data.json"},

		{name: "bad port", cmdline: "ipa-listen-port=70000", fails: []string{"ipa-listen-port", "70000", "kernel command line"}},
		{name: "bad boolean", cmdline: "ipa-debug=maybe", fails: []string{"ipa-debug", "true or false"}},
		{name: "bad seconds", cmdline: "ipa-lookup-timeout=-1", fails: []string{"ipa-lookup-timeout"}},
		{name: "not a number", cmdline: "ipa-lookup-interval=NaN", fails: []string{"ipa-lookup-interval"}},
		{name: "bad choice", cmdline: "ironhand-read-back=some", fails: []string{"ironhand-read-back"}},
		{name: "bad UUID", cmdline: "ironhand-node-uuid=1", fails: []string{"ironhand-node-uuid", "UUID"}},
		{name: "bad URL", cmdline: "ipa-api-url=ftp://h", fails: []string{"ipa-api-url", "http"}},
		{name: "URL with a password", cmdline: "ipa-api-url=https://me:open-sesame@h", fails: []string{"ipa-api-url"}},
		{name: "NTP server that is an option", cmdline: "ipa-ntp-server=-x", fails: []string{"ipa-ntp-server"}},
		{name: "several at once", cmdline: "ipa-listen-port=x ipa-debug=q " + url, fails: []string{"ipa-listen-port", "ipa-debug"}},
		{name: "broken .conf file", media: []media.Medium{medium("cd", "/dev/sr0", map[string]string{"etc/ironic-python-agent.d/a.conf": "[DEFAULT]\nopen-sesame\n"})},
			fails: []string{"a.conf", "line 2"}},
		{name: "CA that is not there", media: []media.Medium{medium("cd", "/dev/sr0", map[string]string{"etc/ironic-python-agent.d/a.conf": "[DEFAULT]\ncafile=/none\n"})},
			fails: []string{"cafile /none"}},
		{name: "CA outside", media: []media.Medium{medium("cd", "/dev/sr0", map[string]string{"etc/ironic-python-agent.d/a.conf": "[DEFAULT]\ncafile=../../x\n"})},
			fails: []string{"cafile"}},
		{name: "medium with broken parameters", media: []media.Medium{medium("cd", "/dev/sr0", map[string]string{"parameters.txt": "ipa-debug=1 open-sesame\n"})},
			fails: []string{"/dev/sr0", "line 1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range test.ramdisk {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			c, err := ParseConfig(Sources{Ramdisk: root, Media: test.media, Cmdline: test.cmdline, Flags: test.flags})
			shown := fmt.Sprint(err, c.Origins)
			if strings.Contains(shown, "open-sesame") {
				t.Errorf("a secret is in what is shown: %s", shown)
			}
			if test.fails != nil {
				if err == nil {
					t.Fatal("ParseConfig() succeeded")
				}
				for _, want := range test.fails {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("ParseConfig() = %v, want %q in it", err, want)
					}
				}
				return
			}
			if err != nil {
				t.Fatalf("ParseConfig() = %v", err)
			}
			if got := fmt.Sprint(test.show(c)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if test.origin != "" && !strings.Contains(shown, test.origin) {
				t.Errorf("origins %v, want %q among them", c.Origins, test.origin)
			}
		})
	}
}

// Each setting that is documented is one that can be set, from where the table says.
func TestSettingsTable(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		for _, name := range []string{s.Param, "option " + s.Option} {
			if name != "" && name != "option " && seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
		if s.Help == "" || s.Param == "" && s.Option == "" {
			t.Errorf("%+v: no name or no help", s)
		}
	}
	if _, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}}); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("ipa-api-url=https://h ipa-debug=1", "[DEFAULT]\ncafile = /x\n", "quiet ipa-listen-port=1")
	f.Add("a=b=c\x00", "[", "= ==")
	f.Add("ipa-lookup-timeout=1e300", "[DEFAULT]\n=\n", "\xff\xfe=")
	f.Fuzz(func(t *testing.T, params, ini, cmdline string) {
		start := time.Now()
		m := medium("cd", "/dev/sr0", map[string]string{"parameters.txt": params, "etc/ironic-python-agent.d/a.conf": ini})
		c, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}, Media: []media.Medium{m}, Cmdline: cmdline})
		if err == nil && (c.ListenPort < 1 || c.ListenPort > 65535 || c.LookupTimeout <= 0) {
			t.Errorf("accepted port %d, timeout %v", c.ListenPort, c.LookupTimeout)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("took %v", d)
		}
	})
}
