// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// ErrNoImageLoader says that a partition image has no boot loader that could be copied to an EFI system partition.
var ErrNoImageLoader = errors.New("the image has no boot loader that can be installed without running it")

const (
	mostLoader  = 16 << 20 // bytes of one file of a boot loader
	mostLoaders = 24 << 20 // and of all; an EFI system partition has at least 32 MiB
)

// LogicalVolume is one of LVM, by its names.
type LogicalVolume struct{ Group, Name string }

// String is GROUP/NAME.
func (v LogicalVolume) String() string { return v.Group + "/" + v.Name }

// ParseLogicalVolume reads what String wrote. It is false if that is no volume.
func ParseLogicalVolume(s string) (v LogicalVolume, ok bool) {
	v.Group, v.Name, ok = strings.Cut(s, "/")
	return v, ok
}

// Device is its path where udev runs: lvm(8), "Valid names".
func (v LogicalVolume) Device() string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return "/dev/mapper/" + double(v.Group) + "-" + double(v.Name)
}

// A Root is the file system that an operating system has as its root.
type Root struct {
	FileSystem
	Volume LogicalVolume // that it is on; the zero value for a partition
}

// words name the root on the kernel's command line. A UUID never fails, but for logical volumes: initial ramdisks made by initramfs-tools of some releases, and by dracut, activate
// those alone that are named. Source: lvm2's debian/initramfs-tools/lvm2/scripts/local-top/lvm2 up to 2.03.11; dracut.cmdline(7), rd.lvm.lv.
func (r Root) words() []string {
	if r.Volume == (LogicalVolume{}) {
		return []string{"root=UUID=" + r.UUID}
	}
	return []string{"root=" + r.Volume.Device(), "rd.lvm.lv=" + r.Volume.String()}
}

// nameVolume has the menus in the root file system, which name it by its UUID or label, name it by its volume, as grub-mkconfig does.
func (r Root) nameVolume(root *os.Root) error {
	names := []string{"etc/kernel/cmdline"} // of kernels to come: kernel-install(8)
	for _, dir := range grubDirectories {
		names = append(names, dir+"/grub.cfg")
	}
	entries, err := fs.Glob(root.FS(), "boot/loader/entries/*.conf")
	if err != nil {
		return err
	}
	if len(entries) > grubEntries {
		return fmt.Errorf("there are %d boot entries", len(entries))
	}
	alternatives := "UUID=" + regexp.QuoteMeta(r.UUID) + "|/dev/disk/by-uuid/" + regexp.QuoteMeta(r.UUID)
	if r.Label != "" {
		alternatives += "|LABEL=" + regexp.QuoteMeta(r.Label)
	}
	word, err := regexp.Compile(`(?m)(^|[\s"'])root=(?:` + alternatives + `)($|[\s"'])`)
	if err != nil {
		return err
	}
	for _, name := range append(names, entries...) {
		b, err := readFile(root.FS(), name, grubFileSize)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		changed := word.ReplaceAll(b, []byte("${1}"+strings.Join(r.words(), " ")+"${2}"))
		if bytes.Equal(b, changed) {
			continue
		}
		if err := (File{Path: name, Content: changed, Owner: -1, Group: -1}).Put(root); err != nil {
			return err
		}
	}
	return nil
}

// espFiles collects what an EFI system partition needs to start the system in a root file system: by path, and what it is, for people. Nothing of it is run, and
// the loader is as its distribution signed it.
//
//   - What the image has in /boot/efi/EFI, as Red Hat's packages put it there.
//   - Debian's and Ubuntu's signed shim and GRUB, as the packages shim-signed and grub-efi-*-signed have them.
//
// GRUB finds its menu by a grub.cfg beside it. It leads to the one in the root file system; where there is none, it starts the kernel itself.
func espFiles(root fs.FS, at Root, goarch string) (files map[string][]byte, what string, err error) {
	arch := efiArch(goarch)
	if arch == "" {
		return nil, "", fmt.Errorf("%w: UEFI has no name for %s", ErrNoImageLoader, goarch)
	}
	config, menu, err := grubConfig(root, at)
	if err != nil {
		return nil, "", err
	}
	files, err = copiedESP(root)
	if err != nil {
		return nil, "", err
	}
	from := "/boot/efi"
	if len(files) == 0 {
		if files, err = packagedESP(root, arch); err != nil {
			return nil, "", err
		}
		from = "Debian's signed shim and GRUB"
	}

	// The removable path needs no boot entry, and firmware that forgets its entries finds it.
	boot := "EFI/BOOT/BOOT" + strings.ToUpper(arch) + ".EFI"
	vendor := ""
	for _, name := range sortedKeys(files) {
		if strings.EqualFold(path.Base(name), "grub"+arch+".efi") && !strings.EqualFold(path.Dir(name), "EFI/BOOT") {
			vendor = path.Dir(name)
		}
	}
	if vendor == "" {
		return nil, "", fmt.Errorf("%w: %s has no grub%s.efi", ErrNoImageLoader, from, arch)
	}
	if _, has := foldedKey(files, boot); !has {
		for _, name := range []string{"shim" + arch + ".efi", "mm" + arch + ".efi", "grub" + arch + ".efi"} {
			b, found := foldedKey(files, vendor+"/"+name)
			if !found {
				continue
			}
			if _, has := foldedKey(files, boot); !has && !strings.HasPrefix(name, "mm") {
				files[boot] = b
			}
			if !strings.HasPrefix(name, "shim") { // it starts the GRUB beside it
				files["EFI/BOOT/"+name] = b
			}
		}
	}
	for name := range files {
		if strings.EqualFold(path.Base(name), "grub.cfg") && strings.EqualFold(path.Dir(name), vendor) {
			delete(files, name) // it may lead to where the image was made
		}
	}
	files[vendor+"/grub.cfg"] = config
	total := 0
	for _, b := range files {
		total += len(b)
	}
	if total > mostLoaders {
		return nil, "", fmt.Errorf("%w: its files have more than %d MiB", ErrNoImageLoader, mostLoaders>>20)
	}
	return files, fmt.Sprintf("%s, from %s; %s", vendor, from, menu), nil
}

