// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"slices"
	"strings"
)

// Places are the names that stand on a machine's board, by which people find a part. What cannot be read is left out.
type Places struct {
	Modules []MemoryModule    // slots with a module
	Sockets []string          // of the processors that are there, in the firmware's order
	Slots   map[string]string // of PCI cards, by address without function: 0000:3b:00
}

// Places reads the names that the firmware gives. It asks no device.
func (m Machine) Places() Places {
	r := m.reader(context.Background())
	p := Places{Slots: map[string]string{}}
	if tables, err := r.open(smbiosFile, maxSMBIOS); err == nil {
		list, _ := parseSMBIOS(tables) // up to where they are broken, which the inventory tells
		p.Modules = slices.DeleteFunc(memoryModules(list), func(m MemoryModule) bool { return m.Size == 0 && !m.Unknown })
		p.Sockets = sockets(list)
	}
	for _, slot := range r.dir("sys/bus/pci/slots") {
		if at := r.text("sys/bus/pci/slots/" + slot + "/address"); at != "" {
			p.Slots[at] = strings.ToValidUTF8(slot, "_")
		}
	}
	return p
}

// sockets are the designations of populated sockets of central processors (SMBIOS 3.7, type 4).
func sockets(list []structure) (names []string) {
	for _, s := range list {
		kind, _ := s.field(0x05, 1)
		status, ok := s.field(0x18, 1)
		if s.kind() == 4 && kind == 3 && ok && status&0x40 != 0 {
			names = append(names, s.text(0x04))
		}
	}
	return names
}
