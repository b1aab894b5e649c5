// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/steps"
)

const testToken = "not-a-real-token-00000000000000000000000000"

// newAPI is an API with a few commands and the test's token.
func newAPI(t testing.TB, list ...Command) *API {
	t.Helper()
	a := NewAPI(newCommands(t, nil, list...), "0.1", time.UnixMilli(1718000000123), quiet)
	a.SetToken(testToken)
	return a
}

// ask sends one request, without a network.
func ask(a *API, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://192.0.2.10:9999/", strings.NewReader(body))
	u, err := url.ParseRequestURI(target) // as the server does
	if err != nil {
		panic(err)
	}
	r.URL = u
	a.Handler().ServeHTTP(w, r)
	return w
}

func TestRoutes(t *testing.T) {
	const (
		links  = `"id":"v1","links":[{"href":"http://192.0.2.10:9999/v1","rel":"self"},{"href":"https://docs.openstack.org/ironic-python-agent/","rel":"describedby","type":"text/html"}]`
		status = `{"started_at":1718000000.123,"version":"0.1"}`
		none   = `{"commands":[]}`
		notFnd = `{"faultcode":"Client","faultstring":"404 Not Found: The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again."}`
		not405 = `{"faultcode":"Client","faultstring":"405 Method Not Allowed: The method is not allowed for the requested URL."}`
		not401 = `{"faultcode":"Client","faultstring":"401 Unauthorized: Token invalid."}`
		token  = "?agent_token=" + testToken
	)
	tests := []struct {
		method, target string
		status         int
		body           string
		header         string // name and value, if there must be one
	}{
		{"GET", "/", 200, `{"default_version":{` + links + `},"description":"Ironic Python Agent is a provisioning agent for OpenStack Ironic","name":"OpenStack Ironic Python Agent API","versions":[{` + links + `}]}`, ""},
		{"GET", "/v1/", 200, `{"commands":[{"href":"http://192.0.2.10:9999/v1/commands","rel":"self"},{"href":"http://192.0.2.10:9999/commands","rel":"bookmark"}],` + links +
			`,"media_types":[{"base":"application/json","type":"application/vnd.openstack.ironic-python-agent.v1+json"}]` +
			`,"status":[{"href":"http://192.0.2.10:9999/v1/status","rel":"self"},{"href":"http://192.0.2.10:9999/status","rel":"bookmark"}]}`, ""},
		{"GET", "/v1/status", 200, status, ""},
		{"GET", "/status", 200, status, ""},
		{"HEAD", "/status", 200, status, ""}, // the server leaves the body out
		{"GET", "/v1/commands/" + token, 200, none, ""},
		{"GET", "/commands/" + token, 200, none, ""},
		{"GET", "/v1/commands/nonsense" + token, 404, `{"faultcode":"Client","faultstring":"Not found: Command Result with id nonsense not found."}`, ""},
		{"GET", "/commands/nonsense" + token + "&wait=true", 404, `{"faultcode":"Client","faultstring":"Not found: Command Result with id nonsense not found."}`, ""},

		{"GET", "/v1", 308, `{}`, "Location /v1/"},
		{"GET", "/v1/commands", 308, `{}`, "Location /v1/commands/"},
		{"GET", "/commands?wait=true", 308, `{}`, "Location /commands/?wait=true"},
		{"POST", "/v1/commands?wait=true", 308, `{}`, "Location /v1/commands/?wait=true"},

		{"GET", "/v2/", 404, notFnd, ""},
		{"GET", "/v1/status/", 404, notFnd, ""},
		{"GET", "/v1/v1/status", 404, notFnd, ""},
		{"GET", "/v1status", 404, notFnd, ""},
		{"GET", "//v1/status", 404, notFnd, ""},
		{"GET", "/v1/commands/a/b" + token, 404, notFnd, ""},
		{"GET", "/v1/commands//" + token, 404, notFnd, ""},
		{"GET", "/v1/../etc/passwd", 404, notFnd, ""},
		{"POST", "/" + token, 405, not405, "Allow GET, HEAD"},
		{"POST", "/v1/status" + token, 405, not405, "Allow GET, HEAD"},
		{"POST", "/v1/commands/nonsense" + token, 405, not405, "Allow GET, HEAD"},
		{"DELETE", "/v1/commands/" + token, 405, not405, "Allow GET, HEAD, POST"},
		{"OPTIONS", "/v1/commands/", 405, not405, "Allow GET, HEAD, POST"},

		{"GET", "/v1/commands/?agent_token=", 401, not401, ""},
		{"GET", "/v1/commands/?agent_token=wrong", 401, not401, ""},
		{"GET", "/v1/commands/" + token + "0", 401, not401, ""},
		{"GET", "/v1/commands/" + token[:len(token)-1], 401, not401, ""},
		{"GET", "/v1/commands/" + strings.ToUpper(token), 200, none, ""}, // another parameter, so no token: allowed until one was seen
		{"GET", "/v1/commands/" + token + "&agent_token=" + testToken, 401, not401, ""},
		{"GET", "/commands/nonsense?agent_token=wrong", 401, not401, ""},
		{"POST", "/v1/commands/", 401, not401, ""},
		{"POST", "/v1/commands/?agent_token=wrong", 401, not401, ""},
		{"POST", "/commands/?wait=true&agent_token=" + strings.Repeat("x", 10000), 401, not401, ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.target[:min(len(tt.target), 60)], func(t *testing.T) {
			w := ask(newAPI(t), tt.method, tt.target, `{"name": "standby.sync", "params": {}}`)
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("%d %s\nwant %d %s", w.Code, w.Body, tt.status, tt.body)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type %s", got)
			}
			if name, value, ok := strings.Cut(tt.header, " "); ok && w.Header().Get(name) != value {
				t.Errorf("%s: %s, want %s", name, w.Header().Get(name), value)
			}
		})
	}
}

