// SPDX-License-Identifier: Apache-2.0

package inspecttest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing/fstest"
)

// Server makes the files of a large server: 2 sockets, 32 memory modules, 24 disks (20 SAS in an enclosure, 4 NVMe), 8 interfaces, a BMC with IPMI and
// a Redfish host interface, a TPM, a GPU, memory on CXL. They are written after sysfs of Linux 6.1; serial numbers are made up.
func Server() fstest.MapFS {
	s := server{files: fstest.MapFS{}}
	s.system()
	s.processors(2, 16)
	for i := range 20 {
		s.sas(i)
	}
	for i := range 4 {
		s.nvme(i)
	}
	for i := range 8 {
		s.nic(i)
	}
	s.bmc()
	s.cxl()
	var text strings.Builder
	for i := range 8 {
		fmt.Fprintf(&text, "%d 192.0.2.%d/24\n%d fe80::3eec:efff:fe00:%x/64\n", 10+i, 10+i, 10+i, i)
	}
	s.file("answers/addresses", text.String())
	return s.files
}

type server struct{ files fstest.MapFS }

func (s server) file(name, contents string) {
	s.files[name] = &fstest.MapFile{Mode: 0o444, Data: []byte(contents)}
}

// link makes a link as sysfs does: relative.
func (s server) link(name, target string) {
	up := strings.Repeat("../", strings.Count(path.Dir(name), "/")+1)
	s.files[name] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(up + target)}
}

// some makes files of one directory, of pairs of name and contents without line feed.
func (s server) some(dir string, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		s.file(dir+"/"+pairs[i], pairs[i+1]+"\n")
	}
}

func (s server) pci(address, vendor, device, class string, node int) string {
	dir := "sys/devices/pci0000:00/" + address
	s.some(dir, "vendor", "0x"+vendor, "device", "0x"+device, "class", "0x"+class, "revision", "0x01", "numa_node", fmt.Sprint(node))
	s.link("sys/bus/pci/devices/"+address, dir)
	s.link(dir+"/subsystem", "sys/bus/pci")
	return dir
}

func (s server) system() {
	s.some("proc/sys/kernel", "hostname", "rack7-u12", "arch", "x86_64")
	s.file("proc/cmdline", "BOOTIF=01-3c-ec-ef-00-00-00 quiet\n")
	s.file("proc/meminfo", "MemTotal:       1056470000 kB\nMemAvailable:   1040000000 kB\n")
	s.some("sys/devices/virtual/dmi/id", "sys_vendor", "Example", "product_name", "Big 2U", "product_serial", "SYS0001",
		"product_sku", "", "bios_vendor", "Example", "bios_version", "3.4.1", "bios_date", "06/04/2026",
		"product_uuid", "4c4c4544-0042-4310-8031-c2c04f313233")
	s.file("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\x06\x00\x00\x00\x01")
	s.file("sys/firmware/dmi/tables/DMI", string(Tables(32)))
	tpm := "sys/devices/platform/MSFT0101:00/tpm/tpm0"
	s.link("sys/class/tpm/tpm0", tpm)
	s.some(tpm, "tpm_version_major", "2")
	s.link(tpm+"/device", "sys/devices/platform/MSFT0101:00")
	s.file(tpm+"/pcr-sha1/0", "00\n")
	s.file(tpm+"/pcr-sha256/0", "00\n")
	usb := "sys/devices/pci0000:00/0000:00:14.0/usb1/1-4"
	s.link("sys/bus/usb/devices/1-4", usb)
	s.some(usb, "idVendor", "046b", "idProduct", "ff10", "manufacturer", "American Megatrends Inc.", "product", "Virtual Keyboard and Mouse",
		"busnum", "1", "devnum", "3", "bDeviceClass", "00")
	s.pci("0000:b0:00.0", "10de", "20b5", "030200", 1)
	s.pci("0000:03:00.0", "1a03", "2000", "030000", 0) // the BMC's display
}

func (s server) processors(sockets, cores int) {
	var info strings.Builder
	threads := sockets * cores * 2
	fmt.Fprintf(&info, "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6346 CPU @ 3.10GHz\nmicrocode\t: 0xd000390\n"+
		"cpu MHz\t\t: 3100.000\nflags\t\t: fpu vme lm sse4_2 avx512f\n\n")
	s.file("proc/cpuinfo", info.String())
	s.file("sys/devices/system/cpu/present", fmt.Sprintf("0-%d\n", threads-1))
	for i := range threads {
		socket, core := i/cores%sockets, i%cores
		dir := fmt.Sprintf("sys/devices/system/cpu/cpu%d", i)
		s.some(dir, "topology/physical_package_id", fmt.Sprint(socket), "topology/core_id", fmt.Sprint(core), "topology/die_id", "0", "cpufreq/cpuinfo_max_freq", "3600000")
		s.link(fmt.Sprintf("sys/devices/system/node/node%d/cpu%d", socket, i), dir)
	}
	for i := range sockets {
		s.file(fmt.Sprintf("sys/devices/system/node/node%d/meminfo", i), fmt.Sprintf("Node %d MemTotal:       528235000 kB\nNode %d MemFree: 1 kB\n", i, i))
	}
}

