// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// Certificate says how a disk was erased, and what proves it.
type Certificate struct {
	Device       string    `json:"device"`
	Model        string    `json:"model"`
	Serial       string    `json:"serial"`
	WWN          string    `json:"wwn,omitempty"`
	Size         int64     `json:"size"`         // bytes
	Capabilities []string  `json:"capabilities"` // what the drive can do by itself
	Lacking      []string  `json:"not_usable,omitempty"`
	Method       string    `json:"method"`
	Status       string    `json:"status,omitempty"` // what the drive said
	Failed       []attempt `json:"failed,omitempty"` // what was tried before
	Started      time.Time `json:"started"`
	Ended        time.Time `json:"ended"`
	Proof        Proof     `json:"proof"`
}

// String is the certificate in one line.
func (c Certificate) String() string {
	status := ""
	if c.Status != "" {
		status = ", the drive says " + c.Status
	}
	name := c.Device
	if c.Model != "" {
		name += " " + c.Model
	}
	if c.Serial != "" {
		name += " serial " + c.Serial
	}
	return fmt.Sprintf("%s, %d bytes: erased by %s from %s to %s%s; of %d samples %d are zero and none has its old data",
		name, c.Size, c.Method, c.Started.Format(time.RFC3339), c.Ended.Format(time.RFC3339), status, c.Proof.Samples, c.Proof.Zero)
}

// Devices erases the disks. The result is a certificate for each.
func (e Eraser) Devices(ctx context.Context, h steps.Host, s steps.Job) (any, error) {
	j, err := e.prepare(ctx, h, s.Node, false)
	if err != nil {
		return nil, err
	}
	defer j.closeDrives()
	if j.options.iterations == 0 && !j.options.zeroize {
		return nil, fmt.Errorf("%w: driver_internal_info: neither passes (agent_erase_devices_iterations) nor zeros (agent_erase_devices_zeroize)", steps.ErrArgs)
	}
	if err := j.ladders(ctx); err != nil {
		return nil, err
	}
	if err := j.guard(ctx); err != nil { // a drive that was locked can be read only now
		return nil, err
	}
	if err := j.confirm(ctx, func(t *target) string { return "erase by " + methods(t.ladder, j.options.goOn) }); err != nil {
		return nil, err
	}
	certificates := map[string]Certificate{}
	var mu sync.Mutex
	err = j.each(ctx, "erase", func(ctx context.Context, t *target, disk steps.Disk) error {
		c, err := j.eraseDisk(ctx, t, disk, t.ladder)
		if err != nil {
			return err
		}
		j.certify(c)
		mu.Lock()
		defer mu.Unlock()
		certificates[t.disk.Name] = c
		return nil
	})
	if err != nil {
		return nil, err
	}
	return certificates, nil
}

// Express erases NVMe drives by a format, and of other disks, or if that fails, the metadata.
func (e Eraser) Express(ctx context.Context, h steps.Host, s steps.Job) (any, error) {
	j, err := e.prepare(ctx, h, s.Node, true)
	if err != nil {
		return nil, err
	}
	defer j.closeDrives()
	j.options.ata, j.options.goOn = false, true
	if err := j.guard(ctx); err != nil {
		return nil, err
	}
	for _, t := range j.targets {
		if err := j.ladder(ctx, t); err != nil { // its metadata can be cleared all the same
			h.Say("%s: %v", t.disk.Name, err)
			if ctx.Err() != nil {
				return nil, err
			}
		}
		var quick []rung
		for _, r := range t.ladder {
			if r.quick {
				quick = append(quick, r)
			}
		}
		t.ladder = quick
	}
	how := func(t *target) string {
		if len(t.ladder) == 0 {
			return "clear both ends, and those of its partitions"
		}
		return "erase by " + methods(t.ladder, true)
	}
	if err := j.confirm(ctx, how); err != nil {
		return nil, err
	}
	return nil, j.each(ctx, "erase", func(ctx context.Context, t *target, disk steps.Disk) error {
		if len(t.ladder) > 0 {
			c, err := j.eraseDisk(ctx, t, disk, t.ladder)
			if err == nil {
				j.certify(c)
				return nil
			}
			if ctx.Err() != nil {
				return err
			}
			j.host.Say("%s: %v; clearing its metadata", t.disk.Name, err)
		}
		return j.clear(ctx, t, disk)
	})
}

