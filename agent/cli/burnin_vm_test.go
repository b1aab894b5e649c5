// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/inspect/ocp/ocptest"
	"github.com/ironhand/ironhand/steps/burnin"
	"github.com/ironhand/ironhand/steps/guesttest"
)

var guest = flag.Bool("guest", false, "run the tests for a virtual machine with disks")

// A burn-in by hand, with the programs of the ramdisk, of a machine with a good disk, one that has sectors which cannot be read, and one that nobody names.
func TestVMBurnInByHand(t *testing.T) {
	vmtest.Require(t)
	const size = 24 << 20
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Machine: vmtest.Machine{MemoryMiB: 1024, Initrds: []string{vmtest.Artefact(t, "initramfs-virtual.cpio"), vmtest.BurnIn(t)}, Disks: []vmtest.Disk{
			{Size: size, Serial: "GOOD"}, {Size: size, Serial: "UNREADABLE", Unreadable: 20000}, {Size: size, Serial: "OTHER"},
		}},
		Args: "-guest -test.run=TestGuestBurnIn$", Timeout: 10 * time.Minute,
	})
}

func TestGuestBurnIn(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMBurnInByHand")
	}
	good, unreadable, other := guesttest.DiskOf(t, "GOOD"), guesttest.DiskOf(t, "UNREADABLE"), guesttest.DiskOf(t, "OTHER")
	bySerial := strings.NewReplacer("/dev/"+good+" serial GOOD", "GOOD", "/dev/"+unreadable+" serial UNREADABLE", "UNREADABLE", "/dev/"+other+" serial OTHER", "OTHER")
	named := strings.NewReplacer("GOOD", "/dev/"+good+" serial GOOD", "UNREADABLE", "/dev/"+unreadable+" serial UNREADABLE", "OTHER", "/dev/"+other+" serial OTHER")
	dir := t.TempDir()
	profile := filepath.Join(dir, "profile.yaml")
	if err := os.WriteFile(profile, []byte("name: seconds\nloads:\n- processors: {time: 5s}\n- memory: {time: 12s, workers: 1, amount: 16M}\n- disks: {time: 12s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	report := func(name string) string { return filepath.Join(dir, name) }
	setUp(t, "lo")
	uploaded := map[string][]byte{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for archive := tar.NewReader(r.Body); ; {
			h, err := archive.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Errorf("what is sent: %v", err)
				break
			}
			if uploaded[h.Name], err = io.ReadAll(archive); err != nil {
				t.Error(err)
			}
		}
		if r.Method != http.MethodPut || r.URL.Path != "/reports/1" {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
	}))
	defer server.Close()
	// scaled makes another run of the one before: so many times as fast, for what virtual machines do in a time differs by more than what makes a real one fail.
	scaled := func(by float64) string {
		b, err := os.ReadFile(filepath.Join(report("answered"), "results.json"))
		var r burnin.Result
		if err != nil || json.Unmarshal(b, &r) != nil {
			t.Fatalf("results.json: %s, %v", b, err)
		}
		for _, l := range r.Loads {
			for name, rate := range l.Rates {
				rate.Value *= by
				l.Rates[name] = rate
			}
			for i := range l.Series { // a disk's throughput, for one
				for j := range l.Series[i].Points {
					l.Series[i].Points[j].Mean *= by
				}
			}
		}
		if b, err = json.Marshal(r); err == nil {
			err = os.WriteFile(report("scaled.json"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return report("scaled.json")
	}
	for _, test := range []struct {
		name, disks, stdin string
		more               []string
		code               int
		want               []string // in what is printed
		verdict            burnin.Verdict
		parts              string
		baseline           float64 // how much faster the run is that it is compared with; 0: it is compared with none
		outlier            string  // in comparison
	}{
		{name: "plan", disks: good, more: []string{"--plan"}, code: exitDone, want: []string{named.Replace("overwrite all of GOOD, 24.0 MiB"), named.Replace("leave OTHER as it is")}},
		{name: "not answered", disks: good, code: exitOther, want: []string{"the answer was not yes"}},
		{name: "answered", disks: good, stdin: "yes\n", code: exitDone, verdict: burnin.Pass,
			parts: "PASS processors; PASS memory; PASS GOOD, SKIPPED OTHER, SKIPPED UNREADABLE"},
		{name: "again, and by serial number", disks: "GOOD", more: []string{"--yes", "--upload", server.URL + "/reports/1?signature=secret"}, code: exitDone, verdict: burnin.Pass,
			baseline: 0.01, want: []string{"It was sent to " + server.URL + "/reports/1."},
			parts: "PASS processors; PASS memory; PASS GOOD, SKIPPED OTHER, SKIPPED UNREADABLE"},
		{name: "a broken disk", disks: "GOOD," + unreadable, more: []string{"--yes"}, code: exitFailed, verdict: burnin.Fail, want: []string{"Input/output error"}, baseline: 100, outlier: named.Replace("GOOD"),
			parts: "PASS processors; PASS memory; FAIL UNREADABLE, PASS GOOD, SKIPPED OTHER"},
		{name: "no such disk", disks: "vdx", more: []string{"--yes"}, code: exitOther, want: []string{`serial number "vdx"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := report(test.name)
			if test.baseline != 0 {
				test.more = append(test.more, "--baseline", scaled(test.baseline))
			}
			code, stdout, stderr := run(t, test.stdin, append([]string{"burnin", "--profile", profile, "--disks", test.disks, "--report", out}, test.more...)...)
			if code != test.code {
				t.Fatalf("exit %d, want %d:\n%s%s", code, test.code, stdout, stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("printed:\n%s%swant %q", stdout, stderr, want)
				}
			}
			b, err := os.ReadFile(filepath.Join(out, "results.json"))
			if test.verdict == "" {
				if err == nil {
					t.Errorf("there are results: %s", b)
				}
				return
			}
			var r burnin.Result
			if err != nil || json.Unmarshal(b, &r) != nil {
				t.Fatalf("results.json: %s, %v", b, err)
			}
			var loads []string
			for _, l := range r.Loads {
				var parts []string
				for _, p := range l.Parts {
					parts = append(parts, string(p.Verdict)+" "+bySerial.Replace(p.Name))
				}
				slices.Sort(parts) // disks are in the order of their names
				loads = append(loads, strings.Join(parts, ", "))
			}
			if got := strings.Join(loads, "; "); r.Verdict != test.verdict || got != test.parts || r.Ended.Sub(r.Started) < 4*time.Second {
				t.Errorf("results.json:\n%s\nwant %s: %s", b, test.verdict, test.parts)
			}
			var outliers []string
			for _, p := range r.Baseline {
				if p.Verdict == burnin.Fail {
					outliers = append(outliers, p.Name)
				}
			}
			if got := strings.Join(outliers, ", "); !strings.Contains(got, test.outlier) || test.outlier == "" && got != "" {
				t.Errorf("farther from the other run than it may be are %q, want %q", got, test.outlier)
			}
			if test.verdict == burnin.Pass && !strings.Contains(string(b), "read back") {
				t.Errorf("results.json does not say how much was read back:\n%s", b)
			}
			lines, err := os.ReadFile(filepath.Join(out, "results.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			ocptest.Check(t, lines)
			if !strings.Contains(string(lines), `"serialNumber":"GOOD"`) || !strings.Contains(string(lines), `"result":"`+string(test.verdict)+`"`) {
				t.Errorf("results.jsonl:\n%s", lines)
			}
			if page, err := os.ReadFile(filepath.Join(out, "report.html")); err != nil || !strings.Contains(string(page), "<b>"+string(test.verdict)+"</b>") || !strings.Contains(string(page), "Throughput of disks") {
				t.Errorf("report.html: %s, %v", page, err)
			}
			for name, want := range map[string]string{"1-processors.log": "successful run", "2-memory.log": "successful run", "3-disk.log." + good: `"jobs"`} {
				if b, err := os.ReadFile(filepath.Join(out, "logs", name)); err != nil || !strings.Contains(string(b), want) {
					t.Errorf("%s: %s, %v", name, b, err)
				}
			}
		})
	}
	// What was sent is what is in the directory.
	for _, name := range []string{"report.html", "results.json", "results.jsonl", "logs/3-disk.log." + good} {
		b, err := os.ReadFile(filepath.Join(report("again, and by serial number"), name))
		if sent := uploaded["again, and by serial number/"+name]; err != nil || len(b) == 0 || !bytes.Equal(b, sent) {
			t.Errorf("%s: %d bytes were sent of %d, %v", name, len(sent), len(b), err)
		}
	}
	// What a file system may be in is not overwritten.
	disk, err := os.OpenFile("/dev/"+other, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.WriteAt([]byte("data"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := run(t, "", "burnin", "--profile", profile, "--disks", good+","+other, "--yes")
	if code != exitOther || !strings.Contains(stderr, named.Replace("OTHER: it holds data: bytes at 1048576 that are not zero; with --force it is lost")) {
		t.Errorf("exit %d:\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := run(t, "", "burnin", "--profile", profile, "--disks", other, "--yes", "--force"); code != exitDone {
		t.Errorf("by force: exit %d:\n%s%s", code, stdout, stderr)
	}
}
