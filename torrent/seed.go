// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
)

// Seeder shares an image that is in a file.
type Seeder struct {
	*session
	path string
	file *os.File
}

// Seed shares the image in the file at path, which has to be what m describes: it is read, and compared, before it is shared; an error wraps ErrMetainfo. The
// file is not written to. Close must be called.
func Seed(ctx context.Context, m Meta, path string, o Options) (*Seeder, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	return SeedOf(ctx, m, f, o)
}

// SeedOf is Seed for a file that is open, and which it closes.
func SeedOf(ctx context.Context, m Meta, f *os.File, o Options) (*Seeder, error) {
	o = o.filled()
	path := f.Name()
	if m.info == nil {
		f.Close() // only read
		return nil, fmt.Errorf("seed %s: %w: a magnet link does not say what has to be in the file", path, ErrMetainfo)
	}
	stat, err := f.Stat()
	if err == nil && stat.Size() != m.Size {
		err = fmt.Errorf("seed %s: %w for it: the file has %d bytes, the torrent %d", path, ErrMetainfo, stat.Size(), m.Size)
	}
	if err != nil {
		f.Close() // only read
		return nil, err
	}
	ses, err := start(ctx, m, o)
	if err != nil {
		f.Close() // only read
		return nil, fmt.Errorf("seed %s: %w", path, err)
	}
	s := &Seeder{session: ses, path: path, file: f}
	if err := s.check(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("seed %s: %w", path, err)
	}
	return s, nil
}

func (s *Seeder) check(ctx context.Context) error {
	if err := s.t.OpenStorage(ctx, &fileStore{f: s.file, pieces: map[int]bool{}, length: s.meta.info.PieceLength}); err != nil {
		return err
	}
	for i := range s.t.NumPieces() {
		if !s.t.PieceState(i).Ok {
			if err := s.t.Piece(i).VerifyDataContext(ctx); err != nil {
				return err
			}
		}
		if !s.t.PieceState(i).Complete {
			return fmt.Errorf("%w for this file: piece %d of it differs", ErrMetainfo, i)
		}
	}
	return nil
}

// Stats are what was done so far.
func (s *Seeder) Stats() Stats { return s.stats() }

// Close ends the sharing.
func (s *Seeder) Close() error {
	s.session.close()
	return s.file.Close()
}

// fileStore is a file that is shared. The library looks at all of it, and keeps here what it has found.
type fileStore struct {
	f      *os.File
	length int64
	mu     sync.Mutex
	pieces map[int]bool
}

func (st *fileStore) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{Piece: func(p metainfo.Piece) storage.PieceImpl { return filePiece{st, p.Index()} }, Close: func() error { return nil }}, nil
}

type filePiece struct {
	st *fileStore
	i  int
}

func (p filePiece) ReadAt(b []byte, at int64) (int, error) {
	return p.st.f.ReadAt(b, int64(p.i)*p.st.length+at)
}

func (p filePiece) WriteAt([]byte, int64) (int, error) { return 0, os.ErrPermission }

func (p filePiece) mark(good bool) error {
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	p.st.pieces[p.i] = good
	return nil
}

func (p filePiece) MarkComplete() error    { return p.mark(true) }
func (p filePiece) MarkNotComplete() error { return p.mark(false) }

func (p filePiece) Completion() storage.Completion {
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	good, known := p.st.pieces[p.i]
	return storage.Completion{Ok: known, Complete: good}
}
