// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The size of a plot, in units of its own; the page gives it its width.
const (
	plotWidth, plotHeight                    = 900.0, 300.0
	plotLeft, plotRight, plotTop, plotBottom = 62.0, 12.0, 24.0, 38.0
	legendLine                               = 17.0
)

// mostLines is how many lines one plot has: more cannot be told apart.
const mostLines = 7

// mostDrawn is how many points of a line are drawn of each load.
const mostDrawn = 240

// stroke is how a line looks. The colours are those of Okabe and Ito, which colour-blind people tell apart; the dashes do where there is no colour.
type stroke struct{ colour, dash string }

func strokes() []stroke {
	return []stroke{{"#0072B2", ""}, {"#D55E00", "7 3"}, {"#009E73", "2 2"}, {"#CC79A7", "9 2 2 2"}, {"#000000", "4 2"}, {"#E69F00", "12 3"}, {"#56B4E9", "5 2 1 2"}}
}

// plotted is a line of a plot: a series, of each load in which it was measured a piece.
type plotted struct {
	name   string
	pieces [][]Point // seconds are since the run began
	most   float64
}

// stretch is the time of a load, in seconds since the run began.
type stretch struct {
	name     string
	from, to float64
}

func stretches(r Result) (list []stretch) {
	for i, l := range r.Loads {
		name, _, _ := strings.Cut(l.Load, ":")
		name, _, _ = strings.Cut(name, ",")
		name, _, _ = strings.Cut(name, " for ")
		list = append(list, stretch{fmt.Sprintf("%d. %s", i+1, name), l.Started.Sub(r.Started).Seconds(), l.Ended.Sub(r.Started).Seconds()})
	}
	return list
}

// plottedOf are all series of a kind, the highest first.
func plottedOf(r Result, kind string) (list []plotted, unit string) {
	for _, l := range r.Loads {
		began := l.Started.Sub(r.Started).Seconds()
		for _, s := range l.Series {
			if s.Kind != kind || len(s.Points) == 0 {
				continue
			}
			unit = s.Unit
			i := slices.IndexFunc(list, func(p plotted) bool { return p.name == s.Name })
			if i < 0 {
				i = len(list)
				list = append(list, plotted{name: s.Name, most: math.Inf(-1)})
			}
			points := slices.Clone(s.Points)
			for j := range points {
				points[j].Second += began
			}
			list[i].pieces = append(list[i].pieces, points)
			list[i].most = max(list[i].most, s.Max())
		}
	}
	slices.SortStableFunc(list, func(a, b plotted) int { return cmp.Or(cmp.Compare(b.most, a.most), cmp.Compare(a.name, b.name)) })
	return list, unit
}

