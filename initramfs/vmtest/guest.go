// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Guest says how RunInGuest runs the tests of a package.
type Guest struct {
	Machine Machine
	Args    string            // of the test binary, parted by spaces: "-test.run=TestRoot"
	Files   map[string]string // as in Pack
	Timeout time.Duration     // for the whole machine; 5 minutes if 0
	During  func(vm *VM)      // is called once the machine is started, to do things to it while the tests run; may be nil
}

// RunInGuest runs the tests of a package as root in a virtual machine, with all of Debian's drivers that the ramdisk of the tests has, and fails if they fail. They find
// their testdata, REQUIRE=root in the environment, and a writable root file system in memory. The package is named as for `go test`.
func RunInGuest(t testing.TB, pkg string, g Guest) {
	t.Helper()
	if status, output := runInGuest(t, pkg, g); status != "passed" {
		t.Errorf("tests of %s in a machine: %s\n%s", pkg, status, tail(output, 200))
	}
}

// runInGuest returns how the tests ended, and what they printed.
func runInGuest(t testing.TB, pkg string, g Guest) (status, output string) {
	t.Helper()
	dir, err := packageDir(pkg)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{
		"init":      Build(t, "github.com/ironhand/ironhand/initramfs/vmtest/guestinit"),
		"test/test": BuildTest(t, pkg),
	}
	if testdata := filepath.Join(dir, "testdata"); isDir(testdata) {
		content["test/testdata"] = testdata
	}
	for name, file := range g.Files {
		content[name] = file
	}
	m := g.Machine
	if len(m.Initrds) == 0 {
		m.Initrds = []string{Artefact(t, "initramfs-virtual.cpio")}
	}
	m.Initrds = append(m.Initrds[:len(m.Initrds):len(m.Initrds)], Pack(t, content))
	m.Cmdline = strings.TrimSpace(m.Cmdline + " quiet -- -test.v " + g.Args)
	if g.Timeout == 0 {
		g.Timeout = 5 * time.Minute
	}
	m.Hopeless = `(?m)^GUEST TESTS END: .*\n`
	vm := Start(t, m)
	if g.During != nil {
		g.During(vm)
	}
	status = vm.Expect(t, `(?m)^GUEST TESTS END: (.*)\n`, g.Timeout)[1]
	vm.Wait(t, time.Minute)
	return status, vm.Console()
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
