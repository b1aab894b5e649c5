// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"fmt"
	"strconv"
	"strings"
)

// Machine is the virtual hardware, and what starts on it. The zero Machine is a PC with 512 MiB that boots the ramdisk of the tests
// directly, without firmware, and has no disk and no network.
type Machine struct {
	Firmware  string // "" none, "uefi", "secureboot" or "bios"
	Variables string // file with the UEFI variables, changed by the machine; "": fresh ones

	// Kernel and Initrds start directly, even with firmware. Kernel "" is the kernel of the tests, and "none" boots from a disk or CD. Without Initrds,
	// the ramdisk of the tests is used; several are put together.
	Kernel  string
	Initrds []string
	Cmdline string // added to baseCmdline

	Board     string // "q35" or "pc"; "" is q35
	MemoryMiB int    // 512 if 0
	CPUs      int    // 2 if 0
	Disks     []Disk
	CD        []string // images; devices cd0, cd1, ...
	Floppy    string   // image; device floppy0
	USB       string   // image of a USB stick; device usb0
	NICs      []NIC
	Consoles  []string // files that further serial ports, ttyS1 and on, write to
	Reboots   bool     // a reset starts it again; otherwise it ends the machine
	Hopeless  string   // regular expression of a whole line after which nothing comes that is waited for; "" is none
	Extra     []string // more arguments of QEMU
}

// baseCmdline is for every kernel that is started directly. The kernel's check of its timer counts ticks, and panics where an emulator without
// a processor to itself loses them.
const baseCmdline = "console=ttyS0 panic=-1 no_timer_check"

// Disk is one disk.
type Disk struct {
	Path       string // image; "": a new, empty one of Size bytes
	Size       int64
	Format     string // "raw" if empty
	Serial     string
	Bus        string // "virtio", "nvme", "scsi" or "sata"; "" is virtio
	SectorSize int    // logical and physical, in bytes; 512 if 0
	Unreadable int    // number of a sector of 512 bytes that cannot be read; 0 is none
}

// NIC is one network interface. Without a network it has no link.
type NIC struct {
	Model   string // of QEMU: "virtio-net-pci", "e1000e", ...; "" is virtio-net-pci
	MAC     string // "52:54:00:..."
	Network *Network
}

// files are the paths that a start has chosen.
type files struct {
	kernel, initrd  string
	code, variables string // of the firmware
	monitor         string // socket
}

// args returns the arguments of QEMU for a machine whose files have all been chosen.
func (m Machine) args(accel string, f files) []string {
	board := m.Board
	if board == "" {
		board = "q35"
	}
	if m.Firmware == "secureboot" {
		board += ",smm=on"
	}
	a := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", board, "-accel", accel, "-cpu", "max",
		"-m", strconv.Itoa(or(m.MemoryMiB, 512)), "-smp", strconv.Itoa(or(m.CPUs, 2)),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-qmp", "unix:" + f.monitor + ",server=on,wait=off",
	}
	for _, file := range m.Consoles {
		a = append(a, "-serial", "file:"+quote(file))
	}
	if !m.Reboots {
		a = append(a, "-no-reboot")
	}
	if f.code != "" {
		a = append(a, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+quote(f.code), "-drive", "if=pflash,format=raw,unit=1,file="+quote(f.variables))
	}
	if m.Firmware == "secureboot" {
		a = append(a, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	if f.kernel != "" {
		a = append(a, "-kernel", f.kernel, "-initrd", f.initrd, "-append", strings.TrimSpace(baseCmdline+" "+m.Cmdline))
	}
	ide := 0 // devices on the board's own controller
	scsi := false
	for i, d := range m.Disks {
		if d.Bus == "scsi" && !scsi {
			scsi = true
			a = append(a, "-device", "virtio-scsi-pci,id=scsi")
		}
		place := ""
		if d.Bus == "sata" {
			place = m.place(ide)
			ide++
		}
		a = append(a, d.args(i, place)...)
	}
	for i, image := range m.CD {
		id := fmt.Sprintf("cd%d", i)
		a = append(a, "-drive", "if=none,media=cdrom,readonly=on,format=raw,id="+id+"-drive,file="+quote(image), "-device", "ide-cd"+m.place(ide)+",id="+id+",drive="+id+"-drive")
		ide++
	}
	if m.Floppy != "" {
		a = append(a, "-drive", "if=none,format=raw,id=floppy0-drive,file="+quote(m.Floppy))
		if m.Board == "pc" {
			a = append(a, "-device", "floppy,id=floppy0,drive=floppy0-drive")
		} else {
			a = append(a, "-device", "isa-fdc,id=fdc", "-device", "floppy,id=floppy0,bus=fdc.0,drive=floppy0-drive")
		}
	}
	if m.USB != "" {
		a = append(a, "-device", "qemu-xhci,id=xhci", "-drive", "if=none,format=raw,id=usb0-drive,file="+quote(m.USB), "-device", "usb-storage,id=usb0,bus=xhci.0,removable=on,drive=usb0-drive")
	}
	for i, n := range m.NICs {
		a = append(a, n.args(i)...)
	}
	return append(a, m.Extra...)
}

// place is where the n-th device goes on the board's own controller: AHCI with six ports of one device, or IDE with two of two.
func (m Machine) place(n int) string {
	if m.Board == "pc" {
		return fmt.Sprintf(",bus=ide.%d,unit=%d", n/2, n%2)
	}
	return fmt.Sprintf(",bus=ide.%d", n)
}

func (d Disk) args(i int, place string) []string {
	id := fmt.Sprintf("disk%d", i)
	format := d.Format
	if format == "" {
		format = "raw"
	}
	file := "file=" + quote(d.Path)
	if d.Unreadable != 0 {
		file = fmt.Sprintf("file.driver=blkdebug,file.image.driver=file,file.image.filename=%s,file.inject-error.0.event=read_aio,file.inject-error.0.errno=5,file.inject-error.0.sector=%d",
			quote(d.Path), d.Unreadable)
	}
	a := []string{"-drive", fmt.Sprintf("if=none,cache=unsafe,discard=unmap,format=%s,id=%s-drive,%s", format, id, file)}
	device := "virtio-blk-pci"
	switch d.Bus {
	case "nvme":
		device = "nvme"
	case "scsi":
		device = "scsi-hd"
	case "sata":
		device = "ide-hd"
	}
	device += place + ",id=" + id + ",drive=" + id + "-drive"
	switch {
	case d.Serial != "":
		device += ",serial=" + quote(d.Serial)
	case d.Bus == "nvme":
		device += ",serial=" + id // must have one
	}
	if d.SectorSize != 0 {
		device += fmt.Sprintf(",logical_block_size=%d,physical_block_size=%[1]d", d.SectorSize)
	}
	return append(a, "-device", device)
}

func (n NIC) args(i int) []string {
	id := fmt.Sprintf("nic%d", i)
	backend := fmt.Sprintf("hubport,id=%s-net,hubid=%d", id, i)
	if n.Network != nil {
		backend = fmt.Sprintf("tap,id=%s-net,ifname=%s,script=no,downscript=no", id, n.Network.Tap)
	}
	model := n.Model
	if model == "" {
		model = "virtio-net-pci"
	}
	device := model + ",id=" + id + ",netdev=" + id + "-net,romfile="
	if n.MAC != "" {
		device += ",mac=" + n.MAC
	}
	return []string{"-netdev", backend, "-device", device}
}

// quote doubles commas, as QEMU wants them in values.
func quote(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func or(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}
