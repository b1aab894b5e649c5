// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/streamtest"
)

const mib = 1 << 20

// picture makes an image of words such as "data:65536 hole:100".
func picture(t testing.TB, words string) []byte {
	t.Helper()
	var b []byte
	for word := range strings.FieldsSeq(words) {
		var n int
		kind, size, _ := strings.Cut(word, ":")
		if _, err := fmt.Sscan(size, &n); err != nil {
			t.Fatal(err)
		}
		piece := make([]byte, n)
		for i := 0; kind == "data" && i < n; i++ {
			piece[i] = byte(1 + i%251)
		}
		b = append(b, piece...)
	}
	return b
}

// script is an Extents whose extents are what a test says.
type script struct {
	extents []stream.Extent
	content []byte
	size    int64
	now     []byte
	end     error // after the last, io.EOF if nil
}

func (s *script) Size() int64 { return s.size }

func (s *script) Next() (stream.Extent, error) {
	if len(s.extents) == 0 {
		if s.end == nil {
			return stream.Extent{}, io.EOF
		}
		return stream.Extent{}, s.end
	}
	e := s.extents[0]
	s.extents = s.extents[1:]
	s.now = nil
	if !e.Hole && e.Offset >= 0 && e.Length > 0 && e.Length <= int64(len(s.content))-e.Offset {
		s.now = s.content[e.Offset : e.Offset+e.Length]
	}
	return e, nil
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.now) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.now)
	s.now = s.now[n:]
	return n, nil
}

// expected is what a disk must hold afterwards: the image, zeros to the end of its last sector, what was there before, and a last MiB of zeros
// where the image has none.
func expected(image []byte, size int64, sector int) []byte {
	b := bytes.Repeat([]byte{streamtest.Old}, int(size))
	clear(b[max(0, size-mib):])
	n := copy(b, image)
	clear(b[n : (n+sector-1)/sector*sector])
	if n < mib {
		clear(b[:min(mib, size)][n:])
	}
	return b
}

