// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/image/volume"
)

const (
	maxUSB       = 4 << 30 // bytes; a larger USB disk is a disk (IPA: ironic_python_agent/utils.py)
	maxTries     = 3       // of reading a medium that has read errors
	retryDelay   = time.Second
	deviceLimit  = 60 * time.Second // for one device; an old floppy drive reads 30 KiB a second
	maxDevices   = 64               // candidates looked at
	virtualMedia = "virtual media"  // in the model of a device that a BMC shows (IPA: the same)
)

// Finder finds configuration media. Find is it on the machine itself.
type Finder struct {
	// FS is "/" of the machine; only sys/class/block is read.
	FS fs.FS
	// Open opens a device, such as "/dev/fd0", for reading. A read of it may block for ever: then it is given up.
	Open func(device string) (Device, error)
	// Log takes lines for people about retries; nil for none.
	Log func(string)
}

// Device is an open block device.
type Device interface {
	io.ReaderAt
	io.Closer
}

// candidate is a device that may hold a configuration medium.
type candidate struct {
	device, kind string
	model        string
}

// Find looks at every floppy, CD and small USB disk once and returns the configuration media, read: floppies first, then
// USB disks, then CDs, each by name. A merge in this order lets the first win. seen has a line for every block device
// that was looked at, also for those that are not taken.
//
// A CD, a floppy, or a USB disk of less than 4 GiB is taken if it has one of the three labels, or if its model contains
// "virtual media" and it has a parameters.txt, and has at least one file that the agent knows. A partition is taken only
// with a label, and only of such a USB disk.
//
// A device that cannot be read does not end the search: it is in seen, and err joins all of them. So media may be of use
// although there is an error.
func (f Finder) Find(ctx context.Context) (media []Medium, seen []Seen, err error) {
	candidates, seen, err := f.candidates()
	if err != nil {
		return nil, seen, err
	}
	var errs []error
	for _, c := range candidates {
		if err := ctx.Err(); err != nil {
			return nil, seen, fmt.Errorf("find configuration media: %w", context.Cause(ctx))
		}
		m, s := f.look(ctx, c)
		seen = append(seen, s)
		if s.Err != nil {
			errs = append(errs, fmt.Errorf("configuration medium %s: %w", c.device, s.Err))
		}
		if s.Taken {
			media = append(media, m)
		}
	}
	order(media)
	slices.SortStableFunc(seen, func(a, b Seen) int { return strings.Compare(a.Device, b.Device) })
	return media, seen, errors.Join(errs...)
}

