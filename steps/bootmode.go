// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"encoding/json"
	"io/fs"
	"strings"

	"github.com/ironhand/ironhand/inspect"
)

// BootMode is how the node is to start its operating system, "uefi" or "bios", and the kind of partition table that its disks get for that, "gpt" or
// "msdos": as Ironic's record says, else as the machine was started. Source: ironic-python-agent's ironic_python_agent/utils.py, get_node_boot_mode and
// get_partition_table_type_from_specs.
func BootMode(m inspect.Machine, n Node) (mode, label string) {
	mode = n.bootMode()
	if mode == "" {
		mode = "bios"
		if _, err := fs.Stat(m.FS, "sys/firmware/efi"); err == nil {
			mode = "uefi"
		}
	}
	if mode == "uefi" || n.capability("disk_label") == "gpt" {
		return mode, "gpt"
	}
	return mode, "msdos"
}

// bootMode is the node's, "" if its record does not say.
func (n Node) bootMode() string {
	if strings.EqualFold(n.capability("secure_boot"), "true") {
		return "uefi"
	}
	for _, mode := range []string{
		text(n.InstanceInfo["deploy_boot_mode"]), capabilities(n.Properties["capabilities"])["boot_mode"], text(n.DriverInternalInfo["deploy_boot_mode"]),
	} {
		if mode != "" {
			if mode = strings.ToLower(mode); mode != "uefi" && mode != "bios" {
				return ""
			}
			return mode
		}
	}
	return ""
}

// capability is one of the instance's, or else of the node's.
func (n Node) capability(name string) string {
	for _, from := range []map[string]json.RawMessage{n.InstanceInfo, n.Properties} {
		if value, found := capabilities(from["capabilities"])[name]; found {
			return value
		}
	}
	return ""
}

// capabilities reads k:v,k2:v2, a JSON object, or a text that is one.
func capabilities(raw json.RawMessage) map[string]string {
	all := map[string]string{}
	if s := text(raw); s != "" {
		if !strings.HasPrefix(strings.TrimSpace(s), "{") {
			for _, pair := range strings.Split(s, ",") {
				if k, v, found := strings.Cut(pair, ":"); found {
					all[strings.TrimSpace(k)] = strings.TrimSpace(v)
				}
			}
			return all
		}
		raw = json.RawMessage(s)
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return all // nothing that anybody could mean
	}
	for k, v := range object {
		if all[k] = text(v); all[k] == "" {
			all[k] = string(v) // true
		}
	}
	return all
}

// text is a JSON string; "" if it is something else.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
