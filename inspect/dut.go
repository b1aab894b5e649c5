// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"fmt"
	"path"
	"strings"

	"github.com/ironhand/ironhand/inspect/ocp"
)

// DUT is the machine as the Open Compute Project's Test and Validation output has it. The identifiers of parts are the same in all outputs of a machine
// whose parts are where they were: disk-sda, dimm-3, nic-eno1, pci-0000:b0:00.0.
func (i Inventory) DUT() ocp.DUT {
	d := ocp.DUT{ID: cmp.Or(i.System.UUID, i.SystemVendor.SerialNumber, i.Hostname, "machine"), Name: i.Hostname, Metadata: map[string]any{}}
	hardware := func(h ocp.Hardware) {
		h.Name = cmp.Or(h.Name, h.ID)
		d.Hardware = append(d.Hardware, h)
	}
	firmware := func(of, name, version, revision string) {
		if version != "" {
			d.Software = append(d.Software, ocp.Software{ID: "firmware-" + of, Name: name, Version: version, Revision: revision, Type: "FIRMWARE"})
		}
	}
	about := func(format string, args ...any) {
		d.Platform = append(d.Platform, ocp.Platform{Info: fmt.Sprintf(format, args...)})
	}

	v := i.SystemVendor
	hardware(ocp.Hardware{ID: "system", Name: v.ProductName, Serial: v.SerialNumber, Manufacturer: v.Manufacturer, PartType: "system"})
	firmware("system", words(v.Firmware.Vendor, "system firmware"), v.Firmware.Version, v.Firmware.BuildDate)
	about("boot mode %s", i.Boot.Mode)
	if i.Boot.SecureBoot != nil {
		about("Secure Boot %s", onOff(*i.Boot.SecureBoot))
	}
	if i.CPU.Architecture != "" {
		about("architecture %s", i.CPU.Architecture)
	}
	about("%d sockets, %d cores, %d threads", i.CPU.SocketCount, i.CPU.Cores, i.CPU.Count)
	if mb := i.Memory.PhysicalMB; mb != nil {
		about("%d MiB of memory installed", *mb)
	}
	for n := range i.CPU.SocketCount {
		hardware(ocp.Hardware{ID: fmt.Sprintf("cpu-%d", n), Name: i.CPU.ModelName, PartType: "CPU"})
	}
	firmware("cpu", "processor microcode", i.CPU.Microcode, "")
	for n, m := range i.Memory.Modules {
		if m.Size == 0 && !m.Unknown {
			continue
		}
		hardware(ocp.Hardware{ID: fmt.Sprintf("dimm-%d", n), Name: strings.Join(strings.Fields(humanSize(m.Size)+" "+m.Kind), " "), Location: strings.TrimSpace(m.Slot + " " + m.Bank),
			Serial: m.Serial, Part: m.Part, Manufacturer: m.Manufacturer, PartType: "DIMM"})
	}
	for _, n := range i.Interfaces {
		if n.Kind == Borrowed { // a bond or a VLAN is no hardware
			continue
		}
		id := "nic-" + n.Name
		hardware(ocp.Hardware{ID: id, Name: n.Name, Location: string(n.PCIAddress), Part: words(string(n.Vendor), string(n.Product)), PartType: "NIC"})
		firmware(id, n.Name+" firmware", n.Firmware, "")
		d.Metadata["mac-"+n.Name] = string(n.MACAddress)
	}
	for _, k := range i.Disks {
		id := diskID(k.Name)
		place := string(k.ByPath)
		if k.Bay != "" {
			place = "bay " + k.Bay
		}
		vendor := string(k.Vendor)
		if vendor == "ATA" || strings.HasPrefix(vendor, "0x") { // no name
			vendor = ""
		}
		hardware(ocp.Hardware{ID: id, Name: k.Name, Location: place, Serial: string(k.Serial), Part: string(k.Model), Manufacturer: vendor, PartType: "disk"})
		firmware(id, k.Name+" firmware", k.Firmware, "")
	}
	for _, a := range i.Details.Accelerators() {
		hardware(ocp.Hardware{ID: "pci-" + a.Bus, Name: a.Name, Location: a.Bus, Part: "0x" + a.VendorID + " 0x" + a.ProductID, Revision: string(a.Revision), PartType: "accelerator"})
	}
	for _, m := range i.Details.CXL {
		id := "cxl-" + m.Name
		hardware(ocp.Hardware{ID: id, Name: humanSize(m.Volatile+m.Persistent) + " CXL memory", Location: m.PCIAddress, Serial: m.Serial, PartType: "CXL memory"})
		firmware(id, m.Name+" firmware", m.Firmware, "")
	}
	if t := i.Details.TPM; t != nil {
		hardware(ocp.Hardware{ID: "tpm", Name: words("TPM", t.Version), Location: t.Device, PartType: "TPM"})
	}
	if i.BMCAddress != "" {
		hardware(ocp.Hardware{ID: "bmc", Name: "BMC", PartType: "BMC"})
		d.Metadata["bmc-address"], d.Metadata["bmc-v6address"], d.Metadata["bmc-mac"] = string(i.BMCAddress), string(i.BMCv6Address), string(i.BMCMAC)
	}
	return d
}

// diskID is a disk's identifier in [Inventory.DUT].
func diskID(name string) string { return "disk-" + path.Base(name) }

// words joins what is not empty.
func words(list ...string) string { return strings.Join(strings.Fields(strings.Join(list, " ")), " ") }

// Judge writes a step about one disk: what it measures of itself, and the verdict.
func (h Health) Judge(w *ocp.Writer) error {
	step, err := w.Step("health of " + h.Disk)
	if err != nil {
		return err
	}
	id := diskID(h.Disk)
	for _, m := range []struct {
		name  string
		value *int64
		unit  string
	}{
		{"wear", h.UsedPercent, "%"}, {"spare", h.SparePercent, "%"}, {"temperature", h.TemperatureC, "degrees Celsius"}, {"power-on-time", h.PowerOnHours, "hours"},
		{"media-errors", h.MediaErrors, ""}, {"reallocated-sectors", h.Reallocated, ""},
	} {
		if m.value == nil {
			continue
		}
		if err := step.Measure(ocp.Measurement{Name: m.name, Value: *m.value, Unit: m.unit, HardwareID: id}); err != nil {
			return err
		}
	}
	d := ocp.Diagnosis{Verdict: "disk-healthy", Type: "PASS", Message: strings.Join(h.Reasons, "; "), HardwareID: id}
	switch {
	case h.Failing:
		d.Verdict, d.Type = "disk-failing", "FAIL"
	case len(h.Reasons) > 0:
		d.Verdict = "disk-to-watch"
	}
	if err := step.Diagnose(d); err != nil {
		return err
	}
	return step.End(ocp.Complete)
}
