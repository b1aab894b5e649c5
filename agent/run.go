// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
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
		{"network", a.bringUpNetwork},
		{"ssh", a.openForDebugging},
		{"conductor", a.reachConductor},
		{"hardware", a.takeInventory},
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
		return a.idle(ctx, why)
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
		a.media = kept
		a.console.Stage("media", "kept from the start of this boot: %s", mediaNames(kept))
		return nil
	}
	for attempt := 1; ; attempt++ {
		found, seen, err := a.sys.FindMedia(ctx, func(s string) { a.log.Debug(s) })
		if len(found) > 0 && (err == nil || attempt >= brokenAttempts) {
			for _, m := range found {
				a.console.Stage("media", "%s %s, label %s: %d files", m.Kind, m.Device, m.Label, len(m.Files))
			}
			a.media = found
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
			if cmdline["ipa-api-url"] != "" { // an ISO that was made for one node says it all on the command line
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

// readSettings puts the settings together, and says where each came from.
func (a *agent) readSettings(context.Context) error {
	config, err := ParseConfig(Sources{Ramdisk: a.sys.Root, Media: a.media, Cmdline: a.sys.Cmdline, Flags: a.flags})
	if err != nil {
		return hint(err, "the parameters on the medium and on the kernel command line")
	}
	a.config = config
	if config.Debug {
		a.level.Set(levelDebug)
	}
	for _, o := range config.Origins {
		a.log.Info("setting", "name", o.Name, "value", o.Value, "from", o.From)
	}
	a.console.Stage("settings", "%d given; API %s", len(config.Origins), strings.Join(config.APIURLs, ", "))
	if len(config.APIURLs) == 0 && !config.Poll {
		return hint(errors.New("no ipa-api-url given"), "that parameters.txt on the configuration medium, or the kernel command line, has ipa-api-url=https://...")
	}
	if config.Insecure {
		a.console.Stage("settings", "WARNING: ipa-insecure: certificates of the conductor and of image servers are not verified")
	}
	a.trust, err = config.trust()
	if err != nil {
		return hint(err, "the CA file on the configuration medium: it must be PEM")
	}
	a.host.Transport = &http.Transport{
		TLSClientConfig:       a.trust.config(),
		Proxy:                 http.ProxyFromEnvironment,
		DisableCompression:    true,
		DialContext:           (&net.Dialer{Timeout: config.Stall}).DialContext,
		TLSHandshakeTimeout:   config.Stall,
		ResponseHeaderTimeout: config.Stall,
	}
	a.host.Download = steps.Download{
		Stall:  config.Stall,
		Budget: max(time.Minute, time.Duration(config.Retries+1)*config.RetryInterval),
		Limit:  config.DownloadLimit,
	}
	a.host.ReadBack = config.ReadBack
	a.host.DiskAttempts, a.host.DiskDelay = config.DiskAttempts, config.DiskDelay
	return nil
}

// reachConductor calls the Ironic API until it answers, explains what is in the way while it does
// not, and sets the clock: from NTP if a server was given, else from the answer. Anyone on the network
// can answer for NTP, so its time only counts if the conductor has none that is proven, or about the same.
func (a *agent) reachConductor(ctx context.Context) error {
	if a.config.Poll {
		return nil // it comes to us
	}
	ntpServer, ntpTime := a.config.NTPServer, time.Duration(0)
	if ntpServer != "" {
		skew, err := askNTP(ntpServer)
		if err != nil {
			a.console.Stage("clock", "NTP server %s: %v; going on without", ntpServer, err)
			ntpServer = ""
		} else if !a.trust.proves(a.config.APIURLs) { // the certificate has to be good at a time that somebody else says
			a.setClock(skew, "NTP server "+ntpServer)
		}
		ntpTime = skew
	}
	for start, attempt := time.Now(), 1; ; attempt++ {
		server, skew, err := a.measureAny(ctx)
		if err == nil {
			a.console.Stage("conductor", "%s answers", server)
			a.chooseClock(ntpServer, ntpTime, server, skew)
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

// chooseClock sets the clock, knowing how far it is behind the conductor, and behind the NTP server if there is one.
func (a *agent) chooseClock(ntpServer string, ntpTime time.Duration, conductor string, conductorTime time.Duration) {
	if ntpServer == "" {
		a.setClock(conductorTime, conductor)
		return
	}
	proven := a.trust.proves([]string{conductor})
	apart := ntpTime - conductorTime
	if !proven {
		apart = -conductorTime // the clock is set by NTP already
	}
	switch {
	case apart.Abs() > mostApart && proven:
		a.console.Stage("clock", "WARNING: NTP server %s and %s are %v apart; the latter is believed, because its certificate is verified", ntpServer, conductor, apart.Abs().Round(time.Second))
		a.setClock(conductorTime, conductor)
	case apart.Abs() > mostApart:
		a.console.Stage("clock", "WARNING: NTP server %s and %s are %v apart; the former is believed", ntpServer, conductor, apart.Abs().Round(time.Second))
	case proven:
		a.setClock(ntpTime, "NTP server "+ntpServer)
	}
}

// measureAny asks the API's URLs in order for the time; the first that answers counts.
func (a *agent) measureAny(ctx context.Context) (server string, skew time.Duration, err error) {
	var errs []error
	for _, server := range a.config.APIURLs {
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

func (a *agent) setClock(skew time.Duration, from string) {
	if skew.Abs() < worthSetting {
		a.console.Stage("clock", "right within %v of %s", worthSetting, from)
		return
	}
	now := time.Now().Add(skew)
	text := fmt.Sprintf("this machine's is %s, says %s", skewText(skew), from)
	if err := a.sys.SetClock(now); err != nil {
		a.console.Stage("clock", "%s; %v", text, err)
		return
	}
	a.console.Stage("clock", "%s; set to %s (the clock on the board is left as it is)", text, now.UTC().Format(time.RFC3339))
}

// explainNetwork looks at each thing on the way to the conductor.
func (a *agent) explainNetwork(ctx context.Context) {
	k, err := a.network()
	if err != nil {
		a.console.Stage("network", "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	report := netconfig.Check(ctx, k, a.checkTarget())
	a.sayLines("network", report.String())
}

// takeInventory looks at the machine. What cannot be read is named, and is no reason to stop.
func (a *agent) takeInventory(ctx context.Context) error {
	inventory, err := a.sys.Machine.Inventory(ctx)
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
	a.set, err = steps.NewSet(ctx, a.host, a.managers)
	if errors.Is(err, steps.ErrNoManager) {
		return err
	}
	if err != nil { // the others do their work all the same
		a.sayLines("hardware", err.Error())
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
	node, settings, err := client.Lookup(ctx, a.macs, a.config.NodeUUID)
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
	a.applySettings(settings)
	a.console.Stage("lookup", "node %s", node.UUID)
	a.uuid = node.UUID
	return a.setNode(node.Raw)
}

// applySettings takes what the conductor wants of the agent.
func (a *agent) applySettings(s ironic.Settings) {
	a.settings = s
	a.host.Download.RefuseMD5 = s.MD5Enabled != nil && !*s.MD5Enabled
}

// serve makes the certificate, opens the API, and then lets the heartbeats begin.
func (a *agent) serve(ctx context.Context) error {
	if a.config.Poll {
		return a.servePolled(ctx)
	}
	address, err := a.advertisedAddress()
	if err != nil {
		return hint(err, "the routes to the conductor, or give ipa-advertise-host")
	}
	version, err := a.client.ServerVersion(ctx)
	if err != nil {
		return err
	}
	if version < ironic.VersionVerifyCA {
		return hint(fmt.Errorf("the Ironic API %v knows no TLS towards agents", version), "the version of the Ironic API: from "+ironic.VersionVerifyCA.String()+" on it does")
	}
	tlsConfig, pem, err := a.certificate(address)
	if err != nil {
		return err
	}
	listener, err := a.listen(ctx)
	if err != nil {
		return err
	}
	callback := url.URL{Scheme: "https", Host: net.JoinHostPort(address, fmt.Sprint(a.config.AdvertisePort))}
	a.console.Stage("api", "%s", callback.String())
	return a.runAPI(ctx, listener, tlsConfig, &ironic.Beat{CallbackURL: callback.String(), Token: a.token, Version: a.version, VerifyCA: pem})
}

// advertisedAddress is the address that the conductor is told to call: as given, or the one
// from which packets to the API go out. It is determined once in a boot.
func (a *agent) advertisedAddress() (string, error) {
	if a.config.AdvertiseHost != "" {
		return a.config.AdvertiseHost, nil
	}
	var errs []error
	for _, server := range a.client.URLs() {
		u, err := url.Parse(server)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), "9")) // sends nothing, so any port will do
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ip := conn.LocalAddr().(*net.UDPAddr).IP
		conn.Close()
		if !ip.IsLinkLocalUnicast() {
			return ip.String(), nil
		}
		errs = append(errs, fmt.Errorf("the address towards %s is link-local: %s", u.Hostname(), ip))
	}
	return "", fmt.Errorf("find the address to advertise: %w", errors.Join(errs...))
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
