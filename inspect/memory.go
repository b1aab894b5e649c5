// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Memory is the "memory" object of the inventory.
type Memory struct {
	Total      Number `json:"total"`       // bytes that the kernel has, of /proc/meminfo
	PhysicalMB *int64 `json:"physical_mb"` // MiB in the slots, of SMBIOS; null if SMBIOS could not be read
}

// SMBIOS tables are some kilobytes; a server with all slots filled has about 64.
const maxSMBIOS = 1 << 20

func readMemory(r *reader) Memory {
	var m Memory
	info := values(r.bytes("proc/meminfo", smallFile), ":")
	kb, err := strconv.ParseInt(strings.TrimSuffix(info["MemTotal"], " kB"), 10, 64)
	if err != nil || kb < 0 || kb > 1<<50 {
		r.problem(fmt.Errorf("read proc/meminfo: MemTotal is %q", info["MemTotal"]))
	} else {
		m.Total = Number(kb << 10)
	}

	const file = "sys/firmware/dmi/tables/DMI"
	tables, err := r.open(file, maxSMBIOS)
	if err != nil {
		r.problem(fmt.Errorf("size of memory modules: %w", err))
		return m
	}
	size, err := parseInstalledMemory(tables)
	if err != nil {
		r.problem(fmt.Errorf("size of memory modules: read %s: %w", file, err))
		return m
	}
	mb := size >> 20
	m.PhysicalMB = &mb
	return m
}

// AvailableMemory is how many bytes programs can have without pushing others out: MemAvailable of /proc/meminfo
// (Documentation/filesystems/proc.rst).
func (m Machine) AvailableMemory() (int64, error) {
	r := &reader{ctx: context.Background(), fsys: m.FS}
	b, err := r.open("proc/meminfo", smallFile)
	if err != nil {
		return 0, err
	}
	value := values(b, ":")["MemAvailable"]
	kb, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
	if err != nil || kb < 0 || kb > 1<<50 {
		return 0, fmt.Errorf("read proc/meminfo: MemAvailable is %q", value)
	}
	return kb << 10, nil
}

// parseInstalledMemory adds up the sizes, in bytes, of the memory devices (SMBIOS 3.7, type 17), but not of those that an
// array (type 16) uses for video, flash, settings or a cache (uses 4 to 7). An unknown size is an error, for a sum without
// it would be wrong.
func parseInstalledMemory(tables []byte) (int64, error) {
	var modules []structure
	otherUse := make(map[uint16]bool) // handles of arrays that are not for programs
	for rest := tables; len(rest) > 0; {
		s, after, err := nextStructure(rest)
		if err != nil {
			return 0, fmt.Errorf("structure at byte %d: %w", len(tables)-len(rest), err)
		}
		switch rest = after; s.kind() {
		case 16: // physical memory array
			if use, ok := s.field(0x05, 1); ok {
				otherUse[s.handle()] = 4 <= use && use <= 7
			}
		case 17: // memory device
			modules = append(modules, s)
		case 127: // end of table; what follows is padding
			rest = nil
		}
	}

	var sum int64
	for _, s := range modules {
		if array, ok := s.field(0x04, 2); ok && otherUse[uint16(array)] {
			continue
		}
		size, err := moduleSize(s)
		if err != nil {
			return 0, fmt.Errorf("memory device %#04x: %w", s.handle(), err)
		}
		sum += size
	}
	return sum, nil
}

// moduleSize returns the size of a memory device in bytes, 0 for an empty slot (SMBIOS 3.7, 7.18.5).
func moduleSize(s structure) (int64, error) {
	size, ok := s.field(0x0c, 2)
	switch {
	case !ok:
		return 0, errors.New("it is too short for a size")
	case size == 0xffff:
		return 0, errors.New("its size is unknown")
	case size == 0x7fff:
		mb, ok := s.field(0x1c, 4)
		if !ok {
			return 0, errors.New("it is too short for its extended size")
		}
		return int64(mb&0x7fffffff) << 20, nil
	case size&0x8000 != 0:
		return int64(size&0x7fff) << 10, nil
	}
	return int64(size) << 20, nil
}

// A structure is the formatted area of one SMBIOS structure: type, length, handle, fields (SMBIOS 3.7, 6.1.2). It has at
// least those four bytes.
type structure []byte

func (s structure) kind() byte     { return s[0] }
func (s structure) handle() uint16 { return binary.LittleEndian.Uint16(s[2:]) }

// field returns the little-endian number of 1 to 4 bytes at offset. ok is false if the structure ends before it, as those
// of an older version do.
func (s structure) field(offset, size int) (n uint32, ok bool) {
	if offset+size > len(s) {
		return 0, false
	}
	for i := size - 1; i >= 0; i-- {
		n = n<<8 | uint32(s[offset+i])
	}
	return n, true
}

// nextStructure splits the first structure off. After its formatted area come its strings, each ended by a NUL, and one
// NUL more; without strings two NULs (SMBIOS 3.7, 6.1.3).
func nextStructure(tables []byte) (s structure, rest []byte, err error) {
	if len(tables) < 4 {
		return nil, nil, fmt.Errorf("%d bytes are too few", len(tables))
	}
	length := int(tables[1])
	if length < 4 || length > len(tables) {
		return nil, nil, fmt.Errorf("length of %d bytes is wrong", length)
	}
	end := bytes.Index(tables[length:], []byte{0, 0})
	if end < 0 {
		return nil, nil, errors.New("its strings have no end")
	}
	return tables[:length], tables[length+end+2:], nil
}
