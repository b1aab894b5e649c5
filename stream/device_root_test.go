// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// command runs a program that judges, or makes what is judged, and returns what it prints.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// oldDisk is a loop device that is full of old data, and its backing file.
func oldDisk(t *testing.T, size int64, sector int) (device, file string) {
	t.Helper()
	looptest.NeedRoot(t)
	file = filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, bytes.Repeat([]byte{streamtest.Old}, int(size)), 0o600); err != nil {
		t.Fatal(err)
	}
	return looptest.Attach(t, file, sector), file
}

// gptImage is a disk image with a partition table for sectors of 512 bytes.
func gptImage(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.raw")
	content := picture(t, "hole:4194304 data:5000000 hole:8000000 data:3000000 hole:777216")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "sgdisk", "-n", "1:2048:20479", "-n", "2:20480:0", path)
	return path
}

func TestRootWrite(t *testing.T) {
	looptest.NeedRoot(t)
	const size = 48 * mib
	image := gptImage(t)
	packed := filepath.Join(t.TempDir(), "image.zst")
	command(t, "zstd", "-q", image, "-o", packed)
	for _, sector := range []int{512, 4096} {
		for _, path := range []string{image, packed} {
			for _, wrong := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d/%s/wrong=%v", sector, filepath.Base(path), wrong), func(t *testing.T) {
					published, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					cut := int64(len(published) / 3)
					server := httptest.NewServer(&streamtest.Server{Content: published, ETag: `"1"`, Faults: []streamtest.Fault{{Cut: cut}, {End: cut / 2}}})
					defer server.Close()
					src, err := stream.NewHTTP(server.URL, stream.HTTPOptions{})
					if err != nil {
						t.Fatal(err)
					}
					sum := sha512.Sum512(published)
					if wrong {
						sum[5] ^= 1
					}
					want, err := stream.ParseDigest("", hex.EncodeToString(sum[:]))
					if err != nil {
						t.Fatal(err)
					}

					device, file := oldDisk(t, size, sector)
					disk, err := stream.OpenDevice(device)
					if err != nil {
						t.Fatal(err)
					}
					defer disk.Close()
					if disk.Size() != size || disk.SectorSize() != sector {
						t.Fatalf("disk has %d bytes in sectors of %d", disk.Size(), disk.SectorSize())
					}
					r := stream.NewReader(t.Context(), []stream.Source{src}, want, stream.ReaderOptions{})
					defer r.Close()
					content, err := stream.Decompress(r, 0)
					if err != nil {
						t.Fatal(err)
					}
					defer content.Close()
					w, err := stream.Write(t.Context(), disk, stream.NewExtents(content, -1), stream.Options{Verify: r.Verify, ReadBack: stream.ReadBackFull})
					if wrong {
						if !errors.Is(err, stream.ErrDigest) {
							t.Errorf("error is %v, want ErrDigest", err)
						}
						// The judges find no partition table, neither at the start nor at the end.
						command(t, "cmp", "-n", "1048576", file, "/dev/zero")
						command(t, "cmp", "-n", "1048576", "-i", fmt.Sprintf("%d:0", size-mib), file, "/dev/zero")
						if out, err := exec.Command("blkid", "-p", device).CombinedOutput(); err == nil {
							t.Errorf("blkid finds %s", out)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if w.Bytes > 10*mib || w.Zeroed < 9*mib {
						t.Errorf("Write(...) = %+v, which sends zeros", w)
					}

					// The judges: the image, what was there before, zeros.
					info, err := os.Stat(image)
					if err != nil {
						t.Fatal(err)
					}
					n := info.Size()
					end := (n + int64(sector) - 1) / int64(sector) * int64(sector)
					command(t, "cmp", "-n", fmt.Sprint(n), image, file)
					command(t, "cmp", "-n", fmt.Sprint(end-n), "-i", fmt.Sprintf("%d:0", n), file, "/dev/zero")
					behind, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					if behind = behind[end : size-mib]; bytes.Count(behind, []byte{streamtest.Old}) != len(behind) {
						t.Error("something was written behind the image")
					}
					command(t, "cmp", "-n", "1048576", "-i", fmt.Sprintf("%d:0", size-mib), file, "/dev/zero")

					if err := disk.RereadPartitions(t.Context()); err != nil {
						t.Error(err)
					}
					if sector == 512 { // as in the image's partition table
						table := strings.Fields(command(t, "partx", "--show", "--noheadings", "--output", "START", device))
						if got := strings.Join(table, " "); got != "2048 20480" {
							t.Errorf("partitions start at %s, want 2048 20480", got)
						}
						command(t, "partx", "--update", device) // a kernel may be built without tables of partitions
						if got, err := disk.Partitions(); err != nil || len(got) != 2 || got[0].Start != 2048*512 || got[1].Start != 20480*512 {
							t.Errorf("Partitions() = %v, %v, want those", got, err)
						}
					}
				})
			}
		}
	}
}

