// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
)

// faultOf reads an error in Ironic's form.
func faultOf(t *testing.T, body string) string {
	t.Helper()
	var outer struct {
		Message string `json:"error_message"`
	}
	var inner struct {
		Code   string `json:"faultcode"`
		String string `json:"faultstring"`
	}
	if err := json.Unmarshal([]byte(body), &outer); err != nil {
		t.Fatalf("error body %q: %v", body, err)
	}
	if err := json.Unmarshal([]byte(outer.Message), &inner); err != nil {
		t.Fatalf("error message %q: %v", outer.Message, err)
	}
	return inner.String
}

// The texts are those of Ironic 21.4, as recorded, where it has such a case.
func TestLookup(t *testing.T) {
	tests := []struct {
		name    string
		query   string
		version string
		code    int
		fault   string
	}{
		{"by address", "?addresses=" + testMAC, "1.62", 200, ""},
		{"one of several, in capitals", "?addresses=02%3A00%3A00%3A00%3A00%3A01,52%3A54%3A00%3A00%3A02%3A0A,nonsense", "1.62", 200, ""},
		{"by UUID", "?addresses=&node_uuid=" + testUUID, "1.62", 200, ""},
		{"UUID counts more than addresses", "?addresses=02:00:00:00:00:01&node_uuid=" + strings.ToUpper(testUUID), "1.62", 200, ""},
		{"latest version", "?addresses=" + testMAC, "latest", 200, ""},
		{"unknown address", "?addresses=02:fc:00:00:00:99", "1.62", 404, "Resource could not be found."},
		{"unknown UUID", "?addresses=" + testMAC + "&node_uuid=00000000-0000-0000-0000-000000000000", "1.62", 404, "Resource could not be found."},
		{"addresses of two nodes", "?addresses=" + testMAC + ",52:54:00:00:02:0b", "1.62", 404, "Resource could not be found."},
		{"nothing", "", "1.62", 400, "At least one of 'addresses' and 'node_uuid' parameters is required"},
		{"nonsense", "?addresses=nonsense&node_uuid=nonsense", "1.62", 400, "At least one of 'addresses' and 'node_uuid' parameters is required"},
		{"no version", "?addresses=" + testMAC, "", 404, "Resource could not be found."},
		{"version before lookup existed", "?addresses=" + testMAC, "1.21", 404, "Resource could not be found."},
		{"version from the future", "?addresses=" + testMAC, "1.999", 406, "Version 1.999 was requested but the requested API version is not supported. Supported versions are 1.1 to 1.82."},
		{"version that is none", "?addresses=" + testMAC, "2.0", 406, "Invalid value for X-OpenStack-Ironic-API-Version header"},
	}
	l := newLab(t, "", secondNode)
	l.until("images are ready", func() bool { return l.c.nodes[0].currentImage() != nil && l.c.nodes[1].currentImage() != nil })
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			header := map[string]string{versionHeader: test.version}
			if test.version == "" {
				header = nil
			}
			code, body := l.request("GET", "/v1/lookup"+test.query, "", header)
			if code != test.code {
				t.Fatalf("GET /v1/lookup%s = %d, want %d", test.query, code, test.code)
			}
			if code != 200 {
				if got := faultOf(t, body); got != test.fault {
					t.Errorf("fault = %q, want %q", got, test.fault)
				}
				return
			}
			var answer struct {
				Node   struct{ UUID string }
				Config struct {
					Token string `json:"agent_token"`
				}
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatal(err)
			}
			if answer.Node.UUID != testUUID || answer.Config.Token != "******" {
				t.Errorf("node %q with token %q, want %q with ******", answer.Node.UUID, answer.Config.Token, testUUID)
			}
		})
	}
}

const secondNode = `
  - name: n2
    uuid: 00000000-0000-4000-8000-000000000002
    macs: ["52:54:00:00:02:0b"]
    image: {file: disk.img}
`

