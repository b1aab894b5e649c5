// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
)

// imageCommands make the firmware start what was deployed.
func (a *agent) imageCommands() []Command {
	return []Command{{Name: "image.install_bootloader", Async: true, Run: a.installBootloader}}
}

// installBootloader makes a boot entry in a UEFI machine's firmware. A whole disk image on a BIOS
// machine brings its own boot loader, and nothing is left to do.
//
// Nothing of the image is run: ironic-python-agent's grub-install in a chroot of it is the hole
// CVE-2026-43003.
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
		entry, err := a.sys.InstallUEFI(ctx, a.host, d.Disk)
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
	if in.RootUUID == nil || *in.RootUUID == "" || isDiskID(*in.RootUUID) {
		a.console.Stage("boot loader", "BIOS: the image's own is used")
		return nil, nil
	}
	err := newError("InvalidImage", "install a BIOS boot loader for a partition image: the image's own programs would have to be run for that, which was the hole CVE-2026-43003; use UEFI, or a whole disk image")
	if ignored {
		a.sayLines("boot loader", "WARNING: "+err.Details+"; going on, as ignore_bootloader_failure says")
		return nil, nil
	}
	return nil, err
}

// installUEFI makes the boot entry for a disk; for an array, what firmware starts from on each disk with a member of it, and an entry for each. It returns a line for each entry.
func installUEFI(ctx context.Context, h steps.Host, disk string) (string, error) {
	const variables = "/sys/firmware/efi/efivars"
	if !raid.IsArray(h.Machine.FS, disk) {
		v, err := image.InstallUEFI(ctx, disk, variables, loadFileSystem)
		if err != nil {
			return "", err
		}
		return v.String(), nil
	}
	esp, disks, err := raid.PrepareUEFI(ctx, h, disk)
	if err != nil {
		return "", err
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

// isDiskID tells whether s is an MBR disk identifier, which stands for a whole disk image.
func isDiskID(s string) bool { return len(s) == 10 && s[:2] == "0x" }
