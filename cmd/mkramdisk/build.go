// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ironhand/ironhand/initramfs"
	"github.com/ironhand/ironhand/initramfs/tool"
)

func initramfsCommand() command {
	return command{
		name:     "initramfs",
		synopsis: "--agent PROGRAM --out FILE [FLAGS]",
		about:    "make the initramfs: the agent as process 1, kernel modules, programs",
		example: `apt-get download linux-image-6.1.0-56-amd64 && dpkg -x linux-image-*.deb kernel
mkramdisk initramfs --agent ironhand --modules kernel/lib/modules/6.1.0-56-amd64 --out initramfs.cpio.zst`,
		run: runInitramfs,
	}
}

func runInitramfs(c *call) error {
	agent := c.String("agent", "", "static `program` that becomes /init")
	out := c.String("out", "", "`file` to write")
	modules := c.String("modules", "", "`directory` of the kernel's modules, as /lib/modules/VERSION; without it none are added")
	set := c.String("set", "server", "`which` modules: "+strings.Join(initramfs.SetNames(), ", "))
	firmware := c.String("firmware", "", "`directory` of firmware files, as /lib/firmware, of which those that the modules name are added")
	compress := c.String("compress", string(initramfs.Best), "`how`: none, fast or best (zstd)")
	root := c.String("root", "/", "`directory` in which the ramdisk's programs are found, where packages were unpacked")
	role := c.String("role", "deploy", "`what` it is for: deploy, or burnin with the programs for that on top")
	noTools := c.Bool("no-tools", false, "add no programs but the agent: then there is no emergency shell")
	var files, more list
	c.Var(&more, "module", "one more kernel module by `name`; may be repeated")
	c.Var(&files, "file", "add a file: `PATH=SOURCE`, the path in the initramfs without a slash in front; may be repeated")
	if err := c.parse(0, "agent", "out"); err != nil {
		return err
	}
	spec := initramfs.Spec{
		Agent: *agent, Modules: *modules, Firmware: *firmware, Root: *root,
		Files: map[string]string{}, Compression: initramfs.Compression(*compress),
	}
	switch {
	case *role != "deploy" && *role != "burnin":
		return usageError{fmt.Sprintf("--role %s: want deploy or burnin", *role)}
	case *noTools:
	case *role == "burnin":
		spec.Tools = tool.All()
	default:
		spec.Tools = tool.Deploy()
	}
	var err error
	if spec.Set, err = initramfs.NewSet(*set); err != nil {
		return usageError{err.Error()}
	}
	spec.Set.Names = append(spec.Set.Names, more...)
	for _, f := range files {
		name, source, ok := strings.Cut(f, "=")
		if !ok {
			return usageError{fmt.Sprintf("--file %s: want PATH=SOURCE", f)}
		}
		if spec.Files[name] != "" {
			return usageError{fmt.Sprintf("--file %s: given twice", name)}
		}
		spec.Files[name] = source
	}
	if *firmware != "" && *modules == "" {
		return usageError{"--firmware without --modules"}
	}

	var report initramfs.Report
	err = create(*out, 0o644, func(w io.Writer) (err error) {
		report, err = initramfs.Build(w, spec)
		return err
	})
	if err != nil {
		return err
	}
	if report.Kernel != "" {
		fmt.Fprintf(c.stdout, "kernel %s: %d modules, %s\n", report.Kernel, report.Modules, size(report.ModuleBytes))
	}
	if len(report.Absent) > 0 {
		fmt.Fprintf(c.stdout, "this kernel does not have: %s\n", strings.Join(report.Absent, " "))
	}
	if *firmware != "" {
		fmt.Fprintf(c.stdout, "firmware: %d files, %s; %d named by modules are not in %s\n", report.Firmware.Files, size(report.Firmware.Bytes), len(report.Firmware.Absent), *firmware)
	}
	fmt.Fprintf(c.stdout, "%s: %s, unpacked %s\n", *out, size(report.Written), size(report.Raw))
	return nil
}

func isoCommand() command {
	return command{
		name:     "iso",
		synopsis: "--kernel FILE --initramfs FILE --out FILE [FLAGS]",
		about:    "make one ISO that boots every node under UEFI, UEFI with Secure Boot, and BIOS",
		example:  `mkramdisk iso --kernel kernel/boot/vmlinuz-6.1.0-56-amd64 --initramfs initramfs.cpio.zst --out ironhand.iso`,
		run:      runISO,
	}
}