// block makes what all disks have.
func (s server) block(dir, name string, sectors int64, rotational string) {
	s.link("sys/block/"+name, dir)
	s.some(dir, "size", fmt.Sprint(sectors), "ro", "0", "removable", "0", "hidden", "0",
		"queue/rotational", rotational, "queue/logical_block_size", "512", "queue/physical_block_size", "4096")
}

func (s server) sas(i int) {
	name := "sd" + string(rune('a'+i))
	hba := s.pci("0000:18:00.0", "1000", "00af", "010700", 0)
	expander := fmt.Sprintf("%s/host0/port-0:0/expander-0:0/port-0:0:%d", hba, i)
	end := fmt.Sprintf("%s/end_device-0:0:%d", expander, i)
	address := fmt.Sprintf("0:0:%d:0", i)
	device := fmt.Sprintf("%s/target0:0:%d/%s", end, i, address)
	s.link(device+"/subsystem", "sys/bus/scsi")
	s.some(device, "vendor", "SEAGATE", "model", "ST16000NM002G   ", "rev", "E004", "type", "0")
	s.file(device+"/scsi_device/"+address+"/uevent", "")
	s.file(device+"/sas_device", "")
	s.link(device+"/enclosure_device:Slot "+fmt.Sprintf("%02d", i), "sys/class/enclosure/0:0:24:0/Slot")
	serial := fmt.Sprintf("ZL2%05d0000C1234567", i)
	s.file(device+"/vpd_pg80", "\x00\x80\x00"+string(rune(len(serial)))+serial)
	wwn := binary.BigEndian.AppendUint64(nil, 0x5000c500a1b20000+uint64(i)<<4)
	s.file(device+"/vpd_pg83", "\x00\x83\x00\x0c\x01\x03\x00\x08"+string(wwn))
	s.file(device+"/wwid", fmt.Sprintf("naa.%x\n", wwn))
	s.some("sys/class/sas_port/port-0:0:"+fmt.Sprint(i), "num_phys", "1")
	s.some(fmt.Sprintf("sys/class/sas_device/end_device-0:0:%d", i), "phy_identifier", fmt.Sprint(i), "sas_address", fmt.Sprintf("0x%x", wwn))
	s.some("sys/class/sas_device/expander-0:0", "sas_address", "0x500056b3c1d2e3ff")
	s.some("sys/class/scsi_host/host0", "proc_name", "mpt3sas")
	s.file("sys/class/sas_host/host0/uevent", "")
	dir := device + "/block/" + name
	s.block(dir, name, 31251759104, "1")
	s.link(dir+"/device", device)
}

func (s server) nvme(i int) {
	address := fmt.Sprintf("0000:%02x:00.0", 0x60+i)
	controller := fmt.Sprintf("%s/nvme/nvme%d", s.pci(address, "144d", "a824", "010802", 1), i)
	s.some(controller, "model", "SAMSUNG MZWLR3T8HBLS-00007", "serial", fmt.Sprintf("S6EWNA0R%06d", i), "firmware_rev", "MPK92B5Q")
	s.link(controller+"/device", "sys/devices/pci0000:00/"+address)
	s.link(controller+"/subsystem", "sys/class/nvme")
	s.some(fmt.Sprintf("sys/bus/pci/slots/%d", 40+i), "address", strings.TrimSuffix(address, ".0"))
	name := fmt.Sprintf("nvme%dn1", i)
	dir := controller + "/" + name
	s.block(dir, name, 7501476528, "0")
	s.some(dir, "wwid", fmt.Sprintf("eui.3634573052%014d", i), "nsid", "1")
	s.link(dir+"/device", controller)
}

