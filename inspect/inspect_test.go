// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect/inspecttest"
)

var update = flag.Bool("update", false, "write the expected inventories anew")

// recorded is a machine of testdata, with the answers that the kernel would give beside its files.
func recorded(t testing.TB, name string) Machine {
	files := inspecttest.Machine(t, "testdata/"+name+".txt")
	for question, answer := range map[string]string{
		"nic/eno2/permanent-mac":   "\x3c\xec\xef\x00\x00\x11", // in a bond, so that its current address is another's
		"nic/bond0/permanent-mac":  strings.Repeat("\x00", 6),
		"nic/eno1v0/permanent-mac": strings.Repeat("\x00", 6),
		"addresses": "1 127.0.0.1/8\n2 192.0.2.10/24\n2 192.0.2.11/24\n2 fe80::5054:ff:fe4e:3d30/64\n2 2001:db8::10/64\n" +
			"21 2001:db8:120::7/64\n",
	} {
		if name := answersDir + question; files[name] == nil {
			files[name] = &fstest.MapFile{Mode: 0o444, Data: []byte(answer)}
		}
	}
	return Recorded(files)
}

func TestInventory(t *testing.T) {
	for _, name := range []string{"virtio", "sata-nvme", "sas", "qemu", "judged", "server"} {
		t.Run(name, func(t *testing.T) {
			m := Recorded(inspecttest.Server())
			if name != "server" {
				m = recorded(t, name)
			}
			inv, err := m.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := report(t, inv)
			golden := "testdata/" + name + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := lineDiff(string(want), got); diff != "" {
				t.Errorf("inventory differs from %s:\n%s", golden, diff)
			}
		})
	}
}

// report is the inventory's JSON, and what is not in it.
func report(t *testing.T, inv Inventory) string {
	b, err := json.MarshalIndent(inv, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n\n", b)
	for _, d := range inv.Disks {
		fmt.Fprintf(&out, "%s, type %s, removable %t\n", d, d.Type, d.Removable)
		if d.Bay != "" || d.Firmware != "" {
			fmt.Fprintf(&out, "\tbay %q, firmware %q\n", d.Bay, d.Firmware)
		}
		for _, list := range [][]string{d.Serials, d.WWNs, d.ByPaths} {
			if len(list) > 0 {
				fmt.Fprintf(&out, "\t%s\n", strings.Join(list, "\n\t"))
			}
		}
	}
	for _, n := range inv.Interfaces {
		fmt.Fprintf(&out, "%s: %s", n.Name, n.Kind)
		if n.Firmware != "" {
			fmt.Fprintf(&out, ", firmware %s, link %d Mbit/s", n.Firmware, n.LinkMbps)
		}
		fmt.Fprintln(&out)
	}
	fmt.Fprintf(&out, "lookup by %v\n", LookupMACs(inv))
	fmt.Fprintf(&out, "system %s or %s\n", inv.System.UUID, inv.System.SwappedUUID)
	if inv.Boot.SecureBoot != nil {
		fmt.Fprintf(&out, "secure boot %t\n", *inv.Boot.SecureBoot)
	}
	fmt.Fprintf(&out, "%d cores, microcode %q\n", inv.CPU.Cores, inv.CPU.Microcode)
	for _, m := range inv.Memory.Modules {
		fmt.Fprintf(&out, "%+v\n", m)
	}
	fmt.Fprintf(&out, "TPM %+v\n", inv.Details.TPM)
	for _, list := range []any{inv.Details.PCI, inv.Details.USB, inv.Details.NUMA, inv.Details.HostInterfaces, inv.Details.Accelerators(), inv.Details.CXL} {
		b, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n", b)
	}
	return out.String()
}

// lineDiff lists the lines that differ, enough of them to see what happened.
func lineDiff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for i, shown := 0, 0; i < max(len(w), len(g)) && shown < 20; i++ {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			fmt.Fprintf(&out, "line %d\n-%s\n+%s\n", i+1, a, b)
			shown++
		}
	}
	return out.String()
}

// The keys are those of ironic-python-agent, neither more nor fewer.
func TestInventoryKeys(t *testing.T) {
	inv, err := recorded(t, "sata-nvme").Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(inv)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"":              "interfaces cpu disks memory bmc_address bmc_v6address system_vendor boot hostname",
		"cpu":           "model_name frequency count architecture flags socket_count",
		"memory":        "total physical_mb",
		"system_vendor": "product_name serial_number manufacturer firmware",
		"boot":          "current_boot_mode pxe_interface",
		"interfaces": "name mac_address ipv4_address ipv6_address has_carrier lldp vendor product client_id biosdevname" +
			" speed_mbps pci_address driver",
		"disks": "name model size rotational wwn serial vendor wwn_with_extension wwn_vendor_extension hctl by_path" +
			" logical_sectors physical_sectors tran",
	} {
		value := json.RawMessage(b)
		if key != "" {
			value = object[key]
		}
		if value[0] == '[' { // all entries have the same keys
			var list []json.RawMessage
			if err := json.Unmarshal(value, &list); err != nil {
				t.Fatal(err)
			}
			value = list[0]
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(value, &got); err != nil {
			t.Fatal(err)
		}
		for _, k := range strings.Fields(want) {
			if _, found := got[k]; !found {
				t.Errorf("%q: key %q is missing", key, k)
			}
			delete(got, k)
		}
		if len(got) > 0 {
			t.Errorf("%q: keys too many: %v", key, got)
		}
	}
}