func TestWrite(t *testing.T) {
	for _, tt := range []struct {
		name    string
		image   string
		size    int64    // of the disk
		ops     []string // if given, all that is done, sorted but for the first three and the last; HEAD is how the head is written
		written stream.Written
	}{
		{name: "data", image: "data:3145728", size: 8 * mib,
			ops:     []string{"zero 0 1048576", "zero 7340032 1048576", "MARK", "sync", "write 1048576 1048576", "write 2097152 1048576", "sync", "HEAD"},
			written: stream.Written{Size: 3 * mib, Bytes: 3 * mib, Checked: 2 * mib}},
		{name: "holes", image: "data:1048576 hole:2097152 data:65536 hole:983040 hole:3145728", size: 8 * mib,
			ops:     []string{"zero 0 1048576", "zero 7340032 1048576", "MARK", "sync", "write 3145728 65536", "zero 1048576 2097152", "zero 3211264 4128768", "sync", "HEAD"},
			written: stream.Written{Size: 7 * mib, Bytes: mib + 65536, Zeroed: 2*mib + 4128768, Checked: 2 * mib}},
		{name: "to the last byte", image: "data:8388608", size: 8 * mib,
			ops: []string{"zero 0 1048576", "zero 7340032 1048576", "MARK", "sync", "write 1048576 1048576", "write 2097152 1048576", "write 3145728 1048576", "write 4194304 1048576", "write 5242880 1048576",
				"write 6291456 1048576", "sync", "write 7340032 1048576", "sync", "HEAD"}},
		{name: "zeros to the last byte", image: "data:1048576 hole:7340032", size: 8 * mib},
		{name: "into the last MiB", image: "data:4194304 hole:3145728 data:65537", size: 8 * mib},
		{name: "into the last MiB, odd size", image: "data:7400000", size: 8*mib - 4096*3},
		{name: "short", image: "data:1", size: 8 * mib, written: stream.Written{Size: 1, Bytes: mib, Checked: mib}},
		{name: "ends in a sector", image: "data:2097153", size: 8 * mib},
		{name: "ends in a hole in a sector", image: "data:2097152 hole:131073", size: 8 * mib},
		{name: "only zeros", image: "hole:4194304", size: 8 * mib},
		{name: "small disk", image: "data:4096", size: 8192},
		{name: "small disk, full", image: "data:8192", size: 8192},
		{name: "disk of less than two MiB", image: "data:1500000", size: mib + 512*1024},
		{name: "longer", image: "data:9000000 hole:9000000 data:3 hole:70000 data:1000000 hole:200000", size: 24 * mib},
	} {
		for _, sector := range []int{512, 4096} {
			for _, back := range []stream.ReadBack{stream.ReadBackSample, stream.ReadBackFull, stream.ReadBackNone} {
				t.Run(fmt.Sprintf("%s/%d/%s", tt.name, sector, back), func(t *testing.T) {
					image := picture(t, tt.image)
					disk := streamtest.NewDisk(tt.size, sector)
					meter := stream.NewMeter()
					verified := false
					w, err := stream.Write(t.Context(), disk, stream.NewExtents(bytes.NewReader(image), int64(len(image))),
						stream.Options{ReadBack: back, Meter: meter, Verify: func() error { verified = true; return nil }})
					if err != nil {
						t.Fatal(err)
					}
					if !verified {
						t.Error("the digest was not verified")
					}
					if want := expected(image, tt.size, sector); !bytes.Equal(disk.Bytes, want) {
						t.Errorf("disk is wrong from byte %d on", firstDifference(disk.Bytes, want))
					}
					if tt.ops != nil {
						ops := disk.Ops()
						slices.Sort(ops[4 : slices.Index(ops[4:], "sync")+4]) // these go in parallel
						head := fmt.Sprintf("write %d %d\nsync\nwrite 0 %d\nsync", sector, mib-sector, sector)
						if got, want := strings.Join(ops, "\n"), strings.NewReplacer("HEAD", head, "MARK", fmt.Sprintf("write 0 %d", sector)).Replace(strings.Join(tt.ops, "\n")); got != want {
							t.Errorf("did\n%s\nwant\n%s", got, want)
						}
					}
					if tt.written != (stream.Written{}) && back == stream.ReadBackSample && w != tt.written {
						t.Errorf("Write(...) = %+v, want %+v", w, tt.written)
					}
					if p := meter.Progress(); p.Phase != stream.PhaseDone || p.Written != w.Bytes || p.Zeroed != w.Zeroed || p.Checked != w.Checked || w.Size != int64(len(image)) {
						t.Errorf("progress is %+v, but was %+v", p, w)
					}
				})
			}
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// Extents need not lie on sectors, or in any size.
func TestWriteOddExtents(t *testing.T) {
	content := picture(t, "data:100 hole:1500000 data:3000000 hole:200000 data:777 hole:10 data:5")
	var extents []stream.Extent
	at := int64(0)
	for _, e := range []stream.Extent{{Length: 100}, {Length: 1_500_000, Hole: true}, {Length: 0, Hole: true}, {Length: 2_999_999}, {Length: 1},
		{Length: 70_001, Hole: true}, {Length: 129_999, Hole: true}, {Length: 777}, {Length: 10, Hole: true}, {Length: 5}, {}} {
		e.Offset = at
		at += e.Length
		extents = append(extents, e)
	}
	for _, sector := range []int{512, 4096} {
		disk := streamtest.NewDisk(8*mib, sector)
		_, err := stream.Write(t.Context(), disk, &script{extents: slices.Clone(extents), content: content, size: -1}, stream.Options{ReadBack: stream.ReadBackFull})
		if err != nil {
			t.Fatal(err)
		}
		if want := expected(content, 8*mib, sector); !bytes.Equal(disk.Bytes, want) {
			t.Errorf("sectors of %d: disk is wrong from byte %d on", sector, firstDifference(disk.Bytes, want))
		}
	}
}

// Finish sees the head before it is on the disk, may change it and the rest of the disk, and is followed by nothing but the head.
func TestWriteFinish(t *testing.T) {
	image := picture(t, "data:3000000")
	disk := streamtest.NewDisk(8*mib, 512)
	_, err := stream.Write(t.Context(), disk, stream.NewExtents(bytes.NewReader(image), -1), stream.Options{
		Finish: func(ctx context.Context, head []byte, size int64) error {
			if size != int64(len(image)) {
				t.Errorf("the image has %d bytes, want %d", size, len(image))
			}
			if !bytes.Equal(head, image[:mib]) {
				t.Error("head is not the image's first MiB")
			}
			if ours, err := stream.Unfinished(bytes.NewReader(disk.Bytes)); !ours || err != nil {
				t.Errorf("Unfinished() = %v, %v, want true", ours, err)
			}
			if !bytes.Equal(disk.Bytes[512:mib], make([]byte, mib-512)) {
				t.Error("the rest of the disk's first MiB is not zero yet")
			}
			copy(head, "changed")
			_, err := disk.WriteAt([]byte(strings.Repeat("backup..", 64)), 8*mib-512)
			return err
		}})
	if err != nil {
		t.Fatal(err)
	}
	want := expected(image, 8*mib, 512)
	copy(want, "changed")
	copy(want[8*mib-512:], strings.Repeat("backup..", 64))
	if !bytes.Equal(disk.Bytes, want) {
		t.Errorf("disk is wrong from byte %d on", firstDifference(disk.Bytes, want))
	}
	ops := disk.Ops()
	if got := strings.Join(ops[len(ops)-6:], ", "); got != "write 8388096 512, sync, write 512 1048064, sync, write 0 512, sync" {
		t.Errorf("the last acts are %s", got)
	}
}

// Whatever goes wrong, nothing that could boot is left; and if it goes wrong early, the disk is as it was.
func TestWriteFails(t *testing.T) {
	const size = 8 * mib
	good := picture(t, "data:2097152 hole:1048576 data:2097152")
	full := picture(t, "data:8388608")
	gone, wrong, unhappy := errors.New("network is gone"), errors.New("wrong digest"), errors.New("no room for a partition")
	plain := func(b []byte) stream.Extents { return stream.NewExtents(bytes.NewReader(b), -1) }

	for _, tt := range []struct {
		name      string
		src       stream.Extents
		disk      *streamtest.Disk
		options   stream.Options
		untouched bool
		dirty     bool // the ends cannot be cleared either
		is        error
		err       string
	}{
		{name: "source gone at the start", src: stream.NewExtents(iotest.ErrReader(gone), -1), untouched: true, is: gone},
		{name: "empty", src: plain(nil), untouched: true, is: stream.ErrEmpty},
		{name: "known to be too large", src: stream.NewExtents(bytes.NewReader(append(full, 1)), int64(len(full)+1)), untouched: true, is: stream.ErrTooLarge, err: "8388609 bytes, the disk has 8388608"},
		{name: "no such read-back", src: plain(good), options: stream.Options{ReadBack: 7}, untouched: true, err: "ReadBack(7)"},

		{name: "turns out to be too large", src: plain(append(full, 1)), is: stream.ErrTooLarge, err: "1 bytes at 8388608 end behind the disk's 8388608"},
		{name: "too large by a hole", src: plain(append(full, make([]byte, 65536)...)), is: stream.ErrTooLarge},
		{name: "source gone in the middle", src: stream.NewExtents(io.MultiReader(bytes.NewReader(good), iotest.ErrReader(gone)), -1), is: gone},
		{name: "short", src: stream.NewExtents(bytes.NewReader(good), int64(len(good))+1), is: io.ErrUnexpectedEOF},
		{name: "zero extents", src: &script{extents: []stream.Extent{{}}, size: -1}, is: stream.ErrEmpty},
		{name: "extent ends early", src: &script{extents: []stream.Extent{{Length: 100}}, size: -1}, is: io.ErrUnexpectedEOF},
		{name: "gap", src: &script{extents: []stream.Extent{{Length: 100}, {Offset: 200, Length: 100}}, content: good, size: -1}, err: "where one at 100 was due"},
		{name: "overlap", src: &script{extents: []stream.Extent{{Length: 100}, {Offset: 50, Length: 100}}, content: good, size: -1}, err: "where one at 100 was due"},
		{name: "negative", src: &script{extents: []stream.Extent{{Length: 100}, {Offset: 100, Length: -100}}, content: good, size: -1}, err: "part of -100 bytes"},
		{name: "near the largest number", src: &script{extents: []stream.Extent{{Length: 100}, {Offset: 100, Length: 1<<63 - 1}}, content: good, size: -1}, is: stream.ErrTooLarge},
		{name: "wrong digest", src: plain(good), options: stream.Options{Verify: func() error { return wrong }}, is: wrong},
		{name: "wrong digest, full disk", src: plain(full), options: stream.Options{Verify: func() error { return wrong }}, is: wrong},
		{name: "finish fails", src: plain(full), options: stream.Options{Finish: func(context.Context, []byte, int64) error { return unhappy }}, is: unhappy},
		{name: "write fails", src: plain(good), disk: &streamtest.Disk{FailWriteAt: 4 * mib}, is: syscall.EIO, err: "write 1048576 bytes at 4194304"},
		{name: "zeroing fails", src: plain(good), disk: &streamtest.Disk{FailZeroAt: 2*mib + 5}, is: syscall.EIO, err: "zero 1048576 bytes at 2097152"},
		{name: "first clearing fails", src: plain(good), disk: &streamtest.Disk{FailZeroAt: 5}, dirty: true, is: syscall.EIO, err: "clear the start of the disk: input/output error; afterwards: clear the start"},
		{name: "first sync fails", src: plain(good), disk: &streamtest.Disk{FailSync: 1}, is: syscall.EIO, err: "sync: input/output error"},
		{name: "sync after the data fails", src: plain(good), disk: &streamtest.Disk{FailSync: 2}, is: syscall.EIO},
		{name: "last sync fails", src: plain(good), disk: &streamtest.Disk{FailSync: 3}, is: syscall.EIO},
		{name: "disk lies", src: plain(good), disk: &streamtest.Disk{Flip: mib + 9}, is: stream.ErrReadBack, err: "read back 1048576 bytes at 1048576"},
		{name: "disk lies anywhere", src: plain(good), disk: &streamtest.Disk{Flip: 4*mib + 9}, options: stream.Options{ReadBack: stream.ReadBackFull}, is: stream.ErrReadBack, err: "read back 4194304 bytes at 1048576"},
		{name: "disk lies in the head", src: plain(good), disk: &streamtest.Disk{Flip: 9}, is: stream.ErrReadBack, err: "read back 512 bytes at 0"},
		{name: "disk lies behind the first sector", src: plain(good), disk: &streamtest.Disk{Flip: 600}, is: stream.ErrReadBack, err: "read back 1048064 bytes at 512"},
		{name: "sync before the first sector fails", src: plain(good), disk: &streamtest.Disk{FailSync: 4}, is: syscall.EIO},
		{name: "disk lies in the tail", src: plain(full), disk: &streamtest.Disk{Flip: size - 9}, is: stream.ErrReadBack, err: "read back 1048576 bytes at 7340032"},
		{name: "reading back fails", src: plain(good), disk: &streamtest.Disk{FailReadAt: mib + 9}, is: syscall.EIO, err: "read back 1048576 bytes at 1048576"},
		{name: "sectors of nonsense", src: plain(good), disk: &streamtest.Disk{Sector: 500}, untouched: true, err: "does not make sense"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fresh := streamtest.NewDisk(size, 512)
			disk := tt.disk
			if disk == nil {
				disk = &streamtest.Disk{}
			}
			disk.Bytes = fresh.Bytes
			if disk.Sector == 0 {
				disk.Sector = fresh.Sector
			}
			w, err := stream.Write(t.Context(), disk, tt.src, tt.options)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("Write(...) = %+v, %v; want an error with %q that is %v", w, err, tt.err, tt.is)
			}
			if tt.untouched {
				if !bytes.Equal(disk.Bytes, streamtest.NewDisk(size, 512).Bytes) || len(disk.Ops()) != 0 {
					t.Errorf("the disk was touched: %s", disk.Ops())
				}
				return
			}
			disk.Flip = 0
			if !tt.dirty && (!bytes.Equal(disk.Bytes[:mib], make([]byte, mib)) || !bytes.Equal(disk.Bytes[size-mib:], make([]byte, mib))) {
				t.Error("the ends of the disk are not zero")
			}
			if ops := disk.Ops(); !tt.dirty && ops[len(ops)-1] != "sync" {
				t.Errorf("the last act is %s, want sync", ops[len(ops)-1])
			}
		})
	}
}

// What unpacks to far more than the disk holds ends where the disk does.
func TestBombs(t *testing.T) {
	const size = 8 * mib
	for name, command := range map[string]string{
		"gzip":                      "gzip -1",
		"gzip, many members":        "split -b 16M --filter 'gzip -1'",
		"zstd":                      "zstd -q -c",
		"zstd that says its length": "zstd -q -c --stream-size=67108864",
		"zstd, short frames":        "split -b 4M --filter 'zstd -q -c'",
		"xz":                        "xz -0 -T2",
		"bzip2":                     "bzip2 -1",
		"lz4":                       "lz4 -q -c",
	} {
		for what, fill := range map[string]string{"zeros": "cat /dev/zero", "text": "yes ironhand"} {
			t.Run(name+" of "+what, func(t *testing.T) {
				t.Parallel()
				bomb, err := exec.Command("sh", "-c", fill+" | head -c 64M | "+command).Output()
				if err != nil {
					t.Fatal(err)
				}
				content, err := stream.Decompress(bytes.NewReader(bomb), 0)
				if err != nil {
					t.Fatal(err)
				}
				defer content.Close()
				disk := streamtest.NewDisk(size, 512)
				w, err := stream.Write(t.Context(), disk, stream.NewExtents(stream.Rejoin(nil, content), -1), stream.Options{})
				if !errors.Is(err, stream.ErrTooLarge) {
					t.Fatalf("Write(...) = %+v, %v, want ErrTooLarge", w, err)
				}
				if !bytes.Equal(disk.Bytes[:mib], make([]byte, mib)) || !bytes.Equal(disk.Bytes[size-mib:], make([]byte, mib)) {
					t.Error("the ends of the disk are not zero")
				}
			})
		}
	}
}

// onlyTarget hides that a disk can be read.
type onlyTarget struct{ stream.Target }

// A disk that dies is told at once, though the source is silent and would be waited for for minutes.
func TestWriteFailsWhileSourceIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := stream.NewReader(t.Context(), []stream.Source{silent{bytes.Repeat([]byte("x"), 6*mib)}}, stream.Digest{}, stream.ReaderOptions{})
		defer r.Close()
		disk := streamtest.NewDisk(16*mib, 512)
		disk.FailWriteAt = 3 * mib
		_, err := stream.Write(t.Context(), disk, stream.NewExtents(r, -1), stream.Options{Verify: r.Verify, Abort: r.Abort})
		if !errors.Is(err, syscall.EIO) || time.Since(start) > time.Second {
			t.Errorf("Write(...) = %v after %v, want the disk's error at once", err, time.Since(start))
		}
	})
}

