// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// vendor is a manager with one step of each kind that the commands treat differently.
type vendor struct{ fail *error }

func (vendor) Class() string   { return "VendorManager" }
func (vendor) Name() string    { return "vendor_manager" }
func (vendor) Version() string { return "7" }
func (vendor) Support(context.Context, steps.Host) (steps.Support, error) {
	return steps.Mainline, nil
}

func (v vendor) Steps() []steps.Step {
	both := map[steps.Phase]int{steps.Clean: 10, steps.Deploy: 0}
	return []steps.Step{{
		Name: "echo", Interface: "management", Priority: both, Abortable: true, Reboot: true,
		Args: []steps.Arg{{Name: "what", Description: "to say", Required: true}, {Name: "more", Unlisted: true}},
		Run: func(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
			h.Progress(map[string]int{"percent": 50})
			return map[string]any{"args": j.Args, "node": j.Node.UUID, "ports": len(j.Ports)}, nil
		},
	}, {
		Name: "fail", Interface: "raid", Priority: both,
		Run: func(context.Context, steps.Host, steps.Job) (any, error) { return nil, *v.fail },
	}, {
		Name: "write_image", Interface: "deploy", Priority: map[steps.Phase]int{steps.Deploy: 0}, Deploys: true,
		Args: []steps.Arg{{Name: "image_info", Unlisted: true}, {Name: "configdrive", Unlisted: true}},
		Run: func(_ context.Context, h steps.Host, j steps.Job) (any, error) {
			if *v.fail != nil {
				return nil, *v.fail
			}
			return steps.Deployed{Text: "image (i) written to device /dev/sda root_uuid=0x1", Disk: "/dev/sda", UUIDs: map[string]any{"root uuid": "0x1"}}, nil
		},
	}, {
		Name: "kexec", Interface: "deploy", Priority: map[steps.Phase]int{},
		Run: func(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
			return h.LoadKernel(ctx, j.Deployed.Disk)
		},
	}, {
		Name: "deployed", Interface: "deploy", Priority: map[steps.Phase]int{},
		Run: func(_ context.Context, h steps.Host, j steps.Job) (any, error) { return j.Deployed, nil },
	}}
}

// commandAgent is an agent with the steps of vendor, and its commands.
func commandAgent(t *testing.T, s System) (a *agent, do func(name, params string) Result, fail *error, console *bytes.Buffer) {
	t.Helper()
	a, console = newTestAgent(t, s)
	fail = new(error)
	var err error
	if a.set, err = steps.NewSet(t.Context(), a.host, []steps.Manager{vendor{fail}}); err != nil {
		t.Fatal(err)
	}
	commands, err := NewCommands(a.commands(), quiet, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a, func(name, params string) Result {
		t.Helper()
		r, err := commands.Do(t.Context(), name, json.RawMessage(params), true)
		if err != nil {
			r.Error = asError(err)
		}
		return r
	}, fail, console
}

// text is a result in one line.
func (r Result) text() string {
	if r.Error != nil {
		return fmt.Sprintf("%s %s: %s", r.Status, r.Error.Type, r.Error.Details)
	}
	return fmt.Sprintf("%s %s", r.Status, r.Value)
}

func TestListSteps(t *testing.T) {
	a, do, _, _ := commandAgent(t, System{})
	tests := []struct{ name, command, params, want string }{
		{"clean", "clean.get_clean_steps", `{"node": {"uuid": "n1"}, "ports": []}`, `SUCCEEDED {"clean_steps":{"VendorManager":[` +
			`{"step":"echo","priority":10,"interface":"management","reboot_requested":true,"abortable":true,"argsinfo":{"what":{"description":"to say","required":true}}},` +
			`{"step":"fail","priority":10,"interface":"raid","reboot_requested":false,"abortable":false}]},"hardware_manager_version":{"vendor_manager":"7"}}`},
		{"deploy", "deploy.get_deploy_steps", `{}`, `SUCCEEDED {"deploy_steps":{"VendorManager":[` +
			`{"step":"echo","priority":0,"interface":"management","reboot_requested":true,"argsinfo":{"what":{"description":"to say","required":true}}},` +
			`{"step":"fail","priority":0,"interface":"raid","reboot_requested":false},` +
			`{"step":"write_image","priority":0,"interface":"deploy","reboot_requested":false}]},"hardware_manager_version":{"vendor_manager":"7"}}`},
		{"service: none", "service.get_service_steps", `{"node": null}`, `SUCCEEDED {"hardware_manager_version":{"vendor_manager":"7"},"service_steps":{}}`},
		{"no node", "clean.get_clean_steps", `{"node": []}`, ` InvalidCommandParamsError: node: json: cannot unmarshal array into Go value of type steps.object`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := do(test.command, test.params).text(); got != test.want {
				t.Errorf("%s\n%s\nwant\n%s", test.command, got, test.want)
			}
		})
	}
	if got := a.currentNode().UUID; got != "n1" {
		t.Errorf("node = %q, want n1", got)
	}
}

