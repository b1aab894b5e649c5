// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/stream/streamtest"
)

func TestFlow(t *testing.T) {
	tests := []struct {
		name, params string
		fail         error
		want         string
	}{
		{"empty", `{"flow": []}`, nil, "SUCCEEDED "},
		{"two", `{"flow": [{"standby.prepare_image": {"image_info": {}}}, {"standby.get_partition_uuids": null}]}`, nil, "SUCCEEDED "},
		{"the second fails", `{"flow": [{"standby.get_partition_uuids": {}}, {"clean.execute_clean_step": {"step": {"step": "fail"}}}]}`, errors.New("bang"),
			"FAILED CommandExecutionError: execute_clean_step was failed: Clean step failed: Unexpected exception performing clean step fail. bang"},
		{"no flow", `{}`, nil, " InvalidCommandParamsError: flow: must be a list"},
		{"flow is an object", `{"flow": {}}`, nil, " InvalidCommandParamsError: flow: json: cannot unmarshal"},
		{"two commands in one entry", `{"flow": [{"standby.sync": {}, "standby.run_image": {}}]}`, nil, " InvalidCommandParamsError: flow: entry 0 must have one command and has 2"},
		{"unknown command", `{"flow": [{"standby.run_image": {}}, {"standby.dance": {}}]}`, nil, " InvalidCommandError: Unknown command: dance"},
		{"unknown extension", `{"flow": [{"standby.run_image": {}}, {"iscsi.start": {}}]}`, nil, " RequestedObjectNotFoundError: Extension with id iscsi not found."},
		{"flow in a flow", `{"flow": [{"flow.start_flow": {"flow": []}}]}`, nil, " RequestedObjectNotFoundError: Extension with id flow not found."},
		{"name without extension", `{"flow": [{"sync": {}}]}`, nil, " InvalidCommandError: Command name must be of the form"},
		{"parameters are a list", `{"flow": [{"standby.sync": []}]}`, nil, " InvalidCommandParamsError: flow: parameters of standby.sync must be an object"},
		{"too long", `{"flow": [` + strings.Repeat(`{"standby.sync": {}},`, maxFlow) + `{"standby.sync": {}}]}`, nil, " InvalidCommandParamsError: flow: must be a list of at most 1000 commands"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			left := false
			_, do, fail, _ := commandAgent(t, System{
				Sync:  func() error { return nil },
				Power: func(context.Context, boot.How) error { left = true; return nil },
			})
			*fail = test.fail
			if got := do("flow.start_flow", test.params).text(); !strings.HasPrefix(got, test.want) {
				t.Errorf("start_flow = %s, want %s", got, test.want)
			}
			if left {
				t.Error("a flow that is refused has begun")
			}
		})
	}
}

