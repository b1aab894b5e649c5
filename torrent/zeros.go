// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"crypto/sha1"
	"crypto/sha256"
	"io"

	"github.com/anacrolix/torrent/merkle"
)

// zeros tells of each piece whether it is nothing but zeros. Its hash proves that, and both of them do where it has two, so nobody has to send such a piece.
func (m Meta) zeros() []bool {
	length := m.info.PieceLength
	pieces := make([]bool, (m.Size+length-1)/length)
	last := len(pieces) - 1
	var layer []byte // the hashes of version 2; some torrents of both versions do not have them
	if m.info.HasV2() {
		for f := range m.info.UpvertedFilesIter() { // it is one
			layer = f.PiecesRoot.Value[:]
			if last > 0 {
				layer = []byte(m.spec.PieceLayers[string(layer)])
			}
		}
	}
	v1, v2 := m.info.HasV1(), len(layer) > 0
	whole, rest := sumsOfZeros(length, length), sumsOfZeros(m.Size-int64(last)*length, length)
	if last == 0 {
		rest = sumsOfZeros(m.Size, 0)
	}
	for i := range pieces {
		want := whole
		if i == last {
			want = rest
		}
		pieces[i] = (v1 || v2) && (!v1 || isSum(m.info.Pieces, i, want.v1[:])) && (!v2 || isSum(layer, i, want.v2[:]))
	}
	return pieces
}

// sums are the hashes of a piece in both versions.
type sums struct {
	v1 [sha1.Size]byte
	v2 [sha256.Size]byte
}

// sumsOfZeros are those of n zero bytes. The tree of version 2 has leaves for as many as atLeast, and those behind the end are zero themselves (BEP 52).
func sumsOfZeros(n, atLeast int64) (s sums) {
	v1, v2 := sha1.New(), merkle.NewHash()
	w, block := io.MultiWriter(v1, v2), make([]byte, minPiece)
	for ; n > 0; n -= minPiece {
		w.Write(block[:min(n, minPiece)]) // never returns an error
	}
	v1.Sum(s.v1[:0])
	v2.SumMinLength(s.v2[:0], int(atLeast))
	return s
}

// isSum tells whether the hash of piece i in a list of hashes is this one.
func isSum(list []byte, i int, sum []byte) bool {
	at := i * len(sum)
	return at+len(sum) <= len(list) && string(list[at:at+len(sum)]) == string(sum)
}
