// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream"
)

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		from, host string
		refused    bool
	}{
		{"", "127.0.0.1", false},
		{"images.test", "192.0.2.1", false},
		{"images.test", "10.0.0.1", false},
		{"images.test", "tracker.test", false},
		{"images.test", "127.0.0.1", true},
		{"images.test", "127.1.2.3", true},
		{"images.test", "::1", true},
		{"images.test", "::ffff:127.0.0.1", true},
		{"images.test", "0.0.0.0", true},
		{"images.test", "LocalHost.", true},
		{"images.test", "a.localhost", true},
		{"images.test", "169.254.169.254", true},
		{"images.test", "::ffff:169.254.169.254", true},
		{"images.test", "fe80::1%eth0", true},
		{"images.test", "224.0.0.1", true},
		{"192.0.2.1", "169.254.169.254", true},
		{"127.0.0.1", "127.0.0.2", false},
		{"localhost", "::1", false},
		{"127.0.0.1", "169.254.169.254", true},
		{"169.254.1.1", "169.254.1.2", false},
		{"fe80::1%eth0", "fe80::2%eth0", false},
		{"169.254.1.1", "127.0.0.1", true},
	} {
		err := guardOf(c.from).refuse(c.host)
		if (err != nil) != c.refused || err != nil && (!stream.IsFinal(err) || !strings.Contains(err.Error(), c.host)) {
			t.Errorf("a torrent from %q that names %q: %v", c.from, c.host, err)
		}
	}
}

// names is a network of names that are found at addresses: all of them are one server on this machine.
type names map[string]string

type seen struct {
	net.Conn
	at net.Addr
}

func (c seen) RemoteAddr() net.Addr { return c.at }

func (n names) transport(server string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		at, ok := n[host]
		if !ok {
			return nil, fmt.Errorf("no such host: %s", host)
		}
		c, err := new(net.Dialer).DialContext(ctx, network, server)
		if err != nil {
			return nil, err
		}
		return seen{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(at), 80))}, nil
	}}
}

