// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ironhand/ironhand/initramfs/media"
)

// medium is a configuration medium with parameters and pairs of a path and its content.
func medium(kind, device, parameters string, files ...string) media.Medium {
	m := media.Medium{Kind: kind, Device: device, Files: map[string][]byte{}}
	if parameters != "" {
		m.Files["parameters.txt"] = []byte(parameters)
	}
	for i := 0; i < len(files); i += 2 {
		m.Files[files[i]] = []byte(files[i+1])
	}
	return m
}

// ramdisk is "/" with these settings in its own file.
func ramdisk(parameters string) fstest.MapFS {
	return fstest.MapFS{ramdiskFile: {Data: []byte(parameters)}}
}

func TestParseConfig(t *testing.T) {
	const conf = "etc/ironic-python-agent.d/"
	tests := []struct {
		name    string
		sources Sources
		show    func(Config) any
		want    string
		origins string // all of them
	}{
		{"built in", Sources{}, func(c Config) any {
			return []any{c.ListenHost, c.ListenPort, c.AdvertisePort, c.LookupTimeout, c.RequestTimeout, c.TLSMinVersion, c.Curve,
				c.CertificateSkew, c.Stall, c.Retries, c.RetryInterval, c.DownloadLimit, c.DiskAttempts, c.DiskDelay, c.ReadBack, c.Insecure}
		}, "[:: 9999 9999 10m0s 30s 1.2 p384 1h0m0s 1m0s 9 10s 0s 10 3s sample false]", ""},
		{"ramdisk over built in", Sources{Ramdisk: ramdisk("ipa-listen-port=1\nipa-debug=yes")},
			func(c Config) any { return []any{c.ListenPort, c.Debug} }, "[1 true]",
			"ipa-debug=yes (ramdisk /etc/ironhand/parameters.txt)\nipa-listen-port=1 (ramdisk /etc/ironhand/parameters.txt)"},
		{"kernel command line over ramdisk", Sources{Ramdisk: ramdisk("ipa-listen-port=1"), Cmdline: "quiet ipa-listen-port=3 ro\n"},
			func(c Config) any { return c.ListenPort }, "3", "ipa-listen-port=3 (kernel command line)"},
		{"medium over ramdisk", Sources{Ramdisk: ramdisk("ipa-listen-port=1"), Media: []media.Medium{medium("floppy", "/dev/fd0", "ipa-listen-port=2")}},
			func(c Config) any { return c.ListenPort }, "2", "ipa-listen-port=2 (floppy /dev/fd0 parameters.txt)"},
		{"kernel command line over medium", Sources{Media: []media.Medium{medium("cd", "/dev/sr0", "ipa-listen-port=2")}, Cmdline: "quiet ipa-listen-port=3 ro\n"},
			func(c Config) any { return c.ListenPort }, "3", "ipa-listen-port=3 (kernel command line)"},
		{"kernel command line over .conf", Sources{Media: []media.Medium{medium("cd", "/dev/sr0", "", conf+"a.conf", "[DEFAULT]\nlisten_port = 5\n")}, Cmdline: "ipa-listen-port=3"},
			func(c Config) any { return c.ListenPort }, "3", "ipa-listen-port=3 (kernel command line)"},
		{"medium over .conf of the ramdisk", Sources{Ramdisk: fstest.MapFS{conf + "a.conf": {Data: []byte("[DEFAULT]\nlisten_port = 5\n")}}, Media: []media.Medium{medium("cd", "/dev/sr0", "ipa-listen-port=2")}},
			func(c Config) any { return c.ListenPort }, "2", "ipa-listen-port=2 (cd /dev/sr0 parameters.txt)"},
		{".conf of a medium over the ramdisk's", Sources{Ramdisk: fstest.MapFS{conf + "z.conf": {Data: []byte("[DEFAULT]\nlisten_port = 5\n")}},
			Media: []media.Medium{medium("cd", "/dev/sr0", "", conf+"a.conf", "[DEFAULT]\nlisten_port = 6\n")}},
			func(c Config) any { return c.ListenPort }, "6", "listen_port=6 (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)"},
		{"ipa-debug over the option", Sources{Cmdline: "ipa-debug=0", Media: []media.Medium{medium("cd", "/dev/sr0", "", conf+"a.conf", "[DEFAULT]\ndebug = true\n")}},
			func(c Config) any { return c.Debug }, "false", "ipa-debug=0 (kernel command line)"},
		{"what was found out over all", Sources{Flags: map[string]string{"ipa-ntp-server": "192.0.2.1"}, Discovered: map[string]string{"ntp_server": "192.0.2.2"}},
			func(c Config) any { return c.NTPServer }, "192.0.2.2", "ntp_server=192.0.2.2 (multicast DNS)"},
		{"flag over all", Sources{Ramdisk: ramdisk("ipa-listen-port=1"), Media: []media.Medium{medium("cd", "/dev/sr0", "ipa-listen-port=2")},
			Cmdline: "ipa-listen-port=3", Flags: map[string]string{"ipa-listen-port": "4"}},
			func(c Config) any { return c.ListenPort }, "4", "ipa-listen-port=4 (flag)"},
		{"first medium over second", Sources{Media: []media.Medium{medium("floppy", "/dev/fd0", "ipa-debug=1"), medium("cd", "/dev/sr0", "ipa-debug=0 ipa-ntp-server=192.0.2.1")}},
			func(c Config) any { return []any{c.Debug, c.NTPServer} }, "[true 192.0.2.1]",
			"ipa-debug=1 (floppy /dev/fd0 parameters.txt)\nipa-ntp-server=192.0.2.1 (cd /dev/sr0 parameters.txt)"},
		{".conf over parameters.txt", Sources{Media: []media.Medium{medium("cd", "/dev/sr0", "ipa-listen-port=2", conf+"a.conf", "[DEFAULT]\nlisten_port = 5\ndebug = true\n")}},
			func(c Config) any { return []any{c.ListenPort, c.Debug} }, "[5 true]",
			"debug=true (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)\nlisten_port=5 (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)"},
		{".conf of a weak medium over parameters.txt of a strong one", Sources{Media: []media.Medium{medium("floppy", "/dev/fd0", "ipa-listen-port=2"), medium("cd", "/dev/sr0", "", conf+"a.conf", "[DEFAULT]\nlisten_port = 5\n")}},
			func(c Config) any { return c.ListenPort }, "5", "listen_port=5 (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)"},
		{"options of other sections", Sources{Media: []media.Medium{medium("cd", "/dev/sr0", "", conf+"a.conf", "[mdns]\nuse_mdns = yes\nlookup_attempts = 5\n[other]\nlisten_port=1\n")}},
			func(c Config) any { return []any{c.UseMDNS, c.MDNSAttempts, c.ListenPort} }, "[true 5 9999]",
			"[mdns] lookup_attempts=5 (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)\n[mdns] use_mdns=yes (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)"},
		{"API by multicast DNS", Sources{Cmdline: "ipa-api-url=mdns"}, func(c Config) any { return []any{c.UseMDNS, c.APIURLs} }, "[true []]", "ipa-api-url=mdns (kernel command line)"},
		{"parameters that are empty", Sources{Cmdline: "ipa-api-url= ipa-ntp-server= ipa-advertise-host= ipa-inspection-callback-url= ipa-insecure= ipa-listen-port="}, func(c Config) any { return []any{c.APIURLs, c.ListenPort, len(c.Origins)} }, "[[] 9999 0]", ""},
		{"inspection by multicast DNS", Sources{Cmdline: "ipa-inspection-callback-url=mdns"}, func(c Config) any { return []any{c.Inspection.UseMDNS, c.Inspection.URLs} }, "[true []]", "ipa-inspection-callback-url=mdns (kernel command line)"},
		{"API by multicast DNS, but a URL is given", Sources{Cmdline: "ipa-use-mdns=1 ipa-api-url=https://h"}, func(c Config) any { return []any{c.UseMDNS, c.APIURLs} }, "[false [https://h]]",
			"ipa-api-url=https://h (kernel command line)\nipa-use-mdns=1 (kernel command line)"},
		{"API by multicast DNS, found", Sources{Cmdline: "ipa-api-url=mdns", Discovered: map[string]string{"api_url": "https://192.0.2.1:6385"}},
			func(c Config) any { return []any{c.UseMDNS, c.APIURLs} }, "[false [https://192.0.2.1:6385]]", "api_url=https://192.0.2.1:6385 (multicast DNS)"},
		{"lists", Sources{Media: []media.Medium{medium("cd", "/dev/sr0", "", conf+"a.conf", "[DEFAULT]\npermitted_image_formats = raw, ,iso\n[mdns]\ninterfaces = 192.0.2.1,2001:db8::1\nallowed_overrides =\n")}},
			func(c Config) any { return []any{c.ImageFormats, c.MDNSInterfaces, c.MDNSOverrides} }, "[[raw iso] [192.0.2.1 2001:db8::1] []]",
			"[mdns] allowed_overrides= (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)\n[mdns] interfaces=192.0.2.1,2001:db8::1 (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)\npermitted_image_formats=raw, ,iso (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)"},
		{"password is not shown", Sources{Media: []media.Medium{medium("cd", "/dev/sr0", "", conf+"a.conf", "[DEFAULT]\nimage_server_password = hush-hush\nimage_server_user = u\nimage_server_auth_strategy = HTTP_basic\n")}},
			func(c Config) any { return []any{c.ImageAuth, c.ImageUser, c.ImagePassword, c.ImagePassword.Reveal()} }, "[http_basic u *** hush-hush]",
			"image_server_auth_strategy=HTTP_basic (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)\nimage_server_password=*** (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)\nimage_server_user=u (cd /dev/sr0 etc/ironic-python-agent.d/a.conf)"},
		{"what counts on the kernel command line only", Sources{Cmdline: "boot_method=vmedia", Ramdisk: ramdisk("boot_method=a"), Media: []media.Medium{medium("cd", "/dev/sr0", "boot_method=b ironhand.shell=1 BOOTIF=c")}},
			func(c Config) any { return strings.Join(c.Ignored, "\n") }, "boot_method (ramdisk /etc/ironhand/parameters.txt) has no effect: it counts on the kernel command line only\n" +
				"BOOTIF (cd /dev/sr0 parameters.txt) has no effect: it counts on the kernel command line only\n" +
				"boot_method (cd /dev/sr0 parameters.txt) has no effect: it counts on the kernel command line only\n" +
				"ironhand.shell (cd /dev/sr0 parameters.txt) has no effect: it counts on the kernel command line only", "boot_method=vmedia (kernel command line)"},
		{"what has no effect here", Sources{Cmdline: "ipa-agent-token-required=1", Media: []media.Medium{medium("cd", "/dev/sr0", "", conf+"a.conf", "[metrics]\nbackend = statsd\n[DEFAULT]\nlog_file=/x\n")}},
			func(c Config) any { return strings.Join(c.Ignored, "\n") }, "[metrics] backend (cd /dev/sr0 etc/ironic-python-agent.d/a.conf) has no effect: no metrics are sent\n" +
				"log_file (cd /dev/sr0 etc/ironic-python-agent.d/a.conf) has no effect: the log goes to the consoles and to /run/ironhand/log, whose size is limited, and the conductor can collect it\n" +
				"ipa-agent-token-required (kernel command line) has no effect: a token is always required", ""},
		{"a setting that there is not", Sources{Cmdline: "ironhand-read-bakc=full quiet ipa-debgu=1 ipa.debug=1"},
			func(c Config) any { return strings.Join(c.Ignored, "\n") }, "ipa-debgu (kernel command line) has no effect: there is no such setting\n" +
				"ironhand-read-bakc (kernel command line) has no effect: there is no such setting", ""},
		{"later .conf over earlier, others not read", Sources{Media: []media.Medium{medium("cd", "/dev/sr0", "",
			conf+"a.conf", "[DEFAULT]\nlisten_port=1\n", conf+"b.conf", "[DEFAULT]\nlisten_port=2\n", conf+"c.txt", "[DEFAULT]\nlisten_port=3\n", conf+"d/e.conf", "[DEFAULT]\nlisten_port=4\n")}},
			func(c Config) any { return c.ListenPort }, "2", "listen_port=2 (cd /dev/sr0 etc/ironic-python-agent.d/b.conf)"},
		{"option names are none of parameters, nor the reverse", Sources{Cmdline: "listen_port=1 cafile=/x", Media: []media.Medium{medium("cd", "/dev/sr0", "", conf+"a.conf", "[DEFAULT]\nipa-listen-port=2\n")}},
			func(c Config) any { return []any{c.ListenPort, c.CAFile} }, "[9999 ]", ""},
		{"later word over earlier", Sources{Cmdline: "ipa-listen-port=1 ipa-listen-port=2"}, func(c Config) any { return c.ListenPort }, "2", "ipa-listen-port=2 (kernel command line)"},
		{"of other programs", Sources{Cmdline: "console=ttyS0 ipa-unheard-of=1 ro"}, func(c Config) any { return c.ListenPort }, "9999", ""},
		{"advertised port follows the one listened on", Sources{Cmdline: "ipa-listen-port=8888"}, func(c Config) any { return c.AdvertisePort }, "8888", "ipa-listen-port=8888 (kernel command line)"},
		{"advertised port of its own", Sources{Cmdline: "ipa-listen-port=8888 ipa-advertise-port=99"}, func(c Config) any { return c.AdvertisePort }, "99",
			"ipa-advertise-port=99 (kernel command line)\nipa-listen-port=8888 (kernel command line)"},
		{"several URLs", Sources{Cmdline: "ipa-api-url=https://[2001:db8::1]:6385/,http://ironic/baremetal/"}, func(c Config) any { return c.APIURLs },
			"[https://[2001:db8::1]:6385 http://ironic/baremetal]", "ipa-api-url=https://[2001:db8::1]:6385/,http://ironic/baremetal/ (kernel command line)"},
		{"token is not shown", Sources{Cmdline: "ipa-agent-token=hush-hush"}, func(c Config) any { return c.Token.Reveal() }, "hush-hush", "ipa-agent-token=*** (kernel command line)"},
		{"UUID", Sources{Cmdline: "ironhand-node-uuid=1BE26C0B-03F2-4D2E-AE87-C02D7F33C123"}, func(c Config) any { return c.NodeUUID }, "1be26c0b-03f2-4d2e-ae87-c02d7f33c123",
			"ironhand-node-uuid=1BE26C0B-03F2-4D2E-AE87-C02D7F33C123 (kernel command line)"},
		{"fractions of seconds", Sources{Cmdline: "ipa-disk-wait-delay=0.5"}, func(c Config) any { return c.DiskDelay }, "500ms", "ipa-disk-wait-delay=0.5 (kernel command line)"},
		{"network data of the first medium", Sources{Media: []media.Medium{medium("floppy", "/dev/fd0", "x=y"),
			medium("usb", "/dev/sda", "", networkDataFile, "one"), medium("cd", "/dev/sr0", "", networkDataFile, "two")}},
			func(c Config) any { return string(c.NetworkData) + " of " + c.NetworkFrom }, "one of usb /dev/sda " + networkDataFile, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.sources.Ramdisk == nil {
				test.sources.Ramdisk = fstest.MapFS{}
			}
			c, err := ParseConfig(test.sources)
			if err != nil {
				t.Fatalf("ParseConfig() = %v", err)
			}
			if got := fmt.Sprint(test.show(c)); got != test.want {
				t.Errorf("values = %s, want %s", got, test.want)
			}
			var origins []string
			for _, o := range c.Origins {
				origins = append(origins, o.String())
			}
			slices.Sort(origins)
			if got := strings.Join(origins, "\n"); got != test.origins {
				t.Errorf("origins\n%s\nwant\n%s", got, test.origins)
			}
		})
	}
}