func methods(ladder []rung, goOn bool) string {
	var names []string
	for i, r := range ladder {
		if i > 0 && !r.secure && ladder[i-1].secure && !goOn {
			break
		}
		names = append(names, r.name)
	}
	return strings.Join(names, ", else ")
}

// ladders asks each drive what it can do. If one can do nothing that is allowed, none is touched.
func (j *job) ladders(ctx context.Context) error {
	var failures []string
	var errs []error
	for _, t := range j.targets {
		if err := j.ladder(ctx, t); err != nil {
			failures, errs = append(failures, fmt.Sprintf("%q: %v", t.disk.Name, err)), append(errs, err)
		}
	}
	if len(failures) > 0 {
		return &eraseError{"no disk was touched, because some cannot be erased: " + strings.Join(failures, "; "), errs}
	}
	return nil
}

func (j *job) ladder(ctx context.Context, t *target) error {
	d, err := j.Eraser.System.Drive(t.disk.Name)
	if err != nil {
		return err
	}
	t.close = d.Close
	say := func(what string) { j.host.Say("%s: %s", t.disk.Name, what) }
	switch isNVMe := t.disk.Tran == "nvme"; {
	case isNVMe && j.options.nvme:
		namespace, err := j.namespace(t)
		if err != nil {
			return err
		}
		if t.capability, err = nvmeCapability(ctx, d, namespace, say); err != nil {
			return err
		}
	case !isNVMe && j.options.ata && t.disk.HCTL != "":
		t.capability, err = ataCapability(ctx, d, t.disk.Name, say)
		switch {
		case err == nil:
		case errors.Is(err, errNotATA), t.disk.Vendor != "ATA": // SAS, or an adapter that lets no commands through
			if t.capability, err = scsiCapability(ctx, d, say); err != nil {
				return err
			}
		default:
			return err
		}
	}
	t.ladder, err = plan(j.options, t.capability, d)
	return err
}

// certify keeps a certificate where people and the collected logs have it.
func (j *job) certify(c Certificate) {
	j.host.Say("%v", c)
	if b, err := json.Marshal(c); err == nil {
		j.host.Log.Info("erased", "certificate", string(b))
	}
}

// Shown is the progress of a step that erases: each disk's, by its name.
type Shown struct {
	Disks map[string]ShownDisk `json:"disks"`
}

// ShownDisk is how far one disk is.
type ShownDisk struct {
	Method  string  `json:"method"`
	Percent float64 `json:"percent"`
}

// show tells how far a disk is, on the console each tenth.
func (j *job) show(t *target, method string, fraction float64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.shown == nil {
		j.shown = map[string]ShownDisk{}
	}
	percent := float64(int(fraction*1000)) / 10
	before := j.shown[t.disk.Name]
	if before.Method == method && before.Percent == percent {
		return
	}
	now := ShownDisk{method, percent}
	j.shown[t.disk.Name] = now
	disks := map[string]ShownDisk{}
	for name, d := range j.shown {
		disks[name] = d
	}
	j.host.Progress(Shown{disks})
	if before.Method != method || int(before.Percent/10) != int(percent/10) {
		j.host.Say("%s: %s: %.0f %%", t.disk.Name, method, percent)
	}
}

// namespace reads the number of an NVMe disk's namespace.
func (j *job) namespace(t *target) (uint32, error) {
	name := path.Join("sys/block", t.tree.Name, "nsid")
	b, err := fs.ReadFile(j.host.Machine.FS, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s is %.20q", name, b)
	}
	return uint32(n), nil
}
