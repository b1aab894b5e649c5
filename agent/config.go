// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	APIURLs         []string
	Token           ironic.Secret
	NodeUUID        string
	Debug           bool
	ListenHost      string
	ListenPort      int
	AdvertiseHost   string
	AdvertisePort   int
	LookupTimeout   time.Duration
	LookupInterval  time.Duration
	RequestTimeout  time.Duration
	APIVersion      string
	RequestID       string
	Insecure        bool
	CAFile          string
	TLSMinVersion   string
	Curve           string
	CertificateSkew time.Duration
	NTPServer       string
	Stall           time.Duration
	Retries         int
	RetryInterval   time.Duration
	DownloadLimit   time.Duration
	DiskAttempts    int
	DiskDelay       time.Duration
	ReadBack        stream.ReadBack
	KexecWatchdog   time.Duration
	Poll            bool
	SSHKey          string
	StrictNetwork   bool

	// CA is the content of CAFile, found on a medium or in the ramdisk; nil without one.
	CA []byte
	// NetworkData is network_data.json, and NetworkFrom where it was found; nil if there is none.
	NetworkData []byte
	NetworkFrom string
	// SSHKeys are lines of authorized_keys, of SSHKey and of the media.
	SSHKeys []string
	// Origins says where each value that is not built in came from, for the log. Values
	// of secrets are masked.
	Origins []Origin
}

// An Origin is one value and where it came from.
type Origin struct{ Name, Value, From string }

func (o Origin) String() string { return fmt.Sprintf("%s=%s (%s)", o.Name, o.Value, o.From) }

// Sources are the places that settings come from. Weak to strong: built in, the ramdisk's
// file, the media, the kernel command line, and by hand the program's own flags.
type Sources struct {
	Ramdisk fs.FS             // "/" of the ramdisk, for etc/ironhand/parameters.txt and CA files
	Media   []media.Medium    // the first is the strongest
	Cmdline string            // /proc/cmdline
	Flags   map[string]string // of the program's command line, by the names of kernel parameters
}

// ramdiskFile holds settings for every machine that boots this ramdisk, as words key=value.
const ramdiskFile = "etc/ironhand/parameters.txt"

// ParseConfig puts the settings together. What is wrong is reported all at once, with the
// setting's name and where it came from; a value that cannot be read is never replaced by
// another one.
func ParseConfig(s Sources) (Config, error) {
	var c Config
	var errs []error
	settings := Settings()
	byName := map[string]Setting{}
	for _, one := range settings {
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
	origins := map[string]Origin{}
	apply := func(from, prefix string, values map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			one, known := byName[prefix+name]
			if !known || one.set == nil {
				continue // other programs have parameters too
			}
			shown := passwords.ReplaceAllString(values[name], "//***@")
			if one.Secret {
				shown = "***"
			}
			if err := one.set(&c, values[name]); err != nil {
				errs = append(errs, fmt.Errorf("%s=%s from %s: %w", name, shown, from, err))
				continue
			}
			key := one.Param + " " + one.Option
			origins[key] = Origin{name, shown, from}
		}
	}

	// 1. The ramdisk's own file.
	if b, err := fs.ReadFile(s.Ramdisk, ramdiskFile); err == nil {
		apply("ramdisk /"+ramdiskFile, "", words(string(b)))
	} else if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("read settings of the ramdisk: %w", err))
	}
	// 2. The media, weakest first.
	for _, m := range slices.Backward(s.Media) {
		from := m.Kind + " " + m.Device
		params, err := m.Parameters()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %w", m.Kind, err)) // it names the device
		}
		for _, name := range slices.Sorted(maps.Keys(m.Files)) {
			if dir, file := path.Split(name); dir == "etc/ironic-python-agent.d/" && strings.HasSuffix(file, ".conf") {
				values, err := parseINI(m.Files[name])
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %s: %w", from, name, err))
				}
				apply(from+" "+name, "option ", values)
			}
		}
		apply(from+" parameters.txt", "", params)
		if b, found := m.Files[networkDataFile]; found {
			c.NetworkData, c.NetworkFrom = b, from+" "+networkDataFile
		}
	}
	// 3. The kernel command line.
	apply("kernel command line", "", words(s.Cmdline))
	// 4. By hand.
	apply("flag", "", s.Flags)

	if c.AdvertisePort == 0 {
		c.AdvertisePort = c.ListenPort
	}
	if c.CAFile != "" {
		if err := c.readCA(s); err != nil {
			errs = append(errs, err)
		}
	}
	var keys strings.Builder
	for _, m := range s.Media {
		fmt.Fprintf(&keys, "%s\n", m.Files[keysFile])
	}
	ssh, err := authorizedKeys(c.SSHKey, keys.String())
	if err != nil {
		errs = append(errs, err)
	}
	c.SSHKeys = ssh
	for _, key := range slices.Sorted(maps.Keys(origins)) {
		c.Origins = append(c.Origins, origins[key])
	}
	return c, errors.Join(errs...)
}

const networkDataFile = "openstack/latest/network_data.json"

// readCA finds the CA file on a medium, where a conductor puts it for us, or in the ramdisk.
func (c *Config) readCA(s Sources) error {
	name := strings.TrimPrefix(path.Clean(c.CAFile), "/")
	for _, m := range s.Media {
		if b, found := m.Files[name]; found {
			c.CA = b
			return nil
		}
	}
	// The name may come from a medium: it must not lead to a device that never ends.
	info, err := fs.Stat(s.Ramdisk, name)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxCA) {
		err = fmt.Errorf("not a file of at most %d bytes", maxCA)
	}
	if err == nil {
		c.CA, err = fs.ReadFile(s.Ramdisk, name)
	}
	if err != nil {
		return fmt.Errorf("cafile %s: neither on a configuration medium nor in the ramdisk: %w", c.CAFile, err)
	}
	return nil
}

// maxCA is ten times the size of a bundle of all public CAs.
const maxCA = 2 << 20

// passwords finds user and password in URLs.
var passwords = regexp.MustCompile(`//[^/\s]*@`)

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

// parseINI reads [DEFAULT] of a file as oslo.config reads it, but for values that go on in the next line. Other
// sections are left out. Errors do not repeat the file, which may have secrets in it.
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
			if section == "DEFAULT" {
				m[strings.TrimSpace(line[:at])] = unquote(strings.TrimSpace(line[at+1:]))
			}
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

func urls(c *Config, v string) error {
	c.APIURLs = nil
	for one := range strings.SplitSeq(v, ",") {
		one = strings.TrimRight(strings.TrimSpace(one), "/")
		u, err := url.Parse(one)
		if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return errors.New("must be URLs that begin with http:// or https:// and name a host")
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

func tlsVersion(c *Config, v string) error {
	return oneOf(func(c *Config) *string { return &c.TLSMinVersion }, "1.2", "1.3")(c, v)
}
