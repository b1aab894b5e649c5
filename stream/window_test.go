// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// A long image comes over several connections, each of which goes on at the byte where it broke.
func TestConnections(t *testing.T) {
	content := make([]byte, 40*mib+777)
	for i := range content {
		content[i] = byte(i*7 + i>>11)
	}
	sum := sha256.Sum256(content)
	digest, err := stream.ParseDigest("sha256", hex.EncodeToString(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(content)
	other[30*mib] ^= 1
	faults := func(n int, fs ...streamtest.Fault) []streamtest.Fault {
		return append(make([]streamtest.Fault, n), fs...)
	}
	tests := []struct {
		name        string
		connections int
		server      func(*streamtest.Server)
		second      func(*streamtest.Server) // a mirror, if not nil
		noDigest    bool
		stalls      bool
		size        int // of the content, if not all
		requests    int // at the most
		first       string
		open        bool // one request for all is among them
		retries     int  // at the least
		err         string
		is          error
	}{
		{name: "one", connections: 1, requests: 1, open: true, first: "all"},
		{name: "four", connections: 4, requests: 11, first: "0-1048575"},
		{name: "sixteen", connections: 16, requests: 43, first: "0-1048575"},
		{name: "too many", connections: 1000, requests: 41},
		{name: "four without a digest", connections: 4, noDigest: true, requests: 11},
		{name: "a short image needs but one", connections: 4, size: 9 * mib, requests: 2, first: "0-1048575"},
		{name: "very short", connections: 4, size: 100, requests: 1, first: "0-1048575"},
		{name: "nothing", connections: 4, size: -1, requests: 2},
		{name: "server without ranges", connections: 4, server: func(s *streamtest.Server) { s.Always.NoRange = true }, requests: 1, first: "0-1048575"},
		{name: "server without length", connections: 4, server: func(s *streamtest.Server) { s.Always = streamtest.Fault{NoRange: true, NoLength: true} }, requests: 1},
		{name: "connections break", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(0, streamtest.Fault{Cut: 300}, streamtest.Fault{}, streamtest.Fault{Cut: mib}, streamtest.Fault{End: 5}, streamtest.Fault{Cut: 3 * mib}, streamtest.Fault{Cut: 1})
		}, requests: 17, retries: 5},
		{name: "a connection stalls", connections: 3, stalls: true, server: func(s *streamtest.Server) { s.Faults = faults(2, streamtest.Fault{Hang: 100}) }, requests: 14, retries: 1},
		{name: "the server takes two only", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(2, streamtest.Fault{Status: 429}, streamtest.Fault{Status: 503})
		}, requests: 13},
		{name: "the server is away for a moment", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(3, slices.Repeat([]streamtest.Fault{{Status: 503}}, 8)...)
		}, requests: 22, retries: 1},
		{name: "it becomes another", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(4, slices.Repeat([]streamtest.Fault{{Header: map[string]string{"ETag": `"2"`}, Content: other}}, 20)...)
		}, is: stream.ErrDigest},
		{name: "it becomes another in secret", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(4, slices.Repeat([]streamtest.Fault{{Content: other}}, 20)...)
		}, is: stream.ErrDigest},
		{name: "mirror in the middle", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(3, slices.Repeat([]streamtest.Fault{{Status: 404}}, 30)...)
		}, second: func(*streamtest.Server) {}, requests: 30, retries: 1},
		{name: "no mirror in the middle without a digest", connections: 4, noDigest: true, server: func(s *streamtest.Server) {
			s.Faults = faults(3, slices.Repeat([]streamtest.Fault{{Status: 404}}, 30)...)
		}, second: func(*streamtest.Server) {}, err: "404 Not Found"},
		{name: "both gone", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(3, slices.Repeat([]streamtest.Fault{{Status: 404}}, 30)...)
		}, second: func(s *streamtest.Server) { s.Always.Status = 410 }, err: "410 Gone"},
		{name: "ranges end", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(3, slices.Repeat([]streamtest.Fault{{NoRange: true}}, 30)...)
		}, requests: 12, retries: 1},
		{name: "mirror in the middle, without ranges", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(3, slices.Repeat([]streamtest.Fault{{Status: 404}}, 30)...)
		}, second: func(s *streamtest.Server) { s.Always.NoRange = true }, requests: 12, retries: 1},
		{name: "wrong part", connections: 4, server: func(s *streamtest.Server) {
			s.Faults = faults(3, slices.Repeat([]streamtest.Fault{{Header: map[string]string{"Content-Range": "bytes 5-6/41943817"}}}, 30)...)
		}, err: "got those from 5 on"},
		{name: "first answer is nonsense", connections: 4, open: true, server: func(s *streamtest.Server) {
			s.Faults = []streamtest.Fault{{Header: map[string]string{"Content-Range": "bytes nonsense"}}}
		}, requests: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			content, digest := content, digest
			if tt.size != 0 {
				content = content[:max(0, tt.size)]
				sum := sha256.Sum256(content)
				digest.Hex = hex.EncodeToString(sum[:])
			}
			if tt.noDigest {
				digest = stream.Digest{}
			}
			server := &streamtest.Server{Content: content, ETag: `"1"`}
			if tt.server != nil {
				tt.server(server)
			}
			mirrors := []*streamtest.Server{server}
			if tt.second != nil {
				m := &streamtest.Server{Content: content, ETag: `"other"`}
				tt.second(m)
				mirrors = append(mirrors, m)
			}
			stall := time.Minute // longer than a busy machine has anything wait
			if tt.stalls {
				stall = 3 * time.Second
			}
			var sources []stream.Source
			for _, m := range mirrors {
				s := httptest.NewServer(m)
				defer s.Close()
				src, err := stream.NewHTTP(s.URL, stream.HTTPOptions{Stall: stall})
				if err != nil {
					t.Fatal(err)
				}
				sources = append(sources, src)
			}
			meter := stream.NewMeter()
			r := stream.NewReader(t.Context(), sources, digest, stream.ReaderOptions{Connections: tt.connections, Meter: meter, Patience: 20 * time.Second})
			defer r.Close()
			var got bytes.Buffer
			_, err := io.Copy(&got, r)
			if err == nil {
				err = r.Verify()
			}
			requests := server.Requests()
			if tt.err != "" || tt.is != nil {
				if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error is %v, want one with %q that is %v; asked for %q", err, tt.err, tt.is, requests)
				}
				return
			}
			if err != nil || !bytes.Equal(got.Bytes(), content) {
				t.Fatalf("read %d bytes, %v; asked for %q", got.Len(), err, requests)
			}
			p := meter.Progress()
			if len(requests) > tt.requests || tt.first != "" && !strings.HasPrefix(requests[0], tt.first) || tt.open != slices.Contains(requests, "all") && tt.size >= 0 {
				t.Errorf("asked %d times, for %q", len(requests), requests)
			}
			if p.Read != int64(len(content)) || p.Retries < tt.retries || p.Total != int64(len(content)) && tt.size >= 0 {
				t.Errorf("progress is %+v", p)
			}
		})
	}
}

