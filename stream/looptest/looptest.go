// SPDX-License-Identifier: Apache-2.0

// Package looptest makes block devices for tests: loop devices on sparse files, which are gone when the test has ended, or was
// killed. It needs Linux and root.
package looptest

import (
	"os"
	"strings"
	"testing"
)

// NeedRoot skips a test that has no root's rights. Where the environment variable REQUIRE holds the word root it fails instead, so that no
// one takes a skip for a success.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if strings.Contains(os.Getenv("REQUIRE"), "root") {
		t.Fatal("needs root, and REQUIRE asks that it be run")
	}
	t.Skip("needs root")
}
