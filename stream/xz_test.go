// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/therootcompany/xz"
)

// inOrder unpacks an xz file by the library's reader, on one core: the judge of what we do with the blocks.
func inOrder(b []byte, most int64) ([]byte, error) {
	r, err := xz.NewReader(bytes.NewReader(b), MaxWindow)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, most))
}

// sideBySide unpacks it by us, with blocks in flight however many cores there are.
func sideBySide(b []byte, most int64) ([]byte, error) {
	a := newAhead(func(a *ahead) error {
		return newXZFile(bufio.NewReaderSize(bytes.NewReader(b), 64<<10), MaxWindow, a, 4).unpack()
	})
	defer a.Close()
	return io.ReadAll(io.LimitReader(a, most))
}

// compareXZ unpacks both ways. What the library takes is taken, with the same bytes, and nothing else is.
func compareXZ(t *testing.T, in []byte) (out []byte, err error) {
	t.Helper()
	const most = 64 << 20
	got, err := sideBySide(in, most)
	want, wantErr := inOrder(in, most)
	if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v\nwant %d bytes, %v", len(got), err, len(want), wantErr)
	}
	return got, err
}

// program is bytes of a program, which the filter for x86 changes, and zeros.
func program(t testing.TB, n int) []byte {
	t.Helper()
	path, err := exec.LookPath("xz")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shell, err := os.ReadFile("/bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	return join(b, make([]byte, 300_000), bytes.Repeat(shell, n/len(shell)+1))[:n]
}

func TestXZ(t *testing.T) {
	raw := join(program(t, 500_000), noise(100_000), make([]byte, 600_005))
	small := raw[40_000:50_000]
	pad := make([]byte, 4)
	for _, tt := range []struct {
		name string
		args string
		raw  []byte
	}{
		{"blocks of the usual kind", "-0 -T2", raw},
		{"blocks of a page", "-1 -T2 --block-size=4096", raw[:300_000]},
		{"blocks of a byte", "-0 -T2 --block-size=1", small[:100]},
		{"blocks of an odd length", "-3 -T2 --block-size=77777", raw},
		{"blocks of more than all", "-6 -T2 --block-size=10000000", raw},
		{"blocks without lengths", "-0 -T1 --block-size=100000", raw},
		{"blocks of different lengths", "-0 -T2 --block-list=1,4096,300000,7,1000000,500", raw},
		{"one block", "-6 -T1", raw},
		{"high level", "-9e -T2 --block-size=500000", raw},
		{"no check", "-0 -T2 --block-size=100000 --check=none", raw},
		{"CRC32", "-0 -T2 --block-size=100000 --check=crc32", raw},
		{"CRC64", "-0 -T2 --block-size=100000 --check=crc64", raw},
		{"SHA-256", "-0 -T2 --block-size=100000 --check=sha256", raw},
		{"filter for x86", "-T2 --block-size=100001 --x86 --lzma2=preset=1", raw},
		{"delta", "-T2 --block-size=100001 --delta=dist=4 --lzma2=preset=1", raw},
		{"all filters", "-T2 --block-size=300001 --delta=dist=3 --arm --x86=start=4096 --lzma2=preset=1,lc=1,lp=3,pb=0", raw},
		{"long dictionary", "-T2 --block-size=1000000 --lzma2=preset=1,dict=40MiB", raw},
		{"longest dictionary", "-T2 --block-size=1000000 --lzma2=preset=1,dict=128MiB", raw},
		{"not packed", "-0 -T2 --block-size=70000", noise(300_000)},
		{"nothing", "-T2", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			packed := run(t, tt.raw, "xz", strings.Fields(tt.args)...)
			for _, in := range []struct {
				name        string
				packed, raw []byte
			}{
				{"alone", packed, tt.raw},
				{"padded", join(packed, pad, pad), tt.raw},
				{"twice, padded", join(packed, pad, packed), join(tt.raw, tt.raw)},
				{"among others", join(run(t, small, "xz", "--check=sha256"), packed, run(t, nil, "xz"), run(t, small, "xz", "--check=none", "-9")), join(small, tt.raw, small)},
			} {
				if got, err := compareXZ(t, in.packed); err != nil || !bytes.Equal(got, in.raw) {
					t.Errorf("%s: %d bytes, %v, want %d", in.name, len(got), err, len(in.raw))
				}
			}
		})
	}
	packed := run(t, small, "xz", "-T2", "--block-size=3000")
	for _, in := range [][]byte{join(packed, pad[1:]), join(packed, pad[2:], packed), join(packed, []byte("garbage")), join(packed, pad, []byte("garbage, and more of it")), join(packed, packed[:20])} {
		if _, err := compareXZ(t, in); err == nil {
			t.Errorf("%x behind a file is taken", in[len(packed):])
		}
	}
}

