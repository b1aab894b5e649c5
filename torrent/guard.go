// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"github.com/ironhand/ironhand/stream"
)

// guard keeps who has made a torrent from having this machine ask itself, or what only its own link has (169.254.169.254 among it): trackers and web seeds of a metainfo that was fetched
// are not on loopback or link-local addresses, and do not redirect there, unless the metainfo came from such an address itself. A nil guard refuses nothing.
type guard struct {
	home                string // the host that the metainfo came from, which may name itself, wherever it is
	loopback, linkLocal bool   // are allowed
}

// guardOf is the one for a metainfo from a host; nil for a metainfo, or magnet link, that the operator has given.
func guardOf(host string) *guard {
	if host == "" {
		return nil
	}
	g := &guard{home: plainHost(host), loopback: isLocalhost(host)}
	if a, err := netip.ParseAddr(host); err == nil {
		g.loopback, g.linkLocal = isLoopback(a), isLinkLocal(a)
	}
	return g
}

func plainHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

func isLocalhost(host string) bool {
	host = plainHost(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func isLoopback(a netip.Addr) bool { a = a.Unmap(); return a.IsLoopback() || a.IsUnspecified() }

func isLinkLocal(a netip.Addr) bool { a = a.Unmap(); return a.IsLinkLocalUnicast() || a.IsMulticast() }

// refuse tells why a host must not be asked as far as its name tells; nil if it may.
func (g *guard) refuse(host string) error {
	if g == nil {
		return nil
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil:
		return g.refuseAt(host, a)
	case isLocalhost(host) && !g.loopback:
		return g.refuseAt(host, netip.IPv6Loopback())
	}
	return nil
}

// refuseAt is refuse for a host that has been found at an address. What it returns is final: see stream.IsFinal.
func (g *guard) refuseAt(host string, a netip.Addr) error {
	what := ""
	switch {
	case plainHost(host) == g.home:
	case isLoopback(a) && !g.loopback:
		what = "this machine itself"
	case isLinkLocal(a) && !g.linkLocal:
		what = "a link-local address"
	}
	if what == "" {
		return nil
	}
	return stream.Final(fmt.Errorf("%.255q is %s, which a torrent from %s must not have us ask", host, what, g.home))
}

// transport is base for what the torrent names: each connection that it makes, also after a redirect, is looked at.
func (g *guard) transport(base http.RoundTripper) http.RoundTripper {
	if g == nil {
		return base
	}
	t, ok := base.(*http.Transport)
	if !ok {
		return guarded{base, g}
	}
	t = t.Clone()
	proxy, dial := t.Proxy, t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	var proxies sync.Map // their addresses: these the operator has chosen
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if err := g.refuse(r.URL.Hostname()); err != nil || proxy == nil {
			return nil, err
		}
		u, err := proxy(r)
		if u != nil {
			port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme], "1080")
			proxies.Store(net.JoinHostPort(u.Hostname(), port), true)
		}
		return u, err
	}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if _, ok := proxies.Load(address); ok {
			return c, nil
		}
		host, _, err := net.SplitHostPort(address)
		if err == nil {
			var at netip.AddrPort
			if at, err = netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
				err = g.refuseAt(host, at.Addr())
			}
		}
		if err != nil {
			c.Close() // nothing was sent
			return nil, err
		}
		return c, nil
	}
	return t
}

// guarded is a transport of which only the names can be looked at.
type guarded struct {
	http.RoundTripper
	g *guard
}

func (t guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.g.refuse(r.URL.Hostname()); err != nil {
		return nil, err
	}
	return t.RoundTripper.RoundTrip(r)
}
