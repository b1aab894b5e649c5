// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxRedirects is how many times a server may send us elsewhere; as many as Go's own client allows.
const maxRedirects = 10

// HTTPOptions says how an image is fetched from a web server. The zero value is usable.
type HTTPOptions struct {
	// Transport makes the connections: its TLS settings and proxies are those that are used. It must not limit the time of a whole answer. Of an
	// *http.Transport a copy is used that does not decompress answers and speaks HTTP/1.1, for HTTP/2 would put all parts of an image on one connection;
	// another must do the first by itself. Nil stands for http.DefaultTransport.
	Transport http.RoundTripper
	// Proxy says which proxy to use for a URL, nil for none, instead of Transport's. Nil for that.
	Proxy func(*url.URL) (*url.URL, error)
	// Authorization returns the value of the Authorization header. It is asked for each request, and the value goes to the
	// host of the URL only, never to one that it redirects to. Nil stands for the user in the URL, if there is one.
	Authorization func() string
	// Stall is how long a connection may deliver no byte, or hardly any, before it counts as broken; 0 stands for 30 s.
	Stall time.Duration
	// Accept is the value of the header of that name, empty for none.
	Accept string
	// KeepTLS refuses to be sent from https to http, for what no digest proves, or what is secret.
	KeepTLS bool
}

// StatusError is an answer of a web server that is not the image. It is final (see [IsFinal]) unless Temporary.
type StatusError struct {
	URL    string        // without user and query, which may hold secrets
	Status int           // HTTP status code
	After  time.Duration // what the server asks to wait before the next attempt (Retry-After); 0 if it does not say
}

// Error names URL and status.
func (e *StatusError) Error() string {
	return fmt.Sprintf("fetch %s: %d %s", e.URL, e.Status, http.StatusText(e.Status))
}

// Temporary tells whether the same request may succeed later.
func (e *StatusError) Temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.Status >= 500
}

// web is an image on a web server.
type web struct {
	url           *url.URL // without user
	authorization func() string
	transport     http.RoundTripper
	stall         time.Duration
	keepTLS       bool
	accept        string

	mu   sync.Mutex
	seen *object // what the first answer said; nil before
	any  bool    // only the length counts
}

// NewHTTP returns the image behind an http or https URL. No connection is made yet.
//
// Errors and String name scheme, host and path of the URL only: signed URLs keep their secret in the query.
func NewHTTP(rawURL string, o HTTPOptions) (Source, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("parse image URL: it is not a URL") // what url.Parse says has the URL in it
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("parse image URL %s: want http or https, and a host", printable(u))
	}
	s := &web{url: u, authorization: o.Authorization, transport: o.Transport, stall: o.Stall, keepTLS: o.KeepTLS, accept: o.Accept}
	if user := u.User; user != nil {
		u.User = nil
		if s.authorization == nil {
			password, _ := user.Password()
			basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
			s.authorization = func() string { return basic }
		}
	}
	if s.transport == nil {
		s.transport = http.DefaultTransport
	}
	if t, ok := s.transport.(*http.Transport); ok {
		s.transport = ownTransport(t, o.Proxy)
	} else if o.Proxy != nil {
		return nil, errors.New("a proxy for images needs an http.Transport")
	}
	if s.stall <= 0 {
		s.stall = 30 * time.Second
	}
	return s, nil
}

// ownTransport is a copy of t for one image. Go would unpack what a server packed for the way; we want the file as published, whose digest is known.
func ownTransport(t *http.Transport, proxy func(*url.URL) (*url.URL, error)) *http.Transport {
	t = t.Clone()
	t.DisableCompression = true
	t.MaxResponseHeaderBytes = 256 << 10
	t.MaxIdleConnsPerHost = MaxConnections + 1 // they are idle for a moment between two parts
	if t.IdleConnTimeout == 0 {
		t.IdleConnTimeout = 90 * time.Second
	}
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.NextProtos = nil // Clone has copied it
	}
	if proxy != nil {
		t.Proxy = func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
	}
	return t
}

func (s *web) String() string { return printable(s.url) }

func (s *web) hangUp() {
	switch t := s.transport.(type) {
	case *http.Transport: // a copy of our own
		t.CloseIdleConnections()
	case *registry:
		t.base.CloseIdleConnections()
	}
}

func (s *web) anyVersion() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.any = true
	if s.seen != nil {
		s.seen = &object{size: s.seen.size}
	}
}

func (s *web) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		return -1
	}
	return s.seen.size
}

var errStalled = errors.New("connection stalled")

// trickle is how many bytes have to come in the time that a connection may stall, while they are waited for.
const trickle = 4 << 10

func (s *web) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	return s.open(ctx, wanted{offset, -1})
}

func (s *web) OpenRange(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	if length <= 0 {
		return nil, Final(fmt.Errorf("%d bytes of the image cannot be asked for", length))
	}
	return s.open(ctx, wanted{offset, length})
}

