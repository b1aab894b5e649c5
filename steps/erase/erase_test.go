// SPDX-License-Identifier: Apache-2.0

package erase_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/steps/erase/erasetest"
	"github.com/ironhand/ironhand/steps/holders"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream/streamtest"
)

const mib = 1 << 20

// bench is a machine of fakes: disks in memory, the kernel's files about them, drives.
type bench struct {
	t      *testing.T
	fsys   fstest.MapFS
	disks  map[string]*streamtest.Disk
	drives map[string]erase.Drive
	host   steps.Host
	mu     sync.Mutex
	said   strings.Builder
	told   []any
	down   []string // what was taken down
	reads  func(path string) error
	odd    []string // boot entries of no form
	busy   string   // a disk that cannot be opened
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, fsys: fstest.MapFS{}, disks: map[string]*streamtest.Disk{}, drives: map[string]erase.Drive{}}
	b.file("proc/self/mountinfo", "")
	b.file("proc/swaps", "")
	b.host = steps.Host{
		Machine: inspect.Machine{FS: b.fsys},
		Open:    func(path string) (steps.Disk, error) { return b.disks[path], nil },
		Log:     slog.New(slog.DiscardHandler),
		Say: func(format string, args ...any) {
			b.mu.Lock()
			defer b.mu.Unlock()
			fmt.Fprintf(&b.said, format+"\n", args...)
		},
		Progress: func(v any) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.told = append(b.told, v)
		},
	}
	return b
}

func (b *bench) file(name, value string) { b.fsys[name] = &fstest.MapFile{Data: []byte(value)} }

// disk adds a disk of 32 MiB, full of old data.
func (b *bench) disk(name string) *streamtest.Disk {
	d := streamtest.NewDisk(32*mib, 512)
	path := "/dev/" + name
	b.disks[path] = d
	b.drives[path] = erasetest.Plain{}
	dir := "sys/block/" + name
	for file, value := range map[string]string{"dev": fmt.Sprintf("8:%d", 16*len(b.disks)), "size": "65536", "ro": "0", "queue/logical_block_size": "512", "queue/physical_block_size": "512"} {
		b.file(dir+"/"+file, value)
	}
	switch {
	case strings.HasPrefix(name, "nvme"):
		b.file(dir+"/nsid", "1")
		b.file(dir+"/device/model", "FAST")
		b.file(dir+"/device/serial", "N-"+name)
	case strings.HasPrefix(name, "sd"):
		b.file(dir+"/device/vendor", "ATA")
		b.file(dir+"/device/model", "BIG")
		b.file(dir+"/device/type", "0")
		b.file(dir+"/device/scsi_device/0:0:0:0/x", "")
		b.file(dir+"/device/vpd_pg80", "\x00\x80\x00\x04S-"+name[1:])
		b.file("sys/class/scsi_host/host0/proc_name", "ahci")
		b.drives[path] = &erasetest.ATA{Disk: d}
	case strings.HasPrefix(name, "vd"):
		b.file(dir+"/serial", "V-"+name)
	case strings.HasPrefix(name, "md"):
		b.file(dir+"/md/level", "raid1")
	}
	return d
}

func (b *bench) nvme(name string, n erasetest.NVMe) *erasetest.NVMe {
	n.Disk = b.disk(name)
	if n.Namespaces == nil {
		n.Namespaces = []uint32{1}
	}
	b.drives["/dev/"+name] = &n
	return &n
}

func (b *bench) ata(name string, a erasetest.ATA) *erasetest.ATA {
	a.Disk = b.disk(name)
	b.drives["/dev/"+name] = &a
	return &a
}

// part adds a partition to a disk.
func (b *bench) part(disk string, number int, start, size int64) {
	dir := fmt.Sprintf("sys/block/%s/%s%d", disk, disk, number)
	for file, value := range map[string]int64{"partition": int64(number), "start": start / 512, "size": size / 512} {
		b.file(dir+"/"+file, fmt.Sprint(value))
	}
	b.file(dir+"/dev", fmt.Sprintf("259:%d", len(b.fsys)))
}

// on builds a device on others, which may be partitions: "sda/sda1".
func (b *bench) on(name string, below ...string) {
	for _, s := range below {
		b.file("sys/block/"+s+"/holders/"+name, "")
		b.file("sys/block/"+name+"/slaves/"+s[strings.LastIndex(s, "/")+1:], "")
	}
}

// array builds an array on others.
func (b *bench) array(name string, below ...string) {
	b.disk(name)
	b.file("sys/block/"+name+"/md/metadata_version", "1.2")
	b.on(name, below...)
}

