// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/erase"
)

// selfDrive is a drive that tests itself. The same drive speaks ATA, SCSI or NVMe, in the standards' bytes. The fields may be set before it is used, by one goroutine at a time.
type selfDrive struct {
	bus     string        // ata, old (ATA without logs of 48 bits), scsi, nvme
	lacks   bool          // has no self-tests
	takes   time.Duration // a test
	ends    byte          // result of a test; ATA, SCSI and NVMe have their own numbers
	lba     uint64        // that failed
	lies    bool          // takes the command, and does nothing
	refuses bool          // to start
	forgets bool          // keeps no results
	silent  time.Duration // from the start on, each question fails
	running string        // kind of test
	since   time.Time
	log     []result // oldest first
	ops     []string
}

type result struct {
	kind   byte
	result byte
	lba    uint64
}

func (d *selfDrive) Close() error { return nil }

func (d *selfDrive) begin(kind string) bool {
	if d.refuses {
		return false
	}
	d.ops = append(d.ops, kind)
	if d.lies {
		return true
	}
	if d.running != "" {
		d.finish(1)
	}
	d.running, d.since = kind, time.Now()
	return true
}

func (d *selfDrive) finish(result1 byte) {
	kind := map[string]byte{"short": 1, "long": 2}[d.running]
	lba := uint64(1<<64 - 1)
	if result1 > 2 {
		lba = d.lba
	}
	if !d.forgets {
		d.log = append(d.log, result{kind, result1, lba})
	}
	d.running = ""
}

func (d *selfDrive) stop() {
	d.ops = append(d.ops, "stop")
	if d.running != "" {
		d.finish(1)
	}
}

// now ends a test whose time has come, and says how many percent are done.
func (d *selfDrive) now() (percent int) {
	if d.running == "" {
		return 0
	}
	past := time.Since(d.since)
	if past >= d.takes {
		d.finish(d.ends)
		return 0
	}
	return int(100 * past / d.takes)
}

func (d *selfDrive) quiet() bool { return d.running != "" && time.Since(d.since) < d.silent }

func (d *selfDrive) NVMe(c erase.NVMeCommand) error {
	if d.bus != "nvme" {
		return syscall.ENOTTY
	}
	if d.quiet() {
		return syscall.EIO
	}
	switch {
	case c.Opcode == 0x06 && c.CDW10 == 1 && len(c.Data) == 4096:
		if !d.lacks {
			binary.LittleEndian.PutUint16(c.Data[256:], 1<<4)
		}
		binary.LittleEndian.PutUint16(c.Data[316:], 30)
	case c.Opcode == 0x14 && c.Namespace == 0xffffffff:
		if d.running != "" && c.CDW10 != 0xf {
			return erase.NVMeStatus(0x11d) // device self-test in progress
		}
		switch c.CDW10 {
		case 1, 2:
			if !d.begin([]string{"", "short", "long"}[c.CDW10]) {
				return erase.NVMeStatus(0x06)
			}
		case 0xf:
			d.stop()
		}
	case c.Opcode == 0x02 && c.CDW10&0xff == 6 && int(c.CDW10>>16+1)*4 == len(c.Data) && len(c.Data) == 564:
		percent := d.now()
		if d.running != "" {
			c.Data[0], c.Data[1] = map[string]byte{"short": 1, "long": 2}[d.running], byte(percent)
		}
		for i := range 20 {
			e := c.Data[4+28*i:][:28]
			if i >= len(d.log) {
				e[0] = 0x0f
				continue
			}
			r := d.log[len(d.log)-1-i]
			e[0], e[1], e[4] = r.kind<<4|r.result, 2, byte(len(d.log)-i)
			if r.lba != 1<<64-1 {
				e[2], e[12] = 3, 1
				binary.LittleEndian.PutUint64(e[16:], r.lba)
			}
		}
	default:
		return erase.NVMeStatus(1)
	}
	return nil
}

