// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/stream"
)

var (
	// ErrLayout says that a disk cannot be divided as it was asked for.
	ErrLayout = errors.New("partition layout")
	// ErrRootTooSmall says that a partition image does not fit into its partition.
	ErrRootTooSmall = errors.New("root partition is too small for the requested image")
)

// Layout is what a disk is divided into for a partition image, the image of one file system. Sizes are in MiB; what has none is left out.
// The order, the sizes and the types are those of ironic-python-agent: ironic_python_agent/partition_utils.py, work_on_disk, and
// disk_utils.py, make_partitions.
type Layout struct {
	UEFI            bool // else BIOS starts the disk
	MBR             bool // else GPT
	ESP             int64
	BIOSBoot        int64
	Ephemeral       int64
	EphemeralFormat string // "ext2", "ext3", "ext4" or "xfs"
	Swap            int64
	Root            int64
	// PreserveEphemeral keeps the partition table and the ephemeral partition of a disk that has this layout already.
	PreserveEphemeral bool
}

// Role says what a partition is for, by the names that ironic-python-agent reports.
type Role string

// The roles, in the order of their partitions.
const (
	RoleESP         Role = "efi system partition"
	RoleBIOSBoot    Role = "BIOS Boot partition"
	RoleEphemeral   Role = "ephemeral"
	RoleSwap        Role = "swap"
	RoleConfigDrive Role = "configdrive"
	RoleRoot        Role = "root"
)

// slot is a partition of a layout.
type slot struct {
	role Role
	Partition
}

const (
	mebi     = 1 << 20
	leastESP = 32      // MiB; boot loaders of distributions need 10
	mostESP  = 1 << 10 // MiB; see volume.FAT
	mostSize = 1 << 30 // MiB, of one partition
	leastXFS = 300     // MiB: mkfs.xfs(8)
)

// Check tells what is wrong with a layout on any disk.
func (l Layout) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrLayout, fmt.Sprintf(format, args...))
	}
	for _, s := range []struct {
		what string
		size int64
	}{{"root", l.Root}, {"swap", l.Swap}, {"ephemeral", l.Ephemeral}, {"EFI system", l.ESP}, {"BIOS boot", l.BIOSBoot}} {
		if s.size < 0 || s.size > mostSize {
			return bad("a %s partition of %d MiB is not possible", s.what, s.size)
		}
	}
	switch {
	case l.Root == 0:
		return bad("the root partition has no size")
	case l.UEFI && l.MBR:
		return bad("UEFI wants a GPT, and an MBR (msdos) was asked for")
	case l.UEFI && (l.ESP < leastESP || l.ESP > mostESP):
		return bad("an EFI system partition of %d MiB is not possible: it has %d to %d", l.ESP, leastESP, mostESP)
	case !l.UEFI && !l.MBR && l.BIOSBoot == 0:
		return bad("the BIOS boot partition has no size")
	case l.PreserveEphemeral && l.Ephemeral == 0:
		return bad("the ephemeral partition is to be kept, and has no size")
	case l.Ephemeral > 0 && !l.PreserveEphemeral && !slices.Contains([]string{"ext2", "ext3", "ext4", "xfs"}, l.EphemeralFormat):
		return bad("an ephemeral partition with the file system %q cannot be made: there are ext2, ext3, ext4, xfs", l.EphemeralFormat)
	case l.Ephemeral > 0 && !l.PreserveEphemeral && l.EphemeralFormat == "xfs" && l.Ephemeral < leastXFS:
		return bad("an ephemeral partition of %d MiB cannot have the file system xfs, which wants %d", l.Ephemeral, leastXFS)
	}
	return nil
}

// plan places the partitions on a disk of diskSize bytes, each at a whole MiB. drive is the size of the config drive's partition in bytes, 0 for none.
func (l Layout) plan(drive, diskSize int64, sector int) ([]slot, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	var slots []slot
	end := int64(mebi)
	add := func(role Role, size int64) {
		if size > 0 {
			slots = append(slots, slot{role, Partition{Number: len(slots) + 1, Start: end, Size: size}})
			end += size
		}
	}
	switch {
	case l.UEFI:
		add(RoleESP, l.ESP*mebi)
	case !l.MBR:
		add(RoleBIOSBoot, l.BIOSBoot*mebi)
	}
	add(RoleEphemeral, l.Ephemeral*mebi)
	add(RoleSwap, l.Swap*mebi)
	add(RoleConfigDrive, (drive+mebi-1)/mebi*mebi)
	add(RoleRoot, l.Root*mebi)

	usable := diskSize
	if l.MBR {
		usable = min(usable, 1<<32*int64(sector)) // what its fields can name
	} else if table, err := gpt.New(diskSize, sector); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLayout, err)
	} else {
		usable = table.LastUsable() + 1
		usable *= int64(sector)
	}
	if end > usable {
		return nil, fmt.Errorf("%w: %w: %s end at %d MiB, of the disk's %d MiB %d are usable for partitions", ErrLayout, gpt.ErrTooSmall, sizes(slots), end/mebi, diskSize/mebi, usable/mebi)
	}
	return slots, nil
}

// sizes lists partitions with their sizes, for people.
func sizes(slots []slot) string {
	var parts []string
	for _, s := range slots {
		parts = append(parts, fmt.Sprintf("%s %d MiB", s.role, s.Size/mebi))
	}
	return strings.Join(parts, ", ")
}

