// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"fmt"
	"testing"
)

// All spans are whole sectors of the disk, apart from each other, and cover what they must.
func TestSignatureSpans(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, test := range []struct {
		name   string
		area   span
		disk   int64
		sector int64
		want   string
	}{
		{"nothing", span{0, 0}, 0, 512, "[]"},
		{"smaller than an end", span{0, mib}, mib, 512, "[{0 1048576}]"},
		{"ends that touch", span{0, 16 * mib}, 16 * mib, 512, "[{0 16777216}]"},
		{"ends apart", span{0, 20 * mib}, 20 * mib, 512, "[{0 8388608} {12582912 8388608}]"},
		{"with btrfs' second copy", span{0, gib}, gib, 4096, "[{0 8388608} {67108864 65536} {1065353216 8388608}]"},
		{"and its third", span{0, 300 * gib}, 300 * gib, 4096, "[{0 8388608} {67108864 65536} {274877906944 65536} {322114158592 8388608}]"},
		{"a partition", span{mib, 100 * mib}, gib, 512, "[{1048576 8388608} {68157440 65536} {97517568 8388608}]"},
		{"an extended one, which the kernel shows with 1024 bytes", span{4096 * 10, 1024}, gib, 4096, "[{40960 4096}]"},
		{"not whole sectors", span{512, 1024}, gib, 4096, "[{0 4096}]"},
		{"beyond the end", span{gib - mib, 10 * mib}, gib, 512, "[{1072693248 1048576}]"},
		{"wholly beyond the end", span{2 * gib, mib}, gib, 512, "[]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := fmt.Sprint(signatureSpans(test.area, test.disk, test.sector)); got != test.want {
				t.Errorf("signatureSpans = %s, want %s", got, test.want)
			}
		})
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, b []byte) { parseIdentity(b) })
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(byte(2), []byte{0x72, 1, 0, 0x1d, 0, 0, 0, 14, 9, 12, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50})
	f.Add(byte(2), []byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, status byte, sense []byte) {
		parseAnswer(SCSIAnswer{status, sense})
		if s := parseSense(sense); s.progress < 0 || s.progress > 1 {
			t.Errorf("progress %v", s.progress)
		}
	})
}
