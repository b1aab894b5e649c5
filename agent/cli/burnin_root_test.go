// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A stick without room for the report is found out before the run and not after it, with what it has and what it needs.
func TestRootReportRoom(t *testing.T) {
	if os.Getuid() != 0 {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal("not root")
		}
		t.Skip("SKIPPED: not root")
	}
	profile := filepath.Join(t.TempDir(), "profile.yaml")
	if err := os.WriteFile(profile, []byte("loads:\n- processors: {time: 1s, workers: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, size string
		want       string
	}{
		{"too little", "2m", "report has 2.0 MiB free, and the report of this run may need "},
		{"enough", "64m", "The report is in "},
	} {
		t.Run(test.name, func(t *testing.T) {
			stick := t.TempDir()
			if err := unix.Mount("stick", stick, "tmpfs", 0, "size="+test.size); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(stick, 0) // it ends with the test's directory otherwise
			code, stdout, stderr := run(t, "", "burnin", "--profile", profile, "--report", filepath.Join(stick, "report"), "--yes")
			if !strings.Contains(stderr, test.want) {
				t.Errorf("exit %d, want %q:\n%s%s", code, test.want, stdout, stderr)
			}
			if ran := strings.Contains(stdout, "processors"); ran != (test.name == "enough") || !ran && code != exitOther {
				t.Errorf("exit %d:\n%s%s", code, stdout, stderr)
			}
		})
	}
}
