// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
)

// noTransport is a network on which nothing answers.
type noTransport struct{}

func (noTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no network")
}

// object reads what encoding/json reads, without copies.
func FuzzObject(f *testing.F) {
	f.Add([]byte(`{"name": "clean.execute_clean_step", "params": {"step": {"step": "erase_devices", "priority": 10}, "ports": [], "clean_version": null}}`))
	f.Add([]byte(` { "a" : [1, {"b": "}\""}] , "a\u0041" : null,"":-1e5 } `))
	f.Add([]byte(`{"a":1,"a":"\\"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"a":1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		whole := bytes.Clone(raw)
		got, err := object(raw)
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(raw, &want)
		if (err == nil) != (wantErr == nil && want != nil) {
			if err == nil || len(want) == 0 || bytes.Count(raw, []byte(":")) < maxMembers && len(raw) < maxName {
				t.Fatalf("object(%q) = %v, encoding/json: %v", raw, err, wantErr)
			}
			return // it is beyond the bounds
		}
		if len(got) != len(want) {
			t.Fatalf("object(%q) = %q, want %q", raw, got, want)
		}
		for name, value := range want {
			if !bytes.Equal(got[name], value) {
				t.Errorf("object(%q): %q = %q, want %q", raw, name, got[name], value)
			}
			_ = append(got[name], "overwritten"...)
		}
		if !bytes.Equal(raw, whole) {
			t.Errorf("what is added to a value changes what is behind it")
		}
	})
}

func FuzzStepParams(f *testing.F) {
	f.Add([]byte(`{"step": {"step": "erase_devices", "priority": 10, "interface": "deploy", "abortable": true}, "node": {"uuid": "n"}, "ports": [{"uuid": "p", "address": "02:fc:00:00:00:01"}], "clean_version": {"generic_hardware_manager": "1.2"}}`))
	f.Add([]byte(`{"step": {"step": "write_image", "args": {"image_info": {"id": "i", "urls": ["http://192.0.2.1/i"], "checksum": "d41d8cd98f00b204e9800998ecf8427e"}, "configdrive": "H4sI"}}}`))
	f.Add([]byte(`{"step": {"step": "kexec"}, "node": {"uuid": "n", "properties": {"root_device": {"name": "/dev/vda"}}}, "ports": [{}], "deploy_version": null}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := object(raw); err != nil {
			return // such parameters do not get as far
		}
		a, done := oddAgent(t, dir)
		for _, p := range []steps.Phase{steps.Clean, steps.Deploy, steps.Service} {
			if v, err := a.listSteps(t.Context(), p, raw); err == nil {
				if _, err := json.Marshal(v); err != nil {
					t.Error(err)
				}
			}
			v, err := a.executeStep(t.Context(), p, raw)
			if err == nil {
				t.Errorf("on a machine without disks and kernel a step succeeds: %v", v)
			} else if e := asError(err); e.Type == "" || !json.Valid(mustMarshal(t, e)) {
				t.Errorf("%v", err)
			}
		}
		if err := a.checkImage(raw); err == nil { // a good one
			var in struct{ ImageInfo struct{ ID string } }
			if err := json.Unmarshal(raw, &in); err != nil {
				t.Errorf("parameters are accepted that cannot be read: %v", err)
			}
		}
		for _, d := range *done {
			if len(d) > 5 && d[:5] != "open " {
				t.Errorf("a step has done: %s", d)
			}
		}
	})
}

func FuzzFlow(f *testing.F) {
	f.Add([]byte(`{"flow": [{"standby.sync": {}}, {"clean.execute_clean_step": {"step": {"step": "a"}}}]}`))
	f.Add([]byte(`{"flow": [{"standby.get_partition_uuids": null}, {"rescue.finalize_rescue": {"rescue_password": "x"}}]}`))
	f.Add([]byte(`{"flow": [{"standby.prepare_image": {"image_info": {}}}]}`))
	f.Add([]byte(`{"flow": [{"flow.start_flow": {"flow": []}}]}`))
	f.Add([]byte(`{"flow": null}`))
	a, _ := oddAgent(f, f.TempDir())
	table := map[string]Command{}
	for _, c := range a.commands() {
		if c.Name != "flow.start_flow" {
			table[c.Name] = c
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := parseFlow(raw, table)
		if err != nil {
			if e := asError(err); e.Code >= 500 && e.Type == "CommandExecutionError" {
				t.Errorf("%q is no fault of the caller: %v", raw, err)
			}
			return
		}
		if len(list) > maxFlow {
			t.Errorf("a flow of %d commands", len(list))
		}
		for _, s := range list {
			if _, known := table[s.command.Name]; !known {
				t.Errorf("unknown command %q", s.command.Name)
			}
			if _, err := object(s.params); err != nil && json.Unmarshal(s.params, new(map[string]json.RawMessage)) != nil {
				t.Errorf("parameters of %s: %q: %v", s.command.Name, s.params, err)
			}
		}
	})
}

