// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// emulation is what works everywhere.
const emulation = "tcg,thread=multi"

// accelerator returns QEMU's -accel: what IRONHAND_ACCEL says, else KVM where a kernel has been seen to start with it, else emulation. That /dev/kvm is there, and that
// QEMU opens it, says nothing: there are hosts where the guest then stands still. What was found is kept until the host reboots.
func accelerator() (string, error) {
	if a := os.Getenv("IRONHAND_ACCEL"); a != "" {
		return a, nil
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return emulation, nil
	} else {
		f.Close()
	}
	kernel, err := artefact("vmlinux")
	if err != nil {
		return "", err
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	cache := filepath.Join(filepath.Dir(kernel), "accel")
	if b, err := os.ReadFile(cache); err == nil {
		if id, accel, ok := strings.Cut(strings.TrimSpace(string(b)), " "); ok && id == strings.TrimSpace(string(bootID)) {
			return accel, nil
		}
	}
	accel := emulation
	if kvmWorks(kernel) {
		accel = "kvm"
	}
	// Several test binaries may do this at the same time; each writes the same, and whole.
	tmp := fmt.Sprintf("%s.%d", cache, os.Getpid())
	if err := os.WriteFile(tmp, []byte(strings.TrimSpace(string(bootID))+" "+accel+"\n"), 0o644); err != nil {
		return "", err
	}
	return accel, os.Rename(tmp, cache)
}

// kvmWorks starts a kernel under KVM and waits for its first line. That takes well below a second where it works.
func kvmWorks(kernel string) bool {
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	empty := filepath.Join(dir, "initrd")
	if os.WriteFile(empty, make([]byte, 512), 0o600) != nil {
		return false
	}
	vm, err := launch(Machine{MemoryMiB: 256, CPUs: 1}, "kvm", files{kernel: kernel, initrd: empty, monitor: filepath.Join(dir, "qmp")})
	if err != nil {
		return false
	}
	defer vm.Stop()
	match, _ := vm.await(regexp.MustCompile("Linux version"), 5*time.Second)
	return match != nil
}
