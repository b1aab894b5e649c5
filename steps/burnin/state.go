// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// stateFiles are written in turn and in place, for a reset in the middle of it must not harm the one that is whole: on the FAT of a stick, a file that was renamed or made longer
// before the reset may point to other files' clusters.
var stateFiles = [...]string{"state.json", "state.2.json"}

const (
	// stateBlock is what the length of the files is a multiple of, so that they are hardly ever made longer; bytes.
	stateBlock   = 64 << 10
	stateVersion = 1
	mostState    = 64 << 20 // bytes
	keepEvery    = time.Minute
	// mostKeptPoints are the points of a series that are kept: the file is written each minute, to a stick.
	mostKeptPoints = 64
	// A load in which the machine was reset so often is not run again.
	mostResets = 3
	// leastAgain is how long a load is run again at least, if it was to last so long: what was written has to be read back, too.
	leastAgain = time.Minute
)

// ErrState means that what was kept of a run cannot be gone on with. Nothing was touched.
var ErrState = errors.New("the run cannot go on")

// State is a run as it is kept, for [State.Plan] to go on with.
type State struct {
	Version  int         `json:"version"`
	Sequence uint64      `json:"sequence"` // the one with the higher number is the newer
	Profile  string      `json:"profile"`  // its name
	Loads    []keptLoad  `json:"loads"`    // all of the plan
	Force    bool        `json:"force"`
	Started  time.Time   `json:"started"`
	Written  time.Time   `json:"written"` // by the machine's clock, which may have been wrong
	Boot     string      `json:"boot"`    // which start of the machine it was: the kernel's boot_id
	Hardware hardware    `json:"hardware"`
	Crashes  []string    `json:"crashes"` // names of the crash dumps that were there when the machine was started
	Done     []Report    `json:"done"`    // the first loads
	Problems []string    `json:"problems"`
	Running  *runningNow `json:"running"` // nil between two loads
	Resets   int         `json:"resets"`  // in the load that runs
	Found    []Part      `json:"found"`   // of resets, and what was lost by them
	Stopped  bool        `json:"stopped"` // by somebody
	Ended    bool        `json:"ended"`
}

type keptLoad struct {
	Load  ProfileLoad    `json:"load"`
	Disks []inspect.Disk `json:"disks"` // to be overwritten
}

type runningNow struct {
	Load     string        `json:"load"` // for people
	Part     string        `json:"part"`
	Past     time.Duration `json:"past"`
	Findings []Part        `json:"findings"`
}

// Unfinished returns the run that is kept in a directory. Without one, or if it came to its end, the error is [fs.ErrNotExist]; what is damaged or of a newer version is [ErrState].
func Unfinished(dir string) (State, error) {
	s, err := newest(dir)
	if err != nil {
		return State{}, err
	}
	if s.Ended {
		return State{}, fmt.Errorf("%s: the run came to its end: %w", dir, fs.ErrNotExist)
	}
	return s, nil
}

// newest returns the newer of two states, or the one that is whole.
func newest(dir string) (s State, err error) {
	for _, name := range stateFiles {
		read, failed := readState(filepath.Join(dir, name))
		switch {
		case failed == nil && read.Sequence >= s.Sequence:
			s = read
		case failed != nil && (err == nil || errors.Is(err, fs.ErrNotExist)):
			err = failed
		}
	}
	if s.Version != 0 {
		return s, nil
	}
	return State{}, err
}

// sealed is a state in its file, with what shows that the file is whole.
type sealed struct {
	SHA256 string          `json:"sha256"`
	State  json.RawMessage `json:"state"`
}

