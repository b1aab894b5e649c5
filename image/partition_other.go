// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package image

import (
	"context"
	"errors"
	"os"

	"github.com/ironhand/ironhand/initramfs/tool"
)

// LocalVolumes is for Linux only: there are none here.
func LocalVolumes(string, tool.Runner, func(context.Context, string) error) Volumes { return nil }

// subvolume is for Linux only.
func subvolume(*os.Root) (uint64, error) { return 0, errors.ErrUnsupported }
