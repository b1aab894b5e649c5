// SPDX-License-Identifier: Apache-2.0

// Package generic is the manager for every machine: it lists the steps that need nothing
// special of the hardware, one literal each. The work itself is in the packages that it calls.
package generic

import (
	"context"
	"encoding/json"

	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/burnin"
	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/steps/lvm"
	"github.com/ironhand/ironhand/steps/raid"
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

// Support is the lowest there is: any other manager is asked first. On a machine that is being looked after, it starts the arrays that its disks hold, so that
// whoever looks at the disks afterwards finds them: in ironic-python-agent too the managers set up the hardware when they are asked.
func (Manager) Support(ctx context.Context, h steps.Host) (steps.Support, error) {
	if h.Tools == nil {
		return steps.Generic, nil // by hand, on any computer
	}
	if err := raid.Assemble(ctx, h); err != nil {
		h.Say("%v", err)
	}
	return steps.Generic, nil
}

// Steps are the steps for every machine.
func (Manager) Steps() []steps.Step {
	eraser := erase.Local()
	return []steps.Step{{
		Name:      "write_image",
		Interface: "deploy",
		// The conductor has a step of its own of this name, and calls this one from it.
		Priority: map[steps.Phase]int{steps.Deploy: 0, steps.Service: 0},
		Deploys:  true,
		Asks:     true,
		Args: []steps.Arg{
			{Name: "image_info", Required: true, Unlisted: true},
			{Name: "configdrive", Unlisted: true},
		},
		Check: func(h steps.Host, args json.RawMessage) error { _, err := parseRequest(h, args); return err },
		Run:   writeImage,
	}, {
		Name:      "inject_files",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Deploy: 0, steps.Service: 0},
		Args: []steps.Arg{
			{Name: "files", Description: "Files to inject, a list of file structures with keys: 'path' (path to the file), 'partition' (partition specifier), 'content' (base64 encoded string), " +
				"'mode' (new file mode) and 'dirmode' (mode for the leaf directory, if created). Merged with the values from node.properties[inject_files]."},
			{Name: "verify_ca", Description: "Whether to verify TLS certificates. Global agent options are used by default."},
		},
		Check: checkInjections,
		Run:   injectFiles,
	}, {
		Name:      "kexec",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Deploy: 0},
		Run:       kexec,
	}, {
		Name:      "erase_devices",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 10},
		Deploys:   true, // what was deployed is gone
		Abortable: true,
		Asks:      true,
		Run:       eraser.Devices,
	}, {
		Name:      "erase_devices_metadata",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 99, steps.Deploy: 0},
		Deploys:   true,
		Abortable: true,
		Asks:      true,
		Run:       eraser.Metadata,
	}, {
		Name:      "erase_devices_express",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0},
		Deploys:   true,
		Abortable: true,
		Asks:      true,
		Run:       eraser.Express,
	}, {
		Name:      "erase_pstore",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0},
		Abortable: true,
		Run:       eraser.Pstore,
	}, {
		Name:      "clean_uefi_nvram",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Deploy: 0},
		Abortable: true,
		Args: []steps.Arg{{Name: "match_patterns", Description: "A list of regular expressions, without regard to case: boot entries whose device path " +
			"one of them fits are deleted. Without it: paths that begin with HD(, and those of shim and GRUB."}},
		Check: eraser.CheckNVRAM,
		Run:   eraser.NVRAM,
	}, {
		Name:      "create_configuration",
		Interface: "raid",
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Service: 0},
		Deploys:   true, // an operating system that is on the disks does not stay
		Abortable: true,
		Asks:      true,
		Run:       raid.Create,
	}, {
		Name:      "delete_configuration",
		Interface: "raid",
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Service: 0},
		Deploys:   true,
		Abortable: true,
		Asks:      true,
		Run:       raid.Delete,
	}, {
		Name:      "apply_configuration",
		Interface: "raid",
		Priority:  map[steps.Phase]int{steps.Deploy: 0, steps.Service: 0},
		Deploys:   true,
		Asks:      true,
		Args: []steps.Arg{
			{Name: "raid_config", Description: "The RAID configuration to apply.", Required: true},
			{Name: "delete_existing", Description: "Setting this to 'True' indicates to delete existing RAID configuration prior to creating the new configuration. Default value is 'True'."},
		},
		Run: raid.Apply,
	}, {
		Name:      "validate_configuration", // no phase offers it, and it can be called
		Interface: "raid",
		Asks:      true, // and needs not: it changes nothing
		Args:      []steps.Arg{{Name: "raid_config", Unlisted: true}},
		Run:       raid.Validate,
	}, {
		Name:      "create_volumes",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Deploy: 0, steps.Service: 0},
		Abortable: true,
		Asks:      true,
		Args: []steps.Arg{{Name: "logical_volumes", Description: "The volume groups and logical volumes to make, a list of groups. " +
			"Without it: the node's property of this name."}},
		Check: lvm.Check,
		Run:   lvm.Create,
	}, {
		Name:      "delete_volumes",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Deploy: 0, steps.Service: 0},
		Deploys:   true,
		Abortable: true,
		Asks:      true,
		Args:      []steps.Arg{{Name: "volume_groups", Description: "Names of the volume groups to delete. Without it: all of the machine."}},
		Run:       lvm.Delete,
	}, {
		Name:      "burnin_cpu",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Service: 0},
		Abortable: true,
		Run:       burnin.CPU,
	}, {
		Name:      "burnin_memory",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Service: 0},
		Abortable: true,
		Run:       burnin.Memory,
	}, {
		Name:      "burnin_disk",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0},
		Deploys:   true, // what was deployed is gone
		Abortable: true,
		Asks:      true,
		Run:       burnin.Disk,
	}, {
		Name:      "burnin_network",
		Interface: "deploy",
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Service: 0},
		Abortable: true,
		Run:       burnin.Network,
	}, {
		Name:      "burnin_gpu",
		Interface: "deploy",
		// It is offered also where its program is not in the ramdisk, as by ironic-python-agent: where that lies the node's record says, which is not at hand when steps are listed. The step then says what is missing.
		Priority:  map[steps.Phase]int{steps.Clean: 0, steps.Service: 0},
		Abortable: true,
		Run:       burnin.GPU,
	}}
}
