// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settleMost is how long the start of the agent waits for devices. One that comes later still gets its driver.
	settleMost = 20 * time.Second

	// quietPCI and quietUSB are how long no device may have come before all are taken to be there; see hasUSB.
	quietPCI = 100 * time.Millisecond
	quietUSB = time.Second
)

// process1 is the state of process 1.
type process1 struct {
	options  Options
	cmdline  []parameter
	consoles *consoles
	journal  *journal // nil if it could not be opened
	reaper   *reaper
	going    atomic.Bool // an order to go down was accepted
	down     chan How    // that order
	mute     atomic.Bool // the consoles are the menu's
}

// Init is process 1 of the ramdisk, from the first file system to the last reboot. It never returns.
func Init(o Options) {
	// 1. File systems, then somewhere to say things.
	setup := Setup()
	cmdline, cmdlineErr := os.ReadFile("/proc/cmdline")
	p := &process1{
		options: o,
		cmdline: parseCmdline(string(cmdline)),
		reaper:  &reaper{waiting: map[int]chan<- syscall.WaitStatus{}},
		down:    make(chan How, 1),
	}
	p.consoles = newConsoles(p.openConsole)
	p.useConsoles()
	var err error
	if p.journal, err = openJournal(LogFile, maxJournal); err != nil {
		p.warn(err)
	}
	p.warn(setup)
	p.warn(cmdlineErr)
	p.say("init: ironhand is process 1") // not the parameters: they may hold a token
	p.warn(p.setHostname())

	// 2. Signals and orders.
	p.handleSignals()
	p.warn(p.listen())

	// 3. Drivers, for what is there and for what comes.
	p.warn(p.drivers())
	p.warn(mountEFI())
	p.useConsoles()

	// 4. Children.
	shell, _ := lookup(p.cmdline, "ironhand.shell")
	if shell == "1" || shell == "only" {
		p.shells()
	}
	if shell == "only" {
		p.say("init: ironhand.shell=only: the agent is not started")
		p.takeDown(<-p.down)
	}
	if _, wanted := lookup(p.cmdline, menuParam); wanted && len(o.Menu) > 0 {
		p.options.Agent = append(slices.Clone(o.Menu), "--console", menuConsoles(p.ports()))
		p.mute.Store(true)
		// Messages of the kernel would stand in the menu; what matters of them it shows itself. Emergencies are printed still: proc(5), /proc/sys/kernel/printk.
		p.warn(os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0))
	}
	p.supervise()
}

// say prints a line on every console and in the log.
func (p *process1) say(format string, args ...any) {
	p.print(printable(fmt.Sprintf(format, args...)))
}

// warn says what went wrong, if anything: process 1 goes on with what it has.
func (p *process1) warn(err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			p.warn(e)
		}
		return
	}
	p.say("init: %v", err)
}

func (p *process1) print(line string) {
	line = stamp(SinceBoot(), line)
	if !p.mute.Load() {
		p.consoles.print(line)
	}
	if p.journal == nil {
		return
	}
	if err := p.journal.print(line); err != nil {
		p.consoles.print(stamp(SinceBoot(), "init: "+err.Error()))
	}
}

// useConsoles takes the consoles that there are now.
func (p *process1) useConsoles() {
	all := p.ports()
	var names []string
	for _, c := range all {
		names = append(names, c.name)
	}
	for _, err := range p.consoles.use(names) {
		p.warn(err)
	}
}

func (p *process1) ports() []port {
	active, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return []port{{name: "console"}} // the kernel's choice
	}
	all := ports(string(active), p.cmdline)
	if len(all) == 0 {
		return []port{{name: "console"}}
	}
	return all
}

// openConsole opens a console without waiting for a carrier. Writing waits, but holds no thread.
func (p *process1) openConsole(name string) (io.WriteCloser, error) {
	f, err := os.OpenFile("/dev/"+name, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	for _, c := range p.ports() {
		if c.name == name && c.baud != 0 {
			err = setSpeed(f, c.baud)
		}
	}
	if err != nil {
		f.Close() // the first error counts
		return nil, err
	}
	return f, nil
}

// setSpeed sets a serial line to a speed, 8 bits, no parity, and makes it do without a carrier (termios(3)).
func setSpeed(f *os.File, baud int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) {
		var t *unix.Termios
		if t, err = unix.IoctlGetTermios(int(fd), unix.TCGETS2); err != nil {
			return
		}
		t.Cflag = t.Cflag&^(unix.CBAUD|unix.CSIZE|unix.PARENB|unix.CSTOPB) | unix.BOTHER | unix.CS8 | unix.CLOCAL | unix.CREAD
		t.Ispeed, t.Ospeed = uint32(baud), uint32(baud)
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS2, t)
	}); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("set %d baud: %w", baud, err)
	}
	return nil
}

func (p *process1) setHostname() error {
	name, err := hostname(p.cmdline)
	if e := unix.Sethostname([]byte(name)); e != nil {
		err = errors.Join(err, fmt.Errorf("set host name: %w", e))
	}
	return err
}

// handleSignals reaps, and turns Ctrl-Alt-Del into an orderly reboot. The other signals that a program may send to process 1 are taken and
// count for nothing; they are not ignored in the kernel's sense, which children would inherit.
func (p *process1) handleSignals() {
	p.warn(unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR)
	children := make(chan os.Signal, 1) // of its own: one of these must never be lost
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			p.reaper.reap()
		}
	}()
	go func() {
		for s := range signals {
			if s == unix.SIGINT && p.accept(Reboot) == nil {
				p.say("init: Ctrl-Alt-Del")
				p.down <- Reboot
			}
		}
	}()
}