// Steps of service can be aborted only if they say so, and of two managers' steps of one name the better one is listed.
func TestListedSteps(t *testing.T) {
	a, _ := newTestAgent(t, System{})
	step := func(name string, priority int, abortable bool) steps.Step {
		return steps.Step{Name: name, Interface: "deploy", Abortable: abortable, Priority: map[steps.Phase]int{steps.Clean: priority, steps.Deploy: priority, steps.Service: priority},
			Args: []steps.Arg{{Name: "hidden", Unlisted: true}}}
	}
	var err error
	if a.set, err = steps.NewSet(t.Context(), a.host, []steps.Manager{
		listed{"B", steps.Generic, []steps.Step{step("one", 1, true), step("two", 2, false), step("three", 3, true)}},
		listed{"A", steps.Generic, []steps.Step{step("one", 1, true), step("two", 1, true)}},
		listed{"C", steps.Mainline, []steps.Step{step("three", 0, false)}},
	}); err != nil {
		t.Fatal(err)
	}
	for phase, want := range map[steps.Phase]string{
		steps.Clean: `{"A":[{"step":"one","priority":1,"interface":"deploy","reboot_requested":false,"abortable":true}],` +
			`"B":[{"step":"two","priority":2,"interface":"deploy","reboot_requested":false,"abortable":false}],` +
			`"C":[{"step":"three","priority":0,"interface":"deploy","reboot_requested":false,"abortable":false}]}`,
		steps.Deploy: `{"A":[{"step":"one","priority":1,"interface":"deploy","reboot_requested":false}],` +
			`"B":[{"step":"two","priority":2,"interface":"deploy","reboot_requested":false}],` +
			`"C":[{"step":"three","priority":0,"interface":"deploy","reboot_requested":false}]}`,
		steps.Service: `{"A":[{"step":"one","priority":1,"interface":"deploy","reboot_requested":false,"abortable":true}],` +
			`"B":[{"step":"two","priority":2,"interface":"deploy","reboot_requested":false}],` +
			`"C":[{"step":"three","priority":0,"interface":"deploy","reboot_requested":false}]}`,
	} {
		v, err := a.listSteps(t.Context(), phase, json.RawMessage(`{"node": null}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := onWire(t, v.(map[string]any)[string(phase)+"_steps"]); got != want {
			t.Errorf("%s steps\n%s\nwant\n%s", phase, got, want)
		}
	}
	if got, want := fmt.Sprint(a.set.Versions()), "map[a:1 b:1 c:1]"; got != want {
		t.Errorf("versions %s, want %s", got, want)
	}
}

// listed is a manager with a list of steps.
type listed struct {
	class   string
	support steps.Support
	steps   []steps.Step
}

func (l listed) Class() string       { return l.class }
func (l listed) Name() string        { return strings.ToLower(l.class) }
func (listed) Version() string       { return "1" }
func (l listed) Steps() []steps.Step { return l.steps }
func (l listed) Support(context.Context, steps.Host) (steps.Support, error) {
	return l.support, nil
}

// Where a command brings another node, the disk that its hints name is waited for; the command goes on if there is none.
func TestNodeChanges(t *testing.T) {
	const other = `{"uuid": "n2", "properties": {"root_device": {"serial": "none-such"}}}`
	for _, test := range []struct {
		name, command, params string
		took                  time.Duration
		want                  string
	}{
		{"the same", "clean.get_clean_steps", `{"node": {"uuid": "n1", "properties": {"root_device": {"serial": "none-such"}}}}`, 0, "SUCCEEDED "},
		{"another, whose disk is there", "clean.get_clean_steps", `{"node": {"uuid": "n2", "properties": {"root_device": {"serial": "root-disk"}}}}`, 0, "SUCCEEDED "},
		{"another, listing", "clean.get_clean_steps", `{"node": ` + other + `}`, 6 * time.Second, "SUCCEEDED "},
		{"another, step", "deploy.execute_deploy_step", `{"step": {"step": "fail"}, "node": ` + other + `}`, 6 * time.Second, "SUCCEEDED "},
		{"another, whose hints are wrong", "clean.get_clean_steps", `{"node": {"uuid": "n2", "properties": {"root_device": 5}}}`, 0, "SUCCEEDED "},
		{"another, polled", "poll.set_node_info", `{"node_info": {"node": ` + other + `, "config": {"heartbeat_timeout": 300}}}`, 6 * time.Second, "SUCCEEDED "},
		{"none", "clean.get_clean_steps", `{"node": null}`, 0, "SUCCEEDED "},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			machine := inspecttest.Machine(t, "../inspect/testdata/virtio.txt")
			synctest.Test(t, func(t *testing.T) {
				a, do, _, console := commandAgent(t, System{StateDir: dir, Machine: inspect.Machine{FS: machine}})
				a.config.Poll = true
				a.host.DiskAttempts, a.host.DiskDelay = 3, 3*time.Second
				if got := do("clean.get_clean_steps", `{"node": {"uuid": "n1"}}`).text(); !strings.HasPrefix(got, "SUCCEEDED") {
					t.Fatal(got)
				}
				begin := time.Now()
				if got := do(test.command, test.params).text(); !strings.HasPrefix(got, test.want) {
					t.Errorf("%s = %s, want %s", test.command, got, test.want)
				}
				if took := time.Since(begin); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				if strings.Contains(test.name, "another") != strings.Contains(console.String(), "node: n2, was n1") {
					t.Errorf("console %s", console)
				}
			})
		})
	}
}

// What cannot be right about an image is said in the answer to the request, and nothing begins.
func TestPrepareImageRefuses(t *testing.T) {
	const sum = `"os_hash_algo": "sha256", "os_hash_value": "` + "e280785b2c913f47e975a22d468b0d072c30b854ac00b5ee1416a113b754f508" + `"`
	const good = `"id": "i", "urls": ["http://192.0.2.1/i"], ` + sum
	for _, test := range []struct{ name, params, want string }{
		{"no image", `{}`, "argument image_info is missing"},
		{"image is null", `{"image_info": null}`, "image_info: missing"},
		{"image is a text", `{"image_info": "i"}`, "cannot unmarshal string"},
		{"image is a list", `{"image_info": []}`, "cannot unmarshal array"},
		{"no id", `{"image_info": {"urls": ["http://192.0.2.1/i"], ` + sum + `}}`, "image_info.id: missing"},
		{"id is a number", `{"image_info": {"id": 1, "urls": ["http://192.0.2.1/i"], ` + sum + `}}`, "cannot unmarshal number"},
		{"no URLs", `{"image_info": {"id": "i", ` + sum + `}}`, "image_info.urls: "},
		{"URLs are empty", `{"image_info": {"id": "i", "urls": [], ` + sum + `}}`, "image_info.urls: "},
		{"URLs are a text", `{"image_info": {"id": "i", "urls": "http://192.0.2.1/i", ` + sum + `}}`, "cannot unmarshal string"},
		{"URL is a file's", `{"image_info": {"id": "i", "urls": ["file:///etc/shadow"], ` + sum + `}}`, "image_info.urls[0]: "},
		{"no digest", `{"image_info": {"id": "i", "urls": ["http://192.0.2.1/i"]}}`, "an image without a digest"},
		{"algorithm alone", `{"image_info": {"id": "i", "urls": ["http://192.0.2.1/i"], "os_hash_algo": "sha256"}}`, "one without the other"},
		{"digest is a number", `{"image_info": {"id": "i", "urls": ["http://192.0.2.1/i"], "checksum": 5}}`, "cannot unmarshal number"},
		{"checksum is too short", `{"image_info": {"id": "i", "urls": ["http://192.0.2.1/i"], "checksum": "abc"}}`, "checksum: "},
		{"MD5 is not allowed", `{"image_info": {"id": "i", "urls": ["http://192.0.2.1/i"], "checksum": "d41d8cd98f00b204e9800998ecf8427e"}}`, "does not allow MD5"},
		{"config drive is an object", `{"image_info": {` + good + `}, "configdrive": {"meta_data": {}}}`, "cannot unmarshal object"},
		{"config drive is a number", `{"image_info": {` + good + `}, "configdrive": 7}`, "cannot unmarshal number"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, _ := newTestAgent(t, System{})
			a.host.Download.RefuseMD5 = true
			var err error
			if a.set, err = steps.NewSet(t.Context(), a.host, []steps.Manager{generic.Manager{}}); err != nil {
				t.Fatal(err)
			}
			api := newAPI(t, a.commands()...)
			w := ask(api, "POST", "/v1/commands/?agent_token="+testToken, `{"name": "standby.prepare_image", "params": `+test.params+`}`)
			if w.Code != 400 || !strings.Contains(w.Body.String(), "Invalid command parameters: ") || !strings.Contains(w.Body.String(), test.want) {
				t.Errorf("%d %s, want 400 and %q", w.Code, w.Body, test.want)
			}
			checkFault(t, w.Body.Bytes())
			if list := api.commands.List(); len(list) > 0 {
				t.Errorf("it has begun: %v", list)
			}
		})
	}
}

func TestExecuteStep(t *testing.T) {
	tests := []struct {
		name, command, params string
		fail                  error
		want                  string
	}{
		{"arguments of the step over others", "clean.execute_clean_step",
			`{"step": {"step": "echo", "args": {"what": "b"}, "priority": 1}, "node": {"uuid": "n1"}, "ports": [{"uuid": "p"}], "clean_version": {"vendor_manager": "7"}, "what": "a", "more": 1}`,
			nil, `SUCCEEDED {"clean_result":{"args":{"more":1,"what":"b"},"node":"n1","ports":1},"clean_step":{"step":"echo","args":{"what":"b"},"priority":1}}`},
		{"nothing but the step", "deploy.execute_deploy_step", `{"step": {"step": "fail"}, "deploy_version": null, "ports": null, "node": null}`,
			nil, `SUCCEEDED {"deploy_result":null,"deploy_step":{"step":"fail"}}`},
		{"not offered in this phase", "service.execute_service_step", `{"step": {"step": "echo", "args": {"what": null}}}`,
			nil, `SUCCEEDED {"service_result":{"args":{"what":null},"node":"","ports":0},"service_step":{"step":"echo","args":{"what":null}}}`},
		{"deployed", "deploy.execute_deploy_step", `{"step": {"step": "write_image"}}`,
			nil, `SUCCEEDED {"deploy_result":{"result":"prepare_image: image (i) written to device /dev/sda root_uuid=0x1"},"deploy_step":{"step":"write_image"}}`},
		{"clean error", "clean.execute_clean_step", `{"step": {"step": "fail"}}`, errors.New("bang"),
			`FAILED CleaningError: Unexpected exception performing clean step fail. bang`},
		{"deploy error", "deploy.execute_deploy_step", `{"step": {"step": "fail"}}`, errors.New("bang"),
			`FAILED DeploymentError: Unexpected exception performing deploy step fail. bang`},
		{"service error", "service.execute_service_step", `{"step": {"step": "fail"}}`, errors.New("bang"),
			`FAILED ServicingError: Unexpected exception performing service step fail. bang`},
		{"known error", "deploy.execute_deploy_step", `{"step": {"step": "fail"}}`, fmt.Errorf("write: %w", stream.ErrDigest),
			`FAILED ImageChecksumError: write: digest does not match`},
		{"bad arguments", "deploy.execute_deploy_step", `{"step": {"step": "fail"}}`, fmt.Errorf("%w: image_info: missing", steps.ErrArgs),
			`FAILED InvalidCommandParamsError: invalid arguments: image_info: missing`},
		{"no such step", "clean.execute_clean_step", `{"step": {"step": "none"}}`, nil,
			`FAILED HardwareManagerMethodNotFound: no hardware manager has the step "none"`},
		{"the step of another deploy interface", "deploy.execute_deploy_step", `{"step": {"step": "execute_bootc_install", "interface": "deploy", "args": {"image_source": "oci://registry/image", "configdrive": null, "oci_pull_secret": null}}}`, nil,
			`FAILED HardwareManagerMethodNotFound: no hardware manager has the step "execute_bootc_install"`},
		{"unknown argument", "clean.execute_clean_step", `{"step": {"step": "echo", "args": {"what": 1, "whit": 2}}}`, nil,
			`FAILED CleaningError: Unexpected exception performing clean step echo. unknown argument "whit"`},
		{"unknown argument beside the step", "deploy.execute_deploy_step", `{"step": {"step": "fail"}, "force": true}`, nil,
			`FAILED DeploymentError: Unexpected exception performing deploy step fail. unknown argument "force"`},
		{"required argument missing", "service.execute_service_step", `{"step": {"step": "echo", "args": {"more": 1}}}`, nil,
			`FAILED ServicingError: Unexpected exception performing service step echo. argument what is missing`},
		{"managers changed", "clean.execute_clean_step", `{"step": {"step": "echo"}, "clean_version": {"vendor_manager": "6"}}`, nil,
			`CLEAN_VERSION_MISMATCH VersionMismatch: hardware managers changed since their steps were listed: map[vendor_manager:6], now map[vendor_manager:7]`},
		{"a manager more", "deploy.execute_deploy_step", `{"step": {"step": "fail"}, "deploy_version": {"vendor_manager": "7", "other": "1"}}`, nil, `CLEAN_VERSION_MISMATCH VersionMismatch: `},
		{"no managers", "clean.execute_clean_step", `{"step": {"step": "fail"}, "clean_version": {}}`, nil, `CLEAN_VERSION_MISMATCH VersionMismatch: `},
		{"version is a number", "clean.execute_clean_step", `{"step": {"step": "fail"}, "clean_version": {"vendor_manager": 7}}`, nil, `CLEAN_VERSION_MISMATCH VersionMismatch: `},
		{"version is a text", "clean.execute_clean_step", `{"step": {"step": "echo"}, "clean_version": "7"}`, nil,
			`CLEAN_VERSION_MISMATCH VersionMismatch: hardware managers changed since their steps were listed: clean_version is "\"7\""`},
		{"no step", "clean.execute_clean_step", `{"node": {}}`, nil, `FAILED InvalidCommandParamsError: step: no object with the name of a step`},
		{"step is a text", "clean.execute_clean_step", `{"step": "echo"}`, nil, `FAILED InvalidCommandParamsError: step: no object with the name of a step`},
		{"step without name", "clean.execute_clean_step", `{"step": {"args": {}}}`, nil, `FAILED InvalidCommandParamsError: step: no object with the name of a step`},
		{"node is a text", "clean.execute_clean_step", `{"step": {"step": "echo"}, "node": "n1"}`, nil, `FAILED InvalidCommandParamsError: node: json: cannot unmarshal`},
		{"ports are a text", "clean.execute_clean_step", `{"step": {"step": "echo"}, "ports": "p"}`, nil, `FAILED InvalidCommandParamsError: ports: json: cannot unmarshal`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, do, fail, console := commandAgent(t, System{})
			*fail = test.fail
			got := do(test.command, test.params).text()
			if !strings.HasPrefix(got, test.want) {
				t.Errorf("%s\n%s\nwant\n%s", test.command, got, test.want)
			}
			if test.fail != nil {
				wantText(t, "console", console.String(), "step: fail FAILED: "+test.fail.Error())
			}
		})
	}
}

// What a step wrote is known to later steps and to the next agent of this boot, until another one begins to write.
func TestDeployedIsForgotten(t *testing.T) {
	system := System{StateDir: t.TempDir()}
	_, do, fail, _ := commandAgent(t, system)
	known := func(do func(string, string) Result) string {
		return do("standby.get_partition_uuids", `{}`).text()
	}
	if got := known(do); got != `SUCCEEDED {}` {
		t.Errorf("UUIDs before = %s", got)
	}
	if got, want := do("standby.prepare_image", `{"image_info": {}}`).text(), `SUCCEEDED {"result":"prepare_image: image (i) written to device /dev/sda root_uuid=0x1"}`; got != want {
		t.Errorf("prepare_image = %s, want %s", got, want)
	}
	for range 2 { // a disk that has the image by what the agent knows may have lost it since
		if got, want := do("standby.cache_image", `{"image_info": {}, "force": false, "configdrive": null}`).text(), `SUCCEEDED {"result":"cache_image: image (i) cached to device /dev/sda root_uuid=0x1"}`; got != want {
			t.Errorf("cache_image = %s, want %s", got, want)
		}
	}
	next, again, _, _ := commandAgent(t, system)
	if err := next.remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	for who, do := range map[string]func(string, string) Result{"this": do, "the next": again} {
		if got, want := known(do), `SUCCEEDED {"root uuid":"0x1"}`; got != want {
			t.Errorf("UUIDs of %s agent = %s, want %s", who, got, want)
		}
		if got, want := do("deploy.execute_deploy_step", `{"step": {"step": "deployed"}}`).text(), `"disk":"/dev/sda"`; !strings.Contains(got, want) {
			t.Errorf("what steps of %s agent know = %s, want %s", who, got, want)
		}
	}
	*fail = errors.New("bang")
	if got := do("standby.prepare_image", `{"image_info": {}}`).text(); got != "FAILED CommandExecutionError: bang" {
		t.Errorf("prepare_image that fails = %s", got)
	}
	if got := do("standby.cache_image", `{"image_info": {}}`).text(); got != "FAILED CommandExecutionError: bang" {
		t.Errorf("cache_image that fails = %s", got)
	}
	if got := known(do); got != `SUCCEEDED {}` {
		t.Errorf("UUIDs after that = %s", got)
	}
	if d, err := (state{system.StateDir}).deployed(); d != nil || err != nil {
		t.Errorf("the next agent would know %v, %v", d, err)
	}
}

// sharer is an image that is shared.
type sharer struct{ closed bool }

func (*sharer) Share(context.Context, time.Duration, float64) {}
func (s *sharer) Close() error                                { s.closed = true; return nil }

// An image is shared through the steps that follow its deployment, and no longer: later ones may stop the array that it is read from.
func TestSharingEnds(t *testing.T) {
	for _, c := range []struct {
		name, command, params string
		closed                bool
	}{
		{"a step of the deployment", "deploy.execute_deploy_step", `{"step": {"step": "deployed"}}`, false},
		{"another image", "standby.prepare_image", `{"image_info": {}}`, true},
		{"cleaning", "clean.execute_clean_step", `{"step": {"step": "echo", "args": {"what": 1}}, "node": {}, "ports": []}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, do, _, _ := commandAgent(t, System{})
			s := &sharer{}
			a.share(s)
			if r := do(c.command, c.params); r.Error != nil {
				t.Fatal(r.text())
			}
			if s.closed != c.closed {
				t.Errorf("sharing ended: %v, want %v", s.closed, c.closed)
			}
		})
	}
}