func TestParseConfigRefuses(t *testing.T) {
	tests := []struct{ name, cmdline, want string }{
		{"port", "ipa-listen-port=70000", "ipa-listen-port=70000 from kernel command line: must be a port from 1 to 65535"},
		{"port 0", "ipa-advertise-port=0", "ipa-advertise-port=0 from kernel command line: must be a port from 1 to 65535"},
		{"number", "ipa-disk-wait-attempts=-1", "ipa-disk-wait-attempts=-1 from kernel command line: must be a number from 0 to 1000000"},
		{"seconds", "ipa-disk-wait-delay=NaN", "ipa-disk-wait-delay=NaN from kernel command line: must be a number of seconds"},
		{"seconds without end", "ipa-disk-wait-delay=1e300", "must be a number of seconds"},
		{"seconds of 0", "ipa-http-request-timeout=0", "ipa-http-request-timeout=0 from kernel command line: must be a number of seconds, and not 0"},
		{"boolean", "ipa-insecure=maybe", "ipa-insecure=maybe from kernel command line: must be true or false"},
		{"curve", "ipa-tls-certificate-curve=p224", "must be one of p256, p384, p521"},
		{"TLS", "ipa-tls-min-version=1.1", "must be one of 1.2, 1.3"},
		{"read back", "ironhand-read-back=some", "ironhand-read-back=some from kernel command line"},
		{"UUID", "ironhand-node-uuid=n1", "must be a UUID"},
		{"NTP server that looks like an option", "ipa-ntp-server=-q", "ipa-ntp-server=-q from kernel command line: must be a host name or an address"},
		{"advertised host", "ipa-advertise-host=a/b", "ipa-advertise-host=a/b from kernel command line: must be a host name or an address"},
		{"no URL", "ipa-api-url=,", "ipa-api-url=, from kernel command line: must be URLs"},
		{"multicast DNS and a URL", "ipa-api-url=mdns,https://h", "must be URLs that begin with http:// or https:// and name a host, or mdns"},
		{"protocol", "ipa-advertise-protocol=ftp", "must be one of http, https"},
		{"one of two URLs", "ipa-api-url=https://h,ftp://h", "must be URLs that begin with http:// or https://"},
		{"URL without host", "ipa-api-url=https://:6385", "and name a host"},
		{"URL with query", "ipa-api-url=https://h/?a=b", "must be URLs without user, query and fragment"},
		{"URL with password", "ipa-api-url=https://admin:hush-hush@h", "ipa-api-url=https://***@h from kernel command line: must be URLs without user"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}, Cmdline: test.cmdline})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("ParseConfig(%q) = %v, want %q", test.cmdline, err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Errorf("a password is in the error: %v", err)
			}
		})
	}
}

