// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	infohash2 "github.com/anacrolix/torrent/types/infohash-v2"

	"github.com/ironhand/ironhand/stream"
)

const (
	// MaxMetainfo is the longest metainfo that is read, in bytes: enough for the most pieces.
	MaxMetainfo = 32 << 20
	minPiece    = 16 << 10 // what BEP 52 allows
	maxPiece    = 16 << 20 // two of them have to be in memory
	maxPieces   = 1 << 17  // each takes memory
	maxURLs     = 32       // trackers, and web seeds
)

// ErrMetainfo says that what should describe a torrent does not, or describes one that is no image.
var ErrMetainfo = errors.New("not a usable torrent")

// Meta describes an image that is shared: its name, length and the hashes of its pieces, and where peers and copies are found. Of a magnet link
// only the hash that proves the rest is known.
type Meta struct {
	spec     metainfo.MetaInfo
	info     *metainfo.Info // nil of a magnet link
	v1       metainfo.Hash  // zero if there is none
	v2       infohash2.T    // zero if there is none
	Name     string         // of the image, as whoever made the torrent gave it; may be empty of a magnet link
	Size     int64          // bytes; -1 if not known yet
	Trackers []string       // URLs, which may hold secrets
	WebSeeds []string       // URLs of the image itself, which may hold secrets
	// From is the host that the metainfo was fetched from: its trackers and web seeds are not asked for on loopback and link-local addresses, but where From is such a one. Empty
	// for what the operator has given, as a file or a magnet link: there nothing is refused.
	From string
}

// IsMagnet tells a magnet link from the name of a file or a URL.
func IsMagnet(name string) bool {
	return len(name) >= 7 && strings.EqualFold(name[:7], "magnet:")
}

// IsTorrent tells whether a file name or URL is that of a metainfo, by its ending.
func IsTorrent(name string) bool {
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		u, err := url.Parse(name)
		if err != nil {
			return false
		}
		name = u.Path
	}
	return strings.HasSuffix(strings.ToLower(name), ".torrent")
}

// Beside is the name of the image that a metainfo is published beside: that of the metainfo without its ending. Another name is returned as it is.
func Beside(name string) string {
	const ending = len(".torrent")
	if !IsTorrent(name) {
		return name
	}
	if u, err := url.Parse(name); err == nil && u.Host != "" {
		u.Path, u.RawPath = u.Path[:len(u.Path)-ending], ""
		return u.String()
	}
	return name[:len(name)-ending]
}

// Parse reads a metainfo (BEP 3, BEP 52): one of version 1, of version 2, or of both, that has one file. The error wraps ErrMetainfo.
func Parse(b []byte) (Meta, error) {
	if len(b) > MaxMetainfo {
		return Meta{}, fmt.Errorf("%w: more than %d bytes", ErrMetainfo, MaxMetainfo)
	}
	mi, err := metainfo.Load(bytes.NewReader(b))
	if err != nil {
		return Meta{}, fmt.Errorf("%w: %.200v", ErrMetainfo, err)
	}
	info, err := mi.UnmarshalInfo()
	if err != nil {
		return Meta{}, fmt.Errorf("%w: %.200v", ErrMetainfo, err)
	}
	if err := check(&info); err != nil {
		return Meta{}, err
	}
	m := Meta{spec: *mi, info: &info, Name: printable(info.BestName()), Size: info.TotalLength()}
	if info.HasV1() {
		m.v1 = mi.HashInfoBytes()
	}
	if info.HasV2() {
		m.v2 = infohash2.HashBytes(mi.InfoBytes)
		if err := metainfo.ValidatePieceLayers(mi.PieceLayers, &info.FileTree, info.PieceLength); err != nil && !(info.HasV1() && len(mi.PieceLayers) == 0) {
			return Meta{}, fmt.Errorf("%w: %.200v", ErrMetainfo, err)
		}
	}
	for _, tier := range mi.UpvertedAnnounceList() {
		m.Trackers = append(m.Trackers, tier...)
	}
	for _, seed := range mi.UrlList {
		if strings.HasSuffix(seed, "/") { // BEP 19: a directory
			seed += url.PathEscape(info.BestName())
		}
		m.WebSeeds = append(m.WebSeeds, seed)
	}
	return m.bounded(), nil
}

// Fetch reads a metainfo from where it is published, which is a web server.
func Fetch(ctx context.Context, src stream.Source, o stream.ReaderOptions) (Meta, error) {
	r := stream.NewReader(ctx, []stream.Source{src}, stream.Digest{}, o)
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, MaxMetainfo+1))
	if err != nil {
		return Meta{}, fmt.Errorf("read torrent: %w", err)
	}
	m, err := Parse(b)
	if err != nil {
		return Meta{}, fmt.Errorf("%v: %w", src, err)
	}
	u, err := url.Parse(src.String())
	if err != nil || u.Host == "" {
		return Meta{}, fmt.Errorf("%v: a torrent is fetched from a web server", src)
	}
	m.From = u.Hostname()
	return m, nil
}

// Hasten has Fetch give up soon: where there are mirrors of the image, from which it comes alone then.
func Hasten(o *stream.HTTPOptions, r *stream.ReaderOptions) {
	const patience = 30 * time.Second
	r.Patience = min(cmp.Or(r.Patience, patience), patience)
	o.Stall = min(cmp.Or(o.Stall, patience/3), patience/3)
}

