// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrHints is in the error for hints that make no sense, by themselves or for the disks at hand.
var ErrHints = errors.New("invalid hints")

// ErrUnread is in the error when a disk that may be the right one cannot be judged, because a value of it could not be read.
var ErrUnread = errors.New("disk could not be read")

// ErrNoDisk is in the error when no disk fits.
var ErrNoDisk = errors.New("no suitable disk")

// maxHints bounds the JSON text of hints in bytes.
const maxHints = 64 << 10

// Hints say which disk is meant, as in the root_device property of Ironic's nodes (ironic_python_agent/device_hints.py).
// A disk must fit them all. The zero Hints fit every disk.
type Hints struct {
	conditions []condition // in the order of hintNames
}

// hintNames are the hints that exist, in the order in which they are tried.
func hintNames() []string {
	return []string{"size", "model", "vendor", "serial", "wwn", "wwn_with_extension", "wwn_vendor_extension",
		"rotational", "name", "hctl", "by_path", "tran"}
}

// ParseHints reads a JSON object of hints. No object, null and {} give the zero Hints. All errors are [ErrHints].
func ParseHints(raw json.RawMessage) (Hints, error) {
	if len(raw) > maxHints {
		return Hints{}, fmt.Errorf("%w: %d bytes are more than %d", ErrHints, len(raw), maxHints)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return Hints{}, nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return Hints{}, fmt.Errorf("%w: %w", ErrHints, err)
	}
	for name := range object {
		if !slices.Contains(hintNames(), name) {
			return Hints{}, fmt.Errorf("%w: hint %q is not one of %s", ErrHints, name, strings.Join(hintNames(), ", "))
		}
	}
	var h Hints
	for _, name := range hintNames() {
		value, found := object[name]
		if !found {
			continue
		}
		c, err := parseCondition(name, value)
		if err != nil {
			return Hints{}, fmt.Errorf("%w: hint %s: %w", ErrHints, name, err)
		}
		h.conditions = append(h.conditions, c)
	}
	return h, nil
}

// Empty tells whether there are no hints.
func (h Hints) Empty() bool { return len(h.conditions) == 0 }

// String lists the hints for people: size ">= 60", model "<in> samsung".
func (h Hints) String() string {
	if h.Empty() {
		return "no hints"
	}
	list := make([]string, len(h.conditions))
	for i, c := range h.conditions {
		list[i] = fmt.Sprintf("%s %q", c.hint, c.wanted)
	}
	return strings.Join(list, ", ")
}

// Choice is the disk to write to.
type Choice struct {
	Disk   Disk
	Others []Disk // further disks that would have fitted, in the order of the list
}

// Choose returns the first disk of the list that fits and can be written to. Without hints it is [DefaultDisk]. A USB disk, or one that can be taken out, has to be named
// by a hint: size and rotational alone do not name one. The error is [ErrNoDisk] with the reason for each disk, or, for a disk before the first that fits,
// [ErrHints] when it has a value that cannot be compared, [ErrUnread] when it has one that could not be read, unless another hint drops it, or the hints
// say who the disk is, so that there cannot be two.
func (h Hints) Choose(disks []Disk) (Choice, error) {
	if h.Empty() {
		return DefaultDisk(disks)
	}
	var choice Choice
	var unread error // of a disk before the one found
	why := make([]Why, 0, len(disks))
	found := false
	for _, d := range disks {
		w, err := h.judge(d)
		why = append(why, w)
		switch {
		case errors.Is(err, ErrUnread):
			if unread == nil && !found {
				unread = judgeError(d, err)
			}
		case err != nil && !found:
			return Choice{}, judgeError(d, err)
		case !w.Kept:
		case !found:
			choice.Disk, found = d, true
		default:
			choice.Others = append(choice.Others, d)
		}
	}
	switch {
	case unread != nil && !(found && h.identify()):
		return Choice{}, unread
	case !found:
		return Choice{}, noDisk(h.String(), why)
	}
	return choice, nil
}

// identify tells whether the hints fit one disk at most, whatever else there is.
func (h Hints) identify() bool {
	return slices.ContainsFunc(h.conditions, func(c condition) bool {
		return slices.Contains([]string{"serial", "wwn", "wwn_with_extension", "name", "hctl", "by_path"}, c.hint) && c.operator == "s=="
	})
}

func judgeError(d Disk, err error) error {
	if errors.Is(err, ErrUnread) {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrHints, d.Name, err)
}

