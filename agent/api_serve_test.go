// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/stream/streamtest"
)

// client is a conductor that trusts the certificate in a file.
func client(t *testing.T, caFile string) *http.Client {
	t.Helper()
	b, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatal("no certificate")
	}
	c := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// Neither silent connections nor garbage nor clients that do not read keep the conductor out.
func TestConductorGetsThroughACrowd(t *testing.T) {
	a := newAPI(t, Command{Name: "standby.sync", Run: returns(nil, nil)})
	a.crowd.limit = 20
	address, ca := serveAPI(t, a, "p256", "1.2")
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		return c
	}
	trusted := client(t, ca).Transport.(*http.Transport).TLSClientConfig
	for i := range 300 {
		switch c := dial(); i % 5 {
		case 1:
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		case 2:
			c.Write([]byte{0x16, 3, 1, 0xff, 0xff, 1, 2, 3})
		case 3:
			io.WriteString(c, strings.Repeat("\x80\x00garbage", 100))
		case 4: // says hello, and no more; or has no time to
			conn := tls.Client(c, trusted.Clone())
			c.SetDeadline(time.Now().Add(2 * time.Second))
			if conn.Handshake() == nil {
				io.WriteString(conn, "POST /v1/commands/?agent_token=wrong HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")
			}
		}
	}
	conductor := client(t, ca)
	for range 5 {
		res, err := conductor.Post("https://"+address+"/v1/commands/?agent_token="+testToken, "", strings.NewReader(`{"name": "standby.sync", "params": {}}`))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
		conductor.CloseIdleConnections()
	}
	// All connections but those of the limit were closed.
	alive := 0
	for _, c := range open {
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		var err error
		for err == nil {
			_, err = c.Read(make([]byte, 4096))
		}
		if e, ok := err.(net.Error); ok && e.Timeout() {
			alive++
		}
	}
	if alive > a.crowd.limit {
		t.Errorf("%d connections are open, the limit is %d", alive, a.crowd.limit)
	}
	a.crowd.mu.Lock()
	defer a.crowd.mu.Unlock()
	if a.crowd.open > a.crowd.limit || len(a.crowd.place) > a.crowd.open || a.crowd.waiting.Len() != len(a.crowd.place) {
		t.Errorf("counted %d open, %d and %d waiting", a.crowd.open, a.crowd.waiting.Len(), len(a.crowd.place))
	}
}

// Requests without the token that promise a body, or take no answer, keep nobody out; one with the token that takes its time is not cut off by them.
func TestConductorGetsThroughRefusedRequests(t *testing.T) {
	const head = " HTTP/1.1\r\nHost: x\r\n"
	for _, tt := range []struct{ name, says string }{
		{"body that does not come", "POST /v1/commands/" + head + "Content-Length: 200000\r\n\r\n"},
		{"body that nobody wants", "GET /v1/status" + head + "Content-Length: 10\r\n\r\n"},
		{"wrong token", "POST /v1/commands/?agent_token=wrong" + head + "Transfer-Encoding: chunked\r\n\r\n"},
		{"answer that nobody takes", "GET /v1/status" + head + "\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t, Command{Name: "standby.sync", Run: func(context.Context, json.RawMessage) (any, error) { time.Sleep(5 * time.Second); return nil, nil }})
				a.crowd.limit = 20
				listener := make(pipes)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- a.Serve(ctx, listener, nil) }()
				dial := func(says string) net.Conn {
					ours, theirs := net.Pipe()
					listener <- theirs
					go io.WriteString(ours, says)
					t.Cleanup(func() { ours.Close() })
					return ours
				}
				fill := func() {
					for range a.crowd.limit {
						dial(tt.says)
						synctest.Wait()
					}
				}
				fill()
				const body = `{"name": "standby.sync", "params": {}}`
				conductor := dial(fmt.Sprintf("POST /v1/commands/?agent_token=%s%sContent-Length: %d\r\n\r\n%s", testToken, head, len(body), body))
				synctest.Wait()
				fill()
				begin := time.Now()
				conductor.SetReadDeadline(begin.Add(time.Hour))
				line, err := bufio.NewReader(conductor).ReadString('\n')
				if took := time.Since(begin); !strings.Contains(line, "200 OK") || took != 5*time.Second {
					t.Errorf("the conductor's answer is %q, %v after %v", line, err, took)
				}
				a.crowd.mu.Lock()
				open, waiting, places := a.crowd.open, a.crowd.waiting.Len(), len(a.crowd.place)
				a.crowd.mu.Unlock()
				if open > a.crowd.limit || places != waiting || waiting > open {
					t.Errorf("counted %d open, %d waiting in %d places, the limit is %d", open, waiting, places, a.crowd.limit)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Serve = %v", err)
				}
			})
		})
	}
}