// A token that was not pregenerated is given out once, until the machine is started anew.
func TestLookupToken(t *testing.T) {
	l := newLab(t, "", secondNode)
	l.until("image is ready", func() bool { return l.c.nodes[1].currentImage() != nil })
	token := func() string {
		code, body := l.request("GET", "/v1/lookup?addresses=52:54:00:00:02:0b", "", map[string]string{versionHeader: "1.62"})
		var answer struct {
			Config struct {
				Token string `json:"agent_token"`
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || code != 200 {
			t.Fatalf("lookup = %d %s (%v)", code, body, err)
		}
		return answer.Config.Token
	}
	first := token()
	if len(first) != 43 || strings.ContainsFunc(first, func(r rune) bool { return !isURLSafe(r) }) {
		t.Errorf("token = %q, want 43 URL-safe characters", first)
	}
	if got := token(); got != "******" {
		t.Errorf("token of the second lookup = %q, want ******", got)
	}
	l.c.PowerCycled("00000000-0000-4000-8000-000000000002")
	if got := token(); len(got) != 43 || got == first {
		t.Errorf("token after a new start = %q, want another one than %q", got, first)
	}
	if strings.Contains(l.timeline(), first) {
		t.Errorf("a token is in the events:\n%s", l.timeline())
	}
}

func TestHeartbeat(t *testing.T) {
	cert, other := newFakeCertificate(t).pem, newFakeCertificate(t).pem
	// The heartbeats come in this order to one node; the first that is accepted binds the agent.
	beat := func(change map[string]any) string {
		b := map[string]any{
			"callback_url": "https://127.0.0.1:1", "agent_token": testToken, "agent_version": "12.0.0", "agent_verify_ca": cert,
		}
		for k, v := range change {
			b[k] = v
		}
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	tests := []struct {
		name  string
		uuid  string
		body  string
		code  int
		fault string
	}{
		{"unknown node", "00000000-0000-0000-0000-000000000000", beat(nil), 404, "Node 00000000-0000-0000-0000-000000000000 could not be found."},
		{"not a UUID", "x%1b%5b2J", beat(nil), 404, "Node x [2j could not be found."},
		{"not JSON", testUUID, "agent_token=" + testToken, 400, "heartbeat is not a JSON object of the expected form"},
		{"two values", testUUID, beat(nil) + "{}", 400, "heartbeat is not a JSON object of the expected form"},
		{"huge", testUUID, `{"agent_version": "` + strings.Repeat("x", maxHeartbeat) + `"}`, 400, "heartbeat is not a JSON object of the expected form"},
		{"no version", testUUID, beat(map[string]any{"agent_version": ""}), 400, "Agent did not transmit a version, and a version is required. Please update the agent being used."},
		{"no token", testUUID, beat(map[string]any{"agent_token": nil}), 400, "Agent token is required for heartbeat processing."},
		{"wrong token", testUUID, beat(map[string]any{"agent_token": "bogus"}), 400, "Invalid or missing agent token received."},
		{"token in asterisks", testUUID, beat(map[string]any{"agent_token": "******"}), 400, "Invalid or missing agent token received."},
		{"empty token", testUUID, beat(map[string]any{"agent_token": ""}), 400, "Invalid or missing agent token received."},
		{"empty token for a node without one", "00000000-0000-4000-8000-000000000002", beat(map[string]any{"agent_token": ""}), 400, "Invalid or missing agent token received."},
		{"no TLS", testUUID, beat(map[string]any{"callback_url": "http://127.0.0.1:1"}), 400, "TLS is required by configuration"},
		{"not a URL", testUUID, beat(map[string]any{"callback_url": "127.0.0.1"}), 400, "callback_url is not a URL"},
		{"URL with a path", testUUID, beat(map[string]any{"callback_url": "https://127.0.0.1:1/x"}), 400, "callback_url has more than a host and a port"},
		{"no certificate", testUUID, beat(map[string]any{"agent_verify_ca": nil}), 400, "agent_verify_ca is required and holds no certificate"},
		{"good", testUUID, beat(nil), 202, ""},
		{"again, with a space after the certificate", testUUID, beat(map[string]any{"agent_verify_ca": cert + "\n "}), 202, ""},
		{"unknown keys are ignored", testUUID, beat(map[string]any{"agent_status": "start", "x": 1}), 202, ""},
		{"another callback URL", testUUID, beat(map[string]any{"callback_url": "https://127.0.0.1:2"}), 400, `Detected change in ramdisk provided "callback_url"`},
		{"another certificate", testUUID, beat(map[string]any{"agent_verify_ca": other}), 400, `Detected change in ramdisk provided "agent_verify_ca"`},
		{"the first one still counts", testUUID, beat(nil), 202, ""},
	}
	l := newLab(t, "callback_timeout: 30s", secondNode)
	l.until("image is ready", func() bool { return l.c.nodes[0].currentImage() != nil })
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, body := l.request("POST", "/v1/heartbeat/"+test.uuid, test.body, map[string]string{versionHeader: "1.68"})
			if code != test.code {
				t.Fatalf("heartbeat = %d %s, want %d", code, body, test.code)
			}
			if code == 202 {
				if body != "" {
					t.Errorf("body = %q, want none", body)
				}
			} else if got := faultOf(t, body); got != test.fault {
				t.Errorf("fault = %q, want %q", got, test.fault)
			}
		})
	}
	l.c.PowerCycled(testUUID)
	if code, body := l.request("POST", "/v1/heartbeat/"+testUUID, beat(map[string]any{"agent_verify_ca": other}), map[string]string{versionHeader: "1.68"}); code != 202 {
		t.Errorf("heartbeat with another certificate after a new start = %d %s, want 202", code, body)
	}
}

