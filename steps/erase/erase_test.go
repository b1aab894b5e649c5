// SPDX-License-Identifier: Apache-2.0

package erase_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/steps/erase/erasetest"
	"github.com/ironhand/ironhand/steps/holders"
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
	b.drives[path] = erasetest.Plain{Disk: d}
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

// bench is an [erase.System].

func (b *bench) Read(path string) (io.ReaderAt, io.Closer, error) {
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

func (b *bench) Drive(path string) (erase.Drive, error) { return b.drives[path], nil }

func (b *bench) Teardown(ctx context.Context, t holders.Tree) error {
	return t.TeardownBy(ctx, func(c holders.Change) error {
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

func (b *bench) CleanBootEntries(dir string, remove func(string) bool) (deleted []string, err error) {
	for _, path := range []string{`HD(1,GPT,x)/File(\EFI\debian\shimx64.efi)`, `PciRoot(0x0)/File(\EFI\GRUBX64.EFI)`, `PciRoot(0x0)/NVMe(0x1,00)`, `PciRoot(0x0)/HD(2)`} {
		if remove(path) {
			deleted = append(deleted, path)
		}
	}
	return deleted, nil
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
	b.host.Open = func(path string) (steps.Disk, error) { return forgetting{b.disks[path], b, path[5:]}, nil }
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
		{name: "NVMe: other namespaces are not touched", drive: erasetest.NVMe{OACS: 2, FNA: 4, SANICAP: 3, Namespaces: []uint32{1, 2}}, method: "NVMe format (cryptographic erase)", ops: []string{"format nsid 1 cdw10 0x400"}},
		{name: "NVMe: a format would touch them", drive: erasetest.NVMe{OACS: 2, FNA: 6, Namespaces: []uint32{1, 2}}, err: "cannot be erased by itself", same: true},
		{name: "NVMe 1.0: one namespace", drive: erasetest.NVMe{OACS: 2, FNA: 3, NoList: true, Zeros: true}, method: "NVMe format (user data erase)", ops: []string{"format nsid 1 cdw10 0x200"}, blank: true},
		{name: "NVMe 1.0: two namespaces", drive: erasetest.NVMe{OACS: 2, FNA: 3, NoList: true, Namespaces: []uint32{1, 2}}, err: "cannot be erased by itself", same: true},
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
		{name: "ATA: sanitize fails", drive: erasetest.ATA{BlockErase: true, FailsLate: true, Security: true}, method: "ATA security erase", ops: []string{"sanitize 0x12", "set password", "erase, enhanced false"}, blank: true},
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
		{name: "SCSI: failed before", drive: erasetest.SCSI{Block: true, Failed: true}, method: "SCSI sanitize (block erase)", ops: []string{"exit failure mode", "sanitize 0xa2"}, blank: true},
		{name: "SCSI: fails", drive: erasetest.SCSI{Block: true, FailsLate: true}, err: "SCSI sanitize (block erase): the drive says that it failed: sense 3/31/03", ops: []string{"sanitize 0xa2", "exit failure mode"}},
		{name: "SCSI: fails, and may be overwritten", drive: erasetest.SCSI{Block: true, FailsLate: true}, node: goOn, method: "overwrite with 1 passes of random data and one of zeros", ops: []string{"sanitize 0xa2", "exit failure mode"}, blank: true},
		{name: "SCSI: lies", drive: erasetest.SCSI{Crypto: true, Lies: true}, err: "the data at 0 is still there", ops: []string{"sanitize 0xa3"}},

		{name: "plain: passes", drive: erasetest.Plain{}, node: `{"driver_internal_info": {"agent_erase_devices_iterations": 3, "agent_erase_devices_zeroize": false}}`, method: "overwrite with 3 passes of random data"},
		{name: "plain: zeros only, discard shows them", drive: erasetest.Plain{Discards: true}, node: `{"driver_internal_info": {"agent_erase_devices_iterations": 0}}`, method: "discard", blank: true},
		{name: "plain: zeros only, discard shows others", drive: erasetest.Plain{Discards: true, DiscardsTo: 0xff}, node: `{"driver_internal_info": {"agent_erase_devices_iterations": 0}}`, method: "overwrite with zeros", blank: true},
		{name: "plain: zeros only, no discard", drive: erasetest.Plain{}, node: `{"driver_internal_info": {"agent_erase_devices_iterations": 0}}`, method: "overwrite with zeros", blank: true},
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
				d.Disk = b.disk("vda")
				disk = d.Disk
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
	md := func(d *streamtest.Disk, at int64) { copy(d.Bytes[at:], "\xfc\x4e\x2b\xa9") }
	mirror := func(b *bench) {
		for _, d := range []string{"sda", "sdb"} {
			b.disk(d)
			b.part(d, 1, mib, 16*mib)
		}
		b.disk("md0")
		b.on("md0", "sda/sda1", "sdb/sdb1")
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
		{name: "medium, in a partition", make: func(b *bench) {
			b.disk("sda")
			iso(&streamtest.Disk{Bytes: b.disk("vda").Bytes[mib:]}, "ir-vfd-dev")
			b.part("vda", 1, mib, 16*mib)
			b.file("sys/block/vda/removable", "1")
		}, erased: "/dev/sda", says: "/dev/vda is a medium"},
		{name: "its label on an internal disk", make: func(b *bench) { iso(b.disk("vda"), "ir-vfd-dev") }, erased: "/dev/vda"},
		{name: "another stick", make: func(b *bench) { iso(b.disk("vda"), "HOLIDAYS"); b.file("sys/block/vda/removable", "1") }, erased: "/dev/vda"},
		{name: "a stick that cannot be read", make: func(b *bench) { b.disk("vda").FailReadAt = 2048; b.file("sys/block/vda/removable", "1") }, err: steps.ErrErase, text: "/dev/vda may be the medium"},

		{name: "somebody's array", make: mirror, erased: "/dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)"},
		{name: "Ironic's array", make: mirror, node: raid, erased: "/dev/md0", says: "/dev/sda is a member of software RAID, which stays"},
		{name: "Ironic's array to be", make: mirror, node: strings.Replace(raid, "raid_config", "target_raid_config", 1), erased: "/dev/md0"},
		{name: "Ironic's array, devices", make: mirror, step: devices, node: raid, erased: "/dev/md0"},
		{name: "hardware RAID in the record", make: mirror, node: `{"raid_config": {"logical_disks": [{"controller": "PERC"}]}}`, erased: "/dev/sda /dev/sdb", down: "stop /dev/md0 (raid1)"},
		{name: "array on the skip list", make: mirror, node: `{"properties": {"skip_block_devices": [{"volume_name": "data"}]}}`, says: "/dev/md0 is on the skip list"},
		{name: "array that does not run", make: func(b *bench) { b.disk("sda"); md(b.disk("sdb"), 4096) }, node: raid, erased: "/dev/sda", says: "/dev/sdb is a member"},
		{name: "array that does not run, version 0.90, in a partition", make: func(b *bench) {
			b.disk("sda")
			md(b.disk("sdb"), mib+16*mib-64<<10)
			b.part("sdb", 1, mib, 16*mib)
		}, node: raid, erased: "/dev/sda", says: "/dev/sdb is a member"},
		{name: "array that does not run, nobody's", make: func(b *bench) { md(b.disk("sdb"), 4096) }, erased: "/dev/sdb"},
		{name: "a member is on the skip list", make: mirror, node: `{"properties": {"skip_block_devices": [{"name": "/dev/sdb"}]}}`, err: steps.ErrErase, text: "/dev/md0 (raid1): also on sdb1, which is not to be touched"},
		{name: "a member of Ironic's is on the skip list", make: mirror, node: strings.Replace(raid, "{", `{"properties": {"skip_block_devices": [{"name": "/dev/sdb"}]}, `, 1), says: "/dev/md0 (raid1) has a member on sdb1, which is left alone"},

		{name: "a program has it open for ever", make: func(b *bench) {
			b.disk("sda")
			b.disk("sdb")
			b.file("proc/7/comm", "fio")
			b.fsys["proc/7/fd/3"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("/dev/sdb")}
		}, err: steps.ErrErase, text: "/dev/sdb: open in fio (7)", says: "waiting: in use"},
		{name: "mounted as root", make: func(b *bench) { b.disk("sda"); b.file("proc/self/mountinfo", "1 0 8:16 / / rw - ext4 /dev/sda rw\n") }, err: steps.ErrErase, text: "the running system's root"},
		{name: "inventory cannot be read", make: func(b *bench) { b.disk("sda"); b.file("sys/block/sda/size", "many") }, err: steps.ErrErase, text: "which disks there are is not known"},
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
	b := newBench(t)
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
