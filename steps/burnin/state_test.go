// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
)

// numbered is a machine with two disks, an interface, and numbers of its own.
func numbered(uuid, boot string) fstest.MapFS {
	m := machine("vda", "vdb")
	for name, content := range map[string]string{
		"proc/sys/kernel/random/boot_id":                 boot,
		"sys/devices/virtual/dmi/id/product_uuid":        uuid,
		"sys/devices/virtual/dmi/id/product_serial":      "N" + uuid[:1],
		"sys/devices/pci0000:00/0000:02:00.0/uevent":     "DRIVER=e1000e\nPCI_SLOT_NAME=0000:02:00.0",
		"sys/class/net/eth0/address":                     "52:54:00:00:00:01",
		"sys/class/net/eth0/addr_assign_type":            "0",
		"sys/class/net/eth0/operstate":                   "up",
		"sys/class/net/eth0/carrier_changes":             "1",
		"sys/devices/system/cpu/present":                 "0-3",
		"sys/class/watchdog/watchdog0/bootstatus":        "0",
		"sys/class/watchdog/watchdog0/identity":          "hound",
		"sys/fs/pstore/dmesg-erst-1":                     "Kernel panic - not syncing: of before",
		"sys/bus/pci/devices/0000:01:00.0/aer_dev_fatal": "TOTAL_ERR_FATAL 0",
	} {
		m[name] = &fstest.MapFile{Data: []byte(content + "\n")}
	}
	m["sys/class/net/eth0/device"] = &fstest.MapFile{Data: []byte("../../../devices/pci0000:00/0000:02:00.0"), Mode: fs.ModeSymlink}
	return m
}

const (
	uuidA = "aaaaaaaa-0000-4000-8000-000000000001"
	uuidB = "bbbbbbbb-0000-4000-8000-000000000002"
)