// A node is locked while its image is being prepared.
func TestLocked(t *testing.T) {
	l := newLab(t, "", "")
	l.cancel()
	l.result()
	n := l.c.nodes[0]
	n.mu.Lock()
	n.image = nil
	n.mu.Unlock()
	if err := l.c.Resume(); err != nil {
		t.Fatal(err)
	}
	defer l.c.Pause()
	l.url = "https://" + l.c.Addrs()[0]
	header := map[string]string{versionHeader: "1.68"}
	if code, _ := l.request("GET", "/v1/lookup?addresses="+testMAC, "", header); code != 409 {
		t.Errorf("lookup = %d, want 409", code)
	}
	body := fmt.Sprintf(`{"callback_url": "https://127.0.0.1:1", "agent_token": %q, "agent_version": "1", "agent_verify_ca": %q}`, testToken, newFakeCertificate(t).pem)
	if code, _ := l.request("POST", "/v1/heartbeat/"+testUUID, body, header); code != 409 {
		t.Errorf("heartbeat = %d, want 409", code)
	}
}

func TestReport(t *testing.T) {
	l := newLab(t, "", "    config_drive: {report: true, hostname: demo-1}")
	secret := string(l.c.nodes[0].reportSecret)
	post := func(uuid, authorization, body string, want int) {
		t.Helper()
		if code, answer := l.request("POST", "/lab/booted/"+uuid, body, map[string]string{"Authorization": authorization}); code != want {
			t.Errorf("report = %d %s, want %d", code, answer, want)
		}
	}
	const good = `{"hostname": "demo-1", "kernel": "6.1", "ip": "192.0.2.10"}`
	post(testUUID, "Bearer "+secret, good, 409) // not handed off yet
	a := newFakeAgent(t, l, nil)
	a.noReport = true
	a.start()
	l.await("n1 handoff ")
	post(testUUID, "", good, 401)
	post(testUUID, "Bearer ", good, 401)
	post(testUUID, "Bearer "+secret+"x", good, 401)
	post(testUUID, secret, good, 401)
	post("00000000-0000-0000-0000-000000000000", "Bearer "+secret, good, 401)
	post(testUUID, "Bearer "+secret, "[]", 400)
	post(testUUID, "Bearer "+secret, `{"hostname": "`+strings.Repeat("x", maxHeartbeat)+`"}`, 400)
	if s := l.c.Nodes()[0].State; s != StateBooting {
		t.Fatalf("state = %q, want %q", s, StateBooting)
	}
	if code, _ := l.request("GET", "/v1/lookup?addresses="+testMAC, "", map[string]string{versionHeader: "1.62"}); code != 404 {
		t.Errorf("lookup after the hand-off = %d, want 404", code)
	}
	l.await("the machine did not start from its disk")
	post(testUUID, "Bearer "+secret, good, 204)
	if err := l.result(); err != nil {
		t.Errorf("Run() = %v", err)
	}
	if strings.Contains(l.timeline(), secret) {
		t.Errorf("the secret is in the events:\n%s", l.timeline())
	}
}

// Everything that is recorded of Ironic's answers is in ours, by name and kind.
func TestAnswersAsRecorded(t *testing.T) {
	l := newLab(t, "", "    config_drive: {hostname: n1}")
	l.until("image is ready", func() bool { return l.c.nodes[0].currentImage() != nil })
	_, root := l.request("GET", "/", "", nil)
	_, lookup := l.request("GET", "/v1/lookup?addresses="+testMAC, "", map[string]string{versionHeader: "1.62"})
	for name, got := range map[string]string{"root.json": root, "lookup.json": lookup} {
		want := readWire[any](t, name)
		var have any
		if err := json.Unmarshal([]byte(got), &have); err != nil {
			t.Fatal(err)
		}
		// What belongs to another life: fields of the conductor's database that no agent reads.
		ignore := []string{".node.driver_internal_info"}
		if missing := missingKeys("", want, have, ignore); len(missing) > 0 {
			t.Errorf("%s: the answer lacks %s", name, strings.Join(missing, ", "))
		}
	}
}

