// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"
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

	// Frames as a file has them that is made for seeking, and one that is too long to be unpacked whole.
	var many, manyRaw []byte
	for i := range 40 {
		piece := noise(100 + 9973*i)
		many, manyRaw = append(many, run(t, piece, "zstd", "-c", fmt.Sprintf("--stream-size=%d", len(piece)))...), append(manyRaw, piece...)
	}
	longRaw := bytes.Repeat(raw, 20)
	long := run(t, longRaw, "zstd", "-c")
	cutEnd := func(b []byte, n int) []byte { return b[:len(b)-n] }

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
		{name: "gzip, all that a header may have", in: join(gz[:3], []byte{gz[3] | 0x1e}, gz[4:10], []byte("\x05\x00extraname\x00comment\x00sm"), gz[10:]), want: raw, compression: Gzip},
		{name: "zstd", in: zst, want: raw, compression: Zstd},
		{name: "zstd of a file", in: run(t, raw, "zstd", "-c", "--stream-size=600000"), want: raw, compression: Zstd, least: 600_000},
		{name: "zstd, two frames", in: join(zst, zst), want: join(raw, raw), compression: Zstd},
		{name: "zstd, skippable frames", in: join(skippable, zst, skippable, zst), want: join(raw, raw), compression: Zstd},
		{name: "zstd, longest window", in: run(t, raw, "zstd", "-c", "--ultra", "-22", "--long=27"), want: raw, compression: Zstd},
		{name: "zstd of nothing", in: run(t, nil, "zstd"), compression: Zstd},

		{name: "zstd, many short frames", in: many, want: manyRaw, compression: Zstd, least: 100},
		{name: "zstd, short and long frames", in: join(many, long, zst, many, long), want: join(manyRaw, longRaw, raw, manyRaw, longRaw), compression: Zstd, least: 100},
		{name: "xz", in: run(t, raw, "xz", "-1"), want: raw, compression: XZ},
		{name: "xz, several blocks", in: run(t, raw, "xz", "-T3", "--block-size=100000"), want: raw, compression: XZ},
		{name: "xz, several streams and padding", in: join(run(t, raw, "xz"), make([]byte, 8), run(t, raw, "xz", "-9e")), want: join(raw, raw), compression: XZ},
		{name: "xz of nothing", in: run(t, nil, "xz"), compression: XZ},
		{name: "bzip2", in: run(t, raw, "bzip2"), want: raw, compression: Bzip2},
		{name: "bzip2, several streams", in: join(run(t, raw, "bzip2", "-1"), run(t, raw, "bzip2")), want: join(raw, raw), compression: Bzip2},
		{name: "bzip2 of nothing", in: run(t, nil, "bzip2"), compression: Bzip2},
		{name: "lz4", in: run(t, raw, "lz4", "-c"), want: raw, compression: LZ4},
		{name: "lz4, dependent blocks, several frames", in: join(run(t, raw, "lz4", "-c", "-BD", "-B4"), run(t, raw, "lz4", "-9", "-c")), want: join(raw, raw), compression: LZ4},
		{name: "lz4 of nothing", in: run(t, nil, "lz4", "-c"), compression: LZ4},

		{name: "xz, cut", in: cutEnd(run(t, raw, "xz"), 3), err: "unpack xz", is: io.ErrUnexpectedEOF},
		{name: "xz, cut in the middle", in: cutEnd(run(t, raw, "xz"), 90_000), err: "unpack xz", is: io.ErrUnexpectedEOF},
		{name: "xz, wrong sum", in: flip(run(t, raw, "xz"), 50_000), err: "unpack xz: xz: data is corrupt"},
		{name: "xz, garbage behind it", in: join(run(t, raw, "xz"), []byte("garbage!")), err: "unpack xz"},
		{name: "xz, dictionary too large", in: run(t, raw, "xz", "--lzma2=dict=256MiB"), err: "it needs 256 MiB, the most that is taken is 128 MiB", is: ErrWindow},
		{name: "bzip2, cut", in: cutEnd(run(t, raw, "bzip2"), 9), err: "unpack bzip2", is: io.ErrUnexpectedEOF},
		{name: "bzip2, wrong sum", in: flip(run(t, raw, "bzip2"), 50_000), err: "unpack bzip2"},
		{name: "bzip2, garbage behind it", in: join(run(t, raw, "bzip2"), []byte("garbage")), err: "unpack bzip2"},
		{name: "lz4, cut", in: cutEnd(run(t, raw, "lz4", "-c"), 5), err: "unpack lz4", is: io.ErrUnexpectedEOF},
		{name: "lz4, cut in its sum", in: cutEnd(run(t, raw, "lz4", "-c"), 1), err: "unpack lz4", is: io.ErrUnexpectedEOF},
		{name: "lz4, wrong sum", in: flip(run(t, raw, "lz4", "-c"), len(run(t, raw, "lz4", "-c"))-1), err: "unpack lz4"},
		{name: "lz4, garbage behind it", in: join(run(t, raw, "lz4", "-c"), []byte("garbage")), err: "unpack lz4"},
		{name: "zstd, a short frame is broken", in: join(many, flip(zst, len(zst)/2), many), err: "unpack zstd"},
		{name: "zstd, a frame lies about its length", in: []byte("\x28\xb5\x2f\xfd\x80\x68\x00\x00\x00\x40\x01\x00\x00"), err: "a frame says that it has 1073741824 bytes, its blocks have at most 0"},
		{name: "gzip, cut", in: gz[:len(gz)/2], err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, cut in its trailer", in: gz[:len(gz)-3], err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, cut in its header", in: gz[:5], err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, cut in the second member", in: join(gz, gz[:7]), err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, changed", in: flip(gz, len(gz)/2), err: "unpack gzip"},
		{name: "gzip, wrong sum", in: flip(gz, len(gz)-8), err: "unpack gzip: the checksum of a member is wrong"},
		{name: "gzip, wrong length", in: flip(gz, len(gz)-1), err: "unpack gzip: the length of a member is wrong"},
		{name: "gzip, a header of the future", in: join(gz[:3], []byte{0x20}, gz[4:]), err: "unpack gzip: a member is packed in a way that is not known"},
		{name: "gzip, cut in its name", in: join(gz[:3], []byte{8}, gz[4:10], []byte("name")), err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, cut in what is extra", in: join(gz[:3], []byte{4}, gz[4:10], []byte("\x05\x00ext")), err: "unpack gzip", is: io.ErrUnexpectedEOF},
		{name: "gzip, garbage behind it", in: join(gz, []byte("garbage")), err: "neither a member nor zeros"},
		{name: "gzip, garbage behind its zeros", in: join(gz, make([]byte, 9), []byte("garbage")), err: "not zero"},
		{name: "zstd, cut", in: zst[:len(zst)/2], err: "unpack zstd", is: io.ErrUnexpectedEOF},
		{name: "zstd, cut in its sum", in: zst[:len(zst)-1], err: "unpack zstd", is: io.ErrUnexpectedEOF},
		{name: "zstd, cut in the second frame", in: join(zst, zst[:5]), err: "unpack zstd", is: io.ErrUnexpectedEOF},
		{name: "zstd, wrong sum", in: flip(zst, len(zst)-1), err: "unpack zstd: CRC"},
		{name: "zstd, garbage behind it", in: join(zst, []byte("garbage")), err: "what follows a frame is not a frame"},
		{name: "zstd, window too long", in: run(t, noise(300<<10), "zstd", "-c", "--long=28"), err: "it needs 256 MiB, the most that is taken is 128 MiB", is: ErrWindow},
		{name: "zstd, window too long in the second frame", in: join(zst, run(t, noise(300<<10), "zstd", "-c", "--long=28")), err: "it needs 256 MiB", is: ErrWindow},

		{name: "qcow2", in: qcow2, want: qcow2, compression: Plain, qcow2: true},
		{name: "qcow2 in gzip", in: run(t, qcow2, "gzip"), want: qcow2, compression: Gzip, qcow2: true},
		{name: "qcow2 in zstd", in: run(t, qcow2, "zstd"), want: qcow2, compression: Zstd, qcow2: true},
		{name: "gzip in gzip", in: run(t, gz, "gzip"), err: "it is a gzip file inside gzip", is: ErrFormat},
		{name: "zstd in gzip", in: run(t, zst, "gzip"), err: "it is a zstd file inside gzip", is: ErrFormat},
		{name: "tar in gzip", in: run(t, tar, "gzip"), err: "it is a tar archive inside gzip", is: ErrFormat},
		{name: "vmdk", in: []byte("KDMV\x01\x00\x00\x00"), err: "VMDK", is: ErrFormat},
		{name: "vhdx", in: []byte("vhdxfile"), err: "VHDX", is: ErrFormat},
		{name: "vdi", in: join(make([]byte, 64), []byte("\x7f\x10\xda\xbe")), err: "VDI", is: ErrFormat},
		{name: "lz4 of the old kind", in: run(t, raw, "lz4", "-l", "-c"), err: "lz4 file of the old kind", is: ErrFormat},
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
	for most, want := range map[int64]string{0: "", 128 << 20: "", 64 << 20: "it needs 128 MiB, this machine has memory for 64 MiB", 1: "this machine has memory for 0 MiB"} {
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
		run(f, raw, "xz"), join(run(f, raw, "xz", "-T2", "--block-size=1500", "--check=sha256"), make([]byte, 4)), run(f, raw, "bzip2"), run(f, raw, "lz4", "-c"), run(f, raw, "lz4", "-c", "-BD", "-B4", "--content-size"),
		join(run(f, raw, "zstd", "--stream-size=4000"), run(f, raw[:100], "zstd"), []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00seek")),
		// A long frame of blocks that repeat a byte: much else, then zeros, then less of it.
		join([]byte("\x28\xb5\x2f\xfd\x00\x38"), bytes.Repeat([]byte("\x02\x00\x10x"), 66), bytes.Repeat([]byte("\x02\x00\x10\x00"), 9), []byte("\x02\x00\x10x\x02\x00\x10\x00\x03\x00\x10\x00")),
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
		sum := maphash.Hash{}
		n, err := io.Copy(&sum, io.LimitReader(c, most))
		if c.Compression == Zstd && err == nil && n < most && n > 0 {
			// Frames one by one are the same as frames side by side.
			other := maphash.Hash{}
			other.SetSeed(sum.Seed())
			d, derr := zstd.NewReader(bytes.NewReader(in), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow))
			if derr != nil {
				t.Fatal(derr)
			}
			defer d.Close()
			if m, derr := io.Copy(&other, d); derr != nil || m != n || other.Sum64() != sum.Sum64() {
				t.Errorf("%d bytes, another reader has %d others: %v", n, m, derr)
			}
		}
		if c.Compression == Plain && (err != nil || n != int64(len(in))) {
			t.Errorf("%d plain bytes came out as %d, %v", len(in), n, err)
		}
		if c.Compression == Zstd && err == nil && n < most && n < c.Least {
			t.Errorf("%d bytes, at least %d were announced", n, c.Least)
		}
	})
}

