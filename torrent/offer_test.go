// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"bytes"
	"runtime"
	"testing"
)

// Blocks from peers that come while a piece from elsewhere is looked at do not get into it: a peer that was asked for one, and waits, could have what it likes be taken for
// proven. They are not lost either: if the piece from elsewhere is wrong, they count, or who has sent them would be taken for a liar.
func TestBlockWhileOffered(t *testing.T) {
	name, image := makeImage(t, 4<<20)
	m := mustMake(t, name, MakeOptions{PieceLength: 1 << 20})
	good := image[:1<<20]
	block := bytes.Repeat([]byte("lie"), 16<<10)[:16<<10]
	for _, c := range []struct {
		name  string
		offer []byte
		good  bool
	}{
		{"right", good, true},
		{"wrong", bytes.Repeat([]byte("no"), 1<<19), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := mustOpen(t, m, local(2))
			s.mu.Lock()
			s.pieces[0].state, s.pieces[0].lent = wanted, true
			s.mu.Unlock()
			write := func() {
				for at := int64(0); at < 1<<20; at += 16 << 10 {
					stored{s, 0}.WriteAt(block, at)
				}
			}
			write()
			stop, stopped := make(chan bool), make(chan bool)
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					default:
						write()
						runtime.Gosched()
					}
				}
			}()
			if got := s.offer(0, bytes.Clone(c.offer)); got != c.good {
				t.Errorf("offer() = %v, want %v", got, c.good)
			}
			close(stop)
			<-stopped
			want := good
			if !c.good {
				want = bytes.Repeat(block, 64)
			}
			if !bytes.Equal(s.pieces[0].buf, want) {
				t.Error("the piece is not what it has to be")
			}
		})
	}
}
