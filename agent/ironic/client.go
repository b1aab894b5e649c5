// SPDX-License-Identifier: Apache-2.0

// Package ironic is a client of the part of the Ironic API that is there for ramdisks: version,
// lookup and heartbeat. It needs no account.
//
// Requests try the given URLs in order and remember the one that worked. Answers are bounded, a
// redirect is followed only within the same server, and secrets go out in the body of the
// heartbeat alone; they are in no URL, error or log record.
package ironic

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxAnswer = 8 << 20 // bytes of an answer with status 2xx; the largest seen are some kilobytes
	maxFault  = 1 << 20 // bytes of an answer with another status
)

// Options say which API to talk to and how. Only URLs has to be set.
type Options struct {
	URLs       []string      // base URLs of the same API, http or https, in order of preference
	TLS        *tls.Config   // for https; nil is Go's default with the system's authorities
	Timeout    time.Duration // for one request to one URL; 0 is 30 s
	RequestID  string        // sent as X-OpenStack-Request-ID; "" for none
	APIVersion string        // the server's highest version, such as 1.82; "" asks the server

	LookupTimeout  time.Duration // after this time no new attempt starts; 0 is 600 s
	LookupInterval time.Duration // least wait between attempts; 0 is 1 s

	Log *slog.Logger // nil discards
	// OnRetry is told of every failed attempt of a lookup, counted from 1, and how long the
	// client waits before the next. It stands in for a line in the log.
	OnRetry func(attempt int, err error, wait time.Duration)

	Transport http.RoundTripper // nil makes one that uses TLS; tests put a fake here
	Rand      func() float64    // in [0, 1); nil is math/rand
}

// A Client talks to one Ironic API. Its methods may be called at the same time.
type Client struct {
	o    Options
	http http.Client
	log  *slog.Logger

	mu      sync.Mutex
	urls    []*url.URL // the one that worked last is first
	version Version    // 0 as long as it is not known
}

// New checks the options and makes a client; it sends nothing.
func New(o Options) (*Client, error) {
	c := &Client{o: o, log: o.Log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	for _, s := range o.URLs {
		u, err := url.Parse(strings.TrimRight(strings.TrimSpace(s), "/"))
		if err != nil {
			return nil, fmt.Errorf("read API URL: %w", inner(err))
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("read API URL %q: not of the form http://host or https://host", u.Redacted())
		}
		if u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("read API URL %q: a query or a fragment has no meaning there", u.Redacted())
		}
		c.urls = append(c.urls, u)
	}
	if len(c.urls) == 0 {
		return nil, errors.New("no API URL given")
	}
	if o.APIVersion != "" {
		v, err := ParseVersion(o.APIVersion)
		if err != nil { // as ironic-python-agent does; the server tells it as well
			c.log.Warn("configured API version is ignored", "err", err)
		}
		c.version = v
	}
	if c.o.Timeout == 0 {
		c.o.Timeout = 30 * time.Second
	}
	if c.o.LookupTimeout == 0 {
		c.o.LookupTimeout = 600 * time.Second
	}
	if c.o.LookupInterval == 0 {
		c.o.LookupInterval = time.Second
	}
	if c.o.Rand == nil {
		c.o.Rand = rand.Float64
	}
	c.http = c.newHTTP(o.TLS)
	return c, nil
}

// WithTLS returns a client that knows all that c knows, and makes its connections by another configuration. c is not to be used any more.
func (c *Client) WithTLS(t *tls.Config) *Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.http.CloseIdleConnections()
	next := &Client{o: c.o, log: c.log, urls: c.urls, version: c.version}
	next.o.TLS = t
	next.http = next.newHTTP(t)
	return next
}

func (c *Client) newHTTP(t *tls.Config) http.Client {
	h := http.Client{Transport: c.o.Transport, CheckRedirect: checkRedirect}
	if c.o.Transport == nil {
		h.Transport = &http.Transport{
			TLSClientConfig:     t.Clone(),
			DialContext:         c.dial,
			TLSHandshakeTimeout: c.o.Timeout,
			// Shorter than any server's, Apache's 5 s being the shortest: otherwise a heartbeat
			// may go into a connection that the server just closes.
			IdleConnTimeout: 4 * time.Second,
		}
	}
	return h
}

// sendBuffer, in bytes, is little enough for what is in it to get over a slow link within the limit for an answer.
const sendBuffer = 128 << 10

func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: c.o.Timeout}).DialContext(ctx, network, address)
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		err = tcp.SetWriteBuffer(sendBuffer)
	}
	return conn, err
}

// checkRedirect follows a redirect only within the same server and only if it keeps the method:
// an answer to lookup holds the token, and a heartbeat that became a GET would be none. For all
// others the redirect itself is the answer.
func checkRedirect(next *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > 3 || next.URL.Scheme != first.URL.Scheme || next.URL.Host != first.URL.Host || next.Method != first.Method {
		return http.ErrUseLastResponse
	}
	return nil
}

// URLs returns the base URLs in the order in which they are tried next, without passwords.
func (c *Client) URLs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]string, len(c.urls))
	for i, u := range c.urls {
		list[i] = u.Redacted()
	}
	return list
}