// copiedESP is what the image has for an EFI system partition already.
func copiedESP(root fs.FS) (map[string][]byte, error) {
	const top = "boot/efi/EFI"
	files, total := map[string][]byte{}, int64(0)
	err := fs.WalkDir(root, top, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name == top {
			return fs.SkipAll
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := readFile(root, name, mostLoader)
		if err != nil {
			return err
		}
		if total += int64(len(b)); total > mostLoaders || len(files) == 1000 {
			return fmt.Errorf("%w: %s has more than 1000 files or %d MiB", ErrNoImageLoader, top, mostLoaders>>20)
		}
		files[strings.TrimPrefix(name, "boot/efi/")] = b
		return nil
	})
	return files, err
}

// packagedESP is what Debian's packages have for an EFI system partition, in the places where grub-install puts it.
func packagedESP(root fs.FS, arch string) (map[string][]byte, error) {
	read := func(patterns ...string) ([]byte, error) {
		for _, p := range patterns {
			names, err := fs.Glob(root, p)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				return readFile(root, name, mostLoader)
			}
		}
		return nil, nil
	}
	grub, err := read("usr/lib/grub/*-efi-signed/grub" + arch + ".efi.signed")
	if err != nil {
		return nil, err
	}
	shim, err := read("usr/lib/shim/shim"+arch+".efi.signed", "usr/lib/shim/shim"+arch+".efi.signed.latest")
	if err != nil {
		return nil, err
	}
	if grub == nil || shim == nil {
		return nil, fmt.Errorf("%w: there is nothing in /boot/efi/EFI, and not both of shim-signed and grub-efi's signed package are installed (/usr/lib/shim, /usr/lib/grub)", ErrNoImageLoader)
	}
	// GRUB looks for its configuration where its signer told it to.
	vendor := ""
	for _, name := range []string{"debian", "ubuntu"} {
		if bytes.Contains(grub, []byte("/EFI/"+name)) {
			vendor = "EFI/" + name
		}
	}
	if vendor == "" {
		return nil, fmt.Errorf("%w: its signed GRUB is neither Debian's nor Ubuntu's", ErrNoImageLoader)
	}
	files := map[string][]byte{vendor + "/grub" + arch + ".efi": grub, vendor + "/shim" + arch + ".efi": shim}
	for from, to := range map[string]string{"mm" + arch + ".efi.signed": "mm" + arch + ".efi", "BOOT" + strings.ToUpper(arch) + ".CSV": "BOOT" + strings.ToUpper(arch) + ".CSV"} {
		b, err := read("usr/lib/shim/" + from)
		if err != nil {
			return nil, err
		}
		if b != nil {
			files[vendor+"/"+to] = b
		}
	}
	return files, nil
}

// plainWord is what needs no quotes in a configuration of GRUB, and cannot end a command.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=,+@%~-]+$`)

// grubConfig makes the configuration that GRUB reads on the EFI system partition. It says what it starts.
func grubConfig(root fs.FS, at Root) (config []byte, what string, err error) {
	if !plainWord.MatchString(at.UUID) {
		return nil, "", fmt.Errorf("%w: its file system has no UUID", ErrNoImageLoader)
	}
	dir, chosen := grubMenuOf(root, at)
	if dir != "" {
		text := grubPrefix(at.UUID, dir) + "configfile $prefix/grub.cfg\n"
		return []byte(text), "it starts the menu in /" + dir + "/grub.cfg", nil
	}
	return kernelConfig(root, at, chosen)
}

// grubPrefix is how GRUB finds a directory of a file system. The UUID has been looked at.
func grubPrefix(uuid, dir string) string {
	return fmt.Sprintf("search.fs_uuid %s root\nset prefix=($root)/%s\n", uuid, dir)
}

