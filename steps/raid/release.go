// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"context"
	"fmt"
	"slices"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/holders"
)

// Release makes a disk ready for an image. It stops the arrays that have a member on it: the start of the agent has started all that the disks hold, which may
// be of a former life. It refuses to take one of the node's own RAID configuration, or of its skip list, and such that something is built on. If the disk is itself an array, what
// firmware would start from the disks of its members is taken away: until all of the image is there, nothing boots.
func Release(ctx context.Context, h steps.Host, n steps.Node, path string) error {
	fail := func(err error) error { return fmt.Errorf("%w on %s: %w", steps.ErrRAID, path, err) }
	volumes, err := n.Volumes()
	if err != nil {
		return fail(err)
	}
	skip, err := inspect.ParseSkipList(n.Properties["skip_block_devices"])
	if err != nil {
		return fail(err)
	}
	if IsArray(h.Machine.FS, path) {
		s, err := look(ctx, h)
		if err != nil {
			return fail(err)
		}
		a, err := s.running(path)
		if err == nil {
			err = s.disarm(ctx, h, a)
		}
		if err != nil {
			return fail(err)
		}
		return nil
	}
	for _, v := range volumes {
		if v.IsRoot() {
			return fail(fmt.Errorf("the node's root volume is the array %q", v.Array()))
		}
	}
	// What runs is told by the kernel, without a look at the disks, which most often hold no array. If some must be kept, those count too that do not run.
	var running state
	if err := running.lookAtArrays(h.Machine.FS); err != nil {
		return fail(err)
	}
	if len(running.arrays) == 0 && len(volumes) == 0 && len(skip.Volumes) == 0 {
		return nil
	}
	s, err := look(ctx, h)
	if err != nil {
		return fail(err)
	}
	for _, a := range s.arrays {
		if !a.on(path) {
			continue
		}
		if slices.Contains(skip.Volumes, a.name) || slices.ContainsFunc(volumes, func(v steps.Volume) bool { return v.Is(a.name) }) {
			return fail(fmt.Errorf("%s is one of the node's volumes", a.title()))
		}
		if a.device == "" {
			continue
		}
		tree, err := holders.Of(ctx, h.Machine.FS, a.device)
		if err != nil {
			return fail(err)
		}
		if uses := tree.Changes(); len(uses) > 0 {
			return fail(fmt.Errorf("%s is in use: it would take to %v", a.title(), uses))
		}
		if err := tree.Refusal(); err != nil {
			return fail(err)
		}
		h.Say("stop %s, %s, of %s, which would be in the way", a.title(), a.level, devices(a.members))
		if _, err := h.Tools.Run(ctx, tool.Mdadm, "--stop", a.device); err != nil {
			return fail(err)
		}
	}
	return nil
}
