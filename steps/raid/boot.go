// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

// Firmware knows no software RAID. What it starts lies beside the array, on each disk that has a member of it, in the room that a creation leaves before the first partition:
// an EFI system partition, which is a member of a mirror of its own. That one's superblocks (1.0) are at the end of its members, so that firmware sees
// a plain FAT file system in each, and the operating system keeps them equal. Source: ironic-python-agent's ironic_python_agent/raid_utils.py,
// prepare_boot_partitions_for_softraid.
const (
	espArray = "esp" // name of that mirror
	espSize  = 550 * mib
)

// MostESP is the size, in MiB, that the EFI system partition in an array has at the most, so that those of the disks have room for all of it.
const MostESP = 548

// Arrays are those of the machine, with those that do not run.
func Arrays(ctx context.Context, h steps.Host) ([]steps.Array, error) {
	s, err := look(ctx, h)
	if err != nil {
		return nil, err
	}
	var list []steps.Array
	for _, a := range s.arrays {
		list = append(list, steps.Array{Device: a.device, Name: a.name, Disks: a.disks()})
	}
	return list, nil
}

// IsArray tells whether a device is an array that runs.
func IsArray(root fs.FS, device string) bool {
	_, err := fs.Stat(root, "sys/block/"+sysName(device)+"/md/array_state")
	return err == nil
}

// disks are those that the array has members on, each once.
func (a array) disks() (names []string) {
	for _, m := range a.members {
		if !slices.Contains(names, m.disk) {
			names = append(names, m.disk)
		}
	}
	return names
}

// running finds an array by its device.
func (s state) running(device string) (array, error) {
	i := slices.IndexFunc(s.arrays, func(a array) bool { return a.device == device })
	if i < 0 {
		return array{}, fmt.Errorf("%s is no array that runs", device)
	}
	return s.arrays[i], nil
}

// PrepareUEFI gives each disk with a member of the array at device an EFI system partition with what the one in the array holds, into which an image was written. That
// one is emptied, so that the operating system takes the mirror of the others by the UUID that it knows. It returns the mirror's device and the disks. Called again, it ends what was begun,
// or changes nothing.
func PrepareUEFI(ctx context.Context, h steps.Host, device string) (esp string, disks []string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: EFI system partitions for %s: %w", steps.ErrRAID, device, err)
		}
	}()
	// 1. What there is.
	s, err := look(ctx, h)
	if err != nil {
		return "", nil, err
	}
	a, err := s.running(device)
	if err != nil {
		return "", nil, err
	}
	disks = a.disks()
	source, holds, err := espOf(h, device)
	if err != nil {
		return "", nil, err
	}
	if source.Size > MostESP*mib {
		return "", nil, fmt.Errorf("that of the image has %s, and no more than %s are free for it before the arrays", size(source.Size), size(MostESP*mib))
	}

	// 2. The mirror, and what the image has for it.
	m, err := s.espMirror(h, disks)
	if err != nil {
		return "", nil, err
	}
	if !holds {
		if full, err := isFAT(h, m.device); err != nil || !full {
			return "", nil, errors.Join(image.ErrNoESP, err)
		}
		return m.device, disks, nil
	}
	if err := s.makeMirror(ctx, h, &m, disks); err != nil {
		return "", nil, err
	}
	if err := copyESP(ctx, h, device, source, m.device); err != nil {
		return "", nil, fmt.Errorf("copy partition %d of %s to %s: %w", source.Number, device, m.device, err)
	}
	return m.device, disks, nil
}

// MakeESP is PrepareUEFI for an array that has no EFI system partition of its own: the mirror is empty if it was not there.
func MakeESP(ctx context.Context, h steps.Host, device string) (esp string, disks []string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: EFI system partitions for %s: %w", steps.ErrRAID, device, err)
		}
	}()
	s, err := look(ctx, h)
	if err != nil {
		return "", nil, err
	}
	a, err := s.running(device)
	if err != nil {
		return "", nil, err
	}
	m, err := s.espMirror(h, a.disks())
	if err != nil {
		return "", nil, err
	}
	if err := s.makeMirror(ctx, h, &m, a.disks()); err != nil {
		return "", nil, err
	}
	return m.device, a.disks(), nil
}

// mirror is that of the EFI system partitions, and what the disks need to get for it; its device is "" if it is not there.
type mirror struct {
	newArray
	adds []*addition
}

