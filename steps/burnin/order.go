// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// ErrHoldsData means that a disk that was to be overwritten holds data. Nothing was touched.
var ErrHoldsData = errors.New("holds data")

// AllDisks in place of a disk's name stands for all but those that are read-only, removable, on USB or a medium with this machine's settings.
const AllDisks = "all"

// Order is what a person wants of a burn-in.
type Order struct {
	Profile Profile
	Disks   []string      // names (sda, /dev/sda) or serial numbers of the disks to overwrite, or AllDisks; none: those that the profile names
	Force   bool          // also if they hold data; one that is in use is never written to
	Every   time.Duration // how often the machine's counters and sensors are read; 0 is each second
	Logs    string        // directory that gets the programs' own reports; "" for none

	first  int    // number of the first load, from 0
	resets int    // in the first load
	gone   []int  // loads of which all disks are lost
	drives opener // nil for those of this machine
}

// Plan is what will be done. Nothing was touched yet.
type Plan struct {
	Profile string
	Disks   []inspect.Disk // to be overwritten, each once
	loads   []load
	lasts   time.Duration // of the loads with a time
	open    bool          // there are loads without
	Every   time.Duration // as in [Order]
	text    strings.Builder
	force   bool
	kept    []keptLoad // all loads, also those that an earlier start of the machine has run

	// Of a run that goes on.
	Crashes  []Crash // what kernels have left since its start before
	started  time.Time
	earlier  []Report
	problems []string
	found    []Part        // of resets
	again    bool          // the first load was interrupted
	past     time.Duration // of the first load
	resets   int           // in the first load

	keeper *keeper
}