// grubMenuOf finds the directory of GRUB's menu, if that has an entry of Linux that is started when nobody chooses, and names the volume that the root is on, if it is on one; or else such an entry of
// any menu, if there is one.
func grubMenuOf(root fs.FS, at Root) (dir string, chosen *BootEntry) {
	entries, err := BootEntries(root)
	if err != nil {
		return "", nil // a menu that cannot be read starts nothing here
	}
	i := slices.IndexFunc(entries, func(e BootEntry) bool { return e.Default })
	if i < 0 {
		return "", nil
	}
	if at.Volume != (LogicalVolume{}) && !slices.Contains(strings.Fields(entries[i].Cmdline), at.words()[0]) {
		return "", &entries[i]
	}
	for _, dir := range grubDirectories {
		if entries[i].Source == dir+"/grub.cfg" {
			return dir, nil
		}
	}
	return "", &entries[i]
}

// grubDirectories are where GRUB has its menu in a root file system.
var grubDirectories = [...]string{"boot/grub", "boot/grub2"}

// kernelConfig makes a configuration of GRUB that starts a kernel without a menu: chosen, or else the one that the image would start. It says which.
func kernelConfig(root fs.FS, at Root, chosen *BootEntry) (config []byte, what string, err error) {
	e := BootEntry{}
	if chosen != nil {
		e = *chosen
	} else if found, ok := blsKernel(root); ok {
		e = found
	} else if e, err = newestKernel(root); err != nil {
		return nil, "", err
	} else if b, err := readFile(root, "etc/default/grub", 64<<10); err == nil {
		e.Cmdline = defaultCmdline(string(b))
	}
	// The command line of a menu may name the root by variables of the distribution's tools.
	words := slices.DeleteFunc(strings.Fields(e.Cmdline), func(w string) bool {
		return strings.HasPrefix(w, "root=") || at.Volume != (LogicalVolume{}) && strings.HasPrefix(w, "rd.lvm.") // initial ramdisks wait for volumes that are named
	})
	words = append(at.words(), words...)
	if !slices.Contains(words, "ro") && !slices.Contains(words, "rw") {
		words = slices.Insert(words, 1, "ro")
	}
	for _, w := range append(append(slices.Clone(words), e.Kernel), e.Initrds...) {
		if !plainWord.MatchString(w) {
			return nil, "", fmt.Errorf("%w: its kernel's name or command line has %q", ErrNoImageLoader, w)
		}
	}
	text := fmt.Sprintf("search.fs_uuid %s root\nlinux /%s %s\n", at.UUID, e.Kernel, strings.Join(words, " "))
	if len(e.Initrds) > 0 {
		text += "initrd /" + strings.Join(e.Initrds, " /") + "\n"
	}
	return []byte(text + "boot\n"), "it starts /" + e.Kernel + " of an image without GRUB's menu", nil
}

// defaultCmdline is what grub-mkconfig would put on the kernel's command line, by /etc/default/grub: the last of each setting. That file is a script; a value that takes a shell to know is left out, and so is a word that GRUB would not take as it is.
func defaultCmdline(script string) string {
	values := map[string]string{}
	for line := range strings.Lines(script) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if len(value) > 1 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
			value = value[1 : len(value)-1]
		} else if strings.ContainsAny(value, " \t") {
			value = ""
		}
		if strings.ContainsAny(value, "$`\\\"'") {
			value = ""
		}
		values[name] = value
	}
	words := strings.Fields(values["GRUB_CMDLINE_LINUX"] + " " + values["GRUB_CMDLINE_LINUX_DEFAULT"])
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return !plainWord.MatchString(w) }), " ")
}

// blsKernel is what GRUB would start by the entries in /boot, if it had its menu.
func blsKernel(root fs.FS) (BootEntry, bool) {
	files, err := readBLS(root, "boot/loader/entries")
	if err != nil {
		return BootEntry{}, false // the kernels may still be found by their names
	}
	slices.SortStableFunc(files, compareBLS)
	for _, f := range files {
		if e, ok := f.entry(root, 0, nil); ok && len(e.Initrds) > 0 {
			return e, true
		}
	}
	return BootEntry{}, false
}

// newestKernel finds the kernel of the highest version in /boot that has an initrd, by the names that distributions give them.
func newestKernel(root fs.FS) (BootEntry, error) {
	kernels, err := fs.Glob(root, "boot/vmlinuz-*")
	if err != nil {
		return BootEntry{}, err
	}
	slices.SortFunc(kernels, func(a, b string) int { return compareVersions(b, a) })
	for _, k := range kernels {
		version := strings.TrimPrefix(k, "boot/vmlinuz-")
		if strings.Contains(version, "rescue") || !isFile(root, k) {
			continue
		}
		for _, initrd := range []string{"boot/initrd.img-" + version, "boot/initramfs-" + version + ".img", "boot/initrd-" + version} {
			if isFile(root, initrd) {
				return BootEntry{Source: k, Kernel: k, Initrds: []string{initrd}}, nil
			}
		}
	}
	return BootEntry{}, fmt.Errorf("%w: it has no boot menu that starts Linux, and no kernel with an initrd in /boot", ErrNoImageLoader)
}

func sortedKeys(files map[string][]byte) []string {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// foldedKey finds a file whatever the case of its name.
func foldedKey(files map[string][]byte, name string) ([]byte, bool) {
	for have, b := range files {
		if strings.EqualFold(have, name) {
			return b, true
		}
	}
	return nil, false
}
