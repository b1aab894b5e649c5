// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inspect

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/inspect/inspecttest"
)

// judgedMachine is what the guest writes on the disk with the serial number of resultDisk: a length of 8 bytes, then this as JSON.
type judgedMachine struct {
	Recording string // of the inventory and of the disks' health
	Report    string // of the inventory
	Table     string // of what was judged
}

const resultDisk = "RESULT"

// A machine with what QEMU has, looked at by us and by the programs that people know. It is kept as the recording testdata/judged.txt, which -update
// writes anew.
func TestVMJudges(t *testing.T) {
	vmtest.Require(t)
	dir := t.TempDir()
	result := filepath.Join(dir, "result")
	if err := os.WriteFile(result, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	files := vmtest.Programs(t, "lsblk", "lscpu", "lspci", "dmidecode", "ethtool", "ipmitool", "smartctl", "nvme", "lsusb", "tpm2_getcap", "ip", "udevadm",
		"/usr/lib/x86_64-linux-gnu/libtss2-tcti-device.so.0", "/lib/udev/ata_id", "/lib/udev/scsi_id", "/lib/udev/cdrom_id")
	program := vmtest.Build(t, "github.com/ironhand/ironhand/cmd/ironhand")
	files["usr/bin/ironhand"] = program
	files["lib/udev/rules.d"] = "/usr/lib/udev/rules.d"
	files["usr/share/misc/pci.ids"] = "/usr/share/misc/pci.ids"
	modules := filepath.Join(vmtest.Artefact(t, "kernel"), "modules/kernel/drivers")
	for i, name := range []string{"net/usb/usbnet", "net/usb/cdc_ether", "net/usb/rndis_host", "cxl/cxl_acpi", "cxl/cxl_pci", "cxl/cxl_mem"} {
		files[fmt.Sprintf("test/modules/%d.ko", i)] = filepath.Join(modules, name+".ko")
	}
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Machine: vmtest.Machine{
			Firmware: "bios", Board: "q35,cxl=on,cxl-fmw.0.targets.0=cxl.0,cxl-fmw.0.size=4G", MemoryMiB: 1024, CPUs: 4,
			Disks: []vmtest.Disk{{Path: result, Serial: resultDisk}},
			NICs: []vmtest.NIC{{MAC: "52:54:00:4a:00:01"}, {Model: "e1000", MAC: "52:54:00:4a:00:02"},
				{Model: "rtl8139", MAC: "52:54:00:4a:00:04"}, {Model: "pcnet", MAC: "52:54:00:4a:00:05"}, {Model: "vmxnet3", MAC: "52:54:00:4a:00:06"},
				{Model: "virtio-net-pci,speed=25000,duplex=full", MAC: "52:54:00:4a:00:07"}},
			Extra: judgedHardware(t, dir),
		},
		Files: files,
		Args:  "-guest -test.run=^(TestGuestJudges|TestRootDisksAsLsblk|TestRootInterfacesAsIP|TestRootCPUAsLscpu|TestRootRecord)$", Timeout: 10 * time.Minute,
	})

	b, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	var m judgedMachine
	if err := json.Unmarshal(b[8:8+binary.LittleEndian.Uint64(b)], &m); err != nil {
		t.Fatal(err)
	}
	t.Logf("judged:\n%s", m.Table)
	// On another computer, the recording is the same machine, and the program says the same of it.
	file := filepath.Join(dir, "machine.txt")
	if err := os.WriteFile(file, []byte(m.Recording), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Load([]byte(m.Recording))
	if err != nil {
		t.Fatal(err)
	}
	inv, err := again.Inventory(t.Context())
	if err != nil {
		t.Error(err)
	}
	if diff := lineDiff(m.Report, report(t, inv)); diff != "" {
		t.Errorf("inventory of the recording differs:\n%s", diff)
	}
	out, err := exec.Command(program, "inspect", "--from", file, "--format", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got, want bytes.Buffer
	if err := errors.Join(json.Compact(&got, out), json.NewEncoder(&want).Encode(inv)); err != nil || got.String() != strings.TrimSpace(want.String()) {
		t.Errorf("ironhand inspect --from says %s, want %s (%v)", got.String(), want.String(), err)
	}
	if *update {
		if err := os.WriteFile("testdata/judged.txt", []byte(m.Recording), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// judgedHardware are QEMU's arguments for two sockets and NUMA nodes, disks on all kinds of buses, memory modules, a BMC, a TPM and CXL memory.
func judgedHardware(t *testing.T, dir string) (args []string) {
	add := func(text string) { args = append(args, strings.Fields(text)...) }
	add("-smp 4,sockets=2,cores=2,threads=1 -m 1024,maxmem=8G,slots=4")
	add("-object memory-backend-ram,id=m0,size=640M -object memory-backend-ram,id=m1,size=384M")
	add("-numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,cpus=2-3,memdev=m1")
	add("-uuid 00112233-4455-6677-8899-aabbccddeeff")
	args = append(args, "-smbios", "type=0,vendor=Example Firmware,version=1.2.3,date=06/04/2026,release=3.4",
		"-smbios", "type=1,manufacturer=Example Inc.,product=Judged,version=2,serial=SYS 0042,sku=SKU7,family=Test")
	for i, s := range judgedSMBIOS(t) {
		file := filepath.Join(dir, fmt.Sprintf("smbios%d", i))
		if err := os.WriteFile(file, s, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-smbios", "file="+file)
	}

	disks := 0
	drive := func(gib int) string { // a disk of zeros, in no file
		disks++
		add(fmt.Sprintf("-blockdev driver=null-co,read-zeroes=on,node-name=d%d,size=%d", disks, int64(gib)<<30))
		return fmt.Sprintf("drive=d%d", disks)
	}
	add("-device nvme,id=nvme-b,serial=NVME0002 -device nvme-ns,bus=nvme-b,nsid=1,eui64=0x1122334455667788," + drive(2))
	add("-device nvme-ns,bus=nvme-b,nsid=7,uuid=01234567-89ab-cdef-0123-456789abcdef,logical_block_size=4096,physical_block_size=4096," + drive(3))
	add("-device nvme-subsys,id=both,nqn=nqn.2026-01.org.example:both -device nvme,id=nvme-c,serial=NVME0003,subsys=both -device nvme,id=nvme-d,serial=NVME0003,subsys=both")
	add("-device nvme-ns,bus=nvme-c,nsid=1,shared=on," + drive(5))
	add("-device virtio-scsi-pci,id=vs -device scsi-hd,bus=vs.0,scsi-id=1,lun=0,serial=SCSI0001,wwn=0x5000c500a1b2c3d4,vendor=SEAGATE,product=ST16000NM002G,ver=E004,rotation_rate=7200," + drive(6))
	add("-device scsi-hd,bus=vs.0,scsi-id=2,lun=300,serial=SCSI0002,rotation_rate=1,logical_block_size=4096,physical_block_size=4096," + drive(7))
	add("-device scsi-hd,bus=vs.0,scsi-id=3,lun=0," + drive(1))
	add("-device ich9-ahci,id=ahci -device ide-hd,bus=ahci.0,serial=SATA0001,model=EXAMPLE_SSD,ver=F1.0,wwn=0x5002538c00000001,rotation_rate=1," + drive(8))
	add("-device ide-hd,bus=ahci.3,serial=SATA0002,rotation_rate=5400,logical_block_size=512,physical_block_size=4096," + drive(9))
	add("-device mptsas1068,id=sas -device scsi-hd,bus=sas.0,scsi-id=0,serial=SAS0001,wwn=0x5000c500a1b2c3e5," + drive(10))
	add("-device scsi-hd,bus=sas.0,scsi-id=3,serial=SAS0002,wwn=0x5000c500a1b2c3e6," + drive(10))
	add("-device megasas,id=raid -device scsi-hd,bus=raid.0,scsi-id=1,serial=RAID0001,wwn=0x600508b1001c5e5a," + drive(11))
	add("-device lsi53c895a,id=spi -device scsi-hd,bus=spi.0,scsi-id=2,serial=SPI0001," + drive(12))
	add("-device qemu-xhci,id=usb -device usb-storage,bus=usb.0,port=2,serial=USB0001,removable=on," + drive(13))
	add("-device usb-kbd,bus=usb.0 -netdev hubport,id=un,hubid=90 -device usb-net,bus=usb.0,netdev=un,mac=52:54:00:4a:00:08")
	add("-device virtio-blk-pci,serial=VIRT0001," + drive(14))
	add("-device ide-cd,bus=ahci.1 -device VGA")

	add("-chardev socket,id=bmc,host=127.0.0.1,reconnect=1,port=" + startBMC(t, dir) + " -device ipmi-bmc-extern,id=bmc0,chardev=bmc -device isa-ipmi-kcs,bmc=bmc0")
	add("-chardev socket,id=tpm,path=" + startTPM(t, dir) + " -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-tis,tpmdev=tpm0")

	// What comes after a bridge of this kind, and does not say where it is, is put on the bridge, and does not fit there.
	add("-device pxb-pcie,id=far,bus_nr=64,numa_node=1 -device pcie-root-port,id=far0,bus=far,chassis=1,slot=11 -device pcie-root-port,id=far1,bus=far,chassis=2,slot=12")
	add("-netdev hubport,id=fn,hubid=91 -device e1000e,bus=far0,netdev=fn,romfile=,mac=52:54:00:4a:00:03")
	add("-device nvme,id=nvme-a,bus=far1,serial=NVME0001," + drive(4))
	add("-object memory-backend-ram,id=cxl-memory,share=on,size=256M -object memory-backend-ram,id=cxl-labels,share=on,size=1M")
	add("-device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.0 -device cxl-rp,port=0,bus=cxl.0,id=cxl-port,chassis=3,slot=13")
	add("-device cxl-type3,bus=cxl-port,memdev=cxl-memory,lsa=cxl-labels,id=cxl-pmem0,sn=0x1122334455")

	return args
}

// judgedSMBIOS are the structures of processors, memory and the way to Redfish, one by one.
func judgedSMBIOS(t *testing.T) (list [][]byte) {
	all, err := parseSMBIOS(inspecttest.Tables(4))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if k := s.kind(); k == 16 || k == 17 || k == 42 {
			list = append(list, append(bytes.Clone(s), 0, 0))
		}
	}
	return list
}

// startTPM starts a TPM in software and returns the path of its socket. It ends when the machine closes it, or with the test.
func startTPM(t *testing.T, dir string) string {
	socket := filepath.Join(dir, "tpm")
	state := filepath.Join(dir, "tpm-state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket, "--flags", "startup-clear", "--terminate")
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			return socket
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("swtpm: no socket")
	return ""
}

// startBMC starts a BMC in software, with one address in the network, and returns the TCP port that its machine connects to. It ends with the test.
func startBMC(t *testing.T, dir string) (port string) {
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		return port
	}
	port = free()
	for name, text := range map[string]string{
		"lan.conf": "name \"judged\"\nset_working_mc 0x20\nstartlan 1\naddr 127.0.0.1 " + free() + "\npriv_limit admin\n" +
			"lan_config_program \"" + filepath.Join(dir, "lan") + " eth0\"\nendlan\nserial 15 127.0.0.1 " + port + " codec VM ipmb 0x20\n",
		"bmc.cmd": "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\n" + bmcSensors() + "mc_enable 0x20\n",
		"lan": `#!/bin/sh
# Asked "DEVICE get NAME...", as ipmi_sim_lancontrol of OpenIPMI.
shift 2
for name; do
	case $name in
	ip_addr) echo ip_addr:198.51.100.42 ;;
	ip_addr_src) echo ip_addr_src:static ;;
	mac_addr) echo mac_addr:52:54:00:4a:00:ff ;;
	subnet_mask) echo subnet_mask:255.255.255.0 ;;
	*gw_ip_addr) echo $name:198.51.100.1 ;;
	*gw_mac_addr) echo $name:52:54:00:4a:00:fe ;;
	esac
done
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "ipmi_sim", "-n", "-c", filepath.Join(dir, "lan.conf"), "-f", filepath.Join(dir, "bmc.cmd"), "-s", filepath.Join(dir, "bmc-state"))
	return port
}

// bmcSensors are commands for ipmi_sim that give the BMC sensors, with their records (IPMI 2.0, table 43-1).
func bmcSensors() string {
	var out strings.Builder
	for i, s := range []struct {
		name                             string
		kind, flags, unit, exponents, is byte
		m, b                             int
	}{
		{"CPU1 Temp", 1, 0x80, 1, 0, 0x2a, 1, 0}, {"Inlet", 1, 0x80, 1, 0, 0xfb, 1, 0}, // two's complement: -5
		{"FAN 1", 4, 0, 18, 0, 29, 100, 0}, {"12V", 2, 0, 4, 0xd1, 200, 60, -20}, {"PSU1 Power", 8, 0, 6, 0x10, 12, 2, 0},
	} {
		r := make([]byte, 48)
		r[0], r[2], r[3], r[4], r[5], r[7], r[8], r[9], r[11], r[12], r[13] = byte(i+1), 0x51, 1, byte(43+len(s.name)), 0x20, byte(i+1), 3, 1, 0x68, s.kind, 1
		r[20], r[21], r[24], r[25], r[26], r[27], r[29], r[47] = s.flags, s.unit, byte(s.m), byte(s.m>>8)<<6, byte(s.b), byte(s.b>>8)<<6, s.exponents, 0xc0|byte(len(s.name))
		fmt.Fprintf(&out, "sensor_add 0x20 0 %d %d 1\nsensor_set_value 0x20 0 %[1]d %[3]d 0\nsensor_set_event_support 0x20 0 %[1]d enable scanning per-state%[4]s\nmain_sdr_add 0x20", i+1, s.kind, s.is, strings.Repeat(" 000000000000000", 4))
		for _, b := range append(r, s.name...) {
			fmt.Fprintf(&out, " %#02x", b)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// run starts a program that ends with the test, whose output is shown if the test fails.
func run(t *testing.T, program string, args ...string) {
	cmd := exec.Command(program, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: run `make packages`", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() && said.Len() > 0 {
			t.Logf("%s: %s", program, said.String())
		}
	})
}
