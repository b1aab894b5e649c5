// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/holders"
	"github.com/ironhand/ironhand/stream"
)

// clearSize is how many bytes at each end of a disk, a partition or an array are made zero so that no signature or superblock of a former life is left: those of
// version 0.90 lie up to 128 KiB before the end.
const clearSize = 1 * mib

// apply does what is planned. If it fails, marks stay on the disks for the next attempt.
func (p plan) apply(ctx context.Context, h steps.Host) error {
	// 1. What was begun before goes.
	if err := clearDisks(ctx, h, p.redo); err != nil {
		return err
	}

	// 2. All disks are there and nobody uses them: else nothing is touched.
	var all []inspect.Disk
	for _, t := range p.tables {
		all = append(all, t.disk)
	}
	opened, err := open(ctx, h, all)
	if err != nil {
		return err
	}
	defer opened.close() // after an error, which counts

	// 3. Marks, then partition tables.
	run := rand.Text()
	for i, t := range p.tables {
		if err := writeMark(opened[i], mark{Run: run, Serial: string(t.disk.Serial), Partitions: t.parts}); err != nil {
			return fmt.Errorf("mark %s: %w", t.disk.Name, err)
		}
	}
	for i, t := range p.tables {
		if err := t.write(ctx, opened[i]); err != nil {
			return fmt.Errorf("partition %s: %w", t.disk.Name, err)
		}
	}
	if err := opened.close(); err != nil {
		return err
	}
	for _, t := range p.tables {
		if err := t.check(h); err != nil {
			return fmt.Errorf("partition %s: %w", t.disk.Name, err)
		}
	}

	// 4. Arrays.
	for _, a := range p.arrays {
		if err := a.make(ctx, h); err != nil {
			return fmt.Errorf("make %s %q: %w", a.device, a.name, err)
		}
		h.Say("made %s %q", a.device, a.name)
	}

	// 5. It is done when the first mark says so; then they go.
	for _, t := range p.tables {
		if err := changeMark(t.disk.Name, mark{Run: run, Serial: string(t.disk.Serial), Made: true, Partitions: t.parts}); err != nil {
			return err
		}
	}
	for _, d := range p.unmark {
		if err := changeMark(d, mark{}); err != nil {
			return err
		}
	}
	for _, t := range p.tables {
		if err := changeMark(t.disk.Name, mark{}); err != nil {
			return err
		}
	}
	return nil
}

// apply does what is planned.
func (r removal) apply(ctx context.Context, h steps.Host) error {
	for _, a := range r.wipe {
		if a.device == "" {
			return fmt.Errorf("clear what is in %s: it does not run", a.title())
		}
	}
	// Everything that stands in the way of one of them is found before the first is touched.
	for _, a := range r.wipe {
		tree, err := holders.Of(ctx, h.Machine.FS, a.device)
		if err == nil {
			err = tree.Refusal()
		}
		if err != nil {
			return err
		}
	}
	if err := clearDisks(ctx, h, r.disks); err != nil {
		return err
	}
	for _, a := range r.wipe {
		if err := takeDown(ctx, h, a.device); err != nil {
			return err
		}
		if err := clearArray(ctx, h, a.device); err != nil {
			return fmt.Errorf("clear what is in %s: %w", a.title(), err)
		}
	}
	return nil
}

// takeDown ends every use of some disks: file systems, swap, volumes, arrays.
func takeDown(ctx context.Context, h steps.Host, disks ...string) error {
	all, _ := h.Machine.Disks(ctx) // for their paths; a disk that cannot be read is refused when it is opened
	names := make([][]string, len(disks))
	for i, name := range disks {
		names[i] = []string{name}
		for _, d := range all {
			if slices.Contains(d.Names(), name) {
				names[i] = d.Names()
			}
		}
	}
	tree, err := holders.OfPaths(ctx, h.Machine.FS, names...)
	if err != nil {
		return err
	}
	for _, change := range tree.Changes() {
		h.Say("%v", change)
	}
	return tree.Teardown(ctx)
}

