// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inspect

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/inspect/recording"
)

// needRoot skips the test for other users, or fails it where it is required.
func needRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		return
	}
	if strings.Contains(os.Getenv("REQUIRE"), "root") {
		t.Fatal("needs root")
	}
	t.Skip("SKIPPED: needs root")
}

// askProgram runs a program and decodes its JSON.
func askProgram(t *testing.T, into any, program string, args ...string) {
	t.Helper()
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%s: %v", program, err)
	}
}

// The disks are those of lsblk, with its values where it has one. (Without udev it knows neither serial numbers nor WWNs.)
func TestRootDisksAsLsblk(t *testing.T) {
	needRoot(t)
	var lsblk struct {
		Devices []map[string]any `json:"blockdevices"`
	}
	askProgram(t, &lsblk, "lsblk", "-bdia", "--json", "-oKNAME,MODEL,SIZE,ROTA,TYPE,SERIAL,WWN,LOG-SEC,PHY-SEC,TRAN,RO,RM,HCTL")
	disks, err := Local().Disks(t.Context())
	if err != nil {
		t.Error(err)
	}
	ours := make(map[string]Disk)
	for _, d := range disks {
		ours[strings.TrimPrefix(d.Name, "/dev/")] = d
	}
	for _, theirs := range lsblk.Devices {
		name := theirs["kname"].(string)
		d, found := ours[name]
		delete(ours, name)
		listed := isDisk(name, theirs["type"].(string)) && theirs["size"] != 0.0
		if found != listed {
			t.Errorf("%s of type %v and %v bytes: listed %t, want %t", name, theirs["type"], theirs["size"], found, listed)
		}
		if !found {
			continue
		}
		for column, got := range map[string]any{
			"model": string(d.Model), "size": float64(d.Size), "rota": d.Rotational, "serial": string(d.Serial), "wwn": string(d.WWN),
			"log-sec": float64(d.LogicalSectors), "phy-sec": float64(d.PhysicalSectors), "tran": string(d.Tran), "ro": d.ReadOnly,
			"rm": d.Removable, "hctl": string(d.HCTL),
		} {
			if want := theirs[column]; want != nil && got != want {
				t.Errorf("%s: %s is %v, lsblk says %v", name, column, got, want)
			}
		}
	}
	for name := range ours {
		t.Errorf("%s is listed, and lsblk does not know it", name)
	}
}

// A recording of this machine gives its inventory again.
func TestRootRecord(t *testing.T) {
	needRoot(t)
	m, files := Local().Record()
	want, err := m.Inventory(t.Context())
	again, lerr := Load(recording.Format("this machine", files()))
	if lerr != nil {
		t.Fatal(lerr)
	}
	got, _ := again.Inventory(t.Context())
	if diff := lineDiff(report(t, want), report(t, got)); diff != "" {
		t.Errorf("inventory of the recording differs (%v):\n%s", err, diff)
	}
}

func TestRootInterfacesAsIP(t *testing.T) {
	needRoot(t)
	type address struct{ Family, Local string }
	var ip []struct {
		Ifname, Address, Permaddr string
		Flags                     []string
		Addresses                 []address `json:"addr_info"`
	}
	askProgram(t, &ip, "ip", "-j", "address")
	inv, _ := Local().Inventory(t.Context()) // what else this machine lacks does not matter here
	ours := make(map[string]NIC)
	for _, n := range inv.Interfaces {
		ours[n.Name] = n
	}
	for _, theirs := range ip {
		n, found := ours[theirs.Ifname]
		if !found {
			if _, err := os.Stat("/sys/class/net/" + theirs.Ifname + "/device"); err == nil {
				t.Errorf("%s has hardware and is not listed", theirs.Ifname)
			}
			continue
		}
		mac := theirs.Address
		if theirs.Permaddr != "" { // shown only if it is another
			mac = theirs.Permaddr
		}
		if string(n.MACAddress) != mac {
			t.Errorf("%s: address is %s, ip says %s", n.Name, n.MACAddress, mac)
		}
		if up := strings.Contains(strings.Join(theirs.Flags, " "), "LOWER_UP"); n.HasCarrier != up {
			t.Errorf("%s: carrier is %t, ip says %t", n.Name, n.HasCarrier, up)
		}
		first := map[string]string{}
		for _, a := range theirs.Addresses {
			if first[a.Family] == "" {
				first[a.Family] = a.Local
			}
		}
		v6, _, _ := strings.Cut(string(n.IPv6Address), "%")
		if string(n.IPv4Address) != first["inet"] || v6 != first["inet6"] {
			t.Errorf("%s: addresses are %q and %q, ip says %q and %q", n.Name, n.IPv4Address, v6, first["inet"], first["inet6"])
		}
	}
}

