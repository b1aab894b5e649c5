// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/inspect/recording"
)

// A recording of a machine gives the same inventory, with all details, after it went through its text.
func TestRecord(t *testing.T) {
	machines := map[string]Machine{"server": Recorded(inspecttest.Server())}
	for _, name := range []string{"virtio", "sata-nvme", "sas", "qemu", "judged"} {
		machines[name] = recorded(t, name)
	}
	for name, m := range machines {
		t.Run(name, func(t *testing.T) {
			same, files := m.Record()
			want, err := same.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			text := recording.Format("a machine", files())
			again, err := Load(text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := again.Inventory(t.Context())
			if err != nil {
				t.Error(err)
			}
			if diff := lineDiff(report(t, want), report(t, got)); diff != "" {
				t.Errorf("inventory of the recording differs:\n%s", diff)
			}
			if changes := Changes(want, got); len(changes) > 0 {
				t.Errorf("changes %v, want none", changes)
			}
		})
	}
}

// A link that only has to lead somewhere leads there in the recording too: the class of a SCSI host says how disks are attached.
func TestRecordKeepsLinks(t *testing.T) {
	files := inspecttest.Server()
	delete(files, "sys/class/sas_host/host0/uevent")
	files["sys/class/sas_host/host0"] = linkTo("../../devices/pci0000:00/0000:18:00.0/host0/sas_host/host0")
	files["sys/devices/pci0000:00/0000:18:00.0/host0/sas_host/host0"] = &fstest.MapFile{Mode: fs.ModeDir | 0o555}
	for name := range files { // the other sign of SAS
		if strings.HasSuffix(name, "/sas_device") {
			delete(files, name)
		}
	}
	same, kept := Recorded(files).Record()
	if _, err := same.Disks(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, err := Load(recording.Format("", kept()))
	if err != nil {
		t.Fatal(err)
	}
	disks, err := again.Disks(t.Context())
	if err != nil || disks[0].Tran != "sas" {
		t.Errorf("%v is attached by %q (%v), want sas", disks[0], disks[0].Tran, err)
	}
}

// The kernel's command line may hold a token.
func TestRecordKeepsNoSecrets(t *testing.T) {
	files := inspecttest.Server()
	files["proc/cmdline"].Data = []byte("ipa-agent-token=secret BOOTIF=01-3c-ec-ef-00-00-00 password=secret\n")
	same, kept := Recorded(files).Record()
	if _, err := same.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := string(recording.Format("", kept()))
	if strings.Contains(text, "secret") || !strings.Contains(text, "BOOTIF=01-3c-ec-ef-00-00-00\n") {
		t.Error("the recording has a secret, or lacks BOOTIF")
	}
}

// Nothing that identifies the machine is left, in text or in bytes, and all else is the same.
func TestAnonymous(t *testing.T) {
	for name, m := range map[string]Machine{"server": Recorded(inspecttest.Server()), "sas": recorded(t, "sas"), "sata-nvme": recorded(t, "sata-nvme"), "qemu": recorded(t, "qemu"), "judged": recorded(t, "judged")} {
		t.Run(name, func(t *testing.T) {
			same, files := m.Record()
			inv, err := same.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			hidden := Anonymous(files(), inv, []byte("key"))
			text := recording.Format("", hidden)
			var all bytes.Buffer
			all.Write(text)
			for name, f := range hidden {
				all.WriteString(name)
				all.Write(f.Data)
			}
			whole := all.Bytes()
			var ids []string
			for _, d := range inv.Disks {
				ids = append(append(ids, d.Serials...), d.WWNs...)
			}
			for _, n := range inv.Interfaces {
				ids = append(ids, string(n.MACAddress), strings.ReplaceAll(string(n.MACAddress), ":", "-"))
			}
			for _, module := range inv.Memory.Modules {
				ids = append(ids, module.Serial)
			}
			for _, c := range inv.Details.CXL {
				ids = append(ids, c.Serial)
			}
			ids = append(ids, inv.SystemVendor.SerialNumber, inv.System.UUID, string(inv.BMCMAC), "192.0.2.10\x00", inv.Hostname)
			for _, id := range ids {
				id = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(id, "0x"), "eui."), "naa.")
				if len(id) < shortest {
					continue
				}
				digits, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "").Replace(id))
				if bytes.Contains(whole, []byte(id)) || bytes.Contains(whole, []byte(strings.ToUpper(id))) || err == nil && len(digits) >= 6 && bytes.Contains(whole, digits) {
					t.Errorf("%q is still there", id)
				}
			}
			if a, err := netip.ParseAddr(string(inv.BMCAddress)); err == nil && !a.IsUnspecified() && bytes.Contains(whole, a.AsSlice()) {
				t.Errorf("the BMC's address %v is still there", a)
			}
			again, err := Load(text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := again.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i, d := range got.Disks {
				if w := inv.Disks[i]; d.Name != w.Name || d.Model != w.Model || d.Size != w.Size || d.Tran != w.Tran || len(d.Serial) != len(w.Serial) || len(d.WWN) != len(w.WWN) || len(w.Serial) >= shortest && d.Serial == w.Serial || len(d.Serials) != len(w.Serials) {
					t.Errorf("disk %+v, want one like %+v", d, w)
				}
			}
			if len(got.Disks) != len(inv.Disks) || len(got.Interfaces) != len(inv.Interfaces) || got.CPU.Count != inv.CPU.Count || *got.Memory.PhysicalMB != *inv.Memory.PhysicalMB {
				t.Error("the rest is not the same")
			}
			if got.Boot.PXEInterface != "" && !slices.Contains(fmtMACs(got), strings.ReplaceAll(string(got.Boot.PXEInterface[3:]), "-", ":")) {
				t.Errorf("BOOTIF %s is no interface of %v", got.Boot.PXEInterface, fmtMACs(got))
			}
		})
	}
}

