// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
)

// A Setting is one thing that can be set from outside. The table [Settings] holds all;
// docs/kernel-parameters.md is written from it.
type Setting struct {
	Param   string                          // name on the kernel command line and in parameters.txt; "" if it cannot be given there
	Option  string                          // name in [DEFAULT] of a configuration file, or "[section] name"; "" if it cannot be given there
	Default string                          // in the same form as from outside
	Secret  bool                            // the value is never shown
	Help    string                          // one sentence for people
	set     func(c *Config, v string) error // nil: read before there are settings, and only on the kernel command line
}

// imageKeys is the one parameter that must not be left empty: that would stand for any image will do.
const imageKeys = "ironhand-image-public-key"

// Settings are all settings of the agent, in the order in which they are documented. The names
// that begin with ipa- are ironic-python-agent's; those with ironhand- are our own. What ironic-python-agent
// has beyond them is in [Unused].
func Settings() []Setting {
	return append([]Setting{
		{"ipa-api-url", "api_url", "", false, "URLs of the Ironic API, separated by commas, each http:// or https://; or `mdns`: the API is looked for by multicast DNS.", apiURLs},
		{"ipa-agent-token", "agent_token", "", true, "The pregenerated agent token of a virtual media boot.", secret(func(c *Config) *ironic.Secret { return &c.Token })},
		{"ironhand-node-uuid", "", "", false, "UUID of the node; the lookup then asks for it instead of the MACs alone.", nodeUUID},
		{"boot_method", "", "", false, "`vmedia`: the machine was booted from virtual media, so configuration media are looked for. Kernel command line only.", nil},
		{"BOOTIF", "", "", false, "MAC of the NIC that the machine was booted from, for the inventory. Kernel command line only.", nil},
		{"ipa-debug", "debug", "false", false, "Log more. The parameter counts more than the option, wherever that is given.", boolean(func(c *Config) *bool { return &c.Debug })},
		{"ipa-listen-host", "listen_host", "::", false, "Address on which the API listens; `::` is all, IPv4 too.", host(func(c *Config) *string { return &c.ListenHost })},
		{"ipa-listen-port", "listen_port", "9999", false, "Port on which the API listens.", port(func(c *Config) *int { return &c.ListenPort })},
		{"ipa-advertise-host", "advertise_host", "", false, "Address that the conductor is told to call; without it the one from which the API was reached.", host(func(c *Config) *string { return &c.AdvertiseHost })},
		{"ipa-advertise-port", "advertise_port", "", false, "Port that the conductor is told to call; without it the one on which the API listens.", port(func(c *Config) *int { return &c.AdvertisePort })},
		{"ipa-advertise-protocol", "advertise_protocol", "http", false, "`https`: a proxy in front of an agent without TLS has it (see `ironhand-plain-http`). An agent with TLS always says https.", oneOf(func(c *Config) *string { return &c.AdvertiseProtocol }, "http", "https")},
		{"ipa-network-interface", "network_interface", "", false, "The conductor is told to call the IPv4 address of this NIC.", text(func(c *Config) *string { return &c.NetworkInterface })},
		{"ipa-ip-lookup-attempts", "ip_lookup_attempts", "6", false, "How often the address to advertise is looked for.", number(func(c *Config) *int { return &c.IPAttempts })},
		{"ipa-ip-lookup-timeout", "ip_lookup_sleep", "10", false, "Seconds between two of these looks.", seconds(func(c *Config) *time.Duration { return &c.IPSleep })},
		{"ipa-lookup-timeout", "lookup_timeout", "600", false, "Seconds after which a lookup without answer is given up; the agent is then started again.", positive(func(c *Config) *time.Duration { return &c.LookupTimeout })},
		{"ipa-lookup-interval", "lookup_interval", "1", false, "Least seconds between two lookups.", seconds(func(c *Config) *time.Duration { return &c.LookupInterval })},
		{"ipa-http-request-timeout", "http_request_timeout", "30", false, "Seconds for one request to the Ironic API.", positive(func(c *Config) *time.Duration { return &c.RequestTimeout })},
		{"ipa-ironic-api-version", "ironic_api_version", "", false, "The API version to use, such as `1.68`, instead of asking.", text(func(c *Config) *string { return &c.APIVersion })},
		{"ipa-global-request-id", "global_request_id", "", false, "Sent as X-OpenStack-Request-ID with every request.", text(func(c *Config) *string { return &c.RequestID })},
		{"ipa-insecure", "insecure", "false", false, "Do not verify the certificate of the Ironic API and of image servers. The console says so.", boolean(func(c *Config) *bool { return &c.Insecure })},
		{"", "cafile", "", false, "File of CA certificates, on the configuration medium or in the ramdisk; with it no other CA is trusted.", text(func(c *Config) *string { return &c.CAFile })},
		{"", "certfile", "", false, "File with a certificate, PEM, by which the agent proves itself to the Ironic API and to image servers that ask for one. On the configuration medium or in the ramdisk.", text(func(c *Config) *string { return &c.ClientCertFile })},
		{"", "keyfile", "", false, "File with the private key of `certfile`.", text(func(c *Config) *string { return &c.ClientKeyFile })},
		{"", "listen_tls", "false", false, "The API shows the certificate in `tls_cert_file` instead of one that is made at boot. The conductor has to trust it already.", boolean(func(c *Config) *bool { return &c.ListenTLS })},
		{"", "tls_cert_file", "", false, "File with the API's certificate, PEM, and those of its issuers. On the configuration medium or in the ramdisk. Counts with `listen_tls`, or if `enable_auto_tls` is off.", text(func(c *Config) *string { return &c.APICertFile })},
		{"", "tls_key_file", "", false, "File with the private key of `tls_cert_file`.", text(func(c *Config) *string { return &c.APIKeyFile })},
		{"", "[ssl] cert_file", "", false, "Old name of `tls_cert_file`.", text(func(c *Config) *string { return &c.APICertFile })},
		{"", "[ssl] key_file", "", false, "Old name of `tls_key_file`.", text(func(c *Config) *string { return &c.APIKeyFile })},
		{"", "enable_auto_tls", "true", false, "Make a certificate at boot, which reaches the conductor with the heartbeat. Without it and without a certificate of one's own the agent serves only with `ironhand-plain-http`.", boolean(func(c *Config) *bool { return &c.AutoTLS })},
		{"", "auto_tls_allowed_clock_skew", "3600", false, "Seconds by which the API's certificate is valid before it was made.", seconds(func(c *Config) *time.Duration { return &c.CertificateSkew })},
		{"ironhand-plain-http", "", "false", false, "Where the API cannot have TLS (an Ironic API older than 1.68, or `enable_auto_tls` off) it is served in the clear, the token with it. Otherwise the agent refuses to serve. The console says so.", boolean(func(c *Config) *bool { return &c.PlainHTTP })},
		{"ipa-tls-min-version", "tls_min_version", "1.2", false, "Lowest TLS version, `1.2` or `1.3`, of the API and of what the agent calls. What the conductor says in the lookup counts more.", oneOf(func(c *Config) *string { return &c.TLSMinVersion }, "1.2", "1.3")},
		{"ipa-tls-cipher-suites", "tls_cipher_suites", "", false, "Cipher suites of TLS 1.2, by OpenSSL's names with colons between, of the API and of what the agent calls. What the conductor says in the lookup counts more. If none is known, as of `HIGH:!aNULL`, the default counts, and the console says so.", text(func(c *Config) *string { return &c.TLSCiphers })},
		{"ipa-tls-certificate-curve", "tls_certificate_curve", "p384", false, "Curve of the API's certificate: `p256`, `p384` or `p521`.", oneOf(func(c *Config) *string { return &c.Curve }, "p256", "p384", "p521")},
		{"ipa-enable-vlan-interfaces", "enable_vlan_interfaces", "", false, "VLAN interfaces to make, separated by commas, for the inventory; they get no addresses. `eth0.100` or `52:54:00:aa:bb:01.100` is one; `eth0` is all that its switch announces by LLDP, and `all` is that on all interfaces, if the machine is inspected and listens for LLDP.", texts(func(c *Config) *[]string { return &c.VLANs })},
		{"ipa-ntp-server", "ntp_server", "", false, "NTP server that sets the clock at start.", host(func(c *Config) *string { return &c.NTPServer })},
		{"", "fail_if_clock_not_set", "false", false, "With an NTP server: go no further if the clock cannot be set at start.", boolean(func(c *Config) *bool { return &c.ClockMust })},
		{"ipa-hardware-initialization-delay", "hardware_initialization_delay", "0", false, "Seconds to wait, before the network is brought up, for hardware that takes long to appear.", seconds(func(c *Config) *time.Duration { return &c.HardwareDelay })},
		{"ipa-image-download-connection-timeout", "image_download_connection_timeout", "60", false, "Seconds without a byte after which a download's connection counts as broken.", positive(func(c *Config) *time.Duration { return &c.Stall })},
		{"ipa-image-download-connection-retries", "image_download_connection_retries", "9", false, "With the next one: so many times so many seconds (and at least a minute) without any progress end a download.", number(func(c *Config) *int { return &c.Retries })},
		{"ipa-image-download-connection-retry-interval", "image_download_connection_retry_interval", "10", false, "See the one before.", seconds(func(c *Config) *time.Duration { return &c.RetryInterval })},
		{"ipa-image-download-max-duration", "image_download_max_duration", "0", false, "Seconds that a whole download may take; 0 is no limit.", seconds(func(c *Config) *time.Duration { return &c.DownloadLimit })},
		{"", "image_server_auth_strategy", "noauth", false, "`http_basic`: image servers get `image_server_user` and `image_server_password`, unless the conductor says with the image how to log in.", oneOf(func(c *Config) *string { return &c.ImageAuth }, "noauth", "http_basic")},
		{"", "image_server_user", "", false, "See the one before.", text(func(c *Config) *string { return &c.ImageUser })},
		{"", "image_server_password", "", true, "See the one before.", secret(func(c *Config) *ironic.Secret { return &c.ImagePassword })},
		{"", "md5_enabled", "true", false, "Take an image whose only digest is MD5 or SHA-1. What the conductor says in the lookup counts more.", boolean(func(c *Config) *bool { return &c.MD5Enabled })},
		{"", "permitted_image_formats", "raw,gpt,qcow2", false, "Formats that an image may have whose format the conductor does not know. What the conductor says in the lookup counts more.", texts(func(c *Config) *[]string { return &c.ImageFormats })},
		{"", "disable_deep_image_inspection", "false", false, "Do not hold images against `permitted_image_formats`. Images are looked into, and unsafe ones refused, all the same. What the conductor says in the lookup counts more.", boolean(func(c *Config) *bool { return &c.AnyImageFormat })},
		{"ipa-ignore-bootloader-failure", "ignore_bootloader_failure", "false", false, "A boot entry that cannot be made does not fail the deployment.", boolean(func(c *Config) *bool { return &c.IgnoreBootloader })},
		{"ipa-disk-wait-attempts", "disk_wait_attempts", "10", false, "How often to look for a disk that fits the root device hints before an image is written.", number(func(c *Config) *int { return &c.DiskAttempts })},
		{"ipa-disk-wait-delay", "disk_wait_delay", "3", false, "Seconds between two of these looks.", seconds(func(c *Config) *time.Duration { return &c.DiskDelay })},
		{"ipa-inject-files-priority", "inject_files_priority", "0", false, "Priority of the step `inject_files`: 0 is never by itself, 41 to 79 after an image is written.", number(func(c *Config) *int { return &c.InjectPriority })},
		{"", "[disk_utils] efi_system_partition_size", "550", false, "MiB of the EFI system partition that a disk gets for a partition image: 32 to 1024.", number(func(c *Config) *int { return &c.ESPSize })},
		{"", "[disk_utils] bios_boot_partition_size", "1", false, "MiB of the BIOS boot partition that it gets where BIOS starts a disk with GPT.", number(func(c *Config) *int { return &c.BIOSBootSize })},
		{"ipa-guard-special-filesystems", "guard-special-filesystems", "true", false, "Disks with file systems that other machines may be using (VMFS, GPFS, GFS2) are not erased.", boolean(func(c *Config) *bool { return &c.GuardSpecial })},
		{"ipa-use-mdns", "[mdns] use_mdns", "false", false, "Without `ipa-api-url`, look for the API by multicast DNS. Anyone on the network can answer: the API's certificate is what proves it, so `cafile` should be given, and what is announced with http:// is refused without `ipa-insecure`.", boolean(func(c *Config) *bool { return &c.UseMDNS })},
		{"", "[mdns] allowed_overrides", "inspection_callback_url,ntp_server", false, "Options that an answer to multicast DNS may set.", texts(func(c *Config) *[]string { return &c.MDNSOverrides })},
		{"", "[mdns] lookup_attempts", "3", false, "How often multicast DNS is asked.", number(func(c *Config) *int { return &c.MDNSAttempts })},
		{"", "[mdns] interfaces", "", false, "Addresses of this machine, separated by commas, on whose NICs multicast DNS is asked; without it all.", addresses(func(c *Config) *[]netip.Addr { return &c.MDNSInterfaces })},
		{imageKeys, "", "", false, "Public keys, separated by commas, each a file on the configuration medium or in the ramdisk, or the key itself as minisign prints it. With it only images are written that have a valid signature by one of them, as `minisign` or `cosign sign-blob --key` makes it, beside them: URL of the image and `.minisig`, or `.sig`.", func(c *Config, v string) error {
			if c.ImageKeyNames = commaWords(v); len(c.ImageKeyNames) == 0 {
				return errors.New("there is no key in it")
			}
			return nil
		}},
		{"ironhand-read-back", "", "sample", false, "How much of a written image is read back and compared: `none`, `sample` or `full`.", func(c *Config, v string) error { return c.ReadBack.UnmarshalText([]byte(v)) }},
		{"ironhand-kexec-watchdog", "", "0", false, "Seconds after which the watchdog resets the machine if the system started by kexec has not taken it over; 0 arms none. Only for systems that drive the watchdog.", seconds(func(c *Config) *time.Duration { return &c.KexecWatchdog })},
		{"ironhand-torrent-port", "", "0", false, "Port on which other nodes fetch the image from this one, if it comes by BitTorrent: 0 is any.", func(c *Config, v string) error {
			if v == "0" {
				c.TorrentPort = 0
				return nil
			}
			return port(func(c *Config) *int { return &c.TorrentPort })(c, v)
		}},
		{"ironhand-torrent-peers", "", "", false, "Networks, separated by commas, that these other nodes, and all who share the image, may be in: `192.0.2.0/24,2001:db8::/64`. Without it all who the tracker names.", networks(func(c *Config) *[]netip.Prefix { return &c.TorrentPeers })},
		{"ironhand-torrent-up", "", "0", false, "KiB per second that are sent to others at the most; 0 is no limit.", number(func(c *Config) *int { return &c.TorrentUp })},
		{"ironhand-torrent-down", "", "0", false, "KiB per second that are taken from others at the most; 0 is no limit.", number(func(c *Config) *int { return &c.TorrentDown })},
		{"ironhand-torrent-share", "", "0", false, "Seconds that the agent, when it is to leave, goes on sharing the image first, so that the other nodes of a rack get it. The conductor has to wait as long for the node to go off.", seconds(func(c *Config) *time.Duration { return &c.TorrentShare })},
		{"ironhand-torrent-ratio", "", "0", false, "With the one before: leave sooner, when so many copies of the image were sent; 0 is never.", number(func(c *Config) *int { return &c.TorrentRatio })},
		{"ironhand-ssh-key", "", "", false, "A public key that lets root log in by SSH while the agent runs, for debugging: the long word in the middle of a line of authorized_keys. More may be in `ironhand/authorized_keys` on a medium. There is no login otherwise.", text(func(c *Config) *string { return &c.SSHKey })},
		{"ironhand-rescue-network", "", followPorts, false, "After `rescue.finalize_rescue`: `follow` asks for addresses again on all NICs, because Ironic moves the ports to the tenant's network; `keep` leaves the network as it is.", oneOf(func(c *Config) *string { return &c.RescueNetwork }, followPorts, keepNetwork)},
		{"ironhand-poll", "", "false", false, "The conductor is not called and asks by itself: no lookup, no heartbeats, and `ipa-agent-token` is needed. The conductor says which node this is by `poll.set_node_info`.", boolean(func(c *Config) *bool { return &c.Poll })},
		{"ironhand-strict-network", "", "false", false, "Do not go on if anything is wrong with the description of the network. Otherwise what is sound is brought up, and the console says what was left out.", boolean(func(c *Config) *bool { return &c.StrictNetwork })},
		{"ironhand-set-rtc", "", "false", false, "When the clock is set, set the one on the board too, in UTC. Otherwise that is never written.", boolean(func(c *Config) *bool { return &c.SetRTC })},
		{"ironhand-burnin", "", "", false, "`menu`: instead of the agent, the menu of burn-in on every console, without any network; or the name of a profile, which is started without asking. Anybody at the console is root then. Kernel command line only.", nil},
		{"ironhand-burnin-disks", "", "", false, "The disks that a profile of `ironhand-burnin` overwrites, as in `ironhand burnin --disks`. One that holds data is refused. Kernel command line only.", nil},
		{"ironhand.shell", "", "", false, "`1`: an emergency shell on the consoles beside the agent; `only`: without the agent. Anybody at the console is root then. Kernel command line only.", nil},
	}, inspectionSettings()...)
}

