// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"path"
	"strconv"
)

// CXLMemory is a memory device on CXL (Documentation/ABI/testing/sysfs-bus-cxl).
type CXLMemory struct {
	Name       string // mem0
	PCIAddress string // 0000:0d:00.0
	Serial     string // 0x and digits, as the kernel writes it
	Firmware   string // revision
	Volatile   int64  // bytes
	Persistent int64  // bytes
	NUMANode   int    // -1 if it is not known
}

// readCXL lists the memory devices that have a driver; a device without is in the list of PCI devices alone.
func readCXL(r *reader) []CXLMemory {
	list := []CXLMemory{}
	for _, name := range r.dir("sys/bus/cxl/devices") {
		if _, ok := suffixNumber(name, "mem"); !ok {
			continue
		}
		dir := r.real("sys/bus/cxl/devices/" + name)
		m := CXLMemory{Name: name, PCIAddress: path.Base(path.Dir(dir)), Serial: r.text(dir + "/serial"), Firmware: r.text(dir + "/firmware_version"), NUMANode: -1}
		size := func(kind string) int64 {
			text := r.text(dir + "/" + kind + "/size")
			n, err := strconv.ParseInt(text, 0, 64)
			if err != nil && text != "" {
				r.problem(fmt.Errorf("read %s/%s/size: %w", dir, kind, err))
				return 0
			}
			return max(n, 0)
		}
		m.Volatile, m.Persistent = size("ram"), size("pmem")
		if node, ok := r.number(dir + "/numa_node"); ok {
			m.NUMANode = int(node)
		}
		list = append(list, m)
	}
	return list
}