// What is in no inventory, but in a recording, is not given away either.
func TestAnonymousOthers(t *testing.T) {
	cpu := make([]byte, 0x30)
	cpu[0], cpu[1], cpu[4], cpu[0x20], cpu[0x21] = 4, 0x30, 1, 2, 3
	module := make([]byte, 0x28)
	module[0], module[1], module[0x10], module[0x19] = 17, 0x28, 1, 2
	tables := slices.Concat(cpu, []byte("CPU1\x00SERIAL-OF-CPU\x00TAG-OF-CPU\x00\x00"), module, []byte("DIMM 1\x00TAG-OF-DIMM\x00\x00"))
	frame := "\x01\x80\xc2\x00\x00\x0e\x04\x64\x9b\x32\x2d\x00\x88\xcc\x02\x07\x04\x04\x64\x9b\x32\x2d\x00\x0a\x0dtor1.acme.lab\x10\x0c\x05\x01\x0a\x01\x02\x03\x02\x00\x00\x00\x01\x00\x00\x00"
	files := fstest.MapFS{
		smbiosFile:               {Data: tables},
		"answers/nic/eno1/lldp":  {Data: []byte(frame)},
		"sys/class/net/eno1/mtu": {Data: []byte("1500\n")},
		"sys/class/iscsi_connection/connection1:0/persistent_address":                         {Data: []byte("10.1.2.3\n")},
		"sys/devices/x/0:0:0:0/vpd_pg83":                                                      {Data: []byte("\x00\x83\x00\x0f\x02\x00\x00\x0bOF-THE-DISK")},
		"sys/devices/x/0:0:1:0/vpd_pg83":                                                      {Data: []byte("\x00\x83\x00\x17\x02\x01\x00\x13ACME    OF-NEXT-ONE")},
		"sys/devices/x/nvme/nvme0/subsysnqn":                                                  {Data: []byte("nqn.2014-08.org.nvmexpress:uuid:4c4c4544-0044-5a10-8050-OFTHEDRIVE00\n")},
		"sys/devices/x/nvme/nvme1/subsysnqn":                                                  {Data: []byte("nqn.2014.08.org.nvmexpress:144d144dOF-A-DRIVE     FAST NVME\n")},
		"sys/class/iscsi_session/session1/targetname":                                         {Data: []byte("iqn.2001-04.com.acme:target\n")},
		"sys/devices/platform/host5/session1/iscsi_session/session1/initiatorname":            {Data: []byte("iqn.2001-04.com.acme:initiator\n")},
		"sys/devices/platform/host5/iscsi_host/host5/ipaddress":                               {Data: []byte("10.1.2.4\n")},
		"sys/class/iscsi_host/host5":                                                          {Mode: fs.ModeSymlink, Data: []byte("../../devices/platform/host5/iscsi_host/host5")},
		"sys/devices/platform/host5/session1/connection1:0/iscsi_connection/connection1:0/xx": {Data: []byte("10.1.2.3\n")},
	}
	hidden := Anonymous(files, Inventory{}, []byte("key"))
	whole := recording.Format("", hidden)
	for name, f := range hidden {
		whole = append(append(whole, name...), f.Data...)
	}
	for _, secret := range []string{"tor1", "\x04\x64\x9b\x32\x2d\x00", "\x0a\x01\x02\x03", "10.1.2.", "acme", "SERIAL-OF-CPU", "TAG-OF-CPU", "TAG-OF-DIMM", "OF-THE-DISK", "OF-NEXT-ONE", "OFTHEDRIVE", "OF-A-DRIVE"} {
		if bytes.Contains(whole, []byte(secret)) {
			t.Errorf("%q is still there", secret)
		}
	}
	for _, kept := range []string{"CPU1", "DIMM 1", "1500", "iscsi_host/host5", "nqn.2014-08.org.nvmexpress:uuid:"} {
		if !bytes.Contains(whole, []byte(kept)) {
			t.Errorf("%q is gone", kept)
		}
	}
	if !bytes.Equal(files[smbiosFile].Data, tables) || !bytes.Contains(tables, []byte("TAG-OF-CPU")) {
		t.Error("the recording itself was changed")
	}
}

