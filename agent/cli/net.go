// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/netconfig"
)

func netCommand() command {
	return command{
		name: "net", args: "show [--target URL] | plan | apply [--from FILE|auto] [--strict] [--yes] [--json]",
		help:    "Show the network and how far one gets on the way to the conductor, or what network_data.json would make of it and why, or make it so.",
		example: "ironhand net plan --from network_data.json",
		run:     runNet,
	}
}

func runNet(ctx context.Context, c *call) error {
	from := c.flags.String("from", "auto", "a network_data.json `FILE`, or auto: what the agent would use, which is the kernel command line, the configuration media or the ramdisk")
	asJSON := c.flags.Bool("json", false, "print JSON (show and plan)")
	target := c.flags.String("target", "", "an http or https `URL`: say how far one gets on the way to it, and why no further; without, to the conductor that this machine's settings name (show)")
	strict := c.flags.Bool("strict", false, "change nothing if anything is wrong with the description (apply)")
	yes := c.flags.Bool("yes", false, "do not ask (apply)")
	args, err := c.parse(1, 1)
	if err != nil {
		return err
	}
	switch args[0] {
	case "show", "plan", "apply":
	default:
		return usagef("%q: want show, plan or apply", args[0])
	}
	k, err := agent.NewKernel()
	if err != nil {
		return err
	}
	have, err := k.State(ctx)
	if err != nil {
		return err
	}
	if args[0] == "show" {
		if *target != "" {
			return showWay(ctx, c, k, *target, *asJSON)
		}
		if *asJSON {
			return writeJSON(c, have)
		}
		return showAll(ctx, c, k, have)
	}
	sources, err := networkSources(ctx, *from)
	if err != nil {
		return err
	}
	plan, described, planErr := sources.Plan()
	if described == "" {
		return errors.Join(errors.New("nothing describes the network: neither the kernel command line nor a network_data.json on a configuration medium or in the ramdisk"), planErr)
	}
	if len(plan.Everywhere) > 0 {
		all := netconfig.Everywhere(have, plan.Everywhere, sources.BootMAC())
		all.DNS, all.IgnoreDNS = plan.DNS, plan.IgnoreDNS
		plan = all
	}
	steps, err := plan.Steps(have)
	if args[0] == "apply" {
		if err := errors.Join(planErr, err); err != nil && *strict {
			return fmt.Errorf("not applied: %w", err)
		}
		for _, step := range steps {
			fmt.Fprintln(c.stderr, step)
		}
		if !*yes && len(steps) > 0 {
			fmt.Fprint(c.stderr, "Change the network of this machine so? Type yes: ")
			answer, err := bufio.NewReader(c.stdin).ReadString('\n')
			if strings.TrimSpace(answer) != "yes" {
				return errors.Join(errors.New("not applied: the answer was not yes"), eofIsNoAnswer(err))
			}
		}
		if !plan.Automatic() {
			return errors.Join(planErr, plan.Apply(ctx, k))
		}
		_, asking := plan.Acquire(ctx, k, netconfig.NewAsker(), nil, func(line string) { fmt.Fprintln(c.stderr, line) })
		return errors.Join(planErr, asking)
	}
	if *asJSON {
		return errors.Join(planErr, err, writeJSON(c, planned{described, plan, append([]netconfig.Step{}, steps...), linesOf(errors.Join(planErr, err))}))
	}
	fmt.Fprintf(c.stdout, "described by %s\n%s", described, plan)
	for _, step := range steps {
		fmt.Fprintln(c.stdout, "would", step)
	}
	if len(steps) == 0 && planErr == nil && err == nil {
		fmt.Fprintln(c.stdout, "nothing to do")
	}
	return errors.Join(planErr, err)
}

// planned is what "net plan --json" prints.
type planned struct {
	From     string           `json:"from"` // what describes the network
	Plan     netconfig.Plan   `json:"plan"`
	Steps    []netconfig.Step `json:"steps"`    // in order; none if all is in force
	Problems []string         `json:"problems"` // what is wrong with the description, or missing on the machine; it is left out
}