// clearDisks takes away all that is on disks: uses, superblocks, partition tables. The tables go last: if the power fails, it is by them that
// the rest is found again.
func clearDisks(ctx context.Context, h steps.Host, disks []string) error {
	if len(disks) == 0 {
		return nil
	}
	if err := takeDown(ctx, h, disks...); err != nil {
		return err
	}
	all, err := Disks(ctx, h)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(d inspect.Disk) bool { return !slices.Contains(disks, d.Name) })
	for _, name := range disks { // it may have dropped out, or be listed by another of its paths now
		if !slices.ContainsFunc(all, func(d inspect.Disk) bool { return d.Name == name }) {
			return fmt.Errorf("clear %s: it is gone since it was chosen", name)
		}
	}
	opened, err := open(ctx, h, all)
	if err != nil {
		return err
	}
	defer opened.close() // after an error, which counts
	for i, d := range all {
		parts, err := partitions(h.Machine.FS, sysName(d.Name))
		if err != nil {
			return fmt.Errorf("clear %s: %w", d.Name, err)
		}
		if err := clearAll(ctx, opened[i], parts); err != nil {
			return fmt.Errorf("clear %s: %w", d.Name, err)
		}
	}
	return opened.close()
}

// clearAll makes both ends of the partitions and of the disk zero: first the superblocks, then the table, and last the place of the mark.
func clearAll(ctx context.Context, d steps.Disk, parts []stream.Partition) error {
	for _, p := range parts {
		if err := clearEnds(ctx, d, p.Start, p.Size); err != nil {
			return err
		}
	}
	if err := d.Sync(); err != nil {
		return err
	}
	if err := clearAround(ctx, d); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	if d.Size() >= mib {
		if err := d.Zero(ctx, markAt, markSize); err != nil {
			return err
		}
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return d.RereadPartitions(ctx)
}

// clearAround makes both ends of a disk zero but for the mark. The copy of a table goes first: without the table, nobody would know it for ours.
func clearAround(ctx context.Context, d steps.Disk) error {
	if end := max(d.Size()-clearSize, mib); end < d.Size() {
		if err := d.Zero(ctx, end, d.Size()-end); err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			return err
		}
	}
	return d.Zero(ctx, 0, min(markAt, d.Size()))
}

// clearEnds makes both ends of a part of a disk zero.
func clearEnds(ctx context.Context, d steps.Disk, start, size int64) error {
	sector := int64(d.SectorSize())
	if start%sector != 0 || size%sector != 0 {
		return fmt.Errorf("%d bytes at %d are not whole sectors", size, start)
	}
	if size <= 2*clearSize {
		return d.Zero(ctx, start, size)
	}
	if err := d.Zero(ctx, start, clearSize); err != nil {
		return err
	}
	return d.Zero(ctx, start+size-clearSize, clearSize)
}

// clearArray makes both ends of an array zero: what it shows there is of a former life.
func clearArray(ctx context.Context, h steps.Host, device string) (err error) {
	d, err := h.Open(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return clearAll(ctx, d, nil)
}

// openDisks are disks that nobody else uses.
type openDisks []steps.Disk

// open opens all of them, or none.
func open(ctx context.Context, h steps.Host, disks []inspect.Disk) (openDisks, error) {
	var opened openDisks
	for _, d := range disks {
		one, err := h.Open(d.Name)
		if err == nil {
			opened = append(opened, one)
			err = steps.SameDisk(ctx, h.Machine, d, one.Size(), one.SectorSize())
		}
		for _, p := range d.Paths { // nobody uses it by these either; one that is dead does not matter
			switch other, pathErr := h.Open(p.Name); {
			case pathErr == nil:
				err = errors.Join(err, other.Close())
			case errors.Is(pathErr, syscall.EBUSY):
				err = errors.Join(err, fmt.Errorf("%s is the same disk: %w", p.Name, pathErr))
			}
		}
		if err != nil {
			return nil, errors.Join(err, opened.close())
		}
	}
	return opened, nil
}

// close closes them, once.
func (o openDisks) close() error {
	var errs []error
	for i, d := range o {
		if d != nil {
			errs = append(errs, d.Close())
			o[i] = nil
		}
	}
	return errors.Join(errs...)
}

func writeMark(d steps.Disk, m mark) error {
	b, err := m.bytes()
	if err != nil {
		return err
	}
	if _, err := d.WriteAt(b, markAt); err != nil {
		return err
	}
	return d.Sync()
}

// changeMark changes the mark on a disk whose partitions are in use. The zero mark takes it away.
func changeMark(path string, m mark) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("mark %s: %w", path, err)
		}
	}()
	b := make([]byte, markSize)
	if m.Run != "" {
		if b, err = m.bytes(); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteAt(b, markAt)
	return err
}