func TestPoll(t *testing.T) {
	const info = `{"node": {"uuid": "n7", "properties": {}}, "config": {"heartbeat_timeout": 300, "agent_md5_checksum_enable": false}}`
	a, do, _, console := commandAgent(t, System{Machine: inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/virtio.txt")}})
	if err := a.takeInventory(t.Context()); err == nil {
		t.Error("an agent without managers takes an inventory") // it does all the same
	}
	got := do("poll.get_hardware_info", `{}`)
	var inventory struct {
		Disks []struct{ Name string }
	}
	if err := json.Unmarshal(got.Value, &inventory); err != nil || len(inventory.Disks) != 3 {
		t.Errorf("get_hardware_info = %.200s", got.text())
	}
	if got, want := do("poll.set_node_info", `{"node_info": `+info+`}`).text(), " InvalidCommandError: Node lookup data can only be set when"; !strings.HasPrefix(got, want) {
		t.Errorf("set_node_info = %s, want %s", got, want)
	}
	a.config.Poll = true
	for params, want := range map[string]string{
		`{"node_info": ` + info + `}`:       "SUCCEEDED ",
		`{}`:                                " InvalidCommandParamsError: node_info: read lookup answer: it is empty",
		`{"node_info": {"node": {}}}`:       " InvalidCommandParamsError: node_info: read lookup answer: read node: it has no uuid",
		`{"node_info": "https://h/lookup"}`: " InvalidCommandParamsError: node_info: read lookup answer: ",
	} {
		if got := do("poll.set_node_info", params).text(); !strings.HasPrefix(got, want) {
			t.Errorf("set_node_info(%s) = %s, want %s", params, got, want)
		}
	}
	if a.currentNode().UUID != "n7" || !a.host.Download.RefuseMD5 {
		t.Errorf("node %s, MD5 refused: %v", a.currentNode().UUID, a.host.Download.RefuseMD5)
	}
	wantText(t, "console", console.String(), "node: n7, as the conductor says")

	// The next agent of this boot is not told again.
	next, again := newTestAgent(t, System{StateDir: a.sys.StateDir, Network: func() (netconfig.Kernel, error) { return nil, errors.New("no netlink") }})
	next.config.Poll, next.config.Token = true, testToken
	if err := next.serve(t.Context()); err == nil || !strings.Contains(err.Error(), "no netlink") {
		t.Errorf("serve() = %v", err)
	}
	if next.currentNode().UUID != "n7" || !next.host.Download.RefuseMD5 {
		t.Errorf("the next agent has node %q, refuses MD5: %v", next.currentNode().UUID, next.host.Download.RefuseMD5)
	}
	wantText(t, "console of the next agent", again.String(), "node: n7, as the conductor says")
	if err := os.WriteFile(filepath.Join(a.sys.StateDir, "node_info.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := next.serve(t.Context()); err == nil || !strings.Contains(err.Error(), "earlier in this boot") {
		t.Errorf("serve() with what cannot be read = %v", err)
	}
}

// still is a network that has one address.
type still struct{ netconfig.Kernel }

func (still) State(context.Context) (netconfig.State, error) {
	return netconfig.State{NICs: []netconfig.NIC{
		{Name: "lo", Loopback: true, Up: true, Addresses: []netconfig.Address{{Prefix: netip.MustParsePrefix("127.0.0.1/8")}}},
		{Name: "eth0", Up: true, Addresses: []netconfig.Address{{Prefix: netip.MustParsePrefix("fe80::1/64")}, {Prefix: netip.MustParsePrefix("192.0.2.7/24")}}},
	}}, nil
}

// unpackLogs returns the files of a result of collect_system_logs.
func unpackLogs(t *testing.T, r Result) map[string]string {
	t.Helper()
	var result struct {
		Logs string `json:"system_logs"`
	}
	if err := json.Unmarshal(r.Value, &result); err != nil {
		t.Fatalf("%s: %v", r.text(), err)
	}
	packed, err := base64.StdEncoding.DecodeString(result.Logs)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(z); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(b)
	}
}

// How the disks are is among the logs.
func TestCollectLogsHealth(t *testing.T) {
	recording, err := os.ReadFile("../inspect/testdata/qemu.txt")
	if err != nil {
		t.Fatal(err)
	}
	machine, err := inspect.Load(recording)
	if err != nil {
		t.Fatal(err)
	}
	_, do, _, _ := commandAgent(t, System{Root: fstest.MapFS{}, Machine: machine, Network: func() (netconfig.Kernel, error) { return still{}, nil }, KernelLog: func() ([]byte, error) { return nil, nil }})
	files := unpackLogs(t, do("log.collect_system_logs", `{}`))
	for _, want := range []string{"/dev/nvme0n1", "/dev/sdb"} {
		if !strings.Contains(files["health.json"], want) {
			t.Errorf("health.json lacks %s: %.1000q", want, files["health.json"])
		}
	}
}

func TestCollectLogs(t *testing.T) {
	const token, pregenerated = "tok-0123456789012345678901234567890123456789", "pre-0123456789012345678901234567890123456789"
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	long := strings.Repeat("old line\n", 1<<20)
	root := fstest.MapFS{
		"proc/cmdline":      file("quiet ipa-agent-token=" + pregenerated + " ipa-api-url=https://user:hunter2@192.0.2.1"),
		"proc/meminfo":      file("MemTotal: 5 kB\n"),
		"run/ironhand/log":  file(long + "the newest line, with token " + token + "\n"),
		"proc/net/dev/file": file("a directory where a file belongs"),
	}
	machine := inspecttest.Machine(t, "../inspect/testdata/virtio.txt")
	a, do, _, _ := commandAgent(t, System{
		Root:    root,
		Machine: inspect.Machine{FS: machine},
		Network: func() (netconfig.Kernel, error) { return still{}, nil },
		KernelLog: func() ([]byte, error) {
			return []byte("[    0.000000] Linux version 6.1\nirmc: password=hunter2\n"), nil
		},
	})
	a.token, a.config.Token = token, pregenerated
	a.config.Origins = []Origin{{"ipa-agent-token", "***", "floppy"}}
	a.console.Stage("network", "eth0 has no link")
	files := unpackLogs(t, do("log.collect_system_logs", `{}`))
	for name, want := range map[string]string{
		"timeline": "network: eth0 has no link", "settings": "ipa-agent-token=*** (floppy)", "kernel": "Linux version 6.1",
		"disks.json": `"root-disk"`, "network.json": "192.0.2.7/24", "machine/proc/meminfo": "MemTotal: 5 kB", "inventory.json": `"hostname"`,
		"machine/run/ironhand/log": "the newest line, with token ***", "machine/proc/cmdline": "quiet ipa-agent-token=*** ipa-api-url=https://***@192.0.2.1",
		"errors": "machine/proc/net/dev: ",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s is %.300q, want %q", name, files[name], want)
		}
	}
	if n := len(files["machine/run/ironhand/log"]); n > maxLogFile || n < maxLogFile/2 {
		t.Errorf("of the log there are %d bytes", n)
	}
	for name, content := range files {
		for _, secret := range []string{token, pregenerated, "hunter2"} {
			if strings.Contains(content, secret) {
				t.Errorf("%s tells a secret", name)
			}
		}
	}

	// What cannot be had is named, and keeps nothing else away.
	a.sys.KernelLog = func() ([]byte, error) { return nil, fs.ErrPermission }
	a.sys.Network = func() (netconfig.Kernel, error) { return nil, errors.New("no netlink") }
	files = unpackLogs(t, do("log.collect_system_logs", `{}`))
	wantText(t, "errors", files["errors"], "kernel: permission denied", "network.json: no netlink")
	if files["timeline"] == "" {
		t.Error("the timeline is missing")
	}
}

// hanging is a file tree in which one file is never opened until the test ends.
type hanging struct {
	fstest.MapFS
	name string
	end  chan struct{}
}

func (h hanging) Open(name string) (fs.File, error) {
	if name == h.name {
		<-h.end
		return nil, fs.ErrClosed
	}
	return h.MapFS.Open(name)
}

// A file that the kernel never gives is named, and keeps nothing else away.
func TestCollectLogsHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		defer close(end)
		a, _ := newTestAgent(t, System{
			Root:    hanging{fstest.MapFS{"proc/uptime": {Data: []byte("5.00\n")}}, "proc/mdstat", end},
			Machine: inspect.Machine{FS: fstest.MapFS{}}, Network: func() (netconfig.Kernel, error) { return still{}, nil },
			KernelLog: func() ([]byte, error) { <-end; return nil, nil },
		})
		start := time.Now()
		value, err := a.collectLogs(t.Context(), nil)
		if took := time.Since(start); err != nil || took > collectTime {
			t.Fatalf("collectLogs() = %v after %v", err, took)
		}
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		files := unpackLogs(t, Result{Status: Succeeded, Value: b})
		wantText(t, "errors", files["errors"], "machine/proc/mdstat: it cannot be read in time", "kernel: it cannot be read in time")
		wantText(t, "uptime", files["machine/proc/uptime"], "5.00")
	})
}