// Who has to mend a medium without seeing it wants to know all that is wrong at once.
func TestParseConfigNamesAllThatIsWrong(t *testing.T) {
	_, err := ParseConfig(Sources{
		Ramdisk: ramdisk("ipa-listen-port=a"),
		Media: []media.Medium{medium("floppy", "/dev/fd0", "ipa-debug=b",
			"etc/ironic-python-agent.d/x.conf", "[DEFAULT]\nagent_token = hush-hush\nhush-hush\n",
			"etc/ironic-python-agent.d/y.conf", "[DEFAULT]\nlookup_timeout = c\ncafile = /nowhere\n"),
			medium("cd", "/dev/sr0", "ipa-agent-token=hush-hush hush-hush")},
		Cmdline: "ipa-listen-port=d",
		Flags:   map[string]string{"ipa-advertise-port": "e"},
	})
	if err == nil {
		t.Fatal("ParseConfig() = nil")
	}
	const want = `ipa-listen-port=a from ramdisk /etc/ironhand/parameters.txt: must be a port from 1 to 65535
cd /dev/sr0: parameters.txt line 1: a word without "="; values have no white space
ipa-debug=b from floppy /dev/fd0 parameters.txt: must be true or false
floppy /dev/fd0 etc/ironic-python-agent.d/x.conf: line 3: neither a section nor name = value
lookup_timeout=c from floppy /dev/fd0 etc/ironic-python-agent.d/y.conf: must be a number of seconds, and not 0
ipa-listen-port=d from kernel command line: must be a port from 1 to 65535
ipa-advertise-port=e from flag: must be a port from 1 to 65535
cafile /nowhere: neither on a configuration medium nor in the ramdisk: open nowhere: file does not exist`
	if err.Error() != want {
		t.Errorf("ParseConfig() =\n%v\nwant\n%s", err, want)
	}
}