// The end of the API lets a command that runs inside its request end, and its answer out.
func TestServeEndsAfterTheAnswer(t *testing.T) {
	end := make(chan struct{})
	a := newAPI(t, Command{Name: "clean.get_clean_steps", Run: func(context.Context, json.RawMessage) (any, error) { <-end; return "done", nil }})
	c := certificateFor(t, "127.0.0.1", "p256")
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", streamtest.FreePort(t))) // nobody else listens there when it is closed
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, l, &tls.Config{Certificates: []tls.Certificate{c.TLS}}) }()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(c.PEM), 0o600); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string)
	conductor := client(t, ca)
	go func() {
		res, err := conductor.Post("https://"+l.Addr().String()+"/v1/commands/?agent_token="+testToken, "", strings.NewReader(`{"name": "clean.get_clean_steps", "params": {}}`))
		if err != nil {
			answer <- err.Error()
			return
		}
		b, err := io.ReadAll(res.Body)
		answer <- fmt.Sprint(string(b), err)
	}()
	for len(a.commands.turn) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	time.AfterFunc(50*time.Millisecond, func() { close(end) })
	if got := <-answer; !strings.Contains(got, `"command_result":{"result":"done"}`) {
		t.Errorf("answer %s", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
	if err := a.Serve(t.Context(), l, nil); err == nil || !strings.Contains(err.Error(), "serve API on 127.0.0.1:") {
		t.Errorf("Serve on a closed listener = %v", err)
	}
}

// pipes is a listener without a network, so that a test can have its own time.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// What a client says and does, and after what time it has its answer and is cut off.
func TestSlowClients(t *testing.T) {
	const (
		query = "/v1/commands/?wait=true&agent_token=" + testToken
		post  = "POST " + query + " HTTP/1.1\r\nHost: x\r\n"
		body  = `{"name": "standby.prepare_image", "params": {}}`
		never = -1 // not within two hours
	)
	header := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n", n) }
	tests := []struct {
		name   string
		says   string
		reads  bool
		status string        // of the answer, if there is one
		answer time.Duration // when it has come
		cut    time.Duration // when the connection is closed
	}{
		{"says nothing", "", true, "", never, 10 * time.Second},
		{"stops in the header", "GET / HTTP/1.1\r\nHost:", true, "", never, 10 * time.Second},
		{"asks once", "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", true, "200 OK", 0, 30 * time.Second},
		{"waits for a command", post + header(len(body)) + body, true, "200 OK", time.Hour, time.Hour + 30*time.Second},
		{"stops in the body", post + header(len(body)) + body[:10], true, "400 Bad Request", 2 * time.Minute, 2 * time.Minute},
		{"stops in the body, without token", "POST /v1/commands/ HTTP/1.1\r\nHost: x\r\n" + header(len(body)) + body[:10], true, "401 Unauthorized", 10 * time.Second, 10 * time.Second},
		{"stops in a body that nobody wants", "GET /v1/status HTTP/1.1\r\nHost: x\r\n" + header(1000) + body[:10], true, "200 OK", 10 * time.Second, 10 * time.Second},
		{"promises too large a body", post + header(1<<40) + "x", true, "413 Request Entity Too Large", 0, 500 * time.Millisecond},
		{"does not read", "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", false, "", never, 2 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t, Command{Name: "standby.prepare_image", Async: true, Run: func(ctx context.Context, params json.RawMessage) (any, error) {
					time.Sleep(time.Hour)
					return nil, nil
				}})
				listener := make(pipes)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- a.Serve(ctx, listener, nil) }()
				ours, theirs := net.Pipe()
				listener <- theirs
				begin := time.Now()
				go io.WriteString(ours, tt.says)

				if tt.reads {
					in := bufio.NewReader(ours)
					ours.SetReadDeadline(begin.Add(2 * time.Hour))
					line, err := in.ReadString('\n')
					switch {
					case tt.status == "" && err == nil && strings.Contains(line, "408"): // as good as nothing
					case tt.status == "" && err != io.EOF, tt.status != "" && (!strings.Contains(line, tt.status) || time.Since(begin) != tt.answer):
						t.Errorf("answer %q, %v after %v, want %q after %v", line, err, time.Since(begin), tt.status, tt.answer)
					}
					io.Copy(io.Discard, in)
				} else {
					for time.Since(begin) < 2*time.Hour { // until there is nobody to write to
						time.Sleep(7 * time.Millisecond)
						a.crowd.mu.Lock()
						open := a.crowd.open
						a.crowd.mu.Unlock()
						if open == 0 {
							break
						}
					}
				}
				if took := time.Since(begin).Round(100 * time.Millisecond); took != tt.cut {
					t.Errorf("cut off after %v, want %v", took, tt.cut)
				}
				ours.Close()
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Serve = %v", err)
				}
				time.Sleep(2 * time.Hour) // the command ends too
			})
		})
	}
}
