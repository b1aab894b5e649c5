// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// clock is programs that work by the clock as stress-ng and fio do: while they are halted it goes on, and they end no earlier than they go on again.
type clock struct {
	mu     sync.Mutex
	until  time.Time // halted until then
	before time.Duration
	lines  []string
}

func (c *clock) halt(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Now().Add(d)
	c.before += d
}

func (c *clock) Halted() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.before - max(0, time.Until(c.until))
}

func (c *clock) Run(ctx context.Context, t tool.Tool, args ...string) ([]byte, error) {
	if args[0] == "--version" {
		return nil, nil
	}
	seconds := 0
	for i, a := range args {
		if a == "--timeout" || a == "--runtime" { // the last counts
			fmt.Sscan(args[i+1], &seconds)
		}
	}
	c.mu.Lock()
	c.lines = append(c.lines, fmt.Sprintf("%s %ds", t, seconds))
	c.mu.Unlock()
	for end := time.Now().Add(time.Duration(seconds) * time.Second); ; {
		c.mu.Lock()
		wait := max(time.Until(end), time.Until(c.until))
		c.mu.Unlock()
		if wait <= 0 && t == tool.StressNG {
			return []byte(worked), nil
		}
		if wait <= 0 {
			return []byte(`{"jobs": [{"read": {"io_bytes": 1048576}, "write": {"io_bytes": 1048576}}]}`), nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, &tool.Error{Tool: t, Exit: -1, Err: context.Cause(ctx)}
		}
	}
}

// What is paused works as long as it was told to nevertheless, and what is skipped does not pass.
func TestPauseAndSkip(t *testing.T) {
	profile := Profile{Name: "p", Loads: []ProfileLoad{
		{Processors: &ProcessorsLoad{Time: Duration(60 * time.Second)}}, {Disks: &DisksLoad{Time: Duration(60 * time.Second), Write: []string{"vda"}}},
	}}
	for _, test := range []struct {
		name  string
		do    func(c *clock, skip chan struct{})
		lines string
		lasts time.Duration
		want  string
	}{
		{"nothing is done", func(*clock, chan struct{}) {}, "stress-ng 60s, fio 60s", 2 * time.Minute,
			"PASS\nPASS|processors|\nPASS|/dev/vda serial S-vda|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\n"},
		{"within the time", func(c *clock, _ chan struct{}) { time.Sleep(20 * time.Second); c.halt(10 * time.Second) }, "stress-ng 60s, stress-ng 10s, fio 60s", 130 * time.Second,
			"PASS\nPASS|processors|halted by hand for 10s, which do not count\nPASS|/dev/vda serial S-vda|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\n"},
		{"beyond its end", func(c *clock, _ chan struct{}) { time.Sleep(20 * time.Second); c.halt(time.Hour) }, "stress-ng 60s, stress-ng 40s, fio 60s", time.Hour + 2*time.Minute,
			"PASS\nPASS|processors|halted by hand for 1h0m0s, which do not count\nPASS|/dev/vda serial S-vda|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\n"},
		{"twice, a disk", func(c *clock, _ chan struct{}) {
			time.Sleep(70 * time.Second)
			c.halt(30 * time.Second)
			time.Sleep(60 * time.Second)
			c.halt(5 * time.Second)
		}, "stress-ng 60s, fio 60s, fio 30s, fio 5s", 155 * time.Second,
			"PASS\nPASS|processors|\nPASS|/dev/vda serial S-vda|3.0 MiB written, 3.0 MiB read back, of 1.0 MiB\n|disks|halted by hand for 35s, which do not count\n"},
		{"skipped", func(_ *clock, skip chan struct{}) { time.Sleep(20 * time.Second); skip <- struct{}{} }, "stress-ng 60s, fio 60s", 80 * time.Second,
			"SKIPPED processors: stopped before its end\nSKIPPED|processors|stopped after 20s: skipped by hand\nPASS|/dev/vda serial S-vda|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, c, skip := &bench{root: machine("vda"), content: map[string][]byte{}}, &clock{}, make(chan struct{})
				h := b.host(c)
				plan, err := Order{Profile: profile}.Plan(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				go test.do(c, skip)
				r := plan.Run(t.Context(), h, Following{Skip: skip})
				if got := strings.Join(c.lines, ", "); got != test.lines {
					t.Errorf("run: %s, want %s", got, test.lines)
				}
				if got := time.Since(began); got != test.lasts {
					t.Errorf("it took %v, want %v", got, test.lasts)
				}
				got := strings.TrimSpace(string(r.Verdict)+" "+strings.Join(r.Problems, "; ")) + "\n"
				for _, l := range r.Loads {
					got += lines(l.Parts)
				}
				if got != test.want {
					t.Errorf("result:\n%swant:\n%s", got, test.want)
				}
			})
		})
	}
}