// copyDir copies files, as a stick has them at one moment.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// A run of three loads is reset in the second, 70 seconds after its start, and goes on.
func TestResume(t *testing.T) {
	const good = `{"jobs": [{"read": {"io_bytes": 1048576}, "write": {"io_bytes": 1048576}}]}`
	profile := Profile{Name: "p", Loads: []ProfileLoad{
		{Processors: &ProcessorsLoad{Time: Duration(20 * time.Second)}}, {Memory: &MemoryLoad{Time: Duration(5 * time.Minute), Amount: "1G"}},
		{Disks: &DisksLoad{Loops: 1, Write: []string{"all"}}},
	}}
	const memory, restart = "memory for 5m0s: stress-ng --vm 0 --vm-bytes 1G --verify --metrics-brief --timeout 300", "memory for 4m0s: stress-ng --vm 0 --vm-bytes 1G --verify --metrics-brief --timeout 240"
	const disks = "PASS|/dev/vda serial S-vda|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\nPASS|/dev/vdb serial S-vdb|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\n"
	reset := "the machine was reset in the middle of " + memory + ", 1m0s after its start; the last that was kept is of "
	for _, test := range []struct {
		name   string
		stop   bool                 // somebody stops it; else the machine is reset
		resets int                  // as kept
		change func(m fstest.MapFS) // of the machine when it is there again
		plan   string               // what is left, or the error
		want   string               // verdict and parts
		is     error
	}{
		{name: "a reset", plan: "2. " + restart + "\n3. 2 disks, written", want: "FAIL\nPASS|processors|\nPASS|memory|\n" + disks + "FAIL|machine|" + reset + "TIME\n"},
		{name: "somebody stopped it, and the machine was reset", stop: true, plan: "2. " + strings.NewReplacer("4m0s", "3m50s", "240", "230").Replace(restart), want: "PASS\nPASS|processors|\nPASS|memory|\n" + disks},
		{name: "it ended, and the machine was not reset", change: func(m fstest.MapFS) { m["proc/sys/kernel/random/boot_id"] = &fstest.MapFile{Data: []byte("one\n")} }, plan: "2. " + restart,
			want: "PASS\nPASS|processors|\nPASS|memory|\n" + disks + "|machine|the burn-in ended without a word in the middle of " + memory + ", 1m0s after its start; the machine was not reset\n"},
		{name: "the watchdog and a dump say why", change: func(m fstest.MapFS) {
			m["sys/class/watchdog/watchdog0/bootstatus"] = &fstest.MapFile{Data: []byte("32\n")}
			m["sys/fs/pstore/dmesg-erst-2"] = &fstest.MapFile{Data: []byte("Panic#1 Part1\n<0>[1] Kernel panic - not syncing: Fatal exception\n<1>more\n")}
		}, plan: "2. " + restart, want: "FAIL\nPASS|processors|\nPASS|memory|\n" + disks + "FAIL|machine|" + reset +
			"TIME; the watchdog hound says why: the machine hung, and the watchdog was not fed any more; the kernel that ran has left the dump dmesg-erst-2: Kernel panic - not syncing: Fatal exception\n"},
		{name: "a disk is lost", change: func(m fstest.MapFS) {
			for name := range m {
				if strings.HasPrefix(name, "sys/block/vda/") {
					delete(m, name)
				}
			}
		}, plan: "3. 1 disks, written", want: "FAIL\nPASS|processors|\nPASS|memory|\nPASS|/dev/vdb serial S-vdb|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\n" +
			"FAIL|disk /dev/vda|lost since the burn-in began: virtio 1.0 MiB serial S-vda\nFAIL|machine|" + reset + "TIME\n"},
		{name: "all disks are lost", change: func(m fstest.MapFS) {
			for name := range m {
				if strings.HasPrefix(name, "sys/block/") {
					delete(m, name)
				}
			}
		}, plan: "3. disks: not tested, for none of the disks that were named is left\n", want: "FAIL disks: none of the disks that were named is left\nPASS|processors|\nPASS|memory|\nSKIPPED|disks|none of the disks that were named is left\n" +
			"FAIL|disk /dev/vda|lost since the burn-in began: virtio 1.0 MiB serial S-vda\nFAIL|disk /dev/vdb|lost since the burn-in began: virtio 1.0 MiB serial S-vdb\nFAIL|machine|" + reset + "TIME\n"},
		{name: "the disks have each other's names", change: func(m fstest.MapFS) {
			m["sys/block/vda/serial"], m["sys/block/vdb/serial"] = m["sys/block/vdb/serial"], m["sys/block/vda/serial"]
		}, plan: "overwrite all of /dev/vdb serial S-vda", want: "FAIL\nPASS|processors|\nPASS|memory|\n" + strings.ReplaceAll(strings.ReplaceAll(disks, "serial S-vda", "serial X"), "S-vdb", "S-vda") + "FAIL|machine|" + reset + "TIME\n"},
		{name: "an interface is another, processors are lost", change: func(m fstest.MapFS) {
			m["sys/class/net/eth0/address"] = &fstest.MapFile{Data: []byte("52:54:00:00:00:02\n")}
			m["sys/devices/system/cpu/present"] = &fstest.MapFile{Data: []byte("0-1\n")}
		}, plan: "2. " + restart, want: "FAIL\nPASS|processors|\nPASS|memory|\n" + disks + "FAIL|cpu|threads: 4 when the burn-in began, 2 now\nFAIL|machine|" + reset +
			"TIME\nFAIL|nic eth0|lost since the burn-in began: 52:54:00:00:00:01; in its place is 52:54:00:00:00:02\n"},
		{name: "a disk has come", change: func(m fstest.MapFS) {
			for name, file := range machine("vdc") {
				m[name] = file
			}
		}, plan: "2. " + restart, want: "FAIL\nPASS|processors|\nPASS|memory|\n" + disks + "SKIPPED|/dev/vdc serial S-vdc|it was not named\n|disk /dev/vdc|came since the burn-in began: virtio 1.0 MiB serial S-vdc\nFAIL|machine|" + reset + "TIME\n"},
		{name: "reset again and again", resets: 2, plan: "3. 2 disks", want: "FAIL memory: not run again: the machine was reset 3 times in it\nPASS|processors|\nSKIPPED|memory|not run again: the machine was reset 3 times in it\n" + disks + "FAIL|machine|" + reset + "TIME\n"},
		{name: "another machine", change: func(m fstest.MapFS) {
			m["sys/devices/virtual/dmi/id/product_uuid"] = &fstest.MapFile{Data: []byte(uuidB + "\n")}
		},
			plan: `it is of another machine, with the UUID "` + uuidA + `"; this one has "` + uuidB + `"`, is: ErrState},
		{name: "another machine that says to have the same number", change: func(m fstest.MapFS) {
			for _, name := range []string{"sys/block/vda/serial", "sys/block/vdb/serial", "sys/class/net/eth0/address"} {
				m[name] = &fstest.MapFile{Data: []byte("52:54:00:00:00:99\n")}
			}
		}, plan: "none of its disks, interfaces and memory modules with a number is in this one", is: ErrState},
	} {
		t.Run(test.name, func(t *testing.T) {
			outer, dir, kept := t, t.TempDir(), ""
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				b := &bench{root: numbered(uuidA, "one"), content: map[string][]byte{}}
				h := b.host(runner(func(ctx context.Context, line string) (string, error) {
					if strings.Contains(line, "--vm") {
						time.Sleep(70 * time.Second)
						if test.stop {
							cancel()
							return "", &tool.Error{Tool: "stress-ng", Exit: -1, Err: context.Canceled}
						}
						synctest.Wait() // for what is written beside
						kept = copyDir(outer, dir)
					}
					return good, nil
				}))
				plan, err := Order{Profile: profile}.Plan(ctx, h)
				if err != nil {
					t.Fatal(err)
				}
				if err := plan.Keep(ctx, h, dir); err != nil {
					t.Fatal(err)
				}
				plan.Run(ctx, h, Following{})
				if err := plan.Finish(); err != nil {
					t.Fatal(err)
				}
				if test.stop {
					kept = dir
				} else if _, err := Unfinished(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a run that ended is unfinished: %v", err)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				s, err := Unfinished(kept)
				if err != nil {
					t.Fatal(err)
				}
				if s.Resets = test.resets; s.Running == nil || len(s.Done) != 1 {
					t.Fatalf("kept: %+v", s)
				}
				b := &bench{root: numbered(uuidA, "two"), content: map[string][]byte{}}
				if test.change != nil {
					test.change(b.root)
				}
				h := b.host(runner(func(ctx context.Context, line string) (string, error) { return good, nil }))
				plan, err := s.Plan(t.Context(), h, "", false)
				if err != nil {
					if !errors.Is(err, test.is) || test.is == nil || !strings.Contains(err.Error(), test.plan) {
						t.Errorf("error %v, want %q", err, test.plan)
					}
					return
				}
				if got := plan.String(); !strings.Contains(got, test.plan) || test.is != nil {
					t.Errorf("plan:\n%swant:\n%s", got, test.plan)
				}
				if err := plan.Keep(t.Context(), h, kept); err != nil {
					t.Fatal(err)
				}
				r := plan.Run(t.Context(), h, Following{})
				fitsSchema(t, r)
				got := strings.TrimSpace(string(r.Verdict)+" "+strings.Join(r.Problems, "; ")) + "\n"
				for _, l := range r.Loads {
					got += lines(l.Parts)
					if l.Celsius == nil || l.Rates == nil {
						t.Errorf("load %+v", l)
					}
				}
				got = strings.ReplaceAll(got, s.Written.Format(time.RFC3339), "TIME")
				want := test.want
				if strings.Contains(want, "serial X") {
					want = strings.ReplaceAll(want, "serial X", "serial S-vdb")
				}
				if got != want {
					t.Errorf("result:\n%swant:\n%s", got, want)
				}
				if !r.Started.Equal(s.Started) {
					t.Errorf("it began at %v, want %v", r.Started, s.Started)
				}
			})
		})
	}
}

