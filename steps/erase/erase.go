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
	// ReadPast is Read past all caches: of whole pages of 4096 bytes.
	ReadPast(path string) (io.ReaderAt, io.Closer, error)
	// Drive opens a disk for commands to its hardware.
	Drive(path string) (Drive, error)
	// Teardown takes down what uses disks, and calls before each change.
	Teardown(ctx context.Context, t holders.Tree, before func(holders.Change) error) error
	// MountPstore mounts the kernel's crash dumps.
	MountPstore(dir string) error
	// CleanBootEntries deletes the boot entries whose device path remove wants, and returns a line for each, and for each that has not the form of one.
	CleanBootEntries(efivarsDir string, remove func(path string) bool) (deleted, odd []string, err error)
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
	judged     bool         // what is on it may be erased
	close      func() error // of the drive that the ladder asked
	capability capability
	ladder     []rung
	beside     []*target     // other namespaces of the same NVMe drive
	turn       chan struct{} // holds one value while a target of the drive is worked on; nil for a drive of its own
	erased     steps.Disk    // when it is; guarded by turn
}

// job is one run of a step that erases.
type job struct {
	Eraser
	host    steps.Host
	options options
	keep    keep
	tree    holders.Tree // of all targets
	targets []*target
	dead    map[string][]string // paths to a disk that do not work, by the name of the one that does; they are only taken down
	unread  map[string]error    // disks whose place among arrays could not be read, by the kernel's name
	failed  []failure           // disks that are not touched, because what is on them is not known

	told  map[string]bool // lines that were said once
	mu    sync.Mutex      // guards what follows
	shown map[string]ShownDisk
}

// failure is a disk that is not erased, and why.
type failure struct {
	name string
	err  error
}

// fail has the step fail for one disk, which is not touched, while the others are erased.
func (j *job) fail(name string, err error) {
	if slices.ContainsFunc(j.failed, func(f failure) bool { return f.name == name }) {
		return
	}
	j.failed = append(j.failed, failure{name, err})
	j.host.Say("%s will NOT be erased: %v", name, err)
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
	if err := j.judge(ctx, true); err != nil {
		return nil, err
	}
	if err := j.confirm(ctx, func(*target) string { return "clear both ends, and those of its partitions" }); err != nil {
		return nil, err
	}
	return nil, j.each(ctx, "erase the metadata on", j.clearArray, func(ctx context.Context, t *target, disk steps.Disk) error {
		j.host.Say("%s: clearing metadata", t.disk.Name)
		return j.clear(ctx, t, disk)
	})
}

