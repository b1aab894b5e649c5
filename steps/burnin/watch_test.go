// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/ipmi"
)

// A series keeps the lowest, the mean and the highest of all samples, however many come, in bounded memory.
func TestTrack(t *testing.T) {
	for _, samples := range []int{1, mostPoints, mostPoints + 1, 3 * mostPoints, 7 * 86400} {
		t.Run(fmt.Sprint(samples), func(t *testing.T) {
			var tr track
			for i := range samples {
				v := float64(i % 10)
				tr.add(float64(i), v-1, v, v+1)
			}
			tr.add(1e9, math.NaN(), 1, 2)
			n := len(tr.Points)
			if n > mostPoints || samples > mostPoints && n < mostPoints/2 || cap(tr.Points) > 2*mostPoints {
				t.Errorf("%d points, room for %d, want %d to %d", n, cap(tr.Points), mostPoints/2, mostPoints)
			}
			sum, weight := 0.0, 0.0
			low, high := math.Inf(1), math.Inf(-1)
			for i, p := range tr.Points {
				low, high = min(low, p.Min), max(high, p.Max)
				w := float64(tr.width)
				if i == n-1 {
					w = float64(tr.in)
				}
				sum, weight = sum+p.Mean*w, weight+w
				if p.Second != float64(i*tr.width) {
					t.Fatalf("point %d is of second %v, want %d", i, p.Second, i*tr.width)
				}
			}
			wantMean, wantHigh := 0.0, 0.0
			for i := range samples {
				wantMean += float64(i%10) / float64(samples)
				wantHigh = max(wantHigh, float64(i%10)+1)
			}
			if weight != float64(samples) || math.Abs(sum/weight-wantMean) > 1e-6 || low != -1 || high != wantHigh {
				t.Errorf("of %v samples: %v to %v, mean %v; want -1 to %v, mean %v", weight, low, high, sum/weight, wantHigh, wantMean)
			}
		})
	}
}

func TestPointJSON(t *testing.T) {
	b, err := json.Marshal(Point{0.5, 1, 2.00049, -3})
	if err != nil || string(b) != "[0.5,1,2,-3]" {
		t.Errorf("Marshal() = %s, %v", b, err)
	}
	var p Point
	if err := json.Unmarshal(b, &p); err != nil || p != (Point{0.5, 1, 2, -3}) {
		t.Errorf("Unmarshal() = %v, %v", p, err)
	}
	for _, bad := range []string{"[1,2,3]", `"a"`, "[1,2,3,4,5]"} {
		if json.Unmarshal([]byte(bad), &p) == nil {
			t.Errorf("%s is a point", bad)
		}
	}
	if got := len(Thin(make([]Point, 1001), 16)); got > 16 || got < 8 {
		t.Errorf("%d points, want 8 to 16", got)
	}
}

// sensed is a machine with sensors of all kinds. load is 0 to 1.
func sensed(load float64) fstest.MapFS {
	n := func(f float64) string { return fmt.Sprintf("%.0f\n", f) }
	return tree(
		"sys/class/hwmon/hwmon0/name", "coretemp\n",
		"sys/class/hwmon/hwmon0/temp1_input", n(40000+50000*load),
		"sys/class/hwmon/hwmon0/temp1_label", "Package id 0\n",
		"sys/class/hwmon/hwmon0/temp1_crit", "90000\n",
		"sys/class/hwmon/hwmon1/name", "nct6779\n",
		"sys/class/hwmon/hwmon1/fan1_input", n(1000+500*load),
		"sys/class/hwmon/hwmon1/in0_input", "1200\n",
		"sys/class/hwmon/hwmon1/power1_average", n(100e6+100e6*load),
		"sys/class/hwmon/hwmon1/temp9_input", "\xff\n",
		"sys/class/hwmon/hwmon2/name", "drivetemp\n",
		"sys/class/hwmon/hwmon2/temp1_input", "31000\n",
		"sys/class/hwmon/hwmon2/device/block/sda/size", "1\n",
		"sys/class/powercap/intel-rapl:0/name", "package-0\n",
		"sys/class/powercap/intel-rapl:0/energy_uj", n(7e6+1e8*load),
		"sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2000000\n",
		"sys/devices/system/cpu/cpu1/topology/physical_package_id", "0\n",
		"sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "3000000\n",
		"sys/block/sda/device/model", "M\n",
		"sys/block/sda/stat", fmt.Sprintf("1 2 %.0f 4 5 6 %.0f 8\n", 1000+2048*load, 5+2048*load),
		"sys/block/loop0/stat", "1 2 3 4 5 6 7 8\n",
		"sys/class/net/eth0/device/uevent", "PCI_SLOT_NAME=0000:02:00.0\n",
		"sys/class/net/eth0/statistics/rx_bytes", "0\n",
		"sys/class/net/eth0/statistics/tx_bytes", n(5+1048576*load),
		"sys/class/net/eth0/carrier_changes", "0\n",
		"sys/bus/pci/slots/3/address", "0000:02:00\n",
	)
}

