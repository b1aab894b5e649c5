// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// script says how a fake agent does what it is told, by the bare name of the command or the name of the step. What is
// not in it succeeds at once.
type script map[string]outcome

type outcome struct {
	result   any
	fail     *commandError
	status   string // instead of SUCCEEDED or FAILED
	polls    int    // how often the list shows it running
	progress any    // shown meanwhile
	busy     int    // how often it is answered with 409 before
	restarts int    // how often the machine is rebooted while it runs: the agent knows of nothing
	kills    int    // how often the agent is killed while it runs: the next one says so
	lose     int    // how often the answer is lost after it was started
	hang     bool   // never answered
	http     int    // answered with this and body instead
	body     string
	location string
}

// entry is a command in the agent's list, as it goes over the wire.
type entry struct {
	ID       string        `json:"id"`
	Name     string        `json:"command_name"`
	Status   string        `json:"command_status"`
	Error    *commandError `json:"command_error"`
	Result   any           `json:"command_result"`
	Progress any           `json:"command_progress,omitempty"`

	key   string // in the script
	polls int
	final entryEnd
}

type entryEnd struct {
	status string
	err    *commandError
	result any
}

// sent is a request that the agent got.
type sent struct {
	path string // with the token
	body map[string]any
}

// fakeAgent is an agent that does nothing but keep to the contract, with the state that the contract speaks of.
type fakeAgent struct {
	t        *testing.T
	lab      *lab
	server   *httptest.Server
	ca       string // what the heartbeats say
	hostName string // what the deployed system calls itself; empty: what the config drive says
	noReport bool

	reports sync.WaitGroup // the deployed system's, under way

	mu       sync.Mutex
	script   script
	list     []*entry
	sent     []sent
	gone     bool // no heartbeats any more
	metaData struct {
		HostName string            `json:"hostname"`
		Meta     map[string]string `json:"meta"`
	}
}

func newFakeAgent(t *testing.T, l *lab, s script) *fakeAgent {
	cert := newFakeCertificate(t)
	a := &fakeAgent{t: t, lab: l, script: make(script), ca: cert.pem}
	for k, v := range s {
		a.script[k] = v
	}
	a.server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.pair}}
	a.server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail on purpose
	a.server.StartTLS()
	t.Cleanup(func() { a.reports.Wait(); a.vanish(); a.server.CloseClientConnections(); a.server.Close() })
	return a
}