func (d *selfDrive) SCSI(c erase.SCSICommand) (erase.SCSIAnswer, error) {
	if d.quiet() {
		return erase.SCSIAnswer{}, syscall.EIO
	}
	illegal := erase.SCSIAnswer{Status: 2, Sense: []byte{0x72, 5, 0x20, 0, 0, 0, 0, 0}}
	if d.bus == "scsi" {
		return d.scsi(c, illegal), nil
	}
	aborted := erase.SCSIAnswer{Status: 2, Sense: []byte{0x72, 0xb, 0, 0, 0, 0, 0, 14, 0x09, 12, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x51}}
	if len(c.CDB) != 16 || c.CDB[0] != 0x85 || !strings.Contains("ata old", d.bus) {
		return illegal, nil
	}
	command, feature, low, mid, high := c.CDB[14], c.CDB[4], c.CDB[8], c.CDB[10], c.CDB[12]
	if command == 0x2f && d.bus == "ata" && c.CDB[1]&1 == 1 && low == 0x07 && len(c.In) == 512 { // 48 bits: the page is in LBA 15:8
		if n := len(d.log); n > 0 {
			binary.LittleEndian.PutUint16(c.In[2:], uint16(n))
			for i, r := range d.log[int(mid)*19 : min(n, int(mid)*19+19)] {
				e := c.In[4+26*i:]
				e[0], e[1] = r.kind, r.result<<4
				for j := range 6 {
					e[5+j] = byte(r.lba >> (8 * j))
				}
			}
		}
		return erase.SCSIAnswer{}, nil
	}
	if command != 0xb0 || mid != 0x4f || high != 0xc2 {
		return aborted, nil
	}
	switch {
	case feature == 0xd0 && len(c.In) == 512:
		b := c.In
		percent := d.now()
		switch {
		case d.running != "":
			b[363] = 0xf0 | byte((100-percent+9)/10)
		case len(d.log) > 0:
			b[363] = d.log[len(d.log)-1].result << 4
		}
		if !d.lacks {
			b[367] = 1 << 4
		}
		b[372], b[373], b[375], b[376] = 2, 0xff, 0x2c, 1 // 300 minutes
		sum := byte(0)
		for _, n := range b[:511] {
			sum += n
		}
		b[511] = -sum
	case feature == 0xd4 && (low == 1 || low == 2) && c.In == nil:
		if !d.begin([]string{"", "short", "long"}[low]) {
			return aborted, nil
		}
	case feature == 0xd4 && low == 0x7f:
		d.stop()
	case feature == 0xd5 && low == 6 && len(c.In) == 512:
		for i, r := range d.log {
			e := c.In[2+24*i:]
			e[0], e[1] = r.kind, r.result<<4
			binary.LittleEndian.PutUint32(e[5:], uint32(r.lba))
		}
		c.In[508] = byte(len(d.log))
	default:
		return aborted, nil
	}
	return erase.SCSIAnswer{}, nil
}

func (d *selfDrive) scsi(c erase.SCSICommand, illegal erase.SCSIAnswer) erase.SCSIAnswer {
	percent := d.now()
	switch {
	case c.CDB[0] == 0x4d && c.CDB[2] == 0x50 && !d.lacks:
		all := append([]result{}, d.log...)
		if d.running != "" {
			all = append(all, result{map[string]byte{"short": 1, "long": 2}[d.running], 0xf, 1<<64 - 1})
		}
		c.In[0] = 0x10
		binary.BigEndian.PutUint16(c.In[2:], 400)
		for i := range 20 {
			e := c.In[4+20*i:][:20]
			e[1], e[3] = byte(i+1), 0x10
			if i < len(all) {
				r := all[len(all)-1-i]
				e[4], e[7] = r.kind<<5|r.result, byte(len(all)-i)
				binary.BigEndian.PutUint64(e[8:], r.lba)
				if r.result == 7 {
					e[5], e[16], e[17] = 9, 3, 0x11
				}
			}
		}
	case c.CDB[0] == 0x03:
		if d.running != "" {
			copy(c.In, []byte{0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 4, 9, 0, 0x80, byte(percent * 256 / 100), 0})
		}
	case c.CDB[0] == 0x1a && c.CDB[2] == 0x0a:
		c.In[4], c.In[5], c.In[14], c.In[15] = 0x0a, 0x0a, 0xff, 0xff
	case c.CDB[0] == 0x12 && c.CDB[1] == 1 && c.CDB[2] == 0x86:
		c.In[1], c.In[10], c.In[11] = 0x86, 5, 0 // 1280 minutes
	case c.CDB[0] == 0x1d && (c.CDB[1] == 0x20 || c.CDB[1] == 0x40):
		if !d.begin(map[byte]string{0x20: "short", 0x40: "long"}[c.CDB[1]]) {
			return illegal
		}
	case c.CDB[0] == 0x1d && c.CDB[1] == 0x80:
		d.stop()
	default:
		return illegal
	}
	return erase.SCSIAnswer{}
}

