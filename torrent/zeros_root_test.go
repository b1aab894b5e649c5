// SPDX-License-Identifier: Apache-2.0

//go:build linux

package torrent

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
)

// A block device that was full of old data holds the image afterwards, by the word of another program, and was sent no zeros.
func TestRootZeros(t *testing.T) {
	looptest.NeedRoot(t)
	name, image := sparseImage(t, 39<<20+777)
	m := mustMake(t, name, MakeOptions{PieceLength: 256 << 10})
	for _, sector := range []int{512, 4096} {
		t.Run(strconv.Itoa(sector), func(t *testing.T) {
			seed := mustSeed(t, m, name, local(1))
			file := filepath.Join(t.TempDir(), "disk.img")
			if err := os.WriteFile(file, bytes.Repeat([]byte{0xee}, 48<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			disk, err := stream.OpenDevice(looptest.Attach(t, file, sector))
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			o := local(2)
			o.Peers = []netip.AddrPort{addr(seed)}
			w, err := deploy(t.Context(), mustOpen(t, m, o), disk, digestOf(image))
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("cmp", "-n", strconv.Itoa(len(image)), name, file).CombinedOutput(); err != nil {
				t.Errorf("cmp: %v\n%s", err, out)
			}
			if most := dataIn(image, 64<<10) * 101 / 100; w.Bytes > most {
				t.Errorf("%d bytes were written, want at most %d", w.Bytes, most)
			}
			if data := dataIn(image, 256<<10); seed.Stats().Up > data+data/10 {
				t.Errorf("the seeder has sent %d bytes, want %d", seed.Stats().Up, data)
			}
		})
	}
}
