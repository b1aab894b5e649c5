// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package vmtest starts the ramdisk in QEMU for tests: virtual hardware is a value, the console is text to wait for.
//
// A test of this kind is named TestVM... and begins with [Require]: it runs when the environment's REQUIRE has the word vm. What it starts comes
// from the directory build at the top of the project, or from IRONHAND_BUILD: the kernel (vmlinux), the ramdisk with the modules of virtual
// hardware (initramfs-virtual.cpio); `make ramdisk` makes both. A second archive from [Pack] puts further files over it.
//
// Networks need a [Main], which runs all tests of a package in a network namespace of its own. The package opens no disk but the images it made
// or was given, and leaves no process behind.
package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Require skips a test that is not asked for by the word vm in the environment's REQUIRE, and fails it if something that it needs is missing.
func Require(t testing.TB) {
	t.Helper()
	if !strings.Contains(os.Getenv("REQUIRE"), "vm") {
		t.Skip("needs virtual machines: run `make test-vm`, or set REQUIRE=vm")
	}
	if _, err := exec.LookPath(qemu); err != nil {
		t.Fatalf("%v: run `make packages`", err)
	}
	Artefact(t, "vmlinux")
}

// Artefact returns the path of a file in the directory of what is built. One that is missing fails the test.
func Artefact(t testing.TB, name string) string {
	t.Helper()
	path, err := artefact(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func artefact(name string) (string, error) {
	dir := os.Getenv("IRONHAND_BUILD")
	if dir == "" {
		top, err := moduleDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(top, "build")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: run `make ramdisk`", err)
	}
	return path, nil
}

// moduleDir returns the directory of go.mod, at or above the working directory.
func moduleDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
	}
}