// Matching returns all disks that fit, in their order, writable or not; it is for lists of disks to be left alone. Without hints it is none.
// The error is as for [Hints.Choose], whichever disk has the value.
func (h Hints) Matching(disks []Disk) ([]Disk, error) {
	if h.Empty() {
		return nil, nil
	}
	var fitting []Disk
	for _, d := range disks {
		w, err := h.explain(d)
		if err != nil {
			return nil, judgeError(d, err)
		}
		if w.Kept {
			fitting = append(fitting, d)
		}
	}
	return fitting, nil
}

// Why says what the hints make of one disk.
type Why struct {
	Disk   Disk
	Kept   bool
	Hint   string // that dropped it, the first in the order of trying
	Wanted string // by that hint
	Had    string // value of the disk, as people write it; of several the list
	Not    string // why it is not taken although the hints fit: "is read-only"
}

// String says it in one line.
func (w Why) String() string {
	switch {
	case w.Kept:
		return w.Disk.Name + " fits"
	case w.Not != "":
		return w.Disk.Name + " " + w.Not
	case w.Had == "":
		return fmt.Sprintf("%s has no %s, wanted %q", w.Disk.Name, w.Hint, w.Wanted)
	}
	return fmt.Sprintf("%s has %s %s, wanted %q", w.Disk.Name, w.Hint, w.Had, w.Wanted)
}

// Explain says for each disk, in the order of the list, whether it fits and if not, why not.
func (h Hints) Explain(disks []Disk) []Why {
	list := make([]Why, len(disks))
	for i, d := range disks {
		w, err := h.judge(d)
		if err != nil {
			w.Had += " (" + err.Error() + ")"
		}
		if h.Empty() && w.Kept && d.Size < minRootDisk { // as [DefaultDisk] has it
			w = Why{Disk: d, Hint: "size", Wanted: ">= 4 GiB", Had: humanSize(d.Size)}
		}
		list[i] = w
	}
	return list
}

// judge is explain for a disk that is to be written to.
func (h Hints) judge(d Disk) (Why, error) {
	why, err := h.explain(d)
	if why.Kept {
		why.Not, err = refuse(d, h.name())
		why.Kept = why.Not == "" && err == nil
	}
	return why, err
}

// refuse says why a disk is not written to, whatever its size. named tells whether somebody has named it.
func refuse(d Disk, named bool) (not string, err error) {
	unread := func(attributes ...string) error {
		for _, a := range attributes {
			if slices.Contains(d.Unread, a) {
				return fmt.Errorf("%w: %s", ErrUnread, a)
			}
		}
		return nil
	}
	if err := unread("type", "read-only"); err != nil {
		return "", err
	}
	if d.ReadOnly {
		return "is read-only", nil
	}
	if named {
		return "", nil
	}
	const check = "; a hint has to name it, by serial, wwn, name or the like"
	switch err := unread("removable", "tran"); {
	case err != nil:
		return "", err
	case d.Tran == "usb":
		return "is a USB disk" + check, nil
	case d.Removable:
		return "is removable" + check, nil
	}
	return "", nil
}

// name tells whether a hint is about who a disk is or where, and not only about what kind.
func (h Hints) name() bool {
	return slices.ContainsFunc(h.conditions, func(c condition) bool { return c.hint != "size" && c.hint != "rotational" })
}

// explain tries all hints, so that their order does not matter: what cannot be compared is an error only if no other hint
// drops the disk.
func (h Hints) explain(d Disk) (Why, error) {
	why := Why{Disk: d, Kept: true}
	var wrong error
	for _, c := range h.conditions {
		fits, err := c.fits(d)
		if fits || err != nil && wrong != nil {
			continue
		}
		why = Why{Disk: d, Hint: c.hint, Wanted: c.wanted, Had: c.had(d)}
		if err == nil {
			return why, nil
		}
		wrong = err
	}
	return why, wrong
}

// minRootDisk is the least size of a disk that is chosen without hints (ironic_python_agent/utils.py, guess_root_disk).
const minRootDisk = 4 << 30

// DefaultDisk is the choice without hints: the smallest disk of at least 4 GiB, by name among equals as text, so that
// /dev/sdaa is before /dev/sdb as Ironic has it. Disks that are read-only, removable or on USB are left out. The error is [ErrNoDisk] and lists
// the disks with their sizes, or [ErrUnread] for a disk of which that could not be read: it might be the smallest.
func DefaultDisk(disks []Disk) (Choice, error) {
	sorted := slices.SortedStableFunc(slices.Values(disks), func(a, b Disk) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), strings.Compare(a.Name, b.Name))
	})
	var fitting []Disk
	var why []Why
	for _, d := range sorted {
		if slices.Contains(d.Unread, "size") {
			return Choice{}, judgeError(d, fmt.Errorf("%w: size", ErrUnread))
		}
		w := Why{Disk: d, Hint: "size", Wanted: ">= 4 GiB", Had: humanSize(d.Size)}
		if d.Size >= minRootDisk {
			var err error
			if w.Not, err = refuse(d, false); err != nil {
				return Choice{}, judgeError(d, err)
			}
			if w.Not == "" {
				fitting = append(fitting, d)
				continue
			}
		}
		why = append(why, w)
	}
	if len(fitting) == 0 {
		return Choice{}, noDisk("at least 4 GiB, as there are no hints", why)
	}
	return Choice{Disk: fitting[0], Others: fitting[1:]}, nil
}