// md puts a superblock of version 1.x at a place of a partition.
func md(d *streamtest.Disk, partition, at int64, name string) {
	b := make([]byte, 4096)
	le := binary.LittleEndian
	le.PutUint32(b, 0xa92b4efc)
	le.PutUint32(b[4:], 1)
	copy(b[32:], "host:"+name)
	le.PutUint32(b[72:], 1)
	le.PutUint64(b[144:], uint64(at)/512)
	var sum uint64
	for i := 0; i < 256; i += 4 {
		sum += uint64(le.Uint32(b[i:]))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
	copy(d.Bytes[partition+at:], b)
}

// bench is an [erase.System].

func (b *bench) Read(path string) (io.ReaderAt, io.Closer, error) {
	if b.reads != nil {
		if err := b.reads(path); err != nil {
			return nil, nil, err
		}
	}
	if d := b.disks[path]; d != nil {
		return d, d, nil
	}
	for name := range b.disks { // a partition of it
		if number, is := strings.CutPrefix(path, name); is {
			dir := "sys/block/" + name[5:] + "/" + name[5:] + number
			var start, size int64
			fmt.Sscan(string(b.fsys[dir+"/start"].Data), &start)
			fmt.Sscan(string(b.fsys[dir+"/size"].Data), &size)
			return io.NewSectionReader(b.disks[name], start*512, size*512), io.NopCloser(nil), nil
		}
	}
	return bytes.NewReader(nil), io.NopCloser(nil), nil
}

func (b *bench) ReadPast(path string) (io.ReaderAt, io.Closer, error) { return b.Read(path) }

func (b *bench) Drive(path string) (erase.Drive, error) { return b.drives[path], nil }

func (b *bench) Teardown(ctx context.Context, t holders.Tree, before func(holders.Change) error) error {
	return t.TeardownBy(ctx, func(c holders.Change) error {
		if err := before(c); err != nil {
			return err
		}
		b.down = append(b.down, c.String())
		name := strings.TrimPrefix(c.Path, "/dev/")
		maps.DeleteFunc(b.fsys, func(file string, _ *fstest.MapFile) bool {
			return strings.HasPrefix(file, "sys/block/"+name+"/") || strings.HasSuffix(file, "/holders/"+name)
		})
		return nil
	})
}

func (b *bench) MountPstore(dir string) error {
	b.down = append(b.down, "mount "+dir)
	return errors.New("no pstore")
}

func (b *bench) CleanBootEntries(dir string, remove func(string) bool) (deleted, odd []string, err error) {
	for _, path := range []string{`HD(1,GPT,x)/File(\EFI\debian\shimx64.efi)`, `PciRoot(0x0)/File(\EFI\GRUBX64.EFI)`, `PciRoot(0x0)/NVMe(0x1,00)`, `PciRoot(0x0)/HD(2)`} {
		if remove(path) {
			deleted = append(deleted, path)
		}
	}
	return deleted, b.odd, nil
}

// forgetting has the kernel forget the partitions when it is told to look for them.
type forgetting struct {
	*streamtest.Disk
	b    *bench
	name string
}

func (f forgetting) RereadPartitions(context.Context) error {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	maps.DeleteFunc(f.b.fsys, func(file string, _ *fstest.MapFile) bool {
		return strings.HasPrefix(file, "sys/block/"+f.name+"/"+f.name)
	})
	return nil
}

type step func(erase.Eraser) func(context.Context, steps.Host, steps.Job) (any, error)

func devices(e erase.Eraser) func(context.Context, steps.Host, steps.Job) (any, error) {
	return e.Devices
}
func metadata(e erase.Eraser) func(context.Context, steps.Host, steps.Job) (any, error) {
	return e.Metadata
}
func express(e erase.Eraser) func(context.Context, steps.Host, steps.Job) (any, error) {
	return e.Express
}

// run runs a step for a node, in a time of its own.
func (b *bench) run(s step, node string) (result any, err error) {
	b.t.Helper()
	var job steps.Job
	if err := json.Unmarshal([]byte(node), &job.Node); err != nil {
		b.t.Fatal(err)
	}
	b.host.Open = func(path string) (steps.Disk, error) {
		if path == b.busy {
			return nil, syscall.EBUSY
		}
		return forgetting{b.disks[path], b, path[5:]}, nil
	}
	synctest.Test(b.t, func(t *testing.T) {
		result, err = s(erase.Eraser{System: b})(t.Context(), b.host, job)
	})
	return result, err
}

func untouched(d *streamtest.Disk) bool {
	return bytes.Count(d.Bytes, []byte{streamtest.Old}) == len(d.Bytes)
}
func blank(d *streamtest.Disk) bool { return bytes.Count(d.Bytes, []byte{0}) == len(d.Bytes) }

const zeroPassword = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// Each drive is erased by the best that it has; from its own means to overwriting it only goes where the conductor allows.
func TestLadder(t *testing.T) {
	const goOn = `{"driver_internal_info": {"agent_continue_if_secure_erase_failed": true}}`
	secret := []byte("somebody's secret password......")
	full := erasetest.NVMe{OACS: 2, FNA: 4, SANICAP: 3, FLBAS: 0x35, DPS: 0x0b}
	tests := []struct {
		name   string
		drive  any
		node   string
		method string   // that held
		ops    []string // what the drive was told
		err    string   // or why not
		blank  bool     // all zeros afterwards
		same   bool     // untouched
	}{
		{name: "NVMe: sanitize", drive: full, method: "NVMe sanitize (crypto erase)", ops: []string{"sanitize cdw10 0xc"}},
		{name: "NVMe: only block erase", drive: erasetest.NVMe{SANICAP: 2, Zeros: true}, method: "NVMe sanitize (block erase)", ops: []string{"sanitize cdw10 0xa"}, blank: true},
		{name: "NVMe: no sanitize, format keeps the format", drive: erasetest.NVMe{OACS: 2, FNA: 4, FLBAS: 0x35, DPS: 0x0b}, method: "NVMe format (cryptographic erase)", ops: []string{"format nsid 1 cdw10 0x1575"}},
		{name: "NVMe: user data erase", drive: erasetest.NVMe{OACS: 2, Zeros: true}, method: "NVMe format (user data erase)", ops: []string{"format nsid 1 cdw10 0x200"}, blank: true},
		{name: "NVMe: sanitize refused", drive: erasetest.NVMe{OACS: 2, FNA: 4, SANICAP: 3, Refuse: map[byte]uint16{0x84: 0x123}}, method: "NVMe format (cryptographic erase)", ops: []string{"format nsid 1 cdw10 0x400"}},
		{name: "NVMe: sanitize fails on the way", drive: erasetest.NVMe{OACS: 2, SANICAP: 2, FailsLate: true}, method: "NVMe format (user data erase)", ops: []string{"sanitize cdw10 0xa", "sanitize cdw10 0x1", "format nsid 1 cdw10 0x200"}},
		{name: "NVMe: failed before, does not stay so", drive: erasetest.NVMe{SANICAP: 1, Failed: true}, method: "NVMe sanitize (crypto erase)", ops: []string{"sanitize cdw10 0x1", "sanitize cdw10 0xc"}},
		{name: "NVMe: sanitize runs from before", drive: erasetest.NVMe{SANICAP: 1, Running: 20}, method: "NVMe sanitize (crypto erase)", ops: []string{"sanitize cdw10 0xc"}},
		{name: "NVMe: sanitize runs from before, and fails", drive: erasetest.NVMe{SANICAP: 1, Running: 20, FailsThen: true}, method: "NVMe sanitize (crypto erase)", ops: []string{"sanitize cdw10 0x1", "sanitize cdw10 0xc"}},
		{name: "NVMe: other namespaces are not touched", drive: erasetest.NVMe{OACS: 2, FNA: 4, SANICAP: 3, Namespaces: []uint32{1, 2}}, method: "NVMe format (cryptographic erase)", ops: []string{"format nsid 1 cdw10 0x400"}},
		{name: "NVMe: a format would touch them", drive: erasetest.NVMe{OACS: 2, FNA: 6, Namespaces: []uint32{1, 2}}, err: "cannot be erased by itself", same: true},
		{name: "NVMe 1.0: one namespace", drive: erasetest.NVMe{OACS: 2, FNA: 3, NoList: true, Zeros: true}, method: "NVMe format (user data erase)", ops: []string{"format nsid 1 cdw10 0x200"}, blank: true},
		{name: "NVMe 1.0: two namespaces", drive: erasetest.NVMe{OACS: 2, FNA: 3, NoList: true, Namespaces: []uint32{1, 2}}, err: "cannot be erased by itself", same: true},
		{name: "NVMe: another controller's namespace", drive: erasetest.NVMe{OACS: 2 | 8, FNA: 4, SANICAP: 3, CMIC: 2, Elsewhere: []uint32{2}}, method: "NVMe format (cryptographic erase)", ops: []string{"format nsid 1 cdw10 0x400"}},
		{name: "NVMe: a namespace that is not attached", drive: erasetest.NVMe{OACS: 2 | 8, FNA: 6, SANICAP: 3, Elsewhere: []uint32{2}}, err: "cannot be erased by itself", same: true},
		{name: "NVMe: other controllers, nothing tells what they have", drive: erasetest.NVMe{OACS: 2, FNA: 4, SANICAP: 3, CMIC: 2, Elsewhere: []uint32{2}}, method: "NVMe format (cryptographic erase)", ops: []string{"format nsid 1 cdw10 0x400"}},
		{name: "NVMe: other controllers, one namespace", drive: erasetest.NVMe{OACS: 2, SANICAP: 3, CMIC: 2}, method: "NVMe sanitize (crypto erase)", ops: []string{"sanitize cdw10 0xc"}},
		{name: "NVMe: may have others, and has none", drive: erasetest.NVMe{OACS: 2 | 8, SANICAP: 3, CMIC: 2, Room: 128}, method: "NVMe sanitize (crypto erase)", ops: []string{"sanitize cdw10 0xc"}},
		{name: "NVMe: lies", drive: erasetest.NVMe{OACS: 2, FNA: 4, SANICAP: 1, Lies: true}, err: `"/dev/nvme0n1": NVMe sanitize (crypto erase): the data at 0 is still there: the disk does not do what it says; then NVMe format (cryptographic erase): the data at 0`,
			ops: []string{"sanitize cdw10 0xc", "format nsid 1 cdw10 0x400", "format nsid 1 cdw10 0x200"}},
		{name: "NVMe: lies, and may be overwritten", drive: erasetest.NVMe{OACS: 2, Lies: true}, node: goOn, method: "overwrite with 1 passes of random data and one of zeros", ops: []string{"format nsid 1 cdw10 0x200"}, blank: true},
		{name: "NVMe: can nothing", drive: erasetest.NVMe{}, err: `"/dev/nvme0n1": the NVMe drive cannot be erased by itself`, same: true},
		{name: "NVMe: can nothing, and may be overwritten", drive: erasetest.NVMe{}, node: goOn, method: "overwrite with 1 passes of random data and one of zeros", blank: true},
		{name: "NVMe: its means are off", drive: full, node: `{"driver_internal_info": {"agent_enable_nvme_secure_erase": false}}`, method: "overwrite with 1 passes of random data and one of zeros", blank: true},
		{name: "NVMe: does not answer", drive: erasetest.NVMe{Refuse: map[byte]uint16{0x06: 0x06}}, err: "identify (0x1): the drive says: internal error (0x6)", same: true},

		{name: "ATA: enhanced", drive: erasetest.ATA{Security: true, Enhanced: true, Minutes: 60}, method: "ATA enhanced security erase, 1h0m0s promised", ops: []string{"set password", "erase, enhanced true"}, blank: true},
		{name: "ATA: not enhanced", drive: erasetest.ATA{Security: true, Minutes: 2}, method: "ATA security erase, 2m0s promised", ops: []string{"set password", "erase, enhanced false"}, blank: true},
		{name: "ATA: sanitize before security erase", drive: erasetest.ATA{Security: true, CryptoScramble: true, BlockErase: true}, method: "ATA sanitize (crypto scramble)", ops: []string{"sanitize 0x11"}},
		// It has no room for the upper byte, in which the state is.
		{name: "ATA: fixed sense data", drive: erasetest.ATA{BlockErase: true, FixedSense: true, Security: true}, method: "ATA security erase", ops: []string{"set password", "erase, enhanced false"}, blank: true},
		{name: "ATA: fixed sense data, aborted", drive: erasetest.ATA{FixedSense: true, Security: true, AbortErase: true}, err: "the drive aborted the command", ops: []string{"set password", "disable password"}},
		{name: "ATA: sanitize runs from before", drive: erasetest.ATA{BlockErase: true, Running: 9}, method: "ATA sanitize (block erase)", ops: []string{"sanitize 0x12"}, blank: true},
		{name: "ATA: sanitize fails", drive: erasetest.ATA{BlockErase: true, FailsLate: true, Security: true}, method: "ATA security erase", ops: []string{"sanitize 0x12", "exit failure mode", "set password", "erase, enhanced false"}, blank: true},
		{name: "ATA: sanitize fails, and its status is aborted", drive: erasetest.ATA{BlockErase: true, FailsLate: true, Aborts: true}, node: goOn, method: "overwrite with 1 passes of random data and one of zeros", ops: []string{"sanitize 0x12", "exit failure mode"}, blank: true},
		{name: "ATA: sanitize failed before", drive: erasetest.ATA{BlockErase: true, Failed: true}, method: "ATA sanitize (block erase)", ops: []string{"exit failure mode", "sanitize 0x12"}, blank: true},
		{name: "ATA: sanitize failed before, and its status is aborted", drive: erasetest.ATA{BlockErase: true, Failed: true, Aborts: true}, method: "ATA sanitize (block erase)", ops: []string{"exit failure mode", "sanitize 0x12"}, blank: true},
		{name: "ATA: sanitize runs from before, and fails", drive: erasetest.ATA{BlockErase: true, Running: 9, FailsThen: true}, method: "ATA sanitize (block erase)", ops: []string{"exit failure mode", "sanitize 0x12"}, blank: true},
		{name: "ATA: sanitize is frozen", drive: erasetest.ATA{BlockErase: true, SanitizeFrozen: true, Security: true}, method: "ATA security erase", ops: []string{"set password", "erase, enhanced false"}, blank: true},
		{name: "ATA: frozen", drive: erasetest.ATA{Security: true, Frozen: true}, err: `"/dev/sda": /dev/sda is frozen and cannot be erased`, same: true},
		{name: "ATA: frozen, and may be overwritten", drive: erasetest.ATA{Security: true, Frozen: true}, node: goOn, method: "overwrite with 1 passes of random data and one of zeros", blank: true},
		{name: "ATA: frozen, the older key", drive: erasetest.ATA{Security: true, Frozen: true}, node: `{"driver_internal_info": {"agent_continue_if_ata_erase_failed": true}}`, method: "overwrite with 1 passes of random data and one of zeros", blank: true},
		{name: "ATA: frozen, both keys: the newer counts", drive: erasetest.ATA{Security: true, Frozen: true}, node: `{"driver_internal_info": {"agent_continue_if_ata_erase_failed": true, "agent_continue_if_secure_erase_failed": false}}`, err: "frozen", same: true},
		{name: "ATA: frozen, but it can sanitize", drive: erasetest.ATA{Security: true, Frozen: true, BlockErase: true}, method: "ATA sanitize (block erase)", ops: []string{"sanitize 0x12"}, blank: true},
		{name: "ATA: locked by a step that was killed", drive: erasetest.ATA{Security: true, Locked: true, Password: []byte(zeroPassword)}, method: "ATA security erase", ops: []string{"unlock", "erase, enhanced false"}, blank: true},
		{name: "ATA: locked by somebody", drive: erasetest.ATA{Security: true, Locked: true, Password: secret}, err: "/dev/sda already has a security password set", same: true},
		{name: "ATA: somebody's password, open", drive: erasetest.ATA{Security: true, Password: secret}, err: "ATA security erase: the drive aborted the command (status 0x51, error 0x04)"},
		{name: "ATA: aborted: the password does not stay", drive: erasetest.ATA{Security: true, AbortErase: true}, err: "the drive aborted the command", ops: []string{"set password", "disable password"}},
		{name: "ATA: aborted, and may be overwritten", drive: erasetest.ATA{Security: true, AbortErase: true}, node: goOn, method: "overwrite with 1 passes of random data and one of zeros", ops: []string{"set password", "disable password"}, blank: true},
		{name: "ATA: lies", drive: erasetest.ATA{Security: true, Lies: true}, err: "the data at 0 is still there", ops: []string{"set password", "erase, enhanced false"}},
		{name: "ATA: keeps its password", drive: erasetest.ATA{Security: true, KeepsPassword: true}, err: "it still has its password", ops: []string{"set password", "erase, enhanced false"}, blank: true},
		{name: "ATA: no security", drive: erasetest.ATA{}, method: "overwrite with 1 passes of random data and one of zeros", blank: true},
		{name: "ATA: its means are off", drive: erasetest.ATA{Security: true, Frozen: true}, node: `{"driver_internal_info": {"agent_enable_ata_secure_erase": false}}`, method: "overwrite with 1 passes of random data and one of zeros", blank: true},

		{name: "SCSI: crypto first", drive: erasetest.SCSI{Crypto: true, Block: true}, method: "SCSI sanitize (cryptographic erase)", ops: []string{"sanitize 0xa3"}},
		{name: "SCSI: block erase, descriptors", drive: erasetest.SCSI{Block: true, Descriptors: true}, method: "SCSI sanitize (block erase)", ops: []string{"sanitize 0xa2"}, blank: true},
		{name: "SCSI: reset before", drive: erasetest.SCSI{Block: true, Attentions: 2, Failed: true}, method: "SCSI sanitize (block erase)", ops: []string{"exit failure mode", "sanitize 0xa2"}, blank: true},
		{name: "SCSI: no sanitize", drive: erasetest.SCSI{}, method: "overwrite with 1 passes of random data and one of zeros", blank: true},
		{name: "SCSI: runs from before", drive: erasetest.SCSI{Block: true, Running: 9}, method: "SCSI sanitize (block erase)", ops: []string{"sanitize 0xa2"}, blank: true},
		{name: "SCSI: runs from before, and fails", drive: erasetest.SCSI{Block: true, Running: 9, FailsThen: true}, method: "SCSI sanitize (block erase)", ops: []string{"exit failure mode", "sanitize 0xa2"}, blank: true},
		{name: "SCSI: failed before", drive: erasetest.SCSI{Block: true, Failed: true}, method: "SCSI sanitize (block erase)", ops: []string{"exit failure mode", "sanitize 0xa2"}, blank: true},
		{name: "SCSI: fails", drive: erasetest.SCSI{Block: true, FailsLate: true}, err: "SCSI sanitize (block erase): the drive says that it failed: sense 3/31/03", ops: []string{"sanitize 0xa2", "exit failure mode"}},
		{name: "SCSI: fails, and may be overwritten", drive: erasetest.SCSI{Block: true, FailsLate: true}, node: goOn, method: "overwrite with 1 passes of random data and one of zeros", ops: []string{"sanitize 0xa2", "exit failure mode"}, blank: true},
		{name: "SCSI: lies", drive: erasetest.SCSI{Crypto: true, Lies: true}, err: "the data at 0 is still there", ops: []string{"sanitize 0xa3"}},

		{name: "plain: passes", drive: erasetest.Plain{}, node: `{"driver_internal_info": {"agent_erase_devices_iterations": 3, "agent_erase_devices_zeroize": false}}`, method: "overwrite with 3 passes of random data"},
		{name: "plain: zeros only", drive: erasetest.Plain{}, node: `{"driver_internal_info": {"agent_erase_devices_iterations": 0}}`, method: "overwrite with zeros", blank: true},
		{name: "neither", drive: erasetest.Plain{}, node: `{"driver_internal_info": {"agent_erase_devices_iterations": 0, "agent_erase_devices_zeroize": false}}`, err: "neither passes", same: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			var disk *streamtest.Disk
			name, ops := "", func() []string { return nil }
			switch d := test.drive.(type) {
			case erasetest.NVMe:
				name = "/dev/nvme0n1"
				n := b.nvme("nvme0n1", d)
				disk, ops = n.Disk, n.Ops
			case erasetest.ATA:
				name = "/dev/sda"
				a := b.ata("sda", d)
				disk, ops = a.Disk, a.Ops
			case erasetest.SCSI:
				name = "/dev/sda"
				s := &d
				s.Disk = b.disk("sda")
				b.file("sys/block/sda/device/vendor", "SEAGATE")
				b.drives[name] = s
				disk, ops = s.Disk, s.Ops
			case erasetest.Plain:
				name = "/dev/vda"
				disk = b.disk("vda")
				b.drives[name] = d
			}
			result, err := b.run(devices, test.node+"{}"[min(2, len(test.node)):])
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !errors.Is(err, steps.ErrErase) && !errors.Is(err, steps.ErrArgs) {
					t.Errorf("Devices = %v, want %q", err, test.err)
				}
			} else if err != nil {
				t.Fatalf("Devices = %v\n%s", err, b.said.String())
			} else {
				c := result.(map[string]erase.Certificate)[name]
				if c.Method != test.method || c.Serial == "" || c.Size != disk.Size() || c.Proof.Samples < 60 || c.Capabilities == nil || strings.Contains(c.String(), "  ") || c.Ended.Before(c.Started) {
					t.Errorf("certificate %+v, want method %s", c, test.method)
				}
				if !strings.Contains(b.said.String(), c.String()) {
					t.Errorf("the certificate was not shown: %s", b.said.String())
				}
				if notZero := bytes.IndexFunc(disk.Bytes[:8*mib], func(r rune) bool { return r != 0 }); notZero >= 0 {
					t.Errorf("byte %d at the start is not zero", notZero)
				}
				if i := bytes.Index(disk.Bytes, bytes.Repeat([]byte{streamtest.Old}, 64)); i >= 0 {
					t.Errorf("old data at %d", i)
				}
			}
			if got := ops(); !slices.Equal(got, test.ops) {
				t.Errorf("the drive was told %q, want %q", got, test.ops)
			}
			if blank(disk) != test.blank || untouched(disk) != test.same {
				t.Errorf("blank: %v, untouched: %v; want %v, %v", blank(disk), untouched(disk), test.blank, test.same)
			}
		})
	}
}

