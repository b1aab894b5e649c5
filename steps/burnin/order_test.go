// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/initramfs/tool/tooltest"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

func TestParseProfile(t *testing.T) {
	for _, test := range []struct{ name, yaml, want string }{
		{"all kinds", "name: mine\nloads:\n- processors: {time: 90s}\n- memory: {time: 1h, amount: 16G, workers: 2}\n- disks: {loops: 2, write: [sda, all]}\n- network: {time: 5s, role: reader, partner: b}\n- selftest: {kind: long}\n", ""},
		{"a self-test of no kind", "loads:\n- selftest: {kind: medium}\n", "load 1: kind is \"medium\", want short or long"},
		{"nothing", "", "0 loads, want 1 to 100"},
		{"no loads", "name: mine\n", "0 loads"},
		{"too many", "loads:\n" + strings.Repeat("- processors: {time: 1s}\n", 101), "101 loads"},
		{"an unknown key", "loads:\n- processors:\n    time: 1m\n    speed: 3\n", "line 4: field speed not found"},
		{"an unknown load", "loads:\n- gpu: {time: 1m}\n", "line 2: field gpu not found"},
		{"an unknown key of a profile", "loads: []\nparts: []\n", "line 2: field parts not found"},
		{"two in one", "loads:\n- processors: {time: 1s}\n  memory: {time: 1s}\n", "load 1: want one of"},
		{"a load without options", "loads:\n- processors:\n", "load 1: want one of"},
		{"no time", "loads:\n- processors: {time: 1s}\n- memory: {amount: 50%}\n", "load 2: time is missing"},
		{"a time of nothing", "loads:\n- processors: {time: 0s}\n", "line 2: \"0s\" is not a length of time"},
		{"a time below zero", "loads:\n- processors: {time: -5s}\n", "is not a length of time"},
		{"a time without unit", "loads:\n- processors: {time: 60}\n", "is not a length of time"},
		{"half a second", "loads:\n- processors: {time: 1500ms}\n", "is not a length of time"},
		{"for years", "loads:\n- processors: {time: 10000h}\n", "is not a length of time"},
		{"a list for a time", "loads:\n- processors: {time: [1s]}\n", "is not a length of time"},
		{"a hostile amount", "loads:\n- memory: {time: 1s, amount: 1 --exec rm}\n", "load 1: amount is"},
		{"disks for no time", "loads:\n- disks: {}\n", "load 1: want either time or loops"},
		{"disks for a time and loops", "loads:\n- disks: {time: 1s, loops: 1}\n", "load 1: want either time or loops"},
		{"loops below zero", "loads:\n- disks: {loops: -1}\n", "cannot unmarshal"},
		{"no role", "loads:\n- network: {time: 1s, partner: b}\n", "load 1: role is"},
		{"a hostile partner", "loads:\n- network: {time: 1s, role: writer, partner: --b}\n", "load 1: partner is"},
		{"two documents", "loads:\n- processors: {time: 1s}\n---\na: 1\n", "more than one YAML document"},
		{"no YAML", "loads: [", "yaml"},
		{"too long", strings.Repeat("#", mostProfile+1), "more than 65536 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseProfile([]byte(test.yaml))
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "burnin.")) {
				t.Errorf("ParseProfile() = %v, want %q", err, test.want)
			}
		})
	}
	for _, p := range Profiles() {
		for i, l := range p.Loads {
			if err := l.check(); err != nil {
				t.Errorf("%s: load %d: %v", p.Name, i, err)
			}
		}
	}
}

func FuzzProfile(f *testing.F) {
	f.Add([]byte("name: mine\nloads:\n- processors: {time: 90s}\n- disks: {loops: 2, write: [sda]}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseProfile(b)
		if err == nil && (len(p.Loads) == 0 || len(p.Loads) > mostLoads) {
			t.Errorf("%d loads", len(p.Loads))
		}
	})
}

// memoryDisk is a disk in memory, open.
type memoryDisk struct {
	steps.Disk
	content []byte
	broken  error
	of      *bench
}

func (m memoryDisk) ReadAt(b []byte, at int64) (int, error) {
	if m.broken != nil {
		return 0, m.broken
	}
	return bytes.NewReader(m.content).ReadAt(b, at)
}
func (m memoryDisk) Size() int64     { return int64(len(m.content)) }
func (m memoryDisk) SectorSize() int { return 512 }
func (m memoryDisk) Close() error {
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	m.of.open--
	return nil
}

