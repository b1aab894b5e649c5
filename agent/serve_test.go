// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
)

// postTo sends one request for a command over a listener without a network, and returns the answer's body.
func postTo(t *testing.T, l pipes, name, params string) string {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	ours.SetDeadline(time.Now().Add(time.Minute))
	l <- theirs
	body := fmt.Sprintf(`{"name": %q, "params": %s}`, name, params)
	go fmt.Fprintf(ours, "POST /v1/commands/?agent_token=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", testToken, len(body), body)
	answer, err := http.ReadResponse(bufio.NewReader(ours), nil)
	if err != nil {
		return err.Error()
	}
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// breakable is a listener that can fail.
type breakable struct {
	pipes
	broken chan struct{}
}

func (b breakable) Accept() (net.Conn, error) {
	select {
	case c := <-b.pipes:
		return c, nil
	case <-b.broken:
		return nil, errors.New("accept: bad file descriptor")
	}
}

func (b breakable) Close() error {
	select {
	case <-b.broken:
	default:
		close(b.broken)
	}
	return nil
}

// When the command that ends the service has been done, nothing else begins, neither by another request nor by the flow that it is in; and the
// last is done however the API ends.
func TestNothingBeginsAfterRetirement(t *testing.T) {
	for _, tt := range []struct {
		name, command, params string
		fails                 bool // the API, before it has ended
	}{
		{"lockdown", "system.lockdown", `{}`, false},
		{"lockdown in a flow", "flow.start_flow", `{"flow": [{"system.lockdown": {}}, {"standby.sync": {}}]}`, false},
		{"the API fails", "system.lockdown", `{}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var done []string
				a, _ := newTestAgent(t, System{
					LinksDown: func() error { done = append(done, "links down"); return nil },
					Sync:      func() error { done = append(done, "sync"); return nil },
				})
				a.token = testToken
				l := breakable{make(pipes), make(chan struct{})}
				ended := make(chan error, 1)
				ctx, cancel := context.WithCancel(t.Context())
				go func() { ended <- a.runAPI(ctx, l, nil, nil) }()
				synctest.Wait()
				if got := postTo(t, l.pipes, tt.command, tt.params); !strings.Contains(got, `"command_error":null`) {
					t.Errorf("%s = %s", tt.command, got)
				}
				synctest.Wait()
				if tt.fails {
					l.Close()
				} else if got := postTo(t, l.pipes, "standby.sync", `{}`); !strings.Contains(got, "sync did not start: the agent is going down") {
					t.Errorf("sync after it = %s", got)
				}
				time.Sleep(time.Minute)
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("runAPI() = %v", err)
				}
				if got := strings.Join(done, ", "); got != "links down" {
					t.Errorf("done: %s, want links down", got)
				}
			})
		})
	}
}

// noIronic takes heartbeats, and notes when they came.
type noIronic struct {
	mu   sync.Mutex
	came []time.Time
}

func (i *noIronic) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/heartbeat/") {
		i.mu.Lock()
		i.came = append(i.came, time.Now())
		i.mu.Unlock()
	}
	return &http.Response{StatusCode: http.StatusAccepted, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// since counts the heartbeats after a time.
func (i *noIronic) since(begin time.Time) (n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, came := range i.came {
		if came.After(begin) {
			n++
		}
	}
	return n
}

// The end of an asynchronous command brings a heartbeat at once, when what it ended with can be read; its beginning does not.
func TestEndBringsAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newTestAgent(t, System{Sync: func() error { time.Sleep(20 * time.Second); return nil }})
		a.token, a.uuid = testToken, "n7"
		a.settings.HeartbeatTimeout = time.Hour
		api := new(noIronic)
		var err error
		if a.client, err = ironic.New(ironic.Options{URLs: []string{"http://192.0.2.1"}, APIVersion: "1.82", Transport: api}); err != nil {
			t.Fatal(err)
		}
		l := breakable{make(pipes), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- a.runAPI(ctx, l, nil, &ironic.Beat{CallbackURL: "https://192.0.2.7:9999", Token: testToken, Version: "test"})
		}()
		time.Sleep(time.Minute)
		begin := time.Now()
		if got := postTo(t, l.pipes, "flow.start_flow", `{"flow": [{"standby.sync": {}}]}`); !strings.Contains(got, "RUNNING") {
			t.Errorf("start_flow = %s", got)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := api.since(begin); n != 0 {
			t.Errorf("%d heartbeats while it runs", n)
		}
		time.Sleep(settleTime + time.Second)
		if n := api.since(begin); n != 1 {
			t.Errorf("%d heartbeats just after its end, want 1", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("runAPI() = %v", err)
		}
	})
}
