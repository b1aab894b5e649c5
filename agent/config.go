// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/stream"
)

// Config is what the agent was told from outside. [ParseConfig] makes it; the
// fields are described in the table of [Settings].
type Config struct {
	APIURLs           []string
	Token             ironic.Secret
	NodeUUID          string
	Debug             bool
	ListenHost        string
	ListenPort        int
	AdvertiseHost     string
	AdvertisePort     int
	AdvertiseProtocol string
	NetworkInterface  string
	IPAttempts        int
	IPSleep           time.Duration
	LookupTimeout     time.Duration
	LookupInterval    time.Duration
	RequestTimeout    time.Duration
	APIVersion        string
	RequestID         string
	Insecure          bool
	CAFile            string
	ClientCertFile    string
	ClientKeyFile     string
	ListenTLS         bool
	APICertFile       string
	APIKeyFile        string
	AutoTLS           bool
	PlainHTTP         bool
	TLSMinVersion     string
	TLSCiphers        string
	Curve             string
	CertificateSkew   time.Duration
	NTPServer         string
	ClockMust         bool // be set, if there is an NTP server
	HardwareDelay     time.Duration
	Stall             time.Duration
	Retries           int
	RetryInterval     time.Duration
	DownloadLimit     time.Duration
	ImageAuth         string
	ImageUser         string
	ImagePassword     ironic.Secret
	MD5Enabled        bool
	ImageFormats      []string
	AnyImageFormat    bool
	IgnoreBootloader  bool
	DiskAttempts      int
	InjectPriority    int
	ESPSize           int // MiB
	BIOSBootSize      int // MiB
	DiskDelay         time.Duration
	GuardSpecial      bool // file systems of clusters are not erased
	UseMDNS           bool // APIURLs are to be found out
	apiByMDNS         bool
	MDNSOverrides     []string
	MDNSAttempts      int
	MDNSInterfaces    []netip.Addr
	ReadBack          stream.ReadBack
	KexecWatchdog     time.Duration
	TorrentPort       int
	TorrentPeers      []netip.Prefix
	TorrentUp         int           // KiB per second; 0 is no limit
	TorrentDown       int           // the same
	TorrentShare      time.Duration // how long to go on sharing before the agent leaves
	TorrentRatio      int           // copies that end it sooner; 0 for none
	Poll              bool
	SSHKey            string
	VLANs             []string // as in [wantedVLANs]
	RescueNetwork     string   // followPorts or keepNetwork
	StrictNetwork     bool
	SetRTC            bool // with the system's clock, that on the board
	Inspection        inspectionConfig

	// ImageKeyNames are files with keys that images must be signed with, or such keys; ImageKeys are what is in them.
	ImageKeyNames []string
	ImageKeys     []stream.PublicKey
	// CA is the content of CAFile, found on a medium or in the ramdisk; nil without one.
	CA []byte
	// Client is the agent's own certificate for servers that ask for one, and API the one that its API shows in place of one made at
	// boot. nil without one.
	Client, API *tls.Certificate
	// NetworkData is network_data.json, and NetworkFrom where it was found; nil if there is none.
	NetworkData []byte
	NetworkFrom string
	// SSHKeys are lines of authorized_keys, of SSHKey and of the media.
	SSHKeys []string
	// Origins says where each value that is not built in came from, for the log. Values
	// of secrets are masked.
	Origins []Origin

	// Ignored are lines for people about what was given and does nothing.
	Ignored []string
}

// An Origin is one value and where it came from.
type Origin struct{ Name, Value, From string }

func (o Origin) String() string { return fmt.Sprintf("%s=%s (%s)", o.Name, o.Value, o.From) }

// Sources are the places that settings come from. Weak to strong: built in, the ramdisk's parameters and then its .conf files, those of the media, the
// kernel command line, by hand the program's own flags, and multicast DNS.
type Sources struct {
	Ramdisk fs.FS             // "/" of the ramdisk, for etc/ironhand/parameters.txt, .conf files, CA files and the like
	Media   []media.Medium    // the first is the strongest
	Cmdline string            // /proc/cmdline
	Flags   map[string]string // of the program's command line, by the names of kernel parameters
	// Discovered are options, by their names in configuration files, that multicast DNS has told: the strongest.
	Discovered map[string]string
}

