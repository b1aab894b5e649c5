// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/image/qcow2"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// qemuImage makes a qcow2 image of the bytes of a disk.
func qemuImage(t testing.TB, disk []byte, args ...string) []byte {
	t.Helper()
	raw, file := filepath.Join(t.TempDir(), "raw"), filepath.Join(t.TempDir(), "qcow2")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...), raw, file)...)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// backwards is a qcow2 image whose disk's start comes last in the file, and whose tables come after data.
func backwards(t testing.TB, disk []byte) []byte {
	t.Helper()
	b := qemuImage(t, disk, "-o", "cluster_size=4k")
	h := binary.BigEndian
	l1 := h.Uint64(b[40:])
	// The L2 table and the cluster that the disk begins with go to the end of the file.
	table := h.Uint64(b[l1:]) &^ (1 << 63)
	first := h.Uint64(b[table:]) &^ (1 << 63)
	end := (uint64(len(b)) + 4095) &^ 4095
	b = append(b, make([]byte, end-uint64(len(b)))...)
	h.PutUint64(b[table:], 1<<63|end)
	h.PutUint64(b[l1:], 1<<63|(end+4096))
	return append(append(b, bytes.Clone(b[first:first+4096])...), bytes.Clone(b[table:table+4096])...)
}

// serve is a web server for an image, which breaks as told.
func serve(t testing.TB, s *streamtest.Server) stream.Source {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	src, err := stream.NewHTTP(server.URL, stream.HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestWriteQCOW2(t *testing.T) {
	raw := makeImage(t, 40*mib, gptScript)
	copy(raw[5*mib:], run(t, "", "head", "-c", "3000000", "/dev/urandom"))
	plain, packed := qemuImage(t, raw), qemuImage(t, raw, "-c")
	late := backwards(t, raw)
	gz := zipped(t, plain)

	tests := []struct {
		name   string
		image  []byte
		faults []streamtest.Fault
		always streamtest.Fault
		asks   string // part of what the server was asked for; "" for anything
		err    string // "" for none
	}{
		{name: "plain", image: plain, asks: "-"},
		{name: "packed clusters", image: packed, asks: "-"},
		{name: "server without ranges", image: plain, always: streamtest.Fault{NoRange: true}},
		{name: "server without ranges, packed clusters", image: packed, always: streamtest.Fault{NoRange: true}},
		{name: "connection breaks", image: packed, faults: []streamtest.Fault{{Cut: 100_000}, {Cut: 20}, {End: 7}, {Cut: 300_000}, {}}},
		{name: "in gzip", image: gz},
		{name: "in zstd", image: []byte(run(t, string(packed), "zstd", "-q", "-c"))},
		{name: "tables last", image: late},
		{name: "tables last, server without ranges", image: late, always: streamtest.Fault{NoRange: true}, err: "cannot be written in one go"},
		{name: "tables last, in gzip", image: zipped(t, late), err: "cannot be written in one go"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := &streamtest.Server{Content: tt.image, ETag: `"1"`, Faults: tt.faults, Always: tt.always}
			d := newDisk(t, 40*mib, 512)
			r, err := Write(t.Context(), d, Spec{Sources: []stream.Source{serve(t, server)}, Digest: sha(tt.image), Format: QCOW2, ReadBack: stream.ReadBackFull})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !errors.Is(err, qcow2.ErrFormat) {
					t.Fatalf("Write() = %v, want an error with %q", err, tt.err)
				}
				got, rerr := os.ReadFile(d.Name())
				if rerr != nil {
					t.Fatal(rerr)
				}
				if start := got[:mib]; len(bytes.Trim(start, "\x00")) != 0 && !strings.Contains(run(t, "", "sfdisk", "--dump", d.Name()), "old") {
					t.Error("the disk has a start that is neither zero nor the old one")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Format != QCOW2 || r.Written.Size != 40*mib || !r.GPT {
				t.Errorf("Write() = %+v", r)
			}
			if asked := strings.Join(server.Requests(), "\n"); !strings.Contains(asked, tt.asks) {
				t.Errorf("the server was asked for %s", asked)
			}
			got, err := os.ReadFile(d.Name())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, raw) {
				t.Error("image and disk differ")
			}
		})
	}
}

// What is wrong with a qcow2 image is told before the disk is touched, where its tables can be read before.
func TestWriteRefusesQCOW2(t *testing.T) {
	raw := makeImage(t, 16*mib, gptScript)
	good := qemuImage(t, raw, "-o", "cluster_size=4k")
	edited := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	l1 := int(binary.BigEndian.Uint64(good[40:]))
	noTable := qemuImage(t, make([]byte, 16*mib))
	tests := []struct {
		name   string
		image  []byte
		disk   int64
		sector int
		format Format
		want   string
		is     error
	}{
		{name: "larger than the disk", image: good, disk: 8 * mib, want: "16777216 bytes, the disk has 8388608", is: stream.ErrTooLarge},
		{name: "larger than the disk, in gzip", image: zipped(t, good), disk: 8 * mib, want: "16777216 bytes, the disk has 8388608", is: stream.ErrTooLarge},
		{name: "for other sectors", image: good, sector: 4096, is: ErrSectorSize},
		{name: "for other sectors, in gzip", image: zipped(t, good), sector: 4096, is: ErrSectorSize},
		{name: "said to be raw", image: good, format: Raw, want: "image must be raw, and its bytes are qcow2", is: stream.ErrFormat},
		{name: "backing file", image: edited(8, 0, 0, 0, 0, 0, 0, 1, 0), want: "backing file", is: qcow2.ErrFormat},
		{name: "encrypted", image: edited(32, 0, 0, 0, 2), want: "encrypted", is: qcow2.ErrFormat},
		{name: "corrupt bit", image: edited(79, 2), want: "marked as corrupt", is: qcow2.ErrFormat},
		{name: "external data", image: edited(79, 4), want: "another file", is: qcow2.ErrFormat},
		{name: "unknown feature", image: edited(76, 1), want: "not known: bit 24", is: qcow2.ErrFormat},
		{name: "L2 table behind the end", image: edited(l1+4, 0x7f), want: "not at a cluster of the file", is: qcow2.ErrFormat},
		{name: "cut", image: good[:len(good)-4096], is: qcow2.ErrFormat, want: "not in the file"},
		{name: "no partition table", image: noTable, is: ErrNoTable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			size, sector := max(tt.disk, 8*mib), max(tt.sector, 512)
			if tt.disk == 0 {
				size = 16 * mib
			}
			d := newDisk(t, size, sector)
			before, err := os.ReadFile(d.Name())
			if err != nil {
				t.Fatal(err)
			}
			_, err = Write(t.Context(), d, Spec{Sources: []stream.Source{serve(t, &streamtest.Server{Content: tt.image})}, Digest: sha(tt.image), Format: tt.format})
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write() = %v, want an error with %q that is %v", err, tt.want, tt.is)
			}
			after, err := os.ReadFile(d.Name())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, after) {
				t.Error("the disk was touched")
			}
		})
	}
}

