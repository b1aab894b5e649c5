// SPDX-License-Identifier: Apache-2.0

package inflate_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os/exec"
	"testing"
	"testing/iotest"

	"github.com/ironhand/ironhand/stream/inflate"
)

// pieces is data of many kinds: noise, zeros, text, long and short repetitions from near and far.
func pieces(seed int64, size int) []byte {
	rng := rand.New(rand.NewSource(seed))
	b := make([]byte, 0, size)
	for len(b) < size {
		n := rng.Intn(20000) + 1
		switch rng.Intn(6) {
		case 0:
			p := make([]byte, n)
			rng.Read(p)
			b = append(b, p...)
		case 1:
			b = append(b, make([]byte, n*3)...)
		case 2:
			for i := range n / 20 {
				b = fmt.Appendf(b, "line %d of ironhand's text\n", i*i)
			}
		case 3:
			for range n {
				b = append(b, "aaaaabbbcdefghij"[rng.Intn(16)])
			}
		case 4:
			if len(b) > 0 {
				far := rng.Intn(min(len(b), 40000)) + 1
				for range n {
					b = append(b, b[len(b)-far])
				}
			}
		case 5:
			for range n {
				b = append(b, byte(rng.NormFloat64()*float64(n%60)))
			}
		}
	}
	return b[:size]
}

func pack(t testing.TB, level int, b []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// stream unpacks with Stream, and says what was left.
func stream(d *inflate.Decoder, in io.Reader, most int) (out, rest []byte, err error) {
	r := bufio.NewReaderSize(in, 4096)
	err = d.Stream(r, func(p []byte) error {
		if out = append(out, p...); len(out) > most {
			return errMost
		}
		return nil
	})
	rest, rerr := io.ReadAll(r)
	return out, rest, errors.Join(err, rerr)
}

var errMost = errors.New("more than enough")

func TestRoundTrip(t *testing.T) {
	var d inflate.Decoder
	for _, size := range []int{0, 1, 2, 300, 511, 4096, 65536, 1 << 20, 3<<20 + 17} {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 1, 6, 9} {
			t.Run(fmt.Sprint(size, level), func(t *testing.T) {
				want := pieces(int64(size+level), size)
				packed := pack(t, level, want)
				got := make([]byte, size)
				if err := d.Fill(got, packed); err != nil || !bytes.Equal(got, want) {
					t.Errorf("Fill: %v, equal %v", err, bytes.Equal(got, want))
				}
				got, rest, err := stream(&d, io.MultiReader(bytes.NewReader(packed), bytes.NewReader([]byte("trailer"))), size)
				if err != nil || !bytes.Equal(got, want) || string(rest) != "trailer" {
					t.Errorf("Stream: %v, equal %v, %q is left", err, bytes.Equal(got, want), rest)
				}
				if size > 65536 {
					return
				}
				got, _, err = stream(&d, iotest.OneByteReader(bytes.NewReader(packed)), size)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("Stream, byte by byte: %v, equal %v", err, bytes.Equal(got, want))
				}
			})
		}
	}
}

// What zlib makes has other blocks than what Go makes.
func TestAsGzip(t *testing.T) {
	var d inflate.Decoder
	want := pieces(7, 2<<20)
	for _, level := range []string{"-1", "-6", "-9"} {
		cmd := exec.Command("gzip", "-n", "-c", level)
		cmd.Stdin = bytes.NewReader(want)
		packed, err := cmd.Output()
		if err != nil {
			t.Skip(err)
		}
		const header, trailer = 10, 8
		got := make([]byte, len(want))
		if err := d.Fill(got, packed[header:]); err != nil || !bytes.Equal(got, want) {
			t.Errorf("gzip %s: Fill: %v, equal %v", level, err, bytes.Equal(got, want))
		}
		got, rest, err := stream(&d, bytes.NewReader(packed[header:]), len(want))
		if err != nil || !bytes.Equal(got, want) || len(rest) != trailer {
			t.Errorf("gzip %s: Stream: %v, equal %v, %d bytes are left", level, err, bytes.Equal(got, want), len(rest))
		}
	}
}

func TestShort(t *testing.T) {
	var d inflate.Decoder
	want := pieces(3, 3000)
	for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 9} {
		packed := pack(t, level, want)
		for n := range packed {
			if _, _, err := stream(&d, bytes.NewReader(packed[:n]), len(want)); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("level %d, %d of %d bytes: Stream: %v", level, n, len(packed), err)
			}
			if err := d.Fill(make([]byte, len(want)+1), packed[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("level %d, %d of %d bytes: Fill: %v", level, n, len(packed), err)
			}
		}
		if err := d.Fill(make([]byte, len(want)+1), packed); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("level %d, more than there is: %v", level, err)
		}
		if err := d.Fill(make([]byte, 1000), packed); err != nil {
			t.Errorf("level %d, less than there is: %v", level, err)
		}
	}
}

// A reader that breaks is not taken for bytes that are wrong.
func TestBrokenReader(t *testing.T) {
	var d inflate.Decoder
	packed := pack(t, 6, pieces(4, 100000))
	broken := errors.New("broken")
	_, _, err := stream(&d, io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(broken)), 100000)
	if !errors.Is(err, broken) {
		t.Errorf("Stream(...) = %v, want %v", err, broken)
	}
}

// FuzzInflate compares with the standard library, which takes a few codes more than zlib does.
func FuzzInflate(f *testing.F) {
	for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 1, 9} {
		f.Add(pack(f, level, pieces(1, 2000)))
	}
	f.Add([]byte{0x03, 0x00})                                                    // a fixed block without bytes
	f.Add([]byte{0x4b, 0x04, 0x00})                                              // "a"
	f.Add([]byte{0x05, 0xe0, 0x81, 8, 0, 0, 0, 0, 0x20, 0x7f, 0xeb, 0x0b, 0, 0}) // no distances (zlib's infcover.c)
	f.Fuzz(func(t *testing.T, packed []byte) {
		const most = 1 << 20
		r := bytes.NewReader(packed)
		want, werr := io.ReadAll(io.LimitReader(flate.NewReader(r), most))
		if len(want) == most {
			return
		}
		var d inflate.Decoder
		got, rest, err := stream(&d, bytes.NewReader(packed), most)
		if err == nil && (werr != nil || !bytes.Equal(got, want) || len(rest) != r.Len()) {
			t.Fatalf("Stream: %d bytes, %d are left; want %d, %d left, error %v", len(got), len(rest), len(want), r.Len(), werr)
		}
		if err != nil && werr == nil {
			// Go takes a code of lengths with one bit, and a block whose end has no code if it never comes to it.
			if !errors.Is(err, inflate.ErrCorrupt) {
				t.Fatalf("Stream: %v; Go takes it", err)
			}
			return
		}
		filled := make([]byte, len(want))
		if ferr := d.Fill(filled, packed); werr == nil && (ferr != nil || !bytes.Equal(filled, want)) {
			t.Fatalf("Fill: %v", ferr)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	want := pieces(1, 8<<20)
	packed := pack(b, 6, want)
	b.Run("Fill", func(b *testing.B) {
		var d inflate.Decoder
		out := make([]byte, len(want))
		b.SetBytes(int64(len(want)))
		for b.Loop() {
			if err := d.Fill(out, packed); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Stream", func(b *testing.B) {
		var d inflate.Decoder
		b.SetBytes(int64(len(want)))
		for b.Loop() {
			if err := d.Stream(bufio.NewReaderSize(bytes.NewReader(packed), 64<<10), func([]byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