// start looks up the node and begins to send heartbeats.
func (a *fakeAgent) start() {
	a.t.Helper()
	a.lab.until("lookup succeeds", func() bool {
		code, body := a.lab.request("GET", "/v1/lookup?addresses="+testMAC, "", map[string]string{versionHeader: "1.62"})
		return code == 200 && strings.Contains(body, testUUID)
	})
	go func() {
		for a.beat() {
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

// beat sends one heartbeat. It returns false when there shall be no more.
func (a *fakeAgent) beat() bool {
	a.mu.Lock()
	gone := a.gone
	a.mu.Unlock()
	if gone {
		return false
	}
	body, _ := json.Marshal(map[string]string{
		"callback_url": a.server.URL, "agent_token": testToken, "agent_version": "12.0.0", "agent_verify_ca": a.ca,
	})
	req, err := http.NewRequestWithContext(a.t.Context(), "POST", a.lab.url+"/v1/heartbeat/"+testUUID, bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set(versionHeader, "1.68")
	resp, err := a.lab.client.Do(req)
	if err != nil {
		return a.t.Context().Err() == nil // the conductor is away
	}
	resp.Body.Close()
	return true
}

// silence ends the heartbeats.
func (a *fakeAgent) silence() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
}

// vanish ends the heartbeats and the API.
func (a *fakeAgent) vanish() {
	a.silence()
	a.server.Listener.Close()
	a.server.CloseClientConnections()
}

// asked is the transcript of the commands, in order.
func (a *fakeAgent) asked() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for _, s := range a.sent {
		name := key(s.body)
		if strings.Contains(s.path, "wait=true") {
			name = "wait " + name
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// key is the command's bare name, or that of the deploy step.
func key(body map[string]any) string {
	name, _ := body["name"].(string)
	if name == "deploy.execute_deploy_step" {
		step := body["params"].(map[string]any)["step"].(map[string]any)
		return step["step"].(string)
	}
	return bare(name)
}

func (a *fakeAgent) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.URL.Query().Get("agent_token") != testToken {
		writeJSON(w, 401, map[string]string{"faultcode": "Client", "faultstring": "401 Unauthorized: Token invalid."})
		return
	}
	if r.URL.Path != "/v1/commands/" {
		writeJSON(w, 404, map[string]string{"faultcode": "Client", "faultstring": "404 Not Found: " + r.URL.Path})
		return
	}
	if r.Method == "GET" {
		a.tick()
		writeJSON(w, 200, map[string]any{"commands": append([]*entry{}, a.list...)})
		return
	}
	var body map[string]any
	if json.NewDecoder(r.Body).Decode(&body) != nil || body["params"] == nil {
		writeJSON(w, 400, map[string]string{"faultcode": "Client", "faultstring": "400 Bad Request"})
		return
	}
	name := key(body)
	o := a.script[name]
	switch {
	case o.busy > 0:
		o.busy--
		a.script[name] = o
		writeJSON(w, 409, map[string]string{"faultcode": "Client", "faultstring": "Agent is busy: executing command " + name})
		return
	case o.hang:
		a.mu.Unlock()
		<-r.Context().Done()
		a.mu.Lock()
		return
	case o.http != 0:
		if o.location != "" {
			w.Header().Set("Location", o.location)
		}
		w.WriteHeader(o.http)
		io.WriteString(w, o.body)
		return
	}
	a.sent = append(a.sent, sent{r.URL.String(), body})
	e := a.execute(name, body, o, r.URL.Query().Get("wait") == "true")
	if o.lose > 0 {
		o.lose--
		a.script[name] = o
		panic(http.ErrAbortHandler)
	}
	writeJSON(w, 200, e)
}

// execute starts a command.
func (a *fakeAgent) execute(name string, body map[string]any, o outcome, wait bool) *entry {
	full := body["name"].(string)
	e := &entry{ID: fmt.Sprint(len(a.list)), Name: bare(full), Status: running, Progress: o.progress, key: name, polls: o.polls}
	e.final = entryEnd{status: succeeded, result: o.result}
	params := body["params"].(map[string]any)
	switch {
	case o.fail != nil:
		e.final = entryEnd{status: "FAILED", err: o.fail}
	case name == "get_deploy_steps" && o.result == nil:
		e.final.result = stepsWithout("")
	case name == "get_partition_uuids":
		e.final.result = map[string]any{"root uuid": "0x00000000"}
	case full == "deploy.execute_deploy_step":
		e.final.result = map[string]any{"deploy_step": params["step"], "deploy_result": map[string]any{"result": name + ": done"}}
	}
	if o.status != "" {
		e.final.status = o.status
	}
	if name == "write_image" {
		a.readConfigDrive(params)
	}
	a.list = append(a.list, e)
	if wait || o.polls == 0 && name != "run_image" && name != "power_off" {
		e.end()
	}
	if (name == "run_image" || name == "power_off") && o.fail == nil {
		a.gone = true
		if a.metaData.Meta["report_url"] != "" && !a.noReport {
			a.reports.Go(a.report)
		}
	}
	return e
}

// tick lets time go on, from one look at the list to the next.
func (a *fakeAgent) tick() {
	for _, e := range a.list {
		if e.Status != running {
			continue
		}
		if o := a.script[e.key]; o.restarts > 0 {
			o.restarts--
			a.script[e.key] = o
			a.list = nil
			return
		}
		if o := a.script[e.key]; o.kills > 0 {
			o.kills--
			a.script[e.key] = o
			e.Status, e.Error = failed, &commandError{Type: "AgentRestartedError", Details: "killed"}
			a.list = []*entry{e}
			return
		}
		if e.polls--; e.polls < 0 {
			e.end()
		}
	}
}

func (e *entry) end() {
	e.Status, e.Error, e.Result, e.Progress = e.final.status, e.final.err, e.final.result, nil
}

// readConfigDrive looks for the metadata in the drive's bytes: ISO 9660 keeps files as they are.
func (a *fakeAgent) readConfigDrive(params map[string]any) {
	text, _ := params["step"].(map[string]any)["args"].(map[string]any)["configdrive"].(string)
	if text == "" {
		return
	}
	zipped, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		a.t.Errorf("config drive: %v", err)
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		a.t.Errorf("config drive: %v", err)
		return
	}
	iso, err := io.ReadAll(z)
	if err != nil {
		a.t.Errorf("config drive: %v", err)
		return
	}
	meta := regexp.MustCompile(`(?s)\{\s*"hostname".*?\n\}`).Find(iso)
	if err := json.Unmarshal(meta, &a.metaData); err != nil {
		a.t.Errorf("config drive: meta_data.json: %v in %q", err, meta)
	}
}

// report is the deployed system's.
func (a *fakeAgent) report() {
	a.mu.Lock()
	meta := a.metaData
	a.mu.Unlock()
	name := meta.HostName
	if a.hostName != "" {
		name = a.hostName
	}
	body := fmt.Sprintf(`{"hostname": %q, "kernel": "6.1.0-test", "ip": "192.0.2.10"}`, name)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // outlives the test's own
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", meta.Meta["report_url"], strings.NewReader(body))
	if err != nil {
		a.t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+meta.Meta["report_secret"])
	resp, err := a.lab.client.Do(req)
	if err != nil {
		a.t.Error(err)
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		a.t.Errorf("report answered %d", resp.StatusCode)
	}
}

// stepsWithout is what an agent says it can do, but for one step.
func stepsWithout(name string) map[string]any {
	var steps []any
	for _, s := range []string{"erase_devices_metadata", "write_image", "kexec"} {
		if s != name {
			steps = append(steps, map[string]any{"interface": "deploy", "step": s, "priority": 0, "reboot_requested": false})
		}
	}
	return map[string]any{
		"deploy_steps":             map[string]any{"GenericHardwareManager": steps},
		"hardware_manager_version": map[string]any{"generic_hardware_manager": "1.2"},
	}
}

type fakeCertificate struct {
	pem  string
	pair tls.Certificate
}

// newFakeCertificate makes a certificate as ironic-python-agent does: self-signed, nothing in it but the address.
func newFakeCertificate(t *testing.T) fakeCertificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "ramdisk"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return fakeCertificate{
		pem:  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		pair: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}
}
