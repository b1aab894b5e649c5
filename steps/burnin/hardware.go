// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// hardware is what the machine is made of and does not lose when it is reset.
type hardware struct {
	System    inspect.System         `json:"system"`
	Modules   []inspect.MemoryModule `json:"modules"`
	Inventory inspect.Inventory      `json:"inventory"`
}

// lookTime is how long a look at all of the hardware may take: less than a watchdog that is fed before and after it.
const lookTime = 25 * time.Second

// look is the machine's hardware now. Disks that can be pulled out are none of it, unless they are burned in. What takes too long is in none of the lists, and whole is false.
func look(ctx context.Context, h steps.Host, burned []inspect.Disk) (w hardware, whole bool) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	all, err := h.Machine.Inventory(ctx)
	if err != nil {
		h.Log.Warn("not all of the machine could be looked at", "error", err) // what does not answer any more is lost
	}
	w = hardware{System: all.System, Inventory: all}
	w.Modules = slices.DeleteFunc(slices.Clone(all.Memory.Modules), func(m inspect.MemoryModule) bool { return m.Size == 0 && !m.Unknown })
	w.Inventory.Disks = slices.DeleteFunc(slices.Clone(all.Disks), func(d inspect.Disk) bool {
		named := slices.ContainsFunc(burned, func(b inspect.Disk) bool { return b.Name == d.Name })
		return d.Type != "disk" || (d.Removable || d.Tran == "usb") && !named
	})
	w.Inventory.Interfaces = slices.DeleteFunc(slices.Clone(all.Interfaces), func(n inspect.NIC) bool { return n.Kind != inspect.Physical })
	return w, ctx.Err() == nil
}

// kept is the hardware as a file keeps it, which is less: what was read from a file and what was seen now are compared by the same fields.
func (w hardware) kept() hardware {
	var k hardware
	b, err := json.Marshal(w)
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return w // cannot be: its fields are texts and numbers
	}
	k.Inventory.System, k.Inventory.Memory.Modules = k.System, k.Modules
	return k
}

// lost are the findings of a machine that was another one before: what it lost has failed, what came is told.
func lost(before, after hardware) []Part {
	var parts []Part
	for _, c := range inspect.Changes(before.kept().Inventory, after.kept().Inventory) {
		p := find(&parts, strings.TrimSpace(c.Part+" "+c.Where))
		fewer := false
		if was, err := strconv.Atoi(c.Old); err == nil {
			is, err := strconv.Atoi(c.New)
			fewer = c.Part == "cpu" && err == nil && is < was
		}
		switch {
		case c.What == "removed", c.What == "empty now":
			p.Verdict = Fail
			p.Reasons = append(p.Reasons, "lost since the burn-in began: "+c.Old)
		case c.What == "replaced":
			p.Verdict = Fail
			p.Reasons = append(p.Reasons, "lost since the burn-in began: "+c.Old+"; in its place is "+c.New)
		case c.What == "smaller", c.What == "size", fewer:
			p.Verdict = Fail
			p.Reasons = append(p.Reasons, fmt.Sprintf("%s: %s when the burn-in began, %s now", c.What, c.Old, c.New))
		case c.What == "added":
			p.Reasons = append(p.Reasons, "came since the burn-in began: "+c.New)
		default:
			p.Reasons = append(p.Reasons, fmt.Sprintf("%s was %s when the burn-in began, is %s", c.What, c.Old, c.New))
		}
	}
	return parts
}

// sameMachine is nil if two lists of hardware are of one machine.
func sameMachine(was, is hardware) error {
	differ := func(what, a, b string) error {
		if a != "" && b != "" && a != b {
			return fmt.Errorf("%w: it is of another machine, with the %s %q; this one has %q", ErrState, what, a, b)
		}
		return nil
	}
	err := differ("UUID", was.System.UUID, is.System.UUID)
	if err == nil {
		err = differ("serial number", was.Inventory.SystemVendor.SerialNumber, is.Inventory.SystemVendor.SerialNumber)
	}
	if err != nil {
		return err
	}
	// Not all makers give each machine a number of its own.
	marks := func(w hardware) (all []string) {
		for _, n := range w.Inventory.Interfaces {
			all = append(all, string(n.MACAddress))
		}
		for _, d := range w.Inventory.Disks {
			all = append(all, cmp.Or(string(d.Serial), string(d.WWN)))
		}
		for _, m := range w.Modules {
			all = append(all, m.Serial)
		}
		return slices.DeleteFunc(all, func(mark string) bool { return mark == "" })
	}
	before, now := marks(was), marks(is)
	if slices.ContainsFunc(before, func(mark string) bool { return slices.Contains(now, mark) }) || len(before) == 0 && was.System.UUID != "" {
		return nil
	}
	return fmt.Errorf("%w: it is of another machine: none of its disks, interfaces and memory modules with a number is in this one", ErrState)
}

// findDisk returns the disk that was known before, whatever the kernel calls it now. Where others had or have its numbers too, or none has any, its place decides; without one nothing is
// guessed, for the disk that is found is overwritten. before are all disks that were known, as a file keeps them.
func findDisk(was inspect.Disk, before, now []inspect.Disk) (d inspect.Disk, there bool, err error) {
	same := func(d inspect.Disk) bool {
		if d.Model != was.Model || d.Size != was.Size || d.Serial != was.Serial || d.WWN != was.WWN {
			return false
		}
		return was.Serial != "" || was.WWN != "" || was.ByPath == d.ByPath
	}
	var found, twins []inspect.Disk
	for _, d := range now {
		if d.Type == "disk" && same(d) {
			found = append(found, d)
		}
	}
	for _, d := range before {
		if same(d) {
			twins = append(twins, d)
		}
	}
	if len(found) == 0 {
		return d, false, nil
	}
	if max(len(found), len(twins)) > 1 {
		all := found
		found = slices.DeleteFunc(slices.Clone(all), func(d inspect.Disk) bool { return d.ByPath != was.ByPath })
		if was.ByPath == "" || len(found) > 1 {
			return d, false, fmt.Errorf("%w: which disk is %s, to be overwritten, cannot be told: %s has the same numbers", ErrState, title(was), title(all[0]))
		}
		if len(found) == 0 {
			return d, false, nil
		}
	}
	return found[0], true, nil
}

// vanished are the names of disks and interfaces of which a load has already said that they are gone.
func vanished(loads []Report) map[string]bool {
	names := map[string]bool{}
	for _, l := range loads {
		for _, p := range l.Parts {
			if slices.ContainsFunc(p.Reasons, func(reason string) bool { return strings.HasSuffix(reason, string(gone)) }) {
				name, _, _ := strings.Cut(p.Name, " ")
				names[name] = true
			}
		}
	}
	return names
}

// without leaves out disks and interfaces by their names.
func (w hardware) without(names map[string]bool) hardware {
	w.Inventory.Disks = slices.DeleteFunc(slices.Clone(w.Inventory.Disks), func(d inspect.Disk) bool { return names[d.Name] })
	w.Inventory.Interfaces = slices.DeleteFunc(slices.Clone(w.Inventory.Interfaces), func(n inspect.NIC) bool { return names[n.Name] })
	return w
}
