// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package inspect

import (
	"context"
	"errors"
)

func ask(context.Context, string) ([]byte, error) { return nil, errors.ErrUnsupported }