// linesOf returns the errors that were joined.
func linesOf(err error) []string {
	if err == nil {
		return []string{}
	}
	return strings.Split(err.Error(), "\n")
}

// showAll prints what the kernel has, and the verdict on the way to the conductor, if this machine's settings name one.
func showAll(ctx context.Context, c *call, k netconfig.Kernel, have netconfig.State) error {
	if err := showNetwork(c.stdout, have); err != nil {
		return err
	}
	system, err := agent.ThisMachine()
	if err != nil {
		return err
	}
	to, known, err := system.Conductor()
	if err != nil || !known {
		return err
	}
	return verdict(ctx, c, k, to, false)
}

// showWay prints the verdict on the way to a URL.
func showWay(ctx context.Context, c *call, k netconfig.Kernel, rawURL string, asJSON bool) error {
	to, err := netconfig.ParseTarget(rawURL, nil)
	if err != nil {
		return usagef("%v", err)
	}
	return verdict(ctx, c, k, to, asJSON)
}

// verdict looks how far one gets; that the way is blocked is an error.
func verdict(ctx context.Context, c *call, k netconfig.Kernel, to netconfig.Target, asJSON bool) (err error) {
	r := netconfig.Check(ctx, k, to)
	if asJSON {
		err = writeJSON(c, r)
	} else {
		_, err = io.WriteString(c.stdout, r.String())
	}
	if err == nil && !r.OK {
		err = errors.New(r.Cause)
	}
	return err
}

// showNetwork prints what the kernel has, for people.
func showNetwork(out io.Writer, s netconfig.State) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, n := range s.NICs {
		link := "switched off"
		switch {
		case n.Carrier:
			link = "link"
		case n.Up:
			link = "no link"
		}
		var addresses []string
		for _, a := range n.Addresses {
			addresses = append(addresses, a.Prefix.String())
		}
		what := n.Driver
		switch {
		case n.Parent != "":
			what = fmt.Sprintf("vlan %d on %s", n.VLAN, n.Parent)
		case n.Master != "":
			what += ", in " + n.Master
		}
		fmt.Fprintf(w, "nic\t%s\t%s\t%s\tmtu %d\t%s\t%s\n", n.Name, n.MAC, what, n.MTU, link, strings.Join(addresses, " "))
	}
	for _, r := range s.Routes {
		fmt.Fprintf(w, "route\t%s\t%s\n", r.NIC, r.Route)
	}
	for _, from := range s.Sources {
		for _, r := range from.Routes {
			fmt.Fprintf(w, "route\t%s\t%s from %s\n", from.NIC, r, from.Address)
		}
	}
	for _, d := range s.DNS {
		fmt.Fprintf(w, "dns\t%s\n", d)
	}
	return w.Flush()
}

// networkSources is a file, or all that the agent looks at.
func networkSources(ctx context.Context, from string) (netconfig.Sources, error) {
	if from != "auto" {
		b, err := os.ReadFile(from)
		return netconfig.Sources{Files: []netconfig.File{{From: from, Content: b}}}, err
	}
	system, err := agent.ThisMachine()
	if err != nil {
		return netconfig.Sources{}, err
	}
	firmware, err := system.Firmware(ctx)
	if err != nil {
		return netconfig.Sources{}, err
	}
	s := netconfig.Sources{Cmdline: system.Cmdline, Firmware: firmware}
	found, _, err := media.Find(ctx, func(string) {})
	if err != nil && len(found) == 0 {
		return s, err
	}
	for _, m := range found {
		if b, ok := m.Files[media.NetworkDataFile]; ok {
			s.Files = append(s.Files, netconfig.File{From: m.Kind + " " + m.Device + " " + media.NetworkDataFile, Content: b})
		}
	}
	b, err := os.ReadFile("/" + agent.RamdiskNetwork)
	if err == nil {
		s.Files = append(s.Files, netconfig.File{From: "ramdisk /" + agent.RamdiskNetwork, Content: b})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	return s, nil
}

func writeJSON(c *call, v any) error {
	e := json.NewEncoder(c.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
