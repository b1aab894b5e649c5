// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/anacrolix/torrent/bencode"
)

// Tracker tells peers of each other, over HTTP (BEP 3, 7, 23): of the torrents that it was given and no others. It is an http.Handler for the announce URL. The
// zero value is usable.
//
// A peer is known by its address, as its connection has it, and the port that it names; nobody can announce another. Peers in the same
// subnet (/24, /64) come first, but for a quarter of the answer, which keeps racks from becoming swarms of their own.
type Tracker struct {
	mu     sync.Mutex
	swarms map[[20]byte]*swarm
}

type swarm struct {
	peers map[netip.AddrPort]member
	seed  uint16 // port of a seeder on the machine of the tracker; 0 for none
}

type member struct {
	seen time.Time
	done bool // it has all of the image
}

const (
	trackerInterval = 60 * time.Second
	trackerForgets  = 3 * trackerInterval
	trackerSwarm    = 20_000 // peers of one torrent that are known at a time
	trackerAddress  = 64     // of them at one address, which could name all its ports
	trackerAnswer   = 80     // peers that are named at a time, at the most
	trackerDefault  = 40
)

// Add has the tracker know a torrent. seed is the port on which this machine shares it, at whatever address peers reach the tracker; 0 if it does not.
func (t *Tracker) Add(m Meta, seed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.swarms == nil {
		t.swarms = map[[20]byte]*swarm{}
	}
	for _, h := range m.hashes() {
		if t.swarms[h] == nil {
			t.swarms[h] = &swarm{peers: map[netip.AddrPort]member{}}
		}
		t.swarms[h].seed = uint16(seed)
	}
}

// Remove has it forget one.
func (t *Tracker) Remove(m Meta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range m.hashes() {
		delete(t.swarms, h)
	}
}

// ServeHTTP answers an announce.
func (t *Tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "announces are sent by GET", http.StatusMethodNotAllowed)
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "address of the peer is not known", http.StatusInternalServerError)
		return
	}
	b, err := bencode.Marshal(t.announced(from.Addr().Unmap().WithZone(""), r))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Write(b) // the peer asks again if it does not arrive
}

// announced is the answer.
func (t *Tracker) announced(from netip.Addr, r *http.Request) map[string]any {
	refuse := func(why string) map[string]any { return map[string]any{"failure reason": why} }
	q := r.URL.Query()
	hash, port := q.Get("info_hash"), q.Get("port")
	if len(hash) != 20 {
		return refuse("info_hash has not 20 bytes")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return refuse("port is not a port")
	}
	most := trackerDefault
	if want, err := strconv.Atoi(q.Get("numwant")); err == nil && want >= 0 {
		most = min(want, trackerAnswer)
	}
	self := netip.AddrPortFrom(from, uint16(n))
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.swarms[[20]byte([]byte(hash))]
	if !ok {
		return refuse("this torrent is not known here")
	}
	swarm := known.peers
	there := 0
	for p, m := range swarm {
		if now.Sub(m.seen) > trackerForgets {
			delete(swarm, p)
		} else if p.Addr() == from {
			there++
		}
	}
	_, again := swarm[self]
	switch {
	case q.Get("event") == "stopped":
		delete(swarm, self)
		most = 0
	case again || len(swarm) < trackerSwarm && there < trackerAddress:
		swarm[self] = member{now, q.Get("left") == "0"}
	}
	complete := 0
	for _, m := range swarm {
		if m.done {
			complete++
		}
	}
	peers := choose(swarm, self, q.Get("left") == "0", most)
	if at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && known.seed != 0 && most > 0 {
		if here, err := netip.ParseAddrPort(at.String()); err == nil {
			peers = append(peers, netip.AddrPortFrom(here.Addr().Unmap().WithZone(""), known.seed))
		}
	}
	v4, v6 := compact(peers)
	return map[string]any{"interval": int64(trackerInterval / time.Second), "min interval": int64(minInterval / time.Second),
		"complete": int64(complete), "incomplete": int64(len(swarm) - complete), "peers": v4, "peers6": v6}
}

// choose picks peers for one: at most so many, those of its subnet first. Who has everything needs nobody else who has.
func choose(swarm map[netip.AddrPort]member, self netip.AddrPort, done bool, most int) []netip.AddrPort {
	var near, far []netip.AddrPort
	subnet := subnetOf(self.Addr())
	for p, m := range swarm {
		switch {
		case p == self || done && m.done:
		case subnet.Contains(p.Addr()):
			near = append(near, p)
		default:
			far = append(far, p)
		}
	}
	for _, list := range [][]netip.AddrPort{near, far} {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	others := min(len(far), max(most-len(near), most/4))
	return append(near[:min(len(near), most-others)], far[:others]...)
}

func subnetOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // such a prefix there is of any address
	return p
}

// compact writes addresses as answers have them.
func compact(peers []netip.AddrPort) (v4, v6 string) {
	for _, p := range peers {
		b := append(p.Addr().AsSlice(), byte(p.Port()>>8), byte(p.Port()))
		if p.Addr().Is4() {
			v4 += string(b)
		} else {
			v6 += string(b)
		}
	}
	return v4, v6
}

// Peers returns who is known of a torrent now, by their addresses.
func (t *Tracker) Peers(m Meta) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []netip.AddrPort
	for _, h := range m.hashes() {
		if sw := t.swarms[h]; sw != nil {
			all = slices.AppendSeq(all, maps.Keys(sw.peers))
		}
	}
	slices.SortFunc(all, func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
	var names []string
	for _, p := range slices.Compact(all) {
		names = append(names, net.JoinHostPort(p.Addr().String(), strconv.Itoa(int(p.Port()))))
	}
	return names
}
