// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

const (
	bootTime = 2 * time.Minute // for a slow and busy computer; it takes 5 seconds
	stepTime = time.Minute
)

// with returns m set up to boot this test binary as process 1, over the ramdisk of the tests, with an agent that plays what the script says.
func with(t *testing.T, m vmtest.Machine, script string) vmtest.Machine {
	t.Helper()
	vmtest.Require(t)
	binary := vmtest.BuildTest(t, ".")
	content := map[string]string{"init": binary}
	if strings.Contains(script, "load") {
		content["next/vmlinuz"] = vmtest.Artefact(t, "kernel/vmlinuz")
		content["next/initrd"] = vmtest.Pack(t, map[string]string{"init": binary})
	}
	m.Initrds = []string{vmtest.Artefact(t, "initramfs-virtual.cpio"), vmtest.Pack(t, content)}
	m.Cmdline = strings.TrimSpace(m.Cmdline + " quiet play=" + script)
	return m
}

func TestVMDevices(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 1440<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := func(bus string) vmtest.Disk { return vmtest.Disk{Bus: bus, Size: 1 << 20} }
	tests := []struct {
		name       string
		machine    vmtest.Machine
		block, net string
	}{
		{"nothing", vmtest.Machine{}, "", "lo"},
		{"virtio", vmtest.Machine{Disks: []vmtest.Disk{disk("virtio"), disk("scsi"), disk("scsi")}, NICs: []vmtest.NIC{{}, {}}}, "sda sdb vda", "eth0 eth1 lo"},
		{"server", vmtest.Machine{Disks: []vmtest.Disk{disk("nvme"), disk("sata")}, CD: []string{image, image}, NICs: []vmtest.NIC{{Model: "e1000e"}}}, "nvme0n1 sda sr0 sr1", "eth0 lo"},
		{"usb", vmtest.Machine{USB: image}, "sda", "lo"},
		{"floppy on pc", vmtest.Machine{Board: "pc", Floppy: image, NICs: []vmtest.NIC{{Model: "e1000"}}}, "fd0", "eth0 lo"},
		{"floppy on q35", vmtest.Machine{Floppy: image}, "fd0", "lo"},
		{"blacklisted", vmtest.Machine{Cmdline: "modprobe.blacklist=virtio_blk,virtio-net", Disks: []vmtest.Disk{disk("virtio"), disk("nvme")}, NICs: []vmtest.NIC{{}}}, "nvme0n1", "lo"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			vm := vmtest.Start(t, with(t, test.machine, "devices,poweroff"))
			if got := vm.Expect(t, `block: (.*)\.`, bootTime)[1]; got != test.block {
				t.Errorf("block devices = %q, want %q", got, test.block)
			}
			if got := vm.Expect(t, `net: (.*)\.`, stepTime)[1]; got != test.net {
				t.Errorf("network interfaces = %q, want %q", got, test.net)
			}
			if got := vm.Wait(t, stepTime); got != "guest-shutdown" {
				t.Errorf("the machine ended by %q, want guest-shutdown", got)
			}
		})
	}
}