// espMirror finds a place for an EFI system partition on each disk, and the mirror of these.
func (s state) espMirror(h steps.Host, disks []string) (m mirror, err error) {
	m.newArray = newArray{level: "raid1", name: espArray, version: "1.0"}
	for i, name := range disks {
		d := s.disk(name)
		if d == nil {
			return m, fmt.Errorf("%s, which a member is on, is no disk that can be written to", name)
		}
		one, add, err := placeFor(h, *d, gpt.EFISystem, fmt.Sprintf("uefi-holder-%d", i), espSize)
		if err != nil {
			return m, err
		}
		if add != nil {
			m.adds = append(m.adds, add)
		}
		m.members = append(m.members, one)
	}
	i := slices.IndexFunc(s.arrays, func(o array) bool {
		return o.device != "" && o.name == espArray && !o.degraded && slices.Equal(devicesOf(o.members), devicesOf(m.members))
	})
	if i >= 0 {
		m.device = s.arrays[i].device
	}
	return m, nil
}

// makeMirror makes the mirror, unless it is there.
func (s state) makeMirror(ctx context.Context, h steps.Host, m *mirror, disks []string) (err error) {
	if m.device != "" {
		return nil
	}
	for _, add := range m.adds {
		h.Say("partition %s: EFI system partition %d of %s more", add.disk, add.partition.Number, size(espSize))
		if err := add.write(); err != nil {
			return err
		}
	}
	if err := s.clearESPs(ctx, h, disks); err != nil {
		return err
	}
	if m.device, err = freeDevice(h.Machine.FS); err != nil {
		return err
	}
	if err := m.make(ctx, h); err != nil {
		return fmt.Errorf("make %s %q: %w", m.device, m.name, err)
	}
	h.Say("made %s %q, of %s", m.device, m.name, devices(m.members))
	return nil
}

func devicesOf(members []member) (names []string) {
	for _, m := range members {
		names = append(names, m.device())
	}
	slices.Sort(names)
	return names
}

// espOf finds the EFI system partition in an array, and tells whether a FAT file system is in it.
func espOf(h steps.Host, device string) (p stream.Partition, holds bool, err error) {
	d, err := h.Open(device)
	if err != nil {
		return p, false, err
	}
	defer d.Close() // only read
	head := make([]byte, min(mib, d.Size()))
	if _, err := d.ReadAt(head, 0); err != nil {
		return p, false, err
	}
	if p, err = image.FindESP(head, d.SectorSize()); err != nil {
		return p, false, err
	}
	if p.Start < mib || p.Size > d.Size() || p.Start > d.Size()-p.Size {
		return p, false, fmt.Errorf("partition %d of %s has %d bytes at %d", p.Number, device, p.Size, p.Start)
	}
	f, err := image.Probe(io.NewSectionReader(d, p.Start, p.Size), p.Size)
	return p, f.Type == "vfat", err
}

// isFAT tells whether a device, "" for none, holds a FAT file system.
func isFAT(h steps.Host, device string) (bool, error) {
	if device == "" {
		return false, nil
	}
	d, err := h.Open(device)
	if err != nil {
		return false, err
	}
	defer d.Close() // only read
	f, err := image.Probe(d, d.Size())
	return f.Type == "vfat", err
}

// addition is a partition that a disk is to get.
type addition struct {
	disk      string
	head      []byte // of the disk, with the new table
	table     *gpt.Table
	partition gpt.Partition
}

// placeFor finds the partition of a kind on a disk, or else a place for a new one of so many bytes; then add is not nil. Whatever is on the disk stays, for there are members of an array that runs.
func placeFor(h steps.Host, d disk, kind gpt.GUID, name string, bytes int64) (m member, add *addition, err error) {
	head, _, err := probe(h.Machine.FS, d.Name, d.Size, mib)
	if err != nil {
		return m, nil, err
	}
	sector := int64(d.LogicalSectors)
	table, err := gpt.Parse(head, int(sector))
	if err != nil {
		return m, nil, fmt.Errorf("%s has no GPT, as create_configuration makes for a node with boot_mode:uefi or disk_label:gpt among its capabilities: %w", d.Name, err)
	}
	parts := table.Partitions()
	slices.SortFunc(parts, func(a, b gpt.Partition) int { return cmp.Compare(a.First, b.First) })
	start, number := int64(mib), 1
	for _, p := range parts {
		if p.Type == kind {
			return member{d.Name, p.Number}, nil, nil
		}
		if start+bytes > int64(p.First)*sector {
			start = (int64(p.Last+1)*sector + mib - 1) &^ (mib - 1)
		}
	}
	for slices.ContainsFunc(parts, func(p gpt.Partition) bool { return p.Number == number }) {
		number++
	}
	p := gpt.Partition{Number: number, Type: kind, Name: name, First: uint64(start / sector), Last: uint64((start+bytes)/sector) - 1}
	if err := table.Put(p); err != nil {
		return m, nil, fmt.Errorf("nowhere on %s are %s free, as create_configuration leaves them for a node with boot_mode:uefi among its capabilities: %w", d.Name, size(bytes), err)
	}
	table.WriteHead(head)
	return member{d.Name, number}, &addition{d.Name, head, table, p}, nil
}

