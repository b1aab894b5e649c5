// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream/streamtest"
)

// noise returns n bytes that do not compress, the same each time.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func sha256Of(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest{"sha256", hex.EncodeToString(sum[:])}
}

// readAll reads and verifies.
func readAll(r *Reader) ([]byte, error) {
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil {
		err = r.Verify()
	}
	return b, err
}

func TestHTTPFaults(t *testing.T) {
	content := noise(3<<20 + 77)
	another := slices.Clone(content)
	another[len(another)-1] ^= 1
	longer := append(slices.Clone(content), 1)
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const etag = `"v1"`
	const cut = 1 << 20
	fromByte := regexp.MustCompile("^[0-9]+-")
	fiveCuts := []streamtest.Fault{{Cut: 500_000}, {Cut: 1}, {Cut: 1_000_000}, {Cut: 700_001}, {Cut: 3}}

	for _, tt := range []struct {
		name     string
		server   *streamtest.Server
		patience time.Duration // short for those that must run out of it
		requests []string      // if given, those that the server must have seen
		again    int64         // bytes fetched again
		err      string        // if given, what the error must say
		is       error
	}{
		{name: "good", server: &streamtest.Server{ETag: etag}, requests: []string{"all"}},
		{name: "cut", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{Cut: cut}}},
			requests: []string{"all", "N- If-Range: " + etag}},
		{name: "cut five times", server: &streamtest.Server{ETag: etag, Faults: fiveCuts}},
		{name: "cut, only a date", server: &streamtest.Server{Modified: date, Faults: []streamtest.Fault{{Cut: cut}}},
			requests: []string{"all", "N- If-Range: Fri, 02 Jan 2026 03:04:05 GMT"}},
		{name: "cut, only a length", server: &streamtest.Server{Faults: []streamtest.Fault{{Cut: cut}}},
			requests: []string{"all", "N-"}},
		{name: "cut, a weak ETag", server: &streamtest.Server{ETag: `W/"v1"`, Faults: []streamtest.Fault{{Cut: cut}}},
			requests: []string{"all", "N-"}},
		{name: "ended early in good order", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{End: cut}}},
			requests: []string{"all", "N- If-Range: " + etag}},
		{name: "500 first", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{Status: 500}, {Status: 503}}},
			requests: []string{"all", "all", "all"}},
		{name: "429 with Retry-After", server: &streamtest.Server{Faults: []streamtest.Fault{{Status: 429, Header: map[string]string{"Retry-After": "1"}}}},
			requests: []string{"all", "all"}},
		{name: "500 in the middle", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{Cut: cut}, {Status: 500}}}},
		{name: "hangs before it answers", server: &streamtest.Server{Faults: []streamtest.Fault{{Hang: -1}}}},
		{name: "hangs in the middle", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{Hang: cut}}},
			requests: []string{"all", "N- If-Range: " + etag}},
		{name: "no length", server: &streamtest.Server{ETag: etag, Always: streamtest.Fault{NoLength: true}}},
		{name: "no length, cut", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{NoLength: true, Cut: cut}}}},
		{name: "no ranges, cut", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{End: cut, NoRange: true}}, Always: streamtest.Fault{NoRange: true}},
			again: cut},
		{name: "part without validators", server: &streamtest.Server{ETag: etag, Modified: date,
			Faults: []streamtest.Fault{{Cut: cut}, {Header: map[string]string{"ETag": "", "Last-Modified": ""}}}}},
		{name: "part of unknown total", server: &streamtest.Server{ETag: etag,
			Faults: []streamtest.Fault{{End: cut}, {Header: map[string]string{"Content-Range": fmt.Sprintf("bytes 1048576-%d/*", len(content)-1)}}}}},

		// As web servers do with files that are packed, and some with others.
		{name: "Content-Encoding", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{Cut: cut, Header: map[string]string{"Content-Encoding": "gzip"}}}, Always: streamtest.Fault{Header: map[string]string{"Content-Encoding": "x-gzip"}}},
			requests: []string{"all", "N- If-Range: " + etag}},
		{name: "ends by hanging up", server: &streamtest.Server{ETag: etag, Always: streamtest.Fault{OpenEnd: true}}},
		{name: "ends by hanging up, early", server: &streamtest.Server{ETag: etag, Always: streamtest.Fault{OpenEnd: true, End: cut}}, is: ErrDigest},
		{name: "part of unknown total, as ever", server: &streamtest.Server{ETag: etag,
			Faults: []streamtest.Fault{{End: cut, NoLength: true}, {Header: map[string]string{"Content-Range": "bytes 1048576-2097151/*"}}}}, err: "without the length of the whole"},

		{name: "404", server: &streamtest.Server{Always: streamtest.Fault{Status: 404}}, err: "404 Not Found", requests: []string{"all"}},
		{name: "401", server: &streamtest.Server{Always: streamtest.Fault{Status: 401}}, err: "401 Unauthorized", requests: []string{"all"}},
		{name: "gone in the middle", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Status: 410}}, err: "410 Gone"},
		{name: "500 for ever", server: &streamtest.Server{Always: streamtest.Fault{Status: 500}}, patience: 2 * time.Second, err: "500 Internal Server Error"},
		{name: "hangs for ever", server: &streamtest.Server{Always: streamtest.Fault{Hang: -1}}, patience: 2 * time.Second, err: "no byte for 3s"},
		{name: "shorter than promised for ever", server: &streamtest.Server{ETag: etag, Faults: []streamtest.Fault{{End: cut}}, Always: streamtest.Fault{End: 1}},
			patience: 2 * time.Second, is: io.ErrUnexpectedEOF},
		{name: "changed, server notices", server: &streamtest.Server{ETag: etag,
			Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Content: another, NoRange: true, Header: map[string]string{"ETag": `"v2"`}}},
			err: `ETag was "\"v1\"", is "\"v2\""`, is: ErrChanged},
		{name: "changed, server does not notice", server: &streamtest.Server{ETag: etag,
			Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Content: another, Header: map[string]string{"ETag": `"v2"`}}}, is: ErrChanged},
		{name: "changed date", server: &streamtest.Server{Modified: date,
			Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Header: map[string]string{"Last-Modified": "Fri, 02 Jan 2026 03:04:06 GMT"}}}, err: "Last-Modified was", is: ErrChanged},
		{name: "became longer", server: &streamtest.Server{Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Content: longer}}, err: "length was", is: ErrChanged},
		{name: "became shorter", server: &streamtest.Server{Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Content: content[:9]}}, err: "(416)", is: ErrChanged},
		{name: "changed secretly", server: &streamtest.Server{Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Content: another}}, is: ErrDigest},
		{name: "wrong from the start", server: &streamtest.Server{Always: streamtest.Fault{Content: another}}, is: ErrDigest},
		{name: "nothing to recognise it by", server: &streamtest.Server{Faults: []streamtest.Fault{{Cut: cut, NoLength: true}}}, err: "nothing proves", is: ErrChanged},
		{name: "garbage Content-Range", server: &streamtest.Server{ETag: etag,
			Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Header: map[string]string{"Content-Range": "bytes xx"}}}, err: `Content-Range "bytes xx"`},
		{name: "another part than asked for", server: &streamtest.Server{ETag: etag,
			Faults: []streamtest.Fault{{Cut: cut}}, Always: streamtest.Fault{Header: map[string]string{"Content-Range": "bytes 0-9/10"}}}, err: "got those from 0 on"},
		{name: "redirects for ever", server: &streamtest.Server{Always: streamtest.Fault{Status: 302, Header: map[string]string{"Location": "/image?a=hidden"}}}, err: "more than 10 redirects"},
		{name: "redirect to nowhere", server: &streamtest.Server{Always: streamtest.Fault{Status: 302, Header: map[string]string{"Location": "ftp://hidden/"}}}, err: "302 Found without a usable Location"},
		{name: "redirect to garbage", server: &streamtest.Server{Always: streamtest.Fault{Status: 302, Header: map[string]string{"Location": "http://a b/?hidden"}}}, err: "302 Found without a usable Location"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := tt.server
			server.Content = content
			at := httptest.NewServer(server)
			defer at.Close()
			url := strings.Replace(at.URL, "http://", "http://someone:hidden@", 1) + "/image?signature=hidden"
			stall := time.Minute // longer than a busy machine has anything wait
			if slices.ContainsFunc(slices.Concat(server.Faults, []streamtest.Fault{server.Always}), func(f streamtest.Fault) bool { return f.Hang != 0 }) {
				stall = 3 * time.Second
			}
			src, err := NewHTTP(url, HTTPOptions{Stall: stall})
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			meter := NewMeter()
			got, err := readAll(NewReader(t.Context(), []Source{src}, sha256Of(content), ReaderOptions{
				Patience: tt.patience, Meter: meter, Log: slog.New(slog.NewTextHandler(&log, nil))}))
			p := meter.Progress()

			for _, text := range []string{fmt.Sprint(src), fmt.Sprint(err), log.String(), fmt.Sprintf("%+v", p)} {
				if strings.Contains(text, "hidden") {
					t.Errorf("a secret is in %q", text)
				}
			}
			if tt.requests != nil {
				var seen []string
				for _, r := range server.Requests() {
					r, _, _ = strings.Cut(r, " Authorization: Basic c29tZW9uZTpoaWRkZW4=") // base64 someone:hidden
					seen = append(seen, fromByte.ReplaceAllString(r, "N-"))                // a reset takes with it what is on the way
				}
				if !slices.Equal(seen, tt.requests) {
					t.Errorf("requests:\n%q, want\n%q", seen, tt.requests)
				}
			}
			if tt.err != "" || tt.is != nil {
				if err == nil || !strings.Contains(err.Error(), tt.err) || tt.is != nil && !errors.Is(err, tt.is) {
					t.Fatalf("error is %v\nwant one with %q that is %v", err, tt.err, tt.is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, content) {
				t.Errorf("got other bytes, %d of them", len(got))
			}
			if p.Read != int64(len(content)) || p.Total != p.Read || p.Again != tt.again || p.Retries != len(server.Requests())-1 {
				t.Errorf("progress is %+v, after %d requests", p, len(server.Requests()))
			}
		})
	}
}

