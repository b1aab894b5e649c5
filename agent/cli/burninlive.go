// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps/burnin"
)

// liveRun is a burn-in that somebody watches: as lines, or as a page with keys.
type liveRun struct {
	tools *tool.Halting // the programs that make the load
	skip  chan struct{}

	// turn is held by who halts, lets go on or skips, and by the end of a load: what was asked of one load is not done to the next.
	turn sync.Mutex

	mu   sync.Mutex
	out  io.Writer   // gets lines while there is no page
	page *burninPage // nil: lines
	stop context.CancelCauseFunc
}

func newLiveRun(out io.Writer) *liveRun {
	return &liveRun{tools: &tool.Halting{}, skip: make(chan struct{}), out: out}
}

// Say prints a line, or keeps it for the page.
func (l *liveRun) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if l.page != nil {
		l.page.say(line)
		return
	}
	for part := range strings.SplitSeq(line, "\n") { // programs and firmware have words in it
		fmt.Fprintln(l.out, harmless(part))
	}
}

// Write takes lines of a log.
func (l *liveRun) Write(b []byte) (int, error) {
	l.Say("%s", strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// errStopped is why a run ended that somebody stopped by a key.
var errStopped = errors.New("stopped by hand")

// show makes a page of the plan, and of what is said from now on. The context ends when somebody stops the run.
func (l *liveRun) show(ctx context.Context, machine string, plan *burnin.Plan) context.Context {
	ctx, stop := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.page, l.stop = newBurninPage(machine, plan.Profile, plan.Loads()), stop
	return ctx
}

// shown is the page, nil if there is none.
func (l *liveRun) shown() *burninPage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.page
}

// hide goes on with lines.
func (l *liveRun) hide() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		l.stop(nil)
	}
	l.page = nil
}

// following is what a run tells the page. Without a page it tells nobody.
func (l *liveRun) following() burnin.Following {
	p := l.shown()
	if p == nil {
		return burnin.Following{}
	}
	return burnin.Following{Began: p.load, Sampled: p.sampled, Skip: l.skip, Ended: func(i int, r burnin.Report) {
		l.turn.Lock()
		defer l.turn.Unlock()
		l.resume(p)
		p.end(i, r)
	}}
}

// key does what somebody typed.
func (l *liveRun) key(key rune) {
	if do := l.typed(key); do != nil {
		l.turn.Lock()
		defer l.turn.Unlock()
		do()
	}
}

// typed is what is to be done for a key, in turn; nil for nothing.
func (l *liveRun) typed(key rune) (do func()) {
	p := l.shown()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	load := p.current
	asked, running, halted := p.asks, load >= 0, !p.halted.IsZero()
	p.asks = ""
	if key != 'p' {
		p.help = key == '?' && !p.help && asked == ""
	}
	switch {
	case p.ending:
	case asked != "" && key != 'y' && key != 'Y':
	case asked == askStop:
		p.ending = true
		return func() {
			l.resume(p)
			l.stop(errStopped)
		}
	case asked != "" && running:
		return func() {
			l.resume(p)
			if !p.runs(load) {
				return
			}
			select {
			case l.skip <- struct{}{}:
			default: // it ends just now
			}
		}
	case key == 'q' || key == keyBreak:
		p.asks = askStop
	case key == 's' && running:
		p.asks = "Skip " + p.loads[p.current].Part + "?"
	case key == 'p' && halted:
		return func() { l.resume(p) }
	case key == 'p' && running:
		return func() { l.halt(p, load) }
	}
	return nil
}

// askStop asks whether all is to be stopped.
const askStop = "Stop all of the burn-in?"

// halt halts the programs of a load. Where none runs, such as while a drive tests itself, or since the load has ended, there is nothing to halt.
func (l *liveRun) halt(p *burninPage, load int) {
	if !p.runs(load) || l.tools.Running() == 0 {
		l.Say("nothing runs that can be paused")
		return
	}
	if err := l.tools.Halt(); err != nil {
		l.Say("pause: %v", err)
	}
	p.halt(true)
	l.Say("paused by hand")
}

// resume lets the programs go on, also so that they can end.
func (l *liveRun) resume(p *burninPage) {
	p.mu.Lock()
	halted := !p.halted.IsZero()
	p.mu.Unlock()
	if !halted {
		return
	}
	if err := l.tools.Resume(); err != nil {
		l.Say("go on: %v", err)
	}
	p.halt(false)
	l.Say("goes on")
}

// The values of --progress.
const (
	progressAuto   = "auto"
	progressScreen = "screen"
	progressPlain  = "plain"
)

// screenTerminal is the terminal for a live page, as --progress says; nil for lines.
func (c *call) screenTerminal(how string) (terminal, error) {
	if how == progressPlain {
		return nil, nil
	}
	if how != progressAuto && how != progressScreen {
		return nil, usagef("--progress %s: want auto, screen or plain", how)
	}
	path := ownTerminal(c.stdin, c.stderr)
	if kind := os.Getenv("TERM"); how == progressAuto && (kind == "" || kind == "dumb") {
		path = ""
	}
	if path == "" {
		if how == progressScreen {
			return nil, usagef("--progress screen: standard input and error are not a terminal")
		}
		return nil, nil
	}
	t, err := openTTY(path)
	if err != nil {
		if how == progressScreen {
			return nil, fmt.Errorf("--progress screen: %w", err)
		}
		return nil, nil // somebody else's, after su
	}
	return t, nil
}

// watched does a run, and shows it meanwhile: on the screen that there is, on one of its own, or as lines.
func (c *call) watched(ctx context.Context, live *liveRun, how string, plan *burnin.Plan, run func(ctx context.Context)) error {
	if c.live == nil {
		t, err := c.screenTerminal(how)
		if err != nil {
			return err
		}
		if t == nil {
			run(ctx)
			return nil
		}
		ctx = live.show(ctx, machineName(inspect.Local()), plan)
		s := newScreen([]terminal{t}, func(width, height int) (string, []row) { return "run", live.page.draw(width, height) }, nil)
		s.key = func(_ int, key rune) {
			live.key(key)
			s.wakeUp(false)
		}
		s.start()
		defer live.hide()
		defer s.close()
	} else {
		ctx = live.show(ctx, machineName(inspect.Local()), plan)
		defer live.hide()
	}
	run(ctx)
	return nil
}

// machineName is this machine for people, in one line, by what the kernel has of its SMBIOS.
func machineName(m inspect.Machine) string {
	read := func(file string) string {
		b, err := fs.ReadFile(m.FS, "sys/class/dmi/id/"+file)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	name := words(read("sys_vendor"), read("product_name"))
	if serial := read("product_serial"); serial != "" {
		name += " serial " + serial
	}
	return cmp.Or(strings.TrimSpace(name), "this machine")
}
