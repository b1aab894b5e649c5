// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/inspect"
)

// ran is a run that has measured some figures; errors are how many of a kind were counted.
func ran(rate, mhz, celsius float64, errors int64) Result {
	flat := func(kind, name string, v float64) Series {
		return Series{Kind: kind, Name: name, Points: []Point{{0, v, v, v}, {1, v, v, v}}}
	}
	r := Result{Profile: "quick", Verdict: Pass, Problems: []string{}, Baseline: []Part{},
		Machine: &Machine{Manufacturer: "M", Product: "P", Serial: "S", Processor: "C", Sockets: 1, Disks: []MachineDisk{{Name: "/dev/sda", Model: "ST1000"}}},
		Loads: []Report{
			{Load: "processors", Parts: []Part{{Name: "processors", Verdict: Pass}}, Series: []Series{flat(frequency, "processor in socket 0", mhz), flat(temperature, "hwmon3 coretemp Package id 0", celsius), flat(throughput, "/dev/sda", 1)}},
			{Load: "disks", Parts: []Part{{Name: "/dev/sda ST1000", Verdict: Pass}}, Series: []Series{flat(throughput, "/dev/sda", rate), flat(frequency, "processor in socket 0", 800)}},
		}}
	if errors > 0 {
		r.Loads[1].Counters = []Counter{{"eth0", string(nicErrors), errors}}
	}
	return r
}

// rated is a run whose programs have told their rates.
func rated(cpu, read float64) Result {
	r := ran(150, 3000, 70, 0)
	r.Loads[0].Rates = map[string]Rate{"processors cpu": {cpu, "bogo-ops/s"}, "odd": {1, ""}}
	r.Loads[1].Rates = map[string]Rate{"/dev/sda read": {read, "MB/s"}}
	return r
}

func TestCompare(t *testing.T) {
	same := ran(150, 3000, 70, 0)
	for _, test := range []struct {
		name    string
		run     Result
		others  []Result
		want    string
		verdict Verdict
	}{
		{"itself", same, []Result{same}, "", Pass},
		{"nobody", ran(1, 1, 200, 9), nil, "", Pass},
		{"better", ran(300, 4000, 30, 0), []Result{same}, "", Pass},
		{"within the limits", ran(130, 2800, 79, 0), []Result{same}, "", Pass},
		{"slower disk", ran(120, 3000, 70, 0), []Result{same}, "|/dev/sda ST1000|throughput of a disk ST1000 is 120, 150 in the run that it is compared with\n", Pass},
		{"half as fast", ran(70, 3000, 70, 0), []Result{same}, "FAIL|/dev/sda ST1000|throughput of a disk ST1000 is 70, 150 in the run that it is compared with\n", Fail},
		{"slow, hot and with errors", ran(150, 1000, 85, 3), []Result{same, same}, "|eth0|frames with errors is 3, 0 is the median of 2 others\n" +
			"|hwmon3 coretemp Package id 0|highest temperature of coretemp Package id 0 is 85 °C, 70 is the median of 2 others\n" +
			"FAIL|processor in socket 0|frequency of the processor in socket 0 is 1000, 3000 is the median of 2 others\n", Fail},
		{"as many errors as others", ran(150, 3000, 70, 3), []Result{ran(150, 3000, 70, 3)}, "", Pass},
		{"others scatter little: half of the limit counts", ran(135, 3000, 76, 0), []Result{ran(150, 3000, 70, 0), ran(151, 3000, 70, 0), ran(149, 3000, 70.5, 0), ran(150, 3000, 69.5, 0)},
			"|/dev/sda ST1000|throughput of a disk ST1000 is 135, 150 is the median of 4 others\n|hwmon3 coretemp Package id 0|highest temperature of coretemp Package id 0 is 76 °C, 70 is the median of 4 others\n", Pass},
		{"others scatter much", ran(100, 3000, 76, 0), []Result{ran(150, 3000, 70, 0), ran(170, 3000, 80, 0), ran(130, 3000, 60, 0), ran(160, 3000, 64, 0), ran(140, 3000, 76, 0)}, "", Pass},
		{"one of the others is broken", ran(140, 3000, 70, 0), []Result{same, ran(10, 3000, 200, 0), same, same}, "", Pass},
		{"less work, and a disk that reads slowly", rated(100, 80), []Result{rated(120, 160)}, "|/dev/sda ST1000|read rate of a disk ST1000 is 80 MB/s, 160 in the run that it is compared with\n|processors|rate of cpu is 100 bogo-ops/s, 120 in the run that it is compared with\n", Pass},
		{"hardly any work", rated(10, 160), []Result{rated(120, 160)}, "FAIL|processors|rate of cpu is 10 bogo-ops/s, 120 in the run that it is compared with\n", Fail},
		{"a disk of another model", func() Result {
			r := ran(1, 3000, 70, 0)
			r.Machine.Disks = []MachineDisk{{Name: "/dev/sda", Model: "OTHER"}}
			return r
		}(), []Result{same}, "", Pass},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := test.run
			if err := r.Compare(test.others); err != nil {
				t.Fatal(err)
			}
			if got := lines(r.Baseline); got != test.want || r.Verdict != test.verdict {
				t.Errorf("%s:\n%swant %s:\n%s", r.Verdict, got, test.verdict, test.want)
			}
		})
	}
}

