// SPDX-License-Identifier: Apache-2.0

//go:build linux

package burnin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/steps"
)

// fioFile is an empty file in a disk's place.
func fioFile(t *testing.T, size int64) string {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: not root")
	}
	if _, err := os.Stat("/usr/bin/fio"); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: fio is not installed")
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	return name
}

// buffered has fio use the page cache: not every file system can do without.
func buffered(args []string) []string { return append(args, "--direct", "0") }

// When a step is aborted nothing writes to its disks any more.
func TestRootDiskAborted(t *testing.T) {
	disk := fioFile(t, 1<<30)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := (tool.Exec{}).Run(ctx, tool.Fio, buffered(diskArgs(disk, 1<<30, 1, 8*time.Second))...); err == nil {
		t.Fatal("fio ended before it was stopped")
	}
	runs := func() (list []string) {
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range processes {
			if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), disk) {
				list = append(list, fmt.Sprintf("%s: %q", p, b))
			}
		}
		return list
	}
	for end := time.Now().Add(5 * time.Second); len(runs()) > 0; time.Sleep(50 * time.Millisecond) { // less than the 8 s that it would run
		if time.Now().After(end) {
			t.Fatalf("it still runs: %s", runs())
		}
	}
}

// A disk that takes longer to be written than there is time is verified all the same.
func TestRootDiskTime(t *testing.T) {
	disk := fioFile(t, 64<<30)
	out, err := tool.Exec{}.Run(t.Context(), tool.Fio, buffered(diskArgs(disk, 16<<20, 1, time.Second))...)
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Jobs []struct {
			Read struct {
				Bytes int64 `json:"io_bytes"`
			} `json:"read"`
		} `json:"jobs"`
	}
	_, object, _ := strings.Cut(string(out), "{")
	if err := json.Unmarshal([]byte("{"+object), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Read.Bytes == 0 {
		t.Errorf("nothing was read back: %+v", report)
	}
}

// What fio itself lacks is no fault of the disk, whatever it exits with.
func TestRootFioOwnErrors(t *testing.T) {
	fioFile(t, 1) // it is there
	for _, test := range []struct {
		name, limit string // of the shell
		size        string // of the file system that the file is on
		is          error
	}{
		{name: "nothing", size: "64m"},
		{name: "no room", size: "1m", is: errNoRoom},
		{name: "no memory", limit: "ulimit -v 300000", size: "64m"},
		{name: "not even for its libraries", limit: "ulimit -v 100000", size: "64m"},
		{name: "files of a few blocks", limit: "ulimit -f 1000", size: "64m"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("disk", dir, "tmpfs", 0, "size="+test.size); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(dir, unix.MNT_DETACH) // it ends with the test's directory otherwise
			disk, bin := filepath.Join(dir, "disk"), t.TempDir()
			if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 8<<20), os.WriteFile(filepath.Join(bin, "fio"), []byte("#!/bin/sh\n"+test.limit+"\nexec /usr/bin/fio \"$@\"\n"), 0o700)); err != nil {
				t.Fatal(err)
			}
			h := steps.Host{Tools: tool.Exec{Dirs: []string{bin, "/usr/bin", "/bin"}}, Say: t.Logf}
			v, err := runFio(t.Context(), h, "", diskFaults(), buffered(diskArgs(disk, 8<<20, 1, 0))...)
			if test.name == "nothing" {
				if err != nil || v.read != 8<<20 {
					t.Errorf("%+v, %v", v, err)
				}
				return
			}
			if parts, verdict := judged("disk", err); err == nil || verdict == nil || len(parts) > 0 || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v, %v; want an error and no verdict", parts, err)
			}
		})
	}
}