// Only a kernel of the last deployment, and of one that succeeded, is started.
func TestStaleKernel(t *testing.T) {
	const write, load = `{"step": {"step": "write_image"}}`, `{"step": {"step": "kexec"}}`
	tests := []struct {
		name  string
		steps []string // "!" in front: it fails
		want  string
	}{
		{"loaded", []string{write, load}, "kexec"},
		{"not loaded", []string{write}, "reboot"},
		{"loaded by hand before", []string{"by hand", write}, "reboot"},
		{"loaded by hand, nothing deployed", []string{"by hand"}, "reboot"},
		{"another image after it", []string{write, load, write}, "reboot"},
		{"another image that fails after it", []string{write, load, "!" + write}, "reboot"},
		{"loading again fails", []string{write, load, "!" + load}, "reboot"},
		{"loading fails after it has loaded", []string{write, "late!" + load}, "reboot"},
		{"all over again", []string{write, load, "!" + write, write, load}, "kexec"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				loaded, left := false, ""
				var loadErr error
				late := false
				_, do, fail, _ := commandAgent(t, System{
					StateDir: dir,
					LoadKernel: func(context.Context, string) (string, error) {
						if loadErr == nil || late {
							loaded = true
						}
						return "entry", loadErr
					},
					KernelLoaded: func() bool { return loaded },
					UnloadKernel: func() error { loaded = false; return nil },
					Sync:         func() error { return nil },
					Power:        func(_ context.Context, how boot.How) error { left = how.String(); return nil },
				})
				for _, s := range test.steps {
					if s == "by hand" {
						loaded = true
						continue
					}
					bare, fails := strings.CutPrefix(strings.TrimPrefix(s, "late"), "!")
					*fail, loadErr, late = nil, nil, strings.HasPrefix(s, "late")
					if fails {
						*fail, loadErr = errors.New("bang"), errors.New("bang")
					}
					if r := do("deploy.execute_deploy_step", bare); (r.Status == Failed) != fails {
						t.Fatalf("%s: %s", s, r.text())
					}
				}
				do("standby.run_image", `{}`)
				if left != test.want {
					t.Errorf("left by %s, want %s", left, test.want)
				}
			})
		})
	}
}

