// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/ironhand/ironhand/inspect"
)

func TestLost(t *testing.T) {
	size := func(mb int64) *int64 { return &mb }
	whole := func() hardware {
		var w hardware
		w.Modules = []inspect.MemoryModule{{Slot: "DIMM A1", Size: 16 << 30, Kind: "DDR4", Serial: "M1"}, {Slot: "DIMM B1", Size: 16 << 30, Kind: "DDR4", Serial: "M2"}}
		w.Inventory.Memory.PhysicalMB = size(32 << 10)
		w.Inventory.CPU = inspect.CPU{ModelName: "Xeon", Count: 8, SocketCount: 2}
		w.Inventory.Disks = []inspect.Disk{{Name: "/dev/sda", Model: "ST1000", Serial: "S1", Size: 1 << 30, ByPath: "/dev/disk/by-path/pci-1", Bay: "3", Firmware: "1.0"}}
		w.Inventory.Interfaces = []inspect.NIC{{Name: "eth0", MACAddress: "52:54:00:00:00:01", PCIAddress: "0000:02:00.0"}}
		return w
	}
	for _, test := range []struct {
		name   string
		change func(w *hardware)
		want   string
	}{
		{"nothing", func(*hardware) {}, ""},
		{"the kernel's names and addresses are others", func(w *hardware) {
			w.Inventory.Disks[0].Name, w.Inventory.Interfaces[0].Name, w.Inventory.Interfaces[0].IPv4Address = "/dev/sdb", "eth1", "192.0.2.1"
		}, ""},
		{"a memory module is lost", func(w *hardware) {
			w.Modules, w.Inventory.Memory.PhysicalMB = w.Modules[:1], size(16<<10)
		}, "FAIL|memory|smaller: 32.0 GiB when the burn-in began, 16.0 GiB now\nFAIL|memory DIMM B1|lost since the burn-in began: 16.0 GiB DDR4 serial M2\n"},
		{"a memory module is another one", func(w *hardware) { w.Modules[0].Serial = "M3" },
			"FAIL|memory DIMM A1|lost since the burn-in began: 16.0 GiB DDR4 serial M1; in its place is 16.0 GiB DDR4 serial M3\n"},
		{"a memory module has come", func(w *hardware) {
			w.Modules = append(w.Modules, inspect.MemoryModule{Slot: "DIMM C1", Size: 16 << 30, Serial: "M3"})
		}, "|memory DIMM C1|came since the burn-in began: 16.0 GiB serial M3\n"},
		{"a socket is lost", func(w *hardware) { w.Inventory.CPU.Count, w.Inventory.CPU.SocketCount = 4, 1 },
			"FAIL|cpu|sockets: 2 when the burn-in began, 1 now; threads: 8 when the burn-in began, 4 now\n"},
		{"more threads", func(w *hardware) { w.Inventory.CPU.Count = 16 }, "|cpu|threads was 8 when the burn-in began, is 16\n"},
		{"a disk is lost", func(w *hardware) { w.Inventory.Disks = nil }, "FAIL|disk pci-1|lost since the burn-in began: ST1000 1.0 GiB serial S1\n"},
		{"a disk is smaller than it was", func(w *hardware) { w.Inventory.Disks[0].Size = 1 << 29 }, "FAIL|disk pci-1|size: 1.0 GiB when the burn-in began, 512.0 MiB now\n"},
		{"an interface is lost", func(w *hardware) { w.Inventory.Interfaces = nil }, "FAIL|nic eth0|lost since the burn-in began: 52:54:00:00:00:01\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			// What was before comes out of a file.
			var before hardware
			b, err := json.Marshal(whole())
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &before); err != nil {
				t.Fatal(err)
			}
			after := whole()
			test.change(&after)
			parts := lost(before, after)
			sortParts(parts)
			if got := lines(parts); got != test.want {
				t.Errorf("lost:\n%swant:\n%s", got, test.want)
			}
		})
	}
}

// The disk that is gone on with is overwritten: another one is never taken for it.
func TestFindDisk(t *testing.T) {
	disk := func(name, serial, wwn, place string) inspect.Disk {
		return inspect.Disk{Name: name, Type: "disk", Model: "ST1000", Size: 1 << 30, Serial: inspect.Text(serial), WWN: inspect.Text(wwn), ByPath: inspect.Text(place)}
	}
	a, b := disk("/dev/sda", "S1", "w1", "1"), disk("/dev/sdb", "S2", "w2", "2")
	twinA, twinB := disk("/dev/sda", "0123", "", "1"), disk("/dev/sdb", "0123", "", "2")
	named := func(d inspect.Disk, name string) inspect.Disk { d.Name = name; return d }
	at := func(d inspect.Disk, place string) inspect.Disk { d.ByPath = inspect.Text(place); return d }
	bare := func(name string) inspect.Disk { return disk(name, "", "", "") }
	for _, test := range []struct {
		name   string
		was    inspect.Disk
		before []inspect.Disk
		now    []inspect.Disk
		want   string // "" if it is not there
		fails  bool
	}{
		{"the names are exchanged", a, []inspect.Disk{a, b}, []inspect.Disk{named(b, "/dev/sda"), named(a, "/dev/sdb")}, "/dev/sdb", false},
		{"it is in another place", a, []inspect.Disk{a, b}, []inspect.Disk{at(a, "7"), b}, "/dev/sda", false},
		{"it is gone", a, []inspect.Disk{a, b}, []inspect.Disk{b}, "", false},
		{"two with one number: the place decides", twinB, []inspect.Disk{twinA, twinB}, []inspect.Disk{twinA, twinB}, "/dev/sdb", false},
		{"two with one number, and other names", twinB, []inspect.Disk{twinA, twinB}, []inspect.Disk{named(twinB, "/dev/sda"), named(twinA, "/dev/sdb")}, "/dev/sda", false},
		{"of two with one number it is gone", twinB, []inspect.Disk{twinA, twinB}, []inspect.Disk{twinA}, "", false},
		{"two with one number, and no place", at(twinB, ""), []inspect.Disk{at(twinA, ""), at(twinB, "")}, []inspect.Disk{at(twinA, ""), at(twinB, "")}, "", true},
		{"one with its number has come", twinB, []inspect.Disk{twinB}, []inspect.Disk{twinA, twinB}, "/dev/sdb", false},
		{"nothing to know it by, and it is the only one", bare("/dev/sdb"), []inspect.Disk{a, bare("/dev/sdb")}, []inspect.Disk{bare("/dev/sda"), named(a, "/dev/sdb")}, "/dev/sda", false},
		{"nothing to know it by, and there are two", bare("/dev/sdb"), []inspect.Disk{bare("/dev/sda"), bare("/dev/sdb")}, []inspect.Disk{bare("/dev/sda"), bare("/dev/sdb")}, "", true},
		{"nothing but its place", disk("/dev/sdb", "", "", "2"), []inspect.Disk{a}, []inspect.Disk{disk("/dev/sdb", "", "", "1"), disk("/dev/sdc", "", "", "2")}, "/dev/sdc", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for i := range test.before {
				test.before[i].Type = "" // which no file keeps
			}
			d, there, err := findDisk(test.was, test.before, test.now)
			if d.Name != test.want || there != (test.want != "") || (err != nil) != test.fails || err != nil && !errors.Is(err, ErrState) {
				t.Errorf("findDisk() = %q, %v, %v; want %q", d.Name, there, err, test.want)
			}
		})
	}
}
