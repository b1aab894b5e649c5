// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ironhand/ironhand/steps/burnin"
)

// mostSaid is how many of the last lines are kept for the page.
const mostSaid = 100

// burninPage is a burn-in as it is shown while it runs.
type burninPage struct {
	now func() time.Time

	mu      sync.Mutex
	machine string
	profile string
	began   time.Time
	loads   []liveLoad
	current int // index; -1 while none runs
	shot    burnin.Snapshot
	said    []string
	halted  time.Time     // since when the load is halted; zero: it runs
	pause   time.Duration // how long the load was halted before
	asks    string        // a question that y answers
	help    bool
	ending  bool // everything is being stopped
}

type liveLoad struct {
	burnin.PlannedLoad
	began, ended time.Time
	report       burnin.Report
}

func newBurninPage(machine, profile string, loads []burnin.PlannedLoad) *burninPage {
	p := &burninPage{now: time.Now, machine: machine, profile: profile, began: time.Now(), current: -1}
	for _, l := range loads {
		p.loads = append(p.loads, liveLoad{PlannedLoad: l})
	}
	return p
}

func (p *burninPage) load(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i < 0 || i >= len(p.loads) {
		return
	}
	p.current, p.pause, p.halted = i, 0, time.Time{}
	p.loads[i].began = p.now()
	p.shot.Findings = nil
}

// runs tells whether a load is the one that runs.
func (p *burninPage) runs(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current == i && i >= 0
}

func (p *burninPage) end(i int, r burnin.Report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i < 0 || i >= len(p.loads) {
		return
	}
	p.current = -1
	if p.asks != askStop { // it was about this load
		p.asks = ""
	}
	if p.loads[i].began.IsZero() {
		p.loads[i].began = p.now()
	}
	p.loads[i].ended, p.loads[i].report = p.now(), r
	p.shot.Findings = nil
}

func (p *burninPage) sampled(s burnin.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shot = s
}

// say keeps a line for the page.
func (p *burninPage) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, p.now().Format("15:04:05 ")+strings.TrimPrefix(line, "burn-in: "))
	if over := len(p.said) - mostSaid; over > 0 {
		p.said = slices.Delete(p.said, 0, over)
	}
}

// halt notes that the programs are halted, or go on.
func (p *burninPage) halt(halted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case halted && p.halted.IsZero():
		p.halted = p.now()
	case !halted && !p.halted.IsZero():
		p.pause += p.now().Sub(p.halted)
		p.halted = time.Time{}
	}
}

// past is how long the load that runs has worked. The caller holds p.mu.
func (p *burninPage) past() time.Duration {
	l := p.loads[p.current]
	past := p.now().Sub(l.began) - p.pause
	if !p.halted.IsZero() {
		past -= p.now().Sub(p.halted)
	}
	return past
}

// left is how long all will take, and whether that is known.
func (p *burninPage) left() (left time.Duration, known bool) {
	known = true
	for i, l := range p.loads {
		if !l.ended.IsZero() {
			continue
		}
		known = known && l.Lasts > 0
		left += l.Lasts
		if i == p.current {
			left -= min(p.past(), l.Lasts)
		}
	}
	return left, known
}

// draw is the page for a screen.
func (p *burninPage) draw(width, height int) []row {
	p.mu.Lock()
	defer p.mu.Unlock()
	head := fmt.Sprintf(" burn-in %s  %s", p.profile, days(p.now().Sub(p.began)))
	switch left, known := p.left(); {
	case p.ending:
		head += ", stopping"
	case known:
		head += ", " + days(left) + " left"
	case left > 0:
		head += ", " + days(left) + " left and as long as the disks take"
	}
	rows := []row{say(inverse, "%s", head), say(bold, " %s", p.machine), nil}
	foot := say(inverse, " p pause  s skip part  q stop all  ? help")
	switch {
	case p.asks != "":
		foot = say(inverse, " %s  y yes, any other key no", p.asks)
	case !p.halted.IsZero():
		foot = say(inverse, " p go on  s skip part  q stop all  ? help")
	}
	if p.help {
		rows = append(rows, helpRows()...)
		return bottom(rows, foot, height)
	}

	// What there is to tell, by weight: loads, findings, sensors, lines that were said.
	findings := p.findings()
	sensors := p.sensors(width)
	room := height - len(rows) - 1
	loads := min(len(p.loads), max(3, room/3))
	rows = append(rows, p.loadRows(width, loads)...)
	rows = append(rows, nil)
	room = height - len(rows) - 1
	shownSensors := min(len(sensors), max(0, room/3))
	shownFindings := min(len(findings), max(1, (room-shownSensors)*2/3))
	rows = append(rows, sensors[:shownSensors]...)
	if shownFindings < len(findings) { // the last come as they come, what failed stands before
		findings[shownFindings-1] = say(warned, " ... and %d more", len(findings)-shownFindings+1)
	}
	rows = append(rows, findings[:shownFindings]...)
	if room = height - len(rows) - 1; room > 1 {
		rows = append(rows, nil)
		for _, line := range p.said[max(0, len(p.said)-room+1):] {
			rows = append(rows, say(plain, " %s", line))
		}
	}
	return bottom(rows, foot, height)
}

