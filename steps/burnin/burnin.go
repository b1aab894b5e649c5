// SPDX-License-Identifier: Apache-2.0

// Package burnin puts load on the parts of a machine, watches meanwhile what the machine counts of errors, and gives each part a verdict.
//
// The load is that of the programs which the trade trusts, stress-ng and fio, with their verification on, and with the options that Ironic's users set in
// driver_info (ironic-python-agent's burnin.py has their names). A program that says that all went well is half of a verdict. The other half is the machine's: memory errors
// that were corrected, PCIe errors, a disk that asked twice, a processor that was throttled. See [rules].
package burnin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// Report is the result of a step.
type Report struct {
	Load    string             `json:"load"` // what was run
	Started time.Time          `json:"started"`
	Ended   time.Time          `json:"ended"`
	Parts   []Part             `json:"parts"`
	Celsius map[string]float64 `json:"celsius"` // the highest of each sensor
	Rates   map[string]Rate    `json:"rates"`   // what the programs measured over the whole load, by part and what it did: "/dev/sda write", "processors cpu"

	Counters []Counter `json:"counters"` // what was counted of errors, those that grew; never null
	Series   []Series  `json:"series"`   // what was measured over the time; never null
}

// failures names the parts that failed, "" if none has.
func (r Report) failures() string {
	var list []string
	for _, p := range r.Parts {
		if p.Verdict == Fail {
			list = append(list, p.Name+": "+strings.Join(p.Reasons, "; "))
		}
	}
	return strings.Join(list, ". ")
}

// A load is one program, or one for each part.
type load struct {
	part  string        // what it tests: "processors"
	text  string        // for people
	lasts time.Duration // 0 if not known
	// bytes are what each disk is to write and read in all, if that and no time ends the load.
	bytes map[string]int64
	far   *farthest // nil unless the disks themselves say how far they are
	// run returns a verdict for each part that it has tested. An error means that it could not test.
	run func(ctx context.Context) ([]Part, error)
}

// do runs a load under watch, for a step.
func do(ctx context.Context, h steps.Host, l load) (any, error) {
	m := newMeter(h.Machine.FS)
	told := time.Duration(0)
	report, err := observe(ctx, h, l, 0, func(past time.Duration, _ Snapshot) {
		if h.Progress == nil || past-told < sampleEvery {
			return
		}
		told = past
		rates, total := m.rates()
		now := map[string]any{"load": l.text, "seconds": int(past.Seconds()), "of": int(l.lasts.Seconds()), "rates": rates}
		if percent := l.percent(past, total); percent >= 0 {
			now["percent"] = percent
		}
		h.Progress(now)
	})
	report.say(h)
	keepReport(context.WithoutCancel(ctx), h, l.part, report, err)
	if failed := report.failures(); failed != "" { // also if not all could be tested
		err = errors.Join(fmt.Errorf("%w: %s", steps.ErrBurnIn, failed), err)
	}
	if err != nil {
		return nil, err
	}
	report.Series = thin(report.Series, mostStepPoints)
	return report, nil
}

// stepReport is the directory for a step's report, nil if there is none.
func stepReport(h steps.Host, part string) *ReportDir {
	if h.Reports == "" {
		return nil
	}
	return &ReportDir{filepath.Join(h.Reports, "burnin-"+part), h.Version}
}

// newReport makes the directory for a step's report, in the place of the older one of that part of the machine, and returns where a program reports to: to the file that somebody wants, else to one in the
// directory.
func newReport(h steps.Host, part, file string) string {
	d := stepReport(h, part)
	if d == nil {
		return file
	}
	if err := errors.Join(os.RemoveAll(d.Path), os.MkdirAll(d.Logs(), 0o700)); err != nil {
		h.Say("burn-in: no report is kept: %v", err)
		return file
	}
	return cmp.Or(file, filepath.Join(d.Logs(), part))
}

