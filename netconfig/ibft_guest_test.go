// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netconfig_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/netconfig"
)

// withFirmwareTable gives a machine the ACPI table of firmware that has booted by iSCSI (iSCSI Boot Firmware Table, 1.03; struct ibft_nic and so on in
// drivers/firmware/iscsi_ibft.c of Linux): from its first NIC, in a VLAN with a fixed address, while the second one is to ask for one.
func withFirmwareTable(t *testing.T, m vmtest.Machine, files map[string]string) vmtest.Machine {
	t.Helper()
	type nic struct {
		ID, Version           uint8
		Length                uint16
		Index, Flags          uint8
		Address               [16]byte
		Prefix, Origin        uint8
		Gateway, DNS1, DNS2   [16]byte
		DHCP                  [16]byte
		VLAN                  uint16
		MAC                   [6]byte
		PCI, NameLength, Name uint16
	}
	as16 := func(text string) [16]byte { return netip.MustParseAddr(text).As16() } // IPv4 as ::ffff:...
	nics := []nic{
		{ID: 3, Version: 1, Index: 0, Flags: 3, Address: as16("192.0.2.10"), Prefix: 24, Origin: 1, Gateway: as16("192.0.2.1"), DNS1: as16("192.0.2.53"), VLAN: 100, MAC: [6]byte{0x52, 0x54, 0, 0xaa, 0xbb, 1}},
		{ID: 3, Version: 1, Index: 1, Flags: 1, Address: as16("198.51.100.10"), Prefix: 24, Origin: 3, DHCP: as16("198.51.100.2"), MAC: [6]byte{0x52, 0x54, 0, 0xaa, 0xbb, 2}},
	}
	const header, control = 48, 18
	size := binary.Size(nics[0])
	first := header + control
	table := make([]byte, header)
	copy(table, "iBFT")
	binary.LittleEndian.PutUint32(table[4:], uint32(first+2*size))
	table[8] = 1 // revision
	copy(table[10:], "IRONHD")
	copy(table[16:], "TESTTEST")
	b := bytes.NewBuffer(table)
	write := func(v any) {
		if err := binary.Write(b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	write([]uint8{1, 1, control, 0, 0, 0})
	write([]uint16{0, 0, uint16(first), 0, uint16(first + size), 0}) // extensions, initiator, NIC, target, NIC, target
	for _, n := range nics {
		n.Length = uint16(size)
		write(n)
	}
	table = b.Bytes()
	for _, one := range table {
		table[9] -= one // the sum of all is 0 then
	}
	path := filepath.Join(t.TempDir(), "ibft")
	if err := os.WriteFile(path, table, 0o600); err != nil {
		t.Fatal(err)
	}
	m.Extra = append(m.Extra, "-acpitable", "file="+path)
	modules := filepath.Join(vmtest.Artefact(t, "kernel"), "modules/kernel")
	files["test/iscsi_boot_sysfs.ko"] = filepath.Join(modules, "drivers/scsi/iscsi_boot_sysfs.ko")
	files["test/iscsi_ibft.ko"] = filepath.Join(modules, "drivers/firmware/iscsi_ibft.ko")
	return m
}

// What the kernel makes of the table is what we read.
func TestGuestFirmware(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMBondsAndVLANs")
	}
	for _, module := range []string{"iscsi_boot_sysfs.ko", "iscsi_ibft.ko"} {
		f, err := os.Open(module)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
			t.Fatalf("load %s: %v", module, err)
		}
	}
	const booted = "link 52-54-00-aa-bb-01.100: vlan 100 of 52-54-00-aa-bb-01\n  address 192.0.2.10/24\n  route default via 192.0.2.1\ndns 192.0.2.53\n"
	for line, want := range map[string]string{
		"ip=ibft":             "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\n" + booted,
		"ip=ibft rd.iscsi.mp": "link 52-54-00-aa-bb-01: physical, mac 52:54:00:aa:bb:01\nlink 52-54-00-aa-bb-02: physical, mac 52:54:00:aa:bb:02, dhcpv4\n" + booted,
	} {
		plan, from, err := netconfig.Sources{Cmdline: line, Firmware: os.DirFS("/sys/firmware/ibft")}.Plan()
		if err != nil || from != "kernel command line" || plan.String() != want {
			t.Errorf("%s: Plan() = from %q, %v\n%s\nwant\n%s", line, from, err, plan, want)
		}
	}
}
