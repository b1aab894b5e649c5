// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/stream"
)

// ErrNoRoot says that no file system of a disk has the UUID that is asked for.
var ErrNoRoot = errors.New("no partition has this UUID")

// BIOSLoader is GRUB for machines with BIOS, made to start the system of one root file system from any disk.
type BIOSLoader struct {
	boot, core []byte
	// What says what it is and what it starts, for people.
	What string
}

// BIOSDisk is a disk from which BIOS is to start a system.
type BIOSDisk struct {
	Name string // for people
	Disk
}

// InstallBIOS makes BIOS start, from disk, the system in its partition whose file system (or which itself) has the UUID root. It returns what it does, for people. The error is ErrNoRoot if there is no such partition,
// and ErrNoImageLoader if the image lacks what is needed.
//
// For a file system elsewhere, such as on an array of several disks: [PrepareBIOS] while it is open for writing, and when it is unmounted [BIOSLoader.Install] for all the array's members.
func InstallBIOS(ctx context.Context, disk BIOSDisk, v Volumes, root string) (what string, err error) {
	held, err := PartitionsOf(disk)
	if err != nil {
		return "", err
	}
	table, err := readBack(disk, make([]byte, stream.HeadSize))
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(held, func(h Held) bool {
		return root != "" && h.Type != "" && (strings.EqualFold(h.UUID, root) || strings.EqualFold(table.id(h.Number), root))
	})
	if i < 0 {
		return "", fmt.Errorf("%s: %w: %.40q", disk.Name, ErrNoRoot, root)
	}
	// What cannot be installed there is known before the file system is changed.
	if _, err := disk.biosRoom(); err != nil {
		return "", err
	}
	var l *BIOSLoader
	if err := v.Change(ctx, held[i].Partition, held[i].FileSystem, func(root *os.Root) (err error) {
		l, err = PrepareBIOS(ctx, root, Root{FileSystem: held[i].FileSystem})
		return err
	}); err != nil {
		return "", fmt.Errorf("prepare GRUB in partition %d of %s: %w", held[i].Number, disk.Name, err)
	}
	return l.What, l.Install(ctx, []BIOSDisk{disk})
}

// PrepareBIOS makes GRUB of what the image's distribution has of it in /usr/lib/grub/i386-pc of the root file system f, which root has open for writing. It puts GRUB's modules into that file system and, if
// the image has no menu that starts Linux, a menu. Nothing of the image is run: all is read and copied as data. The same again changes nothing.
//
// Install comes when the file system is unmounted, so that all this is on the disk before GRUB is.
func PrepareBIOS(ctx context.Context, root *os.Root, f Root) (*BIOSLoader, error) {
	module, ok := map[string]string{"ext4": "ext2", "xfs": "xfs", "btrfs": "btrfs"}[f.Type]
	if !ok {
		return nil, fmt.Errorf("%w: GRUB does not start from the file system %q", ErrNoImageLoader, f.Type)
	}
	if !plainWord.MatchString(f.UUID) {
		return nil, fmt.Errorf("%w: its file system has no UUID", ErrNoImageLoader)
	}

	if f.Type == "btrfs" { // GRUB looks from the top on, whatever the default is
		const top = 5
		if id, err := subvolume(root); err != nil {
			return nil, err
		} else if id != top {
			return nil, fmt.Errorf("%w: GRUB does not see the default subvolume of its btrfs, which has the number %d", ErrNoImageLoader, id)
		}
	}

	// 1. What it will start.
	files := root.FS()
	dir, chosen := grubMenuOf(files, f)
	what := "it starts the menu in /" + dir + "/grub.cfg"
	var menu []byte
	if dir == "" {
		var err error
		if menu, what, err = kernelConfig(files, f, chosen); err != nil {
			return nil, err
		}
		dir = grubDirectories[0]
		for _, sign := range []string{"boot/grub2", "usr/sbin/grub2-install"} {
			if _, err := fs.Stat(files, sign); err == nil {
				dir = grubDirectories[1]
			}
		}
	}

	// 2. GRUB itself. Modules for arrays and logical volumes are in it so that it finds the file system wherever it is.
	modules := []string{"biosdisk", "part_msdos", "part_gpt", module, "search_fs_uuid", "mdraid1x", "mdraid09", "lvm"}
	for _, m := range []string{"raid5rec", "raid6rec"} { // for arrays without one of their members
		if isFile(files, grubBIOSDirectory+"/"+m+".mod") {
			modules = append(modules, m)
		}
	}
	core, err := grubCore(files, grubBIOSDirectory, modules, grubPrefix(f.UUID, dir), "/"+dir)
	if err != nil {
		return nil, fmt.Errorf("%w: GRUB for BIOS, from /%s: %w", ErrNoImageLoader, grubBIOSDirectory, err)
	}
	boot, err := readFile(files, grubBIOSDirectory+"/boot.img", 512)
	if err != nil {
		return nil, fmt.Errorf("%w: GRUB for BIOS, from /%s: %w", ErrNoImageLoader, grubBIOSDirectory, err)
	}
	if len(boot) != 512 || string(boot[510:]) != "\x55\xaa" {
		return nil, fmt.Errorf("%w: /%s/boot.img is no boot sector", ErrNoImageLoader, grubBIOSDirectory)
	}

	// 3. What it reads when it has started.
	if err := copyModules(ctx, root, dir+"/i386-pc"); err != nil {
		return nil, err
	}
	if menu != nil {
		if err := putMenu(root, dir+"/grub.cfg", menu); err != nil {
			return nil, fmt.Errorf("write boot menu: %w", err)
		}
	}
	return &BIOSLoader{boot: boot[:grubBootCode], core: core, What: "GRUB for BIOS, from /" + grubBIOSDirectory + "; " + what}, nil
}