func readState(name string) (State, error) {
	f, err := os.Open(name)
	if err != nil {
		return State{}, err
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, mostState+1))
	if err != nil {
		return State{}, err
	}
	s, err := parseState(b)
	if err != nil {
		return State{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func parseState(b []byte) (State, error) {
	damaged := func(why any) (State, error) { return State{}, fmt.Errorf("%w: the file is damaged: %v", ErrState, why) }
	if len(b) > mostState {
		return damaged(fmt.Sprintf("more than %d bytes", mostState))
	}
	var file sealed
	if err := json.Unmarshal(b, &file); err != nil {
		return damaged(err)
	}
	if got := digest(file.State); got != file.SHA256 {
		return damaged("its digest is another")
	}
	var version struct{ Version int }
	if err := json.Unmarshal(file.State, &version); err != nil {
		return damaged(err)
	}
	if version.Version != stateVersion {
		return State{}, fmt.Errorf("%w: the file is of version %d of another ironhand, and this one knows %d", ErrState, version.Version, stateVersion)
	}
	var s State
	if err := json.Unmarshal(file.State, &s); err != nil {
		return damaged(err)
	}
	if len(s.Loads) == 0 || len(s.Loads) > mostLoads || len(s.Done) > len(s.Loads) || len(s.Done) == len(s.Loads) && s.Running != nil {
		return damaged(fmt.Sprintf("%d of %d loads are done", len(s.Done), len(s.Loads)))
	}
	for i, l := range s.Loads {
		if err := l.Load.check(); err != nil {
			return damaged(fmt.Errorf("load %d: %w", i+1, err))
		}
	}
	return s, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// write puts a state in the place of the older one of a directory.
func (s State) write(dir string) error {
	b, err := json.Marshal(s)
	if err == nil {
		b, err = json.Marshal(sealed{digest(b), b})
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, stateFiles[s.Sequence%2]), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	old, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		more := max(int(min(old, mostState)), (len(b)+stateBlock)&^(stateBlock-1)) - len(b)
		b = append(b, bytes.Repeat([]byte{'\n'}, more)...)
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if old > 0 {
		return nil
	}
	return syncDir(dir)
}

// WriteWhole writes a file that is there whole or not at all, and stays when the power fails.
func WriteWhole(name string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name()) // the first error is the one to tell
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err == nil {
		err = f.Sync() // once more: on FAT, where a file begins is written to its new name by this alone (Linux fs/fat/namei_vfat.c, vfat_rename)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Plan looks at the machine again, and says what is left to be done of the run: loads that came to their end are kept, the one that was interrupted is run again, for the time
// that it still had or, where it has none, from its start. Disks are found by their serial numbers; those that are lost are findings. A state of another machine is [ErrState]. logs is as in [Order].
func (s State) Plan(ctx context.Context, h steps.Host, logs string, force bool) (*Plan, error) {
	var burned []inspect.Disk
	disks, err := h.Machine.Disks(ctx)
	if err != nil {
		h.Say("%v", err) // a disk that does not answer is lost
	}
	order := Order{Profile: Profile{Name: s.Profile}, Force: s.Force || force, Logs: logs}
	left := s.Loads[len(s.Done):]
	done, problems := slices.Clone(s.Done), slices.Clone(s.Problems)
	resets := 0
	found := slices.Clone(s.Found)
	if bootID(h.Machine.FS) != s.Boot && !s.Stopped {
		resets = s.Resets + 1
	}
	if s.Running != nil && resets >= mostResets {
		why := fmt.Sprintf("not run again: the machine was reset %d times in it", resets)
		done = append(done, Report{Load: s.Running.Load, Started: s.Written, Ended: s.Written, Celsius: map[string]float64{}, Rates: map[string]Rate{}, Counters: []Counter{}, Series: []Series{}, Parts: []Part{{Name: s.Running.Part, Verdict: Skipped, Reasons: []string{why}}}})
		problems = append(problems, s.Running.Part+": "+why)
		left = left[1:]
	}
	for i, l := range left {
		if i == 0 && s.Running != nil && len(done) == len(s.Done) {
			l.Load = l.Load.left(s.Running.Past)
		}
		if l.Load.Disks != nil {
			again := *l.Load.Disks
			again.Write = nil
			for _, was := range l.Disks {
				d, there, err := findDisk(was, s.Hardware.Inventory.Disks, disks)
				if err != nil {
					return nil, err
				}
				if there { // that it is not there is told below
					again.Write = append(again.Write, d.Name)
					burned = append(burned, d)
				}
			}
			l.Load.Disks = &again
			if len(l.Disks) > 0 && len(again.Write) == 0 {
				order.gone = append(order.gone, i)
			}
		}
		order.Profile.Loads = append(order.Profile.Loads, l.Load)
	}
	now, whole := look(ctx, h, burned)
	if !whole {
		return nil, fmt.Errorf("%w now: the machine did not say what it is made of within %v", ErrState, lookTime)
	}
	if err := sameMachine(s.Hardware, now); err != nil {
		return nil, err
	}
	order.first = len(done)
	if s.Running != nil && len(done) == len(s.Done) {
		order.resets = resets
	}
	p, err := order.Plan(ctx, h)
	if err != nil {
		return nil, err
	}
	fresh := slices.DeleteFunc(crashes(h.Machine.FS), func(c Crash) bool { return slices.Contains(s.Crashes, c.Name) })
	if interrupted, found := s.interruption(bootID(h.Machine.FS), watchdogs(h.Machine.FS), fresh); found {
		p.Crashes = fresh
		merge(&p.found, interrupted)
	}
	merge(&p.found, found...)
	if s.Running != nil {
		for _, f := range s.Running.Findings {
			f.Reasons = slices.Clone(f.Reasons)
			for i, reason := range f.Reasons {
				f.Reasons[i] = reason + " (before that, in " + s.Running.Load + ")"
			}
			merge(&p.found, f)
		}
	}
	merge(&p.found, lost(s.Hardware, now)...)
	if s.Running != nil && len(done) == len(s.Done) {
		p.again, p.past, p.resets = true, s.Running.Past, resets
	}
	p.started, p.earlier, p.problems, p.kept = s.Started, done, problems, s.Loads
	return p, nil
}

// left is a load that has had some of its time.
func (l ProfileLoad) left(past time.Duration) ProfileLoad {
	rest := func(whole Duration) Duration {
		left := (time.Duration(whole) - past + time.Second - 1).Truncate(time.Second)
		return Duration(max(left, min(time.Duration(whole), leastAgain)))
	}
	switch {
	case l.Processors != nil:
		again := *l.Processors
		again.Time = rest(again.Time)
		l.Processors = &again
	case l.Memory != nil:
		again := *l.Memory
		again.Time = rest(again.Time)
		l.Memory = &again
	case l.Disks != nil && l.Disks.Time > 0:
		again := *l.Disks
		again.Time = rest(again.Time)
		l.Disks = &again
	}
	return l // all loops of disks, and a network's partner, begin anew
}

// merge adds findings to others, part by part.
func merge(to *[]Part, more ...Part) {
	for _, m := range more {
		p := find(to, m.Name)
		p.Verdict = cmp.Or(m.Verdict, p.Verdict)
		for _, reason := range m.Reasons {
			if !slices.Contains(p.Reasons, reason) { // a disk may be silent before a reset and after it
				p.Reasons = append(p.Reasons, reason)
			}
		}
	}
}

// What a report and the state of a run take at the most, bytes: of each series in each load, a full one in results.json, and fewer points of it in results.jsonl and the two files of the state; and beside
// them the page with its plots, what the programs report, and dumps of a kernel that has crashed.
const (
	seriesRoom = 24 << 10
	otherRoom  = 3 << 20
)

// Room is how much a directory needs to have free that the run is kept in, and its report; bytes.
func (p *Plan) Room(h steps.Host) int64 {
	return otherRoom + seriesRoom*int64(len(p.kept))*int64(min(len(sensors(h.Machine.FS, places{h.Machine.Places()})), mostSeries))
}

// keeper writes what a run has come to into its directory. A stick may be slow, so what is written now and then is written beside the run.
type keeper struct {
	dir string
	say func(format string, args ...any)

	mu      sync.Mutex
	state   State
	last    time.Time
	writing sync.WaitGroup
	busy    bool
	failed  bool
}

// Keep keeps the run in a directory from now on, so that it goes on after a reset: see [Unfinished].
func (p *Plan) Keep(ctx context.Context, h steps.Host, dir string) error {
	now, whole := look(ctx, h, p.Disks)
	if !whole {
		return fmt.Errorf("keep the state of the run: the machine did not say what it is made of within %v", lookTime)
	}
	s := State{
		Version: stateVersion, Profile: p.Profile, Loads: p.kept, Force: p.force, Started: p.started, Written: time.Now().UTC(), Boot: bootID(h.Machine.FS), Hardware: now,
		Done: p.earlier, Problems: p.problems, Resets: p.resets, Found: p.found,
	}
	if p.again {
		s.Running = &runningNow{Load: p.loads[0].text, Part: p.loads[0].part, Past: p.past}
	}
	if s.Started.IsZero() {
		s.Started = s.Written
		p.started = s.Written
	}
	for _, c := range crashes(h.Machine.FS) {
		s.Crashes = append(s.Crashes, c.Name)
	}
	if old, err := newest(dir); err == nil {
		s.Sequence = old.Sequence
	}
	s.Sequence++
	p.keeper = &keeper{dir: dir, say: h.Say, state: s}
	if err := s.write(dir); err != nil {
		return fmt.Errorf("keep the state of the run: %w", err)
	}
	return nil
}

// began keeps that a load runs, and for how long it already has before.
func (k *keeper) began(l load, before time.Duration) {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.state.Running = &runningNow{Load: l.text, Part: l.part, Past: before}
	k.mu.Unlock()
	k.write()
}

// goes keeps how far the load is, each minute.
func (k *keeper) goes(past time.Duration, findings []Part) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Running == nil {
		return
	}
	k.state.Running = &runningNow{Load: k.state.Running.Load, Part: k.state.Running.Part, Past: past, Findings: findings}
	if time.Since(k.last) < keepEvery || k.busy {
		return
	}
	k.busy = true
	k.last = time.Now()
	k.writing.Go(func() {
		k.writeNow()
		k.mu.Lock()
		k.busy = false
		k.mu.Unlock()
	})
}

// ended keeps what a load has come to.
func (k *keeper) ended(done []Report, problems []string) {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.state.Done, k.state.Problems = slices.Clone(done), slices.Clone(problems)
	for i := range k.state.Done {
		k.state.Done[i].Series = thin(k.state.Done[i].Series, mostKeptPoints)
	}
	k.state.Running, k.state.Resets = nil, 0
	k.mu.Unlock()
	k.write()
}

// stops keeps that somebody stops the run.
func (k *keeper) stops() {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.state.Stopped = true
	k.mu.Unlock()
	k.write()
}

func (k *keeper) write() {
	k.writing.Wait()
	k.writeNow()
}

func (k *keeper) writeNow() {
	k.mu.Lock()
	k.state.Sequence++
	s := k.state
	k.mu.Unlock()
	s.Written = time.Now().UTC()
	err := s.write(k.dir)
	k.mu.Lock()
	told := k.failed
	k.failed, k.last = err != nil, time.Now()
	k.mu.Unlock()
	if err != nil && !told {
		k.say("burn-in: the state of the run is not kept any more: %v", err)
	}
}

// Finish says that the report of the run was written: there is nothing to go on with, unless somebody has stopped it.
func (p *Plan) Finish() error {
	k := p.keeper
	if k == nil {
		return nil
	}
	k.writing.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Stopped {
		return nil
	}
	k.state.Ended = true
	k.state.Sequence++
	return k.state.write(k.dir)
}
