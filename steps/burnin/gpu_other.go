// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package burnin

import (
	"context"
	"errors"
)

func runProgram(context.Context, string, string, ...string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}