// Files that are broken in one byte, or end too early.
func TestXZBroken(t *testing.T) {
	raw := join(program(t, 42_000)[41_700:], make([]byte, 200))
	for _, args := range []string{
		"-T2 --block-size=180 --check=none --x86 --lzma2=preset=0", "-T2 --block-size=200 --check=sha256", "-0 -T1 --block-size=300 --check=crc32",
	} {
		t.Run(args, func(t *testing.T) {
			packed := run(t, raw, "xz", strings.Fields(args)...)
			for i := range packed {
				broken := bytes.Clone(packed)
				broken[i] ^= 1 << (i % 8)
				if got, err := compareXZ(t, broken); err == nil && !bytes.Equal(got, raw) && !strings.Contains(args, "check=none") {
					t.Errorf("byte %d of %d changed: wrong bytes are taken", i, len(packed))
				}
				got, err := sideBySide(packed[:i], 1<<20)
				if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(raw, got) {
					t.Errorf("cut after %d bytes: %d bytes, %v, want %v", i, len(got), err, io.ErrUnexpectedEOF)
				}
			}
		})
	}
}

// xzParts are the parts of a file of one stream, to be put together wrongly.
type xzParts struct {
	header []byte
	blocks []xzPart
	index  []byte // without padding and sum
	footer []byte // without its sum
}

type xzPart struct {
	header []byte // without its sum
	rest   []byte // what is packed, padding, check
}

// takeApart takes a file of xz -T apart, whose blocks tell their lengths.
func takeApart(t *testing.T, file []byte) (p xzParts) {
	t.Helper()
	p.header = file[:12]
	check := xzChecks[file[7]]
	at := 12
	for file[at] != 0 {
		size := (int(file[at]) + 1) * 4
		b := xzPart{header: bytes.Clone(file[at : at+size-4])}
		packed, n := binary.Uvarint(file[at+2:])
		if n <= 0 || file[at+1]&0xc0 != 0xc0 {
			t.Fatalf("no lengths in the block at %d", at)
		}
		at += size
		end := at + int(packed+3)&^3 + check
		b.rest = file[at:end]
		p.blocks = append(p.blocks, b)
		at = end
	}
	back := (int(binary.LittleEndian.Uint32(file[len(file)-8:])) + 1) * 4
	p.index = bytes.Clone(file[at : at+back-4])
	p.footer = bytes.Clone(file[len(file)-8:])
	return p
}

