// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/steps"
)

// groupTools stand for mdadm, which takes an array away when it is stopped, and lvm, which finds the group vg on it as long as it runs.
type groupTools struct {
	machine fstest.MapFS
	calls   []string
}

func (g *groupTools) Run(_ context.Context, t tool.Tool, args ...string) ([]byte, error) {
	line := tool.Line(t, args...)
	g.calls = append(g.calls, line)
	switch {
	case strings.Contains(line, "--stop"):
		for name := range g.machine {
			if strings.Contains(name, "md0") {
				delete(g.machine, name)
			}
		}
		return nil, nil
	case strings.Contains(line, "lvm vgs"):
		return []byte(`{"report": [{"vg": [{"vg_uuid": "U", "vg_name": "vg", "vg_missing_pv_count": "0"}]}]}`), nil
	case strings.Contains(line, "lvm pvs"):
		return []byte(`{"report": [{"pv": [{"vg_uuid": "U", "pv_name": "/dev/md0"}]}]}`), nil
	}
	return []byte(`{"report": []}`), nil
}

// A group of the node's on an array is seen only while the array runs: it must be looked for before the array is stopped to make room for the image.
func TestGroupOnArrayIsKept(t *testing.T) {
	b := newBench(t)
	for name := range b.machine {
		if strings.HasPrefix(name, "sys/block/") && name != "sys/block/vda" {
			delete(b.machine, name)
		}
	}
	file := func(name, text string) { b.machine[name] = &fstest.MapFile{Data: []byte(text)} }
	file("dev/vda", string(make([]byte, 72*mib)))
	array := make([]byte, 72*mib)
	copy(array[512:], "LABELONE----------------LVM2 001")
	file("dev/md0", string(array))
	for name, text := range map[string]string{"size": fmt.Sprint(len(array) / 512), "ro": "0", "removable": "0", "hidden": "0", "dev": "9:0", "queue/logical_block_size": "512", "queue/rotational": "0",
		"md/array_state": "clean", "md/level": "raid1", "md/raid_disks": "1", "md/metadata_version": "1.2", "md/degraded": "0", "slaves/vda/size": ""} {
		file("sys/block/md0/"+name, text)
	}
	file("proc/self/mountinfo", "")
	file("proc/swaps", "Filename\n")
	g := &groupTools{machine: b.machine}
	b.host.Tools = g
	b.properties = map[string]json.RawMessage{"logical_volumes": json.RawMessage(`[{"name": "vg"}]`)}
	_, err := b.run(t, rootDiskHint, nil, nil)
	if err == nil || !strings.Contains(err.Error(), `volume group "vg" is on`) || !errors.Is(err, steps.ErrVolumes) || len(b.opened) > 0 || !b.untouched() {
		t.Errorf("writeImage() = %v, want it to refuse the disk; opened %v; calls:\n%s", err, b.opened, strings.Join(g.calls, "\n"))
	}
}
