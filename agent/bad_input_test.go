// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
)

// oddAgent is an agent with the real commands on a machine of fakes, which notes what was done to it.
func oddAgent(t testing.TB, dir string) (a *agent, done *[]string) {
	done = new([]string)
	note := func(s string) { *done = append(*done, s) }
	a = newAgent(Options{Version: "test", Out: new(bytes.Buffer), Log: new(bytes.Buffer), System: System{
		Root: inspecttest.Machine(t, "../inspect/testdata/virtio.txt"), StateDir: dir,
		Machine:  inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/virtio.txt")},
		Network:  func() (netconfig.Kernel, error) { return still{}, nil },
		OpenDisk: func(path string) (steps.Disk, error) { note("open " + path); return nil, context.Canceled },
		LoadKernel: func(_ context.Context, disk string) (string, error) {
			note("load " + disk)
			return "", context.Canceled
		},
		KernelLoaded: func() bool { return false },
		Sync:         func() error { return nil },
		LinksDown:    func() error { note("links down"); return nil },
		KernelLog:    func() ([]byte, error) { return nil, nil },
		StartSSH:     func(context.Context, accounts) (string, error) { note("ssh"); return "key", nil },
		InstallUEFI: func(_ context.Context, _ steps.Host, d steps.Deployed) (string, error) {
			note("boot entry " + d.Disk)
			return "", context.Canceled
		},
		Power: func(_ context.Context, how boot.How) error { note(how.String()); return nil },
	}})
	a.config.Poll = true
	a.host.Transport = noTransport{}
	var err error
	if a.set, err = steps.NewSet(context.Background(), a.host, []steps.Manager{generic.Manager{}}); err != nil {
		t.Fatal(err)
	}
	return a, done
}

// oddValues are what a parameter may be instead of what it should.
var oddValues = []string{
	`null`, `true`, `-0`, `1e400`, `99999999999999999999999`, `""`, `"\ud800"`, `"\u0000"`, `"../../etc/passwd"`, `"https://user:secret@192.0.2.1/"`,
	`[]`, `[null]`, `[[[]]]`, `[{}]`, `{}`, `{"": {}}`, `{"uuid": 1}`, `{"uuid": "n", "properties": []}`, `{"step": {}}`, `{"step": "write_image"}`,
	`{"step": "write_image", "args": []}`, `{"step": "write_image", "args": {"image_info": {"id": {}}}}`, `{"step": "write_image", "args": {"image_info": null, "configdrive": []}}`,
	`{"step": "kexec", "interface": 5, "args": {"": 1}}`, `[{"standby.sync": 1}]`, `[{"standby.sync": {}, "": {}}]`, `[{"standby.prepare_image": {}}]`,
	`{"id": "i", "urls": [null]}`, `{"node": {"uuid": "n"}, "config": []}`, `{"node": {"uuid": "n"}, "config": {"heartbeat_timeout": -1}}`,
	strings.Repeat("[", 5000) + strings.Repeat("]", 5000), strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), `"` + strings.Repeat("x", 1<<16) + `"`,
}

// Every command is given every parameter of the contract in odd forms, missing ones, and ones that nobody knows. Whatever comes, the answer is one that the conductor
// understands, nothing panics, no secret is told, and nothing is done to the machine that was not asked for.
func TestOddParameters(t *testing.T) {
	parameters := []string{"node", "ports", "step", "clean_version", "deploy_version", "service_version", "image_info", "configdrive", "root_uuid", "target_boot_mode",
		"efi_system_part_uuid", "rescue_password", "hashed", "flow", "node_info", "agent_token", "", "no such parameter"}
	// What a command may do whatever its parameters are.
	may := map[string]string{"standby.power_off": "power off", "standby.run_image": "reboot"}
	var names []string
	for _, c := range new(agent).commands() {
		names = append(names, c.Name)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, asked := t.TempDir(), 0
			synctest.Test(t, func(t *testing.T) {
				a, done := oddAgent(t, dir)
				api := newAPI(t, a.commands()...)
				try := func(params string) {
					t.Helper()
					asked++
					*done = nil
					w := ask(api, "POST", "/v1/commands/?wait=true&agent_token="+testToken, `{"name": "`+name+`", "params": `+params+`}`)
					shown := fmt.Sprintf("%.300s: %d %.500s", params, w.Code, w.Body)
					switch w.Code {
					case 200:
						var r Result
						if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
							t.Fatalf("%s: %v", shown, err)
						}
						if r.Status == Running || (r.Status == Failed) != (r.Error != nil) && r.Status != VersionMismatch {
							t.Errorf("%s", shown)
						}
						if r.Error != nil && strings.Contains(r.Error.Details, "panic") {
							t.Errorf("%s", shown)
						}
					case 400, 404:
						checkFault(t, w.Body.Bytes())
					default:
						t.Errorf("%s", shown)
					}
					if strings.Contains(w.Body.String(), "secret") {
						if !strings.Contains(w.Body.String(), `_step"`) { // which is the conductor's own word
							t.Errorf("a secret is told: %s", shown)
						}
					}
					for _, d := range *done {
						if d != may[name] && d != "ssh" {
							t.Errorf("%.300s: %s", params, d)
						}
					}
				}
				try(`{}`)
				for _, p := range parameters {
					for _, v := range oddValues {
						try(fmt.Sprintf(`{%q: %s}`, p, v))
					}
				}
				all := map[string]json.RawMessage{}
				for i := range oddValues {
					for k, p := range parameters {
						all[p] = json.RawMessage(oddValues[(i+k)%len(oddValues)])
					}
					b := new(strings.Builder)
					for _, p := range slices.Sorted(maps.Keys(all)) {
						fmt.Fprintf(b, `, %q: %s`, p, all[p])
					}
					try("{" + strings.TrimPrefix(b.String(), ", ") + "}")
				}
			})
			if want := 1 + len(oddValues)*(len(parameters)+1); asked != want {
				t.Errorf("%d requests, want %d", asked, want)
			}
		})
	}
}
