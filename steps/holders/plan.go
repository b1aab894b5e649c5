// SPDX-License-Identifier: Apache-2.0

package holders

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrBusy is in the error when something is in use that is not taken down.
var ErrBusy = errors.New("in use")

// A Verb is what is done to take something down.
type Verb string

// The verbs.
const (
	SwapOff Verb = "stop swapping to" // swapoff(2)
	Unmount Verb = "unmount"          // umount(2)
	Stop    Verb = "stop"             // STOP_ARRAY, include/uapi/linux/raid/md_u.h
	Remove  Verb = "remove"           // DM_DEV_REMOVE, include/uapi/linux/dm-ioctl.h
	Detach  Verb = "detach"           // LOOP_CLR_FD, include/uapi/linux/loop.h
)

// A Change takes one thing down.
type Change struct {
	Verb Verb
	Path string // of the mount, file or device
	ID   string // of the device for Remove, "253:0"; of the mount for Unmount, since several may be at one place; the file for Detach
	what string
}

// String says it for people: stop /dev/md0 (raid1).
func (c Change) String() string { return string(c.Verb) + " " + c.what }

// Changes returns what has to be done, in order, so that nothing uses the disks; none if nothing does.
func (t Tree) Changes() []Change {
	var list []Change
	add := func(c Change) {
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	t.walk(func(d *Device, _ int) {}, func(d *Device, depth int) {
		if d.Swap {
			add(Change{SwapOff, d.Path(), "", d.Path()})
		}
		for _, f := range d.Files {
			if f.Loop == nil {
				add(Change{SwapOff, f.Path, "", f.Path})
			}
		}
		for _, m := range d.Mounts {
			add(Change{Unmount, m.Point, m.id, m.Point})
		}
		if depth == 0 {
			return
		}
		switch d.Kind {
		case "md":
			add(Change{Stop, d.Path(), "", d.String()})
		case "mapping":
			add(Change{Remove, d.Path(), d.Number, d.String()})
		case "loop":
			add(Change{Detach, d.Path(), d.What, d.String()})
		}
	})
	return list
}

// Refusal is nil if everything in the tree may be taken down. Else it is an [ErrBusy] that names all that stands in the way, and who.
func (t Tree) Refusal() error {
	_, err := t.refusal()
	return err
}

// MayPass tells whether nothing but programs that have something open stand in the way: a look a moment later may find them gone.
func (t Tree) MayPass() bool {
	open, _ := t.refusal()
	return open
}

const maxReasons = 16 // in one error

// refusal also tells whether there is a reason, and all reasons are open files. Where there are others, open files do not matter.
func (t Tree) refusal() (onlyOpen bool, err error) {
	var why, open []string
	add := func(to *[]string, format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !slices.Contains(*to, s) {
			*to = append(*to, s)
		}
	}
	in := map[string]bool{}
	t.walk(func(d *Device, _ int) { in[d.Name] = true }, func(*Device, int) {})
	t.walk(func(d *Device, depth int) {
		if len(d.Open) > 0 {
			add(&open, "%s: open in %s", d.Path(), strings.Join(shorten(d.Open), ", "))
		}
		for _, m := range d.Mounts {
			if m.Point == "/" {
				add(&why, "%s: the running system's root is on it", d.Path())
			}
		}
		if depth == 0 {
			return
		}
		if d.Kind == "unknown" {
			add(&why, "%s: a kind of device that is not taken down", d.Path())
		}
		for _, s := range d.Slaves {
			if !in[s] {
				add(&why, "%s: also on %s, which is not to be touched", d, s)
			}
		}
	}, func(*Device, int) {})
	if onlyOpen = len(why) == 0; onlyOpen {
		why = open
	}
	if len(why) == 0 {
		return false, nil
	}
	return onlyOpen, fmt.Errorf("%w: %s", ErrBusy, strings.Join(shorten(why), "; "))
}

// shorten keeps a list readable.
func shorten(list []string) []string {
	if more := len(list) - maxReasons; more > 0 {
		return append(slices.Clone(list[:maxReasons]), fmt.Sprintf("and %d more", more))
	}
	return list
}

// String draws the tree, a line for each device and use, each deeper by two blanks.
func (t Tree) String() string {
	var b strings.Builder
	t.walk(func(d *Device, depth int) {
		indent := strings.Repeat("  ", depth)
		fmt.Fprintf(&b, "%s%v\n", indent, d)
		indent += "  "
		if d.Swap {
			fmt.Fprintf(&b, "%sswapped to\n", indent)
		}
		for _, m := range d.Mounts {
			fmt.Fprintf(&b, "%smounted at %s\n", indent, m.Point)
		}
		for _, f := range d.Files {
			if f.Loop == nil {
				fmt.Fprintf(&b, "%sswapped to: %s\n", indent, f.Path)
			}
		}
		for _, p := range d.Open {
			fmt.Fprintf(&b, "%sopen in %s\n", indent, p)
		}
	}, func(*Device, int) {})
	return b.String()
}

// walk visits each device before and after what is above it. A device on several others is visited on each.
func (t Tree) walk(before, after func(d *Device, depth int)) {
	var visit func(d *Device, depth int)
	visit = func(d *Device, depth int) {
		before(d, depth)
		for _, a := range d.Above {
			visit(a, depth+1)
		}
		for _, f := range d.Files {
			if f.Loop != nil {
				visit(f.Loop, depth+1)
			}
		}
		after(d, depth)
	}
	for _, d := range t.Disks {
		visit(d, 0)
	}
}

// Teardown takes everything down. Nothing is begun if something must not be. Afterwards it looks again, and what is there anew is an error.
func (t Tree) Teardown(ctx context.Context) error { return t.TeardownBy(ctx, do) }

// TeardownAfter is Teardown with something to be done before each change, when all that is above is down.
func (t Tree) TeardownAfter(ctx context.Context, before func(Change) error) error {
	return t.TeardownBy(ctx, func(c Change) error {
		if err := before(c); err != nil {
			return err
		}
		return do(c)
	})
}

// TeardownBy is Teardown with another hand.
func (t Tree) TeardownBy(ctx context.Context, do func(Change) error) error {
	if err := t.Refusal(); err != nil {
		return err
	}
	for _, c := range t.Changes() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := do(c); err != nil {
			return fmt.Errorf("%v: %w", c, err)
		}
	}
	var disks [][]string
	for _, d := range t.Disks {
		paths := []string{d.Path()}
		for _, a := range d.Above {
			if a.Kind == "path" {
				paths = append(paths, a.Path())
			}
		}
		disks = append(disks, paths)
	}
	now, err := OfPaths(ctx, t.fsys, disks...)
	if err != nil {
		return err
	}
	if left := now.Changes(); len(left) > 0 {
		return fmt.Errorf("%w after everything was taken down: it would take to %v", ErrBusy, left)
	}
	return now.Refusal()
}
