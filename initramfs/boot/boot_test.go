// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"
)

func TestBackoff(t *testing.T) {
	var b backoff
	for i, test := range []struct{ ran, want time.Duration }{
		{time.Second, time.Second},
		{0, 2 * time.Second},
		{59 * time.Second, 4 * time.Second},
		{0, 8 * time.Second},
		{0, 16 * time.Second},
		{0, 30 * time.Second},
		{0, 30 * time.Second},
		{time.Minute, time.Second},
		{0, 2 * time.Second},
	} {
		if got := b.next(test.ran); got != test.want {
			t.Errorf("wait %d, after a run of %v, = %v, want %v", i, test.ran, got, test.want)
		}
	}
}

func TestParseCmdline(t *testing.T) {
	tests := []struct{ line, want string }{
		{"", ""},
		{"\n", ""},
		{"quiet", "quiet|"},
		{" a=b  c\n", "a|b c|"},
		{`a="b c" d`, "a|b c d|"},
		{`"a=b c" d=e`, "a|b c d|e"},
		{"a=b=c", "a|b=c"},
		{`a="b`, "a|b"},
		{"=x", "|x"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			var got []string
			for _, p := range parseCmdline(test.line) {
				got = append(got, p.key+"|"+p.value)
			}
			if g := strings.Join(got, " "); g != test.want {
				t.Errorf("parseCmdline(%q) = %s, want %s", test.line, g, test.want)
			}
		})
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add(`console=ttyS0,115200n8 modprobe.blacklist=a,b a.b="c d" ironhand.hostname=x`)
	f.Fuzz(func(t *testing.T, line string) {
		all := parseCmdline(line)
		if len(all) > len(line) {
			t.Errorf("%d parameters in %d bytes", len(all), len(line))
		}
		moduleParameters(all)
		name, _ := hostname(all)
		if name == "" || len(name) > 64 {
			t.Errorf("host name %q", name)
		}
		for _, p := range ports("", all) {
			if strings.Contains(p.name, "/") {
				t.Errorf("console %q", p.name)
			}
		}
	})
}

func TestHostname(t *testing.T) {
	tests := []struct {
		cmdline, want string
		refused       bool
	}{
		{"quiet", "ironhand", false},
		{"ironhand.hostname=node-7.example", "node-7.example", false},
		{"ironhand.hostname=a ironhand.hostname=b", "b", false},
		{"ironhand.hostname", "ironhand", true},
		{"ironhand.hostname=-x", "ironhand", true},
		{"ironhand.hostname=a_b", "ironhand", true},
		{"ironhand.hostname=" + strings.Repeat("a", 65), "ironhand", true},
	}
	for _, test := range tests {
		t.Run(test.cmdline, func(t *testing.T) {
			got, err := hostname(parseCmdline(test.cmdline))
			if got != test.want || (err != nil) != test.refused {
				t.Errorf("hostname = %s, %v; want %s", got, err, test.want)
			}
		})
	}
}

func TestParseUevent(t *testing.T) {
	tests := []struct {
		name, message string
		want          uevent
		refused       bool
	}{
		{"add", "add@/devices/pci0000:00/usb1/1-1/1-1:1.0\x00ACTION=add\x00SUBSYSTEM=usb\x00MODALIAS=usb:v46F4\x00SEQNUM=7\x00",
			uevent{"add", "/devices/pci0000:00/usb1/1-1/1-1:1.0", "usb", "usb:v46F4"}, false},
		{"no modalias", "remove@/devices/x\x00SUBSYSTEM=block\x00", uevent{"remove", "/devices/x", "block", ""}, false},
		{"udev's own", "libudev\x00\xfe\xed\xca\xfe", uevent{}, true},
		{"empty", "", uevent{}, true},
		{"no end", "add@/devices/x", uevent{}, true},
		{"no action", "@/devices/x\x00", uevent{}, true},
		{"no path", "add@devices\x00", uevent{}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseUevent([]byte(test.message))
			if got != test.want || (err != nil) != test.refused {
				t.Errorf("parseUevent = %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00ACTION=add\x00SUBSYSTEM=usb\x00MODALIAS=usb:v\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := parseUevent(b); err == nil && (e.action == "" || e.path == "") {
			t.Errorf("parseUevent(%q) = %+v", b, e)
		}
	})
}

func TestOutputLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	tests := []struct{ name, output, want string }{
		{"none", "", ""},
		{"lines", "a\nb\r\n", "a|b|"},
		{"no end", "a\nb", "a|b|"},
		{"empty line", "a\n\nb\n", "a||b|"},
		{"long", long + "yz\n", long + "|yz|"},
		{"steering a terminal", "a\x1b[2Jb\x9bc\x00\td\x7f\n", "a?[2Jb?c?\td?|"},
		{"not UTF-8", "a\xffb ä\n", "a?b ä|"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got strings.Builder
			if err := eachOutputLine(strings.NewReader(test.output), func(line string) { got.WriteString(line + "|") }); err != nil {
				t.Fatal(err)
			}
			if got.String() != test.want {
				t.Errorf("lines = %q, want %q", got.String(), test.want)
			}
		})
	}
	broken := errors.New("broken")
	if err := eachOutputLine(iotest.ErrReader(broken), func(string) {}); !errors.Is(err, broken) {
		t.Errorf("eachOutputLine = %v, want that reading broke", err)
	}
}

