// SPDX-License-Identifier: Apache-2.0

//go:build !race

package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/torrent"
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
		tellMemory(t)
		return
	}
	dir := t.TempDir()
	raw := memoryImage(t, dir, size)
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
					memoryOf(t, "TestMemory", "IMAGE_MEMORY_CHILD="+published)
				})
			}
		})
	}
}

// Sharing an image in a swarm, while it is written and its digest is computed from the disk, takes no more either.
func TestMemoryOfSwarm(t *testing.T) {
	const size = 256 << 20
	if dir := os.Getenv("IMAGE_SWARM_CHILD"); dir != "" {
		f, err := os.OpenFile(filepath.Join(dir, "disk"), os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		raw, err := os.ReadFile(filepath.Join(dir, "sum"))
		if err != nil {
			t.Fatal(err)
		}
		digest, err := stream.ParseDigest("sha256", string(raw))
		if err != nil {
			t.Fatal(err)
		}
		up := fetchSwarm(t, filepath.Join(dir, "torrent"), "127.0.0.2", fileDisk{f, size}, digest)
		t.Logf("sent %d MiB", up>>20)
		tellMemory(t)
		return
	}
	dir := t.TempDir()
	raw := memoryImage(t, dir, size)
	run(t, gptScript, "sfdisk", "-q", "--no-tell-kernel", "--no-reread", raw)
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	var tracker torrent.Tracker
	srv := httptest.NewServer(&tracker)
	defer srv.Close()
	m, err := torrent.Make(t.Context(), raw, torrent.MakeOptions{Trackers: []string{srv.URL + "/announce"}, PieceLength: 2 << 20}) // as of a large image
	if err != nil {
		t.Fatal(err)
	}
	tracker.Add(m, 0)
	meta, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"torrent": meta, "sum": []byte(hex.EncodeToString(sum[:]))} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seed, err := torrent.Seed(t.Context(), m, raw, torrent.Options{Host: "127.0.0.1", Up: 100 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer seed.Close()
	var others sync.WaitGroup
	defer others.Wait()
	for _, host := range []string{"127.0.0.3", "127.0.0.4"} {
		others.Go(func() {
			fetchSwarm(t, filepath.Join(dir, "torrent"), host, abyss{size, make([]byte, mib)}, stream.Digest{})
		})
	}
	memoryOf(t, "TestMemoryOfSwarm", "IMAGE_SWARM_CHILD="+dir)
}

// fetchSwarm is a node with an address of its own: it writes the image of a torrent to a disk, and returns how much of it others got from there.
func fetchSwarm(t *testing.T, file, host string, disk Disk, digest stream.Digest) (up int64) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return 0
	}
	m, err := torrent.Parse(b)
	if err != nil {
		t.Error(err)
		return 0
	}
	s, err := torrent.Open(t.Context(), m, torrent.Options{Host: host, Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}).DialContext}})
	if err != nil {
		t.Error(err)
		return 0
	}
	defer s.Close()
	if _, err := Write(t.Context(), disk, Spec{Sources: []stream.Source{s}, Digest: digest, ReadBack: stream.ReadBackNone}); err != nil {
		t.Error(err)
	}
	return s.Stats().Up
}

// fileDisk is a disk in a file.
type fileDisk struct {
	*os.File
	size int64
}

func (d fileDisk) Zero(_ context.Context, at, n int64) error {
	_, err := d.WriteAt(make([]byte, n), at)
	return err
}
func (d fileDisk) RereadPartitions(context.Context) error { return nil }
func (d fileDisk) Size() int64                            { return d.size }
func (d fileDisk) SectorSize() int                        { return 512 }
func (d fileDisk) Close() error                           { return nil }

// memoryImage makes a file of size bytes without a hole.
func memoryImage(t *testing.T, dir string, size int) string {
	t.Helper()
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
	return raw
}

func tellMemory(t *testing.T) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", status)
}

// memoryOf runs a test in a process of its own, which tells what it took at its peak.
func memoryOf(t *testing.T, test, env string) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	child.Env = append(os.Environ(), env)
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, peak, _ := strings.Cut(string(out), "VmHWM:")
	var kib int
	if _, err := fmt.Sscan(peak, &kib); err != nil {
		t.Fatalf("no peak in\n%s", out)
	}
	if _, sent, ok := strings.Cut(string(out), "sent "); ok {
		sent, _, _ = strings.Cut(sent, "\n")
		t.Logf("sent %s to others", sent)
	}
	t.Logf("%d KiB", kib)
	if kib > 96<<10 {
		t.Errorf("the process took %d KiB at its peak, want at most 96 MiB", kib)
	}
}

var _ io.ReaderAt = abyss{}
