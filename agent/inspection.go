// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/lldp"
	"github.com/ironhand/ironhand/netconfig"
)

// inspectionConfig is what was said about inspection.
type inspectionConfig struct {
	URLs          []string // where the data goes, as they are
	UseMDNS       bool     // URLs are to be found out
	Collectors    []string
	Wanted        bool          // whether collectors were named, which asks for inspection by itself
	AddressWait   time.Duration // for an IPv4 address
	AllInterfaces bool          // wait for one on each
	LLDP          bool          // listen, whatever the collectors
	LLDPTimeout   time.Duration
}

// inspectionSettings are the settings of inspection.
func inspectionSettings() []Setting {
	return []Setting{
		{"ipa-inspection-callback-url", "inspection_callback_url", "", false, "URLs to which inspection data is sent, separated by commas, or `mdns`: it is looked for by multicast DNS; with one, the machine is inspected before the lookup. Without `ipa-api-url` that is all that is done.", inspectionURLs},
		{"ipa-inspection-collectors", "inspection_collectors", "", false, "What goes into the inspection data, in this order: `default`, `logs`, `pci-devices`, `numa-topology`, `usb-devices`, `dmi-decode`, `extra-hardware`, `lldp`; without it `default,logs`. Together with `ipa-api-url` it asks for inspection by itself.", collectorNames},
		{"ipa-inspection-dhcp-wait-timeout", "inspection_dhcp_wait_timeout", "60", false, "Seconds to wait, before the inspection, for an IPv4 address on the interface that `BOOTIF` names; 0 does not wait.", seconds(func(c *Config) *time.Duration { return &c.Inspection.AddressWait })},
		{"ipa-inspection-dhcp-all-interfaces", "inspection_dhcp_all_interfaces", "false", false, "Wait for one on every interface.", boolean(func(c *Config) *bool { return &c.Inspection.AllInterfaces })},
		{"ipa-collect-lldp", "collect_lldp", "false", false, "Listen for LLDP and put what the switches say into the inventory.", boolean(func(c *Config) *bool { return &c.Inspection.LLDP })},
		{"ipa-lldp-timeout", "lldp_timeout", "30", false, "Seconds without a further LLDP frame on any interface after which listening ends.", positive(func(c *Config) *time.Duration { return &c.Inspection.LLDPTimeout })},
	}
}

func inspectionURLs(c *Config, v string) error {
	c.Inspection.URLs = nil
	if c.Inspection.UseMDNS = v == "mdns"; c.Inspection.UseMDNS {
		return nil
	}
	for one := range strings.SplitSeq(v, ",") {
		if _, err := ironic.ParseCallbackURL(one); err != nil {
			return errors.New("must be URLs that begin with http:// or https:// and name a host, or mdns")
		}
		c.Inspection.URLs = append(c.Inspection.URLs, strings.TrimSpace(one))
	}
	return nil
}

func collectorNames(c *Config, v string) error {
	c.Inspection.Collectors = commaWords(v)
	c.Inspection.Wanted = len(c.Inspection.Collectors) > 0
	return nil
}

// inspection says whether the machine is to be inspected, and where the data goes (ironic_python_agent/inspector.py, inspect).
func (c Config) inspection() (targets []string, wanted bool) {
	switch {
	case len(c.Inspection.URLs) > 0:
		return c.Inspection.URLs, true
	case c.Inspection.Wanted && len(c.APIURLs) > 0:
		for _, u := range c.APIURLs {
			targets = append(targets, strings.TrimRight(u, "/")+inspectionPath)
		}
		return targets, true
	}
	return nil, false
}

const inspectionPath = "/v1/continue_inspection"

// servers are the base URLs of who is to be reached first: the API, or where inspection data goes.
func (c Config) servers() []string {
	if len(c.APIURLs) > 0 {
		return c.APIURLs
	}
	var list []string
	for _, s := range c.Inspection.URLs {
		if u, err := ironic.ParseCallbackURL(s); err == nil {
			list = append(list, u.Scheme+"://"+u.Host)
		}
	}
	return list
}

