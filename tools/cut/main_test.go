// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCut(t *testing.T) {
	const size = 3 << 20
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, size)) }))
	defer server.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(server.Listener.Addr().String(), size/2, 2)
	ended := make(chan error)
	go func() { ended <- p.accept(l) }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, whole := range []bool{false, false, true} {
		resp, err := client.Get("http://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if whole != (err == nil) || whole != (n == size) {
			t.Errorf("%d bytes came, %v; want all: %v", n, err, whole)
		}
	}
	p.mu.Lock()
	if p.sent < 2*size || p.sent >= 3*size { // half of it twice, and all of it, with headers
		t.Errorf("%d bytes were sent", p.sent)
	}
	p.mu.Unlock()
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