// plot draws what was measured of a kind. Without anything it draws nothing and returns false.
func (h *hypertext) plot(r Result, kind, title string, fromZero, stairs bool) bool {
	lines, unit := plottedOf(r, kind)
	if len(lines) == 0 {
		return false
	}
	all := len(lines)
	lines = lines[:min(all, mostLines)]
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, piece := range l.pieces {
			for _, p := range piece {
				low, high = min(low, p.Min), max(high, p.Max)
			}
		}
	}
	if fromZero {
		low = min(low, 0)
	}
	yTicks := ticks(low, high, stairs)
	low, high = yTicks[0], yTicks[len(yTicks)-1]
	end := max(r.Ended.Sub(r.Started).Seconds(), 1)
	per, timeUnit := timeScale(end)
	x := func(second float64) float64 {
		return plotLeft + min(max(second, 0), end)/end*(plotWidth-plotLeft-plotRight)
	}
	y := func(value float64) float64 {
		return plotTop + (high-value)/(high-low)*(plotHeight-plotTop-plotBottom)
	}
	tall := plotHeight + legendLine*float64(len(lines))
	label := title
	if unit != "" {
		label += ", " + unit
	}
	h.put(`<figure><figcaption>%s</figcaption>`, label)
	h.put(`<svg viewBox="0 0 %s %s" role="img" aria-label="%s">`+"\n", num(plotWidth), num(tall), label)
	for i, s := range stretches(r) {
		if s.to <= s.from {
			continue
		}
		h.put(`<rect x="%s" y="%s" width="%s" height="%s" fill="%s"/>`, num(x(s.from)), num(plotTop), num(x(s.to)-x(s.from)), num(plotHeight-plotTop-plotBottom), []string{"#f3f3f3", "#ffffff"}[i%2])
		name, room := []rune(s.name), int((x(s.to)-x(s.from))/6.5)
		if len(name) > room {
			name = name[:max(room, 0)]
		}
		h.put(`<text x="%s" y="%s">%s</text>`+"\n", num(x(s.from)+2), num(plotTop-7), string(name))
	}
	for _, t := range yTicks {
		h.put(`<path d="M%s %sH%s" class="grid"/><text x="%s" y="%s" class="end">%s</text>`+"\n", num(plotLeft), num(y(t)), num(plotWidth-plotRight), num(plotLeft-6), num(y(t)+4), tickText(t))
	}
	for _, t := range ticks(0, end/per, false) {
		if t*per > end {
			break
		}
		h.put(`<path d="M%s %sv5" class="axis"/><text x="%s" y="%s" class="middle">%s</text>`+"\n", num(x(t*per)), num(plotHeight-plotBottom), num(x(t*per)), num(plotHeight-plotBottom+17), tickText(t))
	}
	h.put(`<path d="M%s %sV%sH%s" class="axis"/>`, num(plotLeft), num(plotTop), num(plotHeight-plotBottom), num(plotWidth-plotRight))
	h.put(`<text x="%s" y="%s" class="end">%s since the start</text><text x="4" y="%s">%s</text>`+"\n", num(plotWidth-plotRight), num(plotHeight-6), timeUnit, num(plotTop-7), unit)
	for i, l := range lines {
		look := strokes()[i%len(strokes())]
		for _, piece := range l.pieces {
			piece = Thin(piece, mostDrawn)
			var path, over, under strings.Builder
			for j, p := range piece {
				switch {
				case j == 0:
					fmt.Fprintf(&path, "M%s %s", num(x(p.Second)), num(y(p.Mean)))
				case stairs:
					fmt.Fprintf(&path, "H%sV%s", num(x(p.Second)), num(y(p.Mean)))
				default:
					fmt.Fprintf(&path, "L%s %s", num(x(p.Second)), num(y(p.Mean)))
				}
				fmt.Fprintf(&over, "L%s %s", num(x(p.Second)), num(y(p.Max)))
				last := piece[len(piece)-1-j]
				fmt.Fprintf(&under, "L%s %s", num(x(last.Second)), num(y(last.Min)))
			}
			if len(piece) == 1 {
				path.WriteString("h3") // to be seen
			}
			if !stairs && len(piece) > 1 {
				h.put(`<path d="M%sZ" fill="%s" opacity="0.18"/>`, strings.TrimPrefix(over.String(), "L")+under.String(), look.colour)
			}
			h.put(`<path d="%s" class="line" stroke="%s" stroke-dasharray="%s"/>`+"\n", path.String(), look.colour, cmp.Or(look.dash, "none"))
		}
		at := plotHeight + legendLine*float64(i) + 8
		h.put(`<path d="M%s %sh34" class="line" stroke="%s" stroke-dasharray="%s"/>`, num(plotLeft), num(at), look.colour, cmp.Or(look.dash, "none"))
		h.put(`<text x="%s" y="%s">%s, highest %s</text>`+"\n", num(plotLeft+42), num(at+4), l.name, strings.TrimSpace(tickText(math.Round(l.most*10)/10)+" "+unit))
	}
	h.raw("</svg>")
	if all > len(lines) {
		h.put(`<p class="note">Drawn are the %s highest of %s; results.json has all.</p>`, fmt.Sprint(len(lines)), fmt.Sprint(all))
	}
	h.raw("</figure>\n")
	return true
}

// num writes a coordinate.
func num(f float64) string {
	s := fmt.Sprintf("%.1f", f)
	return strings.TrimSuffix(s, ".0")
}

// tickText writes the number at an axis.
func tickText(f float64) string {
	switch a := math.Abs(f); {
	case a >= 1e6:
		return fmt.Sprintf("%.4gM", f/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.5gk", f/1e3)
	}
	return strings.TrimPrefix(fmt.Sprintf("%.6g", f), "-0")
}

// ticks are round numbers from below low to above high, some five; of what is counted, whole ones.
func ticks(low, high float64, whole bool) []float64 {
	if high <= low {
		low, high = low-1, high+1
		if low == -1 {
			low = 0
		}
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/5)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if (high-low)/(step*m) <= 6 {
			step *= m
			break
		}
	}
	if whole {
		step = max(1, math.Ceil(step))
	}
	var list []float64
	for i := math.Floor(low / step); ; i++ {
		list = append(list, i*step)
		if i*step >= high {
			return list
		}
	}
}

// timeScale is the unit in which so many seconds are told, and its length.
func timeScale(seconds float64) (per float64, unit string) {
	switch {
	case seconds < 3*60:
		return 1, "seconds"
	case seconds < 3*3600:
		return time.Minute.Seconds(), "minutes"
	case seconds < 3*86400:
		return time.Hour.Seconds(), "hours"
	}
	return 24 * time.Hour.Seconds(), "days"
}
