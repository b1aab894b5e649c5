// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// slowKernel takes modules. A driver is on its way until it is said to have ended.
type slowKernel struct {
	ends map[string]chan error // of each driver
	quit <-chan struct{}

	mu    sync.Mutex
	taken []string
}

func (k *slowKernel) insert(file, _ string) error {
	name := moduleName(file)
	k.mu.Lock()
	k.taken = append(k.taken, name)
	k.mu.Unlock()
	end := k.ends[name]
	if end == nil {
		return nil
	}
	select {
	case err := <-end:
		return err
	case <-k.quit:
		return nil
	}
}

// String returns the modules that were loaded, in order.
func (k *slowKernel) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.taken, " ")
}

// A driver is loaded when the bus that its device is on has shown all its devices, so that it takes them in their order.
func TestBusFirst(t *testing.T) {
	const (
		slot    = "/devices/pci0000:00/0000:00:03.0"
		bridged = "/devices/pci0000:00/0000:00:04.0/0000:01:00.0"
	)
	type step struct{ do, want string } // what happens, and all that the kernel has taken then
	tests := []struct {
		name  string
		steps []step
	}{
		{"the bus starts", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"add " + slot + "/virtio0 virtio:disk", "virtio virtio_pci lib"}, // what the driver needs touches no device
			{"add " + slot + "/virtio1 virtio:disk", "virtio virtio_pci lib"},
			{"starts virtio_pci", "virtio virtio_pci lib virtio_blk"},
		}},
		{"the bus is loaded without a word", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"add " + slot + "/virtio0 virtio:disk", "virtio virtio_pci lib"},
			{"ends virtio_pci", "virtio virtio_pci lib virtio_blk"},
		}},
		{"the bus fails", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"add " + slot + "/virtio0 virtio:disk", "virtio virtio_pci lib"},
			{"fails virtio_pci", "virtio virtio_pci lib virtio_blk"},
		}},
		{"the bus was there", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"ends virtio_pci", "virtio virtio_pci"},
			{"add " + slot + "/virtio0 virtio:disk", "virtio virtio_pci lib virtio_blk"},
		}},
		{"the bus is nobody's module", []step{
			{"add " + slot + "/virtio0 virtio:disk", "virtio lib virtio_blk"},
		}},
		{"a word of an old kernel, which comes before the devices are taken", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"add " + slot + "/virtio0 virtio:disk", "virtio virtio_pci lib"},
			{"begins virtio_pci", "virtio virtio_pci lib"},
			{"ends virtio_pci", "virtio virtio_pci lib virtio_blk"},
		}},
		{"two buses above", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"add " + slot + "/virtio0 virtio:scsi", "virtio virtio_pci"},
			{"starts virtio_pci", "virtio virtio_pci virtio_scsi"},
			{"add " + slot + "/virtio0/host0/target0:0:0/0:0:0:0 scsi:disk", "virtio virtio_pci virtio_scsi"},
			{"starts virtio_scsi", "virtio virtio_pci virtio_scsi sd_mod"},
		}},
		{"a bus that hangs holds up nobody else", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"add " + slot + "/virtio0 virtio:disk", "virtio virtio_pci lib"},
			{"add " + bridged + " pci:nvme", "virtio virtio_pci lib nvme"},
		}},
		{"a bus that hangs holds up what is on it for a while", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"add " + slot + "/virtio0 virtio:disk", "virtio virtio_pci lib"},
			{"passes almost", "virtio virtio_pci lib"},
			{"passes rest", "virtio virtio_pci lib virtio_blk"},
		}},
		{"two that hang hold it up no longer than one", []step{
			{"add " + slot + " pci:virtio", "virtio virtio_pci"},
			{"add " + slot + "/0000:01:00.0 pci:nvme", "virtio virtio_pci"},
			{"passes almost", "virtio virtio_pci"},
			{"passes rest", "virtio virtio_pci nvme"},
			{"add " + slot + "/0000:01:00.0/virtio0 virtio:disk", "virtio virtio_pci nvme lib"},
			{"passes almost", "virtio virtio_pci nvme lib"},
			{"passes rest", "virtio virtio_pci nvme lib virtio_blk"},
		}},
	}
	tables, err := ReadModules(fstest.MapFS{
		"modules.dep": {Data: []byte("virtio.ko:\nlib.ko: virtio.ko\nvirtio_pci.ko: virtio.ko\nvirtio_blk.ko: lib.ko virtio.ko\nvirtio_scsi.ko: virtio.ko\nnvme.ko:\nsd_mod.ko:\n")},
		"modules.alias": {Data: []byte("alias pci:virtio virtio_pci\nalias virtio:disk virtio_blk\nalias virtio:scsi virtio_scsi\nalias pci:nvme nvme\n" +
			"alias scsi:disk sd_mod\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				quit := make(chan struct{})
				defer close(quit)
				k := &slowKernel{ends: map[string]chan error{}, quit: quit}
				for _, name := range []string{"virtio_pci", "virtio_blk", "virtio_scsi", "nvme", "sd_mod"} {
					k.ends[name] = make(chan error, 1)
				}
				sys := fstest.MapFS{}
				l := &loader{sys: sys, insert: k.insert, tables: tables, slots: make(chan struct{}, atOnce), loads: map[string]*loading{}}
				for _, step := range test.steps {
					do, what, _ := strings.Cut(step.do, " ")
					switch do {
					case "add":
						path, alias, _ := strings.Cut(what, " ")
						sys[path[1:]+"/modalias"] = &fstest.MapFile{Data: []byte(alias + "\n")}
						go l.loadFor(context.Background(), uevent{action: "add", path: path, modalias: alias})
					case "begins", "starts":
						state := map[string]string{"begins": "coming\n", "starts": "live\n"}[do]
						sys["module/"+what+"/initstate"] = &fstest.MapFile{Data: []byte(state)}
						l.becameLive(what)
					case "ends":
						k.ends[what] <- nil
					case "fails":
						k.ends[what] <- unix.EIO
					case "passes":
						time.Sleep(map[string]time.Duration{"almost": busMost - 1, "rest": 1}[what])
					}
					synctest.Wait()
					if got := k.String(); got != step.want {
						t.Errorf("after %q the kernel has taken %q, want %q", step.do, got, step.want)
					}
				}
			})
		})
	}
}