const diskSize = 2048 * 512 // of the disks of machine

// bench is a machine with disks, which may be looked at while a burn-in runs.
type bench struct {
	mu      sync.Mutex // of all below, and of what root holds
	root    fstest.MapFS
	content map[string][]byte // by disk; nil for zeros
	busy    string
	broken  string
	open    int
	slow    string // a file that takes 40 seconds to be opened
	said    strings.Builder
}

// Open implements fs.FS for the machine.
func (b *bench) Open(name string) (fs.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name == b.slow {
		b.mu.Unlock()
		time.Sleep(40 * time.Second)
		b.mu.Lock()
	}
	return b.root.Open(name)
}

// ReadLink and Lstat implement fs.ReadLinkFS.
func (b *bench) ReadLink(name string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.root.ReadLink(name)
}

func (b *bench) Lstat(name string) (fs.FileInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.root.Lstat(name)
}

// change changes a file of the machine.
func (b *bench) change(name, content string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.root[name] = &fstest.MapFile{Data: []byte(content)}
}

// held is how many disks are open.
func (b *bench) held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

func (b *bench) host(tools tool.Runner) steps.Host {
	return steps.Host{
		Machine: inspect.Machine{FS: b}, Tools: tools, Log: slog.New(slog.DiscardHandler), Media: []string{"/dev/vdm1"},
		Say: func(format string, args ...any) {
			b.mu.Lock()
			defer b.mu.Unlock()
			fmt.Fprintf(&b.said, format+"\n", args...)
		},
		Open: func(path string) (steps.Disk, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if path == b.busy {
				return nil, errors.New("device or resource busy")
			}
			d := memoryDisk{content: make([]byte, diskSize), of: b}
			copy(d.content, b.content[path])
			if path == b.broken {
				d.broken = errors.New("input/output error")
			}
			b.open++
			return d, nil
		},
	}
}

func disksFor(o DisksLoad) Profile {
	return Profile{Name: "p", Loads: []ProfileLoad{{Disks: &o}}}
}

