// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/netconfig"
)

// NewKernel returns the network of the running kernel. It loads the modules of bonds and VLANs
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

// bringUpNetwork makes the network as network_data.json says. What is sound is brought up even if
// something else is not.
func (a *agent) bringUpNetwork(ctx context.Context) error {
	if a.config.NetworkData == nil {
		a.console.Stage("network", "no network_data.json given: interfaces are left as they are")
		return nil
	}
	const look = "network_data.json of this node against the NICs of the machine"
	plan, err := netconfig.ParseNetworkData(a.config.NetworkData)
	if err != nil {
		err = fmt.Errorf("%s: %w", a.config.NetworkFrom, err)
		if len(plan.Links) == 0 {
			return hint(err, look)
		}
		a.sayLines("network", "left out what is wrong: "+err.Error())
	}
	k, err := a.network()
	if err != nil {
		return err
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
			if !hasAny(state, plan) {
				return hint(err, look)
			}
			break
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	// 2. Apply. Whether what went wrong matters shows when the conductor is called.
	if err := plan.Apply(ctx, k); err != nil {
		a.sayLines("network", err.Error())
	}
	state, err := k.State(ctx)
	if err != nil {
		return fmt.Errorf("read the state of the network: %w", err)
	}
	for _, line := range networkLines(state) {
		a.console.Stage("network", "%s", line)
	}
	return nil
}

// hasAny tells whether the machine has at least one NIC of the plan.
func hasAny(s netconfig.State, p netconfig.Plan) bool {
	return slices.ContainsFunc(p.Links, func(l netconfig.Link) bool {
		return l.Kind == netconfig.Physical && slices.ContainsFunc(s.NICs, func(n netconfig.NIC) bool { return l.MAC == n.MAC || l.MAC == n.PermanentMAC })
	})
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
