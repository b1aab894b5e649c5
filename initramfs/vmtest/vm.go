// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const qemu = "qemu-system-x86_64"

// VM is a running machine.
type VM struct {
	Disks []string // the images of Machine.Disks, chosen or made

	cmd      *exec.Cmd
	console  *console
	hopeless *regexp.Regexp // nil is none
	input    io.WriteCloser
	monitor  *monitor
	stderr   *bytes.Buffer // readable when ended is closed
	ended    chan struct{}
	err      error // of the process; readable when ended is closed
}

// Start starts a machine. When the test ends the machine ends; if the test failed, the end of the console is printed, and where all of it is.
func Start(t testing.TB, m Machine) *VM {
	t.Helper()
	vm, err := start(t, m)
	if err != nil {
		t.Fatalf("start machine: %v", err)
	}
	t.Cleanup(func() {
		vm.Stop()
		if t.Failed() {
			vm.report(t)
		}
	})
	return vm
}

func start(t testing.TB, m Machine) (*VM, error) {
	// A temporary directory of its own: the path of a socket has at most 107 bytes, and t.TempDir has the test's name in it.
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f, err := m.choose(dir)
	if err != nil {
		return nil, err
	}
	accel, err := accelerator()
	if err != nil {
		return nil, err
	}
	return launch(m, accel, f)
}

