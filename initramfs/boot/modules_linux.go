// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// LoadModules loads modules, given by name or alias ("vfat", "fs-ext4"), with all that they need, and returns when they are ready. What is
// loaded or built in already is fine. The ramdisk has no modprobe that the kernel could call, so whoever mounts a file system loads its
// module first.
func LoadModules(ctx context.Context, names ...string) error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("load modules: %w", err)
	}
	l, err := newLoader(parseCmdline(string(cmdline)))
	if err != nil {
		return err
	}
	return l.load(ctx, names...)
}

// Coldplug loads the modules for all devices that are there now, and returns how many modules it tried. A module that fails does not
// keep the others from being loaded.
func Coldplug(ctx context.Context) (int, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return 0, fmt.Errorf("load modules: %w", err)
	}
	l, err := newLoader(parseCmdline(string(cmdline)))
	if err != nil {
		return 0, err
	}
	return l.coldplug(ctx)
}

// atOnce is how many modules are loaded at the same time. finit_module(2) returns when a driver has looked at all its devices, which
// for a storage controller may take a minute.
const atOnce = 8

// busMost is how long a module waits for the one that drives the bus.
const busMost = 5 * time.Second

// loader loads modules of the running kernel, each once.
type loader struct {
	sys    fs.FS                           // /sys
	insert func(file, params string) error // has the kernel load one file
	dir    string
	tables *Modules
	params map[string]string
	deny   map[string]bool
	slots  chan struct{}

	mu      sync.Mutex
	loads   map[string]*loading // going on, or done without an error
	running int
}

// loading is one module on its way. The others may be read when done is closed.
type loading struct {
	done    chan struct{}
	live    chan struct{} // closed when it has started and taken all devices that were there, at the latest with done
	wasLive func()        // closes live, once
	err     error
	absent  bool // what it drives is not there, which is no failure
}

func newLoader(cmdline []parameter) (*loader, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("load modules: %w", err)
	}
	dir := filepath.Join(modulesDir, unix.ByteSliceToString(u.Release[:]))
	tables, err := ReadModules(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("modules of the running kernel, in %s: %w (in a machine with too little memory, a ramdisk is not unpacked whole)", dir, err)
	}
	l := &loader{sys: os.DirFS("/sys"), insert: finit, dir: dir, tables: tables, slots: make(chan struct{}, atOnce), loads: map[string]*loading{}}
	l.params, l.deny = moduleParameters(cmdline)
	return l, nil
}

// busy reports whether modules are being loaded.
func (l *loader) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running > 0
}

// coldplug loads what the devices ask for that are there now.
func (l *loader) coldplug(ctx context.Context) (int, error) {
	aliases, err := modaliases(l.sys)
	names := l.wanted(aliases)
	return len(names), errors.Join(err, l.load(ctx, names...))
}

// loadFor loads the modules for a device that has come, after those for the devices above it, which make the bus that it is on. The kernel names
// disks and interfaces in the order in which drivers take them. A driver that comes when the bus has shown all its devices takes them in the bus's order; one that comes
// in the middle takes the first while the bus hands it a later one, and either may win (drivers/base/bus.c: bus_add_driver, bus_probe_device).
func (l *loader) loadFor(ctx context.Context, dev uevent) error {
	names := l.wanted([]string{dev.modalias})
	if len(names) == 0 {
		return nil
	}
	above, err := modaliasesAbove(l.sys, dev.path)
	return errors.Join(err, l.loadAfter(ctx, l.wanted(above), names))
}

// wanted returns the modules for devices, except those that the kernel's command line forbids.
func (l *loader) wanted(modaliases []string) []string {
	var names []string
	seen := map[string]bool{}
	for _, a := range modaliases {
		for _, name := range l.tables.Match(a) {
			if !seen[name] && !l.deny[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

// load plans, starts what nobody has started yet, and waits for all of it.
func (l *loader) load(ctx context.Context, names ...string) error {
	return l.loadAfter(ctx, nil, names)
}

// loadAfter is load; the modules in names wait for those of buses that are on their way.
func (l *loader) loadAfter(ctx context.Context, buses, names []string) error {
	plan, err := l.tables.Plan(names...)
	errs := []error{err}
	for _, w := range l.start(plan, names, buses) {
		select {
		case <-w.done:
			errs = append(errs, w.err)
		case <-ctx.Done():
			return fmt.Errorf("load modules: %w", ctx.Err())
		}
	}
	return errors.Join(errs...)
}

// start gives each module of a plan that is not on its way a goroutine, which waits for those that go before. What it waits for was on its way earlier, so
// no two wait for each other.
func (l *loader) start(plan []Load, asked, buses []string) []*loading {
	l.mu.Lock()
	defer l.mu.Unlock()
	listed := func(names []string) []*loading {
		var found []*loading
		for _, name := range names {
			// One that has failed meanwhile is no longer listed.
			if w := l.loads[name]; w != nil {
				found = append(found, w)
			}
		}
		return found
	}
	above := listed(buses)
	var all []*loading
	for _, item := range plan {
		w := l.loads[item.Name]
		if w == nil {
			w = &loading{done: make(chan struct{}), live: make(chan struct{})}
			w.wasLive = sync.OnceFunc(func() { close(w.live) })
			before, buses := listed(item.After), []*loading(nil)
			if slices.Contains(asked, item.Name) {
				buses = above
			}
			l.loads[item.Name] = w
			l.running++
			go l.run(item, w, before, buses)
		}
		all = append(all, w)
	}
	return all
}

// becameLive takes the kernel's message that a module has started. It comes when the drivers in it have taken all devices that were there, except
// those that they look at in the background: finit_module(2) waits for these, and for all others in the system, too (kernel/module/main.c, do_init_module).
// Before Linux 5.11 it came earlier; such a kernel's word in /sys counts.
func (l *loader) becameLive(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.loads[name]; w != nil && live(l.sys, "module/"+name) {
		w.wasLive()
	}
}

// run loads a module when those before it are done, and those that drive its buses have started. A bus that takes too long costs the order of names, no device.
func (l *loader) run(item Load, w *loading, before, buses []*loading) {
	without := false
	for _, b := range before {
		<-b.done
		without = without || b.absent
	}
	patience, cancel := context.WithTimeout(context.Background(), busMost)
	for _, b := range buses {
		select {
		case <-b.live:
		case <-patience.Done():
		}
	}
	cancel()
	l.slots <- struct{}{}
	err := l.insert(filepath.Join(l.dir, item.File), l.params[item.Name])
	<-l.slots
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	if err != nil {
		delete(l.loads, item.Name) // the device may come later: then it is tried again
	}
	// The driver of a device that is not there, or an implementation for another processor, is no failure; neither is what builds on one.
	w.absent = errors.Is(err, unix.ENODEV) || without && errors.Is(err, unix.ENOENT)
	if err != nil && !w.absent {
		w.err = fmt.Errorf("load module %s: %w", item.Name, err)
	}
	w.wasLive()
	close(w.done)
}

// finit has the kernel load one file.
func finit(file, params string) error {
	if live(os.DirFS("/sys/module"), moduleName(file)) {
		return nil // without reading the file
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	// If another process is loading it, this waits until that has ended (kernel/module/main.c, add_unformed_module).
	err = unix.FinitModule(int(f.Fd()), params, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("it needs a symbol that no loaded module has: %w", err)
	}
	return err
}
