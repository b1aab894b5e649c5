// SPDX-License-Identifier: Apache-2.0

// Package raid makes and deletes arrays of Linux software RAID (md), as Ironic's raid interface "agent" has them made.
//
// A configuration is parsed, the machine is looked at, and a plan is made of both; all that cannot be is an error of one of these, before anything is
// touched. The plan is printed and then done. Arrays are made of partitions, so that each member can also have what firmware or a boot loader need; before the first
// partition of each disk there is room for it. mdadm makes the arrays; tables, superblocks and signatures are written and cleared here.
//
// A creation that was interrupted at any point, by a loss of power too, can be run again with the same or another configuration: a mark on each disk
// tells what was not finished. Nothing else that has partitions or belongs to an array is ever overwritten by a creation. A deletion takes away all arrays of the
// machine, like ironic-python-agent, except those on the skip list, those that share a disk with such a one, and firmware's own RAID.
package raid

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// Create is the step create_configuration: it makes the arrays of the node's target_raid_config. The result is that configuration as it was given, which the
// conductor keeps, or {} if no software RAID is in it.
func Create(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	return apply(ctx, h, j.Node, j.Node.TargetRAIDConfig, false)
}

// Apply is the step apply_configuration: Create for the configuration in the arguments, by default with Delete before it.
func Apply(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	args := struct {
		Config json.RawMessage `json:"raid_config"`
		Delete *bool           `json:"delete_existing"`
	}{}
	if err := parseArgs(j.Args, &args); err != nil {
		return nil, err
	}
	if len(args.Config) == 0 || string(args.Config) == "null" {
		return nil, fmt.Errorf("%w: raid_config is missing", steps.ErrArgs)
	}
	return apply(ctx, h, j.Node, args.Config, args.Delete == nil || *args.Delete)
}

// Validate is validate_configuration: it tells whether the configuration, in the argument raid_config or else the node's, wants software RAID, and fails if it cannot be.
func Validate(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	args := struct {
		Config json.RawMessage `json:"raid_config"`
	}{}
	if err := parseArgs(j.Args, &args); err != nil {
		return nil, err
	}
	if len(args.Config) == 0 {
		args.Config = j.Node.TargetRAIDConfig
	}
	r, err := newRequest(h, j.Node, args.Config)
	if err != nil || len(r.volumes) == 0 {
		return false, err
	}
	s, err := look(ctx, h)
	if err == nil {
		_, err = r.planAfterRemoval(s)
	}
	if err != nil {
		return nil, r.fail(err)
	}
	return true, nil
}

// Delete is the step delete_configuration: it takes away all arrays but those on the node's skip list.
func Delete(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	r, err := newRequest(h, j.Node, nil)
	if err != nil {
		return nil, err
	}
	if err := r.delete(ctx, h); err != nil {
		return nil, r.fail(err)
	}
	return nil, nil
}

// assembleTime is how long the start of arrays may keep others waiting. A disk that hangs cannot be interrupted: after this time it is left to itself.
const assembleTime = 30 * time.Second