func runISO(c *call) error {
	loaders := initramfs.DebianLoaders("/")
	kernel := c.String("kernel", "", "the kernel, a bzImage `file`; for Secure Boot as Debian signed it")
	ramdisk := c.String("initramfs", "", "the initramfs, a `file`")
	out := c.String("out", "", "`file` to write")
	role := c.String("role", "deploy", "`what` it is for: deploy; or burnin, which starts into the menu of burn-in, and written to a USB stick has a partition for reports")
	cmdline := c.String("cmdline", "", "the kernel's command `line`; without it "+initramfs.DefaultCmdline+", or for burnin "+initramfs.BurnInCmdline)
	more := c.String("append", "", "`words` added to the kernel's command line")
	label := c.String("label", initramfs.DefaultLabel, "volume `label`")
	c.StringVar(&loaders.Shim, "shim", loaders.Shim, "`file`; Debian package shim-signed")
	c.StringVar(&loaders.MokManager, "mokmanager", loaders.MokManager, "`file`; Debian package shim-helpers-amd64-signed")
	c.StringVar(&loaders.Grub, "grub", loaders.Grub, "`file`; Debian package grub-efi-amd64-signed")
	c.StringVar(&loaders.Isolinux, "isolinux", loaders.Isolinux, "`file`; Debian package isolinux")
	c.StringVar(&loaders.Ldlinux, "ldlinux", loaders.Ldlinux, "`file`; Debian package syslinux-common")
	c.StringVar(&loaders.Isohybrid, "isohybrid", loaders.Isohybrid, "`file`; Debian package isolinux; for burnin")
	if err := c.parse(0, "kernel", "initramfs", "out"); err != nil {
		return err
	}
	if *role != "deploy" && *role != "burnin" {
		return usageError{fmt.Sprintf("--role %s: want deploy or burnin", *role)}
	}
	if *cmdline == "" {
		*cmdline = initramfs.DefaultCmdline
		if *role == "burnin" {
			*cmdline = initramfs.BurnInCmdline
		}
	}
	var written int64
	err := create(*out, 0o644, func(w io.Writer) (err error) {
		written, err = initramfs.ISO{
			Kernel: *kernel, Initramfs: *ramdisk, Label: *label, Loaders: loaders,
			Cmdline: strings.TrimSpace(*cmdline + " " + *more), Stick: *role == "burnin",
		}.Write(w)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: %s\n", *out, size(written))
	return nil
}

func ukiCommand() command {
	return command{
		name:     "uki",
		synopsis: "--kernel FILE --initramfs FILE --out FILE [FLAGS]",
		about:    "make one EFI program of kernel, initramfs and command line: for UEFI HTTP boot, a boot entry, or a disk of one file",
		example: `mkramdisk uki --kernel kernel/boot/vmlinuz-6.1.0-56-amd64 --initramfs initramfs.cpio.zst --out ironhand.efi
sbsign --key db.key --cert db.pem --output ironhand-signed.efi ironhand.efi`,
		run: runUKI,
	}
}

func runUKI(c *call) error {
	var u initramfs.UKI
	c.StringVar(&u.Kernel, "kernel", "", "the kernel, a bzImage `file`")
	c.StringVar(&u.Initramfs, "initramfs", "", "the initramfs, a `file`")
	out := c.String("out", "", "`file` to write; it is not signed, and Secure Boot takes it once sbsign(1) has signed it with a key that the firmware knows")
	c.StringVar(&u.Cmdline, "cmdline", initramfs.DefaultCmdline, "the kernel's command `line`")
	more := c.String("append", "", "`words` added to the kernel's command line")
	c.StringVar(&u.Stub, "stub", initramfs.DebianStub, "`file`; Debian package systemd-boot-efi")
	if err := c.parse(0, "kernel", "initramfs", "out"); err != nil {
		return err
	}
	u.Cmdline = strings.TrimSpace(u.Cmdline + " " + *more)
	var written int64
	err := create(*out, 0o644, func(w io.Writer) (err error) {
		written, err = u.Write(w)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: %s\n", *out, size(written))
	return nil
}

func vmlinuxCommand() command {
	return command{
		name:     "vmlinux",
		synopsis: "VMLINUZ OUT",
		about:    "take the uncompressed kernel out of a bzImage, which virtual machines start at once",
		example: `mkramdisk vmlinux kernel/boot/vmlinuz-6.1.0-56-amd64 vmlinux
qemu-system-x86_64 -m 512 -kernel vmlinux -initrd initramfs.cpio -append console=ttyS0 -nographic`,
		run: runVmlinux,
	}
}

// maxBzImage bounds a bzImage, in bytes. Debian's has 8 MiB.
const maxBzImage = 256 << 20

func runVmlinux(c *call) error {
	if err := c.parse(2); err != nil {
		return err
	}
	f, err := os.Open(c.Arg(0))
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBzImage))
	if err != nil {
		return err
	}
	kernel, err := initramfs.Vmlinux(b)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Arg(0), err)
	}
	err = create(c.Arg(1), 0o644, func(w io.Writer) error { _, err := w.Write(kernel); return err })
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: %s\n", c.Arg(1), size(int64(len(kernel))))
	return nil
}