func TestStamp(t *testing.T) {
	tests := []struct{ line, want string }{
		{"network: up", "[   4.213] network: up"},
		{"[   4.1] network: up", "[   4.1] network: up"},
		{"[12345.000123] x", "[12345.000123] x"},
		{"[] x", "[   4.213] [] x"},
		{"[warn] x", "[   4.213] [warn] x"},
		{"[4] x", "[   4.213] [4] x"},
		{"[   .5] x", "[   4.213] [   .5] x"},
		{"4.213] x", "[   4.213] 4.213] x"},
		{"", "[   4.213] "},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			if got := stamp(4213*time.Millisecond, test.line); got != test.want {
				t.Errorf("stamp = %q, want %q", got, test.want)
			}
		})
	}
}

func TestTimeline(t *testing.T) {
	var out strings.Builder
	now := time.Duration(0)
	tl := &Timeline{w: &out, clock: func() time.Duration { now += 1500 * time.Millisecond; return now }}
	tl.Stage("network", "eth0 %s", "192.0.2.10/24")
	tl.Stage("lookup", "two\nlines")
	if want := "[   1.500] network: eth0 192.0.2.10/24\n[   3.000] lookup: two?lines\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	for i := range 2 * maxEvents {
		tl.Stage("step", "%d", i)
	}
	events := tl.Events()
	if len(events) != maxEvents || events[0].Stage != "network" || events[maxEvents-1].Text != fmt.Sprint(2*maxEvents-1) {
		t.Errorf("kept %d events from %v to %v, want %d from the first to the last", len(events), events[0], events[len(events)-1], maxEvents)
	}
}

func TestMountsAndSwaps(t *testing.T) {
	const mountinfo = `1 1 0:2 / / rw - rootfs none rw
20 1 0:20 / /proc rw - proc proc rw
21 1 0:21 / /sys rw - sysfs sysfs rw
22 21 0:7 / /sys/kernel/security rw - securityfs securityfs rw
23 1 0:6 / /dev rw - devtmpfs devtmpfs rw
24 1 0:22 / /run rw - tmpfs tmpfs rw
25 1 253:0 / /mnt/new\040root rw - ext4 /dev/vda2 rw
26 25 253:1 / /mnt/new\040root/boot rw - vfat /dev/vda1 rw
short line
`
	if got, want := strings.Join(toUnmount(mountinfo), "|"), "/mnt/new root/boot|/mnt/new root|/sys/kernel/security"; got != want {
		t.Errorf("toUnmount = %s, want %s", got, want)
	}
	const table = "Filename\tType\tSize\tUsed\tPriority\n/dev/vda3 partition\t1\t0\t-2\n/a\\040b file 1 0 -3\n"
	if got, want := strings.Join(swaps(table), "|"), "/dev/vda3|/a b"; got != want {
		t.Errorf("swaps = %s, want %s", got, want)
	}
	for in, want := range map[string]string{`\`: `\`, `\04`: `\04`, `\999`: `\999`, `a\134b`: `a\b`} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestPendingUSB(t *testing.T) {
	dev := &fstest.MapFile{Data: []byte("x")}
	sys := fstest.MapFS{
		"bus/usb/drivers/usb-storage/1-1:1.0/host2/target2:0:0/x": dev,
		"bus/usb/drivers/usb-storage/1-2:1.0/host3/x":             dev,
		"bus/usb/drivers/usb-storage/module/x":                    dev,
		"bus/usb/devices/usb1/x":                                  dev,
	}
	got, err := pendingUSB(sys)
	if err != nil || strings.Join(got, " ") != "1-2:1.0" {
		t.Errorf("pendingUSB = %v, %v; want 1-2:1.0", got, err)
	}
	if !hasUSB(sys) || hasUSB(fstest.MapFS{}) {
		t.Error("hasUSB is wrong")
	}
}

func TestLockdownMode(t *testing.T) {
	for in, want := range map[string]string{
		"[none] integrity confidentiality\n": "none",
		"none [integrity] confidentiality\n": "integrity",
		"":                                   "none",
		"none [integrity":                    "none",
	} {
		if got := lockdownMode(in); got != want {
			t.Errorf("lockdownMode(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestCheckCmdline(t *testing.T) {
	tests := []struct {
		name, cmdline string
		refused       bool
	}{
		{"short", "root=/dev/vda2 ro", false},
		{"longest", strings.Repeat("x", maxCmdline), false},
		{"too long", strings.Repeat("x", maxCmdline+1), true},
		{"line break", "a\nb", true},
		{"zero byte", "a\x00b", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := checkCmdline(test.cmdline); (err != nil) != test.refused {
				t.Errorf("checkCmdline = %v", err)
			}
		})
	}
}

func TestConcat(t *testing.T) {
	tests := []struct {
		name  string
		parts []string
		want  string
	}{
		{"none", nil, ""},
		{"even", []string{"abcd", "efgh"}, "abcdefgh"},
		{"padded", []string{"a", "", "bcdef", "g"}, "a\x00\x00\x00bcdef\x00\x00\x00g\x00\x00\x00"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var rs []io.Reader
			for _, p := range test.parts {
				rs = append(rs, iotest.OneByteReader(strings.NewReader(p)))
			}
			b, err := io.ReadAll(concat(rs))
			if err != nil || string(b) != test.want {
				t.Errorf("concat = %q, %v; want %q", b, err, test.want)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(concat([]io.Reader{strings.NewReader("a"), iotest.ErrReader(broken)})); !errors.Is(err, broken) {
		t.Errorf("concat = %v, want that reading broke", err)
	}
}
