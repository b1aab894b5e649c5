// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"context"
	"errors"
	"fmt"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/lvm"
)

// kexec loads the kernel of the operating system that was written in this boot. The machine goes on as
// before; standby.run_image then jumps into that kernel instead of going through the firmware. Whatever
// keeps the jump from working is found here, and the conductor can still choose a reboot.
func kexec(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	if j.Deployed == nil {
		return nil, errors.New("no image was written since this machine was started")
	}
	device, entry := j.Deployed.Disk, ""
	load := func(device string) (err error) {
		entry, err = h.LoadKernel(ctx, device)
		return err
	}
	var err error
	if v, on := image.ParseLogicalVolume(j.Deployed.Volume); on {
		device, err = v.String(), lvm.Use(ctx, h, v, load)
	} else {
		err = load(device)
	}
	if err != nil {
		return nil, fmt.Errorf("load the kernel on %s: %w", device, err)
	}
	h.Say("loaded %s", entry)
	return "loaded " + entry, nil
}
