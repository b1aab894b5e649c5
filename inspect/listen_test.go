// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect/inspecttest"
)

// Frames come when switches send them: listening goes on until all have one, or none has come for a while.
func TestListen(t *testing.T) {
	const frame = "\x01\x80\xc2\x00\x00\x0e\x64\x64\x9b\x32\x2d\x00\x88\xcc\x02\x07\x04\x64\x64\x9b\x32\x2d\x00\x00\x00"
	cut := frame[:len(frame)-4]
	const one = `[[1,"0464649b322d00"],[0,""]]`
	for _, tt := range []struct {
		name  string
		after map[string]time.Duration // frames by interface; others never
		frame string
		fails error // of ens0
		took  time.Duration
		heard int
		err   string
	}{
		{"none", nil, frame, nil, 30 * time.Second, 0, ""},
		{"one", map[string]time.Duration{"ens0": 20 * time.Second}, frame, nil, 50 * time.Second, 1, ""},
		{"each prolongs it", map[string]time.Duration{"ens0": 25 * time.Second, "ens1": 50 * time.Second}, frame, nil, 80 * time.Second, 2, ""},
		{"too late", map[string]time.Duration{"ens0": time.Second, "ens1": 40 * time.Second}, frame, nil, 31 * time.Second, 1, ""},
		{"all at once", map[string]time.Duration{"ens0": time.Second, "ens1": time.Second, "ens2": time.Second, "ens3": time.Second, "ens4": time.Second,
			"ens5": time.Second, "ens6": time.Second, "ens7": 2 * time.Second}, frame, nil, 2 * time.Second, 8, ""},
		{"cut off", map[string]time.Duration{"ens1": time.Second}, cut, nil, 31 * time.Second, 0, "LLDP frame on ens1: TLV of type 1 says 7 bytes"},
		{"not allowed", nil, frame, syscall.EPERM, 30 * time.Second, 0, "listen for LLDP on ens0: operation not permitted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := Recorded(inspecttest.Server())
				m.Ask = func(ctx context.Context, question string) ([]byte, error) {
					nic := strings.TrimSuffix(strings.TrimPrefix(question, "nic/"), "/lldp")
					if nic == "ens0" && tt.fails != nil {
						return nil, tt.fails
					}
					after, sends := tt.after[nic]
					if !sends {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					select {
					case <-time.After(after):
						return []byte(tt.frame), nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				start := time.Now()
				heard, err := m.Listen(t.Context(), 30*time.Second)
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				n := 0
				for nic, tlvs := range heard {
					b, err := json.Marshal(tlvs)
					if err != nil {
						t.Fatal(err)
					}
					switch string(b) {
					case one:
						n++
					case "[]":
					default:
						t.Errorf("%s: %s", nic, b)
					}
				}
				if n != tt.heard || len(heard) != 8 {
					t.Errorf("%d of %d interfaces have a frame, want %d of 8", n, len(heard), tt.heard)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := Recorded(inspecttest.Server())
	m.Ask = func(context.Context, string) ([]byte, error) { select {} }
	if _, err := m.Listen(ctx, time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("Listen = %v, want %v", err, context.Canceled)
	}
}