func TestSelfTest(t *testing.T) {
	disk := map[string]inspect.Disk{
		"ata": {Name: "/dev/sda", Vendor: "ATA", Tran: "sata"}, "old": {Name: "/dev/sda", Vendor: "ATA"}, "scsi": {Name: "/dev/sda", Vendor: "SEAGATE", Tran: "sas"},
		"nvme": {Name: "/dev/nvme0n1", Tran: "nvme"}, "usb": {Name: "/dev/sda", Tran: "usb"}, "virtio": {Name: "/dev/vda"},
	}
	passed := []result{{1, 0, 1<<64 - 1}}
	for _, test := range []struct {
		name  string
		drive selfDrive
		long  bool
		stop  time.Duration
		want  string // parts, or the error
		ops   string
		last  int // percentage shown at last
	}{
		{name: "ATA", drive: selfDrive{bus: "ata", takes: 95 * time.Second}, want: "PASS||short, after 1m40s\n", ops: "short", last: 100},
		{name: "ATA, long, after others", drive: selfDrive{bus: "ata", takes: 4 * time.Hour, log: bytesOf(passed, 20)}, long: true, want: "PASS||long, after 4h0m0s\n", ops: "long", last: 100},
		{name: "ATA that is done at once", drive: selfDrive{bus: "ata", takes: time.Second, log: passed}, want: "PASS||short, after 10s\n", ops: "short", last: 100},
		{name: "ATA that fails", drive: selfDrive{bus: "ata", takes: time.Minute, ends: 7, lba: 1 << 33}, want: "FAIL||short: failed in reading, at LBA 8589934592\n", ops: "short", last: 100},
		{name: "ATA that fails, an old one", drive: selfDrive{bus: "old", takes: time.Minute, ends: 6, lba: 77, log: passed}, want: "FAIL||short: failed in the servo or seek part, at LBA 77\n", ops: "short", last: 100},
		{name: "ATA that fails nowhere", drive: selfDrive{bus: "old", takes: time.Minute, ends: 5, lba: 1<<32 - 1}, want: "FAIL||short: failed in the electrical part\n", ops: "short", last: 100},
		{name: "ATA that fails in a way of its own", drive: selfDrive{bus: "old", takes: time.Minute, ends: 12, lba: 1<<28 - 1}, want: "FAIL||short: failed with the status Ch\n", ops: "short", last: 100},
		{name: "ATA, interrupted", drive: selfDrive{bus: "ata", takes: time.Minute, ends: 2}, want: "interrupted by a reset", ops: "short"},
		{name: "ATA without", drive: selfDrive{bus: "ata", lacks: true}, want: "SKIPPED||the disk has no self-test, it says\n"},
		{name: "ATA that refuses", drive: selfDrive{bus: "ata", refuses: true}, want: "start: the drive aborted the command"},
		{name: "ATA that does nothing", drive: selfDrive{bus: "ata", lies: true, log: passed}, want: "the drive took the command, and did nothing", ops: "short"},
		{name: "ATA with a test from before", drive: selfDrive{bus: "ata", running: "long", takes: time.Minute}, want: "PASS||short, after 1m0s\n", ops: "stop short", last: 100},
		{name: "ATA that does not answer for a while", drive: selfDrive{bus: "ata", takes: time.Minute, silent: 35 * time.Second}, want: "PASS||short, after 1m0s\n", ops: "short", last: 100},
		{name: "ATA that does not answer any more", drive: selfDrive{bus: "ata", takes: time.Hour, silent: time.Hour}, want: "ask how far it is: input/output error", ops: "short"},
		{name: "ATA that never ends", drive: selfDrive{bus: "ata", takes: 1000 * time.Hour}, want: "not done after 16m0s; the drive promised 2m0s", ops: "short stop"},
		{name: "ATA, stopped", drive: selfDrive{bus: "ata", takes: time.Hour}, stop: 42 * time.Second, want: "context canceled", ops: "short stop"},

		{name: "SCSI", drive: selfDrive{bus: "scsi", takes: 95 * time.Second}, want: "PASS||short, after 1m40s\n", ops: "short", last: 100},
		{name: "SCSI, long", drive: selfDrive{bus: "scsi", takes: 20 * time.Hour, log: passed}, long: true, want: "PASS||long, after 20h0m0s\n", ops: "long", last: 100},
		{name: "SCSI that fails", drive: selfDrive{bus: "scsi", takes: time.Minute, ends: 7, lba: 1 << 40}, want: "FAIL||short: failed in a later segment, segment 9, at LBA 1099511627776 (sense 3/11/00)\n", ops: "short", last: 100},
		{name: "SCSI, interrupted", drive: selfDrive{bus: "scsi", takes: time.Minute, ends: 2}, want: "interrupted by a reset", ops: "short"},
		{name: "SCSI without", drive: selfDrive{bus: "scsi", lacks: true}, want: "SKIPPED||the disk has no self-test that it tells of: log page of results: the drive refuses: SCSI status 0x02, sense 5/20/00\n"},
		{name: "SCSI that does nothing", drive: selfDrive{bus: "scsi", lies: true}, want: "and did nothing", ops: "short"},
		{name: "SCSI, stopped", drive: selfDrive{bus: "scsi", takes: time.Hour}, stop: 42 * time.Second, want: "context canceled", ops: "short stop"},

		{name: "NVMe", drive: selfDrive{bus: "nvme", takes: 95 * time.Second}, want: "PASS||short, after 1m40s\n", ops: "short", last: 100},
		{name: "NVMe, long", drive: selfDrive{bus: "nvme", takes: 20 * time.Minute, log: passed}, long: true, want: "PASS||long, after 20m0s\n", ops: "long", last: 100},
		{name: "NVMe that fails", drive: selfDrive{bus: "nvme", takes: time.Minute, ends: 7, lba: 5}, want: "FAIL||short: failed in segment 2, namespace 1, at LBA 5\n", ops: "short", last: 100},
		{name: "NVMe, interrupted", drive: selfDrive{bus: "nvme", takes: time.Minute, ends: 2}, want: "interrupted by a reset of the controller", ops: "short"},
		{name: "NVMe without", drive: selfDrive{bus: "nvme", lacks: true}, want: "SKIPPED||the disk has no self-test, its controller says\n"},
		{name: "NVMe that refuses", drive: selfDrive{bus: "nvme", refuses: true}, want: "start: the drive says: internal error"},
		{name: "NVMe that does nothing", drive: selfDrive{bus: "nvme", lies: true}, want: "and did nothing", ops: "short"},
		{name: "NVMe with a test from before", drive: selfDrive{bus: "nvme", running: "long", takes: time.Minute}, want: "PASS||short, after 1m0s\n", ops: "stop short", last: 100},
		{name: "SCSI that keeps no result", drive: selfDrive{bus: "scsi", takes: time.Minute, forgets: true}, want: "it ended, and the drive has kept no result of it", ops: "short"},
		{name: "SCSI that keeps none, but one of before", drive: selfDrive{bus: "scsi", takes: time.Minute, forgets: true, log: passed}, want: "it ended, and the drive has kept no result of it", ops: "short"},
		{name: "NVMe that keeps no result, but one of before", drive: selfDrive{bus: "nvme", takes: time.Minute, forgets: true, log: passed}, want: "it ended, and the drive has kept no result of it", ops: "short"},
		{name: "NVMe, stopped", drive: selfDrive{bus: "nvme", takes: time.Hour}, stop: 42 * time.Second, want: "context canceled", ops: "short stop"},

		{name: "USB", drive: selfDrive{bus: "usb"}, want: "SKIPPED||the disk has no self-test that can be asked for: adapters for USB hang at what they do not know\n"},
		{name: "a virtual disk", drive: selfDrive{bus: "virtio"}, want: "SKIPPED||the disk has no self-test: it takes no commands of ATA, SCSI or NVMe\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &test.drive
				d.since = time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.stop > 0 {
					time.AfterFunc(test.stop, cancel)
				}
				last := 0
				parts, err := selfTest(ctx, func(string) (erase.Drive, error) { return d, nil }, disk[d.bus], test.long, func(p int) {
					if p < last || p > 100 {
						t.Errorf("%d %% after %d %%", p, last)
					}
					last = p
				})
				got := strings.ReplaceAll(lines(parts), testName(disk[d.bus]), "")
				if err != nil {
					got = err.Error()
				}
				if err == nil && got != test.want || err != nil && !strings.Contains(got, test.want) || (err != nil) == strings.HasSuffix(test.want, "\n") {
					t.Errorf("selfTest() = %q, want %q", got, test.want)
				}
				if got := strings.Join(d.ops, " "); got != test.ops {
					t.Errorf("commands: %s, want %s", got, test.ops)
				}
				if test.last > 0 && last != test.last {
					t.Errorf("at last it was at %d %%", last)
				}
			})
		})
	}
}

