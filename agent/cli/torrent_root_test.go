// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
	"github.com/ironhand/ironhand/torrent"
)

// An image that ironhand torrent has described comes to a loop device from its seeder, raw and packed, from the torrent as a file, as a URL and as a magnet link.
func TestRootWriteTorrent(t *testing.T) {
	looptest.NeedRoot(t)
	dir := t.TempDir()
	script := `truncate -s 16M image && printf 'label: gpt\nsize=8M, name=root\n' | sfdisk --quiet image && head -c 4000000 /dev/urandom | dd of=image bs=1M seek=2 conv=notrunc status=none && zstd -q image -o image.zst`
	make := exec.Command("bash", "-c", script)
	make.Dir = dir
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	tracker := &torrent.Tracker{}
	mux := http.NewServeMux()
	mux.Handle("/announce", tracker)
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	srv := httptest.NewTLSServer(mux)
	defer srv.Close()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, image, hashes string }{
		{"raw", "image", "1"}, {"of both versions", "image", "both"}, {"packed", "image.zst", "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(dir, test.image)
			meta := file + "." + test.hashes + ".torrent"
			code, stdout, stderr := run(t, "", "torrent", "make", file, "--out", meta, "--tracker", srv.URL+"/announce", "--hashes", test.hashes, "--piece", "256")
			if code != 0 {
				t.Fatalf("exit %d, stderr %q", code, stderr)
			}
			link := strings.Split(strings.TrimSpace(stdout), "\n")[1]
			b, err := os.ReadFile(meta)
			if err != nil {
				t.Fatal(err)
			}
			m, err := torrent.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			seed, err := torrent.Seed(t.Context(), m, file, torrent.Options{NoTrackers: true})
			if err != nil {
				t.Fatal(err)
			}
			defer seed.Close()
			tracker.Add(m, seed.Port())
			for _, source := range []string{meta, srv.URL + "/" + filepath.Base(meta), link} {
				device, disk := looptest.New(t, 32<<20, 4096/8)
				code, _, stderr := run(t, "", "write", source, device, "--yes", "--cafile", ca, "--patience", "20s")
				if code != 0 {
					t.Fatalf("write %s: exit %d, stderr %q", source, code, stderr)
				}
				got, err := os.ReadFile(disk)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got[2<<20:10<<20], content[2<<20:10<<20]) {
					t.Errorf("%s: the disk does not hold the image", source)
				}
				if out, err := exec.Command("sgdisk", "-v", disk).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
					t.Errorf("sgdisk -v: %v\n%s", err, out)
				}
			}
		})
	}
	// A peer that no tracker names is told by its address.
	meta := filepath.Join(dir, "alone.torrent")
	if code, _, stderr := run(t, "", "torrent", "make", filepath.Join(dir, "image"), "--out", meta); code != 0 {
		t.Fatalf("exit %d, stderr %q", code, stderr)
	}
	b, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	m, err := torrent.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := torrent.Seed(t.Context(), m, filepath.Join(dir, "image"), torrent.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer seed.Close()
	for peer, want := range map[string]int{fmt.Sprintf("localhost:%d", seed.Port()): 0, "127.0.0.1:1": 1, "127.0.0.1": 2, ":1": 2} {
		device, _ := looptest.New(t, 32<<20, 512)
		if code, _, stderr := run(t, "", "write", meta, device, "--yes", "--patience", "5s", "--peer", peer); code != want {
			t.Errorf("--peer %s: exit %d, stderr %q", peer, code, stderr)
		}
	}

	// What comes by http alone proves nothing.
	device, _ := looptest.New(t, 32<<20, 512)
	if code, _, stderr := run(t, "", "write", "http://127.0.0.1:1/image.torrent", device, "--yes"); code != 2 || !strings.Contains(stderr, "proves nothing") {
		t.Errorf("a torrent by http: exit %d, stderr %q", code, stderr)
	}
}

// While a disk is shared that was written by hand, it can be mounted and partitioned: nobody but the file system decides what becomes of it.
func TestRootShareLeavesTheDisk(t *testing.T) {
	looptest.NeedRoot(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	script := exec.Command("bash", "-c", `truncate -s 16M "$0" && printf 'label: gpt\nsize=8M, name=root\n' | sfdisk --quiet "$0"`, image)
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mirror := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer mirror.Close()
	if code, _, stderr := run(t, "", "torrent", "make", image, "--out", image+".torrent", "--web-seed", mirror.URL+"/image"); code != 0 {
		t.Fatalf("make: exit %d: %s", code, stderr)
	}
	device, _ := looptest.New(t, 32<<20, 512)
	shares := &waitFor{text: "sharing ", there: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan int)
	go func() {
		done <- Run(ctx, agent.Parts{}, []string{"write", image + ".torrent", device, "--yes", "--progress", "none", "--share", "1h"}, strings.NewReader(""), io.Discard, shares)
	}()
	select {
	case <-shares.there:
	case code := <-done:
		t.Fatalf("exit %d: %s", code, shares.b.String())
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is shared after 30 s")
	}
	disk, err := stream.OpenDevice(device) // as a mount does, for itself alone
	if err != nil {
		t.Errorf("while the disk is shared: %v", err)
	} else {
		disk.Close()
	}
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit %d: %s", code, shares.b.String())
	}
}

// waitFor tells when a text has been written to it.
type waitFor struct {
	text  string
	there chan struct{}
	b     bytes.Buffer
	once  sync.Once
}

func (w *waitFor) Write(b []byte) (int, error) {
	w.b.Write(b)
	if strings.Contains(w.b.String(), w.text) {
		w.once.Do(func() { close(w.there) })
	}
	return len(b), nil
}