// Which disks are erased, which are left alone, and when none is.
func TestWhich(t *testing.T) {
	iso := func(d *streamtest.Disk, label string) {
		copy(d.Bytes[32<<10:], "\x01CD001")
		copy(d.Bytes[32<<10+40:], label+strings.Repeat(" ", 32-len(label)))
	}
	two := func(b *bench) { // two arrays side by side
		for _, d := range []string{"sda", "sdb"} {
			disk := b.disk(d)
			b.part(d, 1, mib, 14*mib)
			b.part(d, 2, 16*mib, 14*mib)
			md(disk, mib, 4096, "root")
			md(disk, 16*mib, 4096, "data")
		}
		b.array("md0", "sda/sda1", "sdb/sdb1")
		b.array("md1", "sda/sda2", "sdb/sdb2")
	}
	mirror := func(b *bench) {
		for _, d := range []string{"sda", "sdb"} {
			b.disk(d)
			b.part(d, 1, mib, 16*mib)
		}
		b.array("md0", "sda/sda1", "sdb/sdb1")
	}
	const raid = `{"raid_config": {"logical_disks": [{"controller": "software", "raid_level": "1", "size_gb": "MAX"}]}}`
	tests := []struct {
		name   string
		make   func(b *bench)
		step   step // metadata
		node   string
		erased string // the others are untouched
		down   string
		says   string
		err    error
		text   string
	}{
		{name: "all", make: func(b *bench) { b.disk("sda"); b.disk("vda"); b.disk("nvme0n1") }, erased: "/dev/nvme0n1 /dev/sda /dev/vda"},
		{name: "none there", make: func(b *bench) { b.fsys["sys/block"] = &fstest.MapFile{Mode: fs.ModeDir} }, says: "no disk is to be erased"},
		{name: "skip list", make: func(b *bench) { b.disk("sda"); b.disk("vda") }, node: `{"properties": {"skip_block_devices": [{"serial": "V-vda"}]}}`, erased: "/dev/sda", says: "/dev/vda is on the skip list: left alone"},
		{name: "skip list that is none", make: func(b *bench) { b.disk("sda") }, node: `{"properties": {"skip_block_devices": [{"colour": "red"}]}}`, err: inspect.ErrHints, text: "colour"},
		{name: "read-only, metadata", make: func(b *bench) { b.disk("sda"); b.disk("vda"); b.file("sys/block/vda/ro", "1") }, erased: "/dev/sda", says: "/dev/vda is read-only: left alone"},
		{name: "read-only, devices", make: func(b *bench) { b.disk("sda"); b.disk("vda"); b.file("sys/block/vda/ro", "1") }, step: devices, err: steps.ErrErase, text: "/dev/vda: read-only"},
		{name: "read-only, devices, allowed", make: func(b *bench) { b.disk("sda"); b.disk("vda"); b.file("sys/block/vda/ro", "1") }, step: devices, node: `{"driver_internal_info": {"agent_erase_skip_read_only": true}}`, erased: "/dev/sda"},
		{name: "medium", make: func(b *bench) { b.disk("sda"); iso(b.disk("vda"), "CONFIG-2"); b.file("sys/block/vda/removable", "1") }, erased: "/dev/sda", says: "/dev/vda is a medium for this machine (label CONFIG-2)"},
		{name: "deployed with a config drive", make: func(b *bench) {
			b.disk("sda")
			iso(&streamtest.Disk{Bytes: b.disk("vda").Bytes[mib:]}, "config-2")
			b.part("vda", 1, mib, 16*mib)
			b.file("sys/block/vda/removable", "1")
		}, erased: "/dev/sda /dev/vda"},
		{name: "medium, read from a partition", make: func(b *bench) {
			b.disk("sda")
			b.disk("vda")
			b.part("vda", 1, mib, 16*mib)
			b.file("sys/block/vda/removable", "1")
			b.host.Media = []string{"/dev/vda1"}
		}, erased: "/dev/sda", says: "/dev/vda is a medium for this machine (its settings were read from /dev/vda1)"},
		{name: "medium of any label that was read", make: func(b *bench) {
			b.disk("sda")
			iso(b.disk("vda"), "SITE1")
			b.file("sys/block/vda/removable", "1")
			b.host.Media = []string{"/dev/vda"}
		}, erased: "/dev/sda", says: "/dev/vda is a medium for this machine (its settings were read from /dev/vda)"},
		{name: "the name of a medium, by now an internal disk's", make: func(b *bench) { b.disk("vda"); b.host.Media = []string{"/dev/vda"} }, erased: "/dev/vda"},
		{name: "a large stick with our ISO", make: func(b *bench) {
			b.disk("sda")
			iso(b.disk("vda"), "IRONHAND")
			b.file("sys/block/vda/removable", "1")
			b.file("sys/block/vda/size", fmt.Sprint(4<<30/512))
		}, err: steps.ErrErase, erased: "/dev/sda", text: `"/dev/vda": it may be the medium that this machine was started from: it has the label IRONHAND and 4.0 GiB; unplug it`},
		{name: "its label on an internal disk", make: func(b *bench) { iso(b.disk("vda"), "ir-vfd-dev") }, erased: "/dev/vda"},
		{name: "another stick", make: func(b *bench) { iso(b.disk("vda"), "HOLIDAYS"); b.file("sys/block/vda/removable", "1") }, erased: "/dev/vda"},
		{name: "a stick that cannot be read", make: func(b *bench) {
			b.disk("sda")
			b.disk("vda").FailReadAt = 2048
			b.file("sys/block/vda/removable", "1")
		}, err: steps.ErrErase, erased: "/dev/sda", text: `the device(s): "/dev/vda": it may be the medium`},
		{name: "a disk that cannot be read", make: func(b *bench) { b.disk("sda"); b.disk("vda").FailReadAt = 2 * mib }, err: steps.ErrErase, erased: "/dev/sda", text: `Failed to erase the metadata on the device(s): "/dev/vda": look for file systems of clusters on /dev/vda: read`},
		{name: "a disk that cannot be read, devices", make: func(b *bench) { b.disk("sda"); b.disk("vda").FailReadAt = 2 * mib }, step: devices, err: steps.ErrErase, erased: "/dev/sda", text: `Failed to erase the device(s): "/dev/vda": look for`},
		{name: "a disk that cannot be read, express", make: func(b *bench) { b.disk("sda"); b.disk("vda").FailReadAt = 2 * mib }, step: express, err: steps.ErrErase, erased: "/dev/sda", says: "/dev/vda will NOT be erased"},
		{name: "a disk that cannot be read, and need not", make: func(b *bench) { b.disk("vda").FailReadAt = 12 * mib }, erased: "/dev/vda"},
		{name: "a disk that may be a member", make: func(b *bench) { mirror(b); b.disk("sdc").FailReadAt = 4096 }, node: raid, err: steps.ErrErase, erased: "/dev/md0", text: `"/dev/sdc": look for software RAID on /dev/sdc: read`},
		{name: "a disk that may be a member of the one on the skip list", make: func(b *bench) { two(b); b.disk("sdc").FailReadAt = 4096 }, node: `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}}`, err: steps.ErrErase, erased: "/dev/md0", text: `"/dev/sdc": look for software RAID on /dev/sdc: read`},

		{name: "somebody's array", make: mirror, erased: "/dev/md0 /dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)"},
		{name: "somebody's array, devices", make: mirror, step: devices, node: `{"driver_internal_info": {"agent_enable_ata_secure_erase": false}}`, erased: "/dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)"},
		{name: "somebody's array that is broken", make: func(b *bench) { mirror(b); b.disks["/dev/md0"].FailZeroAt = 1 }, err: steps.ErrErase, erased: "/dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)",
			text: `the device(s): "/dev/md0": clear it before it is stopped: zero 8388608 bytes at 0: input/output error`},
		{name: "somebody's array that is inactive", make: func(b *bench) { mirror(b); b.file("sys/block/md0/size", "0") }, erased: "/dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)"},
		{name: "somebody's array with partitions, in use, under another, express", make: func(b *bench) {
			b.disk("vda")
			b.array("md0", "vda")
			b.part("md0", 1, 10*mib, 4*mib)
			b.file("proc/self/mountinfo", fmt.Sprintf("1 0 %s / /mnt rw - ext4 /dev/md01 rw\n", b.fsys["sys/block/md0/md01/dev"].Data))
			b.array("md1", "md0")
		}, step: express, erased: "/dev/md0 /dev/md1 /dev/vda", down: "unmount /mnt, stop /dev/md1 (raid1), stop /dev/md0 (raid1)"},
		{name: "Ironic's array", make: mirror, node: raid, erased: "/dev/md0", says: "/dev/sda is a member of software RAID, which stays"},
		{name: "Ironic's array to be", make: mirror, node: strings.Replace(raid, "raid_config", "target_raid_config", 1), erased: "/dev/md0"},
		{name: "Ironic's array, devices", make: mirror, step: devices, node: raid, erased: "/dev/md0"},
		{name: "hardware RAID in the record", make: mirror, node: `{"raid_config": {"logical_disks": [{"controller": "PERC"}]}}`, erased: "/dev/md0 /dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)"},
		{name: "array on the skip list", make: two, node: `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}}`, erased: "/dev/md0", says: "/dev/md1 (raid1) is on the skip list"},
		{name: "array on the skip list, devices", make: two, step: devices, node: `{"properties": {"skip_block_devices": [{"volume_name": "root"}]}}`, erased: "/dev/md1", says: `/dev/sda has /dev/md0 (raid1) on it, which is on the skip list as "root"`},
		{name: "array on the skip list, one of the record's", make: two, node: strings.Replace(raid, "{", `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}, `, 1), erased: "/dev/md0"},
		{name: "array on the skip list by a hint", make: two, node: `{"properties": {"skip_block_devices": [{"name": "/dev/md0"}]}}`, erased: "/dev/md1", says: "/dev/sdb has /dev/md0 (raid1) on it, which is on the skip list: left alone"},
		{name: "array on the skip list that does not run", make: func(b *bench) { b.disk("sda"); md(b.disk("sdb"), 0, 4096, "data") }, node: `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}}`, erased: "/dev/sda", says: `/dev/sdb is a member of "data", which is on the skip list and does not run`},
		{name: "a former user's array of the name of the one on the skip list", make: func(b *bench) {
			two(b)
			md(b.disk("sdc"), 0, 4096, "data")
			b.disks["/dev/sdc"].Bytes[4096+16], b.disks["/dev/sdc"].Bytes[4096+216] = 1, b.disks["/dev/sdc"].Bytes[4096+216]+1 // its UUID
			md(b.disk("sdd"), 0, 4096, "data")                                                                                 // dropped out
		}, node: `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}}`, erased: "/dev/md0 /dev/sdc", says: `/dev/sdd is a member of "data"`},
		{name: "another array than that on the skip list", make: mirror, node: `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}}`, erased: "/dev/md0 /dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)"},
		{name: "the name is of a former life", make: func(b *bench) {
			mirror(b)
			md(b.disks["/dev/sda"], mib, 0, "data")
			md(b.disks["/dev/sda"], mib, 4096, "root")
		}, node: `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}}`, erased: "/dev/md0 /dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)"},
		{name: "an array on the one on the skip list", make: func(b *bench) {
			md(b.disk("sda"), 0, 4096, "data")
			b.array("md0", "sda")
			b.array("md1", "md0")
			b.disk("sdb")
		}, node: `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}}`, erased: "/dev/sdb", says: "/dev/md1 (raid1) is on /dev/md0 (raid1), which is on the skip list"},
		{name: "array that does not run", make: func(b *bench) { b.disk("sda"); md(b.disk("sdb"), 0, 4096, "x") }, node: raid, err: steps.ErrErase, text: `/dev/sdb is a member of software RAID that does not run (raid1, "x"), and the node's record`},
		{name: "array that does not run, devices", make: func(b *bench) { b.disk("sda"); md(b.disk("sdb"), 0, 4096, "x") }, step: devices, node: raid, err: steps.ErrErase, text: "/dev/sdb is a member"},
		{name: "array that does not run, at the end of a partition", make: func(b *bench) {
			b.disk("sda")
			md(b.disk("sdb"), mib, 16*mib-16*512, "x")
			b.part("sdb", 1, mib, 16*mib)
		}, node: raid, err: steps.ErrErase, text: "/dev/sdb1 is a member"},
		{name: "array that does not run, beside one that does", make: func(b *bench) {
			mirror(b)
			b.part("sda", 2, 17*mib, 8*mib)
			md(b.disks["/dev/sda"], 17*mib, 4096, "x")
		}, node: raid, err: steps.ErrErase, text: "/dev/sda2 is a member"},
		{name: "array that is inactive", make: func(b *bench) { mirror(b); b.file("sys/block/md0/size", "0") }, node: raid, err: steps.ErrErase, text: "is a member of /dev/md0 (raid1), which cannot be erased in its place"},
		{name: "array of a level that is no disk", make: func(b *bench) { mirror(b); b.file("sys/block/md0/md/level", "linear") }, node: raid, err: steps.ErrErase, text: "/dev/md0 (linear)"},
		{name: "array on a volume", make: func(b *bench) {
			b.disk("sda")
			b.disk("dm-0")
			b.file("sys/block/dm-0/dm/uuid", "LVM-x")
			b.on("dm-0", "sda")
			b.array("md0", "dm-0")
		}, node: raid, err: steps.ErrErase, text: "/dev/md0 (raid1): also on dm-0"},
		{name: "firmware's array", make: func(b *bench) {
			b.disk("sda")
			b.array("md127", "sda")
			b.file("sys/block/md127/size", "0")
			b.file("sys/block/md127/md/level", "container")
			b.array("md126", "sda")
			b.file("sys/block/md126/md/metadata_version", "external:/md127/0")
		}, node: raid, erased: "/dev/md126"},
		{name: "what only looks like a member", make: func(b *bench) { b.disk("sda"); copy(b.disk("sdb").Bytes[4096:], "\xfc\x4e\x2b\xa9\x01") }, node: raid, erased: "/dev/sda /dev/sdb"},
		{name: "a former life's superblock below Ironic's array", make: func(b *bench) { mirror(b); md(b.disks["/dev/sda"], 0, 32*mib-16*512, "old") }, node: raid, erased: "/dev/md0"},
		{name: "array that does not run, nobody's", make: func(b *bench) { md(b.disk("sdb"), 0, 4096, "x") }, erased: "/dev/sdb"},
		{name: "a member is on the skip list", make: mirror, node: `{"properties": {"skip_block_devices": [{"name": "/dev/sdb"}]}}`, err: steps.ErrErase, text: "/dev/md0 (raid1): also on sdb1, which is not to be touched"},
		{name: "a member of Ironic's is on the skip list", make: mirror, node: strings.Replace(raid, "{", `{"properties": {"skip_block_devices": [{"name": "/dev/sdb"}]}, `, 1), err: steps.ErrErase, text: "/dev/md0 (raid1): also on sdb1, which is not to be touched"},
		{name: "all members of Ironic's are on the skip list", make: func(b *bench) { mirror(b); b.disk("sdc") }, node: strings.Replace(raid, "{", `{"properties": {"skip_block_devices": [{"name": "/dev/sda"}, {"name": "/dev/sdb"}]}, `, 1), erased: "/dev/sdc", says: "/dev/md0 (raid1) has none of its members"},

		{name: "a program has it open for ever", make: func(b *bench) {
			b.disk("sda")
			b.disk("sdb")
			b.file("proc/7/comm", "fio")
			b.fsys["proc/7/fd/3"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("/dev/sdb")}
		}, err: steps.ErrErase, text: "/dev/sdb: open in fio (7)", says: "waiting: in use"},
		{name: "mounted as root", make: func(b *bench) { b.disk("sda"); b.file("proc/self/mountinfo", "1 0 8:16 / / rw - ext4 /dev/sda rw\n") }, err: steps.ErrErase, text: "the running system's root"},
		{name: "inventory cannot be read", make: func(b *bench) { b.fsys["sys/block"] = &fstest.MapFile{} }, err: steps.ErrErase, text: "which disks there are is not known"},
		{name: "size cannot be read", make: func(b *bench) { b.disk("sda"); b.disk("vda"); b.file("sys/block/sda/size", "many") }, err: steps.ErrErase, erased: "/dev/vda", text: `"/dev/sda": what the kernel knows of it cannot be read: size`},
		{name: "sector size cannot be read, devices", make: func(b *bench) {
			b.disk("sda")
			b.disk("vda")
			b.file("sys/block/sda/queue/logical_block_size", "some")
		}, step: devices, err: steps.ErrErase, erased: "/dev/vda", text: `"/dev/sda": what the kernel knows of it cannot be read: sectors`},
		{name: "size cannot be read of a disk on the skip list", make: func(b *bench) { b.disk("sda"); b.disk("vda"); b.file("sys/block/vda/size", "many") },
			node: `{"properties": {"skip_block_devices": [{"serial": "V-vda"}]}}`, erased: "/dev/sda", says: "/dev/vda is on the skip list"},
		{name: "whether it is on the skip list cannot be told", make: func(b *bench) { b.disk("sda"); b.disk("vda"); b.file("sys/block/vda/size", "many") },
			node: `{"properties": {"skip_block_devices": [{"size": "> 100"}]}}`, err: inspect.ErrUnread, text: "/dev/vda"},
		{name: "option of the wrong type", make: func(b *bench) { b.disk("sda") }, node: `{"driver_internal_info": {"agent_erase_devices_iterations": "three"}}`, err: steps.ErrArgs, text: `agent_erase_devices_iterations is "three"`},
		{name: "option out of range", make: func(b *bench) { b.disk("sda") }, node: `{"driver_internal_info": {"disk_erasure_concurrency": 0}}`, err: steps.ErrArgs, text: "disk_erasure_concurrency"},
		{name: "one is frozen: none is touched", make: func(b *bench) { b.disk("vda"); b.ata("sda", erasetest.ATA{Security: true, Frozen: true}) }, step: devices, err: steps.ErrErase, text: "no disk was touched"},
		{name: "file system of a cluster", make: func(b *bench) { b.disk("sda"); copy(b.disk("vda").Bytes[mib:], "\x0d\xd0\x01\xc0") }, err: steps.ErrProtected, text: "/dev/vda has VMware VMFS"},
		{name: "file system of a cluster, devices", make: func(b *bench) { copy(b.disk("vda").Bytes[2*mib:], "\x5e\xf1\xab\x2f") }, step: devices, err: steps.ErrProtected},
		{name: "file system of a cluster, express", make: func(b *bench) { copy(b.disk("vda").Bytes[64<<10:], "\x01\x16\x19\x70\x00\x00\x00\x01") }, step: express, err: steps.ErrProtected},
		{name: "express: NVMe formatted, others cleared", make: func(b *bench) {
			b.nvme("nvme0n1", erasetest.NVMe{OACS: 2, SANICAP: 3, Zeros: true})
			b.ata("sda", erasetest.ATA{Security: true, Frozen: true})
		}, step: express, erased: "/dev/nvme0n1 /dev/sda", says: "erased by NVMe format (user data erase)"},
		{name: "express: NVMe that does not answer is cleared", make: func(b *bench) { b.nvme("nvme0n1", erasetest.NVMe{Refuse: map[byte]uint16{0x06: 0x06}}) }, step: express, erased: "/dev/nvme0n1", says: "identify (0x1): the drive says: internal error"},
		{name: "express: NVMe that lies is cleared", make: func(b *bench) { b.nvme("nvme0n1", erasetest.NVMe{OACS: 2, Lies: true}) }, step: express, erased: "/dev/nvme0n1", says: "clearing its metadata"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			test.make(b)
			before := map[string][]byte{}
			for name, d := range b.disks {
				before[name] = bytes.Clone(d.Bytes)
			}
			s := test.step
			if s == nil {
				s = metadata
			}
			if test.node == "" {
				test.node = "{}"
			}
			_, err := b.run(s, test.node)
			if !errors.Is(err, test.err) || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v, want %v, %q", err, test.err, test.text)
			}
			var erased []string
			for name, d := range b.disks {
				if !bytes.Equal(d.Bytes, before[name]) {
					erased = append(erased, name)
					if bytes.Count(d.Bytes[:8*mib], []byte{0}) != 8*mib || bytes.Count(d.Bytes[24*mib:], []byte{0}) != 8*mib {
						t.Errorf("the ends of %s are not zero", name)
					}
				}
			}
			slices.Sort(erased)
			if got := strings.Join(erased, " "); got != test.erased {
				t.Errorf("erased %q, want %q\n%s", got, test.erased, b.said.String())
			}
			if got := strings.Join(b.down, ", "); got != test.down {
				t.Errorf("taken down %q, want %q", got, test.down)
			}
			if !strings.Contains(b.said.String(), test.says) {
				t.Errorf("it did not say %q:\n%s", test.says, b.said.String())
			}
		})
	}
}

