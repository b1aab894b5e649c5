// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ironhand/ironhand/inspect"
)

// series is one of points over seconds; value says what is measured at a second.
func series(kind, name, unit string, seconds int, value func(second float64) float64) Series {
	s := Series{Kind: kind, Name: name, Unit: unit}
	for i := 0; i < seconds; i += 10 {
		v := value(float64(i))
		s.Points = append(s.Points, Point{Second: float64(i), Min: v - 1, Mean: v, Max: v + 1})
	}
	return s
}

// measured is what a run with all kinds of series has found; a disk is broken.
func measured() Result {
	r := found(Fail)
	r.Machine = &Machine{Manufacturer: "Maker", Product: "Model 1", Serial: "M1", Processor: "CPU", Sockets: 2, MemoryMB: 65536, Disks: []MachineDisk{{Name: "/dev/sda", Model: "M", Serial: "S1", Size: 1 << 40}}}
	r.Baseline = []Part{{Name: "/dev/sda M serial S1", Reasons: []string{"throughput of a disk M is 80 MiB/s, 160 is the median of 4 others"}}}
	warm := func(start, most float64) func(float64) float64 {
		return func(second float64) float64 { return start + (most-start)*(1-math.Exp(-second/40)) }
	}
	for i := range 9 {
		r.Loads[0].Series = append(r.Loads[0].Series, series("temperature", fmt.Sprintf("hwmon0 coretemp Core %d", i), "°C", 120, warm(35, 60+float64(i))))
	}
	r.Loads[0].Series = append(r.Loads[0].Series, series("frequency", "processor in socket 0 (CPU1 in the firmware's order)", "MHz", 120, warm(3500, 2800)),
		series("power", "package-0", "W", 120, warm(40, 180)), series("fan", "hwmon1 nct6779 fan1", "RPM", 120, warm(2000, 9000)), series("voltage", "hwmon1 nct6779 in0", "V", 120, warm(1.2, 1.19)))
	r.Loads[0].Rates = map[string]Rate{"processors cpu": {Value: 1234.5, Unit: "bogo-ops/s"}}
	r.Loads[0].Counters = []Counter{{Part: "DIMM_A1 (mc0 dimm0)", Kind: "corrected memory errors", Count: 1}}
	r.Loads[1].Series = []Series{series("throughput", "/dev/sda", "MiB/s", 120, warm(180, 90)), series("errors", "/dev/sda: media errors", "", 120, func(s float64) float64 { return math.Floor(s / 30) })}
	return r
}

func machineOf(serial string) (i inspect.Inventory) {
	i.Hostname = "machine"
	i.SystemVendor = inspect.SystemVendor{Manufacturer: "Maker", ProductName: "Model 1", SerialNumber: serial}
	i.CPU.SocketCount, i.CPU.Count, i.CPU.ModelName = 2, 64, "CPU"
	i.Memory.Total = 64 << 30
	i.Memory.Modules = []inspect.MemoryModule{{Slot: "DIMM_A1", Size: 32 << 30, Kind: "DDR5", Manufacturer: "Maker of memory", Serial: "D1"}, {Slot: "DIMM_A2"}}
	i.Disks = []inspect.Disk{{Name: "/dev/sda", Serial: "S1", Model: "M", Size: 1 << 40, Bay: "3"}}
	i.Interfaces = []inspect.NIC{{Name: "eth0", MACAddress: "52:54:00:00:00:01", HasCarrier: true, LinkMbps: 10000, PCIAddress: "0000:02:00.0"}}
	return i
}

