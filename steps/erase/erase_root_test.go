// SPDX-License-Identifier: Apache-2.0

//go:build linux

package erase_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/steps/holders"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
)

func shell(t *testing.T, script string, args ...string) string {
	t.Helper()
	out, err := exec.Command("bash", append([]string{"-euc", script, "bash"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// loopAsDisk shows the kernel's files as if a loop device, which is no disk for the inventory, were the disk vdtest, and the only one.
type loopAsDisk struct{ loop string }

func (l loopAsDisk) rename(name string) string { // of an entry or in a path
	return strings.ReplaceAll(name, "vdtest", l.loop)
}

func (l loopAsDisk) Open(name string) (fs.File, error) {
	return os.DirFS("/").Open(l.rename(name))
}

func (l loopAsDisk) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(os.DirFS("/"), l.rename(name))
	var out []fs.DirEntry
	for _, e := range entries {
		isOurs := e.Name() == l.loop || strings.HasPrefix(e.Name(), l.loop+"p")
		if name == "sys/block" && !isOurs {
			continue
		}
		if isOurs {
			e = renamed{e, strings.Replace(e.Name(), l.loop, "vdtest", 1)}
		}
		out = append(out, e)
	}
	return out, err
}

func (l loopAsDisk) ReadFile(name string) ([]byte, error) {
	b, err := fs.ReadFile(os.DirFS("/"), l.rename(name))
	if strings.HasPrefix(name, "proc/") {
		b = []byte(strings.ReplaceAll(string(b), "/dev/"+l.loop, "/dev/vdtest"))
	}
	return b, err
}

func (l loopAsDisk) ReadLink(name string) (string, error) {
	if name == "sys/block/vdtest" {
		return "", fs.ErrInvalid // as in a recording
	}
	target, err := os.Readlink("/" + l.rename(name))
	return strings.ReplaceAll(target, "/dev/"+l.loop, "/dev/vdtest"), err
}

func (l loopAsDisk) Lstat(name string) (fs.FileInfo, error) { return os.Lstat("/" + l.rename(name)) }

type renamed struct {
	fs.DirEntry
	name string
}

func (r renamed) Name() string { return r.name }

// rootSystem is the real system for that disk.
type rootSystem struct {
	erase.System
	loop string
}

func (s rootSystem) path(p string) string {
	return strings.Replace(p, "/dev/vdtest", "/dev/"+s.loop, 1)
}

func (s rootSystem) Read(p string) (io.ReaderAt, io.Closer, error) { return s.System.Read(s.path(p)) }
func (s rootSystem) Drive(p string) (erase.Drive, error)           { return s.System.Drive(s.path(p)) }
func (s rootSystem) Teardown(ctx context.Context, t holders.Tree) error {
	tree, err := holders.Of(ctx, os.DirFS("/"), "/dev/"+s.loop)
	if err != nil {
		return err
	}
	return tree.Teardown(ctx)
}

// onLoop returns an eraser and a host for which a loop device is the only disk.
func onLoop(t *testing.T, device string) (erase.Eraser, steps.Host, *strings.Builder) {
	t.Helper()
	loop := filepath.Base(device)
	said := &strings.Builder{}
	system := rootSystem{erase.Local().System, loop}
	return erase.Eraser{System: system}, steps.Host{
		Machine:  inspect.Machine{FS: loopAsDisk{loop}},
		Open:     func(path string) (steps.Disk, error) { return stream.OpenDevice(system.path(path)) },
		Log:      slog.New(slog.DiscardHandler),
		Progress: func(any) {},
		Say:      func(format string, args ...any) { fmt.Fprintf(said, format+"\n", args...) },
	}, said
}

// mdSuperblock makes a superblock of version 1.x for a place on a device: include/uapi/linux/raid/md_p.h, struct mdp_superblock_1.
func mdSuperblock(at int64) []byte {
	b := make([]byte, 4096)
	le := binary.LittleEndian
	le.PutUint32(b[0:], 0xa92b4efc)
	le.PutUint32(b[4:], 1)
	copy(b[16:], "0123456789abcdef")
	copy(b[32:], "host:name")
	le.PutUint32(b[72:], 1)     // RAID 1
	le.PutUint64(b[80:], 1<<15) // size
	le.PutUint32(b[92:], 2)
	le.PutUint64(b[128:], 4096) // data
	le.PutUint64(b[136:], 1<<15)
	le.PutUint64(b[144:], uint64(at)/512)
	le.PutUint32(b[220:], 2) // roles
	var sum uint64
	for i := 0; i < 256+2*2; i += 4 {
		sum += uint64(le.Uint32(b[i:]))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
	return b
}

// lvmLabel makes the label of a physical volume: lib/label/label.h of LVM2.
func lvmLabel() []byte {
	b := make([]byte, 512)
	copy(b, "LABELONE")
	binary.LittleEndian.PutUint64(b[8:], 1)
	binary.LittleEndian.PutUint32(b[20:], 32)
	copy(b[24:], "LVM2 001")
	copy(b[32:], "abcdefghijklmnopqrstuvwxyz012345")
	binary.LittleEndian.PutUint32(b[16:], ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b[20:]))
	return b
}

func write(t *testing.T, path string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever other programs find on a disk and its partitions is gone, and does not come back with the same partitions; the disk is mounted and swapped to when it begins.
func TestRootMetadata(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			device, file := looptest.New(t, 700<<20, sector)
			point := t.TempDir()
			t.Cleanup(func() {
				exec.Command("umount", "-R", point).Run()
				exec.Command("swapoff", device+"p2").Run()
				exec.Command("partx", "--delete", device).Run()
			})
			const table = `printf 'label: gpt\nfirst-lba: 256\nstart=1MiB, size=120MiB\nsize=20MiB\nsize=310MiB\nsize=64MiB\nsize=64MiB\nsize=4MiB\nsize=20MiB\n' | sfdisk --quiet --no-tell-kernel --no-reread "$1"; partx --update "$1"; udevadm settle 2>/dev/null || true`
			shell(t, table+`
				mkfs.btrfs -q -f "$1"p1; mkswap "$1"p2 >/dev/null; mkfs.xfs -q -f "$1"p3; mkfs.ext4 -q "$1"p4
				mount "$1"p1 "$2"; truncate -s 16M "$2/f"; mkfs.ext4 -q "$2/f"; mkdir "$2/on"; mount -o loop "$2/f" "$2/on"; swapon "$1"p2`, device, point)
			last := int64(64<<20/512-16) &^ 7 * 512
			write(t, device+"p5", mdSuperblock(last), last) // 1.0
			write(t, device+"p6", lvmLabel(), 512)
			write(t, device+"p7", mdSuperblock(4096), 4096) // 1.2
			before := shell(t, `wipefs -n "$1"; for p in "$1"p*; do wipefs -n "$p"; done; mdadm --examine "$1"p5`, device)
			for _, want := range []string{"gpt", "btrfs", "swap", "xfs", "ext4", "linux_raid_member", "LVM2_member", "Version : 1.0"} {
				if !strings.Contains(before, want) {
					t.Fatalf("no %s on it in the beginning:\n%s", want, before)
				}
			}

			e, h, said := onLoop(t, device)
			var asked string
			h.Confirm = func(_ context.Context, plan string) error { asked = plan; return errors.New("no") }
			if _, err := e.Metadata(t.Context(), h, steps.Job{}); err == nil || err.Error() != "no" {
				t.Fatalf("Metadata without a yes: %v", err)
			}
			if after := shell(t, `findmnt -n "$2/on" >/dev/null; wipefs -n "$1"; for p in "$1"p*; do wipefs -n "$p"; done; mdadm --examine "$1"p5`, device, point); after != before {
				t.Errorf("without a yes something was done:\n%s", after)
			}
			for _, want := range []string{"/dev/vdtest virtio 700.0 MiB", "mounted at " + point, "unmount " + point + "/on\n", "stop swapping to /dev/vdtestp2"} {
				if !strings.Contains(asked, want) {
					t.Errorf("the question has no %q:\n%s", want, asked)
				}
			}
			h.Confirm = nil
			result, err := e.Metadata(t.Context(), h, steps.Job{})
			if err != nil || result != nil {
				t.Fatalf("Metadata = %v, %v\n%s", result, err, said)
			}
			if out, err := exec.Command("blkid", "-p", device).CombinedOutput(); err == nil || len(out) > 0 {
				t.Errorf("blkid: %s", out)
			}
			if out := shell(t, `wipefs -n "$1"; ls "$1"p* 2>/dev/null || true`, device); out != "" {
				t.Errorf("left: %s", out)
			}
			if out := shell(t, `sgdisk -p "$1" 2>&1; for s in 512 4096; do dd if="$2" bs=$s skip=1 count=1 status=none | head -c 8; tail -c $s "$2" | head -c 8; done | tr -d '\0'`, device, file); strings.Contains(out, "EFI PART") || !strings.Contains(out, "Creating new GPT entries") {
				t.Errorf("sgdisk: %s", out)
			}
			// The same partitions again: what was in them does not come back.
			shell(t, table, device)
			if out := shell(t, `for p in "$1"p*; do wipefs -n "$p"; mdadm --examine "$p" 2>&1 | grep -v "No md superblock" || true; done`, device); out != "" {
				t.Errorf("came back: %s", out)
			}
		})
	}
}

// A partition table whose sectors had another size, and md superblocks and LVM on the disk itself.
func TestRootMetadataWholeDisk(t *testing.T) {
	for _, test := range []struct {
		name string
		put  func(t *testing.T, device string)
	}{
		{"GPT for sectors of 4096", func(t *testing.T, device string) {
			b := make([]byte, 512)
			copy(b, "EFI PART")
			write(t, device, b, 4096)
			write(t, device, b, 64<<20-4096)
		}},
		{"md 1.0", func(t *testing.T, device string) {
			at := int64(64<<20/512-16) &^ 7 * 512
			write(t, device, mdSuperblock(at), at)
		}},
		{"md 1.1", func(t *testing.T, device string) { write(t, device, mdSuperblock(0), 0) }},
		{"md 1.2", func(t *testing.T, device string) { write(t, device, mdSuperblock(4096), 4096) }},
		{"LVM", func(t *testing.T, device string) { write(t, device, lvmLabel(), 512) }},
		{"ext4 and the rest of a GPT", func(t *testing.T, device string) {
			shell(t, `printf 'label: gpt\nsize=8M\n' | sfdisk --quiet --no-tell-kernel --no-reread "$1"; mkfs.ext4 -q -F "$1"`, device)
		}},
		{"MBR with logical partitions", func(t *testing.T, device string) {
			shell(t, `printf 'label: dos\n1 : size=8M\n2 : size=40M, type=5\n5 : size=8M\n6 : size=8M\n' | sfdisk --quiet "$1"; partx --update "$1"`, device)
		}},
		{"nothing", func(t *testing.T, device string) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			device, file := looptest.New(t, 64<<20, 512)
			test.put(t, device)
			e, h, said := onLoop(t, device)
			if _, err := e.Metadata(t.Context(), h, steps.Job{}); err != nil {
				t.Fatalf("Metadata = %v\n%s", err, said)
			}
			if out := shell(t, `wipefs -n "$1"; ls "$1"p* 2>/dev/null || true; grep -c "EFI PART\|LABELONE" "$2" || true`, device, file); out != "0\n" {
				t.Errorf("left: %s", out)
			}
			if out, err := exec.Command("mdadm", "--examine", device).CombinedOutput(); err == nil {
				t.Errorf("mdadm: %s", out)
			}
		})
	}
}