// keepReport writes what a step has found as a person's burn-in does, with fewer points: it is kept in memory, and sent with the logs. unfinished is why not all was tested.
func keepReport(ctx context.Context, h steps.Host, part string, found Report, unfinished error) {
	d := stepReport(h, part)
	if d == nil {
		return
	}
	found.Series, found.Parts = thin(found.Series, mostStepReportPoints), append([]Part{}, found.Parts...)
	r := Result{Profile: "of Ironic's step", Started: found.Started, Ended: found.Ended, Problems: []string{}, Baseline: []Part{}}
	if unfinished != nil {
		found.Parts = append(found.Parts, Part{Name: part, Verdict: Skipped, Reasons: []string{unfinished.Error()}})
		r.Problems = []string{unfinished.Error()}
	}
	r.Loads = []Report{found}
	r.Verdict = r.verdict()
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	inventory, problems := h.Machine.Inventory(ctx)
	machine := Describe(inventory)
	r.Machine = &machine
	if err := d.Write(r, inventory, problems); err != nil {
		h.Say("burn-in: no report is kept: %v", err)
	}
}

// mostStepReportPoints are the points of a series in a step's report.
const mostStepReportPoints = 64

// mostStepPoints are the points of a series in a step's result, which the conductor asks for again and again, and keeps.
const mostStepPoints = 16

// observe runs a load under watch. progress is called with each sample and the time that has passed. With an error, which means that not all was tested, the report has what was found nevertheless.
func observe(ctx context.Context, h steps.Host, l load, every time.Duration, progress func(past time.Duration, s Snapshot)) (Report, error) {
	report := Report{Load: l.text, Started: time.Now().UTC(), Celsius: map[string]float64{}, Counters: []Counter{}, Series: []Series{}, Rates: map[string]Rate{}}
	h.Say("burn-in: %s", l.text)
	before := halted(h)
	w, err := startWatch(ctx, h, every, func(s Snapshot) { progress(time.Since(report.Started)-(halted(h)-before), s) })
	if err != nil {
		return report, err
	}
	parts, err := l.run(ctx)
	seen, counted, series := w.end(context.WithoutCancel(ctx))
	report.Parts, report.Counters, report.Series, report.Celsius, report.Ended = parts, counted, series, celsius(series), time.Now().UTC()
	for _, p := range parts {
		maps.Copy(report.Rates, p.rates)
	}
	for _, s := range append(seen, haltedPart(l.part, halted(h)-before)...) {
		// A disk is known by more than the kernel's name once it was tested.
		i := slices.IndexFunc(report.Parts, func(p Part) bool { return p.Name == s.Name || strings.HasPrefix(p.Name, s.Name+" ") })
		if i < 0 {
			report.Parts = append(report.Parts, s)
			continue
		}
		report.Parts[i].Verdict = cmp.Or(s.Verdict, report.Parts[i].Verdict)
		report.Parts[i].Reasons = append(report.Parts[i].Reasons, s.Reasons...)
	}
	sortParts(report.Parts)
	return report, err
}

// say prints the verdicts.
func (r Report) say(h steps.Host) {
	for _, p := range r.Parts {
		h.Say("burn-in: %s", strings.TrimSpace(fmt.Sprintf("%-7s %s  %s", p.Verdict, p.Name, strings.Join(p.Reasons, "; "))))
	}
}

// fault is what a program has found wrong with the part that it tests. Any other error means that it could not test.
type fault struct{ error }

func (f fault) Unwrap() error { return f.error }

// judged is the verdict of a program on one part.
func judged(part string, err error) ([]Part, error) {
	switch {
	case err == nil:
		return []Part{{Name: part, Verdict: Pass, Reasons: []string{}}}, nil
	case errors.As(err, new(fault)):
		return []Part{{Name: part, Verdict: Fail, Reasons: []string{err.Error()}}}, nil
	}
	return nil, err
}

// exitStatus is that of a program which ended by itself; 0 for any other error.
func exitStatus(err error) int {
	var failed *tool.Error
	if errors.As(err, &failed) {
		return max(failed.Exit, 0)
	}
	return 0
}