// Every disk that could not be done is named, with its reason, and the others are done.
func TestFailures(t *testing.T) {
	b := newBench(t)
	b.disk("sda").FailZeroAt = 31 * mib
	b.disk("sdb").Flip = 5 // in what is written, not in what the kernel zeroes: read back, it is right
	b.disk("sdc").FailSync = 1
	b.disk("sdd").FailReadAt = 4 * mib
	b.part("sde", 1, 10*mib, 4*mib)
	good := b.disk("sde")
	b.fsys["sys/block/sde/queue/logical_block_size"].Data = []byte("512")
	_, err := b.run(metadata, `{"driver_internal_info": {"wipe_special_filesystems": false, "disk_erasure_concurrency": 3}}`)
	want := `Failed to erase the metadata on the device(s): "/dev/sda": zero 8388608 bytes at 25165824: input/output error; "/dev/sdc": sync: input/output error; "/dev/sdd": read 1048576 bytes at 4194304: input/output error`
	if err == nil || err.Error() != want || !errors.Is(err, steps.ErrErase) {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
	if ops := good.Ops(); !slices.Equal(ops, []string{"zero 10485760 4194304", "sync", "zero 0 8388608", "zero 25165824 8388608", "sync"}) {
		t.Errorf("the good disk: %q", ops)
	}

	b = newBench(t)
	b.disk("sda").FailWriteAt = 20 * mib
	b.disk("sdb")
	if _, err = b.run(devices, "{}"); err == nil || !strings.Contains(err.Error(), `"/dev/sda": overwrite with 1 passes of random data and one of zeros: `) || strings.Contains(err.Error(), "sdb") {
		t.Errorf("error %v", err)
	}
	if !blank(b.disks["/dev/sdb"]) {
		t.Error("the other disk was not erased")
	}
}

// A drive that is locked by a step that was killed can be read only once it is unlocked.
func TestLocked(t *testing.T) {
	b := newBench(t)
	a := b.ata("sda", erasetest.ATA{Security: true, Locked: true, Password: []byte(zeroPassword)})
	b.reads = func(string) error {
		if slices.Contains(a.Ops(), "unlock") {
			return nil
		}
		return syscall.EIO
	}
	if _, err := b.run(devices, `{"raid_config": {"logical_disks": [{"controller": "software"}]}}`); err != nil || !blank(a.Disk) {
		t.Errorf("Devices = %v, %q\n%s", err, a.Ops(), b.said.String())
	}
}

// A disk that does not answer is said and given up; the others are erased.
func TestSilent(t *testing.T) {
	for _, name := range []string{"looked at", "a medium?"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			good, bad := b.disk("sda"), b.disk("vda")
			if name == "a medium?" {
				b.file("sys/block/vda/removable", "1")
			}
			answer := make(chan struct{})
			b.reads = func(path string) error {
				if path == "/dev/vda" {
					<-answer
				}
				return nil
			}
			synctest.Test(t, func(t *testing.T) {
				answer = make(chan struct{})
				defer close(answer)
				_, err := erase.Eraser{System: b}.Metadata(t.Context(), b.host, steps.Job{})
				if !errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), `"/dev/vda": `) || !strings.Contains(err.Error(), "the disk does not answer within 2m0s") {
					t.Errorf("Metadata = %v", err)
				}
			})
			if untouched(good) || !untouched(bad) || !strings.Contains(b.said.String(), "/dev/vda: looking") {
				t.Errorf("erased %v, %v; said %s", !untouched(good), !untouched(bad), b.said.String())
			}
			synctest.Test(t, func(t *testing.T) {
				answer = make(chan struct{})
				defer close(answer)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				stop := errors.New("stop")
				time.AfterFunc(time.Second, func() { cancel(stop) })
				if _, err := (erase.Eraser{System: b}).Metadata(ctx, b.host, steps.Job{}); !errors.Is(err, stop) {
					t.Errorf("Metadata, stopped = %v", err)
				}
			})
		})
	}
}

