// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
)

// FindESP finds the EFI system partition of a disk by the table in its first bytes. The error is ErrNoESP if there is none.
func FindESP(head []byte, sectorSize int) (Partition, error) {
	e, err := findESP(head, sectorSize)
	if err != nil {
		return Partition{}, err
	}
	return Partition{Number: int(e.number), Start: int64(e.start) * int64(sectorSize), Size: int64(e.count) * int64(sectorSize)}, nil
}

// copyLabel is how an entry for one of several copies of a boot loader ends, counted from 0: as in ironic-python-agent's ironic_python_agent/efi_utils.py.
var copyLabel = regexp.MustCompile(` \(RAID, part[0-9]+\)$`)

// installBootEntries makes an entry for l on each of the partitions. They come first in the boot order, as they are in the list. Other entries for copies of the same label go.
func installBootEntries(vars efiVars, copies []espPartition, l loader) ([]BootVariable, error) {
	entries := make([]BootVariable, len(copies))
	for i, esp := range slices.Backward(copies) {
		one := l
		one.label = fmt.Sprintf("%s (RAID, part%d)", l.label, i)
		var err error
		if entries[i], err = installBootEntry(vars, esp, one); err != nil {
			return nil, err
		}
	}
	names, err := vars.Names()
	if err != nil {
		return nil, err
	}
	var stale []uint16
	for _, name := range names {
		number, is := bootNumber(name)
		if !is || slices.ContainsFunc(entries, func(e BootVariable) bool { return e.Number == number }) {
			continue
		}
		value, err := vars.Read(name)
		if err != nil {
			continue // somebody else's, and named already
		}
		o, err := ParseLoadOption(value)
		if err == nil && copyLabel.MatchString(o.Description) && copyLabel.ReplaceAllString(o.Description, "") == l.label {
			stale = append(stale, number)
		}
	}
	return entries, dropBootEntries(vars, stale)
}

// dropBootEntries takes entries out of the boot order, and deletes them.
func dropBootEntries(vars efiVars, stale []uint16) error {
	if len(stale) == 0 {
		return nil
	}
	order, err := readOrder(vars)
	if err != nil {
		return err
	}
	var b []byte
	for _, n := range order {
		if !slices.Contains(stale, n) {
			b = binary.LittleEndian.AppendUint16(b, n)
		}
	}
	if len(b) < 2*len(order) {
		if err := vars.Write("BootOrder", b); err != nil {
			return fmt.Errorf("write BootOrder: %w", err)
		}
	}
	return deleteEntries(vars, stale)
}
