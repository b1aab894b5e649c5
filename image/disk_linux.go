// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/stream"
)

// Prepare makes the kernel able to mount a kind of file system, such as "ext4", where it does not load modules by itself. Nil is for a
// kernel that does.
type Prepare func(ctx context.Context, kind string) error

// FindBootEntry finds what a disk would start, for kexec. It mounts all file systems of the disk's partitions read-only, without
// replaying their journals, in a temporary directory, and reads the boot menu. The disk does not change, unless a file system turns
// out to be broken: the kernel notes that in it. root is where the file system with the kernel is
// mounted: the entry's paths, joined to it, can be opened, and lead to regular files on that file system. cleanup unmounts and
// must be called when the files are not needed any more; it is nil after an error.
func FindBootEntry(ctx context.Context, diskPath string, prepare Prepare) (entry BootEntry, root string, cleanup func() error, err error) {
	parts, err := partitionDevices(diskPath)
	if err != nil {
		return BootEntry{}, "", nil, fmt.Errorf("find boot entry on %s: %w", diskPath, err)
	}
	m := &mounts{prepare: prepare}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("find boot entry on %s: %w", diskPath, err), m.unmount())
		}
	}()

	// 1. All file systems. One that cannot be mounted matters only if nothing is found without it.
	var disk []Volume
	var roots []string
	var trouble []error
	for _, p := range parts {
		if err := ctx.Err(); err != nil {
			return BootEntry{}, "", nil, err
		}
		f, err := probeDevice(p.path)
		if err != nil {
			trouble = append(trouble, err)
			continue
		}
		if f.Type == "" || f.Type == "iso9660" {
			continue
		}
		dir, err := m.mount(ctx, p.path, f.Type)
		if err != nil {
			trouble = append(trouble, err)
			continue
		}
		inside, err := os.OpenRoot(dir) // links in the image must not lead out of it
		if err != nil {
			return BootEntry{}, "", nil, err
		}
		m.roots = append(m.roots, inside)
		disk = append(disk, Volume{FS: inside.FS(), Partition: p.number, FileSystem: f})
		roots = append(roots, dir)
	}

	// 2. The menu.
	entries, err := BootEntriesOn(disk)
	if err != nil {
		return BootEntry{}, "", nil, errors.Join(append([]error{err}, trouble...)...)
	}
	i := slices.IndexFunc(entries, func(e BootEntry) bool { return e.Default })
	if i < 0 {
		err = errors.New("no entry of a boot menu was found")
		if len(entries) > 0 {
			err = errors.New("the boot menu's default does not start Linux, or its files are missing")
		}
		return BootEntry{}, "", nil, errors.Join(append([]error{err}, trouble...)...)
	}
	return entries[i], roots[entries[i].Volume], m.unmount, nil
}

// InstallUEFI makes the firmware start the boot loader on a disk first: it finds the EFI system partition and the loader for this machine on it,
// and writes a boot entry into the variables in efivarsDir (/sys/firmware/efi/efivars on a machine). Entries with the same label
// go. The error is ErrNoESP or ErrNoLoader if there is nothing to start; then no variable has changed.
func InstallUEFI(ctx context.Context, diskPath, efivarsDir string, prepare Prepare) (v BootVariable, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("install UEFI boot entry for %s: %w", diskPath, err)
		}
	}()
	head, sector, err := readHead(diskPath)
	if err != nil {
		return v, err
	}
	esp, err := findESP(head, sector)
	if err != nil {
		return v, err
	}
	parts, err := partitionDevices(diskPath)
	if err != nil {
		return v, err
	}
	i := slices.IndexFunc(parts, func(p partitionDevice) bool { return p.number == int(esp.number) })
	if i < 0 {
		return v, fmt.Errorf("partition %d has no device", esp.number)
	}
	if err := ctx.Err(); err != nil {
		return v, err
	}
	l, err := loaderOn(ctx, parts[i].path, prepare)
	if err != nil {
		return v, err
	}
	return installBootEntry(efivarfs(efivarsDir), esp, l)
}

// InstallUEFICopies is InstallUEFI for an EFI system partition that is kept equal on several disks: esp is the device that shows what is in all of them. Each gets an
// entry; the first disk's is the first in the boot order.
func InstallUEFICopies(ctx context.Context, esp string, disks []string, efivarsDir string, prepare Prepare) (entries []BootVariable, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("install UEFI boot entries for %s: %w", strings.Join(disks, ", "), err)
		}
	}()
	var copies []espPartition
	for _, d := range disks {
		head, sector, err := readHead(d)
		if err != nil {
			return nil, err
		}
		one, err := findESP(head, sector)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d, err)
		}
		copies = append(copies, one)
	}
	l, err := loaderOn(ctx, esp, prepare)
	if err != nil {
		return nil, err
	}
	return installBootEntries(efivarfs(efivarsDir), copies, l)
}

