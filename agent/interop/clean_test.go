// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"os"
	"strings"
	"testing"
	"time"
)

// Manual cleaning with two steps clears the disks, and a step that fails leaves the node failed, with our reason and our logs.
func TestIronicCleaning(t *testing.T) {
	b := newBench(t, nil)
	n := b.newNode("clean", "bios")
	clean := func(state string, steps ...string) record {
		t.Helper()
		var list []map[string]string
		for _, name := range steps {
			list = append(list, map[string]string{"interface": "deploy", "step": name})
		}
		n.do("clean", "clean_steps", list)
		return n.until(state, 5*time.Minute)
	}

	// A former life: partitions with file systems on one disk, a file system alone on the other.
	b.run("bash", "-c", `printf 'label: gpt\nsize=1G, type=linux\n' | sfdisk --quiet --no-reread --no-tell-kernel "$1" && mkfs.ext4 -q -E offset=1048576 "$1" 1G && mkfs.ext4 -q "$2"`,
		"bash", n.machine.Disks[0].Path, n.machine.Disks[1].Path)
	if out := b.run("wipefs", "--no-act", n.machine.Disks[1].Path); !strings.Contains(out, "ext4") {
		t.Fatalf("wipefs finds nothing to begin with: %s", out)
	}
	b.sub("two steps", func(t *testing.T) {
		clean("manageable", "erase_devices_metadata", "erase_pstore")
		wantConsole(t, n, "clearing metadata", "step: erase_devices_metadata done", "step: erase_pstore done")
		for _, d := range n.machine.Disks {
			if out := b.run("wipefs", "--no-act", d.Path); strings.TrimSpace(out) != "" {
				t.Errorf("wipefs finds on %s:\n%s", d.Path, out)
			}
			if out := b.run("bash", "-c", `blkid -p -O 1048576 "$1" || true`, "bash", d.Path); strings.TrimSpace(out) != "" {
				t.Errorf("blkid finds in what was a partition of %s:\n%s", d.Path, out)
			}
		}
	})
	b.sub("a step that fails", func(t *testing.T) {
		// A file system of VMware, which other machines may be using.
		f, err := os.OpenFile(n.machine.Disks[1].Path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{0x0d, 0xd0, 0x01, 0xc0}, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		r := clean("clean failed", "erase_devices_metadata")
		if !strings.Contains(r.LastError, "VMFS") {
			t.Errorf("last error = %q", r.LastError)
		}
		wantLogs(t, b, "VMFS")
	})
}
