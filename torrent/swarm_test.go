// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"github.com/ironhand/ironhand/stream"
)

// fakeDisk is a disk in memory that fails where it is told to.
type fakeDisk struct {
	mu     sync.Mutex
	b      []byte
	failAt int64 // writes that reach beyond this fail; 0 for none
}

func newDisk(size int64) *fakeDisk {
	d := &fakeDisk{b: make([]byte, size)}
	for i := range d.b {
		d.b[i] = 0xee // somebody's old data
	}
	return d
}

func (d *fakeDisk) ReadAt(b []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := copy(b, d.b[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (d *fakeDisk) WriteAt(b []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failAt > 0 && at+int64(len(b)) > d.failAt && at > stream.HeadSize && at+int64(len(b)) <= int64(len(d.b))-stream.HeadSize {
		return 0, errors.New("the power is gone")
	}
	return copy(d.b[at:], b), nil
}

func (d *fakeDisk) Zero(_ context.Context, at, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.b[at : at+n])
	return nil
}
func (d *fakeDisk) Size() int64     { return int64(len(d.b)) }
func (d *fakeDisk) SectorSize() int { return 512 }
func (d *fakeDisk) Sync() error     { return nil }
func (d *fakeDisk) Close() error    { return nil }

// makeImage writes an image with holes of all sizes to a file, and returns its bytes.
func makeImage(t testing.TB, size int) (string, []byte) {
	t.Helper()
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(1, uint64(size)))
	for at := 0; at < size; {
		n := min(1+r.IntN(3<<20), size-at)
		if r.IntN(3) > 0 {
			for i := at; i < at+n; i += 8 {
				v := r.Uint64()
				for k := i; k < min(i+8, at+n); k++ {
					b[k] = byte(v >> (8 * (k - i)))
				}
			}
		}
		at += n
	}
	copy(b, "a boot sector")
	name := filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name, b
}

// makeFull is makeImage with no piece that is all zeros.
func makeFull(t testing.TB, size int) (string, []byte) {
	t.Helper()
	name, b := makeImage(t, size)
	for at := 0; at < size; at += minPiece {
		b[at] |= 1
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name, b
}

func mustMake(t testing.TB, name string, o MakeOptions) Meta {
	t.Helper()
	m, err := Make(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// local is a node on the loopback interface, with an address of its own.
func local(n int) Options {
	return Options{Host: fmt.Sprintf("127.0.0.%d", n), Patience: 30 * time.Second}
}

func addr(s interface{ listens() netip.AddrPort }) netip.AddrPort { return s.listens() }

func (s *session) listens() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(s.o.Host), uint16(s.client.LocalPort()))
}

func mustSeed(t testing.TB, m Meta, name string, o Options) *Seeder {
	t.Helper()
	s, err := Seed(t.Context(), m, name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustOpen(t testing.TB, m Meta, o Options) *Source {
	t.Helper()
	s, err := Open(t.Context(), m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// deploy writes the image that s has to the disk, as image.Write does.
func deploy(ctx context.Context, s *Source, d stream.Target, want stream.Digest) (stream.Written, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if _, err := s.Start(ctx); err != nil {
		return stream.Written{}, err
	}
	m := stream.NewMeter()
	dst, x, err := s.Place(ctx, d, m)
	if err != nil {
		return stream.Written{}, err
	}
	r := stream.NewReader(ctx, []stream.Source{s}, want, stream.ReaderOptions{})
	defer r.Close()
	done := make(chan error, 1)
	go func() { done <- r.Verify() }()
	w, err := stream.Write(ctx, dst, stream.Sparse(x), stream.Options{Verify: func() error { return <-done }, Abort: func(err error) { cancel(err) }, ReadBack: stream.ReadBackFull, Meter: m})
	if err == nil && m.Progress().Read != s.Size() {
		err = fmt.Errorf("progress says %d bytes, want %d", m.Progress().Read, s.Size())
	}
	return w, err
}

func digestOf(b []byte) stream.Digest {
	sum := sha256.Sum256(b)
	d, err := stream.ParseDigest("sha256", hex.EncodeToString(sum[:]))
	if err != nil {
		panic(err)
	}
	return d
}

func sameDisk(t testing.TB, d *fakeDisk, image []byte) {
	t.Helper()
	if !bytes.Equal(d.b[:len(image)], image) {
		for i := range image {
			if d.b[i] != image[i] {
				t.Fatalf("disk differs from the image from byte %d on", i)
			}
		}
	}
}

func TestDeployByPlace(t *testing.T) {
	for _, c := range []struct {
		name        string
		version     Version
		size        int
		piece, room int64
		disk        int64
	}{
		{"hybrid", Hybrid, 24<<20 + 777, 0, 0, 64 << 20},
		{"version 1", V1, 24<<20 + 512, 1 << 20, 4 << 20, 24<<20 + 512},
		{"version 2", V2, 24 << 20, 64 << 10, 1 << 20, 24<<20 + 4096},
		{"large pieces in a small window", V2, 40 << 20, 4 << 20, 1, 64 << 20},
		{"one piece", V2, 3 << 20, 4 << 20, 0, 8 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, image := makeImage(t, c.size)
			m := mustMake(t, name, MakeOptions{Version: c.version, PieceLength: c.piece})
			seed := mustSeed(t, m, name, local(1))
			o := local(2)
			o.Peers, o.Window = []netip.AddrPort{addr(seed)}, c.room
			s := mustOpen(t, m, o)
			d := newDisk(c.disk)
			w, err := deploy(t.Context(), s, d, digestOf(image))
			if err != nil {
				t.Fatal(err)
			}
			sameDisk(t, d, image)
			if w.Zeroed == 0 && c.size > 20<<20 {
				t.Error("no hole was left out")
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for i := range s.pieces {
				if s.pieces[i].buf != nil {
					t.Fatalf("piece %d is still in memory", i)
				}
			}
		})
	}
}

func TestReadInOrder(t *testing.T) {
	name, image := makeImage(t, 24<<20+777)
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers, o.Window = []netip.AddrPort{addr(seed)}, 2<<20
	s := mustOpen(t, m, o)
	r := stream.NewReader(t.Context(), []stream.Source{s}, digestOf(image), stream.ReaderOptions{Connections: 4})
	defer r.Close()
	got, err := io.ReadAll(r)
	if err == nil {
		err = r.Verify()
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, image) {
		t.Error("what was read is not the image")
	}
	// Once more, from somewhere before: what was given up comes again.
	part, err := s.Open(t.Context(), 5<<20+5)
	if err != nil {
		t.Fatal(err)
	}
	again := make([]byte, 3<<20)
	if _, err := io.ReadFull(part, again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, image[5<<20+5:][:len(again)]) {
		t.Error("what was read again is not the image")
	}
}

// track starts a tracker with TLS and returns its URL and a transport that trusts it.
func track(t testing.TB) (*Tracker, string, http.RoundTripper) {
	t.Helper()
	tr := &Tracker{}
	srv := httptest.NewTLSServer(tr)
	t.Cleanup(srv.Close)
	return tr, srv.URL + "/announce", srv.Client().Transport
}

// from is the transport of a node that has one address.
func from(t http.RoundTripper, host string) http.RoundTripper {
	own := t.(*http.Transport).Clone()
	own.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}).DialContext
	return own
}

// Nodes that start together have most of the image from each other. A machine that is too busy for them to keep up with the seeder has it send more, so they have three tries; each node asking
// the seeder for whatever it lacks makes 1.5 copies and more every time.
func TestSwarm(t *testing.T) {
	const most = 1.4
	copies := 0.0
	for range 3 {
		if copies = sentCopies(t); copies <= most || t.Failed() {
			return
		}
	}
	t.Errorf("the seeder has sent %.2f copies, three times in a row more than %v", copies, most)
}

// sentCopies has nodes fetch an image, and returns how many copies of it the seeder has sent.
func sentCopies(t *testing.T) (copies float64) {
	tr, url, transport := track(t)
	name, image := makeFull(t, 32<<20)
	m := mustMake(t, name, MakeOptions{Trackers: []string{url}, PieceLength: 256 << 10})
	tr.Add(m, 0)
	o := local(1)
	o.Transport, o.Up = transport, 4<<20 // slow enough for most machines to keep up
	seed := mustSeed(t, m, name, o)
	const nodes = 6
	var all sync.WaitGroup
	begin := time.Now()
	for n := range nodes {
		o := local(10 + n)
		o.Transport = from(transport, o.Host)
		all.Go(func() {
			s := mustOpen(t, m, o)
			d := newDisk(64 << 20)
			if _, err := deploy(t.Context(), s, d, digestOf(image)); err != nil {
				t.Errorf("node %d: %v", n, err)
				return
			}
			sameDisk(t, d, image)
		})
	}
	all.Wait()
	copies = float64(seed.Stats().Up) / float64(len(image))
	t.Logf("%d nodes in %v; the seeder has sent %.2f copies", nodes, time.Since(begin), copies)
	return copies
}

// Nodes that read the image in order, as packed images are, and start together have most of it from each other.
func TestSwarmInOrder(t *testing.T) {
	tr, url, transport := track(t)
	name, image := makeFull(t, 24<<20)
	m := mustMake(t, name, MakeOptions{Trackers: []string{url}, PieceLength: 256 << 10})
	tr.Add(m, 0)
	o := local(1)
	o.Transport, o.Up = transport, 3<<20 // slow enough for a busy machine to keep up
	seed := mustSeed(t, m, name, o)
	const nodes = 4
	var all sync.WaitGroup
	begin := time.Now()
	for n := range nodes {
		o := local(10 + n)
		o.Transport = from(transport, o.Host)
		all.Go(func() {
			r := stream.NewReader(t.Context(), []stream.Source{mustOpen(t, m, o)}, digestOf(image), stream.ReaderOptions{})
			defer r.Close()
			if err := r.Verify(); err != nil {
				t.Errorf("node %d: %v", n, err)
			}
		})
	}
	all.Wait()
	copies := float64(seed.Stats().Up) / float64(len(image))
	t.Logf("%d nodes in %v; the seeder has sent %.2f copies", nodes, time.Since(begin), copies)
	if copies > 2 { // each node asking the seeder for what it reads next makes 2.6
		t.Errorf("the seeder has sent %.2f copies for %d nodes", copies, nodes)
	}
}

// A node that reads nearby and stands still is not waited for, though it is its turn to take what others need.
func TestTurnOfWhoStandsStill(t *testing.T) {
	name, image := makeImage(t, 24<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers = []netip.AddrPort{addr(seed)}
	still := mustOpen(t, m, o)
	r, err := still.Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	o = local(3)
	o.Peers, o.Patience = []netip.AddrPort{addr(seed), addr(still)}, 30*time.Second
	reader := stream.NewReader(t.Context(), []stream.Source{mustOpen(t, m, o)}, digestOf(image), stream.ReaderOptions{})
	defer reader.Close()
	if err := reader.Verify(); err != nil {
		t.Error(err)
	}
}

// Each piece is the turn of one node, by the reckoning of all, and each node has its share.
func TestTurns(t *testing.T) {
	const nodes, pieces = 5, 1000
	turns := map[int]int{}
	for i := range pieces {
		best := 0
		for n := range nodes {
			if weight(uint64(n), i) > weight(uint64(best), i) {
				best = n
			}
		}
		turns[best]++
	}
	for n := range nodes {
		if turns[n] < pieces/nodes*3/4 || turns[n] > pieces/nodes*5/4 {
			t.Errorf("node %d has %d turns of %d", n, turns[n], pieces)
		}
	}
}

// The magnet link has the hash alone; what is in the torrent comes from a peer.
func TestMagnet(t *testing.T) {
	for _, version := range []Version{Hybrid, V1, V2} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			tr, url, transport := track(t)
			name, image := makeImage(t, 8<<20)
			m := mustMake(t, name, MakeOptions{Trackers: []string{url}, PieceLength: 256 << 10, Version: version})
			tr.Add(m, 0)
			o := local(1)
			o.Transport = transport
			mustSeed(t, m, name, o)
			text := m.Magnet()
			if strings.Count(text, "dn="+filepath.Base(name)) != 1 {
				t.Errorf("the image's name is not there once: %s", text)
			}
			link, err := ParseMagnet(text)
			if err != nil {
				t.Fatal(err)
			}
			o = local(2)
			o.Transport = transport
			s := mustOpen(t, link, o)
			if s.Size() != int64(len(image)) {
				t.Errorf("size is %d, want %d", s.Size(), len(image))
			}
			d := newDisk(16 << 20)
			if _, err := deploy(t.Context(), s, d, digestOf(image)); err != nil {
				t.Fatal(err)
			}
			sameDisk(t, d, image)
		})
	}
}

// liar has all pieces, and sends others.
type liar struct{}

func (liar) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{Piece: func(metainfo.Piece) storage.PieceImpl { return lie{} }, Close: func() error { return nil }}, nil
}

type lie struct{}

func (lie) ReadAt(b []byte, _ int64) (int, error) {
	for i := range b {
		b[i] = 0x55
	}
	return len(b), nil
}
func (lie) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (lie) MarkComplete() error                    { return nil }
func (lie) MarkNotComplete() error                 { return nil }
func (lie) Completion() storage.Completion         { return storage.Completion{Ok: true, Complete: true} }

func TestPeerThatLies(t *testing.T) {
	name, image := makeImage(t, 16<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
	o := local(3).filled()
	bad, err := start(t.Context(), m, o)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.close()
	if err := bad.t.OpenStorage(t.Context(), liar{}); err != nil {
		t.Fatal(err)
	}
	o = local(1)
	o.Up = 8 << 20 // else it would all be over before the other has a chance to lie
	seed := mustSeed(t, m, name, o)
	o = local(2)
	o.Peers = []netip.AddrPort{addr(bad), addr(seed)}
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s := mustOpen(t, m, o)
	d := newDisk(32 << 20)
	if _, err := deploy(t.Context(), s, d, digestOf(image)); err != nil {
		t.Fatal(err)
	}
	sameDisk(t, d, image)
	st := s.Stats()
	if lies := bad.stats().Up; lies == 0 {
		t.Error("it did not lie")
	} else if lies > int64(len(image)) {
		t.Errorf("%d bytes of lies were taken", lies)
	}
	if st.Banned != 1 {
		t.Errorf("%d peers are banned, want 1", st.Banned)
	}
}

// mirror serves an image to web seeds; each answer after the first broken ones is cut short.
type mirror struct {
	image  []byte
	sent   atomic.Int64
	broken atomic.Bool
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.broken.Load() {
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("ETag", `"1"`)
	http.ServeContent(&counted{w, m}, r, "image.raw", time.Time{}, bytes.NewReader(m.image))
}

type counted struct {
	http.ResponseWriter
	m *mirror
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.m.sent.Add(int64(n))
	return n, err
}

func TestWebSeeds(t *testing.T) {
	name, image := makeImage(t, 16<<20+100)
	wrong := bytes.Repeat([]byte("no"), len(image)/2)
	for _, c := range []struct {
		name    string
		version Version
		mirrors func(good, bad string) []string
	}{
		{"alone", V1, func(good, _ string) []string { return []string{good} }},
		{"of version 2", V2, func(good, _ string) []string { return []string{good} }},
		{"as a directory", Hybrid, func(good, _ string) []string { return []string{strings.TrimSuffix(good, "image.raw")} }},
		{"with another file", Hybrid, func(good, bad string) []string { return []string{bad, good} }},
		{"that is away", Hybrid, func(good, _ string) []string { return []string{"http://127.0.0.1:1/image.raw", good} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			good, bad := httptest.NewServer(&mirror{image: image}), httptest.NewServer(&mirror{image: wrong})
			defer good.Close()
			defer bad.Close()
			m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10, Version: c.version, WebSeeds: c.mirrors(good.URL+"/image.raw", bad.URL+"/image.raw")})
			o := local(2)
			o.Transport = http.DefaultTransport
			s := mustOpen(t, m, o)
			d := newDisk(32 << 20)
			if _, err := deploy(t.Context(), s, d, digestOf(image)); err != nil {
				t.Fatal(err)
			}
			sameDisk(t, d, image)
			if web, want := s.Stats().Web, dataIn(image, 256<<10); web != want {
				t.Errorf("%d bytes came from web seeds, want %d", web, want)
			}
		})
	}
}

// Peers and mirrors come and go; as long as there is one at a time the image gets there.
func TestLosesAllPeersAndAllMirrors(t *testing.T) {
	name, image := makeImage(t, 32<<20)
	web := &mirror{image: image}
	srv := httptest.NewServer(web)
	defer srv.Close()
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10, WebSeeds: []string{srv.URL}})
	web.broken.Store(true)
	o := local(1)
	o.Up = 8 << 20
	first := mustSeed(t, m, name, o)
	o = local(2)
	o.Peers, o.Down = []netip.AddrPort{addr(first)}, 8<<20
	s := mustOpen(t, m, o)
	second := mustSeed(t, m, name, local(4)) // of whom nobody knows yet
	ctx, end := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for s.Stats().Down < 4<<20 && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		first.Close() // all peers are gone
		time.Sleep(200 * time.Millisecond)
		web.broken.Store(false)
		for s.Stats().Web < 4<<20 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		web.broken.Store(true) // all mirrors
		s.addPeers([]netip.AddrPort{addr(second)})
	})
	d := newDisk(64 << 20)
	_, err := deploy(ctx, s, d, digestOf(image))
	end()
	all.Wait()
	if err != nil {
		t.Fatal(err)
	}
	sameDisk(t, d, image)
}

