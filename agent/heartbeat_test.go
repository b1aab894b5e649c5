// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Each case is a script: which heartbeats fail, when somebody forces one; and when they must come.
func TestHeartbeatSchedule(t *testing.T) {
	const s, m = time.Second, time.Minute
	tests := []struct {
		name   string
		random float64
		fail   string // for each heartbeat: x fails, - succeeds; then all succeed
		takes  time.Duration
		force  []time.Duration
		until  time.Duration
		want   string // when heartbeats begin
	}{
		{"shortest", 0, "", 0, nil, 4 * m, "0s 1m30s 3m0s"},
		{"longest", 1, "", 0, nil, 7 * m, "0s 3m0s 6m0s"},
		{"middle", 0.5, "", 0, nil, 5 * m, "0s 2m15s 4m30s"},
		{"after failures, at once", 0, "xxx", 0, nil, m, "0s 5s 10s 15s"},
		{"after failures, late", 1, "xxx", 0, nil, m, "0s 10s 20s 30s"},
		{"fails later", 0, "-x", 0, nil, 4 * m, "0s 1m30s 1m35s 3m5s"},
		{"slow answers", 0, "", 20 * s, nil, 4 * m, "0s 1m50s 3m40s"},

		{"forced", 0, "", 0, []time.Duration{30 * s}, 3 * m, "0s 32s 2m2s"},
		{"forced soon after the last", 0, "", 0, []time.Duration{1 * s}, 2 * m, "0s 5s 1m35s"},
		{"forced twice, one is enough", 0, "", 0, []time.Duration{30 * s, 31 * s}, 2 * m, "0s 33s"},
		{"forced shortly before the next", 0, "", 0, []time.Duration{89 * s}, 4 * m, "0s 1m30s 3m0s"},
		{"forced while one is sent", 0, "", 20 * s, []time.Duration{10 * s}, 2 * m, "0s 25s"},
		{"forced, and it fails", 1, "-xx", 0, []time.Duration{30 * s}, 4 * m, "0s 32s 37s 42s 3m42s"},
		{"forced while the conductor is away", 1, "xxx", 0, []time.Duration{1 * s}, m, "0s 5s 10s 15s"},
		{"forced long after", 1, "", 0, []time.Duration{170 * s, 200 * s}, 4 * m, "0s 2m52s 3m22s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var came []string
				h := NewHeartbeats(HeartbeatOptions{
					Timeout: 300 * s, Log: quiet, Rand: func() float64 { return tt.random },
					Send: func(ctx context.Context) error {
						n := len(came)
						came = append(came, time.Since(begin).String())
						time.Sleep(tt.takes)
						if n < len(tt.fail) && tt.fail[n] == 'x' {
							return errors.New("conductor is away")
						}
						return nil
					},
				})
				for _, at := range tt.force {
					time.AfterFunc(at, h.Force)
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.until)
				defer cancel()
				h.Run(ctx)
				if got := strings.Join(came, " "); got != tt.want {
					t.Errorf("heartbeats at %s, want %s", got, tt.want)
				}
				if took := time.Since(begin); took > tt.until+tt.takes {
					t.Errorf("Run returned after %v", took)
				}
			})
		})
	}
}

// Real randomness stays within the bounds.
func TestHeartbeatJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last time.Time
		n := 0
		h := NewHeartbeats(HeartbeatOptions{Timeout: 300 * time.Second, Log: quiet, Send: func(ctx context.Context) error {
			gap := time.Since(last)
			if n > 0 && (gap < 90*time.Second || gap >= 180*time.Second) {
				t.Errorf("heartbeat after %v", gap)
			}
			last = time.Now()
			n++
			return nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
		defer cancel()
		h.Run(ctx)
		if n < 200 || n > 400 {
			t.Errorf("%d heartbeats in ten hours", n)
		}
	})
}

// An outage is told when it begins and when it ends, and does not fill the log. Who is told of each heartbeat tells it
// himself, and the log does not say it again.
func TestHeartbeatOutage(t *testing.T) {
	for _, listens := range []bool{false, true} {
		t.Run(fmt.Sprintf("somebody is told: %v", listens), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var log bytes.Buffer
				var told []string
				o := HeartbeatOptions{
					Timeout: 300 * time.Second, Rand: func() float64 { return 0 },
					Log: slog.New(slog.NewTextHandler(&log, nil)),
					Send: func(ctx context.Context) error {
						if time.Since(begin) < time.Hour {
							return fmt.Errorf("send: %w", context.DeadlineExceeded)
						}
						return nil
					},
				}
				if listens {
					o.OnBeat = func(err error, failures int) { told = append(told, fmt.Sprint(err != nil, failures)) }
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour+time.Minute)
				defer cancel()
				NewHeartbeats(o).Run(ctx)
				if listens {
					if log.Len() > 0 {
						t.Errorf("the log says it again:\n%s", log.String())
					}
					if len(told) != 721 || told[0] != "true 1" || told[719] != "true 720" || told[720] != "false 0" {
						t.Errorf("told %d times, from %s to %s", len(told), told[0], told[len(told)-1])
					}
					return
				}
				if n := strings.Count(log.String(), "\n"); n != 11 { // 1, 2, 4, ... 512, and the end
					t.Errorf("%d lines in the log:\n%s", n, log.String())
				}
				wantText(t, "log", log.String(), "failed=1 ", "check the gateway", "failed=512", "accepted again\" failed=720")
			})
		})
	}
}