// write puts the partition into the table of a disk whose other partitions are in use, and makes the kernel know it. At each moment one of the GPT's two copies is whole.
func (a addition) write() (err error) {
	f, err := openShared(a.disk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sector := int64(a.table.SectorSize())
	backup, backupAt := a.table.Backup()
	for _, part := range []struct {
		b  []byte
		at int64
	}{{backup, backupAt}, {a.head[2*sector : markAt], 2 * sector}, {a.head[sector : 2*sector], sector}} {
		if _, err := f.WriteAt(part.b, part.at); err != nil {
			return err
		}
	}
	if err := addPartition(f, a.partition.Number, int64(a.partition.First)*sector, int64(a.partition.Last-a.partition.First+1)*sector); err != nil {
		return fmt.Errorf("tell the kernel of partition %d of %s: %w", a.partition.Number, a.disk, err)
	}
	return nil
}

// clearESPs takes away what firmware would start from EFI system partitions of disks, and the mirrors that these are in.
func (s state) clearESPs(ctx context.Context, h steps.Host, disks []string) error {
	for _, a := range s.arrays {
		if a.device == "" || a.name != espArray || !slices.ContainsFunc(disks, a.on) {
			continue
		}
		h.Say("stop %s, %s, of %s", a.title(), a.level, devices(a.members))
		if _, err := h.Tools.Run(ctx, tool.Mdadm, "--stop", a.device); err != nil {
			return err
		}
	}
	for _, name := range disks {
		d := s.disk(name)
		if d == nil {
			return fmt.Errorf("%s is no disk that can be written to", name)
		}
		head, _, err := probe(h.Machine.FS, name, d.Size, mib)
		if err != nil {
			return err
		}
		table, err := gpt.Parse(head, int(d.LogicalSectors))
		if errors.Is(err, gpt.ErrNone) {
			continue // an MBR: no firmware for UEFI has started from it
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, p := range table.Partitions() {
			if p.Type != gpt.EFISystem {
				continue
			}
			if err := clearPartition(ctx, h, member{name, p.Number}.device()); err != nil {
				return err
			}
		}
	}
	return nil
}

// clearPartition makes both ends of a partition that nobody uses zero.
func clearPartition(ctx context.Context, h steps.Host, path string) (err error) {
	d, err := h.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := clearEnds(ctx, d, 0, d.Size()); err != nil {
		return fmt.Errorf("clear %s: %w", path, err)
	}
	return d.Sync()
}

// disarm makes sure that nothing of a former operating system is started while an image is being written to an array, and after that has failed: firmware would find it on the members' disks.
func (s state) disarm(ctx context.Context, h steps.Host, a array) error {
	if err := s.clearESPs(ctx, h, a.disks()); err != nil {
		return err
	}
	for _, name := range a.disks() {
		if err := clearBootCode(name); err != nil {
			return fmt.Errorf("clear boot code of %s: %w", name, err)
		}
	}
	return nil
}

// bootCode is how many bytes of the first sector are a BIOS's to start.
const bootCode = 440

// clearBootCode takes the boot code off a disk whose partitions are in use.
func clearBootCode(path string) (err error) {
	f, err := openShared(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, zero := make([]byte, bootCode), make([]byte, bootCode)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	if bytes.Equal(b, zero) {
		return nil
	}
	_, err = f.WriteAt(zero, 0)
	return err
}

// freeDevice is the name of an array that is not in use.
func freeDevice(root fs.FS) (string, error) {
	for n := range 1024 {
		name := fmt.Sprintf("md%d", n)
		if _, err := fs.Stat(root, "sys/block/"+name); errors.Is(err, fs.ErrNotExist) {
			return "/dev/" + name, nil
		} else if err != nil {
			return "", err
		}
	}
	return "", errors.New("all names of arrays are in use")
}

// copyESP copies an EFI system partition, which has become a file system on its own with all that it has, and empties the first. The first MiB comes last: until then firmware finds nothing.
func copyESP(ctx context.Context, h steps.Host, device string, p stream.Partition, to string) (err error) {
	from, err := h.Open(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	dst, err := h.Open(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if p.Size > dst.Size() {
		return fmt.Errorf("%s do not fit into %s", size(p.Size), size(dst.Size()))
	}
	if from.SectorSize() != dst.SectorSize() {
		return fmt.Errorf("%s has sectors of %d bytes, and %s of %d", device, from.SectorSize(), to, dst.SectorSize())
	}
	block, check := make([]byte, mib), make([]byte, mib)
	move := func(at int64) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		b, c := block[:min(mib, p.Size-at)], check[:min(mib, p.Size-at)]
		if _, err := from.ReadAt(b, p.Start+at); err != nil {
			return err
		}
		if _, err := dst.WriteAt(b, at); err != nil {
			return err
		}
		if _, err := dst.ReadAt(c, at); err != nil {
			return err
		}
		if !bytes.Equal(b, c) {
			return fmt.Errorf("what was written at %d reads back otherwise", at)
		}
		return nil
	}
	if err := clearEnds(ctx, dst, 0, dst.Size()); err != nil {
		return err
	}
	for at := int64(mib); at < p.Size; at += mib {
		if err := move(at); err != nil {
			return err
		}
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	if err := move(0); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	if err := clearEnds(ctx, from, p.Start, p.Size); err != nil {
		return err
	}
	return from.Sync()
}

// Hold keeps the kernel from bringing the members of arrays in step until release is called: it would take the disks' time from an image. An agent that is killed in between leaves it
// so, and the next one that starts undoes it (see [Assemble]); a reboot does, too.
func Hold(h steps.Host) (release func(), err error) {
	var s state
	if err := s.lookAtArrays(h.Machine.FS); err != nil {
		return nil, err
	}
	var held []string
	release = func() {
		for _, name := range held {
			err := setSync(name, "idle")
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was one of EFI system partitions, and was stopped
			}
			if err != nil {
				h.Say("WARNING: let the members of %s be brought in step again: %v", name, err)
				continue
			}
			h.Say("the members of %s are brought in step again", name)
		}
	}
	for _, a := range s.arrays {
		switch syncAction(h.Machine.FS, a.device) {
		case "", "idle", "frozen":
			continue
		}
		if err := setSync(a.device, "frozen"); err != nil {
			h.Say("WARNING: %s is brought in step while the image is written: %v", a.title(), err) // it is slower, and right
			continue
		}
		held = append(held, a.device)
		h.Say("the members of %s are not brought in step while the image is written", a.title())
	}
	return release, nil
}

// letSync undoes what a [Hold] that was killed has left.
func (s state) letSync(h steps.Host) error {
	var errs []error
	for _, a := range s.arrays {
		if a.device != "" && syncAction(h.Machine.FS, a.device) == "frozen" {
			errs = append(errs, setSync(a.device, "idle"))
		}
	}
	return errors.Join(errs...)
}

// syncAction is what the kernel does with an array: idle, resync, recover, frozen, ... Linux Documentation/admin-guide/md.rst. Levels without a second copy have none.
func syncAction(root fs.FS, device string) string {
	b, err := fs.ReadFile(root, "sys/block/"+sysName(device)+"/md/sync_action")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

func setSync(device, action string) error {
	return os.WriteFile("/sys/block/"+sysName(device)+"/md/sync_action", []byte(action), 0)
}

// biosBootSize is that of GRUB's partition in a GPT. Source: as espSize.
const biosBootSize = 2 * mib

// InstallBIOS makes BIOS start the system in the array at device from each disk with a member of it: the one whose file system has the UUID root, or, if that is empty, the one that has
// GRUB for BIOS. v shows the file systems in the array. It returns a line for each disk. Errors are those of [image.InstallBIOS], too.
func InstallBIOS(ctx context.Context, h steps.Host, device, root string, v image.Volumes) (what string, err error) {
	return InstallLoader(ctx, h, device, func() (*image.BIOSLoader, error) { return prepareBIOS(ctx, h, device, root, v) })
}

// InstallLoader is InstallBIOS for a loader that is made elsewhere, when there is known to be a place for it on each disk.
func InstallLoader(ctx context.Context, h steps.Host, device string, prepare func() (*image.BIOSLoader, error)) (what string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: boot loader for %s: %w", steps.ErrRAID, device, err)
		}
	}()
	// 1. What there is, and a place for GRUB on each disk. All are found before one is changed.
	s, err := look(ctx, h)
	if err != nil {
		return "", err
	}
	a, err := s.running(device)
	if err != nil {
		return "", err
	}
	var adds []*addition
	for i, name := range a.disks() {
		d := s.disk(name)
		if d == nil {
			return "", fmt.Errorf("%s, which a member is on, is no disk that can be written to", name)
		}
		if d.mbr {
			continue // GRUB lies between the MBR and the first partition
		}
		_, add, err := placeFor(h, *d, gpt.BIOSBoot, fmt.Sprintf("bios-boot-part-%d", i), biosBootSize)
		if err != nil {
			return "", err
		}
		if add != nil {
			adds = append(adds, add)
		}
	}

	// 2. GRUB is made of what is in the image.
	l, err := prepare()
	if err != nil {
		return "", err
	}

	// 3. It goes onto each disk.
	for _, add := range adds {
		h.Say("partition %s: BIOS boot partition %d of %s more", add.disk, add.partition.Number, size(biosBootSize))
		if err := add.write(); err != nil {
			return "", err
		}
	}
	var disks []image.BIOSDisk
	defer func() {
		for _, d := range disks {
			err = errors.Join(err, d.Close())
		}
	}()
	var lines []string
	for _, name := range a.disks() {
		d := s.disk(name)
		f, err := openShared(name)
		if err != nil {
			return "", err
		}
		disks = append(disks, image.BIOSDisk{Name: name, Disk: sharedDisk{f, d.Size, int(d.LogicalSectors)}})
		lines = append(lines, name+": "+l.What)
	}
	if err := l.Install(ctx, disks); err != nil {
		return "", err
	}
	return strings.Join(lines, "\n"), nil
}

// prepareBIOS finds the root file system in an array, and makes GRUB for it.
func prepareBIOS(ctx context.Context, h steps.Host, device, root string, v image.Volumes) (l *image.BIOSLoader, err error) {
	d, err := h.Open(device)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	held, err := image.PartitionsOf(d)
	if err != nil {
		return nil, err
	}
	var trouble []error
	for _, p := range held {
		if p.Type == "" || p.Type == "vfat" || p.Type == "iso9660" || root != "" && !strings.EqualFold(p.UUID, root) {
			continue
		}
		if root == "" {
			has, err := image.HasDirectory(ctx, v, p, "usr/lib/grub/i386-pc")
			if err != nil {
				trouble = append(trouble, err) // it matters only if no other has it
			}
			if !has {
				continue
			}
		}
		err := v.Change(ctx, p.Partition, p.FileSystem, func(inside *os.Root) (err error) {
			l, err = image.PrepareBIOS(ctx, inside, image.Root{FileSystem: p.FileSystem})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("prepare GRUB in partition %d of %s: %w", p.Number, device, err)
		}
		return l, nil
	}
	if root == "" {
		return nil, errors.Join(append([]error{fmt.Errorf("%w: no file system in it has /usr/lib/grub/i386-pc", image.ErrNoImageLoader)}, trouble...)...)
	}
	return nil, fmt.Errorf("%w: %.40q", image.ErrNoRoot, root)
}

// sharedDisk is a disk of which partitions are in use by an array. What is written elsewhere is nobody else's.
type sharedDisk struct {
	*os.File
	size   int64
	sector int
}

func (d sharedDisk) Size() int64     { return d.size }
func (d sharedDisk) SectorSize() int { return d.sector }

// Zero writes zeros.
func (d sharedDisk) Zero(ctx context.Context, at, n int64) error {
	for zeros := make([]byte, mib); n > 0; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		done, err := d.WriteAt(zeros[:min(n, mib)], at)
		if err != nil {
			return err
		}
		at, n = at+int64(done), n-int64(done)
	}
	return nil
}

// RereadPartitions does nothing: the kernel cannot, and is told of each partition.
func (d sharedDisk) RereadPartitions(context.Context) error { return nil }