func TestRootCPUAsLscpu(t *testing.T) {
	needRoot(t)
	var lscpu struct {
		Fields []struct{ Field, Data string } `json:"lscpu"`
	}
	askProgram(t, &lscpu, "lscpu", "-J")
	theirs := make(map[string]string)
	for _, f := range lscpu.Fields {
		theirs[strings.ToLower(strings.TrimSuffix(f.Field, ":"))] = f.Data
	}
	inv, _ := Local().Inventory(t.Context())
	for field, got := range map[string]string{
		"model name": inv.CPU.ModelName, "cpu(s)": strconv.Itoa(inv.CPU.Count), "architecture": inv.CPU.Architecture,
		"flags": strings.Join(inv.CPU.Flags, " "), "socket(s)": strconv.Itoa(inv.CPU.SocketCount), "cpu max mhz": inv.CPU.Frequency,
	} {
		if want := theirs[field]; want != "" && got != want {
			t.Errorf("%s is %q, lscpu says %q", field, got, want)
		}
	}
}

// The kernel has no more permanent addresses than those of drivers, and none of an interface that is not there.
func TestRootPermanentMACFails(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"no-such-nic", "a-name-that-is-too-long", ""} {
		if mac, err := ethtoolPermanentMAC(name); err == nil {
			t.Errorf("permanent address of %q = %x, want an error", name, mac)
		}
	}
}

// recordedTables are the SMBIOS tables of the recorded machines.
func recordedTables(t *testing.T) map[string][]byte {
	tables := map[string][]byte{"server": inspecttest.Tables(32)}
	for _, name := range []string{"virtio", "sata-nvme", "sas", "qemu", "judged"} {
		tables[name] = inspecttest.Machine(t, "testdata/"+name+".txt")[smbiosFile].Data
	}
	return tables
}

