// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package holders

import "errors"

func do(Change) error { return errors.ErrUnsupported }
