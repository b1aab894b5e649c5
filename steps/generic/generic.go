// SPDX-License-Identifier: Apache-2.0

// Package generic is the manager for every machine: it lists the steps that need nothing
// special of the hardware, one literal each. The work itself is in the packages that it calls.
package generic

import (
	"context"
	"encoding/json"

	"github.com/ironhand/ironhand/steps"
)

// Manager is the hardware manager for every machine. Its names are those of
// ironic-python-agent's, because nodes' records hold them.
type Manager struct{}

// Class is the key of its steps in lists.
func (Manager) Class() string { return "GenericHardwareManager" }

// Name is its key in lists of versions.
func (Manager) Name() string { return "generic_hardware_manager" }

// Version changes when its steps change.
func (Manager) Version() string { return "ironhand.1" }

// Support is the lowest there is: any other manager is asked first.
func (Manager) Support(context.Context, steps.Host) (steps.Support, error) {
	return steps.Generic, nil
}

// Steps are the steps for every machine.
func (Manager) Steps() []steps.Step {
	return []steps.Step{{
		Name:      "write_image",
		Interface: "deploy",
		// The conductor has a step of its own of this name, and calls this one from it.
		Priority: map[steps.Phase]int{steps.Deploy: 0, steps.Service: 0},
		Deploys:  true,
		Args: []steps.Arg{
			{Name: "image_info", Required: true, Unlisted: true},
			{Name: "configdrive", Unlisted: true},
		},
		Check: func(h steps.Host, args json.RawMessage) error { _, err := parseRequest(h, args); return err },
		Run:   writeImage,
	}, {
		Name:      "kexec",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Deploy: 0},
		Run:       kexec,
	}}
}
