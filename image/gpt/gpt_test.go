// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const mib = 1 << 20

// run runs a program that judges or makes disks, and returns what it prints.
func run(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skipf("needs the program %s", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// imageFile makes a file of size bytes with what an sfdisk script says.
func imageFile(t testing.TB, size int64, script string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	run(t, script, "sfdisk", "-q", "--no-tell-kernel", "--no-reread", name)
	return name
}

// head reads the first MiB of a file.
func head(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b[:mib]
}

// overwrite writes into an existing file.
func overwrite(t testing.TB, name string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

const debianScript = `label: gpt
label-id: 5AF5C6A5-6D6E-4A42-9F3C-0D4E9C1B2A31
start=2048, size=16384, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=7E0C2D9A-1B7F-4B43-8E5A-0A9A0C51E2F1, name="EFI System", attrs="RequiredPartition"
start=18432, size=32768, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=0B9E1F6C-2E35-4C77-9C11-7A4B3D0A2E57, name="rööt"
`

func TestParse(t *testing.T) {
	table, err := Parse(head(t, imageFile(t, 32*mib, debianScript)), 512)
	if err != nil {
		t.Fatal(err)
	}
	want := []Partition{
		{1, EFISystem, "7e0c2d9a-1b7f-4b43-8e5a-0a9a0c51e2f1", 2048, 18431, 1, "EFI System"},
		{2, LinuxData, "0b9e1f6c-2e35-4c77-9c11-7a4b3d0a2e57", 18432, 51199, 0, "rööt"},
	}
	if got := table.Partitions(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Partitions() =\n%v, want\n%v", got, want)
	}
	if got := table.DiskID(); got != "5af5c6a5-6d6e-4a42-9f3c-0d4e9c1b2a31" {
		t.Errorf("DiskID() = %s", got)
	}
}

func TestFit(t *testing.T) {
	tests := []struct {
		name     string
		script   string
		disk     int64
		add      []int64 // sizes of partitions that are added
		wantDump []string
		wantErr  error
	}{
		{"larger disk", debianScript, 100 * mib, nil, []string{"last-lba: 204766", "start=2048, size=16384", "start=18432, size=32768", "RequiredPartition", "label-id: 5AF5C6A5"}, nil},
		{"same size", debianScript, 32 * mib, nil, []string{"last-lba: 65502"}, nil},
		{"smaller than the image, larger than its partitions", debianScript, 26 * mib, nil, []string{"last-lba: 53214"}, nil},
		{"size that is no multiple of a MiB", debianScript, 100*mib + 512, nil, []string{"last-lba: 204767"}, nil},
		{"with another partition", debianScript, 256 * mib, []int64{64 * mib}, []string{"start=391168, size=131072, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4", `name="config-2"`}, nil},
		{"with three", debianScript, 256 * mib, []int64{64 * mib, 1, 100 * mib}, []string{"start=391168, size=131072", "start=522240, size=1,", "start=186368, size=204800"}, nil},
		{"into a gap in the middle", debianScript + "start=190000, size=18432\n", 108 * mib, []int64{64 * mib}, []string{"start=57344, size=131072"}, nil},
		{"into a hole in the numbers", "label: gpt\n1: start=2048, size=2048\n3: start=4096, size=2048\n", 100 * mib, []int64{mib}, []string{"image2 : start=200704, size=2048"}, nil},
		{"table of four entries", "label: gpt\ntable-length: 4\nstart=2048, size=2048\n", 64 * mib, []int64{mib}, []string{"start=126976, size=2048"}, nil},
		{"too small for the last partition", debianScript, 25 * mib, nil, nil, ErrTooSmall},
		{"too small for anything", debianScript, 4096, nil, nil, ErrTooSmall},
		{"no room for another", debianScript, 64 * mib, []int64{64 * mib}, nil, ErrNoSpace},
		{"room, but not aligned", "label: gpt\nstart=2048, size=61500\n", 32 * mib, []int64{900 << 10}, nil, ErrNoSpace},
		{"no entry free", "label: gpt\ntable-length: 1\nstart=2048, size=2048\n", 64 * mib, []int64{mib}, nil, ErrNoSpace},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			size := int64(32 * mib)
			if strings.Contains(tt.script, "190000") {
				size = 108 * mib
			}
			name := imageFile(t, size, tt.script)
			b := head(t, name)
			table, err := Parse(b, 512)
			if err != nil {
				t.Fatal(err)
			}
			err = table.Fit(tt.disk)
			for _, n := range tt.add {
				if err == nil {
					_, err = table.Add(LinuxData, "config-2", n)
				}
			}
			if tt.wantErr != nil {
				if !errors.Is(err, tt.wantErr) {
					t.Fatalf("error is %v, want %v", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(b)
			table.WriteHead(b)
			if !bytes.Equal(b[:446], before[:446]) {
				t.Error("boot code has changed")
			}
			backup, at := table.Backup()
			if at+int64(len(backup)) != tt.disk {
				t.Errorf("backup ends at %d, want %d", at+int64(len(backup)), tt.disk)
			}
			// The disk had all kinds of bytes behind the image.
			if err := os.Truncate(name, tt.disk); err != nil {
				t.Fatal(err)
			}
			overwrite(t, name, b, 0)
			overwrite(t, name, backup, at)
			judge(t, name)
			dump := regexp.MustCompile("= +").ReplaceAllString(run(t, "", "sfdisk", "--dump", name), "=")
			for _, w := range tt.wantDump {
				if !strings.Contains(dump, w) {
					t.Errorf("sfdisk --dump has no %q:\n%s", w, dump)
				}
			}
		})
	}
}

// judge asks sgdisk and sfdisk about a whole disk.
func judge(t testing.TB, name string) {
	t.Helper()
	if out := run(t, "", "sgdisk", "-v", name); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	if out := run(t, "", "sfdisk", "--verify", name); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk --verify: %s", out)
	}
}

// The backup alone must do, when the first sectors are lost.
func TestBackup(t *testing.T) {
	name := imageFile(t, 32*mib, debianScript)
	b := head(t, name)
	table, err := Parse(b, 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Fit(50 * mib); err != nil {
		t.Fatal(err)
	}
	backup, at := table.Backup()
	if err := os.Truncate(name, 50*mib); err != nil {
		t.Fatal(err)
	}
	overwrite(t, name, make([]byte, 33*512), 512)
	overwrite(t, name, backup, at)
	if dump := run(t, "", "sfdisk", "--dump", name); !strings.Contains(dump, "the backup appears OK") || !strings.Contains(dump, `name="EFI System"`) {
		t.Errorf("sfdisk --dump: %s", dump)
	}
}

// A protective MBR covers the disk, at most 2^32-1 sectors; a hybrid one is left alone.
func TestProtectiveSize(t *testing.T) {
	b := head(t, imageFile(t, 32*mib, debianScript))
	for _, tt := range []struct {
		name string
		disk int64
		want uint32
	}{{"small", 100 * mib, 100*2048 - 1}, {"4 TiB", 4 << 40, math.MaxUint32}} {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(b)
			table, err := Parse(b, 512)
			if err != nil {
				t.Fatal(err)
			}
			if err := table.Fit(tt.disk); err != nil {
				t.Fatal(err)
			}
			table.WriteHead(b)
			if got := binary.LittleEndian.Uint32(b[446+12:]); got != tt.want {
				t.Errorf("protective partition has %d sectors, want %d", got, tt.want)
			}
		})
	}
	t.Run("hybrid", func(t *testing.T) {
		b := bytes.Clone(b)
		copy(b[446+16:], []byte{0x80, 0, 0, 0, 0x0c, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0})
		before := bytes.Clone(b[:512])
		table, err := Parse(b, 512)
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Fit(100 * mib); err != nil {
			t.Fatal(err)
		}
		table.WriteHead(b)
		if !bytes.Equal(b[:512], before) {
			t.Error("hybrid MBR has changed")
		}
	})
}

// fix makes the checksums of a head right again after a test has changed it.
func fix(b []byte, sector int) {
	h := b[sector:]
	size, number := binary.LittleEndian.Uint32(h[atEntrySize:]), binary.LittleEndian.Uint32(h[atEntriesNumber:])
	at := binary.LittleEndian.Uint64(h[atEntriesLBA:]) * uint64(sector)
	if length := uint64(size) * uint64(number); at <= uint64(len(b)) && length <= uint64(len(b))-at {
		binary.LittleEndian.PutUint32(h[atEntriesCRC:], crc32.ChecksumIEEE(b[at:at+length]))
	}
	clear(h[atHeaderCRC : atHeaderCRC+4])
	if n := binary.LittleEndian.Uint32(h[atHeaderSize:]); n <= uint32(sector) {
		binary.LittleEndian.PutUint32(h[atHeaderCRC:], crc32.ChecksumIEEE(h[:n]))
	}
}

func TestParseRefuses(t *testing.T) {
	good := head(t, imageFile(t, 32*mib, debianScript))
	put32 := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[512+at:], v); fix(b, 512) }
	}
	put64 := func(at int, v uint64) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint64(b[512+at:], v); fix(b, 512) }
	}
	tests := []struct {
		name   string
		change func([]byte)
		want   string
	}{
		{"no header", func(b []byte) { b[512] = 'e' }, "no partition table"},
		{"header's CRC", func(b []byte) { b[512+atDiskGUID]++ }, "header has CRC"},
		{"entries' CRC", func(b []byte) { b[1024+130]++ }, "entries have CRC"},
		{"revision", put32(atRevision, 0x20000), "revision 2.0"},
		{"header too short", put32(atHeaderSize, 91), "header of 91 bytes"},
		{"header too long", put32(atHeaderSize, 513), "header of 513 bytes"},
		{"another place", put64(atMyLBA, 5), "says it is at 5"},
		{"entries of 0", put32(atEntrySize, 0), "entries of 0 bytes"},
		{"entries of 192", put32(atEntrySize, 192), "entries of 192 bytes"},
		{"huge entries", put32(atEntrySize, 1<<31), "entries of 2147483648 bytes"},
		{"no entries", put32(atEntriesNumber, 0), "0 entries"},
		{"too many entries", put32(atEntriesNumber, math.MaxUint32), "4294967295 entries"},
		{"entries on the header", put64(atEntriesLBA, 1), "entries at sector 1"},
		{"entries beyond the head", put64(atEntriesLBA, 2040), "are not in the first"},
		{"entries beyond everything", put64(atEntriesLBA, math.MaxUint64), "are not in the first"},
		{"usable area over the entries", put64(atFirstUsable, 3), "usable sectors 3"},
		{"usable area without end", put64(atLastUsable, math.MaxUint64), "usable sectors"},
		{"usable area is empty", put64(atLastUsable, 33), "to 33"},
		{"partition ends before it starts", func(b []byte) { binary.LittleEndian.PutUint64(b[1024+40:], 2047); fix(b, 512) }, "partition 1 is at sectors 2048 to 2047"},
		{"partition beyond the end", func(b []byte) { binary.LittleEndian.PutUint64(b[1024+128+40:], 65503); fix(b, 512) }, "partition 2 is at"},
		{"partition before the usable area", func(b []byte) { binary.LittleEndian.PutUint64(b[1024+32:], 1); fix(b, 512) }, "partition 1 is at"},
		{"partitions overlap", func(b []byte) { binary.LittleEndian.PutUint64(b[1024+40:], 18432); fix(b, 512) }, "partitions 1 and 2 overlap"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(good)
			tt.change(b)
			if _, err := Parse(b, 512); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse() = %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := Parse(good, 4096); !errors.Is(err, ErrNone) {
		t.Errorf("Parse with sectors of 4096 bytes: %v, want %v", err, ErrNone)
	}
	for _, n := range []int{0, 511, 1023, 1024, 2000} {
		if _, err := Parse(good[:n], 512); err == nil {
			t.Errorf("Parse of %d bytes succeeds", n)
		}
	}
}

func TestMBRAdd(t *testing.T) {
	const script = "label: dos\nlabel-id: 0x12345678\nstart=2048, size=2048, type=83, bootable\n"
	tests := []struct {
		name    string
		script  string
		image   int64
		disk    int64
		size    int64
		want    string // the device that it becomes
		wantErr error
	}{
		{"at the end", script, 8 * mib, 256 * mib, 64 * mib, "image2", nil},
		{"first free entry", "label: dos\n2: start=2048, size=2048\n4: start=4096, size=2048\n", 8 * mib, 80 * mib, mib, "image1", nil},
		{"beside an extended partition", script + "start=4096, size=8192, type=5\nstart=6144, size=2048\n", 8 * mib, 100 * mib, 64 * mib, "image3", nil},
		{"four partitions", script + "start=4096, size=2048\nstart=6144, size=2048\nstart=8192, size=2048\n", 8 * mib, 100 * mib, mib, "", ErrNoSpace},
		{"no room", script, 8 * mib, 64 * mib, 64 * mib, "", ErrNoSpace},
		{"partition beyond the disk", script, 8 * mib, mib + 4096, mib, "", ErrTooSmall},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := imageFile(t, tt.image, tt.script)
			b := head(t, name)
			m, err := ParseMBR(b)
			if err != nil {
				t.Fatal(err)
			}
			var p MBRPartition
			if err = m.Fit(tt.disk, 512); err == nil {
				p, err = m.Add(tt.size, tt.disk, 512)
			}
			if tt.wantErr != nil {
				if !errors.Is(err, tt.wantErr) {
					t.Fatalf("error is %v, want %v", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m.WriteHead(b)
			if err := os.Truncate(name, tt.disk); err != nil {
				t.Fatal(err)
			}
			overwrite(t, name, b, 0)
			if out := run(t, "", "sfdisk", "--verify", name); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk --verify: %s", out)
			}
			dump := regexp.MustCompile("= +").ReplaceAllString(run(t, "", "sfdisk", "--dump", name), "=")
			want := fmt.Sprintf("%s : start=%d, size=%d, type=c", tt.want, p.First, p.Count)
			if !strings.Contains(dump, want) || int64(p.Count)*512 != tt.size || p.First%2048 != 0 {
				t.Errorf("Add() = %+v, sfdisk --dump:\n%s", p, dump)
			}
		})
	}
}

func TestMBRLargeDisk(t *testing.T) {
	m, err := ParseMBR(head(t, imageFile(t, 8*mib, "label: dos\nlabel-id: 0x12345678\nstart=2048, size=2048, type=83\n")))
	if err != nil {
		t.Fatal(err)
	}
	if m.Signature() != 0x12345678 {
		t.Errorf("Signature() = %#x", m.Signature())
	}
	p, err := m.Add(64*mib, 4<<40, 512)
	if err != nil {
		t.Fatal(err)
	}
	if p.First+p.Count > math.MaxUint32 || p.First+p.Count < math.MaxUint32-4096 {
		t.Errorf("partition on a disk of 4 TiB ends at sector %d, want one just below 2^32", p.First+p.Count)
	}
}

func TestParseMBRRefuses(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fat")
	if err := os.WriteFile(name, make([]byte, 2*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "mkfs.vfat", name)
	fat := head(t, name)
	tests := []struct {
		name string
		head []byte
	}{
		{"nothing", nil},
		{"zeros", make([]byte, mib)},
		{"short", fat[:511]},
		{"text where flags should be", append(bytes.Repeat([]byte("x"), 510), 0x55, 0xaa)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseMBR(tt.head); !errors.Is(err, ErrNone) {
				t.Errorf("ParseMBR() = %v, want %v", err, ErrNone)
			}
		})
	}
	if m, err := ParseMBR(fat); err == nil && len(m.Partitions()) > 0 {
		t.Errorf("boot sector of FAT has partitions: %v", m.Partitions())
	}
}

func TestGUID(t *testing.T) {
	// The ESP's type as UEFI 2.10 appendix A would store it.
	stored := [16]byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	if got := DecodeGUID(stored); got != EFISystem {
		t.Errorf("DecodeGUID() = %s, want %s", got, EFISystem)
	}
	if got, err := EFISystem.Encode(); got != stored || err != nil {
		t.Errorf("Encode() = %x, %v", got, err)
	}
	for _, s := range []string{"", "c12a7328", "c12a7328-f81f-11d2-ba4b-00a0c93ec93", "c12a7328-f81f-11d2-ba4b-00a0c93ec93g", "c12a7328+f81f-11d2-ba4b-00a0c93ec93b", "{12a7328-f81f-11d2-ba4b-00a0c93ec93b"} {
		if b, err := GUID(s).Encode(); err == nil {
			t.Errorf("GUID(%q).Encode() = %x", s, b)
		}
	}
	if a, b := RandomGUID(), RandomGUID(); a == b || a[14] != '4' {
		t.Errorf("RandomGUID() = %s, %s", a, b)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(head(f, imageFile(f, 32*mib, debianScript))[:4096+16384], true, int64(100*mib))
	f.Add(head(f, imageFile(f, 8*mib, "label: dos\nstart=2048, size=2048, type=83\n"))[:512], false, int64(100*mib))
	f.Fuzz(func(t *testing.T, b []byte, mend bool, disk int64) {
		b = append(b, make([]byte, max(0, 32<<10-len(b)))...)
		disk &= 1<<50 - 1
		for _, sector := range []int{512, 4096} {
			if mend { // so that more than the checksums is tested
				fix(b, sector)
			}
			table, err := Parse(b, sector)
			if err != nil || table.Fit(disk) != nil {
				continue
			}
			_, _ = table.Add(LinuxData, "x", mib)
			table.WriteHead(b)
			again, err := Parse(b, sector)
			if err != nil {
				t.Fatalf("own GPT is refused: %v", err)
			}
			if fmt.Sprint(again.Partitions()) != fmt.Sprint(table.Partitions()) {
				t.Errorf("wrote %v, read %v", table.Partitions(), again.Partitions())
			}
			backup, at := table.Backup()
			if at < 0 || at+int64(len(backup)) > disk {
				t.Errorf("backup is at %d on a disk of %d", at, disk)
			}
		}
		if m, err := ParseMBR(b); err == nil {
			if _, err := m.Add(mib, disk, 512); err == nil {
				m.WriteHead(b)
				if _, err := ParseMBR(b); err != nil {
					t.Errorf("own MBR is refused: %v", err)
				}
			}
		}
	})
}

// A table that is made is sound by the word of sgdisk and of sfdisk, and ours when it is read again.
func TestNew(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			const size = 64 * mib
			table, err := New(size, sector)
			if err != nil {
				t.Fatal(err)
			}
			per := uint64(mib / sector)
			for _, p := range []Partition{
				{Number: 1, Type: LinuxRAID, First: per, Last: 10*per - 1, Name: "one"},
				{Number: 3, Type: EFISystem, ID: "7e0c2d9a-1b7f-4b43-8e5a-0a9a0c51e2f1", First: 20 * per, Last: 63*per - 1, Name: "three"},
			} {
				if err := table.Put(p); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range []Partition{
				{Number: 1, Type: LinuxData, First: 11 * per, Last: 12 * per},
				{Number: 2, Type: LinuxData, First: 9 * per, Last: 12 * per},
				{Number: 2, Type: LinuxData, First: 63 * per, Last: 64*per - 1},
				{Number: 2, Type: LinuxData, First: 1, Last: 2},
				{Number: 2, Type: LinuxData, First: 12 * per, Last: 11 * per},
				{Number: 0, Type: LinuxData, First: 11 * per, Last: 12 * per},
				{Number: 129, Type: LinuxData, First: 11 * per, Last: 12 * per},
				{Number: 2, Type: "none", First: 11 * per, Last: 12 * per},
			} {
				if err := table.Put(p); err == nil {
					t.Errorf("Put(%+v) is not refused", p)
				}
			}
			name := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(name, table.Head(), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(name, size); err != nil {
				t.Fatal(err)
			}
			backup, at := table.Backup()
			overwrite(t, name, backup, at)
			again, err := Parse(head(t, name), sector)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(again.Partitions()); got != fmt.Sprint(table.Partitions()) {
				t.Errorf("read again: %s, want %v", got, table.Partitions())
			}
			if sector != 512 {
				return // the programs take a file for a disk with sectors of 512 bytes
			}
			if out := run(t, "", "sgdisk", "-v", name); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v:\n%s", out)
			}
			out := run(t, "", "sfdisk", "--dump", name)
			for _, want := range []string{
				`start=        2048, size=       18432, type=A19D880F-05FC-4D3B-A006-743F0F84911E`, `name="one"`,
				`start=       40960, size=       88064, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=7E0C2D9A-1B7F-4B43-8E5A-0A9A0C51E2F1, name="three"`,
			} {
				if !strings.Contains(out, want) {
					t.Errorf("sfdisk --dump:\n%s\nwant %s", out, want)
				}
			}
		})
	}
	for _, refused := range []struct {
		size   int64
		sector int
	}{{64 * mib, 520}, {10000, 512}, {0, 4096}} {
		if _, err := New(refused.size, refused.sector); err == nil {
			t.Errorf("New(%d, %d) is not refused", refused.size, refused.sector)
		}
	}
}

