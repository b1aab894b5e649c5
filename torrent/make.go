// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"crypto/sha1"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/merkle"
	"github.com/anacrolix/torrent/metainfo"
)

// Version is which hashes a torrent has.
type Version int

// The versions. The zero value is V1.
const (
	V1     Version = iota // SHA-1 of each piece (BEP 3): every client knows it
	V2                    // a tree of SHA-256 (BEP 52), which is computed faster
	Hybrid                // both; some old clients take neither
)

// MakeOptions is what Make puts into a torrent besides the hashes.
type MakeOptions struct {
	Name        string // of the image; empty for that of the file
	Trackers    []string
	WebSeeds    []string
	Version     Version
	PieceLength int64 // bytes, a power of two from 16 KiB to 16 MiB; 0 for one that fits
	// Progress hears how many bytes have been read; nil for nobody.
	Progress func(done int64)
}

// pieceFor makes about a thousand pieces of small images, and pieces of 2 MiB of large ones: several of them have to be in memory.
func pieceFor(size int64) int64 {
	piece := int64(256 << 10)
	for piece < 2<<20 && size/piece > 1500 {
		piece *= 2
	}
	for size/piece > maxPieces/2 && piece < maxPiece {
		piece *= 2
	}
	return piece
}

// Make reads the image at path and describes it.
func Make(ctx context.Context, path string, o MakeOptions) (Meta, error) {
	f, err := os.Open(path)
	if err != nil {
		return Meta{}, fmt.Errorf("make torrent: %w", err)
	}
	defer f.Close() // only read
	return MakeOf(ctx, f, o)
}

// MakeOf is Make for a file that is open, and is read from where it is.
func MakeOf(ctx context.Context, f *os.File, o MakeOptions) (Meta, error) {
	path := f.Name()
	stat, err := f.Stat()
	if err != nil {
		return Meta{}, fmt.Errorf("make torrent: %w", err)
	}
	if !stat.Mode().IsRegular() || stat.Size() == 0 {
		return Meta{}, fmt.Errorf("make torrent: %s is not a file with something in it", path)
	}
	info := metainfo.Info{Name: o.Name, PieceLength: o.PieceLength}
	if info.Name == "" {
		info.Name = filepath.Base(path)
	}
	if info.PieceLength == 0 {
		info.PieceLength = pieceFor(stat.Size())
	}
	if p := info.PieceLength; p < minPiece || p > maxPiece || p&(p-1) != 0 {
		return Meta{}, fmt.Errorf("make torrent: pieces of %d bytes; want a power of two from %d to %d", p, minPiece, maxPiece)
	}
	var layer []byte
	var root [32]byte
	whole := merkle.NewHash()
	buf := make([]byte, info.PieceLength)
	for done := int64(0); done < stat.Size(); {
		if ctx.Err() != nil {
			return Meta{}, context.Cause(ctx)
		}
		b := buf[:min(info.PieceLength, stat.Size()-done)]
		if _, err := io.ReadFull(f, b); err != nil {
			return Meta{}, fmt.Errorf("make torrent: read %s: %w", path, err)
		}
		if o.Version != V2 {
			sum := sha1.Sum(b)
			info.Pieces = append(info.Pieces, sum[:]...)
		}
		if o.Version != V1 {
			tree := merkle.NewHash()
			tree.Write(b) // never returns an error
			layer = tree.SumMinLength(layer, int(info.PieceLength))
			if stat.Size() <= info.PieceLength {
				whole.Write(b)
			}
		}
		done += int64(len(b))
		if o.Progress != nil {
			o.Progress(done)
		}
	}
	mi := metainfo.MetaInfo{CreatedBy: "ironhand", UrlList: o.WebSeeds}
	if len(o.Trackers) > 0 {
		mi.Announce = o.Trackers[0]
		for _, t := range o.Trackers {
			mi.AnnounceList = append(mi.AnnounceList, []string{t})
		}
	}
	if o.Version != V2 {
		info.Length = stat.Size()
	}
	if o.Version != V1 {
		if stat.Size() <= info.PieceLength {
			copy(root[:], whole.Sum(nil))
		} else {
			pieces, err := merkle.CompactLayerToSliceHashes(string(layer))
			if err != nil {
				return Meta{}, fmt.Errorf("make torrent: %w", err)
			}
			// Behind the end of the image the tree goes on with leaves of zeros.
			empty := merkle.RootWithPadHash(make([][32]byte, info.PieceLength/merkle.BlockSize), [32]byte{})
			root = merkle.RootWithPadHash(pieces, empty)
			mi.PieceLayers = map[string]string{string(root[:]): string(layer)}
		}
		info.MetaVersion = 2
		info.FileTree = metainfo.FileTree{Dir: map[string]metainfo.FileTree{
			info.Name: {File: metainfo.FileTreeFile{Length: stat.Size(), PiecesRoot: string(root[:])}},
		}}
	}
	if mi.InfoBytes, err = bencode.Marshal(&info); err != nil { // by value the file tree would be marshalled wrong
		return Meta{}, fmt.Errorf("make torrent: %w", err)
	}
	b, err := bencode.Marshal(mi)
	if err != nil {
		return Meta{}, fmt.Errorf("make torrent: %w", err)
	}
	return Parse(b) // what others will read
}