// An UnusedSetting is one that ironic-python-agent has and that does nothing here.
type UnusedSetting struct {
	Param  string // as in [Setting]
	Option string
	Reason string // a sentence, which follows "has no effect: "
}

// Unused are the settings of ironic-python-agent that do nothing here, with the reason. Together with [Settings]
// they are all that it has. If one of them is given, the console says so.
func Unused() []UnusedSetting {
	const (
		daemon     = "it is for the program ironic-collect-introspection-data, which runs on computers without the agent; there, `ironhand inspect` says what a machine is made of"
		otherWay   = "disks are opened exclusively and asked by system calls, without the programs that this is about"
		noConvert  = "no image is converted: it is unpacked while it is written, within a fixed amount of memory"
		noMetrics  = "no metrics are sent"
		containers = "the ramdisk has no container runtime, and no steps in containers are offered"
		ownLog     = "the log goes to the consoles and to /run/ironhand/log, whose size is limited, and the conductor can collect it"
	)
	return []UnusedSetting{
		{"ipa-inspection-benchmarks", "", "inspection says what a machine is made of, and runs no benchmarks"},
		{"", "introspection_daemon", daemon},
		{"", "introspection_daemon_post_interval", daemon},
		{"", "config_drive_rebuild", "what a config drive needs for the disk's sectors is done without it, and what was written is read back"},
		{"", "disable_bootc_deploy", "container images are never deployed"},
		{"", "[container] allow_arbitrary_containers", containers},
		{"", "[container] allowed_containers", containers},
		{"", "[container] container_steps_file", containers},
		{"", "[container] runner", containers},
		{"", "[container] pull_options", containers},
		{"", "[container] run_options", containers},
		{"ipa-agent-token-required", "agent_token_required", "a token is always required"},
		{"", "enable_bios_bootloader_install", "a boot loader is installed without it: no program of an image is run for that, which was the hole CVE-2026-43003"},
		{"", "[disk_utils] dd_block_size", otherWay},
		{"", "[disk_utils] partition_detection_attempts", otherWay},
		{"", "[disk_utils] partprobe_attempts", otherWay},
		{"", "[disk_partitioner] check_device_interval", otherWay},
		{"", "[disk_partitioner] check_device_max_retries", otherWay},
		{"", "[disk_utils] image_convert_memory_limit", noConvert},
		{"", "[disk_utils] image_convert_attempts", noConvert},
		{"", "[metrics] backend", noMetrics},
		{"", "[metrics] prepend_host", noMetrics},
		{"", "[metrics] prepend_host_reverse", noMetrics},
		{"", "[metrics] global_prefix", noMetrics},
		{"", "[metrics_statsd] statsd_host", noMetrics},
		{"", "[metrics_statsd] statsd_port", noMetrics},
		{"", "[mdns] params", "it is for services that announce themselves, which the agent does not"},
		{"", "log_file", ownLog},
		{"", "log_dir", ownLog},
		{"", "use_stderr", ownLog},
	}
}

