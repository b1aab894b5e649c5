// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// paced is a source whose connections bring so many bytes a second.
type paced struct {
	size  int64
	speed func(connection int, offset int64) int // counted from 0

	mu     sync.Mutex
	opened []int64
}

func (s *paced) Size() int64    { return s.size }
func (s *paced) String() string { return "paced" }
func (s *paced) hangUp()        {}
func (s *paced) anyVersion()    {}

func (s *paced) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	return s.OpenRange(ctx, offset, s.size-offset)
}

func (s *paced) OpenRange(ctx context.Context, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = append(s.opened, offset)
	return &pacedBody{ctx, min(length, s.size-offset), s.speed(len(s.opened)-1, offset), offset}, nil
}

type pacedBody struct {
	ctx    context.Context
	left   int64
	speed  int
	offset int64
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), max(1, b.speed/4), int(b.left))
	select {
	case <-time.After(time.Duration(n) * time.Second / time.Duration(b.speed)):
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	}
	for i := range n {
		p[i] = byte((b.offset + int64(i)) >> 9)
	}
	b.offset += int64(n)
	b.left -= int64(n)
	return n, nil
}

func (b *pacedBody) Close() error { return nil }

// One connection that is far slower than the others, and never stalls, does not hold the image up; where all is slow nothing is changed.
func TestSlowConnection(t *testing.T) {
	const fast = 4 << 20
	for _, test := range []struct {
		name  string
		speed func(connection int, offset int64) int
		took  time.Duration // at the most
		again int           // connections that were given up, at the most
		least int           // and at the least
	}{
		{"all are fast", func(int, int64) int { return fast }, 5 * time.Second, 0, 0},
		{"all are slow", func(n int, _ int64) int { return 1000 }, 4 * time.Hour, 0, 0},
		{"one is a little slower", func(n int, _ int64) int { return map[bool]int{true: fast / 5, false: fast}[n == 2] }, 8 * time.Second, 0, 0},
		{"one trickles", func(n int, _ int64) int { return map[bool]int{true: 3, false: fast}[n == 2] }, 9 * time.Second, 1, 1},
		{"one after the other trickles", func(n int, _ int64) int { return map[bool]int{true: 3, false: fast}[n >= 2 && n%4 == 2] }, 60 * time.Second, 6, 2},
		// Where a part of the image is slow over every connection, no more than a few are tried.
		{"one part is slow", func(_ int, offset int64) int {
			return map[bool]int{true: 100_000, false: fast}[offset >= 5<<20 && offset < 9<<20]
		}, 60 * time.Second, slowChanges, slowChanges},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &paced{size: 40 << 20, speed: test.speed}
				m := NewMeter()
				r := NewReader(t.Context(), []Source{s}, Digest{}, ReaderOptions{Connections: 4, Meter: m})
				defer r.Close()
				start := time.Now()
				n, at := int64(0), make([]byte, 1<<20)
				for {
					k, err := r.Read(at)
					for i := 0; i < k; i += 512 {
						if at[i] != byte((n+int64(i))>>9) {
							t.Fatalf("byte %d is wrong", n+int64(i))
						}
					}
					n += int64(k)
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				p := m.Progress()
				if took := time.Since(start); n != s.size || took > test.took || p.Retries > test.again || p.Retries < test.least {
					t.Errorf("%d bytes in %v, %d retries; want at most %v and %d to %d retries; connections began at %d", n, took, p.Retries, test.took, test.least, test.again, s.opened)
				}
				if p.Retries > 0 && !strings.Contains(p.LastError, errSlow.Error()) {
					t.Errorf("last error %q", p.LastError)
				}
			})
		})
	}
}

// roundTrip is a web server that is a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A connection that trickles for ever, without ever stalling, is a broken one.
func TestTrickle(t *testing.T) {
	for _, test := range []struct {
		name   string
		speeds []int // of the connections; the last of all others
		err    error
	}{
		{"always", []int{3}, errStalled},
		{"once", []int{3, 1 << 20}, nil},
		{"slow, and fast enough", []int{200}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 100_000
				asked := 0
				src, err := NewHTTP("http://192.0.2.1/image", HTTPOptions{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					from := int64(0)
					fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
					speed := test.speeds[min(asked, len(test.speeds)-1)]
					asked++
					resp := &http.Response{ProtoMajor: 1, ProtoMinor: 1, StatusCode: 200, ContentLength: size - from, Header: http.Header{"Etag": {`"1"`}},
						Body: &pacedBody{r.Context(), size - from, speed, from}}
					if from > 0 {
						resp.StatusCode = 206
						resp.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
					}
					return resp, nil
				})})
				if err != nil {
					t.Fatal(err)
				}
				r := NewReader(t.Context(), []Source{src}, Digest{}, ReaderOptions{Patience: 5 * time.Minute})
				defer r.Close()
				var got bytes.Buffer
				start := time.Now()
				_, err = got.ReadFrom(r)
				if !errors.Is(err, test.err) || err == nil && got.Len() != size || time.Since(start) > 10*time.Minute {
					t.Errorf("%d bytes, %v after %v; want %v", got.Len(), err, time.Since(start), test.err)
				}
			})
		})
	}
}
