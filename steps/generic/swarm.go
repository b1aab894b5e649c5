// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/torrent"
)

// places are the URLs of the image itself: of a torrent, where the image would be beside it.
func (i imageInfo) places() []string {
	var places []string
	for _, one := range i.URLs {
		places = append(places, torrent.Beside(one))
	}
	return places
}

// swarm takes part in the swarm of the image, if one of its URLs is that of a torrent. The others are mirrors, which serve what no peer has; and all of it, if the torrent cannot be had: then,
// and where no URL is that of a torrent, it returns nil.
func (i imageInfo) swarm(ctx context.Context, h steps.Host) (*torrent.Source, error) {
	where, mirrors := "", []string(nil)
	for _, one := range i.URLs {
		switch {
		case !torrent.IsTorrent(one):
			mirrors = append(mirrors, one)
		case where == "":
			where = one
		}
	}
	if where == "" {
		return nil, nil
	}
	s, err := i.join(ctx, h, where, mirrors)
	if err == nil || len(mirrors) == 0 || ctx.Err() != nil {
		return s, err
	}
	h.Say("WARNING: the image comes from its mirrors alone, over HTTP: %v", err)
	return nil, nil
}

// join takes part in the swarm of a torrent.
func (i imageInfo) join(ctx context.Context, h steps.Host, where string, mirrors []string) (*torrent.Source, error) {
	o, err := i.options(h)
	if err != nil {
		return nil, err
	}
	meta, reader := o, stream.ReaderOptions{Patience: h.Download.Budget, Log: h.Log}
	meta.KeepTLS = true
	if len(mirrors) > 0 {
		torrent.Hasten(&meta, &reader)
	}
	src, err := stream.NewHTTP(where, meta)
	if err != nil {
		return nil, fmt.Errorf("%w: image_info.urls: %v", steps.ErrArgs, err)
	}
	m, err := torrent.Fetch(ctx, src, reader)
	if err != nil {
		return nil, err
	}
	t := h.Download.Torrent
	to := torrent.Options{Port: t.Port, Allow: t.Peers, Up: t.Up, Down: t.Down, WebSeeds: mirrors, Patience: h.Download.Budget, Log: h.Log, Transport: h.Transport}
	if own, ok := h.Transport.(*http.Transport); ok && o.Proxy != nil {
		own = own.Clone()
		own.Proxy = func(r *http.Request) (*url.URL, error) { return o.Proxy(r.URL) }
		to.Transport = own
	}
	if o.Authorization != nil {
		to.Authorization = func(origin *url.URL) string {
			if i.servedWith(origin.String()) {
				return o.Authorization()
			}
			return ""
		}
	}
	s, err := torrent.Open(ctx, m, to)
	if err != nil {
		return nil, err
	}
	h.Say("%s: %d trackers, %d web seeds; port %d", s, len(m.Trackers), len(m.WebSeeds)+len(mirrors), s.Port())
	return s, nil
}