func FuzzNodeInfo(f *testing.F) {
	for _, e := range readRecording(f, "testdata/wire/rescue-2026.1.jsonl") {
		if e.Method == http.MethodGet && bytes.Contains(e.Response, []byte(`"config"`)) {
			f.Add([]byte(`{"node_info": ` + string(e.Response) + `}`))
		}
	}
	f.Add([]byte(`{"node_info": {"node": {"uuid": "n", "properties": {"root_device": "{\"size\": 5}"}}, "heartbeat_timeout": 300}}`))
	f.Add([]byte(`{"node_info": {"node": {"uuid": 1}, "config": {"heartbeat_timeout": 1e300}}}`))
	f.Add([]byte(`{"node_info": null}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, done := oddAgent(t, dir)
		_, err := a.setNodeInfo(t.Context(), raw)
		if err != nil {
			if e := asError(err); !e.isInvalidContent() || len(e.Details) > 9000 {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		if a.currentNode().UUID == "" || a.settings.HeartbeatTimeout <= 0 {
			t.Errorf("accepted: node %q, %v", a.currentNode().UUID, a.settings.HeartbeatTimeout)
		}
		if len(*done) > 0 {
			t.Errorf("done: %q", *done)
		}
	})
}

func mustMarshal(t testing.TB, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is given as a key gives a line of authorized_keys, and no more: no options, no second line.
func FuzzAuthorizedKeys(f *testing.F) {
	const key = "AAAAC3NzaC1lZDI1NTE5AAAAIJ2NvdmVyeSBpcyBub3QgYSBrZXkgdGhhdCBhbnlib2R5IGhhcw=="
	f.Add(key, "ssh-ed25519 "+key+" somebody\n# a comment\n")
	f.Add("", `command="id" ssh-ed25519 `+key)
	f.Add("AAAAAWE=", "a AAAAAWE=")
	line := regexp.MustCompile(`^[a-z0-9@.-]{1,64} [A-Za-z0-9+/=]+$`)
	f.Fuzz(func(t *testing.T, parameter, file string) {
		keys, err := authorizedKeys(parameter, file)
		for _, k := range keys {
			if err != nil || !line.MatchString(k) {
				t.Errorf("authorizedKeys(%q, %q) = %q, %v", parameter, file, keys, err)
			}
		}
	})
}

// What is given as a password gives a field of /etc/shadow, and no more.
func FuzzRescueParams(f *testing.F) {
	f.Add([]byte(`{"rescue_password": "$6$rounds=5000$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO", "hashed": true}`))
	f.Add([]byte(`{"rescue_password": "$6$salt$abcdefgh\nroot::0:0::/:/bin/sh", "hashed": true}`))
	f.Add([]byte(`{"rescue_password": null, "hashed": null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var in struct {
			Password string `json:"rescue_password"`
			Hashed   bool   `json:"hashed"`
		}
		if json.Unmarshal(raw, &in) == nil && !in.Hashed {
			return // one in the clear takes long to hash
		}
		var got *accounts
		a, _ := newTestAgent(t, System{Network: func() (netconfig.Kernel, error) { return still{}, nil }, StartSSH: func(_ context.Context, one accounts) (string, error) {
			got = &one
			return "", errors.New("not in a test")
		}})
		if _, err := a.finalizeRescue(t.Context(), raw); err == nil || in.Password != "" && len(in.Password) > 20 && strings.Contains(err.Error(), in.Password) {
			t.Errorf("finalize_rescue %s = %v", raw, err)
		}
		if got == nil {
			return
		}
		_, shadow, _ := got.files()
		if got.name != rescueUser || strings.ContainsAny(got.hash, ":\n") || strings.Count(shadow, "\n") != 2 || !strings.HasPrefix(got.hash, "$") {
			t.Errorf("%s makes %q", raw, shadow)
		}
	})
}

// Whatever the conductor says of TLS, nothing older than 1.2 and no cipher that is not listed is taken.
func FuzzLimitTLS(f *testing.F) {
	f.Add("1.3", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")
	f.Add("1.1", "HIGH:!aNULL")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, minVersion, ciphers string) {
		config := &tls.Config{}
		_, err := LimitTLS(config, minVersion, ciphers)
		if err != nil {
			return
		}
		if config.MinVersion < tls.VersionTLS12 || config.MinVersion == tls.VersionTLS12 && len(config.CipherSuites) == 0 {
			t.Errorf("LimitTLS(%q, %q): version %x, suites %v", minVersion, ciphers, config.MinVersion, config.CipherSuites)
		}
		var known []uint16
		for _, c := range opensslCiphers {
			known = append(known, c.id)
		}
		for _, id := range config.CipherSuites {
			if !slices.Contains(known, id) {
				t.Errorf("LimitTLS(%q, %q) takes %x", minVersion, ciphers, id)
			}
		}
	})
}
