// SPDX-License-Identifier: Apache-2.0

package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// run runs a program of QEMU's, which judges.
func qemu(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// decode reads an image as image.Write does, from a stream, onto a disk that is full of old data; with its tables read ahead, or in one go.
func decode(file []byte, ahead bool) ([]byte, error) {
	q, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	defer q.Close()
	if q.Size() > 64<<20 {
		return nil, fmt.Errorf("too large for this test: %d", q.Size())
	}
	var start []byte
	if ahead {
		readAt := bytes.NewReader(file).ReadAt
		if err := q.ReadAhead(readAt, int64(len(file))); err != nil {
			return nil, err
		}
		if start, err = q.Start(readAt, 1<<20); err != nil {
			return nil, err
		}
	}
	disk := bytes.Repeat([]byte{0xa5}, int(q.Size()))
	done := map[int64]bool{}
	total := int64(0)
	for {
		p, err := q.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		part := disk[p.Offset:][:p.Length]
		if p.Hole {
			clear(part)
		} else if _, err := io.ReadFull(q, part); err != nil {
			return nil, err
		}
		total += p.Length
		for at := p.Offset; at < p.Offset+p.Length; at += 512 {
			if done[at] {
				return nil, fmt.Errorf("byte %d comes twice", at)
			}
			done[at] = true
		}
	}
	if total != q.Size() {
		return nil, fmt.Errorf("%d bytes of %d come", total, q.Size())
	}
	if ahead && !bytes.Equal(start, disk[:min(1<<20, len(disk))]) {
		return nil, errors.New("the start comes otherwise than it was read ahead")
	}
	return disk, nil
}

// pattern is a disk with zeros, text that packs well, and noise that does not.
func pattern(size int) []byte {
	rng := rand.New(rand.NewSource(int64(size)))
	b := make([]byte, size)
	for at := 0; at < size; {
		n := min(size-at, rng.Intn(200<<10)+1)
		switch rng.Intn(3) {
		case 0:
			rng.Read(b[at : at+n])
		case 1:
			copy(b[at:at+n], bytes.Repeat([]byte("ironhand "), n/9+1))
		}
		at += n
	}
	return b
}

func TestAsQEMU(t *testing.T) {
	const size = 5<<20 + 3*512
	tests := []struct {
		name    string
		options string
		convert []string
	}{
		{"default", "", nil},
		{"version 2", "compat=0.10", nil},
		{"version 2, packed", "compat=0.10", []string{"-c"}},
		{"packed", "", []string{"-c"}},
		{"packed out of order", "", []string{"-c", "-W", "-m", "8"}},
		{"zstd", "compression_type=zstd", []string{"-c"}},
		{"clusters of 512", "cluster_size=512", nil},
		{"clusters of 512, packed", "cluster_size=512", []string{"-c"}},
		{"clusters of 4096, packed", "cluster_size=4096", []string{"-c"}},
		{"clusters of 2 MiB", "cluster_size=2M", nil},
		{"clusters of 2 MiB, packed", "cluster_size=2M", []string{"-c"}},
		{"clusters of 2 MiB, zstd", "cluster_size=2M,compression_type=zstd", []string{"-c"}},
		{"subclusters", "extended_l2=on", nil},
		{"subclusters of 512", "extended_l2=on,cluster_size=16k", nil},
		{"subclusters, packed", "extended_l2=on,compression_type=zstd", []string{"-c"}},
		{"preallocated tables", "preallocation=metadata", nil},
		{"all preallocated", "preallocation=full", nil},
		{"lazy reference counts", "lazy_refcounts=on", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			raw, file := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
			want := pattern(size)
			if err := os.WriteFile(raw, want, 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"convert", "-f", "raw", "-O", "qcow2"}
			if test.options != "" {
				args = append(args, "-o", test.options)
			}
			qemu(t, "qemu-img", append(append(args, test.convert...), raw, file)...)
			compare(t, file, want, !slices.Contains(test.convert, "-W") && test.name != "all preallocated")
		})
	}
}

