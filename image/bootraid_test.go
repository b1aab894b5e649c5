// SPDX-License-Identifier: Apache-2.0

package image

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestInstallBootEntries(t *testing.T) {
	copies := []espPartition{{number: 3, start: 2048, count: 4096, gpt: true, signature: [16]byte{1}}, {number: 3, start: 2048, count: 4096, gpt: true, signature: [16]byte{2}}}
	l := loader{file: `\EFI\debian\shimx64.efi`, label: "debian"}
	encode := func(label string, esp espPartition) string {
		b, err := LoadOption{Attributes: LoadActive, Description: label, Path: esp.devicePath(l.file)}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first, second := encode("debian (RAID, part0)", copies[0]), encode("debian (RAID, part1)", copies[1])
	third, other, pxe := encode("debian (RAID, part2)", espPartition{}), encode("fedora (RAID, part0)", espPartition{}), encode("PXE", espPartition{})
	tests := []struct {
		name    string
		values  map[string]string
		bad     string
		want    string
		wantErr string
	}{
		{"empty", nil, "", "01000000 Boot0000=debian (RAID, part1) Boot0001=debian (RAID, part0)", ""},
		{"first before others", map[string]string{"Boot0000": pxe, "BootOrder": "\x00\x00"}, "", "020001000000 Boot0000=PXE Boot0001=debian (RAID, part1) Boot0002=debian (RAID, part0)", ""},
		{"there already", map[string]string{"Boot0005": first, "Boot0006": second, "BootOrder": "\x05\x00\x06\x00"}, "", "05000600 Boot0005=debian (RAID, part0) Boot0006=debian (RAID, part1)", ""},
		{"there in another order", map[string]string{"Boot0005": first, "Boot0006": second, "BootOrder": "\x06\x00\x05\x00"}, "", "05000600 Boot0005=debian (RAID, part0) Boot0006=debian (RAID, part1)", ""},
		{"of three disks before", map[string]string{"Boot0000": third, "Boot0001": other, "BootOrder": "\x00\x00\x01\x00"}, "",
			"030002000100 Boot0001=fedora (RAID, part0) Boot0002=debian (RAID, part1) Boot0003=debian (RAID, part0)", ""},
		{"of other disks before", map[string]string{"Boot0000": encode("debian (RAID, part0)", espPartition{}), "BootOrder": "\x00\x00"}, "", "02000100 Boot0001=debian (RAID, part1) Boot0002=debian (RAID, part0)", ""},
		{"no room for the first disk's", nil, "Boot0001", "0000 Boot0000=debian (RAID, part1)", "write Boot0001: no space left"},
		{"an old one cannot be deleted", map[string]string{"Boot0000": third}, "Boot0000", "02000100 Boot0000=debian (RAID, part2) Boot0001=debian (RAID, part1) Boot0002=debian (RAID, part0)", "delete Boot0000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &variables{values: map[string]string{}, bad: tt.bad}
			maps.Copy(v.values, tt.values)
			entries, err := installBootEntries(v, copies, l)
			if (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error is %v, want %q", err, tt.wantErr)
			}
			words := func(s string) []string { return slices.Sorted(slices.Values(strings.Fields(s))) }
			if got := v.String(); !slices.Equal(words(got), words(tt.want)) {
				t.Errorf("variables are %s, want %s", got, tt.want)
			}
			for i, e := range entries {
				if value := v.values[e.name()]; tt.wantErr == "" && value != []string{first, second}[i] {
					t.Errorf("entry %d is %v, a variable with %q", i, e, value)
				}
			}
		})
	}
}
