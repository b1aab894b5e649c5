// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
)

// Run is the life of the agent, from the boot to the end. It returns when ctx ends, or with
// the error of the stage that failed, which the console has shown with what to check;
// process 1 then starts the agent again, with what it has kept of this boot.
func Run(ctx context.Context, o Options) error {
	a := newAgent(o)
	for _, stage := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"start", a.remember}, // does not return if an agent of this boot has retired
		{"media", a.findMedia},
		{"settings", a.readSettings},
		{"hardware", a.awaitHardware},
		{"network", a.bringUpNetwork},
		{"ssh", a.openForDebugging},
		{"discovery", a.discoverAPI},
		{"clock", a.setClockByNTP},
		{"conductor", a.reachConductor},
		{"hardware", a.takeInventory},
		{"inspection", a.inspectMachine}, // without an API, that is all
		{"lookup", a.lookUp},
		{"api", a.serve}, // heartbeats and commands, until the end
	} {
		if err := stage.run(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			a.sayLines(stage.name, "FAILED: "+err.Error())
			var hint *hintError
			if errors.As(err, &hint) {
				a.console.Stage(stage.name, "check: %s", hint.check)
			}
			return fmt.Errorf("%s: %w", stage.name, err)
		}
	}
	return nil
}

// sayLines shows a text of several lines, such as joined errors have.
func (a *agent) sayLines(stage, text string) {
	for line := range strings.Lines(text) {
		a.console.Stage(stage, "%s", strings.TrimRight(line, "\n"))
	}
}

// A hintError is an error with what a person should look at.
type hintError struct {
	error
	check string
}

func (e *hintError) Unwrap() error { return e.error }

func hint(err error, check string) error { return &hintError{err, check} }

// remember reads what an earlier agent of this boot did.
func (a *agent) remember(ctx context.Context) error {
	deployed, err := a.state.deployed()
	if err != nil {
		return fmt.Errorf("read what was deployed in this boot: %w", err)
	}
	a.deployed = deployed
	why, err := a.state.retired()
	if err != nil {
		return fmt.Errorf("read whether an earlier agent has retired: %w", err)
	}
	if why != "" {
		return a.rest(ctx, why)
	}
	return nil
}

// mediaAttempts is how often media are looked for, a second apart: a BMC may need time to attach
// them, and a USB disk to start. Some having been found, brokenAttempts is how often a device that
// cannot be read is tried: it may be one of them, or a card reader that was always broken.
const mediaAttempts, brokenAttempts = 20, 5

