// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/binary"
	"math/bits"
)

// xxh64 is XXH64 with the seed 0, which zstd's checksums are made of (xxhash_spec.md). It counts zeros without having them in memory.
type xxh64 struct {
	v     [4]uint64
	total uint64
	rest  [32]byte // total%32 of it
}

const (
	xxPrime1 uint64 = 0x9e3779b185ebca87
	xxPrime2 uint64 = 0xc2b2ae3d27d4eb4f
	xxPrime3 uint64 = 0x165667b19e3779f9
	xxPrime4 uint64 = 0x85ebca77c2b2ae63
	xxPrime5 uint64 = 0x27d4eb2f165667c5
)

func (x *xxh64) reset() {
	p1, p2 := xxPrime1, xxPrime2
	*x = xxh64{v: [4]uint64{p1 + p2, p2, 0, -p1}}
}

func (x *xxh64) write(b []byte) {
	n := x.total % 32
	x.total += uint64(len(b))
	if n > 0 {
		some := copy(x.rest[n:], b)
		if n+uint64(some) < 32 {
			return
		}
		x.stripes(x.rest[:])
		b = b[some:]
	}
	whole := len(b) &^ 31
	x.stripes(b[:whole])
	copy(x.rest[:], b[whole:])
}

func (x *xxh64) stripes(b []byte) {
	v0, v1, v2, v3 := x.v[0], x.v[1], x.v[2], x.v[3]
	for ; len(b) >= 32; b = b[32:] {
		v0 = bits.RotateLeft64(v0+binary.LittleEndian.Uint64(b)*xxPrime2, 31) * xxPrime1
		v1 = bits.RotateLeft64(v1+binary.LittleEndian.Uint64(b[8:])*xxPrime2, 31) * xxPrime1
		v2 = bits.RotateLeft64(v2+binary.LittleEndian.Uint64(b[16:])*xxPrime2, 31) * xxPrime1
		v3 = bits.RotateLeft64(v3+binary.LittleEndian.Uint64(b[24:])*xxPrime2, 31) * xxPrime1
	}
	x.v = [4]uint64{v0, v1, v2, v3}
}

// zeros is write of n zeros.
func (x *xxh64) zeros(n int64) {
	part := min(n, int64(-x.total&31))
	x.write(zeros[:part])
	n -= part
	v0, v1, v2, v3 := x.v[0], x.v[1], x.v[2], x.v[3]
	for range n / 32 {
		v0 = bits.RotateLeft64(v0, 31) * xxPrime1
		v1 = bits.RotateLeft64(v1, 31) * xxPrime1
		v2 = bits.RotateLeft64(v2, 31) * xxPrime1
		v3 = bits.RotateLeft64(v3, 31) * xxPrime1
	}
	x.v = [4]uint64{v0, v1, v2, v3}
	x.total += uint64(n &^ 31)
	x.write(zeros[:n%32])
}

func (x *xxh64) sum() uint64 {
	var h uint64
	if x.total >= 32 {
		h = bits.RotateLeft64(x.v[0], 1) + bits.RotateLeft64(x.v[1], 7) + bits.RotateLeft64(x.v[2], 12) + bits.RotateLeft64(x.v[3], 18)
		for _, v := range x.v {
			h ^= bits.RotateLeft64(v*xxPrime2, 31) * xxPrime1
			h = h*xxPrime1 + xxPrime4
		}
	} else {
		h = xxPrime5
	}
	h += x.total
	b := x.rest[:x.total%32]
	for ; len(b) >= 8; b = b[8:] {
		h ^= bits.RotateLeft64(binary.LittleEndian.Uint64(b)*xxPrime2, 31) * xxPrime1
		h = bits.RotateLeft64(h, 27)*xxPrime1 + xxPrime4
	}
	if len(b) >= 4 {
		h ^= uint64(binary.LittleEndian.Uint32(b)) * xxPrime1
		h = bits.RotateLeft64(h, 23)*xxPrime2 + xxPrime3
		b = b[4:]
	}
	for _, c := range b {
		h ^= uint64(c) * xxPrime5
		h = bits.RotateLeft64(h, 11) * xxPrime1
	}
	h = (h ^ h>>33) * xxPrime2
	h = (h ^ h>>29) * xxPrime3
	return h ^ h>>32
}
