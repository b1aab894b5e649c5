// SPDX-License-Identifier: Apache-2.0

package ipmi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Unit is what a sensor measures in.
type Unit string

// The units that are read (IPMI 2.0, table 43-15). Sensors in others, and those without a number, are left out.
const (
	Celsius Unit = "°C"
	Volt    Unit = "V"
	Watt    Unit = "W"
	RPM     Unit = "RPM"
)

// A Sensor is one whose readings are numbers, as its full record describes it (IPMI 2.0, table 43-1).
type Sensor struct {
	Name   string // as the BMC's maker has it: "CPU1 Temp", "FAN 3"
	Number byte
	Unit   Unit

	signed byte // how a reading stands for a number: 0 as it is, 1 in ones' complement, 2 in two's complement
	linear byte // the function that makes it linear (byte 24)
	m, b   float64
	scale  float64
}

// Numbers of IPMI 2.0, chapters 33 and 35, and of table 43-1.
const (
	netFnSensor   = 0x04
	cmdReading    = 0x2d
	cmdReserve    = 0x22
	cmdRecord     = 0x23
	fullRecord    = 0x01
	recordHead    = 5    // bytes: ID, version, type, length
	ourBMC        = 0x20 // its address, of sensors that it owns
	nameAt        = 48
	recordPiece   = 16 // bytes that every BMC can send at once
	mostRecords   = 1024
	mostSensors   = 256
	lostHold      = 0xc5 // the reservation is not valid any more
	holdAttempts  = 4
	notAvailable  = 0x20 // in a reading: there is none now
	scanIsOn      = 0x40
	linearLast    = 11 // cube root
	readingLeast  = 2
	unitsFlagsAt  = 20
	linearAt      = 23
	thresholdsEnd = 47 // the byte that says how long the name is
)

// Sensors reads the repository of the BMC's sensor records. Records that make no sense are left out. With an error the list has what was read before it.
func Sensors(ctx context.Context, send Sender) ([]Sensor, error) {
	r := repository{send: send}
	var list []Sensor
	seen := map[uint16]bool{}
	for id := uint16(0); id != lastEntry && !seen[id] && len(seen) < mostRecords && len(list) < mostSensors; {
		seen[id] = true
		record, next, err := r.record(ctx, id)
		if err != nil {
			return list, fmt.Errorf("read sensor record %#04x: %w", id, err)
		}
		if s, ok := parseSensor(record); ok {
			list = append(list, s)
		}
		id = next
	}
	return list, nil
}

// repository is read by pieces, for which it has to be reserved: another reader, or a change, ends that.
type repository struct {
	send Sender
	hold [2]byte
}

// record reads a record, whole if it is that of a sensor with numbers, else its head.
func (r *repository) record(ctx context.Context, id uint16) (record []byte, next uint16, err error) {
	for range holdAttempts {
		record, next, err = r.try(ctx, id)
		var refused CompletionError
		if !errors.As(err, &refused) || refused != lostHold {
			break
		}
		b, reserving := answer(ctx, r.send, 2, netFnStorage, cmdReserve)
		if reserving != nil {
			return nil, 0, fmt.Errorf("reserve the repository: %w", reserving)
		}
		r.hold = [2]byte(b)
	}
	return record, next, err
}

func (r *repository) try(ctx context.Context, id uint16) (record []byte, next uint16, err error) {
	want := recordHead
	for len(record) < want {
		n := min(want-len(record), recordPiece)
		b, err := answer(ctx, r.send, 2+n, netFnStorage, cmdRecord, r.hold[0], r.hold[1], byte(id), byte(id>>8), byte(len(record)), byte(n))
		if err != nil {
			return nil, 0, err
		}
		next = binary.LittleEndian.Uint16(b)
		record = append(record, b[2:2+n]...)
		if len(record) == recordHead && record[3] == fullRecord {
			want += int(record[4])
		}
	}
	return record, next, nil
}