// A disk that takes nothing any more does not keep the machine from being started.
func TestSyncHangs(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		hang, left := make(chan struct{}), ""
		defer close(hang)
		_, do, _, console := commandAgent(t, System{
			StateDir: dir,
			Sync:     func() error { <-hang; return nil },
			Power:    func(_ context.Context, how boot.How) error { left = how.String(); return nil },
		})
		if got, want := do("standby.sync", `{}`).text(), "FAILED CommandExecutionError: sync: a disk has not taken what is in memory within 1m0s"; got != want {
			t.Errorf("sync = %s, want %s", got, want)
		}
		if got := do("standby.run_image", `{}`).text(); !strings.HasPrefix(got, "SUCCEEDED") || left != "reboot" {
			t.Errorf("run_image = %s, left by %q", got, left)
		}
		wantText(t, "console", console.String(), "hand-off: sync: a disk has not taken what is in memory within 1m0s; going on")
	})
}

// The setting counts if the conductor says nothing.
func TestIgnoreBootloaderFailure(t *testing.T) {
	for _, test := range []struct {
		setting bool
		params  string
		want    string
	}{
		{true, `{}`, "SUCCEEDED "},
		{true, `{"ignore_bootloader_failure": null}`, "SUCCEEDED "},
		{true, `{"ignore_bootloader_failure": false}`, "FAILED DeviceNotFound: "},
		{false, `{"ignore_bootloader_failure": null}`, "FAILED DeviceNotFound: "},
	} {
		a, do, _, _ := commandAgent(t, System{InstallUEFI: func(context.Context, steps.Host, steps.Deployed) (string, error) { return "", errors.New("no ESP") }})
		a.inventory = inspect.Inventory{Boot: inspect.Boot{Mode: "uefi"}}
		a.deployed = &steps.Deployed{Disk: "/dev/sda"}
		a.config.IgnoreBootloader = test.setting
		if got := do("image.install_bootloader", test.params).text(); !strings.HasPrefix(got, test.want) {
			t.Errorf("setting %v, %s: %s, want %s", test.setting, test.params, got, test.want)
		}
	}
}

