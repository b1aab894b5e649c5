// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// consoles hands each line to all consoles. One that takes nothing (flow control, a serial line over USB that is gone) does
// not hold up the rest: each has a goroutine and a queue of its own, and is told later how many lines it missed.
type consoles struct {
	open func(name string) (io.WriteCloser, error) // waits for nothing

	mu  sync.Mutex
	all map[string]*console
}

type console struct {
	queue  chan string
	missed int           // lines since the queue was full; guarded by consoles.mu
	done   chan struct{} // closed when the goroutine has ended
}

// queueLines is how many lines wait for a slow console. At 9600 baud a line of 80 takes a twelfth of a second.
const queueLines = 512

func newConsoles(open func(name string) (io.WriteCloser, error)) *consoles {
	return &consoles{open: open, all: map[string]*console{}}
}

// use makes names the consoles that get lines from now on. It returns what stood in the way of those that could not be opened;
// they are tried again at the next call.
func (c *consoles) use(names []string) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.all {
		if !slices.Contains(names, name) {
			c.remove(name)
		}
	}
	var errs []error
	for _, name := range names {
		if c.all[name] != nil {
			continue
		}
		w, err := c.open(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("console %s: %w", name, err))
			continue
		}
		con := &console{queue: make(chan string, queueLines), done: make(chan struct{})}
		c.all[name] = con
		go c.feed(name, con, w)
	}
	return errs
}

// feed writes the queue of one console until the queue is closed or the console fails; then a later use may open it again.
func (c *consoles) feed(name string, con *console, w io.WriteCloser) {
	defer close(con.done)
	defer func() { w.Close() }() // a terminal; nobody is left to tell
	for line := range con.queue {
		_, err := io.WriteString(w, line+"\n")
		if err != nil {
			// A terminal is hung up when the shell on it ends: one may go on with it, but has to open it again.
			w.Close() // it has failed already
			if w, err = c.open(name); err == nil {
				_, err = io.WriteString(w, line+"\n")
			} else {
				w = nothing{}
			}
		}
		if err != nil {
			c.mu.Lock()
			if c.all[name] == con {
				c.remove(name)
			}
			c.mu.Unlock()
			return
		}
	}
}

// nothing stands for a console that could not be opened again.
type nothing struct{}

func (nothing) Write(p []byte) (int, error) { return len(p), nil }
func (nothing) Close() error                { return nil }

// remove takes a console off. The caller holds c.mu.
func (c *consoles) remove(name string) {
	close(c.all[name].queue)
	delete(c.all, name)
}

// print hands a line to every console. It never waits.
func (c *consoles) print(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, con := range c.all {
		if con.missed > 0 && len(con.queue) < cap(con.queue)-1 {
			con.queue <- fmt.Sprintf("(%d lines did not reach this console, which was too slow; they are in %s)", con.missed, LogFile)
			con.missed = 0
		}
		select {
		case con.queue <- line:
		default:
			con.missed++
		}
	}
}

// drain waits until every console has written its queue, for at most the time given, and takes all off.
func (c *consoles) drain(most time.Duration) {
	c.mu.Lock()
	var open []*console
	for name, con := range c.all {
		open = append(open, con)
		c.remove(name)
	}
	c.mu.Unlock()
	late := time.After(most)
	for _, con := range open {
		select {
		case <-con.done:
		case <-late:
			return
		}
	}
}

// port is a console as the kernel's command line has it, or as the kernel uses it.
type port struct {
	name string // of the device below /dev
	baud int    // 0: as it is
}

// ports returns all consoles: those of /sys/class/tty/console/active, such as "tty0 ttyS0" (Documentation/ABI/testing/sysfs-tty), which the kernel has set
// up, and those that the command line names besides. Of several serial ports the kernel uses but one, and leaves the rest at their speed. A name
// that is not one of a device directly below /dev is left out.
func ports(active string, cmdline []parameter) []port {
	var all []port
	add := func(name string, baud int) {
		known := slices.ContainsFunc(all, func(p port) bool { return p.name == name })
		if name != "" && !known && !strings.ContainsAny(name, "/.") {
			all = append(all, port{name, baud})
		}
	}
	for name := range strings.FieldsSeq(active) {
		add(name, 0)
	}
	for _, p := range cmdline {
		if p.key != "console" || p.value == "null" {
			continue
		}
		name, options, _ := strings.Cut(p.value, ",") // "ttyS1,115200n8"
		digits := len(options) - len(strings.TrimLeft(options, "0123456789"))
		baud, err := strconv.Atoi(options[:digits])
		if err != nil {
			baud = 9600 // the kernel's own default
		}
		if strings.HasPrefix(name, "tty") { // not uart8250,io,0x3f8 and the like, which name no device
			add(name, baud)
		}
	}
	return all
}

// menuParam is the kernel parameter that has the menu of burn-in started in place of the agent.
const menuParam = "ironhand-burnin"

// menuConsoles are the names of consoles that can be read from, with commas between: tty0 is whichever is shown, and keys go to the first.
func menuConsoles(all []port) string {
	var names []string
	for _, p := range all {
		if p.name == "tty0" {
			p.name = "tty1"
		}
		if !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return strings.Join(names, ",")
}