func TestSnapshotReads(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const cpu = "sys/devices/system/cpu/cpu"
	m := inspect.Machine{FS: fstest.MapFS{
		"sys/class/hwmon/hwmon0/name": file("nct6775\n"), "sys/class/hwmon/hwmon0/fan1_input": file("4200\n"), "sys/class/hwmon/hwmon0/fan2_input": file("stuck\n"),
		"sys/class/hwmon/hwmon1/name": file("power_meter\n"), "sys/class/hwmon/hwmon1/power1_average": file("312500000\n"), "sys/class/hwmon/hwmon1/power2_input": file("-1\n"),
		cpu + "0/cpufreq/scaling_cur_freq": file("2400000\n"), cpu + "0/topology/physical_package_id": file("0\n"),
		cpu + "1/cpufreq/scaling_cur_freq": file("3000000\n"), cpu + "1/topology/physical_package_id": file("0\n"),
		cpu + "2/cpufreq/scaling_cur_freq": file("1000000\n"), cpu + "2/topology/physical_package_id": file("1\n"),
		cpu + "3/cpufreq/scaling_cur_freq": file("<unknown>\n"), cpu + "3/topology/physical_package_id": file("1\n"),
	}}
	synctest.Test(t, func(t *testing.T) {
		var s Snapshot
		w, err := startWatch(t.Context(), steps.Host{Machine: m, Say: t.Logf}, 0, func(now Snapshot) { s = now })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		w.end(t.Context())
		b, err := json.Marshal([]any{s.RPM, s.Watts, s.MHz})
		const want = `[{"hwmon0 nct6775 fan1":4200},{"hwmon1 power_meter power1":312.5},{"processor in socket 0":2700,"processor in socket 1":1000}]`
		if err != nil || string(b) != want {
			t.Errorf("snapshot: %s, want %s, %v", b, want, err)
		}
	})
}

// A program that ends before its time with 0, such as stress-ng whose workers were killed for memory, has not tested anything.
func TestEndsEarly(t *testing.T) {
	for _, test := range []struct {
		name    string
		profile ProfileLoad
		out     string
		want    string
	}{
		{"stress-ng", ProfileLoad{Processors: &ProcessorsLoad{Time: Duration(time.Minute)}}, worked, "SKIPPED|processors|the program ended 40s before its time, and does not say why\n"},
		{"fio", ProfileLoad{Disks: &DisksLoad{Time: Duration(time.Minute), Write: []string{"vda"}}}, `{"jobs": [{"read": {"io_bytes": 1048576}, "write": {"io_bytes": 1048576}}]}`,
			"SKIPPED|disks|/dev/vda serial S-vda: the program ended 40s before its time, and does not say why\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: machine("vda"), content: map[string][]byte{}}
				h := b.host(short(test.out))
				plan, err := Order{Profile: Profile{Loads: []ProfileLoad{test.profile}}}.Plan(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				r := plan.Run(t.Context(), h, Following{})
				if got := lines(r.Loads[0].Parts); r.Verdict != Skipped || got != test.want {
					t.Errorf("%s, result:\n%swant:\n%s", r.Verdict, got, test.want)
				}
			})
		})
	}
}

// short are programs that end after 20 seconds.
type short string

func (s short) Run(_ context.Context, _ tool.Tool, args ...string) ([]byte, error) {
	if args[0] != "--version" {
		time.Sleep(20 * time.Second)
	}
	return []byte(s), nil
}

// stress-ng ends with the status of a stressor that has found an error also where its workers were killed for want of memory, which tells nothing of the processors.
func TestKilledForMemory(t *testing.T) {
	const corrupted = "stress-ng: fail:  [7] cpu instance 0 corrupted bogo-ops counter, 1083 vs 0\nstress-ng: fail:  [7] metrics-check: stressor metrics corrupted, data is compromised"
	for _, test := range []struct {
		name   string
		killed string // oom_kill at the end
		err    error
		want   string
	}{
		{"killed", "4", &tool.Error{Tool: tool.StressNG, Exit: 2, Stderr: corrupted, Err: fmt.Errorf("exit status 2")}, "SKIPPED|processors|the kernel has killed 3 programs for want of memory meanwhile\nstress-ng: exit status 2"},
		{"killed, and stress-ng has started it again", "2", nil, "PASS|processors|\n"},
		{"ended by something else", "1", &tool.Error{Tool: tool.StressNG, Exit: 2, Stderr: corrupted, Err: fmt.Errorf("exit status 2")}, "FAIL|processors|stress-ng: exit status 2"},
		{"killed, and one has found an error", "2", &tool.Error{Tool: tool.StressNG, Exit: 2, Stderr: corrupted + "\nstress-ng: fail:  [9] cpu: fft error detected", Err: fmt.Errorf("exit status 2")}, "FAIL|processors|stress-ng: exit status 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: machine("vda"), content: map[string][]byte{}}
				b.change("proc/vmstat", "nr_free_pages 5\noom_kill 1\n")
				h := b.host(runner(func(context.Context, string) (string, error) {
					b.change("proc/vmstat", "nr_free_pages 5\noom_kill "+test.killed+"\n")
					return "", test.err
				}))
				plan, err := Order{Profile: Profile{Loads: []ProfileLoad{{Processors: &ProcessorsLoad{Time: Duration(time.Minute)}}}}}.Plan(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				if got := lines(plan.Run(t.Context(), h, Following{}).Loads[0].Parts); !strings.HasPrefix(got, test.want) {
					t.Errorf("result:\n%swant:\n%s", got, test.want)
				}
			})
		})
	}
}
