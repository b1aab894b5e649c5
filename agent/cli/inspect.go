// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/ironhand/ironhand/inspect"
)

func inspectCommand() command {
	return command{
		name: "inspect", args: "[--format table|json]",
		help:    "Say what this machine is made of. Changes nothing.",
		example: "ironhand inspect --format json",
		run:     runInspect,
	}
}

// runInspect prints what could be read, and fails if something could not.
func runInspect(ctx context.Context, c *call) error {
	format := c.flags.String("format", "table", "table, or json: as the conductor sees it")
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	if *format != "table" && *format != "json" {
		return usagef("--format %s: want table or json", *format)
	}
	i, err := inspect.Local().Inventory(ctx)
	if *format == "json" {
		if werr := writeJSON(c, i); werr != nil {
			return werr
		}
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "system\t%s %s\tserial %s\n", i.SystemVendor.Manufacturer, i.SystemVendor.ProductName, i.SystemVendor.SerialNumber)
	fmt.Fprintf(w, "firmware\t%s %s\t%s, boots by %s\n", i.SystemVendor.Firmware.Vendor, i.SystemVendor.Firmware.Version, i.SystemVendor.Firmware.BuildDate, i.Boot.Mode)
	fmt.Fprintf(w, "cpu\t%s\t%d sockets, %d threads\n", i.CPU.ModelName, i.CPU.SocketCount, i.CPU.Count)
	fmt.Fprintf(w, "memory\t%d MiB usable\t%d MiB installed\n", i.Memory.Total>>20, i.Memory.PhysicalMB)
	for _, n := range i.Interfaces {
		link := "no link"
		if n.HasCarrier {
			link = "link"
		}
		fmt.Fprintf(w, "nic\t%s\t%s, %s, %s %s\n", n.Name, n.MACAddress, link, n.Driver, n.IPv4Address)
	}
	for _, d := range i.Disks {
		fmt.Fprintf(w, "disk\t%s\t%v\n", d.Name, d)
	}
	if ferr := w.Flush(); ferr != nil {
		return ferr
	}
	return err
}
