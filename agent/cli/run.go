// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
)

func runStepCommand() command {
	return command{
		name: "run", args: "STEP [--args JSON] [--node FILE] [--yes]",
		help:    "Run a step on this machine, as a conductor would. It says what it is about to destroy, and asks.",
		example: "ironhand run erase_devices_metadata",
		run:     runStep,
	}
}

func runStep(ctx context.Context, c *call) error {
	args := c.flags.String("args", "", "the step's arguments, a `JSON` object")
	node := c.flags.String("node", "", "`file` with a node's record in JSON, as Ironic has it: of its keys properties (skip_block_devices and the like), driver_internal_info and others, the step reads what it needs")
	yes := c.flags.Bool("yes", false, "do not ask")
	names, err := c.parse(1, 1)
	if err != nil {
		return err
	}
	job := steps.Job{}
	var object map[string]json.RawMessage
	if *args != "" {
		if err := json.Unmarshal([]byte(*args), &object); err != nil {
			return usagef("--args: want a JSON object: %v", err)
		}
		job.Args = json.RawMessage(*args)
	}
	if *node != "" {
		b, err := os.ReadFile(*node)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &job.Node); err != nil {
			return fmt.Errorf("%s: %w", *node, err)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	ask := func(ctx context.Context, _ string) error {
		if *yes {
			return nil
		}
		fmt.Fprint(c.stderr, "Go on? What is on these disks will be lost. Type yes: ")
		return c.answered(ctx)
	}
	host := steps.Host{
		Machine:      inspect.Local(),
		Local:        true,
		Open:         func(path string) (steps.Disk, error) { return stream.OpenDevice(path) },
		Transport:    transport,
		Log:          slog.New(slog.NewTextHandler(c.stderr, nil)),
		Say:          func(format string, args ...any) { fmt.Fprintf(c.stderr, format+"\n", args...) },
		Progress:     func(any) {},
		Confirm:      ask,
		LoadKernel:   agent.LoadKernel,
		Download:     steps.Download{Stall: time.Minute, Budget: 10 * time.Minute},
		DiskAttempts: 1,
	}
	set, err := steps.NewSet(ctx, host, c.parts.Managers)
	if err != nil {
		return err
	}
	system, err := agent.ThisMachine()
	if err != nil {
		return err
	}
	host.Tools, host.LoadModules = system.Tools, system.LoadModules // only now: with them, NewSet would start arrays
	host.Arrays = func(ctx context.Context) ([]steps.Array, error) { return raid.Arrays(ctx, host) }
	if host.Media, err = system.MediaRead(); err != nil {
		return err
	}
	step, err := set.Find(names[0], steps.Clean)
	if err != nil {
		return usagef("%v; `ironhand steps` lists them", err)
	}
	if err := step.CheckArgs(object); err != nil {
		return usagef("--args: %v", err)
	}
	if step.Check != nil {
		if err := step.Check(host, job.Args); err != nil {
			return usagef("--args: %v", err)
		}
	}
	if !step.Asks && !*yes {
		fmt.Fprintf(c.stderr, "Run %s on this machine? Type yes: ", step.Name)
		if err := c.answered(ctx); err != nil {
			return err
		}
	}
	result, err := step.Run(ctx, host, job)
	if errors.Is(err, steps.ErrArgs) {
		return usagef("%v", err)
	}
	if err != nil || result == nil {
		return err
	}
	return writeJSON(c, result)
}

// answered is nil if the next line of the input is yes. A terminal that says nothing is left behind when ctx ends.
func (c *call) answered(ctx context.Context) error {
	type line struct {
		text string
		err  error
	}
	lines := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(io.LimitReader(c.stdin, 1024)).ReadString('\n')
		lines <- line{text, err}
	}()
	select {
	case l := <-lines:
		if strings.TrimSpace(l.text) == "yes" {
			return nil
		}
		return errors.Join(errors.New("not done: the answer was not yes"), eofIsNoAnswer(l.err))
	case <-ctx.Done():
		return fmt.Errorf("not done: %w", context.Cause(ctx))
	}
}