func TestPlan(t *testing.T) {
	table := bytes.Repeat([]byte{0}, 512)
	table[510], table[511] = 0x55, 0xaa
	ext := make([]byte, 4096)
	ext[1024+0x38], ext[1024+0x39] = 0x53, 0xef
	end := make([]byte, diskSize)
	end[diskSize-1] = 1
	burnt := make([]byte, diskSize)
	for at := 0; at < len(burnt); at += 8192 {
		copy(burnt[at:], "\xca\xac\x05")
	}
	half := append(bytes.Clone(burnt[:diskSize-4096]), bytes.Repeat([]byte{1}, 4096)...)
	const fio = "$ fio --version\n"
	for _, test := range []struct {
		name    string
		profile Profile
		disks   string
		force   bool
		content []byte // of vda
		busy    string
		broken  string
		script  string
		want    string // the plan, or the error
		is      error
	}{
		{name: "quick, and nobody names a disk", profile: Profiles()[0], script: "$ stress-ng --version\n", want: `burn-in quick: 5m0s
1. processors for 2m0s: stress-ng --cpu 0 --verify --metrics-brief --timeout 120
2. memory for 3m0s: stress-ng --vm 0 --vm-bytes 90% --verify --metrics-brief --timeout 180
3. disks: not tested, for none was named to be overwritten
   leave /dev/vda serial S-vda as it is: it was not named
   leave /dev/vdb serial S-vdb as it is: it was not named
   leave /dev/vdm serial S-vdm as it is: it was not named
4. self-tests, short, of the drives that have them: 0 of 3
`},
		{name: "standard, one by its name, one by its serial number", profile: Profiles()[1], disks: "vda S-vdb", script: "$ stress-ng --version\n" + fio, want: `burn-in standard: 3h0m0s, and as long as the disks take
1. processors for 1h0m0s: stress-ng --cpu 0 --verify --metrics-brief --timeout 3600
2. memory for 2h0m0s: stress-ng --vm 0 --vm-bytes 90% --verify --metrics-brief --timeout 7200
3. 2 disks, written and verified 1 times
   overwrite all of /dev/vda serial S-vda, 1.0 MiB
   overwrite all of /dev/vdb serial S-vdb, 1.0 MiB
   leave /dev/vdm serial S-vdm as it is: it was not named
4. self-tests, long, of the drives that have them: 0 of 3
`},
		{name: "all", profile: disksFor(DisksLoad{Loops: 1}), disks: "all", script: fio, want: `burn-in p: as long as the disks take
1. 2 disks, written and verified 1 times
   overwrite all of /dev/vda serial S-vda, 1.0 MiB
   overwrite all of /dev/vdb serial S-vdb, 1.0 MiB
   leave /dev/vdm serial S-vdm as it is: this machine's settings were read from it
`},
		{name: "the profile names it", profile: disksFor(DisksLoad{Time: Duration(time.Minute), Write: []string{"/dev/vdb"}}), script: fio, want: `burn-in p: 1m0s
1. 1 disks, written and verified for 1m0s
   overwrite all of /dev/vdb serial S-vdb, 1.0 MiB
   leave /dev/vda serial S-vda as it is: it was not named
   leave /dev/vdm serial S-vdm as it is: it was not named
`},
		{name: "no such disk", profile: disksFor(DisksLoad{Loops: 1}), disks: "vda vdz", want: `no disk here has the name or the serial number "vdz"`, is: inspect.ErrNoDisk},
		{name: "part of a name", profile: disksFor(DisksLoad{Loops: 1}), disks: "vd", want: `"vd"`, is: inspect.ErrNoDisk},
		{name: "the medium, by name", profile: disksFor(DisksLoad{Loops: 1}), disks: "vdm", want: "settings were read from it"},
		{name: "a disk in use", profile: disksFor(DisksLoad{Loops: 1}), disks: "vda vdb", busy: "/dev/vdb", want: "nothing was written: /dev/vdb serial S-vdb: device or resource busy"},
		{name: "a disk in use, by force", profile: disksFor(DisksLoad{Loops: 1}), disks: "vda vdb", busy: "/dev/vdb", force: true, want: "busy"},
		{name: "a disk that cannot be read", profile: disksFor(DisksLoad{Loops: 1}), disks: "vda", broken: "/dev/vda", want: "look whether it holds data: input/output error"},
		{name: "a partition table", profile: disksFor(DisksLoad{Loops: 1}), disks: "vda", content: table, want: "/dev/vda serial S-vda: it holds data: a partition table or a boot sector", is: ErrHoldsData},
		{name: "a file system", profile: disksFor(DisksLoad{Loops: 1}), disks: "vda", content: ext, want: "holds data: a file system ext4", is: ErrHoldsData},
		{name: "something at the end", profile: disksFor(DisksLoad{Loops: 1}), disks: "vda", content: end, want: fmt.Sprintf("bytes at %d that are not zero", diskSize-4096), is: ErrHoldsData},
		{name: "data, by force", profile: disksFor(DisksLoad{Time: Duration(time.Second), Write: []string{"vda"}}), force: true, content: ext, script: fio, want: "burn-in p: 1s\n1. 1 disks, written and verified for 1s\n" +
			"   overwrite all of /dev/vda serial S-vda, 1.0 MiB\n   leave /dev/vdb serial S-vdb as it is: it was not named\n   leave /dev/vdm serial S-vdm as it is: it was not named\n"},
		{name: "what a burn-in left", profile: disksFor(DisksLoad{Loops: 1, Write: []string{"S-vda"}}), content: burnt, script: fio, want: "burn-in p: as long as the disks take\n1. 1 disks, written and verified 1 times\n" +
			"   overwrite all of /dev/vda serial S-vda, 1.0 MiB\n   leave /dev/vdb serial S-vdb as it is: it was not named\n   leave /dev/vdm serial S-vdm as it is: it was not named\n"},
		{name: "what half a burn-in left", profile: disksFor(DisksLoad{Loops: 1, Write: []string{"S-vda"}}), content: half, want: "not zero", is: ErrHoldsData},
		{name: "disks that the profile does not test", profile: Profile{Name: "p", Loads: []ProfileLoad{{Processors: &ProcessorsLoad{Time: Duration(time.Second)}}}}, disks: "vda", want: "the profile p tests none", is: steps.ErrArgs},
		{name: "no program", profile: Profiles()[0], script: "$ stress-ng --version\n? 127\n", want: "stress-ng --version: exit status 127"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := &bench{root: machine("vda", "vdb", "vdm"), content: map[string][]byte{"/dev/vda": test.content}, busy: test.busy, broken: test.broken}
			plan, err := Order{Profile: test.profile, Disks: strings.Fields(test.disks), Force: test.force}.Plan(t.Context(), b.host(tooltest.New(t, test.script)))
			if b.open != 0 {
				t.Errorf("%d disks are still open", b.open)
			}
			if err != nil {
				if strings.HasPrefix(test.want, "burn-in") || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				return
			}
			if got := plan.String(); got != test.want {
				t.Errorf("plan:\n%swant:\n%s", got, test.want)
			}
		})
	}
}

