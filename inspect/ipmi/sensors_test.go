// SPDX-License-Identifier: Apache-2.0

package ipmi

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
)

// sensorRecord makes a full record: of a sensor's number, flags of its units, unit, function, M, B, exponents (of the result, of B), and its name with the byte before it.
func sensorRecord(number, flags, unit, linear byte, m, b int, exponents byte, kind byte, name string) []byte {
	r := make([]byte, nameAt, nameAt+len(name))
	r[2], r[3], r[5], r[7], r[20], r[21], r[23], r[29] = 0x51, fullRecord, ourBMC, number, flags, unit, linear, exponents
	r[24], r[25], r[26], r[27] = byte(m), byte(m>>8)<<6, byte(b), byte(b>>8)<<6
	r[47] = kind | byte(len(name))
	r = append(r, name...)
	r[4] = byte(len(r) - recordHead)
	return r
}

// records is a BMC with a repository, which must be reserved to be read by pieces, and readings.
type records struct {
	list     [][]byte
	next     map[int]int // other than the one after
	readings map[byte][]byte
	hold     byte
	lose     int // so many reservations are lost
	asked    int
}

func (r *records) send(_ context.Context, q Request) ([]byte, error) {
	r.asked++
	switch {
	case q[0] == netFnStorage && q[1] == cmdReserve:
		r.hold++
		return []byte{0, r.hold, 0}, nil
	case q[0] == netFnStorage && q[1] == cmdRecord:
		id, from, n := int(binary.LittleEndian.Uint16(q[4:])), int(q[6]), int(q[7])
		if id >= len(r.list) {
			return []byte{0xcb}, nil
		}
		if from > 0 && (q[2] != r.hold || r.hold == 0 || r.lose > 0) {
			r.lose = max(r.lose-1, 0)
			return []byte{lostHold}, nil
		}
		if n > recordPiece {
			return []byte{0xca}, nil
		}
		next := id + 1
		if id == len(r.list)-1 {
			next = lastEntry
		}
		if other, is := r.next[id]; is {
			next = other
		}
		piece := r.list[id][min(from, len(r.list[id])):]
		return append([]byte{0, byte(next), byte(next >> 8)}, piece[:min(n, len(piece))]...), nil
	case q[0] == netFnSensor && q[1] == cmdReading:
		if b := r.readings[q[2]]; b != nil {
			return append([]byte{0}, b...), nil
		}
		return []byte{0xcb}, nil
	}
	return []byte{0xc1}, nil
}