// choose fills in the files that m leaves open, and makes those that are needed in dir.
func (m *Machine) choose(dir string) (files, error) {
	f := files{monitor: filepath.Join(dir, "qmp")}
	var err error
	switch m.Firmware {
	case "", "bios":
	case "uefi", "secureboot":
		code, vars := "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"
		if m.Firmware == "secureboot" {
			code, vars = "OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"
		}
		const ovmf = "/usr/share/OVMF" // Debian package ovmf
		f.code, f.variables = filepath.Join(ovmf, code), m.Variables
		if f.variables == "" {
			f.variables = filepath.Join(dir, "variables")
			if err := join(f.variables, filepath.Join(ovmf, vars)); err != nil {
				return f, err
			}
		}
	default:
		return f, fmt.Errorf("firmware %q is none of uefi, secureboot, bios", m.Firmware)
	}
	if m.Kernel != "none" {
		if err := m.chooseKernel(&f, dir); err != nil {
			return f, err
		}
	}
	m.Disks = append([]Disk(nil), m.Disks...)
	for i := range m.Disks {
		d := &m.Disks[i]
		if d.Path != "" {
			continue
		}
		d.Path = filepath.Join(dir, fmt.Sprintf("disk%d", i))
		if err = os.WriteFile(d.Path, nil, 0o600); err == nil {
			err = os.Truncate(d.Path, d.Size)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

func (m *Machine) chooseKernel(f *files, dir string) (err error) {
	f.kernel = m.Kernel
	if f.kernel == "" {
		name := "vmlinux" // starts by PVH, with nothing to unpack
		if m.Firmware != "" {
			name = "kernel/vmlinuz"
		}
		if f.kernel, err = artefact(name); err != nil {
			return err
		}
	}
	initrds := m.Initrds
	if len(initrds) == 0 {
		base, err := artefact("initramfs-virtual.cpio")
		if err != nil {
			return err
		}
		initrds = []string{base}
	}
	f.initrd = initrds[0]
	if len(initrds) > 1 {
		f.initrd = filepath.Join(dir, "initrd")
		return join(f.initrd, initrds...)
	}
	return nil
}

// join writes the files in parts one after the other to a new file, each beginning at a multiple of 4 bytes.
func join(to string, parts ...string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	var size int64
	for _, part := range parts {
		in, err := os.Open(part)
		if err != nil {
			return err
		}
		if _, err := out.Seek(size, io.SeekStart); err != nil {
			in.Close()
			return err
		}
		n, err := io.Copy(out, in)
		in.Close() // only read
		if err != nil {
			return err
		}
		size = (size + n + 3) &^ 3
	}
	return out.Truncate(size)
}

// launch runs QEMU. Its process dies with ours.
func launch(m Machine, accel string, f files) (*VM, error) {
	vm := &VM{console: newConsole(), stderr: new(bytes.Buffer), ended: make(chan struct{})}
	if m.Hopeless != "" {
		vm.hopeless = regexp.MustCompile(m.Hopeless)
	}
	for _, d := range m.Disks {
		vm.Disks = append(vm.Disks, d.Path)
	}
	vm.cmd = exec.Command(qemu, m.args(accel, f)...)
	vm.cmd.Stdout, vm.cmd.Stderr = vm.console, vm.stderr
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if vm.input, err = vm.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	started := make(chan error)
	go func() {
		// The signal comes when the thread dies that started the process, so this one has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := vm.cmd.Start()
		started <- err
		if err == nil {
			vm.err = vm.cmd.Wait()
			close(vm.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if vm.monitor, err = dialMonitor(f.monitor); err == nil {
			return vm, nil
		}
		select {
		case <-vm.ended:
			return nil, fmt.Errorf("%s: %w: %s", qemu, vm.err, tail(vm.stderr.String(), 10))
		default:
		}
		if time.Since(began) > time.Minute {
			vm.Stop()
			return nil, fmt.Errorf("monitor of %s: %w", qemu, err)
		}
	}
}

// Expect waits until the console shows a match of the regular expression after the one found last, and returns it with its groups. If none comes in time,
// if the machine ends before, or a line comes that is Machine.Hopeless and not what is waited for, the test fails with the last lines. Text comes in pieces, and $ matches at the end of a piece: what is to be read to the end of
// its line has to end with \n.
func (vm *VM) Expect(t testing.TB, expr string, timeout time.Duration) []string {
	t.Helper()
	match, why := vm.await(regexp.MustCompile(expr), timeout)
	if match == nil {
		t.Fatalf("no %q on the console: %s", expr, why)
	}
	return match
}

func (vm *VM) await(re *regexp.Regexp, timeout time.Duration) (match []string, why string) {
	late := time.After(timeout)
	for {
		hopeless := vm.console.shows(vm.hopeless) // before the look: what comes between the two is looked at again
		match, more := vm.console.find(re)
		if match != nil {
			return match, ""
		}
		if hopeless != "" {
			return nil, "it says " + strings.TrimSpace(hopeless)
		}
		select {
		case <-more:
		case <-vm.ended:
			// What came last may have come after the look.
			if match, _ := vm.console.find(re); match != nil {
				return match, ""
			}
			return nil, "the machine has ended"
		case <-late:
			return nil, fmt.Sprintf("not within %v", timeout)
		}
	}
}

// Send types on the console.
func (vm *VM) Send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(vm.input, text); err != nil {
		t.Fatalf("type on the console: %v", err)
	}
}

// Console returns all that the console has shown, without colours and the like.
func (vm *VM) Console() string { return vm.console.String() }

// Monitor gives QEMU an order over QMP, such as "eject" with {"id": "cd0"}, "device_del" with {"id": "usb0"}, "set_link" with {"name": "nic0", "up": false},
// "system_reset" or "quit".
func (vm *VM) Monitor(t testing.TB, command string, args map[string]any) json.RawMessage {
	t.Helper()
	answer, err := vm.monitor.execute(command, args)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// Wait waits until the machine has ended and returns why: "guest-shutdown" (power off), "guest-reset" (reboot, unless Machine.Reboots), or another reason of
// QEMU's. A machine that runs on, or a QEMU that failed, fails the test.
func (vm *VM) Wait(t testing.TB, timeout time.Duration) string {
	t.Helper()
	select {
	case <-vm.ended:
	case <-time.After(timeout):
		t.Fatalf("the machine still runs after %v", timeout)
	}
	if vm.err != nil {
		t.Fatalf("%s: %v: %s", qemu, vm.err, tail(vm.stderr.String(), 10))
	}
	return vm.monitor.why()
}

// Ended tells whether the machine has ended.
func (vm *VM) Ended() bool {
	select {
	case <-vm.ended:
		return true
	default:
		return false
	}
}

// Stop ends the machine, as pulling the plug does, and waits for that.
func (vm *VM) Stop() {
	_ = vm.cmd.Process.Kill() // it may have ended
	<-vm.ended
}

// report prints the end of the console, and keeps all of it.
func (vm *VM) report(t testing.TB) {
	where := ""
	if f, err := os.CreateTemp("", "console-*.log"); err == nil {
		_, err = f.WriteString(vm.Console())
		if f.Close() == nil && err == nil {
			where = " (all of it: " + f.Name() + ")"
		}
	}
	t.Logf("the end of the console%s:\n%s", where, tail(vm.Console(), 60))
	if vm.stderr.Len() > 0 {
		t.Logf("%s says:\n%s", qemu, tail(vm.stderr.String(), 10))
	}
}
