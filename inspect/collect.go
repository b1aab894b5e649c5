// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Report is the object that inspection sends, as the collectors put it together.
type Report struct {
	// Inventory is what the machine was found to be before the collectors began.
	Inventory Inventory
	// Data are the keys of the object. What collectors of Ironic's put there is in [Collectors] and in the agent.
	Data map[string]any
}

// A Collector adds to a report. It is run in the order in which somebody asks for it by its name.
type Collector struct {
	Name    string
	Collect func(ctx context.Context, m Machine, r *Report) error
}

// Collectors are those of ironic-python-agent (its setup.cfg, ironic_python_agent.inspector.collectors) that need the machine alone.
func Collectors() []Collector {
	return []Collector{
		{"pci-devices", func(_ context.Context, _ Machine, r *Report) error {
			r.Data["pci_devices"] = r.Inventory.Details.PCI
			return nil
		}},
		{"numa-topology", func(_ context.Context, _ Machine, r *Report) error {
			if n := r.Inventory.Details.NUMA; n != nil { // without error, as ironic-python-agent has it
				r.Data["numa_topology"] = n
			}
			return nil
		}},
		{"usb-devices", func(_ context.Context, _ Machine, r *Report) error {
			r.Data["usb_devices"] = r.Inventory.Details.USB
			return nil
		}},
		{"dmi-decode", collectDMI},
		{"extra-hardware", func(_ context.Context, _ Machine, r *Report) error {
			r.Data["data"] = extraHardware(r.Inventory)
			return nil
		}},
	}
}

// collectDMI adds what ironic-python-agent has of `dmidecode -t bios -t processor -t memory` (ironic_python_agent/dmi_inspector.py).
func collectDMI(ctx context.Context, m Machine, r *Report) error {
	own := m.reader(ctx)
	tables, ok := within(own, "SMBIOS", deviceLimit, func(r *reader) []byte {
		b, err := r.open(smbiosFile, maxSMBIOS)
		if err != nil {
			r.problem(err)
		}
		return b
	})
	if err := errors.Join(own.problems()...); err != nil || !ok {
		return err
	}
	list, err := parseSMBIOS(tables)
	r.Data["dmi"] = decodeDMI(list)
	return err
}

// decodeDMI writes structures as dmidecode does, with its keys and words; processors and memory modules keep their handles. Left out are lists of
// features, and the tables of names of processor families and sockets.
func decodeDMI(list []structure) map[string]any {
	bios, cpus, devices := map[string]any{}, []map[string]any{}, []map[string]any{}
	var memory map[string]any
	number := 0
	for _, s := range list {
		fields := map[string]any{}
		switch s.kind() {
		case 0:
			decodeBIOS(s, fields)
			bios = fields
		case 4:
			decodeCPU(s, fields)
			cpus = append(cpus, fields)
		case 16:
			decodeArray(s, fields)
			n, _ := s.field(0x0d, 2)
			number += int(n)
			if memory == nil {
				memory = fields
			}
		case 17:
			decodeModule(s, fields)
			devices = append(devices, fields)
		}
	}
	if memory == nil {
		memory = map[string]any{}
	} else {
		memory["Number Of Devices"] = number
	}
	memory["devices"] = devices
	return map[string]any{"bios": bios, "cpu": cpus, "memory": memory}
}

// handleLine is the line with which dmidecode begins a structure.
func (s structure) handleLine() string {
	return fmt.Sprintf("Handle 0x%04X, DMI type %d, %d bytes", s.handle(), s.kind(), s[1])
}

// words is the text at an offset, as dmidecode writes one that is missing.
func (s structure) words(at int) string {
	if n, ok := s.field(at, 1); !ok || n == 0 {
		return "Not Specified"
	}
	return s.text(at)
}

// table returns one of dmidecode's words for a number that counts from 1.
func table(n uint32, words ...string) string {
	if n < 1 || int(n) > len(words) || words[n-1] == "" {
		return "<OUT OF SPEC>"
	}
	return words[n-1]
}

// set puts a field if the structure is long enough for it, as dmidecode does.
func set(s structure, fields map[string]any, key string, at, size int, text func(n uint32) string) {
	if n, ok := s.field(at, size); ok {
		fields[key] = text(n)
	}
}

func decodeBIOS(s structure, f map[string]any) {
	f["Handle"] = s.handleLine()
	f["Vendor"], f["Version"], f["Release Date"] = s.words(4), s.words(5), s.words(8)
	if n, ok := s.field(9, 1); ok {
		size := 64 * (n + 1)
		f["ROM Size"] = fmt.Sprintf("%d kB", size)
		switch extended, ok := s.field(0x18, 2); {
		case n == 0xff && ok:
			f["ROM Size"] = fmt.Sprintf("%d %s", extended&0x3fff, table(extended>>14+1, "MB", "GB"))
		case size%1024 == 0:
			f["ROM Size"] = fmt.Sprintf("%d MB", size/1024)
		}
	}
	revision := func(key string, at int) {
		if major, ok := s.field(at, 1); ok && major != 0xff {
			if minor, ok := s.field(at+1, 1); ok && minor != 0xff {
				f[key] = fmt.Sprintf("%d.%d", major, minor)
			}
		}
	}
	revision("BIOS Revision", 0x14)
	revision("Firmware Revision", 0x16)
}

