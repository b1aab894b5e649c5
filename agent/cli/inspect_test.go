// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/inspect/ocp/ocptest"
	"github.com/ironhand/ironhand/inspect/recording"
)

var update = flag.Bool("update", false, "write the expected pages anew")

// keep writes a recording of a machine.
func keep(t *testing.T, files fstest.MapFS) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "machine.txt")
	if err := os.WriteFile(name, recording.Format("a machine", files), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// The page for technicians, whole.
func TestInspectPage(t *testing.T) {
	code, stdout, stderr := run(t, "", "inspect", "--from", keep(t, inspecttest.Server()))
	if code != 0 || stderr != "" {
		t.Fatalf("exit status %d, %s", code, stderr)
	}
	golden := "testdata/inspect.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(stdout), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if stdout != string(want) {
		t.Errorf("page:\n%s\nwant:\n%s", stdout, want)
	}
}

// A series of recordings is a history: JSON, a recording of a recording, and one without serial numbers work alike.
func TestInspectFiles(t *testing.T) {
	dir := t.TempDir()
	machine := keep(t, inspecttest.Server())
	file := func(name string) string { return filepath.Join(dir, name) }

	code, first, stderr := run(t, "", "inspect", "--from", machine, "--format", "json", "--record", file("again.txt"))
	if code != 0 {
		t.Fatalf("exit status %d, %s", code, stderr)
	}
	if err := os.WriteFile(file("old.json"), []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, second, _ := run(t, "", "inspect", "--from", file("again.txt"), "--format", "json"); second != first {
		t.Errorf("inventory of the recording:\n%s\nwant:\n%s", second, first)
	}
	if code, _, stderr := run(t, "", "inspect", "--from", machine, "--record", file("hidden.txt"), "--anonymous"); code != 0 {
		t.Fatalf("exit status %d, %s", code, stderr)
	}
	hidden, err := os.ReadFile(file("hidden.txt"))
	if err != nil || bytes.Contains(hidden, []byte("S6EWNA0R000000")) || bytes.Contains(hidden, []byte("3c:ec:ef:00:00:01")) {
		t.Errorf("serial numbers are in the file (%v)", err)
	}
	if code, page, stderr := run(t, "", "inspect", "--from", file("hidden.txt")); code != 0 || !strings.Contains(page, "SAMSUNG MZWLR3T8HBLS-00007") {
		t.Errorf("exit status %d, %s\n%s", code, stderr, page)
	}

	for _, old := range []string{machine, file("again.txt"), file("old.json")} {
		if code, out, stderr := run(t, "", "inspect", "--from", machine, "--diff", old); code != 0 || out != "nothing has changed\n" {
			t.Errorf("diff with %s: exit status %d, %s%s", filepath.Base(old), code, out, stderr)
		}
	}
	files := inspecttest.Server()
	for _, f := range files {
		f.Data = bytes.ReplaceAll(f.Data, []byte("S6EWNA0R000002"), []byte("S6EWNA0R777777"))
	}
	const want = "disk in bay 42: replaced, SAMSUNG MZWLR3T8HBLS-00007 3.5 TiB serial S6EWNA0R000002 -> SAMSUNG MZWLR3T8HBLS-00007 3.5 TiB serial S6EWNA0R777777\n"
	files["sys/devices/pci0000:00/0000:62:00.0/nvme/nvme2/nvme2n1/wwid"].Data = []byte("eui.99\n")
	changed := keep(t, files)
	if code, out, stderr := run(t, "", "inspect", "--from", changed, "--diff", machine); code != 3 || out != want || stderr != "" {
		t.Errorf("diff: exit status %d, %s%s, want 3, %s", code, out, stderr, want)
	}
	code, out, _ := run(t, "", "inspect", "--from", changed, "--diff", machine, "--format", "json")
	var d inspect.Difference
	if err := json.Unmarshal([]byte(out), &d); err != nil || code != 3 || len(d.Changes) != 1 || d.Changes[0].Where != "bay 42" {
		t.Errorf("diff as JSON: exit status %d, %s, %v", code, out, err)
	}
}

// A BMC, a disk and a switch that do not answer are named, and take no longer than the slowest of them.
func TestInspectBesideEachOther(t *testing.T) {
	files := inspecttest.Server()
	synctest.Test(t, func(t *testing.T) {
		until := make(chan struct{})
		m := inspect.Recorded(files)
		answer := m.Ask
		m.Ask = func(ctx context.Context, question string) ([]byte, error) {
			switch {
			case strings.HasPrefix(question, "ipmi/"), strings.HasPrefix(question, "disk/nvme1n1/"): // not even the end of ctx helps
				<-until
			case strings.HasSuffix(question, "/lldp"):
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return answer(ctx, question)
		}
		start := time.Now()
		i, _, err := look(t.Context(), m, true, 30*time.Second)
		took := time.Since(start)
		close(until)
		for _, want := range []string{"BMC: no answer within 20s", "health of disk nvme1n1: no answer within 10s"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q in it", err, want)
			}
		}
		if took != 30*time.Second || len(i.Disks) != 24 || len(i.Interfaces) != 8 || i.Interfaces[0].LLDP == nil {
			t.Errorf("took %v, found %d disks and %d interfaces, want 30s, 24 and 8", took, len(i.Disks), len(i.Interfaces))
		}
	})
}

func TestInspectHints(t *testing.T) {
	machine := keep(t, inspecttest.Server())
	code, out, stderr := run(t, "", "inspect", "--from", machine, "--hints", `{"model": "<in> samsung", "size": ">= 1000"}`, "--why")
	if code != 0 {
		t.Fatalf("exit status %d, %s", code, stderr)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, want := range []string{
		`wanted: size ">= 1000", model "<in> samsung"`,
		`* /dev/nvme0n1 fits`,
		`  /dev/nvme1n1 fits`,
		`  /dev/sda has model ST16000NM002G, wanted "<in> samsung"`,
		`/dev/nvme0n1 SAMSUNG MZWLR3T8HBLS-00007 3.5 TiB serial S6EWNA0R000000`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	code, out, _ = run(t, "", "inspect", "--from", machine, "--hints", `{"serial": "none"}`, "--format", "json")
	var answer struct {
		Disk, Error string
		Disks       []struct{ Name, Why string }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != 1 || answer.Disk != "" || len(answer.Disks) != 24 || !strings.Contains(answer.Error, "no suitable disk") {
		t.Errorf("exit status %d, %s, %v", code, out, err)
	}
}

// Lines for the tools of fleets, with what could not be read and how the disks are.
func TestInspectOCP(t *testing.T) {
	failing := inspecttest.Server()
	log := make([]byte, 512)
	log[0], log[1], log[2], log[3] = 0x04, 0x2c, 0x01, 100 // media errors have degraded it; 300 K
	failing["answers/disk/nvme1n1/nvme-health"] = &fstest.MapFile{Data: log}
	poor := inspecttest.Server()
	delete(poor, "proc/meminfo")
	for _, tt := range []struct {
		name  string
		files fstest.MapFS
		args  []string
		code  int
		want  []string
	}{
		{"without health", failing, nil, 0, []string{`"status":"COMPLETE"`, `"result":"NOT_APPLICABLE"`, `"serialNumber":"S6EWNA0R000000"`, `"serialNumber":"03B71234"`, `"softwareInfoId":"ironhand"`}},
		{"a disk that fails", failing, []string{"--health"}, 0, []string{`"status":"COMPLETE"`, `"result":"FAIL"`, `"verdict":"disk-failing","type":"FAIL"`, `"name":"temperature","value":27,"unit":"degrees Celsius","hardwareInfoId":"disk-nvme1n1"`}},
		{"no disk says how it is", inspecttest.Server(), []string{"--health"}, 0, []string{`"result":"NOT_APPLICABLE"`}},
		{"what could not be read", poor, nil, 1, []string{`"symptom":"not-read","message":"inspect machine: read proc/meminfo: MemTotal is`, `"status":"ERROR"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, stderr := run(t, "", append([]string{"inspect", "--from", keep(t, tt.files), "--format", "ocp"}, tt.args...)...)
			ocptest.Check(t, []byte(out))
			if code != tt.code {
				t.Errorf("exit status %d, %s, want %d", code, stderr, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("lacks %s:\n%s", want, out)
				}
			}
		})
	}
}

func TestInspectBad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	machine := keep(t, inspecttest.Server())
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no such file", []string{"--from", filepath.Join(dir, "none")}, 1, "no such file"},
		{"no recording", []string{"--from", write("text", "some text\n")}, 1, "is no recording: it has no /proc"},
		{"broken recording", []string{"--from", write("broken", "-- a --\n-- a --\n")}, 1, "is no recording: line 2"},
		{"no inventory", []string{"--from", machine, "--diff", write("json", "{\"disks\": 5}")}, 1, "is no inventory"},
		{"cut JSON", []string{"--from", machine, "--diff", write("cut", "{\"disks\": [")}, 1, "is no inventory"},
		{"wrong hints", []string{"--from", machine, "--hints", `{"colour": "red"}`}, 2, `hint "colour" is not one of`},
		{"health of a recording that has none", []string{"--from", machine, "--health"}, 0, ""},
		{"why without hints", []string{"--why"}, 2, "--why is for --hints"},
		{"anonymous without file", []string{"--anonymous"}, 2, "--anonymous is for --record"},
		{"another format", []string{"--format", "xml"}, 2, "want table, json or ocp"},
		{"a comparison for fleets", []string{"--format", "ocp", "--diff", "x"}, 2, "neither for --hints nor for --diff"},
		{"two questions", []string{"--hints", "{}", "--diff", "x"}, 2, "two questions"},
		{"record into nowhere", []string{"--from", machine, "--record", filepath.Join(dir, "none", "x")}, 1, "no such file"},
		{"of a machine that lacks things", []string{"--from", write("poor", "-- proc/version --\n")}, 1, "proc/cpuinfo"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := run(t, "", append([]string{"inspect"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit status %d, %s; want %d, %q", code, stderr, tt.code, tt.want)
			}
		})
	}
}