// ServerVersion returns the highest API version of the server, and asks it if that is not known
// yet. A server that answers something else than its version counts as VersionFallback and is
// asked again the next time; err is set only if there was no answer at all.
func (c *Client) ServerVersion(ctx context.Context) (Version, error) {
	c.mu.Lock()
	v := c.version
	c.mu.Unlock()
	if v != 0 {
		return v, nil
	}
	body, err := c.do(ctx, request{method: http.MethodGet, path: "/", want: http.StatusOK})
	var status *StatusError
	if err != nil && !errors.As(err, &status) {
		return 0, err
	}
	if err == nil {
		v, err = parseRoot(body)
	}
	if err != nil {
		c.log.Warn("API version is not known", "assumed", VersionFallback.String(), "err", err)
		return VersionFallback, nil
	}
	c.mu.Lock()
	c.version = v
	c.mu.Unlock()
	return v, nil
}

// request is what do sends to one URL after the other.
type request struct {
	method  string
	path    string     // below the base URL
	query   url.Values // without secrets
	version Version    // 0 sends no version header
	body    []byte     // nil for none
	hide    Secret     // a secret in body, which a server might repeat in its answer
	large   bool       // Options.Timeout is for each part of the body that gets through, and for the answer
	want    int        // the status that means success
	also    int        // another one; 0 for none
}

// do sends a request to the first URL that answers, and returns the body of an answer with the
// wanted status. Any other status is a *StatusError, and is final: only a broken connection
// or a broken answer leads to the next URL.
func (c *Client) do(ctx context.Context, r request) ([]byte, error) {
	c.mu.Lock()
	urls := slices.Clone(c.urls)
	c.mu.Unlock()

	var failed error
	for _, u := range urls {
		body, err := c.try(ctx, u, r)
		var status *StatusError
		if err == nil || errors.As(err, &status) {
			c.prefer(u)
			if status != nil && status.Code == http.StatusNotAcceptable {
				c.forgetVersion()
			}
			return body, err
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if failed == nil {
			failed = err
		} else {
			failed = fmt.Errorf("%w; %w", failed, err)
		}
	}
	return nil, failed
}

// prefer moves a URL that worked to the front.
func (c *Client) prefer(u *url.URL) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.urls, u); i > 0 {
		c.urls = slices.Insert(slices.Delete(slices.Clone(c.urls), i, i+1), 0, u)
		c.log.Info("API answers at another URL", "url", u.Redacted())
	}
}

// forgetVersion makes the next request ask for the version again: the server was exchanged for
// one that does not know it.
func (c *Client) forgetVersion() {
	if c.o.APIVersion != "" {
		return
	}
	c.mu.Lock()
	c.version = 0
	c.mu.Unlock()
}

// limited is a context that ends after a time: with stall, after that time without a call of moved.
func limited(ctx context.Context, after time.Duration, stall bool) (_ context.Context, moved, cancel func()) {
	if !stall {
		ctx, cancel := context.WithTimeout(ctx, after)
		return ctx, func() {}, cancel
	}
	ctx, end := context.WithCancelCause(ctx)
	timer := time.AfterFunc(after, func() { end(context.DeadlineExceeded) })
	return ctx, func() { timer.Reset(after) }, func() { timer.Stop(); end(nil) }
}

// parts is the body of a request. Each read of it says that what was read before is on its way.
type parts struct {
	all   io.Reader
	moved func()
}

func (p parts) Read(b []byte) (int, error) { p.moved(); return p.all.Read(b) }
func (p parts) Close() error               { return nil }

// try sends a request to one URL.
func (c *Client) try(ctx context.Context, base *url.URL, r request) ([]byte, error) {
	ctx, moved, cancel := limited(ctx, c.o.Timeout, r.large)
	defer cancel()
	target := base.JoinPath(r.path)
	target.RawQuery = r.query.Encode()
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("make request for %s: %w", redacted(base), inner(err))
	}
	if r.body != nil {
		req.GetBody = func() (io.ReadCloser, error) { return parts{bytes.NewReader(r.body), moved}, nil }
		req.Body = parts{bytes.NewReader(r.body), moved}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "ironhand")
	if c.o.RequestID != "" {
		req.Header.Set("X-OpenStack-Request-ID", c.o.RequestID)
	}
	if r.version != 0 {
		req.Header.Set("X-OpenStack-Ironic-API-Version", r.version.String())
	}

	res, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = context.Cause(ctx) // the limit of ours, if that was it
		}
		return nil, fmt.Errorf("%s %s: %w", r.method, redacted(target), inner(err))
	}
	defer res.Body.Close()
	limit := maxAnswer
	good := res.StatusCode == r.want || res.StatusCode == r.also
	if !good {
		limit = maxFault
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read answer: %w", r.method, redacted(target), err)
	}
	if !good {
		text := answer
		if r.hide != "" {
			text = bytes.ReplaceAll(text, []byte(r.hide.Reveal()), []byte(masked))
		}
		return nil, &StatusError{
			Method: r.method, URL: redacted(target), Code: res.StatusCode,
			Text: faultText(text), Location: redirectTarget(res),
		}
	}
	if len(answer) > limit {
		return nil, fmt.Errorf("%s %s: answer is longer than %d bytes", r.method, redacted(target), limit)
	}
	return answer, nil
}

// redirectTarget returns the place that a redirect leads to, without password and query.
func redirectTarget(res *http.Response) string {
	if res.StatusCode < 300 || res.StatusCode > 399 {
		return ""
	}
	u, err := res.Location()
	if err != nil {
		return ""
	}
	return oneLine(redacted(u))
}

// redacted is a URL without password and query.
func redacted(u *url.URL) string {
	shown := *u
	shown.RawQuery = ""
	return shown.Redacted()
}

// inner is an error without the URL that net/http and net/url put in front of it: its query may be a secret.
func inner(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}