// What qemu-img makes of these cannot be read in one go, and is refused, not written wrong; with its tables read ahead it can.
func TestOutOfOrder(t *testing.T) {
	// Clusters that cannot be packed, and others that can: the reference counts outgrow their place, and what is packed goes there.
	want := make([]byte, 24<<20)
	fill := rand.New(rand.NewSource(1))
	fill.Read(want[:12<<20])
	for i := 12 << 20; i < len(want); i++ {
		want[i] = byte(i >> 9)
	}
	for _, test := range []struct {
		name string
		args []string
	}{
		{"all preallocated", []string{"-o", "preallocation=full"}},
		{"clusters of 512, packed", []string{"-c", "-o", "cluster_size=512"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			raw, file := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
			if err := os.WriteFile(raw, want, 0o600); err != nil {
				t.Fatal(err)
			}
			qemu(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, test.args...), raw, file)...)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decode(b, false); err == nil || !strings.Contains(err.Error(), "cannot be written in one go") {
				t.Errorf("in one go: %v", err)
			}
			if got, err := decode(b, true); err != nil || !bytes.Equal(got, want) {
				t.Errorf("tables read ahead: %v", err)
			}
		})
	}
}

// compare reads an image in both ways. In one go some can only be refused.
func compare(t *testing.T, file string, want []byte, inOrder bool) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []bool{true, false} {
		got, err := decode(b, ahead)
		if !ahead && !inOrder && err != nil && strings.Contains(err.Error(), "cannot be written in one go") {
			t.Log(err)
			continue
		}
		if err != nil {
			t.Fatalf("ahead %v: %v", ahead, err)
		}
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("ahead %v: the disk differs at %d (%d bytes of %d)", ahead, i, len(got), len(want))
			}
		}
		if len(got) != len(want) {
			t.Fatalf("ahead %v: %d bytes, want %d", ahead, len(got), len(want))
		}
	}
}

// Images that were written to as disks: out of order, zeroed, discarded, with snapshots, not closed.
func TestUsedImages(t *testing.T) {
	tests := []struct {
		name    string
		options string
		do      []string // qemu-io commands, or with "img " in front qemu-img's
	}{
		{"backwards", "", []string{"write -P 1 4M 64k", "write -P 2 3M 64k", "write -P 3 0 1M", "write -P 4 2M 100k"}},
		{"zeroed", "", []string{"write -P 1 0 4M", "write -z 1M 1M", "write -z 64k 64k"}},
		{"zeroed, place kept", "", []string{"write -P 1 0 4M", "write -z 1M 1M", "discard 2M 512k"}},
		{"version 2, discarded", "compat=0.10", []string{"write -P 1 0 4M", "discard 1M 1M"}},
		{"parts of subclusters", "extended_l2=on", []string{"write -P 1 0 2k", "write -P 2 10k 4k", "write -P 3 130k 70k", "write -z 132k 4k", "discard 136k 2k"}},
		{"snapshot inside", "", []string{"write -P 1 0 4M", "img snapshot -c one", "write -P 2 1M 2M", "img snapshot -c two", "write -z 2M 512k"}},
		{"packed and then written to", "", []string{"write -c -P 1 0 64k", "write -c -P 2 128k 64k", "write -P 3 64k 64k", "write -P 4 130k 1k"}},
		{"grown", "", []string{"write -P 1 0 4M", "img resize IMAGE 6M", "write -P 5 5M 1M"}},
		{"empty", "", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			raw, file := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
			args := []string{"create", "-q", "-f", "qcow2"}
			if test.options != "" {
				args = append(args, "-o", test.options)
			}
			qemu(t, "qemu-img", append(args, file, "5M")...)
			for _, do := range test.do {
				if img, ok := strings.CutPrefix(do, "img "); ok {
					words := strings.Fields(strings.ReplaceAll(img, "IMAGE", file))
					if words[0] == "snapshot" {
						words = append(words, file)
					}
					qemu(t, "qemu-img", words...)
				} else {
					qemu(t, "qemu-io", "-f", "qcow2", "-c", do, file)
				}
			}
			qemu(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", file, raw)
			want, err := os.ReadFile(raw)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, file, want, false)
		})
	}
}

// small is an image of our own making: version 3, clusters of 512 bytes, a disk of 4 clusters, one of them used.
func small() []byte {
	be := binary.BigEndian
	b := make([]byte, 512*5)
	copy(b, Magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 9)
	be.PutUint64(b[24:], 2048)
	be.PutUint32(b[36:], 1)
	be.PutUint64(b[40:], 512)
	be.PutUint32(b[96:], 4)
	be.PutUint32(b[100:], 104)
	be.PutUint64(b[512:], 1024|1<<63)    // L1 at 512
	be.PutUint64(b[1024+8:], 2048|1<<63) // L2 at 1024, second cluster
	copy(b[2048:], bytes.Repeat([]byte{7}, 512))
	return b
}