// Assemble starts the arrays that the disks hold, if there are any. A disk that cannot be read, or an array that cannot be started, is in the error, and is no
// reason to stop.
func Assemble(ctx context.Context, h steps.Host) error {
	ctx, cancel := context.WithTimeoutCause(ctx, assembleTime, fmt.Errorf("a disk does not answer within %v", assembleTime))
	defer cancel()
	done := make(chan error, 1)
	go func() {
		s, err := look(ctx, h)
		done <- errors.Join(err, s.letSync(h), s.assemble(ctx, h))
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: start arrays: %w", steps.ErrRAID, err)
	}
	return nil
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

// request is what is wanted for one node.
type request struct {
	uuid    string
	volumes []volume
	skip    inspect.SkipList
	boot    room
}

func newRequest(h steps.Host, n steps.Node, config json.RawMessage) (request, error) {
	r := request{uuid: n.UUID}
	r.boot.mode, r.boot.label = steps.BootMode(h.Machine, n)
	var errs []error
	r.volumes, errs = parseConfig(config)
	var err error
	if r.skip, err = inspect.ParseSkipList(n.Properties["skip_block_devices"]); err != nil {
		errs = append(errs, fmt.Errorf("skip_block_devices: %w", err))
	}
	if len(errs) > 0 {
		return r, r.fail(join(errs))
	}
	return r, nil
}

// fail makes an error one of software RAID.
func (r request) fail(err error) error {
	return fmt.Errorf("%w of node %s: %w", steps.ErrRAID, r.uuid, err)
}

func apply(ctx context.Context, h steps.Host, n steps.Node, config json.RawMessage, remove bool) (any, error) {
	r, err := newRequest(h, n, config)
	if err != nil {
		return nil, err
	}
	if len(r.volumes) == 0 {
		h.Say("no software RAID is asked for")
		return map[string]any{}, nil
	}
	if err := r.create(ctx, h, remove); err != nil {
		return nil, r.fail(err)
	}
	return config, nil
}

// planAfterRemoval is the plan for the machine as it will be when arrays are deleted.
func (r request) planAfterRemoval(s state) (plan, error) {
	gone, err := planRemoval(s, r.skip)
	if err != nil {
		return plan{}, err
	}
	return planCreation(r.volumes, s.without(gone.disks), r.skip, r.boot)
}

func (r request) create(ctx context.Context, h steps.Host, remove bool) error {
	s, err := look(ctx, h)
	if err != nil {
		return err
	}
	if remove {
		if _, err := r.planAfterRemoval(s); err != nil {
			return err
		}
		if err := r.delete(ctx, h); err != nil {
			return err
		}
		if s, err = look(ctx, h); err != nil {
			return err
		}
	}
	p, err := planCreation(r.volumes, s, r.skip, r.boot)
	if err != nil {
		return err
	}
	if err := announce(ctx, h, p.String()); err != nil {
		return err
	}
	return p.apply(ctx, h)
}

// announce shows a plan, and asks whoever runs the step by hand.
func announce(ctx context.Context, h steps.Host, plan string) error {
	for line := range strings.Lines(plan) {
		h.Say("%s", strings.TrimRight(line, "\n"))
	}
	if h.Confirm == nil {
		return nil
	}
	return h.Confirm(ctx, plan)
}

func (r request) delete(ctx context.Context, h steps.Host) error {
	s, err := look(ctx, h)
	if err != nil {
		return err
	}
	gone, err := planRemoval(s, r.skip)
	if err != nil {
		return err
	}
	for _, a := range gone.gone {
		for _, m := range a.members {
			if s.disk(m.disk) == nil {
				return fmt.Errorf("%s has a member on %s, which is no disk that can be cleared", a.title(), m.disk)
			}
		}
	}
	if len(gone.disks)+len(gone.wipe) == 0 && len(gone.gone) == 0 {
		h.Say("no software RAID to delete")
		return nil
	}
	if err := announce(ctx, h, gone.String()); err != nil {
		return err
	}
	if err := gone.apply(ctx, h); err != nil {
		return err
	}
	// What is left is told from the machine, not from what was done.
	if s, err = look(ctx, h); err != nil {
		return err
	}
	if gone, err = planRemoval(s, r.skip); err != nil {
		return err
	}
	if len(gone.disks)+len(gone.gone) > 0 {
		return fmt.Errorf("after the deletion there is still something to delete: %s", gone)
	}
	return nil
}

// assemble has mdadm start what does not run.
func (s state) assemble(ctx context.Context, h steps.Host) error {
	modules := map[string]bool{}
	for _, a := range s.arrays {
		if a.device == "" {
			modules[module(a.level)] = true
		}
	}
	if len(modules) == 0 {
		return nil
	}
	var errs []error
	for name := range modules {
		if name != "" {
			errs = append(errs, h.LoadModules(ctx, name))
		}
	}
	args := []string{"--assemble", "--scan", "--homehost=" + homehost}
	if list := s.deviceList(); list != "" {
		dir, err := os.MkdirTemp("", "mdadm")
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		defer os.RemoveAll(dir) // a few bytes in memory
		config := filepath.Join(dir, "mdadm.conf")
		if err := os.WriteFile(config, []byte(list), 0o600); err != nil {
			return errors.Join(append(errs, err)...)
		}
		args = append(args, "--config="+config)
	}
	_, err := h.Tools.Run(ctx, tool.Mdadm, args...)
	return errors.Join(append(errs, err)...)
}

// deviceList is what mdadm is told to look at where a disk is reached on several paths, for it starts no array that has one member twice, or hangs, as mdadm would. "" if there is no such disk.
func (s state) deviceList() string {
	if !slices.ContainsFunc(s.disks, func(d disk) bool { return d.hangs || len(d.Paths) > 0 }) {
		return ""
	}
	var b strings.Builder
	b.WriteString("DEVICE containers\n")
	for _, d := range s.disks {
		if d.hangs {
			continue
		}
		fmt.Fprintf(&b, "DEVICE %s\n", d.Name)
		for _, p := range d.parts {
			fmt.Fprintf(&b, "DEVICE %s\n", member{d.Name, p.Number}.device())
		}
	}
	return b.String()
}

// module is the kernel module for a level, "" if there is none.
func module(level string) string {
	switch level {
	case "raid0", "raid1", "raid10", "linear":
		return level
	case "raid4", "raid5", "raid6":
		return "raid456"
	}
	return ""
}
