// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
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

// Partitions are found where the tables have them, also the tables of logical partitions; a chain without an end is followed for a while.
func TestTablePartitions(t *testing.T) {
	const sector = 512
	entry := func(disk []byte, table int64, n int, kind byte, start, size uint32) {
		e := disk[table*sector+446+int64(n)*16:]
		e[4] = kind
		binary.LittleEndian.PutUint32(e[8:], start)
		binary.LittleEndian.PutUint32(e[12:], size)
		copy(disk[table*sector+510:], "\x55\xaa")
	}
	for _, test := range []struct {
		name string
		make func(disk []byte)
		want string // kind, first sector, sectors
	}{
		{"nothing", func([]byte) {}, ""},
		{"logical", func(d []byte) {
			entry(d, 0, 0, 0x83, 9, 9)
			entry(d, 0, 1, 0x0f, 100, 900)
			entry(d, 100, 0, 0x82, 2, 20)
			entry(d, 100, 1, 0x05, 200, 30)
			entry(d, 300, 0, 0x8e, 5, 41)
		}, "0x83 9 9, 0x0f 100 1, 0x82 102 20, 0x05 300 1, 0x8e 305 41"},
		{"a chain in a circle", func(d []byte) {
			entry(d, 0, 0, 0x05, 100, 900)
			entry(d, 100, 1, 0x05, 200, 30)
			entry(d, 300, 1, 0x05, 0, 30)
		}, "0x05 100 1" + strings.Repeat(", 0x05 300 1, 0x05 100 1", 63) + ", 0x05 300 1"},
		{"the GPT at the end", func(d []byte) {
			head := d[len(d)-sector:]
			copy(head, "EFI PART")
			binary.LittleEndian.PutUint64(head[72:], 1000)
			binary.LittleEndian.PutUint32(head[80:], 3)
			binary.LittleEndian.PutUint32(head[84:], 128)
			for i, p := range [][2]uint64{{40, 49}, {60, 59}, {70, 1 << 62}} { // of the last two no place is believed
				d[1000*sector+i*128] = 1
				binary.LittleEndian.PutUint64(d[1000*sector+i*128+32:], p[0])
				binary.LittleEndian.PutUint64(d[1000*sector+i*128+40:], p[1])
			}
		}, "00000001-0000-0000-0000-000000000000 40 10, 00000001-0000-0000-0000-000000000000 0 0, 00000001-0000-0000-0000-000000000000 0 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk := make([]byte, 1<<20)
			test.make(disk)
			list, err := tablePartitions(bytes.NewReader(disk), int64(len(disk)))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range list {
				if p.area.at%4096 != 0 || p.area.n%4096 != 0 || p.area.n == 0 { // read for sectors of 512 bytes
					got = append(got, fmt.Sprintf("%s %d %d", p.kind, p.area.at/sector, p.area.n/sector))
				}
			}
			if got := strings.Join(got, ", "); got != test.want {
				t.Errorf("tablePartitions = %s, want %s", got, test.want)
			}
		})
	}
}

// Whatever tables say, what is cleared for them are whole sectors of the disk, apart from each other.
func FuzzTablePartitions(f *testing.F) {
	f.Add([]byte{0x0f, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 450, []byte{0x55, 0xaa}, 510)
	f.Add([]byte("EFI PART"), 512, []byte{1}, 1024)
	f.Fuzz(func(t *testing.T, a []byte, at int, b []byte, bt int) {
		disk := make([]byte, 256<<10)
		if at < 0 || bt < 0 || at > len(disk) || bt > len(disk) {
			return
		}
		copy(disk[at:], a)
		copy(disk[bt:], b)
		list, err := tablePartitions(bytes.NewReader(disk), int64(len(disk)))
		if err != nil {
			t.Fatal(err)
		}
		for _, sector := range []int64{512, 4096} {
			var spans []span
			for _, p := range list {
				spans = append(spans, signatureSpans(p.area, int64(len(disk)), sector)...)
			}
			end := int64(-1)
			for _, s := range merged(spans) {
				if s.at <= end || s.n <= 0 || s.at%sector != 0 || s.n%sector != 0 || s.at+s.n > int64(len(disk)) {
					t.Fatalf("%v after %d, sectors of %d", s, end, sector)
				}
				end = s.at + s.n
			}
		}
	})
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