// silent is a source that brings some bytes and then nothing.
type silent struct{ start []byte }

func (s silent) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() {
		w.Write(s.start[offset:]) // the reader may have gone
		<-ctx.Done()
		w.CloseWithError(ctx.Err())
	}()
	return r, nil
}

func (s silent) Size() int64    { return 1 << 30 }
func (s silent) String() string { return "silent" }

func TestWriteNoReaderAt(t *testing.T) {
	image := picture(t, "data:3000000")
	disk := streamtest.NewDisk(8*mib, 512)
	if _, err := stream.Write(t.Context(), onlyTarget{disk}, stream.NewExtents(bytes.NewReader(image), -1), stream.Options{}); err == nil || len(disk.Ops()) > 0 {
		t.Errorf("error is %v, after %s; want one at once", err, disk.Ops())
	}
	if _, err := stream.Write(t.Context(), onlyTarget{disk}, stream.NewExtents(bytes.NewReader(image), -1), stream.Options{ReadBack: stream.ReadBackNone}); err != nil {
		t.Error(err)
	}
}

func TestWriteCancelled(t *testing.T) {
	reason := errors.New("operator changed his mind")
	image := picture(t, "data:6000000")
	for _, tt := range []struct {
		name string
		when func(cancel func()) stream.Options
	}{
		{"while verifying", func(cancel func()) stream.Options {
			return stream.Options{Verify: func() error { cancel(); return nil }}
		}},
		{"while finishing", func(cancel func()) stream.Options {
			return stream.Options{ReadBack: stream.ReadBackNone, Finish: func(context.Context, []byte, int64) error { cancel(); return nil }}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			disk := streamtest.NewDisk(8*mib, 512)
			_, err := stream.Write(ctx, disk, stream.NewExtents(bytes.NewReader(image), -1), tt.when(func() { cancel(reason) }))
			if !errors.Is(err, reason) {
				t.Errorf("error is %v, want %v", err, reason)
			}
			if !bytes.Equal(disk.Bytes[:mib], make([]byte, mib)) {
				t.Error("the head is not zero")
			}
		})
	}
}

