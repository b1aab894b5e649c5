// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream/looptest"
)

// bigMachine writes the files of a server of two sockets with 256 threads, 24 disks, 8 NICs and 400 PCI devices.
func bigMachine(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	write := func(content, format string, args ...any) {
		name := filepath.Join(root, fmt.Sprintf(format, args...))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 256 {
		dir := fmt.Sprintf("sys/devices/system/cpu/cpu%d", i)
		write(strconv.Itoa(i/128), "%s/topology/physical_package_id", dir)
		write("2400000", "%s/cpufreq/scaling_cur_freq", dir)
		write("0", "%s/thermal_throttle/core_throttle_count", dir)
		write("0", "%s/thermal_throttle/package_throttle_count", dir)
	}
	for i := range 150 {
		write("coretemp", "sys/class/hwmon/hwmon%d/name", i/75)
		write("61000", "sys/class/hwmon/hwmon%d/temp%d_input", i/75, i%75)
	}
	for i := range 30 {
		write("9000", "sys/class/hwmon/hwmon2/fan%d_input", i)
		write("1200", "sys/class/hwmon/hwmon2/in%d_input", i)
	}
	for i := range 400 {
		for _, file := range []string{"correctable", "nonfatal", "fatal"} {
			write("RxErr 0\nBadTLP 0\nBadDLLP 0\nRollover 0\nTimeout 0\nNonFatalErr 0\nCorrIntErr 0\nHeaderOF 0\nTOTAL_ERR_COR 0\nTOTAL_ERR_FATAL 0\nTOTAL_ERR_NONFATAL 0", "sys/bus/pci/devices/0000:%02x:%02x.0/aer_dev_%s", i/32, i%32, file)
		}
	}
	for i := range 32 {
		for _, file := range []string{"ce", "ue"} {
			write("0", "sys/devices/system/edac/mc/mc%d/dimm%d/dimm_%s_count", i/8, i%8, file)
		}
	}
	for i := range 24 {
		write("1 2 3 4 5 6 7 8 9 10 11", "sys/block/sd%c/stat", 'a'+i)
		write("0x0", "sys/block/sd%c/device/ioerr_cnt", 'a'+i)
	}
	for i := range 8 {
		for _, file := range []string{"rx_errors", "tx_errors", "rx_bytes", "tx_bytes"} {
			write("0", "sys/class/net/eth%d/statistics/%s", i, file)
		}
		write("2", "sys/class/net/eth%d/carrier_changes", i)
		write("PCI_SLOT_NAME=0000:00:00.0", "sys/class/net/eth%d/device/uevent", i)
	}
	return root
}

// cpuTime is what this process has used until now.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// At a sample each second the watcher costs at most a hundredth of one processor, on a big machine too: a hundred samples at most one second of processor time.
func TestWatchCost(t *testing.T) {
	root := os.DirFS(bigMachine(t))
	w := &watch{host: steps.Host{Machine: inspect.Machine{FS: root}}, before: counters(root, places{}), started: time.Now(), every: time.Second, said: map[key][]string{}, hot: map[key]int64{}, tracks: map[trackKey]*track{}}
	var err error
	if w.rules, err = readRules(); err != nil {
		t.Fatal(err)
	}
	w.seen = sample{counts: map[key]int64{}}
	f := newGauges(root)
	defer f.close()
	list, counting := sensors(root, places{}), sources(root, places{})
	const samples = 100
	w.sample(f, counting, false, list)
	before := cpuTime(t)
	for i := range samples {
		w.sample(f, counting, i%10 == 0, list)
		w.snapshot()
	}
	cost := (cpuTime(t) - before) / samples
	t.Logf("%d sensors and %d counters: a sample takes %v of processor time", len(list), len(counting), cost)
	if cost > time.Second/100 {
		t.Errorf("a sample takes %v of processor time, want at most a hundredth of a second", cost)
	}
	if len(list) < 200 || len(counting) < 1500 {
		t.Errorf("%d sensors and %d counters: the machine is not big", len(list), len(counting))
	}
}

// BenchmarkFio is what fio writes and reads back under the watcher, against fio alone, in pairs: make bench-burnin. ROUNDS is how many, SECONDS_EACH how long each.
func BenchmarkFio(b *testing.B) {
	looptest.NeedRoot(b)
	number := func(name string, otherwise int) int {
		n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	rounds, lasts := number("ROUNDS", 5), time.Duration(number("SECONDS_EACH", 10))*time.Second
	const size = 256 << 20
	disk, _ := looptest.New(b, size, 512)
	h := steps.Host{Machine: inspect.Local(), Tools: tool.Exec{}, Log: slog.New(slog.DiscardHandler), Say: func(string, ...any) {}}
	var report []byte
	fio := func(ctx context.Context) (parts []Part, err error) {
		report, err = h.Tools.Run(ctx, tool.Fio, diskArgs(disk, size, 1, lasts)...)
		return nil, err
	}
	rate := func() float64 {
		var r struct {
			Jobs []struct {
				Read, Write struct {
					Bytes   float64 `json:"io_bytes"`
					Runtime float64 `json:"runtime"`
				}
			}
		}
		if err := json.Unmarshal(report, &r); err != nil || len(r.Jobs) != 1 {
			b.Fatalf("%v: %s", err, report)
		}
		j := r.Jobs[0]
		return (j.Read.Bytes + j.Write.Bytes) / max(j.Write.Runtime, j.Read.Runtime) * 1000 / (1 << 20)
	}
	var ratios, costs []float64
	for i := range rounds {
		var alone, watched float64
		for _, under := range []bool{i%2 == 0, i%2 != 0} { // either comes first as often
			if !under {
				if _, err := fio(b.Context()); err != nil {
					b.Fatal(err)
				}
				alone = rate()
				continue
			}
			before, began := cpuTime(b), time.Now()
			if _, err := observe(b.Context(), h, load{text: "fio", run: fio}, time.Second, func(time.Duration, Snapshot) {}); err != nil {
				b.Fatal(err)
			}
			costs = append(costs, float64(cpuTime(b)-before)/float64(time.Since(began))*100)
			watched = rate()
		}
		ratios = append(ratios, watched/alone)
		b.Logf("alone %.0f MiB/s, watched %.0f MiB/s, ratio %.3f, watcher %.2f %% of a processor", alone, watched, watched/alone, costs[len(costs)-1])
	}
	slices.Sort(ratios)
	slices.Sort(costs)
	b.ReportMetric(median(ratios), "watched/alone")
	b.ReportMetric(ratios[0], "lowest")
	b.ReportMetric(ratios[len(ratios)-1], "highest")
	b.ReportMetric(median(costs), "%cpu")
}
