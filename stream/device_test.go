// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

// strict is a block device in memory that insists on alignment as O_DIRECT does.
type strict struct {
	bytes   []byte
	sector  int64
	zeroOut error // what ZeroOut says; nil when it can
	busy    int   // how many times RereadPartitions is
	reread  error // what it says then
	ops     []string
}

func (s *strict) check(op string, b []byte, at, n int64) error {
	s.ops = append(s.ops, fmt.Sprintf("%s %d %d", op, at, n))
	if b != nil && !isAligned(b) || at%s.sector != 0 || n%s.sector != 0 || at+n > int64(len(s.bytes)) {
		return fmt.Errorf("%s of %d at %d: not aligned", op, n, at)
	}
	return nil
}

func (s *strict) ReadAt(b []byte, at int64) (int, error) {
	if err := s.check("read", b, at, int64(len(b))); err != nil {
		return 0, err
	}
	return copy(b, s.bytes[at:]), nil
}

func (s *strict) WriteAt(b []byte, at int64) (int, error) {
	if err := s.check("write", b, at, int64(len(b))); err != nil {
		return 0, err
	}
	return copy(s.bytes[at:], b), nil
}

func (s *strict) ZeroOut(at, n int64) error {
	if s.zeroOut != nil {
		return s.zeroOut
	}
	if err := s.check("zero", nil, at, n); err != nil {
		return err
	}
	clear(s.bytes[at : at+n])
	return nil
}

func (s *strict) RereadPartitions() error {
	if s.busy--; s.busy >= 0 {
		return errBusy
	}
	return s.reread
}

func (s *strict) Partitions() ([]Partition, error) { return nil, nil }

func (s *strict) Sync() error  { return nil }
func (s *strict) Close() error { return nil }

func newStrict(size int, sector int64) (*strict, *Device) {
	s := &strict{bytes: noise(size), sector: sector}
	return s, newDevice("/dev/test", s, int64(size), int(sector))
}

func TestDeviceReadAt(t *testing.T) {
	const size = 3<<20 + 4096
	for _, sector := range []int64{512, 4096} {
		s, d := newStrict(size, sector)
		for _, tt := range []struct{ at, n int64 }{
			{0, 4096}, {0, 1}, {511, 2}, {4095, 2}, {100, 3 << 20}, {size - 1, 1}, {size - 5000, 5000}, {0, size}, {4096, 0}, {1 << 20, 1 << 20}, {1<<20 - 7, 1<<20 + 14},
		} {
			for _, shift := range []int64{0, 1} { // in memory
				b := alignedBuffer(int(tt.n + shift))[shift:]
				if n, err := d.ReadAt(b, tt.at); n != len(b) || err != nil || !bytes.Equal(b, s.bytes[tt.at:tt.at+tt.n]) {
					t.Errorf("sectors of %d: ReadAt(%d bytes, %d) = %d, %v, or other bytes", sector, tt.n, tt.at, n, err)
				}
			}
		}
		b := make([]byte, 100)
		if n, err := d.ReadAt(b, size-40); n != 40 || err != io.EOF || !bytes.Equal(b[:40], s.bytes[size-40:]) {
			t.Errorf("sectors of %d: ReadAt over the end = %d, %v; want 40, EOF", sector, n, err)
		}
		if n, err := d.ReadAt(b, size+4096); n != 0 || err != io.EOF {
			t.Errorf("sectors of %d: ReadAt behind the end = %d, %v; want EOF", sector, n, err)
		}
		if n, err := d.ReadAt(b, -1); n != 0 || err == nil {
			t.Errorf("sectors of %d: ReadAt before the start = %d, %v; want an error", sector, n, err)
		}
	}
}

