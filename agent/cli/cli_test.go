// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
)

// run runs one command line.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), agent.Parts{Managers: []steps.Manager{generic.Manager{}}}, args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"nothing", "", 2, "", "usage: ironhand COMMAND"},
		{"help", "--help", 0, "Exit status", ""},
		{"help by word", "help", 0, "Exit status", ""},
		{"unknown command", "erase", 2, "", `no command "erase"`},
		{"unknown flag", "inspect --colour", 2, "", "colour"},
		{"unknown value", "inspect --format xml", 2, "", "xml"},
		{"too many arguments", "version now", 2, "", `"now"`},
		{"version", "version", 0, "ironhand ", ""},
		{"steps", "steps --phase deploy", 0, "write_image", ""},
		{"steps as JSON", "steps --format json", 0, `"step": "kexec"`, ""},
		{"steps in no format", "steps --format xml", 2, "", "xml"},
		{"agent with an argument", "agent now", 2, "", `"now"`},
		{"agent with half a flag", "agent --api-url", 2, "", "api-url"},
		{"help of an unknown command", "erase --help", 2, "", `no command "erase"`},
		{"flags behind arguments", "write " + file + " " + file + " --progress loud", 2, "", "loud"},
		{"steps of no phase", "steps --phase lunch", 2, "", "lunch"},
		{"write without disk", "write image", 2, "", "argument is missing"},
		{"write to a file", "write " + file + " " + file, 1, "", "not a block device"},
		{"write to a character device", "write --yes " + file + " /dev/null", 1, "", "/dev/null is not a block device"},
		{"write to nothing", "write --yes " + file + " " + file + "-none", 1, "", "no such file"},
		{"write with a config drive that is none", "write --yes " + file + " /dev/null --config-drive " + file + "-none", 1, "", "no such file"},
		{"write from nowhere", "write " + file + "-none " + file, 1, "", "no such file"},
		{"write from another kind of server", "write ftp://192.0.2.1/image /dev/null", 2, "", "ftp://...: images are fetched by http, https, oci and magnet links, or are files"},
		{"write with a bad digest", "write " + file + " " + file + " --digest sha256:12", 2, "", "--digest"},
		{"write with a digest without algorithm", "write " + file + " " + file + " --digest 12", 2, "", "algorithm:hex"},
		{"write with a bad read-back", "write --read-back much " + file + " " + file, 2, "", "read-back"},
		{"kexec of nothing", "kexec", 2, "", "either --from or --kernel"},
		{"kexec of both", "kexec --from /dev/sda --kernel x", 2, "", "either --from or --kernel"},
		{"kexec of what is no kernel", "kexec --kernel " + file, 1, "", "ironhand kexec: "},
		{"kexec of no file", "kexec --kernel " + file + "-none", 1, "", "ironhand kexec: "},
		{"kexec from what is no disk", "kexec --from " + file, 1, "", "ironhand kexec: "},
		{"kexec with what the disk says", "kexec --from /dev/sda --cmdline x", 2, "", "from the disk"},
		{"run without a step", "run", 2, "", "argument is missing"},
		{"run of two steps", "run erase_pstore kexec", 2, "", `"kexec"`},
		{"run of no step", "run format_everything", 2, "", "format_everything"},
		{"run with arguments that are none", "run kexec --args [1]", 2, "", "--args: want a JSON object"},
		{"run for a node that is none", "run kexec --node " + file, 1, "", "unexpected end of JSON"},
		{"run for a node that is not there", "run kexec --node " + file + "-none", 1, "", "no such file"},
		{"run that fails", "run kexec --yes", 1, "", "no image was written"},
		{"run with wrong arguments", `run clean_uefi_nvram --yes --args {"match_patterns":3}`, 2, "", "match_patterns"},
		{"run without an answer", "run erase_pstore", 1, "", "not done: the answer was not yes"},
		{"burnin with an argument", "burnin quick", 2, "", `"quick"`},
		{"burnin that goes on", "burnin --resume", 2, "", "resume"},
		{"burnin of no profile", "burnin --profile " + file + "-none", 2, "", "none of quick, standard and full"},
		{"burnin of a profile that is none", "burnin --profile " + file, 2, "", "line 1"},
		{"burnin of disks without names", "burnin --disks ,", 2, "", "want names"},
		{"burnin with a report that cannot be", "burnin --report " + file + "/x", 3, "", "not a directory"},
		{"net without verb", "net", 2, "", "argument is missing"},
		{"net with another", "net down", 2, "", `"down"`},
		{"net plan of broken data", "net plan --from " + file, 1, "", "line 1"},
		{"net plan of nothing", "net plan --from " + file + "-none", 1, "", "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr := run(t, "", strings.Fields(test.args)...)
			if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit %d, %q, %q", code, stdout, stderr, test.code, test.stdout, test.stderr)
			}
			if code == 0 && stderr != "" || code == 2 && stdout != "" {
				t.Errorf("exit %d, but stdout %q and stderr %q", code, stdout, stderr)
			}
		})
	}
}

