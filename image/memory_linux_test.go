// SPDX-License-Identifier: Apache-2.0

//go:build !race

package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/stream"
)

// abyss is a disk that keeps its first MiB.
type abyss struct {
	size int64
	head []byte
}

func (a abyss) WriteAt(b []byte, at int64) (int, error) {
	if at < mib {
		copy(a.head[at:], b)
	}
	return len(b), nil
}

func (a abyss) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < mib {
		copy(b, a.head[at:])
	}
	return len(b), nil
}
func (a abyss) Zero(context.Context, int64, int64) error { return nil }
func (a abyss) RereadPartitions(context.Context) error   { return nil }
func (a abyss) Size() int64                              { return a.size }
func (a abyss) SectorSize() int                          { return 512 }
func (a abyss) Sync() error                              { return nil }
func (a abyss) Close() error                             { return nil }

// Writing a qcow2 image takes no more than the 96 MiB that a process may have. A process of its own writes, so that nothing else is measured.
func TestMemory(t *testing.T) {
	const size = 256 << 20
	if file := os.Getenv("IMAGE_MEMORY_CHILD"); file != "" {
		src, err := stream.NewFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Write(t.Context(), abyss{size, make([]byte, mib)}, Spec{Sources: []stream.Source{src}, ReadBack: stream.ReadBackNone}); err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", status)
		return
	}
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 1<<20)
	for i := range size >> 20 {
		for at := 0; at < len(piece); at += 32 {
			copy(piece[at:], fmt.Sprintf("ironhand %d %d", i, at&^0xfff))
		}
		if _, err := f.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, gptScript, "sfdisk", "-q", "--no-tell-kernel", "--no-reread", raw)
	for _, args := range []string{"", "-c", "-c -o cluster_size=2M,compression_type=zstd"} {
		t.Run(args, func(t *testing.T) {
			file := filepath.Join(dir, "qcow2")
			run(t, "", "qemu-img", append(append([]string{"convert", "-O", "qcow2"}, strings.Fields(args)...), raw, file)...)
			for _, how := range []string{"plain", "gzip"} {
				t.Run(how, func(t *testing.T) {
					published := file
					if how == "gzip" {
						published = file + ".gz"
						run(t, "", "gzip", "-1", "-k", "-f", file)
					}
					child := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
					child.Env = append(os.Environ(), "IMAGE_MEMORY_CHILD="+published)
					out, err := child.CombinedOutput()
					if err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
					_, peak, _ := strings.Cut(string(out), "VmHWM:")
					var kib int
					if _, err := fmt.Sscan(peak, &kib); err != nil {
						t.Fatalf("no peak in\n%s", out)
					}
					t.Logf("%d KiB", kib)
					if kib > 96<<10 {
						t.Errorf("the process took %d KiB at its peak, want at most 96 MiB", kib)
					}
				})
			}
		})
	}
}

var _ io.ReaderAt = abyss{}
