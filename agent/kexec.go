// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/initramfs/boot"
)

// loadKernel is what steps load a kernel with. If it fails, none is loaded, also none from before: run_image would jump into it.
func (a *agent) loadKernel(ctx context.Context, disk string) (entry string, err error) {
	if err := a.unloadKernel(); err != nil {
		return "", err
	}
	entry, err = a.sys.LoadKernel(ctx, disk)
	if err != nil {
		return "", errors.Join(err, a.unloadKernel())
	}
	return entry, nil
}

func (a *agent) unloadKernel() error {
	if !a.sys.KernelLoaded() {
		return nil
	}
	return a.sys.UnloadKernel()
}

// LoadKernel loads the default entry of the boot menu on a disk for kexec and returns what that is.
// The jump itself is [boot.Power]. What would keep it from working is named before anything is loaded.
func LoadKernel(ctx context.Context, disk string) (entry string, err error) {
	if err := boot.CanKexec(); err != nil {
		return "", err
	}
	found, root, cleanup, err := image.FindBootEntry(ctx, disk, loadFileSystem)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close() // read only
		}
	}()
	open := func(name string) (io.Reader, error) {
		f, err := os.OpenInRoot(root, name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		return f, nil
	}
	kernel := boot.Kernel{Cmdline: found.Cmdline}
	if kernel.Image, err = open(found.Kernel); err != nil {
		return "", err
	}
	for _, name := range found.Initrds {
		r, err := open(name)
		if err != nil {
			return "", err
		}
		kernel.Initrds = append(kernel.Initrds, r)
	}
	if err := boot.LoadKernel(kernel); err != nil {
		return "", err
	}
	return fmt.Sprintf("%q from %s: /%s", found.Title, found.Source, found.Kernel), nil
}

// loadFileSystem loads what the kernel needs to mount a file system: the ramdisk has no modprobe that
// it could call.
func loadFileSystem(ctx context.Context, kind string) error {
	modules := []string{kind}
	if kind == "vfat" {
		modules = append(modules, "nls_cp437", "nls_ascii") // its code pages
	}
	return boot.LoadModules(ctx, modules...)
}
