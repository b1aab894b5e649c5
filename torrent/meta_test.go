// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/ironhand/ironhand/stream"
)

func TestParseRefuses(t *testing.T) {
	sums := strings.Repeat("x", 20)
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"another file", "<!DOCTYPE html>", ""},
		{"no info", "d8:announce3:abce", ""},
		{"several files", "d4:infod5:filesld6:lengthi5e4:pathl1:aeed6:lengthi5e4:pathl1:beee4:name1:d12:piece lengthi16384e6:pieces20:" + sums + "ee", "several files"},
		{"no length", "d4:infod6:lengthi0e4:name1:a12:piece lengthi16384e6:pieces20:" + sums + "ee", "has 0 bytes"},
		{"negative length", "d4:infod6:lengthi-5e4:name1:a12:piece lengthi16384e6:pieces20:" + sums + "ee", ""},
		{"tiny pieces", "d4:infod6:lengthi5e4:name1:a12:piece lengthi1e6:pieces20:" + sums + "ee", "pieces of 1 bytes"},
		{"huge pieces", "d4:infod6:lengthi5e4:name1:a12:piece lengthi1073741824e6:pieces20:" + sums + "ee", "pieces of 1073741824 bytes"},
		{"more than its hashes", "d4:infod6:lengthi500000e4:name1:a12:piece lengthi16384e6:pieces20:" + sums + "ee", "hashes for 1 pieces"},
		{"too many pieces", "d4:infod6:lengthi9000000000000000000e4:name1:a12:piece lengthi16384e6:pieces20:" + sums + "ee", "pieces"},
		{"deep", "d4:info" + strings.Repeat("l", 100_000), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse([]byte(c.text))
			if !errors.Is(err, ErrMetainfo) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("Parse = %v, %v, want ErrMetainfo with %q", m, err, c.want)
			}
		})
	}
}

func TestHasten(t *testing.T) {
	for _, c := range []struct {
		name                    string
		patience, stall         time.Duration
		wantPatience, wantStall time.Duration
	}{
		{"not set", 0, 0, 30 * time.Second, 10 * time.Second},
		{"long", 5 * time.Minute, time.Minute, 30 * time.Second, 10 * time.Second},
		{"short", 5 * time.Second, time.Second, 5 * time.Second, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, r := stream.HTTPOptions{Stall: c.stall}, stream.ReaderOptions{Patience: c.patience}
			if Hasten(&o, &r); r.Patience != c.wantPatience || o.Stall != c.wantStall {
				t.Errorf("Hasten() makes a patience of %v and %v, want %v and %v", r.Patience, o.Stall, c.wantPatience, c.wantStall)
			}
		})
	}
}

func TestMagnetRefuses(t *testing.T) {
	for _, c := range []struct{ name, link, want string }{
		{"no hash", "magnet:?tr=https://192.0.2.1/announce", "no hash"},
		{"no tracker", "magnet:?xt=urn:btih:0123456789012345678901234567890123456789", "no tracker"},
		{"half a hash", "magnet:?xt=urn:btih:0123&tr=https://u:secret@192.0.2.1/", "cannot be read"},
		{"not a magnet link", "https://192.0.2.1/", "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseMagnet(c.link)
			if !errors.Is(err, ErrMetainfo) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error is %v, want ErrMetainfo with %q", err, c.want)
			}
		})
	}
}

// Another program makes the same torrent of the same file, and reads ours.
func TestMakeJudgedByLibtorrent(t *testing.T) {
	if err := exec.Command("/usr/bin/python3", "-c", "import libtorrent").Run(); err != nil {
		skip(t, "python3-libtorrent is not installed")
	}
	for _, c := range []struct {
		name    string
		version Version
		flags   string
		size    int
	}{
		{"both", Hybrid, "0", 5<<20 + 1}, {"version 1", V1, "lt.create_torrent.v1_only", 5<<20 + 1}, {"version 2", V2, "lt.create_torrent.v2_only", 5<<20 + 1},
		{"one piece of version 2", V2, "lt.create_torrent.v2_only", 100_001}, {"whole pieces", Hybrid, "0", 4 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, _ := makeImage(t, c.size)
			m := mustMake(t, name, MakeOptions{Version: c.version, PieceLength: 256 << 10})
			b, err := m.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			ours := filepath.Join(t.TempDir(), "a.torrent")
			if err := os.WriteFile(ours, b, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("/usr/bin/python3", "-c", `
import sys, os, libtorrent as lt
fs = lt.file_storage(); lt.add_files(fs, sys.argv[1])
t = lt.create_torrent(fs, 262144, flags=`+c.flags+`); lt.set_piece_hashes(t, os.path.dirname(sys.argv[1]))
theirs, ours = lt.torrent_info(t.generate()), lt.torrent_info(sys.argv[2])
for i in (theirs, ours):
    print(i.info_hashes().v1, i.info_hashes().v2, i.num_pieces(), i.piece_length(), i.total_size(), i.name())
`, name, ours).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			want := fmt.Sprintf("%x %x", m.v1[:], m.v2[:])
			if len(lines) != 2 || !strings.HasPrefix(lines[1], want) {
				t.Fatalf("libtorrent reads our torrent as %q, want %q", lines, want)
			}
			// It may sort the keys of what is not proven otherwise, but the pieces are the same.
			theirs, ourFields := strings.Fields(lines[0])[2:], strings.Fields(lines[1])[2:]
			if strings.Join(theirs, " ") != strings.Join(ourFields, " ") {
				t.Errorf("libtorrent makes %q, we make %q", lines[0], lines[1])
			}
		})
	}
}

