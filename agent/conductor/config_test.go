// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const goodNode = `
nodes:
  - uuid: 6b4b3c1e-5a0f-4a53-8d0e-2f6d3c9a7b10
    macs: ["52:54:00:00:02:0A"]
    image: {file: disk.img}
`

const goodTop = `
listen: ["192.0.2.1:6385"]
tls: auto
files: images
`

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig([]byte(goodTop + goodNode))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", c)
	want := "{Listen:[192.0.2.1:6385] PublicURL: TLS:{Auto:true Cert: Key:} Files:images Poll:0 HeartbeatTimeout:300000000000 " +
		"CallbackTimeout:1800000000000 CommandTimeout:60000000000 BootTimeout:900000000000 Timeout:0 Exit:never Torrent:{Port:0 UpKB:0 Peers:[] Share:[]} " +
		"Nodes:[{Name:6b4b3c1e-5a0f-4a53-8d0e-2f6d3c9a7b10 UUID:6b4b3c1e-5a0f-4a53-8d0e-2f6d3c9a7b10 MACs:[52:54:00:00:02:0a] " +
		"TokenFile: BootMode:uefi Properties:map[] Image:{File:disk.img URL: SHA512: DiskFormat:raw Torrent:false RootMB:0 SwapMB:0 EphemeralMB:0} ConfigDrive:<nil> HandOff:reboot RAID:map[]}]}"
	if got != want {
		t.Errorf("ParseConfig:\n     %s\nwant %s", got, want)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	digest := strings.Repeat("0", 128)
	tests := []struct{ name, config, want string }{
		{"nothing", "", "listen: no address"},
		{"not a mapping", "- x", "line 1: cannot unmarshal"},
		{"not YAML", "a: [", "yaml: line 1"},
		{"two documents", goodTop + goodNode + "---\n{}", "more than one YAML document"},
		{"too long", strings.Repeat("#", maxConfig+1), "configuration of more than 1048576 bytes"},
		{"unknown key", goodTop + "lisen: x\n" + goodNode, "line 5: field lisen not found"},
		{"unknown key in a node", goodTop + goodNode + "    mac: x\n", "line 10: field mac not found"},
		{"unknown key in tls", "listen: ['192.0.2.1:1']\ntls: {crt: x}" + goodNode, "line 2: field crt not found in tls"},
		{"key twice", goodTop + "files: x\n" + goodNode, `mapping key "files" already defined`},
		{"listen without port", "listen: [192.0.2.1]\ntls: auto" + goodNode, `listen: "192.0.2.1" is not an address with a port`},
		{"listen on everything", "listen: ['[::]:6385']\ntls: auto" + goodNode, "public_url is needed: nodes cannot reach ::"},
		{"public URL without TLS", goodTop + "public_url: http://192.0.2.1" + goodNode, `public_url: "http://192.0.2.1" does not begin with https://`},
		{"public URL with password", goodTop + "public_url: https://a:b@192.0.2.1" + goodNode, "public_url: a URL with a password in it is not accepted"},
		{"tls is a word", "listen: ['192.0.2.1:1']\ntls: yes please" + goodNode, `line 2: tls is "yes please"`},
		{"tls without key", "listen: ['192.0.2.1:1']\ntls: {cert: x}" + goodNode, "tls: want auto, or cert and key"},
		{"a torrent of what is elsewhere", goodTop + strings.Replace(goodNode, "{file: disk.img}", "{url: 'https://192.0.2.2/a', torrent: true}", 1), "torrent: only a file can be shared"},
		{"peers that are no network", goodTop + "torrent: {peers: [rack]}" + goodNode, `torrent: peers: "rack" is not a network`},
		{"a hidden file is shared", goodTop + "torrent: {share: [.key]}" + goodNode, `torrent: share: ".key" is not a path below the files directory`},
		{"bad time", goodTop + "poll: 2" + goodNode, `line 5: "2" is not a length of time`},
		{"negative time", goodTop + "poll: -2s" + goodNode, `line 5: "-2s" is not a length of time`},
		{"no timeout at all", goodTop + "boot_timeout: 0s" + goodNode, "boot_timeout is 0"},
		{"exit", goodTop + "exit: sometimes" + goodNode, `exit is "sometimes", want done or never`},
		{"no nodes", goodTop, "nodes: none"},
		{"uuid", goodTop + "nodes: [{uuid: demo}]", `node 1 (): uuid: "demo" is none`},
		{"MAC", strings.Replace(goodTop+goodNode, ":0A", "", 1), `macs: "52:54:00:00:02" is not a MAC address`},
		{"partitions without root", goodTop + strings.Replace(goodNode, "image: {", "image: {swap_mb: 1, ", 1), "the others need root_mb"},
		{"boot mode", goodTop + goodNode + "    boot_mode: efi\n", `boot_mode is "efi", want uefi or bios`},
		{"handoff", goodTop + goodNode + "    handoff: jump\n", `handoff is "jump", want kexec, reboot or poweroff`},
		{"name with escape", goodTop + goodNode + "    name: \"a\\e[2J\"\n", "has characters that do not print"},
		{"same node twice", goodTop + goodNode + strings.TrimPrefix(goodNode, "\nnodes:\n"), "is that of"},
		{"software RAID without volumes", goodTop + goodNode + "    raid: {logical_disks: []}\n", "raid: want a list logical_disks"},
		{"software RAID with something else", goodTop + goodNode + "    raid: {logical_disks: [{size_gb: 1}], x: 1}\n", "raid: want a list logical_disks"},
		{"no image", goodTop + strings.Replace(goodNode, "image: {file: disk.img}", "", 1), "image: want exactly one of file and url"},
		{"image outside", goodTop + strings.Replace(goodNode, "disk.img", "../disk.img", 1), "is not a path below the files directory"},
		{"image that is hidden", goodTop + strings.Replace(goodNode, "disk.img", "a/.disk.img", 1), "is not a path below the files directory"},
		{"image without directory", "listen: ['192.0.2.1:1']\ntls: auto" + goodNode, "file is published only if files names a directory"},
		{"URL without digest", goodTop + strings.Replace(goodNode, "file: disk.img", "url: https://192.0.2.9/x", 1), "url needs a sha512"},
		{"URL of a file", goodTop + strings.Replace(goodNode, "file: disk.img", "url: file:///x, sha512: '"+digest+"'", 1), "is not a URL"},
		{"FTP", goodTop + strings.Replace(goodNode, "file: disk.img", "url: 'ftp://h/x', sha512: '"+digest+"'", 1), "does not begin with https://"},
		{"short digest", goodTop + strings.Replace(goodNode, "disk.img", "disk.img, sha512: abcd", 1), `sha512: "abcd" is not 128 hexadecimal digits`},
		{"hostname", goodTop + goodNode + "    config_drive: {hostname: a_b}\n", `config_drive: hostname: "a_b" is none`},
		{"file on the drive", goodTop + goodNode + "    config_drive: {files: {/x: y}}\n", `"/x" is not a path on the drive`},
		{"file beside the drive", goodTop + goodNode + "    config_drive: {files: {../x: y}}\n", `"../x" is not a path on the drive`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseConfig([]byte(test.config))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("ParseConfig() = %v, want %q", err, test.want)
			}
		})
	}
}