// Every command's help has its options and an example that begins with the command.
func TestHelp(t *testing.T) {
	_, all, _ := run(t, "", "--help")
	for _, c := range commands() {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(all, "  "+c.name+" ") {
				t.Error("not in the list of commands")
			}
			code, stdout, stderr := run(t, "", c.name, "--help")
			if code != 0 || stderr != "" {
				t.Fatalf("exit %d, stderr %q", code, stderr)
			}
			if !strings.Contains(stdout, "\nexample: ironhand "+c.name+" ") {
				t.Errorf("no example:\n%s", stdout)
			}
			for _, word := range strings.Fields(c.args) {
				if option, _, _ := strings.Cut(strings.Trim(word, "[]|."), "="); strings.HasPrefix(option, "--") && !strings.Contains(stdout, "\n  "+option) {
					t.Errorf("the usage has %s, the list of options does not:\n%s", option, stdout)
				}
			}
		})
	}
}

func TestVersionJSON(t *testing.T) {
	_, stdout, _ := run(t, "", "version", "--json")
	var v struct{ Version, Go, Platform string }
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || v.Version == "" || v.Go == "" || v.Platform == "" {
		t.Errorf("%q: %v", stdout, err)
	}
}

// What is asked of the network that this computer has: to look, and to plan for NICs that it has not.
func TestNet(t *testing.T) {
	code, stdout, stderr := run(t, "", "net", "show", "--json")
	var have struct{ NICs []struct{ Name string } }
	if err := json.Unmarshal([]byte(stdout), &have); err != nil || code != 0 || len(have.NICs) == 0 {
		t.Errorf("net show: exit %d, %v, stdout %q, stderr %q", code, err, stdout, stderr)
	}
	code, stdout, stderr = run(t, "", "net", "show", "--target", "http://127.0.0.1:1")
	if code != 1 || !strings.Contains(stdout, "cause: 127.0.0.1 refuses connections to port 1") || !strings.Contains(stderr, "refuses connections") {
		t.Errorf("net show --target: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, _, stderr = run(t, "", "net", "show", "--target", "ftp://x"); code != 2 {
		t.Errorf("net show of a wrong target: exit %d, stderr %q", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "network_data.json")
	if err := os.WriteFile(file, []byte(`{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:4e:3d:30"}], "networks": [],
		"services": [{"type": "dns", "address": "192.0.2.53"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = run(t, "", "net", "plan", "--from", file)
	if code != 1 || !strings.Contains(stdout, "link a: physical, mac 52:54:00:4e:3d:30") || !strings.Contains(stderr, "52:54:00:4e:3d:30") {
		t.Errorf("net plan: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, stdout, _ = run(t, "", "net", "plan", "--json", "--from", file)
	var planned struct {
		Plan struct {
			Links []struct{ ID, Kind, MAC string }
			DNS   []string
		}
		Steps    []struct{ Do, Link, Why string }
		Problems []string
	}
	if err := json.Unmarshal([]byte(stdout), &planned); err != nil || code != 1 {
		t.Fatalf("net plan --json: exit %d, %v, stdout %q", code, err, stdout)
	}
	last := planned.Steps[len(planned.Steps)-1]
	if len(planned.Plan.Links) != 1 || planned.Plan.Links[0].ID != "a" || !slices.Equal(planned.Plan.DNS, []string{"192.0.2.53"}) ||
		last.Do != "set dns 192.0.2.53" || last.Why == "" || len(planned.Problems) != 1 || !strings.Contains(planned.Problems[0], "link a: no such NIC") {
		t.Errorf("net plan --json: %+v", planned)
	}
	code, stdout, stderr = run(t, "", "net", "apply", "--strict", "--yes", "--from", file)
	if code != 1 || !strings.Contains(stderr, "not applied: link a: no such NIC") {
		t.Errorf("net apply --strict: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// A directory becomes a config drive; what is too large for one is refused.
func TestReadDrive(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "openstack", "latest", "meta_data.json")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("some meta data"), 0o600)); err != nil {
		t.Fatal(err)
	}
	b, err := readDrive(dir)
	if err != nil || !bytes.Contains(b, []byte("some meta data")) || len(b) < 0x8028 || string(b[0x8001:0x8006]) != "CD001" || !bytes.HasPrefix(b[0x8028:], []byte("config-2")) {
		t.Errorf("readDrive(directory): %d bytes, %v, want ISO 9660 with label config-2 and the file in it", len(b), err)
	}
	if b, err := readDrive(file); err != nil || string(b) != "some meta data" {
		t.Errorf("readDrive(file) = %q, %v", b, err)
	}
	if b, err := readDrive(""); err != nil || b != nil {
		t.Errorf("readDrive() = %q, %v", b, err)
	}
	if err := os.Truncate(file, maxDrive+1); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file} {
		if _, err := readDrive(path); err == nil || !strings.Contains(err.Error(), "allowed") {
			t.Errorf("readDrive(%s) = %v, want that it is too large", path, err)
		}
	}

	// What has no end is not read.
	if err := errors.Join(os.Remove(file), os.Symlink("/dev/zero", file)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file, "/dev/zero"} {
		if b, err := readDrive(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("readDrive(%s) = %d bytes, %v, want that it is no file", path, len(b), err)
		}
	}
}

// asking is a manager with a step that shows its plan and asks.
type asking struct{ generic.Manager }

func (asking) Class() string { return "Asking" }

func (asking) Steps() []steps.Step {
	check := func(_ steps.Host, args json.RawMessage) error {
		if string(args) != `{"a": 1}` {
			return fmt.Errorf("%w: a is not 1", steps.ErrArgs)
		}
		return nil
	}
	return []steps.Step{{Name: "destroy", Asks: true, Args: []steps.Arg{{Name: "a", Required: true}}, Check: check, Run: func(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
		h.Say("will destroy %s of %s", j.Args, j.Node.UUID)
		if err := h.Confirm(ctx, ""); err != nil {
			return nil, err
		}
		return map[string]string{"destroyed": j.Node.UUID}, nil
	}}}
}

// A step that asks is asked once, after it has shown its plan.
func TestRunStep(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.json")
	if err := os.WriteFile(file, []byte(`{"uuid": "n1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, stdin string
		args        []string
		code        int
		stdout      string
		stderr      string
	}{
		{"yes", "yes\n", nil, 0, "{\n  \"destroyed\": \"n1\"\n}\n", "will destroy {\"a\": 1} of n1\nGo on? What is on these disks will be lost. Type yes: "},
		{"no", "no\n", nil, 1, "", "will destroy {\"a\": 1} of n1\nGo on? What is on these disks will be lost. Type yes: ironhand run: not done: the answer was not yes\n"},
		{"not asked", "", []string{"--yes"}, 0, "{\n  \"destroyed\": \"n1\"\n}\n", "will destroy {\"a\": 1} of n1\n"},
		{"unknown argument", "", []string{"--yes", "--args", `{"a": 1, "aa": 2}`}, 2, "", "--args: unknown argument \"aa\""},
		{"missing argument", "", []string{"--yes", "--args", `{}`}, 2, "", "--args: argument a is missing"},
		{"wrong argument", "", []string{"--yes", "--args", `{"a": 2}`}, 2, "", "a is not 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			args := append([]string{"run", "destroy", "--args", `{"a": 1}`, "--node", file}, test.args...)
			code := Run(t.Context(), agent.Parts{Managers: []steps.Manager{asking{}}}, args, strings.NewReader(test.stdin), &out, &errs)
			if code != test.code || out.String() != test.stdout || code != 2 && errs.String() != test.stderr || !strings.Contains(errs.String(), test.stderr) {
				t.Errorf("exit %d, stdout %q, stderr %q", code, out.String(), errs.String())
			}
		})
	}
}

// A question ends when the program is told to end, also if nobody answers.
func TestUnanswered(t *testing.T) {
	silent, _ := io.Pipe()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	done := make(chan error, 1)
	go func() { done <- (&call{stdin: silent}).answered(ctx) }()
	select {
	case err := <-done:
		if err == nil || err.Error() != "not done: interrupted" {
			t.Errorf("answered = %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the question goes on")
	}
}
