// SPDX-License-Identifier: Apache-2.0

//go:build linux

package holders_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/steps/holders"
	"github.com/ironhand/ironhand/stream/looptest"
)

func shell(t *testing.T, script string, args ...string) string {
	t.Helper()
	out, err := exec.Command("bash", append([]string{"-euc", script, "bash"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// A loop device stands for a disk. On it a partition is mounted, in that a file is another loop device with a file system, mounted within the first; a second partition
// is swapped to. It all is refused while a process sits in it, and taken down when it has gone.
func TestRootTeardown(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			disk, _ := looptest.New(t, 96<<20, sector)
			dir := t.TempDir()
			point := filepath.Join(dir, "a point")
			t.Cleanup(func() { // whatever failed
				exec.Command("umount", "-R", point).Run()
				exec.Command("swapoff", disk+"p2").Run()
				exec.Command("partx", "--delete", disk).Run()
			})
			shell(t, `printf 'label: gpt\nsize=64M\nsize=16M\n' | sfdisk --quiet --no-tell-kernel --no-reread "$1"; partx --update "$1"
				mkfs.ext4 -q "$1"p1; mkswap "$1"p2 >/dev/null; swapon "$1"p2
				mkdir "$2"; mount "$1"p1 "$2"; truncate -s 16M "$2/inner"; mkfs.ext4 -q "$2/inner"; mkdir "$2/on"; mount -o loop "$2/inner" "$2/on"; mount -t tmpfs none "$2/on"`, disk, point)

			sleeper := exec.Command("sleep", "1000")
			sleeper.Dir = point
			if err := sleeper.Start(); err != nil {
				t.Fatal(err)
			}
			defer sleeper.Process.Kill()
			tree, err := holders.Of(t.Context(), os.DirFS("/"), disk)
			if err != nil {
				t.Fatal(err)
			}
			err = tree.Teardown(t.Context())
			if want := fmt.Sprintf("%sp1: open in sleep (%d)", disk, sleeper.Process.Pid); !errors.Is(err, holders.ErrBusy) || !strings.Contains(err.Error(), want) {
				t.Errorf("Teardown with somebody in it = %v, want %q", err, want)
			}
			if out := shell(t, "findmnt -n -o TARGET -R "+shellQuote(point)); strings.Count(out, "\n") != 3 {
				t.Errorf("something was taken down all the same:\n%s", out)
			}
			sleeper.Process.Kill()
			sleeper.Wait() // killed

			if tree, err = holders.Of(t.Context(), os.DirFS("/"), disk); err != nil {
				t.Fatal(err)
			}
			t.Logf("\n%v%v", tree, tree.Changes())
			if err := tree.Teardown(t.Context()); err != nil {
				t.Fatalf("Teardown = %v\n%v", err, tree)
			}
			if out := shell(t, "cat /proc/self/mounts /proc/swaps; losetup -a"); strings.Contains(out, filepath.Base(dir)) && strings.Contains(out, "inner") || strings.Contains(out, disk+"p") {
				t.Errorf("still there:\n%s", out)
			}
			// The kernel lets somebody have it alone.
			shell(t, `blockdev --rereadpt "$1"; wipefs -a "$1" >/dev/null`, disk)
			if tree, err = holders.Of(t.Context(), os.DirFS("/"), disk); err != nil || len(tree.Changes()) > 0 {
				t.Errorf("afterwards: %v %v", tree, err)
			}
		})
	}
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
