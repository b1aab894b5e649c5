// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/netconfig"
)

func netCommand() command {
	return command{
		name: "net", args: "show | plan | apply [--from FILE|auto] [--json]",
		help:    "Show the network, or what network_data.json would make of it, or make it so.",
		example: "ironhand net plan --from network_data.json",
		run:     runNet,
	}
}

func runNet(ctx context.Context, c *call) error {
	from := c.flags.String("from", "auto", "a network_data.json, or auto: the one on the configuration media")
	asJSON := c.flags.Bool("json", false, "print JSON (show and plan)")
	args, err := c.parse(1, 1)
	if err != nil {
		return err
	}
	switch args[0] {
	case "show", "plan", "apply":
	default:
		return usagef("%q: want show, plan or apply", args[0])
	}
	k, err := netconfig.NewKernel()
	if err != nil {
		return err
	}
	have, err := k.State(ctx)
	if err != nil {
		return err
	}
	if args[0] == "show" {
		if *asJSON {
			return writeJSON(c, have)
		}
		_, err := fmt.Fprint(c.stdout, have)
		return err
	}
	data, err := networkData(ctx, *from)
	if err != nil {
		return err
	}
	plan, planErr := netconfig.ParseNetworkData(data)
	if args[0] == "apply" {
		return errors.Join(planErr, plan.Apply(ctx, k))
	}
	changes, err := plan.Changes(have)
	texts := make([]string, len(changes))
	for i, change := range changes {
		texts[i] = change.String()
	}
	if *asJSON {
		return errors.Join(planErr, err, writeJSON(c, texts))
	}
	fmt.Fprint(c.stdout, plan)
	for _, t := range texts {
		fmt.Fprintln(c.stdout, "would", t)
	}
	if len(texts) == 0 && planErr == nil && err == nil {
		fmt.Fprintln(c.stdout, "nothing to do")
	}
	return errors.Join(planErr, err)
}

// networkData reads network_data.json from a file or from the configuration media.
func networkData(ctx context.Context, from string) ([]byte, error) {
	if from != "auto" {
		return os.ReadFile(from)
	}
	found, _, err := media.Find(ctx, func(string) {})
	for _, m := range found {
		if b, ok := m.Files["openstack/latest/network_data.json"]; ok {
			return b, nil
		}
	}
	return nil, errors.Join(errors.New("no network_data.json on a configuration medium"), err)
}

func writeJSON(c *call, v any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