// wanted is a part of the image: from offset on, to the end if length is negative.
type wanted struct{ offset, length int64 }

// header is the value of Range, empty for the whole.
func (w wanted) header() string {
	switch {
	case w.length > 0:
		return fmt.Sprintf("bytes=%d-%d", w.offset, w.offset+w.length-1)
	case w.offset > 0:
		return fmt.Sprintf("bytes=%d-", w.offset)
	}
	return ""
}

func (s *web) open(ctx context.Context, want wanted) (_ io.ReadCloser, err error) {
	// The timer runs while we wait for the server, and not while the server waits for us.
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(s.stall, func() { cancel(fmt.Errorf("%w: no byte for %v", errStalled, s.stall)) })
	defer func() {
		timer.Stop()
		if err != nil {
			cancel(nil)
		}
	}()

	s.mu.Lock()
	seen, anyVersion := s.seen, s.any
	s.mu.Unlock()
	resp, at, err := s.get(ctx, want, seen)
	if err == nil && ctx.Err() != nil {
		// We hung up, the server noticed, and what its program answered then came just before the end of the connection.
		resp.Body.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, s.failed(ctx, at, err)
	}
	if anyVersion {
		resp.Header.Del("ETag")
		resp.Header.Del("Last-Modified")
	}
	now, begin, err := s.answer(resp, at, want, seen)
	if err != nil {
		resp.Body.Close() // not the image; its error says nothing more
		return nil, err
	}
	s.mu.Lock()
	s.seen = now
	s.mu.Unlock()

	timer.Stop()
	b := &body{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, source: s, at: at, skipped: want.offset - begin}
	b.whole = resp.StatusCode == http.StatusOK
	// With HTTP/1, a body that has neither a length nor chunks ends when the connection does (RFC 9112, 6.3).
	b.open = resp.ProtoMajor == 1 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0
	if _, err := io.CopyN(io.Discard, b, b.skipped); err != nil {
		b.Close() // the error of reading is the one to tell
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("go to byte %d again: %w", want.offset, err)
	}
	return b, nil
}

// get asks for a part of the image and follows redirects. It does so itself, and not http.Client, because Go's client sends
// credentials to subdomains, whole URLs as Referer, and has URLs in its errors. It returns the URL that answered.
func (s *web) get(ctx context.Context, want wanted, seen *object) (*http.Response, *url.URL, error) {
	at := s.url
	for range maxRedirects + 1 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
		if err != nil {
			return nil, at, Final(errors.New("not a URL that can be asked for"))
		}
		req.URL.User = nil
		req.Header.Set("Accept-Encoding", "identity")
		req.Header.Set("User-Agent", "ironhand")
		if s.accept != "" {
			req.Header.Set("Accept", s.accept)
		}
		if s.authorization != nil && at.Scheme == s.url.Scheme && at.Host == s.url.Host {
			req.Header.Set("Authorization", s.authorization())
		}
		if part := want.header(); part != "" {
			req.Header.Set("Range", part)
			if v := seen.validator(); v != "" {
				req.Header.Set("If-Range", v)
			}
		}
		resp, err := s.transport.RoundTrip(req)
		if err != nil {
			return nil, at, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, at, nil
		}
		resp.Body.Close() // of no interest
		next, err := at.Parse(resp.Header.Get("Location"))
		if err != nil || next.Scheme != "http" && next.Scheme != "https" || next.Host == "" {
			return nil, at, Final(fmt.Errorf("%d %s without a usable Location", resp.StatusCode, http.StatusText(resp.StatusCode)))
		}
		if s.keepTLS && at.Scheme == "https" && next.Scheme != "https" {
			return nil, at, Final(fmt.Errorf("it is redirected to %s, which is not protected by TLS", printable(next)))
		}
		next.User = nil
		at = next
	}
	return nil, at, Final(fmt.Errorf("more than %d redirects", maxRedirects))
}