// dmidecode runs it on tables, for one type of structures.
func dmidecode(t *testing.T, tables []byte, kind string) []byte {
	t.Helper()
	if _, err := exec.LookPath("dmidecode"); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: %v", err)
	}
	// It reads dumps: an SMBIOS 3 entry point (SMBIOS 3.7, 5.2.2), then the tables.
	entry := []byte("_SM3_\x00\x18\x03\x02\x00\x01\x00")
	entry = binary.LittleEndian.AppendUint32(entry, uint32(len(tables)))
	entry = binary.LittleEndian.AppendUint64(entry, 0x20)
	var sum byte
	for _, b := range entry {
		sum += b
	}
	entry[5] = -sum
	dump := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(dump, append(append(entry, make([]byte, 8)...), tables...), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dmidecode", "--from-dump", dump, "--type", kind).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What the collector dmi-decode says is what dmidecode says, in its words. Only keys of the table are left out.
func TestRootDMIAsDmidecode(t *testing.T) {
	needRoot(t)
	leftOut := map[string]string{
		"bios":      "Address, Runtime Size, Characteristics",
		"processor": "Family, Signature, Flags, Voltage, Upgrade, L1 Cache Handle, L2 Cache Handle, L3 Cache Handle, Characteristics",
		"memory": "Type Detail, Minimum Voltage, Maximum Voltage, Configured Voltage, Memory Technology, Memory Operating Mode Capability, Firmware Version, " +
			"Module Manufacturer ID, Module Product ID, Memory Subsystem Controller Manufacturer ID, Memory Subsystem Controller Product ID, " +
			"Non-Volatile Size, Volatile Size, Cache Size, Logical Size",
	}
	for name, tables := range recordedTables(t) {
		list, err := parseSMBIOS(tables)
		if err != nil {
			t.Fatal(err)
		}
		ours := decodeDMI(list)
		memory := ours["memory"].(map[string]any)
		for kind, records := range map[string][]map[string]any{
			"bios": {ours["bios"].(map[string]any)}, "processor": ours["cpu"].([]map[string]any), "memory": memory["devices"].([]map[string]any),
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				var theirs []map[string]string
				array := map[string]string{}
				for block := range strings.SplitSeq(string(dmidecode(t, tables, kind)), "\n\n") {
					fields := map[string]string{}
					for line := range strings.Lines(block) {
						line = strings.TrimSpace(line)
						if key, value, found := strings.Cut(line, ":"); found && !strings.HasPrefix(line, "Handle ") {
							fields[key] = strings.TrimSpace(value)
						} else if strings.HasPrefix(line, "Handle ") {
							fields["Handle"] = line
						}
					}
					switch {
					case fields["Handle"] == "":
					case strings.Contains(fields["Handle"], "DMI type 16"):
						if len(array) == 0 {
							array = fields
						}
					case strings.Contains(fields["Handle"], "DMI type 17"), kind != "memory":
						theirs = append(theirs, fields)
					}
				}
				if kind == "memory" && len(array) > 0 {
					for _, key := range []string{"Location", "Use", "Error Correction Type", "Maximum Capacity", "Error Information Handle"} {
						if memory[key] != array[key] {
							t.Errorf("array: %s is %v, dmidecode says %q", key, memory[key], array[key])
						}
					}
				}
				if len(theirs) == 0 && len(records) == 1 && len(records[0]) == 0 {
					return // no such structure
				}
				if len(theirs) != len(records) {
					t.Fatalf("%d records, dmidecode has %d", len(records), len(theirs))
				}
				for i, fields := range theirs {
					for key, want := range fields {
						if got, found := records[i][key]; found && got != want || !found && !strings.Contains(leftOut[kind], key) {
							t.Errorf("record %d: %s is %v, dmidecode says %q", i, key, got, want)
						}
					}
					for key := range records[i] {
						if _, found := fields[key]; !found {
							t.Errorf("record %d: dmidecode has no %s", i, key)
						}
					}
				}
			})
		}
	}
}

// dmidecode adds up the recorded machines' memory modules to the same size.
func TestRootMemoryAsDmidecode(t *testing.T) {
	needRoot(t)
	for name, tables := range recordedTables(t) {
		t.Run(name, func(t *testing.T) {
			got, err := parseInstalledMemory(tables)
			if err != nil {
				t.Fatal(err)
			}
			out := dmidecode(t, tables, "memory")
			var want int64
			counts := true // while in an array whose modules count, or in one of them
			flash := ""    // handle of the array of flash
			handle := ""
			for line := range bytes.Lines(out) {
				key, value, _ := strings.Cut(strings.TrimSpace(string(line)), ": ")
				switch {
				case strings.HasPrefix(key, "Handle "):
					handle, _, _ = strings.Cut(strings.TrimPrefix(key, "Handle "), ",")
				case key == "Use" && value == "Flash Memory":
					flash = handle
				case key == "Array Handle":
					counts = value != flash
				case key == "Size" && counts && value != "No Module Installed":
					number, unit, _ := strings.Cut(value, " ")
					n, err := strconv.ParseInt(number, 10, 64)
					shift := map[string]int{"kB": 10, "MB": 20, "GB": 30, "TB": 40}[unit]
					if err != nil || shift == 0 {
						t.Fatalf("size %q", value)
					}
					want += n << shift
				}
			}
			if got != want || want == 0 {
				t.Errorf("%d bytes of memory, dmidecode says %d", got, want)
			}
		})
	}
}