// runner is programs that take time, or end as they are told.
type runner func(ctx context.Context, line string) (string, error)

func (r runner) Run(ctx context.Context, t tool.Tool, args ...string) ([]byte, error) {
	line := tool.Line(t, args...)
	if strings.HasSuffix(line, "--version") {
		return nil, nil
	}
	return lasted(ctx, t, args, func() ([]byte, error) {
		out, err := r(ctx, line)
		if t == tool.StressNG && err == nil && !strings.Contains(out, "stressor") {
			out = worked
		}
		return []byte(out), err
	})
}

// lasted runs a program that works for the time which it is given, if it does not end with an error before.
func lasted(ctx context.Context, t tool.Tool, args []string, run func() ([]byte, error)) ([]byte, error) {
	seconds := 0
	for i, a := range args {
		if a == "--timeout" || a == "--runtime" { // the last counts
			fmt.Sscan(args[i+1], &seconds)
		}
	}
	end := time.After(time.Duration(seconds) * time.Second)
	out, err := run()
	if err != nil || seconds == 0 {
		return out, err
	}
	select {
	case <-end:
		return out, nil
	case <-ctx.Done():
		return nil, &tool.Error{Tool: t, Exit: -1, Err: context.Cause(ctx)}
	}
}

// scripted are the programs of a script, which work for their time.
type scripted struct{ tool.Runner }

func (s scripted) Run(ctx context.Context, t tool.Tool, args ...string) ([]byte, error) {
	return lasted(ctx, t, args, func() ([]byte, error) { return s.Runner.Run(ctx, t, args...) })
}

// worked is what stress-ng says of itself, in a few of its lines.
const worked = "metrics:\n    - stressor: cpu\n      bogo-ops-per-second-real-time: 1.500000\n"

func exit(status int) error {
	return &tool.Error{Tool: "program", Exit: status, Err: fmt.Errorf("exit status %d", status)}
}

