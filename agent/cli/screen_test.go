// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/steps/burnin"
)

// emulator is as much of a terminal as the screen needs: it has a cursor, clears, and shows text. Colours are taken and thrown away.
type emulator struct {
	width, height int
	cells         []byte
	at            int
	rest          []byte
}

func newEmulator(width, height int) *emulator {
	return &emulator{width: width, height: height, cells: bytes.Repeat([]byte{' '}, width*height)}
}

func (e *emulator) write(t *testing.T, b []byte) {
	for e.rest = append(e.rest, b...); len(e.rest) > 0; {
		if e.rest[0] != 0x1b {
			if e.rest[0] < ' ' || e.rest[0] > '~' {
				t.Fatalf("byte %#x", e.rest[0])
			}
			e.cells[e.at] = e.rest[0]
			e.at++
			e.rest = e.rest[1:]
			continue
		}
		end := bytes.IndexFunc(e.rest[2:], func(r rune) bool { return r >= '@' })
		if end < 0 {
			return
		}
		sequence, final := string(e.rest[2:2+end]), e.rest[2+end]
		e.rest = e.rest[3+end:]
		switch final {
		case 'H':
			row, column := 1, 1
			fmt.Sscanf(sequence, "%d;%d", &row, &column)
			e.at = min(row-1, e.height-1)*e.width + min(column-1, e.width-1)
		case 'J':
			e.cells = bytes.Repeat([]byte{' '}, e.width*e.height)
		case 'm', 'h', 'l', 'n':
		default:
			t.Fatalf("sequence %q %c", sequence, final)
		}
	}
}

func (e *emulator) String() string {
	var b strings.Builder
	for y := range e.height {
		b.WriteString(strings.TrimRight(string(e.cells[y*e.width:(y+1)*e.width]), " ") + "\n")
	}
	return b.String()
}

// text is what a sheet should look like.
func (s *sheet) text() string {
	e := newEmulator(s.width, s.height)
	for i, c := range s.cells[:len(s.cells)-1] {
		e.cells[i] = c.char
	}
	return e.String()
}

// Whatever is drawn over whatever, in pieces of any size: at the end the terminal shows what it should.
func TestUpdate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		width, height := 20+r.IntN(120), 6+r.IntN(40)
		e, shown := newEmulator(width, height), newSheet(width, height)
		for range 5 {
			want := newSheet(width, height)
			copy(want.cells, shown.cells)
			for range r.IntN(300) {
				want.cells[r.IntN(len(want.cells))] = cell{byte(' ' + r.IntN(95)), style(r.IntN(6))}
			}
			most := 200 + r.IntN(2000)
			for range 1000 {
				b := shown.update(want, most)
				if len(b) > most {
					t.Fatalf("%d bytes, at most %d are allowed", len(b), most)
				}
				e.write(t, b)
				if len(b) == 0 {
					break
				}
			}
			if e.String() != want.text() {
				t.Fatalf("shown:\n%swant:\n%s", e, want.text())
			}
		}
	}
	// What is right already costs nothing.
	s := newSheet(80, 24)
	if b := s.update(newSheet(80, 24), 1000); len(b) != 0 {
		t.Errorf("an update of nothing has %d bytes", len(b))
	}
}

// fakeTerminal is a terminal without a kernel.
type fakeTerminal struct {
	width, height int
	speed         int
	answer        string // to the question for its size

	mu     sync.Mutex
	screen *emulator
	t      *testing.T
	bytes  int
	began  time.Time
	in     chan []byte
	ended  bool
}

func newFakeTerminal(t *testing.T, width, height, speed int) *fakeTerminal {
	return &fakeTerminal{t: t, width: width, height: height, speed: speed, screen: newEmulator(width, height), in: make(chan []byte, 100), began: time.Now()}
}

func (f *fakeTerminal) Read(b []byte) (int, error) {
	got, ok := <-f.in
	if !ok {
		return 0, io.EOF
	}
	return copy(b, got), nil
}

func (f *fakeTerminal) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return 0, os.ErrClosed
	}
	f.bytes += len(b)
	if f.speed > 0 {
		// What a line has been given by now it must have been able to send, but for a second's worth that waits.
		if most := f.speed + int(float64(f.speed)*time.Since(f.began).Seconds()) + 1; f.bytes > most {
			f.t.Errorf("%d bytes within %v, want at most %d", f.bytes, time.Since(f.began), most)
		}
	}
	if bytes.Contains(b, []byte("\x1b[6n")) && f.answer != "" {
		f.in <- []byte(f.answer)
	}
	f.screen.write(f.t, b)
	return len(b), nil
}

