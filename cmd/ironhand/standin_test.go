// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/elf"
	"debug/gosym"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// With the true modules the agent would be half as large again: one of them looks methods up by reflection, so that the linker keeps every exported method of the program.
func TestStandInsAreLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{with .Replace}}{{.Path}}{{end}}", "github.com/google/go-cmp", "github.com/pion/webrtc/v4", "github.com/pion/datachannel", "github.com/anacrolix/go-utp").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(strings.TrimSpace(string(out))) {
		if !strings.Contains(line, " ./third_party/") {
			t.Errorf("%s is not the stand-in", strings.TrimSpace(line))
		}
	}
}

// In the agent that was built there is no method that nothing calls: a single use of reflection that looks for methods by a name that the linker does not know makes it keep all
// exported methods of all types, 7400 functions and 5 MiB of them. It is among the tests of the ramdisk, which are run when that is built.
func TestVMNoMethodsWithoutUse(t *testing.T) {
	build := os.Getenv("IRONHAND_BUILD")
	if build == "" {
		build = filepath.Join("..", "..", "build")
	}
	agent := filepath.Join(build, "ironhand")
	if _, err := os.Stat(agent); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "vm") {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: no agent in build")
	}
	// The table for stack traces names all functions, though the symbols were left out.
	f, err := elf.Open(agent)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, text := f.Section(".gopclntab"), f.Section(".text")
	if lines == nil || text == nil {
		t.Fatalf("%s has no table of functions", agent)
	}
	b, err := lines.Data()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(b, text.Addr))
	if err != nil {
		t.Fatal(err)
	}
	for _, used := range []string{"main.main", "time.Time.Sub", "math/big.(*Int).String"} {
		if table.LookupFunc(used) == nil {
			t.Errorf("%s is not in the agent: this test does not see what is", used)
		}
	}
	for _, unused := range []string{"math/big.(*Int).Binomial", "net/http.(*Server).SetKeepAlivesEnabled", "time.Time.ISOWeek"} {
		if table.LookupFunc(unused) != nil {
			t.Errorf("%s is in the agent: find who looks methods up, with go build -ldflags=-dumpdep ./cmd/ironhand 2>&1 | grep ReflectMethod", unused)
		}
	}
}
