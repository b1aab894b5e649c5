// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netconfig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
)

// NewKernel returns an error: networks are only configured on Linux.
func NewKernel() (Kernel, error) { return NewKernelAt("") }

// NewKernelAt returns an error: networks are only configured on Linux.
func NewKernelAt(string) (Kernel, error) {
	return nil, fmt.Errorf("configure the network on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func segments(int) func(network, address string, c syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error { return errors.ErrUnsupported }
}

func pathMTU(net.Conn, bool) int { return 0 }

// NewAsker returns one that has no network to ask on.
func NewAsker() Asker { return deaf{} }

type deaf struct{}

func (deaf) Ask(context.Context, NIC, Method) (Lease, error) {
	return Lease{}, fmt.Errorf("ask for addresses on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
