// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/lvm"
	"github.com/ironhand/ironhand/steps/raid"
)

// imageCommands make the firmware start what was deployed.
func (a *agent) imageCommands() []Command {
	return []Command{{Name: "image.install_bootloader", Async: true, Run: a.installBootloader}}
}

// installBootloader makes a boot entry in a UEFI machine's firmware, and puts GRUB onto a BIOS machine's disk that has a partition image. A whole disk image on a BIOS
// machine brings its own boot loader, and nothing is left to do, unless it is on an array.
//
// Nothing of the image is run: ironic-python-agent's grub-install in a chroot of it is the hole
// CVE-2026-43003. So this needs no enable_bios_bootloader_install, which conductors of Zed do not know.
func (a *agent) installBootloader(ctx context.Context, params json.RawMessage) (any, error) {
	var in struct {
		RootUUID       *string `json:"root_uuid"`
		TargetBootMode string  `json:"target_boot_mode"`
		Ignore         *bool   `json:"ignore_bootloader_failure"`
	}
	if err := json.Unmarshal(params, &in); err != nil {
		return nil, invalidParams("%v", err)
	}
	d := a.currentDeployed()
	if d == nil {
		return nil, newError("DeviceNotFound", "no image was written since this machine was started")
	}
	mode := a.inventory.Boot.Mode
	if in.TargetBootMode != "" && in.TargetBootMode != mode {
		a.console.Stage("boot loader", "WARNING: the node is to boot by %s, this ramdisk was booted by %s", in.TargetBootMode, mode)
	}
	ignored := in.Ignore == nil && a.config.IgnoreBootloader || in.Ignore != nil && *in.Ignore
	if mode == "uefi" {
		entry, err := a.sys.InstallUEFI(ctx, a.host, *d)
		if err != nil && ignored {
			a.sayLines("boot loader", fmt.Sprintf("WARNING: boot entry for %s: %v; going on, as ignore_bootloader_failure says", d.Disk, err))
			return nil, nil
		}
		if err != nil {
			return nil, newError("DeviceNotFound", "boot entry for %s: %w", d.Disk, err)
		}
		a.sayLines("boot loader", entry)
		return nil, nil
	}
	root := ""
	if in.RootUUID != nil && !isDiskID(*in.RootUUID) {
		root = *in.RootUUID
	}
	if root == "" && d.Volume == "" && !raid.IsArray(a.host.Machine.FS, d.Disk) {
		a.console.Stage("boot loader", "BIOS: the image's own is used")
		return nil, nil
	}
	what, err := a.sys.InstallBIOS(ctx, a.host, *d, root)
	switch {
	case err == nil:
		a.sayLines("boot loader", what)
		return nil, nil
	case ignored:
		a.sayLines("boot loader", fmt.Sprintf("WARNING: BIOS boot loader on %s: %v; going on, as ignore_bootloader_failure says", d.Disk, err))
		return nil, nil
	case errors.Is(err, image.ErrNoRoot):
		return nil, newError("DeviceNotFound", "BIOS boot loader on %s: %w", d.Disk, err)
	case errors.Is(err, image.ErrNoImageLoader):
		return nil, newError("InvalidImage", "BIOS boot loader on %s: %w", d.Disk, err)
	}
	return nil, newError("CommandExecutionError", "BIOS boot loader on %s: %w", d.Disk, err)
}

// installUEFI makes the boot entry for a disk; for an array, what firmware starts from on each disk with a member of it, and an entry for each; for a logical volume, an entry for each disk below it. It
// returns a line for each entry.
func installUEFI(ctx context.Context, h steps.Host, d steps.Deployed) (string, error) {
	const variables = "/sys/firmware/efi/efivars"
	esp, disks := "", []string{d.Disk}
	var err error
	if v, on := image.ParseLogicalVolume(d.Volume); on {
		esp, disks, err = lvm.BootDisks(ctx, h, v)
	} else if raid.IsArray(h.Machine.FS, d.Disk) {
		esp, disks, err = raid.PrepareUEFI(ctx, h, d.Disk)
	}
	if err != nil {
		return "", err
	}
	if esp == "" {
		v, err := image.InstallUEFI(ctx, disks[0], variables, loadFileSystem)
		if err != nil {
			return "", err
		}
		return v.String(), nil
	}
	entries, err := image.InstallUEFICopies(ctx, esp, disks, variables, loadFileSystem)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, e := range entries {
		lines = append(lines, e.String())
	}
	return strings.Join(lines, "\n"), nil
}

// installBIOS makes BIOS start the system in a disk's partition with this UUID; for an array, from each disk with a member of it, and without a UUID the one that has GRUB for BIOS; for a logical volume, from each disk below it. It returns a line for each disk.
func installBIOS(ctx context.Context, h steps.Host, deployed steps.Deployed, root string) (what string, err error) {
	disk := deployed.Disk
	if v, on := image.ParseLogicalVolume(deployed.Volume); on {
		return lvm.InstallBIOS(ctx, h, v, root, loadFileSystem)
	}
	v := image.LocalVolumes(disk, tool.Exec{}, loadFileSystem)
	if raid.IsArray(h.Machine.FS, disk) {
		return raid.InstallBIOS(ctx, h, disk, root, v)
	}
	d, err := h.Open(disk)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	what, err = image.InstallBIOS(ctx, image.BIOSDisk{Name: disk, Disk: d}, v, root)
	return disk + ": " + what, err
}

// isDiskID tells whether s is an MBR disk identifier, which stands for a whole disk image.
func isDiskID(s string) bool { return len(s) == 10 && s[:2] == "0x" }