func (f *fakeTerminal) SetReadDeadline(time.Time) error { return nil }
func (f *fakeTerminal) size() (int, int)                { return f.width, f.height }
func (f *fakeTerminal) rate() int                       { return f.speed }
func (f *fakeTerminal) restore() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.ended = true
		close(f.in)
	}
}

func (f *fakeTerminal) shows() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.screen.String()
}

// scripted is a burn-in in the middle: everything that a page can have.
func scripted(now func() time.Time, began time.Time) *burninPage {
	p := newBurninPage("ACME R1 serial \x1b[31mS1\x1b]0;x\a", "standard", []burnin.PlannedLoad{
		{Part: "processors", Text: "processors for 1h", Lasts: time.Hour}, {Part: "memory", Text: "memory for 2h", Lasts: 2 * time.Hour},
		{Part: "disks", Text: "2 disks"}, {Part: "network", Text: "network", Lasts: 10 * time.Minute},
	})
	clock := began
	p.began, p.now = began, func() time.Time { return clock }
	p.load(0)
	p.say("burn-in: processors for 1h0m0s: stress-ng --cpu 0 --verify --metrics-brief --timeout 3600")
	clock = began.Add(time.Hour)
	p.end(0, burnin.Report{Parts: []burnin.Part{
		{Name: "DIMM_A1 (mc0 dimm0)", Verdict: burnin.Fail, Reasons: []string{"12 corrected memory errors"}}, {Name: "processors", Verdict: burnin.Pass},
	}})
	p.load(1)
	p.say("burn-in: memory for 2h0m0s: stress-ng --vm 0 --vm-bytes 90% --verify --metrics-brief --timeout 7200")
	p.say("kernel: EDAC MC0: 1 CE memory read error on DIMM_A1 \x1b[2J\x1b[1;1Hgone")
	p.sampled(burnin.Snapshot{
		Celsius:  map[string]float64{"hwmon1 coretemp Package id 0": 71, "hwmon1 coretemp Core 0": 68.4, "hwmon3 nvme Composite": 43},
		MHz:      map[string]float64{"socket 0": 2812, "socket 1": 2799},
		RPM:      map[string]float64{"hwmon0 nct6775 fan1_input": 4200, "hwmon0 nct6775 fan2_input": 5100},
		Watts:    map[string]float64{"hwmon2 power_meter power1_average": 312},
		Findings: []burnin.Part{{Name: "eth0 (0000:01:00.0)", Reasons: []string{"1 frames with errors"}}, {Name: "/dev/sda \x9b31mEVIL\r\n serial S1", Verdict: burnin.Fail, Reasons: []string{"1 media errors"}}},
	})
	p.now = now
	return p
}

// At 9600 baud no more is written than the line takes, once a second at the most, and the page is whole soon.
func TestSlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := scripted(time.Now, time.Now().Add(-90*time.Minute))
		f := newFakeTerminal(t, 80, 24, 960)
		s := newScreen([]terminal{f}, func(w, h int) (string, []row) { return "run", p.draw(w, h) }, func(int, rune) {})
		s.start()
		for i := range 60 {
			time.Sleep(time.Second)
			if i%7 == 0 {
				p.say(fmt.Sprintf("something new %d", i))
			}
			if i == 30 {
				s.wakeUp(true) // somebody wants it anew
			}
		}
		time.Sleep(500 * time.Millisecond)
		want := newSheet(80, 24)
		want.put(p.draw(80, 24))
		got, wanted := f.shows(), want.text()
		// The seconds in the first line and in that of the load may be one behind.
		if lines, wants := strings.Split(got, "\n"), strings.Split(wanted, "\n"); strings.Join(lines[6:], "\n") != strings.Join(wants[6:], "\n") || !strings.Contains(got, "burn-in standard  1:31:0") {
			t.Errorf("shown:\n%swant:\n%s", got, wanted)
		}
		perSecond := f.bytes / 60
		t.Logf("%d bytes a second", perSecond)
		if perSecond > 300 {
			t.Errorf("%d bytes a second for a page of which little changes", perSecond)
		}
		s.close()
		if got := strings.TrimSpace(f.shows()); got != "" {
			t.Errorf("left on the screen: %q", got)
		}
	})
}

