// SPDX-License-Identifier: Apache-2.0

// Package erase makes what was on a machine's disks unreadable, and proves it.
//
// [Eraser.Metadata] clears what makes disks be recognised: partition tables, file systems, members of software RAID and LVM. [Eraser.Devices] erases everything, by the best
// that each disk can do. [Eraser.Express] is in between. Before one disk is touched, all are looked at: those on the skip list, read-only ones and the media that
// the machine was booted or configured from are left alone, file systems of clusters are guarded, what uses the disks is found and taken down. A step
// succeeds only if every disk was done, and read back; its error names each that was not.
//
// [Eraser.Pstore] and [Eraser.NVRAM] clear what former users left in the firmware's memory.
package erase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/holders"
)

// System is what erasing needs of the machine beyond [steps.Host]. [Local] has the real one.
type System interface {
	// Read opens a block device for reading, whoever uses it.
	Read(path string) (io.ReaderAt, io.Closer, error)
	// Drive opens a disk for commands to its hardware.
	Drive(path string) (Drive, error)
	// Teardown takes down what uses disks.
	Teardown(ctx context.Context, t holders.Tree) error
	// MountPstore mounts the kernel's crash dumps.
	MountPstore(dir string) error
	// CleanBootEntries deletes the boot entries whose device path remove wants, and returns a line for each.
	CleanBootEntries(efivarsDir string, remove func(path string) bool) (deleted []string, err error)
}

// An Eraser has the steps.
type Eraser struct{ System System }

// check keeps the machine's own hardware out of reach for a host that shows another machine, as tests do.
func (e Eraser) check(h steps.Host) error {
	if _, real := e.System.(local); real && !h.Local {
		return fmt.Errorf("%w: this is not the machine on which the program runs", steps.ErrErase)
	}
	return nil
}

// Programs look at disks for a moment, so they are waited for as ironic-python-agent does (check_device_max_retries, check_device_interval).
const (
	openAttempts = 20
	openWait     = time.Second
)

// target is one disk that is to be erased.
type target struct {
	disk       inspect.Disk
	tree       *holders.Device
	close      func() error // of the drive that the ladder asked
	capability capability
	ladder     []rung
}

// job is one run of a step that erases.
type job struct {
	Eraser
	host    steps.Host
	options options
	tree    holders.Tree // of all targets
	targets []*target

	told  map[string]bool // lines that were said once
	mu    sync.Mutex      // guards what follows
	shown map[string]ShownDisk
}

// once says a line, unless it has been said before.
func (j *job) once(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); !j.told[line] {
		j.told[line] = true
		j.host.Say("%s", line)
	}
}

// Metadata clears what makes disks be recognised.
func (e Eraser) Metadata(ctx context.Context, h steps.Host, s steps.Job) (any, error) {
	j, err := e.prepare(ctx, h, s.Node, true)
	if err != nil {
		return nil, err
	}
	if err := j.guard(ctx); err != nil {
		return nil, err
	}
	if err := j.confirm(ctx, func(*target) string { return "clear both ends, and those of its partitions" }); err != nil {
		return nil, err
	}
	return nil, j.each(ctx, "erase the metadata on", func(ctx context.Context, t *target, disk steps.Disk) error {
		j.host.Say("%s: clearing metadata", t.disk.Name)
		return j.clear(ctx, t, disk)
	})
}

