// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ironhand/ironhand/torrent"
)

func torrentCommand() command {
	return command{
		name: "torrent", args: "make FILE [--tracker URL]... [--web-seed URL]... [--out FILE] [--hashes 1|2|both] | seed FILE TORRENT [--cafile FILE]",
		help:    "Describe an image for BitTorrent, or share it with the machines that fetch it so.",
		example: "ironhand torrent make debian.img --tracker https://192.0.2.1:6385/announce --web-seed https://192.0.2.1/debian.img",
		run:     runTorrent,
	}
}

// swarmFlags adds the flags for taking part in a swarm.
func swarmFlags(f *flag.FlagSet) func() (torrent.Options, error) {
	var o torrent.Options
	f.IntVar(&o.Port, "torrent-port", 0, "of a torrent: the `PORT` for other peers; 0 for any")
	up := f.Int64("torrent-up", 0, "of a torrent: send at most so many `KiB` per second; 0 for no limit")
	down := f.Int64("torrent-down", 0, "of a torrent: take at most so many `KiB` per second; 0 for no limit")
	f.Func("torrent-peers", "of a torrent: `NETWORK` that peers may be in, such as 192.0.2.0/24; may be given several times; without, all", func(s string) error {
		p, err := netip.ParsePrefix(s)
		if err == nil {
			o.Allow = append(o.Allow, p.Masked())
		}
		return err
	})
	f.Func("peer", "of a torrent: `HOST:PORT` of a peer that no tracker need name; may be given several times", func(s string) error {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err == nil && (a.IP == nil || a.Port == 0) {
			err = errors.New("want HOST:PORT")
		}
		if err == nil {
			peer := a.AddrPort()
			o.Peers = append(o.Peers, netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()))
		}
		return err
	})
	return func() (torrent.Options, error) {
		if o.Port < 0 || o.Port > 65535 {
			return o, usagef("--torrent-port %d: want a port", o.Port)
		}
		if *up < 0 || *down < 0 || *up > 1<<32 || *down > 1<<32 {
			return o, usagef("--torrent-up, --torrent-down: want a rate")
		}
		o.Up, o.Down = *up<<10, *down<<10
		return o, nil
	}
}

func runTorrent(ctx context.Context, c *call) error {
	var o torrent.MakeOptions
	address := func(list *[]string) func(string) error {
		return func(s string) error {
			if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return errors.New("want a URL that begins with http:// or https://")
			}
			*list = append(*list, s)
			return nil
		}
	}
	c.flags.Func("tracker", "`URL` of a tracker (make); may be given several times", address(&o.Trackers))
	c.flags.Func("web-seed", "`URL` of the same image on a web server (make); may be given several times", address(&o.WebSeeds))
	out := c.flags.String("out", "", "`file` to write (make); without, the name of the image and .torrent")
	hashes := c.flags.String("hashes", "1", "which `version` of BitTorrent it is for: 1, which every client knows; 2, which is faster between nodes; both, which some old clients do not read (make)")
	c.flags.StringVar(&o.Name, "name", "", "`name` of the image in the torrent (make); without, that of the file")
	piece := c.flags.Int64("piece", 0, "length of pieces in `KiB`, a power of two from 16 to 16384 (make); 0 for one that fits")
	caFile := c.flags.String("cafile", "", "`file` of CA certificates, PEM: with it no other CA is trusted (seed)")
	swarm := swarmFlags(c.flags)
	args, err := c.parse(1, 3)
	if err != nil {
		return err
	}
	switch {
	case args[0] == "make" && len(args) == 2:
		switch *hashes {
		case "both":
			o.Version = torrent.Hybrid
		case "1":
		case "2":
			o.Version = torrent.V2
		default:
			return usagef("--hashes %s: want 1, 2 or both", *hashes)
		}
		if *piece < 0 || *piece > 1<<20 {
			return usagef("--piece %d: want a power of two from 16 to 16384", *piece)
		}
		o.PieceLength = *piece << 10
		return makeTorrent(ctx, c, args[1], *out, o)
	case args[0] == "seed" && len(args) == 3:
		o, err := swarm()
		if err != nil {
			return err
		}
		return seedTorrent(ctx, c, args[1], args[2], *caFile, o)
	}
	return usagef("want make FILE, or seed FILE TORRENT")
}

func makeTorrent(ctx context.Context, c *call, file, out string, o torrent.MakeOptions) error {
	m, err := torrent.Make(ctx, file, o)
	if err != nil {
		return err
	}
	b, err := m.Bytes()
	if err != nil {
		return err
	}
	if out == "" {
		out = filepath.Base(file) + ".torrent"
	}
	if err := os.WriteFile(out, b, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: %s\n%s\n", out, m, m.Magnet())
	return err
}

// seedTorrent shares until it is interrupted.
func seedTorrent(ctx context.Context, c *call, file, name, caFile string, o torrent.Options) error {
	w, err := newWeb(caFile, "", time.Minute)
	if err != nil {
		return err
	}
	m, err := w.metainfo(ctx, name, false, false)
	if err != nil {
		return err
	}
	o.Transport, o.Log = w.transport, slog.New(slog.NewTextHandler(c.stderr, nil))
	fmt.Fprintf(c.stderr, "reading %s\n", file)
	s, err := torrent.Seed(ctx, m, file, o)
	if err != nil {
		return err
	}
	defer s.Close() // only read
	fmt.Fprintf(c.stderr, "sharing %s on port %d%s; interrupt to end\n", m, s.Port(), trackersOf(m))
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	var told int64 = -1
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if st := s.Stats(); st.Up != told {
				told = st.Up
				fmt.Fprintf(c.stderr, "%d peers, %d MiB sent, %.2f copies\n", st.Peers, st.Up>>20, float64(st.Up)/float64(m.Size))
			}
		}
	}
}

// trackersOf names the hosts of the trackers alone: a URL may have a secret in it.
func trackersOf(m torrent.Meta) string {
	var hosts []string
	for _, t := range m.Trackers {
		if u, err := url.Parse(t); err == nil {
			hosts = append(hosts, u.Host)
		}
	}
	if len(hosts) == 0 {
		return ", without a tracker"
	}
	return ", found through " + strings.Join(hosts, ", ")
}