func TestParseConfigCA(t *testing.T) {
	const conf, name = "etc/ironic-python-agent.d/tls.conf", "etc/ironic-python-agent/ironic.crt"
	authority := newAuthority(t, "site").pem
	big := fstest.MapFS{name: {Data: make([]byte, maxCA+1)}}
	tests := []struct {
		name    string
		ramdisk fs.FS
		medium  []string // files
		wantErr string   // of either ParseConfig or trust
		given   bool
	}{
		{"none: the ramdisk's own", fstest.MapFS{}, nil, "", false},
		{"on the medium", fstest.MapFS{}, []string{conf, "[DEFAULT]\ncafile = /" + name, name, authority}, "", true},
		{"in the ramdisk", fstest.MapFS{name: {Data: []byte(authority)}}, []string{conf, "[DEFAULT]\ncafile = /etc/../" + name}, "", true},
		{"medium over ramdisk", fstest.MapFS{name: {Data: []byte("garbage")}}, []string{conf, "[DEFAULT]\ncafile = /" + name, name, authority}, "", true},
		{"nowhere", fstest.MapFS{}, []string{conf, "[DEFAULT]\ncafile = /" + name}, "neither on a configuration medium nor in the ramdisk", false},
		{"above the root", fstest.MapFS{}, []string{conf, "[DEFAULT]\ncafile = ../secret"}, "neither on a configuration medium nor in the ramdisk", false},
		{"not PEM", fstest.MapFS{}, []string{conf, "[DEFAULT]\ncafile = /" + name, name, "hello"}, "no certificate in it", false},
		{"empty", fstest.MapFS{}, []string{conf, "[DEFAULT]\ncafile = /" + name, name, ""}, "no certificate in it", false},
		{"PEM of something else", fstest.MapFS{}, []string{conf, "[DEFAULT]\ncafile = /" + name, name, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
			"cafile /" + name + ": no certificate in it", false},
		{"directory", fstest.MapFS{name + "/x": {}}, []string{conf, "[DEFAULT]\ncafile = /" + name}, "not a file of at most", false},
		{"device", fstest.MapFS{name: {Mode: fs.ModeDevice | fs.ModeCharDevice}}, []string{conf, "[DEFAULT]\ncafile = /" + name}, "not a file of at most", false},
		{"too large", big, []string{conf, "[DEFAULT]\ncafile = /" + name}, "not a file of at most", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := ParseConfig(Sources{Ramdisk: test.ramdisk, Media: []media.Medium{medium("cd", "/dev/sr0", "", test.medium...)}})
			var got trust
			if err == nil {
				got, err = c.trust()
			}
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Fatalf("error = %v, want %q", err, test.wantErr)
			}
			if got.given != test.given || (got.roots != nil) != test.given {
				t.Errorf("trust = %+v, want given %v", got, test.given)
			}
		})
	}
}