func TestDeviceWrite(t *testing.T) {
	const size = 4 << 20
	for _, tt := range []struct {
		name   string
		sector int64
		at, n  int64
		shift  int64 // in memory
		zero   bool
		err    string
	}{
		{name: "aligned", sector: 512, at: 512, n: 1024},
		{name: "odd memory", sector: 4096, at: 4096, n: 3 << 20, shift: 3},
		{name: "to the end", sector: 4096, at: size - 4096, n: 4096},
		{name: "zero", sector: 512, at: 512, n: size - 512, zero: true},
		{name: "odd offset", sector: 512, at: 100, n: 512, err: "not whole sectors of 512"},
		{name: "odd length", sector: 4096, at: 4096, n: 512, err: "not whole sectors of 4096"},
		{name: "over the end", sector: 512, at: size - 512, n: 1024, err: "are not on /dev/test"},
		{name: "before the start", sector: 512, at: -512, n: 1024, err: "are not on /dev/test"},
		{name: "far away", sector: 512, at: 1<<63 - 512, n: 512, err: "are not on /dev/test"},
		{name: "zero, odd offset", sector: 4096, at: 512, n: 4096, zero: true, err: "not whole sectors"},
		{name: "zero over the end", sector: 4096, at: 4096, n: size, zero: true, err: "are not on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, d := newStrict(size, tt.sector)
			want := bytes.Clone(s.bytes)
			b := alignedBuffer(int(tt.n + tt.shift))[tt.shift:]
			var err error
			if tt.zero {
				err = d.Zero(t.Context(), tt.at, tt.n)
			} else {
				for i := range b {
					b[i] = byte(i)
				}
				_, err = d.WriteAt(b, tt.at)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error is %v, want one with %q", err, tt.err)
				}
			} else if err != nil {
				t.Error(err)
			} else {
				copy(want[tt.at:], b)
			}
			if !bytes.Equal(s.bytes, want) {
				t.Error("the device holds something else")
			}
		})
	}
}

