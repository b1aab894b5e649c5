// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
)

// call runs one command line.
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
		{"steps of no phase", "steps --phase lunch", 2, "", "lunch"},
		{"write without disk", "write image", 2, "", "argument is missing"},
		{"write to a file", "write " + file + " " + file, 1, "", "not a block device"},
		{"write from nowhere", "write " + file + "-none " + file, 1, "", "no such file"},
		{"write with a bad digest", "write " + file + " " + file + " --digest sha256:12", 2, "", "--digest"},
		{"write with a digest without algorithm", "write " + file + " " + file + " --digest 12", 2, "", "algorithm:hex"},
		{"write with a bad read-back", "write --read-back much " + file + " " + file, 2, "", "read-back"},
		{"kexec of nothing", "kexec", 2, "", "either --from or --kernel"},
		{"kexec of both", "kexec --from /dev/sda --kernel x", 2, "", "either --from or --kernel"},
		{"kexec with what the disk says", "kexec --from /dev/sda --cmdline x", 2, "", "from the disk"},
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
