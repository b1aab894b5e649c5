// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const bootTime = 2 * time.Minute // for a slow and busy computer

var never = regexp.MustCompile("this line never comes")

func TestArgs(t *testing.T) {
	tests := []struct {
		name    string
		machine Machine
		files   files
		want    []string // each in the arguments, in this order
		not     string
	}{
		{"nothing", Machine{}, files{kernel: "K", initrd: "I", monitor: "M"},
			[]string{"-machine q35 ", "-accel A ", "-m 512 -smp 2 ", "-qmp unix:M,", "-no-reboot ", "-kernel K -initrd I -append console=ttyS0 panic=-1 no_timer_check"}, "-device"},
		{"from a disk", Machine{Kernel: "none", Reboots: true, MemoryMiB: 96, CPUs: 1}, files{}, []string{"-m 96 -smp 1 "}, "-kernel"},
		{"reboots", Machine{Reboots: true}, files{}, nil, "-no-reboot"},
		{"firmware", Machine{Firmware: "uefi"}, files{code: "C", variables: "V,1"}, []string{"unit=0,readonly=on,file=C ", "unit=1,file=V,,1"}, "smm"},
		{"secure boot", Machine{Firmware: "secureboot"}, files{code: "C", variables: "V"}, []string{"-machine q35,smm=on ", "property=secure,value=on"}, "-kernel"},
		{"disks", Machine{Disks: []Disk{{Path: "0"}, {Path: "1", Bus: "nvme"}, {Path: "2", Bus: "scsi", Serial: "S"}, {Path: "3", Bus: "scsi", SectorSize: 4096}, {Path: "4", Bus: "sata", Format: "qcow2"}, {Path: "6,", Unreadable: 7}}, CD: []string{"5"}}, files{},
			[]string{"format=raw,id=disk0-drive,file=0 -device virtio-blk-pci,id=disk0,", "-device nvme,id=disk1,drive=disk1-drive,serial=disk1 ",
				"-device virtio-scsi-pci,id=scsi ", "-device scsi-hd,id=disk2,drive=disk2-drive,serial=S ",
				"-device scsi-hd,id=disk3,drive=disk3-drive,logical_block_size=4096,physical_block_size=4096 ",
				"format=qcow2", "-device ide-hd,bus=ide.0,id=disk4", "format=raw,id=disk5-drive,file.driver=blkdebug,file.image.driver=file,file.image.filename=6,,,file.inject-error.0.event=read_aio,file.inject-error.0.errno=5,file.inject-error.0.sector=7 ", "-device ide-cd,bus=ide.1,id=cd0"}, "virtio-scsi-pci,id=scsi -device virtio-scsi"},
		{"pc", Machine{Board: "pc", CD: []string{"0", "1", "2"}, Floppy: "F"}, files{},
			[]string{"bus=ide.0,unit=0,id=cd0", "bus=ide.0,unit=1,id=cd1", "bus=ide.1,unit=0,id=cd2", "file=F -device floppy,id=floppy0,drive"}, "isa-fdc"},
		{"floppy on q35", Machine{Floppy: "F"}, files{}, []string{"-device isa-fdc,id=fdc -device floppy,id=floppy0,bus=fdc.0"}, ""},
		{"nics", Machine{NICs: []NIC{{}, {Model: "e1000e", MAC: "52:54:00:00:00:01", Network: &Network{Tap: "tap7"}}}}, files{},
			[]string{"hubport,id=nic0-net,hubid=0 -device virtio-net-pci,id=nic0,", "tap,id=nic1-net,ifname=tap7,script=no,downscript=no -device e1000e,id=nic1,netdev=nic1-net,romfile=,mac=52:54:00:00:00:01"}, ""},
		{"usb and more", Machine{USB: "U", Consoles: []string{"C"}, Extra: []string{"-s"}}, files{}, []string{"-serial chardev:console ", "-serial file:C ", "-device usb-storage,id=usb0,bus=xhci.0", " -s"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := strings.Join(test.machine.args("A", test.files), " ") + " "
			rest := got
			for _, want := range test.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("arguments %s\nlack %q, or have it elsewhere", got, want)
				}
				rest = after
			}
			if test.not != "" && strings.Contains(got, test.not) {
				t.Errorf("arguments %s\nhave %q", got, test.not)
			}
		})
	}
}