// file puts the parts together. Their sums are right.
func (p xzParts) file() []byte {
	sum := func(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
	file := bytes.Clone(p.header)
	copy(file[8:], sum(file[6:8]))
	for _, b := range p.blocks {
		file = join(file, b.header, sum(b.header), b.rest)
	}
	return join(file, p.index, sum(p.index), sum(p.footer[:6]), p.footer)
}

// Structures that are wrong, and whose sums are right. xz has its say, too.
func TestXZLies(t *testing.T) {
	raw := join(program(t, 50_000)[40_000:], noise(20_000))
	packed := run(t, raw, "xz", "-T2", "--block-size=10000", "-0")
	number := func(p []byte, n uint64) []byte { // in as many bytes as there are
		b := binary.AppendUvarint(nil, n)
		for len(b) < len(p) {
			b[len(b)-1] |= 0x80
			b = append(b, 0)
		}
		copy(p, b)
		return p
	}
	for _, tt := range []struct {
		name  string
		lie   func(p *xzParts)
		taken bool
		err   string
	}{
		{name: "as it was", lie: func(p *xzParts) {}, taken: true},
		{name: "check of a kind that is not known", lie: func(p *xzParts) { p.header = bytes.Clone(p.header); p.header[7], p.footer[5] = 5, 5 }, err: "not supported"},
		{name: "another check than that of the blocks", lie: func(p *xzParts) { p.header = bytes.Clone(p.header); p.header[7], p.footer[5] = 1, 1 }},
		{name: "stream of the future", lie: func(p *xzParts) { p.header = bytes.Clone(p.header); p.header[6], p.footer[4] = 1, 1 }, err: "not supported"},
		{name: "block of the future", lie: func(p *xzParts) { p.blocks[1].header[1] |= 4 }, err: "not supported"},
		{name: "another filter", lie: func(p *xzParts) { p.blocks[1].header[bytes.IndexByte(p.blocks[1].header, 0x21)] = 0x20 }, err: "not supported"},
		{name: "filter twice", lie: func(p *xzParts) { p.blocks[1].header[1] |= 1 }},
		{name: "dictionary of 4 GiB", lie: func(p *xzParts) { p.blocks[1].header[bytes.IndexByte(p.blocks[1].header, 0x21)+2] = 40 }, err: "its window is too large: it needs 4095 MiB"},
		{name: "dictionary of more", lie: func(p *xzParts) { p.blocks[1].header[bytes.IndexByte(p.blocks[1].header, 0x21)+2] = 41 }, err: "not supported"},
		{name: "padding of a header", lie: func(p *xzParts) { p.blocks[1].header[len(p.blocks[1].header)-1] = 1 }},
		{name: "longer header", lie: func(p *xzParts) {
			b := &p.blocks[1]
			b.header = append(b.header, 0, 0, 0, 0)
			b.header[0]++
		}, err: "index"},
		{name: "packed length, one more", lie: func(p *xzParts) { p.blocks[1].header[2]++ }, err: "corrupt"},
		{name: "unpacked length, one less", lie: func(p *xzParts) { p.blocks[1].header[4]-- }, err: "corrupt"},
		{name: "unpacked length of 2^62", lie: func(p *xzParts) {
			b := &p.blocks[0]
			b.header = join([]byte{6, 0x80}, binary.AppendUvarint(nil, 1<<62), []byte("\x21\x01\x0c"), make([]byte, 10))
		}, err: "corrupt"},
		{name: "packed length of 2^63 - 1", lie: func(p *xzParts) {
			b := &p.blocks[0]
			b.header = join([]byte{6, 0x40}, binary.AppendUvarint(nil, 1<<63-1), []byte("\x21\x01\x0c"), make([]byte, 10))
		}},
		{name: "length without end", lie: func(p *xzParts) { b := &p.blocks[0]; b.header = join([]byte{3, 0x80}, bytes.Repeat([]byte{0xff}, 10)) }},
		{name: "no lengths", lie: func(p *xzParts) {
			b := &p.blocks[1]
			copy(b.header[1:], join([]byte{0}, []byte("\x21\x01\x0c"), make([]byte, len(b.header)-5)))
		}, taken: true},
		{name: "padding of a block", lie: func(p *xzParts) {
			for i := range p.blocks {
				if b := &p.blocks[i]; b.rest[len(b.rest)-9] == 0 {
					b.rest = flip(b.rest, len(b.rest)-9)
				}
			}
		}},
		{name: "block of chunks that do not exist", lie: func(p *xzParts) { b := &p.blocks[1]; b.rest = join([]byte{3}, b.rest[1:]) }, err: "corrupt"},
		{name: "blocks in another order", lie: func(p *xzParts) { p.blocks[0], p.blocks[1] = p.blocks[1], p.blocks[0] }, err: "index"},
		{name: "block gone", lie: func(p *xzParts) { p.blocks = p.blocks[1:] }, err: "index"},
		{name: "block twice", lie: func(p *xzParts) { p.blocks = append(p.blocks, p.blocks[0]) }, err: "index"},
		{name: "index: count", lie: func(p *xzParts) { p.index[1]++ }, err: "index"},
		{name: "index: a length", lie: func(p *xzParts) { p.index[3]++ }, err: "index"},
		{name: "index: numbers longer than they must be", lie: func(p *xzParts) {
			p.index = join([]byte{0}, number([]byte{0, 0}, 3), p.index[2:])
			p.index = append(p.index, make([]byte, -len(p.index)&3)...)
			binary.LittleEndian.PutUint32(p.footer, uint32(len(p.index)/4))
		}, err: "index"},
		{name: "index: padding", lie: func(p *xzParts) {
			if p.index[len(p.index)-1] == 0 {
				p.index[len(p.index)-1] = 1
			} else {
				p.index = append(p.index, 1, 0, 0, 0)
			}
		}, err: "end of a stream"},
		{name: "index: of nothing", lie: func(p *xzParts) { p.index = []byte{0, 0, 0, 0} }, err: "index"},
		{name: "footer: way back", lie: func(p *xzParts) { p.footer[0]++ }, err: "end of a stream"},
		{name: "footer: another check", lie: func(p *xzParts) { p.footer[5] = 1 }, err: "end of a stream"},
		{name: "footer: magic", lie: func(p *xzParts) { p.footer[7] = 'X' }, err: "end of a stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := takeApart(t, packed)
			if len(p.blocks) != 3 {
				t.Fatalf("%d blocks", len(p.blocks))
			}
			tt.lie(&p)
			in := p.file()
			got, err := compareXZ(t, in)
			if (err == nil) != tt.taken || err == nil && !bytes.Equal(got, raw) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%d bytes, %v; taken %v is wanted, error with %q", len(got), err, tt.taken, tt.err)
			}
			if errors.Is(err, ErrWindow) {
				return // xz has no limit
			}
			cmd := exec.Command("xz", "-t", "-q")
			cmd.Stdin = bytes.NewReader(in)
			if err := cmd.Run(); (err == nil) != tt.taken {
				t.Errorf("xz says %v, taken %v is wanted", err, tt.taken)
			}
		})
	}
}