// wellFormed fails unless the page is XML, so that nothing of it is read otherwise by one browser than by another, and returns what elements it has.
func wellFormed(t *testing.T, page []byte) map[string]int {
	t.Helper()
	elements := map[string]int{}
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Entity = map[string]string{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return elements
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
		if start, is := token.(xml.StartElement); is {
			elements[start.Name.Local]++
			for _, a := range start.Attr {
				if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" || a.Name.Local == "src" {
					t.Errorf("%s has %s=%q", start.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
}

func TestBurnInPage(t *testing.T) {
	for _, test := range []struct {
		name     string
		result   Result
		problems error
	}{
		{"fail", measured(), nil},
		{"nothing-measured", found(Skipped), errors.New("read sys/firmware/dmi: permission denied")},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := reportPage("VERSION", test.result, machineOf("M1"), test.problems)
			elements := wellFormed(t, got)
			for _, bad := range []string{"script", "iframe", "img", "link", "object", "base"} {
				if elements[bad] > 0 {
					t.Errorf("the page has %d %s", elements[bad], bad)
				}
			}
			golden := filepath.Join("testdata", "burnin-"+test.name+".html")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("the page is not that of %s (%v); with -update it is written", golden, err)
			}
		})
	}
	page := string(reportPage("VERSION", measured(), machineOf("M1"), nil))
	// The verdict comes first, then what failed, then all parts, the plots, and the machine.
	last := 0
	for _, part := range []string{"<b>FAIL</b>", "What failed", "All parts", "Compared with other runs", "Over the time", "Errors that were counted", "Temperatures, °C", "Frequency of the processors, MHz", "Throughput of disks and interfaces, MiB/s",
		"Power, W", "Fans, RPM", "Voltages, V", "The machine", "DIMM_A1", "bay 3", "How to read this"} {
		at := strings.Index(page[last:], part)
		if at < 0 {
			t.Errorf("%q does not come after what stands before it", part)
			continue
		}
		last += at
	}
	if !strings.Contains(page, "Drawn are the 7 highest of 9") || strings.Count(page, "<svg") != 7 {
		t.Errorf("%d plots, want 7, one of them of a part of the sensors", strings.Count(page, "<svg"))
	}
}

// Names that devices have, and texts of logs, are shown as they are, and nothing else.
func TestBurnInPageHostile(t *testing.T) {
	const hostile = "</title></style></svg><script>alert(1)</script>\" onload='x' &lt; \x00\u202e\xff"
	r := found(Fail)
	r.Profile, r.Problems = hostile, []string{hostile}
	r.Baseline = []Part{{Name: hostile, Verdict: Verdict(hostile), Reasons: []string{hostile}}}
	r.Loads[0].Load = hostile
	r.Loads[0].Parts = []Part{{Name: hostile, Verdict: Fail, Reasons: []string{hostile, hostile}}}
	for _, kind := range []string{"temperature", "frequency", "throughput", "power", "fan", "voltage", "errors"} {
		r.Loads[0].Series = append(r.Loads[0].Series, series(kind, hostile, hostile, 100, func(s float64) float64 { return s }))
	}
	i := machineOf(hostile)
	i.SystemVendor.ProductName, i.CPU.ModelName, i.Memory.Modules[0].Part = hostile, hostile, hostile
	i.Disks[0].Model, i.Interfaces[0].Driver, i.BMCAddress = hostile, hostile, hostile
	page := reportPage("VERSION", r, i, errors.New(hostile))
	if elements := wellFormed(t, page); elements["script"] > 0 || elements["title"] != 1 || elements["svg"] != 7 {
		t.Errorf("elements: %v", elements)
	}
	if bytes.ContainsAny(page, "\x00\u202e") || bytes.Contains(page, []byte("\xff")) {
		t.Error("the page has what does not print")
	}
}

// However odd the numbers are, a plot is drawn, with bounded coordinates.
func TestPlotNumbers(t *testing.T) {
	for _, test := range []struct {
		name   string
		points []Point
	}{
		{"one point", []Point{{Second: 1, Min: 1, Mean: 1, Max: 1}}},
		{"all zero", []Point{{}, {Second: 5}}},
		{"below zero", []Point{{Min: -40, Mean: -40, Max: -40}, {Second: 5, Min: -50, Mean: -45, Max: -40}}},
		{"huge", []Point{{Min: 1, Mean: 1, Max: 1}, {Second: 5, Min: 1e300, Mean: 1e300, Max: 1e300}}},
		{"tiny", []Point{{Min: 1e-300, Mean: 1e-300, Max: 1e-300}, {Second: 5}}},
		{"after the end", []Point{{Second: 1e12, Min: 1, Mean: 2, Max: 3}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := found(Pass)
			r.Loads[0].Series = []Series{{Kind: "temperature", Name: "n", Unit: "°C", Points: test.points}}
			done := make(chan []byte)
			go func() { done <- reportPage("VERSION", r, inspect.Inventory{}, nil) }()
			select {
			case page := <-done:
				if wellFormed(t, page)["svg"] != 1 || bytes.Contains(page, []byte("NaN")) || bytes.Contains(page, []byte("Inf")) || len(page) > 40<<10 {
					t.Errorf("the page, of %d bytes:\n%.2000s", len(page), page)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it takes for ever")
			}
		})
	}
}

// results.json is as docs/burn-in.schema.json says, which knows all of its keys.
func TestResultsFitSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../docs/burn-in.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(text string) error {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(doc)
	}
	for name, r := range map[string]Result{"measured": measured(), "found": found(Pass)} {
		for i := range r.Loads { // as a run makes them
			if r.Loads[i].Counters == nil {
				r.Loads[i].Counters = []Counter{}
			}
			if r.Loads[i].Rates == nil {
				r.Loads[i].Rates = map[string]Rate{}
			}
			if r.Loads[i].Series == nil {
				r.Loads[i].Series = []Series{}
			}
		}
		if r.Baseline == nil {
			r.Baseline = []Part{}
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(string(b)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, change := range [][2]string{{`"profile":`, `"profiles":`}, {`"verdict":"PASS"`, `"verdict":"GOOD"`}, {`"loads":[`, `"loads":[{},`}, {`"reasons":[]`, `"reasons":null`}, {`"problems":[]`, `"problems":[1]`}} {
			if bad := strings.Replace(string(b), change[0], change[1], 1); bad != string(b) && check(bad) == nil {
				t.Errorf("%s: with %s it fits the schema", name, change[1])
			}
		}
	}
	b, err := json.Marshal(measured().Loads[0].Series[0].Points[:2])
	if err != nil || string(b) != "[[0,34,35,36],[10,39.53,40.53,41.53]]" {
		t.Errorf("points: %s, %v", b, err)
	}
}

// A browser draws the page, where there is one.
func TestBurnInPageInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no Chromium")
	}
	dir := t.TempDir()
	page, picture := filepath.Join(dir, "report.html"), filepath.Join(dir, "report.pdf")
	if err := os.WriteFile(page, reportPage("VERSION", measured(), machineOf("M1"), nil), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+dir, "--print-to-pdf="+picture, "file://"+page).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if b, err := os.ReadFile(picture); err != nil || !bytes.HasPrefix(b, []byte("%PDF")) || len(b) < 20<<10 {
		t.Errorf("the page prints as %d bytes, %v", len(b), err)
	}
}