// ownOutput is a program's own standard output, also where nobody has made /dev/stdout.
const ownOutput = "/proc/self/fd/1"

// stressFailed is stress-ng's exit status of a stressor that failed, such as by a verification. Source: stress-ng(1), EXIT STATUS.
const stressFailed = 2

// stressFound tells whether a stressor itself says what it has found. Of one that was killed stress-ng says nothing but that its count is corrupted, and exits with the same status.
func stressFound(err error) bool {
	var failed *tool.Error
	if !errors.As(err, &failed) || failed.Exit != stressFailed {
		return false
	}
	for line := range strings.Lines(failed.Stderr) {
		if strings.Contains(line, "fail:") && !strings.Contains(line, "bogo-ops counter") && !strings.Contains(line, "metrics-check:") {
			return true
		}
	}
	return false
}

// killedForMemory is how many programs the kernel has killed since the machine was started. Source: Linux mm/vmstat.c, oom_kill.
func killedForMemory(root fs.FS) (n int64) {
	for line := range strings.Lines(text(root, "proc/vmstat")) {
		if number, is := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); is {
			n, _ = strconv.ParseInt(number, 10, 64) // what cannot be read is none
		}
	}
	return n
}

// CPU is the step burnin_cpu.
func CPU(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	r := newReader(j.Node)
	workers, lasts, file := r.number("agent_burnin_cpu_cpu", 0), r.seconds("agent_burnin_cpu_timeout", 24*time.Hour), r.file("agent_burnin_cpu_outputfile")
	return stress(ctx, h, r, "processors", lasts, file, "--cpu", strconv.FormatInt(workers, 10))
}

// Memory is the step burnin_memory.
func Memory(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	r := newReader(j.Node)
	workers, lasts, file := r.number("agent_burnin_vm_vm", 0), r.seconds("agent_burnin_vm_timeout", 24*time.Hour), r.file("agent_burnin_vm_outputfile")
	bytes := r.text("agent_burnin_vm_vm-bytes", "98%", amounts, "an amount such as 98% or 16G")
	return stress(ctx, h, r, "memory", lasts, file, "--vm", strconv.FormatInt(workers, 10), "--vm-bytes", bytes)
}

func stress(ctx context.Context, h steps.Host, r *reader, part string, lasts time.Duration, file string, args ...string) (any, error) {
	if r.err == nil && lasts == 0 {
		r.err = fmt.Errorf("%w: driver_info: a burn-in without end", steps.ErrArgs) // stress-ng takes 0 for that
	}
	if r.err != nil {
		return nil, r.err
	}
	if _, err := h.Tools.Run(ctx, tool.StressNG, "--version"); err != nil {
		return nil, err
	}
	if err := makeOutput(file, file); err != nil {
		return nil, err
	}
	file = newReport(h, part, file)
	return do(ctx, h, stressLoad(h, part, lasts, file, args...))
}

func stressLoad(h steps.Host, part string, lasts time.Duration, file string, args ...string) load {
	args = append(args, "--verify", "--metrics-brief", "--timeout", strconv.Itoa(int(lasts.Seconds())))
	if file != "" {
		args = append(args, "--log-file", file)
	}
	return load{
		part:  part,
		text:  fmt.Sprintf("%s for %v: %s", part, lasts, tool.Line(tool.StressNG, args...)),
		lasts: lasts,
		run: func(ctx context.Context) ([]Part, error) {
			rates, before := map[string]Rate{}, killedForMemory(h.Machine.FS)
			err := lasting(h, lasts, "--timeout", func(more ...string) error {
				out, err := h.Tools.Run(ctx, tool.StressNG, slices.Concat(args, []string{"--yaml", ownOutput}, more)...)
				maps.Copy(rates, parseStress(out))
				switch killed := killedForMemory(h.Machine.FS) - before; {
				case killed > 0 && exitStatus(err) == stressFailed && !stressFound(err):
					return errors.Join(fmt.Errorf("the kernel has killed %d programs for want of memory meanwhile", killed), err)
				case exitStatus(err) == stressFailed:
					return fault{err}
				}
				return err
			})
			parts, err := judged(part, err)
			if err != nil || parts[0].Verdict != Pass {
				return parts, err
			}
			if len(rates) == 0 { // it exits with 0 also where there is not so much memory, and nothing was done
				return nil, fmt.Errorf("%s: %s got nothing done in the time, for which it may have had too little memory", part, tool.StressNG)
			}
			parts[0].rates = withPart(part, rates)
			return parts, nil
		},
	}
}

