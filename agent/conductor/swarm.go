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
	port int // that is asked for; 0 is any
	m    torrent.Meta
	meta []byte          // m as it is published; nil until all is ready
	seed *torrent.Seeder // nil while paused, too
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
	if c.config.Torrent.Port > 0 { // each image has a port of its own
		one.port = c.config.Torrent.Port + slices.Index(c.config.shared(), name)
	}
	seed, err := c.seed(ctx, name, m, one.port)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		seed.Close() // only read
		return context.Canceled
	}
	one.m, one.meta, one.seed = m, meta, seed
	s.tracker.Add(m, seed.Port())
	c.event("", EventImage, "%s: shared as %s, port %d, %s", name, m, seed.Port(), c.torrentURL(name))
	return nil
}

// seed shares a file on a port; 0 is any.
func (c *Conductor) seed(ctx context.Context, name string, m torrent.Meta, port int) (*torrent.Seeder, error) {
	o := torrent.Options{NoTrackers: true, Port: port, Up: int64(c.config.Torrent.UpKB) << 10}
	for _, p := range c.config.Torrent.Peers {
		o.Allow = append(o.Allow, netip.MustParsePrefix(p).Masked()) // the configuration was checked
	}
	f, _, err := c.openPublic(name)
	if err != nil {
		return nil, err
	}
	return torrent.SeedOf(ctx, m, f, o)
}

// end stops the seeding of one image, and says how much of it was sent.
func (one *shared) end(c *Conductor, name string) {
	if one.seed == nil {
		return
	}
	sent := one.seed.Stats().Up
	one.seed.Close() // only read
	one.seed = nil
	c.event("", EventImage, "%s: %d MiB were sent to nodes that share it, %.2f copies", name, sent>>20, float64(sent)/float64(one.m.Size))
}

// pause stops all seeding.
func (s *swarms) pause(c *Conductor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, one := range s.shared {
		one.end(c, name)
	}
}

// resume seeds again what pause has stopped.
func (s *swarms) resume(ctx context.Context, c *Conductor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, one := range s.shared {
		if one.meta == nil || one.seed != nil || s.closed {
			continue
		}
		seed, err := c.seed(ctx, name, one.m, one.port)
		if err != nil {
			return err
		}
		one.seed = seed
		s.tracker.Add(one.m, seed.Port())
	}
	return nil
}

// close ends all sharing.
func (s *swarms) close(c *Conductor) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.pause(c)
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
