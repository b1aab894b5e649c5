// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"github.com/ironhand/ironhand/stream"
)

// sparseImage is an image of which three fifths are zero, in holes of 3 MiB, its end among them.
func sparseImage(t testing.TB, size int) (name string, image []byte) {
	t.Helper()
	image = make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	for at := 0; at < size; at += 5 << 20 {
		random.Read(image[at:min(at+2<<20, size)])
	}
	name = filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(name, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return name, image
}

// dataIn is how many bytes are in blocks of an image that are not all zeros.
func dataIn(image []byte, block int) (n int64) {
	for b := range slices.Chunk(image, block) {
		if !allZero(b) {
			n += int64(len(b))
		}
	}
	return n
}

func TestZeroPieces(t *testing.T) {
	const piece = 64 << 10
	for _, c := range []struct {
		name string
		size int
		data []int  // where a byte is not zero
		want string // of each piece, whether it is zero or data
	}{
		{"some", 5 * piece, []int{0, 2*piece + 5}, "dzdzz"},
		{"the first and the last byte of a piece", 4 * piece, []int{piece, 3*piece - 1}, "zddz"},
		{"a short end", 2*piece + 777, []int{5}, "dzz"},
		{"a short end with data", 2*piece + 777, []int{2*piece + 776}, "zzd"},
		{"an end of one block", 2*piece + minPiece, []int{5}, "dzz"},
		{"nothing but zeros", 3*piece + 1, nil, "zzzz"},
		{"one piece", piece, nil, "z"},
		{"one short piece", 3*minPiece - 5, nil, "z"},
		{"less than a block", 100, nil, "z"},
		{"one piece of data", piece, []int{piece - 1}, "d"},
	} {
		for _, version := range []Version{V1, V2, Hybrid} {
			t.Run(fmt.Sprintf("%s/%d", c.name, version), func(t *testing.T) {
				image := make([]byte, c.size)
				for _, at := range c.data {
					image[at] = 1
				}
				name := filepath.Join(t.TempDir(), "image.raw")
				if err := os.WriteFile(name, image, 0o600); err != nil {
					t.Fatal(err)
				}
				if got := spell(mustMake(t, name, MakeOptions{Version: version, PieceLength: piece})); got != c.want {
					t.Errorf("zeros() = %s, want %s", got, c.want)
				}
			})
		}
	}
}

func spell(m Meta) (text string) {
	for _, zero := range m.zeros() {
		text += map[bool]string{false: "d", true: "z"}[zero]
	}
	return text
}

// A torrent that says of one piece two things says nothing of it.
func TestZerosOfTwoVersions(t *testing.T) {
	const piece = 64 << 10
	name := filepath.Join(t.TempDir(), "image.raw")
	image := make([]byte, 4*piece)
	image[0], image[2*piece] = 1, 1
	if err := os.WriteFile(name, image, 0o600); err != nil {
		t.Fatal(err)
	}
	m := mustMake(t, name, MakeOptions{Version: Hybrid, PieceLength: piece})
	zeroV1 := sha1.Sum(make([]byte, piece))
	for _, c := range []struct {
		name   string
		change func(v1 []byte, layers map[string][]byte)
		want   string
	}{
		{"both are right", func([]byte, map[string][]byte) {}, "dzdz"},
		{"version 1 says that data are zeros", func(v1 []byte, _ map[string][]byte) { copy(v1[2*sha1.Size:], zeroV1[:]) }, "dzdz"},
		{"version 1 says that zeros are data", func(v1 []byte, _ map[string][]byte) { v1[sha1.Size] ^= 1 }, "dddz"},
		{"version 2 says that zeros are data", func(_ []byte, layers map[string][]byte) {
			for _, layer := range layers {
				layer[32] ^= 1
			}
		}, "dddz"},
		{"version 2 says less", func(_ []byte, layers map[string][]byte) {
			for root := range layers {
				layers[root] = layers[root][:3*32]
			}
		}, "dzdd"},
		{"version 2 does not say", func(_ []byte, layers map[string][]byte) { clear(layers) }, "dzdz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad, info, layers := m, *m.info, map[string][]byte{}
			info.Pieces = slices.Clone(info.Pieces)
			for root, layer := range m.spec.PieceLayers {
				layers[root] = []byte(layer)
			}
			c.change(info.Pieces, layers)
			bad.info, bad.spec.PieceLayers = &info, map[string]string{}
			for root, layer := range layers {
				bad.spec.PieceLayers[root] = string(layer)
			}
			if got := spell(bad); got != c.want {
				t.Errorf("zeros() = %s, want %s", got, c.want)
			}
		})
	}
}

