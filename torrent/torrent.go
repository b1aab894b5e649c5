// SPDX-License-Identifier: Apache-2.0

// Package torrent shares images by BitTorrent: a rack of machines gets one in the time of one machine.
//
// [Parse], [ParseMagnet] and [Make] are about metainfo; [Open] takes part in a swarm, as a source of package stream; [Seed] shares a file; a [Tracker] tells
// peers of each other.
//
// Only TCP is spoken, and peers come from the trackers of the torrent: there is no DHT, no exchange of peers, no search in the local network, no port that a router is asked to
// open. What peers send counts when its hash is right; who sends what is not is not listened to any more. Web seeds (BEP 19) are used like any other web server of images, when no peer
// has what is wanted.
//
// Of an image a few pieces at a time are in memory, whatever its length. Nothing is written to disk but by package stream.
package torrent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/iplist"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/peer_protocol"
	"github.com/anacrolix/torrent/storage"
	infohash2 "github.com/anacrolix/torrent/types/infohash-v2"
	"golang.org/x/time/rate"

	"github.com/ironhand/ironhand/stream"
)

// Options is how to take part in a swarm. The zero value is usable.
type Options struct {
	Host string // address to listen on; empty for all
	Port int    // to listen on; 0 for any. Open takes any if this one is in use, Seed does not.
	// Transport is for trackers and web seeds: its TLS settings are those that are used, as in stream.HTTPOptions. Nil stands for http.DefaultTransport.
	Transport http.RoundTripper
	// Authorization returns the value of the header of that name for a web seed or tracker, of which it gets the URL without user, query and path; empty, and nil, for the user in the URL.
	Authorization func(origin *url.URL) string
	Allow         []netip.Prefix   // networks that peers may be in; empty for all
	Peers         []netip.AddrPort // that are known without a tracker
	WebSeeds      []string         // besides those of the torrent
	NoTrackers    bool             // do not announce
	Up, Down      int64            // bytes per second, at the most; 0 for no limit
	// Patience is how long to wait for a byte of the image; 0 stands for 5 min.
	Patience time.Duration
	Window   int64        // bytes of pieces to have in memory; 0 stands for 16 MiB
	Log      *slog.Logger // hears of trackers that do not answer and of peers that were banned; nil is silent
}

const (
	clientID      = "-IH0100-" // the start of a node's ID (BEP 20)
	defaultWindow = 16 << 20
	// minBurst is what a rate limit has to let through at a time: a request of a peer, which some make 128 KiB long.
	minBurst = 256 << 10
)