func TestInstallBootloader(t *testing.T) {
	deployed := &steps.Deployed{Disk: "/dev/sda"}
	array := &steps.Deployed{Disk: "/dev/md0"}
	volume := &steps.Deployed{Disk: "/dev/sda", Volume: "vg/root"}
	const zed = `{"root_uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c123", "efi_system_part_uuid": null, "prep_boot_part_uuid": null, "target_boot_mode": "bios"}`
	tests := []struct {
		name     string
		mode     string // of the ramdisk's own boot
		params   string
		deployed *steps.Deployed
		fail     error
		want     string
		console  string
		entry    bool
	}{
		{"UEFI", "uefi", `{"root_uuid": "0x00000000", "target_boot_mode": "uefi"}`, deployed, nil, "SUCCEEDED ", "boot loader: Boot0007 on /dev/sda", true},
		{"UEFI, nothing said", "uefi", `{}`, deployed, nil, "SUCCEEDED ", "boot loader: Boot0007 on /dev/sda", true},
		{"UEFI, other mode asked for", "uefi", `{"root_uuid": null, "target_boot_mode": "bios"}`, deployed, nil, "SUCCEEDED ", "WARNING: the node is to boot by bios, this ramdisk was booted by uefi", true},
		{"UEFI, fails", "uefi", `{"target_boot_mode": "uefi"}`, deployed, errors.New("no ESP"), "FAILED DeviceNotFound: boot entry for /dev/sda: no ESP", "", true},
		{"BIOS, whole disk", "bios", `{"root_uuid": "0x1234abcd", "target_boot_mode": "bios"}`, deployed, nil, "SUCCEEDED ", "BIOS: the image's own is used", false},
		{"BIOS, UEFI asked for", "bios", `{"root_uuid": "", "target_boot_mode": "uefi"}`, deployed, nil, "SUCCEEDED ", "WARNING: the node is to boot by uefi", false},
		{"BIOS, partition image, as Zed asks", "bios", zed, deployed, nil, "SUCCEEDED ", "boot loader: /dev/sda: GRUB for 1be26c0b-03f2-4d2e-ae87-c02d7f33c123", false},
		{"BIOS, whole disk on an array", "bios", `{"root_uuid": "0x1234abcd"}`, array, nil, "SUCCEEDED ", "boot loader: /dev/md0: GRUB for \n", false},
		{"BIOS, whole disk on an array, nothing said", "bios", `{"root_uuid": null}`, array, nil, "SUCCEEDED ", "boot loader: /dev/md0: GRUB for \n", false},
		{"BIOS, whole disk on an array, with its root", "bios", zed, array, nil, "SUCCEEDED ", "boot loader: /dev/md0: GRUB for 1be26c0b", false},
		{"BIOS, logical volume", "bios", zed, volume, nil, "SUCCEEDED ", "boot loader: /dev/sda vg/root: GRUB for 1be26c0b", false},
		{"BIOS, logical volume, nothing said", "bios", `{}`, volume, nil, "SUCCEEDED ", "boot loader: /dev/sda vg/root: GRUB for \n", false},
		{"BIOS, image without GRUB", "bios", zed, deployed, fmt.Errorf("no kernel: %w", image.ErrNoImageLoader), "FAILED InvalidImage: BIOS boot loader on /dev/sda: no kernel", "", false},
		{"BIOS, image without GRUB, which does not matter", "bios", `{"root_uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c123", "ignore_bootloader_failure": true}`, deployed, image.ErrNoImageLoader, "SUCCEEDED ", "WARNING: BIOS boot loader on /dev/sda", false},
		{"BIOS, another root", "bios", zed, deployed, image.ErrNoRoot, "FAILED DeviceNotFound: BIOS boot loader on /dev/sda: no partition has this UUID", "", false},
		{"BIOS, disk fails", "bios", zed, deployed, errors.New("input/output error"), "FAILED CommandExecutionError: BIOS boot loader on /dev/sda: input/output error", "", false},
		{"nothing deployed", "uefi", `{"root_uuid": "0x1"}`, nil, nil, "FAILED DeviceNotFound: no image was written since this machine was started", "", false},
		{"UEFI, fails, which does not matter", "uefi", `{"ignore_bootloader_failure": true}`, deployed, errors.New("no ESP"), "SUCCEEDED ", "WARNING: boot entry for /dev/sda: no ESP; going on", true},
		{"bad parameters", "uefi", `{"root_uuid": 5}`, deployed, nil, "FAILED InvalidCommandParamsError: ", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			made := false
			a, do, _, console := commandAgent(t, System{InstallUEFI: func(_ context.Context, _ steps.Host, d steps.Deployed) (string, error) {
				made = true
				return "Boot0007 on " + d.Disk, test.fail
			}, InstallBIOS: func(_ context.Context, _ steps.Host, d steps.Deployed, root string) (string, error) {
				return strings.TrimSpace(d.Disk+" "+d.Volume) + ": GRUB for " + root, test.fail
			}, Machine: inspect.Machine{FS: fstest.MapFS{"sys/block/md0/md/array_state": {Data: []byte("clean\n")}}}})
			a.inventory = inspect.Inventory{Boot: inspect.Boot{Mode: test.mode}}
			a.deployed = test.deployed
			if got := do("image.install_bootloader", test.params).text(); !strings.HasPrefix(got, test.want) {
				t.Errorf("install_bootloader = %s, want %s", got, test.want)
			}
			if made != test.entry {
				t.Errorf("boot entry asked for: %v, want %v", made, test.entry)
			}
			wantText(t, "console", console.String(), test.console)
		})
	}
}

