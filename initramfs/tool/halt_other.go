// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package tool

import (
	"errors"
	"os/exec"
)

func ownGroup(*exec.Cmd) {}
func halt(int) error     { return errors.ErrUnsupported }
func resume(int) error   { return errors.ErrUnsupported }
