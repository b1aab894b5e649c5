// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ironhand/ironhand/inspect/lldp"
)

// askLLDP is the question for the next LLDP frame on an interface, which may be long in coming: switches send one every 30 s.
const askLLDP = "nic/%s/lldp"

// Listen waits for one LLDP frame on each interface but the loopback, on all at once, and returns their TLVs by interface; those without a frame have none, which is not nil.
// It ends when all have one, or none came for the time of quiet. Frames that are broken are named in the error, and what is before the break is there.
func (m Machine) Listen(ctx context.Context, quiet time.Duration) (map[string][]lldp.TLV, error) {
	r := m.reader(ctx)
	heard := make(map[string][]lldp.TLV)
	for _, nic := range r.dir("sys/class/net") {
		if nic != "lo" && r.text(r.real("sys/class/net/"+nic)+"/address") != "" { // bonding_masters is no interface
			heard[nic] = []lldp.TLV{}
		}
	}
	if m.Ask == nil {
		return heard, errors.Join(r.problems()...)
	}
	type frame struct {
		nic  string
		data []byte
		err  error
	}
	listening, cancel := context.WithCancel(ctx)
	defer cancel()
	frames := make(chan frame, len(heard)) // so that who comes too late does not wait
	for nic := range heard {
		go func() {
			b, err := m.Ask(listening, fmt.Sprintf(askLLDP, nic))
			frames <- frame{nic, b, err}
		}()
	}
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for range len(heard) {
		select {
		case f := <-frames:
			switch {
			case f.err != nil && !notThere(f.err):
				r.problem(fmt.Errorf("listen for LLDP on %s: %w", f.nic, f.err))
			case f.err == nil:
				tlvs, err := lldp.ParseFrame(f.data)
				if err != nil {
					r.problem(fmt.Errorf("LLDP frame on %s: %w", f.nic, err))
				}
				if tlvs != nil {
					heard[f.nic] = tlvs
				}
				timer.Reset(quiet)
			}
		case <-timer.C:
			return heard, errors.Join(r.problems()...)
		case <-ctx.Done():
			return heard, ctx.Err()
		}
	}
	return heard, errors.Join(append(r.problems(), ctx.Err())...)
}
