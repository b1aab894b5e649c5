// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/lvm"
	"github.com/ironhand/ironhand/steps/raid"
)

// checkVolume tells whether what is asked for can be put onto the node's root volume.
func (r *request) checkVolume(root *lvm.Root) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: image_info: the node's root volume is the logical volume %s, %s", steps.ErrArgs, root, fmt.Sprintf(format, args...))
	}
	p := r.partitions
	switch rootMB := p.layout(steps.Host{}, "", "").Root; {
	case !r.info.isPartition():
		return fail("which takes the image of a file system (image_type partition), and no whole disk")
	case p.SwapMB > 0 || p.EphemeralMB > 0 || p.EphemeralGB > 0 || bool(p.PreserveEphemeral):
		return fail("and its layout has all volumes: swap_mb, ephemeral_mb, ephemeral_gb and preserve_ephemeral are for partitions")
	case rootMB > root.Size()/mebi:
		return fail("which has %d MiB, and root_mb is %d", root.Size()/mebi, rootMB)
	}
	return nil
}

const mebi = 1 << 20

// writeVolume is writeImage for a node whose root is a logical volume.
func writeVolume(ctx context.Context, h steps.Host, j steps.Job, r *request, root *lvm.Root, spec image.Spec) (_ any, err error) {
	mode, _ := steps.BootMode(h.Machine, j.Node)
	uefi := mode == "uefi"
	if err := r.checkVolume(root); err != nil {
		return nil, err
	}
	if err := root.CheckBoot(uefi, len(spec.ConfigDrive) > 0); err != nil {
		return nil, fmt.Errorf("%w: %w", steps.ErrVolumes, err)
	}
	plan := fmt.Sprintf("writing %s to the logical volume %s, on %s", spec.Sources[0], root, diskNames(root.Disks))
	h.Say("%s", plan)
	if h.Confirm != nil {
		if err := h.Confirm(ctx, plan); err != nil {
			return nil, err
		}
	}
	fail := func(err error) error {
		return fmt.Errorf("write partition image %s to the logical volume %s: %w", r.info.ID, root, err)
	}

	// 1. The image. When it is known to be one for the volume, what the machine could start from goes: until all is there.
	defer func() {
		if err == nil {
			return
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if uerr := root.Unmark(late, h); uerr != nil {
			err = fmt.Errorf("%w; afterwards: %w", err, uerr)
		}
	}()
	result, files, err := image.WriteVolume(ctx, root.Size(), int(root.Disks[0].LogicalSectors), spec, root.LogicalVolume, root.Mirror, uefi, func(write func(image.Disk, image.Volumes) error) error {
		if root.Array {
			letSync, err := raid.Hold(h)
			if err != nil {
				return err
			}
			defer letSync()
		}
		if err := root.Disarm(ctx, h, j.Node); err != nil {
			return err
		}
		return root.Use(ctx, h, func(device string) (err error) {
			disk, err := h.Open(device)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, disk.Close()) }()
			return write(disk, volumes(h, device))
		})
	})
	if err != nil {
		return nil, fail(err)
	}
	for _, w := range result.Warnings {
		h.Say("WARNING: %s", w)
	}
	if result.Loader != "" {
		h.Say("%s: boot loader in %s", root, result.Loader)
	}
	h.Say("%s: %d MiB written, %d MiB zeroed, %d MiB read back and right", root, result.Written.Bytes>>20, result.Written.Zeroed>>20, result.Written.Checked>>20)

	// 2. What is beside it.
	esp, err := root.Finish(ctx, h, spec.ConfigDrive, uefi, files)
	if err != nil {
		if root.Array { // what firmware starts lies on the disks below it
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			if rerr := raid.Release(late, h, j.Node, root.Disks[0].Name); rerr != nil {
				err = fmt.Errorf("%w; afterwards: %w", err, rerr)
			}
		}
		return nil, fail(err)
	}

	uuids := map[string]any{"root uuid": result.RootUUID, "efi system partition uuid": nil, "partitions": root.Paths(uefi, len(spec.ConfigDrive) > 0)}
	text := fmt.Sprintf("image (%s) written to device %s root_uuid=%s", r.info.ID, root.Device(), result.RootUUID)
	if esp != "" {
		uuids["efi system partition uuid"] = esp
		if is(r.partitions.BootMode, "uefi") && is(r.partitions.BootOption, "local") {
			text += " efi_system_partition_uuid=" + esp
		}
	}
	return steps.Deployed{Text: text, Disk: root.Disks[0].Name, Volume: root.String(), UUIDs: uuids}, nil
}