// inspectMachine collects what was asked for and sends it. What goes wrong with a collector is sent too, and is no reason to stop; nor is a server that
// refuses the data. If no server takes it, the agent ends and is started again. An agent without an API has no more to do after that.
func (a *agent) inspectMachine(ctx context.Context) error {
	targets, wanted := a.config.inspection()
	if !wanted || a.config.Poll {
		return nil
	}
	names := a.config.Inspection.Collectors
	if len(names) == 0 {
		names = []string{"default", "logs"}
	}
	heard := a.listenForSwitches(ctx, a.config.Inspection.LLDP || slices.Contains(names, "lldp"))
	a.waitForAddresses(ctx)
	a.neighbours = heard()
	if a.neighbours != nil && a.makeVLANs(ctx, a.neighbours) {
		if inventory, err := a.sys.Machine.Inventory(ctx); err != nil {
			a.log.Warn("inventory is incomplete", "err", err)
		} else {
			a.inventory = inventory
		}
	}
	report, failures := a.collect(ctx, names)
	if err := ctx.Err(); err != nil {
		return err
	}
	err := a.sendInspection(ctx, targets, report)
	var refused *ironic.StatusError
	switch {
	case errors.As(err, &refused) && refused.Code < 500 && refused.Code != 409:
		a.sayLines("inspection", "FAILED: "+err.Error())
		if refused.Code == 404 {
			a.console.Stage("inspection", "check: that the node is being inspected and has a port with one of the MACs %s", macList(a.macs))
		}
	case err != nil:
		return hint(err, "that "+strings.Join(hosts(targets), ", ")+" can be reached")
	case len(failures) > 0:
		// The contract: the answer of an inspection that had errors does not count. But its token is the only one of this boot.
		if err := a.keepInspectionToken(); err != nil {
			return err
		}
		a.inspected = nil
		a.console.Stage("inspection", "sent, with errors:")
		a.sayLines("inspection", strings.Join(failures, "\n"))
	default:
		a.console.Stage("inspection", "sent")
	}
	if len(a.config.APIURLs) == 0 {
		return a.idle(ctx, "inspected; there is no ipa-api-url, so the machine waits to be switched off")
	}
	return nil
}

// keepInspectionToken keeps the token of the answer for the lookup that follows.
func (a *agent) keepInspectionToken() error {
	token, err := ironic.ChooseToken("", a.inspected.Settings.Token)
	if errors.Is(err, ironic.ErrTokenLost) || token == "" {
		return nil // the lookup tells, or has one
	}
	if err := a.state.keepToken(token); err != nil {
		return fmt.Errorf("keep the token for the lookup: %w", err)
	}
	return nil
}

// hosts are URLs for people.
func hosts(targets []string) (list []string) {
	for _, s := range targets {
		if u, err := url.Parse(s); err == nil {
			list = append(list, u.Scheme+"://"+u.Host)
		}
	}
	return list
}

// addressPoll is how often addresses are looked for.
const addressPoll = 2 * time.Second

// waitForAddresses waits until the interface that the machine was booted from has an IPv4 address, or all have one, and lists the interfaces anew then.
// That none came is only a warning: a network may have IPv6 alone.
func (a *agent) waitForAddresses(ctx context.Context) {
	wait := a.config.Inspection.AddressWait
	boot := macOf(string(a.inventory.Boot.PXEInterface))
	if wait == 0 || boot == "" && !a.config.Inspection.AllInterfaces {
		return
	}
	lacking := func() (names []string) {
		for _, n := range a.inventory.Interfaces {
			if n.IPv4Address == "" && (a.config.Inspection.AllInterfaces || strings.EqualFold(string(n.MACAddress), boot)) {
				names = append(names, n.Name)
			}
		}
		return names
	}
	for start := time.Now(); len(lacking()) > 0; {
		if time.Since(start) >= wait {
			a.console.Stage("inspection", "WARNING: no IPv4 address on %s within %v; going on", strings.Join(lacking(), ", "), wait)
			return
		}
		if sleep(ctx, addressPoll) != nil {
			return
		}
		nics, err := a.sys.Machine.Interfaces(ctx)
		if err != nil {
			a.log.Debug("interfaces are incomplete", "err", err)
		}
		a.inventory.Interfaces = nics
		a.macs = inspect.LookupMACs(a.inventory)
	}
}

