// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is what labconductor's YAML file says. Paths are relative to the directory of that file; [LoadConfig] makes
// them complete. An unknown key is an error.
type Config struct {
	Listen    []string `yaml:"listen"`     // addresses with ports: 192.0.2.1:6385, [::]:6385
	PublicURL string   `yaml:"public_url"` // https://host:port under which nodes reach this; default: the first listen address
	TLS       TLS      `yaml:"tls"`
	Files     string   `yaml:"files"` // directory published under /files/; none if empty

	Poll             Duration `yaml:"poll"`              // also ask agents for news this often; 0: on heartbeats only, as Ironic does
	HeartbeatTimeout Duration `yaml:"heartbeat_timeout"` // told to agents, which send a heartbeat in 0.3 to 0.6 of it; default 5m
	CallbackTimeout  Duration `yaml:"callback_timeout"`  // a deployment fails after this long without heartbeat; default 30m
	CommandTimeout   Duration `yaml:"command_timeout"`   // for one request to an agent; default 1m
	BootTimeout      Duration `yaml:"boot_timeout"`      // from the hand-off to the report of the deployed system; default 15m
	Timeout          Duration `yaml:"timeout"`           // for everything; 0: none
	Exit             string   `yaml:"exit"`              // done: end when every node is deployed or has failed; never (default)

	Torrent Torrent      `yaml:"torrent"`
	Nodes   []NodeConfig `yaml:"nodes"`
}

// Torrent is how images are shared by BitTorrent, with and among the nodes.
type Torrent struct {
	Port  int      `yaml:"port"`  // on which nodes fetch the first image of Nodes that is shared from this conductor, the next one for the next; default: any
	UpKB  int      `yaml:"up_kb"` // KiB per second that it sends at the most; 0: no limit
	Peers []string `yaml:"peers"` // networks that nodes may be in; default: all
	Share []string `yaml:"share"` // files below the files directory that are shared whatever the nodes get: for nodes of Ironic
}

