// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/holders"
)

// Release stops the arrays that have a member on a disk, so that an image can be written to it: the start of the agent has started all that the disks hold, which may
// be of a former life. It refuses to take one of the node's own RAID configuration, or of its skip list, and such that something is built on. A node whose
// root volume is an array is refused too, since a system that is written elsewhere would not be what was asked for.
func Release(ctx context.Context, h steps.Host, n steps.Node, path string) error {
	fail := func(err error) error { return fmt.Errorf("%w on %s: %w", steps.ErrRAID, path, err) }
	var config struct {
		LogicalDisks []struct {
			Controller string `json:"controller"`
			Name       string `json:"volume_name"`
			Root       bool   `json:"is_root_volume"`
		} `json:"logical_disks"`
	}
	if len(n.RAIDConfig) > 0 {
		if err := json.Unmarshal(n.RAIDConfig, &config); err != nil {
			return fail(fmt.Errorf("raid_config of the node: %w", err))
		}
	}
	var keep, root []string
	for _, d := range config.LogicalDisks {
		if d.Controller == "software" {
			keep = append(keep, d.Name)
			if d.Root {
				root = append(root, d.Name)
			}
		}
	}
	skip, err := inspect.ParseSkipList(n.Properties["skip_block_devices"])
	if err != nil {
		return fail(err)
	}
	keep = append(keep, skip.Volumes...)

	if len(root) > 0 {
		return fail(fmt.Errorf("the node's root volume is the array %q, and no operating system can be written to an array yet", root[0]))
	}
	// What runs is told by the kernel, without a look at the disks, which most often hold no array. If some must be kept, those count too that do not run.
	var running state
	if err := running.lookAtArrays(h.Machine.FS); err != nil {
		return fail(err)
	}
	if len(running.arrays) == 0 && len(keep) == 0 {
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
		if among(keep, a) {
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

// among tells whether an array is one of those of a list of names. One without a name in the configuration is named for its number, and any could be it.
func among(names []string, a array) bool {
	return slices.Contains(names, a.name) || slices.Contains(names, "") && defaultName(a.name)
}
