// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/ironhand/ironhand/steps"
)

// pstoreDir is where the kernel wants its crash dumps to be mounted (Documentation/ABI/testing/pstore).
const pstoreDir = "/sys/fs/pstore"

// efiCrash ends the names of the variables in which the kernel keeps crash dumps (include/linux/efi.h, LINUX_EFI_CRASH_GUID). They are in pstore too, if its
// driver for UEFI is there.
const efiCrash = "-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0"

// Pstore deletes what crashed kernels left in the firmware's memory. A machine without such memory has nothing to delete.
func (e Eraser) Pstore(_ context.Context, h steps.Host, _ steps.Job) (any, error) {
	if err := e.check(h); err != nil {
		return nil, err
	}
	mounts, err := fs.ReadFile(h.Machine.FS, "proc/mounts")
	if err != nil {
		return nil, fmt.Errorf("find pstore: %w", err)
	}
	dirs := map[string]string{}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 {
			dirs[f[2]] = f[1]
		}
	}
	if dirs["pstore"] == "" {
		_, err := fs.Stat(h.Machine.FS, pstoreDir[1:])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			h.Say("this kernel has no pstore")
		case err != nil:
			return nil, fmt.Errorf("find pstore: %w", err)
		default:
			if err := e.System.MountPstore(pstoreDir); err != nil {
				return nil, fmt.Errorf("mount pstore on %s: %w", pstoreDir, err)
			}
			dirs["pstore"] = pstoreDir
		}
	}
	for _, place := range []struct{ kind, suffix string }{{"pstore", ""}, {"efivarfs", efiCrash}} {
		if dir := dirs[place.kind]; dir != "" {
			n, err := deleteFiles(dir, place.suffix)
			if err != nil {
				return nil, fmt.Errorf("delete crash dumps: %w", err)
			}
			h.Say("%d crash dumps deleted from %s", n, dir)
		}
	}
	return nil, nil
}

// deleteFiles deletes the files of a directory whose names end with suffix, and looks whether they are gone.
func deleteFiles(dir, suffix string) (n int, err error) {
	list := func() (names []string, err error) {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), suffix) {
				names = append(names, e.Name())
			}
		}
		return names, err
	}
	names, err := list()
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, os.Remove(dir+"/"+name))
	}
	left, err := list()
	if errs = append(errs, err); len(left) > 0 {
		errs = append(errs, fmt.Errorf("still in %s: %s", dir, strings.Join(left, ", ")))
	}
	return len(names), errors.Join(errs...)
}

// efivarsDir is where the firmware's variables are, on a machine that was started by UEFI.
const efivarsDir = "/sys/firmware/efi/efivars"

// NVRAM deletes boot entries of UEFI that lead to disks, or to the boot loaders of Linux; the argument match_patterns has other patterns. A machine that was started by BIOS has no such entries.
func (e Eraser) NVRAM(_ context.Context, h steps.Host, j steps.Job) (any, error) {
	expressions, err := parsePatterns(j.Args)
	if err != nil {
		return nil, err
	}
	if err := e.check(h); err != nil {
		return nil, err
	}
	if _, err := fs.Stat(h.Machine.FS, efivarsDir[1:]); errors.Is(err, fs.ErrNotExist) {
		h.Say("this machine was not started by UEFI: it has no boot entries")
		return nil, nil
	}
	deleted, odd, err := e.System.CleanBootEntries(efivarsDir, func(path string) bool {
		for _, x := range expressions {
			if x.MatchString(path) {
				return true
			}
		}
		return false
	})
	for _, line := range deleted {
		h.Say("deleted %s", line)
	}
	for _, line := range odd {
		h.Say("left alone, because firmware boots nothing of it: %s", line)
	}
	if err != nil {
		return nil, fmt.Errorf("clean boot entries: %w", err)
	}
	h.Say("%d boot entries deleted", len(deleted))
	return nil, nil
}

// CheckNVRAM looks at the arguments of [Eraser.NVRAM] alone.
func (Eraser) CheckNVRAM(_ steps.Host, args json.RawMessage) error {
	_, err := parsePatterns(args)
	return err
}

// parsePatterns reads the patterns of boot entries that are to go.
func parsePatterns(raw json.RawMessage) ([]*regexp.Regexp, error) {
	var args struct {
		Patterns *[]string `json:"match_patterns"`
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, fmt.Errorf("%w: match_patterns: want a list of regular expressions: %v", steps.ErrArgs, err)
		}
	}
	// Those of ironic-python-agent (hardware.py, clean_uefi_nvram).
	patterns := []string{`^HD\(`, `shim.*\.efi`, `grub.*\.efi`}
	if args.Patterns != nil {
		patterns = *args.Patterns
	}
	var expressions []*regexp.Regexp
	for _, p := range patterns {
		x, err := regexp.Compile("(?i)" + p)
		if err != nil {
			return nil, fmt.Errorf("%w: match_patterns: %q: %v (they are of RE2, which has no lookaround, such as (?!...), and no backreferences)", steps.ErrArgs, p, err)
		}
		expressions = append(expressions, x)
	}
	return expressions, nil
}
