// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream"
)

const mib = 1 << 20

// run runs a program that judges or makes disks, and returns what it prints.
func run(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	need(t, name)
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// need skips a test for which a program is missing, or fails it where REQUIRE asks for the tests with root's rights.
func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skipf("needs the program %s", program)
	}
}

// newFile makes a file of size bytes, all zero.
func newFile(t testing.TB, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	err := os.WriteFile(name, nil, 0o600)
	if err == nil {
		err = os.Truncate(name, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// disk is a Disk on a file that is full of old data, a GPT at its end among them.
type disk struct {
	*os.File
	sector  int
	failAt  int64 // a write that touches this byte fails, if it is not negative
	rereads int

	reread error          // of RereadPartitions
	kernel []Partition    // what it sees then; nil for what is in the table
	lies   func(b []byte) // changes what is read at the start
}

func newDisk(t testing.TB, size int64, sector int) *disk {
	t.Helper()
	name := newFile(t, size)
	if size >= 8*mib {
		run(t, "label: gpt\n1: start=2048, size=4096, name=old\n", "sfdisk", "-q", "--no-tell-kernel", "--no-reread", name)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &disk{File: f, sector: sector, failAt: -1}
}

func (d *disk) SectorSize() int                        { return d.sector }
func (d *disk) RereadPartitions(context.Context) error { d.rereads++; return d.reread }
func (d *disk) Partitions() ([]Partition, error) {
	if d.kernel != nil {
		return d.kernel, nil
	}
	head := make([]byte, mib)
	if _, err := d.ReadAt(head, 0); err != nil {
		return nil, err
	}
	l, err := parseLayout(head, d.sector, -1)
	return l.partitions(), err
}
func (d *disk) ReadAt(b []byte, at int64) (int, error) {
	n, err := d.File.ReadAt(b, at)
	if d.lies != nil && at == 0 {
		d.lies(b[:n])
	}
	return n, err
}
func (d *disk) Size() int64 {
	info, err := d.Stat()
	if err != nil {
		panic(err)
	}
	return info.Size()
}
func (d *disk) Sync() error { return nil }
func (d *disk) Zero(ctx context.Context, offset, length int64) error {
	_, err := d.WriteAt(make([]byte, length), offset)
	return err
}
func (d *disk) WriteAt(b []byte, at int64) (int, error) {
	if at%int64(d.sector) != 0 || len(b)%d.sector != 0 || at+int64(len(b)) > d.Size() {
		return 0, fmt.Errorf("write of %d bytes at %d", len(b), at)
	}
	if d.failAt >= at && d.failAt < at+int64(len(b)) {
		return 0, errors.New("bad sector")
	}
	return d.File.WriteAt(b, at)
}

// source is bytes in memory.
type source struct {
	b     []byte
	short int64 // so many bytes come, then the connection ends; 0 for all
}

func (s source) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	b := s.b
	if s.short > 0 {
		b = b[:s.short]
	}
	if offset >= int64(len(b)) && s.short > 0 {
		return nil, stream.Final(errors.New("connection refused"))
	}
	return io.NopCloser(bytes.NewReader(b[offset:])), nil
}
func (s source) Size() int64    { return int64(len(s.b)) }
func (s source) String() string { return "memory" }

// makeImage makes a disk image of size bytes with what an sfdisk script says, and something in each MiB.
func makeImage(t testing.TB, size int64, script string) []byte {
	t.Helper()
	name := newFile(t, size)
	run(t, script, "sfdisk", "-q", "--no-tell-kernel", "--no-reread", name)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(mib); at < size-mib; at += mib {
		copy(b[at+4096:], fmt.Sprintf("data of the image at %d", at))
	}
	return b
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sha(b []byte) stream.Digest {
	sum := sha256.Sum256(b)
	return stream.Digest{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

const (
	gptScript = "label: gpt\nstart=2048, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\nstart=6144, size=16384, name=root\n"
	mbrScript = "label: dos\nlabel-id: 0xcafe1234\nstart=2048, size=16384, type=83, bootable\n"
)

// labelled puts a FAT file system with a label into an image.
func labelled(t testing.TB, b []byte, at, size int64, label string) []byte {
	t.Helper()
	name := newFile(t, size)
	run(t, "", "mkfs.vfat", "-n", label, name)
	fat, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Clone(b)
	copy(b[at:], fat)
	return b
}

func testDrive(t testing.TB) []byte {
	t.Helper()
	drive, err := MakeConfigDrive(driveFiles())
	if err != nil {
		t.Fatal(err)
	}
	return drive
}

func driveFiles() map[string][]byte {
	return map[string][]byte{
		"openstack/latest/meta_data.json":                                 []byte(`{"uuid": "83679162-1378-4288-a2d4-70e13ec132aa", "hostname": "iron-1"}`),
		"openstack/latest/user_data":                                      []byte("#cloud-config\n"),
		"openstack/content/0000":                                          bytes.Repeat([]byte("0123456789abcdef"), 9000),
		"openstack/latest/a name that is longer than eight and three.txt": nil,
	}
}

func TestWrite(t *testing.T) {
	gptImage, mbrImage := makeImage(t, 16*mib, gptScript), makeImage(t, 16*mib, mbrScript)
	withDrive := makeImage(t, 16*mib, "label: gpt\nstart=2048, size=4096\nstart=6144, size=16384\n")
	withDrive = labelled(t, withDrive, 3*mib, 8*mib, "CONFIG-2")
	drive := testDrive(t)

	tests := []struct {
		name  string
		image []byte // as published
		raw   []byte // if it is packed
		disk  int64
		drive []byte
		want  string // what sfdisk --dump has, and the Result
	}{
		{"GPT", gptImage, nil, 100 * mib, nil, "2 partitions, GPT, 0x00000000, config drive {0 0 0}"},
		{"GPT, image as large as the disk", gptImage, nil, 16 * mib, nil, "2 partitions, GPT, 0x00000000, config drive {0 0 0}"},
		{"GPT, image with an odd length", gptImage[:12*mib+700], nil, 100 * mib, nil, "2 partitions, GPT, 0x00000000, config drive {0 0 0}"},
		{"GPT, packed", zipped(t, gptImage), gptImage, 100 * mib, nil, "2 partitions, GPT, 0x00000000, config drive {0 0 0}"},
		{"GPT, with a config drive", gptImage, nil, 200 * mib, drive, "3 partitions, GPT, 0x00000000, config drive {3 141557760 67108864}"},
		{"GPT, reusing a partition", withDrive, nil, 100 * mib, drive, "2 partitions, GPT, 0x00000000, config drive {2 3145728 8388608}"},
		{"MBR", mbrImage, nil, 100 * mib, nil, "1 partitions, MBR, 0xcafe1234, config drive {0 0 0}"},
		{"MBR, with a config drive", mbrImage, nil, 100 * mib, drive, "2 partitions, MBR, 0xcafe1234, config drive {2 37748736 67108864}"},
		{"GPT in a short image", gptImage[:20*1024], nil, 100 * mib, nil, "2 partitions, GPT, 0x00000000, config drive {0 0 0}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisk(t, tt.disk, 512)
			var last stream.Progress
			r, err := Write(t.Context(), d, Spec{Sources: []stream.Source{source{b: tt.image}}, Digest: sha(tt.image), ConfigDrive: tt.drive,
				ReadBack: stream.ReadBackFull, Progress: func(p stream.Progress) { last = p }})
			if err != nil {
				t.Fatal(err)
			}
			kind := "MBR"
			if r.GPT {
				kind = "GPT"
			}
			if got := fmt.Sprintf("%d partitions, %s, %s, config drive %v", len(r.Partitions), kind, r.DiskID, r.ConfigDrive); got != tt.want {
				t.Errorf("Write() says %q, want %q", got, tt.want)
			}
			if len(r.Warnings) > 0 {
				t.Errorf("warnings: %q", r.Warnings)
			}
			if d.rereads != 1 || last.Phase != stream.PhaseDone {
				t.Errorf("partitions read again %d times, last phase %s", d.rereads, last.Phase)
			}

			// What other programs see.
			if out := run(t, "", "sfdisk", "--verify", d.Name()); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk --verify: %s", out)
			}
			if out := run(t, "", "sgdisk", "-v", d.Name()); r.GPT && !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v: %s", out)
			}
			got, err := os.ReadFile(d.Name())
			if err != nil {
				t.Fatal(err)
			}
			if p := r.ConfigDrive; p.Number != 0 {
				if !bytes.Equal(got[p.Start:][:len(tt.drive)], tt.drive) {
					t.Error("config drive is not in its partition")
				}
				if rest := got[p.Start+int64(len(tt.drive)) : p.Start+p.Size]; len(bytes.Trim(rest, "\x00")) != 0 {
					t.Error("partition has other bytes behind the config drive")
				}
			}
			raw := tt.raw
			if raw == nil {
				raw = tt.image
			}
			for at := mib; at < len(raw)-mib; at += 4096 {
				p := r.ConfigDrive
				if at >= int(p.Start) && at < int(p.Start+p.Size) {
					continue
				}
				if !bytes.Equal(got[at:at+4096], raw[at:at+4096]) {
					t.Fatalf("image and disk differ at %d", at)
				}
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	gptImage, mbrImage := makeImage(t, 16*mib, gptScript), makeImage(t, 16*mib, mbrScript)
	edited := func(b []byte, at int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], v)
		return b
	}
	twoDrives := labelled(t, labelled(t, gptImage, mib, 2*mib, "config-2"), 3*mib, 8*mib, "Config-2")
	full := makeImage(t, 16*mib, "label: dos\nstart=2048, size=2048\nstart=4096, size=2048\nstart=6144, size=2048\nstart=8192, size=2048\n")
	fat := labelled(t, make([]byte, 16*mib), 0, 16*mib, "data")
	smallDrive := labelled(t, makeImage(t, 16*mib, "label: gpt\nstart=2048, size=200\n"), mib, 100<<10, "config-2")
	drive := testDrive(t)
	good := sha(gptImage)
	espOnly := makeImage(t, 16*mib, "label: gpt\nstart=2048, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n")
	biosOnly := makeImage(t, 16*mib, "label: gpt\nstart=2048, size=4096, type=21686148-6449-6E6F-744E-656564454649\n")
	espFull := makeImage(t, 16*mib, "label: dos\nstart=2048, size=2048, type=ef\nstart=4096, size=2048, type=ef\nstart=6144, size=2048, type=ef\nstart=8192, size=2048, type=ef\n")
	longZstd := []byte(run(t, string(gptImage), "zstd", "-q", "-c", "--long=27"))

	tests := []struct {
		name      string
		image     []byte
		short     int64
		digest    stream.Digest
		disk      int64
		sector    int
		drive     []byte
		failAt    int64
		format    Format
		wantIs    error
		want      string
		memory    int64
		content   stream.Digest
		lies      bool
		untouched bool // else the disk must be without a table
	}{
		{name: "no source", want: "no source", untouched: true},
		{name: "empty image", image: []byte{}, wantIs: stream.ErrEmpty, untouched: true},
		{name: "wrong digest of the content", image: zipped(t, gptImage), digest: sha(zipped(t, gptImage)), content: sha(nil), wantIs: stream.ErrDigest, want: "content of the disk: digest does not match"},
		{name: "wrong digest, right one of the content", image: zipped(t, gptImage), digest: sha(nil), content: good, wantIs: stream.ErrDigest},
		{name: "it is said to be qcow2", image: gptImage, format: QCOW2, wantIs: stream.ErrFormat, want: "image must be qcow2, and its bytes are raw", untouched: true},
		{name: "another format is asked for", image: gptImage, format: "vmdk", wantIs: stream.ErrFormat, untouched: true},
		{name: "sectors of 4096 bytes, GPT for 512", image: gptImage, sector: 4096, wantIs: ErrSectorSize, untouched: true},
		{name: "sectors of 4096 bytes, MBR for 512", image: mbrImage, sector: 4096, wantIs: ErrSectorSize, untouched: true},
		{name: "sectors of 4096 bytes, MBR for 512, packed", image: zipped(t, mbrImage), sector: 4096, wantIs: ErrSectorSize},
		{name: "GPT without a protective MBR", image: edited(gptImage, 446, make([]byte, 64)...), want: "a GPT without a protective MBR", untouched: true},
		{name: "GPT without any MBR", image: edited(gptImage, 510, 0, 0), want: "a GPT without a protective MBR", untouched: true},
		{name: "sectors of 520 bytes", image: gptImage, sector: 520, want: "sectors of 520", untouched: true},
		{name: "no table", image: bytes.Repeat([]byte("text"), mib), wantIs: ErrNoTable, untouched: true},
		{name: "a file system", image: fat, want: "in the image", untouched: true},
		{name: "protective MBR alone", image: edited(gptImage, 512, 'X'), want: "says that there is a GPT", untouched: true},
		{name: "broken GPT", image: edited(gptImage, 1024+56, 'X'), want: "entries have CRC", untouched: true},
		{name: "no partition", image: makeImage(t, 16*mib, "label: gpt\n"), wantIs: ErrNoPartitions, untouched: true},
		{name: "no partition in the MBR", image: makeImage(t, 16*mib, "label: dos\n"), wantIs: ErrNoPartitions, untouched: true},
		{name: "larger than the disk", image: gptImage, disk: 15 * mib, wantIs: stream.ErrTooLarge, untouched: true},
		{name: "its partitions are larger than the disk", image: gptImage[:8*mib], disk: 10 * mib, wantIs: stream.ErrTooLarge, untouched: true},
		{name: "packed, and larger than the disk", image: zipped(t, mbrImage), disk: 8 * mib, wantIs: stream.ErrTooLarge, untouched: true},
		{name: "disk of 1 MiB", image: gptImage, disk: mib, want: "disk has only", untouched: true},
		{name: "cut in the first MiB", image: gptImage, short: 4000, want: "connection refused", untouched: true},
		{name: "config drive is too large", image: gptImage, drive: append(bytes.Clone(drive), make([]byte, 65*mib)...), want: "its partition 67108864", untouched: true},

		{name: "cut in the middle", image: gptImage, short: 9 * mib, want: "connection refused"},
		{name: "wrong digest", image: edited(gptImage, 9*mib, 'X'), digest: good, wantIs: stream.ErrDigest},
		{name: "wrong digest of a packed image", image: zipped(t, gptImage), digest: good, wantIs: stream.ErrDigest},
		{name: "two config drives in the image", image: twoDrives, drive: drive, want: "2 partitions labelled config-2"},
		{name: "config drive does not fit the partition", image: smallDrive, drive: drive, want: "its partition 102400"},
		{name: "no room for the config drive", image: gptImage, drive: drive, disk: 70 * mib, want: "no room for another partition"},
		{name: "no room for the config drive, and none in the image", image: espOnly, drive: drive, disk: 66 * mib, want: "no room for another partition", untouched: true},
		{name: "no room for the config drive, BIOS boot only", image: biosOnly, drive: drive, disk: 66 * mib, want: "no room for another partition", untouched: true},
		{name: "no entry for the config drive", image: full, drive: drive, want: "all 4 primary entries"},
		{name: "no entry for the config drive, and none in the image", image: espFull, drive: drive, want: "all 4 primary entries", untouched: true},
		{name: "too little memory", image: gptImage, memory: 10 * mib, want: "writing takes 96 MiB, and 10 MiB are available", untouched: true},
		{name: "too little memory for the window", image: longZstd, memory: 148 * mib, wantIs: stream.ErrWindow, want: "it needs 128 MiB, this machine has memory for 52 MiB", untouched: true},
		{name: "disk lies about its table", image: gptImage, lies: true, want: "read partition table back: "},
		{name: "bad sector in the image", image: gptImage, failAt: 8*mib + 4096, want: "bad sector"},
		{name: "bad sector under the config drive", image: gptImage, drive: drive, failAt: 36 * mib, want: "config drive: clear partition 3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.sector == 0 {
				tt.sector = 512
			}
			if tt.disk == 0 {
				tt.disk = 100 * mib
			}
			d := newDisk(t, tt.disk, tt.sector)
			if tt.failAt != 0 {
				d.failAt = tt.failAt
			}
			before, err := os.ReadFile(d.Name())
			if err != nil {
				t.Fatal(err)
			}
			s := Spec{Digest: tt.digest, Content: tt.content, ConfigDrive: tt.drive, Format: tt.format, Patience: 50 * time.Millisecond, Memory: tt.memory}
			if tt.lies {
				s.ReadBack = stream.ReadBackNone
				d.lies = func(b []byte) { b[1024]++ } // in the first entry of the GPT
			}
			if tt.image != nil {
				s.Sources = []stream.Source{source{tt.image, tt.short}}
			}
			_, err = Write(t.Context(), d, s)
			if err == nil {
				t.Fatal("Write succeeds")
			}
			if tt.wantIs != nil && !errors.Is(err, tt.wantIs) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write() = %v, want %v %q", err, tt.wantIs, tt.want)
			}
			after, err := os.ReadFile(d.Name())
			if err != nil {
				t.Fatal(err)
			}
			if tt.untouched {
				if !bytes.Equal(before, after) {
					t.Error("the disk was touched")
				}
				return
			}
			if out, err := exec.Command("sfdisk", "--dump", d.Name()).CombinedOutput(); err == nil {
				t.Errorf("the disk has a partition table:\n%s", out)
			}
		})
	}
}

// What the kernel sees of a disk that is written and right is worth a warning and no failure: the disk boots.
func TestWriteWarns(t *testing.T) {
	gptImage := makeImage(t, 16*mib, gptScript)
	part := func(number int, start, size int64) Partition {
		return Partition{Number: number, Start: start, Size: size}
	}
	one, two := part(1, mib, 2*mib), part(2, 3*mib, 8*mib)
	tests := []struct {
		name   string
		reread error
		kernel []Partition
		want   string
	}{
		{"right", nil, []Partition{one, two}, ""},
		{"busy", errors.New("device or resource busy"), nil, "device or resource busy"},
		{"none", nil, []Partition{}, "the kernel does not see partition 1 of the disk (2097152 bytes at 1048576); the kernel does not see partition 2 of the disk (8388608 bytes at 3145728)"},
		{"old ones", nil, []Partition{part(1, mib, mib), two, part(3, 12*mib, mib)},
			"the kernel sees partition 1 of the disk as 1048576 bytes at 1048576, the table has 2097152 at 1048576; the kernel sees a partition 3 of the disk that the table does not have"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisk(t, 32*mib, 512)
			d.reread, d.kernel = tt.reread, tt.kernel
			r, err := Write(t.Context(), d, Spec{Sources: []stream.Source{source{b: gptImage}}})
			if got := strings.Join(r.Warnings, "; "); err != nil || got != tt.want {
				t.Errorf("Write() warns %q, %v; want %q", got, err, tt.want)
			}
			if out := run(t, "", "sfdisk", "--verify", d.Name()); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk --verify: %s", out)
			}
		})
	}
}