// findMedia reads the configuration media into memory, and keeps them for a restart of the agent:
// from here on the media may vanish. If a device could not be read, nothing is kept, because the next agent
// may find more.
func (a *agent) findMedia(ctx context.Context) error {
	cmdline := words(a.sys.Cmdline)
	if cmdline["boot_method"] != "vmedia" {
		a.console.Stage("media", "not looked for: boot_method=vmedia is not on the kernel command line")
		return nil
	}
	kept, err := a.state.media()
	if err != nil {
		return fmt.Errorf("read what was kept of the media: %w", err)
	}
	if len(kept) > 0 {
		a.setMedia(kept)
		a.console.Stage("media", "kept from the start of this boot: %s", mediaNames(kept))
		return nil
	}
	for attempt := 1; ; attempt++ {
		found, seen, err := a.sys.FindMedia(ctx, func(s string) { a.log.Debug(s) })
		found, strange := ofThisBoot(found, cmdline["ir_pub_id"])
		for _, m := range strange {
			if attempt == 1 {
				a.console.Stage("media", "%s %s, label %s: left out: it was published by %.60q, and ir_pub_id names another", m.Kind, m.Device, m.Label, m.Publisher)
			}
		}
		if len(found) > 0 && (err == nil || attempt >= brokenAttempts) {
			for _, m := range found {
				a.console.Stage("media", "%s %s, label %s: %d files", m.Kind, m.Device, m.Label, len(m.Files))
			}
			a.setMedia(found)
			if err != nil {
				a.sayLines("media", err.Error())
				a.console.Stage("media", "WARNING: going on without what could not be read; it may hold settings of this node")
				return nil
			}
			return a.state.keepMedia(found)
		}
		if attempt == mediaAttempts {
			for _, s := range seen {
				a.console.Stage("media", "%v", s)
			}
			if err == nil {
				err = errors.New("no configuration medium found")
			}
			if cmdline["ipa-api-url"] != "" || cmdline["ipa-use-mdns"] != "" { // an ISO that was made for one node says it all on the command line
				a.sayLines("media", err.Error()+"; going on with the kernel command line")
				return nil
			}
			return hint(err, "that the BMC has attached the medium with this node's configuration: a floppy, a CD or a USB disk below 4 GiB, with label ir-vfd-dev or config-2")
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// ofThisBoot sorts out CDs that somebody else published than the conductor has named for this boot: the config drive of a former tenant has the labels too. One without
// a publisher was made by hand. Source: ironic-python-agent-builder dib/ironic-python-agent-ramdisk/static/usr/local/bin/ironic-python-agent-resolve-configdrive.sh.
func ofThisBoot(found []media.Medium, publisher string) (own, strange []media.Medium) {
	for _, m := range found {
		if publisher != "" && m.Publisher != "" && !strings.EqualFold(m.Publisher, publisher) {
			strange = append(strange, m)
		} else {
			own = append(own, m)
		}
	}
	return own, strange
}

// setMedia also has the steps know whence the settings came: such a device is not erased.
func (a *agent) setMedia(list []media.Medium) {
	a.media, a.host.Media = list, mediaDevices(list)
}

func mediaDevices(list []media.Medium) (devices []string) {
	for _, m := range list {
		devices = append(devices, m.Device)
	}
	return devices
}

// parseSettings puts the settings together, with what multicast DNS has told by now.
func (a *agent) parseSettings(discovered map[string]string) (Config, error) {
	return ParseConfig(Sources{Ramdisk: a.sys.Root, Media: a.media, Cmdline: a.sys.Cmdline, Flags: a.flags, Discovered: discovered})
}

// readSettings puts the settings together, and says where each came from.
func (a *agent) readSettings(context.Context) error {
	config, err := a.parseSettings(nil)
	if err != nil {
		return hint(err, "the parameters on the medium and on the kernel command line")
	}
	for _, line := range config.Ignored {
		a.console.Stage("settings", "%s", line)
	}
	api := strings.Join(config.servers(), ", ")
	if config.UseMDNS || api == "" && config.Inspection.UseMDNS {
		api = "by multicast DNS"
	}
	a.console.Stage("settings", "%d given; API %s", len(config.Origins), api)
	if api == "" && !config.Poll {
		return hint(errors.New("no ipa-api-url given"), "that parameters.txt on the configuration medium, or the kernel command line, has ipa-api-url=https://...")
	}
	return a.useSettings(config)
}

// useSettings makes the settings count.
func (a *agent) useSettings(config Config) (err error) {
	a.config = config
	if config.Debug {
		a.level.Set(levelDebug)
	}
	for _, o := range config.Origins {
		a.log.Info("setting", "name", o.Name, "value", o.Value, "from", o.From)
	}
	if config.Insecure {
		a.console.Stage("settings", "WARNING: ipa-insecure: certificates of the conductor and of image servers are not verified")
	}
	a.trust, err = config.trust()
	if err != nil {
		return hint(err, "the CA file on the configuration medium: it must be PEM")
	}
	a.warnOfCiphers("settings", config.TLSMinVersion, config.TLSCiphers)
	a.host.Transport = a.imageTransport()
	a.host.Download = steps.Download{
		Stall:     config.Stall,
		Budget:    max(time.Minute, time.Duration(config.Retries+1)*config.RetryInterval),
		Limit:     config.DownloadLimit,
		RefuseMD5: !config.MD5Enabled,
		Formats:   config.ImageFormats,

		PublicKeys: config.ImageKeys,
		Torrent:    steps.Torrent{Port: config.TorrentPort, Peers: config.TorrentPeers, Up: int64(config.TorrentUp) << 10, Down: int64(config.TorrentDown) << 10},
	}
	a.host.Share = a.share
	if config.AnyImageFormat {
		a.host.Download.Formats = nil
	}
	if config.ImageAuth == "http_basic" {
		a.host.Download.BasicAuth = func() (string, string) { return config.ImageUser, config.ImagePassword.Reveal() }
	}
	a.host.ReadBack = config.ReadBack
	a.host.EraseSpecial = !config.GuardSpecial
	a.host.DiskAttempts, a.host.DiskDelay = config.DiskAttempts, config.DiskDelay
	a.host.ESPSize, a.host.BIOSBootSize = config.ESPSize, config.BIOSBootSize
	return nil
}

// imageTransport is how images are fetched.
func (a *agent) imageTransport() http.RoundTripper {
	stall := a.config.Stall
	return &http.Transport{
		TLSClientConfig:       a.trust.config(),
		Proxy:                 http.ProxyFromEnvironment,
		DisableCompression:    true,
		DialContext:           (&net.Dialer{Timeout: stall}).DialContext,
		TLSHandshakeTimeout:   stall,
		ResponseHeaderTimeout: stall,
	}
}

// awaitHardware waits for hardware that is known to be slow.
func (a *agent) awaitHardware(ctx context.Context) error {
	if a.config.HardwareDelay == 0 {
		return nil
	}
	a.console.Stage("hardware", "waiting for %v, as ipa-hardware-initialization-delay says", a.config.HardwareDelay)
	return sleep(ctx, a.config.HardwareDelay)
}

// setClockByNTP asks the NTP server that was given, else those that DHCP servers have named, and sets the clock. Anyone on the network can answer for NTP: if the
// conductor's time will be proven by its certificate, the clock waits for that, and NTP only makes it finer.
func (a *agent) setClockByNTP(context.Context) error {
	servers := a.ntpFound
	if a.config.NTPServer != "" {
		servers = []string{a.config.NTPServer}
	}
	for _, server := range servers {
		skew, err := askNTP(server)
		if err != nil {
			if a.config.ClockMust && a.config.NTPServer != "" {
				return hint(fmt.Errorf("NTP server %s: %w", server, err), "ipa-ntp-server and the way to it, or turn fail_if_clock_not_set off")
			}
			a.console.Stage("clock", "NTP server %s: %v; going on without", server, err)
			continue
		}
		a.ntp = &ntpAnswer{server, skew}
		if !a.config.Poll && a.trust.proves(a.config.servers()) {
			return nil
		}
		return a.setClock(skew, "NTP server "+server)
	}
	return nil
}

// reachConductor calls the Ironic API until it answers, explains what is in the way while it does
// not, and sets the clock from the answer, unless NTP has.
func (a *agent) reachConductor(ctx context.Context) error {
	if a.config.Poll {
		return nil // it comes to us
	}
	for start, attempt := time.Now(), 1; ; attempt++ {
		server, skew, err := a.measureAny(ctx)
		if err == nil {
			a.reached.Store(true)
			a.console.Stage("conductor", "%s answers", server)
			if err := a.chooseClock(server, skew); err != nil {
				return err
			}
			if a.sys.Network != nil {
				target := a.checkTarget()
				go a.explainWay(ctx, func() netconfig.Target { return target }) // what was reached by which way; nothing waits for it
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := min(30*time.Second, time.Second<<min(attempt, 5))
		a.sayLines("conductor", err.Error())
		if attempt == 2 || attempt%10 == 0 {
			a.explainNetwork(ctx)
		}
		if time.Since(start)+wait > a.config.LookupTimeout {
			return hint(err, "what the lines above say of the way to the conductor")
		}
		a.console.Stage("conductor", "next try in %v", wait)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// mostApart is how far NTP and the conductor may be apart.
const mostApart = time.Minute

// An ntpAnswer is how far the clock was behind an NTP server.
type ntpAnswer struct {
	server string
	skew   time.Duration
}

// chooseClock sets the clock, knowing how far it is behind the conductor, and perhaps what an NTP server said.
func (a *agent) chooseClock(conductor string, skew time.Duration) error {
	if a.ntp == nil {
		return a.setClock(skew, conductor)
	}
	proven := a.trust.proves([]string{conductor})
	apart := a.ntp.skew - skew
	if !proven {
		apart = -skew // the clock is set by NTP already
	}
	switch {
	case apart.Abs() > mostApart && proven:
		a.console.Stage("clock", "WARNING: NTP server %s and %s are %v apart; the latter is believed, because its certificate is verified", a.ntp.server, conductor, apart.Abs().Round(time.Second))
		return a.setClock(skew, conductor)
	case apart.Abs() > mostApart:
		a.console.Stage("clock", "WARNING: NTP server %s and %s are %v apart; the former is believed", a.ntp.server, conductor, apart.Abs().Round(time.Second))
	case proven:
		return a.setClock(a.ntp.skew, "NTP server "+a.ntp.server)
	}
	return nil
}

// measureAny asks the API's URLs in order for the time; the first that answers counts.
func (a *agent) measureAny(ctx context.Context) (server string, skew time.Duration, err error) {
	var errs []error
	for _, server := range a.config.servers() {
		ctx, cancel := context.WithTimeout(ctx, a.config.RequestTimeout)
		skew, err := a.trust.measure(ctx, server+"/")
		cancel()
		if err == nil {
			return server, skew, nil
		}
		errs = append(errs, err)
	}
	return "", 0, errors.Join(errs...)
}

// worthSetting is the skew from which on the clock is set: the Date header is no better.
const worthSetting = 2 * time.Second

func (a *agent) setClock(skew time.Duration, from string) error {
	if skew.Abs() < worthSetting {
		a.console.Stage("clock", "right within %v of %s", worthSetting, from)
		return nil
	}
	now := time.Now().Add(skew)
	text := fmt.Sprintf("this machine's is %s, says %s", skewText(skew), from)
	if err := a.sys.SetClock(now); err != nil {
		if a.config.ClockMust && a.config.NTPServer != "" {
			return hint(fmt.Errorf("%s; %w", text, err), "why the clock cannot be set, or turn fail_if_clock_not_set off")
		}
		a.console.Stage("clock", "%s; %v", text, err)
		return nil
	}
	board := "the clock on the board is left as it is"
	if a.config.SetRTC {
		board = "the clock on the board too"
		if err := a.sys.SetRTC(time.Now()); err != nil {
			board = err.Error()
		}
	}
	a.console.Stage("clock", "%s; set to %s (%s)", text, now.UTC().Format(time.RFC3339), board)
	return nil
}

// explainNetwork looks at each thing on the way to the conductor.
func (a *agent) explainNetwork(ctx context.Context) { a.explainWay(ctx, a.checkTarget) }

func (a *agent) explainWay(ctx context.Context, target func() netconfig.Target) {
	k, err := a.network()
	if err != nil {
		a.console.Stage("network", "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	report := netconfig.Check(ctx, k, target())
	a.sayLines("network", report.String())
}

// macAttempts and macWait are for how long a NIC is waited for. Source: IPA ironic_python_agent/agent.py, wait_for_interface.
const macAttempts, macWait = 12, 5 * time.Second

// takeInventory looks at the machine. What cannot be read is named, and is no reason to stop.
func (a *agent) takeInventory(ctx context.Context) error {
	set, probed := steps.NewSet(ctx, a.host, a.managers) // before the inventory, which has the arrays that this starts
	set.Prioritize("inject_files", a.config.InjectPriority)
	a.set = set
	a.makeVLANs(ctx, nil)
	inventory, err := a.sys.Machine.Inventory(ctx)
	for attempt := 1; len(inspect.LookupMACs(inventory)) == 0; attempt++ {
		if attempt > macAttempts {
			a.console.Stage("hardware", "WARNING: no NIC has a MAC")
			break
		}
		if err := sleep(ctx, macWait); err != nil {
			return err
		}
		inventory, err = a.sys.Machine.Inventory(ctx)
	}
	if err != nil {
		a.log.Warn("inventory is incomplete", "err", err)
	}
	a.inventory = inventory
	a.macs = inspect.LookupMACs(inventory)
	a.console.Stage("hardware", "%s %s, %s boot, %d MiB, %d CPUs, %d NICs, %d disks",
		inventory.SystemVendor.Manufacturer, inventory.SystemVendor.ProductName, inventory.Boot.Mode,
		inventory.Memory.Total>>20, inventory.CPU.Count, len(inventory.Interfaces), len(inventory.Disks))
	for _, d := range inventory.Disks {
		a.console.Stage("hardware", "disk %v", d)
	}
	if errors.Is(probed, steps.ErrNoManager) {
		return probed
	}
	if probed != nil { // the others do their work all the same
		a.sayLines("hardware", probed.Error())
	}
	return nil
}

// lookUp asks the conductor which node this machine is, and for the token.
func (a *agent) lookUp(ctx context.Context) error {
	if a.config.Poll {
		return nil
	}
	client, err := ironic.New(ironic.Options{
		URLs: a.config.APIURLs, TLS: a.trust.config(), Timeout: a.config.RequestTimeout,
		RequestID: a.config.RequestID, APIVersion: a.config.APIVersion,
		LookupTimeout: a.config.LookupTimeout, LookupInterval: a.config.LookupInterval,
		Log: a.log,
		OnRetry: func(attempt int, err error, wait time.Duration) {
			a.console.Stage("lookup", "attempt %d: %v; next in %.1f s", attempt, err, wait.Seconds())
			if check := ironic.Hint(err); check != "" && (attempt == 3 || attempt%20 == 0) {
				a.console.Stage("lookup", "%s", check)
			}
		},
	})
	if err != nil {
		return err
	}
	a.client = client
	node, settings, err := a.findNode(ctx, client)
	if err != nil {
		return hint(err, "that the API can be reached, and that the node has a port with one of the MACs "+macList(a.macs)+" and waits for its ramdisk")
	}
	// A token of an earlier start in this boot counts like one from the medium: the conductor gives it out once.
	known := a.config.Token
	if kept, err := a.state.token(); err != nil {
		return fmt.Errorf("read the kept token: %w", err)
	} else if kept != "" {
		known = kept
	}
	token, err := ironic.ChooseToken(known, settings.Token)
	if err != nil {
		return hint(err, "the node's power: only a reboot by the conductor makes it give out a new token")
	}
	if token == "" { // without one, the API refuses every command
		return hint(errors.New("no agent token, neither from the conductor nor on a medium"), "the version of the Ironic API: from "+ironic.VersionToken.String()+" on it gives out tokens")
	}
	if err := a.state.keepToken(token); err != nil {
		return fmt.Errorf("keep the token for a restart: %w", err)
	}
	a.token = token
	if err := a.applySettings(settings); err != nil {
		return hint(err, "[agent]tls_minimum_version of the conductor")
	}
	a.console.Stage("lookup", "node %s", node.UUID)
	a.uuid = node.UUID
	return a.setNode(node.Raw)
}

// applySettings takes what the conductor wants of the agent, over what the agent's own settings say.
func (a *agent) applySettings(s ironic.Settings) error {
	if s.TLSMinVersion != "" || s.TLSCipherSuites != "" {
		a.warnOfCiphers("lookup", cmp.Or(s.TLSMinVersion, a.config.TLSMinVersion), s.TLSCipherSuites)
		t, err := a.trust.limited(a.tlsLimits(s))
		if err != nil {
			return fmt.Errorf("apply what the conductor says of TLS: %w", err)
		}
		a.trust = t
		a.host.Transport = a.imageTransport()
		if a.client != nil { // a conductor that polls is not called
			a.client = a.client.WithTLS(t.config())
		}
	}
	a.settings = s
	if s.MD5Enabled != nil {
		a.host.Download.RefuseMD5 = !*s.MD5Enabled
	}
	if s.PermittedImageFormats != nil {
		a.host.Download.Formats = s.PermittedImageFormats
	}
	all := a.config.AnyImageFormat
	if s.DisableDeepImageInspection != nil {
		all = *s.DisableDeepImageInspection
	}
	switch {
	case all:
		a.host.Download.Formats = nil
	case a.host.Download.Formats == nil: // the agent's own setting allowed all
		a.host.Download.Formats = a.config.ImageFormats
	}
	return nil
}

// tlsLimits are the least version of TLS and the cipher suites that count if the conductor says s.
func (a *agent) tlsLimits(s ironic.Settings) (minVersion, ciphers string) {
	return cmp.Or(s.TLSMinVersion, a.config.TLSMinVersion), cmp.Or(s.TLSCipherSuites, a.config.TLSCiphers)
}

// warnOfCiphers says that a list of cipher suites does not count.
func (a *agent) warnOfCiphers(stage, minVersion, list string) {
	if known, _ := cipherSuites(list); list != "" && len(known) == 0 && minVersion != "1.3" {
		a.console.Stage(stage, "WARNING: of the TLS cipher suites %.200q none is known; these count: %s", list, defaultCiphers)
	}
}

// serve opens the API, with a certificate, and then lets the heartbeats begin.
func (a *agent) serve(ctx context.Context) error {
	if a.config.Poll {
		return a.servePolled(ctx)
	}
	address, err := a.advertisedAddress(ctx)
	if err != nil {
		return hint(err, "the routes to the conductor, or give ipa-advertise-host")
	}
	version, err := a.client.ServerVersion(ctx)
	if err != nil {
		return err
	}
	tlsConfig, pem, err := a.apiTLS(address, version)
	if err != nil {
		return err
	}
	listener, err := a.listen(ctx)
	if err != nil {
		return err
	}
	callback := a.callbackURL(address, tlsConfig != nil)
	a.console.Stage("api", "%s", callback)
	return a.runAPI(ctx, listener, tlsConfig, &ironic.Beat{CallbackURL: callback, Token: a.token, Version: a.version, VerifyCA: pem})
}

// callbackURL is what the conductor is told to call.
func (a *agent) callbackURL(address string, encrypted bool) string {
	u := url.URL{Scheme: a.config.AdvertiseProtocol, Host: net.JoinHostPort(address, fmt.Sprint(a.config.AdvertisePort))}
	if encrypted {
		u.Scheme = "https"
	}
	return u.String()
}

// advertisedAddress is the address that the conductor is told to call. It is determined once in a boot, because the conductor refuses another,
// and again only if the machine does not have it any more.
func (a *agent) advertisedAddress(ctx context.Context) (string, error) {
	if a.config.AdvertiseHost != "" {
		return a.config.AdvertiseHost, nil
	}
	kept, err := a.state.address()
	if err != nil {
		return "", fmt.Errorf("read the address that was advertised earlier in this boot: %w", err)
	}
	if kept != "" && a.hasAddress(ctx, kept) {
		return kept, nil
	}
	for attempt := 1; ; attempt++ {
		address, err := a.findAddress(ctx)
		if err == nil {
			if kept != "" {
				a.console.Stage("api", "WARNING: this machine has not %s any more, which the conductor was told earlier in this boot; it may refuse %s", kept, address)
			}
			return address, a.state.keepAddress(address)
		}
		err = fmt.Errorf("find the address to advertise: %w", err)
		if attempt >= a.config.IPAttempts {
			return "", err
		}
		a.sayLines("api", fmt.Sprintf("%v; next try in %v", err, a.config.IPSleep))
		if err := sleep(ctx, a.config.IPSleep); err != nil {
			return "", err
		}
	}
}

// findAddress returns the IPv4 address of the NIC that was named, or the address from which packets to the API go out.
func (a *agent) findAddress(ctx context.Context) (string, error) {
	if name := a.config.NetworkInterface; name != "" {
		return a.addressOf(ctx, name)
	}
	var errs []error
	for _, server := range a.client.URLs() {
		u, err := url.Parse(server)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		look, cancel := context.WithTimeout(ctx, a.config.RequestTimeout)
		all, err := net.DefaultResolver.LookupNetIP(look, "ip", u.Hostname())
		cancel()
		if err != nil {
			errs = append(errs, err)
		}
		for _, to := range all {
			from, err := sourceFor(to)
			if err == nil {
				return from.String(), nil
			}
			errs = append(errs, err)
		}
	}
	return "", errors.Join(errs...)
}

// hasAddress tells whether an address is one of this machine's, as far as that is known.
func (a *agent) hasAddress(ctx context.Context, address string) bool {
	k, err := a.network()
	if err != nil {
		return true
	}
	state, err := k.State(ctx)
	return err != nil || slices.ContainsFunc(state.NICs, func(n netconfig.NIC) bool {
		return slices.ContainsFunc(n.Addresses, func(one netconfig.Address) bool { return one.Prefix.Addr().String() == address })
	})
}

// addressOf returns the IPv4 address of a NIC.
func (a *agent) addressOf(ctx context.Context, nic string) (string, error) {
	address, err := a.firstFitting(ctx, func(n netconfig.NIC, ip netip.Addr) bool { return n.Name == nic && ip.Is4() })
	if address == "" && err == nil {
		err = fmt.Errorf("%q, which ipa-network-interface names, has no IPv4 address", nic)
	}
	return address, err
}

// firstFitting returns the machine's first address that fits; "" if none does.
func (a *agent) firstFitting(ctx context.Context, fits func(netconfig.NIC, netip.Addr) bool) (string, error) {
	k, err := a.network()
	if err != nil {
		return "", err
	}
	state, err := k.State(ctx)
	if err != nil {
		return "", fmt.Errorf("read the state of the network: %w", err)
	}
	for _, n := range state.NICs {
		for _, address := range n.Addresses {
			if ip := address.Prefix.Addr(); fits(n, ip) {
				return ip.String(), nil
			}
		}
	}
	return "", nil
}

// sourceFor returns the address from which packets to an address go out. A link-local one is an error: others cannot use it without knowing the link.
func sourceFor(to netip.Addr) (netip.Addr, error) {
	conn, err := net.Dial("udp", netip.AddrPortFrom(to.Unmap(), 9).String()) // sends nothing, so any port will do
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	from := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if from.IsLinkLocalUnicast() {
		return netip.Addr{}, fmt.Errorf("the address towards %s is link-local: %s", to, from)
	}
	return from, nil
}

func mediaNames(list []media.Medium) string {
	var names []string
	for _, m := range list {
		names = append(names, m.Kind+" "+m.Device)
	}
	return strings.Join(names, ", ")
}

func macList(macs []net.HardwareAddr) string {
	var texts []string
	for _, m := range macs {
		texts = append(texts, m.String())
	}
	return strings.Join(texts, ", ")
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