// stalled is an xz file being unpacked when nobody reads, and all that could go on has gone on. See has what it holds.
func stalled(t *testing.T, packed []byte, window int64, workers int, see func(x *xzFile)) {
	synctest.Test(t, func(t *testing.T) {
		var x *xzFile
		a := newAhead(func(a *ahead) error {
			x = newXZFile(bufio.NewReaderSize(bytes.NewReader(packed), 64<<10), window, a, workers)
			return x.unpack()
		})
		synctest.Wait()
		x.mu.Lock()
		see(x)
		x.mu.Unlock()
		a.Close()
	})
}

// While the first block waits for who reads, others are unpacked.
func TestXZSideBySide(t *testing.T) {
	packed := run(t, slowly(20_000_000), "xz", "-0", "-T2", "--block-size=5000000")
	for workers, want := range map[int]int{1: 0, 2: 3, 4: 3} {
		stalled(t, packed, MaxWindow, workers, func(x *xzFile) {
			done := 0
			for _, b := range x.queue {
				n := 0
				for _, p := range b.out {
					n += len(p.b)
				}
				if b.done && n == 5_000_000 {
					done++
				}
			}
			if done != want || x.queue[0].done {
				t.Errorf("%d at a time: %d blocks behind the first are unpacked, want %d", workers, done, want)
			}
		})
	}
}

// slowly returns bytes that are packed and unpacked fast, and are not zero for long.
func slowly(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i >> 10)
	}
	return b
}

// What is held does not depend on the file, and on a machine with little memory is less.
func TestXZBound(t *testing.T) {
	hard := noise(12 << 20)
	easy := slowly(110 << 20)
	for _, tt := range []struct {
		name   string
		raw    []byte
		args   string
		blocks int // that are begun with 64 MiB, at the least
	}{
		{"short blocks", hard[:3<<20], "-0 -T2 --block-size=20000", 8},
		{"as -0 makes them", hard, "-0 -T2", 8},
		{"as -1 makes them", easy, "-T2 --block-size=3MiB --lzma2=preset=0,dict=1MiB", 8},
		{"as -6 makes them", easy, "-T2 --block-size=24MiB --lzma2=preset=0,dict=8MiB", 3},
		{"as -7 makes them", easy, "-T2 --block-size=48MiB --lzma2=preset=0,dict=16MiB", 1},
		{"long dictionary", easy, "-T1 --block-size=10MiB --lzma2=preset=0,dict=40MiB", 1},
		{"long blocks", hard, "-0 -T2 --block-size=6MiB", 1},
		{"one block", hard, "-0 -T1", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			packed := run(t, tt.raw, "xz", strings.Fields(tt.args)...)
			for _, window := range []int64{20 << 20, MaxWindow} {
				stalled(t, packed, window, 8, func(x *xzFile) {
					dict := int64(0)
					for _, b := range x.queue {
						if b.decoder != nil {
							dict = max(dict, b.decoder.dict)
						}
					}
					memory := min(xzMemory, window)
					if x.dicts > max(memory/2, dict) || int64(x.pieces.used) > memory*3/8/xzPiece+xzLead || int64(x.chunks.used) > memory/8/xzChunk+xzLead+2 {
						t.Errorf("window of %d MiB: dictionaries of %d bytes, %d pieces, %d chunks", window>>20, x.dicts, x.pieces.used, x.chunks.used)
					}
					if len(x.queue) == 0 && x.err == nil {
						t.Errorf("window of %d MiB: nothing is unpacked", window>>20)
					}
					begun := 0
					for _, b := range x.queue {
						if b.begun {
							begun++
						}
					}
					if window >= xzMemory && begun < tt.blocks {
						t.Errorf("window of %d MiB: %d blocks at a time, want %d", window>>20, begun, tt.blocks)
					}
				})
			}
		})
	}
}