// A disk that stops to answer while it is erased is given up; it stays open until what was asked of it has ended, and nothing more is asked of it.
func TestHangs(t *testing.T) {
	for _, op := range []string{"open", "zero", "sync", "read", "write"} {
		for _, stopped := range []bool{false, true} {
			t.Run(fmt.Sprint(op, " ", stopped), func(t *testing.T) {
				b := newBench(t)
				good, bad := b.disk("vdb"), b.disk("vda")
				h := &hanging{Disk: bad, op: op}
				synctest.Test(t, func(t *testing.T) {
					h.answer = make(chan struct{})
					b.host.Open = func(path string) (steps.Disk, error) {
						if path == "/dev/vda" {
							h.wait("open")
							return h, nil
						}
						return b.disks[path], nil
					}
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					want, limit := errors.New("stop"), 3*time.Minute
					if stopped {
						time.AfterFunc(time.Minute, func() { cancel(want) })
					} else {
						want, limit = steps.ErrErase, 11*time.Minute
					}
					start := time.Now()
					s := metadata
					if op == "write" {
						s = devices
					}
					_, err := s(erase.Eraser{System: b})(ctx, b.host, steps.Job{})
					if took := time.Since(start); took > limit || !errors.Is(err, want) || !strings.Contains(err.Error(), "/dev/vda") {
						t.Errorf("after %v: %v", took, err)
					}
					if h.closed.Load() {
						t.Error("it was closed while it worked")
					}
					close(h.answer)
					synctest.Wait()
					if !h.closed.Load() {
						t.Error("it was not closed when it had answered")
					}
				})
				if op != "open" && !stopped && untouched(good) {
					t.Error("the other disk was not erased")
				}
			})
		}
	}
}

// hanging is a disk that does not answer to one kind of work.
type hanging struct {
	*streamtest.Disk
	op     string
	answer chan struct{}
	closed atomic.Bool
}

func (h *hanging) wait(op string) {
	if op == h.op {
		<-h.answer
	}
}
func (h *hanging) Zero(ctx context.Context, at, n int64) error {
	h.wait("zero")
	return h.Disk.Zero(ctx, at, n)
}
func (h *hanging) WriteAt(b []byte, at int64) (int, error) {
	h.wait("write")
	return h.Disk.WriteAt(b, at)
}
func (h *hanging) ReadAt(b []byte, at int64) (int, error) {
	h.wait("read")
	return h.Disk.ReadAt(b, at)
}
func (h *hanging) Sync() error  { h.wait("sync"); return h.Disk.Sync() }
func (h *hanging) Close() error { h.closed.Store(true); return nil }

// A disk that is another one when it is opened is not touched, and neither are the rest.
func TestExchanged(t *testing.T) {
	b := newBench(t)
	disk, other := b.disk("vda"), b.disk("vdb")
	var job steps.Job
	b.host.Open = func(path string) (steps.Disk, error) {
		b.file("sys/block/vda/serial", "another")
		return b.disks[path], nil
	}
	_, err := erase.Eraser{System: b}.Metadata(t.Context(), b.host, job)
	if !errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), `its serial was "V-vda", is "another"`) || !untouched(disk) || !untouched(other) {
		t.Errorf("error %v, untouched %v %v", err, untouched(disk), untouched(other))
	}
}

// What was taken down from a disk may let go of it a moment later. One that stays in use is not waited for long.
func TestBusyForAMoment(t *testing.T) {
	for name, busy := range map[string]int{"a moment": 5, "for ever": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				disk := b.disk("vda")
				tries := 0
				b.host.Open = func(path string) (steps.Disk, error) {
					if tries++; tries <= busy {
						return nil, syscall.EBUSY
					}
					return b.disks[path], nil
				}
				_, err := erase.Eraser{System: b}.Metadata(t.Context(), b.host, steps.Job{})
				if forEver := busy > 5; errors.Is(err, syscall.EBUSY) != forEver || !forEver && err != nil || untouched(disk) != forEver {
					t.Errorf("after %d tries: %v; untouched: %v", tries, err, untouched(disk))
				}
			})
		})
	}
}

// A drive that goes away while it is erased is said to, and nothing else is tried.
func TestVanishes(t *testing.T) {
	b := newBench(t)
	n := b.nvme("nvme0n1", erasetest.NVMe{OACS: 2, SANICAP: 1})
	b.drives["/dev/nvme0n1"] = vanishing{n, b}
	_, err := b.run(devices, `{"driver_internal_info": {"agent_continue_if_secure_erase_failed": true}}`)
	if !errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), "the drive vanished: /dev/nvme0n1 is gone since it was chosen") || strings.Contains(err.Error(), "overwrite") {
		t.Errorf("error %v", err)
	}
}

type vanishing struct {
	erase.Drive
	b *bench
}

func (v vanishing) NVMe(c erase.NVMeCommand) error {
	if c.Opcode == 0x84 {
		maps.DeleteFunc(v.b.fsys, func(file string, _ *fstest.MapFile) bool { return strings.HasPrefix(file, "sys/block/nvme0n1/") })
		return errors.New("no such device")
	}
	return v.Drive.NVMe(c)
}

// Disks are erased side by side, but not more at a time than the conductor wants; without a word, and by several paths to one disk, one after the other.
func TestConcurrency(t *testing.T) {
	for _, test := range []struct {
		name, node, serial, wwid string
		want                     int
	}{
		{"by default", "{}", "", "", 1},
		{"three", `{"driver_internal_info": {"disk_erasure_concurrency": 3}}`, "", "", 3},
		{"all", `{"driver_internal_info": {"disk_erasure_concurrency": 50}}`, "", "", 5},
		{"one disk", `{"driver_internal_info": {"disk_erasure_concurrency": 50}}`, "SAME", "", 1},
		{"one disk by its WWN", `{"driver_internal_info": {"disk_erasure_concurrency": 50}}`, "", "eui.0123456789abcdef", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			var mu sync.Mutex
			now, most := 0, 0
			for i := range 5 {
				name := fmt.Sprintf("nvme%dn1", i)
				n := b.nvme(name, erasetest.NVMe{SANICAP: 1})
				if test.serial != "" {
					b.file("sys/block/"+name+"/device/serial", test.serial)
				}
				if test.wwid != "" {
					b.file("sys/block/"+name+"/wwid", test.wwid)
				}
				b.drives["/dev/"+name] = counting{n, func(begins bool) {
					mu.Lock()
					defer mu.Unlock()
					if begins {
						now++
						most = max(most, now)
					} else {
						now--
					}
				}, new(bool)}
			}
			if _, err := b.run(devices, test.node); err != nil {
				t.Fatal(err)
			}
			if most != test.want {
				t.Errorf("%d at a time, want %d", most, test.want)
			}
		})
	}
}

