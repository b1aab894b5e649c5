// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"

	"github.com/ironhand/ironhand/agent"
)

func agentCommand() command {
	return command{
		name: "agent", args: "[--api-url URL[,URL]] [--listen-port N]",
		help:    "Be this node's agent: settings, network, lookup, heartbeats, and the conductor's commands.",
		example: "ironhand agent --api-url https://192.0.2.1:6385",
		run:     runAgent,
	}
}

func runAgent(ctx context.Context, c *call) error {
	given := map[string]string{}
	for flagName, param := range map[string]string{
		"api-url": "ipa-api-url", "listen-host": "ipa-listen-host", "listen-port": "ipa-listen-port",
		"advertise-host": "ipa-advertise-host", "node-uuid": "ironhand-node-uuid",
	} {
		c.flags.Func(flagName, "`value` of the setting "+param, func(v string) error { given[param] = v; return nil })
	}
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	sys, err := agent.ThisMachine()
	if err != nil {
		return err
	}
	if err := agent.Run(ctx, agent.Options{
		Parts: c.parts, Version: Version(), Flags: given,
		Out: c.stdout, Log: c.stderr, System: sys,
	}); err != nil {
		return errors.Join(errShown, err)
	}
	return nil
}