// A server that shows other bytes to who looks ahead than to who reads on is found out, though each is a good image and the digest is right.
func TestWriteQCOW2TwoFaces(t *testing.T) {
	raw := makeImage(t, 16*mib, gptScript)
	other := bytes.Clone(raw)
	copy(other[100:], "another boot loader") // behind the table, which stays as it is
	one, two := qemuImage(t, raw), qemuImage(t, other)
	if len(one) != len(two) {
		t.Fatal("the images have different lengths")
	}
	d := newDisk(t, 16*mib, 512)
	_, err := Write(t.Context(), d, Spec{Sources: []stream.Source{faces{source{b: one}, two}}, Digest: sha(one)})
	if !errors.Is(err, stream.ErrChanged) {
		t.Errorf("Write() = %v, want %v", err, stream.ErrChanged)
	}
	got := make([]byte, mib)
	if _, err := d.ReadAt(got, 0); err != nil || len(bytes.Trim(got, "\x00")) != 0 {
		t.Errorf("the disk has a start (%v)", err)
	}
}

// faces is a source with other bytes in its parts than in the whole.
type faces struct {
	source
	parts []byte
}

func (f faces) OpenRange(ctx context.Context, offset, _ int64) (io.ReadCloser, error) {
	return source{b: f.parts}.Open(ctx, offset)
}
