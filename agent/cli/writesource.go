// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/torrent"
)

func isWeb(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// web is how images and what belongs to them are fetched.
type web struct {
	transport *http.Transport
	login     func(host string) (user, password string) // nil for none
	reader    stream.ReaderOptions
	torrent   torrent.Options
	warnings  io.Writer
}

// newWeb reads the files of CAs and of logins, "" for none.
func newWeb(caFile, authFile string, patience time.Duration) (*web, error) {
	w := &web{transport: http.DefaultTransport.(*http.Transport).Clone(), reader: stream.ReaderOptions{Patience: patience}, warnings: io.Discard}
	if caFile != "" {
		text, err := readRegular(caFile, 16<<20)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: no certificate in it", caFile)
		}
		w.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	if authFile != "" {
		text, err := readRegular(authFile, 1<<20)
		if err != nil {
			return nil, err
		}
		if w.login, err = stream.ParseLogins(text); err != nil {
			return nil, fmt.Errorf("%s: %w", authFile, err)
		}
	}
	return w, nil
}

// open returns the file behind a URL.
func (w *web) open(name string, o stream.HTTPOptions) (stream.Source, error) {
	o.Transport = w.transport
	if u, err := url.Parse(name); err == nil && u.User == nil {
		if basic := w.authorization(u); basic != "" {
			o.Authorization = func() string { return basic }
		}
	}
	return stream.NewHTTP(name, o)
}

// authorization is how to log in to a server, which has to have TLS; "" for not.
func (w *web) authorization(u *url.URL) string {
	if u.Scheme != "https" || w.login == nil {
		return ""
	}
	user, password := w.login(u.Host)
	if user == "" {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// places are those of the image itself, or of where it would be beside its torrent. A magnet link tells none.
func places(names []string) (places []string) {
	for _, name := range names {
		if !torrent.IsMagnet(name) {
			places = append(places, torrent.Beside(name))
		}
	}
	return places
}

// digest reads the digest of an image from a checksum file on a web server.
func (w *web) digest(ctx context.Context, checksums string, images []string) (stream.Digest, error) {
	src, err := w.open(checksums, stream.HTTPOptions{KeepTLS: true})
	if err != nil {
		return stream.Digest{}, err
	}
	name := ""
	if images = places(images); len(images) > 0 {
		name = filepath.Base(images[0])
		if isWeb(images[0]) {
			u, err := url.Parse(images[0])
			if err != nil { // sources refuses it
				return stream.Digest{}, errors.New("image: it is not a URL")
			}
			name = path.Base(u.Path)
		}
	}
	return stream.FetchChecksum(ctx, src, "", name, w.reader)
}

// signature reads the signature that an image must have; the zero Signature without a key.
func (w *web) signature(ctx context.Context, keyFile, name string, images []string) (stream.Signature, error) {
	switch {
	case keyFile == "" && name == "":
		return stream.Signature{}, nil
	case keyFile == "":
		return stream.Signature{}, usagef("--signature needs --public-key")
	}
	text, err := readRegular(keyFile, 1<<20)
	if err != nil {
		return stream.Signature{}, err
	}
	keys, err := stream.ParsePublicKeys(text)
	if err != nil {
		return stream.Signature{}, fmt.Errorf("%s: %w", keyFile, err)
	}
	open := func(name string) (stream.Source, error) {
		if isWeb(name) {
			return w.open(name, stream.HTTPOptions{})
		}
		return stream.NewFile(name)
	}
	if name == "" {
		return stream.FetchSignatureBeside(ctx, places(images), open, keys, w.reader)
	}
	src, err := open(name)
	if err != nil {
		return stream.Signature{}, fmt.Errorf("signature: %w", err)
	}
	return stream.FetchSignature(ctx, src, keys, w.reader)
}

// isSwarm tells whether an image comes by BitTorrent.
func isSwarm(name string) bool { return torrent.IsMagnet(name) || torrent.IsTorrent(name) }

// swarm takes part in the swarm of an image. mirrors are other places of it, from which it comes alone if the torrent cannot be had and proven says that its own digest or signature proves
// it: then it returns nil.
func (w *web) swarm(ctx context.Context, name string, mirrors []string, proven bool) (*torrent.Source, error) {
	if i := slices.IndexFunc(mirrors, func(s string) bool { return !isWeb(s) || isSwarm(s) }); i >= 0 {
		return nil, usagef("%s: beside a torrent, mirrors are http and https URLs", mirrors[i])
	}
	s, err := w.join(ctx, name, mirrors, proven)
	if err == nil || !proven || len(mirrors) == 0 || ctx.Err() != nil || !isWeb(name) || errors.Is(err, errUsage) {
		return s, err
	}
	fmt.Fprintf(w.warnings, "warning: the image comes from its mirrors alone, over HTTP: %v\n", err)
	return nil, nil
}

func (w *web) join(ctx context.Context, name string, mirrors []string, proven bool) (*torrent.Source, error) {
	m, err := w.metainfo(ctx, name, proven, proven && len(mirrors) > 0)
	if err != nil {
		return nil, err
	}
	o := w.torrent
	o.Transport, o.WebSeeds, o.Patience, o.Log = w.transport, mirrors, w.reader.Patience, w.reader.Log
	if w.login != nil {
		o.Authorization = w.authorization
	}
	s, err := torrent.Open(ctx, m, o)
	if err == nil && o.Port != 0 && s.Port() != o.Port {
		fmt.Fprintf(w.warnings, "warning: port %d is in use; peers are told of %d\n", o.Port, s.Port())
	}
	return s, err
}

// metainfo reads what describes a torrent: a magnet link, a file, or what is behind a URL. proven says that the image is proven by something else,
// soon that the image can be had without its torrent.
func (w *web) metainfo(ctx context.Context, name string, proven, soon bool) (torrent.Meta, error) {
	switch {
	case torrent.IsMagnet(name):
		return torrent.ParseMagnet(name)
	case isWeb(name):
		if strings.HasPrefix(name, "http://") && !proven {
			return torrent.Meta{}, usagef("a torrent that comes by http proves nothing: fetch it by https, or give --digest")
		}
		o, reader := stream.HTTPOptions{KeepTLS: true}, w.reader
		if soon {
			torrent.Hasten(&o, &reader)
		}
		src, err := w.open(name, o)
		if err != nil {
			return torrent.Meta{}, err
		}
		return torrent.Fetch(ctx, src, reader)
	}
	b, err := readRegular(name, torrent.MaxMetainfo)
	if err != nil {
		return torrent.Meta{}, err
	}
	m, err := torrent.Parse(b)
	if err != nil {
		return torrent.Meta{}, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// sources returns the places of the image and what their digest has to be: that which is given, or else that which a registry tells. signed says that a signature will prove the image.
func (w *web) sources(ctx context.Context, names []string, digest stream.Digest, signed bool) ([]stream.Source, stream.Digest, error) {
	bad := func(err error) ([]stream.Source, stream.Digest, error) { return nil, stream.Digest{}, err }
	o := stream.OCIOptions{HTTP: stream.HTTPOptions{Transport: w.transport}, Login: w.login, Reader: w.reader}
	if i := slices.IndexFunc(names, isSwarm); i >= 0 {
		mirrors := slices.Delete(slices.Clone(names), i, i+1)
		s, err := w.swarm(ctx, names[i], mirrors, !digest.IsZero() || signed)
		if err != nil {
			return bad(err)
		}
		if s != nil {
			return []stream.Source{s}, digest, nil
		}
		names = mirrors
	}
	var sources []stream.Source
	for _, name := range names {
		var s stream.Source
		var err error
		switch scheme, _, isURL := strings.Cut(name, "://"); {
		case isWeb(name):
			s, err = w.open(name, stream.HTTPOptions{})
		case stream.IsOCI(name):
			var told stream.Digest
			s, told, err = stream.NewOCI(ctx, name, o)
			switch {
			case err != nil:
			case digest.IsZero():
				digest = told
			case digest.Algorithm == told.Algorithm && digest != told:
				err = fmt.Errorf("%s: %w: want %s, the registry has %s", name, stream.ErrDigest, digest, told)
			}
		case isURL:
			err = usagef("%s://...: images are fetched by http, https, oci and magnet links, or are files", scheme)
		default:
			s, err = stream.NewFile(name)
		}
		if err != nil {
			return bad(err)
		}
		sources = append(sources, s)
	}
	return sources, digest, nil
}
