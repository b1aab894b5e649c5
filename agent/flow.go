// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"strings"
)

// maxFlow bounds the number of commands in a flow.
const maxFlow = 1000

// flowCommands run other commands, which are given here.
func (a *agent) flowCommands(all []Command) []Command {
	table := map[string]Command{}
	for _, c := range all {
		table[c.Name] = c
	}
	return []Command{{
		Name:  "flow.start_flow",
		Async: true,
		Check: func(params json.RawMessage) error {
			_, err := parseFlow(params, table)
			return err
		},
		Run: func(ctx context.Context, params json.RawMessage) (any, error) {
			steps, err := parseFlow(params, table)
			if err != nil {
				return nil, err
			}
			for _, s := range steps {
				if ctx.Err() != nil { // the command before may have been the agent's last
					return nil, newError("CommandExecutionError", "%s did not start: the agent is going down", bareName(s.command.Name))
				}
				_, err := s.command.run(ctx, s.params)
				if err != nil {
					a.log.Error("command of a flow failed", "command", s.command.Name, "err", err)
					return nil, newError("CommandExecutionError", "%s was failed: %w", bareName(s.command.Name), err)
				}
			}
			return nil, nil
		},
	}}
}

type flowStep struct {
	command Command
	params  json.RawMessage
}

// parseFlow reads {"flow": [{"standby.sync": {}}, ...]}. Each entry has one command. Source: IPA ironic_python_agent/extensions/flow.py.
func parseFlow(params json.RawMessage, table map[string]Command) ([]flowStep, error) {
	var in struct {
		Flow []map[string]json.RawMessage `json:"flow"`
	}
	if err := json.Unmarshal(params, &in); err != nil {
		return nil, invalidParams("flow: %v", err)
	}
	if in.Flow == nil || len(in.Flow) > maxFlow {
		return nil, invalidParams("flow: must be a list of at most %d commands", maxFlow)
	}
	var steps []flowStep
	for i, entry := range in.Flow {
		if len(entry) != 1 {
			return nil, invalidParams("flow: entry %d must have one command and has %d", i, len(entry))
		}
		for name, p := range entry {
			command, err := findCommand(table, name)
			if err != nil {
				return nil, err
			}
			if strings.TrimSpace(string(p)) == "null" {
				p = json.RawMessage("{}")
			}
			if !strings.HasPrefix(strings.TrimSpace(string(p)), "{") {
				return nil, invalidParams("flow: parameters of %s must be an object", name)
			}
			if command.Check != nil {
				if err := command.Check(p); err != nil {
					return nil, err
				}
			}
			steps = append(steps, flowStep{command, p})
		}
	}
	return steps, nil
}
