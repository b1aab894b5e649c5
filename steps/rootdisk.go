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
	hints, err := n.rootDeviceHints()
	if err != nil {
		return inspect.Choice{}, err
	}
	disks, unread := m.Disks(ctx)
	choice, err := hints.Choose(disks)
	if err != nil {
		return choice, errors.Join(err, unread) // the missing one may be among what could not be read
	}
	return choice, nil
}

// rootDeviceHints are the node's hints; none if it has none.
func (n Node) rootDeviceHints() (inspect.Hints, error) {
	for _, from := range []struct {
		name   string
		fields map[string]json.RawMessage
	}{{"instance_info", n.InstanceInfo}, {"properties", n.Properties}} {
		hints, err := inspect.ParseHints(from.fields["root_device"])
		if err != nil {
			return inspect.Hints{}, fmt.Errorf("root_device in %s: %w", from.name, err)
		}
		if !hints.Empty() {
			return hints, nil
		}
	}
	return inspect.Hints{}, nil
}
