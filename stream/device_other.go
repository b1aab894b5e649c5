// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package stream

import "errors"

func openBlockDevice(string) (d blockDevice, size int64, sector int, err error) {
	return nil, 0, 0, errors.ErrUnsupported
}