// noDisk makes the error for a search that found nothing. It stays readable with hundreds of disks.
func noDisk(wanted string, why []Why) error {
	const most = 16
	if len(why) == 0 {
		return fmt.Errorf("%w: wanted %s: the machine has no disks", ErrNoDisk, wanted)
	}
	reasons := make([]string, 0, most+1)
	for _, w := range why[:min(len(why), most)] {
		reasons = append(reasons, w.String())
	}
	if len(why) > most {
		reasons = append(reasons, fmt.Sprintf("and %d disks more", len(why)-most))
	}
	return fmt.Errorf("%w: wanted %s: %s", ErrNoDisk, wanted, strings.Join(reasons, "; "))
}

// SkipList says which disks are left alone, as in the skip_block_devices property of Ironic's nodes.
type SkipList struct {
	Hints   []Hints
	Volumes []string // names of software RAID arrays
}

// ParseSkipList reads the JSON array. Null and nothing give an empty list. All errors are [ErrHints]: a list that is not
// understood must not be taken for one that skips nothing.
func ParseSkipList(raw json.RawMessage) (SkipList, error) {
	var list SkipList
	if len(raw) > maxHints {
		return list, fmt.Errorf("%w: skip list of %d bytes is longer than %d", ErrHints, len(raw), maxHints)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return list, nil
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(raw, &entries); err != nil {
		return list, fmt.Errorf("%w: skip list: %w", ErrHints, err)
	}
	for i, entry := range entries {
		var volume struct {
			Name *string `json:"volume_name"`
		}
		if err := json.Unmarshal(entry, &volume); err != nil {
			return SkipList{}, fmt.Errorf("%w: skip list, entry %d: %w", ErrHints, i+1, err)
		}
		if volume.Name != nil {
			list.Volumes = append(list.Volumes, *volume.Name)
			continue
		}
		h, err := ParseHints(entry)
		if err != nil {
			return SkipList{}, fmt.Errorf("skip list, entry %d: %w", i+1, err)
		}
		if h.Empty() {
			return SkipList{}, fmt.Errorf("%w: skip list, entry %d has no hints", ErrHints, i+1)
		}
		list.Hints = append(list.Hints, h)
	}
	return list, nil
}

// Split divides disks into those to use and those to leave alone, each in their order. The kernel does not tell the names
// of software RAID arrays, so that all arrays are left alone when the list names any.
func (s SkipList) Split(disks []Disk) (use, skip []Disk, err error) {
	skipped := make(map[string]bool)
	for _, h := range s.Hints {
		matching, err := h.Matching(disks)
		if err != nil {
			return nil, nil, fmt.Errorf("skip list: %w", err)
		}
		for _, d := range matching {
			skipped[d.Name] = true
		}
	}
	for _, d := range disks {
		if skipped[d.Name] || len(s.Volumes) > 0 && strings.Contains(d.Type, "raid") {
			skip = append(skip, d)
		} else {
			use = append(use, d)
		}
	}
	return use, skip, nil
}

// Keeps tells whether the list leaves alone one path of a disk, seen as a disk of its own. doubtful tells that it does so by no more than what drives are told apart by, a serial number or WWN, and not by
// its name or place: two drives that share those cannot be told apart by it.
func (s SkipList) Keeps(path Disk) (kept, doubtful bool, err error) {
	path.Paths = nil
	for _, h := range s.Hints {
		why, err := h.explain(path)
		if err != nil {
			return false, false, fmt.Errorf("skip list: %w", judgeError(path, err))
		}
		if !why.Kept {
			continue
		}
		kept = true
		if h.on("name", "hctl", "by_path") {
			return true, false, nil
		}
		doubtful = doubtful || h.on("serial", "wwn", "wwn_with_extension")
	}
	return kept, doubtful, nil
}

// on tells whether one of the hints is among these.
func (h Hints) on(names ...string) bool {
	return slices.ContainsFunc(h.conditions, func(c condition) bool { return slices.Contains(names, c.hint) })
}
