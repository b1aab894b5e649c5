// SPDX-License-Identifier: Apache-2.0

// Package cmp stands in for github.com/google/go-cmp/cmp, whose use of reflection makes the linker keep every exported method of a program.
package cmp

import "fmt"

// Diff says only what the two are.
func Diff(x, y any) string { return fmt.Sprintf("-%v\n+%v\n", x, y) }
