// SPDX-License-Identifier: Apache-2.0

// Package lvm makes and deletes volume groups and logical volumes of LVM, on disks and on arrays of software RAID.
//
// A layout is parsed, the machine is looked at, and a plan is made of both; all that cannot be is an error of one of these, before anything is touched. The plan is
// printed and then done. Each disk gets a GPT with one physical volume, behind a partition for the boot loader if the group has the root volume; an array of software RAID
// gets one too, so that all are alike. lvm2 makes groups and volumes, within the extents that the plan gives them, and mke2fs and mkfs.xfs what is on them; tables and
// signatures are written and cleared here. The volumes are not active afterwards: they are for the system that will be started.
//
// Work that was interrupted at any point, by a loss of power too, can be done again: the marks of steps/raid tell what was not finished. A disk that has partitions,
// a file system, or belongs to an array or a group is never overwritten by a creation. A deletion clears whole disks, and refuses one that has other things too.
package lvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
)

// Create is the step create_volumes: it makes the groups of the argument logical_volumes, or else of the node's property of that name. The result is the layout as it was given.
func Create(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	var args struct {
		Layout json.RawMessage `json:"logical_volumes"`
	}
	if err := parseArgs(j.Args, &args); err != nil {
		return nil, err
	}
	if absent(args.Layout) {
		args.Layout = j.Node.Properties["logical_volumes"]
	}
	if absent(args.Layout) {
		return nil, fmt.Errorf("%w: logical_volumes is missing, in the arguments and in the node's properties", steps.ErrArgs)
	}
	groups, errs := parseLayout(args.Layout)
	skip, err := inspect.ParseSkipList(j.Node.Properties["skip_block_devices"])
	if err != nil {
		errs = append(errs, fmt.Errorf("skip_block_devices: %w", err))
	}
	if len(errs) > 0 {
		return nil, fail(j.Node, raid.JoinErrors(errs))
	}
	if err := create(ctx, h, groups, skip, bootRoom(h, j.Node), nodeTag(j.Node)); err != nil {
		return nil, fail(j.Node, err)
	}
	return args.Layout, nil
}

// Check looks at the arguments of Create alone.
func Check(_ steps.Host, raw json.RawMessage) error {
	var args struct {
		Layout json.RawMessage `json:"logical_volumes"`
	}
	if err := parseArgs(raw, &args); err != nil || absent(args.Layout) {
		return err
	}
	if _, errs := parseLayout(args.Layout); len(errs) > 0 {
		return fmt.Errorf("%w: logical_volumes: %w", steps.ErrArgs, raid.JoinErrors(errs))
	}
	return nil
}

// Delete is the step delete_volumes: it takes away the groups that the argument volume_groups names, or all, but those on the node's skip list.
func Delete(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	var args struct {
		Groups []string `json:"volume_groups"`
	}
	if err := parseArgs(j.Args, &args); err != nil {
		return nil, err
	}
	if args.Groups != nil && len(args.Groups) == 0 {
		return nil, fmt.Errorf("%w: volume_groups names none", steps.ErrArgs)
	}
	skip, err := inspect.ParseSkipList(j.Node.Properties["skip_block_devices"])
	if err != nil {
		return nil, fail(j.Node, fmt.Errorf("skip_block_devices: %w", err))
	}
	if err := remove(ctx, h, args.Groups, skip); err != nil {
		return nil, fail(j.Node, err)
	}
	return nil, nil
}

func parseArgs(raw json.RawMessage, to any) error {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%w: %v", steps.ErrArgs, err)
	}
	return nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// fail makes an error one of volumes.
func fail(n steps.Node, err error) error {
	return fmt.Errorf("%w of node %s: %w", steps.ErrVolumes, n.UUID, err)
}

// bootRoom is what the node's boot loader needs in front of the root volume: as on a disk for a partition image.
func bootRoom(h steps.Host, n steps.Node) bootPart {
	size := func(n, usual int) int64 {
		if n == 0 {
			n = usual
		}
		return int64(n) * mib
	}
	if mode, _ := steps.BootMode(h.Machine, n); mode == "uefi" {
		return bootPart{gpt.EFISystem, size(h.ESPSize, 550)}
	}
	return bootPart{gpt.BIOSBoot, size(h.BIOSBootSize, 1)}
}

func create(ctx context.Context, h steps.Host, groups []group, skip inspect.SkipList, b bootPart, tag string) error {
	s, err := look(ctx, h)
	if err != nil {
		return err
	}
	p, err := planCreation(groups, s, skip, b)
	if err != nil {
		return err
	}
	p.tag = tag
	if err := raid.Announce(ctx, h, p.String()); err != nil {
		return err
	}
	return p.apply(ctx, h, groups, skip, b)
}

func remove(ctx context.Context, h steps.Host, names []string, skip inspect.SkipList) error {
	s, err := look(ctx, h)
	if err != nil {
		return err
	}
	r, err := planRemoval(s, names, skip)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(r.gone, func(g existing) bool { return g.name == name }) {
			h.Say("there is no volume group %q", name)
		}
	}
	if len(r.disks) == 0 {
		h.Say("no volumes to delete")
		return nil
	}
	if err := raid.Announce(ctx, h, r.String()); err != nil {
		return err
	}
	if err := r.apply(ctx, h, s); err != nil {
		return err
	}
	// What is left is told from the machine, not from what was done.
	if s, err = look(ctx, h); err != nil {
		return err
	}
	if r, err = planRemoval(s, names, skip); err != nil {
		return err
	}
	if len(r.disks) > 0 {
		return errors.New("after the deletion there is still something to delete: " + r.String())
	}
	return nil
}
