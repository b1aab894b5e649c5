// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream/streamtest"
)

const (
	testUUID  = "6b4b3c1e-5a0f-4a53-8d0e-2f6d3c9a7b10"
	testMAC   = "52:54:00:00:02:0a"
	testToken = "FAKE-pregenerated-token-FAKE-pregenerated-1"
)

// lab is a conductor that runs in a test, with one node whose image is 2 MiB of text.
type lab struct {
	t      *testing.T
	dir    string
	c      *Conductor
	url    string
	client *http.Client // trusts the conductor
	cancel context.CancelFunc
	done   chan error // the result of Run

	mu     sync.Mutex
	events []Event
}

// newLab starts a conductor. The settings are added to the configuration's top level, those of the node to the node.
func newLab(t *testing.T, settings, node string) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), done: make(chan error, 1)}
	l.write("files/disk.img", strings.Repeat("ironhand", 2<<20/8), 0o644)
	l.write("node.token", testToken+"\n", 0o600)
	for key, value := range map[string]string{
		"exit": "done", "poll": "5ms", "callback_timeout": "5s", "command_timeout": "5s", "boot_timeout": "5s", "timeout": "30s",
	} {
		if !strings.Contains("\n"+settings, "\n"+key+":") {
			settings += "\n" + key + ": " + value
		}
	}
	if !strings.Contains(node, "properties:") {
		node = "    properties: {root_device: {serial: S1}}\n" + node
	}
	l.write("conductor.yaml", fmt.Sprintf(`
listen: ["127.0.0.1:%d"]
tls: auto
files: files
%s
nodes:
  - name: n1
    uuid: %s
    macs: ["%s"]
    token_file: node.token
    image: {file: disk.img}
%s
`, streamtest.FreePort(t), settings, testUUID, testMAC, node), 0o644)
	cfg, err := LoadConfig(filepath.Join(l.dir, "conductor.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	l.c, err = New(cfg, Options{Event: func(e Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, e)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.c.Listen(); err != nil {
		t.Fatal(err)
	}
	l.url = "https://" + l.c.Addrs()[0]
	ca, err := os.ReadFile(filepath.Join(l.dir, "tls", CAFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	l.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel = cancel
	go func() { l.done <- l.c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Log(l.timeline())
		}
		if text := l.timeline(); strings.Contains(text, testToken) {
			t.Errorf("a token is in the events:\n%s", text)
		}
	})
	return l
}

func (l *lab) write(name, content string, mode os.FileMode) {
	l.t.Helper()
	p := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		l.t.Fatal(err)
	}
}

// timeline is everything that happened, a line for each event.
func (l *lab) timeline() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, e := range l.events {
		fmt.Fprintf(&b, "%s %s %s\n", e.Node, e.Kind, e.Text)
	}
	return b.String()
}

// await waits until the timeline has the text.
func (l *lab) await(text string) {
	l.t.Helper()
	l.until(fmt.Sprintf("the timeline has %q", text), func() bool { return strings.Contains(l.timeline(), text) })
}

func (l *lab) until(what string, ok func() bool) {
	l.t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.t.Fatalf("never: %s\n%s", what, l.timeline())
}

// result waits for the end of Run.
func (l *lab) result() error {
	l.t.Helper()
	select {
	case err := <-l.done:
		return err
	case <-time.After(40 * time.Second):
		l.t.Fatalf("Run does not end\n%s", l.timeline())
		return nil
	}
}

