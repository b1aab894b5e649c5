// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps/burnin"
)

// draw is the page for a screen.
func (m *menu) draw(width, height int) (string, []row) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.page == "run" {
		if p := m.live.shown(); p != nil {
			return m.page, p.draw(width, height)
		}
		return "starts", []row{say(inverse, " burn-in starts"), say(bold, " %s", m.machine)}
	}
	var rows []row
	foot := ""
	switch m.page {
	case "main":
		rows, foot = m.mainRows(width), " 1-9 profile  d disks  s start  i inspect  l look for a stick"
	case "disks":
		rows, foot = m.diskRows(), " a-l choose  space more  Enter back"
	case "confirm":
		rows, foot = m.confirmRows(), " q back"
	case "text":
		rows = append(rows, say(m.text.style, " %s", m.text.title), nil)
		if m.text.style != inverse {
			rows[0] = say(m.text.style, " %s   %s", m.text.title, m.machine)
		}
		first := min(m.text.first, max(0, len(m.text.lines)-1))
		room := max(1, height-len(rows)-2)
		for _, line := range m.text.lines[first:min(len(m.text.lines), first+room)] {
			rows = append(rows, say(plain, " %s", line))
		}
		foot = fmt.Sprintf(" space more  b back up  Enter menu   lines %d-%d of %d", first+1, min(len(m.text.lines), first+room), len(m.text.lines))
	}
	if m.message != "" || m.ask != "" {
		rows = rows[:min(len(rows), max(0, height-2))]
		for len(rows) < height-2 {
			rows = append(rows, nil)
		}
		line := say(warned, " %s", strings.ReplaceAll(m.message, "\n", "; "))
		if m.ask != "" {
			line = say(bold, " %s  y yes, any other key no", m.ask)
		}
		rows = append(rows, line)
	}
	return m.page, bottom(rows, say(inverse, "%s", foot), height)
}

func (m *menu) mainRows(width int) []row {
	rows := []row{say(inverse, " ironhand burn-in"), say(bold, " %s", m.machine), nil}
	for i, p := range m.profiles {
		mark, look := " ", plain
		if i == m.chosen {
			mark, look = "*", bold
		}
		name := p.profile.Name
		if i >= len(burnin.Profiles()) {
			name = "own: " + name
		}
		rows = append(rows, row{{fmt.Sprintf(" %d %s %s", i+1, mark, fit(name, 18)), look}, {aboutProfile(p.profile), plain}})
	}
	rows = append(rows, nil)
	chosen := m.overwrite()
	rows = append(rows, row{{" d   disks to overwrite: ", bold}, {fmt.Sprint(len(chosen)), plain}})
	if len(chosen) == 0 {
		rows[len(rows)-1][1].text = "none; then none is tested"
	}
	for i, d := range chosen {
		if i == 3 && len(chosen) > 4 {
			rows = append(rows, say(plain, "     and %d more", len(chosen)-i))
			break
		}
		rows = append(rows, say(plain, "     %s", diskLine(d.Disk)))
	}
	report := "no report is kept: " + m.stick.why
	if m.stick.dir != "" {
		report = fmt.Sprintf("the report goes to %s, %s free", m.stick.device, inspect.Size(m.stick.free))
	}
	rows = append(rows, say(plain, "     %s", report), nil)
	if m.open != "" {
		rows = append(rows, say(bold, " c   go on with %s", filepath.Base(m.open)))
	}
	return append(rows,
		say(plain, " s   start"),
		say(plain, " i   what this machine is made of"),
		say(plain, " h   shell on this console"),
		say(plain, " r   reboot        o   power off"),
	)
}

// diskLine is a disk as people find it.
func diskLine(d inspect.Disk) string {
	line := words(d.Name, string(d.Model))
	if d.Serial != "" {
		line += " serial " + string(d.Serial)
	}
	return line + ", " + inspect.Size(d.Size)
}

func (m *menu) diskRows() []row {
	rows := []row{say(inverse, " Which disks may be overwritten? All that is on them is lost."), nil}
	for i, d := range m.disks[m.first:min(len(m.disks), m.first+mostDisksShown)] {
		mark, state := "[ ]", span{"empty", good}
		switch {
		case d.refused != nil:
			mark, state = " - ", span{d.refused.Error(), warned}
		case d.chosen:
			mark = "[x]"
		}
		rows = append(rows, row{{fmt.Sprintf(" %c %s %s: ", 'a'+i, mark, diskLine(d.Disk)), plain}, state})
	}
	if len(m.disks) == 0 {
		rows = append(rows, say(plain, " There is no disk."))
	}
	if len(m.disks) > mostDisksShown {
		rows = append(rows, nil, say(plain, " disks %d to %d of %d", m.first+1, min(len(m.disks), m.first+mostDisksShown), len(m.disks)))
	}
	if slices.ContainsFunc(m.disks, func(d menuDisk) bool { return d.refused != nil }) {
		rows = append(rows, nil, say(plain, " A disk that holds data has to be erased first."))
	}
	return rows
}

func (m *menu) confirmRows() []row {
	p := m.profiles[m.chosen].profile
	rows := []row{say(inverse, " Start %s?", p.Name), say(plain, " %s", aboutProfile(p)), nil}
	chosen := m.overwrite()
	for _, d := range chosen[:min(len(chosen), 14)] {
		rows = append(rows, say(bad, " overwrite all of %s", diskLine(d.Disk)))
	}
	if len(chosen) > 14 {
		rows = append(rows, say(bad, " and all of %d more", len(chosen)-14))
	}
	if len(chosen) == 0 {
		rows = append(rows, say(plain, " No disk is written to, and none is tested."))
	}
	return append(rows, nil, say(bold, " Type yes and Enter: %s", m.typed))
}

// aboutProfile says what a profile does, in a line.
func aboutProfile(p burnin.Profile) string {
	var list []string
	brief := func(d burnin.Duration) string {
		s := time.Duration(d).String()
		if rest, ok := strings.CutSuffix(s, "m0s"); ok {
			s = rest + "m"
		}
		if rest, ok := strings.CutSuffix(s, "h0m"); ok {
			s = rest + "h"
		}
		return s
	}
	for _, l := range p.Loads {
		switch {
		case l.Processors != nil:
			list = append(list, "processors "+brief(l.Processors.Time))
		case l.Memory != nil:
			list = append(list, "memory "+brief(l.Memory.Time))
		case l.Disks != nil && l.Disks.Time > 0:
			list = append(list, "disks "+brief(l.Disks.Time))
		case l.Disks != nil:
			list = append(list, fmt.Sprintf("disks whole, %d x", l.Disks.Loops))
		case l.Network != nil:
			list = append(list, "network with "+l.Network.Partner+" 2 x "+brief(l.Network.Time))
		case l.SelfTest != nil:
			list = append(list, l.SelfTest.Kind+" self-tests")
		default:
			list = append(list, "more")
		}
	}
	return strings.Join(list, ", ")
}