// What a try that was cut short has left on the disk need not come again.
func TestGoesOnAfterRestart(t *testing.T) {
	name, image := makeImage(t, 48<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
	seed := mustSeed(t, m, name, local(1))
	d := newDisk(64 << 20)

	// 1. The power goes in the middle: the disk keeps what it has.
	o := local(2)
	o.Peers, o.Window = []netip.AddrPort{addr(seed)}, 4<<20
	s := mustOpen(t, m, o)
	ctx, cancel := context.WithCancel(t.Context())
	cut := &cutDisk{fakeDisk: d, after: 24 << 20, cut: cancel}
	if _, err := deploy(ctx, s, cut, digestOf(image)); err == nil {
		t.Fatal("the first try was to be cut short")
	}
	s.Close()
	if half, err := stream.Unfinished(bytes.NewReader(d.b)); err != nil || !half {
		t.Fatalf("the disk does not tell that it is not whole: %v", err)
	}
	before := seed.Stats().Up

	// 2. The machine comes back.
	s = mustOpen(t, m, o)
	if _, err := deploy(t.Context(), s, d, digestOf(image)); err != nil {
		t.Fatal(err)
	}
	sameDisk(t, d, image)
	again, found := seed.Stats().Up-before, s.Stats().Found
	if found < 15<<20 || again > int64(len(image))-found+4<<20 {
		t.Errorf("%d bytes were found on the disk, and %d came again, of %d", found, again, len(image))
	}
}

// cutDisk is a machine whose power goes: nothing that comes later has any effect.
type cutDisk struct {
	*fakeDisk
	after int64
	dead  atomic.Bool
	n     atomic.Int64
	cut   func()
}

func (d *cutDisk) WriteAt(b []byte, at int64) (int, error) {
	if d.dead.Load() {
		return 0, errors.New("the power is gone")
	}
	if d.n.Add(int64(len(b))) > d.after {
		d.dead.Store(true)
		d.cut()
	}
	return d.fakeDisk.WriteAt(b, at)
}

func (d *cutDisk) Zero(ctx context.Context, at, n int64) error {
	if d.dead.Load() {
		return errors.New("the power is gone")
	}
	return d.fakeDisk.Zero(ctx, at, n)
}

// A disk that takes nothing ends the deployment at once, and leaves no goroutine that waits.
func TestDiskFails(t *testing.T) {
	name, image := makeImage(t, 24<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers = []netip.AddrPort{addr(seed)}
	s := mustOpen(t, m, o)
	d := newDisk(32 << 20)
	d.failAt = 8 << 20
	_, err := deploy(t.Context(), s, d, digestOf(image))
	if err == nil || !strings.Contains(err.Error(), "the power is gone") {
		t.Errorf("error is %v, want that of the disk", err)
	}
	if !bytes.Equal(d.b[:stream.HeadSize], make([]byte, stream.HeadSize)) {
		t.Error("the start of the disk is not zero after a failure")
	}
}

// The hash of the whole image is that of another: the infohash was right, the conductor wants something else.
func TestOtherDigest(t *testing.T) {
	name, image := makeImage(t, 8<<20)
	m := mustMake(t, name, MakeOptions{})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers = []netip.AddrPort{addr(seed)}
	s := mustOpen(t, m, o)
	d := newDisk(16 << 20)
	if _, err := deploy(t.Context(), s, d, digestOf(image[1:])); !errors.Is(err, stream.ErrDigest) {
		t.Errorf("error is %v, want %v", err, stream.ErrDigest)
	}
	if !bytes.Equal(d.b[:stream.HeadSize], make([]byte, stream.HeadSize)) {
		t.Error("the start of the disk is not zero after a failure")
	}
}

func TestNobodyHasIt(t *testing.T) {
	name, image := makeImage(t, 8<<20)
	m := mustMake(t, name, MakeOptions{Trackers: []string{"https://127.0.0.1:1/announce"}})
	o := local(2)
	o.Patience = 300 * time.Millisecond
	s := mustOpen(t, m, o)
	if _, err := deploy(t.Context(), s, newDisk(16<<20), digestOf(image)); err == nil || !strings.Contains(err.Error(), "0 peers are connected") {
		t.Errorf("error is %v, want that nobody is there", err)
	}
}

// A node shares what it has written, until a later step changes it on the disk: what is changed is not sent to anybody.
func TestSharesFromTheDisk(t *testing.T) {
	name, image := makeImage(t, 24<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers = []netip.AddrPort{addr(seed)}
	first := mustOpen(t, m, o)
	d := newDisk(32 << 20)
	if _, err := deploy(t.Context(), first, d, digestOf(image)); err != nil {
		t.Fatal(err)
	}
	seed.Close()
	// A later step changes the partition table, which is shared from memory, and some file.
	copy(d.b, "another boot sector")
	d.b[10<<20] ^= 1
	o = local(4)
	web := httptest.NewServer(&mirror{image: image})
	defer web.Close()
	o.Peers, o.WebSeeds = []netip.AddrPort{addr(first)}, []string{web.URL}
	second := mustOpen(t, m, o)
	e := newDisk(32 << 20)
	if _, err := deploy(t.Context(), second, e, digestOf(image)); err != nil {
		t.Fatal(err)
	}
	sameDisk(t, e, image)
	st := second.Stats()
	if st.Banned != 0 || st.Down < dataIn(image, 256<<10)/2 {
		t.Errorf("%d peers are banned, %d bytes came from the first node and %d from the mirror", st.Banned, st.Down, st.Web)
	}
}

func TestAllowedPeers(t *testing.T) {
	name, image := makeImage(t, 4<<20)
	m := mustMake(t, name, MakeOptions{})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers, o.Patience = []netip.AddrPort{addr(seed)}, 500*time.Millisecond
	o.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/29")}
	s := mustOpen(t, m, o)
	if _, err := deploy(t.Context(), s, newDisk(8<<20), digestOf(image)); err == nil {
		t.Error("the image came from a peer that is not allowed")
	}
	// And the other way round: who is not allowed gets nothing from us. Connections on this machine come from 127.0.0.1.
	for _, c := range []struct {
		network string
		gets    bool
	}{{"127.0.0.8/29", false}, {"127.0.0.0/30", true}} {
		o = local(1)
		o.Allow = []netip.Prefix{netip.MustParsePrefix(c.network)}
		strict := mustSeed(t, m, name, o)
		o = local(2)
		o.Peers = []netip.AddrPort{addr(strict)}
		if !c.gets {
			o.Patience = 2 * time.Second
		}
		s = mustOpen(t, m, o)
		if _, err := deploy(t.Context(), s, newDisk(8<<20), digestOf(image)); (err == nil) != c.gets {
			t.Errorf("with peers of %s: error is %v", c.network, err)
		}
	}
}

// serve is a web server without TLS.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}
