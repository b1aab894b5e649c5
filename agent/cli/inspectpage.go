// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/lldp"
)

// neighbours are the TLVs that were heard, by interface.
type neighbours = map[string][]lldp.TLV

// page writes tables that are aligned each by itself.
type page struct {
	out   bytes.Buffer
	table *tabwriter.Writer
}

// section begins a table with a title and its columns.
func (p *page) section(title string, columns ...string) {
	p.end()
	if p.out.Len() > 0 {
		p.out.WriteByte('\n')
	}
	p.table = tabwriter.NewWriter(&p.out, 0, 0, 2, ' ', 0)
	p.row(append([]string{strings.ToUpper(title)}, columns...)...)
}

// row writes cells; what is empty is a dash, but for the first.
func (p *page) row(cells ...string) {
	for i, c := range cells {
		if c == "" && i > 0 {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(p.table, strings.Join(cells, "\t"))
}

func (p *page) end() {
	if p.table != nil {
		p.table.Flush() // into a buffer
	}
}

// words joins what is not empty.
func words(list ...string) string {
	return strings.Join(slices.DeleteFunc(list, func(s string) bool { return strings.TrimSpace(s) == "" }), " ")
}

// printInventory writes the page for technicians.
func printInventory(w io.Writer, i inspect.Inventory, health []inspect.Health) error {
	p := &page{}
	v := i.SystemVendor
	p.section("system", words(v.Manufacturer, v.ProductName))
	p.row("serial", v.SerialNumber)
	p.row("UUID", i.System.UUID)
	if i.System.SwappedUUID != "" && i.System.SwappedUUID != i.System.UUID {
		p.row("", i.System.SwappedUUID+" with bytes as some BMCs and labels have them")
	}
	p.row("firmware", words(v.Firmware.Vendor, v.Firmware.Version, v.Firmware.BuildDate))
	secure := ""
	if i.Boot.SecureBoot != nil {
		secure = map[bool]string{false: ", Secure Boot off", true: ", Secure Boot on"}[*i.Boot.SecureBoot]
	}
	p.row("boot", string(i.Boot.Mode)+secure)
	if i.BMCAddress != "" || i.BMCMAC != "" {
		p.row("BMC", words(string(i.BMCAddress), unlessNone(string(i.BMCv6Address)), string(i.BMCMAC)))
	}
	for _, h := range i.Details.HostInterfaces {
		p.row("Redfish", fmt.Sprintf("%s port %d by %s, this side %s", cmp.Or(h.Service, "address by discovery"), h.Port, h.Device, cmp.Or(h.Host, "by DHCP")))
	}
	if t := i.Details.TPM; t != nil {
		p.row("TPM", words(t.Version, strings.Join(t.Banks, " ")))
	} else {
		p.row("TPM", "none")
	}
	cores := ""
	if i.CPU.Cores > 0 {
		cores = fmt.Sprintf("%d cores, ", i.CPU.Cores)
	}
	p.row("CPU", words(i.CPU.ModelName, i.CPU.Architecture))
	p.row("", fmt.Sprintf("%d sockets, %s%d threads", i.CPU.SocketCount, cores, i.CPU.Count)+prefixed(", microcode ", i.CPU.Microcode))
	for _, a := range i.Details.Accelerators() {
		p.row(a.Name, fmt.Sprintf("%s %s:%s", a.Bus, a.VendorID, a.ProductID)+prefixed(", driver ", a.Driver))
	}

	installed := "how much is installed is not known"
	if mb := i.Memory.PhysicalMB; mb != nil {
		installed = inspect.Size(*mb<<20) + " installed"
	}
	p.section("memory", inspect.Size(int64(i.Memory.Total))+" usable, "+installed)
	if len(i.Memory.Modules) > 0 {
		p.section("slot", "SIZE", "TYPE", "MT/S", "MANUFACTURER", "PART", "SERIAL")
		for _, m := range i.Memory.Modules {
			size, speed := inspect.Size(m.Size), ""
			switch {
			case m.Unknown:
				size = "unknown"
			case m.Size == 0:
				size = "empty"
			}
			if m.RunsMTs > 0 || m.SpeedMTs > 0 {
				speed = fmt.Sprint(cmp.Or(m.RunsMTs, m.SpeedMTs))
			}
			p.row(words(m.Slot, m.Bank), size, m.Kind, speed, m.Manufacturer, m.Part, m.Serial)
		}
	}
	if len(i.Details.CXL) > 0 {
		p.section("cxl", "SIZE", "PERSISTENT", "SERIAL", "FIRMWARE", "PCI")
		for _, m := range i.Details.CXL {
			p.row(m.Name, inspect.Size(m.Volatile+m.Persistent), inspect.Size(m.Persistent), m.Serial, m.Firmware, m.PCIAddress)
		}
	}

	p.section("nic", "MAC", "LINK", "MAX", "ADDRESS", "DRIVER", "FIRMWARE", "PCI", "SWITCH")
	for _, n := range i.Interfaces {
		link := "down"
		if n.HasCarrier {
			link = "up"
			if n.LinkMbps > 0 {
				link = speed(n.LinkMbps)
			}
		}
		name := n.Name
		if n.Kind != inspect.Physical {
			name += " (" + n.Kind.String() + ")"
		}
		far := ""
		if len(n.LLDP) > 0 {
			far = lldp.Describe(n.LLDP).String()
		}
		p.row(name, string(n.MACAddress), link, speed(int64(n.SpeedMbps)), words(string(n.IPv4Address), string(n.IPv6Address)), string(n.Driver), n.Firmware, string(n.PCIAddress), far)
	}

	p.section("disk", "SIZE", "KIND", "VENDOR", "MODEL", "SERIAL", "FIRMWARE", "PLACE", "WWN")
	for _, d := range i.Disks {
		kind := string(d.Tran)
		if kind == "" {
			kind = d.Type
		}
		if d.Rotational {
			kind += " HDD"
		}
		if d.ReadOnly {
			kind += " read-only"
		}
		place := string(d.HCTL)
		if d.Bay != "" {
			place = "bay " + d.Bay
		}
		p.row(d.Name, inspect.Size(d.Size), kind, unlessHex(string(d.Vendor)), string(d.Model), string(d.Serial), d.Firmware, place, string(d.WWN))
	}
	if len(health) > 0 {
		p.section("health", "STATE", "USED", "SPARE", "TEMP", "HOURS", "LOST", "REALLOCATED", "WHY")
		for _, h := range health {
			state := "good"
			switch {
			case h.Failing:
				state = "FAILING"
			case len(h.Reasons) > 0:
				state = "check"
			}
			p.row(h.Disk, state, amount(h.UsedPercent, " %"), amount(h.SparePercent, " %"), amount(h.TemperatureC, " °C"), amount(h.PowerOnHours, ""),
				amount(h.MediaErrors, ""), amount(h.Reallocated, ""), strings.Join(h.Reasons, ", "))
		}
	}
	p.end()
	// The last column of a table has no blanks after it.
	for line := range strings.Lines(p.out.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// unlessNone drops what stands for no IPv6 address.
func unlessNone(s string) string {
	if s == "::/0" {
		return ""
	}
	return s
}

// unlessHex drops a number in place of a name.
func unlessHex(s string) string {
	if strings.HasPrefix(s, "0x") {
		return ""
	}
	return s
}

// speed writes Mbit/s for people.
func speed(mbps int64) string {
	switch {
	case mbps <= 0:
		return ""
	case mbps%1000 == 0:
		return fmt.Sprintf("%d Gbit/s", mbps/1000)
	case mbps > 1000:
		return fmt.Sprintf("%.1f Gbit/s", float64(mbps)/1000)
	}
	return fmt.Sprintf("%d Mbit/s", mbps)
}

// amount writes a number with its unit; empty if it is not known.
func amount(n *int64, unit string) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf("%d%s", *n, unit)
}
