// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/holders"
)

// guard refuses disks with file systems that other machines may be using, on the disk, its partitions, or what is built on it.
// Source: ironic-python-agent's hardware.py, safety_check_block_device, which means to do so.
func (j *job) guard(ctx context.Context) error {
	if !j.options.guard || j.host.EraseSpecial {
		return nil
	}
	var found []string
	for _, t := range j.targets {
		for _, d := range descendants(t.tree) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if d.Size == 0 {
				continue // an array that is not running, an extended partition
			}
			what, err := j.special(d)
			if err != nil {
				return fmt.Errorf("%w: look for file systems of clusters on %s: %w", steps.ErrErase, d.Path(), err)
			}
			if what != "" {
				found = append(found, fmt.Sprintf("%s has %s", d.Path(), what))
			}
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: %s; nothing was erased", steps.ErrProtected, strings.Join(found, ", "))
	}
	return nil
}

func (j *job) special(d *holders.Device) (string, error) {
	r, closer, err := j.System.Read(d.Path())
	if err != nil {
		return "", err
	}
	defer closer.Close() // only read
	return special(r, d.Size)
}

// special looks at one device for what IPA's list has (and what the kinds write at their places).
func special(r io.ReaderAt, size int64) (string, error) {
	partitions, err := tablePartitions(r, size)
	if err != nil {
		return "", err
	}
	for _, p := range []struct{ kind, what string }{
		{"37AFFC90-EF7D-4E96-91C3-2D7AE055B174", "a partition of IBM GPFS"},
		{"AA31E02A-400F-11DB-9590-000C2911D1B8", "a partition of VMware VMFS"},
		{"0xfb", "a partition of VMware VMFS"},
	} {
		if slices.ContainsFunc(partitions, func(t tablePartition) bool { return strings.EqualFold(t.kind, p.kind) }) {
			return p.what, nil
		}
	}
	for _, m := range []struct {
		at          int64
		magic, what string
	}{
		{64 << 10, "\x01\x16\x19\x70\x00\x00\x00\x01", "Red Hat GFS2"}, // include/uapi/linux/gfs2_ondisk.h, struct gfs2_sb
		{1 << 20, "\x0d\xd0\x01\xc0", "VMware VMFS"},                   // libblkid, superblocks/vmfs.c: a volume's member
		{2 << 20, "\x5e\xf1\xab\x2f", "VMware VMFS"},                   // the same: the file system
	} {
		b, err := readSome(r, size, m.at, 4096)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(string(b), m.magic) {
			return m.what, nil
		}
	}
	return "", nil
}

const maxEntries = 1024 // of a partition table

// tablePartition is a partition as a table has it, which may be anywhere.
type tablePartition struct {
	kind string // a GUID, or for an MBR "0xfb"
	area span
}

// tablePartitions reads the partition tables of a device, valid or not, the GPT at both ends, for sectors of 512 and 4096 bytes. This is to find what must not be
// lost, and what must not stay, so checksums do not matter, nor whether the kernel knows the partitions. A logical partition's own table is one with a single sector.
func tablePartitions(r io.ReaderAt, size int64) ([]tablePartition, error) {
	var list []tablePartition
	for _, sector := range []int64{512, 4096} {
		for _, at := range []int64{sector, size - sector} {
			head, err := readSome(r, size, at, 512)
			if err != nil {
				return nil, err
			}
			if len(head) < 92 || string(head[:8]) != "EFI PART" { // UEFI 2.10, 5.3.2
				continue
			}
			table, count, length := binary.LittleEndian.Uint64(head[72:]), binary.LittleEndian.Uint32(head[80:]), binary.LittleEndian.Uint32(head[84:])
			if length < 128 || length > 4096 || table > uint64(size/sector) {
				continue
			}
			entries, err := readSome(r, size, int64(table)*sector, int(length)*int(min(count, maxEntries)))
			if err != nil {
				return nil, err
			}
			for ; len(entries) >= int(length); entries = entries[length:] {
				if notZero(entries[:16]) < 0 {
					continue
				}
				p := tablePartition{kind: fmt.Sprint(gpt.DecodeGUID([16]byte(entries)))}
				first, last := binary.LittleEndian.Uint64(entries[32:]), binary.LittleEndian.Uint64(entries[40:])
				if first <= last && last < uint64(size/sector) {
					p.area = span{int64(first) * sector, int64(last-first+1) * sector}
				}
				list = append(list, p)
			}
		}
		// Logical partitions hang on a chain.
		for at, first, hops := int64(0), int64(0), 0; hops < 128; hops++ {
			mbr, err := readSome(r, size, at, 512)
			if err != nil {
				return nil, err
			}
			if len(mbr) < 512 || mbr[510] != 0x55 || mbr[511] != 0xaa {
				break
			}
			next := int64(0)
			for e := mbr[446:510]; len(e) > 0; e = e[16:] {
				start, length := int64(binary.LittleEndian.Uint32(e[8:]))*sector, int64(binary.LittleEndian.Uint32(e[12:]))*sector
				p := tablePartition{fmt.Sprintf("0x%02x", e[4]), span{at + start, length}}
				switch e[4] {
				case 0:
					continue
				case 0x05, 0x0f, 0x85:
					next = first + start
					if first == 0 {
						first = start
					}
					p.area = span{next, sector}
				}
				list = append(list, p)
			}
			if next == 0 || next == at {
				break
			}
			at = next
		}
	}
	return list, nil
}

