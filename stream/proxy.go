// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// NewProxy returns a function for HTTPOptions that says which proxy to use: forHTTP and forHTTPS are URLs, or a host and a port; empty for none. noProxy
// is a list with commas of what is reached directly: hosts and domains (each with all below it, a dot in front means only those), addresses, networks
// (192.0.2.0/24), each but networks with a port or without; * is everything. Errors do not have the URL, which may hold a password.
func NewProxy(forHTTP, forHTTPS, noProxy string) (func(*url.URL) (*url.URL, error), error) {
	proxies := map[string]*url.URL{}
	for scheme, proxy := range map[string]string{"http": forHTTP, "https": forHTTPS} {
		if proxy == "" {
			continue
		}
		if !strings.Contains(proxy, "://") {
			proxy = "http://" + proxy
		}
		u, err := url.Parse(proxy)
		if err != nil {
			return nil, fmt.Errorf("proxy for %s: it is not a URL", scheme)
		}
		if u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" || u.Hostname() == "" {
			return nil, fmt.Errorf("proxy for %s: want http, https or socks5, and a host", scheme)
		}
		proxies[scheme] = u
	}
	direct := strings.FieldsFunc(noProxy, func(r rune) bool { return r == ',' || r == ' ' })
	return func(u *url.URL) (*url.URL, error) {
		for _, rule := range direct {
			if isDirect(rule, u) {
				return nil, nil
			}
		}
		return proxies[u.Scheme], nil
	}, nil
}

// isDirect tells whether one entry of a no_proxy list is about the host of a URL.
func isDirect(rule string, u *url.URL) bool {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	address, err := netip.ParseAddr(host)
	isAddress := err == nil
	if rule == "*" {
		return true
	}
	if network, err := netip.ParsePrefix(rule); err == nil {
		return isAddress && network.Contains(address.Unmap())
	}
	if want, err := netip.ParseAddr(strings.Trim(rule, "[]")); err == nil {
		return isAddress && want.Unmap() == address.Unmap()
	}
	if want, err := netip.ParseAddrPort(rule); err == nil {
		return isAddress && want.Addr().Unmap() == address.Unmap() && fmt.Sprint(want.Port()) == port
	}
	name, wantPort, _ := strings.Cut(strings.ToLower(rule), ":")
	if wantPort != "" && wantPort != port || isAddress || strings.Trim(name, ".*") == "" {
		return false
	}
	name = strings.TrimPrefix(name, "*")
	if strings.HasPrefix(name, ".") {
		return strings.HasSuffix(host, name)
	}
	return host == name || strings.HasSuffix(host, "."+name)
}