// What is broken off ends at once, with nobody left behind.
func TestConnectionsAbort(t *testing.T) {
	server := httptest.NewServer(&streamtest.Server{Content: make([]byte, 40*mib), Faults: []streamtest.Fault{{}, {}}, Always: streamtest.Fault{Hang: 100}})
	defer server.Close()
	src, err := stream.NewHTTP(server.URL, stream.HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := stream.NewReader(t.Context(), []stream.Source{src}, stream.Digest{}, stream.ReaderOptions{Connections: 4})
	stop := errors.New("the disk is gone")
	time.AfterFunc(50*time.Millisecond, func() { r.Abort(stop) })
	start := time.Now()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, stop) || time.Since(start) > 10*time.Second {
		t.Errorf("Copy() = %v after %v, want %v", err, time.Since(start), stop)
	}
	r.Close()
}

// Several connections are several, also to a server that speaks HTTP/2; and they are used again.
func TestConnectionsAreSeveral(t *testing.T) {
	content := make([]byte, 40*mib)
	server := httptest.NewUnstartedServer(&streamtest.Server{Content: content, ETag: `"1"`})
	server.EnableHTTP2 = true
	var mu sync.Mutex
	made := 0
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if s == http.StateNew {
			made++
		}
	}
	server.StartTLS()
	defer server.Close()
	transport := server.Client().Transport.(*http.Transport)
	transport.TLSClientConfig.NextProtos = []string{"h2", "http/1.1"}
	src, err := stream.NewHTTP(server.URL, stream.HTTPOptions{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	r := stream.NewReader(t.Context(), []stream.Source{src}, stream.Digest{}, stream.ReaderOptions{Connections: 4})
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(content)) {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	// The transport dials while it waits for one that is in use, so there may be some more; but not one for each of the 11 requests.
	if made < 4 || made > 8 {
		t.Errorf("%d connections were made, want about 4", made)
	}
}

// Parts can be read besides, by several goroutines.
func TestReadAt(t *testing.T) {
	content := make([]byte, 3*mib)
	for i := range content {
		content[i] = byte(i * 31)
	}
	asked := make(chan struct{}) // until then the server does not answer: a reader reads ahead
	file := &streamtest.Server{Content: content, ETag: `"1"`, Faults: []streamtest.Fault{{BeforeAnswer: func(*http.Request) { <-asked }}, {Cut: 10}, {Status: 500}}}
	server := httptest.NewServer(file)
	defer server.Close()
	src, err := stream.NewHTTP(server.URL, stream.HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := stream.NewReader(t.Context(), []stream.Source{src}, stream.Digest{}, stream.ReaderOptions{})
	defer r.Close()
	if _, err := r.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("a part before the first byte is read")
	}
	close(asked)
	if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	for i := range 8 {
		reading.Go(func() {
			b := make([]byte, 1000)
			if n, err := r.ReadAt(b, int64(i*300_000)); err != nil || n != 1000 || !bytes.Equal(b, content[i*300_000:][:1000]) {
				t.Errorf("ReadAt() = %d, %v", n, err)
			}
		})
	}
	reading.Wait()
	if _, err := r.ReadAt(make([]byte, 10), int64(len(content)-5)); err != io.ErrUnexpectedEOF && err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(rest, content[5:]) {
		t.Errorf("read %d bytes, %v", len(rest), err)
	}

	file.Always.NoRange = true
	if _, err := r.ReadAt(make([]byte, 10), 100); !errors.Is(err, stream.ErrNoRanges) {
		t.Errorf("without ranges: %v", err)
	}
}

// A server that turns everybody away in the end has the reading fail, and not wait for a part that nobody fetches.
func TestConnectionsAllTurnedAway(t *testing.T) {
	content := make([]byte, 40*mib)
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		for range 3 { // which part is left over differs
			server := httptest.NewServer(&streamtest.Server{Content: content, ETag: `"1"`, Faults: []streamtest.Fault{{}}, Always: streamtest.Fault{Status: status}})
			src, err := stream.NewHTTP(server.URL, stream.HTTPOptions{})
			if err != nil {
				t.Fatal(err)
			}
			r := stream.NewReader(t.Context(), []stream.Source{src}, stream.Digest{}, stream.ReaderOptions{Connections: 4, Patience: 200 * time.Millisecond})
			hangs := time.AfterFunc(30*time.Second, func() { r.Abort(errors.New("it hangs")) })
			if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), strconv.Itoa(status)) {
				t.Errorf("Copy() = %v, want %d", err, status)
			}
			hangs.Stop()
			r.Close()
			server.Close()
		}
	}
}