func (s server) nic(i int) {
	name := fmt.Sprintf("ens%d", i)
	device := s.pci(fmt.Sprintf("0000:3d:00.%d", i), "8086", "1572", "020000", i/4)
	s.link(device+"/driver", "sys/bus/pci/drivers/i40e")
	dir := device + "/net/" + name
	s.link("sys/class/net/"+name, dir)
	s.link(dir+"/device", device)
	mac := []byte{0x3c, 0xec, 0xef, 0, 0, byte(i)}
	s.some(dir, "address", fmt.Sprintf("%x:%x:%x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]), "carrier", "1", "speed", "10000", "ifindex", fmt.Sprint(10+i))
	s.file("answers/nic/"+name+"/permanent-mac", string(mac))
	driver := make([]byte, 196) // struct ethtool_drvinfo
	copy(driver[4:], "i40e")
	copy(driver[68:], "9.20 0x8000d95e 22.0.9")
	s.file("answers/nic/"+name+"/driver", string(driver))
	s.file("answers/nic/"+name+"/modes", "\x00\x10\x00\x80\x03\x00\x00\x00") // 10000baseT, 25000baseCR, KR, SR
}

// cxl is a memory device of 256 GiB.
func (s server) cxl() {
	memory := s.pci("0000:c1:00.0", "8086", "0d93", "050210", 1) + "/mem0"
	s.link("sys/bus/cxl/devices/mem0", memory)
	s.link("sys/bus/cxl/devices/root0", "sys/devices/platform/ACPI0017:00/root0")
	s.some(memory, "serial", "0x1122334455", "firmware_version", "1.0.7", "ram/size", "0x4000000000", "pmem/size", "0x0", "numa_node", "1")
}

// bmc answers on channel 1, and refuses all others.
func (s server) bmc() {
	s.file("sys/class/ipmi/ipmi0/dev", "241:0\n")
	for channel := 1; channel <= 11; channel++ {
		info := "\xcc"
		if channel == 1 {
			info = "\x00\x01\x04\x01\x80\xf2\x1b\x00\x00\x00"
		}
		s.file(fmt.Sprintf("answers/ipmi/0642%02x", channel), info)
	}
	v6 := "\x00\x11\x00\x02" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + "\x40\x00" // DHCPv6
	for request, answer := range map[string]string{
		"0c0201030000": "\x00\x11\xc6\x33\x64\x07",         // 198.51.100.7
		"0c0201050000": "\x00\x11\xaa\xbb\xcc\xdd\xee\xff", // MAC
		"0c0201330000": "\x00\x11\x02",                     // IPv4 and IPv6
		"0c0201370000": "\x00\x11\x01\x01\x00",             // one address of each kind
		"0c02013b0000": v6,
	} {
		s.file("answers/ipmi/"+request, answer)
	}
}

// Tables makes SMBIOS tables of a server with so many memory modules of 32 GiB, and a Redfish host interface.
func Tables(modules int) []byte {
	var out bytes.Buffer
	handle := uint16(0)
	add := func(kind byte, fields []byte, texts ...string) uint16 {
		handle++
		out.Write([]byte{kind, byte(4 + len(fields)), byte(handle), byte(handle >> 8)})
		out.Write(fields)
		for _, t := range texts {
			out.WriteString(t + "\x00")
		}
		if len(texts) == 0 {
			out.WriteByte(0)
		}
		out.WriteByte(0)
		return handle
	}
	bios := make([]byte, 0x1a-4)
	copy(bios, []byte{1, 2, 0x00, 0xf0, 3, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 3, 8, 3, 4, 0xff, 0xff, 32, 0})
	add(0, bios, "Example", "3.4.1", "06/04/2026")
	for i := range 2 {
		cpu := make([]byte, 0x30-4)
		copy(cpu, []byte{1, 3, 0xb3, 2, 0xa6, 0x06, 0x06, 0, 0xff, 0xfb, 0xeb, 0xbf, 3, 0x90, 100, 0, 0x10, 0x0e, 0x1c, 0x0c, 0x41, 0x2b,
			0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 16, 16, 32, 0xfc, 0, 0xb3, 0, 16, 0, 16, 0, 32, 0})
		add(4, cpu, fmt.Sprintf("CPU%d", i+1), "Intel(R) Corporation", "Intel(R) Xeon(R) Gold 6346 CPU @ 3.10GHz")
	}
	array := make([]byte, 0x17-4)
	copy(array, []byte{3, 3, 6, 0, 0, 0, 0x80, 0xfe, 0xff, byte(modules), 0})
	binary.LittleEndian.PutUint64(array[0x0f-4:], 4<<40)
	in := add(16, array)
	for i := range modules {
		m := make([]byte, 0x5c-4)
		copy(m, []byte{byte(in), byte(in >> 8), 0xfe, 0xff, 72, 0, 64, 0, 0xff, 0x7f, 9, 0, 1, 2, 0x1a, 0x80, 0x20, 0x80, 0x0c, 3, 4, 0, 5, 2})
		binary.LittleEndian.PutUint32(m[0x1c-4:], 32<<10)
		binary.LittleEndian.PutUint16(m[0x20-4:], 2933)
		add(17, m, fmt.Sprintf("DIMM %c%d", 'A'+i/2, i%2+1), fmt.Sprintf("NODE %d", i/16), "Samsung", fmt.Sprintf("03B7%04X", 0x1234+i), "M393A4K40DB3-CWE")
	}
	redfish := make([]byte, 91)
	redfish[16], redfish[17] = 1, 1
	copy(redfish[18:], []byte{169, 254, 0, 17})
	copy(redfish[34:], []byte{255, 255, 0, 0})
	redfish[50], redfish[51] = 1, 1
	copy(redfish[52:], []byte{169, 254, 0, 16})
	copy(redfish[68:], []byte{255, 255, 0, 0})
	binary.LittleEndian.PutUint16(redfish[84:], 443)
	redfish[90] = 4
	redfish = append(redfish, "bmc1"...)
	device := []byte{4, 13, 0x6b, 0x04, 0xb0, 0xff, 0, 0x3c, 0xec, 0xef, 0, 0xff, 1}
	add(42, append(append(append([]byte{0x40, byte(len(device))}, device...), 1, 4, byte(len(redfish))), redfish...))
	add(127, nil)
	return out.Bytes()
}