// A terminal that does not know its size is asked; one that does not answer has 80x24.
func TestAskSize(t *testing.T) {
	for _, test := range []struct{ name, answer, want string }{
		{"answers", "\x1b[43;132R", "132x43"},
		{"is silent", "", "80x24"},
		{"answers nonsense", "\x1b[0;99999R\x1b[R\x1b[1R", "80x24"},
		{"types before it answers", "ab\x1b[A\x1b[30;100R", "100x30"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeTerminal(t, 0, 0, 960)
				f.screen, f.answer = newEmulator(200, 100), test.answer
				var mu sync.Mutex
				var got string
				s := newScreen([]terminal{f}, func(w, h int) (string, []row) {
					mu.Lock()
					defer mu.Unlock()
					got = fmt.Sprintf("%dx%d", w, h)
					return "", nil
				}, func(int, rune) {})
				s.start()
				time.Sleep(5 * time.Second)
				s.close()
				if got != test.want {
					t.Errorf("drawn for %s, want %s", got, test.want)
				}
			})
		})
	}
}

// Another size is drawn from scratch within a second.
func TestResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTerminal(t, 80, 24, 0)
		p := scripted(time.Now, time.Now())
		s := newScreen([]terminal{f}, func(w, h int) (string, []row) { return "run", p.draw(w, h) }, func(int, rune) {})
		s.start()
		time.Sleep(3 * time.Second)
		f.mu.Lock()
		f.width, f.height, f.screen = 132, 43, newEmulator(132, 43)
		f.mu.Unlock()
		time.Sleep(1500 * time.Millisecond)
		if lines := strings.Split(f.shows(), "\n"); !strings.Contains(lines[42], "q stop all") {
			t.Errorf("shown:\n%s", strings.Join(lines, "\n"))
		}
		s.close()
	})
}

// A page that panics leaves the terminal as it was found.
func TestPanic(t *testing.T) {
	f := newFakeTerminal(t, 80, 24, 0)
	s := newScreen([]terminal{f}, func(int, int) (string, []row) { panic("drawn wrong") }, func(int, rune) {})
	func() {
		defer func() {
			if r := recover(); r != "drawn wrong" {
				t.Errorf("panic %v", r)
			}
		}()
		defer s.unlessPanic()
		s.painters[0].paint(s)
	}()
	if !f.ended {
		t.Error("the terminal was not given back")
	}
}

func TestKeys(t *testing.T) {
	for _, test := range []struct {
		name string
		in   []string
		want string
	}{
		{"letters", []string{"pq?"}, "p q ?"},
		{"Enter as terminals send it", []string{"\r", "\n"}, "Enter Enter"},
		{"Ctrl-C, Ctrl-L, both kinds of rubbing out", []string{"\x03\x0c\x08\x7f"}, "3 12 8 8"},
		{"arrows and function keys", []string{"\x1b[A\x1bOP\x1b[15~x"}, "-1 -1 -1 x"},
		{"a size", []string{"\x1b[24;80R"}, "80x24"},
		{"a size in pieces", []string{"\x1b", "[2", "4;80", "Rq"}, "80x24 q"},
		{"a size that is none", []string{"\x1b[0;0R\x1b[24R\x1b[;R"}, "-1 -1 -1"},
		{"escape alone", []string{"\x1b", "q"}, "q"},
		{"a sequence without end", []string{"\x1b[" + strings.Repeat("1", 100), "q"}, "q"},
		{"no ASCII", []string{"\xc3\xa4\xff"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var k keys
			var got []string
			for _, in := range test.in {
				for _, e := range k.add([]byte(in)) {
					switch {
					case e.key == 0:
						got = append(got, fmt.Sprintf("%dx%d", e.width, e.height))
					case e.key == '\n':
						got = append(got, "Enter")
					case e.key < ' ':
						got = append(got, fmt.Sprint(e.key))
					default:
						got = append(got, string(e.key))
					}
				}
			}
			if s := strings.Join(got, " "); s != test.want {
				t.Errorf("keys %q, want %q", s, test.want)
			}
		})
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("q\x1b[24;80R\x1b[A\x1bOPx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var k keys
		for _, e := range k.add(b) {
			if e.key == 0 && !e.usable() {
				t.Errorf("a size of %dx%d", e.width, e.height)
			}
		}
		if len(k.rest) > len(b) || len(k.rest) > mostSequence {
			t.Errorf("%d bytes are kept", len(k.rest))
		}
	})
}