// Each size of clusters that the format has.
func TestClusterSizes(t *testing.T) {
	for n := minBits; n <= maxBits; n++ {
		for _, version := range []string{"compat=0.10", "compat=1.1", "compat=1.1,compression_type=zstd"} {
			for _, packed := range []bool{false, true} {
				if strings.Contains(version, "zstd") && !packed {
					continue
				}
				t.Run(fmt.Sprintf("%d, %s, packed %v", 1<<n, version, packed), func(t *testing.T) {
					dir := t.TempDir()
					raw, file := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
					want := pattern(2<<20 + 5*512)
					if err := os.WriteFile(raw, want, 0o600); err != nil {
						t.Fatal(err)
					}
					args := []string{"convert", "-f", "raw", "-O", "qcow2", "-o", fmt.Sprintf("%s,cluster_size=%d", version, 1<<n)}
					if packed {
						args = append(args, "-c")
					}
					qemu(t, "qemu-img", append(args, raw, file)...)
					compare(t, file, want, !packed || n > minBits+2) // of small ones that are packed few are between two tables
				})
			}
		}
	}
}

// A packed cluster that unpacks to less than a cluster is refused, and of one that unpacks to more QEMU takes the start.
func TestPackedExpandsWrongly(t *testing.T) {
	pack := func(b []byte) []byte {
		var packed bytes.Buffer
		w, err := flate.NewWriter(&packed, 9)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
		return packed.Bytes()
	}
	zpack := func(b []byte) []byte {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(b, nil)
	}
	for _, compression := range []Compression{Deflate, Zstd} {
		for _, test := range []struct {
			name string
			size int
			ok   bool
		}{{"just right", 512, true}, {"nothing", 0, false}, {"less", 511, false}, {"more", 513, true}, {"bomb", 1 << 20, true}} {
			t.Run(fmt.Sprintf("%v, %s", compression, test.name), func(t *testing.T) {
				b := small()
				be := binary.BigEndian
				content := bytes.Repeat([]byte("0123456789abcdef"), test.size/16+1)[:test.size]
				packed := pack(content)
				if compression == Zstd {
					packed = zpack(content)
					be.PutUint64(b[72:], 8)
					be.PutUint32(b[100:], 112)
					b[104] = 1
				}
				b = append(b[:2048], packed...)
				b = append(b, make([]byte, -len(b)&511)...)
				be.PutUint64(b[1024+8:], 1<<62|uint64((len(packed)+511)/512-1)<<61|2048)
				for _, ahead := range []bool{true, false} {
					got, err := decode(b, ahead)
					if !test.ok {
						if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "packed cluster at 2048") {
							t.Errorf("decode(%v) = %v", ahead, err)
						}
						continue
					}
					if err != nil {
						t.Errorf("decode(%v) = %v", ahead, err)
					} else if want := append(append(make([]byte, 512), content[:512]...), make([]byte, 1024)...); !bytes.Equal(got, want) {
						t.Errorf("decode(%v): other bytes", ahead)
					}
				}
			})
		}
	}
}