// accept decides about an order to go down. Only one is accepted.
func (p *process1) accept(how How) error {
	if how == Kexec && !KernelLoaded() {
		return errors.New("no kernel is loaded")
	}
	if !p.going.CompareAndSwap(false, true) {
		return errors.New("the machine is going down already")
	}
	return nil
}

// listen takes orders on the control socket.
func (p *process1) listen() error {
	l, err := net.Listen("unix", controlSocket)
	if err != nil {
		return fmt.Errorf("take orders: %w", err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				p.warn(fmt.Errorf("take orders: %w", err))
				time.Sleep(time.Second) // out of file descriptors, perhaps
				continue
			}
			go func() {
				how, err := answer(conn, p.accept)
				if err != nil {
					p.warn(fmt.Errorf("order refused: %w", err))
					return
				}
				p.down <- how
			}()
		}
	}()
	return nil
}

// drivers loads the modules for the devices that are there, has those loaded that come later, and waits until devices stop coming.
func (p *process1) drivers() error {
	began := time.Now()
	news, err := openUevents() // before the first look, so that nothing falls between
	if err != nil {
		return err
	}
	quiet, err := openUevents()
	if err != nil {
		return err
	}
	defer quiet.close()
	l, err := newLoader(p.cmdline)
	if err != nil {
		return err
	}
	go p.hotplug(l, news)

	ctx, cancel := context.WithTimeout(context.Background(), settleMost)
	defer cancel()
	n, err := l.coldplug(ctx)
	p.warn(err)
	p.warn(l.loadEFI(ctx))
	calm := quietPCI
	if hasUSB(os.DirFS("/sys")) {
		calm = quietUSB
	}
	err = settle(ctx, quiet, calm, l.busy)
	p.say("init: drivers for %d kinds of devices in %.3f s", n, time.Since(began).Seconds())
	return err
}

// loadEFI loads the file system of the firmware's variables where there is such a firmware.
func (l *loader) loadEFI(ctx context.Context) error {
	if _, err := os.Stat("/sys/firmware/efi"); err != nil {
		return nil // started by a BIOS
	}
	return l.load(ctx, "efivarfs")
}

// hotplug loads modules for the devices that come, until the messages end.
func (p *process1) hotplug(l *loader, news *uevents) {
	for {
		e, err := news.next(time.Time{})
		switch {
		case errors.Is(err, errOverrun):
			go func() {
				_, err := l.coldplug(context.Background())
				p.warn(err)
			}()
		case err != nil:
			p.warn(fmt.Errorf("devices that come later get no drivers: %w", err))
			return
		case e.action == "add" && e.modalias != "":
			go func() { p.warn(l.loadFor(context.Background(), e)) }()
		case e.action == "add" && e.subsystem == "module":
			l.becameLive(path.Base(e.path))
		case e.subsystem == "tty":
			p.useConsoles()
		}
	}
}

// environment is what children find; nothing of the kernel's command line is among it.
func environment(term string) []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LC_ALL=C", "TERM=" + term}
}

// supervise starts the agent again and again, until the machine goes down.
func (p *process1) supervise() {
	var pause backoff
	for restarts := 1; ; restarts++ {
		began := time.Now()
		pid, ended, err := p.startAgent()
		what := ""
		if err != nil {
			what = err.Error()
		} else {
			select {
			case status := <-ended:
				what = describe(status)
				// Its tools must not go on writing beside the next agent. ESRCH: it left none.
				if err := unix.Kill(-pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
					p.warn(fmt.Errorf("end what the agent started: %w", err))
				}
			case how := <-p.down:
				p.takeDown(how)
			}
		}
		wait := pause.next(time.Since(began))
		menu := p.mute.Swap(false) // what it has left of its screen goes up
		p.say("init: the agent %s; restart %d in %v", what, restarts, wait)
		select {
		case <-time.After(wait):
		case how := <-p.down:
			p.takeDown(how)
		}
		p.mute.Store(menu)
	}
}

// startAgent starts the agent in a process group of its own, with its output coming here.
func (p *process1) startAgent() (pid int, ended <-chan syscall.WaitStatus, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	out, outW, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer outW.Close()
	errs, errsW, err := os.Pipe()
	if err != nil {
		out.Close()
		return 0, nil, err
	}
	defer errsW.Close()
	pid, ended, err = p.reaper.start("/proc/self/exe", p.options.Agent, &syscall.ProcAttr{
		Dir:   "/",
		Env:   environment("dumb"),
		Files: []uintptr{null.Fd(), outW.Fd(), errsW.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	for _, r := range []*os.File{out, errs} {
		go func() {
			defer r.Close()
			p.warn(eachOutputLine(r, p.print))
		}()
	}
	return pid, ended, err
}

// shells keeps a shell on every console.
func (p *process1) shells() {
	args := p.options.Shell
	if len(args) == 0 {
		args = []string{"/bin/busybox", "sh"}
	}
	for _, c := range p.ports() {
		name := c.name
		if name == "tty0" {
			name = "tty1" // tty0 is whichever is shown, and nobody's controlling terminal
		}
		p.say("init: emergency shell on %s", name)
		go func() {
			for {
				if err := p.shell("/dev/"+name, args); err != nil {
					p.warn(fmt.Errorf("emergency shell: %w", err))
					time.Sleep(9 * time.Second)
				}
				time.Sleep(time.Second)
			}
		}()
	}
}

// shell runs one shell on a terminal to its end.
func (p *process1) shell(terminal string, args []string) error {
	tty, err := os.OpenFile(terminal, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	fd := tty.Fd()
	_, ended, err := p.reaper.start(args[0], args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   environment("linux"),
		Files: []uintptr{fd, fd, fd},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
	})
	tty.Close() // the child has its own
	if err != nil {
		return err
	}
	<-ended
	return nil
}
