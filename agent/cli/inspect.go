// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/recording"
)

func inspectCommand() command {
	return command{
		name: "inspect", args: "[--format table|json|ocp] [--from FILE] [--record FILE [--anonymous]] [--diff OLD] [--hints JSON [--why]] [--health] [--lldp TIME]",
		help:    "Say what this machine is made of, and what has changed since. Changes nothing.",
		example: "ironhand inspect --diff last-week.txt",
		run:     runInspect,
	}
}

// runInspect prints what could be read, and fails if something could not.
func runInspect(ctx context.Context, c *call) error {
	format := c.flags.String("format", "table", "print in this `FORMAT`: table; json, as the conductor sees it; or ocp, lines of the Open Compute Project's Test and Validation output")
	from := c.flags.String("from", "", "`file` that --record has written, of any machine, instead of this machine")
	record := c.flags.String("record", "", "`file` for all that was read, as text")
	anonymous := c.flags.Bool("anonymous", false, "with --record: serial numbers, addresses and the like are replaced by others")
	old := c.flags.String("diff", "", "`file` of --record or --format json of an earlier day: say what has changed; exit status 3 if something has")
	hints := c.flags.String("hints", "", "root device hints as a `JSON` object: say which disk they choose")
	why := c.flags.Bool("why", false, "with --hints: say for each disk why it is chosen or not")
	healthWanted := c.flags.Bool("health", false, "ask the disks how they are, too: SMART and NVMe's health log")
	lldp := c.flags.Duration("lldp", 0, "listen for switches until none was heard for this `time`, such as 30s")
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	switch {
	case !slices.Contains([]string{"table", "json", "ocp"}, *format):
		return usagef("--format %s: want table, json or ocp", *format)
	case *format == "ocp" && (*hints != "" || *old != ""):
		return usagef("--format ocp is neither for --hints nor for --diff")
	case *anonymous && *record == "":
		return usagef("--anonymous is for --record")
	case *why && *hints == "":
		return usagef("--why is for --hints")
	case *old != "" && *hints != "":
		return usagef("--diff and --hints are two questions")
	}
	m := inspect.Local()
	if *from != "" {
		var err error
		if m, err = loadMachine(*from); err != nil {
			return err
		}
	}
	if *hints != "" {
		return explainHints(ctx, c, m, *hints, *why, *format == "json")
	}
	files := func() fstest.MapFS { return nil }
	if *record != "" {
		m, files = m.Record()
	}
	i, health, err := look(ctx, m, *healthWanted, *lldp)
	if *record != "" {
		if werr := writeRecording(*record, files(), i, *anonymous, err); werr != nil {
			return werr
		}
	}
	if *old != "" {
		return printChanges(ctx, c, *old, i, err, *format == "json")
	}
	if *format == "json" {
		var out any = i
		if *healthWanted { // which the inventory has no place for
			out = struct {
				Inventory inspect.Inventory `json:"inventory"`
				Health    []inspect.Health  `json:"health"`
			}{i, health}
		}
		if werr := writeJSON(c, out); werr != nil {
			return werr
		}
		return err
	}
	if *format == "ocp" {
		if werr := printOCP(c, i, *healthWanted, health, err); werr != nil {
			return werr
		}
		return err
	}
	if perr := printInventory(c.stdout, i, health); perr != nil {
		return perr
	}
	return err
}

// look asks the machine, its disks if health is wanted, and its switches if lldp is the time to listen for them, all beside each other.
func look(ctx context.Context, m inspect.Machine, healthWanted bool, lldp time.Duration) (i inspect.Inventory, health []inspect.Health, err error) {
	var heard neighbours
	var unheard, unasked error
	var others sync.WaitGroup
	if lldp > 0 {
		others.Go(func() { heard, unheard = m.Listen(ctx, lldp) })
	}
	if healthWanted {
		others.Go(func() { health, unasked = m.Health(ctx) })
	}
	i, err = m.Inventory(ctx)
	others.Wait()
	if heard != nil {
		for n, nic := range i.Interfaces {
			i.Interfaces[n].LLDP = heard[nic.Name]
		}
	}
	return i, health, errors.Join(err, unasked, unheard)
}

// readFile reads a file of at most the size of a recording.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, recording.MaxSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(b) > recording.MaxSize {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, recording.MaxSize)
	}
	return b, nil
}

