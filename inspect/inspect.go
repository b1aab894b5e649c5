// SPDX-License-Identifier: Apache-2.0

// Package inspect tells what a machine is made of: disks, network interfaces, processors, memory, firmware.
//
// It reads the kernel's files through an [fs.FS], so a recorded machine gives the same answer on any computer, and it
// cannot write. It runs no program and needs no udev: what udev would have found out (serial numbers, WWNs, by-path
// names) is worked out here from sysfs by the same rules. All that firmware and devices say is taken as hostile bytes,
// bounded in length and made into valid text.
//
// [Machine.Inventory] gives the inventory in the form that Ironic reads. [Hints] choose the disk that an image is
// written to.
package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// Machine is a machine that can be looked at: this one ([Local]), or a recording of another ([Recorded]).
type Machine struct {
	// FS is "/" of the machine; only proc and sys are read. It must be able to read symbolic links
	// ([fs.ReadLinkFS]), as [os.DirFS] and fstest.MapFS are.
	FS fs.FS

	// Ask asks the kernel for what it has in no file: the address in the hardware of an interface, an answer of the BMC. Answers
	// are bytes as the kernel or the device gives them. An error may wrap [fs.ErrNotExist]. Nil: nobody answers.
	Ask func(ctx context.Context, question string) ([]byte, error)
}

// Local is the machine on which the program runs.
func Local() Machine {
	return Machine{FS: os.DirFS("/"), Ask: ask}
}

// Inventory is what Ironic and its inspection rules read about a machine. Its JSON is Ironic's, with exactly the keys of
// ironic-python-agent (ironic_python_agent/hardware.py, list_hardware_info); fields tagged "-" are ours only.
type Inventory struct {
	Interfaces   []NIC        `json:"interfaces"`
	CPU          CPU          `json:"cpu"`
	Disks        []Disk       `json:"disks"`
	Memory       Memory       `json:"memory"`
	BMCAddress   Text         `json:"bmc_address"`   // null without a BMC or its answer, 0.0.0.0 if it has none
	BMCv6Address Text         `json:"bmc_v6address"` // likewise, ::/0 if it has none
	SystemVendor SystemVendor `json:"system_vendor"`
	Boot         Boot         `json:"boot"`
	Hostname     string       `json:"hostname"`
	BMCMAC       Text         `json:"bmc_mac,omitempty"` // absent if it is not known

	System  System  `json:"-"` // the machine's own identity, for people
	Details Details `json:"-"` // what Ironic's inventory has no place for
}

// Details are what people want to know beyond the inventory.
type Details struct {
	PCI            []PCIDevice
	USB            []USBDevice
	NUMA           *NUMA // nil if not known
	TPM            *TPM  // nil without one
	HostInterfaces []HostInterface
	CXL            []CXLMemory
}

