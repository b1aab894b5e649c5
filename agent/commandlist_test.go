// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/agent"
)

// contract is every command of ironic-python-agent, as of version 12: its name, and whether it is answered at once and runs on. Why says
// what is different here, or why it is absent.
// Source: IPA ironic_python_agent/extensions.
var contract = []contractCommand{
	{"clean.get_clean_steps", false, false, ""},
	{"clean.execute_clean_step", true, false, ""},
	{"deploy.get_deploy_steps", false, false, ""},
	{"deploy.execute_deploy_step", true, false, ""},
	{"service.get_service_steps", false, false, ""},
	{"service.execute_service_step", true, false, ""},
	{"standby.prepare_image", true, false, ""},
	{"standby.cache_image", true, false, "writes the image each time, as with `force`"},
	{"standby.execute_bootc_install", true, true, "container images are not written"},
	{"standby.run_image", true, false, "jumps into the deployed kernel if the step `kexec` has loaded one; the clock on the board is left as it is"},
	{"standby.power_off", true, false, "the clock on the board is left as it is"},
	{"standby.sync", false, false, "drops no caches and flushes no devices one by one: images go past the caches, and are read back from the disk"},
	{"standby.get_partition_uuids", false, false, ""},
	{"image.install_bootloader", true, false, "makes the firmware's boot entry, or for BIOS installs GRUB from the image's files; runs nothing of the image"},
	{"rescue.finalize_rescue", false, false, "a password in the clear is hashed by SHA-512 and not SHA-256; hashes by MD5 and DES are refused; without a password it fails"},
	{"log.collect_system_logs", false, false, "the files in it are others; secrets are masked"},
	{"system.lockdown", false, false, ""},
	{"flow.start_flow", true, false, "an entry has one command, and at most 1000 commands are taken"},
	{"poll.get_hardware_info", false, false, ""},
	{"poll.set_node_info", false, false, ""},
}

type contractCommand struct {
	name   string
	async  bool
	absent bool
	why    string
}

func TestCommandsOfTheContract(t *testing.T) {
	have := map[string]agent.Command{}
	for _, c := range agent.CommandList() {
		have[c.Name] = c
	}
	for _, want := range contract {
		c, ok := have[want.name]
		delete(have, want.name)
		switch {
		case ok == want.absent:
			t.Errorf("%s: there %v, want %v", want.name, ok, !want.absent)
		case ok && c.Async != want.async:
			t.Errorf("%s: answered at once %v, want %v", want.name, c.Async, want.async)
		case want.absent && want.why == "":
			t.Errorf("%s is absent without a reason", want.name)
		}
	}
	for name := range have {
		t.Errorf("%s is not in the contract", name)
	}
}

// A conductor tells a command that an agent lacks by the status and the text. Source: ironic ironic/drivers/modules/agent_client.py, _command.
func TestAbsentCommands(t *testing.T) {
	commands, err := agent.NewCommands(agent.CommandList(), slog.New(slog.DiscardHandler), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	absent := 0
	for _, c := range contract {
		if !c.absent {
			continue
		}
		absent++
		_, err := commands.Do(t.Context(), c.name, []byte(`{}`), true)
		var e *agent.Error
		if _, bare, _ := strings.Cut(c.name, "."); !errors.As(err, &e) || e.Code != 400 || e.Type != "InvalidCommandError" || e.Error() != "Invalid command: Unknown command: "+bare {
			t.Errorf("%s is answered %v", c.name, err)
		}
	}
	t.Logf("of %d commands %d are there", len(contract), len(contract)-absent)
}

func commandsPage() string {
	var b strings.Builder
	b.WriteString(generated + `# Commands of the API

What the conductor can ask for with ` + "`POST /v1/commands/`" + `, in the form of Ironic's contract: every command of ironic-python-agent 12. One that is not
there is answered as Ironic expects of an agent that lacks it. How far a command is that runs on is in its ` + "`command_progress`" + `, which is a key of ours.

Parameters that a command does not know are ignored, and ` + "`node` and `ports`" + ` may be missing. Arguments that a step does not know, and a missing one
that it needs, fail it. A list of results holds the last 1000, and large results of old commands are dropped.

| Command | Answered | Unlike ironic-python-agent |
|---|---|---|
`)
	list := slices.Clone(contract)
	slices.SortFunc(list, func(a, b contractCommand) int { return cmp.Compare(a.name, b.name) })
	for _, c := range list {
		when := "with its result"
		switch {
		case c.absent:
			when = "not there"
		case c.async:
			when = "at once, and runs on"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.name, when, c.why)
	}
	return b.String()
}
