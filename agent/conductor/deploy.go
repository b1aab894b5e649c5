// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

// deployment is one node's way from the first heartbeat to the running system, driven as Ironic's direct deploy
// interface does it (ironic/drivers/modules/agent.py and agent_base.py).
type deployment struct {
	c       *Conductor
	n       *node
	cached  map[string]any // what the agent told, for the node's record
	version any            // hardware_manager_version, sent back with each step
	offered map[string]bool
	index   int       // in steps()
	warned  string    // the last warning, which is not repeated
	stuck   time.Time // since when the agent has been busy or has not answered; zero: it is fine
}

// steps are the conductor's steps of a deployment, as they stand in the node's record.
func (deployment) steps() []map[string]any {
	var steps []map[string]any
	for _, s := range []struct {
		name     string
		priority int
	}{
		{"deploy", 100}, {"write_image", 80}, {"prepare_instance_boot", 60}, {"tear_down_agent", 40},
		{"switch_to_tenant_network", 30}, {"boot_instance", 20},
	} {
		steps = append(steps, map[string]any{"step": s.name, "priority": s.priority, "argsinfo": nil, "interface": "deploy"})
	}
	return steps
}

// run deploys the node. It returns nil when the node is active.
func (d *deployment) run(ctx context.Context) error {
	if err := d.fetchSteps(ctx); err != nil {
		return err
	}
	if err := d.makeArrays(ctx); err != nil {
		return err
	}
	if err := d.makeVolumes(ctx); err != nil {
		return err
	}
	if err := d.writeImage(ctx); err != nil {
		return err
	}
	if err := d.prepareBoot(ctx); err != nil {
		return err
	}
	return d.handOff(ctx)
}

// fetchSteps asks, at the first heartbeat, what the agent can do.
func (d *deployment) fetchSteps(ctx context.Context) error {
	const name = "deploy.get_deploy_steps"
	c, err := d.once(ctx, name, func() any {
		now := time.Now()
		return map[string]any{"node": d.n.record(now, d.index, d.cached), "ports": d.n.ports(now)}
	})
	if err != nil {
		return err
	}
	var result struct {
		Steps map[string][]struct {
			Interface string `json:"interface"`
			Step      string `json:"step"`
			Priority  *int   `json:"priority"`
		} `json:"deploy_steps"`
		Version map[string]any `json:"hardware_manager_version"`
	}
	if err := json.Unmarshal(c.Result, &result); err != nil || result.Steps == nil || result.Version == nil {
		return fmt.Errorf("%s: result lacks deploy_steps or hardware_manager_version", name)
	}
	d.offered = make(map[string]bool)
	for manager, steps := range result.Steps {
		for _, s := range steps {
			if s.Interface == "" || s.Step == "" || s.Priority == nil {
				return fmt.Errorf("%s: a step of %s lacks interface, step or priority", name, printable(manager))
			}
			d.offered[s.Interface+"."+s.Step] = true
		}
	}
	if !d.offered["deploy.write_image"] {
		return fmt.Errorf("%s: the agent does not offer deploy.write_image", name)
	}
	d.version = result.Version
	d.cached = map[string]any{
		"hardware_manager_version":            result.Version,
		"agent_cached_deploy_steps_refreshed": time.Now().UTC().Format("2006-01-02T15:04:05.000000"),
		"steps_validated":                     true,
	}
	d.c.event(d.n.config.Name, EventCommand, "%s: %d steps offered", name, len(d.offered))
	return nil
}

// makeArrays has the software RAID made that is configured, in the place of what there is.
func (d *deployment) makeArrays(ctx context.Context) error {
	raid := d.n.config.RAID
	if raid == nil {
		return nil
	}
	if _, err := d.step(ctx, "raid", "apply_configuration", map[string]any{"raid_config": raid, "delete_existing": true}); err != nil {
		return err
	}
	d.n.setRAID(raid)
	d.c.event(d.n.config.Name, EventCommand, "apply_configuration: done")
	return nil
}

// makeVolumes has the volume groups made that the node's properties have.
func (d *deployment) makeVolumes(ctx context.Context) error {
	if d.n.config.Properties["logical_volumes"] == nil {
		return nil
	}
	if _, err := d.step(ctx, "deploy", "create_volumes", map[string]any{}); err != nil {
		return err
	}
	d.c.event(d.n.config.Name, EventCommand, "create_volumes: done")
	return nil
}