// ParseMagnet reads a magnet link, which has to name a tracker: there is no other way to peers. The error wraps ErrMetainfo.
func ParseMagnet(link string) (Meta, error) {
	if len(link) > 64<<10 {
		return Meta{}, fmt.Errorf("%w: the magnet link is too long", ErrMetainfo)
	}
	u, err := metainfo.ParseMagnetV2Uri(link)
	if err != nil { // the error may have the link in it, and so what is secret in a tracker's URL
		return Meta{}, fmt.Errorf("%w: the magnet link cannot be read", ErrMetainfo)
	}
	m := Meta{v1: u.InfoHash.UnwrapOrZeroValue(), v2: u.V2InfoHash.UnwrapOrZeroValue(), Name: printable(u.DisplayName), Size: -1, Trackers: u.Trackers, WebSeeds: u.Params["ws"]}
	switch {
	case m.v1.IsZero() && (m.v2 == infohash2.T{}):
		return Meta{}, fmt.Errorf("%w: the magnet link has no hash (xt=urn:btih:... or xt=urn:btmh:...)", ErrMetainfo)
	case len(m.Trackers) == 0:
		return Meta{}, fmt.Errorf("%w: the magnet link names no tracker (tr=...), and peers are found by trackers only", ErrMetainfo)
	}
	return m.bounded(), nil
}

// bounded leaves out what is no URL of the web, and what is too much: there are trackers and copies of other kinds.
func (m Meta) bounded() Meta {
	for _, list := range []*[]string{&m.Trackers, &m.WebSeeds} {
		var kept []string
		for _, s := range *list {
			if u, err := url.Parse(s); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && len(kept) < maxURLs && !slices.Contains(kept, s) {
				kept = append(kept, s)
			}
		}
		*list = kept
	}
	return m
}

// check refuses what is not one image in pieces that are of use.
func check(info *metainfo.Info) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrMetainfo}, args...)...)
	}
	if info.PieceLength < minPiece || info.PieceLength > maxPiece {
		return bad("pieces of %d bytes, want %d to %d", info.PieceLength, minPiece, maxPiece)
	}
	if info.HasV2() {
		if err := info.FileTree.Validate(); err != nil {
			return bad("%.200v", err)
		}
		if info.PieceLength&(info.PieceLength-1) != 0 {
			return bad("pieces of %d bytes, which is not a power of two", info.PieceLength)
		}
	}
	files := 0
	for f := range info.UpvertedFilesIter() {
		if files++; files > 1 {
			return bad("it has several files, and an image is one")
		}
		if f.Length <= 0 {
			return bad("its file has %d bytes", f.Length)
		}
	}
	if files == 0 {
		return bad("it has no file")
	}
	size := info.TotalLength()
	want := (size + info.PieceLength - 1) / info.PieceLength
	if want > maxPieces {
		return bad("more than %d pieces", maxPieces)
	}
	if info.HasV1() && int64(len(info.Pieces)) != want*sha1.Size {
		return bad("hashes for %d pieces, it has %d", len(info.Pieces)/sha1.Size, want)
	}
	if info.HasV1() && info.HasV2() {
		var v1 int64
		for f := range info.UpvertedV1Files() {
			v1 += f.Length
		}
		if v1 != size {
			return bad("its two versions have %d and %d bytes", v1, size)
		}
	}
	return nil
}

// printable is a name that may go to a terminal.
func printable(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // some terminals obey control characters above 0x7f too
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
	return strings.ToValidUTF8(name[:min(len(name), 255)], "")
}

// String names the image and the hash that proves it.
func (m Meta) String() string {
	hash := fmt.Sprintf("%x", m.v1[:])
	if m.v1.IsZero() {
		hash = fmt.Sprintf("%x", m.v2[:])
	}
	if m.Name == "" {
		return "torrent " + hash
	}
	return "torrent " + m.Name + " (" + hash + ")"
}

// Magnet returns a magnet link with the trackers and web seeds.
func (m Meta) Magnet() string {
	link := metainfo.MagnetV2{DisplayName: m.Name, Trackers: m.Trackers, Params: url.Values{}}
	if !m.v1.IsZero() {
		link.InfoHash.Set(m.v1)
	}
	if m.v2 != (infohash2.T{}) {
		link.V2InfoHash.Set(m.v2)
	}
	if len(m.WebSeeds) > 0 {
		link.Params["ws"] = m.WebSeeds
	}
	return link.String()
}

// hashes are what trackers know the torrent by: one, or two if it is of both versions.
func (m Meta) hashes() (all [][20]byte) {
	if !m.v1.IsZero() {
		all = append(all, m.v1)
	}
	if m.v2 != (infohash2.T{}) {
		all = append(all, [20]byte(m.v2[:20]))
	}
	return all
}

// Bytes returns the metainfo, as it goes into a file.
func (m Meta) Bytes() ([]byte, error) {
	if m.info == nil {
		return nil, fmt.Errorf("%w: of a magnet link only the hash is known", ErrMetainfo)
	}
	return bencode.Marshal(m.spec)
}