func TestReadBackText(t *testing.T) {
	for _, name := range []string{"sample", "full", "none"} {
		var rb stream.ReadBack
		if err := rb.UnmarshalText([]byte(name)); err != nil || rb.String() != name {
			t.Errorf("%q becomes %v, %v", name, rb, err)
		}
	}
	var rb stream.ReadBack
	for _, name := range []string{"", "Full", "all"} {
		if err := rb.UnmarshalText([]byte(name)); err == nil {
			t.Errorf("%q becomes %v, want an error", name, rb)
		}
	}
}

// The whole way, from a server that breaks to a disk, packed and not.
func TestWhole(t *testing.T) {
	image := make([]byte, 12_000_000) // what does not pack, around a hole
	noise := rand.NewChaCha8([32]byte{1})
	noise.Read(image[:5_000_000])
	noise.Read(image[8_000_000:])
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(image); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		published []byte
	}{
		{"plain", image}, {"gzip", packed.Bytes()},
	} {
		for _, wrong := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/wrong=%v", tt.name, wrong), func(t *testing.T) {
				t.Parallel()
				cut := int64(len(tt.published) / 7)
				faults := []streamtest.Fault{{Status: 503}, {Cut: cut}, {End: cut}, {Hang: cut}, {Cut: cut}, {Cut: cut}, {NoRange: true}}
				server := httptest.NewServer(&streamtest.Server{Content: tt.published, ETag: `"1"`, Faults: faults})
				defer server.Close()
				sum := sha512.Sum512(tt.published)
				if wrong {
					sum[0] ^= 1
				}
				want, err := stream.ParseDigest("sha512", hex.EncodeToString(sum[:]))
				if err != nil {
					t.Fatal(err)
				}
				src, err := stream.NewHTTP(server.URL, stream.HTTPOptions{Stall: 3 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				meter := stream.NewMeter()
				r := stream.NewReader(t.Context(), []stream.Source{src}, want, stream.ReaderOptions{Meter: meter})
				defer r.Close()
				content, err := stream.Decompress(r, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer content.Close()
				disk := streamtest.NewDisk(16*mib, 4096)
				_, err = stream.Write(t.Context(), disk, stream.NewExtents(content, -1), stream.Options{Verify: r.Verify, Meter: meter, ReadBack: stream.ReadBackFull})
				expect := expected(image, 16*mib, 4096)
				if wrong {
					if !errors.Is(err, stream.ErrDigest) {
						t.Errorf("error is %v, want ErrDigest", err)
					}
					clear(expect[:mib])
				} else if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(disk.Bytes, expect) {
					t.Errorf("disk is wrong from byte %d on", firstDifference(disk.Bytes, expect))
				}
				if p := meter.Progress(); p.Retries != 6 || p.Again == 0 || p.Read != int64(len(tt.published)) {
					t.Errorf("progress is %+v", p)
				}
			})
		}
	}
}