// loaderOn finds the boot loader on the EFI system partition with that device.
func loaderOn(ctx context.Context, device string, prepare Prepare) (l loader, err error) {
	f, err := probeDevice(device)
	if err != nil {
		return l, err
	}
	if f.Type == "" {
		return l, fmt.Errorf("%w: %s holds no file system", ErrNoLoader, device)
	}
	m := &mounts{prepare: prepare}
	defer func() { err = errors.Join(err, m.unmount()) }()
	dir, err := m.mount(ctx, device, f.Type)
	if err != nil {
		return l, err
	}
	inside, err := os.OpenRoot(dir)
	if err != nil {
		return l, err
	}
	m.roots = append(m.roots, inside)
	return findLoader(inside.FS(), runtime.GOARCH)
}

// partitionDevice is the device of a partition.
type partitionDevice struct {
	number int
	path   string
}

// partitionDevices lists the partitions that the kernel knows of a disk: Linux Documentation/ABI/stable/sysfs-block. A disk without any is
// given as its own partition 0.
func partitionDevices(diskPath string) ([]partitionDevice, error) {
	diskPath, err := filepath.EvalSymlinks(diskPath)
	if err != nil {
		return nil, err
	}
	name := strings.ReplaceAll(strings.TrimPrefix(diskPath, "/dev/"), "/", "!")
	sys := filepath.Join("/sys/class/block", name)
	if _, err := os.Stat(sys); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(sys, "*", "partition"))
	if err != nil {
		return nil, err
	}
	var parts []partitionDevice
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(string(bytes.TrimSpace(b)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		device := strings.ReplaceAll(filepath.Base(filepath.Dir(file)), "!", "/")
		parts = append(parts, partitionDevice{n, "/dev/" + device})
	}
	slices.SortFunc(parts, func(a, b partitionDevice) int { return cmp.Compare(a.number, b.number) })
	if len(parts) == 0 {
		parts = []partitionDevice{{0, diskPath}}
	}
	return parts, nil
}

func probeDevice(path string) (f FileSystem, err error) {
	file, err := os.Open(path)
	if err != nil {
		return f, err
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return f, fmt.Errorf("size of %s: %w", path, err)
	}
	if f, err = Probe(file, size); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return f, err
}

// readHead reads the start of a disk and tells the size of its sectors.
func readHead(path string) (head []byte, sector int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	if sector, err = unix.IoctlGetInt(int(file.Fd()), unix.BLKSSZGET); err != nil {
		return nil, 0, fmt.Errorf("sector size of %s: %w", path, err)
	}
	head = make([]byte, stream.HeadSize)
	_, err = file.ReadAt(head, 0)
	return head, sector, err
}

// mounts are file systems that are mounted for a while.
type mounts struct {
	prepare Prepare
	dirs    []string
	roots   []*os.Root
}

// mount mounts a file system read-only in a new directory.
func (m *mounts) mount(ctx context.Context, device, kind string) (dir string, err error) {
	// Without these options the kernel would write to the disk even so: journals are replayed.
	options := map[string]string{"ext4": "noload", "xfs": "norecovery,nouuid", "btrfs": "rescue=nologreplay"}[kind]
	if m.prepare != nil {
		if err := m.prepare(ctx, kind); err != nil {
			return "", fmt.Errorf("mount %s as %s: %w", device, kind, err)
		}
	}
	if dir, err = os.MkdirTemp("", "ironhand-mount-"); err != nil {
		return "", err
	}
	const flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	if err := unix.Mount(device, dir, kind, flags, options); err != nil {
		return "", errors.Join(fmt.Errorf("mount %s as %s: %w", device, kind, err), os.Remove(dir))
	}
	m.dirs = append(m.dirs, dir)
	return dir, nil
}

// unmount unmounts all, and says which could not be.
func (m *mounts) unmount() error {
	var errs []error
	for _, r := range m.roots {
		errs = append(errs, r.Close())
	}
	for _, dir := range slices.Backward(m.dirs) {
		if err := unix.Unmount(dir, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dir, err))
			continue
		}
		errs = append(errs, os.Remove(dir))
	}
	m.dirs, m.roots = nil, nil
	return errors.Join(errs...)
}
