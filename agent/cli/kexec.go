// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/initramfs/boot"
)

func kexecCommand() command {
	return command{
		name: "kexec", args: "--from DEVICE | --kernel FILE [--initrd FILE] [--cmdline TEXT] [--load-only]",
		help:    "Start the system on a disk, or a kernel, without the firmware. Only in the ramdisk.",
		example: "ironhand kexec --from /dev/sda",
		run:     runKexec,
	}
}

func runKexec(ctx context.Context, c *call) error {
	from := c.flags.String("from", "", "`disk` whose boot menu says what to start")
	kernel := c.flags.String("kernel", "", "`file` of the kernel")
	initrd := c.flags.String("initrd", "", "`file` of the initial ramdisk")
	cmdline := c.flags.String("cmdline", "", "`TEXT` of the kernel command line")
	loadOnly := c.flags.Bool("load-only", false, "load it and say so; start it later with another call")
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	switch {
	case (*from == "") == (*kernel == ""):
		return usagef("give either --from or --kernel")
	case *from != "" && (*initrd != "" || *cmdline != ""):
		return usagef("--from takes initrd and command line from the disk")
	}
	if *from != "" {
		entry, err := agent.LoadKernel(ctx, *from)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.stdout, "loaded", entry)
	} else {
		if err := loadFiles(*kernel, *initrd, *cmdline); err != nil {
			return err
		}
		fmt.Fprintln(c.stdout, "loaded", *kernel)
	}
	if *loadOnly {
		return nil
	}
	if err := boot.Power(ctx, boot.Kexec); err != nil {
		// Not left behind: systemd's reboot would start it.
		return errors.Join(err, boot.UnloadKernel())
	}
	return nil
}

func loadFiles(kernel, initrd, cmdline string) error {
	if err := boot.CanKexec(); err != nil {
		return err
	}
	k, err := os.Open(kernel)
	if err != nil {
		return err
	}
	defer k.Close()
	load := boot.Kernel{Image: k, Cmdline: cmdline}
	if initrd != "" {
		i, err := os.Open(initrd)
		if err != nil {
			return err
		}
		defer i.Close()
		load.Initrds = append(load.Initrds, i)
	}
	return boot.LoadKernel(load)
}
