// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/burnin"
	"github.com/ironhand/ironhand/stream"
)

func burninCommand() command {
	return command{
		name: "burnin", args: "[--profile quick|standard|full|FILE] [--disks NAME,...] [--report DIR] [--upload URL] [--cafile FILE] [--baseline FILE] [--every TIME] [--resume] [--progress auto|screen|plain] [--watchdog TIME|off] [--plan] [--force] [--yes]",
		help:    "Put load on this machine, watch what it counts of errors, and give each part a verdict. Exit status: 0 all passed, 1 a part failed, 2 wrong use, 3 not all could be tested.",
		example: "ironhand burnin --profile quick --disks sda,nvme0n1 --report /media/stick/report",
		run:     burnIn,
	}
}

// notTested is why not all was tested. It is no verdict on the machine.
type notTested struct{ error }

func (n notTested) Unwrap() error { return n.error }

func burnIn(ctx context.Context, c *call) error {
	profile := c.flags.String("profile", "quick", "`what` to run: quick (minutes), standard (hours), full (days), or a file in YAML")
	disks := c.flags.String("disks", "", "`names` or serial numbers of the disks to overwrite, parted by commas, or all; without it those that the profile names")
	dir := c.flags.String("report", "", "`directory` for the results and the programs' own reports; it is made if need be")
	every := c.flags.Duration("every", time.Second, "how often counters and sensors are read")
	var baseline []burnin.Result
	c.flags.Func("baseline", "`file` results.json of an earlier run, or of another machine of the model, to compare with; may be repeated", func(name string) error {
		return readBaseline(&baseline, name)
	})
	to := c.flags.String("upload", "", "`URL` to which the report is sent by PUT, as a tar archive; wants --report")
	caFile := c.flags.String("cafile", "", "`file` of CA certificates for --upload, PEM: with it no other CA is trusted")
	plan := c.flags.Bool("plan", false, "say what would be done, and do nothing")
	progress := c.flags.String("progress", progressAuto, "`how` the run is shown: screen, a page that is kept up to date and takes keys; plain, lines; auto, the page on a terminal that can show it")
	force := c.flags.Bool("force", false, "overwrite disks that hold data, too")
	yes := c.flags.Bool("yes", false, "do not ask")
	resume := c.flags.Bool("resume", false, "go on with the run whose state is in the directory of --report, after a reset or when it was stopped")
	watchdog := c.flags.String("watchdog", "", "`time` after which the machine's watchdog resets it if burn-in hangs, such as 60s, or off; without it 60s in the ramdisk, and off elsewhere")
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	if *every < 100*time.Millisecond || *every > time.Hour {
		return usagef("--every %v: want 100ms to 1h", *every)
	}
	var sent *upload
	if *to != "" {
		if *dir == "" {
			return usagef("--upload wants --report DIR, for what cannot be sent")
		}
		var err error
		if sent, err = newUpload(*to, *caFile); err != nil {
			return usagef("%v", err)
		}
	}
	guard, err := watchdogTime(*watchdog, inRamdisk())
	if err != nil {
		return err
	}
	if *resume {
		if *dir == "" {
			return usagef("--resume wants --report DIR, which has the state of the run")
		}
		var given string
		c.flags.Visit(func(f *flag.Flag) {
			if f.Name == "profile" || f.Name == "disks" {
				given = f.Name
			}
		})
		if given != "" {
			return usagef("--%s: --resume goes on with what was begun", given)
		}
	}
	order := burnin.Order{Force: *force, Every: *every}
	for name := range strings.SplitSeq(*disks, ",") {
		if name = strings.TrimSpace(name); name != "" {
			order.Disks = append(order.Disks, name)
		}
	}
	if *disks != "" && len(order.Disks) == 0 {
		return usagef("--disks %q: want names", *disks)
	}
	if order.Profile, err = findProfile(*profile); err != nil {
		return err
	}
	if !slices.Contains([]string{progressAuto, progressScreen, progressPlain}, *progress) {
		return usagef("--progress %s: want auto, screen or plain", *progress)
	}
	live := c.live
	if live == nil {
		live = newLiveRun(c.stderr)
	}
	host, err := c.burninHost(live)
	if err != nil {
		return notTested{err}
	}
	var out *burnin.ReportDir
	var todo *burnin.Plan
	if *resume {
		if out, err = burnin.OpenReportDir(*dir, Version()); err != nil {
			return notTested{err}
		}
		state, err := burnin.Unfinished(out.Path)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no run to go on with: %w", err)
		}
		if err != nil {
			return notTested{err}
		}
		todo, err = state.Plan(ctx, host, out.Logs(), *force)
		if err != nil {
			err = fmt.Errorf("go on with the run in %s: %w", out.Path, err)
		}
		if err := whyNotPlanned(err); err != nil {
			return err
		}
		todo.Every = *every
	} else {
		if *dir != "" && !*plan {
			if out, err = burnin.MakeReportDir(*dir, Version()); err != nil {
				return notTested{err}
			}
			order.Logs = out.Logs()
		}
		todo, err = order.Plan(ctx, host)
		if err := whyNotPlanned(err); err != nil {
			return err
		}
	}
	if *plan {
		_, err := io.WriteString(c.stdout, todo.String())
		return err
	}
	fmt.Fprint(c.stderr, todo)
	if len(todo.Disks) > 0 && !*yes {
		fmt.Fprint(c.stderr, "Go on? What is on these disks will be lost. Type yes: ")
		if err := c.answered(ctx); err != nil {
			return notTested{err}
		}
	}
	// What could not be read of the inventory is in the report, and the rest of it too.
	inventory, problems := host.Machine.Inventory(ctx)
	machine := burnin.Describe(inventory)
	for _, b := range baseline {
		if err := machine.Comparable(todo.Profile, b); err != nil {
			return usagef("%v", err)
		}
	}
	if out != nil {
		if err := room(out.Path, todo.Room(host)); err != nil && !*resume {
			return notTested{err}
		} else if err != nil {
			host.Say("%v", err) // there may be less to write now
		}
		for _, c := range todo.Crashes {
			if err := burnin.WriteWhole(filepath.Join(out.Logs(), c.Name), c.Text); err != nil {
				return notTested{fmt.Errorf("keep what the kernel said: %w", err)}
			}
		}
		if err := todo.Keep(ctx, host, out.Path); err != nil {
			return notTested{err}
		}
	}
	watched, disarm, err := armWatchdog(guard, *every, *watchdog == "", host.Say)
	if err != nil {
		return notTested{err}
	}
	var result burnin.Result
	err = c.watched(ctx, live, *progress, todo, func(ctx context.Context) { result = todo.Run(ctx, host, watched.And(live.following())) })
	if err := disarm(); err != nil {
		host.Say("%v: the machine may be reset", err)
	}
	if err != nil {
		return notTested{err}
	}
	result.Machine = &machine
	if err := result.Compare(baseline); err != nil {
		return notTested{err}
	}
	if err := printResult(c.stdout, result); err != nil {
		return notTested{err}
	}
	if out != nil {
		if err := out.Write(result, inventory, problems); err != nil {
			err = fmt.Errorf("write the report: %w", err)
			if result.Verdict == burnin.Fail {
				return err // a part that failed counts more
			}
			return notTested{err}
		}
		if err := todo.Finish(); err != nil {
			host.Say("keep the state of the run: %v", err)
		}
		fmt.Fprintf(c.stderr, "The report is in %s.\n", *dir)
		if sent != nil {
			if err := sent.send(context.WithoutCancel(ctx), out.Path); err != nil {
				if result.Verdict == burnin.Fail {
					return err
				}
				return notTested{err}
			}
			fmt.Fprintf(c.stderr, "It was sent to %s.\n", sent)
		}
	}
	switch result.Verdict {
	case burnin.Pass:
		return nil
	case burnin.Fail:
		return errShown
	}
	return notTested{errors.New("not all was tested")}
}