func (o Options) filled() Options {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.Patience <= 0 {
		o.Patience = 5 * time.Minute
	}
	if o.Window <= 0 {
		o.Window = defaultWindow
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// allowed tells whether a peer may have this address.
func (o Options) allowed(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return len(o.Allow) == 0 || slices.ContainsFunc(o.Allow, func(p netip.Prefix) bool { return p.Contains(a) })
}

// authorization asks for that of a URL.
func (o Options) authorization(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || o.Authorization == nil {
		return ""
	}
	return o.Authorization(&url.URL{Scheme: u.Scheme, Host: u.Host})
}

// fence is the list of networks in the library's form, which asks for addresses that are blocked.
type fence struct{ o Options }

func (f fence) NumRanges() int { return len(f.o.Allow) }

func (f fence) Lookup(ip net.IP) (iplist.Range, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return iplist.Range{Description: "not in the networks of peers"}, !ok || !f.o.allowed(a)
}

// session is one torrent in a client of its own.
type session struct {
	o       Options
	meta    Meta
	client  *torrent.Client
	t       *torrent.Torrent
	ctx     context.Context
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when the announcing has ended
	webHTTP []stream.Source
	asking  http.RoundTripper // what the torrent names

	peersMu sync.Mutex
	peers   map[netip.AddrPort]bool // that were named; the library forgets those that it is connected to no more

	spared atomic.Pointer[spared]
	told   map[*torrent.PeerConn]int // how many requests those that are spared take; guarded by the library's lock
}

// spared are the peers that are not asked for more than so much at a time, because all need them.
type spared struct {
	peers map[*torrent.PeerConn]bool
	most  int // requests
}

// spare has a peer be asked for as much as is right now. It is called by the library, which holds its lock.
func (s *session) spare(p *torrent.Peer) {
	c, ok := p.TryAsPeerConn()
	if !ok {
		return
	}
	now := s.spared.Load()
	if now == nil || !now.peers[c] {
		if most, ok := s.told[c]; ok {
			c.PeerMaxRequests = most
			delete(s.told, c)
		}
		return
	}
	if _, ok := s.told[c]; !ok || c.PeerMaxRequests > now.most {
		s.told[c] = max(s.told[c], c.PeerMaxRequests)
	}
	c.PeerMaxRequests = min(now.most, s.told[c])
}

var errClosed = errors.New("torrent is closed")

// start makes a client and adds the torrent. Its storage is opened when the metainfo is there.
func start(ctx context.Context, m Meta, o Options) (*session, error) {
	cfg := torrent.NewDefaultClientConfig()
	cfg.NoDHT, cfg.DisablePEX, cfg.DisableUTP, cfg.NoDefaultPortForwarding = true, true, true, true
	cfg.DisableTrackers, cfg.DisableWebtorrent, cfg.DisableWebseeds = true, true, true // we ask trackers and web seeds ourselves
	cfg.Seed = true
	cfg.DefaultStorage = noStorage{}
	cfg.ListenPort = o.Port
	cfg.ListenHost = func(string) string { return o.Host }
	if a, err := netip.ParseAddr(o.Host); err == nil {
		cfg.DisableIPv6, cfg.DisableIPv4 = a.Is4(), !a.Is4()
	}
	cfg.MaxUnverifiedBytes = 2 * max(o.Window, 2*maxPiece)
	cfg.EstablishedConnsPerTorrent, cfg.HalfOpenConnsPerTorrent, cfg.TotalHalfOpenConns = 40, 16, 16
	cfg.TorrentPeersHighWater = 400
	cfg.MaxAllocPeerRequestDataPerConn = minBurst
	cfg.DropDuplicatePeerIds = true
	cfg.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{} // it proves nothing and costs half the speed; peers that want it get it
	cfg.Bep20, cfg.ExtendedHandshakeClientVersion, cfg.UpnpID = clientID, "ironhand", ""
	cfg.StealRequestGrace = 60 * time.Millisecond // who was asked for a block has it under way; to ask another as well costs a tenth of all traffic
	cfg.DialRateLimiter = rate.NewLimiter(50, 50)
	if len(o.Allow) > 0 {
		cfg.IPBlocklist = fence{o}
	}
	if o.Up > 0 {
		cfg.UploadRateLimiter = rate.NewLimiter(rate.Limit(o.Up), minBurst)
	}
	if o.Down > 0 {
		cfg.DownloadRateLimiter = rate.NewLimiter(rate.Limit(o.Down), minBurst)
	}
	cfg.Callbacks.PeerConnAdded = append(cfg.Callbacks.PeerConnAdded, func(c *torrent.PeerConn) {
		// Not ut_holepunch (BEP 55): by it any peer has us connect to any address.
		c.LocalLtepProtocolMap = &torrent.LocalLtepProtocolMap{Index: []peer_protocol.ExtensionName{peer_protocol.ExtensionNameMetadata}, NumBuiltin: 1}
	})
	cfg.Slogger = slog.New(loud{o.Log.Handler()})
	s := &session{o: o, meta: m, done: make(chan struct{}), told: map[*torrent.PeerConn]int{}}
	cfg.Callbacks.SentRequest = append(cfg.Callbacks.SentRequest, func(e torrent.PeerRequestEvent) { s.spare(e.Peer) })
	cfg.Callbacks.ReceivedRequested = append(cfg.Callbacks.ReceivedRequested, func(e torrent.PeerMessageEvent) { s.spare(e.Peer) })
	cfg.Callbacks.PeerConnClosed = func(c *torrent.PeerConn) { delete(s.told, c) }
	client, err := torrent.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("listen for peers on port %d: %w", o.Port, err)
	}
	s.client = client
	opts := torrent.AddTorrentOpts{InfoHash: m.v1, DeferStorageOpen: true}
	if m.v2 != (infohash2.T{}) {
		opts.InfoHashV2.Set(m.v2)
	}
	if m.info != nil {
		opts.InfoBytes, opts.PieceLayers = m.spec.InfoBytes, m.spec.PieceLayers
	}
	s.t, _ = client.AddTorrentOpt(opts)
	s.t.SetOnWriteChunkError(func(error) {}) // the storage does not fail
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.asking = guardOf(m.From).transport(o.Transport)
	var used []string
	for n, seed := range append(slices.Clone(o.WebSeeds), m.WebSeeds...) {
		if slices.Contains(used, seed) {
			continue
		}
		used = append(used, seed)
		ho := stream.HTTPOptions{Transport: o.Transport}
		if n >= len(o.WebSeeds) { // the torrent's own
			ho.Transport = s.asking
		}
		if a := o.authorization(seed); a != "" {
			ho.Authorization = func() string { return a }
		}
		src, err := stream.NewHTTP(seed, ho)
		if err != nil {
			o.Log.Warn("web seed is not used", "err", err)
			continue
		}
		s.webHTTP = append(s.webHTTP, src)
	}
	s.addPeers(o.Peers)
	go s.announce()
	return s, nil
}

// addPeers tells the client of addresses, and once more of those that it was told of before.
func (s *session) addPeers(peers []netip.AddrPort) {
	s.peersMu.Lock()
	if s.peers == nil || len(s.peers) > maxPeers { // who is still there is named again
		s.peers = map[netip.AddrPort]bool{}
	}
	for _, p := range peers {
		if p.Port() != 0 && s.o.allowed(p.Addr()) {
			s.peers[p] = true
		}
	}
	var infos []torrent.PeerInfo
	for p := range s.peers {
		infos = append(infos, torrent.PeerInfo{Addr: net.TCPAddrFromAddrPort(p), Source: torrent.PeerSourceTracker})
	}
	s.peersMu.Unlock()
	s.t.AddPeers(infos)
}

// complete has peers tell what a magnet link stands for, which the hash in the link proves.
func complete(ctx context.Context, m Meta, o Options) (Meta, error) {
	o.Port = 0 // the other one is for who fetches the image, right after
	s, err := start(ctx, m, o)
	if err != nil {
		return Meta{}, fmt.Errorf("%v: %w", m, err)
	}
	defer s.close()
	limit, cancel := context.WithTimeoutCause(ctx, o.Patience, fmt.Errorf("%v: no peer has told what is in it within %v", m, o.Patience))
	defer cancel()
	select {
	case <-s.t.GotInfo():
	case <-limit.Done():
		return Meta{}, context.Cause(limit)
	}
	if err := check(s.t.Info()); err != nil {
		return Meta{}, err
	}
	for m.v1.IsZero() { // of version 2 the hashes of the pieces are told apart
		missing := false
		for _, run := range s.t.PieceStateRuns() {
			missing = missing || run.MissingPieceLayerHash
		}
		if !missing {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-limit.Done():
			return Meta{}, context.Cause(limit)
		}
	}
	b, err := bencode.Marshal(s.t.Metainfo())
	if err != nil {
		return Meta{}, fmt.Errorf("%v: %w", m, err)
	}
	full, err := Parse(b)
	if err != nil {
		return Meta{}, err
	}
	full.Trackers, full.WebSeeds = m.Trackers, m.WebSeeds
	return full, nil
}

// close ends all of it.
func (s *session) close() {
	s.cancel(errClosed)
	s.client.Close() // what it would tell is of no use any more
	<-s.done
	if t, ok := s.asking.(*http.Transport); ok && s.asking != s.o.Transport {
		t.CloseIdleConnections()
	}
}

// Stats are what a torrent has done so far.
type Stats struct {
	Peers            int   // connected
	Pieces, Complete int   // of the image; of these here
	Up, Down, Wasted int64 // bytes of the image, to and from peers; Wasted were of no use, because they came twice or were wrong
	Web              int64 // bytes from web seeds
	Found            int64 // bytes that a former try has left on the disk
	Zero             int64 // bytes in pieces of zeros, which come from nobody
	Banned           int   // addresses that are not listened to any more
}

func (s *session) stats() Stats {
	all := s.t.Stats()
	st := Stats{Peers: all.ActivePeers, Complete: all.PiecesComplete, Up: all.BytesWrittenData.Int64(), Down: all.BytesReadData.Int64()}
	banned := map[netip.Addr]bool{} // the library knows one by two forms of its address
	for _, ip := range s.client.BadPeerIPs() {
		if a, err := netip.ParseAddr(ip); err == nil {
			banned[a.Unmap()] = true
		}
	}
	st.Banned = len(banned)
	if s.t.Info() != nil {
		st.Pieces = s.t.NumPieces()
	}
	st.Wasted = st.Down - all.BytesReadUsefulIntendedData.Int64()
	return st
}

// noStorage is for torrents that have not got theirs yet.
type noStorage struct{}

func (noStorage) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{}, io.ErrUnexpectedEOF
}

// loud lets through what matters of what the library logs, which is much.
type loud struct{ slog.Handler }

func (l loud) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "banned") || strings.Contains(r.Message, "banning") {
		return l.Handler.Handle(ctx, r)
	}
	return nil
}

func (l loud) WithAttrs(a []slog.Attr) slog.Handler { return loud{l.Handler.WithAttrs(a)} }
func (l loud) WithGroup(n string) slog.Handler      { return loud{l.Handler.WithGroup(n)} }

// Port is where peers reach us.
func (s *session) Port() int { return s.client.LocalPort() }