type wireRequest struct {
	Path    string         `json:"path"`
	Request map[string]any `json:"request"`
}

// The commands of a deployment have the same names, in the same order, and all the parameters that Ironic sends.
func TestCommandsAsRecorded(t *testing.T) {
	l := newLab(t, "", "    config_drive: {hostname: n1}\n    handoff: poweroff")
	a := newFakeAgent(t, l, nil)
	a.start()
	if err := l.result(); err != nil {
		t.Fatal(err)
	}
	want := readWire[[]wireRequest](t, "deploy.json")
	if len(a.sent) != len(want) {
		t.Fatalf("%d commands sent, want %d: %s", len(a.sent), len(want), a.asked())
	}
	for i, w := range want {
		got := a.sent[i]
		name := fmt.Sprint(w.Request["name"])
		if got.body["name"] != name {
			t.Errorf("command %d is %v, want %s", i, got.body["name"], name)
			continue
		}
		if query := strings.Replace(w.Path, "wait=false&agent_token=FAKE-TOKEN", "agent_token="+testToken+"&wait=false", 1); got.path != query &&
			got.path != strings.Replace(w.Path, "wait=true&agent_token=FAKE-TOKEN", "agent_token="+testToken+"&wait=true", 1) {
			t.Errorf("%s was sent to %s, want %s", name, got.path, w.Path)
		}
		// Left by the cleaning that went before, and when the power was switched, which happens elsewhere here. The
		// steps are those of the other agent.
		ignore := []string{
			".params.node.driver_internal_info.agent_cached_clean_steps_refreshed", ".params.node.driver_internal_info.agent_cached_deploy_steps",
			".params.node.driver_internal_info.last_power_state_change", ".params.node.driver_internal_info.hardware_manager_version",
			".params.node.instance_info.configdrive",
		}
		if missing := missingKeys("", w.Request, got.body, ignore); len(missing) > 0 {
			t.Errorf("%s lacks %s", name, strings.Join(missing, ", "))
		}
		if name == "deploy.execute_deploy_step" {
			args := func(r map[string]any) any { return r["params"].(map[string]any)["step"] }
			if extra := missingKeys("", args(got.body), args(w.Request), nil); len(extra) > 0 {
				t.Errorf("%s has %s, which Ironic does not send", name, strings.Join(extra, ", "))
			}
		}
	}
}

// missingKeys returns the paths that want has and have lacks, or has with another kind of value. null is of any kind.
func missingKeys(at string, want, have any, ignore []string) []string {
	if slices.Contains(ignore, at) || want == nil || have == nil {
		return nil
	}
	if reflect.TypeOf(want) != reflect.TypeOf(have) {
		return []string{fmt.Sprintf("%s (a %T, not a %T)", at, want, have)}
	}
	var missing []string
	switch w := want.(type) {
	case map[string]any:
		for k, v := range w {
			if h, ok := have.(map[string]any)[k]; ok {
				missing = append(missing, missingKeys(at+"."+k, v, h, ignore)...)
			} else if !slices.Contains(ignore, at+"."+k) {
				missing = append(missing, at+"."+k)
			}
		}
	case []any:
		if h := have.([]any); len(w) > 0 && len(h) > 0 {
			missing = missingKeys(at+"[0]", w[0], h[0], ignore)
		}
	}
	sort.Strings(missing)
	return missing
}

