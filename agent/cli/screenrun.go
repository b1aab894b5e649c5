// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// terminal is what a screen is drawn on.
type terminal interface {
	io.ReadWriter
	SetReadDeadline(t time.Time) error
	size() (width, height int) // 0 if it does not know, as serial lines
	rate() int                 // bytes that it takes in a second; 0 is no limit
	restore()                  // puts it back as it was, and ends what reads or writes
}

// screen draws pages on terminals, and takes their keys. All show the same, each as fast as it can.
type screen struct {
	draw func(width, height int) (page string, rows []row) // another page is drawn from scratch
	key  func(from int, key rune)                          // number of the terminal

	painters []*painter
	stop     chan struct{}
	done     sync.WaitGroup
}

const (
	drawnEvery = time.Second            // as long as nobody types
	drawnLeast = 100 * time.Millisecond // between two, whoever types
	answerTime = time.Second            // for a terminal to tell its size
	leaveTime  = 2 * time.Second        // for a terminal to take the last that is written to it
)

// What begins and ends drawing: another screen where there is one, without a cursor, with lines that do not wrap.
const (
	enterScreen = "\x1b[?1049h\x1b[0m\x1b[2J\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[0m\x1b[2J\x1b[H\x1b[?7h\x1b[?25h\x1b[?1049l"
	askSize     = "\x1b[999;999H\x1b[6n" // the cursor goes as far as it can, and tells where it is
)

// painter draws on one terminal.
type painter struct {
	terminal
	wake    chan struct{}
	scratch atomic.Bool // all is to be drawn anew
	told    chan event

	shown  *sheet
	page   string
	width  int // of a terminal that has told
	height int
	tokens float64 // bytes that may be written
	filled time.Time
	pause  chan bool     // true: draw no more; false: go on
	back   chan struct{} // reading has stopped, and goes on
}

// newScreen returns a screen that nobody has started yet.
func newScreen(terminals []terminal, draw func(width, height int) (string, []row), key func(from int, key rune)) *screen {
	s := &screen{draw: draw, key: key, stop: make(chan struct{})}
	for _, t := range terminals {
		s.painters = append(s.painters, &painter{terminal: t, wake: make(chan struct{}, 1), told: make(chan event, 1), pause: make(chan bool), back: make(chan struct{})})
	}
	return s
}

// start begins to draw.
func (s *screen) start() {
	for i, p := range s.painters {
		s.done.Go(func() { defer s.unlessPanic(); p.paint(s) })
		go func() { defer s.unlessPanic(); p.read(s, i) }() // ends with the terminal
	}
}

// unlessPanic gives the terminals back before the program dies.
func (s *screen) unlessPanic() {
	if r := recover(); r != nil {
		for _, p := range s.painters {
			io.WriteString(p, leaveScreen)
			p.restore()
		}
		panic(r)
	}
}

// wakeUp draws now.
func (s *screen) wakeUp(scratch bool) {
	for _, p := range s.painters {
		p.wakeUp(scratch)
	}
}

func (p *painter) wakeUp(scratch bool) {
	if scratch {
		p.scratch.Store(true)
	}
	select {
	case p.wake <- struct{}{}:
	default: // it will draw anyway
	}
}

// close ends drawing and gives the terminals back. It can be called again.
func (s *screen) close() {
	select {
	case <-s.stop:
		return
	default:
	}
	close(s.stop)
	done := make(chan struct{})
	go func() { s.done.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(leaveTime): // a line that takes nothing
	}
	for _, p := range s.painters {
		p.restore()
	}
}

// lend leaves terminal i to somebody else while use runs, and goes on with the terminal that use returns: one on which a session has ended has to be opened again.
func (s *screen) lend(i int, use func() (terminal, error)) error {
	p := s.painters[i]
	select {
	case p.pause <- true:
	case <-s.stop:
		return nil
	}
	if err := p.SetReadDeadline(time.Now()); err != nil {
		return err
	}
	select {
	case <-p.back: // nobody reads any more
	case <-s.stop:
		return nil
	}
	t, err := use()
	if err != nil {
		return err // nobody draws there any more
	}
	p.terminal = t // neither drawn on nor read
	select {
	case p.back <- struct{}{}:
	case <-s.stop:
		t.restore()
		return nil
	}
	select {
	case p.pause <- false:
	case <-s.stop:
	}
	return nil
}

// read hands on the keys of a terminal.
func (p *painter) read(s *screen, i int) {
	var k keys
	b := make([]byte, 256)
	for {
		n, err := p.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case p.back <- struct{}{}:
			case <-s.stop:
				return
			}
			select {
			case <-p.back:
				continue
			case <-s.stop:
				return
			}
		}
		if err != nil {
			return
		}
		for _, e := range k.add(b[:n]) {
			switch {
			case e.key == 0:
				select {
				case p.told <- e:
				default:
				}
			case e.key == keyRedraw:
				p.wakeUp(true)
			default:
				s.key(i, e.key)
			}
		}
	}
}

// paint draws until the screen ends.
func (p *painter) paint(s *screen) {
	p.filled = time.Now()
	p.tokens = float64(p.rate())
	if !p.write(enterScreen) || !p.begin() {
		return
	}
	tick := time.NewTicker(drawnEvery)
	defer tick.Stop()
	for {
		if !p.once(s) {
			return
		}
		last := time.Now()
		select {
		case <-s.stop:
			p.write(leaveScreen)
			return
		case <-tick.C:
		case e := <-p.told:
			p.width, p.height = e.width, e.height
		case lent := <-p.pause:
			if !p.write(leaveScreen) {
				return
			}
			for lent {
				select {
				case lent = <-p.pause:
				case <-s.stop:
					return
				}
			}
			p.shown = nil
			if !p.write(enterScreen) {
				return
			}
		case <-p.wake:
			if p.scratch.Swap(false) {
				p.shown = nil
				if !p.begin() {
					return
				}
			}
			if wait := drawnLeast - time.Since(last); wait > 0 {
				time.Sleep(wait)
			}
		}
	}
}

// begin asks a terminal for its size that does not know it. One that does not answer is taken for one of 80x24.
func (p *painter) begin() bool {
	if w, h := p.size(); w > 0 && h > 0 {
		return true
	}
	if p.width == 0 {
		p.width, p.height = 80, 24
	}
	if !p.write(askSize) {
		return false
	}
	select {
	case e := <-p.told:
		p.width, p.height = e.width, e.height
	case <-time.After(answerTime):
	}
	return true
}

// once draws what has changed, as much of it as the terminal can take by now.
func (p *painter) once(s *screen) bool {
	width, height := p.size()
	if width == 0 || height == 0 {
		width, height = p.width, p.height
	}
	width, height = min(width, mostColumns), min(height, mostRows)
	page, rows := s.draw(width, height)
	if p.shown == nil || page != p.page || p.shown.width != width || p.shown.height != height {
		p.shown, p.page = newSheet(width, height), page
		if !p.write("\x1b[0m\x1b[2J") {
			return false
		}
	}
	want := newSheet(width, height)
	want.put(rows)
	most := 1 << 20
	if rate := float64(p.rate()); rate > 0 {
		now := time.Now()
		p.tokens = min(rate, p.tokens+rate*now.Sub(p.filled).Seconds())
		p.filled = now
		most = int(p.tokens)
	}
	b := p.shown.update(want, most)
	return len(b) == 0 || p.write(string(b))
}

// write writes and counts. False means that the terminal is gone.
func (p *painter) write(text string) bool {
	p.tokens -= float64(len(text))
	_, err := io.WriteString(p, text)
	return err == nil
}