// prepare finds the disks, and what uses them. Nothing is touched.
func (e Eraser) prepare(ctx context.Context, h steps.Host, n steps.Node, skipReadOnly bool) (*job, error) {
	if err := e.check(h); err != nil {
		return nil, err
	}
	j := &job{Eraser: e, host: h, told: map[string]bool{}}
	var err error
	if j.options, err = parseOptions(n.DriverInternalInfo); err != nil {
		return nil, err
	}
	j.options.skipReadOnly = j.options.skipReadOnly || skipReadOnly
	disks, err := h.Machine.Disks(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: which disks there are is not known: %w", steps.ErrErase, err)
	}
	skipList, err := inspect.ParseSkipList(n.Properties["skip_block_devices"])
	if err != nil {
		return nil, fmt.Errorf("skip_block_devices: %w", err)
	}
	use, skipped, err := skipList.Split(disks)
	if err != nil {
		return nil, err
	}
	for _, d := range skipped {
		h.Say("%s is on the skip list: left alone", d.Name)
	}
	if use, err = j.drop(ctx, use); err != nil {
		return nil, err
	}
	keepArrays := len(skipList.Volumes) > 0 || softwareRAID(n.RAIDConfig) || softwareRAID(n.TargetRAIDConfig)
	for attempt := 1; ; attempt++ {
		if err := j.look(ctx, use, keepArrays); err != nil {
			return nil, err
		}
		if !j.tree.MayPass() || attempt >= openAttempts {
			break
		}
		if attempt == 1 {
			h.Say("waiting: %v", j.tree.Refusal())
		}
		select {
		case <-time.After(openWait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err := j.tree.Refusal(); err != nil {
		return nil, fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	return j, nil
}

// drop leaves out read-only disks and media.
func (j *job) drop(ctx context.Context, disks []inspect.Disk) (use []inspect.Disk, err error) {
	var readOnly []string
	for _, d := range disks {
		if d.ReadOnly {
			if !j.options.skipReadOnly {
				readOnly = append(readOnly, d.Name)
			}
			j.host.Say("%s is read-only: left alone", d.Name)
			continue
		}
		if d.Tran == "usb" || d.Removable {
			label, err := j.mediaLabel(ctx, d)
			if err != nil {
				return nil, fmt.Errorf("%w: %s may be the medium that this machine was started from: %w", steps.ErrErase, d.Name, err)
			}
			if label != "" {
				j.host.Say("%s is a medium for this machine (label %s): left alone", d.Name, label)
				continue
			}
		}
		use = append(use, d)
	}
	if len(readOnly) > 0 {
		return nil, fmt.Errorf("%w: %s: read-only; agent_erase_skip_read_only leaves such disks out", steps.ErrErase, strings.Join(readOnly, ", "))
	}
	return use, nil
}

// look finds what is built on the disks, and makes the targets. An array of software RAID that the node's record has, or may have, is erased like a disk and its
// members are left alone, so that the next user finds it; any other array is nobody's, and goes with the rest of its members.
func (j *job) look(ctx context.Context, disks []inspect.Disk, keepArrays bool) error {
	names := make([]string, len(disks))
	for i, d := range disks {
		names[i] = d.Name
	}
	all, err := holders.Of(ctx, j.host.Machine.FS, names...)
	if err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	isArray := func(d *holders.Device) bool { return d.Kind == "md" }
	j.targets, names = nil, nil
	for i, d := range all.Disks {
		member := slices.ContainsFunc(descendants(d)[1:], isArray)
		switch {
		case isArray(d) && !keepArrays:
			// It is taken down, if its members are targets. If they are not, they were left alone on purpose, and so is it.
			if !slices.ContainsFunc(all.Disks, func(m *holders.Device) bool { return m != d && slices.Contains(descendants(m), d) }) {
				j.once("%v has none of its members among the disks to erase: left alone", d)
			}
			continue
		case isArray(d):
			if out := outside(d, all.Disks); out != "" {
				j.once("%v has a member on %s, which is left alone: so is it", d, out)
				continue
			}
		case keepArrays && !member:
			if member, err = j.hasMember(d); err != nil {
				return fmt.Errorf("%w: %w", steps.ErrErase, err)
			}
		}
		if keepArrays && member {
			j.once("%s is a member of software RAID, which stays: the array is erased in its place", d.Path())
			continue
		}
		j.targets = append(j.targets, &target{disk: disks[i]})
		names = append(names, disks[i].Name)
	}
	if j.tree, err = holders.Of(ctx, j.host.Machine.FS, names...); err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	for i, d := range j.tree.Disks {
		j.targets[i].tree = d
	}
	return nil
}

// outside returns a member of an array that is on none of the disks.
func outside(array *holders.Device, disks []*holders.Device) string {
	for _, s := range array.Slaves {
		if !slices.ContainsFunc(disks, func(d *holders.Device) bool {
			return d.Name == s || slices.ContainsFunc(d.Partitions(), func(p *holders.Device) bool { return p.Name == s })
		}) {
			return s
		}
	}
	return ""
}

// descendants are the device and all that is above it.
func descendants(d *holders.Device) []*holders.Device {
	list := []*holders.Device{d}
	for _, a := range d.Above {
		for _, one := range descendants(a) {
			if !slices.Contains(list, one) {
				list = append(list, one)
			}
		}
	}
	return list
}

// confirm prints what is about to be done, and asks if there is somebody to be asked.
func (j *job) confirm(ctx context.Context, how func(*target) string) error {
	if len(j.targets) == 0 {
		j.host.Say("no disk is to be erased")
		return nil
	}
	var b strings.Builder
	for _, t := range j.targets {
		fmt.Fprintf(&b, "%v: %s\n", t.disk, how(t))
	}
	changes := j.tree.Changes()
	if len(changes) > 0 {
		fmt.Fprintf(&b, "what is on them now:\n")
		for line := range strings.Lines(j.tree.String()) {
			fmt.Fprintf(&b, "  %s", line)
		}
		fmt.Fprintf(&b, "before that:\n")
		for _, c := range changes {
			fmt.Fprintf(&b, "  %v\n", c)
		}
	}
	for line := range strings.Lines(b.String()) {
		j.host.Say("%s", strings.TrimSuffix(line, "\n"))
	}
	if j.host.Confirm != nil {
		return j.host.Confirm(ctx, b.String())
	}
	return nil
}

// each takes down what uses the disks, opens all of them, and then works on each, side by side. If one cannot be opened, none is worked on.
func (j *job) each(ctx context.Context, doing string, work func(context.Context, *target, steps.Disk) error) error {
	if err := j.Eraser.System.Teardown(ctx, j.tree); err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	var failures []string
	var errs []error
	fail := func(t *target, err error) {
		failures = append(failures, fmt.Sprintf("%q: %v", t.disk.Name, err))
		errs = append(errs, err)
	}
	opened := make([]steps.Disk, len(j.targets))
	defer func() {
		for _, d := range opened {
			if d != nil {
				d.Close() // synced by who wrote to it
			}
		}
	}()
	for i, t := range j.targets {
		d, err := j.host.Open(t.disk.Name)
		if err == nil {
			opened[i] = d
			err = steps.SameDisk(ctx, j.host.Machine, t.disk, d.Size(), d.SectorSize())
		}
		if err != nil {
			fail(t, err)
		}
	}
	if len(failures) == 0 {
		var mu sync.Mutex
		var all sync.WaitGroup
		turn := make(chan struct{}, j.options.concurrency)
		paths := map[string]chan struct{}{} // what one path to a disk makes of it would be a lie for another: one after the other
		for _, t := range j.targets {
			paths[identity(t.disk)] = make(chan struct{}, 1)
		}
		for i, t := range j.targets {
			all.Go(func() {
				path := paths[identity(t.disk)]
				path <- struct{}{}
				defer func() { <-path }()
				turn <- struct{}{}
				defer func() { <-turn }()
				err := ctx.Err()
				if err != nil {
					err = context.Cause(ctx)
				} else {
					err = work(ctx, t, opened[i])
				}
				if err != nil {
					j.host.Say("%s FAILED: %v", t.disk.Name, err)
					mu.Lock()
					defer mu.Unlock()
					fail(t, err)
				}
			})
		}
		all.Wait()
	}
	if len(failures) == 0 {
		return nil
	}
	slices.Sort(failures)
	// The words are ironic-python-agent's.
	return &eraseError{fmt.Sprintf("Failed to %s the device(s): %s", doing, strings.Join(failures, "; ")), errs}
}

// identity is the same for one disk that is there several times, by several paths, and may be for others.
func identity(d inspect.Disk) string {
	switch {
	case d.WWN != "":
		return string(d.WWN)
	case d.Serial != "":
		return string(d.Model) + " " + string(d.Serial)
	}
	return d.Name
}

// eraseError has a text that Ironic's users know, and is [steps.ErrErase].
type eraseError struct {
	text   string
	causes []error
}

func (e *eraseError) Error() string { return e.text }

func (e *eraseError) Is(err error) bool {
	return err == steps.ErrErase || slices.ContainsFunc(e.causes, func(c error) bool { return errors.Is(c, err) })
}

func (j *job) closeDrives() {
	for _, t := range j.targets {
		if t.close != nil {
			t.close() // only asked
		}
	}
}
