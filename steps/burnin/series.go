// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Series is one quantity over the time of a load.
type Series struct {
	Kind   string  `json:"kind"` // what is measured: temperature, frequency, throughput, fan, power, voltage, errors
	Name   string  `json:"name"` // of the sensor or the part, as people find it
	Unit   string  `json:"unit"`
	Points []Point `json:"points"` // in the order of time, at most [mostPoints]; never null
}

// Point is what was measured within a stretch of time. Its JSON is a list of the four numbers.
type Point struct {
	Second         float64 // since the load began, when the first sample of the stretch was taken
	Min, Mean, Max float64
}

// MarshalJSON implements [json.Marshaler].
func (p Point) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, n := range []float64{p.Second, p.Min, p.Mean, p.Max} {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, math.Round(n*1000)/1000, 'f', -1, 64)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (p *Point) UnmarshalJSON(b []byte) error {
	var n []float64
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	if len(n) != 4 {
		return fmt.Errorf("a point has %d numbers, want 4", len(n))
	}
	*p = Point{n[0], n[1], n[2], n[3]}
	return nil
}

// Max is the highest of all, 0 without a point.
func (s Series) Max() float64 {
	most := 0.0
	for i, p := range s.Points {
		if i == 0 || p.Max > most {
			most = p.Max
		}
	}
	return most
}

// Mean is the mean of all samples, 0 without a point.
func (s Series) Mean() float64 {
	sum := 0.0
	for _, p := range s.Points {
		sum += p.Mean // stretches are of one length, but for the last
	}
	return sum / max(float64(len(s.Points)), 1)
}

// mostPoints bounds a series in memory, however long it is watched: full, each two neighbours become one.
const mostPoints = 512

// mostSeries bounds how many there are: a server of two sockets has some 250 sensors.
const mostSeries = 400

// track collects a series.
type track struct {
	Series
	width int // samples for a point
	in    int // samples in the last point
	last  float64
}

// add takes a sample, of which there may be several values at once, such as the frequencies of a socket's cores. What is no number is left out.
func (t *track) add(second, low, mean, high float64) {
	for _, n := range []float64{low, mean, high} {
		if math.IsNaN(n) || math.IsInf(n, 0) {
			return
		}
	}
	t.last = mean
	t.width = max(t.width, 1)
	if n := len(t.Points); n > 0 && t.in < t.width {
		p := &t.Points[n-1]
		p.Min, p.Max = min(p.Min, low), max(p.Max, high)
		p.Mean += (mean - p.Mean) / float64(t.in+1)
		t.in++
		return
	}
	if len(t.Points) == mostPoints {
		t.halve()
	}
	t.Points = append(t.Points, Point{second, low, mean, high})
	t.in = 1
}

// halve makes one point of each two. All are full when it is called.
func (t *track) halve() {
	t.Points = halved(t.Points)
	t.width *= 2
	t.in = t.width
}

func halved(points []Point) []Point {
	half := points[:0]
	for i := 0; i+1 < len(points); i += 2 {
		a, b := points[i], points[i+1]
		half = append(half, Point{a.Second, min(a.Min, b.Min), (a.Mean + b.Mean) / 2, max(a.Max, b.Max)})
	}
	if len(points)%2 == 1 {
		half = append(half, points[len(points)-1])
	}
	return half
}

// thin returns series of at most so many points each, for who keeps results in a database.
func thin(list []Series, most int) []Series {
	thinner := make([]Series, len(list))
	for i, s := range list {
		s.Points = Thin(s.Points, most)
		thinner[i] = s
	}
	return thinner
}

// Thin returns at most so many points that say the same more coarsely. most is 2 or more.
func Thin(points []Point, most int) []Point {
	points = append([]Point{}, points...)
	for len(points) > most {
		points = halved(points)
	}
	return points
}