// Servers behind one name that do not agree on ETags are one source where a digest decides, and only there.
func TestConnectionsManyServers(t *testing.T) {
	for _, size := range []int{4 * mib, 40 * mib} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(i * 31 >> 5)
		}
		sum := sha256.Sum256(content)
		digest, err := stream.ParseDigest("sha256", hex.EncodeToString(sum[:]))
		if err != nil {
			t.Fatal(err)
		}
		other := bytes.Clone(content)
		other[size-1]++
		for _, tt := range []struct {
			name        string
			second      []byte
			digest      stream.Digest
			read, proof error
		}{
			{"the same image", content, digest, nil, nil},
			{"no digest", content, stream.Digest{}, stream.ErrChanged, nil},
			{"another image of one length", other, digest, nil, stream.ErrDigest},
			{"another length", content[:size-1], digest, stream.ErrChanged, nil},
		} {
			t.Run(fmt.Sprint(tt.name, " ", size), func(t *testing.T) {
				var asked atomic.Int32
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n := asked.Add(1) - 1
					b := content
					if n > 0 {
						b = tt.second
					}
					w.Header().Set("ETag", fmt.Sprintf(`"server-%d"`, n%2))
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
				}))
				defer server.Close()
				src, err := stream.NewHTTP(server.URL, stream.HTTPOptions{})
				if err != nil {
					t.Fatal(err)
				}
				r := stream.NewReader(t.Context(), []stream.Source{src}, tt.digest, stream.ReaderOptions{Connections: 4, Patience: time.Second})
				defer r.Close()
				if _, err := io.Copy(io.Discard, r); !errors.Is(err, tt.read) {
					t.Fatalf("Copy() = %v, want %v", err, tt.read)
				}
				if tt.read == nil {
					if err := r.Verify(); !errors.Is(err, tt.proof) {
						t.Errorf("Verify() = %v, want %v", err, tt.proof)
					}
				}
			})
		}
	}
}

// A mirror that has only the whole takes over in the middle of the first part.
func TestConnectionsMirrorWithoutParts(t *testing.T) {
	content := make([]byte, 20*mib)
	for i := range content {
		content[i] = byte(i * 31 >> 5)
	}
	sum := sha256.Sum256(content)
	digest, err := stream.ParseDigest("sha256", hex.EncodeToString(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	first := httptest.NewServer(&streamtest.Server{Content: content, ETag: `"1"`, Faults: []streamtest.Fault{{Cut: 300_000}}, Always: streamtest.Fault{Status: 404}})
	defer first.Close()
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content)
	}))
	defer second.Close()
	var sources []stream.Source
	for _, url := range []string{first.URL, second.URL} {
		src, err := stream.NewHTTP(url, stream.HTTPOptions{})
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, src)
	}
	r := stream.NewReader(t.Context(), sources, digest, stream.ReaderOptions{Connections: 4, Patience: time.Second})
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(); err != nil {
		t.Error(err)
	}
}