// shuffled is the extents of an image in any order.
type shuffled struct {
	script
	rng *rand.Rand
}

func newShuffled(content []byte, unit int, seed uint64) *shuffled {
	s := &shuffled{script: script{content: content, size: int64(len(content))}, rng: rand.New(rand.NewPCG(seed, seed))}
	for at := 0; at < len(content); {
		n := min(unit*(1+s.rng.IntN(300)), len(content)-at)
		if s.rng.IntN(4) == 0 {
			n = min(unit, len(content)-at)
		}
		hole := len(bytes.Trim(content[at:at+n], "\x00")) == 0
		s.extents = append(s.extents, stream.Extent{Offset: int64(at), Length: int64(n), Hole: hole})
		at += n
	}
	s.rng.Shuffle(len(s.extents), func(i, j int) { s.extents[i], s.extents[j] = s.extents[j], s.extents[i] })
	return s
}

// Extents may come in any order, also if they are smaller than the disk's sectors.
func TestWriteAnyOrder(t *testing.T) {
	for _, words := range []string{"data:3000000 hole:2000384 data:999424", "data:8388608", "hole:5242880 data:1536", "data:7400000", "data:700 hole:500000 data:3", "data:300"} {
		for _, sector := range []int{512, 4096} {
			for _, back := range []stream.ReadBack{stream.ReadBackSample, stream.ReadBackFull} {
				for seed := range uint64(6) {
					t.Run(fmt.Sprintf("%s/%d/%v/%d", words, sector, back, seed), func(t *testing.T) {
						image := picture(t, words)
						disk := streamtest.NewDisk(8*mib, sector)
						x := stream.Extents(newShuffled(image, 512<<(seed%4), seed))
						if seed%2 == 0 {
							x = stream.Sparse(x)
						}
						w, err := stream.Write(t.Context(), disk, x, stream.Options{ReadBack: back})
						if err != nil || w.Size != int64(len(image)) {
							t.Fatalf("Write(...) = %+v, %v", w, err)
						}
						if want := expected(image, 8*mib, sector); !bytes.Equal(disk.Bytes, want) {
							t.Errorf("disk is wrong from byte %d on", firstDifference(disk.Bytes, want))
						}
					})
				}
			}
		}
	}
}