// ramdiskFile holds settings for every machine that boots this ramdisk, as words key=value.
const ramdiskFile = "etc/ironhand/parameters.txt"

// confDir has configuration files, of the ramdisk and of media.
const confDir = "etc/ironic-python-agent.d/"

// bootLine is where the parameters of the kernel come from.
const bootLine = "kernel command line"

// ParseConfig puts the settings together. What is wrong is reported all at once, with the
// setting's name and where it came from; a value that cannot be read is never replaced by
// another one.
func ParseConfig(s Sources) (Config, error) {
	var c Config
	var errs []error
	byName := map[string]Setting{} // by parameter, and by "option " and option
	for _, one := range Settings() {
		if one.Param != "" {
			byName[one.Param] = one
		}
		if one.Option != "" {
			byName["option "+one.Option] = one
		}
		if one.Default != "" {
			if err := one.set(&c, one.Default); err != nil {
				errs = append(errs, fmt.Errorf("%s: default %q: %w", one.Param, one.Default, err))
			}
		}
	}
	unused := map[string]string{}
	for _, u := range Unused() {
		unused[u.Param], unused["option "+u.Option] = u.Reason, u.Reason
	}
	origins := map[string]Origin{}
	apply := func(from, prefix string, values map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			one, known := byName[prefix+name]
			reason, does := unused[prefix+name]
			if !known && !does && prefix == "" && (strings.HasPrefix(name, "ironhand-") || strings.HasPrefix(name, "ipa-")) {
				reason, does = "there is no such setting", true
			}
			if does && name != "" {
				c.Ignored = append(c.Ignored, fmt.Sprintf("%.100s (%s) has no effect: %s", name, from, reason))
			}
			if !known {
				continue // other programs have parameters too
			}
			if prefix == "" && values[name] == "" && name != imageKeys {
				continue // templates have parameters whose value is left empty; as in ironic-python-agent, that gives none
			}
			if one.set == nil && from != bootLine {
				c.Ignored = append(c.Ignored, fmt.Sprintf("%s (%s) has no effect: it counts on the kernel command line only", name, from))
				continue
			}
			shown := queries.ReplaceAllString(passwords.ReplaceAllString(values[name], "//***@"), "${1}***")
			if one.Secret {
				shown = "***"
			}
			if one.set != nil {
				if err := one.set(&c, values[name]); err != nil {
					errs = append(errs, fmt.Errorf("%s=%s from %s: %w", name, shown, from, err))
					continue
				}
			}
			origins[one.Param+" "+one.Option] = Origin{name, shown, from}
		}
	}
	applyFile := func(from string, b []byte) {
		values, err := parseINI(b)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", from, err))
		}
		apply(from, "option ", values)
	}

	// 1. The ramdisk's own parameters, and its configuration files.
	if b, err := fs.ReadFile(s.Ramdisk, ramdiskFile); err == nil {
		apply("ramdisk /"+ramdiskFile, "", words(string(b)))
	} else if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("read settings of the ramdisk: %w", err))
	}
	names, err := fs.Glob(s.Ramdisk, confDir+"*.conf") // in order
	if err != nil {
		errs = append(errs, fmt.Errorf("read configuration of the ramdisk: %w", err))
	}
	for _, name := range names {
		b, err := readFile(s.Ramdisk, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("read configuration of the ramdisk: %w", err))
		}
		applyFile("ramdisk /"+name, b)
	}
	// 2. The media, weakest first: parameters, then configuration files.
	for _, m := range slices.Backward(s.Media) {
		from := m.Kind + " " + m.Device
		params, err := m.Parameters()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %w", m.Kind, err)) // it names the device
		}
		apply(from+" parameters.txt", "", params)
		if b, found := m.Files[networkDataFile]; found {
			c.NetworkData, c.NetworkFrom = b, from+" "+networkDataFile
		}
	}
	for _, m := range slices.Backward(s.Media) {
		for _, name := range slices.Sorted(maps.Keys(m.Files)) {
			if dir, file := path.Split(name); dir == confDir && strings.HasSuffix(file, ".conf") {
				applyFile(m.Kind+" "+m.Device+" "+name, m.Files[name])
			}
		}
	}
	// 3. The kernel command line: what somebody types at the console to get a node going.
	apply(bootLine, "", words(s.Cmdline))
	// 4. By hand.
	apply("flag", "", s.Flags)
	// 5. What was found out.
	apply("multicast DNS", "option ", s.Discovered)

	if c.AdvertisePort == 0 {
		c.AdvertisePort = c.ListenPort
	}
	c.UseMDNS = c.apiByMDNS || c.UseMDNS && len(c.APIURLs) == 0
	errs = append(errs, c.readFiles(s))
	for _, key := range slices.Sorted(maps.Keys(origins)) {
		c.Origins = append(c.Origins, origins[key])
	}
	return c, errors.Join(errs...)
}

