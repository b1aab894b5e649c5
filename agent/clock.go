// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/beevik/ntp"
)

// trust is whose certificates the agent believes.
type trust struct {
	roots    *x509.CertPool // nil: the ramdisk's own
	given    bool           // the roots came on the configuration medium or were put into the ramdisk for this site
	insecure bool
	min      uint16
	ciphers  []uint16         // of TLS 1.2; nil: Go's
	client   *tls.Certificate // for servers that ask for one; nil: none
}

func (c Config) trust() (trust, error) {
	t := trust{insecure: c.Insecure, given: c.CA != nil, client: c.Client}
	if c.CA != nil {
		t.roots = x509.NewCertPool()
		if !t.roots.AppendCertsFromPEM(c.CA) {
			return trust{}, fmt.Errorf("cafile %s: no certificate in it", c.CAFile)
		}
	}
	return t.limited(c.TLSMinVersion, c.TLSCiphers)
}

// limited is t with the least version of TLS and the cipher suites that [LimitTLS] takes.
func (t trust) limited(minVersion, ciphers string) (trust, error) {
	var limits tls.Config
	if _, err := LimitTLS(&limits, minVersion, ciphers); err != nil {
		return trust{}, err
	}
	t.min = limits.MinVersion
	if ciphers != "" {
		t.ciphers = limits.CipherSuites
	}
	return t, nil
}

// proves tells whether the time of servers at these URLs can be told from an impostor's, even
// by a machine whose clock is wrong.
func (t trust) proves(urls []string) bool {
	return t.given && !t.insecure && !slices.ContainsFunc(urls, func(u string) bool { return !strings.HasPrefix(strings.ToLower(u), "https://") })
}

// config is for all requests but the one that measures the clock.
func (t trust) config() *tls.Config {
	c := &tls.Config{RootCAs: t.roots, MinVersion: t.min, CipherSuites: t.ciphers, InsecureSkipVerify: t.insecure}
	if t.client != nil {
		c.Certificates = []tls.Certificate{*t.client}
	}
	return c
}

// measure asks the server at a URL for its time and returns how far it is ahead of our clock.
//
// A clock that is years off makes every certificate look expired or not yet valid, and the
// handshake would fail before the server could tell the time. So here, and only with
// CAs that were given for this site, a certificate that fails for its dates alone is taken if it
// is right in everything else: chain, name, signatures. That is, if there was a time when it was good.
// Then the server's Date must lie inside the validity of the whole chain. Verification is never
// off; an attacker would need a key that one of the given CAs has certified for this name.
func (t trust) measure(ctx context.Context, server string) (time.Duration, error) {
	u, err := url.Parse(server)
	if err != nil {
		return 0, err
	}
	name := u.Hostname() // cs.ServerName is empty where the name is an address
	var peer *tls.ConnectionState
	config := t.config()
	if !t.insecure {
		config.InsecureSkipVerify = true // VerifyConnection does it
		config.VerifyConnection = func(cs tls.ConnectionState) error {
			peer = &cs
			err := t.verify(cs, name, time.Now())
			if err != nil && t.given {
				return t.verify(cs, name, latestStart(cs).Add(time.Second))
			}
			return err
		}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server, nil)
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"Accept", "Content-Type"} { // as in all that Ironic is asked
		req.Header.Set(name, "application/json")
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	took := time.Since(start)
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		if u.Scheme == "http" && resp.StatusCode == http.StatusBadRequest {
			return 0, fmt.Errorf("get %s: status 400 and no time in the answer: what listens there may want https://", server)
		}
		return 0, fmt.Errorf("get %s: no time in the answer (status %d): %w", server, resp.StatusCode, err)
	}
	if peer != nil {
		if err := t.verify(*peer, name, date); err != nil {
			return 0, fmt.Errorf("get %s: at the server's own time %s: %w", server, date.UTC().Format(time.RFC3339), err)
		}
	}
	// Date is cut to the second; the middle of it, and of the request, is the best guess.
	return date.Add(500 * time.Millisecond).Sub(start.Add(took / 2)).Round(100 * time.Millisecond), nil
}

func (t trust) verify(cs tls.ConnectionState, name string, at time.Time) error {
	if name == "" { // which x509 would take for any name
		return errors.New("verify certificate: no host to compare its names with")
	}
	o := x509.VerifyOptions{Roots: t.roots, DNSName: name, CurrentTime: at, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(o)
	return err
}

// latestStart is the time from which on all certificates that the server sent are valid.
func latestStart(cs tls.ConnectionState) time.Time {
	var latest time.Time
	for _, c := range cs.PeerCertificates {
		if c.NotBefore.After(latest) {
			latest = c.NotBefore
		}
	}
	return latest
}

// askNTP returns how far the NTP server is ahead of our clock.
func askNTP(server string) (time.Duration, error) {
	r, err := ntp.QueryWithOptions(server, ntp.QueryOptions{Timeout: 5 * time.Second})
	if err != nil {
		return 0, err
	}
	if err := r.Validate(); err != nil {
		return 0, err
	}
	return r.ClockOffset, nil
}

// skewText says a skew as a person would.
func skewText(d time.Duration) string {
	word := "behind"
	if d < 0 {
		d, word = -d, "ahead"
	}
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.1f s %s", d.Seconds(), word)
	case d < 2*time.Hour:
		return fmt.Sprintf("%.1f minutes %s", d.Minutes(), word)
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f hours %s", d.Hours(), word)
	default:
		return fmt.Sprintf("%.0f days %s", d.Hours()/24, word)
	}
}