// The token on GET is optional until a conductor has sent it once; on POST it never is.
func TestTokenRule(t *testing.T) {
	const with, wrong = "?agent_token=" + testToken, "?agent_token=wrong"
	tests := []struct {
		name     string
		requests string // method, query and status wanted, in order
	}{
		{"old conductor", "GET  200, GET  200, POST " + with + " 200, GET  200, POST  401"},
		{"new conductor", "GET " + with + " 200, GET  401, GET " + with + " 200"},
		{"a token on POST says nothing about GET", "POST " + with + " 200, GET  200"},
		{"a stranger with a wrong token changes nothing", "GET " + wrong + " 401, GET  200, POST " + wrong + " 401, GET  200"},
		{"a stranger without, after a new conductor", "POST " + with + " 200, GET " + with + " 200, GET  401, POST  401, GET " + wrong + " 401"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(t, Command{Name: "standby.sync", Run: returns(nil, nil)})
			for i, request := range strings.Split(tt.requests, ", ") {
				method, rest, _ := strings.Cut(request, " ")
				query, want, _ := strings.Cut(rest, " ")
				w := ask(a, method, "/v1/commands/"+query, `{"name": "standby.sync", "params": {}}`)
				if got := fmt.Sprint(w.Code); got != want {
					t.Errorf("request %d, %s: %s, want %s", i+1, request, got, want)
				}
			}
		})
	}
	t.Run("no token yet", func(t *testing.T) {
		a := newAPI(t, Command{Name: "standby.sync", Run: returns(nil, nil)})
		a.SetToken("")
		for _, target := range []string{"GET /v1/commands/", "GET /v1/commands/?agent_token=", "POST /v1/commands/?agent_token=", "POST /v1/commands/" + with} {
			method, path, _ := strings.Cut(target, " ")
			if w := ask(a, method, path, `{"name": "standby.sync", "params": {}}`); w.Code != 401 {
				t.Errorf("%s: %d, want 401", target, w.Code)
			}
		}
	})
}