func readWire[T any](t *testing.T, name string) T {
	t.Helper()
	var v T
	b, err := os.ReadFile(filepath.Join("testdata", "wire", name))
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFiles(t *testing.T) {
	l := newLab(t, "exit: never", "")
	l.write("files/sub/a b.img", "content", 0o644)
	l.write("files/.hidden", "x", 0o644)
	l.write("files/.git/config", "x", 0o644)
	if err := os.Symlink("/etc/hostname", filepath.Join(l.dir, "files", "outside")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("disk.img", filepath.Join(l.dir, "files", "inside")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, bytes string
		code              int
		want              string // the beginning of the body
	}{
		{"whole", "disk.img", "", 200, "ironhandironhand"},
		{"a part", "disk.img", "bytes=4-10", 206, "handiro"},
		{"the end", "disk.img", "bytes=-4", 206, "hand"},
		{"below a directory", "sub/a%20b.img", "", 200, "content"},
		{"link inside", "inside", "bytes=0-3", 206, "iron"},
		{"beyond the end", "disk.img", "bytes=9999999-", 416, ""},
		{"link to the outside", "outside", "", 404, ""},
		{"no such file", "other", "", 404, ""},
		{"directory", "sub", "", 404, ""},
		{"directory with slash", "sub/", "", 404, ""},
		{"the directory itself", "", "", 404, ""},
		{"hidden file", ".hidden", "", 404, ""},
		{"in a hidden directory", ".git/config", "", 404, ""},
		{"above", "..%2fnode.token", "", 404, ""},
		{"above, from below", "sub/..%2f..%2fnode.token", "", 404, ""},
		{"absolute", "%2fetc%2fhostname", "", 404, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, body := l.request("GET", "/files/"+test.path, "", map[string]string{"Range": test.bytes})
			if code != test.code || code < 300 && !strings.HasPrefix(body, test.want) {
				t.Errorf("GET /files/%s = %d %.40q, want %d %q", test.path, code, body, test.code, test.want)
			}
			if code == 206 && body != test.want {
				t.Errorf("part = %q, want %q", body, test.want)
			}
		})
	}
	t.Run("entity tag changes with the file", func(t *testing.T) {
		tag := func() string {
			resp, err := l.client.Head(l.url + "/files/disk.img")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.Header.Get("ETag")
		}
		before := tag()
		if !strings.HasPrefix(before, `"`) {
			t.Errorf("ETag = %s, want a strong one", before)
		}
		if again := tag(); again != before {
			t.Errorf("ETag of the same file = %s, was %s", again, before)
		}
		l.write("files/disk.img", strings.Repeat("IRONHAND", 2<<20/8), 0o644)
		if err := os.Chtimes(filepath.Join(l.dir, "files", "disk.img"), time.Time{}, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if after := tag(); after == before {
			t.Errorf("ETag of another content is %s too", after)
		}
		if code, body := l.request("GET", "/files/disk.img", "", map[string]string{"Range": "bytes=4-", "If-Range": before}); code != 200 || len(body) != 2<<20 {
			t.Errorf("If-Range with the old tag = %d, %d bytes, want 200 and all", code, len(body))
		}
	})
}

func TestPause(t *testing.T) {
	t.Parallel()
	l := newLab(t, "callback_timeout: 3s", "")
	a := newFakeAgent(t, l, script{"write_image": {polls: 3}})
	a.start()
	l.await("write_image: started")
	l.c.Pause()
	addr := l.c.Addrs()[0]
	if conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}); err == nil {
		conn.Close()
		t.Errorf("%s takes connections during the pause", addr)
	}
	time.Sleep(3500 * time.Millisecond) // longer than callback_timeout
	if s := l.c.Nodes()[0].State; s.over() {
		t.Fatalf("state = %q in the pause", s)
	}
	if err := l.c.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := l.c.Addrs()[0]; got != addr {
		t.Errorf("resumed on %s, was on %s", got, addr)
	}
	if err := l.result(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

// Both ends of a test may be made to fail by the handler that is put around the conductor's.
func TestWrap(t *testing.T) {
	l := newLab(t, "exit: never", "")
	l.cancel()
	l.result()
	c, err := New(l.c.config, Options{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/broken" {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			h.ServeHTTP(w, r)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	defer c.Pause()
	l.url = "https://" + c.Addrs()[0]
	if code, _ := l.request("GET", "/broken", "", nil); code != http.StatusTeapot {
		t.Errorf("GET /broken = %d, want %d", code, http.StatusTeapot)
	}
	if code, _ := l.request("GET", "/", "", nil); code != 200 {
		t.Errorf("GET / = %d, want 200", code)
	}
}

func FuzzHeartbeat(f *testing.F) {
	f.Add(`{"callback_url": "https://127.0.0.1:9999", "agent_token": "x", "agent_version": "1", "agent_verify_ca": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"}`)
	f.Add(`{"callback_url": "https://[::1]:9999", "agent_token": null}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, body string) {
		beat, err := parseHeartbeat(strings.NewReader(body))
		if err != nil {
			return
		}
		if a, err := newAgent(beat, "token", time.Second); err == nil && !strings.HasPrefix(strings.ToLower(a.url), "https://") {
			t.Errorf("agent at %q", a.url)
		}
	})
}
