// SPDX-License-Identifier: Apache-2.0

//go:build !race

package stream_test

import (
	"bytes"
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

// repeated is a source that holds the same bytes many times.
type repeated struct {
	piece []byte
	times int
}

func (r repeated) Open(_ context.Context, offset int64) (io.ReadCloser, error) {
	pieces := make([]io.Reader, r.times)
	for i := range pieces {
		pieces[i] = bytes.NewReader(r.piece)
	}
	all := io.MultiReader(pieces...)
	_, err := io.CopyN(io.Discard, all, offset)
	return io.NopCloser(all), err
}

func (r repeated) Size() int64    { return int64(len(r.piece)) * int64(r.times) }
func (r repeated) String() string { return "repeated" }

// abyss is a disk that keeps nothing.
type abyss struct{ size int64 }

func (a abyss) WriteAt(b []byte, _ int64) (int, error)   { return len(b), nil }
func (a abyss) Zero(context.Context, int64, int64) error { return nil }
func (a abyss) Size() int64                              { return a.size }
func (a abyss) SectorSize() int                          { return 4096 }
func (a abyss) Sync() error                              { return nil }
func (a abyss) Close() error                             { return nil }

// The memory that writing takes does not depend on the length of the image, and is less than the 96 MiB that a process may have, 128 where many frames or blocks are unpacked side by side. A process of its
// own writes, so that nothing else is measured.
func TestMemory(t *testing.T) {
	if packed := os.Getenv("STREAM_MEMORY_CHILD"); packed != "" {
		writeMuch(t, packed)
		return
	}
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, picture(t, "data:4000000 hole:400000 data:12000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, command string
		most          int // MiB
	}{
		{"gzip", "gzip -1 -c $1", 96},
		{"zstd", "zstd -q -1 --zstd=wlog=23 -c $1", 96},
		{"zstd, made for seeking", "split -b 4M --filter 'zstd -q -c' $1", 128},
		{"xz", "xz -6 -T1 -c $1", 96},
		{"xz, several blocks", "xz -3 -T2 -c $1", 96},
		{"xz, all that is taken for blocks", "head -c 16400000 /dev/urandom | xz -T2 --block-size=8MiB --lzma2=preset=0,dict=8MiB", 112},
		{"lz4", "lz4 -B7 -c $1", 128},
		{"raw", "cat $1", 96},
	} {
		t.Run(tt.name, func(t *testing.T) {
			packed, err := exec.Command("sh", "-c", tt.command, "sh", raw).Output()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "packed")
			if err := os.WriteFile(path, packed, 0o600); err != nil {
				t.Fatal(err)
			}
			child := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
			child.Env = append(os.Environ(), "STREAM_MEMORY_CHILD="+path)
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
			if kib > tt.most<<10 {
				t.Errorf("the process took %d KiB at its peak, want at most %d MiB", kib, tt.most)
			}
		})
	}
}

func writeMuch(t *testing.T, path string) {
	packed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := stream.ParseDigest("sha256", strings.Repeat("00", 32))
	if err != nil {
		t.Fatal(err)
	}
	r := stream.NewReader(t.Context(), []stream.Source{repeated{packed, 40}}, want, stream.ReaderOptions{})
	defer r.Close()
	content, err := stream.Decompress(r, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	// The digest is computed and not compared: what it would be says nothing here.
	w, err := stream.Write(t.Context(), abyss{2 << 30}, stream.NewExtents(content, -1), stream.Options{ReadBack: stream.ReadBackNone})
	if err != nil || w.Size != 40*16_400_000 {
		t.Fatalf("Write(...) = %+v, %v", w, err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", status)
}