// Where the end of an image is not proven, it takes a digest to tell it from a broken connection.
func TestHTTPOpenEnd(t *testing.T) {
	content := noise(100_000)
	for _, tt := range []struct {
		name   string
		server *streamtest.Server
		err    string
	}{
		{"chunked", &streamtest.Server{Always: streamtest.Fault{NoLength: true}}, ""},
		{"hangs up", &streamtest.Server{Always: streamtest.Fault{OpenEnd: true}}, "the server does not say how long the image is and ends it by hanging up"},
		{"hangs up early", &streamtest.Server{Always: streamtest.Fault{OpenEnd: true, End: 50_000}}, "give a digest"},
		{"hangs up, length is known", &streamtest.Server{ETag: `"x"`, Faults: []streamtest.Fault{{End: 50_000}}, Always: streamtest.Fault{OpenEnd: true}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.server.Content = content
			at := httptest.NewServer(tt.server)
			defer at.Close()
			src, err := NewHTTP(at.URL, HTTPOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(NewReader(t.Context(), []Source{src}, Digest{}, ReaderOptions{}))
			if tt.err == "" && (err != nil || !bytes.Equal(got, content)) {
				t.Errorf("%d bytes, %v; want all", len(got), err)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%d bytes, %v; want an error with %q", len(got), err, tt.err)
			}
		})
	}
}

// A server that asks for credentials and sends us elsewhere must not make us show them there.
func TestHTTPRedirect(t *testing.T) {
	content := noise(100_000)
	elsewhere := &streamtest.Server{Content: content, ETag: `"x"`, Faults: []streamtest.Fault{{End: 50_000}}}
	var referer []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		referer = append(referer, r.Referer())
		elsewhere.ServeHTTP(w, r)
	}))
	defer other.Close()
	here := &streamtest.Server{Always: streamtest.Fault{Status: 307, Header: map[string]string{"Location": other.URL + "/real?signature=hidden"}}}
	first := httptest.NewServer(here)
	defer first.Close()

	src, err := NewHTTP(first.URL+"/image", HTTPOptions{Authorization: func() string { return "Bearer hidden" }})
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(NewReader(t.Context(), []Source{src}, sha256Of(content), ReaderOptions{}))
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if got, want := here.Requests(), []string{"all Authorization: Bearer hidden", "50000- If-Range: \"x\" Authorization: Bearer hidden"}; !slices.Equal(got, want) {
		t.Errorf("the first server saw %q, want %q", got, want)
	}
	if got, want := elsewhere.Requests(), []string{"all", "50000- If-Range: \"x\""}; !slices.Equal(got, want) {
		t.Errorf("the second server saw %q, want %q", got, want)
	}
	if !slices.Equal(referer, []string{"", ""}) {
		t.Errorf("the second server saw Referer %q", referer)
	}
}