// The example in demo/ is what users copy.
func TestExample(t *testing.T) {
	c, err := LoadConfig("../../demo/labconductor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Nodes[0].TokenFile, filepath.Join("..", "..", "demo", "node.token"); got != want {
		t.Errorf("token_file = %s, want %s", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(dir string, c *Config) error
		want   string
	}{
		{"no certificate", func(_ string, c *Config) error { c.TLS = TLS{Cert: "/nonexistent", Key: "/nonexistent"}; return nil }, "tls: open /nonexistent"},
		{"no files", func(_ string, c *Config) error { c.Files = "/nonexistent"; return nil }, "files: open /nonexistent"},
		{"no token", func(_ string, c *Config) error { c.Nodes[0].TokenFile = "/nonexistent"; return nil }, "token_file: open /nonexistent"},
		{"token for all to read", func(dir string, c *Config) error { return os.Chmod(c.Nodes[0].TokenFile, 0o644) }, "mode 0644 lets others read the token"},
		{"short token", func(dir string, c *Config) error {
			return os.WriteFile(c.Nodes[0].TokenFile, []byte("secret\n"), 0o600)
		}, "token of 6 characters, want 32 to 128"},
		{"strange token", func(dir string, c *Config) error {
			return os.WriteFile(c.Nodes[0].TokenFile, []byte(strings.Repeat("x", 40)+"&y"), 0o600)
		}, "character 41 of the token is none of"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			token := filepath.Join(dir, "token")
			if err := WriteToken(token); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(goodTop+goodNode+"    token_file: token\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "images"), 0o755); err != nil {
				t.Fatal(err)
			}
			c, err := LoadConfig(filepath.Join(dir, "c.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := New(c, Options{}); err != nil {
				t.Fatalf("New() = %v before the change", err)
			}
			if err := test.change(dir, &c); err != nil {
				t.Fatal(err)
			}
			_, err = New(c, Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("New() = %v, want %q", err, test.want)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "xxx")) {
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
}

// A deployment fails before any agent comes if what it needs is not there.
func TestPrepareFails(t *testing.T) {
	tests := []struct {
		name, node, want string
		sum              string // content of disk.img.sha512
	}{
		{"digest file that is none", "", "image disk.img: disk.img.sha512 does not begin with 128 hexadecimal digits", "hello\n"},
		{"digest file of another image", "", "image disk.img: disk.img.sha512 is about other.img", strings.Repeat("0", 128) + "  other.img\n"},
		{"network data", "    config_drive: {network_data: n.json}", "config drive: open ", ""},
		{"network data that is not JSON", "    config_drive: {network_data: conductor.yaml}", "conductor.yaml is not JSON", ""},
		{"too large for a config drive", "    config_drive: {files: {a: files/disk.img, b: files/disk.img, c: files/disk.img}}", "config drive: files of ", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, "exit: never", "")
			l.cancel()
			l.result()
			if test.sum != "" {
				l.write("files/disk.img.sha512", test.sum, 0o644)
			}
			text, err := os.ReadFile(filepath.Join(l.dir, "conductor.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			l.write("conductor.yaml", string(text)+"\n"+test.node+"\n", 0o644)
			cfg, err := LoadConfig(filepath.Join(l.dir, "conductor.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Exit = "done"
			c, err := New(cfg, Options{})
			if err != nil {
				t.Fatal(err)
			}
			err = c.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run() = %v, want %q", err, test.want)
			}
		})
	}
}

// The digest that is announced is that of the published file, whether it was computed or read; sha512sum is the judge.
func TestImageDigest(t *testing.T) {
	l := newLab(t, "exit: never", "")
	path := filepath.Join(l.dir, "files", "disk.img")
	out, err := exec.Command("sha512sum", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := string(out[:128])
	for _, test := range []struct{ name, sum string }{
		{"computed", ""},
		{"of sha512sum", want + "  disk.img\n"},
		{"bare, in capitals", strings.ToUpper(want)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.sum != "" {
				l.write("files/disk.img.sha512", test.sum, 0o644)
			}
			image, err := l.c.prepareImage(t.Context(), Image{File: "disk.img", DiskFormat: "raw"})
			if err != nil {
				t.Fatal(err)
			}
			if image.SHA512 != want || image.URL != l.url+"/files/disk.img" || image.ID != "disk.img" {
				t.Errorf("image = %+v, want digest %s", image, want)
			}
		})
	}
}

// openssl is the judge of the certificates.
func TestWriteCertificates(t *testing.T) {
	dir := t.TempDir()
	if err := WriteCertificates(dir, []string{"192.0.2.1", "2001:db8::1", "lab.example"}); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) string {
		out, err := exec.Command("openssl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for _, host := range []string{"-verify_ip 192.0.2.1", "-verify_ip 2001:db8::1", "-verify_hostname lab.example"} {
		option, value, _ := strings.Cut(host, " ")
		run("verify", "-x509_strict", "-purpose", "sslserver", option, value, "-CAfile", in(CAFile), in(CertFile))
	}
	if out, err := exec.Command("openssl", "verify", "-verify_ip", "192.0.2.2", "-CAfile", in(CAFile), in(CertFile)).CombinedOutput(); err == nil {
		t.Errorf("openssl accepts it for another address: %s", out)
	}
	text := run("x509", "-noout", "-text", "-in", in(CertFile))
	if !strings.Contains(text, "NIST CURVE: P-256") {
		t.Errorf("not a P-256 key:\n%s", text)
	}
	if info, err := os.Stat(in(KeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key has mode %v (%v), want 0600", info.Mode(), err)
	}
	if err := WriteCertificates(dir, []string{"192.0.2.1"}); err == nil {
		t.Error("WriteCertificates overwrites certificates")
	}
	if err := WriteCertificates(t.TempDir(), []string{"not a host"}); err == nil {
		t.Error("WriteCertificates accepts a host that is none")
	}
	if err := WriteCertificates(t.TempDir(), nil); err == nil {
		t.Error("WriteCertificates accepts no host at all")
	}
}

func TestPrintable(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "a b é", "a b é"},
		{"escape sequences", "\x1b[31mred\x1b[0m\r\n", "[31mred [0m"},
		{"not UTF-8", "a\xffb", "a?b"},
		{"invisible direction", "a\u202eb", "a b"},
		{"long", strings.Repeat("x", maxText+1), strings.Repeat("x", maxText) + "..."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := printable(test.in); got != test.want {
				t.Errorf("printable(%q) = %q, want %q", test.in, got, test.want)
			}
		})
	}
}

func TestSecretPrintsAsStars(t *testing.T) {
	s := newSecret()
	n := &node{token: s, reportSecret: s}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), fmt.Sprintf("%+v", n.token)} {
		if strings.Contains(text, string(s)) {
			t.Errorf("secret prints as %s", text)
		}
	}
	if s.equals(string(s)+"x") || s.equals("") || secret("").equals("") || !s.equals(string(s)) {
		t.Error("equals is wrong")
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(goodTop + goodNode)
	f.Add(goodTop + goodNode + "    config_drive: {hostname: a, report: true, files: {a/b: c}}\n    handoff: kexec\n")
	f.Add("listen: [\"[::1]:1\"]\ntls: {cert: a, key: b}\npoll: 1s\n" + goodNode)
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig([]byte(text))
		if err != nil {
			return
		}
		c.resolve("/x")
		for _, n := range c.Nodes {
			if n.Image.File != "" && !isPublic(n.Image.File) {
				t.Errorf("image file %q is accepted", n.Image.File)
			}
		}
	})
}