// What is zero in an image is sent by nobody, and is zero on a disk that was full of old data. What is written is what is not zero.
func TestZerosComeFromNobody(t *testing.T) {
	const piece = 256 << 10
	name, image := sparseImage(t, 39<<20+777)
	data := dataIn(image, piece)
	for _, version := range []Version{V1, V2, Hybrid} {
		m := mustMake(t, name, MakeOptions{Version: version, PieceLength: piece})
		for _, order := range []string{"by place", "in order"} {
			t.Run(fmt.Sprintf("%d/%s", version, order), func(t *testing.T) {
				seed := mustSeed(t, m, name, local(1))
				o := local(2)
				o.Peers, o.Window = []netip.AddrPort{addr(seed)}, 2<<20
				s := mustOpen(t, m, o)
				if order == "by place" {
					d := newDisk(48 << 20)
					w, err := deploy(t.Context(), s, d, digestOf(image))
					if err != nil {
						t.Fatal(err)
					}
					sameDisk(t, d, image)
					if most := dataIn(image, 64<<10) * 101 / 100; w.Bytes > most {
						t.Errorf("%d bytes were written, want at most %d", w.Bytes, most)
					}
				} else {
					r, err := s.Open(t.Context(), 0)
					if err != nil {
						t.Fatal(err)
					}
					defer r.Close()
					if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, image) {
						t.Fatalf("what was read is not the image: %v", err)
					}
					if s.mu.Lock(); s.next != len(s.pieces) { // else it would be waited for whose turn a piece is that is here
						t.Errorf("piece %d is read next, want the end, %d", s.next, len(s.pieces))
					}
					s.mu.Unlock()
				}
				if up := seed.Stats().Up; up < data || up > data+data/10 {
					t.Errorf("the seeder has sent %d bytes, want %d, of %d", up, data, len(image))
				}
				if zero := s.Stats().Zero; zero != int64(len(image))-data {
					t.Errorf("%d bytes are told as zeros, want %d", zero, int64(len(image))-data)
				}
			})
		}
	}
}

// An image of zeros needs nobody at all.
func TestNothingButZeros(t *testing.T) {
	image := make([]byte, 5<<20+100)
	name := filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(name, image, 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, mustMake(t, name, MakeOptions{Version: Hybrid}), local(2))
	d := newDisk(8 << 20)
	if _, err := deploy(t.Context(), s, d, digestOf(image)); err != nil {
		t.Fatal(err)
	}
	sameDisk(t, d, image)
}

// notZeroed is a disk that takes no zeros but at its ends.
type notZeroed struct{ *fakeDisk }

func (d notZeroed) Zero(ctx context.Context, at, n int64) error {
	if at > 0 && at < d.Size()-stream.HeadSize {
		return errors.New("no zeros for me")
	}
	return d.fakeDisk.Zero(ctx, at, n)
}

func TestDiskThatTakesNoZeros(t *testing.T) {
	name, image := sparseImage(t, 12<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers = []netip.AddrPort{addr(seed)}
	d := newDisk(16 << 20)
	_, err := deploy(t.Context(), mustOpen(t, m, o), notZeroed{d}, digestOf(image))
	if err == nil || !strings.Contains(err.Error(), "no zeros for me") {
		t.Errorf("error is %v, want that of the disk", err)
	}
	if !allZero(d.b[:stream.HeadSize]) {
		t.Error("the start of the disk is not zero after a failure")
	}
}

// plainPeer is a client that knows of no zeros: it asks for all pieces.
type plainPeer struct {
	length int64
	mu     sync.Mutex
	b      []byte
	has    []bool
}

func (p *plainPeer) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{Piece: func(m metainfo.Piece) storage.PieceImpl { return plainPiece{p, m.Index()} }, Close: func() error { return nil }}, nil
}