func TestConsole(t *testing.T) {
	tests := []struct {
		name, expr string
		want       string
	}{
		{"first", "a(.)", "a1|1"},
		{"goes on behind it", "a(.)", "a2|2"},
		{"a group that is not there", "a3(x)?", "a3|"},
		{"not twice", "a1", ""},
		{"colours are taken out", "(?m)^red$", "red"},
		{"by lines", "(?m)^last$", "last"},
	}
	c := newConsole()
	for _, part := range []string{"a1 a", "2\r\na3\r\n\x1b[1", ";31mred\x1b[0m\n\x1bcla", "st\n"} {
		if _, err := c.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			match, _ := c.find(regexp.MustCompile(test.expr))
			if got := strings.Join(match, "|"); got != test.want {
				t.Errorf("find(%s) = %q, want %q", test.expr, got, test.want)
			}
		})
	}
	if got, want := c.String(), "a1 a2\na3\nred\nlast\n"; got != want {
		t.Errorf("the console shows %q, want %q", got, want)
	}
	if got := tail(c.String(), 2); got != "red\nlast" {
		t.Errorf("tail = %q, want the last two lines", got)
	}
}

func TestAwait(t *testing.T) {
	tests := []struct {
		name string
		do   func(vm *VM)
		want string // the match, or why there is none
	}{
		{"comes later", func(vm *VM) { time.Sleep(time.Second); io.WriteString(vm.console, "x yes\n") }, "yes"},
		{"never comes", func(vm *VM) { io.WriteString(vm.console, "no\n") }, "not within 1m0s"},
		{"the machine ends", func(vm *VM) { io.WriteString(vm.console, "no\n"); close(vm.ended) }, "the machine has ended"},
		{"the last word", func(vm *VM) { io.WriteString(vm.console, "yes\n"); close(vm.ended) }, "yes"},
		{"hopeless", func(vm *VM) { io.WriteString(vm.console, "no\nstep: a FAILED: no\nstep") }, "it says step: a FAILED: no"},
		{"hopeless, in pieces", func(vm *VM) {
			io.WriteString(vm.console, "step: a FAILED: ")
			time.Sleep(time.Second)
			io.WriteString(vm.console, "is it? yes\n")
		}, "yes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vm := &VM{console: newConsole(), hopeless: regexp.MustCompile(`step: \w+ FAILED.*\n`), ended: make(chan struct{})}
				go test.do(vm)
				match, got := vm.await(regexp.MustCompile("yes"), time.Minute)
				if match != nil {
					got = match[0]
				}
				if got != test.want {
					t.Errorf("await = %q, want %q", got, test.want)
				}
			})
		})
	}
}

func TestChooseRefuses(t *testing.T) {
	t.Setenv("IRONHAND_BUILD", t.TempDir())
	tests := []struct {
		name    string
		machine Machine
		want    string
	}{
		{"no kernel", Machine{}, "run `make ramdisk`"},
		{"unknown firmware", Machine{Firmware: "coreboot"}, `firmware "coreboot" is none of`},
		{"no such archive", Machine{Kernel: "k", Initrds: []string{"/nonexistent", "/nonexistent"}}, "/nonexistent: no such file"},
		{"no such size", Machine{Kernel: "none", Disks: []Disk{{Size: -1}}}, "invalid argument"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.machine.choose(t.TempDir())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("choose = %v, want %s", err, test.want)
			}
		})
	}
}

// cpio is the judge of our archives, alone and put together.
func TestPack(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("needs cpio: run `make packages`")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"one": "1", "two": "22222"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	archive := Pack(t, map[string]string{"init": filepath.Join(dir, "one"), "a/b/tree": dir, "a/b/c": filepath.Join(dir, "two")})
	both := filepath.Join(t.TempDir(), "both")
	if err := join(both, filepath.Join(dir, "one"), archive); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(both)
	if err != nil || len(b)%4 != 0 || string(b[:4]) != "1\x00\x00\x00" {
		t.Fatalf("put together: %d bytes, beginning %q, %v", len(b), b[:4], err)
	}
	cmd := exec.Command(cpio, "-t", "--quiet")
	cmd.Stdin = strings.NewReader(string(b[4:]))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	if got, want := strings.Join(strings.Fields(string(out)), " "), "a a/b a/b/c a/b/tree a/b/tree/one a/b/tree/two init"; got != want {
		t.Errorf("the archive has %s, want %s", got, want)
	}
}