func TestPlanRun(t *testing.T) {
	const good = `fio: a warning
{"jobs": [{"read": {"io_bytes": 1048576}, "write": {"io_bytes": 2097152}}]}`
	last := func(ctx context.Context, d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return &tool.Error{Tool: "program", Exit: -1, Err: context.Cause(ctx)}
		}
	}
	all := Profile{Name: "p", Loads: []ProfileLoad{
		{Processors: &ProcessorsLoad{Time: Duration(25 * time.Second)}}, {Memory: &MemoryLoad{Time: Duration(28 * time.Second), Amount: "1G"}},
		{Disks: &DisksLoad{Time: Duration(20 * time.Second)}},
	}}
	for _, test := range []struct {
		name    string
		disks   string
		stop    time.Duration // when somebody stops it
		run     func(b *bench) runner
		want    string // verdict, problems, parts
		said    string
		notSaid string
		// followed is in what those who follow are told.
		followed string
	}{
		{name: "all is well", disks: "vda", run: func(b *bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				if strings.HasPrefix(line, "fio") {
					const want = "fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 " +
						"--loops 1 --runtime 20 --time_based --verify_backlog 64 --output-format json --verify_interval 4096"
					if line != want {
						t.Errorf("run: %s\nwant: %s", line, want)
					}
					if n := b.held(); n != 1 {
						t.Errorf("%d disks are held while fio writes, want 1", n)
					}
					return good, last(ctx, 20*time.Second)
				}
				return "", last(ctx, 25*time.Second)
			}
		}, want: "PASS\nPASS|processors|\nPASS|memory|\nPASS|/dev/vda serial S-vda|2.0 MiB written, 1.0 MiB read back, of 1.0 MiB\nSKIPPED|/dev/vdb serial S-vdb|it was not named\n",
			followed: "0 began;0 10s;0 parts;0 20s;0 parts;0 ended, 1 parts;1 began;1 10s;0 parts;1 20s;0 parts;1 ended, 1 parts;2 began;2 10s;0 parts;",
			said:     "burn-in: processors: 10s of 25s, 1m3s left in all\nburn-in: processors: 20s of 25s, 53s left in all\nburn-in: PASS    processors\n"},
		{name: "no disk is named", run: func(*bench) runner {
			return func(context.Context, string) (string, error) { return "", nil }
		}, want: "PASS\nPASS|processors|\nPASS|memory|\nSKIPPED|/dev/vda serial S-vda|it was not named\nSKIPPED|/dev/vdb serial S-vdb|it was not named\nSKIPPED|disks|no disk was named to be overwritten\n"},
		{name: "memory is broken: the disks are tested nevertheless", disks: "vda", run: func(*bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				if strings.Contains(line, "--vm") {
					return "", exit(2)
				}
				return good, nil
			}
		}, want: "FAIL\nPASS|processors|\nFAIL|memory|program: exit status 2\nPASS|/dev/vda serial S-vda|2.0 MiB written, 1.0 MiB read back, of 1.0 MiB\nSKIPPED|/dev/vdb serial S-vdb|it was not named\n"},
		{name: "a disk is broken, the other is not", disks: "all", run: func(*bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				if strings.Contains(line, "vdb") {
					return `{"jobs": [{"error": 84}]}`, exit(1)
				}
				return good, nil
			}
		}, want: "FAIL\nPASS|processors|\nPASS|memory|\nPASS|/dev/vda serial S-vda|2.0 MiB written, 1.0 MiB read back, of 1.0 MiB\nFAIL|/dev/vdb serial S-vdb|program: exit status 1\n"},
		{name: "a disk vanishes, and has no room then", disks: "vda", run: func(b *bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				if !strings.HasPrefix(line, "fio") {
					return "", nil
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				for name := range b.root {
					if strings.HasPrefix(name, "sys/block/vda") {
						delete(b.root, name)
					}
				}
				return `{"jobs": [{"error": 28}]}`, exit(1)
			}
		}, want: "FAIL\nPASS|processors|\nPASS|memory|\nFAIL|/dev/vda serial S-vda|it is gone: program: exit status 1\nSKIPPED|/dev/vdb serial S-vdb|it was not named\n" +
			"FAIL|disk /dev/vda|lost since the burn-in began: virtio 1.0 MiB serial S-vda\n"},
		{name: "nothing was read back", disks: "vda", run: func(*bench) runner {
			return func(context.Context, string) (string, error) {
				return `{"jobs": [{"read": {"io_bytes": 0}, "write": {"io_bytes": 1048576}}]}`, nil
			}
		}, want: "SKIPPED disks: /dev/vda serial S-vda: of 1.0 MiB that were written nothing was read back in the time\nPASS|processors|\nPASS|memory|\nSKIPPED|/dev/vdb serial S-vdb|it was not named\n" +
			"SKIPPED|disks|/dev/vda serial S-vda: of 1.0 MiB that were written nothing was read back in the time\n"},
		{name: "a report that is none", disks: "vda", run: func(*bench) runner {
			return func(context.Context, string) (string, error) { return "fine", nil }
		}, want: "SKIPPED disks: /dev/vda serial S-vda: read what fio reports: invalid character 'i' in literal false (expecting 'a')\nPASS|processors|\nPASS|memory|\nSKIPPED|/dev/vdb serial S-vdb|it was not named\n" +
			"SKIPPED|disks|/dev/vda serial S-vda: read what fio reports: invalid character 'i' in literal false (expecting 'a')\n"},
		{name: "a program that could not start is no verdict", run: func(*bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				if strings.Contains(line, "--cpu") {
					return "", exit(3)
				}
				return "", nil
			}
		}, want: "SKIPPED processors: program: exit status 3\nSKIPPED|processors|program: exit status 3\nPASS|memory|\nSKIPPED|/dev/vda serial S-vda|it was not named\nSKIPPED|/dev/vdb serial S-vdb|it was not named\nSKIPPED|disks|no disk was named to be overwritten\n"},
		{name: "stopped in the second load", followed: "1 began;1 ended, 1 parts;2 ended, 1 parts;", disks: "vda", stop: 30 * time.Second, run: func(*bench) runner {
			return func(ctx context.Context, line string) (string, error) { return "", last(ctx, 25*time.Second) }
		}, want: "SKIPPED memory: stopped before its end; disks: stopped before it began\nPASS|processors|\nSKIPPED|memory|stopped after 5s: context canceled\nSKIPPED|disks|stopped before it began: context canceled\n"},
		{name: "stopped, and a part has failed before", disks: "vda", stop: 10 * time.Second, run: func(b *bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				b.change("sys/bus/pci/devices/0000:01:00.0/aer_dev_fatal", "TOTAL_ERR_FATAL 1\n")
				return "", last(ctx, 25*time.Second)
			}
		}, want: "FAIL processors: stopped before its end; memory: stopped before it began; disks: stopped before it began\nFAIL|PCIe device 0000:01:00.0|1 fatal PCIe errors\nSKIPPED|processors|stopped after 10s: context canceled\n" +
			"SKIPPED|memory|stopped before it began: context canceled\nSKIPPED|disks|stopped before it began: context canceled\n"},
		{name: "the machine does not answer at the end", run: func(b *bench) runner {
			return func(context.Context, string) (string, error) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.slow = "sys/class/net"
				return "", nil
			}
		}, want: "PASS\nPASS|processors|\nPASS|memory|\nSKIPPED|/dev/vda serial S-vda|it was not named\nSKIPPED|/dev/vdb serial S-vdb|it was not named\nSKIPPED|disks|no disk was named to be overwritten\n" +
			"|machine|what was lost since the burn-in began is not known: it did not answer within 25s\n"},
		{name: "somebody has come to use the disk", disks: "vda", run: func(b *bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				b.busy = "/dev/vda"
				return good, nil
			}
		}, want: "SKIPPED disks: /dev/vda serial S-vda: nothing was written: device or resource busy\nPASS|processors|\nPASS|memory|\nSKIPPED|/dev/vdb serial S-vdb|it was not named\nSKIPPED|disks|/dev/vda serial S-vda: nothing was written: device or resource busy\n",
			notSaid: "is through"},
		{name: "the disk holds data now", disks: "vda", run: func(b *bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				if strings.HasPrefix(line, "fio") {
					t.Error("it is written to")
				}
				b.content["/dev/vda"] = []byte("data")
				return good, nil
			}
		}, want: "SKIPPED disks: /dev/vda serial S-vda: nothing was written: it holds data: bytes at 0 that are not zero\nPASS|processors|\nPASS|memory|\nSKIPPED|/dev/vdb serial S-vdb|it was not named\n" +
			"SKIPPED|disks|/dev/vda serial S-vda: nothing was written: it holds data: bytes at 0 that are not zero\n"},
		{name: "another disk has its name", disks: "vda", run: func(b *bench) runner {
			return func(ctx context.Context, line string) (string, error) {
				if strings.HasPrefix(line, "fio") {
					t.Error("it is written to")
				}
				b.change("sys/block/vda/serial", "OTHER\n")
				return good, nil
			}
		}, want: "FAIL disks: /dev/vda serial S-vda: nothing was written: /dev/vda is another disk than the one that was chosen: its serial was \"S-vda\", is \"OTHER\"\nPASS|processors|\nPASS|memory|\nSKIPPED|/dev/vdb serial S-vdb|it was not named\n" +
			"SKIPPED|disks|/dev/vda serial S-vda: nothing was written: /dev/vda is another disk than the one that was chosen: its serial was \"S-vda\", is \"OTHER\"\n" +
			"FAIL|disk /dev/vda|lost since the burn-in began: virtio 1.0 MiB serial S-vda; came since the burn-in began: virtio 1.0 MiB serial OTHER\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: machine("vda", "vdb"), content: map[string][]byte{}}
				h := b.host(test.run(b))
				plan, err := Order{Profile: all, Disks: strings.Fields(test.disks), Every: 10 * time.Second}.Plan(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.stop > 0 {
					time.AfterFunc(test.stop, cancel)
				}
				var followed strings.Builder
				r := plan.Run(ctx, h, Following{}.And(Following{
					Began:    func(i int) { fmt.Fprintf(&followed, "%d began;", i) },
					Progress: func(i int, past time.Duration) { fmt.Fprintf(&followed, "%d %v;", i, past) },
					Sampled:  func(s Snapshot) { fmt.Fprintf(&followed, "%d parts;", len(s.Findings)) },
					Ended:    func(i int, r Report) { fmt.Fprintf(&followed, "%d ended, %d parts;", i, len(r.Parts)) },
				}))
				if got := followed.String(); !strings.Contains(got, test.followed) {
					t.Errorf("followed: %s, want %s", got, test.followed)
				}
				fitsSchema(t, r)
				got := strings.TrimSpace(string(r.Verdict)+" "+strings.Join(r.Problems, "; ")) + "\n"
				for _, l := range r.Loads {
					got += lines(l.Parts)
					if l.Load == "" || l.Started.IsZero() || l.Ended.Before(l.Started) || l.Celsius == nil {
						t.Errorf("load %+v", l)
					}
				}
				if got != test.want {
					t.Errorf("result:\n%swant:\n%s", got, test.want)
				}
				if said := b.said.String(); !strings.Contains(said, test.said) || test.notSaid != "" && strings.Contains(said, test.notSaid) {
					t.Errorf("said:\n%swant:\n%s", said, test.said)
				}
				if b.open != 0 {
					t.Errorf("%d disks are still open", b.open)
				}
				time.Sleep(time.Minute) // what hangs was left behind, and comes to its end
			})
		})
	}
}