// prepare finds the disks, and what uses them. Nothing is touched.
func (e Eraser) prepare(ctx context.Context, h steps.Host, n steps.Node, skipReadOnly bool) (*job, error) {
	if err := e.check(h); err != nil {
		return nil, err
	}
	j := &job{Eraser: e, host: h, told: map[string]bool{}, unread: map[string]error{}, dead: map[string][]string{}}
	var err error
	if j.options, err = parseOptions(n.DriverInternalInfo); err != nil {
		return nil, err
	}
	j.options.skipReadOnly = j.options.skipReadOnly || skipReadOnly
	disks, unread := h.Machine.Disks(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if unread != nil {
		if len(disks) == 0 {
			return nil, fmt.Errorf("%w: which disks there are is not known: %w", steps.ErrErase, unread)
		}
		for line := range strings.Lines(unread.Error()) {
			h.Say("%s", strings.TrimSuffix(line, "\n"))
		}
	}
	skipList, err := inspect.ParseSkipList(n.Properties["skip_block_devices"])
	if err != nil {
		return nil, fmt.Errorf("skip_block_devices: %w", err)
	}
	use, skipped, err := inspect.SkipList{Hints: skipList.Hints}.Split(disks) // the names are in the superblocks
	if err != nil {
		return nil, err
	}
	others, skipped, err := j.apart(ctx, skipList, skipped)
	if err != nil {
		return nil, err
	}
	for _, d := range skipped {
		h.Say("%s is on the skip list: left alone", d.Name)
		for _, p := range d.Paths {
			h.Say("%s is the same disk as %s: left alone", p.Name, d.Name)
		}
	}
	use = append(use, others...)
	for i, d := range use {
		if use[i], err = j.alive(ctx, d); err != nil {
			return nil, err
		}
	}
	if use, err = j.drop(ctx, use); err != nil {
		return nil, err
	}
	j.keep = keep{record: softwareRAID(n.RAIDConfig) || softwareRAID(n.TargetRAIDConfig), names: skipList.Volumes}
	for _, d := range skipped {
		j.keep.devices = append(j.keep.devices, d.Name)
	}
	for attempt := 1; ; attempt++ {
		if err := j.look(ctx, use); err != nil {
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

// drop leaves out disks of which too little is known, read-only ones, and media.
func (j *job) drop(ctx context.Context, disks []inspect.Disk) (use []inspect.Disk, err error) {
	var readOnly []string
	for _, d := range disks {
		if len(d.Unread) > 0 {
			j.fail(d.Name, fmt.Errorf("what the kernel knows of it cannot be read: %s", strings.Join(d.Unread, ", ")))
			continue
		}
		if d.ReadOnly {
			if !j.options.skipReadOnly {
				readOnly = append(readOnly, d.Name)
			}
			j.host.Say("%s is read-only: left alone", d.Name)
			continue
		}
		if d.Tran == "usb" || d.Removable {
			why, err := j.medium(ctx, d)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				j.fail(d.Name, fmt.Errorf("it may be the medium that this machine was started from: %w", err))
				continue
			}
			if why != "" {
				j.host.Say("%s is a medium for this machine (%s): left alone", d.Name, why)
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
	for _, f := range j.failed {
		fmt.Fprintf(&b, "%s: NOT erased: %v\n", f.name, f.err)
	}
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
// before is called before each thing is taken down.
func (j *job) each(ctx context.Context, doing string, before func(context.Context, holders.Change) error, work func(context.Context, *target, steps.Disk) error) error {
	if _, err := within(ctx, downLimit, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, j.System.Teardown(ctx, j.tree, func(c holders.Change) error { return before(ctx, c) })
	}); err != nil {
		return fmt.Errorf("%w: %w", steps.ErrErase, err)
	}
	var failures []string
	var errs []error
	fail := func(name string, err error) {
		failures = append(failures, fmt.Sprintf("%q: %v", name, err))
		errs = append(errs, err)
	}
	opened := make([][]steps.Disk, len(j.targets)) // each by all its paths, so that nobody uses it by another
	defer func() {
		for _, d := range slices.Concat(opened...) {
			d.Close() // synced by who wrote to it
		}
	}()
	for i, t := range j.targets {
		for n, name := range t.disk.Names() {
			d, err := j.open(ctx, name)
			if err == nil {
				opened[i] = append(opened[i], d)
				if n == 0 {
					err = steps.SameDisk(ctx, j.host.Machine, t.disk, d.Size(), d.SectorSize())
				}
			}
			if err != nil {
				fail(name, err)
				break
			}
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
				if t.turn != nil {
					t.turn <- struct{}{}
					defer func() { <-t.turn }()
				}
				path := paths[identity(t.disk)]
				path <- struct{}{}
				defer func() { <-path }()
				turn <- struct{}{}
				defer func() { <-turn }()
				err := ctx.Err()
				if err != nil {
					err = context.Cause(ctx)
				} else {
					err = j.onAllPaths(ctx, t, opened[i], work)
				}
				if err != nil {
					j.host.Say("%s FAILED: %v", t.disk.Name, err)
					mu.Lock()
					defer mu.Unlock()
					fail(t.disk.Name, err)
				}
			})
		}
		all.Wait()
	}
	for _, f := range j.failed {
		fail(f.name, f.err)
	}
	if len(failures) == 0 {
		return nil
	}
	slices.Sort(failures)
	// The words are ironic-python-agent's.
	return &eraseError{fmt.Sprintf("Failed to %s the device(s): %s", doing, strings.Join(failures, "; ")), errs}
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
		t.closeDrive()
	}
}

func (t *target) closeDrive() {
	if t.close != nil {
		t.close() // only asked
	}
}