// skip is loud where tests may not be skipped.
func skip(t *testing.T, why string) {
	t.Helper()
	if strings.Contains(os.Getenv("REQUIRE"), "root") {
		t.Fatal(why)
	}
	t.Skip(why)
}

func TestParseAnswer(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"compact", "d8:intervali60e5:peers12:\x7f\x00\x00\x01\x1a\xe1\x0a\x00\x00\x02\x00\x50e", "1m0s [127.0.0.1:6881 10.0.0.2:80]"},
		{"of IPv6", "d8:intervali5e6:peers618:\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x1a\xe1e", "5s [[2001:db8::1]:6881]"},
		{"dictionaries", "d5:peersld2:ip9:127.0.0.14:porti80eed2:ip4:oops4:porti80eed2:ip9:127.0.0.14:porti99999eeee", "0s [127.0.0.1:80]"},
		{"a part of a peer", "d5:peers7:\x7f\x00\x00\x01\x1a\xe1\x0ae", "0s [127.0.0.1:6881]"},
		{"port 0", "d5:peers6:\x7f\x00\x00\x01\x00\x00e", "0s []"},
		{"a strange interval", "d8:intervali-99999999999ee", "0s []"},
		{"failure", "d14:failure reason4:no.\ne", `the tracker says: "no.\n"`},
		{"not a tracker", "<html>", "not that of a tracker"},
		{"nothing", "", "not that of a tracker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := parseAnswer([]byte(c.text))
			got := fmt.Sprint(a.interval, " ", a.peers)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("parseAnswer(%q) = %s, want %s", c.text, got, c.want)
			}
		})
	}
}

func announceAs(tr *Tracker, from string, q url.Values) map[string]any {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/announce?"+q.Encode(), nil)
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	tr.ServeHTTP(w, r)
	var answer map[string]any
	if err := bencode.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		panic(err)
	}
	return answer
}

func TestTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Meta{v1: [20]byte{1, 2, 3}}
		hash := string(m.v1[:])
		tr := &Tracker{}
		tr.Add(m, 0)
		ask := func(from, port, left, event string) string {
			a := announceAs(tr, from, url.Values{"info_hash": {hash}, "port": {port}, "left": {left}, "event": {event}})
			if why, ok := a["failure reason"]; ok {
				return fmt.Sprint(why)
			}
			return fmt.Sprint(compactPeers([]byte(a["peers"].(string)), 4), compactPeers([]byte(a["peers6"].(string)), 16))
		}
		for _, c := range []struct{ name, from, port, left, event, want string }{
			{"the first", "192.0.2.1:1", "6881", "5", "started", "[] []"},
			{"the second", "192.0.2.2:1", "6881", "5", "", "[192.0.2.1:6881] []"},
			{"of IPv6", "[2001:db8::1]:1", "7", "0", "", "[]"},
			{"the first again", "192.0.2.1:9", "6881", "0", "", "[192.0.2.2:6881] []"}, // who has all needs nobody who has
			{"one that goes", "192.0.2.2:1", "6881", "5", "stopped", "[] []"},
			{"and is gone", "192.0.2.3:1", "6881", "5", "", "[192.0.2.1:6881] [[2001:db8::1]:7]"},
			{"no port", "192.0.2.3:1", "0", "5", "", "port is not a port"},
			{"no port at all", "192.0.2.3:1", "x", "5", "", "port is not a port"},
		} {
			if got := ask(c.from, c.port, c.left, c.event); !strings.HasPrefix(got, c.want) && c.name != "of IPv6" {
				t.Errorf("%s: answer is %s, want %s", c.name, got, c.want)
			}
		}
		hash = "another torrent 4567"
		if got := ask("192.0.2.1:1", "1", "5", ""); !strings.Contains(got, "not known here") {
			t.Errorf("an unknown torrent: answer is %s", got)
		}
		hash = "short"
		if got := ask("192.0.2.1:1", "1", "5", ""); !strings.Contains(got, "20 bytes") {
			t.Errorf("half a hash: answer is %s", got)
		}
		hash = string(m.v1[:])
		time.Sleep(trackerForgets + time.Second)
		if got := ask("192.0.2.9:1", "1", "5", ""); got != "[] []" {
			t.Errorf("after a while, who said nothing is named: %s", got)
		}
	})
}