// candidates sorts the block devices into those to look at and those that must not configure the agent.
func (f Finder) candidates() (list []candidate, seen []Seen, err error) {
	entries, err := fs.ReadDir(f.FS, "sys/class/block")
	if err != nil {
		return nil, nil, fmt.Errorf("find configuration media: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		device := "/dev/" + strings.ReplaceAll(name, "!", "/")
		kind, reason := f.classify(name)
		switch {
		case kind == "" && reason == "":
			continue
		case kind != "" && len(list) == maxDevices:
			reason = "not looked at: too many devices"
			fallthrough
		case kind == "":
			seen = append(seen, Seen{Device: device, Reason: reason})
		default:
			list = append(list, candidate{device: device, kind: kind, model: f.read(name, "device/model")})
		}
	}
	return list, seen, nil
}

// classify tells what kind of medium a block device may be, or why it may be none; neither for what is not a device of
// its own (loop, ram, md, dm and the like).
func (f Finder) classify(name string) (kind, reason string) {
	switch {
	case numbered(name, "fd"):
		return Floppy, ""
	case numbered(name, "sr"):
		return CD, ""
	}
	target, err := fs.ReadLink(f.FS, "sys/class/block/"+name)
	if err != nil || !strings.Contains(target, "/devices/") || strings.Contains(target, "/virtual/") {
		return "", ""
	}
	// A partition's link goes through its disk: ../../devices/pci0000:00/.../block/sdb/sdb1
	disk, partition := name, f.exists(name, "partition")
	if partition {
		disk = path.Base(path.Dir(target))
	}
	if !usbPath(target) {
		if partition {
			return "", "" // its disk has a line already
		}
		return "", "not looked at: it is an internal disk"
	}
	sectors, err := strconv.ParseInt(f.read(disk, "size"), 10, 64)
	switch {
	case err != nil || sectors < 0:
		return "", "not looked at: its size is not known"
	case sectors == 0:
		return "", "no medium"
	case sectors >= maxUSB/512: // sysfs counts in 512 bytes, whatever the sector size
		return "", "not looked at: it is a USB disk of 4 GiB or more"
	}
	return USB, ""
}

// usbPath says whether a device hangs on USB: its way through sysfs has an element such as "usb1".
func usbPath(target string) bool {
	return slices.ContainsFunc(strings.Split(target, "/"), func(element string) bool { return numbered(element, "usb") })
}

// numbered says whether name is prefix and a number.
func numbered(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && rest != "" && strings.Trim(rest, "0123456789") == ""
}

func (f Finder) exists(name, file string) bool {
	_, err := fs.Stat(f.FS, "sys/class/block/"+name+"/"+file)
	return err == nil
}

// read reads a small file of a block device; "" if it is not there.
func (f Finder) read(name, file string) string {
	b, err := fs.ReadFile(f.FS, "sys/class/block/"+name+"/"+file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// look reads one candidate, again if it has read errors, within the limit of time for one device.
func (f Finder) look(ctx context.Context, c candidate) (Medium, Seen) {
	ctx, cancel := context.WithTimeoutCause(ctx, deviceLimit, fmt.Errorf("no answer within %v", deviceLimit))
	defer cancel()
	type result struct {
		medium Medium
		seen   Seen
	}
	// Reading a device cannot be interrupted. If it hangs, the goroutine stays until the device answers; it holds the
	// device open and little else.
	done := make(chan result, 1)
	go func() {
		for try := 1; ; try++ {
			m, s := f.readMedium(ctx, c)
			if !errors.Is(s.Err, syscall.EIO) || try == maxTries || ctx.Err() != nil {
				done <- result{m, s}
				return
			}
			f.log(fmt.Sprintf("%s: %v, trying again", c.device, s.Err))
			select {
			case <-time.After(retryDelay):
			case <-ctx.Done():
			}
		}
	}()
	select {
	case r := <-done:
		return r.medium, r.seen
	case <-ctx.Done():
		err := context.Cause(ctx)
		return Medium{}, Seen{Device: c.device, Reason: err.Error(), Err: err}
	}
}

func (f Finder) log(line string) {
	if f.Log != nil {
		f.Log(line)
	}
}

// readMedium opens a candidate, decides by its label and reads its files.
func (f Finder) readMedium(ctx context.Context, c candidate) (Medium, Seen) {
	seen := Seen{Device: c.device}
	// broken is for what cannot be read but should: everything except a drive without a medium.
	broken := func(err error) (Medium, Seen) {
		seen.Reason, seen.Err = err.Error(), err
		return Medium{}, seen
	}
	device, err := f.Open(c.device)
	if err != nil {
		if noMedium(err) {
			seen.Reason = "no medium"
			return Medium{}, seen
		}
		return broken(err)
	}
	defer device.Close()
	r := &limitedReader{ctx: ctx, r: device, left: maxReading}
	if n, err := r.ReadAt(make([]byte, 512), 0); noMedium(err) || n == 0 && errors.Is(err, io.EOF) {
		seen.Reason = "no medium"
		return Medium{}, seen
	} else if err != nil {
		return broken(fmt.Errorf("read the first sector: %w", err))
	}
	v, err := volume.Open(r)
	switch {
	case errors.Is(err, volume.ErrFormat):
		seen.Reason = err.Error() + ": not a configuration medium"
		return Medium{}, seen
	case err != nil:
		return broken(err)
	}
	label := v.Label()
	named := slices.ContainsFunc([]string{LabelFloppy, LabelConfig, LabelBoot}, func(l string) bool { return strings.EqualFold(l, label) })
	byModel := strings.Contains(strings.ToLower(c.model), virtualMedia)
	if !named && !byModel {
		seen.Reason = fmt.Sprintf("label %s: not a configuration medium", printable(label))
		return Medium{}, seen
	}
	files, err := readFiles(v)
	if err != nil {
		return broken(fmt.Errorf("label %s: %w", printable(label), err))
	}
	if _, ok := files[ParametersFile]; !ok && !named {
		seen.Reason = fmt.Sprintf("label %s, model %s: no %s", printable(label), printable(c.model), ParametersFile)
		return Medium{}, seen
	}
	if len(files) == 0 {
		seen.Reason = fmt.Sprintf("label %s: none of the files of a configuration medium", printable(label))
		return Medium{}, seen
	}
	seen.Taken = true
	seen.Reason = fmt.Sprintf("label %s: configuration medium with %d files", printable(label), len(files))
	return Medium{Device: c.device, Kind: c.kind, Label: label, Publisher: v.Publisher(), Files: files}, seen
}

// noMedium knows the errors of drives that are empty: CD drives have ENOMEDIUM, floppy drives ENXIO.
func noMedium(err error) bool {
	const enomedium = syscall.Errno(123) // Linux; not known to package syscall elsewhere
	return errors.Is(err, enomedium) || errors.Is(err, syscall.ENXIO)
}

// printable makes a label or model fit for a console.
func printable(s string) string {
	if s == "" {
		return "(none)"
	}
	quoted := strconv.QuoteToASCII(s)
	if quoted == `"`+s+`"` {
		return s
	}
	return quoted
}

// limitedReader ends a medium that is read for too long or too much.
type limitedReader struct {
	ctx  context.Context
	r    io.ReaderAt
	left int64 // bytes
}

func (l *limitedReader) ReadAt(b []byte, at int64) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, context.Cause(l.ctx)
	}
	if l.left -= int64(len(b)); l.left < 0 {
		return 0, fmt.Errorf("%w: %d bytes read", errLimit, maxReading)
	}
	return l.r.ReadAt(b, at)
}
