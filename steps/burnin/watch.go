// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/inspect/ipmi"
	"github.com/ironhand/ironhand/steps"
)

const (
	// sampleEvery is how often progress is told.
	sampleEvery = 10 * time.Second
	// watchEvery is how often what stands in files is read if nobody says otherwise.
	watchEvery = time.Second
	// askEvery is how often disks are asked for their temperature, and files are read that are many or cost the kernel something: those of PCIe devices, and of interrupts.
	askEvery = 10 * time.Second
	// healthEvery is how often disks are asked for their health, and the BMC for its log.
	healthEvery = time.Minute
	// askLimit is how long the BMC may take for its answers, and how long the end of a load waits for a device that was asked: while it does there are no samples, and a watchdog wants some.
	askLimit = 5 * time.Second
	// sensorLimit is how long it may take to tell which sensors it has: slow ones need seconds for a hundred.
	sensorLimit = 2 * time.Minute
)

// mostMessages is how many messages are kept for a part.
const mostMessages = 100

// watch looks at the machine from its making to its end.
type watch struct {
	host    steps.Host
	rules   rules
	places  places
	before  sample
	started time.Time
	every   time.Duration

	mu   sync.Mutex
	seen sample // what was counted last
	said map[key][]string
	hot  map[key]int64
	ours map[key]int64 // what questions have added to counters of disks
	// inquiring is true while disks are asked, and it is not known yet which of what they count is for that.
	inquiring bool
	tracks    map[trackKey]*track

	pulled   map[string]bool // disks that may be pulled out
	log      ipmi.Log        // of the BMC
	last     uint16          // its last entry
	lastIs   bool
	bmc      bool
	measures bool // the BMC measures power

	stop   func()
	done   sync.WaitGroup
	asking chan struct{} // closed when nobody asks devices
}

// trackKey is one series.
type trackKey struct{ kind, name string }

// startWatch begins. progress is called with each sample.
func startWatch(ctx context.Context, h steps.Host, every time.Duration, progress func(Snapshot)) (*watch, error) {
	judges, err := readRules()
	if err != nil {
		return nil, err
	}
	names := places{h.Machine.Places()}
	w := &watch{host: h, rules: judges, places: names, started: time.Now(), every: cmp.Or(every, watchEvery),
		said: map[key][]string{}, hot: map[key]int64{}, ours: map[key]int64{}, tracks: map[trackKey]*track{}, asking: make(chan struct{}), pulled: map[string]bool{}}
	health := sample{counts: map[key]int64{}}
	if err := health.health(ctx, h.Machine, w.temperature); err != nil {
		h.Say("%v", err) // a disk that does not answer fails its own test, if it is tested
	}
	w.before = counters(h.Machine.FS, names) // after the questions, which may be some that a disk does not know
	maps.Copy(w.before.counts, health.counts)
	w.before.told = health.told
	w.seen = sample{counts: maps.Clone(w.before.counts), parts: w.before.parts}
	for _, device := range glob(h.Machine.FS, "sys/block/*/device") {
		dir := path.Dir(device)
		w.pulled[diskName(dir)] = pulled(h.Machine.FS, dir)
	}
	w.beginEvents(ctx)
	log, err := h.Machine.FS.Open("dev/kmsg")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("watch the kernel's log: %w", err)
	}
	if seeker, ok := log.(io.Seeker); ok { // what stands in it is of before
		if _, err := seeker.Seek(0, io.SeekEnd); err != nil {
			return nil, fmt.Errorf("watch the kernel's log: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	w.stop = cancel
	if log != nil {
		w.done.Go(func() { w.read(ctx, log) })
		context.AfterFunc(ctx, func() { log.Close() }) // ends a read
	} else {
		h.Say("the kernel's log is not watched: there is none")
	}
	all := sensors(h.Machine.FS, names)
	if len(all) > mostSeries {
		h.Say("of %d sensors the first %d are watched", len(all), mostSeries)
		all = all[:mostSeries]
	}
	asked := func(s *sensor) bool { return s.slow }
	w.done.Go(func() { w.sampleFiles(ctx, slices.DeleteFunc(slices.Clone(all), asked), progress) })
	go func() { // a device that hangs is left behind
		defer close(w.asking)
		w.askDevices(ctx, slices.DeleteFunc(slices.Clone(all), func(s *sensor) bool { return !s.slow }))
	}()
	return w, nil
}

// sampleFiles reads what stands in files, which takes no time, again and again.
func (w *watch) sampleFiles(ctx context.Context, list []*sensor, progress func(Snapshot)) {
	f := newGauges(w.host.Machine.FS)
	defer f.close()
	counting := sources(w.host.Machine.FS, w.places)
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	costly := w.started
	w.measure(f, list)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			slow := time.Since(costly) >= askEvery
			if slow {
				costly = time.Now()
			}
			w.sample(f, counting, slow, list)
			progress(w.snapshot())
		}
	}
}

