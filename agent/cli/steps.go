// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

func stepsCommand() command {
	return command{
		name: "steps", args: "[--phase clean|deploy|service] [--format table|json]",
		help:    "List the steps that this machine offers.",
		example: "ironhand steps --phase deploy",
		run:     listSteps,
	}
}

func listSteps(ctx context.Context, c *call) error {
	only := c.flags.String("phase", "", "`phase`: clean, deploy or service; all without it")
	format := c.flags.String("format", "table", "print the steps in this `FORMAT`: table or json")
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	phases := []steps.Phase{steps.Clean, steps.Deploy, steps.Service}
	if *only != "" {
		if !slices.Contains(phases, steps.Phase(*only)) {
			return usagef("--phase %s: want clean, deploy or service", *only)
		}
		phases = []steps.Phase{steps.Phase(*only)}
	}
	host := steps.Host{Machine: inspect.Local(), Log: slog.New(slog.DiscardHandler)}
	set, err := steps.NewSet(ctx, host, c.parts.Managers)
	if err != nil {
		return err
	}
	type row struct {
		Phase     steps.Phase `json:"phase"`
		Manager   string      `json:"manager"`
		Step      string      `json:"step"`
		Interface string      `json:"interface"`
		Priority  int         `json:"priority"`
	}
	rows := []row{}
	for _, p := range phases {
		list := set.List(p)
		for _, class := range slices.Sorted(maps.Keys(list)) {
			for _, s := range list[class] {
				rows = append(rows, row{p, class, s.Name, s.Interface, s.Priority[p]})
			}
		}
	}
	switch *format {
	case "json":
		return writeJSON(c, rows)
	case "table":
		w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "PHASE\tSTEP\tINTERFACE\tPRIORITY\tMANAGER")
		for _, r := range rows {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", r.Phase, r.Step, r.Interface, r.Priority, r.Manager)
		}
		return w.Flush()
	}
	return usagef("--format %s: want table or json", *format)
}