func TestUnfinished(t *testing.T) {
	whole := State{Version: stateVersion, Profile: "p", Loads: []keptLoad{{Load: ProfileLoad{Processors: &ProcessorsLoad{Time: Duration(time.Minute)}}}}}
	sequence := uint64(0)
	write := func(s State) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			sequence++
			s.Sequence = sequence
			if err := s.write(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	newer, ended, undone, hostile := whole, whole, whole, whole
	newer.Version++
	ended.Ended = true
	undone.Done = make([]Report, 2)
	hostile.Loads = []keptLoad{{Load: ProfileLoad{Memory: &MemoryLoad{Time: 1, Amount: "1 --exec rm"}}}}
	second := whole
	second.Resets = 2
	long := whole
	long.Problems = []string{strings.Repeat("x", 2*stateBlock)}
	file := func(n uint64) string { return stateFiles[n%2] }
	damage := func(t *testing.T, dir string) {
		b, err := os.ReadFile(filepath.Join(dir, file(sequence)))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file(sequence)), bytes.Replace(b, []byte(`"profile":"p"`), []byte(`"profile":"q"`), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	short := func(t *testing.T, dir string) {
		if err := os.Truncate(filepath.Join(dir, file(sequence)), 100); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		do   []func(t *testing.T, dir string)
		want string // the error
		is   error
		of   int // resets
	}{
		{name: "none", want: "no such file", is: fs.ErrNotExist},
		{name: "one", do: []func(*testing.T, string){write(whole)}},
		{name: "the second", do: []func(*testing.T, string){write(whole), write(second)}, of: 2},
		{name: "ended", do: []func(*testing.T, string){write(whole), write(ended)}, want: "came to its end", is: fs.ErrNotExist},
		{name: "cut short", do: []func(*testing.T, string){write(whole), short}, want: "damaged: unexpected end of JSON", is: ErrState},
		{name: "changed", do: []func(*testing.T, string){write(whole), damage}, want: "damaged: its digest is another", is: ErrState},
		{name: "cut short, and there is the one before", do: []func(*testing.T, string){write(second), write(whole), short}, of: 2},
		{name: "shorter than the one that it takes the place of", do: []func(*testing.T, string){write(long), write(whole), write(second)}, of: 2},
		{name: "both are damaged", do: []func(*testing.T, string){write(whole), damage, write(second), short}, want: "damaged", is: ErrState},
		{name: "a newer version", do: []func(*testing.T, string){write(newer)}, want: "of version 2 of another ironhand", is: ErrState},
		{name: "more is done than there was to do", do: []func(*testing.T, string){write(undone)}, want: "2 of 1 loads are done", is: ErrState},
		{name: "a hostile load", do: []func(*testing.T, string){write(hostile)}, want: "amount is", is: ErrState},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, do := range test.do {
				do(t, dir)
			}
			s, err := Unfinished(dir)
			if err != nil {
				if test.is == nil || !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				return
			}
			if test.is != nil || s.Resets != test.of || s.Profile != "p" {
				t.Errorf("state %+v, want the error %q, or that with %d", s, test.want, test.of)
			}
		})
	}
}