// sample reads counters and sensors once.
func (w *watch) sample(f *gauges, counting []source, slow bool, list []*sensor) {
	s := count(f, counting, slow)
	w.mu.Lock()
	maps.Copy(w.seen.counts, s.counts)
	w.mu.Unlock()
	w.measure(f, list)
	w.errors()
}

// errors keeps the growth of each counter that has grown.
func (w *watch) errors() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Since(w.started).Seconds()
	for k, n := range w.grown(w.seen) {
		name := k.part + ": " + string(k.kind)
		if t := w.track(grownErrors, name, ""); t != nil {
			if len(t.Points) == 0 { // until now it was none
				t.add(max(now-w.every.Seconds(), 0), 0, 0, 0)
			}
			t.add(now, float64(n), float64(n), float64(n))
		}
	}
}

// grown is what has grown until a sample. w.mu is held.
func (w *watch) grown(now sample) map[key]int64 {
	g := grown(w.before, now, w.said)
	maps.DeleteFunc(g, func(k key, _ int64) bool { return w.inquiring && k.kind == diskErrors })
	for k, n := range w.ours {
		if g[k] -= n; g[k] <= 0 {
			delete(g, k)
		}
	}
	for k, n := range w.hot {
		g[k] = n
	}
	return g
}

// measure reads sensors once.
func (w *watch) measure(f *gauges, list []*sensor) {
	for _, s := range list {
		now := time.Since(w.started).Seconds()
		low, mean, high, hot, ok := s.measure(f, now) // may take time, so without the lock
		w.mu.Lock()
		if hot {
			w.hot[key{s.name, tooHot}]++
		}
		if ok {
			w.add(s.kind, s.name, s.unit, now, low, mean, high)
		}
		w.mu.Unlock()
	}
}

// add keeps what was measured. w.mu is held.
func (w *watch) add(kind, name, unit string, second, low, mean, high float64) {
	if t := w.track(kind, name, unit); t != nil {
		t.add(second, low, mean, high)
	}
}

// track returns a series, nil if there are too many. w.mu is held.
func (w *watch) track(kind, name, unit string) *track {
	k := trackKey{kind, name}
	t := w.tracks[k]
	if t == nil && len(w.tracks) < 2*mostSeries { // errors beside the sensors
		t = &track{Series: Series{Kind: kind, Name: name, Unit: unit, Points: []Point{}}}
		w.tracks[k] = t
	}
	return t
}

// snapshot is what was measured last, and what the judge would say now.
func (w *watch) snapshot() Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Snapshot{Time: time.Now().UTC(), Celsius: map[string]float64{}, MHz: map[string]float64{}, RPM: map[string]float64{}, Watts: map[string]float64{}, Findings: w.rules.judge(w.grown(w.seen), w.said)}
	of := map[string]map[string]float64{temperature: s.Celsius, frequency: s.MHz, fan: s.RPM, power: s.Watts}
	for k, t := range w.tracks {
		if m := of[k.kind]; m != nil {
			m[k.name] = t.last
		}
	}
	return s
}