// answer judges the answer to a request. It returns what the answer says of the object, and the byte of the
// object with which its body begins: the one that was asked for, or 0 if the server does not know ranges.
func (s *web) answer(resp *http.Response, at *url.URL, want wanted, seen *object) (now *object, begin int64, err error) {
	now = &object{size: resp.ContentLength, etag: resp.Header.Get("ETag"), modified: resp.Header.Get("Last-Modified")}
	switch {
	case resp.StatusCode == http.StatusOK && (want.length < 0 || want.offset == 0):
	case resp.StatusCode == http.StatusOK:
		if seen != nil { // it may send the whole because it is another one by now
			if difference := seen.differs(now); difference != "" {
				return nil, 0, Final(s.named(at, fmt.Errorf("%w: %s", ErrChanged, difference)))
			}
		}
		return nil, 0, Final(s.named(at, ErrNoRanges))
	case resp.StatusCode == http.StatusPartialContent && want.header() != "":
		r, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return nil, 0, Final(s.named(at, err))
		}
		if r.first != want.offset {
			return nil, 0, Final(s.named(at, fmt.Errorf("asked for the bytes from %d on, got those from %d on", want.offset, r.first)))
		}
		if r.total < 0 && (seen == nil || seen.size < 0) { // then the end of this part could be taken for the end of all
			return nil, 0, Final(s.named(at, errors.New("a part of the image comes without the length of the whole, so its end cannot be known")))
		}
		begin, now.size = want.offset, r.total
		// A part may leave out what the server has just confirmed (RFC 9110, 15.3.7).
		if v := seen.validator(); v != "" && now.etag == "" && now.modified == "" {
			now.etag, now.modified = seen.etag, seen.modified
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && want.offset == 0:
		return nil, 0, Final(s.named(at, ErrNoRanges)) // it has no byte
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return nil, 0, Final(s.named(at, fmt.Errorf("%w: nothing there from byte %d on (416)", ErrChanged, want.offset)))
	default:
		e := &StatusError{URL: s.name(at), Status: resp.StatusCode, After: retryAfter(resp.Header)}
		if e.Temporary() {
			return nil, 0, e
		}
		return nil, 0, Final(e)
	}
	if seen == nil {
		return now, begin, nil
	}
	if difference := seen.differs(now); difference != "" {
		return nil, 0, Final(s.named(at, fmt.Errorf("%w: %s", ErrChanged, difference)))
	}
	if now.size < 0 {
		now.size = seen.size
	}
	return now, begin, nil
}

// failed turns the error of a request or of a body into ours: the reason why it was cancelled, if it was, and final when the
// server's certificate is not to be trusted.
func (s *web) failed(ctx context.Context, at *url.URL, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	err = s.named(at, err)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return Final(err)
	}
	return err
}

func (s *web) named(at *url.URL, err error) error { return fmt.Errorf("fetch %s: %w", s.name(at), err) }

func (s *web) name(at *url.URL) string {
	if from, to := printable(s.url), printable(at); from != to {
		return from + " (redirected to " + to + ")"
	}
	return printable(at)
}

// printable is the part of a URL that people may see. A server may redirect to one of any length, and it is in each line of the log.
func printable(u *url.URL) string {
	const most = 1000
	text := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// retryAfter reads the header of that name, seconds or a date (RFC 9110, 10.2.3); 0 if there is none. A date is taken relative
// to the server's own clock, since ours may be wrong.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.ParseInt(v, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	then, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(0, then.Sub(now))
}

// body is the answer's body, which is given up when it stalls.
type body struct {
	io.ReadCloser
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	source  *web
	at      *url.URL
	skipped int64
	open    bool // its end looks like that of a broken connection
	whole   bool // it is the whole image

	waited time.Duration // for the bytes in got
	got    int
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.source.stall)
	start := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.waited, b.got = b.waited+time.Since(start), b.got+n
	if b.waited >= b.source.stall {
		if err == nil && b.got < trickle {
			b.cancel(nil) // or what is left is read so that the connection can be used again
			return n, b.source.named(b.at, fmt.Errorf("%w: %d bytes in %v", errStalled, b.got, b.waited.Round(time.Millisecond)))
		}
		b.waited, b.got = 0, 0
	}
	// An end in good order counts only if it is not the server's answer to our hanging up.
	if err != nil && (err != io.EOF || b.ctx.Err() != nil) {
		err = b.source.failed(b.ctx, b.at, err)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

func (b *body) Skipped() int64 { return b.skipped }

func (b *body) OpenEnd() bool { return b.open }

func (b *body) Whole() bool { return b.whole }

// object is what an answer says of the thing behind a URL.
type object struct {
	size           int64 // bytes, -1 if not said
	etag, modified string
}

// validator is the value for If-Range: a strong entity tag, else the date of the last change (RFC 9110, 13.1.5). Empty if there is
// neither.
func (o *object) validator() string {
	switch {
	case o == nil:
		return ""
	case strings.HasPrefix(o.etag, `"`):
		return o.etag
	}
	return o.modified
}

// differs tells in words why now is not, or not provably, the object that o is; empty if it is the same.
func (o *object) differs(now *object) string {
	switch {
	case o.size >= 0 && now.size >= 0 && o.size != now.size:
		return fmt.Sprintf("length was %d bytes, is %d", o.size, now.size)
	case o.etag != "" && o.etag != now.etag:
		return fmt.Sprintf("ETag was %.80q, is %.80q", o.etag, now.etag)
	case o.etag == "" && o.modified != "" && o.modified != now.modified:
		return fmt.Sprintf("Last-Modified was %.80q, is %.80q", o.modified, now.modified)
	case o.etag == "" && o.modified == "" && (o.size < 0 || now.size < 0):
		return "the server tells neither length nor ETag nor Last-Modified, so nothing proves that it is the same image"
	}
	return ""
}
