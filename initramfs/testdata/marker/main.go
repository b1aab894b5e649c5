// SPDX-License-Identifier: Apache-2.0

// Marker is process 1 of the ISO's test: it says that it was started and how, and powers off.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

func main() {
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Println("MARKER mount /proc:", err)
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	fmt.Println("MARKER cmdline:", strings.TrimSpace(string(cmdline)), err)
	_, err = os.Stat("/bin/busybox")
	fmt.Println("MARKER busybox:", err)
	// What the kernel found of the firmware.
	if err := syscall.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		fmt.Println("MARKER mount /sys:", err)
	}
	_, err = os.Stat("/sys/firmware/efi")
	fmt.Println("MARKER efi:", err == nil)
	if err := syscall.Mount("securityfs", "/sys/kernel/security", "securityfs", 0, ""); err != nil {
		fmt.Println("MARKER mount securityfs:", err)
	}
	lockdown, err := os.ReadFile("/sys/kernel/security/lockdown")
	fmt.Println("MARKER lockdown:", strings.TrimSpace(string(lockdown)), err)
	fmt.Println("MARKER end")
	syscall.Sync()
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("MARKER power off:", err)
	}
	select {}
}
