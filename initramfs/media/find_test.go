// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"github.com/ironhand/ironhand/image/volume"
)

// Ways through sysfs to block devices.
const (
	pathUSB    = "../../devices/pci0000:00/0000:00:03.0/usb1/1-1/1-1:1.0/host2/target2:0:0/2:0:0:0/block/"
	pathSATA   = "../../devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/"
	pathVirtio = "../../devices/pci0000:00/0000:00:02.0/virtio1/block/"
	pathFloppy = "../../devices/platform/floppy.0/block/"
	pathNone   = "../../devices/virtual/block/"
)

// drive is one block device of a fake machine: what sysfs says, and what reading gives.
type drive struct {
	name, path string
	size       int64 // bytes, in sysfs
	model      string
	partition  bool
	image      []byte // nil: nothing in the drive
	open, read error
	readErrors int // only so many, if not 0
}

// machine is a Finder on drives, and the number of devices that are open.
func machine(drives ...drive) (Finder, *atomic.Int32) {
	sys := fstest.MapFS{"sys/class/block": &fstest.MapFile{Mode: fs.ModeDir | 0o755}}
	byDevice := map[string]*drive{}
	for _, d := range drives {
		target := d.path + d.name
		sys["sys/class/block/"+d.name] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(target)}
		dir := "sys/" + strings.TrimPrefix(target, "../../") + "/"
		sys[dir+"size"] = &fstest.MapFile{Data: fmt.Appendf(nil, "%d\n", d.size/512)}
		if d.model != "" {
			sys[dir+"device/model"] = &fstest.MapFile{Data: []byte(d.model + "\n")}
		}
		if d.partition {
			sys[dir+"partition"] = &fstest.MapFile{Data: []byte("1\n")}
		}
		byDevice["/dev/"+d.name] = &d
	}
	open := &atomic.Int32{}
	return Finder{FS: sys, Open: func(device string) (Device, error) {
		d := byDevice[device]
		if d == nil {
			return nil, fs.ErrNotExist
		}
		if d.open != nil {
			return nil, d.open
		}
		open.Add(1)
		return &handle{d, open}, nil
	}}, open
}

type handle struct {
	*drive
	handles *atomic.Int32
}

func (h *handle) Close() error { h.handles.Add(-1); return nil }

func (h *handle) ReadAt(b []byte, at int64) (int, error) {
	if h.read != nil {
		err := h.read
		if h.readErrors > 0 {
			if h.readErrors--; h.readErrors == 0 {
				h.read = nil
			}
		}
		return 0, err
	}
	return bytes.NewReader(h.image).ReadAt(b, at)
}

func fat(t testing.TB, label string, files map[string][]byte) []byte {
	t.Helper()
	b, err := volume.FAT{Size: volume.FloppySize, Label: label, Files: files}.Bytes()
	must(t, err)
	return b
}

func iso(t testing.TB, label string, files map[string][]byte) []byte {
	t.Helper()
	b, err := volume.ISO{Label: label, Files: volume.BytesFiles(files)}.Bytes()
	must(t, err)
	return b
}