// A run with the fake machine in which load and errors come: what was measured, and the verdicts.
func TestWatch(t *testing.T) {
	for _, test := range []struct {
		name   string
		every  time.Duration
		during func(b *bench) // after 30 seconds
		want   string         // parts, counters
		series string         // kinds and names
		more   []string       // name of a series, its number of points, lowest and highest
	}{
		{name: "load", series: "fan hwmon1 nct6779 fan1|frequency processor in socket 0|power hwmon1 nct6779 power1|power package-0|temperature hwmon0 coretemp Package id 0|temperature hwmon2 drivetemp temp1 of sda|" +
			"throughput /dev/sda|throughput eth0 (0000:02:00.0, slot 3) sends|voltage hwmon1 nct6779 in0",
			during: func(b *bench) {
				for name, f := range sensed(0.5) {
					b.root[name] = f
				}
			}, more: []string{"processor in socket 0: 61 points, 2000 to 3000, mean 2500", "hwmon0 coretemp Package id 0: 61 points, 40 to 65, mean 52.7", "hwmon2 drivetemp temp1 of sda: 7 points, 31 to 31, mean 31",
				"/dev/sda: 60 points, 0 to 1, mean 0.01667", "hwmon1 nct6779 power1: 61 points, 100 to 150, mean 125.4"}},
		{name: "seldom", every: 20 * time.Second, during: func(*bench) {}, series: "fan hwmon1 nct6779 fan1|frequency processor in socket 0|power hwmon1 nct6779 power1|temperature hwmon0 coretemp Package id 0|" +
			"temperature hwmon2 drivetemp temp1 of sda|voltage hwmon1 nct6779 in0", more: []string{"processor in socket 0: 4 points, 2000 to 3000, mean 2500"}},
		{name: "errors, and heat", during: func(b *bench) {
			b.root["sys/class/net/eth0/carrier_changes"] = &fstest.MapFile{Data: []byte("3\n")}
			b.root["sys/class/hwmon/hwmon0/temp1_input"] = &fstest.MapFile{Data: []byte("95000\n")}
		}, want: "FAIL|eth0 (0000:02:00.0, slot 3)|3 changes of the link\nFAIL|hwmon0 coretemp Package id 0|31 samples at the sensor's critical temperature\n" +
			"eth0 (0000:02:00.0, slot 3) changes of the link 3, hwmon0 coretemp Package id 0 samples at the sensor's critical temperature 31",
			more: []string{"eth0 (0000:02:00.0, slot 3): changes of the link: 33 points, 0 to 3, mean 2.909", "hwmon0 coretemp Package id 0: samples at the sensor's critical temperature: 33 points, 0 to 31, mean 15.97"}},
		{name: "a sensor that vanishes", during: func(b *bench) { delete(b.root, "sys/class/hwmon/hwmon0/temp1_input") }, more: []string{"hwmon0 coretemp Package id 0: 30 points, 40 to 40, mean 40"}},
		{name: "the disk vanishes", during: func(b *bench) {
			for name := range maps.Clone(b.root) {
				if strings.HasPrefix(name, "sys/block/sda") {
					delete(b.root, name)
				}
			}
		}, want: "FAIL|/dev/sda|1 devices that vanished\n/dev/sda devices that vanished 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: sensed(0)}
				var shots []Snapshot
				w, err := startWatch(t.Context(), b.host(nil), test.every, func(s Snapshot) { shots = append(shots, s) })
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(29500 * time.Millisecond)
				b.mu.Lock()
				test.during(b)
				b.mu.Unlock()
				time.Sleep(31 * time.Second)
				parts, counted, series := w.end(t.Context())
				got := lines(parts)
				for i, c := range counted {
					if i > 0 {
						got += ", "
					}
					got += fmt.Sprintf("%s %s %d", c.Part, c.Kind, c.Count)
				}
				if got != test.want {
					t.Errorf("found:\n%s\nwant:\n%s", got, test.want)
				}
				var names []string
				figures := map[string]string{}
				for _, s := range series {
					names = append(names, s.Kind+" "+s.Name)
					low := math.Inf(1)
					for _, p := range s.Points {
						low = min(low, p.Min)
					}
					figures[s.Name] = fmt.Sprintf("%s: %d points, %.4g to %.4g, mean %.4g", s.Name, len(s.Points), low, s.Max(), s.Mean())
				}
				if got := strings.Join(names, "|"); test.series != "" && got != test.series {
					t.Errorf("series:\n%s\nwant:\n%s", got, test.series)
				}
				for _, want := range test.more {
					name := want[:strings.LastIndex(want, ": ")]
					if got := figures[name]; got != want {
						t.Errorf("series %s, want %s", got, want)
					}
				}
				last := shots[len(shots)-1]
				if last.Celsius["hwmon2 drivetemp temp1 of sda"] != 31 || last.MHz["processor in socket 0"] != 2500 || last.RPM["hwmon1 nct6779 fan1"] < 1000 || last.Watts["hwmon1 nct6779 power1"] < 100 {
					t.Errorf("the last snapshot is %+v", last)
				}
				if fails := strings.Contains(test.want, "changes of the link"); fails != (len(last.Findings) > 0) {
					t.Errorf("findings of the last snapshot: %v", last.Findings)
				}
			})
		})
	}
}