const networkDataFile = "openstack/latest/network_data.json"

// readFiles reads what settings name: CA, certificates, keys.
func (c *Config) readFiles(s Sources) error {
	var errs []error
	if c.CAFile != "" {
		b, err := s.read("cafile", c.CAFile)
		errs = append(errs, err)
		c.CA = b
	}
	if c.ClientCertFile != "" || c.ClientKeyFile != "" {
		pair, err := s.readPair("certfile", c.ClientCertFile, "keyfile", c.ClientKeyFile)
		errs = append(errs, err)
		c.Client = pair
	}
	given := c.APICertFile != "" || c.APIKeyFile != ""
	switch {
	case c.ListenTLS || given && !c.AutoTLS:
		pair, err := s.readPair("tls_cert_file", c.APICertFile, "tls_key_file", c.APIKeyFile)
		errs = append(errs, err)
		c.API = pair
	case given:
		c.Ignored = append(c.Ignored, "tls_cert_file and tls_key_file have no effect: neither is listen_tls on nor enable_auto_tls off")
	}
	if c.ImageAuth == "http_basic" && (c.ImageUser == "" || c.ImagePassword == "") {
		errs = append(errs, errors.New("image_server_auth_strategy is http_basic without image_server_user and image_server_password"))
	}
	for _, name := range c.ImageKeyNames {
		b := []byte(name)
		found, err := stream.ParsePublicKeys(b)
		if err != nil { // then it is a file
			if b, err = s.read(imageKeys, name); err == nil {
				found, err = stream.ParsePublicKeys(b)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf(imageKeys+" %.100s: %w", name, err))
		}
		c.ImageKeys = append(c.ImageKeys, found...)
	}
	var keys strings.Builder
	for _, m := range s.Media {
		fmt.Fprintf(&keys, "%s\n", m.Files[keysFile])
	}
	ssh, err := authorizedKeys(c.SSHKey, keys.String())
	errs = append(errs, err)
	c.SSHKeys = ssh
	return errors.Join(errs...)
}

// read finds a file that a setting names, on a medium, where a conductor puts it for us, or in the ramdisk.
func (s Sources) read(setting, file string) ([]byte, error) {
	name := strings.TrimPrefix(path.Clean(file), "/")
	for _, m := range s.Media {
		if b, found := m.Files[name]; found {
			return b, nil
		}
	}
	b, err := readFile(s.Ramdisk, name)
	if err != nil {
		return nil, fmt.Errorf("%s %s: neither on a configuration medium nor in the ramdisk: %w", setting, file, err)
	}
	return b, nil
}