func secret(field func(*Config) *ironic.Secret) func(*Config, string) error {
	return func(c *Config, v string) error { *field(c) = ironic.Secret(v); return nil }
}

// texts takes words with commas between.
func texts(field func(*Config) *[]string) func(*Config, string) error {
	return func(c *Config, v string) error { *field(c) = commaWords(v); return nil }
}

func commaWords(s string) []string {
	words := []string{}
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	return words
}

func addresses(field func(*Config) *[]netip.Addr) func(*Config, string) error {
	return func(c *Config, v string) error {
		var parsed []netip.Addr
		for _, word := range commaWords(v) {
			a, err := netip.ParseAddr(word)
			if err != nil {
				return errors.New("must be IP addresses with commas between")
			}
			parsed = append(parsed, a.Unmap())
		}
		*field(c) = parsed
		return nil
	}
}

func networks(field func(*Config) *[]netip.Prefix) func(*Config, string) error {
	return func(c *Config, v string) error {
		var parsed []netip.Prefix
		for _, word := range commaWords(v) {
			p, err := netip.ParsePrefix(word)
			if err != nil {
				return errors.New("must be networks such as 192.0.2.0/24, with commas between")
			}
			parsed = append(parsed, p.Masked())
		}
		*field(c) = parsed
		return nil
	}
}

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
