// SPDX-License-Identifier: Apache-2.0

// Guestinit is process 1 of a machine that runs the tests of one package: it loads the drivers, runs /test/test with its own arguments, says how that ended, and powers
// off. vmtest.RunInGuest packs it; no ramdisk for nodes has it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/boot"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guestinit: this is for process 1 of a virtual machine")
		os.Exit(2)
	}
	status := "passed"
	if err := run(); err != nil {
		status = err.Error()
	}
	fmt.Printf("GUEST TESTS END: %s\n", status)
	unix.Sync()
	fmt.Println("guestinit: power off:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func run() error {
	if err := boot.Setup(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := boot.Coldplug(ctx); err != nil {
		fmt.Println("guestinit:", err) // the tests show whether it matters
	}
	if err := boot.Settle(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	// The disks of the second kind are found now, such as those on USB.
	if _, err := boot.Coldplug(ctx); err != nil {
		fmt.Println("guestinit:", err)
	}
	cmd := exec.Command("/test/test", os.Args[1:]...)
	cmd.Dir = "/test"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LC_ALL=C", "TMPDIR=/tmp", "REQUIRE=root"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