// More sensors than are watched are left out, and that is told.
func TestWatchBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{root: fstest.MapFS{}}
		for i := range 3 * mostSeries {
			b.root[fmt.Sprintf("sys/class/hwmon/hwmon%d/temp1_input", i)] = &fstest.MapFile{Data: []byte("1000")}
		}
		w, err := startWatch(t.Context(), b.host(nil), 0, func(Snapshot) {})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if _, _, series := w.end(t.Context()); len(series) != mostSeries || len(series[0].Points) > mostPoints {
			t.Errorf("%d series of %d points", len(series), len(series[0].Points))
		}
		if !strings.Contains(b.said.String(), "of 1200 sensors the first 400 are watched") {
			t.Errorf("said: %s", b.said.String())
		}
	})
}

// fakeBMC has a log, whose entries have the numbers 1, 2 and so on.
type fakeBMC struct {
	entries [][16]byte
	erased  uint32
	watts   int
	rpm     byte // hundreds, of FAN 1; 0: there are no sensors
	hangs   bool
}

func (f *fakeBMC) add(kind, sensor, number, reading, data byte) {
	var e [16]byte
	binary.LittleEndian.PutUint16(e[:], uint16(len(f.entries)+1))
	e[2], e[10], e[11], e[12], e[13] = kind, sensor, number, reading, data
	f.entries = append(f.entries, e)
}

