// SPDX-License-Identifier: Apache-2.0

//go:build linux

package raid

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	fat "github.com/ironhand/ironhand/image/volume"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/guesttest"
	"github.com/ironhand/ironhand/stream"
)

// espSerial is the number of the FAT volume in the images here, as blkid prints it.
const espSerial = "1234-ABCD"

// osImage writes the image of a disk with an EFI system partition, if it is to have one, and another partition.
func osImage(t *testing.T, sector int, esp bool) string {
	t.Helper()
	table, err := gpt.New(64*mib, sector)
	if err != nil {
		t.Fatal(err)
	}
	first := func(at int) uint64 { return uint64(at / sector) }
	kind := gpt.LinuxData
	if esp {
		kind = gpt.EFISystem
	}
	for i, p := range []gpt.Partition{
		{Number: 1, Type: kind, First: first(1 * mib), Last: first(33*mib) - 1},
		{Number: 2, Type: gpt.LinuxData, First: first(33 * mib), Last: first(60*mib) - 1},
	} {
		if err := table.Put(p); err != nil {
			t.Fatal(i, err)
		}
	}
	system, err := fat.FAT{Size: 32 * mib, SectorSize: sector, Label: "ESP", Serial: 0x1234abcd, Files: map[string][]byte{"EFI/BOOT/BOOTX64.EFI": bytes.Repeat([]byte("loader"), 1<<20)}}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64*mib)
	copy(b, table.Head())
	copy(b[1*mib:], system)
	backup, at := table.Backup()
	copy(b[at:], backup)
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// write writes an image to an array, as the step does.
func (b *bench) write(device, path string, digest stream.Digest) error {
	b.T.Helper()
	if err := Release(b.T.Context(), b.Host, b.Node, device); err != nil {
		return err
	}
	d, err := b.Host.Open(device)
	if err != nil {
		return err
	}
	defer d.Close()
	src, err := stream.NewFile(path)
	if err != nil {
		return err
	}
	_, err = image.Write(b.T.Context(), d, image.Spec{Sources: []stream.Source{src}, Digest: digest})
	return err
}