// Keys for images are files or the keys themselves; what is none is an error, and never: any image will do.
func TestParseConfigImageKeys(t *testing.T) {
	const name, key = "etc/ironhand/images.pub", "RWRsM5oL1PKk2WRAm+gTDh+DhRC63OJOJ91OHPzJCTFSt+T6eVBIzc1P"
	file := "untrusted comment: a\n" + key + "\n"
	for _, test := range []struct {
		name, value string
		ramdisk     fs.FS
		medium      []string
		keys        int
		err         string
	}{
		{"the key itself", key, fstest.MapFS{}, nil, 1, ""},
		{"in the ramdisk", "/" + name, fstest.MapFS{name: {Data: []byte(file)}}, nil, 1, ""},
		{"on the medium, and another", "/" + name + "," + key, fstest.MapFS{}, []string{name, file + key}, 3, ""},
		{"nowhere", "/" + name, fstest.MapFS{}, nil, 0, "neither on a configuration medium nor in the ramdisk"},
		{"one is nowhere", key + ",/" + name, fstest.MapFS{}, nil, 1, "neither on a configuration medium nor in the ramdisk"},
		{"no key in it", "/" + name, fstest.MapFS{name: {Data: []byte("untrusted comment: a\n")}}, nil, 0, "there is none in it"},
		{"none in the list", ",", fstest.MapFS{}, nil, 0, "there is no key in it"},
		{"left empty", "", fstest.MapFS{}, nil, 0, "there is no key in it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := ParseConfig(Sources{Cmdline: "ironhand-image-public-key=" + test.value, Ramdisk: test.ramdisk, Media: []media.Medium{medium("cd", "/dev/sr0", "", test.medium...)}})
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) || len(c.ImageKeys) != test.keys {
				t.Errorf("%d keys, %v; want %d and %q", len(c.ImageKeys), err, test.keys, test.err)
			}
		})
	}
}