// Inventory looks at the machine. It returns all that could be read, and one joined error that names each thing that
// could not; both may be non-empty. Slow devices are asked beside each other, each with a time limit of its own: one that hangs is named, and the
// rest is there. When ctx ends, the error is that of ctx and the inventory is incomplete.
func (m Machine) Inventory(ctx context.Context) (Inventory, error) {
	r := m.reader(ctx)
	inv := Inventory{Interfaces: []NIC{}, Disks: []Disk{}, CPU: CPU{Flags: []string{}}, Boot: Boot{Mode: "bios"}}
	// A part returns how its result gets into the inventory, so that one that hangs does not write to it later.
	type part struct {
		name  string
		limit time.Duration
		read  func(r *reader) (put func())
	}
	parts := []part{
		{"interfaces", groupLimit, func(r *reader) func() { v := readNICs(r); return func() { inv.Interfaces = v } }},
		{"processors", deviceLimit, func(r *reader) func() { v := readCPU(r); return func() { inv.CPU = v } }},
		{"disks", groupLimit, func(r *reader) func() {
			v := slices.DeleteFunc(readDisks(r), func(d Disk) bool { return d.Size == 0 })
			return func() { inv.Disks = v }
		}},
		{"memory", deviceLimit, func(r *reader) func() { v := readMemory(r); return func() { inv.Memory = v } }},
		{"system", deviceLimit, func(r *reader) func() { v := readSystemVendor(r); return func() { inv.SystemVendor = v } }},
		{"boot mode", deviceLimit, func(r *reader) func() { v := readBoot(r); return func() { inv.Boot = v } }},
		{"host name", deviceLimit, func(r *reader) func() { v := r.need("proc/sys/kernel/hostname"); return func() { inv.Hostname = v } }},
		{"UUID", deviceLimit, func(r *reader) func() { v := readSystem(r); return func() { inv.System = v } }},
		{"BMC", bmcLimit, func(r *reader) func() {
			v := readBMC(r)
			return func() { inv.BMCAddress, inv.BMCv6Address, inv.BMCMAC = v.v4, v.v6, v.mac }
		}},
		{"PCI devices", deviceLimit, func(r *reader) func() { v := readPCI(r); return func() { inv.Details.PCI = v } }},
		{"USB devices", deviceLimit, func(r *reader) func() { v := readUSB(r); return func() { inv.Details.USB = v } }},
		{"NUMA nodes", deviceLimit, func(r *reader) func() { v := readNUMA(r); return func() { inv.Details.NUMA = v } }},
		{"TPM", deviceLimit, func(r *reader) func() { v := readTPM(r); return func() { inv.Details.TPM = v } }},
		{"host interfaces", deviceLimit, func(r *reader) func() {
			v := readHostInterfaces(r)
			return func() { inv.Details.HostInterfaces = v }
		}},
		{"CXL memory", deviceLimit, func(r *reader) func() { v := readCXL(r); return func() { inv.Details.CXL = v } }},
	}
	own, puts := make([]*reader, len(parts)), make([]func(), len(parts))
	var all sync.WaitGroup
	for i, p := range parts {
		own[i] = m.reader(ctx)
		all.Go(func() { puts[i], _ = within(own[i], p.name, p.limit, p.read) })
	}
	all.Wait()
	for i := range parts {
		r.add(own[i])
		if puts[i] != nil {
			puts[i]()
		}
	}
	if err := ctx.Err(); err != nil {
		return inv, fmt.Errorf("inspect machine: %w", err)
	}
	if err := errors.Join(r.problems()...); err != nil {
		return inv, fmt.Errorf("inspect machine: %w", err)
	}
	return inv, nil
}

func (m Machine) reader(ctx context.Context) *reader {
	return &reader{ctx: ctx, fsys: m.FS, asker: m.Ask}
}

// Disks lists the machine's disks alone, with the same meaning of the error as [Machine.Inventory]. It is what waits for
// a disk to appear, and what one is chosen from: a disk of unknown size is in it, with size 0.
func (m Machine) Disks(ctx context.Context) ([]Disk, error) {
	r := m.reader(ctx)
	disks := readDisks(r)
	if err := ctx.Err(); err != nil {
		return disks, fmt.Errorf("list disks: %w", err)
	}
	if err := errors.Join(r.problems()...); err != nil {
		return disks, fmt.Errorf("list disks: %w", err)
	}
	return disks, nil
}

// Interfaces lists the network interfaces alone, with the same meaning of the error as [Machine.Inventory]. It is what waits for an address.
func (m Machine) Interfaces(ctx context.Context) ([]NIC, error) {
	r := m.reader(ctx)
	nics := readNICs(r)
	if err := errors.Join(append(r.problems(), ctx.Err())...); err != nil {
		return nics, fmt.Errorf("list interfaces: %w", err)
	}
	return nics, nil
}

// Text is a text that is null in JSON when it is empty.
type Text string

// MarshalJSON implements [json.Marshaler].
func (t Text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(t))
}

// Number is a number that is null in JSON when it is zero.
type Number int64

// MarshalJSON implements [json.Marshaler].
func (n Number) MarshalJSON() ([]byte, error) {
	if n == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(int64(n))
}