// Who does not read on leaves nothing behind: synctest.Test waits for all goroutines.
func TestDecompressClose(t *testing.T) {
	raw := bytes.Repeat(noise(300_000), 30)
	for name, packed := range map[string][]byte{
		"gzip": run(t, raw, "gzip", "-1"), "zstd": run(t, raw, "zstd"), "zstd, short frames": bytes.Repeat(run(t, raw[:3_000_000], "zstd"), 9),
		"xz": run(t, raw, "xz", "-0"), "bzip2": run(t, raw, "bzip2"), "lz4": run(t, raw, "lz4", "-c"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := Decompress(bytes.NewReader(packed), 0)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 1000)
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, raw[:1000]) {
					t.Errorf("read %v", err)
				}
				c.Close()
				c.Close()
			})
		})
	}
}

// Zeros that a zstd file has much of are handed on as their number, and count for its length and its sum.
func TestZstdZeros(t *testing.T) {
	text := noise(3000)
	blank := make([]byte, 40<<20)
	for _, tt := range []struct {
		name string
		raw  []byte
		args string // of zstd
		hole int64  // that comes as its number, at least, bytes
	}{
		{"in the middle", join(text, blank, text, noise(200_000), text), "-1 --zstd=wlog=20", 39 << 20},
		{"at the start", join(blank, text), "-3", 39 << 20},
		{"at the end", join(noise(9<<20), blank), "-3", 39 << 20},
		{"twice", join(noise(9<<20), blank, text, blank, text), "-1 --zstd=wlog=20", 79 << 20},
		{"nothing else", blank, "-3", 39 << 20},
		{"without sum", join(noise(9<<20), blank, text), "-1 --no-check --zstd=wlog=18", 39 << 20},
		{"no blocks of 128 KiB", join(noise(9<<20), blank[:31<<20+4711], text), "-1 --zstd=wlog=20", 30 << 20},
		{"long window", join(noise(9<<20), blank, text), "-3 --long=27", 0},
	} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, length known %v", tt.name, known), func(t *testing.T) {
				args := append(strings.Fields(tt.args), "-c", "-q")
				if known {
					args = append(args, fmt.Sprintf("--stream-size=%d", len(tt.raw)))
				}
				packed := run(t, tt.raw, "zstd", args...)
				c, err := Decompress(bytes.NewReader(packed), 0)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				wantZeros(t, c, tt.raw, tt.hole)
				if strings.Contains(tt.args, "no-check") {
					return
				}
				if _, _, err := unpack(flip(packed, len(packed)-1)); err == nil || !strings.Contains(err.Error(), "unpack zstd: CRC") {
					t.Errorf("with a wrong sum: %v", err)
				}
				if _, _, err := unpack(packed[:len(packed)-1]); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("cut: %v", err)
				}
			})
		}
	}
}

