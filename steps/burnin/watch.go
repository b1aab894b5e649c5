// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// sampleEvery is how often the counters are read and progress is told.
const sampleEvery = 10 * time.Second

// mostMessages is how many kernel messages are kept for a part.
const mostMessages = 100

// watch looks at the machine from its making to its end.
type watch struct {
	host   steps.Host
	before sample

	mu       sync.Mutex
	peak     map[string]int64
	messages map[string][]string

	stop func()
	done sync.WaitGroup
}

// startWatch begins. progress is called with each sample.
func startWatch(ctx context.Context, h steps.Host, progress func(Snapshot)) (*watch, error) {
	w := &watch{host: h, before: counters(h.Machine.FS), peak: map[string]int64{}, messages: map[string][]string{}}
	if err := w.before.health(ctx, h.Machine); err != nil {
		h.Say("%v", err) // a disk that does not answer fails its own test, if it is tested
	}
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
	w.done.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				now := counters(h.Machine.FS)
				w.note(now)
				progress(w.snapshot(now))
			}
		}
	})
	return w, nil
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
		m, found := parseMessage(record[:n])
		if !found {
			continue
		}
		w.mu.Lock()
		list := w.messages[m.part]
		if len(list) < mostMessages {
			w.messages[m.part] = append(list, m.text)
		}
		w.mu.Unlock()
		if len(list) < 10 {
			w.host.Say("kernel: %s", m.text)
		}
	}
}

// note keeps the highest temperatures.
func (w *watch) note(s sample) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for sensor, n := range s.hot {
		if old, known := w.peak[sensor]; !known || n > old {
			w.peak[sensor] = n
		}
	}
}

// snapshot is what a sample tells, and what the judge would say of it.
func (w *watch) snapshot(s sample) Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	shot := Snapshot{Time: time.Now().UTC(), Celsius: map[string]float64{}, Findings: judge(w.before, s, w.messages)}
	for sensor, n := range s.hot {
		shot.Celsius[sensor] = float64(n) / 1000
	}
	return shot
}

// end stops watching, and judges.
func (w *watch) end(ctx context.Context) []Part {
	w.stop()
	w.done.Wait()
	after := counters(w.host.Machine.FS)
	if err := after.health(ctx, w.host.Machine); err != nil {
		w.host.Say("%v", err)
	}
	w.note(after)
	w.mu.Lock()
	defer w.mu.Unlock()
	return judge(w.before, after, w.messages)
}

// celsius are the highest temperatures by sensor.
func (w *watch) celsius() map[string]float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := map[string]float64{}
	for sensor, n := range w.peak {
		m[sensor] = float64(n) / 1000
	}
	return m
}
