// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/ironhand/ironhand/steps"
)

// errorTypes is the type of the errors of each phase's steps, as Ironic's users know them.
var errorTypes = map[steps.Phase]string{
	steps.Clean:   "CleaningError",
	steps.Deploy:  "DeploymentError",
	steps.Service: "ServicingError",
}

// stepCommands are get_X_steps and execute_X_step of a phase.
func (a *agent) stepCommands(p steps.Phase) []Command {
	return []Command{{
		Name: fmt.Sprintf("%s.get_%s_steps", p, p),
		Run:  func(ctx context.Context, params json.RawMessage) (any, error) { return a.listSteps(ctx, p, params) },
	}, {
		Name:  fmt.Sprintf("%s.execute_%s_step", p, p),
		Async: true,
		Run:   func(ctx context.Context, params json.RawMessage) (any, error) { return a.executeStep(ctx, p, params) },
	}}
}

// listedStep is a step as the conductor sees it. Source: ironic-python-agent's
// ironic_python_agent/hardware.py, get_clean_steps.
type listedStep struct {
	Step            string             `json:"step"`
	Priority        int                `json:"priority"`
	Interface       string             `json:"interface"`
	RebootRequested bool               `json:"reboot_requested"`
	Abortable       *bool              `json:"abortable,omitempty"`
	ArgsInfo        map[string]argInfo `json:"argsinfo,omitempty"`
}

type argInfo struct {
	Description string `json:"description"`
	Required    bool   `json:"required"`
}

func (a *agent) listSteps(ctx context.Context, p steps.Phase, params json.RawMessage) (any, error) {
	var in struct {
		Node json.RawMessage `json:"node"`
	}
	if err := json.Unmarshal(params, &in); err != nil {
		return nil, invalidParams("%v", err)
	}
	if err := a.changeNode(ctx, in.Node); err != nil {
		return nil, err
	}
	list := map[string][]listedStep{}
	for class, offered := range a.set.List(p) {
		for _, s := range offered {
			l := listedStep{Step: s.Name, Priority: s.Priority[p], Interface: s.Interface, RebootRequested: s.Reboot}
			if p == steps.Clean || p == steps.Service && s.Abortable { // deploy steps cannot be, and service steps of deployment have no such key
				l.Abortable = &s.Abortable
			}
			for _, arg := range s.Args {
				if arg.Unlisted {
					continue
				}
				if l.ArgsInfo == nil {
					l.ArgsInfo = map[string]argInfo{}
				}
				l.ArgsInfo[arg.Name] = argInfo{arg.Description, arg.Required}
			}
			list[class] = append(list[class], l)
		}
	}
	return map[string]any{
		string(p) + "_steps":       list,
		"hardware_manager_version": a.set.Versions(),
	}, nil
}

func (a *agent) executeStep(ctx context.Context, p steps.Phase, params json.RawMessage) (any, error) {
	all, err := object(params)
	if err != nil {
		return nil, invalidParams("%w", err)
	}
	name, own, err := parseStep(all["step"])
	if err != nil {
		return nil, err
	}
	if err := a.changeNode(ctx, all["node"]); err != nil {
		return nil, err
	}
	var ports []steps.Port
	if raw := all["ports"]; len(raw) > 0 {
		if err := json.Unmarshal(raw, &ports); err != nil {
			return nil, invalidParams("ports: %v", err)
		}
	}
	var versions map[string]string
	if raw := all[string(p)+"_version"]; len(raw) > 0 {
		if json.Unmarshal(raw, &versions) != nil { // it is something else than what this agent said
			return nil, fmt.Errorf("%w: %s_version is %.100q", steps.ErrVersion, p, raw)
		}
	}
	if err := a.set.CheckVersions(versions); err != nil {
		return nil, err
	}
	// Arguments are the command's other parameters, and over them those of the step.
	args := map[string]json.RawMessage{}
	for name, value := range all {
		switch name {
		case "step", "node", "ports", string(p) + "_version":
		default:
			args[name] = value
		}
	}
	maps.Copy(args, own)
	result, err := a.runStep(ctx, p, name, args, ports)
	if err != nil {
		if known := asError(err); known.Type != "CommandExecutionError" {
			return nil, known
		}
		return nil, newError(errorTypes[p], "Unexpected exception performing %s step %s. %w", p, name, err)
	}
	return map[string]any{
		string(p) + "_result": result,
		string(p) + "_step":   all["step"],
	}, nil
}

// parseStep reads which step is asked for, and with which arguments. All else in it is the conductor's.
func parseStep(raw json.RawMessage) (name string, args map[string]json.RawMessage, err error) {
	invalid := invalidParams("step: no object with the name of a step")
	if len(raw) == 0 {
		return "", nil, invalid
	}
	step, err := object(raw)
	if err != nil || json.Unmarshal(step["step"], &name) != nil || name == "" {
		return "", nil, invalid
	}
	if given := step["args"]; len(given) > 0 && string(given) != "null" {
		if args, err = object(given); err != nil {
			return "", nil, invalidParams("args of step %.100s: %w", name, err)
		}
	}
	return name, args, nil
}

// runStep runs one step and remembers what it deployed. The result is what the step returned, in
// the form of the wire.
func (a *agent) runStep(ctx context.Context, p steps.Phase, name string, args map[string]json.RawMessage, ports []steps.Port) (any, error) {
	step, err := a.set.Find(name, p)
	if err != nil {
		return nil, err
	}
	if err := step.CheckArgs(args); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	host := a.host
	host.Progress = func(v any) { SetProgress(ctx, v) }
	job := steps.Job{Node: a.currentNode(), Ports: ports, Args: raw, Deployed: a.currentDeployed()}
	if step.Deploys || p != steps.Deploy {
		a.share(nil) // who shares has the disk open, and an array in use is not stopped
	}
	if step.Deploys { // if it fails half way, nothing is deployed any more, and no kernel of what was there may be started
		if err := a.unloadKernel(); err != nil {
			return nil, err
		}
		if err := a.setDeployed(nil); err != nil {
			return nil, err
		}
	}
	a.console.Stage("step", "%s begins", name)
	result, err := step.Run(ctx, host, job)
	if err != nil {
		a.sayLines("step", name+" FAILED: "+err.Error())
		return nil, err
	}
	if d, ok := result.(steps.Deployed); ok {
		if err := a.setDeployed(&d); err != nil {
			return nil, err
		}
		// The step runs standby.prepare_image inside, and the wire shows its result.
		result = map[string]string{"result": "prepare_image: " + d.Text}
	}
	a.console.Stage("step", "%s done", name)
	return result, nil
}

// changeNode is setNode for a command. If it is not the node that it was, the disk that the new one's hints name is waited for, and not
// finding it is no error here: the steps that need it say so. Source: IPA ironic_python_agent/hardware.py, cache_node.
func (a *agent) changeNode(ctx context.Context, raw json.RawMessage) error {
	before := a.currentNode().UUID
	if err := a.setNode(raw); err != nil {
		return err
	}
	node := a.currentNode()
	if before == "" || node.UUID == before {
		return nil
	}
	a.console.Stage("node", "%s, was %s", node.UUID, before)
	if _, err := steps.AwaitRootDisk(ctx, a.host, node); err != nil {
		a.sayLines("node", "WARNING: "+err.Error())
	}
	return nil
}

// setNode replaces the agent's copy of the node's record.
func (a *agent) setNode(raw json.RawMessage) error {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var n steps.Node
	if err := json.Unmarshal(raw, &n); err != nil {
		return invalidParams("node: %v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.node = n
	return nil
}
