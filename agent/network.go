// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/netconfig"
)

// NewKernel returns the network of the running kernel. It loads the modules of bonds, bridges and VLANs
// when one is made: the ramdisk has no modprobe that the kernel could call.
func NewKernel() (netconfig.Kernel, error) {
	k, err := netconfig.NewKernel()
	return modular{k}, err
}

// modular is a kernel whose modules somebody has to load.
type modular struct{ netconfig.Kernel }

// Do implements [netconfig.Kernel].
func (k modular) Do(ctx context.Context, c netconfig.Change) error {
	var module string
	switch c.(type) {
	case netconfig.AddBond:
		module = "bonding"
	case netconfig.AddBridge:
		module = "bridge"
	case netconfig.AddVLAN:
		module = "8021q"
	default:
		return k.Kernel.Do(ctx, c)
	}
	// On a whole system the kernel does this itself, and need not have modules at all.
	loading := boot.LoadModules(ctx, module)
	err := k.Kernel.Do(ctx, c)
	if err != nil && loading != nil {
		return fmt.Errorf("%w (%v)", err, loading)
	}
	return err
}

// nicWait is how long the NICs of the network data may take to appear: drivers load firmware.
const nicWait = 15 * time.Second

// RamdiskNetwork is, below /, a network_data.json for every machine that boots this ramdisk.
const RamdiskNetwork = "etc/ironhand/network_data.json"

// Firmware is the directory in which the kernel shows what firmware that has booted by iSCSI says of the network; nil if the kernel command line does not ask
// for it. It loads the module that makes it.
func (s System) Firmware(ctx context.Context) (fs.FS, error) {
	if !netconfig.IsIBFT(s.Cmdline) {
		return nil, nil
	}
	var loading error
	if s.Local {
		loading = boot.LoadModules(ctx, "iscsi_ibft")
	}
	dir, err := fs.Sub(s.Root, "sys/firmware/ibft")
	return dir, errors.Join(loading, err)
}