// Disk is the step burnin_disk. It writes to all disks that are not on the skip list, and what they held is gone.
func Disk(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	return burnDisks(ctx, h, j, localDrives(h))
}

func burnDisks(ctx context.Context, h steps.Host, j steps.Job, open opener) (any, error) {
	r := newReader(j.Node)
	loops, lasts := r.number("agent_burnin_fio_disk_loops", 4), r.seconds("agent_burnin_fio_disk_runtime", 0)
	file, smart := r.file("agent_burnin_fio_disk_outputfile"), r.flag("agent_burnin_fio_disk_smart_test")
	if r.err == nil && loops == 0 {
		r.fail("agent_burnin_fio_disk_loops", loops, "1 or more")
	}
	if r.err != nil {
		return nil, r.err
	}
	if _, err := h.Tools.Run(ctx, tool.Fio, "--version"); err != nil {
		return nil, err
	}
	disks, others, err := chooseDisks(ctx, h, j.Node)
	if err != nil {
		return nil, err
	}
	if h.Confirm != nil {
		var plan strings.Builder
		for _, p := range others {
			if p.Verdict == Fail {
				fmt.Fprintf(&plan, silentPlan, p.Name)
			}
		}
		for _, d := range disks {
			fmt.Fprintf(&plan, "overwrite all of %s\n", title(d))
		}
		if err := h.Confirm(ctx, plan.String()); err != nil {
			return nil, err
		}
	}
	for _, d := range disks {
		if err := makeOutput(file, diskLog(file, d.Name)); err != nil {
			return nil, err
		}
	}
	file = newReport(h, "disks", file)
	return do(ctx, h, diskLoad(disks, others, loops, lasts, func(ctx context.Context, d inspect.Disk) ([]Part, error) {
		parts, err := testDisk(ctx, h, d, loops, lasts, true, file) // what is on it is the node's former life
		if !smart || err != nil || parts[0].Verdict != Pass {
			return parts, err
		}
		h.Say("burn-in: %s tests itself", d.Name)
		tested, err := selfTest(ctx, open, d, true, func(int) {})
		return append(parts, tested...), err
	}))
}

// makeOutput makes the file for a program's report, or empties it; none if the option is "". What is no regular file, such as a device, is left alone, and so is what the kernel shows as
// files, some of which are commands to it or the firmware's variables: root may write to anything.
func makeOutput(option, name string) error {
	if option == "" {
		return nil
	}
	if err := makeFile(name); err != nil {
		return fmt.Errorf("%w: driver_info: the report cannot go to %s: %w", steps.ErrArgs, name, err)
	}
	return nil
}