// putMenu writes a menu, and keeps the one that was there.
func putMenu(root *os.Root, name string, menu []byte) error {
	if have, err := readFile(root.FS(), name, grubFileSize); err == nil && bytes.Equal(have, menu) {
		return nil
	}
	if err := root.Rename(name, name+".orig"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	mode := fs.FileMode(0o600) // as grub-mkconfig does
	return File{Path: name, Content: menu, Mode: &mode, Owner: -1, Group: -1}.Put(root)
}

const (
	mostModules     = 1000
	mostModuleBytes = 32 << 20
)

// copyModules puts GRUB's modules and their lists where it finds them: with the core that they are made for, and none but those.
func copyModules(ctx context.Context, root *os.Root, to string) error {
	files := root.FS()
	var names []string
	for _, pattern := range []string{"*.mod", "*.lst"} {
		found, err := fs.Glob(files, grubBIOSDirectory+"/"+pattern)
		if err != nil {
			return err
		}
		names = append(names, found...)
	}
	if len(names) > mostModules {
		return fmt.Errorf("%w: /%s has more than %d modules", ErrNoImageLoader, grubBIOSDirectory, mostModules)
	}
	total := 0
	for _, from := range names {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		b, err := readFile(files, from, mostGRUBFile)
		if err != nil {
			return err
		}
		if total += len(b); total > mostModuleBytes {
			return fmt.Errorf("%w: GRUB's modules have more than %d MiB", ErrNoImageLoader, mostModuleBytes>>20)
		}
		name := to + "/" + path.Base(from)
		if have, err := readFile(files, name, mostGRUBFile); err == nil && bytes.Equal(have, b) {
			continue
		}
		if err := (File{Path: name, Content: b, Owner: -1, Group: -1}).Put(root); err != nil {
			return fmt.Errorf("copy GRUB's modules: %w", err)
		}
	}
	return nil
}

// Install writes GRUB to each of the disks. All are looked at before the first is changed. The boot code, at the very start, comes last: a disk of which not all was written does not start, and the error names it.
func (l *BIOSLoader) Install(ctx context.Context, disks []BIOSDisk) error {
	rooms := make([]Partition, len(disks))
	for i, d := range disks {
		var err error
		if rooms[i], err = d.biosRoom(); err != nil {
			return err
		}
		if rooms[i].Size < int64(len(l.core)) {
			return fmt.Errorf("install GRUB on %s: it has %d bytes, and there is room for %d: %w", d.Name, len(l.core), rooms[i].Size, ErrLayout)
		}
	}
	var errs []error
	for i, d := range disks {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		if err := l.install(d, rooms[i].Start); err != nil {
			errs = append(errs, fmt.Errorf("install GRUB on %s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (l *BIOSLoader) install(d BIOSDisk, at int64) error {
	boot, core := bytes.Clone(l.boot), bytes.Clone(l.core)
	placeGRUB(boot, core, uint64(at)/512)
	sector := make([]byte, 512)
	if _, err := d.ReadAt(sector, 0); err != nil {
		return fmt.Errorf("read the first sector: %w", err)
	}
	w := finish{disk: d, check: true}
	start := func(code []byte) error {
		copy(sector, make([]byte, grubBootCode))
		copy(sector, code)
		if err := w.write(sector, 0); err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		return nil
	}
	if err := start(nil); err != nil { // what an earlier installation has there would start half of this one
		return err
	}
	if err := w.write(core, at); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return start(boot)
}

// biosRoom is where GRUB's core goes: the BIOS boot partition of a GPT, or between an MBR and the first partition.
func (d BIOSDisk) biosRoom() (Partition, error) {
	fail := func(format string, args ...any) (Partition, error) {
		return Partition{}, fmt.Errorf("install GRUB on %s: %w", d.Name, fmt.Errorf(format, args...))
	}
	if d.SectorSize() != 512 {
		return fail("BIOS does not start disks with sectors of %d bytes by GRUB: %w", d.SectorSize(), ErrLayout)
	}
	table, err := readBack(d, make([]byte, stream.HeadSize))
	if err != nil {
		return fail("%w", err)
	}
	parts := table.partitions()
	if table.gpt == nil {
		end := slices.MinFunc(parts, func(a, b Partition) int { return int(min(max(a.Start-b.Start, -1), 1)) }).Start
		return Partition{Start: 512, Size: end - 512}, nil
	}
	i := slices.IndexFunc(table.gpt.Partitions(), func(p gpt.Partition) bool { return p.Type == gpt.BIOSBoot })
	if i < 0 {
		return fail("its GPT has no BIOS boot partition: %w", ErrLayout)
	}
	return parts[i], nil
}