func decodeCPU(s structure, f map[string]any) {
	mhz := func(n uint32) string {
		if n == 0 {
			return "Unknown"
		}
		return fmt.Sprintf("%d MHz", n)
	}
	f["Handle"] = s.handleLine()
	f["Socket Designation"], f["Manufacturer"], f["Version"] = s.words(0x04), s.words(0x07), s.words(0x10)
	set(s, f, "Type", 0x05, 1, func(n uint32) string {
		return table(n, "Other", "Unknown", "Central Processor", "Math Processor", "DSP Processor", "Video Processor")
	})
	if b := s.formatted(); len(b) >= 0x10 {
		f["ID"] = strings.ToUpper(fmt.Sprintf("% x", b[8:16]))
	}
	set(s, f, "External Clock", 0x12, 2, mhz)
	set(s, f, "Max Speed", 0x14, 2, mhz)
	set(s, f, "Current Speed", 0x16, 2, mhz)
	set(s, f, "Status", 0x18, 1, func(n uint32) string {
		if n&0x40 == 0 {
			return "Unpopulated"
		}
		words := []string{"Unknown", "Enabled", "Disabled By User", "Disabled By BIOS", "Idle", "<OUT OF SPEC>", "<OUT OF SPEC>", "Other"}
		return "Populated, " + words[n&7]
	})
	if len(s.formatted()) >= 0x23 {
		f["Serial Number"], f["Asset Tag"], f["Part Number"] = s.words(0x20), s.words(0x21), s.words(0x22)
	}
	count := func(key string, at, extended int) {
		n, ok := s.field(at, 1)
		if more, found := s.field(extended, 2); n == 0xff && found {
			n = more
		}
		if ok && n != 0 {
			f[key] = strconv.Itoa(int(n))
		}
	}
	count("Core Count", 0x23, 0x2a)
	count("Core Enabled", 0x24, 0x2c)
	count("Thread Count", 0x25, 0x2e)
}

func decodeArray(s structure, f map[string]any) {
	set(s, f, "Location", 0x04, 1, func(n uint32) string {
		return table(n, "Other", "Unknown", "System Board Or Motherboard", "ISA Add-on Card", "EISA Add-on Card", "PCI Add-on Card",
			"MCA Add-on Card", "PCMCIA Add-on Card", "Proprietary Add-on Card", "NuBus")
	})
	set(s, f, "Use", 0x05, 1, func(n uint32) string {
		return table(n, "Other", "Unknown", "System Memory", "Video Memory", "Flash Memory", "Non-volatile RAM", "Cache Memory")
	})
	set(s, f, "Error Correction Type", 0x06, 1, func(n uint32) string {
		return table(n, "Other", "Unknown", "None", "Parity", "Single-bit ECC", "Multi-bit ECC", "CRC")
	})
	if kb, ok := s.field(0x07, 4); ok {
		capacity := uint64(kb) << 10
		if kb == 0x80000000 { // in bytes, elsewhere
			low, _ := s.field(0x0f, 4)
			high, _ := s.field(0x13, 4)
			capacity = uint64(high)<<32 | uint64(low)
		}
		f["Maximum Capacity"] = dmiSize(capacity)
	}
	set(s, f, "Error Information Handle", 0x0b, 2, errorHandle)
}

func errorHandle(n uint32) string {
	switch n {
	case 0xfffe:
		return "Not Provided"
	case 0xffff:
		return "No Error"
	}
	return fmt.Sprintf("0x%04X", n)
}

