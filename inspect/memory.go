// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Memory is the "memory" object of the inventory.
type Memory struct {
	Total      Number `json:"total"`       // bytes that the kernel has, of /proc/meminfo
	PhysicalMB *int64 `json:"physical_mb"` // MiB in the slots, of SMBIOS; null if SMBIOS could not be read

	Modules []MemoryModule `json:"-"` // all slots, in the firmware's order
}

// MemoryModule is one slot, and the module in it (SMBIOS 3.7, type 17).
type MemoryModule struct {
	Slot         string // as printed on the board: DIMM A1
	Bank         string
	Size         int64  // bytes; 0 for an empty slot
	Unknown      bool   // a module is there and its size is not known
	Kind         string // DDR4; empty if not known
	SpeedMTs     int    // highest, in MT/s; 0 if not known
	RunsMTs      int    // as configured
	Manufacturer string
	Part, Serial string
}

func readMemory(r *reader) Memory {
	var m Memory
	info := values(r.bytes("proc/meminfo", smallFile), ":")
	kb, err := strconv.ParseInt(strings.TrimSuffix(info["MemTotal"], " kB"), 10, 64)
	if err != nil || kb < 0 || kb > 1<<50 {
		r.problem(fmt.Errorf("read proc/meminfo: MemTotal is %q", info["MemTotal"]))
	} else {
		m.Total = Number(kb << 10)
	}

	tables, err := r.open(smbiosFile, maxSMBIOS)
	if err != nil {
		r.problem(fmt.Errorf("size of memory modules: %w", err))
		return m
	}
	all, err := parseSMBIOS(tables)
	m.Modules = memoryModules(all)
	if err == nil {
		var size int64
		if size, err = installedMemory(all); err == nil {
			mb := size >> 20
			m.PhysicalMB = &mb
		}
	}
	if err != nil {
		r.problem(fmt.Errorf("size of memory modules: read %s: %w", smbiosFile, err))
	}
	return m
}

// AvailableMemory is how many bytes programs can have without pushing others out: MemAvailable of /proc/meminfo
// (Documentation/filesystems/proc.rst).
func (m Machine) AvailableMemory() (int64, error) {
	r := &reader{ctx: context.Background(), fsys: m.FS}
	b, err := r.open("proc/meminfo", smallFile)
	if err != nil {
		return 0, err
	}
	value := values(b, ":")["MemAvailable"]
	kb, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
	if err != nil || kb < 0 || kb > 1<<50 {
		return 0, fmt.Errorf("read proc/meminfo: MemAvailable is %q", value)
	}
	return kb << 10, nil
}
