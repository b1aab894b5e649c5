// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package raid

import (
	"errors"
	"os"
)

func openShared(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func addPartition(*os.File, int, int64, int64) error { return errors.ErrUnsupported }
