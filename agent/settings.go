// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
)

// A Setting is one thing that can be set from outside. The table [Settings] holds all;
// docs/kernel-parameters.md is written from it.
type Setting struct {
	Param   string // name on the kernel command line and in parameters.txt; "" if it cannot be given there
	Option  string // name in [DEFAULT] of a configuration file; "" if it cannot be given there
	Default string // in the same form as from outside
	Secret  bool   // the value is never shown
	Help    string // one sentence for people
	set     func(c *Config, v string) error
}

// Settings are all settings of the agent, in the order in which they are documented. The names
// that begin with ipa- are ironic-python-agent's; those with ironhand- are our own.
func Settings() []Setting {
	return []Setting{
		{"ipa-api-url", "api_url", "", false, "URLs of the Ironic API, separated by commas, each http:// or https://.", urls},
		{"ipa-agent-token", "agent_token", "", true, "The pregenerated agent token of a virtual media boot.", func(c *Config, v string) error { c.Token = ironic.Secret(v); return nil }},
		{"ironhand-node-uuid", "", "", false, "UUID of the node; the lookup then asks for it instead of the MACs alone.", nodeUUID},
		{"boot_method", "", "", false, "`vmedia`: the machine was booted from virtual media, so configuration media are looked for. Kernel command line only.", elsewhere},
		{"ipa-debug", "debug", "false", false, "Log more.", boolean(func(c *Config) *bool { return &c.Debug })},
		{"ipa-listen-host", "listen_host", "::", false, "Address on which the API listens; `::` is all, IPv4 too.", host(func(c *Config) *string { return &c.ListenHost })},
		{"ipa-listen-port", "listen_port", "9999", false, "Port on which the API listens.", port(func(c *Config) *int { return &c.ListenPort })},
		{"ipa-advertise-host", "advertise_host", "", false, "Address that the conductor is told to call; without it the one from which the API was reached.", host(func(c *Config) *string { return &c.AdvertiseHost })},
		{"ipa-advertise-port", "advertise_port", "", false, "Port that the conductor is told to call; without it the one on which the API listens.", port(func(c *Config) *int { return &c.AdvertisePort })},
		{"ipa-lookup-timeout", "lookup_timeout", "600", false, "Seconds after which a lookup without answer is given up; the agent is then started again.", positive(func(c *Config) *time.Duration { return &c.LookupTimeout })},
		{"ipa-lookup-interval", "lookup_interval", "1", false, "Least seconds between two lookups.", seconds(func(c *Config) *time.Duration { return &c.LookupInterval })},
		{"ipa-http-request-timeout", "http_request_timeout", "30", false, "Seconds for one request to the Ironic API.", positive(func(c *Config) *time.Duration { return &c.RequestTimeout })},
		{"ipa-ironic-api-version", "ironic_api_version", "", false, "The API version to use, such as `1.68`, instead of asking.", text(func(c *Config) *string { return &c.APIVersion })},
		{"ipa-global-request-id", "global_request_id", "", false, "Sent as X-OpenStack-Request-ID with every request.", text(func(c *Config) *string { return &c.RequestID })},
		{"ipa-insecure", "insecure", "false", false, "Do not verify the certificate of the Ironic API and of image servers. The console says so.", boolean(func(c *Config) *bool { return &c.Insecure })},
		{"", "cafile", "", false, "File of CA certificates, on the configuration medium or in the ramdisk; with it no other CA is trusted.", text(func(c *Config) *string { return &c.CAFile })},
		{"ipa-tls-min-version", "tls_min_version", "1.2", false, "Lowest TLS version, `1.2` or `1.3`.", tlsVersion},
		{"ipa-tls-certificate-curve", "tls_certificate_curve", "p384", false, "Curve of the API's certificate: `p256`, `p384` or `p521`.", oneOf(func(c *Config) *string { return &c.Curve }, "p256", "p384", "p521")},
		{"", "auto_tls_allowed_clock_skew", "3600", false, "Seconds by which the API's certificate is valid before it was made.", seconds(func(c *Config) *time.Duration { return &c.CertificateSkew })},
		{"ipa-ntp-server", "ntp_server", "", false, "NTP server that sets the clock at start.", host(func(c *Config) *string { return &c.NTPServer })},
		{"ipa-image-download-connection-timeout", "image_download_connection_timeout", "60", false, "Seconds without a byte after which a download's connection counts as broken.", positive(func(c *Config) *time.Duration { return &c.Stall })},
		{"ipa-image-download-connection-retries", "image_download_connection_retries", "9", false, "With the next one: so many times so many seconds (and at least a minute) without any progress end a download.", number(func(c *Config) *int { return &c.Retries })},
		{"ipa-image-download-connection-retry-interval", "image_download_connection_retry_interval", "10", false, "See the one before.", seconds(func(c *Config) *time.Duration { return &c.RetryInterval })},
		{"ipa-image-download-max-duration", "image_download_max_duration", "0", false, "Seconds that a whole download may take; 0 is no limit.", seconds(func(c *Config) *time.Duration { return &c.DownloadLimit })},
		{"ipa-disk-wait-attempts", "disk_wait_attempts", "10", false, "How often to look for a disk that fits the root device hints before an image is written.", number(func(c *Config) *int { return &c.DiskAttempts })},
		{"ipa-disk-wait-delay", "disk_wait_delay", "3", false, "Seconds between two of these looks.", seconds(func(c *Config) *time.Duration { return &c.DiskDelay })},
		{"ironhand-read-back", "", "sample", false, "How much of a written image is read back and compared: `none`, `sample` or `full`.", func(c *Config, v string) error { return c.ReadBack.UnmarshalText([]byte(v)) }},
		{"ironhand-kexec-watchdog", "", "0", false, "Seconds after which the watchdog resets the machine if the system started by kexec has not taken it over; 0 arms none. Only for systems that drive the watchdog.", seconds(func(c *Config) *time.Duration { return &c.KexecWatchdog })},
		{"ironhand-ssh-key", "", "", false, "A public key that lets root log in by SSH while the agent runs, for debugging: the long word in the middle of a line of authorized_keys. More may be in `ironhand/authorized_keys` on a medium. There is no login otherwise.", text(func(c *Config) *string { return &c.SSHKey })},
		{"ironhand-poll", "", "false", false, "The conductor is not called and asks by itself: no lookup, no heartbeats, and `ipa-agent-token` is needed. The conductor says which node this is by `poll.set_node_info`.", boolean(func(c *Config) *bool { return &c.Poll })},
		{"ironhand-strict-network", "", "false", false, "Do not go on if anything is wrong with the description of the network. Otherwise what is sound is brought up, and the console says what was left out.", boolean(func(c *Config) *bool { return &c.StrictNetwork })},
		{"ironhand.shell", "", "", false, "`1`: an emergency shell on the consoles beside the agent; `only`: without the agent. Anybody at the console is root then. Kernel command line only.", elsewhere},
	}
}

