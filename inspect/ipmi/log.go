// SPDX-License-Identifier: Apache-2.0

package ipmi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// An Event is an entry of the BMC's system event log (IPMI 2.0, table 32-1).
type Event struct {
	ID       uint16
	Kind     byte // 0x02 for an event of a sensor; others are the vendor's
	Sensor   byte // type of the sensor (table 42-3)
	Number   byte // of the sensor
	Reading  byte // type of the event (table 42-1): 0x01 a threshold, 0x6f one of this kind of sensor
	Offset   byte // which of its events
	Asserted bool // else it is over
}

// Log is what the BMC says of its log.
type Log struct {
	Entries       int
	Added, Erased uint32 // when something was last added or erased, as the BMC's clock has it
}

// Numbers of IPMI 2.0, chapter 31.
const (
	netFnStorage = 0x0a
	cmdLogInfo   = 0x40
	cmdLogEntry  = 0x43
	firstEntry   = 0x0000
	lastEntry    = 0xffff

	mostEvents = 512 // that are read at once, whatever the BMC says
)

// Changed tells whether anything was added to the log, or erased, since an earlier state of it.
func (l Log) Changed(before Log) bool {
	return l.Entries != before.Entries || l.Added != before.Added || l.Erased != before.Erased
}

// A Sender sends a request to the BMC and returns its answer.
type Sender func(context.Context, Request) ([]byte, error)

// ReadLog asks for the state of the log.
func ReadLog(ctx context.Context, send Sender) (Log, error) {
	b, err := answer(ctx, send, 14, netFnStorage, cmdLogInfo)
	if err != nil {
		return Log{}, fmt.Errorf("read the state of the BMC's log: %w", err)
	}
	return Log{Entries: int(binary.LittleEndian.Uint16(b[1:])), Added: binary.LittleEndian.Uint32(b[5:]), Erased: binary.LittleEndian.Uint32(b[9:])}, nil
}

// LastEvent returns the number of the newest entry. ok is false if the log is empty.
func LastEvent(ctx context.Context, send Sender) (id uint16, ok bool, err error) {
	e, _, err := entry(ctx, send, lastEntry)
	if isNone(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read the last event: %w", err)
	}
	return e.ID, true, nil
}

// EventsAfter returns the entries that came after one, in their order; with ok false all. If that one is not there any more, the log was erased, and all that is in it is new.
// At most [mostEvents] are read.
func EventsAfter(ctx context.Context, send Sender, last uint16, ok bool) ([]Event, error) {
	next := uint16(firstEntry)
	if ok {
		_, after, err := entry(ctx, send, last)
		switch {
		case isNone(err):
		case err != nil:
			return nil, fmt.Errorf("read event %#04x: %w", last, err)
		case after == lastEntry:
			return nil, nil
		default:
			next = after
		}
	}
	var list []Event
	seen := map[uint16]bool{}
	for len(list) < mostEvents && !seen[next] {
		seen[next] = true
		e, after, err := entry(ctx, send, next)
		if isNone(err) {
			break
		}
		if err != nil {
			return list, fmt.Errorf("read event %#04x: %w", next, err)
		}
		list = append(list, e)
		if after == lastEntry {
			break
		}
		next = after
	}
	return list, nil
}

// isNone tells of the answer that there is no such entry (IPMI 2.0, table 5-2: cbh).
func isNone(err error) bool {
	var refused CompletionError
	return errors.As(err, &refused) && refused == 0xcb
}

// entry reads one entry, whole.
func entry(ctx context.Context, send Sender, id uint16) (e Event, next uint16, err error) {
	b, err := answer(ctx, send, 18, netFnStorage, cmdLogEntry, 0, 0, byte(id), byte(id>>8), 0, 0xff)
	if err != nil {
		return e, 0, err
	}
	next, b = binary.LittleEndian.Uint16(b), b[2:]
	return Event{ID: binary.LittleEndian.Uint16(b), Kind: b[2], Sensor: b[10], Number: b[11], Reading: b[12] & 0x7f, Offset: b[13] & 0x0f, Asserted: b[12]&0x80 == 0}, next, nil
}

// Power asks how many watts the machine draws now (DCMI 1.5, Get Power Reading). ok is false if the BMC does not measure.
func Power(ctx context.Context, send Sender) (watts int, ok bool) {
	const netFnGroup, dcmi, cmdPower = 0x2c, 0xdc, 0x02
	b, err := answer(ctx, send, 18, netFnGroup, cmdPower, dcmi, 1, 0, 0)
	if err != nil || b[0] != dcmi || b[17]&0x40 == 0 { // power measurement is active
		return 0, false
	}
	return int(binary.LittleEndian.Uint16(b[1:])), true
}

func answer(ctx context.Context, send Sender, least int, request ...byte) ([]byte, error) {
	b, err := send(ctx, request)
	if err != nil {
		return nil, err
	}
	return Payload(b, least)
}