// writeImage has the image and the config drive written.
func (d *deployment) writeImage(ctx context.Context) error {
	d.index = 1
	n, image := d.n, d.n.currentImage()
	var drive any
	info := map[string]any{
		"id": image.ID, "urls": []string{image.URL}, "disk_format": image.DiskFormat, "container_format": nil,
		"stream_raw_images": true, "os_hash_algo": "sha512", "os_hash_value": image.SHA512, "node_uuid": n.config.UUID,
	}
	if image.Torrent != "" { // behind the file, which is all that other agents understand
		info["urls"] = []string{image.URL, image.Torrent}
	}
	if i := n.config.Image; i.RootMB > 0 {
		maps.Copy(info, map[string]any{
			"image_type": "partition", "root_mb": i.RootMB, "swap_mb": i.SwapMB, "ephemeral_mb": i.EphemeralMB, "ephemeral_format": "ext4", "preserve_ephemeral": false,
			"deploy_boot_mode": n.config.BootMode, "boot_option": "local",
		})
	}
	if n.configDrive != "" {
		drive = n.configDrive
		info["configdrive"] = n.configDrive
	}
	c, err := d.step(ctx, "deploy", "write_image", map[string]any{"image_info": info, "configdrive": drive})
	if err != nil {
		return err
	}
	d.c.event(n.config.Name, EventCommand, "write_image: %s", resultText(c))
	return nil
}

// prepareBoot has the firmware's boot entry made. Without UEFI a whole disk image needs nothing, unless it is on an array.
func (d *deployment) prepareBoot(ctx context.Context) error {
	d.index = 2
	c, err := d.once(ctx, "standby.get_partition_uuids", func() any { return struct{}{} })
	if err != nil {
		return err
	}
	var uuids struct {
		Root *string `json:"root uuid"`
		ESP  *string `json:"efi system partition uuid"`
		PReP *string `json:"PReP Boot partition uuid"`
	}
	if err := json.Unmarshal(c.Result, &uuids); err != nil {
		return fmt.Errorf("standby.get_partition_uuids: result is not of the expected form")
	}
	if d.n.config.BootMode != "uefi" && d.n.config.Image.RootMB == 0 && d.n.config.RAID == nil {
		return nil
	}
	_, err = d.follow(ctx, "image.install_bootloader", nil, func() any {
		return map[string]any{
			"root_uuid": uuids.Root, "efi_system_part_uuid": uuids.ESP, "prep_boot_part_uuid": uuids.PReP,
			"target_boot_mode": d.n.config.BootMode,
		}
	})
	return err
}

// handOff gives the machine to the deployed system, and waits for its report if it is to make one.
func (d *deployment) handOff(ctx context.Context) error {
	d.index = 3
	name := d.n.config.Name
	how := d.n.config.HandOff
	if how == KexecHandOff {
		if err := d.loadKernel(ctx); err != nil {
			if ctx.Err() != nil {
				return err
			}
			d.c.event(name, EventWarning, "kexec is not possible, the machine goes through its firmware: %v", err)
			how = RebootHandOff
		}
	}
	if how == RebootHandOff {
		if _, err := d.once(ctx, "standby.sync", func() any { return struct{}{} }); err != nil {
			return err
		}
	}
	last := "standby.run_image"
	if how == PowerOffHandOff {
		last = "standby.power_off"
	}
	if err := d.leave(ctx, last); err != nil {
		return err
	}
	d.c.event(name, EventHandOff, "%s: handed off by %s", last, how)
	if d.n.config.ConfigDrive == nil || !d.n.config.ConfigDrive.Report {
		d.n.setState(StateActive)
		return nil
	}
	return d.awaitReport(ctx, last)
}

// loadKernel has the agent load the deployed system's kernel. It starts nothing yet.
func (d *deployment) loadKernel(ctx context.Context) error {
	if !d.offered["deploy.kexec"] {
		return errors.New("the agent does not offer deploy.kexec")
	}
	_, err := d.step(ctx, "deploy", "kexec", map[string]any{})
	return err
}