func makeFile(name string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return err
	}
	for _, of := range []string{"/proc", "/sys", "/dev"} {
		if dir == of || strings.HasPrefix(dir, of+"/") && !strings.HasPrefix(dir, "/dev/shm") {
			return fmt.Errorf("%s is the kernel's", of)
		}
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	switch info, err := os.Lstat(name); {
	case err == nil && !info.Mode().IsRegular():
		return errors.New("it is there and is no regular file")
	case err == nil:
		flags = os.O_WRONLY | os.O_TRUNC
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// runFio runs fio, and keeps what it reports in a file, unless that is "". Its exit status is the number of jobs that failed, whatever for; the report has the error of each. Those that are
// not in the list, such as too little memory, are fio's own and no fault of what it tests.
func runFio(ctx context.Context, h steps.Host, file string, faults []fioError, args ...string) (volume, error) {
	out, err := h.Tools.Run(ctx, tool.Fio, args...)
	if file != "" && len(out) > 0 {
		// Not by fio itself: it would end with the status that a broken disk has where the file cannot be written, and the report would be lost.
		err := makeFile(file)
		if err == nil {
			err = os.WriteFile(file, out, 0o600)
		}
		if err != nil {
			h.Say("burn-in: what the program reports is not kept: %v", err)
		}
	}
	v, unread := parseFio(out)
	switch {
	case exitStatus(err) > 0 && slices.ContainsFunc(v.failed, func(e fioError) bool { return slices.Contains(faults, e) }):
		return v, fault{err}
	case err != nil && len(v.failed) > 0:
		return v, fmt.Errorf("fio has found no fault, and ended with an error of its own: %w: %w", v.failed[0], err)
	case err != nil:
		return v, err
	case unread != nil:
		return v, unread
	case len(v.failed) > 0:
		return v, fmt.Errorf("fio ended with 0, and reports: %w", v.failed[0])
	}
	return v, nil
}

// diskLoad tests disks beside each other. The result has others beside them, of which all is known already.
func diskLoad(disks []inspect.Disk, others []Part, loops int64, lasts time.Duration, test func(context.Context, inspect.Disk) ([]Part, error)) load {
	how := fmt.Sprintf("%d times", loops)
	if lasts > 0 {
		how = fmt.Sprintf("for %v", lasts)
	}
	bytes := map[string]int64{}
	if lasts == 0 {
		for _, d := range disks {
			bytes[d.Name] = 2 * d.Size * loops
		}
	}
	return load{
		part:  "disks",
		bytes: bytes,
		text:  fmt.Sprintf("%d disks, written and verified %s", len(disks), how),
		lasts: lasts,
		run: func(ctx context.Context) ([]Part, error) {
			tested, errs := make([][]Part, len(disks)), make([]error, len(disks))
			var all sync.WaitGroup
			for i, d := range disks {
				all.Go(func() { tested[i], errs[i] = test(ctx, d) })
			}
			all.Wait()
			return append(slices.Concat(tested...), others...), errors.Join(errs...)
		},
	}
}

// diskArgs write all of a disk and read it back, as often as asked. ironic-python-agent's are others, with which no disk fails: of a mix of reads and writes
// (rw=readwrite) fio verifies nothing, and with continue_on_error=verify it exits with 0 whatever it finds. Given a time, it reads nothing back unless it does so as it goes.
//
// As a thread fio ends when it is ended; a child of its own would go on writing. Its state for a later verification would be left in the working directory.
func diskArgs(disk string, size, loops int64, lasts time.Duration) []string {
	args := []string{"--thread", "--verify_state_save", "0", "--name", disk, "--filename", disk, "--rw", "write", "--bs", "4k", "--direct", "1", "--ioengine", "libaio", "--iodepth", "32",
		"--verify", "crc32c", "--verify_fatal", "1", "--loops", strconv.FormatInt(loops, 10)}
	if lasts > 0 {
		args = append(args, "--runtime", strconv.Itoa(int(lasts.Seconds())), "--time_based", "--verify_backlog", strconv.FormatInt(backlog(size), 10))
	}
	return append(args, "--output-format", "json")
}

// diskLog is where fio's report on one disk goes.
func diskLog(file, disk string) string {
	return file + "." + strings.ReplaceAll(strings.TrimPrefix(disk, "/dev/"), "/", "_")
}

// chooseDisks returns the disks to be written to, and of the others why they are left out, or have failed already: one that does not answer is a finding, and keeps nobody from testing the rest. Nothing is
// written yet. A disk that somebody uses is an error.
func chooseDisks(ctx context.Context, h steps.Host, n steps.Node) (disks []inspect.Disk, others []Part, err error) {
	machine := listDisks(ctx, h)
	if machine.err != nil {
		return nil, nil, machine.err
	}
	list, err := inspect.ParseSkipList(n.Properties["skip_block_devices"])
	if err != nil {
		return nil, nil, fmt.Errorf("skip_block_devices: %w", err)
	}
	for _, name := range machine.silent {
		others = append(others, Part{Name: name, Verdict: Fail, Reasons: []string{isSilent}})
	}
	use, skip, err := list.Split(machine.disks)
	if err != nil {
		return nil, nil, err
	}
	leave := func(d inspect.Disk, why string) {
		others = append(others, Part{Name: title(d), Verdict: Skipped, Reasons: []string{why}})
	}
	for _, d := range skip {
		leave(d, "it is on the skip list")
	}
	var errs []error
	for _, d := range use {
		why := leftOut(h, d)
		switch {
		case d.Size == 0:
			continue // no medium in it
		case d.Type == "mpath": // the disks that it is made of are not listed
			leave(d, errMultipath)
		case d.Type != "disk":
			continue // it is made of disks
		case why != "":
			leave(d, why)
		default:
			opened, err := hold(h, d) // nobody else has it: no mount, no array, no volume
			if err == nil {
				err = opened.Close()
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", title(d), err))
			}
			disks = append(disks, d)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, fmt.Errorf("nothing was written: %w", err)
	}
	if len(disks)+len(machine.silent) == 0 {
		return nil, nil, fmt.Errorf("%w to burn in", inspect.ErrNoDisk)
	}
	return disks, others, nil
}

// errMultipath is why a multipath device is left out.
const errMultipath = "it is a multipath device, and only disks are tested"

// hold opens a disk for this program alone, also by its other paths, by which others may use it. One that is dead does not matter.
func hold(h steps.Host, d inspect.Disk) (steps.Disk, error) {
	disk, err := h.Open(d.Name)
	if err != nil {
		return nil, err
	}
	all := held{Disk: disk}
	for _, p := range d.Paths {
		switch other, err := h.Open(p.Name); {
		case err == nil:
			all.others = append(all.others, other)
		case errors.Is(err, syscall.EBUSY):
			return nil, errors.Join(fmt.Errorf("%s is the same disk: %w", p.Name, err), all.Close())
		}
	}
	return all, nil
}

// held is a disk that is open by all its paths.
type held struct {
	steps.Disk
	others []steps.Disk
}

// Close closes it by all its paths.
func (h held) Close() error {
	err := h.Disk.Close()
	for _, o := range h.others {
		err = errors.Join(err, o.Close())
	}
	return err
}

// leftOut says why a disk is not written to unless somebody names it; "" if it is.
func leftOut(h steps.Host, d inspect.Disk) string {
	switch {
	case d.ReadOnly:
		return "it is read-only"
	case isMedium(h, d):
		return "this machine's settings were read from it"
	case d.Removable || d.Tran == "usb":
		return "it is removable, or on USB"
	}
	return ""
}

func isMedium(h steps.Host, d inspect.Disk) bool {
	return slices.ContainsFunc(h.Media, func(m string) bool {
		return slices.ContainsFunc(d.Names(), func(name string) bool { return strings.HasPrefix(m, name) })
	})
}

// title is a disk as people find it.
func title(d inspect.Disk) string {
	t := d.Name
	if d.Model != "" {
		t += " " + string(d.Model)
	}
	if d.Serial != "" {
		t += " serial " + string(d.Serial)
	}
	if d.Bay != "" {
		t += " in bay " + d.Bay
	}
	return t
}

// A reader gives its partner readerPause to listen: to be there when some of the partner's ports are open and others are not yet ends the exchange on the
// former. fio ends with readerEarly if its partner does not listen at all, and is started again after readerRetry.
const (
	readerPause = 10 * time.Second
	readerRetry = 30 * time.Second
	readerEarly = 16
	// partnerLimit is how long a partner is waited for. With the time that the exchange is to last it bounds one way: fio itself waits for ever for somebody to connect, and for bytes that do not come.
	partnerLimit = time.Hour
)

// Network is the step burnin_network: two machines send to each other, one way and then the other.
func Network(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	r := newReader(j.Node)
	lasts, file := r.seconds("agent_burnin_fio_network_runtime", 6*time.Hour), r.file("agent_burnin_fio_network_outputfile")
	p, meet := r.network()
	if r.err == nil && lasts == 0 {
		r.fail("agent_burnin_fio_network_runtime", 0, "1 or more")
	}
	if r.err != nil {
		return nil, r.err
	}
	if _, err := h.Tools.Run(ctx, tool.Fio, "--version"); err != nil {
		return nil, err
	}
	for _, role := range []string{"writer", "reader"} {
		if err := makeOutput(file, networkLog(file, role)); err != nil {
			return nil, err
		}
	}
	if meet != nil {
		var err error
		if p, err = meet.findPartner(ctx, h); err != nil {
			return nil, err
		}
	}
	return do(ctx, h, networkLoad(h, p, lasts, newReport(h, "network", file)))
}

func networkLoad(h steps.Host, p pairing, lasts time.Duration, file string) load {
	roles := []string{"writer", "reader"}
	if p.Role == "reader" {
		slices.Reverse(roles)
	}
	return load{
		part:  "network",
		text:  fmt.Sprintf("network with %s for %v each way, first as the %s; it is waited for %v at most", p.Partner, lasts, p.Role, partnerLimit),
		lasts: 2 * lasts,
		run: func(ctx context.Context) ([]Part, error) {
			rates := map[string]Rate{}
			for _, role := range roles {
				parts, err := exchange(ctx, h, role, p.Partner, lasts, file)
				if err != nil || parts[0].Verdict != Pass {
					return parts, err
				}
				maps.Copy(rates, parts[0].rates)
			}
			return []Part{{Name: "network to " + p.Partner, Verdict: Pass, Reasons: []string{}, rates: rates}}, nil
		},
	}
}

// exchange is one way. A reader whose partner does not listen yet tries again.
func exchange(ctx context.Context, h steps.Host, role, partner string, lasts time.Duration, file string) ([]Part, error) {
	limit := partnerLimit + lasts
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no end of the exchange with %s as the %s within %v: it did not come, or went away", partner, role, limit))
	defer cancel()
	log := ""
	if file != "" {
		log = networkLog(file, role)
	}
	args := networkArgs(role, partner, lasts)
	if role == "reader" {
		select {
		case <-time.After(readerPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	for told := false; ; told = true {
		v, err := runFio(ctx, h, log, networkFaults(), args...)
		waits := role == "reader" && exitStatus(err) == readerEarly && !slices.ContainsFunc(v.failed, func(e fioError) bool { return !slices.Contains(notThere(), e) })
		if !waits {
			parts, err := judged("network to "+partner, err)
			if err != nil {
				return nil, fmt.Errorf("network to %s: %w", partner, err)
			}
			if parts[0].Verdict != Pass {
				return parts, nil
			}
			if v.wrote+v.read == 0 {
				return nil, fmt.Errorf("network to %s: as the %s nothing went over it", partner, role)
			}
			if v.lasted < lasts-time.Second { // such as of a partner that was stopped
				return nil, fmt.Errorf("network to %s: as the %s it ended after %v of %v", partner, role, v.lasted, lasts)
			}
			parts[0].rates = withPart("network to "+partner, v.rates)
			return parts, nil
		}
		if !told {
			h.Say("burn-in: %s does not listen yet; it is tried every %v", partner, readerRetry)
		}
		select {
		case <-time.After(readerRetry):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func networkArgs(role, partner string, lasts time.Duration) []string {
	args := []string{"--thread", "--ioengine", "net", "--port", "9000", "--fill_device", "1", "--group_reporting", "--gtod_reduce", "1", "--numjobs", "16", "--name", role}
	if role == "writer" {
		args = append(args, "--rw", "write", "--runtime", strconv.Itoa(int(lasts.Seconds())), "--time_based", "--listen")
	} else {
		args = append(args, "--rw", "read", "--hostname", partner)
	}
	return append(args, "--output-format", "json")
}

// networkLog is where fio's report on one way goes.
func networkLog(file, role string) string { return file + "." + role }
