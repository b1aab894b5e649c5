// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// style is how text on a screen looks.
type style byte

// The styles, which read as well where the terminal has no colours.
const (
	plain style = iota
	bold
	inverse
	good
	bad
	warned
)

// sgr are the parameters of "select graphic rendition" (ECMA-48, 8.3.117) for each style, behind a reset.
var sgr = [...]string{plain: "", bold: ";1", inverse: ";7", good: ";32", bad: ";1;31", warned: ";33"}

// span is text of one style.
type span struct {
	text  string
	style style
}

// row is a line of a screen.
type row []span

// say is a row of one style.
func say(s style, format string, args ...any) row { return row{{fmt.Sprintf(format, args...), s}} }

// cell is one character of a screen. Only ASCII is shown: fonts of consoles have little more, and nobody has to know how wide a character is.
type cell struct {
	char  byte
	style style
}

var blank = cell{char: ' '}

// sheet is a whole screen.
type sheet struct {
	width, height int
	cells         []cell
}

func newSheet(width, height int) *sheet {
	s := &sheet{width: width, height: height, cells: make([]cell, width*height)}
	for i := range s.cells {
		s.cells[i] = blank
	}
	return s
}

// put writes rows from the top; what has no room is left out. Whatever is in a text steers no terminal.
func (s *sheet) put(rows []row) {
	for y, r := range rows[:min(len(rows), s.height)] {
		x := 0
		for _, sp := range r {
			for _, char := range harmless(sp.text) {
				if x == s.width {
					break
				}
				if char > 0x7e {
					char = '?'
				}
				s.cells[y*s.width+x] = cell{byte(char), sp.style}
				x++
			}
			if sp.style == inverse && x > 0 && len(r) == 1 { // a bar is as wide as the screen
				for ; x < s.width; x++ {
					s.cells[y*s.width+x] = cell{' ', inverse}
				}
			}
		}
	}
}

// leap is how many characters that are right already are written again, which takes less than moving the cursor.
const leap = 5

// mostStep is more than one character takes with all that may stand before it, bytes.
const mostStep = 24

// update returns what makes a terminal that shows s show want, of at most the given number of bytes; what did not fit is left for the next time. s is then what the
// terminal shows. The last cell of all is never written: some terminals scroll then. Both have the same size.
func (s *sheet) update(want *sheet, most int) []byte {
	var b bytes.Buffer
	at, now := -1, style(255) // where the cursor is, and what it writes; not known
	last := len(s.cells) - 1
	for i := 0; i < last; i++ {
		if s.cells[i] == want.cells[i] {
			continue
		}
		if b.Len()+mostStep+leap*mostStep > most {
			break
		}
		from := i
		if gap := i - at; at >= 0 && gap > 0 && gap <= leap && at/s.width == i/s.width {
			from = at
		} else if at != i {
			fmt.Fprintf(&b, "\x1b[%d;%dH", i/s.width+1, i%s.width+1)
		}
		for k := from; k <= i; k++ {
			c := want.cells[k]
			if c.style != now {
				fmt.Fprintf(&b, "\x1b[0%sm", sgr[c.style])
				now = c.style
			}
			b.WriteByte(c.char)
			s.cells[k] = c
		}
		at = i + 1
		if at%s.width == 0 {
			at = -1 // where the cursor is at the end of a line, terminals disagree
		}
	}
	if b.Len() > 0 && now != plain {
		b.WriteString("\x1b[0m")
	}
	return b.Bytes()
}

// meter is a bar of a number of characters with its brackets.
func meter(done float64, width int) string {
	room := width - 2
	if room < 1 {
		return ""
	}
	full := int(float64(room) * max(0, min(1, done)))
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
}

// fit is s in exactly width characters.
func fit(s string, width int) string {
	if width <= 0 {
		return ""
	}
	s = harmless(s)
	if n := len([]rune(s)); n > width {
		return string([]rune(s)[:width])
	} else if n < width {
		s += strings.Repeat(" ", width-n)
	}
	return s
}

// days is a length of time as people read it: 1:02:03, or 5d 01:02:03.
func days(d time.Duration) string {
	s := int64(d.Round(time.Second).Seconds())
	if s < 0 {
		s = 0
	}
	if s >= 24*3600 {
		return fmt.Sprintf("%dd %02d:%02d:%02d", s/(24*3600), s/3600%24, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// keys are what a terminal sends, one after the other.
type keys struct{ rest []byte }

// event is a key, or the size that the terminal has told.
type event struct {
	key           rune // 0 for a size; keys that are no character are keyOther
	width, height int
}

const (
	keyOther  = -1
	keyBreak  = 3  // Ctrl-C
	keyRedraw = 12 // Ctrl-L
)

// mostSequence bounds an escape sequence, bytes.
const mostSequence = 32

// add takes what was read and returns what it means. The answer to "where is the cursor" is CSI row ; column R (ECMA-48, 8.3.14).
func (k *keys) add(b []byte) (events []event) {
	k.rest = append(k.rest, b...)
	for len(k.rest) > 0 {
		c := k.rest[0]
		if c != 0x1b {
			k.rest = k.rest[1:]
			switch {
			case c == '\r':
				c = '\n'
			case c == 0x7f:
				c = 8
			case c > 0x7e, c == 0:
				continue
			}
			events = append(events, event{key: rune(c)})
			continue
		}
		if len(k.rest) == 1 {
			return events // the rest may come; alone it means nothing
		}
		if k.rest[1] != '[' && k.rest[1] != 'O' {
			k.rest = k.rest[1:]
			continue
		}
		end := bytes.IndexFunc(k.rest[2:], func(r rune) bool { return r < 0x20 || r >= 0x40 })
		if end < 0 {
			if len(k.rest) > mostSequence {
				k.rest = nil
			}
			return events
		}
		sequence := string(k.rest[2 : 2+end])
		final := k.rest[2+end]
		k.rest = k.rest[2+end+1:]
		var e event
		if n, err := fmt.Sscanf(sequence, "%d;%d", &e.height, &e.width); final == 'R' && n == 2 && err == nil && e.usable() {
			events = append(events, e)
			continue
		}
		events = append(events, event{key: keyOther})
	}
	return events
}

// The sizes that are believed.
const (
	leastColumns, mostColumns = 20, 500
	leastRows, mostRows       = 6, 200
)

func (e event) usable() bool {
	return e.width >= leastColumns && e.width <= mostColumns && e.height >= leastRows && e.height <= mostRows
}
