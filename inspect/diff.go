// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// A Change is one thing that is different in a machine, as a person would say it.
type Change struct {
	Part  string `json:"part"`          // system, firmware, cpu, memory, disk, nic, pci, cxl, tpm, bmc
	Where string `json:"where"`         // bay 3, DIMM A1, 0000:3d:00.0; empty if there is but one
	What  string `json:"what"`          // added, removed, replaced, moved, or the property that is another
	Old   string `json:"old,omitempty"` // as people write it
	New   string `json:"new,omitempty"`
}

// A Difference is what is printed of a comparison.
type Difference struct {
	Changes []Change `json:"changes"` // none, but never null
}

// Kinds of changes of whole parts; all others are properties.
const (
	added    = "added"
	removed  = "removed"
	replaced = "replaced"
	moved    = "moved"
)

// String says it in one line: disk in bay 3: replaced, serial S1 -> serial S2.
func (c Change) String() string {
	s := c.Part
	if c.Where != "" {
		s += " in " + c.Where
		if c.Part == "nic" || c.Part == "pci" {
			s = c.Part + " " + c.Where
		}
	}
	s += ": " + c.What
	switch {
	case c.Old != "" && c.New != "":
		return s + ", " + c.Old + " -> " + c.New
	case c.Old != "" || c.New != "":
		return s + ", " + c.Old + c.New
	}
	return s
}