// write clears the disk but for the mark, and the ends of its partitions to be, and writes the table. The sector that makes it one comes last.
func (t table) write(ctx context.Context, d steps.Disk) error {
	head, tail, tailAt, err := t.bytes(d.Size(), d.SectorSize())
	if err != nil {
		return err
	}
	sector := d.SectorSize()
	if err := clearAround(ctx, d); err != nil {
		return err
	}
	for _, p := range t.parts {
		if err := clearEnds(ctx, d, p.Start, p.Size); err != nil {
			return err
		}
	}
	if len(tail) > 0 {
		if _, err := d.WriteAt(tail, tailAt); err != nil {
			return err
		}
	}
	if len(head) > sector {
		if _, err := d.WriteAt(head[sector:], int64(sector)); err != nil {
			return err
		}
	}
	if err := d.Sync(); err != nil {
		return err
	}
	if _, err := d.WriteAt(head[:sector], 0); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return d.RereadPartitions(ctx)
}

// bytes gives the table for a disk: its start, whole sectors, and what comes at its end.
func (t table) bytes(size int64, sector int) (head, tail []byte, tailAt int64, err error) {
	if t.label == "msdos" {
		var signature [4]byte
		rand.Read(signature[:]) // never fails: crypto/rand
		mbr := gpt.NewMBR(binary.LittleEndian.Uint32(signature[:]))
		for _, p := range t.parts {
			if err := mbr.Put(gpt.MBRPartition{Number: p.Number, Type: mbrRAID, First: uint64(p.Start / int64(sector)), Count: uint64(p.Size / int64(sector))}); err != nil {
				return nil, nil, 0, err
			}
		}
		head = make([]byte, sector)
		copy(head, mbr.Bytes())
		return head, nil, 0, nil
	}
	table, err := gpt.New(size, sector)
	if err != nil {
		return nil, nil, 0, err
	}
	for _, p := range t.parts {
		first := uint64(p.Start / int64(sector))
		if err := table.Put(gpt.Partition{Number: p.Number, Type: gpt.LinuxRAID, First: first, Last: first + uint64(p.Size/int64(sector)) - 1, Name: "primary"}); err != nil {
			return nil, nil, 0, err
		}
	}
	tail, tailAt = table.Backup()
	return table.Head(), tail, tailAt, nil
}

// check tells whether the kernel sees the partitions.
func (t table) check(h steps.Host) error {
	seen, err := partitions(h.Machine.FS, sysName(t.disk.Name))
	if err != nil {
		return err
	}
	if !slices.Equal(seen, t.parts) {
		return fmt.Errorf("the kernel sees the partitions %v, and there are %v", seen, t.parts)
	}
	return nil
}

// make makes one array and looks whether it is whole.
func (a newArray) make(ctx context.Context, h steps.Host) error {
	if err := h.LoadModules(ctx, module(a.level)); err != nil {
		return err
	}
	// As ironic-python-agent calls it (ironic_python_agent/raid_utils.py, create_raid_device). --run answers questions, --force has RAID 5 begin with all members.
	args := []string{"--create", a.device, "--force", "--run", "--metadata=" + cmp.Or(a.version, "1.2"), "--homehost=" + homehost, "--level=" + strings.TrimPrefix(a.level, "raid"),
		"--name=" + a.name, "--raid-devices=" + strconv.Itoa(len(a.members))}
	for _, m := range a.members {
		args = append(args, m.device())
	}
	if _, err := h.Tools.Run(ctx, tool.Mdadm, args...); err != nil {
		return err
	}
	var s state
	for _, m := range a.members {
		if s.disk(m.disk) == nil {
			parts, err := partitions(h.Machine.FS, sysName(m.disk))
			if err != nil {
				return err
			}
			s.disks = append(s.disks, disk{Disk: inspect.Disk{Name: m.disk}, parts: parts})
		}
	}
	if err := s.lookAtArrays(h.Machine.FS); err != nil {
		return err
	}
	i := slices.IndexFunc(s.arrays, func(o array) bool { return o.device == a.device })
	if i < 0 {
		return errors.New("it does not run")
	}
	var disks []disk
	for _, m := range a.members {
		disks = append(disks, disk{Disk: inspect.Disk{Name: m.disk}})
	}
	if why := s.arrays[i].differs(a.level, disks); why != "" {
		return fmt.Errorf("it came out %s", why)
	}
	return clearArray(ctx, h, a.device)
}