// Images that were changed here and there, or cut, are refused or read as QEMU reads them.
func TestBrokenAsQEMU(t *testing.T) {
	const size = 1<<20 + 512
	want := pattern(size)
	rng := rand.New(rand.NewSource(1))
	for _, options := range []string{"", "-c", "-c -o compression_type=zstd", "-o extended_l2=on", "-c -o cluster_size=4k"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			raw, file, broken, out := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2"), filepath.Join(dir, "broken"), filepath.Join(dir, "out")
			if err := os.WriteFile(raw, want, 0o600); err != nil {
				t.Fatal(err)
			}
			qemu(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, strings.Fields(options)...), raw, file)...)
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			h, err := ParseHeader(good)
			if err != nil {
				t.Fatal(err)
			}
			l2 := int64(binary.BigEndian.Uint64(good[h.l1:]) & offsetMask)
			written, refused := 0, 0
			for i := range 40 {
				b := bytes.Clone(good)
				switch i % 4 {
				case 0: // cut, at a cluster's end or anywhere
					at := rng.Int63n(int64(len(b)))
					if i%8 == 0 {
						at &^= h.ClusterSize - 1
					}
					b = b[:at]
				case 1: // the header, but for reference counts and snapshots, which are not looked at
					at := rng.Intn(48 + 24)
					if at >= 48 {
						at += 24
					}
					b[at] ^= 1 << rng.Intn(8)
				case 2: // an entry of the first L2 table that is used
					b[l2+rng.Int63n(min(size/h.ClusterSize*h.entrySize(), h.ClusterSize))] ^= 1 << rng.Intn(8)
				case 3: // two such entries are the same
					n := min(size/h.ClusterSize, h.perTable())
					copy(b[l2+rng.Int63n(n)*h.entrySize():][:h.entrySize()], b[l2+rng.Int63n(n)*h.entrySize():])
				}
				for _, ahead := range []bool{true, false} {
					got, err := decode(b, ahead)
					if err != nil {
						refused++
						continue
					}
					written++
					if err := os.WriteFile(broken, b, 0o600); err != nil {
						t.Fatal(err)
					}
					qemu(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", broken, out)
					judged, err := os.ReadFile(out)
					if err != nil {
						t.Fatal(err)
					}
					if whole := len(got) &^ 511; !bytes.Equal(got[:whole], judged) { // QEMU leaves out what is less than a sector at the end
						t.Errorf("change %d, ahead %v: other bytes than QEMU reads", i, ahead)
					}
				}
			}
			if written == 0 || refused == 0 {
				t.Errorf("%d were written, %d refused", written, refused)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	be := binary.BigEndian
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { be.PutUint32(b[at:], v); return b }
	}
	put64 := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { be.PutUint64(b[at:], v); return b }
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	tests := []struct {
		name   string
		change func([]byte) []byte
		want   string // "" for none
	}{
		{"good", func(b []byte) []byte { return b }, ""},
		{"dirty", put64(72, 1), ""},
		{"magic", put32(0, 0), "no header"},
		{"header cut off", cut(71), "no header"},
		{"header of version 3 cut off", cut(103), "no header"},
		{"version 1", put32(4, 1), "version 1 is not known"},
		{"version 4", put32(4, 4), "version 4 is not known"},
		{"clusters of 256", put32(20, 8), "clusters of 2^8 bytes"},
		{"clusters of 4 MiB", put32(20, 22), "clusters of 2^22 bytes"},
		{"backing file", func(b []byte) []byte {
			be.PutUint64(b[8:], 110)
			be.PutUint32(b[16:], 8)
			copy(b[110:], "base.img")
			return b
		}, `it needs a backing file ("base.img")`},
		{"backing file without a name", put64(8, 1<<40), "it needs a backing file;"},
		{"encrypted", put32(32, 2), "it is encrypted"},
		{"corrupt", put64(72, 2), "marked as corrupt"},
		{"external data file", put64(72, 4), "its data is in another file"},
		{"unknown feature", put64(72, 1<<17), "not known: bit 17"},
		{"unknown feature with a name", func(b []byte) []byte {
			be.PutUint64(b[72:], 1<<17)
			be.PutUint32(b[104:], extensionFeatures)
			be.PutUint32(b[108:], 48)
			b[113] = 17
			copy(b[114:], "time travel")
			return b
		}, `not known: bit 17 ("time travel")`},
		{"compression type without a place", put64(72, 8), "too short for the compression type"},
		{"compression type", func(b []byte) []byte { be.PutUint64(b[72:], 8); be.PutUint32(b[100:], 112); b[104] = 9; return b }, "compression type 9 is not known"},
		{"subclusters in small clusters", put64(72, 16), "subclusters need clusters"},
		{"header too long", put32(100, 513), "a header of 513 bytes"},
		{"no bytes", put64(24, 0), "its disk has no bytes"},
		{"size beyond all", put64(24, 1<<63), "is too large"},
		{"size of many clusters", put64(24, 1<<42), "is too large for parts of 512"},
		{"L1 too short", put64(24, 1<<20), "its L1 table has 1 entries"},
		{"L1 too long", put32(36, 1<<30), "an L1 table for 1073741824 tables is too large"},
		{"L1 not at a cluster", put64(40, 513), "not at a cluster"},
		{"L1 nowhere", put64(40, 0), "not at a cluster"},
		{"L1 behind the end", put64(40, 1<<20), "ends behind the end of the file"},
		{"L2 behind the end", put64(512, 1<<20), "its L2 table 0 at 1048576 is not at a cluster of the file"},
		{"data behind the end", put64(1024+8, 1<<20), "its 512 bytes at 1048576 are not in the file"},
		{"data cut off", cut(2559), "its 512 bytes at 2048 are not in the file"},
		{"data in the header", put64(1024+8, 1<<63), ""}, // that is none
		{"data in the L1 table", put64(1024+8, 1<<9|1<<63), "used twice"},
		{"data in the L2 table", put64(1024+8, 1<<10|1<<63), "used twice"},
		{"L2 in the L1 table", put64(512, 512|1<<63), "used twice"},
		{"used twice", put64(1024, 2048|1<<63), "used twice"},
		{"packed behind the end", put64(1024+8, 1<<62|1<<20), "are not in the file"},
		{"packed is broken", put64(1024+8, 1<<62|2048), "packed cluster at 2048 of the file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, ahead := range []bool{true, false} {
				_, err := decode(test.change(small()), ahead)
				switch {
				case test.want == "" && err != nil:
					t.Errorf("decode(%v) = %v", ahead, err)
				case test.want == "" || !ahead && errors.Is(err, io.ErrUnexpectedEOF): // where the file ends is not known then
				case err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, ErrFormat):
					t.Errorf("decode(%v) = %v, want an ErrFormat with %q", ahead, err, test.want)
				}
			}
		})
	}
}