func TestWithoutSecrets(t *testing.T) {
	a, _ := newTestAgent(t, System{})
	a.config.ImagePassword = "open sesame"
	for _, tt := range []struct{ name, text, want string }{
		{"basic authorization", "Authorization: Basic hunter2==\nnext", "Authorization: ***\nnext"},
		{"proxy, in JSON", `{"Proxy-Authorization": "Digest a=hunter2, b"}`, `{"Proxy-Authorization": ***`},
		{"bearer", "curl: bearer hunter2 refused", "curl: bearer *** refused"},
		{"header", "X-Auth-Token: hunter2 next", "X-Auth-Token: *** next"},
		{"Swift", "image?temp_url_sig=hunter2&temp_url_expires=hunter2 next", "image?temp_url_sig=*** next"},
		{"Swift, alone", "temp_url_sig=hunter2 next", "temp_url_sig=*** next"},
		{"Amazon", "X-Amz-Signature=hunter2 next", "X-Amz-Signature=*** next"},
		{"double quotes", `password="hunter2 hunter2" next`, `password=*** next`},
		{"single quotes", `password='hunter2 hunter2' next`, `password=*** next`},
		{"a quote in it", `password: hun'hunter2 next`, `password: *** next`},
		{"an escaped quote in it", `{"password": "hun\"hunter2", "x": 1}`, `{"password": ***, "x": 1}`},
		{"escaped quotes", `body="{\"password\": \"hunter2 hunter2\", \"x\": 1}"`, `body="{\"password\": ***, \"x\": 1}"`},
		{"escaped quotes in it", `body="{\"password\": \"a\\\"hunter2\", \"x\": 1}"`, `body="{\"password\": ***, \"x\": 1}"`},
		{"no closing quote", "password=\"hunter2 hunter2\nnext", "password=***\nnext"},
		{"parameter in quotes", `quiet "rd.password=hun hunter2" next`, `quiet "rd.password=*** next`},
		{"commas", "rd.iscsi.password=hun,hunter2 next", "rd.iscsi.password=*** next"},
		{"JSON", `{"auth_token": "hunter2"}`, `{"auth_token": ***}`},
		{"IPA's own", "rootpwd=$1$hunter2 next", "rootpwd=*** next"},
		{"query", "ipa-inspection-callback-url=https://x/y?hunter2 next", "ipa-inspection-callback-url=https://x/y?*** next"},
		{"end of a URL", "GET /y?a=hunter2 next", "GET /y?a=*** next"},
		{"user", "https://user:hunter2@h/ next", "https://***@h/ next"},
		{"slash in a password", "https://user:hun/hunter2@h/ next", "https://***@h/ next"},
		{"at in a password", "https://user:hun@hunter2@h/ next", "https://***@h/ next"},
		{"password of the image server", "got open sesame from x", "got *** from x"},
		{"nothing", "eth0: why? // no token here, a@b\n", "eth0: why? // no token here, a@b\n"},
		{"a name that goes on", "ipa-agent-token-required=1 agent_token_x: 2", "ipa-agent-token-required=1 agent_token_x: 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(a.withoutSecrets([]byte(tt.text))); got != tt.want {
				t.Errorf("withoutSecrets(%s) = %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}

// noise is what does not pack.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func TestCollectLogsIsBounded(t *testing.T) {
	root := fstest.MapFS{}
	for _, name := range machineFiles() {
		root[name] = &fstest.MapFile{Data: noise(3 << 20)}
	}
	_, do, _, _ := commandAgent(t, System{
		Root: root, Machine: inspect.Machine{FS: fstest.MapFS{}}, Network: func() (netconfig.Kernel, error) { return still{}, nil },
		KernelLog: func() ([]byte, error) { return nil, nil },
	})
	r := do("log.collect_system_logs", `{}`)
	if n := len(r.Value) * 3 / 4; n > maxLogs+2*maxLogFile {
		t.Errorf("the logs have %d bytes", n)
	}
	wantText(t, "errors", unpackLogs(t, r)["errors"], "left out, the archive is large enough")
}

// The answer to the command that ends the service gets through; then nobody answers, the last is done, and the next agent of this boot
// does nothing.
func TestLockdown(t *testing.T) {
	down := make(chan struct{}, 2)
	system := System{StateDir: t.TempDir(), LinksDown: func() error { down <- struct{}{}; return nil }}
	a, console := newTestAgent(t, system)
	a.token = "0123456789012345678901234567890123456789"
	a.settings.HeartbeatTimeout = time.Minute
	a.config = Config{Curve: "p256", CertificateSkew: time.Hour, ListenHost: "127.0.0.1", ListenPort: streamtest.FreePort(t)} // nobody else listens there when it is closed
	certificate, _, err := a.certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := a.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.runAPI(ctx, listener, certificate, nil) }()

	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	url := fmt.Sprintf("https://%s/v1/commands/?agent_token=%s", listener.Addr(), a.token.Reveal())
	answer, err := client.Post(url, "application/json", strings.NewReader(`{"name": "system.lockdown", "params": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(b), `"SUCCEEDED"`) {
		t.Errorf("lockdown = %s, %v", b, err)
	}
	select {
	case <-down:
	case <-time.After(20 * time.Second):
		t.Fatal("the links are not taken down")
	}
	if conn, err := net.DialTimeout("tcp", listener.Addr().String(), time.Second); err == nil {
		conn.Close()
		t.Error("the API is still open")
	}
	select {
	case err := <-ended:
		t.Errorf("runAPI() = %v before the machine is booted again", err)
	case <-time.After(100 * time.Millisecond):
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("runAPI() = %v", err)
	}
	wantText(t, "console", console.String(), "end: locked down: the network is down")

	next, again := newTestAgent(t, system)
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := next.remember(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the next agent goes on: %v", err)
	}
	wantText(t, "console of the next agent", again.String(), "end: locked down: the network is down")
	if len(down) != 1 {
		t.Error("the next agent does not take the network down, which the one before may have been killed before")
	}
}

// Nobody says that the network is down as long as it is not, and the agent after one that could not take it down tries again.
func TestLockdownFails(t *testing.T) {
	busy := errors.New("take eth0 down: device or resource busy")
	system := System{StateDir: t.TempDir(), LinksDown: func() error { return busy }}
	a, console := newTestAgent(t, system)
	if _, err := a.lockdown(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	for range 2 {
		if err := a.served(short); !errors.Is(err, busy) {
			t.Fatalf("served() = %v", err)
		}
		next, again := newTestAgent(t, system)
		if err := next.remember(short); !errors.Is(err, busy) {
			t.Errorf("the next agent: %v", err)
		}
		if said := console.String() + again.String(); strings.Contains(said, "network is down") {
			t.Errorf("console:\n%s", said)
		}
	}
	system.LinksDown = func() error { return nil }
	next, again := newTestAgent(t, system)
	if err := next.remember(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the next agent goes on: %v", err)
	}
	wantText(t, "console of the next agent", again.String(), "end: locked down: the network is down")
}

func TestServePolledRefuses(t *testing.T) {
	a, _ := newTestAgent(t, System{Network: func() (netconfig.Kernel, error) { return nil, errors.New("no netlink") }})
	a.config.Poll = true
	for _, want := range []string{"there is no token", "no netlink"} {
		if err := a.serve(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("serve() = %v, want %q", err, want)
		}
		a.config.Token = ironic.Secret(strings.Repeat("t", 40))
	}
}
