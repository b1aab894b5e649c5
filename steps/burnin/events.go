// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"fmt"
	"time"

	"github.com/ironhand/ironhand/inspect/ipmi"
)

// beginEvents notes which entries the BMC's log has already. Without a BMC, or one that answers, there are none.
func (w *watch) beginEvents(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	log, err := ipmi.ReadLog(ctx, w.host.Machine.AskBMC)
	if err != nil {
		return
	}
	last, ok, err := ipmi.LastEvent(ctx, w.host.Machine.AskBMC)
	if err != nil {
		w.host.Say("the BMC's log is not watched: %v", err)
		return
	}
	w.log, w.last, w.lastIs, w.bmc = log, last, ok, true
	_, w.measures = ipmi.Power(ctx, w.host.Machine.AskBMC)
}

// readEvents keeps what has come into the BMC's log.
func (w *watch) readEvents(ctx context.Context) {
	if !w.bmc {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	log, err := ipmi.ReadLog(ctx, w.host.Machine.AskBMC)
	if err != nil || !log.Changed(w.log) {
		return // it is asked again
	}
	list, err := ipmi.EventsAfter(ctx, w.host.Machine.AskBMC, w.last, w.lastIs)
	for _, e := range list {
		w.last, w.lastIs = e.ID, true
		if m, found := w.rules.event(e); found {
			w.say("BMC", m)
		}
	}
	if err == nil {
		w.log = log
	}
}

// askPower keeps how much the machine draws.
func (w *watch) askPower(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if watts, ok := ipmi.Power(ctx, w.host.Machine.AskBMC); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.add(power, "machine, by the BMC", "W", time.Since(w.started).Seconds(), float64(watts), float64(watts), float64(watts))
	}
}

// findSensors asks which fans, temperatures, voltages and powers the BMC measures. With many that takes a while.
func (w *watch) findSensors(ctx context.Context) (list []ipmi.Sensor) {
	if !w.bmc {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sensorLimit)
	defer cancel()
	list, err := ipmi.Sensors(ctx, w.host.Machine.AskBMC)
	if err != nil && ctx.Err() == nil {
		w.host.Say("of the BMC's sensors %d are watched: %v", len(list), err)
	}
	names := map[string]int{}
	for _, s := range list {
		names[s.Name]++
	}
	for i, s := range list {
		if names[s.Name] > 1 {
			list[i].Name = fmt.Sprintf("%s (sensor %d)", s.Name, s.Number)
		}
	}
	return list
}

// measuredIn are the kinds of series of the BMC's sensors.
var measuredIn = map[ipmi.Unit]string{ipmi.Celsius: temperature, ipmi.RPM: fan, ipmi.Volt: voltage, ipmi.Watt: power}

// askSensors keeps what the BMC's sensors measure. Of a slow BMC those that come first.
func (w *watch) askSensors(ctx context.Context, list []ipmi.Sensor) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	for _, s := range list {
		value, ok, err := s.Read(ctx, w.host.Machine.AskBMC)
		if ctx.Err() != nil {
			return
		}
		if err != nil || !ok {
			continue // its part may be switched off
		}
		w.mu.Lock()
		w.add(measuredIn[s.Unit], s.Name+", by the BMC", string(s.Unit), time.Since(w.started).Seconds(), value, value, value)
		w.mu.Unlock()
	}
}

// event is what an entry of the BMC's log means. What is over, and what is no sensor's, is left out.
func (r rules) event(e ipmi.Event) (m message, found bool) {
	if e.Kind != 0x02 || !e.Asserted {
		return m, false
	}
	for _, rule := range r.Events {
		if rule.Sensor == e.Sensor && rule.Event == e.Reading && rule.Offset == e.Offset {
			k := key{fmt.Sprintf("%s, by the BMC's sensor %d", rule.Part, e.Number), bmcFault}
			if rule.Told {
				k.kind = bmcEvent
			}
			return message{k, rule.Means}, true
		}
	}
	return message{key{fmt.Sprintf("BMC's sensor %d", e.Number), bmcEvent}, fmt.Sprintf("sensor of type %#02x, event type %#02x, offset %d", e.Sensor, e.Reading, e.Offset)}, true
}
