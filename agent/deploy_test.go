// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
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
		Args: []steps.Arg{{Name: "what", Description: "to say", Required: true}},
		Run: func(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
			h.Progress(map[string]int{"percent": 50})
			return map[string]any{"args": j.Args, "node": j.Node.UUID, "ports": len(j.Ports)}, nil
		},
	}, {
		Name: "fail", Interface: "raid", Priority: both,
		Run: func(context.Context, steps.Host, steps.Job) (any, error) { return nil, *v.fail },
	}, {
		Name: "write_image", Interface: "deploy", Priority: map[steps.Phase]int{steps.Deploy: 0}, Deploys: true,
		Run: func(_ context.Context, h steps.Host, j steps.Job) (any, error) {
			if *v.fail != nil {
				return nil, *v.fail
			}
			return steps.Deployed{Text: "image (i) written to device /dev/sda root_uuid=0x1", Disk: "/dev/sda", UUIDs: map[string]string{"root uuid": "0x1"}}, nil
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
	commands, err := NewCommands(a.commands(), quiet, nil)
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
		{"no node", "clean.get_clean_steps", `{"node": []}`, ` InvalidCommandParamsError: node: json: cannot unmarshal array into Go value of type steps.Node`},
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

func TestExecuteStep(t *testing.T) {
	tests := []struct {
		name, command, params string
		fail                  error
		want                  string
	}{
		{"arguments of the step over others", "clean.execute_clean_step",
			`{"step": {"step": "echo", "args": {"what": "b"}, "priority": 1}, "node": {"uuid": "n1"}, "ports": [{"uuid": "p"}], "clean_version": {"vendor_manager": "7"}, "what": "a", "more": 1}`,
			nil, `SUCCEEDED {"clean_result":{"args":{"more":1,"what":"b"},"node":"n1","ports":1},"clean_step":{"step":"echo","args":{"what":"b"},"priority":1}}`},
		{"nothing but the step", "deploy.execute_deploy_step", `{"step": {"step": "echo"}, "deploy_version": null, "ports": null, "node": null}`,
			nil, `SUCCEEDED {"deploy_result":{"args":{},"node":"","ports":0},"deploy_step":{"step":"echo"}}`},
		{"not offered in this phase", "service.execute_service_step", `{"step": {"step": "echo"}}`,
			nil, `SUCCEEDED {"service_result":{"args":{},"node":"","ports":0},"service_step":{"step":"echo"}}`},
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
		{"managers changed", "clean.execute_clean_step", `{"step": {"step": "echo"}, "clean_version": {"vendor_manager": "6"}}`, nil,
			`CLEAN_VERSION_MISMATCH VersionMismatch: hardware managers changed since their steps were listed: map[vendor_manager:6], now map[vendor_manager:7]`},
		{"no step", "clean.execute_clean_step", `{"node": {}}`, nil, `FAILED InvalidCommandParamsError: step: no object with the name of a step`},
		{"step is a text", "clean.execute_clean_step", `{"step": "echo"}`, nil, `FAILED InvalidCommandParamsError: step: no object with the name of a step`},
		{"step without name", "clean.execute_clean_step", `{"step": {"args": {}}}`, nil, `FAILED InvalidCommandParamsError: step: no object with the name of a step`},
		{"node is a text", "clean.execute_clean_step", `{"step": {"step": "echo"}, "node": "n1"}`, nil, `FAILED InvalidCommandParamsError: node: json: cannot unmarshal`},
		{"ports are a text", "clean.execute_clean_step", `{"step": {"step": "echo"}, "ports": "p"}`, nil, `FAILED InvalidCommandParamsError: ports: json: cannot unmarshal`},
		{"version is a text", "clean.execute_clean_step", `{"step": {"step": "echo"}, "clean_version": "7"}`, nil, `FAILED InvalidCommandParamsError: clean_version: json: cannot unmarshal`},
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
	if got := known(do); got != `SUCCEEDED {}` {
		t.Errorf("UUIDs after that = %s", got)
	}
	if d, err := (state{system.StateDir}).deployed(); d != nil || err != nil {
		t.Errorf("the next agent would know %v, %v", d, err)
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
		a, do, _, _ := commandAgent(t, System{InstallUEFI: func(context.Context, string) (string, error) { return "", errors.New("no ESP") }})
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
		{"BIOS, partition image", "bios", `{"root_uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c123"}`, deployed, nil, "FAILED CommandExecutionError: install a BIOS boot loader for a partition image: not supported", "", false},
		{"nothing deployed", "uefi", `{"root_uuid": "0x1"}`, nil, nil, "FAILED DeviceNotFound: no image was written since this machine was started", "", false},
		{"UEFI, fails, which does not matter", "uefi", `{"ignore_bootloader_failure": true}`, deployed, errors.New("no ESP"), "SUCCEEDED ", "WARNING: boot entry for /dev/sda: no ESP; going on", true},
		{"bad parameters", "uefi", `{"root_uuid": 5}`, deployed, nil, "FAILED InvalidCommandParamsError: ", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			made := false
			a, do, _, console := commandAgent(t, System{InstallUEFI: func(_ context.Context, disk string) (string, error) {
				made = true
				return "Boot0007 on " + disk, test.fail
			}})
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
