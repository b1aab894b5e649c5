// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// exchange is one line of a recording: what one side asked and the other answered.
type exchange struct {
	Direction string            `json:"direction"`
	Method    string            `json:"method"`
	Path      string            `json:"path"`
	Headers   map[string]string `json:"headers"`
	Request   json.RawMessage   `json:"request"`
	Status    int               `json:"status"`
	Response  json.RawMessage   `json:"response"`
}

// recording returns the agent's requests of a recording, with what the real Ironic answered.
func recording(t testing.TB, name string) []exchange {
	t.Helper()
	b, err := os.ReadFile("../testdata/wire/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var list []exchange
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, len(b)+1)
	for lines.Scan() {
		var e exchange
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Direction == "agent -> ironic" {
			list = append(list, e)
		}
	}
	return list
}

// indented makes JSON comparable as text, with sorted keys.
func indented(t testing.TB, b []byte) string {
	t.Helper()
	if len(b) == 0 || string(b) == "null" {
		return ""
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// answer makes a handler that always answers the same.
func answer(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

const (
	rootDocument = `{"default_version": {"id": "v1", "min_version": "1.1", "version": "1.82"}}`
	lookupAnswer = `{"node": {"uuid": "u-1", "properties": {"root_device": {"serial": "S1"}}},
		"config": {"heartbeat_timeout": 300, "agent_token": "not-a-real-token-00000000000000000000000000"}}`
)

// api is a handler for an Ironic that answers everything.
func api() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", answer(200, rootDocument))
	mux.Handle("GET /v1/lookup", answer(200, lookupAnswer))
	mux.Handle("POST /v1/heartbeat/{uuid}", answer(202, ""))
	return mux
}

func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The client must send what ironic-python-agent was recorded to send, and understand what two
// releases of Ironic were recorded to answer.
func TestRecordedExchanges(t *testing.T) {
	for _, name := range []string{"deploy-21.4.jsonl", "clean-21.4.jsonl", "deploy-2026.1.jsonl", "clean-2026.1.jsonl", "service-2026.1.jsonl"} {
		t.Run(name, func(t *testing.T) {
			exchanges := recording(t, name)
			var now exchange // what is expected next
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				if r.Method != now.Method || r.URL.RequestURI() != now.Path {
					t.Errorf("sent %s %s, want %s %s", r.Method, r.URL.RequestURI(), now.Method, now.Path)
				}
				for k, want := range now.Headers {
					if got := r.Header.Get(k); got != want {
						t.Errorf("%s: header %s = %q, want %q", now.Path, k, got, want)
					}
				}
				if got, want := indented(t, body), indented(t, now.Request); got != want {
					t.Errorf("%s: body\n%s\nwant\n%s", now.Path, got, want)
				}
				w.WriteHeader(now.Status)
				if string(now.Response) != "null" {
					w.Write(now.Response)
				}
			}))
			defer server.Close()
			client := newClient(t, Options{URLs: []string{server.URL + "/"}})

			var settings Settings
			for _, now = range exchanges {
				switch {
				case now.Path == "/":
					if _, err := client.ServerVersion(t.Context()); err != nil {
						t.Fatal(err)
					}
				case strings.HasPrefix(now.Path, "/v1/lookup"):
					var uuid string
					if _, after, ok := strings.Cut(now.Path, "node_uuid="); ok {
						uuid = after
					}
					node, s, err := client.Lookup(t.Context(), []net.HardwareAddr{{2, 0xfc, 0, 0, 0, 1}}, uuid)
					if err != nil {
						t.Fatal(err)
					}
					if string(node.Properties["cpu_arch"]) != `"x86_64"` || s.HeartbeatTimeout != 30*time.Second {
						t.Errorf("Lookup = %s, %v", node.Properties["cpu_arch"], s.HeartbeatTimeout)
					}
					if uuid == "" {
						settings = s
					} else if s.Token != "******" {
						t.Errorf("second lookup answered a token of %d characters", len(s.Token))
					}
				default:
					var beat struct{ Callback_url, Agent_version, Agent_verify_ca string }
					if err := json.Unmarshal(now.Request, &beat); err != nil {
						t.Fatal(err)
					}
					token, err := ChooseToken("", settings.Token)
					if err != nil {
						t.Fatal(err)
					}
					err = client.Heartbeat(t.Context(), now.Path[len("/v1/heartbeat/"):], Beat{
						CallbackURL: beat.Callback_url, Token: token, Version: beat.Agent_version, VerifyCA: beat.Agent_verify_ca,
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name string
		urls []string
		want string
	}{
		{"nothing", nil, "no API URL given"},
		{"no scheme", []string{"ironic.example.com:6385"}, "not of the form"},
		{"host only", []string{"ironic"}, "not of the form"},
		{"other scheme", []string{"https://a", "ftp://b"}, "not of the form"},
		{"no host", []string{"https://"}, "not of the form"},
		{"query", []string{"https://a/?x=1"}, "no meaning"},
		{"broken", []string{"https://a:b:c"}, "invalid port"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(Options{URLs: tt.urls}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New(%q) = %v, want an error with %q", tt.urls, err, tt.want)
			}
		})
	}
}

func TestServerVersion(t *testing.T) {
	tests := []struct {
		name       string
		configured string
		handler    http.HandlerFunc
		want       Version
	}{
		{"new", "", answer(200, `{"default_version": {"version": "1.115"}}`), 115},
		{"old", "", answer(200, `{"default_version": {"version": "1.80"}}`), 80},
		{"configured", "1.58", answer(200, rootDocument), 58},
		{"configured badly", "latest", answer(200, rootDocument), 82},
		{"no version", "", answer(200, `{"name": "OpenStack Ironic API"}`), VersionFallback},
		{"another major", "", answer(200, `{"default_version": {"version": "2.5"}}`), VersionFallback},
		{"a number", "", answer(200, `{"default_version": {"version": 1.82}}`), VersionFallback},
		{"HTML", "", answer(200, `<html><h1>It works!</h1></html>`), VersionFallback},
		{"nothing", "", answer(200, ""), VersionFallback},
		{"not found", "", answer(404, "not found"), VersionFallback},
		{"broken", "", answer(500, ""), VersionFallback},
		{"redirected away", "", http.RedirectHandler("http://192.0.2.1/", http.StatusFound).ServeHTTP, VersionFallback},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			c := newClient(t, Options{URLs: []string{server.URL}, APIVersion: tt.configured})
			if got, err := c.ServerVersion(t.Context()); got != tt.want || err != nil {
				t.Errorf("ServerVersion() = %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// A version that the server did not tell is asked for again; one that it told is kept until
// the server refuses it.
func TestServerVersionIsAskedAgain(t *testing.T) {
	version, status := `"1.40"`, 500
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		answer(status, `{"default_version": {"version": `+version+`}}`)(w, r)
	})
	mux.HandleFunc("/v1/heartbeat/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-OpenStack-Ironic-API-Version") == "1.40" && version != `"1.40"` {
			answer(406, "")(w, r)
			return
		}
		answer(202, "")(w, r)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	c := newClient(t, Options{URLs: []string{server.URL}})
	var got []string
	ask := func() {
		v, err := c.ServerVersion(t.Context())
		got = append(got, fmt.Sprint(v, " ", err))
	}
	ask()
	status = 200
	ask()
	version = `"1.38"` // somebody goes back to an older release
	ask()
	err := c.Heartbeat(t.Context(), "u", Beat{})
	var refused *StatusError
	if !errors.As(err, &refused) || refused.Code != 406 || Hint(err) == "" {
		t.Errorf("Heartbeat = %v, want a 406 with a hint", err)
	}
	ask()
	want := "1.31 <nil>, 1.40 <nil>, 1.40 <nil>, 1.38 <nil>"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("versions %s, want %s", s, want)
	}
}

func TestFailover(t *testing.T) {
	up := httptest.NewServer(api())
	defer up.Close()
	broken := httptest.NewServer(answer(503, `{"error_message": {"faultstring": "down for maintenance"}}`))
	defer broken.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, rootDocument)
	}))
	defer cut.Close()
	gone := httptest.NewServer(nil)
	gone.Close()

	tests := []struct {
		name  string
		urls  []string
		order []string // afterwards
		want  string   // part of the error, or empty
	}{
		{"first works", []string{up.URL, gone.URL}, []string{up.URL, gone.URL}, ""},
		{"first is gone", []string{gone.URL, up.URL}, []string{up.URL, gone.URL}, ""},
		{"first cuts its answers", []string{cut.URL, up.URL}, []string{up.URL, cut.URL}, ""},
		{"third works", []string{gone.URL, cut.URL, up.URL}, []string{up.URL, gone.URL, cut.URL}, ""},
		{"a status is an answer", []string{broken.URL, up.URL}, []string{broken.URL, up.URL}, "503 Service Unavailable: down for maintenance"},
		{"a status of the second", []string{gone.URL, broken.URL, up.URL}, []string{broken.URL, gone.URL, up.URL}, "down for maintenance"},
		{"all gone", []string{gone.URL, cut.URL}, []string{gone.URL, cut.URL}, "connection refused"},
		{"all gone, all told", []string{gone.URL, cut.URL}, []string{gone.URL, cut.URL}, "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, Options{URLs: tt.urls, APIVersion: "1.82"})
			_, err := c.do(t.Context(), request{method: "GET", path: "/", want: 200})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("do = %v, want %q", err, tt.want)
			}
			if got, want := strings.Join(c.URLs(), " "), strings.Join(tt.order, " "); got != want {
				t.Errorf("URLs() = %s, want %s", got, want)
			}
		})
	}
}