// An array with an operating system in it: each disk gets an EFI system partition with what the image has for it, equal on all.
func TestGuestBoot(t *testing.T) {
	const raidType, espType = "A19D880F-05FC-4D3B-A006-743F0F84911E", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	for _, test := range []struct {
		disks  string
		esp    string // partitions
		sector int
		table  string // of the first disk
	}{
		{"vda vdb", "vda2 vdb2", 512, "gpt 1128448 968704 " + raidType + ", 2048 1126400 " + espType},
		{"nvme0n1 nvme1n1", "nvme0n1p2 nvme1n1p2", 4096, "gpt 141056 121088 " + raidType + ", 256 140800 " + espType},
	} {
		t.Run(test.disks, func(t *testing.T) {
			b := newBench(t)
			disks, esps := strings.Fields(test.disks), strings.Fields(test.esp)
			b.mustCreate(software("1 1 system " + test.disks))
			before := b.Table("/dev/" + disks[0])

			// An image of which the digest is wrong leaves both ends empty.
			path := osImage(t, test.sector, true)
			wrong, err := stream.ParseDigest("sha256", strings.Repeat("0", 64))
			if err != nil {
				t.Fatal(err)
			}
			if err := b.write("/dev/md0", path, wrong); !errors.Is(err, stream.ErrDigest) {
				t.Fatalf("a wrong digest: %v", err)
			}
			b.wantZeroEnds("/dev/md0")
			if _, _, err := PrepareUEFI(t.Context(), b.Host, "/dev/md0"); err == nil {
				t.Error("EFI system partitions for an array without an operating system")
			}
			// Nor is one without an EFI system partition a reason to change the disks.
			if err := b.write("/dev/md0", osImage(t, test.sector, false), stream.Digest{}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := PrepareUEFI(t.Context(), b.Host, "/dev/md0"); !errors.Is(err, image.ErrNoESP) || !errors.Is(err, steps.ErrRAID) {
				t.Errorf("PrepareUEFI() of an image without = %v", err)
			}
			if got := b.Table("/dev/" + disks[0]); got != before {
				t.Errorf("the table of %s was %s, is %s", disks[0], before, got)
			}

			if err := b.write("/dev/md0", path, stream.Digest{}); err != nil {
				t.Fatal(err)
			}
			esp, on, err := PrepareUEFI(t.Context(), b.Host, "/dev/md0")
			if err != nil {
				t.Fatal(err)
			}
			if want := "/dev/" + disks[0] + " /dev/" + disks[1]; esp != "/dev/md1" || strings.Join(on, " ") != want {
				t.Errorf("PrepareUEFI() = %s, %v, want /dev/md1, %s", esp, on, want)
			}
			detail := b.detail()
			if want := "any:esp raid1 1.0 " + test.esp; !strings.Contains(detail, want) {
				t.Errorf("arrays:\n%s\nwant among them:\n%s", detail, want)
			}
			if got := b.Table("/dev/" + disks[0]); got != test.table {
				t.Errorf("partitions of %s: %s\nwant %s", disks[0], got, test.table)
			}
			b.wantESP(esp, path, esps)
			b.Run("cmp", "-n", fmt.Sprint(540*mib), "/dev/"+esps[0], "/dev/"+esps[1])
			if out, _ := exec.Command("blkid", "-p", "/dev/md0p1").CombinedOutput(); !strings.Contains(string(out), "PART_ENTRY") || strings.Contains(string(out), " TYPE=") {
				t.Errorf("blkid -p /dev/md0p1: %s", out)
			}

			// Again, it changes nothing. After a restart neither.
			for range 2 {
				again, _, err := PrepareUEFI(t.Context(), b.Host, b.device("system"))
				if err != nil || b.detail() != detail || b.Table("/dev/"+disks[0]) != test.table {
					t.Errorf("PrepareUEFI() again = %v, arrays:\n%s", err, b.detail())
				}
				b.wantESP(again, path, esps)
				b.restart()
				b.wantDetail(detail)
			}

			// The next image: while it is written, nothing boots.
			code := bytes.Repeat([]byte{0xeb}, 440)
			f, err := os.OpenFile("/dev/"+disks[1], os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(code, 0); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if err := b.write(b.device("system"), path, wrong); !errors.Is(err, stream.ErrDigest) {
				t.Fatalf("a wrong digest: %v", err)
			}
			for _, p := range esps {
				if out, err := exec.Command("blkid", "-p", "/dev/"+p).CombinedOutput(); !strings.Contains(string(out), "PART_ENTRY") || strings.Contains(string(out), " TYPE=") {
					t.Errorf("blkid -p /dev/%s: %s, %v", p, out, err)
				}
			}
			head, _, err := probe(b.Host.Machine.FS, "/dev/"+disks[1], mib, mib)
			if err != nil || len(bytes.Trim(head[:len(code)], "\x00")) > 0 {
				t.Errorf("boot code is left on %s: %v", disks[1], err)
			}
			b.mustDelete()
			b.wantEmpty()
		})
	}
}

// device is the one of the array of a name.
func (b *bench) device(name string) string {
	b.T.Helper()
	arrays, err := Arrays(b.T.Context(), b.Host)
	if err != nil {
		b.T.Fatal(err)
	}
	for _, a := range arrays {
		if a.Name == name {
			return a.Device
		}
	}
	b.T.Fatalf("there is no array %s: %v", name, arrays)
	return ""
}

// wantZeroEnds wants the first and the last MiB of a device to be zero.
func (b *bench) wantZeroEnds(device string) {
	b.T.Helper()
	d, err := b.Host.Open(device)
	if err != nil {
		b.T.Fatal(err)
	}
	defer d.Close()
	for _, at := range []int64{0, d.Size() - mib} {
		got := make([]byte, mib)
		if _, err := d.ReadAt(got, at); err != nil || len(bytes.Trim(got, "\x00")) > 0 {
			b.T.Errorf("%s at %d is not zero: %v", device, at, err)
		}
	}
}

// wantESP wants the EFI system partition of an image, as it is there, on an array and on each of its members, by the word of blkid and cmp.
func (b *bench) wantESP(device, path string, members []string) {
	b.T.Helper()
	// The members are in step at the latest when the kernel has gone through them.
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(time.Second) {
		if a := syncAction(b.Host.Machine.FS, device); a == "idle" {
			break
		} else if time.Now().After(deadline) {
			b.T.Fatalf("%s: %s", device, a)
		}
	}
	if out := b.Run("blkid", "-p", device); !strings.Contains(out, `UUID="`+espSerial+`"`) || !strings.Contains(out, `TYPE="vfat"`) {
		b.T.Errorf("blkid -p %s: %s", device, out)
	}
	b.wantSame(path, members...)
}

// wantSame wants the bytes of the EFI system partition of an image at the start of devices.
func (b *bench) wantSame(path string, devices ...string) {
	b.T.Helper()
	b.Run("busybox", "dd", "if="+path, "of=/tmp/esp", "bs=1048576", "skip=1", "count=32")
	for _, d := range devices {
		f, err := openShared("/dev/" + d) // what the kernel has in memory of a member is from before the array wrote to it
		if err != nil {
			b.T.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.T.Fatal(err)
		}
		b.Run("cmp", "-n", fmt.Sprint(32*mib), "/tmp/esp", "/dev/"+d)
	}
}

// While an image is written the members of an array are not brought in step, and afterwards they are; also if the agent was killed in between.
func TestGuestHold(t *testing.T) {
	b := newBench(t)
	if err := os.WriteFile("/proc/sys/dev/raid/speed_limit_max", []byte("1000"), 0); err != nil { // a slow disk
		t.Fatal(err)
	}
	b.mustCreate(software("1 1 system vda vdb", "0 1 data vda vdb"))
	action := func(want string) {
		t.Helper()
		got := ""
		for range 50 {
			if got = syncAction(b.Host.Machine.FS, "/dev/md0"); got == want {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("sync_action = %s, want %s", got, want)
	}
	action("resync")
	release, err := Hold(b.Host)
	if err != nil {
		t.Fatal(err)
	}
	action("frozen")
	release()
	action("resync")
	if _, err := Hold(b.Host); err != nil { // and the agent is killed
		t.Fatal(err)
	}
	action("frozen")
	if err := Assemble(context.Background(), b.Host); err != nil {
		t.Fatal(err)
	}
	action("resync")
	if err := os.WriteFile("/proc/sys/dev/raid/speed_limit_max", []byte("200000"), 0); err != nil {
		t.Fatal(err)
	}
	b.mustDelete()
	b.wantEmpty()
}

// Disks with a GPT get a partition for GRUB; what is in them is for GRUB's own tests.
func TestGuestBIOS(t *testing.T) {
	b := newBench(t)
	b.Node.Properties = map[string]json.RawMessage{"capabilities": json.RawMessage(`"boot_mode:bios,disk_label:gpt"`)}
	b.mustCreate(software("1 MAX system vda vdb"))
	const raidType, biosType = "A19D880F-05FC-4D3B-A006-743F0F84911E", "21686148-6449-6E6F-744E-656564454649"
	before := b.Table("/dev/vda")
	if err := b.write("/dev/md0", osImage(t, 512, false), stream.Digest{}); err != nil {
		t.Fatal(err)
	}
	install := func() error {
		_, err := InstallBIOS(t.Context(), b.Host, "/dev/md0", "", image.LocalVolumes("/dev/md0", tool.Exec{}, nil))
		return err
	}
	// There is no file system with GRUB in the image: nothing is changed.
	if err := install(); !errors.Is(err, image.ErrNoImageLoader) || !errors.Is(err, steps.ErrRAID) || b.Table("/dev/vda") != before {
		t.Errorf("InstallBIOS() = %v, table %s", err, b.Table("/dev/vda"))
	}
	state, err := look(t.Context(), b.Host)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"1 partition more", "none more"} {
		_, add, err := placeFor(b.Host, *state.disk("/dev/vda"), gpt.BIOSBoot, "bios-boot-part-0", biosBootSize)
		if err != nil || (add != nil) != (i == 0) {
			t.Fatalf("placeFor() = %v, %v, want %s", add, err, want)
		}
		if add != nil {
			if err := add.write(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, want := b.Table("/dev/vda"), before+", 2048 4096 "+biosType; got != want || !strings.Contains(got, raidType) {
		t.Errorf("table %s, want %s", got, want)
	}
	// There is no room for an EFI system partition.
	if _, _, err := PrepareUEFI(t.Context(), b.Host, "/dev/md0"); err == nil {
		t.Error("PrepareUEFI() of an image without")
	}
	if err := b.write("/dev/md0", osImage(t, 512, true), stream.Digest{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := PrepareUEFI(t.Context(), b.Host, "/dev/md0"); err == nil || !strings.Contains(err.Error(), "nowhere on /dev/vda are 550 MiB free") {
		t.Errorf("PrepareUEFI() without room = %v", err)
	}
	b.mustDelete()
	b.wantEmpty()
}

// The machine is killed at points of the copying; the command is run again and ends right.
func TestGuestBootKilled(t *testing.T) {
	b := newBench(t)
	b.mustCreate(software("1 1 system vda vdb"))
	path := osImage(t, 512, true)
	for n, killed := 0, true; killed; n += 1 + n/3 {
		if err := b.write(b.device("system"), path, stream.Digest{}); err != nil {
			t.Fatal(err)
		}
		b.KillAfter(n)
		_, _, err := PrepareUEFI(t.Context(), b.Host, b.device("system"))
		if killed = errors.Is(err, guesttest.ErrKilled); err != nil && !killed {
			t.Fatalf("killed after %d operations: %v", n, err)
		}
		b.restart()
		esp, _, err := PrepareUEFI(t.Context(), b.Host, b.device("system"))
		if err != nil {
			t.Fatalf("killed after %d operations, and again: %v", n, err)
		}
		b.wantSame(path, strings.TrimPrefix(esp, "/dev/"), "vda2", "vdb2")
		if got := b.detail(); got != "any:esp raid1 1.0 vda2 vdb2\nany:system raid1 1.2 vda1 vdb1" {
			t.Errorf("killed after %d operations: arrays:\n%s", n, got)
		}
		t.Logf("killed after %d operations: %v", n, killed)
	}
	b.mustDelete()
	b.wantEmpty()
}