// Changes lists what is different in the hardware and firmware of a machine, in the order of the inventory's parts. Names that the kernel
// gives, addresses, and links that are up or down are not hardware.
func Changes(old, now Inventory) []Change {
	d := differ{list: []Change{}}
	d.property("system", "", "product", old.SystemVendor.Manufacturer+" "+old.SystemVendor.ProductName, now.SystemVendor.Manufacturer+" "+now.SystemVendor.ProductName)
	d.property("system", "", "serial", old.SystemVendor.SerialNumber, now.SystemVendor.SerialNumber)
	d.property("system", "", "UUID", old.System.UUID, now.System.UUID)
	d.property("firmware", "", "version", old.SystemVendor.Firmware.Version, now.SystemVendor.Firmware.Version)
	d.property("firmware", "", "boot mode", old.Boot.Mode, now.Boot.Mode)
	if a, b := old.Boot.SecureBoot, now.Boot.SecureBoot; a != nil && b != nil {
		d.property("firmware", "", "Secure Boot", onOff(*a), onOff(*b))
	}
	d.property("bmc", "", "MAC address", string(old.BMCMAC), string(now.BMCMAC))
	d.property("cpu", "", "model", old.CPU.ModelName, now.CPU.ModelName)
	d.number("cpu", "", "sockets", old.CPU.SocketCount, now.CPU.SocketCount)
	d.number("cpu", "", "threads", old.CPU.Count, now.CPU.Count)
	d.property("cpu", "", "microcode", old.CPU.Microcode, now.CPU.Microcode)
	if a, b := old.Memory.PhysicalMB, now.Memory.PhysicalMB; a != nil && b != nil && *a != *b {
		what := "larger"
		if *b < *a {
			what = "smaller"
		}
		d.add("memory", "", what, humanSize(*a<<20), humanSize(*b<<20))
	}
	d.modules(old.Memory.Modules, now.Memory.Modules)
	d.nics(old.Interfaces, now.Interfaces)
	d.disks(old.Disks, now.Disks)
	if old.Details.PCI == nil || now.Details.PCI == nil {
		return d.list // an inventory that was kept as JSON has no details
	}
	d.pci(old, now)
	d.cxl(old.Details.CXL, now.Details.CXL)
	switch a, b := old.Details.TPM, now.Details.TPM; {
	case a == nil && b != nil:
		d.add("tpm", "", added, "", "version "+b.Version)
	case a != nil && b == nil:
		d.add("tpm", "", removed, "version "+a.Version, "")
	case a != nil:
		d.property("tpm", "", "version", a.Version, b.Version)
		d.property("tpm", "", "PCR banks", strings.Join(a.Banks, " "), strings.Join(b.Banks, " "))
	}
	return d.list
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// differ collects changes.
type differ struct{ list []Change }

func (d *differ) add(part, where, what, old, now string) {
	d.list = append(d.list, Change{part, where, what, old, now})
}

// property adds a value that is another. One that is not known on either side says nothing.
func (d *differ) property(part, where, what, old, now string) {
	old, now = strings.TrimSpace(old), strings.TrimSpace(now)
	if old != now && old != "" && now != "" {
		d.add(part, where, what, old, now)
	}
}

func (d *differ) number(part, where, what string, old, now int) {
	if old != 0 && now != 0 {
		d.property(part, where, what, itoa(old), itoa(now))
	}
}

// modules compares slot by slot. Firmware may give several slots one name, so the first of that name is compared with the first.
func (d *differ) modules(old, now []MemoryModule) {
	if len(old) == 0 || len(now) == 0 {
		return // SMBIOS could not be read
	}
	type key struct {
		slot, bank string
		number     int
	}
	index := func(list []MemoryModule) (keys []key, m map[key]MemoryModule) {
		m = make(map[key]MemoryModule)
		for _, module := range list {
			k := key{slot: module.Slot, bank: module.Bank}
			for _, taken := m[k]; taken; _, taken = m[k] {
				k.number++
			}
			m[k] = module
			keys = append(keys, k)
		}
		return keys, m
	}
	keys, before := index(old)
	more, after := index(now)
	for _, k := range more {
		if _, known := before[k]; !known {
			keys = append(keys, k)
		}
	}
	for _, k := range keys {
		a, b := before[k], after[k]
		where := strings.TrimSpace(cmp.Or(k.slot, "a slot") + " " + k.bank)
		full := func(m MemoryModule) bool { return m.Size > 0 || m.Unknown }
		switch {
		case full(a) && !full(b):
			d.add("memory", where, "empty now", a.describe(), "")
		case !full(a) && full(b):
			d.add("memory", where, added, "", b.describe())
		case a.Serial != b.Serial && a.Serial != "" && b.Serial != "":
			d.add("memory", where, replaced, a.describe(), b.describe())
		default:
			if a.Size != b.Size {
				d.add("memory", where, "size", humanSize(a.Size), humanSize(b.Size))
			}
			d.number("memory", where, "speed in MT/s", a.RunsMTs, b.RunsMTs)
		}
	}
}

// describe says what is in a slot: 32.0 GiB DDR4 Samsung M393A4K40DB3-CWE serial 03B71234.
func (m MemoryModule) describe() string {
	size := humanSize(m.Size)
	if m.Unknown {
		size = "unknown size"
	}
	s := strings.Join(strings.Fields(strings.Join([]string{size, m.Kind, m.Manufacturer, m.Part}, " ")), " ")
	if m.Serial != "" {
		s += " serial " + m.Serial
	}
	return s
}

// pair matches what is in two lists by the first key that both have, key by key; each is matched once.
func pair[T any](old, now []T, keys ...func(T) string) (pairs [][2]*T, gone, come []*T) {
	ofOld, ofNow := make([]int, len(old)), make([]bool, len(now))
	for i := range ofOld {
		ofOld[i] = -1
	}
	for _, key := range keys {
		for i := range old {
			k := key(old[i])
			if ofOld[i] >= 0 || k == "" {
				continue
			}
			for j := range now {
				if !ofNow[j] && key(now[j]) == k {
					ofOld[i], ofNow[j] = j, true
					break
				}
			}
		}
	}
	for i, j := range ofOld {
		if j >= 0 {
			pairs = append(pairs, [2]*T{&old[i], &now[j]})
		} else {
			gone = append(gone, &old[i])
		}
	}
	for j, taken := range ofNow {
		if !taken {
			come = append(come, &now[j])
		}
	}
	return pairs, gone, come
}

func values2[T any](list []*T) (out []T) {
	for _, v := range list {
		out = append(out, *v)
	}
	return out
}

// place is where a disk is, for people: by its bay if that is known.
func (d Disk) place() string {
	switch {
	case d.Bay != "":
		return "bay " + d.Bay
	case d.ByPath != "":
		return path.Base(string(d.ByPath))
	}
	return d.Name
}

func (d *differ) disks(old, now []Disk) {
	// 1. The same disks are those with the same serial number or WWN.
	pairs, gone, come := pair(old, now,
		func(d Disk) string { return string(d.Serial) },
		func(d Disk) string { return string(d.WWN) })
	for _, p := range pairs {
		a, b := *p[0], *p[1]
		where := b.place()
		if a.Bay != b.Bay && a.Bay != "" && b.Bay != "" {
			d.add("disk", where, moved, "bay "+a.Bay, "bay "+b.Bay)
		}
		d.property("disk", where, "firmware", a.Firmware, b.Firmware)
		if a.Size != b.Size {
			d.add("disk", where, "size", humanSize(a.Size), humanSize(b.Size))
		}
		if a.LogicalSectors != b.LogicalSectors {
			d.number("disk", where, "logical sectors in bytes", int(a.LogicalSectors), int(b.LogicalSectors))
		}
		if a.ReadOnly != b.ReadOnly {
			d.add("disk", where, "read-only", onOff(a.ReadOnly), onOff(b.ReadOnly))
		}
	}
	// 2. Of the others, those in the same place: another disk there, or one without any number.
	pairs, gone2, come2 := pair(values2(gone), values2(come),
		func(d Disk) string { return d.Bay },
		func(d Disk) string { return string(d.ByPath) },
		func(d Disk) string { return string(d.HCTL) },
		func(d Disk) string {
			if d.Serial == "" && d.WWN == "" {
				return d.Name
			}
			return ""
		})
	for _, p := range pairs {
		a, b := *p[0], *p[1]
		if a.Serial != b.Serial || a.WWN != b.WWN || a.Model != b.Model || a.Size != b.Size {
			d.add("disk", b.place(), replaced, a.short(), b.short())
		}
	}
	for _, a := range gone2 {
		d.add("disk", a.place(), removed, a.short(), "")
	}
	for _, b := range come2 {
		d.add("disk", b.place(), added, "", b.short())
	}
}

// short is String without the name.
func (d Disk) short() string { return strings.TrimPrefix(d.String(), d.Name+" ") }

func (d *differ) nics(old, now []NIC) {
	// An inventory that was kept as JSON does not say of what kind an interface is.
	other := make(map[string]bool)
	for _, n := range slices.Concat(old, now) {
		other[n.Name] = other[n.Name] || n.Kind != Physical
	}
	hardware := func(list []NIC) []NIC {
		return slices.DeleteFunc(slices.Clone(list), func(n NIC) bool { return other[n.Name] })
	}
	pairs, gone, come := pair(hardware(old), hardware(now), func(n NIC) string { return string(n.MACAddress) }, func(n NIC) string { return string(n.PCIAddress) })
	for _, p := range pairs {
		a, b := *p[0], *p[1]
		if a.MACAddress != b.MACAddress {
			d.add("nic", b.Name, replaced, string(a.MACAddress), string(b.MACAddress))
			continue
		}
		d.property("nic", b.Name, "firmware", a.Firmware, b.Firmware)
		d.property("nic", b.Name, "PCI address", string(a.PCIAddress), string(b.PCIAddress))
		d.number("nic", b.Name, "speed in Mbit/s", int(a.SpeedMbps), int(b.SpeedMbps))
	}
	for _, a := range gone {
		d.add("nic", a.Name, removed, string(a.MACAddress), "")
	}
	for _, b := range come {
		d.add("nic", b.Name, added, "", string(b.MACAddress))
	}
}

// pci compares what is in the slots, but for interfaces, disks and memory, which are compared for themselves.
func (d *differ) pci(old, now Inventory) {
	others := func(i Inventory) (list []PCIDevice) {
		for _, p := range i.Details.PCI {
			nic := slices.ContainsFunc(i.Interfaces, func(n NIC) bool { return string(n.PCIAddress) == p.Bus })
			cxl := slices.ContainsFunc(i.Details.CXL, func(m CXLMemory) bool { return m.PCIAddress == p.Bus })
			if !nic && !cxl && !strings.HasPrefix(p.Class, "0108") {
				list = append(list, p)
			}
		}
		return list
	}
	pairs, gone, come := pair(others(old), others(now), func(p PCIDevice) string { return p.Bus })
	say := func(p PCIDevice) string {
		return strings.TrimSpace(fmt.Sprintf("%s:%s class %s %s", p.VendorID, p.ProductID, p.Class, p.Name))
	}
	for _, p := range pairs {
		if a, b := *p[0], *p[1]; a.VendorID != b.VendorID || a.ProductID != b.ProductID {
			d.add("pci", b.Bus, replaced, say(a), say(b))
		}
	}
	for _, a := range gone {
		d.add("pci", a.Bus, removed, say(*a), "")
	}
	for _, b := range come {
		d.add("pci", b.Bus, added, "", say(*b))
	}
}

// cxl compares memory on CXL, by serial number and then by place.
func (d *differ) cxl(old, now []CXLMemory) {
	pairs, gone, come := pair(old, now, func(m CXLMemory) string { return m.Serial }, func(m CXLMemory) string { return m.PCIAddress })
	say := func(m CXLMemory) string { return humanSize(m.Volatile+m.Persistent) + " serial " + m.Serial }
	for _, p := range pairs {
		a, b := *p[0], *p[1]
		if a.Serial != b.Serial {
			d.add("cxl", b.PCIAddress, replaced, say(a), say(b))
			continue
		}
		d.property("cxl", b.PCIAddress, "firmware", a.Firmware, b.Firmware)
		d.property("cxl", b.PCIAddress, "size", humanSize(a.Volatile+a.Persistent), humanSize(b.Volatile+b.Persistent))
	}
	for _, a := range gone {
		d.add("cxl", a.PCIAddress, removed, say(*a), "")
	}
	for _, b := range come {
		d.add("cxl", b.PCIAddress, added, "", say(*b))
	}
}