// room is nil if a directory has room for so many bytes.
func room(dir string, need int64) error {
	free, err := freeSpace(dir)
	if err == nil && free < need {
		err = fmt.Errorf("%s has %s free, and the report of this run may need %s", dir, inspect.Size(free), inspect.Size(need))
	}
	return err
}

// whyNotPlanned is what the error of a plan means for whoever asked for it.
func whyNotPlanned(err error) error {
	switch {
	case errors.Is(err, steps.ErrArgs):
		return usagef("%v", err)
	case errors.Is(err, burnin.ErrHoldsData):
		return notTested{fmt.Errorf("%w; with --force it is lost", err)}
	case err != nil:
		return notTested{err}
	}
	return nil
}

// The times of a watchdog.
const (
	defaultWatchdog = time.Minute
	leastWatchdog   = 30 * time.Second
	mostWatchdog    = 10 * time.Minute
	// watchdogPatience is how long nothing may move beyond the time between two samples: a stick takes its time to write, disks are asked for their health between two loads, and somebody may have halted
	// the console. A machine that hangs feeds no watchdog at all.
	watchdogPatience = 10 * time.Minute
)

// watchdogTime is what --watchdog says; 0 for none.
func watchdogTime(setting string, ramdisk bool) (time.Duration, error) {
	switch {
	case setting == "off", setting == "" && !ramdisk:
		return 0, nil
	case setting == "":
		return defaultWatchdog, nil
	}
	d, err := time.ParseDuration(setting)
	if err != nil || d < leastWatchdog || d > mostWatchdog {
		return 0, usagef("--watchdog %s: want off, or a time from %v to %v", setting, leastWatchdog, mostWatchdog)
	}
	return d, nil
}