type plainPiece struct {
	p *plainPeer
	i int
}

func (p plainPiece) ReadAt(b []byte, at int64) (int, error) {
	p.p.mu.Lock()
	defer p.p.mu.Unlock()
	return copy(b, p.p.b[int64(p.i)*p.p.length+at:]), nil
}

func (p plainPiece) WriteAt(b []byte, at int64) (int, error) {
	p.p.mu.Lock()
	defer p.p.mu.Unlock()
	return copy(p.p.b[int64(p.i)*p.p.length+at:], b), nil
}

func (p plainPiece) MarkComplete() error {
	p.p.mu.Lock()
	defer p.p.mu.Unlock()
	p.p.has[p.i] = true
	return nil
}

func (p plainPiece) MarkNotComplete() error { return nil }

func (p plainPiece) Completion() storage.Completion {
	p.p.mu.Lock()
	defer p.p.mu.Unlock()
	return storage.Completion{Ok: true, Complete: p.p.has[p.i]}
}

// Who asks for zeros gets them, also from a node that has nothing else yet.
func TestZerosAreShared(t *testing.T) {
	const piece = 256 << 10
	name, image := sparseImage(t, 9<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: piece})
	node := mustOpen(t, m, local(1))
	zeros := m.zeros()
	peer := &plainPeer{length: piece, b: bytes.Repeat([]byte{0xee}, len(image)), has: make([]bool, len(zeros))}
	o := local(2).filled()
	o.Peers = []netip.AddrPort{addr(node)}
	client, err := start(t.Context(), m, o)
	if err != nil {
		t.Fatal(err)
	}
	defer client.close()
	if err := client.t.OpenStorage(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	client.t.DownloadAll()
	same := func() bool {
		peer.mu.Lock()
		defer peer.mu.Unlock()
		return slices.Equal(peer.has, zeros)
	}
	for end := time.Now().Add(time.Minute); !same(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the peer has %v, want %v", peer.has, zeros)
		}
	}
	for i, zero := range zeros {
		if zero && !allZero(peer.b[i*piece:][:piece]) {
			t.Errorf("piece %d is not zeros", i)
		}
	}
}

// A node that has zeros where another reads does not read nearby for that: its turn is not waited for.
func TestZerosMakeNoRival(t *testing.T) {
	const piece, hole = 256 << 10, 10 // a piece in the first hole
	name, _ := sparseImage(t, 9<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: piece})
	idle := mustOpen(t, m, local(1))
	o := local(2)
	o.Peers = []netip.AddrPort{addr(idle)}
	s := mustOpen(t, m, o)
	r, err := s.Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		known, rivals := s.some != nil && s.some[hole] == 1, len(s.rivals)
		s.mu.Unlock()
		if known {
			if rivals > 0 {
				t.Error("a node that has nothing but zeros is taken for one that reads nearby")
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("the nodes do not find each other")
		}
	}
}

// While a disk takes long for what it has got, be it zeros, nobody in the swarm counts as silent.
func TestSlowDiskIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = time.Minute
		s := &Source{session: &session{o: Options{Patience: patience}.filled(), ctx: t.Context()}, length: 1 << 20, size: 2 << 20, mode: byPlace,
			changed: make(chan struct{}), pieces: make([]piece, 2), last: time.Now()}
		s.pieces[0].state, s.pieces[1].state = have, wanted
		s.place = &place{s: s, arrived: []int{0}}
		steer := func(until func() bool) {
			for !until() {
				s.mu.Lock()
				s.fill(time.Now())
				s.mu.Unlock()
				time.Sleep(steerEvery)
			}
		}
		begin := time.Now()
		steer(func() bool { return time.Since(begin) > 10*patience })
		s.mu.Lock()
		s.pieces[0].state, s.place.arrived = on, nil
		s.mu.Unlock()
		begin = time.Now()
		done := make(chan error, 1)
		go func() { done <- s.wait(t.Context(), func() bool { return false }) }()
		steer(func() bool { return len(done) > 0 })
		if took := time.Since(begin); took < patience-2*steerEvery || took > patience+2*steerEvery {
			t.Errorf("wait() = %v after %v, want an error after %v", <-done, took, patience)
		}
	})
}
