// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/torrent"
)

// An image that is to be shared is described, tracked and seeded by the conductor, and by nobody else.
func TestTorrent(t *testing.T) {
	l := newLab(t, "exit: never", "")
	made, err := l.c.prepareImage(t.Context(), Image{File: "disk.img", DiskFormat: "raw", Torrent: true})
	if err != nil {
		t.Fatal(err)
	}
	src, err := stream.NewHTTP(made.Torrent, stream.HTTPOptions{Transport: l.client.Transport})
	if err != nil {
		t.Fatal(err)
	}
	m, err := torrent.Fetch(t.Context(), src, stream.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.WebSeeds) != 1 || m.WebSeeds[0] != made.URL {
		t.Errorf("web seeds are %q, want %s", m.WebSeeds, made.URL)
	}
	s, err := torrent.Open(t.Context(), m, torrent.Options{Transport: l.client.Transport, Patience: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(l.dir, "files", "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("what came is not the image")
	}
	if st := s.Stats(); st.Down != int64(len(want)) {
		t.Errorf("%d of %d bytes came from the seeder, %d from the web", st.Down, len(want), st.Web)
	}
	resp, err := l.client.Get(l.url + "/torrents/conductor.yaml.torrent")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("a torrent that there is not: %s", resp.Status)
	}
}
