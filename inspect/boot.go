// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"strings"
)

// Boot is the "boot" object of the inventory.
type Boot struct {
	Mode         string `json:"current_boot_mode"` // uefi or bios
	PXEInterface Text   `json:"pxe_interface"`     // kernel parameter BOOTIF as it is: 01-52-54-00-.. or 52:54:00:..

	SecureBoot *bool `json:"-"` // nil if it is not known: no UEFI, or its variables are not mounted
}

func readBoot(r *reader) Boot {
	b := Boot{
		Mode:         "bios",
		PXEInterface: Text(parameter(printable(r.bytes("proc/cmdline", smallFile), smallFile), "BOOTIF")),
	}
	if !r.exists("sys/firmware/efi") {
		return b
	}
	b.Mode = "uefi"
	// efivarfs puts four bytes of attributes before the value (Documentation/filesystems/efivarfs.rst); the variable is
	// one byte, 1 when Secure Boot is on (UEFI 2.10, 3.3).
	v := r.bytes("sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", smallFile)
	if len(v) == 5 {
		on := v[4] == 1
		b.SecureBoot = &on
	}
	return b
}

// parameter returns the last value of key=value on the kernel's command line. The kernel keeps blanks that are between
// double quotes (lib/cmdline.c, next_arg).
func parameter(cmdline, key string) (value string) {
	quoted := false
	words := strings.FieldsFunc(cmdline, func(c rune) bool {
		if c == '"' {
			quoted = !quoted
		}
		return !quoted && strings.ContainsRune(" \t\n", c)
	})
	for _, w := range words {
		if k, v, found := strings.Cut(strings.ReplaceAll(w, `"`, ""), "="); found && k == key {
			value = v
		}
	}
	return value
}
