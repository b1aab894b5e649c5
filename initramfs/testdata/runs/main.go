// SPDX-License-Identifier: Apache-2.0

// Runs is the init of the tests' operating system: it says so, with its kernel command line, and powers off.
package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	fail := func(err error) {
		if err != nil {
			fmt.Println("IMAGE FAILS:", err)
		}
	}
	fail(os.MkdirAll("/proc", 0o755))
	fail(syscall.Mount("proc", "/proc", "proc", 0, ""))
	cmdline, err := os.ReadFile("/proc/cmdline")
	fail(err)
	fmt.Printf("IMAGE RUNS: %s", cmdline)
	fail(syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF))
	select {}
}