// What is in partitions that the kernel does not know does not come back with the same partitions.
func TestRootMetadataUnknownPartitions(t *testing.T) {
	for _, test := range []struct{ name, table string }{
		{"GPT", `label: gpt\nstart=10MiB, size=20MiB\nstart=32MiB, size=20MiB\n`},
		{"logical", `label: dos\nstart=9MiB, size=50MiB, type=5\nstart=10MiB, size=20MiB\nstart=32MiB, size=20MiB\n`},
	} {
		t.Run(test.name, func(t *testing.T) {
			device, file := looptest.New(t, 64<<20, 512)
			t.Cleanup(func() { exec.Command("partx", "--delete", device).Run() })
			const found = `for at in 10 32; do dd if="$1" of="$2" bs=1M skip=$at count=20 status=none; wipefs -n "$2"; done`
			part := filepath.Join(t.TempDir(), "part")
			shell(t, `printf '`+test.table+`' | sfdisk --quiet --no-tell-kernel --no-reread "$1"
				truncate -s 20M "$2"; mkfs.ext4 -q "$2"; for at in 10 32; do dd if="$2" of="$1" bs=1M seek=$at conv=notrunc,fsync status=none; done`, device, part)
			if out := shell(t, found, file, part); strings.Count(out, "ext4") != 2 {
				t.Fatalf("in the beginning: %s", out)
			}
			e, h, said := onLoop(t, device)
			if _, err := e.Metadata(t.Context(), h, steps.Job{}); err != nil {
				t.Fatalf("Metadata = %v\n%s", err, said)
			}
			if out := shell(t, found, file, part); out != "" {
				t.Errorf("left: %s", out)
			}
		})
	}
}

