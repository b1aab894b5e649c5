// SPDX-License-Identifier: Apache-2.0

package steps_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/steps"
)

// The recorded machine has /dev/sda with 10 GiB, /dev/vda with 2 GiB, serial root-disk, and /dev/vdb with 8 GiB, which is read-only.
const recording = "../inspect/testdata/virtio.txt"

func TestRootDisk(t *testing.T) {
	tests := []struct {
		name, node string
		want       string // disk, then the others that would have fitted
		wantErr    error
		reason     string
	}{
		{"properties", `{"properties": {"root_device": {"serial": "root-disk"}}}`, "/dev/vda", nil, ""},
		{"instance_info over properties", `{"properties": {"root_device": {"serial": "root-disk"}}, "instance_info": {"root_device": {"name": "/dev/sda"}}}`, "/dev/sda", nil, ""},
		{"instance_info that is empty", `{"properties": {"root_device": {"serial": "root-disk"}}, "instance_info": {"root_device": {}}}`, "/dev/vda", nil, ""},
		{"instance_info that is empty, with a blank", `{"properties": {"root_device": {"serial": "root-disk"}}, "instance_info": {"root_device": { }}}`, "/dev/vda", nil, ""},
		{"instance_info that is null", `{"properties": {"root_device": {"serial": "root-disk"}}, "instance_info": {"root_device": null}}`, "/dev/vda", nil, ""},
		{"no hints: the smallest of at least 4 GiB", `{}`, "/dev/sda", nil, ""},
		{"empty hints", `{"properties": {"root_device": {}, "cpu_arch": "x86_64"}}`, "/dev/sda", nil, ""},
		{"two fit: the first in the list", `{"properties": {"root_device": {"size": ">= 1"}}}`, "/dev/sda /dev/vda", nil, ""},
		{"one is on the skip list", `{"properties": {"root_device": {"size": ">= 1"}, "skip_block_devices": [{"name": "/dev/sda"}]}}`, "/dev/vda", nil, ""},
		{"the named one is on the skip list", `{"properties": {"root_device": {"serial": "root-disk"}, "skip_block_devices": [{"size": 2}]}}`, "", inspect.ErrNoDisk, "root-disk"},
		{"a skip list that is not understood", `{"properties": {"root_device": {"serial": "root-disk"}, "skip_block_devices": [{"colour": "red"}]}}`, "", inspect.ErrHints, "skip_block_devices in properties: "},
		{"none fits", `{"properties": {"root_device": {"serial": "gone"}}}`, "", inspect.ErrNoDisk, `/dev/vda has serial root-disk, wanted "gone"`},
		{"instance_info fits none: no way back to properties", `{"properties": {"root_device": {"serial": "root-disk"}}, "instance_info": {"root_device": {"serial": "gone"}}}`, "", inspect.ErrNoDisk, "gone"},
		{"unknown hint", `{"properties": {"root_device": {"colour": "red"}}}`, "", inspect.ErrHints, `root_device in properties: invalid hints: hint "colour"`},
		{"hints that are a text", `{"properties": {"root_device": "/dev/sda"}}`, "", inspect.ErrHints, "root_device in properties: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var n steps.Node
			if err := json.Unmarshal([]byte(test.node), &n); err != nil {
				t.Fatal(err)
			}
			choice, err := steps.RootDisk(t.Context(), steps.Host{Machine: inspect.Machine{FS: inspecttest.Machine(t, recording)}}, n)
			if test.wantErr != nil {
				if !errors.Is(err, test.wantErr) || !strings.Contains(err.Error(), test.reason) {
					t.Errorf("RootDisk() = %v, %v, want %v, %q", choice.Disk.Name, err, test.wantErr, test.reason)
				}
				return
			}
			got := choice.Disk.Name
			for _, other := range choice.Others {
				got += " " + other.Name
			}
			if err != nil || got != test.want {
				t.Errorf("RootDisk() = %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

// A disk that cannot be read may be the one that was meant: the reason is in the error.
func TestRootDiskUnread(t *testing.T) {
	broken := inspecttest.Broken{ReadLinkFS: inspecttest.Machine(t, recording), Errors: map[string]error{"sys/block": syscall.EIO}}
	n := steps.Node{Properties: map[string]json.RawMessage{"root_device": json.RawMessage(`{"serial": "root-disk"}`)}}
	_, err := steps.RootDisk(t.Context(), steps.Host{Machine: inspect.Machine{FS: broken}}, n)
	if !errors.Is(err, inspect.ErrNoDisk) || !errors.Is(err, syscall.EIO) {
		t.Errorf("RootDisk() = %v, want ErrNoDisk and EIO", err)
	}
	_, err = steps.RootDisk(t.Context(), steps.Host{Machine: inspect.Machine{FS: fstest.MapFS{"sys/block": {Mode: fs.ModeDir | 0o555}}}}, n)
	if !errors.Is(err, inspect.ErrNoDisk) {
		t.Errorf("RootDisk() without disks = %v, want ErrNoDisk", err)
	}
}

// The recorded server has the array /dev/md127 of 558 GiB, and the disks /dev/sda of 559, /dev/sdb of 3726, /dev/sde, /dev/sdf of 100 and /dev/sdg of 10 GiB.
func TestRootDiskOnArray(t *testing.T) {
	system := steps.Array{Device: "/dev/md127", Name: "system", Disks: []string{"/dev/sda", "/dev/sdg"}}
	stopped := steps.Array{Name: "system", Disks: system.Disks}
	numbered := system
	numbered.Name = "md1"
	config := func(more ...string) string {
		return `{"logical_disks": [{"controller": "software", "size_gb": "MAX", "raid_level": "0"}, {"controller": "software", "size_gb": 500, "raid_level": "1"` + strings.Join(more, "") + `}]}`
	}
	const named, root, notRoot = `, "volume_name": "system"`, `, "is_root_volume": true`, `, "is_root_volume": false`
	tests := []struct {
		name, raid, properties string
		arrays                 []steps.Array
		failed                 error
		want                   string
		wantErr                error
		reason                 string
	}{
		{"root volume", config(named, root), `{}`, []steps.Array{system}, nil, "/dev/md127", nil, ""},
		{"root volume over hints", config(named, root), `{"root_device": {"name": "/dev/sdb"}}`, []steps.Array{system}, nil, "/dev/md127", nil, ""},
		{"root volume without a name is made before one of MAX", strings.Replace(config(root), "500", `500, "x": 1`, 1), `{}`, []steps.Array{{Device: "/dev/md127", Name: "md0"}}, nil, "/dev/md127", nil, ""},
		{"root volume with another number", config(root), `{}`, []steps.Array{numbered}, nil, "", inspect.ErrNoDisk, `the array "md0", and none of this name runs`},
		{"root volume that does not run", config(named, root), `{}`, []steps.Array{stopped}, nil, "", inspect.ErrNoDisk, `the array "system", and none of this name runs`},
		{"root volume that is not there", config(named, root), `{}`, nil, nil, "", inspect.ErrNoDisk, `the array "system"`},
		{"root volume twice", config(named, root), `{}`, []steps.Array{system, system}, nil, "", inspect.ErrNoDisk, "are both of this name"},
		{"arrays that cannot be read", config(named), `{}`, nil, syscall.EIO, "", steps.ErrRAID, "input/output error"},
		{"volume that may be root, by a hint", config(named), `{"root_device": {"name": "/dev/md127"}}`, []steps.Array{system}, nil, "/dev/md127", nil, ""},
		{"volume that may be root, and a smaller disk", config(named), `{}`, []steps.Array{system}, nil, "/dev/sdf", nil, ""},
		{"volume that is not for it", config(named, notRoot), `{"root_device": {"name": "/dev/md127"}}`, []steps.Array{system}, nil, "", inspect.ErrNoDisk, "/dev/md127"},
		{"disk of such a volume", config(named, notRoot), `{"root_device": {"name": "/dev/sda"}}`, []steps.Array{system}, nil, "", inspect.ErrNoDisk, "/dev/sda"},
		{"disk of a volume that does not run", config(named), `{"root_device": {"name": "/dev/sda"}}`, []steps.Array{stopped}, nil, "", inspect.ErrNoDisk, "/dev/sda"},
		{"disk of a volume that is to be kept", `null`, `{"root_device": {"name": "/dev/sda"}, "skip_block_devices": [{"volume_name": "system"}]}`, []steps.Array{system}, nil, "", inspect.ErrNoDisk, "/dev/sda"},
		{"volume that is to be kept", config(named), `{"root_device": {"name": "/dev/md127"}, "skip_block_devices": [{"volume_name": "system"}]}`, []steps.Array{system}, nil, "", inspect.ErrNoDisk, "/dev/md127"},
		{"array of a former life", `{}`, `{"root_device": {"name": "/dev/md127"}}`, []steps.Array{system}, nil, "", inspect.ErrNoDisk, "/dev/md127"},
		{"disk of an array of a former life", `{}`, `{"root_device": {"name": "/dev/sda"}}`, []steps.Array{system}, nil, "/dev/sda", nil, ""},
		{"another array than the node's", config(named), `{"root_device": {"name": "/dev/md127"}}`, []steps.Array{{Device: "/dev/md127", Name: "other", Disks: system.Disks}}, nil, "", inspect.ErrNoDisk, "/dev/md127"},
		{"RAID of a controller", strings.ReplaceAll(config(named, root), "software", "hardware"), `{"root_device": {"name": "/dev/sda"}}`, nil, syscall.EIO, "/dev/sda", nil, ""},
		{"raid_config that is none", `[]`, `{}`, nil, nil, "", nil, "raid_config of the node"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var n steps.Node
			if err := json.Unmarshal([]byte(`{"raid_config": `+test.raid+`, "properties": `+test.properties+`}`), &n); err != nil {
				t.Fatal(err)
			}
			h := steps.Host{Machine: inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/sas.txt")},
				Arrays: func(context.Context) ([]steps.Array, error) { return test.arrays, test.failed }}
			choice, err := steps.RootDisk(t.Context(), h, n)
			if test.want != "" && (err != nil || choice.Disk.Name != test.want) {
				t.Errorf("RootDisk() = %s, %v, want %s", choice.Disk.Name, err, test.want)
			}
			if test.want == "" && (err == nil || test.wantErr != nil && !errors.Is(err, test.wantErr) || !strings.Contains(err.Error(), test.reason)) {
				t.Errorf("RootDisk() = %s, %v, want %v, %q", choice.Disk.Name, err, test.wantErr, test.reason)
			}
			if h.Arrays = nil; strings.Contains(test.raid, "software") {
				if _, err := steps.RootDisk(t.Context(), h, n); !errors.Is(err, steps.ErrRAID) {
					t.Errorf("RootDisk() without a look at arrays = %v", err)
				}
			}
		})
	}
}