func bytesOf(one []result, n int) (many []result) {
	for range n {
		many = append(many, one...)
	}
	return many
}

// A drive that hangs in the kernel holds nobody up.
func TestSelfTestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		_, err := selfTest(t.Context(), func(string) (erase.Drive, error) { <-free; return nil, fs.ErrClosed }, inspect.Disk{Name: "/dev/sda"}, false, nil)
		if err == nil || !strings.Contains(err.Error(), "no answer within") {
			t.Errorf("error %v", err)
		}
		close(free)
	})
}

// A profile's self-tests run beside each other, one for each controller, and last as long as the slowest drive promises.
func TestPlanSelfTest(t *testing.T) {
	for _, test := range []struct {
		name    string
		fails   byte
		refuses bool
		want    string
	}{
		{name: "all is well", want: `PASS
SKIPPED|/dev/nvme1n2: self-test|its controller tests it with /dev/nvme1n1
PASS|/dev/nvme1n1: self-test|short, after 1m0s
PASS|/dev/sda: self-test|short, after 1m0s
SKIPPED|/dev/vda serial S-vda: self-test|the disk has no self-test: it takes no commands of ATA, SCSI or NVMe
`},
		{name: "one fails", fails: 6, want: "FAIL\n"},
		{name: "one cannot", refuses: true, want: "SKIPPED\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: machine("sda", "nvme1n1", "nvme1n2", "vda")}
				for _, n := range []string{"sda"} {
					b.change("sys/block/"+n+"/device/vendor", "ATA")
				}
				drives := map[string]*selfDrive{
					"/dev/sda":     {bus: "ata", takes: time.Minute, ends: test.fails, lba: 1, refuses: test.refuses},
					"/dev/nvme1n1": {bus: "nvme", takes: time.Minute}, "/dev/nvme1n2": {bus: "nvme", takes: time.Minute},
				}
				h := b.host(nil)
				o := Order{Profile: Profile{Name: "p", Loads: []ProfileLoad{{SelfTest: &SelfTestLoad{Kind: "short"}}}}, drives: func(path string) (erase.Drive, error) {
					if drives[path] == nil {
						return nil, fs.ErrNotExist
					}
					return drives[path], nil
				}}
				plan, err := o.Plan(t.Context(), h)
				if err != nil {
					t.Fatal(err)
				}
				if want := "burn-in p: 2m0s\n1. self-tests, short, of the drives that have them: 3 of 4\n"; plan.String() != want {
					t.Errorf("plan %q, want %q", plan, want)
				}
				r := plan.Run(t.Context(), h, Following{})
				got := string(r.Verdict) + "\n" + lines(r.Loads[0].Parts)
				if !strings.HasPrefix(got, strings.SplitAfter(test.want, "\n")[0]) {
					t.Errorf("result:\n%s", got)
				}
				for line := range strings.Lines(test.want) {
					if !strings.Contains(got, line) {
						t.Errorf("result:\n%swant the line %s", got, line)
					}
				}
				if took := r.Ended.Sub(r.Started); took != time.Minute {
					t.Errorf("the run took %v", took)
				}
				if len(drives["/dev/nvme1n2"].ops) > 0 {
					t.Errorf("a controller was asked twice")
				}
			})
		})
	}
}

