// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"path"
	"slices"
	"strings"
)

// PCIDevice is one entry of the collector pci-devices. Its JSON is ironic-python-agent's (ironic_python_agent/inspector.py, collect_pci_devices_info).
type PCIDevice struct {
	VendorID  string `json:"vendor_id"` // four hex digits
	ProductID string `json:"product_id"`
	Class     string `json:"class"`        // six hex digits
	Revision  Text   `json:"revision"`     // two hex digits
	Bus       string `json:"bus"`          // address: 0000:3d:00.0
	NUMANode  Text   `json:"numa_node_id"` // as sysfs has it, so -1 is possible

	Driver string `json:"-"`
	Name   string `json:"-"` // what kind of accelerator it is; empty for all others
}

func readPCI(r *reader) []PCIDevice {
	list := []PCIDevice{}
	for _, bus := range r.dir("sys/bus/pci/devices") {
		dir := r.real("sys/bus/pci/devices/" + bus)
		number := func(name string) string { return strings.TrimPrefix(r.text(dir+"/"+name), "0x") }
		d := PCIDevice{
			VendorID: number("vendor"), ProductID: number("device"), Class: number("class"), Revision: Text(number("revision")),
			Bus: bus, NUMANode: Text(r.text(dir + "/numa_node")), Driver: r.target(dir + "/driver"),
		}
		if d.VendorID == "" || d.ProductID == "" || d.Class == "" {
			continue
		}
		d.Name = accelerator(d)
		list = append(list, d)
	}
	return list
}

// accelerator says what a GPU or another device that computes is, by its class (PCI Code and ID Assignment 1.17); empty for all others. VGA
// controllers count only of vendors that build GPUs for servers, because every BMC has one.
func accelerator(d PCIDevice) string {
	vendor := map[string]string{"10de": "NVIDIA", "1002": "AMD", "8086": "Intel", "1da3": "Habana", "10ee": "Xilinx"}[d.VendorID]
	kind := ""
	switch {
	case strings.HasPrefix(d.Class, "0302"), strings.HasPrefix(d.Class, "0380"):
		kind = "GPU"
	case strings.HasPrefix(d.Class, "0300") && slices.Contains([]string{"10de", "1002", "8086"}, d.VendorID):
		kind = "GPU"
	case strings.HasPrefix(d.Class, "12"):
		kind = "accelerator"
	case strings.HasPrefix(d.Class, "0b40"):
		kind = "co-processor"
	default:
		return ""
	}
	return strings.TrimSpace(vendor + " " + kind)
}

// Accelerators are the devices that compute.
func (d Details) Accelerators() []PCIDevice {
	return slices.DeleteFunc(slices.Clone(d.PCI), func(p PCIDevice) bool { return p.Name == "" })
}

// USBDevice is one entry of the collector usb-devices. Its JSON is that of lshw's nodes with id usb and class generic, which ironic-python-agent takes.
type USBDevice struct {
	Product string `json:"product"`
	Vendor  string `json:"vendor"`
	Handle  string `json:"handle"` // USB:bus:device

	ID string `json:"-"` // vendor and product in hex: 046b:ff10
}

// readUSB lists the devices on the USB, without the hubs that are the ports themselves.
func readUSB(r *reader) []USBDevice {
	list := []USBDevice{}
	for _, name := range r.dir("sys/bus/usb/devices") {
		dir := r.real("sys/bus/usb/devices/" + name)
		vendor, product := r.text(dir+"/idVendor"), r.text(dir+"/idProduct")
		if vendor == "" || r.text(dir+"/bDeviceClass") == "09" { // an interface of a device, a hub
			continue
		}
		list = append(list, USBDevice{
			Product: r.text(dir + "/product"), Vendor: r.text(dir + "/manufacturer"),
			Handle: "USB:" + r.text(dir+"/busnum") + ":" + r.text(dir+"/devnum"), ID: vendor + ":" + product,
		})
	}
	return list
}