func TestNewMBR(t *testing.T) {
	m := NewMBR(0x1234abcd)
	for _, p := range []MBRPartition{{Number: 1, Type: 0xfd, First: 2048, Count: 18432, Active: true}, {Number: 4, Type: 0x83, First: 40960, Count: 2048}} {
		if err := m.Put(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []MBRPartition{
		{Number: 1, Type: 0xfd, First: 30000, Count: 1}, {Number: 2, Type: 0xfd, First: 2000, Count: 100}, {Number: 2, Type: 0xfd, First: 41000, Count: 1},
		{Number: 5, Type: 0xfd, First: 30000, Count: 1}, {Number: 2, Type: 0xfd, First: 30000}, {Number: 2, Type: 0xfd, Count: 1}, {Number: 2, Type: 0xfd, First: 30000, Count: 1 << 32},
	} {
		if err := m.Put(p); !errors.Is(err, ErrNoSpace) {
			t.Errorf("Put(%+v) = %v, want ErrNoSpace", p, err)
		}
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, m.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 64*mib); err != nil {
		t.Fatal(err)
	}
	out := run(t, "", "sfdisk", "--dump", name)
	for _, want := range []string{"label-id: 0x1234abcd", "1 : start=        2048, size=       18432, type=fd, bootable", "4 : start=       40960, size=        2048, type=83\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("sfdisk --dump:\n%s\nwant %s", out, want)
		}
	}
}
