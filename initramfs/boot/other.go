// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// What follows exists so that programs which can also do other things build on any system. All of it fails with errors.ErrUnsupported.

func unsupported(what string) error { return fmt.Errorf("%s: %w", what, errors.ErrUnsupported) }

// Init is for Linux only: here it ends the program.
func Init(Options) {
	fmt.Fprintln(os.Stderr, unsupported("process 1"))
	os.Exit(1)
}

// Setup is for Linux only.
func Setup() error { return unsupported("mount early file systems") }

// Coldplug is for Linux only.
func Coldplug(context.Context) (int, error) { return 0, unsupported("load modules") }

// LoadModules is for Linux only.
func LoadModules(context.Context, ...string) error { return unsupported("load modules") }

// Settle is for Linux only.
func Settle(context.Context, time.Duration) error { return unsupported("wait for devices") }

// Sync is for Linux only.
func Sync() error { return unsupported("sync") }

// LinksDown is for Linux only.
func LinksDown() error { return unsupported("take network interfaces down") }

// CanKexec is for Linux only.
func CanKexec() error { return unsupported("kexec") }

// KernelLoaded is false on other systems than Linux.
func KernelLoaded() bool { return false }

// LoadKernel is for Linux only.
func LoadKernel(Kernel) error { return unsupported("load kernel") }

// UnloadKernel is for Linux only.
func UnloadKernel() error { return unsupported("unload kernel") }

// Watchdog exists on Linux only.
type Watchdog struct {
	Name string
	Time time.Duration
}

// ArmWatchdog finds none on other systems than Linux.
func ArmWatchdog(time.Duration) (*Watchdog, error) {
	return nil, fmt.Errorf("arm watchdog: %w", fs.ErrNotExist)
}

// OpenWatchdog finds none on other systems than Linux.
func OpenWatchdog(time.Duration) (*Watchdog, error) {
	return nil, fmt.Errorf("arm watchdog: %w", fs.ErrNotExist)
}

// Feed has nothing to feed.
func (*Watchdog) Feed() error { return nil }

// Disarm has nothing to stop.
func (*Watchdog) Disarm() error { return nil }

// SinceBoot is 0 on other systems than Linux.
func SinceBoot() time.Duration { return 0 }