func TestTrustConfig(t *testing.T) {
	for _, test := range []struct {
		cmdline  string
		min      uint16
		insecure bool
	}{
		{"", tls.VersionTLS12, false},
		{"ipa-tls-min-version=1.3", tls.VersionTLS13, false},
		{"ipa-insecure=1", tls.VersionTLS12, true},
	} {
		t.Run(test.cmdline, func(t *testing.T) {
			c, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}, Cmdline: test.cmdline})
			if err != nil {
				t.Fatal(err)
			}
			trust, err := c.trust()
			if err != nil {
				t.Fatal(err)
			}
			if got := trust.config(); got.MinVersion != test.min || got.InsecureSkipVerify != test.insecure {
				t.Errorf("least version %#x, without verification %v; want %#x, %v", got.MinVersion, got.InsecureSkipVerify, test.min, test.insecure)
			}
		})
	}
}

func TestParseINI(t *testing.T) {
	tests := []struct{ name, text, want, wantErr string }{
		{"empty", "", "map[]", ""},
		{"as the conductor writes it", "[DEFAULT]\ncafile = /etc/ironic-python-agent/ironic.crt\n", "map[cafile:/etc/ironic-python-agent/ironic.crt]", ""},
		{"comments, blank lines, CR LF", "# a\r\n\r\n; b\r\n[DEFAULT]\r\na = 1\r\n", "map[a:1]", ""},
		{"other sections", "[mdns]\nuse_mdns = 1\n[DEFAULT]\na=1\n[container]\nb=2\n", "map[[container] b:2 [mdns] use_mdns:1 a:1]", ""},
		{"later wins", "[DEFAULT]\na=1\n[x]\n[DEFAULT]\na=2\n", "map[a:2]", ""},
		{"colon", "[DEFAULT]\na: b=c\n", "map[a:b=c]", ""},
		{"quotes", "[DEFAULT]\na = \"b\"\nc = 'd'\ne = \"f'\ng = \"\n", `map[a:b c:d e:"f' g:"]`, ""},
		{"value is empty", "[DEFAULT]\na =\n", "map[a:]", ""},
		{"no section", "a = 1\n", "", "line 1: before the first section"},
		{"section without end", "[DEFAULT\n", "", "line 1: section without"},
		{"section without name", "[]\n", "", "line 1: section without"},
		{"no value", "[DEFAULT]\na\n", "", "line 2: neither"},
		{"no name", "[DEFAULT]\n= a\n", "", "line 2: neither"},
		{"value of two lines", "[DEFAULT]\na = 1\n  2\n", "", "line 3: begins with a blank"},
		{"endless line", "[DEFAULT]\na = " + strings.Repeat("x", 1<<20), "", "too long"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseINI([]byte(test.text))
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("parseINI() = %v, want %q", err, test.wantErr)
				}
				return
			}
			if err != nil || fmt.Sprint(got) != test.want {
				t.Errorf("parseINI() = %v, %v, want %s", got, err, test.want)
			}
		})
	}
}

