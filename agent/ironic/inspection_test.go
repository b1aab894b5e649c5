// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// answers is a network that gives one answer after the other, and keeps what was asked.
type answers struct {
	list  []any // *http.Response or error; the last is repeated
	asked []string
	last  *http.Request
	body  []byte
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r.Method+" "+r.URL.String())
	a.last = r
	if r.Body != nil {
		a.body, _ = io.ReadAll(r.Body)
	}
	next := a.list[0]
	if len(a.list) > 1 {
		a.list = a.list[1:]
	}
	if err, ok := next.(error); ok {
		return nil, err
	}
	res := next.(*http.Response)
	return &http.Response{StatusCode: res.StatusCode, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(res.Status)), Request: r}, nil
}

func status(code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Status: body} // the body, until it is sent
}

func TestContinueInspection(t *testing.T) {
	const lookup = `{"node": {"uuid": "u-2"}, "config": {"heartbeat_timeout": 300, "agent_token": "0123456789012345678901234567890123456789"}}`
	down := error(syscall.ECONNREFUSED)
	for _, tt := range []struct {
		name    string
		answers []any
		uuid    string
		found   bool
		took    time.Duration
		asked   int
		err     string
	}{
		{"Ironic", []any{status(202, `{"uuid": "u-1"}`)}, "u-1", false, 0, 1, ""},
		{"ironic-inspector", []any{status(200, `{"uuid": "u-1"}`)}, "u-1", false, 0, 1, ""},
		{"with a token", []any{status(202, lookup)}, "u-2", true, 0, 1, ""},
		{"no body", []any{status(202, "")}, "", false, 0, 1, ""},
		{"HTML", []any{status(200, "<html>")}, "", false, 0, 1, ""},
		{"a node that is none", []any{status(202, `{"node": {}}`)}, "", false, 0, 1, "it has no uuid"},
		{"second URL", []any{down, status(202, `{"uuid": "u-1"}`)}, "u-1", false, 0, 2, ""},
		{"second round", []any{down, down, status(202, `{"uuid": "u-1"}`)}, "u-1", false, 5 * time.Second, 3, ""},
		{"locked, then broken, then right", []any{status(409, "locked"), status(503, "busy"), status(500, "x"), status(202, `{"uuid": "u-1"}`)}, "u-1", false, 16 * time.Second, 4, ""},
		{"never", []any{down}, "", false, 28 * time.Second, 10, "connection refused"},
		{"always locked", []any{status(409, "locked")}, "", false, 28 * time.Second, 5, "409 Conflict: locked"},
		{"not found", []any{status(404, "no node")}, "", false, 0, 1, "404 Not Found: no node"},
		{"refused", []any{status(400, `{"error_message": {"faultstring": "bad inventory"}}`)}, "", false, 0, 1, "bad inventory"},
		{"redirect", []any{status(302, "")}, "", false, 0, 1, "302 Found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := &answers{list: tt.answers}
				c := newClient(t, Options{URLs: []string{"https://a"}, Transport: net, RequestID: "req-1"})
				var targets []*url.URL
				for _, s := range []string{"https://a/v1/continue_inspection", "https://b/v1/continue/?x=1"} {
					u, err := ParseCallbackURL(s)
					if err != nil {
						t.Fatal(err)
					}
					targets = append(targets, u)
				}
				start := time.Now()
				got, err := c.ContinueInspection(t.Context(), targets, []byte(`{"inventory": {}}`), 0)
				if (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				if got.UUID != tt.uuid || got.Found != tt.found || time.Since(start) != tt.took || len(net.asked) != tt.asked {
					t.Errorf("%q, found %t, %v, %d requests; want %q, %t, %v, %d", got.UUID, got.Found, time.Since(start), len(net.asked), tt.uuid, tt.found, tt.took, tt.asked)
				}
				if tt.found && len(got.Settings.Token) < 32 {
					t.Error("no token")
				}
				if net.asked[0] != "POST https://a/v1/continue_inspection" || len(net.asked) > 1 && net.asked[1] != "POST https://b/v1/continue/?x=1" && !strings.HasPrefix(tt.name, "always") && !strings.HasPrefix(tt.name, "locked") {
					t.Errorf("asked %q", net.asked)
				}
				h := net.last.Header
				if h.Get("X-OpenStack-Ironic-API-Version") != "" || h.Get("X-OpenStack-Request-ID") != "req-1" || h.Get("Content-Type") != "application/json" || h.Get("Accept") != "application/json" {
					t.Errorf("headers %v", h)
				}
				if !bytes.Equal(net.body, []byte(`{"inventory": {}}`)) {
					t.Errorf("body %s", net.body)
				}
			})
		})
	}
}