// macOf is the address in BOOTIF: 01-52-54-00-.. of PXELINUX, or as it is.
func macOf(bootif string) string {
	if strings.Count(bootif, "-") == 6 {
		_, bootif, _ = strings.Cut(bootif, "-")
	}
	return strings.ToLower(strings.ReplaceAll(bootif, "-", ":"))
}

// listenForSwitches begins to listen for LLDP if that is wanted: switches announce themselves every 30 s, so it goes on beside the rest. The result waits for the end.
func (a *agent) listenForSwitches(ctx context.Context, wanted bool) (heard func() map[string][]lldp.TLV) {
	if !wanted {
		return func() map[string][]lldp.TLV { return nil }
	}
	a.switchLinksOn(ctx)
	a.console.Stage("inspection", "listens for LLDP")
	type result struct {
		tlvs map[string][]lldp.TLV
		err  error
	}
	done := make(chan result, 1)
	go func() {
		tlvs, err := a.sys.Machine.Listen(ctx, a.config.Inspection.LLDPTimeout)
		done <- result{tlvs, err}
	}()
	return func() map[string][]lldp.TLV {
		r := <-done
		if r.err != nil {
			a.log.Warn("LLDP is incomplete", "err", r.err)
		}
		for _, nic := range slices.Sorted(maps.Keys(r.tlvs)) {
			if tlvs := r.tlvs[nic]; len(tlvs) > 0 {
				a.console.Stage("inspection", "%s: %s", nic, lldp.Describe(tlvs))
			}
		}
		return r.tlvs
	}
}

// switchLinksOn sets all physical interfaces up: a switch says nothing on a cable without link. Routers there are not listened to, as they would take the
// way to the conductor away. That one cannot be set up is no reason to stop.
func (a *agent) switchLinksOn(ctx context.Context) {
	k, err := a.network()
	if err != nil {
		a.log.Warn("interfaces are left as they are", "err", err)
		return
	}
	state, err := k.State(ctx)
	if err != nil {
		a.log.Warn("interfaces are left as they are", "err", err)
		return
	}
	for _, n := range state.NICs {
		physical := slices.ContainsFunc(a.inventory.Interfaces, func(i inspect.NIC) bool { return i.Name == n.Name && i.Kind == inspect.Physical })
		if n.Up || !physical {
			continue
		}
		changes := []netconfig.Change{netconfig.SetUp{NIC: n.Name}}
		if _, known := n.Options[netconfig.AcceptRA]; known {
			changes = []netconfig.Change{netconfig.SetOption{NIC: n.Name, Option: netconfig.AcceptRA, Value: 0}, changes[0]}
		}
		for _, c := range changes {
			if err := k.Do(ctx, c); err != nil {
				a.log.Warn("interface stays as it is", "nic", n.Name, "change", c.String(), "err", err)
				break
			}
		}
	}
}

// collect runs the collectors of these names, in their order, and lists what went wrong.
func (a *agent) collect(ctx context.Context, names []string) (data map[string]any, failures []string) {
	if a.config.Inspection.LLDP {
		for i, n := range a.inventory.Interfaces {
			a.inventory.Interfaces[i].LLDP = a.neighbours[n.Name]
		}
	}
	all := slices.Concat(a.ownCollectors(names), inspect.Collectors(), a.collectors)
	report := inspect.Report{Inventory: a.inventory, Data: map[string]any{}}
	for _, name := range names {
		i := slices.IndexFunc(all, func(c inspect.Collector) bool { return c.Name == name })
		if i < 0 {
			failures = append(failures, fmt.Sprintf("collector %s is not known", name))
			continue
		}
		if err := all[i].Collect(ctx, a.sys.Machine, &report); err != nil {
			failures = append(failures, fmt.Sprintf("collector %s failed: %v", name, err))
		}
	}
	report.Data["error"] = nil
	if len(failures) > 0 {
		report.Data["error"] = "The following errors were encountered:\n* " + strings.Join(failures, "\n* ")
	}
	return report.Data, failures
}

