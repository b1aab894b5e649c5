// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ironhand/ironhand/image"
)

// imageCommands make the firmware start what was deployed.
func (a *agent) imageCommands() []Command {
	return []Command{{Name: "image.install_bootloader", Async: true, Run: a.installBootloader}}
}

// installBootloader makes a boot entry in a UEFI machine's firmware, and puts GRUB onto a BIOS machine's disk that has a partition image. A whole disk image on a BIOS
// machine brings its own boot loader, and nothing is left to do.
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
		entry, err := a.sys.InstallUEFI(ctx, d.Disk)
		if err != nil && ignored {
			a.sayLines("boot loader", fmt.Sprintf("WARNING: boot entry for %s: %v; going on, as ignore_bootloader_failure says", d.Disk, err))
			return nil, nil
		}
		if err != nil {
			return nil, newError("DeviceNotFound", "boot entry for %s: %w", d.Disk, err)
		}
		a.console.Stage("boot loader", "%s", entry)
		return nil, nil
	}
	if in.RootUUID == nil || *in.RootUUID == "" || isDiskID(*in.RootUUID) {
		a.console.Stage("boot loader", "BIOS: the image's own is used")
		return nil, nil
	}
	what, err := a.sys.InstallBIOS(ctx, d.Disk, *in.RootUUID)
	switch {
	case err == nil:
		a.console.Stage("boot loader", "%s: %s", d.Disk, what)
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

// isDiskID tells whether s is an MBR disk identifier, which stands for a whole disk image.
func isDiskID(s string) bool { return len(s) == 10 && s[:2] == "0x" }