// parseSensor reads a record.
func parseSensor(b []byte) (s Sensor, ok bool) {
	if len(b) < nameAt || b[3] != fullRecord || b[5] != ourBMC || b[6]&0x03 != 0 { // logical unit 0
		return s, false
	}
	units := b[unitsFlagsAt]
	s.Number, s.signed, s.linear = b[7], units>>6, b[linearAt]&0x7f
	switch b[21] {
	case 1, 2, 3: // degrees Celsius, Fahrenheit, kelvin
		s.Unit = Celsius
	case 4:
		s.Unit = Volt
	case 6:
		s.Unit = Watt
	case 18:
		s.Unit = RPM
	}
	if s.Unit == "" || s.signed > 2 || s.linear > linearLast || units&0x3f != 0 { // a percentage, by a time, or by another unit
		return s, false
	}
	s.m, s.b = ten(b[24], b[25]), ten(b[26], b[27])*math.Pow10(nibble(b[29]&0x0f))
	s.scale = math.Pow10(nibble(b[29] >> 4))
	switch b[21] {
	case 2:
		s.scale, s.b = s.scale*5/9, s.b-32/s.scale
	case 3:
		s.b -= 273.15 / s.scale
	}
	if b[21] != 1 && s.Unit == Celsius && s.linear != 0 { // the function comes last, and would be of the other degrees
		return s, false
	}
	s.Name = sensorName(b[thresholdsEnd], b[nameAt:])
	if s.Name == "" {
		s.Name = fmt.Sprintf("sensor %d", s.Number)
	}
	return s, true
}

// ten is a number of ten bits in two's complement: its lower eight, and the others as the highest two of a byte.
func ten(low, high byte) float64 {
	n := int(low) | int(high>>6)<<8
	if n >= 512 {
		n -= 1024
	}
	return float64(n)
}

// nibble is a number of four bits in two's complement.
func nibble(n byte) int { return int(int8(n<<4) >> 4) }

// sensorName reads a name: in ASCII of eight or six bits (IPMI 2.0, 43.15). Other forms are hardly ever used, and give none.
func sensorName(kind byte, b []byte) string {
	b = b[:min(int(kind&0x1f), len(b))]
	var text strings.Builder
	put := func(c byte) {
		if c < ' ' || c > '~' {
			c = '?'
		}
		text.WriteByte(c)
	}
	switch kind >> 6 {
	case 3:
		for _, c := range b {
			if c == 0 {
				break
			}
			put(c)
		}
	case 2:
		bits, n := 0, 0
		for _, c := range b {
			bits |= int(c) << n
			for n += 8; n >= 6; n -= 6 {
				put(byte(bits&0x3f) + ' ')
				bits >>= 6
			}
		}
	}
	return strings.TrimSpace(text.String())
}

// Read asks for a sensor's reading, in its unit. ok is false if it has none now: its part may be switched off, or not there.
func (s Sensor) Read(ctx context.Context, send Sender) (value float64, ok bool, err error) {
	b, err := answer(ctx, send, readingLeast, netFnSensor, cmdReading, s.Number)
	if err != nil {
		return 0, false, fmt.Errorf("read sensor %s: %w", s.Name, err)
	}
	if b[1]&notAvailable != 0 || b[1]&scanIsOn == 0 {
		return 0, false, nil
	}
	value = s.value(b[0])
	return value, !math.IsNaN(value) && !math.IsInf(value, 0), nil
}

// value is what a raw reading stands for (IPMI 2.0, 36.3).
func (s Sensor) value(raw byte) float64 {
	x := float64(raw)
	switch {
	case s.signed == 1 && raw&0x80 != 0:
		x = -float64(^raw)
	case s.signed == 2:
		x = float64(int8(raw))
	}
	x = (s.m*x + s.b) * s.scale
	switch s.linear {
	case 1:
		return math.Log(x)
	case 2:
		return math.Log10(x)
	case 3:
		return math.Log2(x)
	case 4:
		return math.Exp(x)
	case 5:
		return math.Pow(10, x)
	case 6:
		return math.Exp2(x)
	case 7:
		return 1 / x
	case 8:
		return x * x
	case 9:
		return x * x * x
	case 10:
		return math.Sqrt(x)
	case 11:
		return math.Cbrt(x)
	}
	return x
}