// What a torrent names is not asked for where only this machine reaches it, by whatever name and redirect; what the operator names is.
func TestTorrentNamesThisMachine(t *testing.T) {
	name, image := makeImage(t, 1<<20)
	plain := mustMake(t, name, MakeOptions{})
	hosts := names{"images.test": "127.0.1.1", "good.test": "192.0.2.1", "inside.test": "127.0.0.1", "metadata.test": "169.254.169.254", "169.254.169.254": "169.254.169.254", "proxy.test": "127.0.0.1"}
	for _, c := range []struct {
		name          string
		from          string
		tracker, seed string
		own           string // a mirror that the operator names
		proxy         string
		asked         string // hosts
		whole         bool   // the image comes
		refused       string // what the log names
	}{
		{name: "elsewhere", from: "images.test", tracker: "http://good.test/announce", seed: "http://good.test/image.raw", asked: "good.test", whole: true},
		{name: "its own server, wherever that is", from: "images.test", tracker: "http://images.test/announce", seed: "http://images.test/image.raw", asked: "images.test", whole: true},
		{name: "by address", from: "images.test", tracker: "http://169.254.169.254/announce", seed: "http://169.254.169.254/latest", refused: "169.254.169.254"},
		{name: "by name", from: "images.test", tracker: "http://metadata.test/announce", seed: "http://inside.test/image.raw", refused: "inside.test"},
		{name: "by redirect", from: "images.test", seed: "http://good.test/to/169.254.169.254", asked: "good.test", refused: "169.254.169.254"},
		{name: "by redirect to a name", from: "images.test", seed: "http://good.test/to/inside.test", asked: "good.test", refused: "inside.test"},
		{name: "through a proxy here", from: "images.test", seed: "http://good.test/image.raw", proxy: "http://proxy.test", asked: "good.test", whole: true},
		{name: "by address through a proxy", from: "images.test", seed: "http://169.254.169.254/image.raw", proxy: "http://proxy.test", refused: "169.254.169.254"},
		{name: "by the operator", from: "images.test", own: "http://inside.test/image.raw", asked: "inside.test", whole: true},
		{name: "from a file", tracker: "http://metadata.test/announce", seed: "http://inside.test/image.raw", asked: "inside.test metadata.test", whole: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			asked := map[string]bool{}
			server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked[r.Host] = true
				mu.Unlock()
				if to, ok := strings.CutPrefix(r.URL.Path, "/to/"); ok {
					http.Redirect(w, r, "http://"+to+"/image.raw", http.StatusFound)
					return
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(image))
			}))
			m := plain
			m.From = c.from
			if c.tracker != "" {
				m.Trackers = []string{c.tracker}
			}
			if c.seed != "" {
				m.WebSeeds = []string{c.seed}
			}
			transport := hosts.transport(strings.TrimPrefix(server, "http://"))
			if c.proxy != "" {
				u, err := url.Parse(c.proxy)
				if err != nil {
					t.Fatal(err)
				}
				transport.Proxy = http.ProxyURL(u)
			}
			var log lines
			o := local(2)
			o.Transport, o.Patience, o.Log = transport, 10*time.Second, slog.New(slog.NewTextHandler(&log, nil))
			if !c.whole {
				o.Patience = 4 * time.Second
			}
			if c.own != "" {
				o.WebSeeds = []string{c.own}
			}
			s := mustOpen(t, m, o)
			if _, err := deploy(t.Context(), s, newDisk(4<<20), digestOf(image)); (err == nil) != c.whole {
				t.Errorf("deploy: %v", err)
			}
			want := map[string]bool{}
			for _, h := range strings.Fields(c.asked) {
				want[h] = true
			}
			all := func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(asked) >= len(want)
			}
			for end := time.Now().Add(20 * time.Second); !all() && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond) // the image may be there before the tracker is asked
			}
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(asked) != fmt.Sprint(want) {
				t.Errorf("asked were %v, want %v", asked, want)
			}
			if text := log.String(); c.refused != "" && !strings.Contains(text, c.refused) || c.refused == "" && strings.Contains(text, "must not") {
				t.Errorf("the log does not say what was refused (%s):\n%s", c.refused, text)
			}
		})
	}
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Trackers that are spoken to by UDP are left out, in whatever way they are named.
func TestNoTrackerByUDP(t *testing.T) {
	name, _ := makeImage(t, 1<<20)
	m := mustMake(t, name, MakeOptions{Trackers: []string{"udp://192.0.2.1:6969/announce", "http://192.0.2.1/announce"}, WebSeeds: []string{"ftp://192.0.2.1/image.raw"}})
	if got := strings.Join(append(m.Trackers, m.WebSeeds...), " "); got != "http://192.0.2.1/announce" {
		t.Errorf("used are %s", got)
	}
}

// The host that a metainfo is fetched from is known with it.
func TestFetchKeepsHost(t *testing.T) {
	name, _ := makeImage(t, 1<<20)
	b, err := mustMake(t, name, MakeOptions{}).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }))
	src, err := stream.NewHTTP(strings.Replace(server, "http://", "http://me:hush@", 1)+"/image.torrent?key=1", stream.HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Fetch(t.Context(), src, stream.ReaderOptions{})
	if err != nil || m.From != "127.0.0.1" {
		t.Errorf("Fetch() = from %q, %v", m.From, err)
	}
}

// A node whose port is taken listens on another one, which it tells the tracker; a seeder, whose port an operator has opened for it, does not.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	var told atomic.Value
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told.Store(r.URL.Query().Get("port"))
		http.Error(w, "", http.StatusNotFound)
	}))
	name, _ := makeImage(t, 1<<20)
	m := mustMake(t, name, MakeOptions{Trackers: []string{server + "/announce"}})
	var log lines
	o := local(2)
	o.Port, o.Log = port, slog.New(slog.NewTextHandler(&log, nil))
	s := mustOpen(t, m, o)
	if s.Port() == port || s.Port() == 0 || !strings.Contains(log.String(), fmt.Sprint(port)) {
		t.Errorf("it listens on %d, %d was in use; log: %s", s.Port(), port, log.String())
	}
	for end := time.Now().Add(10 * time.Second); told.Load() == nil && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if told.Load() != fmt.Sprint(s.Port()) {
		t.Errorf("the tracker was told of port %v, it listens on %d", told.Load(), s.Port())
	}
	if seed, err := Seed(t.Context(), m, name, o); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d", port)) {
		t.Errorf("Seed() = %v, %v, want an error with the port", seed, err)
	}
}
