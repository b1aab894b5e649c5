// SPDX-License-Identifier: Apache-2.0

package burnin

import "time"

// Snapshot is the machine at one moment of a burn-in, for those who watch.
type Snapshot struct {
	Time     time.Time
	Celsius  map[string]float64 // by sensor
	MHz      map[string]float64 // by socket, the mean of its cores
	RPM      map[string]float64 // by fan
	Watts    map[string]float64 // by sensor
	Findings []Part             // what the judge would say now
}