func (f *fakeBMC) ask(ctx context.Context, question string) ([]byte, error) {
	text, is := strings.CutPrefix(question, "ipmi/")
	if !is {
		return nil, fs.ErrNotExist
	}
	if f.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	q, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	switch {
	case q[0] == 0x0a && q[1] == 0x40:
		b := make([]byte, 15)
		b[1] = 0x51
		binary.LittleEndian.PutUint16(b[2:], uint16(len(f.entries)))
		binary.LittleEndian.PutUint32(b[6:], uint32(len(f.entries)))
		binary.LittleEndian.PutUint32(b[10:], f.erased)
		return b, nil
	case q[0] == 0x0a && q[1] == 0x43:
		id := int(q[4]) | int(q[5])<<8
		if id == 0xffff {
			id = len(f.entries)
		}
		if id == 0 {
			id = 1
		}
		if id > len(f.entries) {
			return []byte{0xcb}, nil
		}
		b := []byte{0, 0xff, 0xff}
		if id < len(f.entries) {
			binary.LittleEndian.PutUint16(b[1:], uint16(id+1))
		}
		return append(b, f.entries[id-1][:]...), nil
	case q[0] == 0x2c && f.watts > 0:
		b := make([]byte, 19)
		b[1], b[2], b[3], b[18] = 0xdc, byte(f.watts), byte(f.watts>>8), 0x40
		return b, nil
	case q[0] == 0x0a && q[1] == 0x23 && f.rpm > 0: // its sensors, of which two are of one name
		record := make([]byte, 53)
		copy(record, []byte{q[4], 0, 0x51, 1, 48, 0x20, 0, 7 + q[4]})
		record[21], record[24], record[47] = 18, 100, 0xc5
		copy(record[48:], "FAN 1")
		next := []byte{1, 0}
		if q[4] == 1 {
			next = []byte{0xff, 0xff}
		}
		return append(append([]byte{0}, next...), record[q[6]:][:q[7]]...), nil
	case q[0] == 0x04 && q[1] == 0x2d && f.rpm > 0:
		return []byte{0, f.rpm + q[2] - 7, 0xc0}, nil
	}
	return []byte{0xc1}, nil
}

// What the BMC's sensors measure is kept over the time, each by its own name.
func TestWatchBMCSensors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeBMC{rpm: 29}
		b := &bench{root: tree("sys/class/ipmi/ipmi0/uevent", "")}
		h := b.host(nil)
		h.Machine = inspect.Machine{FS: b, Ask: f.ask}
		var last Snapshot
		w, err := startWatch(t.Context(), h, 0, func(s Snapshot) { last = s })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Second)
		f.rpm = 31
		time.Sleep(60 * time.Second)
		_, _, series := w.end(t.Context())
		var got []string
		for _, s := range series {
			got = append(got, fmt.Sprint(s.Kind, " ", s.Name, " ", s.Unit, " ", len(s.Points), " ", s.Points[0].Mean, " ", s.Max()))
		}
		if want := "fan FAN 1 (sensor 7), by the BMC RPM 9 2900 3100\nfan FAN 1 (sensor 8), by the BMC RPM 9 3000 3200"; strings.Join(got, "\n") != want {
			t.Errorf("series:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
		}
		if last.RPM["FAN 1 (sensor 8), by the BMC"] != 3200 {
			t.Errorf("snapshot: %v", last.RPM)
		}
	})
}

