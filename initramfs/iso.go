// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/ironhand/ironhand/image/volume"
)

// DefaultCmdline is the kernel's command line of an ISO: the agent looks for configuration media, all consoles are used,
// and a kernel that panics does not leave the machine standing.
const DefaultCmdline = "boot_method=vmedia console=tty0 console=ttyS0,115200 panic=10 quiet"

// BurnInCmdline is that of a stick for burn-in: its menu is shown in place of the agent.
const BurnInCmdline = "ironhand-burnin=menu console=tty0 console=ttyS0,115200 panic=10 quiet"

// DefaultLabel is the volume label of an ISO. It is not the label of a configuration medium.
const DefaultLabel = "IRONHAND"

// ISO says what a bootable ISO is made from. It holds nothing about any node, so that one ISO serves all.
type ISO struct {
	Kernel    string // path of a bzImage; with Secure Boot it must be signed by the distribution whose shim is used
	Initramfs string // path
	Cmdline   string // "" stands for DefaultCmdline
	Label     string // "" stands for DefaultLabel
	Loaders   Loaders
	Stick     bool // it is for a USB stick too, and brings a partition for reports
}

// Loaders are the paths of the boot loaders' files.
type Loaders struct {
	Shim       string // first stage for UEFI, signed by Microsoft
	Grub       string // second stage, signed by the distribution; it looks for /.disk/info and reads /boot/grub/grub.cfg
	MokManager string // shim's key manager, which is started when a signature is not right
	Isolinux   string // for the BIOS
	Ldlinux    string // its core module
	Isohybrid  string // ISOLINUX's program for the first sector of a stick
}

// DebianLoaders returns where Debian's packages put the loaders, below root ("/", or where packages were unpacked to).
func DebianLoaders(root string) Loaders {
	root = strings.TrimSuffix(root, "/")
	return Loaders{
		Shim:       root + "/usr/lib/shim/shimx64.efi.signed",
		Grub:       root + "/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed",
		MokManager: root + "/usr/lib/shim/mmx64.efi.signed",
		Isolinux:   root + "/usr/lib/ISOLINUX/isolinux.bin",
		Ldlinux:    root + "/usr/lib/syslinux/modules/bios/ldlinux.c32",
		Isohybrid:  root + "/usr/lib/ISOLINUX/isohdpfx.bin",
	}
}

// maxLoader bounds one boot loader's file, in bytes.
const maxLoader = 16 << 20

// Write writes the ISO to w and returns its size. UEFI starts shim from an EFI system partition in the ISO, shim starts
// GRUB, and GRUB reads the rest from the ISO itself; a BIOS starts ISOLINUX, which reads the same kernel and initramfs.
func (s ISO) Write(w io.Writer) (int64, error) {
	if s.Cmdline == "" {
		s.Cmdline = DefaultCmdline
	}
	if s.Label == "" {
		s.Label = DefaultLabel
	}
	if err := checkCmdline(s.Cmdline); err != nil {
		return 0, err
	}
	system, err := s.Loaders.systemPartition()
	if err != nil {
		return 0, err
	}
	isolinux, err := readLoader(s.Loaders.Isolinux, "isolinux")
	if err != nil {
		return 0, err
	}
	ldlinux, err := readLoader(s.Loaders.Ldlinux, "syslinux-common")
	if err != nil {
		return 0, err
	}
	kernel, err := volume.DiskFile("boot/vmlinuz", s.Kernel)
	if err != nil {
		return 0, fmt.Errorf("kernel: %w", err)
	}
	initramfs, err := volume.DiskFile("boot/initrd.img", s.Initramfs)
	if err != nil {
		return 0, fmt.Errorf("initramfs: %w", err)
	}
	iso := volume.ISO{
		Label: s.Label,
		Files: []volume.File{
			volume.BytesFile(".disk/info", []byte("ironhand\n")), // by which GRUB finds this volume
			volume.BytesFile("boot/grub/grub.cfg", []byte(grubConfig(s.Cmdline))),
			volume.BytesFile("boot/efi.img", system),
			volume.BytesFile("isolinux/isolinux.bin", isolinux),
			volume.BytesFile("isolinux/isolinux.cfg", []byte(isolinuxConfig(s.Cmdline))),
			volume.BytesFile("isolinux/ldlinux.c32", ldlinux),
			kernel, initramfs,
		},
		Boot: []volume.Boot{{File: "isolinux/isolinux.bin"}, {File: "boot/efi.img", EFI: true}},
	}
	write := iso.WriteTo
	if s.Stick {
		program, err := readLoader(s.Loaders.Isohybrid, "isolinux")
		if err != nil {
			return 0, err
		}
		write = func(w io.Writer) (int64, error) { return writeStick(w, iso, program) }
	}
	n, err := write(w)
	if err != nil {
		return n, fmt.Errorf("write ISO: %w", err)
	}
	return n, nil
}

