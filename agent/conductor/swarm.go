// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/ironhand/ironhand/torrent"
)

// swarms are the images that are shared by BitTorrent: the conductor describes them, seeds them and is the tracker.
type swarms struct {
	tracker torrent.Tracker

	mu     sync.Mutex
	shared map[string]*shared // by the name of the file
	closed bool
}

type shared struct {
	once sync.Once
	err  error
	meta []byte
	seed *torrent.Seeder
}

// publish makes the torrent of a file, once, and seeds it. web is the URL of the file itself.
func (s *swarms) publish(ctx context.Context, c *Conductor, name, web string) error {
	s.mu.Lock()
	if s.shared == nil {
		s.shared = map[string]*shared{}
	}
	one := s.shared[name]
	if one == nil {
		one = &shared{}
		s.shared[name] = one
	}
	s.mu.Unlock()
	one.once.Do(func() {
		if one.err = s.share(ctx, c, one, name, web); one.err != nil {
			one.err = fmt.Errorf("share it by BitTorrent: %w", one.err)
		}
	})
	return one.err
}

func (s *swarms) share(ctx context.Context, c *Conductor, one *shared, name, web string) error {
	f, _, err := c.openPublic(name)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	m, err := torrent.MakeOf(ctx, f, torrent.MakeOptions{Version: torrent.V2, Trackers: []string{c.publicURL() + "/announce"}, WebSeeds: []string{web}})
	if err != nil {
		return err
	}
	meta, err := m.Bytes()
	if err != nil {
		return err
	}
	o := torrent.Options{NoTrackers: true, Up: int64(c.config.Torrent.UpKB) << 10}
	if c.config.Torrent.Port > 0 { // each image has a port of its own
		o.Port = c.config.Torrent.Port + slices.Index(c.config.shared(), name)
	}
	for _, p := range c.config.Torrent.Peers {
		o.Allow = append(o.Allow, netip.MustParsePrefix(p).Masked()) // the configuration was checked
	}
	again, _, err := c.openPublic(name)
	if err != nil {
		return err
	}
	seed, err := torrent.SeedOf(ctx, m, again, o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		seed.Close() // only read
		return context.Canceled
	}
	one.meta, one.seed = meta, seed
	s.tracker.Add(m, seed.Port())
	c.event("", EventImage, "%s: shared as %s, port %d", name, m, seed.Port())
	return nil
}

// close ends all sharing.
func (s *swarms) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, one := range s.shared {
		if one.seed != nil {
			one.seed.Close() // only read
		}
	}
}

// serveTorrent publishes the metainfo of an image that is shared.
func (c *Conductor) serveTorrent(w http.ResponseWriter, r *http.Request) {
	c.swarms.mu.Lock()
	var meta []byte
	for name, one := range c.swarms.shared {
		if name+".torrent" == r.PathValue("path") {
			meta = one.meta
		}
	}
	c.swarms.mu.Unlock()
	if meta == nil {
		c.refuse(w, r, "", http.StatusNotFound, "no such torrent")
		return
	}
	w.Header().Set("Content-Type", "application/x-bittorrent")
	w.Header().Set("Content-Length", fmt.Sprint(len(meta)))
	w.Write(meta) // the node asks again if it does not arrive
}