func TestCommandBodies(t *testing.T) {
	const invalid = "400 Bad Request: Missing or invalid name or params"
	tests := []struct {
		name string
		body string
		want int
		text string // of the fault, or part of the result
	}{
		{"plain", `{"name": "standby.sync", "params": {}}`, 200, `"SUCCEEDED"`},
		{"other keys and spaces", ` { "x" : [1], "params" : { "a" : 1 } , "name" : "standby.sync" } `, 200, `"SUCCEEDED"`},
		{"escaped", `{"name": "standby\u002esync", "params": {}}`, 200, `"SUCCEEDED"`},
		{"nothing", ``, 400, "The body is not JSON"},
		{"no JSON", `name=standby.sync`, 400, "The body is not JSON"},
		{"two values", `{"name": "standby.sync", "params": {}} {}`, 400, "The body is not JSON"},
		{"cut off", `{"name": "standby.sync", "params": {`, 400, "The body is not JSON"},
		{"null", `null`, 400, invalid},
		{"a list", `[]`, 400, invalid},
		{"a string", `"standby.sync"`, 400, invalid},
		{"no name", `{"params": {}}`, 400, invalid},
		{"name is null", `{"name": null, "params": {}}`, 400, invalid},
		{"name is a number", `{"name": 1, "params": {}}`, 400, invalid},
		{"no params", `{"name": "standby.sync"}`, 400, invalid},
		{"params is null", `{"name": "standby.sync", "params": null}`, 400, invalid},
		{"params is a list", `{"name": "standby.sync", "params": []}`, 400, invalid},
		{"params is a string", `{"name": "standby.sync", "params": "{}"}`, 400, invalid},
		{"deeply nested", `{"name": "standby.sync", "params": {"a": ` + strings.Repeat("[", 1<<19) + `}}`, 400, "exceeded max depth"},
		{"no extension", `{"name": "sync", "params": {}}`, 400, "Invalid command: Command name must be of the form <extension>.<name>"},
		{"unknown command", `{"name": "standby.nonsense", "params": {}}`, 400, "Invalid command: Unknown command: nonsense"},
		{"unknown extension", `{"name": "iscsi.start", "params": {}}`, 404, "Not found: Extension with id iscsi not found."},
		{"long name", `{"name": "` + strings.Repeat("x.", 1<<18) + `", "params": {}}`, 404, "Not found: Extension with id x not found."},
		{"too long", `{"name": "standby.sync", "params": {"a": "` + strings.Repeat("x", maxBody) + `"}}`, 413, "413 Request Entity Too Large"},
		{"many members", `{` + strings.Repeat(`"a":1,`, maxMembers) + `"name": "standby.sync", "params": {}}`, 400, "The body cannot be read: it has more than"},
		{"name in capitals", `{"NAME": "standby.sync", "params": {}}`, 400, invalid},
		{"the last of two counts", `{"name": 1, "params": {}, "name": "standby.sync"}`, 200, `"SUCCEEDED"`},
		{"bad parameters", `{"name": "standby.check", "params": {}}`, 400, "Invalid command parameters: image_info is missing"},
	}
	a := newAPI(t,
		Command{Name: "standby.sync", Run: returns(nil, nil)},
		Command{Name: "standby.check", Run: returns(nil, invalidParams("image_info is missing"))},
	)
	server := httptest.NewServer(a.Handler())
	defer server.Close()
	t.Run("large and chunked", func(t *testing.T) {
		body := `{"name": "standby.sync", "params": {"a": "` + strings.Repeat("x", maxChunkedBody) + `"}}`
		for chunked, want := range map[bool]int{false: 200, true: 413} {
			var in io.Reader = strings.NewReader(body)
			if chunked {
				in = io.MultiReader(in)
			}
			res, err := http.Post(server.URL+"/v1/commands/?agent_token="+testToken, "", in)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("chunked %v: %d, want %d", chunked, res.StatusCode, want)
			}
		}
	})
	for _, tt := range tests {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", tt.name, chunked), func(t *testing.T) {
				var body io.Reader = strings.NewReader(tt.body)
				if chunked {
					body = io.MultiReader(body) // hides the length
				}
				res, err := http.Post(server.URL+"/v1/commands/?agent_token="+testToken, "text/plain", body)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				answer, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				if res.StatusCode != tt.want || !strings.Contains(string(answer), strings.NewReplacer("<", `\u003c`, ">", `\u003e`).Replace(tt.text)) || len(answer) > 1000 {
					t.Errorf("%d %.300s, want %d %s", res.StatusCode, answer, tt.want, tt.text)
				}
				if tt.want >= 400 {
					checkFault(t, answer)
				}
			})
		}
	}
}

// checkFault checks what the conductor relies on in each error body.
func checkFault(t *testing.T, body []byte) {
	t.Helper()
	var f struct{ Faultcode, Faultstring *string }
	if err := json.Unmarshal(body, &f); err != nil || f.Faultcode == nil || f.Faultstring == nil {
		t.Fatalf("error body %.200s: %v", body, err)
	}
	if strings.Contains(*f.Faultstring, "agent_token") || strings.Contains(strings.ToLower(*f.Faultstring), "agent is busy") {
		t.Errorf("the faultstring would be misunderstood: %s", *f.Faultstring)
	}
}

