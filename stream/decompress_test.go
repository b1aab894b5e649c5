// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
)

// run sends in through a program and returns its output: the judge of formats is who else writes them.
func run(t testing.TB, in []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func unpack(b []byte) ([]byte, *Content, error) {
	c, err := Decompress(bytes.NewReader(b), 0)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	out, err := io.ReadAll(c)
	return out, c, err
}

func TestDecompress(t *testing.T) {
	raw := join(make([]byte, 100_000), noise(300_000), bytes.Repeat([]byte("boot"), 50_000))
	gz := run(t, raw, "gzip", "-c")
	zst := run(t, raw, "zstd", "-c")
	qcow2 := join([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 1000))
	skippable := join([]byte("\x5e\x2a\x4d\x18\x05\x00\x00\x00"), []byte("other"))
	tar := join(make([]byte, 257), []byte("ustar\x0000"), make([]byte, 1000))

	for _, tt := range []struct {
		name        string
		in          []byte
		want        []byte
		compression Compression
		least       int64
		qcow2       bool
		err         string
		is          error
	}{
		{name: "plain", in: raw, want: raw, compression: Plain},
		{name: "plain, short", in: []byte("x"), want: []byte("x"), compression: Plain},
		{name: "empty", compression: Plain},
		{name: "plain, begins as bzip2 does", in: []byte("BZh boots from here, a boot sector may say"), want: []byte("BZh boots from here, a boot sector may say"), compression: Plain},
		{name: "gzip", in: gz, want: raw, compression: Gzip},
		{name: "gzip, two members", in: join(gz, gz), want: join(raw, raw), compression: Gzip},
		{name: "gzip, empty members", in: join(run(t, nil, "gzip"), gz, run(t, nil, "gzip")), want: raw, compression: Gzip},
		{name: "gzip, padded with zeros", in: join(gz, make([]byte, 5000)), want: raw, compression: Gzip},
		{name: "gzip of nothing", in: run(t, nil, "gzip"), compression: Gzip},
		{name: "zstd", in: zst, want: raw, compression: Zstd},
		{name: "zstd of a file", in: run(t, raw, "zstd", "-c", "--stream-size=600000"), want: raw, compression: Zstd, least: 600_000},
		{name: "zstd, two frames", in: join(zst, zst), want: join(raw, raw), compression: Zstd},
		{name: "zstd, skippable frames", in: join(skippable, zst, skippable, zst), want: join(raw, raw), compression: Zstd},
		{name: "zstd, longest window", in: run(t, raw, "zstd", "-c", "--ultra", "-22", "--long=27"), want: raw, compression: Zstd},
		{name: "zstd of nothing", in: run(t, nil, "zstd"), compression: Zstd},

		{name: "gzip, cut", in: gz[:len(gz)/2], err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, cut in its trailer", in: gz[:len(gz)-3], err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, cut in its header", in: gz[:5], err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, cut in the second member", in: join(gz, gz[:7]), err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, changed", in: flip(gz, len(gz)/2), err: "unpack gzip"},
		{name: "gzip, wrong sum", in: flip(gz, len(gz)-8), err: "unpack gzip: gzip: invalid checksum"},
		{name: "gzip, garbage behind it", in: join(gz, []byte("garbage")), err: "neither a member nor zeros"},
		{name: "gzip, garbage behind its zeros", in: join(gz, make([]byte, 9), []byte("garbage")), err: "not zero"},
		{name: "zstd, cut", in: zst[:len(zst)/2], err: "unpack zstd", is: io.ErrUnexpectedEOF},
		{name: "zstd, cut in its sum", in: zst[:len(zst)-1], err: "unpack zstd", is: io.ErrUnexpectedEOF},
		{name: "zstd, cut in the second frame", in: join(zst, zst[:5]), err: "unpack zstd", is: io.ErrUnexpectedEOF},
		{name: "zstd, wrong sum", in: flip(zst, len(zst)-1), err: "unpack zstd: CRC"},
		{name: "zstd, garbage behind it", in: join(zst, []byte("garbage")), err: "what follows a frame is not a frame"},
		{name: "zstd, window too long", in: run(t, noise(300<<10), "zstd", "-c", "--long=28"), err: "a frame needs 256 MiB, the most that is taken is 128 MiB", is: ErrWindow},
		{name: "zstd, window too long in the second frame", in: join(zst, run(t, noise(300<<10), "zstd", "-c", "--long=28")), err: "a frame needs more than that", is: ErrWindow},

		{name: "qcow2", in: qcow2, want: qcow2, compression: Plain, qcow2: true},
		{name: "qcow2 in gzip", in: run(t, qcow2, "gzip"), want: qcow2, compression: Gzip, qcow2: true},
		{name: "qcow2 in zstd", in: run(t, qcow2, "zstd"), want: qcow2, compression: Zstd, qcow2: true},
		{name: "gzip in gzip", in: run(t, gz, "gzip"), err: "it is a gzip file inside gzip", is: ErrFormat},
		{name: "zstd in gzip", in: run(t, zst, "gzip"), err: "it is a zstd file inside gzip", is: ErrFormat},
		{name: "xz", in: run(t, raw, "xz", "-1"), err: "it is an xz file", is: ErrFormat},
		{name: "tar in gzip", in: run(t, tar, "gzip"), err: "it is a tar archive inside gzip", is: ErrFormat},
		{name: "vmdk", in: []byte("KDMV\x01\x00\x00\x00"), err: "VMDK", is: ErrFormat},
		{name: "vhdx", in: []byte("vhdxfile"), err: "VHDX", is: ErrFormat},
		{name: "vdi", in: join(make([]byte, 64), []byte("\x7f\x10\xda\xbe")), err: "VDI", is: ErrFormat},
		{name: "bzip2", in: []byte("BZh91AY&SYxxxx"), err: "bzip2", is: ErrFormat},
		{name: "lz4", in: []byte("\x04\x22\x4d\x18\x64"), err: "lz4", is: ErrFormat},
		{name: "login page", in: []byte("<!DOCTYPE html><html>please log in</html>"), err: "web page", is: ErrFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, c, err := unpack(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || tt.is != nil && !errors.Is(err, tt.is) {
					t.Fatalf("error is %v\nwant one with %q that is %v", err, tt.err, tt.is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, tt.want) {
				t.Errorf("got %d bytes, other than the %d wanted", len(got), len(tt.want))
			}
			if c.Compression != tt.compression || c.Least != tt.least || c.QCOW2 != tt.qcow2 {
				t.Errorf("%s of at least %d bytes, want %s of %d", c.Compression, c.Least, tt.compression, tt.least)
			}
		})
	}
}

// A machine with little memory refuses what would take all of it, before it has unpacked a byte.
func TestDecompressWindow(t *testing.T) {
	long := run(t, noise(300<<10), "zstd", "-c", "--long=27")
	for most, want := range map[int64]string{0: "", 128 << 20: "", 64 << 20: "a frame needs 128 MiB, this machine has memory for 64 MiB", 1: "this machine has memory for 0 MiB"} {
		c, err := Decompress(bytes.NewReader(long), most)
		if err == nil {
			c.Close()
		}
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrWindow) || !strings.Contains(err.Error(), want)) {
			t.Errorf("window of 128 MiB with %d allowed: %v, want %q", most, err, want)
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// A broken network must not be blamed on the file.
func TestDecompressSourceError(t *testing.T) {
	raw := noise(1 << 20)
	gone := errors.New("network is gone")
	for _, tt := range []struct {
		name string
		in   []byte
	}{
		{"plain", raw}, {"gzip", run(t, raw, "gzip")}, {"zstd", run(t, raw, "zstd")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{0, 3, 100_000} {
				c, err := Decompress(io.MultiReader(bytes.NewReader(tt.in[:n]), iotest.ErrReader(gone)), 0)
				if err == nil {
					_, err = io.Copy(io.Discard, c)
					c.Close()
				}
				if !errors.Is(err, gone) || strings.Contains(err.Error(), "unpack") {
					t.Errorf("after %d bytes: %v, want %v", n, err, gone)
				}
			}
		})
	}
}

func FuzzDecompress(f *testing.F) {
	raw := join(make([]byte, 3000), noise(1000))
	for _, seed := range [][]byte{
		nil, raw, run(f, raw, "gzip"), run(f, raw, "zstd"), run(f, raw, "zstd", "--long=27", "--no-check"), run(f, run(f, raw, "gzip"), "zstd"),
		join(run(f, raw, "gzip"), run(f, nil, "gzip"), make([]byte, 20)), []byte("\x50\x2a\x4d\x18\xff\xff\xff\xff"), []byte("QFI\xfb"), []byte("BZh9"),
	} {
		f.Add(seed)
	}
	const most = 64 << 20
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := Decompress(bytes.NewReader(in), 0)
		if err != nil {
			return
		}
		defer c.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(c, most))
		if c.Compression == Plain && (err != nil || n != int64(len(in))) {
			t.Errorf("%d plain bytes came out as %d, %v", len(in), n, err)
		}
		if c.Compression == Zstd && err == nil && n < most && n < c.Least {
			t.Errorf("%d bytes, at least %d were announced", n, c.Least)
		}
	})
}