// ownCollectors are those that need more than the machine.
func (a *agent) ownCollectors(names []string) []inspect.Collector {
	return []inspect.Collector{
		{Name: "default", Collect: func(_ context.Context, _ inspect.Machine, r *inspect.Report) error {
			type manager struct {
				Name    string `json:"name"`
				Version string `json:"version"`
			}
			managers := []manager{}
			for _, m := range a.managers {
				managers = append(managers, manager{m.Name(), m.Version()})
			}
			r.Data["inventory"] = r.Inventory
			r.Data["boot_interface"] = r.Inventory.Boot.PXEInterface
			r.Data["configuration"] = map[string]any{"collectors": names, "managers": managers}
			if choice, err := inspect.DefaultDisk(r.Inventory.Disks); err == nil {
				r.Data["root_disk"] = choice.Disk
			}
			return nil
		}},
		{Name: "logs", Collect: func(ctx context.Context, _ inspect.Machine, r *inspect.Report) error {
			var packed bytes.Buffer
			if err := a.packLogs(ctx, &packed); err != nil {
				return err
			}
			r.Data["logs"] = base64.StdEncoding.EncodeToString(packed.Bytes())
			return nil
		}},
		{Name: "lldp", Collect: func(_ context.Context, _ inspect.Machine, r *inspect.Report) error {
			r.Data["lldp_raw"] = a.neighbours
			return nil
		}},
	}
}

// sendInspection sends the data, and keeps what the answer says of the node.
func (a *agent) sendInspection(ctx context.Context, targets []string, data map[string]any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write inspection data: %w", err)
	}
	var urls []*url.URL
	for _, s := range targets {
		u, err := ironic.ParseCallbackURL(s)
		if err != nil {
			return err
		}
		urls = append(urls, u)
	}
	client, err := ironic.New(ironic.Options{
		URLs: a.config.servers(), TLS: a.trust.config(), Timeout: a.config.RequestTimeout,
		RequestID: a.config.RequestID, APIVersion: a.config.APIVersion, Log: a.log,
		OnRetry: func(round int, err error, wait time.Duration) {
			a.console.Stage("inspection", "attempt %d: %v; next in %.0f s", round, err, wait.Seconds())
		},
	})
	if err != nil {
		return err
	}
	answer, err := client.ContinueInspection(ctx, urls, body, a.inspectionVersion(ctx, client, targets))
	if err != nil {
		return err
	}
	a.inspected = &answer
	return nil
}

// inspectionVersion is the version to ask for: that of the answer with a token, if the data goes to the API itself and that knows it. It is 0, none, for
// all other servers, which is what they expect.
func (a *agent) inspectionVersion(ctx context.Context, client *ironic.Client, targets []string) ironic.Version {
	for _, t := range targets {
		if !slices.ContainsFunc(a.config.APIURLs, func(api string) bool { return t == strings.TrimRight(api, "/")+inspectionPath }) {
			return 0
		}
	}
	if server, err := client.ServerVersion(ctx); err != nil || server < ironic.VersionContinueInspection {
		return 0
	}
	return ironic.VersionContinueInspection
}

// findNode is the lookup, unless the answer to the inspection was one, with a token.
func (a *agent) findNode(ctx context.Context, client *ironic.Client) (ironic.Node, ironic.Settings, error) {
	uuid := a.config.NodeUUID
	if i := a.inspected; i != nil && i.UUID != "" {
		if uuid != "" && !strings.EqualFold(uuid, i.UUID) {
			a.console.Stage("lookup", "WARNING: the inspection found node %s, and ironhand-node-uuid is %s, which counts", i.UUID, uuid)
		} else {
			uuid = i.UUID
			if i.Found {
				return i.Node, i.Settings, nil
			}
		}
	}
	return client.Lookup(ctx, a.macs, uuid)
}
