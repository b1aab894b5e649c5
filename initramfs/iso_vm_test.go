// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/image/volume"
	"github.com/ironhand/ironhand/initramfs"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// marker makes an initramfs whose process 1 prints lines that begin with MARKER and powers off.
func marker(t *testing.T, spec initramfs.Spec) string {
	t.Helper()
	spec.Agent = vmtest.Build(t, "./testdata/marker")
	path := filepath.Join(t.TempDir(), "initramfs")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := initramfs.Build(f, spec); err != nil {
		t.Fatal(err)
	}
	return path
}

// One ISO, as an unknown machine would see it, starts under every firmware, and the command line arrives.
func TestVMISOFirmware(t *testing.T) {
	vmtest.Require(t)
	iso := filepath.Join(t.TempDir(), "test.iso")
	f, err := os.Create(iso)
	if err != nil {
		t.Fatal(err)
	}
	const cmdline = initramfs.DefaultCmdline + " some.key=a:b,c/d@e%f+g"
	_, err = initramfs.ISO{
		Kernel: vmtest.Artefact(t, "kernel/vmlinuz"), Initramfs: marker(t, initramfs.Spec{Tools: tool.Deploy(), Compression: initramfs.Best}),
		Cmdline: cmdline, Loaders: initramfs.DebianLoaders("/"),
	}.Write(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		firmware, board string
		efi, lockdown   string
	}{
		{"bios", "pc", "false", `\[none\]`},
		{"bios", "q35", "false", `\[none\]`},
		{"uefi", "q35", "true", `\[none\]`},
		{"secureboot", "q35", "true", `\[integrity\]`},
	} {
		t.Run(c.firmware+" "+c.board, func(t *testing.T) {
			vm := vmtest.Start(t, vmtest.Machine{Firmware: c.firmware, Board: c.board, Kernel: "none", CD: []string{iso}})
			match := vm.Expect(t, `MARKER cmdline: ([^\r\n]*) <nil>`, 3*time.Minute)
			if !strings.Contains(match[1], cmdline) {
				t.Errorf("command line %q, want it to have %q", match[1], cmdline)
			}
			vm.Expect(t, `MARKER busybox: <nil>`, time.Minute)
			vm.Expect(t, `MARKER efi: `+c.efi, time.Minute)
			vm.Expect(t, `MARKER lockdown: .*`+c.lockdown, time.Minute)
			vm.Expect(t, `MARKER end`, time.Minute)
			vm.Wait(t, time.Minute)
		})
	}
}

// A firmware starts the unified kernel image from a stick that has nothing else, and the command line and the initramfs arrive.
func TestVMUKI(t *testing.T) {
	vmtest.Require(t)
	var program bytes.Buffer
	const cmdline = initramfs.DefaultCmdline + " some.key=a:b,c/d@e%f+g"
	_, err := initramfs.UKI{
		Kernel: vmtest.Artefact(t, "kernel/vmlinuz"), Initramfs: marker(t, initramfs.Spec{Tools: tool.Deploy(), Compression: initramfs.Best}), Cmdline: cmdline,
	}.Write(&program)
	if err != nil {
		t.Fatal(err)
	}
	stick := filepath.Join(t.TempDir(), "stick")
	b, err := volume.FAT{Size: 64 << 20, Label: "UKI", Files: map[string][]byte{"EFI/BOOT/BOOTX64.EFI": program.Bytes()}}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stick, b, 0o600); err != nil {
		t.Fatal(err)
	}
	vm := vmtest.Start(t, vmtest.Machine{Firmware: "uefi", Kernel: "none", USB: stick})
	if match := vm.Expect(t, `MARKER cmdline: ([^\r\n]*) <nil>`, 3*time.Minute); !strings.Contains(match[1], cmdline) {
		t.Errorf("command line %q, want it to have %q", match[1], cmdline)
	}
	vm.Expect(t, `MARKER busybox: <nil>`, time.Minute)
	vm.Expect(t, `MARKER efi: true`, time.Minute)
	vm.Expect(t, `MARKER end`, time.Minute)
	vm.Wait(t, time.Minute)
}

// Every compression is one that the kernel reads, also with another archive behind it.
func TestVMInitramfsCompression(t *testing.T) {
	vmtest.Require(t)
	second := marker(t, initramfs.Spec{Tools: tool.Deploy(), Compression: initramfs.Fast})
	for _, compression := range []initramfs.Compression{initramfs.None, initramfs.Fast, initramfs.Best} {
		t.Run(string(compression), func(t *testing.T) {
			first := marker(t, initramfs.Spec{Compression: compression})
			vm := vmtest.Start(t, vmtest.Machine{Initrds: []string{first, second}})
			vm.Expect(t, `MARKER busybox: <nil>`, time.Minute)
			vm.Expect(t, `MARKER end`, time.Minute)
		})
	}
}
