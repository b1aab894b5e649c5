// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
	"github.com/ironhand/ironhand/stream/streamtest"
)

const (
	recordings      = "testdata/wire/*.jsonl"
	differencesFile = "testdata/wire/differences.txt"
)

// TestReplay has the agent live through what was recorded between Ironic and ironic-python-agent: it looks its node up and is sent the
// conductor's requests. What both agents said is compared by status, header, keys and types, and by those values on which a conductor
// decides. Where they differ is in differences.txt with the reason; with -update, what is new is added there, to be given a reason.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob(recordings)
	if err != nil || len(files) < 8 {
		t.Fatalf("recordings: %v, %v", files, err)
	}
	var mu sync.Mutex
	found := map[string][]string{} // by recording
	t.Run("recordings", func(t *testing.T) {
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := newReplay(t, file)
				r.run()
				mu.Lock()
				defer mu.Unlock()
				found[name] = slices.Sorted(maps.Keys(r.differences))
			})
		}
	})
	if t.Failed() {
		return
	}
	listed := readDifferences(t)
	used := map[*difference]bool{}
	var unlisted []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		for _, text := range found[name] {
			if d := listed.find(name, text); d != nil {
				used[d] = true
				continue
			}
			unlisted = append(unlisted, name+": "+text)
		}
	}
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		listed.write(t, used, unlisted)
		return
	}
	for _, text := range unlisted {
		t.Errorf("not listed in %s: %s", differencesFile, text)
	}
	for _, d := range listed {
		if !used[d] {
			t.Errorf("%s: does not occur any more: %s: %s", differencesFile, d.recordings, d.text)
		}
		if len(d.reason) < 2 || strings.HasPrefix(d.reason, "?") {
			t.Errorf("%s: no reason is given for %s: %s", differencesFile, d.recordings, d.text)
		}
	}
}

// A difference is an entry of differences.txt: a line below the reason, which is in lines that begin with #.
type difference struct {
	reason     string
	recordings string // a pattern as for path.Match
	text       string
}

type differences []*difference

func readDifferences(t *testing.T) differences {
	t.Helper()
	b, err := os.ReadFile(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	var list differences
	reason, below := "", false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "#"); ok {
			if below {
				reason, below = "", false
			}
			reason = strings.TrimSpace(reason + " " + strings.TrimSpace(text))
			continue
		}
		if line == "" {
			reason, below = "", false
			continue
		}
		below = true
		names, text, ok := strings.Cut(line, ": ")
		if _, err := path.Match(names, ""); !ok || err != nil {
			t.Fatalf("%s: not of the form RECORDINGS: DIFFERENCE: %s", differencesFile, line)
		}
		list = append(list, &difference{reason, names, text})
	}
	return list
}

func (list differences) find(recording, text string) *difference {
	for _, d := range list {
		if ok, _ := path.Match(d.recordings, recording); ok && d.text == text {
			return d
		}
	}
	return nil
}

