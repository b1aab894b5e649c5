// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect"
)

func TestParseRates(t *testing.T) {
	const stress = "---\nsystem-info:\n      cpus: 4\n\nmetrics:\n    - stressor: cpu\n      bogo-ops: 437\n      bogo-ops-per-second-usr-sys-time: 1517.635129\n      bogo-ops-per-second-real-time: 425.804409\n\n" +
		"    - stressor: vm\n      bogo-ops: 3360\n      bogo-ops-per-second-real-time: 2204.202437\n\n...\n"
	const fio = `fio: this is a warning
{"jobs": [{"read": {"io_bytes": 10, "bw_bytes": 2500000}, "write": {"io_bytes": 20, "bw_bytes": 1000000, "runtime": 2500}}, {"write": {"io_bytes": 2, "bw_bytes": 500000}}]}`
	for _, test := range []struct{ name, got, want string }{
		{"stress-ng", fmt.Sprint(withPart("processors", parseStress([]byte(stress)))), "map[processors cpu:{425.804409 bogo-ops/s} processors vm:{2204.202437 bogo-ops/s}]"},
		{"a stressor that did nothing", fmt.Sprint(parseStress([]byte("- stressor: cpu\nbogo-ops-per-second-real-time: 0.0\n- stressor: vm\nbogo-ops-per-second-real-time: nan\n"))), "map[]"},
		{"a rate of nobody", fmt.Sprint(parseStress([]byte("bogo-ops-per-second-real-time: 1.0\n"))), "map[]"},
		{"nothing", fmt.Sprint(parseStress(nil)), "map[]"},
		{"fio", fmt.Sprint(parseFio([]byte(fio))), "{22 10 map[read:{2.5 MB/s} write:{1.5 MB/s}] [] 2500000000} <nil>"},
		{"fio that did nothing", fmt.Sprint(parseFio([]byte(`{"jobs": []}`))), "{0 0 map[] [] 0} <nil>"},
		{"no report of fio", fmt.Sprint(parseFio(nil)), "{0 0 map[] [] 0} read what fio reports: unexpected end of JSON input"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.got != test.want {
				t.Errorf("%s\nwant %s", test.got, test.want)
			}
		})
	}
}

func FuzzParseStress(f *testing.F) {
	f.Add([]byte("metrics:\n    - stressor: cpu\n      bogo-ops-per-second-real-time: 425.804409\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, r := range parseStress(b) {
			if name == "" || !(r.Value > 0) {
				t.Errorf("%q: %v", name, r)
			}
		}
	})
}

// What a step says of itself while it runs: how far it is, and how fast.
func TestProgress(t *testing.T) {
	stat := func(read, written int64) string {
		return fmt.Sprintf("1 0 %d 9 1 0 %d 9 0 9 9\n", read/512, written/512)
	}
	for _, test := range []struct {
		name  string
		loops int64
		lasts time.Duration
		want  []string
	}{
		{"loops", 1, 0, []string{"25 map[/dev/vda write:{5.12 MB/s}]", "50 map[/dev/vda read:{5.12 MB/s}]"}},
		{"a time", 0, 40 * time.Second, []string{"25 map[/dev/vda write:{5.12 MB/s}]", "50 map[/dev/vda read:{5.12 MB/s}]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: machine("vda", "vdb")}
				b.change("sys/block/vda/stat", stat(1<<20, 1<<20))
				b.change("sys/block/vdb/stat", "nothing")
				var got []string
				h := b.host(nil)
				h.Log = slog.New(slog.DiscardHandler)
				h.Progress = func(now any) {
					m := now.(map[string]any)
					got = append(got, fmt.Sprint(m["percent"], " ", m["rates"]))
				}
				disks := []inspect.Disk{{Name: "/dev/vda", Size: 102400000}}
				l := diskLoad(disks, nil, test.loops, test.lasts, func(ctx context.Context, d inspect.Disk) ([]Part, error) {
					time.Sleep(5 * time.Second)
					b.change("sys/block/vda/stat", stat(1<<20, 1<<20+51200000))
					time.Sleep(10 * time.Second)
					b.change("sys/block/vda/stat", stat(1<<20+51200000, 1<<20+51200000))
					time.Sleep(6 * time.Second)
					return []Part{{Name: d.Name, Verdict: Pass, Reasons: []string{}, rates: withPart(d.Name, map[string]Rate{"write": {7, "MB/s"}})}}, nil
				})
				result, err := do(t.Context(), h, l)
				if err != nil {
					t.Fatal(err)
				}
				if fmt.Sprint(got) != fmt.Sprint(test.want) {
					t.Errorf("progress %v, want %v", got, test.want)
				}
				if got := fmt.Sprint(result.(Report).Rates); got != "map[/dev/vda write:{7 MB/s}]" {
					t.Errorf("rates of the report: %s", got)
				}
			})
		})
	}
	if got := (load{}).percent(time.Hour, nil); got != -1 {
		t.Errorf("a load without time or size is at %d %%", got)
	}
}
