// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ironhand/ironhand/inspect"
)

// RootDisk chooses the disk that an operating system is written to: the first that
// fits the node's root device hints, from instance_info before properties, or without hints
// the smallest of at least 4 GiB.
// Source: ironic-python-agent's ironic_python_agent/hardware.py, get_os_install_device.
func RootDisk(ctx context.Context, m inspect.Machine, n Node) (inspect.Choice, error) {
	hints, err := inspect.ParseHints(n.RootDeviceHints())
	if err != nil {
		return inspect.Choice{}, fmt.Errorf("root device hints: %w", err)
	}
	disks, unread := m.Disks(ctx)
	choice, err := hints.Choose(disks)
	if err != nil {
		return choice, errors.Join(err, unread) // the missing one may be among what could not be read
	}
	return choice, nil
}

// RootDeviceHints returns the node's hints as JSON, or nil if it has none.
func (n Node) RootDeviceHints() json.RawMessage {
	for _, raw := range []json.RawMessage{n.InstanceInfo["root_device"], n.Properties["root_device"]} {
		switch string(raw) {
		case "", "null", "{}":
		default:
			return raw
		}
	}
	return nil
}
