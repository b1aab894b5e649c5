// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

// standbyCommands are what the conductor calls around a deployment.
func (a *agent) standbyCommands() []Command {
	return []Command{
		{Name: "standby.prepare_image", Async: true, Check: a.checkImage, Run: a.prepareImage},
		{Name: "standby.cache_image", Async: true, Check: a.checkImage, Run: a.cacheImage},
		{Name: "standby.get_partition_uuids", Check: a.checkWhole, Run: a.partitionUUIDs},
		{Name: "standby.sync", Run: a.sync},
		{Name: "standby.power_off", Async: true, Run: func(ctx context.Context, _ json.RawMessage) (any, error) {
			return nil, a.leave(ctx, boot.PowerOff, "power off")
		}},
		{Name: "standby.run_image", Async: true, Run: a.runImage},
	}
}

// imageArgs are the arguments of the step write_image among the parameters of prepare_image.
func imageArgs(params json.RawMessage) (map[string]json.RawMessage, error) {
	all, err := object(params)
	if err != nil {
		return nil, invalidParams("%w", err)
	}
	maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool { return name != "image_info" && name != "configdrive" })
	return all, nil
}

// checkImage has the conductor told at once that an image cannot be written, where that shows in the parameters.
func (a *agent) checkImage(params json.RawMessage) error {
	args, err := imageArgs(params)
	if err != nil {
		return err
	}
	step, err := a.set.Find("write_image", steps.Deploy)
	if err != nil {
		return nil // the command will say it
	}
	if err := step.CheckArgs(args); err != nil {
		return invalidParams("%w", err)
	}
	if step.Check == nil {
		return nil
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	return step.Check(a.host, raw)
}

// prepareImage is the step write_image under its older name.
func (a *agent) prepareImage(ctx context.Context, params json.RawMessage) (any, error) {
	args, err := imageArgs(params)
	if err != nil {
		return nil, err
	}
	result, err := a.runStep(ctx, steps.Deploy, "write_image", args, nil)
	if err != nil {
		return nil, err
	}
	if d := a.currentDeployed(); d != nil {
		return d.Text, nil
	}
	return result, nil // a vendor's write_image
}

// cacheImage is prepareImage in the words of ironic-python-agent up to 2022. That one left a disk alone that had the image already, unless it was told to
// use force: but what became of the disk in between nobody knows. Source: IPA unmaintained/zed ironic_python_agent/extensions/standby.py.
func (a *agent) cacheImage(ctx context.Context, params json.RawMessage) (any, error) {
	result, err := a.prepareImage(ctx, params)
	if text, ok := result.(string); ok {
		return strings.Replace(text, ") written to device ", ") cached to device ", 1), err
	}
	return result, err
}

// checkWhole refuses to go on with a deployment that a loss of power ended. Ironic takes an agent that has no commands for one that was rebooted because a step
// asked for it, goes on behind write_image, and would call the node active. This is what it asks for next, and it looks at the answer's HTTP status alone.
func (a *agent) checkWhole(json.RawMessage) error {
	if a.currentDeployed() != nil || a.sys.ReadDisk == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	disks, err := a.sys.Machine.Disks(ctx)
	if err != nil {
		a.log.Warn("not all disks were looked at for an image that is not whole", "err", err)
	}
	for _, d := range disks {
		half, err := a.unfinished(d.Name)
		if err != nil {
			a.log.Warn("not looked at for an image that is not whole", "disk", d.Name, "err", err)
		}
		if half {
			return newError("DeploymentError", "%s: the machine was restarted while an image was written to this disk, which is not whole: deploy again", d.Name)
		}
	}
	return nil
}

func (a *agent) unfinished(disk string) (bool, error) {
	r, err := a.sys.ReadDisk(disk)
	if err != nil {
		return false, err
	}
	defer r.Close() // only read
	return stream.Unfinished(r)
}

func (a *agent) partitionUUIDs(context.Context, json.RawMessage) (any, error) {
	d := a.currentDeployed()
	if d == nil {
		return map[string]string{}, nil
	}
	return d.UUIDs, nil
}

func (a *agent) sync(ctx context.Context, _ json.RawMessage) (any, error) {
	return nil, a.syncDisks(ctx)
}

// syncTime is how long disks may take to write what is in memory. Images go past the memory and are on the disk before their step ends, so
// this is about little, and a disk that has died must not keep the node from starting.
const syncTime = time.Minute

// syncDisks has the disks write what is in memory. The call cannot be interrupted: after syncTime it is left to itself.
func (a *agent) syncDisks(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- a.sys.Sync() }()
	limit := time.NewTimer(syncTime)
	defer limit.Stop()
	select {
	case err := <-done:
		return err
	case <-limit.C:
		return fmt.Errorf("sync: a disk has not taken what is in memory within %v", syncTime)
	case <-ctx.Done():
		return fmt.Errorf("sync: %w", ctx.Err())
	}
}

// runImage starts what was deployed: the kernel that the step kexec has loaded from it, or else
// through the firmware.
func (a *agent) runImage(ctx context.Context, _ json.RawMessage) (any, error) {
	if a.currentDeployed() != nil && a.sys.KernelLoaded() { // else it is not this deployment's
		return nil, a.leave(ctx, boot.Kexec, "start the loaded kernel (kexec)")
	}
	return nil, a.leave(ctx, boot.Reboot, "reboot")
}

// share goes on sharing an image, in place of the one that was shared before.
func (a *agent) share(s steps.Sharer) {
	a.mu.Lock()
	old := a.sharing
	a.sharing = s
	a.mu.Unlock()
	if old != nil {
		if err := old.Close(); err != nil {
			a.log.Warn("end of sharing an image", "err", err)
		}
	}
}

// shareOn leaves others the time to get the image that was asked for.
func (a *agent) shareOn(ctx context.Context) {
	a.mu.Lock()
	s := a.sharing
	a.mu.Unlock()
	if s == nil {
		return
	}
	if limit := a.config.TorrentShare; limit > 0 {
		a.console.Stage("hand-off", "sharing the image for %v, or until %d copies were sent", limit, a.config.TorrentRatio)
		s.Share(ctx, limit, float64(a.config.TorrentRatio))
	}
	a.share(nil)
}

// answerTime is left for the answer to the command to reach the conductor.
const answerTime = time.Second

// leave ends the ramdisk. If it works, nothing after it happens.
func (a *agent) leave(ctx context.Context, how boot.How, what string) error {
	a.console.Stage("hand-off", "%s", what)
	a.shareOn(ctx)
	if err := a.syncDisks(ctx); err != nil {
		a.console.Stage("hand-off", "%v; going on", err)
	}
	select {
	case <-time.After(answerTime):
	case <-ctx.Done():
		return ctx.Err()
	}
	// From here on there is no way back.
	if wait := a.config.KexecWatchdog; how == boot.Kexec && wait > 0 {
		if name, err := a.sys.ArmWatchdog(wait); err != nil {
			a.console.Stage("hand-off", "without a watchdog: %v", err)
		} else {
			a.console.Stage("hand-off", "%s is armed", name)
		}
	}
	err := a.sys.Power(ctx, how)
	if err != nil && how == boot.Kexec {
		a.console.Stage("hand-off", "%v; rebooting through the firmware instead", err)
		err = a.sys.Power(ctx, boot.Reboot)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