func TestFind(t *testing.T) {
	params := map[string][]byte{"parameters.txt": []byte("a=1")}
	network := map[string][]byte{NetworkDataFile: []byte("{}")}
	floppy := func(name string) drive {
		return drive{name: name, path: pathFloppy, image: fat(t, "ir-vfd-dev", params)}
	}
	const enomedium = syscall.Errno(123)
	full := map[string][]byte{} // a directory of more than one cluster
	for i := range 20 {
		full[fmt.Sprintf("openstack/a long name %d", i)] = nil
	}
	looped := fat(t, "ir-vfd-dev", full)
	copy(looped[512+3:], []byte{0x02, 0x20, 0x00}) // cluster 2, the directory, comes after itself
	for _, c := range []struct {
		name   string
		drives []drive
		media  string // those found: kind, device, label, files
		seen   string // lines
		err    string
	}{
		{name: "no drives"},
		{
			name: "order: floppy, USB, CD, and each by name",
			drives: []drive{
				{name: "sr10", path: pathSATA, image: iso(t, "config-2", network)},
				{name: "sr2", path: pathSATA, image: iso(t, "CONFIG-2", network)},
				{name: "sdb", path: pathUSB, size: 1 << 20, image: fat(t, "IR-VFD-DEV", params)},
				floppy("fd1"), floppy("fd0"),
			},
			media: "floppy /dev/fd0 ir-vfd-dev 1, floppy /dev/fd1 ir-vfd-dev 1, usb /dev/sdb IR-VFD-DEV 1, cd /dev/sr2 CONFIG-2 1, cd /dev/sr10 config-2 1",
		},
		{
			name: "the boot ISO, an empty drive, an internal disk, what is no device",
			drives: []drive{
				{name: "sr0", path: pathSATA, image: iso(t, "IRONHAND", map[string][]byte{"boot/vmlinuz": nil})},
				{name: "sr1", path: pathSATA, open: enomedium},
				{name: "fd0", path: pathFloppy, open: syscall.ENXIO},
				{name: "vda", path: pathVirtio, size: 1 << 20, image: fat(t, "config-2", params)},
				{name: "loop0", path: pathNone, size: 1 << 20, image: fat(t, "config-2", params)},
				{name: "dm-0", path: pathNone, size: 1 << 20, image: fat(t, "config-2", params)},
			},
			seen: `/dev/fd0: no medium
/dev/sr0: label IRONHAND: not a configuration medium
/dev/sr1: no medium
/dev/vda: not looked at: it is an internal disk`,
		},
		{
			name: "partitions: of a small USB disk, of a large one, of an internal disk",
			drives: []drive{
				{name: "sdb", path: pathUSB, size: 1 << 30, image: make([]byte, 1<<20)},
				{name: "sdb1", path: pathUSB + "sdb/", size: 1 << 20, partition: true, image: fat(t, "config-2", params)},
				{name: "sdc", path: pathUSB, size: 4 << 30, image: make([]byte, 1<<20)},
				{name: "sdc1", path: pathUSB + "sdc/", size: 1 << 20, partition: true, image: fat(t, "config-2", params)},
				{name: "sda", path: pathSATA, size: 1 << 30, image: make([]byte, 1<<20)},
				{name: "sda1", path: pathSATA + "sda/", size: 1 << 20, partition: true, image: fat(t, "config-2", params)},
			},
			media: "usb /dev/sdb1 config-2 1",
			seen: `/dev/sda: not looked at: it is an internal disk
/dev/sdb: neither FAT nor ISO 9660: not a configuration medium
/dev/sdb1: label config-2: configuration medium with 1 files
/dev/sdc: not looked at: it is a USB disk of 4 GiB or more
/dev/sdc1: not looked at: it is a USB disk of 4 GiB or more`,
		},
		{
			name: "by model: with parameters, without, and not by a label alone",
			drives: []drive{
				{name: "sdb", path: pathUSB, size: 1 << 20, model: "Virtual Media Floppy", image: fat(t, "whatever", params)},
				{name: "sdc", path: pathUSB, size: 1 << 20, model: "VIRTUAL MEDIA", image: fat(t, "whatever", network)},
				{name: "sdd", path: pathUSB, size: 1 << 20, model: "Stick", image: fat(t, "whatever", params)},
			},
			media: "usb /dev/sdb whatever 1",
			seen: `/dev/sdb: label whatever: configuration medium with 1 files
/dev/sdc: label whatever, model VIRTUAL MEDIA: no parameters.txt
/dev/sdd: label whatever: not a configuration medium`,
		},
		{
			name: "Ironic's boot ISO without and with files",
			drives: []drive{
				{name: "sr0", path: pathSATA, image: iso(t, "VMEDIA_BOOT_ISO", map[string][]byte{"vmlinuz": nil})},
				{name: "sr1", path: pathSATA, image: iso(t, "VMEDIA_BOOT_ISO", map[string][]byte{CAFile: []byte("x")})},
			},
			media: "cd /dev/sr1 VMEDIA_BOOT_ISO 1",
			seen: `/dev/sr0: label VMEDIA_BOOT_ISO: none of the files of a configuration medium
/dev/sr1: label VMEDIA_BOOT_ISO: configuration medium with 1 files`,
		},
		{
			name: "USB card reader without a card, size not known",
			drives: []drive{
				{name: "sdb", path: pathUSB, size: 0},
				{name: "sdc", path: pathUSB, size: -512},
			},
			seen: "/dev/sdb: no medium\n/dev/sdc: not looked at: its size is not known",
		},
		{
			name:   "read errors that end",
			drives: []drive{{name: "sr0", path: pathSATA, image: iso(t, "config-2", network), read: syscall.EIO, readErrors: 2}},
			media:  "cd /dev/sr0 config-2 1",
		},
		{
			name: "read errors that do not end do not hide another medium",
			drives: []drive{
				{name: "sr0", path: pathSATA, image: iso(t, "config-2", network), read: syscall.EIO},
				floppy("fd0"),
			},
			media: "floppy /dev/fd0 ir-vfd-dev 1",
			err:   "configuration medium /dev/sr0: read the first sector: input/output error",
		},
		{
			name:   "no permission",
			drives: []drive{{name: "sr0", path: pathSATA, open: syscall.EACCES}},
			err:    "permission denied",
		},
		{
			name:   "CD cut off",
			drives: []drive{{name: "sr0", path: pathSATA, image: iso(t, "config-2", network)[:19*2048]}},
			err:    "configuration medium /dev/sr0: read root directory",
		},
		{
			name:   "file too large",
			drives: []drive{{name: "fd0", path: pathFloppy, image: fat(t, "config-2", map[string][]byte{"openstack/a": make([]byte, 1<<20+1)})}},
			err:    `label config-2: more than a configuration medium may have: file "openstack/a" has 1048577 bytes of 1048576`,
		},
		{
			name:   "directory that is a loop",
			drives: []drive{{name: "fd0", path: pathFloppy, image: looped}},
			err:    "configuration medium /dev/fd0: label ir-vfd-dev: read directory",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, open := machine(c.drives...)
				media, seen, err := f.Find(t.Context())
				check(t, media, seen, err, c.media, c.seen, c.err)
				if n := open.Load(); n != 0 {
					t.Errorf("%d devices are still open", n)
				}
			})
		})
	}
}