func loadMachine(name string) (inspect.Machine, error) {
	b, err := readFile(name)
	if err != nil {
		return inspect.Machine{}, err
	}
	m, err := inspect.Load(b)
	if err != nil {
		return m, fmt.Errorf("%s is no recording: %w", name, err)
	}
	if _, err := fs.Stat(m.FS, "proc"); err != nil {
		return m, fmt.Errorf("%s is no recording: it has no /proc", name)
	}
	return m, nil
}

// writeRecording writes the file in one go, so that there is none that is half written.
func writeRecording(name string, files fstest.MapFS, i inspect.Inventory, anonymous bool, problems error) error {
	comment := "A machine's files as `ironhand inspect --record` has read them; `ironhand inspect --from` shows them.\n" +
		strings.Join(strings.Fields(i.SystemVendor.Manufacturer+" "+i.SystemVendor.ProductName), " ") + "\n"
	if anonymous {
		key := make([]byte, 32)
		rand.Read(key) // never fails
		files = inspect.Anonymous(files, i, key)
		comment += "Serial numbers, addresses and names are not the real ones.\n"
	} else if problems != nil {
		comment += "Problems:\n" + problems.Error() + "\n"
	}
	part := name + ".part"
	if err := os.WriteFile(part, recording.Format(comment, files), 0o600); err != nil {
		return err
	}
	return os.Rename(part, name)
}

// oldInventory reads what --record or --format json has written.
func oldInventory(ctx context.Context, name string) (inspect.Inventory, error) {
	b, err := readFile(name)
	if err != nil {
		return inspect.Inventory{}, err
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		var i inspect.Inventory
		if err := json.Unmarshal(b, &i); err != nil {
			return i, fmt.Errorf("%s is no inventory: %w", name, err)
		}
		return i, nil
	}
	m, err := loadMachine(name)
	if err != nil {
		return inspect.Inventory{}, err
	}
	i, _ := m.Inventory(ctx) // what could not be read then is not compared
	return i, ctx.Err()
}

// printChanges compares with an earlier day.
func printChanges(ctx context.Context, c *call, name string, now inspect.Inventory, problems error, asJSON bool) error {
	old, err := oldInventory(ctx, name)
	if err != nil {
		return err
	}
	changes := inspect.Changes(old, now)
	if asJSON {
		err = writeJSON(c, inspect.Difference{Changes: changes})
	} else {
		for _, change := range changes {
			fmt.Fprintln(c.stdout, change)
		}
		if len(changes) == 0 {
			fmt.Fprintln(c.stdout, "nothing has changed")
		}
	}
	switch {
	case err != nil || problems != nil: // what was not read may have changed too
		return errors.Join(err, problems)
	case len(changes) > 0:
		return errDiffers
	}
	return nil
}

// explainHints says which disk hints choose.
func explainHints(ctx context.Context, c *call, m inspect.Machine, text string, why, asJSON bool) error {
	h, err := inspect.ParseHints(json.RawMessage(text))
	if err != nil {
		return usagef("--hints: %v", err)
	}
	disks, err := m.Disks(ctx)
	if err != nil && len(disks) == 0 {
		return err
	}
	choice, cerr := h.Choose(disks)
	if asJSON {
		type verdict struct {
			Name  string `json:"name"`
			Fits  bool   `json:"fits"`
			Why   string `json:"why"`
			Taken bool   `json:"taken"`
		}
		answer := struct {
			Hints string    `json:"hints"`
			Disk  string    `json:"disk"` // empty if none
			Error string    `json:"error"`
			Disks []verdict `json:"disks"`
		}{Hints: h.String(), Disk: choice.Disk.Name, Disks: []verdict{}}
		if cerr != nil {
			answer.Error = cerr.Error()
		}
		for _, w := range h.Explain(disks) {
			answer.Disks = append(answer.Disks, verdict{w.Disk.Name, w.Kept, w.String(), cerr == nil && w.Disk.Name == choice.Disk.Name})
		}
		if werr := writeJSON(c, answer); werr != nil {
			return werr
		}
		if cerr != nil {
			return errShown
		}
		return err
	}
	if why {
		fmt.Fprintf(c.stdout, "wanted: %s\n", h)
		for _, w := range h.Explain(disks) {
			mark := " "
			if cerr == nil && w.Disk.Name == choice.Disk.Name {
				mark = "*"
			}
			fmt.Fprintf(c.stdout, "%s %s\n", mark, w)
		}
	}
	if cerr != nil {
		return cerr
	}
	fmt.Fprintln(c.stdout, choice.Disk)
	return err
}