// leave sends the last command. An agent that does not answer it may have gone already: awaitReport finds out.
func (d *deployment) leave(ctx context.Context, name string) error {
	err := d.eachHeartbeat(ctx, func(ctx context.Context, a *agent) (bool, error) {
		d.n.setState(StateBooting) // before: the deployed system may be quick
		c, err := a.run(ctx, name, struct{}{}, false)
		switch {
		case errors.Is(err, errBusy):
			d.n.setState(StateWait)
		case err == nil && c.Status != running && c.Status != succeeded:
			return false, c.failure()
		case errors.Is(err, errUnreachable) && ctx.Err() == nil:
			return true, nil
		}
		return err == nil, err
	})
	return wrap(name, err)
}

// awaitReport waits until the deployed system has reported. An agent that still sends heartbeats did not leave: it is
// asked why, and told again if it never heard of it.
func (d *deployment) awaitReport(ctx context.Context, last string) error {
	limit := time.Duration(d.c.config.BootTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the deployed system did not report within %s of the hand-off", limit))
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case rep := <-d.n.booted:
			if want := d.n.hostName; want != "" && rep.HostName != want {
				return fmt.Errorf("the deployed system calls itself %q, want %q from the config drive", printable(rep.HostName), want)
			}
			d.c.event(d.n.config.Name, EventBooted, "%s with kernel %s at %s", printable(rep.HostName), printable(rep.Kernel), printable(rep.IP))
			d.n.setState(StateActive)
			return nil
		case why := <-d.n.wake:
			a := d.n.current()
			if why != "heartbeat" || a == nil {
				continue
			}
			list, err := a.commands(ctx)
			if err != nil {
				continue // it is going
			}
			if len(list) == 0 || list[len(list)-1].Name != bare(last) {
				if err := d.leave(ctx, last); err != nil {
					return err
				}
			} else if c := list[len(list)-1]; c.Status != running && c.Status != succeeded {
				return wrap(last, c.failure())
			}
		}
	}
}

// step executes a deploy step and waits for its end.
func (d *deployment) step(ctx context.Context, iface, name string, args map[string]any) (command, error) {
	step := map[string]any{"interface": iface, "step": name, "args": args}
	ours := func(c command) bool {
		var result struct {
			Step struct {
				Interface string `json:"interface"`
				Step      string `json:"step"`
			} `json:"deploy_step"`
		}
		return json.Unmarshal(c.Result, &result) == nil && result.Step.Interface == iface && result.Step.Step == name
	}
	c, err := d.follow(ctx, "deploy.execute_deploy_step", ours, func() any {
		now := time.Now()
		return map[string]any{"step": step, "node": d.n.record(now, d.index, d.cached), "ports": d.n.ports(now), "deploy_version": d.version}
	})
	return c, err
}

// once runs a command whose answer holds its result.
func (d *deployment) once(ctx context.Context, name string, params func() any) (command, error) {
	var c command
	err := d.eachHeartbeat(ctx, func(ctx context.Context, a *agent) (bool, error) {
		d.n.setState(StateDeploying)
		var err error
		c, err = a.run(ctx, name, params(), true)
		return err == nil && c.Status != running, err
	})
	if err != nil {
		return c, wrap(name, err)
	}
	if c.Status != succeeded {
		return c, wrap(name, c.failure())
	}
	return c, nil
}

// maxStarts is how often a command is started on agents that have forgotten it.
const maxStarts = 3

// follow starts a command, then looks at the list at each heartbeat until it has ended. What counts is the last
// command in the list. If the list is that of an agent which has just started, the command is started again. ours tells
// whether a command of this name that succeeded is the one meant; nil: any is.
func (d *deployment) follow(ctx context.Context, name string, ours func(command) bool, params func() any) (command, error) {
	label := name
	if step, ok := params().(map[string]any)["step"].(map[string]any); ok {
		label = fmt.Sprint(step["step"])
	}
	var final command
	var progress string
	var told time.Time
	starts, asked := 0, false
	err := d.eachHeartbeat(ctx, func(ctx context.Context, a *agent) (bool, error) {
		if asked { // else nothing can be there
			list, err := a.commands(ctx)
			if err != nil {
				return false, err
			}
			if !freshlyBooted(list) && !list[len(list)-1].interrupted() {
				last := list[len(list)-1]
				if last.Name != bare(name) && last.Name != name {
					if starts > 0 {
						return false, nil // somebody else's; ours may come yet
					}
				} else if last.Status == running {
					if p := last.progress(); p != "" && p != progress && time.Since(told) > 5*time.Second {
						progress, told = p, time.Now()
						d.c.event(d.n.config.Name, EventCommand, "%s: %s", label, p)
					}
					return false, nil
				} else if last.Status != succeeded {
					if starts > 0 {
						return false, last.failure()
					}
				} else if ours == nil || ours(last) {
					final = last
					return true, nil
				} else if starts > 0 {
					return false, nil // the one before ours: ours has not begun
				}
			} else if starts == maxStarts {
				return false, fmt.Errorf("the agent started anew %d times", starts)
			} else if starts > 0 {
				d.c.event(d.n.config.Name, EventWarning, "the agent has started anew: %s is sent again", label)
			}
		}
		asked = true
		d.n.setState(StateDeploying)
		c, err := a.run(ctx, name, params(), false)
		if err != nil {
			return false, err
		}
		starts++
		d.n.setState(StateWait)
		d.c.event(d.n.config.Name, EventCommand, "%s: started", label)
		if c.Status != running && c.Status != succeeded {
			return false, c.failure()
		}
		return false, nil
	})
	if err != nil {
		return final, wrap(label, err)
	}
	d.c.event(d.n.config.Name, EventCommand, "%s: done", label)
	return final, nil
}

