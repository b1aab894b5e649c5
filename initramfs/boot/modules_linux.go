// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

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

// loader loads modules of the running kernel, each once.
type loader struct {
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
	done   chan struct{}
	err    error
	absent bool // what it drives is not there, which is no failure
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
	l := &loader{dir: dir, tables: tables, slots: make(chan struct{}, atOnce), loads: map[string]*loading{}}
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
	aliases, err := modaliases(os.DirFS("/sys"))
	return len(l.wanted(aliases)), errors.Join(err, l.loadFor(ctx, aliases...))
}

// loadFor loads the modules for devices, except those that the kernel's command line forbids.
func (l *loader) loadFor(ctx context.Context, modaliases ...string) error {
	return l.load(ctx, l.wanted(modaliases)...)
}

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
	plan, err := l.tables.Plan(names...)
	errs := []error{err}
	for _, w := range l.start(plan) {
		select {
		case <-w.done:
			errs = append(errs, w.err)
		case <-ctx.Done():
			return fmt.Errorf("load modules: %w", ctx.Err())
		}
	}
	return errors.Join(errs...)
}

// start gives each module of a plan that is not on its way a goroutine, which waits for those that go before.
func (l *loader) start(plan []Load) []*loading {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*loading
	for _, item := range plan {
		w := l.loads[item.Name]
		if w == nil {
			w = &loading{done: make(chan struct{})}
			l.loads[item.Name] = w
			l.running++
			var before []*loading
			for _, name := range item.After {
				// One that has failed meanwhile is no longer listed.
				if b := l.loads[name]; b != nil {
					before = append(before, b)
				}
			}
			go l.run(item, w, before)
		}
		all = append(all, w)
	}
	return all
}

func (l *loader) run(item Load, w *loading, before []*loading) {
	without := false
	for _, b := range before {
		<-b.done
		without = without || b.absent
	}
	l.slots <- struct{}{}
	err := finit(filepath.Join(l.dir, item.File), l.params[item.Name])
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