// table makes a new partition table.
func (l Layout) table(slots []slot, diskSize int64, sector int) (layout, error) {
	t := layout{sector: sector}
	var err error
	if l.MBR {
		t.diskID = random32()
		t.mbr = gpt.NewMBR(t.diskID)
	} else if t.gpt, err = gpt.New(diskSize, sector); err != nil {
		return t, err
	}
	for _, s := range slots {
		first, count := uint64(s.Start)/uint64(sector), uint64(s.Size)/uint64(sector)
		if l.MBR {
			kind := byte(0x83) // Linux
			if s.role == RoleSwap {
				kind = 0x82
			}
			err = t.mbr.Put(gpt.MBRPartition{Number: s.Number, Type: kind, Active: s.role == RoleRoot, First: first, Count: count})
		} else {
			err = t.gpt.Put(gpt.Partition{Number: s.Number, Type: s.role.kind(), First: first, Last: first + count - 1, Name: string(s.role)})
		}
		if err != nil {
			return t, err
		}
	}
	return t, nil
}

// kind is the type of a partition in a GPT.
func (r Role) kind() gpt.GUID {
	switch r {
	case RoleESP:
		return gpt.EFISystem
	case RoleBIOSBoot:
		return gpt.BIOSBoot
	case RoleSwap:
		return gpt.LinuxSwap
	}
	return gpt.LinuxData
}

// match takes over the partitions of a table for a layout whose ephemeral partition is to be kept. Each must be where it would be put, and as large; the config
// drive's may be larger, for another drive.
func (l Layout) match(t layout, slots []slot) ([]slot, error) {
	have := t.partitions()
	if (t.mbr != nil) != l.MBR || len(have) != len(slots) {
		return nil, fmt.Errorf("%w: the disk has not the partitions that it would get (%s), so that its ephemeral partition cannot be kept", ErrLayout, sizes(slots))
	}
	matched, shift := slices.Clone(slots), int64(0)
	for i, s := range slots {
		h := have[i]
		more := h.Size - s.Size
		if h.Number != s.Number || h.Start != s.Start+shift || more != 0 && (s.role != RoleConfigDrive || more < 0) {
			return nil, fmt.Errorf("%w: partition %d of the disk has %d bytes at %d, the %s partition would have %d at %d, so that the ephemeral partition cannot be kept",
				ErrLayout, h.Number, h.Size, h.Start, s.role, s.Size, s.Start+shift)
		}
		if t.gpt != nil && t.gpt.Partitions()[i].Type != s.role.kind() {
			return nil, fmt.Errorf("%w: partition %d of the disk has the type %s, the %s partition has %s, so that the ephemeral partition cannot be kept",
				ErrLayout, h.Number, t.gpt.Partitions()[i].Type, s.role, s.role.kind())
		}
		shift += more
		matched[i].Partition = h
	}
	return matched, nil
}

// id is the number by which Linux knows a partition: a GUID, or of an MBR the disk's number and the partition's.
func (t layout) id(number int) string {
	if t.gpt == nil {
		return fmt.Sprintf("%08x-%02x", t.diskID, number)
	}
	for _, p := range t.gpt.Partitions() {
		if p.Number == number {
			return string(p.ID)
		}
	}
	return ""
}

// extent is what the superblock of a file system says about where it can be.
type extent struct {
	size    int64 // bytes that it takes
	block   int64 // bytes; a disk with larger sectors cannot hold it
	device  uint64
	percent uint32 // of xfs: space for inodes
}

// parseExtent reads a superblock in the first bytes of a file system that Probe knows. For the sources see there.
func parseExtent(b []byte, kind string) (e extent, err error) {
	le, be := binary.LittleEndian, binary.BigEndian
	blocks, block := uint64(0), uint64(0)
	if len(b) < probeSize {
		return e, io.ErrUnexpectedEOF
	}
	switch kind {
	case "ext4":
		s := b[1024:2048]
		if shift := le.Uint32(s[0x18:]); shift <= 6 {
			block = 1024 << shift
		}
		blocks = uint64(le.Uint32(s[0x04:]))
		if le.Uint32(s[0x60:])&0x80 != 0 { // INCOMPAT_64BIT
			blocks |= uint64(le.Uint32(s[0x150:])) << 32
		}
		e.block = int64(block)
	case "xfs":
		block, blocks = uint64(be.Uint32(b[4:])), be.Uint64(b[8:])
		e.block, e.percent = int64(be.Uint16(b[102:])), uint32(b[127])
	case "btrfs":
		s := b[64<<10:]
		block, blocks = 1, le.Uint64(s[0x70:])
		e.block, e.device = int64(le.Uint32(s[0x90:])), le.Uint64(s[0xc9:])
		if n := le.Uint64(s[0x88:]); n != 1 {
			return e, fmt.Errorf("the image holds one of the %d devices of a btrfs: %w", n, stream.ErrFormat)
		}
	default:
		return e, fmt.Errorf("the image holds none of the file systems ext2, ext3, ext4, xfs, btrfs: %w", stream.ErrFormat)
	}
	if block == 0 || block > 64<<10 || blocks == 0 || blocks > 1<<60/block || e.block < 512 {
		return e, fmt.Errorf("the image's %s says that it has %d blocks of %d bytes: %w", kind, blocks, block, stream.ErrFormat)
	}
	e.size = int64(blocks * block)
	return e, nil
}