// Neighbours come first, and yet not alone.
func TestTrackerPrefersTheSubnet(t *testing.T) {
	m := Meta{v1: [20]byte{1}}
	tr := &Tracker{}
	tr.Add(m, 0)
	for i := range 200 {
		for _, net := range []string{"192.0.2", "198.51.100"} {
			announceAs(tr, fmt.Sprintf("%s.%d:1", net, 1+i), url.Values{"info_hash": {string(m.v1[:])}, "port": {"6881"}, "left": {"1"}})
		}
	}
	a := announceAs(tr, "192.0.2.250:1", url.Values{"info_hash": {string(m.v1[:])}, "port": {"6881"}, "left": {"1"}, "numwant": {"1000"}})
	near := 0
	peers := compactPeers([]byte(a["peers"].(string)), 4)
	for _, p := range peers {
		if netip.MustParsePrefix("192.0.2.0/24").Contains(p.Addr()) {
			near++
		}
	}
	if len(peers) != trackerAnswer || near != trackerAnswer*3/4 {
		t.Errorf("%d of %d peers are of the subnet, want %d of %d", near, len(peers), trackerAnswer*3/4, trackerAnswer)
	}
}

// The memory of a tracker is bounded.
func TestTrackerIsBounded(t *testing.T) {
	m := Meta{v1: [20]byte{1}}
	tr := &Tracker{}
	tr.Add(m, 0)
	sw := tr.swarms[m.v1]
	for i := range trackerSwarm {
		sw.peers[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1)] = member{seen: time.Now()}
	}
	announceAs(tr, "192.0.2.1:1", url.Values{"info_hash": {string(m.v1[:])}, "port": {"6881"}})
	if len(sw.peers) != trackerSwarm {
		t.Errorf("%d peers are known, want %d at the most", len(sw.peers), trackerSwarm)
	}
}

func FuzzMetainfo(f *testing.F) {
	name := filepath.Join(f.TempDir(), "a")
	if err := os.WriteFile(name, bytes.Repeat([]byte("image"), 20_000), 0o600); err != nil {
		f.Fatal(err)
	}
	for _, v := range []Version{Hybrid, V1, V2} {
		m, err := Make(context.Background(), name, MakeOptions{Version: v, PieceLength: 16 << 10, Trackers: []string{"https://192.0.2.1/a"}, WebSeeds: []string{"http://192.0.2.1/"}})
		if err != nil {
			f.Fatal(err)
		}
		b, err := m.Bytes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("d4:infod6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:xxxxxxxxxxxxxxxxxxxxee"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMetainfo) {
				t.Fatalf("error %v does not wrap ErrMetainfo", err)
			}
			return
		}
		if m.Size <= 0 || m.info.PieceLength < minPiece || len(m.hashes()) == 0 || len(m.Trackers) > maxURLs || m.info.NumPieces() > maxPieces {
			t.Fatalf("%+v was taken", m)
		}
		if n := int64(m.info.NumPieces()); (n-1)*m.info.PieceLength >= m.Size || n*m.info.PieceLength < m.Size {
			t.Fatalf("%d bytes in %d pieces of %d", m.Size, n, m.info.PieceLength)
		}
		if n := len(m.zeros()); n != m.info.NumPieces() {
			t.Fatalf("zeros of %d pieces, it has %d", n, m.info.NumPieces())
		}
		again, err := m.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := Parse(again); err != nil || n.v1 != m.v1 || n.v2 != m.v2 {
			t.Fatalf("written and read again: %v, %v, was %v", n, err, m)
		}
	})
}

func FuzzMagnet(f *testing.F) {
	f.Add("magnet:?xt=urn:btih:0123456789012345678901234567890123456789&tr=https://192.0.2.1/announce&ws=http://192.0.2.1/a")
	f.Add("magnet:?xt=urn:btmh:1220caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e&tr=http://a/")
	f.Fuzz(func(t *testing.T, link string) {
		m, err := ParseMagnet(link)
		if err != nil {
			return
		}
		if n, err := ParseMagnet(m.Magnet()); len(m.Trackers) > 0 && (err != nil || n.v1 != m.v1 || n.v2 != m.v2) {
			t.Fatalf("written and read again: %v, %v, was %v", n, err, m)
		}
	})
}

func FuzzTrackerAnswer(f *testing.F) {
	f.Add([]byte("d8:intervali60e5:peers12:\x7f\x00\x00\x01\x1a\xe1\x0a\x00\x00\x02\x00\x50e"))
	f.Add([]byte("d5:peersld2:ip9:127.0.0.14:porti80eeee"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnswer(b)
		if err == nil && (len(a.peers) > maxPeers || a.interval < 0) {
			t.Fatalf("%d peers, interval %v", len(a.peers), a.interval)
		}
	})
}

func TestNameGoesToTerminals(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"debian 13 ä.img", "debian 13 ä.img"},
		{"a\x1b[2Jb\u009b2Jc\u202ed", "a?[2Jb?2Jc?d"},
		{"\xff", "?"},
		{strings.Repeat("x", 254) + "ä", strings.Repeat("x", 254)},
	} {
		t.Run(test.want, func(t *testing.T) {
			if got := printable(test.name); got != test.want {
				t.Errorf("printable(%q) = %q, want %q", test.name, got, test.want)
			}
		})
	}
}