// paths adds a disk that is reached by several ways.
func (b *bench) paths(names ...string) *streamtest.Disk {
	for i, name := range names {
		b.disk(name)
		b.disks["/dev/"+name] = b.disks["/dev/"+names[0]]
		delete(b.fsys, "sys/block/"+name+"/device/scsi_device/0:0:0:0/x")
		b.file(fmt.Sprintf("sys/block/%s/device/scsi_device/%d:0:0:0/x", name, i), "")
		b.file("sys/block/"+name+"/device/vpd_pg80", "\x00\x80\x00\x04S-da")
		b.file("sys/block/"+name+"/device/wwid", "naa.5000c500a1b2c3d4")
	}
	return b.disks["/dev/"+names[0]]
}

// A disk with two paths is erased once, and what is built on either is taken down first. That it is one disk is proven before.
func TestPaths(t *testing.T) {
	for _, test := range []struct {
		name   string
		step   step
		change func(b *bench)
		down   string
		err    string
	}{
		{"all", devices, nil, "", ""},
		{"metadata", metadata, nil, "", ""},
		{"express", express, nil, "", ""},
		{"an array by the second path", metadata, func(b *bench) {
			b.part("sdb", 1, mib, 8*mib)
			b.array("md0", "sdb/sdb1")
		}, "[stop /dev/md0 (raid1)]", ""},
		{"a file system mounted by the second path, with somebody in it", metadata, func(b *bench) {
			b.file("proc/self/mountinfo", "20 1 8:32 / /mnt rw - ext4 /dev/sdb rw")
			b.file("proc/12/comm", "fio")
			b.fsys["proc/12/cwd"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("/mnt")}
		}, "", "/dev/sdb: open in fio (12)"},
		{"two disks of one name", devices, func(b *bench) { b.disks["/dev/sdb"] = streamtest.NewDisk(32*mib, 512) }, "", `"/dev/sda": /dev/sdb says that it is this disk too: what is written to one is not read from the other`},
		{"two disks of one name, their metadata", metadata, func(b *bench) { b.disks["/dev/sdb"] = streamtest.NewDisk(32*mib, 512) }, "", "what is written to one is not read from the other"},
		{"one that is in use by the second path", metadata, func(b *bench) { b.busy = "/dev/sdb" }, "", `"/dev/sdb": device or resource busy`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			first := b.paths("sda", "sdb")
			if test.change != nil {
				test.change(b)
			}
			result, err := b.run(test.step, "{}")
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("= %v, want %q", err, test.err)
				}
				if d := b.disks["/dev/sdb"]; d != nil && d != first && !untouched(d) {
					t.Error("the other disk was touched")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(b.down); test.down != "" && got != test.down {
				t.Errorf("taken down %s, want %s", got, test.down)
			}
			if c, ok := result.(map[string]erase.Certificate); ok && (len(c) != 1 || c["/dev/sda"].Device == "") {
				t.Errorf("certificates %v", c)
			}
			if said := b.said.String(); strings.Contains("\n"+said, "\n/dev/sdb: ") || !strings.Contains(said, "also /dev/sdb") {
				t.Errorf("said\n%s", said)
			}
		})
	}
}

// Paths to a disk that do not work are left out, but for what is built on them, as long as one works.
func TestDeadPaths(t *testing.T) {
	for _, test := range []struct {
		name   string
		state  string           // of the disks that the kernel does not use
		errors map[string]error // of others, when they are read
		step   step
		said   string
		err    string
	}{
		{"the second is offline", "sdb", nil, metadata, "/dev/sdb is another path to /dev/sda, and does not work (offline): left out", ""},
		{"the second answers nothing", "", map[string]error{"/dev/sdb": syscall.EIO}, devices, "/dev/sdb is another path to /dev/sda, and does not work (input/output error): left out", ""},
		{"the second is going", "", map[string]error{"/dev/sdb": syscall.ENODEV}, metadata, "(no such device): left out", ""},
		{"the second belongs to the other controller", "", map[string]error{"/dev/sdb": syscall.Errno(121)}, metadata, "/dev/sdb is another path to /dev/sda, and does not work", ""},
		{"the first is offline", "sda", nil, express, "/dev/sda is another path to /dev/sdb, and does not work (offline): left out", ""},
		{"the first answers nothing", "", map[string]error{"/dev/sda": syscall.EIO}, devices, "/dev/sda is another path to /dev/sdb, and does not work (input/output error): left out", ""},
		{"one of three works", "sdc", map[string]error{"/dev/sda": syscall.EIO}, metadata, "/dev/sdc is another path to /dev/sdb, and does not work (offline): left out", ""},
		{"none can be read", "", map[string]error{"/dev/sda": syscall.EIO, "/dev/sdb": syscall.EIO}, metadata, "", `"/dev/sda": look for file systems of clusters on /dev/sda: input/output error`},
		{"all are offline", "sda sdb", map[string]error{"/dev/sda": syscall.ENXIO, "/dev/sdb": syscall.ENXIO}, metadata, "", `"/dev/sda": look for file systems of clusters on /dev/sda: no such device or address`},
		{"the second does not answer in time", "", map[string]error{"/dev/sdb": syscall.ETIMEDOUT}, metadata, "(connection timed out): left out", ""},
		{"a sector that cannot be read is the disk's", "", map[string]error{"/dev/sdb": syscall.ENODATA}, metadata, "", `"/dev/sda": look for file systems of clusters on /dev/sdb: no data available`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			names := []string{"sda", "sdb"}
			if strings.Contains(test.state, "sdc") {
				names = append(names, "sdc")
			}
			disk := b.paths(names...)
			for name := range strings.FieldsSeq(test.state) {
				b.file("sys/block/"+name+"/device/state", "offline\n")
			}
			b.reads = func(path string) error {
				if strings.Contains(test.state, path[5:8]) {
					return cmp.Or(test.errors[path], error(syscall.ENXIO))
				}
				return test.errors[path[:8]]
			}
			if dead, _, found := strings.Cut(test.said, " is another path"); found {
				b.busy = dead // it must not be opened
			}
			last := names[len(names)-1] // is built on, also if it is dead
			b.part(last, 1, mib, 8*mib)
			b.array("md0", last+"/"+last+"1")
			_, err := b.run(test.step, "{}")
			if test.err != "" {
				if !errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), test.err) || !untouched(disk) {
					t.Errorf("= %v, want %q; untouched %v", err, test.err, untouched(disk))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Count(disk.Bytes[:8*mib], []byte{0}) != 8*mib || fmt.Sprint(b.down) != "[stop /dev/md0 (raid1)]" {
				t.Errorf("not erased, or taken down %v", b.down)
			}
			if !strings.Contains(b.said.String(), test.said) {
				t.Errorf("it did not say %q:\n%s", test.said, b.said.String())
			}
		})
	}
}

// Of two drives that claim one name, and of which one is on the skip list, that one is left alone and the other erased; or none is, if the list does not tell them apart.
func TestSkippedPaths(t *testing.T) {
	for _, test := range []struct {
		name, list, second string
		erased, said, err  string
	}{
		{"one disk", `{"name": "/dev/sdb"}`, "", "", "/dev/sdb is the same disk as /dev/sda: left alone", ""},
		{"one disk, by what it is", `{"serial": "S-da"}`, "", "", "/dev/sda is on the skip list: left alone", ""},
		{"two disks, one by its name", `{"name": "/dev/sdb"}`, "other", "/dev/sda", "/dev/sda says that it is /dev/sdb, which is on the skip list, and holds other data", ""},
		{"two disks, one by its place", `{"hctl": "0:0:0:0"}`, "other", "/dev/sdb", "/dev/sdb says that it is /dev/sda, which is on the skip list, and holds other data", ""},
		{"two disks, both by their places", `{"hctl": "0:0:0:0"}, {"name": "/dev/sdb"}`, "other", "", "/dev/sdb is on the skip list: left alone", ""},
		{"two disks, all of the kind", `{"vendor": "ATA"}`, "other", "", "/dev/sdb is on the skip list: left alone", ""},
		{"two disks, by what they share", `{"serial": "S-da"}`, "other", "", "", "/dev/sda (hctl 0:0:0:0) and /dev/sdb (hctl 1:0:0:0) have one serial number and WWN, and hold different data, so they are two disks"},
		{"two disks, by their WWN and one by its name", `{"wwn": "0x5000c500a1b2c3d4"}, {"name": "/dev/sda"}`, "other", "", "", "no disk was touched"},
		{"two disks, one hint fits the one and one the other", `{"name": "/dev/sda", "hctl": "1:0:0:0"}`, "other", "", "", "no disk was touched"},
		{"two disks that differ in the end", `{"name": "/dev/sda"}`, "end", "/dev/sdb", "", ""},
		{"one disk that is written to meanwhile", `{"name": "/dev/sda"}`, "changes", "", "/dev/sdb is the same disk as /dev/sda: left alone", ""},
		{"one disk with a path that answers nothing", `{"name": "/dev/sda"}`, "dead", "", "whether /dev/sda and /dev/sdb are one disk, as they say, cannot be seen: input/output error", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.paths("sda", "sdb")
			b.disk("vda") // a disk without any doubt
			second := streamtest.NewDisk(32*mib, 512)
			switch test.second {
			case "other":
				second.Bytes[1080] = 1
				b.disks["/dev/sdb"] = second
			case "end":
				second.Bytes[32*mib-1] = 1
				b.disks["/dev/sdb"] = second
			case "dead":
				b.reads = func(path string) error {
					if path == "/dev/sdb" {
						return syscall.EIO
					}
					return nil
				}
			}
			before := map[string][]byte{}
			for name, d := range b.disks {
				before[name] = bytes.Clone(d.Bytes)
			}
			var s erase.System = b
			if test.second == "changes" {
				s = &changing{bench: b}
			}
			var err error
			b.run(func(erase.Eraser) func(context.Context, steps.Host, steps.Job) (any, error) {
				return func(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
					_, err = erase.Eraser{System: s}.Metadata(ctx, h, j)
					return nil, nil
				}
			}, `{"properties": {"skip_block_devices": [`+test.list+`]}}`)
			if (err != nil) != (test.err != "") || err != nil && (!errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			var erased []string
			for _, name := range []string{"/dev/sda", "/dev/sdb"} {
				if !bytes.Equal(b.disks[name].Bytes, before[name]) {
					erased = append(erased, name)
				}
			}
			if got := strings.Join(erased, " "); got != test.erased {
				t.Errorf("erased %q, want %q", got, test.erased)
			}
			if plain := b.disks["/dev/vda"]; untouched(plain) != (test.err != "") {
				t.Errorf("the disk without doubt is untouched: %v", untouched(plain))
			}
			if !strings.Contains(b.said.String(), test.said) {
				t.Errorf("it did not say %q:\n%s", test.said, b.said.String())
			}
		})
	}
}

// changing has disks that are written to whenever they are read.
type changing struct {
	*bench
	n atomic.Int64
}

func (c *changing) ReadPast(path string) (io.ReaderAt, io.Closer, error) { return c, c, nil }

func (c *changing) ReadAt(b []byte, at int64) (int, error) {
	binary.LittleEndian.PutUint64(b, uint64(c.n.Add(1)))
	return len(b), nil
}

func (c *changing) Close() error { return nil }