// An inventory that went through JSON, such as a stored one, is the same again.
func TestInventoryRoundTrip(t *testing.T) {
	inv, err := recorded(t, "sas").Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, err := json.Marshal(inv)
	if err != nil {
		t.Fatal(err)
	}
	var again Inventory
	if err := json.Unmarshal(first, &again); err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(again)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("after decoding:\n%s\nwant\n%s", second, first)
	}
	// Hints work on it too, with the values that are in it.
	h, err := ParseHints(json.RawMessage(`{"serial": "ZC1234AB0000C8201234"}`))
	if err != nil {
		t.Fatal(err)
	}
	if choice, err := h.Choose(again.Disks); err != nil || choice.Disk.Name != "/dev/sdb" {
		t.Errorf("Choose = %s, %v, want /dev/sdb", choice.Disk.Name, err)
	}
}

// What cannot be read is named, and the rest is there.
func TestInventoryBroken(t *testing.T) {
	const ahci = "sys/devices/pci0000:00/0000:00:17.0"
	const sda = ahci + "/ata1/host0/target0:0:0/0:0:0:0"
	tests := []struct {
		name    string
		file    string
		fails   error  // when the file is opened
		content string // or what is in it
		want    string // in the error; empty: none
		check   func(Inventory) error
	}{
		{name: "disk's size is unreadable", file: sda + "/block/sda/size", fails: syscall.EIO, want: sda + "/block/sda/size: input/output error",
			check: hasDisks("sdb sdc sdd nvme0n1 nvme1n1")},
		{name: "disk's size is no number", file: sda + "/block/sda/size", content: "many\n", want: "parsing \"many\"",
			check: hasDisks("sdb sdc sdd nvme0n1 nvme1n1")},
		{name: "disk's size is negative", file: sda + "/block/sda/size", content: "-8\n", want: "-8 sectors are no size",
			check: hasDisks("sdb sdc sdd nvme0n1 nvme1n1")},
		{name: "disk's size is beyond reason", file: sda + "/block/sda/size", content: "9223372036854775807\n", want: "are no size",
			check: hasDisks("sdb sdc sdd nvme0n1 nvme1n1")},
		{name: "disk of size 0", file: sda + "/block/sda/size", content: "0\n", check: hasDisks("sdb sdc sdd nvme0n1 nvme1n1")},
		{name: "serial number is unreadable", file: sda + "/vpd_pg80", fails: syscall.EIO, want: "vpd_pg80: input/output error",
			check: hasSerial("S2HTNX0H500123")}, // of page 83h
		{name: "serial number is cut off", file: sda + "/vpd_pg80", content: "\x00\x80\x00\x14S2H", want: "vpd_pg80: page says 20 bytes and has 3"},
		{name: "serial number has strange bytes", file: sda + "/vpd_pg80", content: "\x00\x80\x00\x0a\x00 A\x00B\xffC\x1bD\x00", check: hasSerial("A_B_C_D")},
		{name: "serial number has blanks", file: sda + "/vpd_pg80", content: "\x00\x80\x00\x08  A  B  ", check: hasSerial("A  B")},
		{name: "serial number is empty", file: sda + "/vpd_pg80", content: "\x00\x80\x00\x00", check: hasSerial("S2HTNX0H500123")},
		{name: "serial number of another page", file: sda + "/vpd_pg80", content: "\x00\x83\x00\x00", want: "page code is 0x83, want 0x80"},
		{name: "designators are cut off", file: sda + "/vpd_pg83", content: "\x00\x83\x00\x05\x01\x03\x00\x08\x50", want: "vpd_pg83: designator is cut off",
			check: hasSerial("S2HTNX0H500123")},
		{name: "no rights for SMBIOS", file: "sys/firmware/dmi/tables/DMI", fails: syscall.EACCES, want: "size of memory modules: read sys/firmware/dmi/tables/DMI: permission denied",
			check: noPhysicalMemory},
		{name: "no SMBIOS", file: "sys/firmware/dmi/tables/DMI", fails: fs.ErrNotExist, want: "size of memory modules", check: noPhysicalMemory},
		{name: "garbled SMBIOS", file: "sys/firmware/dmi/tables/DMI", content: "garbage", want: "size of memory modules: read sys/firmware/dmi/tables/DMI: structure at byte 0", check: noPhysicalMemory},
		{name: "endless SMBIOS", file: "sys/firmware/dmi/tables/DMI", content: strings.Repeat("\x00", maxSMBIOS+1), want: "larger than 1048576 bytes", check: noPhysicalMemory},
		{name: "no processors", file: "sys/devices/system/cpu/present", fails: fs.ErrNotExist, want: "sys/devices/system/cpu/present: file does not exist"},
		{name: "processors beyond reason", file: "sys/devices/system/cpu/present", content: "0-99999999\n", want: "is no range below 8192"},
		{name: "no cpuinfo", file: "proc/cpuinfo", fails: fs.ErrNotExist, want: "proc/cpuinfo: file does not exist"},
		{name: "no memory size", file: "proc/meminfo", content: "MemFree: 5 kB\n", want: "MemTotal is \"\""},
		{name: "negative memory size", file: "proc/meminfo", content: "MemTotal: -5 kB\n", want: "MemTotal is \"-5 kB\""},
		{name: "UUID is none", file: dmiDir + "product_uuid", content: "Not Settable\n", want: "\"Not Settable\" is no UUID"},
		{name: "UUID is not set", file: dmiDir + "product_uuid", content: "00000000-0000-0000-0000-000000000000\n"},
		{name: "no interfaces", file: "sys/class/net", fails: syscall.EACCES, want: "sys/class/net: permission denied"},
		{name: "no block devices", file: "sys/block", fails: syscall.EACCES, want: "sys/block: permission denied", check: hasDisks("")},
		{name: "interface is down", file: "sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/net/eno1/carrier", fails: syscall.EINVAL},
		{name: "vendor is not UTF-8", file: dmiDir + "sys_vendor", content: "\xffACME\x00 \n",
			check: func(inv Inventory) error {
				if inv.SystemVendor.Manufacturer != "_ACME" {
					return fmt.Errorf("manufacturer %q, want \"_ACME\"", inv.SystemVendor.Manufacturer)
				}
				return nil
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := recorded(t, "sata-nvme")
			files := m.FS.(fstest.MapFS)
			if tt.fails != nil {
				m.FS = inspecttest.Broken{ReadLinkFS: files, Errors: map[string]error{tt.file: tt.fails}}
			} else {
				files[tt.file] = &fstest.MapFile{Mode: 0o444, Data: []byte(tt.content)}
			}
			inv, err := m.Inventory(t.Context())
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("error %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			if b, err := json.Marshal(inv); err != nil || strings.ContainsRune(string(b), '\uFFFD') {
				t.Errorf("JSON has bytes that are not UTF-8 (%v):\n%s", err, b)
			}
			if inv.Hostname != "node-7" || inv.SystemVendor.SerialNumber != "S123456X9" {
				t.Errorf("the rest of the inventory is missing: %+v", inv)
			}
			if tt.check != nil {
				if err := tt.check(inv); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func hasDisks(want string) func(Inventory) error {
	return func(inv Inventory) error {
		if got := names(inv.Disks); got != want {
			return fmt.Errorf("disks %q, want %q", got, want)
		}
		return nil
	}
}

func hasSerial(want string) func(Inventory) error {
	return func(inv Inventory) error {
		if got := string(inv.Disks[0].Serial); got != want {
			return fmt.Errorf("serial number of %s %q, want %q", inv.Disks[0].Name, got, want)
		}
		return nil
	}
}

func noPhysicalMemory(inv Inventory) error {
	if mb := inv.Memory.PhysicalMB; mb != nil {
		return fmt.Errorf("physical_mb is %d, want null", *mb)
	}
	return nil
}

// The memory that an inventory takes on the way is bounded too: everything in it, ever, is less than the 64 MiB that it may have.
func TestInventoryMemory(t *testing.T) {
	m := Recorded(inspecttest.Server())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	if _, err := m.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("allocated %d bytes, want 64 MiB at most", n)
	}
	t.Logf("%v, %d KiB allocated", took, (after.TotalAlloc-before.TotalAlloc)>>10)
}

// hanging is a machine on which opening some files, and asking some questions, never ends.
type hanging struct {
	fs.ReadLinkFS
	files []string
	until chan struct{}
}

func (h hanging) Open(name string) (fs.File, error) {
	if slices.Contains(h.files, name) {
		<-h.until
	}
	return h.ReadLinkFS.Open(name)
}

// What hangs is named and given up, and all the rest is there.
func TestInventoryHangs(t *testing.T) {
	const sda = "sys/devices/pci0000:00/0000:18:00.0/host0/port-0:0/expander-0:0/port-0:0:0/end_device-0:0:0/target0:0:0/0:0:0:0"
	for _, tt := range []struct {
		name, file, question string
		want                 string
		disks, nics          int
		took                 time.Duration
	}{
		{"disk", sda + "/vpd_pg80", "", "disk sda: no answer within 5s", 23, 8, deviceLimit},
		{"interface's driver", "", "nic/ens3/modes", "driver of interface ens3: no answer within 3s", 24, 8, driverLimit},
		{"interface", "sys/devices/pci0000:00/0000:3d:00.3/net/ens3/address", "", "interface ens3: no answer within 5s", 24, 7, deviceLimit},
		{"BMC", "", "ipmi/064201", "BMC: no answer within 20s", 24, 8, bmcLimit},
		{"TPM", "sys/devices/platform/MSFT0101:00/tpm/tpm0/tpm_version_major", "", "TPM: no answer within 5s", 24, 8, deviceLimit},
		{"SMBIOS", smbiosFile, "", "memory: no answer within 5s", 24, 8, deviceLimit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := inspecttest.Server()
			synctest.Test(t, func(t *testing.T) {
				until := make(chan struct{})
				m := Recorded(files)
				m.FS = hanging{files, []string{tt.file}, until}
				answer := m.Ask
				m.Ask = func(ctx context.Context, question string) ([]byte, error) {
					if question == tt.question {
						<-until
					}
					return answer(ctx, question)
				}
				start := time.Now()
				inv, err := m.Inventory(t.Context())
				took := time.Since(start)
				close(until)
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				if len(inv.Disks) != tt.disks || len(inv.Interfaces) != tt.nics || inv.CPU.Count != 64 || inv.SystemVendor.SerialNumber != "SYS0001" {
					t.Errorf("%d disks, %d interfaces, %d processors of %q; want %d, %d, 64", len(inv.Disks), len(inv.Interfaces), inv.CPU.Count, inv.SystemVendor.SerialNumber, tt.disks, tt.nics)
				}
				if took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

// A disk that hangs is not passed over when one is chosen.
func TestHangingDiskIsUnread(t *testing.T) {
	files := inspecttest.Server()
	synctest.Test(t, func(t *testing.T) {
		until := make(chan struct{})
		m := Recorded(files)
		m.FS = hanging{files, []string{"sys/devices/pci0000:00/0000:60:00.0/nvme/nvme0/nvme0n1/size"}, until}
		disks, err := m.Disks(t.Context())
		close(until)
		if err == nil || len(disks) != 24 {
			t.Fatalf("%d disks, %v, want 24 and an error", len(disks), err)
		}
		for hints, want := range map[string]error{`{"model": "<in> samsung"}`: ErrUnread, `{"serial": "S6EWNA0R000002"}`: nil, `{}`: ErrUnread} {
			h, err := ParseHints(json.RawMessage(hints))
			if err != nil {
				t.Fatal(err)
			}
			if choice, err := h.Choose(disks); !errors.Is(err, want) {
				t.Errorf("%s: %v, %v, want %v", hints, choice.Disk, err, want)
			}
		}
	})
}

// Nothing at all gives an inventory that says so.
func TestInventoryOfNothing(t *testing.T) {
	inv, err := Machine{FS: fstest.MapFS{}}.Inventory(t.Context())
	for _, want := range []string{"proc/cpuinfo", "proc/meminfo", "proc/sys/kernel/hostname", "sys/firmware/dmi/tables/DMI"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s in it", err, want)
		}
	}
	b, err := json.Marshal(inv)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"interfaces":[],"cpu":{"model_name":"","frequency":"","count":0,"architecture":"","flags":[],"socket_count":0},` +
		`"disks":[],"memory":{"total":null,"physical_mb":null},"bmc_address":null,"bmc_v6address":null,` +
		`"system_vendor":{"product_name":"","serial_number":"","manufacturer":"","firmware":{"vendor":"","version":"","build_date":""}},` +
		`"boot":{"current_boot_mode":"bios","pxe_interface":null},"hostname":""}`
	if string(b) != want {
		t.Errorf("inventory of nothing:\n%s\nwant\n%s", b, want)
	}
}

func TestInventoryCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := recorded(t, "virtio").Inventory(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Inventory = %v, want %v", err, context.Canceled)
	}
	if _, err := recorded(t, "virtio").Disks(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Disks = %v, want %v", err, context.Canceled)
	}
}

// A machine with so much wrong that the message must be cut.
func TestProblemsAreBounded(t *testing.T) {
	files := fstest.MapFS{}
	for i := range 500 {
		files[fmt.Sprintf("sys/block/sd%d/size", i)] = &fstest.MapFile{Data: []byte("x")}
	}
	_, err := Machine{FS: files}.Disks(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "and 436 problems more") || len(err.Error()) > 16<<10 {
		t.Errorf("error %.200v..., want %d problems and the number of the others", err, maxProblems)
	}
}

// linkTo makes a symbolic link of sysfs.
func linkTo(target string) *fstest.MapFile {
	return &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(target)}
}

func TestManyVirtualFunctions(t *testing.T) {
	files := fstest.MapFS{}
	const pci = "sys/devices/pci0000:00/"
	add := func(name string, i int, mac string) string {
		device := fmt.Sprintf("%s%04d", pci, i)
		dir := device + "/net/" + name
		files["sys/class/net/"+name] = linkTo("../../../" + dir)
		files[dir+"/address"] = &fstest.MapFile{Data: []byte(mac + "\n")}
		files[dir+"/ifindex"] = &fstest.MapFile{Data: fmt.Appendln(nil, i)}
		files[dir+"/device"] = linkTo("../..")
		return device
	}
	add("pf0", 1, "02:00:00:00:00:01")
	add("pf1", 2, "02:00:00:00:00:02")
	for i := range 500 {
		device := add(fmt.Sprintf("pf0v%d", i), 1000+i, fmt.Sprintf("06:00:00:00:%02x:%02x", i>>8, i&0xff))
		files[device+"/physfn"] = linkTo("../0001")
	}
	inv, _ := Machine{FS: files}.Inventory(t.Context()) // the rest of the machine is missing
	if len(inv.Interfaces) != 502 {
		t.Fatalf("%d interfaces, want 502", len(inv.Interfaces))
	}
	if got, want := fmt.Sprint(LookupMACs(inv)), "[02:00:00:00:00:01 02:00:00:00:00:02]"; got != want {
		t.Errorf("LookupMACs = %s, want %s", got, want)
	}
	if got := inv.Interfaces[501].Name; got != "pf1" { // pf0, pf0v0, ..., pf0v499, pf1
		t.Errorf("last interface is %s, want pf1", got)
	}
}

// The lookup gets the addresses that are the machine's own, however the interfaces are used at the moment.
func TestIdentity(t *testing.T) {
	const in = "sys/devices/pci0000:00/0000:3d:00."
	for _, tt := range []struct {
		name   string
		change func(files fstest.MapFS)
		want   string // the third and the fourth of the machine's four addresses
	}{
		{"as it is", func(fstest.MapFS) {}, "3c:ec:ef:00:00:02 3c:ec:ef:00:00:03"},
		{"in a bond", func(f fstest.MapFS) { f[in+"3/net/ens3/address"].Data = []byte("3c:ec:ef:00:00:02\n") }, "3c:ec:ef:00:00:02 3c:ec:ef:00:00:03"},
		{"in a bond, and the driver does not say", func(f fstest.MapFS) {
			f[in+"3/net/ens3/address"].Data = []byte("3c:ec:ef:00:00:02\n")
			f[in+"3/net/ens3/bonding_slave/perm_hwaddr"] = &fstest.MapFile{Data: []byte("3C:EC:EF:00:00:03\n")}
			delete(f, "answers/nic/ens3/permanent-mac")
		}, "3c:ec:ef:00:00:02 3c:ec:ef:00:00:03"},
		{"a virtual function", func(f fstest.MapFS) { f[in+"3/physfn"] = linkTo("../0000:3d:00.2") }, "3c:ec:ef:00:00:02"},
		{"what stands for one", func(f fstest.MapFS) { f[in+"3/net/ens3/phys_port_name"] = &fstest.MapFile{Data: []byte("pf0vf1\n")} }, "3c:ec:ef:00:00:02"},
		{"a port of a physical function", func(f fstest.MapFS) { f[in+"3/net/ens3/phys_port_name"] = &fstest.MapFile{Data: []byte("p0\n")} }, "3c:ec:ef:00:00:02 3c:ec:ef:00:00:03"},
		{"the BMC's", func(f fstest.MapFS) { f[in+"3/driver"] = linkTo("../../../bus/usb/drivers/cdc_ether") }, "3c:ec:ef:00:00:02"},
		{"twice the same", func(f fstest.MapFS) {
			f["answers/nic/ens3/permanent-mac"].Data = []byte{0x3c, 0xec, 0xef, 0, 0, 2}
		}, "3c:ec:ef:00:00:02"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := inspecttest.Server()
			tt.change(files)
			inv, err := Recorded(files).Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := "[3c:ec:ef:00:00:00 3c:ec:ef:00:00:01 " + tt.want + " 3c:ec:ef:00:00:04 3c:ec:ef:00:00:05 3c:ec:ef:00:00:06 3c:ec:ef:00:00:07]"
			if got := fmt.Sprint(LookupMACs(inv)); got != want {
				t.Errorf("LookupMACs = %s, want %s", got, want)
			}
		})
	}
}

func TestLookupMACs(t *testing.T) {
	for _, tt := range []struct {
		name string
		nics []NIC
		want string
	}{
		{"none", nil, "[]"},
		{"one", []NIC{{MACAddress: "02:00:00:00:00:01"}}, "[02:00:00:00:00:01]"},
		{"twice the same", []NIC{{MACAddress: "02:00:00:00:00:01"}, {MACAddress: "02:00:00:00:00:01"}}, "[02:00:00:00:00:01]"},
		{"one is no address", []NIC{{MACAddress: "unknown"}, {MACAddress: ""}, {MACAddress: "02:00:00:00:00:01"}}, "[02:00:00:00:00:01]"},
		{"BMC and bond", []NIC{{MACAddress: "02:00:00:00:00:09", Kind: BMCLink}, {MACAddress: "02:00:00:00:00:08", Kind: Borrowed},
			{MACAddress: "02:00:00:00:00:01"}}, "[02:00:00:00:00:01]"},
		{"USB adapter only", []NIC{{MACAddress: "02:00:00:00:00:09", Kind: BMCLink}}, "[02:00:00:00:00:09]"},
		{"OpenStack port", []NIC{{MACAddress: "fa:16:3e:00:00:01"}}, "[fa:16:3e:00:00:01]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fmt.Sprint(LookupMACs(Inventory{Interfaces: tt.nics})); got != tt.want {
				t.Errorf("LookupMACs = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestNICOrder(t *testing.T) {
	for _, tt := range []struct{ a, b string }{
		{"eth2", "eth10"}, {"eno1", "eno2"}, {"eno1", "enp0s3"}, {"eth", "eth0"}, {"enp2s0", "enp10s0"}, {"bond0", "bond0.120"},
		{"eth01", "eth1"}, {"", "a"}, {"eth99999999999999999998", "eth99999999999999999999"},
	} {
		if compareNames(tt.a, tt.b) >= 0 || compareNames(tt.b, tt.a) <= 0 || compareNames(tt.a, tt.a) != 0 {
			t.Errorf("compareNames(%q, %q) = %d, want -1", tt.a, tt.b, compareNames(tt.a, tt.b))
		}
	}
}

func TestDiskOrder(t *testing.T) {
	want := strings.Fields("sda sdb sdz sdaa sdab sdzz sdaaa sdaab mmcblk0 vda vdb vdaa nvme0n1 nvme0n2 nvme1n1 nvme10n1 pmem0 md0 md9 md127 dm-0 dm-10")
	files := fstest.MapFS{}
	for _, name := range want {
		files["sys/block/"+name+"/size"] = &fstest.MapFile{Data: []byte("2048\n")}
		files["sys/block/"+name+"/md/level"] = &fstest.MapFile{Data: []byte("raid1\n")}
		files["sys/block/"+name+"/dm/uuid"] = &fstest.MapFile{Data: []byte("mpath-1\n")}
	}
	disks, err := Machine{FS: files}.Disks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(disks); got != strings.Join(want, " ") {
		t.Errorf("order\n%s\nwant\n%s", got, strings.Join(want, " "))
	}
}

func TestTransport(t *testing.T) {
	const device = "sys/devices/pci0000:00/0000:00:01.0/host0/target0:0:0/0:0:0:0"
	for _, tt := range []struct{ name, hctl, file, content, want string }{
		{"sda", "0:0:0:0", "sys/class/spi_host/host0/signalling", "LVD", "spi"},
		{"sda", "0:0:0:0", "sys/class/fc_host/host0/symbolic_name", "HBA v1", "fc"},
		{"sda", "0:0:0:0", "sys/class/fc_host/host0/symbolic_name", "fcoe v0.1 over eth0", "fcoe"},
		{"sda", "0:0:0:0", "sys/class/sas_host/host1/x", "", ""}, // another host
		{"sda", "0:0:0:0", device + "/sas_device/x", "", "sas"},
		{"sda", "0:0:0:0", device + "/ieee1394_id", "1", "sbp"},
		{"sda", "0:0:0:0", "sys/class/iscsi_host/host0/x", "", "iscsi"},
		{"sda", "0:0:0:0", "sys/class/scsi_host/host0/proc_name", "ahci", "sata"},
		{"sda", "0:0:0:0", "sys/class/scsi_host/host0/proc_name", "sata_sil24", "sata"},
		{"sda", "0:0:0:0", "sys/class/scsi_host/host0/proc_name", "ata_piix", "ata"},
		{"sda", "0:0:0:0", "sys/class/scsi_host/host0/proc_name", "megaraid_sas", ""},
		{"sda", "0:0:0:0", "sys/class/scsi_host/host0/proc_name", "(null)", ""},
		{"nvme0n1", "", "x", "", "nvme"},
		{"vda", "", "x", "", "virtio"},
		{"mmcblk0", "", "x", "", "mmc"},
		{"md0", "", "x", "", ""},
	} {
		r := &reader{ctx: t.Context(), fsys: fstest.MapFS{tt.file: {Data: []byte(tt.content)}}}
		if got := transport(r, tt.name, device, tt.hctl); got != tt.want {
			t.Errorf("transport of %s with %s %q = %q, want %q", tt.name, tt.file, tt.content, got, tt.want)
		}
	}
}

func TestDiskString(t *testing.T) {
	for _, tt := range []struct {
		disk Disk
		want string
	}{
		{Disk{Name: "/dev/vda", Vendor: "0x1af4", Tran: "virtio", Size: 2 << 30, Serial: "abc"}, "/dev/vda virtio 2.0 GiB serial abc"},
		{Disk{Name: "/dev/sda", Vendor: "QEMU", Model: "HARDDISK", Size: 3840755982336, ReadOnly: true}, "/dev/sda QEMU HARDDISK 3.5 TiB without serial read-only"},
		{Disk{Name: "/dev/md0", Size: 1000}, "/dev/md0 1000 bytes without serial"},
		{Disk{Name: "/dev/sda", Size: 1000, Serial: "S", Paths: []Disk{{Name: "/dev/sdb"}}}, "/dev/sda 1000 bytes serial S also /dev/sdb"},
		{Disk{Name: "/dev/md0", Size: 1 << 62}, "/dev/md0 4096.0 PiB without serial"},
	} {
		if got := tt.disk.String(); got != tt.want {
			t.Errorf("String = %q, want %q", got, tt.want)
		}
	}
}

func TestParameter(t *testing.T) {
	for _, tt := range []struct{ cmdline, want string }{
		{"", ""},
		{"quiet", ""},
		{"BOOTIF", ""},
		{"BOOTIF=01-aa", "01-aa"},
		{"a=b BOOTIF=01-aa c", "01-aa"},
		{"BOOTIF=01-aa BOOTIF=01-bb", "01-bb"},
		{`x="BOOTIF=no yes" BOOTIF="01-aa"`, "01-aa"},
		{`x="open BOOTIF=01-aa`, ""},
		{"bootif=01-aa", ""},
		{"XBOOTIF=01-aa", ""},
	} {
		if got := parameter(tt.cmdline, "BOOTIF"); got != tt.want {
			t.Errorf("parameter(%q) = %q, want %q", tt.cmdline, got, tt.want)
		}
	}
}

func TestParseCPUList(t *testing.T) {
	for _, tt := range []struct {
		list string
		want string
	}{
		{"", "[] <nil>"},
		{"0", "[0] <nil>"},
		{"0-3", "[0 1 2 3] <nil>"},
		{"0-1,4,6-7", "[0 1 4 6 7] <nil>"},
		{"3-1", `[] list of processors "3-1": "3-1" is no range below 8192`},
		{"-1", `[] list of processors "-1": "-1" is no range below 8192`},
		{"a", `[] list of processors "a": "a" is no range below 8192`},
		{"8192", `[] list of processors "8192": "8192" is no range below 8192`},
	} {
		list, err := parseCPUList(tt.list)
		if got := fmt.Sprint(list, " ", err); got != tt.want {
			t.Errorf("parseCPUList(%q) = %s, want %s", tt.list, got, tt.want)
		}
	}
}

func TestArchitecture(t *testing.T) {
	for _, tt := range []struct{ cpuinfo, want string }{
		{"flags\t\t: fpu lm sse\n", "x86_64"},
		{"flags\t\t: fpu sse lmx\n", ""},
		{"BogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU architecture: 8\n", "aarch64"},
		{"", ""},
	} {
		if got := architecture(values([]byte(tt.cpuinfo), ":")); got != tt.want {
			t.Errorf("architecture(%q) = %q, want %q", tt.cpuinfo, got, tt.want)
		}
	}
}

// On ARM the kernel names the core by numbers, and has features instead of flags.
func TestARM(t *testing.T) {
	for _, tt := range []struct{ name, cpuinfo, kernel, want string }{
		{"Neoverse-N1", "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd aes\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n\nprocessor\t: 1\n", "aarch64",
			`{"model_name":"Neoverse-N1","frequency":"3000.0000","count":4,"architecture":"aarch64","flags":["fp","asimd","aes"],"socket_count":2}`},
		{"an old kernel", "Features\t: fp\nCPU implementer\t: 0xc0\nCPU architecture: 8\nCPU part\t: 0xac4\n", "",
			`{"model_name":"Ampere-1a","frequency":"3000.0000","count":4,"architecture":"aarch64","flags":["fp"],"socket_count":2}`},
		{"a core that nobody knows", "CPU implementer\t: 0xff\nCPU architecture: 8\nCPU part\t: 0x001\n", "aarch64",
			`{"model_name":"","frequency":"3000.0000","count":4,"architecture":"aarch64","flags":[],"socket_count":2}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := fstest.MapFS{"proc/cpuinfo": {Data: []byte(tt.cpuinfo)}, "sys/devices/system/cpu/present": {Data: []byte("0-3\n")}}
			if tt.kernel != "" {
				files["proc/sys/kernel/arch"] = &fstest.MapFile{Data: []byte(tt.kernel + "\n")}
			}
			for i := range 4 {
				dir := fmt.Sprintf("sys/devices/system/cpu/cpu%d/", i)
				files[dir+"topology/physical_package_id"] = &fstest.MapFile{Data: fmt.Appendln(nil, 36*(i/2))}
				files[dir+"topology/core_id"] = &fstest.MapFile{Data: fmt.Appendln(nil, i)}
				files[dir+"cpufreq/cpuinfo_max_freq"] = &fstest.MapFile{Data: []byte("3000000\n")}
			}
			r := &reader{ctx: t.Context(), fsys: files}
			cpu := readCPU(r)
			got, err := json.Marshal(cpu)
			if err != nil || string(got) != tt.want || cpu.Cores != 4 || r.count() != 0 {
				t.Errorf("%d cores, %v\n%s (%v), want\n%s", cpu.Cores, r.problems(), got, err, tt.want)
			}
		})
	}
}

// Links of a recording that lead nowhere or out of it are as if they were not there.
func TestBadLinks(t *testing.T) {
	const dir = "sys/devices/virtual/x"
	for name, target := range map[string]string{"absolute": "/etc", "outside": "../../../../../..", "root": "../../../..", "loop": "loop"} {
		files := fstest.MapFS{dir + "/" + name: linkTo(target)}
		r := &reader{ctx: t.Context(), fsys: files}
		if got := r.follow(dir + "/" + name); got != "" && path.Base(got) != "loop" {
			t.Errorf("follow(%s -> %s) = %q, want nothing", name, target, got)
		}
	}
}

// A server with 24 disks, 8 interfaces, 32 memory modules: at most 1 s.
// A controller that is its own subsystem, as in no machine, is no place.
func TestControllerInACircle(t *testing.T) {
	const dir = "sys/devices/virtual/nvme-subsystem/nvme-subsys0"
	files := fstest.MapFS{
		"sys/block/nvme0n1":                      linkTo("../../" + dir + "/nvme0n1"),
		dir + "/nvme0n1/size":                    {Data: []byte("8\n")},
		dir + "/subsystem":                       linkTo("../../../../class/nvme-subsystem"),
		"sys/class/nvme/nvme0":                   linkTo("../../devices/pci0000:00/nvme0"),
		"sys/devices/pci0000:00/nvme0/subsystem": linkTo("../../../class/nvme-subsystem"),
	}
	disks, err := Machine{FS: files}.Disks(t.Context())
	if err != nil || len(disks) != 1 || disks[0].ByPath != "" {
		t.Errorf("Disks = %v, %v, want one without by-path name", disks, err)
	}
}

func BenchmarkInventory(b *testing.B) {
	m := Recorded(inspecttest.Server())
	for b.Loop() {
		if _, err := m.Inventory(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A stopped array stays in sysfs until the kernel has taken it away, and most of its files are busy meanwhile.
func TestStoppedArray(t *testing.T) {
	root := fstest.MapFS{"sys/block/md126/size": {Data: []byte("0\n")}, "sys/block/md126/md/level": {Data: []byte("raid1\n")}}
	m := Machine{FS: inspecttest.Broken{ReadLinkFS: root, Errors: map[string]error{"sys/block/md126/md/level": syscall.EBUSY}}}
	if disks, err := m.Disks(t.Context()); err != nil || len(disks) > 0 {
		t.Errorf("Disks() = %v, %v", disks, err)
	}
}

// A disk that goes while it is read is none; one that stays and cannot be read is an error.
func TestDiskGoes(t *testing.T) {
	root := fstest.MapFS{"sys/block/md9/size": {Data: []byte("2048\n")}, "sys/block/sda/size": {Data: []byte("2048\n")}}
	broken := map[string]error{"sys/block/md9/size": syscall.ENODEV, "sys/block/md9": fs.ErrNotExist}
	m := Machine{FS: inspecttest.Broken{ReadLinkFS: root, Errors: broken}}
	if disks, err := m.Disks(t.Context()); err != nil || len(disks) != 1 || disks[0].Name != "/dev/sda" {
		t.Errorf("Disks() = %v, %v", disks, err)
	}
	delete(broken, "sys/block/md9")
	if _, err := m.Disks(t.Context()); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("Disks() of a disk that is still there: %v", err)
	}
}

// A disk that is reached on several paths is one disk, by its best path. What may be two disks stays two.
func TestPaths(t *testing.T) {
	scsi := func(name, hctl, wwid, more string) string {
		dir := "sys/block/" + name
		return fmt.Sprintf("%s/size=2048 %s/queue/logical_block_size=512 %s/device/type=0 %s/device/scsi_device/%s/x= %s/device/model=BIG %s/device/state=running %s/device/wwid=%s %s",
			dir, dir, dir, dir, hctl, dir, dir, dir, wwid, strings.ReplaceAll(more, "~", dir))
	}
	nvme := func(name, nqn, wwid string) string {
		dir := "sys/block/" + name
		return fmt.Sprintf("%s/size=2048 %s/device/model=FAST %s/device/state=live %s/device/subsysnqn=%s %s/wwid=%s", dir, dir, dir, dir, nqn, dir, wwid)
	}
	const naa = "naa.5000c500a1b2c3d4"
	for _, tt := range []struct {
		name, files, want string
	}{
		{"two", scsi("sda", "0:0:0:0", naa, "") + " " + scsi("sdb", "1:0:0:0", naa, ""), "sda+sdb"},
		{"four, and another disk between", scsi("sda", "0:0:0:0", naa, "") + " " + scsi("sdb", "0:0:1:0", "naa.5000c500ffffffff", "") + " " + scsi("sdc", "1:0:0:0", naa, "") + " " + scsi("sdd", "2:0:0:0", naa, "") + " " + scsi("sde", "3:0:0:0", naa, ""), "sda+sdc+sdd+sde sdb"},
		{"the first is dead", scsi("sda", "0:0:0:0", naa, "~/device/state=offline") + " " + scsi("sdb", "1:0:0:0", naa, ""), "sdb+sda"},
		{"the first is read-only", scsi("sda", "0:0:0:0", naa, "~/ro=1") + " " + scsi("sdb", "1:0:0:0", naa, ""), "sdb+sda"},
		{"a multipath device, and a path that is not in it", scsi("sda", "0:0:0:0", naa, "") + " " + scsi("sdb", "1:0:0:0", naa, "") + " sys/block/dm-0/size=2048 sys/block/dm-0/queue/logical_block_size=512 sys/block/dm-0/dm/uuid=mpath-35000c500a1b2c3d4 sys/block/dm-0/slaves/sdb/x=", "dm-0+sda"},
		{"NVMe without the kernel's multipath", nvme("nvme0n1", "nqn.x", "eui.0025388b710116a1") + " " + nvme("nvme1n1", "nqn.x", "eui.0025388b710116a1"), "nvme0n1+nvme1n1"},
		{"NVMe drives of one name", nvme("nvme0n1", "nqn.x", "eui.0025388b710116a1") + " " + nvme("nvme1n1", "nqn.y", "eui.0025388b710116a1"), "nvme0n1 nvme1n1"},
		{"namespaces of no name", nvme("nvme0n1", "nqn.x", "eui.0000000000000000") + " " + nvme("nvme1n1", "nqn.x", "eui.0000000000000000"), "nvme0n1 nvme1n1"},
		{"another size", scsi("sda", "0:0:0:0", naa, "") + " " + scsi("sdb", "1:0:0:0", naa, "~/size=4096"), "sda sdb"},
		{"another model", scsi("sda", "0:0:0:0", naa, "") + " " + scsi("sdb", "1:0:0:0", naa, "~/device/model=SMALL"), "sda sdb"},
		{"another serial number", scsi("sda", "0:0:0:0", naa, "") + " " + scsi("sdb", "1:0:0:0", naa, "~/device/vpd_pg80=\x00\x80\x00\x01S"), "sda sdb"},
		{"units of one port", scsi("sda", "0:0:0:0", naa, "") + " " + scsi("sdb", "0:0:0:1", naa, ""), "sda sdb"},
		{"a name that is unique in one place only", scsi("sda", "0:0:0:0", "naa.3000c500a1b2c3d4", "") + " " + scsi("sdb", "1:0:0:0", "naa.3000c500a1b2c3d4", ""), "sda sdb"},
		{"a name of zeros", scsi("sda", "0:0:0:0", "naa.0000000000000000", "") + " " + scsi("sdb", "1:0:0:0", "naa.0000000000000000", ""), "sda sdb"},
		{"a name of vendor and model", scsi("sda", "0:0:0:0", "t10.X", "") + " " + scsi("sdb", "1:0:0:0", "t10.X", ""), "sda sdb"},
		{"no name", scsi("sda", "0:0:0:0", "", "") + " " + scsi("sdb", "1:0:0:0", "", ""), "sda sdb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := fstest.MapFS{}
			for _, f := range strings.Split(tt.files, " ") {
				if name, value, found := strings.Cut(f, "="); found {
					files[name] = &fstest.MapFile{Data: []byte(value)}
				}
			}
			disks, err := Machine{FS: files}.Disks(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range disks {
				got = append(got, strings.ReplaceAll(strings.Join(d.Names(), "+"), "/dev/", ""))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("disks %v, want %s", got, tt.want)
			}
		})
	}
}

// A hint for any of its paths finds the disk, and one against any of them excludes it.
func TestHintsForPaths(t *testing.T) {
	disks := []Disk{
		{Name: "/dev/sda", Size: 8 << 30, HCTL: "0:0:0:0", ByPaths: []string{"/dev/disk/by-path/a"}, Paths: []Disk{{Name: "/dev/sdb", HCTL: "1:0:0:0", ByPaths: []string{"/dev/disk/by-path/b"}}}},
		{Name: "/dev/sdc", Size: 8 << 30, HCTL: "2:0:0:0"},
	}
	for hints, want := range map[string]string{
		`{"name": "/dev/sda"}`:                    "/dev/sda",
		`{"name": "/dev/sdb"}`:                    "/dev/sda",
		`{"hctl": "1:0:0:0"}`:                     "/dev/sda",
		`{"by_path": "/dev/disk/by-path/b"}`:      "/dev/sda",
		`{"name": "s!= /dev/sdb"}`:                "/dev/sdc",
		`{"name": "<or> /dev/sdx <or> /dev/sdc"}`: "/dev/sdc",
	} {
		h, err := ParseHints([]byte(hints))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := h.Choose(disks); err != nil || c.Disk.Name != want {
			t.Errorf("%s chooses %s, %v, want %s", hints, c.Disk.Name, err, want)
		}
	}
	list, err := ParseSkipList([]byte(`[{"name": "/dev/sdb"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if use, _, err := list.Split(disks); err != nil || names(use) != "sdc" {
		t.Errorf("with a path on the skip list %s are used, %v", names(use), err)
	}
}