// After fio each disk tests itself, if Ironic's option wants it.
func TestDiskSelfTest(t *testing.T) {
	for _, test := range []struct {
		name  string
		drive *selfDrive // nil: it cannot be opened
		want  string
	}{
		{"a drive that has them", &selfDrive{bus: "ata", takes: 3 * time.Hour}, "PASS|/dev/sda|4.0 MiB written, 4.0 MiB read back, of 1.0 MiB\nPASS|/dev/sda: self-test|long, after 3h0m0s\n"},
		{"a drive that has none", &selfDrive{bus: "ata", lacks: true}, "PASS|/dev/sda|4.0 MiB written, 4.0 MiB read back, of 1.0 MiB\nSKIPPED|/dev/sda: self-test|the disk has no self-test, it says\n"},
		{"a drive that fails", &selfDrive{bus: "ata", takes: 3 * time.Hour, ends: 7, lba: 9}, "/dev/sda: self-test: long: failed in reading, at LBA 9"},
		{"a drive that cannot be reached", nil, "/dev/sda: self-test: permission denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{root: machine("sda")}
				b.change("sys/block/sda/device/vendor", "ATA")
				h := b.host(runner(func(context.Context, string) (string, error) {
					return `{"jobs": [{"read": {"io_bytes": 4194304}, "write": {"io_bytes": 4194304}}]}`, nil
				}))
				result, err := burnDisks(t.Context(), h, steps.Job{Node: steps.Node{Record: map[string]any{"driver_info": map[string]any{"agent_burnin_fio_disk_smart_test": "True"}}}}, func(string) (erase.Drive, error) {
					if test.drive == nil {
						return nil, syscall.EACCES
					}
					return test.drive, nil
				})
				got := fmt.Sprint(err)
				if err == nil {
					got = lines(result.(Report).Parts)
				}
				if err == nil && got != test.want || !strings.Contains(got, test.want) {
					t.Errorf("result %s, want %s", got, test.want)
				}
			})
		})
	}
}

// What drives say is outside bytes.
func FuzzTestLogs(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xf1}, 600))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(b, make([]byte, 600)...)
		for _, s := range []testState{parseSCSITest(b[:404]), parseNVMeTest(b[:564])} {
			if s.outcome == testFailed && s.text == "" {
				t.Error("a failure without a reason")
			}
		}
		parseATAEntry(b[:26], true)
		a := ataTester{bytesDrive(b)}
		if _, _, err := a.newest(); err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
	})
}

// bytesDrive answers each ATA question with the same bytes, and has no logs of 48 bits if they begin with an even one.
type bytesDrive []byte

func (b bytesDrive) Close() error                   { return nil }
func (b bytesDrive) NVMe(c erase.NVMeCommand) error { return errors.ErrUnsupported }
func (b bytesDrive) SCSI(c erase.SCSICommand) (erase.SCSIAnswer, error) {
	if c.CDB[14] == 0x2f && b[0]&1 == 0 {
		return erase.SCSIAnswer{}, errors.ErrUnsupported
	}
	copy(c.In, b)
	return erase.SCSIAnswer{}, nil
}
