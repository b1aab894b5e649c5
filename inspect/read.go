// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

const (
	smallFile   = 64 << 10 // bytes: attributes of sysfs have at most a page, VPD pages at most 64 KiB
	largeFile   = 8 << 20  // bytes: /proc/cpuinfo of a thousand processors
	maxText     = 1024     // bytes of one value
	maxProblems = 64
)

// A reader reads the kernel's small files and keeps what went wrong. A file that is not there is no problem, because
// most files exist for some devices only; need is for those that every machine has.
type reader struct {
	ctx     context.Context
	fsys    fs.FS
	asker   func(ctx context.Context, question string) ([]byte, error) // nil: nobody answers
	errs    []error
	dropped int // problems beyond maxProblems
}

func (r *reader) problem(err error) {
	if len(r.errs) == maxProblems {
		r.dropped++
		return
	}
	r.errs = append(r.errs, err)
}

// add takes over the problems of a part of the work.
func (r *reader) add(part *reader) {
	for _, err := range part.errs {
		r.problem(err)
	}
	r.dropped += part.dropped
}

// count is how many problems there were so far.
func (r *reader) count() int { return len(r.errs) + r.dropped }

func (r *reader) problems() []error {
	if r.dropped > 0 {
		return append(r.errs, fmt.Errorf("and %d problems more", r.dropped))
	}
	return r.errs
}

// open reads a whole file of at most limit bytes. It gives up at once when the caller has.
func (r *reader) open(name string, limit int64) ([]byte, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	f, err := r.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: larger than %d bytes", name, limit)
	}
	return b, nil
}

// ask asks the kernel what it has in no file; see [Machine.Ask].
func (r *reader) ask(question string) ([]byte, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	if r.asker == nil {
		return nil, fmt.Errorf("ask %s: %w", question, fs.ErrNotExist)
	}
	b, err := r.asker(r.ctx, question)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", question, err)
	}
	return b, nil
}

// bytes reads a file; nil if it is not there or cannot be read, which is a problem.
func (r *reader) bytes(name string, limit int64) []byte {
	b, err := r.open(name, limit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.problem(err)
	}
	return b
}

// text reads a file of one value, made presentable; empty if it is not there.
func (r *reader) text(name string) string {
	return clean(r.bytes(name, smallFile))
}

// ifSet is text for a file that is there although the device has no such value, which reading it tells: the kernel's wwid of a SCSI disk that names
// itself in no way (drivers/scsi/scsi_lib.c, scsi_vpd_lun_id).
func (r *reader) ifSet(name string) string {
	b, err := r.open(name, smallFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENXIO) {
		r.problem(err)
	}
	return clean(b)
}

// attempt is text for a file whose reading may fail in daily life, such as the carrier of an interface that is down.
func (r *reader) attempt(name string) string {
	b, err := r.open(name, smallFile)
	if err != nil {
		return ""
	}
	return clean(b)
}

// need is text for a file that every machine has.
func (r *reader) need(name string) string {
	b, err := r.open(name, smallFile)
	if err != nil {
		r.problem(err)
	}
	return clean(b)
}

// number reads a file of one number of any base that Go knows. ok is false if it is not there or no number.
func (r *reader) number(name string) (n int64, ok bool) {
	s := r.text(name)
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		r.problem(fmt.Errorf("read %s: %w", name, err))
		return 0, false
	}
	return n, true
}

// flag reads a file of 0 or 1.
func (r *reader) flag(name string) bool {
	n, _ := r.number(name)
	return n != 0
}

func (r *reader) exists(name string) bool {
	_, err := fs.Stat(r.fsys, name)
	return err == nil
}

// dir lists the names in a directory, sorted; none if it is not there.
func (r *reader) dir(name string) []string {
	if r.ctx.Err() != nil {
		return nil
	}
	entries, err := fs.ReadDir(r.fsys, name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.problem(err)
		}
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// follow returns where a symbolic link of sysfs points to, as a path of the same file system; empty if name is no
// such link. The directory of name must not be a link itself: links in sysfs are relative to where they really are.
func (r *reader) follow(name string) string {
	target, err := fs.ReadLink(r.fsys, name)
	if err != nil {
		return ""
	}
	to := path.Join(path.Dir(name), target)
	if path.IsAbs(target) || !fs.ValidPath(to) || to == "." {
		return ""
	}
	return to
}

// real is follow, or name itself when it is no link, as in recordings of very old kernels.
func (r *reader) real(name string) string {
	if to := r.follow(name); to != "" {
		return to
	}
	return name
}

// target returns the last part of where a link points to: the driver's name of .../driver.
func (r *reader) target(name string) string {
	if to := r.follow(name); to != "" {
		return path.Base(to)
	}
	return ""
}

// clean makes text of what a device or the firmware says: no blanks or NULs around it, valid UTF-8 of bounded length,
// and an underscore for each byte or character that does not print, as udev writes it.
func clean(b []byte) string { return printable(b, maxText) }

// printable is clean with another limit in bytes.
func printable(b []byte, limit int) string {
	s := strings.Trim(string(b), " \t\r\n\v\f\x00")
	if len(s) > limit {
		s = s[:limit]
	}
	var out strings.Builder
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		if c == utf8.RuneError && n <= 1 || !unicode.IsPrint(c) {
			c = '_'
		}
		out.WriteRune(c)
		i += n
	}
	return out.String()
}

// values parses lines of "key<separator>value", as in /proc/meminfo and uevent files. The first of equal keys wins.
func values(b []byte, separator string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		key, value, found := strings.Cut(line, separator)
		key = strings.TrimSpace(key)
		if _, seen := m[key]; found && !seen {
			m[key] = strings.TrimSpace(value)
		}
	}
	return m
}