// Result is what was found.
type Result struct {
	Profile string    `json:"profile"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	// Verdict is FAIL if a part failed, else SKIPPED if not all of the plan was tested, or nothing, else PASS.
	Verdict  Verdict  `json:"verdict"`
	Problems []string `json:"problems"` // what kept loads from being run to their end; never null
	// Loads are all of the plan, in their order. Behind them comes one that is none, if there is something to tell of the run as a whole: resets, parts that are lost.
	Loads    []Report `json:"loads"`
	Machine  *Machine `json:"machine"`  // null if nobody has looked
	Baseline []Part   `json:"baseline"` // outliers in comparison with other runs; never null
}

// Plan looks at the machine and its programs, and says what would be done. Wrong orders are [steps.ErrArgs].
func (o Order) Plan(ctx context.Context, h steps.Host) (*Plan, error) {
	p := &Plan{Profile: o.Profile.Name, force: o.Force, Every: o.Every}
	var programs []tool.Tool
	disksWanted := false
	machine := listDisks(ctx, h)
	for _, name := range machine.silent {
		merge(&p.found, Part{Name: name, Verdict: Fail, Reasons: []string{isSilent}})
		fmt.Fprintf(&p.text, silentPlan, name)
	}
	for i, l := range o.Profile.Loads {
		log := func(name string) string {
			if o.Logs == "" {
				return ""
			}
			if i == 0 && o.resets > 0 { // what a reset has left of the log of before may not be readable, and is left alone
				name += fmt.Sprintf("-reset%d", o.resets)
			}
			return filepath.Join(o.Logs, fmt.Sprintf("%d-%s.log", o.first+i+1, name))
		}
		program := tool.Fio
		var made load
		var burned []inspect.Disk
		var details string
		switch {
		case l.Processors != nil:
			program = tool.StressNG
			made = stressLoad(h, "processors", time.Duration(l.Processors.Time), log("processors"), "--cpu", strconv.Itoa(int(l.Processors.Workers)))
		case l.Memory != nil:
			program = tool.StressNG
			made = stressLoad(h, "memory", time.Duration(l.Memory.Time), log("memory"), "--vm", strconv.Itoa(int(l.Memory.Workers)), "--vm-bytes", cmp.Or(l.Memory.Amount, "90%"))
		case l.Network != nil:
			made = networkLoad(h, pairing{l.Network.Role, l.Network.Partner}, time.Duration(l.Network.Time), log("network"))
		case l.SelfTest != nil:
			program = ""
			if machine.err != nil {
				return nil, machine.err
			}
			disks := slices.DeleteFunc(slices.Clone(machine.disks), func(d inspect.Disk) bool { return d.Size == 0 || d.Type != "disk" })
			open := o.drives
			if open == nil {
				open = localDrives(h)
			}
			made = selfTestLoad(open, disks, l.SelfTest.Kind == longTest)
		default:
			disksWanted = true
			names := o.Disks
			if len(names) == 0 {
				names = l.Disks.Write
			}
			disks, skipped, err := machine.named(h, names)
			if err != nil {
				return nil, err
			}
			if err := unused(h, disks, o.Force); err != nil {
				return nil, err
			}
			made = diskLoad(disks, skipped, int64(l.Disks.Loops), time.Duration(l.Disks.Time), func(ctx context.Context, d inspect.Disk) ([]Part, error) {
				return testDisk(ctx, h, d, int64(l.Disks.Loops), time.Duration(l.Disks.Time), o.Force, log("disk"))
			})
			if len(disks) == 0 {
				made.run, made.lasts = nil, 0
				made.text = "disks: not tested, for none was named to be overwritten"
			}
			burned = disks
			for _, d := range disks {
				details += fmt.Sprintf("   overwrite all of %s, %s\n", title(d), inspect.Size(d.Size))
				if !slices.ContainsFunc(p.Disks, func(known inspect.Disk) bool { return known.Name == d.Name }) {
					p.Disks = append(p.Disks, d)
				}
			}
			for _, s := range skipped {
				details += fmt.Sprintf("   leave %s as it is: %s\n", s.Name, strings.Join(s.Reasons, "; "))
			}
			if made.run == nil {
				why := errNoDisk
				if slices.Contains(o.gone, i) {
					why = errNoneLeft
					made.text = "disks: not tested, for " + why.Error()
				}
				made.run = func(context.Context) ([]Part, error) { return skipped, why }
				program = ""
			}
		}
		if program != "" && !slices.Contains(programs, program) {
			programs = append(programs, program)
		}
		p.loads = append(p.loads, made)
		p.kept = append(p.kept, keptLoad{l, burned})
		p.lasts += made.lasts
		p.open = p.open || made.lasts == 0 && program != ""
		fmt.Fprintf(&p.text, "%d. %s\n%s", o.first+i+1, made.text, details)
	}
	if len(o.Disks) > 0 && !disksWanted {
		return nil, fmt.Errorf("%w: disks are named, and the profile %s tests none", steps.ErrArgs, o.Profile.Name)
	}
	for _, program := range programs {
		if _, err := h.Tools.Run(ctx, program, "--version"); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// errNoDisk is no problem: nobody wanted disks to be tested.
var errNoDisk = errors.New("no disk was named to be overwritten")

var errNoneLeft = errors.New("none of the disks that were named is left")

// String is the plan for people, several lines.
func (p *Plan) String() string {
	about := p.lasts.String()
	if p.open {
		about = "as long as the disks take"
		if p.lasts > 0 {
			about = p.lasts.String() + ", and as long as the disks take"
		}
	}
	return fmt.Sprintf("burn-in %s: %s\n%s", p.Profile, about, p.text.String())
}

// Following is told how a run of a plan goes on. Loads are numbered from 0, those that a run which goes on has behind it do not count. Functions that are nil are not called, and none is called beside another.
type Following struct {
	Began    func(load int)
	Progress func(load int, past time.Duration) // with each sample, before Sampled
	Sampled  func(Snapshot)
	Ended    func(load int, r Report) // also of a load that did not begin
	Skip     <-chan struct{}          // each value ends the load that runs, and the next one begins; nil: nobody skips
}

// And tells two.
func (f Following) And(other Following) Following {
	return Following{
		Began:    func(load int) { f.began(load); other.began(load) },
		Progress: func(load int, past time.Duration) { f.progress(load, past); other.progress(load, past) },
		Sampled:  func(s Snapshot) { f.sampled(s); other.sampled(s) },
		Ended:    func(load int, r Report) { f.ended(load, r); other.ended(load, r) },
		Skip:     cmp.Or(f.Skip, other.Skip),
	}
}

func (f Following) began(load int) {
	if f.Began != nil {
		f.Began(load)
	}
}

func (f Following) progress(load int, past time.Duration) {
	if f.Progress != nil {
		f.Progress(load, past)
	}
}

func (f Following) sampled(s Snapshot) {
	if f.Sampled != nil {
		f.Sampled(s)
	}
}

func (f Following) ended(load int, r Report) {
	if f.Ended != nil {
		f.Ended(load, r)
	}
}

// Run does what the plan says, one load after the other. When ctx ends, the load that runs is stopped, and the result says what was found until then.
func (p *Plan) Run(ctx context.Context, h steps.Host, f Following) Result {
	r := Result{Profile: p.Profile, Started: p.started, Problems: append([]string{}, p.problems...), Loads: slices.Clone(p.earlier), Baseline: []Part{}}
	if r.Started.IsZero() {
		r.Started = time.Now().UTC()
	}
	before, known := look(context.WithoutCancel(ctx), h, p.Disks)
	left := p.lasts
	for i, l := range p.loads {
		skip := func(format string, args ...any) []Part {
			return []Part{{Name: l.part, Verdict: Skipped, Reasons: []string{fmt.Sprintf(format, args...)}}}
		}
		now := time.Now().UTC()
		report := Report{Load: l.text, Started: now, Ended: now, Celsius: map[string]float64{}, Rates: map[string]Rate{}, Counters: []Counter{}, Series: []Series{}}
		if ctx.Err() != nil {
			report.Parts = skip("stopped before it began: %v", context.Cause(ctx))
			r.Problems = append(r.Problems, l.part+": stopped before it began")
			p.keeper.stops()
		} else {
			past := time.Duration(0) // before the machine was reset
			if i == 0 {
				past = p.past
			}
			p.keeper.began(l, past)
			told, stopped := time.Duration(0), false
			f.began(i)
			all := ctx
			ctx, end := skippable(ctx, f.Skip)
			found, err := observe(ctx, h, l, p.Every, func(now time.Duration, s Snapshot) {
				f.progress(i, now)
				f.sampled(s)
				p.keeper.goes(past+now, s.Findings)
				if now-told < max(sampleEvery, min(l.lasts/100, 10*time.Minute)) {
					return
				}
				told = now
				now = now.Round(time.Second)
				if l.lasts == 0 {
					h.Say("burn-in: %s: %v so far", l.part, now)
					return
				}
				h.Say("burn-in: %s: %v of %v, %v left in all", l.part, now, l.lasts, max(left-now, 0))
			})
			switch {
			case errors.Is(err, errNoDisk):
				found.Parts = append(found.Parts, skip("%v", errNoDisk)...)
			case ctx.Err() != nil && err != nil:
				found.Parts = append(found.Parts, skip("stopped after %v: %v", time.Since(now).Round(time.Second), context.Cause(ctx))...)
				r.Problems = append(r.Problems, l.part+": stopped before its end")
				stopped = all.Err() != nil // and not skipped
			case err != nil:
				found.Parts = append(found.Parts, skip("%v", err)...)
				r.Problems = append(r.Problems, l.part+": "+err.Error())
			}
			end()
			found.Ended = time.Now().UTC()
			report = found
			sortParts(report.Parts)
			report.say(h)
			if stopped {
				p.keeper.stops()
			} else {
				p.keeper.ended(append(slices.Clone(r.Loads), report), r.Problems)
			}
		}
		left -= l.lasts
		f.ended(i, report)
		r.Loads = append(r.Loads, report)
	}
	r.Ended = time.Now().UTC()
	found := slices.Clone(p.found)
	if after, again := look(context.WithoutCancel(ctx), h, p.Disks); known && again {
		merge(&found, lost(before.without(vanished(r.Loads)), after)...)
	} else {
		merge(&found, Part{Name: "machine", Reasons: []string{fmt.Sprintf("what was lost since the burn-in began is not known: it did not answer within %v", lookTime)}})
	}
	if len(found) > 0 {
		whole := Report{Load: "the run as a whole: resets, and what was lost", Started: r.Started, Ended: r.Ended, Celsius: map[string]float64{}, Rates: map[string]Rate{}, Counters: []Counter{}, Series: []Series{}, Parts: found}
		sortParts(whole.Parts)
		whole.say(h)
		r.Loads = append(r.Loads, whole)
	}
	r.Verdict = r.verdict()
	return r
}

func (r Result) verdict() Verdict {
	passed := false
	for _, l := range r.Loads {
		for _, p := range l.Parts {
			if p.Verdict == Fail {
				return Fail
			}
			passed = passed || p.Verdict == Pass
		}
	}
	if len(r.Problems) > 0 || !passed {
		return Skipped
	}
	return Pass
}

// isSilent is why a disk fails of which nothing is known, silentPlan its line in a plan.
const (
	isSilent   = "the disk does not answer when it is asked what it is"
	silentPlan = "%s is not tested, and fails: " + isSilent + "\n"
)

// listing is the machine's disks.
type listing struct {
	disks  []inspect.Disk // that said what they are
	silent []string       // names of those that did not
	why    error          // what the silent ones did
	err    error          // anything else that is wrong with the list
}

// listDisks lists the disks. One that hangs is a finding, and keeps nobody from testing the rest of the machine.
func listDisks(ctx context.Context, h steps.Host) (l listing) {
	all, err := h.Machine.Disks(ctx)
	others := ctx.Err() != nil
	for _, d := range all {
		if d.Type == "" {
			l.silent = append(l.silent, d.Name)
			continue
		}
		l.disks = append(l.disks, d)
		others = others || len(d.Unread) > 0
	}
	if len(l.silent) > 0 && !others {
		l.why = err
	} else {
		l.err = err
	}
	return l
}

// named returns the disks that names mean, and the others with the reason that they are not among them. A silent disk cannot be named.
func (l listing) named(h steps.Host, names []string) (disks []inspect.Disk, skipped []Part, err error) {
	if l.err != nil && len(names) > 0 {
		return nil, nil, l.err
	}
	all := slices.Clone(l.disks)
	for _, d := range all {
		if d.Type == "mpath" { // the disks that it is made of are not listed
			skipped = append(skipped, Part{Name: title(d), Verdict: Skipped, Reasons: []string{errMultipath}})
		}
	}
	all = slices.DeleteFunc(all, func(d inspect.Disk) bool { return d.Size == 0 || d.Type != "disk" })
	is := func(d inspect.Disk, name string) bool {
		return name == d.Name || name == strings.TrimPrefix(d.Name, "/dev/") || d.Serial != "" && name == string(d.Serial)
	}
	for _, name := range names {
		var meant []inspect.Disk
		for _, d := range all {
			if is(d, name) {
				meant = append(meant, d)
			}
		}
		switch {
		case name == AllDisks:
		case len(meant) == 0 && l.why != nil: // it may be the silent one's name or number
			return nil, nil, fmt.Errorf("no disk that answers has the name or the serial number %.100q: %w", name, l.why)
		case len(meant) == 0:
			return nil, nil, fmt.Errorf("%w: no disk here has the name or the serial number %.100q", inspect.ErrNoDisk, name)
		case len(meant) > 1:
			return nil, nil, fmt.Errorf("%.100q is both %s and %s", name, title(meant[0]), title(meant[1]))
		case meant[0].ReadOnly:
			return nil, nil, fmt.Errorf("%s is read-only", title(meant[0]))
		case isMedium(h, meant[0]):
			return nil, nil, fmt.Errorf("%s: this machine's settings were read from it", title(meant[0]))
		}
	}
	for _, d := range all {
		why := "it was not named"
		if slices.Contains(names, AllDisks) {
			why = leftOut(h, d)
		}
		if slices.ContainsFunc(names, func(name string) bool { return is(d, name) }) {
			why = ""
		}
		if why == "" {
			disks = append(disks, d)
			continue
		}
		skipped = append(skipped, Part{Name: title(d), Verdict: Skipped, Reasons: []string{why}})
	}
	if len(names) > 0 && len(disks) == 0 {
		return nil, nil, fmt.Errorf("%w to burn in", inspect.ErrNoDisk)
	}
	return disks, skipped, nil
}

// unused is nil if nobody uses the disks and none holds data. All reasons are told at once.
func unused(h steps.Host, disks []inspect.Disk, force bool) error {
	var errs []error
	for _, d := range disks {
		opened, err := hold(h, d)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", title(d), err))
			continue
		}
		err = nil
		if !force {
			err = empty(opened)
		}
		if err := errors.Join(err, opened.Close()); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", title(d), err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	return nil
}

// ends is how much is looked at of each end of a disk: all known signatures of partition tables, file systems and members of arrays, volume groups and pools
// lie there, the innermost one, VMFS's, at 1 MiB. Bytes.
const ends = 2 << 20

// blockSize is that of what fio writes here, bytes.
const blockSize = 4096

// fioMagic begins each block that fio writes to be verified. Source: fio's verify.h, FIO_HDR_MAGIC, little-endian.
var fioMagic = []byte{0xca, 0xac}

// empty is nil if both ends of a disk are zeros or what an earlier burn-in left there. Anything else may be data, known or not.
func empty(d steps.Disk) error {
	size := d.Size()
	for _, at := range []int64{0, max(0, size-ends) &^ (blockSize - 1)} {
		b := make([]byte, min(ends, size-at))
		if _, err := d.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("look whether it holds data: %w", err)
		}
		for start := 0; start < len(b); start += blockSize {
			block := b[start:min(start+blockSize, len(b))]
			if bytes.HasPrefix(block, fioMagic) || len(bytes.TrimLeft(block, "\x00")) == 0 {
				continue
			}
			return fmt.Errorf("it %w: %s", ErrHoldsData, content(d, b, at+int64(start)))
		}
	}
	return nil
}

// content says what may lie on a disk of which b is the start or the end, and whose block at an offset is not zero.
func content(d steps.Disk, b []byte, at int64) string {
	if fs, err := image.Probe(d, d.Size()); err == nil && fs.Type != "" {
		return strings.TrimSpace("a file system " + fs.Type + " " + fs.Label)
	}
	if at < ends && len(b) >= 512 && b[510] == 0x55 && b[511] == 0xaa {
		return "a partition table or a boot sector"
	}
	return fmt.Sprintf("bytes at %d that are not zero", at)
}

// headerIntervals are how far apart fio's headers in a block may be, bytes.
var headerIntervals = []int{blockSize, blockSize / 2, blockSize / 4, blockSize / 8}

// samples are how many blocks are looked at for the headers of an earlier burn-in.
const samples = 256

// headerInterval is how far apart fio puts its headers: other than in what an earlier burn-in has left. A disk that drops writes without a word still holds the blocks of that one, which
// are right in all else: fio compares neither the seed nor, given a time, the number of a block (fio 3.33, verify.c, verify_io_u and verify_header), but it does compare the length that a header has.
func headerInterval(d steps.Disk) int {
	seen := map[int]int{}
	header := make([]byte, blockSize)
	last := max(d.Size()/blockSize-1, 0)
	for i := range int64(samples) {
		if n, err := d.ReadAt(header, last*i/(samples-1)*blockSize); n < len(header) || err != nil && !errors.Is(err, io.EOF) {
			continue // it can be written to all the same, or fio says so
		}
		if bytes.HasPrefix(header, fioMagic) {
			seen[int(binary.LittleEndian.Uint32(header[4:]))]++ // struct verify_header: magic, type, len
		}
	}
	return slices.MinFunc(headerIntervals, func(a, b int) int { return cmp.Compare(seen[a], seen[b]) })
}

// backlog is after how many blocks fio reads back what it wrote: 256 MiB, more than most disks' caches have, or a quarter of a smaller disk.
func backlog(size int64) int64 { return max(1, min(256<<20, size/4)/blockSize) }

// testDisk writes to a disk and reads it back. The disk is held open, so that nobody else comes to use it meanwhile, and is looked at again before: hours may have passed since the plan was made.
func testDisk(ctx context.Context, h steps.Host, d inspect.Disk, loops int64, lasts time.Duration, force bool, log string) (parts []Part, err error) {
	opened, err := hold(h, d)
	if err != nil {
		return nil, fmt.Errorf("%s: nothing was written: %w", title(d), err)
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	if err := steps.SameDisk(ctx, h.Machine, d, opened.Size(), opened.SectorSize()); err != nil {
		return nil, fmt.Errorf("%s: nothing was written: %w", title(d), err)
	}
	if !force {
		if err := empty(opened); err != nil {
			return nil, fmt.Errorf("%s: nothing was written: %w", title(d), err)
		}
	}
	if log != "" {
		log = diskLog(log, d.Name)
	}
	var v volume
	err = lasting(h, lasts, "--runtime", func(more ...string) error {
		args := append(diskArgs(d.Name, opened.Size(), max(loops, 1), lasts), "--verify_interval", strconv.Itoa(headerInterval(opened)))
		before := v // it was halted
		v, err = runFio(ctx, h, log, diskFaults(), append(args, more...)...)
		v.wrote, v.read = v.wrote+before.wrote, v.read+before.read
		// The kernel has no room on a disk that vanishes, either.
		var ended *tool.Error
		if errors.Is(err, errNoRoom) && errors.As(err, &ended) && steps.SameDisk(ctx, h.Machine, d, opened.Size(), opened.SectorSize()) != nil {
			return fault{fmt.Errorf("it is gone: %w", ended)}
		}
		return err
	})
	parts, err = judged(title(d), err)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", title(d), err)
	}
	if parts[0].Verdict != Pass {
		return parts, nil
	}
	h.Say("burn-in: %s is through", d.Name)
	if v.read == 0 {
		return nil, fmt.Errorf("%s: of %s that were written nothing was read back in the time", title(d), inspect.Size(v.wrote))
	}
	if all := max(loops, 1) * (opened.Size() / blockSize * blockSize); lasts == 0 && min(v.wrote, v.read) < all {
		return nil, fmt.Errorf("%s: fio ended early: %s were to be written and read back, %s were written and %s read back", title(d), inspect.Size(all), inspect.Size(v.wrote), inspect.Size(v.read))
	}
	parts[0].Reasons = append(parts[0].Reasons, fmt.Sprintf("%s written, %s read back, of %s", inspect.Size(v.wrote), inspect.Size(v.read), inspect.Size(d.Size)))
	parts[0].rates = withPart(d.Name, v.rates)
	return parts, nil
}

// volume is what fio reports.
type volume struct {
	wrote, read int64           // bytes
	rates       map[string]Rate // of "read" and "write", while it did that
	failed      []fioError      // of jobs
	lasted      time.Duration   // the longest of all directions of all jobs, without what they waited for
}

// parseFio reads fio's report. Lines of warnings may stand before it.
func parseFio(report []byte) (volume, error) {
	type direction struct {
		Bytes     int64   `json:"io_bytes"`
		PerSecond float64 `json:"bw_bytes"`
		Runtime   int64   // milliseconds
	}
	var r struct {
		Jobs []struct {
			Read, Write direction
			Error       fioError
		} `json:"jobs"`
	}
	v := volume{rates: map[string]Rate{}}
	if err := json.Unmarshal(report[max(bytes.IndexByte(report, '{'), 0):], &r); err != nil {
		return v, fmt.Errorf("read what fio reports: %w", err)
	}
	add := func(name string, d direction) {
		if d.PerSecond > 0 {
			v.rates[name] = Rate{v.rates[name].Value + d.PerSecond/megabyte, "MB/s"}
		}
	}
	for _, j := range r.Jobs {
		v.wrote, v.read = v.wrote+j.Write.Bytes, v.read+j.Read.Bytes
		add("write", j.Write)
		add("read", j.Read)
		v.lasted = max(v.lasted, time.Duration(max(j.Write.Runtime, j.Read.Runtime))*time.Millisecond)
		if j.Error != 0 {
			v.failed = append(v.failed, j.Error)
		}
	}
	return v, nil
}