func TestLookupAnswers(t *testing.T) {
	tests := []struct {
		name string
		body string
		want string // part of the error; "" for success
	}{
		{"complete", lookupAnswer, ""},
		{"before there was a config", `{"node": {"uuid": "u-1"}, "heartbeat_timeout": 60}`, ""},
		{"unknown and null keys", `{"node": {"uuid": "u-1", "properties": null, "new": [1]}, "new": {},
			"config": {"heartbeat_timeout": 60, "new": 1, "agent_token": null, "permitted_image_formats": null, "agent_md5_checksum_enable": null}}`, ""},
		{"nothing", "", "it is empty"},
		{"spaces", " \n", "it is empty"},
		{"HTML", "<html><body>Sign in to the hotel's network</body></html>", `it begins with "<html><body>Sign in`},
		{"truncated", lookupAnswer[:len(lookupAnswer)-9], "unexpected end of JSON"},
		{"null", "null", "it has no node"},
		{"list", "[]", "cannot unmarshal array"},
		{"no node", `{"config": {"heartbeat_timeout": 60}}`, "it has no node"},
		{"no uuid", `{"node": {"properties": {}}, "config": {"heartbeat_timeout": 60}}`, "it has no uuid"},
		{"node is a string", `{"node": "u-1", "config": {"heartbeat_timeout": 60}}`, "cannot unmarshal string"},
		{"properties is a list", `{"node": {"uuid": "u-1", "properties": []}, "config": {"heartbeat_timeout": 60}}`, "properties"},
		{"no heartbeat_timeout", `{"node": {"uuid": "u-1"}, "config": {}}`, "heartbeat_timeout of 0 s"},
		{"negative heartbeat_timeout", `{"node": {"uuid": "u-1"}, "config": {"heartbeat_timeout": -1}}`, "heartbeat_timeout of -1 s"},
		{"endless heartbeat_timeout", `{"node": {"uuid": "u-1"}, "config": {"heartbeat_timeout": 1e300}}`, "not possible"},
		{"token is a number", `{"node": {"uuid": "u-1"}, "config": {"heartbeat_timeout": 1, "agent_token": 5}}`, "agent_token"},
		{"nested", strings.Repeat("[", 100000), "exceeded max depth"},
		{"huge", `{"node": "` + strings.Repeat("x", maxAnswer) + `"}`, "answer is longer than 8388608 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(answer(200, tt.body))
			defer server.Close()
			c := newClient(t, Options{URLs: []string{server.URL}, APIVersion: "1.82", LookupTimeout: 1})
			node, settings, err := c.Lookup(t.Context(), nil, "")
			if tt.want == "" {
				if err != nil || node.UUID != "u-1" || settings.HeartbeatTimeout < time.Minute {
					t.Errorf("Lookup = %v, %v, %v", node, settings.HeartbeatTimeout, err)
				}
				return
			}
			if !errors.Is(err, ErrLookup) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Lookup = %v, want ErrLookup with %q", err, tt.want)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestSettings(t *testing.T) {
	_, s, err := ParseLookup([]byte(`{"node": {"uuid": "u"}, "config": {
		"metrics": {"backend": "noop"}, "metrics_statsd": {"statsd_port": 8125},
		"heartbeat_timeout": 300, "agent_token": "secret-secret", "agent_token_required": true,
		"agent_containers": {"runner": "podman"},
		"agent_md5_checksum_enable": false, "disable_deep_image_inspection": true,
		"permitted_image_formats": ["raw", "qcow2"], "agent_skip_bmc_detect": true,
		"enable_bios_bootloader_install": true, "tls_min_version": "1.3", "tls_cipher_suites": "A:B"}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%v %v %v %v %v %v %v %v %v %v %s %s %s", s.HeartbeatTimeout, s.Token, s.TokenRequired, *s.MD5Enabled,
		*s.DisableDeepImageInspection, s.PermittedImageFormats, s.SkipBMCDetect, s.EnableBIOSBootloaderInstall,
		s.TLSMinVersion, s.TLSCipherSuites, s.Containers["runner"], s.Metrics, s.MetricsStatsd)
	want := `5m0s *** true false true [raw qcow2] true true 1.3 A:B "podman" {"backend": "noop"} {"statsd_port": 8125}`
	if got != want {
		t.Errorf("settings\n%s\nwant\n%s", got, want)
	}
}

func TestChooseToken(t *testing.T) {
	long, other := Secret(strings.Repeat("a", 43)), Secret(strings.Repeat("b", 43))
	tests := []struct {
		name          string
		pregenerated  Secret
		answered      Secret
		want          Secret
		wantTokenLost bool
	}{
		{"first lookup", "", long, long, false},
		{"answer replaces", other, long, long, false},
		{"shortest", "", long[:32], long[:32], false},
		{"virtual media", other, "******", other, false},
		{"restarted, token saved", long, "******", long, false},
		{"restarted, token lost", "", "******", "", true},
		{"too short", "", long[:31], "", false},
		{"too short, one is there", other, long[:31], other, false},
		{"old server", "", "", "", false},
		{"old server, one is there", other, "", other, false},
		{"masked otherwise", "", "***", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ChooseToken(tt.pregenerated, tt.answered)
			if got != tt.want || errors.Is(err, ErrTokenLost) != tt.wantTokenLost {
				t.Errorf("ChooseToken = %q, %v, want %q, lost %v", got.Reveal(), err, tt.want.Reveal(), tt.wantTokenLost)
			}
		})
	}
}

// script is a transport that answers with a list of statuses, then 200, without a network.
type script struct {
	codes []int
	start time.Time
	log   strings.Builder // when each request came
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	fmt.Fprintf(&s.log, "%v ", time.Since(s.start))
	code, body := 200, lookupAnswer
	if len(s.codes) > 0 {
		code, body, s.codes = s.codes[0], "{}", s.codes[1:]
	}
	if code == 0 {
		return nil, syscall.ECONNREFUSED
	}
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func TestLookupSchedule(t *testing.T) {
	tests := []struct {
		name    string
		codes   []int
		random  float64
		least   time.Duration
		limit   time.Duration
		when    string // when the requests came
		waits   string // what OnRetry was told
		wantErr string
	}{
		{"at once", nil, 0.5, 0, 0, "0s ", "", ""},
		{"most", []int{404, 404, 404, 404, 404, 404, 404, 404}, 1, 0, 0,
			"0s 1s 3s 7s 15s 31s 1m3s 2m3s 3m3s ", "1:1s 2:2s 3:4s 4:8s 5:16s 6:32s 7:1m0s 8:1m0s ", ""},
		{"least", []int{404, 403, 400, 500}, 0, 0, 0, "0s 1s 2s 3s 4s ", "1:1s 2:1s 3:1s 4:1s ", ""},
		{"half", []int{0, 0, 0}, 0.5, 0, 0, "0s 1s 2.5s 5s ", "1:1s 2:1.5s 3:2.5s ", ""},
		{"least of 20 s", []int{404, 404, 404, 404, 404, 404}, 1, 20 * time.Second, 0,
			"0s 20s 40s 1m0s 1m20s 1m40s 2m12s ", "1:20s 2:20s 3:20s 4:20s 5:20s 6:32s ", ""},
		{"locked", []int{409, 409, 404, 409, 409}, 0, 0, 0,
			"0s 6s 17s 18s 49s 1m20s ", "1:6s 2:11s 3:1s 4:31s 5:31s ", ""},
		{"given up", []int{404, 404, 404, 404}, 0, 0, 2500 * time.Millisecond, "0s 1s 2s 3s ", "1:1s 2:1s 3:1s ",
			"look up node: node not found after 4 attempts in 3s: GET http://ironic/v1/lookup: 404 Not Found"},
		{"given up while locked", []int{409, 409}, 0, 0, 10 * time.Second, "0s 6s ", "1:6s ", "409 Conflict"},
		{"given up, nobody there", []int{0, 0}, 0, 0, time.Second, "0s 1s ", "1:1s ", "connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{codes: tt.codes, start: time.Now()}
				var waits strings.Builder
				c := newClient(t, Options{
					URLs: []string{"http://ironic"}, APIVersion: "1.82", Transport: s,
					LookupInterval: tt.least, LookupTimeout: tt.limit,
					Rand: func() float64 { return tt.random },
					OnRetry: func(attempt int, err error, wait time.Duration) {
						if err == nil {
							t.Error("OnRetry without an error")
						}
						fmt.Fprintf(&waits, "%d:%v ", attempt, wait)
					},
				})
				_, _, err := c.Lookup(t.Context(), nil, "")
				if tt.wantErr == "" && err != nil || tt.wantErr != "" && (!errors.Is(err, ErrLookup) || !strings.Contains(err.Error(), tt.wantErr)) {
					t.Errorf("Lookup = %v, want %q", err, tt.wantErr)
				}
				if s.log.String() != tt.when || waits.String() != tt.waits {
					t.Errorf("requests at %s, waits %s\nwant        %s,       %s", s.log.String(), waits.String(), tt.when, tt.waits)
				}
			})
		})
	}
}

func TestLookupEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		c := newClient(t, Options{URLs: []string{"http://ironic"}, APIVersion: "1.82", Transport: &script{codes: make([]int, 1000)}})
		_, _, err := c.Lookup(ctx, nil, "")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Lookup = %v, want the context's error and the reason", err)
		}
	})
}

// Without any answer to GET / there is no guess of the version: a lookup with too low a version
// would get no token.
func TestLookupDoesNotGuessTheVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		up := false
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			seen = append(seen, r.URL.Path+" "+r.Header.Get("X-OpenStack-Ironic-API-Version"))
			if !up {
				up = true
				return nil, syscall.ECONNRESET
			}
			w := httptest.NewRecorder()
			api().ServeHTTP(w, r)
			return w.Result(), nil
		})
		c := newClient(t, Options{URLs: []string{"http://ironic"}, Transport: transport})
		if _, _, err := c.Lookup(t.Context(), nil, ""); err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Join(seen, ", "), "/ , / , /v1/lookup 1.62"; got != want {
			t.Errorf("requests %s, want %s", got, want)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHeartbeat(t *testing.T) {
	beat := Beat{CallbackURL: "https://192.0.2.10:9999", Token: "not-a-real-token", Version: "0.1", VerifyCA: "PEM"}
	static := beat
	static.VerifyCA = ""
	tests := []struct {
		name    string
		version string
		beat    Beat
		status  int
		answer  string
		header  string // version sent
		body    string // keys sent
		want    string // part of the error
	}{
		{"newest", "1.115", beat, 202, "", "1.68", "agent_token agent_verify_ca agent_version callback_url", ""},
		{"1.68", "1.68", beat, 202, "", "1.68", "agent_token agent_verify_ca agent_version callback_url", ""},
		{"static certificate", "1.115", static, 202, "", "1.68", "agent_token agent_version callback_url", ""},
		{"1.67", "1.67", beat, 202, "", "1.67", "agent_token agent_version callback_url", ""},
		{"1.61", "1.61", beat, 202, "", "1.61", "agent_version callback_url", ""},
		{"1.35", "1.35", beat, 202, "", "1.35", "callback_url", ""},
		{"locked", "1.82", beat, 409, `{"error_message": "{\"faultstring\": \"Node is locked\"}"}`, "", "", "409 Conflict: Node is locked"},
		{"other token", "1.82", beat, 400, `{"error_message": "{\"faultcode\": \"Client\", \"faultstring\": \"Invalid or missing agent token received.\"}"}`, "", "", "400 Bad Request: Invalid or missing agent token received."},
		{"token repeated", "1.82", beat, 400, `bad token not-a-real-token`, "", "", "bad token ***"},
		{"fault is a string", "1.82", beat, 409, `{"error_message": "Node is locked"}`, "", "", "409 Conflict: Node is locked"},
		{"title", "1.82", beat, 404, `{"error_message": {"title": "Gone"}}`, "", "", "404 Not Found: Gone"},
		{"proxy", "1.82", beat, 502, "<html>\r\n<b>Bad\x1b[31m gateway</b>\x00", "", "", "502 Bad Gateway: <html> <b>Bad [31m gateway</b>"},
		{"200 is no success", "1.82", beat, 200, "", "", "", "200 OK"},
		{"500 and nothing", "1.82", beat, 500, "", "", "", "500 Internal Server Error"},
		{"huge", "1.82", beat, 500, strings.Repeat("x", 3<<20), "", "", "500 Internal Server Error: xxx"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var header, keys string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var fields map[string]string
				if err := json.NewDecoder(r.Body).Decode(&fields); err != nil {
					t.Error(err)
				}
				header = r.Header.Get("X-OpenStack-Ironic-API-Version")
				for _, k := range []string{"agent_token", "agent_verify_ca", "agent_version", "callback_url"} {
					if _, ok := fields[k]; ok {
						keys += k + " "
					}
				}
				if token, ok := fields["agent_token"]; ok && token != "not-a-real-token" {
					t.Errorf("agent_token = %q", token)
				}
				answer(tt.status, tt.answer)(w, r)
			}))
			defer server.Close()
			var out bytes.Buffer
			c := newClient(t, Options{URLs: []string{server.URL}, APIVersion: tt.version, Log: slog.New(slog.NewTextHandler(&out, nil))})
			err := c.Heartbeat(t.Context(), "u-1", tt.beat)
			if tt.want == "" {
				if err != nil || header != tt.header || strings.TrimSpace(keys) != tt.body {
					t.Errorf("Heartbeat = %v, sent version %s and %s, want %s and %s", err, header, keys, tt.header, tt.body)
				}
				return
			}
			var status *StatusError
			if !errors.As(err, &status) || status.Code != tt.status || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Heartbeat = %v, want %q", err, tt.want)
			}
			if s := fmt.Sprint(err, Hint(err), out.String()); strings.Contains(s, "not-a-real-token") || len(s) > 2000 {
				t.Errorf("the error shows the token or has %d bytes: %.300s", len(s), s)
			}
		})
	}
}

func TestRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("another server was asked for %s", r.URL)
	}))
	defer other.Close()
	mux := api()
	mux.Handle("GET /there/v1/lookup", http.RedirectHandler("/v1/lookup", http.StatusFound))
	mux.Handle("POST /there/v1/heartbeat/{uuid}", http.RedirectHandler("/v1/heartbeat/u", http.StatusPermanentRedirect))
	mux.Handle("POST /post/v1/heartbeat/{uuid}", http.RedirectHandler("/v1/heartbeat/u", http.StatusFound))
	mux.Handle("/else/", http.RedirectHandler(other.URL+"/v1/lookup?secret=1", http.StatusTemporaryRedirect))
	mux.Handle("/loop/", http.RedirectHandler("/loop/v1/lookup", http.StatusFound))
	mux.Handle("/nowhere/", answer(302, ""))
	server := httptest.NewServer(mux)
	defer server.Close()
	tests := []struct {
		name string
		path string
		beat bool
		want string // part of the error, or empty
	}{
		{"within the server", "/there", false, ""},
		{"within the server, heartbeat", "/there", true, ""},
		{"heartbeat would become a GET", "/post", true, "302 Found, a redirect to " + server.URL + "/v1/heartbeat/u that is not followed"},
		{"to another server", "/else", false, "307 Temporary Redirect, a redirect to " + other.URL + "/v1/lookup that is not followed"},
		{"to another server, heartbeat", "/else", true, "a redirect to " + other.URL},
		{"in circles", "/loop", false, "302 Found, a redirect to"},
		{"to nowhere", "/nowhere", false, "302"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, Options{URLs: []string{server.URL + tt.path}, APIVersion: "1.82", LookupTimeout: 1})
			var err error
			if tt.beat {
				err = c.Heartbeat(t.Context(), "u", Beat{Token: "t"})
			} else {
				_, _, err = c.Lookup(t.Context(), nil, "u")
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// What commonly goes wrong on the way must lead to the right advice.
func TestHint(t *testing.T) {
	secure := httptest.NewTLSServer(api())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	defer secure.Close()
	plain := httptest.NewServer(api())
	defer plain.Close()
	hanging := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hanging.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	trusted := secure.Client().Transport.(*http.Transport).TLSClientConfig
	tests := []struct {
		name string
		url  string
		tls  func(c *tls.Config)
		want string
	}{
		{"all is well", secure.URL, func(*tls.Config) {}, ""},
		{"unknown authority", secure.URL, func(c *tls.Config) { c.RootCAs = nil }, "check the CA file"},
		{"clock behind", secure.URL, func(c *tls.Config) { c.Time = func() time.Time { return time.Unix(-1e9, 0) } }, "check the clock: the server's certificate is valid from 1970-01-01T00:00:00Z to 2084"},
		{"clock ahead", secure.URL, func(c *tls.Config) { c.Time = func() time.Time { return time.Unix(1e10, 0) } }, "check the clock"},
		{"other name", strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), func(*tls.Config) {}, "check the API URL: its host"},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), func(*tls.Config) {}, "check the API URL: what listens there does not speak TLS"},
		{"nobody there", gone.URL, func(*tls.Config) {}, "check the port"},
		{"no answer", hanging.URL, func(*tls.Config) {}, "check the gateway, the VLAN and firewalls"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := trusted.Clone()
			tt.tls(config)
			timeout := 10 * time.Second
			if tt.url == hanging.URL {
				timeout = 100 * time.Millisecond
			}
			c := newClient(t, Options{URLs: []string{tt.url}, TLS: config, Timeout: timeout})
			err := c.Heartbeat(t.Context(), "u", Beat{})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(Hint(err), tt.want)) {
				t.Errorf("Hint(%v) = %q, want %q", err, Hint(err), tt.want)
			}
		})
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("something"), ""},
		{&net.DNSError{Err: "no such host", Name: "ironic"}, "check the name servers"},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, "check the address, the gateway and the cable"},
		{&StatusError{Method: "GET", URL: "http://a/v1/lookup", Code: 404}, "check that a port of the node has one of these MAC addresses"},
		{&StatusError{Method: "POST", URL: "http://a/v1/heartbeat/u", Code: 400}, "check that the node was not started again"},
		{&StatusError{Method: "POST", URL: "http://a/v1/heartbeat/u", Code: 404}, ""},
		{&StatusError{Method: "POST", URL: "http://a/v1/heartbeat/u", Code: 400, Text: "Client sent an HTTP request to an HTTPS server."}, "check the API URL: what listens there speaks TLS"},
		{&StatusError{Method: "GET", URL: "http://a/v1/lookup", Code: 400, Text: "<html> The plain HTTP request was sent to HTTPS port"}, "check the API URL: what listens there speaks TLS"},
		{&StatusError{Method: "GET", URL: "http://a/v1/lookup", Code: 400, Text: "You're speaking plain HTTP to an SSL-enabled server port."}, "check the API URL: what listens there speaks TLS"},
		{&StatusError{Method: "POST", URL: "https://a/v1/heartbeat/u", Code: 400, Text: "no HTTP request for HTTPS"}, "check that the node was not started again"},
		{&StatusError{Code: 403}, "check that the API offers its ramdisk endpoints"},
		{&StatusError{Code: 302, Location: "http://b"}, "check the API URL"},
	} {
		if got := Hint(fmt.Errorf("wrapped: %w", tt.err)); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("Hint(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

// A client with other limits of TLS goes on where the first one was, and keeps to the limits.
func TestWithTLS(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	asked := 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			asked++
		}
		api().ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	defer server.Close()
	config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	c := newClient(t, Options{URLs: []string{gone.URL, server.URL}, TLS: config, Timeout: 5 * time.Second})
	if _, _, err := c.Lookup(t.Context(), nil, ""); err != nil {
		t.Fatal(err)
	}
	c = c.WithTLS(config)
	if err := c.Heartbeat(t.Context(), "u", Beat{}); err != nil || asked != 1 || c.URLs()[0] != server.URL {
		t.Errorf("Heartbeat = %v; the version was asked for %d times, first URL %s", err, asked, c.URLs()[0])
	}
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	if err := c.WithTLS(config).Heartbeat(t.Context(), "u", Beat{}); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("Heartbeat = %v, want an error about the protocol's version", err)
	}
}

// Whatever comes back on a heartbeat, the error says what it was.
func TestHeartbeatAnswers(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"202 with a body that is cut", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(202)
			io.WriteString(w, "{")
		}, "read answer: unexpected EOF"},
		{"200 with HTML", answer(200, "<html>Sign in to the hotel's network</html>"), "200 OK: <html>Sign in"},
		{"202 and far too much", answer(202, strings.Repeat("x", maxAnswer+1)), "answer is longer than 8388608 bytes"},
		{"error that is cut", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(500)
			io.WriteString(w, "{")
		}, "read answer: unexpected EOF"},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // what is left unread would reset the connection
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n")
				conn.Close()
			}
		}, "malformed HTTP"},
		{"nothing", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				conn.Close()
			}
		}, "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			c := newClient(t, Options{URLs: []string{server.URL}, APIVersion: "1.82", Timeout: 10 * time.Second})
			err := c.Heartbeat(t.Context(), "u-1", Beat{Token: "not-a-real-token"})
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 1000 {
				t.Errorf("Heartbeat = %.300v, want %q", err, tt.want)
			}
		})
	}
}
