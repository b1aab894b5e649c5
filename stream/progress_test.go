// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressString(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct {
		p    Progress
		want string
	}{
		{Progress{Phase: "write", Read: 10 * mib, Total: 40 * mib, Written: 5 * mib, Rate: 3 * mib, Left: 10}, "write: 10 of 40 MiB read (25 %), 3 MiB/s, 10s left, 5 MiB written"},
		{Progress{Phase: "write", Read: 10 * mib, Total: -1, Left: -1}, "write: 10 MiB read, 0 MiB/s, 0 MiB written"},
		{Progress{Phase: "write", Source: "http://b/x", Retries: 2, LastError: "reset\nagain"}, "write: 0 MiB read, 0 MiB/s, 0 MiB written, from http://b/x, 2 retries (last: reset; again)"},
	} {
		if got := test.p.String(); got != test.want {
			t.Errorf("String() of %+v = %s, want %s", test.p, got, test.want)
		}
	}
}

// The names are those of the status of a command, and of write --json.
func TestProgressJSON(t *testing.T) {
	got, err := json.Marshal(Progress{Phase: PhaseWrite, Source: "http://h/i", Total: 1, Read: 2, Again: 3, Retries: 4, LastError: "e", Written: 5, Zeroed: 6, Checked: 7, Rate: 8, Seconds: 9, Left: 10})
	const want = `{"phase":"write","source":"http://h/i","bytes_total":1,"bytes_read":2,"bytes_again":3,"retries":4,"last_error":"e","bytes_written":5,"bytes_zeroed":6,"bytes_checked":7,"bytes_per_second":8,"seconds":9,"seconds_left":10}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestProgressLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter()
		if left := m.Progress().Left; left != -1 {
			t.Errorf("%v s left of an unknown length", left)
		}
		m.setSource("a", 1000)
		time.Sleep(2 * time.Second)
		m.read.Add(200)
		if left := m.Progress().Left; left != 8 {
			t.Errorf("%v s left of 800 bytes at 100 a second", left)
		}
		m.read.Add(800)
		if left := m.Progress().Left; left != 0 {
			t.Errorf("%v s left of nothing", left)
		}
	})
}