func TestSensors(t *testing.T) {
	temperature := sensorRecord(1, 0x80, 1, 0, 1, 0, 0, 0xc0, "CPU1 Temp")
	fan := sensorRecord(2, 0, 18, 0, 100, 0, 0, 0xc0, "FAN 1")
	another := func(change func(b []byte)) []byte {
		b := append([]byte(nil), fan...)
		change(b)
		return b
	}
	compact := make([]byte, 32)
	compact[3], compact[4], compact[5] = 2, 27, ourBMC
	for _, test := range []struct {
		name string
		bmc  records
		want string
		err  string
	}{
		{name: "temperature and fan", bmc: records{list: [][]byte{temperature, fan}, readings: map[byte][]byte{1: {0x2a, 0xc0}, 2: {0x1d, 0xc0}}}, want: "CPU1 Temp 42 °C, FAN 1 2900 RPM"},
		{name: "below zero", bmc: records{list: [][]byte{temperature}, readings: map[byte][]byte{1: {0xfb, 0xc0}}}, want: "CPU1 Temp -5 °C"},
		{name: "ones' complement", bmc: records{list: [][]byte{sensorRecord(1, 0x40, 1, 0, 1, 0, 0, 0xc0, "T")}, readings: map[byte][]byte{1: {0xfa, 0xc0}}}, want: "T -5 °C"},
		{name: "voltage by thousandths, with an offset", bmc: records{list: [][]byte{sensorRecord(1, 0, 4, 0, 60, -20, 0xd1, 0xc0, "12V")}, readings: map[byte][]byte{1: {200, 0xc0}}}, want: "12V 11.8 V"},
		{name: "large factors", bmc: records{list: [][]byte{sensorRecord(1, 0, 6, 0, -512, 511, 0x01, 0xc0, "P")}, readings: map[byte][]byte{1: {1, 0xc0}}}, want: "P 4598 W"},
		{name: "Fahrenheit", bmc: records{list: [][]byte{sensorRecord(1, 0, 2, 0, 1, 0, 0, 0xc0, "F")}, readings: map[byte][]byte{1: {212, 0xc0}}}, want: "F 100 °C"},
		{name: "kelvin", bmc: records{list: [][]byte{sensorRecord(1, 0, 3, 0, 2, 0, 0, 0xc0, "K")}, readings: map[byte][]byte{1: {150, 0xc0}}}, want: "K 26.85 °C"},
		{name: "period of a fan", bmc: records{list: [][]byte{sensorRecord(1, 0, 18, 7, 5, 0, 0xc0, 0xc0, "F")}, readings: map[byte][]byte{1: {2, 0xc0}}}, want: "F 1000 RPM"},
		{name: "period of a fan that stands", bmc: records{list: [][]byte{sensorRecord(1, 0, 18, 7, 5, 0, 0xc0, 0xc0, "F")}, readings: map[byte][]byte{1: {0, 0xc0}}}, want: "F none"},
		{name: "name of six bits", bmc: records{list: [][]byte{sensorRecord(1, 0, 1, 0, 1, 0, 0, 0x80, "\x29\xdc\xa6")}, readings: map[byte][]byte{1: {1, 0xc0}}}, want: "IPMI 1 °C"},
		{name: "no name, and a hostile one", bmc: records{list: [][]byte{sensorRecord(9, 0, 1, 0, 1, 0, 0, 0xc0, ""), sensorRecord(1, 0, 1, 0, 1, 0, 0, 0xc0, "a\x1b[2Jb\x00c")}, readings: map[byte][]byte{1: {1, 0xc0}, 9: {2, 0xc0}}}, want: "sensor 9 2 °C, a?[2Jb 1 °C"},
		{name: "switched off, scanning off, and not there", bmc: records{list: [][]byte{temperature, fan, sensorRecord(3, 0, 1, 0, 1, 0, 0, 0xc0, "X")}, readings: map[byte][]byte{1: {0x2a, 0xe0}, 2: {0x1d, 0x80}}}, want: "CPU1 Temp none, FAN 1 none, X error"},
		{name: "left out: compact, other unit, no number, percent, another controller's, another logical unit's, a function of the maker's",
			bmc: records{list: [][]byte{compact, another(func(b []byte) { b[21] = 19 }), another(func(b []byte) { b[20] = 0xc0 }), another(func(b []byte) { b[20] = 1 }), another(func(b []byte) { b[5] = 0x2c }),
				another(func(b []byte) { b[6] = 1 }), another(func(b []byte) { b[23] = 0x70 }), fan}, readings: map[byte][]byte{2: {1, 0xc0}}}, want: "FAN 1 100 RPM"},
		{name: "a reservation is lost twice", bmc: records{list: [][]byte{temperature, fan}, lose: 2, readings: map[byte][]byte{1: {0x2a, 0xc0}, 2: {0x1d, 0xc0}}}, want: "CPU1 Temp 42 °C, FAN 1 2900 RPM"},
		{name: "reservations are always lost", bmc: records{list: [][]byte{temperature, fan}, lose: 1000}, err: "read sensor record 0x0000: BMC answers completion code 0xc5"},
		{name: "records in a ring", bmc: records{list: [][]byte{temperature, fan}, next: map[int]int{1: 0}, readings: map[byte][]byte{1: {0x2a, 0xc0}, 2: {0x1d, 0xc0}}}, want: "CPU1 Temp 42 °C, FAN 1 2900 RPM"},
		{name: "a record that is shorter than it says", bmc: records{list: [][]byte{fan, temperature[:30]}, readings: map[byte][]byte{2: {1, 0xc0}}}, want: "FAN 1 100 RPM", err: "read sensor record 0x0001: answer has"},
		{name: "the second record is not there", bmc: records{list: [][]byte{fan}, next: map[int]int{0: 7}, readings: map[byte][]byte{2: {1, 0xc0}}}, want: "FAN 1 100 RPM", err: "read sensor record 0x0007: BMC answers completion code 0xcb"},
	} {
		t.Run(test.name, func(t *testing.T) {
			list, err := Sensors(t.Context(), test.bmc.send)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)) {
				t.Errorf("Sensors() = %v, want %q", err, test.err)
			}
			var got []string
			for _, s := range list {
				value, ok, err := s.Read(t.Context(), test.bmc.send)
				switch {
				case err != nil:
					got = append(got, s.Name+" error")
				case !ok:
					got = append(got, s.Name+" none")
				default:
					got = append(got, fmt.Sprint(s.Name, " ", math.Round(value*1000)/1000, " ", s.Unit))
				}
			}
			if s := strings.Join(got, ", "); s != test.want {
				t.Errorf("sensors: %s\nwant: %s", s, test.want)
			}
		})
	}
}

// FuzzSensors gives each request in turn a part of the bytes as answer. However they are, not much is asked, and names are text in one line.
func FuzzSensors(f *testing.F) {
	f.Add(append([]byte{0, 0xff, 0xff}, sensorRecord(1, 0x80, 1, 0, 1, 0, 0, 0xc0, "CPU1 Temp")...), byte(19))
	f.Add([]byte("\x00\x01\x00\x00\x00\x51\x01\x30"), byte(8))
	f.Add([]byte{lostHold, 0, 1, 0}, byte(1))
	f.Fuzz(func(t *testing.T, b []byte, length byte) {
		asked := 0
		send := func(context.Context, Request) ([]byte, error) {
			asked++
			n := min(int(length), len(b))
			answer := b[:n]
			if b = b[n:]; len(b) == 0 {
				b = answer
			}
			return answer, nil
		}
		list, err := Sensors(t.Context(), send)
		if most := mostRecords * holdAttempts * (2 + (255+recordHead)/recordPiece + 2); asked > most {
			t.Errorf("%d requests, want %d at most (%v)", asked, most, err)
		}
		for _, s := range list {
			if strings.ContainsFunc(s.Name, func(r rune) bool { return r < ' ' || r > '~' }) || s.Unit == "" {
				t.Errorf("sensor %+v", s)
			}
			if value, ok, _ := s.Read(t.Context(), send); ok && (math.IsNaN(value) || math.IsInf(value, 0)) {
				t.Errorf("%+v reads %v", s, value)
			}
		}
	})
}