// UEFI, whose variables are a file system in a module, and a floppy as a BMC would attach it.
func TestVMFirmware(t *testing.T) {
	var images []string
	for _, name := range []string{"floppy", "cd"} {
		image := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(image, make([]byte, 1440<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		images = append(images, image)
	}
	vm := vmtest.Start(t, with(t, vmtest.Machine{Firmware: "uefi", Floppy: images[0], CD: images[1:]}, "efi,devices,poweroff"))
	vm.Expect(t, `the firmware has variables`, bootTime)
	if got := vm.Expect(t, `block: (.*)\.`, stepTime)[1]; got != "fd0 sr0" {
		t.Errorf("block devices = %q, want fd0 and sr0", got)
	}
	if got := vm.Wait(t, stepTime); got != "guest-shutdown" {
		t.Errorf("the machine ended by %q, want guest-shutdown", got)
	}
}

func TestVMHotplug(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m := with(t, vmtest.Machine{}, "settle,watch")
	m.Extra = []string{"-device", "qemu-xhci,id=xhci", "-drive", "if=none,format=raw,id=stick,file=" + image}
	vm := vmtest.Start(t, m)
	vm.Expect(t, "settle: done", bootTime)
	vm.Monitor(t, "device_add", map[string]any{"driver": "usb-storage", "bus": "xhci.0", "drive": "stick", "id": "stick"})
	vm.Expect(t, "sda has come", stepTime)
}

func TestVMRestart(t *testing.T) {
	vm := vmtest.Start(t, with(t, vmtest.Machine{}, "fail,log,orphan,reboot"))
	vm.Expect(t, `\[ +\d+\.\d{3}\] a line without a time`, bootTime)
	vm.Expect(t, `the agent ended with exit status 3; restart 1 in 1s`, stepTime)
	vm.Expect(t, `the agent was killed by signal 9 \(killed\); restart 2 in 2s`, stepTime)
	vm.Expect(t, `fail: done`, stepTime)
	vm.Expect(t, `log has 1 times the first line of process 1, and 3 starts`, stepTime)
	vm.Expect(t, `orphan: done`, stepTime)
	if got := vm.Wait(t, stepTime); got != "guest-reset" {
		t.Errorf("the machine ended by %q, want guest-reset", got)
	}
}

// A file written shortly before the end is on the disk, and the file system is clean.
func TestVMUnmounts(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "truncate", "-s", "16M", disk)
	run(t, "mke2fs", "-q", "-t", "ext4", disk)
	vm := vmtest.Start(t, with(t, vmtest.Machine{Disks: []vmtest.Disk{{Path: disk}}}, "mount,nomodule,write,poweroff"))
	vm.Expect(t, "mount: done", bootTime)
	vm.Expect(t, "nomodule: module no-such-module is not in the ramdisk", stepTime)
	vm.Expect(t, "write: done", stepTime)
	if got := vm.Wait(t, stepTime); got != "guest-shutdown" {
		t.Errorf("the machine ended by %q, want guest-shutdown", got)
	}
	if got := run(t, "dumpe2fs", "-h", disk); !strings.Contains(got, "Filesystem state:         clean") || strings.Contains(got, "needs_recovery") {
		t.Errorf("the file system is not clean:\n%s", got)
	}
	if got := run(t, "debugfs", "-R", "cat /kept", disk); !strings.Contains(got, "kept") {
		t.Errorf("the file holds %q, want kept", got)
	}
}

// An array whose members are being brought in step does not keep the machine from going down.
func TestVMResync(t *testing.T) {
	disk := vmtest.Disk{Size: 1 << 30}
	vm := vmtest.Start(t, with(t, vmtest.Machine{Cmdline: "ignore_loglevel ironhand.shell=only", Disks: []vmtest.Disk{disk, disk, disk}}, ""))
	vm.Expect(t, "/ # ", bootTime)
	vm.Send(t, "modprobe raid456; mdadm --create /dev/md0 --run --force --level=5 --raid-devices=3 /dev/vda /dev/vdb /dev/vdc; echo made $((40+2))\n")
	vm.Expect(t, "made 42", stepTime)
	ctrlAltDel(t, vm)
	vm.Expect(t, "md0: resync interrupted", stepTime)
	if got := vm.Wait(t, stepTime); got != "guest-reset" {
		t.Errorf("the machine ended by %q, want guest-reset", got)
	}
}

func ctrlAltDel(t *testing.T, vm *vmtest.VM) {
	t.Helper()
	keys := []map[string]any{{"type": "qcode", "data": "ctrl"}, {"type": "qcode", "data": "alt"}, {"type": "qcode", "data": "delete"}}
	vm.Monitor(t, "send-key", map[string]any{"keys": keys})
}

func TestVMCtrlAltDel(t *testing.T) {
	vm := vmtest.Start(t, with(t, vmtest.Machine{}, "devices"))
	vm.Expect(t, "devices: done", bootTime)
	ctrlAltDel(t, vm)
	vm.Expect(t, "init: Ctrl-Alt-Del", stepTime)
	if got := vm.Wait(t, stepTime); got != "guest-reset" {
		t.Errorf("the machine ended by %q, want guest-reset", got)
	}
}

// Every console gets every line, and one whose port does not exist holds nothing up.
func TestVMConsoles(t *testing.T) {
	second := filepath.Join(t.TempDir(), "ttyS1")
	m := with(t, vmtest.Machine{Consoles: []string{second}, Cmdline: "console=ttyS3 console=tty0 console=ttyS1,115200n8"}, "devices,poweroff")
	vm := vmtest.Start(t, m)
	vm.Expect(t, "devices: done", bootTime)
	vm.Wait(t, stepTime)
	b, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"init: ironhand is process 1", "test: devices: done", "init: going down: power off"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("ttyS1 has no %q:\n%s", want, b)
		}
	}
}