// bottom puts a row at the end of the screen.
func bottom(rows []row, foot row, height int) []row {
	rows = rows[:min(len(rows), max(height-1, 0))]
	for len(rows) < height-1 {
		rows = append(rows, nil)
	}
	return append(rows, foot)
}

func helpRows() []row {
	return []row{
		say(plain, " p  pause the part that runs, and go on; the pause does not count"),
		say(plain, " s  end the part that runs: it is not tested, and the next one begins"),
		say(plain, " q  stop all; what was found until then is reported"),
		say(plain, " ?  this page, and back"),
		say(plain, " Ctrl-L  draw the screen anew, and ask a serial terminal for its size"),
		nil,
		say(plain, " Findings are shown while a part runs as the judge would see them now."),
	}
}

// loadRows are the loads around the one that runs.
func (p *burninPage) loadRows(width, room int) []row {
	first := 0
	if at := max(p.current, 0); len(p.loads) > room {
		first = min(max(0, at-room/2), len(p.loads)-room)
	}
	var rows []row
	for i := first; i < min(len(p.loads), first+room); i++ {
		l := p.loads[i]
		name := fit(fmt.Sprintf(" %2d %s", i+1, l.Part), 16)
		switch {
		case !l.ended.IsZero():
			verdict := summary(l.report.Parts)
			rows = append(rows, row{{name, plain}, {fit(string(verdict), 9), styleOf(verdict)}, {"after " + days(l.ended.Sub(l.began)), plain}})
		case i == p.current:
			past := p.past()
			state := span{fit("runs", 9), bold}
			if !p.halted.IsZero() {
				state = span{fit("PAUSED", 9), warned}
			}
			progress := "for " + days(past)
			if l.Lasts > 0 {
				done := min(1, past.Seconds()/l.Lasts.Seconds())
				progress = fmt.Sprintf("%s %3.0f %%  %s of %s", meter(done, max(0, min(40, width-60))), 100*done, days(past), days(l.Lasts))
				if past > l.Lasts {
					progress += ", ending"
				}
			}
			rows = append(rows, row{{name, bold}, state, {strings.TrimSpace(progress), plain}})
		default:
			text := "waits"
			if l.Lasts > 0 {
				text += ", " + days(l.Lasts)
			}
			rows = append(rows, row{{name, plain}, {text, plain}})
		}
	}
	return rows
}

// summary is the verdict on a load: the worst of its parts, but a pass if any was tested.
func summary(parts []burnin.Part) burnin.Verdict {
	v := burnin.Skipped
	for _, part := range parts {
		switch part.Verdict {
		case burnin.Fail:
			return burnin.Fail
		case burnin.Pass:
			v = burnin.Pass
		}
	}
	return v
}

func styleOf(v burnin.Verdict) style {
	return map[burnin.Verdict]style{burnin.Pass: good, burnin.Fail: bad, burnin.Skipped: warned}[v]
}

// findings are all parts with something to tell: those that failed, then those that were only told of, then those that passed or were left out.
func (p *burninPage) findings() []row {
	var list []burnin.Part
	for _, l := range p.loads {
		list = append(list, l.report.Parts...)
	}
	list = append(list, p.shot.Findings...)
	rank := func(part burnin.Part) int {
		switch {
		case part.Verdict == burnin.Fail:
			return 0
		case part.Verdict == "":
			return 1
		case part.Verdict == burnin.Pass:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(list, func(a, b burnin.Part) int { return cmp.Compare(rank(a), rank(b)) })
	if len(list) == 0 {
		return []row{say(plain, " nothing found so far")}
	}
	return partRows(list)
}

// partRows are parts with their verdicts and reasons.
func partRows(parts []burnin.Part) []row {
	var rows []row
	for _, part := range parts {
		rows = append(rows, row{{" " + fit(string(cmp.Or(part.Verdict, "told")), 8), cmp.Or(styleOf(part.Verdict), plain)}, {part.Name, bold}, {"  " + strings.Join(part.Reasons, "; "), plain}})
	}
	return rows
}

// sensors are a row for each kind, the hottest first.
func (p *burninPage) sensors(width int) []row {
	var rows []row
	for _, kind := range []struct {
		title, unit string
		values      map[string]float64
	}{{"hottest", "C", p.shot.Celsius}, {"clock", "MHz", p.shot.MHz}, {"power", "W", p.shot.Watts}, {"fans", "rpm", p.shot.RPM}} {
		if len(kind.values) == 0 {
			continue
		}
		names := slices.SortedFunc(maps.Keys(kind.values), func(a, b string) int {
			return cmp.Or(cmp.Compare(kind.values[b], kind.values[a]), strings.Compare(a, b))
		})
		line := ""
		for i, name := range names {
			item := fmt.Sprintf("%.0f %s %s", kind.values[name], kind.unit, name)
			if i > 0 {
				item = ", " + item
			}
			if len(line)+len(item) > width-12 {
				if i > 0 {
					break
				}
				item = item[:max(0, min(len(item), width-12))]
			}
			line += item
		}
		rows = append(rows, row{{" " + fit(kind.title, 9), bold}, {line, plain}})
	}
	return rows
}
