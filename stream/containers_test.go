// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"hash/maphash"
	"io"
	"testing"
	"testing/iotest"
)

// fuzzContainer has files unpacked that begin as those of one kind do: whatever comes out must not depend on how the file comes in, and a file that ends too early must be told from one that is whole.
func fuzzContainer(f *testing.F, kind Compression, magic string, seeds ...[]byte) {
	for _, seed := range seeds {
		f.Add(seed[len(magic):])
	}
	f.Fuzz(func(t *testing.T, rest []byte) {
		in := join([]byte(magic), rest)
		seed := maphash.MakeSeed()
		unpack := func(r io.Reader) (n int64, sum uint64, err error) {
			h := maphash.Hash{}
			h.SetSeed(seed)
			c, err := Decompress(r, 0)
			if err != nil {
				return 0, 0, err
			}
			defer c.Close()
			if c.Compression != kind { // there is more to it than the magic
				t.Skip()
			}
			n, err = io.Copy(&h, io.LimitReader(c, 16<<20))
			return n, h.Sum64(), err
		}
		n, sum, err := unpack(bytes.NewReader(in))
		n2, sum2, err2 := unpack(iotest.HalfReader(bytes.NewReader(in)))
		if (err == nil) != (err2 == nil) || err == nil && (n != n2 || sum != sum2) {
			t.Errorf("%q: %d bytes, %v; read in parts %d bytes, %v", in, n, err, n2, err2)
		}
		gone := errors.New("gone")
		if _, _, err := unpack(io.MultiReader(bytes.NewReader(in), iotest.ErrReader(gone))); n < 16<<20 && err == nil {
			t.Errorf("%q: an error of reading is lost", in)
		}
	})
}

func FuzzGzip(f *testing.F) {
	raw := join(make([]byte, 3000), noise(1000))
	fuzzContainer(f, Gzip, "\x1f\x8b\x08", run(f, raw, "gzip"), join(run(f, raw, "gzip"), run(f, nil, "gzip"), make([]byte, 20)), run(f, raw, "gzip", "-1"))
}

func FuzzZstd(f *testing.F) {
	raw := join(make([]byte, 3000), noise(1000))
	fuzzContainer(f, Zstd, "\x28\xb5\x2f\xfd", run(f, raw, "zstd"), run(f, raw, "zstd", "--no-check"), run(f, raw, "zstd", "--long=27"),
		join(run(f, raw, "zstd", "--stream-size=4000"), run(f, raw[:100], "zstd"), []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00seek")))
}

func FuzzXZ(f *testing.F) {
	raw := join(make([]byte, 3000), noise(1000))
	fuzzContainer(f, XZ, "\xfd7zXZ\x00", run(f, raw, "xz"), join(run(f, raw, "xz", "-T2", "--block-size=1500", "--check=sha256"), make([]byte, 4)), run(f, raw, "xz", "--check=crc32"))
}

func FuzzBzip2(f *testing.F) {
	raw := join(make([]byte, 3000), noise(1000))
	fuzzContainer(f, Bzip2, "BZh", run(f, raw, "bzip2"), run(f, raw, "bzip2", "-1"), join(run(f, raw, "bzip2"), run(f, raw, "bzip2")))
}

func FuzzLZ4(f *testing.F) {
	raw := join(make([]byte, 3000), noise(1000))
	fuzzContainer(f, LZ4, "\x04\x22\x4d\x18", run(f, raw, "lz4", "-c"), run(f, raw, "lz4", "-c", "-BD", "-B4", "--content-size"))
}