// TPM is the machine's Trusted Platform Module.
type TPM struct {
	Version string   // 1.2 or 2.0
	Banks   []string // hashes of which it keeps PCRs: sha1, sha256
	Device  string   // how the kernel knows it: MSFT0101:00
}

// readTPM reads the first TPM; nil if the kernel knows none.
func readTPM(r *reader) *TPM {
	names := r.dir("sys/class/tpm")
	if len(names) == 0 {
		return nil
	}
	dir := r.real("sys/class/tpm/" + names[0])
	t := TPM{Device: r.target(dir + "/device")}
	switch v := r.text(dir + "/tpm_version_major"); v {
	case "1":
		t.Version = "1.2"
	case "2":
		t.Version = "2.0"
	default:
		t.Version = v
	}
	for _, file := range r.dir(dir) {
		if bank, found := strings.CutPrefix(file, "pcr-"); found {
			t.Banks = append(t.Banks, bank)
		}
	}
	return &t
}

// NUMA is what the collector numa-topology adds. Its JSON is ironic-python-agent's (ironic_python_agent/numa_inspector.py).
type NUMA struct {
	RAM  []NUMARAM `json:"ram"`
	CPUs []NUMACPU `json:"cpus"`
	NICs []NUMANIC `json:"nics"`
}

// NUMARAM is the memory of one node.
type NUMARAM struct {
	Node int   `json:"numa_node"`
	Size int64 `json:"size_kb"`
}

// NUMACPU is one core: its number within the processor, and the logical processors that it is.
type NUMACPU struct {
	CPU     int   `json:"cpu"`
	Node    int   `json:"numa_node"`
	Threads []int `json:"thread_siblings"`
}

// NUMANIC is the node that an interface is near to.
type NUMANIC struct {
	Name string `json:"name"`
	Node int    `json:"numa_node"`
}

// readNUMA returns nil if anything of it cannot be read, as ironic-python-agent does: half a topology misleads.
func readNUMA(r *reader) *NUMA {
	const nodes = "sys/devices/system/node"
	n := NUMA{RAM: []NUMARAM{}, CPUs: []NUMACPU{}, NICs: []NUMANIC{}}
	var numbers []int
	for _, name := range r.dir(nodes) {
		if i, ok := suffixNumber(name, "node"); ok {
			numbers = append(numbers, i)
		}
	}
	slices.Sort(numbers)
	for _, node := range numbers {
		dir := nodes + "/node" + itoa(node)
		kb, ok := nodeMemory(r.bytes(dir+"/meminfo", smallFile))
		if !ok {
			return nil
		}
		n.RAM = append(n.RAM, NUMARAM{node, kb})
		var cpus []int
		for _, name := range r.dir(dir) {
			if i, ok := suffixNumber(name, "cpu"); ok {
				cpus = append(cpus, i)
			}
		}
		slices.Sort(cpus)
		at := make(map[int]int) // core number to place in n.CPUs
		for _, cpu := range cpus {
			core, ok := r.number("sys/devices/system/cpu/cpu" + itoa(cpu) + "/topology/core_id")
			if !ok {
				return nil
			}
			i, seen := at[int(core)]
			if !seen {
				i = len(n.CPUs)
				at[int(core)] = i
				n.CPUs = append(n.CPUs, NUMACPU{CPU: int(core), Node: node})
			}
			n.CPUs[i].Threads = append(n.CPUs[i].Threads, cpu)
		}
	}
	for _, name := range r.dir("sys/class/net") {
		device := r.follow(r.real("sys/class/net/"+name) + "/device")
		if device == "" {
			continue
		}
		if node, ok := r.number(device + "/numa_node"); ok {
			n.NICs = append(n.NICs, NUMANIC{path.Base(name), int(node)})
		}
	}
	if len(n.RAM) == 0 {
		return nil
	}
	return &n
}
