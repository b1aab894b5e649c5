// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// bzImage makes an image with a setup header and a payload.
func bzImage(payload []byte) []byte {
	const setup = 2 // sectors of setup code behind the boot sector
	b := make([]byte, (setup+1)*512+16)
	b[0x1f1] = setup
	copy(b[0x202:], "HdrS")
	le := binary.LittleEndian
	le.PutUint16(b[0x206:], 0x20f)
	le.PutUint32(b[0x248:], 16)
	le.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(append(b, payload...), "signature"...)
}

// kernel is an ELF file by its first bytes, with many calls and jumps for the x86 filter.
func kernel() []byte {
	b := []byte("\x7fELF")
	r := rand.New(rand.NewPCG(1, 2))
	for len(b) < 300_000 {
		switch r.IntN(6) {
		case 0: // a call or jump forwards or back
			b = append(b, 0xe8|byte(r.IntN(2)))
			b = binary.LittleEndian.AppendUint32(b, uint32(r.IntN(1<<20)-1<<19))
		case 1: // opcodes in a row
			b = append(b, bytes.Repeat([]byte{0xe8, 0xe9, 0xff, 0x00}[r.IntN(4):], 1+r.IntN(3))...)
		default:
			b = append(b, byte(r.Uint32()), byte(r.IntN(4)))
		}
	}
	return b
}

// withSize appends the unpacked size as the kernel's build does.
func withSize(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(packed, uint32(size))
}

func gz(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// pipe runs a packer.
func pipe(t *testing.T, b []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(judge(t, name), args...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	must(t, err)
	return out
}

func TestVmlinux(t *testing.T) {
	want := kernel()
	for _, c := range []struct {
		name    string
		payload func(t *testing.T) []byte
	}{
		{"gzip", func(t *testing.T) []byte { return gz(t, want) }},
		{"xz as kernels have it", func(t *testing.T) []byte {
			return withSize(pipe(t, want, "xz", "--check=crc32", "--x86", "--lzma2=,dict=32MiB"), len(want))
		}},
		{"xz without the x86 filter", func(t *testing.T) []byte {
			return withSize(pipe(t, want, "xz", "--check=crc32"), len(want))
		}},
		{"xz with sizes in the block header", func(t *testing.T) []byte {
			return withSize(pipe(t, want, "xz", "--check=crc32", "--x86", "--lzma2", "--threads=2"), len(want))
		}},
		{"xz without a check", func(t *testing.T) []byte {
			return withSize(pipe(t, want, "xz", "--check=none", "--x86", "--lzma2"), len(want))
		}},
		{"zstd", func(t *testing.T) []byte {
			w, err := zstd.NewWriter(nil)
			must(t, err)
			return withSize(w.EncodeAll(want, nil), len(want))
		}},
		{"lz4", func(t *testing.T) []byte {
			var out bytes.Buffer
			w := lz4.NewWriter(&out)
			must(t, w.Apply(lz4.LegacyOption(true)))
			_, err := w.Write(want)
			must(t, err)
			must(t, w.Close())
			return withSize(out.Bytes(), len(want))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Vmlinux(bzImage(c.payload(t)))
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Error("what came out is not the kernel that went in")
			}
		})
	}
}

func TestVmlinuxRefuses(t *testing.T) {
	k := kernel()
	xzOf := func(args ...string) []byte { return withSize(pipe(t, k, "xz", args...), len(k)) }
	changed := func(b []byte, change func(b []byte)) []byte {
		b = bytes.Clone(b)
		change(b)
		return b
	}
	good := xzOf("--check=crc32", "--x86", "--lzma2")
	for _, c := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"empty", nil, "no setup header"},
		{"text", bytes.Repeat([]byte("text"), 1000), "no setup header"},
		{"old protocol", changed(bzImage(gz(t, k)), func(b []byte) { b[0x206], b[0x207] = 7, 2 }), "boot protocol 2.07"},
		{"payload beyond the end", changed(bzImage(gz(t, k)), func(b []byte) { b[0x24f] = 0xff }), "is not within"},
		{"payload too small", changed(bzImage(gz(t, k)), func(b []byte) { clear(b[0x24c:0x250]) }), "is not within"},
		{"unknown payload", bzImage([]byte("\x89LZO and more\x00\x00\x00\x00")), "neither gzip"},
		{"wrong size", bzImage(withSize(bytes.Clone(good[:len(good)-4]), len(k)+1)), "is not the 300"},
		{"huge size", bzImage(withSize(bytes.Clone(good[:len(good)-4]), 1<<31-1)), "at most 536870912"},
		{"gzip cut off", bzImage(withSize(gz(t, k)[:1000], len(k))), "unexpected EOF"},
		{"not an ELF file", bzImage(gz(t, []byte("no kernel, but text"))), "not an ELF file"},
		{"xz with a wrong checksum", bzImage(changed(good, func(b []byte) { b[len(b)/2] ^= 1 })), "xz"},
		{"xz stream header damaged", bzImage(changed(good, func(b []byte) { b[8] ^= 1 })), "checksum of the stream header"},
		{"xz block header damaged", bzImage(changed(good, func(b []byte) { b[14] ^= 1 })), "checksum of the block header"},
		{"xz with SHA-256", bzImage(xzOf("--check=sha256")), "check 10"},
		{"xz with another filter", bzImage(xzOf("--check=crc32", "--arm", "--lzma2")), "filter 0x7"},
		{"xz cut off", bzImage(withSize([]byte("\xfd7zXZ\x00"), len(k))), "unexpected EOF"},
		{"zstd damaged", bzImage(withSize([]byte{0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4}, len(k))), "unpack the kernel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Vmlinux(c.image); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// The x86 filter alone, against the program that packs kernels: every damage would change the checksum.
func TestUndoX86OnPrograms(t *testing.T) {
	for _, name := range []string{"bash", "cpio", "xorriso"} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(judge(t, name))
			must(t, err)
			payload := withSize(pipe(t, b, "xz", "-0", "--check=crc32", "--x86", "--lzma2=preset=0"), len(b))
			got, err := Vmlinux(bzImage(payload))
			must(t, err)
			if !bytes.Equal(got, b) {
				t.Error("what came out is not the program that went in")
			}
		})
	}
}

func FuzzVmlinux(f *testing.F) {
	small := append([]byte("\x7fELF"), bytes.Repeat([]byte{0xe8, 1, 2, 3, 0}, 40)...)
	f.Add(bzImage(gz(f, small)))
	if xz, err := exec.LookPath("xz"); err == nil {
		cmd := exec.Command(xz, "--check=crc32", "--x86", "--lzma2=dict=4KiB")
		cmd.Stdin = bytes.NewReader(small)
		if out, err := cmd.Output(); err == nil {
			f.Add(bzImage(withSize(out, len(small))))
		}
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bzImage(withSize(w.EncodeAll(small, nil), len(small))))
	f.Fuzz(func(t *testing.T, b []byte) {
		kernel, err := Vmlinux(b)
		if err == nil && !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
			t.Fatal("something that is no ELF file was taken for a kernel")
		}
	})
}