// What comes into the BMC's log while a load runs is a finding; what was there is none.
func TestWatchBMC(t *testing.T) {
	for _, test := range []struct {
		name   string
		before int // entries
		during func(*fakeBMC)
		want   string
		said   string
	}{
		{name: "nothing new", before: 3, during: func(*fakeBMC) {}},
		{name: "an empty log", during: func(*fakeBMC) {}},
		{name: "the first", during: func(f *fakeBMC) { f.add(2, 0x0c, 7, 0x6f, 0x21) }, want: "FAIL|memory, by the BMC's sensor 7|1 events of broken hardware in the BMC's log, the first: a memory error that was not corrected\n"},
		{name: "a fan, and somebody opens the case", before: 2, during: func(f *fakeBMC) {
			f.add(2, 0x04, 1, 0x01, 0x52)
			f.add(2, 0x05, 9, 0x6f, 0)
			f.add(2, 0x05, 9, 0xef, 0) // and closes it
			f.add(0xc0, 1, 2, 3, 4)    // a vendor's
		}, want: "|BMC's sensor 9|1 events in the BMC's log, the first: sensor of type 0x05, event type 0x6f, offset 0\nFAIL|fan, by the BMC's sensor 1|1 events of broken hardware in the BMC's log, the first: a fan is too slow\n"},
		{name: "the log is erased, and goes on", before: 5, during: func(f *fakeBMC) {
			f.entries, f.erased = nil, 1
			f.add(2, 0x07, 1, 0x6f, 0)
		}, want: "FAIL|processor, by the BMC's sensor 1|1 events of broken hardware in the BMC's log, the first: IERR\n"},
		{name: "a flood", during: func(f *fakeBMC) {
			for range 1000 {
				f.add(2, 0x13, 1, 0x6f, 5)
			}
		}, want: "FAIL|PCI, by the BMC's sensor 1|100 events of broken hardware in the BMC's log, the first: SERR\n"},
		{name: "a corrected memory error", during: func(f *fakeBMC) { f.add(2, 0x0c, 7, 0x6f, 0) }, want: "|memory, by the BMC's sensor 7|1 events in the BMC's log, the first: a memory error that was corrected\n"},
		{name: "a BMC that hangs", during: func(f *fakeBMC) { f.hangs = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeBMC{watts: 321}
				for range test.before {
					f.add(2, 0x0c, 7, 0x6f, 0x21)
				}
				b := &bench{root: tree("sys/class/ipmi/ipmi0/uevent", "")}
				h := b.host(nil)
				h.Machine = inspect.Machine{FS: b, Ask: f.ask}
				w, err := startWatch(t.Context(), h, 0, func(Snapshot) {})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(25 * time.Second)
				test.during(f)
				time.Sleep(60 * time.Second)
				parts, _, series := w.end(t.Context())
				if got := lines(parts); got != test.want {
					t.Errorf("found:\n%s\nwant:\n%s", got, test.want)
				}
				if len(series) == 0 || series[len(series)-1].Max() != 321 {
					t.Errorf("series: %v", series)
				}
			})
		})
	}
}

// fitsSchema fails the test unless a result is as docs/burn-in.schema.json says.
func fitsSchema(t *testing.T, r Result) {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../../docs/burn-in.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Error(err)
	}
}

// A name of the board is taken only where it is certain.
func TestPlaces(t *testing.T) {
	p := places{inspect.Places{Modules: []inspect.MemoryModule{{Slot: "DIMM A1", Bank: "P0 CHANNEL A", Serial: "123"}, {Slot: "DIMM B1", Bank: "P0 CHANNEL B", Serial: "456"}, {Slot: "X", Serial: "1"}, {Slot: "x", Serial: "2"}, {Slot: "__"}},
		Sockets: []string{"CPU1", "CPU2"}, Slots: map[string]string{"0000:3b:00": "7"}}}
	one := places{inspect.Places{Sockets: []string{"U3E1"}}}
	for _, test := range []struct{ name, got, want string }{
		{"slot", p.dimm("DIMM_A1", "mc0 dimm0"), "DIMM_A1 serial 123 (mc0 dimm0)"},
		{"bank and slot, as ghes_edac has it", p.dimm("P0 CHANNEL B DIMM B1", "mc0 dimm1"), "P0 CHANNEL B DIMM B1 serial 456 (mc0 dimm1)"},
		{"a driver's own label", p.dimm("CPU_SrcID#0_MC#0_Chan#0_DIMM#0", "mc0 dimm0"), "CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (mc0 dimm0)"},
		{"two of a name", p.dimm("x", "mc0 dimm0"), "x (mc0 dimm0)"},
		{"no letters", p.dimm("--", "mc0 dimm0"), "-- (mc0 dimm0)"},
		{"no label", p.dimm("", "mc0 dimm0"), "mc0 dimm0"},
		{"one socket", one.processor("0"), "processor in socket 0 (U3E1)"},
		{"of two", p.processor("1"), "processor in socket 1 (CPU2 in the firmware's order)"},
		{"more than the firmware has", p.processor("2"), "processor in socket 2"},
		{"no number", p.processor("x"), "processor in socket x"},
		{"slot of a card", p.slot("0000:3b:00.1"), "0000:3b:00.1, slot 7"},
		{"on the board", p.slot("0000:00:1f.6"), "0000:00:1f.6"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, want %s", test.name, test.got, test.want)
		}
	}
}