// systemPartition makes the EFI system partition, with the loader for removable media (UEFI 2.10, section 3.5.1.1).
func (l Loaders) systemPartition() ([]byte, error) {
	files := map[string][]byte{}
	size := 0
	for _, f := range []struct{ name, path, debian string }{
		{"EFI/BOOT/BOOTX64.EFI", l.Shim, "shim-signed"},
		{"EFI/BOOT/grubx64.efi", l.Grub, "grub-efi-amd64-signed"},
		{"EFI/BOOT/mmx64.efi", l.MokManager, "shim-helpers-amd64-signed"},
	} {
		b, err := readLoader(f.path, f.debian)
		if err != nil {
			return nil, err
		}
		files[f.name] = b
		size += len(b)
	}
	const mib = 1 << 20
	whole := max(8, (int64(size)+mib-1)/mib+1) * mib // with room for the file system's own
	b, err := volume.FAT{Size: whole, Label: "IRONHAND-EF", Serial: 0x1a0a0001, Files: files}.Bytes()
	if err != nil {
		return nil, fmt.Errorf("make the EFI system partition: %w", err)
	}
	return b, nil
}

// readLoader reads a boot loader's file; debian is the package that has it.
func readLoader(path, debian string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("boot loader: %w: install the Debian package %s", err, debian)
	}
	if err != nil {
		return nil, fmt.Errorf("boot loader: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLoader+1))
	if err != nil {
		return nil, fmt.Errorf("boot loader: %w", err)
	}
	if len(b) == 0 || len(b) > maxLoader {
		return nil, fmt.Errorf("boot loader %s: is empty or has more than %d bytes", path, maxLoader)
	}
	return b, nil
}

// checkCmdline refuses what a boot loader or the kernel would read differently.
func checkCmdline(s string) error {
	const maxCmdline = 2000 // bytes; the kernel takes 2,047 and loaders add to it
	if len(s) > maxCmdline {
		return fmt.Errorf("kernel command line of %d bytes, at most %d are allowed", len(s), maxCmdline)
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e || strings.IndexByte("\"'\\$`;&|<>(){}#", c) >= 0 {
			return fmt.Errorf("kernel command line: character %q has a meaning for a boot loader", c)
		}
	}
	return nil
}

// grubConfig starts at once, on the screen and, where there is one, on the serial port.
func grubConfig(cmdline string) string {
	return `set timeout=0
if serial --unit=0 --speed=115200; then
	terminal_input console serial
	terminal_output console serial
fi
menuentry "ironhand" {
	linux /boot/vmlinuz ` + cmdline + `
	initrd /boot/initrd.img
}
`
}

func isolinuxConfig(cmdline string) string {
	return `SERIAL 0 115200
DEFAULT ironhand
PROMPT 0
LABEL ironhand
	KERNEL /boot/vmlinuz
	INITRD /boot/initrd.img
	APPEND ` + cmdline + `
`
}
