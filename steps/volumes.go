// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A Volume is an array of software RAID that the node's record says it has.
type Volume struct {
	Name   string // "" if the record gives it none
	Number int    // without a name, the array was made as md and this
	Root   *bool  // whether the operating system goes onto it; nil if the record does not say
}

// An Array is one of software RAID that the machine has, as [Host.Arrays] finds it.
type Array struct {
	Device string   // "/dev/md0"; "" if it does not run
	Name   string   // without the host that made it
	Disks  []string // that its members are on: "/dev/sda"
}

// Volumes are the arrays of software RAID in the node's raid_config.
func (n Node) Volumes() ([]Volume, error) {
	if len(n.RAIDConfig) == 0 {
		return nil, nil
	}
	var config struct {
		LogicalDisks []struct {
			Controller string          `json:"controller"`
			Name       string          `json:"volume_name"`
			Root       *bool           `json:"is_root_volume"`
			Size       json.RawMessage `json:"size_gb"`
		} `json:"logical_disks"`
	}
	if err := json.Unmarshal(n.RAIDConfig, &config); err != nil {
		return nil, fmt.Errorf("raid_config of the node: %w", err)
	}
	var volumes, last []Volume
	for _, d := range config.LogicalDisks {
		switch v := (Volume{Name: d.Name, Root: d.Root}); {
		case d.Controller != "software":
		case string(d.Size) == `"MAX"`: // made after the others
			last = append(last, v)
		default:
			volumes = append(volumes, v)
		}
	}
	volumes = append(volumes, last...)
	for i := range volumes {
		volumes[i].Number = i
	}
	return volumes, nil
}

// IsRoot tells whether the operating system goes onto it by the word of the record.
func (v Volume) IsRoot() bool { return v.Root != nil && *v.Root }

// Array is the name that its array has.
func (v Volume) Array() string {
	if v.Name != "" {
		return v.Name
	}
	return fmt.Sprintf("md%d", v.Number)
}

// Is tells whether an array of this name may be the volume: where the record gives none, any that has md and a number.
func (v Volume) Is(name string) bool {
	return v.Name == name || v.Name == "" && strings.HasPrefix(name, "md") && len(name) > 2 && strings.Trim(name[2:], "0123456789") == ""
}

// mayBeRoot tells whether an array is one of the node's volumes that the operating system may go onto.
func mayBeRoot(volumes []Volume, a Array) bool {
	return slices.ContainsFunc(volumes, func(v Volume) bool { return v.Is(a.Name) && (v.Root == nil || *v.Root) })
}
