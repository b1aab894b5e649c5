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
	"net"
	"net/netip"
	"os"
	"slices"
)

// Machine is a machine that can be looked at: this one ([Local]), or a recording of another.
type Machine struct {
	// FS is "/" of the machine; only proc and sys are read. It must be able to read symbolic links
	// ([fs.ReadLinkFS]), as [os.DirFS] and fstest.MapFS are.
	FS fs.FS

	// PermanentMAC asks the driver of a network interface for the address in its hardware, which stays when a bond or
	// a user changes the current one. An error or an address of zeros means there is none. Nil: always the current one.
	PermanentMAC func(nic string) (net.HardwareAddr, error)

	// Addresses returns the addresses of all interfaces by interface index, in the kernel's order. Nil: none are known.
	Addresses func() (map[int][]netip.Prefix, error)
}

// Local is the machine on which the program runs.
func Local() Machine {
	return Machine{FS: os.DirFS("/"), PermanentMAC: permanentMAC, Addresses: addresses}
}

// Inventory is what Ironic and its inspection rules read about a machine. Its JSON is Ironic's, with exactly the keys of
// ironic-python-agent (ironic_python_agent/hardware.py, list_hardware_info); fields tagged "-" are ours only.
type Inventory struct {
	Interfaces   []NIC        `json:"interfaces"`
	CPU          CPU          `json:"cpu"`
	Disks        []Disk       `json:"disks"`
	Memory       Memory       `json:"memory"`
	BMCAddress   Text         `json:"bmc_address"`   // always null: the BMC is not asked yet
	BMCv6Address Text         `json:"bmc_v6address"` // always null, as above
	SystemVendor SystemVendor `json:"system_vendor"`
	Boot         Boot         `json:"boot"`
	Hostname     string       `json:"hostname"`

	System System `json:"-"` // the machine's own identity, for people
}

// Inventory looks at the machine. It returns all that could be read, and one joined error that names each thing that
// could not; both may be non-empty. When ctx ends, the error is that of ctx and the inventory is incomplete.
func (m Machine) Inventory(ctx context.Context) (Inventory, error) {
	r := &reader{ctx: ctx, fsys: m.FS}
	inv := Inventory{
		Interfaces:   m.nics(r),
		CPU:          readCPU(r),
		Disks:        slices.DeleteFunc(readDisks(r), func(d Disk) bool { return d.Size == 0 }),
		Memory:       readMemory(r),
		SystemVendor: readSystemVendor(r),
		Boot:         readBoot(r),
		Hostname:     r.need("proc/sys/kernel/hostname"),
		System:       readSystem(r),
	}
	if err := ctx.Err(); err != nil {
		return inv, fmt.Errorf("inspect machine: %w", err)
	}
	if err := errors.Join(r.problems()...); err != nil {
		return inv, fmt.Errorf("inspect machine: %w", err)
	}
	return inv, nil
}

// Disks lists the machine's disks alone, with the same meaning of the error as [Machine.Inventory]. It is what waits for
// a disk to appear, and what one is chosen from: a disk of unknown size is in it, with size 0.
func (m Machine) Disks(ctx context.Context) ([]Disk, error) {
	r := &reader{ctx: ctx, fsys: m.FS}
	disks := readDisks(r)
	if err := ctx.Err(); err != nil {
		return disks, fmt.Errorf("list disks: %w", err)
	}
	if err := errors.Join(r.problems()...); err != nil {
		return disks, fmt.Errorf("list disks: %w", err)
	}
	return disks, nil
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