// Where a program's own report cannot go, such as to a stick that was pulled out, the disk is tested all the same: fio would end with the status that a broken disk has.
func TestRunWithoutLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{root: machine("vda"), content: map[string][]byte{}}
		h := b.host(runner(func(ctx context.Context, line string) (string, error) {
			return `{"jobs": [{"read": {"io_bytes": 1048576}, "write": {"io_bytes": 1048576}}]}`, nil
		}))
		plan, err := Order{Profile: disksFor(DisksLoad{Loops: 1}), Disks: []string{"vda"}, Logs: filepath.Join(t.TempDir(), "gone")}.Plan(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if r := plan.Run(t.Context(), h, Following{}); r.Verdict != Pass || !strings.Contains(b.said.String(), "what the program reports is not kept") {
			t.Errorf("verdict %s: %+v\nsaid:\n%s", r.Verdict, r.Loads, b.said.String())
		}
	})
}

// A disk that is in use is not written to, by whichever of its paths it is used.
func TestOtherPaths(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error // of the second path
		want string
	}{
		{"in use by it", syscall.EBUSY, "/dev/sdb is the same disk: device or resource busy"}, {"dead", syscall.EIO, ""}, {"free", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := &bench{content: map[string][]byte{}}
			h := b.host(nil)
			open := h.Open
			h.Open = func(path string) (steps.Disk, error) {
				if path == "/dev/sdb" && test.err != nil {
					return nil, test.err
				}
				return open(path)
			}
			d := inspect.Disk{Name: "/dev/sda", Type: "disk", Size: diskSize, Paths: []inspect.Disk{{Name: "/dev/sdb"}}}
			_, written := testDisk(t.Context(), h, d, 1, 0, true, "") // the machine has no such disk, which is seen when it is open
			for what, err := range map[string]error{"unused": unused(h, []inspect.Disk{d}, true), "Writable": Writable(h, d), "testDisk": written} {
				if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) || test.want == "" && err != nil && what != "testDisk" {
					t.Errorf("%s: error %v, want %q", what, err, test.want)
				}
			}
			if n := b.held(); n != 0 {
				t.Errorf("%d are still open", n)
			}
			h.Media = []string{"/dev/sdb1"}
			if err := Writable(h, d); err == nil || !strings.Contains(err.Error(), "settings were read") {
				t.Errorf("the medium by its other path: %v", err)
			}
		})
	}
}