// A GPT that nothing guards is not looked at where there is an MBR with partitions, as on disks that boot as a CD as well.
func TestParseLayoutIgnoresUnguardedGPT(t *testing.T) {
	b := makeImage(t, 16*mib, gptScript)
	copy(b[446:], makeImage(t, 16*mib, mbrScript)[446:512])
	l, err := parseLayout(b[:mib], 512, -1)
	if err != nil || l.gpt != nil || fmt.Sprint(l.partitions()) != "[{1 1048576 8388608}]" {
		t.Errorf("parseLayout() = %v, %v, want the partition of the MBR", l.partitions(), err)
	}
}

func TestWriteStops(t *testing.T) {
	b := makeImage(t, 16*mib, gptScript)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the operator has had enough")
	cancel(stop)
	d := newDisk(t, 32*mib, 512)
	if _, err := Write(ctx, d, Spec{Sources: []stream.Source{source{b: b}}}); !errors.Is(err, stop) {
		t.Errorf("Write() = %v, want %v", err, stop)
	}
}

func TestParseFormat(t *testing.T) {
	for in, want := range map[string]Format{"": Auto, "auto": Auto, "unknown": Auto, "raw": Raw, "RAW": Raw, "gpt": Raw, "qcow2": QCOW2} {
		if got, err := ParseFormat(in); got != want || err != nil {
			t.Errorf("ParseFormat(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"vhd", "vmdk", "iso", "raw "} {
		if got, err := ParseFormat(in); !errors.Is(err, stream.ErrFormat) {
			t.Errorf("ParseFormat(%q) = %q, %v, want %v", in, got, err, stream.ErrFormat)
		}
	}
}