func TestComparable(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Result)
		want   string
	}{
		{"a sister", func(r *Result) { r.Machine.Serial = "OTHER" }, ""},
		{"another model", func(r *Result) { r.Machine.Product = "Q" }, `this run cannot be compared with the one of "S": its model is "Q", here it is "P"`},
		{"another maker", func(r *Result) { r.Machine.Manufacturer = "N" }, "its manufacturer"},
		{"another processor", func(r *Result) { r.Machine.Processor = "D" }, "its processor"},
		{"more sockets", func(r *Result) { r.Machine.Sockets = 2 }, `its number of sockets is "2"`},
		{"another profile", func(r *Result) { r.Profile = "full" }, `its profile is "full", here it is "quick"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			other := ran(1, 1, 1, 0)
			test.change(&other)
			err := ran(1, 1, 1, 0).Machine.Comparable("quick", other)
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || !errors.Is(err, ErrBaseline)) {
				t.Errorf("Comparable() = %v, want %q", err, test.want)
			}
		})
	}
}

func TestParseBaseline(t *testing.T) {
	good, err := json.Marshal(ran(1, 2, 3, 4))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, text, want string }{
		{"results", string(good), ""},
		{"no JSON", "a", "invalid character"},
		{"another JSON", `{"loads": 5}`, "cannot unmarshal"},
		{"nothing", "{}", "say nothing"},
		{"of an older ironhand, without the machine", `{"verdict": "PASS", "loads": [{}]}`, "say nothing of a machine"},
		{"of a broken machine", strings.Replace(string(good), `"verdict":"PASS","problems"`, `"verdict":"FAIL","problems"`, 1), "its machine failed"},
		{"a point that is none", strings.Replace(string(good), "[0,2,2,2]", "[0]", 1), "want 4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := ParseBaseline([]byte(test.text)); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("ParseBaseline() = %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzBaseline(f *testing.F) {
	good, err := json.Marshal(ran(1, 2, 3, 4))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, text []byte) {
		other, err := ParseBaseline(text)
		if err != nil {
			return
		}
		r := ran(100, 3000, 70, 1)
		_ = r.Machine.Comparable("quick", other)
		if err := r.Compare([]Result{other}); err != nil {
			t.Error(err)
		}
	})
}

func TestDescribe(t *testing.T) {
	installed := int64(1024)
	var i inspect.Inventory
	i.SystemVendor = inspect.SystemVendor{Manufacturer: "M", ProductName: "P", SerialNumber: "S"}
	i.CPU.ModelName, i.CPU.SocketCount, i.Memory.PhysicalMB = "C", 2, &installed
	i.Disks = []inspect.Disk{{Name: "/dev/sda", Model: "D", Serial: "1", Size: 5}}
	got := Describe(i)
	want := Machine{"M", "P", "S", "C", 2, 1024, []MachineDisk{{"/dev/sda", "D", "1", 5}}}
	if !slices.Equal(got.Disks, want.Disks) {
		t.Errorf("disks: %v", got.Disks)
	}
	got.Disks, want.Disks = nil, nil
	if a, b := mustJSON(t, got), mustJSON(t, want); a != b {
		t.Errorf("Describe() = %s, want %s", a, b)
	}
	if Describe(inspect.Inventory{}).Disks == nil {
		t.Error("disks are null")
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
