// SPDX-License-Identifier: Apache-2.0

package streamtest

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server serves one file over HTTP, and breaks as told. It knows ranges and If-Range as a good server does. The fields may be set before it is used.
type Server struct {
	Content  []byte
	ETag     string    // with its quotes; empty for none
	Modified time.Time // zero for none
	// Faults are what goes wrong with the requests, in their order. Requests after the last go well.
	Faults []Fault
	// Always goes wrong with all requests that have no fault of their own.
	Always Fault

	mu       sync.Mutex
	requests []string
}

// Fault is what goes wrong with one request. The zero value is none. Several may be combined.
type Fault struct {
	Status       int               // answer this, and nothing else
	Header       map[string]string // set these, instead of what would be right; an empty value removes
	NoRange      bool              // know nothing of ranges
	NoLength     bool              // do not say how long the answer is
	OpenEnd      bool              // do not say it either, and end the answer by hanging up, as in HTTP/1.0
	Content      []byte            // the file has become another
	Cut          int64             // reset the connection after this many bytes of the body, if not 0
	End          int64             // end the answer in good order after this many bytes, if not 0, though more were promised
	Hang         int64             // stop for good after this many bytes, until the client goes away; -1 before anything
	BeforeAnswer func(*http.Request)
}

// Requests returns what was asked for, a line for each: the Range header, or "all", and then If-Range and Authorization, where given.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// ServeHTTP answers a request, right or wrong.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, content := s.next(r), s.Content
	if f.BeforeAnswer != nil {
		f.BeforeAnswer(r)
	}
	if f.Content != nil {
		content = f.Content
	}
	if f.Hang < 0 {
		<-r.Context().Done()
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if s.ETag != "" {
		h.Set("ETag", s.ETag)
	}
	modified := ""
	if !s.Modified.IsZero() {
		modified = s.Modified.UTC().Format(http.TimeFormat)
		h.Set("Last-Modified", modified)
	}
	status, body := http.StatusOK, content
	if first, last, ok := rangeOf(r, len(content)); ok && !f.NoRange {
		same := r.Header.Get("If-Range")
		switch {
		case same != "" && same != s.ETag && same != modified:
		case first >= len(content):
			status, body = http.StatusRequestedRangeNotSatisfiable, nil
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", len(content)))
		default:
			status, body = http.StatusPartialContent, content[first:last+1]
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(content)))
		}
	}
	if !f.NoLength {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	for name, value := range f.Header {
		h.Set(name, value)
		if value == "" {
			h.Del(name)
		}
	}
	if f.OpenEnd {
		h.Del("Content-Length")
		h.Set("Transfer-Encoding", "identity") // has net/http hang up after the answer
	}
	if f.Status != 0 {
		h.Set("Content-Length", "0")
		w.WriteHeader(f.Status)
		return
	}
	w.WriteHeader(status)
	if f.NoLength {
		http.NewResponseController(w).Flush() // or the length of a short answer is found out
	}
	stop := int64(len(body))
	for _, at := range []int64{f.Cut, f.End, f.Hang} {
		if at != 0 {
			stop = min(stop, at)
		}
	}
	w.Write(body[:stop]) // the client may be gone
	switch {
	case f.Cut != 0 || f.End != 0:
		s.hangUp(w, f.Cut != 0)
	case f.Hang != 0 && (stop < int64(len(body)) || f.NoLength || f.OpenEnd): // else the client knows that this is all, and may ask again
		http.NewResponseController(w).Flush() // the client may be gone
		<-r.Context().Done()
	}
}

// next writes a request down and returns what is to go wrong with it.
func (s *Server) next(r *http.Request) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := strings.TrimPrefix(r.Header.Get("Range"), "bytes=")
	if line == "" {
		line = "all"
	}
	for _, name := range []string{"If-Range", "Authorization"} {
		if v := r.Header.Get(name); v != "" {
			line += " " + name + ": " + v
		}
	}
	n := len(s.requests)
	s.requests = append(s.requests, line)
	if n < len(s.Faults) {
		return s.Faults[n]
	}
	return s.Always
}

// hangUp closes the connection, with a reset or in good order.
func (s *Server) hangUp(w http.ResponseWriter, reset bool) {
	c := http.NewResponseController(w)
	c.Flush() // the client may be gone
	conn, _, err := c.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2 has no connection of its own to close
	}
	if tls, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = tls.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0) // so that Close sends a reset
	}
	conn.Close()
}

// rangeOf reads "bytes=N-" and "bytes=N-M", the forms that we send.
func rangeOf(r *http.Request, size int) (first, last int, ok bool) {
	s, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(s, "-")
	first, err := strconv.Atoi(from)
	last = max(first, size-1)
	if to != "" && err == nil {
		last, err = strconv.Atoi(to)
	}
	return first, min(last, size-1), err == nil && first >= 0 && first <= last
}