// What the disk really gets is looked up in its backing file: a hole must take no room there.
func TestRootZero(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			device, file := oldDisk(t, 16*mib, sector)
			disk, err := stream.OpenDevice(device)
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			if err := disk.Zero(t.Context(), mib, 8*mib); err != nil {
				t.Fatal(err)
			}
			if err := disk.Sync(); err != nil {
				t.Fatal(err)
			}
			command(t, "cmp", "-n", fmt.Sprint(8*mib), "-i", fmt.Sprintf("%d:0", mib), file, "/dev/zero")
			b := make([]byte, 10*mib)
			if _, err := disk.ReadAt(b, 7); err != nil {
				t.Fatal(err)
			}
			if b[mib-8] != streamtest.Old || b[mib-7] != 0 || b[9*mib-8] != 0 || b[9*mib-7] != streamtest.Old {
				t.Error("zeroed more, or less, than asked for")
			}
			if err := disk.Zero(t.Context(), 100, 512); err == nil {
				t.Error("zeroing parts of sectors is not refused")
			}
			if _, err := disk.WriteAt(make([]byte, 100), 0); err == nil {
				t.Error("writing parts of sectors is not refused")
			}
		})
	}
}

func TestRootOpenDevice(t *testing.T) {
	looptest.NeedRoot(t)
	plainFile := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plainFile, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	mounted, _ := looptest.New(t, 16*mib, 512)
	command(t, "mkfs.ext4", "-q", mounted)
	point := t.TempDir()
	command(t, "mount", mounted, point)
	t.Cleanup(func() { command(t, "umount", point) })

	partitioned, _ := looptest.New(t, 32*mib, 512)
	command(t, "sgdisk", "-n", "1:2048:40959", partitioned)
	command(t, "partx", "--add", partitioned) // some kernels know no partition tables themselves
	command(t, "mkswap", partitioned+"p1")
	command(t, "swapon", partitioned+"p1")
	t.Cleanup(func() { command(t, "swapoff", partitioned+"p1") })

	opened, _ := looptest.New(t, mib, 512)
	other, err := stream.OpenDevice(opened)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	for _, tt := range []struct {
		name, path, err string
		is              error
	}{
		{"mounted", mounted, mounted + " is mounted at " + point, syscall.EBUSY},
		{"swapped to", partitioned, partitioned + "p1 is swapped to", syscall.EBUSY},
		{"open", opened, "another program has it open", syscall.EBUSY},
		{"a file", plainFile, "not a block device", nil},
		{"a character device", "/dev/null", "not a block device", nil},
		{"nothing", "/dev/no-such-disk", "open disk /dev/no-such-disk: no such file or directory", os.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := stream.OpenDevice(tt.path)
			if err == nil {
				d.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("OpenDevice(%s) = %v, want an error with %q that is %v", tt.path, err, tt.err, tt.is)
			}
		})
	}
}

// A disk that is too small is found out before, or at the byte; either way nothing boots.
func TestRootTooSmall(t *testing.T) {
	looptest.NeedRoot(t)
	image, err := os.ReadFile(gptImage(t))
	if err != nil {
		t.Fatal(err)
	}
	device, file := oldDisk(t, 16*mib, 512)
	disk, err := stream.OpenDevice(device)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	_, err = stream.Write(t.Context(), disk, stream.NewExtents(bytes.NewReader(image), int64(len(image))), stream.Options{})
	if !errors.Is(err, stream.ErrTooLarge) {
		t.Errorf("error is %v, want ErrTooLarge", err)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(old, []byte{streamtest.Old}) != len(old) {
		t.Error("the disk was touched")
	}
	_, err = stream.Write(context.Background(), disk, stream.NewExtents(bytes.NewReader(image), -1), stream.Options{})
	if !errors.Is(err, stream.ErrTooLarge) {
		t.Errorf("error is %v, want ErrTooLarge", err)
	}
	command(t, "cmp", "-n", "1048576", file, "/dev/zero")
	command(t, "cmp", "-n", "1048576", "-i", "15728640:0", file, "/dev/zero")
}