func TestZstdLongFrameLies(t *testing.T) {
	raw := join(noise(9<<20), make([]byte, 20<<20), noise(3000))
	packed := run(t, raw, "zstd", "-c", "-q", fmt.Sprintf("--stream-size=%d", len(raw)))
	if binary.LittleEndian.Uint32(packed[6:]) != uint32(len(raw)) {
		t.Fatal("the length is elsewhere")
	}
	for _, more := range []int{-1, 1, -5 << 20, 5 << 20} {
		binary.LittleEndian.PutUint32(packed[6:], uint32(len(raw)+more))
		if _, _, err := unpack(packed); err == nil || !strings.Contains(err.Error(), "unpack zstd: frame size") {
			t.Errorf("%d bytes more: %v", more, err)
		}
	}
}

// Short frames of zeros, of which most images that are made for seeking consist.
func TestZstdBlankFrames(t *testing.T) {
	const size = 1 << 20
	data := noise(size)
	frame, blank := run(t, data, "zstd", "-q", "-c"), run(t, make([]byte, size), "zstd", "-q", "-c")
	shorter := run(t, make([]byte, size/2), "zstd", "-q", "-c")
	var packed, raw []byte
	for i := range 60 {
		switch {
		case i%10 == 0:
			packed, raw = append(packed, frame...), append(raw, data...)
		case i%10 == 7:
			packed, raw = append(packed, shorter...), append(raw, make([]byte, size/2)...)
		default:
			packed, raw = append(packed, blank...), append(raw, make([]byte, size)...)
		}
	}
	c, err := Decompress(bytes.NewReader(packed), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := make([]byte, 300_000)
	if _, err := io.ReadFull(c, start); err != nil {
		t.Fatal(err)
	}
	x := NewExtents(Rejoin(start, c), int64(len(raw)))
	var got []byte
	for {
		e, err := x.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset != int64(len(got)) {
			t.Fatalf("a part at %d, where one at %d was due", e.Offset, len(got))
		}
		part := make([]byte, e.Length)
		if !e.Hole {
			if _, err := io.ReadFull(x, part); err != nil {
				t.Fatal(err)
			}
		} else if e.Length >= holeSize && !isZero(raw[e.Offset:][:holeSize]) {
			t.Fatalf("a hole at %d", e.Offset)
		}
		got = append(got, part...)
	}
	if !bytes.Equal(got, raw) {
		t.Errorf("got %d bytes, other than the %d wanted", len(got), len(raw))
	}
}

func TestXXH64(t *testing.T) {
	var x xxh64
	for in, want := range map[string]uint64{"": 0xef46db3751d8e999, "a": 0xd24ec4f1a98c6e5b, "abc": 0x44bc2cf5ad770999} {
		x.reset()
		if x.write([]byte(in)); x.sum() != want {
			t.Errorf("%q: %x, want %x", in, x.sum(), want)
		}
	}
	var y xxh64
	x.reset()
	y.reset()
	data := noise(500)
	for i := range 200 {
		x.write(data[:i])
		y.write(data[:i])
		x.zeros(int64(i * 7))
		y.write(zeros[:i*7])
		if x.sum() != y.sum() {
			t.Fatalf("after %d zeros: %x, want %x", i*7, x.sum(), y.sum())
		}
	}
}

// wantZeros reads what was unpacked, of which at least hole bytes have to come as a number of zeros.
func wantZeros(t *testing.T, c *Content, want []byte, hole int64) {
	t.Helper()
	got, zeros := make([]byte, 0, len(want)), int64(0)
	for {
		p, err := c.r.(*ahead).lend()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		zeros += p.zeros
		got = append(append(got, p.b...), make([]byte, p.zeros)...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, other than the %d wanted", len(got), len(want))
	}
	if zeros < hole {
		t.Errorf("%d bytes came as their number, want at least %d", zeros, hole)
	}
}
