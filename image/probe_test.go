// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

// blkid has the last word on what is on a partition.
func TestProbe(t *testing.T) {
	tests := []struct {
		name string
		size int64
		make []string // the program that makes the file system; the file comes last
		want string   // type
	}{
		{"ext2", 8 * mib, []string{"mkfs.ext2", "-q", "-L", "a label"}, "ext4"},
		{"ext4", 16 * mib, []string{"mkfs.ext4", "-q", "-L", "sixteen letters!"}, "ext4"},
		{"xfs", 320 * mib, []string{"mkfs.xfs", "-q", "-L", "twelveletter"}, "xfs"},
		{"btrfs", 128 * mib, []string{"mkfs.btrfs", "-q", "-L", "butter"}, "btrfs"},
		{"FAT12", 2 * mib, []string{"mkfs.vfat", "-F", "12", "-n", "IR-VFD-DEV"}, "vfat"},
		{"FAT16", 32 * mib, []string{"mkfs.vfat", "-F", "16", "-n", "EFI SYSTEM"}, "vfat"},
		{"FAT32", 64 * mib, []string{"mkfs.vfat", "-F", "32", "-n", "config-2"}, "vfat"},
		{"FAT with sectors of 4096 bytes", 64 * mib, []string{"mkfs.vfat", "-S", "4096", "-n", "BIG"}, "vfat"},
		{"FAT without a label", 2 * mib, []string{"mkfs.vfat"}, "vfat"},
		{"swap", 2 * mib, []string{"mkswap", "-q", "-L", "swap"}, ""},
		{"zeros", 2 * mib, nil, ""},
		{"small", 512, nil, ""},
		{"empty", 0, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := newFile(t, tt.size)
			var want FileSystem
			if len(tt.make) > 0 {
				run(t, "", tt.make[0], append(tt.make[1:], name)...)
			}
			if tt.want != "" {
				want.Type = tt.want
				for line := range strings.Lines(run(t, "", "blkid", "-p", "-o", "export", name)) {
					key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
					switch key {
					case "UUID":
						want.UUID = value
					case "LABEL":
						want.Label = strings.ReplaceAll(value, `\ `, " ")
					}
				}
			}
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := Probe(f, tt.size); got != want || err != nil {
				t.Errorf("Probe() = %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

// A label that was given later stands in the root directory only.
func TestProbeFATLabelInDirectory(t *testing.T) {
	name := newFile(t, 2*mib)
	run(t, "", "mkfs.vfat", name)
	run(t, "", "mlabel", "-i", name, "::later")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[43:54], "OLD        ")
	if f, err := Probe(bytes.NewReader(b), int64(len(b))); f.Label != "LATER" || err != nil {
		t.Errorf("Probe() = %+v, %v, want the label LATER", f, err)
	}
}

type brokenReader struct{}

func (brokenReader) ReadAt([]byte, int64) (int, error) { return 0, errors.New("bad sector") }

func TestProbeError(t *testing.T) {
	if f, err := Probe(brokenReader{}, mib); err == nil {
		t.Errorf("Probe() = %+v, want an error", f)
	}
}

func FuzzProbe(f *testing.F) {
	for _, size := range []int64{mib / 4, mib} {
		name := newFile(f, size)
		run(f, "", "mkfs.vfat", "-n", "LABEL", name)
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:4096])
	}
	f.Add([]byte("XFSB"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Probe(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if got.Type == "" && got != (FileSystem{}) {
			t.Errorf("Probe() = %+v", got)
		}
	})
}