func decodeModule(s structure, f map[string]any) {
	bits := func(n uint32) string {
		if n == 0 || n == 0xffff {
			return "Unknown"
		}
		return fmt.Sprintf("%d bits", n)
	}
	f["Handle"] = s.handleLine()
	set(s, f, "Array Handle", 0x04, 2, func(n uint32) string { return fmt.Sprintf("0x%04X", n) })
	set(s, f, "Error Information Handle", 0x06, 2, errorHandle)
	set(s, f, "Total Width", 0x08, 2, bits)
	set(s, f, "Data Width", 0x0a, 2, bits)
	switch size, err := moduleSize(s); {
	case err != nil:
		f["Size"] = "Unknown"
	case size == 0:
		f["Size"] = "No Module Installed"
	default:
		f["Size"] = dmiSize(uint64(size))
	}
	set(s, f, "Form Factor", 0x0e, 1, func(n uint32) string {
		return table(n, "Other", "Unknown", "SIMM", "SIP", "Chip", "DIP", "ZIP", "Proprietary Card", "DIMM", "TSOP", "Row Of Chips", "RIMM", "SODIMM",
			"SRIMM", "FB-DIMM", "Die")
	})
	set(s, f, "Set", 0x0f, 1, func(n uint32) string {
		switch n {
		case 0:
			return "None"
		case 0xff:
			return "Unknown"
		}
		return strconv.Itoa(int(n))
	})
	f["Locator"], f["Bank Locator"] = s.words(0x10), s.words(0x11)
	installed := f["Size"] != "No Module Installed"
	if len(s.formatted()) >= 0x1b && installed {
		f["Manufacturer"], f["Serial Number"], f["Asset Tag"], f["Part Number"] = s.words(0x17), s.words(0x18), s.words(0x19), s.words(0x1a)
	}
	set(s, f, "Type", 0x12, 1, func(n uint32) string {
		if name := memoryKind(n); name != "" {
			return name
		}
		return table(n, "Other", "Unknown", "DRAM", "EDRAM", "VRAM", "SRAM", "RAM", "ROM", "Flash", "EEPROM", "FEPROM", "EPROM", "CDRAM", "3DRAM")
	})
	speed := func(key string, at, extended int) {
		if _, ok := s.field(at, 2); ok && installed {
			f[key] = "Unknown"
			if n := s.speed(at, extended); n > 0 {
				f[key] = fmt.Sprintf("%d MT/s", n)
			}
		}
	}
	speed("Speed", 0x15, 0x54)
	speed("Configured Memory Speed", 0x20, 0x58)
	if !installed {
		return
	}
	set(s, f, "Rank", 0x1b, 1, func(n uint32) string {
		if n&0x0f == 0 {
			return "Unknown"
		}
		return strconv.Itoa(int(n & 0x0f))
	})
}

// dmiSize writes bytes with the largest unit that leaves no rest: 32 GB.
func dmiSize(n uint64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB", "PB", "EB"}
	i := 0
	for n > 0 && n%1024 == 0 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

// extraHardware writes an inventory as the program hardware-detect does (Python package hardware): category, device, property, value.
func extraHardware(inv Inventory) [][4]string {
	var data [][4]string
	add := func(category, device, property, value string) {
		if value != "" {
			data = append(data, [4]string{category, device, property, value})
		}
	}
	for _, d := range inv.Disks {
		name := strings.TrimPrefix(d.Name, "/dev/")
		add("disk", name, "size", strconv.FormatInt(d.Size/1e9, 10)) // GB
		add("disk", name, "vendor", string(d.Vendor))
		add("disk", name, "model", string(d.Model))
		add("disk", name, "rev", d.Firmware)
		add("disk", name, "rotational", map[bool]string{false: "0", true: "1"}[d.Rotational])
		add("disk", name, "wwn-id", string(d.WWN))
		add("disk", name, "SMART/serial_number", string(d.Serial))
	}
	add("disk", "logical", "count", strconv.Itoa(len(inv.Disks)))
	add("system", "product", "name", inv.SystemVendor.ProductName)
	add("system", "product", "vendor", inv.SystemVendor.Manufacturer)
	add("system", "product", "serial", inv.SystemVendor.SerialNumber)
	add("system", "product", "uuid", inv.System.UUID)
	add("firmware", "bios", "vendor", inv.SystemVendor.Firmware.Vendor)
	add("firmware", "bios", "version", inv.SystemVendor.Firmware.Version)
	add("firmware", "bios", "date", inv.SystemVendor.Firmware.BuildDate)
	for i, m := range inv.Memory.Modules {
		if m.Size > 0 {
			bank := "bank:" + strconv.Itoa(i)
			add("memory", bank, "size", strconv.FormatInt(m.Size, 10))
			add("memory", bank, "slot", m.Slot)
			add("memory", bank, "vendor", m.Manufacturer)
			add("memory", bank, "product", m.Part)
			add("memory", bank, "serial", m.Serial)
		}
	}
	if mb := inv.Memory.PhysicalMB; mb != nil {
		add("memory", "total", "size", strconv.FormatInt(*mb<<20, 10))
	}
	for _, n := range inv.Interfaces {
		add("network", n.Name, "serial", string(n.MACAddress))
		add("network", n.Name, "ipv4", string(n.IPv4Address))
		add("network", n.Name, "link", map[bool]string{false: "no", true: "yes"}[n.HasCarrier])
		add("network", n.Name, "driver", string(n.Driver))
		add("network", n.Name, "firmware", n.Firmware)
		if n.PCIAddress != "" {
			add("network", n.Name, "businfo", "pci@"+string(n.PCIAddress))
		}
		if n.LinkMbps > 0 {
			add("network", n.Name, "speed", strconv.FormatInt(n.LinkMbps, 10)+"Mbit/s")
		}
	}
	add("cpu", "physical", "number", strconv.Itoa(inv.CPU.SocketCount))
	add("cpu", "physical_0", "product", inv.CPU.ModelName)
	add("cpu", "physical_0", "flags", strings.Join(inv.CPU.Flags, " "))
	add("cpu", "logical", "number", strconv.Itoa(inv.CPU.Count))
	if inv.BMCAddress != "" && inv.BMCAddress != "0.0.0.0" {
		add("ipmi", "lan", "ip-address", string(inv.BMCAddress))
	}
	add("ipmi", "lan", "mac-address", string(inv.BMCMAC))
	return data
}