// askDevices asks disks and the BMC now and then.
func (w *watch) askDevices(ctx context.Context, list []*sensor) {
	f := newGauges(w.host.Machine.FS)
	defer f.close()
	tick := time.NewTicker(max(askEvery, w.every))
	defer tick.Stop()
	counting := diskSources(w.host.Machine.FS)
	health := w.started
	var ofBMC []ipmi.Sensor
	for first := true; ; first = false {
		w.measure(f, list)
		if first {
			ofBMC = w.findSensors(ctx)
		}
		w.askSensors(ctx, ofBMC)
		if w.measures {
			w.askPower(ctx)
		}
		if time.Since(health) >= healthEvery {
			health = time.Now()
			w.askHealth(ctx, f, counting)
			w.readEvents(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// askHealth asks disks how they are. Questions that a disk does not know are among the commands that it counts as failed, so what it counts meanwhile is none of its faults: only the
// load's own commands shall be.
func (w *watch) askHealth(ctx context.Context, f *gauges, counting []source) {
	w.mu.Lock()
	w.inquiring = true
	w.mu.Unlock()
	before := count(f, counting, true)
	s := sample{counts: map[key]int64{}}
	_ = s.health(ctx, w.host.Machine, w.temperature) // told at the end, if it is so then
	after := count(f, counting, true)
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, n := range after.counts {
		w.ours[k] += max(n-before.counts[k], 0)
	}
	w.known(s)
	maps.Copy(w.seen.counts, after.counts)
	maps.Copy(w.seen.counts, s.counts)
	w.inquiring = false
}

// known takes what a disk has counted by its first answer for what it had before: one that was asleep, or did not answer in time when the load began, has old errors too. w.mu is held.
func (w *watch) known(health sample) {
	for k, n := range health.counts {
		if _, before := w.before.counts[k]; !before && (k.kind == mediaErrors || k.kind == reallocated) {
			w.before.counts[k] = n
		}
	}
}

// temperature keeps what a disk says of itself.
func (w *watch) temperature(disk string, celsius float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(temperature, disk+" by its health log", "°C", time.Since(w.started).Seconds(), celsius, celsius, celsius)
}

// say keeps a message about a part. New ones are told, of each part the first ten.
func (w *watch) say(by string, m message) {
	w.mu.Lock()
	list := w.said[m.key]
	if len(list) < mostMessages {
		w.said[m.key] = append(list, m.text)
	}
	w.mu.Unlock()
	if len(list) < 10 {
		w.host.Say("%s: %s", by, m.text)
	}
}

// read keeps the messages that come from now on.
func (w *watch) read(ctx context.Context, log io.Reader) {
	record := make([]byte, 8<<10) // the kernel's longest, CONSOLE_EXT_LOG_MAX
	for ctx.Err() == nil {
		n, err := log.Read(record)
		switch {
		case errors.Is(err, syscall.EPIPE):
			continue // the kernel was faster: some are lost
		case err != nil:
			return
		}
		if m, found := w.rules.message(record[:n]); found {
			if w.pulled[m.key.part] {
				m.key.kind = kernelRemark // the load finds what is wrong with it, if it is tested
			}
			w.say("kernel", m)
		}
	}
}

// end stops watching, and judges.
func (w *watch) end(ctx context.Context) (parts []Part, counted []Counter, series []Series) {
	w.stop()
	w.done.Wait()
	select {
	case <-w.asking:
		w.readEvents(ctx)
	case <-time.After(askLimit):
		w.host.Say("a disk or the BMC that was asked for its state has not answered")
	}
	after := counters(w.host.Machine.FS, w.places)
	health := sample{counts: map[key]int64{}}
	if err := health.health(ctx, w.host.Machine, w.temperature); err != nil {
		w.host.Say("%v", err)
	}
	for disk := range w.before.told {
		if after.parts[disk] && !health.told[disk] { // one that is gone is a finding of its own
			health.counts[key{disk, silent}] = 1
		}
	}
	w.mu.Lock()
	w.known(health)
	maps.Copy(after.counts, health.counts)
	maps.Copy(w.seen.counts, after.counts)
	w.mu.Unlock()
	w.errors()
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.grown(after)
	return w.rules.judge(g, w.said), list(g), w.series()
}

// series are all that were measured, but for what was zero all the time, such as an interface without a cable. w.mu is held.
func (w *watch) series() []Series {
	all := []Series{}
	for _, t := range w.tracks {
		if t.Max() != 0 || t.Kind == fan {
			s := t.Series
			s.Points = slices.Clone(s.Points)
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Series) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return all
}

// celsius are the highest temperatures by sensor.
func celsius(list []Series) map[string]float64 {
	m := map[string]float64{}
	for _, s := range list {
		if s.Kind == temperature {
			m[s.Name] = s.Max()
		}
	}
	return m
}
