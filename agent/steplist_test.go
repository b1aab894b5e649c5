// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
)

// contractSteps are the steps of ironic-python-agent, as of version 12: name, interface, phases, and why one is absent.
// Source: IPA ironic_python_agent/hardware.py and hardware_managers.
var contractSteps = []struct {
	name, on string
	phases   []steps.Phase
	absent   string
}{
	{"erase_devices", "deploy", []steps.Phase{steps.Clean}, ""},
	{"erase_devices_metadata", "deploy", []steps.Phase{steps.Clean, steps.Deploy}, ""},
	{"erase_devices_express", "deploy", []steps.Phase{steps.Clean}, ""},
	{"erase_pstore", "deploy", []steps.Phase{steps.Clean}, ""},
	{"clean_uefi_nvram", "deploy", []steps.Phase{steps.Clean, steps.Deploy}, ""},
	{"delete_configuration", "raid", []steps.Phase{steps.Clean, steps.Service}, ""},
	{"create_configuration", "raid", []steps.Phase{steps.Clean, steps.Service}, ""},
	{"apply_configuration", "raid", []steps.Phase{steps.Deploy, steps.Service}, ""},
	{"write_image", "deploy", []steps.Phase{steps.Deploy, steps.Service}, ""},
	{"inject_files", "deploy", []steps.Phase{steps.Deploy, steps.Service}, ""},
	{"burnin_cpu", "deploy", []steps.Phase{steps.Clean, steps.Service}, ""},
	{"burnin_gpu", "deploy", []steps.Phase{steps.Clean, steps.Service}, ""},
	{"burnin_disk", "deploy", []steps.Phase{steps.Clean}, ""},
	{"burnin_memory", "deploy", []steps.Phase{steps.Clean, steps.Service}, ""},
	{"burnin_network", "deploy", []steps.Phase{steps.Clean, steps.Service}, ""},
	{"execute_bootc_install", "deploy", []steps.Phase{steps.Deploy, steps.Service}, "container images are not deployed: they run programs of their own, in a runtime that the ramdisk does not have"},
	{"container_clean_step", "deploy", allPhases, noContainers},
	{"generic_container_step", "deploy", allPhases, noContainers},
	{"update_nvidia_nic_firmware_image", "deploy", allPhases, noFirmware},
	{"update_nvidia_nic_firmware_settings", "deploy", allPhases, noFirmware},
}

const (
	noContainers = "the ramdisk has no container runtime"
	noFirmware   = "the ramdisk has no programs for the firmware of one vendor's NICs; a vendor's own manager may bring them"
)

var allPhases = []steps.Phase{steps.Clean, steps.Deploy, steps.Service}

// Each step of ironic-python-agent is there in the same phases, or is in docs/steps.md with the reason.
func TestStepsOfTheContract(t *testing.T) {
	here := map[string]steps.Step{}
	for _, s := range (generic.Manager{}).Steps() {
		here[s.Name] = s
	}
	there := 0
	for _, want := range contractSteps {
		s, ok := here[want.name]
		if ok != (want.absent == "") {
			t.Errorf("%s: there %v, and absent because %q", want.name, ok, want.absent)
		}
		if !ok {
			continue
		}
		there++
		var phases []steps.Phase
		for _, p := range allPhases {
			if _, offered := s.Priority[p]; offered {
				phases = append(phases, p)
			}
		}
		if s.Interface != want.on || !slices.Equal(phases, want.phases) {
			t.Errorf("%s: interface %s in %v, want %s in %v", want.name, s.Interface, phases, want.on, want.phases)
		}
	}
	t.Logf("of %d steps %d are there", len(contractSteps), there)
}

// absentSteps is a part of docs/steps.md.
func absentSteps() string {
	var b strings.Builder
	b.WriteString("\n## Not there\n\nSteps of ironic-python-agent that are not offered. Asked for all the same, they fail with `HardwareManagerMethodNotFound`.\n\n| Step | Why |\n|---|---|\n")
	for _, s := range contractSteps {
		if s.absent != "" {
			fmt.Fprintf(&b, "| `%s` | %s |\n", s.name, s.absent)
		}
	}
	return b.String()
}