func TestVMShell(t *testing.T) {
	tests := []struct {
		name, parameter string
		shell, agent    bool
	}{
		{"not asked for", "", false, true},
		{"beside the agent", "ironhand.shell=1", true, true},
		{"alone", "ironhand.shell=only", true, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			vm := vmtest.Start(t, with(t, vmtest.Machine{Cmdline: test.parameter}, "devices,live"))
			switch {
			case test.shell:
				for range 2 { // it comes again after its end
					vm.Expect(t, "BusyBox v", bootTime)
					vm.Expect(t, "/ # ", stepTime)
					vm.Send(t, "echo shell $((40+2))\n")
					vm.Expect(t, "shell 42", stepTime)
					vm.Send(t, "exit\n") // not in one line: the end of a session throws away what its terminal has not sent yet
				}
				if test.agent { // and the end of a shell takes the console away from nobody
					vm.Expect(t, "agent lives", stepTime)
				}
			default:
				vm.Expect(t, "devices: done", bootTime)
				vm.Send(t, "\necho shell $((40+2))\n")
				for range 2 { // which are 2 s apart
					vm.Expect(t, "agent lives", stepTime)
				}
				if strings.Contains(vm.Console(), "shell 42") {
					t.Error("there is a shell")
				}
			}
			if got := strings.Contains(vm.Console(), "test: agent"); got != test.agent {
				t.Errorf("there is an agent: %v, want %v", got, test.agent)
			}
		})
	}
}

func TestVMKexec(t *testing.T) {
	vm := vmtest.Start(t, with(t, vmtest.Machine{MemoryMiB: 768, NICs: []vmtest.NIC{{}}, Disks: []vmtest.Disk{{Size: 1 << 20}}}, "kexec,loadbroken,cankexec,load,kexec"))
	vm.Expect(t, `kexec: kexec: no kernel is loaded`, bootTime)
	vm.Expect(t, `loadbroken: load kernel: it is not a kernel image`, stepTime)
	vm.Expect(t, `cankexec: done`, stepTime)
	vm.Expect(t, `load: done`, stepTime)
	vm.Expect(t, `going down: kexec`, stepTime)
	vm.Expect(t, `agent \d+ started, parent 1, play poweroff`, bootTime)
	if got := vm.Wait(t, bootTime); got != "guest-shutdown" {
		t.Errorf("the machine ended by %q, want guest-shutdown", got)
	}
}

func TestVMKexecRefused(t *testing.T) {
	vm := vmtest.Start(t, with(t, vmtest.Machine{MemoryMiB: 768, Cmdline: "lockdown=integrity"}, "loadunsigned,disable,cankexec,load"))
	vm.Expect(t, `loadunsigned: load kernel: its signature is not by a key that the running kernel trusts.*\(integrity\), as it is with Secure Boot`, bootTime)
	vm.Expect(t, `disable: done`, stepTime)
	vm.Expect(t, `cankexec: kexec: it is disabled until the next boot`, stepTime)
	vm.Expect(t, `load: load kernel: `, stepTime)
}

// A kernel that hangs is ended by the watchdog.
func TestVMWatchdog(t *testing.T) {
	m := vmtest.Machine{MemoryMiB: 768, Extra: []string{"-device", "i6300esb", "-action", "watchdog=poweroff"}}
	vm := vmtest.Start(t, with(t, m, "disarm,arm,loadhang,kexec"))
	vm.Expect(t, `disarm: done`, bootTime)
	vm.Expect(t, `watchdog i6300ESB timer, 1m0s`, stepTime) // long enough for a slow and busy computer to start the other kernel
	vm.Expect(t, `play hang`, bootTime)
	if got := vm.Wait(t, bootTime); got == "guest-shutdown" || got == "guest-reset" {
		t.Errorf("the machine ended by %q, want the watchdog", got)
	}
}

func TestVMWatchdogRefused(t *testing.T) {
	tests := []struct{ name, parameter, play, want string }{
		{"stopped by kexec", "watchdog.stop_on_reboot=1", "arm", "arm watchdog: a kexec would stop it"},
		{"none there", "modprobe.blacklist=i6300esb", "arm,guard", "(?s)arm watchdog: open .*: no such file or directory.*guard: arm watchdog: open .*: no such file or directory"},
		{"never to be stopped", "i6300esb.nowayout=1", "guard", "guard: arm watchdog: it could never be stopped again"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			vm := vmtest.Start(t, with(t, vmtest.Machine{Cmdline: test.parameter, Extra: []string{"-device", "i6300esb"}}, test.play))
			vm.Expect(t, test.want, bootTime)
		})
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
}