func TestLeave(t *testing.T) {
	tests := []struct {
		name     string
		command  string
		loaded   bool
		watchdog time.Duration
		fail     map[boot.How]error
		want     string // what was done
		result   string
		console  string
	}{
		{"reboot", "standby.run_image", false, time.Minute, nil, "sync reboot", "SUCCEEDED ", "hand-off: reboot"},
		{"kexec", "standby.run_image", true, 0, nil, "sync kexec", "SUCCEEDED ", "hand-off: start the loaded kernel (kexec)"},
		{"kexec with a watchdog", "standby.run_image", true, time.Minute, nil, "sync watchdog 1m0s kexec", "SUCCEEDED ", "hand-off: dog is armed"},
		{"kexec fails", "standby.run_image", true, 0, map[boot.How]error{boot.Kexec: errors.New("bang")}, "sync kexec reboot", "SUCCEEDED ",
			"bang; rebooting through the firmware instead"},
		{"all fails", "standby.run_image", true, 0, map[boot.How]error{boot.Kexec: errors.New("bang"), boot.Reboot: errors.New("boom")}, "sync kexec reboot",
			"FAILED CommandExecutionError: start the loaded kernel (kexec): boom", ""},
		{"power off", "standby.power_off", true, time.Minute, nil, "sync power off", "SUCCEEDED ", "hand-off: power off"},
		{"power off fails", "standby.power_off", false, 0, map[boot.How]error{boot.PowerOff: errors.New("bang")}, "sync power off",
			"FAILED CommandExecutionError: power off: bang", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var done []string
				start := time.Now()
				a, do, _, console := commandAgent(t, System{
					StateDir:     dir,
					Sync:         func() error { done = append(done, "sync"); return nil },
					KernelLoaded: func() bool { return test.loaded },
					ArmWatchdog: func(d time.Duration) (string, error) {
						done = append(done, "watchdog "+d.String())
						return "dog", nil
					},
					Power: func(_ context.Context, how boot.How) error {
						if time.Since(start) < answerTime {
							t.Error("the answer had no time to get through")
						}
						done = append(done, how.String())
						return test.fail[how]
					},
				})
				a.config.KexecWatchdog = test.watchdog
				a.deployed = &steps.Deployed{Disk: "/dev/sda"}
				if got := do(test.command, `{}`).text(); !strings.HasPrefix(got, test.result) {
					t.Errorf("%s = %s, want %s", test.command, got, test.result)
				}
				if got := strings.Join(done, " "); got != test.want {
					t.Errorf("done: %s, want %s", got, test.want)
				}
				wantText(t, "console", console.String(), test.console)
			})
		})
	}
}

