// SPDX-License-Identifier: Apache-2.0

package steps_test

import (
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
			choice, err := steps.RootDisk(t.Context(), inspect.Machine{FS: inspecttest.Machine(t, recording)}, n)
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
	_, err := steps.RootDisk(t.Context(), inspect.Machine{FS: broken}, n)
	if !errors.Is(err, inspect.ErrNoDisk) || !errors.Is(err, syscall.EIO) {
		t.Errorf("RootDisk() = %v, want ErrNoDisk and EIO", err)
	}
	_, err = steps.RootDisk(t.Context(), inspect.Machine{FS: fstest.MapFS{"sys/block": {Mode: fs.ModeDir | 0o555}}}, n)
	if !errors.Is(err, inspect.ErrNoDisk) {
		t.Errorf("RootDisk() without disks = %v, want ErrNoDisk", err)
	}
}
