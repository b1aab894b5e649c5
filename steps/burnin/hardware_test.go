// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"encoding/json"
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
