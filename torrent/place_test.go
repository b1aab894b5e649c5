// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"testing"
)

// readDisk counts what is read.
type readDisk struct {
	*fakeDisk
	n atomic.Int64
}

func (d *readDisk) ReadAt(b []byte, at int64) (int, error) {
	d.n.Add(int64(len(b)))
	return d.fakeDisk.ReadAt(b, at)
}

// Peers ask for blocks of many pieces in turn. The disk is not read whole for each, nor is there a piece in memory for each of them.
func TestPeersOfManyPieces(t *testing.T) {
	name, image := makeImage(t, 24<<20)
	const length, block = 4 << 20, 16 << 10
	m := mustMake(t, name, MakeOptions{PieceLength: length})
	seed := mustSeed(t, m, name, local(1))
	o := local(2)
	o.Peers = []netip.AddrPort{addr(seed)}
	s := mustOpen(t, m, o)
	d := &readDisk{fakeDisk: newDisk(32 << 20)}
	if _, err := deploy(t.Context(), s, d, digestOf(image)); err != nil {
		t.Fatal(err)
	}
	d.n.Store(0)
	got, sent := make([]byte, block), int64(0)
	for at := 0; at < 1<<20; at += block {
		for i := range len(image) / length {
			if _, err := (stored{s, i}).ReadAt(got, int64(at)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, image[i*length+at:][:block]) {
				t.Fatalf("the block at %d of piece %d is not that of the image", at, i)
			}
			sent += block
		}
	}
	if n := d.n.Load(); n > 2*sent {
		t.Errorf("%d MiB were read to send %d", n>>20, sent>>20)
	}
	// A request may be of two parts.
	across := make([]byte, 128<<10)
	if _, err := (stored{s, 2}).ReadAt(across, 256<<10-100); err != nil || !bytes.Equal(across, image[2*length+256<<10-100:][:len(across)]) {
		t.Errorf("a block of two parts: %v", err)
	}
}