func TestParseRules(t *testing.T) {
	const good = "counters:\n- {counter: a, fail: 1, source: s, why: w}\n"
	for _, test := range []struct{ name, yaml, want string }{
		{"good", good, ""},
		{"an unknown key", good + "more: 1\n", "field more not found"},
		{"no limit", "counters:\n- {counter: a, source: s, why: w}\n", `counter "a": want told`},
		{"fails before it is told", "counters:\n- {counter: a, told: 5, fail: 1, source: s, why: w}\n", "want told"},
		{"no source", "counters:\n- {counter: a, fail: 1, why: w}\n", "a source"},
		{"twice", good + "- {counter: a, fail: 1, source: s, why: w}\n", "twice"},
		{"no expression", "messages:\n- {pattern: '(', part: p, means: m, source: s}\n", "missing closing"},
		{"no meaning", "messages:\n- {pattern: a, part: p, source: s}\n", "a meaning"},
		{"an event of nothing", "events:\n- {sensor: 300}\n", "cannot unmarshal"},
		{"an event without a part", "events:\n- {sensor: 3, means: m}\n", "a part"},
		{"no direction", "baseline:\n- {metric: m, ratio: 0.5, deviations: 1, why: w}\n", "what is worse"},
		{"a ratio above one", "baseline:\n- {metric: m, worse: lower, ratio: 1.5, deviations: 1, why: w}\n", "a limit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := parseRules([]byte(test.yaml)); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("parseRules() = %v, want %q", err, test.want)
			}
		})
	}
	r, err := readRules()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []kind{corrected, uncorrected, machineCheck, throttled, busCorrected, busNonfatal, busFatal, nicErrors, linkChanges, diskErrors, mediaErrors, reallocated, diskFailing, kernelMessage, kernelRemark,
		bmcFault, bmcEvent, tooHot, gone} {
		if r.counter(k).Counter == "" {
			t.Errorf("%s: there is no rule", k)
		}
	}
	for _, metric := range []string{throughput, work, frequency, temperature, grownErrors} {
		if !strings.Contains(string(rulesFile), "- metric: "+metric+"\n") {
			t.Errorf("%s: there is no rule for comparing", metric)
		}
	}
}

// A disk that does not know a question counts it as a command that failed: that is no finding, a failure of the load is.
func TestWatchOwnQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{root: tree("sys/block/sda/device/vendor", "ATA", "sys/block/sda/device/ioerr_cnt", "0x0")}
		failed, asked := 0, 0
		h := b.host(nil)
		h.Machine = inspect.Machine{FS: b, Ask: func(ctx context.Context, question string) ([]byte, error) {
			asked++
			failed++
			b.change("sys/block/sda/device/ioerr_cnt", fmt.Sprintf("0x%x\n", failed))
			return nil, syscall.EINVAL
		}}
		w, err := startWatch(t.Context(), h, 0, func(Snapshot) {})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Second)
		if parts, _, _ := w.end(t.Context()); len(parts) > 0 || asked < 4 {
			t.Errorf("after %d questions: %v", asked, parts)
		}
		if w, err = startWatch(t.Context(), h, 0, func(Snapshot) {}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90500 * time.Millisecond)
		b.change("sys/block/sda/device/ioerr_cnt", fmt.Sprintf("0x%x\n", failed+3))
		if parts, _, _ := w.end(t.Context()); lines(parts) != "|/dev/sda|3 commands of the disk that failed\n" {
			t.Errorf("three commands of the load failed: %v", parts)
		}
	})
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte("\x00\x51\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"), byte(15))
	f.Fuzz(func(t *testing.T, b []byte, length byte) {
		asked := 0
		send := func(context.Context, ipmi.Request) ([]byte, error) {
			asked++
			n := min(int(length), len(b))
			answer := b[:n]
			if b = b[n:]; len(b) == 0 {
				b = answer
			}
			return answer, nil
		}
		if list, err := ipmi.EventsAfter(t.Context(), send, 1, true); len(list) > 512 || asked > 514 {
			t.Errorf("%d events of %d answers, %v", len(list), asked, err)
		}
		_, _ = ipmi.ReadLog(t.Context(), send)
		_, _ = ipmi.Power(t.Context(), send)
	})
}

