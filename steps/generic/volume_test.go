// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

// volumeTools stand for lvm, which finds the volume vg/root on /dev/vda3.
type volumeTools struct{ ran []string }

func (v *volumeTools) Run(_ context.Context, t tool.Tool, args ...string) ([]byte, error) {
	line := tool.Line(t, args...)
	switch {
	case strings.Contains(line, "lvm vgs"):
		return []byte(`{"report": [{"vg": [{"vg_uuid": "U", "vg_name": "vg", "vg_missing_pv_count": "0", "vg_tags": "ironhand-node-n1"}]}]}`), nil
	case strings.Contains(line, "lvm pvs"):
		return []byte(`{"report": [{"pv": [{"vg_uuid": "U", "pv_name": "/dev/vda3"}]}]}`), nil
	case strings.Contains(line, "lvm lvs"):
		return []byte(`{"report": [{"lv": [{"vg_uuid": "U", "lv_name": "root", "lv_layout": "linear", "lv_size": "33554432", "lv_tags": "ironhand-root"}]}]}`), nil
	}
	v.ran = append(v.ran, line)
	return nil, errors.New("not here")
}

// What cannot go onto the node's root volume is refused before anything is changed; what can goes nowhere else.
func TestWriteVolumeRefusals(t *testing.T) {
	const property = `[{"name": "vg", "volumes": [{"name": "root", "is_root_volume": true}]}]`
	drive, err := image.MakeConfigDrive(map[string][]byte{"openstack/latest/meta_data.json": []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	partition := func(more change) change {
		c := change{"image_type": "partition", "root_mb": 20, "deploy_boot_mode": "uefi"}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	for _, tt := range []struct {
		name, property string
		boot           string
		info, args     change
		kinds          []gpt.GUID
		is             error
		want           string
	}{
		{"a whole disk", property, "uefi", nil, nil, nil, steps.ErrArgs, "the node's root volume is the logical volume vg/root, which takes the image of a file system"},
		{"a whole disk, by the tags", "", "uefi", nil, nil, nil, steps.ErrArgs, "the node's root volume is the logical volume vg/root, which takes the image of a file system"},
		{"swap", property, "uefi", partition(change{"swap_mb": 1}), nil, nil, steps.ErrArgs, "its layout has all volumes"},
		{"ephemeral", property, "uefi", partition(change{"ephemeral_mb": 1}), nil, nil, steps.ErrArgs, "its layout has all volumes"},
		{"ephemeral in GB", property, "uefi", partition(change{"ephemeral_gb": 1}), nil, nil, steps.ErrArgs, "its layout has all volumes"},
		{"ephemeral that is kept", property, "uefi", partition(change{"ephemeral_mb": 1, "preserve_ephemeral": true}), nil, nil, steps.ErrArgs, "its layout has all volumes"},
		{"larger than the volume", property, "uefi", partition(change{"root_mb": 33}), nil, nil, steps.ErrArgs, "which has 32 MiB, and root_mb is 33"},
		{"BIOS", property, "bios", partition(nil), nil, nil, steps.ErrVolumes, "/dev/vda has no BIOS boot partition"},
		{"no place for a config drive", property, "uefi", partition(nil), change{"configdrive": base64.StdEncoding.EncodeToString(drive)}, []gpt.GUID{gpt.EFISystem, gpt.LinuxSwap, gpt.LinuxLVM}, steps.ErrVolumes, "/dev/vda has no partition for the config drive"},
		{"not there", strings.Replace(property, "vg", "other", 1), "uefi", partition(nil), nil, nil, steps.ErrVolumes, "the node's root volume is other/root: there is none of this name"},
		{"no file system in it", property, "uefi", partition(nil), nil, nil, stream.ErrFormat, "the image has a partition table with 1 partitions, and is to be one of a file system"},
		{"all is well", property, "uefi", partition(nil), nil, nil, nil, `write partition image debian.img to the logical volume vg/root: not here`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			kinds := tt.kinds
			if kinds == nil {
				kinds = []gpt.GUID{gpt.EFISystem, gpt.LinuxData, gpt.LinuxLVM}
			}
			b.group(t, kinds...)
			if tt.is == nil {
				b.server.Content = ext4Image(t)
			}
			v := &volumeTools{}
			b.host.Tools = v
			b.properties = map[string]json.RawMessage{"capabilities": json.RawMessage(fmt.Sprintf("%q", "boot_mode:"+tt.boot))}
			if tt.property != "" {
				b.properties["logical_volumes"] = json.RawMessage(tt.property)
			}
			_, err := b.run(t, rootDiskHint, tt.info, tt.args)
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("writeImage() = %v, want %v with %q", err, tt.is, tt.want)
			}
			if len(b.opened) > 0 || !b.untouched() || tt.is != nil && len(v.ran) > 0 {
				t.Errorf("opened %v, ran %v", b.opened, v.ran)
			}
		})
	}
}

// group has /dev/vda be the only disk, with partitions of which the last is a physical volume.
func (b *bench) group(t *testing.T, kinds ...gpt.GUID) {
	t.Helper()
	for name := range b.machine {
		if strings.HasPrefix(name, "sys/block/") && name != "sys/block/vda" {
			delete(b.machine, name)
		}
	}
	file := func(name string, content []byte) { b.machine[name] = &fstest.MapFile{Data: content} }
	table, err := gpt.New(72*mib, 512)
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 72*mib)
	for i, k := range kinds {
		start := int64(1+20*i) * mib
		p := gpt.Partition{Number: i + 1, Type: k, First: uint64(start / 512), Last: uint64((start+20*mib)/512 - 1)}
		if k == gpt.LinuxData {
			p.Name = "config-2"
		}
		if err := table.Put(p); err != nil {
			t.Fatal(err)
		}
		if k == gpt.LinuxLVM {
			copy(content[start+512:], "LABELONE----------------LVM2 001")
		}
		dir := fmt.Sprintf("sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda%d/", i+1)
		for what, value := range map[string]int64{"partition": int64(i + 1), "start": start / 512, "size": 20 * mib / 512} {
			file(dir+what, []byte(fmt.Sprint(value)))
		}
		defer func() { file(fmt.Sprintf("dev/vda%d", i+1), content[start:start+20*mib]) }()
	}
	copy(content, table.Head())
	file("dev/vda", content)
	file("proc/self/mountinfo", nil)
	file("proc/swaps", []byte("Filename\n"))
}