func fmtMACs(inv Inventory) (list []string) {
	for _, n := range inv.Interfaces {
		list = append(list, string(n.MACAddress))
	}
	return list
}

func TestChanges(t *testing.T) {
	swap := func(files fstest.MapFS, old, now string) {
		for _, f := range files {
			f.Data = bytes.ReplaceAll(f.Data, []byte(old), []byte(now))
		}
	}
	drop := func(files fstest.MapFS, part string) {
		for name := range maps.Clone(files) {
			if strings.Contains(name, part) {
				delete(files, name)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(files fstest.MapFS)
		want   string
	}{
		{"nothing", func(fstest.MapFS) {}, ""},
		{"disk is replaced", func(f fstest.MapFS) {
			swap(f, "ZL2000030000C1234567", "ZL9777770000C1234567")
			swap(f, "\x50\x00\xc5\x00\xa1\xb2\x00\x30", "\x50\x00\xc5\x00\xa1\xb2\x99\x30")
			swap(f, "5000c500a1b20030", "5000c500a1b29930")
		}, "disk in bay Slot 03: replaced, SEAGATE ST16000NM002G 14.6 TiB serial ZL2000030000C1234567 -> SEAGATE ST16000NM002G 14.6 TiB serial ZL9777770000C1234567"},
		{"disk is gone", func(f fstest.MapFS) { drop(f, "/0:0:3:0/"); delete(f, "sys/block/sdd") }, "disk in bay Slot 03: removed, SEAGATE ST16000NM002G 14.6 TiB serial ZL2000030000C1234567"},
		{"disk's firmware", func(f fstest.MapFS) {
			f["sys/devices/pci0000:00/0000:60:00.0/nvme/nvme0/firmware_rev"].Data = []byte("MPK99\n")
		}, "disk in bay 40: firmware, MPK92B5Q -> MPK99"},
		{"disk in another bay", func(f fstest.MapFS) {
			f["sys/bus/pci/slots/50/address"] = f["sys/bus/pci/slots/40/address"]
			delete(f, "sys/bus/pci/slots/40/address")
		}, "disk in bay 50: moved, bay 40 -> bay 50"},
		{"module is missing", func(f fstest.MapFS) { f[smbiosFile].Data = emptySlot(f[smbiosFile].Data, 2) },
			"memory: smaller, 1.0 TiB -> 992.0 GiB\nmemory in DIMM B1 NODE 0: empty now, 32.0 GiB DDR4 Samsung M393A4K40DB3-CWE serial 03B71236"},
		{"module is replaced", func(f fstest.MapFS) { swap(f, "03B71236", "0BADCAFE") },
			"memory in DIMM B1 NODE 0: replaced, 32.0 GiB DDR4 Samsung M393A4K40DB3-CWE serial 03B71236 -> 32.0 GiB DDR4 Samsung M393A4K40DB3-CWE serial 0BADCAFE"},
		{"interface's firmware", func(f fstest.MapFS) {
			d := f["answers/nic/ens2/driver"]
			d.Data = bytes.Replace(d.Data, []byte("9.20"), []byte("9.50"), 1)
		}, "nic ens2: firmware, 9.20 0x8000d95e 22.0.9 -> 9.50 0x8000d95e 22.0.9"},
		{"interface is replaced", func(f fstest.MapFS) {
			f["answers/nic/ens2/permanent-mac"].Data[5] = 0x99
		}, "nic ens2: replaced, 3c:ec:ef:00:00:02 -> 3c:ec:ef:00:00:99"},
		{"interface is gone", func(f fstest.MapFS) { drop(f, "3d:00.2"); delete(f, "sys/class/net/ens2") }, "nic ens2: removed, 3c:ec:ef:00:00:02"},
		{"BIOS and GPU", func(f fstest.MapFS) {
			f[dmiDir+"bios_version"].Data = []byte("3.5.0\n")
			drop(f, "0000:b0:00.0")
		}, "firmware: version, 3.4.1 -> 3.5.0\npci 0000:b0:00.0: removed, 10de:20b5 class 030200 NVIDIA GPU"},
		{"TPM is off", func(f fstest.MapFS) { drop(f, "tpm") }, "tpm: removed, version 2.0"},
		{"Secure Boot is off", func(f fstest.MapFS) {
			f["sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"].Data[4] = 0
		}, "firmware: Secure Boot, on -> off"},
		{"CXL memory is gone", func(f fstest.MapFS) { drop(f, "0000:c1:00.0"); drop(f, "sys/bus/cxl") }, "cxl in 0000:c1:00.0: removed, 256.0 GiB serial 0x1122334455"},
		{"CXL memory is replaced", func(f fstest.MapFS) { swap(f, "0x1122334455", "0x99") }, "cxl in 0000:c1:00.0: replaced, 256.0 GiB serial 0x1122334455 -> 256.0 GiB serial 0x99"},
		{"CXL memory's firmware and size", func(f fstest.MapFS) { swap(f, "1.0.7", "1.0.8"); swap(f, "0x4000000000", "0x2000000000") },
			"cxl in 0000:c1:00.0: firmware, 1.0.7 -> 1.0.8\ncxl in 0000:c1:00.0: size, 256.0 GiB -> 128.0 GiB"},
		{"SMBIOS cannot be read", func(f fstest.MapFS) { delete(f, smbiosFile) }, ""},
		{"half the processors", func(f fstest.MapFS) { f["sys/devices/system/cpu/present"].Data = []byte("0-15\n") }, "cpu: sockets, 2 -> 1\ncpu: threads, 64 -> 16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old, err := Recorded(inspecttest.Server()).Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			files := inspecttest.Server()
			tt.change(files)
			now, _ := Recorded(files).Inventory(t.Context())
			var lines []string
			for _, c := range Changes(old, now) {
				lines = append(lines, c.String())
			}
			got := strings.Join(lines, "\n")
			if got != tt.want {
				t.Errorf("changes:\n%s\nwant:\n%s", got, tt.want)
			}
			// The other way round are as many.
			if back := Changes(now, old); len(back) != len(lines) {
				t.Errorf("%d changes back, want %d: %v", len(back), len(lines), back)
			}
			b, err := json.Marshal(Changes(old, now))
			if err != nil || !strings.HasPrefix(string(b), "[") {
				t.Errorf("JSON %s, %v", b, err)
			}
		})
	}
}

// emptySlot takes the n-th memory module out.
func emptySlot(tables []byte, n int) []byte {
	tables = slices.Clone(tables)
	for at := 0; at < len(tables); {
		_, rest, err := nextStructure(tables[at:])
		if err != nil {
			panic(fmt.Sprint(err))
		}
		if tables[at] == 17 {
			if n == 0 {
				tables[at+0x0c], tables[at+0x0d] = 0, 0
				return tables
			}
			n--
		}
		at = len(tables) - len(rest)
	}
	return tables
}

// A recording may come from anybody, and hold anything: it gives an inventory, or an error, soon.
func FuzzRecording(f *testing.F) {
	f.Add(string(recording.Format("", inspecttest.Server())))
	for _, name := range []string{"virtio", "sas", "qemu"} {
		b, err := os.ReadFile("testdata/" + name + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("-- proc -> proc --\n-- sys/block/sda -> ../block/sda --\n-- sys/class -> class/../class --\n")
	f.Add("-- sys/block/sda -> ../../sys/devices/a --\n-- sys/devices/a/device -> ../a --\n-- sys/devices/a/size --\n8\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Load([]byte(text))
		if err != nil {
			return
		}
		same, files := m.Record()
		inv, _ := same.Inventory(t.Context())
		if _, err := same.Health(t.Context()); err != nil && t.Context().Err() != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(inv); err != nil || !utf8.Valid(b) {
			t.Errorf("JSON %s, %v", b, err)
		}
		hidden := Anonymous(files(), inv, []byte("key"))
		if _, err := recording.Parse(string(recording.Format("", hidden))); err != nil {
			t.Errorf("without serial numbers: %v", err)
		}
	})
}
