// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
	m.WebSeeds = nil // they help where the seeder is slow to come, as on a busy machine
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

// Images for the nodes of another conductor are shared from the start, which looks at their torrents before it names them. While this one is away nobody gets anything, and afterwards all goes on.
func TestTorrentShare(t *testing.T) {
	l := newLab(t, "exit: never\ntorrent: {share: [disk.img]}", "")
	address := l.url + "/torrents/disk.img.torrent"
	for {
		resp, err := l.client.Head(address)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK && resp.ContentLength > 0 {
			break
		}
		if resp.StatusCode != http.StatusNotFound {
			t.Fatalf("HEAD: %s, %d bytes", resp.Status, resp.ContentLength)
		}
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(l.timeline(), address) {
		t.Errorf("the torrent's URL is not told:\n%s", l.timeline())
	}
	src, err := stream.NewHTTP(address, stream.HTTPOptions{Transport: l.client.Transport})
	if err != nil {
		t.Fatal(err)
	}
	m, err := torrent.Fetch(t.Context(), src, stream.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.WebSeeds = nil // they help where the seeder is slow to come, as on a busy machine
	fetch := func(patience time.Duration) (torrent.Stats, error) {
		o := torrent.Options{Transport: l.client.Transport, Patience: patience}
		s, err := torrent.Open(t.Context(), m, o)
		if err != nil {
			return torrent.Stats{}, err
		}
		defer s.Close()
		r, err := s.Open(t.Context(), 0)
		if err != nil {
			return torrent.Stats{}, err
		}
		_, err = io.Copy(io.Discard, r)
		return s.Stats(), err
	}
	if st, err := fetch(20 * time.Second); err != nil || st.Down != m.Size {
		t.Errorf("%d bytes came from the seeder, %v", st.Down, err)
	}
	l.c.Pause()
	if st, err := fetch(3 * time.Second); err == nil {
		t.Errorf("%d bytes came from the seeder, %d from the web, while the conductor was away", st.Down, st.Web)
	}
	if want := "disk.img: 2 MiB were sent to nodes that share it, 1.00 copies"; !strings.Contains(l.timeline(), want) {
		t.Errorf("want %q in\n%s", want, l.timeline())
	}
	if err := l.c.Resume(); err != nil {
		t.Fatal(err)
	}
	if st, err := fetch(20 * time.Second); err != nil || st.Down != m.Size {
		t.Errorf("%d bytes came from the seeder afterwards, %v", st.Down, err)
	}
}

// A file that is not there ends it at once.
func TestTorrentShareNothing(t *testing.T) {
	l := newLab(t, "exit: never\ntorrent: {share: [other.img]}", "")
	if err := <-l.done; err == nil || !strings.Contains(err.Error(), "torrent: share: other.img: ") {
		t.Errorf("Run() = %v", err)
	}
}

// The images have the ports from the one that is configured on, in the order of the configuration. One that is taken is an error that names it: the node fails, and so does the program.
func TestTorrentPorts(t *testing.T) {
	var taken, before net.Listener
	var port int
	for before == nil { // until the port before one that is taken is free; below those that the kernel gives to connections, so that it stays free
		port = 30001 + rand.IntN(2700)
		var err error
		if taken, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			continue
		}
		defer taken.Close()
		if before, err = net.Listen("tcp", fmt.Sprintf(":%d", port-1)); err != nil {
			before = nil
		}
	}
	before.Close()
	l := newLab(t, fmt.Sprintf("torrent: {port: %d}", port-1), "")
	l.write("files/other.img", strings.Repeat("other", 1<<20), 0o644)
	l.c.config.Nodes[0].Image.Torrent = true
	l.c.config.Nodes = append(l.c.config.Nodes, NodeConfig{Image: Image{File: "other.img", Torrent: true}})
	_, err := l.c.prepareImage(t.Context(), l.c.config.Nodes[1].Image)
	for _, want := range []string{"image other.img", "share it by BitTorrent", fmt.Sprintf("port %d", port), "in use"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q in it", err, want)
		}
	}
	resp, err := l.client.Get(l.url + "/torrents/other.img.torrent")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("a torrent that nobody shares: %s", resp.Status)
	}
	if _, err = l.c.prepareImage(t.Context(), l.c.config.Nodes[0].Image); err != nil {
		t.Fatal(err)
	}
	if got := l.c.swarms.shared["disk.img"].seed.Port(); got != port-1 {
		t.Errorf("the first image has port %d, want %d", got, port-1)
	}
}
