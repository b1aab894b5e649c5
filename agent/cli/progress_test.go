// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream"
)

func TestBar(t *testing.T) {
	const mib = 1 << 20
	writing := stream.Progress{Phase: "write", Read: 1229 * mib, Total: 2730 * mib, Rate: 210 * mib, Left: 7.2, Retries: 2}
	for _, test := range []struct {
		name  string
		width int
		p     stream.Progress
		want  string
	}{
		{"80 columns", 79, writing, "write     [========          ]   45 %  0:07 left  210 MiB/s  1.2 GiB of 2.7 GiB"},
		{"wide", 140, writing, "write     [======================                            ]   45 %  0:07 left  210 MiB/s  1.2 GiB of 2.7 GiB  2 retries"},
		{"narrow", 29, writing, "write     [====      ]   45 %"},
		{"no length", 79, stream.Progress{Phase: "write", Read: 5 * mib, Total: -1, Rate: 900, Left: -1}, "write       900 B/s  5.0 MiB"},
		{"nothing yet", 79, stream.Progress{Phase: "open", Total: -1, Left: -1}, "open        0 B/s  0 B"},
		{"done", 79, stream.Progress{Phase: "done", Read: 10 * mib, Total: 10 * mib, Rate: 12 * mib}, "done      [================================]  100 %  12 MiB/s  10 MiB of 10 MiB"},
		{"more than was told", 79, stream.Progress{Phase: "write", Read: 20 * mib, Total: 10 * mib, Left: -1}, "write     [===================================]  100 %  0 B/s  20 MiB of 10 MiB"},
		{"hours", 79, stream.Progress{Phase: "write", Read: 1, Total: 1 << 40, Rate: 1, Left: 1e12}, "write     [                     ]    0 %  277:46:40 left  1 B/s  1 B of 1.0 TiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := bar(test.p, test.width); got != test.want {
				t.Errorf("bar(%d) = %q, want %q", test.width, got, test.want)
			}
		})
	}
	for width := leastWidth - 1; width < 200; width++ {
		if got := bar(writing, width); len(got) > width {
			t.Errorf("%d columns: %q has %d", width, got, len(got))
		}
	}
}

// Where nobody can draw over a line there are few: when something happens, and every 5 seconds.
func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Time{}
	d := newDrawer(&out, "auto")
	d.now = func() time.Time { return now }
	p := stream.Progress{Phase: "open", Total: -1, Left: -1}
	show := func(after time.Duration, end bool) {
		now = now.Add(after)
		p.Seconds += after.Seconds()
		d.show(p, end)
	}
	show(time.Second, false)
	p = stream.Progress{Phase: "write", Total: 100 << 20, Left: -1}
	for range 12 { // lines at once and after 5 and 10 seconds
		show(time.Second, false)
	}
	p.Retries, p.LastError, p.Source = 1, "tls: certificate of \x1b[31mh\nx", "https://h/i"
	show(time.Second, false)
	p.Phase = "done"
	show(time.Second, false)
	d.show(p, true)
	d.finish()
	want := []string{"open: ", "write: ", "write: ", "write: ", "write: 0 of 100 MiB read (0 %), 0 MiB/s, 0 MiB written, from https://h/i, 1 retries (last: tls: certificate of ?[31mh; x)", "done: "}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(want) || strings.ContainsAny(out.String(), "\r\x1b") {
		t.Fatalf("lines:\n%s\nwant %d that begin with %q", out.String(), len(want), want)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("line %d is %q, want %q", i, lines[i], want[i])
		}
	}
}

// Programs that start this one read the same lines as objects, each in one line whatever servers say.
func TestProgressJSON(t *testing.T) {
	var out bytes.Buffer
	d := newDrawer(&out, "json")
	want := []stream.Progress{{Phase: "open", Total: -1, Left: -1}, {Phase: "write", Total: 100 << 20, Read: 5, Left: 3, Retries: 1, LastError: "reset\n\x1b[31m", Source: "https://h/i"}}
	for _, p := range want {
		d.show(p, false)
	}
	d.finish()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("lines:\n%s", out.String())
	}
	for i, line := range lines {
		var got stream.Progress
		if err := json.Unmarshal([]byte(line), &got); err != nil || got != want[i] {
			t.Errorf("line %d is %s, want %+v", i, line, want[i])
		}
	}
}

// On a terminal there is one line, drawn some times a second, and a line above it for each thing that went wrong.
func TestProgressBar(t *testing.T) {
	var out bytes.Buffer
	now := time.Time{}
	d := &drawer{out: &out, width: func() int { return 80 }, now: func() time.Time { return now }}
	p := stream.Progress{Phase: "write", Total: 100 << 20, Left: -1}
	for range 100 { // in a second
		now = now.Add(10 * time.Millisecond)
		p.Read += 1 << 20
		d.show(p, false)
	}
	if n := strings.Count(out.String(), "\r"); n < 2 || n > 4 {
		t.Errorf("drawn over %d times in a second", n)
	}
	p.Retries, p.LastError, p.Source = 1, "connection\x1breset", "http://h/i"
	d.show(p, false)
	p.Phase = "done"
	d.show(p, true)
	d.finish()
	if !strings.Contains(out.String(), "\r\x1b[Kretry 1, from http://h/i: connection?reset\n") || !strings.HasSuffix(out.String(), "0 B/s  100 MiB of 100 MiB  1 retry\n") {
		t.Errorf("%q", out.String())
	}
}
