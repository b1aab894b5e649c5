// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"fmt"
	"regexp"
	"testing"
)

var contentRangeSeeds = []struct {
	in   string
	want contentRange
	ok   bool
}{
	{"bytes 0-499/1234", contentRange{0, 499, 1234}, true},
	{"bytes 734-1233/1234", contentRange{734, 1233, 1234}, true},
	{"Bytes 42-1233/*", contentRange{42, 1233, -1}, true},
	{"bytes 0-9223372036854775806/9223372036854775807", contentRange{0, 1<<63 - 2, 1<<63 - 1}, true},
	{"", contentRange{}, false},
	{"bytes */1234", contentRange{}, false},
	{"bytes 5-4/10", contentRange{}, false},
	{"bytes 5-10/10", contentRange{}, false},
	{"bytes 5-6", contentRange{}, false},
	{"bytes +5-6/10", contentRange{}, false},
	{"bytes 5--6/10", contentRange{}, false},
	{"bytes -1-6/10", contentRange{}, false},
	{"bytes 5-6/-1", contentRange{}, false},
	{"bytes -/", contentRange{}, false},
	{"lines 5-6/10", contentRange{}, false},
	{"bytes 0-9223372036854775807/9223372036854775808", contentRange{}, false},
}

func TestParseContentRange(t *testing.T) {
	for _, tt := range contentRangeSeeds {
		t.Run(tt.in, func(t *testing.T) {
			got, err := parseContentRange(tt.in)
			if (err == nil) != tt.ok || got != tt.want {
				t.Errorf("parseContentRange(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
			}
		})
	}
}

func FuzzContentRange(f *testing.F) {
	for _, tt := range contentRangeSeeds {
		f.Add(tt.in)
	}
	form := regexp.MustCompile(`^(?i:bytes) [0-9]+-[0-9]+/([0-9]+|\*)$`)
	f.Fuzz(func(t *testing.T, in string) {
		r, err := parseContentRange(in)
		if err != nil {
			if r != (contentRange{}) {
				t.Errorf("parseContentRange(%q) = %v with %v", in, r, err)
			}
			return
		}
		if !form.MatchString(in) {
			t.Errorf("parseContentRange(%q) = %v, which has not the form", in, r)
		}
		if r.first < 0 || r.last < r.first || r.total != -1 && r.total <= r.last {
			t.Errorf("parseContentRange(%q) = %v, which is no range", in, r)
		}
		if r.total >= 0 {
			if again, err := parseContentRange(fmt.Sprintf("bytes %d-%d/%d", r.first, r.last, r.total)); err != nil || again != r {
				t.Errorf("parseContentRange(%q) = %v, written and parsed again %v, %v", in, r, again, err)
			}
		}
	})
}