// What firmware writes on the members of its arrays is known, for a disk with it is not empty, and is gone once the metadata are erased. blkid is the judge of both.
func TestFirmwareRAID(t *testing.T) {
	blkid, err := exec.LookPath("blkid")
	if err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skip("needs blkid")
	}
	const size = 32 * mib
	sum16 := func(b []byte) (n uint16) {
		for i := 0; i < len(b); i += 2 {
			n += binary.LittleEndian.Uint16(b[i:])
		}
		return n
	}
	last := size - 512
	le := binary.LittleEndian
	for _, test := range []struct {
		name, maker string // blkid's word, and ours
		mark        func(d []byte)
	}{
		{"isw_raid_member", "Intel", func(d []byte) { copy(d[size-1024:], "Intel Raid ISM Cfg Sig. 1.3.00") }},
		{"nvidia_raid_member", "NVIDIA", func(d []byte) {
			b := d[size-1024:]
			copy(b, "NVIDIA  ")
			le.PutUint32(b[8:], 30)
			var sum uint32
			for i := 0; i < 120; i += 4 {
				sum += le.Uint32(b[i:])
			}
			le.PutUint32(b[12:], -sum)
		}},
		{"jmicron_raid_member", "JMicron", func(d []byte) {
			b := d[last:]
			copy(b, "JM\x01\x00")
			le.PutUint16(b[4:], 1-sum16(b[:128]))
		}},
		{"silicon_medley_raid_member", "Silicon Image", func(d []byte) {
			b := d[last:]
			le.PutUint32(b[0x60:], 0x2f000000)
			le.PutUint16(b[0x13e:], -sum16(b[:0x13e]))
		}},
		{"via_raid_member", "VIA", func(d []byte) { copy(d[last:], "\x55\xaa\x01"); d[last+50] = 0x55 + 0xaa - 0x100 + 1 }},
		{"hpt45x_raid_member", "HighPoint", func(d []byte) { le.PutUint32(d[size-11*512:], 0x5a7816f3) }},
		{"hpt45x_raid_member", "HighPoint", func(d []byte) { le.PutUint32(d[size-11*512:], 0x5a7816fd) }},
		{"hpt37x_raid_member", "HighPoint", func(d []byte) { le.PutUint32(d[9*512+32:], 0x5a7816f0) }},
		{"hpt37x_raid_member", "HighPoint", func(d []byte) { le.PutUint32(d[9*512+32:], 0x5a7816fd) }},
		{"lsi_mega_raid_member", "LSI", func(d []byte) { copy(d[last:], "$XIDE$") }},
		{"adaptec_raid_member", "Adaptec", func(d []byte) { copy(d[last:], "\x37\xfc\x4d\x1e"); copy(d[last+256:], "DPTM") }},
		{"promise_fasttrack_raid_member", "Promise", func(d []byte) { copy(d[size-63*512:], "Promise Technology, Inc.") }},
		{"promise_fasttrack_raid_member", "Promise", func(d []byte) { copy(d[size-3087*512:], "Promise Technology, Inc.") }},
		{"ddf_raid_member", "DDF", func(d []byte) {
			b := d[last:]
			copy(b, "\xde\x11\xde\x11\xff\xff\xff\xff")
			binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b))
		}},

		// Half of a mark is none, not for firmware either; blkid takes some for one.
		{"", "", func(d []byte) { copy(d[last:], "JM\x01\x00") }},
		{"", "", func(d []byte) {
			copy(d[last:], "JM")
			d[last+48] = 6
			le.PutUint16(d[last+4:], -sum16(d[last:last+128]))
		}},
		{"", "", func(d []byte) { le.PutUint32(d[last+0x60:], 0x2f000000) }},
		{"", "", func(d []byte) { copy(d[last:], "\x55\xaa\x02") }},
		{"", "", func(d []byte) { copy(d[last:], "\x55\xaa\x03"); d[last+50] = 2 }},
		{"", "", func(d []byte) { copy(d[last:], "\x37\xfc\x4d\x1e") }},
	} {
		t.Run(cmp.Or(test.name, "none"), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk")
			judge := func(d []byte) string {
				t.Helper()
				if err := os.WriteFile(file, d, 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(blkid, "-p", "-o", "value", "-s", "TYPE", file).Output()
				if e, ok := errors.AsType[*exec.ExitError](err); err != nil && !(ok && e.ExitCode() == 2) { // 2: nothing found
					t.Fatal(err)
				}
				return strings.TrimSpace(string(out))
			}
			b := newBench(t)
			d := b.disk("sda")
			clear(d.Bytes)
			test.mark(d.Bytes)
			if got := judge(d.Bytes); got != test.name && test.name != "" {
				t.Fatalf("blkid says %q, want %q", got, test.name)
			}
			want := ""
			if test.maker != "" {
				want = "a member of an array of firmware (" + test.maker + ")"
			}
			head, tail, err := raid.ReadEnds(d, size)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := raid.Contents(head, tail, size); got != want || err != nil {
				t.Errorf("Contents = %q, %v, want %q", got, err, want)
			}
			if _, err := b.run(metadata, "{}"); err != nil {
				t.Fatal(err)
			}
			if got := judge(d.Bytes); got != "" || !blank(d) {
				t.Errorf("after it was erased blkid says %q; blank: %v", got, blank(d))
			}
		})
	}
}

// counting counts the sanitizes that run.
type counting struct {
	erase.Drive
	count   func(begins bool)
	running *bool
}

func (c counting) NVMe(cmd erase.NVMeCommand) error {
	err := c.Drive.NVMe(cmd)
	switch {
	case cmd.Opcode == 0x84:
		*c.running = true
		c.count(true)
	case cmd.Opcode == 0x02 && *c.running && cmd.Data[2]&7 == 1:
		*c.running = false
		c.count(false)
	}
	return err
}

// Progress is each disk's, with the drive's own numbers.
func TestProgress(t *testing.T) {
	for _, test := range []struct {
		name  string
		drive erasetest.NVMe
		want  string
	}{
		{"sanitize", erasetest.NVMe{SANICAP: 2}, `{"method":"NVMe sanitize (block erase)","percent":33.3} {"method":"NVMe sanitize (block erase)","percent":49.9} {"method":"NVMe sanitize (block erase)","percent":99.9}`},
		{"format", erasetest.NVMe{OACS: 2, FormatTime: 19 * time.Second},
			`{"method":"NVMe format (user data erase)","percent":26} {"method":"NVMe format (user data erase)","percent":52} {"method":"NVMe format (user data erase)","percent":78}`},
		{"format that tells nothing", erasetest.NVMe{OACS: 2}, ``},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.nvme("nvme0n1", test.drive)
			if _, err := b.run(devices, "{}"); err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, v := range b.told {
				raw, err := json.Marshal(v.(erase.Shown).Disks["/dev/nvme0n1"])
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, string(raw))
			}
			if got := strings.Join(all, " "); got != test.want {
				t.Errorf("progress %s, want %s", got, test.want)
			}
		})
	}
}

// A question that is not answered with yes leaves everything as it was.
func TestConfirm(t *testing.T) {
	for name, s := range map[string]step{"metadata": metadata, "devices": devices, "express": express} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			disk := b.disk("vda")
			no := errors.New("no")
			var asked string
			b.host.Confirm = func(_ context.Context, plan string) error { asked = plan; return no }
			if _, err := b.run(s, "{}"); err != no || !untouched(disk) || !strings.Contains(asked, "/dev/vda virtio 32.0 MiB serial V-vda: ") {
				t.Errorf("error %v, untouched %v, asked %q", err, untouched(disk), asked)
			}
		})
	}
}

// Old data of any length and any place does not make the readers of strange disks fail or run on.
func FuzzGuard(f *testing.F) {
	f.Add([]byte("EFI PART"), int64(512), []byte{5}, int64(450))
	f.Add([]byte{0x55, 0xaa}, int64(510), []byte{0x0f, 0, 0, 0, 1}, int64(450))
	f.Fuzz(func(t *testing.T, a []byte, at int64, c []byte, ct int64) {
		disk := make([]byte, 256<<10)
		for _, p := range []struct {
			b  []byte
			at int64
		}{{a, at}, {c, ct}} {
			if p.at >= 0 && p.at < int64(len(disk)) {
				copy(disk[p.at:], p.b)
			}
		}
		if _, err := erase.Special(bytes.NewReader(disk), int64(len(disk))); err != nil {
			t.Error(err)
		}
	})
}