// readSome reads n bytes at a place, or less at the end of the device, and nothing beyond it.
func readSome(r io.ReaderAt, size, at int64, n int) ([]byte, error) {
	if at < 0 || at >= size || n <= 0 {
		return nil, nil
	}
	b := make([]byte, min(int64(n), size-at))
	return b, readFull(r, b, at)
}

// mediaLabels are those of media for this machine: Ironic's (Ironic: ironic/drivers/modules/image_utils.py), and our own ISO's.
var mediaLabels = [...]string{"ir-vfd-dev", "config-2", "vmedia_boot_iso", "ironhand"}

// mediaLabel returns the label of a disk that is such a medium, whole or in a partition; else none.
func (j *job) mediaLabel(ctx context.Context, d inspect.Disk) (string, error) {
	tree, err := holders.Of(ctx, j.host.Machine.FS, d.Name)
	if err != nil {
		return "", err
	}
	for _, dev := range append([]*holders.Device{tree.Disks[0]}, tree.Disks[0].Partitions()...) {
		r, closer, err := j.System.Read(dev.Path())
		if err != nil {
			return "", err
		}
		found, err := image.Probe(r, dev.Size)
		if err := errors.Join(err, closer.Close()); err != nil {
			return "", err
		}
		if slices.ContainsFunc(mediaLabels[:], func(l string) bool { return strings.EqualFold(l, found.Label) }) {
			return found.Label, nil
		}
	}
	return "", nil
}

// hasMember tells whether a disk or one of its partitions holds a superblock of software RAID, also of an array that is not running.
func (j *job) hasMember(d *holders.Device) (bool, error) {
	for _, dev := range append([]*holders.Device{d}, d.Partitions()...) {
		if dev.Size == 0 {
			continue
		}
		r, closer, err := j.System.Read(dev.Path())
		if err != nil {
			return false, err
		}
		member, err := isMember(r, dev.Size)
		if err := errors.Join(err, closer.Close()); err != nil {
			return false, fmt.Errorf("look for software RAID on %s: %w", dev.Path(), err)
		}
		if member {
			return true, nil
		}
	}
	return false, nil
}

// isMember looks for the superblocks of md: versions 0.90, 1.0, 1.1 and 1.2 (Linux include/uapi/linux/raid/md_p.h, drivers/md/md.c: super_90_load, super_1_load).
func isMember(r io.ReaderAt, size int64) (bool, error) {
	for _, at := range []int64{0, 4096, (size/512 - 16) &^ 7 * 512, size&^(64<<10-1) - 64<<10} {
		b, err := readSome(r, size, at, 4096)
		if err != nil {
			return false, err
		}
		if len(b) > 4 && (binary.LittleEndian.Uint32(b) == 0xa92b4efc || binary.BigEndian.Uint32(b) == 0xa92b4efc) {
			return true, nil
		}
	}
	return false, nil
}
