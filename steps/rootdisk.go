// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ironhand/ironhand/inspect"
)

// RootDisk chooses the disk that an operating system is written to: the first that
// fits the node's root device hints, from instance_info before properties, or without hints
// the smallest of at least 4 GiB.
// Source: ironic-python-agent's ironic_python_agent/hardware.py, get_os_install_device.
func RootDisk(ctx context.Context, m inspect.Machine, n Node) (inspect.Choice, error) {
	disks, err := m.Disks(ctx)
	if err != nil && len(disks) == 0 {
		return inspect.Choice{}, fmt.Errorf("list disks: %w", err)
	}
	raw := n.RootDeviceHints()
	if raw == nil {
		return inspect.DefaultDisk(disks)
	}
	hints, err := inspect.ParseHints(raw)
	if err != nil {
		return inspect.Choice{}, fmt.Errorf("root device hints: %w", err)
	}
	return hints.Choose(disks)
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
