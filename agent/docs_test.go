// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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

From weak to strong:

1. built in;
2. the ramdisk's file ` + "`/etc/ironhand/parameters.txt`, then its `/etc/ironic-python-agent.d/*.conf`" + `;
3. ` + "`parameters.txt` on the configuration media, then their `etc/ironic-python-agent.d/*.conf`" + `;
4. the kernel command line;
5. flags, when run by hand;
6. multicast DNS, for what ` + "`[mdns] allowed_overrides`" + ` names; and the conductor's answer to the lookup, where the table says so.

ironic-python-agent lets media count more than the kernel command line. [Why not here](design.md#what-counts-more-medium-or-kernel-command-line).

Words are divided by white space, there is no quoting, the last of two counts, and a parameter without a value is not given. Options are in the section ` + "`[DEFAULT]`" + ` of the file unless
the table names another. The log says where each value came from. Names that begin with ` + "`ipa-`" + ` are those of ironic-python-agent.

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
	b.WriteString("\n## Without effect\n\nSettings of ironic-python-agent that have no meaning here. If one of them is given, the console says so.\n\n" +
		"| Parameter | Option in a .conf file | Why |\n|---|---|---|\n")
	for _, s := range agent.Unused() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", code(s.Param), code(s.Option), s.Reason)
	}
	b.WriteString("\n## Read by process 1\n\nProcess 1 reads further parameters from the kernel command line: `ironhand.hostname=NAME`, `modprobe.blacklist=A,B`,\n" +
		"`module_blacklist=A,B`, and `MODULE.PARAMETER=VALUE` for modules.\n")
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
			if a.Unlisted {
				continue
			}
			args = append(args, fmt.Sprintf("`%s`: %s", a.Name, a.Description))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Name, s.Interface, cmp.Or(strings.Join(phases, ", "), "none"), cmp.Or(strings.Join(args, "; "), "none announced"))
	}
	b.WriteString(`
- ` + "`write_image`" + ` takes ` + "`image_info`" + ` and ` + "`configdrive`" + ` as Ironic's direct deploy interface sends them. Images of whole disks, and of the file systems ext2, ext3, ext4, xfs and btrfs, raw or qcow2,
  plain or packed with gzip, zstd, xz, bzip2 or lz4; see [using](using.md#partition-images).
- ` + "`kexec`" + ` loads the kernel of the deployed system; ` + "`standby.run_image`" + ` then jumps into it instead of rebooting. It fails, and says why, where that cannot be.
- ` + "`burnin_cpu`, `burnin_memory`, `burnin_disk`, `burnin_network`, `burnin_gpu`" + ` take their options from the node's ` + "`driver_info`" + `; see [burn-in](burn-in.md).
- ` + "`erase_devices`, `erase_devices_metadata`, `erase_devices_express`" + ` take their options from the node's ` + "`driver_internal_info`" + `, where Ironic puts them, and the disks to leave alone from its
  property ` + "`skip_block_devices`" + `. [Erasing](using.md#erasing) has the rest.
- ` + "`erase_pstore`" + ` deletes the crash dumps that kernels left in the firmware's memory, ` + "`clean_uefi_nvram`" + ` boot entries of UEFI.
- ` + "`create_configuration`" + ` makes the arrays of software RAID of the node's ` + "`target_raid_config`" + `; see [using](using.md#software-raid).
- ` + "`validate_configuration`" + ` takes ` + "`raid_config`" + `, and says whether that could be made on this machine after a deletion. No phase offers it; it can be called.
- ` + "`create_volumes` and `delete_volumes`" + ` make and delete volume groups of LVM; see [using](using.md#logical-volumes) and the [schema](lvm.schema.json).
`)
	b.WriteString(absentSteps())
	return b.String()
}