// write leaves out what is not used and adds what is not listed.
func (list differences) write(t *testing.T, used map[*difference]bool, unlisted []string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("# Where our agent's words differ from those of ironic-python-agent in the recordings beside this file, with the reason above.\n" +
		"# RECORDINGS: WHAT WAS ASKED: WHERE IN THE ANSWER: HOW. `go test ./agent -run TestReplay -update` leaves out what occurs no more.\n")
	last := ""
	for _, d := range list {
		if !used[d] {
			continue
		}
		if d.reason != last {
			fmt.Fprintf(&b, "\n# %s\n", d.reason)
			last = d.reason
		}
		fmt.Fprintf(&b, "%s: %s\n", d.recordings, d.text)
	}
	if len(unlisted) > 0 {
		fmt.Fprintf(&b, "\n# ?\n%s\n", strings.Join(unlisted, "\n"))
	}
	if err := os.WriteFile(differencesFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// An exchange is one request and its answer.
type exchange struct {
	Direction string            `json:"direction"`
	Method    string            `json:"method"`
	Path      string            `json:"path"`
	Headers   map[string]string `json:"headers"` // of the request, those that matter
	Request   json.RawMessage   `json:"request"`
	Status    int               `json:"status"`
	Response  json.RawMessage   `json:"response"`
}

// readRecording returns the exchanges in a file, one in each line.
func readRecording(t testing.TB, file string) (list []exchange) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var e exchange
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// A replay is one recording, played to an agent.
type replay struct {
	t           *testing.T
	differences map[string]bool
	ironic      []exchange // what the recorded agent asked of Ironic
	conductor   []exchange // what the conductor asked of it
	inspects    bool       // the recorded agent sent inspection data, and that was all
	image       []byte
	server      *httptest.Server // Ironic, and the image server

	mu    sync.Mutex
	sent  []exchange    // by our agent
	beat  chan exchange // the first heartbeat, or the inspection data
	gate  chan struct{} // closed when the firmware may answer
	disks map[string]*streamtest.Disk
}

var headersThatMatter = []string{"Accept", "Content-Type", "X-OpenStack-Ironic-API-Version", "X-OpenStack-Request-ID"}

const recordedImage = "/images/whole.img"

func newReplay(t *testing.T, file string) *replay {
	r := &replay{t: t, differences: map[string]bool{}, image: bootImage(), beat: make(chan exchange, 1), gate: make(chan struct{}), disks: map[string]*streamtest.Disk{}}
	r.server = httptest.NewServer(http.HandlerFunc(r.answer))
	t.Cleanup(r.server.Close)
	// What the conductor tells of other machines becomes what there is here.
	here := strings.NewReplacer(
		"http://127.0.0.1:8088/images/", r.server.URL+"/images/",
		"e280785b2c913f47e975a22d468b0d072c30b854ac00b5ee1416a113b754f508", fmt.Sprintf("%x", sha256.Sum256(r.image)),
		`"properties": {`, `"properties": {"root_device": {"serial": "root-disk"}, `,
	)
	for _, e := range readRecording(t, file) {
		e.Request, e.Response = []byte(here.Replace(string(e.Request))), []byte(here.Replace(string(e.Response)))
		if e.Direction == "agent -> ironic" {
			r.ironic = append(r.ironic, e)
		} else {
			r.conductor = append(r.conductor, e)
		}
	}
	r.inspects = len(r.ironic) == 1 && r.ironic[0].Path == inspectionPath
	if !r.inspects && (len(r.ironic) < 3 || len(r.conductor) == 0) {
		t.Fatalf("%d and %d exchanges", len(r.ironic), len(r.conductor))
	}
	return r
}

// bootImage is a disk image with a boot sector and one partition.
func bootImage() []byte {
	b := make([]byte, 4<<20)
	copy(b[440:], "\x78\x56\x34\x12")
	copy(b[446:], "\x80\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x10\x00\x00") // Linux, from sector 2048, 4096 sectors
	copy(b[510:], "\x55\xaa")
	return b
}

// answer is Ironic: it says again what it said then.
func (r *replay) answer(w http.ResponseWriter, q *http.Request) {
	if q.URL.Path == recordedImage {
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(r.image))
		return
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		r.t.Error(err)
	}
	e := exchange{Method: q.Method, Path: q.URL.RequestURI(), Headers: map[string]string{}, Request: body}
	for _, name := range headersThatMatter {
		if v := q.Header.Get(name); v != "" {
			e.Headers[name] = v
		}
	}
	r.mu.Lock()
	r.sent = append(r.sent, e)
	r.mu.Unlock()
	if strings.HasPrefix(e.Path, "/v1/heartbeat/") || e.Path == inspectionPath {
		select {
		case r.beat <- e:
		default:
		}
	}
	for _, was := range r.ironic {
		if was.Method == e.Method && was.Path == e.Path {
			w.WriteHeader(was.Status)
			if string(was.Response) != "null" {
				w.Write(was.Response)
			}
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
}

// run plays the recording.
func (r *replay) run() {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	var console safeBuffer
	go func() { ended <- Run(ctx, r.options(cancel, &console)) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run() = %v", err)
		}
		if r.t.Failed() {
			r.t.Logf("console:\n%s", console.String())
		}
		for _, secret := range []string{testToken, "agent_token=", "eBvjBayxXBK24zE2iQFE5dMKumqcE53Z4CjoyN0Sge5"} {
			if strings.Contains(console.String(), secret) {
				r.t.Errorf("a secret was printed: %s", secret)
			}
		}
	}()
	var first exchange
	select {
	case first = <-r.beat:
	case err := <-ended:
		ended <- err
		r.t.Fatalf("the agent ended before its first heartbeat: %v", err)
	}
	if r.inspects {
		for !strings.Contains(console.String(), "inspected; there is no ipa-api-url") && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		r.compareSent()
		return
	}
	var beat struct {
		URL string `json:"callback_url"`
		CA  string `json:"agent_verify_ca"`
	}
	if err := json.Unmarshal(first.Request, &beat); err != nil {
		r.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(beat.CA)) {
		r.t.Fatal("no certificate in the heartbeat")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	r.conduct(beat.URL, &http.Client{Transport: transport, Timeout: 30 * time.Second})
	r.compareSent()
}

// options are an agent on a machine of fakes. Its kernel command line is as Ironic writes it.
func (r *replay) options(powerOff func(), console io.Writer) Options {
	cmdline := fmt.Sprintf("nofb vga=normal ipa-debug=1 ipa-api-url=%s ipa-listen-host=127.0.0.1 ipa-listen-port=%d ipa-disk-wait-attempts=1", r.server.URL, streamtest.FreePort(r.t))
	if r.inspects {
		cmdline = fmt.Sprintf("nofb vga=normal ipa-debug=1 ipa-inspection-callback-url=%s%s ipa-global-request-id=%s", r.server.URL, inspectionPath, r.ironic[0].Headers["X-OpenStack-Request-ID"])
	}
	machine := inspecttest.Machine(r.t, "../inspect/testdata/virtio.txt")
	for name, file := range machine {
		if strings.HasPrefix(name, "sys/") && strings.HasSuffix(name, "/address") && bytes.HasPrefix(file.Data, []byte("52:54:00:4e:3d:30")) {
			file.Data = []byte("02:fc:00:00:00:01\n")
		}
	}
	size := int64(80 << 20) // small, for it is written
	if r.inspects {
		size = 8 << 30 // smaller ones are never the root disk
	}
	inspecttest.Resize(machine, size, 512)
	return Options{
		Parts: Parts{Managers: []steps.Manager{generic.Manager{}}}, Version: "1.0", Out: console, Log: console,
		System: System{
			Root:     fstest.MapFS{},
			Cmdline:  cmdline,
			StateDir: r.t.TempDir(),
			Machine:  inspect.Machine{FS: machine},
			Network:  func() (netconfig.Kernel, error) { return still{}, nil },
			OpenDisk: func(path string) (steps.Disk, error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.disks[path] == nil {
					r.disks[path] = streamtest.NewDisk(size, 512)
				}
				return r.disks[path], nil
			},
			SetClock:     func(time.Time) error { return nil },
			KernelLoaded: func() bool { return false },
			Sync:         func() error { return nil },
			LinksDown:    func() error { return nil },
			KernelLog:    func() ([]byte, error) { return []byte("Linux version 6.1\n"), nil },
			StartSSH:     func(context.Context, accounts) (string, error) { return "host key SHA256:x", nil },
			InstallUEFI: func(ctx context.Context, _ steps.Host, d steps.Deployed) (string, error) {
				r.mu.Lock()
				gate := r.gate
				r.mu.Unlock()
				select {
				case <-gate:
					return "Boot0001 on " + d.Disk, nil
				case <-ctx.Done():
					return "", ctx.Err()
				}
			},
			Power: func(context.Context, boot.How) error { powerOff(); return nil },
		},
	}
}

// conduct sends what the conductor sent.
func (r *replay) conduct(agentURL string, client *http.Client) {
	list := "" // how this conductor reads the list: with or without a token
	for _, e := range r.conductor {
		if e.Method == http.MethodGet {
			list = agentURL + e.Path
		}
	}
	var labels []string                 // of the commands, in order
	versions := json.RawMessage("null") // of the agent's hardware managers, which a conductor keeps
	for i, e := range r.conductor {
		running := strings.Contains(string(e.Response), `"RUNNING"`)
		if i > 0 && (e.Method == http.MethodPost || !running) { // the conductor saw the command before it end
			r.openGate()
			r.awaitCommands(client, list)
		}
		var request []byte
		if e.Method == http.MethodPost {
			next := i + 1
			if next == len(r.conductor) || !strings.Contains(string(r.conductor[next].Response), `"RUNNING"`) {
				r.openGate()
			} else {
				r.newGate()
			}
			var label string
			label, request = r.command(e.Request, versions)
			labels = append(labels, label)
		}
		q, err := http.NewRequestWithContext(r.t.Context(), e.Method, agentURL+e.Path, bytes.NewReader(request))
		if err != nil {
			r.t.Fatal(err)
		}
		for k, v := range e.Headers {
			q.Header.Set(k, v)
		}
		res, err := client.Do(q)
		if err != nil {
			r.t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			r.t.Fatal(err)
		}
		where := "GET " + strings.Split(e.Path, "?")[0]
		if e.Method == http.MethodPost {
			where = labels[len(labels)-1]
		}
		if res.StatusCode != e.Status {
			r.differ(where, "status %d, was %d", res.StatusCode, e.Status)
		}
		if got := res.Header.Get("Content-Type"); got != "application/json" {
			r.differ(where, "Content-Type is %q", got)
		}
		var was, is struct {
			Commands []map[string]any `json:"commands"`
		}
		r.unmarshal(e.Response, &was)
		r.unmarshal(body, &is)
		if was.Commands == nil {
			var was, is map[string]any
			r.unmarshal(e.Response, &was)
			r.unmarshal(body, &is)
			r.compare(where, "", was, is)
			if result, ok := is["command_result"].(map[string]any); ok && result["hardware_manager_version"] != nil {
				if versions, err = json.Marshal(result["hardware_manager_version"]); err != nil {
					r.t.Fatal(err)
				}
			}
			continue
		}
		if len(was.Commands) != len(is.Commands) || len(was.Commands) != len(labels) {
			r.t.Fatalf("%s: %d commands, were %d, sent %d", where, len(is.Commands), len(was.Commands), len(labels))
		}
		for k, label := range labels {
			r.compare(label, "", was.Commands[k], is.Commands[k])
		}
	}
}

func (r *replay) newGate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = make(chan struct{})
}

func (r *replay) openGate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gate:
	default:
		close(r.gate)
	}
}