// inRamdisk tells whether process 1 is this program.
func inRamdisk() bool {
	first, err := os.Stat("/proc/1/exe")
	if err != nil {
		return false
	}
	own, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(first, own)
}

// fed is a watchdog.
type fed interface {
	Feed() error
	Disarm() error
}

// armWatchdog starts the watchdog, which is fed as long as the run that is followed goes on. A machine without one is an error unless optional.
func armWatchdog(after, every time.Duration, optional bool, say func(format string, args ...any)) (burnin.Following, func() error, error) {
	none := func() error { return nil }
	if after == 0 {
		return burnin.Following{}, none, nil
	}
	w, err := boot.OpenWatchdog(after)
	if err != nil {
		if !optional {
			return burnin.Following{}, none, err
		}
		say("burn-in: without a watchdog, a machine that hangs is not reset: %v", err)
		return burnin.Following{}, none, nil
	}
	say("burn-in: the watchdog %s resets the machine if it hangs for %v", w.Name, w.Time)
	follow, disarm := feedWatchdog(w, after, every, say)
	return follow, disarm, nil
}

// feedWatchdog feeds a watchdog until the run that is followed has not moved for too long, or disarm is called.
func feedWatchdog(w fed, after, every time.Duration, say func(format string, args ...any)) (follow burnin.Following, disarm func() error) {
	var moved atomic.Int64 // when the run did last, since began
	began := time.Now()
	move := func() { moved.Store(int64(time.Since(began))) }
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(after / 4)
		defer tick.Stop()
		for failed := false; ; {
			if time.Since(began)-time.Duration(moved.Load()) < watchdogPatience+every {
				if err := w.Feed(); err != nil && !failed {
					failed = true
					go say("burn-in: %v", err) // who prints may wait
				}
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return burnin.Following{
			Began: func(int) { move() }, Progress: func(int, time.Duration) { move() }, Ended: func(int, burnin.Report) { move() },
		}, func() error {
			close(stop)
			<-done
			return w.Disarm()
		}
}

// findProfile returns the profile of a name, or of a file.
func findProfile(name string) (burnin.Profile, error) {
	all := burnin.Profiles()
	if i := slices.IndexFunc(all, func(p burnin.Profile) bool { return p.Name == name }); i >= 0 {
		return all[i], nil
	}
	b, err := readSmall(name)
	if err != nil {
		return burnin.Profile{}, usagef("--profile %s: it is none of quick, standard and full, and as a file: %v", name, err)
	}
	p, err := burnin.ParseProfile(b)
	if err != nil {
		return burnin.Profile{}, usagef("--profile %s: %v", name, err)
	}
	if p.Name == "" {
		p.Name = name
	}
	return p, nil
}

// mostResults is how much of an earlier run's results is read, bytes.
const mostResults = 64 << 20

// readBaseline adds an earlier run's results.
func readBaseline(list *[]burnin.Result, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, mostResults))
	if err != nil {
		return err
	}
	r, err := burnin.ParseBaseline(text)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	*list = append(*list, r)
	return nil
}

// readSmall reads a file that people write, of which more than 1 MiB is a mistake.
func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.LimitReader(f, 1<<20))
}

// burninHost is this machine, as burn-in uses it, with programs that can be halted.
func (c *call) burninHost(live *liveRun) (steps.Host, error) {
	system, err := agent.ThisMachine()
	if err != nil {
		return steps.Host{}, err
	}
	read, err := system.MediaRead()
	if err != nil {
		return steps.Host{}, err
	}
	return steps.Host{
		Machine: inspect.Local(),
		Local:   true,
		Open: func(path string) (steps.Disk, error) {
			d, err := stream.OpenDevice(path)
			if err != nil {
				return nil, err // not a nil *Device in an interface
			}
			return d, nil
		},
		Log:   slog.New(slog.NewTextHandler(live, nil)),
		Say:   live.Say,
		Tools: live.tools,
		Media: read,
	}, nil
}

// printResult writes the verdicts, the one on the whole first.
func printResult(w io.Writer, r burnin.Result) error {
	p := &page{}
	p.section(harmless("burn-in "+r.Profile), string(r.Verdict))
	for _, problem := range r.Problems {
		p.row("", harmless(problem))
	}
	p.section("part", "VERDICT", "REASONS")
	for _, l := range r.Loads {
		for _, part := range l.Parts {
			p.row(harmless(part.Name), string(part.Verdict), harmless(strings.Join(part.Reasons, "; ")))
		}
	}
	if len(r.Baseline) > 0 {
		p.section("compared with other runs", "VERDICT", "REASONS")
		for _, part := range r.Baseline {
			p.row(harmless(part.Name), string(part.Verdict), harmless(strings.Join(part.Reasons, "; ")))
		}
	}
	p.end()
	_, err := p.out.WriteTo(w)
	return err
}