// interrupted tells whether the agent was killed while the command ran, and has been started again.
func (c command) interrupted() bool {
	return c.Status == failed && c.Error != nil && c.Error.Type == "AgentRestartedError"
}

// freshlyBooted is true for the list of an agent that has only been asked for its steps.
func freshlyBooted(list []command) bool {
	for _, c := range list {
		if c.Name != "get_deploy_steps" {
			return false
		}
	}
	return true
}

// eachHeartbeat calls f now and at every heartbeat (and poll) until it is done or fails. An agent that is busy or does
// not answer is asked again. The deployment fails when that goes on for callback_timeout, or when no heartbeat has come
// for as long; for the first one it waits as long as it takes, for somebody has yet to switch the machine on.
func (d *deployment) eachHeartbeat(ctx context.Context, f func(context.Context, *agent) (done bool, err error)) error {
	for {
		if a := d.n.current(); a != nil && !d.c.isPaused() {
			done, err := f(ctx, a)
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, errBusy), errors.Is(err, errUnreachable):
				limit := time.Duration(d.c.config.CallbackTimeout)
				if d.stuck.IsZero() {
					d.stuck = time.Now()
				} else if time.Since(d.stuck) > limit {
					return fmt.Errorf("for %s: %w", limit, err)
				}
				if d.warned != err.Error() {
					d.warned = err.Error()
					d.c.event(d.n.config.Name, EventWarning, "%v", printable(d.warned))
				}
			case err != nil:
				return err
			case done:
				d.stuck = time.Time{}
				return nil
			default:
				d.stuck = time.Time{}
			}
		}
		if err := d.wait(ctx); err != nil {
			return err
		}
	}
}

// wait returns at the next heartbeat or poll.
func (d *deployment) wait(ctx context.Context) error {
	var poll, silence <-chan time.Time
	if last := d.n.lastHeard(); !last.IsZero() {
		limit := time.Until(last.Add(time.Duration(d.c.config.CallbackTimeout)))
		if limit <= 0 && !d.c.isPaused() {
			return fmt.Errorf("no heartbeat within %s", time.Duration(d.c.config.CallbackTimeout))
		}
		t := time.NewTimer(max(limit, time.Millisecond))
		defer t.Stop()
		silence = t.C
		if p := time.Duration(d.c.config.Poll); p > 0 {
			t := time.NewTimer(p)
			defer t.Stop()
			poll = t.C
		}
	}
	if d.c.isPaused() {
		poll, silence = nil, nil // Resume wakes us
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-d.n.wake:
	case <-poll:
	case <-silence:
	}
	return nil
}

// current is the agent on the node, or nil.
func (n *node) current() *agent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent
}

// currentImage is the image to deploy, or nil while it is being prepared.
func (n *node) currentImage() *image {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.image
}

// lastHeard is the time of the last heartbeat; zero before the first.
func (n *node) lastHeard() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lastHeartbeat
}

// resultText is the sentence in the result of a deploy step, if it is one.
func resultText(c command) string {
	var r struct {
		Result struct {
			Result string `json:"result"`
		} `json:"deploy_result"`
	}
	if json.Unmarshal(c.Result, &r) != nil || r.Result.Result == "" {
		return "no text"
	}
	return printable(r.Result.Result)
}