// TLS is the server's certificate. Written as the single word auto, it means ca.crt, server.crt and server.key in the
// directory tls beside the configuration, which are made if they do not exist.
type TLS struct {
	Auto bool   `yaml:"-"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// NodeConfig is one node and what is to be deployed onto it.
type NodeConfig struct {
	Name       string         `yaml:"name"` // default: the UUID
	UUID       string         `yaml:"uuid"`
	MACs       []string       `yaml:"macs"`
	TokenFile  string         `yaml:"token_file"` // a token that the node has too, from its medium; without: one is made at the first lookup
	BootMode   string         `yaml:"boot_mode"`  // uefi (default) or bios
	Properties map[string]any `yaml:"properties"` // root_device hints, capabilities, cpu_arch, logical_volumes (which are made before the image is written), ...
	Image      Image          `yaml:"image"`

	ConfigDrive *ConfigDrive `yaml:"config_drive"` // none if absent
	HandOff     HandOff      `yaml:"handoff"`      // default reboot

	// RAID is the configuration of software RAID, as Ironic's target_raid_config, that the machine gets before the image is written. None if absent: then arrays stay as they are.
	RAID map[string]any `yaml:"raid"`
}

// Image is what is written onto the node's disk.
type Image struct {
	File       string `yaml:"file"`        // below the files directory; published by this conductor
	URL        string `yaml:"url"`         // elsewhere; exactly one of file and url
	SHA512     string `yaml:"sha512"`      // hex; for a file: default what FILE.sha512 says, else computed
	DiskFormat string `yaml:"disk_format"` // default raw
	Torrent    bool   `yaml:"torrent"`     // a file is shared by BitTorrent too: nodes that can fetch it from each other

	// Sizes make it the image of a file system, for a partition.
	RootMB      int `yaml:"root_mb"`
	SwapMB      int `yaml:"swap_mb"`
	EphemeralMB int `yaml:"ephemeral_mb"`
}

// ConfigDrive is the content of the node's config drive.
type ConfigDrive struct {
	HostName    string            `yaml:"hostname"`
	UserData    string            `yaml:"user_data"`
	NetworkData string            `yaml:"network_data"` // path of a network_data.json
	Meta        map[string]string `yaml:"meta"`         // goes into meta_data.json under meta
	Files       map[string]string `yaml:"files"`        // path on the drive: path of a local file
	Report      bool              `yaml:"report"`       // the deployed system shall report that it is up
	CA          string            `yaml:"ca"`           // certificates with which it verifies the report's URL; default with tls auto: its CA
}

// HandOff is how the machine goes from the agent to the deployed system.
type HandOff string

// The ways to hand off.
const (
	KexecHandOff    HandOff = "kexec"    // into the deployed kernel; through firmware if that cannot be
	RebootHandOff   HandOff = "reboot"   // through firmware
	PowerOffHandOff HandOff = "poweroff" // somebody else switches the machine on again
)

// Duration is a [time.Duration] that YAML writes as 1m30s.
type Duration time.Duration

// UnmarshalYAML implements the yaml package's Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode || v < 0 {
		return fmt.Errorf("line %d: %q is not a length of time such as 2s or 1m30s", n.Line, printable(n.Value))
	}
	*d = Duration(v)
	return nil
}

// UnmarshalYAML implements the yaml package's Unmarshaler.
func (t *TLS) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		if n.Value != "auto" {
			return fmt.Errorf("line %d: tls is %q, want auto or cert and key", n.Line, printable(n.Value))
		}
		t.Auto = true
		return nil
	}
	type plain TLS // without this method
	// A node decodes without the strictness of its decoder, so unknown keys are looked for here.
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Value != "cert" && k.Value != "key" {
			return fmt.Errorf("line %d: field %s not found in tls", k.Line, printable(k.Value))
		}
	}
	return n.Decode((*plain)(t))
}

// maxConfig bounds the size of a configuration in bytes.
const maxConfig = 1 << 20

// goTypes are what errors of the yaml package say of this program's own types, which whoever writes a configuration does not know.
var goTypes = regexp.MustCompile(` (in type|into) (map\[string\])?\*?conductor\.\w+`)

// LoadConfig reads a configuration file and makes its paths relative to the file's directory.
func LoadConfig(name string) (Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return Config{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Config{}, err
	}
	c, err := ParseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	c.resolve(filepath.Dir(name))
	return c, nil
}

// ParseConfig reads a configuration from YAML, checks it and fills in the defaults. It touches no file.
func ParseConfig(b []byte) (Config, error) {
	if len(b) > maxConfig {
		return Config{}, fmt.Errorf("configuration of more than %d bytes", maxConfig)
	}
	c := Config{
		HeartbeatTimeout: Duration(5 * time.Minute),
		CallbackTimeout:  Duration(30 * time.Minute),
		CommandTimeout:   Duration(time.Minute),
		BootTimeout:      Duration(15 * time.Minute),
		Exit:             "never",
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && err != io.EOF { // io.EOF: nothing in it, which the check says better
		return Config{}, errors.New(goTypes.ReplaceAllString(err.Error(), ""))
	}
	if err := d.Decode(new(yaml.Node)); err != io.EOF {
		return Config{}, errors.New("more than one YAML document")
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// check completes the configuration and finds what cannot work.
func (c *Config) check() error {
	if len(c.Listen) == 0 {
		return errors.New("listen: no address")
	}
	for _, a := range c.Listen {
		if _, err := netip.ParseAddrPort(a); err != nil {
			return fmt.Errorf("listen: %q is not an address with a port, such as 192.0.2.1:6385 or [::]:6385", printable(a))
		}
	}
	if c.PublicURL == "" {
		if a := netip.MustParseAddrPort(c.Listen[0]).Addr(); a.IsUnspecified() {
			return fmt.Errorf("public_url is needed: nodes cannot reach %s", a)
		}
	} else if err := checkURL(c.PublicURL, "https"); err != nil {
		return fmt.Errorf("public_url: %w", err)
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	if !c.TLS.Auto && (c.TLS.Cert == "" || c.TLS.Key == "") {
		return errors.New("tls: want auto, or cert and key")
	}
	if c.Exit != "never" && c.Exit != "done" {
		return fmt.Errorf("exit is %q, want done or never", printable(c.Exit))
	}
	for _, t := range []struct {
		name  string
		value Duration
	}{
		{"heartbeat_timeout", c.HeartbeatTimeout}, {"callback_timeout", c.CallbackTimeout},
		{"command_timeout", c.CommandTimeout}, {"boot_timeout", c.BootTimeout},
	} {
		if t.value == 0 {
			return fmt.Errorf("%s is 0", t.name)
		}
	}
	if t := c.Torrent; t.Port < 0 || t.Port > 65535 || t.UpKB < 0 || t.UpKB > 1<<31 {
		return errors.New("torrent: port, up_kb: want a port, and KiB per second")
	}
	for _, p := range c.Torrent.Peers {
		if _, err := netip.ParsePrefix(p); err != nil {
			return fmt.Errorf("torrent: peers: %q is not a network, such as 192.0.2.0/24", printable(p))
		}
	}
	for _, name := range c.Torrent.Share {
		if c.Files == "" || !isPublic(name) {
			return fmt.Errorf("torrent: share: %q is not a path below the files directory, or is hidden", printable(name))
		}
	}
	if len(c.Nodes) == 0 && len(c.Torrent.Share) == 0 {
		return errors.New("nodes: none")
	}
	if n := len(c.shared()); c.Torrent.Port > 0 && c.Torrent.Port+n-1 > 65535 {
		return fmt.Errorf("torrent: port: %d images have a port each, and there are none after 65535", n)
	}
	seen := make(map[string]string) // UUIDs, names and MACs, each of one node
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if err := n.check(c); err != nil {
			return fmt.Errorf("node %d (%s): %w", i+1, printable(n.Name), err)
		}
		for _, id := range append([]string{n.UUID, "name " + n.Name}, n.MACs...) {
			if other, ok := seen[id]; ok {
				return fmt.Errorf("node %d (%s): %s is that of %s too", i+1, printable(n.Name), printable(id), printable(other))
			}
			seen[id] = n.Name
		}
	}
	return nil
}

// shared are the images that are shared by BitTorrent, in the order of their first nodes, and then those for other nodes.
func (c *Config) shared() (files []string) {
	for _, n := range c.Nodes {
		if n.Image.Torrent && !slices.Contains(files, n.Image.File) {
			files = append(files, n.Image.File)
		}
	}
	for _, name := range c.Torrent.Share {
		if !slices.Contains(files, name) {
			files = append(files, name)
		}
	}
	return files
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (n *NodeConfig) check(c *Config) error {
	n.UUID = strings.ToLower(n.UUID)
	if !uuidForm.MatchString(n.UUID) {
		return fmt.Errorf("uuid: %q is none", printable(n.UUID))
	}
	if n.Name == "" {
		n.Name = n.UUID
	}
	if n.Name != printable(n.Name) {
		return fmt.Errorf("name: %q has characters that do not print, or too many", printable(n.Name))
	}
	for i, m := range n.MACs {
		hw, err := net.ParseMAC(m)
		if err != nil || len(hw) != 6 {
			return fmt.Errorf("macs: %q is not a MAC address", printable(m))
		}
		n.MACs[i] = hw.String()
	}
	if n.BootMode == "" {
		n.BootMode = "uefi"
	}
	if n.BootMode != "uefi" && n.BootMode != "bios" {
		return fmt.Errorf("boot_mode is %q, want uefi or bios", printable(n.BootMode))
	}
	if n.HandOff == "" {
		n.HandOff = RebootHandOff
	}
	switch n.HandOff {
	case KexecHandOff, RebootHandOff, PowerOffHandOff:
	default:
		return fmt.Errorf("handoff is %q, want kexec, reboot or poweroff", printable(string(n.HandOff)))
	}
	if err := n.Image.check(c); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if disks, ok := n.RAID["logical_disks"].([]any); n.RAID != nil && (!ok || len(disks) == 0 || len(n.RAID) > 1) {
		return errors.New("raid: want a list logical_disks, and nothing else")
	}
	if d := n.ConfigDrive; d != nil {
		if d.HostName != "" && !isHostName(d.HostName) {
			return fmt.Errorf("config_drive: hostname: %q is none", printable(d.HostName))
		}
		for p := range d.Files {
			if p == "" || path.IsAbs(p) || path.Clean(p) != p || p == "." || strings.HasPrefix(p, "..") {
				return fmt.Errorf("config_drive: files: %q is not a path on the drive, such as openstack/content/0000", printable(p))
			}
		}
	}
	return nil
}

func (i *Image) check(c *Config) error {
	switch {
	case (i.File == "") == (i.URL == ""):
		return errors.New("want exactly one of file and url")
	case i.File != "" && c.Files == "":
		return errors.New("file is published only if files names a directory")
	case i.File != "" && !isPublic(i.File):
		return fmt.Errorf("file: %q is not a path below the files directory, or is hidden", printable(i.File))
	case i.RootMB < 0 || i.SwapMB < 0 || i.EphemeralMB < 0 || i.RootMB == 0 && (i.SwapMB > 0 || i.EphemeralMB > 0):
		return errors.New("root_mb, swap_mb, ephemeral_mb: none may be negative, and the others need root_mb")
	case i.Torrent && i.File == "":
		return errors.New("torrent: only a file can be shared")
	case i.URL != "" && i.SHA512 == "":
		return errors.New("url needs a sha512")
	}
	if i.URL != "" {
		if err := checkURL(i.URL, "http", "https"); err != nil {
			return fmt.Errorf("url: %w", err)
		}
	}
	i.SHA512 = strings.ToLower(i.SHA512)
	if b, err := hex.DecodeString(i.SHA512); i.SHA512 != "" && (err != nil || len(b) != 64) {
		return fmt.Errorf("sha512: %q is not 128 hexadecimal digits", printable(i.SHA512))
	}
	if i.DiskFormat == "" {
		i.DiskFormat = "raw"
	}
	return nil
}

// resolve makes the paths relative to dir.
func (c *Config) resolve(dir string) {
	in := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if c.TLS.Auto {
		c.TLS.Cert = filepath.Join("tls", CertFile)
		c.TLS.Key = filepath.Join("tls", KeyFile)
	}
	in(&c.TLS.Cert)
	in(&c.TLS.Key)
	in(&c.Files)
	for i := range c.Nodes {
		n := &c.Nodes[i]
		in(&n.TokenFile)
		if d := n.ConfigDrive; d != nil {
			in(&d.NetworkData)
			in(&d.CA)
			for k, p := range d.Files {
				in(&p)
				d.Files[k] = p
			}
		}
	}
}

// hosts returns the addresses and names under which nodes reach the server, for its certificate.
func (c Config) hosts() []string {
	var hosts []string
	if u, err := url.Parse(c.PublicURL); err == nil && u.Hostname() != "" {
		hosts = append(hosts, u.Hostname())
	}
	for _, l := range c.Listen {
		a := netip.MustParseAddrPort(l).Addr()
		if s := a.String(); !a.IsUnspecified() && (len(hosts) == 0 || s != hosts[0]) {
			hosts = append(hosts, s)
		}
	}
	return hosts
}

func checkURL(s string, schemes ...string) error {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("%q is not a URL", printable(s))
	}
	if u.User != nil {
		return errors.New("a URL with a password in it is not accepted")
	}
	for _, want := range schemes {
		if u.Scheme == want {
			return nil
		}
	}
	return fmt.Errorf("%q does not begin with %s://", printable(s), schemes[len(schemes)-1])
}

// isHostName is true for names of RFC 1123, with or without a domain.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if !isURLSafe(r) || r == '_' {
				return false
			}
		}
	}
	return true
}