// readPair reads a certificate with its private key.
func (s Sources) readPair(certSetting, certFile, keySetting, keyFile string) (*tls.Certificate, error) {
	if certFile == "" || keyFile == "" {
		return nil, fmt.Errorf("%s and %s: both are needed", certSetting, keySetting)
	}
	cert, err := s.read(certSetting, certFile)
	key, keyErr := s.read(keySetting, keyFile)
	if err := errors.Join(err, keyErr); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s %s with %s %s: %w", certSetting, certFile, keySetting, keyFile, err)
	}
	return &pair, nil
}

// readFile reads a file of the ramdisk. Its name may come from a medium: it must not lead to a device that never ends.
func readFile(ramdisk fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(ramdisk, name)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxCA) {
		err = fmt.Errorf("not a file of at most %d bytes", maxCA)
	}
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(ramdisk, name)
}

// maxCA is ten times the size of a bundle of all public CAs.
const maxCA = 2 << 20

// passwords finds user and password in URLs, queries what may hold a token: the query of a URL, or of what looks like the end of one.
var (
	passwords = regexp.MustCompile(`//[^\s"]*@`) // a password may hold a slash
	queries   = regexp.MustCompile(`(//[^\s"?]*\?|\?[^\s"=?]*=)[^\s"]+`)
)

// words splits a kernel command line: white space between words, the first = between
// name and value, later ones win, no quoting. Words without = are no settings.
// Source: ironic-python-agent's ironic_python_agent/utils.py, _read_params_from_file.
func words(s string) map[string]string {
	m := map[string]string{}
	for word := range strings.FieldsSeq(s) {
		if name, value, found := strings.Cut(word, "="); found {
			m[name] = value
		}
	}
	return m
}

// parseINI reads a file as oslo.config reads it, but for values that go on in the next line. Names of other sections than
// [DEFAULT] have the section in front: "[mdns] use_mdns". Errors do not repeat the file, which may have secrets in it.
// Source: oslo.config's oslo_config/iniparser.py.
func parseINI(b []byte) (map[string]string, error) {
	m := map[string]string{}
	section := ""
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			name, closed := strings.CutSuffix(line[1:], "]")
			if !closed || name == "" {
				return nil, fmt.Errorf("line %d: section without name or without ]", n)
			}
			section = name
		case strings.ContainsAny(lines.Text()[:1], " \t"):
			return nil, fmt.Errorf("line %d: begins with a blank: values of several lines are not read", n)
		case section == "":
			return nil, fmt.Errorf("line %d: before the first section", n)
		default:
			at := strings.IndexAny(line, "=:")
			if at < 1 {
				return nil, fmt.Errorf("line %d: neither a section nor name = value", n)
			}
			name := strings.TrimSpace(line[:at])
			if section != "DEFAULT" {
				name = "[" + section + "] " + name
			}
			m[name] = unquote(strings.TrimSpace(line[at+1:]))
		}
	}
	return m, lines.Err()
}

// unquote takes quotes off a value that begins and ends with them.
func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

// apiURLs takes URLs, or the word for finding them.
func apiURLs(c *Config, v string) error {
	c.APIURLs = nil
	if c.apiByMDNS = v == "mdns"; c.apiByMDNS {
		return nil
	}
	for one := range strings.SplitSeq(v, ",") {
		one = strings.TrimRight(strings.TrimSpace(one), "/")
		u, err := url.Parse(one)
		if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return errors.New("must be URLs that begin with http:// or https:// and name a host, or mdns")
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return errors.New("must be URLs without user, query and fragment")
		}
		c.APIURLs = append(c.APIURLs, one)
	}
	return nil
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func nodeUUID(c *Config, v string) error {
	if !uuidForm.MatchString(v) {
		return errors.New("must be a UUID")
	}
	c.NodeUUID = strings.ToLower(v)
	return nil
}

var hostForm = regexp.MustCompile(`^[a-zA-Z0-9:][a-zA-Z0-9.:_-]{0,252}$`)

func host(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error {
		if !hostForm.MatchString(v) {
			return errors.New("must be a host name or an address")
		}
		*field(c) = v
		return nil
	}
}