func FuzzWords(f *testing.F) {
	f.Add("quiet ipa-api-url=https://192.0.2.1:6385 ro a=b=c =d e=\n")
	f.Add("\x00=\xff \t\v= \u00a0x=y")
	f.Fuzz(func(t *testing.T, s string) {
		got := words(s)
		var again []string
		for name, value := range got {
			if strings.ContainsAny(name, "= \n\t") || strings.ContainsAny(value, " \n\t") {
				t.Errorf("words(%q) has %q = %q", s, name, value)
			}
			again = append(again, name+"="+value)
		}
		if b := words(strings.Join(again, " ")); !maps.Equal(got, b) {
			t.Errorf("words(%q) = %q, and of these words %q", s, got, b)
		}
	})
}

func FuzzINI(f *testing.F) {
	f.Add([]byte("[DEFAULT]\ncafile = /etc/ironic-python-agent/ironic.crt\n"))
	f.Add([]byte("# x\n[a]\nb: c\n[DEFAULT]\nd = \"e\"\r\n"))
	f.Add([]byte("[DEFAULT\n a\n="))
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := parseINI(b)
		for name, value := range values {
			if err == nil && (name == "" && value == "" || strings.Contains(name+value, "\n")) {
				t.Errorf("parseINI(%q) has %q = %q", b, name, value)
			}
		}
		if err != nil && len(err.Error()) > 200 { // it does not repeat the file
			t.Errorf("parseINI(%q) = %v", b, err)
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add("ipa-api-url=https://h ipa-debug=1", "[DEFAULT]\ncafile = /x\n", "quiet ipa-listen-port=1")
	f.Add("a=b=c\x00", "[", "= ==")
	f.Add("ipa-lookup-timeout=1e300", "[DEFAULT]\n=\n", "\xff\xfe=")
	f.Fuzz(func(t *testing.T, params, ini, cmdline string) {
		m := medium("cd", "/dev/sr0", params, "etc/ironic-python-agent.d/a.conf", ini)
		c, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}, Media: []media.Medium{m}, Cmdline: cmdline})
		if err == nil && (c.ListenPort < 1 || c.ListenPort > 65535 || c.LookupTimeout <= 0 || c.RequestTimeout <= 0) {
			t.Errorf("accepted port %d, timeouts %v and %v", c.ListenPort, c.LookupTimeout, c.RequestTimeout)
		}
	})
}

