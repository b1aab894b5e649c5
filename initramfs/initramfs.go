// SPDX-License-Identifier: Apache-2.0

// Package initramfs builds what a node boots: the initramfs, from a list of contents to an archive, and an ISO that
// starts it under UEFI, UEFI with Secure Boot and BIOS. It also takes the kernel out of a bzImage.
//
// Nothing is run and nothing is installed for it: everything is made of files, and the same files always give the same
// bytes. What is missing is an error that says which Debian package has it. Only the files asked for are written.
package initramfs

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/ironhand/ironhand/initramfs/tool"
)

// Spec says what an initramfs is made from.
type Spec struct {
	Agent       string            // the static program that becomes /init
	Modules     string            // directory of the modules of the kernel that will boot it; "" for no modules
	Set         Set               // which of them
	Firmware    string            // directory of firmware files as /lib/firmware; "" for none
	Tools       []tool.Tool       // programs, which come with their libraries
	Root        string            // where these are found: "" for "/", or a directory that packages were unpacked to
	Files       map[string]string // further files: path in the initramfs, without a slash in front, to path here
	Compression Compression
}

// Report says what Build made.
type Report struct {
	Kernel      string   // version of the modules; "" without
	Modules     int      // number of them
	ModuleBytes int64    // of them
	Absent      []string // modules of the set that this kernel does not have
	Firmware    Firmware
	Raw         int64 // bytes of the archive
	Written     int64 // bytes after compression
}

// Build writes an initramfs to w.
func Build(w io.Writer, s Spec) (Report, error) {
	var report Report
	var a Archive
	if err := skeleton(&a); err != nil {
		return report, err
	}
	// The same program, for the emergency shell.
	if err := a.Link("bin/ironhand", "/init"); err != nil {
		return report, err
	}
	if err := AddStatic(&a, "init", s.Agent); err != nil {
		return report, err
	}
	if err := (Programs{Root: root(s.Root)}).AddTools(&a, s.Tools); err != nil {
		return report, err
	}
	if s.Modules != "" {
		modules, err := ReadModules(s.Modules)
		if err != nil {
			return report, err
		}
		selection := modules.Select(s.Set)
		if err := selection.AddTo(&a); err != nil {
			return report, err
		}
		report.Kernel, report.Modules, report.Absent = modules.Version, len(selection.Modules), selection.Absent
		for _, mod := range selection.Modules {
			report.ModuleBytes += a.entries["lib/modules/"+modules.Version+"/"+mod.Path].size
		}
		if s.Firmware != "" {
			if report.Firmware, err = selection.AddFirmware(&a, s.Firmware); err != nil {
				return report, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Files)) {
		if err := a.File(name, 0o644, s.Files[name]); err != nil {
			return report, err
		}
	}

	out := &cpioWriter{w: w} // counts
	compressed, err := s.Compression.Writer(out)
	if err != nil {
		return report, err
	}
	if report.Raw, err = a.WriteTo(compressed); err != nil {
		return report, err
	}
	if err := compressed.Close(); err != nil {
		return report, fmt.Errorf("compress the archive: %w", err)
	}
	// Zeros end it on a border of 512 bytes, so that another archive may be appended.
	if err := out.pad(512); err != nil {
		return report, err
	}
	report.Written = out.n
	return report, nil
}

func root(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}

// skeleton adds the directories that process 1 mounts on, and the console that the kernel opens before it.
func skeleton(a *Archive) error {
	for _, dir := range []string{"bin", "dev", "etc", "lib", "mnt", "proc", "run", "sys", "tmp"} {
		if err := a.Dir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := a.Dir("root", 0o700); err != nil {
		return err
	}
	if err := a.CharDevice("dev/console", 0o600, 5, 1); err != nil {
		return err
	}
	return a.CharDevice("dev/null", 0o666, 1, 3)
}