// A file that breaks off while it is read is never a success.
func TestBreaksOff(t *testing.T) {
	file := small()
	for _, ahead := range []bool{true, false} {
		for n := range len(file) {
			q, err := NewReader(bytes.NewReader(file[:n]))
			if n < headerV3 {
				if err == nil {
					t.Fatalf("a header of %d bytes is accepted", n)
				}
				continue
			}
			if err == nil && ahead {
				err = q.ReadAhead(bytes.NewReader(file).ReadAt, -1)
			}
			for err == nil {
				if _, err = q.Next(); err == nil {
					_, err = io.Copy(io.Discard, q)
				}
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("ahead %v, after %d of %d bytes: %v", ahead, n, len(file), err)
			}
			q.Close()
		}
	}
}

// Tables that were read ahead are compared with those that come with the file, which the digest proves.
func TestChangesBehindOurBack(t *testing.T) {
	file := small()
	for _, at := range []int{512 + 7, 1024 + 8 + 5, 1024 + 17} {
		other := bytes.Clone(file)
		other[at] ^= 2 // within the file still, or a hole becomes a zero cluster
		q, err := NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		if err := q.ReadAhead(bytes.NewReader(other).ReadAt, -1); err != nil {
			continue
		}
		for err == nil {
			if _, err = q.Next(); err == nil {
				_, err = io.Copy(io.Discard, q)
			}
		}
		if !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("byte %d changed: %v, want an ErrFormat", at, err)
		}
		q.Close()
	}
}

// Tables in thousands of places are not asked for one by one.
func TestTooScattered(t *testing.T) {
	h := Header{ClusterSize: 64 << 10}
	var tables []item
	for i := range uint64(10_000) {
		tables = append(tables, item{where: i << 20})
	}
	if n := len(h.group(tables)); n <= maxRequests {
		t.Errorf("%d groups", n)
	}
	for i := range tables {
		tables[i].where = uint64(i) << 16
	}
	if n := len(h.group(tables)); n != 2500 {
		t.Errorf("tables side by side are in %d groups, want 2500", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(small())
	be := binary.BigEndian
	packed := small()
	be.PutUint64(packed[1024:], packedBit|2048)
	f.Add(append(packed, 0xcb, 0x48, 0x04, 0x00))
	sub := make([]byte, 16<<10*4) // a cluster of 16 KiB for the header, the L1 table, an L2 table, and data
	copy(sub, small()[:512])
	be.PutUint32(sub[20:], 14)
	be.PutUint64(sub[40:], 16<<10)
	be.PutUint64(sub[72:], 1<<bitExtendedL2)
	be.PutUint64(sub[16<<10:], 32<<10)
	be.PutUint64(sub[32<<10:], 48<<10)
	be.PutUint64(sub[32<<10+8:], 0b1010|0b101<<32)
	f.Add(sub)
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseHeader(b[:min(len(b), HeadSize)]); err != nil || h.Size > 1<<20 {
			return
		}
		one, err := decode(b, true)
		two, goErr := decode(b, false)
		for _, err := range []error{err, goErr} {
			if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
		}
		if err == nil && goErr == nil && !bytes.Equal(one, two) {
			t.Error("the two ways make different disks")
		}
	})
}