// request sends one request and returns the status code and the body.
func (l *lab) request(method, path, body string, header map[string]string) (int, string) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, l.url+path, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestDeploy(t *testing.T) {
	const report = `    config_drive: {hostname: demo-1, report: true, user_data: "#!/bin/true", meta: {role: lab}}`
	tests := []struct {
		name     string
		settings string
		node     string
		script   script
		want     string // what the agent was asked for
		event    string // a part of the timeline
	}{
		{
			name: "kexec and report", node: report + "\n    handoff: kexec",
			want:  "wait get_deploy_steps, write_image, wait get_partition_uuids, install_bootloader, kexec, run_image",
			event: "n1 booted demo-1 with kernel 6.1.0-test at 192.0.2.10",
		},
		{
			name: "kexec is not offered", node: report + "\n    handoff: kexec",
			script: script{"get_deploy_steps": {result: stepsWithout("kexec")}},
			want:   "wait get_deploy_steps, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
			event:  "n1 warning kexec is not possible, the machine goes through its firmware: the agent does not offer deploy.kexec",
		},
		{
			name: "kexec fails", node: report + "\n    handoff: kexec",
			script: script{"kexec": {fail: &commandError{Type: "DeploymentError", Details: "kernel is locked down"}}},
			want:   "wait get_deploy_steps, write_image, wait get_partition_uuids, install_bootloader, kexec, wait sync, run_image",
			event:  "kernel is locked down (DeploymentError)",
		},
		{
			name: "reboot without report",
			want: "wait get_deploy_steps, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
		},
		{
			name: "by heartbeats alone", settings: "poll: 0s", script: script{"write_image": {polls: 2}},
			want: "wait get_deploy_steps, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
		},
		{
			name: "bios and power off", node: "    boot_mode: bios\n    handoff: poweroff",
			want: "wait get_deploy_steps, write_image, wait get_partition_uuids, power_off",
		},
		{
			name: "on software RAID", node: "    raid: {logical_disks: [{size_gb: MAX, raid_level: \"1\", controller: software, is_root_volume: true}]}",
			want: "wait get_deploy_steps, apply_configuration, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
		},
		{
			name: "on a logical volume", node: "    properties: {logical_volumes: [{name: vg, volumes: [{name: root, size_gb: 2, is_root_volume: true}]}]}",
			want: "wait get_deploy_steps, create_volumes, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
		},
		{
			name:   "slow, and busy at first",
			script: script{"get_deploy_steps": {busy: 3}, "write_image": {polls: 5}, "install_bootloader": {busy: 2, polls: 2}},
			want:   "wait get_deploy_steps, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
			event:  "agent is busy",
		},
		{
			name:   "agent starts anew while it writes",
			script: script{"write_image": {polls: 3, restarts: 1}},
			want:   "wait get_deploy_steps, write_image, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
			event:  "n1 warning the agent has started anew: write_image is sent again",
		},
		{
			name:   "agent is killed while it writes",
			script: script{"write_image": {polls: 3, kills: 1}},
			want:   "wait get_deploy_steps, write_image, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
			event:  "n1 warning the agent has started anew: write_image is sent again",
		},
		{
			name:   "answer to the command is lost",
			script: script{"write_image": {polls: 5, lose: 1}},
			want:   "wait get_deploy_steps, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
		},
		{
			name: "agent tells its progress", script: script{"write_image": {polls: 3, progress: map[string]any{"bytes": 12345}}},
			want:  "wait get_deploy_steps, write_image, wait get_partition_uuids, install_bootloader, wait sync, run_image",
			event: `n1 command write_image: {"bytes":12345}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, test.settings, test.node)
			a := newFakeAgent(t, l, test.script)
			a.start()
			if err := l.result(); err != nil {
				t.Errorf("Run() = %v", err)
			}
			if got := a.asked(); got != test.want {
				t.Errorf("the agent was asked\n     %s\nwant %s", got, test.want)
			}
			if s := l.c.Nodes()[0]; s.State != StateActive {
				t.Errorf("state = %q, want %q", s.State, StateActive)
			}
			if !strings.Contains(l.timeline(), test.event) {
				t.Errorf("no event %q in\n%s", test.event, l.timeline())
			}
		})
	}
}

func TestDeployFails(t *testing.T) {
	tests := []struct {
		name     string
		settings string
		node     string
		script   script
		before   func(*fakeAgent) // changes the agent before it starts
		during   func(*fakeAgent) // while it runs
		want     string           // in the node's last error
	}{
		{
			name:   "image has the wrong digest",
			script: script{"write_image": {polls: 1, fail: &commandError{Type: "ImageChecksumError", Message: "Error verifying image checksum", Details: "Image failed to verify against checksum"}}},
			want:   "write_image: command FAILED: Image failed to verify against checksum (ImageChecksumError)",
		},
		{
			name:   "no software RAID",
			node:   "    raid: {logical_disks: [{size_gb: MAX}]}",
			script: script{"apply_configuration": {fail: &commandError{Type: "SoftwareRAIDError", Details: "controller is missing"}}},
			want:   "apply_configuration: command FAILED: controller is missing (SoftwareRAIDError)",
		},
		{
			name:   "message without details",
			script: script{"install_bootloader": {fail: &commandError{Message: "Error finding the disk\x1b[2J\r\n"}}},
			want:   "install_bootloader: command FAILED: Error finding the disk [2J",
		},
		{
			name:   "failure without reason",
			script: script{"get_partition_uuids": {status: "FAILED"}},
			want:   "standby.get_partition_uuids: command FAILED: no reason given",
		},
		{
			name:   "unknown status",
			script: script{"write_image": {status: "CLEAN_VERSION_MISMATCH"}},
			want:   "command CLEAN_VERSION_MISMATCH",
		},
		{
			name:   "agent cannot write images",
			script: script{"get_deploy_steps": {result: stepsWithout("write_image")}},
			want:   "the agent does not offer deploy.write_image",
		},
		{
			name:   "no hardware manager version",
			script: script{"get_deploy_steps": {result: map[string]any{"deploy_steps": map[string]any{}}}},
			want:   "result lacks deploy_steps or hardware_manager_version",
		},
		{
			name: "step without priority",
			script: script{"get_deploy_steps": {result: map[string]any{"hardware_manager_version": map[string]any{},
				"deploy_steps": map[string]any{"M": []any{map[string]any{"interface": "deploy", "step": "write_image"}}}}}},
			want: "a step of M lacks interface, step or priority",
		},
		{
			name:     "never finishes",
			settings: "timeout: 8s",
			script:   script{"write_image": {polls: 1 << 30}},
			want:     "write_image: not done within 8s",
		},
		{
			name:     "agent sends no heartbeats any more",
			settings: "callback_timeout: 3s",
			script:   script{"write_image": {polls: 1 << 30}},
			during:   func(a *fakeAgent) { a.lab.await("write_image: started"); a.silence() },
			want:     "write_image: no heartbeat within 3s",
		},
		{
			name:     "agent vanishes", // which limit is reached first depends on its last heartbeat
			settings: "callback_timeout: 3s",
			script:   script{"write_image": {polls: 1 << 30}},
			during:   func(a *fakeAgent) { a.lab.await("write_image: started"); a.vanish() },
			want:     " 3s",
		},
		{
			name:     "agent is reached by heartbeats only",
			settings: "callback_timeout: 3s",
			before:   func(a *fakeAgent) { a.server.Close() },
			want:     "deploy.get_deploy_steps: for 3s: agent does not answer: ", // that nobody listens, or another who has got the port by now
		},
		{
			name:     "another certificate than the heartbeat brought",
			settings: "callback_timeout: 3s",
			before:   func(a *fakeAgent) { a.ca = newFakeCertificate(t).pem },
			want:     "agent does not answer: tls: failed to verify certificate",
		},
		{
			name:     "busy for ever",
			settings: "callback_timeout: 3s",
			script:   script{"install_bootloader": {busy: 1 << 30}},
			want:     "install_bootloader: for 3s: agent is busy",
		},
		{
			name:     "hangs",
			settings: "callback_timeout: 3s\ncommand_timeout: 1s",
			script:   script{"get_partition_uuids": {hang: true}},
			want:     "standby.get_partition_uuids: for 3s: agent does not answer",
		},
		{
			name:   "refuses the token",
			script: script{"write_image": {http: 401, body: `{"faultcode": "Client", "faultstring": "401 Unauthorized: Token invalid."}`}},
			want:   "write_image: agent answers 401: 401 Unauthorized: Token invalid.",
		},
		{
			name:   "error that is not JSON",
			script: script{"write_image": {http: 500, body: `<html>`}},
			want:   "write_image: agent answers 500: no reason given",
		},
		{
			name:   "answer that is not JSON",
			script: script{"write_image": {http: 200, body: `<html>`}},
			want:   "write_image: agent's answer is not the expected JSON: invalid character '<'",
		},
		{
			name:   "answer without status",
			script: script{"write_image": {http: 200, body: `{}`}},
			want:   "write_image: agent's answer has no command_status",
		},
		{
			name:   "huge answer",
			script: script{"write_image": {http: 200, body: strings.Repeat(" ", maxAnswer+1)}},
			want:   "write_image: agent answers with more than 50331648 bytes",
		},
		{
			name:     "redirect to elsewhere",
			script:   script{"write_image": {http: 307, location: "https://192.0.2.99/"}},
			want:     "agent answers with a redirect",
			settings: "callback_timeout: 3s",
		},
		{
			name:   "agent starts anew again and again",
			script: script{"write_image": {polls: 3, restarts: 1 << 30}},
			want:   "write_image: the agent started anew 3 times",
		},
		{
			name:     "system does not report",
			settings: "boot_timeout: 300ms",
			node:     "    config_drive: {report: true}",
			before:   func(a *fakeAgent) { a.noReport = true },
			want:     "the deployed system did not report within 300ms of the hand-off",
		},
		{
			name:   "system has another host name",
			node:   "    config_drive: {report: true, hostname: other}",
			before: func(a *fakeAgent) { a.hostName = "debian" },
			want:   `the deployed system calls itself "debian", want "other" from the config drive`,
		},
		{
			name:   "agent cannot leave",
			node:   "    config_drive: {report: true}",
			script: script{"run_image": {polls: 1, fail: &commandError{Details: "reboot: operation not permitted"}}},
			want:   "standby.run_image: command FAILED: reboot: operation not permitted",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, test.settings, test.node)
			a := newFakeAgent(t, l, test.script)
			if test.before != nil {
				test.before(a)
			}
			a.start()
			if test.during != nil {
				test.during(a)
			}
			err := l.result()
			if !errors.Is(err, ErrFailed) {
				t.Errorf("Run() = %v, want an ErrFailed", err)
			}
			s := l.c.Nodes()[0]
			if s.State != StateFailed || !strings.Contains(s.LastError, test.want) {
				t.Errorf("node is %q, %q\nwant %q, ...%q...", s.State, s.LastError, StateFailed, test.want)
			}
			for _, secret := range []string{testToken, "agent_token"} {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("%q is in the error: %v", secret, err)
				}
			}
		})
	}
}