// A multipath device is not tested, and that is told: the disks that it is made of are in no list.
func TestMultipathIsTold(t *testing.T) {
	m := machine("vda", "dm-0")
	m["sys/block/dm-0/dm/uuid"] = &fstest.MapFile{Data: []byte("mpath-35000c50000000001\n")}
	b := &bench{root: m, content: map[string][]byte{}}
	h := b.host(nil)
	_, skipped, err := chooseDisks(t.Context(), h, steps.Node{})
	if got := lines(skipped); err != nil || !strings.Contains(got, "SKIPPED|/dev/dm-0") || !strings.Contains(got, errMultipath) {
		t.Errorf("chooseDisks: %q, %v", got, err)
	}
	_, skipped, err = listDisks(t.Context(), h).named(h, []string{AllDisks})
	if got := lines(skipped); err != nil || !strings.Contains(got, "SKIPPED|/dev/dm-0") || !strings.Contains(got, errMultipath) {
		t.Errorf("named: %q, %v", got, err)
	}
}

// A disk that hangs has failed, and keeps nobody from testing the rest; who names it is told why not.
func TestSilentDisk(t *testing.T) {
	const whole = "FAIL|/dev/vdb|" + isSilent + "\n"
	for _, test := range []struct {
		name    string
		profile Profile
		disks   string
		want    string // parts, or the error
	}{
		{"the other one is named", disksFor(DisksLoad{Loops: 1}), "S-vda", "PASS|/dev/vda serial S-vda|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\n" + whole},
		{"all", disksFor(DisksLoad{Loops: 1}), "all", "PASS|/dev/vda serial S-vda|1.0 MiB written, 1.0 MiB read back, of 1.0 MiB\n" + whole},
		{"none is named", disksFor(DisksLoad{Loops: 1}), "", "SKIPPED|/dev/vda serial S-vda|it was not named\nSKIPPED|disks|no disk was named to be overwritten\n" + whole},
		{"no disk is wanted", Profile{Loads: []ProfileLoad{{Processors: &ProcessorsLoad{Time: Duration(time.Minute)}}}}, "", "PASS|processors|\n" + whole},
		{"self-tests", Profile{Loads: []ProfileLoad{{SelfTest: &SelfTestLoad{Kind: shortTest}}}}, "", "SKIPPED|/dev/vda serial S-vda: self-test|the disk has no self-test: its drive cannot be reached\n" + whole},
		{"it is named", disksFor(DisksLoad{Loops: 1}), "vda vdb", `no disk that answers has the name or the serial number "vdb": list disks: disk vdb: no answer`},
		{"it may have the serial number", disksFor(DisksLoad{Loops: 1}), "S-vdb", "disk vdb: no answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: machine("vda", "vdb"), content: map[string][]byte{}, slow: "sys/block/vdb/size"}
				h := b.host(runner(func(context.Context, string) (string, error) {
					return `{"jobs": [{"read": {"io_bytes": 1048576}, "write": {"io_bytes": 1048576}}]}`, nil
				}))
				defer time.Sleep(time.Minute) // what hangs was left behind, and comes to its end
				plan, err := Order{Profile: test.profile, Disks: strings.Fields(test.disks)}.Plan(t.Context(), h)
				if err != nil {
					if !strings.Contains(err.Error(), test.want) {
						t.Errorf("error %v, want %q", err, test.want)
					}
					return
				}
				if !strings.Contains(plan.String(), "/dev/vdb is not tested, and fails: ") {
					t.Errorf("plan:\n%s", plan)
				}
				r := plan.Run(t.Context(), h, Following{})
				got := ""
				for _, l := range r.Loads {
					got += lines(l.Parts)
				}
				if got != test.want || r.Verdict != Fail {
					t.Errorf("%s, result:\n%swant:\n%s", r.Verdict, got, test.want)
				}
			})
		})
	}
}

