// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/stream"
)

// Who has all pieces and brings hardly any, or brings them slowly, does not keep web seeds out; peers that do well, and a disk that is slow, leave them alone.
func TestWhenWebSeedsHelp(t *testing.T) {
	const length, pieces = 256 << 10, 64
	for _, c := range []struct {
		name     string
		peers    int     // bytes a second
		web      float64 // bytes a second
		arrived  []int   // pieces that wait for the disk
		least    int     // how often web seeds are asked in a minute
		most     int
		earliest time.Duration
	}{
		{"peers do well", 4 << 20, 50 << 20, nil, 0, 0, 0},
		{"nothing comes", 0, 50 << 20, nil, 200, 240, stalled},
		{"1 KiB a second", 1 << 10, 50 << 20, nil, 150, 240, stalled},
		{"64 KiB a second", 64 << 10, 50 << 20, nil, 190, 210, trial},
		{"1 MiB a second", 1 << 20, 50 << 20, nil, 190, 210, trial},
		{"slow, and so are web seeds", 64 << 10, 256 << 10, nil, 5, 6, trial},
		{"the disk is slow", 64 << 10, 50 << 20, []int{0}, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Source{session: &session{o: Options{}.filled(), ctx: t.Context()}, length: length, size: pieces * length, mode: byPlace,
					changed: make(chan struct{}), fetches: map[int]*fetch{}, pieces: make([]piece, pieces), swarm: 1, whole: 1, some: make([]uint16, pieces)}
				for i := range s.pieces {
					s.pieces[i].state = wanted
				}
				s.place = &place{s: s, arrived: c.arrived}
				s.begun()
				begin, asked, owed, block := time.Now(), 0, 0, make([]byte, request)
				var first time.Duration
				for time.Since(begin) < time.Minute {
					time.Sleep(steerEvery)
					for owed += c.peers / int(time.Second/steerEvery); owed >= request; owed -= request {
						stored{s, pieces - 1}.WriteAt(block, 0)
					}
					if i, f := s.lend(time.Now()); i >= 0 {
						if asked++; asked == 1 {
							first = time.Since(begin)
						}
						f.cancel(nil)
						s.mu.Lock()
						delete(s.fetches, i)
						s.pieces[i].lent = false
						s.fetched(length, time.Duration(length/c.web*float64(time.Second)))
						s.mu.Unlock()
					}
				}
				if asked < c.least || asked > c.most {
					t.Errorf("web seeds were asked %d times in a minute, want %d to %d", asked, c.least, c.most)
				}
				if first < c.earliest || first > c.earliest+time.Second {
					t.Errorf("web seeds were asked after %v first, want %v", first, c.earliest)
				}
			})
		})
	}
}

// A web seed that hangs is left for another, and meanwhile peers are asked for its piece.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Source{session: &session{o: Options{}.filled(), ctx: t.Context()}, length: 1 << 20, size: 3 << 20, fetches: map[int]*fetch{}, pieces: make([]piece, 3), changed: make(chan struct{})}
		for i := range s.pieces {
			s.pieces[i].state = wanted
		}
		begin := time.Now()
		var f []*fetch
		for range s.pieces {
			_, one := s.lend(time.Now().Add(grace))
			one.since = begin
			f = append(f, one)
		}
		s.todo = nil
		s.pieces[0].state = have
		s.hurry(time.Now())
		if f[0].ctx.Err() == nil || f[1].ctx.Err() != nil {
			t.Error("what a peer has brought is fetched on, or what nobody has is not")
		}
		time.Sleep(trial)
		s.hurry(time.Now())
		if len(s.todo) != 2 || f[1].ctx.Err() != nil {
			t.Errorf("peers are asked for %d pieces of a web seed that takes long, want 2; or it was given up though no other is faster", len(s.todo))
		}
		s.webRate = 1 << 20
		s.hurry(time.Now())
		if context.Cause(f[1].ctx) != errSlow || context.Cause(f[2].ctx) != errSlow {
			t.Error("a web seed that is far slower than others keeps its piece")
		}
	})
}

// A peer that has the whole image and sends 64 KiB a second takes minutes for it; a mirror ends that.
func TestSlowPeerThatHasAll(t *testing.T) {
	for _, order := range []string{"by place", "in order"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			name, image := makeImage(t, 16<<20)
			m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
			o := local(1)
			o.Up = 64 << 10
			slow := mustSeed(t, m, name, o)
			o = local(2)
			o.Peers, o.WebSeeds = []netip.AddrPort{addr(slow)}, []string{serve(t, &mirror{image: image})}
			s := mustOpen(t, m, o)
			ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
			defer cancel()
			if order == "by place" {
				d := newDisk(32 << 20)
				if _, err := deploy(ctx, s, d, digestOf(image)); err != nil {
					t.Fatal(err)
				}
				sameDisk(t, d, image)
			} else {
				r := stream.NewReader(ctx, []stream.Source{s}, digestOf(image), stream.ReaderOptions{})
				defer r.Close()
				if _, err := io.Copy(io.Discard, r); err != nil {
					t.Fatal(err)
				}
				if err := r.Verify(); err != nil {
					t.Fatal(err)
				}
			}
			if st := s.Stats(); st.Down == 0 {
				t.Error("the slow peer has sent nothing")
			}
		})
	}
}
