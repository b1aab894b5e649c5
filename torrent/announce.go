// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/ironhand/ironhand/stream"
)

const (
	maxAnswer    = 256 << 10 // bytes of a tracker's answer
	maxPeers     = 2000      // of one answer
	minInterval  = 10 * time.Second
	maxInterval  = 10 * time.Minute
	lonely       = 15 * time.Second // between announces while nobody is connected
	announceTime = 20 * time.Second // for one answer
)

// announce tells all trackers of us, and the client of peers, until the session ends.
func (s *session) announce() {
	defer close(s.done)
	if s.o.NoTrackers {
		return
	}
	var all sync.WaitGroup
	for _, tracker := range s.meta.Trackers {
		for _, hash := range s.meta.hashes() {
			all.Go(func() { s.announceTo(tracker, hash) })
		}
	}
	all.Wait()
}

// announceTo is announce for one tracker.
func (s *session) announceTo(tracker string, hash [20]byte) {
	event, failures := "started", 0
	for s.ctx.Err() == nil {
		answer, err := s.ask(s.ctx, tracker, hash, event)
		wait := min(max(answer.interval, minInterval), maxInterval)
		switch {
		case s.ctx.Err() != nil:
		case err != nil:
			if stream.IsFinal(err) {
				s.o.Log.Warn("tracker is not used", "tracker", hostOf(tracker), "err", err)
				return
			}
			if failures++; failures == 1 {
				s.o.Log.Warn("tracker does not answer; asking again", "tracker", hostOf(tracker), "err", err)
			}
			wait = min(time.Second<<min(failures, 6), time.Minute)
		default:
			event, failures = "", 0
			s.addPeers(answer.peers)
			if s.client.Stats().ActivePeers == 0 {
				wait = min(wait, lonely)
			}
		}
		// Not all nodes of a rack at once.
		timer := time.NewTimer(wait*3/4 + rand.N(wait/4))
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
		}
	}
	if event == "" { // it knows us
		late, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 2*time.Second)
		defer cancel()
		s.ask(late, tracker, hash, "stopped") // it forgets us anyway, later
	}
}

// ask makes one announce (BEP 3, BEP 23, BEP 7).
func (s *session) ask(ctx context.Context, tracker string, hash [20]byte, event string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	u, err := url.Parse(tracker)
	if err != nil {
		return answer{}, errors.New("its URL cannot be read") // what url.Parse says has the URL in it
	}
	user := u.User
	u.User = nil
	id := s.client.PeerID()
	stats := s.t.Stats()
	left := int64(1) // of a magnet link it is not known
	if s.t.Info() != nil {
		left = s.left()
	}
	q := "info_hash=" + url.QueryEscape(string(hash[:])) + "&peer_id=" + url.QueryEscape(string(id[:])) + "&port=" + strconv.Itoa(s.client.LocalPort()) +
		"&uploaded=" + strconv.FormatInt(stats.BytesWrittenData.Int64(), 10) + "&downloaded=" + strconv.FormatInt(stats.BytesReadData.Int64(), 10) +
		"&left=" + strconv.FormatInt(left, 10) + "&compact=1&numwant=80"
	if event != "" {
		q += "&event=" + event
	}
	if u.RawQuery != "" {
		q = u.RawQuery + "&" + q
	}
	u.RawQuery = q
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return answer{}, errors.New("its URL cannot be read")
	}
	req.Header.Set("User-Agent", "ironhand")
	if user != nil {
		password, _ := user.Password()
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	} else if u.Scheme == "https" {
		if a := s.o.authorization(tracker); a != "" {
			req.Header.Set("Authorization", a)
		}
	}
	resp, err := s.asking.RoundTrip(req) // no redirects: the tracker is the one that was named
	if err != nil {
		return answer{}, fmt.Errorf("announce to %s: %w", hostOf(tracker), err)
	}
	defer resp.Body.Close() // only read
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("announce to %s: %d %s", hostOf(tracker), resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return answer{}, fmt.Errorf("announce to %s: %w", hostOf(tracker), err)
	}
	a, err := parseAnswer(body)
	if err != nil {
		return answer{}, fmt.Errorf("announce to %s: %w", hostOf(tracker), err)
	}
	return a, nil
}

// left is how many bytes of the image are not here.
func (s *session) left() int64 {
	return max(0, s.t.BytesMissing())
}

// hostOf is the part of a URL that may be told.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || len(u.Host) > 255 {
		return "tracker"
	}
	return u.Host
}

// answer is what a tracker says.
type answer struct {
	interval time.Duration
	peers    []netip.AddrPort
}

// parseAnswer reads a tracker's answer: peers as bytes, of IPv4 and IPv6, or as dictionaries.
func parseAnswer(b []byte) (answer, error) {
	if len(b) > maxAnswer {
		return answer{}, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	var d struct {
		Failure  string        `bencode:"failure reason,omitempty,ignore_unmarshal_type_error"`
		Interval int64         `bencode:"interval,omitempty,ignore_unmarshal_type_error"`
		Peers    bencode.Bytes `bencode:"peers,omitempty"`
		Peers6   bencode.Bytes `bencode:"peers6,omitempty"`
	}
	if err := bencode.Unmarshal(b, &d); err != nil {
		return answer{}, fmt.Errorf("the answer is not that of a tracker: %.100v", err)
	}
	if d.Failure != "" {
		return answer{}, fmt.Errorf("the tracker says: %.200q", d.Failure)
	}
	a := answer{interval: time.Duration(min(max(d.Interval, 0), 24*3600)) * time.Second}
	for _, part := range []struct {
		raw  bencode.Bytes
		size int
	}{{d.Peers, 4}, {d.Peers6, 16}} {
		if len(part.raw) == 0 {
			continue
		}
		var compact string
		if err := bencode.Unmarshal(part.raw, &compact); err == nil {
			a.peers = append(a.peers, compactPeers([]byte(compact), part.size)...)
			continue
		}
		var list []struct {
			IP   string `bencode:"ip,omitempty,ignore_unmarshal_type_error"`
			Port int64  `bencode:"port,omitempty,ignore_unmarshal_type_error"`
		}
		if err := bencode.Unmarshal(part.raw, &list); err != nil {
			return answer{}, fmt.Errorf("the answer has peers that cannot be read: %.100v", err)
		}
		for _, p := range list {
			addr, err := netip.ParseAddr(strings.TrimSpace(p.IP))
			if err == nil && p.Port > 0 && p.Port < 1<<16 {
				a.peers = append(a.peers, netip.AddrPortFrom(addr.Unmap(), uint16(p.Port)))
			}
		}
	}
	a.peers = a.peers[:min(len(a.peers), maxPeers)]
	return a, nil
}

// compactPeers reads addresses of size bytes with ports.
func compactPeers(b []byte, size int) (peers []netip.AddrPort) {
	for ; len(b) >= size+2 && len(peers) < maxPeers; b = b[size+2:] {
		addr, _ := netip.AddrFromSlice(b[:size]) // of this length it is one
		if port := binary.BigEndian.Uint16(b[size:]); port != 0 {
			peers = append(peers, netip.AddrPortFrom(addr.Unmap(), port))
		}
	}
	return peers
}
