// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ironhand/ironhand/inspect/ipmi"
)

// bmc is what the inventory has of the BMC.
type bmc struct{ v4, v6, mac Text }

// readBMC asks the BMC, if the kernel has a device for it. Sysfs is asked for that, so that a recording tells it too. Without an
// answer all is empty; with one, but no address, the addresses are those that ironic-python-agent has for none.
func readBMC(r *reader) bmc {
	if len(r.dir("sys/class/ipmi")) == 0 {
		return bmc{}
	}
	lan, err := ipmi.Find(r.ctx, func(_ context.Context, q ipmi.Request) ([]byte, error) {
		return r.ask(fmt.Sprintf(askIPMI, q.String()))
	})
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) || r.asker != nil {
			r.problem(fmt.Errorf("ask the BMC: %w", err))
		}
		if !lan.IPv4.IsValid() && !lan.IPv6.IsValid() {
			return bmc{}
		}
	}
	b := bmc{v4: "0.0.0.0", v6: "::/0"}
	if lan.IPv4.IsValid() {
		b.v4 = Text(lan.IPv4.String())
	}
	if lan.IPv6.IsValid() {
		b.v6 = Text(lan.IPv6.String())
	}
	if lan.MAC != nil {
		b.mac = Text(lan.MAC.String())
	}
	return b
}

// AskBMC sends a request to the BMC over the kernel's device, and returns its answer: completion code and data. Without a BMC the error is [fs.ErrNotExist].
func (m Machine) AskBMC(ctx context.Context, q ipmi.Request) ([]byte, error) {
	r := m.reader(ctx)
	if len(r.dir("sys/class/ipmi")) == 0 {
		return nil, fmt.Errorf("ask the BMC: %w", fs.ErrNotExist)
	}
	return r.ask(fmt.Sprintf(askIPMI, q.String()))
}
