// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inspect

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/inspect/ipmi"
)

// guest says that the tests run in the machine that TestVMJudges has started.
var guest = flag.Bool("guest", false, "run the tests for a virtual machine")

// judgement is one value of ours, and what a program says.
type judgement struct{ part, field, ours, judge, theirs, why string }

// judges collects what programs say of this machine.
type judges struct {
	t     *testing.T
	inv   Inventory
	list  []judgement
	spent time.Duration // by the programs
}

// run returns what a program prints. One that fails has said so in its exit status only.
func (j *judges) run(program string, args ...string) string {
	j.t.Helper()
	start := time.Now()
	out, err := exec.Command(program, args...).Output()
	j.spent += time.Since(start)
	if err != nil && len(out) == 0 {
		j.t.Logf("%s %q: %v", program, args, err)
	}
	return string(out)
}

func (j *judges) decode(into any, program string, args ...string) {
	j.t.Helper()
	out := j.run(program, args...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		j.t.Errorf("%s %q: %v: %.200q", program, args, err, out)
	}
}

// same compares a value; why explains why it may be another.
func (j *judges) same(judge, part, field string, ours, theirs any, why ...string) {
	j.list = append(j.list, judgement{part, field, fmt.Sprint(ours), judge, fmt.Sprint(theirs), strings.Join(why, "; ")})
}

// table is what was judged. The test fails for each difference that nobody has explained.
func (j *judges) table() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "VERDICT\tPART\tFIELD\tOURS\tJUDGE\tTHEIRS\t")
	short := func(s string) string {
		if len(s) > 60 {
			return s[:57] + "..."
		}
		return cmp.Or(s, "-")
	}
	count := map[string]int{}
	for _, v := range j.list {
		count[v.judge]++
		verdict := "same"
		switch {
		case v.ours != v.theirs && v.why == "":
			verdict = "DIFFERENT"
			j.t.Errorf("%s: %s is %q, %s says %q", v.part, v.field, v.ours, v.judge, v.theirs)
		case v.ours != v.theirs:
			verdict = "explained"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", verdict, v.part, v.field, short(v.ours), v.judge, short(v.theirs), map[bool]string{true: v.why}[verdict == "explained"])
	}
	w.Flush()
	for judge, least := range map[string]int{"lsblk": 200, "udev": 80, "lscpu": 9, "lspci": 170, "dmidecode": 40, "ethtool": 40, "smartctl": 40, "nvme": 24, "ipmitool": 9, "lsusb": 2, "tpm2": 1} {
		if count[judge] < least {
			j.t.Errorf("%s has said %d things, want %d at least", judge, count[judge], least)
		}
	}
	return out.String()
}

// fieldsOf reads lines of a key, a separator and a value; the first of equal keys counts.
func fieldsOf(text, separator string) map[string]string { return values([]byte(text), separator) }