// elsewhere is for what is read before there are settings, and is here to be documented.
func elsewhere(*Config, string) error { return nil }

func text(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error { *field(c) = v; return nil }
}

func oneOf(field func(*Config) *string, allowed ...string) func(*Config, string) error {
	return func(c *Config, v string) error {
		for _, a := range allowed {
			if strings.EqualFold(v, a) {
				*field(c) = a
				return nil
			}
		}
		return fmt.Errorf("must be one of %s", strings.Join(allowed, ", "))
	}
}

// boolean takes the words that oslo.config takes.
func boolean(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) error {
		switch strings.ToLower(v) {
		case "true", "1", "yes", "on", "t", "y":
			*field(c) = true
		case "false", "0", "no", "off", "f", "n":
			*field(c) = false
		default:
			return errors.New("must be true or false")
		}
		return nil
	}
}

func number(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > 1_000_000 {
			return errors.New("must be a number from 0 to 1000000")
		}
		*field(c) = n
		return nil
	}
}

func port(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 65535 {
			return errors.New("must be a port from 1 to 65535")
		}
		*field(c) = n
		return nil
	}
}

func seconds(field func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || !(n >= 0 && n <= 10*365*24*3600) {
			return errors.New("must be a number of seconds")
		}
		*field(c) = time.Duration(n * float64(time.Second))
		return nil
	}
}

// positive is seconds, but not 0.
func positive(field func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		var d time.Duration
		if err := seconds(func(*Config) *time.Duration { return &d })(c, v); err != nil || d == 0 {
			return errors.New("must be a number of seconds, and not 0")
		}
		*field(c) = d
		return nil
	}
}