func TestHTTPCertificate(t *testing.T) {
	s := httptest.NewTLSServer(&streamtest.Server{Content: []byte("x")})
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	src, err := NewHTTP(s.URL, HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	meter := NewMeter()
	_, err = readAll(NewReader(t.Context(), []Source{src}, Digest{}, ReaderOptions{Meter: meter}))
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") || meter.Progress().Retries != 0 {
		t.Errorf("error is %v after %d retries, want the certificate's at once", err, meter.Progress().Retries)
	}
	src, err = NewHTTP(s.URL, HTTPOptions{Transport: s.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(NewReader(t.Context(), []Source{src}, Digest{}, ReaderOptions{})); err != nil || string(got) != "x" {
		t.Errorf("with the right CA: %q, %v", got, err)
	}
}

func TestNewHTTPBad(t *testing.T) {
	for _, url := range []string{"", "image.raw", "ftp://host/x", "http://", "http://user:hidden@host:port/", "http://host/%zzhidden", "https://\x00hidden/"} {
		src, err := NewHTTP(url, HTTPOptions{})
		if err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("NewHTTP(%q) = %v, %v; want an error without secrets", url, src, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		after, date string
		want        time.Duration
	}{
		{after: "120", want: 2 * time.Minute},
		{after: "Wed, 21 Oct 2015 07:28:00 GMT", date: "Wed, 21 Oct 2015 07:27:30 GMT", want: 30 * time.Second},
		{after: "Wed, 21 Oct 2015 07:28:00 GMT", date: "Wed, 21 Oct 2015 07:29:30 GMT"},
		{after: "-5"}, {after: ""}, {after: "soon"}, {after: "99999999999999999999"},
	} {
		h := http.Header{"Retry-After": {tt.after}, "Date": {tt.date}}
		if got := retryAfter(h); got != tt.want {
			t.Errorf("retryAfter(%q at %q) = %v, want %v", tt.after, tt.date, got, tt.want)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.raw")
	content := noise(5 << 20)
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(content)
	src, err := NewFile(path)
	if err != nil || src.Size() != int64(len(content)) || src.String() != path {
		t.Fatalf("NewFile(...) = %v, %v", src, err)
	}
	if got, err := readAll(NewReader(t.Context(), []Source{src}, sha256Of(content), ReaderOptions{})); err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}

	write(content[1:])
	if _, err := readAll(NewReader(t.Context(), []Source{src}, Digest{}, ReaderOptions{})); !errors.Is(err, ErrChanged) {
		t.Errorf("a file that became shorter: %v, want ErrChanged", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(NewReader(t.Context(), []Source{src}, Digest{}, ReaderOptions{})); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is gone: %v, want ErrNotExist", err)
	}
	for _, path := range []string{path, t.TempDir(), "/dev/null"} {
		if src, err := NewFile(path); err == nil {
			t.Errorf("NewFile(%q) = %v, want an error", path, src)
		}
	}
}

// Cancelling ends a reader wherever it is, with the reason given.
func TestReaderCancel(t *testing.T) {
	reason := errors.New("operator changed his mind")
	for _, tt := range []struct {
		name  string
		fault streamtest.Fault
	}{
		{"hanging before the answer", streamtest.Fault{Hang: -1}},
		{"hanging in the answer", streamtest.Fault{Hang: 10}},
		{"waiting to try again", streamtest.Fault{Status: 503, Header: map[string]string{"Retry-After": "100"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			seen := make(chan bool, 10)
			tt.fault.BeforeAnswer = func(*http.Request) { seen <- true }
			s := httptest.NewServer(&streamtest.Server{Content: noise(100), Always: tt.fault})
			defer s.Close()
			src, err := NewHTTP(s.URL, HTTPOptions{})
			if err != nil {
				t.Fatal(err)
			}
			r := NewReader(ctx, []Source{src}, Digest{}, ReaderOptions{})
			<-seen
			cancel(reason)
			if _, err := readAll(r); !errors.Is(err, reason) {
				t.Errorf("error is %v, want %v", err, reason)
			}
		})
	}
}

// Where a server redirects to is in errors and in the log, again and again; not all of it if it is long.
func TestHTTPLongRedirect(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/"+strings.Repeat("x", 100_000), http.StatusFound)
	}))
	defer server.Close()
	src, err := NewHTTP(server.URL, HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = src.Open(t.Context(), 0)
	if err == nil || !strings.Contains(err.Error(), "/xxx") || len(err.Error()) > 3000 {
		t.Errorf("Open() = %d bytes: %.100v", len(fmt.Sprint(err)), err)
	}
}
