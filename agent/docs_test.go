// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
)

var update = flag.Bool("update", false, "write the pages in docs/ that are made from the program's lists")

// TestDocs compares the pages that are made from the program's own lists with what is there; -update writes them.
func TestDocs(t *testing.T) {
	for name, want := range map[string]string{
		"kernel-parameters.md": settingsPage(),
		"commands.md":          commandsPage(),
		"steps.md":             stepsPage(),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("..", "docs", name)
			if *update {
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != want {
				t.Errorf("docs/%s is not what the program says; run `make generate`", name)
			}
		})
	}
}

const generated = "<!-- Made by `make generate` from the program's own list; changes here are lost. -->\n\n"

func settingsPage() string {
	var b strings.Builder
	b.WriteString(generated + `# Settings

From weak to strong: built in; the ramdisk's file ` + "`/etc/ironhand/parameters.txt`" + `; the configuration media (` + "`parameters.txt`" + ` over
` + "`etc/ironic-python-agent.d/*.conf`" + `); the kernel command line; flags, when run by hand. The log says where each value came from. Names
that begin with ` + "`ipa-`" + ` are those of ironic-python-agent; those it has and this list has not are ignored.

| Parameter | Option in a .conf file | Default | Meaning |
|---|---|---|---|
`)
	code := func(s string) string {
		if s == "" {
			return "-"
		}
		return "`" + s + "`"
	}
	for _, s := range agent.Settings() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(s.Param), code(s.Option), code(s.Default), s.Help)
	}
	b.WriteString("\nProcess 1 reads further parameters from the kernel command line: `ironhand.hostname=NAME`, `modprobe.blacklist=A,B`,\n" +
		"`module_blacklist=A,B`, and `MODULE.PARAMETER=VALUE` for modules.\n")
	return b.String()
}

func commandsPage() string {
	var b strings.Builder
	b.WriteString(generated + `# Commands of the API

What the conductor can ask for with ` + "`POST /v1/commands/`" + `, in the form of Ironic's contract. A command that is not here is answered as Ironic expects of
an agent that lacks it.

| Command | Answered |
|---|---|
`)
	list := agent.CommandList()
	slices.SortFunc(list, func(a, b agent.Command) int { return cmp.Compare(a.Name, b.Name) })
	for _, c := range list {
		when := "with its result"
		if c.Async {
			when = "at once; it runs on, and its progress is in `command_progress`"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.Name, when)
	}
	return b.String()
}

func stepsPage() string {
	var b strings.Builder
	b.WriteString(generated + `# Steps

What the manager for every machine offers. Priority 0 is never automatic.

| Step | Interface | Phases and priorities | Arguments |
|---|---|---|---|
`)
	for _, s := range (generic.Manager{}).Steps() {
		var phases, args []string
		for _, p := range []steps.Phase{steps.Clean, steps.Deploy, steps.Service} {
			if priority, offered := s.Priority[p]; offered {
				phases = append(phases, fmt.Sprintf("%s %d", p, priority))
			}
		}
		for _, a := range s.Args {
			args = append(args, fmt.Sprintf("`%s`: %s", a.Name, a.Description))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Name, s.Interface, strings.Join(phases, ", "), cmp.Or(strings.Join(args, "; "), "none announced"))
	}
	b.WriteString(`
- ` + "`write_image`" + ` takes ` + "`image_info`" + ` and ` + "`configdrive`" + ` as Ironic's direct deploy interface sends them. Whole disk images, raw or qcow2, plain or packed with gzip, zstd, xz, bzip2 or lz4.
- ` + "`kexec`" + ` loads the kernel of the deployed system; ` + "`standby.run_image`" + ` then jumps into it instead of rebooting. It fails, and says why, where that cannot be.
`)
	return b.String()
}