// A stick that cannot be written to any more does not end a run.
func TestKeepFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "stick")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		b := &bench{root: numbered(uuidA, "one"), content: map[string][]byte{}}
		h := b.host(runner(func(ctx context.Context, line string) (string, error) { return "", os.RemoveAll(dir) }))
		plan, err := Order{Profile: Profile{Name: "p", Loads: []ProfileLoad{{Processors: &ProcessorsLoad{Time: Duration(time.Second)}}, {Memory: &MemoryLoad{Time: Duration(time.Second)}}}}}.Plan(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.Keep(t.Context(), h, dir); err != nil {
			t.Fatal(err)
		}
		if r := plan.Run(t.Context(), h, Following{}); r.Verdict != Pass {
			t.Errorf("result %+v", r)
		}
		if said := b.said.String(); strings.Count(said, "is not kept any more") != 1 {
			t.Errorf("said:\n%s", said)
		}
		if err := plan.Keep(t.Context(), h, dir); err == nil {
			t.Error("a run begins that is not kept")
		}
	})
}

// What is written to a stick each minute is small, however many sensors there are.
func TestKeepBounded(t *testing.T) {
	dir := t.TempDir()
	done := []Report{{Load: "processors", Parts: []Part{}}}
	for range 250 {
		done[0].Series = append(done[0].Series, Series{Kind: temperature, Name: "hwmon1", Unit: "°C", Points: make([]Point, mostPoints)})
	}
	k := &keeper{dir: dir, say: t.Logf, state: State{Version: stateVersion, Loads: []keptLoad{{Load: ProfileLoad{SelfTest: &SelfTestLoad{Kind: shortTest}}}, {Load: ProfileLoad{SelfTest: &SelfTestLoad{Kind: longTest}}}}}}
	k.ended(done, nil)
	s, err := Unfinished(dir)
	if err != nil || len(s.Done) != 1 || len(s.Done[0].Series) != 250 || len(s.Done[0].Series[0].Points) > mostKeptPoints {
		t.Fatalf("kept: %d loads, %v", len(s.Done), err)
	}
	if n := len(done[0].Series[0].Points); n != mostPoints {
		t.Errorf("the run itself has %d points", n)
	}
}

func FuzzState(f *testing.F) {
	s := State{Version: stateVersion, Profile: "p", Loads: []keptLoad{{Load: ProfileLoad{Processors: &ProcessorsLoad{Time: Duration(time.Minute)}}}}}
	b, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		file := fmt.Appendf(nil, `{"sha256":%q,"state":%s}`, digest(b), b)
		if s, err := parseState(file); err == nil && (len(s.Loads) == 0 || len(s.Done) > len(s.Loads)) {
			t.Errorf("%+v", s)
		}
	})
}

func TestHeaderInterval(t *testing.T) {
	of := func(lengths ...uint32) []byte {
		b := make([]byte, 64*blockSize)
		for i := range 64 {
			if l := lengths[i*len(lengths)/64]; l > 0 {
				copy(b[i*blockSize:], []byte{0xca, 0xac, 5, 0, byte(l), byte(l >> 8), byte(l >> 16), byte(l >> 24)})
			}
		}
		return b
	}
	for _, test := range []struct {
		name string
		disk memoryDisk
		want int
	}{
		{"empty", memoryDisk{content: of(0)}, 4096},
		{"of an earlier burn-in", memoryDisk{content: of(4096)}, 2048},
		{"of two", memoryDisk{content: of(2048, 4096, 4096)}, 1024},
		{"only its end is", memoryDisk{content: of(0, 0, 0, 0, 4096)}, 2048},
		{"of all kinds", memoryDisk{content: of(512, 1024, 2048, 4096, 4096, 512, 1024)}, 2048},
		{"of a length that is not ours", memoryDisk{content: of(128)}, 4096},
		{"that cannot be read", memoryDisk{content: of(4096), broken: errors.New("input/output error")}, 4096},
		{"smaller than a block", memoryDisk{content: []byte{0xca, 0xac}}, 4096},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := headerInterval(test.disk); got != test.want {
				t.Errorf("headerInterval() = %d, want %d", got, test.want)
			}
		})
	}
}