func TestWaitParameter(t *testing.T) {
	tests := []struct {
		query string
		waits bool
	}{
		{"wait=true", true}, {"wait=True", true}, {"wait=TRUE", true},
		{"", false}, {"wait=false", false}, {"wait=1", false}, {"wait=yes", false}, {"wait=", false}, {"wait", false}, {"Wait=true", false},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t, Command{Name: "standby.run_image", Async: true, Run: func(ctx context.Context, params json.RawMessage) (any, error) {
					time.Sleep(time.Minute)
					return nil, nil
				}})
				post := func(want int) (r Result, took time.Duration) {
					begin := time.Now()
					w := ask(a, "POST", "/v1/commands/?agent_token="+testToken+"&"+tt.query, `{"name": "standby.run_image", "params": {}}`)
					if w.Code != want {
						t.Fatalf("%d %s, want %d", w.Code, w.Body, want)
					}
					if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
						t.Fatal(err)
					}
					return r, time.Since(begin)
				}
				r, took := post(200)
				if tt.waits != (took == time.Minute) || tt.waits != (r.Status == Succeeded) {
					t.Errorf("POST answered %s after %v", r.Status, took)
				}
				if !tt.waits {
					post(409)
				}
				begin := time.Now()
				ask(a, "GET", "/v1/commands/"+r.ID+"?"+tt.query, "") // no token: does not wait
				if took := time.Since(begin); took != 0 {
					t.Errorf("GET without token took %v", took)
				}
				w := ask(a, "GET", "/v1/commands/"+r.ID+"?agent_token="+testToken+"&"+tt.query, "")
				if took := time.Since(begin); took != 0 || w.Code != 200 {
					t.Errorf("GET of an ended or not waited for command: %d after %v", w.Code, took)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

func TestBusyAnswer(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	a := newAPI(t, Command{Name: "image.install_bootloader", Async: true, Run: func(ctx context.Context, params json.RawMessage) (any, error) {
		<-end
		return nil, nil
	}})
	const body = `{"name": "image.install_bootloader", "params": {}}`
	ask(a, "POST", "/v1/commands/?agent_token="+testToken, body)
	w := ask(a, "POST", "/v1/commands/?wait=true&agent_token="+testToken, body)
	if want := `{"faultcode":"Client","faultstring":"Agent is busy: executing command install_bootloader"}`; w.Code != 409 || w.Body.String() != want {
		t.Errorf("%d %s, want 409 %s", w.Code, w.Body, want)
	}
	if w := ask(a, "GET", "/v1/commands/", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "RUNNING") {
		t.Errorf("list while busy: %d %s", w.Code, w.Body)
	}
}

// Whatever is asked, neither log nor answer shows the token or the parameters.
func TestRequestsAreLoggedWithoutSecrets(t *testing.T) {
	var log bytes.Buffer
	all := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c, err := NewCommands([]Command{
		{Name: "rescue.finalize_rescue", Run: returns(nil, nil)},
		{Name: "rescue.fails", Run: returns(nil, fmt.Errorf("no marker"))},
	}, all, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := NewAPI(c, "0.1", time.Now(), all)
	a.SetToken(testToken)
	var answers strings.Builder
	for _, target := range []string{"POST /v1/commands/", "GET /v1/commands/", "GET /v1/commands/x", "GET /nonsense", "PUT /v1/commands/", "POST /v1/commands/?agent_token=near-miss-" + testToken} {
		for _, name := range []string{"rescue.finalize_rescue", "rescue.fails", "rescue.nonsense"} {
			method, path, _ := strings.Cut(target, " ")
			if !strings.Contains(path, "?") {
				path += "?agent_token=" + testToken
			}
			w := ask(a, method, path, `{"name": "`+name+`", "params": {"rescue_password": "open-sesame"}}`)
			answers.Write(w.Body.Bytes())
		}
	}
	for _, secret := range []string{testToken, "open-sesame", "near-miss"} {
		if strings.Contains(log.String(), secret) || strings.Contains(answers.String(), secret) {
			t.Errorf("%s is shown in:\n%s\n%s", secret, log.String(), answers.String())
		}
	}
	if !strings.Contains(log.String(), "path=/v1/commands/ ") {
		t.Errorf("requests are not logged:\n%s", log.String())
	}
}

func FuzzCommandBody(f *testing.F) {
	f.Add([]byte(`{"name": "standby.sync", "params": {}}`))
	f.Add([]byte(`{"name": "a.b", "params": {"step": {"interface": "deploy"}}, "NAME": 1}`))
	f.Add([]byte(`{"name": null, "params": null}`))
	f.Add([]byte(`[[[[`))
	f.Add([]byte(`{"params":{},"name":"\ud800."}`))
	a := newAPI(f, Command{Name: "standby.sync", Run: returns(nil, nil)})
	f.Fuzz(func(t *testing.T, body []byte) {
		name, params, err := parseCommand(body)
		if err == nil && !json.Valid(params) {
			t.Errorf("parameters of %q are no JSON: %s", name, params)
		}
		w := ask(a, "POST", "/v1/commands/?agent_token="+testToken, string(body))
		if !json.Valid(w.Body.Bytes()) || w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Code >= 400 {
			var fault struct{ Faultstring string }
			if err := json.Unmarshal(w.Body.Bytes(), &fault); err != nil || len(fault.Faultstring) > 1000 {
				t.Errorf("a fault of %d bytes, %v", len(fault.Faultstring), err)
			}
		}
	})
}

// Who reads results without a token, as old conductors do, is shown no arguments of steps and no logs.
func TestResultsWithoutToken(t *testing.T) {
	a, _ := oddAgent(t, t.TempDir())
	run := func(context.Context, steps.Host, steps.Job) (any, error) {
		return map[string]int{"logical_disks": 1}, nil
	}
	var err error
	if a.set, err = steps.NewSet(t.Context(), a.host, []steps.Manager{listed{"M", steps.Generic, []steps.Step{
		{Name: "write_image", Args: []steps.Arg{{Name: "configdrive"}}, Priority: map[steps.Phase]int{steps.Deploy: 0}, Run: run},
	}}}); err != nil {
		t.Fatal(err)
	}
	api := newAPI(t, a.commands()...)
	const token = "agent_token=" + testToken
	for _, body := range []string{
		`{"name": "deploy.execute_deploy_step", "params": {"step": {"step": "write_image", "interface": "deploy", "args": {"configdrive": "c2VjcmV0"}, "more": [1]}}}`,
		`{"name": "log.collect_system_logs", "params": {}}`,
	} {
		w := ask(api, "POST", "/v1/commands/?wait=true&"+token, body)
		if w.Code != 200 || !strings.Contains(w.Body.String(), "SUCCEEDED") || !strings.Contains(w.Body.String(), "c2VjcmV0") && len(w.Body.String()) < 1000 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	list := api.commands.List()
	const open = `{"id":"ID","command_name":"execute_deploy_step","command_status":"SUCCEEDED","command_error":null,` +
		`"command_result":{"deploy_result":{"logical_disks":1},"deploy_step":{"interface":"deploy","more":[1],"step":"write_image"}}}`
	const logs = `{"id":"ID","command_name":"collect_system_logs","command_status":"SUCCEEDED","command_error":null,"command_result":{"system_logs":""}}`
	for target, want := range map[string]string{
		"/v1/commands/":              `{"commands":[` + open + "," + logs + "]}",
		"/v1/commands/" + list[0].ID: open,
		"/v1/commands/" + list[1].ID: logs,
	} {
		if got := onWire(t, json.RawMessage(ask(api, "GET", target, "").Body.Bytes())); got != want {
			t.Errorf("GET %s without token:\n%.1000s\nwant\n%s", target, got, want)
		}
	}
	for name, next := range map[string]json.RawMessage{"kept": mustMarshal(t, list[0]), "unreadable": []byte(`{"id": "i", "command_result": {"` + strings.Repeat("x", maxName) + `": "c2VjcmV0"}}`)} {
		api := newAPI(t)
		var kept Result
		if err := json.Unmarshal(next, &kept); err != nil {
			t.Fatal(err)
		}
		api.commands.Resume(kept)
		if w := ask(api, "GET", "/v1/commands/", ""); w.Code != 200 || strings.Contains(w.Body.String(), "c2VjcmV0") {
			t.Errorf("%s, by the next agent: %s", name, w.Body)
		}
	}
	for _, target := range []string{"/v1/commands/", "/v1/commands/" + list[0].ID} {
		if w := ask(api, "GET", target+"?"+token, ""); !strings.Contains(w.Body.String(), `"args":{"configdrive":"c2VjcmV0"}`) {
			t.Errorf("GET %s with the token: %.1000s", target, w.Body)
		}
	}
}