func TestWriteAnyOrderFails(t *testing.T) {
	good := picture(t, "data:5242880")
	reversed := func(lengths ...int64) *script {
		s := &script{content: good, size: int64(len(good))}
		at := int64(0)
		for _, n := range lengths {
			s.extents = append(s.extents, stream.Extent{Offset: at, Length: n})
			at += n
		}
		slices.Reverse(s.extents)
		return s
	}
	twice := reversed(2*mib, 3*mib)
	twice.extents = append(twice.extents, twice.extents[0])
	for _, tt := range []struct {
		name string
		src  stream.Extents
		disk *streamtest.Disk
		only bool // the disk cannot be read
		is   error
		err  string
	}{
		{name: "a part is missing", src: reversed(2*mib, 2*mib), is: io.ErrUnexpectedEOF, err: "has 4194304 bytes in its parts, 5242880 were announced"},
		{name: "a part comes twice", src: twice, is: io.ErrUnexpectedEOF, err: "has 8388608 bytes in its parts"},
		{name: "half sectors", src: reversed(2*mib+100, 3*mib-100), err: "not whole sectors of 512"},
		{name: "before the start", src: &script{extents: []stream.Extent{{Offset: -512, Length: 512}}, size: 512}, err: "part of 512 bytes at -512"},
		{name: "behind the end", src: &script{extents: []stream.Extent{{Offset: 9 * mib, Length: 0}}, size: 512}, is: stream.ErrTooLarge},
		{name: "disk lies", src: reversed(2*mib, 3*mib), disk: &streamtest.Disk{Flip: 3*mib + 5}, is: stream.ErrReadBack},
		{name: "disk does not read, for a part of a sector", src: reversed(2*mib+512, 3*mib-512), disk: &streamtest.Disk{Sector: 4096, FailReadAt: 2*mib + 512}, is: syscall.EIO, err: "read the sector at 2097152"},
		{name: "disk offers no reading, for a part of a sector", src: reversed(2*mib+512, 3*mib-512), disk: &streamtest.Disk{Sector: 4096}, only: true, err: "disk does not offer reading"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := tt.disk
			if disk == nil {
				disk = &streamtest.Disk{}
			}
			fresh := streamtest.NewDisk(8*mib, 512)
			disk.Bytes = fresh.Bytes
			if disk.Sector == 0 {
				disk.Sector = fresh.Sector
			}
			var dst stream.Target = disk
			o := stream.Options{ReadBack: stream.ReadBackFull}
			if tt.only {
				dst, o.ReadBack = onlyTarget{disk}, stream.ReadBackNone
			}
			_, err := stream.Write(t.Context(), dst, tt.src, o)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Write(...) = %v, want an error with %q that is %v", err, tt.err, tt.is)
			}
			disk.Flip = 0
			if !bytes.Equal(disk.Bytes[:mib], make([]byte, mib)) || !bytes.Equal(disk.Bytes[7*mib:], make([]byte, mib)) {
				t.Error("the ends of the disk are not zero")
			}
		})
	}
}