func TestGuestJudges(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMJudges")
	}
	modules, err := filepath.Glob("modules/*.ko")
	if err != nil || len(modules) == 0 {
		t.Fatalf("modules: %v", err)
	}
	for _, file := range modules { // in order
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
			t.Errorf("load %s: %v", file, err)
		}
		f.Close()
	}
	// udev has what lsblk knows of serial numbers and the like.
	daemon := exec.Command("/usr/bin/udevadm")
	daemon.Args = []string{"systemd-udevd"}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	for range 500 {
		if _, err := os.Stat("/run/udev/control"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, args := range [][]string{{"control", "--ping"}, {"trigger", "--action=add"}, {"settle", "--timeout=60"}} {
		if out, err := exec.Command("udevadm", args...).CombinedOutput(); err != nil {
			t.Fatalf("udevadm %q: %v: %s", args, err, out)
		}
	}

	// An emulator on a computer that has other work stops for seconds, and devices seem to hang; they do not three times.
	patiently := func(work func() error) {
		for try := 1; ; try++ {
			err := work()
			if err != nil && strings.Contains(err.Error(), errNoAnswer.Error()+" within") && try < 3 {
				continue
			}
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
	m := Local()
	var inv Inventory
	var took time.Duration
	patiently(func() (err error) {
		start := time.Now()
		inv, err = m.Inventory(t.Context())
		took = time.Since(start)
		return err
	})
	var health []Health
	patiently(func() (err error) { health, err = m.Health(t.Context()); return err })
	j := &judges{t: t, inv: inv}
	j.disks()
	j.nics()
	j.system()
	j.pci()
	j.health(health)
	table := j.table()
	table += fmt.Sprintf("The inventory took %v, the programs %v.\n", took, j.spent)
	if took > j.spent/4 {
		t.Errorf("the inventory took %v, more than a quarter of what the programs did: %v", took, j.spent)
	}

	patiently(func() error {
		out, err := exec.Command("ironhand", "inspect", "--health", "--record", "/tmp/machine.txt").CombinedOutput()
		if err != nil {
			return fmt.Errorf("ironhand inspect: %w: %s", err, out)
		}
		return nil
	})
	text, err := os.ReadFile("/tmp/machine.txt")
	if err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		fmt.Println(table)
	}
	b, err := json.Marshal(judgedMachine{string(text), report(t, inv), table})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range inv.Disks {
		if d.Serial != resultDisk {
			continue
		}
		if err := os.WriteFile(d.Name, append(binary.LittleEndian.AppendUint64(nil, uint64(len(b))), b...), 0o600); err != nil {
			t.Error(err)
		}
		unix.Sync()
		return
	}
	t.Error("there is no disk for the result")
}

func (j *judges) disks() {
	var lsblk struct {
		Devices []map[string]any `json:"blockdevices"`
	}
	j.decode(&lsblk, "lsblk", "-bdia", "--json", "-oKNAME,MODEL,SIZE,ROTA,TYPE,SERIAL,WWN,LOG-SEC,PHY-SEC,TRAN,RO,RM,HCTL,REV,VENDOR")
	theirs := map[string]map[string]any{}
	var names, ours []string
	for _, d := range lsblk.Devices {
		name := "/dev/" + d["kname"].(string)
		theirs[name] = d
		if isDisk(d["kname"].(string), d["type"].(string)) && d["size"] != 0.0 {
			names = append(names, name)
		}
	}
	for _, d := range j.inv.Disks {
		ours = append(ours, d.Name)
	}
	slices.Sort(names)
	slices.Sort(ours)
	j.same("lsblk", "disks", "names", ours, names)
	text := func(v any) string {
		if v == nil {
			return ""
		}
		if n, ok := v.(float64); ok {
			return strconv.FormatInt(int64(n), 10)
		}
		return strings.TrimSpace(fmt.Sprint(v))
	}
	for _, d := range j.inv.Disks {
		of := theirs[d.Name]
		for _, c := range []struct {
			column string
			ours   any
		}{{"model", d.Model}, {"size", d.Size}, {"rota", d.Rotational}, {"type", d.Type}, {"serial", d.Serial}, {"wwn", d.WWN}, {"log-sec", d.LogicalSectors}, {"phy-sec", d.PhysicalSectors},
			{"tran", d.Tran}, {"ro", d.ReadOnly}, {"rm", d.Removable}, {"hctl", d.HCTL}, {"rev", d.Firmware}, {"vendor", d.Vendor}} {
			j.same("lsblk", d.Name, c.column, c.ours, text(of[c.column]), knownOfLsblk(d, c.column)...)
		}
		p := fieldsOf(j.run("udevadm", "info", "--query=property", "--name="+d.Name), "=")
		j.same("udev", d.Name, "WWN with extension", d.WWNWithExtension, p["ID_WWN_WITH_EXTENSION"])
		j.same("udev", d.Name, "WWN vendor extension", d.WWNVendorExtension, p["ID_WWN_VENDOR_EXTENSION"])
		for key, list := range map[string][]string{"ID_WWN": d.WWNs, "ID_SERIAL": d.Serials, "ID_SERIAL_SHORT": d.Serials} {
			if want := p[key]; want != "" {
				found := ""
				if slices.Contains(list, want) {
					found = want
				}
				j.same("udev", d.Name, key, cmp.Or(found, fmt.Sprint(list)), want)
			}
		}
		var paths []string
		for link := range strings.FieldsSeq(p["DEVLINKS"]) {
			if strings.HasPrefix(link, "/dev/disk/by-path/") {
				paths = append(paths, link)
			}
		}
		slices.Sort(paths)
		mine := slices.Sorted(slices.Values(d.ByPaths))
		j.same("udev", d.Name, "by-path", mine, paths)
	}
}

// knownOfLsblk is what Debian 12's lsblk (2.38) does not know, and newer ones do.
func knownOfLsblk(d Disk, column string) []string {
	switch {
	case column == "tran" && d.Tran == "virtio":
		return []string{"lsblk 2.38 has no name for virtio"}
	case column == "rev" && d.Tran == "nvme":
		return []string{"lsblk 2.38 knows no revisions of NVMe"}
	}
	return nil
}

var supportedMode = regexp.MustCompile(`\b(\d+)base`)

func (j *judges) nics() {
	for _, n := range j.inv.Interfaces {
		info := fieldsOf(j.run("ethtool", "-i", n.Name), ":")
		j.same("ethtool", n.Name, "driver", n.Driver, info["driver"])
		j.same("ethtool", n.Name, "firmware", n.Firmware, strings.TrimPrefix(info["firmware-version"], "N/A"))
		if n.Driver != "virtio_net" && !strings.HasPrefix(info["bus-info"], "usb-") { // the address of what is above
			j.same("ethtool", n.Name, "bus", n.PCIAddress, info["bus-info"])
		}
		_, mac, _ := strings.Cut(j.run("ethtool", "-P", n.Name), ": ")
		j.same("ethtool", n.Name, "permanent address", n.MACAddress, strings.TrimSpace(mac))
		link := j.run("ethtool", n.Name)
		modes, _, _ := strings.Cut(link, "Supported pause")
		var highest int64
		for _, m := range supportedMode.FindAllStringSubmatch(modes, -1) {
			mbps, _ := strconv.ParseInt(m[1], 10, 64)
			highest = max(highest, mbps)
		}
		now, _ := strconv.ParseInt(strings.TrimSuffix(fieldsOf(link, ":")["Speed"], "Mb/s"), 10, 64)
		j.same("ethtool", n.Name, "highest speed", int64(n.SpeedMbps), cmp.Or(highest, now))
		j.same("ethtool", n.Name, "link", n.HasCarrier, fieldsOf(link, ":")["Link detected"] == "yes")
	}
}

func (j *judges) system() {
	v := j.inv.SystemVendor
	for _, c := range []struct{ keyword, ours string }{{"system-manufacturer", v.Manufacturer}, {"system-serial-number", v.SerialNumber},
		{"bios-vendor", v.Firmware.Vendor}, {"bios-version", v.Firmware.Version}, {"bios-release-date", v.Firmware.BuildDate}, {"system-uuid", j.inv.System.UUID}} {
		j.same("dmidecode", "system", c.keyword, c.ours, strings.TrimSpace(j.run("dmidecode", "-s", c.keyword)))
	}
	name, sku := strings.TrimSpace(j.run("dmidecode", "-s", "system-product-name")), strings.TrimSpace(j.run("dmidecode", "-s", "system-sku-number"))
	j.same("dmidecode", "system", "product", v.ProductName, name+" ("+sku+")")
	slots := strings.Split(j.run("dmidecode", "-t", "17"), "\nMemory Device\n")[1:]
	j.same("dmidecode", "memory", "slots", len(j.inv.Memory.Modules), len(slots))
	for i, m := range j.inv.Memory.Modules[:min(len(slots), len(j.inv.Memory.Modules))] {
		f := fieldsOf(slots[i], ":")
		j.same("dmidecode", m.Slot, "size", fmt.Sprintf("%d GB", m.Size>>30), f["Size"])
		j.same("dmidecode", m.Slot, "slot", m.Slot, f["Locator"])
		j.same("dmidecode", m.Slot, "bank", m.Bank, f["Bank Locator"])
		j.same("dmidecode", m.Slot, "type", m.Kind, f["Type"])
		j.same("dmidecode", m.Slot, "part", m.Part, f["Part Number"])
		j.same("dmidecode", m.Slot, "serial", m.Serial, f["Serial Number"])
		j.same("dmidecode", m.Slot, "manufacturer", m.Manufacturer, f["Manufacturer"])
		j.same("dmidecode", m.Slot, "speed", fmt.Sprintf("%d MT/s", m.SpeedMTs), f["Speed"])
	}
	tables, err := os.ReadFile("/" + smbiosFile)
	if err != nil {
		j.t.Error(err)
	}
	f := fieldsOf(string(dmidecode(j.t, tables, "42")), ":") // as of a newer SMBIOS than QEMU says it is
	for _, h := range j.inv.Details.HostInterfaces {
		j.same("dmidecode", "Redfish", "address", h.Service, f["IPv4 Redfish Service Address"])
		j.same("dmidecode", "Redfish", "port", h.Port, f["Redfish Service Port"])
		j.same("dmidecode", "Redfish", "name", h.Name, f["Redfish Service Hostname"])
		j.same("dmidecode", "Redfish", "UUID", h.UUID, strings.TrimPrefix(f["Service UUID"], "Not Settable"))
		host, _, _ := strings.Cut(h.Host, "/")
		j.same("dmidecode", "Redfish", "host", host, f["IPv4 Address"])
		j.same("dmidecode", "Redfish", "device", h.Device, strings.TrimSuffix(f["Device Type"], " v2"), "dmidecode 3.4 does not know the second version of device descriptors")
	}

	var lscpu struct {
		Fields []struct{ Field, Data string } `json:"lscpu"`
	}
	j.decode(&lscpu, "lscpu", "-J")
	cpu := map[string]string{}
	for _, f := range lscpu.Fields {
		cpu[strings.ToLower(strings.TrimSuffix(f.Field, ":"))] = f.Data
	}
	c := j.inv.CPU
	j.same("lscpu", "cpu", "model", c.ModelName, cpu["model name"])
	j.same("lscpu", "cpu", "architecture", c.Architecture, cpu["architecture"])
	j.same("lscpu", "cpu", "count", c.Count, cpu["cpu(s)"])
	j.same("lscpu", "cpu", "sockets", c.SocketCount, cpu["socket(s)"])
	perSocket, _ := strconv.Atoi(cpu["core(s) per socket"])
	j.same("lscpu", "cpu", "cores", c.Cores, perSocket*c.SocketCount)
	j.same("lscpu", "cpu", "flags", strings.Join(c.Flags, " "), cpu["flags"])
	if n := j.inv.Details.NUMA; n != nil {
		j.same("lscpu", "NUMA", "nodes", len(n.RAM), cpu["numa node(s)"])
		for _, ram := range n.RAM {
			var threads []int
			for _, core := range n.CPUs {
				if core.Node == ram.Node {
					threads = append(threads, core.Threads...)
				}
			}
			slices.Sort(threads)
			want, err := parseCPUList(cpu[fmt.Sprintf("numa node%d cpu(s)", ram.Node)])
			if err != nil {
				j.t.Error(err)
			}
			j.same("lscpu", "NUMA", fmt.Sprintf("node %d", ram.Node), threads, want)
		}
	} else {
		j.t.Error("no NUMA nodes")
	}

	var banks, used []string
	for _, m := range regexp.MustCompile(`(?m)^\s*-\s*(\w+):\s*\[(.*)\]`).FindAllStringSubmatch(j.run("tpm2_getcap", "--tcti=device:/dev/tpmrm0", "pcrs"), -1) {
		if strings.TrimSpace(m[2]) != "" { // banks that hold no PCR are not in use
			banks = append(banks, m[1])
		}
	}
	if tpm := j.inv.Details.TPM; tpm != nil {
		used = slices.Sorted(slices.Values(tpm.Banks))
	}
	slices.Sort(banks)
	j.same("tpm2", "TPM", "PCR banks", used, banks)

	info := fieldsOf(j.run("ipmitool", "mc", "info"), ":")
	j.same("ipmitool", "BMC", "is there", j.inv.BMCAddress != "", info["IPMI Version"] != "")
	address, mac := "", ""
	for channel := 1; channel <= 11 && address == ""; channel++ {
		lan := fieldsOf(j.run("ipmitool", "lan", "print", strconv.Itoa(channel)), ":")
		if a := lan["IP Address"]; a != "0.0.0.0" && a != "" {
			address, mac = a, lan["MAC Address"]
		}
	}
	j.same("ipmitool", "BMC", "address", j.inv.BMCAddress, cmp.Or(address, "0.0.0.0"))
	j.same("ipmitool", "BMC", "MAC", j.inv.BMCMAC, mac)
	sensors, err := ipmi.Sensors(j.t.Context(), ipmi.Send)
	if err != nil {
		j.t.Error(err)
	}
	theirs := map[string]string{} // by name: CPU1 Temp,42,degrees C,ok
	for line := range strings.Lines(j.run("ipmitool", "-c", "sdr", "list", "full")) {
		if f := strings.Split(strings.TrimSpace(line), ","); len(f) == 4 {
			theirs[f[0]] = f[1] + " " + f[2]
		}
	}
	units := map[ipmi.Unit]string{ipmi.Celsius: "%.0f degrees C", ipmi.RPM: "%.0f RPM", ipmi.Volt: "%.3f Volts", ipmi.Watt: "%.0f Watts"}
	for _, s := range sensors {
		value, ok, err := s.Read(j.t.Context(), ipmi.Send)
		if err != nil || !ok {
			j.t.Errorf("%s: %v, %v", s.Name, ok, err)
		}
		j.same("ipmitool", "BMC", s.Name, fmt.Sprintf(units[s.Unit], value), theirs[s.Name])
	}
	j.same("ipmitool", "BMC", "sensors", len(sensors), len(theirs))
}

func (j *judges) pci() {
	devices := map[string]PCIDevice{}
	for _, d := range j.inv.Details.PCI {
		devices[d.Bus] = d
	}
	records := strings.Split(strings.TrimSpace(j.run("lspci", "-Dvmmnk")), "\n\n")
	slots := map[string]string{}
	j.same("lspci", "PCI", "devices", len(devices), len(records))
	for _, r := range records {
		f := fieldsOf(r, ":")
		slots[f["Slot"]] = f["PhySlot"]
		d := devices[f["Slot"]]
		j.same("lspci", f["Slot"], "vendor", d.VendorID, f["Vendor"])
		j.same("lspci", f["Slot"], "device", d.ProductID, f["Device"])
		j.same("lspci", f["Slot"], "class", d.Class, f["Class"]+cmp.Or(f["ProgIf"], "00"))
		j.same("lspci", f["Slot"], "revision", cmp.Or(string(d.Revision), "00"), cmp.Or(f["Rev"], "00"))
		j.same("lspci", f["Slot"], "driver", d.Driver, f["Driver"])
		j.same("lspci", f["Slot"], "NUMA node", d.NUMANode, cmp.Or(f["NUMANode"], "-1"))
	}
	for _, d := range j.inv.Disks {
		if place, found := strings.CutPrefix(string(d.ByPath), "/dev/disk/by-path/pci-"); found && d.Tran == "nvme" {
			j.same("lspci", d.Name, "bay", d.Bay, slots[place[:len("0000:00:00.0")]])
		}
	}
	var memory, serials []string
	for _, d := range j.inv.Details.PCI {
		if strings.HasPrefix(d.Class, "0502") {
			memory = append(memory, d.Bus)
		}
	}
	for _, m := range j.inv.Details.CXL {
		serials = append(serials, m.PCIAddress)
		digits := regexp.MustCompile(`Device Serial Number ([0-9a-f-]+)`).FindStringSubmatch(j.run("lspci", "-vv", "-s", m.PCIAddress))
		if digits == nil {
			j.t.Errorf("lspci has no serial number of %s", m.PCIAddress)
			continue
		}
		j.same("lspci", m.PCIAddress, "serial", m.Serial, "0x"+strings.TrimLeft(strings.ReplaceAll(digits[1], "-", ""), "0"))
	}
	j.same("lspci", "CXL", "memory devices", serials, memory)
	usb := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^Bus 0*(\d+) Device 0*(\d+): ID (\S+)`).FindAllStringSubmatch(j.run("lsusb"), -1) {
		usb["USB:"+m[1]+":"+m[2]] = m[3]
	}
	for _, d := range j.inv.Details.USB {
		j.same("lsusb", d.Handle, "ID", d.ID, usb[d.Handle])
		delete(usb, d.Handle)
	}
	for handle, id := range usb {
		if !strings.HasPrefix(id, "1d6b:") { // root hubs
			j.same("lsusb", handle, "ID", "", id)
		}
	}
}

func (j *judges) health(health []Health) {
	of := map[string]Health{}
	for _, h := range health {
		of[h.Disk] = h
	}
	amount := func(n *int64) string {
		if n == nil {
			return ""
		}
		return fmt.Sprint(*n)
	}
	for _, d := range j.inv.Disks {
		h, asked := of[d.Name]
		var smart struct {
			Serial   string `json:"serial_number"`
			Firmware string `json:"firmware_version"`
			Capacity struct {
				Bytes json.Number `json:"bytes"`
			} `json:"user_capacity"`
			Block  int `json:"logical_block_size"`
			Status *struct {
				Passed bool `json:"passed"`
			} `json:"smart_status"`
			Temperature *struct{ Current int } `json:"temperature"`
			PowerOn     *struct{ Hours int }   `json:"power_on_time"`
			NVMe        *struct {
				Spare  int `json:"available_spare"`
				Used   int `json:"percentage_used"`
				Errors int `json:"media_errors"`
			} `json:"nvme_smart_health_information_log"`
		}
		if asked {
			j.decode(&smart, "smartctl", "-j", "-a", d.Name)
			j.same("smartctl", d.Name, "serial", d.Serial, smart.Serial)
			if smart.Firmware != "" {
				j.same("smartctl", d.Name, "firmware", d.Firmware, smart.Firmware)
			}
			if smart.Capacity.Bytes != "" {
				j.same("smartctl", d.Name, "size", d.Size, smart.Capacity.Bytes)
			}
			if smart.Status != nil {
				j.same("smartctl", d.Name, "passes", !h.Failing, smart.Status.Passed)
			}
			if smart.Temperature != nil {
				j.same("smartctl", d.Name, "temperature", amount(h.TemperatureC), smart.Temperature.Current)
			}
			if smart.PowerOn != nil {
				j.same("smartctl", d.Name, "hours", amount(h.PowerOnHours), smart.PowerOn.Hours)
			}
			if n := smart.NVMe; n != nil {
				j.same("smartctl", d.Name, "spare", amount(h.SparePercent), n.Spare)
				j.same("smartctl", d.Name, "used", amount(h.UsedPercent), n.Used)
				j.same("smartctl", d.Name, "media errors", amount(h.MediaErrors), n.Errors)
			}
		}
		if !strings.HasPrefix(d.Name, "/dev/nvme") {
			continue
		}
		var id struct {
			SN, MN, FR string
		}
		j.decode(&id, "nvme", "id-ctrl", "-o", "json", d.Name)
		j.same("nvme", d.Name, "serial", d.Serial, strings.TrimSpace(id.SN))
		j.same("nvme", d.Name, "model", d.Model, strings.TrimSpace(id.MN))
		j.same("nvme", d.Name, "firmware", d.Firmware, strings.TrimSpace(id.FR))
		var log map[string]any
		j.decode(&log, "nvme", "smart-log", "-o", "json", d.Name)
		kelvin, _ := log["temperature"].(float64)
		j.same("nvme", d.Name, "temperature", amount(h.TemperatureC), int(kelvin)-273)
		j.same("nvme", d.Name, "spare", amount(h.SparePercent), fmt.Sprint(log["avail_spare"]))
		j.same("nvme", d.Name, "used", amount(h.UsedPercent), fmt.Sprint(cmp.Or(log["percent_used"], log["percentage_used"])))
	}
}