// networkSources are the places that may describe the network, strong to weak: the kernel command line,
// the media, the ramdisk.
func (a *agent) networkSources(ctx context.Context) (netconfig.Sources, error) {
	firmware, err := a.sys.Firmware(ctx)
	if err != nil { // what that means for the network is told when it is read
		a.sayLines("network", err.Error())
	}
	s := netconfig.Sources{Cmdline: a.sys.Cmdline, Firmware: firmware}
	if a.config.NetworkData != nil {
		s.Files = append(s.Files, netconfig.File{From: a.config.NetworkFrom, Content: a.config.NetworkData})
	}
	b, err := fs.ReadFile(a.sys.Root, RamdiskNetwork)
	if err == nil {
		s.Files = append(s.Files, netconfig.File{From: "ramdisk /" + RamdiskNetwork, Content: b})
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return s, err
}

// bringUpNetwork makes the network as it is described. What is sound is brought up even if
// something else is not, unless ironhand-strict-network asks for all or nothing.
func (a *agent) bringUpNetwork(ctx context.Context) error {
	sources, err := a.networkSources(ctx)
	if err != nil {
		return fmt.Errorf("read the description of the network: %w", err)
	}
	plan, from, err := sources.Plan()
	look := "the description of the network (" + from + ") against the NICs of the machine"
	switch {
	case err != nil && (a.config.StrictNetwork || from != "" && len(plan.Links)+len(plan.Everywhere) == 0):
		return hint(err, look)
	case err != nil:
		a.sayLines("network", "left out what is wrong: "+err.Error())
	}
	if from == "" && a.sys.Asker == nil && len(plan.DNS) == 0 {
		a.console.Stage("network", "no network_data.json given: interfaces are left as they are")
		return nil
	}
	k, err := a.network()
	if err != nil {
		return err
	}
	asked := len(plan.Everywhere) > 0
	if from == "" {
		plan.Everywhere = []netconfig.Method{netconfig.DHCP4, netconfig.Auto6}
		from = "nobody"
	}
	a.console.Stage("network", "as described by %s", from)
	for _, note := range plan.Notes() {
		a.console.Stage("network", "%s", note)
	}
	if len(plan.Everywhere) > 0 && a.sys.Asker != nil {
		return a.askEverywhere(ctx, k, plan, sources.BootMAC(), asked)
	}
	if from != "nobody" && len(plan.Links) == 0 && a.sys.Asker != nil && !a.config.StrictNetwork { // Ironic writes such, when no port has a network
		a.console.Stage("network", "WARNING: it describes no link: asking on all NICs instead")
		plan.Everywhere = []netconfig.Method{netconfig.DHCP4, netconfig.Auto6}
		return a.askEverywhere(ctx, k, plan, sources.BootMAC(), true)
	}
	// 1. Wait for the NICs.
	for start := time.Now(); ; {
		state, err := k.State(ctx)
		if err != nil {
			return fmt.Errorf("read the state of the network: %w", err)
		}
		_, err = plan.Changes(state)
		if !errors.Is(err, netconfig.ErrNoNIC) {
			break
		}
		if time.Since(start) > nicWait {
			if a.config.StrictNetwork || !plan.HasNIC(state) && a.sys.Asker == nil {
				return hint(err, look)
			}
			if !plan.HasNIC(state) {
				return a.askInstead(ctx, k, plan, sources.BootMAC(), hint(err, look))
			}
			break
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	// 2. Apply. Whether what went wrong matters shows when the conductor is called.
	if err := plan.Apply(ctx, k); err != nil {
		if a.config.StrictNetwork {
			return hint(err, look)
		}
		a.sayLines("network", err.Error())
	}
	// 3. Ask for what is not described, and keep all of it up.
	if a.sys.Asker != nil {
		given, err := plan.Acquire(ctx, k, a.sys.Asker, nil, a.sayNetwork)
		if err != nil {
			a.sayLines("network", err.Error())
		}
		a.keepLeases(ctx, k, given, nil)
	}
	return a.showNetwork(ctx, k)
}

// askInstead asks on all NICs because the description is for none of them. If nobody answers, that it does not fit is what is wrong.
func (a *agent) askInstead(ctx context.Context, k netconfig.Kernel, plan netconfig.Plan, boot netconfig.MAC, why error) error {
	a.sayLines("network", "WARNING: "+why.Error())
	a.console.Stage("network", "WARNING: none of the NICs that are described is here: asking on all NICs instead")
	plan.Everywhere = []netconfig.Method{netconfig.DHCP4, netconfig.Auto6}
	err := a.askEverywhere(ctx, k, plan, boot, true)
	if err != nil {
		return errors.Join(why, err)
	}
	state, err := k.State(ctx)
	if err != nil {
		return fmt.Errorf("read the state of the network: %w", err)
	}
	if !slices.ContainsFunc(state.NICs, netconfig.NIC.Addressed) {
		return why
	}
	return nil
}

// keepLeases has what the network was given last until ctx ends, or a.endLeases is called; try is that of [netconfig.Acquired.Keep].
func (a *agent) keepLeases(ctx context.Context, k netconfig.Kernel, given netconfig.Acquired, try func(context.Context) error) {
	a.ntpFound = addressTexts(given.NTP())
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	a.endLeases = func() { cancel(); <-ended }
	go func() {
		defer close(ended)
		given.Keep(ctx, k, a.sys.Asker, try, a.sayNetwork)
	}()
}

func (a *agent) sayNetwork(line string) { a.sayLines("network", line) }

// showNetwork says what the network is in the end.
func (a *agent) showNetwork(ctx context.Context, k netconfig.Kernel) error {
	state, err := k.State(ctx)
	if err != nil {
		return fmt.Errorf("read the state of the network: %w", err)
	}
	for _, line := range networkLines(state) {
		a.console.Stage("network", "%s", line)
	}
	// Switches say only now and then who they are: it is known by the time that somebody asks.
	for _, n := range state.NICs {
		if n.Carrier && !n.Loopback {
			go func() {
				if err := k.Do(ctx, netconfig.Listen{NIC: n.Name, For: listenTime}); err != nil {
					a.log.Debug("listen for LLDP and VLANs", "nic", n.Name, "err", err)
				}
			}()
		}
	}
	return nil
}

// listenTime is a little more than the time between two announcements of a switch (IEEE 802.1AB, 9.2.5.7).
const listenTime = 35 * time.Second

func methodNames(methods []netconfig.Method) string {
	var names []string
	for _, m := range methods {
		names = append(names, string(m))
	}
	return strings.Join(names, ", ")
}

func addressTexts(all []netip.Addr) (texts []string) {
	for _, one := range all {
		texts = append(texts, one.String())
	}
	return texts
}

// askedEverywhere is a file that says that an agent of this boot has set up the network by asking.
const askedEverywhere = "network-asked"

// askEverywhere asks on all NICs at once, and keeps the first answer with which the conductor is reached. A
// network that somebody else has set up is left alone, unless always says that it is to be asked.
func (a *agent) askEverywhere(ctx context.Context, k netconfig.Kernel, plan netconfig.Plan, boot netconfig.MAC, always bool) error {
	mark := filepath.Join(a.sys.StateDir, askedEverywhere)
	_, asked := os.Stat(mark)
	var state netconfig.State
	for start := time.Now(); ; {
		var err error
		if state, err = k.State(ctx); err != nil {
			return fmt.Errorf("read the state of the network: %w", err)
		}
		if state.Configured() && asked != nil && !always {
			a.console.Stage("network", "somebody has set it up: it is left as it is")
			return a.showNetwork(ctx, k)
		}
		all := netconfig.Everywhere(state, plan.Everywhere, boot)
		here := len(all.Links) > 0 && (boot == "" || slices.ContainsFunc(state.NICs, func(n netconfig.NIC) bool { return boot.Is(n.PermanentMAC) || boot.Is(n.MAC) }))
		if here || time.Since(start) > nicWait {
			all.DNS, all.IgnoreDNS = plan.DNS, plan.IgnoreDNS
			plan = all
			break
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	if len(plan.Links) == 0 {
		return hint(errors.New("the machine has no NIC that the kernel has a driver for"), "that the ramdisk has the driver of the NIC")
	}
	var try func(context.Context) error
	if len(a.config.APIURLs) > 0 { // else the conductor is looked for later, or comes to us, and who answers first is not who leads to it
		try = func(ctx context.Context) error {
			if a.reached.Load() { // what has worked is not changed because the conductor is away for a moment
				return nil
			}
			_, _, err := a.measureAny(ctx)
			return err
		}
	}
	var given netconfig.Acquired
	if asked == nil && try != nil && state.Configured() { // what works for an agent of this boot is not put at risk
		a.console.Stage("network", "set up by an earlier agent of this boot: trying it as it is")
		var err error
		if given, err = plan.Resume(ctx, k, try); err != nil {
			a.sayLines("network", err.Error())
		}
	}
	if !given.Works {
		a.console.Stage("network", "asking on %d NICs: %s", len(plan.Links), methodNames(plan.Links[0].Auto))
		if err := keepFile(mark, nil); err != nil {
			return fmt.Errorf("keep for a restart that the network was asked for: %w", err)
		}
		var err error
		if given, err = plan.Acquire(ctx, k, a.sys.Asker, try, a.sayNetwork); err != nil {
			a.sayLines("network", err.Error())
		}
	}
	a.keepLeases(ctx, k, given, try)
	return a.showNetwork(ctx, k)
}

// Conductor is what the settings of this machine name as the Ironic API, with the CA certificates that count for it; ok says whether they name one. It is read from
// where the agent of this boot has read it.
func (s System) Conductor() (t netconfig.Target, ok bool, err error) {
	kept, err := state{s.StateDir}.media()
	if err != nil {
		return t, false, fmt.Errorf("read what was kept of the media: %w", err)
	}
	config, err := ParseConfig(Sources{Ramdisk: s.Root, Media: kept, Cmdline: s.Cmdline})
	if err != nil || len(config.servers()) == 0 {
		return t, false, err
	}
	trust, err := config.trust()
	if err != nil {
		return t, false, err
	}
	t, err = netconfig.ParseTarget(config.servers()[0], trust.config())
	return t, err == nil, err
}

// networkLines is one line for each NIC that has addresses.
func networkLines(s netconfig.State) []string {
	var lines []string
	for _, n := range s.NICs {
		if n.Loopback || !n.Up || len(n.Addresses) == 0 {
			continue
		}
		line := fmt.Sprintf("%s %s", n.Name, n.MAC)
		for _, addr := range n.Addresses {
			if !addr.Prefix.Addr().IsLinkLocalUnicast() {
				line += " " + addr.Prefix.String()
			}
		}
		for _, r := range s.Routes {
			if r.NIC == n.Name && r.Destination.Bits() == 0 && r.Gateway.IsValid() {
				line += " via " + r.Gateway.String()
			}
		}
		lines = append(lines, line)
	}
	return lines
}