// Zeros are handed on as their number, and blocks of nothing else are unpacked once.
func TestXZZeros(t *testing.T) {
	for _, tt := range []struct {
		name string
		raw  []byte
		hole int64 // that comes as its number, at the least, bytes
	}{
		{"blocks of zeros", join(noise(3<<20), make([]byte, 60<<20), noise(3<<20), make([]byte, 7<<20+3), []byte("end")), 66 << 20},
		{"nothing else", make([]byte, 40<<20), 40 << 20},
		{"in blocks", bytes.Repeat(join(noise(300_000), make([]byte, 1<<20)), 9), 9 * 700_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Decompress(bytes.NewReader(run(t, tt.raw, "xz", "-0", "-T2")), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			wantZeros(t, c, tt.raw, tt.hole)
		})
	}
}

// mendXZ sets the sums of the headers, the index and the footer right, as far as a file can be followed: what is behind them is what a fuzz test shall reach.
func mendXZ(in []byte) []byte {
	b := bytes.Clone(in)
	sum := func(at, from, to int) { binary.LittleEndian.PutUint32(b[at:], crc32.ChecksumIEEE(b[from:to])) }
	if len(b) < 12 {
		return b
	}
	sum(8, 6, 8)
	check := xzChecks[b[7]]
	at := 12
	for at < len(b) && b[at] != 0 { // blocks
		begin := at
		if at += (int(b[at]) + 1) * 4; at > len(b) {
			return b
		}
		sum(at-4, begin, at-4)
		begin = at
		for {
			x := xzFile{in: bufio.NewReader(bytes.NewReader(b[min(at, len(b)):]))}
			n, _, last, err := x.peekChunk()
			if at += n; err != nil || at > len(b) {
				return b
			}
			if last {
				break
			}
		}
		at += (begin-at)&3 + check
	}
	begin := at
	if at++; at >= len(b) {
		return b
	}
	count, n := binary.Uvarint(b[at:])
	for at += max(n, 0); count > 0 && n > 0; count-- {
		_, n = binary.Uvarint(b[at:])
		at += max(n, 0)
		_, n = binary.Uvarint(b[at:])
		at += max(n, 0)
	}
	if at += (begin - at) & 3; n > 0 && at+16 <= len(b) {
		sum(at, begin, at)
		sum(at+4, at+8, at+14)
	}
	return b
}

func FuzzXZBlocks(f *testing.F) {
	raw := join(program(f, 42_000)[40_000:], make([]byte, 1000))
	for _, args := range []string{
		"-0 -T2 --block-size=1200 --check=none", "-T2 --block-size=1200 --check=none --delta --x86 --lzma2=preset=0", "-0 -T2 --block-size=1800 --check=crc32", "-0 -T1 --block-size=900 --check=sha256",
		"-0 -T1", "-0 -T2 --block-list=1,1,1,1000,0", "-T2 --block-size=1200 --arm --lzma2=preset=0,lc=0,lp=4,pb=4",
	} {
		packed := run(f, raw, "xz", strings.Fields(args)...)
		if !bytes.Equal(mendXZ(packed), packed) {
			f.Errorf("%s: what is right was mended", args)
		}
		f.Add(packed)
	}
	f.Add(join(run(f, raw[:100], "xz", "-0"), make([]byte, 8), run(f, nil, "xz", "-0"), run(f, raw[:100], "xz", "-0", "--check=none")))
	f.Fuzz(func(t *testing.T, in []byte) {
		compareXZ(t, in)
		compareXZ(t, mendXZ(in))
	})
}

func BenchmarkXZ(b *testing.B) {
	raw := program(b, 64<<20)
	for _, args := range []string{"-0", "-3", "-6"} {
		packed := run(b, raw, "xz", args, "-T4")
		for _, workers := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("%s/%d", args, workers), func(b *testing.B) {
				b.SetBytes(int64(len(raw)))
				for b.Loop() {
					a := newAhead(func(a *ahead) error {
						return newXZFile(bufio.NewReaderSize(bytes.NewReader(packed), 64<<10), MaxWindow, a, workers).unpack()
					})
					if n, err := io.Copy(io.Discard, a); err != nil || n != int64(len(raw)) {
						b.Fatal(n, err)
					}
					a.Close()
				}
			})
		}
	}
}
