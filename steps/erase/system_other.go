// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package erase

import (
	"context"
	"errors"
	"io"

	"github.com/ironhand/ironhand/steps/holders"
)

// Local erases nothing where the system is not Linux.
func Local() Eraser { return Eraser{local{}} }

// OpenDrive opens nothing where the system is not Linux.
func OpenDrive(string) (Drive, error) { return nil, errors.ErrUnsupported }

type local struct{}

func (local) Read(string) (io.ReaderAt, io.Closer, error)     { return nil, nil, errors.ErrUnsupported }
func (local) ReadPast(string) (io.ReaderAt, io.Closer, error) { return nil, nil, errors.ErrUnsupported }
func (local) Drive(string) (Drive, error)                     { return nil, errors.ErrUnsupported }
func (local) Teardown(context.Context, holders.Tree, func(holders.Change) error) error {
	return errors.ErrUnsupported
}
func (local) MountPstore(string) error { return errors.ErrUnsupported }
func (local) CleanBootEntries(string, func(string) bool) (deleted, odd []string, err error) {
	return nil, nil, errors.ErrUnsupported
}
