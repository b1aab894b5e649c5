// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"strings"
	"testing"
)

func TestMemAvailable(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       int64
		fails      string
	}{
		{"a machine", "MemTotal:        998584 kB\nMemFree:         561244 kB\nMemAvailable:    624832 kB\nBuffers: 4 kB\n", 624832 << 10, ""},
		{"none", "MemTotal:        998584 kB\n", 0, "no MemAvailable"},
		{"garbled", "MemAvailable:    lots kB\n", 0, "lots"},
		{"empty", "", 0, "no MemAvailable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := memAvailable(test.text)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("memAvailable() = %d, %v, want an error with %q", got, err, test.fails)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("memAvailable() = %d, %v, want %d", got, err, test.want)
			}
		})
	}
}