func TestDeviceZeroLadder(t *testing.T) {
	broken := errors.New("medium error")
	for _, tt := range []struct {
		name    string
		zeroOut error
		ops     string
		is      error
	}{
		{name: "by the kernel", ops: "zero 4096 3141632"},
		{name: "by writing", zeroOut: errors.ErrUnsupported, ops: "write 4096 1048576, write 1052672 1048576, write 2101248 1044480"},
		{name: "an error is not a missing command", zeroOut: broken, is: broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, d := newStrict(4<<20, 4096)
			s.zeroOut = tt.zeroOut
			err := d.Zero(t.Context(), 4096, 3<<20-4096)
			if !errors.Is(err, tt.is) {
				t.Fatalf("Zero(...) = %v, want %v", err, tt.is)
			}
			if got := strings.Join(s.ops, ", "); got != tt.ops {
				t.Errorf("did %s, want %s", got, tt.ops)
			}
			if err == nil && !bytes.Equal(s.bytes[4096:3<<20], make([]byte, 3<<20-4096)) {
				t.Error("it is not zero")
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, d := newStrict(1<<20, 512); !errors.Is(d.Zero(ctx, 0, 512), context.Canceled) || len(s.ops) > 0 {
		t.Error("Zero does not heed its context")
	}
}

func TestDeviceReread(t *testing.T) {
	unreadable := errors.New("not a partition table")
	for _, tt := range []struct {
		name   string
		busy   int
		reread error
		is     error
	}{
		{name: "at once"},
		{name: "busy for a while", busy: 5},
		{name: "busy for ever", busy: 1000, is: errBusy},
		{name: "other error", busy: 2, reread: unreadable, is: unreadable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newStrict(1<<20, 512)
				s.busy, s.reread = tt.busy, tt.reread
				start := time.Now()
				if err := d.RereadPartitions(t.Context()); !errors.Is(err, tt.is) {
					t.Errorf("RereadPartitions() = %v, want %v", err, tt.is)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestFindPartitions(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	good := fstest.MapFS{
		"disk/size": file("1000"), "disk/queue/logical_block_size": file("4096"),
		"disk/sda2/partition": file("2"), "disk/sda2/start": file("4096"), "disk/sda2/size": file("8"),
		"disk/sda10/partition": file("10"), "disk/sda10/start": file("8192"), "disk/sda10/size": file("2"),
		"disk/sda1/partition": file("1"), "disk/sda1/start": file("2048"), "disk/sda1/size": file("2048"),
	}
	for _, tt := range []struct {
		name, disk string
		fs         fstest.MapFS
		want, err  string
	}{
		{"three", "disk", good, "[{1 1048576 1048576} {2 2097152 4096} {10 4194304 1024}]", ""},
		{"none", "disk", fstest.MapFS{"disk/size": file("1000")}, "[]", ""},
		{"no disk", "other", good, "[]", "other: file does not exist"},
		{"no start", "disk", fstest.MapFS{"disk/sda1/partition": file("1")}, "[]", "disk/sda1/start: file does not exist"},
		{"size of nonsense", "disk", fstest.MapFS{"disk/sda1/partition": file("1"), "disk/sda1/start": file("1"), "disk/sda1/size": file("-x")}, "[]", "size of sda1"},
		{"start of nonsense", "disk", fstest.MapFS{"disk/sda1/partition": file("1"), "disk/sda1/start": file("99999999999999999999")}, "[]", "start of sda1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findPartitions(tt.fs, tt.disk)
			if fmt.Sprint(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("findPartitions() = %v, %v; want %s, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestFindUses(t *testing.T) {
	const (
		mounts = `21 27 0:19 / /sys rw,nosuid - sysfs sysfs rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 27 8:1 /srv /mnt/with\040space rw - ext4 /dev/sda1 rw
31 27 0:44 / /data rw - btrfs /dev/sda3 rw
32 27 8:16 / /other rw - ext4 /dev/sdb rw
broken line
`
		swaps = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/sda2                               partition\t1000\t0\t-2\n"
	)
	dev := func(number string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(number + "\n")} }
	full := fstest.MapFS{
		"proc/self/mountinfo":               {Data: []byte(mounts)},
		"proc/swaps":                        {Data: []byte(swaps)},
		"sys/dev/block/8:0/uevent":          {Data: []byte("MAJOR=8\nMINOR=0\nDEVNAME=sda\nDEVTYPE=disk\n")},
		"sys/class/block/sda/dev":           dev("8:0"),
		"sys/class/block/sda/holders":       {Mode: 0o755 | 1<<31},
		"sys/class/block/sda/queue/x":       {},
		"sys/class/block/sda/sda1/x":        {},
		"sys/class/block/sda/sda2/x":        {},
		"sys/class/block/sda/sda3/x":        {},
		"sys/class/block/sda/sda4/x":        {},
		"sys/class/block/sda1/dev":          dev("8:1"),
		"sys/class/block/sda1/holders":      {Mode: 0o755 | 1<<31},
		"sys/class/block/sda2/dev":          dev("8:2"),
		"sys/class/block/sda2/holders":      {Mode: 0o755 | 1<<31},
		"sys/class/block/sda3/dev":          dev("8:3"),
		"sys/class/block/sda3/holders":      {Mode: 0o755 | 1<<31},
		"sys/class/block/sda4/dev":          dev("8:4"),
		"sys/class/block/sda4/holders/md12": {},
		"sys/class/block/sda4/holders/dm-0": {},
		"sys/dev/block/8:32/uevent":         {Data: []byte("DEVNAME=sdc\n")},
		"sys/class/block/sdc/dev":           dev("8:32"),
		"sys/class/block/sdc/holders":       {Mode: 0o755 | 1<<31},
		"sys/dev/block/8:48/uevent":         {Data: []byte("MAJOR=8\n")},
	}
	for _, tt := range []struct {
		name         string
		major, minor uint32
		want         string
		fails        bool
	}{
		{name: "everything", major: 8, minor: 0, want: "/dev/sda1 is mounted at /, /dev/sda1 is mounted at /mnt/with space, /dev/sda2 is swapped to, " +
			"/dev/sda3 is mounted at /data, /dev/sda4 is part of /dev/dm-0, /dev/sda4 is part of /dev/md12"},
		{name: "nothing that the kernel tells", major: 8, minor: 32, want: "another program has it open"},
		{name: "no such device", major: 9, minor: 1, fails: true},
		{name: "no name", major: 8, minor: 48, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findUses(full, tt.major, tt.minor)
			if (err != nil) != tt.fails || strings.Join(got, ", ") != tt.want {
				t.Errorf("findUses(%d:%d) = %q, %v; want %q", tt.major, tt.minor, got, err, tt.want)
			}
		})
	}
}