// The same for Ironic's step: the disks that answer are tested first, and then it fails.
func TestSilentDiskInStep(t *testing.T) {
	for _, test := range []struct {
		name, disks, skip, slow string
		tested                  bool // vda
		err                     string
	}{
		{"one of two hangs", "vda vdb", "", "sys/block/vdb/size", true, "/dev/vdb: " + isSilent},
		{"the other is to be left alone", "vda vdb", `[{"serial": "S-vda"}]`, "sys/block/vdb/size", false, "/dev/vdb: " + isSilent},
		{"all hang", "vdb", "", "sys/block/vdb/size", false, "/dev/vdb: " + isSilent},
		{"nothing hangs", "vda", "", "", true, ""},
		{"no disk", "", "", "", false, inspect.ErrNoDisk.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: machine(strings.Fields(test.disks)...), content: map[string][]byte{}, slow: test.slow}
				h := b.host(runner(func(context.Context, string) (string, error) {
					return `{"jobs": [{"read": {"io_bytes": 4194304}, "write": {"io_bytes": 4194304}}]}`, nil
				}))
				plan := ""
				h.Confirm = func(_ context.Context, p string) error { plan = p; return nil }
				n := steps.Node{Properties: map[string]json.RawMessage{"skip_block_devices": json.RawMessage(test.skip)}}
				result, err := burnDisks(t.Context(), h, steps.Job{Node: n}, localDrives(h))
				time.Sleep(time.Minute) // what hangs was left behind, and comes to its end
				if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
					t.Errorf("burnDisks() = %+v, %v, want %q", result, err, test.err)
				}
				if hung := test.slow != ""; errors.Is(err, steps.ErrBurnIn) != hung || strings.Contains(plan, "/dev/vdb is not tested, and fails: ") != hung {
					t.Errorf("burnDisks() = %v; the plan was\n%s", err, plan)
				}
				if tested := strings.Contains(b.said.String(), "/dev/vda is through"); tested != test.tested {
					t.Errorf("/dev/vda was tested: %v; it said\n%s", tested, b.said.String())
				}
			})
		})
	}
}