// smartPage is SMART data with a number of reallocated sectors.
func smartPage(reallocated byte) []byte {
	b := make([]byte, 512)
	b[2], b[5], b[7] = 5, 100, reallocated // attribute 5, of its 12 bytes value and raw
	for _, c := range b[:511] {
		b[511] -= c
	}
	return b
}

// A disk that tells of its health at one end of the load only: what it does not tell any more is a finding, and errors of before are none.
func TestWatchHealthAtOneEnd(t *testing.T) {
	for _, test := range []struct {
		name    string
		answers func(past time.Duration) bool
		count   func(past time.Duration) byte
		want    string
	}{
		{"always", func(time.Duration) bool { return true }, func(time.Duration) byte { return 8 }, ""},
		{"not any more", func(past time.Duration) bool { return past < 70*time.Second }, func(time.Duration) byte { return 8 },
			"|/dev/sda|1 health logs that could be read before the load, and not after it\n"},
		{"not yet, and has old errors", func(past time.Duration) bool { return past > 0 }, func(time.Duration) byte { return 8 }, ""},
		{"only at the end, and has old errors", func(past time.Duration) bool { return past > 140*time.Second }, func(time.Duration) byte { return 8 }, ""},
		{"not yet, and has new errors", func(past time.Duration) bool { return past > 0 }, func(past time.Duration) byte { return 8 + byte(past/(100*time.Second)) },
			"FAIL|/dev/sda|1 reallocated sectors\n"},
		{"never", func(time.Duration) bool { return false }, func(time.Duration) byte { return 8 }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: tree("sys/block/sda/device/vendor", "ATA")}
				h, began := b.host(nil), time.Now()
				h.Machine = inspect.Machine{FS: b, Ask: func(ctx context.Context, question string) ([]byte, error) {
					past := time.Since(began)
					if question != "disk/sda/ata-smart" || !test.answers(past) {
						return nil, syscall.EIO
					}
					return smartPage(test.count(past)), nil
				}}
				w, err := startWatch(t.Context(), h, 0, func(Snapshot) {})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(150 * time.Second)
				if parts, _, _ := w.end(t.Context()); lines(parts) != test.want {
					t.Errorf("found %q, want %q", lines(parts), test.want)
				}
			})
		})
	}
}

// A stick that is pulled out, or a medium whose BMC ends its session, is no broken part of the machine.
func TestWatchPulled(t *testing.T) {
	for _, test := range []struct{ name, removable, link, want string }{
		{"disk", "0\n", "../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sdb",
			"FAIL|/dev/sdb|1 devices that vanished; 1 kernel messages of broken hardware, the first: I/O error, dev sdb, sector 0 op 0x0:(READ)\n"},
		{"removable", "1\n", "../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sdb", "|/dev/sdb|1 kernel messages of hardware, the first: I/O error, dev sdb, sector 0 op 0x0:(READ)\n"},
		{"on USB", "0\n", "../devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb", "|/dev/sdb|1 kernel messages of hardware, the first: I/O error, dev sdb, sector 0 op 0x0:(READ)\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := strings.Replace(test.link, "..", "sys", 1)
				b := &bench{root: tree(dir+"/device/model", "M\n", dir+"/removable", test.removable)}
				b.root["sys/block/sdb"] = &fstest.MapFile{Data: []byte(test.link), Mode: fs.ModeSymlink}
				w, err := startWatch(t.Context(), b.host(nil), 0, func(Snapshot) {})
				if err != nil {
					t.Fatal(err)
				}
				w.read(t.Context(), strings.NewReader("3,1,1,-;I/O error, dev sdb, sector 0 op 0x0:(READ)\n"))
				b.mu.Lock()
				clear(b.root)
				b.mu.Unlock()
				if parts, _, _ := w.end(t.Context()); lines(parts) != test.want {
					t.Errorf("found %q, want %q", lines(parts), test.want)
				}
			})
		})
	}
}