// File systems of clusters are found wherever they are; a real one of GFS2 is not at hand, so its superblock is.
func TestRootGuard(t *testing.T) {
	for _, test := range []struct {
		name, script string
		magic        string
		want         string
	}{
		{"VMFS in a GPT", `printf 'label: gpt\nsize=8M\nsize=8M, type=AA31E02A-400F-11DB-9590-000C2911D1B8\n' | sfdisk --quiet "$1"`, "", "/dev/vdtest has a partition of VMware VMFS"},
		{"GPFS in a GPT", `printf 'label: gpt\nsize=8M, type=37affc90-ef7d-4e96-91c3-2d7ae055b174\n' | sfdisk --quiet "$1"`, "", "/dev/vdtest has a partition of IBM GPFS"},
		{"GPFS in what is left of a GPT", `printf 'label: gpt\nsize=8M, type=37affc90-ef7d-4e96-91c3-2d7ae055b174\n' | sfdisk --quiet "$1"; dd if=/dev/zero of="$1" bs=4096 count=8 conv=notrunc status=none`, "", "/dev/vdtest has a partition of IBM GPFS"},
		{"VMFS in an MBR", `printf 'label: dos\nsize=8M, type=fb\n' | sfdisk --quiet "$1"`, "", "/dev/vdtest has a partition of VMware VMFS"},
		{"VMFS in a logical partition", `printf 'label: dos\n1 : size=8M\n2 : size=40M, type=5\n5 : size=8M\n6 : size=8M, type=fb\n' | sfdisk --quiet "$1"`, "", "/dev/vdtest has a partition of VMware VMFS"},
		{"GFS2 in a partition", `printf 'label: gpt\nstart=1M,size=8M\n' | sfdisk --quiet "$1"; partx --update "$1"`, "\x01\x16\x19\x70\x00\x00\x00\x01", "/dev/vdtestp1 has Red Hat GFS2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			device, file := looptest.New(t, 64<<20, 512)
			t.Cleanup(func() { exec.Command("partx", "--delete", device).Run() })
			shell(t, test.script, device)
			if test.magic != "" {
				write(t, device+"p1", []byte(test.magic), 64<<10)
			}
			before := shell(t, `sync; sha256sum "$1"`, file)
			e, h, _ := onLoop(t, device)
			for name, run := range map[string]func(context.Context, steps.Host, steps.Job) (any, error){"metadata": e.Metadata} {
				for _, info := range []string{"{}", `{"wipe_special_filesystems": true}`} {
					job := steps.Job{}
					if err := json.Unmarshal([]byte(info), &job.Node.DriverInternalInfo); err != nil {
						t.Fatal(err)
					}
					if _, err := run(t.Context(), h, job); !errors.Is(err, steps.ErrProtected) || !strings.Contains(err.Error(), test.want) {
						t.Errorf("%s: %v, want %q", name, err, test.want)
					}
				}
			}
			if after := shell(t, `sync; sha256sum "$1"`, file); after != before {
				t.Error("the disk was touched")
			}
			job := steps.Job{Node: steps.Node{DriverInternalInfo: map[string]json.RawMessage{"wipe_special_filesystems": json.RawMessage("false")}}}
			if _, err := e.Metadata(t.Context(), h, job); err != nil {
				t.Errorf("unguarded: %v", err)
			}
		})
	}
}

