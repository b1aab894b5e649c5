// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/torrent"
)

// An image whose URL ends in .torrent comes from a seeder, keeps Ironic's checksum, and is shared afterwards; one that is wrong is not.
func TestWriteImageTorrent(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes change
		want    error
	}{
		{"right", nil, nil},
		{"of another digest", change{"os_hash_value": strings.Repeat("0", 64)}, stream.ErrDigest},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.host.Download.Budget = 20 * time.Second
			file := filepath.Join(t.TempDir(), "debian.img")
			if err := os.WriteFile(file, b.server.Content, 0o600); err != nil {
				t.Fatal(err)
			}
			tracker := &torrent.Tracker{}
			mux := http.NewServeMux()
			mux.Handle("/announce", tracker)
			srv := httptest.NewServer(mux)
			defer srv.Close()
			m, err := torrent.Make(t.Context(), file, torrent.MakeOptions{Trackers: []string{srv.URL + "/announce"}})
			if err != nil {
				t.Fatal(err)
			}
			meta, err := m.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			mux.HandleFunc("/debian.img.torrent", func(w http.ResponseWriter, _ *http.Request) { w.Write(meta) })
			seed, err := torrent.Seed(t.Context(), m, file, torrent.Options{NoTrackers: true})
			if err != nil {
				t.Fatal(err)
			}
			defer seed.Close()
			tracker.Add(m, seed.Port())
			var shared []steps.Sharer
			b.host.Share = func(s steps.Sharer) { shared = append(shared, s) }

			changes := change{"urls": []string{srv.URL + "/debian.img.torrent"}}
			for k, v := range c.changes {
				changes[k] = v
			}
			_, err = b.run(t, rootDiskHint, changes, nil)
			if !errors.Is(err, c.want) {
				t.Fatalf("writeImage() = %v, want %v", err, c.want)
			}
			if shared[0] != nil {
				t.Error("what was shared before is shared on while the disk is written to")
			}
			if c.want != nil {
				if len(shared) != 1 || !bytes.Equal(b.disk.Bytes[:mib], make([]byte, mib)) {
					t.Errorf("%d are shared, or the disk has a start", len(shared)-1)
				}
				return
			}
			if len(shared) != 2 || shared[1] == nil {
				t.Fatalf("shared: %v", shared)
			}
			defer shared[1].Close()
			if !bytes.Equal(b.disk.Bytes[mib:4*mib], b.server.Content[mib:]) {
				t.Error("the image is not on the disk")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			shared[1].Share(ctx, time.Hour, 0)
		})
	}
}

// A torrent that cannot be had is no reason to fail where there are mirrors: the image comes from these, and the console says so.
func TestTorrentThatIsAway(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		said   string
	}{
		{"not there", http.NotFound, "404 Not Found"},
		{"not a torrent", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<!DOCTYPE html>")) }, "not a usable torrent"},
		{"server breaks off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			srv := httptest.NewServer(c.answer)
			defer srv.Close()
			away := srv.URL + "/debian.img.torrent"
			if _, err := b.run(t, rootDiskHint, change{"urls": []string{away}}, nil); err == nil || !strings.Contains(err.Error(), c.said) || !b.untouched() {
				t.Errorf("without a mirror: error is %v, want %q, and the disk as it was", err, c.said)
			}
			if _, err := b.run(t, rootDiskHint, change{"urls": []string{away, b.url}}, nil); err != nil {
				t.Fatalf("with a mirror: %v", err)
			}
			if !bytes.Equal(b.disk.Bytes[mib:4*mib], b.server.Content[mib:]) {
				t.Error("the image is not on the disk")
			}
			if said := strings.Join(b.said, "\n"); !strings.Contains(said, "WARNING: the image comes from its mirrors alone") || !strings.Contains(said, c.said) || !strings.Contains(said, "writing "+b.url) {
				t.Errorf("the console does not say where it comes from, and why:\n%s", said)
			}
		})
	}
}

func TestPlacesOfATorrent(t *testing.T) {
	i := imageInfo{URLs: []string{"https://192.0.2.1/a%20b.img.torrent?key=1", "https://192.0.2.2/other.img"}}
	if got := strings.Join(i.places(), " "); got != "https://192.0.2.1/a%20b.img?key=1 https://192.0.2.2/other.img" {
		t.Errorf("places() = %s", got)
	}
}

// roundTrip is a network in which each URL is answered by a function.
type roundTrip func(w http.ResponseWriter, r *http.Request)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f(w, r)
	return w.Result(), nil
}

// Whoever wrote the torrent chooses the web seeds: the login for the image server goes nowhere else, not to its name without TLS either.
func TestTorrentLogin(t *testing.T) {
	for _, c := range []struct{ name, seed, want string }{
		{"same server", "https://images.test/debian.img", `["Basic dTpodXNo"]`},
		{"same name without TLS", "http://images.test/debian.img", "[]"},
		{"same name, other port", "https://images.test:444/debian.img", "[]"},
		{"another that has a login of its own", "https://me:own@mirror.test/debian.img", `["Basic bWU6b3du"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.host.Download.Budget = 20 * time.Second
			file := filepath.Join(t.TempDir(), "debian.img")
			if err := os.WriteFile(file, b.server.Content, 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := torrent.Make(t.Context(), file, torrent.MakeOptions{WebSeeds: []string{c.seed}})
			if err != nil {
				t.Fatal(err)
			}
			meta, err := m.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			got := map[string]bool{}
			b.host.Transport = roundTrip(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".torrent") {
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(meta))
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got[fmt.Sprintf("%q", r.Header["Authorization"])] = true
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b.server.Content))
			})
			_, err = b.run(t, rootDiskHint, change{"urls": []string{"https://images.test/debian.img.torrent"},
				"image_server_auth_strategy": "http_basic", "image_server_user": "u", "image_server_password": "hush"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(got) != 1 || !got[c.want] {
				t.Errorf("the web seed was sent %v, want %s", got, c.want)
			}
		})
	}
}