func TestPstore(t *testing.T) {
	full, empty := t.TempDir(), t.TempDir()
	for _, name := range []string{"dmesg-efi-1", "dmesg-efi-2"} {
		if err := os.WriteFile(filepath.Join(full, name), []byte("oops"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	efi := t.TempDir()
	for _, name := range []string{"dump-type0-1-1-1700000000-C-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0", "Boot0000-8be4df61-93ca-11d2-aa0d-00e098032b8c"} {
		if err := os.WriteFile(filepath.Join(efi, name), []byte("oops"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stubborn := t.TempDir()
	if err := os.MkdirAll(filepath.Join(stubborn, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, mounts, says, err string }{
		{"two", "none /proc proc rw 0 0\npstore " + full + " pstore rw 0 0\n", "2 crash dumps deleted", ""},
		{"none", "pstore " + empty + " pstore rw 0 0\n", "0 crash dumps deleted", ""},
		{"in variables of UEFI", "efivarfs " + efi + " efivarfs rw 0 0\n", "1 crash dumps deleted from " + efi, ""},
		{"does not go", "pstore " + stubborn + " pstore rw 0 0\n", "", "directory not empty"},
		{"gone away", "pstore " + empty + "/none pstore rw 0 0\n", "", "no such file"},
		{"not there", "none /proc proc rw 0 0\n", "this kernel has no pstore", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.file("proc/mounts", test.mounts)
			_, err := erase.Eraser{System: b}.Pstore(t.Context(), b.host, steps.Job{})
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) || !strings.Contains(b.said.String(), test.says) {
				t.Errorf("Pstore = %v, said %q; want %q, %q", err, b.said.String(), test.err, test.says)
			}
		})
	}
	if left, err := os.ReadDir(efi); err != nil || len(left) != 1 {
		t.Errorf("left of the variables: %v, %v", left, err)
	}
	if left, err := os.ReadDir(full); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	b := newBench(t) // there, but not mounted: it must not be taken for empty
	b.file("proc/mounts", "")
	b.fsys["sys/fs/pstore"] = &fstest.MapFile{Mode: fs.ModeDir}
	if _, err := (erase.Eraser{System: b}).Pstore(t.Context(), b.host, steps.Job{}); err == nil || !slices.Equal(b.down, []string{"mount /sys/fs/pstore"}) {
		t.Errorf("not mounted: %v, %v", err, b.down)
	}
}

func TestNVRAM(t *testing.T) {
	for _, test := range []struct {
		name, args, said string
		err              error
	}{
		{"default", "", "deleted HD(1,GPT,x)/File(\\EFI\\debian\\shimx64.efi)\ndeleted PciRoot(0x0)/File(\\EFI\\GRUBX64.EFI)\n2 boot entries deleted\n", nil},
		{"null", `{"match_patterns": null}`, "2 boot entries deleted\n", nil},
		{"others", `{"match_patterns": ["nvme"]}`, "deleted PciRoot(0x0)/NVMe(0x1,00)\n1 boot entries deleted\n", nil},
		{"none", `{"match_patterns": []}`, "0 boot entries deleted\n", nil},
		{"no expression", `{"match_patterns": ["("]}`, "", steps.ErrArgs},
		{"no list", `{"match_patterns": "HD"}`, "", steps.ErrArgs},
		{"no list of texts", `{"match_patterns": [1]}`, "", steps.ErrArgs},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.fsys["sys/firmware/efi/efivars"] = &fstest.MapFile{Mode: fs.ModeDir}
			_, err := erase.Eraser{System: b}.NVRAM(t.Context(), b.host, steps.Job{Args: json.RawMessage(test.args)})
			if !errors.Is(err, test.err) || !strings.HasSuffix(b.said.String(), test.said) {
				t.Errorf("NVRAM = %v, said %q; want %v, %q", err, b.said.String(), test.err, test.said)
			}
		})
	}
	_, err := erase.Eraser{}.NVRAM(t.Context(), steps.Host{}, steps.Job{Args: json.RawMessage(`{"match_patterns": ["(?!HD)x"]}`)})
	if err == nil || !strings.Contains(err.Error(), "no lookaround") {
		t.Errorf("an expression of Python's: %v", err)
	}
	b := newBench(t)
	b.odd = []string{"Boot0007: empty"}
	b.fsys["sys/firmware/efi/efivars"] = &fstest.MapFile{Mode: fs.ModeDir}
	if _, err := (erase.Eraser{System: b}).NVRAM(t.Context(), b.host, steps.Job{}); err != nil || !strings.Contains(b.said.String(), "nothing of it: Boot0007: empty") {
		t.Errorf("with one of no form: %v, %s", err, b.said.String())
	}
	b = newBench(t)
	if _, err := (erase.Eraser{System: b}).NVRAM(t.Context(), b.host, steps.Job{}); err != nil || !strings.Contains(b.said.String(), "not started by UEFI") {
		t.Errorf("under BIOS: %v, %s", err, b.said.String())
	}
}

// The real hardware is not touched for a machine that is a recording.
func TestNotLocal(t *testing.T) {
	e := erase.Local()
	for name, run := range map[string]func(context.Context, steps.Host, steps.Job) (any, error){"devices": e.Devices, "metadata": e.Metadata, "express": e.Express, "pstore": e.Pstore, "nvram": e.NVRAM} {
		b := newBench(t)
		disk := b.disk("sdnone")
		b.file("proc/mounts", "")
		b.fsys["sys/firmware/efi/efivars"] = &fstest.MapFile{Mode: fs.ModeDir}
		if _, err := run(t.Context(), b.host, steps.Job{}); !errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), "not the machine") || !untouched(disk) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A disk that says that it zeroed, and did not, is found out.
func TestReadBack(t *testing.T) {
	b := newBench(t)
	b.disk("vda")
	b.host.Open = func(path string) (steps.Disk, error) { return lazy{b.disks[path]}, nil }
	_, err := erase.Eraser{System: b}.Metadata(t.Context(), b.host, steps.Job{})
	if want := `"/dev/vda": read back: byte 25165824 is 0xa5 and not zero: the disk does not do what it says`; !errors.Is(err, steps.ErrErase) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

// lazy does not zero the end of the disk.
type lazy struct{ *streamtest.Disk }

func (l lazy) Zero(ctx context.Context, at, n int64) error {
	if at > 0 {
		return nil
	}
	return l.Disk.Zero(ctx, at, n)
}

// Some SAS drives cannot be read after a sanitize until they were written to. They are erased, and can be again.
func TestUnreadable(t *testing.T) {
	for _, test := range []struct {
		name   string
		broken bool // writing does not help
		err    string
	}{
		{"until written to", false, ""},
		{"and cannot be written to", true, "SCSI sanitize (cryptographic erase): read back: read 4096 bytes at 0: input/output error; then zero 4096 bytes at 0: input/output error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			w := &unwritten{Disk: b.disk("sda"), lost: map[int64]bool{}, broken: test.broken}
			b.file("sys/block/sda/device/vendor", "SEAGATE")
			b.drives["/dev/sda"] = sanitizing{&erasetest.SCSI{Disk: w.Disk, Crypto: true}, w}
			b.host.Open = func(string) (steps.Disk, error) { return w, nil }
			for i, s := range []step{devices, devices, metadata} {
				var result any
				var err error
				synctest.Test(t, func(t *testing.T) {
					result, err = s(erase.Eraser{System: unwrittenBench{b, w}})(t.Context(), b.host, steps.Job{})
				})
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), test.err) {
						t.Errorf("error %v, want %q", err, test.err)
					}
					return
				}
				if err != nil {
					t.Fatalf("run %d: %v", i, err)
				}
				if i == 2 {
					continue
				}
				if p := result.(map[string]erase.Certificate)["/dev/sda"].Proof; p.Unreadable != p.Samples || p.Zero != 0 || p.Samples < 60 {
					t.Errorf("proof %+v", p)
				}
			}
			if !strings.Contains(b.said.String(), "could not be read until they were written to") {
				t.Errorf("said %s", b.said.String())
			}
		})
	}
}

// unwritten is a disk of which sectors may not be readable.
type unwritten struct {
	*streamtest.Disk
	lost   map[int64]bool // sectors
	broken bool
}

func (w *unwritten) ReadAt(b []byte, at int64) (int, error) {
	for i := at / 512; i < (at+int64(len(b)))/512; i++ {
		if w.lost[i] {
			return 0, syscall.EIO
		}
	}
	return w.Disk.ReadAt(b, at)
}

func (w *unwritten) written(at, n int64) error {
	for i := at / 512; i < (at+n)/512; i++ {
		if w.lost[i] && w.broken {
			return syscall.EIO
		}
		delete(w.lost, i)
	}
	return nil
}

func (w *unwritten) WriteAt(b []byte, at int64) (int, error) {
	if err := w.written(at, int64(len(b))); err != nil {
		return 0, err
	}
	return w.Disk.WriteAt(b, at)
}

func (w *unwritten) Zero(ctx context.Context, at, n int64) error {
	if err := w.written(at, n); err != nil {
		return err
	}
	return w.Disk.Zero(ctx, at, n)
}

// sanitizing loses all sectors of its disk with each sanitize.
type sanitizing struct {
	erase.Drive
	w *unwritten
}

func (s sanitizing) SCSI(c erase.SCSICommand) (erase.SCSIAnswer, error) {
	if c.CDB[0] == 0x48 {
		for i := range s.w.Size() / 512 {
			s.w.lost[i] = true
		}
	}
	return s.Drive.SCSI(c)
}

type unwrittenBench struct {
	*bench
	w *unwritten
}

func (b unwrittenBench) Read(string) (io.ReaderAt, io.Closer, error) {
	return b.w, io.NopCloser(nil), nil
}

// A drive with several namespaces erases them together only if all are to be erased, and one after the other.
func TestNamespaces(t *testing.T) {
	const skip, sideBySide = `{"properties": {"skip_block_devices": [{"name": "/dev/nvme0n2"}]}}`, `{"driver_internal_info": {"disk_erasure_concurrency": 2}}`
	tests := []struct {
		name, node string
		step       step
		drive      erasetest.NVMe
		nqn        [2]string
		methods    string
		first      []string // what the first was told
		err        string
	}{
		{name: "sanitize", step: devices, node: sideBySide, drive: erasetest.NVMe{SANICAP: 1}, nqn: [2]string{"nqn.a", "nqn.a"}, methods: "NVMe sanitize (crypto erase), NVMe sanitize (crypto erase)", first: []string{"sanitize cdw10 0xc"}},
		{name: "format", step: devices, node: sideBySide, drive: erasetest.NVMe{OACS: 2, FNA: 7}, nqn: [2]string{"nqn.a", "nqn.a"}, methods: "NVMe format (cryptographic erase), NVMe format (cryptographic erase)", first: []string{"format nsid 1 cdw10 0x400"}},
		{name: "express", step: express, node: sideBySide, drive: erasetest.NVMe{OACS: 2, FNA: 7}, nqn: [2]string{"nqn.a", "nqn.a"}, first: []string{"format nsid 1 cdw10 0x400"}},
		{name: "two drives with two namespaces each", step: devices, drive: erasetest.NVMe{OACS: 2, FNA: 7, SANICAP: 3}, nqn: [2]string{"nqn.a", "nqn.b"}, err: `"/dev/nvme0n1": the NVMe drive cannot be erased by itself`},
		{name: "no name", step: devices, drive: erasetest.NVMe{OACS: 2, FNA: 7, SANICAP: 3}, err: "cannot be erased by itself"},
		{name: "one is on the skip list", step: devices, node: skip, drive: erasetest.NVMe{OACS: 2, FNA: 7, SANICAP: 3}, nqn: [2]string{"nqn.a", "nqn.a"}, err: "cannot be erased by itself"},
		{name: "one more is not attached", step: devices, drive: erasetest.NVMe{OACS: 2 | 8, FNA: 7, SANICAP: 3, Elsewhere: []uint32{3}}, nqn: [2]string{"nqn.a", "nqn.a"}, err: "cannot be erased by itself"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			test.drive.Namespaces = []uint32{1, 2}
			one, two := b.nvme("nvme0n1", test.drive), b.nvme("nvme0n2", test.drive)
			one.Others, two.Others = []*streamtest.Disk{two.Disk}, []*streamtest.Disk{one.Disk}
			b.file("sys/block/nvme0n2/nsid", "2")
			for i, name := range []string{"nvme0n1", "nvme0n2"} {
				if test.nqn[i] != "" {
					b.file("sys/block/"+name+"/device/subsysnqn", test.nqn[i]+"\n")
				}
			}
			var mu sync.Mutex
			now, most := 0, 0
			for name, n := range map[string]*erasetest.NVMe{"/dev/nvme0n1": one, "/dev/nvme0n2": two} {
				b.drives[name] = counting{n, func(begins bool) {
					mu.Lock()
					defer mu.Unlock()
					if now--; begins {
						now += 2
					}
					most = max(most, now)
				}, new(bool)}
			}
			result, err := b.run(test.step, cmp.Or(test.node, "{}"))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !untouched(one.Disk) || !untouched(two.Disk) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c, _ := result.(map[string]erase.Certificate); c != nil {
				if got := c["/dev/nvme0n1"].Method + ", " + c["/dev/nvme0n2"].Method; got != test.methods {
					t.Errorf("methods %s, want %s", got, test.methods)
				}
			}
			if !slices.Equal(one.Ops(), test.first) || len(two.Ops()) != 1 || most > 1 {
				t.Errorf("told %q, %q; %d at a time", one.Ops(), two.Ops(), most)
			}
			for _, d := range []*streamtest.Disk{one.Disk, two.Disk} {
				if !bytes.Equal(d.Bytes[:8*mib], make([]byte, 8*mib)) || !bytes.Equal(d.Bytes[24*mib:], make([]byte, 8*mib)) {
					t.Error("the ends are not zero")
				}
			}
		})
	}
}

// A drive behind an adapter for USB is sent no commands: it is overwritten.
func TestUSB(t *testing.T) {
	b := newBench(t)
	a := b.ata("sda", erasetest.ATA{Security: true, BlockErase: true})
	b.drives["/dev/sda"] = untold{t}
	const device = "sys/devices/usb1/1-1/0:0:0:0"
	for name, f := range maps.Clone(b.fsys) {
		if file, is := strings.CutPrefix(name, "sys/block/sda/device/"); is {
			delete(b.fsys, name)
			b.fsys[device+"/"+file] = f
		}
	}
	b.fsys["sys/block/sda/device"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../../devices/usb1/1-1/0:0:0:0")}
	result, err := b.run(devices, "{}")
	if err != nil {
		t.Fatal(err)
	}
	c := result.(map[string]erase.Certificate)["/dev/sda"]
	if c.Method != "overwrite with 1 passes of random data and one of zeros" || len(c.Lacking) != 1 || !strings.Contains(c.Lacking[0], "USB") || !blank(a.Disk) {
		t.Errorf("certificate %+v", c)
	}
}

// untold is a drive that must be told nothing.
type untold struct{ t *testing.T }

func (u untold) NVMe(c erase.NVMeCommand) error {
	u.t.Errorf("told %+v", c)
	return syscall.ENOTTY
}

func (u untold) SCSI(c erase.SCSICommand) (erase.SCSIAnswer, error) {
	u.t.Errorf("told %+v", c)
	return erase.SCSIAnswer{}, syscall.ENOTTY
}

func (untold) Close() error { return nil }