func TestContinueInspectionVersion(t *testing.T) {
	net := &answers{list: []any{status(202, `{}`)}}
	c := newClient(t, Options{URLs: []string{"https://a"}, Transport: net})
	if _, err := c.ContinueInspection(t.Context(), []*url.URL{{Scheme: "https", Host: "a", Path: inspectionTestPath}}, nil, VersionContinueInspection); err != nil {
		t.Fatal(err)
	}
	if got := net.last.Header.Get("X-OpenStack-Ironic-API-Version"); got != "1.84" {
		t.Errorf("version %q, want 1.84", got)
	}
	if _, err := c.ContinueInspection(t.Context(), nil, nil, 0); err == nil {
		t.Error("no URL: no error")
	}
}

const inspectionTestPath = "/v1/continue_inspection"

func TestParseCallbackURLBad(t *testing.T) {
	for _, s := range []string{"", "a", "ftp://a/b", "https:///x", "https://a/#x", "https://user:secret@/x?token=secret", "https://user:secret@a/%zz?token=secret"} {
		if _, err := ParseCallbackURL(s); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseCallbackURL(%q): %v", s, err)
		}
	}
	u, err := ParseCallbackURL("https://u:secret@a/x?token=secret")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{URLs: []string{"https://a"}, Transport: &answers{list: []any{error(syscall.ECONNREFUSED)}}})
		_, err := c.ContinueInspection(t.Context(), []*url.URL{u}, nil, 0)
		if !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v", err)
		}
	})
	var refused *StatusError
	net := &answers{list: []any{status(404, "")}}
	c := newClient(t, Options{URLs: []string{"https://a"}, Transport: net})
	if _, err := c.ContinueInspection(t.Context(), []*url.URL{u}, nil, 0); !errors.As(err, &refused) || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

// A link that takes data slowly takes it all in the end; one that takes none any more is given up.
func TestContinueInspectionSlowly(t *testing.T) {
	const timeout, pause, part = 30 * time.Second, 20 * time.Second, 64 << 10
	data := make([]byte, 8<<20)
	for _, tt := range []struct {
		name   string
		stalls bool
		want   error
		took   time.Duration
	}{
		{"slow", false, nil, pause * time.Duration(len(data)/part)},
		{"stalls", true, context.DeadlineExceeded, timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stop := make(chan struct{})
				take := func(conn net.Conn) {
					defer conn.Close()
					r, err := http.ReadRequest(bufio.NewReader(conn))
					if err != nil {
						t.Error(err)
						return
					}
					if tt.stalls {
						<-stop
						return
					}
					for b := make([]byte, part); err == nil; time.Sleep(pause) {
						_, err = io.ReadFull(r.Body, b)
						if err == io.EOF {
							io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
							return
						}
					}
					t.Error(err)
				}
				dial := func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go take(theirs)
					return ours, nil
				}
				c := newClient(t, Options{URLs: []string{"http://a"}, Timeout: timeout, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}})
				u, err := ParseCallbackURL("http://a")
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err = c.postInspection(t.Context(), []*url.URL{u}, data, 0)
				if took := time.Since(start); !errors.Is(err, tt.want) || took != tt.took {
					t.Errorf("postInspection() = %v after %v, want %v after %v", err, took, tt.want, tt.took)
				}
				close(stop)
			})
		})
	}
}
