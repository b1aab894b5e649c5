// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// qcow2 images, of clusters smaller and larger than sectors, on disks that are full of old data: QEMU compares.
func TestRootWriteQCOW2(t *testing.T) {
	looptest.NeedRoot(t)
	for _, sector := range []int{512, 4096} {
		first := mib / sector
		_, file := loopDisk(t, 24*mib, sector, fmt.Sprintf("label: gpt\nstart=%d, size=%d\n", first, 20*first))
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		copy(raw[5*mib:], run(t, "", "head", "-c", "3000000", "/dev/urandom"))
		copy(raw[9*mib:], bytes.Repeat([]byte("ironhand "), 400_000))
		copy(raw[14*mib+512:], "alone in its sector")
		for _, args := range [][]string{
			{"-o", "cluster_size=512"}, {"-c", "-o", "cluster_size=512"}, {"-o", "cluster_size=2k"}, {}, {"-c"}, {"-c", "-W", "-m", "8"}, {"-c", "-o", "compression_type=zstd"},
			{"-o", "cluster_size=2M"}, {"-o", "extended_l2=on,cluster_size=16k"}, {"-o", "preallocation=full"}, {"-o", "compat=0.10"},
		} {
			for _, packer := range []string{"", "gzip", "zstd"} {
				if packer != "" && len(args) > 1 {
					continue
				}
				for _, wrong := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d, %s %s, wrong %v", sector, args, packer, wrong), func(t *testing.T) {
						published := qemuImage(t, raw, args...)
						if packer != "" {
							published = []byte(run(t, string(published), packer, "-c"))
						}
						digest := sha(published)
						if wrong {
							digest.Hex = fmt.Sprintf("%x", sha256.Sum256(nil))
						}
						old := filepath.Join(t.TempDir(), "disk")
						if err := os.WriteFile(old, bytes.Repeat([]byte{streamtest.Old}, 24*mib), 0o600); err != nil {
							t.Fatal(err)
						}
						device := looptest.Attach(t, old, sector)
						d, err := stream.OpenDevice(device)
						if err != nil {
							t.Fatal(err)
						}
						defer d.Close()
						_, err = Write(t.Context(), d, Spec{Sources: []stream.Source{serve(t, &streamtest.Server{Content: published})}, Digest: digest, ReadBack: stream.ReadBackFull})
						if wrong {
							if !errors.Is(err, stream.ErrDigest) {
								t.Fatalf("Write() = %v, want %v", err, stream.ErrDigest)
							}
							run(t, "", "cmp", "-n", "1048576", old, "/dev/zero")
							run(t, "", "cmp", "-n", "1048576", "-i", fmt.Sprintf("%d:0", 23*mib), old, "/dev/zero")
							return
						}
						if err != nil {
							t.Fatal(err)
						}
						if err := d.Close(); err != nil {
							t.Fatal(err)
						}
						if packer != "" {
							published = []byte(run(t, string(published), packer, "-dc"))
						}
						image := filepath.Join(t.TempDir(), "qcow2")
						if err := os.WriteFile(image, published, 0o600); err != nil {
							t.Fatal(err)
						}
						run(t, "", "qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, device)
					})
				}
			}
		}
	}
}
