// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// With the true modules the agent would be half as large again: one of them looks methods up by reflection, so that the linker keeps every exported method of the program.
func TestStandInsAreLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{with .Replace}}{{.Path}}{{end}}", "github.com/google/go-cmp", "github.com/pion/webrtc/v4", "github.com/pion/datachannel", "github.com/anacrolix/go-utp").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(strings.TrimSpace(string(out))) {
		if !strings.Contains(line, " ./third_party/") {
			t.Errorf("%s is not the stand-in", strings.TrimSpace(line))
		}
	}
}