// The kernel's own ways to erase, on devices of both sector sizes, with something mounted from them in the beginning.
func TestRootDevices(t *testing.T) {
	for _, test := range []struct{ name, node, method string }{
		{"discard", `{"agent_erase_devices_iterations": 0}`, "discard"},
		{"passes and zeros", `{"agent_erase_devices_iterations": 2}`, "overwrite with 2 passes of random data and one of zeros"},
	} {
		for _, sector := range []int{512, 4096} {
			t.Run(fmt.Sprint(test.name, " ", sector), func(t *testing.T) {
				const size = 100<<20 + 4096
				device, file := looptest.New(t, size, sector)
				point := t.TempDir()
				t.Cleanup(func() {
					exec.Command("umount", "-R", point).Run()
					exec.Command("partx", "--delete", device).Run()
				})
				shell(t, `printf 'label: gpt\nstart=1MiB, size=90MiB\n' | sfdisk --quiet --no-tell-kernel --no-reread "$1"; partx --update "$1"; mkfs.ext4 -q "$1"p1
					mount "$1"p1 "$2"; yes "a secret" | head -c 50M > "$2/file"; sync`, device, point)
				if out, err := exec.Command("grep", "-c", "a secret", file).CombinedOutput(); err != nil {
					t.Fatalf("the secret is not on it: %s", out)
				}
				e, h, said := onLoop(t, device)
				var job steps.Job
				if err := json.Unmarshal([]byte(test.node), &job.Node.DriverInternalInfo); err != nil {
					t.Fatal(err)
				}
				result, err := e.Devices(t.Context(), h, job)
				if err != nil {
					t.Fatalf("Devices = %v\n%s", err, said)
				}
				c := result.(map[string]erase.Certificate)["/dev/vdtest"]
				if c.Method != test.method || c.Size != size || c.Proof.Samples < 60 || c.Proof.Zero != c.Proof.Samples || len(c.Failed) > 0 {
					t.Errorf("certificate %+v", c)
				}
				// The judge compares the file with nothing.
				shell(t, `sync; cmp -n "$2" "$1" /dev/zero; ! ls "$3"p* 2>/dev/null`, file, fmt.Sprint(size), device)
			})
		}
	}
}

// Devices that know no commands of drives say so, and nothing worse happens.
func TestRootNoCommands(t *testing.T) {
	device, _ := looptest.New(t, 1<<20, 512)
	d, err := erase.Local().System.Drive(device)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.NVMe(erase.NVMeCommand{Opcode: 6, CDW10: 1, Data: make([]byte, 4096)}); err == nil {
		t.Error("a loop device takes NVMe commands")
	}
	if answer, err := d.SCSI(erase.SCSICommand{CDB: make([]byte, 6)}); err == nil {
		t.Errorf("a loop device takes SCSI commands: %+v", answer)
	}
}
