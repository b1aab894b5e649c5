// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netconfig

import (
	"errors"
	"fmt"
	"runtime"
)

// NewKernel returns an error: networks are only configured on Linux.
func NewKernel() (Kernel, error) { return NewKernelAt("") }

// NewKernelAt returns an error: networks are only configured on Linux.
func NewKernelAt(string) (Kernel, error) {
	return nil, fmt.Errorf("configure the network on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
