// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/ocp"
)

// printOCP writes the inventory, and the disks' health if it was asked for, as lines that the tools of fleets read. Problems are what could not be read.
func printOCP(c *call, i inspect.Inventory, healthAsked bool, health []inspect.Health, problems error) error {
	w := ocp.NewWriter(c.stdout, time.Now)
	dut := i.DUT()
	dut.Software = append(dut.Software, ocp.Software{ID: "ironhand", Name: "ironhand", Version: Version(), Type: "APPLICATION"})
	command := "ironhand inspect --format ocp"
	if healthAsked {
		command += " --health"
	}
	if err := w.Start(ocp.Start{Name: "ironhand inspect", Version: Version(), CommandLine: command, Parameters: map[string]any{"health": healthAsked}, DUT: dut}); err != nil {
		return err
	}
	status, result := ocp.Complete, ocp.NotApplicable
	if problems != nil {
		status = ocp.Error
		for line := range strings.Lines(problems.Error()) {
			if err := w.Problem(ocp.Problem{Symptom: "not-read", Message: strings.TrimSpace(line)}); err != nil {
				return err
			}
		}
	}
	for _, h := range health {
		if err := h.Judge(w); err != nil {
			return err
		}
		switch {
		case h.Failing:
			result = ocp.Fail
		case result == ocp.NotApplicable:
			result = ocp.Pass
		}
	}
	return w.End(status, result)
}