// bottomless is a disk that keeps nothing, and counts.
type bottomless struct {
	size          int64
	written       atomic.Int64
	syncs         atomic.Int64
	during        atomic.Int64 // the syncs that began before all was written
	fails         error        // of the first sync
	whole         int64
	failedAlready atomic.Bool
}

func (b *bottomless) Size() int64     { return b.size }
func (b *bottomless) SectorSize() int { return 512 }
func (b *bottomless) WriteAt(p []byte, _ int64) (int, error) {
	b.written.Add(int64(len(p)))
	return len(p), nil
}
func (b *bottomless) Zero(context.Context, int64, int64) error { return nil }
func (b *bottomless) Sync() error {
	b.syncs.Add(1)
	if b.written.Load() < b.whole {
		b.during.Add(1)
	}
	if b.written.Load() > mib && b.failedAlready.CompareAndSwap(false, true) {
		return b.fails
	}
	return nil
}
func (b *bottomless) RereadPartitions(context.Context) error { return nil }
func (b *bottomless) Close() error                           { return nil }

// A device that keeps what it is sent in caches stores it while more comes, and is not left with all of it at the end. Its errors end the writing.
func TestWriteSyncsMeanwhile(t *testing.T) {
	const size = 700 * mib
	image := func() stream.Extents { return stream.NewExtents(io.LimitReader(ones{}, size), size) }
	disk := &bottomless{size: size, whole: size - 2*mib}
	if _, err := stream.Write(t.Context(), disk, image(), stream.Options{ReadBack: stream.ReadBackNone}); err != nil {
		t.Fatal(err)
	}
	if n := disk.during.Load(); n < 2 {
		t.Errorf("synced %d times while %d bytes were written, want at least 2", n, size)
	}
	broken := errors.New("no room in the cache")
	disk = &bottomless{size: size, whole: size - 2*mib, fails: broken}
	if _, err := stream.Write(t.Context(), disk, image(), stream.Options{ReadBack: stream.ReadBackNone}); !errors.Is(err, broken) || disk.written.Load() >= size-2*mib {
		t.Errorf("Write() = %v after %d bytes, want %v before the end", err, disk.written.Load(), broken)
	}
}

type ones struct{}

func (ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}
