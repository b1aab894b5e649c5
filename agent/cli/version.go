// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
)

func versionCommand() command {
	return command{
		name: "version", args: "[--json]",
		help:    "Print the version.",
		example: "ironhand version --json",
		run: func(_ context.Context, c *call) error {
			asJSON := c.flags.Bool("json", false, "print JSON")
			if _, err := c.parse(0, 0); err != nil {
				return err
			}
			if *asJSON {
				return json.NewEncoder(c.stdout).Encode(map[string]string{
					"version": Version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintln(c.stdout, "ironhand", Version())
			return err
		},
	}
}