// A machine that lost its power while an image was written must not become active: its conductor goes on behind the step that was running.
func TestNotWhole(t *testing.T) {
	var half []byte
	disk := streamtest.NewDisk(4<<20, 512)
	if _, err := stream.Write(t.Context(), disk, stream.NewExtents(bytes.NewReader(make([]byte, 3<<20)), -1), stream.Options{
		Finish: func(context.Context, []byte, int64) error { half = bytes.Clone(disk.Bytes); return nil }}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		read     []byte
		err      error
		deployed *steps.Deployed
		want     string // of the error
	}{
		{"no image was ever written", make([]byte, 4096), nil, nil, ""},
		{"the image is whole", disk.Bytes, nil, nil, ""},
		{"the image is not whole", half, nil, nil, "/dev/sda: the machine was restarted while an image was written to this disk"},
		{"that of another disk is not, and this one was deployed", half, nil, &steps.Deployed{}, ""},
		{"the disk cannot be read", nil, errors.New("input/output error"), nil, ""},
		{"the disk is too short", []byte{1}, nil, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, _ := newTestAgent(t, System{
				Machine:  inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/virtio.txt")},
				ReadDisk: func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(test.read)), test.err },
			})
			a.deployed = test.deployed
			c := newCommands(t, nil, a.standbyCommands()...)
			_, err := c.Do(t.Context(), "standby.get_partition_uuids", []byte("{}"), true)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("get_partition_uuids: %v, want %q", err, test.want)
			}
		})
	}
}
