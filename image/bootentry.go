// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// BootEntry is a line of a boot menu that starts Linux.
type BootEntry struct {
	Title   string
	Source  string   // the file that says so
	Volume  int      // index of the Volume that holds kernel and initrds
	Kernel  string   // path on that volume, slash separated, without a leading slash
	Initrds []string // likewise, in the order in which they are put together
	Cmdline string
	Default bool // what starts if nobody chooses
}

// Volume is one mounted file system of a disk.
type Volume struct {
	FS        fs.FS
	Partition int // number, 0 if there is only this file system
	FileSystem
}

type volumes []Volume

// BootEntries reads the boot menu on one file system. See BootEntriesOn.
func BootEntries(root fs.FS) ([]BootEntry, error) {
	return BootEntriesOn([]Volume{{FS: root}})
}

// BootEntriesOn reads the boot menu of a disk from all its file systems: systemd-boot's where that is installed, else GRUB's, else
// the entries of the Boot Loader Specification. At most one entry is the default; none is if the default starts something else than
// Linux or names files that are missing. Nothing is executed and nothing written; a GRUB configuration is carried out in so far
// as it makes the menu. Unified kernel images (EFI/Linux) are not looked into.
func BootEntriesOn(disk []Volume) ([]BootEntry, error) {
	for i, v := range disk {
		if loaders, _ := fs.Glob(v.FS, "EFI/systemd/systemd-boot*.efi"); len(loaders) > 0 {
			if entries, err := systemdBoot(v.FS, i); err != nil || len(entries) > 0 {
				return entries, err
			}
		}
	}

	// GRUB's real configuration is on a Linux file system. That in the ESP mostly only leads there.
	var errs []error
	for _, pattern := range []string{"boot/grub/grub.cfg", "boot/grub2/grub.cfg", "grub/grub.cfg", "grub2/grub.cfg", "@/boot/grub/grub.cfg", "EFI/*/grub.cfg"} {
		for i, v := range disk {
			names, err := fs.Glob(v.FS, pattern)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				entries, err := grubMenu(disk, i, name)
				if err != nil {
					errs = append(errs, fmt.Errorf("read boot menu: %w", err))
				}
				if len(entries) > 0 {
					return entries, nil
				}
			}
		}
	}

	for i, v := range disk {
		entries, err := systemdBoot(v.FS, i)
		if err != nil {
			errs = append(errs, err)
		}
		if len(entries) > 0 {
			return entries, nil
		}
	}
	return nil, errors.Join(errs...)
}

// device is the name by which GRUB's variables call a volume here.
func device(v int) string { return "volume" + strconv.Itoa(v) }

// resolve splits GRUB's "(device)/path" into volume and path; without a device it is the one in root. GRUB names partitions
// "hd0,gpt2", "hd0,msdos2" or "hd0,2"; hd0 is the disk that it was started from. ok is false if there is no such volume.
func (d volumes) resolve(name, root string) (v int, p string, ok bool) {
	if rest, has := strings.CutPrefix(name, "("); has {
		if root, name, has = strings.Cut(rest, ")"); !has {
			return 0, "", false
		}
	}
	p = cleanPath(name)
	if n, is := strings.CutPrefix(root, "volume"); is {
		v, err := strconv.Atoi(n)
		return v, p, err == nil && v >= 0 && v < len(d)
	}
	if len(d) == 1 && d[0].Partition == 0 {
		return 0, p, true
	}
	disk, part, _ := strings.Cut(root, ",")
	n, err := strconv.Atoi(strings.TrimLeft(part, "abcdefghijklmnopqrstuvwxyz"))
	v = slices.IndexFunc(d, func(v Volume) bool { return v.Partition == n })
	return v, p, disk == "hd0" && err == nil && v >= 0
}

// cleanPath makes an absolute path one for fs.FS. It never leads above the root.
func cleanPath(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

func isFile(fsys fs.FS, name string) bool {
	info, err := fs.Stat(fsys, name)
	return err == nil && info.Mode().IsRegular()
}

// readFile reads a regular file of at most limit bytes.
func readFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for ever
		return nil, fmt.Errorf("read %s: not a file", name)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: longer than %d bytes", name, limit)
	}
	return b, nil
}