func check(t *testing.T, media []Medium, seen []Seen, err error, wantMedia, wantSeen, wantErr string) {
	t.Helper()
	var got []string
	for _, m := range media {
		got = append(got, fmt.Sprintf("%s %s %s %d", m.Kind, m.Device, m.Label, len(m.Files)))
	}
	if text := strings.Join(got, ", "); text != wantMedia {
		t.Errorf("media %q, want %q", text, wantMedia)
	}
	var lines []string
	for _, s := range seen {
		lines = append(lines, s.String())
	}
	if text := strings.Join(lines, "\n"); wantSeen != "" && text != wantSeen {
		t.Errorf("seen:\n%s\nwant:\n%s", text, wantSeen)
	}
	if wantErr == "" && err != nil || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
		t.Errorf("error %v, want %q", err, wantErr)
	}
	if taken := len(slices.DeleteFunc(slices.Clone(seen), func(s Seen) bool { return !s.Taken })); taken != len(media) {
		t.Errorf("%d lines say that a medium was taken, %d were", taken, len(media))
	}
}

// A drive whose reading never ends is given up; the others are not held up for longer than its limit.
func TestFindHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := machine(drive{name: "sr0", path: pathSATA}, drive{name: "fd0", path: pathFloppy, image: fat(t, "config-2", map[string][]byte{"parameters.txt": nil})})
		open := f.Open
		end := make(chan struct{})
		f.Open = func(device string) (Device, error) {
			if device == "/dev/sr0" {
				<-end // as open(2) of a drive that does not answer
				return nil, syscall.EIO
			}
			return open(device)
		}
		media, seen, err := f.Find(t.Context())
		check(t, media, seen, err, "floppy /dev/fd0 config-2 1", "/dev/fd0: label config-2: configuration medium with 1 files\n/dev/sr0: no answer within 1m0s", "no answer within 1m0s")
		close(end)
	})
}

func TestFindCancelled(t *testing.T) {
	f, _ := machine(drive{name: "fd0", path: pathFloppy, image: fat(t, "config-2", nil)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.Find(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestFindWithoutSysfs(t *testing.T) {
	if _, _, err := (Finder{FS: fstest.MapFS{}}).Find(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
}

// The retries are told.
func TestFindLogsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := machine(drive{name: "sr0", path: pathSATA, read: syscall.EIO})
		var lines []string
		f.Log = func(line string) { lines = append(lines, line) }
		if _, _, err := f.Find(t.Context()); err == nil {
			t.Error("no error")
		}
		if len(lines) != 2 || !strings.Contains(lines[0], "/dev/sr0: read the first sector: input/output error, trying again") {
			t.Errorf("lines %q", lines)
		}
	})
}

// A medium is read within a limit of bytes, whatever it makes of itself.
func TestLimitedReader(t *testing.T) {
	r := &limitedReader{ctx: t.Context(), r: bytes.NewReader(make([]byte, 100)), left: 150}
	if _, err := r.ReadAt(make([]byte, 100), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(make([]byte, 51), 0); !errors.Is(err, errLimit) || errors.Is(err, io.EOF) {
		t.Errorf("error %v, want %v", err, errLimit)
	}
}
