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

// judge reads what is on the disks. It refuses all if one has a file system that other machines may be using, on the disk, its partitions, or what is built on it.
// Source: ironic-python-agent's hardware.py, safety_check_block_device, which means to do so. A disk that cannot be read is not touched, once this was the last look.
func (j *job) judge(ctx context.Context, last bool) error {
	var found []string
	var left []*target
	for _, t := range j.targets {
		if !t.judged {
			what, err := j.judgeDisk(ctx, t)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			found = append(found, what...)
			t.judged = err == nil
			if err != nil && (last || errors.Is(err, errSilent)) {
				j.fail(t.disk.Name, err)
				t.closeDrive()
				continue
			}
		}
		left = append(left, t)
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: %s; nothing was erased", steps.ErrProtected, strings.Join(found, ", "))
	}
	if len(left) == len(j.targets) {
		return nil
	}
	j.targets = left
	return j.again(ctx)
}

// judgeDisk returns the file systems of clusters on a disk.
func (j *job) judgeDisk(ctx context.Context, t *target) (found []string, err error) {
	if j.unread[t.tree.Name] != nil {
		if err := j.noMember(ctx, t.tree); err != nil {
			return nil, err
		}
	}
	if !j.options.guard || j.host.EraseSpecial {
		return nil, nil
	}
	j.host.Say("%s: looking at what is on it", t.disk.Name)
	dead := map[*holders.Device]bool{}
	for _, d := range descendants(t.tree) {
		if slices.Contains(j.dead[t.disk.Name], d.Path()) {
			dead[d] = true
			for _, p := range d.Partitions() { // they are on the other paths too
				dead[p] = true
			}
		}
	}
	for _, d := range descendants(t.tree) {
		if d.Size == 0 || dead[d] {
			continue // an array that is not running, an extended partition
		}
		what, err := read(ctx, j, d.Path(), func(r io.ReaderAt) (string, error) { return special(r, d.Size) })
		if err != nil {
			return found, fmt.Errorf("look for file systems of clusters on %s: %w", d.Path(), err)
		}
		if what != "" {
			found = append(found, fmt.Sprintf("%s has %s", d.Path(), what))
		}
	}
	return found, nil
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
var mediaLabels = [...]string{"ir-vfd-dev", "config-2", "vmedia_boot_iso", isoLabel}

const isoLabel = "ironhand"

// maxMedium is the size from which a disk is none of the media that a BMC attaches, bytes, as initramfs/media has it.
const maxMedium = 4 << 30

// medium says why a disk is such a medium; "" if it is none: its settings are this machine's, or it is small and is as a whole what such media are. What is in its partitions
// tells nothing: the images that are deployed have a partition config-2 too.
func (j *job) medium(ctx context.Context, d inspect.Disk) (why string, err error) {
	if d.Size < maxMedium { // the name may by now be another's
		tree, err := holders.Of(ctx, j.host.Machine.FS, d.Name)
		if err != nil {
			return "", err
		}
		for _, dev := range append([]*holders.Device{tree.Disks[0]}, tree.Disks[0].Partitions()...) {
			if slices.Contains(j.host.Media, dev.Path()) {
				return "its settings were read from " + dev.Path(), nil
			}
		}
	}
	j.host.Say("%s: looking whether it is a medium for this machine", d.Name)
	found, err := read(ctx, j, d.Name, func(r io.ReaderAt) (image.FileSystem, error) { return image.Probe(r, d.Size) })
	if err != nil {
		return "", err
	}
	is := func(label string) bool { return strings.EqualFold(label, found.Label) }
	switch {
	case d.Size < maxMedium && slices.ContainsFunc(mediaLabels[:], is):
		return "label " + found.Label, nil
	case is(isoLabel): // a person's stick may be large; so may be a disk that somebody wants to last
		return "", fmt.Errorf("it has the label %s and %s; unplug it, or put it on the skip list", found.Label, inspect.Size(d.Size))
	}
	return "", nil
}
