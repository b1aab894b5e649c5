// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"encoding/json"
	"fmt"

	"github.com/ironhand/ironhand/steps"
)

// options are what the conductor says about erasing, in the node's driver_internal_info.
type options struct {
	iterations   int  // passes of random data
	zeroize      bool // and zeros at the end
	goOn         bool // overwrite what could not be erased by its own means
	nvme, ata    bool // use those means
	concurrency  int
	skipReadOnly bool
	guard        bool // look for file systems of clusters
}

// maxPasses is beyond what any rule asks for.
const maxPasses = 100

// parseOptions reads them. A value of the wrong type is an error: it may have been meant to say that less, or more, be done.
func parseOptions(info map[string]json.RawMessage) (options, error) {
	o := options{iterations: 1, zeroize: true, nvme: true, ata: true, concurrency: 1, guard: true}
	var err error
	value := func(name string, to any) (given bool) {
		raw := info[name]
		if err != nil || len(raw) == 0 || string(raw) == "null" {
			return false
		}
		if json.Unmarshal(raw, to) != nil {
			err = fmt.Errorf("%w: driver_internal_info: %s is %.40s", steps.ErrArgs, name, raw)
		}
		return true
	}
	value("agent_erase_devices_iterations", &o.iterations)
	value("agent_erase_devices_zeroize", &o.zeroize)
	if !value("agent_continue_if_secure_erase_failed", &o.goOn) {
		value("agent_continue_if_ata_erase_failed", &o.goOn)
	}
	value("agent_enable_nvme_secure_erase", &o.nvme)
	value("agent_enable_ata_secure_erase", &o.ata)
	value("disk_erasure_concurrency", &o.concurrency)
	value("agent_erase_skip_read_only", &o.skipReadOnly)
	value("wipe_special_filesystems", &o.guard) // false is "do not look", whatever the name says (IPA hardware.py, safety_check_block_device)
	switch {
	case err != nil:
	case o.iterations < 0 || o.iterations > maxPasses:
		err = fmt.Errorf("%w: driver_internal_info: agent_erase_devices_iterations is %d, want 0 to %d", steps.ErrArgs, o.iterations, maxPasses)
	case o.concurrency < 1:
		err = fmt.Errorf("%w: driver_internal_info: disk_erasure_concurrency is %d", steps.ErrArgs, o.concurrency)
	}
	return o, err
}

// softwareRAID tells whether a RAID configuration of Ironic's has arrays of software RAID. One that cannot be read may.
func softwareRAID(raw json.RawMessage) bool {
	var config struct {
		LogicalDisks []struct {
			Controller string `json:"controller"`
		} `json:"logical_disks"`
	}
	if len(raw) == 0 {
		return false
	}
	if json.Unmarshal(raw, &config) != nil {
		return true
	}
	for _, d := range config.LogicalDisks {
		if d.Controller == "software" {
			return true
		}
	}
	return false
}