// awaitCommands returns when no command of our agent runs.
func (r *replay) awaitCommands(client *http.Client, list string) {
	for list != "" {
		res, err := client.Get(list)
		if err != nil {
			r.t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			r.t.Fatal(err)
		}
		if !bytes.Contains(body, []byte(`"RUNNING"`)) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// command returns what to call a request, and the request with the versions that this agent has.
func (r *replay) command(request, versions json.RawMessage) (label string, changed []byte) {
	var command struct {
		Name   string                     `json:"name"`
		Params map[string]json.RawMessage `json:"params"`
	}
	r.unmarshal(request, &command)
	label = command.Name
	if raw := command.Params["step"]; raw != nil {
		var step struct{ Step string }
		r.unmarshal(raw, &step)
		label += " " + step.Step
	}
	for name, value := range command.Params {
		if strings.HasSuffix(name, "_version") && string(value) != "null" {
			command.Params[name] = versions
		}
	}
	changed, err := json.Marshal(command)
	if err != nil {
		r.t.Fatal(err)
	}
	return label, changed
}

func (r *replay) unmarshal(b []byte, v any) {
	r.t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		r.t.Fatalf("%v in %.200s", err, b)
	}
}

func (r *replay) differ(where, format string, args ...any) {
	r.differences[where+": "+fmt.Sprintf(format, args...)] = true
}

// uuids in paths are not the same in all recordings.
var uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`)

// compareSent compares what the agents asked of Ironic: which requests, though not how often.
func (r *replay) compareSent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := func(e exchange) string { return "agent: " + e.Method + " " + uuids.ReplaceAllString(e.Path, "UUID") }
	same := func(e exchange) func(exchange) bool {
		return func(o exchange) bool { return o.Method == e.Method && o.Path == e.Path }
	}
	for _, was := range r.ironic {
		if !slices.ContainsFunc(r.sent, same(was)) {
			r.differ(what(was), "not sent")
		}
	}
	for _, is := range r.sent {
		i := slices.IndexFunc(r.ironic, same(is))
		if i < 0 {
			r.differ(what(is), "only ours")
			continue
		}
		was := r.ironic[i]
		for _, name := range headersThatMatter {
			if was.Headers[name] != is.Headers[name] {
				r.differ(what(is), "header %s is %q, was %q", name, is.Headers[name], was.Headers[name])
			}
		}
		var before, now any
		if len(is.Request) > 0 {
			r.unmarshal(is.Request, &now)
		}
		r.unmarshal(was.Request, &before)
		r.compare(what(is), "", before, now)
	}
}

// decisive are keys of which the values matter, and not the type alone.
var decisive = []string{"command_name", "command_status", "type", "code", "step", "interface", "priority", "reboot_requested", "abortable", "required", "hashed"}

// compare notes where two values differ.
func (r *replay) compare(where, at string, was, is any) {
	kind := func(v any) string {
		switch v := v.(type) {
		case nil:
			return "null"
		case map[string]any:
			if at == "command_error" {
				return fmt.Sprint(v["type"])
			}
			return "object"
		case []any:
			return "list"
		}
		return fmt.Sprintf("%T", v)
	}
	if kind(was) != kind(is) && !(at == "command_error" && was != nil && is != nil) {
		r.differ(where, "%s: %s, was %s", at, kind(is), kind(was))
		return
	}
	switch was := was.(type) {
	case map[string]any:
		is := is.(map[string]any)
		for key, value := range was {
			ours, ok := is[key]
			if list, isList := value.([]any); !ok && isList && len(bySteps(list)) > 0 {
				ours, ok = []any{}, true // each step is named
			}
			if !ok {
				r.differ(where, "%s: missing", join(at, key))
				continue
			}
			if slices.Contains(decisive, key) && kind(value) == kind(ours) && kind(value) != "object" && value != ours {
				r.differ(where, "%s: %v, was %v", join(at, key), ours, value)
			}
			r.compare(where, join(at, key), value, ours)
		}
		for key := range is {
			if _, ok := was[key]; !ok {
				r.differ(where, "%s: only ours", join(at, key))
			}
		}
	case []any:
		is := is.([]any)
		if a, b := bySteps(was), bySteps(is); a != nil && b != nil {
			r.compare(where, at, a, b)
			return
		}
		if len(was) != len(is) {
			r.differ(where, "%s: %d values, were %d", at, len(is), len(was))
		}
		for i := range min(len(was), len(is)) {
			r.compare(where, fmt.Sprintf("%s[%d]", at, i), was[i], is[i])
		}
	}
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// bySteps makes an object of a list of steps, the order of which means nothing; nil if it is none.
func bySteps(list []any) map[string]any {
	object := map[string]any{}
	for _, one := range list {
		step, ok := one.(map[string]any)
		if !ok {
			return nil
		}
		name, ok := step["step"].(string)
		if _, twice := object[name]; !ok || twice {
			return nil
		}
		object[name] = step
	}
	return object
}

// safeBuffer is for one writer and readers beside it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
