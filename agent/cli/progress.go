// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/ironhand/ironhand/stream"
)

const (
	drawEvery  = 250 * time.Millisecond // at the most
	plainEvery = 5 * time.Second        // lines that nobody draws over; those with news come at once
	leastWidth = 30                     // columns for a bar
)

// drawer shows the progress of an image: as a bar on a terminal whose width is known, else as lines, which is what logs and serial consoles take.
type drawer struct {
	out    io.Writer
	width  func() int // columns; 0 for lines
	now    func() time.Time
	last   time.Time // of the last line or bar
	shown  stream.Progress
	barred bool // the cursor is in a line with a bar
	json   bool // lines are objects
}

// newDrawer returns what shows progress on out, as --progress says.
func newDrawer(out io.Writer, how string) *drawer {
	d := &drawer{out: out, now: time.Now, width: func() int { return 0 }, json: how == "json"}
	if f, ok := out.(*os.File); ok && how == "auto" {
		d.width = func() int { return terminalWidth(f) }
	}
	return d
}

// show is called with each state; end says that it is the last.
func (d *drawer) show(p stream.Progress, end bool) {
	width := d.width()
	now, before := d.now(), d.shown
	if p == before {
		return
	}
	news := p.Phase != before.Phase || p.Retries != before.Retries || end
	if width < leastWidth {
		if !news && now.Sub(d.last) < plainEvery {
			return
		}
		d.finish()
		line := harmless(p.String())
		if b, err := json.Marshal(p); d.json && err == nil {
			line = string(b)
		}
		fmt.Fprintln(d.out, line)
	} else {
		if !news && now.Sub(d.last) < drawEvery {
			return
		}
		if p.Retries > before.Retries {
			d.clear()
			fmt.Fprintf(d.out, "retry %d, from %s: %s\n", p.Retries, harmless(p.Source), harmless(p.LastError))
		}
		d.clear()
		io.WriteString(d.out, bar(p, width-1)) // a line that is full may have moved the cursor on
		d.barred = true
	}
	d.shown, d.last = p, now
}

func (d *drawer) clear() {
	if d.barred {
		io.WriteString(d.out, "\r\x1b[K")
		d.barred = false
	}
}

// finish leaves the bar as it is, and has others go on in the next line.
func (d *drawer) finish() {
	if d.barred {
		fmt.Fprintln(d.out)
		d.barred = false
	}
}

// harmless is s in one line, without what a terminal would take for more than text: errors have words of servers in them.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// bar is one line of at most width characters, of which there are leastWidth-1 or more; what has no room is left out.
func bar(p stream.Progress, width int) string {
	line := fmt.Sprintf("%-9s ", p.Phase)
	percent := int64(-1)
	if p.Total > 0 {
		percent = min(100, 100*p.Read/p.Total)
	}
	var rest []string // the first is the most wanted
	if percent >= 0 {
		rest = append(rest, fmt.Sprintf("%3d %%", percent))
	}
	if p.Left >= 0 && p.Phase == stream.PhaseWrite {
		rest = append(rest, clock(p.Left)+" left")
	}
	rest = append(rest, quantity(float64(p.Rate))+"/s")
	if p.Total > 0 {
		rest = append(rest, quantity(float64(p.Read))+" of "+quantity(float64(p.Total)))
	} else {
		rest = append(rest, quantity(float64(p.Read)))
	}
	switch {
	case p.Retries == 1:
		rest = append(rest, "1 retry")
	case p.Retries > 1:
		rest = append(rest, fmt.Sprintf("%d retries", p.Retries))
	}
	const leastBar = 12 // with its brackets
	words := ""
	for _, word := range rest {
		if percent >= 0 && len(line)+leastBar+len(words)+2+len(word) > width || len(line)+len(words)+2+len(word) > width {
			break
		}
		words += "  " + word
	}
	if room := width - len(line) - len(words) - 2; percent >= 0 && room >= leastBar-2 {
		room = min(room, 50)
		full := int(int64(room) * percent / 100)
		line += "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
	}
	return fmt.Sprintf("%.*s", width, line+words)
}

// quantity is a number of bytes with three digits or so.
func quantity(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1000 {
			if n < 10 && unit != "B" {
				return fmt.Sprintf("%.1f %s", n, unit)
			}
			return fmt.Sprintf("%.0f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TiB", n)
}

// clock is seconds as 1:02:03 or 2:03.
func clock(seconds float64) string {
	s := int64(min(seconds, 1e6))
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