// Every setting is named once, described, and takes its own default.
func TestSettings(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		name := s.Param + "/" + s.Option
		if s.Param == "" && s.Option == "" || seen[s.Param] && s.Param != "" || seen["."+s.Option] && s.Option != "" {
			t.Errorf("setting %s has no name or one that is taken", name)
		}
		seen[s.Param], seen["."+s.Option] = true, true
		if !strings.HasSuffix(s.Help, ".") {
			t.Errorf("setting %s: help %q is no sentence", name, s.Help)
		}
		if s.Secret && s.Default != "" {
			t.Errorf("setting %s: a secret that everybody knows", name)
		}
	}
	for _, u := range Unused() {
		name := u.Param + "/" + u.Option
		if u.Param == "" && u.Option == "" || seen[u.Param] && u.Param != "" || seen["."+u.Option] && u.Option != "" {
			t.Errorf("unused setting %s has no name or one that is taken", name)
		}
		seen[u.Param], seen["."+u.Option] = true, true
		if u.Reason == "" || strings.HasSuffix(u.Reason, ".") {
			t.Errorf("unused setting %s: %q does not follow \"has no effect: \"", name, u.Reason)
		}
	}
	if _, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}}); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

func TestSkewText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                          "0.0 s behind",
		1500 * time.Millisecond:    "1.5 s behind",
		-90 * time.Second:          "90.0 s ahead",
		2 * time.Minute:            "2.0 minutes behind",
		-59 * time.Minute:          "59.0 minutes ahead",
		2 * time.Hour:              "2.0 hours behind",
		-47 * time.Hour:            "47.0 hours ahead",
		48 * time.Hour:             "2 days behind",
		-20 * 365 * 24 * time.Hour: "7300 days ahead",
	} {
		if got := skewText(d); got != want {
			t.Errorf("skewText(%v) = %s, want %s", d, got, want)
		}
	}
}

// confFS is "/" of a ramdisk with a configuration file.
func confFS(text string) fstest.MapFS {
	return fstest.MapFS{confDir + "a.conf": {Data: []byte(text)}}
}
